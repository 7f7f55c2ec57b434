//! The pace of a backup: its steps write to the disk that the log may be on, and some make everybody who
//! writes wait for a moment. So it pauses between them as long as others write; on a node where nothing
//! happens it goes on at once. A backup of a busy node takes some seconds longer for it.

use std::cell::Cell;
use std::time::Duration;

use super::Source;

/// What follows a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// A long pause, behind a step that is done once: so what a backup does to the others falls on far less
    /// than one in a hundred of their requests.
    Long,
    /// A pause of some times as long as the step took, behind one that is done for each tenant or object.
    Short,
}

const LONG: Duration = Duration::from_secs(1);
const SHORT_TIMES: u32 = 8;
const SHORT_MAX: Duration = Duration::from_millis(500);

impl Rest {
    fn after(self, took: Duration) -> Duration {
        match self {
            Self::Long => LONG,
            Self::Short => took.saturating_mul(SHORT_TIMES).min(SHORT_MAX),
        }
    }
}

/// Makes pauses.
pub(super) struct Pace<'a> {
    source: &'a Source,
    /// How many records were durable when the last step began.
    records: Cell<u64>,
}

impl<'a> Pace<'a> {
    /// Of a backup that begins.
    pub fn new(source: &'a Source) -> Self {
        Self { source, records: Cell::new(source.store.log().stats().records) }
    }

    /// Does a step, and pauses after it if anybody wrote since the last one.
    pub fn step<T>(&self, rest: Rest, work: impl FnOnce() -> T) -> T {
        let began = self.source.env.monotonic();
        let done = work();
        let records = self.source.store.log().stats().records;
        if self.records.replace(records) != records {
            let took = self.source.env.monotonic().saturating_sub(began);
            pause(rest.after(took));
        }
        done
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause is for time to pass")]
fn pause(pause: Duration) {
    std::thread::sleep(pause);
}
