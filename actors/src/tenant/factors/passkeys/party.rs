//! Whom passkeys are made for and what browsers send about it (WebAuthn Level 3).
//!
//! The relying party is named by a domain; a passkey is bound to it by the browser. Where a ceremony took
//! place, its origin, is checked here letter by letter: a page of another tenant under the same domain is
//! another origin. Refuses: to compare an origin in any form but the one browsers write.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Fault;

/// Longest credential id that is enrolled, in bytes: it has to fit into a path.
pub(super) const CREDENTIAL_ID_BYTES_MAX: usize = 512;
/// Longest part of a browser's answer, in bytes.
const PART_BYTES_MAX: usize = 16 * 1024;

/// Whom passkeys are made for, and at which origins they may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelyingParty {
    /// The domain (RP ID).
    pub id: String,
    /// The origins of the node itself, as browsers write them.
    pub origins: Vec<String>,
    /// What stands before and behind a tenant's short name in its own origin: `https://` and `.example.com`.
    pub tenants: Option<(String, String)>,
    /// Whether `http://localhost` is one, with any port: on a developer's machine.
    pub is_local: bool,
}

impl RelyingParty {
    /// Whether a tenant's people may use their passkeys at an origin.
    pub(super) fn allows(&self, origin: &str, slug: Option<&str>) -> bool {
        let is_own = |(before, behind): &(String, String)| {
            slug.is_some_and(|slug| {
                origin.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(&**behind))
                    == Some(slug)
            })
        };
        self.origins.iter().any(|known| known == origin)
            || self.tenants.as_ref().is_some_and(is_own)
            || (self.is_local && is_localhost(origin))
    }
}

fn is_localhost(origin: &str) -> bool {
    match origin.strip_prefix("http://localhost") {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port)),
        None => false,
    }
}

/// Bytes that browsers write in base64url without padding. Do not show themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub(super) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes =
            URL_SAFE_NO_PAD.decode(&text).ok().filter(|bytes| bytes.len() <= PART_BYTES_MAX);
        let wrong = || D::Error::custom("must be at most 16 KiB in base64url without padding");
        bytes.map(Self).ok_or_else(wrong)
    }
}

impl JsonSchema for Bytes {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Base64Url".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "contentEncoding": "base64url"})
    }
}

/// A new passkey, as `PublicKeyCredential.toJSON()` writes it; members that are not named here are ignored.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct NewCredential {
    /// The credential id.
    pub(super) id: Bytes,
    /// `public-key`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// What the authenticator made.
    pub(super) response: Attestation,
}

/// What an authenticator makes of creation options.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// What the browser signed off.
    #[serde(rename = "clientDataJSON")]
    pub(super) client_data: Bytes,
    /// The public key and what the authenticator says of it.
    pub(super) attestation_object: Bytes,
    /// How the authenticator can be reached: a hint for browsers.
    #[serde(default)]
    pub(super) transports: Vec<String>,
}

/// A use of a passkey, as `PublicKeyCredential.toJSON()` writes it; members that are not named here are
/// ignored.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Assertion {
    /// The credential id.
    pub(super) id: Bytes,
    /// `public-key`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// What the authenticator signed.
    pub(super) response: Signed,
}

/// What an authenticator makes of request options.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// What the browser signed off.
    #[serde(rename = "clientDataJSON")]
    pub(super) client_data: Bytes,
    /// Relying party, flags and counter.
    pub(super) authenticator_data: Bytes,
    /// The signature over both.
    pub(super) signature: Bytes,
    /// Whose passkey it is; always there when nobody had said before.
    #[serde(default)]
    pub(super) user_handle: Option<Bytes>,
}

impl Assertion {
    /// Whose budget an attempt is charged to: the person it says it is of.
    pub fn account(&self) -> String {
        URL_SAFE_NO_PAD
            .encode(self.response.user_handle.as_ref().map_or(&self.id.0, |handle| &handle.0))
    }
    /// Whose passkey it says it is.
    pub(crate) fn user(&self) -> Option<storage::id::UserId> {
        let handle = self.response.user_handle.as_ref()?;
        handle.0.as_slice().try_into().ok().map(storage::id::Id::from_bytes)
    }
    /// The challenge it says it answers.
    pub(crate) fn challenge(&self) -> Option<Vec<u8>> {
        ClientData::read(&self.response.client_data.0).ok().map(|data| data.challenge.0)
    }
}

/// What the browser says about a ceremony (CollectedClientData).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: Bytes,
    pub origin: String,
    #[serde(default)]
    cross_origin: Option<bool>,
    #[serde(default)]
    top_origin: Option<String>,
}

impl ClientData {
    pub fn read(json: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(json).map_err(|_| Fault::Unreadable)
    }

    /// Whether it is about the right thing, and came from the right place.
    pub fn check(
        &self,
        kind: &str,
        challenge: &[u8],
        party: &RelyingParty,
        slug: Option<&str>,
    ) -> Result<(), Fault> {
        if self.kind != kind {
            return Err(Fault::Kind);
        }
        if self.challenge.0 != challenge {
            return Err(Fault::Challenge);
        }
        // In a frame of another page, people do not see who asks.
        let is_framed = self.cross_origin == Some(true) || self.top_origin.is_some();
        if is_framed || !party.allows(&self.origin, slug) {
            return Err(Fault::Origin);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_letter_by_letter() {
        let party = RelyingParty {
            id: "example.com".to_owned(),
            origins: vec!["https://api.example.com".to_owned()],
            tenants: Some(("https://".to_owned(), ".example.com".to_owned())),
            is_local: false,
        };
        for good in ["https://api.example.com", "https://acme.example.com"] {
            assert!(party.allows(good, Some("acme")), "{good}");
        }
        assert!(!party.allows("https://acme.example.com", None));
        for bad in [
            "https://bob.example.com",
            "http://acme.example.com",
            "https://acme.example.com:8443",
            "https://acme.example.com/",
            "https://ACME.example.com",
            "https://x.acme.example.com",
            "https://example.com",
            "https://.example.com",
            "https://acme.example.com.evil.org",
            "https://evil.org#.example.com",
            "http://localhost",
            "null",
            "",
        ] {
            assert!(!party.allows(bad, Some("acme")), "{bad}");
        }
    }

    #[test]
    fn a_local_node_takes_any_port_of_localhost_and_nothing_else() {
        let party = RelyingParty {
            id: "localhost".to_owned(),
            origins: Vec::new(),
            tenants: None,
            is_local: true,
        };
        for good in ["http://localhost", "http://localhost:8080", "http://localhost:1"] {
            assert!(party.allows(good, Some("acme")), "{good}");
        }
        for bad in [
            "https://localhost",
            "http://localhost:",
            "http://localhost:080",
            "http://localhost:99999",
            "http://localhost:80@evil.org",
            "http://localhost.evil.org",
            "http://127.0.0.1:8080",
        ] {
            assert!(!party.allows(bad, Some("acme")), "{bad}");
        }
    }
}
