//! Verifying a backup from what the archive really holds: every object is there with the bytes the
//! manifest says, every snapshot is whole, and every tenant's records lead without a gap from its
//! snapshot to the end that the manifest names.
//!
//! Needs no keys. A tenant that was erased since has no key any more in any backup; the signed receipt of the
//! erasure tells that from a key that was lost.
//!
//! Each object is read once, into a file beside the data. Faults are gathered, so that one
//! does not hide another; an archive that cannot be reached ends the work.
//!
//! Refuses: to hand on an object that is not what it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use storage::archive::{Archive, ArchiveError};
use storage::id::TenantId;
use storage::log::Tail;
use storage::log::segment::cold;
use storage::record::Record;
use storage::scratch;
use storage::snapshot;

use super::bundle::{self, BundleError};
use super::digest::Digest;
use super::manifest::{BackupManifest, ChunkRef, ObjectRef, SegmentRef, SnapshotRef, TenantRef};
use super::name::ObjectName;
use super::{Tell, Told};
use crate::audit::note::NoteVerifier;
use crate::erasure::receipt;
use crate::tenant::error::chain;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The object's name, or the tenant whose history it is.
    pub object: String,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The archive cannot be asked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is no room, or no right, to put an object beside the data.
    #[error("{} cannot be written or read", path.display())]
    Scratch {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records whose place in a chain was checked.
    pub records: u64,
    /// Tenants whose chain holds.
    pub tenants: u64,
    /// Tenants without keys.
    pub erased: BTreeSet<TenantId>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// What is to be done with an object that was found right: its reference, and the file with its bytes.
pub type Visit<'a, E> = &'a mut dyn FnMut(&ObjectRef, &Path) -> Result<(), E>;

/// Verifies everything a manifest names. The manifest itself must be verified already, by `verifier`. Each object is
/// fetched to `scratch`, one after another.
///
/// # Errors
/// [`VerifyError`] if the archive or the disk fails; and whatever `visit` says. Faults are no errors.
pub fn verify<E: From<VerifyError>>(
    archive: &dyn Archive,
    manifest: &BackupManifest,
    verifier: &NoteVerifier,
    scratch: &Path,
    visit: Visit<'_, E>,
    tell: Tell<'_>,
) -> Result<Verified, E> {
    let objects = manifest.objects().count() as u64;
    tell(Told::Step { name: "verifying objects", total: objects });
    let mut walk = Walk { archive, scratch, verified: Verified::default(), tell };
    walk.object(&manifest.keys, visit, &mut read_bundle)?;
    walk.object(&manifest.anchors, visit, &mut read_bundle)?;
    let mut chains = BTreeMap::new();
    let receipts: BTreeSet<TenantId> = archive
        .list(receipt::ERASURES)
        .map_err(VerifyError::from)?
        .iter()
        .filter_map(|object| receipt::tenant_of(&object.name))
        .collect();
    for tenant in &manifest.tenants {
        let is_erased = walk.key(tenant, &receipts, verifier, visit)?;
        let mut at = (!is_erased).then_some(Tail::EMPTY);
        if let Some(SnapshotRef { lsn, object }) = &tenant.snapshot {
            walk.object(object, visit, &mut |file| {
                let found = read_snapshot(file, tenant.tenant, *lsn)?;
                at = Some(found);
                Ok(())
            })?;
        }
        walk.audit_chunks(tenant, is_erased, visit)?;
        if is_erased {
            walk.verified.erased.insert(tenant.tenant);
        }
        let tail = Tail::from(tenant.tail);
        chains.insert(tenant.tenant, Chain { at, tail, broken: None, records: 0 });
    }
    for SegmentRef { number, object } in &manifest.segments {
        walk.object(object, visit, &mut |file| {
            let mut follow = |record: &Record| {
                if let Some(chain) = chains.get_mut(&record.header.tenant) {
                    chain.follow(record);
                }
            };
            cold::each_record(file, *number, &mut follow).map_err(|error| chain(&error))
        })?;
    }
    let mut verified = walk.verified;
    // What hangs on a bad object was said already.
    let is_whole = verified.faults.is_empty();
    for (tenant, chain) in chains {
        verified.records += chain.records;
        match chain.end() {
            Ok(()) => verified.tenants += 1,
            Err(what) if is_whole => {
                let object = format!("the history of {tenant}");
                verified.faults.push(Fault { object, what });
            }
            Err(_) => {}
        }
    }
    Ok(verified)
}

struct Walk<'a> {
    archive: &'a dyn Archive,
    scratch: &'a Path,
    verified: Verified,
    tell: Tell<'a>,
}

