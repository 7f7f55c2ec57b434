//! An archive in memory, for tests: the same answers as a real one, and any failure on command.
//!
//! It outlives nothing and is shared through its `Arc`. It promises no durability and never becomes
//! a backend of a node.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::archive::Archive;
use crate::archive::ArchiveError;
use crate::archive::ObjectInfo;
use crate::archive::name;

/// How often an archive was asked, answered or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `put` and `put_file`.
    pub puts: u64,
    /// Calls of `get`, `get_range` and `open`.
    pub reads: u64,
    /// Calls of `size`.
    pub sizes: u64,
    /// Calls of `list`.
    pub lists: u64,
    /// Calls of `remove`.
    pub removes: u64,
    /// Bytes that were kept.
    pub bytes_put: u64,
    /// Bytes that were handed out.
    pub bytes_read: u64,
}

#[derive(Debug)]
struct Object {
    bytes: Vec<u8>,
    modified_ms: u64,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    counts: Counts,
    now_ms: u64,
    failing: Option<ArchiveError>,
    calls_left: Option<u64>,
}

impl State {
    /// Counts one call and says whether it works.
    fn call(&mut self) -> Result<(), ArchiveError> {
        match &mut self.calls_left {
            Some(0) => return Err(unreachable()),
            Some(left) => *left -= 1,
            None => {}
        }
        self.failing.clone().map_or(Ok(()), Err)
    }

    fn object(&self, name: &str) -> Result<&Object, ArchiveError> {
        self.objects.get(name).ok_or_else(|| ArchiveError::Missing { name: name.to_owned() })
    }

    fn keep(&mut self, name: &str, bytes: Vec<u8>) {
        self.counts.bytes_put += bytes.len() as u64;
        let object = Object { bytes, modified_ms: self.now_ms };
        self.objects.insert(name.to_owned(), object);
    }
}

/// An archive in memory.
#[derive(Debug, Default)]
pub struct MemoryArchive {
    state: Mutex<State>,
}

impl MemoryArchive {
    /// An empty archive whose clock stands at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on everything is written at this time, Unix milliseconds.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.state().now_ms = now_ms;
    }

    /// Unreachable until it is reachable again, which also ends every other failure.
    pub fn set_reachable(&self, is_reachable: bool) {
        let mut state = self.state();
        state.failing = (!is_reachable).then(unreachable);
        state.calls_left = None;
    }

    /// Every call fails so, until [`set_reachable`](Self::set_reachable).
    pub fn fail_with(&self, error: ArchiveError) {
        self.state().failing = Some(error);
    }

    /// So many more calls work, then it is unreachable until
    /// [`set_reachable`](Self::set_reachable).
    pub fn fail_after(&self, calls: u64) {
        self.state().calls_left = Some(calls);
    }

    /// Changes an object behind everybody's back; says whether there is one of that name.
    pub fn corrupt(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let object = state.objects.get_mut(name);
        object.map(|object| change(&mut object.bytes)).is_some()
    }

    /// The names of all objects, in order; works also while unreachable.
    pub fn names(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// How often it was asked.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, ArchiveError> {
        name::check(name)?;
        let mut state = self.state();
        state.counts.reads += 1;
        state.call()?;
        let all = &state.object(name)?.bytes;
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(all.len());
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
        let bytes = all.get(start..end).unwrap_or_default().to_vec();
        state.counts.bytes_read += bytes.len() as u64;
        Ok(bytes)
    }
}

impl Archive for MemoryArchive {
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        name::check(name)?;
        let mut state = self.state();
        state.counts.puts += 1;
        state.call()?;
        state.keep(name, bytes);
        Ok(())
    }

    fn put_file(&self, name: &str, path: &Path) -> Result<(), ArchiveError> {
        name::check(name)?;
        self.put(name, std::fs::read(path).map_err(|error| super::unreadable(path, &error))?)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        self.read(name, 0..u64::MAX)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, ArchiveError> {
        self.read(name, range)
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, ArchiveError> {
        Ok(Box::new(Cursor::new(self.read(name, 0..u64::MAX)?)))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, ArchiveError> {
        name::check(name)?;
        let mut state = self.state();
        state.counts.sizes += 1;
        state.call()?;
        Ok(state.objects.get(name).map(|object| object.bytes.len() as u64))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ArchiveError> {
        name::check_prefix(prefix)?;
        let mut state = self.state();
        state.counts.lists += 1;
        state.call()?;
        let start = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let below = state.objects.range(start.clone()..);
        let below = below.take_while(|(name, _)| name.starts_with(&start));
        let infos = below.map(|(name, object)| ObjectInfo {
            name: name.clone(),
            bytes: object.bytes.len() as u64,
            modified_ms: object.modified_ms,
        });
        Ok(infos.collect())
    }

    fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        name::check(name)?;
        let mut state = self.state();
        state.counts.removes += 1;
        state.call()?;
        state.objects.remove(name);
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

fn unreachable() -> ArchiveError {
    ArchiveError::Unreachable { reason: "it was told to be".to_owned() }
}
