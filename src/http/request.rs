//! What is known about a request besides its body: its ids, where it came from, whose budget it spent.
//!
//! One [`RequestContext`] is made per request, before anything else happens, and rides along in the
//! request's extensions. A forwarding header is believed only when a configured proxy sent it.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::{HttpMessage as _, HttpRequest};
use actors::call::{Idempotency, Origin};
use actors::env::Env;
use actors::permit::Grant;
use actors::rate::{Class, Decision};

use crate::config::Network;
use crate::http::extract::BodyLimits;
use crate::http::matcher::Params;
use crate::http::problem::{Kind, Problem};
use crate::http::proofs::Print;
use crate::http::routes::Route;
use crate::limits::{
    FORWARDED_HOPS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX, USER_AGENT_BYTES_MAX,
};

/// The id of a request, echoed or made here.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What rides along with one request.
pub struct RequestContext {
    /// Names the request in the answer, the log and the audit log.
    pub request_id: Arc<str>,
    /// The trace it belongs to, if the client named one.
    pub trace: Option<Trace>,
    /// The client's address, as far as it can be believed.
    pub ip: Option<IpAddr>,
    /// The row it matched.
    pub route: &'static Route,
    /// How much of its body is taken.
    pub body: BodyLimits,
    pub(crate) params: Params,
    pub(crate) grant: OnceCell<Grant>,
    /// What the credential is remembered by, if its tenant has to prove it.
    pub(crate) print: Cell<Option<Print>>,
    pub(crate) fingerprint: Cell<Option<[u8; 32]>>,
    pub(crate) charged: Cell<Option<Class>>,
    pub(crate) rate: RefCell<Vec<Decision>>,
}

impl RequestContext {
    pub(crate) fn new(
        request_id: Arc<str>,
        trace: Option<Trace>,
        ip: Option<IpAddr>,
        route: &'static Route,
        params: Params,
    ) -> Self {
        Self {
            request_id,
            trace,
            ip,
            route,
            body: BodyLimits::default(),
            params,
            grant: OnceCell::new(),
            print: Cell::new(None),
            fingerprint: Cell::new(None),
            charged: Cell::new(None),
            rate: RefCell::new(Vec::new()),
        }
    }

    /// Where the request came from, for the audit log.
    pub fn origin(&self, headers: &HeaderMap) -> Origin {
        Origin {
            ip: self.ip,
            user_agent: user_agent(headers),
            request_id: Some(self.request_id.clone()),
        }
    }
}

/// The context of a request; absent only where no route was matched.
pub fn context(request: &HttpRequest) -> Option<Rc<RequestContext>> {
    request.extensions().get::<Rc<RequestContext>>().cloned()
}

/// Where a request came from, also for routes without a credential.
pub fn origin(request: &HttpRequest) -> Origin {
    context(request).map_or_else(Origin::default, |context| context.origin(request.headers()))
}

/// The client's address, as far as it can be believed.
pub fn client_ip(request: &HttpRequest) -> Option<IpAddr> {
    context(request).and_then(|context| context.ip)
}

/// The idempotency key of a request, bound to who asks and what for.
///
/// # Errors
/// [`Kind::BAD_IDEMPOTENCY_KEY`] if the header came twice, is empty, too long or not visible ASCII.
pub fn idempotency(request: &HttpRequest, principal: &str) -> Result<Option<Idempotency>, Problem> {
    let mut values = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    let bad = || Problem::new(Kind::BAD_IDEMPOTENCY_KEY);
    if values.next().is_some() {
        return Err(bad());
    }
    let text = value.to_str().map_err(|_| bad())?;
    // The draft has a structured string, quotes included; most clients send the bare key.
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
        || !key.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(bad());
    }
    let fingerprint = context(request)
        .and_then(|context| context.fingerprint.get())
        .unwrap_or_else(|| fingerprint(&[]));
    let scope = format!("{principal} {} {} {key}", request.method(), request.path());
    Ok(Some(Idempotency { scope, fingerprint }))
}

/// Whether a request carries an idempotency key, so that its body needs a fingerprint.
pub(crate) fn has_idempotency_key(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY_KEY)
}

/// SHA-256 of a body.
pub(crate) fn fingerprint(body: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

fn user_agent(headers: &HeaderMap) -> Option<Arc<str>> {
    let bytes = headers.get(header::USER_AGENT)?.as_bytes();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(USER_AGENT_BYTES_MAX)]);
    Some(
        text.chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect::<String>()
            .into(),
    )
}

