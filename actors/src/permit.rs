//! Capabilities. A [`Permit<A>`] in hand means the check for `A` on that tenant has passed.
//!
//! The table below is the capability matrix: the server checks it, `GET /v1/meta/capabilities`
//! publishes it, the documents and the role test are made from it. Only [`Grant::permit`] turns a
//! signed-in principal into a permit, so no handler can forget the check and still compile.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use storage::id::{Id as _, SessionId, TenantId, UserId};

pub use self::scopes::{Scopes, ServicePrincipal};
pub use self::support::SupportPrincipal;

mod scopes;
mod support;

/// What a principal is within one tenant.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// An end user outside the organisation: own records only.
    Customer,
    /// May look, not touch.
    Viewer,
    /// Works with forms and submissions. `staff` is an alias.
    #[serde(alias = "staff")]
    Member,
    /// Runs the tenant, short of what only owners may.
    Admin,
    /// Everything within the tenant; at least one always.
    Owner,
    /// Runs the platform; sees no tenant's content.
    PlatformAdmin,
}

impl Role {
    /// Every role, lowest first.
    pub const ALL: [Self; 6] =
        [Self::Customer, Self::Viewer, Self::Member, Self::Admin, Self::Owner, Self::PlatformAdmin];
    /// The role's name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
            Self::PlatformAdmin => "platform-admin",
        }
    }
    /// Reads a role's name.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "staff" {
            return Some(Self::Member);
        }
        Self::ALL.into_iter().find(|role| role.name() == text)
    }
    const fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    const fn of(roles: &[Role]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < roles.len() {
            bits |= roles[i].bit();
            i += 1;
        }
        Self(bits)
    }
    /// Whether `role` is in the set.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }
    /// Whether no role is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A capability. Implemented only by the table in this file.
pub trait Action: Send + Sync + 'static {
    /// Its row in the matrix.
    const ROW: &'static Capability;
    /// `resource:verb`.
    const NAME: &'static str = Self::ROW.name;
}

/// One row of the capability matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// `resource:verb`.
    pub name: &'static str,
    /// What it lets one do.
    pub means: &'static str,
    /// Who has it.
    pub roles: Roles,
    /// Whether being refused it is written to the tenant's audit log.
    pub privileged: bool,
}

macro_rules! actions {
    ($($name:ident = $text:literal, $privileged:ident, [$($role:ident)*], $means:literal;)*) => {
        $(
            #[doc = $means]
            #[derive(Debug)]
            pub struct $name;
            impl Action for $name {
                const ROW: &'static Capability = &Capability {
                    name: $text,
                    means: $means,
                    roles: Roles::of(&[$(Role::$role),*]),
                    privileged: actions!(@ $privileged),
                };
            }
        )*
        /// The capability matrix, whole.
        pub const CAPABILITIES: &[&Capability] = &[$($name::ROW),*];
    };
    (@ privileged) => { true };
    (@ plain) => { false };
}

