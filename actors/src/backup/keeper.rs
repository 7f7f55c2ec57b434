//! The backup keeper: takes a backup when the last one is old enough, tidies the archive after it, and
//! says when the last restore drill is too long ago.
//!
//! - Owns: what is known of the newest backup and the newest drill. What lasts is in the archive.
//! - Who may send to it: nobody; a timer wakes it. Who wants a backup or a drill now asks its handle.
//! - Sends: to the platform's own compartment, that there was a backup or a drill.
//! - Its bound when busy: one backup or drill at a time, on the blocking pool.
//! - What is lost if it dies: nothing. A backup without its manifest is none, and its objects serve the
//!   next one.
//! - How it starts again: it asks the archive what there is.
//!
//! While the archive is out of reach writes go on; the keeper tries again, more and more rarely, and
//! [`BackupStats`] say so.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use storage::archive::ArchiveError;
use storage::id::{BackupId, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::drill::{DrillError, drill};
use super::manifest::BackupManifest;
use super::report::{DrillReport, SignedReport};
use super::run::BackupError;
use super::whole::Damaged;
use super::{Source, Told, catalog};
use crate::background;
use crate::call::Origin;
use crate::env::rfc3339;
use crate::standing::{self, Lifeline};
use crate::supervisor::Tenants;
use crate::tenant::directory::by_the_node;
use crate::tenant::error::{TenantError, chain};
use crate::tenant::handle::TenantHandle;
use crate::tenant::platform::{RecordBackup, RecordDrill};

mod take;

pub use take::Taken;

/// How often it looks.
const TICK: Duration = Duration::from_secs(5);
/// The pause after a first failure; each further one doubles it.
const PAUSE_FIRST: Duration = Duration::from_secs(30);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long the first backup after a start waits at most, so that nodes started together do not burden
/// one archive together.
const START_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often an overdue drill is warned of.
const WARN_EVERY_MS: u64 = 24 * 60 * 60 * 1000;
/// Why the audit log says that the node did it.
const REASON: &str = "backup schedule";

/// What the keeper keeps to.
#[derive(Debug, Clone, Copy)]
pub struct BackupPolicy {
    /// How old the newest backup gets before there is another; nothing: none is taken unasked.
    pub every: Option<Duration>,
    /// How old the last drill that passed may be.
    pub drill_overdue: Duration,
    /// How long every moment can be brought back.
    pub window: Duration,
}

/// What the keeper says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupStats {
    /// When the newest backup was taken, Unix milliseconds.
    pub succeeded_ms: Option<u64>,
    /// Backups that failed since the start.
    pub failures: u64,
    /// Why the last one failed, if it did.
    pub failing: Option<String>,
    /// When the newest drill passed, Unix milliseconds.
    pub drilled_ms: Option<u64>,
    /// Whether that is too long ago, or there are old backups and never was one.
    pub is_drill_overdue: bool,
}

/// Why there is no backup or no drill.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// One is under way.
    #[error("a backup or a drill is running; wait until it is done")]
    Busy,
    /// The node stops.
    #[error("the node stops")]
    Stopping,
    /// The backup failed.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The drill failed.
    #[error(transparent)]
    Drill(#[from] DrillError),
    /// The archive cannot be asked what there is.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The work panicked.
    #[error("the work panicked; the node's log says where")]
    Panicked,
}

/// What is known of the archive.
#[derive(Debug, Default)]
struct Known {
    stats: BackupStats,
    /// Whether the archive was asked.
    is_asked: bool,
    /// When the oldest backup was taken.
    oldest_ms: Option<u64>,
    warned_ms: u64,
}

struct Shared {
    /// Gone when the node stops.
    source: Mutex<Option<Source>>,
    policy: BackupPolicy,
    env: crate::env::Env,
    known: Mutex<Known>,
    damaged: Mutex<Damaged>,
    turn: Arc<Semaphore>,
    is_busy: AtomicBool,
    failures_in_a_row: AtomicU64,
}

/// The way to the keeper.
#[derive(Clone)]
pub struct BackupHandle {
    shared: Arc<Shared>,
    /// Gone when the node stops.
    tenants: Arc<Mutex<Option<Tenants>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // All these locks guard values that are whole after each step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BackupHandle {
    /// Starts the keeper on this thread's arbiter. Backups and drills are written to the audit log of the
    /// platform's compartment in `tenants`.
    pub fn start(source: Source, policy: BackupPolicy, tenants: Tenants) -> Self {
        let env = source.env.clone();
        let tenants = Arc::new(Mutex::new(Some(tenants)));
        let handle = Self { shared: Arc::new(Shared::new(source, policy)), tenants };
        let kept = handle.clone();
        standing::keep("BackupKeeper", &env.clone(), move |lifeline| {
            let handle = kept.clone();
            handle.shared.is_busy.store(false, Ordering::Release);
            let not_before = env.monotonic() + start_pause(&env, policy.every);
            let _addr = BackupKeeper { handle, not_before, _lifeline: lifeline }.start();
        });
        handle
    }

