//! Holding a tenant: it is stopped, and whoever holds it works on its data alone.
//!
//! Refuses: to hold a tenant twice, and to forget to let it go: dropping [`HeldTenant`] does.

use std::sync::Arc;
use std::time::Duration;

use actix::{Context, Handler};
use storage::id::TenantId;
use storage::store::Store;
use tokio::sync::oneshot;

use crate::limits;
use crate::supervisor::door::{Parts, Tenants};
use crate::supervisor::{Slot, State, Supervisor};
use crate::tenant::Stats;
use crate::tenant::core::{Core, Shared};
use crate::tenant::error::TenantError;
use crate::tenant::restore::apply;

/// How often a tenant that is to be held is looked at until its work is done.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A tenant that is to be held, and who waits for it.
pub(super) type Holding = (TenantId, oneshot::Sender<Result<(), TenantError>>);

/// Asks for a tenant to be stopped and kept so until [`Release`]; what is under way ends first.
pub(crate) struct Hold {
    pub tenant: TenantId,
    pub reply: oneshot::Sender<Result<(), TenantError>>,
}
impl actix::Message for Hold {
    type Result = ();
}

/// Lets a held tenant wake again.
pub(crate) struct Release {
    pub tenant: TenantId,
}
impl actix::Message for Release {
    type Result = ();
}

impl Handler<Hold> for Supervisor {
    type Result = ();
    fn handle(&mut self, msg: Hold, _: &mut Context<Self>) {
        self.hold(msg.tenant, msg.reply);
    }
}

impl Handler<Release> for Supervisor {
    type Result = ();
    fn handle(&mut self, msg: Release, _: &mut Context<Self>) {
        self.release(msg.tenant);
    }
}

impl Supervisor {
    fn hold(&mut self, tenant: TenantId, reply: oneshot::Sender<Result<(), TenantError>>) {
        if self.is_stopping || !self.holding.insert(tenant) {
            let _gone = reply.send(Err(TenantError::Restarting));
            return;
        }
        self.holds.push((tenant, reply));
        self.settle_holds();
    }

    /// Goes on with those that are to be held: closes their doors, and answers once they stopped.
    pub(super) fn settle_holds(&mut self) {
        for (tenant, reply) in std::mem::take(&mut self.holds) {
            if reply.is_closed() {
                self.holding.remove(&tenant);
                continue;
            }
            match self.slots.get(&tenant) {
                None | Some(Slot::Faulted { .. } | Slot::Held) => {
                    self.slots.insert(tenant, Slot::Held);
                    self.board.set(tenant, State::Held);
                    if reply.send(Ok(())).is_err() {
                        self.release(tenant);
                    }
                }
                Some(Slot::Awake(handle)) => {
                    if handle.stop_when_drained() {
                        self.board.stopping(tenant);
                        self.slots.insert(tenant, Slot::Stopping(Vec::new()));
                    }
                    self.holds.push((tenant, reply));
                }
                Some(Slot::Waking(_) | Slot::Stopping(_)) => self.holds.push((tenant, reply)),
            }
        }
    }

    fn release(&mut self, tenant: TenantId) {
        self.holding.remove(&tenant);
        if let Some(Slot::Held) = self.slots.get(&tenant) {
            self.slots.remove(&tenant);
            self.board.set(tenant, self.state_at_rest(tenant));
        }
        self.note_stopped();
    }
}

/// Opens a tenant, and carries out the restore it has pending, if any. Blocks.
pub(super) fn open(
    store: &Store,
    shared: &Arc<Shared>,
    stats: Arc<Stats>,
    tenant: TenantId,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Core, TenantError> {
    let mut core = Core::new(store.own_shard(tenant)?, shared.clone(), stats)?;
    apply::carry_out(&mut core, store.history().map(Arc::as_ref), progress)?;
    Ok(core)
}

/// A tenant that is stopped and stays so while this lives.
pub struct HeldTenant {
    tenants: Tenants,
    tenant: TenantId,
}

impl HeldTenant {
    /// Which tenant.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// Opens the tenant on this thread, which blocks: reading, and commands one by one. A pending
    /// restore is carried out; `progress` is told how many rows were compared and how many changed.
    pub fn open(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Core, TenantError> {
        let Parts { store, shared, board, .. } = self.tenants.parts();
        open(store, shared, board.stats(self.tenant), self.tenant, progress)
    }
}

impl Drop for HeldTenant {
    #[expect(clippy::disallowed_methods, reason = "the supervisor is told")]
    fn drop(&mut self) {
        self.tenants.parts().addr.do_send(Release { tenant: self.tenant });
    }
}

impl Tenants {
    /// Stops a tenant, after what is under way, and keeps everybody else from it until the answer is
    /// dropped: whoever asks meanwhile is told that it is restarting.
    ///
    /// # Errors
    /// [`TenantError::Restarting`] if somebody holds it already or the node stops,
    /// [`TenantError::Waking`] if its work does not end in time, [`TenantError::Sealed`] and
    /// [`TenantError::NotFound`] for one that is to be erased or is.
    pub async fn hold(&self, tenant: TenantId) -> Result<HeldTenant, TenantError> {
        self.refuse_erased(tenant)?;
        self.hold_any(tenant).await
    }

    /// As [`hold`](Self::hold), also for a tenant that is being erased.
    #[expect(clippy::disallowed_methods, reason = "the supervisor is told; the wait is bounded")]
    pub(crate) async fn hold_any(&self, tenant: TenantId) -> Result<HeldTenant, TenantError> {
        let (reply, answer) = oneshot::channel();
        self.parts().addr.do_send(Hold { tenant, reply });
        match tokio::time::timeout(limits::HOLD_TIMEOUT, answer).await {
            Ok(Ok(held)) => held.map(|()| HeldTenant { tenants: self.clone(), tenant }),
            Ok(Err(_)) => Err(TenantError::Restarting),
            Err(_) => Err(TenantError::Waking),
        }
    }
}
