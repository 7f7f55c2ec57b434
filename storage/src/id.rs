//! Identifiers: sixteen bytes, time-ordered, shown as prefixed text.
//!
//! The first six bytes are Unix milliseconds, big-endian; the other ten are random. So ids sort by
//! the time they were made (the idea of UUID version 7, RFC 9562 §5.7), and the text sorts the
//! same way. Text is for people and JSON; MessagePack carries the raw bytes.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_ and 32 lowercase hexadecimal digits")]
pub struct IdError {
    /// The prefix that was expected, without its underscore.
    pub prefix: &'static str,
}

/// What all ids share, so that generic code can make and print them.
pub trait Id: Copy + Ord + fmt::Display + FromStr<Err = IdError> + Send + Sync + 'static {
    /// The two or three letters before the underscore.
    const PREFIX: &'static str;
    /// Makes an id from its sixteen bytes.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// The sixteen bytes.
    fn as_bytes(&self) -> &[u8; 16];
    /// Makes an id from a time and randomness.
    fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        Self::from_bytes(bytes)
    }
}

fn parse(text: &str, prefix: &'static str) -> Result<[u8; 16], IdError> {
    let error = IdError { prefix };
    let digits = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .filter(|digits| digits.len() == 32)
        .filter(|digits| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        .ok_or(error)?;
    let mut bytes = [0; 16];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| error)?;
    Ok(bytes)
}

struct BytesVisitor;

impl serde::de::Visitor<'_> for BytesVisitor {
    type Value = [u8; 16];
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sixteen bytes")
    }
    fn visit_bytes<E: serde::de::Error>(self, v: &[u8]) -> Result<[u8; 16], E> {
        v.try_into().map_err(|_| E::invalid_length(v.len(), &self))
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
            fn from_bytes(bytes: [u8; 16]) -> Self { Self(bytes) }
            fn as_bytes(&self) -> &[u8; 16] { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut digits = [0; 32];
                hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> { parse(text, $prefix).map(Self) }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0) }
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    d.deserialize_bytes(BytesVisitor).map(Self)
                }
            }
        }
    )*

    /// Every id prefix, for documentation and the uniqueness test.
    pub const PREFIXES: &[&str] = &[$($prefix),*];
    };
}

ids! {
    /// A tenant: one log, one view, one actor.
    TenantId = "tn";
    /// A person within one tenant. The same e-mail in two tenants is two users.
    UserId = "us";
    /// A signed-in session; the family of its refresh tokens.
    SessionId = "se";
    /// A team of users.
    TeamId = "tm";
    /// A form.
    FormId = "fm";
    /// A submission to a form.
    SubmissionId = "sb";
    /// A comment on a submission.
    CommentId = "cm";
    /// A source of inbound webhooks.
    IntegrationId = "in";
    /// A stored inbound webhook.
    EventId = "ev";
    /// One secret of an integration.
    SecretId = "sk";
    /// An API key: names it, without what proves it.
    ApiKeyId = "ak";
    /// A support session: somebody of the platform looks into a tenant, for a while.
    SupportId = "ss";
    /// A restore of a tenant to an earlier time.
    RestoreId = "rs";
    /// An export of a tenant by its own people.
    ExportId = "ex";
    /// A backup of a node.
    BackupId = "bk";
    /// A drill: a backup restored to scratch, to know that it can be.
    DrillId = "dr";
    /// An invitation.
    InviteId = "iv";
    /// A mail that waits to be sent.
    MailId = "ml";
    /// A single-use link that was mailed.
    TicketId = "tk";
    /// A party that a tenant lets vouch for people.
    IdentityProviderId = "ip";
    /// A person's identity at such a party.
    IdentityId = "il";
}

impl TenantId {
    /// The control plane's own compartment: directory of tenants, platform administrators.
    pub const PLATFORM: Self = Self([0; 16]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_sorts_by_time() {
        let early = FormId::new(1_000, [255; 10]);
        let late = FormId::new(1_001, [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.to_string().parse(), Ok(late));
    }

    #[test]
    fn foreign_prefixes_separators_and_upper_case_are_refused() {
        let form = FormId::new(1, [7; 10]).to_string();
        assert!(form.parse::<UserId>().is_err());
        assert!(form.to_uppercase().parse::<FormId>().is_err());
        assert!(format!("{form}\0").parse::<FormId>().is_err());
        assert!("fm_".parse::<FormId>().is_err());
    }

    #[test]
    fn no_two_kinds_share_a_prefix() {
        let unique: std::collections::BTreeSet<_> = PREFIXES.iter().collect();
        assert_eq!(unique.len(), PREFIXES.len());
    }
}