    /// What the keeper says of itself.
    pub fn stats(&self) -> BackupStats {
        self.shared.stats()
    }

    /// What backups are taken of.
    ///
    /// # Errors
    /// [`KeeperError::Stopping`] once the node stops.
    pub fn source(&self) -> Result<Source, KeeperError> {
        self.shared.source()
    }

    /// Takes a backup now, then tidies the archive. `reason` is what the audit log says.
    ///
    /// # Errors
    /// [`KeeperError::Busy`] while another one, or a drill, is under way.
    pub async fn run(
        &self,
        note: Option<String>,
        reason: &'static str,
        mut tell: impl FnMut(Told<'_>) + Send + 'static,
    ) -> Result<Taken, KeeperError> {
        let taken = self.work(move |shared| shared.take(note, &mut tell)).await?;
        let manifest = &taken.manifest;
        let record = RecordBackup {
            backup: manifest.id,
            tenants: manifest.tenants.len() as u64,
            new_bytes: manifest.new_bytes,
            total_bytes: manifest.total_bytes,
            removed: taken.swept.backups,
        };
        let platform = self.platform().await;
        told(match platform {
            Ok(platform) => {
                platform.command(by_the_node(reason), Origin::default(), None, record).await
            }
            Err(error) => Err(error),
        });
        Ok(taken)
    }

    /// Takes up what verifying a backup of this node's archive found.
    pub fn verified<'a>(&self, manifest: &BackupManifest, faulty: impl Iterator<Item = &'a str>) {
        lock(&self.shared.damaged).verified(manifest, faulty);
    }

    /// Holds a drill now, under `scratch` or beside the data. Its report says whether it passed.
    ///
    /// # Errors
    /// [`KeeperError::Busy`] while another one, or a backup, is under way.
    pub async fn drill(
        &self,
        backup: Option<BackupId>,
        scratch: Option<PathBuf>,
        reason: &'static str,
        mut tell: impl FnMut(Told<'_>) + Send + 'static,
    ) -> Result<SignedReport, KeeperError> {
        let held = self.work(move |shared| {
            let report = drill(&shared.source()?, backup, scratch.as_deref(), &mut tell)?;
            shared.drilled(report.claimed());
            Ok(report)
        });
        let report = held.await?;
        let DrillReport { id, backup, tenants, rpo_ms, rto_ms, .. } = report.claimed().clone();
        let passed = report.claimed().is_passed();
        let record =
            RecordDrill { drill: id, backup, passed, tenants: tenants.total, rpo_ms, rto_ms };
        let platform = self.platform().await;
        told(match platform {
            Ok(platform) => {
                platform.command(by_the_node(reason), Origin::default(), None, record).await
            }
            Err(error) => Err(error),
        });
        Ok(report)
    }

    /// Lets go of the store. Nothing is begun any more; what is under way ends by itself.
    pub fn stop(&self) {
        lock(&self.shared.source).take();
        lock(&self.tenants).take();
    }

    async fn platform(&self) -> Result<TenantHandle, TenantError> {
        let tenants = lock(&self.tenants).clone().ok_or(TenantError::Restarting)?;
        tenants.find(TenantId::PLATFORM).await
    }

    /// Starts work in the background, one at a time.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let turn = self.shared.turn.clone().try_acquire_owned().map_err(|_| KeeperError::Busy)?;
        let shared = self.shared.clone();
        let done = background::run("backup", move || {
            // Held by the work, so that a caller who goes away does not let in one too many.
            let _turn: OwnedSemaphorePermit = turn;
            work(&shared)
        });
        done.await.map_err(|_| KeeperError::Panicked)?
    }
}

fn told(outcome: Result<impl Sized, TenantError>) {
    if let Err(error) = outcome {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "a backup or a drill is not in the audit log");
    }
}

fn start_pause(env: &crate::env::Env, every: Option<Duration>) -> Duration {
    let most = every.map_or(START_PAUSE_MAX, |every| (every / 16).min(START_PAUSE_MAX));
    most.mul_f64(f64::from(u32::from_be_bytes(env.random())) / f64::from(u32::MAX))
}

impl Shared {
    fn new(source: Source, policy: BackupPolicy) -> Self {
        Self {
            env: source.env.clone(),
            source: Mutex::new(Some(source)),
            policy,
            known: Mutex::default(),
            damaged: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            is_busy: AtomicBool::new(false),
            failures_in_a_row: AtomicU64::new(0),
        }
    }

    fn source(&self) -> Result<Source, KeeperError> {
        lock(&self.source).clone().ok_or(KeeperError::Stopping)
    }

    fn stats(&self) -> BackupStats {
        let known = lock(&self.known);
        BackupStats { is_drill_overdue: self.is_drill_overdue(&known), ..known.stats.clone() }
    }

