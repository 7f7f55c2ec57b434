//! Signature schemes: raw bytes, headers and secrets in; a verified delivery out, or a refusal.
//!
//! Pure: no clock, no store. Tags are compared in constant time, every active secret is tried, a
//! signature header that comes twice is refused, and nothing of the body is parsed before its bytes
//! are verified.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::webhook::{github, razorpay, slack, standard, stripe};

/// How far a timestamp may be from now, in either direction, for the schemes that carry one.
pub const TOLERANCE_S: u64 = 300;
/// Signatures of one delivery that are looked at: senders list a few during rotation.
pub(super) const SIGNATURES_MAX: usize = 16;
/// Longer event ids are replaced by a digest of themselves.
const EVENT_ID_BYTES_MAX: usize = 200;
/// Longer event types are cut.
const EVENT_TYPE_BYTES_MAX: usize = 100;
/// Shortest secret a sender may share with us.
const SECRET_BYTES_MIN: usize = 8;
/// Longest.
const SECRET_BYTES_MAX: usize = 256;

/// Whose scheme a delivery is signed with.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Stripe, Connect included.
    Stripe,
    /// Razorpay.
    Razorpay,
    /// GitHub.
    Github,
    /// Slack.
    Slack,
    /// Standard Webhooks 1.0.
    Standard,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 5] =
        [Self::Stripe, Self::Razorpay, Self::Github, Self::Slack, Self::Standard];

    /// Its name in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Razorpay => "razorpay",
            Self::Github => "github",
            Self::Slack => "slack",
            Self::Standard => "standard",
        }
    }

    /// A new secret of the shape this source's people expect, from 32 random bytes.
    pub fn generate_secret(self, random: &[u8; 32]) -> Secret {
        Secret::new(match self {
            Self::Stripe | Self::Standard => {
                format!("whsec_{}", BASE64_STANDARD.encode(&random[..24]))
            }
            Self::Razorpay | Self::Github | Self::Slack => hex::encode(random),
        })
    }

    /// Whether a secret can be one of this source.
    ///
    /// # Errors
    /// A sentence for the one who entered it.
    pub fn check_secret(self, secret: &Secret) -> Result<(), &'static str> {
        let text = secret.reveal();
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&text.len()) {
            return Err("must have 8 to 256 bytes");
        }
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("must not contain control characters");
        }
        match self {
            Self::Standard => standard::check_secret(text),
            Self::Stripe | Self::Razorpay | Self::Github | Self::Slack => Ok(()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A secret shared with a sender. Wiped when dropped; never printed.
#[derive(Clone, PartialEq, Eq, schemars::JsonSchema)]
#[schemars(inline)]
pub struct Secret(#[schemars(with = "String")] Zeroizing<String>);

impl Secret {
    /// The secret with this text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
    /// The text, for whoever signs, verifies or shows it once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// The request headers that any scheme reads, each with all its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<&'static str, Vec<Vec<u8>>>);

/// Lower-case names of the headers that any scheme reads.
const HEADER_NAMES: [&str; 11] = [
    stripe::SIGNATURE,
    razorpay::SIGNATURE,
    razorpay::EVENT_ID,
    github::SIGNATURE,
    github::DELIVERY,
    github::EVENT,
    slack::SIGNATURE,
    slack::TIMESTAMP,
    standard::ID,
    standard::SIGNATURE,
    standard::TIMESTAMP,
];

impl Headers {
    /// Keeps what the schemes read and drops the rest: cookies and the like do not belong here.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut kept = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in pairs {
            let mut known = HEADER_NAMES.into_iter();
            if let Some(name) = known.find(|known| known.eq_ignore_ascii_case(name)) {
                kept.entry(name).or_default().push(value.to_vec());
            }
        }
        Self(kept)
    }

    /// The one value of a header.
    pub(super) fn one(&self, name: &'static str) -> Result<&str, Refused> {
        match self.0.get(name).map(Vec::as_slice) {
            None | Some([]) => Err(Refused::Missing),
            Some([value]) => std::str::from_utf8(value)
                .ok()
                .filter(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
                .ok_or(Refused::Malformed),
            Some(_) => Err(Refused::Repeated),
        }
    }

    /// The one value of a header that may be absent or empty.
    pub(super) fn optional(&self, name: &'static str) -> Result<Option<&str>, Refused> {
        match self.one(name) {
            Ok("") | Err(Refused::Missing) => Ok(None),
            Ok(text) => Ok(Some(text)),
            Err(refused) => Err(refused),
        }
    }
}

/// Why a delivery is not believed. For counters and operators, never for the sender.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// A header the scheme needs is absent.
    #[error("a signature header is missing")]
    Missing,
    /// A header the scheme needs came more than once.
    #[error("a signature header came more than once")]
    Repeated,
    /// A header is not of the scheme's form: wrong length, wrong case, wrong alphabet.
    #[error("a signature header is malformed")]
    Malformed,
    /// The timestamp is too old.
    #[error("the timestamp is too old")]
    Stale,
    /// The timestamp is too far ahead.
    #[error("the timestamp is too far ahead")]
    Early,
    /// No active secret made this signature.
    #[error("no active secret made this signature")]
    Mismatch,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Repeated, Self::Malformed, Self::Stale, Self::Early, Self::Mismatch];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::Malformed => "malformed",
            Self::Stale => "stale",
            Self::Early => "early",
            Self::Mismatch => "mismatch",
        }
    }
}

