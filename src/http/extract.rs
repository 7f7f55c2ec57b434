//! Extractors: from bytes of a request to typed input, or to a problem that says what is wrong where.
//!
//! They run after the caller was authorised, so nobody learns about inputs of what they may not do.
//! They know no resource: meaning is checked where the command runs.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpRequest};
use actors::call::Paging;
use actors::limits::{PAGE_DEFAULT, PAGE_MAX};
use futures_util::StreamExt as _;
use futures_util::future::{LocalBoxFuture, Ready, ready};
use serde::de::DeserializeOwned;
use storage::id::{
    ApiKeyId, CommentId, EventId, ExportId, FormId, IdentityId, IdentityProviderId, IntegrationId,
    InviteId, RestoreId, SecretId, SessionId, SubmissionId, SupportId, TeamId, TenantId, UserId,
};

use crate::http::problem::{Kind, Problem};
use crate::http::request::{context, fingerprint, has_idempotency_key};
use crate::limits::{
    BODY_BYTES_DEFAULT, BODY_TIMEOUT_DEFAULT, CURSOR_BYTES_MAX, HOOK_BODY_BYTES_MAX,
};

mod parse;

pub use parse::{body as parse_body, pairs as parse_pairs, query as parse_query};

/// How much of a body is taken, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Largest JSON body, in bytes.
    pub bytes_max: usize,
    /// How long its sender may take.
    pub timeout: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { bytes_max: BODY_BYTES_DEFAULT, timeout: BODY_TIMEOUT_DEFAULT }
    }
}

/// A JSON body.
///
/// Answers 415 for another media type or an encoding, 413 beyond the limit, 408 if it trickles, 400 if
/// it is not JSON or nests too deeply, and 422 with pointers if it is not a `T`. Whether unknown fields
/// are refused is up to `T`, which has to carry `#[serde(deny_unknown_fields)]`.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            is_json(request.headers())?;
            let context = context(&request);
            let limits = context.as_ref().map_or_else(BodyLimits::default, |context| context.body);
            let body = read(&request, payload, limits).await?;
            if let Some(context) = context.filter(|_| has_idempotency_key(request.headers())) {
                context.fingerprint.set(Some(fingerprint(&body)));
            }
            parse::body(&body).map(Self)
        })
    }
}

/// The bytes of a webhook delivery, as they came: 413 beyond the limit, 408 if they trickle.
#[derive(Debug)]
pub struct RawBody(pub Bytes);

impl FromRequest for RawBody {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let limits = context(&request).map_or_else(BodyLimits::default, |context| context.body);
            let limits = BodyLimits { bytes_max: HOOK_BODY_BYTES_MAX, ..limits };
            read(&request, payload, limits).await.map(Self)
        })
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = || Problem::new(Kind::UNSUPPORTED_MEDIA);
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut parts = value.ok_or_else(unsupported)?.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, set)) if name.eq_ignore_ascii_case("charset") => {
            set.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    let is_plain = headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    (is_json && is_utf8 && is_plain).then_some(()).ok_or_else(unsupported)
}

async fn read(
    request: &HttpRequest,
    payload: Payload,
    limits: BodyLimits,
) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Kind::TOO_LARGE).with("limit", limits.bytes_max);
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced: Option<usize> = announced.and_then(|text| text.parse().ok());
    if announced.is_some_and(|bytes| bytes > limits.bytes_max) {
        return Err(too_large());
    }
    let reading = async move {
        let mut payload = payload;
        let mut whole: Option<BytesMut> = None;
        let mut first = Bytes::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| {
                Problem::new(Kind::BAD_REQUEST)
                    .detail("the body ended early or is not framed as announced")
            })?;
            let have = whole.as_ref().map_or(first.len(), BytesMut::len);
            if have + chunk.len() > limits.bytes_max {
                return Err(too_large());
            }
            // Most bodies come in one piece, and are not copied then.
            if have == 0 {
                first = chunk;
            } else {
                whole.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&chunk);
            }
        }
        Ok(whole.map_or(first, BytesMut::freeze))
    };
    match tokio::time::timeout(limits.timeout, reading).await {
        Ok(body) => body,
        Err(_) => Err(Problem::new(Kind::TOO_SLOW)),
    }
}

