//! Reading one submission, and listing those of a form.
//!
//! Submission ids begin with the time they were made, so both orders and the time filters are
//! ranges of keys. A list of one author's submissions walks that author's pointers instead, which
//! is also what a customer's list does: it never touches, or hints at, anybody else's.

use storage::id::{FormId, Id, SubmissionId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use super::{Place, SubmissionHead, SubmissionRow, SubmissionStatus};
use crate::call::{Document, Page, Paging};
use crate::limits;
use crate::permit::ReadSubmissions;
use crate::tenant::cx::{Reads, Stored};
use crate::tenant::error::TenantError;
use crate::tenant::forms::glass::{FormRead, Reader};
use crate::tenant::forms::lists::{End, Pager, Step, open_id_cursor, walk};

/// The last millisecond an id can hold (the year 10889).
const ID_MS_MAX: u64 = (1 << 48) - 1;

/// Reads one submission.
#[derive(Debug)]
pub struct ReadSubmission {
    /// Which submission.
    pub at: Place,
}

impl FormRead for ReadSubmission {
    type Action = ReadSubmissions;
    type Reply = Document;

    fn form(&self) -> FormId {
        self.at.form
    }

    fn read<R: Reads>(self, cx: &mut R, reader: &Reader) -> Result<Document, TenantError> {
        let row: SubmissionRow = cx.need(&self.at.key())?;
        row.check_visible(reader.caller())?;
        Ok(Document { version: row.version, json: row.json })
    }
}

/// Which submissions are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubmissionFilter {
    /// Only these.
    pub status: Option<SubmissionStatus>,
    /// Only this person's.
    pub created_by: Option<UserId>,
    /// Only those made later, Unix milliseconds.
    pub created_after_ms: Option<u64>,
    /// Only those made earlier, Unix milliseconds.
    pub created_before_ms: Option<u64>,
}

/// Lists a form's submissions; a customer's list holds only their own.
#[derive(Debug)]
pub struct ListSubmissions {
    /// Of which form.
    pub form: FormId,
    /// Which ones.
    pub filter: SubmissionFilter,
    /// Newest first.
    pub reverse: bool,
    /// Which part.
    pub paging: Paging,
}

impl ListSubmissions {
    /// Reads the `sort` parameter, `created_at` or `-created_at`: whether newest come first.
    ///
    /// # Errors
    /// `Invalid` at `query/sort`.
    pub fn parse_sort(text: &str) -> Result<bool, TenantError> {
        match text {
            "created_at" => Ok(false),
            "-created_at" => Ok(true),
            _ => Err(TenantError::invalid("query/sort", "must be created_at or -created_at")),
        }
    }
}

/// A range of ids, both ends outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: SubmissionId,
    high: SubmissionId,
}

impl Range {
    fn new(filter: &SubmissionFilter, cursor: Option<SubmissionId>, reverse: bool) -> Self {
        let mut low = filter.created_after_ms.map_or(SubmissionId::from_bytes([0; 16]), |ms| {
            SubmissionId::new(ms.min(ID_MS_MAX), [u8::MAX; 10])
        });
        let mut high =
            filter.created_before_ms.map_or(SubmissionId::from_bytes([u8::MAX; 16]), |ms| {
                SubmissionId::new(ms.min(ID_MS_MAX), [0; 10])
            });
        match cursor {
            Some(cursor) if reverse => high = high.min(cursor),
            Some(cursor) => low = low.max(cursor),
            None => {}
        }
        Self { low, high }
    }

    fn start(self, reverse: bool) -> SubmissionId {
        if reverse { self.high } else { self.low }
    }

    fn has(self, id: SubmissionId) -> bool {
        self.low < id && id < self.high
    }
}

/// Collects a page from the rows of a walk.
struct Collect<'q> {
    wanted: &'q ListSubmissions,
    range: Range,
    pager: Pager<SubmissionId>,
    dropped_bytes: usize,
}

