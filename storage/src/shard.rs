//! The shard: one tenant's data in the hands of its one owner.
//!
//! A change goes `txn → seal → append → confirm`. The owner keeps one append in flight and says
//! nothing to anybody before [`Shard::confirm`]. Reads here show durable state only: the view, and
//! over it the records it does not have yet.
//!
//! Refuses: a value that does not authenticate, a key it does not know, and to guess what became of
//! an append. It never blocks on the disk for a write; a read may touch the view's pages.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};
use serde_bytes::Bytes;

use crate::id::TenantId;
use crate::keys::Key;
use crate::log::{Appending, CommitLog, Health, Tail};
use crate::record::Record;
use crate::seal::{OVERHEAD_BYTES, SealError, TenantKeys};
use crate::store::{Ownership, StoreError};
use crate::txn::{Changes, Overlay, Scan, Txn, Value};
use crate::view::View;
use crate::view::applier::{Applier, Job};

pub mod frozen;
pub(crate) mod layers;
pub(crate) mod pending;
pub(crate) mod replay;

use layers::Layers;
use pending::Pending;

/// With so much durable but not yet in the view, one shard takes no more writes.
const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a shard works with; made by the store.
pub(crate) struct Parts {
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) view: Arc<dyn View>,
    pub(crate) applier: Arc<Applier>,
    pub(crate) keys: Arc<TenantKeys>,
    pub(crate) writer: u64,
    pub(crate) _ownership: Ownership,
}

/// Sole owner of one tenant's data. Dropping it lets the next owner in.
pub struct Shard {
    parts: Parts,
    tail: Tail,
    epoch: u64,
    pending: Pending,
    applied: Arc<AtomicU64>,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard({} at {})", self.tenant(), self.tail.lsn)
    }
}

/// Changes made into a record, on their way to the log.
#[derive(Debug, Clone)]
pub struct Sealed {
    record: Record,
    changes: Changes,
}

impl Sealed {
    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }
    /// The changes in it.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }
    /// Where the history ends once this is durable.
    pub fn tail(&self) -> Tail {
        let header = &self.record.header;
        Tail { lsn: header.lsn, epoch: header.epoch, hash: header.hash }
    }
}

/// A [`Body`](crate::record::Body) that borrows, so that sealing copies each value once.
#[derive(Serialize)]
struct BodyRef<'a> {
    at_ms: u64,
    #[serde(serialize_with = "serialize_ops")]
    ops: &'a Overlay,
}

#[derive(Serialize)]
struct OpRef<'a> {
    key: &'a Bytes,
    value: Option<&'a Bytes>,
}

fn serialize_ops<S: Serializer>(ops: &&Overlay, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ops.iter().map(|(key, value)| OpRef {
        key: Bytes::new(key),
        value: value.as_deref().map(Bytes::new),
    }))
}

impl Shard {
    /// Takes over a tenant whose view has every record up to `tail`.
    pub(crate) fn new(parts: Parts, tail: Tail) -> Self {
        // A new owner takes a new epoch, so that what the last one left in flight is refused once
        // this one has written.
        let epoch = tail.epoch + 1;
        let applied = Arc::new(AtomicU64::new(tail.lsn));
        Self { parts, tail, epoch, pending: Pending::default(), applied }
    }

    /// Whose data this is.
    pub fn tenant(&self) -> TenantId {
        self.parts.keys.tenant()
    }

    /// The end of the durable history.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// The tenant's keys.
    pub fn keys(&self) -> &TenantKeys {
        &self.parts.keys
    }

    /// Up to which LSN the view has this tenant.
    pub fn applied_lsn(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The same figure for others to watch, while this shard lives and after.
    pub fn watch_applied(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.applied)
    }

    /// About how much memory this shard takes.
    pub fn resident_bytes(&self) -> usize {
        size_of::<Self>() + size_of::<TenantKeys>() + self.pending.bytes()
    }

    /// Whether the owner must let the view catch up before it takes more writes.
    pub fn is_backlogged(&self) -> bool {
        self.parts.applier.is_backlogged() || self.pending.bytes() >= PENDING_BYTES_MAX
    }

    /// Whether the view failed, so that no write is taken before the next start.
    pub fn is_stopped(&self) -> bool {
        self.parts.applier.failure().is_some()
    }

    /// Forgets what the view has by now. Done at each confirm; call it when no more are coming.
    pub fn prune(&mut self) {
        let applied = self.applied_lsn();
        self.pending.prune(applied);
    }

