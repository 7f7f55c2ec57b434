//! A disk that stands still: what waits is bounded, what is beyond is refused at once, what was there
//! is read, and whatever the disk does in the end, nothing is acknowledged that it does not hold.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use storage::disk::Disk;
use storage::disk::DiskFile;
use storage::disk::OpenMode;
use storage::disk::fault::Fault;
use storage::disk::fault::FaultDisk;
use storage::disk::fault::Survival;
use storage::log::Appended;
use storage::log::Appending;
use storage::log::CommitLog;
use storage::log::Health;
use storage::log::contract;
use storage::log::contract::Chain;
use storage::log::segment::SegmentLog;
use storage::log::segment::SegmentOptions;

use crate::DIR;
use crate::OPTIONS;
use crate::open;

const QUEUE_BYTES_MAX: usize = 20_000;
const BODY_BYTES: usize = 100;
/// A body and what stands before it in a segment.
const FRAME_BYTES: usize = BODY_BYTES + 116;
/// Appends tried while nothing moves: far more than fit.
const TRIES: usize = 1_000;

/// Whether syncs return, and how many do not at present.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |(is_shut, _)| *is_shut).unwrap();
        state.1 -= 1;
    }
    fn set_shut(&self, is_shut: bool) {
        self.state.lock().unwrap().0 = is_shut;
        self.changed.notify_all();
    }
    /// Returns when a sync stands still.
    fn wait_until_stuck(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |(_, waiting)| *waiting == 0).unwrap());
    }
}

/// A disk whose syncs stand still while its gate is shut.
#[derive(Debug, Clone, Default)]
struct StuckDisk {
    inner: FaultDisk,
    gate: Arc<Gate>,
}

struct StuckFile {
    inner: Box<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl Disk for StuckDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.inner.open(path, mode)?;
        Ok(Box::new(StuckFile { inner, gate: Arc::clone(&self.gate) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync_dir(dir)
    }
}

impl DiskFile for StuckFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

/// The answer, if there is one already.
fn answer_now(appending: &mut Appending) -> Option<Appended> {
    match pin!(appending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(appended) => Some(appended),
        Poll::Pending => None,
    }
}

/// Two tenants with a history on a disk that has just stopped, and what waits for it.
struct Scene {
    disk: StuckDisk,
    log: Arc<SegmentLog>,
    chains: [Chain; 2],
    /// How much of each history was acknowledged before.
    acknowledged: [u64; 2],
    waiting: Vec<Appending>,
    refused: usize,
}

impl Drop for Scene {
    /// A log closes only once its disk moves again: so a test that fails ends.
    fn drop(&mut self) {
        self.disk.gate.set_shut(false);
    }
}

impl Scene {
    fn new() -> Self {
        let disk = StuckDisk::default();
        let options = SegmentOptions { queue_bytes_max: QUEUE_BYTES_MAX, ..OPTIONS };
        let log = SegmentLog::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
        let mut chains = [Chain::new(1), Chain::new(2)];
        for _ in 0..5 {
            for chain in &mut chains {
                let body = contract::body(chain.tenant, chain.tail.lsn + 1);
                assert_eq!(chain.append(&*log, &body), Appended::Durable);
            }
        }
        let acknowledged = chains.each_ref().map(|chain| chain.tail.lsn);
        disk.gate.set_shut(true);
        let mut scene = Self { disk, log, chains, acknowledged, waiting: Vec::new(), refused: 0 };
        for attempt in 0..TRIES {
            scene.try_append(attempt % 2);
        }
        scene.disk.gate.wait_until_stuck();
        scene
    }

    /// Starts an append; it waits, or is refused at once.
    fn try_append(&mut self, at: usize) {
        let chain = &mut self.chains[at];
        let before = chain.tail;
        let mut appending = self.log.append(chain.next(&[7; BODY_BYTES]));
        match answer_now(&mut appending) {
            None => self.waiting.push(appending),
            Some(Appended::Full) => {
                chain.tail = before;
                self.refused += 1;
            }
            Some(other) => panic!("a disk that stands still answers {other:?}"),
        }
    }

    /// The history that a power cut at this moment would leave.
    fn kept(&self, survival: Survival) -> [u64; 2] {
        let log = open(&self.disk.inner.restart(survival)).unwrap();
        self.chains.each_ref().map(|chain| {
            let records = contract::read_all(&*log, chain.tenant, 1);
            assert_eq!(log.tail(chain.tenant).unwrap().lsn, records.len() as u64);
            records.len() as u64
        })
    }
}

#[test]
fn while_the_disk_stands_still_appends_wait_up_to_a_bound_and_are_refused_at_once_beyond_it() {
    let mut scene = Scene::new();
    let waiting_bytes = scene.waiting.len() * FRAME_BYTES;
    assert!(waiting_bytes <= QUEUE_BYTES_MAX, "{waiting_bytes} bytes wait");
    // The last record before may have been answered, and its room not been given back yet.
    assert!(waiting_bytes > QUEUE_BYTES_MAX - 2 * FRAME_BYTES, "only {waiting_bytes} bytes wait");
    assert_eq!(scene.waiting.len() + scene.refused, TRIES);

    assert_eq!(scene.log.health(), Health::Writable, "it may go on");
    for (chain, acknowledged) in scene.chains.iter().zip(scene.acknowledged) {
        assert_eq!(scene.log.tail(chain.tenant).unwrap().lsn, acknowledged);
        let records = contract::read_all(&*scene.log, chain.tenant, 1);
        assert_eq!(records.len() as u64, acknowledged, "nothing shows before it is durable");
    }
    assert_eq!(scene.kept(Survival::Synced), scene.acknowledged);
    let everything = scene.kept(Survival::Everything);
    assert!(everything.iter().zip(scene.acknowledged).all(|(kept, sure)| *kept >= sure));

    scene.disk.gate.set_shut(false);
    for appending in std::mem::take(&mut scene.waiting) {
        assert_eq!(contract::wait(appending), Appended::Durable);
    }
    for chain in &mut scene.chains {
        assert_eq!(chain.append(&*scene.log, b"on"), Appended::Durable);
    }
    assert_eq!(scene.kept(Survival::Synced), scene.chains.each_ref().map(|chain| chain.tail.lsn));
}

#[test]
fn a_sync_that_stands_still_and_fails_in_the_end_acknowledges_nothing_and_loses_nothing() {
    for fault in [Fault::Error, Fault::Partial] {
        let mut scene = Scene::new();
        scene.disk.inner.fail_at(scene.disk.inner.operations(), fault);
        scene.disk.gate.set_shut(false);
        for appending in std::mem::take(&mut scene.waiting) {
            let answer = contract::wait(appending);
            let is_refused = matches!(answer, Appended::Unknown | Appended::Poisoned);
            assert!(is_refused, "{fault:?}: {answer:?}");
        }
        assert_ne!(scene.log.health(), Health::Writable, "{fault:?}");
        let kept = scene.kept(Survival::Synced);
        assert!(kept.iter().zip(scene.acknowledged).all(|(kept, sure)| *kept >= sure), "{kept:?}");
    }
}
