//! What the platform's own compartment answers to its administrators beside the directory: proof that
//! they still may, and the records of what was done to the node as a whole.
//!
//! Nothing here reaches another tenant; the directory's changes are in
//! [`directory`](crate::tenant::directory).

use std::marker::PhantomData;

use storage::id::{BackupId, DrillId, TenantId};

use crate::audit::entry::{Draft, Named};
use crate::call::Paging;
use crate::permit::{Action, ReadAudit, ReadPlatformAudit, VerifyAudit, WriteTenants};
use crate::tenant::audit::{AuditFilter, AuditList, AuditPage};
use crate::tenant::cx::{Command, Cx, Query, ReadCx};
use crate::tenant::error::TenantError;

pub mod admins;

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

/// A look at the platform's own audit log, as a tenant's people look at theirs.
#[derive(Debug, Clone)]
pub struct OfPlatform<Q>(pub Q);

impl<Q: Query<Action = ReadAudit>> Query for OfPlatform<Q> {
    type Action = ReadPlatformAudit;
    type Reply = Q::Reply;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Q::Reply, TenantError> {
        self.0.run(cx)
    }
}

impl<Q> AuditList for OfPlatform<Q>
where
    Q: AuditList + Query<Action = ReadAudit, Reply = AuditPage>,
{
    fn filter(&self) -> AuditFilter {
        self.0.filter()
    }
    fn paging(&mut self) -> &mut Paging {
        self.0.paging()
    }
    fn is_oldest_first(&self) -> bool {
        self.0.is_oldest_first()
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

/// Writes to the platform's own chain that the key-encryption key is about to be rotated. Before
/// anything changes: where this cannot be written, nothing is rotated.
#[derive(Debug)]
pub struct RecordRotationBegun {
    /// The version that is current.
    pub previous: String,
    /// Whether only a rotation begun earlier is brought to its end.
    pub resume: bool,
}

impl Command for RecordRotationBegun {
    type Action = WriteTenants;
    type Reply = ();
    const NAME: &'static str = RecordRotation::NAME;
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("node", "-")
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let draft = Draft::success(Self::NAME, self.target())
            .with("step", "begun")
            .with("previous", self.previous)
            .with("resume", self.resume);
        cx.audit(draft);
        Ok(())
    }
}

/// Writes to the platform's own chain that the key-encryption key was rotated. Says nothing of keys but
/// their ids.
#[derive(Debug)]
pub struct RecordRotation {
    /// The version that was current.
    pub previous: String,
    /// The version that is.
    pub current: String,
    /// How many keys were wrapped again.
    pub rewrapped: u64,
    /// How many could not be.
    pub failed: u64,
    /// How many versions nothing needs any more.
    pub retired: u64,
}

impl Command for RecordRotation {
    type Action = WriteTenants;
    type Reply = ();
    const NAME: &'static str = "keys.rotate";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("node", "-")
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let draft = Draft::success(Self::NAME, self.target())
            .with("step", "done")
            .with("previous", self.previous)
            .with("current", self.current)
            .with("rewrapped", self.rewrapped)
            .with("failed", self.failed)
            .with("retired", self.retired);
        cx.audit(draft);
        Ok(())
    }
}

/// Writes to the platform's own chain that the node was backed up.
#[derive(Debug)]
pub struct RecordBackup {
    /// The backup.
    pub backup: BackupId,
    /// How many tenants are in it.
    pub tenants: u64,
    /// Bytes that the backup before does not have.
    pub new_bytes: u64,
    /// Bytes of everything it needs.
    pub total_bytes: u64,
    /// How many older backups rotation removed.
    pub removed: u64,
}

impl Command for RecordBackup {
    type Action = WriteTenants;
    type Reply = ();
    const NAME: &'static str = "backup.run";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("backup", self.backup)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let draft = Draft::success(Self::NAME, self.target())
            .with("tenants", self.tenants)
            .with("new_bytes", self.new_bytes)
            .with("total_bytes", self.total_bytes)
            .with("removed", self.removed);
        cx.audit(draft);
        Ok(())
    }
}

/// Writes to the platform's own chain that a restore drill was held, and how it ended.
#[derive(Debug)]
pub struct RecordDrill {
    /// The drill, which names its report.
    pub drill: DrillId,
    /// The backup that was restored.
    pub backup: BackupId,
    /// Whether everything came back.
    pub passed: bool,
    /// How many tenants there were.
    pub tenants: u64,
    /// How far back what was written was not in the backup, milliseconds.
    pub rpo_ms: u64,
    /// How long it took until all could be served, milliseconds.
    pub rto_ms: u64,
}

impl Command for RecordDrill {
    type Action = WriteTenants;
    type Reply = ();
    const NAME: &'static str = "drill.run";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("drill", self.drill)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let draft = Draft::success(Self::NAME, self.target())
            .with("backup", self.backup.to_string())
            .with("passed", self.passed)
            .with("tenants", self.tenants)
            .with("rpo_ms", self.rpo_ms)
            .with("rto_ms", self.rto_ms);
        cx.audit(draft);
        Ok(())
    }
}
