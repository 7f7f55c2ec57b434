//! Razorpay: `X-Razorpay-Signature: <lower-case hex>` over the body.
//!
//! The scheme has no timestamp, so finding repetitions by `x-razorpay-event-id` is the only defence
//! against replays; without that header the body's digest serves.

use std::borrow::Cow;

use serde::Deserialize;

use crate::webhook::scheme::{
    Headers, Refused, Secret, Verified, authenticates, hex_tag, read_json, whole,
};

pub(super) const SIGNATURE: &str = "x-razorpay-signature";
pub(super) const EVENT_ID: &str = "x-razorpay-event-id";

#[derive(Default, Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
}

pub(super) fn verify(
    headers: &Headers,
    body: &[u8],
    secrets: &[Secret],
) -> Result<Verified, Refused> {
    let tag = hex_tag(headers.one(SIGNATURE)?)?;
    let id = headers.optional(EVENT_ID)?;
    authenticates(whole(secrets), &[body], &[tag])?;
    let event: Event<'_> = read_json(body);
    Ok(Verified::new(id, event.event.as_deref(), body))
}
