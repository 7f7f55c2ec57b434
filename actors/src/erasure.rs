//! Erasure of a tenant: its data key is destroyed, so that nothing of it can be read any more, wherever it
//! was copied to. Takes the same short time whatever the tenant holds.
//!
//! - Owns: nothing that lasts. What is to be erased, and how far that is, the platform's directory says.
//! - Who may send to it: nobody; a timer wakes it. Who asks for an erasure asks its handle.
//! - Sends: to the platform's compartment, each step before it is taken; to the supervisor, whom to hold.
//! - Its bound when busy: one erasure at a time.
//! - What is lost if it dies: nothing. What began is carried on.
//! - How it starts again: with the next tick it looks at what is due; the first comes at once.
//!
//! Two steps: a request seals the tenant and keeps everything; when it is due, and not before unless
//! forced, the key is destroyed. In between it can be taken back. What carries the key out of the node goes
//! too: copies of the wrapped key in the archive, and exported bundles. The receipt comes last.
//!
//! Refuses: to force without a reason, and to give a receipt while a copy of the key may be left.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, WrapFuture};
use storage::anchor_log::AnchorLog;
use storage::archive::ArchiveError;
use storage::id::TenantId;
use storage::log::LogError;
use storage::store::StoreError;
use tokio::sync::Mutex;

use crate::audit::note::NoteSigner;
use crate::backup::signed::SignedError;
use crate::call::Origin;
use crate::mail::Carrier;
use crate::permit::{Permit, WriteTenants};
use crate::quota::keeper::KeeperHandle;
use crate::standing::{self, Lifeline};
use crate::supervisor::Tenants;
use crate::tenant::directory::{DirectoryRow, Standing, by_the_node};
use crate::tenant::error::{self, TenantError};
use crate::travel::TimeTravel;

pub mod receipt;
pub mod row;
mod work;

use receipt::REASON_CHARS_MAX;
use row::{AdoptErasure, BeginErasure, CancelErasure, ErasureRow, FinishErasure, RequestErasure};
use work::{clear_and_sign, destroy, drop_views, ending, orphans};

/// How often it looks at what is due.
const TICK: Duration = Duration::from_secs(60);
/// What the audit log names as the actor of what nobody asked for just now.
const REASON: &str = "erasure";
/// Why a tenant is not erased, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// Forced without a reason.
    #[error("to erase at once needs a reason")]
    ReasonNeeded,
    /// The reason is too long.
    #[error("a reason has {REASON_CHARS_MAX} characters at most")]
    ReasonTooLong,
    /// There is nothing to take back.
    #[error("nobody asked for its erasure")]
    NotAsked,
    /// It is too late to take it back.
    #[error("its erasure began and cannot be taken back")]
    Begun,
    /// Letters that are kept on the node cannot be dropped.
    #[error("letters of the tenant cannot be dropped: the erasure goes on when they can")]
    Letters(#[source] std::io::Error),
    /// Somebody works on its data.
    #[error("somebody works on the tenant's data: the erasure goes on when that is over")]
    Busy,
    /// The tenants' side refused.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// The key or the view cannot be destroyed.
    #[error("the tenant's key cannot be destroyed")]
    Store(#[from] StoreError),
    /// The log cannot say where the history ended.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The archive cannot be cleared of what carries the key, or does not take the receipt.
    #[error(
        "the key is destroyed, but the archive may hold copies of it: the erasure goes on later"
    )]
    Archive(#[from] ArchiveError),
    /// The receipt cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignedError),
    /// A thread died.
    #[error("the work died; it goes on later")]
    Died,
}

/// What the eraser needs.
pub struct ErasureOptions {
    /// The tenants.
    pub tenants: Tenants,
    /// Their pasts, of which some are kept in memory.
    pub travel: TimeTravel,
    /// Who knows what they use.
    pub keeper: KeeperHandle,
    /// The anchors of their histories.
    pub anchors: Arc<AnchorLog>,
    /// What signs receipts: the anchor's key.
    pub signer: Arc<NoteSigner>,
    /// Who carries letters, and may keep some; nothing where none are sent.
    pub carrier: Option<Arc<dyn Carrier>>,
    /// How long after a request nothing is destroyed.
    pub delay: Duration,
}

struct Shared {
    options: ErasureOptions,
    /// One erasure at a time.
    turn: Mutex<()>,
    /// Whether the archive's receipts were compared with the directory.
    is_compared: AtomicBool,
}

