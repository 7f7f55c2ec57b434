//! The word of others: asks identity providers, and verifies what they say, at the edge and off every tenant's
//! thread.
//!
//! One verifier serves both ways in: people who were sent to a provider and come back with a code, and apps
//! that bring a token they got there. What fails is one of two things: it is not believed, and which check
//! failed is for the audit log alone; or the provider is of no use right now, and somebody may come again.
//! Keeps nothing of anybody but public keys and discovery documents.

use std::sync::Arc;

use actors::env::Env;
use actors::tenant::identities::Vouched;
use actors::tenant::identities::flow::Authorization;
use actors::tenant::identities::providers::{KeysAt, Provider, ProviderKind};
use prometheus::{IntCounterVec, Opts, Registry};
use storage::id::TenantId;

mod breaker;
pub mod cached;
pub mod discovery;
mod exchange;
pub mod keys;
pub mod outbound;
pub mod token;
mod unique;

use breaker::{Breakers, Closed, Failed};
use cached::Cached;
use discovery::Discovery;
use keys::KeySet;
use outbound::{Forbidden, Outbound};
use token::{Expected, Fault};

/// Largest key set, in bytes.
const KEY_SET_BYTES_MAX: usize = 256 * 1024;
/// Largest discovery document, in bytes.
const DISCOVERY_BYTES_MAX: usize = 64 * 1024;
/// The issuer that old tokens of Google name.
const GOOGLE_ISSUER_OLD: &str = "accounts.google.com";

/// Why a provider's word counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It is not believed. The reason is for the audit log.
    Refused(&'static str),
    /// The provider cannot be asked, or answers rubbish.
    Unavailable {
        /// What could not be had, for the audit log.
        reason: &'static str,
        /// When to come again, in seconds.
        retry_after_s: u32,
    },
}

impl From<Fault> for Doubt {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault.name())
    }
}

impl Doubt {
    /// Of a call of which nothing came: refused, or unavailable.
    fn of(failed: &Failed, refused: &'static str, unavailable: &'static str) -> Self {
        match failed {
            Failed::Missed(missed) if missed.is_refusal() => Self::Refused(refused),
            Failed::Missed(_) => {
                let retry_after_s = cached::COOL_DOWN_S / 10;
                Self::Unavailable { reason: unavailable, retry_after_s }
            }
            Failed::Closed(closed) => Self::closed(unavailable)(*closed),
        }
    }

    fn closed(reason: &'static str) -> impl Fn(Closed) -> Self {
        move |closed| Self::Unavailable { reason, retry_after_s: closed.retry_after_s }
    }
}

/// Asks and verifies. Cheap to clone.
#[derive(Clone)]
pub struct Federation(Arc<Inner>);

