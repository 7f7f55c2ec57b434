//! A file system in memory that fails on command and loses power when told.
//!
//! It keeps two pictures: what programs see, and what would survive a power cut. A write moves from
//! the first to the second only by [`DiskFile::sync`], a name only by [`Disk::sync_dir`]. It is
//! stricter than real file systems on purpose: nothing lasts by luck unless [`Survival`] says so.
//!
//! Operations that change something are counted from 0, so that a test can break every single one.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::Disk;
use super::DiskFile;
use super::OpenMode;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error and no effect. A sync that fails so loses its bytes for good, as Linux does: the
    /// next sync of the file succeeds without them.
    Error,
    /// An error, though the operation took effect: half of the bytes of a write, all of the rest.
    Partial,
    /// No space is left. Half of the bytes of a write are in the file.
    NoSpace,
}

/// What of the unsynced changes is on the disk after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing but what was synced.
    Synced,
    /// The first `changes` unsynced changes, and `torn_bytes` of the next one if it is a write.
    Prefix {
        /// How many changes survive whole.
        changes: usize,
        /// How many bytes of the write after them survive.
        torn_bytes: usize,
    },
    /// The changes whose bit is set, in order; changes past the 64th are lost.
    Subset(u64),
    /// All of them. Also the way to copy a disk.
    Everything,
}

#[derive(Debug, Clone)]
enum Change {
    Write { file: usize, offset: usize, bytes: Vec<u8> },
    Length { file: usize, len: usize },
    Name { path: PathBuf, file: Option<usize> },
    Rename { from: PathBuf, to: PathBuf, file: usize },
}

impl Change {
    fn concerns_dir(&self, dir: &Path) -> bool {
        match self {
            Self::Write { .. } | Self::Length { .. } => false,
            Self::Name { path, .. } | Self::Rename { to: path, .. } => path.parent() == Some(dir),
        }
    }

    fn concerns_file(&self, wanted: usize) -> bool {
        match self {
            Self::Write { file, .. } | Self::Length { file, .. } => *file == wanted,
            Self::Name { .. } | Self::Rename { .. } => false,
        }
    }
}

/// One picture of the file system: names and contents.
#[derive(Debug, Clone, Default)]
struct Picture {
    names: BTreeMap<PathBuf, usize>,
    contents: Vec<Vec<u8>>,
}

impl Picture {
    fn content(&mut self, file: usize) -> &mut Vec<u8> {
        if self.contents.len() <= file {
            self.contents.resize(file + 1, Vec::new());
        }
        &mut self.contents[file]
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { file, offset, bytes } => {
                let content = self.content(*file);
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Change::Length { file, len } => self.content(*file).resize(*len, 0),
            Change::Name { path, file: Some(file) } => {
                self.content(*file); // so that the number is taken, even if no byte survives
                self.names.insert(path.clone(), *file);
            }
            Change::Name { path, file: None } => {
                self.names.remove(path);
            }
            Change::Rename { from, to, file } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *file);
            }
        }
    }

    fn bytes(&self) -> usize {
        self.names.values().filter_map(|file| self.contents.get(*file)).map(Vec::len).sum()
    }
}

