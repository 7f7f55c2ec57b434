//! Restoring a backup onto an empty machine: a new data directory with everything the backup has, and an
//! archive of its own with the objects it needs.
//!
//! Every object is verified on its way. The log is founded where each tenant's history ended, and goes
//! on from there; what came before is read from the new archive, and views are made as tenants wake.
//! The new log numbers its segments behind those of the old one, so that neither takes the other's for
//! its own.
//!
//! Whose backup it is shows the key that signed it: it is itself in the backup, sealed by the
//! key-encryption key. Whoever distrusts that says which key they trust.
//!
//! Refuses: a directory in which anything is; a backup in which anything is missing or changed; a
//! key-encryption key that is not the one, before anything is made. What was not finished is marked, and
//! nothing opens it.

use std::cell::RefCell;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::archive::{Archive, ArchiveError, ArchiveOptions, ObjectArchive, SharedArchive};
use storage::disk::{Disk as _, RealDisk};
use storage::id::{BackupId, TenantId};
use storage::keystore::copy::tenant_file;
use storage::keystore::{KeyError, KeyOptions, KeyStore};
use storage::log::segment::{self, SegmentLog, SegmentOptions};
use storage::log::{CommitLog as _, LogError, Tail};
use storage::scratch::{self, Scratch};
use storage::seal::SystemRandom;
use storage::store::{OpenError, UnfinishedDir};

use super::bundle::{self, BundleError};
use super::catalog::{self, CatalogError};
use super::manifest::{BackupManifest, ObjectRef};
use super::name::{ObjectName, SEGMENTS, SNAPSHOTS};
use super::signed::SignedError;
use super::verify::{Fault, Verified, VerifyError, verify};
use super::{Tell, Told};
use crate::audit::anchor::{AnchorError, signing_key};
use crate::audit::note::NoteVerifier;
use crate::env::Env;
use crate::erasure::receipt;

mod kek;

use kek::{check_kek, is_kek_file};

/// Bytes of a key-encryption key's file at most.
const KEK_BYTES_MAX: u64 = 4096;
/// Bytes of a wrapped key's file at most.
const WRAPPED_BYTES_MAX: u64 = 64 * 1024;

/// Why nothing was restored, or not all.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target cannot be taken.
    #[error(transparent)]
    Target(#[from] OpenError),
    /// The backup cannot be had.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The backup cannot be read.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The new archive does not take something.
    #[error("the new archive {location} does not take {name}")]
    NewArchive {
        /// Where it is.
        location: String,
        /// What it does not take.
        name: String,
        /// What it said.
        source: ArchiveError,
    },
    /// The new archive belongs to somebody.
    #[error(
        "the new archive {location} is not empty: choose another, or leave it in the directory"
    )]
    ArchiveInUse {
        /// Where it is.
        location: String,
    },
    /// Objects are missing or changed.
    #[error("the backup {id} is damaged: {}", list(faults))]
    Damaged {
        /// Which backup.
        id: BackupId,
        /// What is wrong with it.
        faults: Vec<Fault>,
    },
    /// The wrapped keys cannot be read from the bundle.
    #[error("{name} cannot be read")]
    Bundle {
        /// The object.
        name: String,
        /// What is wrong.
        source: BundleError,
    },
    /// The key-encryption key's file cannot be read.
    #[error("the key-encryption key {} cannot be read", path.display())]
    Kek {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The node has destroyed the version of the key-encryption key that the backup needs.
    #[error(
        "the backup needs the key-encryption key {}, which `bulkhead keys rotate` has retired on this node: take one \
         with `bulkhead backup run`, which needs the new one only",
        needed.join(" or ")
    )]
    RetiredKek {
        /// The versions that the backup needs.
        needed: Vec<String>,
    },
    /// The key-encryption key that is offered wrapped nothing of the backup.
    #[error(
        "the key-encryption key that was given is {}; the backup needs {}",
        offered.join(" and "),
        needed.join(" and ")
    )]
    OtherKek {
        /// The versions that are offered.
        offered: Vec<String>,
        /// The versions that wrapped its keys.
        needed: Vec<String>,
    },
    /// The wrapped keys do not open.
    #[error("the keys of the backup do not open; it needs the key-encryption key {}", needed.join(" and "))]
    Keys {
        /// The versions that wrapped them.
        needed: Vec<String>,
        /// What the key store says.
        source: KeyError,
    },
    /// The signing key cannot be used.
    #[error(transparent)]
    Signer(#[from] AnchorError),
    /// Another key signed it than the one that is trusted, or than the one in it.
    #[error(transparent)]
    Untrusted(#[from] SignedError),
    /// It is signed by its own key, but that is not the trusted one.
    #[error("the backup is signed by {found}, which is not the key you trust")]
    OtherKey {
        /// The key that signed it, as text.
        found: String,
    },
    /// A newer release took it.
    #[error(
        "the backup is of a data directory of format {format}; this release writes {}",
        storage::store::FORMAT
    )]
    NewerFormat {
        /// That format.
        format: u32,
    },
    /// The target cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The new log does not end where the backup does.
    #[error("the restored history of {tenant} does not end where the backup does")]
    Tail {
        /// Whose.
        tenant: TenantId,
    },
    /// The new log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The new log cannot be opened.
    #[error(transparent)]
    OpenLog(#[from] segment::OpenError),
}

