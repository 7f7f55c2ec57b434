//! The commit loop driven without any actor runtime.

use std::sync::Mutex;

use storage::id::Id;
use storage::log::CommitLog;
use storage::log::memory::MemoryLog;
use storage::store::Store;
use storage::view::MemoryView;
use tokio::sync::oneshot;

use super::*;
use crate::audit::entry::{Draft, Named};
use crate::call::{Answered, Idempotency};
use crate::env::{Clock, Faults};
use crate::permit::{CreateForms, Operate, Role};
use crate::quota::Quota;
use crate::tenant::cx::Cx;
use crate::tenant::cx::Reads as _;
use crate::tenant::cx::{Command, Query};
use crate::tenant::directory::Found;
use crate::tenant::handle::Gate;
use crate::tenant::job::{CommandJob, QueryJob};
use crate::tenant::state::Profile;
use storage::id::FormId;

/// Time stands still, so that no batch ends because the machine is busy.
struct StandingClock;

impl Clock for StandingClock {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Adds to a counter row, takes a form of the quota, and is privileged.
struct Add(u64);

fn counter() -> Key {
    Key::Form { id: FormId::new(1, [1; 10]) }
}

impl Command for Add {
    type Action = CreateForms;
    type Reply = u64;
    const NAME: &'static str = "counter.add";
    fn target(&self) -> Named {
        Named::new("counter", "1")
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<u64, TenantError> {
        let before: u64 = cx.row(&counter())?.unwrap_or(0);
        cx.put(&counter(), &(before + self.0))?;
        cx.charge(Quota::Forms, 1)?;
        cx.audit(Draft::success(Self::NAME, Named::new("counter", "1")));
        assert!(self.0 != 666, "an evil number");
        Ok(before + self.0)
    }
}

struct ReadCounter;

impl Query for ReadCounter {
    type Action = Operate;
    type Reply = u64;
    fn run(self, cx: &mut ReadCx<'_>) -> Result<u64, TenantError> {
        Ok(cx.row(&counter())?.unwrap_or(0))
    }
}

struct Stage {
    core: Core,
    log: Arc<MemoryLog>,
    gate: Arc<Gate>,
    runtime: tokio::runtime::Runtime,
    commits: Arc<Commits>,
}

#[derive(Default)]
struct Commits(Mutex<Vec<(u64, u64)>>);

impl Observer for Commits {
    fn committed(&self, commit: &Commit<'_>) {
        self.0.lock().unwrap().push((commit.tail.lsn, commit.state.audit.seq));
    }
}

type Answer<T> = oneshot::Receiver<Result<Answered<T>, TenantError>>;

impl Stage {
    fn new(forms: Option<u64>) -> Self {
        Self::with(forms, Env::real().with_clock(Arc::new(StandingClock)))
    }

