//! A tenant goes back to an earlier time, by ordinary records: what differs is written again as it was.
//!
//! Nothing of the history is lost by it: the records in between stay, the audit chain goes on, and both
//! the wish and its fulfilment are entries in it. What stays as it is now: the audit log, who the tenant
//! is (short name, plan, region), answers to idempotency keys, and API keys, of which none that was
//! revoked may come back to life. Whoever is changed by it signs in again.
//!
//! Asked for, a restore is part of the tenant's state: it is carried out before anybody is served
//! again, also after a crash in its midst. Refuses: a second one before the first is finished, a time
//! that is not kept, more than [`RESTORES_A_DAY_MAX`](crate::limits::RESTORES_A_DAY_MAX) that a tenant's own
//! people ask for, and to be seen half done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::id::{Id as _, RestoreId, TenantId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{Principal, ReadRestores, RestoreTenant};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::forms::lists::{End, Pager, Step, open_id_cursor, walk};
use crate::tenant::state::PendingRestore;

pub mod apply;
pub mod rows;
#[cfg(test)]
mod tests;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How the audit log names the kind of the node itself.
const SYSTEM: &str = "system";

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestoreStatus {
    /// Asked for; it is being carried out, or is as soon as the node can.
    Running,
    /// The tenant is as it was then.
    Done,
    /// Nothing was changed.
    Failed,
}

/// A restore's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRow {
    /// Which.
    pub id: RestoreId,
    /// To which time, Unix milliseconds.
    pub at_ms: u64,
    /// The record after which the wanted state was.
    pub lsn: u64,
    /// Who asked.
    pub by: Named,
    /// When, Unix milliseconds.
    pub requested_ms: u64,
    /// When it was finished, Unix milliseconds.
    pub finished_ms: Option<u64>,
    /// How far it is.
    pub status: RestoreStatus,
    /// How many rows it changed.
    pub rows_changed: u64,
    /// Why it failed.
    pub reason: Option<String>,
}

/// A restore, as the tenant's own people see it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RestoreView {
    /// Which.
    #[schemars(with = "String")]
    pub id: RestoreId,
    /// The time the tenant goes back to, RFC 3339 UTC.
    pub at: String,
    /// How far it is.
    pub status: RestoreStatus,
    /// When it was asked for, RFC 3339 UTC.
    pub requested_at: String,
    /// When it was finished, RFC 3339 UTC.
    pub finished_at: Option<String>,
    /// The last record of the state that is restored.
    pub lsn: u64,
    /// How many rows it changed.
    pub rows_changed: u64,
    /// Why it failed.
    pub reason: Option<String>,
}

impl RestoreRow {
    fn document(&self) -> Document {
        let view = RestoreView {
            id: self.id,
            at: rfc3339(self.at_ms),
            status: self.status,
            requested_at: rfc3339(self.requested_ms),
            finished_at: self.finished_ms.map(rfc3339),
            lsn: self.lsn,
            rows_changed: self.rows_changed,
            reason: self.reason.clone(),
        };
        let json = serde_json::to_vec(&view).expect("a view holds only texts and numbers");
        // A restore changes once: when it is finished.
        let version = if self.status == RestoreStatus::Running { 1 } else { 2 };
        Document { version, json: json.into() }
    }
}

/// Asks for the tenant to go back to an earlier time.
#[derive(Debug)]
pub struct RequestRestore {
    /// To which time, Unix milliseconds.
    pub at_ms: u64,
    /// The record after which that state was.
    pub lsn: u64,
}

impl Command for RequestRestore {
    type Action = RestoreTenant;
    type Reply = (RestoreId, Document);
    const NAME: &'static str = "tenant.restore_request";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        if cx.state().restore.is_some() {
            return Err(TenantError::Conflict(Conflict::RestoreRunning));
        }
        check_budget(cx)?;
        let row = RestoreRow {
            id: cx.new_id(),
            at_ms: self.at_ms,
            lsn: self.lsn,
            by: cx.actor(),
            requested_ms: cx.now_ms(),
            finished_ms: None,
            status: RestoreStatus::Running,
            rows_changed: 0,
            reason: None,
        };
        let (id, lsn) = (row.id, row.lsn);
        cx.state_mut().restore = Some(PendingRestore { id, lsn, is_begun: false });
        cx.put(&Key::Restore { id }, &row)?;
        let tenant = cx.tenant();
        cx.audit(
            Draft::success(Self::NAME, Named::new("tenant", tenant))
                .with("restore", id.to_string())
                .with("at", rfc3339(self.at_ms))
                .with("lsn", lsn),
        );
        Ok((id, row.document()))
    }
}

