//! Changing the key-encryption key under a running store.
//!
//! [`KeyStore::rotate`] makes, or takes, the next version. [`KeyStore::rewrap_all`] then wraps every
//! file again, one by one, each replaced whole; loads go on meanwhile, under either version. Only when
//! nothing is wrapped with an older version any more is that destroyed. After a power cut at any point
//! every file opens under a version that is there, and `rewrap_all` carries on.
//!
//! Refuses: two rotations at once, and to destroy a version while a single file could need it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, TryLockError};

use super::files::{WrappedFile, read_if_any, wrapped};
use super::frame::{Wrapped, encode_spec};
use super::source::{KekId, SourceSpec};
use super::{KeyError, KeyStore, ask, lock};

/// What [`KeyStore::rotate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The version that was current.
    pub previous: KekId,
    /// The one that is now. The same if the source still calls the old one current.
    pub current: KekId,
}

/// What [`KeyStore::rewrap_all`] did.
#[derive(Debug, Default)]
pub struct Rewrapped {
    /// How many files were wrapped again.
    pub rewrapped: u64,
    /// How many files there are.
    pub total: u64,
    /// The versions that those were wrapped with before.
    pub from: Vec<KekId>,
    /// Files that could not be, with the reason. Older versions stay as long as there is one.
    pub failed: Vec<(PathBuf, KeyError)>,
    /// Versions that nothing needs any more. The store's own are destroyed; those of another source
    /// are for its keeper to destroy.
    pub retired: Vec<KekId>,
    /// Those of them that this destroyed: the store's own.
    pub destroyed: Vec<KekId>,
}

/// One version, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekVersion {
    /// Its id.
    pub id: KekId,
    /// What its keeper calls it.
    pub name: String,
    /// Whether new keys are wrapped with it.
    pub is_current: bool,
    /// When it was made or first met, in milliseconds since 1970, if that is known.
    pub created_ms: Option<u64>,
    /// How many files are wrapped with it.
    pub files: u64,
}

/// What there is to know about key-encryption keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekStatus {
    /// The kind of the configured source.
    pub source: &'static str,
    /// The versions, the current one first.
    pub versions: Vec<KekVersion>,
    /// Files that are wrapped with none of these, or are damaged.
    pub unreadable: u64,
    /// Tenants whose keys customers hold.
    pub held_by_customers: u64,
    /// Whether a rotation is under way in this process.
    pub is_rotating: bool,
    /// Whether a rotation of the store's own versions was begun and not brought to its end.
    pub is_interrupted: bool,
}

impl KekStatus {
    /// Whether anything is wrapped with an older version: a rotation was interrupted, or the source
    /// calls another version current than it did, or is another source.
    pub fn is_due(&self) -> bool {
        self.versions.iter().any(|version| !version.is_current && version.files > 0)
    }
}

