//! Sealing a tenant: its key is withheld, so nobody is served and nothing of it stays in memory.
//!
//! What is under way when a tenant is sealed ends; whoever comes then is told so at once, whatever they
//! hold of it. The tenant's actor is dropped with its keys as soon as it is idle. Whether a key is withheld is
//! the [key watch](crate::key_watch)'s to find out, and each waking's.
//!
//! Refuses: to wake a sealed tenant, and to call a tenant faulted because its key is gone.

use actix::{Context, Handler};
use storage::id::TenantId;
use storage::keystore::KeyError;
use storage::store::StoreError;

use super::{Slot, State, Supervisor, Waiter};
use crate::call::Origin;
use crate::permit::{Permit, WriteTenants};
use crate::supervisor::door::{Tenants, to_its_end};
use crate::tenant::cx::Command;
use crate::tenant::directory::{DirectoryRow, Standing};
use crate::tenant::error::TenantError;
use crate::tenant::handle::TenantHandle;

/// Asks for a tenant to be sealed, or not to be any more.
pub(crate) struct Seal {
    pub tenant: TenantId,
    pub is_withheld: bool,
}
impl actix::Message for Seal {
    type Result = ();
}

impl Handler<Seal> for Supervisor {
    type Result = ();
    fn handle(&mut self, msg: Seal, _: &mut Context<Self>) {
        if msg.is_withheld {
            self.seal(msg.tenant);
        } else {
            self.unseal(msg.tenant);
        }
    }
}

impl Supervisor {
    /// Why nobody may wake a tenant now, if nobody may.
    pub(super) fn why_closed(&self, tenant: TenantId) -> Option<TenantError> {
        if self.is_stopping {
            Some(TenantError::Restarting)
        } else if self.sealed.contains(&tenant) {
            Some(TenantError::Sealed)
        } else {
            self.holding.contains(&tenant).then_some(TenantError::Restarting)
        }
    }

    /// What a tenant is when it has no actor and no fault.
    pub(super) fn state_at_rest(&self, tenant: TenantId) -> State {
        if self.sealed.contains(&tenant) { State::Sealed } else { State::Asleep }
    }

    fn seal(&mut self, tenant: TenantId) {
        if !self.sealed.insert(tenant) {
            return;
        }
        match self.slots.get_mut(&tenant) {
            Some(Slot::Awake(handle)) => {
                handle.seal();
                self.draining.push(tenant);
                self.board.set(tenant, State::Sealed);
            }
            Some(Slot::Waking(waiters) | Slot::Stopping(waiters)) => {
                for waiter in waiters.drain(..) {
                    let _gone = waiter.send(Err(TenantError::Sealed));
                }
                self.board.set(tenant, State::Sealed);
            }
            Some(Slot::Faulted { .. }) | None => self.board.set(tenant, State::Sealed),
            // Who holds it goes on; it stays sealed after that.
            Some(Slot::Held) => {}
        }
        self.drain_sealed();
    }

    fn unseal(&mut self, tenant: TenantId) {
        if !self.sealed.remove(&tenant) {
            return;
        }
        match self.slots.get(&tenant) {
            None => self.board.set(tenant, State::Asleep),
            Some(Slot::Faulted { .. }) => self.board.set(tenant, State::Faulted),
            Some(Slot::Waking(_)) => self.board.set(tenant, State::Waking),
            // Its doors are closed, so it ends in any case and wakes anew.
            Some(Slot::Awake(_) | Slot::Stopping(_)) => self.board.stopping(tenant),
            Some(Slot::Held) => {}
        }
    }

    /// Ends the actors of sealed tenants that have nothing under way any more.
    pub(super) fn drain_sealed(&mut self) {
        for tenant in std::mem::take(&mut self.draining) {
            let Some(Slot::Awake(handle)) = self.slots.get(&tenant) else { continue };
            if handle.stop_when_drained() {
                self.slots.insert(tenant, Slot::Stopping(Vec::new()));
            } else {
                self.draining.push(tenant);
            }
        }
    }

