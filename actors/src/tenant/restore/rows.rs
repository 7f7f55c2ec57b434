//! Two states side by side, row by row: what has to be written to make the one of the other.
//!
//! Both come in key order, so neither is held in memory. Refuses nothing: it only compares.

use std::cmp::Ordering;

use storage::history::PastState;
use storage::keys::{Key, Prefix};
use storage::shard::Shard;
use storage::snapshot::{RowSource, SnapshotError};
use storage::txn::{Scan, Value};

use crate::tenant::error::TenantError;
use crate::tenant::restore::is_timeless;

/// How much of the present state is read at a time.
const PAGE_BYTES: usize = 1 << 20;

/// One row of the difference: the key, its value now and the value it shall have.
pub struct Differing {
    /// The key.
    pub key: Key,
    /// What it has now.
    pub now: Option<Value>,
    /// What it shall have; nothing if it shall not be.
    pub then: Option<Value>,
}

/// The rows of a shard, in key order, page by page.
struct Present<'a> {
    shard: &'a Shard,
    page: std::vec::IntoIter<(Key, Value)>,
    after: Option<Key>,
    is_over: bool,
}

impl Present<'_> {
    fn next(&mut self) -> Result<Option<(Key, Value)>, TenantError> {
        loop {
            if let Some((key, value)) = self.page.next() {
                if is_timeless(&key) {
                    continue;
                }
                return Ok(Some((key, value)));
            }
            if self.is_over {
                return Ok(None);
            }
            let after = self.after.take();
            let scan = Scan { prefix: Prefix::all(), after, reverse: false, limit: usize::MAX };
            let rows = self.shard.scan_within(&scan, PAGE_BYTES)?;
            self.is_over = rows.is_empty();
            self.after = rows.last().map(|(key, _)| key.clone());
            self.page = rows.into_iter();
        }
    }
}

/// The rows in which the present state differs from a past one.
pub struct Difference<'a> {
    present: Present<'a>,
    past: PastState,
    now: Option<(Key, Value)>,
    then: Option<(Key, Value)>,
    is_primed: bool,
    seen: u64,
}

impl<'a> Difference<'a> {
    /// Compares what `shard` has with `past`.
    pub fn new(shard: &'a Shard, past: PastState) -> Self {
        let present = Present { shard, page: Vec::new().into_iter(), after: None, is_over: false };
        Self { present, past, now: None, then: None, is_primed: false, seen: 0 }
    }

    /// How many rows were compared.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    fn past_row(&mut self) -> Result<Option<(Key, Value)>, TenantError> {
        while let Some((key, value)) = self.past.next_row().map_err(unreadable)? {
            let key = Key::decode(&key).map_err(storage::store::StoreError::from)?;
            if !is_timeless(&key) {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    /// The next row that differs.
    pub fn next_row(&mut self) -> Result<Option<Differing>, TenantError> {
        if !self.is_primed {
            self.is_primed = true;
            (self.now, self.then) = (self.present.next()?, self.past_row()?);
        }
        loop {
            self.seen += 1;
            let order = match (&self.now, &self.then) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((now, _)), Some((then, _))) => now.cmp(then),
            };
            let mut now = None;
            let mut then = None;
            if order != Ordering::Greater {
                now = std::mem::replace(&mut self.now, self.present.next()?);
            }
            if order != Ordering::Less {
                let next = self.past_row()?;
                then = std::mem::replace(&mut self.then, next);
            }
            match (now, then) {
                (Some((_, now)), Some((_, then))) if now == then => {}
                (Some((key, now)), Some((_, then))) => {
                    return Ok(Some(Differing { key, now: Some(now), then: Some(then) }));
                }
                (Some((key, now)), None) => {
                    return Ok(Some(Differing { key, now: Some(now), then: None }));
                }
                (None, Some((key, then))) => {
                    return Ok(Some(Differing { key, now: None, then: Some(then) }));
                }
                (None, None) => return Ok(None),
            }
        }
    }
}

/// A past state that stops being readable midway.
pub(crate) fn unreadable(error: SnapshotError) -> TenantError {
    TenantError::Store(storage::history::HistoryError::from(error).into())
}
