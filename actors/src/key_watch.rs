//! The key watch: sees when a customer pulls the key to a tenant, and when it is back.
//!
//! - Owns: which customers' sources are being asked, and which tenants it knows to be sealed.
//! - Who may send to it: nobody; a timer wakes it.
//! - Sends: to the supervisor, which tenants to seal and to unseal; to the platform's compartment and
//!   the tenants, the audit entries that say so.
//! - Its bound when busy: one question a tenant, each on a thread of its own, at most [`ASKS_MAX`]; those
//!   that find no room are asked next time, in turn.
//! - What is lost if it dies: which audit entries are not written yet.
//! - How it starts again: with the next tick it looks at what there is.
//!
//! Every tenant whose key a customer holds and that is in memory, or sealed, is looked at. A source that
//! does not answer in time withholds; so a hung one seals its own tenant and delays nobody else's watch.
//! An error that is not the customer's, such as a disk that fails, changes nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use storage::id::TenantId;
use storage::keystore::{KeyError, KeyStore};
use tokio::sync::{mpsc, oneshot};

use crate::audit::entry::{Draft, Named};
use crate::call::Origin;
use crate::env::{Env, rfc3339};
use crate::permit::Operate;
use crate::standing::{self, Lifeline};
use crate::supervisor::Tenants;
use crate::tenant::cx::{Command, Cx};
use crate::tenant::directory::Standing;
use crate::tenant::error::{self, TenantError};
use crate::tenant::handle::operate;
use crate::travel::TimeTravel;

/// How often it looks.
const TICK: Duration = Duration::from_millis(200);
/// A source that has not answered by then withholds. Together with [`TICK`] less than the second in which
/// whoever pulls a key can rely on it.
const ANSWER_WITHIN: Duration = Duration::from_millis(750);
/// Sources that are asked at once.
pub const ASKS_MAX: usize = 256;
/// Audit entries that may wait to be written.
const NOTES_MAX: usize = 4096;

/// What the audit logs name as the actor.
const REASON: &str = "key watch";

/// What a look at a key gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Given,
    Withheld,
    /// Not for the customer's doing: nothing changes.
    Unknown,
}

/// What is to be written to the audit logs.
#[derive(Debug, Clone, Copy)]
enum Note {
    Sealed { tenant: TenantId, at_ms: u64 },
    Unsealed { tenant: TenantId },
}

/// What the watch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyWatchStats {
    /// Tenants that are sealed now, of those it looks at.
    pub sealed: usize,
    /// How often it found a key pulled since the start.
    pub pulled: u64,
    /// How often a source did not answer in time since the start.
    pub late: u64,
}

struct Shared {
    tenants: Tenants,
    travel: TimeTravel,
    env: Env,
    /// Since when tenants are sealed, Unix milliseconds.
    sealed: Mutex<HashMap<TenantId, u64>>,
    stats: Mutex<KeyWatchStats>,
    notes: mpsc::Sender<Note>,
}

/// The way to the watch.
#[derive(Clone)]
pub struct KeyWatchHandle(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Single entries and figures are replaced, so a poisoned lock still guards sound ones.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyWatchHandle {
    /// Starts the watch on this thread's arbiter.
    pub fn start(tenants: Tenants, travel: TimeTravel) -> Self {
        let env = tenants.shared().env.clone();
        let (notes, waiting) = mpsc::channel(NOTES_MAX);
        let shared = Arc::new(Shared {
            tenants: tenants.clone(),
            travel,
            env: env.clone(),
            sealed: Mutex::default(),
            stats: Mutex::default(),
            notes,
        });
        actix_rt::spawn(write_down(tenants, waiting));
        let kept = Arc::downgrade(&shared);
        standing::keep("KeyWatch", &env, move |lifeline| {
            let shared = kept.clone();
            let watch = KeyWatch {
                shared,
                asks: HashMap::new(),
                last: None,
                number: 0,
                _lifeline: lifeline,
            };
            let _addr = watch.start();
        });
        Self(shared)
    }

    /// What the watch says of itself.
    pub fn stats(&self) -> KeyWatchStats {
        KeyWatchStats { sealed: lock(&self.0.sealed).len(), ..*lock(&self.0.stats) }
    }
}

/// A source that is being asked.
struct Ask {
    number: u64,
    is_late: bool,
}

/// The actor.
pub struct KeyWatch {
    /// Not what keeps the store open when the node stops.
    shared: Weak<Shared>,
    asks: HashMap<TenantId, Ask>,
    /// Who was asked last: the next turn begins behind them.
    last: Option<TenantId>,
    /// How many were asked.
    number: u64,
    _lifeline: Lifeline,
}

impl Actor for KeyWatch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |watch, ctx| watch.tick(ctx));
    }
}

