//! What signed-in people do to their own sessions and password. Nothing here can name anybody else's:
//! every key is made from the person who asks.

use serde::Serialize;
use serde_bytes::ByteBuf;
use storage::id::{SessionId, UserId};
use storage::keys::Key;

use crate::audit::entry::{Draft, Named};
use crate::call::Page;
use crate::env::rfc3339;
use crate::permit::{self, Role};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::members::{end_sessions, sessions_of};
use crate::tenant::people::{Proof, SessionRow, UserRow};
use crate::tenant::profile::TenantView;
use crate::tenant::recovery::notify_of_change;
use crate::tenant::sessions::{Opened, opened, touch};
use crate::tenant::tickets;

/// Reads what one's own password is compared with.
#[derive(Debug)]
pub struct ReadOwnCredential;

impl Query for ReadOwnCredential {
    type Action = permit::WriteOwnSessions;
    type Reply = (String, Option<String>);
    const BEFORE_ENROLMENT: bool = true;

    /// The address and the password's PHC string.
    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError> {
        let row: UserRow = cx.need(&Key::User { id: cx.person()?.user })?;
        Ok((row.email, row.password))
    }
}

/// Signs out: ends the session that asks.
#[derive(Debug)]
pub struct EndSession;

impl Command for EndSession {
    type Action = permit::WriteOwnSessions;
    type Reply = ();
    const NAME: &'static str = "sign_out";
    const AFTER_TRIAL: bool = true;
    const BEFORE_ENROLMENT: bool = true;

    fn target(&self) -> Named {
        Named::new("session", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let person = cx.person()?;
        cx.audit(Draft::success(Self::NAME, Named::new("session", person.session)));
        cx.delete(&Key::Session { user: person.user, id: person.session })
    }
}

/// Ends one of one's own sessions.
#[derive(Debug)]
pub struct RevokeSession {
    /// Which.
    pub session: SessionId,
}

impl Command for RevokeSession {
    type Action = permit::WriteOwnSessions;
    type Reply = ();
    const NAME: &'static str = "session.revoke";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("session", self.session)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        // The key names the asker, so another person's session is simply not there.
        let key = Key::Session { user: cx.person()?.user, id: self.session };
        cx.need::<SessionRow>(&key)?;
        cx.audit(Draft::success(Self::NAME, Named::new("session", self.session)));
        cx.delete(&key)
    }
}

/// Ends all of one's own sessions but the one that asks.
#[derive(Debug)]
pub struct RevokeOtherSessions;

impl Command for RevokeOtherSessions {
    type Action = permit::WriteOwnSessions;
    type Reply = ();
    const NAME: &'static str = "session.revoke";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let person = cx.person()?;
        let ended = end_sessions(cx, person.user, Some(person.session))?;
        let draft = Draft::success(Self::NAME, Named::new("user", person.user));
        cx.audit(draft.with("sessions", ended));
        Ok(())
    }
}

/// Changes one's own password: the other sessions end, and so do all access tokens made before.
pub struct ChangePassword {
    /// The hash the current password was right for.
    pub current_phc: String,
    /// The new password's hash.
    pub new_phc: String,
}

impl Command for ChangePassword {
    type Action = permit::WriteOwnSessions;
    type Reply = Opened;
    const NAME: &'static str = "password.change";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Opened, TenantError> {
        let person = cx.person()?;
        let key = Key::User { id: person.user };
        let mut user: UserRow = cx.row(&key)?.ok_or(TenantError::StaleCredential)?;
        if user.password.as_ref() != Some(&self.current_phc) {
            return Err(TenantError::BadCredentials);
        }
        let session_key = Key::Session { user: person.user, id: person.session };
        let mut session: SessionRow = cx.row(&session_key)?.ok_or(TenantError::StaleCredential)?;
        user.password = Some(self.new_phc);
        user.authz += 1;
        user.version += 1;
        user.updated_ms = cx.now_ms();
        // A refresh token from before the change must not outlive it.
        session.generation += 1;
        session.cookie += 1;
        touch(cx, &mut session);
        let ended = end_sessions(cx, person.user, Some(person.session))?;
        cx.put(&key, &user)?;
        cx.put(&session_key, &session)?;
        cx.audit(Draft::success(Self::NAME, user.named()).with("sessions_ended", ended));
        tickets::end_all(cx, user.id)?;
        notify_of_change(cx, &user)?;
        opened(cx, &user, &session)
    }
}

