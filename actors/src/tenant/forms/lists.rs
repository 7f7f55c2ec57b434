//! Lists: bounded walks over rows, and the opaque cursors that continue them.
//!
//! Refuses: to look at more than [`limits::SCAN_ROWS_MAX`] rows for one page. A page may then be
//! short and still have a next one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use storage::id::Id;
use storage::keys::{Key, Prefix};
use storage::txn::Scan;

use crate::limits;
use crate::tenant::cx::{Reads, Stored};
use crate::tenant::error::TenantError;

/// Rows read at a time.
const CHUNK_ROWS: usize = 256;

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

/// Shows the rows of a run to `visit`, in order, until it stops or the bound is reached.
pub(crate) fn walk<R: Reads>(
    cx: &R,
    prefix: Prefix,
    after: Option<Key>,
    reverse: bool,
    mut visit: impl FnMut(&Key, &Stored) -> Result<Step, TenantError>,
) -> Result<End, TenantError> {
    let mut scan = Scan { prefix, after, reverse, limit: CHUNK_ROWS };
    let mut looked_at = 0;
    loop {
        let rows = cx.rows(&scan)?;
        let is_last = rows.len() < scan.limit;
        for (key, bytes) in &rows {
            if visit(key, bytes)? == Step::Stop {
                return Ok(End::Done);
            }
        }
        looked_at += rows.len();
        match rows.into_iter().next_back() {
            Some((last, _)) if !is_last => {
                if looked_at >= limits::SCAN_ROWS_MAX {
                    return Ok(End::Bound(last));
                }
                scan.after = Some(last);
            }
            _ => return Ok(End::Done),
        }
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
