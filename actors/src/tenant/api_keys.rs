//! API keys: credentials for programs, with a part of their creator's rights and an end.
//!
//! A key's text is shown once, in the answer that made it. What rests here is a digest under the tenant's
//! own key; to show a text again, or to guess one from a copy of the row, is not possible. Whoever uses a
//! key is resolved for every message from what is here now: its scopes, its end, and the present role of
//! whoever made it. So a key that was narrowed, has ended, or whose creator lost a right loses it with
//! the next message, and nothing that was remembered elsewhere makes up for it.
//!
//! Refuses: a key without an end, and a key for what its creator may not do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{ApiKeyId, Id, UserId};
use storage::keys::{Key, Prefix};

use crate::audit::entry::Named;
use crate::call::Document;
use crate::env::rfc3339;
use crate::permit::{Capability, Principal, Role, Scopes, ServicePrincipal};
use crate::tenant::cache::KeyStanding;
use crate::tenant::cx::Reads;
use crate::tenant::error::TenantError;
use crate::tenant::forms::to_json;
use crate::tenant::job::DAY_MS;
use crate::tenant::people::UserRow;

pub mod commands;
pub mod queries;
pub mod text;

/// An API key, as it is shown.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ApiKeyView {
    /// Which key; names it in the audit log.
    #[schemars(with = "String")]
    pub id: ApiKeyId,
    /// What people call it.
    pub name: String,
    /// What people become whom it provisions over SCIM without naming a role.
    pub provisions_as: Role,
    /// The capabilities it was given. In force are those that its creator's role still has.
    pub scopes: Vec<String>,
    /// Who made it.
    #[schemars(with = "String")]
    pub created_by: UserId,
    /// When it was made, RFC 3339 UTC.
    pub created_at: String,
    /// When it last changed, RFC 3339 UTC.
    pub updated_at: String,
    /// When it ends, RFC 3339 UTC.
    pub expires_at: String,
    /// The last day it was used on, UTC, such as `2031-05-17`.
    pub last_used_on: Option<String>,
    /// Counts changes, a new day of use among them; the same number as the `ETag`.
    pub version: u64,
}

/// An API key with its text, which is shown this one time.
#[derive(Serialize, schemars::JsonSchema)]
pub struct ApiKeyWithText {
    /// The key.
    #[serde(flatten)]
    pub api_key: ApiKeyView,
    /// What goes into the `Authorization` header, behind `Bearer`.
    pub key: String,
}

/// The stored row.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiKeyRow {
    id: ApiKeyId,
    name: String,
    /// Of the text; see [`text`].
    digest: ByteBuf,
    /// By name: a release may know other capabilities than the one before.
    scopes: Vec<String>,
    created_by: UserId,
    created_ms: u64,
    updated_ms: u64,
    expires_ms: u64,
    /// The last day it was used on, since 1970.
    used_day: Option<u32>,
    version: u64,
    /// What people become whom it provisions without naming a role; nothing means members.
    #[serde(default)]
    provisions_as: Option<Role>,
}

impl ApiKeyRow {
    fn key(id: ApiKeyId) -> Key {
        Key::ApiKey { id }
    }

    fn all() -> Prefix {
        Prefix::kind(&Self::key(ApiKeyId::from_bytes([0; 16])))
    }

    fn named(&self) -> Named {
        Named::new("api-key", self.id)
    }

    fn view(&self) -> ApiKeyView {
        let day = |day: u32| rfc3339(u64::from(day).saturating_mul(DAY_MS))[..10].to_owned();
        ApiKeyView {
            id: self.id,
            name: self.name.clone(),
            provisions_as: self.provisions_as.unwrap_or(Role::Member),
            scopes: self.scopes.clone(),
            created_by: self.created_by,
            created_at: rfc3339(self.created_ms),
            updated_at: rfc3339(self.updated_ms),
            expires_at: rfc3339(self.expires_ms),
            last_used_on: self.used_day.map(day),
            version: self.version,
        }
    }

    fn document(&self) -> Document {
        Document { version: self.version, json: to_json(&self.view()) }
    }

    /// What it was given, as far as this release knows it.
    fn given(&self) -> Scopes {
        let known = self.scopes.iter().filter_map(|name| Scopes::named(name));
        known.fold(Scopes::NONE, Scopes::with)
    }

    /// As whom it asks now; nobody once it has ended, or its creator is gone or deactivated.
    fn principal<R: Reads>(&self, cx: &R) -> Result<Option<ServicePrincipal>, TenantError> {
        if self.expires_ms <= cx.now_ms() {
            return Ok(None);
        }
        let creator: Option<UserRow> = cx.row(&Key::User { id: self.created_by })?;
        let creator = creator.filter(|creator| !creator.deactivated);
        Ok(creator.map(|creator| ServicePrincipal {
            key: self.id,
            user: creator.id,
            role: creator.role,
            scopes: self.given() & Scopes::of_role(creator.role),
        }))
    }

    /// Whether it is the asker's to see and to change: their own, or any for who runs the tenant.
    fn is_visible<R: Reads>(&self, cx: &R) -> Result<bool, TenantError> {
        let person = cx.person()?;
        Ok(person.user == self.created_by || matches!(person.role, Role::Owner | Role::Admin))
    }
}

/// The row of a key that is the asker's to see. Others' look absent.
fn visible<R: Reads>(cx: &R, id: ApiKeyId) -> Result<ApiKeyRow, TenantError> {
    let row: ApiKeyRow = cx.need(&ApiKeyRow::key(id))?;
    if row.is_visible(cx)? { Ok(row) } else { Err(TenantError::NotFound) }
}

/// What people become whom a key provisions without naming a role.
pub(crate) fn provisioned_role(cx: &impl Reads, id: ApiKeyId) -> Result<Role, TenantError> {
    let row: Option<ApiKeyRow> = cx.row(&ApiKeyRow::key(id))?;
    Ok(row.and_then(|row| row.provisions_as).unwrap_or(Role::Member))
}

/// As whom a key asks for `capability` now, whatever was known of it where the message came from.
///
/// # Errors
/// [`TenantError::StaleCredential`] if it was revoked, has ended, or its creator is gone;
/// [`TenantError::Forbidden`] if the capability is not among its scopes any more.
pub(crate) fn current<R: Reads>(
    cx: &mut R,
    carried: &ServicePrincipal,
    capability: &Capability,
    may_use_cache: bool,
) -> Result<Principal, TenantError> {
    let id = carried.key;
    let kept = may_use_cache.then(|| cx.caches().keys.get(&id).cloned()).flatten();
    let standing = match kept {
        Some(standing) => standing,
        None => {
            let row: Option<ApiKeyRow> = cx.row(&ApiKeyRow::key(id))?;
            let row = row.ok_or(TenantError::StaleCredential)?;
            let principal = row.principal(cx)?.ok_or(TenantError::StaleCredential)?;
            let principal = Arc::new(principal);
            let standing = KeyStanding { principal, expires_ms: row.expires_ms };
            if may_use_cache {
                cx.caches().keys.insert(id, standing.clone());
            }
            standing
        }
    };
    if cx.now_ms() >= standing.expires_ms {
        return Err(TenantError::StaleCredential);
    }
    // What no role has no scope gives either: the node asks it itself, such as to record a refusal.
    if !capability.roles.is_empty() && !standing.principal.scopes.contains(capability) {
        return Err(TenantError::Forbidden { action: capability.name });
    }
    Ok(Principal::Service(standing.principal))
}

#[cfg(test)]
mod tests;
