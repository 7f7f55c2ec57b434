//! A browser's cookie: who, in which session.
//!
//! It is a message to ourselves under the tenant's own key, as a refresh token is, but not for one use: a browser
//! sends the same one many times at once. A new password and a new second factor replace it, so that one that was
//! copied before is worth nothing after. It is
//! worth what the session is worth, and ends with it. As what its person asks, the tenant says with every
//! message, so a change of role needs no new cookie.
//!
//! Refuses: to say why one is not good.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use storage::id::{Id, SessionId, TenantId, UserId};
use storage::keys::Key;
use storage::seal::TenantKeys;

use super::touch;
use crate::audit::entry::Named;
use crate::permit::{self, Carrier, UserPrincipal};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::people::{SessionRow, UserRow};

const LABEL: &str = "session-cookie";
const NAMED_BYTES: usize = 16 + 16 + 16 + 4;
const BYTES: usize = NAMED_BYTES + 32;
/// How often the use of a session by its cookie is noted, milliseconds.
const NOTED_EACH_MS: u64 = 5 * 60 * 1000;

/// A cookie's value, taken apart but not believed: only the tenant can check its code.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionCookie {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    user: UserId,
    session: SessionId,
    epoch: u32,
    mac: [u8; 32],
}

impl std::fmt::Debug for SessionCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionCookie").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl SessionCookie {
    /// Takes a value apart; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (tenant, rest) = bytes.split_first_chunk()?;
        let (user, rest) = rest.split_first_chunk()?;
        let (session, rest) = rest.split_first_chunk()?;
        let (epoch, mac) = rest.split_first_chunk()?;
        Some(Self {
            tenant: TenantId::from_bytes(*tenant),
            user: UserId::from_bytes(*user),
            session: SessionId::from_bytes(*session),
            epoch: u32::from_be_bytes(*epoch),
            mac: mac.try_into().ok()?,
        })
    }

    fn is_authentic<R: Reads>(&self, cx: &R, keys: &TenantKeys) -> bool {
        let named = named(self.tenant, self.user, self.session, self.epoch);
        let is_right = keys.verify_mac(LABEL, &named, &self.mac);
        is_right && self.tenant == cx.tenant()
    }

    pub(super) fn issue(cx: &Cx<'_, '_>, session: &SessionRow) -> String {
        let named = named(cx.tenant(), session.user, session.id, session.cookie);
        let mac = cx.keys().mac(LABEL, &named);
        URL_SAFE_NO_PAD.encode([&named[..], &mac[..]].concat())
    }
}

fn named(tenant: TenantId, user: UserId, session: SessionId, epoch: u32) -> [u8; NAMED_BYTES] {
    let mut bytes = [0; NAMED_BYTES];
    bytes[..16].copy_from_slice(tenant.as_bytes());
    bytes[16..32].copy_from_slice(user.as_bytes());
    bytes[32..48].copy_from_slice(session.as_bytes());
    bytes[48..].copy_from_slice(&epoch.to_be_bytes());
    bytes
}

/// Whose a cookie is, as long as its session lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenCookie {
    /// Who asks, as what they are now.
    pub person: UserPrincipal,
    /// When the session ends unless it is used, Unix milliseconds.
    pub expires_ms: u64,
    /// Whether it is time to note that the session is in use.
    pub is_to_note: bool,
}

/// Says whose a cookie is; nothing, whatever is wrong with it.
#[derive(Debug)]
pub struct ProveCookie {
    /// What was presented.
    pub cookie: SessionCookie,
}

impl Query for ProveCookie {
    type Action = permit::SignIn;
    type Reply = Option<ProvenCookie>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError> {
        let cookie = self.cookie;
        let is_authentic = cookie.is_authentic(cx, cx.keys());
        let session: Option<SessionRow> =
            cx.row(&Key::Session { user: cookie.user, id: cookie.session })?;
        let user: Option<UserRow> = cx.row(&Key::User { id: cookie.user })?;
        let (Some(session), Some(user)) = (session, user.filter(|user| !user.deactivated)) else {
            return Ok(None);
        };
        let is_newest = session.cookie == cookie.epoch;
        if !is_authentic || !is_newest || session.expires_ms <= cx.now_ms() {
            return Ok(None);
        }
        let carrier = Carrier::Cookie(cookie.epoch);
        let (role, authz) = (user.role, user.authz);
        Ok(Some(ProvenCookie {
            person: UserPrincipal { user: user.id, session: session.id, role, authz, carrier },
            expires_ms: session.expires_ms,
            is_to_note: cx.now_ms().saturating_sub(session.seen_ms) >= NOTED_EACH_MS,
        }))
    }
}

/// Notes that a session is in use, and from where: it lasts on from then.
#[derive(Debug)]
pub struct NoteSessionUse {
    /// The cookie it is used by.
    pub cookie: SessionCookie,
}

impl Command for NoteSessionUse {
    type Action = permit::SignIn;
    type Reply = ();
    const NAME: &'static str = "session.use";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("session", self.cookie.session)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        if !self.cookie.is_authentic(cx, cx.keys()) {
            return Ok(());
        }
        let key = Key::Session { user: self.cookie.user, id: self.cookie.session };
        let Some(mut session) = cx.row::<SessionRow>(&key)? else { return Ok(()) };
        // It may have ended, or been noted, since it was proven.
        let now_ms = cx.now_ms();
        if session.cookie != self.cookie.epoch
            || session.expires_ms <= now_ms
            || now_ms < session.seen_ms.saturating_add(NOTED_EACH_MS)
        {
            return Ok(());
        }
        touch(cx, &mut session);
        cx.put(&key, &session)
    }
}
