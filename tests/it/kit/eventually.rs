//! Waiting for a state, never for a time.

use std::time::{Duration, Instant};

/// Asks until it holds; fails loudly when it never does.
#[expect(clippy::disallowed_methods, reason = "waiting for a level needs a clock and a pause")]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
