//! The applier: brings durable records into the view, off the path to the answer.
//!
//! One thread for all tenants. It gathers records for a moment, drops what a later record of the
//! same batch overwrites, seals what is left and applies hundreds of rows of many tenants at once: a
//! row costs the view more than all the rest of a command, and most records write the same few
//! rows. Until a record is in the view its shard answers from memory, so nobody waits for this.
//!
//! Refuses: to go on after the view failed. Nothing is lost then (the log has it all), but the
//! backlog stays, so shards stop taking writes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Applied, Row, View};
use crate::id::TenantId;
use crate::record::Hash;
use crate::seal::TenantKeys;
use crate::txn::Value;

/// From this many rows on a batch is applied without waiting for more.
const BATCH_ROWS: usize = 512;

/// How long a batch gathers. Long enough for repeated writes of one key to meet.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// With so many rows waiting, shards refuse writes.
pub const BACKLOG_ROWS_MAX: usize = 32 * 1024;

/// With so many bytes waiting, shards refuse writes.
pub const BACKLOG_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The applier stopped because the view failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the view stopped taking records: {cause}")]
pub struct ApplierStopped {
    /// What the view said.
    pub cause: String,
}

/// The writes of one durable record, in clear: sealing is part of applying.
pub(crate) struct Job {
    pub(crate) keys: Arc<TenantKeys>,
    pub(crate) lsn: u64,
    pub(crate) hash: Hash,
    pub(crate) writes: Vec<(Arc<[u8]>, Option<Value>)>,
    /// Where the shard looks how far it is applied.
    pub(crate) applied: Arc<AtomicU64>,
}

impl Job {
    fn bytes(&self) -> usize {
        let value = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.len());
        self.writes.iter().map(|(key, written)| key.len() + value(written)).sum()
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Somebody waits: do not gather.
    hurried: usize,
    /// A batch is being applied.
    busy: bool,
    /// The thread sleeps until the first record comes.
    idle: bool,
    closing: bool,
}

struct Shared {
    view: Arc<dyn View>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    progressed: Condvar,
    rows: AtomicUsize,
    bytes: AtomicUsize,
    failed: OnceLock<String>,
}

impl Shared {
    // The queue is changed by whole calls only, so a poisoned lock still guards a sound queue.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.progressed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }
    fn stopped(&self) -> Result<(), ApplierStopped> {
        match self.failed.get() {
            Some(cause) => Err(ApplierStopped { cause: cause.clone() }),
            None => Ok(()),
        }
    }
    fn is_full(&self) -> bool {
        self.rows.load(Ordering::Relaxed) >= BACKLOG_ROWS_MAX
            || self.bytes.load(Ordering::Relaxed) >= BACKLOG_BYTES_MAX
    }
}

/// The thread's handle; dropping it drains the queue.
pub struct Applier {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}

