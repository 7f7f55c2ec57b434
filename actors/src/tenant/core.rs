//! The commit loop, free of any actor runtime.
//!
//! Commands that arrive while a record is being made durable wait in the queue and form the next
//! one. Nobody is answered, not even with a refusal that an unfinished write caused, before the
//! record is durable. Queries see durable state only.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use storage::id::TenantId;
use storage::keys::Key;
use storage::log::{Appended, Appending, Tail};
use storage::shard::Shard;
use storage::value;
use tokio::sync::oneshot;

use self::batch::{Batch, Made};
use crate::call::Origin;
use crate::env::Env;
use crate::limits;
use crate::permit::Principal;
use crate::quota::{Plan, Plans};
use crate::tenant::asker::{self, Asked};
use crate::tenant::cache::Caches;
use crate::tenant::cx::{Command, ReadCx};
use crate::tenant::error::TenantError;
use crate::tenant::handle::{Gate, Slot};
use crate::tenant::job::{CommandJob, Job, Reading, Work, Writing};
use crate::tenant::state::TenantState;
use crate::tenant::stats::Stats;

mod batch;
#[cfg(test)]
mod tests;

/// What every tenant of a node shares.
pub struct Shared {
    /// The outside world.
    pub env: Env,
    /// The plan table.
    pub plans: Arc<Plans>,
    /// Who is told of commits.
    pub observers: Vec<Arc<dyn Observer>>,
    /// What counts when a tenant's plan is not in the table any more: nothing is limited.
    pub unlimited: Plan,
}

/// Is told, never asked: what a tenant just made durable.
pub trait Observer: Send + Sync + 'static {
    /// Called on the tenant's thread after each durable record; must not block.
    fn committed(&self, commit: &Commit<'_>);
}

/// A durable record, as observers see it.
pub struct Commit<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// Where its history ends now.
    pub tail: Tail,
    /// The tenant's state after it.
    pub state: &'a TenantState,
}

struct Queued {
    principal: Principal,
    origin: Origin,
    work: Box<dyn Writing>,
    slot: Slot,
}

struct Done {
    work: Box<dyn Writing>,
    error: Option<TenantError>,
    _slot: Slot,
}

struct InFlight {
    made: Made,
    done: Vec<Done>,
}

/// Whether the tenant can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can.
    Fine,
    /// It cannot; the text says why, for operators.
    Faulted(String),
}

/// One tenant's logic and data.
pub struct Core {
    shard: Shard,
    state: TenantState,
    caches: Caches,
    shared: Arc<Shared>,
    stats: Arc<Stats>,
    queue: VecDeque<Queued>,
    in_flight: Option<InFlight>,
    panics: VecDeque<Duration>,
    swept_day: u32,
    verdict: Verdict,
}

impl Core {
    /// Takes over a shard.
    pub fn new(shard: Shard, shared: Arc<Shared>, stats: Arc<Stats>) -> Result<Self, TenantError> {
        let state = load_state(&shard)?;
        stats.opened(&shard);
        Ok(Self {
            shard,
            state,
            caches: Caches::default(),
            shared,
            stats,
            queue: VecDeque::new(),
            in_flight: None,
            panics: VecDeque::new(),
            swept_day: 0,
            verdict: Verdict::Fine,
        })
    }

    /// Whether the tenant can go on.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
    /// Whether the view is so far behind the log that the next record should wait.
    pub fn must_wait(&mut self) -> bool {
        self.in_flight.is_none() && !self.queue.is_empty() && self.is_backlogged()
    }

    /// Whether the view is too far behind. What it has by now is forgotten first: the next confirm
    /// would do that as well, but none comes while everything waits.
    fn is_backlogged(&mut self) -> bool {
        self.shard.is_backlogged() && {
            self.shard.prune();
            self.shard.is_backlogged()
        }
    }

    /// Whether waiting is in vain: the view failed and takes nothing before the next start.
    pub fn is_stopped(&self) -> bool {
        self.shard.is_stopped()
    }

    /// The tenant's own row, as it is durable.
    pub fn state(&self) -> &TenantState {
        &self.state
    }

