//! The actor beside the rate limits.
//!
//! - **Owns** the eviction of keys whose budget is whole again. The buckets themselves are shared: a
//!   check must not wait for a mailbox.
//! - **Who may send to it**: nobody; it has a timer.
//! - **Sends**: nothing.
//! - **Bound when busy**: one pass over the keys per [`EVICT_EVERY`].
//! - **Lost if it dies**: a pass of eviction; every budget and counter lives on in [`RateLimits`].
//! - **Starts again** by itself (see [`standing`](crate::standing)), and ends when no [`RateLimits`] is left.

use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context};

use crate::env::Env;
use crate::rate::{Policies, RateLimits, Table};
use crate::standing::{self, Lifeline};

/// How often keys with a whole budget are forgotten.
const EVICT_EVERY: Duration = Duration::from_secs(30);

/// The rate limiter.
pub struct RateLimiter {
    table: Weak<Table>,
    _lifeline: Lifeline,
}

impl RateLimiter {
    /// Starts the actor on the current arbiter and gives the limits it looks after.
    pub fn start(policies: &Policies, env: &Env) -> RateLimits {
        let limits = RateLimits::new(policies, env);
        let table = Arc::downgrade(&limits.0);
        standing::keep("RateLimiter", env, move |lifeline| {
            let _addr = Self { table: table.clone(), _lifeline: lifeline }.start();
        });
        limits
    }
}

impl Actor for RateLimiter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(EVICT_EVERY, |this, ctx| match this.table.upgrade() {
            Some(table) => RateLimits(table).evict(),
            None => ctx.stop(),
        });
    }
}

impl RateLimits {
    pub(super) fn evict(&self) {
        for (_, _, bucket) in self.limited() {
            bucket.evict();
        }
    }
}
