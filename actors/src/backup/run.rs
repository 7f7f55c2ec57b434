//! Taking a backup of an open node, while it serves.
//!
//! In this order, so that nothing named later is behind what was named before: the anchors are copied;
//! each tenant gets a snapshot where the records since the last one are many; the wrapped keys are copied;
//! the log's growing segment is completed and everything complete archived. Each tenant's end is its last
//! record that is archived by then; the audit entries that rest in the archive are looked for after that. The
//! manifest comes last: without it there is no backup, and what was put by then is of use to the next.
//!
//! Blocks. Refuses: to name a tenant whose records up to its end are not all there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use storage::anchor_log::AnchorLogError;
use storage::archive::{Archive, ArchiveError};
use storage::disk::CopyFile;
use storage::history::HistoryError;
use storage::id::{BackupId, TenantId};
use storage::keystore::KeyError;
use storage::keystore::copy::tenant_of;
use storage::keystore::source::KekId;
use storage::log::segment::cold::ColdSegment;
use storage::log::{CommitLog, LogError, Tail};
use storage::scratch;
use storage::store::StoreError;

use super::bundle::BundleWriter;
use super::catalog::{self, Catalog};
use super::digest::Digest;
use super::manifest::{
    AuditRef, BackupManifest, FORMAT, ObjectRef, SegmentRef, SnapshotRef, TailRef, TenantRef,
};
use super::name::{KEYS, ObjectName};
use super::pace::{Pace, Rest};
use super::signed::{Signed, SignedError};
use super::{Source, Tell, Told};
use crate::archivist::pass::{PassError, archive_sealed};

mod audit;

/// A tenant with so many records since its newest snapshot gets a new one.
pub const SNAPSHOT_RECORDS: u64 = 4096;
/// Bytes at the end of a snapshot that hold its digest.
const SNAPSHOT_TRAILER_BYTES: u64 = 32;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The node has no archive.
    #[error("the node has no archive")]
    NoArchive,
    /// The archive does not take or give something.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What is complete cannot be archived.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A tenant's history cannot be read, or no snapshot of it taken.
    #[error("{tenant} cannot be backed up")]
    Tenant {
        /// Which.
        tenant: TenantId,
        /// Why not.
        source: HistoryError,
    },
    /// Records of a tenant are neither in the log nor in the archive.
    #[error("{tenant} cannot be backed up: record {lsn} of it is missing")]
    Gap {
        /// Whose.
        tenant: TenantId,
        /// The first of them.
        lsn: u64,
    },
    /// A tenant's key is gone, and nothing says that it was erased.
    #[error(
        "the key of {tenant} is missing from the key store, and there is no receipt of an erasure: put its file \
         back (an earlier backup has it); if it is being erased just now, try again"
    )]
    KeyMissing {
        /// Whose.
        tenant: TenantId,
    },
    /// Audit entries of a tenant are not in the archive any more.
    #[error(
        "{tenant} cannot be backed up: the archive lacks its audit entries from {first} on: {name}"
    )]
    Audit {
        /// Whose.
        tenant: TenantId,
        /// The first entry that is missing.
        first: u64,
        /// The object that is missing, or the one that comes after what is.
        name: String,
    },
    /// A snapshot's name does not go with its content.
    #[error("{name} is damaged")]
    Snapshot {
        /// The object.
        name: String,
    },
    /// The growing segment cannot be completed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The wrapped keys cannot be copied.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The anchor log cannot be copied.
    #[error(transparent)]
    Anchors(#[from] AnchorLogError),
    /// The directory for work on the way cannot be used.
    #[error("{} cannot be used", path.display())]
    Scratch {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The manifest cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignedError),
}

