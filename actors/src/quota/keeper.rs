//! The quota keeper: knows what all tenants of the node use, and who is about to hit a limit.
//!
//! It decides nothing: whether a write still fits the plan is decided in the tenant's own
//! transaction. The keeper is for operators, who see totals and act before customers complain.
//!
//! - Owns: the plan table and the newest [`NodeUsage`].
//! - Who may send to it: nobody sends messages. Tenants tell their usage after each commit into a
//!   shared table that keeps one row a tenant.
//! - What it sends: nothing.
//! - Its bound when busy: one row a tenant; a timer adds them up, however often they change.
//! - What is lost if it dies: nothing that lasts. Tenants own their counters.
//! - How it starts again: empty; tenants are counted from their next commit on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context};
use storage::id::TenantId;

use super::{Plans, Quota, Used};
use crate::env::Env;
use crate::standing::{self, Lifeline};
use crate::tenant::core::{Commit, Observer};
use crate::tenant::state::Profile;

/// How often usage is added up.
const TICK: Duration = Duration::from_secs(5);
/// Percent of a limit from which on a tenant is near it.
const NEAR_PERCENT: u64 = 80;
/// How long before its end a trial is reported.
const TRIAL_NOTICE: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Rows of each list in [`NodeUsage`].
const ROWS_MAX: usize = 100;

/// A tenant that has used much of a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearLimit {
    /// Who.
    pub tenant: TenantId,
    /// Of what.
    pub quota: Quota,
    /// How much is used.
    pub used: u64,
    /// How much may be.
    pub limit: u64,
}

/// A trial that ends soon or has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialEnding {
    /// Whose.
    pub tenant: TenantId,
    /// When, Unix milliseconds.
    pub ends_ms: u64,
}

/// What the node's tenants use together, as far as they have told since the node started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeUsage {
    /// Tenants that have told.
    pub tenants: usize,
    /// How much of each quota is used in all.
    pub totals: Used,
    /// Tenants by plan.
    pub plans: BTreeMap<String, usize>,
    /// How many uses are at 80 % of their limit or more, but not at it.
    pub near_count: usize,
    /// How many uses are at their limit.
    pub full_count: usize,
    /// The uses that are nearest to their limits, nearest first; at most 100.
    pub near: Vec<NearLimit>,
    /// Trials that end within three days or have ended, soonest first; at most 100.
    pub trials: Vec<TrialEnding>,
}

struct Told {
    profile: Arc<Profile>,
    used: Used,
}

struct Shared {
    plans: Arc<Plans>,
    env: Env,
    told: Mutex<HashMap<TenantId, Told>>,
    newest: Mutex<Arc<NodeUsage>>,
}

/// The way to the keeper.
#[derive(Clone)]
pub struct KeeperHandle(Arc<Shared>);

impl KeeperHandle {
    /// Starts the keeper on this thread's arbiter.
    pub fn start(plans: Arc<Plans>, env: Env) -> Self {
        let shared = Shared { plans, env, told: Mutex::default(), newest: Mutex::default() };
        let shared = Arc::new(shared);
        let (env, kept) = (shared.env.clone(), shared.clone());
        standing::keep("QuotaKeeper", &env, move |lifeline| {
            let _addr = QuotaKeeper { shared: kept.clone(), _lifeline: lifeline }.start();
        });
        Self(shared)
    }
    /// Says what a tenant uses now. Call it after each commit; only the newest counts.
    pub fn told(&self, tenant: TenantId, profile: &Arc<Profile>, used: Used) {
        lock(&self.0.told).insert(tenant, Told { profile: profile.clone(), used });
    }
    /// Forgets a tenant that is gone.
    pub fn forget(&self, tenant: TenantId) {
        lock(&self.0.told).remove(&tenant);
    }
    /// The plan table.
    pub fn plans(&self) -> &Arc<Plans> {
        &self.0.plans
    }
    /// What was used when it was last added up.
    pub fn usage(&self) -> Arc<NodeUsage> {
        lock(&self.0.newest).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The actor.
pub struct QuotaKeeper {
    shared: Arc<Shared>,
    _lifeline: Lifeline,
}

impl Actor for QuotaKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |keeper, _| keeper.shared.add_up());
    }
}

impl Shared {
    fn add_up(&self) {
        let usage = add_up(&self.plans, self.env.now_ms(), &lock(&self.told));
        *lock(&self.newest) = Arc::new(usage);
    }
}

