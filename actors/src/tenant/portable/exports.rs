//! Exports that a tenant's own people ask for: who asked, how far it is, how long it is kept.
//!
//! The key of the bundle is in the answer to whoever asked, and nowhere else; not even the tenant can open
//! the bundle without it. Asking and fetching are entries in the audit log. A node that stops in the midst
//! of an export does not go on with it: it has the key no more. Refuses: more than
//! [`EXPORTS_MAX`](crate::limits::EXPORTS_MAX) at once, and one that is not written or has expired.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::id::{ExportId, Id as _, TenantId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use super::key::BundleKey;
use super::manifest::BundleManifest;
use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Origin, Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{CreateExports, Operate, ReadExports};
use crate::supervisor::Tenants;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::forms::lists::{End, Pager, Step, open_id_cursor, walk};
use crate::tenant::handle::operate;

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportStatus {
    /// It is being written.
    Running,
    /// It can be fetched.
    Done,
    /// It could not be written. Ask again.
    Failed,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Bytes of the whole bundle.
    pub bytes: u64,
    /// The hash of what is the tenant's.
    pub content_hash: String,
    /// How many audit entries it has.
    pub entries: u64,
    /// The last record of the state in it.
    pub lsn: u64,
}

impl Written {
    /// What was written with that manifest.
    pub fn new(manifest: &BundleManifest, bytes: u64) -> Self {
        Self {
            bytes,
            content_hash: manifest.content_hash.to_string(),
            entries: manifest.audit.entries,
            lsn: manifest.source.lsn,
        }
    }
}

/// An export's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ExportRow {
    id: ExportId,
    by: Named,
    requested_ms: u64,
    expires_ms: u64,
    finished_ms: Option<u64>,
    status: ExportStatus,
    key_id: String,
    written: Option<Written>,
}

/// An export, as the tenant's own people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportView {
    /// Which.
    #[schemars(with = "String")]
    pub id: ExportId,
    /// How far it is.
    pub status: ExportStatus,
    /// When it was asked for, RFC 3339 UTC.
    pub requested_at: String,
    /// When it was finished, RFC 3339 UTC.
    pub finished_at: Option<String>,
    /// Until when it is kept, RFC 3339 UTC.
    pub expires_at: String,
    /// Which key opens it; not the key.
    pub key_id: String,
    /// Bytes of the bundle.
    pub bytes: Option<u64>,
    /// The hash of what is the tenant's: the same wherever it lives.
    pub content_hash: Option<String>,
    /// How many audit entries it has.
    pub entries: Option<u64>,
    /// The last record of the state in it.
    pub lsn: Option<u64>,
}

/// An export that was just asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportMade {
    /// The export.
    #[serde(flatten)]
    pub export: ExportView,
    /// The key that opens the bundle. It is shown here and never again.
    pub key: String,
}

impl ExportRow {
    fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms
    }

    /// As it is shown. One that nobody writes any more will never be done: the process that wrote it is gone,
    /// and its key with it.
    fn view_now(&self, is_written: &IsWritten) -> ExportView {
        let mut view = self.view();
        if view.status == ExportStatus::Running && !(is_written.0)(self.id) {
            view.status = ExportStatus::Failed;
        }
        view
    }

    fn view(&self) -> ExportView {
        let written = self.written.as_ref();
        ExportView {
            id: self.id,
            status: self.status,
            requested_at: rfc3339(self.requested_ms),
            finished_at: self.finished_ms.map(rfc3339),
            expires_at: rfc3339(self.expires_ms),
            key_id: self.key_id.clone(),
            bytes: written.map(|written| written.bytes),
            content_hash: written.map(|written| written.content_hash.clone()),
            entries: written.map(|written| written.entries),
            lsn: written.map(|written| written.lsn),
        }
    }
}

fn rows(cx: &impl Reads) -> Result<Vec<ExportRow>, TenantError> {
    let any = Key::Export { id: ExportId::from_bytes([0; 16]) };
    let rows = cx.rows(&Scan::all(Prefix::kind(&any)))?;
    rows.iter().map(|(_, bytes)| Ok(value::decode(bytes)?)).collect()
}

/// Asks for an export.
#[derive(Debug)]
pub struct RequestExport {
    /// Which it is to be.
    pub id: ExportId,
    /// The key it is sealed under.
    pub key: BundleKey,
}

impl Command for RequestExport {
    type Action = CreateExports;
    type Reply = (ExportId, Document);
    const NAME: &'static str = "tenant.export";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        let now_ms = cx.now_ms();
        let (gone, kept): (Vec<_>, Vec<_>) =
            rows(cx)?.into_iter().partition(|row| row.is_expired(now_ms));
        for row in gone {
            cx.delete(&Key::Export { id: row.id })?;
        }
        if kept.len() >= limits::EXPORTS_MAX {
            return Err(TenantError::Conflict(Conflict::TooManyExports));
        }
        let row = ExportRow {
            id: self.id,
            by: cx.actor(),
            requested_ms: now_ms,
            expires_ms: now_ms.saturating_add(limits::EXPORT_KEPT_MS),
            finished_ms: None,
            status: ExportStatus::Running,
            key_id: self.key.id(),
            written: None,
        };
        cx.put(&Key::Export { id: row.id }, &row)?;
        let target = Named::new("tenant", cx.tenant());
        cx.audit(
            Draft::success(Self::NAME, target)
                .with("export", row.id.to_string())
                .with("key_id", row.key_id.as_str()),
        );
        let made = ExportMade { export: row.view(), key: self.key.to_text().to_string() };
        let json = serde_json::to_vec(&made).expect("a view holds only texts and numbers");
        Ok((row.id, Document { version: 1, json: json.into() }))
    }
}

