//! The people who run the platform: removing one of them, and whether somebody still is one.
//!
//! What they left open in tenants is for whoever removes them to end; until that is done, and where it cannot be,
//! [`IsPlatformAdmin`] keeps it shut.
//!
//! Refuses: to remove the last one who can sign in.

use serde::{Deserialize, Serialize};
use storage::id::{TenantId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::permit::{self, Role};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::forms::lists::{Step, walk};
use crate::tenant::members::{find_by_email, forget_person, sessions_of};
use crate::tenant::people::UserRow;
use crate::tenant::support::asking::{SupportAsked, maybe_living_of};

impl UserRow {
    fn runs_the_platform(&self) -> bool {
        self.role == Role::PlatformAdmin && !self.deactivated
    }
}

/// Removes a platform administrator: their sessions and everything that is theirs alone.
#[derive(Debug)]
pub struct RemovePlatformAdmin {
    /// Their address, in any form.
    pub email: String,
}

/// What came of removing one.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemovedAdmin {
    /// Who it was.
    pub user: UserId,
    /// Their address.
    pub email: String,
    /// How many of their sessions ended.
    pub sessions: u64,
    /// Support sessions they asked for that may wait or be open.
    pub support: Vec<SupportAsked>,
}

impl Command for RemovePlatformAdmin {
    type Action = permit::RemoveMembers;
    type Reply = RemovedAdmin;
    const NAME: &'static str = "platform_admin.remove";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<RemovedAdmin, TenantError> {
        if cx.tenant() != TenantId::PLATFORM {
            return Err(TenantError::NotFound);
        }
        let row = find_by_email(cx, &self.email)?.ok_or(TenantError::NotFound)?;
        if !has_another(cx, row.id)? {
            return Err(TenantError::Conflict(Conflict::LastOwner));
        }
        let support = maybe_living_of(cx, row.id)?;
        let sessions = sessions_of(cx, row.id)?.len() as u64;
        cx.audit(Draft::success(Self::NAME, row.named()).with("sessions_ended", sessions));
        forget_person(cx, &row, true)?;
        Ok(RemovedAdmin { user: row.id, email: row.email, sessions, support })
    }
}

/// Whether somebody but `user` can sign in and run the platform.
fn has_another(cx: &impl Reads, user: UserId) -> Result<bool, TenantError> {
    let all = Prefix::kind(&Key::User { id: user });
    let mut found = false;
    walk(cx, Scan { limit: usize::MAX, ..Scan::all(all) }, |_, bytes| {
        let row: UserRow = value::decode(bytes)?;
        found = row.id != user && row.runs_the_platform() && row.password.is_some();
        Ok(if found { Step::Stop } else { Step::Next })
    })?;
    Ok(found)
}

/// Whether somebody runs the platform, as of now. Asked of the platform's own compartment for each use of what a
/// platform administrator was given in a tenant.
#[derive(Debug)]
pub struct IsPlatformAdmin {
    /// Who.
    pub user: UserId,
}

impl Query for IsPlatformAdmin {
    type Action = permit::SignIn;
    type Reply = bool;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<bool, TenantError> {
        let row: Option<UserRow> = cx.row(&Key::User { id: self.user })?;
        let is_one = row.is_some_and(|row| row.runs_the_platform());
        Ok(is_one && cx.tenant() == TenantId::PLATFORM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::members::scene::{NODE, Scene};

    fn remove(scene: &mut Scene, email: &str) -> Result<RemovedAdmin, TenantError> {
        scene.run(&NODE, RemovePlatformAdmin { email: email.to_owned() })
    }

    fn is_one(scene: &mut Scene, user: UserId) -> bool {
        scene.ask(&permit::Principal::Anonymous, IsPlatformAdmin { user }).unwrap()
    }

    #[test]
    fn a_removed_one_leaves_nothing_and_the_last_who_can_sign_in_stays() {
        let mut scene = Scene::of(TenantId::PLATFORM);
        let ann = scene.add("ann@example.org", Role::PlatformAdmin);
        let refused = remove(&mut scene, "ann@example.org");
        assert!(matches!(refused, Err(TenantError::Conflict(Conflict::LastOwner))));
        let bob = scene.add("bob@example.org", Role::PlatformAdmin);
        assert!(matches!(remove(&mut scene, "eve@example.org"), Err(TenantError::NotFound)));
        scene.sign_in(bob);
        assert!(is_one(&mut scene, bob));

        let removed = remove(&mut scene, " Bob@example.org ").unwrap();
        assert_eq!((removed.user, removed.sessions), (bob, 1));
        assert!(scene.user(bob).is_none() && scene.sessions(bob).is_empty());
        assert!(!is_one(&mut scene, bob) && is_one(&mut scene, ann));
        assert_eq!(scene.noted("platform_admin.remove"), 1);
        scene.add("bob@example.org", Role::PlatformAdmin);
        scene.change(ann, |row| row.deactivated = true);
        let refused = remove(&mut scene, "bob@example.org");
        assert!(matches!(refused, Err(TenantError::Conflict(Conflict::LastOwner))));
        remove(&mut scene, "ann@example.org").unwrap();
    }

    #[test]
    fn a_tenants_people_run_no_platform_and_are_not_removed_by_this() {
        let mut scene = Scene::new();
        let user = scene.add("ann@example.org", Role::Owner);
        scene.add("bob@example.org", Role::Owner);
        assert!(matches!(remove(&mut scene, "ann@example.org"), Err(TenantError::NotFound)));
        assert!(!is_one(&mut scene, user));
    }
}
