//! Time travel: finds the place in a tenant's history that a time means, has past states answer, and
//! sees to restores that were asked for.
//!
//! A restore is part of the tenant's own state once it is asked for ([`RequestRestore`]); this only
//! hurries it, and tells how far it is. Lost with the process: nothing but that.
//!
//! Refuses: times that are not kept or not yet.
//!
//! [`RequestRestore`]: crate::tenant::restore::RequestRestore

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage::history::Point;
use storage::id::TenantId;
use storage::keys::Key;
use storage::snapshot::RowSource as _;
use storage::store::Store;
use storage::value;

use crate::limits;
use crate::permit::{Action as _, Permit, ReadHistory};
use crate::supervisor::Tenants;
use crate::tenant::as_of::{self, AsksNow, Pasts, Seen};
use crate::tenant::cx::Query;
use crate::tenant::error::{self, TenantError};
use crate::tenant::restore::rows;
use crate::tenant::state::TenantState;

/// How far a restore is.
#[derive(Debug, Default)]
pub struct Progress {
    compared: AtomicU64,
    changed: AtomicU64,
}

impl Progress {
    /// Rows compared so far.
    pub fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }
    /// Rows found to differ so far.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }
}

/// The door to tenants' pasts. Cheap to clone.
#[derive(Clone)]
pub struct TimeTravel {
    tenants: Tenants,
    running: Arc<papaya::HashMap<TenantId, Arc<Progress>>>,
    pasts: Arc<Pasts>,
}

impl TimeTravel {
    /// Over these tenants.
    pub fn new(tenants: Tenants) -> Self {
        Self { tenants, running: Arc::default(), pasts: Arc::default() }
    }

    /// The place in a tenant's history that a time means.
    ///
    /// # Errors
    /// [`TenantError::Invalid`] at `pointer` for a time in the future, before the history, or in the
    /// midst of a restore.
    pub async fn point(
        &self,
        tenant: TenantId,
        pointer: &'static str,
        at_ms: u64,
    ) -> Result<Point, TenantError> {
        self.tenants.refuse_erased(tenant)?;
        let store = self.tenants.store().clone();
        self.check_past(pointer, at_ms)?;
        let found = tokio::task::spawn_blocking(move || find(&store, tenant, pointer, at_ms)).await;
        found.map_err(|_| TenantError::Panicked)?
    }

    fn check_past(&self, pointer: &'static str, at_ms: u64) -> Result<(), TenantError> {
        if at_ms > self.tenants.shared().env.now_ms() {
            return Err(TenantError::invalid(pointer, "lies in the future"));
        }
        Ok(())
    }

    /// Has a tenant answer a query as it would have at `at_ms`. The credential is checked against the
    /// present, and the role is the one that the asker has now.
    ///
    /// # Errors
    /// [`TenantError::Invalid`] at `pointer` for a time that [`point`](Self::point) refuses and for a
    /// state too large to hold; [`TenantError::Waking`] while others are being made; whatever the
    /// present says of the credential, and the past to the query.
    pub async fn look<Q: Query>(
        &self,
        asker: Permit<ReadHistory>,
        permit: Permit<Q::Action>,
        pointer: &'static str,
        at_ms: u64,
        query: Q,
    ) -> Result<Seen<Q::Reply>, TenantError> {
        let tenant = permit.tenant();
        assert_eq!(asker.tenant(), tenant, "a permit for another tenant");
        let present = self.tenants.find(tenant).await?;
        // As whom the present knows the asker: a key may have other scopes by now than its permit says.
        let principal = present.query(asker, AsksNow).await?;
        if !principal.holds(Q::Action::ROW) {
            return Err(TenantError::Forbidden { action: Q::Action::NAME });
        }
        self.check_past(pointer, at_ms)?;
        let past = self.pasts.find(self.tenants.store(), tenant, pointer, at_ms).await?;
        let shared = self.tenants.shared().clone();
        self.pasts.ask(past, shared, principal, query).await
    }

    /// Carries out the restore that was asked for in a tenant, now. Answers when it is done and the
    /// tenant can be served again: how many rows changed. `tell` hears how many rows were compared.
    pub async fn carry_out(
        &self,
        tenant: TenantId,
        tell: impl Fn(u64) + Send + 'static,
    ) -> Result<u64, TenantError> {
        let held = self.tenants.hold(tenant).await?;
        let progress = Arc::new(Progress::default());
        self.running.pin().insert(tenant, progress.clone());
        let worked = tokio::task::spawn_blocking(move || {
            held.open(&mut |compared, changed| {
                progress.compared.store(compared, Ordering::Relaxed);
                progress.changed.store(changed, Ordering::Relaxed);
                tell(compared);
            })?;
            Ok(progress.changed())
        });
        let outcome = worked.await.map_err(|_| TenantError::Panicked);
        self.running.pin().remove(&tenant);
        outcome?
    }

    /// Forgets every past state of a tenant that is in memory: for when its key is pulled or destroyed.
    /// What is being answered right now is answered.
    pub fn forget(&self, tenant: TenantId) {
        self.pasts.forget(tenant);
    }

    /// Has the restore that was asked for in a tenant carried out in the background. While the tenant
    /// cannot be held it is tried again for a while; after that its next waking does it.
    pub fn see_to(&self, tenant: TenantId) {
        let travel = self.clone();
        actix_rt::spawn(async move {
            let mut tick = tokio::time::interval(limits::RESTORE_RETRY_EVERY);
            for _ in 0..limits::RESTORE_TRIES_MAX {
                tick.tick().await;
                match travel.carry_out(tenant, |_| {}).await {
                    Ok(_) => return,
                    Err(TenantError::Waking | TenantError::Restarting) => {}
                    Err(error) => {
                        let error = error::chain(&error);
                        tracing::error!(tenant.id = %tenant, error, "a restore could not be finished");
                        return;
                    }
                }
            }
            tracing::warn!(tenant.id = %tenant, "a restore waits for the tenant to wake again");
        });
    }

    /// How far the restore of a tenant is that is being carried out.
    pub fn progress(&self, tenant: TenantId) -> Option<Arc<Progress>> {
        self.running.pin().get(&tenant).cloned()
    }
}

fn find(
    store: &Store,
    tenant: TenantId,
    pointer: &'static str,
    at_ms: u64,
) -> Result<Point, TenantError> {
    let (keys, point) = as_of::end_at(store, tenant, pointer, at_ms)?;
    let history = store.history().ok_or(TenantError::NotFound)?;
    let past = history.state_after(&keys, point.tail.lsn);
    let mut past = past.map_err(|error| as_of::unreadable(error, pointer))?;
    // The tenant's own row comes first of all.
    let own = Key::State {}.encode();
    if let Some((key, bytes)) = past.next_row().map_err(rows::unreadable)?
        && *key == *own
    {
        let state: TenantState = value::decode(&bytes)?;
        as_of::check_settled(&state, pointer)?;
    }
    Ok(point)
}
