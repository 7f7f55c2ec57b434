//! A clock that stands still until a test moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::env::{Clock, SystemClock};

/// Wall-clock and monotonic time in the hands of a test. It begins at the present, so that whatever
/// else looks at the machine's clock agrees with it about the day.
pub struct TestClock {
    start_ms: u64,
    passed_ms: AtomicU64,
}

impl TestClock {
    pub fn new() -> Arc<Self> {
        let start_ms = SystemClock::new().now_ms();
        Arc::new(Self { start_ms, passed_ms: AtomicU64::new(0) })
    }
    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        let time_ms = u64::try_from(time.as_millis()).expect("a time that fits");
        self.passed_ms.fetch_add(time_ms, Ordering::SeqCst);
    }
    /// Lets days pass.
    pub fn advance_days(&self, days: u64) {
        self.advance(Duration::from_secs(days * 24 * 60 * 60));
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.start_ms + self.passed_ms.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        // Not zero: a limiter that counts from its start may look back.
        Duration::from_millis(1_000_000 + self.passed_ms.load(Ordering::SeqCst))
    }
}
