//! The embedded log: numbered segment files in one directory, one committer thread.
//!
//! ```text
//! append ─▶ queue ─▶ lanes ─▶ committer: fence · one write · one fdatasync ─▶ tables ─▶ answers
//! read   ─▶ tables (which segment) ─▶ index (which byte) ─▶ frame, verified
//! ```
//! Start-up reads the footers of sealed segments and scans only the last one. It promises what
//! [`CommitLog`] says, and beyond that: a tenant whose records are damaged is refused, the others
//! serve; what is cut away at the end was never acknowledged, or [`CommitLog::repairs`] says so.
//!
//! It refuses to go on after a failed write or sync (the table stands in `committer.rs`), and it does
//! not guard the directory against a second process: whoever opens it holds the lock.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::disk::Disk;
use crate::id::TenantId;
use crate::log::Appended;
use crate::log::Appending;
use crate::log::CommitLog;
use crate::log::Health;
use crate::log::LogError;
use crate::log::LogStats;
use crate::log::SealedSegment;
use crate::log::Shortage;
use crate::log::Tail;
use crate::record::Record;

mod base;
pub mod cold;
mod committer;
mod file;
mod frame;
mod index;
mod lanes;
mod queue;
mod reader;
mod recovery;
mod salvage;
mod space;
mod tables;

/// The most a group may be set to. The end of the log is written again on open up to this length.
const GROUP_BYTES_LIMIT: usize = 4 << 20;
/// The most a segment may be set to; offsets in it have 32 bits.
const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;

/// Sizes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentOptions {
    /// When a segment is full. Reserved on disk when it is made. At most 1 GiB; one group may make
    /// an otherwise empty segment larger.
    pub segment_bytes: u64,
    /// The most that one write and one sync take, unless one record is larger. At most 4 MiB.
    pub group_bytes_max: usize,
    /// The most of a group that one tenant may take, unless one record is larger.
    pub tenant_group_bytes_max: usize,
    /// The most that may wait to be written; beyond it appends answer `Full`.
    pub queue_bytes_max: usize,
    /// What must stay free on the disk; with less, appends answer `Full`. The view follows a moment
    /// later and cannot, like the log, take back what did not fit: it must never meet a full disk.
    pub reserve_bytes: u64,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            group_bytes_max: 1 << 20,
            tenant_group_bytes_max: 256 << 10,
            queue_bytes_max: 128 << 20,
            reserve_bytes: 64 << 20,
        }
    }
}

impl SegmentOptions {
    fn bounded(self) -> Self {
        Self {
            segment_bytes: self.segment_bytes.min(SEGMENT_BYTES_LIMIT),
            group_bytes_max: self.group_bytes_max.min(GROUP_BYTES_LIMIT),
            ..self
        }
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk said no.
    #[error("the log's directory cannot be read or mended")]
    Io(#[from] io::Error),
    /// A newer program wrote it.
    #[error("segment {segment} has format version {version}, which this program does not know")]
    UnknownVersion {
        /// The number in the file's name.
        segment: u64,
        /// The version in the file.
        version: u32,
    },
    /// A newer program wrote the file `BASE`.
    #[error("the file BASE has format version {version}, which this program does not know")]
    UnknownBaseVersion {
        /// The version in the file.
        version: u32,
    },
    /// A segment lies under another's name.
    #[error("the file of segment {segment} says that it is segment {carried}")]
    Misnamed {
        /// The number in the file's name.
        segment: u64,
        /// The number in the file.
        carried: u64,
    },
}

/// Founds a log in the empty directory `dir`: each tenant's history ends at its given tail, none of its
/// records is here, and the first segment gets the number `next_number`. For a restored node, whose
/// records are in its archive.
///
/// # Errors
/// If there is a log already, or the disk says no.
pub fn found(
    disk: &dyn Disk,
    dir: &Path,
    next_number: u64,
    tails: &[(TenantId, Tail)],
) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    if !disk.list(dir)?.is_empty() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    base::write(disk, dir, next_number, &tails.iter().copied().collect())
}

/// What the callers and the committer share.
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    tables: RwLock<tables::Tables>,
    queue: queue::Queue,
    cache: reader::Cache,
    space: space::Space,
}