impl Walk<'_> {
    fn is_there(&self, object: &ObjectRef) -> Result<bool, VerifyError> {
        Ok(self.archive.size(&object.name)?.is_some())
    }

    /// Checks a tenant's key; says whether the tenant was erased since, or before.
    fn key<E: From<VerifyError>>(
        &mut self,
        tenant: &TenantRef,
        receipts: &BTreeSet<TenantId>,
        verifier: &NoteVerifier,
        visit: Visit<'_, E>,
    ) -> Result<bool, E> {
        let key = match &tenant.key {
            Some(key) if self.is_there(key)? => Some(key),
            _ => None,
        };
        let id = tenant.tenant;
        // The receipt counts, also where a copy of the key has come back into the archive since.
        if key.is_none() || receipts.contains(&id) {
            let found = receipt::find(self.archive, id, verifier.public_key());
            if found.map_err(VerifyError::from)?.is_some() {
                return Ok(true);
            }
        }
        match key {
            Some(key) => self.object(key, visit, &mut |_| Ok(()))?,
            None => {
                let object = tenant.key.as_ref().map(|key| key.name.clone());
                let object = object.unwrap_or_else(|| format!("the key of {id}"));
                let what = "it is missing, and there is no receipt of an erasure".to_owned();
                self.verified.faults.push(Fault { object, what });
            }
        }
        Ok(false)
    }

    /// Checks a tenant's audit entries. Those of an erased one may be gone: nobody can read them.
    fn audit_chunks<E: From<VerifyError>>(
        &mut self,
        tenant: &TenantRef,
        is_erased: bool,
        visit: Visit<'_, E>,
    ) -> Result<(), E> {
        for ChunkRef { last, object } in &tenant.audit_chunks {
            if is_erased && !self.is_there(object)? {
                continue;
            }
            let look = |file: &Path| read_snapshot(file, tenant.tenant, *last).map(|_| ());
            self.object(object, visit, &mut { look })?;
        }
        Ok(())
    }

    /// Fetches an object, checks it and looks into it.
    fn object<E: From<VerifyError>>(
        &mut self,
        object: &ObjectRef,
        visit: &mut dyn FnMut(&ObjectRef, &Path) -> Result<(), E>,
        look: &mut dyn FnMut(&Path) -> Result<(), String>,
    ) -> Result<(), E> {
        let outcome = self.fetch(object)?.and_then(|()| look(self.scratch));
        self.verified.objects += 1;
        (self.tell)(Told::At(self.verified.objects));
        match outcome {
            Ok(()) => {
                self.verified.bytes += object.bytes;
                visit(object, self.scratch)
            }
            Err(what) => {
                self.verified.faults.push(Fault { object: object.name.clone(), what });
                Ok(())
            }
        }
    }

    /// Copies an object to the scratch file; says what is wrong with its bytes, if anything is.
    fn fetch(&self, object: &ObjectRef) -> Result<Result<(), String>, VerifyError> {
        let path = self.scratch;
        let failed = |source| VerifyError::Scratch { path: path.to_owned(), source };
        let mut input = match self.archive.open(&object.name) {
            Ok(input) => input,
            Err(ArchiveError::Missing { .. }) => return Ok(Err("it is missing".to_owned())),
            Err(error) => return Err(error.into()),
        };
        let mut file = scratch::create(path).map_err(failed)?;
        let mut hashing = Hashing::of(object);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    let reason = format!("{} cannot be read: {error}", object.name);
                    return Err(ArchiveError::Unreachable { reason }.into());
                }
            };
            hashing.update(&buffer[..read]);
            if hashing.bytes > object.bytes {
                break;
            }
            file.write_all(&buffer[..read]).map_err(failed)?;
        }
        file.flush().map_err(failed)?;
        Ok(hashing.end(object))
    }
}

