//! The only way to reach a tenant: bounded, timed, and plain about how it failed.
//!
//! An actix mailbox does not bound what it takes (every clone of an address has room of its own), so
//! the bound lives here: a job holds a slot from the moment it is sent until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix::Addr;
use storage::id::TenantId;
use tokio::sync::oneshot;

use crate::audit::entry::{Draft, Named};
use crate::call::{Answered, Idempotency, Origin};
use crate::limits;
use crate::permit::{Capability, Grant, Operate, Permit, Principal};
use crate::tenant::cx::{Command, Cx, Query};
use crate::tenant::error::TenantError;
use crate::tenant::job::{CommandJob, Job, QueryJob, Work};
use crate::tenant::support::using::RecordSupportUse;
use crate::tenant::{Stats, Tenant};

/// Set when the tenant takes no more jobs.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Counts the jobs under way and can be closed for good when there are none.
#[derive(Debug, Default)]
pub struct Gate(AtomicUsize, AtomicBool);

/// One job's place. Given back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Gate>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Release);
    }
}

impl Gate {
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Slot, TenantError> {
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |count| {
                (count < limits::IN_FLIGHT_MAX).then_some(count + 1)
            })
            .map(|_| Slot(self.clone()))
            .map_err(|count| match (count & CLOSED == 0, self.1.load(Ordering::Acquire)) {
                (true, _) => TenantError::Busy,
                (false, true) => TenantError::Sealed,
                (false, false) => TenantError::Restarting,
            })
    }
    /// Closes the gate if nothing is under way.
    fn close_if_idle(&self) -> bool {
        self.0.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
    /// Closes the gate, whatever is under way.
    pub(crate) fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
    }
    /// Closes the gate because the key is withheld.
    fn seal(&self) {
        self.1.store(true, Ordering::Release);
        self.close();
    }
    /// Whether the gate is closed and nothing is under way.
    fn is_drained(&self) -> bool {
        self.0.load(Ordering::Acquire) == CLOSED
    }
    /// Jobs under way.
    pub fn in_flight(&self) -> usize {
        self.0.load(Ordering::Relaxed) & !CLOSED
    }
}

/// The door to one awake tenant.
#[derive(Clone)]
pub struct TenantHandle {
    tenant: TenantId,
    addr: Addr<Tenant>,
    gate: Arc<Gate>,
    stats: Arc<Stats>,
}

impl TenantHandle {
    pub(crate) fn new(
        tenant: TenantId,
        addr: Addr<Tenant>,
        gate: Arc<Gate>,
        stats: Arc<Stats>,
    ) -> Self {
        Self { tenant, addr, gate, stats }
    }

    /// Which tenant.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// What the tenant says of itself.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
    /// Jobs under way.
    pub fn in_flight(&self) -> usize {
        self.gate.in_flight()
    }

    /// Asks for a change.
    pub async fn command<C: Command>(
        &self,
        permit: Permit<C::Action>,
        origin: Origin,
        idempotency: Option<Idempotency>,
        command: C,
    ) -> Result<Answered<C::Reply>, TenantError> {
        assert_eq!(permit.tenant(), self.tenant, "a permit for another tenant");
        let (reply, answer) = oneshot::channel();
        let work = Work::Write(Box::new(CommandJob::new(command, idempotency, reply)));
        self.ask(permit.into_principal(), origin, work, answer).await
    }

    /// Asks for a look.
    pub async fn query<Q: Query>(
        &self,
        permit: Permit<Q::Action>,
        query: Q,
    ) -> Result<Q::Reply, TenantError> {
        assert_eq!(permit.tenant(), self.tenant, "a permit for another tenant");
        let (reply, answer) = oneshot::channel();
        let work = Work::Read(Box::new(QueryJob::new(query, reply)));
        self.ask(permit.into_principal(), Origin::default(), work, answer).await
    }

    /// Writes down that somebody of this tenant was refused a privileged capability at the edge.
    /// Answers [`TenantError::StaleCredential`] when their token is no longer good at all.
    pub async fn record_refusal(
        &self,
        grant: &Grant,
        origin: Origin,
        capability: &'static Capability,
        target: Named,
    ) -> Result<(), TenantError> {
        self.record(grant, origin, RecordRefusal { capability, target }).await
    }