impl KeyStore {
    /// The kind of the configured source.
    pub fn source_kind(&self) -> &'static str {
        self.options.source.as_ref().map_or("file", SourceSpec::kind)
    }

    /// The current version.
    pub fn kek_id(&self) -> KekId {
        self.ring().current.id()
    }

    /// How long the current version has been there, in seconds.
    pub fn kek_age_seconds(&self, now_ms: u64) -> u64 {
        let ring = self.ring();
        let created_ms = lock(&self.seen).created_ms(&*ring.current);
        created_ms.map_or(0, |created_ms| now_ms.saturating_sub(created_ms) / 1000)
    }

    /// Makes the next version of the store's own key-encryption key; of another source, takes the one
    /// that the source now calls current. What is wrapped stays as it is: [`rewrap_all`] is next.
    ///
    /// [`rewrap_all`]: Self::rewrap_all
    ///
    /// # Errors
    /// [`KeyError::Source`] if a source does not answer; then nothing has changed.
    pub fn rotate(&self, now_ms: u64) -> Result<Rotation, KeyError> {
        let _rotating = self.begin()?;
        let before = self.ring();
        if self.options.source.is_none() {
            self.own.renew(&*self.random, now_ms)?;
        }
        let mut ring = ask(&self.options, &self.own)?;
        // A source may have stopped offering what this process still needs for unwrapping.
        ring.add(before.all().cloned());
        let rotation = Rotation { previous: before.current.id(), current: ring.current.id() };
        lock(&self.seen).meet(&*self.disk, &*ring.current, now_ms);
        let _changing = lock(&self.changing);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        Ok(rotation)
    }

    /// Wraps everything again that is wrapped with an older version, then retires older versions.
    /// `progress` is told how many files are done, of how many. A file that cannot be wrapped again is
    /// reported and keeps older versions alive; the others are done nevertheless.
    pub fn rewrap_all(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Rewrapped, KeyError> {
        let _rotating = self.begin()?;
        // Whatever is made from here on is wrapped with the current version.
        let files = wrapped(&*self.disk, &self.dir).collect::<Result<Vec<_>, _>>()?;
        let mut outcome = Rewrapped { total: files.len() as u64, ..Rewrapped::default() };
        progress(0, outcome.total);
        for (done, file) in files.into_iter().enumerate() {
            match self.rewrap(&file) {
                Ok(Some(from)) => {
                    outcome.rewrapped += 1;
                    if !outcome.from.contains(&from) {
                        outcome.from.push(from);
                    }
                }
                Ok(None) => {}
                Err(error) => outcome.failed.push((file.path, error)),
            }
            progress(done as u64 + 1, outcome.total);
        }
        if outcome.failed.is_empty() {
            (outcome.retired, outcome.destroyed) = self.retire()?;
        }
        Ok(outcome)
    }

    /// Which versions there are and what is wrapped with them. Reads every wrapped file.
    pub fn kek_status(&self) -> Result<KekStatus, KeyError> {
        let ring = self.ring();
        let mut files: BTreeMap<KekId, u64> = BTreeMap::new();
        let (mut unreadable, mut held_by_customers) = (0, 0);
        for file in wrapped(&*self.disk, &self.dir) {
            let file = file?;
            let Some(bytes) = read_if_any(&*self.disk, &file.path)? else { continue };
            match Wrapped::parse(&file.path, file.magic, &bytes) {
                Ok(one) => {
                    *files.entry(one.kek).or_default() += 1;
                    held_by_customers += u64::from(one.spec.is_some());
                }
                Err(_) => unreadable += 1,
            }
        }
        let seen = lock(&self.seen);
        let versions: Vec<_> = ring
            .all()
            .map(|kek| KekVersion {
                id: kek.id(),
                name: kek.name().to_owned(),
                is_current: kek.id() == ring.current.id(),
                created_ms: seen.created_ms(&**kek),
                files: files.remove(&kek.id()).unwrap_or_default(),
            })
            .collect();
        unreadable += files.into_values().sum::<u64>();
        let is_rotating = matches!(self.rotating.try_lock(), Err(TryLockError::WouldBlock));
        let mut is_interrupted = false;
        for version in versions.iter().filter(|version| !version.is_current && version.files > 0) {
            // The store keeps an older version of its own only from a rotation's begin to its end.
            is_interrupted |= self.options.source.is_none() && self.own.keeps_older(version.id)?;
        }
        Ok(KekStatus {
            source: self.source_kind(),
            versions,
            unreadable,
            held_by_customers,
            is_rotating,
            is_interrupted,
        })
    }

    pub(super) fn begin(&self) -> Result<std::sync::MutexGuard<'_, ()>, KeyError> {
        match self.rotating.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(KeyError::Rotating),
        }
    }

    /// Wraps one file again, and says with which version it was wrapped; not if it is gone, or
    /// wrapped with the current version already.
    fn rewrap(&self, file: &WrappedFile) -> Result<Option<KekId>, KeyError> {
        let _changing = lock(&self.changing);
        let Some(opened) = self.read(&file.path, file.magic, &file.name)? else { return Ok(None) };
        if opened.kek == self.ring().current.id() {
            return Ok(None);
        }
        // What a customer wrapped stays wrapped: only the node's own layer changes.
        let spec = opened.spec.as_ref().and_then(encode_spec);
        self.write(&file.path, file.magic, &file.name, spec.as_deref(), &opened.plain)?;
        Ok(Some(opened.kek))
    }

    /// Lets go of older versions, and destroys those that are the store's own. Only when nothing is
    /// wrapped with them.
    fn retire(&self) -> Result<(Vec<KekId>, Vec<KekId>), KeyError> {
        let ring = self.ring();
        let is_replaced = self.options.source.is_some();
        let mut destroyed = Vec::new();
        for kek in &ring.older {
            if self.own.retire(kek.id(), is_replaced)? {
                destroyed.push(kek.id());
            }
        }
        let retired = ring.older.iter().map(|kek| kek.id()).collect();
        let left = super::Ring { current: Arc::clone(&ring.current), older: Vec::new() };
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(left);
        Ok((retired, destroyed))
    }
}