impl KeyWatch {
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let Some(shared) = self.shared.upgrade() else { return ctx.stop() };
        for tenant in in_turn(&shared.watched(), self.last) {
            if self.asks.len() >= ASKS_MAX {
                return;
            }
            if !self.asks.contains_key(&tenant) {
                self.ask(&shared, tenant, ctx);
            }
        }
    }

    /// A question has had its time.
    fn is_late(&mut self, tenant: TenantId, number: u64) {
        let asked = self.asks.get_mut(&tenant).filter(|ask| ask.number == number);
        if let (Some(ask), Some(shared)) = (asked, self.shared.upgrade()) {
            ask.is_late = true;
            lock(&shared.stats).late += 1;
            shared.judge(tenant, Verdict::Withheld);
        }
    }

    fn ask(&mut self, shared: &Shared, tenant: TenantId, ctx: &mut Context<Self>) {
        let keystore = shared.tenants.store().keystore().clone();
        let (told, answer) = oneshot::channel();
        // Not the blocking pool: others who fill it must not make this source look late.
        let thread = std::thread::Builder::new().name("key-watch".to_owned()).spawn(move || {
            let _gone = told.send(look(&keystore, tenant));
        });
        if let Err(error) = thread {
            tracing::warn!(tenant.id = %tenant, %error, "a customer's key is not looked at");
            return;
        }
        self.last = Some(tenant);
        self.number += 1;
        let number = self.number;
        self.asks.insert(tenant, Ask { number, is_late: false });
        ctx.run_later(ANSWER_WITHIN, move |watch, _| watch.is_late(tenant, number));
        ctx.spawn(answer.into_actor(self).map(move |verdict, watch, _| {
            let is_late = watch.asks.remove(&tenant).is_none_or(|ask| ask.is_late);
            let verdict = verdict.unwrap_or(Verdict::Unknown);
            // A source that comes too late each time never gives.
            if let Some(shared) = watch.shared.upgrade()
                && !(is_late && verdict == Verdict::Given)
            {
                shared.judge(tenant, verdict);
            }
        }));
    }
}

/// Asks a customer's source. Blocks for as long as that takes.
fn look(keystore: &KeyStore, tenant: TenantId) -> Verdict {
    match keystore.load(tenant) {
        Ok(_) => Verdict::Given,
        Err(KeyError::Withheld { .. } | KeyError::Missing { .. }) => Verdict::Withheld,
        Err(error) => {
            let error = error::chain(&error);
            tracing::warn!(tenant.id = %tenant, error, "a customer's key cannot be looked at");
            Verdict::Unknown
        }
    }
}

/// Everybody once, beginning behind `last`.
fn in_turn(
    watched: &BTreeSet<TenantId>,
    last: Option<TenantId>,
) -> impl Iterator<Item = TenantId> + '_ {
    let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
    let until = last.map_or(Bound::Excluded(TenantId::PLATFORM), Bound::Included);
    watched
        .range((behind, Bound::Unbounded))
        .chain(watched.range((Bound::Unbounded, until)))
        .copied()
}

impl Shared {
    /// Whose keys are to be looked at.
    fn watched(&self) -> BTreeSet<TenantId> {
        let held = self.tenants.store().keystore().customer_held();
        let mut watched: BTreeSet<_> = held
            .into_iter()
            .filter(|&tenant| self.tenants.is_resident(tenant) || self.tenants.is_sealed(tenant))
            .collect();
        let known: Vec<_> = lock(&self.sealed).keys().copied().collect();
        watched.extend(known);
        watched.retain(|&tenant| self.is_watched(tenant));
        // Its waking may have found the key withheld before the watch did.
        for &tenant in &watched {
            if self.tenants.is_sealed(tenant) {
                self.note_sealed(tenant);
            }
        }
        watched
    }

    /// Nobody waits for the key of a tenant that is being erased.
    fn is_watched(&self, tenant: TenantId) -> bool {
        let summary = self.tenants.summary(tenant);
        let is_served = tenant == TenantId::PLATFORM
            || summary
                .is_some_and(|it| matches!(it.standing, Standing::Active | Standing::Suspended));
        if !is_served {
            lock(&self.sealed).remove(&tenant);
        }
        is_served
    }