/// The way to the eraser.
#[derive(Clone)]
pub struct ErasureHandle(Arc<Shared>);

impl ErasureHandle {
    /// Starts the eraser on this thread's arbiter.
    pub fn start(options: ErasureOptions) -> Self {
        let env = options.tenants.shared().env.clone();
        let shared = Arc::new(Shared {
            options,
            turn: Mutex::default(),
            is_compared: AtomicBool::default(),
        });
        let kept = Arc::downgrade(&shared);
        standing::keep("Eraser", &env, move |lifeline| {
            let _addr = Eraser { shared: kept.clone(), _lifeline: lifeline }.start();
        });
        Self(shared)
    }

    /// Asks for a tenant's erasure, which seals it; the delay runs from the first request on. `force`
    /// waives it. Carries out what is due, so the answer may be that of an erased tenant.
    ///
    /// # Errors
    /// [`ErasureError::ReasonNeeded`], [`ErasureError::ReasonTooLong`], and whatever keeps an erasure that
    /// is due from its end: it is tried again each minute then.
    pub async fn request(
        &self,
        permit: Permit<WriteTenants>,
        origin: Origin,
        tenant: TenantId,
        reason: Option<String>,
        force: bool,
    ) -> Result<DirectoryRow, ErasureError> {
        let is_blank = reason.as_deref().is_none_or(|reason| reason.trim().is_empty());
        if force && is_blank {
            return Err(ErasureError::ReasonNeeded);
        }
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
            return Err(ErasureError::ReasonTooLong);
        }
        let options = &self.0.options;
        let now_ms = options.now_ms();
        let delay_ms = u64::try_from(options.delay.as_millis()).unwrap_or(u64::MAX);
        let due_ms = if force { now_ms } else { now_ms.saturating_add(delay_ms) };
        let reason = reason.filter(|_| !is_blank);
        let command = RequestErasure { tenant, due_ms, reason, forced: force };
        let row = options.tenants.change_erasure(permit, origin, tenant, command).await?;
        if row.standing == Standing::Erasing {
            options.tenants.seal(tenant);
            options.travel.forget(tenant);
        }
        match row.erasure.as_ref().is_some_and(|erasure| erasure.is_due(options.now_ms())) {
            true => self.0.carry_out(tenant).await,
            false => Ok(row),
        }
    }

    /// Takes back an erasure that has not begun: the tenant is what it was before.
    ///
    /// # Errors
    /// [`ErasureError::NotAsked`], [`ErasureError::Begun`].
    pub async fn cancel(
        &self,
        permit: Permit<WriteTenants>,
        origin: Origin,
        tenant: TenantId,
    ) -> Result<DirectoryRow, ErasureError> {
        let options = &self.0.options;
        let before = options.tenants.reread(tenant).await?;
        if before.erasure.is_none() {
            return Err(ErasureError::NotAsked);
        }
        let command = CancelErasure { tenant };
        let row = options.tenants.change_erasure(permit, origin, tenant, command).await?;
        if row.erasure.is_some() {
            return Err(ErasureError::Begun);
        }
        options.tenants.unseal(tenant);
        Ok(row)
    }

    /// What the directory says of a tenant now.
    pub async fn status(&self, tenant: TenantId) -> Result<DirectoryRow, ErasureError> {
        Ok(self.0.options.tenants.reread(tenant).await?)
    }

    /// Carries out every erasure that is due.
    pub async fn round(&self) {
        self.0.round().await;
    }
}

impl ErasureOptions {
    fn now_ms(&self) -> u64 {
        self.tenants.shared().env.now_ms()
    }
}

impl Shared {
    async fn round(&self) {
        if !self.is_compared.load(Ordering::Acquire) {
            match self.adopt().await {
                Ok(()) => self.is_compared.store(true, Ordering::Release),
                Err(error) => {
                    let error = error::chain(&error);
                    tracing::warn!(error, "receipts of erasures are not compared yet");
                }
            }
        }
        for summary in self.options.tenants.list() {
            if summary.standing != Standing::Erasing {
                continue;
            }
            if let Err(error) = self.carry_out_if_due(summary.id).await {
                let error = error::chain(&error);
                tracing::error!(tenant.id = %summary.id, error, "an erasure is not at its end");
            }
        }
    }

