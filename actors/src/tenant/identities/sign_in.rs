//! Ends a sign-in by an identity provider: in a session, in a wait for the second factor, or in a refusal
//! with its reason.
//!
//! Who somebody is, the link says that (issuer, subject) has. Whoever has none is let in if they are invited at
//! the address that the provider saw to be theirs, or if the provider may let people in; and never into an
//! account that is there already. Refusals are answers and not errors, because that they came is kept.

use serde::{Deserialize, Serialize};
use storage::id::IdentityProviderId;
use storage::keys::Key;

use super::providers::{ProviderKind, ProviderRow, unchanged};
use super::{IdentityRow, Subject, Vouched, identities_of, link, subject_key};
use crate::audit::entry::{Draft, Named};
use crate::permit::{self, Role};
use crate::quota::Quota;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::factors::factors_of;
use crate::tenant::invites;
use crate::tenant::members::{find_by_email, insert_user};
use crate::tenant::people::{UserRow, normalise_email};
use crate::tenant::scim::person::ProvisionedRow;
use crate::tenant::sessions::OpenSession;
use crate::tenant::sessions::challenge::{SignedIn, sign_in_vouched};

/// Why somebody a provider vouches for is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unwanted {
    /// The provider changed, was switched off or is gone meanwhile.
    ProviderChanged,
    /// Somebody here has the address, and this identity is not linked to them.
    NotLinked,
    /// The address, or the organisation, is of no domain that the provider may let in from.
    Domain,
    /// The provider names no address, or none that can be one.
    NoEmail,
    /// The provider did not see that the address is theirs.
    EmailUnverified,
    /// They have to be invited.
    NotInvited,
    /// They were removed, and have to be invited.
    Removed,
    /// Their role is higher than the provider may vouch for.
    Role,
    /// Nobody new comes in: whoever said what is trusted of the provider could not say so any more.
    Unconfirmed,
    /// The plan has no room for another member.
    Full {
        /// How many it has room for.
        limit: u64,
    },
    /// The trial is over: nobody new comes in.
    TrialEnded,
}

impl Unwanted {
    /// Its name in answers and in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProviderChanged => "provider-changed",
            Self::NotLinked => "not-linked",
            Self::Domain => "domain",
            Self::NoEmail => "no-email",
            Self::EmailUnverified => "email-unverified",
            Self::NotInvited => "not-invited",
            Self::Removed => "removed",
            Self::Role => "role",
            Self::Unconfirmed => "provider-unconfirmed",
            Self::Full { .. } => "quota",
            Self::TrialEnded => "trial-ended",
        }
    }
}

/// What a provider's word comes to.
#[derive(Serialize, Deserialize)]
pub enum VouchedOutcome {
    /// A session, or a wait for the second factor.
    SignedIn(SignedIn),
    /// Nothing.
    Refused(Unwanted),
}

/// Signs in whoever a provider vouches for.
pub struct SignInVouched {
    /// Which provider.
    pub provider: IdentityProviderId,
    /// As it was when its word was verified.
    pub provider_version: u64,
    /// Whom for.
    pub vouched: Vouched,
}

impl Command for SignInVouched {
    type Action = permit::SignIn;
    type Reply = VouchedOutcome;
    const NAME: &'static str = "sign_in";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("identity-provider", self.provider)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<VouchedOutcome, TenantError> {
        let refused = |cx: &mut Cx<'_, '_>, target: Named, why: Unwanted, kind: &'static str| {
            let draft = Draft::failed(OpenSession::NAME, target);
            cx.audit(draft.with("factor", kind).with("reason", why.name()));
            Ok(VouchedOutcome::Refused(why))
        };
        let Some(provider) = unchanged(cx, self.provider, self.provider_version)? else {
            let target = Named::new("identity-provider", self.provider);
            return refused(cx, target, Unwanted::ProviderChanged, "oidc");
        };
        let factor = provider.kind().factor();
        let user = match person(cx, &provider, &self.vouched)? {
            Ok(user) => user,
            Err(why) => {
                let target = Named::new("identity-provider", self.provider);
                return refused(cx, target, why, factor);
            }
        };
        let signed_in = sign_in_vouched(cx, &user, factor, provider.provider_name())?;
        Ok(VouchedOutcome::SignedIn(signed_in))
    }
}

/// Whether the provider may speak for that domain at all.
pub(super) fn check_domain(provider: &ProviderRow, vouched: &Vouched) -> Result<(), Unwanted> {
    let domains = provider.domains();
    if domains.is_empty() {
        return Ok(());
    }
    let is_known = |domain: &str| domains.iter().any(|known| known.eq_ignore_ascii_case(domain));
    if provider.kind() == ProviderKind::Google {
        // An address at a domain can be had without belonging to it; `hd` is what Google vouches for.
        let hosted = vouched.hosted_domain.as_deref();
        return hosted.filter(|domain| is_known(domain)).map(|_| ()).ok_or(Unwanted::Domain);
    }
    if !vouched.email_verified {
        return Err(Unwanted::EmailUnverified);
    }
    let domain = vouched.email.as_deref().and_then(|email| email.rsplit_once('@'));
    domain.filter(|(_, domain)| is_known(domain)).map(|_| ()).ok_or(Unwanted::Domain)
}

/// Whether the provider knows that the address is theirs. Google does of its own mail and of organisations that
/// are hosted there; of other addresses it saw once that they were (Google, *OpenID Connect*: `email_verified`).
fn knows_address(provider: &ProviderRow, vouched: &Vouched) -> bool {
    let is_googles = || {
        let address = vouched.email.as_deref().unwrap_or_default().to_ascii_lowercase();
        vouched.hosted_domain.is_some() || address.ends_with("@gmail.com")
    };
    vouched.email_verified && (provider.kind() != ProviderKind::Google || is_googles())
}

