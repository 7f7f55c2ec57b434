//! Looking at a tenant as it was: past states in memory, answering the same queries as the present.
//!
//! A state is made once, off the async threads, and kept for a minute, because whoever looks once turns
//! the page. Kept are only rows that people look at: no sessions, no answers to idempotency keys, no
//! audit log, which is never anything but the present.
//!
//! Who may look is the present's business: whoever asks was checked there, and access lists are read
//! with the role they have now. Refuses: a state that is too large to hold, one in the midst of a
//! restore, and to make more than a few at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use storage::history::{HistoryError, Point};
use storage::id::{FormId, TenantId};
use storage::keys::Key;
use storage::seal::TenantKeys;
use storage::shard::frozen::{FreezeError, Frozen, Readable as _};
use storage::store::{Store, StoreError};
use storage::value;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::audit::entry::{Draft, Named};
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{Principal, ReadHistory};
use crate::tenant::acl::{Caller, FormAction, decide};
use crate::tenant::cache::Caches;
use crate::tenant::core::{Shared, plan_of};
use crate::tenant::cx::{Command, Cx, Query, ReadCx};
use crate::tenant::error::TenantError;
use crate::tenant::forms::glass::{BreakGlass, FormRead, Reader};
use crate::tenant::forms::{head, line};
use crate::tenant::state::TenantState;

/// What a look at the past gave.
#[derive(Debug)]
pub struct Seen<T> {
    /// The answer.
    pub reply: T,
    /// The stamp of the last record of the state it is of, Unix milliseconds.
    pub at_ms: u64,
}

/// A tenant as it was after one record.
pub(crate) struct Past {
    frozen: Frozen,
    state: TenantState,
    at_ms: u64,
}

impl Past {
    /// Reads a whole state. Blocks.
    fn make(
        store: &Store,
        keys: TenantKeys,
        point: Point,
        pointer: &'static str,
    ) -> Result<Self, TenantError> {
        let history = store.history().ok_or(TenantError::NotFound)?;
        let rows = history
            .state_after(&keys, point.tail.lsn)
            .map_err(|error| unreadable(error, pointer))?;
        let frozen = Frozen::of(keys, point.tail, rows, is_looked_at, limits::PAST_STATE_BYTES_MAX);
        let frozen = frozen.map_err(|error| match error {
            FreezeError::TooLarge { bytes_max } => too_large(bytes_max, pointer),
            FreezeError::Unreadable(error) => unreadable(error.into(), pointer),
            FreezeError::Key(error) => TenantError::Store(StoreError::from(error)),
        })?;
        let state = match frozen.get(&Key::State {})? {
            Some(bytes) => value::decode(&bytes)?,
            None => TenantState::default(),
        };
        check_settled(&state, pointer)?;
        Ok(Self { frozen, state, at_ms: point.at_ms })
    }

    /// Answers a query of somebody whose credential was checked against the present.
    fn answer<Q: Query>(
        &self,
        shared: &Shared,
        principal: &Principal,
        query: Q,
    ) -> Result<Q::Reply, TenantError> {
        if self.state.profile.is_none() {
            return Err(TenantError::NotFound);
        }
        query.run(&mut ReadCx {
            shard: &self.frozen,
            state: &self.state,
            principal,
            caches: &mut Caches::default(),
            plan: plan_of(shared, &self.state),
            now_ms: self.at_ms,
        })
    }
}

fn too_large(bytes_max: usize, pointer: &'static str) -> TenantError {
    let mib = bytes_max >> 20;
    let message = format!(
        "names a state of more than {mib} MiB, which is not held in memory; take the tenant back to \
         that time instead"
    );
    TenantError::invalid(pointer, message)
}

/// What a caller is told when a state cannot be had.
pub(crate) fn unreadable(error: HistoryError, pointer: &'static str) -> TenantError {
    match error {
        HistoryError::TooOld { from_ms: 0, .. } => {
            TenantError::invalid(pointer, "lies before what is kept")
        }
        HistoryError::TooOld { from_ms, .. } => {
            let from = rfc3339(from_ms);
            TenantError::invalid(pointer, format!("lies before what is kept, which begins {from}"))
        }
        error => TenantError::Store(StoreError::from(error)),
    }
}

