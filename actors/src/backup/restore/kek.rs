//! Which key-encryption key a restore is offered, and which one the backup needs. Refuses what cannot
//! be the one, before anything is made.

use std::path::Path;

use storage::disk::{Disk as _, RealDisk};
use storage::keystore::{KeyError, kek_id_of};
use storage::scratch;

use super::{KEK_BYTES_MAX, KekFrom, RestoreError, RestoreOptions};

/// Refuses a key-encryption key that cannot open the keys of the backup. Only the ids are compared: whether
/// it opens them shows when they are opened.
pub(super) fn check_kek(options: &RestoreOptions, needed: &[String]) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Keys { needed: needed.to_vec(), source };
    let offered: Vec<String> = match (&options.kek, &options.keys.source) {
        (KekFrom::File(path), _) => {
            let unreadable = |source| RestoreError::Kek { path: path.clone(), source };
            let bytes = scratch::read_secret(path, KEK_BYTES_MAX).map_err(unreadable)?;
            vec![kek_id_of(path, &bytes).map_err(failed)?.to_string()]
        }
        (KekFrom::Source, Some(spec)) => {
            let versions = spec.versions().map_err(|error| failed(error.into()))?;
            let all = std::iter::once(&versions.current).chain(&versions.older);
            all.map(|kek| kek.id().to_string()).collect()
        }
        (KekFrom::Directory(dir), None) => {
            let ids = kek_ids_in(dir).map_err(failed)?;
            return match ids.iter().any(|kek| needed.contains(kek)) {
                true => Ok(()),
                false => Err(RestoreError::RetiredKek { needed: needed.to_vec() }),
            };
        }
        // Their source is asked when they are opened; or there is nothing that could be asked.
        (KekFrom::Directory(_), Some(_)) | (KekFrom::Source, None) => return Ok(()),
    };
    match offered.iter().any(|kek| needed.contains(kek)) {
        true => Ok(()),
        false => Err(RestoreError::OtherKek { offered, needed: needed.to_vec() }),
    }
}

/// The versions of the key-encryption key that a node's directory has.
fn kek_ids_in(dir: &Path) -> Result<Vec<String>, KeyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::Io { path, source }
    };
    let mut ids = Vec::new();
    for path in RealDisk.list(dir).map_err(failed(dir))? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_kek_file(name) {
            let bytes = scratch::read_secret(&path, KEK_BYTES_MAX).map_err(failed(&path))?;
            ids.push(kek_id_of(&path, &bytes)?.to_string());
        }
    }
    Ok(ids)
}

/// Whether a file of the key store holds a version of the key-encryption key.
pub(super) fn is_kek_file(name: &str) -> bool {
    let is_id = |id: &str| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    name == "kek" || name.strip_prefix("kek.").is_some_and(is_id)
}
