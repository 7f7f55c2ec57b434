//! Requests to URLs that tenants name: to public addresses only, over HTTPS only.
//!
//! A name is resolved here and connected to at exactly the addresses that were looked at, so a name that
//! changes its mind in between gains nothing. No cookies, no proxy, no redirect, a few seconds, a bounded body.
//! Refuses: private, link-local and otherwise special addresses; loopback too, unless the configuration
//! allows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounterVec;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AGE, CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use tokio::sync::Semaphore;

/// How long one request may take, body included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a URL is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Not a URL, or one with a user in it.
    #[error("must be an absolute https URL without user")]
    Malformed,
    /// Not HTTPS.
    #[error("must be an https URL")]
    Insecure,
    /// An address that is not public.
    #[error("must not lead to a private, local or special address")]
    Address,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum Missed {
    /// It was not made.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// It failed on the way.
    #[error("the request failed")]
    Failed(#[source] reqwest::Error),
    /// The answer is no success.
    #[error("the answer has the status {0}")]
    Status(u16),
    /// The answer is too long.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// The answer is not what was asked for.
    #[error("the answer is not what was asked for")]
    Rubbish,
}

impl Missed {
    /// Whether the other side understood and said no.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Status(400 | 401 | 403))
    }
}

/// An answer.
#[derive(Debug)]
pub struct Got {
    /// Its body.
    pub bytes: Vec<u8>,
    /// For how long it says it is fresh, in seconds; nothing if it does not say.
    pub max_age_s: Option<u64>,
}

/// How to prove who asks.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// Not at all, or in the body.
    None,
    /// By name and password, both as they go into the header.
    Basic(&'a str, &'a str),
    /// By a bearer token.
    Bearer(&'a str),
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    client: reqwest::Client,
    allow_loopback: bool,
    fetches: IntCounterVec,
}

impl Outbound {
    /// A client of its own.
    ///
    /// # Errors
    /// If TLS cannot be had.
    pub fn new(allow_loopback: bool, fetches: IntCounterVec) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // A kept connection belongs to the thread that made it, and to addresses looked at long ago.
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::new(Resolver { allow_loopback }))
            .https_only(!allow_loopback)
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, allow_loopback, fetches })
    }

    /// The URL, if it may be called.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(&self, url: &str) -> Result<Url, Forbidden> {
        let url = Url::parse(url).map_err(|_| Forbidden::Malformed)?;
        let host = url.host_str().ok_or(Forbidden::Malformed)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Forbidden::Malformed);
        }
        // An address in the URL is not resolved, so it is looked at here; names are by the resolver.
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let is_loopback = literal.map_or(host == "localhost", |ip| ip.to_canonical().is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if self.allow_loopback && is_loopback => {}
            _ => return Err(Forbidden::Insecure),
        }
        let is_allowed = literal.is_none_or(|ip| is_allowed(ip, self.allow_loopback));
        if !is_allowed || (host == "localhost" && !self.allow_loopback) {
            return Err(Forbidden::Address);
        }
        Ok(url)
    }

    /// Fetches JSON.
    ///
    /// # Errors
    /// [`Missed`].
    pub async fn get(
        &self,
        what: &'static str,
        url: &str,
        proof: Proof<'_>,
        bytes_max: usize,
    ) -> Result<Got, Missed> {
        let request = self.client.get(self.check(url)?);
        self.send(what, request, proof, bytes_max).await
    }

    /// Sends a form, for JSON.
    ///
    /// # Errors
    /// [`Missed`].
    pub async fn post(
        &self,
        what: &'static str,
        url: &str,
        form: String,
        proof: Proof<'_>,
        bytes_max: usize,
    ) -> Result<Got, Missed> {
        let request = self.client.post(self.check(url)?);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        self.send(what, request, proof, bytes_max).await
    }

    async fn send(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
        proof: Proof<'_>,
        bytes_max: usize,
    ) -> Result<Got, Missed> {
        let request = request.header(ACCEPT, "application/json");
        let request = match proof {
            Proof::None => request,
            Proof::Basic(name, password) => request.basic_auth(name, Some(password)),
            Proof::Bearer(token) => request.bearer_auth(token),
        };
        let got = read(request, bytes_max).await;
        let outcome = if got.is_ok() { "ok" } else { "failed" };
        self.fetches.with_label_values(&[what, outcome]).inc();
        if let Err(error) = &got {
            let error = actors::tenant::error::chain(error);
            tracing::info!(what, error, "an identity provider gave nothing of use");
        }
        got
    }
}

async fn read(request: reqwest::RequestBuilder, bytes_max: usize) -> Result<Got, Missed> {
    // URLs of tenants do not belong into the log.
    let failed = |error: reqwest::Error| Missed::Failed(error.without_url());
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(Missed::Status(status));
    }
    let max_age_s = max_age(response.headers());
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > bytes_max {
            return Err(Missed::TooLarge(bytes_max));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Got { bytes, max_age_s })
}