/// Whether any query that can be asked of the past reads such a row.
fn is_looked_at(key: &Key) -> bool {
    matches!(
        key,
        Key::State {}
            | Key::Comment { .. }
            | Key::Form { .. }
            | Key::Team { .. }
            | Key::User { .. }
            | Key::Submission { .. }
            | Key::Authored { .. }
    )
}

/// Refuses a state that a restore or an import left half done.
pub(crate) fn check_settled(state: &TenantState, pointer: &'static str) -> Result<(), TenantError> {
    if state.restore.is_some_and(|pending| pending.is_begun) {
        let message = "lies in the midst of an earlier restore; choose a time before or after it";
        return Err(TenantError::invalid(pointer, message));
    }
    if state.profile.is_none() {
        let message = "lies before all of the tenant was taken up here; choose a later time";
        return Err(TenantError::invalid(pointer, message));
    }
    Ok(())
}

/// Where a tenant's history ended at a time. Blocks.
pub(crate) fn end_at(
    store: &Store,
    tenant: TenantId,
    pointer: &'static str,
    at_ms: u64,
) -> Result<(TenantKeys, Point), TenantError> {
    let history = store.history().ok_or(TenantError::NotFound)?;
    let keys = store.tenant_keys(tenant)?;
    let point = history.end_at(&keys, at_ms).map_err(|error| unreadable(error, pointer))?;
    Ok((keys, point))
}

/// One state on the shelf.
struct Place {
    tenant: TenantId,
    past: Arc<Past>,
    /// The time it was last asked for by, and the LSN the history ended at then. A time means the same
    /// state as long as nothing was written since: a clock that is set back can stamp a new record with
    /// an old time.
    asked: (u64, u64),
}

/// Past states that are kept for a while.
struct Shelf {
    /// The one used last is the last one.
    places: Mutex<Vec<Place>>,
}

impl Shelf {
    // Every change leaves whole places, so a poisoned lock still guards a sound list.
    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a state that is there, and notes that it was used.
    fn take(&self, is_it: impl Fn(&Place) -> bool, asked: (u64, u64)) -> Option<Arc<Past>> {
        let mut places = self.lock();
        let mut place = places.iter().position(is_it).map(|at| places.remove(at))?;
        place.asked = asked;
        let past = place.past.clone();
        places.push(place);
        Some(past)
    }

    fn put(&self, place: Place) {
        let mut places = self.lock();
        places.push(place);
        let bytes = |places: &[Place]| -> usize {
            places.iter().map(|place| place.past.frozen.bytes()).sum()
        };
        while places.len() > limits::PASTS_MAX || bytes(&places) > limits::PASTS_BYTES_MAX {
            places.remove(0);
        }
    }

    fn remove(&self, past: &Arc<Past>) {
        self.lock().retain(|place| !Arc::ptr_eq(&place.past, past));
    }
}

/// The past states of a node's tenants.
pub(crate) struct Pasts {
    shelf: Arc<Shelf>,
    making: Arc<Semaphore>,
    /// One state of a tenant is made at a time, so that nobody who asks for many keeps others waiting.
    own_turns: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

impl Default for Pasts {
    fn default() -> Self {
        let shelf = Arc::new(Shelf { places: Mutex::default() });
        let making = Arc::new(Semaphore::new(limits::PASTS_MADE_AT_ONCE_MAX));
        Self { shelf, making, own_turns: Mutex::default() }
    }
}

impl Pasts {
    /// A tenant's state at a time.
    pub(crate) async fn find(
        &self,
        store: &Arc<Store>,
        tenant: TenantId,
        pointer: &'static str,
        at_ms: u64,
    ) -> Result<Arc<Past>, TenantError> {
        let ended = store.log().tail(tenant).map_err(StoreError::from)?.lsn;
        let asked = (at_ms, ended);
        let is_known = move |place: &Place| place.tenant == tenant && place.asked == asked;
        if let Some(past) = self.shelf.take(is_known, asked) {
            return Ok(past);
        }
        let turns = tokio::time::timeout(limits::ASK_TIMEOUT, self.turns(tenant)).await;
        let turns = turns.ok().and_then(Result::ok).ok_or(TenantError::Waking)?;
        // Somebody may have made it while this one waited.
        if let Some(past) = self.shelf.take(is_known, asked) {
            return Ok(past);
        }
        let (shelf, store) = (self.shelf.clone(), store.clone());
        let made = tokio::task::spawn_blocking(move || {
            let _turns: [OwnedSemaphorePermit; 2] = turns;
            let (keys, point) = end_at(&store, tenant, pointer, at_ms)?;
            let lsn = point.tail.lsn;
            let is_it =
                |place: &Place| place.tenant == tenant && place.past.frozen.tail().lsn == lsn;
            if let Some(past) = shelf.take(is_it, asked) {
                return Ok(past);
            }
            let past = Arc::new(Past::make(&store, keys, point, pointer)?);
            shelf.put(Place { tenant, past: past.clone(), asked });
            tokio::spawn(let_go(shelf, Arc::downgrade(&past)));
            Ok(past)
        });
        made.await.map_err(|_| TenantError::Panicked)?
    }

