//! Where everybody needs a second factor: who says so, from when on, and what is left to who has none.

use bulkhead::http::routes::{Access, ROUTES};
use serde_json::json;

use super::{EMAIL, complete, proven, sign_in};
use crate::kit::{
    Client, Fixture, Launcher, PASSWORD, Tenant, World, begin_enrolment, enrol, restore_to,
};

const NEEDED: &str = "mfa-enrolment-required";

fn require(by: &Client, required: bool, status: u16) -> crate::kit::Reply {
    by.patch("/v1/tenant", json!({"mfa_required": required}), status)
}

/// A tenant where everybody needs a second factor, and whose owner has one.
fn strict(world: &World) -> Tenant {
    let mut acme = world.tenant("acme");
    acme.owner = world.enrol("acme", EMAIL, &acme.owner);
    assert_eq!(require(&acme.owner, true, 200).json()["mfa_required"], true);
    acme
}

/// A member who has no second factor, signed in.
fn member_without_one(world: &World, acme: &Tenant) -> Client {
    let body = json!({"email": "new@acme.example", "role": "member", "password": PASSWORD});
    acme.owner.post("/v1/members", body, 201);
    world.sign_in("acme", "new@acme.example")
}

#[test]
fn owners_and_administrators_switch_the_policy_on_and_only_owners_off() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (admin, member) = (world.member(&acme, "admin"), world.member(&acme, "member"));
    let (admin, owner) = (
        world.enrol("acme", "admin@acme.example", &admin),
        world.enrol("acme", EMAIL, &acme.owner),
    );
    assert_eq!(acme.owner.get("/v1/tenant", 401).problem(), "invalid-token");
    assert_eq!(require(&member, true, 403).json()["action"], "tenant:update");
    assert_eq!(require(&admin, true, 200).json()["mfa_required"], true);
    assert_eq!(require(&admin, false, 403).json()["action"], "tenant:mfa-off");
    let rename = admin.patch("/v1/tenant", json!({"name": "Theirs"}), 403);
    assert_eq!(rename.json()["action"], "tenant:rename");
    assert_eq!(require(&owner, false, 200).json()["mfa_required"], false);
    member.get("/v1/forms", 200);
    let entries = owner.get("/v1/audit?action=tenant.mfa_policy", 200).json();
    let entries = entries["items"].as_array().expect("a list");
    let required: Vec<_> = entries.iter().map(|entry| &entry["detail"]["required"]).collect();
    assert_eq!(required, [&json!(false), &json!(true)]);
    let refused = owner.get("/v1/audit?action=tenant.update&outcome=refused", 200).json();
    assert_eq!(refused["items"].as_array().map(Vec::len), Some(2), "{refused}");
}

#[test]
fn the_policy_counts_from_the_next_request_on_for_tokens_that_are_older_than_it() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (member, viewer) = (world.member(&acme, "member"), world.member(&acme, "viewer"));
    let viewer = world.enrol("acme", "viewer@acme.example", &viewer);
    for person in [&member, &viewer, &acme.owner] {
        person.get("/v1/forms", 200);
    }
    require(&acme.owner, true, 200);
    for (path, person) in [
        ("/v1/forms", &member),
        ("/v1/me", &member),
        ("/v1/audit", &acme.owner),
        ("/v1/tenant", &acme.owner),
    ] {
        assert_eq!(person.get(path, 403).problem(), NEEDED, "{path}");
    }
    // What a role does not allow is not said to who has to enrol first.
    assert_eq!(member.get("/v1/audit", 403).problem(), NEEDED);
    viewer.get("/v1/forms", 200);
    // Also not for the owner, to switch it off again; and once it is off, nobody is held up.
    assert_eq!(require(&acme.owner, false, 403).problem(), NEEDED);
    let owner = world.enrol("acme", EMAIL, &acme.owner);
    require(&owner, false, 200);
    member.get("/v1/forms", 200);
}