impl Collect<'_> {
    fn offer(&mut self, id: SubmissionId, bytes: &Stored) -> Result<Step, TenantError> {
        if let Some(status) = self.wanted.filter.status {
            let head: SubmissionHead = value::decode(bytes)?;
            if head.status != status {
                self.dropped_bytes += bytes.len();
                let is_enough = self.dropped_bytes >= limits::SCAN_BYTES_MAX;
                return Ok(if is_enough { self.pager.pause(id) } else { Step::Next });
            }
        }
        self.pager.offer(id, || Ok(value::decode::<SubmissionRow>(bytes)?.json))
    }

    fn scan(&self, start: Key) -> Scan {
        let limit = self.pager.rows_wanted();
        let prefix = Prefix::owner(&start);
        Scan { prefix, after: Some(start), reverse: self.wanted.reverse, limit }
    }

    fn close(self, end: &End) -> Page {
        self.pager.close(match end {
            End::Bound(Key::Submission { id, .. } | Key::Authored { id, .. }) => Some(*id),
            _ => None,
        })
    }
}

impl FormRead for ListSubmissions {
    type Action = ReadSubmissions;
    type Reply = Page;

    fn form(&self) -> FormId {
        self.form
    }

    fn read<R: Reads>(self, cx: &mut R, reader: &Reader) -> Result<Page, TenantError> {
        let cursor = open_id_cursor(self.paging.cursor.as_deref())?;
        let range = Range::new(&self.filter, cursor, self.reverse);
        let pager = Pager::new(&self.paging);
        let collect = Collect { wanted: &self, range, pager, dropped_bytes: 0 };
        if !reader.caller().is_customer() {
            return match self.filter.created_by {
                Some(author) => of_author(cx, author, collect),
                None => of_everyone(cx, collect),
            };
        }
        let own = reader.caller().user.ok_or(TenantError::StaleCredential)?;
        match self.filter.created_by {
            Some(author) if author != own => Ok(Page::default()),
            _ => of_author(cx, own, collect),
        }
    }
}

fn of_everyone<R: Reads>(cx: &R, mut collect: Collect<'_>) -> Result<Page, TenantError> {
    let (form, reverse) = (collect.wanted.form, collect.wanted.reverse);
    let start = Key::Submission { form, id: collect.range.start(reverse) };
    let end = walk(cx, collect.scan(start), |key, bytes| match *key {
        Key::Submission { id, .. } if collect.range.has(id) => collect.offer(id, bytes),
        _ => Ok(Step::Stop),
    })?;
    Ok(collect.close(&end))
}

fn of_author<R: Reads>(
    cx: &R,
    author: UserId,
    mut collect: Collect<'_>,
) -> Result<Page, TenantError> {
    let (form, reverse) = (collect.wanted.form, collect.wanted.reverse);
    let start = Key::Authored { user: author, form, id: collect.range.start(reverse) };
    let end = walk(cx, collect.scan(start), |key, _| match *key {
        Key::Authored { form: of, id, .. } if of == form && collect.range.has(id) => {
            // A pointer and its row come and go in one record.
            match cx.bytes(&Place { form, id }.key())? {
                Some(bytes) => collect.offer(id, &bytes),
                None => Ok(Step::Next),
            }
        }
        _ => Ok(Step::Stop),
    })?;
    Ok(collect.close(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_filters_leave_their_own_millisecond_out() {
        let filter = SubmissionFilter {
            created_after_ms: Some(10),
            created_before_ms: Some(12),
            ..SubmissionFilter::default()
        };
        let range = Range::new(&filter, None, false);
        assert!(!range.has(SubmissionId::new(10, [7; 10])));
        assert!(range.has(SubmissionId::new(11, [7; 10])));
        assert!(!range.has(SubmissionId::new(12, [7; 10])));
    }

    #[test]
    fn a_cursor_narrows_the_side_that_was_read() {
        let cursor = SubmissionId::new(5, [1; 10]);
        let up = Range::new(&SubmissionFilter::default(), Some(cursor), false);
        let down = Range::new(&SubmissionFilter::default(), Some(cursor), true);
        assert_eq!((up.low, down.high), (cursor, cursor));
        assert!(up.has(SubmissionId::new(6, [0; 10])) && !down.has(cursor));
    }
}