actions! {
    ReadOwnProfile = "me:read", plain, [Owner Admin Member Viewer Customer PlatformAdmin], "See one's own profile and sessions.";
    WriteOwnSessions = "sessions:write", plain, [Owner Admin Member Viewer Customer PlatformAdmin], "End one's own sessions, change one's own password.";
    ReadTenant = "tenant:read", plain, [Owner Admin Member Viewer], "See the tenant's name, plan and region.";
    UpdateTenant = "tenant:update", privileged, [Owner Admin], "Have everybody need a second factor; owners: no longer, and change the tenant's name.";
    RestoreTenant = "tenant:restore", privileged, [Owner], "Take the tenant back to an earlier time.";
    ReadRestores = "restores:read", privileged, [Owner Admin], "See restores and how far they are.";
    CreateExports = "exports:create", privileged, [Owner Admin], "Write the whole tenant to a bundle, which another node can take up.";
    ReadExports = "exports:read", privileged, [Owner Admin], "See exports, and download what was written.";
    ReadHistory = "history:read", privileged, [Owner Admin], "Read what was, as of an earlier time.";
    ReadMembers = "members:read", plain, [Owner Admin Member Viewer], "List the people of the tenant.";
    WriteMembers = "members:write", privileged, [Owner Admin], "Add people; change roles, end sessions and take second factors away up to one's own role.";
    RemoveMembers = "members:remove", privileged, [Owner Admin Member Viewer Customer], "Leave the tenant; owners and admins: remove people up to one's own role.";
    TransferTenant = "tenant:transfer", privileged, [Owner], "Make somebody else the owner in one's place.";
    ProvisionPeople = "scim:write", privileged, [Owner Admin], "Have a directory add, change and remove people and teams over SCIM, never owners; an API key with this alone gives roles up to member.";
    ReadInvites = "invites:read", privileged, [Owner Admin], "See invitations that nobody has accepted yet.";
    ReadTeams = "teams:read", plain, [Owner Admin Member Viewer], "List teams.";
    WriteTeams = "teams:write", privileged, [Owner Admin], "Create, change and delete teams.";
    ReadForms = "forms:read", plain, [Owner Admin Member Viewer Customer], "Read forms, as far as their access lists allow.";
    CreateForms = "forms:create", privileged, [Owner Admin Member], "Create forms.";
    UpdateForms = "forms:update", privileged, [Owner Admin Member], "Change forms, as far as their access lists allow.";
    ManageForms = "forms:manage", privileged, [Owner Admin Member], "Archive forms and change their access lists, as far as those allow.";
    ReadFormAudit = "forms:audit", privileged, [Owner Admin Member], "Read the audit trail of one form, as far as its access list allows.";
    ReadSubmissions = "submissions:read", plain, [Owner Admin Member Viewer Customer], "Read submissions, as far as the form's access list allows; customers: their own.";
    CreateSubmissions = "submissions:create", plain, [Owner Admin Member Customer], "Submit to a form.";
    UpdateSubmissions = "submissions:update", plain, [Owner Admin Member Customer], "Change submissions that are not decided yet; customers: their own.";
    CommentSubmissions = "submissions:comment", plain, [Owner Admin Member], "Comment on submissions.";
    DecideSubmissions = "submissions:decide", privileged, [Owner Admin Member], "Approve or reject other people's submissions.";
    ReadAudit = "audit:read", privileged, [Owner Admin], "Read the tenant's audit log.";
    ReadUsage = "usage:read", privileged, [Owner Admin], "See what counts against the plan.";
    ReadIntegrations = "integrations:read", privileged, [Owner Admin], "See integrations and what they received.";
    WriteIntegrations = "integrations:write", privileged, [Owner Admin], "Create, toggle and re-key integrations.";
    ReadIdentityProviders = "identity-providers:read", privileged, [Owner Admin], "See which parties may vouch for people, without their secrets.";
    WriteIdentityProviders = "identity-providers:write", privileged, [Owner Admin], "Say which parties may vouch for people, for roles up to one's own.";
    ReadApiKeys = "api-keys:read", privileged, [Owner Admin Member], "See API keys, without what proves them; members: their own.";
    WriteApiKeys = "api-keys:write", privileged, [Owner Admin Member], "Create, change and revoke API keys with rights one has oneself; members: their own.";
    ReadSupport = "support:read", privileged, [Owner Admin], "See who of the platform looked into the tenant, or asks to.";
    DecideSupport = "support:decide", privileged, [Owner Admin], "Let somebody of the platform look into the tenant, refuse it, or end it.";
    ReadTenants = "platform-tenants:read", privileged, [PlatformAdmin], "List tenants, without their content.";
    WriteTenants = "platform-tenants:write", privileged, [PlatformAdmin], "Create, suspend and resume tenants, change plans.";
    ReadSupportAsked = "platform-support:read", privileged, [PlatformAdmin], "See support sessions that were asked for.";
    AskSupport = "platform-support:write", privileged, [PlatformAdmin], "Ask to look into a tenant, in its own log and for a while; end that.";
    ReadPlatformAudit = "platform-audit:read", privileged, [PlatformAdmin], "Read the platform's own audit log.";
    VerifyAudit = "platform-audit:verify", privileged, [PlatformAdmin], "Verify any tenant's audit chain.";
    SignIn = "auth:sign-in", plain, [], "Prove who one is; needs no role.";
    ReceiveWebhook = "hooks:receive", plain, [], "Deliver a webhook; proven by its signature.";
    Operate = "node:operate", plain, [], "Run the node: only the node itself and its operator's command line.";
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A signed-in person.
    User(Arc<UserPrincipal>),
    /// An API key.
    Service(Arc<ServicePrincipal>),
    /// Somebody of the platform, in an open support session.
    Support(Arc<SupportPrincipal>),
    /// Someone who has not proven who they are.
    Anonymous,
    /// The sender of a webhook; the signature is checked by the tenant.
    Sender,
    /// The node itself, with the reason it acts.
    System(&'static str),
}

/// What a signed-in person's rights were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// An access token: it speaks for the person only as long as their rights are those of the token.
    Token,
    /// A browser's cookie, and which of its session's it is: it says who, and the tenant says with every message
    /// as what.
    Cookie(u32),
}

