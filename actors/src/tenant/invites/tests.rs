//! Who is let in by an invitation, and what it counts for meanwhile.

use super::*;
use crate::tenant::mail::{Content, ReadDueMail};
use crate::tenant::members::scene::{NODE, Scene, person};
use crate::tenant::members::{AddMember, RemoveMember};
use crate::tenant::recovery::links::{LinkKind, ReadLink};

const NOBODY: Principal = Principal::Anonymous;

fn invite(
    scene: &mut Scene,
    by: &Principal,
    email: &str,
    role: Role,
) -> Result<InviteId, TenantError> {
    let command = CreateInvite { email: email.to_owned(), role };
    scene.run(by, command).map(|(id, _)| id)
}

fn link(scene: &mut Scene) -> Option<MailedToken> {
    let due = scene.ask(&NODE, ReadDueMail { limit: 100 }).unwrap();
    due.into_iter().rev().find_map(|due| match due.letter?.content {
        Content::Invite { link, .. } => MailedToken::parse(&link.token),
        _ => None,
    })
}

fn accept(scene: &mut Scene, token: &MailedToken) -> Result<Credential, TenantError> {
    let command = AcceptInvite { token: token.clone(), password_phc: "chosen".to_owned() };
    scene.run(&NOBODY, command)
}

fn limited(members: u64) -> Scene {
    let mut scene = Scene::new();
    scene.plan.members = Some(members);
    scene
}

#[test]
fn whoever_shows_the_link_becomes_a_member_once() {
    let mut scene = Scene::new();
    let owner = scene.add("ann@example.org", Role::Owner);
    let me = person(owner, Role::Owner);
    invite(&mut scene, &me, " Bob@Example.org", Role::Admin).unwrap();
    let token = link(&mut scene).unwrap();
    let email = scene.ask(&NOBODY, CheckInvite { token: token.clone() }).unwrap();
    assert_eq!(email, "bob@example.org");
    let told = scene.ask(&NOBODY, ReadLink { token: token.clone() }).unwrap();
    assert_eq!((told.kind, told.role), (LinkKind::Invite, Some(Role::Admin)));
    assert_eq!(told.expires_at, rfc3339(scene.now_ms + limits::INVITE_MS));
    let credential = accept(&mut scene, &token).unwrap();
    let row = scene.user(credential.user).unwrap();
    assert_eq!((row.role, row.email_verified), (Role::Admin, true));
    assert!(matches!(accept(&mut scene, &token), Err(TenantError::BadLink)));
    assert!(matches!(scene.ask(&NOBODY, ReadLink { token }), Err(TenantError::BadLink)), "used");
    assert_eq!((scene.noted("invite.create"), scene.noted("invite.accept")), (1, 1));
    assert_eq!(scene.state.used(Quota::Members), 2);
}

#[test]
fn an_invitation_is_worth_no_more_than_who_stands_for_it() {
    let mut scene = Scene::new();
    let owner = person(scene.add("ann@example.org", Role::Owner), Role::Owner);
    let admin = scene.add("bob@example.org", Role::Admin);
    let id = invite(&mut scene, &person(admin, Role::Admin), "c@example.org", Role::Admin).unwrap();
    let token = link(&mut scene).unwrap();
    // Whoever may invite no more, or is gone, leaves no door open.
    scene.change(admin, |row| row.role = Role::Viewer);
    assert!(matches!(accept(&mut scene, &token), Err(TenantError::BadLink)));
    scene.change(admin, |row| row.role = Role::Admin);
    scene.change(admin, |row| row.deactivated = true);
    assert!(matches!(accept(&mut scene, &token), Err(TenantError::BadLink)));
    scene.run(&NODE, RemoveMember { user: admin }).unwrap();
    assert!(matches!(accept(&mut scene, &token), Err(TenantError::BadLink)));
    assert!(standing_of(&mut scene, "c@example.org").is_none());
    // Until somebody else stands for it.
    scene.run(&owner, ResendInvite { invite: id }).unwrap();
    let token = link(&mut scene).unwrap();
    assert!(accept(&mut scene, &token).is_ok());
}

fn standing_of(scene: &mut Scene, email: &str) -> Option<InviteRow> {
    scene.read(&NOBODY, |cx| standing_for(cx, email)).unwrap()
}