    /// A tenant woke that was sealed meanwhile: it ends before anybody is served.
    pub(super) fn woken_in_vain(
        &mut self,
        tenant: TenantId,
        handle: TenantHandle,
        waiters: Vec<Waiter>,
    ) {
        for waiter in waiters {
            let _gone = waiter.send(Err(TenantError::Sealed));
        }
        handle.seal();
        self.slots.insert(tenant, Slot::Awake(handle));
        self.draining.push(tenant);
        self.drain_sealed();
    }

    /// Notes what a waking that failed, by nobody's fault, says of the tenant's key.
    pub(super) fn note_key(&mut self, tenant: TenantId, error: &TenantError) {
        let state = match error {
            TenantError::Store(StoreError::Keys(KeyError::Withheld { .. })) => {
                self.sealed.insert(tenant);
                State::Sealed
            }
            // Nobody would unseal it: each further request looks for the key.
            TenantError::Store(StoreError::Keys(KeyError::Missing { .. })) => State::Sealed,
            _ => self.state_at_rest(tenant),
        };
        self.board.set(tenant, state);
    }
}

/// What those who waited for a waking that failed are told.
pub(super) fn answer_to_waiters(error: &TenantError) -> fn() -> TenantError {
    match error {
        TenantError::Restarting => || TenantError::Restarting,
        TenantError::NotFound => || TenantError::NotFound,
        error if error.is_sealing() => || TenantError::Sealed,
        TenantError::Store(error) if error.is_passing() => || TenantError::Waking,
        _ => || TenantError::Faulted,
    }
}

impl Tenants {
    /// Refuses to work on a tenant that is to be erased, or is.
    pub(crate) fn refuse_erased(&self, tenant: TenantId) -> Result<(), TenantError> {
        match self.standing(tenant) {
            Some(Standing::Erasing) => Err(TenantError::Sealed),
            Some(Standing::Erased) => Err(TenantError::NotFound),
            _ => Ok(()),
        }
    }

    /// Whether the directory says that a tenant is to be erased, or is.
    pub fn is_being_erased(&self, tenant: TenantId) -> bool {
        let standing = self.summary(tenant).map(|summary| summary.standing);
        matches!(standing, Some(Standing::Erasing | Standing::Erased))
    }

    /// Whether a tenant is sealed at this moment.
    pub fn is_sealed(&self, tenant: TenantId) -> bool {
        self.parts().board.state(tenant) == State::Sealed
    }

    /// Whether a tenant's keys are in memory, or may be in a moment.
    pub(crate) fn is_resident(&self, tenant: TenantId) -> bool {
        let state = self.parts().board.state(tenant);
        matches!(state, State::Waking | State::Awake | State::Stopping)
    }

    /// Serves nobody of a tenant any more, and drops its actor once what is under way has ended.
    #[expect(clippy::disallowed_methods, reason = "the supervisor is told")]
    pub(crate) fn seal(&self, tenant: TenantId) {
        self.parts().addr.do_send(Seal { tenant, is_withheld: true });
    }

    /// Has the platform's compartment change a tenant's erasure, and keeps what the directory says then.
    /// What is under way in the tenant ends.
    pub(crate) async fn change_erasure<C>(
        &self,
        permit: Permit<WriteTenants>,
        origin: Origin,
        tenant: TenantId,
        command: C,
    ) -> Result<DirectoryRow, TenantError>
    where
        C: Command<Action = WriteTenants, Reply = DirectoryRow> + 'static,
    {
        let tenants = self.clone();
        to_its_end(async move {
            let turn = tenants.turn(tenant);
            let _turn = turn.lock().await;
            let row = tenants.record(permit, &origin, &None, command).await?.reply;
            tenants.keep(row.clone());
            Ok(row)
        })
        .await
    }

    /// Lets a sealed tenant wake again.
    #[expect(clippy::disallowed_methods, reason = "the supervisor is told")]
    pub(crate) fn unseal(&self, tenant: TenantId) {
        self.parts().addr.do_send(Seal { tenant, is_withheld: false });
    }
}
