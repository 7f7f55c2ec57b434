//! The tenant: sole owner of one shard, and its only writer.
//!
//! - **Owns** one [`Shard`](storage::shard::Shard): the log's tail and the view of one tenant.
//! - **Who may send to it**: whoever holds a [`TenantHandle`](handle::TenantHandle), which only the
//!   supervisor gives out. Every job carries a [`Permit`](crate::permit::Permit).
//! - **Sends** records to the log, and tells its observers of each durable one. Asks nobody.
//! - **Bound when busy**: the gate of its handle; the next job is refused at once. After a few
//!   messages it lets its neighbours on the thread go first.
//! - **Lost if it dies**: jobs that were not answered; nothing acknowledged. A panicking job takes
//!   nothing with it: the tenant's memory is rebuilt from storage and the queue goes on.
//! - **Starts again**: by the supervisor, from storage, at the next request; after too many panics
//!   only when its back-off is over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use storage::id::TenantId;

use crate::tenant::core::{Core, Verdict};
use crate::tenant::error::TenantError;
use crate::tenant::handle::Gate;
use crate::tenant::job::{Job, Work};
pub use crate::tenant::stats::Stats;
use crate::{env::Env, limits};

pub mod as_of;
pub(crate) mod asker;
pub mod cache;
pub mod clone;
pub mod core;
pub mod cx;
pub mod error;
pub mod handle;
pub(crate) mod job;
pub(crate) mod peek;
pub mod people;
pub mod state;
mod stats;

// The rooms of a tenant: one file a resource.
pub mod acl;
pub mod api_keys;
pub mod audit;
pub mod directory;
pub mod factors;
pub mod forms;
pub mod identities;
pub mod integrations;
pub mod invites;
pub mod mail;
pub mod members;
pub mod platform;
pub mod portable;
pub mod profile;
pub mod recovery;
pub mod restore;
pub mod scim;
pub mod sessions;
pub mod submissions;
pub mod support;
pub mod teams;
pub mod tickets;
pub mod usage;

/// How a tenant ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was told to sleep.
    Slept,
    /// It cannot go on; the text is for operators.
    Faulted(String),
}

/// A death notice that cannot be forgotten: dropping it sends it, so unwinding sends it too.
pub(crate) struct Obituary {
    pub tenant: TenantId,
    pub cause: Cause,
    pub notices: tokio::sync::mpsc::UnboundedSender<(TenantId, Cause)>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        // Nobody is left to hear it only when the node itself is going down.
        let _unheard = self.notices.send((self.tenant, self.cause.clone()));
    }
}

/// The actor around a [`Core`].
pub struct Tenant {
    // Dropped first, so that a successor can own the shard …
    core: Core,
    gate: Arc<Gate>,
    stats: Arc<Stats>,
    env: Env,
    messages: usize,
    is_waiting: bool,
    // … before anyone hears of this death.
    obituary: Obituary,
}

impl Tenant {
    pub(crate) fn new(
        core: Core,
        gate: Arc<Gate>,
        stats: Arc<Stats>,
        env: Env,
        obituary: Obituary,
    ) -> Self {
        Self { core, gate, stats, env, messages: 0, is_waiting: false, obituary }
    }

    /// Starts the next record if it can, and comes back when it is durable.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.core.must_wait() {
            if self.core.is_stopped() {
                self.core.refuse_all(|| TenantError::LogStopped);
            } else {
                self.wait_for_view(ctx);
            }
            return;
        }
        let begun = catch_unwind(AssertUnwindSafe(|| self.core.begin()));
        match begun {
            Ok(Some(appending)) => {
                let finished = appending.into_actor(self).map(|outcome, tenant, ctx| {
                    let finish = AssertUnwindSafe(|| tenant.core.finish(outcome));
                    if catch_unwind(finish).is_err() {
                        tenant.end(ctx, "a panic while answering".to_owned());
                        return;
                    }
                    tenant.pump(ctx);
                });
                ctx.spawn(finished);
            }
            Ok(None) => {}
            Err(_) => self.end(ctx, "a panic in the commit loop".to_owned()),
        }
        if let Verdict::Faulted(why) = self.core.verdict() {
            self.end(ctx, why.clone());
        }
    }

    /// Looks again a little later: the view has to catch up with the log first.
    fn wait_for_view(&mut self, ctx: &mut Context<Self>) {
        if !self.is_waiting {
            self.is_waiting = true;
            ctx.run_later(Duration::from_millis(1), |tenant, ctx| {
                tenant.is_waiting = false;
                tenant.pump(ctx);
            });
        }
    }

    fn end(&mut self, ctx: &mut Context<Self>, why: String) {
        self.gate.close();
        self.stats.faulted(&why);
        self.core.refuse_all(|| TenantError::Faulted);
        self.obituary.cause = Cause::Faulted(why);
        ctx.stop();
    }
}

impl Actor for Tenant {
    type Context = Context<Self>;
}

impl Handler<Job> for Tenant {
    type Result = ();

    fn handle(&mut self, job: Job, ctx: &mut Context<Self>) {
        self.stats.used(self.env.now_ms());
        if let Work::Stop = job.work {
            self.obituary.cause = Cause::Slept;
            ctx.stop();
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| self.core.accept(job))).is_err() {
            self.end(ctx, "a panic while taking a job".to_owned());
            return;
        }
        self.pump(ctx);
        self.messages += 1;
        if self.messages >= limits::MESSAGES_PER_TURN {
            self.messages = 0;
            // actix drains a mailbox until it is empty; without this a flood starves the thread.
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
    }
}
