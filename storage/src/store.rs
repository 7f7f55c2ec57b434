//! The store: one data directory, and the door to every shard in it.
//!
//! ```text
//! LOCK     held while a process uses the directory; its pid
//! NODE     what tells this directory from every other
//! FORMAT   the directory's format
//! keys/    wrapped keys (`keystore.rs`)
//! log/     the truth (`log/segment.rs`)
//! view/    made from the log; may be deleted whenever nothing runs
//! tmp/     work on the way; emptied at each start
//! ```
//!
//! Refuses: a directory in use, one of a newer format, a second owner for a shard, and to trust a
//! view across a power cut.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use crate::archive::SharedArchive;
use crate::disk::fault::FaultDisk;
use crate::disk::{Disk, RealDisk};
use crate::history::{History, HistoryError};
use crate::id::TenantId;
use crate::keystore::{KeyError, KeyOptions, KeyStore};
use crate::log::archived::ArchivedLog;
use crate::log::memory::MemoryLog;
use crate::log::segment::cold::ColdSegments;
use crate::log::segment::{self, SegmentLog, SegmentOptions};
use crate::log::{CommitLog, Health, LogError, Tail};
use crate::seal::{Random, SealError, SystemRandom, TenantKeys};
use crate::shard::{Parts, Shard, replay};
use crate::view::applier::{Applier, ApplierStopped};
use crate::view::{MemoryView, View, ViewError};

pub mod chain;
mod dir;
mod passing;
mod trust;

pub use chain::{ChainFault, ChainReport, Fault, verify_chain, verify_kept_chain};
use dir::DataDir;
pub use dir::{FORMAT, UnfinishedDir};
use trust::ViewDir;

/// What the view's page cache may take, unless configured.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// How long closing waits for the view to be on the disk.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(30);

/// Why a shard cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another part of this process owns the shard.
    #[error("{tenant} is owned already")]
    Owned {
        /// Whose shard.
        tenant: TenantId,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A value of the view does not authenticate: it was changed, moved or damaged.
    #[error("a stored value of {tenant} does not authenticate")]
    Tampered {
        /// Whose value.
        tenant: TenantId,
    },
    /// Somebody else wrote this tenant's history.
    #[error("another owner wrote up to record {}", tail.lsn)]
    Fenced {
        /// Where the history really ends.
        tail: Tail,
    },
    /// Whether a record is durable cannot be known before the next start.
    #[error("whether the last record is durable is unknown")]
    OutcomeUnknown,
    /// The view's last record is not one of the log's.
    #[error("the view belongs to another history")]
    ViewOfAnotherHistory,
    /// The tenant's history does not hold.
    #[error(transparent)]
    Chain(#[from] ChainFault),
    /// The tenant's keys cannot be had.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A stored key is none of this release.
    #[error("a stored key cannot be read")]
    Key(#[from] crate::keys::KeyError),
    /// Something cannot be sealed, or is sealed and cannot be read.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A snapshot that is needed cannot be had.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The view cannot be read or written.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The view stopped taking records.
    #[error(transparent)]
    Applier(#[from] ApplierStopped),
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{dir} is in use by process {pid}: stop it, or choose another data directory")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What the lock file says; `unknown` if it says nothing.
        pid: String,
    },
    /// A newer release wrote it.
    #[error("{dir} has format {format}; this release reads up to {}", dir::FORMAT)]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        format: u32,
    },
    /// A restore into it was not brought to its end.
    #[error("{dir} holds an unfinished restore: remove it and restore again")]
    Unfinished {
        /// The directory.
        dir: PathBuf,
    },
    /// A restore was to go where something is.
    #[error("{dir} is not empty: restore into a new or an empty directory")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// Its format file is not one.
    #[error("{path} is missing or damaged")]
    NoFormat {
        /// The file.
        path: PathBuf,
    },
    /// The disk said no.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The keys cannot be had.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] segment::OpenError),
    /// The view can be neither opened nor made again.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The directory for work on the way cannot be used.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The system gives no thread or no randomness.
    #[error("the store cannot start")]
    Start(#[source] io::Error),
}

/// How a data directory is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// The directory; made if it does not exist.
    pub dir: PathBuf,
    /// How much the view's page cache may take.
    pub cache_bytes: u64,
    /// The log's sizes.
    pub segment: SegmentOptions,
    /// Where the log and the keys rest. The lock and the view always use the real disk.
    pub disk: Arc<dyn Disk>,
    /// Where new keys come from.
    pub random: Arc<dyn Random>,
    /// Where key-encryption keys come from.
    pub keys: KeyOptions,
    /// Where snapshots and older segments rest. Without one the log keeps everything.
    pub archive: Option<SharedArchive>,
}

impl StoreOptions {
    /// The defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            cache_bytes: CACHE_BYTES,
            segment: SegmentOptions::default(),
            disk: Arc::new(RealDisk),
            random: Arc::new(SystemRandom),
            keys: KeyOptions::default(),
            archive: None,
        }
    }
}

/// Which shards have an owner.
#[derive(Debug, Default)]
struct Owners(Mutex<HashSet<TenantId>>);

