//! A disk and an archive whose every change is a moment to crash at.
//!
//! The disk is the real one, because the archive's writers read complete segments from it, beside a
//! [`FaultDisk`] that is told the same and knows what a power cut would leave.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use storage::archive::memory::MemoryArchive;
use storage::archive::{Archive, ArchiveError, ObjectInfo};
use storage::disk::fault::{FaultDisk, Survival};
use storage::disk::{Disk, DiskFile, OpenMode, RealDisk};

use super::script::Model;

/// How a call of the archive fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Without an effect.
    Refused,
    /// With its effect, and without an answer.
    Unanswered,
}

/// What a crash leaves.
pub struct Moment {
    /// What was about to be done.
    before: String,
    number: usize,
    /// Whether the power went, and with it what was not synced.
    pub is_cut: bool,
    pub disk: FaultDisk,
    pub objects: BTreeMap<String, Object>,
    pub model: Model,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.is_cut { "power cut" } else { "kill" };
        write!(f, "{how} {} before {}", self.number, self.before)
    }
}

/// An object's bytes, and when it was written.
pub type Object = (Arc<Vec<u8>>, u64);

#[derive(Default)]
struct Seen {
    objects: BTreeMap<String, Object>,
    now_ms: u64,
    moments: Vec<Moment>,
    /// Whether there is something new for a kill, and for a power cut.
    is_new: bool,
    is_new_after_cut: bool,
    last_model: Option<Model>,
    /// Of every call whether it changes something.
    calls: Vec<bool>,
    failing: Option<(usize, Failure)>,
}

struct Shared {
    shadow: FaultDisk,
    archive: MemoryArchive,
    model: Mutex<Model>,
    seen: Mutex<Seen>,
}

/// The disk, the archive, and what was promised so far.
#[derive(Clone)]
pub struct Rig(Arc<Shared>);

impl Rig {
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            shadow: FaultDisk::new(),
            archive: MemoryArchive::new(),
            model: Mutex::default(),
            seen: Mutex::default(),
        }))
    }

    /// What was promised so far, to add to.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.0.model.lock().unwrap()
    }

    /// The archive's clock.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.0.archive.set_now_ms(now_ms);
        self.seen().now_ms = now_ms;
    }

    /// Lets a call of the archive fail, counted from 0.
    pub fn fail_at(&self, call: usize, failure: Failure) {
        self.seen().failing = Some((call, failure));
    }

    /// Every call of the archive, and whether it changed something.
    pub fn calls(&self) -> Vec<bool> {
        self.seen().calls.clone()
    }

    /// Every moment at which something could have ended.
    pub fn moments(&self) -> Vec<Moment> {
        std::mem::take(&mut self.seen().moments)
    }

    /// What a kill leaves now.
    pub fn now(&self) -> Moment {
        let (model, seen) = (self.model().clone(), self.seen());
        let disk = self.0.shadow.restart(Survival::Everything);
        let objects = seen.objects.clone();
        Moment { before: "the end".to_owned(), number: 0, is_cut: false, disk, objects, model }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap()
    }

    /// Something is about to be done: what went before is left by a crash here.
    fn before(&self, what: impl fmt::Display) {
        let model = self.model().clone();
        let mut seen = self.seen();
        if seen.failing.is_some() {
            // The moments of a script with a failure in it are not looked at.
            return;
        }
        let is_promised = seen.last_model.as_ref() != Some(&model);
        let kinds = [(false, seen.is_new), (true, seen.is_new_after_cut)];
        for (is_cut, is_new) in kinds {
            if !is_new && !is_promised {
                continue;
            }
            let survival = if is_cut { Survival::Synced } else { Survival::Everything };
            let moment = Moment {
                before: what.to_string(),
                number: seen.moments.len(),
                is_cut,
                disk: self.0.shadow.restart(survival),
                objects: seen.objects.clone(),
                model: model.clone(),
            };
            seen.moments.push(moment);
        }
        (seen.is_new, seen.is_new_after_cut, seen.last_model) = (false, false, Some(model));
    }

    /// Something was done.
    fn after(&self, is_durable: bool) {
        let mut seen = self.seen();
        seen.is_new = true;
        seen.is_new_after_cut |= is_durable;
    }

    /// Does the same to the real disk and its shadow.
    fn both<T>(
        &self,
        what: String,
        is_durable: bool,
        act: impl Fn(&dyn Disk) -> io::Result<T>,
    ) -> io::Result<(T, T)> {
        self.before(what);
        let done = (act(&RealDisk)?, act(&self.0.shadow)?);
        self.after(is_durable);
        Ok(done)
    }

    /// Counts a call, and makes it fail if it is the one.
    fn call<T>(
        &self,
        (what, is_change): (&str, bool),
        name: &str,
        act: impl FnOnce(&MemoryArchive) -> Result<T, ArchiveError>,
    ) -> Result<T, ArchiveError> {
        self.before(format!("{what} {name}"));
        let failure = {
            let mut seen = self.seen();
            let number = seen.calls.len();
            seen.calls.push(is_change);
            seen.failing.filter(|(call, _)| *call == number).map(|(_, failure)| failure)
        };
        let failed = || Err(ArchiveError::Unreachable { reason: "this call fails".to_owned() });
        if failure == Some(Failure::Refused) {
            return failed();
        }
        let done = act(&self.0.archive)?;
        if failure == Some(Failure::Unanswered) { failed() } else { Ok(done) }
    }
}

