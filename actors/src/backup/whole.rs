//! Whether what a new backup names is there: each object by its name and its length, which costs a listing,
//! and none that was found damaged.
//!
//! Refuses: to read objects. That is for [`verify`](super::verify); what it finds is remembered here until the
//! process ends, or until it finds the object right.

use std::collections::{BTreeMap, BTreeSet};

use storage::archive::{Archive, ArchiveError};

use super::manifest::{BackupManifest, ObjectRef};
use super::name::ObjectName;
use super::verify::Fault;

/// The objects of an archive that were found damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damaged(BTreeSet<String>);

impl Damaged {
    /// Takes up what verifying a backup found: these faults, and nothing else of what it names.
    pub fn verified<'a>(
        &mut self,
        manifest: &BackupManifest,
        faulty: impl Iterator<Item = &'a str>,
    ) {
        for object in manifest.objects() {
            self.0.remove(&object.name);
        }
        let faulty: BTreeSet<&str> = faulty.collect();
        let named = manifest.objects().filter(|object| faulty.contains(object.name.as_str()));
        self.0.extend(named.map(|object| object.name.clone()));
    }
}

/// What of a backup is not there as it should be.
///
/// # Errors
/// If the archive cannot be asked.
pub fn missing(
    archive: &dyn Archive,
    manifest: &BackupManifest,
    damaged: &Damaged,
) -> Result<Vec<Fault>, ArchiveError> {
    let objects: Vec<&ObjectRef> =
        manifest.objects().filter(|object| is_looked_for(object)).collect();
    let directories: BTreeSet<&str> =
        objects.iter().filter_map(|object| object.name.split('/').next()).collect();
    let mut there = BTreeMap::new();
    for directory in directories {
        let listed = archive.list(directory)?;
        there.extend(listed.into_iter().map(|object| (object.name, object.bytes)));
    }
    let fault = |object: &&ObjectRef| {
        let what = match there.get(&object.name) {
            None => "it is missing".to_owned(),
            Some(bytes) if *bytes != object.bytes => {
                format!("it has {bytes} bytes instead of {}", object.bytes)
            }
            Some(_) if damaged.0.contains(&object.name) => "it was found damaged".to_owned(),
            Some(_) => return None,
        };
        Some(Fault { object: object.name.clone(), what })
    };
    Ok(objects.iter().filter_map(fault).collect())
}

/// Whoever erases a tenant removes its key meanwhile; only a receipt tells that from a loss.
fn is_looked_for(object: &ObjectRef) -> bool {
    !matches!(object.name.parse(), Ok(ObjectName::TenantKey { .. }))
}