    fn with(forms: Option<u64>, env: Env) -> Self {
        let tenant = TenantId::new(1, [3; 10]);
        let log = MemoryLog::new();
        let scratch = Store::in_memory().unwrap();
        let view = Arc::new(MemoryView::default());
        let store = Store::from_parts(log.clone(), view, scratch.keystore().clone()).unwrap();
        store.create_tenant(tenant).unwrap();
        let plan = Plan { forms, ..Plan::default() };
        let commits = Arc::new(Commits::default());
        let shared = Arc::new(Shared {
            env,
            plans: Arc::new(Plans([("p".to_owned(), plan)].into())),
            observers: vec![commits.clone()],
            unlimited: Plan::default(),
        });
        let core = Core::new(store.own_shard(tenant).unwrap(), shared, Arc::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stage = Self { core, log, gate: Arc::default(), runtime, commits };
        let profile = Profile {
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: "p".to_owned(),
            region: "local".to_owned(),
            created_ms: 1,
            trial_ends_ms: None,
            version: 1,
            mfa_required: false,
            support_approval: false,
        };
        let found = Found { profile, owner: None, role: Role::Owner, is_repeatable: false };
        let founded = stage.send_as("found", None, found);
        stage.drain();
        now(founded).unwrap();
        stage
    }

    fn send<C: Command>(&mut self, command: C) -> Answer<C::Reply> {
        self.send_as("test", None, command)
    }

    fn send_as<C: Command>(
        &mut self,
        reason: &'static str,
        idempotency: Option<Idempotency>,
        command: C,
    ) -> Answer<C::Reply> {
        let (reply, answer) = oneshot::channel();
        let work = Work::Write(Box::new(CommandJob::new(command, idempotency, reply)));
        let slot = self.gate.enter().unwrap();
        let principal = Principal::System(reason);
        self.core.accept(Job { principal, origin: Origin::default(), work, slot });
        answer
    }

    fn read(&mut self) -> Result<u64, TenantError> {
        let (reply, mut answer) = oneshot::channel();
        let work = Work::Read(Box::new(QueryJob::new(ReadCounter, reply)));
        let slot = self.gate.enter().unwrap();
        let principal = Principal::System("test");
        self.core.accept(Job { principal, origin: Origin::default(), work, slot });
        answer.try_recv().unwrap()
    }

    fn drain(&mut self) {
        while let Some(appending) = self.core.begin() {
            let outcome = self.runtime.block_on(appending);
            self.core.finish(outcome);
        }
    }

    fn tail(&self) -> Tail {
        self.log.tail(self.core.shard.tenant()).unwrap()
    }
}

fn now<T>(mut answer: Answer<T>) -> Result<T, TenantError> {
    answer.try_recv().expect("an answer").map(|answered| answered.reply)
}

#[test]
fn commands_that_arrive_during_an_append_share_the_next_record() {
    let mut stage = Stage::new(None);
    let before = stage.tail().lsn;
    let mut first = stage.send(Add(1));
    let appending = stage.core.begin().unwrap();
    let rest: Vec<_> = (0..20).map(|_| stage.send(Add(1))).collect();
    assert!(stage.core.begin().is_none(), "one record in flight");
    assert!(first.try_recv().is_err(), "nobody is answered before the record is durable");
    assert_eq!(stage.read().unwrap(), 0, "and nobody sees it");
    let outcome = stage.runtime.block_on(appending);
    stage.core.finish(outcome);
    assert_eq!(now(first).unwrap(), 1);
    stage.drain();
    let sums: Vec<_> = rest.into_iter().map(|answer| now(answer).unwrap()).collect();
    assert_eq!(sums, (2..=21).collect::<Vec<_>>());
    assert_eq!(stage.tail().lsn, before + 2, "twenty commands in one record");
    assert_eq!(stage.commits.0.lock().unwrap().last(), Some(&(before + 2, 22)));
    assert_eq!(stage.gate.in_flight(), 0);
}

#[test]
fn a_quota_lets_exactly_the_rest_through_and_the_refused_leave_only_an_entry() {
    let mut stage = Stage::new(Some(3));
    let answers: Vec<_> = (0..10).map(|_| stage.send(Add(1))).collect();
    stage.drain();
    let outcomes: Vec<_> = answers.into_iter().map(now).collect();
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let over = |outcome: &Result<u64, TenantError>| {
        matches!(outcome, Err(TenantError::QuotaExceeded { quota: Quota::Forms, limit: 3 }))
    };
    assert_eq!((done, outcomes.iter().filter(|outcome| over(outcome)).count()), (3, 7));
    assert_eq!(stage.read().unwrap(), 3);
    // The founding, three additions and seven refusals.
    assert_eq!(stage.core.state.audit.seq, 1 + 3 + 7);
}

#[test]
fn a_panic_undoes_its_own_command_only_and_the_queue_goes_on() {
    let mut stage = Stage::new(None);
    let (before, evil, after) = (stage.send(Add(1)), stage.send(Add(666)), stage.send(Add(2)));
    stage.drain();
    assert_eq!(now(before).unwrap(), 1);
    assert!(matches!(now(evil), Err(TenantError::Panicked)));
    assert_eq!(now(after).unwrap(), 3);
    assert_eq!(stage.read().unwrap(), 3);
    assert_eq!(stage.core.verdict(), &Verdict::Fine);
}

#[test]
fn too_many_panics_fault_the_tenant() {
    let mut stage = Stage::new(None);
    let answers: Vec<_> = (0..limits::PANICS_MAX).map(|_| stage.send(Add(666))).collect();
    stage.drain();
    assert!(answers.into_iter().all(|answer| matches!(now(answer), Err(TenantError::Panicked))));
    assert!(matches!(stage.core.verdict(), Verdict::Faulted(_)));
    let late = stage.send(Add(1));
    stage.drain();
    stage.core.refuse_all(|| TenantError::Faulted);
    assert!(matches!(now(late), Err(TenantError::Faulted)));
}

#[test]
fn an_append_that_fails_for_sure_changes_nothing() {
    let mut stage = Stage::new(None);
    for (appended, is_expected) in [
        (Appended::Full, (|error| matches!(error, TenantError::DiskFull)) as fn(&_) -> bool),
        (Appended::Poisoned, |error| matches!(error, TenantError::LogStopped)),
    ] {
        stage.log.fail_next(appended);
        let answer = stage.send(Add(5));
        stage.drain();
        assert!(is_expected(&now(answer).unwrap_err()), "{appended:?}");
        assert_eq!(stage.read().unwrap(), 0);
        assert_eq!(stage.core.state.audit.seq, 1);
    }
}

#[test]
fn an_unknown_outcome_is_looked_up_before_anyone_is_answered() {
    let mut stage = Stage::new(None);
    stage.log.unknown_but_written_next();
    let written = stage.send(Add(5));
    stage.drain();
    assert_eq!(now(written).unwrap(), 5);
    stage.log.fail_next(Appended::Unknown);
    let lost = stage.send(Add(7));
    stage.drain();
    assert!(matches!(now(lost), Err(TenantError::LogStopped)));
    assert_eq!(stage.read().unwrap(), 5);
    let again = stage.send(Add(1));
    stage.drain();
    assert_eq!(now(again).unwrap(), 6);
}

#[test]
fn another_owner_ends_this_one() {
    let mut stage = Stage::new(None);
    stage.log.fail_next(Appended::Fenced { tail: Tail::EMPTY });
    let answer = stage.send(Add(5));
    stage.drain();
    assert!(matches!(now(answer), Err(TenantError::Restarting)));
    assert!(matches!(stage.core.verdict(), Verdict::Faulted(_)));
}

#[test]
fn an_idempotency_key_has_one_effect_and_one_answer() {
    let mut stage = Stage::new(None);
    let key = |byte| Idempotency { scope: "me POST /x abc".to_owned(), fingerprint: [byte; 32] };
    let answers: Vec<_> = (0..5).map(|_| stage.send_as("test", Some(key(1)), Add(4))).collect();
    stage.drain();
    let late = stage.send_as("test", Some(key(1)), Add(4));
    let other = stage.send_as("test", Some(key(2)), Add(4));
    stage.drain();
    let replayed: Vec<_> = answers
        .into_iter()
        .chain([late])
        .map(|mut answer| answer.try_recv().unwrap().unwrap())
        .map(|answered| (answered.reply, answered.replayed))
        .collect();
    assert_eq!(replayed[0], (4, false));
    assert!(replayed[1..].iter().all(|answer| *answer == (4, true)), "{replayed:?}");
    assert!(matches!(now(other), Err(TenantError::IdempotencyKeyReused)));
    assert_eq!(stage.read().unwrap(), 4);
}

#[test]
fn a_caller_that_went_away_before_its_turn_changes_nothing() {
    let mut stage = Stage::new(None);
    drop(stage.send(Add(9)));
    stage.drain();
    assert_eq!(stage.read().unwrap(), 0);
    assert_eq!(stage.gate.in_flight(), 0);
}

struct PanicOnRead;
impl Faults for PanicOnRead {
    fn hit(&self, point: &'static str, _: TenantId) {
        assert!(point != "tenant.read", "injected");
    }
}

#[test]
fn a_panicking_query_harms_nobody_else() {
    let mut stage = Stage::with(None, Env::real().with_faults(Arc::new(PanicOnRead)));
    assert!(matches!(stage.read(), Err(TenantError::Panicked)));
    let answer = stage.send(Add(2));
    stage.drain();
    assert_eq!(now(answer).unwrap(), 2);
}