fn list(faults: &[Fault]) -> String {
    const SHOWN_MAX: usize = 5;
    let mut text: Vec<_> = faults.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if faults.len() > SHOWN_MAX {
        text.push(format!("and {} more", faults.len() - SHOWN_MAX));
    }
    text.join("; ")
}

/// Where the key-encryption key is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KekFrom {
    /// A copy of the file `keys/kek` of the node that took the backup.
    File(PathBuf),
    /// The `keys` directory of that node itself: every version in it.
    Directory(PathBuf),
    /// The source that configuration names, which gives keys without a file of the node's own.
    Source,
}

/// What is to be restored, and where to.
pub struct RestoreOptions {
    /// The archive that has the backup.
    pub from: SharedArchive,
    /// Which backup; the newest when absent.
    pub backup: Option<BackupId>,
    /// The new data directory.
    pub dir: PathBuf,
    /// The new node's archive, which must have no history of anybody. It may lie in the new directory.
    pub archive: ArchiveOptions,
    /// The key-encryption key.
    pub kek: KekFrom,
    /// The source of key-encryption keys that the new node is configured with.
    pub keys: KeyOptions,
    /// The public key that must have signed the backup; the one in it when absent.
    pub trust: Option<[u8; 32]>,
}

/// What was restored.
#[derive(Clone)]
pub struct Restored {
    /// The backup.
    pub manifest: BackupManifest,
    /// The new node's archive.
    pub archive: SharedArchive,
    /// The key that signed it.
    pub public_key: [u8; 32],
    /// What verifying it found.
    pub verified: Verified,
}

/// Restores.
///
/// # Errors
/// Then the directory stays marked, and nothing opens it.
pub fn restore(
    options: &RestoreOptions,
    env: &Env,
    tell: Tell<'_>,
) -> Result<Restored, RestoreError> {
    tell(Told::Step { name: "looking for the backup", total: 0 });
    let from = &*options.from;
    let signed = catalog::pick(from, options.backup)?;
    // Not believed yet: it only says where the key is that proves it. What is wrong with the wish is
    // said before anything is made.
    let claimed = signed.claimed();
    if claimed.store_format > storage::store::FORMAT {
        return Err(RestoreError::NewerFormat { format: claimed.store_format });
    }
    if options.trust.is_some_and(|trusted| trusted != *signed.claimed_key()) {
        let claimed = NoteVerifier::new(&claimed.origin, *signed.claimed_key());
        let bare = |_| STANDARD.encode(signed.claimed_key());
        let found = claimed.map_or_else(bare, |key| key.to_text());
        return Err(RestoreError::OtherKey { found });
    }
    check_kek(options, &claimed.keks)?;
    let dir = &options.dir;
    let unfinished = UnfinishedDir::begin(dir)?;
    let archive = unused(&options.archive)?;
    let target = Target { dir, archive: &*archive, written: RefCell::default() };
    let work = Scratch::new(dir.join("tmp"));
    target.make_dir(work.path())?;

    tell(Told::Step { name: "restoring keys", total: 0 });
    let keystore = target.keys(from, claimed, options)?;
    let needed = claimed.keks.clone();
    let signer = signing_key(&keystore, &claimed.origin, env).map_err(|error| match error {
        AnchorError::Key(source) => RestoreError::Keys { needed, source },
        error => error.into(),
    })?;
    let public_key = signer.public_key();
    let manifest = signed.into_verified(&signer.verifier())?;

    let scratch = work.path().join("object");
    let mut keep = |object: &ObjectRef, file: &Path| target.keep(&manifest, object, file);
    let verifier = signer.verifier();
    let verified = verify(from, &manifest, &verifier, &scratch, &mut keep, tell)?;
    if !verified.faults.is_empty() {
        return Err(RestoreError::Damaged { id: manifest.id, faults: verified.faults });
    }
    for tenant in &verified.erased {
        target.keep_receipt(from, *tenant)?;
    }
    tell(Told::Step { name: "founding the log", total: 0 });
    target.sync()?;
    target.found_log(&manifest)?;
    drop(work);
    unfinished.finish()?;
    Ok(Restored { manifest, archive, public_key, verified })
}