fn add_up(plans: &Plans, now_ms: u64, told: &HashMap<TenantId, Told>) -> NodeUsage {
    let notice_ms = u64::try_from(TRIAL_NOTICE.as_millis()).unwrap_or(u64::MAX);
    let mut usage = NodeUsage { tenants: told.len(), ..NodeUsage::default() };
    for (&tenant, Told { profile, used }) in told {
        match usage.plans.get_mut(&profile.plan) {
            Some(count) => *count += 1,
            None => drop(usage.plans.insert(profile.plan.clone(), 1)),
        }
        if let Some(ends_ms) = profile.trial_ends_ms
            && ends_ms <= now_ms.saturating_add(notice_ms)
        {
            usage.trials.push(TrialEnding { tenant, ends_ms });
        }
        for quota in Quota::ALL {
            let used = used.of(quota);
            usage.totals.set(quota, usage.totals.of(quota).saturating_add(used));
            let limit = plans.get(&profile.plan).and_then(|plan| plan.limit(quota));
            let Some(limit) = limit.filter(|limit| is_near(used, *limit)) else { continue };
            if used >= limit {
                usage.full_count += 1;
            } else {
                usage.near_count += 1;
            }
            usage.near.push(NearLimit { tenant, quota, used, limit });
        }
    }
    usage.near.sort_unstable_by_key(|near| {
        let left = near.limit.saturating_sub(near.used);
        let share = u128::from(left) * 10_000 / u128::from(near.limit.max(1));
        (share, near.tenant, near.quota)
    });
    usage.near.truncate(ROWS_MAX);
    usage.trials.sort_unstable_by_key(|trial| (trial.ends_ms, trial.tenant));
    usage.trials.truncate(ROWS_MAX);
    usage
}

fn is_near(used: u64, limit: u64) -> bool {
    u128::from(used) * 100 >= u128::from(limit) * u128::from(NEAR_PERCENT)
}

impl Observer for KeeperHandle {
    fn committed(&self, commit: &Commit<'_>) {
        if let Some(profile) = &commit.state.profile {
            self.told(commit.tenant, profile, commit.state.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use storage::id::Id;

    use super::*;
    use crate::quota::Plan;

    const NOW_MS: u64 = 1_000_000_000;

    fn told(rows: &[(u64, &str, Option<u64>, u64)]) -> HashMap<TenantId, Told> {
        let row = |&(id, plan, trial_ends_ms, forms): &(u64, &str, Option<u64>, u64)| {
            let mut used = Used::default();
            used.set(Quota::Forms, forms);
            let profile = Profile {
                slug: format!("t{id}"),
                name: "T".to_owned(),
                plan: plan.to_owned(),
                region: "local".to_owned(),
                created_ms: 0,
                trial_ends_ms,
                version: 1,
                mfa_required: false,
                support_approval: false,
            };
            (TenantId::new(id, [0; 10]), Told { profile: Arc::new(profile), used })
        };
        rows.iter().map(row).collect()
    }

    fn plans() -> Plans {
        let free = Plan { forms: Some(10), ..Plan::default() };
        Plans([("free".to_owned(), free), ("pro".to_owned(), Plan::default())].into())
    }

    #[test]
    fn totals_count_every_tenant_and_limits_only_those_near_them() {
        let rows = [(1, "free", None, 7), (2, "free", None, 8), (3, "free", None, 10)];
        let rows = [&rows[..], &[(4, "pro", None, 1_000)]].concat();
        let usage = add_up(&plans(), NOW_MS, &told(&rows));
        assert_eq!((usage.tenants, usage.totals.of(Quota::Forms)), (4, 1_025));
        assert_eq!((usage.plans["free"], usage.plans["pro"]), (3, 1));
        assert_eq!((usage.near_count, usage.full_count), (1, 1));
        let near: Vec<_> = usage.near.iter().map(|near| near.used).collect();
        assert_eq!(near, [10, 8]);
    }

    #[test]
    fn trials_are_reported_three_days_before_their_end_and_after_it() {
        let day = 24 * 60 * 60 * 1_000;
        let rows = [
            (1, "pro", Some(NOW_MS + 4 * day), 0),
            (2, "pro", Some(NOW_MS + 2 * day), 0),
            (3, "pro", Some(NOW_MS - day), 0),
        ];
        let usage = add_up(&plans(), NOW_MS, &told(&rows));
        let ends: Vec<_> = usage.trials.iter().map(|trial| trial.ends_ms).collect();
        assert_eq!(ends, [NOW_MS - day, NOW_MS + 2 * day]);
    }

    #[test]
    fn a_tenant_on_a_plan_that_left_the_table_is_counted_without_limits() {
        let usage = add_up(&plans(), NOW_MS, &told(&[(1, "gone", None, u64::MAX)]));
        assert_eq!((usage.tenants, usage.near.len()), (1, 0));
        assert_eq!(usage.totals.of(Quota::Forms), u64::MAX);
    }
}
