//! Signing in with a second factor: a right password begins a challenge, a right code or passkey ends it in a
//! session.
//!
//! What the client holds in between is a message to ourselves, as a refresh token is: made with the
//! tenant's own key over who, which challenge, and the password's hash it followed. So another
//! tenant's, a changed one's and one from before a change of password are refused without a look-up. It
//! opens nothing else. Whether the challenge still waits, the person's row says.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use storage::id::{Id, TenantId, UserId};
use storage::keys::Key;
use storage::seal::TenantKeys;

use super::{Credential, OpenSession, Opened, begin, begin_by, proven};
use crate::audit::entry::{Draft, Named};
use crate::permit;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::factors::passkeys::{CHALLENGE_BYTES, RelyingParty, ask_for_one};
use crate::tenant::factors::{Method, Shown, accept, factors_of};
use crate::tenant::people::{Proof, UserRow};

const PREFIX: &str = "bkm_";
const LABEL: &str = "mfa";
const NAMED_BYTES: usize = 16 + 16 + 16;
const TOKEN_BYTES: usize = NAMED_BYTES + 32;

/// What a client shows together with the code, taken apart but not believed.
#[derive(Clone, PartialEq, Eq)]
pub struct ChallengeToken {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    user: UserId,
    challenge: [u8; 16],
    mac: [u8; 32],
}

impl std::fmt::Debug for ChallengeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChallengeToken").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl ChallengeToken {
    /// Whose budget an attempt is charged to: the person the token says it is of.
    pub fn account(&self) -> String {
        format!("{} {}", self.tenant, self.user)
    }

    /// Takes a token's text apart; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix(PREFIX)?;
        let bytes: [u8; TOKEN_BYTES] = URL_SAFE_NO_PAD.decode(body).ok()?.try_into().ok()?;
        let (tenant, rest) = bytes.split_first_chunk()?;
        let (user, rest) = rest.split_first_chunk()?;
        let (challenge, mac) = rest.split_first_chunk()?;
        Some(Self {
            tenant: TenantId::from_bytes(*tenant),
            user: UserId::from_bytes(*user),
            challenge: *challenge,
            mac: mac.try_into().ok()?,
        })
    }

    fn issue(cx: &Cx<'_, '_>, user: UserId, challenge: [u8; 16], phc: &str) -> String {
        let named = named(cx.tenant(), user, challenge);
        let mac = cx.keys().mac(LABEL, &[&named[..], phc.as_bytes()].concat());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&named[..], &mac[..]].concat()))
    }

    fn is_authentic<R: Reads>(&self, cx: &R, keys: &TenantKeys, phc: &str) -> bool {
        let named = named(self.tenant, self.user, self.challenge);
        let bytes = [&named[..], phc.as_bytes()].concat();
        self.tenant == cx.tenant() && keys.verify_mac(LABEL, &bytes, &self.mac)
    }
}

fn named(tenant: TenantId, user: UserId, challenge: [u8; 16]) -> [u8; NAMED_BYTES] {
    let mut bytes = [0; NAMED_BYTES];
    bytes[..16].copy_from_slice(tenant.as_bytes());
    bytes[16..32].copy_from_slice(user.as_bytes());
    bytes[32..].copy_from_slice(&challenge);
    bytes
}

/// What a right password comes to.
#[derive(Serialize, Deserialize)]
pub enum SignedIn {
    /// A session: the person has no second factor.
    Opened(Box<Opened>),
    /// A wait for the second factor.
    Challenged {
        /// What the client shows together with the code.
        mfa_token: String,
        /// What it may be completed with.
        methods: Vec<Method>,
    },
}

/// Signs in somebody whose password was right, as far as that goes.
pub struct BeginSession {
    /// Who, and the hash their password was right for.
    pub credential: Credential,
}

impl Command for BeginSession {
    type Action = permit::SignIn;
    type Reply = SignedIn;
    const NAME: &'static str = "sign_in.challenge";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", self.credential.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<SignedIn, TenantError> {
        let user = proven(cx, &self.credential)?;
        if !factors_of(cx, user.id)?.is_enrolled() {
            let opened = begin(cx, &user, vec![Proof::Password], "password")?;
            return Ok(SignedIn::Opened(Box::new(opened)));
        }
        ask_for_second(cx, &user, Proof::Password)
    }
}

/// Has a sign-in wait for the second factor of somebody who has one.
fn ask_for_second(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    first: Proof,
) -> Result<SignedIn, TenantError> {
    let mut row = factors_of(cx, user.id)?;
    let challenge = cx.random();
    row.challenge(challenge, cx.now_ms(), first);
    cx.put(&Key::SecondFactors { user: user.id }, &row)?;
    cx.audit_as(user.named(), Draft::success(BeginSession::NAME, user.named()));
    let mfa_token = ChallengeToken::issue(cx, user.id, challenge, bound_to(user));
    Ok(SignedIn::Challenged { mfa_token, methods: row.methods() })
}