/// The person, known or new.
fn person(
    cx: &mut Cx<'_, '_>,
    provider: &ProviderRow,
    vouched: &Vouched,
) -> Result<Result<UserRow, Unwanted>, TenantError> {
    if let Err(why) = check_domain(provider, vouched) {
        return Ok(Err(why));
    }
    let id = provider.id();
    let subject: Option<Subject> =
        cx.row(&subject_key(cx, id, &vouched.issuer, &vouched.subject))?;
    let was_removed = subject == Some(Subject::Removed);
    if let Some(Subject::Of(user, identity)) = subject {
        let key = Key::Identity { user, id: identity };
        let row: Option<IdentityRow> = cx.row(&key)?;
        // Going back to before somebody came leaves their identity behind: it is nobody's then.
        if let (Some(mut row), Some(user)) = (row, cx.row::<UserRow>(&Key::User { id: user })?) {
            if user.role > provider.standing(cx)?.up_to {
                return Ok(Err(Unwanted::Role));
            }
            row.used_ms = cx.now_ms();
            cx.put(&key, &row)?;
            return Ok(Ok(user));
        }
    }
    newcomer(cx, provider, vouched, was_removed)
}

/// Lets somebody in whom no link names: invited, or because the provider may.
fn newcomer(
    cx: &mut Cx<'_, '_>,
    provider: &ProviderRow,
    vouched: &Vouched,
    was_removed: bool,
) -> Result<Result<UserRow, Unwanted>, TenantError> {
    let standing = provider.standing(cx)?;
    if !standing.is_confirmed {
        return Ok(Err(Unwanted::Unconfirmed));
    }
    let Some(email) = vouched.email.as_deref().and_then(|text| normalise_email(text).ok()) else {
        return Ok(Err(Unwanted::NoEmail));
    };
    if !knows_address(provider, vouched) {
        return Ok(Err(Unwanted::EmailUnverified));
    }
    if let Some(user) = find_by_email(cx, &email)? {
        return expected(cx, (provider, standing.up_to), vouched, user);
    }
    let profile = cx.state().profile.as_ref();
    let ends_ms = profile.and_then(|profile| profile.trial_ends_ms);
    if ends_ms.is_some_and(|ends_ms| cx.now_ms() >= ends_ms) {
        return Ok(Err(Unwanted::TrialEnded));
    }
    let invite = invites::standing_for(cx, &email)?;
    let role = match (&invite, provider.default_role) {
        (Some(invite), _) if invite.role > standing.up_to => Err(Unwanted::Role),
        (Some(invite), _) => Ok(invite.role),
        (None, _) if was_removed => Err(Unwanted::Removed),
        (None, Some(role)) if role > standing.up_to => Err(Unwanted::Role),
        (None, Some(role)) => Ok(role),
        (None, None) => Err(Unwanted::NotInvited),
    };
    let role: Role = match role {
        Ok(role) => role,
        Err(why) => return Ok(Err(why)),
    };
    match &invite {
        // Its place in the quota becomes the member's.
        Some(invite) => cx.delete(&Key::Invite { id: invite.id })?,
        None => {
            if let Err(TenantError::QuotaExceeded { quota: Quota::Members, limit }) =
                invites::check_room(cx)
            {
                return Ok(Err(Unwanted::Full { limit }));
            }
        }
    }
    let mut user = insert_user(cx, &email, role, None)?;
    user.email_verified = true;
    cx.put(&Key::User { id: user.id }, &user)?;
    link(cx, user.id, provider.id(), vouched)?;
    let draft = Draft::success("member.add", user.named())
        .with("role", role.name())
        .with("invited", invite.is_some())
        .with("provider", provider.provider_name().to_owned());
    cx.audit_as(user.named(), draft);
    Ok(Ok(user))
}

/// Whom the tenant's directory announced and who has no way in yet comes in by the address that the directory
/// gave: there is no account yet that this could take over. Anybody else has to link the identity themselves.
fn expected(
    cx: &mut Cx<'_, '_>,
    (provider, up_to): (&ProviderRow, Role),
    vouched: &Vouched,
    mut user: UserRow,
) -> Result<Result<UserRow, Unwanted>, TenantError> {
    let is_announced = ProvisionedRow::find(cx, user.id)?.awaited;
    let has_a_way_in = user.password.is_some()
        || !identities_of(cx, user.id)?.is_empty()
        || factors_of(cx, user.id)?.is_enrolled();
    if !is_announced || has_a_way_in || user.deactivated {
        return Ok(Err(Unwanted::NotLinked));
    }
    if user.role > up_to {
        return Ok(Err(Unwanted::Role));
    }
    user.email_verified = true;
    user.version += 1;
    user.updated_ms = cx.now_ms();
    cx.put(&Key::User { id: user.id }, &user)?;
    link(cx, user.id, provider.id(), vouched)?;
    let draft = Draft::success("identity.link", user.named());
    cx.audit_as(user.named(), draft.with("provider", provider.provider_name().to_owned()));
    Ok(Ok(user))
}

/// Notes that what came from a provider was not believed, or that the provider could not be asked.
pub struct RecordVouchFailure {
    /// The provider.
    pub provider: IdentityProviderId,
    /// What a sign-in by it is called.
    pub factor: &'static str,
    /// Why; never anything of what came.
    pub reason: &'static str,
}

impl Command for RecordVouchFailure {
    type Action = permit::SignIn;
    type Reply = ();
    const NAME: &'static str = "sign_in";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("identity-provider", self.provider)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let draft = Draft::failed(Self::NAME, self.target());
        cx.audit(draft.with("factor", self.factor).with("reason", self.reason));
        Ok(())
    }
}