/// Takes a backup. `note` is what a person says about it.
pub fn run(
    source: &Source,
    note: Option<String>,
    tell: Tell<'_>,
) -> Result<BackupManifest, BackupError> {
    let cold = source.store.cold().ok_or(BackupError::NoArchive)?;
    let archive = &**cold.archive();
    let catalog = catalog::read(archive, &source.signer.verifier())?;
    for (name, what) in &catalog.damaged {
        tracing::warn!(object = name, what, "a backup is not believed, so nothing is tidied away");
    }
    let id: BackupId = source.env.new_id();
    let taken_ms = source.env.now_ms();
    let work = Work { source, archive, catalog: &catalog, pace: Pace::new(source) };

    tell(Told::Step { name: "copying anchors", total: 0 });
    let anchors = work.put_bundle(ObjectName::Anchors(id), |writer, failed| {
        source.anchors.copy_files(&mut |name, bytes| writer.add(name, bytes).map_err(failed))
    })?;
    let mut tenants = work.tenants(tell)?;
    let mut keks = BTreeSet::new();
    let keys = work.put_bundle(ObjectName::Keys(id), |writer, failed| {
        keks = work.keys(
            &mut tenants,
            &mut |name, bytes| writer.add(name, bytes).map_err(failed),
            tell,
        )?;
        Ok(())
    })?;
    work.check_erased(&tenants)?;
    tell(Told::Step { name: "archiving the log", total: 0 });
    work.pace.step(Rest::Long, || source.store.log().roll())?;
    work.pace.step(Rest::Long, || archive_sealed(&source.store))?;
    let archived = cold.list()?;
    extend(&**source.store.log(), &mut tenants, &archived)?;
    // After the ends of the tenants, whose states speak of nothing that is not there by now.
    work.audit_chunks(&mut tenants)?;
    let segments = work.segments(&archived, &tenants, tell)?;

    tell(Told::Step { name: "signing", total: 0 });
    let mut manifest = BackupManifest {
        format: FORMAT,
        id,
        origin: source.signer.name().to_owned(),
        region: source.region.clone(),
        taken_ms,
        // The clock may have been set back meanwhile.
        finished_ms: source.env.now_ms().max(taken_ms),
        note,
        store_format: storage::store::FORMAT,
        base: catalog.newest().map(|newest| newest.id),
        new_bytes: 0,
        total_bytes: 0,
        tenants,
        segments,
        keys,
        keks: keks.iter().map(ToString::to_string).collect(),
        anchors,
    };
    manifest.total_bytes = manifest.objects().map(|object| object.bytes).sum();
    manifest.new_bytes = new_bytes(&manifest, catalog.newest());
    let signed = Signed::sign(manifest, &source.signer)?;
    let name = ObjectName::Manifest(id).to_string();
    archive.put(&name, signed.to_bytes())?;
    Ok(signed.claimed().clone())
}

/// Bytes of the objects that the backup before does not name.
fn new_bytes(manifest: &BackupManifest, base: Option<&BackupManifest>) -> u64 {
    let known: BTreeSet<&str> =
        base.iter().flat_map(|base| base.objects()).map(|object| object.name.as_str()).collect();
    let is_new = |object: &&ObjectRef| !known.contains(object.name.as_str());
    manifest.objects().filter(is_new).map(|object| object.bytes).sum()
}

struct Work<'a> {
    source: &'a Source,
    archive: &'a dyn Archive,
    catalog: &'a Catalog,
    pace: Pace<'a>,
}

type ToError<'a> = &'a dyn Fn(io::Error) -> BackupError;