/// What a waiting sign-in ends with when it changes: the password's hash, if there is a password.
fn bound_to(user: &UserRow) -> &str {
    user.password.as_deref().unwrap_or_default()
}

/// Signs in somebody an identity provider vouches for, as far as that goes: its word is the first factor.
pub(crate) fn sign_in_vouched(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    factor: &'static str,
    provider: &str,
) -> Result<SignedIn, TenantError> {
    if factors_of(cx, user.id)?.is_enrolled() {
        return ask_for_second(cx, user, Proof::Federated);
    }
    let opened = begin_by(cx, user, vec![Proof::Federated], factor, Some(provider))?;
    Ok(SignedIn::Opened(Box::new(opened)))
}

/// How a challenge ended. A refusal is an answer and not an error, because that it came is kept.
#[derive(Serialize, Deserialize)]
pub enum ChallengeOutcome {
    /// In a session.
    Opened(Box<Opened>),
    /// In nothing: the code or passkey is wrong or used, or the challenge waits no more.
    Refused,
}

/// Whose challenge a token is of.
fn challenged<R: Reads>(
    cx: &R,
    keys: &TenantKeys,
    token: &ChallengeToken,
) -> Result<UserRow, TenantError> {
    let user: Option<UserRow> = cx.row(&Key::User { id: token.user })?;
    let user = user.filter(|user| !user.deactivated).ok_or(TenantError::BadCredentials)?;
    if token.is_authentic(cx, keys, bound_to(&user)) {
        Ok(user)
    } else {
        Err(TenantError::BadCredentials)
    }
}

/// Makes sure that a token is one that the tenant made, before anything is charged to its person.
#[derive(Debug)]
pub struct CheckChallenge {
    /// The token.
    pub token: ChallengeToken,
}

impl Query for CheckChallenge {
    type Action = permit::SignIn;
    type Reply = ();

    fn run(self, cx: &mut ReadCx<'_>) -> Result<(), TenantError> {
        challenged(cx, cx.keys(), &self.token).map(drop)
    }
}

/// Begins to complete a sign-in with a passkey: answers what the browser has to be asked.
pub struct AskPasskey {
    /// The token.
    pub token: ChallengeToken,
    /// Whom passkeys are made for here.
    pub party: RelyingParty,
}

impl Command for AskPasskey {
    type Action = permit::SignIn;
    type Reply = serde_json::Value;
    const NAME: &'static str = "sign_in.passkey_options";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", self.token.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<serde_json::Value, TenantError> {
        let user = challenged(cx, cx.keys(), &self.token)?;
        let mut row = factors_of(cx, user.id)?;
        let challenge = cx.random::<CHALLENGE_BYTES>();
        if !row.ask_passkey(&self.token.challenge, &challenge, cx.now_ms()) {
            return Err(TenantError::BadCredentials);
        }
        cx.put(&Key::SecondFactors { user: user.id }, &row)?;
        Ok(ask_for_one(cx, &self.party, &challenge, row.passkeys()))
    }
}

/// Completes a sign-in with a second factor.
pub struct CompleteSession {
    /// The token.
    pub token: ChallengeToken,
    /// What completes it.
    pub shown: Shown,
}

impl Command for CompleteSession {
    type Action = permit::SignIn;
    type Reply = ChallengeOutcome;
    const NAME: &'static str = "sign_in";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", self.token.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<ChallengeOutcome, TenantError> {
        let Self { token, shown } = self;
        let user = challenged(cx, cx.keys(), &token)?;
        let mut row = factors_of(cx, user.id)?;
        let failed = || Draft::failed(OpenSession::NAME, user.named());
        if !row.is_waiting(&token.challenge, cx.now_ms()) {
            cx.audit(failed().with("reason", "challenge-over"));
            return Ok(ChallengeOutcome::Refused);
        }
        let first = row.first_proof(&token.challenge);
        let asked = row.take_asked(&token.challenge);
        let accepted = accept(cx, &user, &mut row, shown, asked.as_deref().map(Vec::as_slice));
        let is_void = match accepted {
            Ok(_) => {
                row.settle(&token.challenge);
                false
            }
            Err(_) => row.miss(&token.challenge),
        };
        cx.put(&Key::SecondFactors { user: user.id }, &row)?;
        let method = match accepted {
            Ok(method) => method,
            Err(wrong) => {
                cx.audit(wrong.noted(failed()).with("challenge_void", is_void));
                return Ok(ChallengeOutcome::Refused);
            }
        };
        let amr = vec![first, method.proof()];
        Ok(ChallengeOutcome::Opened(Box::new(begin(cx, &user, amr, method.name())?)))
    }
}