    /// Reads a durable value.
    pub fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.get_encoded(&key.encode())
    }

    /// Reads the durable rows of a run.
    pub fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Value)>, StoreError> {
        self.scan_under(scan, usize::MAX, None)
    }

    /// Reads the durable rows of a run until their values have `bytes_max` bytes in clear; the row
    /// that reaches the bound is the last one. At least one row if there is any.
    ///
    /// # Errors
    /// As for [`scan`](Self::scan).
    pub fn scan_within(
        &self,
        scan: &Scan,
        bytes_max: usize,
    ) -> Result<Vec<(Key, Value)>, StoreError> {
        self.scan_under(scan, bytes_max, None)
    }

    /// Begins a transaction over the durable state.
    pub fn txn(&self) -> Txn<'_> {
        Txn::new(self)
    }

    /// Makes changes into the record that follows the tail. `at_ms` is Unix milliseconds.
    ///
    /// # Errors
    /// [`StoreError::Seal`] if the changes are too large for one record.
    pub fn seal(&self, changes: Changes, at_ms: u64) -> Result<Sealed, StoreError> {
        let lsn = self.tail.lsn + 1;
        let body = BodyRef { at_ms, ops: &changes.ops };
        let body = self.parts.keys.seal_record(lsn, self.epoch, &body)?;
        let (tenant, prev) = (self.tenant(), self.tail.hash);
        let record = Record::new(tenant, lsn, self.epoch, self.parts.writer, prev, body);
        Ok(Sealed { record, changes })
    }

    /// Starts the append. At most one may be in flight.
    pub fn append(&self, sealed: &Sealed) -> Appending {
        self.parts.log.append(sealed.record.clone())
    }

    /// Makes a record that the log called durable part of this shard's state.
    ///
    /// # Panics
    /// If it is not the record that follows the tail: the owner confused two appends.
    pub fn confirm(&mut self, sealed: Sealed) {
        let tail = sealed.tail();
        assert_eq!(tail.lsn, self.tail.lsn + 1, "records are confirmed in order, each once");
        assert_eq!(sealed.record.header.prev, self.tail.hash, "a record follows the tail");
        self.tail = tail;
        self.prune();
        self.pending.add(tail.lsn, &sealed.changes.ops);
        self.parts.applier.submit(Job {
            keys: Arc::clone(&self.parts.keys),
            lsn: tail.lsn,
            hash: tail.hash,
            writes: sealed.changes.ops.into_iter().collect(),
            applied: Arc::clone(&self.applied),
        });
    }

    /// Finds out what became of an append that answered `Unknown`, by reading the log's tail.
    /// `true`: it is durable, and confirmed. `false`: it never happened.
    ///
    /// # Errors
    /// [`StoreError::OutcomeUnknown`] if even the log cannot say before the next start;
    /// [`StoreError::Fenced`] if somebody else wrote. Give the shard up in both cases.
    pub fn resolve_unknown(&mut self, sealed: Sealed) -> Result<bool, StoreError> {
        let tail = self.parts.log.tail(self.tenant())?;
        if tail == sealed.tail() {
            self.confirm(sealed);
            Ok(true)
        } else if tail != self.tail {
            Err(StoreError::Fenced { tail })
        } else if self.parts.log.health() != Health::Writable {
            // Its bytes may be on the disk all the same, and be found when the log is next opened.
            Err(StoreError::OutcomeUnknown)
        } else {
            Ok(false)
        }
    }

    pub(crate) fn get_encoded(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        if let Some(value) = self.pending.get(key) {
            return Ok(value.clone());
        }
        let mut opened = None;
        let keys = &self.parts.keys;
        self.parts.view.get(self.tenant(), key, &mut |sealed| {
            opened = Some(keys.open_value(key, sealed));
        })?;
        opened.transpose().map_err(|error| self.unreadable(error))
    }

    /// The size of a durable value in clear; reads no more than its length.
    pub(crate) fn value_bytes(&self, key: &[u8]) -> Result<Option<usize>, StoreError> {
        if let Some(value) = self.pending.get(key) {
            return Ok(value.as_ref().map(|value| value.len()));
        }
        let mut bytes = None;
        self.parts.view.get(self.tenant(), key, &mut |sealed| {
            bytes = Some(sealed.len().checked_sub(OVERHEAD_BYTES));
        })?;
        match bytes {
            Some(None) => Err(self.unreadable(SealError::Tampered)),
            found => Ok(found.flatten()),
        }
    }

    pub(crate) fn scan_under(
        &self,
        scan: &Scan,
        bytes_max: usize,
        overlay: Option<&Overlay>,
    ) -> Result<Vec<(Key, Value)>, StoreError> {
        let Some(rows) = scan.rows() else { return Ok(Vec::new()) };
        let mut layers = Layers::new(overlay, &self.pending, &rows);
        let mut found =
            Found { rows: Vec::new(), limit: scan.limit, bytes: 0, bytes_max, failed: None };
        let keys = &self.parts.keys;
        self.parts.view.scan(self.tenant(), &rows, &mut |key, sealed| {
            while let Some((key, value)) = layers.next_before(key) {
                found.add(key, value)?;
            }
            if let Some((key, value)) = layers.next_at(key) {
                return found.add(key, value);
            }
            match keys.open_value(key, sealed) {
                Ok(value) => found.add(key, Some(&value)),
                Err(error) => {
                    found.failed = Some(self.unreadable(error));
                    ControlFlow::Break(())
                }
            }
        })?;
        for (key, value) in layers {
            if found.add(key, value).is_break() {
                break;
            }
        }
        match found.failed {
            Some(error) => Err(error),
            None => Ok(found.rows),
        }
    }

    fn unreadable(&self, error: SealError) -> StoreError {
        match error {
            SealError::Tampered => StoreError::Tampered { tenant: self.tenant() },
            error => StoreError::Seal(error),
        }
    }
}

/// What a scan has found so far.
struct Found {
    rows: Vec<(Key, Value)>,
    limit: usize,
    bytes: usize,
    bytes_max: usize,
    failed: Option<StoreError>,
}

impl Found {
    /// Adds a row unless it is deleted; breaks when there are enough or something failed.
    fn add(&mut self, key: &[u8], value: Option<&Value>) -> ControlFlow<()> {
        if self.is_over() {
            return ControlFlow::Break(());
        }
        let Some(value) = value else { return ControlFlow::Continue(()) };
        match Key::decode(key) {
            Ok(key) => {
                self.bytes = self.bytes.saturating_add(value.len());
                self.rows.push((key, Arc::clone(value)));
            }
            Err(error) => self.failed = Some(StoreError::Key(error)),
        }
        if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn is_over(&self) -> bool {
        self.failed.is_some() || self.rows.len() >= self.limit || self.bytes >= self.bytes_max
    }
}
