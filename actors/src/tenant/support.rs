//! Support sessions: somebody of the platform looks into a tenant, for a while and for a reason.
//!
//! It is the only way from the platform to what is inside a tenant, and it leads through the tenant: the session
//! is a row of the tenant's own, its people see it, approve or refuse it where they want to be asked, and end it;
//! each step and each use is in the tenant's own audit log before anything is shown. What it shows is in
//! `actors::permit`; forms with an access list stay closed. The platform's compartment keeps what was asked for,
//! in its own log too.
//!
//! Whether who asked still runs the platform no tenant can know: the edge asks the platform's compartment for each use
//! ([`IsPlatformAdmin`](crate::tenant::platform::admins::IsPlatformAdmin)).
//!
//! Refuses: a session that waits, was refused, was ended or has run out, and any other administrator than the one
//! who asked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{Id, SupportId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::Named;
use crate::call::Document;
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{Capability, Principal, Role, Scopes, SupportPrincipal};
use crate::tenant::cx::{Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::forms::lists::{Step, walk};
use crate::tenant::forms::to_json;
use crate::tenant::mail::{About, SupportNotice};
use crate::tenant::people::UserRow;
use crate::tenant::recovery::notify;

pub mod asking;
pub mod deciding;
pub mod using;

/// How far a support session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SupportState {
    /// Somebody of the tenant has to approve it.
    Waiting,
    /// It can be used.
    Open,
    /// Somebody of the tenant refused it.
    Denied,
    /// Somebody ended it.
    Ended,
    /// Its time is over, or nobody decided on it within a day.
    Expired,
}

impl SupportState {
    /// Its name in answers and the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Open => "open",
            Self::Denied => "denied",
            Self::Ended => "ended",
            Self::Expired => "expired",
        }
    }
}

/// What somebody of the platform asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Which session.
    pub id: SupportId,
    /// Who asks, in the platform's own compartment.
    pub admin: UserId,
    /// Their address.
    pub email: String,
    /// Why.
    pub reason: String,
    /// The case it is about, as the platform's desk names it.
    pub ticket: String,
    /// For how long, from when it opens.
    pub minutes: u32,
    /// What it may change beside what every session shows, by name.
    pub scopes: Vec<String>,
    /// When it was asked for, Unix milliseconds.
    pub asked_ms: u64,
}

/// A session's row in its tenant.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SupportRow {
    asked: Asked,
    /// As it was left; what time does to it, [`SupportRow::state`] says.
    state: SupportState,
    /// Who of the tenant decided on it or ended it.
    decided_by: Option<UserId>,
    decided_ms: Option<u64>,
    /// When it ends, Unix milliseconds; absent until it opens.
    expires_ms: Option<u64>,
    /// How many tokens were made; only the newest is good.
    tokens: u32,
    /// Of the newest token; see [`crate::tenant::api_keys::text`].
    digest: Option<ByteBuf>,
    version: u64,
}

/// A support session, as the tenant's people see it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct SupportView {
    /// Which session; names it in the audit log.
    #[schemars(with = "String")]
    pub id: SupportId,
    /// How far it is.
    pub state: SupportState,
    /// Who of the platform asks: their address there.
    pub asked_by: String,
    /// Why.
    pub reason: String,
    /// The case it is about.
    pub ticket: String,
    /// For how long, from when it opens.
    pub minutes: u32,
    /// What it shows, and what it may change.
    pub scopes: Vec<String>,
    /// When it was asked for, RFC 3339 UTC.
    pub asked_at: String,
    /// Who of the tenant decided on it or ended it; null if nobody did.
    #[schemars(with = "Option<String>")]
    pub decided_by: Option<UserId>,
    /// When they did, RFC 3339 UTC.
    pub decided_at: Option<String>,
    /// When it ends, RFC 3339 UTC; null until it opens.
    pub expires_at: Option<String>,
    /// Counts changes; the same number as the `ETag`.
    pub version: u64,
}

fn key(id: SupportId) -> Key {
    Key::Support { id }
}

fn all() -> Prefix {
    Prefix::kind(&key(SupportId::from_bytes([0; 16])))
}

fn named(asked: &Asked) -> Named {
    Named { email: Some(asked.email.clone()), ..Named::new("support", asked.id) }
}

