//! One round of the archivist's work, free of any actor: plain calls on the store, which block.
//!
//! In order, and each step only after the one before: complete segments go to the archive; tenants with
//! many records since their last snapshot get a new one; the log lets go of what is archived. What the
//! archive may let go of in turn is decided together with the backups, which share its objects.
//!
//! Refuses: to let go of a segment that is not in the archive, whole, and to pass one that is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use storage::archive::ArchiveError;
use storage::history::{History, HistoryError, Kept};
use storage::id::TenantId;
use storage::log::segment::cold::{ColdError, ColdSegment, ColdSegments};
use storage::log::{LogError, Tail};
use storage::store::{Store, StoreError};

use crate::backup::name::{AUDIT, ObjectName};

/// A tenant with so many records since its last snapshot gets a new one, if they are also about as
/// large as that snapshot: so the work stays in proportion to what is written, however much there is.
const SNAPSHOT_RECORDS: u64 = 1024;

/// However small they are, no more archived segments than this stay in the log: a start looks at each.
const LOCAL_SEGMENTS_MAX: usize = 256;

/// Why a round ended early. What was done by then stays done.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The node has no archive.
    #[error("the node has no archive")]
    NoArchive,
    /// A segment cannot be archived.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The archive cannot be asked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The log cannot be read, or does not let go.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A tenant cannot be snapshotted.
    #[error("{tenant} cannot be snapshotted")]
    Snapshot {
        /// Which.
        tenant: TenantId,
        /// Why not.
        source: HistoryError,
    },
}

impl PassError {
    /// Whether the archive is merely out of reach.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Archive(ArchiveError::Unreachable { .. })
                | Self::Cold(ColdError::Archive(ArchiveError::Unreachable { .. }))
                | Self::Snapshot {
                    source: HistoryError::Archive(ArchiveError::Unreachable { .. }),
                    ..
                }
        )
    }
}

/// What the archivist keeps to.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long every moment can be brought back.
    pub window: Duration,
    /// How old what the growing segment holds may be before it is completed and archived.
    pub roll_after: Duration,
    /// How many bytes of archived segments stay in the log all the same, for quick reads.
    pub local_bytes: u64,
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Segments archived.
    pub archived: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Segments the log let go of.
    pub let_go: u64,
}

/// The parts of a store that has an archive.
struct Parts<'a> {
    store: &'a Store,
    history: &'a History,
    cold: &'a ColdSegments,
}

impl<'a> Parts<'a> {
    fn of(store: &'a Store) -> Result<Self, PassError> {
        match (store.history(), store.cold()) {
            (Some(history), Some(cold)) => Ok(Self { store, history, cold }),
            _ => Err(PassError::NoArchive),
        }
    }
}

/// Puts every complete segment into the archive, oldest first; returns those that still are in the log.
pub fn archive_sealed(store: &Store) -> Result<Vec<Arc<ColdSegment>>, PassError> {
    let parts = Parts::of(store)?;
    parts.cold.claim()?;
    let sealed = store.log().sealed();
    sealed.iter().map(|sealed| Ok(parts.cold.put(sealed)?)).collect()
}

/// Does one round.
pub fn pass(store: &Store, policy: Policy) -> Result<Done, PassError> {
    let parts = Parts::of(store)?;
    let mut done = Done::default();
    parts.cold.claim()?;
    let known = parts.cold.list()?.len() as u64;
    let local = archive_sealed(store)?;
    done.archived = (parts.cold.list()?.len() as u64).saturating_sub(known);
    for segment in &local[..going(&local, policy.local_bytes)] {
        done.snapshots += parts.snapshot_large(segment)?;
        let tails: Vec<_> = segment.tenants.iter().map(|(id, (_, tail))| (*id, *tail)).collect();
        store.log().let_go(&tails)?;
        done.let_go += 1;
    }
    Ok(done)
}

/// How many of `local`, oldest first, the log lets go of, so that no more than `bytes` stay. By size and
/// not by number: a backup completes a segment that may be small, and what comes before letting go costs
/// as much for a small one as for a large one.
fn going(local: &[Arc<ColdSegment>], bytes: u64) -> usize {
    let mut room = bytes;
    let stays = |segment: &&Arc<ColdSegment>| {
        let left = room.checked_sub(segment.bytes);
        room = left.unwrap_or(room);
        left.is_some()
    };
    let staying = local.iter().rev().take(LOCAL_SEGMENTS_MAX).take_while(stays).count();
    local.len() - staying
}

/// Sees to it that a tenant has a snapshot of its last record.
pub fn snapshot(store: &Store, tenant: TenantId) -> Result<Option<Kept>, PassError> {
    Parts::of(store)?.snapshot(tenant)
}

