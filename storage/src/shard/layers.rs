//! Merging layers of rows: a transaction over what is pending over the view.
//!
//! Refuses: nothing; it only decides which layer's row is seen.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use super::pending::Pending;
use crate::txn::{Overlay, Value};
use crate::view::Rows;

/// A row of an overlay: its key, and its value unless it is deleted.
pub(crate) type LayerRow<'a> = (&'a [u8], Option<&'a Value>);

type Layer<'a> = Peekable<Box<dyn Iterator<Item = LayerRow<'a>> + 'a>>;

/// The rows of two overlays in the order of a scan; the upper one hides the lower one.
pub(crate) struct Layers<'a> {
    upper: Layer<'a>,
    lower: Layer<'a>,
    reverse: bool,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(upper: Option<&'a Overlay>, lower: &'a Pending, rows: &Rows) -> Self {
        let bounds = (Bound::Included(rows.start.as_slice()), Bound::Excluded(rows.end.as_slice()));
        let upper = upper
            .map(|overlay| overlay.range::<[u8], _>(bounds))
            .into_iter()
            .flatten()
            .map(|(key, value)| (&**key, value.as_ref()));
        let lower = lower
            .rows
            .range::<[u8], _>(bounds)
            .map(|(key, row): (&Arc<[u8]>, _)| (&**key, row.value.as_ref()));
        Self {
            upper: directed(upper, rows.reverse),
            lower: directed(lower, rows.reverse),
            reverse: rows.reverse,
        }
    }

    /// Whether `a` comes before, at or after `b` in the order of the scan.
    fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.reverse { b.cmp(a) } else { a.cmp(b) }
    }

    /// The next row if it comes before `key`.
    pub(crate) fn next_before(&mut self, key: &[u8]) -> Option<LayerRow<'a>> {
        let next = self.peek()?;
        if self.compare(next, key).is_lt() { self.next() } else { None }
    }

    /// The next row if it is at `key`.
    pub(crate) fn next_at(&mut self, key: &[u8]) -> Option<LayerRow<'a>> {
        if self.peek()? == key { self.next() } else { None }
    }

    fn peek(&mut self) -> Option<&'a [u8]> {
        let upper = self.upper.peek().map(|(key, _)| *key);
        let lower = self.lower.peek().map(|(key, _)| *key);
        match (upper, lower) {
            (Some(upper), Some(lower)) if self.compare(lower, upper).is_lt() => Some(lower),
            (Some(upper), _) => Some(upper),
            (None, lower) => lower,
        }
    }
}

impl<'a> Iterator for Layers<'a> {
    type Item = LayerRow<'a>;

    fn next(&mut self) -> Option<LayerRow<'a>> {
        let key = self.peek()?;
        let hidden = self.lower.next_if(|(lower, _)| *lower == key);
        self.upper.next_if(|(upper, _)| *upper == key).or(hidden)
    }
}

fn directed<'a>(
    rows: impl DoubleEndedIterator<Item = LayerRow<'a>> + 'a,
    reverse: bool,
) -> Layer<'a> {
    let rows: Box<dyn Iterator<Item = LayerRow<'a>> + 'a> =
        if reverse { Box::new(rows.rev()) } else { Box::new(rows) };
    rows.peekable()
}
