//! The postman: takes the mails that wait in tenants' outboxes to whoever carries them.
//!
//! - Owns: which tenants have mails and when the next is due. Lost with the process; a start looks at
//!   the newest record of each tenant, without waking any.
//! - Who may send to it: nobody. Tenants tell it after each commit, through a shared table.
//! - Sends: to those tenants, for the mails that are due, and how sending them went.
//! - Its bound when busy: [`TENANTS_AT_ONCE`] tenants, and of each [`MAILS_AT_ONCE`] mails in a row.
//! - What is lost if it dies: nothing. A mail leaves the outbox only after it was taken. One that was
//!   taken just before a crash is sent once more, with the same id.
//! - How it starts again: with the next tick.
//!
//! While no mail server can be reached, mails wait in the outboxes; [`PostmanStats`] says so.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::StreamExt;
use storage::id::TenantId;
use storage::store::Store;

use crate::background;
use crate::call::Origin;
use crate::env::Env;
use crate::standing::{self, Lifeline};
use crate::supervisor::Tenants;
use crate::tenant::core::{Commit, Observer};
use crate::tenant::error::TenantError;
use crate::tenant::handle::operate;
pub use crate::tenant::mail::{Change, Content, Delivery, Letter, MailedLink, Seen, SupportNotice};
use crate::tenant::mail::{NoteDelivery, ReadDueMail};
use crate::tenant::peek;
use crate::tenant::state::Outbox;

/// How often it looks.
const TICK: Duration = Duration::from_millis(200);
/// Tenants whose mails are sent at the same time.
const TENANTS_AT_ONCE: usize = 8;
/// Mails of one tenant that are sent in a row before others have their turn.
const MAILS_AT_ONCE: usize = 16;
/// How long a tenant is left alone that could not be asked, milliseconds.
const PAUSE_MS: u64 = 30_000;
/// Who the tenants name as having asked.
const REASON: &str = "postman";

/// Takes letters out of the house: a mail server, or a directory. Must answer within a bounded time.
pub trait Carrier: Send + Sync + 'static {
    /// Takes one letter.
    fn carry(&self, letter: Letter) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>>;
    /// Drops what is kept here of an erased tenant's letters. Blocks.
    ///
    /// # Errors
    /// If it cannot be dropped.
    fn forget(&self, tenant: TenantId) -> std::io::Result<()>;
}

/// What the postman says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PostmanStats {
    /// Mails that were taken since the start.
    pub sent: u64,
    /// Attempts that failed since the start, but can be made again.
    pub deferred: u64,
    /// Mails that were given up since the start.
    pub failed: u64,
    /// Tenants with mails that wait now.
    pub waiting: u64,
}

/// The tenants with mails that wait, and when the first of each is due. Told of every commit.
#[derive(Default)]
pub struct Outboxes(Mutex<BTreeMap<TenantId, u64>>);

impl Outboxes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, u64>> {
        // Single entries are put in and taken out, so a poisoned lock still guards a sound table.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, tenant: TenantId, outbox: Outbox) {
        match outbox.waiting {
            0 => self.lock().remove(&tenant),
            _ => self.lock().insert(tenant, outbox.due_ms),
        };
    }

    fn due(&self, now_ms: u64) -> Vec<(TenantId, u64)> {
        let all = self.lock();
        all.iter()
            .map(|(tenant, due_ms)| (*tenant, *due_ms))
            .filter(|due| due.1 <= now_ms)
            .collect()
    }

    /// Says when to look at a tenant again (nothing: when it tells), unless it told more meanwhile.
    fn put_off(&self, (tenant, seen_ms): (TenantId, u64), until_ms: Option<u64>) {
        let mut all = self.lock();
        if all.get(&tenant) == Some(&seen_ms) {
            match until_ms {
                Some(until_ms) => all.insert(tenant, until_ms),
                None => all.remove(&tenant),
            };
        }
    }
}

impl Observer for Outboxes {
    fn committed(&self, commit: &Commit<'_>) {
        self.told(commit.tenant, commit.state.mail);
    }
}

struct Shared {
    tenants: Tenants,
    outboxes: Arc<Outboxes>,
    carrier: Arc<dyn Carrier>,
    env: Env,
    sent: AtomicU64,
    deferred: AtomicU64,
    failed: AtomicU64,
}

/// The way to the postman.
#[derive(Clone)]
pub struct PostmanHandle(Arc<Shared>);

