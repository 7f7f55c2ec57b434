//! What people do to their own second factors. Nothing here can name anybody else's.
//!
//! Passwords are compared by whoever asks, as everywhere; codes and passkeys are compared here, where it is
//! known which were used. A wrong one is an answer and not an error, because that it came is kept.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::UserId;
use storage::keys::Key;

use super::recovery::{RecoveryCodes, SEED_BYTES};
use super::{
    BegunTotp, FactorsRow, Shown, Totp, accept, factors_of, forget_factors, is_required, totp,
};
use crate::audit::entry::{Draft, Named};
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::mail::Change;
use crate::tenant::members::end_sessions;
use crate::tenant::people::{Proof, SessionRow, UserRow};
use crate::tenant::profile::TenantView;
use crate::tenant::recovery::notify_of;
use crate::tenant::sessions::{Opened, opened, touch};

/// What came of something that takes a second factor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Checked<T> {
    /// It was done.
    Done(T),
    /// The code or the passkey was wrong, and nothing was done.
    WrongFactor,
}

/// The secret of a new authenticator, and what it calls the account.
#[derive(Serialize, Deserialize)]
pub struct Begun {
    /// The secret.
    pub secret: ByteBuf,
    /// The tenant's name for people.
    pub issuer: String,
    /// The person's address.
    pub account: String,
}

/// The one who asks, if the password they gave was compared with what is still their password's hash; who has
/// none, because others vouch for them, has to have signed in a moment ago.
pub(super) fn oneself(cx: &impl Reads, current_phc: Option<&str>) -> Result<UserRow, TenantError> {
    let person = cx.person()?;
    let user: Option<UserRow> = cx.row(&Key::User { id: person.user })?;
    let user = user.ok_or(TenantError::StaleCredential)?;
    if user.password.as_deref() != current_phc {
        return Err(TenantError::BadCredentials);
    }
    if user.password.is_none() {
        let key = Key::Session { user: person.user, id: person.session };
        let session: SessionRow = cx.row(&key)?.ok_or(TenantError::StaleCredential)?;
        if cx.now_ms() >= session.created_ms.saturating_add(limits::FRESH_MS) {
            return Err(TenantError::SignInAgain);
        }
    }
    Ok(user)
}

/// Makes sure that a person without a password signed in a moment ago.
#[derive(Debug)]
pub struct CheckFresh;

impl Query for CheckFresh {
    type Action = permit::WriteOwnSessions;
    type Reply = ();

    fn run(self, cx: &mut ReadCx<'_>) -> Result<(), TenantError> {
        oneself(cx, None).map(drop)
    }
}

/// Whether what somebody shows is good. What is not is written down, in their row as well.
pub(super) fn is_good(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    row: &mut FactorsRow,
    shown: Shown,
    action: &'static str,
) -> Result<bool, TenantError> {
    let asked = row.passkeys.take_asked(cx.now_ms());
    let wrong = match accept(cx, user, row, shown, asked.as_deref().map(Vec::as_slice)) {
        Ok(_) => return Ok(true),
        Err(wrong) => wrong,
    };
    cx.put(&Key::SecondFactors { user: user.id }, row)?;
    cx.audit(wrong.noted(Draft::failed(action, user.named())));
    Ok(false)
}

/// What is said where a second factor is needed that is not there.
pub(super) fn factor_needed() -> TenantError {
    TenantError::invalid("/code", "is needed, or a passkey: there is a second factor already")
}

/// Begins to enrol an authenticator. It counts once it proved itself; until then nothing changes.
pub struct BeginTotp {
    /// The hash the current password was right for.
    pub current_phc: Option<String>,
    /// A second factor that is there already.
    pub shown: Option<Shown>,
}

impl Command for BeginTotp {
    type Action = permit::WriteOwnSessions;
    type Reply = Checked<Begun>;
    const NAME: &'static str = "mfa.totp_begin";
    const AFTER_TRIAL: bool = true;
    const BEFORE_ENROLMENT: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        let user = oneself(cx, self.current_phc.as_deref())?;
        let mut row = factors_of(cx, user.id)?;
        if row.is_enrolled() {
            let shown = self.shown.ok_or_else(factor_needed)?;
            if !is_good(cx, &user, &mut row, shown, Self::NAME)? {
                return Ok(Checked::WrongFactor);
            }
        }
        let secret = cx.random();
        row.begun = Some(BegunTotp { secret, begun_ms: cx.now_ms() });
        cx.put(&Key::SecondFactors { user: user.id }, &row)?;
        cx.audit(Draft::success(Self::NAME, user.named()));
        let issuer = TenantView::of(cx)?.name;
        Ok(Checked::Done(Begun { secret: ByteBuf::from(secret), issuer, account: user.email }))
    }
}

/// What is shown when an authenticator proved itself.
#[derive(Serialize, Deserialize)]
pub struct Confirmed {
    /// The recovery codes, in clear, for this once.
    pub recovery_codes: Vec<String>,
    /// The session that asked, with the second factor proven in it.
    pub opened: Opened,
}

/// Ends an enrolment with the first code of the new authenticator. From then on signing in takes it; the
/// other sessions, which never saw it, end, and so do all access tokens made before.
pub struct ConfirmTotp {
    /// The code.
    pub code: String,
}