impl Work<'_> {
    /// Writes a bundle beside the data, then puts it into the archive.
    fn put_bundle(
        &self,
        name: ObjectName,
        fill: impl FnOnce(&mut BundleWriter<scratch::Output>, ToError<'_>) -> Result<(), BackupError>,
    ) -> Result<ObjectRef, BackupError> {
        let file = self.source.scratch_file();
        let failed = |source| BackupError::Scratch { path: file.path().to_owned(), source };
        if let Some(parent) = file.path().parent() {
            scratch::make_dir(parent).map_err(failed)?;
        }
        let out = scratch::create(file.path()).map_err(failed)?;
        let mut writer = BundleWriter::new(out).map_err(failed)?;
        fill(&mut writer, &failed)?;
        let (out, sha256, bytes) = writer.finish().map_err(failed)?;
        drop(out);
        let name = name.to_string();
        self.pace.step(Rest::Long, || self.archive.put_file(&name, file.path()))?;
        Ok(ObjectRef { name, sha256, bytes })
    }

    /// Where each tenant's history ends, and its newest snapshot.
    fn tenants(&self, tell: Tell<'_>) -> Result<Vec<TenantRef>, BackupError> {
        let all = self.source.store.tenants();
        tell(Told::Step { name: "taking snapshots", total: all.len() as u64 });
        let mut tenants = Vec::with_capacity(all.len());
        for (done, tenant) in all.into_iter().enumerate() {
            tenants.extend(self.tenant(tenant)?);
            tell(Told::At(done as u64 + 1));
        }
        Ok(tenants)
    }

    fn tenant(&self, tenant: TenantId) -> Result<Option<TenantRef>, BackupError> {
        let failed = |source| BackupError::Tenant { tenant, source };
        let log = self.source.store.log();
        let history = self.source.store.history().ok_or(BackupError::NoArchive)?;
        let keys = self.source.store.tenant_keys(tenant);
        let snapshots = match &keys {
            Ok(keys) => history.snapshots(keys),
            Err(_) => history.proven_snapshots(tenant),
        };
        let mut newest = snapshots.map_err(failed)?.pop();
        let last = log.tail(tenant)?.lsn;
        let since = last.saturating_sub(newest.as_ref().map_or(0, |kept| kept.header.lsn));
        let before = self.catalog.newest().and_then(|backup| backup.tenant(tenant));
        let before = before.and_then(|tenant| tenant.snapshot.as_ref());
        // What the backup before names was looked at then; anything else may be from somebody else.
        let is_good = match (&newest, &keys) {
            (Some(kept), Ok(keys)) if before.is_none_or(|known| known.object.name != kept.name) => {
                history.can_be_named(kept, keys).map_err(failed)?
            }
            (newest, _) => newest.is_some(),
        };
        if !is_good || since >= SNAPSHOT_RECORDS {
            match &keys {
                Ok(keys) => {
                    let take = || history.take_snapshot(keys, &mut |_| {});
                    newest = self.pace.step(Rest::Short, take).map_err(failed)?.or(newest);
                }
                // Erased, or its key is withheld: then its records speak for themselves.
                Err(StoreError::Keys(error)) => {
                    tracing::debug!(tenant.id = %tenant, %error, "no snapshot without the key");
                }
                Err(error) => {
                    tracing::warn!(tenant.id = %tenant, %error, "no snapshot of a tenant");
                }
            }
        }
        // Read after the snapshot, which may be of a later record than there was before.
        let tail = log.tail(tenant)?;
        if tail == Tail::EMPTY {
            return Ok(None);
        }
        let snapshot = match newest {
            // Without the key nothing is proven anew, but the backup before is signed.
            None => before.filter(|_| self.is_withheld(tenant)).cloned(),
            Some(kept) => {
                let object = self.snapshot_object(tenant, &kept)?;
                Some(SnapshotRef { lsn: kept.header.lsn, object })
            }
        };
        let anchored = self.source.anchors.anchored(tenant).map(|anchored| anchored.leaf);
        let anchored = anchored.filter(|leaf| leaf.lsn <= tail.lsn);
        let audit = anchored.map(|leaf| AuditRef { seq: leaf.audit_seq, hash: Digest(leaf.audit) });
        let tail = TailRef::from(tail);
        Ok(Some(TenantRef { tenant, tail, snapshot, key: None, audit, audit_chunks: Vec::new() }))
    }

    fn is_withheld(&self, tenant: TenantId) -> bool {
        matches!(self.source.store.keystore().contains(tenant), Ok(true))
    }

    /// Copies the wrapped keys: those of tenants to their places, the node's own to `own`.
    fn keys(
        &self,
        tenants: &mut [TenantRef],
        own: CopyFile<'_, BackupError>,
        tell: Tell<'_>,
    ) -> Result<BTreeSet<KekId>, BackupError> {
        tell(Told::Step { name: "copying keys", total: tenants.len() as u64 });
        let there = self.archive.list(KEYS)?;
        let there: BTreeSet<&str> = there.iter().map(|object| object.name.as_str()).collect();
        let keystore = self.source.store.keystore();
        let mut done = 0;
        keystore.copy_wrapped(&mut |file, bytes| {
            let Some(tenant) = tenant_of(file) else { return own(file, bytes) };
            let Ok(at) = tenants.binary_search_by_key(&tenant, |one| one.tenant) else {
                return Ok(());
            };
            let sha256 = Digest::of(bytes);
            let name = ObjectName::TenantKey { tenant, prefix: sha256.prefix() }.to_string();
            if !there.contains(name.as_str()) {
                self.pace.step(Rest::Short, || self.archive.put(&name, bytes.to_vec()))?;
                // Erased meanwhile: that looked for copies maybe before this one was there.
                if !keystore.contains(tenant)? {
                    self.archive.remove(&name)?;
                    return Ok(());
                }
            }
            tenants[at].key = Some(ObjectRef { name, sha256, bytes: bytes.len() as u64 });
            done += 1;
            tell(Told::At(done));
            Ok(())
        })
    }

    fn snapshot_object(
        &self,
        tenant: TenantId,
        kept: &storage::history::Kept,
    ) -> Result<ObjectRef, BackupError> {
        let name = kept.name.clone();
        let bytes = match kept.bytes {
            0 => self.archive.size(&name)?.unwrap_or_default(),
            bytes => bytes,
        };
        let lsn = kept.header.lsn;
        self.sealed_rows(name, bytes, |prefix| ObjectName::Snapshot { tenant, lsn, prefix })
    }

    /// An object that carries its digest at its end, and in its name.
    fn sealed_rows(
        &self,
        name: String,
        bytes: u64,
        named: impl FnOnce([u8; 8]) -> ObjectName,
    ) -> Result<ObjectRef, BackupError> {
        let at = bytes.saturating_sub(SNAPSHOT_TRAILER_BYTES);
        let trailer = self.archive.get_range(&name, at..bytes)?;
        match <[u8; 32]>::try_from(trailer).map(Digest) {
            Ok(sha256) if named(sha256.prefix()).to_string() == name => {
                Ok(ObjectRef { name, sha256, bytes })
            }
            _ => Err(BackupError::Snapshot { name }),
        }
    }

    /// The archived segments that hold what comes after the snapshots.
    fn segments(
        &self,
        archived: &[Arc<ColdSegment>],
        tenants: &[TenantRef],
        tell: Tell<'_>,
    ) -> Result<Vec<SegmentRef>, BackupError> {
        let needed = needed(archived, tenants)?;
        tell(Told::Step { name: "hashing segments", total: needed.len() as u64 });
        let known: BTreeMap<&str, Digest> = self
            .catalog
            .backups
            .iter()
            .flat_map(|backup| &backup.segments)
            .map(|segment| (segment.object.name.as_str(), segment.object.sha256))
            .collect();
        let mut segments = Vec::with_capacity(needed.len());
        for (done, segment) in needed.into_iter().enumerate() {
            let ColdSegment { number, name, bytes, .. } = &*segment;
            let sha256 = match known.get(name.as_str()) {
                Some(known) => *known,
                None => self.hash(name)?,
            };
            let object = ObjectRef { name: name.clone(), sha256, bytes: *bytes };
            segments.push(SegmentRef { number: *number, object });
            tell(Told::At(done as u64 + 1));
        }
        Ok(segments)
    }

    /// Reads back what was archived.
    fn hash(&self, name: &str) -> Result<Digest, BackupError> {
        let unreadable = |error: io::Error| ArchiveError::Unreachable {
            reason: format!("{name} cannot be read: {error}"),
        };
        let mut object = self.archive.open(name)?;
        let (mut digest, mut buffer) = (Context::new(&SHA256), vec![0; 256 << 10]);
        loop {
            match object.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                read => digest.update(&buffer[..read]),
            }
        }
        Ok(Digest(super::hash_of(digest)))
    }
}

