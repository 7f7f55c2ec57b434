//! The door to all tenants: finds the awake, wakes the others, makes new ones.

use std::sync::Arc;

use actix::Addr;
use storage::id::TenantId;
use storage::keystore::KeyError;
use storage::store::{Store, StoreError};
use tokio::sync::{Mutex, oneshot};

use crate::call::{Answered, Idempotency, Origin};
use crate::limits;
use crate::permit::{Operate, Permit, Role, WriteTenants};
use crate::supervisor::slot::Board;
use crate::supervisor::{Rest, StopAll, Supervisor, Wake};
use crate::tenant::core::Shared;
use crate::tenant::cx::Command;
use crate::tenant::directory::{
    self, ChangeDirectory, ChangePlan, DirectoryChange, DirectoryRow, Found, ListDirectory,
    NewOwner, ReadDirectory, ReserveTenant, Standing,
};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::handle::{TenantHandle, operate};
use crate::tenant::state::Profile;

mod admit;

pub use crate::tenant::directory::TenantSummary;

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
    /// Short names whose tenants are being made right now.
    underway: papaya::HashSet<Arc<str>>,
    /// One change of a tenant at a time, so that memory, the directory and the tenant itself agree.
    turns: papaya::HashMap<TenantId, Arc<Mutex<()>>>,
}

/// A short name while its tenant is being made. Given back when dropped.
struct Underway {
    tenants: Tenants,
    slug: Arc<str>,
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.tenants.0.underway.pin().remove(&self.slug);
    }
}

/// The door to all tenants. Cheap to clone.
#[derive(Clone)]
pub struct Tenants(Arc<Inner>);

