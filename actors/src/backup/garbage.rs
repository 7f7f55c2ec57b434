//! Which objects of the archive nothing needs any more.
//!
//! An object stays if a kept backup needs it, or the history within reach of a point-in-time
//! restore, or if it is too young to judge: a backup or a snapshot under way may rely on it. The
//! reports of drills always stay.
//!
//! It refuses: to judge while the archive lists a manifest that was not read (its objects would
//! look unneeded); to name an object whose name is not of a known form.

use std::collections::{BTreeSet, HashSet};

use storage::archive::ObjectInfo;
use storage::id::BackupId;

use super::manifest::BackupManifest;
use super::name::ObjectName;

/// Why nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GarbageError {
    /// The archive has a manifest that is not among those read.
    #[error("the archive lists {name}, which was not read: nothing is removed")]
    Unread {
        /// Its name.
        name: String,
    },
}

/// What is there and what is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Inventory<'a> {
    /// Every manifest of the archive, verified.
    pub manifests: &'a [BackupManifest],
    /// The backups that stay ([`kept`](super::rotation::kept)).
    pub kept: &'a BTreeSet<BackupId>,
    /// What the archive lists, taken after the manifests were read.
    pub listing: &'a [ObjectInfo],
    /// Names of objects needed for other reasons: the history that point-in-time restores reach,
    /// and whatever a backup under way relies on.
    pub needed: &'a BTreeSet<String>,
    /// Objects written at this time or later stay: Unix milliseconds, by the archive's clock.
    pub young_ms: u64,
}

/// The names of the objects that may be removed, in the order to remove them: manifests come before
/// what they need, so that an interrupted removal leaves no manifest that promises too much.
pub fn garbage(inventory: &Inventory<'_>) -> Result<Vec<String>, GarbageError> {
    let Inventory { manifests, kept, listing, needed, young_ms } = inventory;
    let known: HashSet<_> = manifests.iter().map(|manifest| manifest.id).collect();
    let names: Vec<_> = listing
        .iter()
        .filter_map(|object| Some((object, object.name.parse::<ObjectName>().ok()?)))
        .collect();
    // A manifest too young to go stays, and then what it names stays with it.
    let mut staying = kept.iter().copied().collect::<HashSet<_>>();
    for (object, name) in &names {
        let ObjectName::Manifest(id) = name else { continue };
        if !known.contains(id) {
            return Err(GarbageError::Unread { name: object.name.clone() });
        }
        if object.modified_ms >= *young_ms {
            staying.insert(*id);
        }
    }
    let wanted: HashSet<&str> = manifests
        .iter()
        .filter(|manifest| staying.contains(&manifest.id))
        .flat_map(BackupManifest::objects)
        .map(|object| object.name.as_str())
        .chain(needed.iter().map(String::as_str))
        .collect();
    let mut doomed = Vec::new();
    for (object, name) in names {
        let (rank, is_needed) = match name {
            ObjectName::Manifest(id) => (0, staying.contains(&id)),
            ObjectName::Keys(id) | ObjectName::Anchors(id) => (1, staying.contains(&id)),
            ObjectName::Snapshot { .. }
            | ObjectName::Segment { .. }
            | ObjectName::AuditChunk { .. }
            | ObjectName::TenantKey { .. } => (2, false),
            ObjectName::Drill(_) => continue,
        };
        let is_young = object.modified_ms >= *young_ms;
        if !is_needed && !is_young && !wanted.contains(object.name.as_str()) {
            doomed.push((rank, object.name.as_str()));
        }
    }
    doomed.sort_unstable();
    doomed.dedup();
    Ok(doomed.into_iter().map(|(_, name)| name.to_owned()).collect())
}
