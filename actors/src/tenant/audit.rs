//! Reading a tenant's audit log: the feed, one entry, one form's trail, and checking the chain.
//!
//! Entries are written by the commit loop, all of one record in one row; nothing here, and no route,
//! changes or removes one. Rows are found by the sequence number of their first entry. A list looks
//! at a bounded number of rows and then answers with what it has and where to go on.

use serde_bytes::ByteBuf;
use storage::id::FormId;
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::chain::{self, Break};
use crate::audit::entry::{Detail, Entry, Outcome};
use crate::call::{Document, Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{Action, ReadAudit, ReadFormAudit, Role};
use crate::tenant::acl::{self, FormAction};
use crate::tenant::cx::{Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::forms;
use crate::tenant::forms::lists::{bad_cursor, cursor, open_cursor};
use crate::tenant::state::AuditHead;

/// Rows read at a time while a page fills.
const ROWS_AT_ONCE: usize = 64;
/// Rows that one step of [`VerifyOwnAudit`] checks, so that others get their turn in between.
const VERIFY_ROWS: usize = 256;

/// Which entries are wanted. Every condition that is set has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// The action; with `*` at its end, all that begin with what stands before.
    pub action: Option<String>,
    /// The id of whoever acted.
    pub actor: Option<String>,
    /// The kind of what was acted on.
    pub target_kind: Option<String>,
    /// The id of what was acted on.
    pub target: Option<String>,
    /// The form that an entry is about.
    pub form: Option<FormId>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Not before, Unix milliseconds.
    pub from_ms: Option<u64>,
    /// Before, Unix milliseconds.
    pub until_ms: Option<u64>,
    /// The request it was part of.
    pub request_id: Option<String>,
}

/// A filter with its parts in the form that entries hold them.
struct Wanted {
    filter: AuditFilter,
    form: Option<Detail>,
    from: Option<String>,
    until: Option<String>,
}

impl From<AuditFilter> for Wanted {
    fn from(filter: AuditFilter) -> Self {
        Self {
            form: filter.form.map(|form| Detail::Text(form.to_string())),
            // Times of entries have one width and one zone, so texts compare as times do.
            from: filter.from_ms.map(rfc3339),
            until: filter.until_ms.map(rfc3339),
            filter,
        }
    }
}

impl Wanted {
    fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        let filter = &self.filter;
        let is_action =
            filter.action.as_deref().is_none_or(|wanted| match wanted.strip_suffix('*') {
                Some(prefix) => entry.action.starts_with(prefix),
                None => entry.action == wanted,
            });
        let is_request = filter.request_id.is_none() || filter.request_id == entry.request_id;
        is_action
            && is_request
            && is(&filter.actor, &entry.actor.id)
            && is(&filter.target_kind, &entry.target.kind)
            && is(&filter.target, &entry.target.id)
            && filter.outcome.is_none_or(|outcome| outcome == entry.outcome)
            && self.form.as_ref().is_none_or(|form| entry.detail.get("form") == Some(form))
            && self.from.as_ref().is_none_or(|from| entry.at >= *from)
            && self.until.as_ref().is_none_or(|until| entry.at < *until)
    }
}

/// Where rows are found: all of them, or those that mention a form.
#[derive(Clone, Copy)]
enum Source {
    All,
    Form(FormId),
}

impl Source {
    fn key(self, seq: u64) -> Key {
        match self {
            Self::All => Key::Audit { seq },
            Self::Form(form) => Key::AuditTrail { form, seq },
        }
    }
    fn prefix(self) -> Prefix {
        match self {
            Self::All => Prefix::kind(&self.key(0)),
            Self::Form(_) => Prefix::owner(&self.key(0)),
        }
    }
    /// Rows behind `after` in reading order, by the sequence number of their first entry.
    fn rows<R: Reads>(
        self,
        cx: &R,
        after: Option<u64>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<Entry>)>, TenantError> {
        let after = after.map(|seq| self.key(seq));
        let scan = Scan { prefix: self.prefix(), after, reverse, limit };
        let mut rows = Vec::new();
        for (key, bytes) in cx.rows(&scan)? {
            match key {
                Key::Audit { seq } => rows.push((seq, value::decode(&bytes)?)),
                Key::AuditTrail { seq, .. } => rows.push((seq, cx.need(&Key::Audit { seq })?)),
                _ => {}
            }
        }
        Ok(rows)
    }
}

