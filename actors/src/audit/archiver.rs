//! The audit archiver: moves the older part of audit logs from the tenants' views into the archive, so
//! that what a tenant takes on the node does not grow with its history.
//!
//! - Owns: which tenants have more entries than should stay. Lost with the process: their next record
//!   says it again.
//! - Who may send to it: nobody. Tenants tell it after each commit, through a shared set.
//! - Sends: to those tenants, which entries are in the archive now and which rows can go.
//! - Its bound when busy: one tenant, one run of [`AUDIT_CHUNK_ENTRIES`] entries at a time.
//! - What is lost if it dies: nothing. An entry leaves the view only after the archive kept it durably
//!   and the tenant wrote down where.
//! - How it starts again: with the next tick.
//!
//! While the archive is out of reach, the entries stay where they are.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use storage::id::TenantId;
use storage::txn::Value;

use super::chunk;
use crate::background;
use crate::call::Origin;
use crate::env::Env;
use crate::limits::{AUDIT_CHUNK_BYTES, AUDIT_CHUNK_ENTRIES};
use crate::standing::{self, Lifeline};
use crate::supervisor::Tenants;
use crate::tenant::audit::cold::{NoteChunk, Oldest, ReadOldest, TrimAudit};
use crate::tenant::core::{Commit, Observer};
use crate::tenant::error::{self, TenantError};
use crate::tenant::handle::{TenantHandle, operate};
use crate::tenant::state::{AuditHead, TenantState};

/// How often it looks.
const TICK: Duration = Duration::from_secs(1);
/// How long it pauses after the archive failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// For how long a round pauses between its steps.
const CALM: Duration = Duration::from_secs(5);
/// How many times as long as a step the pause behind it is.
const PAUSE_TIMES: u32 = 4;
/// How long such a pause is at most.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Who the tenants name as having asked.
const REASON: &str = "audit archiver";

/// What the archiver keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPolicy {
    /// Entries of each tenant that stay in its view.
    pub local_entries: u64,
}

impl AuditPolicy {
    /// How many entries go into one object. Fewer where few stay, so that a small policy is kept to.
    fn chunk_entries(self) -> u64 {
        AUDIT_CHUNK_ENTRIES.min(self.local_entries.saturating_mul(2)).max(1)
    }
    /// Whether so many entries are too many.
    fn is_too_much(self, state: &TenantState) -> bool {
        let here = state.audit.seq.saturating_sub(state.audit_archived);
        here >= self.local_entries.saturating_add(self.chunk_entries())
    }
}

/// What the archiver says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditArchiverStats {
    /// Entries that were moved since the start.
    pub entries: u64,
    /// Why the last round failed, if it did.
    pub failing: Option<String>,
}

/// The tenants that have more entries than should stay. It is told of every commit.
pub struct Overflow {
    policy: AuditPolicy,
    tenants: Mutex<BTreeSet<TenantId>>,
}

impl Overflow {
    /// Nobody yet.
    pub fn new(policy: AuditPolicy) -> Arc<Self> {
        Arc::new(Self { policy, tenants: Mutex::default() })
    }

    fn take(&self) -> BTreeSet<TenantId> {
        std::mem::take(&mut *lock(&self.tenants))
    }
}

impl Observer for Overflow {
    fn committed(&self, commit: &Commit<'_>) {
        // The platform's own log is short, and read at every start.
        if self.policy.is_too_much(commit.state) && commit.tenant != TenantId::PLATFORM {
            lock(&self.tenants).insert(commit.tenant);
        }
    }
}

struct Shared {
    tenants: Tenants,
    overflow: Arc<Overflow>,
    entries: AtomicU64,
    failing: Mutex<Option<String>>,
}

/// The way to the archiver.
#[derive(Clone)]
pub struct AuditArchiverHandle(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Single entries are put in and taken out, so a poisoned lock still guards a sound set.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AuditArchiverHandle {
    /// Starts the archiver on this thread's arbiter.
    pub fn start(tenants: Tenants, overflow: Arc<Overflow>) -> Self {
        let env = tenants.shared().env.clone();
        let (entries, failing) = (AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { tenants, overflow, entries, failing });
        let kept = Arc::downgrade(&shared);
        let clock = env.clone();
        standing::keep("AuditArchiver", &env, move |lifeline| {
            let archiver = AuditArchiver {
                shared: kept.clone(),
                env: clock.clone(),
                is_busy: false,
                pause_until: Duration::ZERO,
                _lifeline: lifeline,
            };
            let _addr = archiver.start();
        });
        Self(shared)
    }

    /// What the archiver says of itself.
    pub fn stats(&self) -> AuditArchiverStats {
        AuditArchiverStats {
            entries: self.0.entries.load(Ordering::Relaxed),
            failing: lock(&self.0.failing).clone(),
        }
    }
}

/// The actor.
struct AuditArchiver {
    /// Not what keeps the store open when the node stops.
    shared: Weak<Shared>,
    env: Env,
    is_busy: bool,
    pause_until: Duration,
    _lifeline: Lifeline,
}

impl Actor for AuditArchiver {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |archiver, ctx| archiver.tick(ctx));
    }
}

impl AuditArchiver {
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let Some(shared) = self.shared.upgrade() else { return ctx.stop() };
        if self.is_busy || self.env.monotonic() < self.pause_until {
            return;
        }
        let full = shared.overflow.take();
        if full.is_empty() {
            return;
        }
        self.is_busy = true;
        ctx.spawn(round(self.shared.clone(), full).into_actor(self).map(|is_fine, archiver, _| {
            archiver.is_busy = false;
            if !is_fine {
                archiver.pause_until = archiver.env.monotonic() + PAUSE_AFTER_FAILURE;
            }
        }));
    }
}

