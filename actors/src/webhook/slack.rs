//! Slack: `X-Slack-Signature: v0=<lower-case hex>` over `v0:<X-Slack-Request-Timestamp>:<body>`.
//!
//! Events carry an `event_id` that stays the same over retries. Other requests (commands,
//! interactions) are forms without any id and are never retried; their signature, which covers the
//! time, tells them apart.

use std::borrow::Cow;

use serde::Deserialize;

use crate::webhook::scheme::{
    Headers, Refused, Secret, Verified, authenticates, check_timestamp, hex_tag, read_json, whole,
};

pub(super) const SIGNATURE: &str = "x-slack-signature";
pub(super) const TIMESTAMP: &str = "x-slack-request-timestamp";

/// The largest challenge answered; Slack's have some fifty bytes.
const CHALLENGE_BYTES_MAX: usize = 1_024;

#[derive(Default, Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type")]
    request_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    challenge: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event: Option<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    event_type: Option<Cow<'a, str>>,
}

pub(super) fn verify(
    headers: &Headers,
    body: &[u8],
    secrets: &[Secret],
    now_ms: u64,
) -> Result<Verified, Refused> {
    let signature = headers.one(SIGNATURE)?;
    let tag = hex_tag(signature.strip_prefix("v0=").ok_or(Refused::Malformed)?)?;
    let timestamp = headers.one(TIMESTAMP)?;
    check_timestamp(timestamp, now_ms)?;
    authenticates(whole(secrets), &[b"v0:", timestamp.as_bytes(), b":", body], &[tag])?;
    let request: Request<'_> = read_json(body);
    let inner = request.event.and_then(|event| event.event_type);
    let event_type = inner.or(request.request_type.clone());
    let id = request.event_id.as_deref().unwrap_or(signature);
    let mut verified = Verified::new(Some(id), event_type.as_deref(), body);
    if request.request_type.as_deref() == Some("url_verification") {
        verified.challenge = request
            .challenge
            .filter(|challenge| challenge.len() <= CHALLENGE_BYTES_MAX)
            .map(Cow::into_owned);
    }
    Ok(verified)
}
