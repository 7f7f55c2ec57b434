//! The transaction: an overlay over one shard, in which a batch of commands takes shape.
//!
//! Reads see the overlay, then what is durable. Nothing leaves the overlay until
//! [`Txn::finish`] turns it into [`Changes`], and those become one record. A command that fails
//! goes back to its [`Savepoint`] and leaves nothing, not even in the byte count.
//!
//! Refuses: to write anything anywhere, and to see another tenant.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::keys::{Key, Prefix};
use crate::shard::Shard;
use crate::store::StoreError;
use crate::view::Rows;

/// A value in clear, shared between the layers that hold it.
pub type Value = Arc<[u8]>;

/// Encoded keys and their new values; nothing where the key is deleted.
pub(crate) type Overlay = BTreeMap<Arc<[u8]>, Option<Value>>;

/// Which rows to read, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Only keys of this run.
    pub prefix: Prefix,
    /// Begin behind this key, in the order of the scan; the key itself is left out.
    pub after: Option<Key>,
    /// From the last key to the first.
    pub reverse: bool,
    /// At most so many rows.
    pub limit: usize,
}

impl Scan {
    /// Every row of a run, in key order.
    pub fn all(prefix: Prefix) -> Self {
        Self { prefix, after: None, reverse: false, limit: usize::MAX }
    }

    /// The run's bounds; nothing if there is nothing to read.
    pub(crate) fn rows(&self) -> Option<Rows> {
        let mut start = self.prefix.as_bytes().to_vec();
        let mut end = successor(&start);
        if start.is_empty() {
            // Behind the view's own row, which is no key.
            start.push(1);
        }
        match self.after.as_ref().map(Key::encode) {
            None => {}
            Some(after) if self.reverse => end = end.min(after),
            Some(mut after) => {
                after.push(0); // the first key behind it
                start = start.max(after);
            }
        }
        let rows = Rows { start, end, reverse: self.reverse };
        (rows.start < rows.end && self.limit > 0).then_some(rows)
    }
}

/// The first bytes behind all that start with `prefix`.
fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if last < u8::MAX {
            bytes.push(last + 1);
            return bytes;
        }
    }
    // No tag is 0xff, so this is behind every key.
    vec![u8::MAX]
}

/// A point to go back to. Valid for the transaction that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savepoint(usize);

/// What one overlay write replaced.
#[derive(Debug)]
struct Undo {
    key: Arc<[u8]>,
    /// The overlay's entry before, if it had one.
    before: Option<Option<Value>>,
    /// What the write added to the byte count.
    bytes: i64,
}

/// What a transaction would change, in key order, each key once.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub(crate) ops: Overlay,
    stored_bytes_delta: i64,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
    /// How many keys are written or deleted.
    pub fn len(&self) -> usize {
        self.ops.len()
    }
    /// By how many bytes the tenant's counted rows grow.
    pub fn stored_bytes_delta(&self) -> i64 {
        self.stored_bytes_delta
    }
    /// The keys written or deleted, in order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        // Every key of an overlay was encoded from a `Key`.
        self.ops.keys().filter_map(|bytes| Key::decode(bytes).ok())
    }
}

