//! The audit anchor: keeps a signed Merkle tree over the ends of all tenants' histories.
//!
//! A tenant's hash chain shows every change but one: that its end, or all of it, was cut away. So
//! the anchor adds the newest end of each changed history as a leaf to one growing tree, signs the
//! tree's head, and appends both to the [`AnchorLog`].
//!
//! - Owns: the anchor log's end and the node's anchor signing key.
//! - Who may send to it: nobody sends messages. Tenants tell their newest end after each commit into
//!   a shared table that keeps one end a tenant; that is a hint, and a timer looks as well.
//! - What it sends: nothing. Its work on the disk runs on the blocking pool.
//! - Its bound when busy: one end a tenant, one checkpoint at a time, and none sooner than
//!   [`ANCHOR_EVERY`] after the last.
//! - What is lost if it dies: up to that much time of ends that are not anchored yet. Entries
//!   themselves are part of the tenants' own records.
//! - How it starts again: it reads the log's tails and anchors what it missed. A tail that is behind
//!   its anchor is reported, never anchored over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture,
};
use futures_util::stream;
use storage::anchor_log::{AnchorLog, AnchorLogError, Leaf, NewCheckpoint};
use storage::id::{Id, TenantId};
use storage::keystore::{KeyError, KeyStore};
use storage::log::{LogError, Tail};
use storage::seal::TenantKeys;
use storage::store::Store;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::merkle::{self, Frontier};
use super::note::{NoteError, NoteSigner, NoteVerifier, TreeHead};
use super::verify::{NodeReport, every_tenant, verify_node};
use crate::env::Env;
use crate::standing::{self, Lifeline};
use crate::tenant::core::{Commit, Observer};
use crate::tenant::peek;
use crate::tenant::state::AuditHead;

/// The least time between two checkpoints.
pub const ANCHOR_EVERY: Duration = Duration::from_secs(10);
/// How often the anchor looks without being told.
const TICK: Duration = Duration::from_secs(1);
/// How long a clean stop waits for the last checkpoint.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Verifications under way at once; each reads whole histories.
const VERIFYING_MAX: usize = 2;
/// How long a verification waits for its turn.
const VERIFY_WAIT: Duration = Duration::from_secs(10);
/// The name of the signing key in the key store.
const SIGNING_KEY: &str = "anchor-signing";

/// Why there is no new checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The signing key cannot be had.
    #[error("the anchor's signing key cannot be read")]
    Key(#[from] KeyError),
    /// The origin cannot name a key, or the key cannot sign.
    #[error("the anchor cannot sign")]
    Note(#[from] NoteError),
    /// The anchor log refused.
    #[error(transparent)]
    Log(#[from] AnchorLogError),
    /// The newest checkpoint does not hold the edge of its tree.
    #[error("the newest checkpoint does not hold the edge of its tree")]
    NoFrontier,
    /// The work panicked; it is tried again.
    #[error("making a checkpoint panicked")]
    Panicked,
}

/// Why nothing was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Others are being verified.
    #[error("other histories are being verified")]
    Busy,
    /// The work panicked.
    #[error("verifying panicked")]
    Panicked,
}

/// What the anchor needs.
pub struct AnchorOptions {
    /// Where the histories are.
    pub store: Arc<Store>,
    /// Where checkpoints go.
    pub anchors: Arc<AnchorLog>,
    /// The log's name in its checkpoints: a URL without its scheme.
    pub origin: String,
    /// Time.
    pub env: Env,
}

/// What the anchor says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnchorStats {
    /// Checkpoints ever made.
    pub checkpoints: u64,
    /// Leaves in the tree.
    pub size: u64,
    /// When the newest checkpoint was made, Unix milliseconds.
    pub newest_ms: Option<u64>,
    /// How long ago that was, milliseconds.
    pub age_ms: Option<u64>,
    /// Histories that changed since.
    pub waiting: usize,
    /// Tries that failed since the start.
    pub failures: u64,
    /// Tenants whose log is behind, or other than, what was anchored.
    pub suspects: Vec<TenantId>,
}

/// The signing key of this node's anchor; made the first time.
pub fn signing_key(
    keystore: &KeyStore,
    origin: &str,
    env: &Env,
) -> Result<NoteSigner, AnchorError> {
    let make = || Ok(env.random::<32>().to_vec().into());
    let seed = keystore.load_or_create_secret(SIGNING_KEY, make)?;
    Ok(NoteSigner::from_seed(origin, &seed)?)
}