impl Applier {
    /// Starts the thread. `on_failure` is called once, on it, if the view fails.
    pub fn start(
        view: Arc<dyn View>,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            view,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            progressed: Condvar::new(),
            rows: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            failed: OnceLock::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("view-applier".to_owned())
            .spawn(move || run(&worker, on_failure))?;
        Ok(Arc::new(Self { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// Rows that are durable but not yet in the view.
    pub fn backlog(&self) -> usize {
        self.shared.rows.load(Ordering::Relaxed)
    }

    /// Whether shards must wait before they take more writes.
    pub fn is_backlogged(&self) -> bool {
        self.shared.is_full() || self.shared.failed.get().is_some()
    }

    /// Why the applier stopped, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failed.get().map(String::as_str)
    }

    /// Queues a durable record. Never blocks: a shard that asks [`is_backlogged`](Self::is_backlogged)
    /// before each record adds at most one beyond the bound.
    pub(crate) fn submit(&self, job: Job) {
        let mut queue = self.shared.lock();
        self.shared.rows.fetch_add(job.writes.len() + 1, Ordering::Relaxed);
        self.shared.bytes.fetch_add(job.bytes(), Ordering::Relaxed);
        queue.jobs.push_back(job);
        // A thread that gathers wakes by itself; waking it for each record would cost more than
        // the record does.
        let wake = queue.idle || self.shared.rows.load(Ordering::Relaxed) >= BATCH_ROWS;
        drop(queue);
        if wake {
            self.shared.arrived.notify_one();
        }
    }

    /// Queues a record once the queue has room: for replay, which may be as long as a history.
    pub(crate) fn submit_when_room(&self, job: Job) -> Result<(), ApplierStopped> {
        let mut queue = self.shared.lock();
        queue.hurried += 1;
        while self.shared.is_full() && self.shared.failed.get().is_none() {
            self.shared.arrived.notify_one();
            queue = self.shared.wait(queue);
        }
        queue.hurried -= 1;
        drop(queue);
        self.shared.stopped()?;
        self.submit(job);
        Ok(())
    }

    /// Blocks until `applied` has come to `lsn`.
    pub(crate) fn wait_applied(&self, applied: &AtomicU64, lsn: u64) -> Result<(), ApplierStopped> {
        self.wait_until(|_| applied.load(Ordering::Acquire) >= lsn)
    }

    /// Blocks until all that was queued before is in the view.
    pub fn drain(&self) -> Result<(), ApplierStopped> {
        self.wait_until(|queue| queue.jobs.is_empty() && !queue.busy)
    }

    fn wait_until(&self, is_met: impl Fn(&Queue) -> bool) -> Result<(), ApplierStopped> {
        let mut queue = self.shared.lock();
        queue.hurried += 1;
        while !is_met(&queue) && self.shared.failed.get().is_none() {
            self.shared.arrived.notify_one();
            queue = self.shared.wait(queue);
        }
        queue.hurried -= 1;
        if is_met(&queue) { Ok(()) } else { self.shared.stopped() }
    }

    /// Applies what is queued, then ends the thread.
    pub fn shutdown(&self) -> Result<(), ApplierStopped> {
        self.shared.lock().closing = true;
        self.shared.arrived.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            let _ = self.shared.failed.set("its thread panicked".to_owned());
        }
        self.shared.stopped()
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        // A failure was reported when it happened; there is nobody left to hear of it here.
        let _ = self.shutdown();
    }
}

fn run(shared: &Shared, on_failure: impl FnOnce()) {
    while let Some(batch) = next_batch(shared) {
        // sled panics on some I/O errors; that must stop the view, not the node.
        let outcome = catch_unwind(AssertUnwindSafe(|| apply(&*shared.view, &batch)));
        let cause = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(cause)) => Some(cause),
            Err(_) => Some("the view panicked".to_owned()),
        };
        if let Some(cause) = cause {
            tracing::error!(error = %cause, "the view failed; writes are refused from now on");
            on_failure();
            let _ = shared.failed.set(cause);
            let mut queue = shared.lock();
            queue.jobs.clear();
            queue.busy = false;
            drop(queue);
            shared.progressed.notify_all();
            return;
        }
        for job in &batch {
            job.applied.fetch_max(job.lsn, Ordering::Release);
        }
        let rows = batch.iter().map(|job| job.writes.len() + 1).sum();
        let bytes = batch.iter().map(Job::bytes).sum();
        let mut queue = shared.lock();
        shared.rows.fetch_sub(rows, Ordering::Relaxed);
        shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        queue.busy = false;
        drop(queue);
        shared.progressed.notify_all();
    }
}

/// Waits for records, lets some gather, takes a batch; nothing when the applier closes.
fn next_batch(shared: &Shared) -> Option<Vec<Job>> {
    let mut queue = shared.lock();
    while queue.jobs.is_empty() {
        if queue.closing {
            return None;
        }
        queue.idle = true;
        queue = shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.idle = false;
    }
    let is_gathering = |queue: &mut Queue| {
        shared.rows.load(Ordering::Relaxed) < BATCH_ROWS && queue.hurried == 0 && !queue.closing
    };
    queue = match shared.arrived.wait_timeout_while(queue, GATHER_TIME, is_gathering) {
        Ok((queue, _)) => queue,
        Err(poisoned) => poisoned.into_inner().0,
    };
    let mut batch = Vec::new();
    let mut rows = 0;
    while rows < BATCH_ROWS
        && let Some(job) = queue.jobs.pop_front()
    {
        rows += job.writes.len();
        batch.push(job);
    }
    queue.busy = true;
    Some(batch)
}

fn apply(view: &dyn View, batch: &[Job]) -> Result<(), String> {
    let mut latest = BTreeMap::new();
    let mut applied = BTreeMap::new();
    for job in batch {
        let tenant = job.keys.tenant();
        for (key, value) in &job.writes {
            latest.insert((tenant, key), (&job.keys, value));
        }
        applied.insert(tenant, Applied { lsn: job.lsn, hash: job.hash });
    }
    let mut rows = Vec::with_capacity(latest.len());
    for ((tenant, key), (keys, value)) in latest {
        let value = match value {
            Some(value) => Some(keys.seal_value(key, value).map_err(|error| error.to_string())?),
            None => None,
        };
        rows.push(Row { tenant, key: Arc::clone(key), value });
    }
    let applied: Vec<(TenantId, Applied)> = applied.into_iter().collect();
    view.apply(rows, &applied).map_err(|error| describe(&error))
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