impl Principal {
    /// Whether it has a capability; whoever proved nothing, and the node, are not asked.
    pub fn holds(&self, capability: &Capability) -> bool {
        match self {
            Self::User(person) => capability.roles.contains(person.role),
            Self::Service(service) => service.scopes.contains(capability),
            Self::Support(support) => support.scopes.contains(capability),
            Self::Anonymous | Self::Sender | Self::System(_) => true,
        }
    }
}

/// A signed-in person, as what they presented says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPrincipal {
    /// Who.
    pub user: UserId,
    /// In which session.
    pub session: SessionId,
    /// As what.
    pub role: Role,
    /// The user's authorisation version when the token was made. The tenant compares it with the
    /// current one, so a change of role counts from the next message on (ASVS 5.0, 8.3.2).
    pub authz: u32,
    /// What it was read from.
    pub carrier: Carrier,
}

/// Why a permit was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Another tenant's: must look absent.
    #[error("the target is not the caller's tenant")]
    Hidden,
    /// The role, or the key's scopes, do not include the action.
    #[error("the credential does not include {action}")]
    Forbidden {
        /// The missing capability.
        action: &'static str,
    },
}

/// What a verified credential allows: one tenant, one person or service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    tenant: TenantId,
    bearer: Bearer,
}

/// Whose credential it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bearer {
    Person(Arc<UserPrincipal>),
    Service(Arc<ServicePrincipal>),
    Support(Arc<SupportPrincipal>),
}

impl Grant {
    /// Made by whoever verified the access token.
    pub fn new(tenant: TenantId, principal: UserPrincipal) -> Self {
        Self { tenant, bearer: Bearer::Person(Arc::new(principal)) }
    }
    /// Made by whoever had the tenant verify the API key.
    pub fn of_service(tenant: TenantId, principal: ServicePrincipal) -> Self {
        Self { tenant, bearer: Bearer::Service(Arc::new(principal)) }
    }
    /// Made by whoever had the tenant verify the token of a support session.
    pub fn of_support(tenant: TenantId, principal: SupportPrincipal) -> Self {
        Self { tenant, bearer: Bearer::Support(Arc::new(principal)) }
    }
    /// The tenant of the credential.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// The person, if it is an access token.
    pub fn person(&self) -> Option<&UserPrincipal> {
        match &self.bearer {
            Bearer::Person(person) => Some(person),
            Bearer::Service(_) | Bearer::Support(_) => None,
        }
    }
    /// The service, if it is an API key.
    pub fn service(&self) -> Option<&ServicePrincipal> {
        match &self.bearer {
            Bearer::Person(_) | Bearer::Support(_) => None,
            Bearer::Service(service) => Some(service),
        }
    }
    /// The support session, if it is the token of one.
    pub fn support(&self) -> Option<&SupportPrincipal> {
        match &self.bearer {
            Bearer::Person(_) | Bearer::Service(_) => None,
            Bearer::Support(support) => Some(support),
        }
    }
    /// The id of the credential itself: the session's, the key's, or the support session's.
    pub fn credential(&self) -> &[u8; 16] {
        match &self.bearer {
            Bearer::Person(person) => person.session.as_bytes(),
            Bearer::Service(service) => service.key.as_bytes(),
            Bearer::Support(support) => support.session.as_bytes(),
        }
    }
    /// The id of whoever holds it: the person's, the key's, or the support session's.
    pub fn holder(&self) -> String {
        match &self.bearer {
            Bearer::Person(person) => person.user.to_string(),
            Bearer::Service(service) => service.key.to_string(),
            Bearer::Support(support) => support.session.to_string(),
        }
    }
    /// Whoever holds the credential, as an asker.
    pub fn principal(&self) -> Principal {
        match &self.bearer {
            Bearer::Person(person) => Principal::User(person.clone()),
            Bearer::Service(service) => Principal::Service(service.clone()),
            Bearer::Support(support) => Principal::Support(support.clone()),
        }
    }
    /// Whether it includes a capability.
    pub fn allows(&self, capability: &Capability) -> bool {
        self.principal().holds(capability)
    }
    /// The one capability check.
    pub fn permit<A: Action>(&self, target: TenantId) -> Result<Permit<A>, Denied> {
        // Tenant first: a stranger must not learn which actions exist here.
        if self.tenant != target {
            return Err(Denied::Hidden);
        }
        if !self.allows(A::ROW) {
            return Err(Denied::Forbidden { action: A::NAME });
        }
        Ok(Permit { tenant: target, principal: self.principal(), action: PhantomData })
    }
}