/// Opens the new archive, if nobody's history is in it.
fn unused(options: &ArchiveOptions) -> Result<SharedArchive, RestoreError> {
    let failed = |name: &str, source| RestoreError::NewArchive {
        location: options.url.clone(),
        name: name.to_owned(),
        source,
    };
    let archive = ObjectArchive::open(options).map_err(|source| failed("anything", source))?;
    for directory in [SEGMENTS, SNAPSHOTS] {
        let objects = archive.list(directory).map_err(|source| failed(directory, source))?;
        if !objects.is_empty() {
            return Err(RestoreError::ArchiveInUse { location: archive.location() });
        }
    }
    Ok(archive)
}

struct Target<'a> {
    dir: &'a Path,
    archive: &'a dyn Archive,
    /// Files that are not synced yet.
    written: RefCell<Vec<PathBuf>>,
}

impl Target<'_> {
    fn at(&self, path: &Path) -> impl FnOnce(io::Error) -> RestoreError + use<> {
        let path = path.to_owned();
        move |source| RestoreError::Write { path, source }
    }

    fn make_dir(&self, dir: &Path) -> Result<(), RestoreError> {
        scratch::make_dir(dir).map_err(self.at(dir))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), RestoreError> {
        scratch::write(path, bytes).map_err(self.at(path))?;
        self.written.borrow_mut().push(path.to_owned());
        Ok(())
    }

    /// Puts the wrapped keys and the key-encryption key into place, and opens them.
    fn keys(
        &self,
        from: &dyn Archive,
        claimed: &BackupManifest,
        options: &RestoreOptions,
    ) -> Result<KeyStore, RestoreError> {
        let dir = self.dir.join("keys");
        self.make_dir(&dir)?;
        self.kek(&dir, &options.kek)?;
        let name = claimed.keys.name.clone();
        let object = from.open(&name).map_err(CatalogError::from)?;
        self.unpack(&name, BufReader::new(object), &dir)?;
        let opened = KeyStore::open_with(
            Arc::new(RealDisk),
            &dir,
            Arc::new(SystemRandom),
            options.keys.clone(),
        );
        opened.map_err(|source| RestoreError::Keys { needed: claimed.keks.clone(), source })
    }

    fn kek(&self, dir: &Path, kek: &KekFrom) -> Result<(), RestoreError> {
        let copy = |path: &Path, name: &str| {
            let failed = |source| RestoreError::Kek { path: path.to_owned(), source };
            let bytes = scratch::read_secret(path, KEK_BYTES_MAX).map_err(failed)?;
            self.write(&dir.join(name), &bytes)
        };
        match kek {
            KekFrom::Source => Ok(()),
            KekFrom::File(path) => copy(path, "kek"),
            KekFrom::Directory(keys) => {
                let failed = |source| RestoreError::Kek { path: keys.clone(), source };
                for path in RealDisk.list(keys).map_err(failed)? {
                    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    if is_kek_file(name) {
                        copy(&path, name)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Writes the files of a bundle under `dir`.
    fn unpack(&self, name: &str, input: impl io::Read, dir: &Path) -> Result<(), RestoreError> {
        enum Failed {
            Bundle(BundleError),
            Write(RestoreError),
        }
        impl From<BundleError> for Failed {
            fn from(error: BundleError) -> Self {
                Self::Bundle(error)
            }
        }
        let unpacked = bundle::read(input, &mut |file, bytes| {
            let path = dir.join(file);
            let parent = path.parent().unwrap_or(dir).to_owned();
            self.make_dir(&parent).and_then(|()| self.write(&path, bytes)).map_err(Failed::Write)
        });
        unpacked.map_err(|failed| match failed {
            Failed::Bundle(source) => RestoreError::Bundle { name: name.to_owned(), source },
            Failed::Write(error) => error,
        })
    }

    /// Makes everything written so far durable, at once: a sync after each file would cost a turn of the
    /// disk each.
    fn sync(&self) -> Result<(), RestoreError> {
        let synced = scratch::sync(self.dir, &self.written.take());
        synced.map_err(|(path, source)| RestoreError::Write { path, source })
    }

    /// Keeps an object that was found right.
    fn keep(
        &self,
        manifest: &BackupManifest,
        object: &ObjectRef,
        file: &Path,
    ) -> Result<(), RestoreError> {
        if object.name == manifest.keys.name {
            // In place already, and now known to be what was backed up.
            return Ok(());
        }
        if object.name == manifest.anchors.name {
            let input = scratch::open(file).map_err(self.at(file))?;
            let dir = self.dir.join("anchors");
            self.make_dir(&dir)?;
            return self.unpack(&object.name, input, &dir);
        }
        if let Ok(ObjectName::TenantKey { tenant, .. }) = object.name.parse() {
            let path = self.dir.join("keys").join(tenant_file(tenant));
            self.make_dir(path.parent().unwrap_or(self.dir))?;
            let wrapped = scratch::read_secret(file, WRAPPED_BYTES_MAX).map_err(self.at(file))?;
            return self.write(&path, &wrapped);
        }
        self.archive.put_file(&object.name, file).map_err(|source| RestoreError::NewArchive {
            location: self.archive.location(),
            name: object.name.clone(),
            source,
        })
    }

    /// Keeps the receipt of an erasure: what was backed up before it does not know of it.
    fn keep_receipt(&self, from: &dyn Archive, tenant: TenantId) -> Result<(), RestoreError> {
        let name = receipt::object_name(tenant);
        let bytes = match from.get(&name) {
            Ok(bytes) => bytes,
            Err(ArchiveError::Missing { .. }) => return Ok(()),
            Err(error) => return Err(CatalogError::from(error).into()),
        };
        let location = self.archive.location();
        let put = self.archive.put(&name, bytes);
        put.map_err(|source| RestoreError::NewArchive { location, name, source })
    }

    /// Makes the log that goes on where the backup ends.
    fn found_log(&self, manifest: &BackupManifest) -> Result<(), RestoreError> {
        let dir = self.dir.join("log");
        self.make_dir(&dir)?;
        let tails: Vec<(TenantId, Tail)> =
            manifest.tenants.iter().map(|tenant| (tenant.tenant, tenant.tail.into())).collect();
        let last = manifest.segments.last().map_or(0, |segment| segment.number);
        segment::found(&RealDisk, &dir, last + 1, &tails).map_err(self.at(&dir))?;
        RealDisk.sync_dir(self.dir).map_err(self.at(self.dir))?;
        let log = SegmentLog::open(Arc::new(RealDisk), &dir, SegmentOptions::default())?;
        let wrong = tails.iter().map(|(tenant, tail)| Ok((*tenant, log.tail(*tenant)? != *tail)));
        let wrong = wrong.collect::<Result<Vec<_>, LogError>>();
        log.close();
        match wrong?.into_iter().find(|(_, is_wrong)| *is_wrong) {
            Some((tenant, _)) => Err(RestoreError::Tail { tenant }),
            None => Ok(()),
        }
    }
}