impl Command for ConfirmTotp {
    type Action = permit::WriteOwnSessions;
    type Reply = Confirmed;
    const NAME: &'static str = "mfa.totp_confirm";
    const AFTER_TRIAL: bool = true;
    const BEFORE_ENROLMENT: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Confirmed, TenantError> {
        let person = cx.person()?;
        let now_ms = cx.now_ms();
        let (user_key, session_key) =
            (Key::User { id: person.user }, Key::Session { user: person.user, id: person.session });
        let user: Option<UserRow> = cx.row(&user_key)?;
        let session: Option<SessionRow> = cx.row(&session_key)?;
        let (Some(mut user), Some(mut session)) = (user, session) else {
            return Err(TenantError::StaleCredential);
        };
        let mut row = factors_of(cx, user.id)?;
        let begun = row
            .begun
            .take()
            .filter(|begun| now_ms < begun.begun_ms.saturating_add(limits::ENROLMENT_MS));
        let BegunTotp { secret, .. } =
            begun.ok_or(TenantError::Conflict(Conflict::EnrolmentNotBegun))?;
        let wrong = || TenantError::invalid("/code", "is not a code of the new authenticator now");
        let code: String = self.code.chars().filter(|c| !c.is_whitespace()).collect();
        let last_step = totp::step_of(&secret, now_ms, &code, None).ok_or_else(wrong)?;
        let (recovery, recovery_codes) = RecoveryCodes::make(&cx.random::<SEED_BYTES>());
        // Sign-ins that waited for the authenticator before this one are void as well.
        row = FactorsRow {
            totp: Some(Totp { secret, last_step, confirmed_ms: now_ms }),
            recovery,
            passkeys: row.passkeys,
            ..FactorsRow::default()
        };
        user.authz += 1;
        session.generation += 1;
        session.cookie += 1;
        session.amr = vec![Proof::Password, Proof::OneTimeCode];
        touch(cx, &mut session);
        let ended = end_sessions(cx, user.id, Some(session.id))?;
        cx.put(&Key::SecondFactors { user: user.id }, &row)?;
        cx.put(&user_key, &user)?;
        cx.put(&session_key, &session)?;
        cx.audit(Draft::success(Self::NAME, user.named()).with("sessions_ended", ended));
        notify_of(cx, &user, Change::AuthenticatorAdded)?;
        Ok(Confirmed { recovery_codes, opened: opened(cx, &user, &session)? })
    }
}

/// Stores what is left of somebody's factors; nothing if no factor is.
pub(super) fn keep_or_forget(
    cx: &mut Cx<'_, '_>,
    user: UserId,
    row: &FactorsRow,
) -> Result<(), TenantError> {
    if row.is_enrolled() {
        cx.put(&Key::SecondFactors { user }, row)
    } else {
        forget_factors(cx, user)
    }
}

/// Removes the authenticator; with the last factor the recovery codes go, and signing in takes the password
/// alone again.
pub struct RemoveTotp {
    /// The hash the current password was right for.
    pub current_phc: Option<String>,
    /// A second factor.
    pub shown: Shown,
}

impl Command for RemoveTotp {
    type Action = permit::WriteOwnSessions;
    type Reply = Checked<()>;
    const NAME: &'static str = "mfa.totp_remove";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        let user = oneself(cx, self.current_phc.as_deref())?;
        let mut row = factors_of(cx, user.id)?;
        if row.totp.is_none() {
            return Err(TenantError::NotFound);
        }
        if is_required(cx) && row.passkeys.is_empty() {
            return Err(TenantError::Conflict(Conflict::FactorRequired));
        }
        if !is_good(cx, &user, &mut row, self.shown, Self::NAME)? {
            return Ok(Checked::WrongFactor);
        }
        row.totp = None;
        keep_or_forget(cx, user.id, &row)?;
        cx.audit(Draft::success(Self::NAME, user.named()));
        notify_of(cx, &user, Change::AuthenticatorRemoved)?;
        Ok(Checked::Done(()))
    }
}

/// Makes a new set of recovery codes; the old ones are good no more.
pub struct RenewRecoveryCodes {
    /// The hash the current password was right for.
    pub current_phc: Option<String>,
    /// A second factor.
    pub shown: Shown,
}

impl Command for RenewRecoveryCodes {
    type Action = permit::WriteOwnSessions;
    type Reply = Checked<Vec<String>>;
    const NAME: &'static str = "mfa.recovery_renew";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        let user = oneself(cx, self.current_phc.as_deref())?;
        let mut row = factors_of(cx, user.id)?;
        if !row.is_enrolled() {
            return Err(TenantError::NotFound);
        }
        if !is_good(cx, &user, &mut row, self.shown, Self::NAME)? {
            return Ok(Checked::WrongFactor);
        }
        let (recovery, codes) = RecoveryCodes::make(&cx.random::<SEED_BYTES>());
        row.recovery = recovery;
        cx.put(&Key::SecondFactors { user: user.id }, &row)?;
        cx.audit(Draft::success(Self::NAME, user.named()));
        notify_of(cx, &user, Change::RecoveryCodesMade)?;
        Ok(Checked::Done(codes))
    }
}

/// Notes that a signed-in person who wanted to change their second factors gave a wrong password.
pub struct RecordWrongPassword {
    /// What they wanted: the name of the command.
    pub action: &'static str,
}

impl Command for RecordWrongPassword {
    type Action = permit::WriteOwnSessions;
    type Reply = ();
    const NAME: &'static str = "mfa.wrong_password";
    const AFTER_TRIAL: bool = true;
    const BEFORE_ENROLMENT: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let target = cx.actor();
        cx.audit(Draft::failed(self.action, target).with("reason", "wrong-password"));
        Ok(())
    }
}
