//! Sessions: signing in and out, and the refresh tokens in between.
//!
//! A session is a row of its user; a token whose session has no row is dead, so ending a session
//! outlives a restart. A refresh token is a message to ourselves under the tenant's own key: it
//! names its session and a generation. Each use moves the session to the next generation; an older
//! one that comes back was copied, so the whole family ends (RFC 9700 §4.14.2).
//!
//! Passwords are hashed and compared by whoever asks, off the actor's thread. What is checked here
//! is that the hash they compared with is still the current one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use storage::id::{Id, SessionId, TenantId, UserId};
use storage::keys::Key;

use self::cookie::SessionCookie;
use crate::audit::entry::{Draft, Named};
use crate::limits;
use crate::permit::{self, Role};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::factors::{factors_of, has_proven_one, is_required};
use crate::tenant::members::{find_by_email, sessions_of};
use crate::tenant::people::{Proof, SessionRow, UserRow};
use crate::tenant::profile::TenantView;

pub mod challenge;
pub mod cookie;
pub mod others;
pub mod own;
pub mod passkey;

const REFRESH_PREFIX: &str = "bkr_";
const REFRESH_LABEL: &str = "refresh";
const NAMED_BYTES: usize = 16 + 16 + 16 + 4;
const REFRESH_BYTES: usize = NAMED_BYTES + 32;

/// A refresh token, taken apart but not believed: only the tenant can check its code.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    user: UserId,
    session: SessionId,
    generation: u32,
    mac: [u8; 32],
}

impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefreshToken").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl RefreshToken {
    /// Whose budget an exchange is charged to: the session the token says it is of.
    pub fn account(&self) -> String {
        format!("{} {}", self.tenant, self.session)
    }

    /// Takes a token's text apart; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix(REFRESH_PREFIX)?;
        let bytes: [u8; REFRESH_BYTES] = URL_SAFE_NO_PAD.decode(body).ok()?.try_into().ok()?;
        let (tenant, rest) = bytes.split_first_chunk()?;
        let (user, rest) = rest.split_first_chunk()?;
        let (session, rest) = rest.split_first_chunk()?;
        let (generation, mac) = rest.split_first_chunk()?;
        Some(Self {
            tenant: TenantId::from_bytes(*tenant),
            user: UserId::from_bytes(*user),
            session: SessionId::from_bytes(*session),
            generation: u32::from_be_bytes(*generation),
            mac: mac.try_into().ok()?,
        })
    }

    fn issue(cx: &Cx<'_, '_>, session: &SessionRow) -> String {
        let named = named(cx.tenant(), session.user, session.id, session.generation);
        let mac = cx.keys().mac(REFRESH_LABEL, &named);
        format!("{REFRESH_PREFIX}{}", URL_SAFE_NO_PAD.encode([&named[..], &mac[..]].concat()))
    }

    fn is_authentic(&self, cx: &Cx<'_, '_>) -> bool {
        let named = named(self.tenant, self.user, self.session, self.generation);
        self.tenant == cx.tenant() && cx.keys().verify_mac(REFRESH_LABEL, &named, &self.mac)
    }
}

fn named(tenant: TenantId, user: UserId, session: SessionId, generation: u32) -> [u8; NAMED_BYTES] {
    let mut bytes = [0; NAMED_BYTES];
    bytes[..16].copy_from_slice(tenant.as_bytes());
    bytes[16..32].copy_from_slice(user.as_bytes());
    bytes[32..48].copy_from_slice(session.as_bytes());
    bytes[48..].copy_from_slice(&generation.to_be_bytes());
    bytes
}

/// What a new access token is made from, and the refresh token that goes with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The tenant.
    pub tenant: TenantView,
    /// Who.
    pub user: UserId,
    /// Their address.
    pub email: String,
    /// As what.
    pub role: Role,
    /// The authorisation version the access token carries.
    pub authz: u32,
    /// In which session.
    pub session: SessionId,
    /// The only refresh token of the session that is good from now on.
    pub refresh_token: String,
    /// What a browser's cookie of the session holds.
    pub cookie: String,
    /// Whether a second factor has to be enrolled before the session is good for anything else.
    pub enrolment_required: bool,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("user", &self.user)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

