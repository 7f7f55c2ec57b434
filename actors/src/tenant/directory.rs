//! The platform compartment's list of tenants, and the founding of a tenant.
//!
//! The directory knows names, plans and states; what is inside a tenant only the tenant knows. Each
//! change of it is one record: the entry, the audit entry in the name of whoever asked, and the answer
//! kept for their idempotency key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use storage::id::TenantId;
use storage::keys::{Key, Prefix};
use storage::txn::Scan;

use crate::audit::entry::{Draft, Named};
use crate::erasure::row::ErasureRow;
use crate::permit::{Operate, Permit, Role, WriteTenants};
use crate::quota::Plans;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::job::DAY_MS;
use crate::tenant::members;
use crate::tenant::recovery;
use crate::tenant::state::Profile;

/// Whether a tenant is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is.
    Active,
    /// The platform stopped it; nothing is lost.
    Suspended,
    /// It is to be erased: nobody is served. Until it is due nothing is lost.
    Erasing,
    /// Its key is destroyed: nothing of it can be read any more.
    Erased,
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
    /// Its erasure, if one was asked for.
    #[serde(default)]
    pub erasure: Option<ErasureRow>,
}

/// What the directory says of a tenant, as it is kept in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSummary {
    /// Which tenant.
    pub id: TenantId,
    /// Its short name.
    pub slug: Arc<str>,
    /// The name people see, as of its founding.
    pub name: Arc<str>,
    /// Its plan.
    pub plan: Arc<str>,
    /// Where its data is.
    pub region: Arc<str>,
    /// Whether it is served.
    pub standing: Standing,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
}

impl From<DirectoryRow> for TenantSummary {
    fn from(row: DirectoryRow) -> Self {
        Self {
            id: row.id,
            slug: row.slug.into(),
            name: row.name.into(),
            plan: row.plan.into(),
            region: row.region.into(),
            standing: row.standing,
            created_ms: row.created_ms,
        }
    }
}

/// Lets the node itself change the directory: for a sign-up, or for its operator's command line. The
/// audit log names `reason` as the actor.
pub fn by_the_node(reason: &'static str) -> Permit<WriteTenants> {
    Permit::internal(TenantId::PLATFORM, reason)
}

fn unknown_plan(plans: &Plans) -> TenantError {
    let known = plans.0.keys().cloned().collect::<Vec<_>>().join(", ");
    TenantError::invalid("/plan", format!("no such plan; there are: {known}"))
}

/// Takes a short name for a new tenant. The answer is the entry as it is then.
pub struct ReserveTenant {
    /// The entry to make.
    pub row: DirectoryRow,
    /// Who holds the short name without ever having been founded, if the caller knows of one: a
    /// request for the same name and plan carries on with that reservation.
    pub unfounded: Option<TenantId>,
    /// The plan table.
    pub plans: Arc<Plans>,
}

impl ReserveTenant {
    /// The reservation that an earlier request left behind, if it was for the same tenant.
    fn left_behind(&self, holder: TenantId, cx: &Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let held: DirectoryRow = cx.need(&Key::Directory { tenant: holder })?;
        // A suspended one belongs to an import that is to be repeated.
        let is_open = held.standing == Standing::Active;
        let is_same = held.name == self.row.name && held.plan == self.row.plan && is_open;
        if self.unfounded == Some(holder) && is_same {
            Ok(held)
        } else {
            Err(TenantError::Conflict(Conflict::SlugTaken))
        }
    }
}

impl Command for ReserveTenant {
    type Action = WriteTenants;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.create";
    const AFTER_TRIAL: bool = true;

    /// The short name: a request that is refused makes no tenant that could be named.
    fn target(&self) -> Named {
        Named::new("tenant", &self.row.slug)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        if self.plans.get(&self.row.plan).is_none() {
            return Err(unknown_plan(&self.plans));
        }
        let digest = cx.digest("slug", self.row.slug.as_bytes());
        let slug = Key::Slug { digest };
        let holder: Option<TenantId> = cx.row(&slug)?;
        let row = match holder {
            Some(holder) => self.left_behind(holder, cx)?,
            None => {
                cx.put(&slug, &self.row.id)?;
                cx.put(&Key::Directory { tenant: self.row.id }, &self.row)?;
                self.row
            }
        };
        let draft = Draft::success(Self::NAME, Named::new("tenant", row.id))
            .with("slug", row.slug.as_str())
            .with("plan", row.plan.as_str());
        cx.audit(if holder.is_some() { draft.with("completes", true) } else { draft });
        Ok(row)
    }
}

/// What changes in a tenant's directory entry.
#[derive(Debug, Clone)]
pub enum DirectoryChange {
    /// It is not served any more.
    Suspend {
        /// Why, for the audit log.
        reason: Option<String>,
    },
    /// It is served again.
    Resume,
    /// It is on another plan.
    Plan {
        /// The plan's name.
        plan: String,
        /// The plan table.
        plans: Arc<Plans>,
    },
}

/// Changes what the directory says of a tenant. The answer is the entry after it.
pub struct ChangeDirectory {
    /// Which tenant.
    pub tenant: TenantId,
    /// What of it.
    pub change: DirectoryChange,
}

impl Command for ChangeDirectory {
    type Action = WriteTenants;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.change";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.tenant)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let target = self.target();
        let key = Key::Directory { tenant: self.tenant };
        let mut row: DirectoryRow = cx.need(&key)?;
        match row.standing {
            Standing::Active | Standing::Suspended => {}
            Standing::Erasing => return Err(TenantError::Sealed),
            Standing::Erased => return Err(TenantError::NotFound),
        }
        let draft = match self.change {
            DirectoryChange::Suspend { reason } => {
                row.standing = Standing::Suspended;
                let draft = Draft::success("tenant.suspend", target);
                match reason {
                    Some(reason) => draft.with("reason", reason),
                    None => draft,
                }
            }
            DirectoryChange::Resume => {
                row.standing = Standing::Active;
                Draft::success("tenant.resume", target)
            }
            DirectoryChange::Plan { plan, plans } => {
                if plans.get(&plan).is_none() {
                    return Err(unknown_plan(&plans));
                }
                let from = std::mem::replace(&mut row.plan, plan);
                Draft::success(ChangePlan::NAME, target)
                    .with("from", from)
                    .with("to", row.plan.as_str())
            }
        };
        cx.put(&key, &row)?;
        cx.audit(draft);
        Ok(row)
    }
}

/// One tenant's directory entry, as it is now.
pub struct ReadDirectory {
    /// Which tenant.
    pub tenant: TenantId,
}

impl Query for ReadDirectory {
    type Action = Operate;
    type Reply = DirectoryRow;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<DirectoryRow, TenantError> {
        cx.need(&Key::Directory { tenant: self.tenant })
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
    /// Whether they are mailed a link to prove their address: whoever signs up by themselves.
    pub is_to_verify: bool,
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
            let phc = Some(owner.password_phc);
            let row = members::insert_user(cx, &owner.email, self.role, phc)?;
            if owner.is_to_verify {
                recovery::ask_to_verify(cx, &row)?;
            }
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
