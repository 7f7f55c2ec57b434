//! The commit loop, free of any actor runtime.
//!
//! Commands that arrive while a record is being made durable wait in the queue and form the next
//! one. Nobody is answered, not even with a refusal that an unfinished write caused, before the
//! record is durable. Queries see durable state only.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use storage::id::{FormId, TenantId};
use storage::keys::{Key, Prefix};
use storage::log::{Appended, Appending, Tail};
use storage::shard::{Sealed, Shard};
use storage::txn::{Scan, Txn};
use storage::value;

use crate::audit::chain;
use crate::audit::entry::{Draft, Entry, Named};
use crate::call::Origin;
use crate::env::Env;
use crate::limits;
use crate::permit::{Principal, UserPrincipal};
use crate::quota::{Plan, Plans, Quota};
use crate::tenant::cache::{Caches, Standing};
use crate::tenant::cx::{Cx, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::handle::Slot;
use crate::tenant::job::{self, Job, Reading, Work, Writing};
use crate::tenant::people::{SessionRow, UserRow};
use crate::tenant::state::TenantState;
use crate::tenant::stats::Stats;

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
    sealed: Sealed,
    done: Vec<Done>,
    state: TenantState,
    people: Vec<storage::id::UserId>,
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
    pub fn must_wait(&self) -> bool {
        self.in_flight.is_none() && !self.queue.is_empty() && self.shard.is_backlogged()
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
            if let Principal::User(user) = principal {
                check_standing(&mut cx, user, true)?;
            }
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
                    let appending = self.shard.append(&in_flight.sealed);
                    self.in_flight = Some(in_flight);
                    return Some(appending);
                }
                Ok(None) => {}
                Err(error) => self.note_damage(&error),
            }
        }
        None
    }

    /// Runs queued commands into one transaction. `None`: nothing to write, all were answered.
    fn batch(&mut self) -> Result<Option<InFlight>, TenantError> {
        let shared = self.shared.clone();
        let now_ms = shared.env.now_ms();
        let started = shared.env.monotonic();
        let mut batch = Batch {
            txn: self.shard.txn(),
            shard: &self.shard,
            state: self.state.clone(),
            caches: &mut self.caches,
            shared: &shared,
            now_ms,
            entries: Vec::new(),
            forms: Vec::new(),
            people_touched: false,
        };
        let mut done: Vec<Done> = Vec::new();
        let mut panic = None;
        while let Some(Queued { principal, origin, mut work, slot }) = self.queue.pop_front() {
            if work.is_abandoned() {
                continue;
            }
            let outcome =
                catch_unwind(AssertUnwindSafe(|| batch.run(&principal, &origin, work.as_mut())));
            match outcome {
                Ok(outcome) => done.push(Done { work, error: outcome.err(), _slot: slot }),
                Err(payload) => {
                    work.finish(Err(TenantError::Panicked));
                    panic = Some(panic_text(payload.as_ref()));
                    break;
                }
            }
            let is_full = done.len() >= limits::BATCH_COMMANDS_MAX
                || batch.txn.written_bytes() >= limits::BATCH_BYTES_MAX
                || shared.env.monotonic().saturating_sub(started) >= limits::BATCH_TIME_MAX;
            if is_full {
                break;
            }
        }
        // A panic rolled its own savepoint back, but what it left in memory is not to be trusted.
        if panic.is_some() {
            batch.undo_panicked();
        }
        let sweep = batch.sweep(&mut self.swept_day);
        let sealed = sweep.and_then(|()| batch.seal(&self.state));
        if let Some(text) = panic {
            self.note_panic(&text);
        }
        self.stats.queued(self.queue.len());
        match sealed {
            Ok(Some((sealed, state, people))) => Ok(Some(InFlight { sealed, done, state, people })),
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
        let Some(InFlight { sealed, done, state, people }) = self.in_flight.take() else { return };
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
                for user in people {
                    self.caches.forget_user(user);
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

fn plan_of<'a>(shared: &'a Shared, state: &TenantState) -> &'a Plan {
    let name = state.profile.as_ref().map(|profile| profile.plan.as_str());
    name.and_then(|name| shared.plans.get(name)).unwrap_or(&shared.unlimited)
}

/// Whether a token still speaks for its user: the session is there and the rights are unchanged.
fn check_standing(
    cx: &mut impl Reads,
    user: &UserPrincipal,
    may_use_cache: bool,
) -> Result<(), TenantError> {
    let now_ms = cx.now_ms();
    let id = (user.user, user.session);
    let kept = may_use_cache.then(|| cx.caches().standings.get(&id).copied()).flatten();
    let standing = match kept {
        Some(standing) => standing,
        None => {
            let session: Option<SessionRow> =
                cx.row(&Key::Session { user: user.user, id: user.session })?;
            let row: Option<UserRow> = cx.row(&Key::User { id: user.user })?;
            let (Some(session), Some(row)) = (session, row) else {
                return Err(TenantError::StaleCredential);
            };
            let standing = Standing { authz: row.authz, expires_ms: session.expires_ms };
            if may_use_cache {
                cx.caches().standings.insert(id, standing);
            }
            standing
        }
    };
    if standing.authz == user.authz && now_ms < standing.expires_ms {
        Ok(())
    } else {
        Err(TenantError::StaleCredential)
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// The transaction of one record while commands run into it.
struct Batch<'a> {
    txn: Txn<'a>,
    shard: &'a Shard,
    state: TenantState,
    caches: &'a mut Caches,
    shared: &'a Shared,
    now_ms: u64,
    entries: Vec<Entry>,
    forms: Vec<(FormId, u64)>,
    people_touched: bool,
}

impl<'s> Batch<'s> {
    fn run(
        &mut self,
        principal: &Principal,
        origin: &Origin,
        work: &mut dyn Writing,
    ) -> Result<(), TenantError> {
        let savepoint = self.txn.savepoint();
        let before = self.state.clone();
        let result = catch_unwind(AssertUnwindSafe(|| self.attempt(principal, origin, work)));
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.txn.rollback(savepoint);
                self.state = before;
                if error.is_refusal() && work.capability().privileged {
                    let draft =
                        Draft::refused(work.name(), work.target()).with("reason", error.name());
                    let actor = self.actor(principal, origin);
                    self.chain(origin, vec![(actor, draft)], &[]);
                }
                Err(error)
            }
            Err(payload) => {
                self.txn.rollback(savepoint);
                self.state = before;
                std::panic::resume_unwind(payload)
            }
        }
    }

    fn attempt(
        &mut self,
        principal: &Principal,
        origin: &Origin,
        work: &mut dyn Writing,
    ) -> Result<(), TenantError> {
        let bytes_before = self.txn.stored_bytes_delta();
        self.shared.env.hit("tenant.write", self.shard.tenant());
        let may_use_cache = !self.people_touched;
        let mut cx = self.cx(principal, origin);
        match (&cx.state.profile, principal) {
            (None, Principal::System("found")) => {}
            (None, _) => return Err(TenantError::NotFound),
            (Some(_), _) => {}
        }
        if let Principal::User(user) = principal {
            check_standing(&mut cx, user, may_use_cache)?;
        }
        let ends_ms = cx.state.profile.as_ref().and_then(|profile| profile.trial_ends_ms);
        let trial_ended = ends_ms.is_some_and(|ends_ms| cx.now_ms >= ends_ms);
        if trial_ended && !work.works_after_trial() && !matches!(principal, Principal::System(_)) {
            return Err(TenantError::TrialEnded);
        }
        work.run(&mut cx)?;
        let (drafts, forms) =
            (std::mem::take(&mut cx.drafts), std::mem::take(&mut cx.forms_mentioned));
        let people_touched = cx.people_touched;
        self.people_touched |= people_touched;
        self.charge_bytes(bytes_before)?;
        self.chain(origin, drafts, &forms);
        Ok(())
    }

    fn cx<'b>(&'b mut self, principal: &'b Principal, origin: &'b Origin) -> Cx<'b, 's> {
        let plan = plan_of(self.shared, &self.state);
        Cx {
            txn: &mut self.txn,
            shard: self.shard,
            state: &mut self.state,
            principal,
            origin,
            caches: self.caches,
            plan,
            env: &self.shared.env,
            now_ms: self.now_ms,
            drafts: Vec::new(),
            forms_mentioned: Vec::new(),
            people_touched: false,
        }
    }

    fn actor(&mut self, principal: &Principal, origin: &Origin) -> Named {
        self.cx(principal, origin).actor()
    }

    fn charge_bytes(&mut self, before: i64) -> Result<(), TenantError> {
        let delta = self.txn.stored_bytes_delta() - before;
        let used = self.state.used.of(Quota::StorageBytes);
        let after = used.saturating_add_signed(delta);
        let limit = plan_of(self.shared, &self.state).limit(Quota::StorageBytes);
        if let Some(limit) = limit.filter(|&limit| delta > 0 && after > limit) {
            return Err(TenantError::QuotaExceeded { quota: Quota::StorageBytes, limit });
        }
        self.state.used.set(Quota::StorageBytes, after);
        Ok(())
    }

    fn chain(&mut self, origin: &Origin, drafts: Vec<(Named, Draft)>, forms: &[FormId]) {
        for (actor, draft) in drafts {
            self.entries.push(chain::append(
                &mut self.state.audit,
                self.now_ms,
                actor,
                origin,
                draft,
            ));
        }
        let first = self.entries.first().map(|entry| entry.seq);
        self.forms.extend(forms.iter().filter_map(|&form| first.map(|seq| (form, seq))));
    }

    fn undo_panicked(&mut self) {
        *self.caches = Caches::default();
    }

    /// Once a day, lets answers go whose idempotency keys are too old to be repeated.
    fn sweep(&mut self, swept_day: &mut u32) -> Result<(), TenantError> {
        const ROWS: usize = 64;
        let today = job::day(self.now_ms);
        if *swept_day == today {
            return Ok(());
        }
        let any = Key::Idempotency { day: 0, digest: [0; 32] };
        let scan = Scan { prefix: Prefix::kind(&any), after: None, reverse: false, limit: ROWS };
        let rows = self.txn.scan(&scan)?;
        let oldest_kept = today.saturating_sub(limits::IDEMPOTENCY_DAYS);
        let is_old = |key: &Key| matches!(key, Key::Idempotency { day, .. } if *day < oldest_kept);
        let old: Vec<_> = rows.into_iter().map(|(key, _)| key).filter(is_old).collect();
        if old.len() < ROWS {
            *swept_day = today;
        }
        for key in &old {
            self.txn.delete(key)?;
        }
        Ok(())
    }

    /// Writes the audit rows and the state row, and seals the record. `None`: nothing changed.
    #[expect(clippy::type_complexity, reason = "the three parts are taken apart at once")]
    fn seal(
        mut self,
        durable: &TenantState,
    ) -> Result<Option<(Sealed, TenantState, Vec<storage::id::UserId>)>, TenantError> {
        if let Some(first) = self.entries.first().map(|entry| entry.seq) {
            self.txn.put(&Key::Audit { seq: first }, value::encode(&self.entries))?;
            self.forms.sort_unstable();
            self.forms.dedup();
            for &(form, seq) in &self.forms {
                self.txn.put(&Key::AuditTrail { form, seq }, Vec::new())?;
            }
        }
        if self.state != *durable {
            self.txn.put(&Key::State {}, value::encode(&self.state))?;
        }
        if self.txn.is_empty() {
            return Ok(None);
        }
        let changes = self.txn.finish();
        let mut people: Vec<_> = changes
            .keys()
            .filter_map(|key| match key {
                Key::User { id } => Some(id),
                Key::Session { user, .. } => Some(user),
                _ => None,
            })
            .collect();
        people.dedup();
        let sealed = self.shard.seal(changes, self.now_ms)?;
        Ok(Some((sealed, self.state, people)))
    }
}

#[cfg(test)]
mod tests;