    /// The data below, as it is durable.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Runs one command and waits until it is durable: for whoever holds the tenant without its actor.
    /// Blocks.
    pub(crate) fn run_now<C: Command>(
        &mut self,
        principal: &Principal,
        origin: Origin,
        command: C,
    ) -> Result<C::Reply, TenantError> {
        while self.is_backlogged() && !self.is_stopped() {
            pause();
        }
        let (reply, mut answer) = oneshot::channel();
        let work = Box::new(CommandJob::new(command, None, reply));
        let slot = Arc::new(Gate::default()).enter()?;
        self.queue.push_back(Queued { principal: principal.clone(), origin, work, slot });
        if let Some(appending) = self.begin() {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.map_err(|_| TenantError::Busy)?;
            self.finish(runtime.block_on(appending));
        }
        match answer.try_recv() {
            Ok(answer) => answer.map(|answered| answered.reply),
            Err(_) => Err(TenantError::Panicked),
        }
    }

    /// Takes a job: answers a query now, queues a command.
    pub(crate) fn accept(&mut self, job: Job) {
        match job.work {
            Work::Read(mut query) => self.read(&job.principal, query.as_mut()),
            Work::Write(work) => {
                let Job { principal, origin, slot, .. } = job;
                self.queue.push_back(Queued { principal, origin, work, slot });
                self.stats.queued(self.queue.len());
            }
            Work::Stop => {}
        }
    }

    fn read(&mut self, principal: &Principal, query: &mut dyn Reading) {
        if query.is_abandoned() {
            return;
        }
        let tenant = self.shard.tenant();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.shared.env.hit("tenant.read", tenant);
            let plan = plan_of(&self.shared, &self.state);
            let now_ms = self.shared.env.now_ms();
            let Self { shard, state, caches, .. } = self;
            let mut cx = ReadCx { shard, state, principal, caches, plan, now_ms };
            if cx.state.profile.is_none() {
                return Err(TenantError::NotFound);
            }
            let before_enrolment = query.works_before_enrolment();
            let asked = Asked { capability: query.capability(), before_enrolment };
            let current = asker::current(&mut cx, principal, &asked, true)?;
            cx.principal = current.as_ref().unwrap_or(principal);
            query.run(&mut cx)
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.note_damage(&error);
                query.refuse(error);
            }
            Err(panic) => {
                query.refuse(TenantError::Panicked);
                self.note_panic(&panic_text(panic.as_ref()));
            }
        }
    }

    /// Forms the next record and starts its append, if there is anything to write and nothing under
    /// way. Call again with the outcome to [`finish`](Self::finish).
    pub fn begin(&mut self) -> Option<Appending> {
        while self.in_flight.is_none() && !self.queue.is_empty() && self.verdict == Verdict::Fine {
            match self.batch() {
                Ok(Some(in_flight)) => {
                    let appending = self.shard.append(&in_flight.made.sealed);
                    self.in_flight = Some(in_flight);
                    return Some(appending);
                }
                Ok(None) => {}
                Err(error) => self.note_damage(&error),
            }
        }
        None
    }

    /// Runs queued commands into one record. `None`: nothing to write, all were answered.
    fn batch(&mut self) -> Result<Option<InFlight>, TenantError> {
        let shared = self.shared.clone();
        let mut batch = Batch::new(&self.shard, self.state.clone(), &mut self.caches, &shared);
        let (done, panic) = run_queue(&mut self.queue, &mut batch, &shared.env);
        if panic.is_some() {
            batch.distrust_caches();
        }
        let made = batch.sweep(&mut self.swept_day).and_then(|()| batch.seal(&self.state));
        self.stats.queued(self.queue.len());
        if let Some(text) = panic {
            self.note_panic(&text);
        }
        match made {
            Ok(Some(made)) => Ok(Some(InFlight { made, done })),
            Ok(None) => {
                answer(done, &|| Ok(()));
                Ok(None)
            }
            Err(error) => {
                answer(done, &|| Err(TenantError::Faulted));
                Err(error)
            }
        }
    }

    /// Takes the outcome of the append that [`begin`](Self::begin) started, and answers everyone.
    pub fn finish(&mut self, outcome: Appended) {
        let Some(InFlight { made, done }) = self.in_flight.take() else { return };
        let Made { sealed, state, touched } = made;
        let refused = match outcome {
            Appended::Durable => {
                self.shard.confirm(sealed);
                None
            }
            Appended::Unknown => match self.shard.resolve_unknown(sealed) {
                Ok(true) => None,
                Ok(false) => Some(TenantError::LogStopped),
                Err(error) => {
                    self.verdict =
                        Verdict::Faulted(format!("an append's outcome is unknown: {error}"));
                    Some(TenantError::TimedOut)
                }
            },
            Appended::Full => Some(TenantError::DiskFull),
            Appended::Poisoned => Some(TenantError::LogStopped),
            Appended::Fenced { tail } => {
                let lsn = tail.lsn;
                self.verdict = Verdict::Faulted(format!("another owner wrote record {lsn}"));
                Some(TenantError::Restarting)
            }
        };
        match refused {
            None => {
                self.state = state;
                for touched in touched {
                    self.caches.forget(touched);
                }
                let (tenant, tail) = (self.shard.tenant(), self.shard.tail());
                let commit = Commit { tenant, tail, state: &self.state };
                self.stats.committed(
                    &self.shard,
                    self.shared.env.now_ms(),
                    self.caches.resident_bytes(),
                );
                for observer in &self.shared.observers {
                    observer.committed(&commit);
                }
                answer(done, &|| Ok(()));
            }
            Some(error) => {
                // The caches may have seen what never happened.
                self.caches = Caches::default();
                let again = move || {
                    Err(match &error {
                        TenantError::DiskFull => TenantError::DiskFull,
                        TenantError::Restarting => TenantError::Restarting,
                        TenantError::TimedOut => TenantError::TimedOut,
                        _ => TenantError::LogStopped,
                    })
                };
                answer(done, &again);
            }
        }
    }

    /// Refuses everything that waits. For a tenant that ends.
    pub fn refuse_all(&mut self, error: impl Fn() -> TenantError) {
        for mut queued in self.queue.drain(..) {
            queued.work.finish(Err(error()));
        }
        if let Some(in_flight) = self.in_flight.take() {
            answer(in_flight.done, &|| Err(TenantError::TimedOut));
        }
    }

    fn note_panic(&mut self, text: &str) {
        let now = self.shared.env.monotonic();
        self.panics.push_back(now);
        while self.panics.front().is_some_and(|&at| now.saturating_sub(at) > limits::PANIC_WINDOW) {
            self.panics.pop_front();
        }
        self.stats.panicked(text);
        let tenant = self.shard.tenant();
        tracing::error!(tenant.id = %tenant, panic = text, "a tenant panicked and was rebuilt from storage");
        self.caches = Caches::default();
        if self.panics.len() >= limits::PANICS_MAX {
            self.verdict = Verdict::Faulted(format!("{} panics: {text}", self.panics.len()));
        } else if self.in_flight.is_none() {
            match load_state(&self.shard) {
                Ok(state) => self.state = state,
                Err(error) => self.note_damage(&error),
            }
        }
    }

    fn note_damage(&mut self, error: &TenantError) {
        if let TenantError::Store(_) | TenantError::Value(_) = error {
            self.verdict = Verdict::Faulted(format!("its data cannot be read: {error}"));
        }
    }
}

