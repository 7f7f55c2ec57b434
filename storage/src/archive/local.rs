//! An archive in a directory of this machine, or of a file system mounted on it.
//!
//! An object is written under `.drafts`, synced, and only then renamed to its name; the directories
//! on the way are synced too. So a crash leaves a whole object or none, and drafts that nobody holds
//! are swept when the archive is opened. Refuses to widen access: its files are the owner's alone.

use std::collections::HashSet;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use crate::archive::Archive;
use crate::archive::ArchiveError;
use crate::archive::ObjectInfo;
use crate::archive::name;
use crate::disk::Disk as _;
use crate::disk::RealDisk;

/// Where unfinished objects are. No object's name begins with a dot.
const DRAFTS: &str = ".drafts";
/// How often an object is given its name while others remove the directory it belongs into.
const PUBLISH_TRIES: u32 = 8;
/// How much of a file is copied at a time.
const COPY_BYTES: usize = 256 << 10;
/// How much of an object is written before it is synced.
const SYNC_BYTES: usize = 4 << 20;

/// An archive in a directory.
#[derive(Debug)]
pub struct LocalArchive {
    root: PathBuf,
    next_draft: AtomicU64,
    /// Directories that are known to be durable under their names.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalArchive {
    /// Opens the archive in `root`, which is made if need be, and sweeps what crashed writers left.
    ///
    /// # Errors
    /// If the directory cannot be made or written.
    pub fn open(root: &Path) -> Result<Self, ArchiveError> {
        let (next_draft, durable) = (AtomicU64::new(0), Mutex::default());
        let archive = Self { root: root.to_owned(), next_draft, durable };
        make_root(root).map_err(|error| archive.unwritten(&error))?;
        archive.sweep().map_err(|error| archive.unwritten(&error))?;
        Ok(archive)
    }

    fn path(&self, name: &str) -> Result<PathBuf, ArchiveError> {
        name::check(name)?;
        Ok(self.root.join(name))
    }

    /// Removes the drafts that no living process holds.
    fn sweep(&self) -> io::Result<()> {
        let drafts = self.root.join(DRAFTS);
        make_dir(&drafts)?;
        for path in RealDisk.list(&drafts)? {
            let file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match file.try_lock() {
                Ok(()) => remove_if_there(&path)?,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn draft(&self) -> io::Result<Draft> {
        loop {
            let number = self.next_draft.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(DRAFTS).join(format!("{}-{number}", std::process::id()));
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let file = match made {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made?,
            };
            file.lock()?;
            // Somebody may have swept it between its making and its locking.
            if path.exists() {
                return Ok(Draft { path, file, is_named: false });
            }
        }
    }

    /// Writes an object: all of it, synced, and then under its name.
    fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let target = self.path(name)?;
        let mut draft = self.draft().map_err(|error| self.unwritten(&error))?;
        fill(&mut draft.file)?;
        let synced = draft.file.sync_all();
        synced
            .and_then(|()| self.publish(&mut draft, &target))
            .map_err(|error| self.unwritten(&error))
    }

    fn publish(&self, draft: &mut Draft, target: &Path) -> io::Result<()> {
        let parent = target.parent().unwrap_or(&self.root);
        let mut tries_left = PUBLISH_TRIES;
        loop {
            tries_left -= 1;
            let named = self.make_dirs(parent).and_then(|()| fs::rename(&draft.path, target));
            match named {
                // Somebody removed the last object beside it, and the directory with it.
                Err(error) if error.kind() == ErrorKind::NotFound && tries_left > 0 => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    draft.is_named = true;
                    return RealDisk.sync_dir(parent);
                }
            }
        }
    }

    /// Makes `dir` and its parents below the root. One that is there already is synced the first time: its
    /// maker may have died before that.
    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        let below = dir.strip_prefix(&self.root).map_err(io::Error::other)?;
        let mut at = self.root.clone();
        for part in below.components() {
            let child = at.join(part);
            let is_new = make_dir(&child)?;
            if is_new || !self.durable().contains(&child) {
                RealDisk.sync_dir(&at)?;
                self.durable().insert(child.clone());
            }
            at = child;
        }
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // Single paths are put in and taken out, so a poisoned lock still guards a sound set.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten(&self, error: &io::Error) -> ArchiveError {
        refusal(error, format!("{}: {error}", self.root.display()))
    }

