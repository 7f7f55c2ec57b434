//! Changing people: whole, or by parts.
//!
//! Either way a whole person comes out, who is compared with the one there is; only what differs is done,
//! and nothing if nothing does. A new address is as good as the account, so who may not give the person's
//! role may not change it. Refuses: to change an owner.

use storage::id::UserId;
use storage::keys::Key;

use super::patch::{Operation, apply};
use super::person::{ProvisionedRow, Wanted, writable};
use super::schema::USER;
use super::users::{check_gives, check_no_owner, default_role, document};
use super::{Attributes, shape};
use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::permit::ProvisionPeople;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::forms::check_version;
use crate::tenant::mail::Change;
use crate::tenant::members::{check_new, email_key, end_sessions};
use crate::tenant::people::UserRow;
use crate::tenant::recovery::notify_of;
use crate::tenant::tickets;

/// What a person is to become.
#[derive(Debug)]
pub enum UserChange {
    /// What was sent, and nothing else; but role and being active stay if they are not named.
    Replace(Attributes),
    /// What they are, with some parts changed.
    Patch(Vec<Operation>),
}

/// Changes a person.
#[derive(Debug)]
pub struct ChangeUser {
    /// Who.
    pub user: UserId,
    /// Into what.
    pub change: UserChange,
    /// The version they must still have.
    pub if_match: Option<u64>,
    /// Where this node is, for addresses in the answer.
    pub base: String,
}

impl Command for ChangeUser {
    type Action = ProvisionPeople;
    type Reply = Document;
    const NAME: &'static str = "scim.user_update";

    fn target(&self) -> Named {
        Named::new("user", self.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let before: UserRow = cx.need(&Key::User { id: self.user })?;
        check_version(self.if_match, before.version)?;
        let row_before = ProvisionedRow::find(cx, self.user)?;
        let wanted = self.wanted(&before, &row_before)?;
        let Wanted { email, active, role, mut row } = wanted;
        row.awaited = row_before.awaited;
        let mut user = before.clone();
        user.email = email;
        user.deactivated = !active.unwrap_or(true);
        user.role = match role {
            Some(role) => role,
            // Who is not said to be anything is what they are; who is not any more becomes the usual.
            None if !row_before.says_role => before.role,
            None => default_role(cx)?,
        };
        if user == before && row == row_before {
            return document(cx, &self.base, &user, &row);
        }
        check_no_owner(cx, &before)?;
        // Before it is done: the entry names the person as they were.
        let mut draft = Draft::success(Self::NAME, before.named());
        if row != row_before {
            draft = draft.with("profile", true);
        }
        draft = give_role(cx, &before, &mut user, draft)?;
        draft = give_address(cx, &before, &mut user, draft)?;
        draft = switch(cx, &before, &mut user, draft)?;
        user.version += 1;
        user.updated_ms = cx.now_ms();
        cx.put(&Key::User { id: user.id }, &user)?;
        cx.put(&Key::Provisioned { user: user.id }, &row)?;
        cx.audit(draft);
        document(cx, &self.base, &user, &row)
    }
}

impl ChangeUser {
    fn wanted(&self, user: &UserRow, row: &ProvisionedRow) -> Result<Wanted, TenantError> {
        Ok(match &self.change {
            UserChange::Replace(body) => {
                let mut wanted = Wanted::read(&shape::read(&USER, body)?)?;
                if wanted.active.is_none() {
                    wanted.active = Some(!user.deactivated);
                    wanted.row.says_active = row.says_active;
                }
                if wanted.role.is_none() {
                    wanted.role = Some(user.role);
                    wanted.row.says_role = row.says_role;
                }
                wanted
            }
            UserChange::Patch(operations) => {
                let mut attributes = writable(user, row);
                let is_role_shown = attributes.contains_key("roles");
                apply(&USER, &mut attributes, operations)?;
                let mut wanted = Wanted::read(&attributes)?;
                // What was shown without being said is not said by being left alone.
                if !row.says_role && is_role_shown && wanted.role == Some(user.role) {
                    wanted.row.says_role = false;
                }
                wanted
            }
        })
    }
}

fn give_role(
    cx: &Cx<'_, '_>,
    before: &UserRow,
    user: &mut UserRow,
    draft: Draft,
) -> Result<Draft, TenantError> {
    if user.role == before.role {
        return Ok(draft);
    }
    // Nor takes away: who is made less first would be anybody's to rename next.
    check_gives(cx, before.role.max(user.role))?;
    user.authz += 1;
    Ok(draft.with("from", before.role.name()).with("to", user.role.name()))
}

fn give_address(
    cx: &mut Cx<'_, '_>,
    before: &UserRow,
    user: &mut UserRow,
    draft: Draft,
) -> Result<Draft, TenantError> {
    if user.email == before.email {
        return Ok(draft);
    }
    check_gives(cx, before.role.max(user.role))?;
    let (_, index) = check_new(cx, &user.email, user.role)?;
    cx.delete(&email_key(cx, &before.email))?;
    cx.put(&index, &user.id)?;
    user.email_verified = false;
    user.authz += 1;
    end_sessions(cx, user.id, None)?;
    tickets::end_all(cx, user.id)?;
    // Where they can still be reached if it was not meant well; from now on mails go to the new one.
    notify_of(cx, before, Change::Address)?;
    Ok(draft.with("address", true))
}

/// Shuts a person out, or lets them in again.
fn switch(
    cx: &mut Cx<'_, '_>,
    before: &UserRow,
    user: &mut UserRow,
    draft: Draft,
) -> Result<Draft, TenantError> {
    if user.deactivated == before.deactivated {
        return Ok(draft);
    }
    if !user.deactivated {
        check_gives(cx, user.role)?;
        return Ok(draft.with("active", true));
    }
    user.authz += 1;
    let ended = end_sessions(cx, user.id, None)?;
    tickets::end_all(cx, user.id)?;
    Ok(draft.with("active", false).with("sessions_ended", ended))
}
