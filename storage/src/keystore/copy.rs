//! Copies of what is wrapped, for backups. Never of a key-encryption key: without it, which is kept
//! elsewhere, a copy is worthless.
//!
//! Refuses: to copy while keys are wrapped again, so that no copy needs a version that is about to be
//! destroyed.

use std::collections::BTreeSet;

use super::files::{read_if_any, wrapped};
use super::frame::Wrapped;
use super::source::KekId;
use super::{KeyError, KeyStore};
use crate::disk::CopyFile;
use crate::id::{Id, TenantId};

/// The path of a tenant's file under the key store's directory, parts joined by `/`.
pub fn tenant_file(tenant: TenantId) -> String {
    format!("tenants/{:02x}/{tenant}.key", tenant.as_bytes()[15])
}

/// Whose file that is, if it is a tenant's.
pub fn tenant_of(file: &str) -> Option<TenantId> {
    let (_, name) = file.strip_prefix("tenants/")?.split_once('/')?;
    name.strip_suffix(".key")?.parse().ok().filter(|tenant| tenant_file(*tenant) == file)
}

impl KeyStore {
    /// Hands every wrapped file to `visit`: its path under the key store's directory, parts joined by
    /// `/`, and its bytes. Returns which versions of the key-encryption key they are wrapped with.
    ///
    /// # Errors
    /// [`KeyError::Rotating`] during a rotation, [`KeyError::Damaged`] for a file that is none; and
    /// whatever `visit` says.
    pub fn copy_wrapped<E: From<KeyError>>(
        &self,
        visit: CopyFile<'_, E>,
    ) -> Result<BTreeSet<KekId>, E> {
        let _rotating = self.begin()?;
        let mut keks = BTreeSet::new();
        for file in wrapped(&*self.disk, &self.dir) {
            let file = file?;
            // Destroyed just now.
            let Some(bytes) = read_if_any(&*self.disk, &file.path)? else { continue };
            keks.insert(Wrapped::parse(&file.path, file.magic, &bytes)?.kek);
            let inside = file.path.strip_prefix(&self.dir).unwrap_or(&file.path);
            visit(&inside.to_string_lossy(), &bytes)?;
        }
        Ok(keks)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::fault::FaultDisk;
    use crate::seal::SystemRandom;

    #[test]
    fn a_copy_has_every_wrapped_file_and_no_key_encryption_key() {
        let disk = Arc::new(FaultDisk::new());
        let store = KeyStore::open(disk, Path::new("/keys"), Arc::new(SystemRandom)).unwrap();
        let tenant = TenantId::new(1, [7; 10]);
        store.create(tenant).unwrap();
        store.seal_secret("signing", b"secret").unwrap();
        let mut names = Vec::new();
        let keks = store.copy_wrapped(&mut |name, bytes| {
            assert!(!bytes.is_empty());
            names.push(name.to_owned());
            Ok::<_, KeyError>(())
        });
        assert_eq!(keks.unwrap(), BTreeSet::from([store.kek_id()]));
        assert_eq!(names, ["signing.sealed".to_owned(), tenant_file(tenant)]);
        assert_eq!(tenant_of(&names[1]), Some(tenant));
        assert_eq!((tenant_of(&names[0]), tenant_of("tenants/08/x.key")), (None, None));
    }
}