#[test]
fn who_has_none_signs_in_to_enrol_one_and_to_nothing_else() {
    let world = World::start();
    let acme = world.tenant("acme");
    let submitter = world.member(&acme, "member");
    world.member(&acme, "admin");
    require(&acme.owner, true, 200);
    let signed_in = sign_in(&world.client, "admin@acme.example", PASSWORD);
    assert_eq!(signed_in.json()["mfa_enrolment_required"], true);
    let admin = world.client.with_token(&signed_in.str("/access_token"));
    let open = [
        "mfa.read",
        "mfa.begin-totp",
        "mfa.confirm-totp",
        "passkeys.begin",
        "passkeys.add",
        "auth.sign-out",
    ];
    let mut refused = 0;
    for (serial, route) in ROUTES.iter().enumerate() {
        if !matches!(route.access, Access::Tenant(_)) || open.contains(&route.id) {
            continue;
        }
        let fixture = Fixture::absent(serial);
        let body = fixture.body(route);
        let reply = admin.call(route.verb.name(), &fixture.path(route), body.as_ref());
        let is_read_first = reply.status == 422 && route.id == "me.change-password";
        assert!(
            is_read_first || (reply.status == 403 && reply.problem() == NEEDED),
            "{route}: {} {}",
            reply.status,
            reply.text()
        );
        refused += 1;
    }
    assert!(refused > 50, "{refused} routes");
    assert_eq!(submitter.get("/v1/forms", 403).problem(), NEEDED);
    let mfa = admin.get("/v1/me/mfa", 200).json();
    assert_eq!((&mfa["required"], &mfa["methods"]), (&json!(true), &json!([])));

    // A refresh gives no more than there was; the first code gives all.
    let refresh = json!({"refresh_token": signed_in.str("/refresh_token")});
    let refreshed = world.client.post("/v1/auth/refresh", refresh, 200);
    assert_eq!(refreshed.json()["mfa_enrolment_required"], true);
    let admin = world.client.with_token(&refreshed.str("/access_token"));
    assert_eq!(admin.get("/v1/forms", 403).problem(), NEEDED);
    let held = begin_enrolment(&admin);
    assert_eq!(admin.get("/v1/forms", 403).problem(), NEEDED, "begun is not enrolled");
    let code = json!({"code": held.fresh_code(world.now_ms())});
    let confirmed = admin.post("/v1/me/mfa/totp/confirm", code, 200);
    assert!(confirmed.json().get("mfa_enrolment_required").is_none());
    world.client.with_token(&confirmed.str("/access_token")).get("/v1/audit", 200);
    let refresh = json!({"refresh_token": confirmed.str("/refresh_token")});
    let refreshed = world.client.post("/v1/auth/refresh", refresh, 200);
    world.client.with_token(&refreshed.str("/access_token")).get("/v1/audit", 200);
}

#[test]
fn who_has_none_can_sign_out() {
    let world = World::start();
    let acme = strict(&world);
    let member = member_without_one(&world, &acme);
    member.act("/v1/auth/sign-out", 204);
    assert_eq!(member.get("/v1/me/mfa", 401).problem(), "invalid-token");
}

#[test]
fn where_it_is_needed_it_can_be_replaced_and_not_removed() {
    let world = World::start();
    let acme = strict(&world);
    let member = member_without_one(&world, &acme);
    let (member, held) = enrol(&member, world.now_ms());
    let body = proven(&held.fresh_code(world.now_ms()));
    let kept = member.call("DELETE", "/v1/me/mfa/totp", Some(&body));
    assert_eq!((kept.status, kept.problem().as_str()), (409, "mfa-required"));
    // The code was not used up by it.
    member.post("/v1/me/mfa/totp", body, 201);
    // Switched off, it goes; switched on again, a session that has seen it once is not enough.
    require(&acme.owner, false, 200);
    let body = proven(&held.fresh_code(world.now_ms()));
    assert_eq!(member.call("DELETE", "/v1/me/mfa/totp", Some(&body)).status, 204);
    member.get("/v1/forms", 200);
    require(&acme.owner, true, 200);
    assert_eq!(member.get("/v1/forms", 403).problem(), NEEDED);
}

#[test]
fn going_back_does_not_switch_the_policy() {
    let world = World::start();
    let acme = world.tenant("acme");
    let owner = world.enrol("acme", EMAIL, &acme.owner);
    let then =
        owner.get("/v1/audit", 200).json()["items"][0]["at"].as_str().expect("a time").to_owned();
    require(&owner, true, 200);
    restore_to(&owner, &then);
    assert_eq!(owner.get("/v1/tenant", 200).json()["mfa_required"], true);
}

