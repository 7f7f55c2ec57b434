//! Tidying the archive: removes the backups that rotation lets go, and every object that neither a
//! kept backup nor a restore to any moment of the window needs.
//!
//! Refuses: to remove anything while there is a manifest it cannot believe.

use std::collections::BTreeSet;
use std::time::Duration;

use storage::archive::{Archive, ArchiveError};
use storage::log::segment::cold::{ColdSegments, number_of};

use super::garbage::{GarbageError, Inventory, garbage};
use super::name::{AUDIT, BACKUPS, KEYS, ObjectName, SEGMENTS, SNAPSHOTS};
use super::pace::{Pace, Rest};
use super::rotation::{BackupTime, kept};
use super::{Source, Tell, Told, catalog};
use crate::archivist::pass::{PassError, needed_since, snapshot, snapshots};

/// Objects younger than this stay, by the archive's clock: something under way may rely on them.
const YOUNG: Duration = Duration::from_secs(60 * 60);

/// Why the archive is not tidied.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The node has no archive.
    #[error("the node has no archive")]
    NoArchive,
    /// The archive cannot be asked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What is needed cannot be told.
    #[error(transparent)]
    Needed(#[from] PassError),
    /// What is needed cannot be told.
    #[error(transparent)]
    Garbage(#[from] GarbageError),
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Backups.
    pub backups: u64,
    /// Objects, those of the backups included.
    pub objects: u64,
}

/// Removes what is not needed. `window` is how far back every moment can be brought back.
pub fn sweep(source: &Source, window: Duration, tell: Tell<'_>) -> Result<Swept, SweepError> {
    let (Some(history), Some(cold)) = (source.store.history(), source.store.cold()) else {
        return Err(SweepError::NoArchive);
    };
    tell(Told::Step { name: "looking for what is not needed", total: 0 });
    let archive = &**cold.archive();
    let now_ms = source.env.now_ms();
    let from_ms = now_ms.saturating_sub(millis(window));
    let old = old_segments(archive, window)?;
    release(source, &old)?;
    let manifests = catalog::read(archive, &source.signer.verifier())?.backups;
    let times: Vec<_> = manifests.iter().map(BackupTime::from).collect();
    let kept = kept(&times, now_ms);
    let mut listing = Vec::new();
    for directory in [AUDIT, BACKUPS, KEYS, SEGMENTS, SNAPSHOTS] {
        listing.extend(archive.list(directory)?);
    }
    let needed = needed_since(&source.store, from_ms)?;
    // The archive's clock need not be this machine's.
    let newest_ms = listing.iter().map(|object| object.modified_ms).max().unwrap_or_default();
    let young_ms = newest_ms.saturating_sub(millis(YOUNG));
    let inventory = Inventory {
        manifests: &manifests,
        kept: &kept,
        listing: &listing,
        needed: &needed,
        young_ms,
    };
    let doomed = garbage(&inventory)?;
    tell(Told::Step { name: "removing what is not needed", total: doomed.len() as u64 });
    let mut swept = Swept::default();
    let pace = Pace::new(source);
    for name in doomed {
        match name.parse() {
            Ok(ObjectName::Segment { number, .. }) if is_catalogued(cold, number, &name)? => {
                pace.step(Rest::Short, || cold.remove(number))?;
            }
            parsed => {
                pace.step(Rest::Short, || archive.remove(&name))?;
                history.forget(&name);
                swept.backups += u64::from(matches!(parsed, Ok(ObjectName::Manifest(_))));
            }
        }
        swept.objects += 1;
        tell(Told::At(swept.objects));
    }
    Ok(swept)
}

/// The numbers of the segments that were archived before the window, by the archive's clock.
fn old_segments(archive: &dyn Archive, window: Duration) -> Result<BTreeSet<u64>, ArchiveError> {
    let segments = archive.list(SEGMENTS)?;
    let newest_ms = segments.iter().map(|object| object.modified_ms).max().unwrap_or_default();
    let from_ms = newest_ms.saturating_sub(millis(window));
    let old = segments.iter().filter(|object| object.modified_ms < from_ms);
    Ok(old.filter_map(|object| number_of(&object.name)).collect())
}

/// Snapshots the tenants whose lack of one is all that keeps a segment from before the window.
fn release(source: &Source, old: &BTreeSet<u64>) -> Result<(), PassError> {
    let (Some(history), Some(cold)) = (source.store.history(), source.store.cold()) else {
        return Err(PassError::NoArchive);
    };
    for segment in cold.list()?.iter().filter(|segment| old.contains(&segment.number)) {
        for (&tenant, (_, end)) in &segment.tenants {
            let newest = snapshots(&source.store, history, tenant)?.pop();
            if newest.is_none_or(|kept| kept.header.lsn < end.lsn) {
                snapshot(&source.store, tenant)?;
            }
        }
    }
    Ok(())
}

/// Whether the log reads that segment from that object.
fn is_catalogued(cold: &ColdSegments, number: u64, name: &str) -> Result<bool, ArchiveError> {
    Ok(cold.list()?.iter().any(|segment| segment.number == number && segment.name == name))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
