//! Who the tenant is: its names, its plan, its region. Only the tenant's own people see it here; the
//! platform's list of tenants is another file's. It never changes the plan or the short name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::TenantId;

use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{self, Role};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{FieldError, TenantError};
use crate::tenant::state::Profile;

/// Short names no tenant can have: they are, or may become, host names of the service itself.
pub const SLUGS_RESERVED: [&str; 7] =
    ["platform", "www", "api", "admin", "console", "app", "static"];

/// The tenant, as its people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TenantView {
    /// Which tenant.
    #[schemars(with = "String")]
    pub id: TenantId,
    /// The short name in URLs and at sign-in.
    pub slug: String,
    /// The name people see.
    pub name: String,
    /// The plan's name.
    pub plan: String,
    /// Where the tenant's data is.
    pub region: String,
    /// When the tenant was made, RFC 3339 UTC.
    pub created_at: String,
    /// When the trial ends, RFC 3339 UTC; null without a trial.
    pub trial_ends_at: Option<String>,
    /// Whether everybody needs a second factor.
    #[serde(default)]
    pub mfa_required: bool,
    /// Whether somebody of the tenant has to approve each support session.
    #[serde(default)]
    pub support_approval: bool,
}

impl TenantView {
    /// The view of a profile.
    pub fn new(id: TenantId, profile: &Profile) -> Self {
        Self {
            id,
            slug: profile.slug.clone(),
            name: profile.name.clone(),
            plan: profile.plan.clone(),
            region: profile.region.clone(),
            created_at: rfc3339(profile.created_ms),
            trial_ends_at: profile.trial_ends_ms.map(rfc3339),
            mfa_required: profile.mfa_required || id == TenantId::PLATFORM,
            support_approval: profile.support_approval,
        }
    }
    /// The view of the tenant that is asked.
    pub(crate) fn of(cx: &impl Reads) -> Result<Self, TenantError> {
        Ok(Self::new(cx.tenant(), profile(cx)?))
    }
}

fn profile(cx: &impl Reads) -> Result<&Profile, TenantError> {
    cx.state().profile.as_deref().ok_or(TenantError::NotFound)
}

fn document(cx: &impl Reads) -> Result<Document, TenantError> {
    let json = serde_json::to_vec(&TenantView::of(cx)?).expect("a view holds only texts");
    Ok(Document { version: profile(cx)?.version, json: ByteBuf::from(json) })
}

/// Whether `slug` can be a tenant's short name: 3 to 40 of `a-z`, `0-9` and single inner hyphens,
/// not one of [`SLUGS_RESERVED`]. That it is free is checked where it is taken.
///
/// # Errors
/// What is wrong, at `pointer`.
pub fn check_slug(pointer: &str, slug: &str) -> Result<(), FieldError> {
    let wrong = |message: &str| {
        Err(FieldError { pointer: pointer.to_owned(), message: message.to_owned() })
    };
    if !(3..=40).contains(&slug.len()) {
        return wrong("must have 3 to 40 characters");
    }
    if !slug.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return wrong("may hold only the letters a to z, digits and hyphens");
    }
    if slug.starts_with('-') || slug.ends_with('-') || slug.contains("--") {
        return wrong("may have hyphens only one at a time and inside");
    }
    if SLUGS_RESERVED.contains(&slug) {
        return wrong("is reserved");
    }
    Ok(())
}

/// Whether `name` can be a tenant's name for people: not blank, no control characters, within
/// [`limits::TEXT_BYTES_MAX`].
///
/// # Errors
/// What is wrong, at `pointer`.
pub fn check_name(pointer: &str, name: &str) -> Result<(), FieldError> {
    let wrong = |message: String| Err(FieldError { pointer: pointer.to_owned(), message });
    if name.trim().is_empty() {
        return wrong("must not be blank".to_owned());
    }
    if name.len() > limits::TEXT_BYTES_MAX {
        return wrong(format!("must have at most {} bytes", limits::TEXT_BYTES_MAX));
    }
    if name.chars().any(char::is_control) {
        return wrong("must not hold control characters".to_owned());
    }
    Ok(())
}

/// Reads the tenant's profile.
#[derive(Debug)]
pub struct ReadProfile;

impl Query for ReadProfile {
    type Action = permit::ReadTenant;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        document(cx)
    }
}

/// Changes the tenant's name, whether everybody needs a second factor, and whether support sessions have to be
/// approved. Administrators only switch these on; the rest is the owners'.
#[derive(Debug, Default)]
pub struct UpdateProfile {
    /// The new name; absent: unchanged.
    pub name: Option<String>,
    /// Whether everybody needs a second factor, from the next message on; absent: unchanged.
    pub mfa_required: Option<bool>,
    /// Whether somebody of the tenant has to approve each support session that is asked for from now on;
    /// absent: unchanged.
    pub support_approval: Option<bool>,
    /// The version the caller saw.
    pub if_match: Option<u64>,
}

impl Command for UpdateProfile {
    type Action = permit::UpdateTenant;
    type Reply = Document;
    const NAME: &'static str = "tenant.update";

    fn target(&self) -> Named {
        Named::new("tenant", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let mut changed = profile(cx)?.clone();
        if self.if_match.is_some_and(|version| version != changed.version) {
            return Err(TenantError::VersionMismatch);
        }
        let name = self.name.filter(|name| *name != changed.name);
        let policy = self.mfa_required.filter(|required| *required != changed.mfa_required);
        let approval = self.support_approval.filter(|asked| *asked != changed.support_approval);
        if cx.role() < Role::Owner {
            if name.is_some() {
                return Err(TenantError::Forbidden { action: "tenant:rename" });
            }
            if policy == Some(false) {
                return Err(TenantError::Forbidden { action: "tenant:mfa-off" });
            }
            if approval == Some(false) {
                return Err(TenantError::Forbidden { action: "tenant:support-approval-off" });
            }
        }
        if name.is_none() && policy.is_none() && approval.is_none() {
            return document(cx);
        }
        let target = Named::new("tenant", cx.tenant());
        if let Some(name) = name {
            check_name("/name", &name).map_err(|error| TenantError::Invalid(vec![error]))?;
            let draft = Draft::success(Self::NAME, target.clone());
            cx.audit(draft.with("from", changed.name.as_str()).with("to", name.as_str()));
            changed.name = name;
        }
        if let Some(required) = policy {
            cx.audit(Draft::success("tenant.mfa_policy", target).with("required", required));
            changed.mfa_required = required;
        }
        if let Some(required) = approval {
            let target = Named::new("tenant", cx.tenant());
            cx.audit(Draft::success("tenant.support_policy", target).with("required", required));
            changed.support_approval = required;
        }
        changed.version += 1;
        cx.state_mut().profile = Some(Arc::new(changed));
        document(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_that_would_be_host_names_or_ambiguous_are_refused() {
        for slug in
            ["ab", "Acme", "-acme", "acme-", "a--b", "ac me", "ac.me", "platform", "www", "ä123"]
        {
            assert!(check_slug("/tenant/slug", slug).is_err(), "{slug}");
        }
        assert!(check_slug("/tenant/slug", &"a".repeat(41)).is_err());
        for slug in ["abc", "acme-2", "0-0", "platforms"] {
            assert_eq!(check_slug("/tenant/slug", slug), Ok(()), "{slug}");
        }
    }

    #[test]
    fn blank_and_unprintable_names_are_refused() {
        for name in ["", "  ", "a\0b", "a\nb"] {
            assert!(check_name("/name", name).is_err(), "{name:?}");
        }
        assert_eq!(check_name("/name", "Ægir & Söhne"), Ok(()));
    }
}
