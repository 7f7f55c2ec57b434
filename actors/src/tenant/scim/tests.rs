//! SCIM against a tenant alone: what people and teams become, and what is refused.

use serde_json::json;
use storage::id::{Id as _, UserId};
use storage::keys::Key;

use super::groups::{ChangeGroup, CreateGroup, GroupChange};
use super::schema::{GROUP, USER};
use super::users::{ChangeUser, CreateUser, UserChange};
use super::*;
use crate::permit::{Principal, Role};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::members::RemoveMember;
use crate::tenant::members::scene::{NODE, Scene, holder, person};
use crate::tenant::recovery::RequestReset;
use crate::tenant::sessions::{
    Credential, OpenSession, ReadCredential, RefreshSession, RefreshToken,
};

fn object(value: Value) -> Attributes {
    value.as_object().expect("an object").clone()
}

fn create(value: Value) -> CreateUser {
    CreateUser { body: object(value), base: String::new() }
}

fn change(user: UserId, operations: Value) -> ChangeUser {
    let operations = patch::read(&object(json!({"Operations": operations}))).unwrap();
    let change = UserChange::Patch(operations);
    ChangeUser { user, change, if_match: None, base: String::new() }
}

fn off(user: UserId) -> ChangeUser {
    change(user, json!([{"op": "replace", "path": "active", "value": false}]))
}

fn shown(document: &crate::call::Document) -> Value {
    serde_json::from_slice(&document.json).unwrap()
}

#[test]
fn whoever_goes_takes_along_what_the_directory_said_of_them() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let body = json!({"userName": "bob@b.c", "displayName": "Bob", "name": {"givenName": "B"}});
    let user = scene.run(&NODE, create(body)).unwrap().id;
    assert!(scene.has(&Key::Provisioned { user }));
    assert_eq!(scene.user(user).unwrap().password, None);
    scene.run(&NODE, RemoveMember { user }).unwrap();
    assert!(!scene.has(&Key::Provisioned { user }));
}

#[test]
fn nothing_lets_in_who_was_switched_off_not_even_what_was_proven_before() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let user = scene.add("bob@b.c", Role::Member);
    let opened = scene.sign_in(user);
    let token = RefreshToken::parse(&opened.refresh_token).unwrap();
    scene.run(&NODE, off(user)).unwrap();
    let row = scene.user(user).unwrap();
    assert!(row.deactivated && row.authz == 2);
    let email = "bob@b.c".to_owned();
    let asked = ReadCredential { email: email.clone() };
    assert!(scene.ask(&Principal::Anonymous, asked).unwrap().is_none());
    // The password was compared before, and the answer comes after.
    let credential = Credential { user, password_phc: "phc".to_owned() };
    let late = scene.run(&Principal::Anonymous, OpenSession { credential });
    assert!(matches!(late.map(|_| ()), Err(TenantError::BadCredentials)));
    let refreshed = scene.run(&Principal::Anonymous, RefreshSession { token });
    assert!(matches!(refreshed, Err(TenantError::BadCredentials)));
    let reset = RequestReset { email: Some(email.clone()), account: email };
    scene.run(&Principal::Anonymous, reset).unwrap();
    assert_eq!(scene.state.mail.waiting, 0, "a link was mailed to somebody who is shut out");
}

#[test]
fn saying_again_what_is_so_changes_and_writes_down_nothing() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@b.c", Role::Owner);
    let asker = person(owner, Role::Owner);
    let body = json!({"userName": "bob@b.c", "externalId": "1", "emails": [{"value": "x@y.z", "primary": true}]});
    let user = scene.run(&asker, create(body.clone())).unwrap().id;
    let replace = UserChange::Replace(object(body));
    let again = ChangeUser { user, change: replace, if_match: Some(1), base: String::new() };
    assert_eq!(scene.run(&asker, again).unwrap().version, 1);
    let same =
        change(user, json!([{"op": "add", "path": "emails", "value": [{"value": "x@y.z"}]}]));
    let document = scene.run(&asker, same).unwrap();
    assert_eq!(
        shown(&document)["emails"],
        json!([{"value": "x@y.z"}]),
        "the value itself was given anew"
    );
    assert_eq!(scene.noted("scim.user_update"), 1);
    let owner_again = json!([{"op": "replace", "path": "active", "value": true}]);
    scene.run(&asker, change(owner, owner_again)).unwrap();
    let owner_off = scene.run(&asker, off(owner));
    assert!(matches!(owner_off, Err(TenantError::Conflict(Conflict::LastOwner))));
}

#[test]
fn a_session_of_an_administrator_gives_what_the_administrator_may() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let admin = scene.add("admin@b.c", Role::Admin);
    let opened = scene.sign_in(admin);
    let asker = holder(&opened);
    let with_role =
        |name: &str, role: &str| create(json!({"userName": name, "roles": [{"value": role}]}));
    scene.run(&asker, with_role("a@b.c", "Admin")).unwrap();
    let owner = scene.run(&asker, with_role("o@b.c", "owner"));
    assert!(matches!(owner, Err(TenantError::Forbidden { .. })));
    for odd in ["root", "platform-admin", ""] {
        let refused = scene.run(&asker, with_role("x@b.c", odd));
        let is_kept_out = matches!(refused, Err(TenantError::Scim(Fault::InvalidValue(_))));
        assert!(is_kept_out || odd.is_empty() && refused.is_ok(), "{odd}");
    }
}

