//! A log whose older records rest in the archive: reads go on where the log itself ends.
//!
//! It changes nothing about writing, and never answers with a record that the archive merely claims to
//! have: what is read there is verified like what is read here.

use std::sync::Arc;

use crate::id::TenantId;
use crate::log::Appending;
use crate::log::CommitLog;
use crate::log::Health;
use crate::log::LogError;
use crate::log::LogStats;
use crate::log::SealedSegment;
use crate::log::Shortage;
use crate::log::Tail;
use crate::log::segment::cold::ColdSegments;
use crate::record::Record;

/// A log and the archive behind it.
pub struct ArchivedLog {
    log: Arc<dyn CommitLog>,
    cold: Arc<ColdSegments>,
}

impl ArchivedLog {
    /// Puts the archive behind the log.
    pub fn new(log: Arc<dyn CommitLog>, cold: Arc<ColdSegments>) -> Self {
        Self { log, cold }
    }
}

impl CommitLog for ArchivedLog {
    fn append(&self, record: Record) -> Appending {
        self.log.append(record)
    }
    fn tail(&self, tenant: TenantId) -> Result<Tail, LogError> {
        self.log.tail(tenant)
    }
    fn read_from(
        &self,
        tenant: TenantId,
        lsn: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        let first = match self.log.read_from(tenant, lsn, bytes_max) {
            Err(LogError::Truncated { first, .. }) => first,
            read => return read,
        };
        let mut records = self.cold.read_from(tenant, lsn, bytes_max)?;
        // From there on the log itself says what was. A log that was founded on a backup goes on from where
        // that ends; its archive may know more of the node that was lost.
        records.retain(|record| record.header.lsn < first);
        if !records.is_empty() {
            return Ok(records);
        }
        let cold = self.cold.first(tenant, first.saturating_sub(1));
        let cold = cold.map_err(|source| LogError::Archive { tenant, source })?;
        Err(LogError::Truncated { tenant, first: cold.unwrap_or(first) })
    }
    fn let_go(&self, tails: &[(TenantId, Tail)]) -> Result<(), LogError> {
        self.log.let_go(tails)
    }
    fn sealed(&self) -> Vec<SealedSegment> {
        self.log.sealed()
    }
    fn roll(&self) -> Result<(), LogError> {
        self.log.roll()
    }
    fn tenants(&self) -> Vec<TenantId> {
        self.log.tenants()
    }
    fn health(&self) -> Health {
        self.log.health()
    }
    fn shortage(&self) -> Option<Shortage> {
        self.log.shortage()
    }
    fn stats(&self) -> LogStats {
        self.log.stats()
    }
    fn repairs(&self) -> Vec<String> {
        self.log.repairs()
    }
    fn close(&self) {
        self.log.close();
    }
}