impl SupportRow {
    fn state(&self, now_ms: u64) -> SupportState {
        let ends_ms = match self.state {
            SupportState::Waiting => self.asked.asked_ms.saturating_add(limits::SUPPORT_WAIT_MS),
            SupportState::Open => self.expires_ms.unwrap_or(0),
            _ => u64::MAX,
        };
        if now_ms >= ends_ms { SupportState::Expired } else { self.state }
    }

    fn is_living(&self, now_ms: u64) -> bool {
        matches!(self.state(now_ms), SupportState::Waiting | SupportState::Open)
    }

    /// Opens it, for as long as was asked for.
    fn open(&mut self, now_ms: u64) {
        self.state = SupportState::Open;
        self.expires_ms = Some(now_ms.saturating_add(u64::from(self.asked.minutes) * 60_000));
    }

    fn scopes(&self) -> Scopes {
        let extra = self.asked.scopes.iter().filter_map(|name| Scopes::named(name));
        let extra = extra.fold(Scopes::NONE, Scopes::with) & Scopes::with_consent();
        Scopes::of_support().with(extra)
    }

    /// As whom it speaks now, if it does.
    fn principal(&self, now_ms: u64) -> Option<SupportPrincipal> {
        (self.state(now_ms) == SupportState::Open).then(|| SupportPrincipal {
            session: self.asked.id,
            admin: self.asked.admin,
            email: self.asked.email.as_str().into(),
            scopes: self.scopes(),
            token: self.tokens,
        })
    }

    fn view(&self, now_ms: u64) -> SupportView {
        let Asked { id, email, reason, ticket, minutes, asked_ms, .. } = self.asked.clone();
        SupportView {
            id,
            state: self.state(now_ms),
            asked_by: email,
            reason,
            ticket,
            minutes,
            scopes: self.scopes().names().map(str::to_owned).collect(),
            asked_at: rfc3339(asked_ms),
            decided_by: self.decided_by,
            decided_at: self.decided_ms.map(rfc3339),
            expires_at: self.expires_ms.map(rfc3339),
            version: self.version,
        }
    }

    fn document(&self, now_ms: u64) -> Document {
        Document { version: self.version, json: to_json(&self.view(now_ms)) }
    }
}

/// What there is to tell of a session; nothing once it is over.
pub(crate) fn notice(
    cx: &impl Reads,
    session: SupportId,
) -> Result<Option<SupportNotice>, TenantError> {
    let row: Option<SupportRow> = cx.row(&key(session))?;
    let now_ms = cx.now_ms();
    Ok(row.filter(|row| row.is_living(now_ms)).map(|row| SupportNotice {
        is_waiting: row.state(now_ms) == SupportState::Waiting,
        by: row.asked.email,
        reason: row.asked.reason,
        ticket: row.asked.ticket,
        minutes: row.asked.minutes,
    }))
}

/// Mails owners and administrators that somebody asks to look into the tenant, or may: a few of them, so that
/// a large tenant is not flooded.
fn tell(cx: &mut Cx<'_, '_>, session: SupportId) -> Result<(), TenantError> {
    let all = Prefix::kind(&Key::User { id: UserId::from_bytes([0; 16]) });
    let mut told = Vec::new();
    walk(cx, Scan { limit: usize::MAX, ..Scan::all(all) }, |_, bytes| {
        let user: UserRow = value::decode(bytes)?;
        if user.role >= Role::Admin && !user.deactivated {
            told.push(user);
        }
        Ok(if told.len() < limits::SUPPORT_TOLD_MAX { Step::Next } else { Step::Stop })
    })?;
    told.iter().try_for_each(|user| notify(cx, user, About::Support(session)))
}

/// As whom a support session asks for `capability` now, whatever was known of it where the message came from.
///
/// # Errors
/// [`TenantError::StaleCredential`] if it is not open any more or has a newer token, [`TenantError::Forbidden`] if it does not show
/// that.
pub(crate) fn current<R: Reads>(
    cx: &R,
    carried: &SupportPrincipal,
    capability: &Capability,
) -> Result<Principal, TenantError> {
    let row: Option<SupportRow> = cx.row(&key(carried.session))?;
    let now = row.and_then(|row| row.principal(cx.now_ms()));
    let now = now.filter(|now| now.token == carried.token);
    let now = now.ok_or(TenantError::StaleCredential)?;
    // What no role has, the node asks itself in their name, such as to record a use.
    if !capability.roles.is_empty() && !now.scopes.contains(capability) {
        return Err(TenantError::Forbidden { action: capability.name });
    }
    Ok(Principal::Support(Arc::new(now)))
}

#[cfg(test)]
mod tests;
