//! What a mailed link is for, told to whoever presents it: a page shows it before anybody decides.
//!
//! Nothing is used up by it. Refuses, all with the same answer: every link that would not be taken.

use schemars::JsonSchema;
use serde::Serialize;

use crate::env::rfc3339;
use crate::permit::{self, Role};
use crate::tenant::cx::{Query, ReadCx, Reads as _};
use crate::tenant::error::TenantError;
use crate::tenant::invites;
use crate::tenant::tickets::{self, MailedToken, Purpose};

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Makes one a member.
    Invite,
    /// Sets a new password.
    Reset,
    /// Proves an address.
    Verify,
}

impl From<Purpose> for LinkKind {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Invite => Self::Invite,
            Purpose::Reset => Self::Reset,
            Purpose::Verify => Self::Verify,
        }
    }
}

/// Whose a link is: what people need to know to sign in there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LinkTenant {
    /// The short name, which sign-in asks for.
    pub slug: String,
    /// The name people see.
    pub name: String,
}

/// What a link is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LinkView {
    /// What it does.
    pub kind: LinkKind,
    /// Whose it is.
    pub tenant: LinkTenant,
    /// As what one is invited; null for other links.
    pub role: Option<Role>,
    /// When it ends, RFC 3339 UTC.
    pub expires_at: String,
}

/// Reads what a link is for.
#[derive(Debug)]
pub struct ReadLink {
    /// What was presented.
    pub token: MailedToken,
}

impl Query for ReadLink {
    type Action = permit::SignIn;
    type Reply = LinkView;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<LinkView, TenantError> {
        let (token, keys) = (&self.token, cx.keys());
        let purpose = token.purpose().ok_or(TenantError::BadLink)?;
        let (role, expires_ms) = match purpose {
            Purpose::Invite => {
                let invite = invites::find(cx, keys, token)?;
                (Some(invite.role), invite.expires_ms)
            }
            Purpose::Reset | Purpose::Verify => {
                (None, tickets::find(cx, keys, token, purpose)?.0.expires_ms)
            }
        };
        let profile = cx.state().profile.as_deref().ok_or(TenantError::BadLink)?;
        Ok(LinkView {
            kind: purpose.into(),
            tenant: LinkTenant { slug: profile.slug.clone(), name: profile.name.clone() },
            role,
            expires_at: rfc3339(expires_ms),
        })
    }
}
