//! Lists: bounded walks over rows, pages bounded in items and in bytes, and the opaque cursors that
//! continue them.
//!
//! Refuses: to look at more than [`limits::SCAN_ROWS_MAX`] rows for one page, and to put a further
//! item on a page that holds [`limits::PAGE_BYTES_MAX`] bytes. A page may then be short and still
//! have a next one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_bytes::ByteBuf;
use storage::id::Id;
use storage::keys::Key;
use storage::txn::Scan;

use crate::call::{Page, Paging};
use crate::limits;
use crate::tenant::cx::{Reads, Stored};
use crate::tenant::error::TenantError;

/// Rows read at a time at most.
pub(crate) const CHUNK_ROWS_MAX: usize = 256;
/// Bytes of rows read at a time: a chunk ends with the row that reaches this.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// What to do after a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look at the next one.
    Next,
    /// Stop.
    Stop,
}

/// How a walk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// There are no more rows, or the visitor stopped.
    Done,
    /// The bound was reached; this was the last row looked at.
    Bound(Key),
}

/// Shows the rows of `scan` to `visit`, in order, until it stops or the bound is reached. The scan's
/// limit is how many rows are likely to be wanted; those are read first, and more only while `visit`
/// goes on.
///
/// # Errors
/// Those of `visit`, and of reading rows.
pub(crate) fn walk<R: Reads>(
    cx: &R,
    mut scan: Scan,
    mut visit: impl FnMut(&Key, &Stored) -> Result<Step, TenantError>,
) -> Result<End, TenantError> {
    let mut looked_at = 0;
    let mut wanted = scan.limit.clamp(1, CHUNK_ROWS_MAX);
    loop {
        scan.limit = wanted.min(limits::SCAN_ROWS_MAX - looked_at);
        let rows = cx.rows_within(&scan, CHUNK_BYTES_MAX)?;
        let mut bytes_read = 0;
        for (key, bytes) in &rows {
            if visit(key, bytes)? == Step::Stop {
                return Ok(End::Done);
            }
            bytes_read += bytes.len();
        }
        let is_last = rows.len() < scan.limit && bytes_read < CHUNK_BYTES_MAX;
        looked_at += rows.len();
        match rows.into_iter().next_back() {
            Some((last, _)) if !is_last => {
                if looked_at >= limits::SCAN_ROWS_MAX {
                    return Ok(End::Bound(last));
                }
                scan.after = Some(last);
                wanted = (wanted * 2).min(CHUNK_ROWS_MAX);
            }
            _ => return Ok(End::Done),
        }
    }
}

/// A page in the making, of items in the order of their rows' ids.
#[derive(Debug)]
pub(crate) struct Pager<I> {
    limit: usize,
    page: Page,
    bytes: usize,
    last: Option<I>,
}

impl<I: Id> Pager<I> {
    /// An empty page of as many items as `paging` wants.
    pub(crate) fn new(paging: &Paging) -> Self {
        Self { limit: paging.limit, page: Page::default(), bytes: 0, last: None }
    }

    /// Rows that fill the page and tell whether another one follows.
    pub(crate) fn rows_wanted(&self) -> usize {
        self.limit.saturating_add(1)
    }

    /// Adds an item. One that finds the page full stays out, is not even made, and ends the page:
    /// it is the reason for the next one.
    ///
    /// # Errors
    /// Those of `json`.
    pub(crate) fn offer(
        &mut self,
        id: I,
        json: impl FnOnce() -> Result<ByteBuf, TenantError>,
    ) -> Result<Step, TenantError> {
        if self.page.items.len() >= self.limit || self.bytes >= limits::PAGE_BYTES_MAX {
            self.page.next = self.last.map(id_cursor::<I>);
            return Ok(Step::Stop);
        }
        let json = json()?;
        self.bytes = self.bytes.saturating_add(json.len());
        self.page.items.push(json);
        self.last = Some(id);
        Ok(Step::Next)
    }

    /// Ends the page early; the next one begins behind `id`.
    pub(crate) fn pause(&mut self, id: I) -> Step {
        self.page.next = Some(id_cursor(id));
        Step::Stop
    }

    /// The page. `bound` is where the walk gave up, if it did.
    pub(crate) fn close(mut self, bound: Option<I>) -> Page {
        if let Some(id) = bound {
            self.page.next = Some(id_cursor(id));
        }
        self.page
    }
}

/// A cursor with any content.
pub(crate) fn cursor(content: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(content)
}

/// A cursor that names a row by its id.
pub(crate) fn id_cursor<I: Id>(id: I) -> String {
    cursor(id.as_bytes())
}

/// The content of a cursor.
///
/// # Errors
/// `Invalid` at `query/cursor` if it is none of ours.
pub(crate) fn open_cursor(text: &str) -> Result<Vec<u8>, TenantError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| bad_cursor())
}

/// The id in a cursor made by [`id_cursor`].
///
/// # Errors
/// `Invalid` at `query/cursor` if it is none of ours.
pub(crate) fn open_id_cursor<I: Id>(text: Option<&str>) -> Result<Option<I>, TenantError> {
    let Some(text) = text else { return Ok(None) };
    let bytes: [u8; 16] = open_cursor(text)?.try_into().map_err(|_| bad_cursor())?;
    Ok(Some(I::from_bytes(bytes)))
}

/// The answer to a cursor that is none of ours.
pub(crate) fn bad_cursor() -> TenantError {
    TenantError::invalid("query/cursor", "is not a cursor of this list; start without one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::id::FormId;

    fn id(number: usize) -> FormId {
        FormId::new(u64::try_from(number).unwrap(), [0; 10])
    }

    /// How many items of `item_bytes` a page takes when `limit` are wanted, and where it says to go on.
    fn filled(limit: usize, item_bytes: usize) -> (usize, Option<String>) {
        let mut pager = Pager::new(&Paging { limit, cursor: None });
        let offered = (0..500).take_while(|number| {
            let item = || Ok(ByteBuf::from(vec![b' '; item_bytes]));
            pager.offer(id(*number), item).unwrap() == Step::Next
        });
        let taken = offered.count();
        let page = pager.close(None);
        assert_eq!(page.items.len(), taken);
        (taken, page.next)
    }

    #[test]
    fn a_page_ends_with_the_item_that_reaches_its_bytes() {
        assert_eq!(filled(200, 1), (200, Some(id_cursor(id(199)))));
        assert_eq!(filled(200, limits::PAGE_BYTES_MAX / 4), (4, Some(id_cursor(id(3)))));
        assert_eq!(filled(200, limits::PAGE_BYTES_MAX / 4 - 1), (5, Some(id_cursor(id(4)))));
    }

    #[test]
    fn a_page_has_one_item_however_large_it_is() {
        assert_eq!(filled(200, 2 * limits::PAGE_BYTES_MAX), (1, Some(id_cursor(id(0)))));
    }

    #[test]
    fn an_item_that_does_not_fit_is_not_made() {
        let mut pager = Pager::new(&Paging { limit: 1, cursor: None });
        assert_eq!(pager.offer(id(0), || Ok(ByteBuf::new())).unwrap(), Step::Next);
        let never = || -> Result<ByteBuf, TenantError> { panic!("it was made") };
        assert_eq!(pager.offer(id(1), never).unwrap(), Step::Stop);
    }
}
