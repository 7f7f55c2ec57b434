//! The outside world, as far as actors may see it: time, randomness and injected faults.
//!
//! Nothing else in this crate reads a clock or makes a random number, so a test can run the same
//! logic under a clock that jumps, repeatable randomness, and a panic at a chosen point.

use std::sync::Arc;
use std::time::Duration;

use storage::id::{Id, TenantId};

/// Wall-clock and monotonic time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump.
    fn now_ms(&self) -> u64;
    /// Time since an arbitrary start. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// A source of randomness fit for keys.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// Where a test may make things go wrong.
pub trait Faults: Send + Sync + 'static {
    /// Called at a named point of `tenant`'s work; may panic.
    fn hit(&self, point: &'static str, tenant: TenantId);
}

/// The seam between the actors and the world.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    faults: Option<Arc<dyn Faults>>,
}

impl Env {
    /// The real world.
    pub fn real() -> Self {
        Self { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy), faults: None }
    }
    /// The same world under another clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
    /// The same world with faults.
    pub fn with_faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }
    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
    /// Time since an arbitrary start.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
    /// Random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }
    /// A new time-ordered id.
    pub fn new_id<I: Id>(&self) -> I {
        I::new(self.now_ms(), self.random())
    }
    /// Passes a named point.
    pub fn hit(&self, point: &'static str, tenant: TenantId) {
        if let Some(faults) = &self.faults {
            faults.hit(point, tenant);
        }
    }
}

/// The machine's clocks.
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    #[expect(clippy::new_without_default, reason = "starting a clock is an effect")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The operating system's randomness.
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("the operating system gives randomness");
    }
}

/// The time, Unix milliseconds, that an RFC 3339 text with any offset means; nothing for other texts
/// and times before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let well_known = &time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::parse(text, well_known).ok()?;
    u64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// RFC 3339 UTC text of a time in Unix milliseconds, with milliseconds.
pub fn rfc3339(unix_ms: u64) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|at| at.format(FORMAT).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}
