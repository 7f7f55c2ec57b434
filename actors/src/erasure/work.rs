//! The work of an erasure that blocks: on the key store, the log's index and the archive.
//!
//! Refuses: to read anything of the tenant, so that its size makes no difference; and a receipt while a copy
//! of the key may be left in the archive.

use std::collections::HashSet;
use std::sync::Arc;

use storage::anchor_log::AnchorLog;
use storage::archive::{Archive, ArchiveError};
use storage::id::TenantId;
use storage::keystore::KeyError;
use storage::log::segment::cold::ColdSegment;
use storage::store::{Store, StoreError};

use super::ErasureError;
use super::receipt::{
    self, AnchoredRef, ErasureReceipt, HOW, KeptObjects, RemovedObjects, SignedReceipt,
};
use super::row::ErasureRow;
use crate::audit::note::NoteSigner;
use crate::backup::digest::Digest;
use crate::backup::name::{AUDIT, KEYS, SNAPSHOTS};

/// Directory of the archive with exported bundles, one directory a tenant.
const EXPORTS: &str = "exports";

/// What of an erasure can be told before it.
pub(super) struct Ending {
    last_lsn: u64,
    last_record: Digest,
    anchored: Option<AnchoredRef>,
}

/// The receipts of those tenants that have no key.
pub(super) fn orphans(
    store: &Store,
    signer: &NoteSigner,
    open: &HashSet<TenantId>,
) -> Result<Vec<SignedReceipt>, ErasureError> {
    let Some(cold) = store.cold() else { return Ok(Vec::new()) };
    let archive = &**cold.archive();
    let mut found = Vec::new();
    for object in archive.list(receipt::ERASURES)? {
        let Some(tenant) = receipt::tenant_of(&object.name).filter(|id| open.contains(id)) else {
            continue;
        };
        if !store.keystore().contains(tenant).map_err(StoreError::from)? {
            found.extend(receipt::find(archive, tenant, signer.public_key())?);
        }
    }
    Ok(found)
}

/// Where the history ended. Reads the log's own index and the anchors, no record.
pub(super) fn ending(
    store: &Store,
    anchors: &AnchorLog,
    tenant: TenantId,
) -> Result<Ending, ErasureError> {
    let tail = store.log().tail(tenant)?;
    let anchored = anchors.anchored(tenant).filter(|anchored| anchored.leaf.lsn <= tail.lsn);
    Ok(Ending {
        last_lsn: tail.lsn,
        last_record: Digest(tail.hash),
        anchored: anchored.map(|anchored| AnchoredRef {
            checkpoint: anchored.checkpoint,
            lsn: anchored.leaf.lsn,
            record: Digest(anchored.leaf.record),
            audit_seq: anchored.leaf.audit_seq,
            audit: Digest(anchored.leaf.audit),
        }),
    })
}

/// Destroys the key, unless that was done before a crash. Nothing of the tenant is read for it.
pub(super) fn destroy(store: &Store, tenant: TenantId) -> Result<(), StoreError> {
    match store.keystore().destroy(tenant) {
        Err(KeyError::Missing { .. }) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Drops rows that nobody can read any more, and exports that were being written when the node died; in
/// the background.
pub(super) fn drop_views(store: Arc<Store>, tenants: Vec<TenantId>) {
    let _goes_on = tokio::task::spawn_blocking(move || {
        for tenant in tenants {
            let archive = store.cold().map(|cold| &**cold.archive());
            if let Some(Err(error)) = archive.map(|archive| remove_all(archive, EXPORTS, tenant)) {
                tracing::warn!(tenant.id = %tenant, %error, "an erased tenant's exports are not looked for");
            }
            if let Err(error) = store.rebuild_view(tenant) {
                tracing::warn!(tenant.id = %tenant, %error, "unreadable rows stay until the next start");
            }
        }
    });
}

/// Removes what carries the key out of the node, then keeps the receipt in the archive. If one is there
/// already, a crash came in between, and it stands.
pub(super) fn clear_and_sign(
    store: &Store,
    signer: &NoteSigner,
    tenant: TenantId,
    begun: &ErasureRow,
    ending: Ending,
    now_ms: u64,
) -> Result<SignedReceipt, ErasureError> {
    let cold = store.cold();
    let archive = cold.map(|cold| &**cold.archive());
    let (mut kept, mut removed) = (KeptObjects::default(), RemovedObjects::default());
    if let (Some(cold), Some(archive)) = (cold, archive) {
        removed.keys = remove_all(archive, KEYS, tenant)?;
        removed.exports = remove_all(archive, EXPORTS, tenant)?;
        if let Some(found) = receipt::find(archive, tenant, signer.public_key())? {
            return Ok(found);
        }
        kept.snapshots = archive.list(&format!("{SNAPSHOTS}/{tenant}"))?.len() as u64;
        kept.audit_chunks = archive.list(&format!("{AUDIT}/{tenant}"))?.len() as u64;
        let segments = cold.list()?;
        let is_its = |segment: &&_| holds(segment, tenant);
        kept.segments = segments.iter().filter(is_its).count() as u64;
    }
    let receipt = ErasureReceipt {
        format: receipt::FORMAT,
        tenant,
        origin: signer.name().to_owned(),
        requested_ms: begun.requested_ms,
        // The clock may have been set back meanwhile.
        erased_ms: now_ms.max(begun.requested_ms),
        reason: begun.reason.clone(),
        forced: begun.forced,
        how: HOW.to_owned(),
        last_lsn: ending.last_lsn,
        last_record: ending.last_record,
        anchored: ending.anchored,
        kept,
        removed,
    };
    let signed = SignedReceipt::sign(receipt, signer)?;
    if let Some(archive) = archive {
        archive.put(&receipt::object_name(tenant), signed.to_bytes())?;
    }
    Ok(signed)
}

fn holds(segment: &Arc<ColdSegment>, tenant: TenantId) -> bool {
    segment.tenants.contains_key(&tenant)
}

/// Removes every object of a tenant in a directory of the archive; says how many there were.
fn remove_all(
    archive: &dyn Archive,
    directory: &str,
    tenant: TenantId,
) -> Result<u64, ArchiveError> {
    let objects = archive.list(&format!("{directory}/{tenant}"))?;
    objects.iter().try_for_each(|object| archive.remove(&object.name))?;
    Ok(objects.len() as u64)
}
