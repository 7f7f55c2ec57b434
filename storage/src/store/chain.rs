//! The chain: each record names the hash of the one before, and this is where that is checked.
//!
//! Needs no keys: the hash covers the sealed bytes, so a chain can be verified by anybody, and
//! still after its tenant was erased.
//!
//! Refuses: to go past the first fault.

use super::Store;
use crate::history::HistoryError;
use crate::id::TenantId;
use crate::log::{CommitLog, LogError, Tail};
use crate::record::{GENESIS, Hash, Record};

/// How much of the log is read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// What is wrong with a record, or with the place where it should be.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The record is another tenant's.
    #[error("it belongs to another tenant")]
    ForeignTenant,
    /// The record has another LSN.
    #[error("it says it is record {found}")]
    WrongLsn {
        /// The LSN found.
        found: u64,
    },
    /// The record does not follow the one before.
    #[error("it does not name the record before it")]
    WrongPrev,
    /// The record is not what its hash says.
    #[error("it was changed")]
    WrongHash,
    /// The record's epoch is older than the one before.
    #[error("its epoch is older than that of the record before it")]
    OlderEpoch,
    /// The log's tail says there is a record, but there is none, or another.
    #[error("it is missing")]
    Absent,
    /// The log cannot be read here.
    #[error("it cannot be read")]
    Unreadable(#[source] LogError),
}

/// The first place where a chain does not hold.
#[derive(Debug, thiserror::Error)]
#[error("the history is broken at record {lsn}")]
pub struct ChainFault {
    /// The LSN of the record.
    pub lsn: u64,
    /// What is wrong with it.
    #[source]
    pub what: Fault,
}

/// A chain that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainReport {
    /// How many records were checked.
    pub records: u64,
    /// The hash of the last one; [`GENESIS`] if there is none.
    pub head: Hash,
}

/// A place between two records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) lsn: u64,
    pub(crate) hash: Hash,
    pub(crate) epoch: u64,
}

impl Link {
    /// Before the first record.
    pub(crate) const GENESIS: Self = Self { lsn: 0, hash: GENESIS, epoch: 0 };

    /// The place behind `record`, if it belongs right here.
    pub(crate) fn follow(&self, tenant: TenantId, record: &Record) -> Result<Self, ChainFault> {
        let header = &record.header;
        let lsn = self.lsn + 1;
        let fault = |what| Err(ChainFault { lsn, what });
        if header.tenant != tenant {
            return fault(Fault::ForeignTenant);
        }
        if header.lsn != lsn {
            return fault(Fault::WrongLsn { found: header.lsn });
        }
        if header.prev != self.hash {
            return fault(Fault::WrongPrev);
        }
        if header.epoch < self.epoch {
            return fault(Fault::OlderEpoch);
        }
        if !record.is_intact() {
            return fault(Fault::WrongHash);
        }
        Ok(Self { lsn, hash: header.hash, epoch: header.epoch })
    }
}

/// Reads a tenant's whole history, calls `on_record` with each record, and says whether every
/// record is intact and follows the one before, up to the log's tail. Where older records were cut
/// away, the check begins at the first one left.
///
/// # Errors
/// The first fault found.
pub fn verify_chain(
    log: &dyn CommitLog,
    tenant: TenantId,
    on_record: impl FnMut(&Record),
) -> Result<ChainReport, ChainFault> {
    walk(log, tenant, None, on_record)
}

/// As [`verify_chain`], of what a store keeps. The archive may have let go of records at the beginning of a
/// history, and in its midst where those before are kept for the sake of other tenants: that is no fault
/// where a snapshot takes their place and the records behind it go on from exactly there, and every segment
/// that is in the archive can be read. Of an erased tenant nothing has to be left, and while a key is withheld
/// what is left is all that can be checked.
///
/// # Errors
/// The first fault found.
pub fn verify_kept_chain(
    store: &Store,
    tenant: TenantId,
    on_record: impl FnMut(&Record),
) -> Result<ChainReport, ChainFault> {
    let snapshot_from = |lsn: u64| {
        if matches!(store.keystore().contains(tenant), Ok(false)) {
            return Ok(Some(Tail::EMPTY));
        }
        let Some(history) = store.history() else { return Ok(None) };
        let damaged = store.cold().map(|cold| cold.damaged()).transpose();
        let damaged = damaged.map_err(|source| LogError::Archive { tenant, source })?;
        if let Some(segment) = damaged.and_then(|damaged| damaged.first().copied()) {
            return Err(LogError::Damaged { tenant, segment, offset: 0 });
        }
        // While the key is withheld nobody can say what stands for the records that are gone.
        let Ok(keys) = store.tenant_keys(tenant) else { return Ok(Some(Tail::EMPTY)) };
        let kept = history.snapshots(&keys).map_err(|error| match error {
            HistoryError::Archive(source) => LogError::Archive { tenant, source },
            error => LogError::Io(std::io::Error::other(error)),
        })?;
        Ok(kept.iter().map(|kept| kept.header.tail()).find(|tail| tail.lsn >= lsn))
    };
    walk(&**store.log(), tenant, Some(&snapshot_from), on_record)
}

/// The end of the first snapshot of that record or a later one; [`Tail::EMPTY`] where none is needed.
type SnapshotFrom<'a> = &'a dyn Fn(u64) -> Result<Option<Tail>, LogError>;

fn walk(
    log: &dyn CommitLog,
    tenant: TenantId,
    snapshot_from: Option<SnapshotFrom<'_>>,
    mut on_record: impl FnMut(&Record),
) -> Result<ChainReport, ChainFault> {
    let at = |lsn| move |error| ChainFault { lsn, what: Fault::Unreadable(error) };
    let tail = log.tail(tenant).map_err(at(0))?;
    let mut link = Link::GENESIS;
    let mut records = 0;
    let mut is_first = true;
    // Where the history must pass, beside its end.
    let mut bridge: Option<Tail> = None;
    loop {
        let lsn = link.lsn + 1;
        let batch = match log.read_from(tenant, lsn, READ_BYTES) {
            Err(LogError::Truncated { tenant, first }) => {
                bridge = match snapshot_from {
                    Some(snapshot_from) => {
                        snapshot_from(first.saturating_sub(1)).map_err(at(lsn))?
                    }
                    // Whoever asks for no more than the log has takes it from where it begins.
                    None => is_first.then_some(Tail::EMPTY),
                };
                if bridge.is_none() || first <= lsn {
                    return Err(at(lsn)(LogError::Truncated { tenant, first }));
                }
                let cut = log.read_from(tenant, first, READ_BYTES).map_err(at(first))?;
                link.lsn = first.saturating_sub(1);
                link.hash = cut.first().map_or(GENESIS, |record| record.header.prev);
                check_passes(bridge, &link)?;
                cut
            }
            outcome => outcome.map_err(at(lsn))?,
        };
        is_first = false;
        if batch.is_empty() {
            break;
        }
        for record in &batch {
            link = link.follow(tenant, record)?;
            records += 1;
            on_record(record);
            check_passes(bridge, &link)?;
            check_passes(Some(tail), &link)?;
        }
    }
    if link.lsn < tail.lsn {
        return Err(ChainFault { lsn: link.lsn + 1, what: Fault::Absent });
    }
    Ok(ChainReport { records, head: link.hash })
}

/// Whether the record at a known place is the one that is known.
fn check_passes(known: Option<Tail>, link: &Link) -> Result<(), ChainFault> {
    match known {
        Some(known) if known.lsn == link.lsn && known.hash != link.hash => {
            Err(ChainFault { lsn: link.lsn, what: Fault::WrongHash })
        }
        _ => Ok(()),
    }
}
