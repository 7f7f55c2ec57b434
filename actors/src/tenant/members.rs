//! The people of a tenant: who they are and as what.
//!
//! Three rules hold whoever asks: a tenant keeps at least one owner that can sign in; nobody gives a
//! role above their own or touches a person who has one; a person's address is unique here, and
//! only here. Platform administrators live in the platform's own compartment and nowhere else.
//! Passwords come in as PHC strings; this file never sees one in clear and never shows the hash.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use storage::id::{Id, SessionId, TenantId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Page, Paging};
use crate::limits;
use crate::permit::{self, Principal, Role};
use crate::quota::Quota;
use crate::tenant::acl::Holder;
use crate::tenant::api_keys::commands::revoke_all_of;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::factors::forget_factors;
use crate::tenant::forms::grants::check_may_go;
use crate::tenant::identities::forget_identities;
use crate::tenant::invites;
use crate::tenant::people::{SessionRow, UserRow, normalise_email};
use crate::tenant::scim::person::forget_provisioned;
use crate::tenant::tickets;

pub mod adding;

const EMAIL_LABEL: &str = "email";

pub(crate) fn email_key(cx: &impl Reads, normal: &str) -> Key {
    Key::UserByEmail { digest: cx.digest(EMAIL_LABEL, normal.as_bytes()) }
}

/// The person with that e-mail address, in whatever form it is written.
///
/// # Errors
/// Only the store's. A text that is no address finds nobody.
pub fn find_by_email(cx: &impl Reads, email: &str) -> Result<Option<UserRow>, TenantError> {
    let Ok(normal) = normalise_email(email) else { return Ok(None) };
    match cx.row::<UserId>(&email_key(cx, &normal))? {
        Some(id) => cx.row(&Key::User { id }),
        None => Ok(None),
    }
}

/// Adds a person: takes the address, one of the members quota, and counts owners. Writes no audit
/// entry; the caller says what happened.
///
/// # Errors
/// [`TenantError::Invalid`] at `/email` or `/role`, [`Conflict::EmailTaken`], or
/// [`TenantError::QuotaExceeded`].
pub fn insert_user(
    cx: &mut Cx<'_, '_>,
    email: &str,
    role: Role,
    password_phc: Option<String>,
) -> Result<UserRow, TenantError> {
    let (email, index) = check_new(cx, email, role)?;
    invites::check_room(cx)?;
    cx.charge(Quota::Members, 1)?;
    let now = cx.now_ms();
    let row = UserRow {
        id: cx.new_id(),
        email,
        role,
        password: password_phc,
        authz: 1,
        created_ms: now,
        updated_ms: now,
        version: 1,
        email_verified: false,
        deactivated: false,
    };
    cx.put(&index, &row.id)?;
    cx.put(&Key::User { id: row.id }, &row)?;
    cx.state_mut().owners += u32::from(row.is_working_owner());
    Ok(row)
}

/// The normal form and the index key of an address that a new person with that role can have.
pub(crate) fn check_new(
    cx: &impl Reads,
    email: &str,
    role: Role,
) -> Result<(String, Key), TenantError> {
    check_role_fits(cx, role)?;
    let email = normalise_email(email)
        .map_err(|error| TenantError::invalid("/email", error.to_string()))?;
    let index = email_key(cx, &email);
    if cx.bytes(&index)?.is_some() {
        return Err(TenantError::Conflict(Conflict::EmailTaken));
    }
    Ok((email, index))
}

/// Ends all sessions of `user` but `kept`, and says how many.
pub(crate) fn end_sessions(
    cx: &mut Cx<'_, '_>,
    user: UserId,
    kept: Option<SessionId>,
) -> Result<u64, TenantError> {
    let mut ended = 0;
    for session in sessions_of(cx, user)?.iter().filter(|session| Some(session.id) != kept) {
        cx.delete(&Key::Session { user, id: session.id })?;
        ended += 1;
    }
    Ok(ended)
}

/// All session rows of `user`, oldest first. Their number is bounded where sessions are opened.
pub(crate) fn sessions_of(cx: &impl Reads, user: UserId) -> Result<Vec<SessionRow>, TenantError> {
    let first = Key::Session { user, id: SessionId::from_bytes([0; 16]) };
    let scan = Scan {
        prefix: Prefix::owner(&first),
        after: None,
        reverse: false,
        // Twice the bound: a release that lowers it still sees all that an older one left.
        limit: 2 * limits::SESSIONS_MAX,
    };
    cx.rows(&scan)?.iter().map(|(_, bytes)| Ok(value::decode(bytes)?)).collect()
}