/// The bytes of a leaf that enter the tree.
pub fn leaf_bytes(leaf: &Leaf) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(b"bulkhead.anchor.1\n");
    bytes.extend_from_slice(leaf.tenant.as_bytes());
    bytes.extend_from_slice(&leaf.lsn.to_be_bytes());
    bytes.extend_from_slice(&leaf.record);
    bytes.extend_from_slice(&leaf.audit_seq.to_be_bytes());
    bytes.extend_from_slice(&leaf.audit);
    bytes
}

struct Shared {
    store: Arc<Store>,
    anchors: Arc<AnchorLog>,
    signer: NoteSigner,
    origin: String,
    env: Env,
    told: Mutex<HashMap<TenantId, Leaf>>,
    suspects: Mutex<BTreeSet<TenantId>>,
    stopping: Mutex<Vec<oneshot::Sender<()>>>,
    hint: Notify,
    failures: AtomicU64,
    verifying: Arc<Semaphore>,
}

/// The way to the anchor.
#[derive(Clone)]
pub struct AnchorHandle(Arc<Shared>);

impl AnchorHandle {
    /// Starts the anchor on this thread's arbiter.
    pub fn start(options: AnchorOptions) -> Result<Self, AnchorError> {
        let AnchorOptions { store, anchors, origin, env } = options;
        let signer = signing_key(store.keystore(), &origin, &env)?;
        let shared = Arc::new(Shared {
            store,
            anchors,
            signer,
            origin,
            env,
            told: Mutex::default(),
            suspects: Mutex::default(),
            stopping: Mutex::default(),
            hint: Notify::new(),
            failures: AtomicU64::new(0),
            verifying: Arc::new(Semaphore::new(VERIFYING_MAX)),
        });
        let handle = Self(shared.clone());
        let env = shared.env.clone();
        standing::keep("AuditAnchor", &env, move |lifeline| {
            let shared = shared.clone();
            AuditAnchor::create(|ctx| {
                ctx.run_interval(TICK, |anchor: &mut AuditAnchor, ctx| anchor.look(ctx));
                ctx.add_stream(stream::unfold(shared.clone(), |shared| async move {
                    shared.hint.notified().await;
                    Some((Hint, shared))
                }));
                let mut anchor = AuditAnchor {
                    shared,
                    last: None,
                    is_busy: false,
                    was_failing: false,
                    _lifeline: lifeline,
                };
                anchor.work(ctx, Shared::catch_up);
                anchor
            });
        });
        Ok(handle)
    }

    /// Says where a tenant's history and audit chain end now. Call it after each commit that wrote
    /// audit entries; only the newest end is kept.
    pub fn told(&self, tenant: TenantId, tail: Tail, audit: AuditHead) {
        let leaf = leaf(tenant, tail, audit);
        let is_first = {
            let mut told = lock(&self.0.told);
            let is_first = told.is_empty();
            told.insert(tenant, leaf);
            is_first
        };
        if is_first {
            self.0.hint.notify_one();
        }
    }

    /// Anchors what is left and ends the actor.
    pub async fn stop(&self) {
        let (done, waiting) = oneshot::channel();
        lock(&self.0.stopping).push(done);
        self.0.hint.notify_one();
        if tokio::time::timeout(STOP_TIMEOUT, waiting).await.is_err() {
            tracing::warn!("the anchor did not end in time; the next start anchors what is left");
        }
    }

