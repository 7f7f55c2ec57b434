//! People come and go, within what their own roles allow.

use super::scene::{NODE, Scene, holder, person};
use super::*;

fn add(email: &str, role: Role) -> AddMember {
    AddMember { email: email.to_owned(), role, password_phc: "phc".to_owned() }
}

fn change(user: UserId, role: Role) -> ChangeRole {
    ChangeRole { user, role, if_match: None }
}

fn page(limit: usize, cursor: Option<String>) -> ListMembers {
    ListMembers { paging: Paging { limit, cursor } }
}

#[test]
fn an_address_is_taken_in_whatever_case_it_is_written() {
    let mut scene = Scene::new();
    scene.add("ann@example.org", Role::Owner);
    let again = scene.run(&NODE, add(" ANN@Example.org", Role::Member));
    assert!(matches!(again, Err(TenantError::Conflict(Conflict::EmailTaken))));
    let wrong = scene.run(&NODE, add("ann", Role::Member));
    assert!(matches!(wrong, Err(TenantError::Invalid(errors)) if errors[0].pointer == "/email"));
}

#[test]
fn members_are_counted_exactly_and_the_quota_refuses_the_next() {
    let mut scene = Scene::new();
    scene.plan.members = Some(2);
    scene.add("a@b.c", Role::Owner);
    let second = scene.add("b@b.c", Role::Member);
    let third = scene.run(&NODE, add("c@b.c", Role::Member));
    assert!(matches!(third, Err(TenantError::QuotaExceeded { quota: Quota::Members, limit: 2 })));
    scene.run(&NODE, RemoveMember { user: second }).unwrap();
    assert_eq!(scene.state.used(Quota::Members), 1);
    scene.run(&NODE, add("b@b.c", Role::Member)).unwrap();
}

#[test]
fn a_tenant_is_handed_over_in_one_step_and_by_its_owner_only() {
    let mut scene = Scene::new();
    let owner = scene.add("a@b.c", Role::Owner);
    let heir = scene.add("b@b.c", Role::Member);
    let customer = scene.add("c@b.c", Role::Customer);
    let me = person(owner, Role::Owner);
    for to in [owner, customer] {
        let refused = scene.run(&me, TransferOwnership { to });
        assert!(matches!(refused, Err(TenantError::Invalid(errors)) if errors[0].pointer == "/to"));
    }
    scene.run(&me, TransferOwnership { to: heir }).unwrap();
    let (giver, taker) = (scene.user(owner).unwrap(), scene.user(heir).unwrap());
    assert_eq!((giver.role, taker.role), (Role::Admin, Role::Owner));
    assert_eq!((giver.authz, taker.authz), (2, 2), "older tokens end");
    assert_eq!((scene.state.owners, scene.noted("tenant.transfer")), (1, 1));
}

#[test]
fn the_last_owner_can_neither_step_down_nor_leave_nor_be_removed() {
    let mut scene = Scene::new();
    let owner = scene.add("a@b.c", Role::Owner);
    let me = person(owner, Role::Owner);
    for asker in [&me, &NODE] {
        let stepped = scene.run(asker, change(owner, Role::Admin));
        assert!(matches!(stepped, Err(TenantError::Conflict(Conflict::LastOwner))));
        let left = scene.run(asker, RemoveMember { user: owner });
        assert!(matches!(left, Err(TenantError::Conflict(Conflict::LastOwner))));
    }
    let second = scene.add("b@b.c", Role::Owner);
    scene.run(&me, change(owner, Role::Admin)).unwrap();
    let last = scene.run(&person(second, Role::Owner), RemoveMember { user: second });
    assert!(matches!(last, Err(TenantError::Conflict(Conflict::LastOwner))));
    assert_eq!(scene.state.owners, 1);
}

#[test]
fn nobody_gives_a_role_above_their_own_or_touches_a_person_who_has_one() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@b.c", Role::Owner);
    let admin = scene.add("admin@b.c", Role::Admin);
    let member = scene.add("member@b.c", Role::Member);
    let asker = person(admin, Role::Admin);
    for result in [
        scene.run(&asker, add("x@b.c", Role::Owner)).map(drop),
        scene.run(&asker, change(member, Role::Owner)).map(drop),
        scene.run(&asker, change(admin, Role::Owner)).map(drop),
        scene.run(&asker, change(owner, Role::Viewer)).map(drop),
        scene.run(&asker, RemoveMember { user: owner }),
    ] {
        assert!(matches!(result, Err(TenantError::Forbidden { .. })), "{result:?}");
    }
    scene.run(&asker, change(member, Role::Admin)).unwrap();
    scene.run(&person(owner, Role::Owner), change(member, Role::Owner)).unwrap();
}