#[test]
fn a_copy_is_told_of_and_no_easier_to_get_into_and_a_sanitised_one_has_no_authenticators() {
    let world = World::start();
    let acme = strict(&world);
    for (slug, words) in [("acme-copy", &[][..]), ("acme-test", &["--sanitise"][..])] {
        let clone = [&["tenant", "clone", "acme", slug][..], words].concat();
        Launcher::on(&world.dir).run(&clone).expect(0);
    }
    let noted = acme.owner.get("/v1/audit?action=tenant.copy", 200).json();
    let told = |at: usize| {
        [&noted["items"][at]["detail"]["name"], &noted["items"][at]["detail"]["sanitised"]]
    };
    assert_eq!(told(0), [&json!("acme-test"), &json!(true)], "{noted}");
    assert_eq!(told(1), [&json!("acme-copy"), &json!(false)], "{noted}");
    let body = json!({"tenant": "acme-copy", "email": EMAIL, "password": PASSWORD});
    let waiting = world.client.post("/v1/auth/sign-in", body, 200);
    assert_eq!(waiting.json()["methods"], json!(["totp", "recovery_code"]));
    assert_eq!(complete(&world.client, &waiting.str("/mfa_token"), "000000").status, 401);

    let file = world.dir.join("password.txt");
    std::fs::write(&file, PASSWORD).expect("a password file");
    let file = file.to_str().expect("a path in UTF-8");
    let words = ["user", "create", "--tenant", "acme-test", "--role", "owner", "--email"];
    let words = [&words[..], &["root@test.example", "--password-file", file]].concat();
    Launcher::on(&world.dir).run(&words).expect(0);
    let owner = world.sign_in("acme-test", "root@test.example");
    assert_eq!(owner.get("/v1/members", 403).problem(), NEEDED);
    let owner = enrol(&owner, world.now_ms()).0;
    assert_eq!(owner.get("/v1/tenant", 200).json()["mfa_required"], true);
}

#[test]
fn an_authenticator_and_the_policy_move_with_the_tenant() {
    let world = World::start();
    let acme = strict(&world);
    let member = member_without_one(&world, &acme);
    let (_, held) = enrol(&member, world.now_ms());
    let bundle = world.dir.parent().expect("a parent").join("acme.bundle");
    let bundle = bundle.to_str().expect("a path in UTF-8");
    let exported =
        Launcher::on(&world.dir).run(&["tenant", "export", "acme", "--out", bundle, "--json"]);
    let signer = exported.expect(0).json()["signer"].as_str().expect("a signer").to_owned();
    let other = World::start();
    let key = format!("{bundle}.key");
    let words = ["tenant", "import", bundle, "--key-file", &key, "--trust", &signer];
    Launcher::on(&other.dir).run(&words).expect(0);
    let waiting = sign_in(&other.client, "new@acme.example", PASSWORD).str("/mfa_token");
    assert_eq!(complete(&world.client, &waiting, "000000").status, 401, "of the other node");
    let moved = complete(&other.client, &waiting, &held.fresh_code(other.now_ms()));
    let member = other.client.with_token(&moved.str("/access_token"));
    assert_eq!(member.get("/v1/tenant", 200).json()["mfa_required"], true);
    // Recovery codes are as good there as they were here.
    let waiting = sign_in(&other.client, "new@acme.example", PASSWORD).str("/mfa_token");
    let recovered = complete(&other.client, &waiting, &held.recovery_code());
    assert_eq!(recovered.status, 200, "{}", recovered.text());
}

#[test]
fn platform_administrators_do_nothing_before_they_have_one_and_keep_it() {
    let world = World::start();
    let email = "root@platform.example";
    let newcomer = world.new_platform_admin(email);
    for path in ["/v1/platform/tenants", "/v1/platform/audit/verify", "/v1/me", "/v1/me/sessions"] {
        assert_eq!(newcomer.get(path, 403).problem(), NEEDED, "{path}");
    }
    let body = json!({"slug": "initech", "name": "Initech", "plan": "pro"});
    assert_eq!(newcomer.post("/v1/platform/tenants", body.clone(), 403).problem(), NEEDED);
    let mfa = newcomer.get("/v1/me/mfa", 200).json();
    assert_eq!(mfa["required"], true);
    let admin = world.enrol("platform", email, &newcomer);
    admin.post("/v1/platform/tenants", body, 201);
    world.sign_in("platform", email).get("/v1/platform/tenants", 200);
    let removal = json!({"password": PASSWORD, "code": "000000"});
    let kept = admin.call("DELETE", "/v1/me/mfa/totp", Some(&removal));
    assert_eq!((kept.status, kept.problem().as_str()), (409, "mfa-required"));
}