/// The ids in the path: `At<FormId>`, `At<(FormId, SubmissionId)>`.
///
/// A text that is no such id answers exactly what an absent id answers.
#[derive(Debug, Clone, Copy)]
pub struct At<T>(pub T);

/// One parameter of a path.
pub trait Segment: Sized + 'static {
    /// Reads it; nothing if it cannot be one.
    fn read(text: &str) -> Option<Self>;
}

/// All parameters of a path.
pub trait PathIds: Sized + 'static {
    /// How many there are.
    const COUNT: usize;
    /// Reads them, in order.
    fn read(texts: &[&str]) -> Option<Self>;
}

macro_rules! segments {
    ($($kind:ty)*) => {$(
        impl Segment for $kind {
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
        impl PathIds for $kind {
            const COUNT: usize = 1;
            fn read(texts: &[&str]) -> Option<Self> {
                <Self as Segment>::read(texts.first()?)
            }
        }
    )*};
}

segments! { ApiKeyId CommentId EventId ExportId FormId IdentityId IdentityProviderId IntegrationId InviteId RestoreId SecretId SessionId SubmissionId SupportId TeamId TenantId UserId String }

/// One spelling for each number: no sign and no zeros in front.
impl Segment for u64 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &Self| number.to_string() == text)
    }
}

impl PathIds for u64 {
    const COUNT: usize = 1;
    fn read(texts: &[&str]) -> Option<Self> {
        <Self as Segment>::read(texts.first()?)
    }
}

impl<A: Segment, B: Segment> PathIds for (A, B) {
    const COUNT: usize = 2;
    fn read(texts: &[&str]) -> Option<Self> {
        Some((A::read(texts.first()?)?, B::read(texts.get(1)?)?))
    }
}

impl<A: Segment, B: Segment, C: Segment> PathIds for (A, B, C) {
    const COUNT: usize = 3;
    fn read(texts: &[&str]) -> Option<Self> {
        Some((A::read(texts.first()?)?, B::read(texts.get(1)?)?, C::read(texts.get(2)?)?))
    }
}

impl<T: PathIds> FromRequest for At<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let read = context(request).and_then(|context| {
            let texts = context.params.of(request.path());
            let is_whole = context.params.len() == T::COUNT;
            T::read(&texts[..context.params.len()]).filter(|_| is_whole)
        });
        ready(read.map(Self).ok_or_else(Problem::not_found))
    }
}

/// The query string as a `T`: 422 with pointers of the form `query/NAME`. `limit`, `cursor` and `as_of`
/// are read elsewhere; every other parameter has to be one that `T` knows.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse::query(request.query_string()).map(Self))
    }
}

/// Which page of a list is wanted, from `limit` and `cursor`.
#[derive(Debug)]
pub struct Paged(pub Paging);

impl FromRequest for Paged {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(paging(request.query_string()).map(Self))
    }
}

fn paging(query: &str) -> Result<Paging, Problem> {
    let mut paging = Paging { limit: PAGE_DEFAULT, cursor: None };
    for (name, value) in parse::pairs(query)? {
        match name.as_str() {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                paging.limit = limit.ok_or_else(|| {
                    Problem::invalid(
                        "query/limit",
                        format!("must be a number from 1 to {PAGE_MAX}"),
                    )
                })?;
            }
            "cursor" if value.is_empty() || value.len() > CURSOR_BYTES_MAX => {
                return Err(Problem::invalid(
                    "query/cursor",
                    "must be the `next_cursor` of a page",
                ));
            }
            "cursor" => paging.cursor = Some(value),
            _ => {}
        }
    }
    Ok(paging)
}

/// The version that `If-Match` names: `"7"`. Absent or `*` means any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch(pub Option<u64>);

impl FromRequest for IfMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(if_match(request.headers()).map(Self))
    }
}

/// A tag that we never gave, a weak one included, matches nothing (RFC 9110 §13.1.1).
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut values = headers.get_all(header::IF_MATCH);
    let Some(value) = values.next() else { return Ok(None) };
    if value == "*" && values.next().is_none() {
        return Ok(None);
    }
    let tag = value.to_str().ok().map(str::trim).filter(|_| values.next().is_none());
    let version = tag.and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    version.map(Some).ok_or_else(|| Problem::new(Kind::VERSION_MISMATCH))
}

#[cfg(test)]
mod tests;