impl Tenants {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            directory: papaya::HashMap::new(),
            slugs: papaya::HashMap::new(),
            underway: papaya::HashSet::new(),
            turns: papaya::HashMap::new(),
        }))
    }

    /// Founds the platform's compartment on the first start, and reads the directory.
    pub(crate) async fn open(&self) -> Result<(), TenantError> {
        self.make_keys(TenantId::PLATFORM).await?;
        let platform = self.wake(TenantId::PLATFORM).await?;
        let profile = self.profile(PLATFORM_SLUG, "Platform", "enterprise");
        let found = Found { profile, owner: None, role: Role::PlatformAdmin, is_repeatable: true };
        platform.command(founding(TenantId::PLATFORM), Origin::default(), None, found).await?;
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

    pub(super) fn keep(&self, row: DirectoryRow) {
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
            mfa_required: false,
            support_approval: false,
        }
    }

    /// The door to one tenant; wakes it if it sleeps.
    pub async fn find(&self, tenant: TenantId) -> Result<TenantHandle, TenantError> {
        if tenant != TenantId::PLATFORM {
            match self.standing(tenant) {
                None => return Err(TenantError::NotFound),
                Some(Standing::Suspended) => return Err(TenantError::Suspended),
                Some(_) => {}
            }
        }
        self.find_any(tenant).await
    }

    /// The door to one tenant, served or not: for what the platform itself has to do there.
    pub async fn find_any(&self, tenant: TenantId) -> Result<TenantHandle, TenantError> {
        self.refuse_erased(tenant)?;
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

    pub(super) fn standing(&self, tenant: TenantId) -> Option<Standing> {
        self.0.directory.pin().get(&tenant).map(|summary| summary.standing)
    }

    /// Which tenant has a short name. One that was erased has none, and nobody else gets it.
    pub fn by_slug(&self, slug: &str) -> Option<TenantId> {
        if slug == PLATFORM_SLUG {
            return Some(TenantId::PLATFORM);
        }
        let found = self.0.slugs.pin().get(slug).copied();
        found.filter(|&id| self.standing(id) != Some(Standing::Erased))
    }
    /// Whether a short name belongs to a tenant that was founded: it is never given again.
    pub fn is_founded(&self, slug: &str) -> bool {
        let is_founded = |id| self.0.parts.store.log().tail(id).is_ok_and(|tail| tail.lsn > 0);
        self.by_slug(slug).is_some_and(is_founded)
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

    /// Makes a tenant. It exists when this returns. The platform's record comes first; whatever
    /// stops the founding after it, the same request completes it, with or without its key.
    ///
    /// # Errors
    /// [`TenantError::Invalid`] at `/plan`, [`Conflict::SlugTaken`], [`TenantError::StaleCredential`]
    /// and the like; [`TenantError::NotFound`] for a permit that is not the platform's.
    pub async fn create(
        &self,
        permit: Permit<WriteTenants>,
        idempotency: Option<Idempotency>,
        new: NewTenant,
    ) -> Result<Answered<Arc<TenantSummary>>, TenantError> {
        let tenants = self.clone();
        to_its_end(async move { tenants.reserve_and_found(permit, idempotency, new).await }).await
    }

    async fn reserve_and_found(
        &self,
        permit: Permit<WriteTenants>,
        idempotency: Option<Idempotency>,
        new: NewTenant,
    ) -> Result<Answered<Arc<TenantSummary>>, TenantError> {
        let Parts { shared, store, region, default_plan, .. } = &self.0.parts;
        let NewTenant { slug, name, plan, owner, origin } = new;
        let holder = self.by_slug(&slug);
        if holder == Some(TenantId::PLATFORM) {
            return Err(TenantError::Conflict(Conflict::SlugTaken));
        }
        // A reservation that somebody is about to complete was not left behind.
        let underway = self.enter(&slug);
        let unfounded = holder.filter(|&id| underway.is_some() && is_unfounded(store, id));
        let row = DirectoryRow {
            id: shared.env.new_id(),
            slug,
            name,
            plan: plan.unwrap_or_else(|| default_plan.clone()),
            region: region.clone(),
            standing: Standing::Active,
            created_ms: shared.env.now_ms(),
            erasure: None,
        };
        let reserve = ReserveTenant { row, unfounded, plans: shared.plans.clone() };
        let reserved = self.record(permit, &origin, &idempotency, reserve).await?;
        self.know(&reserved.reply);
        let founded = self.found(reserved.reply.id, owner, origin, idempotency).await?;
        let replayed = reserved.replayed && founded.replayed;
        Ok(Answered { reply: Arc::new(reserved.reply.into()), replayed })
    }

    /// Gives a reserved tenant its first record. The key is kept there as well: that tells the
    /// request that founded it from another that was faster.
    async fn found(
        &self,
        tenant: TenantId,
        owner: Option<NewOwner>,
        origin: Origin,
        idempotency: Option<Idempotency>,
    ) -> Result<Answered<()>, TenantError> {
        let turn = self.turn(tenant);
        let _turn = turn.lock().await;
        self.make_keys(tenant).await?;
        let now = self.summary(tenant).ok_or(TenantError::NotFound)?;
        let profile = self.profile(&now.slug, &now.name, &now.plan);
        let found = Found { profile, owner, role: Role::Owner, is_repeatable: false };
        self.find_any(tenant).await?.command(founding(tenant), origin, idempotency, found).await
    }

    /// Marks a short name as being worked on. `None`: it is already.
    fn enter(&self, slug: &str) -> Option<Underway> {
        let slug: Arc<str> = slug.into();
        let is_first = self.0.underway.pin().insert(slug.clone());
        is_first.then(|| Underway { tenants: self.clone(), slug })
    }

    /// Keeps a new entry in memory, unless a later one is there.
    fn know(&self, row: &DirectoryRow) {
        let summary = Arc::new(TenantSummary::from(row.clone()));
        self.0.slugs.pin().insert(summary.slug.clone(), summary.id);
        self.0.directory.pin().get_or_insert(summary.id, summary);
    }

    /// Has the platform's compartment change the directory, write that down and keep the answer.
    pub(super) async fn record<C>(
        &self,
        permit: Permit<WriteTenants>,
        origin: &Origin,
        idempotency: &Option<Idempotency>,
        command: C,
    ) -> Result<Answered<DirectoryRow>, TenantError>
    where
        C: Command<Action = WriteTenants, Reply = DirectoryRow>,
    {
        if permit.tenant() != TenantId::PLATFORM {
            return Err(TenantError::NotFound);
        }
        let platform = self.find(TenantId::PLATFORM).await?;
        platform.command(permit, origin.clone(), idempotency.clone(), command).await
    }

    async fn make_keys(&self, tenant: TenantId) -> Result<(), TenantError> {
        let store = self.0.parts.store.clone();
        let made = tokio::task::spawn_blocking(move || {
            // Never a new key over an old history: that would be data nobody can read.
            if store.keystore().contains(tenant)? || store.log().tail(tenant)?.lsn > 0 {
                return Ok(());
            }
            match store.create_tenant(tenant) {
                // Somebody else who wants the same short name was quicker.
                Err(StoreError::Keys(KeyError::Exists { .. })) => Ok(()),
                made => made.map(drop),
            }
        });
        Ok(made.await.map_err(|_| TenantError::Restarting)??)
    }

    /// Stops serving a tenant, until [`resume`](Self::resume). Nothing is lost.
    ///
    /// # Errors
    /// [`TenantError::NotFound`] for an unknown tenant, [`TenantError::StaleCredential`] and the like.
    pub async fn suspend(
        &self,
        permit: Permit<WriteTenants>,
        origin: Origin,
        idempotency: Option<Idempotency>,
        tenant: TenantId,
        reason: Option<String>,
    ) -> Result<Answered<Arc<TenantSummary>>, TenantError> {
        let change = DirectoryChange::Suspend { reason };
        self.change(permit, origin, idempotency, tenant, change).await
    }
    /// Serves a suspended tenant again.
    ///
    /// # Errors
    /// As [`suspend`](Self::suspend).
    pub async fn resume(
        &self,
        permit: Permit<WriteTenants>,
        origin: Origin,
        idempotency: Option<Idempotency>,
        tenant: TenantId,
    ) -> Result<Answered<Arc<TenantSummary>>, TenantError> {
        self.change(permit, origin, idempotency, tenant, DirectoryChange::Resume).await
    }
    /// Puts a tenant, served or not, on another plan from its next request on. The platform's record
    /// comes first; if the tenant cannot be told then, the same request completes it.
    ///
    /// # Errors
    /// As [`suspend`](Self::suspend), and [`TenantError::Invalid`] at `/plan`.
    pub async fn set_plan(
        &self,
        permit: Permit<WriteTenants>,
        origin: Origin,
        idempotency: Option<Idempotency>,
        tenant: TenantId,
        plan: String,
    ) -> Result<Answered<Arc<TenantSummary>>, TenantError> {
        let plans = self.0.parts.shared.plans.clone();
        let change = DirectoryChange::Plan { plan, plans };
        self.change(permit, origin, idempotency, tenant, change).await
    }

    async fn change(
        &self,
        permit: Permit<WriteTenants>,
        origin: Origin,
        idempotency: Option<Idempotency>,
        tenant: TenantId,
        change: DirectoryChange,
    ) -> Result<Answered<Arc<TenantSummary>>, TenantError> {
        let tenants = self.clone();
        to_its_end(async move {
            let turn = tenants.turn(tenant);
            let _turn = turn.lock().await;
            let is_plan = matches!(change, DirectoryChange::Plan { .. });
            let command = ChangeDirectory { tenant, change };
            let mut answered = tenants.record(permit, &origin, &idempotency, command).await?;
            let now = if answered.replayed {
                // The first answer may be older than what others changed since.
                tenants.reread(tenant).await?
            } else {
                answered.reply.clone()
            };
            tenants.keep(now.clone());
            if is_plan {
                answered.replayed &= tenants.tell_plan(&now, origin, idempotency).await?;
            }
            if now.standing == Standing::Suspended {
                // From here on nobody finds it; what is under way ends, and then it sleeps.
                tenants.rest(tenant);
            }
            let Answered { reply, replayed } = answered;
            Ok(Answered { reply: Arc::new(reply.into()), replayed })
        })
        .await
    }

    pub(crate) async fn reread(&self, tenant: TenantId) -> Result<DirectoryRow, TenantError> {
        let platform = self.find(TenantId::PLATFORM).await?;
        let permit = operate(TenantId::PLATFORM, "read the directory");
        platform.query(permit, ReadDirectory { tenant }).await
    }

    /// Has the tenant itself take over the plan that the directory says. Whether it had before.
    async fn tell_plan(
        &self,
        now: &DirectoryRow,
        origin: Origin,
        idempotency: Option<Idempotency>,
    ) -> Result<bool, TenantError> {
        let Parts { store, shared, .. } = &self.0.parts;
        if is_unfounded(store, now.id) {
            // Its founding reads the directory.
            return Ok(false);
        }
        let days = shared.plans.get(&now.plan).and_then(|plan| plan.days);
        let change = ChangePlan { plan: now.plan.clone(), days };
        let permit = operate(now.id, "plan change by the platform");
        let door = self.find_any(now.id).await?;
        Ok(door.command(permit, origin, idempotency, change).await?.replayed)
    }

    /// Whose turn it is to change a tenant. An unknown one has none, so that guesses keep no memory.
    pub(super) fn turn(&self, tenant: TenantId) -> Arc<Mutex<()>> {
        match self.summary(tenant) {
            Some(_) => self.0.turns.pin().get_or_insert_with(tenant, Arc::default).clone(),
            None => Arc::default(),
        }
    }

    /// Lets a tenant sleep now, if it is idle.
    #[expect(clippy::disallowed_methods, reason = "the supervisor is told, never asked, to let go")]
    pub fn rest(&self, tenant: TenantId) {
        self.0.parts.addr.do_send(Rest { tenant });
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0.parts
    }
    /// Where tenants' data is.
    pub fn store(&self) -> &Arc<Store> {
        &self.0.parts.store
    }
    /// What tenants share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.0.parts.shared
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

/// For the first record of a compartment, which has no other way in.
fn founding(tenant: TenantId) -> Permit<Operate> {
    Permit::internal(tenant, "found")
}

/// Runs what was begun to its end even if the caller goes away midway, so that memory never stays
/// behind what is on record.
pub(super) async fn to_its_end<T: 'static>(
    act: impl Future<Output = Result<T, TenantError>> + 'static,
) -> Result<T, TenantError> {
    // An error means that the thread ends or the act panicked: nobody knows how far it came.
    actix_rt::spawn(act).await.map_err(|_| TenantError::TimedOut)?
}

#[cfg(test)]
mod tests;