    /// The key that checks this node's checkpoints.
    pub fn verifier(&self) -> NoteVerifier {
        self.0.signer.verifier()
    }
    /// The public half of the signing key, for [`verify_node`](super::verify::verify_node).
    pub fn public_key(&self) -> [u8; 32] {
        self.0.signer.public_key()
    }
    /// The checkpoints.
    pub fn anchors(&self) -> &Arc<AnchorLog> {
        &self.0.anchors
    }
    /// Verifies the anchor log and these tenants on the blocking pool, few at a time.
    ///
    /// # Errors
    /// [`VerifyError`] if others are being verified for too long, or the work panicked.
    pub async fn verify(&self, tenants: BTreeSet<TenantId>) -> Result<NodeReport, VerifyError> {
        let turn = tokio::time::timeout(VERIFY_WAIT, self.0.verifying.clone().acquire_owned());
        let turn = turn.await.ok().and_then(Result::ok).ok_or(VerifyError::Busy)?;
        let shared = self.0.clone();
        let verified = tokio::task::spawn_blocking(move || {
            // Held by the work, so that a caller who goes away does not let in one too many.
            let _turn = turn;
            let Shared { store, anchors, signer, .. } = &*shared;
            verify_node(store, anchors, signer.public_key(), &tenants)
        });
        verified.await.map_err(|_| VerifyError::Panicked)
    }
    /// Every tenant that has, or is known to have had, a history.
    pub fn every_tenant(&self) -> BTreeSet<TenantId> {
        every_tenant(&self.0.store, &self.0.anchors)
    }
    /// What the anchor says of itself.
    pub fn stats(&self) -> AnchorStats {
        let tip = self.0.anchors.tip();
        let newest_ms = tip.as_ref().map(|tip| tip.at_ms);
        AnchorStats {
            checkpoints: tip.as_ref().map_or(0, |tip| tip.seq),
            size: tip.as_ref().map_or(0, |tip| tip.size),
            newest_ms,
            age_ms: newest_ms.map(|at| self.0.env.now_ms().saturating_sub(at)),
            waiting: lock(&self.0.told).len(),
            failures: self.0.failures.load(Ordering::Relaxed),
            suspects: lock(&self.0.suspects).iter().copied().collect(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn leaf(tenant: TenantId, tail: Tail, audit: AuditHead) -> Leaf {
    Leaf { tenant, lsn: tail.lsn, record: tail.hash, audit_seq: audit.seq, audit: audit.hash }
}

struct Hint;

/// The actor.
pub struct AuditAnchor {
    shared: Arc<Shared>,
    /// When the last try began, on the monotonic clock.
    last: Option<Duration>,
    is_busy: bool,
    was_failing: bool,
    _lifeline: Lifeline,
}

impl Actor for AuditAnchor {
    type Context = Context<Self>;
}

impl StreamHandler<Hint> for AuditAnchor {
    fn handle(&mut self, _: Hint, ctx: &mut Self::Context) {
        self.look(ctx);
    }
    /// The stream of hints never ends; the default would stop the actor if it did.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl AuditAnchor {
    /// Starts a checkpoint if something changed and it is time, or if the node stops.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = self.shared.env.monotonic();
        let is_due = self.last.is_none_or(|last| now.saturating_sub(last) >= ANCHOR_EVERY);
        let is_stopping = !lock(&self.shared.stopping).is_empty();
        let has_work = !lock(&self.shared.told).is_empty();
        if !self.is_busy && (is_stopping || (is_due && has_work)) {
            self.last = Some(now);
            self.work(ctx, Shared::make_checkpoint);
        }
    }

    fn work(&mut self, ctx: &mut Context<Self>, work: fn(&Shared) -> Result<(), AnchorError>) {
        self.is_busy = true;
        // Taken before the work, so that whoever asks to stop meanwhile gets a checkpoint of its own.
        let stopping = match self.last {
            Some(_) => std::mem::take(&mut *lock(&self.shared.stopping)),
            None => Vec::new(),
        };
        let shared = self.shared.clone();
        let outcome = tokio::task::spawn_blocking(move || work(&shared));
        ctx.spawn(outcome.into_actor(self).map(move |outcome, anchor, ctx| {
            anchor.is_busy = false;
            anchor.report(outcome.unwrap_or(Err(AnchorError::Panicked)));
            if stopping.is_empty() {
                return anchor.look(ctx);
            }
            ctx.stop();
            for waiting in stopping {
                // Whoever waited may have given up.
                let _gone = waiting.send(());
            }
        }));
    }

    fn report(&mut self, outcome: Result<(), AnchorError>) {
        let Err(error) = outcome else {
            self.was_failing = false;
            return;
        };
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.was_failing, true) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "histories are not being anchored");
        }
    }
}