#[test]
fn platform_administrators_exist_on_the_platform_and_nowhere_else() {
    let mut tenant = Scene::new();
    let made = tenant.run(&NODE, add("a@b.c", Role::PlatformAdmin));
    assert!(matches!(made, Err(TenantError::Invalid(errors)) if errors[0].pointer == "/role"));
    let mut platform = Scene::of(TenantId::PLATFORM);
    assert!(platform.run(&NODE, add("a@b.c", Role::Owner)).is_err());
    platform.add("a@b.c", Role::PlatformAdmin);
}

#[test]
fn a_change_of_role_outdates_access_tokens_and_counts_as_a_change() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let user = scene.add("b@b.c", Role::Member);
    let changed = scene.run(&NODE, change(user, Role::Viewer)).unwrap();
    let row = scene.user(user).unwrap();
    assert_eq!((row.authz, row.version, changed.version), (2, 2, 2));
    let stale = ChangeRole { if_match: Some(1), ..change(user, Role::Admin) };
    assert!(matches!(scene.run(&NODE, stale), Err(TenantError::VersionMismatch)));
    scene.run(&NODE, change(user, Role::Viewer)).unwrap();
    assert_eq!(scene.user(user).unwrap().authz, 2, "the same role again changes nothing");
    assert_eq!(scene.noted("member.role_change"), 1);
}

#[test]
fn anyone_may_leave_but_only_admins_and_owners_remove_others() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@b.c", Role::Owner);
    for role in [Role::Customer, Role::Viewer, Role::Member] {
        let user = scene.add(&format!("{role}@b.c"), role);
        let opened = scene.sign_in(user);
        let me = holder(&opened);
        for other in [owner, UserId::new(1, [1; 10])] {
            let refused = scene.run(&me, RemoveMember { user: other });
            assert!(matches!(refused, Err(TenantError::Forbidden { .. })), "{role}: {refused:?}");
        }
        scene.run(&me, RemoveMember { user }).unwrap();
        assert_eq!(scene.user(user), None);
        let (actor, draft) = scene.drafts.last().unwrap();
        assert_eq!(actor.email.as_deref(), Some(format!("{role}@b.c").as_str()));
        assert_eq!(draft.action, "member.remove");
    }
    assert_eq!(scene.state.used(Quota::Members), 1);
}

#[test]
fn a_removed_person_has_no_sessions_and_their_address_is_free() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let user = scene.add("b@b.c", Role::Member);
    let opened = scene.sign_in(user);
    scene.run(&NODE, RemoveMember { user }).unwrap();
    let token = crate::tenant::sessions::RefreshToken::parse(&opened.refresh_token).unwrap();
    let refreshed =
        scene.run(&Principal::Anonymous, crate::tenant::sessions::RefreshSession { token });
    assert!(matches!(refreshed, Err(TenantError::BadCredentials)));
    assert_ne!(scene.add("b@b.c", Role::Member), user);
}

#[test]
fn pages_follow_each_other_without_gaps_and_a_made_up_cursor_is_refused() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@b.c", Role::Owner);
    for index in 0..4 {
        scene.now_ms += 1;
        scene.add(&format!("user{index}@b.c"), Role::Member);
    }
    let asker = person(owner, Role::Owner);
    let (mut emails, mut cursor) = (Vec::new(), None);
    loop {
        let Page { items, next } = scene.ask(&asker, page(2, cursor)).unwrap();
        for item in items {
            let view: serde_json::Value = serde_json::from_slice(&item).unwrap();
            emails.push(view["email"].as_str().unwrap().to_owned());
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(emails, ["owner@b.c", "user0@b.c", "user1@b.c", "user2@b.c", "user3@b.c"]);
    let made_up = scene.ask(&asker, page(2, Some("AAAA".to_owned())));
    assert!(
        matches!(made_up, Err(TenantError::Invalid(errors)) if errors[0].pointer == "query/cursor")
    );
}

#[test]
fn a_member_view_never_shows_the_password() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@b.c", Role::Owner);
    let document = scene.ask(&person(owner, Role::Owner), ReadMember { user: owner }).unwrap();
    assert!(!String::from_utf8_lossy(&document.json).contains("phc"));
    let absent =
        scene.ask(&person(owner, Role::Owner), ReadMember { user: UserId::new(1, [0; 10]) });
    assert!(matches!(absent, Err(TenantError::NotFound)));
}