/// One page of entries.
fn list<R: Reads>(
    cx: &R,
    source: Source,
    filter: AuditFilter,
    paging: &Paging,
    oldest_first: bool,
) -> Result<Page, TenantError> {
    let wanted = Wanted::from(filter);
    let limit = paging.limit.clamp(1, limits::PAGE_MAX);
    let seen = paging.cursor.as_deref().map(read_cursor).transpose()?;
    let mut page = Page::default();
    let (mut after, mut edge) = (seen, seen);
    let mut rows = Vec::new();
    if let (true, Some(seen)) = (oldest_first, seen) {
        // The row that the last page ended in may have more, and it begins before the cursor.
        rows = source.rows(cx, Some(seen.saturating_add(1)), true, 1)?;
    }
    let mut looked_at = 0;
    loop {
        for (first, mut entries) in rows.drain(..) {
            after = Some(first);
            if !oldest_first {
                entries.reverse();
            }
            edge = entries.last().map(|entry| entry.seq);
            for entry in entries {
                let is_behind = seen.is_none_or(|seen| match oldest_first {
                    true => entry.seq > seen,
                    false => entry.seq < seen,
                });
                if !is_behind || !wanted.takes(&entry) {
                    continue;
                }
                page.items.push(json(&entry));
                if page.items.len() == limit {
                    page.next = Some(write_cursor(entry.seq));
                    return Ok(page);
                }
            }
        }
        if looked_at >= limits::SCAN_ROWS_MAX {
            page.next = edge.map(write_cursor);
            return Ok(page);
        }
        rows = source.rows(cx, after, !oldest_first, ROWS_AT_ONCE)?;
        if rows.is_empty() {
            return Ok(page);
        }
        looked_at += rows.len();
    }
}

fn json(entry: &Entry) -> ByteBuf {
    ByteBuf::from(serde_json::to_vec(entry).expect("an entry holds only texts, integers and flags"))
}

fn write_cursor(seq: u64) -> String {
    cursor(&seq.to_be_bytes())
}

fn read_cursor(text: &str) -> Result<u64, TenantError> {
    let bytes = open_cursor(text)?;
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| bad_cursor())?))
}

/// The tenant's audit log.
pub struct ListAudit {
    /// Which entries.
    pub filter: AuditFilter,
    /// Which page.
    pub paging: Paging,
    /// From the first entry on, instead of from the last.
    pub oldest_first: bool,
}

impl Query for ListAudit {
    type Action = ReadAudit;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        // A form's trail is short: the pointers to it spare reading the whole log.
        let source = self.filter.form.map_or(Source::All, Source::Form);
        list(cx, source, self.filter, &self.paging, self.oldest_first)
    }
}

/// One form's part of the audit log: the same entries that the tenant's own feed has.
pub struct ListFormAudit {
    /// Which form.
    pub form: FormId,
    /// Which page.
    pub paging: Paging,
    /// From the first entry on, instead of from the last.
    pub oldest_first: bool,
}

impl Query for ListFormAudit {
    type Action = ReadFormAudit;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let form = self.form;
        let head = forms::head(cx, form)?;
        acl::require(cx, &head.grants, FormAction::ReadAudit)?;
        if head.grants.is_empty() && !matches!(cx.role(), Role::Owner | Role::Admin) {
            return Err(TenantError::Forbidden { action: ReadFormAudit::NAME });
        }
        let filter = AuditFilter { form: Some(form), ..AuditFilter::default() };
        list(cx, Source::Form(form), filter, &self.paging, self.oldest_first)
    }
}

/// One entry, by its sequence number.
pub struct ReadEntry {
    /// Which.
    pub seq: u64,
}

impl Query for ReadEntry {
    type Action = ReadAudit;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let rows = Source::All.rows(cx, Some(self.seq.saturating_add(1)), true, 1)?;
        let mut entries = rows.into_iter().flat_map(|(_, entries)| entries);
        let entry = entries.find(|entry| entry.seq == self.seq).ok_or(TenantError::NotFound)?;
        // Entries never change, so there is only ever the first version.
        Ok(Document { version: 1, json: json(&entry) })
    }
}

/// Checks some rows of the tenant's chain as its own feed shows them. Ask again from where the
/// answer ends until it is done; the log behind the feed is checked by
/// [`verify_tenant`](crate::audit::verify::verify_tenant).
pub struct VerifyOwnAudit {
    /// Where the last step ended; the default state's head at first.
    pub from: AuditHead,
}

/// What one step of [`VerifyOwnAudit`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedSome {
    /// The last entry that holds.
    pub head: AuditHead,
    /// Whether there is nothing left to check.
    pub is_done: bool,
    /// The first place that does not hold.
    pub broken: Option<Break>,
}

impl Query for VerifyOwnAudit {
    type Action = ReadAudit;
    type Reply = VerifiedSome;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<VerifiedSome, TenantError> {
        let mut head = self.from;
        let found = |head, broken| {
            let is_done = true;
            Ok(VerifiedSome { head, is_done, broken: Some(broken) })
        };
        // Rows begin at the sequence number after the one before ended, so `head` is a row's edge.
        let rows = Source::All.rows(cx, Some(head.seq), false, VERIFY_ROWS)?;
        let is_done = rows.len() < VERIFY_ROWS;
        for (_, entries) in rows {
            match chain::verify_entries(head, &entries) {
                Ok(next) => head = next,
                Err(broken) => return found(head, broken),
            }
        }
        match chain::verify_head(head, cx.state().audit) {
            Err(broken) if is_done => found(head, broken),
            _ => Ok(VerifiedSome { head, is_done, broken: None }),
        }
    }
}

#[cfg(test)]
mod tests;
