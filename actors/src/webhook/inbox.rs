//! The webhook inbox: how many deliveries a node takes at once, and what became of them.
//!
//! - **Owns** the ingestion policy ([`DELIVERIES_IN_FLIGHT_MAX`] per tenant, so that one sender's
//!   storm cannot take the places people need), the totals by source and outcome, and a bounded table
//!   of the integrations that refuse the most.
//! - **Who may send to it**: whoever holds an [`InboxHandle`]: the edge and the tenants tell outcomes,
//!   operators ask for a [`InboxReport`]. Admission is a direct call, because a delivery must not
//!   wait for a mailbox.
//! - **Sends**: nothing.
//! - **Bound when busy**: [`TOLD_QUEUED_MAX`] untold outcomes; one more is dropped and counted as lost.
//! - **Lost if it dies**: its totals and table. They are measurements, no tenant's data; what is
//!   queued is kept and read by its successor.
//! - **Starts again** by itself (see [`standing`](crate::standing)), and ends when no handle is left.

mod ledger;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, StreamHandler};
use futures_util::stream;
use storage::id::{IntegrationId, TenantId};
use tokio::sync::{mpsc, oneshot};

use crate::env::Env;
use crate::standing::{self, Lifeline};
use crate::webhook::scheme::{Refused, Source};
use ledger::Ledger;

pub use ledger::{NOISY_KEPT_MAX, NOISY_QUIET_MS, Noisy, Total};

/// Deliveries to one tenant under way at once. The next is refused at once and sent again later.
pub const DELIVERIES_IN_FLIGHT_MAX: usize = 32;
/// Outcomes told and not yet counted.
pub const TOLD_QUEUED_MAX: usize = 4_096;
/// How often quiet integrations leave the table.
const EVICT_EVERY: Duration = Duration::from_secs(60);
/// How long an operator's question may wait.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Stored.
    Accepted,
    /// Stored before.
    Duplicate,
    /// Not believed.
    Refused(Refused),
    /// For no integration that takes deliveries.
    Unaddressed,
    /// Too large.
    TooLarge,
    /// More deliveries under way than the tenant takes.
    Shed,
    /// Believed and not stored: the sender must try again.
    Unstored,
}

impl Outcome {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Refused(Refused::Missing) => "refused_missing",
            Self::Refused(Refused::Repeated) => "refused_repeated",
            Self::Refused(Refused::Malformed) => "refused_malformed",
            Self::Refused(Refused::Stale) => "refused_stale",
            Self::Refused(Refused::Early) => "refused_early",
            Self::Refused(Refused::Mismatch) => "refused_mismatch",
            Self::Unaddressed => "unaddressed",
            Self::TooLarge => "too_large",
            Self::Shed => "shed",
            Self::Unstored => "unstored",
        }
    }
}

/// One delivery's end, as far as whoever tells of it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryEnded {
    /// Where it was addressed to, if that exists.
    pub integration: Option<(TenantId, IntegrationId)>,
    /// With which scheme.
    pub source: Option<Source>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What operators see.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct InboxReport {
    /// Deliveries by source and outcome since the start.
    pub totals: Vec<Total>,
    /// The integrations that refused the most lately, loudest first.
    pub noisiest: Vec<Noisy>,
    /// Outcomes that were not counted because the inbox was behind.
    pub lost: u64,
    /// Deliveries under way now.
    pub in_flight: usize,
}

enum Told {
    Ended(DeliveryEnded),
    Report(oneshot::Sender<InboxReport>),
}

/// The door to the inbox. Cheap to clone.
#[derive(Clone)]
pub struct InboxHandle {
    told: mpsc::Sender<Told>,
    gates: Arc<Gates>,
}

#[derive(Default)]
struct Gates {
    in_flight: Mutex<HashMap<TenantId, usize>>,
    lost: AtomicU64,
}

impl Gates {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        // Every change of the map is one step, so a panic elsewhere cannot have left it half done.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery's place among its tenant's. Given back when dropped.
pub struct Admission {
    tenant: TenantId,
    gates: Arc<Gates>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut in_flight = self.gates.lock();
        if let Some(count) = in_flight.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                in_flight.remove(&self.tenant);
            }
        }
    }
}

impl InboxHandle {
    /// A place for one delivery to `tenant`; nothing if all are taken.
    pub fn admit(&self, tenant: TenantId) -> Option<Admission> {
        let mut in_flight = self.gates.lock();
        let count = in_flight.entry(tenant).or_default();
        if *count >= DELIVERIES_IN_FLIGHT_MAX {
            return None;
        }
        *count += 1;
        Some(Admission { tenant, gates: self.gates.clone() })
    }