/// Proof of permission for one action on one tenant. Not `Clone`: one check, one use.
#[derive(Debug)]
pub struct Permit<A> {
    tenant: TenantId,
    principal: Principal,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Permit<A> {
    /// For work of the node itself. The reason is kept in the audit log.
    pub fn internal(tenant: TenantId, reason: &'static str) -> Self {
        Self { tenant, principal: Principal::System(reason), action: PhantomData }
    }
    /// The tenant the permit is for.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// Who asked.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
    pub(crate) fn into_principal(self) -> Principal {
        self.principal
    }
}

/// A right of the platform's that reaches into a tenant: there it is the node's, and the tenant's own rows say
/// how far it goes.
pub trait ReachesIn: Action {}
impl ReachesIn for AskSupport {}
impl ReachesIn for ReadSupportAsked {}

impl<A: ReachesIn> Permit<A> {
    /// What the node does in a tenant for whoever holds this permit.
    pub fn reach_in(&self, tenant: TenantId) -> Permit<Operate> {
        Permit { tenant, principal: Principal::System("support"), action: PhantomData }
    }
}

impl Permit<SignIn> {
    /// Anyone may try to sign in.
    pub fn anonymous(tenant: TenantId) -> Self {
        Self { tenant, principal: Principal::Anonymous, action: PhantomData }
    }
}

impl Permit<ReceiveWebhook> {
    /// Anyone may deliver a webhook; the tenant verifies the signature before it believes a byte.
    pub fn sender(tenant: TenantId) -> Self {
        Self { tenant, principal: Principal::Sender, action: PhantomData }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A permit for whatever a test has to do.
    pub(crate) fn by_test<A: Action>(tenant: TenantId) -> Permit<A> {
        Permit::internal(tenant, "test")
    }

    fn grant(role: Role) -> Grant {
        let principal = UserPrincipal {
            user: UserId::new(1, [1; 10]),
            session: SessionId::new(1, [2; 10]),
            role,
            authz: 1,
            carrier: Carrier::Token,
        };
        Grant::new(TenantId::new(1, [1; 10]), principal)
    }

    #[test]
    fn another_tenant_is_hidden_even_from_an_owner() {
        let denied = grant(Role::Owner).permit::<ReadForms>(TenantId::new(1, [2; 10]));
        assert_eq!(denied.map(|_| ()), Err(Denied::Hidden));
    }

    #[test]
    fn a_viewer_cannot_create_but_a_member_can() {
        let tenant = TenantId::new(1, [1; 10]);
        assert!(grant(Role::Viewer).permit::<CreateForms>(tenant).is_err());
        assert!(grant(Role::Member).permit::<CreateForms>(tenant).is_ok());
    }

    #[test]
    fn a_platform_administrator_has_no_capability_over_content() {
        for capability in CAPABILITIES.iter().filter(|row| row.roles.contains(Role::PlatformAdmin))
        {
            let own = ["me:read", "sessions:write"].contains(&capability.name);
            assert!(own || capability.name.starts_with("platform-"), "{}", capability.name);
        }
    }

    #[test]
    fn capability_names_are_unique() {
        let names: std::collections::BTreeSet<_> =
            CAPABILITIES.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), CAPABILITIES.len());
    }
}