/// Moves each tenant's end to the last of its records that is archived, so that a segment which the backup
/// names holds nothing behind it. What an archive has beyond the log's own end is not this node's.
fn extend(
    log: &dyn CommitLog,
    tenants: &mut [TenantRef],
    archived: &[Arc<ColdSegment>],
) -> Result<(), LogError> {
    for segment in archived {
        for (tenant, (_, end)) in &segment.tenants {
            let Ok(at) = tenants.binary_search_by_key(tenant, |one| one.tenant) else { continue };
            // Where two segments end alike, the later one is what the log went on with.
            if end.lsn >= tenants[at].tail.lsn && end.lsn <= log.tail(*tenant)?.lsn {
                tenants[at].tail = TailRef::from(*end);
            }
        }
    }
    Ok(())
}

/// What of a tenant the segments have to give.
struct Wanted {
    /// The first record that is needed.
    next: u64,
    last: u64,
    /// The first record that is worth having: the last one proves where the history ends.
    first: u64,
    /// Whether gaps are no fault: nothing of an erased tenant can be read anyway.
    is_erased: bool,
}

/// The segments with any record between a tenant's snapshot and its end.
fn needed(
    segments: &[Arc<ColdSegment>],
    tenants: &[TenantRef],
) -> Result<Vec<Arc<ColdSegment>>, BackupError> {
    let wanted = |tenant: &TenantRef| {
        let (last, snapshot) = (tenant.tail.lsn, tenant.snapshot.as_ref());
        let next = snapshot.map_or(1, |snapshot| snapshot.lsn + 1);
        let is_erased = tenant.key.is_none();
        (tenant.tenant, Wanted { next, last, first: next.min(last), is_erased })
    };
    let mut wanted: BTreeMap<_, _> = tenants.iter().map(wanted).collect();
    let mut needed = Vec::new();
    for segment in segments {
        let mut is_needed = false;
        for (tenant, (first, end)) in &segment.tenants {
            let Some(wanted) = wanted.get_mut(tenant) else { continue };
            is_needed |= *first <= wanted.last && end.lsn >= wanted.first;
            if *first <= wanted.next || wanted.is_erased {
                wanted.next = wanted.next.max(end.lsn + 1);
            }
        }
        if is_needed {
            needed.push(Arc::clone(segment));
        }
    }
    let gap = wanted.iter().find(|(_, wanted)| !wanted.is_erased && wanted.next <= wanted.last);
    match gap {
        Some((&tenant, wanted)) => Err(BackupError::Gap { tenant, lsn: wanted.next }),
        None => Ok(needed),
    }
}
