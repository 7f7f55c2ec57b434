//! The one thread that writes: it fences, makes one write and one sync per group, then answers all.
//!
//! What it answers when something fails:
//!
//! | what failed | what is on disk | answer | the log |
//! |---|---|---|---|
//! | the disk is down to its reserve | nothing of the group | `Full` | goes on |
//! | no space for segment, footer or group, and taking back worked | nothing of the group | `Full` | goes on |
//! | another error before the group was written | nothing of the group | `Poisoned` | poisoned |
//! | the write, and taking back worked | nothing of the group | `Poisoned` | poisoned |
//! | the write, and taking back failed; the sync | nobody knows | `Unknown` | poisoned |
//!
//! It never syncs again after a failed sync of data: the kernel may have dropped the bytes and would
//! say all is well.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::id::TenantId;
use crate::log::Appended;
use crate::log::Tail;
use crate::log::segment::SegmentOptions;
use crate::log::segment::Shared;
use crate::log::segment::file::ActiveFile;
use crate::log::segment::file::FILE_HEADER_BYTES;
use crate::log::segment::file::is_full;
use crate::log::segment::frame;
use crate::log::segment::lanes::Lanes;
use crate::log::segment::lanes::Waiting;
use crate::log::segment::tables::Content;
use crate::log::segment::tables::Refusal;
use crate::record::Header;