impl Owners {
    // The set is changed by single calls, so a poisoned lock still guards a sound set.
    fn lock(&self) -> MutexGuard<'_, HashSet<TenantId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one shard; dropping it gives the right back.
#[derive(Debug)]
pub(crate) struct Ownership {
    owners: Arc<Owners>,
    tenant: TenantId,
}

impl Drop for Ownership {
    fn drop(&mut self) {
        self.owners.lock().remove(&self.tenant);
    }
}

/// An open data directory.
pub struct Store {
    log: Arc<dyn CommitLog>,
    view: Arc<dyn View>,
    applier: Arc<Applier>,
    keystore: Arc<KeyStore>,
    history: Option<Arc<History>>,
    cold: Option<Arc<ColdSegments>>,
    owners: Arc<Owners>,
    writer: u64,
    repairs: Vec<String>,
    closed: AtomicBool,
    view_dir: Option<ViewDir>,
    /// Last, so that the lock goes when everything else is gone.
    _dir: Option<DataDir>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("view_dir", &self.view_dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a data directory, or makes one. Takes the same short time whatever is in it: tenants
    /// catch up one by one, as each is owned.
    pub fn open(options: StoreOptions) -> Result<Arc<Self>, OpenError> {
        let dir = DataDir::lock(&options.dir)?;
        let keys_dir = options.dir.join("keys");
        let disk = Arc::clone(&options.disk);
        let keystore = KeyStore::open_with(disk, &keys_dir, options.random, options.keys)?;
        let log_dir = options.dir.join("log");
        options.disk.create_dir_all(&log_dir).map_err(io_at(&log_dir))?;
        options.disk.restrict_dir(&log_dir).map_err(io_at(&log_dir))?;
        // What is inside is durable only if the directories above are.
        options.disk.sync_dir(&options.dir).map_err(io_at(&options.dir))?;
        let segments = SegmentLog::open(Arc::clone(&options.disk), &log_dir, options.segment)?;
        let (mut log, mut history, mut cold): (Arc<dyn CommitLog>, _, _) = (segments, None, None);
        if let Some(archive) = options.archive {
            let node = dir::identity(&options.dir, &SystemRandom).map_err(io_at(&options.dir))?;
            let segments = Arc::new(ColdSegments::new(Arc::clone(&archive), node));
            log = Arc::new(ArchivedLog::new(log, Arc::clone(&segments)));
            let scratch = options.dir.join("tmp");
            history = Some(Arc::new(History::open(Arc::clone(&log), archive, &scratch)?));
            cold = Some(segments);
        }
        let view_dir = ViewDir::new(options.dir.join("view"));
        let (view, repair) = view_dir.open(options.cache_bytes)?;
        let repair = repair.map(|why| format!("the view is made again from the log: {why}"));
        let mut store = Self::assemble(log, Arc::new(view), Arc::new(keystore), Some(view_dir))?;
        store.repairs.extend(repair);
        (store.history, store.cold) = (history, cold);
        store._dir = Some(dir);
        Ok(Arc::new(store))
    }

    /// A store that lasts as long as the process: for tests and throw-away nodes.
    pub fn in_memory() -> Result<Arc<Self>, OpenError> {
        let disk = Arc::new(FaultDisk::new());
        let keystore = KeyStore::open(disk, Path::new("/keys"), Arc::new(SystemRandom))?;
        let view = Arc::new(MemoryView::default());
        Self::from_parts(MemoryLog::new(), view, Arc::new(keystore))
    }

    /// A store over other people's parts, without a data directory.
    pub fn from_parts(
        log: Arc<dyn CommitLog>,
        view: Arc<dyn View>,
        keystore: Arc<KeyStore>,
    ) -> Result<Arc<Self>, OpenError> {
        Self::assemble(log, view, keystore, None).map(Arc::new)
    }

    fn assemble(
        log: Arc<dyn CommitLog>,
        view: Arc<dyn View>,
        keystore: Arc<KeyStore>,
        view_dir: Option<ViewDir>,
    ) -> Result<Self, OpenError> {
        let mut writer = [0; 8];
        SystemRandom
            .fill(&mut writer)
            .map_err(|error| OpenError::Start(io::Error::other(error)))?;
        let failing = view_dir.clone();
        let on_failure = move || {
            if let Some(view_dir) = failing {
                view_dir.distrust();
            }
        };
        let applier = Applier::start(Arc::clone(&view), on_failure).map_err(OpenError::Start)?;
        Ok(Self {
            repairs: log.repairs(),
            log,
            view,
            applier,
            keystore,
            history: None,
            cold: None,
            owners: Arc::default(),
            writer: u64::from_be_bytes(writer),
            closed: AtomicBool::new(false),
            view_dir,
            _dir: None,
        })
    }

    /// Makes the data key of a new tenant, which may then be owned. The key is durable when this
    /// returns; the tenant exists once its first record is.
    pub fn create_tenant(&self, tenant: TenantId) -> Result<TenantKeys, StoreError> {
        self.check_open()?;
        let data_key = self.keystore.create(tenant)?;
        Ok(TenantKeys::new(tenant, &data_key))
    }

    /// Takes the sole ownership of a tenant's shard, once its view has caught up with the log.
    /// Blocks on the disk; the time grows with what is to be caught up.
    ///
    /// # Errors
    /// [`StoreError::Owned`] while another shard of the tenant lives; [`StoreError::Keys`] if it
    /// was never created or is erased; [`StoreError::Chain`] if its history does not hold.
    pub fn own_shard(&self, tenant: TenantId) -> Result<Shard, StoreError> {
        let ownership = self.claim(tenant)?;
        let keys = Arc::new(self.tenant_keys(tenant)?);
        let sources = replay::Sources {
            log: &*self.log,
            history: self.history.as_deref(),
            view: &*self.view,
            applier: &self.applier,
        };
        let tail = replay::catch_up(&sources, &keys)?;
        let parts = Parts {
            log: Arc::clone(&self.log),
            view: Arc::clone(&self.view),
            applier: Arc::clone(&self.applier),
            keys,
            writer: self.writer,
            _ownership: ownership,
        };
        Ok(Shard::new(parts, tail))
    }

    /// A tenant's keys, for reading its history.
    pub fn tenant_keys(&self, tenant: TenantId) -> Result<TenantKeys, StoreError> {
        Ok(TenantKeys::new(tenant, &self.keystore.load(tenant)?))
    }

    /// Forgets a tenant's view, so that its next owner makes it again from the log: what an
    /// operator does about [`StoreError::Tampered`].
    ///
    /// # Errors
    /// [`StoreError::Owned`] while the shard is owned.
    pub fn rebuild_view(&self, tenant: TenantId) -> Result<(), StoreError> {
        let _ownership = self.claim(tenant)?;
        self.applier.drain()?;
        Ok(self.view.drop_tenant(tenant)?)
    }

    /// Erases a tenant: destroys its data key, so that nothing of it can be read anywhere, and
    /// drops its view. The sealed records stay in the log, and their chain still verifies.
    ///
    /// # Errors
    /// [`StoreError::Owned`] while the shard is owned.
    pub fn erase_tenant(&self, tenant: TenantId) -> Result<(), StoreError> {
        let _ownership = self.claim(tenant)?;
        self.keystore.destroy(tenant)?;
        self.applier.drain()?;
        Ok(self.view.drop_tenant(tenant)?)
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn CommitLog> {
        &self.log
    }

    /// Every tenant's history, where there is an archive.
    pub fn history(&self) -> Option<&Arc<History>> {
        self.history.as_ref()
    }

    /// The archived segments, where there is an archive.
    pub fn cold(&self) -> Option<&Arc<ColdSegments>> {
        self.cold.as_ref()
    }

    /// The keys.
    pub fn keystore(&self) -> &Arc<KeyStore> {
        &self.keystore
    }

    /// Every tenant with a record, in id order.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.log.tenants()
    }

    /// What was mended when the store was opened, for the operator.
    pub fn repairs(&self) -> &[String] {
        &self.repairs
    }

    /// Whether writes are taken.
    pub fn health(&self) -> Health {
        match (self.log.health(), self.applier.failure()) {
            (Health::Writable, Some(cause)) => {
                Health::Poisoned(format!("the view failed: {cause}"))
            }
            (health, _) => health,
        }
    }

    /// Rows that are durable but not yet in the view.
    pub fn backlog(&self) -> usize {
        self.applier.backlog()
    }

    /// Bytes the view takes on disk.
    pub fn view_bytes(&self) -> u64 {
        self.view.size_bytes()
    }

    /// Stops: brings the view up to date, makes it durable, marks the stop as clean, ends the log.
    /// Drop the shards first; a write after this is refused. Doing it twice is fine.
    ///
    /// # Errors
    /// If the view could not be made durable. Nothing is lost then; it is made again next time.
    pub fn close(&self) -> Result<(), StoreError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = self.close_view();
        self.log.close();
        outcome
    }

    fn close_view(&self) -> Result<(), StoreError> {
        self.applier.shutdown()?;
        // After a failed write the view's engine may wait for ever. The view can be made again: it is left.
        let (view, (done, outcome)) = (Arc::clone(&self.view), mpsc::sync_channel(1));
        let checkpoint = move || {
            // Nobody waits for it any more after a while.
            let _late = done.send(view.checkpoint());
        };
        let named = std::thread::Builder::new().name("view-checkpoint".to_owned());
        named.spawn(checkpoint).map_err(ViewError::Io)?;
        match outcome.recv_timeout(CHECKPOINT_WAIT) {
            Ok(finished) => finished?,
            Err(_) => return Err(ViewError::Io(io::ErrorKind::TimedOut.into()).into()),
        }
        match &self.view_dir {
            Some(view_dir) => view_dir.mark_clean().map_err(|error| ViewError::Io(error).into()),
            None => Ok(()),
        }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn claim(&self, tenant: TenantId) -> Result<Ownership, StoreError> {
        self.check_open()?;
        if !self.owners.lock().insert(tenant) {
            return Err(StoreError::Owned { tenant });
        }
        Ok(Ownership { owners: Arc::clone(&self.owners), tenant })
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}
