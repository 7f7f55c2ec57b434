//! The tenants' supervisor, and [`Tenants`], the door to all of them.
//!
//! - **Owns** the life of every tenant: `Asleep → Waking → Awake → Stopping`, and `Faulted`, `Held` and
//!   `Sealed`.
//! - **Who may send to it**: the door (`Tenants`), and each tenant's death notice.
//! - **Sends**: a start to the tenant's host thread; a stop to idle tenants.
//! - **Bound when busy**: a tenant that is awake is found in a map without asking the supervisor;
//!   at most [`WAKING_MAX`](crate::limits::WAKING_MAX) wake at once, the next caller is told to come back.
//! - **Lost if it dies**: nothing durable. Callers waiting for a tenant to wake get an error.
//! - **Starts again**: with the node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, StreamHandler, WrapFuture,
};
use storage::id::TenantId;
use storage::store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::env::Env;
use crate::host::Hosts;
use crate::limits;
use crate::tenant::core::Shared;
use crate::tenant::error::TenantError;
use crate::tenant::handle::{Gate, TenantHandle};
use crate::tenant::{Cause, Obituary, Tenant};

mod door;
mod hold;
mod seal;
mod slot;

pub use door::{NewTenant, PLATFORM_SLUG, TenantSummary, Tenants};
pub use hold::HeldTenant;
pub use slot::{ActorHealth, State};

/// What a supervisor needs.
pub struct SupervisorOptions {
    /// Where tenants' data is.
    pub store: Arc<Store>,
    /// What tenants share.
    pub shared: Arc<Shared>,
    /// The threads tenants run on.
    pub hosts: Hosts,
    /// The region new tenants are placed in.
    pub region: String,
    /// The plan of tenants made without one.
    pub default_plan: String,
}

type Waiter = oneshot::Sender<Result<TenantHandle, TenantError>>;

enum Slot {
    Waking(Vec<Waiter>),
    Awake(TenantHandle),
    /// Told to sleep; whoever comes now waits for the next waking.
    Stopping(Vec<Waiter>),
    Faulted {
        until: Duration,
    },
    /// Somebody works on its data and nobody else may.
    Held,
}

/// How often a tenant was faulted lately.
#[derive(Default)]
struct Faults {
    count: u32,
    until: Duration,
}

impl Faults {
    /// Whether the tenant was well for so long since that the next pause is a short one again.
    fn are_over(&self, now: Duration) -> bool {
        now >= self.until + limits::BACK_OFF_MAX
    }
}

/// The supervisor actor.
pub struct Supervisor {
    store: Arc<Store>,
    shared: Arc<Shared>,
    hosts: Hosts,
    board: Arc<slot::Board>,
    slots: HashMap<TenantId, Slot>,
    faults: HashMap<TenantId, Faults>,
    /// Tenants that are to be held as soon as they have stopped, or are.
    holding: HashSet<TenantId>,
    /// Who waits for a tenant to be held.
    holds: Vec<hold::Holding>,
    /// Tenants whose keys are withheld.
    sealed: HashSet<TenantId>,
    /// Sealed tenants whose actors have work to end before they stop.
    draining: Vec<TenantId>,
    notices: mpsc::UnboundedSender<(TenantId, Cause)>,
    inbox: Option<mpsc::UnboundedReceiver<(TenantId, Cause)>>,
    is_stopping: bool,
    stopped: Vec<oneshot::Sender<()>>,
}

/// Asks for a tenant to be awake.
pub(crate) struct Wake {
    pub tenant: TenantId,
    pub reply: Waiter,
}
impl actix::Message for Wake {
    type Result = ();
}

/// Asks for a tenant to sleep now, if it is idle.
pub(crate) struct Rest {
    pub tenant: TenantId,
}
impl actix::Message for Rest {
    type Result = ();
}

/// Asks for all tenants to sleep; answered when they do.
pub(crate) struct StopAll {
    pub reply: oneshot::Sender<()>,
}
impl actix::Message for StopAll {
    type Result = ();
}

struct Death {
    tenant: TenantId,
    cause: Cause,
}

impl Supervisor {
    /// Starts the supervisor on the current thread and gives out the door. The platform's own
    /// compartment is founded and the directory is read before this returns.
    pub async fn start(options: SupervisorOptions) -> Result<Tenants, TenantError> {
        let SupervisorOptions { store, shared, hosts, region, default_plan } = options;
        let (notices, inbox) = mpsc::unbounded_channel();
        let board = Arc::new(slot::Board::default());
        let supervisor = Self {
            store: store.clone(),
            shared: shared.clone(),
            hosts,
            board: board.clone(),
            slots: HashMap::new(),
            faults: HashMap::new(),
            holding: HashSet::new(),
            holds: Vec::new(),
            sealed: HashSet::new(),
            draining: Vec::new(),
            notices,
            inbox: Some(inbox),
            is_stopping: false,
            stopped: Vec::new(),
        };
        let addr = Actor::start(supervisor);
        let tenants =
            Tenants::new(door::Parts { addr, store, shared, board, region, default_plan });
        tenants.open().await?;
        Ok(tenants)
    }

