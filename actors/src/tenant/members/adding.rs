//! Whether a person could be added at all, before anybody spends a password hash on them.
//!
//! What is answered here promises nothing: [`AddMember`] checks all of it again, in the one place
//! where nothing can come between the check and the write. Nothing in this file adds anybody.

use storage::id::UserId;

use crate::audit::entry::Named;
use crate::call::Document;
use crate::permit::{self, Role};
use crate::quota::Quota;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::invites;

use super::{AddMember, check_ceiling, check_new};

/// Everything that [`AddMember`] would refuse but the password.
fn check(cx: &impl Reads, email: &str, role: Role) -> Result<(), TenantError> {
    check_ceiling(cx, role)?;
    check_new(cx, email, role)?;
    invites::check_room(cx)?;
    // One person, and at least one byte of theirs.
    for quota in [Quota::Members, Quota::StorageBytes] {
        let used = cx.state().used(quota);
        if let Some(limit) = cx.plan().limit(quota).filter(|&limit| used >= limit) {
            return Err(TenantError::QuotaExceeded { quota, limit });
        }
    }
    Ok(())
}

/// Asks whether a person could be added now.
#[derive(Debug)]
pub struct CheckNewMember {
    /// Their address, in any form.
    pub email: String,
    /// As what.
    pub role: Role,
}

impl Query for CheckNewMember {
    type Action = permit::WriteMembers;
    type Reply = bool;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<bool, TenantError> {
        let profile = cx.state().profile.as_ref();
        let ends_ms = profile.and_then(|profile| profile.trial_ends_ms);
        if ends_ms.is_some_and(|ends_ms| cx.now_ms() >= ends_ms) {
            return Ok(false);
        }
        match check(cx, &self.email, self.role) {
            Ok(()) => Ok(true),
            Err(error @ (TenantError::Store(_) | TenantError::Value(_))) => Err(error),
            Err(_) => Ok(false),
        }
    }
}

/// Has a person refused whom [`CheckNewMember`] found impossible: the refusal is written down like
/// every other, and a repetition of the request that did add them gets the answer it got then.
#[derive(Debug)]
pub struct RefuseMember {
    /// Their address, in any form.
    pub email: String,
    /// As what.
    pub role: Role,
}

impl Command for RefuseMember {
    type Action = permit::WriteMembers;
    /// That of [`AddMember`], whose answers it repeats.
    type Reply = (UserId, Document);
    const NAME: &'static str = AddMember::NAME;

    fn target(&self) -> Named {
        Named::new("role", self.role)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        check(cx, &self.email, self.role)?;
        // What stood in the way went away in between. Nothing was done; the next attempt can be.
        Err(TenantError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use storage::id::Id as _;

    use super::*;
    use crate::tenant::error::Conflict;
    use crate::tenant::members::scene::{NODE, Scene, person};

    fn could(scene: &mut Scene, by: Role, email: &str, role: Role) -> bool {
        let asker = person(UserId::from_bytes([1; 16]), by);
        scene.ask(&asker, CheckNewMember { email: email.to_owned(), role }).unwrap()
    }

    #[test]
    fn what_would_be_refused_is_known_before() {
        let mut scene = Scene::new();
        scene.add("ann@example.org", Role::Owner);
        assert!(could(&mut scene, Role::Owner, "bob@example.org", Role::Owner));
        assert!(!could(&mut scene, Role::Admin, "bob@example.org", Role::Owner));
        assert!(!could(&mut scene, Role::Owner, " ANN@Example.org", Role::Viewer));
        assert!(!could(&mut scene, Role::Owner, "bob", Role::Viewer));
        assert!(!could(&mut scene, Role::Owner, "bob@example.org", Role::PlatformAdmin));
        scene.plan.members = Some(1);
        assert!(!could(&mut scene, Role::Owner, "bob@example.org", Role::Viewer));
    }

    #[test]
    fn a_refusal_says_what_adding_would_have_said_and_adds_nobody() {
        let mut scene = Scene::new();
        scene.add("ann@example.org", Role::Owner);
        let refuse = |email: &str| RefuseMember { email: email.to_owned(), role: Role::Viewer };
        let taken = scene.run(&NODE, refuse("ann@example.org"));
        assert!(matches!(taken, Err(TenantError::Conflict(Conflict::EmailTaken))));
        let possible = scene.run(&NODE, refuse("bob@example.org"));
        assert!(matches!(possible, Err(TenantError::Busy)));
        assert_eq!(scene.state.used(Quota::Members), 1);
    }
}
