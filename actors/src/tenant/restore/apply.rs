//! Carrying a restore out: on a held tenant, or on one that wakes with an unfinished one.
//!
//! What differs is written in records of bounded size. While more than one is needed the tenant's state
//! says so, and nobody is served until the last; carried out again after a crash, the same rows come
//! out. Refuses: to begin what cannot be read to its end.

use std::collections::BTreeSet;

use storage::history::{History, HistoryError};
use storage::id::UserId;
use storage::keys::{Key, Prefix};
use storage::store::StoreError;
use storage::txn::{Scan, Value};
use storage::value;

use super::rows::{self, Difference, Differing};
use super::{RestoreRow, RestoreStatus, named, touched_user};
use crate::audit::entry::{Draft, Named};
use crate::call::Origin;
use crate::env::rfc3339;
use crate::permit::{Operate, Principal, Role};
use crate::quota::Quota;
use crate::tenant::core::Core;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::factors::forget_factors;
use crate::tenant::people::UserRow;
use crate::tenant::state::{PendingRestore, TenantState};

/// Bytes of rows after which a record of a restore is written.
const CHUNK_BYTES: usize = 8 << 20;

/// Who the audit log names as having carried it out.
const ACTOR: Principal = Principal::System("restore");

/// Carries out the restore that `core` has pending, if there is one. Blocks. `progress` is told how
/// many rows were compared and how many changed.
///
/// # Errors
/// If it was begun and cannot be finished now: the tenant must not be served. A restore that cannot be
/// begun is written down as failed, which is no error.
pub fn carry_out(
    core: &mut Core,
    history: Option<&History>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TenantError> {
    let Some(pending) = core.state().restore else { return Ok(()) };
    match go_back(core, history, pending, progress) {
        Ok(()) => Ok(()),
        Err(error) => {
            let is_begun = core.state().restore.is_some_and(|pending| pending.is_begun);
            if is_begun || core.is_stopped() {
                return Err(error);
            }
            tracing::error!(restore.id = %pending.id, %error, "a restore failed before anything changed");
            let reason = crate::tenant::error::chain(&error);
            core.run_now(&ACTOR, Origin::default(), Give { id: pending.id, up: reason })
        }
    }
}

fn go_back(
    core: &mut Core,
    history: Option<&History>,
    pending: PendingRestore,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TenantError> {
    let unreadable = |error: HistoryError| TenantError::Store(StoreError::from(error));
    let Some(history) = history else { return Err(TenantError::NotFound) };
    let state_after =
        |core: &Core| history.state_after(core.shard().keys(), pending.lsn).map_err(unreadable);
    // Read to its end before anything is written; it also gives the counters, which come first.
    let then = state_of(state_after(core)?)?;
    let mut changed = 0;
    let mut chunk = Vec::new();
    loop {
        // The records written so far change the present, so each chunk compares from where it stands.
        let mut difference = Difference::new(core.shard(), state_after(core)?);
        let mut bytes = 0;
        while let Some(differing) = difference.next_row()? {
            if is_kept(core, &differing.key)? {
                continue;
            }
            bytes += size_of(&differing);
            chunk.push(differing);
            if difference.seen().is_multiple_of(1024) {
                progress(difference.seen(), changed + chunk.len() as u64);
            }
            if bytes >= CHUNK_BYTES {
                break;
            }
        }
        let seen = difference.seen();
        drop(difference);
        changed += chunk.len() as u64;
        let is_last = bytes < CHUNK_BYTES;
        let rows = std::mem::take(&mut chunk);
        let then = is_last.then(|| Box::new(then.clone()));
        let command = WriteRows { id: pending.id, rows, then, changed };
        core.run_now(&ACTOR, Origin::default(), command)?;
        progress(seen, changed);
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Whether a row that differs stays as it is now: the second factors of people who are here. Going back
/// must not bring back a lost telephone or a used code, nor take away what somebody has since. Who is
/// not here now comes back with what they had.
fn is_kept(core: &Core, key: &Key) -> Result<bool, TenantError> {
    let Key::SecondFactors { user } = key else { return Ok(false) };
    // Factors come before people in the order of keys, so this is still the present.
    Ok(core.shard().get(&Key::User { id: *user })?.is_some())
}

fn size_of(differing: &Differing) -> usize {
    let bytes = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.len());
    64 + bytes(&differing.now) + bytes(&differing.then)
}

/// The tenant's own row in a past state. Reads the state to its end, which proves that it can be.
fn state_of(mut past: storage::history::PastState) -> Result<TenantState, TenantError> {
    use storage::snapshot::RowSource as _;
    let own = Key::State {}.encode();
    let mut state = TenantState::default();
    while let Some((key, bytes)) = past.next_row().map_err(rows::unreadable)? {
        if *key == *own {
            state = value::decode(&bytes)?;
        }
    }
    Ok(state)
}

/// Writes some rows as they were. The last of these ends the restore.
struct WriteRows {
    id: storage::id::RestoreId,
    rows: Vec<Differing>,
    /// On the last: the tenant's own row as it was.
    then: Option<Box<TenantState>>,
    changed: u64,
}

impl Command for WriteRows {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "tenant.restore";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("restore", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        cx.exempt_from_quotas();
        let mut touched = BTreeSet::new();
        for Differing { key, now, then } in self.rows {
            touched.extend(touched_user(&key));
            match then {
                None => {
                    if let Key::User { id } = key {
                        forget_factors(cx, id)?;
                    }
                    cx.delete(&key)?;
                }
                Some(then) if matches!(key, Key::User { .. }) => {
                    cx.put(&key, &with_newer_rights(now.as_deref(), &then)?)?;
                }
                Some(then) => cx.put_bytes(&key, then.to_vec())?,
            }
        }
        for user in touched {
            end_sessions(cx, user)?;
        }
        match self.then {
            None => mark_begun(cx),
            Some(then) => finish(cx, self.id, &then, self.changed)?,
        }
        Ok(())
    }
}

/// The row as it was, but so that no token made before now speaks for it, and so that who was shut out
/// since stays out. An owner never is, and a tenant that goes back has the owners it had.
fn with_newer_rights(now: Option<&[u8]>, then: &[u8]) -> Result<UserRow, TenantError> {
    let mut row: UserRow = value::decode(then)?;
    let now: Option<UserRow> = now.map(value::decode).transpose()?;
    let (authz, is_out) = now.map_or((0, row.deactivated), |now| (now.authz, now.deactivated));
    row.authz = row.authz.max(authz).saturating_add(1);
    row.deactivated = is_out && row.role != Role::Owner;
    Ok(row)
}

fn end_sessions(cx: &mut Cx<'_, '_>, user: UserId) -> Result<(), TenantError> {
    let any = Key::Session { user, id: storage::id::Id::from_bytes([0; 16]) };
    for (key, _) in cx.rows(&Scan::all(Prefix::owner(&any)))? {
        cx.delete(&key)?;
    }
    Ok(())
}

fn mark_begun(cx: &mut Cx<'_, '_>) {
    if let Some(pending) = &mut cx.state_mut().restore {
        pending.is_begun = true;
    }
}

fn finish(
    cx: &mut Cx<'_, '_>,
    id: storage::id::RestoreId,
    then: &TenantState,
    changed: u64,
) -> Result<(), TenantError> {
    let key = Key::Restore { id };
    let mut row: RestoreRow = cx.need(&key)?;
    row.status = RestoreStatus::Done;
    row.finished_ms = Some(cx.now_ms());
    row.rows_changed = changed;
    cx.put(&key, &row)?;
    let state = cx.state_mut();
    state.restore = None;
    state.owners = then.owners;
    // Stored bytes are counted as they are written.
    for quota in Quota::ALL.into_iter().filter(|quota| *quota != Quota::StorageBytes) {
        state.used.set(quota, then.used.of(quota));
    }
    let tenant = cx.tenant();
    cx.audit(
        Draft::success(WriteRows::NAME, named(tenant))
            .with("restore", id.to_string())
            .with("at", rfc3339(row.at_ms))
            .with("lsn", row.lsn)
            .with("rows_changed", changed),
    );
    Ok(())
}

/// Writes down that a restore failed before anything changed.
struct Give {
    id: storage::id::RestoreId,
    up: String,
}

impl Command for Give {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "tenant.restore_fail";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("restore", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let key = Key::Restore { id: self.id };
        let mut row: RestoreRow = cx.need(&key)?;
        row.status = RestoreStatus::Failed;
        row.finished_ms = Some(cx.now_ms());
        row.reason = Some(self.up.clone());
        cx.put(&key, &row)?;
        cx.state_mut().restore = None;
        let tenant = cx.tenant();
        cx.audit(
            Draft::failed(Self::NAME, named(tenant))
                .with("restore", self.id.to_string())
                .with("reason", self.up),
        );
        Ok(())
    }
}
