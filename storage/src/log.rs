//! The commit log: the truth. Everything else is made from it.
//!
//! [`CommitLog`] is narrow on purpose, so that a replicated log can stand behind the same tenants.
//! Whoever implements it promises, and [`contract`] tests:
//!
//! - `Durable` is answered only after the record survives loss of power;
//! - records of one tenant have gapless LSNs and each names the hash of the one before;
//! - an append with a wrong expected LSN or an old epoch is `Fenced` and changes nothing;
//! - `Unknown` is a first-class result: the caller reads [`CommitLog::tail`] before it says anything;
//! - after a failed write or fsync nothing is acknowledged any more by this process ([`CommitLog::health`]).

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use crate::archive::ArchiveError;
use crate::id::TenantId;
use crate::record::{Hash, Record};

pub mod archived;
pub mod contract;
pub mod memory;
pub mod segment;

/// The end of one tenant's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// LSN of the last record; 0 if there is none.
    pub lsn: u64,
    /// Epoch of the last record; 0 if there is none.
    pub epoch: u64,
    /// Hash of the last record; [`GENESIS`](crate::record::GENESIS) if there is none.
    pub hash: Hash,
}

impl Tail {
    /// The tail of a tenant that has no record.
    pub const EMPTY: Self = Self { lsn: 0, epoch: 0, hash: crate::record::GENESIS };
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// On disk for good.
    Durable,
    /// Refused: somebody else wrote in between, or owns the tenant now. Nothing changed.
    Fenced {
        /// Where the history really ends.
        tail: Tail,
    },
    /// Refused: the log stopped writing after an I/O error. Nothing of this record was acknowledged.
    Poisoned,
    /// Refused: no space is left. Nothing changed, and the log goes on when there is space again.
    Full,
    /// Nobody knows. Read the tail.
    Unknown,
}

/// A started append. Not tied to any async runtime. Dropping it does not cancel the append.
pub type Appending = Pin<Box<dyn Future<Output = Appended> + Send>>;

/// Whether the log still takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Writable,
    /// It stopped; the text says after what.
    Poisoned(String),
}

/// Why records are refused for want of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What is free on the disk, in bytes, where it can say.
    pub available_bytes: Option<u64>,
    /// What must stay free.
    pub reserve_bytes: u64,
}

/// What the log knows of itself, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records made durable since the start.
    pub records: u64,
    /// Bytes written since the start.
    pub bytes: u64,
    /// Group commits (one write and one sync each) since the start.
    pub groups: u64,
    /// Segments on disk.
    pub segments: u64,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk said no.
    #[error("the log cannot be read")]
    Io(#[from] std::io::Error),
    /// A frame in the middle of the log is damaged; its tenants refuse, the others serve.
    #[error("the log of {tenant} is damaged in segment {segment} at byte {offset}")]
    Damaged {
        /// Whose history.
        tenant: TenantId,
        /// The number in the segment's file name.
        segment: u64,
        /// Where in the file.
        offset: u64,
    },
    /// Records before `first` were let go (see [`CommitLog::let_go`]) and are not to be had elsewhere.
    #[error("the log of {tenant} begins only at {first}")]
    Truncated {
        /// Whose history.
        tenant: TenantId,
        /// The first LSN still there.
        first: u64,
    },
    /// The record lies in the archive, and the archive does not give it.
    #[error("a part of the log of {tenant} that lies in the archive cannot be had")]
    Archive {
        /// Whose history.
        tenant: TenantId,
        /// What the archive said.
        source: ArchiveError,
    },
    /// A history cannot be founded where another already is.
    #[error("{tenant} has a history already, up to record {lsn}")]
    Founded {
        /// Whose history.
        tenant: TenantId,
        /// Its last LSN.
        lsn: u64,
    },
}

/// A segment that is complete and never changes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its number; numbers rise with time.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
}

/// A durable, per-tenant ordered list of records.
pub trait CommitLog: Send + Sync + 'static {
    /// Adds `record`, whose LSN must follow the tenant's tail and whose epoch must not be older.
    fn append(&self, record: Record) -> Appending;
    /// The end of a tenant's history.
    fn tail(&self, tenant: TenantId) -> Result<Tail, LogError>;
    /// Records from `lsn` on, in order, at most about `bytes_max` bytes but at least one if any.
    fn read_from(
        &self,
        tenant: TenantId,
        lsn: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError>;
    /// Says that of each tenant no record up to its given tail is read from here again. The tail itself
    /// is remembered, to fence with. Space comes back when a whole segment is no longer needed.
    ///
    /// For a tenant without a record its history is founded there: the next record follows that tail.
    ///
    /// # Errors
    /// [`LogError::Founded`] for a tail beyond the end of a history that has records.
    fn let_go(&self, tails: &[(TenantId, Tail)]) -> Result<(), LogError>;
    /// The complete segments, oldest first, if the log consists of such.
    fn sealed(&self) -> Vec<SealedSegment> {
        Vec::new()
    }
    /// Completes the segment that grows, unless it is empty. Blocks until that is durable.
    fn roll(&self) -> Result<(), LogError> {
        Ok(())
    }
    /// Every tenant with a record, in id order.
    fn tenants(&self) -> Vec<TenantId>;
    /// Whether appends are taken.
    fn health(&self) -> Health;
    /// Whether appends are answered [`Full`](Appended::Full) at present, and why.
    fn shortage(&self) -> Option<Shortage> {
        None
    }
    /// Counters.
    fn stats(&self) -> LogStats;
    /// What was mended when the log was opened (a cut tail), for the operator.
    fn repairs(&self) -> Vec<String> {
        Vec::new()
    }
    /// Writes what is pending, then ends the committer. Appends after it answer `Poisoned`.
    fn close(&self) {}
}