struct Inner {
    outbound: Outbound,
    breakers: Breakers,
    env: Env,
    /// The URL that people come back to.
    base_url: String,
    keys: Cached<KeySet>,
    discoveries: Cached<Discovery>,
    sign_ins: IntCounterVec,
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// There is no client for HTTPS: the machine's certificates cannot be read, most likely.
    #[error("identity providers cannot be asked")]
    Client(#[from] reqwest::Error),
    /// Two metrics have one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

impl Federation {
    /// A client of its own, without cookies, proxies or redirects.
    ///
    /// # Errors
    /// [`FederationError`].
    pub fn new(
        allow_loopback: bool,
        base_url: &str,
        env: &Env,
        registry: &Registry,
    ) -> Result<Self, FederationError> {
        let fetches = IntCounterVec::new(
            Opts::new(
                "bulkhead_identity_fetches_total",
                "Requests to identity providers, by what was asked for and outcome.",
            ),
            &["what", "outcome"],
        )?;
        let sign_ins = IntCounterVec::new(
            Opts::new(
                "bulkhead_identity_sign_ins_total",
                "Sign-ins by identity providers, by way and outcome.",
            ),
            &["factor", "outcome"],
        )?;
        registry.register(Box::new(fetches.clone()))?;
        registry.register(Box::new(sign_ins.clone()))?;
        let outbound = Outbound::new(allow_loopback, fetches)?;
        Ok(Self(Arc::new(Inner {
            keys: Cached::new("keys", KEY_SET_BYTES_MAX, KeySet::parse, &outbound, env),
            discoveries: Cached::new(
                "discovery",
                DISCOVERY_BYTES_MAX,
                Discovery::parse,
                &outbound,
                env,
            ),
            outbound,
            breakers: Breakers::new(env),
            env: env.clone(),
            base_url: base_url.to_owned(),
            sign_ins,
        })))
    }

    /// Whether a URL is one that this node calls at all.
    ///
    /// # Errors
    /// [`Forbidden`], for whoever entered it.
    pub fn check_url(&self, url: &str) -> Result<(), Forbidden> {
        self.0.outbound.check(url).map(drop)
    }

    /// Counts how a sign-in ended.
    pub fn count(&self, factor: &str, outcome: &str) {
        self.0.sign_ins.with_label_values(&[factor, outcome]).inc();
    }

    /// Where a provider sends people back to.
    pub fn redirect_uri(&self, provider: &Provider) -> String {
        format!("{}{}", self.0.base_url, provider.callback_path)
    }

    /// Whom a token that an app brought vouches for.
    ///
    /// # Errors
    /// [`Doubt`].
    pub async fn verify(
        &self,
        tenant: TenantId,
        provider: &Provider,
        token: &str,
    ) -> Result<Vouched, Doubt> {
        match &provider.keys {
            Some(KeysAt::Given(text)) => {
                let keys = KeySet::parse_list(text.as_bytes()).ok_or(Doubt::Refused("keys"))?;
                Ok(self.judge(provider, token, None, &keys)?)
            }
            Some(KeysAt::Url(url)) => self.verify_by(tenant, provider, token, None, url).await,
            None => Err(Doubt::Refused("kind")),
        }
    }

    fn judge(
        &self,
        provider: &Provider,
        token: &str,
        nonce: Option<&str>,
        keys: &KeySet,
    ) -> Result<Vouched, Fault> {
        let old = (provider.kind == ProviderKind::Google).then_some(GOOGLE_ISSUER_OLD);
        let expected = Expected {
            issuer: &provider.issuer,
            issuer_old: old,
            audience: &provider.audience,
            kind: provider.kind,
            nonce,
        };
        token::verify(token, keys, &expected, self.0.env.now_ms() / 1_000)
    }

    /// Verifies with the keys at a URL. A key that is not known may be new there: they are asked for once more,
    /// now and then.
    async fn verify_by(
        &self,
        tenant: TenantId,
        provider: &Provider,
        token: &str,
        nonce: Option<&str>,
        url: &str,
    ) -> Result<Vouched, Doubt> {
        let unavailable = Doubt::closed("keys-unavailable");
        let keys = self.0.keys.get(tenant, url).await.map_err(&unavailable)?;
        match self.judge(provider, token, nonce, &keys) {
            Err(Fault::UnknownKey) => {
                let newer = self.0.keys.newer(tenant, url, &keys).await.map_err(&unavailable)?;
                Ok(self.judge(provider, token, nonce, &newer)?)
            }
            judged => Ok(judged?),
        }
    }

    async fn discover(
        &self,
        tenant: TenantId,
        provider: &Provider,
    ) -> Result<Arc<Discovery>, Doubt> {
        let url = Discovery::url(&provider.issuer);
        let found = self.0.discoveries.get(tenant, &url).await;
        let found = found.map_err(Doubt::closed("discovery-unavailable"))?;
        // Somebody else's document would send people, and the secret, to somebody else.
        if found.issuer != provider.issuer {
            let retry_after_s = cached::COOL_DOWN_S;
            return Err(Doubt::Unavailable { reason: "discovery-issuer", retry_after_s });
        }
        Ok(found)
    }

    /// Makes sure that people can be sent to a provider, before anything of it is written down.
    ///
    /// # Errors
    /// [`Doubt::Unavailable`].
    pub async fn prepare(
        &self,
        tenant: TenantId,
        provider: &Provider,
    ) -> Result<Arc<Discovery>, Doubt> {
        self.discover(tenant, provider).await
    }

    /// Where somebody is sent: to the provider, with what has to come back.
    ///
    /// # Errors
    /// [`Doubt::Unavailable`] if the provider's own address cannot be one.
    pub fn authorization_url(
        &self,
        found: &Discovery,
        provider: &Provider,
        authorization: &Authorization,
    ) -> Result<String, Doubt> {
        let unusable =
            Doubt::Unavailable { reason: "discovery-endpoint", retry_after_s: cached::COOL_DOWN_S };
        let mut url = self.0.outbound.check(&found.authorization_endpoint).map_err(|_| unusable)?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &provider.client_id)
            .append_pair("redirect_uri", &self.redirect_uri(provider))
            .append_pair("scope", "openid email")
            .append_pair("state", &authorization.state)
            .append_pair("nonce", &authorization.nonce)
            .append_pair("code_challenge", &exchange::challenge(&authorization.verifier))
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    /// Whom a provider vouches for by the code that somebody came back with.
    ///
    /// # Errors
    /// [`Doubt`].
    pub async fn redeem(
        &self,
        tenant: TenantId,
        provider: &Provider,
        authorization: &Authorization,
        code: &str,
    ) -> Result<Vouched, Doubt> {
        let found = self.discover(tenant, provider).await?;
        let redirect_uri = self.redirect_uri(provider);
        let asking = exchange::Asking {
            outbound: &self.0.outbound,
            breakers: &self.0.breakers,
            tenant,
            found: &found,
            provider,
            redirect_uri: &redirect_uri,
        };
        let tokens = asking.tokens(code, &authorization.verifier).await?;
        let nonce = Some(authorization.nonce.as_str());
        let token = tokens.id_token.reveal();
        let mut vouched = self.verify_by(tenant, provider, token, nonce, &found.jwks_uri).await?;
        if vouched.email.is_none() {
            asking.complete(&mut vouched, &tokens).await?;
        }
        Ok(vouched)
    }

    /// Checks who answered, where the answer says so (RFC 9207): a provider that makes people come back with
    /// another one's code is found out by it.
    ///
    /// # Errors
    /// [`Doubt`].
    pub async fn check_answerer(
        &self,
        tenant: TenantId,
        provider: &Provider,
        named: Option<&str>,
    ) -> Result<(), Doubt> {
        match named {
            Some(issuer) if issuer == provider.issuer => Ok(()),
            Some(_) => Err(Doubt::Refused("response-issuer")),
            None => {
                let found = self.discover(tenant, provider).await?;
                let is_fine = !found.names_itself_in_answers;
                is_fine.then_some(()).ok_or(Doubt::Refused("response-issuer"))
            }
        }
    }
}
