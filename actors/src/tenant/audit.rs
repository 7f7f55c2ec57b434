//! Reading a tenant's audit log: the feed, one entry, one form's trail, and checking the chain.
//!
//! Entries are written by the commit loop, all of one record in one row; nothing here, and no route,
//! changes or removes one. Old ones rest in the archive ([`cold`]), and lists go on there. Rows are found by the sequence number of their first entry. A list looks
//! at a bounded number of rows and then answers with what it has and where to go on.

use storage::id::FormId;
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::chain::{self, Break, Flaw};
use crate::audit::chunk::Chunk;
use crate::audit::entry::Entry;
use crate::call::{Document, Page, Paging};
use crate::limits;
use crate::permit::{Action, ReadAudit, ReadFormAudit, Role};
use crate::tenant::acl::{self, FormAction};
use crate::tenant::cx::{Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::forms;
use crate::tenant::state::AuditHead;

use cold::Next;
pub use page::AuditFilter;
use page::write_cursor;
pub(crate) use page::{Fill, Wanted, json};

pub(crate) mod cold;
pub(crate) mod page;

/// Rows read at a time while a page fills.
const ROWS_AT_ONCE: usize = 64;
/// Rows that one step of [`VerifyOwnAudit`] checks, so that others get their turn in between.
const VERIFY_ROWS: usize = 256;

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
    /// Rows behind `after` in reading order, by the sequence number of their first entry, without those
    /// that are in the archive.
    fn rows<R: Reads>(
        self,
        cx: &R,
        after: Option<u64>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<Entry>)>, TenantError> {
        let archived = cx.state().audit_archived;
        let after = match after {
            Some(after) if !reverse => Some(after.max(archived)),
            None if !reverse && archived > 0 => Some(archived),
            after => after,
        };
        let after = after.map(|seq| self.key(seq));
        let scan = Scan { prefix: self.prefix(), after, reverse, limit };
        let mut rows = Vec::new();
        for (key, bytes) in cx.rows(&scan)? {
            let (Key::Audit { seq } | Key::AuditTrail { seq, .. }) = key else { continue };
            if seq <= archived {
                break;
            }
            match key {
                Key::Audit { .. } => rows.push((seq, value::decode(&bytes)?)),
                _ => rows.push((seq, cx.need(&Key::Audit { seq })?)),
            }
        }
        Ok(rows)
    }
}

/// Part of a list, and where it goes on.
#[derive(Debug)]
pub struct AuditPage {
    /// What was found. Without a cursor, the list ends here unless it goes on in the archive.
    pub page: Page,
    /// The run of entries in the archive that comes next.
    pub archived: Option<Chunk>,
}

impl AuditPage {
    fn whole(page: Page) -> Self {
        Self { page, archived: None }
    }
}

/// A list of entries. It may go on in the archive, which the tenant itself never waits for:
/// [`feed::list`](crate::audit::feed::list) does.
pub trait AuditList: Query<Reply = AuditPage> + Clone {
    /// Which entries.
    fn filter(&self) -> AuditFilter;
    /// Which page.
    fn paging(&mut self) -> &mut Paging;
    /// From the first entry on, instead of from the last.
    fn is_oldest_first(&self) -> bool;
}

/// One page of entries, as far as they are in the view.
fn list<R: Reads>(
    cx: &R,
    source: Source,
    filter: AuditFilter,
    paging: &Paging,
    oldest_first: bool,
) -> Result<AuditPage, TenantError> {
    let mut fill = Fill::new(filter, paging, oldest_first)?;
    let seen = fill.seen;
    let archived = cx.state().audit_archived;
    let is_in_archive = archived > 0 && seen.is_none_or(|seen| seen < archived);
    if oldest_first && is_in_archive {
        match cold::next(cx, &fill.wanted, seen, oldest_first)? {
            Next::In(chunk) => {
                return Ok(AuditPage { page: Page::default(), archived: Some(chunk) });
            }
            Next::Behind(seq) => return Ok(AuditPage::whole(empty_until(seq))),
            Next::Nowhere => {}
        }
    }
    let mut after = seen;
    let mut rows = Vec::new();
    if let (true, Some(seen)) = (oldest_first, seen) {
        // The row that the last page ended in may have more, and it begins before the cursor.
        rows = source.rows(cx, Some(seen.saturating_add(1)), true, 1)?;
    }
    let mut looked_at = 0;
    loop {
        for (first, entries) in rows.drain(..) {
            after = Some(first);
            if fill.take(entries) {
                return Ok(AuditPage::whole(fill.end()));
            }
        }
        if looked_at >= limits::SCAN_ROWS_MAX {
            return Ok(AuditPage::whole(fill.pause()));
        }
        rows = source.rows(cx, after, !oldest_first, ROWS_AT_ONCE)?;
        if rows.is_empty() {
            break;
        }
        looked_at += rows.len();
    }
    if oldest_first || archived == 0 {
        return Ok(AuditPage::whole(fill.end()));
    }
    // A run that begins where the cursor stands was read.
    let seen = seen.map_or(archived + 1, |seen| seen.min(archived + 1));
    match cold::next(cx, &fill.wanted, Some(seen), oldest_first)? {
        Next::In(chunk) => Ok(AuditPage { page: fill.end(), archived: Some(chunk) }),
        Next::Behind(seq) => {
            let mut page = fill.end();
            page.next = Some(write_cursor(seq));
            Ok(AuditPage::whole(page))
        }
        Next::Nowhere => Ok(AuditPage::whole(fill.end())),
    }
}

