//! Documents of identity providers, kept as long as they say and asked for again with care.
//!
//! One document, one request at a time: who comes meanwhile waits for its outcome. After a failure nobody is
//! asked for a while. What one tenant has asked for is nobody else's: a tenant that names rubbish disturbs itself.

use std::sync::Arc;
use std::time::Duration;

use actors::env::Env;
use quick_cache::sync::Cache;
use storage::id::TenantId;
use tokio::sync::Mutex;

use super::breaker::{Closed, Pause};
use super::outbound::{Missed, Outbound, Proof};

/// Documents that are kept.
const KEPT_MAX: usize = 4_096;
/// A document is kept at least so long, whatever it says.
const FRESH_MIN: Duration = Duration::from_secs(60);
/// And at most so long.
const FRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long where it does not say.
const FRESH_DEFAULT: Duration = Duration::from_secs(600);
/// A fresh document is not asked for again within this, in seconds, however much it seems to lack.
pub const COOL_DOWN_S: u32 = 30;
struct Held<T> {
    value: Option<Arc<T>>,
    fresh_until: Duration,
    fetched_at: Duration,
    pause: Pause,
}

type Entry<T> = Arc<Mutex<Held<T>>>;

/// Documents of one kind, by tenant and URL.
pub struct Cached<T> {
    what: &'static str,
    bytes_max: usize,
    parse: fn(&[u8]) -> Option<T>,
    outbound: Outbound,
    env: Env,
    entries: Cache<(TenantId, Arc<str>), Entry<T>>,
}

impl<T> Cached<T> {
    /// An empty cache.
    pub fn new(
        what: &'static str,
        bytes_max: usize,
        parse: fn(&[u8]) -> Option<T>,
        outbound: &Outbound,
        env: &Env,
    ) -> Self {
        let entries = Cache::new(KEPT_MAX);
        Self { what, bytes_max, parse, outbound: outbound.clone(), env: env.clone(), entries }
    }

    fn entry(&self, tenant: TenantId, url: &str) -> Entry<T> {
        let key = (tenant, Arc::from(url));
        let made = self.entries.get_or_insert_with(&key, || {
            let held = Held {
                value: None,
                fresh_until: Duration::ZERO,
                fetched_at: Duration::ZERO,
                pause: Pause::default(),
            };
            Ok::<_, std::convert::Infallible>(Arc::new(Mutex::new(held)))
        });
        match made {
            Ok(entry) => entry,
            Err(never) => match never {},
        }
    }

    /// The document at a URL, asked for if it is not fresh.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn get(&self, tenant: TenantId, url: &str) -> Result<Arc<T>, Closed> {
        let entry = self.entry(tenant, url);
        let mut held = entry.lock().await;
        let now = self.env.monotonic();
        match &held.value {
            Some(value) if now < held.fresh_until => Ok(value.clone()),
            _ => self.fetch(&mut held, url).await,
        }
    }

    /// The document again, because something is missing in `old`: a newer one if somebody got one meanwhile or
    /// the last was got a while ago, else `old`.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn newer(&self, tenant: TenantId, url: &str, old: &Arc<T>) -> Result<Arc<T>, Closed> {
        let entry = self.entry(tenant, url);
        let mut held = entry.lock().await;
        if let Some(value) = held.value.as_ref().filter(|value| !Arc::ptr_eq(value, old)) {
            return Ok(value.clone());
        }
        let again = held.fetched_at + Duration::from_secs(u64::from(COOL_DOWN_S));
        if self.env.monotonic() < again {
            return Ok(old.clone());
        }
        self.fetch(&mut held, url).await
    }

    async fn fetch(&self, held: &mut Held<T>, url: &str) -> Result<Arc<T>, Closed> {
        held.pause.check(self.env.monotonic())?;
        let got = self.outbound.get(self.what, url, Proof::None, self.bytes_max).await;
        let parsed = got.and_then(|got| {
            let value = (self.parse)(&got.bytes).ok_or(Missed::Rubbish)?;
            Ok((value, got.max_age_s))
        });
        let now = self.env.monotonic();
        match parsed {
            Ok((value, max_age_s)) => {
                let fresh = max_age_s.map_or(FRESH_DEFAULT, Duration::from_secs);
                let value = Arc::new(value);
                *held = Held {
                    value: Some(value.clone()),
                    fresh_until: now + fresh.clamp(FRESH_MIN, FRESH_MAX),
                    fetched_at: now,
                    pause: Pause::default(),
                };
                Ok(value)
            }
            Err(_) => Err(held.pause.fail(now)),
        }
    }
}