    /// Tells how a delivery ended. Never waits: what does not fit is counted as lost.
    pub fn tell(&self, ended: DeliveryEnded) {
        if self.told.try_send(Told::Ended(ended)).is_err() {
            self.gates.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the inbox saw so far; nothing if it does not answer in time.
    pub async fn report(&self) -> Option<InboxReport> {
        let ask = async {
            let (reply, answer) = oneshot::channel();
            self.told.send(Told::Report(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(REPORT_TIMEOUT, ask).await.ok().flatten()
    }
}

type Queue = Arc<tokio::sync::Mutex<mpsc::Receiver<Told>>>;

/// The inbox.
pub struct WebhookInbox {
    ledger: Ledger,
    queue: Queue,
    gates: Arc<Gates>,
    env: Env,
    _lifeline: Lifeline,
}

impl WebhookInbox {
    /// Starts the actor on the current arbiter.
    pub fn start(env: &Env) -> InboxHandle {
        let (told, queue) = mpsc::channel(TOLD_QUEUED_MAX);
        let (queue, gates) = (Arc::new(tokio::sync::Mutex::new(queue)), Arc::new(Gates::default()));
        let handle = InboxHandle { told, gates: gates.clone() };
        let world = env.clone();
        standing::keep("WebhookInbox", env, move |lifeline| {
            let inbox = Self {
                ledger: Ledger::default(),
                queue: queue.clone(),
                gates: gates.clone(),
                env: world.clone(),
                _lifeline: lifeline,
            };
            let _addr = inbox.start();
        });
        handle
    }
}

impl Actor for WebhookInbox {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The queue outlives this actor, so it is read through a lock that only its reader takes.
        ctx.add_stream(stream::unfold(self.queue.clone(), async |queue| {
            let told = queue.lock().await.recv().await?;
            Some((told, queue))
        }));
        ctx.run_interval(EVICT_EVERY, |this, _| this.ledger.evict(this.env.now_ms()));
    }
}

impl StreamHandler<Told> for WebhookInbox {
    fn handle(&mut self, told: Told, _: &mut Self::Context) {
        match told {
            Told::Ended(ended) => self.ledger.count(ended, self.env.now_ms()),
            Told::Report(reply) => {
                let report = InboxReport {
                    totals: self.ledger.totals(),
                    noisiest: self.ledger.noisiest(),
                    lost: self.gates.lost.load(Ordering::Relaxed),
                    in_flight: self.gates.lock().values().sum(),
                };
                // An operator who went away does not want it.
                let _gone = reply.send(report);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::id::Id;

    fn refused(integration: u8) -> DeliveryEnded {
        DeliveryEnded {
            integration: Some((
                TenantId::new(1, [1; 10]),
                IntegrationId::new(1, [integration; 10]),
            )),
            source: Some(Source::Github),
            outcome: Outcome::Refused(Refused::Mismatch),
        }
    }

    #[actix_rt::test]
    async fn one_tenants_storm_takes_no_place_of_another() {
        let inbox = WebhookInbox::start(&Env::real());
        let [noisy, quiet] = [1, 2].map(|tenant| TenantId::new(1, [tenant; 10]));
        let mut storm: Vec<_> =
            std::iter::from_fn(|| inbox.admit(noisy)).take(10 * DELIVERIES_IN_FLIGHT_MAX).collect();
        assert_eq!(storm.len(), DELIVERIES_IN_FLIGHT_MAX);
        assert!(inbox.admit(quiet).is_some());
        storm.pop();
        assert!(inbox.admit(noisy).is_some());
        drop(storm);
        assert!(inbox.gates.lock().is_empty(), "nothing is kept for tenants without deliveries");
    }

    #[actix_rt::test]
    async fn what_is_told_is_in_the_report() {
        let inbox = WebhookInbox::start(&Env::real());
        for _ in 0..3 {
            inbox.tell(refused(7));
        }
        inbox.tell(refused(8));
        let _place = inbox.admit(TenantId::PLATFORM);
        let report = inbox.report().await.expect("an answer");
        let totals: Vec<_> =
            report.totals.iter().map(|total| (total.source, total.outcome, total.count)).collect();
        assert_eq!(totals, [(Some(Source::Github), "refused_mismatch", 4)]);
        assert_eq!(report.noisiest.iter().map(|noisy| noisy.refused).collect::<Vec<_>>(), [3, 1]);
        assert_eq!((report.lost, report.in_flight), (0, 1));
    }

    #[actix_rt::test]
    async fn an_outcome_that_does_not_fit_is_counted_as_lost_and_nobody_waits() {
        let inbox = WebhookInbox::start(&Env::real());
        // The actor shares this thread, so it reads nothing until this test awaits.
        for _ in 0..TOLD_QUEUED_MAX + 5 {
            inbox.tell(refused(1));
        }
        assert_eq!(inbox.report().await.expect("an answer").lost, 5);
    }
}
