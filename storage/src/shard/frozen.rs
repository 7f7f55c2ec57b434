//! A frozen shard: rows of one tenant as they were once, in memory, to be read like a live shard.
//!
//! It has no log, no view and no owner, so nothing can be written to it. Values are in clear, as they
//! are in any read; dropping it forgets them.
//!
//! Refuses: to take more bytes than it is allowed, and rows that do not come in key order.

use std::ops::ControlFlow;

use crate::id::TenantId;
use crate::keys::{Key, KeyError};
use crate::log::Tail;
use crate::seal::TenantKeys;
use crate::snapshot::{Row, RowSource, SnapshotError};
use crate::store::StoreError;
use crate::txn::{Scan, Value};

use super::{Found, Shard};

/// What a row takes beside its key and its value: two pointers with lengths, two reference counts.
const ROW_OVERHEAD_BYTES: usize = 64;

/// Why rows cannot be frozen.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// They take more memory than is allowed.
    #[error("the rows take more than {bytes_max} bytes")]
    TooLarge {
        /// How much is allowed.
        bytes_max: usize,
    },
    /// They cannot be read to their end.
    #[error(transparent)]
    Unreadable(#[from] SnapshotError),
    /// A key is none of this release.
    #[error("a stored key cannot be read")]
    Key(#[from] KeyError),
}

/// Reading one tenant's rows, live or frozen.
pub trait Readable {
    /// Whose rows these are.
    fn tenant(&self) -> TenantId;
    /// The tenant's keys.
    fn keys(&self) -> &TenantKeys;
    /// Reads a value.
    ///
    /// # Errors
    /// If it cannot be read or does not authenticate.
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError>;
    /// Reads the rows of a run until their values have `bytes_max` bytes in clear; the row that
    /// reaches the bound is the last one. At least one row if there is any.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    fn scan_within(&self, scan: &Scan, bytes_max: usize) -> Result<Vec<(Key, Value)>, StoreError>;
    /// Reads the rows of a run.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Value)>, StoreError> {
        self.scan_within(scan, usize::MAX)
    }
}

impl Readable for Shard {
    fn tenant(&self) -> TenantId {
        Shard::tenant(self)
    }
    fn keys(&self) -> &TenantKeys {
        Shard::keys(self)
    }
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        Shard::get(self, key)
    }
    fn scan_within(&self, scan: &Scan, bytes_max: usize) -> Result<Vec<(Key, Value)>, StoreError> {
        Shard::scan_within(self, scan, bytes_max)
    }
}

/// One tenant's rows as they were after one record.
pub struct Frozen {
    keys: TenantKeys,
    tail: Tail,
    /// In key order.
    rows: Vec<Row>,
    bytes: usize,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frozen({} at {})", self.keys.tenant(), self.tail.lsn)
    }
}

impl Frozen {
    /// Takes the rows that are wanted, up to about `bytes_max` bytes of memory. `source` is read to
    /// its end, which proves that its rows are whole; they are those after the record `tail`.
    ///
    /// # Errors
    /// [`FreezeError::TooLarge`] as soon as the bound is passed; whatever reading says.
    pub fn of(
        keys: TenantKeys,
        tail: Tail,
        mut source: impl RowSource,
        is_wanted: impl Fn(&Key) -> bool,
        bytes_max: usize,
    ) -> Result<Self, FreezeError> {
        let mut frozen = Self { keys, tail, rows: Vec::new(), bytes: 0 };
        while let Some((key, value)) = source.next_row()? {
            if !is_wanted(&Key::decode(&key)?) {
                continue;
            }
            // Looking a key up relies on it.
            if frozen.rows.last().is_some_and(|(last, _)| *last >= key) {
                return Err(SnapshotError::KeysOutOfOrder.into());
            }
            frozen.bytes += key.len() + value.len() + ROW_OVERHEAD_BYTES;
            if frozen.bytes > bytes_max {
                return Err(FreezeError::TooLarge { bytes_max });
            }
            frozen.rows.push((key, value));
        }
        frozen.rows.shrink_to_fit();
        Ok(frozen)
    }

    /// The record after which the rows were so.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The place of the first row whose key is not below `key`.
    fn place(&self, key: &[u8]) -> usize {
        self.rows.partition_point(|(other, _)| **other < *key)
    }
}

