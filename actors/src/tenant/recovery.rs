//! Getting back in: new passwords by a mailed link, and addresses proven by one.
//!
//! Whether somebody has an address is not told: asking for a link costs the same record either way, and
//! only the mailbox learns more. A new password ends every session and every other link of the person.

use storage::keys::Key;

use crate::audit::entry::{Draft, Named};
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::mail::{self, About, Change};
use crate::tenant::members::{end_sessions, find_by_email};
use crate::tenant::people::UserRow;
use crate::tenant::sessions::unknown_account;
use crate::tenant::tickets::{self, MailedToken, Purpose};

pub mod links;

/// How long a notice is tried to be sent, milliseconds: a day.
const NOTICE_MS: u64 = 24 * 60 * 60 * 1000;

/// Mails a link for a new password to whoever has the address.
pub struct RequestReset {
    /// The address, as it was typed; nothing if there is no tenant of the name given, which the platform
    /// notes.
    pub email: Option<String>,
    /// The tenant's name and the address, as typed; kept as a keyed digest only.
    pub account: String,
}

impl Command for RequestReset {
    type Action = permit::SignIn;
    type Reply = ();
    const NAME: &'static str = "password.reset_request";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("account", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let found = match &self.email {
            Some(email) => find_by_email(cx, email)?,
            None => None,
        };
        let Some(user) = found else {
            let reason = if self.email.is_some() { "unknown-email" } else { "unknown-tenant" };
            let target = unknown_account(cx, &self.account);
            cx.audit(Draft::failed(Self::NAME, target).with("reason", reason));
            return Ok(());
        };
        if user.deactivated {
            cx.audit(Draft::failed(Self::NAME, user.named()).with("reason", "deactivated"));
            return Ok(());
        }
        if cx.state().mail.waiting < limits::MAILS_MAX {
            let ticket = tickets::open(cx, &user, Purpose::Reset)?;
            mail::post(cx, &user.email, About::Reset(user.id, ticket.id), ticket.expires_ms)?;
        }
        cx.audit(Draft::success(Self::NAME, user.named()));
        Ok(())
    }
}

/// Looks at a link before anybody spends a password hash on it; answers the address it went to.
#[derive(Debug)]
pub struct CheckReset {
    /// What was presented.
    pub token: MailedToken,
}

impl Query for CheckReset {
    type Action = permit::SignIn;
    type Reply = String;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<String, TenantError> {
        let (_, user) = tickets::find(cx, cx.keys(), &self.token, Purpose::Reset)?;
        Ok(user.email)
    }
}

/// Sets a new password: every session, every token and every other link of the person ends.
pub struct ResetPassword {
    /// What was presented.
    pub token: MailedToken,
    /// The new password's hash.
    pub password_phc: String,
}

impl Command for ResetPassword {
    type Action = permit::SignIn;
    type Reply = ();
    const NAME: &'static str = "password.reset";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("account", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let (_, mut user) = tickets::find(cx, cx.keys(), &self.token, Purpose::Reset)?;
        let was_owner = user.is_working_owner();
        user.password = Some(self.password_phc);
        // The link proves it as well as one made for that.
        user.email_verified = true;
        user.authz += 1;
        user.version += 1;
        user.updated_ms = cx.now_ms();
        cx.state_mut().owners += u32::from(user.is_working_owner() && !was_owner);
        let ended = end_sessions(cx, user.id, None)?;
        tickets::end_all(cx, user.id)?;
        cx.put(&Key::User { id: user.id }, &user)?;
        cx.audit_as(
            user.named(),
            Draft::success(Self::NAME, user.named()).with("sessions_ended", ended),
        );
        notify_of_change(cx, &user)
    }
}

/// Tells a person that their password was changed, so that they hear of it if it was not them.
pub(crate) fn notify_of_change(cx: &mut Cx<'_, '_>, user: &UserRow) -> Result<(), TenantError> {
    notify(cx, user, About::PasswordChanged(user.id))
}

/// Tells a person what they, or who claims to be them, changed about how they sign in.
pub(crate) fn notify_of(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    change: Change,
) -> Result<(), TenantError> {
    notify(cx, user, About::Changed(user.id, change))
}

/// Tells a person what happened to how they sign in. What happened does not depend on it.
pub(crate) fn notify(cx: &mut Cx<'_, '_>, user: &UserRow, about: About) -> Result<(), TenantError> {
    if cx.state().mail.waiting >= limits::MAILS_MAX {
        return Ok(());
    }
    let until_ms = cx.now_ms().saturating_add(NOTICE_MS);
    mail::post(cx, &user.email, about, until_ms)
}

/// Mails a link by which a person proves their address; nothing if they have.
pub(crate) fn ask_to_verify(cx: &mut Cx<'_, '_>, user: &UserRow) -> Result<(), TenantError> {
    if user.email_verified {
        return Ok(());
    }
    let ticket = tickets::open(cx, user, Purpose::Verify)?;
    mail::post(cx, &user.email, About::Verify(user.id, ticket.id), ticket.expires_ms)
}

/// Mails oneself a link that proves one's address.
#[derive(Debug)]
pub struct RequestVerification;

impl Command for RequestVerification {
    type Action = permit::WriteOwnSessions;
    type Reply = ();
    const NAME: &'static str = "email.verify_request";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let user: UserRow = cx.need(&Key::User { id: cx.person()?.user })?;
        ask_to_verify(cx, &user)?;
        if !user.email_verified {
            cx.audit(Draft::success(Self::NAME, user.named()));
        }
        Ok(())
    }
}

/// Notes that an address is its holder's.
#[derive(Debug)]
pub struct VerifyEmail {
    /// What was presented.
    pub token: MailedToken,
}

impl Command for VerifyEmail {
    type Action = permit::SignIn;
    type Reply = ();
    const NAME: &'static str = "email.verify";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("account", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let (ticket, mut user) = tickets::find(cx, cx.keys(), &self.token, Purpose::Verify)?;
        cx.delete(&Key::Ticket { user: user.id, id: ticket.id })?;
        user.email_verified = true;
        user.version += 1;
        user.updated_ms = cx.now_ms();
        cx.put(&Key::User { id: user.id }, &user)?;
        cx.audit_as(user.named(), Draft::success(Self::NAME, user.named()));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