/// For how long an answer is fresh (RFC 9111 §4.2.1), as far as it says.
fn max_age(headers: &HeaderMap) -> Option<u64> {
    let control = headers.get(CACHE_CONTROL)?.to_str().ok()?.to_ascii_lowercase();
    let mut directives = control.split(',').map(str::trim);
    if directives.clone().any(|one| one == "no-store" || one == "no-cache") {
        return Some(0);
    }
    let text = directives.find_map(|one| one.strip_prefix("max-age="))?;
    let age_s = headers.get(AGE).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    text.trim_matches('"').parse::<u64>().ok().map(|max_age_s| max_age_s.saturating_sub(age_s))
}

/// Resolves names to the addresses among theirs that may be called.
struct Resolver {
    allow_loopback: bool,
}

/// Names that are looked up at once.
const LOOKUPS_MAX: usize = 8;
static LOOKUPS: Semaphore = Semaphore::const_new(LOOKUPS_MAX);

/// As many names as are looked up at once are.
#[derive(Debug, thiserror::Error)]
#[error("too many names are being looked up")]
struct TooManyNames;

/// A name with no address that may be called.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
struct NoAddress;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_loopback = self.allow_loopback;
        Box::pin(async move {
            // A look-up takes a thread until it ends, whoever waits for it: few of them, so that names which are slow
            // to look up keep nobody's password waiting. Port 0 stands for the one of the URL.
            let turn = LOOKUPS.try_acquire().map_err(|_| TooManyNames)?;
            let name = name.as_str().to_owned();
            let found = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                (name.as_str(), 0).to_socket_addrs()
            });
            let found = found.await??;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| is_allowed(address.ip(), allow_loopback)).collect();
            if allowed.is_empty() {
                return Err(NoAddress.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn is_allowed(ip: IpAddr, allow_loopback: bool) -> bool {
    let ip = ip.to_canonical();
    if ip.is_loopback() {
        return allow_loopback;
    }
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// Whether the world can be reached at it (IANA's registry of special addresses).
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = a == 0
        || a >= 224
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !is_special
}

/// Global unicast, without the blocks that lead elsewhere: tunnels and translation carry IPv4 addresses.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    let is_global = parts[0] & 0xe000 == 0x2000;
    let is_special = match parts[0] {
        0x2001 => parts[1] < 0x0200 || parts[1] == 0x0db8,
        0x2002 => true,
        0x3fff => parts[1] < 0x1000,
        _ => false,
    };
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(allow_loopback: bool) -> Outbound {
        let opts = prometheus::Opts::new("fetches", "fetches");
        let fetches = IntCounterVec::new(opts, &["what", "outcome"]).expect("a metric");
        Outbound::new(allow_loopback, fetches).expect("a client")
    }

    #[test]
    fn only_public_addresses_are_called() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "2001:db8::1",
            "2002:a00:1::",
            "64:ff9b::a00:1",
            "2001::1",
        ] {
            let ip: IpAddr = private.parse().expect("an address");
            assert!(!is_allowed(ip, false), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_allowed(public.parse().expect("an address"), false), "{public}");
        }
    }

    #[test]
    fn a_url_is_https_and_names_no_user_and_no_private_address() {
        let strict = client(false);
        for (url, why) in [
            ("http://idp.example/", Forbidden::Insecure),
            ("file:///etc/passwd", Forbidden::Malformed),
            ("ftp://idp.example/", Forbidden::Insecure),
            ("https://user@idp.example/", Forbidden::Malformed),
            ("https://127.0.0.1/", Forbidden::Address),
            ("https://[::1]/", Forbidden::Address),
            ("https://localhost/", Forbidden::Address),
            // Other spellings of 127.0.0.1 and of a cloud's metadata service.
            ("https://2130706433/", Forbidden::Address),
            ("https://0x7f.1/", Forbidden::Address),
            ("https://[::ffff:169.254.169.254]/", Forbidden::Address),
            ("idp.example", Forbidden::Malformed),
        ] {
            assert_eq!(strict.check(url).map(drop), Err(why), "{url}");
        }
        assert!(strict.check("https://idp.example:8443/path").is_ok());
    }

    #[test]
    fn loopback_is_called_only_where_it_is_allowed_and_nothing_else_without_tls() {
        let lenient = client(true);
        for url in ["http://127.0.0.1:8080/", "http://localhost/", "http://[::1]:1/"] {
            assert!(lenient.check(url).is_ok(), "{url}");
            assert!(client(false).check(url).is_err(), "{url}");
        }
        for url in ["http://10.0.0.1/", "http://idp.example/", "https://169.254.169.254/"] {
            assert!(lenient.check(url).is_err(), "{url}");
        }
    }

    #[actix_rt::test]
    async fn a_name_that_leads_to_this_machine_is_not_called() {
        let missed = client(false).get("keys", "https://localhost.:1/", Proof::None, 10).await;
        assert!(matches!(missed, Err(Missed::Failed(_) | Missed::Forbidden(_))), "{missed:?}");
        let resolver = Resolver { allow_loopback: false };
        let name: Name = "localhost".parse().expect("a name");
        assert!(resolver.resolve(name).await.is_err());
    }
}