impl Disk for Rig {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.both(format!("making {}", dir.display()), true, |disk| disk.create_dir_all(dir))
            .map(drop)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode == OpenMode::Read {
            return RealDisk.open(path, mode);
        }
        let what = format!("opening {}", path.display());
        let (real, shadow) = self.both(what, false, |disk| disk.open(path, mode))?;
        let name = path.display().to_string();
        Ok(Box::new(RigFile { rig: self.clone(), name, real, shadow }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.both(format!("naming {}", to.display()), false, |disk| disk.rename(from, to)).map(drop)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.both(format!("removing {}", path.display()), false, |disk| disk.remove(path)).map(drop)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.both(format!("syncing {}", dir.display()), true, |disk| disk.sync_dir(dir)).map(drop)
    }
    fn restrict_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.restrict_dir(dir)
    }
    fn permissions(&self, path: &Path) -> io::Result<Option<u32>> {
        RealDisk.permissions(path)
    }
}

struct RigFile {
    rig: Rig,
    name: String,
    real: Box<dyn DiskFile>,
    shadow: Box<dyn DiskFile>,
}

impl RigFile {
    fn both(
        &self,
        what: &str,
        is_durable: bool,
        act: impl Fn(&dyn DiskFile) -> io::Result<()>,
    ) -> io::Result<()> {
        self.rig.before(format!("{what} {}", self.name));
        act(&*self.real)?;
        act(&*self.shadow)?;
        self.rig.after(is_durable);
        Ok(())
    }
}

impl DiskFile for RigFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.real.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.both("writing", false, |file| file.write_at(offset, bytes))
    }
    fn sync(&self) -> io::Result<()> {
        self.both("syncing", true, |file| file.sync())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.both("cutting", false, |file| file.set_len(len))
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.both("allocating", false, |file| file.allocate(len))
    }
    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
}

impl Archive for Rig {
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        self.call(("putting", true), name, |archive| {
            archive.put(name, bytes.clone())?;
            let mut seen = self.seen();
            let now_ms = seen.now_ms;
            seen.objects.insert(name.to_owned(), (Arc::new(bytes), now_ms));
            drop(seen);
            self.after(true);
            Ok(())
        })
    }
    fn put_file(&self, name: &str, path: &Path) -> Result<(), ArchiveError> {
        let bytes = RealDisk.read(path).map_err(|error| {
            let reason = format!("{}: {error}", path.display());
            ArchiveError::Misconfigured { reason }
        })?;
        self.put(name, bytes)
    }
    fn get(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        self.call(("getting", false), name, |archive| archive.get(name))
    }
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, ArchiveError> {
        self.call(("reading", false), name, |archive| archive.get_range(name, range))
    }
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, ArchiveError> {
        self.call(("opening", false), name, |archive| archive.open(name))
    }
    fn size(&self, name: &str) -> Result<Option<u64>, ArchiveError> {
        self.call(("asking for", false), name, |archive| archive.size(name))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ArchiveError> {
        self.call(("listing", false), prefix, |archive| archive.list(prefix))
    }
    fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        self.call(("removing", true), name, |archive| {
            archive.remove(name)?;
            self.seen().objects.remove(name);
            self.after(true);
            Ok(())
        })
    }
    fn location(&self) -> String {
        "the rig".to_owned()
    }
}
