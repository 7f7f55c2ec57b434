//! What an API key may be given, and the principal that speaks when one is used.
//!
//! A key never has more than its creator, and some powers it never has at all: those that only owners
//! have, those over oneself (sessions, passwords), those of the platform, those over keys, and those over
//! who may vouch for people. An end user's rights cannot be handed on either, because they are about that person's own records.

use std::fmt;
use std::ops::BitAnd;

use storage::id::{ApiKeyId, UserId};

use super::{CAPABILITIES, Capability, Role};

/// A set of capabilities, by their places in [`CAPABILITIES`]. Never stored: rows hold names.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u128);

const _: () = assert!(CAPABILITIES.len() <= 128, "a set of capabilities has 128 places");

impl Scopes {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Everything that some key may have.
    pub fn all() -> Self {
        Self::of(|capability| capability.is_scope())
    }

    /// What somebody with that role may hand to a key.
    pub fn of_role(role: Role) -> Self {
        match role {
            Role::Customer => Self::NONE,
            role => Self::held_by(role),
        }
    }

    /// What a role has, as far as keys may have it.
    fn held_by(role: Role) -> Self {
        Self::of(|capability| capability.is_scope() && capability.roles.contains(role))
    }

    pub(super) fn of(wanted: impl Fn(&Capability) -> bool) -> Self {
        let at = CAPABILITIES.iter().enumerate().filter(|(_, row)| wanted(row));
        Self(at.fold(0, |bits, (at, _)| bits | 1 << at))
    }

    /// The set with the one capability of that name; nothing if no key can have it.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::of(|capability| capability.name == name && capability.is_scope());
        (found != Self::NONE).then_some(found)
    }

    /// The names, in the order of the matrix.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let is_in = move |at: usize| self.0 & 1 << at != 0;
        CAPABILITIES.iter().enumerate().filter(move |(at, _)| is_in(*at)).map(|(_, row)| row.name)
    }

    /// Whether the capability is in the set.
    pub fn contains(self, capability: &Capability) -> bool {
        let at = CAPABILITIES.iter().position(|row| row.name == capability.name);
        at.is_some_and(|at| self.0 & 1 << at != 0)
    }

    /// Whether everything in the set is in `other` as well.
    pub fn is_within(self, other: Self) -> bool {
        self & other == self
    }

    /// This set and the other one together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Scopes {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Capability {
    /// Whether an API key can have it.
    pub fn is_scope(&self) -> bool {
        // What platform administrators have is about the platform or about oneself; and no program decides
        // what people need to get in.
        self.roles.contains(Role::Admin)
            && !self.roles.contains(Role::PlatformAdmin)
            && !self.name.starts_with("api-keys:")
            && !self.name.starts_with("identity-providers:")
            && !["tenant:update", "support:decide"].contains(&self.name)
    }
}

/// An API key in use.
///
/// At the edge it is what the tenant last said of the key. The tenant makes a new one for every message,
/// from what it has now, and lets that one ask: nothing the edge remembers can be more than a guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePrincipal {
    /// Which key.
    pub key: ApiKeyId,
    /// Who made it. What the key does counts as theirs: authorship, access lists, four eyes.
    pub user: UserId,
    /// The role they have now.
    pub role: Role,
    /// What the key was given, as far as that role still has it.
    pub scopes: Scopes,
}

impl ServicePrincipal {
    /// Whether the key may add, change and remove people with that role: it must itself be able to do
    /// all that they can, or a narrow key could make itself a person with wide rights. Owners: never.
    pub fn may_manage(&self, role: Role) -> bool {
        role < Role::Owner && role <= self.role && Scopes::held_by(role).is_within(self.scopes)
    }
}

#[cfg(test)]
mod tests {
    use storage::id::Id as _;

    use super::*;
    use crate::permit::{Action as _, ReadForms, UpdateForms, WriteMembers};

    #[test]
    fn no_key_has_powers_over_credentials_the_platform_or_what_only_owners_may() {
        for name in Scopes::all().names() {
            for never in ["me:", "sessions:", "api-keys:", "platform-", "auth:", "hooks:", "node:"]
            {
                assert!(!name.starts_with(never), "{name}");
            }
            assert!(Scopes::named(name).is_some_and(|scope| scope.is_within(Scopes::all())));
        }
        for never in ["tenant:update", "tenant:restore", "sessions:write", "forms", ""] {
            assert_eq!(Scopes::named(never), None, "{never}");
        }
    }

    #[test]
    fn an_owner_hands_on_what_an_admin_does_and_lower_roles_less() {
        assert_eq!(Scopes::of_role(Role::Owner), Scopes::of_role(Role::Admin));
        assert_eq!(Scopes::of_role(Role::Admin), Scopes::all());
        let member = Scopes::of_role(Role::Member);
        assert!(member.is_within(Scopes::all()) && member != Scopes::all());
        assert!(member.contains(UpdateForms::ROW) && !member.contains(WriteMembers::ROW));
        for none in [Role::Customer, Role::PlatformAdmin] {
            assert_eq!(Scopes::of_role(none), Scopes::NONE, "{none}");
        }
    }

    #[test]
    fn a_key_manages_only_people_who_can_do_no_more_than_itself() {
        let all = ServicePrincipal {
            key: ApiKeyId::new(1, [1; 10]),
            user: UserId::new(1, [2; 10]),
            role: Role::Owner,
            scopes: Scopes::all(),
        };
        assert!(all.may_manage(Role::Admin) && !all.may_manage(Role::Owner));
        let of_member = ServicePrincipal { role: Role::Member, ..all };
        assert!(of_member.may_manage(Role::Viewer) && !of_member.may_manage(Role::Admin));
        let scopes = Scopes::named("members:write").unwrap();
        let narrow = ServicePrincipal { scopes, ..all };
        for role in [Role::Customer, Role::Viewer, Role::Member, Role::Admin] {
            assert!(!narrow.may_manage(role), "{role}");
        }
    }

    #[test]
    fn sets_are_printed_by_name() {
        let set = Scopes::named("forms:read").unwrap().with(Scopes::named("teams:read").unwrap());
        assert_eq!(set.names().collect::<Vec<_>>(), ["teams:read", "forms:read"]);
        assert_eq!(format!("{set:?}"), r#"{"teams:read", "forms:read"}"#);
        assert!(set.contains(ReadForms::ROW) && !set.contains(UpdateForms::ROW));
    }
}
