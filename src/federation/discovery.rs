//! What an OpenID provider says of itself (OpenID Connect Discovery 1.0).
//!
//! Where its parts are is taken from here, and nothing else: what is allowed and what is expected is ours to
//! say. Every address in it is looked at again before it is called.

use serde::Deserialize;

/// The parts of the document that are of use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Discovery {
    /// Who it says it is.
    pub issuer: String,
    /// Where people are sent.
    pub authorization_endpoint: String,
    /// Where a code becomes tokens.
    pub token_endpoint: String,
    /// Where the keys are.
    pub jwks_uri: String,
    /// Where to ask for what the token does not say.
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    /// How it wants to be told who asks for tokens.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Whether its answers say who answers (RFC 9207).
    #[serde(default, rename = "authorization_response_iss_parameter_supported")]
    pub names_itself_in_answers: bool,
}

impl Discovery {
    /// Where an issuer's document is.
    pub fn url(issuer: &str) -> String {
        format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
    }

    /// Reads the document; nothing if it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether a client's secret goes into the body. The header is what every provider has to take.
    pub fn wants_secret_in_body(&self) -> bool {
        self.token_endpoint_auth_methods_supported.as_ref().is_some_and(|methods| {
            let has = |name: &str| methods.iter().any(|method| method == name);
            has("client_secret_post") && !has("client_secret_basic")
        })
    }
}
