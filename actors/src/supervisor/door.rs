//! The door to all tenants: finds the awake, wakes the others, makes new ones.

use std::sync::Arc;

use actix::Addr;
use storage::id::TenantId;
use storage::store::Store;
use tokio::sync::oneshot;

use crate::call::Origin;
use crate::limits;
use crate::permit::{Operate, Permit, Role};
use crate::supervisor::slot::{ActorHealth, Board};
use crate::supervisor::{Rest, StopAll, Supervisor, Wake};
use crate::tenant::core::Shared;
use crate::tenant::directory::{
    self, ChangeDirectory, ChangePlan, DirectoryRow, Found, ListDirectory, NewOwner, ReserveTenant,
    Standing,
};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::handle::{TenantHandle, operate};
use crate::tenant::state::Profile;

/// The platform compartment's short name.
pub const PLATFORM_SLUG: &str = "platform";

/// A tenant to be made.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// The short name; its form is checked by the caller.
    pub slug: String,
    /// The name people see.
    pub name: String,
    /// The plan; the node's default if absent.
    pub plan: Option<String>,
    /// The first owner.
    pub owner: Option<NewOwner>,
    /// Where the request came from.
    pub origin: Origin,
}

/// What the directory says of a tenant.
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

pub(crate) struct Parts {
    pub addr: Addr<Supervisor>,
    pub store: Arc<Store>,
    pub shared: Arc<Shared>,
    pub board: Arc<Board>,
    pub region: String,
    pub default_plan: String,
}

struct Inner {
    parts: Parts,
    directory: papaya::HashMap<TenantId, Arc<TenantSummary>>,
    slugs: papaya::HashMap<Arc<str>, TenantId>,
}

/// The door to all tenants. Cheap to clone.
#[derive(Clone)]
pub struct Tenants(Arc<Inner>);

impl Tenants {
    pub(crate) fn new(parts: Parts) -> Self {
        let (directory, slugs) = (papaya::HashMap::new(), papaya::HashMap::new());
        Self(Arc::new(Inner { parts, directory, slugs }))
    }

    /// Founds the platform's compartment on the first start, and reads the directory.
    pub(crate) async fn open(&self) -> Result<(), TenantError> {
        self.make_keys(TenantId::PLATFORM).await?;
        let platform = self.wake(TenantId::PLATFORM).await?;
        let profile = self.profile(PLATFORM_SLUG, "Platform", "enterprise");
        let found = Found { profile, owner: None, role: Role::PlatformAdmin, is_repeatable: true };
        let permit = Permit::<Operate>::internal(TenantId::PLATFORM, "found");
        platform.command(permit, Origin::default(), None, found).await?;
        let mut after = None;
        loop {
            let list = ListDirectory { after, limit: limits::SCAN_ROWS_MAX };
            let rows =
                platform.query(operate(TenantId::PLATFORM, "read the directory"), list).await?;
            after = rows.last().map(|row| row.id);
            let count = rows.len();
            rows.into_iter().for_each(|row| self.keep(row));
            if count < limits::SCAN_ROWS_MAX {
                return Ok(());
            }
        }
    }

    fn keep(&self, row: DirectoryRow) {
        if self.0.parts.shared.plans.get(&row.plan).is_none() {
            tracing::warn!(tenant.id = %row.id, plan = row.plan, "a tenant's plan is not in the plan table: nothing limits it");
        }
        let summary = Arc::new(TenantSummary::from(row));
        self.0.slugs.pin().insert(summary.slug.clone(), summary.id);
        self.0.directory.pin().insert(summary.id, summary);
    }

    fn profile(&self, slug: &str, name: &str, plan: &str) -> Profile {
        let Parts { shared, region, .. } = &self.0.parts;
        let now_ms = shared.env.now_ms();
        let days = shared.plans.get(plan).and_then(|plan| plan.days);
        Profile {
            slug: slug.to_owned(),
            name: name.to_owned(),
            plan: plan.to_owned(),
            region: region.clone(),
            created_ms: now_ms,
            trial_ends_ms: directory::trial_ends_ms(now_ms, days),
            version: 1,
        }
    }

    /// The door to one tenant; wakes it if it sleeps.
    pub async fn find(&self, tenant: TenantId) -> Result<TenantHandle, TenantError> {
        if tenant != TenantId::PLATFORM {
            let standing = self.0.directory.pin().get(&tenant).map(|summary| summary.standing);
            match standing {
                None => return Err(TenantError::NotFound),
                Some(Standing::Suspended) => return Err(TenantError::Suspended),
                Some(Standing::Active) => {}
            }
        }
        match self.0.parts.board.find(tenant) {
            Some(handle) => Ok(handle),
            None => self.wake(tenant).await,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the supervisor is told; the bound is on waiters"
    )]
    async fn wake(&self, tenant: TenantId) -> Result<TenantHandle, TenantError> {
        let (reply, answer) = oneshot::channel();
        self.0.parts.addr.do_send(Wake { tenant, reply });
        match tokio::time::timeout(limits::ASK_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(TenantError::Restarting),
            Err(_) => Err(TenantError::Waking),
        }
    }

    /// Which tenant has a short name.
    pub fn by_slug(&self, slug: &str) -> Option<TenantId> {
        if slug == PLATFORM_SLUG {
            return Some(TenantId::PLATFORM);
        }
        self.0.slugs.pin().get(slug).copied()
    }
    /// What the directory says of a tenant.
    pub fn summary(&self, tenant: TenantId) -> Option<Arc<TenantSummary>> {
        self.0.directory.pin().get(&tenant).cloned()
    }
    /// The whole directory, in id order.
    pub fn list(&self) -> Vec<Arc<TenantSummary>> {
        let mut all: Vec<_> = self.0.directory.pin().values().cloned().collect();
        all.sort_unstable_by_key(|summary| summary.id);
        all
    }
    /// How many tenants there are.
    pub fn count(&self) -> usize {
        self.0.directory.len()
    }