    /// Writes to the tenant's own log that somebody of the platform is about to see or change something.
    ///
    /// # Errors
    /// Whatever the tenant answers; then nothing may be shown.
    pub async fn record_support_use(
        &self,
        grant: &Grant,
        origin: Origin,
        route: &'static str,
        about: Named,
    ) -> Result<(), TenantError> {
        self.record(grant, origin, RecordSupportUse { route, about }).await
    }

    /// Has something written down in the name of whoever a grant is for.
    async fn record<C>(&self, grant: &Grant, origin: Origin, command: C) -> Result<(), TenantError>
    where
        C: Command<Action = Operate, Reply = ()>,
    {
        assert_eq!(grant.tenant(), self.tenant, "a grant of another tenant");
        let (reply, answer) = oneshot::channel();
        let work = Work::Write(Box::new(CommandJob::new(command, None, reply)));
        self.ask(grant.principal(), origin, work, answer).await.map(|_| ())
    }

    async fn ask<T>(
        &self,
        principal: Principal,
        origin: Origin,
        work: Work,
        answer: oneshot::Receiver<Result<T, TenantError>>,
    ) -> Result<T, TenantError> {
        let slot = self.gate.enter()?;
        self.send(Job { principal, origin, work, slot });
        match tokio::time::timeout(limits::ASK_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            // The job was dropped unanswered: the actor went away with it, midway or before.
            Ok(Err(_)) => Err(TenantError::TimedOut),
            Err(_) => Err(TenantError::TimedOut),
        }
    }

    /// Tells the tenant to end, if nothing is under way. Whether it was told.
    pub(crate) fn stop_if_idle(&self) -> bool {
        if !self.gate.close_if_idle() {
            return false;
        }
        self.stop();
        true
    }

    /// Takes no more jobs, and tells the tenant to end once nothing is under way. Whether it was told;
    /// ask again if not, but never once it was.
    pub(crate) fn stop_when_drained(&self) -> bool {
        self.gate.close();
        let is_drained = self.gate.is_drained();
        if is_drained {
            self.stop();
        }
        is_drained
    }

    /// Takes no more jobs because the tenant's key is withheld.
    pub(crate) fn seal(&self) {
        self.gate.seal();
    }

    fn stop(&self) {
        // The gate was empty, so the count may pass zero while it is closed; nobody reads it again.
        self.gate.0.fetch_add(1, Ordering::AcqRel);
        let slot = Slot(self.gate.clone());
        let principal = Principal::System("sleep");
        self.send(Job { principal, origin: Origin::default(), work: Work::Stop, slot });
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one sanctioned way into a mailbox: bounded by a slot"
    )]
    fn send(&self, job: Job) {
        self.addr.do_send(job);
    }
}

/// A 403 at the edge, kept in the tenant's own log.
struct RecordRefusal {
    capability: &'static Capability,
    target: Named,
}

impl Command for RecordRefusal {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "refusal.record";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        self.target.clone()
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        cx.audit(Draft::refused(self.capability.name, self.target).with("reason", "forbidden"));
        Ok(())
    }
}

/// A permit for the node itself, when the caller has no person behind it.
pub(crate) fn operate(tenant: TenantId, reason: &'static str) -> Permit<Operate> {
    Permit::internal(tenant, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_is_busy_and_a_closed_one_is_restarting() {
        let gate = Arc::new(Gate::default());
        let slots: Vec<_> =
            (0..limits::IN_FLIGHT_MAX).map(|_| gate.enter().expect("room")).collect();
        assert!(matches!(gate.enter(), Err(TenantError::Busy)));
        assert!(!gate.close_if_idle());
        drop(slots);
        assert!(gate.close_if_idle());
        assert!(matches!(gate.enter(), Err(TenantError::Restarting)));
        gate.seal();
        assert!(matches!(gate.enter(), Err(TenantError::Sealed)));
    }

    #[test]
    fn a_gate_closed_over_work_is_drained_when_the_work_is_done() {
        let gate = Arc::new(Gate::default());
        let slot = gate.enter().expect("room");
        gate.close();
        assert!(matches!(gate.enter(), Err(TenantError::Restarting)));
        assert!(!gate.is_drained());
        drop(slot);
        assert!(gate.is_drained());
    }
}
