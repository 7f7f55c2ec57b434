//! Audit entries that rest in the archive: each run is there, whole, and follows the one before.
//!
//! Runs that moved while the records that say so were kept are met on the walk along those. The records of
//! older ones may be gone; what the tenant knows of them stands in its state, which is read here.
//!
//! Refuses: a state that names no run where there must be one.

use storage::history::HistoryError;
use storage::keys::Key;
use storage::record::GENESIS;
use storage::snapshot::RowSource as _;
use storage::store::Store;
use storage::value;

use super::{FirstBad, Walk};
use crate::audit::chunk::{self, Chunk, ChunkRow};
use crate::audit::feed;
use crate::tenant::state::AuditHead;

impl Walk<'_> {
    /// Reads a run: it has these entries, and they end where the run says. Where it begins.
    pub(super) fn look_into(&self, run: &Chunk) -> Result<AuditHead, String> {
        let (Some(keys), Some(archive)) = (&self.keys, self.archive) else {
            return Err("there is no archive with audit entries".to_owned());
        };
        let named = |what: String| format!("{}: {what}", run.row.object);
        let rows = chunk::entries(archive, keys, run);
        let rows = rows.map_err(|error| named(crate::tenant::error::chain(&error)))?;
        let before = rows.iter().flatten().next().and_then(|entry| {
            let mut hash = GENESIS;
            hex::decode_to_slice(&entry.prev, &mut hash).ok()?;
            Some(AuditHead { seq: entry.seq.checked_sub(1)?, hash })
        });
        let before = before.filter(|head| head.seq + 1 == run.first).unwrap_or(AuditHead::NONE);
        match feed::check(before, &rows, run.row.last) {
            Ok(_) => Ok(before),
            Err(broken) => Err(named(broken.to_string())),
        }
    }

    /// Checks the runs that the walk did not meet.
    pub(super) fn archived_before(&mut self, store: &Store) {
        let last = match self.archived {
            Some(last) if last > 0 && self.keys.is_some() && self.first_bad.is_none() => last,
            _ => return,
        };
        let mut end = AuditHead::NONE;
        let bad = match self.runs(store) {
            Ok(runs) => runs.into_iter().find_map(|run| {
                let before = std::mem::replace(&mut end, run.row.last);
                let what = self.check_run(before, &run).err()?;
                Some((before.seq + 1, what))
            }),
            Err(error) => Some((1, crate::tenant::error::chain(&error))),
        };
        let bad = bad.or_else(|| {
            let what = "the tenant does not know where its archived entries are".to_owned();
            (end.seq != last).then_some((end.seq + 1, what))
        });
        if let Some((seq, what)) = bad {
            self.first_bad = Some(FirstBad { seq, lsn: self.lsn, what });
        }
    }

    fn check_run(&self, before: AuditHead, run: &Chunk) -> Result<(), String> {
        if run.first != before.seq + 1 {
            return Err(format!("archived entries up to {} are not there", run.first - 1));
        }
        if self.met.contains(&run.first) {
            return Ok(());
        }
        match self.look_into(run)? == before {
            true => Ok(()),
            false => Err(format!("{}: its entries follow others", run.row.object)),
        }
    }

    /// The runs that the tenant knows of after the last record of the walk. Their rows come first in its
    /// state, so little of it is read.
    fn runs(&self, store: &Store) -> Result<Vec<Chunk>, HistoryError> {
        let (Some(history), Some(keys)) = (store.history(), &self.keys) else {
            return Ok(Vec::new());
        };
        let mut state = history.state_after(keys, self.lsn)?;
        let mut runs = Vec::new();
        while let Some((key, bytes)) = state.next_row()? {
            match Key::decode(&key) {
                Ok(Key::State {}) => {}
                Ok(Key::AuditChunk { first }) => {
                    // A row that does not read leaves a gap, which is told.
                    let row = value::decode::<ChunkRow>(&bytes).ok();
                    runs.extend(row.map(|row| Chunk { first, row }));
                }
                _ => break,
            }
        }
        Ok(runs)
    }
}