/// The platform has administrators and nobody else; tenants have everybody else.
pub(crate) fn check_role_fits(cx: &impl Reads, role: Role) -> Result<(), TenantError> {
    let on_platform = cx.tenant() == TenantId::PLATFORM;
    if on_platform == (role == Role::PlatformAdmin) {
        return Ok(());
    }
    Err(TenantError::invalid(
        "/role",
        if on_platform {
            "the platform's people have the role platform-admin"
        } else {
            "must be one of customer, viewer, member, admin, owner"
        },
    ))
}

/// Nobody gives a role above their own, or changes a person who has one (the node itself may).
pub(crate) fn check_ceiling(cx: &impl Reads, role: Role) -> Result<(), TenantError> {
    match cx.principal() {
        Principal::System(_) => Ok(()),
        Principal::User(user) if user.role >= role => Ok(()),
        Principal::Service(service) if service.may_manage(role) => Ok(()),
        _ => Err(TenantError::Forbidden { action: "members:role-above-own" }),
    }
}

/// Takes one owner off the count, unless it is the last.
fn lose_owner(cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
    let owners = &mut cx.state_mut().owners;
    if *owners <= 1 {
        return Err(TenantError::Conflict(Conflict::LastOwner));
    }
    *owners -= 1;
    Ok(())
}

/// Adds a person who can sign in at once.
#[derive(Debug)]
pub struct AddMember {
    /// Their address, in any form.
    pub email: String,
    /// As what; at most the asker's own role.
    pub role: Role,
    /// Argon2id in PHC string form.
    pub password_phc: String,
}

impl Command for AddMember {
    type Action = permit::WriteMembers;
    /// Who they are from now on, and what is answered.
    type Reply = (UserId, Document);
    const NAME: &'static str = "member.add";

    fn target(&self) -> Named {
        Named::new("role", self.role)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        check_ceiling(cx, self.role)?;
        let row = insert_user(cx, &self.email, self.role, Some(self.password_phc))?;
        cx.audit(Draft::success(Self::NAME, row.named()).with("role", row.role.name()));
        Ok((row.id, row.document()))
    }
}

/// Lists people, in the order they came.
#[derive(Debug)]
pub struct ListMembers {
    /// Which part.
    pub paging: Paging,
}

impl Query for ListMembers {
    type Action = permit::ReadMembers;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let after = match self.paging.cursor.as_deref() {
            Some(text) => Some(Key::User { id: read_cursor(text)? }),
            None => None,
        };
        let any = Key::User { id: UserId::from_bytes([0; 16]) };
        let wanted = self.paging.limit.clamp(1, limits::PAGE_MAX);
        // One more than wanted tells whether there is a next page.
        let scan = Scan { prefix: Prefix::kind(&any), after, reverse: false, limit: wanted + 1 };
        let rows = cx
            .rows(&scan)?
            .iter()
            .map(|(_, bytes)| value::decode::<UserRow>(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let next = (rows.len() > wanted).then(|| write_cursor(rows[wanted - 1].id));
        Ok(Page { items: rows.iter().take(wanted).map(UserRow::json).collect(), next })
    }
}

fn write_cursor(last: UserId) -> String {
    URL_SAFE_NO_PAD.encode(last.as_bytes())
}

fn read_cursor(text: &str) -> Result<UserId, TenantError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .map(UserId::from_bytes)
        .ok_or_else(|| {
            TenantError::invalid("query/cursor", "must be the next_cursor of the page before")
        })
}

/// Reads one person.
#[derive(Debug)]
pub struct ReadMember {
    /// Who.
    pub user: UserId,
}

impl Query for ReadMember {
    type Action = permit::ReadMembers;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        Ok(cx.need::<UserRow>(&Key::User { id: self.user })?.document())
    }
}

/// Gives a person another role. Their access tokens stop working; their sessions go on.
#[derive(Debug)]
pub struct ChangeRole {
    /// Whose.
    pub user: UserId,
    /// The new role; at most the asker's own.
    pub role: Role,
    /// The version the caller saw.
    pub if_match: Option<u64>,
}

impl Command for ChangeRole {
    type Action = permit::WriteMembers;
    type Reply = Document;
    const NAME: &'static str = "member.role_change";