pub(crate) fn opened(
    cx: &Cx<'_, '_>,
    user: &UserRow,
    session: &SessionRow,
) -> Result<Opened, TenantError> {
    Ok(Opened {
        tenant: TenantView::of(cx)?,
        user: user.id,
        email: user.email.clone(),
        role: user.role,
        authz: user.authz,
        session: session.id,
        refresh_token: RefreshToken::issue(cx, session),
        cookie: SessionCookie::issue(cx, session),
        enrolment_required: is_required(cx) && !has_proven_one(cx, session)?,
    })
}

/// Notes on the session that it was just used, and from where.
pub(crate) fn touch(cx: &Cx<'_, '_>, session: &mut SessionRow) {
    session.seen_ms = cx.now_ms();
    session.expires_ms = cx.now_ms().saturating_add(limits::SESSION_MS);
    session.ip = cx.origin().ip.map(|ip| ip.to_string());
    session.user_agent = cx.origin().user_agent.as_deref().map(str::to_owned);
}

/// What a password is compared with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Whose.
    pub user: UserId,
    /// Argon2id in PHC string form.
    pub password_phc: String,
}

/// Reads what the password of an e-mail address is compared with; nothing if nobody has the address
/// or they have no password or are deactivated.
#[derive(Debug)]
pub struct ReadCredential {
    /// The address, as it was typed.
    pub email: String,
}

impl Query for ReadCredential {
    type Action = permit::SignIn;
    type Reply = Option<Credential>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError> {
        let row = find_by_email(cx, &self.email)?.filter(|row| !row.deactivated);
        Ok(row.and_then(|row| Some(Credential { user: row.id, password_phc: row.password? })))
    }
}

/// Opens a session for somebody whose password was right and who has no second factor: one who has is
/// refused here, and signs in by [`challenge`].
pub struct OpenSession {
    /// Who, and the hash their password was right for.
    pub credential: Credential,
}

impl Command for OpenSession {
    type Action = permit::SignIn;
    type Reply = Opened;
    const NAME: &'static str = "sign_in";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", self.credential.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Opened, TenantError> {
        let user = proven(cx, &self.credential)?;
        if factors_of(cx, user.id)?.is_enrolled() {
            return Err(TenantError::BadCredentials);
        }
        begin(cx, &user, vec![Proof::Password], "password")
    }
}

/// Somebody whose password was right, if it still is: it may have changed since it was compared.
fn proven(cx: &Cx<'_, '_>, credential: &Credential) -> Result<UserRow, TenantError> {
    let user: Option<UserRow> = cx.row(&Key::User { id: credential.user })?;
    user.filter(|user| !user.deactivated)
        .filter(|user| user.password.as_ref() == Some(&credential.password_phc))
        .ok_or(TenantError::BadCredentials)
}

/// Begins a session of somebody who proved who they are; `factor` is the last thing they did it with.
fn begin(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    amr: Vec<Proof>,
    factor: &'static str,
) -> Result<Opened, TenantError> {
    begin_by(cx, user, amr, factor, None)
}

/// The same, by the word of an identity provider if one is named.
fn begin_by(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    amr: Vec<Proof>,
    factor: &'static str,
    provider: Option<&str>,
) -> Result<Opened, TenantError> {
    // Every way in ends here, so nobody who is shut out finds another one.
    if user.deactivated {
        return Err(TenantError::BadCredentials);
    }
    make_room(cx, user.id)?;
    let mut session = SessionRow {
        id: cx.new_id(),
        user: user.id,
        generation: 0,
        created_ms: cx.now_ms(),
        seen_ms: 0,
        expires_ms: 0,
        ip: None,
        user_agent: None,
        cookie: 0,
        amr,
    };
    touch(cx, &mut session);
    cx.put(&Key::Session { user: user.id, id: session.id }, &session)?;
    let mut draft = Draft::success(OpenSession::NAME, Named::new("session", session.id));
    if let Some(provider) = provider {
        draft = draft.with("provider", provider.to_owned());
    }
    cx.audit_as(user.named(), draft.with("factor", factor));
    opened(cx, user, &session)
}

