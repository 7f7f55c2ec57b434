//! Second factors: what a person has besides a password, and what is left of it.
//!
//! One row per person holds the secret of their authenticator, their passkeys, the digests of their
//! recovery codes and the sign-ins that wait for one of them. A time step of the authenticator, a challenge
//! of a passkey and a recovery code are good once.
//! Nothing of the row is ever shown but what [`MfaView`] says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{TenantId, UserId};
use storage::keys::Key;

use crate::audit::entry::Draft;
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::people::{Proof, SessionRow, UserRow};

pub mod own;
pub mod passkeys;
mod recovery;
pub mod reset;
pub mod totp;

use passkeys::{Fault, Passkeys, Presented};
use recovery::RecoveryCodes;

/// Longest code that is looked at, in bytes, hyphens and spaces included.
const CODE_BYTES_MAX: usize = 64;

/// A kind of second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// An authenticator that shows codes of the time (RFC 6238).
    Totp,
    /// A passkey (WebAuthn).
    Passkey,
    /// A recovery code.
    RecoveryCode,
}

impl Method {
    /// Its name in the audit log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Passkey => "passkey",
            Self::RecoveryCode => "recovery_code",
        }
    }
    /// What it proves, in the words of sessions.
    pub(crate) const fn proof(self) -> Proof {
        match self {
            Self::Totp | Self::RecoveryCode => Proof::OneTimeCode,
            Self::Passkey => Proof::Key,
        }
    }
}

/// The row of one person.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FactorsRow {
    totp: Option<Totp>,
    begun: Option<BegunTotp>,
    recovery: RecoveryCodes,
    challenges: Vec<Challenge>,
    /// Wrong codes in a row.
    wrong: u32,
    /// Until when no code of the authenticator is taken, Unix milliseconds.
    paused_until_ms: u64,
    #[serde(default)]
    passkeys: Passkeys,
}

/// An authenticator that proved itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Totp {
    #[serde(with = "serde_bytes")]
    secret: [u8; totp::SECRET_BYTES],
    /// The step whose code was used last. No code of it or of an earlier one is good any more.
    last_step: u64,
    confirmed_ms: u64,
}

/// An authenticator that has to prove itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BegunTotp {
    #[serde(with = "serde_bytes")]
    secret: [u8; totp::SECRET_BYTES],
    begun_ms: u64,
}

/// A sign-in that waits for its second factor.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Challenge {
    #[serde(with = "serde_bytes")]
    id: [u8; 16],
    expires_ms: u64,
    wrong: u32,
    /// What a passkey has to answer, once that was asked for.
    #[serde(default)]
    passkey: Option<ByteBuf>,
    /// What came first; rows of older releases knew passwords only.
    #[serde(default)]
    first: Option<Proof>,
}

/// The second factors of a person; none if nothing is stored.
pub(crate) fn factors_of(cx: &impl Reads, user: UserId) -> Result<FactorsRow, TenantError> {
    Ok(cx.row(&Key::SecondFactors { user })?.unwrap_or_default())
}

/// Removes all second factors of a person.
pub(crate) fn forget_factors(cx: &mut Cx<'_, '_>, user: UserId) -> Result<(), TenantError> {
    let key = Key::SecondFactors { user };
    if cx.bytes(&key)?.is_some() { cx.delete(&key) } else { Ok(()) }
}

/// Whether everybody here needs a second factor: as the tenant wants it; on the platform always.
pub(crate) fn is_required(cx: &impl Reads) -> bool {
    let profile = cx.state().profile.as_ref();
    cx.tenant() == TenantId::PLATFORM || profile.is_some_and(|profile| profile.mfa_required)
}

/// Whether a session has seen a second factor that its holder still has.
pub(crate) fn has_proven_one(cx: &impl Reads, session: &SessionRow) -> Result<bool, TenantError> {
    let is_shown = |proof| matches!(proof, &Proof::OneTimeCode | &Proof::Key);
    Ok(session.amr.iter().any(is_shown) && factors_of(cx, session.user)?.is_enrolled())
}

