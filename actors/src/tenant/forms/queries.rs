//! Reading one form, and listing the forms that a caller may know of.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;
use storage::id::{FormId, Id};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use super::glass::{FormRead, Reader};
use super::lists::{
    CHUNK_ROWS_MAX, End, Pager, Step, bad_cursor, cursor, open_cursor, open_id_cursor, walk,
};
use super::{FormHead, FormRow, FormStatus, to_json};
use crate::call::{Document, Page, Paging};
use crate::limits;
use crate::permit::ReadForms;
use crate::tenant::acl::{Caller, is_listed};
use crate::tenant::cx::{Query, ReadCx, Reads};
use crate::tenant::error::TenantError;

/// Reads one form.
#[derive(Debug)]
pub struct ReadForm {
    /// Which form.
    pub form: FormId,
}

impl FormRead for ReadForm {
    type Action = ReadForms;
    type Reply = Document;

    fn form(&self) -> FormId {
        self.form
    }

    fn read<R: Reads>(self, cx: &mut R, _: &Reader) -> Result<Document, TenantError> {
        let row: FormRow = cx.need(&Key::Form { id: self.form })?;
        Ok(Document { version: row.version, json: row.json })
    }
}

/// What a list of forms is ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FormOrder {
    /// When they were made.
    #[default]
    CreatedAt,
    /// When they last changed.
    UpdatedAt,
    /// Their titles, in lower case.
    Title,
}

impl FormOrder {
    /// Reads the `sort` parameter: `created_at`, `updated_at` or `title`, with `-` for the reverse.
    ///
    /// # Errors
    /// `Invalid` at `query/sort`.
    pub fn parse(text: &str) -> Result<(Self, bool), TenantError> {
        let (name, reverse) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let order = match name {
            "created_at" => Self::CreatedAt,
            "updated_at" => Self::UpdatedAt,
            "title" => Self::Title,
            _ => {
                let message =
                    "must be created_at, updated_at or title, with - before it to reverse";
                return Err(TenantError::invalid("query/sort", message));
            }
        };
        Ok((order, reverse))
    }

    /// What a form is placed by. The first byte tells the orders' cursors apart.
    fn place(self, id: FormId, head: &FormHead) -> Vec<u8> {
        let mut place = match self {
            Self::CreatedAt => vec![b'c'],
            Self::UpdatedAt => [&b"u"[..], &head.updated_ms.to_be_bytes()].concat(),
            Self::Title => [b"t", head.title.to_lowercase().as_bytes(), b"\0"].concat(),
        };
        place.extend_from_slice(id.as_bytes());
        place
    }
}

/// Lists forms. Restricted ones show only to those who may read them and to those who answer for
/// their access lists.
#[derive(Debug, Default)]
pub struct ListForms {
    /// Only these.
    pub status: Option<FormStatus>,
    /// Only titles that contain this, in any case.
    pub title_contains: Option<String>,
    /// The order.
    pub order: FormOrder,
    /// Last first.
    pub reverse: bool,
    /// Which part.
    pub paging: Paging,
}

impl Query for ListForms {
    type Action = ReadForms;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let filter = Filter {
            caller: Caller::with_all_teams(cx)?,
            status: self.status,
            title_contains: self.title_contains.as_deref().map(str::to_lowercase),
        };
        match self.order {
            FormOrder::CreatedAt => self.by_id(cx, &filter),
            FormOrder::UpdatedAt | FormOrder::Title => self.by_place(cx, &filter),
        }
    }
}

struct Filter {
    caller: Caller,
    status: Option<FormStatus>,
    title_contains: Option<String>,
}

impl Filter {
    fn takes(&self, head: &FormHead) -> bool {
        self.status.is_none_or(|status| status == head.status)
            && self.title_contains.as_ref().is_none_or(|it| head.title.to_lowercase().contains(it))
            && is_listed(&self.caller, &head.grants)
    }
}

fn all_forms() -> Prefix {
    Prefix::kind(&Key::Form { id: FormId::from_bytes([0; 16]) })
}

impl ListForms {
    /// In key order, which is the order they were made in: reads only what the page needs.
    fn by_id<R: Reads>(&self, cx: &R, filter: &Filter) -> Result<Page, TenantError> {
        let after = open_id_cursor(self.paging.cursor.as_deref())?.map(|id| Key::Form { id });
        let mut pager = Pager::new(&self.paging);
        let (reverse, limit) = (self.reverse, pager.rows_wanted());
        let scan = Scan { prefix: all_forms(), after, reverse, limit };
        let end = walk(cx, scan, |key, bytes| {
            let Key::Form { id } = *key else { return Ok(Step::Next) };
            let head: FormHead = value::decode(bytes)?;
            if !filter.takes(&head) {
                return Ok(Step::Next);
            }
            pager.offer(id, || Ok(to_json(&head.summary(id))))
        })?;
        Ok(pager.close(match end {
            End::Bound(Key::Form { id }) => Some(id),
            _ => None,
        }))
    }

    /// In another order: looks at every form and keeps the page's worth that comes first. Titles are
    /// short, so as many of them as a page may have stay far below a page's bytes.
    fn by_place<R: Reads>(&self, cx: &R, filter: &Filter) -> Result<Page, TenantError> {
        let after = self.paging.cursor.as_deref().map(open_cursor).transpose()?;
        let tag = if self.order == FormOrder::Title { b't' } else { b'u' };
        if after.as_ref().is_some_and(|place| place.first() != Some(&tag)) {
            return Err(bad_cursor());
        }
        let mut first: BTreeMap<Vec<u8>, ByteBuf> = BTreeMap::new();
        let scan = Scan { limit: CHUNK_ROWS_MAX, ..Scan::all(all_forms()) };
        let end = walk(cx, scan, |key, bytes| {
            let Key::Form { id } = *key else { return Ok(Step::Next) };
            let head: FormHead = value::decode(bytes)?;
            let place = self.order.place(id, &head);
            let is_behind = after
                .as_ref()
                .is_none_or(|after| if self.reverse { place < *after } else { place > *after });
            if is_behind && filter.takes(&head) {
                first.insert(place, to_json(&head.summary(id)));
                if first.len() > self.paging.limit + 1 {
                    if self.reverse {
                        first.pop_first()
                    } else {
                        first.pop_last()
                    };
                }
            }
            Ok(Step::Next)
        })?;
        if matches!(end, End::Bound(_)) {
            let message =
                format!("only created_at sorts more than {} forms", limits::SCAN_ROWS_MAX);
            return Err(TenantError::invalid("query/sort", message));
        }
        let mut sorted: Vec<_> = first.into_iter().collect();
        if self.reverse {
            sorted.reverse();
        }
        let has_more = sorted.len() > self.paging.limit;
        sorted.truncate(self.paging.limit);
        let next = sorted.last().filter(|_| has_more).map(|(place, _)| cursor(place));
        Ok(Page { items: sorted.into_iter().map(|(_, json)| json).collect(), next })
    }
}