/// Makes ids that do not repeat: for requests, traces and spans. Not for secrets.
pub(crate) struct IdSource {
    state: Cell<u64>,
    prefix: u64,
}

impl IdSource {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            state: Cell::new(u64::from_le_bytes(env.random())),
            prefix: u64::from_le_bytes(env.random()),
        }
    }

    /// SplitMix64: a bijection of a counter, so one source never repeats itself.
    pub(crate) fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The client's request id if it is sane, else a new one.
    pub(crate) fn request_id(&self, headers: &HeaderMap) -> Arc<str> {
        let sane = |text: &&str| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let mut values = headers.get_all(REQUEST_ID);
        let given = values.next().and_then(|value| value.to_str().ok()).filter(sane);
        match given.filter(|_| values.next().is_none()) {
            Some(text) => text.into(),
            None => {
                let mut digits = [0; 32];
                hex_into(&mut digits[..16], self.prefix);
                hex_into(&mut digits[16..], self.next());
                std::str::from_utf8(&digits).expect("hexadecimal digits are text").into()
            }
        }
    }
}

fn hex_into(digits: &mut [u8], number: u64) {
    for (index, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * index)) as usize & 15];
    }
}

/// A W3C trace that the client named, and our span within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The `traceparent` of our own span: `00-<trace id>-<span id>-<flags>`.
    pub traceparent: String,
}

impl Trace {
    /// The trace id, 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.traceparent[3..35]
    }

    /// Joins the trace of the headers, if they name exactly one that is valid.
    pub(crate) fn join(headers: &HeaderMap, ids: &IdSource) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT);
        let parent = values.next()?.to_str().ok()?;
        if values.next().is_some() || !is_traceparent(parent) {
            return None;
        }
        let mut span = [0; 16];
        hex_into(&mut span, ids.next().max(1));
        let mut traceparent = String::with_capacity(55);
        traceparent.push_str("00");
        traceparent.push_str(&parent[2..36]);
        traceparent.push_str(std::str::from_utf8(&span).ok()?);
        traceparent.push_str(&parent[52..55]);
        Some(Self { traceparent })
    }
}

/// Version 00 exactly; a later version may be longer (Trace Context §3.2.4).
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 55 || !text.is_ascii() || [2, 35, 52].iter().any(|&at| bytes[at] != b'-') {
        return false;
    }
    let is_hex = |range: &[u8]| range.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let (version, trace, span, flags) =
        (&bytes[..2], &bytes[3..35], &bytes[36..52], &bytes[53..55]);
    let long_enough =
        if version == b"00" { bytes.len() == 55 } else { bytes.len() == 55 || bytes[55] == b'-' };
    long_enough
        && version != b"ff"
        && [version, trace, span, flags].into_iter().all(is_hex)
        && [trace, span].into_iter().all(|id| id.iter().any(|&b| b != b'0'))
}

/// The client's address: the nearest one that is not a trusted proxy's. What stands left of it was
/// written by that client and proves nothing.
pub(crate) fn client(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    proxies: &[Network],
) -> Option<IpAddr> {
    let peer = peer?.to_canonical();
    let trusts = |ip: IpAddr| proxies.iter().any(|network| network.contains(ip));
    if proxies.is_empty() || !trusts(peer) {
        return Some(peer);
    }
    let mut nearest = peer;
    for hop in forwarded(headers).into_iter().rev().take(FORWARDED_HOPS_MAX) {
        // An obfuscated or broken hop hides what is behind it: stop at the proxy that said so.
        let Some(ip) = hop else { break };
        nearest = ip;
        if !trusts(ip) {
            break;
        }
    }
    Some(nearest)
}

/// The hops of `Forwarded` (RFC 7239), or else of `X-Forwarded-For`, farthest first.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let hops = |name: HeaderName, read: fn(&str) -> Option<IpAddr>| -> Vec<Option<IpAddr>> {
        let texts = headers.get_all(name).map(|value| value.to_str().unwrap_or_default());
        texts.flat_map(|text| text.split(',')).map(|hop| read(hop.trim())).collect()
    };
    if headers.contains_key(header::FORWARDED) {
        return hops(header::FORWARDED, |element| {
            let node = element.split(';').find_map(|pair| {
                let (name, value) = pair.trim().split_once('=')?;
                name.eq_ignore_ascii_case("for").then_some(value)
            })?;
            node_ip(node.trim_matches('"'))
        });
    }
    hops(FORWARDED_FOR, node_ip)
}

/// An address with or without brackets and port.
fn node_ip(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests;