impl FactorsRow {
    /// Whether signing in takes a second factor.
    pub(crate) fn is_enrolled(&self) -> bool {
        self.totp.is_some() || !self.passkeys.is_empty()
    }

    /// The passkeys.
    pub(crate) fn passkeys(&self) -> &Passkeys {
        &self.passkeys
    }

    pub(crate) fn passkeys_mut(&mut self) -> &mut Passkeys {
        &mut self.passkeys
    }

    /// What is enrolled.
    fn enrolled(&self) -> Vec<Method> {
        let totp = self.totp.iter().map(|_| Method::Totp);
        totp.chain((!self.passkeys.is_empty()).then_some(Method::Passkey)).collect()
    }

    /// What a sign-in may be completed with.
    pub(crate) fn methods(&self) -> Vec<Method> {
        let mut methods = self.enrolled();
        if self.recovery.left() > 0 {
            methods.push(Method::RecoveryCode);
        }
        methods
    }

    /// Begins to wait for the second factor of a sign-in, in the place of the oldest if too many wait.
    pub(crate) fn challenge(&mut self, id: [u8; 16], now_ms: u64, first: Proof) {
        self.challenges.retain(|challenge| challenge.expires_ms > now_ms);
        let too_many = (self.challenges.len() + 1).saturating_sub(limits::CHALLENGES_MAX);
        self.challenges.drain(..too_many);
        let expires_ms = now_ms.saturating_add(limits::CHALLENGE_MS);
        let first = Some(first);
        self.challenges.push(Challenge { id, expires_ms, wrong: 0, passkey: None, first });
    }

    /// Has no sign-in wait any more; whether one did.
    pub(crate) fn end_challenges(&mut self) -> bool {
        !std::mem::take(&mut self.challenges).is_empty()
    }

    /// Whether a sign-in still waits.
    pub(crate) fn is_waiting(&self, id: &[u8; 16], now_ms: u64) -> bool {
        self.challenges.iter().any(|one| one.id == *id && one.expires_ms > now_ms)
    }

    /// Has a sign-in that waits be completed by a passkey that answers `challenge`; whether it waits and
    /// there is a passkey.
    pub(crate) fn ask_passkey(&mut self, id: &[u8; 16], challenge: &[u8], now_ms: u64) -> bool {
        if self.passkeys.is_empty() {
            return false;
        }
        let waiting =
            self.challenges.iter_mut().find(|one| one.id == *id && one.expires_ms > now_ms);
        let is_waiting = waiting.is_some();
        if let Some(one) = waiting {
            one.passkey = Some(ByteBuf::from(challenge));
        }
        is_waiting
    }

    /// What a passkey has to answer to complete a sign-in. It is answered once, well or not.
    pub(crate) fn take_asked(&mut self, id: &[u8; 16]) -> Option<ByteBuf> {
        self.challenges.iter_mut().find(|one| one.id == *id)?.passkey.take()
    }

    /// What a sign-in that waits began with.
    pub(crate) fn first_proof(&self, id: &[u8; 16]) -> Proof {
        let challenge = self.challenges.iter().find(|one| one.id == *id);
        challenge.and_then(|one| one.first).unwrap_or(Proof::Password)
    }

    /// Ends the wait of a sign-in that got its code.
    pub(crate) fn settle(&mut self, id: &[u8; 16]) {
        self.challenges.retain(|challenge| challenge.id != *id);
    }

    /// Notes that a sign-in got a wrong code; says whether it is void by that.
    pub(crate) fn miss(&mut self, id: &[u8; 16]) -> bool {
        let Some(challenge) = self.challenges.iter_mut().find(|one| one.id == *id) else {
            return true;
        };
        challenge.wrong += 1;
        let is_void = challenge.wrong >= limits::WRONG_CODES_MAX;
        if is_void {
            self.settle(id);
        }
        is_void
    }