/// Runs commands until the record is full, the queue is empty or one panics; says with what.
fn run_queue(
    queue: &mut VecDeque<Queued>,
    batch: &mut Batch<'_>,
    env: &Env,
) -> (Vec<Done>, Option<String>) {
    let started = env.monotonic();
    let mut done: Vec<Done> = Vec::new();
    while let Some(Queued { principal, origin, mut work, slot }) = queue.pop_front() {
        if work.is_abandoned() {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| batch.run(&principal, &origin, work.as_mut()))) {
            Ok(outcome) => done.push(Done { work, error: outcome.err(), _slot: slot }),
            Err(payload) => {
                work.finish(Err(TenantError::Panicked));
                return (done, Some(panic_text(payload.as_ref())));
            }
        }
        let is_full = done.len() >= limits::BATCH_COMMANDS_MAX
            || batch.written_bytes() >= limits::BATCH_BYTES_MAX
            || env.monotonic().saturating_sub(started) >= limits::BATCH_TIME_MAX;
        if is_full {
            break;
        }
    }
    (done, None)
}

fn answer(done: Vec<Done>, outcome: &dyn Fn() -> Result<(), TenantError>) {
    for mut one in done {
        let result = match (outcome(), one.error.take()) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(error)) => Err(error),
            (Err(error), _) => Err(error),
        };
        one.work.finish(result);
    }
}

fn load_state(shard: &Shard) -> Result<TenantState, TenantError> {
    match shard.get(&Key::State {})? {
        Some(bytes) => Ok(value::decode(&bytes)?),
        None => Ok(TenantState::default()),
    }
}

pub(crate) fn plan_of<'a>(shared: &'a Shared, state: &TenantState) -> &'a Plan {
    let name = state.profile.as_ref().map(|profile| profile.plan.as_str());
    name.and_then(|name| shared.plans.get(name)).unwrap_or(&shared.unlimited)
}

#[expect(clippy::disallowed_methods, reason = "on a thread of its own, for the view to catch up")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
