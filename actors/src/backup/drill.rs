//! The restore drill: a backup is restored beside the running node, every tenant in it is opened, and
//! what comes out is compared with the source.
//!
//! For each tenant: the chain of its records and audit entries, its end against the manifest and the
//! anchors, and the hash of its rows against that of the source's history at the same record. The time
//! to where all could be served is the RTO; how far back the oldest write is that the backup does not
//! have is the RPO. What a drill makes, it removes; key-encryption keys in it are overwritten first.
//!
//! Blocks. Refuses: to pass over anything that is not as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::anchor_log::{AnchorLog, AnchorLogError};
use storage::archive::{ArchiveError, ArchiveOptions};
use storage::disk::{Disk as _, RealDisk};
use storage::history::PastState;
use storage::id::{BackupId, DrillId, TenantId};
use storage::keys::Prefix;
use storage::keystore::KeyError;
use storage::log::{LogError, Tail};
use storage::scratch::{self, Scratch};
use storage::shard::Shard;
use storage::snapshot::{RowSource, StateHash};
use storage::store::{Store, StoreError, StoreOptions, verify_kept_chain};
use storage::txn::Scan;

use super::catalog::{self, CatalogError};
use super::digest::Digest;
use super::manifest::{BackupManifest, TEXT_BYTES_MAX, TenantRef};
use super::report::{DrillCounts, DrillLine, DrillOutcome, DrillReport, FORMAT, SignedReport};
use super::restore::{KekFrom, RestoreError, RestoreOptions, restore};
use super::signed::{Signed, SignedError};
use super::{Source, Tell, Told};
use crate::audit::verify::{verify_anchors, verify_tenant};
use crate::tenant::error::chain;

/// How much of a state is read at a time.
const PAGE_BYTES: usize = 1 << 20;
/// Memory of the restored view: a drill must not take that of the node.
const CACHE_BYTES: u64 = 16 << 20;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The node has no archive.
    #[error("the node has no archive")]
    NoArchive,
    /// The backup cannot be had.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The archive does not take the report, or cannot be reached.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The report cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignedError),
}

/// Holds a drill with one backup, or the newest, in a new directory under `scratch` (beside the data when
/// absent). The report is kept in the archive before it is returned, whether the drill passed or not.
///
/// # Errors
/// If there is nothing to hold it with, or the report cannot be kept.
pub fn drill(
    source: &Source,
    backup: Option<BackupId>,
    scratch: Option<&Path>,
    tell: Tell<'_>,
) -> Result<SignedReport, DrillError> {
    let cold = source.store.cold().ok_or(DrillError::NoArchive)?;
    let archive = cold.archive();
    let manifest = catalog::pick_verified(&**archive, backup, &source.signer.verifier())?;
    let id: DrillId = source.env.new_id();
    let parent = scratch.map_or_else(|| source.data_dir.join("tmp"), Path::to_owned);
    let home = Home(Scratch::new(parent.join(id.to_string())));
    let (started_ms, began) = (source.env.now_ms(), source.env.monotonic());
    let rpo_ms = rpo_ms(source, &manifest, started_ms)?;
    let mut drill = Drill { source, manifest: &manifest, home: home.dir(), lines: Vec::new() };
    let opened = drill.open(tell);
    let rto = source.env.monotonic().saturating_sub(began);
    let mut failures = match opened {
        Ok(restored) => {
            let failures = drill.compare(&restored, tell);
            if let Err(error) = restored.store.close() {
                tracing::warn!(%error, "the restored store does not close");
            }
            failures
        }
        Err(failed) => vec![failed],
    };
    failures.iter_mut().for_each(shorten);
    let lines = drill.lines;
    drop(home);
    let rto_ms = u64::try_from(rto.as_millis()).unwrap_or(u64::MAX);
    let report = DrillReport {
        format: FORMAT,
        id,
        origin: source.signer.name().to_owned(),
        backup: manifest.id,
        started_ms,
        // Two clocks measure this: the report must agree with itself.
        finished_ms: source.env.now_ms().max(started_ms.saturating_add(rto_ms)),
        rpo_ms,
        rto_ms,
        tenants: DrillCounts::of(&lines),
        lines,
        failures,
    };
    let signed = Signed::sign(report, &source.signer)?;
    archive.put(&signed.claimed().name().to_string(), signed.to_bytes())?;
    Ok(signed)
}

/// The directory of a drill.
struct Home(Scratch);

impl Home {
    fn dir(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The directory itself goes after this; a lost name alone leaves the bytes on the disk.
        let files = RealDisk.list(&self.dir().join("data/keys")).unwrap_or_default();
        let is_kek = |path: &&PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kek"))
        };
        for path in files.iter().filter(is_kek) {
            if let Err(error) = scratch::overwrite(path) {
                tracing::warn!(%error, path = %path.display(), "a key's copy is not overwritten");
            }
        }
    }
}

