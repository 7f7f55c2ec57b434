//! The data directory itself: who uses it, and which format it has.
//!
//! Refuses: a directory another process holds, one of a newer format, and one that has data but no
//! format.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{OpenError, io_at};
use crate::disk::{Disk, RealDisk};
use crate::seal::Random;

/// The format this release writes, and the newest it reads.
pub const FORMAT: u32 = 1;

const FORMAT_NAME: &str = "bulkhead ";
/// The file that marks a directory in which a restore was not brought to its end.
const RESTORING: &str = "RESTORING";

/// A new data directory that a restore fills. Nothing opens it before [`finish`](Self::finish), also
/// not after this was dropped.
pub struct UnfinishedDir {
    dir: PathBuf,
    _lock: DataDir,
}

impl UnfinishedDir {
    /// Makes the directory, or takes an empty one.
    ///
    /// # Errors
    /// [`OpenError::NotEmpty`] if anything is in it, [`OpenError::Unfinished`] if that is what an
    /// earlier restore left.
    pub fn begin(dir: &Path) -> Result<Self, OpenError> {
        if dir.join(RESTORING).exists() {
            return Err(OpenError::Unfinished { dir: dir.to_owned() });
        }
        match std::fs::read_dir(dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(OpenError::NotEmpty { dir: dir.to_owned() });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_at(dir)(error)),
        }
        let lock = DataDir::lock(dir)?;
        let marker = dir.join(RESTORING);
        let text = b"A restore into this directory was not finished. Remove the directory and restore again.\n";
        RealDisk.write_atomic(&marker, text).map_err(io_at(&marker))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Lets the directory be opened. What is in it must be durable by now.
    pub fn finish(self) -> Result<(), OpenError> {
        let marker = self.dir.join(RESTORING);
        RealDisk.sync_dir(&self.dir).map_err(io_at(&self.dir))?;
        RealDisk.remove(&marker).map_err(io_at(&marker))?;
        RealDisk.sync_dir(&self.dir).map_err(io_at(&self.dir))
    }
}

/// A directory this process alone uses, as long as this lives.
pub(crate) struct DataDir {
    /// The system gives the lock back when the file is closed, however the process ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, locks it and checks its format.
    pub(crate) fn lock(dir: &Path) -> Result<Self, OpenError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir).map_err(io_at(dir))?;
        RealDisk.restrict_dir(dir).map_err(io_at(dir))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            RealDisk.sync_dir(parent).map_err(io_at(parent))?;
        }
        let path = dir.join("LOCK");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(io_at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = holder(&mut file).unwrap_or_else(|| "unknown".to_owned());
                return Err(OpenError::InUse { dir: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(io_at(&path)(error)),
        }
        write_pid(&mut file).map_err(io_at(&path))?;
        if dir.join(RESTORING).exists() {
            return Err(OpenError::Unfinished { dir: dir.to_owned() });
        }
        check_format(dir)?;
        Ok(Self { _lock: file })
    }
}

/// What tells this directory from every other: random, made once, never copied by a backup.
pub(crate) fn identity(dir: &Path, random: &dyn Random) -> io::Result<String> {
    let path = dir.join("NODE");
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let mut bytes = [0; 16];
    random.fill(&mut bytes).map_err(io::Error::other)?;
    let text = hex::encode(bytes);
    RealDisk.write_atomic(&path, format!("{text}\n").as_bytes())?;
    Ok(text)
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The pid in a lock file, if it holds one.
fn holder(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    let pid = text.trim();
    (!pid.is_empty()).then(|| pid.to_owned())
}

fn check_format(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join("FORMAT");
    let unreadable = || OpenError::NoFormat { path: path.clone() };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let number = text.strip_prefix(FORMAT_NAME).ok_or_else(unreadable)?;
            let format = number.trim_end().parse().map_err(|_| unreadable())?;
            if format > FORMAT {
                return Err(OpenError::NewerFormat { dir: dir.to_owned(), format });
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The format is written before anything else, so data without one is not ours.
            if ["keys", "log", "view"].iter().any(|name| dir.join(name).exists()) {
                return Err(unreadable());
            }
            let text = format!("{FORMAT_NAME}{FORMAT}\n");
            RealDisk.write_atomic(&path, text.as_bytes()).map_err(io_at(&path))
        }
        Err(error) => Err(io_at(&path)(error)),
    }
}
