//! Standard Webhooks 1.0: `webhook-signature` over `id.timestamp.body`.
//!
//! The header lists signatures between spaces, so a sender can rotate: `v1,<base64>` is HMAC-SHA-256
//! under a `whsec_…` secret, `v1a,<base64>` is Ed25519 (RFC 8032) under the sender's `whpk_…` key.

use std::borrow::Cow;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::webhook::scheme::{
    Headers, Refused, SIGNATURES_MAX, Secret, Verified, authenticates, check_timestamp, read_json,
};

pub(super) const ID: &str = "webhook-id";
pub(super) const TIMESTAMP: &str = "webhook-timestamp";
pub(super) const SIGNATURE: &str = "webhook-signature";

const SECRET_PREFIX: &str = "whsec_";
const PUBLIC_KEY_PREFIX: &str = "whpk_";

#[derive(Default, Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    event_type: Option<Cow<'a, str>>,
}

/// The signatures of one delivery, by kind.
#[derive(Default)]
struct Signatures {
    tags: Vec<[u8; 32]>,
    ed25519: Vec<[u8; 64]>,
}

impl Signatures {
    /// Reads the list. Kinds that are not known are passed over; nothing usable is malformed.
    fn read(list: &str) -> Result<Self, Refused> {
        let mut read = Self::default();
        for entry in list.split(' ').take(SIGNATURES_MAX) {
            match entry.split_once(',') {
                Some(("v1", text)) => read.tags.extend(exactly(text)),
                Some(("v1a", text)) => read.ed25519.extend(exactly(text)),
                _ => {}
            }
        }
        let empty = read.tags.is_empty() && read.ed25519.is_empty();
        if empty { Err(Refused::Malformed) } else { Ok(read) }
    }
}

/// `N` bytes in padded base64.
fn exactly<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

fn hmac_key(secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let text = secret.reveal().strip_prefix(SECRET_PREFIX)?;
    BASE64_STANDARD.decode(text).ok().map(Zeroizing::new)
}

fn public_key(secret: &Secret) -> Option<[u8; 32]> {
    secret.reveal().strip_prefix(PUBLIC_KEY_PREFIX).and_then(exactly)
}

pub(super) fn check_secret(text: &str) -> Result<(), &'static str> {
    let secret = Secret::new(text.to_owned());
    let fits = |key: Zeroizing<Vec<u8>>| (24..=64).contains(&key.len());
    if hmac_key(&secret).is_some_and(fits) || public_key(&secret).is_some() {
        Ok(())
    } else {
        Err(
            "must be whsec_ and base64 of 24 to 64 bytes, or whpk_ and base64 of an Ed25519 public key",
        )
    }
}

pub(super) fn verify(
    headers: &Headers,
    body: &[u8],
    secrets: &[Secret],
    now_ms: u64,
) -> Result<Verified, Refused> {
    let id = headers.one(ID)?;
    // A full stop would make the signed text ambiguous.
    if id.is_empty() || id.len() > 256 || id.contains('.') {
        return Err(Refused::Malformed);
    }
    let timestamp = headers.one(TIMESTAMP)?;
    let signatures = Signatures::read(headers.one(SIGNATURE)?)?;
    check_timestamp(timestamp, now_ms)?;
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let keys: Vec<_> = secrets.iter().filter_map(hmac_key).collect();
    let hmac = authenticates(keys.iter().map(|key| key.as_slice()), &parts, &signatures.tags);
    if hmac.is_err() && !is_signed(secrets, &parts, &signatures.ed25519) {
        return Err(Refused::Mismatch);
    }
    let event: Event<'_> = read_json(body);
    Ok(Verified::new(Some(id), event.event_type.as_deref(), body))
}

fn is_signed(secrets: &[Secret], parts: &[&[u8]], signatures: &[[u8; 64]]) -> bool {
    if signatures.is_empty() {
        return false;
    }
    let message = parts.concat();
    secrets.iter().filter_map(public_key).any(|key| {
        let key = UnparsedPublicKey::new(&ED25519, key);
        signatures.iter().any(|signature| key.verify(&message, signature).is_ok())
    })
}
