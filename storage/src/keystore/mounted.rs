//! Keys in files that somebody else puts there and changes: one file, or a directory of mounted
//! secrets with one file for each version.
//!
//! In a directory every file is a version and its name is the version's name. Names that begin with
//! a dot are not looked at, nor are directories. A file named `current` says which version is the
//! current one: by being a link to it, or by holding its name. Without it the highest name in byte
//! order is the current one.
//!
//! Refuses: what everybody can read, what is no ordinary file, and more bytes than a key has.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::source::Kek as _;
use super::source::{
    KekSource, RawKek, SourceError, VERSIONS_MAX, Versions, decode_key, versions_of,
};

/// A file with a key or a PIN is no longer than this, in bytes.
const FILE_BYTES_MAX: u64 = 4096;
/// Names the version that is current.
const CURRENT: &str = "current";

/// Reads a small secret file; links are followed.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let is_too = |reason: &str| SourceError::io(path)(io::Error::other(reason.to_owned()));
    // Looked at before it is opened: opening a pipe would wait for whoever writes into it.
    if !fs::metadata(path).map_err(SourceError::io(path))?.is_file() {
        return Err(is_too("it is no ordinary file"));
    }
    let file = File::open(path).map_err(SourceError::io(path))?;
    let metadata = file.metadata().map_err(SourceError::io(path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(SourceError::Exposed { path: path.to_owned(), mode });
    }
    // Room for all of it from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(SourceError::io(path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(is_too("it is longer than a key"));
    }
    Ok(bytes)
}

fn read_key(path: &Path, name: &str) -> Result<RawKek, SourceError> {
    let bytes = read_secret(path)?;
    let key = decode_key(&bytes, &path.display().to_string())?;
    Ok(RawKek::new(&key, name, None))
}

/// One file with one key.
#[derive(Debug)]
pub(super) struct FileSource {
    pub(super) path: PathBuf,
}

impl KekSource for FileSource {
    fn versions(&self) -> Result<Versions, SourceError> {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let kek = read_key(&self.path, &name.unwrap_or_default())?;
        versions_of(vec![kek], 0, &self.path.display().to_string())
    }
}

/// A directory with one file for each version.
#[derive(Debug)]
pub(super) struct DirectorySource {
    pub(super) path: PathBuf,
}

impl DirectorySource {
    /// The names of the versions, in byte order.
    fn names(&self) -> Result<Vec<String>, SourceError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(SourceError::io(&self.path))? {
            let entry = entry.map_err(SourceError::io(&self.path))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || name == CURRENT {
                continue;
            }
            let path = entry.path();
            if !fs::metadata(&path).map_err(SourceError::io(&path))?.is_dir() {
                names.push(name);
            }
        }
        names.sort();
        if names.len() > VERSIONS_MAX {
            let why = io::Error::other(format!("it holds more than {VERSIONS_MAX} keys"));
            return Err(SourceError::io(&self.path)(why));
        }
        Ok(names)
    }

    /// Which of `keks` is said to be current, if it is said.
    fn said(&self, keks: &[RawKek]) -> Result<Option<usize>, SourceError> {
        let path = self.path.join(CURRENT);
        let bytes = match read_secret(&path) {
            Ok(bytes) => bytes,
            Err(SourceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // A link that leads nowhere is not the same as none.
                return match fs::symlink_metadata(&path) {
                    Ok(_) => Err(SourceError::NoCurrent { path }),
                    Err(_) => Ok(None),
                };
            }
            // A name is no secret, so whoever may read it may.
            Err(SourceError::Exposed { .. }) => crate::scratch::read_secret(&path, FILE_BYTES_MAX)
                .map_err(SourceError::io(&path))?,
            Err(error) => return Err(error),
        };
        let named = keks.iter().position(|kek| kek.name().as_bytes() == bytes.trim_ascii());
        let found = named.or_else(|| {
            let key = decode_key(&bytes, CURRENT).ok()?;
            let id = RawKek::new(&key, CURRENT, None).id();
            keks.iter().position(|kek| kek.id() == id)
        });
        found.map(Some).ok_or(SourceError::NoCurrent { path })
    }
}

impl KekSource for DirectorySource {
    fn versions(&self) -> Result<Versions, SourceError> {
        let read = |name: &String| read_key(&self.path.join(name), name);
        let keks = self.names()?.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let current = match self.said(&keks)? {
            Some(current) => current,
            None => keks.len().saturating_sub(1),
        };
        versions_of(keks, current, &self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests;