    fn target(&self) -> Named {
        Named::new("user", self.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let key = Key::User { id: self.user };
        let mut row: UserRow = cx.need(&key)?;
        check_ceiling(cx, row.role)?;
        check_ceiling(cx, self.role)?;
        check_role_fits(cx, self.role)?;
        if self.if_match.is_some_and(|version| version != row.version) {
            return Err(TenantError::VersionMismatch);
        }
        if row.role == self.role {
            return Ok(row.document());
        }
        if self.role == Role::Owner && row.deactivated {
            return Err(TenantError::invalid("/role", "an owner must be somebody who is active"));
        }
        let draft = Draft::success(Self::NAME, row.named())
            .with("from", row.role.name())
            .with("to", self.role.name());
        if row.is_working_owner() {
            lose_owner(cx)?;
        }
        row.role = self.role;
        row.authz += 1;
        row.version += 1;
        row.updated_ms = cx.now_ms();
        cx.state_mut().owners += u32::from(row.is_working_owner());
        cx.put(&key, &row)?;
        cx.audit(draft);
        Ok(row.document())
    }
}

/// Hands the tenant over: one of its people becomes an owner, and the owner who asks becomes an
/// administrator, in one step.
#[derive(Debug)]
pub struct TransferOwnership {
    /// To whom.
    pub to: UserId,
}

impl Command for TransferOwnership {
    type Action = permit::TransferTenant;
    type Reply = Document;
    const NAME: &'static str = "tenant.transfer";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", self.to)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let from = cx.person()?.user;
        if from == self.to {
            return Err(TenantError::invalid("/to", "must be somebody else"));
        }
        let mut giver: UserRow = cx.need(&Key::User { id: from })?;
        let mut taker: UserRow = cx.need(&Key::User { id: self.to })?;
        if taker.role == Role::Customer {
            return Err(TenantError::invalid("/to", "must not be a customer"));
        }
        if taker.password.is_none() || taker.deactivated {
            return Err(TenantError::invalid("/to", "must be somebody who can sign in"));
        }
        cx.audit(
            Draft::success(Self::NAME, taker.named())
                .with("from", giver.named().id)
                .with("role_before", taker.role.name()),
        );
        let working =
            |rows: [&UserRow; 2]| rows.iter().filter(|row| row.is_working_owner()).count() as u32;
        let before = working([&giver, &taker]);
        for (row, role) in [(&mut giver, Role::Admin), (&mut taker, Role::Owner)] {
            row.role = role;
            row.authz += 1;
            row.version += 1;
            row.updated_ms = cx.now_ms();
            cx.put(&Key::User { id: row.id }, row)?;
        }
        let owners = cx.state().owners + working([&giver, &taker]);
        cx.state_mut().owners = owners.saturating_sub(before);
        Ok(taker.document())
    }
}

/// Removes a person, their sessions and their API keys; oneself: leaves. What they wrote stays.
#[derive(Debug)]
pub struct RemoveMember {
    /// Who.
    pub user: UserId,
}

impl Command for RemoveMember {
    type Action = permit::RemoveMembers;
    type Reply = ();
    const NAME: &'static str = "member.remove";

    fn target(&self) -> Named {
        Named::new("user", self.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let oneself = matches!(cx.principal(), Principal::User(user) if user.user == self.user);
        // Before the look-up: who may not remove anybody learns nothing about who is here.
        if !oneself && cx.role() < Role::Admin {
            return Err(TenantError::Forbidden { action: "members:write" });
        }
        let key = Key::User { id: self.user };
        let row: UserRow = cx.need(&key)?;
        check_ceiling(cx, row.role)?;
        if row.is_working_owner() {
            lose_owner(cx)?;
        }
        // Before the row goes: the entry names the actor, who may be the same person.
        cx.audit(
            Draft::success(Self::NAME, row.named())
                .with("role", row.role.name())
                .with("left", oneself),
        );
        forget_person(cx, &row, !oneself)
    }
}

/// Takes a person's row away, and everything that is about them alone.
///
/// # Errors
/// [`Conflict::LastFormOwner`] if a form would be nobody's.
pub(crate) fn forget_person(
    cx: &mut Cx<'_, '_>,
    row: &UserRow,
    by_others: bool,
) -> Result<(), TenantError> {
    check_may_go(cx, Holder::User(row.id))?;
    end_sessions(cx, row.id, None)?;
    revoke_all_of(cx, row.id)?;
    forget_factors(cx, row.id)?;
    tickets::end_all(cx, row.id)?;
    forget_provisioned(cx, row.id)?;
    forget_identities(cx, row.id, by_others)?;
    let index = email_key(cx, &row.email);
    cx.delete(&index)?;
    cx.delete(&Key::User { id: row.id })?;
    cx.release(Quota::Members, 1);
    Ok(())
}

#[cfg(test)]
pub(crate) mod scene;
#[cfg(test)]
mod tests;