impl PostmanHandle {
    /// Starts the postman on this thread's arbiter, and looks for mails that an earlier process left.
    pub fn start(tenants: Tenants, outboxes: Arc<Outboxes>, carrier: Arc<dyn Carrier>) -> Self {
        let env = tenants.shared().env.clone();
        let (sent, deferred, failed) = Default::default();
        let shared = Shared { tenants, outboxes, carrier, env, sent, deferred, failed };
        let shared = Arc::new(shared);
        let (kept, env) = (Arc::downgrade(&shared), shared.env.clone());
        standing::keep("Postman", &env, move |lifeline| {
            let _addr =
                Postman { shared: kept.clone(), is_busy: false, _lifeline: lifeline }.start();
        });
        let (store, outboxes) = (Arc::downgrade(shared.tenants.store()), shared.outboxes.clone());
        actix_rt::spawn(async move {
            // It says why if it cannot; the mails go with the next record of their tenant then.
            let _died = background::run("postman", move || find_left(&store, &outboxes)).await;
        });
        Self(shared)
    }

    /// What the postman says of itself.
    pub fn stats(&self) -> PostmanStats {
        PostmanStats {
            sent: self.0.sent.load(Ordering::Relaxed),
            deferred: self.0.deferred.load(Ordering::Relaxed),
            failed: self.0.failed.load(Ordering::Relaxed),
            waiting: self.0.outboxes.lock().len() as u64,
        }
    }
}

/// Finds the outboxes that an earlier process left with mails in them.
fn find_left(store: &Weak<Store>, outboxes: &Outboxes) {
    let tenants = store.upgrade().map(|store| store.tenants()).unwrap_or_default();
    for tenant in tenants {
        // Not what keeps the store open when the node stops.
        let Some(store) = store.upgrade() else { return };
        // Whoever cannot be read now tells by themselves when they can.
        let Ok(tail) = store.log().tail(tenant) else { continue };
        let Ok(keys) = store.tenant_keys(tenant) else { continue };
        let state = peek::last_state(&store, &keys, tail.lsn);
        let Ok(Some(state)) = state else { continue };
        if state.mail.waiting > 0 {
            outboxes.lock().entry(tenant).or_insert(state.mail.due_ms);
        }
    }
}

/// The actor.
pub struct Postman {
    /// Not what keeps the store open when the node stops.
    shared: Weak<Shared>,
    is_busy: bool,
    _lifeline: Lifeline,
}

impl Actor for Postman {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |postman, ctx| postman.tick(ctx));
    }
}

impl Postman {
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let Some(shared) = self.shared.upgrade() else { return ctx.stop() };
        if self.is_busy {
            return;
        }
        let due = shared.outboxes.due(shared.env.now_ms());
        if due.is_empty() {
            return;
        }
        self.is_busy = true;
        let round = round(self.shared.clone(), due);
        ctx.spawn(round.into_actor(self).map(|(), postman, _| postman.is_busy = false));
    }
}

async fn round(shared: Weak<Shared>, due: Vec<(TenantId, u64)>) {
    let each = |due: (TenantId, u64)| {
        let shared = shared.clone();
        async move {
            // Between two tenants the node may stop.
            let Some(shared) = shared.upgrade() else { return };
            match shared.see_to(due.0).await {
                Ok(0) => shared.outboxes.put_off(due, None),
                Ok(_) => {}
                Err(error) => {
                    // It is held, suspended, sealed or starting again; its mails wait.
                    tracing::debug!(tenant.id = %due.0, %error, "mails stay for now");
                    let until_ms = shared.env.now_ms().saturating_add(PAUSE_MS);
                    shared.outboxes.put_off(due, Some(until_ms));
                }
            }
        }
    };
    futures_util::stream::iter(due).for_each_concurrent(TENANTS_AT_ONCE, each).await;
}

impl Shared {
    /// Sends what is due, and says how many mails that were.
    async fn see_to(&self, tenant: TenantId) -> Result<usize, TenantError> {
        let door = self.tenants.find(tenant).await?;
        let due = ReadDueMail { limit: MAILS_AT_ONCE };
        let due = door.query(operate(tenant, REASON), due).await?;
        let count = due.len();
        for mail in due {
            let delivery = match mail.letter {
                Some(letter) => self.carrier.carry(letter).await,
                None => Delivery::Moot,
            };
            let counter = match &delivery {
                Delivery::Sent => Some(&self.sent),
                Delivery::Later => Some(&self.deferred),
                Delivery::Never { .. } => Some(&self.failed),
                Delivery::Moot => None,
            };
            if let Some(counter) = counter {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            let note = NoteDelivery { id: mail.id, delivery };
            door.command(operate(tenant, REASON), Origin::default(), None, note).await?;
        }
        Ok(count)
    }
}
