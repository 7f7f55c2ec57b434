//! The merge: rows of a snapshot and the changes behind it become the rows of a later one, streaming
//! in key order.
//!
//! Refuses: changes that were collected on top of another snapshot.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::io::{Read, Write};
use std::iter::Peekable;
use std::sync::Arc;

use crate::seal::TenantKeys;
use crate::txn::Value;

use super::{Delta, Row, SnapshotError, SnapshotHeader, SnapshotReader, SnapshotWriter, Summary};

/// How often a merge says how far it is, in rows.
const PROGRESS_ROWS: u64 = 1024;

/// Rows in rising key order.
pub trait RowSource {
    /// The next row; `None` only if all rows have come and are what they should be.
    fn next_row(&mut self) -> Result<Option<Row>, SnapshotError>;
    /// What the rows are a snapshot of, where that is known.
    fn header(&self) -> Option<&SnapshotHeader> {
        None
    }
}

impl<R: Read> RowSource for SnapshotReader<R> {
    fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        SnapshotReader::next_row(self)
    }
    fn header(&self) -> Option<&SnapshotHeader> {
        Some(SnapshotReader::header(self))
    }
}

/// Rows in memory; whoever puts them there sees to their order.
impl RowSource for std::vec::IntoIter<Row> {
    fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        Ok(self.next())
    }
}

impl<S: RowSource + ?Sized> RowSource for &mut S {
    fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        (**self).next_row()
    }
    fn header(&self) -> Option<&SnapshotHeader> {
        (**self).header()
    }
}

impl<S: RowSource + ?Sized> RowSource for Box<S> {
    fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        (**self).next_row()
    }
    fn header(&self) -> Option<&SnapshotHeader> {
        (**self).header()
    }
}

/// The rows of a base with a delta applied, without a file being made of them.
pub struct Merged<S> {
    base: Option<S>,
    /// The base's next row, read ahead to be compared.
    held: Option<Row>,
    changes: Peekable<btree_map::IntoIter<Arc<[u8]>, Option<Value>>>,
}

impl<S> std::fmt::Debug for Merged<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Merged(..)")
    }
}

impl<S: RowSource> Merged<S> {
    /// Puts `delta` on top of `base`.
    ///
    /// # Errors
    /// [`SnapshotError::WrongBase`] if the delta was begun on top of another snapshot, or of none.
    pub fn new(base: Option<S>, delta: Delta) -> Result<Self, SnapshotError> {
        if !delta.is_on_top_of(base.as_ref().map(RowSource::header)) {
            return Err(SnapshotError::WrongBase);
        }
        Ok(Self { base, held: None, changes: delta.into_changes().into_iter().peekable() })
    }

    /// Reads the base's next row ahead, unless one is held or there is none.
    fn hold(&mut self) -> Result<(), SnapshotError> {
        if self.held.is_none()
            && let Some(base) = &mut self.base
        {
            self.held = base.next_row()?;
            if self.held.is_none() {
                self.base = None;
            }
        }
        Ok(())
    }
}

impl<S: RowSource> RowSource for Merged<S> {
    fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        loop {
            self.hold()?;
            let order = match (&self.held, self.changes.peek()) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((held, _)), Some((changed, _))) => held.cmp(changed),
            };
            if order == Ordering::Less {
                return Ok(self.held.take());
            }
            if order == Ordering::Equal {
                self.held = None;
            }
            if let Some((key, Some(value))) = self.changes.next() {
                return Ok(Some((key, value)));
            }
        }
    }
}

/// Writes the snapshot that `delta` makes of `base` to `out`, and tells `progress` now and then, and in
/// the end, how many rows are written. Holds the delta and one chunk of each file.
///
/// # Errors
/// [`SnapshotError::WrongBase`] if the delta was begun on top of another snapshot; whatever reading
/// the base and writing may say. What was written to `out` is no snapshot then.
pub fn merge<W: Write>(
    base: Option<impl RowSource>,
    delta: Delta,
    keys: &TenantKeys,
    out: W,
    progress: &mut dyn FnMut(u64),
) -> Result<(Summary, W), SnapshotError> {
    delta.check_tenant(keys)?;
    let header = delta.header(keys.tenant());
    let mut merged = Merged::new(base, delta)?;
    let mut writer = SnapshotWriter::new(out, keys, header)?;
    let mut rows = 0_u64;
    while let Some((key, value)) = merged.next_row()? {
        writer.push(&key, &value)?;
        rows += 1;
        if rows.is_multiple_of(PROGRESS_ROWS) {
            progress(rows);
        }
    }
    let finished = writer.finish()?;
    progress(rows);
    Ok(finished)
}
