//! What must be there after a crash, and must work.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use storage::archive::memory::MemoryArchive;
use storage::archive::{Archive as _, SharedArchive};
use storage::disk::fault::FaultDisk;
use storage::disk::{Disk as _, RealDisk};
use storage::history::HistoryError;
use storage::id::TenantId;
use storage::keys::Prefix;
use storage::scratch;
use storage::shard::Shard;
use storage::snapshot::RowSource as _;
use storage::store::verify_kept_chain;
use storage::txn::Scan;

use super::rig::Moment;
use super::script::{POLICY, Promised, State, WINDOW, Wrong, append, days, open};
use crate::archivist::pass::pass;
use crate::backup::run::run;
use crate::backup::sweep::sweep;
use crate::backup::verify::{VerifyError, verify};
use crate::backup::{Source, catalog};

/// What was found.
#[derive(Debug, Default)]
pub struct Left {
    pub backups: usize,
    pub states: usize,
}

impl Left {
    pub fn add(&mut self, other: Self) {
        self.backups += other.backups;
        self.states += other.states;
    }
}

/// Opens what a crash left, in an empty directory, compares it with what was promised, and goes on.
pub fn check(moment: &Moment, home: &Path, place: &Path) -> Result<Left, Wrong> {
    let dir = place.join("data");
    let laid_out = lay_out(&moment.disk, &home.join("data"), &dir);
    laid_out.map_err(|error| format!("laid out: {error}"))?;
    let archive = Arc::new(MemoryArchive::new());
    for (name, (bytes, at_ms)) in &moment.objects {
        archive.set_now_ms(*at_ms);
        archive.put(name, bytes.to_vec()).map_err(|error| error.to_string())?;
    }
    let model = &moment.model;
    archive.set_now_ms(model.now_ms);
    let source =
        open(Arc::new(RealDisk), Arc::clone(&archive) as SharedArchive, &dir, days(model.now_ms))
            .map_err(|wrong| format!("not opened: {wrong}"))?;
    let mut left = Left::default();
    let mut shards = BTreeMap::new();
    for (tenant, promised) in &model.tenants {
        let shard = kept(&source, *tenant, promised, model.is_swept, &mut left)?;
        shards.insert(*tenant, shard);
    }
    left.backups += backups(&source)?;
    let listed = catalog::read(&*archive, &source.signer.verifier());
    let listed = listed.map_err(|error| error.to_string())?;
    if let Some(newest) = model.backups.last()
        && !listed.backups.iter().any(|backup| backup.id == *newest)
    {
        return Err(format!("the newest backup, {newest}, is not listed"));
    }
    go_on(&source, shards, model.now_ms)?;
    left.backups += backups(&source)?;
    Ok(left)
}

/// Makes a data directory of what is on a disk. The files beside the log and the keys are made once, durable
/// before anything else, and not through the rig: they are as in the directory itself.
fn lay_out(disk: &FaultDisk, from: &Path, dir: &Path) -> std::io::Result<()> {
    scratch::make_dir(dir)?;
    for name in ["FORMAT", "NODE"] {
        scratch::write(&dir.join(name), &RealDisk.read(&from.join(name))?)?;
    }
    for path in disk.files() {
        let to = dir.join(path.strip_prefix(from).map_err(std::io::Error::other)?);
        scratch::make_dir(to.parent().unwrap_or(dir))?;
        scratch::write(&to, &disk.read(&path)?)?;
    }
    Ok(())
}

/// One tenant: nothing acknowledged is gone, nothing is there that was never sent, and what it was after each
/// record comes back.
fn kept(
    source: &Source,
    tenant: TenantId,
    promised: &Promised,
    is_swept: bool,
    left: &mut Left,
) -> Result<Shard, Wrong> {
    let wrong = |what: String| format!("{tenant}: {what}");
    let store = &source.store;
    let shard = store.own_shard(tenant).map_err(|error| wrong(error.to_string()))?;
    let tail = store.log().tail(tenant).map_err(|error| wrong(error.to_string()))?;
    let count = usize::try_from(tail.lsn).map_err(|error| wrong(error.to_string()))?;
    if count < promised.acknowledged || count > promised.states.len() {
        let (least, most) = (promised.acknowledged, promised.states.len());
        return Err(wrong(format!("{count} records, and {least} to {most} were promised")));
    }
    verify_kept_chain(store, tenant, |_| {})
        .map_err(|fault| wrong(format!("{fault}: {}", fault.what)))?;
    let rows = shard.scan(&Scan::all(Prefix::all())).map_err(|error| wrong(error.to_string()))?;
    let now: State = rows.into_iter().map(|(key, value)| (key.encode(), value.to_vec())).collect();
    if count > 0 && now != promised.states[count - 1] {
        return Err(wrong("it is not what it was".to_owned()));
    }
    let keys = store.tenant_keys(tenant).map_err(|error| wrong(error.to_string()))?;
    let history = store.history().ok_or("there is no history")?;
    for lsn in 1..=count {
        let past = match history.state_after(&keys, lsn as u64) {
            Err(HistoryError::TooOld { .. }) if is_swept && lsn < promised.floor => continue,
            past => past.map_err(|error| wrong(format!("record {lsn}: {error}"))),
        };
        let (mut past, mut state) = (past?, State::new());
        while let Some((key, value)) = past.next_row().map_err(|error| wrong(error.to_string()))? {
            state.insert(key.to_vec(), value.to_vec());
        }
        if state != promised.states[lsn - 1] {
            return Err(wrong(format!("after record {lsn} it was something else")));
        }
        left.states += 1;
    }
    Ok(shard)
}

/// Every listed backup is whole. How many there are.
fn backups(source: &Source) -> Result<usize, Wrong> {
    let cold = source.store.cold().ok_or("there is no archive")?;
    let archive = &**cold.archive();
    let catalog = catalog::read(archive, &source.signer.verifier());
    let catalog = catalog.map_err(|error| error.to_string())?;
    if let Some((name, what)) = catalog.damaged.first() {
        return Err(format!("{name}: {what}"));
    }
    for manifest in &catalog.backups {
        let scratch = source.scratch_file();
        let verified = verify::<VerifyError>(
            archive,
            manifest,
            &source.signer.verifier(),
            scratch.path(),
            &mut |_, _| Ok(()),
            &mut |_| {},
        );
        let verified = verified.map_err(|error| error.to_string())?;
        if let Some(fault) = verified.faults.first() {
            return Err(format!("{}: {fault}", manifest.id));
        }
    }
    Ok(catalog.backups.len())
}

/// Life goes on: everybody writes, and everything that was struck is done again.
fn go_on(source: &Source, mut shards: BTreeMap<TenantId, Shard>, now_ms: u64) -> Result<(), Wrong> {
    for shard in shards.values_mut() {
        if !append(shard, 1_000, now_ms) {
            return Err("a next record is not durable".to_owned());
        }
    }
    let keystore = source.store.keystore();
    let wrapped = keystore.rewrap_all(&mut |_, _| {}).map_err(|error| error.to_string())?;
    if !wrapped.failed.is_empty() {
        return Err(format!("keys that cannot be wrapped again: {wrapped:?}"));
    }
    run(source, None, &mut |_| {}).map_err(|error| format!("a next backup: {error}"))?;
    pass(&source.store, POLICY).map_err(|error| format!("a next round of archiving: {error}"))?;
    if !source.store.log().sealed().is_empty() {
        return Err("complete segments stay in the log".to_owned());
    }
    sweep(source, WINDOW, &mut |_| {}).map_err(|error| format!("tidying: {error}"))?;
    Ok(())
}