/// Refuses a person more than so many in a day: each may write the whole tenant again. Counted are the
/// rows, which outlive restarts and restores. What operators ask for is neither counted nor refused.
fn check_budget(cx: &Cx<'_, '_>) -> Result<(), TenantError> {
    if matches!(cx.principal(), Principal::System(_)) {
        return Ok(());
    }
    let day_begins_ms = cx.now_ms().saturating_sub(DAY_MS);
    let any = Key::Restore { id: RestoreId::from_bytes([0; 16]) };
    let limit = limits::RESTORES_A_DAY_MAX;
    let scan = Scan { prefix: Prefix::kind(&any), after: None, reverse: true, limit };
    let mut asked_ms = Vec::new();
    walk(cx, scan, |_, bytes| {
        let row: RestoreRow = value::decode(bytes)?;
        if row.requested_ms > day_begins_ms && row.by.kind != SYSTEM {
            asked_ms.push(row.requested_ms);
        }
        let is_over = row.requested_ms <= day_begins_ms || asked_ms.len() == limit;
        Ok(if is_over { Step::Stop } else { Step::Next })
    })?;
    match asked_ms.last() {
        Some(first_ms) if asked_ms.len() == limit => {
            let wait_ms = first_ms.saturating_sub(day_begins_ms);
            Err(TenantError::DayBudget {
                what: "restores",
                per_day: limit,
                retry_after_s: u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX),
            })
        }
        _ => Ok(()),
    }
}

/// Reads one restore.
#[derive(Debug)]
pub struct ReadRestore {
    /// Which.
    pub id: RestoreId,
}

impl Query for ReadRestore {
    type Action = ReadRestores;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        Ok(cx.need::<RestoreRow>(&Key::Restore { id: self.id })?.document())
    }
}

/// Lists restores, newest first.
#[derive(Debug)]
pub struct ListRestores {
    /// Which part.
    pub paging: Paging,
}

impl Query for ListRestores {
    type Action = ReadRestores;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let after = open_id_cursor(self.paging.cursor.as_deref())?.map(|id| Key::Restore { id });
        let mut pager = Pager::new(&self.paging);
        let any = Key::Restore { id: RestoreId::from_bytes([0; 16]) };
        let (prefix, limit) = (Prefix::kind(&any), pager.rows_wanted());
        let end = walk(cx, Scan { prefix, after, reverse: true, limit }, |key, bytes| {
            let Key::Restore { id } = *key else { return Ok(Step::Next) };
            pager.offer(id, || Ok(value::decode::<RestoreRow>(bytes)?.document().json))
        })?;
        Ok(pager.close(match end {
            End::Bound(Key::Restore { id }) => Some(id),
            _ => None,
        }))
    }
}

/// Whether a row stays as it is when the tenant goes back.
pub(crate) fn is_timeless(key: &Key) -> bool {
    matches!(
        key,
        Key::State {}
            | Key::AuditChunk { .. }
            | Key::Audit { .. }
            | Key::AuditTrail { .. }
            | Key::Idempotency { .. }
            | Key::Restore { .. }
            | Key::Export { .. }
            | Key::Session { .. }
            | Key::ApiKey { .. }
            | Key::Invite { .. }
            | Key::Support { .. }
            // Whom to trust, and whose identity is whose, is no less now than it was decided last: going back
            // must not bring back a secret that was replaced, or a link that was ended.
            | Key::Identity { .. }
            | Key::Authorization { .. }
            | Key::IdentityProvider { .. }
            | Key::IdentityBySubject { .. }
            | Key::Mail { .. }
            | Key::Ticket { .. }
            | Key::Directory { .. }
            | Key::Slug { .. }
    )
}

/// Whose sessions end by a change of rows.
pub(crate) fn touched_user(key: &Key) -> Option<UserId> {
    match key {
        Key::User { id } => Some(*id),
        _ => None,
    }
}

/// How the audit log names a tenant.
pub(crate) fn named(tenant: TenantId) -> Named {
    Named::new("tenant", tenant)
}
