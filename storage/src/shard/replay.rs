//! Replay: how a tenant's view catches up with its log before anybody owns the shard.
//!
//! A restart is a start: this is the only way a shard comes to be. Every record is checked on the
//! way (its hash, its place, its predecessor), and the view's last record must be one of this log.
//!
//! Refuses: a history with a gap, a foreign record or a broken hash.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::history::{History, HistoryError};
use crate::log::{CommitLog, LogError, Tail};
use crate::record::{Hash, Record};
use crate::seal::TenantKeys;
use crate::store::StoreError;
use crate::store::chain::{ChainFault, Fault, Link};
use crate::txn::Value;
use crate::view::applier::{Applier, Job};
use crate::view::{Applied, View, ViewError};

/// How much of the log is read at a time.
const READ_BYTES: usize = 1024 * 1024;
/// How many rows of a snapshot are given to the view at a time.
const SNAPSHOT_ROWS: usize = 256;

/// What a view is made from.
pub(crate) struct Sources<'a> {
    pub(crate) log: &'a dyn CommitLog,
    /// Snapshots, where there is an archive.
    pub(crate) history: Option<&'a History>,
    pub(crate) view: &'a dyn View,
    pub(crate) applier: &'a Applier,
}

/// Brings the view of `keys`' tenant up to the log's end and says where that is.
pub(crate) fn catch_up(sources: &Sources<'_>, keys: &Arc<TenantKeys>) -> Result<Tail, StoreError> {
    let Sources { log, view, applier, .. } = *sources;
    let tenant = keys.tenant();
    let tail = log.tail(tenant)?;
    let applied = match view.applied(tenant) {
        // Sorts the view out below: no log has so many records.
        Err(ViewError::MalformedApplied { .. }) => Applied { lsn: u64::MAX, ..Applied::NONE },
        applied => applied?,
    };
    let from = Link { lsn: applied.lsn, hash: applied.hash, epoch: 0 };
    if applied != Applied::NONE && applied.lsn <= tail.lsn {
        match replay(log, applier, keys, from, tail) {
            Err(StoreError::Chain(ChainFault { lsn, what: Fault::WrongPrev }))
                if lsn == applied.lsn + 1 => {}
            Err(StoreError::ViewOfAnotherHistory) => {}
            // The view is so far behind that only a snapshot bridges it.
            Err(StoreError::Log(LogError::Truncated { .. })) => {}
            outcome => return outcome,
        }
    }
    if applied != Applied::NONE {
        // The view knows records this log does not have: the log was restored, or the view is foreign.
        tracing::warn!(tenant.id = %tenant, "the view belongs to another history; it is made again");
    }
    applier.drain()?;
    view.drop_tenant(tenant)?;
    let from = load_snapshot(sources, keys, tail)?;
    replay(log, applier, keys, from, tail)
}

/// Puts the newest snapshot into an empty view; says up to where that is.
fn load_snapshot(
    sources: &Sources<'_>,
    keys: &Arc<TenantKeys>,
    tail: Tail,
) -> Result<Link, StoreError> {
    let Some(history) = sources.history.filter(|_| tail != Tail::EMPTY) else {
        return Ok(Link::GENESIS);
    };
    let kept = match history.newest_snapshot(keys, tail.lsn) {
        Ok(Some(kept)) => kept,
        Ok(None) => return Ok(Link::GENESIS),
        // Where the log has it all, the archive is not needed.
        Err(HistoryError::Archive(_)) if sources.log.read_from(keys.tenant(), 1, 1).is_ok() => {
            return Ok(Link::GENESIS);
        }
        Err(error) => return Err(error.into()),
    };
    let mut rows = history.open_snapshot(&kept, keys)?;
    let applied = Arc::new(AtomicU64::new(0));
    // Only the last of these says how far the view is: one that was filled by half is filled again.
    let job = |lsn, hash, writes| Job {
        keys: Arc::clone(keys),
        lsn,
        hash,
        writes,
        applied: Arc::clone(&applied),
    };
    let mut writes = Vec::with_capacity(SNAPSHOT_ROWS);
    while let Some((key, value)) = rows.next_row().map_err(HistoryError::from)? {
        writes.push((key, Some(value)));
        if writes.len() >= SNAPSHOT_ROWS {
            let full = std::mem::replace(&mut writes, Vec::with_capacity(SNAPSHOT_ROWS));
            sources.applier.submit_when_room(job(0, Applied::NONE.hash, full))?;
        }
    }
    let Tail { lsn, epoch, hash } = kept.header.tail();
    sources.applier.submit_when_room(job(lsn, hash, writes))?;
    sources.applier.wait_applied(&applied, lsn)?;
    Ok(Link { lsn, hash, epoch })
}

fn replay(
    log: &dyn CommitLog,
    applier: &Applier,
    keys: &Arc<TenantKeys>,
    from: Link,
    tail: Tail,
) -> Result<Tail, StoreError> {
    let tenant = keys.tenant();
    let applied = Arc::new(AtomicU64::new(from.lsn));
    let mut link = from;
    loop {
        let records = log.read_from(tenant, link.lsn + 1, READ_BYTES)?;
        if records.is_empty() {
            break;
        }
        for record in records {
            link = link.follow(tenant, &record)?;
            applier.submit_when_room(job(keys, &applied, &record)?)?;
        }
    }
    if link.lsn < tail.lsn {
        return Err(ChainFault { lsn: link.lsn + 1, what: Fault::Absent }.into());
    }
    if link.lsn == from.lsn {
        // Nothing to replay, so no predecessor was compared yet.
        return if from.hash == tail.hash {
            Ok(tail)
        } else {
            Err(StoreError::ViewOfAnotherHistory)
        };
    }
    applier.wait_applied(&applied, link.lsn)?;
    Ok(Tail { lsn: link.lsn, epoch: link.epoch, hash: link.hash })
}

fn job(
    keys: &Arc<TenantKeys>,
    applied: &Arc<AtomicU64>,
    record: &Record,
) -> Result<Job, StoreError> {
    let header = &record.header;
    let (lsn, hash): (u64, Hash) = (header.lsn, header.hash);
    let body = keys.open_record(lsn, header.epoch, &record.body)?;
    let write = |op: crate::record::Op| {
        let value = op.value.map(|value| Value::from(value.into_vec()));
        (Arc::from(op.key.into_vec()), value)
    };
    let writes = body.ops.into_iter().map(write).collect();
    Ok(Job { keys: Arc::clone(keys), lsn, hash, writes, applied: Arc::clone(applied) })
}
