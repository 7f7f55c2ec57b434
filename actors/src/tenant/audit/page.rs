//! Which entries are wanted, and a page of them in the making.
//!
//! A page is filled row by row, wherever the rows come from: the view, or a run of entries in the
//! archive. Refuses: a cursor that is none.

use serde_bytes::ByteBuf;
use storage::id::FormId;

use crate::audit::chunk::ChunkRow;
use crate::audit::entry::{Detail, Entry, Outcome};
use crate::call::{Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::tenant::error::TenantError;
use crate::tenant::forms::lists::{bad_cursor, cursor, open_cursor};

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
pub(crate) struct Wanted {
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

    /// Whether a run of entries may have any that is wanted, by what is known of it without reading it.
    pub fn may_be_in(&self, row: &ChunkRow) -> bool {
        let is_named = |form: FormId| {
            row.forms.as_ref().is_none_or(|forms| forms.binary_search(&form).is_ok())
        };
        self.filter.form.is_none_or(is_named)
            && self.from.as_ref().is_none_or(|from| row.until >= *from)
            && self.until.as_ref().is_none_or(|until| row.from < *until)
    }
}

/// A page that is being filled.
pub(crate) struct Fill {
    /// Which entries it takes.
    pub wanted: Wanted,
    /// The entry that the page before ended with.
    pub seen: Option<u64>,
    oldest_first: bool,
    limit: usize,
    page: Page,
    /// The last entry looked at.
    edge: Option<u64>,
}

impl Fill {
    /// An empty page.
    pub fn new(
        filter: AuditFilter,
        paging: &Paging,
        oldest_first: bool,
    ) -> Result<Self, TenantError> {
        let seen = paging.cursor.as_deref().map(read_cursor).transpose()?;
        Ok(Self {
            wanted: filter.into(),
            seen,
            oldest_first,
            limit: paging.limit.clamp(1, limits::PAGE_MAX),
            page: Page::default(),
            edge: seen,
        })
    }

    /// Takes what is wanted of a row. Answers whether the page is full: then it says where to go on.
    pub fn take(&mut self, mut entries: Vec<Entry>) -> bool {
        if !self.oldest_first {
            entries.reverse();
        }
        self.edge = entries.last().map(|entry| entry.seq);
        for entry in entries {
            let is_behind = self.seen.is_none_or(|seen| match self.oldest_first {
                true => entry.seq > seen,
                false => entry.seq < seen,
            });
            if !is_behind || !self.wanted.takes(&entry) {
                continue;
            }
            self.page.items.push(json(&entry));
            if self.page.items.len() == self.limit {
                self.page.next = Some(write_cursor(entry.seq));
                return true;
            }
        }
        false
    }

    /// The page, with nothing behind it unless it is full.
    pub fn end(self) -> Page {
        self.page
    }

    /// The page, with more behind the last entry that was looked at.
    pub fn pause(mut self) -> Page {
        self.page.next = self.edge.map(write_cursor);
        self.page
    }
}

pub(crate) fn json(entry: &Entry) -> ByteBuf {
    ByteBuf::from(serde_json::to_vec(entry).expect("an entry holds only texts, integers and flags"))
}

/// The cursor behind an entry.
pub(crate) fn write_cursor(seq: u64) -> String {
    cursor(&seq.to_be_bytes())
}

fn read_cursor(text: &str) -> Result<u64, TenantError> {
    let bytes = open_cursor(text)?;
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| bad_cursor())?))
}