impl Shared {
    /// Compares the log's tails with what was anchored, and takes up what is not.
    fn catch_up(&self) -> Result<(), AnchorError> {
        let mut anchored: BTreeMap<_, _> =
            self.anchors.all_anchored().into_iter().map(|a| (a.leaf.tenant, a.leaf)).collect();
        for tenant in self.store.log().tenants() {
            let known = anchored.remove(&tenant);
            match self.newest(tenant, known) {
                Ok(Some(leaf)) => self.take_up(leaf),
                Ok(None) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, tenant.id = %tenant, "a history cannot be read to anchor it");
                }
            }
        }
        for tenant in anchored.into_keys() {
            self.suspect(tenant);
        }
        self.make_checkpoint()
    }

    /// The end of a tenant's history if it is not what was anchored.
    fn newest(&self, tenant: TenantId, known: Option<Leaf>) -> Result<Option<Leaf>, LogError> {
        let tail = self.store.log().tail(tenant)?;
        match known {
            Some(known) if (tail.lsn, tail.hash) == (known.lsn, known.record) => return Ok(None),
            Some(known) if tail.lsn <= known.lsn || !self.holds(tenant, &known)? => {
                self.suspect(tenant);
                return Ok(None);
            }
            _ => {}
        }
        // An erased tenant is for the verifier to name, not for the anchor.
        let Ok(key) = self.store.keystore().load(tenant) else { return Ok(None) };
        let keys = TenantKeys::new(tenant, &key);
        let state = peek::last_state(&self.store, &keys, tail.lsn)?;
        Ok(state.map(|state| leaf(tenant, tail, state.audit)))
    }

    /// Whether the anchored record is the one in the log; an archived one is for the verifier.
    fn holds(&self, tenant: TenantId, known: &Leaf) -> Result<bool, LogError> {
        let records = self.store.log().read_from(tenant, known.lsn, 1)?;
        let found = records.first().map(|record| &record.header);
        Ok(found.is_none_or(|found| found.lsn != known.lsn || found.hash == known.record))
    }

    /// Keeps an end unless a newer one was told meanwhile.
    fn take_up(&self, leaf: Leaf) {
        let mut told = lock(&self.told);
        let kept = told.entry(leaf.tenant).or_insert(leaf);
        if kept.lsn < leaf.lsn {
            *kept = leaf;
        }
    }

    fn suspect(&self, tenant: TenantId) {
        if lock(&self.suspects).insert(tenant) {
            tracing::error!(
                tenant.id = %tenant,
                "the log of a tenant is not what was anchored: verify it and restore it from a backup"
            );
        }
    }

    fn make_checkpoint(&self) -> Result<(), AnchorError> {
        let told = std::mem::take(&mut *lock(&self.told));
        let mut leaves = Vec::with_capacity(told.len());
        for leaf in told.into_values() {
            match self.anchors.anchored(leaf.tenant).map(|anchored| anchored.leaf) {
                Some(known) if known == leaf => {}
                // Anchoring over it would hide what was anchored before.
                Some(known) if leaf.lsn <= known.lsn => self.suspect(leaf.tenant),
                _ if lock(&self.suspects).contains(&leaf.tenant) => {}
                _ => leaves.push(leaf),
            }
        }
        if leaves.is_empty() {
            return Ok(());
        }
        leaves.sort_by_key(|leaf| leaf.tenant);
        let outcome = self.append(&leaves);
        if outcome.is_err() {
            leaves.into_iter().for_each(|leaf| self.take_up(leaf));
        }
        outcome
    }

    fn append(&self, leaves: &[Leaf]) -> Result<(), AnchorError> {
        let mut frontier = match self.anchors.tip() {
            Some(tip) => {
                Frontier::from_bytes(tip.size, &tip.frontier).ok_or(AnchorError::NoFrontier)?
            }
            None => Frontier::default(),
        };
        for leaf in leaves {
            frontier.push(merkle::leaf_hash(&leaf_bytes(leaf)));
        }
        let (origin, size, root) = (self.origin.clone(), frontier.size(), frontier.root());
        let note = self.signer.sign(&TreeHead { origin, size, root }.to_text())?;
        self.anchors.append(NewCheckpoint {
            at_ms: self.env.now_ms(),
            leaves: leaves.to_vec(),
            size,
            frontier: frontier.to_bytes(),
            note,
        })?;
        Ok(())
    }
}
impl Observer for AnchorHandle {
    fn committed(&self, commit: &Commit<'_>) {
        self.told(commit.tenant, commit.tail, commit.state.audit);
    }
}
