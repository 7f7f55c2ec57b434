//! What is durable but not yet in the view: a shard's answers for the moment between.
//!
//! Refuses: to forget a row before the view has it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::txn::{Overlay, Value};

/// What a row costs beside its bytes: map node, reference counts, entry in the record's list.
const ROW_OVERHEAD_BYTES: usize = 112;

#[derive(Debug)]
pub(crate) struct PendingRow {
    lsn: u64,
    pub(crate) value: Option<Value>,
}

/// The rows of the newest records, until the view has them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) rows: BTreeMap<Arc<[u8]>, PendingRow>,
    /// Which keys each record wrote, oldest first.
    records: VecDeque<(u64, Vec<Arc<[u8]>>)>,
    bytes: usize,
}

fn cost(key: &[u8], value: Option<&Value>) -> usize {
    key.len() + value.map_or(0, |value| value.len()) + ROW_OVERHEAD_BYTES
}

impl Pending {
    /// The durable value of a key, if a record here wrote or deleted it.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Option<Value>> {
        self.rows.get(key).map(|row| &row.value)
    }

    /// Adds the writes of a record newer than all before.
    pub(crate) fn add(&mut self, lsn: u64, ops: &Overlay) {
        for (key, value) in ops {
            self.bytes += cost(key, value.as_ref());
            let row = PendingRow { lsn, value: value.clone() };
            if let Some(before) = self.rows.insert(Arc::clone(key), row) {
                self.bytes -= cost(key, before.value.as_ref());
            }
        }
        self.records.push_back((lsn, ops.keys().cloned().collect()));
    }

    /// Forgets what the view has since it applied `applied`.
    pub(crate) fn prune(&mut self, applied: u64) {
        while let Some((lsn, keys)) = self.records.pop_front_if(|(lsn, _)| *lsn <= applied) {
            for key in keys {
                if self.rows.get(&key).is_some_and(|row| row.lsn == lsn)
                    && let Some(row) = self.rows.remove(&key)
                {
                    self.bytes -= cost(&key, row.value.as_ref());
                }
            }
        }
        if self.records.is_empty() {
            // A burst must not keep its room for ever.
            self.records.shrink_to_fit();
        }
    }

    /// About how much memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(rows: &[(&str, Option<&str>)]) -> Overlay {
        let value = |value: &str| Value::from(value.as_bytes());
        rows.iter().map(|(key, written)| (key.as_bytes().into(), written.map(value))).collect()
    }

    #[test]
    fn a_row_stays_until_its_newest_record_is_applied() {
        let mut pending = Pending::default();
        pending.add(1, &ops(&[("a", Some("1")), ("b", Some("1"))]));
        pending.add(2, &ops(&[("a", None)]));
        pending.prune(1);
        assert_eq!(pending.get(b"a"), Some(&None), "a newer write went with an older record");
        assert_eq!(pending.get(b"b"), None);
        pending.prune(2);
        assert_eq!(pending.get(b"a"), None);
        assert_eq!((pending.bytes(), pending.rows.len()), (0, 0));
    }
}