/// Finds exports that are kept no more.
#[derive(Debug)]
pub struct ExpiredExports;

impl Query for ExpiredExports {
    type Action = CreateExports;
    type Reply = Vec<ExportId>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Vec<ExportId>, TenantError> {
        let now_ms = cx.now_ms();
        let expired = rows(cx)?.into_iter().filter(|row| row.is_expired(now_ms));
        Ok(expired.map(|row| row.id).collect())
    }
}

/// What is found of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// It is kept.
    Kept(ExportView),
    /// Its time is over; whoever finds that removes it.
    Expired,
}

/// Whether this process writes an export, or is about to. Asked by the tenant itself, right when it looks at the
/// row: what is asked before or after may have ended in between.
#[derive(Clone)]
pub struct IsWritten(Arc<dyn Fn(ExportId) -> bool + Send + Sync>);

impl IsWritten {
    /// As `tells` says.
    pub fn new(tells: impl Fn(ExportId) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(tells))
    }
}

impl std::fmt::Debug for IsWritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IsWritten")
    }
}

/// Reads how far an export is.
#[derive(Debug)]
pub struct ReadExport {
    /// Which.
    pub id: ExportId,
    /// Whether it is being written.
    pub is_written: IsWritten,
}

impl Query for ReadExport {
    type Action = ReadExports;
    type Reply = Found;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Found, TenantError> {
        let row: ExportRow = cx.need(&Key::Export { id: self.id })?;
        Ok(match row.is_expired(cx.now_ms()) {
            true => Found::Expired,
            false => Found::Kept(row.view_now(&self.is_written)),
        })
    }
}

/// Lists exports, newest first.
#[derive(Debug)]
pub struct ListExports {
    /// Which part.
    pub paging: Paging,
    /// Whether one is being written.
    pub is_written: IsWritten,
}

/// A page of exports.
#[derive(Debug)]
pub struct Listed {
    /// Those that are kept.
    pub page: Page,
    /// Those that were met on the way and whose time is over; whoever finds that removes them.
    pub expired: Vec<ExportId>,
}

impl Query for ListExports {
    type Action = ReadExports;
    type Reply = Listed;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Listed, TenantError> {
        let now_ms = cx.now_ms();
        let after = open_id_cursor(self.paging.cursor.as_deref())?.map(|id| Key::Export { id });
        let mut pager = Pager::new(&self.paging);
        let mut expired = Vec::new();
        let any = Key::Export { id: ExportId::from_bytes([0; 16]) };
        let (prefix, limit) = (Prefix::kind(&any), pager.rows_wanted());
        let end = walk(cx, Scan { prefix, after, reverse: true, limit }, |key, bytes| {
            let Key::Export { id } = *key else { return Ok(Step::Next) };
            let row: ExportRow = value::decode(bytes)?;
            if row.is_expired(now_ms) {
                expired.push(id);
                return Ok(Step::Next);
            }
            pager.offer(id, || {
                let view = row.view_now(&self.is_written);
                let json = serde_json::to_vec(&view).expect("a view holds only texts and numbers");
                Ok(json.into())
            })
        })?;
        let page = pager.close(match end {
            End::Bound(Key::Export { id }) => Some(id),
            _ => None,
        });
        Ok(Listed { page, expired })
    }
}

/// Writes down that somebody fetches an export.
#[derive(Debug)]
pub struct FetchExport {
    /// Which.
    pub id: ExportId,
}

impl Command for FetchExport {
    type Action = ReadExports;
    type Reply = Found;
    const NAME: &'static str = "tenant.export_fetch";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("export", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Found, TenantError> {
        let row: ExportRow = cx.need(&Key::Export { id: self.id })?;
        if row.is_expired(cx.now_ms()) {
            return Ok(Found::Expired);
        }
        if row.status != ExportStatus::Done {
            return Err(TenantError::Conflict(Conflict::ExportNotReady));
        }
        let target = Named::new("tenant", cx.tenant());
        cx.audit(Draft::success(Self::NAME, target).with("export", row.id.to_string()));
        Ok(Found::Kept(row.view()))
    }
}

/// Says how an export ended.
struct FinishExport {
    id: ExportId,
    written: Option<Written>,
}

impl Command for FinishExport {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "tenant.export_finish";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("export", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let key = Key::Export { id: self.id };
        let mut row: ExportRow = cx.need(&key)?;
        row.status = if self.written.is_some() { ExportStatus::Done } else { ExportStatus::Failed };
        row.written = self.written;
        row.finished_ms = Some(cx.now_ms());
        cx.put(&key, &row)
    }
}

impl Tenants {
    /// Has a tenant keep how an export of it ended: with what was written, or without success.
    ///
    /// # Errors
    /// Whatever the tenant answers.
    pub async fn finish_export(
        &self,
        tenant: TenantId,
        id: ExportId,
        written: Option<Written>,
    ) -> Result<(), TenantError> {
        let door = self.find_any(tenant).await?;
        let command = FinishExport { id, written };
        door.command(operate(tenant, "export"), Origin::default(), None, command).await?;
        Ok(())
    }
}