fn empty_until(seq: u64) -> Page {
    Page { next: Some(write_cursor(seq)), ..Page::default() }
}

/// The tenant's audit log.
#[derive(Debug, Clone)]
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
    type Reply = AuditPage;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<AuditPage, TenantError> {
        // A form's trail is short: the pointers to it spare reading the whole log.
        let source = self.filter.form.map_or(Source::All, Source::Form);
        list(cx, source, self.filter, &self.paging, self.oldest_first)
    }
}

impl AuditList for ListAudit {
    fn filter(&self) -> AuditFilter {
        self.filter.clone()
    }
    fn paging(&mut self) -> &mut Paging {
        &mut self.paging
    }
    fn is_oldest_first(&self) -> bool {
        self.oldest_first
    }
}

/// One form's part of the audit log: the same entries that the tenant's own feed has.
#[derive(Debug, Clone)]
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
    type Reply = AuditPage;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<AuditPage, TenantError> {
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

impl AuditList for ListFormAudit {
    fn filter(&self) -> AuditFilter {
        AuditFilter { form: Some(self.form), ..AuditFilter::default() }
    }
    fn paging(&mut self) -> &mut Paging {
        &mut self.paging
    }
    fn is_oldest_first(&self) -> bool {
        self.oldest_first
    }
}

/// One entry, by its sequence number.
#[derive(Debug, Clone, Copy)]
pub struct ReadEntry {
    /// Which.
    pub seq: u64,
}

/// Where an entry is.
#[derive(Debug)]
pub enum Found {
    /// Here.
    Here(Document),
    /// In the archive, in this run.
    Archived(Chunk),
}

/// An entry as a document. Entries never change, so there is only ever the first version.
pub(crate) fn document(entry: &Entry) -> Document {
    Document { version: 1, json: json(entry) }
}

impl Query for ReadEntry {
    type Action = ReadAudit;
    type Reply = Found;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Found, TenantError> {
        if self.seq <= cx.state().audit_archived {
            let chunk = cold::holding(cx, self.seq)?.ok_or(TenantError::NotFound)?;
            return Ok(Found::Archived(chunk));
        }
        let rows = Source::All.rows(cx, Some(self.seq.saturating_add(1)), true, 1)?;
        let mut entries = rows.into_iter().flat_map(|(_, entries)| entries);
        let entry = entries.find(|entry| entry.seq == self.seq).ok_or(TenantError::NotFound)?;
        Ok(Found::Here(document(&entry)))
    }
}

/// Checks some rows of the tenant's chain as its own feed shows them. Ask again from where the
/// answer ends until it is done ([`feed::verify`](crate::audit::feed::verify)); the log behind the feed
/// is checked by [`verify_tenant`](crate::audit::verify::verify_tenant).
#[derive(Debug, Clone, Copy)]
pub struct VerifyOwnAudit {
    /// Where the last step ended; [`AuditHead::NONE`] at first.
    pub from: AuditHead,
}

/// What one step of [`VerifyOwnAudit`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSome {
    /// The last entry that holds.
    pub head: AuditHead,
    /// Whether there is nothing left to check.
    pub is_done: bool,
    /// The first place that does not hold.
    pub broken: Option<Break>,
    /// The run in the archive that comes next.
    pub archived: Option<Chunk>,
}

impl VerifiedSome {
    /// All that can be said: the chain does not hold behind `head`.
    pub(crate) fn broken(head: AuditHead, broken: Break) -> Self {
        Self { head, is_done: true, broken: Some(broken), archived: None }
    }
}

impl Query for VerifyOwnAudit {
    type Action = ReadAudit;
    type Reply = VerifiedSome;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<VerifiedSome, TenantError> {
        let mut head = self.from;
        let archived = cx.state().audit_archived;
        if head.seq < archived {
            let seq = head.seq + 1;
            let chunk = cold::holding(cx, seq)?.filter(|chunk| chunk.first == seq);
            return Ok(match chunk {
                None => VerifiedSome::broken(head, Break { seq, what: Flaw::Missing }),
                found => VerifiedSome { head, is_done: false, broken: None, archived: found },
            });
        }
        // Rows begin at the sequence number after the one before ended, so `head` is a row's edge.
        let rows = Source::All.rows(cx, Some(head.seq), false, VERIFY_ROWS)?;
        let is_done = rows.len() < VERIFY_ROWS;
        for (_, entries) in rows {
            match chain::verify_entries(head, &entries) {
                Ok(next) => head = next,
                Err(broken) => return Ok(VerifiedSome::broken(head, broken)),
            }
        }
        match chain::verify_head(head, cx.state().audit) {
            Err(broken) if is_done => Ok(VerifiedSome::broken(head, broken)),
            _ => Ok(VerifiedSome { head, is_done, broken: None, archived: None }),
        }
    }
}

#[cfg(test)]
mod tests;