#[derive(Debug, Default)]
struct State {
    seen: Picture,
    synced: Picture,
    unsynced: Vec<Change>,
    dirs: BTreeSet<PathBuf>,
    operations: u64,
    reads: u64,
    faults: BTreeMap<u64, Fault>,
    read_faults: BTreeSet<u64>,
    power_until: Option<u64>,
    bytes_max: Option<usize>,
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

fn no_file() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl State {
    fn has_power(&self) -> bool {
        self.power_until.is_none_or(|until| self.operations < until)
    }

    /// Counts one changing operation and says how it fails.
    fn next_fault(&mut self) -> io::Result<Option<Fault>> {
        if !self.has_power() {
            return Err(no_power());
        }
        let fault = self.faults.get(&self.operations).copied();
        self.operations += 1;
        Ok(fault)
    }

    fn check_read(&mut self) -> io::Result<()> {
        if !self.has_power() {
            return Err(no_power());
        }
        self.reads += 1;
        if self.read_faults.contains(&(self.reads - 1)) {
            return Err(io::Error::other("injected read error"));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.unsynced.push(change);
    }

    /// Runs a change that either happens whole or not at all.
    fn change_or_fail(&mut self, change: Change) -> io::Result<()> {
        match self.next_fault()? {
            None => {
                self.change(change);
                Ok(())
            }
            Some(Fault::Partial) => {
                self.change(change);
                Err(injected(Fault::Partial))
            }
            Some(fault) => Err(injected(fault)),
        }
    }

    /// Fails if `more` bytes do not fit.
    fn reserve(&self, more: usize) -> io::Result<()> {
        match self.bytes_max {
            Some(bytes_max) if self.seen.bytes() + more > bytes_max => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    /// Moves the wanted changes to what survives, or drops them.
    fn settle(&mut self, keep: bool, wanted: impl Fn(&Change) -> bool) {
        let (settled, rest) = std::mem::take(&mut self.unsynced).into_iter().partition(wanted);
        let settled: Vec<Change> = settled;
        self.unsynced = rest;
        if keep {
            settled.iter().for_each(|change| self.synced.apply(change));
        }
    }

    fn sync(&mut self, wanted: impl Fn(&Change) -> bool) -> io::Result<()> {
        let fault = self.next_fault()?;
        self.settle(matches!(fault, None | Some(Fault::Partial)), wanted);
        fault.map_or(Ok(()), |fault| Err(injected(fault)))
    }

    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.next_fault()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let growth = (offset + bytes.len()).saturating_sub(self.seen.content(file).len());
        let full = self.reserve(growth).err();
        let half = match (fault, &full) {
            (None, None) => bytes.len(),
            (Some(Fault::Error), _) => 0,
            _ => bytes.len() / 2,
        };
        if half > 0 {
            self.change(Change::Write { file, offset, bytes: bytes[..half].to_vec() });
        }
        match (fault, full) {
            (Some(fault), _) => Err(injected(fault)),
            (None, Some(full)) => Err(full),
            (None, None) => Ok(()),
        }
    }
}

fn injected(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => io::ErrorKind::StorageFull.into(),
        Fault::Error | Fault::Partial => io::Error::other("injected error"),
    }
}

/// The disk to break. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct FaultDisk(Arc<Mutex<State>>);

impl FaultDisk {
    /// An empty disk that works.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changing operations there were. The next one has this number.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many changes a power cut could take.
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// Lets the changing operation with this number fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// Lets the read with this number, counted from the next one, fail.
    pub fn fail_read_in(&self, reads: u64) {
        let mut state = self.state();
        let number = state.reads + reads;
        state.read_faults.insert(number);
    }

    /// Cuts the power after so many changing operations: all later ones and all reads fail.
    pub fn cut_power_after(&self, operations: u64) {
        self.state().power_until = Some(operations);
    }

    /// Limits all files together; nothing means no limit.
    pub fn limit_bytes(&self, bytes_max: Option<usize>) {
        self.state().bytes_max = bytes_max;
    }

    /// The paths of all files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().seen.names.keys().cloned().collect()
    }

    /// The bytes of all files together.
    pub fn bytes(&self) -> usize {
        self.state().seen.bytes()
    }

    /// Damages a file behind everybody's back, on the disk too.
    pub fn damage(&self, path: &Path, damage: impl Fn(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.state();
        let file = *state.seen.names.get(path).ok_or_else(no_file)?;
        damage(state.seen.content(file));
        damage(state.synced.content(file));
        Ok(())
    }

    /// The disk as the next start finds it after a power cut, without faults and limits. This one
    /// stays as it is, so that one cut can be looked at with every [`Survival`].
    pub fn restart(&self, survival: Survival) -> Self {
        let state = self.state();
        let mut picture = state.synced.clone();
        for (at, change) in state.unsynced.iter().enumerate() {
            match survival {
                Survival::Synced => {}
                Survival::Everything => picture.apply(change),
                Survival::Subset(bits) if at < 64 && bits >> at & 1 == 1 => picture.apply(change),
                Survival::Subset(_) => {}
                Survival::Prefix { changes, .. } if at < changes => picture.apply(change),
                Survival::Prefix { changes, torn_bytes } if at == changes => {
                    if let Change::Write { file, offset, bytes } = change {
                        let bytes = bytes[..torn_bytes.min(bytes.len())].to_vec();
                        picture.apply(&Change::Write { file: *file, offset: *offset, bytes });
                    }
                }
                Survival::Prefix { .. } => {}
            }
        }
        let dirs = state.dirs.clone();
        let after = State { seen: picture.clone(), synced: picture, dirs, ..State::default() };
        Self(Arc::new(Mutex::new(after)))
    }
}

impl Disk for FaultDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.check_read()?;
        if !state.dirs.contains(dir) {
            return Err(no_file());
        }
        let names = state.seen.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.cloned().collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        if !state.has_power() {
            return Err(no_power());
        }
        let known = state.seen.names.get(path).copied();
        let file = match (known, mode) {
            (Some(file), OpenMode::Read | OpenMode::Write) => file,
            (Some(file), OpenMode::Create) => {
                state.change_or_fail(Change::Length { file, len: 0 })?;
                file
            }
            (None, OpenMode::Create) => {
                if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
                    return Err(no_file());
                }
                let file = state.seen.contents.len();
                state.change_or_fail(Change::Name { path: path.into(), file: Some(file) })?;
                state.seen.content(file);
                file
            }
            (None, OpenMode::Read | OpenMode::Write) => return Err(no_file()),
        };
        drop(state);
        Ok(Box::new(FaultFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let file = *state.seen.names.get(from).ok_or_else(no_file)?;
        state.change_or_fail(Change::Rename { from: from.into(), to: to.into(), file })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.seen.names.contains_key(path) {
            return Err(no_file());
        }
        state.change_or_fail(Change::Name { path: path.into(), file: None })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().sync(|change| change.concerns_dir(dir))
    }
}

struct FaultFile {
    disk: FaultDisk,
    file: usize,
}

impl DiskFile for FaultFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.check_read()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let content = state.seen.content(self.file);
        let rest = content.get(offset..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.state().write(self.file, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().sync(|change| change.concerns_file(self.file))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.disk.state().change_or_fail(Change::Length { file: self.file, len })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut state = self.disk.state();
        let before = state.seen.content(self.file).len();
        let len = len.max(before);
        if let Err(full) = state.reserve(len - before) {
            state.next_fault()?;
            return Err(full);
        }
        state.change_or_fail(Change::Length { file: self.file, len })
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.check_read()?;
        Ok(state.seen.content(self.file).len() as u64)
    }
}

#[cfg(test)]
mod tests;
