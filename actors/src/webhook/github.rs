//! GitHub: `X-Hub-Signature-256: sha256=<lower-case hex>` over the body.
//!
//! The older SHA-1 header is ignored. The id and the kind of event come in headers of their own.

use crate::webhook::scheme::{Headers, Refused, Secret, Verified, authenticates, hex_tag, whole};

pub(super) const SIGNATURE: &str = "x-hub-signature-256";
pub(super) const DELIVERY: &str = "x-github-delivery";
pub(super) const EVENT: &str = "x-github-event";

pub(super) fn verify(
    headers: &Headers,
    body: &[u8],
    secrets: &[Secret],
) -> Result<Verified, Refused> {
    let signature = headers.one(SIGNATURE)?;
    let tag = hex_tag(signature.strip_prefix("sha256=").ok_or(Refused::Malformed)?)?;
    let (id, event) = (headers.optional(DELIVERY)?, headers.optional(EVENT)?);
    authenticates(whole(secrets), &[body], &[tag])?;
    Ok(Verified::new(id, event, body))
}
