//! The pace of a backup: its steps write to the disk that the log may be on, and each makes whoever is
//! served wait for a moment. So between two steps it pauses, for a multiple of what the step took, as
//! long as others write; on a node where nothing happens it goes on at once.

use std::cell::Cell;
use std::time::Duration;

use super::Source;

/// How many times as long as it took a step that is done once is followed by a pause: what a backup does
/// to the others then falls on less than one in a hundred of their requests.
pub(super) const ONCE: u32 = 50;
/// The same for steps that are done for each tenant, which may be many.
pub(super) const EACH: u32 = 4;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

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
    pub fn step<T>(&self, times: u32, work: impl FnOnce() -> T) -> T {
        let began = self.source.env.monotonic();
        let done = work();
        let records = self.source.store.log().stats().records;
        if self.records.replace(records) != records {
            let took = self.source.env.monotonic().saturating_sub(began);
            pause(took.saturating_mul(times).min(PAUSE_MAX));
        }
        done
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause is for time to pass")]
fn pause(pause: Duration) {
    std::thread::sleep(pause);
}
