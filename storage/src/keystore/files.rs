//! Files with keys in them: made whole, replaced whole, and overwritten before they go.
//!
//! Refuses: to leave what was replaced on the disk to be found, as far as the disk lets one say so.

use std::io;
use std::path::{Path, PathBuf};

use super::KeyError;
use super::frame::{HEADER_BYTES, SECRET_MAGIC, TENANT_MAGIC};
use crate::disk::{Disk, DiskFile, OpenMode};

pub(super) const SECRET_SUFFIX: &str = ".sealed";
const TENANT_SUFFIX: &str = ".key";

pub(super) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { path, source }
}

/// Makes a directory whose name lasts.
pub(super) fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<(), KeyError> {
    let parent = dir.parent().unwrap_or(dir);
    let make = || {
        disk.create_dir_all(dir)?;
        disk.restrict_dir(dir)?;
        disk.sync_dir(parent)
    };
    make().map_err(io_at(dir))
}

/// A file's bytes; nothing if it is not there, or was overwritten but not yet removed when the power
/// went.
pub(super) fn read_if_any(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, KeyError> {
    let read = || match disk.read(path) {
        Ok(bytes) if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_at(path)(error)),
    };
    match read()? {
        Some(bytes) => Ok(Some(bytes)),
        // Zeros may be what is left of a file that another one has just replaced.
        None => read(),
    }
}

/// Replaces a file whole, and then overwrites what it replaced: the disk keeps the bytes of a file
/// that merely lost its name.
pub(super) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let old = open_if_any(disk, path)?;
    let write = || {
        disk.write_atomic(path, bytes)?;
        old.as_deref().map_or(Ok(()), overwrite)
    };
    write().map_err(io_at(path))
}

/// Overwrites and removes a file; says whether it was there.
pub(super) fn shred(disk: &dyn Disk, path: &Path) -> Result<bool, KeyError> {
    let parent = path.parent().expect("the path was made by joining");
    let Some(file) = open_if_any(disk, path)? else { return Ok(false) };
    let shred = || {
        overwrite(&*file)?;
        disk.remove(path)?;
        disk.sync_dir(parent)
    };
    shred().map_err(io_at(path))?;
    Ok(true)
}

fn open_if_any(disk: &dyn Disk, path: &Path) -> Result<Option<Box<dyn DiskFile>>, KeyError> {
    match disk.open(path, OpenMode::Write) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_at(path)(error)),
    }
}

fn overwrite(file: &dyn DiskFile) -> io::Result<()> {
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    file.write_at(0, &vec![0; length.max(HEADER_BYTES)])?;
    file.sync()
}

/// A wrapped file.
#[derive(Debug)]
pub(super) struct WrappedFile {
    pub(super) path: PathBuf,
    pub(super) magic: &'static [u8; 4],
    /// The name its content is bound to.
    pub(super) name: String,
}

/// Every wrapped file, directory by directory.
pub(super) fn wrapped<'a>(
    disk: &'a dyn Disk,
    dir: &'a Path,
) -> impl Iterator<Item = Result<WrappedFile, KeyError>> + 'a {
    let subdirs = (0..=u8::MAX).map(|byte| dir.join("tenants").join(format!("{byte:02x}")));
    std::iter::once(dir.to_owned()).chain(subdirs).flat_map(|dir| match disk.list(&dir) {
        Ok(paths) => paths.into_iter().filter_map(known).map(Ok).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => vec![Err(io_at(&dir)(error))],
    })
}

fn known(path: PathBuf) -> Option<WrappedFile> {
    let file = path.file_name()?.to_str()?;
    let (magic, name) = match (file.strip_suffix(TENANT_SUFFIX), file.strip_suffix(SECRET_SUFFIX)) {
        (Some(name), _) => (TENANT_MAGIC, name.to_owned()),
        (None, Some(name)) => (SECRET_MAGIC, name.to_owned()),
        (None, None) => return None,
    };
    Some(WrappedFile { path, magic, name })
}

/// Whether there is any.
pub(super) fn has_wrapped(disk: &dyn Disk, dir: &Path) -> Result<bool, KeyError> {
    wrapped(disk, dir).next().transpose().map(|found| found.is_some())
}
