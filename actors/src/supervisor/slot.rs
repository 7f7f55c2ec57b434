//! What everyone may know of the tenants' lives without asking the supervisor.

use std::sync::Arc;

use storage::id::TenantId;

use crate::supervisor::door::Tenants;
use crate::tenant::Stats;
use crate::tenant::directory::Standing;
use crate::tenant::handle::TenantHandle;

/// Where a tenant is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Costs only its directory entry.
    Asleep,
    /// Being read from storage.
    Waking,
    /// Serving.
    Awake,
    /// Finishing.
    Stopping,
    /// Stopped by its own fault, for a while.
    Faulted,
    /// Held for work on its data that nobody may be served during: a restore.
    Held,
    /// Its key is withheld or gone: nobody is served, and nothing of it is in memory.
    Sealed,
}

/// One tenant's health, for operators.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ActorHealth {
    /// Which tenant.
    pub tenant: TenantId,
    /// Where in its life.
    pub state: State,
    /// Jobs under way.
    pub in_flight: usize,
    /// Commands waiting for the next record.
    pub queue: usize,
    /// The last durable record.
    pub lsn: u64,
    /// When it became durable, Unix milliseconds; 0: not since the start.
    pub last_commit_ms: u64,
    /// Panics, each of which rebuilt the tenant's memory.
    pub restarts: u64,
    /// How often it woke.
    pub wakes: u64,
    /// The last panic or fault.
    pub last_fault: Option<String>,
    /// The last record the view has.
    pub view_lsn: u64,
    /// Bytes held in memory, roughly.
    pub resident_bytes: usize,
}

struct Entry {
    state: State,
    stats: Arc<Stats>,
}

/// Every tenant that was awake since the start. Read without a lock.
#[derive(Default)]
pub(crate) struct Board {
    awake: papaya::HashMap<TenantId, TenantHandle>,
    known: papaya::HashMap<TenantId, Arc<Entry>>,
}

impl Board {
    /// The door to an awake tenant.
    pub fn find(&self, tenant: TenantId) -> Option<TenantHandle> {
        self.awake.pin().get(&tenant).cloned()
    }
    pub fn stats(&self, tenant: TenantId) -> Arc<Stats> {
        let known = self.known.pin();
        let entry = known.get_or_insert_with(tenant, || {
            Arc::new(Entry { state: State::Asleep, stats: Arc::default() })
        });
        entry.stats.clone()
    }
    pub fn set(&self, tenant: TenantId, state: State) {
        if state != State::Awake {
            self.awake.pin().remove(&tenant);
        }
        let stats = self.stats(tenant);
        self.known.pin().insert(tenant, Arc::new(Entry { state, stats }));
    }
    pub fn awake(&self, tenant: TenantId, handle: TenantHandle) {
        self.set(tenant, State::Awake);
        self.awake.pin().insert(tenant, handle);
    }
    pub fn stopping(&self, tenant: TenantId) {
        self.set(tenant, State::Stopping);
    }

    /// Where a tenant is in its life.
    pub fn state(&self, tenant: TenantId) -> State {
        self.known.pin().get(&tenant).map_or(State::Asleep, |entry| entry.state)
    }

    /// One tenant's health; asleep if it was never awake.
    pub fn health(&self, tenant: TenantId) -> ActorHealth {
        let entry = self.known.pin().get(&tenant).cloned();
        let state = entry.as_ref().map_or(State::Asleep, |entry| entry.state);
        let stats = entry.map(|entry| entry.stats.clone()).unwrap_or_default();
        let is_resident = !matches!(state, State::Asleep | State::Sealed);
        ActorHealth {
            tenant,
            state,
            in_flight: self.find(tenant).map_or(0, |handle| handle.in_flight()),
            queue: stats.queue(),
            lsn: stats.lsn(),
            last_commit_ms: stats.last_commit_ms(),
            restarts: stats.restarts(),
            wakes: stats.wakes(),
            last_fault: stats.last_fault(),
            view_lsn: stats.applied_lsn(),
            resident_bytes: if is_resident { stats.resident_bytes() } else { 0 },
        }
    }
}

impl Tenants {
    /// One tenant's health, awake or not.
    pub fn health_of(&self, tenant: TenantId) -> Option<ActorHealth> {
        let is_known = tenant == TenantId::PLATFORM || self.summary(tenant).is_some();
        is_known.then(|| self.parts().board.health(tenant))
    }
    /// The health of every tenant that is not erased, the platform's compartment first.
    pub fn health(&self) -> Vec<ActorHealth> {
        let all = self.list().into_iter().filter(|summary| summary.standing != Standing::Erased);
        std::iter::once(TenantId::PLATFORM)
            .chain(all.map(|summary| summary.id))
            .map(|id| self.parts().board.health(id))
            .collect()
    }
}