/// How far back the oldest record is that the backup does not have.
fn rpo_ms(source: &Source, manifest: &BackupManifest, now_ms: u64) -> Result<u64, LogError> {
    let covered: BTreeMap<_, _> =
        manifest.tenants.iter().map(|tenant| (tenant.tenant, tenant.tail.lsn)).collect();
    let mut rpo_ms = 0;
    for tenant in source.store.tenants() {
        let next = covered.get(&tenant).map_or(1, |lsn| lsn + 1);
        if source.store.log().tail(tenant)?.lsn < next {
            continue;
        }
        // What cannot be opened is not older than the backup.
        let at_ms = stamp(source, tenant, next)?.unwrap_or(manifest.taken_ms);
        rpo_ms = rpo_ms.max(now_ms.saturating_sub(at_ms));
    }
    Ok(rpo_ms)
}

fn stamp(source: &Source, tenant: TenantId, lsn: u64) -> Result<Option<u64>, LogError> {
    let records = source.store.log().read_from(tenant, lsn, 1)?;
    let (Some(record), Ok(keys)) = (records.first(), source.store.tenant_keys(tenant)) else {
        return Ok(None);
    };
    let body = keys.open_record(lsn, record.header.epoch, &record.body);
    Ok(body.ok().map(|body| body.at_ms))
}

/// What was restored, open.
struct RestoredNode {
    store: Arc<Store>,
    anchors: AnchorLog,
    public_key: [u8; 32],
    erased: std::collections::BTreeSet<TenantId>,
}

struct Drill<'a> {
    source: &'a Source,
    manifest: &'a BackupManifest,
    home: &'a Path,
    lines: Vec<DrillLine>,
}

impl Drill<'_> {
    /// Restores, opens the store and every tenant. Says in one text what does not work.
    fn open(&mut self, tell: Tell<'_>) -> Result<RestoredNode, String> {
        let source = self.source;
        let cold = source.store.cold().ok_or("the node has no archive")?;
        if let Some(parent) = self.home.parent() {
            scratch::make_dir(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
        }
        let options = RestoreOptions {
            from: cold.archive().clone(),
            backup: Some(self.manifest.id),
            dir: self.home.join("data"),
            archive: ArchiveOptions::new(self.home.join("archive").display().to_string()),
            kek: KekFrom::Directory(source.data_dir.join("keys")),
            keys: source.keys.clone(),
            trust: Some(source.signer.public_key()),
        };
        let restored =
            restore(&options, &source.env, tell).map_err(|error: RestoreError| chain(&error))?;
        let store = Store::open(StoreOptions {
            cache_bytes: CACHE_BYTES,
            archive: Some(restored.archive.clone()),
            keys: source.keys.clone(),
            ..StoreOptions::new(&options.dir)
        });
        let store = store.map_err(|error| chain(&error))?;
        let anchors = AnchorLog::open(Arc::new(RealDisk), &options.dir.join("anchors"));
        let anchors = anchors.map_err(|error: AnchorLogError| chain(&error))?;
        let tenants = &self.manifest.tenants;
        tell(Told::Step { name: "opening tenants", total: tenants.len() as u64 });
        let erased = restored.verified.erased;
        for (done, tenant) in tenants.iter().enumerate() {
            if !erased.contains(&tenant.tenant) {
                // Whether it opens is judged with everything else; this is for the time it takes.
                drop(store.own_shard(tenant.tenant));
            }
            tell(Told::At(done as u64 + 1));
        }
        Ok(RestoredNode { store, anchors, public_key: restored.public_key, erased })
    }

    /// Compares every tenant with the source; returns what is wrong beyond single tenants.
    fn compare(&mut self, restored: &RestoredNode, tell: Tell<'_>) -> Vec<String> {
        let mut failures = Vec::new();
        let tenants = &self.manifest.tenants;
        tell(Told::Step { name: "comparing tenants", total: tenants.len() as u64 });
        for (done, tenant) in tenants.iter().enumerate() {
            let line = self.line(restored, tenant);
            self.lines.push(line);
            tell(Told::At(done as u64 + 1));
        }
        let anchors = verify_anchors(&restored.anchors, restored.public_key);
        if let Some(bad) = anchors.first_bad {
            failures.push(format!("checkpoint {}: {}", bad.checkpoint, bad.what));
        }
        let has = restored.store.tenants();
        let strangers = has.iter().filter(|id| !tenants.iter().any(|one| one.tenant == **id));
        failures.extend(strangers.map(|id| format!("{id} is there, and not in the manifest")));
        failures
    }

    fn line(&self, restored: &RestoredNode, tenant: &TenantRef) -> DrillLine {
        let id = tenant.tenant;
        let mut line = DrillLine {
            tenant: id,
            records_verified: 0,
            chain_head_ok: false,
            rows: 0,
            state_hash: None,
            audit_entries: 0,
            outcome: DrillOutcome::Passed,
        };
        let key = restored.store.keystore().load(id).map(drop);
        let outcome = match key {
            _ if restored.erased.contains(&id) => {
                sealed(restored, tenant, &mut line).map(|()| DrillOutcome::Erased)
            }
            Err(KeyError::Withheld { .. }) => {
                sealed(restored, tenant, &mut line).map(|()| DrillOutcome::Withheld)
            }
            _ => self.alive(restored, tenant, &mut line).map(|()| DrillOutcome::Passed),
        };
        line.outcome = outcome.unwrap_or_else(|mut what| {
            shorten(&mut what);
            DrillOutcome::Failed(what)
        });
        line
    }

    fn alive(
        &self,
        restored: &RestoredNode,
        tenant: &TenantRef,
        line: &mut DrillLine,
    ) -> Result<(), String> {
        let id = tenant.tenant;
        line.chain_head_ok = has_same_end(restored, tenant)?;
        let report = verify_tenant(&restored.store, &restored.anchors, id);
        (line.records_verified, line.audit_entries) = (report.records, report.entries);
        if let Some(bad) = report.first_bad {
            line.chain_head_ok = false;
            return Err(format!("record {}, entry {}: {}", bad.lsn, bad.seq, bad.what));
        }
        let shard = restored.store.own_shard(id).map_err(|error| chain(&error))?;
        let (rows, state) = shard_state(&shard).map_err(|error| chain(&error))?;
        (line.rows, line.state_hash) = (rows, Some(state));
        let history = self.source.store.history().ok_or("the node has no archive")?;
        // Of a tenant that was erased since, the source cannot tell any more.
        let Ok(keys) = self.source.store.tenant_keys(id) else { return Ok(()) };
        let past = history.state_after(&keys, tenant.tail.lsn).map_err(|error| chain(&error))?;
        let wanted = past_state(past).map_err(|error| chain(&error))?;
        match (rows, state) == wanted {
            true => Ok(()),
            false => Err(format!("its {rows} rows are not the source's {}", wanted.0)),
        }
    }
}