    /// Waits for the tenant's own turn, and with it for one of the node's.
    async fn turns(&self, tenant: TenantId) -> Result<[OwnedSemaphorePermit; 2], AcquireError> {
        let own = {
            // Entries are replaced whole, so a poisoned lock still guards a sound map.
            let mut turns = self.own_turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(&tenant).and_then(Weak::upgrade);
            let own = known.unwrap_or_else(|| Arc::new(Semaphore::new(1)));
            turns.insert(tenant, Arc::downgrade(&own));
            own
        };
        let own = own.acquire_owned().await?;
        Ok([own, self.making.clone().acquire_owned().await?])
    }

    /// Forgets every state of a tenant: its key was pulled or destroyed.
    pub(crate) fn forget(&self, tenant: TenantId) {
        self.shelf.lock().retain(|place| place.tenant != tenant);
    }

    /// Has a state answer, off the async threads: a list may look at many rows.
    pub(crate) async fn ask<Q: Query>(
        &self,
        past: Arc<Past>,
        shared: Arc<Shared>,
        principal: Principal,
        query: Q,
    ) -> Result<Seen<Q::Reply>, TenantError> {
        let asked = tokio::task::spawn_blocking(move || {
            let reply = past.answer(&shared, &principal, query)?;
            Ok(Seen { reply, at_ms: past.at_ms })
        });
        asked.await.map_err(|_| TenantError::Panicked)?
    }
}

/// Forgets a state after its minute, if nothing else made room of it.
#[expect(clippy::disallowed_methods, reason = "nothing but time says that a state is not wanted")]
async fn let_go(shelf: Arc<Shelf>, past: Weak<Past>) {
    tokio::time::sleep(limits::PAST_KEPT_FOR).await;
    if let Some(past) = past.upgrade() {
        shelf.remove(&past);
    }
}

/// As whom somebody asks now: what a look at the past goes by.
pub(crate) struct AsksNow;

impl Query for AsksNow {
    type Action = ReadHistory;
    type Reply = Principal;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Principal, TenantError> {
        Ok(cx.principal.clone())
    }
}

/// A look into a form of the past, with a reason in case one is needed. Says whether it was: then
/// [`RecordLookBack`] has to be durable before the answer leaves.
#[derive(Debug)]
pub struct LookBack<Q> {
    /// What to read.
    pub read: Q,
    /// Whether there is a reason.
    pub has_reason: bool,
}

impl<Q: FormRead> Query for LookBack<Q> {
    type Action = Q::Action;
    type Reply = (Q::Reply, bool);

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError> {
        let head = head(cx, self.read.form())?;
        let caller = Caller::among(cx, &head.grants)?;
        let is_broken = match decide(&caller, &head.grants, FormAction::Read) {
            Ok(()) => false,
            Err(TenantError::ReasonNeeded) if self.has_reason => true,
            Err(refused) => return Err(refused),
        };
        Ok((self.read.read(cx, &Reader::new(caller))?, is_broken))
    }
}

/// Writes down why an owner without a grant looks into a form as it was.
#[derive(Debug)]
pub struct RecordLookBack {
    /// Which form.
    pub form: FormId,
    /// Why, in the reader's words.
    pub reason: String,
    /// The stamp of the state, Unix milliseconds.
    pub at_ms: u64,
}

impl Command for RecordLookBack {
    type Action = ReadHistory;
    type Reply = ();
    const NAME: &'static str = BreakGlass::<crate::tenant::forms::queries::ReadForm>::NAME;
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("form", self.form)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let pointer = "header/X-Break-Glass-Reason";
        let reason = line(pointer, &self.reason, limits::REASON_BYTES_MAX)?;
        let draft = Draft::success(Self::NAME, self.target()).with("reason", reason);
        cx.audit_form(self.form, draft.with("as_of", rfc3339(self.at_ms)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use storage::id::Id as _;
    use storage::log::Tail;
    use storage::seal::{DataKey, SystemRandom};
    use storage::snapshot::Row;

    use super::*;

    fn tenant(n: u8) -> TenantId {
        TenantId::from_bytes([n; 16])
    }

    fn past(n: u8, bytes: usize) -> Arc<Past> {
        let keys = TenantKeys::new(tenant(n), &DataKey::generate(&SystemRandom).unwrap());
        let key = Key::Form { id: FormId::from_bytes([n; 16]) };
        let rows: Vec<Row> = vec![(key.encode().into(), vec![n; bytes].into())];
        let frozen = Frozen::of(keys, Tail::EMPTY, rows.into_iter(), is_looked_at, usize::MAX);
        Arc::new(Past { frozen: frozen.unwrap(), state: TenantState::default(), at_ms: 1 })
    }

    fn put(shelf: &Shelf, n: u8, bytes: usize) {
        shelf.put(Place { tenant: tenant(n), past: past(n, bytes), asked: (1, 1) });
    }

    fn take(shelf: &Shelf, n: u8) -> bool {
        shelf.take(|place| place.tenant == tenant(n), (1, 1)).is_some()
    }

    fn kept(shelf: &Shelf) -> Vec<u8> {
        shelf.lock().iter().map(|place| place.tenant.as_bytes()[0]).collect()
    }

    #[test]
    fn the_state_that_was_used_longest_ago_makes_room() {
        let shelf = Shelf { places: Mutex::default() };
        for n in 1..=4 {
            put(&shelf, n, 1);
        }
        assert!(take(&shelf, 1));
        put(&shelf, 5, 1);
        assert_eq!(kept(&shelf), [3, 4, 1, 5]);
        let most = limits::PASTS_BYTES_MAX / 2;
        put(&shelf, 6, most);
        assert_eq!(kept(&shelf), [4, 1, 5, 6]);
        put(&shelf, 7, most);
        assert_eq!(kept(&shelf), [7], "together they may not take more");
    }

    #[test]
    fn a_state_that_is_dropped_is_gone_for_everybody_but_who_has_it() {
        let pasts = Pasts::default();
        put(&pasts.shelf, 1, 1);
        put(&pasts.shelf, 2, 1);
        let had = pasts.shelf.take(|place| place.tenant == tenant(1), (1, 1)).unwrap();
        pasts.forget(tenant(1));
        assert_eq!(kept(&pasts.shelf), [2]);
        assert_eq!(had.frozen.tenant(), tenant(1));
        pasts.shelf.remove(&had);
        assert_eq!(kept(&pasts.shelf), [2]);
    }

    #[test]
    fn secrets_and_logs_are_not_held() {
        let id = storage::id::Id::from_bytes([0; 16]);
        let user = storage::id::Id::from_bytes([0; 16]);
        for key in [
            Key::ApiKey { id: storage::id::Id::from_bytes([0; 16]) },
            Key::Audit { seq: 1 },
            Key::Idempotency { day: 1, digest: [0; 32] },
            Key::Integration { id: storage::id::Id::from_bytes([0; 16]) },
            Key::Session { user, id },
        ] {
            assert!(!is_looked_at(&key), "{key:?}");
        }
    }
}
