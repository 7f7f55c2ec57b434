//! Sign-ins that are under way at an identity provider.
//!
//! What the provider gives back with a person, the *state*, is random, good once and for ten minutes, and
//! good only in the browser that began: the row keeps a digest of what that browser holds in a cookie. So
//! nobody is signed in as somebody else by following a link (RFC 9700 §4.7). The row also keeps
//! what must come back inside the signed token, and what only this node can show for the code.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use storage::id::{Id, IdentityProviderId, SessionId, TenantId, UserId};
use storage::keys::{Digest, Key, Prefix};
use storage::txn::Scan;

use super::providers::{self, Provider};
use crate::audit::entry::Named;
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;

const LABEL: &str = "authorization";
const STATE_BYTES: usize = 16 + 8 + 32;

/// What a provider gives back with a person, taken apart but not believed.
#[derive(Clone, PartialEq, Eq)]
pub struct StateToken {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    ends_s: u64,
    code: [u8; 32],
}

impl std::fmt::Debug for StateToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateToken").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl StateToken {
    /// Takes a state's text apart; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; STATE_BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (tenant, rest) = bytes.split_first_chunk()?;
        let (ends_s, code) = rest.split_first_chunk()?;
        Some(Self {
            tenant: TenantId::from_bytes(*tenant),
            ends_s: u64::from_be_bytes(*ends_s),
            code: code.try_into().ok()?,
        })
    }

    fn text(&self) -> String {
        let bytes =
            [&self.tenant.as_bytes()[..], &self.ends_s.to_be_bytes()[..], &self.code[..]].concat();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn key(&self, cx: &impl Reads) -> Key {
        Key::Authorization { ends_s: self.ends_s, digest: cx.digest(LABEL, &self.code) }
    }
}

/// What a browser holds while it is away: random bytes in a cookie.
#[derive(Clone, PartialEq, Eq)]
pub struct BrowserBinding(pub [u8; 32]);

impl BrowserBinding {
    fn digest(&self, cx: &impl Reads) -> Digest {
        cx.digest(LABEL, &[&b"browser"[..], &self.0[..]].concat())
    }
}

/// The stored row.
#[derive(Clone, Serialize, Deserialize)]
struct AuthorizationRow {
    provider: IdentityProviderId,
    provider_version: u64,
    #[serde(with = "serde_bytes")]
    nonce: [u8; 32],
    #[serde(with = "serde_bytes")]
    verifier: [u8; 32],
    #[serde(with = "serde_bytes")]
    browser: Digest,
    return_to: String,
    /// For whom an identity is being linked, and in which session they asked.
    linking: Option<(UserId, SessionId)>,
}

/// What the edge needs to send somebody away and to believe what they come back with.
#[derive(Clone, Serialize, Deserialize)]
pub struct Authorization {
    /// What the provider gives back.
    pub state: String,
    /// What must come back inside the token.
    pub nonce: String,
    /// What is shown for the code (RFC 7636); its digest goes along.
    pub verifier: String,
    /// Where they are led in the end; a path here.
    pub return_to: String,
    /// At which provider.
    pub provider: IdentityProviderId,
    /// As it was then.
    pub provider_version: u64,
    /// For whom an identity is being linked, and in which session they asked.
    pub linking: Option<(UserId, SessionId)>,
}

impl AuthorizationRow {
    fn open(self, state: String) -> Authorization {
        Authorization {
            state,
            nonce: URL_SAFE_NO_PAD.encode(self.nonce),
            verifier: URL_SAFE_NO_PAD.encode(self.verifier),
            return_to: self.return_to,
            provider: self.provider,
            provider_version: self.provider_version,
            linking: self.linking,
        }
    }
}

/// Removes what is over, and the oldest beyond the bound.
fn make_room(cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
    let any = Key::Authorization { ends_s: 0, digest: [0; 32] };
    let limit = limits::AUTHORIZATIONS_MAX;
    let scan = Scan { prefix: Prefix::kind(&any), after: None, reverse: false, limit };
    let keys: Vec<Key> = cx.rows(&scan)?.into_iter().map(|(key, _)| key).collect();
    let now_s = cx.now_ms() / 1_000;
    let is_over = |key: &Key| matches!(key, Key::Authorization { ends_s, .. } if *ends_s <= now_s);
    let is_full = keys.len() >= limit;
    for (at, key) in keys.iter().enumerate() {
        if is_over(key) || (is_full && at == 0) {
            cx.delete(key)?;
        }
    }
    Ok(())
}