/// Notes that a signed-in person gave a wrong current password.
#[derive(Debug)]
pub struct RecordPasswordFailure;

impl Command for RecordPasswordFailure {
    type Action = permit::WriteOwnSessions;
    type Reply = ();
    const NAME: &'static str = "password.change";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let target = cx.actor();
        cx.audit(Draft::failed(Self::NAME, target).with("reason", "wrong-password"));
        Ok(())
    }
}

/// A session, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SessionView {
    /// Which session.
    #[schemars(with = "String")]
    pub id: SessionId,
    /// Whether it is the one that asks.
    pub current: bool,
    /// When it began, RFC 3339 UTC.
    pub created_at: String,
    /// When it was last refreshed, or used by its cookie, RFC 3339 UTC; to five minutes.
    pub last_used_at: String,
    /// When it ends unless refreshed, RFC 3339 UTC.
    pub expires_at: String,
    /// The address it was last used from.
    pub ip: Option<String>,
    /// The browser and system it was last used with, such as `Chrome on Linux`, as far as they say.
    pub device: Option<String>,
    /// The program it was last used with, as it names itself.
    pub user_agent: Option<String>,
    /// How it was proven whose it is (RFC 8176).
    pub amr: Vec<Proof>,
}

/// The browser and the system that a `User-Agent` names, if it is one of a browser.
pub(crate) fn device(user_agent: &str) -> Option<String> {
    let parsed = woothee::parser::Parser::new().parse(user_agent)?;
    let known = |name: &str| !name.is_empty() && name != woothee::woothee::VALUE_UNKNOWN;
    match (known(parsed.name), known(parsed.os)) {
        (true, true) => Some(format!("{} on {}", parsed.name, parsed.os)),
        (true, false) => Some(parsed.name.to_owned()),
        _ => None,
    }
}

/// Lists one's own sessions, oldest first; all on one page.
#[derive(Debug)]
pub struct ListSessions;

impl Query for ListSessions {
    type Action = permit::ReadOwnProfile;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let person = cx.person()?;
        let now = cx.now_ms();
        let items = sessions_of(cx, person.user)?
            .into_iter()
            .filter(|session| session.expires_ms > now)
            .map(|session| SessionView {
                id: session.id,
                current: session.id == person.session,
                created_at: rfc3339(session.created_ms),
                last_used_at: rfc3339(session.seen_ms),
                expires_at: rfc3339(session.expires_ms),
                amr: session.proofs(),
                ip: session.ip,
                device: session.user_agent.as_deref().and_then(device),
                user_agent: session.user_agent,
            })
            .map(|view| serde_json::to_vec(&view).expect("a view holds only texts and flags"))
            .map(ByteBuf::from)
            .collect();
        Ok(Page { items, next: None })
    }
}

/// Oneself, as this session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MeView {
    /// Who.
    #[schemars(with = "String")]
    pub id: UserId,
    /// The address one signs in with.
    pub email: String,
    /// As what.
    pub role: Role,
    /// When the account was made, RFC 3339 UTC.
    pub created_at: String,
    /// Whether one has shown that the address is one's own.
    pub email_verified: bool,
    /// The session that asks.
    #[schemars(with = "String")]
    pub session: SessionId,
    /// The tenant.
    pub tenant: TenantView,
}

/// Reads who one is.
#[derive(Debug)]
pub struct ReadMe;

impl Query for ReadMe {
    type Action = permit::ReadOwnProfile;
    type Reply = MeView;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<MeView, TenantError> {
        let person = cx.person()?;
        let row: UserRow = cx.need(&Key::User { id: person.user })?;
        Ok(MeView {
            id: row.id,
            email: row.email,
            role: row.role,
            created_at: rfc3339(row.created_ms),
            email_verified: row.email_verified,
            session: person.session,
            tenant: TenantView::of(cx)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_named_and_a_program_is_not_guessed_at() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/141.0.0.0 Safari/537.36";
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 \
                     (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1";
        assert_eq!(device(chrome).as_deref(), Some("Chrome on Linux"));
        assert_eq!(device(phone).as_deref(), Some("Safari on iPhone"));
        assert_eq!(device("our-batch/1.0"), None);
        assert_eq!(device(""), None);
    }
}