/// Hashes what the digest of an object is over: a snapshot carries its own at its end.
struct Hashing {
    digest: Context,
    bytes: u64,
    hashed_bytes: u64,
}

impl Hashing {
    fn of(object: &ObjectRef) -> Self {
        let is_snapshot = matches!(
            object.name.parse(),
            Ok(ObjectName::Snapshot { .. } | ObjectName::AuditChunk { .. })
        );
        let hashed_bytes = object.bytes.saturating_sub(if is_snapshot { 32 } else { 0 });
        Self { digest: Context::new(&SHA256), bytes: 0, hashed_bytes }
    }

    fn update(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.hashed_bytes.saturating_sub(self.bytes));
        self.digest.update(&bytes[..bytes.len().min(room.unwrap_or(usize::MAX))]);
        self.bytes += bytes.len() as u64;
    }

    fn end(self, object: &ObjectRef) -> Result<(), String> {
        if self.bytes < object.bytes {
            return Err(format!("it is cut short: {} of {} bytes", self.bytes, object.bytes));
        }
        if self.bytes > object.bytes {
            return Err(format!("it is longer than its {} bytes", object.bytes));
        }
        match Digest(super::hash_of(self.digest)) == object.sha256 {
            true => Ok(()),
            false => Err("its bytes are not those that were backed up".to_owned()),
        }
    }
}

/// Whether a bundle can be unpacked.
fn read_bundle(file: &Path) -> Result<(), String> {
    let input = scratch::open(file).map_err(|error| error.to_string())?;
    let read = bundle::read(input, &mut |_, _| Ok::<_, BundleError>(()));
    read.map_err(|error| chain(&error))
}

/// Checks a snapshot without keys; says where the history it is of ends.
fn read_snapshot(file: &Path, tenant: TenantId, lsn: u64) -> Result<Tail, String> {
    let input = scratch::open(file).map_err(|error| error.to_string())?;
    let (header, _, _) = snapshot::verify(input).map_err(|error| chain(&error))?;
    if header.tenant != tenant || header.lsn != lsn {
        return Err(format!("it is a snapshot of {} at record {}", header.tenant, header.lsn));
    }
    Ok(header.tail())
}

/// One tenant's records, on the way from its snapshot to its end.
struct Chain {
    /// The last record met; nothing before the first record of an erased tenant.
    at: Option<Tail>,
    tail: Tail,
    broken: Option<String>,
    records: u64,
}

impl Chain {
    /// The record was found intact.
    fn follow(&mut self, record: &Record) {
        let header = &record.header;
        let is_behind = self.at.is_some_and(|at| header.lsn <= at.lsn);
        if self.broken.is_some() || is_behind || header.lsn > self.tail.lsn {
            return;
        }
        if let Some(at) = self.at {
            if header.lsn != at.lsn + 1 {
                self.broken = Some(format!("record {} is missing", at.lsn + 1));
                return;
            }
            if header.prev != at.hash || header.epoch < at.epoch {
                self.broken = Some(format!("record {} does not follow the one before", header.lsn));
                return;
            }
        }
        self.records += 1;
        self.at = Some(header.tail());
    }

    fn end(self) -> Result<(), String> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        match self.at {
            Some(at) if at.lsn < self.tail.lsn => Err(format!("record {} is missing", at.lsn + 1)),
            Some(at) if at != self.tail => {
                Err(format!("record {} is not the one that was backed up", at.lsn))
            }
            // Of an erased tenant nothing but its end may be left.
            _ => Ok(()),
        }
    }
}
