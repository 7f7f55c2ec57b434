//! Stripe: `Stripe-Signature: t=<Unix seconds>,v1=<hex>[,v1=…]` over `t.body`.
//!
//! The whole `whsec_…` text is the key. Only `v1` entries count: `v0` is for test clocks of Stripe's
//! own and anything else is not known to be a signature.

use std::borrow::Cow;

use serde::Deserialize;

use crate::webhook::scheme::{
    Headers, Refused, SIGNATURES_MAX, Secret, Verified, authenticates, check_timestamp, hex_tag,
    read_json, whole,
};

pub(super) const SIGNATURE: &str = "stripe-signature";

#[derive(Default, Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type")]
    event_type: Option<Cow<'a, str>>,
    /// Connect: the connected account the event is about.
    #[serde(borrow, default)]
    account: Option<Cow<'a, str>>,
}

pub(super) fn verify(
    headers: &Headers,
    body: &[u8],
    secrets: &[Secret],
    now_ms: u64,
) -> Result<Verified, Refused> {
    let (mut timestamp, mut tags) = (None, Vec::new());
    for entry in headers.one(SIGNATURE)?.split(',') {
        match entry.split_once('=').ok_or(Refused::Malformed)? {
            ("t", _) if timestamp.is_some() => return Err(Refused::Repeated),
            ("t", seconds) => timestamp = Some(seconds),
            ("v1", _) if tags.len() == SIGNATURES_MAX => return Err(Refused::Malformed),
            ("v1", tag) => tags.push(hex_tag(tag)?),
            _ => {}
        }
    }
    let timestamp = timestamp.ok_or(Refused::Missing)?;
    if tags.is_empty() {
        return Err(Refused::Missing);
    }
    check_timestamp(timestamp, now_ms)?;
    authenticates(whole(secrets), &[timestamp.as_bytes(), b".", body], &tags)?;
    let event: Event<'_> = read_json(body);
    let mut verified = Verified::new(event.id.as_deref(), event.event_type.as_deref(), body);
    verified.account = event.account.filter(|id| id.len() <= 200).map(Cow::into_owned);
    Ok(verified)
}
