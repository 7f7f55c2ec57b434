//! What a backup names of tenants' audit logs: the runs of entries that are in the archive, and that those
//! without a key were erased.
//!
//! Refuses: a run of entries with a gap before it, or that lacks one the backup before names; a key that is
//! gone without a receipt. A backup that went on would let the older ones go, which still have it.

use std::collections::BTreeMap;

use storage::archive::ObjectInfo;
use storage::id::TenantId;
use storage::snapshot::{HEADER_BYTES, SnapshotHeader};

use super::{BackupError, Work};
use crate::backup::manifest::{BackupManifest, ChunkRef, TenantRef};
use crate::backup::name::{AUDIT, ObjectName};
use crate::erasure::receipt;

impl Work<'_> {
    /// Sees to it that whoever has no key was erased.
    pub(super) fn check_erased(&self, tenants: &[TenantRef]) -> Result<(), BackupError> {
        let public_key = self.source.signer.public_key();
        for tenant in tenants.iter().filter(|tenant| tenant.key.is_none()) {
            let tenant = tenant.tenant;
            if receipt::find(self.archive, tenant, public_key)?.is_none() {
                return Err(BackupError::KeyMissing { tenant });
            }
        }
        Ok(())
    }

    /// Names the audit entries that are in the archive, but for those of erased tenants.
    pub(super) fn audit_chunks(&self, tenants: &mut [TenantRef]) -> Result<(), BackupError> {
        let mut there: BTreeMap<TenantId, Vec<(u64, ObjectInfo)>> = BTreeMap::new();
        for object in self.archive.list(AUDIT)? {
            if let Ok(ObjectName::AuditChunk { tenant, last, .. }) = object.name.parse() {
                there.entry(tenant).or_default().push((last, object));
            }
        }
        for tenant in tenants.iter_mut().filter(|tenant| tenant.key.is_some()) {
            let mut objects = there.remove(&tenant.tenant).unwrap_or_default();
            objects.sort_by_key(|(last, _)| *last);
            tenant.audit_chunks = self.chunks_of(tenant.tenant, objects)?;
        }
        Ok(())
    }

    /// The runs of one tenant, after a look whether any is missing.
    fn chunks_of(
        &self,
        tenant: TenantId,
        objects: Vec<(u64, ObjectInfo)>,
    ) -> Result<Vec<ChunkRef>, BackupError> {
        let known = self.catalog.newest().and_then(|backup: &BackupManifest| backup.tenant(tenant));
        let known: BTreeMap<&str, &ChunkRef> = known
            .into_iter()
            .flat_map(|tenant| &tenant.audit_chunks)
            .map(|chunk| (chunk.object.name.as_str(), chunk))
            .collect();
        let mut chunks: Vec<ChunkRef> = Vec::with_capacity(objects.len());
        let mut missing = known.clone();
        for (last, object) in objects {
            if let Some(chunk) = missing.remove(object.name.as_str()) {
                chunks.push((*chunk).clone());
                continue;
            }
            let before = self.before(&object.name)?;
            let follows = before == 0 || chunks.iter().any(|chunk| chunk.last == before);
            if !follows {
                let (first, name) = (chunks.last().map_or(0, |chunk| chunk.last) + 1, object.name);
                return Err(BackupError::Audit { tenant, first, name });
            }
            let object = self.sealed_rows(object.name, object.bytes, |prefix| {
                ObjectName::AuditChunk { tenant, last, prefix }
            })?;
            chunks.push(ChunkRef { last, object });
        }
        match missing.into_values().next() {
            Some(chunk) => {
                let before =
                    chunks.iter().map(|chunk| chunk.last).filter(|last| *last < chunk.last);
                let first = before.max().unwrap_or(0) + 1;
                Err(BackupError::Audit { tenant, first, name: chunk.object.name.clone() })
            }
            None => Ok(chunks),
        }
    }

    /// The entry that a run follows, as its header says.
    fn before(&self, name: &str) -> Result<u64, BackupError> {
        let bytes = self.archive.get_range(name, 0..HEADER_BYTES as u64)?;
        let header = SnapshotHeader::decode(&bytes);
        let damaged = |_| BackupError::Snapshot { name: name.to_owned() };
        Ok(header.map_err(damaged)?.since_lsn)
    }
}