    /// Tenants whose key is gone and whose receipt is in the archive are erased, whatever the directory
    /// of a restored backup says.
    async fn adopt(&self) -> Result<(), ErasureError> {
        let tenants = &self.options.tenants;
        let ids = |is_erased: bool| {
            let all = tenants.list().into_iter();
            let some = all.filter(move |it| (it.standing == Standing::Erased) == is_erased);
            some.map(|summary| summary.id)
        };
        let open: HashSet<_> = ids(false).collect();
        drop_views(tenants.store().clone(), ids(true).collect());
        let (store, signer) = (tenants.store().clone(), self.options.signer.clone());
        let looking = tokio::task::spawn_blocking(move || orphans(&store, &signer, &open));
        for receipt in looking.await.map_err(|_| ErasureError::Died)?? {
            let tenant = receipt.claimed().tenant;
            let (permit, adopt) = (by_the_node(REASON), AdoptErasure { receipt });
            tenants.change_erasure(permit, Origin::default(), tenant, adopt).await?;
            tracing::info!(tenant.id = %tenant, "a tenant was erased after this node's state was backed up");
        }
        Ok(())
    }

    async fn carry_out_if_due(&self, tenant: TenantId) -> Result<(), ErasureError> {
        // After a restart nobody has sealed it yet.
        self.options.tenants.seal(tenant);
        let row = self.options.tenants.reread(tenant).await?;
        let now_ms = self.options.now_ms();
        if row.erasure.is_some_and(|erasure| erasure.is_due(now_ms)) {
            self.carry_out(tenant).await?;
        }
        Ok(())
    }

    /// Carries out a tenant's erasure if it is due, from wherever it stopped.
    async fn carry_out(&self, tenant: TenantId) -> Result<DirectoryRow, ErasureError> {
        let _turn = self.turn.lock().await;
        let options = &self.options;
        let tenants = &options.tenants;
        let permit = || by_the_node(REASON);
        let begin = BeginErasure { tenant };
        let row = tenants.change_erasure(permit(), Origin::default(), tenant, begin).await?;
        let Some(begun) = row.erasure.clone().filter(ErasureRow::is_under_way) else {
            return Ok(row);
        };
        let held = tenants.hold_any(tenant).await.map_err(|error| match error {
            TenantError::Restarting | TenantError::Waking => ErasureError::Busy,
            error => error.into(),
        })?;
        let (store, anchors) = (tenants.store().clone(), options.anchors.clone());
        let destroyed = tokio::task::spawn_blocking(move || {
            let ending = ending(&store, &anchors, tenant)?;
            destroy(&store, tenant)?;
            Ok::<_, ErasureError>(ending)
        });
        let ending = destroyed.await.map_err(|_| ErasureError::Died)??;
        drop(held);
        options.travel.forget(tenant);
        options.keeper.forget(tenant);
        let (store, signer) = (tenants.store().clone(), options.signer.clone());
        let now_ms = options.now_ms();
        let carrier = options.carrier.clone();
        let receipt = tokio::task::spawn_blocking(move || {
            if let Some(carrier) = carrier {
                carrier.forget(tenant).map_err(ErasureError::Letters)?;
            }
            clear_and_sign(&store, &signer, tenant, &begun, ending, now_ms)
        });
        let receipt = receipt.await.map_err(|_| ErasureError::Died)??;
        let finish = FinishErasure {
            tenant,
            erased_ms: receipt.claimed().erased_ms,
            receipt: String::from_utf8_lossy(&receipt.to_bytes()).into_owned(),
        };
        let row = tenants.change_erasure(permit(), Origin::default(), tenant, finish).await?;
        drop_views(tenants.store().clone(), vec![tenant]);
        tracing::info!(tenant.id = %tenant, "a tenant is erased");
        Ok(row)
    }
}

impl ErasureRow {
    fn is_under_way(&self) -> bool {
        self.begun_ms.is_some() && self.erased_ms.is_none()
    }
}

/// The actor.
pub struct Eraser {
    /// Not what keeps the store open when the node stops.
    shared: Weak<Shared>,
    _lifeline: Lifeline,
}

impl Eraser {
    fn look(&mut self, ctx: &mut Context<Self>) {
        match self.shared.upgrade() {
            Some(shared) => {
                let round = async move { shared.round().await };
                ctx.spawn(round.into_actor(self));
            }
            None => ctx.stop(),
        }
    }
}

impl Actor for Eraser {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
        ctx.run_interval(TICK, |eraser, ctx| eraser.look(ctx));
    }
}
