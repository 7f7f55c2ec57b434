//! What people do with their own identities: link one, look at them, remove one. Nothing here can name
//! anybody else's.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{IdentityId, IdentityProviderId, SessionId, UserId};
use storage::keys::Key;

use super::providers::{ProviderRow, unchanged};
use super::sign_in::check_domain;
use super::{IdentityRow, Subject, Vouched, identities_of, link, subject_key};
use crate::audit::entry::{Draft, Named};
use crate::call::Page;
use crate::env::rfc3339;
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::mail::Change;
use crate::tenant::people::{SessionRow, UserRow};
use crate::tenant::recovery::notify_of;

/// An identity, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct IdentityView {
    /// Which.
    #[schemars(with = "String")]
    pub id: IdentityId,
    /// The name of the provider that vouches for it; null if there is none any more.
    pub provider: Option<String>,
    /// Who signs for it.
    pub issuer: String,
    /// What the issuer calls one.
    pub subject: String,
    /// The address the issuer named when it was linked.
    pub email: Option<String>,
    /// When it was linked, RFC 3339 UTC.
    pub linked_at: String,
    /// When one last signed in with it, RFC 3339 UTC.
    pub last_used_at: String,
}

impl IdentityRow {
    fn named(&self) -> Named {
        Named::new("identity", self.id)
    }

    fn view(&self, cx: &impl Reads) -> Result<IdentityView, TenantError> {
        let provider: Option<ProviderRow> = cx.row(&Key::IdentityProvider { id: self.provider })?;
        Ok(IdentityView {
            id: self.id,
            provider: provider.map(|provider| provider.provider_name().to_owned()),
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            email: self.email.clone(),
            linked_at: rfc3339(self.created_ms),
            last_used_at: rfc3339(self.used_ms),
        })
    }

    fn json(&self, cx: &impl Reads) -> Result<ByteBuf, TenantError> {
        let json = serde_json::to_vec(&self.view(cx)?).expect("a view holds only texts");
        Ok(ByteBuf::from(json))
    }
}

/// Lists one's own identities, oldest first; all on one page.
#[derive(Debug)]
pub struct ListIdentities;

impl Query for ListIdentities {
    type Action = permit::ReadOwnProfile;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let rows = identities_of(cx, cx.person()?.user)?;
        let items = rows.iter().map(|row| row.json(cx)).collect::<Result<_, _>>()?;
        Ok(Page { items, next: None })
    }
}

/// Links what a provider vouches for to somebody.
fn attach(
    cx: &mut Cx<'_, '_>,
    user: UserId,
    provider: (IdentityProviderId, u64),
    vouched: &Vouched,
) -> Result<IdentityRow, TenantError> {
    let user: UserRow = cx.row(&Key::User { id: user })?.ok_or(TenantError::StaleCredential)?;
    let provider = unchanged(cx, provider.0, provider.1)?.ok_or(TenantError::BadCredentials)?;
    if user.role > provider.standing(cx)?.up_to {
        return Err(TenantError::Forbidden { action: "identity-providers:role-above-own" });
    }
    if check_domain(&provider, vouched).is_err() {
        return Err(TenantError::Forbidden { action: "identity-providers:domain" });
    }
    let key = subject_key(cx, provider.id(), &vouched.issuer, &vouched.subject);
    if let Some(Subject::Of(owner, identity)) = cx.row(&key)? {
        let row: Option<IdentityRow> = cx.row(&Key::Identity { user: owner, id: identity })?;
        let is_there = cx.bytes(&Key::User { id: owner })?.is_some();
        match row {
            Some(row) if owner == user.id => return Ok(row),
            Some(_) if is_there => return Err(TenantError::Conflict(Conflict::IdentityTaken)),
            _ => {}
        }
    }
    if identities_of(cx, user.id)?.len() >= limits::IDENTITIES_MAX {
        return Err(TenantError::Conflict(Conflict::TooManyIdentities));
    }
    let row = link(cx, user.id, provider.id(), vouched)?;
    let draft = Draft::success(LinkIdentity::NAME, row.named())
        .with("provider", provider.provider_name().to_owned());
    cx.audit_as(user.named(), draft);
    notify_of(cx, &user, Change::IdentityLinked)?;
    Ok(row)
}

/// Links an identity to oneself, with a token of the provider in hand.
pub struct LinkIdentity {
    /// The provider.
    pub provider: IdentityProviderId,
    /// As it was when its word was verified.
    pub provider_version: u64,
    /// Whom it vouches for.
    pub vouched: Vouched,
}

impl Command for LinkIdentity {
    type Action = permit::WriteOwnSessions;
    type Reply = IdentityView;
    const NAME: &'static str = "identity.link";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("identity-provider", self.provider)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<IdentityView, TenantError> {
        let user = cx.person()?.user;
        let row = attach(cx, user, (self.provider, self.provider_version), &self.vouched)?;
        row.view(cx)
    }
}

/// Links an identity to whoever began to, as they come back from the provider. What they came back with was
/// bound to the browser they asked in; the session they asked in must not have ended since.
pub struct EndLinking {
    /// For whom, in which session.
    pub linking: (UserId, SessionId),
    /// The provider.
    pub provider: IdentityProviderId,
    /// As it was when its word was verified.
    pub provider_version: u64,
    /// Whom it vouches for.
    pub vouched: Vouched,
}

impl Command for EndLinking {
    type Action = permit::SignIn;
    type Reply = ();
    const NAME: &'static str = "identity.link";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("identity-provider", self.provider)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let (user, session) = self.linking;
        let session: Option<SessionRow> = cx.row(&Key::Session { user, id: session })?;
        if session.is_none_or(|session| session.expires_ms <= cx.now_ms()) {
            return Err(TenantError::BadCredentials);
        }
        attach(cx, user, (self.provider, self.provider_version), &self.vouched)?;
        Ok(())
    }
}

/// Removes one of one's own identities, unless one could not sign in any more.
#[derive(Debug)]
pub struct UnlinkIdentity {
    /// Which.
    pub identity: IdentityId,
}

impl Command for UnlinkIdentity {
    type Action = permit::WriteOwnSessions;
    type Reply = ();
    const NAME: &'static str = "identity.unlink";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("identity", self.identity)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let person = cx.person()?;
        // The key names the asker, so another person's identity is simply not there.
        let row: IdentityRow = cx.need(&Key::Identity { user: person.user, id: self.identity })?;
        let user: UserRow = cx.need(&Key::User { id: person.user })?;
        if user.password.is_none() && identities_of(cx, user.id)?.len() <= 1 {
            return Err(TenantError::Conflict(Conflict::LastWayIn));
        }
        let subject = row.subject_key(cx);
        cx.delete(&row.key())?;
        if matches!(cx.row(&subject)?, Some(Subject::Of(_, id)) if id == row.id) {
            cx.delete(&subject)?;
        }
        cx.audit(Draft::success(Self::NAME, row.named()));
        notify_of(cx, &user, Change::IdentityUnlinked)
    }
}