/// An overlay over one shard's durable state.
#[derive(Debug)]
pub struct Txn<'a> {
    shard: &'a Shard,
    overlay: Overlay,
    undo: Vec<Undo>,
    stored_bytes_delta: i64,
    written_bytes: usize,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(shard: &'a Shard) -> Self {
        Self {
            shard,
            overlay: Overlay::new(),
            undo: Vec::new(),
            stored_bytes_delta: 0,
            written_bytes: 0,
        }
    }

    /// The shard below.
    pub fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// Reads a value as this transaction sees it.
    pub fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        let key = key.encode();
        match self.overlay.get(&key[..]) {
            Some(written) => Ok(written.clone()),
            None => self.shard.get_encoded(&key),
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// Only if the row's size before must be known and cannot be read; then nothing is written.
    pub fn put(&mut self, key: &Key, value: Vec<u8>) -> Result<(), StoreError> {
        self.write(key.encode(), Some(value.into()))
    }

    /// Deletes a key; one that is not there stays so.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn delete(&mut self, key: &Key) -> Result<(), StoreError> {
        self.write(key.encode(), None)
    }

    /// Reads the rows of a run as this transaction sees them.
    pub fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Value)>, StoreError> {
        self.shard.scan_under(scan, usize::MAX, Some(&self.overlay))
    }

    /// As [`scan`](Self::scan), bounded like [`Shard::scan_within`].
    pub fn scan_within(
        &self,
        scan: &Scan,
        bytes_max: usize,
    ) -> Result<Vec<(Key, Value)>, StoreError> {
        self.shard.scan_under(scan, bytes_max, Some(&self.overlay))
    }

    /// Marks this point.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// Undoes every write since `savepoint`. Savepoints nest; those taken after it are void.
    pub fn rollback(&mut self, savepoint: Savepoint) {
        while self.undo.len() > savepoint.0
            && let Some(undo) = self.undo.pop()
        {
            self.stored_bytes_delta -= undo.bytes;
            match undo.before {
                Some(before) => self.overlay.insert(undo.key, before),
                None => self.overlay.remove(&undo.key),
            };
        }
    }

    /// By how many bytes of key and value in clear the tenant's counted rows grow (or shrink, if
    /// negative) by what was written so far.
    pub fn stored_bytes_delta(&self) -> i64 {
        self.stored_bytes_delta
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.overlay.is_empty()
    }

    /// Bytes of keys and values of all writes so far, rolled back ones included: when to end a batch.
    pub fn written_bytes(&self) -> usize {
        self.written_bytes
    }

    /// Ends the transaction.
    pub fn finish(self) -> Changes {
        Changes { ops: self.overlay, stored_bytes_delta: self.stored_bytes_delta }
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Value>) -> Result<(), StoreError> {
        self.written_bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
        let bytes = if Key::is_counted(key[0]) {
            let before = match self.overlay.get(&key[..]) {
                Some(written) => written.as_ref().map(|value| value.len()),
                None => self.shard.value_bytes(&key)?,
            };
            let row_bytes = |value: Option<usize>| value.map_or(0, |bytes| row_bytes(&key, bytes));
            row_bytes(value.as_ref().map(|value| value.len())) - row_bytes(before)
        } else {
            0
        };
        self.stored_bytes_delta += bytes;
        let key: Arc<[u8]> = key.into();
        let before = match self.overlay.entry(Arc::clone(&key)) {
            Entry::Occupied(mut entry) => Some(entry.insert(value)),
            Entry::Vacant(entry) => {
                entry.insert(value);
                None
            }
        };
        self.undo.push(Undo { key, before, bytes });
        Ok(())
    }
}

/// What a row counts towards the `storage_bytes` quota.
fn row_bytes(key: &[u8], value_bytes: usize) -> i64 {
    i64::try_from(key.len() + value_bytes).expect("no allocation is larger than i64::MAX")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FormId, Id};

    #[test]
    fn the_successor_is_behind_every_key_of_the_run_and_no_other() {
        assert_eq!(successor(b"f"), b"g");
        assert_eq!(successor(&[b'f', 0xff]), b"g");
        assert_eq!(successor(&[b'f', 1, 0xff, 0xff]), [b'f', 2]);
        assert_eq!(successor(&[0xff]), [0xff]);
    }

    #[test]
    fn a_cursor_outside_the_run_reads_nothing_or_all_of_it() {
        let form = |n| Key::Form { id: FormId::from_bytes([n; 16]) };
        let scan = |after, reverse| Scan {
            prefix: Prefix::kind(&form(0)),
            after: Some(after),
            reverse,
            limit: 9,
        };
        assert_eq!(scan(Key::State {}, true).rows(), None);
        assert_eq!(scan(Key::Audit { seq: 1 }, true).rows(), None);
        let last = Key::User { id: crate::id::UserId::from_bytes([0; 16]) };
        assert_eq!(scan(last.clone(), false).rows(), None);
        assert_eq!(scan(last, true).rows().unwrap().end, b"g");
        assert_eq!(scan(form(3), false).rows().unwrap().end, b"g");
    }
}