impl Parts<'_> {
    /// Snapshots the tenants of a segment that have much in the log since their last one.
    fn snapshot_large(&self, segment: &ColdSegment) -> Result<u64, PassError> {
        let record_bytes = bytes_per_record(segment);
        let mut taken = 0;
        for (&tenant, (_, end)) in &segment.tenants {
            let newest = snapshots(self.store, self.history, tenant)?.pop();
            let (lsn, bytes) = newest.map_or((0, 0), |kept| (kept.header.lsn, kept.bytes));
            let records = end.lsn.saturating_sub(lsn);
            if records < SNAPSHOT_RECORDS || records.saturating_mul(record_bytes) < bytes {
                continue;
            }
            taken += u64::from(self.snapshot(tenant)?.is_some());
        }
        Ok(taken)
    }

    /// Nothing for a tenant whose key is gone: nothing of it can be read, ever.
    fn snapshot(&self, tenant: TenantId) -> Result<Option<Kept>, PassError> {
        let keys = match self.store.tenant_keys(tenant) {
            Ok(keys) => keys,
            Err(StoreError::Keys(error)) => {
                tracing::debug!(tenant.id = %tenant, %error, "no snapshot without the tenant's key");
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!(tenant.id = %tenant, %error, "no snapshot of a tenant");
                return Ok(None);
            }
        };
        self.history
            .take_snapshot(&keys, &mut |_| {})
            .map_err(|source| PassError::Snapshot { tenant, source })
    }
}

/// A tenant's snapshots that are believed. While its key cannot be had, only those that were before: then
/// more is kept than has to be.
pub(crate) fn snapshots(
    store: &Store,
    history: &History,
    tenant: TenantId,
) -> Result<Vec<Kept>, PassError> {
    let kept = match store.tenant_keys(tenant) {
        Ok(keys) => history.snapshots(&keys),
        Err(_) => history.proven_snapshots(tenant),
    };
    kept.map_err(|source| PassError::Snapshot { tenant, source })
}

fn bytes_per_record(segment: &ColdSegment) -> u64 {
    let records = segment.tenants.values().map(|(first, tail)| tail.lsn + 1 - first).sum::<u64>();
    segment.bytes / records.max(1)
}

/// The names of the objects that every moment since `from_ms` may need: segments written since, and each
/// tenant's newest snapshot before with all after it; and all audit entries of tenants that can be read.
pub fn needed_since(store: &Store, from_ms: u64) -> Result<BTreeSet<String>, PassError> {
    let parts = Parts::of(store)?;
    let mut needed = BTreeSet::new();
    let mut floors: BTreeMap<TenantId, u64> = BTreeMap::new();
    for tenant in store.tenants() {
        if matches!(store.keystore().contains(tenant), Ok(false)) {
            // Erased: no moment of it can be brought back.
            floors.insert(tenant, u64::MAX);
            continue;
        }
        let snapshots = snapshots(store, parts.history, tenant)?;
        let is_before = |kept: &Kept| kept.header.at_max_ms <= from_ms;
        let floor = snapshots.iter().rposition(is_before);
        floors.insert(tenant, floor.map_or(0, |at| snapshots[at].header.lsn));
        needed.extend(snapshots[floor.unwrap_or(0)..].iter().map(|kept| kept.name.clone()));
    }
    for object in parts.cold.archive().list(AUDIT)? {
        if let Ok(ObjectName::AuditChunk { tenant, .. }) = object.name.parse()
            && floors.get(&tenant).is_none_or(|floor| *floor != u64::MAX)
        {
            needed.insert(object.name);
        }
    }
    for segment in parts.cold.list()? {
        let is_past = |(tenant, (_, tail)): (&TenantId, &(u64, Tail))| {
            floors.get(tenant).is_none_or(|floor| tail.lsn <= *floor)
        };
        if !segment.tenants.iter().all(is_past) {
            needed.insert(segment.name.clone());
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(sizes: &[u64]) -> Vec<Arc<ColdSegment>> {
        let segment = |(number, bytes): (u64, &u64)| {
            let name = format!("segments/{number}");
            let tenants = BTreeMap::new();
            Arc::new(ColdSegment { number, name, bytes: *bytes, archived_ms: 0, tenants })
        };
        (1..).zip(sizes).map(segment).collect()
    }

    #[test]
    fn the_log_keeps_the_newest_that_fit_and_nothing_before_one_that_does_not() {
        assert_eq!(going(&segments(&[]), 100), 0);
        assert_eq!(going(&segments(&[40, 30, 30]), 100), 0);
        assert_eq!(going(&segments(&[1, 40, 30, 30]), 100), 1);
        assert_eq!(going(&segments(&[1, 200, 30, 30]), 100), 2);
        assert_eq!(going(&segments(&[1, 2, 3]), 0), 3);
        let many = vec![1; LOCAL_SEGMENTS_MAX + 7];
        assert_eq!(going(&segments(&many), u64::MAX), 7);
    }
}