impl Shared {
    fn tables(&self) -> RwLockReadGuard<'_, tables::Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables_mut(&self) -> RwLockWriteGuard<'_, tables::Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The embedded [`CommitLog`].
pub struct SegmentLog {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    repairs: Vec<String>,
    /// Held while records are let go, so that `BASE` never goes back. The least number that the first
    /// segment of this start could have.
    letting_go: Mutex<u64>,
}

impl SegmentLog {
    /// Opens the log in `dir`, which is made if it is missing, and starts its committer. The caller
    /// sees to it that no other process has it open.
    ///
    /// # Errors
    /// If the directory cannot be read, its end cannot be mended durably, or its format is unknown.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: SegmentOptions,
    ) -> Result<Arc<Self>, OpenError> {
        let options = options.bounded();
        let recovery::Recovered { tables, active, next_number, repairs } =
            recovery::recover(&*disk, dir, options.segment_bytes)?;
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_path_buf(),
            tables: RwLock::new(tables),
            queue: queue::Queue::new(options.queue_bytes_max),
            cache: reader::Cache::default(),
            space: space::Space::new(options.reserve_bytes),
        });
        let letting_go = Mutex::new(next_number);
        let committer =
            committer::Committer::new(Arc::clone(&shared), options, active, next_number);
        let thread =
            std::thread::Builder::new().name("log-committer".into()).spawn(|| committer.run())?;
        let committer = Mutex::new(Some(thread));
        Ok(Arc::new(Self { shared, committer, repairs, letting_go }))
    }
}

impl CommitLog for SegmentLog {
    /// Records of more than 64 MiB, and all records while too many wait, are answered `Full`.
    fn append(&self, record: Record) -> Appending {
        debug_assert!(record.is_intact(), "a record whose hash is wrong was appended");
        if frame::frame_bytes(record.body.len()) > frame::FRAME_BYTES_MAX {
            return Box::pin(std::future::ready(Appended::Full));
        }
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(lanes::Waiting { record, answer });
        // The sender goes away unanswered only if the committer panicked, maybe after writing.
        Box::pin(async move { answered.await.unwrap_or(Appended::Unknown) })
    }

    fn tail(&self, tenant: TenantId) -> Result<Tail, LogError> {
        self.shared.tables().tail(tenant).map_err(|refusal| refusal.error(tenant))
    }

    fn read_from(
        &self,
        tenant: TenantId,
        lsn: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        self.shared.read_from(tenant, lsn, bytes_max)
    }

    fn let_go(&self, tails: &[(TenantId, Tail)]) -> Result<(), LogError> {
        let floor = self.letting_go.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bases = self.shared.tables().bases();
        let next_number = (*floor).max(self.shared.tables().last_segment() + 1);
        for (tenant, base) in tails {
            let tail = self.tail(*tenant)?;
            if base.lsn > tail.lsn && tail != Tail::EMPTY {
                return Err(LogError::Founded { tenant: *tenant, lsn: tail.lsn });
            }
            let known = bases.entry(*tenant).or_insert(*base);
            if known.lsn < base.lsn {
                *known = *base;
            }
        }
        // First the promise, then what it replaces.
        base::write(&*self.shared.disk, &self.shared.dir, next_number, &bases)?;
        let mut unneeded = Vec::new();
        let mut tables = self.shared.tables_mut();
        for (tenant, base) in tails {
            unneeded.extend(tables.let_go(*tenant, *base));
        }
        drop(tables);
        for number in &unneeded {
            self.shared.cache.remove(*number);
            self.shared.disk.remove(&file::path(&self.shared.dir, *number))?;
        }
        if !unneeded.is_empty() {
            self.shared.disk.sync_dir(&self.shared.dir)?;
        }
        Ok(())
    }

    fn sealed(&self) -> Vec<SealedSegment> {
        self.shared.tables().sealed(&self.shared.dir)
    }

    fn roll(&self) -> Result<(), LogError> {
        let failed = || LogError::Io(io::Error::other("the log takes no more records"));
        let (rolled, outcome) = std::sync::mpsc::sync_channel(1);
        if !self.shared.queue.ask_to_roll(rolled) {
            return Err(failed());
        }
        match outcome.recv() {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(failed()),
        }
    }

    fn tenants(&self) -> Vec<TenantId> {
        self.shared.tables().tenants()
    }

    fn health(&self) -> Health {
        self.shared.queue.health()
    }

    fn shortage(&self) -> Option<Shortage> {
        self.shared.space.shortage(&*self.shared.disk, &self.shared.dir)
    }

    fn stats(&self) -> LogStats {
        self.shared.tables().stats()
    }

    fn repairs(&self) -> Vec<String> {
        self.repairs.clone()
    }

    fn close(&self) {
        self.shared.queue.close();
        let thread = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log's committer panicked");
        }
    }
}

impl Drop for SegmentLog {
    fn drop(&mut self) {
        self.close();
    }
}
