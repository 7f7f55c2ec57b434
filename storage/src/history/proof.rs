//! Which snapshots are believed: those whose header is proven under the tenant's key.
//!
//! A header travels in clear, so whoever can write to the archive could plant one that lies about its place
//! in the history or its time. Each chunk is sealed to the header; so it is believed once the first chunk
//! opened, and only if it says what the object's name says. What was proven is remembered, for an object
//! never changes.
//!
//! Refuses, with a line in the log: whatever was not sealed by this tenant, or lies behind its last record.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{History, HistoryError, Kept};
use crate::archive::{ArchiveError, ObjectInfo};
use crate::id::TenantId;
use crate::seal::TenantKeys;
use crate::snapshot::{self, SnapshotError, SnapshotHeader, SnapshotReader};

/// What is known of a snapshot.
#[derive(Clone, Copy)]
struct Proof {
    /// The header if it is proven, nothing if it lies.
    header: Option<SnapshotHeader>,
    /// Whether this process made it.
    is_ours: bool,
}

/// What is known of snapshots, by object name.
#[derive(Default)]
pub(super) struct Proofs(Mutex<HashMap<String, Proof>>);

impl Proofs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Proof>> {
        // Single entries are put in and taken out, so a poisoned lock still guards a sound table.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot was made here.
    pub(super) fn made(&self, name: &str, header: SnapshotHeader) {
        self.lock().insert(name.to_owned(), Proof { header: Some(header), is_ours: true });
    }
}

impl History {
    /// A tenant's snapshots in the archive, by rising LSN. One that is not proven to be the tenant's, and
    /// of a record that it has, is left out.
    pub fn snapshots(&self, keys: &TenantKeys) -> Result<Vec<Kept>, HistoryError> {
        self.kept(keys.tenant(), Some(keys))
    }

    /// Those of a tenant's snapshots that were proven before, for whoever has no key now.
    pub fn proven_snapshots(&self, tenant: TenantId) -> Result<Vec<Kept>, HistoryError> {
        self.kept(tenant, None)
    }

    fn kept(&self, tenant: TenantId, keys: Option<&TenantKeys>) -> Result<Vec<Kept>, HistoryError> {
        let mut kept = Vec::new();
        for object in self.archive.list(&snapshot::folder_name(tenant))? {
            let Some((whose, lsn)) = snapshot::parse_name(&object.name) else { continue };
            let known = self.proofs.lock().get(&object.name).copied();
            let header = match (known, keys) {
                (Some(known), _) => known.header,
                (None, Some(keys)) if whose == tenant => self.prove(&object, lsn, keys)?,
                (None, _) => None,
            };
            kept.extend(header.map(|header| Kept {
                name: object.name,
                bytes: object.bytes,
                modified_ms: object.modified_ms,
                header,
            }));
        }
        // After the list: what is in it is of a record that was durable by then.
        let last = self.log.tail(tenant)?.lsn;
        kept.retain(|kept| kept.header.lsn <= last);
        kept.sort_by_key(|kept| kept.header.lsn);
        Ok(kept)
    }

    /// The header of a snapshot, if the tenant sealed it and it is where its name says.
    fn prove(
        &self,
        object: &ObjectInfo,
        lsn: u64,
        keys: &TenantKeys,
    ) -> Result<Option<SnapshotHeader>, HistoryError> {
        let name = &object.name;
        let input = match self.archive.open(name) {
            Ok(input) => input,
            // Removed since it was listed.
            Err(ArchiveError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let read = SnapshotReader::open(input, keys).and_then(|mut reader| {
            reader.next_row()?;
            Ok(*reader.header())
        });
        let proven = match read {
            Ok(header) if header.lsn == lsn => Some(header),
            Ok(_) => {
                tracing::error!(object = name, "a snapshot is passed over: its name is another's");
                None
            }
            Err(error) if is_of_its_bytes(&error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(object = name, error, "a snapshot is passed over");
                None
            }
            Err(error) => return Err(error.into()),
        };
        self.proofs.lock().insert(name.clone(), Proof { header: proven, is_ours: false });
        Ok(proven)
    }

    /// Forgets a snapshot that was removed from the archive.
    pub fn forget(&self, name: &str) {
        self.proofs.lock().remove(name);
    }

    /// The tenant's newest whole snapshot up to `lsn`. Reads it, and whatever newer one is not whole.
    pub fn newest_snapshot(
        &self,
        keys: &TenantKeys,
        lsn: u64,
    ) -> Result<Option<Kept>, HistoryError> {
        let mut snapshots = self.snapshots(keys)?;
        snapshots.retain(|kept| kept.header.lsn <= lsn);
        while let Some(kept) = snapshots.pop() {
            if self.is_whole(&kept, keys)? {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    /// Whether a snapshot that a backup is to name is whole. One that this process made is, and is not read.
    pub fn can_be_named(&self, kept: &Kept, keys: &TenantKeys) -> Result<bool, HistoryError> {
        let is_ours = self.proofs.lock().get(&kept.name).is_some_and(|proof| proof.is_ours);
        Ok(is_ours || self.is_whole(kept, keys)?)
    }

    /// Whether every row of a snapshot opens and its hash is the one in its name.
    pub fn is_whole(&self, kept: &Kept, keys: &TenantKeys) -> Result<bool, HistoryError> {
        let read = self.open_snapshot(kept, keys).and_then(|mut reader| {
            while reader.next_row()?.is_some() {}
            Ok(reader.summary().map(|summary| summary.content))
        });
        let name = |content| snapshot::object_name(keys.tenant(), kept.header.lsn, &content);
        match read {
            Ok(content) => Ok(content.map(name).as_ref() == Some(&kept.name)),
            Err(HistoryError::Snapshot(error)) if is_of_its_bytes(&error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(object = kept.name, error, "a snapshot is passed over");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says that the bytes are not those of a snapshot of the tenant.
fn is_of_its_bytes(error: &SnapshotError) -> bool {
    matches!(
        error,
        SnapshotError::Damaged { .. }
            | SnapshotError::WrongTenant { .. }
            | SnapshotError::Sealed(_)
            | SnapshotError::KeysOutOfOrder
    )
}