    fn is_drill_overdue(&self, known: &Known) -> bool {
        let since_ms = known.stats.drilled_ms.or(known.oldest_ms);
        let overdue_ms = u64::try_from(self.policy.drill_overdue.as_millis()).unwrap_or(u64::MAX);
        since_ms.is_some_and(|since| self.env.now_ms().saturating_sub(since) > overdue_ms)
    }

    /// Asks the archive what there is, unless it was asked before.
    fn ask(&self) -> Result<(), KeeperError> {
        if lock(&self.known).is_asked {
            return Ok(());
        }
        let source = self.source()?;
        let Some(cold) = source.store.cold() else { return Err(BackupError::NoArchive.into()) };
        let (archive, verifier) = (&**cold.archive(), source.signer.verifier());
        let catalog = catalog::read(archive, &verifier)?;
        let drilled_ms = catalog::last_passed_drill(archive, &verifier)?;
        let now_ms = self.env.now_ms();
        let mut taken = catalog.backups.iter().map(|backup| backup.taken_ms);
        let mut known = lock(&self.known);
        known.oldest_ms = taken.next();
        // One from the future says nothing of when the next is due.
        let newest = catalog.backups.iter().rev().find(|backup| backup.taken_ms <= now_ms);
        known.stats.succeeded_ms = newest.map(|backup| backup.taken_ms);
        known.stats.drilled_ms = drilled_ms;
        known.is_asked = true;
        Ok(())
    }

    /// Whether it is time for a backup. A clock that was set back does not put it off.
    fn is_due(&self) -> bool {
        let Some(every) = self.policy.every else { return false };
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let (now_ms, last_ms) = (self.env.now_ms(), lock(&self.known).stats.succeeded_ms);
        last_ms.is_none_or(|last| now_ms < last || now_ms - last >= every_ms)
    }

    fn failed(&self, error: &KeeperError) {
        if matches!(error, KeeperError::Busy | KeeperError::Stopping) {
            return;
        }
        let text = chain(error);
        let mut known = lock(&self.known);
        known.stats.failures += 1;
        if known.stats.failing.as_ref() != Some(&text) {
            tracing::warn!(
                error = text,
                "no backup was taken; writes go on, and it is tried again"
            );
        }
        known.stats.failing = Some(text);
    }

    fn drilled(&self, report: &DrillReport) {
        if report.is_passed() {
            lock(&self.known).stats.drilled_ms = Some(report.finished_ms);
        } else {
            tracing::error!(drill = %report.id, backup = %report.backup, "a restore drill failed");
        }
    }

    /// Warns once a day.
    fn warn_if_overdue(&self) {
        let now_ms = self.env.now_ms();
        let mut known = lock(&self.known);
        if !self.is_drill_overdue(&known) || now_ms.abs_diff(known.warned_ms) < WARN_EVERY_MS {
            return;
        }
        known.warned_ms = now_ms;
        let last = known.stats.drilled_ms.map_or_else(|| "never".to_owned(), rfc3339);
        tracing::warn!(last, "a restore drill is overdue: run `bulkhead drill`");
    }

    /// How long to pause after so many failures in a row.
    fn pause(&self) -> Duration {
        let failures = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
        let doublings = u32::try_from(failures.min(16)).unwrap_or(16);
        PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX)
    }
}

/// The actor.
pub struct BackupKeeper {
    handle: BackupHandle,
    /// When it may look again, on the monotonic clock.
    not_before: Duration,
    _lifeline: Lifeline,
}

impl Actor for BackupKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |keeper, ctx| keeper.look(ctx));
    }
}

impl BackupKeeper {
    fn look(&mut self, ctx: &mut Context<Self>) {
        let shared = self.handle.shared.clone();
        shared.warn_if_overdue();
        let is_early = shared.env.monotonic() < self.not_before;
        if is_early || shared.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let handle = self.handle.clone();
        let round = async move { handle.round().await };
        ctx.spawn(round.into_actor(self).map(|outcome, keeper, _| {
            let shared = &keeper.handle.shared;
            shared.is_busy.store(false, Ordering::Release);
            match outcome {
                // Somebody else's is as good.
                Ok(()) | Err(KeeperError::Busy | KeeperError::Stopping) => {
                    shared.failures_in_a_row.store(0, Ordering::Relaxed);
                }
                Err(_) => keeper.not_before = shared.env.monotonic() + shared.pause(),
            }
        }));
    }
}

impl BackupHandle {
    /// Looks whether a backup is due, and takes it.
    async fn round(&self) -> Result<(), KeeperError> {
        if !lock(&self.shared.known).is_asked {
            self.work(|shared| shared.ask().inspect_err(|error| shared.failed(error))).await?;
        }
        match self.shared.is_due() {
            true => self.run(None, REASON, |_| {}).await.map(|_| ()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
