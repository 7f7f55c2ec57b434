//! The backups and drill reports that an archive has. Refuses to name one whose signature was not
//! verified.

use storage::archive::{Archive, ArchiveError};
use storage::id::BackupId;

use super::manifest::{BackupManifest, MANIFEST_BYTES_MAX, SignedManifest};
use super::name::{BACKUPS, DRILLS, ObjectName};
use super::report::{DrillReport, REPORT_BYTES_MAX};
use super::signed::{Document, Signed, SignedError};
use crate::audit::note::NoteVerifier;

/// Why a backup cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The archive cannot be asked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is none at all.
    #[error("there is no backup in {location}")]
    Empty {
        /// Where was looked.
        location: String,
    },
    /// There is no such one.
    #[error("there is no backup {id} in {location}; `bulkhead backup list` shows which there are")]
    Absent {
        /// Which was asked for.
        id: BackupId,
        /// Where was looked.
        location: String,
    },
    /// It is not believed.
    #[error("{name}: {source}")]
    Bad {
        /// The object's name.
        name: String,
        /// Why.
        source: SignedError,
    },
}

/// What an archive has.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The backups, oldest first.
    pub backups: Vec<BackupManifest>,
    /// Manifests that are not believed: their names, and why.
    pub damaged: Vec<(String, String)>,
}

impl Catalog {
    /// The newest backup.
    pub fn newest(&self) -> Option<&BackupManifest> {
        self.backups.last()
    }
}

/// Reads every manifest.
///
/// # Errors
/// If the archive cannot be asked. What is not believed is no error.
pub fn read(archive: &dyn Archive, verifier: &NoteVerifier) -> Result<Catalog, ArchiveError> {
    let mut catalog = Catalog::default();
    for (id, bytes) in manifests(archive)? {
        match signed(archive, id, bytes).and_then(|signed| verified(id, signed, verifier)) {
            Ok(manifest) => catalog.backups.push(manifest),
            Err(CatalogError::Archive(error @ ArchiveError::Unreachable { .. })) => {
                return Err(error);
            }
            Err(error) => {
                let name = ObjectName::Manifest(id).to_string();
                catalog.damaged.push((name, error.to_string()));
            }
        }
    }
    catalog.backups.sort_by_key(|manifest| (manifest.taken_ms, manifest.id));
    Ok(catalog)
}

/// Reads one manifest, or the newest. Whose it is, is not known before it is verified.
pub fn pick(
    archive: &dyn Archive,
    wanted: Option<BackupId>,
) -> Result<SignedManifest, CatalogError> {
    let location = || archive.location();
    let all = manifests(archive)?;
    let found = match wanted {
        Some(wanted) => all.into_iter().find(|(id, _)| *id == wanted),
        // Ids begin with the time.
        None => all.into_iter().max(),
    };
    let (id, bytes) = found.ok_or_else(|| match wanted {
        Some(id) => CatalogError::Absent { id, location: location() },
        None => CatalogError::Empty { location: location() },
    })?;
    signed(archive, id, bytes)
}

/// Reads one manifest, or the newest, and verifies it.
pub fn pick_verified(
    archive: &dyn Archive,
    wanted: Option<BackupId>,
    verifier: &NoteVerifier,
) -> Result<BackupManifest, CatalogError> {
    let signed = pick(archive, wanted)?;
    verified(signed.claimed().id, signed, verifier)
}

/// When the newest drill that passed was finished, Unix milliseconds. Reports that are not believed
/// count for nothing.
pub fn last_passed_drill(
    archive: &dyn Archive,
    verifier: &NoteVerifier,
) -> Result<Option<u64>, ArchiveError> {
    let mut objects = archive.list(DRILLS)?;
    // Names sort by time.
    while let Some(object) = objects.pop() {
        if object.bytes > REPORT_BYTES_MAX as u64 {
            continue;
        }
        let bytes = archive.get(&object.name)?;
        let report =
            Signed::<DrillReport>::parse(&bytes).and_then(|signed| signed.into_verified(verifier));
        match report {
            Ok(report) if report.is_passed() => return Ok(Some(report.finished_ms)),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(object = object.name, %error, "a drill's report is not believed");
            }
        }
    }
    Ok(None)
}

fn manifests(archive: &dyn Archive) -> Result<Vec<(BackupId, u64)>, ArchiveError> {
    let id = |name: &str| match name.parse() {
        Ok(ObjectName::Manifest(id)) => Some(id),
        _ => None,
    };
    let objects = archive.list(BACKUPS)?;
    Ok(objects.iter().filter_map(|object| Some((id(&object.name)?, object.bytes))).collect())
}

fn signed(archive: &dyn Archive, id: BackupId, bytes: u64) -> Result<SignedManifest, CatalogError> {
    let name = ObjectName::Manifest(id).to_string();
    let bad = |source| CatalogError::Bad { name: name.clone(), source };
    if bytes > MANIFEST_BYTES_MAX as u64 {
        return Err(bad(SignedError::TooLarge {
            kind: BackupManifest::KIND,
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            bytes_max: MANIFEST_BYTES_MAX,
        }));
    }
    let signed = SignedManifest::parse(&archive.get(&name)?).map_err(bad)?;
    if signed.claimed().id != id {
        let found = format!("manifest of {}", signed.claimed().id);
        return Err(bad(SignedError::OtherKind { kind: BackupManifest::KIND, found }));
    }
    Ok(signed)
}

fn verified(
    id: BackupId,
    signed: SignedManifest,
    verifier: &NoteVerifier,
) -> Result<BackupManifest, CatalogError> {
    let name = || ObjectName::Manifest(id).to_string();
    signed.into_verified(verifier).map_err(|source| CatalogError::Bad { name: name(), source })
}
