//! One policy's budgets: the only file that names `governor`.
//!
//! The algorithm is GCRA: a key's state is one number. Looking at a budget and spending from it are
//! separate, so that a request which another scope refuses costs this one nothing.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::{NotUntil, Quota, RateLimiter};

use crate::env::Env;

/// The environment's monotonic clock, as governor wants it.
struct EnvClock(Env);

impl Clock for EnvClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

/// Every key's state, shared by looking and spending.
#[derive(Clone)]
struct Cells(Arc<DashMapStateStore<u64>>);

impl StateStore for Cells {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl ShrinkableKeyedStateStore<u64> for Cells {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }
    fn shrink_to_fit(&self) {
        ShrinkableKeyedStateStore::shrink_to_fit(&*self.0);
    }
    fn len(&self) -> usize {
        ShrinkableKeyedStateStore::len(&*self.0)
    }
    fn is_empty(&self) -> bool {
        ShrinkableKeyedStateStore::is_empty(&*self.0)
    }
}

/// The same states, for looking only: measures and never replaces.
struct Glance(Cells);

impl StateStore for Glance {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // An error is how a store is told to keep the old state, so every outcome goes out as one.
        let look = |state| Err::<(Infallible, Nanos), _>(f(state).map(|(outcome, _)| outcome));
        match self.0.measure_and_replace(key, look) {
            Ok(never) => match never {},
            Err(outcome) => outcome,
        }
    }
}

type Limiter<S> = RateLimiter<u64, S, EnvClock, StateInformationMiddleware>;

/// What is left of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Requests left.
    pub(super) remaining: u32,
    /// Seconds until the whole budget is back.
    pub(super) reset_s: u32,
}

/// No budget is left; so many seconds until the next request may pass, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) retry_after_s: u32,
}

/// The budgets of one class and scope.
pub(super) struct Bucket {
    pub(super) requests: NonZeroU32,
    pub(super) window_s: NonZeroU32,
    /// Nanoseconds until one request's worth is back.
    interval_ns: u64,
    spend: Limiter<Cells>,
    glance: Limiter<Glance>,
    refused: AtomicU64,
}

impl Bucket {
    pub(super) fn new(requests: NonZeroU32, window_s: NonZeroU32, env: &Env) -> Self {
        let interval_ns = u64::from(window_s.get()) * 1_000_000_000 / u64::from(requests.get());
        let interval = Duration::from_nanos(interval_ns.max(1));
        let quota = Quota::with_period(interval)
            .expect("an interval of a nanosecond or more is a period")
            .allow_burst(requests);
        let cells = Cells(Arc::default());
        // Each limiter counts from its own start. The later one sees budgets come back a few
        // nanoseconds late: that must be the glance, whose word is not final.
        let spend = RateLimiter::new(quota, cells.clone(), EnvClock(env.clone()));
        let glance = RateLimiter::new(quota, Glance(cells), EnvClock(env.clone()));
        let interval_ns = interval_ns.max(1);
        Self { requests, window_s, interval_ns, spend, glance, refused: AtomicU64::new(0) }
    }

    /// What would be left if the key spent now. Spends nothing.
    pub(super) fn look(&self, key: u64) -> Result<Left, Spent> {
        self.outcome(self.glance.check_key(&key), &self.glance.clock().0)
    }

    /// Spends one request.
    pub(super) fn take(&self, key: u64) -> Result<Left, Spent> {
        self.outcome(self.spend.check_key(&key), &self.spend.clock().0)
    }

    fn outcome(
        &self,
        outcome: Result<StateSnapshot, NotUntil<Duration>>,
        env: &Env,
    ) -> Result<Left, Spent> {
        match outcome {
            Ok(state) => Ok(self.left(state.remaining_burst_capacity())),
            Err(not_until) => {
                let wait = not_until.wait_time_from(env.monotonic());
                Err(Spent { retry_after_s: whole_seconds(wait).max(1) })
            }
        }
    }

    /// With `remaining` requests left, how long until all are back.
    pub(super) fn left(&self, remaining: u32) -> Left {
        let missing = u64::from(self.requests.get().saturating_sub(remaining));
        let reset = Duration::from_nanos(self.interval_ns.saturating_mul(missing));
        Left { remaining: remaining.min(self.requests.get()), reset_s: whole_seconds(reset) }
    }

    pub(super) fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Keys that are not back to a fresh state, as far as known.
    pub(super) fn keys(&self) -> usize {
        self.spend.len()
    }

    /// Forgets keys whose budget is whole again, and gives their memory back.
    pub(super) fn evict(&self) {
        self.spend.retain_recent();
        self.spend.shrink_to_fit();
    }
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}