    fn unread(&self, name: &str, error: &io::Error) -> ArchiveError {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                ArchiveError::Missing { name: name.to_owned() }
            }
            _ => refusal(error, format!("{}: {error}", self.root.join(name).display())),
        }
    }

    fn open_file(&self, name: &str) -> Result<File, ArchiveError> {
        let path = self.path(name)?;
        let opened = File::open(&path).and_then(|file| {
            let is_file = file.metadata()?.is_file();
            if is_file { Ok(file) } else { Err(ErrorKind::IsADirectory.into()) }
        });
        opened.map_err(|error| self.unread(name, &error))
    }

    /// Collects the objects below `dir`, whose names begin with `prefix`.
    fn collect(&self, dir: &Path, prefix: &str, found: &mut Vec<ObjectInfo>) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(error) if is_absence(&error) => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Some(part) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let name = if prefix.is_empty() { part } else { format!("{prefix}/{part}") };
            let kind = entry.file_type()?;
            if name::check(&name).is_err() {
                continue;
            } else if kind.is_dir() {
                self.collect(&entry.path(), &name, found)?;
            } else if kind.is_file() {
                match entry.metadata() {
                    // Removed meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    metadata => found.push(info(name, &metadata?)),
                }
            }
        }
        Ok(())
    }
}

impl Archive for LocalArchive {
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        self.write(name, |file| file.write_all(&bytes).map_err(|error| self.unwritten(&error)))
    }

    fn put_file(&self, name: &str, path: &Path) -> Result<(), ArchiveError> {
        let mut source = File::open(path).map_err(|error| super::unreadable(path, &error))?;
        self.write(name, |file| copy(&mut source, file).map_err(|error| self.unwritten(&error)))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        let mut file = self.open_file(name)?;
        file.read_to_end(&mut bytes).map_err(|error| self.unread(name, &error))?;
        Ok(bytes)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, ArchiveError> {
        let file = self.open_file(name)?;
        let read = || {
            let end = range.end.min(file.metadata()?.len());
            let len = usize::try_from(end.saturating_sub(range.start)).map_err(io::Error::other)?;
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        };
        read().map_err(|error| self.unread(name, &error))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, ArchiveError> {
        Ok(Box::new(self.open_file(name)?))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, ArchiveError> {
        let path = self.path(name)?;
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(self.unread(name, &error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ArchiveError> {
        name::check_prefix(prefix)?;
        let mut found = Vec::new();
        let collected = self.collect(&self.root.join(prefix), prefix, &mut found);
        collected.map_err(|error| self.unread(prefix, &error))?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        let path = self.path(name)?;
        if self.size(name)?.is_none() {
            return Ok(());
        }
        let remove = || {
            remove_if_there(&path)?;
            // Directories that nothing is in any more go too; one that something is in stays.
            let mut emptied = path.parent();
            while let Some(dir) = emptied.filter(|dir| *dir != self.root) {
                if fs::remove_dir(dir).is_err() {
                    break;
                }
                self.durable().remove(dir);
                emptied = dir.parent();
            }
            match emptied.map(|dir| RealDisk.sync_dir(dir)) {
                Some(Err(error)) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        remove().map_err(|error: io::Error| self.unwritten(&error))
    }

    fn location(&self) -> String {
        format!("file://{}", self.root.display())
    }
}

/// An unfinished object, locked while it is written and gone unless it got its name.
struct Draft {
    path: PathBuf,
    file: File,
    is_named: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_named {
            // One that stays all the same is swept at the next opening.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

fn make_root(root: &Path) -> io::Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let parent = root.parent().unwrap_or(Path::new("/"));
    make_root(parent)?;
    make_dir(root)?;
    RealDisk.sync_dir(parent)
}

/// Makes a directory; answers whether it was not there before.
fn make_dir(dir: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(false),
        made => made.map(|()| true),
    }
}

/// Copies a file in pieces that are synced one by one: the log may be on the same disk, and its syncs wait
/// behind whatever is queued there.
fn copy(source: &mut File, target: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut unsynced = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        target.write_all(&buffer[..read])?;
        unsynced += read;
        if unsynced >= SYNC_BYTES {
            target.sync_data()?;
            unsynced = 0;
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn refusal(error: &io::Error, reason: String) -> ArchiveError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            ArchiveError::Full { reason }
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            ArchiveError::Refused { reason }
        }
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            ArchiveError::Misconfigured { reason }
        }
        _ => ArchiveError::Unreachable { reason },
    }
}

fn info(name: String, metadata: &fs::Metadata) -> ObjectInfo {
    let age = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let modified_ms = age.and_then(|age| u64::try_from(age.as_millis()).ok()).unwrap_or(0);
    ObjectInfo { name, bytes: metadata.len(), modified_ms }
}