/// How a group failed. Nothing of it is acknowledged in any case.
enum Failure {
    /// No space, and nothing changed.
    Full,
    /// The log must stop; nothing of the group is on disk.
    Nothing(&'static str, io::Error),
    /// The log must stop; the group may be on disk.
    Unknown(&'static str, io::Error),
}

/// The committer's own state.
pub(super) struct Committer {
    shared: Arc<Shared>,
    options: SegmentOptions,
    active: Option<ActiveFile>,
    next_number: u64,
    lanes: Lanes,
    /// The frames of the group; reused.
    buffer: Vec<u8>,
    /// The tails as they will be once the group is durable; reused.
    pending: HashMap<TenantId, Tail>,
}

/// A record of the group being written, and where its frame begins in the buffer.
struct Placed {
    waiting: Waiting,
    offset: usize,
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        options: SegmentOptions,
        active: Option<ActiveFile>,
        next_number: u64,
    ) -> Self {
        let (lanes, buffer, pending) = (Lanes::default(), Vec::new(), HashMap::new());
        Self { shared, options, active, next_number, lanes, buffer, pending }
    }

    /// Commits groups until the log is closed and empty, or poisoned.
    pub(super) fn run(mut self) {
        // A panic here would leave callers waiting behind a log that looks healthy.
        let guard = PoisonOnPanic(Arc::clone(&self.shared));
        let mut group = Vec::new();
        let mut answered = 0;
        while self.shared.queue.pull(&mut self.lanes, answered) {
            let is_healthy = self.roll();
            let bytes_max = self.options.group_bytes_max;
            let tenant_bytes_max = self.options.tenant_group_bytes_max;
            answered = self.lanes.take_group(bytes_max, tenant_bytes_max, &mut group);
            if !is_healthy || !self.commit(&mut group) {
                group.drain(..).for_each(|waiting| waiting.answer(Appended::Poisoned));
                self.lanes.drain().for_each(|waiting| waiting.answer(Appended::Poisoned));
            }
        }
        drop(self.shared.queue.take_rolls());
        drop(guard);
    }

    /// Commits one group and answers it. False if the log is poisoned by it.
    fn commit(&mut self, group: &mut Vec<Waiting>) -> bool {
        let (mut placed, mut fenced) = (Vec::with_capacity(group.len()), Vec::new());
        self.buffer.clear();
        self.pending.clear();
        for waiting in group.drain(..) {
            match self.fence(&waiting.record.header) {
                Ok(tail) => {
                    self.pending.insert(waiting.record.header.tenant, tail);
                    let offset = self.buffer.len();
                    frame::encode(&waiting.record, &mut self.buffer);
                    placed.push(Placed { waiting, offset });
                }
                Err(answer) => fenced.push((waiting, answer)),
            }
        }
        let outcome = if placed.is_empty() { Ok(()) } else { self.write(&placed) };
        // Durable is answered only after the tables know it: whoever is answered may read at once.
        let (answer, is_healthy) = match outcome {
            Ok(()) => (Appended::Durable, true),
            Err(Failure::Full) => {
                self.shared.space.note_full(&*self.shared.disk, &self.shared.dir);
                (Appended::Full, true)
            }
            Err(Failure::Nothing(what, error)) => {
                self.poison(what, &error);
                (Appended::Poisoned, false)
            }
            Err(Failure::Unknown(what, error)) => {
                let mut tables = self.shared.tables_mut();
                for Placed { waiting, .. } in &placed {
                    tables.refuse(waiting.record.header.tenant, Refusal::Unsettled);
                }
                drop(tables);
                self.poison(what, &error);
                (Appended::Unknown, false)
            }
        };
        for (waiting, refusal) in fenced {
            waiting.answer(match refusal {
                Refused::Now(appended) => appended,
                Refused::Behind(tail) if answer == Appended::Durable => Appended::Fenced { tail },
                // What it was fenced against did not come to be; it was not written in any case.
                Refused::Behind(_) if is_healthy => answer,
                Refused::Behind(_) => Appended::Poisoned,
            });
        }
        placed.into_iter().for_each(|placed| placed.waiting.answer(answer));
        is_healthy
    }

    /// Checks that a record continues its tenant's history; returns the tail it makes.
    fn fence(&self, header: &Header) -> Result<Tail, Refused> {
        let pending = self.pending.get(&header.tenant).copied();
        let tail = match pending {
            Some(tail) => tail,
            None => (self.shared.tables().tail(header.tenant))
                .map_err(|_| Refused::Now(Appended::Poisoned))?,
        };
        let follows = tail.lsn.checked_add(1) == Some(header.lsn)
            && header.prev == tail.hash
            && header.epoch >= tail.epoch;
        match (follows, pending) {
            (true, _) => Ok(Tail { lsn: header.lsn, epoch: header.epoch, hash: header.hash }),
            (false, Some(_)) => Err(Refused::Behind(tail)),
            (false, None) => Err(Refused::Now(Appended::Fenced { tail })),
        }
    }

    fn write(&mut self, placed: &[Placed]) -> Result<(), Failure> {
        if !self.shared.space.has_reserve(&*self.shared.disk, &self.shared.dir) {
            return Err(Failure::Full);
        }
        self.make_room()?;
        let Some(active) = &mut self.active else {
            let error = io::Error::other("no segment is open");
            return Err(Failure::Nothing("opening a segment", error));
        };
        if let Err(error) = active.file.write_at(active.end, &self.buffer) {
            return Err(match (active.roll_back(), is_full(&error)) {
                (Ok(()), true) => Failure::Full,
                (Ok(()), false) => Failure::Nothing("writing to a segment", error),
                (Err(_), _) => Failure::Unknown("writing to a segment", error),
            });
        }
        if let Err(error) = active.file.sync() {
            return Err(Failure::Unknown("syncing a segment", error));
        }
        let base = active.end;
        let bytes = self.buffer.len() as u64;
        active.end += bytes;
        let headers = placed.iter().map(|placed| {
            // Segments are shorter than 4 GiB: see `SegmentOptions::bounded` and `FRAME_BYTES_MAX`.
            (&placed.waiting.record.header, (base + placed.offset as u64) as u32)
        });
        self.shared.tables_mut().commit(active.number, bytes, headers);
        self.shared.space.note_written();
        Ok(())
    }

    /// Sees to it that there is an active segment with room for the group. A segment without a
    /// record takes any group.
    fn make_room(&mut self) -> Result<(), Failure> {
        if let Some(active) = &self.active {
            let end = active.end + self.buffer.len() as u64;
            if active.end == FILE_HEADER_BYTES || end <= self.options.segment_bytes {
                return Ok(());
            }
            self.seal(active)?;
            self.active = None;
        }
        let number = self.next_number;
        let (disk, dir) = (&*self.shared.disk, &self.shared.dir);
        let active =
            ActiveFile::create(disk, dir, number, self.options.segment_bytes).map_err(|error| {
                match is_full(&error) {
                    true => Failure::Full,
                    false => Failure::Nothing("making a segment", error),
                }
            })?;
        self.next_number += 1;
        let (index, file) = (Default::default(), Arc::clone(&active.file));
        self.shared.tables_mut().add_segment(number, Content::Active { index, file });
        self.active = Some(active);
        Ok(())
    }

    /// Completes the growing segment for those who asked, unless it has no record. One that cannot be
    /// completed for want of space is completed when it is full. False if the log is poisoned by it.
    fn roll(&mut self) -> bool {
        let rolls = self.shared.queue.take_rolls();
        let Some(active) = self.active.as_ref().filter(|_| !rolls.is_empty()) else {
            answer_rolls(rolls, true);
            return true;
        };
        let outcome = if active.end > FILE_HEADER_BYTES { self.seal(active) } else { Ok(()) };
        let (is_rolled, is_healthy) = match outcome {
            Ok(()) => (true, true),
            Err(Failure::Full) => (false, true),
            Err(Failure::Nothing(what, error) | Failure::Unknown(what, error)) => {
                self.poison(what, &error);
                (false, false)
            }
        };
        if is_rolled && active.end > FILE_HEADER_BYTES {
            self.active = None;
        }
        answer_rolls(rolls, is_rolled);
        is_healthy
    }

    fn seal(&self, active: &ActiveFile) -> Result<(), Failure> {
        let tables = self.shared.tables();
        let Some(index) = tables.active_index(active.number) else {
            let error = io::Error::other("the growing segment has no index");
            return Err(Failure::Nothing("sealing a segment", error));
        };
        let footer = active.footer(index);
        drop(tables);
        match active.seal(&footer) {
            Ok(()) => {
                self.shared.tables_mut().seal(active.number);
                Ok(())
            }
            Err(error) if is_full(&error) && active.roll_back().is_ok() => Err(Failure::Full),
            Err(error) => Err(Failure::Nothing("sealing a segment", error)),
        }
    }

    fn poison(&self, what: &str, error: &io::Error) {
        tracing::error!(what, %error, "the log stopped writing; restart after the disk is seen to");
        self.shared.queue.poison(format!("{what}: {error}"));
    }
}

fn answer_rolls(rolls: Vec<SyncSender<bool>>, is_rolled: bool) {
    for rolled in rolls {
        let _gone = rolled.send(is_rolled); // whoever asked may be gone
    }
}

/// Why a record is not written with its group.
enum Refused {
    /// For a reason that is already certain.
    Now(Appended),
    /// It contradicts a record of the same group, which makes this tail if it becomes durable.
    Behind(Tail),
}

struct PoisonOnPanic(Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.poison("the committer panicked".into());
        }
    }
}