    /// Makes a tenant. It exists when this returns; a crash midway leaves a reserved short name
    /// that the same request completes.
    pub async fn create(&self, new: NewTenant) -> Result<TenantId, TenantError> {
        let Parts { shared, store, region, default_plan, .. } = &self.0.parts;
        let plan = new.plan.unwrap_or_else(|| default_plan.clone());
        if shared.plans.get(&plan).is_none() {
            let known = shared.plans.0.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(TenantError::invalid("/plan", format!("no such plan; there are: {known}")));
        }
        let tenant = match self.by_slug(&new.slug) {
            Some(id) if id != TenantId::PLATFORM && is_unfounded(store, id) => id,
            Some(_) => return Err(TenantError::Conflict(Conflict::SlugTaken)),
            None => {
                let id: TenantId = shared.env.new_id();
                let row = DirectoryRow {
                    id,
                    slug: new.slug.clone(),
                    name: new.name.clone(),
                    plan: plan.clone(),
                    region: region.clone(),
                    standing: Standing::Active,
                    created_ms: shared.env.now_ms(),
                };
                let platform = self.find(TenantId::PLATFORM).await?;
                let permit = operate(TenantId::PLATFORM, "tenant creation");
                let reserve = ReserveTenant { row: row.clone() };
                platform.command(permit, new.origin.clone(), None, reserve).await?;
                self.keep(row);
                id
            }
        };
        self.make_keys(tenant).await?;
        let profile = self.profile(&new.slug, &new.name, &plan);
        let found = Found { profile, owner: new.owner, role: Role::Owner, is_repeatable: false };
        let permit = Permit::<Operate>::internal(tenant, "found");
        self.find(tenant).await?.command(permit, new.origin, None, found).await?;
        Ok(tenant)
    }

    async fn make_keys(&self, tenant: TenantId) -> Result<(), TenantError> {
        let store = self.0.parts.store.clone();
        let made = tokio::task::spawn_blocking(move || {
            // Never a new key over an old history: that would be data nobody can read.
            if store.keystore().contains(tenant)? || store.log().tail(tenant)?.lsn > 0 {
                return Ok(());
            }
            store.create_tenant(tenant).map(drop)
        });
        Ok(made.await.map_err(|_| TenantError::Restarting)??)
    }

    /// Stops serving a tenant, until [`resume`](Self::resume). Nothing is lost.
    pub async fn suspend(&self, tenant: TenantId) -> Result<(), TenantError> {
        self.change(tenant, Some(Standing::Suspended), None).await?;
        // From here on nobody finds it; what is under way ends, and then it sleeps.
        self.rest(tenant);
        Ok(())
    }
    /// Serves a suspended tenant again.
    pub async fn resume(&self, tenant: TenantId) -> Result<(), TenantError> {
        self.change(tenant, Some(Standing::Active), None).await
    }
    /// Puts a tenant on another plan, from its next request on.
    pub async fn set_plan(
        &self,
        tenant: TenantId,
        plan: &str,
        origin: Origin,
    ) -> Result<(), TenantError> {
        let Some(row) = self.0.parts.shared.plans.get(plan) else {
            return Err(TenantError::invalid("/plan", "no such plan"));
        };
        let change = ChangePlan { plan: plan.to_owned(), days: row.days };
        let permit = operate(tenant, "plan change by the platform");
        self.find(tenant).await?.command(permit, origin, None, change).await?;
        self.change(tenant, None, Some(plan.to_owned())).await
    }

    async fn change(
        &self,
        tenant: TenantId,
        standing: Option<Standing>,
        plan: Option<String>,
    ) -> Result<(), TenantError> {
        if self.summary(tenant).is_none() {
            return Err(TenantError::NotFound);
        }
        let platform = self.find(TenantId::PLATFORM).await?;
        let permit = operate(TenantId::PLATFORM, "tenant change");
        let change = ChangeDirectory { tenant, standing, plan };
        let row = platform.command(permit, Origin::default(), None, change).await?.reply;
        self.keep(row);
        Ok(())
    }

    /// Lets a tenant sleep now, if it is idle.
    #[expect(clippy::disallowed_methods, reason = "the supervisor is told, never asked, to let go")]
    pub fn rest(&self, tenant: TenantId) {
        self.0.parts.addr.do_send(Rest { tenant });
    }

    /// One tenant's health, awake or not.
    pub fn health_of(&self, tenant: TenantId) -> Option<ActorHealth> {
        let is_known = tenant == TenantId::PLATFORM || self.summary(tenant).is_some();
        is_known.then(|| self.0.parts.board.health(tenant))
    }
    /// Every tenant's health, the platform's compartment first.
    pub fn health(&self) -> Vec<ActorHealth> {
        let ids = self.list().into_iter().map(|summary| summary.id);
        std::iter::once(TenantId::PLATFORM)
            .chain(ids)
            .map(|id| self.0.parts.board.health(id))
            .collect()
    }

    /// Puts every tenant to sleep, after what is under way. Nothing wakes again.
    #[expect(clippy::disallowed_methods, reason = "the supervisor is told to stop")]
    pub async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        self.0.parts.addr.do_send(StopAll { reply });
        // An error means the supervisor is gone already.
        let _gone = tokio::time::timeout(limits::ASK_TIMEOUT, stopped).await;
    }
}

/// Whether a short name was reserved but its tenant never got its first record.
fn is_unfounded(store: &Store, tenant: TenantId) -> bool {
    store.log().tail(tenant).is_ok_and(|tail| tail.lsn == 0)
}