/// A delivery that its sender signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What the sender calls this event; the same for every retry of it.
    pub provider_event_id: String,
    /// What kind of event; `unknown` if it does not say.
    pub event_type: String,
    /// Slack's question at set-up, to be answered with itself.
    pub challenge: Option<String>,
    /// Stripe Connect's connected account.
    pub account: Option<String>,
}

impl Verified {
    /// A delivery with bounded texts. An absent or overlong id is replaced by a digest of the body or
    /// of itself, which is as good for finding repetitions.
    pub(super) fn new(id: Option<&str>, event_type: Option<&str>, body: &[u8]) -> Self {
        let provider_event_id = match id.filter(|id| !id.is_empty()) {
            Some(id) if id.len() <= EVENT_ID_BYTES_MAX => id.to_owned(),
            Some(id) => sha256_name(id.as_bytes()),
            None => sha256_name(body),
        };
        let event_type = event_type.filter(|text| !text.is_empty()).unwrap_or("unknown");
        let end = event_type.floor_char_boundary(EVENT_TYPE_BYTES_MAX);
        Self {
            provider_event_id,
            event_type: event_type[..end].to_owned(),
            challenge: None,
            account: None,
        }
    }
}

fn sha256_name(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest::digest(&digest::SHA256, bytes)))
}

/// Verifies a delivery.
///
/// `body` is what came over the wire, byte for byte; `secrets` are all that are active;
/// `now_ms` is Unix milliseconds.
///
/// # Errors
/// [`Refused`], for counting. The sender learns only that the signature is wrong.
pub fn verify(
    source: Source,
    headers: &Headers,
    body: &[u8],
    secrets: &[Secret],
    now_ms: u64,
) -> Result<Verified, Refused> {
    match source {
        Source::Stripe => stripe::verify(headers, body, secrets, now_ms),
        Source::Razorpay => razorpay::verify(headers, body, secrets),
        Source::Github => github::verify(headers, body, secrets),
        Source::Slack => slack::verify(headers, body, secrets, now_ms),
        Source::Standard => standard::verify(headers, body, secrets, now_ms),
    }
}

/// Whether any of `tags` is HMAC-SHA-256 of `parts`, read as one text, under any of `keys`.
///
/// Every key and every tag is tried whatever matched before, each comparison in constant time.
pub(super) fn authenticates<'a>(
    keys: impl IntoIterator<Item = &'a [u8]>,
    parts: &[&[u8]],
    tags: &[[u8; 32]],
) -> Result<(), Refused> {
    let mut matched = false;
    for key in keys {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        for part in parts {
            context.update(part);
        }
        let wanted = context.sign();
        for tag in tags {
            matched |= constant_time::verify_slices_are_equal(wanted.as_ref(), tag).is_ok();
        }
    }
    if matched { Ok(()) } else { Err(Refused::Mismatch) }
}

/// Every secret's own bytes, for the schemes that use them as the key.
pub(super) fn whole(secrets: &[Secret]) -> impl Iterator<Item = &[u8]> {
    secrets.iter().map(|secret| secret.reveal().as_bytes())
}

/// A tag in lower-case hexadecimal, of exactly the right length.
pub(super) fn hex_tag(text: &str) -> Result<[u8; 32], Refused> {
    let mut tag = [0; 32];
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Refused::Malformed);
    }
    hex::decode_to_slice(text, &mut tag).map_err(|_| Refused::Malformed)?;
    Ok(tag)
}

/// Whether Unix seconds in plain digits are close enough to now.
pub(super) fn check_timestamp(text: &str, now_ms: u64) -> Result<(), Refused> {
    let plain = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let sent_s: u64 = text.parse().ok().filter(|_| plain).ok_or(Refused::Malformed)?;
    let now_s = now_ms / 1_000;
    if sent_s.saturating_add(TOLERANCE_S) < now_s {
        Err(Refused::Stale)
    } else if sent_s > now_s.saturating_add(TOLERANCE_S) {
        Err(Refused::Early)
    } else {
        Ok(())
    }
}

/// What a verified JSON body says of itself; all absent if it is no JSON or its fields are no texts.
pub(super) fn read_json<'a, T: Deserialize<'a> + Default>(body: &'a [u8]) -> T {
    serde_json::from_slice(body).unwrap_or_default()
}

#[cfg(test)]
mod tests;
