//! Sign-ins that are under way at an identity provider.
//!
//! What the provider gives back with a person, the *state*, is random, good once and for ten minutes, and
//! good only in the browser that began: it is signed with what that browser holds in a cookie. So
//! nobody is signed in as somebody else by following a link (RFC 9700 §4.7). What must come back inside the
//! token, and what only this node can show for the code, follow from the state under the tenant's key.
//!
//! Nothing is written down before somebody comes back: however many begin, nobody's sign-in is in the way of
//! another's. Then a row says that the state was used, for as long as it would be good.

use aws_lc_rs::constant_time::verify_slices_are_equal;
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
/// Of the states that were used, how many are forgotten at a time once they are over.
const FORGOTTEN_AT_ONCE: usize = 16;

/// What a provider gives back with a person, taken apart but not believed.
#[derive(Clone, PartialEq, Eq)]
pub struct StateToken {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    ends_s: u64,
    code: [u8; 32],
    provider: IdentityProviderId,
    provider_version: u64,
    linking: Option<(UserId, SessionId)>,
    return_to: String,
    signature: Digest,
}

impl std::fmt::Debug for StateToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateToken").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Takes so many bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

impl StateToken {
    /// Takes a state's text apart; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut rest = &bytes[..];
        Some(Self {
            tenant: TenantId::from_bytes(take(&mut rest)?),
            ends_s: u64::from_be_bytes(take(&mut rest)?),
            code: take(&mut rest)?,
            provider: IdentityProviderId::from_bytes(take(&mut rest)?),
            provider_version: u64::from_be_bytes(take(&mut rest)?),
            signature: take(&mut rest)?,
            linking: match take(&mut rest)? {
                [0] => None,
                [1] => Some((
                    UserId::from_bytes(take(&mut rest)?),
                    SessionId::from_bytes(take(&mut rest)?),
                )),
                _ => return None,
            },
            return_to: String::from_utf8(rest.to_vec()).ok()?,
        })
    }

    fn bytes(&self, signature: &Digest) -> Vec<u8> {
        let mut bytes = [
            &self.tenant.as_bytes()[..],
            &self.ends_s.to_be_bytes(),
            &self.code,
            self.provider.as_bytes(),
            &self.provider_version.to_be_bytes(),
            signature,
        ]
        .concat();
        match &self.linking {
            None => bytes.push(0),
            Some((user, session)) => {
                bytes.push(1);
                bytes.extend_from_slice(user.as_bytes());
                bytes.extend_from_slice(session.as_bytes());
            }
        }
        bytes.extend_from_slice(self.return_to.as_bytes());
        bytes
    }

    /// Its signature in that browser: over all of it but the signature itself.
    fn sign(&self, cx: &impl Reads, browser: &BrowserBinding) -> Digest {
        let bytes = [&b"state"[..], &browser.0, &self.bytes(&[0; 32])].concat();
        cx.digest(LABEL, &bytes)
    }

    /// What follows from it for that purpose; nobody without the tenant's key can tell.
    fn derive(&self, cx: &impl Reads, purpose: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(cx.digest(LABEL, &[purpose, &self.code].concat()))
    }

    /// The row that says that it was used.
    fn key(&self, cx: &impl Reads) -> Key {
        let digest = cx.digest(LABEL, &[&b"used"[..], &self.code].concat());
        Key::Authorization { ends_s: self.ends_s, digest }
    }

    /// Whether it is one of this tenant, begun in that browser, in time and not used.
    fn is_good(&self, cx: &impl Reads, browser: &BrowserBinding) -> Result<bool, TenantError> {
        let signature = self.sign(cx, browser);
        let is_signed = verify_slices_are_equal(&signature, &self.signature).is_ok();
        let is_in_time = self.ends_s > cx.now_ms() / 1_000;
        Ok(self.tenant == cx.tenant()
            && is_signed
            && is_in_time
            && cx.bytes(&self.key(cx))?.is_none())
    }

    fn open(self, cx: &impl Reads) -> Authorization {
        Authorization {
            state: URL_SAFE_NO_PAD.encode(self.bytes(&self.signature)),
            nonce: self.derive(cx, b"nonce"),
            verifier: self.derive(cx, b"verifier"),
            return_to: self.return_to,
            provider: self.provider,
            provider_version: self.provider_version,
            linking: self.linking,
        }
    }
}

/// What a browser holds while it is away: random bytes in a cookie.
#[derive(Clone, PartialEq, Eq)]
pub struct BrowserBinding(pub [u8; 32]);

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
    /// Random bytes, used for nothing else.
    pub code: [u8; 32],
}

impl BeginAuthorization {
    fn begin(self, cx: &ReadCx<'_>, linking: Option<(UserId, SessionId)>) -> Authorization {
        let mut state = StateToken {
            tenant: cx.tenant(),
            ends_s: cx.now_ms().saturating_add(limits::AUTHORIZATION_MS) / 1_000,
            code: self.code,
            provider: self.provider,
            provider_version: self.provider_version,
            linking,
            return_to: self.return_to,
            signature: [0; 32],
        };
        state.signature = state.sign(cx, &self.browser);
        state.open(cx)
    }
}

impl Query for BeginAuthorization {
    type Action = permit::SignIn;
    type Reply = Authorization;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Authorization, TenantError> {
        Ok(self.begin(cx, None))
    }
}

/// Begins to link an identity at a provider that people are sent to.
pub struct BeginLinking(pub BeginAuthorization);

impl Query for BeginLinking {
    type Action = permit::WriteOwnSessions;
    type Reply = Authorization;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Authorization, TenantError> {
        let person = cx.person()?;
        let linking = Some((person.user, person.session));
        Ok(self.0.begin(cx, linking))
    }
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
        let state = self.state;
        if state.linking.is_none() || !state.is_good(cx, &self.browser)? {
            return Ok(None);
        }
        let provider = providers::unchanged(cx, state.provider, state.provider_version)?;
        let provider = provider.filter(|provider| provider.provider_name() == self.provider);
        Ok(provider.map(|row| (Provider::of(cx, row), state.open(cx))))
    }
}

/// Forgets some of the states that were used and are over.
fn forget_what_is_over(cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
    let any = Key::Authorization { ends_s: 0, digest: [0; 32] };
    let (prefix, limit) = (Prefix::kind(&any), FORGOTTEN_AT_ONCE);
    let rows = cx.rows(&Scan { prefix, after: None, reverse: false, limit })?;
    let now_s = cx.now_ms() / 1_000;
    for (key, _) in rows {
        if matches!(key, Key::Authorization { ends_s, .. } if ends_s <= now_s) {
            cx.delete(&key)?;
        }
    }
    Ok(())
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
        let state = self.state;
        if !state.is_good(cx, &self.browser)? {
            return Ok(None);
        }
        let provider = providers::unchanged(cx, state.provider, state.provider_version)?;
        if provider.is_none_or(|provider| provider.provider_name() != self.provider) {
            return Ok(None);
        }
        forget_what_is_over(cx)?;
        let key = state.key(cx);
        cx.put(&key, &())?;
        Ok(Some(state.open(cx)))
    }
}