/// Sees to some tenants, one after the other. Answers whether the archive took everything.
async fn round(shared: Weak<Shared>, full: BTreeSet<TenantId>) -> bool {
    let Some(calm) = shared.upgrade().map(|shared| Calm::begin(&shared.tenants.shared().env))
    else {
        return true;
    };
    for tenant in full {
        // Between two tenants the node may stop.
        let Some(shared) = shared.upgrade() else { return true };
        match shared.see_to(tenant, &calm).await {
            Ok(()) => *lock(&shared.failing) = None,
            Err(error @ TenantError::Store(_)) => {
                let error = error::chain(&error);
                let mut failing = lock(&shared.failing);
                if failing.as_ref() != Some(&error) {
                    tracing::warn!(tenant.id = %tenant, error, "audit entries stay in the view");
                }
                *failing = Some(error);
                return false;
            }
            // It is held, suspended, sealed or asleep: its next commit says it again.
            Err(error) => {
                tracing::debug!(tenant.id = %tenant, %error, "audit entries stay for now")
            }
        }
    }
    true
}

impl Shared {
    /// Moves entries of a tenant until no more than should stay are left.
    async fn see_to(&self, tenant: TenantId, calm: &Calm) -> Result<(), TenantError> {
        let policy = self.overflow.policy;
        loop {
            let door = self.tenants.find(tenant).await?;
            // First what an earlier run left; so a row is never far behind its chunk.
            loop {
                let trim =
                    door.command(operate(tenant, REASON), Origin::default(), None, TrimAudit);
                if !calm.step(trim).await?.reply {
                    break;
                }
            }
            let Some((before, rows)) = oldest(&door, policy, calm).await? else { return Ok(()) };
            let store = self.tenants.store().clone();
            let putting = background::run("audit-archiver", move || {
                let Some(cold) = store.cold() else { return Ok(None) };
                let keys = store.tenant_keys(tenant)?;
                chunk::put(&**cold.archive(), &keys, before, &rows).map(Some)
            });
            let chunk = putting.await.map_err(|_| TenantError::Panicked)??;
            let Some(chunk) = chunk else { return Ok(()) };
            let moved = chunk.row.last.seq - before.seq;
            let note = NoteChunk { chunk };
            door.command(operate(tenant, REASON), Origin::default(), None, note).await?;
            self.entries.fetch_add(moved, Ordering::Relaxed);
        }
    }
}

/// The pace of a round: its steps take the time of tenants that serve, so it pauses behind each for some
/// times as long as the step took. A round that takes too long goes on without, or it would never catch
/// up with tenants that write much.
struct Calm {
    env: Env,
    until: Duration,
}

impl Calm {
    fn begin(env: &Env) -> Self {
        Self { env: env.clone(), until: env.monotonic() + CALM }
    }

    #[expect(clippy::disallowed_methods, reason = "the pause is for time to pass")]
    async fn step<T>(&self, step: impl Future<Output = T>) -> T {
        let began = self.env.monotonic();
        let done = step.await;
        let now = self.env.monotonic();
        if now < self.until {
            let pause = now.saturating_sub(began).saturating_mul(PAUSE_TIMES);
            tokio::time::sleep(pause.min(PAUSE_MAX)).await;
        }
        done
    }
}

type Rows = Vec<(u64, Value)>;

/// The rows that make up the next run, and the entry they follow; nothing if all that is here may stay.
async fn oldest(
    door: &TenantHandle,
    policy: AuditPolicy,
    calm: &Calm,
) -> Result<Option<(AuditHead, Rows)>, TenantError> {
    let wanted = policy.chunk_entries();
    let (mut rows, mut bytes, mut after) = (Rows::new(), 0, 0);
    loop {
        let read = door.query(operate(door.tenant(), REASON), ReadOldest { after });
        let read = calm.step(read).await?;
        let Oldest { archived, last_seq, rows: part } = read;
        if last_seq.saturating_sub(archived.seq) < policy.local_entries + wanted {
            return Ok(None);
        }
        let stays = last_seq.saturating_sub(policy.local_entries);
        let end = stays.min(archived.seq + wanted);
        if part.is_empty() {
            return Ok((!rows.is_empty()).then_some((archived, rows)));
        }
        for (seq, row) in part {
            // Where a row ends, the next one says.
            if seq > end || bytes >= AUDIT_CHUNK_BYTES {
                if seq > end + 1 && rows.len() > 1 {
                    rows.pop();
                }
                let is_old = rows.len() > 1 || seq <= stays + 1;
                return Ok((is_old && !rows.is_empty()).then_some((archived, rows)));
            }
            (after, bytes) = (seq, bytes + row.len());
            rows.push((seq, row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_overflows_once_a_whole_object_can_go_and_the_rest_stay() {
        let mut state = TenantState::default();
        let policy = AuditPolicy { local_entries: 1_024 };
        state.audit.seq = 1_024 + AUDIT_CHUNK_ENTRIES - 1;
        assert!(!policy.is_too_much(&state));
        state.audit.seq += 1;
        assert!(policy.is_too_much(&state));
        state.audit_archived = AUDIT_CHUNK_ENTRIES;
        assert!(!policy.is_too_much(&state));
        assert_eq!(AuditPolicy { local_entries: 0 }.chunk_entries(), 1);
    }
}
