//! The bounded queue in front of the committer, and the log's health.
//!
//! Health lives here because both change what a caller is told at the door, and must change together:
//! once the log is poisoned no record gets in, so none can be acknowledged.
//!
//! It never blocks a caller: a full queue is an answer.

use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc::SyncSender;

use crate::log::Appended;
use crate::log::Health;
use crate::log::segment::lanes::Lanes;
use crate::log::segment::lanes::Waiting;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Poisoned(String),
}

struct Inbox {
    waiting: Vec<Waiting>,
    /// Bytes waiting here and in the committer's lanes.
    bytes: usize,
    /// Who waits for the growing segment to be completed.
    rolls: Vec<SyncSender<bool>>,
    state: State,
}

/// The queue.
pub(super) struct Queue {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    bytes_max: usize,
}

impl Queue {
    /// An open queue for at most about `bytes_max` bytes of records.
    pub(super) fn new(bytes_max: usize) -> Self {
        let inbox = Inbox { waiting: Vec::new(), bytes: 0, rolls: Vec::new(), state: State::Open };
        Self { inbox: Mutex::new(inbox), changed: Condvar::new(), bytes_max }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a record, or answers it at once.
    pub(super) fn push(&self, waiting: Waiting) {
        let mut inbox = self.inbox();
        let bytes = waiting.frame_bytes();
        let refused = match inbox.state {
            State::Closed | State::Poisoned(_) => Some(Appended::Poisoned),
            State::Open if inbox.bytes > 0 && inbox.bytes + bytes > self.bytes_max => {
                Some(Appended::Full)
            }
            State::Open => None,
        };
        if let Some(refused) = refused {
            drop(inbox);
            return waiting.answer(refused);
        }
        inbox.bytes += bytes;
        inbox.waiting.push(waiting);
        let is_first = inbox.waiting.len() == 1;
        drop(inbox);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Moves what waits into `lanes`, and waits for more if they stay empty. `answered` bytes have
    /// left the lanes since the last call. Whether there is anything to do; if not, the log is closing.
    pub(super) fn pull(&self, lanes: &mut Lanes, answered: usize) -> bool {
        let mut inbox = self.inbox();
        inbox.bytes = inbox.bytes.saturating_sub(answered);
        while lanes.is_empty() && inbox.waiting.is_empty() && inbox.rolls.is_empty() {
            if inbox.state != State::Open {
                return false;
            }
            inbox = self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        inbox.waiting.drain(..).for_each(|waiting| lanes.push(waiting));
        true
    }

    /// Has the growing segment completed once the committer gets to it. False if it never will.
    pub(super) fn ask_to_roll(&self, rolled: SyncSender<bool>) -> bool {
        let mut inbox = self.inbox();
        if inbox.state != State::Open {
            return false;
        }
        inbox.rolls.push(rolled);
        drop(inbox);
        self.changed.notify_one();
        true
    }

    /// Who waits for the growing segment to be completed.
    pub(super) fn take_rolls(&self) -> Vec<SyncSender<bool>> {
        std::mem::take(&mut self.inbox().rolls)
    }

    /// Refuses records from now on; those already in are still written.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        if inbox.state == State::Open {
            inbox.state = State::Closed;
        }
        drop(inbox);
        self.changed.notify_all();
    }

    /// Refuses everything from now on, for `reason`, those in the queue too. The first reason stays.
    pub(super) fn poison(&self, reason: String) {
        let mut inbox = self.inbox();
        if !matches!(inbox.state, State::Poisoned(_)) {
            inbox.state = State::Poisoned(reason);
        }
        let refused = std::mem::take(&mut inbox.waiting);
        inbox.rolls.clear(); // whoever waits sees the sender go
        drop(inbox);
        refused.into_iter().for_each(|waiting| waiting.answer(Appended::Poisoned));
        self.changed.notify_all();
    }

    /// Whether records are taken.
    pub(super) fn health(&self) -> Health {
        match &self.inbox().state {
            State::Open => Health::Writable,
            State::Closed => Health::Poisoned("the log is closed".into()),
            State::Poisoned(reason) => Health::Poisoned(reason.clone()),
        }
    }
}
