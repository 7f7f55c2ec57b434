//! The platform compartment's list of tenants, and the founding of a tenant.
//!
//! The directory knows names, plans and states; what is inside a tenant only the tenant knows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use storage::id::TenantId;
use storage::keys::{Key, Prefix};
use storage::txn::Scan;

use crate::audit::entry::{Draft, Named};
use crate::permit::{Operate, Role};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::job::DAY_MS;
use crate::tenant::members;
use crate::tenant::state::Profile;

/// Whether a tenant is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is.
    Active,
    /// The platform stopped it; nothing is lost.
    Suspended,
}

/// A tenant's directory entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryRow {
    /// Which tenant.
    pub id: TenantId,
    /// Its short name.
    pub slug: String,
    /// The name people see, as of its founding.
    pub name: String,
    /// Its plan.
    pub plan: String,
    /// Where its data is.
    pub region: String,
    /// Whether it is served.
    pub standing: Standing,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
}

/// Takes a short name for a new tenant.
pub struct ReserveTenant {
    /// The entry to make.
    pub row: DirectoryRow,
}

impl Command for ReserveTenant {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "tenant.create";

    fn target(&self) -> Named {
        Named::new("tenant", self.row.id)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let digest = cx.digest("slug", self.row.slug.as_bytes());
        let slug = Key::Slug { digest };
        if cx.bytes(&slug)?.is_some() {
            return Err(TenantError::Conflict(Conflict::SlugTaken));
        }
        cx.put(&slug, &self.row.id)?;
        cx.put(&Key::Directory { tenant: self.row.id }, &self.row)?;
        let draft = Draft::success(Self::NAME, Named::new("tenant", self.row.id));
        cx.audit(draft.with("plan", self.row.plan));
        Ok(())
    }
}

/// Changes what the directory says of a tenant.
pub struct ChangeDirectory {
    /// Which tenant.
    pub tenant: TenantId,
    /// Whether it is served, if that changes.
    pub standing: Option<Standing>,
    /// Its plan, if that changes.
    pub plan: Option<String>,
}

impl Command for ChangeDirectory {
    type Action = Operate;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.change";

    fn target(&self) -> Named {
        Named::new("tenant", self.tenant)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let key = Key::Directory { tenant: self.tenant };
        let mut row: DirectoryRow = cx.need(&key)?;
        row.standing = self.standing.unwrap_or(row.standing);
        row.plan = self.plan.unwrap_or(row.plan);
        cx.put(&key, &row)?;
        Ok(row)
    }
}

/// A page of the directory, in id order.
pub struct ListDirectory {
    /// Start after this tenant.
    pub after: Option<TenantId>,
    /// How many at most.
    pub limit: usize,
}

impl Query for ListDirectory {
    type Action = Operate;
    type Reply = Vec<DirectoryRow>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Vec<DirectoryRow>, TenantError> {
        let any = Key::Directory { tenant: TenantId::PLATFORM };
        let after = self.after.map(|tenant| Key::Directory { tenant });
        let scan = Scan { prefix: Prefix::kind(&any), after, reverse: false, limit: self.limit };
        let rows = cx.rows(&scan)?;
        rows.iter().map(|(_, bytes)| Ok(storage::value::decode(bytes)?)).collect()
    }
}

/// The first owner of a new tenant.
#[derive(Debug, Clone)]
pub struct NewOwner {
    /// The e-mail address they sign in with.
    pub email: String,
    /// Argon2id PHC string of their password.
    pub password_phc: String,
}

/// A tenant's first record.
pub struct Found {
    /// Who the tenant is.
    pub profile: Profile,
    /// Its first person.
    pub owner: Option<NewOwner>,
    /// That person's role.
    pub role: Role,
    /// Whether a second founding of the same tenant is fine (the platform's own compartment).
    pub is_repeatable: bool,
}

impl Command for Found {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "tenant.create";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", &self.profile.slug)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        if cx.state().profile.is_some() {
            let taken = Err(TenantError::Conflict(Conflict::SlugTaken));
            return if self.is_repeatable { Ok(()) } else { taken };
        }
        let tenant = cx.tenant();
        let draft = Draft::success(Self::NAME, Named::new("tenant", tenant));
        let draft = draft.with("plan", self.profile.plan.clone());
        cx.state_mut().profile = Some(Arc::new(self.profile));
        cx.audit(draft);
        if let Some(owner) = self.owner {
            members::insert_user(cx, &owner.email, self.role, Some(owner.password_phc))?;
        }
        Ok(())
    }
}

/// Puts a tenant on another plan.
pub struct ChangePlan {
    /// The plan's name; the caller checked that it exists.
    pub plan: String,
    /// Days until only reads work, if the plan is a trial.
    pub days: Option<u32>,
}

impl Command for ChangePlan {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "tenant.plan_change";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("plan", &self.plan)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let now_ms = cx.now_ms();
        let profile = cx.state().profile.as_ref().ok_or(TenantError::NotFound)?;
        let mut profile = Profile::clone(profile);
        let before = std::mem::replace(&mut profile.plan, self.plan.clone());
        profile.trial_ends_ms = trial_ends_ms(now_ms, self.days);
        profile.version += 1;
        cx.state_mut().profile = Some(Arc::new(profile));
        let target = Named::new("tenant", cx.tenant());
        cx.audit(Draft::success(Self::NAME, target).with("from", before).with("to", self.plan));
        Ok(())
    }
}

/// When a trial that starts now ends.
pub fn trial_ends_ms(now_ms: u64, days: Option<u32>) -> Option<u64> {
    days.map(|days| now_ms.saturating_add(u64::from(days) * DAY_MS))
}