/// Ends what expired, and the oldest sessions beyond the bound.
fn make_room(cx: &mut Cx<'_, '_>, user: UserId) -> Result<(), TenantError> {
    let now = cx.now_ms();
    let (living, dead): (Vec<_>, Vec<_>) =
        sessions_of(cx, user)?.into_iter().partition(|session| session.expires_ms > now);
    let too_many = (living.len() + 1).saturating_sub(limits::SESSIONS_MAX);
    for session in dead.iter().chain(living.iter().take(too_many)) {
        cx.delete(&Key::Session { user, id: session.id })?;
    }
    Ok(())
}

/// Why nobody was signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInFailure {
    /// No tenant of that name; noted by the platform.
    UnknownTenant,
    /// Nobody has the address.
    UnknownEmail,
    /// No identity provider of that name that takes tokens of apps.
    UnknownProvider,
    /// The password is wrong.
    WrongPassword(UserId),
}

/// An account that nobody has, as the audit log names it: what people mistype may be a password.
pub(crate) fn unknown_account(cx: &Cx<'_, '_>, typed: &str) -> Named {
    let digest = cx.digest("sign_in", typed.as_bytes());
    Named::new("account", hex::encode(&digest[..16]))
}

/// Notes that somebody tried to sign in and failed.
pub struct RecordSignInFailure {
    /// Why.
    pub failure: SignInFailure,
    /// The tenant's name and the address, as typed. Kept as a keyed digest only, and only when nobody
    /// is known by it: what people mistype into such a field may be a password.
    pub account: String,
}

impl Command for RecordSignInFailure {
    type Action = permit::SignIn;
    type Reply = ();
    const NAME: &'static str = "sign_in";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("account", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let (target, reason) = match self.failure {
            SignInFailure::UnknownTenant => (unknown_account(cx, &self.account), "unknown-tenant"),
            SignInFailure::UnknownEmail => (unknown_account(cx, &self.account), "unknown-email"),
            SignInFailure::UnknownProvider => {
                (unknown_account(cx, &self.account), "unknown-provider")
            }
            SignInFailure::WrongPassword(id) => {
                let row: Option<UserRow> = cx.row(&Key::User { id })?;
                let target = row.map_or_else(|| Named::new("user", id), |row| row.named());
                (target, "wrong-password")
            }
        };
        cx.audit(Draft::failed(Self::NAME, target).with("reason", reason));
        Ok(())
    }
}

/// How a refresh ended. Re-use is an answer and not an error, because ending the family is a change
/// that must be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefreshOutcome {
    /// The next pair.
    Rotated(Box<Opened>),
    /// An older token came back; the whole family has ended.
    Reused,
}

/// Exchanges a refresh token for the next pair.
#[derive(Debug)]
pub struct RefreshSession {
    /// The token.
    pub token: RefreshToken,
}

impl Command for RefreshSession {
    type Action = permit::SignIn;
    type Reply = RefreshOutcome;
    const NAME: &'static str = "session.refresh";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("session", self.token.session)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<RefreshOutcome, TenantError> {
        let token = self.token;
        if !token.is_authentic(cx) {
            return Err(TenantError::BadCredentials);
        }
        let key = Key::Session { user: token.user, id: token.session };
        let session: Option<SessionRow> = cx.row(&key)?;
        let user: Option<UserRow> = cx.row(&Key::User { id: token.user })?;
        let (Some(mut session), Some(user)) = (session, user.filter(|user| !user.deactivated))
        else {
            return Err(TenantError::BadCredentials);
        };
        if token.generation < session.generation {
            cx.delete(&key)?;
            let draft = Draft::failed("refresh.reuse", Named::new("session", session.id))
                .with("generation", u64::from(token.generation))
                .with("generation_current", u64::from(session.generation));
            cx.audit_as(user.named(), draft);
            return Ok(RefreshOutcome::Reused);
        }
        if token.generation > session.generation || session.expires_ms <= cx.now_ms() {
            return Err(TenantError::BadCredentials);
        }
        session.generation += 1;
        touch(cx, &mut session);
        cx.put(&key, &session)?;
        Ok(RefreshOutcome::Rotated(Box::new(opened(cx, &user, &session)?)))
    }
}

#[cfg(test)]
mod tests;
