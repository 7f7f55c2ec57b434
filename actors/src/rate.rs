//! Rate limits: how fast anybody may ask, by address, account, tenant and token.
//!
//! The check is a direct call on a [`RateLimits`], shared by every thread and as quick as a map read;
//! a mailbox in between would cost dozens of times more. The [`RateLimiter`] actor owns what is not
//! the check: the policy table, eviction and the counters that operators read.
//!
//! Refuses: to know who a key belongs to. Keys are hashes under a key made at start, so neither the
//! memory nor the answer of a node tells addresses or accounts.

mod bucket;
mod limiter;
mod policy;

use std::fmt::Write;
use std::hash::Hasher;
use std::sync::Arc;

use crate::env::Env;
use bucket::{Bucket, Left, Spent};

pub use limiter::RateLimiter;
pub use policy::{Class, Policies, REQUESTS_MAX, Rate, RateError, Scope, WINDOW_S_MAX};

/// One policy's budget as it stands after a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The policy's name in `RateLimit` fields: `api-tenant`.
    pub name: &'static str,
    /// Requests per window.
    pub quota: u32,
    /// The window, in seconds.
    pub window_s: u32,
    /// Requests left.
    pub remaining: u32,
    /// Seconds until the whole budget is back; if it is spent, until the next request may pass.
    pub reset_s: u32,
    /// Whether this budget is why the request may not pass.
    pub refused: bool,
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass.
    pub allowed: bool,
    /// Seconds to wait if it may not, at least 1; 0 if it may. Goes into `Retry-After`.
    pub retry_after_s: u32,
    budgets: [Option<Budget>; Scope::ALL.len()],
}

impl Decision {
    const OPEN: Self = Self { allowed: true, retry_after_s: 0, budgets: [None; Scope::ALL.len()] };

    /// The budgets that were looked at.
    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.budgets.iter().flatten()
    }

    /// The policies that refuse: `violated-policies` of the problem document.
    pub fn violated(&self) -> impl Iterator<Item = &'static str> {
        self.budgets().filter(|budget| budget.refused).map(|budget| budget.name)
    }

    /// The `RateLimit-Policy` field's value: `"api-tenant";q=100;w=60`. Nothing if nothing is limited.
    pub fn policy_field(&self) -> Option<String> {
        self.field(|budget, text| {
            write!(text, "\"{}\";q={};w={}", budget.name, budget.quota, budget.window_s)
        })
    }

    /// The `RateLimit` field's value: `"api-tenant";r=42;t=30`. Nothing if nothing is limited.
    pub fn limit_field(&self) -> Option<String> {
        self.field(|budget, text| {
            write!(text, "\"{}\";r={};t={}", budget.name, budget.remaining, budget.reset_s)
        })
    }

    fn field(&self, item: impl Fn(&Budget, &mut String) -> std::fmt::Result) -> Option<String> {
        let mut text = String::new();
        for budget in self.budgets() {
            if text.is_empty() {
                text.reserve(64);
            } else {
                text.push_str(", ");
            }
            item(budget, &mut text).expect("a String takes any text");
        }
        (!text.is_empty()).then_some(text)
    }

    fn note(&mut self, class: Class, scope: Scope, bucket: &Bucket, outcome: Result<Left, Spent>) {
        let (remaining, reset_s) = match outcome {
            Ok(left) => (left.remaining, left.reset_s),
            Err(spent) => {
                self.allowed = false;
                self.retry_after_s = self.retry_after_s.max(spent.retry_after_s);
                bucket.count_refusal();
                (0, spent.retry_after_s)
            }
        };
        self.budgets[scope as usize] = Some(Budget {
            name: policy::policy_name(class, scope),
            quota: bucket.requests.get(),
            window_s: bucket.window_s.get(),
            remaining,
            reset_s,
            refused: outcome.is_err(),
        });
    }
}

/// How often a policy refused, and how many keys it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct PolicyUse {
    /// Which class.
    pub class: Class,
    /// Which scope.
    pub scope: Scope,
    /// The policy.
    pub rate: Rate,
    /// Requests refused since the start.
    pub refused: u64,
    /// Keys whose budget is not known to be whole.
    pub keys: usize,
}

/// The door to every budget of the node. Cheap to clone.
#[derive(Clone)]
pub struct RateLimits(Arc<Table>);

struct Table {
    buckets: [[Option<Bucket>; Scope::ALL.len()]; Class::ALL.len()],
    secret: [u8; 32],
}

impl RateLimits {
    /// Fresh budgets for `policies`. They work without the actor, but nobody evicts old keys then:
    /// [`RateLimiter::start`] is the ordinary way.
    pub fn new(policies: &Policies, env: &Env) -> Self {
        let bucket = |class, scope| match policies.rate(class, scope) {
            Rate::Off => None,
            Rate::Limit { requests, window_s } => Some(Bucket::new(requests, window_s, env)),
        };
        let buckets = Class::ALL.map(|class| Scope::ALL.map(|scope| bucket(class, scope)));
        Self(Arc::new(Table { buckets, secret: env.random() }))
    }

    /// The key of an address, an account, a tenant or a token: SipHash behind a secret prefix that
    /// is new at each start, so nobody can choose two texts that share a budget.
    pub fn key(&self, bytes: &[u8]) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&self.0.secret);
        hasher.write(bytes);
        hasher.finish()
    }

    /// Asks whether a request of `class` may pass, and takes it from the budget of every scope given.
    ///
    /// All scopes are looked at before any is charged: a caller who is refused for their address does
    /// not use up the account's budget, and one token at its limit does not use up its tenant's.
    /// Concurrent requests may still slip between look and charge; then a budget is charged for a
    /// request that another refused, never the other way round.
    pub fn check(&self, class: Class, keys: &[(Scope, u64)]) -> Decision {
        let buckets = &self.0.buckets[class as usize];
        let limited = || {
            keys.iter().filter_map(|&(scope, key)| {
                buckets[scope as usize].as_ref().map(|bucket| (scope, key, bucket))
            })
        };
        if limited().nth(1).is_some() {
            let mut looked = Decision::OPEN;
            for (scope, key, bucket) in limited() {
                // The look says what would be left after a charge; without one, it is one more.
                let outcome = bucket.look(key).map(|left| bucket.left(left.remaining + 1));
                looked.note(class, scope, bucket, outcome);
            }
            if !looked.allowed {
                return looked;
            }
        }
        let mut taken = Decision::OPEN;
        for (scope, key, bucket) in limited() {
            taken.note(class, scope, bucket, bucket.take(key));
            if !taken.allowed {
                break;
            }
        }
        taken
    }

    /// What every limited policy did so far, for operators and metrics.
    pub fn usage(&self) -> Vec<PolicyUse> {
        self.limited()
            .map(|(class, scope, bucket)| PolicyUse {
                class,
                scope,
                rate: Rate::Limit { requests: bucket.requests, window_s: bucket.window_s },
                refused: bucket.refused(),
                keys: bucket.keys(),
            })
            .collect()
    }

    fn limited(&self) -> impl Iterator<Item = (Class, Scope, &Bucket)> {
        Class::ALL.into_iter().zip(&self.0.buckets).flat_map(|(class, buckets)| {
            let scoped = Scope::ALL.into_iter().zip(buckets);
            scoped.filter_map(move |(scope, bucket)| Some((class, scope, bucket.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests;