    fn env(&self) -> &Env {
        &self.shared.env
    }

    fn wake(&mut self, tenant: TenantId, reply: Waiter, ctx: &mut Context<Self>) {
        let now = self.env().monotonic();
        if let Some(closed) = self.why_closed(tenant) {
            let _gone = reply.send(Err(closed));
            return;
        }
        let waking = self.slots.values().filter(|slot| matches!(slot, Slot::Waking(_))).count();
        match self.slots.get_mut(&tenant) {
            Some(Slot::Awake(handle)) => {
                let _gone = reply.send(Ok(handle.clone()));
            }
            Some(Slot::Waking(waiters) | Slot::Stopping(waiters)) => {
                if waiters.len() < limits::IN_FLIGHT_MAX {
                    waiters.push(reply);
                } else {
                    let _gone = reply.send(Err(TenantError::Waking));
                }
            }
            Some(Slot::Faulted { until }) if now < *until => {
                let _gone = reply.send(Err(TenantError::Faulted));
            }
            Some(Slot::Faulted { .. } | Slot::Held) | None => {
                if waking >= limits::WAKING_MAX {
                    let _gone = reply.send(Err(TenantError::Waking));
                    return;
                }
                self.slots.insert(tenant, Slot::Waking(vec![reply]));
                self.start_tenant(tenant, ctx);
            }
        }
    }

    /// Opens the shard on the blocking pool, then starts the actor on its host's thread.
    fn start_tenant(&mut self, tenant: TenantId, ctx: &mut Context<Self>) {
        self.board.set(tenant, State::Waking);
        let (store, shared) = (self.store.clone(), self.shared.clone());
        let stats = self.board.stats(tenant);
        let (hosts, notices) = (self.hosts.clone(), self.notices.clone());
        let starting = async move {
            let opened = {
                let (shared, stats) = (shared.clone(), stats.clone());
                tokio::task::spawn_blocking(move || {
                    hold::open(&store, &shared, stats, tenant, &mut |_, _| {})
                })
                .await
            };
            let core = opened.map_err(|_| TenantError::Faulted)??;
            let (started, handle) = oneshot::channel();
            let start = Box::new(move || {
                let obituary =
                    Obituary { tenant, cause: Cause::Faulted("it died".to_owned()), notices };
                let gate = Arc::new(Gate::default());
                let actor =
                    Tenant::new(core, gate.clone(), stats.clone(), shared.env.clone(), obituary);
                let addr = Actor::start(actor);
                let _gone = started.send(TenantHandle::new(tenant, addr, gate, stats));
            });
            if !hosts.run(tenant, start) {
                return Err(TenantError::Restarting);
            }
            handle.await.map_err(|_| TenantError::Restarting)
        };
        ctx.spawn(starting.into_actor(self).map(move |result, supervisor, _| {
            supervisor.woken(tenant, result);
        }));
    }

    fn woken(&mut self, tenant: TenantId, result: Result<TenantHandle, TenantError>) {
        let waiters = match self.slots.remove(&tenant) {
            Some(Slot::Waking(waiters)) => waiters,
            _ => Vec::new(),
        };
        match result {
            Ok(handle) if self.sealed.contains(&tenant) => {
                self.woken_in_vain(tenant, handle, waiters)
            }
            Ok(handle) => {
                self.board.awake(tenant, handle.clone());
                for waiter in waiters {
                    let _gone = waiter.send(Ok(handle.clone()));
                }
                self.slots.insert(tenant, Slot::Awake(handle));
                if self.is_stopping {
                    self.rest(tenant);
                }
            }
            Err(error) => {
                let answer = seal::answer_to_waiters(&error);
                if matches!(answer(), TenantError::Faulted) {
                    self.fault(tenant, &error.to_string());
                } else {
                    self.note_key(tenant, &error);
                }
                for waiter in waiters {
                    let _gone = waiter.send(Err(answer()));
                }
                self.note_stopped();
            }
        }
    }

