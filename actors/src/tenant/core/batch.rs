//! One record in the making: commands run into it one by one, each in a savepoint of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use storage::id::FormId;
use storage::keys::{Key, Prefix};
use storage::shard::{Sealed, Shard};
use storage::txn::{Scan, Txn};
use storage::value;

use super::{Shared, plan_of};
use crate::audit::chain;
use crate::audit::entry::{Draft, Entry, Named};
use crate::call::Origin;
use crate::limits;
use crate::permit::Principal;
use crate::quota::Quota;
use crate::tenant::asker::{self, Asked};
use crate::tenant::cache::{Caches, Touched};
use crate::tenant::cx::Cx;
use crate::tenant::error::TenantError;
use crate::tenant::job::{self, Writing};
use crate::tenant::state::TenantState;

/// The transaction of one record while commands run into it.
pub(super) struct Batch<'a> {
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

/// What a batch became: the record to append, the state after it, and whose rows it touched.
pub(super) struct Made {
    pub sealed: Sealed,
    pub state: TenantState,
    pub touched: Vec<Touched>,
}

impl<'s> Batch<'s> {
    pub fn new(
        shard: &'s Shard,
        state: TenantState,
        caches: &'s mut Caches,
        shared: &'s Shared,
    ) -> Self {
        Self {
            txn: shard.txn(),
            shard,
            state,
            caches,
            shared,
            now_ms: shared.env.now_ms(),
            entries: Vec::new(),
            forms: Vec::new(),
            people_touched: false,
        }
    }

    /// Bytes written so far: when to end the batch.
    pub fn written_bytes(&self) -> usize {
        self.txn.written_bytes()
    }

    /// Runs one command. An error leaves nothing but, for a refused privilege, an audit entry; a panic
    /// leaves nothing and goes on unwinding.
    pub fn run(
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
        let before_enrolment = work.works_before_enrolment();
        let asked = Asked { capability: work.capability(), before_enrolment };
        let current = asker::current(&mut cx, principal, &asked, may_use_cache)?;
        cx.principal = current.as_ref().unwrap_or(principal);
        let ends_ms = cx.state.profile.as_ref().and_then(|profile| profile.trial_ends_ms);
        let trial_ended = ends_ms.is_some_and(|ends_ms| cx.now_ms >= ends_ms);
        if trial_ended && !work.works_after_trial() && !matches!(principal, Principal::System(_)) {
            return Err(TenantError::TrialEnded);
        }
        work.run(&mut cx)?;
        let (drafts, forms) =
            (std::mem::take(&mut cx.drafts), std::mem::take(&mut cx.forms_mentioned));
        let (people_touched, is_exempt) = (cx.people_touched, cx.is_exempt);
        self.people_touched |= people_touched;
        self.charge_bytes(bytes_before, is_exempt)?;
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
            is_exempt: false,
        }
    }

    fn actor(&mut self, principal: &Principal, origin: &Origin) -> Named {
        self.cx(principal, origin).actor()
    }

    fn charge_bytes(&mut self, before: i64, is_exempt: bool) -> Result<(), TenantError> {
        let delta = self.txn.stored_bytes_delta() - before;
        let used = self.state.used.of(Quota::StorageBytes);
        let after = used.saturating_add_signed(delta);
        let limit = plan_of(self.shared, &self.state).limit(Quota::StorageBytes);
        if let Some(limit) = limit.filter(|&limit| delta > 0 && after > limit && !is_exempt) {
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

    /// Forgets what a panicking command may have left in memory.
    pub fn distrust_caches(&mut self) {
        *self.caches = Caches::default();
    }

    /// Once a day, lets answers go whose idempotency keys are too old to be repeated.
    pub fn sweep(&mut self, swept_day: &mut u32) -> Result<(), TenantError> {
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
        let bytes_before = self.txn.stored_bytes_delta();
        for key in &old {
            self.txn.delete(key)?;
        }
        self.charge_bytes(bytes_before, false)
    }

    /// Writes the audit rows and the state row, and seals the record. `None`: nothing changed.
    pub fn seal(mut self, durable: &TenantState) -> Result<Option<Made>, TenantError> {
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
        let touched = |key| match key {
            Key::User { id } => Some(Touched::User(id)),
            Key::Session { user, .. } | Key::SecondFactors { user } => Some(Touched::User(user)),
            Key::ApiKey { id } => Some(Touched::ApiKey(id)),
            _ => None,
        };
        let touched = changes.keys().filter_map(touched).collect();
        let sealed = self.shard.seal(changes, self.now_ms)?;
        Ok(Some(Made { sealed, state: self.state, touched }))
    }
}
