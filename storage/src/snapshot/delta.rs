//! The delta: what a run of records changes, collected in memory before it meets a snapshot.
//!
//! Refuses: a record that does not follow the one before, or does not open.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::TenantId;
use crate::log::Tail;
use crate::record::Record;
use crate::seal::TenantKeys;
use crate::store::chain::Link;
use crate::txn::Value;

use super::{NO_STAMP, SnapshotError, SnapshotHeader};

/// What a map entry takes besides its key and value, roughly.
const ENTRY_BYTES: usize = 96;

/// New values by encoded key; nothing where the key is deleted.
pub(super) type Changes = BTreeMap<Arc<[u8]>, Option<Value>>;

/// What a run of one tenant's records changes.
pub struct Delta {
    tenant: Option<TenantId>,
    /// The end of the snapshot below, if there is one.
    base: Option<Tail>,
    link: Link,
    since_lsn: u64,
    at_min_ms: u64,
    at_max_ms: u64,
    changes: Changes,
    bytes: usize,
}

impl std::fmt::Debug for Delta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delta({} keys up to {})", self.changes.len(), self.link.lsn)
    }
}

impl Delta {
    /// No changes on top of a snapshot, or of nothing.
    pub fn from_base(base: Option<&SnapshotHeader>) -> Self {
        let tail = base.map(SnapshotHeader::tail);
        let Tail { lsn, epoch, hash } = tail.unwrap_or(Tail::EMPTY);
        Self {
            tenant: base.map(|header| header.tenant),
            base: tail,
            link: Link { lsn, hash, epoch },
            since_lsn: lsn,
            at_min_ms: NO_STAMP,
            at_max_ms: base.map_or(0, |header| header.at_max_ms),
            changes: Changes::new(),
            bytes: 0,
        }
    }

    /// No changes on top of a snapshot that is itself only a step on the way and not kept: what is
    /// made from it counts from where that one did.
    pub fn from_step(step: &SnapshotHeader) -> Self {
        Self { since_lsn: step.since_lsn, at_min_ms: step.at_min_ms, ..Self::from_base(Some(step)) }
    }

    /// Adds what the next record changes. After an error nothing was added.
    ///
    /// # Errors
    /// [`SnapshotError::Chain`] if it is not the next record of the keys' tenant,
    /// [`SnapshotError::Record`] if it does not open, [`SnapshotError::WrongTenant`] if the changes
    /// so far are another tenant's.
    pub fn absorb(&mut self, record: &Record, keys: &TenantKeys) -> Result<(), SnapshotError> {
        self.check_tenant(keys)?;
        let link = self.link.follow(keys.tenant(), record)?;
        let body = keys
            .open_record(link.lsn, link.epoch, &record.body)
            .map_err(|source| SnapshotError::Record { lsn: link.lsn, source })?;
        self.tenant = Some(keys.tenant());
        self.link = link;
        self.at_min_ms = self.at_min_ms.min(body.at_ms);
        self.at_max_ms = self.at_max_ms.max(body.at_ms);
        for op in body.ops {
            let key: Arc<[u8]> = op.key.into_vec().into();
            let value: Option<Value> = op.value.map(|value| value.into_vec().into());
            let value_bytes = value.as_ref().map_or(0, |value| value.len());
            self.bytes += value_bytes;
            let key_bytes = key.len();
            match self.changes.insert(key, value) {
                Some(before) => self.bytes -= before.map_or(0, |value| value.len()),
                None => self.bytes += key_bytes + ENTRY_BYTES,
            }
        }
        Ok(())
    }

    /// The end of the history the changes reach up to.
    pub fn tail(&self) -> Tail {
        Tail { lsn: self.link.lsn, epoch: self.link.epoch, hash: self.link.hash }
    }

    /// How much memory the changes take, roughly: what the caller bounds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys are written or deleted.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether no key is written or deleted.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The header of the snapshot that these changes make.
    pub fn header(&self, tenant: TenantId) -> SnapshotHeader {
        SnapshotHeader {
            tenant,
            lsn: self.link.lsn,
            epoch: self.link.epoch,
            head: self.link.hash,
            since_lsn: self.since_lsn,
            at_min_ms: self.at_min_ms,
            at_max_ms: self.at_max_ms,
        }
    }

    pub(super) fn check_tenant(&self, keys: &TenantKeys) -> Result<(), SnapshotError> {
        match self.tenant {
            Some(tenant) if tenant != keys.tenant() => Err(SnapshotError::WrongTenant { tenant }),
            _ => Ok(()),
        }
    }

    /// Whether the changes belong on top of that source of rows; a source without a header is
    /// believed to be the right one.
    pub(super) fn is_on_top_of(&self, source: Option<Option<&SnapshotHeader>>) -> bool {
        match (self.base, source) {
            (None, None) | (Some(_), Some(None)) => true,
            (Some(base), Some(Some(header))) => {
                base == header.tail() && self.tenant == Some(header.tenant)
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }
}