    fn judge(&self, tenant: TenantId, verdict: Verdict) {
        match verdict {
            Verdict::Withheld => {
                self.tenants.seal(tenant);
                self.travel.forget(tenant);
                self.note_sealed(tenant);
            }
            Verdict::Given => {
                // Also one that a waking sealed since this was asked: then the next waking tells.
                if lock(&self.sealed).remove(&tenant).is_some() {
                    tracing::info!(tenant.id = %tenant, "the customer's key is back");
                    self.tenants.unseal(tenant);
                    self.note(Note::Unsealed { tenant });
                }
            }
            Verdict::Unknown => {}
        }
    }

    fn note_sealed(&self, tenant: TenantId) {
        let at_ms = self.env.now_ms();
        if let Entry::Vacant(place) = lock(&self.sealed).entry(tenant) {
            place.insert(at_ms);
            lock(&self.stats).pulled += 1;
            tracing::warn!(tenant.id = %tenant, "a customer withholds the key: the tenant is sealed");
            self.note(Note::Sealed { tenant, at_ms });
        }
    }

    fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            tracing::error!(?note, "an audit entry is lost: too many wait to be written");
        }
    }
}

/// Writes to an audit log, the platform's or the tenant's own, what became of a tenant's key. Says nothing
/// of the key itself.
#[derive(Debug)]
pub struct RecordKey {
    /// What happened: `key.withheld`.
    pub event: &'static str,
    /// Whose key.
    pub tenant: TenantId,
    /// Facts worth keeping.
    pub details: Vec<(&'static str, String)>,
}

impl Command for RecordKey {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "key.record";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.tenant)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let draft = Draft::success(self.event, self.target());
        cx.audit(
            self.details.into_iter().fold(draft, |draft, (name, text)| draft.with(name, text)),
        );
        Ok(())
    }
}

/// Writes audit entries, in the order of what happened. A tenant's own log can take its part only when
/// its key is back.
async fn write_down(tenants: Tenants, mut waiting: mpsc::Receiver<Note>) {
    let mut withheld: HashMap<TenantId, u64> = HashMap::new();
    while let Some(note) = waiting.recv().await {
        let (tenant, event) = match note {
            Note::Sealed { tenant, at_ms } => {
                withheld.entry(tenant).or_insert(at_ms);
                (tenant, "tenant.sealed")
            }
            Note::Unsealed { tenant } => (tenant, "tenant.unsealed"),
        };
        let on_record = RecordKey { event, tenant, details: Vec::new() };
        if let Err(error) = record(&tenants, TenantId::PLATFORM, on_record).await {
            let error = error::chain(&error);
            tracing::error!(tenant.id = %tenant, error, event, "not in the platform's audit log");
        }
        let Note::Unsealed { .. } = note else { continue };
        let Some(&since_ms) = withheld.get(&tenant) else { continue };
        match tell(&tenants, tenant, since_ms).await {
            Ok(()) => drop(withheld.remove(&tenant)),
            // Withheld again already: both are told when it is back for good.
            Err(error) if error.is_sealing() => {}
            Err(error) => {
                let error = error::chain(&error);
                tracing::error!(tenant.id = %tenant, error, "not in the tenant's own audit log");
            }
        }
    }
}

/// Writes to a tenant's own log that its key was withheld, and that it is back.
async fn tell(tenants: &Tenants, tenant: TenantId, since_ms: u64) -> Result<(), TenantError> {
    let details = vec![("since", rfc3339(since_ms))];
    record(tenants, tenant, RecordKey { event: "key.withheld", tenant, details }).await?;
    record(tenants, tenant, RecordKey { event: "key.returned", tenant, details: Vec::new() }).await
}

async fn record(tenants: &Tenants, log: TenantId, on_record: RecordKey) -> Result<(), TenantError> {
    let handle = tenants.find_any(log).await?;
    handle.command(operate(log, REASON), Origin::default(), None, on_record).await.map(drop)
}

#[cfg(test)]
mod tests {
    use storage::id::Id;

    use super::*;

    fn id(number: u64) -> TenantId {
        TenantId::new(number, [0; 10])
    }

    #[test]
    fn everybody_has_a_turn_and_the_one_asked_last_is_the_last() {
        let watched: BTreeSet<_> = [1, 2, 3].map(id).into();
        let turn = |last: Option<TenantId>| in_turn(&watched, last).collect::<Vec<_>>();
        assert_eq!(turn(None), [1, 2, 3].map(id));
        assert_eq!(turn(Some(id(1))), [2, 3, 1].map(id));
        assert_eq!(turn(Some(id(3))), [1, 2, 3].map(id));
        assert_eq!(turn(Some(id(9))), [1, 2, 3].map(id));
    }
}
