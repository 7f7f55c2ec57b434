//! People, provisioned: making, reading and removing them. Changes stand in
//! [`user_changes`](super::user_changes).
//!
//! An API key with `scim:write` alone gives roles up to member: the scope is the power to say who is in
//! the tenant, and not to make oneself an administrator of it. More takes all that the role can do.
//!
//! Refuses: to touch an owner.

use serde_json::Value;
use storage::id::UserId;
use storage::keys::Key;

use super::Attributes;
use super::groups::teams_of;
use super::person::{ProvisionedRow, Wanted, add_groups, render};
use super::schema::USER;
use super::shape;
pub use super::user_changes::{ChangeUser, UserChange};
use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::permit::{Principal, ProvisionPeople, Role};
use crate::tenant::api_keys::provisioned_role;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::forms::{Made, check_version, to_json};
use crate::tenant::members::{forget_person, insert_user};
use crate::tenant::people::UserRow;

/// Whether the asker may give somebody that role, or take the place of who has it.
pub(super) fn check_gives(cx: &impl Reads, role: Role) -> Result<(), TenantError> {
    let may = match cx.principal() {
        Principal::System(_) => true,
        Principal::User(user) => role < Role::Owner && user.role >= role,
        Principal::Service(service) => role <= Role::Member || service.may_manage(role),
        Principal::Support(_) | Principal::Anonymous | Principal::Sender => false,
    };
    if may { Ok(()) } else { Err(TenantError::Forbidden { action: "members:role-above-own" }) }
}

/// Owners are people's to change, and never a directory's.
pub(super) fn check_no_owner(cx: &impl Reads, user: &UserRow) -> Result<(), TenantError> {
    if user.role != Role::Owner {
        return Ok(());
    }
    if user.is_working_owner() && cx.state().owners <= 1 {
        return Err(TenantError::Conflict(Conflict::LastOwner));
    }
    Err(TenantError::Forbidden { action: "members:role-above-own" })
}

/// What whoever is provisioned becomes if nobody says: what the key says, or else a member.
pub(super) fn default_role(cx: &impl Reads) -> Result<Role, TenantError> {
    match cx.principal() {
        Principal::Service(service) => provisioned_role(cx, service.key),
        _ => Ok(Role::Member),
    }
}

/// A person as they are answered.
pub(super) fn document(
    cx: &impl Reads,
    base: &str,
    user: &UserRow,
    row: &ProvisionedRow,
) -> Result<Document, TenantError> {
    let mut attributes = render(base, user, row);
    let mut teams = teams_of(cx, &[user.id])?;
    add_groups(base, &mut attributes, &teams.remove(&user.id).unwrap_or_default());
    Ok(Document { version: user.version, json: to_json(&Value::Object(attributes)) })
}

/// Makes a person. They have no password: they sign in from elsewhere, or by a mailed link.
#[derive(Debug)]
pub struct CreateUser {
    /// What was sent.
    pub body: Attributes,
    /// Where this node is, for addresses in the answer.
    pub base: String,
}

impl Command for CreateUser {
    type Action = ProvisionPeople;
    type Reply = Made<UserId>;
    const NAME: &'static str = "scim.user_create";

    fn target(&self) -> Named {
        Named::new("user", "new")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Made<UserId>, TenantError> {
        let Wanted { email, active, role, mut row } =
            Wanted::read(&shape::read(&USER, &self.body)?)?;
        let role = match role {
            Some(role) => role,
            None => default_role(cx)?,
        };
        check_gives(cx, role)?;
        let mut user = insert_user(cx, &email, role, None)?;
        row.says_active = true;
        row.awaited = true;
        if active == Some(false) {
            user.deactivated = true;
            cx.put(&Key::User { id: user.id }, &user)?;
        }
        cx.put(&Key::Provisioned { user: user.id }, &row)?;
        let draft = Draft::success(Self::NAME, user.named())
            .with("role", role.name())
            .with("active", !user.deactivated);
        cx.audit(draft);
        Ok(Made { id: user.id, document: document(cx, &self.base, &user, &row)? })
    }
}

/// Reads a person.
#[derive(Debug)]
pub struct ReadUser {
    /// Who.
    pub user: UserId,
    /// Where this node is, for addresses in the answer.
    pub base: String,
}

impl Query for ReadUser {
    type Action = ProvisionPeople;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let user: UserRow = cx.need(&Key::User { id: self.user })?;
        document(cx, &self.base, &user, &ProvisionedRow::find(cx, self.user)?)
    }
}

/// Removes a person with all that is about them alone.
#[derive(Debug)]
pub struct DeleteUser {
    /// Who.
    pub user: UserId,
    /// The version they must still have.
    pub if_match: Option<u64>,
}

impl Command for DeleteUser {
    type Action = ProvisionPeople;
    type Reply = ();
    const NAME: &'static str = "scim.user_delete";

    fn target(&self) -> Named {
        Named::new("user", self.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let user: UserRow = cx.need(&Key::User { id: self.user })?;
        check_version(self.if_match, user.version)?;
        check_no_owner(cx, &user)?;
        cx.audit(Draft::success(Self::NAME, user.named()).with("role", user.role.name()));
        forget_person(cx, &user, true)
    }
}
