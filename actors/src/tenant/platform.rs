//! What the platform's own compartment answers to its administrators beside the directory: proof that
//! they still may, and the record of a verification they asked for.
//!
//! Nothing here reaches another tenant; the directory's changes are in
//! [`directory`](crate::tenant::directory).

use std::marker::PhantomData;

use storage::id::TenantId;

use crate::audit::entry::{Draft, Named};
use crate::permit::{Action, VerifyAudit};
use crate::tenant::cx::{Command, Cx, Query, ReadCx};
use crate::tenant::error::TenantError;

/// Proves that the caller's session is still good, before an answer that no tenant gives.
pub struct CheckStanding<A> {
    action: PhantomData<fn() -> A>,
}

impl<A> Default for CheckStanding<A> {
    fn default() -> Self {
        Self { action: PhantomData }
    }
}

impl<A: Action> Query for CheckStanding<A> {
    type Action = A;
    type Reply = ();

    /// The session was checked before this runs, as for every message of a person.
    fn run(self, _: &mut ReadCx<'_>) -> Result<(), TenantError> {
        Ok(())
    }
}

/// Writes to the platform's own chain that somebody had audit logs verified, and how that ended.
#[derive(Debug)]
pub struct RecordVerification {
    /// Whose log; absent: every tenant's, and the anchor over them.
    pub tenant: Option<TenantId>,
    /// Whether everything holds.
    pub ok: bool,
    /// How many tenants' logs were looked at.
    pub tenants: u64,
    /// How many of those do not hold.
    pub bad: u64,
}

impl Command for RecordVerification {
    type Action = VerifyAudit;
    type Reply = ();
    const NAME: &'static str = "audit.verify";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        match self.tenant {
            Some(tenant) => Named::new("tenant", tenant),
            None => Named::new("node", "-"),
        }
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let draft = Draft::success(Self::NAME, self.target())
            .with("ok", self.ok)
            .with("tenants", self.tenants)
            .with("bad", self.bad);
        cx.audit(draft);
        Ok(())
    }
}