/// The chain of a tenant that nobody can read holds, as far as any of it is left.
fn sealed(restored: &RestoredNode, tenant: &TenantRef, line: &mut DrillLine) -> Result<(), String> {
    line.chain_head_ok = has_same_end(restored, tenant)?;
    let report = verify_kept_chain(&restored.store, tenant.tenant, |_| {});
    line.records_verified = report.map_err(|error| chain(&error))?.records;
    Ok(())
}

/// Whether the restored history ends where the manifest says, and no earlier than where it was anchored.
fn has_same_end(restored: &RestoredNode, tenant: &TenantRef) -> Result<bool, String> {
    let tail = restored.store.log().tail(tenant.tenant).map_err(|error| chain(&error))?;
    if tail != Tail::from(tenant.tail) {
        return Err(format!("its history ends at record {}", tail.lsn));
    }
    let Some(anchored) = restored.anchors.anchored(tenant.tenant) else { return Ok(true) };
    let leaf = anchored.leaf;
    match leaf.lsn > tail.lsn || (leaf.lsn == tail.lsn && leaf.record != tail.hash) {
        true => Err(format!("its history was anchored up to record {}, and other", leaf.lsn)),
        false => Ok(true),
    }
}

fn shard_state(shard: &Shard) -> Result<(u64, Digest), StoreError> {
    let (mut hash, mut rows) = (StateHash::new(), 0);
    let mut after = None;
    loop {
        let scan = Scan { after, ..Scan::all(Prefix::all()) };
        let page = shard.scan_within(&scan, PAGE_BYTES)?;
        let Some((last, _)) = page.last() else { return Ok((rows, Digest(hash.finish()))) };
        after = Some(last.clone());
        rows += page.len() as u64;
        page.iter().for_each(|(key, value)| hash.push(&key.encode(), value));
    }
}

fn past_state(mut past: PastState) -> Result<(u64, Digest), storage::snapshot::SnapshotError> {
    let (mut hash, mut rows) = (StateHash::new(), 0);
    while let Some((key, value)) = past.next_row()? {
        hash.push(&key, &value);
        rows += 1;
    }
    Ok((rows, Digest(hash.finish())))
}

/// A report has room for so much of each text.
fn shorten(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX - 3).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
        text.push_str("...");
    }
}