impl Readable for Frozen {
    fn tenant(&self) -> TenantId {
        self.keys.tenant()
    }
    fn keys(&self) -> &TenantKeys {
        &self.keys
    }
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        let key = key.encode();
        let row = self.rows.get(self.place(&key)).filter(|(other, _)| **other == *key);
        Ok(row.map(|(_, value)| Value::clone(value)))
    }
    fn scan_within(&self, scan: &Scan, bytes_max: usize) -> Result<Vec<(Key, Value)>, StoreError> {
        let Some(bounds) = scan.rows() else { return Ok(Vec::new()) };
        let mut found =
            Found { rows: Vec::new(), limit: scan.limit, bytes: 0, bytes_max, failed: None };
        let run = &self.rows[self.place(&bounds.start)..self.place(&bounds.end)];
        let mut add = |(key, value): &Row| found.add(key, Some(value));
        // However it ended, what was found says why.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) = if bounds.reverse {
            run.iter().rev().try_for_each(&mut add)
        } else {
            run.iter().try_for_each(&mut add)
        };
        match found.failed {
            Some(error) => Err(error),
            None => Ok(found.rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FormId, Id, TeamId};
    use crate::keys::Prefix;
    use crate::log::{Appended, contract::wait};
    use crate::seal::{DataKey, SystemRandom};
    use crate::store::Store;

    fn keys() -> TenantKeys {
        let tenant = TenantId::from_bytes([1; 16]);
        TenantKeys::new(tenant, &DataKey::generate(&SystemRandom).unwrap())
    }

    fn form(n: u8) -> Key {
        Key::Form { id: FormId::from_bytes([n; 16]) }
    }

    fn team(n: u8) -> Key {
        Key::Team { id: TeamId::from_bytes([n; 16]) }
    }

    fn row(key: &Key, value: &[u8]) -> Row {
        (key.encode().into(), value.into())
    }

    fn freeze(rows: Vec<Row>, bytes_max: usize) -> Result<Frozen, FreezeError> {
        Frozen::of(keys(), Tail::EMPTY, rows.into_iter(), |_| true, bytes_max)
    }

    /// Everything that can be asked of both, asked of both.
    fn alike(live: &dyn Readable, frozen: &dyn Readable) {
        for n in 0..=6 {
            for key in [form(n), team(n)] {
                assert_eq!(live.get(&key).unwrap(), frozen.get(&key).unwrap(), "{key:?}");
            }
        }
        let afters =
            (0..=6).map(|n| Some(form(n))).chain([None, Some(team(3)), Some(Key::State {})]);
        for after in afters {
            for prefix in [Prefix::all(), Prefix::kind(&form(0)), Prefix::kind(&team(0))] {
                for (reverse, limit, bytes_max) in
                    [(false, 9, usize::MAX), (true, 9, usize::MAX), (false, 2, 9), (true, 9, 3)]
                {
                    let scan =
                        Scan { prefix: prefix.clone(), after: after.clone(), reverse, limit };
                    let (live, frozen) =
                        (live.scan_within(&scan, bytes_max), frozen.scan_within(&scan, bytes_max));
                    assert_eq!(live.unwrap(), frozen.unwrap(), "{scan:?} {bytes_max}");
                }
            }
        }
    }

    #[test]
    fn a_frozen_shard_answers_as_the_live_one_does() {
        let store = Store::in_memory().unwrap();
        let tenant = TenantId::from_bytes([1; 16]);
        store.create_tenant(tenant).unwrap();
        let mut shard = store.own_shard(tenant).unwrap();
        let mut rows = Vec::new();
        let mut txn = shard.txn();
        for key in [form(1), form(2), form(5), team(1), team(3)] {
            let value = key.encode()[..3].to_vec();
            rows.push(row(&key, &value));
            txn.put(&key, value).unwrap();
        }
        let sealed = shard.seal(txn.finish(), 1).unwrap();
        assert_eq!(wait(shard.append(&sealed)), Appended::Durable);
        shard.confirm(sealed);
        alike(&shard, &freeze(rows, usize::MAX).unwrap());
    }

    #[test]
    fn rows_beyond_the_bound_are_refused() {
        let rows = vec![row(&form(1), &[0; 100]), row(&form(2), &[0; 100])];
        let bytes = freeze(rows.clone(), usize::MAX).unwrap().bytes();
        assert!(bytes >= 234);
        assert!(freeze(rows.clone(), bytes).is_ok());
        let refused = freeze(rows, bytes - 1);
        assert!(
            matches!(refused, Err(FreezeError::TooLarge { bytes_max }) if bytes_max == bytes - 1)
        );
    }

    #[test]
    fn rows_that_nobody_wants_take_no_memory() {
        let rows = vec![row(&form(1), &[0; 9]), row(&team(1), &[0; 9_000])];
        let is_form = |key: &Key| matches!(key, Key::Form { .. });
        let frozen = Frozen::of(keys(), Tail::EMPTY, rows.into_iter(), is_form, 200).unwrap();
        assert_eq!(frozen.scan(&Scan::all(Prefix::all())).unwrap().len(), 1);
    }

    #[test]
    fn rows_out_of_order_are_refused() {
        for second in [form(1), form(2)] {
            let rows = vec![row(&form(2), b"x"), row(&second, b"y")];
            let refused = freeze(rows, usize::MAX).unwrap_err();
            assert!(matches!(refused, FreezeError::Unreadable(SnapshotError::KeysOutOfOrder)));
        }
    }
}
