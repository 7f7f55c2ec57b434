//! The archivist: moves history from the log to the archive, so that the log stays short and every
//! moment can still be brought back.
//!
//! - Owns: nothing that lasts. What is where, the log and the archive say themselves.
//! - Who may send to it: nobody; a timer wakes it. Who wants a round now asks its handle.
//! - Sends: nothing. Its work runs on the blocking pool, one round at a time.
//! - Its bound when busy: one round; within it one segment and one snapshot at a time.
//! - What is lost if it dies: nothing. The log keeps what is not archived.
//! - How it starts again: with the next tick it looks at what there is.
//!
//! While the archive is out of reach writes go on: the log grows, [`ArchivistStats`] says by how much,
//! and a warning is logged once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use storage::store::Store;

use crate::background;
use crate::env::Env;
use crate::standing::{self, Lifeline};

pub mod pass;

pub use pass::{PassError, Policy};

/// How often it looks.
const TICK: Duration = Duration::from_secs(1);
/// How long it pauses after a round that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// What the archivist says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchivistStats {
    /// Segments archived since the start.
    pub archived: u64,
    /// Snapshots taken since the start.
    pub snapshots: u64,
    /// Segments the log let go of since the start.
    pub let_go: u64,
    /// Complete segments that are not in the archive yet.
    pub waiting: u64,
    /// Rounds that failed since the start.
    pub failures: u64,
    /// Why the last round failed, if it did.
    pub failing: Option<String>,
    /// When a round last succeeded, Unix milliseconds.
    pub succeeded_ms: Option<u64>,
}

struct Shared {
    /// Not what keeps the store open when the node stops.
    store: Weak<Store>,
    policy: Policy,
    env: Env,
    stats: Mutex<ArchivistStats>,
    is_busy: AtomicBool,
    /// How many records the log had made durable when the growing segment was last completed, and
    /// when that was, on the monotonic clock.
    rolled_records: AtomicU64,
    rolled_ms: AtomicU64,
}

/// The way to the archivist.
#[derive(Clone)]
pub struct ArchivistHandle(Arc<Shared>);

impl ArchivistHandle {
    /// Starts the archivist on this thread's arbiter.
    pub fn start(store: &Arc<Store>, policy: Policy, env: Env) -> Self {
        let now_ms = millis(env.monotonic());
        let shared = Arc::new(Shared {
            store: Arc::downgrade(store),
            policy,
            env: env.clone(),
            stats: Mutex::default(),
            is_busy: AtomicBool::new(false),
            rolled_records: AtomicU64::new(0),
            rolled_ms: AtomicU64::new(now_ms),
        });
        let kept = shared.clone();
        standing::keep("Archivist", &env, move |lifeline| {
            let shared = kept.clone();
            // A round that died with its actor is over.
            shared.is_busy.store(false, Ordering::Release);
            let _addr =
                Archivist { shared, pause_until: Duration::ZERO, _lifeline: lifeline }.start();
        });
        Self(shared)
    }

    /// What the archivist says of itself.
    pub fn stats(&self) -> ArchivistStats {
        let waiting = self.0.waiting();
        ArchivistStats { waiting, ..self.0.stats().clone() }
    }

    /// What it keeps to.
    pub fn policy(&self) -> Policy {
        self.0.policy
    }

    /// Does a round now, on this thread, which blocks; also completes the growing segment.
    ///
    /// # Errors
    /// As for [`pass::pass`].
    pub fn round(&self) -> Result<pass::Done, PassError> {
        if let Some(store) = self.0.store.upgrade() {
            store.log().roll()?;
        }
        self.0.round()
    }

    /// Begins no more rounds, and waits for one that is under way.
    pub async fn stop(&self) {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while self.0.is_busy.swap(true, Ordering::AcqRel) {
            look.tick().await;
        }
    }
}

impl Shared {
    fn stats(&self) -> std::sync::MutexGuard<'_, ArchivistStats> {
        // Single fields are replaced, so a poisoned lock still guards sound figures.
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> u64 {
        let Some(store) = self.store.upgrade() else { return 0 };
        let archived = store.cold().and_then(|cold| cold.known());
        let sealed = store.log().sealed();
        let is_waiting =
            |number: u64| archived.as_ref().is_none_or(|known| !known.contains(&number));
        sealed.iter().filter(|segment| is_waiting(segment.number)).count() as u64
    }

    /// Completes the growing segment if what it holds is old enough.
    fn roll_if_due(&self, store: &Store) -> Result<(), PassError> {
        let now_ms = millis(self.env.monotonic());
        let records = store.log().stats().records;
        let is_due = now_ms.saturating_sub(self.rolled_ms.load(Ordering::Relaxed))
            >= millis(self.policy.roll_after);
        if !is_due {
            return Ok(());
        }
        if records > self.rolled_records.load(Ordering::Relaxed) {
            store.log().roll()?;
        }
        self.rolled_records.store(records, Ordering::Relaxed);
        self.rolled_ms.store(now_ms, Ordering::Relaxed);
        Ok(())
    }

    fn round(&self) -> Result<pass::Done, PassError> {
        let Some(store) = self.store.upgrade() else { return Ok(pass::Done::default()) };
        let outcome = self.roll_if_due(&store).and_then(|()| pass::pass(&store, self.policy));
        let mut stats = self.stats();
        match &outcome {
            Ok(done) => {
                stats.archived += done.archived;
                stats.snapshots += done.snapshots;
                stats.let_go += done.let_go;
                stats.succeeded_ms = Some(self.env.now_ms());
                if stats.failing.take().is_some() {
                    tracing::info!("the archive takes history again");
                }
            }
            Err(error) => {
                stats.failures += 1;
                let text = crate::tenant::error::chain(error);
                if stats.failing.as_ref() != Some(&text) {
                    tracing::warn!(
                        error = text,
                        "history is not archived; the log keeps it meanwhile"
                    );
                }
                stats.failing = Some(text);
            }
        }
        outcome
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The actor.
pub struct Archivist {
    shared: Arc<Shared>,
    pause_until: Duration,
    _lifeline: Lifeline,
}

impl Archivist {
    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.shared.store.strong_count() == 0 {
            return ctx.stop();
        }
        let is_paused = self.shared.env.monotonic() < self.pause_until;
        if is_paused || self.shared.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.shared.clone();
        let working = background::run("archivist", move || shared.round().is_ok());
        ctx.spawn(working.into_actor(self).map(|outcome, archivist, _| {
            archivist.shared.is_busy.store(false, Ordering::Release);
            if !matches!(outcome, Ok(true)) {
                archivist.pause_until = archivist.shared.env.monotonic() + PAUSE_AFTER_FAILURE;
            }
        }));
    }
}

impl Actor for Archivist {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |archivist, ctx| archivist.tick(ctx));
    }
}
