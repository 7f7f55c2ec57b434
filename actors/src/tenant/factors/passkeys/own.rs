//! What people do to their own passkeys: enrol, list, remove, and show that it is they who ask. Nothing here
//! can name anybody else's.
//!
//! An answer of a browser that is not good is a reply and not an error: its challenge is used up by it.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::Value;
use storage::keys::Key;

use super::{
    CHALLENGE_BYTES, Fault, NewCredential, Open, Passkey, PasskeyView, Place, RelyingParty,
    ask_for_one, names,
};
use crate::audit::entry::{Draft, Named};
use crate::call::Page;
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::factors::own::{Checked, factor_needed, is_good, keep_or_forget, oneself};
use crate::tenant::factors::recovery::{RecoveryCodes, SEED_BYTES};
use crate::tenant::factors::{FactorsRow, Shown, factors_of, is_required};
use crate::tenant::mail::Change;
use crate::tenant::members::end_sessions;
use crate::tenant::people::{Proof, SessionRow, UserRow};
use crate::tenant::profile::check_name;
use crate::tenant::recovery::notify_of;
use crate::tenant::sessions::{Opened, opened, touch};

/// Begins to enrol a passkey: answers what the browser has to be asked.
pub struct BeginPasskey {
    /// The hash the current password was right for.
    pub current_phc: Option<String>,
    /// A second factor, if there is one already.
    pub shown: Option<Shown>,
    /// Whom passkeys are made for here.
    pub party: RelyingParty,
}

impl Command for BeginPasskey {
    type Action = permit::WriteOwnSessions;
    type Reply = Checked<Value>;
    const NAME: &'static str = "mfa.passkey_begin";
    const AFTER_TRIAL: bool = true;
    const BEFORE_ENROLMENT: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        let user = oneself(cx, self.current_phc.as_deref())?;
        let mut row = factors_of(cx, user.id)?;
        if row.passkeys.held.len() >= limits::PASSKEYS_MAX {
            return Err(TenantError::Conflict(Conflict::TooManyPasskeys));
        }
        if row.is_enrolled() {
            let shown = self.shown.ok_or_else(factor_needed)?;
            if !is_good(cx, &user, &mut row, shown, Self::NAME)? {
                return Ok(Checked::WrongFactor);
            }
        }
        let challenge = cx.random::<CHALLENGE_BYTES>();
        row.passkeys.begun = Some(Open::new(&challenge, cx.now_ms()));
        cx.put(&Key::SecondFactors { user: user.id }, &row)?;
        cx.audit(Draft::success(Self::NAME, user.named()));
        let (slug, name) = names(cx);
        let place = Place { party: &self.party, slug: slug.as_deref(), name: &name };
        let held = &row.passkeys.held;
        Ok(Checked::Done(place.creation_options(user.id, &user.email, &challenge, held)))
    }
}

/// What came of enrolling a passkey.
#[derive(Serialize, Deserialize)]
pub enum Enrolment {
    /// It counts from now on.
    Done(Box<Enrolled>),
    /// It is not taken, and its challenge is used up.
    Refused(Fault),
}

/// What is shown when a passkey was enrolled.
#[derive(Serialize, Deserialize)]
pub struct Enrolled {
    /// The passkey.
    pub passkey: PasskeyView,
    /// The recovery codes, in clear, for this once; only with the first factor.
    pub recovery_codes: Option<Vec<String>>,
    /// The session that asked, with the passkey proven in it.
    pub opened: Opened,
}

/// Ends an enrolment with the new passkey. With the first factor of a person the other sessions end, which
/// never saw one, and so do all access tokens made before.
pub struct AddPasskey {
    /// What its holder calls it.
    pub name: String,
    /// What the browser answered.
    pub credential: NewCredential,
    /// Whom passkeys are made for here.
    pub party: RelyingParty,
}

impl Command for AddPasskey {
    type Action = permit::WriteOwnSessions;
    type Reply = Enrolment;
    const NAME: &'static str = "mfa.passkey_add";
    const AFTER_TRIAL: bool = true;
    const BEFORE_ENROLMENT: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Enrolment, TenantError> {
        let person = cx.person()?;
        let user: Option<UserRow> = cx.row(&Key::User { id: person.user })?;
        let session: Option<SessionRow> =
            cx.row(&Key::Session { user: person.user, id: person.session })?;
        let (Some(user), Some(session)) = (user, session) else {
            return Err(TenantError::StaleCredential);
        };
        check_name("/name", &self.name).map_err(|error| TenantError::Invalid(vec![error]))?;
        let mut row = factors_of(cx, user.id)?;
        let begun = Open::answered_at(row.passkeys.begun.take(), cx.now_ms());
        let challenge = begun.ok_or(TenantError::Conflict(Conflict::EnrolmentNotBegun))?;
        if row.passkeys.held.len() >= limits::PASSKEYS_MAX {
            return Err(TenantError::Conflict(Conflict::TooManyPasskeys));
        }
        let (slug, name) = names(cx);
        let place = Place { party: &self.party, slug: slug.as_deref(), name: &name };
        let made = place.created(&challenge, self.credential);
        let is_known = |made: &Passkey| row.passkeys.held.iter().any(|held| held.id == made.id);
        match made {
            Ok(made) if !is_known(&made) => {
                let passkey = Passkey { name: self.name, created_ms: cx.now_ms(), ..made };
                enrol(cx, user, session, row, passkey)
            }
            refused => {
                let fault = refused.err().unwrap_or(Fault::Challenge);
                cx.put(&Key::SecondFactors { user: user.id }, &row)?;
                let draft = Draft::failed(Self::NAME, user.named());
                cx.audit(draft.with("reason", "wrong-passkey").with("fault", fault.name()));
                Ok(Enrolment::Refused(fault))
            }
        }
    }
}

