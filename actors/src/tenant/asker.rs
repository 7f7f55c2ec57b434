//! Who asks, as of now: the one place where a credential that was good once is found good still.
//!
//! A credential was proven where the message came from, maybe a while ago. What it stands for is looked at
//! again for every message: a session that ended, a role that changed, a key that was revoked count from
//! the next message on (ASVS 5.0, 8.3.2).
//!
//! Refuses: sessions and keys that ended, access tokens whose person's rights have changed since, and
//! whoever still has to enrol the second factor that everybody needs.

use std::sync::Arc;

use storage::keys::Key;

use crate::permit::{Capability, Carrier, Principal, UserPrincipal};
use crate::tenant::api_keys;
use crate::tenant::cache::Standing;
use crate::tenant::cx::Reads;
use crate::tenant::error::TenantError;
use crate::tenant::factors;
use crate::tenant::people::{SessionRow, UserRow};
use crate::tenant::support;

/// What is asked for, as far as it decides who may ask.
pub(crate) struct Asked {
    /// The capability it takes.
    pub capability: &'static Capability,
    /// Whether a session without a second factor may ask it where everybody needs one.
    pub before_enrolment: bool,
}

/// As whom `principal` asks now; nothing if that is as whom it came.
///
/// # Errors
/// [`TenantError::StaleCredential`] if it does not stand any more, [`TenantError::Forbidden`] if it lost
/// the right, [`TenantError::EnrolmentRequired`].
pub(crate) fn current<R: Reads>(
    cx: &mut R,
    principal: &Principal,
    asked: &Asked,
    may_use_cache: bool,
) -> Result<Option<Principal>, TenantError> {
    match principal {
        Principal::User(user) => person(cx, user, asked, may_use_cache),
        Principal::Service(service) => {
            api_keys::current(cx, service, asked.capability, may_use_cache).map(Some)
        }
        Principal::Support(session) => support::current(cx, session, asked.capability).map(Some),
        Principal::Anonymous | Principal::Sender | Principal::System(_) => Ok(None),
    }
}

/// A token speaks for its person only with the rights it names; a cookie with those of now. Where everybody
/// needs a second factor, the session has to have seen one: the policy of now is what counts.
fn person<R: Reads>(
    cx: &mut R,
    user: &UserPrincipal,
    asked: &Asked,
    may_use_cache: bool,
) -> Result<Option<Principal>, TenantError> {
    let standing = standing(cx, user, may_use_cache)?;
    if cx.now_ms() >= standing.expires_ms {
        return Err(TenantError::StaleCredential);
    }
    let is_unchanged = standing.authz == user.authz;
    let is_good = match user.carrier {
        Carrier::Token => is_unchanged,
        Carrier::Cookie(epoch) => epoch == standing.cookie,
    };
    if !is_good {
        return Err(TenantError::StaleCredential);
    }
    if !(standing.has_second_factor || asked.before_enrolment) && factors::is_required(cx) {
        return Err(TenantError::EnrolmentRequired);
    }
    if is_unchanged {
        return Ok(None);
    }
    // What no role has, the node asks itself in their name, such as to record a refusal.
    if !asked.capability.roles.is_empty() && !asked.capability.roles.contains(standing.role) {
        return Err(TenantError::Forbidden { action: asked.capability.name });
    }
    let now = UserPrincipal { role: standing.role, authz: standing.authz, ..user.clone() };
    Ok(Some(Principal::User(Arc::new(now))))
}

fn standing<R: Reads>(
    cx: &mut R,
    user: &UserPrincipal,
    may_use_cache: bool,
) -> Result<Standing, TenantError> {
    let id = (user.user, user.session);
    let kept = may_use_cache.then(|| cx.caches().standings.get(&id).copied()).flatten();
    if let Some(standing) = kept {
        return Ok(standing);
    }
    let session: Option<SessionRow> =
        cx.row(&Key::Session { user: user.user, id: user.session })?;
    let row: Option<UserRow> = cx.row(&Key::User { id: user.user })?;
    let (Some(session), Some(row)) = (session, row.filter(|row| !row.deactivated)) else {
        return Err(TenantError::StaleCredential);
    };
    let standing = Standing {
        role: row.role,
        authz: row.authz,
        cookie: session.cookie,
        expires_ms: session.expires_ms,
        has_second_factor: factors::has_proven_one(cx, &session)?,
    };
    if may_use_cache {
        cx.caches().standings.insert(id, standing);
    }
    Ok(standing)
}
