//! Second factors: what a person has besides a password, and what is left of it.
//!
//! One row per person holds the secret of their authenticator, the digests of their recovery codes and
//! the sign-ins that wait for either. A time step of the authenticator and a recovery code are good once.
//! Nothing of the row is ever shown but what [`MfaView`] says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::id::{TenantId, UserId};
use storage::keys::Key;

use crate::audit::entry::Draft;
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::people::{Proof, SessionRow, UserRow};

pub mod own;
mod recovery;
pub mod reset;
pub mod totp;

use recovery::RecoveryCodes;

/// Longest code that is looked at, in bytes, hyphens and spaces included.
const CODE_BYTES_MAX: usize = 64;

/// A kind of second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// An authenticator that shows codes of the time (RFC 6238).
    Totp,
    /// A recovery code.
    RecoveryCode,
}

impl Method {
    /// Its name in the audit log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::RecoveryCode => "recovery_code",
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
    Ok(session.amr.contains(&Proof::OneTimeCode) && factors_of(cx, session.user)?.is_enrolled())
}

impl FactorsRow {
    /// Whether signing in takes a second factor.
    pub(crate) fn is_enrolled(&self) -> bool {
        self.totp.is_some()
    }

    /// What a sign-in may be completed with.
    pub(crate) fn methods(&self) -> Vec<Method> {
        let mut methods = Vec::new();
        if self.totp.is_some() {
            methods.push(Method::Totp);
        }
        if self.recovery.left() > 0 {
            methods.push(Method::RecoveryCode);
        }
        methods
    }

    /// Begins to wait for the second factor of a sign-in, in the place of the oldest if too many wait.
    pub(crate) fn challenge(&mut self, id: [u8; 16], now_ms: u64) {
        self.challenges.retain(|challenge| challenge.expires_ms > now_ms);
        let too_many = (self.challenges.len() + 1).saturating_sub(limits::CHALLENGES_MAX);
        self.challenges.drain(..too_many);
        let expires_ms = now_ms.saturating_add(limits::CHALLENGE_MS);
        self.challenges.push(Challenge { id, expires_ms, wrong: 0 });
    }

    /// Whether a sign-in still waits.
    pub(crate) fn is_waiting(&self, id: &[u8; 16], now_ms: u64) -> bool {
        self.challenges.iter().any(|one| one.id == *id && one.expires_ms > now_ms)
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
        let totp = self.totp.as_mut()?;
        if code.len() > CODE_BYTES_MAX {
            return None;
        }
        let is_letter = |c: &char| !c.is_whitespace() && *c != '-';
        let code: String = code.chars().filter(is_letter).collect();
        if code.len() == totp::DIGITS && code.bytes().all(|byte| byte.is_ascii_digit()) {
            if now_ms < self.paused_until_ms {
                return None;
            }
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

/// Uses a code of somebody, if it is good, and writes down the use of a recovery code. The row is changed
/// either way, and the caller's to store.
pub(crate) fn accept(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    row: &mut FactorsRow,
    code: &str,
) -> Option<Method> {
    let now_ms = cx.now_ms();
    let Some(method) = row.take(now_ms, code) else {
        row.note_wrong(now_ms);
        return None;
    };
    (row.wrong, row.paused_until_ms) = (0, 0);
    if method == Method::RecoveryCode {
        let draft = Draft::success("mfa.recovery_code", user.named());
        cx.audit_as(user.named(), draft.with("codes_left", row.recovery.left()));
    }
    Some(method)
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
            methods: row.totp.iter().map(|_| Method::Totp).collect(),
            recovery_codes_left: row.recovery.left(),
            required: is_required(cx),
        })
    }
}

#[cfg(test)]
mod tests;