fn begin(
    cx: &mut Cx<'_, '_>,
    provider: (IdentityProviderId, u64),
    browser: &BrowserBinding,
    return_to: String,
    linking: Option<(UserId, SessionId)>,
) -> Result<Authorization, TenantError> {
    make_room(cx)?;
    let ends_s = cx.now_ms().saturating_add(limits::AUTHORIZATION_MS) / 1_000;
    let token = StateToken { tenant: cx.tenant(), ends_s, code: cx.random() };
    let row = AuthorizationRow {
        provider: provider.0,
        provider_version: provider.1,
        nonce: cx.random(),
        verifier: cx.random(),
        browser: browser.digest(cx),
        return_to,
        linking,
    };
    let key = token.key(cx);
    cx.put(&key, &row)?;
    Ok(row.open(token.text()))
}

/// Begins a sign-in at a provider.
pub struct BeginAuthorization {
    /// At which.
    pub provider: IdentityProviderId,
    /// As it was read.
    pub provider_version: u64,
    /// What the browser holds.
    pub browser: BrowserBinding,
    /// Where the person is led in the end.
    pub return_to: String,
}

impl Command for BeginAuthorization {
    type Action = permit::SignIn;
    type Reply = Authorization;
    const NAME: &'static str = "sign_in.begin";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("identity-provider", self.provider)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Authorization, TenantError> {
        let provider = (self.provider, self.provider_version);
        begin(cx, provider, &self.browser, self.return_to, None)
    }
}

/// Begins to link an identity at a provider that people are sent to.
pub struct BeginLinking {
    /// At which.
    pub provider: IdentityProviderId,
    /// As it was read.
    pub provider_version: u64,
    /// What the browser holds.
    pub browser: BrowserBinding,
    /// Where the person is led in the end.
    pub return_to: String,
}

impl Command for BeginLinking {
    type Action = permit::WriteOwnSessions;
    type Reply = Authorization;
    const NAME: &'static str = "identity.link_begin";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("identity-provider", self.provider)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Authorization, TenantError> {
        let person = cx.person()?;
        let provider = (self.provider, self.provider_version);
        let linking = Some((person.user, person.session));
        begin(cx, provider, &self.browser, self.return_to, linking)
    }
}

/// What is under way under a state, in the browser that began it. Nothing for any other.
fn find<R: Reads>(
    cx: &R,
    state: &StateToken,
    browser: &BrowserBinding,
) -> Result<Option<AuthorizationRow>, TenantError> {
    if state.tenant != cx.tenant() || state.ends_s <= cx.now_ms() / 1_000 {
        return Ok(None);
    }
    let row: Option<AuthorizationRow> = cx.row(&state.key(cx))?;
    // Digests under the tenant's key: comparing them tells nothing of what they are digests of.
    Ok(row.filter(|row| row.browser == browser.digest(cx)))
}

/// Looks at a linking that waits for its person to be sent away.
pub struct PeekLinking {
    /// The state it was begun with.
    pub state: StateToken,
    /// What the browser holds.
    pub browser: BrowserBinding,
    /// The name of the provider it has to be at.
    pub provider: String,
}

impl Query for PeekLinking {
    type Action = permit::SignIn;
    type Reply = Option<(Provider, Authorization)>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError> {
        let Some(row) = find(cx, &self.state, &self.browser)? else { return Ok(None) };
        let provider = providers::unchanged(cx, row.provider, row.provider_version)?;
        let provider = provider.filter(|provider| provider.provider_name() == self.provider);
        let opened = row.linking.is_some().then(|| row.open(self.state.text()));
        Ok(provider.map(|row| Provider::of(cx, row)).zip(opened))
    }
}

/// Takes what is under way under a state: it is good for this once.
pub struct TakeAuthorization {
    /// What the provider gave back.
    pub state: StateToken,
    /// What the browser holds.
    pub browser: BrowserBinding,
    /// The name of the provider that the person comes back from.
    pub provider: String,
}

impl Command for TakeAuthorization {
    type Action = permit::SignIn;
    /// Nothing if nothing of that state is under way in that browser, or the provider is another now.
    type Reply = Option<Authorization>;
    const NAME: &'static str = "sign_in.return";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("account", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        let Some(row) = find(cx, &self.state, &self.browser)? else { return Ok(None) };
        let provider = providers::unchanged(cx, row.provider, row.provider_version)?;
        if provider.is_none_or(|provider| provider.provider_name() != self.provider) {
            return Ok(None);
        }
        let key = self.state.key(cx);
        cx.delete(&key)?;
        Ok(Some(row.open(self.state.text())))
    }
}