    /// Uses a code, if it is good now, and says of what it was.
    fn take(&mut self, now_ms: u64, code: &str) -> Option<Method> {
        if code.len() > CODE_BYTES_MAX {
            return None;
        }
        let is_letter = |c: &char| !c.is_whitespace() && *c != '-';
        let code: String = code.chars().filter(is_letter).collect();
        if code.len() == totp::DIGITS && code.bytes().all(|byte| byte.is_ascii_digit()) {
            if now_ms < self.paused_until_ms {
                return None;
            }
            let totp = self.totp.as_mut()?;
            let last = Some(totp.last_step);
            totp.last_step = totp::step_of(&totp.secret, now_ms, &code, last)?;
            return Some(Method::Totp);
        }
        self.recovery.spend(&code.to_ascii_lowercase()).then_some(Method::RecoveryCode)
    }

    fn note_wrong(&mut self, now_ms: u64) {
        if now_ms < self.paused_until_ms {
            return;
        }
        self.wrong = self.wrong.saturating_add(1);
        let Some(beyond) = self.wrong.checked_sub(limits::WRONG_CODES_BEFORE_PAUSE) else { return };
        if beyond.is_multiple_of(limits::WRONG_CODES_MAX) {
            let doublings = (beyond / limits::WRONG_CODES_MAX).min(16);
            let pause_ms =
                (limits::CODE_PAUSE_MS_FIRST << doublings).min(limits::CODE_PAUSE_MS_MAX);
            self.paused_until_ms = now_ms.saturating_add(pause_ms);
        }
    }
}

/// What somebody shows as a second factor.
pub enum Shown {
    /// A code of the authenticator, or a recovery code.
    Code(String),
    /// A use of a passkey.
    Passkey(Box<Presented>),
}

/// Why a second factor was not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Code,
    Passkey(Fault),
}

impl Wrong {
    /// The entry of an attempt, with why it failed.
    pub(crate) fn noted(self, draft: Draft) -> Draft {
        match self {
            Self::Code => draft.with("reason", "wrong-code"),
            Self::Passkey(fault) => {
                draft.with("reason", "wrong-passkey").with("fault", fault.name())
            }
        }
    }
}

/// Uses a second factor of somebody, if it is good, and writes down the use of a recovery code. A passkey
/// has to answer `asked`. The row is changed either way, and the caller's to store.
pub(crate) fn accept(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    row: &mut FactorsRow,
    shown: Shown,
    asked: Option<&[u8]>,
) -> Result<Method, Wrong> {
    let now_ms = cx.now_ms();
    let method = match shown {
        Shown::Code(code) => match row.take(now_ms, &code) {
            Some(method) => method,
            None => {
                row.note_wrong(now_ms);
                return Err(Wrong::Code);
            }
        },
        // Nobody guesses a signature: a wrong one makes nobody wait.
        Shown::Passkey(presented) => {
            passkeys::use_second(cx, user, &mut row.passkeys, asked, *presented)
                .map_err(Wrong::Passkey)?;
            return Ok(Method::Passkey);
        }
    };
    (row.wrong, row.paused_until_ms) = (0, 0);
    if method == Method::RecoveryCode {
        let draft = Draft::success("mfa.recovery_code", user.named());
        cx.audit_as(user.named(), draft.with("codes_left", row.recovery.left()));
    }
    Ok(method)
}

/// One's own second factors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MfaView {
    /// What is enrolled.
    pub methods: Vec<Method>,
    /// How many recovery codes are left.
    pub recovery_codes_left: u64,
    /// Whether one is needed here.
    pub required: bool,
}

/// Reads what second factors one has.
#[derive(Debug)]
pub struct ReadMfa;

impl Query for ReadMfa {
    type Action = permit::ReadOwnProfile;
    type Reply = MfaView;
    const BEFORE_ENROLMENT: bool = true;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<MfaView, TenantError> {
        let row = factors_of(cx, cx.person()?.user)?;
        Ok(MfaView {
            methods: row.enrolled(),
            recovery_codes_left: row.recovery.left(),
            required: is_required(cx),
        })
    }
}

#[cfg(test)]
mod tests;
