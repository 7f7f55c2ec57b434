//! A code for tokens, and what the token does not say from where the provider says it.
//!
//! The code is of use only together with what this node alone knows (RFC 7636), so a code that was seen on
//! the way opens nothing.

use actors::tenant::identities::Vouched;
use actors::tenant::identities::providers::Provider;
use actors::webhook::scheme::Secret;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use storage::id::TenantId;
use zeroize::Zeroizing;

use super::breaker::Breakers;
use super::discovery::Discovery;
use super::outbound::{Missed, Outbound, Proof};
use super::{Doubt, token, unique};

/// Largest answer with tokens, in bytes.
const TOKENS_BYTES_MAX: usize = 64 * 1024;

/// What goes along when somebody is sent away, in the place of what is shown later (RFC 7636 §4.2).
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// What a code was good for.
#[derive(Deserialize)]
pub struct TokenSet {
    /// Who it is.
    pub id_token: Secret,
    /// For asking more.
    #[serde(default)]
    access_token: Option<Secret>,
}

/// Asks one provider in the name of one tenant.
pub struct Asking<'a> {
    /// The client.
    pub outbound: &'a Outbound,
    /// What is known of whom it failed to reach.
    pub breakers: &'a Breakers,
    /// In whose name.
    pub tenant: TenantId,
    /// What the provider says of itself.
    pub found: &'a Discovery,
    /// The provider.
    pub provider: &'a Provider,
    /// Where somebody came back to.
    pub redirect_uri: &'a str,
}

impl Asking<'_> {
    /// Exchanges a code.
    ///
    /// # Errors
    /// [`Doubt::Refused`] if the provider knows no such code, else [`Doubt::Unavailable`].
    pub async fn tokens(&self, code: &str, verifier: &str) -> Result<TokenSet, Doubt> {
        let client = self.provider.client_id.as_str();
        let secret = self.provider.client_secret.as_ref().map(|secret| secret.reveal());
        let is_in_body = secret.is_none() || self.found.wants_secret_in_body();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect_uri),
            ("code_verifier", verifier),
        ];
        if is_in_body {
            form.push(("client_id", client));
            form.extend(secret.map(|secret| ("client_secret", secret)));
        }
        let form = serde_urlencoded::to_string(form).map_err(|_| Doubt::Refused("code"))?;
        // Both are written as in a form before they go into the header (RFC 6749 §2.3.1).
        let written = |text: &str| -> Zeroizing<String> {
            let pair = serde_urlencoded::to_string([("", text)]).unwrap_or_default();
            Zeroizing::new(pair.trim_start_matches('=').to_owned())
        };
        let (name, password) = (written(client), written(secret.unwrap_or_default()));
        let proof = if is_in_body { Proof::None } else { Proof::Basic(&name, &password) };
        let url = &self.found.token_endpoint;
        let exchange = async {
            let got = self.outbound.post("token", url, form, proof, TOKENS_BYTES_MAX).await?;
            serde_json::from_slice(&got.bytes).map_err(|_| Missed::Rubbish)
        };
        let exchanged = self.breakers.call(self.tenant, url, exchange).await;
        exchanged.map_err(|failed| Doubt::of(&failed, "code", "token-unavailable"))
    }

    /// Adds the address, if the provider says it elsewhere. It must speak of the same person.
    ///
    /// # Errors
    /// [`Doubt`].
    pub async fn complete(&self, vouched: &mut Vouched, tokens: &TokenSet) -> Result<(), Doubt> {
        let (Some(url), Some(access)) = (&self.found.userinfo_endpoint, &tokens.access_token)
        else {
            return Ok(());
        };
        let proof = Proof::Bearer(access.reveal());
        let asked = async {
            let got = self.outbound.get("userinfo", url, proof, TOKENS_BYTES_MAX).await?;
            unique::object(&got.bytes).ok_or(Missed::Rubbish)
        };
        let said = self.breakers.call(self.tenant, url, asked).await;
        let said = said.map_err(|failed| Doubt::of(&failed, "userinfo", "userinfo-unavailable"))?;
        if said.get("sub").and_then(Value::as_str) != Some(vouched.subject.as_str()) {
            return Err(Doubt::Refused("userinfo-subject"));
        }
        vouched.email = said.get("email").and_then(Value::as_str).map(str::to_owned);
        vouched.email_verified = token::is_true(said.get("email_verified"));
        Ok(())
    }
}