    fn fault(&mut self, tenant: TenantId, why: &str) {
        let now = self.shared.env.monotonic();
        let faults = self.faults.entry(tenant).or_default();
        if faults.are_over(now) {
            faults.count = 0;
        }
        let doublings = faults.count.min(16);
        let pause = limits::BACK_OFF_FIRST.saturating_mul(1 << doublings).min(limits::BACK_OFF_MAX);
        let jitter = f64::from(self.shared.env.random::<1>()[0]) / 1024.0;
        let pause = pause.mul_f64(1.0 + jitter);
        let until = now + pause;
        *faults = Faults { count: faults.count + 1, until };
        tracing::error!(tenant.id = %tenant, why, pause_ms = pause.as_millis(), "a tenant is faulted");
        self.board.stats(tenant).faulted(why);
        self.board.set(tenant, State::Faulted);
        self.slots.insert(tenant, Slot::Faulted { until });
    }

    fn rest(&mut self, tenant: TenantId) {
        if let Some(Slot::Awake(handle)) = self.slots.get(&tenant)
            && handle.stop_if_idle()
        {
            self.board.stopping(tenant);
            self.slots.insert(tenant, Slot::Stopping(Vec::new()));
        }
    }

    fn died(&mut self, tenant: TenantId, cause: Cause, ctx: &mut Context<Self>) {
        let waiters = match self.slots.remove(&tenant) {
            Some(Slot::Stopping(waiters) | Slot::Waking(waiters)) => waiters,
            _ => Vec::new(),
        };
        self.board.set(tenant, self.state_at_rest(tenant));
        match cause {
            Cause::Slept => {
                for waiter in waiters {
                    self.wake(tenant, waiter, ctx);
                }
                self.settle_holds();
            }
            Cause::Faulted(why) => {
                self.fault(tenant, &why);
                for waiter in waiters {
                    let _gone = waiter.send(Err(TenantError::Faulted));
                }
            }
        }
        self.note_stopped();
    }

    /// Puts idle tenants to sleep and forgets faults that are long over.
    fn sweep(&mut self) {
        let now_ms = self.env().now_ms();
        let idle_ms = u64::try_from(limits::IDLE_AFTER.as_millis()).unwrap_or(u64::MAX);
        let idle: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(&tenant, slot)| match slot {
                Slot::Awake(handle) => {
                    let used_ms = handle.stats().last_used_ms();
                    let is_idle = self.is_stopping || now_ms.saturating_sub(used_ms) >= idle_ms;
                    is_idle.then_some(tenant)
                }
                _ => None,
            })
            .collect();
        for tenant in idle {
            if tenant != TenantId::PLATFORM || self.is_stopping {
                self.rest(tenant);
            }
        }
        let now = self.env().monotonic();
        self.faults.retain(|_, faults| !faults.are_over(now));
    }

    /// Whether every tenant sleeps, for good.
    fn is_at_rest(&self) -> bool {
        let is_running = |slot: &Slot| !matches!(slot, Slot::Faulted { .. });
        self.is_stopping && !self.slots.values().any(is_running)
    }

    fn note_stopped(&mut self) {
        if self.is_at_rest() {
            for reply in self.stopped.drain(..) {
                let _gone = reply.send(());
            }
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(mut inbox) = self.inbox.take() {
            let deaths = futures_util::stream::poll_fn(move |cx| {
                inbox
                    .poll_recv(cx)
                    .map(|death| death.map(|(tenant, cause)| Death { tenant, cause }))
            });
            ctx.add_stream(deaths);
        }
        ctx.run_interval(limits::SWEEP_EVERY, |supervisor, _| supervisor.sweep());
        ctx.run_interval(hold::LOOK_EVERY, |supervisor, _| {
            supervisor.settle_holds();
            supervisor.drain_sealed();
        });
    }
}

impl StreamHandler<Death> for Supervisor {
    fn handle(&mut self, death: Death, ctx: &mut Context<Self>) {
        self.died(death.tenant, death.cause, ctx);
    }
}

impl Handler<Wake> for Supervisor {
    type Result = ();
    fn handle(&mut self, msg: Wake, ctx: &mut Context<Self>) {
        self.wake(msg.tenant, msg.reply, ctx);
    }
}

impl Handler<Rest> for Supervisor {
    type Result = ();
    fn handle(&mut self, msg: Rest, _: &mut Context<Self>) {
        self.rest(msg.tenant);
    }
}

impl Handler<StopAll> for Supervisor {
    type Result = ();
    fn handle(&mut self, msg: StopAll, ctx: &mut Context<Self>) {
        self.is_stopping = true;
        self.stopped.push(msg.reply);
        self.sweep();
        self.note_stopped();
        // Those with work under way are asked again until it is done. Then the supervisor ends, and
        // with it its hold on the store.
        ctx.run_interval(Duration::from_millis(10), |supervisor, ctx| {
            supervisor.sweep();
            if supervisor.is_at_rest() {
                ctx.stop();
            }
        });
    }
}