fn enrol(
    cx: &mut Cx<'_, '_>,
    mut user: UserRow,
    mut session: SessionRow,
    mut row: FactorsRow,
    passkey: Passkey,
) -> Result<Enrolment, TenantError> {
    let mut draft = Draft::success(AddPasskey::NAME, user.named()).with("passkey", passkey.id());
    let mut recovery_codes = None;
    if !row.is_enrolled() {
        let (recovery, codes) = RecoveryCodes::make(&cx.random::<SEED_BYTES>());
        (row.recovery, recovery_codes) = (recovery, Some(codes));
        user.authz += 1;
        cx.put(&Key::User { id: user.id }, &user)?;
        draft = draft.with("sessions_ended", end_sessions(cx, user.id, Some(session.id))?);
    }
    let view = passkey.view();
    row.passkeys.held.push(passkey);
    session.generation += 1;
    session.cookie += 1;
    session.amr = session.proofs();
    if !session.amr.contains(&Proof::Key) {
        session.amr.push(Proof::Key);
    }
    touch(cx, &mut session);
    cx.put(&Key::SecondFactors { user: user.id }, &row)?;
    cx.put(&Key::Session { user: user.id, id: session.id }, &session)?;
    cx.audit(draft);
    let is_first = recovery_codes.is_some();
    notify_of(cx, &user, if is_first { Change::FirstPasskeyAdded } else { Change::PasskeyAdded })?;
    let opened = opened(cx, &user, &session)?;
    Ok(Enrolment::Done(Box::new(Enrolled { passkey: view, recovery_codes, opened })))
}

/// Begins to show that it is oneself by a passkey: answers what the browser has to be asked.
pub struct AskOwnPasskey {
    /// Whom passkeys are made for here.
    pub party: RelyingParty,
}

impl Command for AskOwnPasskey {
    type Action = permit::WriteOwnSessions;
    type Reply = Value;
    const NAME: &'static str = "mfa.passkey_options";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Value, TenantError> {
        let user = cx.person()?.user;
        let mut row = factors_of(cx, user)?;
        if row.passkeys.is_empty() {
            return Err(TenantError::NotFound);
        }
        let challenge = cx.random::<CHALLENGE_BYTES>();
        row.passkeys.asked = Some(Open::new(&challenge, cx.now_ms()));
        cx.put(&Key::SecondFactors { user }, &row)?;
        Ok(ask_for_one(cx, &self.party, &challenge, &row.passkeys))
    }
}

/// Removes a passkey; with the last factor the recovery codes go, and signing in takes the password alone
/// again.
pub struct RemovePasskey {
    /// The hash the current password was right for.
    pub current_phc: Option<String>,
    /// A second factor; the passkey itself will do.
    pub shown: Shown,
    /// Its credential id.
    pub passkey: String,
}

impl Command for RemovePasskey {
    type Action = permit::WriteOwnSessions;
    type Reply = Checked<()>;
    const NAME: &'static str = "mfa.passkey_remove";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        let user = oneself(cx, self.current_phc.as_deref())?;
        let mut row = factors_of(cx, user.id)?;
        if !row.passkeys.held.iter().any(|held| held.id() == self.passkey) {
            return Err(TenantError::NotFound);
        }
        let is_last = row.totp.is_none() && row.passkeys.held.len() == 1;
        if is_last && is_required(cx) {
            return Err(TenantError::Conflict(Conflict::FactorRequired));
        }
        if !is_good(cx, &user, &mut row, self.shown, Self::NAME)? {
            return Ok(Checked::WrongFactor);
        }
        row.passkeys.held.retain(|held| held.id() != self.passkey);
        keep_or_forget(cx, user.id, &row)?;
        cx.audit(Draft::success(Self::NAME, user.named()).with("passkey", self.passkey));
        notify_of(cx, &user, Change::PasskeyRemoved)?;
        Ok(Checked::Done(()))
    }
}

/// Lists one's own passkeys, oldest first; all on one page.
#[derive(Debug)]
pub struct ListPasskeys;

impl Query for ListPasskeys {
    type Action = permit::ReadOwnProfile;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let row = factors_of(cx, cx.person()?.user)?;
        let json = |passkey: &Passkey| {
            serde_json::to_vec(&passkey.view()).expect("a view holds only texts and flags")
        };
        Ok(Page {
            items: row.passkeys.held.iter().map(json).map(ByteBuf::from).collect(),
            next: None,
        })
    }
}
