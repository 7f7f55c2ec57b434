//! Asks a provider that fails less and less often (Nygard, *Release It!*: circuit breaker), and no tenant more
//! than a few things at once.
//!
//! After a failure nobody asks for a while, which doubles with each further one, so a provider that is down costs
//! its people one quick answer. What one tenant has asked for is nobody else's: a tenant whose provider is down
//! or slow disturbs itself.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::env::Env;
use quick_cache::sync::Cache;
use storage::id::TenantId;
use tokio::sync::Semaphore;

use super::outbound::Missed;

/// The first pause after a failure; it doubles with each further one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Places that are remembered.
const KEPT_MAX: usize = 4_096;
/// Requests of one tenant to one place that are under way at once; others are told to come again.
const AT_ONCE_MAX: usize = 16;

/// It cannot be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// When to come again, in seconds.
    pub retry_after_s: u32,
}

impl Closed {
    fn after(pause: Duration) -> Self {
        let whole_s = u32::try_from(pause.as_secs()).unwrap_or(u32::MAX);
        Self { retry_after_s: whole_s.saturating_add(1) }
    }
}

/// How long nobody asks.
#[derive(Debug, Default)]
pub struct Pause {
    failures: u32,
    closed_until: Duration,
}

impl Pause {
    /// Whether somebody may ask at `now`.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn check(&self, now: Duration) -> Result<(), Closed> {
        if now < self.closed_until { Err(Closed::after(self.closed_until - now)) } else { Ok(()) }
    }

    /// It failed at `now`.
    pub fn fail(&mut self, now: Duration) -> Closed {
        let pause = (PAUSE_FIRST * 2_u32.pow(self.failures.min(6))).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.closed_until = now + pause;
        Closed::after(pause)
    }
}

/// Why nothing came of a call.
#[derive(Debug)]
pub enum Failed {
    /// It was made.
    Missed(Missed),
    /// It was not.
    Closed(Closed),
}

/// What is known of a place.
struct Place {
    pause: Mutex<Pause>,
    at_once: Semaphore,
}

/// All places that were called, by tenant and URL.
pub struct Breakers {
    places: Cache<(TenantId, Arc<str>), Arc<Place>>,
    env: Env,
}

impl Breakers {
    /// None yet.
    pub fn new(env: &Env) -> Self {
        Self { places: Cache::new(KEPT_MAX), env: env.clone() }
    }

    /// Makes a call, if it may be made. That the other side says no is no failure.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn call<T>(
        &self,
        tenant: TenantId,
        url: &str,
        work: impl Future<Output = Result<T, Missed>>,
    ) -> Result<T, Failed> {
        let place = self.place(tenant, url);
        place.pause().check(self.env.monotonic()).map_err(Failed::Closed)?;
        let full = |_| Failed::Closed(Closed::after(Duration::ZERO));
        let _permit = place.at_once.try_acquire().map_err(full)?;
        let outcome = work.await;
        let mut pause = place.pause();
        match &outcome {
            Err(missed) if !missed.is_refusal() => {
                pause.fail(self.env.monotonic());
            }
            _ => *pause = Pause::default(),
        }
        drop(pause);
        outcome.map_err(Failed::Missed)
    }

    fn place(&self, tenant: TenantId, url: &str) -> Arc<Place> {
        let made = self.places.get_or_insert_with(&(tenant, Arc::from(url)), || {
            let (pause, at_once) = (Mutex::default(), Semaphore::new(AT_ONCE_MAX));
            Ok::<_, std::convert::Infallible>(Arc::new(Place { pause, at_once }))
        });
        match made {
            Ok(place) => place,
            Err(never) => match never {},
        }
    }
}

impl Place {
    fn pause(&self) -> std::sync::MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt as _;
    use storage::id::Id as _;

    use super::*;

    const URL: &str = "https://idp.example/token";

    fn tenant(number: u8) -> TenantId {
        TenantId::from_bytes([number; 16])
    }

    #[test]
    fn a_pause_doubles_with_each_failure_up_to_a_minute() {
        let (mut pause, mut now) = (Pause::default(), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(pause.check(now), Ok(()));
            pause.fail(now);
            let begin = now;
            while pause.check(now).is_err() {
                now += Duration::from_secs(1);
            }
            pauses.push((now - begin).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[tokio::test]
    async fn after_a_failure_nobody_of_that_tenant_asks_and_after_a_no_everybody_does() {
        let breakers = Breakers::new(&Env::real());
        let down = breakers.call(tenant(1), URL, ready(Err::<(), _>(Missed::Status(503)))).await;
        assert!(matches!(down, Err(Failed::Missed(Missed::Status(503)))), "{down:?}");
        let asked = breakers.call(tenant(1), URL, ready(Ok(()))).await;
        assert!(matches!(asked, Err(Failed::Closed(_))), "{asked:?}");
        let other = breakers.call(tenant(2), URL, ready(Err::<(), _>(Missed::Status(400)))).await;
        assert!(matches!(other, Err(Failed::Missed(_))), "{other:?}");
        assert!(breakers.call(tenant(2), URL, ready(Ok(()))).await.is_ok());
    }

    #[tokio::test]
    async fn a_slow_provider_holds_a_bounded_number_and_no_other_tenants() {
        let breakers = Breakers::new(&Env::real());
        let mut slow: Vec<_> = (0..AT_ONCE_MAX)
            .map(|_| Box::pin(breakers.call(tenant(1), URL, pending::<Result<(), Missed>>())))
            .collect();
        assert!(slow.iter_mut().all(|call| call.now_or_never().is_none()));
        let further = breakers.call(tenant(1), URL, ready(Ok(()))).await;
        assert!(matches!(further, Err(Failed::Closed(_))), "{further:?}");
        assert!(breakers.call(tenant(2), URL, ready(Ok(()))).await.is_ok());
        drop(slow);
        assert!(breakers.call(tenant(1), URL, ready(Ok(()))).await.is_ok());
    }
}