#[test]
fn nobody_is_made_less_by_who_could_not_make_them_that() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let admin = scene.add("admin@b.c", Role::Admin);
    let opened = scene.sign_in(admin);
    let scopes = crate::permit::Scopes::named("scim:write").unwrap();
    let key = crate::permit::ServicePrincipal {
        key: storage::id::ApiKeyId::from_bytes([3; 16]),
        user: admin,
        role: Role::Admin,
        scopes,
    };
    let key = Principal::Service(std::sync::Arc::new(key));
    let other = scene.add("other@b.c", Role::Admin);
    let less = json!([{"op": "replace", "path": "roles", "value": [{"value": "member"}]}]);
    let refused = scene.run(&key, change(other, less.clone()));
    assert!(matches!(refused, Err(TenantError::Forbidden { .. })));
    let renamed = json!([{"op": "replace", "path": "userName", "value": "thief@b.c"}]);
    let refused = scene.run(&key, change(other, renamed.clone()));
    assert!(matches!(refused, Err(TenantError::Forbidden { .. })));
    // Who may, ends the sessions with the address.
    let asker = holder(&opened);
    scene.sign_in(other);
    scene.run(&asker, change(other, renamed)).unwrap();
    assert!(scene.sessions(other).is_empty());
    scene.run(&asker, change(other, less)).unwrap();
    assert_eq!(scene.user(other).unwrap().role, Role::Member);
}

#[test]
fn a_role_that_is_taken_away_becomes_the_usual_one() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let user = scene.add("bob@b.c", Role::Viewer);
    let row = |scene: &mut Scene| {
        scene.ask(&NODE, super::users::ReadUser { user, base: String::new() }).map(|d| shown(&d))
    };
    assert_eq!(row(&mut scene).unwrap()["roles"], json!([{"value": "viewer"}]));
    scene.run(&NODE, change(user, json!([{"op": "remove", "path": "roles"}]))).unwrap();
    assert_eq!(scene.user(user).unwrap().role, Role::Member);
    assert_eq!(row(&mut scene).unwrap().get("roles"), None);
    scene
        .run(
            &NODE,
            change(user, json!([{"op": "add", "path": "roles", "value": [{"value": "viewer"}]}])),
        )
        .unwrap();
    assert_eq!(
        (scene.user(user).unwrap().role, scene.user(user).unwrap().authz),
        (Role::Viewer, 3)
    );
}

#[test]
fn a_team_keeps_what_a_change_does_not_name_and_refuses_what_is_no_person() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@b.c", Role::Owner);
    let make = |body: Value| CreateGroup { body: object(body), base: String::new() };
    let body =
        json!({"displayName": "A", "externalId": "x", "members": [{"value": owner.to_string()}]});
    let team = scene.run(&NODE, make(body)).unwrap().id;
    let operations = json!([{"op": "replace", "path": "displayName", "value": "B"}]);
    let operations = patch::read(&object(json!({"operations": operations}))).unwrap();
    let change = GroupChange::Patch(operations);
    let changed = ChangeGroup { team, change, if_match: Some(1), base: String::new() };
    let document = shown(&scene.run(&NODE, changed).unwrap());
    assert_eq!((&document["displayName"], &document["externalId"]), (&json!("B"), &json!("x")));
    assert_eq!(document["members"][0]["value"], owner.to_string());
    for member in [
        json!({"value": "us_1"}),
        json!({"value": UserId::from_bytes([9; 16]).to_string()}),
        json!({"value": owner.to_string(), "type": "Group"}),
        json!({"display": "Nobody"}),
    ] {
        let refused = scene.run(&NODE, make(json!({"displayName": "C", "members": [member]})));
        let is_refused = matches!(refused, Err(TenantError::Scim(Fault::InvalidValue(_))));
        assert!(
            is_refused || member.get("value").is_none(),
            "{member}: {:?}",
            refused.map(|made| made.id)
        );
    }
}

#[test]
fn a_row_of_an_older_release_reads_as_active() {
    // What a person's row was before directories: all fields but the last.
    let mut scene = Scene::new();
    let id = scene.add("a@b.c", Role::Member);
    let row = scene.user(id).unwrap();
    let bytes = storage::value::encode(&(
        row.id,
        row.email.clone(),
        row.role,
        row.password.clone(),
        row.authz,
        row.created_ms,
        row.updated_ms,
        row.version,
        row.email_verified,
    ));
    assert_eq!(storage::value::decode::<crate::tenant::people::UserRow>(&bytes).unwrap(), row);
    assert!(!row.deactivated);
}

#[test]
fn paths_are_looked_up_and_values_taken_in_every_case_and_no_other_way() {
    let read = |value: Value| shape::read(&USER, &object(value));
    let taken = read(json!({"USERNAME": "a@b.c", "Active": "TRUE", "meta": {"version": "9"}, "emails": "x@y.z", "name": {}})).unwrap();
    assert_eq!(
        Value::Object(taken),
        json!({"userName": "a@b.c", "active": true, "emails": [{"value": "x@y.z"}]})
    );
    for wrong in
        [json!({"active": 1}), json!({"userName": 7}), json!({"name": "B"}), json!({"emails": [7]})]
    {
        assert!(matches!(read(wrong.clone()), Err(Fault::InvalidValue(_))), "{wrong}");
    }
    let many: Vec<Value> = (0..1_001).map(|n| json!({"value": n.to_string()})).collect();
    assert!(shape::read(&GROUP, &object(json!({"members": many}))).is_err());
}
