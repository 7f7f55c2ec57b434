//! The node's own key-encryption keys: files in the key store's directory.
//!
//! `kek` is the current version, `kek.<id>` is an older one that something is still wrapped with. Both
//! are `BKEK`: version 1 holds 32 secret bytes; version 2 says before them when they were made, because
//! a file's own time changes with every copy.
//!
//! Refuses: a file that others can read, and one whose name is not that of the key in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::frame::{KEK_MAGIC, checked, framed};
use super::source::{Kek, KekId, RawKek};
use super::{KeyError, io_at, shred};
use crate::disk::Disk;
use crate::seal::Random;

const CURRENT: &str = "kek";
const NEWEST: u8 = 2;
/// What a version is renamed to before it is overwritten: half of it must not look like damage.
const GONE: &str = ".gone";

/// The files of one directory.
pub(super) struct OwnKeks {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// The versions that are there.
#[derive(Default)]
pub(super) struct Found {
    pub(super) current: Option<Arc<dyn Kek>>,
    pub(super) older: Vec<Arc<dyn Kek>>,
}

impl OwnKeks {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned() }
    }

    /// Where the current version is.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(CURRENT)
    }

    fn old_path(&self, id: KekId) -> PathBuf {
        self.dir.join(format!("{CURRENT}.{id}"))
    }

    /// The paths of older versions, and what an interrupted write left of any.
    fn others(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), KeyError> {
        let (mut older, mut unfinished) = (Vec::new(), Vec::new());
        for path in self.disk.list(&self.dir).map_err(io_at(&self.dir))? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(rest) = name.strip_prefix("kek.") else { continue };
            let is_id =
                |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
            if is_id(rest) {
                older.push(path);
            } else if rest == "new"
                || rest.strip_suffix(".new").is_some_and(is_id)
                || rest.strip_suffix(GONE).is_some_and(is_id)
            {
                unfinished.push(path);
            }
        }
        Ok((older, unfinished))
    }

    /// Removes what interrupted writes left, each a whole secret or part of one; the copy of the
    /// current version that a rotation kept before it went no further; and versions that were being
    /// destroyed.
    pub(super) fn tidy(&self) -> Result<(), KeyError> {
        let (_, mut unneeded) = self.others()?;
        unneeded.extend(self.read_one(&self.path())?.map(|current| self.old_path(current.id())));
        unneeded.iter().try_for_each(|path| shred(&*self.disk, path).map(|_| ()))
    }

    /// Reads every version.
    pub(super) fn read(&self) -> Result<Found, KeyError> {
        let mut found = Found { current: self.read_one(&self.path())?.map(as_kek), older: vec![] };
        for path in self.others()?.0 {
            let Some(kek) = self.read_one(&path)? else { continue };
            if path != self.old_path(kek.id()) {
                return Err(KeyError::Damaged { path });
            }
            if found.current.as_ref().is_none_or(|current| current.id() != kek.id()) {
                found.older.push(as_kek(kek));
            }
        }
        Ok(found)
    }

    /// Reads one version; nothing if it is not there, or was overwritten but not yet removed when
    /// the power went.
    fn read_one(&self, path: &Path) -> Result<Option<RawKek>, KeyError> {
        let bytes = match self.disk.read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_at(path)(error)),
        };
        if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        match self.disk.permissions(path).map_err(io_at(path))? {
            Some(mode) if mode & 0o077 != 0 => {
                Err(KeyError::KekExposed { path: path.to_owned(), mode })
            }
            _ => decode(path, &bytes).map(Some),
        }
    }

    /// Makes a first version.
    pub(super) fn make(&self, random: &dyn Random, now_ms: u64) -> Result<(), KeyError> {
        let mut body = Zeroizing::new([0; 8 + 32]);
        body[..8].copy_from_slice(&now_ms.to_be_bytes());
        random.fill(&mut body[8..])?;
        let bytes = Zeroizing::new(framed(KEK_MAGIC, NEWEST, &body[..]));
        let path = self.path();
        super::replace(&*self.disk, &path, &bytes)
    }

    /// Makes the next version and keeps the one before. After a power cut at any point everything
    /// that was wrapped opens under a version that is there.
    pub(super) fn renew(&self, random: &dyn Random, now_ms: u64) -> Result<(), KeyError> {
        let path = self.path();
        let bytes = Zeroizing::new(self.disk.read(&path).map_err(io_at(&path))?);
        let kept = self.old_path(decode(&path, &bytes)?.id());
        super::replace(&*self.disk, &kept, &bytes)?;
        self.make(random, now_ms)
    }

    /// Whether this is an older version that is kept here.
    pub(super) fn keeps_older(&self, id: KekId) -> Result<bool, KeyError> {
        Ok(self.read_one(&self.old_path(id))?.is_some())
    }

    /// Destroys the files of a version that nothing needs any more; true if there was one. `current`
    /// goes too, but only if another source took its place.
    pub(super) fn retire(&self, id: KekId, is_replaced: bool) -> Result<bool, KeyError> {
        let mut was_here = self.destroy(&self.old_path(id), id)?;
        let current = self.path();
        if is_replaced && self.read_one(&current)?.is_some_and(|kek| kek.id() == id) {
            was_here |= self.destroy(&current, id)?;
        }
        Ok(was_here)
    }

    fn destroy(&self, path: &Path, id: KekId) -> Result<bool, KeyError> {
        let gone = self.dir.join(format!("{CURRENT}.{id}{GONE}"));
        match self.disk.rename(path, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_at(path)(error)),
            Ok(()) => self.disk.sync_dir(&self.dir).map_err(io_at(path))?,
        }
        shred(&*self.disk, &gone)
    }
}

/// Which version of the key-encryption key the bytes of a file `kek` are. `path` is for messages only.
///
/// # Errors
/// [`KeyError::Damaged`] if they are none, [`KeyError::NewerVersion`].
pub fn kek_id_of(path: &Path, bytes: &[u8]) -> Result<KekId, KeyError> {
    decode(path, bytes).map(|kek| kek.id())
}

fn as_kek(kek: RawKek) -> Arc<dyn Kek> {
    Arc::new(kek)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<RawKek, KeyError> {
    let damaged = || KeyError::Damaged { path: path.to_owned() };
    let (version, mut secret) = checked(path, KEK_MAGIC, NEWEST, bytes)?;
    let mut created_ms = None;
    if version == NEWEST {
        let (at, rest) = secret.split_first_chunk::<8>().ok_or_else(damaged)?;
        created_ms = Some(u64::from_be_bytes(*at));
        secret = rest;
    }
    let secret: &[u8; 32] = secret.try_into().map_err(|_| damaged())?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(RawKek::new(secret, name.unwrap_or_default(), created_ms))
}