#[test]
fn an_invitation_takes_its_place_in_the_quota_until_it_ends() {
    let mut scene = limited(2);
    scene.add("ann@example.org", Role::Owner);
    let id = invite(&mut scene, &NODE, "bob@example.org", Role::Member).unwrap();
    let full = |result: Result<(), TenantError>| {
        matches!(result, Err(TenantError::QuotaExceeded { quota: Quota::Members, limit: 2 }))
    };
    assert!(full(invite(&mut scene, &NODE, "eve@example.org", Role::Member).map(drop)));
    let add = || AddMember {
        email: "eve@example.org".to_owned(),
        role: Role::Member,
        password_phc: "phc".to_owned(),
    };
    assert!(full(scene.run(&NODE, add()).map(drop)));
    scene.now_ms += limits::INVITE_MS;
    let token = link(&mut scene);
    assert!(token.is_none(), "too old to be mailed");
    scene.run(&NODE, add()).unwrap();
    assert!(full(scene.run(&NODE, ResendInvite { invite: id }).map(drop)), "its place is taken");
}

#[test]
fn accepting_never_fails_for_want_of_room() {
    let mut scene = limited(2);
    scene.add("ann@example.org", Role::Owner);
    invite(&mut scene, &NODE, "bob@example.org", Role::Member).unwrap();
    let token = link(&mut scene).unwrap();
    accept(&mut scene, &token).unwrap();
    assert_eq!(scene.state.used(Quota::Members), 2);
}

#[test]
fn sent_again_only_the_newest_link_counts() {
    let mut scene = Scene::new();
    scene.add("ann@example.org", Role::Owner);
    let id = invite(&mut scene, &NODE, "bob@example.org", Role::Member).unwrap();
    let first = link(&mut scene).unwrap();
    scene.now_ms += limits::INVITE_MS + 1;
    scene.run(&NODE, ResendInvite { invite: id }).unwrap();
    assert!(matches!(accept(&mut scene, &first), Err(TenantError::BadLink)));
    let second = link(&mut scene).unwrap();
    scene.run(&NODE, RevokeInvite { invite: id }).unwrap();
    assert!(matches!(accept(&mut scene, &second), Err(TenantError::BadLink)));
    assert!(link(&mut scene).is_none(), "a withdrawn invitation is not mailed any more");
}

#[test]
fn nobody_invites_above_their_own_role_or_somebody_who_is_here_or_invited() {
    let mut scene = Scene::new();
    scene.add("ann@example.org", Role::Owner);
    let admin = scene.add("adam@example.org", Role::Admin);
    let admin = person(admin, Role::Admin);
    let above = invite(&mut scene, &admin, "bob@example.org", Role::Owner);
    assert!(matches!(above, Err(TenantError::Forbidden { .. })));
    let here = invite(&mut scene, &admin, "ANN@example.org", Role::Member);
    assert!(matches!(here, Err(TenantError::Conflict(Conflict::EmailTaken))));
    let id = invite(&mut scene, &NODE, "bob@example.org", Role::Owner).unwrap();
    let again = invite(&mut scene, &admin, "Bob@example.org", Role::Member);
    assert!(matches!(again, Err(TenantError::Conflict(Conflict::AlreadyInvited))));
    // Nor does an administrator touch an owner's invitation.
    for refused in [
        scene.run(&admin, ResendInvite { invite: id }).map(drop),
        scene.run(&admin, RevokeInvite { invite: id }),
    ] {
        assert!(matches!(refused, Err(TenantError::Forbidden { .. })));
    }
}

#[test]
fn a_list_says_which_invitations_stand() {
    let mut scene = Scene::new();
    invite(&mut scene, &NODE, "bob@example.org", Role::Member).unwrap();
    scene.now_ms += limits::INVITE_MS;
    invite(&mut scene, &NODE, "eve@example.org", Role::Member).unwrap();
    let paging = Paging { limit: 10, cursor: None };
    let page = scene.ask(&NODE, ListInvites { paging }).unwrap();
    let said: Vec<String> = page
        .items
        .iter()
        .map(|item| {
            let view: serde_json::Value = serde_json::from_slice(item).unwrap();
            assert!(!view.to_string().contains("bkt_"), "no link");
            view["status"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(said, ["expired", "pending"]);
    // An expired one makes way for a new one to the same address.
    invite(&mut scene, &NODE, "bob@example.org", Role::Member).unwrap();
    assert_eq!(all_ids(&mut scene), 2);
}

fn all_ids(scene: &mut Scene) -> usize {
    let paging = Paging { limit: 10, cursor: None };
    scene.ask(&NODE, ListInvites { paging }).unwrap().items.len()
}
