//! Who comes in, and as whom: links, invitations, domains, quotas, roles.

use serde_json::json;

use super::{ISSUER, bring, now_s, world};
use crate::kit::{Issuer, PASSWORD, World, eventually, link_in, written};

#[test]
fn an_address_takes_over_no_account_but_its_holder_can_link_the_identity() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({}));
    let bob = world.member_named(&tenant, "bob", "viewer").0;
    let mut claims = issuer.claims("b-1", now_s(&world));
    claims["email"] = json!("BOB@acme.example");
    let token = issuer.sign(&claims);
    let refused = bring(&world.client, "acme", "app", &token);
    assert_eq!((refused.status, refused.problem().as_str()), (409, "identity-not-linked"));

    let place = "/v1/me/identities/app";
    let body = |password: &str| json!({"password": password, "id_token": token});
    assert_eq!(
        bob.post(place, json!({"id_token": token}), 422).str("/errors/0/pointer"),
        "/password"
    );
    bob.post(place, body("not the password"), 422);
    let bad = json!({"password": PASSWORD, "id_token": format!("{token}A")});
    assert_eq!(bob.post(place, bad, 422).str("/errors/0/pointer"), "/id_token");
    bob.post("/v1/me/identities/absent", body(PASSWORD), 404);
    let linked = bob.post(place, body(PASSWORD), 200);
    assert_eq!(linked.str("/identity/subject"), "b-1");
    let signed_in = bring(&world.client, "acme", "app", &token);
    assert_eq!((signed_in.status, signed_in.str("/user/role").as_str()), (200, "viewer"));

    // It is nobody else's then.
    let eve = world.member_named(&tenant, "eve", "member").0;
    assert_eq!(eve.post(place, body(PASSWORD), 409).problem(), "identity-taken");
    let id = linked.str("/identity/id");
    eve.delete(&format!("/v1/me/identities/{id}"), 404);
    bob.delete(&format!("/v1/me/identities/{id}"), 204);
    assert_eq!(bring(&world.client, "acme", "app", &token).problem(), "identity-not-linked");
}

#[test]
fn a_removed_person_comes_back_by_invitation_only() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({}));
    let token = issuer.sign(&issuer.claims("ann", now_s(&world)));
    let first = bring(&world.client, "acme", "app", &token);
    tenant.owner.delete(&format!("/v1/members/{}", first.str("/user/id")), 204);
    let ann = world.client.with_token(&first.str("/access_token"));
    ann.get("/v1/me", 401);
    let refused = bring(&world.client, "acme", "app", &token);
    assert_eq!(
        (refused.problem().as_str(), refused.str("/reason").as_str()),
        ("identity-not-admitted", "removed")
    );
    let invite = json!({"email": "ann@example.org", "role": "viewer"});
    tenant.owner.post("/v1/invites", invite, 201);
    let again = bring(&world.client, "acme", "app", &token);
    assert_eq!((again.status, again.str("/user/role").as_str()), (200, "viewer"));
    assert_ne!(again.str("/user/id"), first.str("/user/id"));
    assert_eq!(tenant.owner.get("/v1/invites", 200).json()["items"], json!([]), "it was used up");
}

#[test]
fn domains_and_verified_addresses_decide_who_is_let_in() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({"domains": ["Example.ORG"]}));
    issuer.trusted_by(&tenant.owner, "closed", &json!({"default_role": null}));
    let now_s = now_s(&world);
    let reason = |provider: &str, email: &str, verified: serde_json::Value| {
        let mut claims = issuer.claims(&format!("{email}-{verified}"), now_s);
        claims["email"] = json!(email);
        claims["email_verified"] = verified;
        let reply = bring(&world.client, "acme", provider, &issuer.sign(&claims));
        if reply.status == 200 { "in".to_owned() } else { reply.str("/reason") }
    };
    assert_eq!(reason("app", "a@example.org", json!(true)), "in");
    assert_eq!(reason("app", "b@EXAMPLE.org", json!("true")), "in");
    assert_eq!(reason("app", "c@example.org", json!(false)), "email-unverified");
    assert_eq!(reason("app", "d@example.com", json!(true)), "domain");
    assert_eq!(reason("app", "e@sub.example.org", json!(true)), "domain");
    assert_eq!(reason("app", "f@example.org.evil.example", json!(true)), "domain");
    assert_eq!(reason("app", "g@example.org@evil.example", json!(true)), "domain");
    assert_eq!(reason("closed", "h@example.org", json!(true)), "not-invited");
    assert_eq!(reason("closed", "h@example.org", json!(false)), "email-unverified");
    assert_eq!(reason("closed", "not an address", json!(true)), "no-email");
    // Letters that look alike are other letters.
    assert_eq!(reason("closed", "h@ex\u{0430}mple.org", json!(true)), "no-email");
}

#[test]
fn a_full_plan_lets_nobody_new_in_and_everybody_old() {
    let (world, _) = {
        let clock = crate::kit::TestClock::new();
        let options = crate::kit::WorldOptions::default().set("plans.pro.members", 2);
        (options.clock(clock.clone()).start(), clock)
    };
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({}));
    let token = |name: &str| issuer.sign(&issuer.claims(name, now_s(&world)));
    assert_eq!(bring(&world.client, "acme", "app", &token("ann")).status, 200);
    let full = bring(&world.client, "acme", "app", &token("bea"));
    assert_eq!((full.status, full.problem().as_str()), (402, "plan-quota"));
    assert_eq!(full.json()["quota"], "members");
    assert_eq!(bring(&world.client, "acme", "app", &token("ann")).status, 200);
}

#[test]
fn nobody_lets_a_party_vouch_for_more_than_they_are() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let admin = world.member(&tenant, "admin");
    let issuer = Issuer::new(ISSUER, "one");
    let by_admin = issuer.trusted_by(&admin, "mine", &json!({"default_role": "admin"}));
    assert_eq!(by_admin.str("/vouches_up_to"), "admin");
    for role in ["owner", "platform-admin"] {
        let body =
            json!({"name": "bad", "kind": "firebase", "audience": "a", "default_role": role});
        let refused = tenant.owner.post("/v1/identity-providers", body, 422);
        assert_eq!(refused.str("/errors/0/pointer"), "/default_role");
    }
    // The owner cannot be called by a party that an administrator set up.
    let token = issuer.sign(&issuer.claims("the-owner", now_s(&world)));
    let body = json!({"password": PASSWORD, "id_token": token});
    assert_eq!(
        tenant.owner.post("/v1/me/identities/mine", body.clone(), 403).str("/action"),
        "identity-providers:role-above-own"
    );
    // And what the owner set up, an administrator may switch off, and not have trust other keys.
    let by_owner = issuer.trusted_by(&tenant.owner, "ours", &json!({}));
    tenant.owner.post("/v1/me/identities/ours", body, 200);
    let place = format!("/v1/identity-providers/{}", by_owner.str("/id"));
    let other = Issuer::new(ISSUER, "two");
    let keys = json!({"jwks": {"keys": [other.jwk()]}});
    assert_eq!(admin.patch(&place, keys.clone(), 403).problem(), "forbidden");
    assert_eq!(bring(&world.client, "acme", "ours", &token).str("/user/role"), "owner");
    admin.patch(&place, json!({"enabled": false}), 200);
    assert_eq!(bring(&world.client, "acme", "ours", &token).status, 401);
    tenant.owner.patch(&place, json!({"enabled": true}), 200);
    tenant.owner.patch(&place, keys, 200);
    assert_eq!(
        bring(&world.client, "acme", "ours", &token).status,
        401,
        "the old key is trusted no more"
    );
    // Deleted, its identities are gone.
    tenant.owner.delete(&place, 204);
    assert_eq!(tenant.owner.get("/v1/me/identities", 200).json()["items"], json!([]));
}

#[test]
fn a_second_factor_is_asked_for_whoever_vouches_for_the_first() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({}));
    let person = world.enrol("acme", "owner@acme.example", &tenant.owner);
    let token = issuer.sign(&issuer.claims("the-owner", now_s(&world)));
    person.post("/v1/me/identities/app", json!({"password": PASSWORD, "id_token": token}), 200);
    let waiting = bring(&world.client, "acme", "app", &token);
    assert_eq!((waiting.status, &waiting.json()["mfa_required"]), (200, &json!(true)));
    let mfa_token = waiting.str("/mfa_token");
    let wrong = json!({"mfa_token": mfa_token, "code": "000000"});
    world.client.post("/v1/auth/mfa", wrong, 401);
    // Everybody needs one: who has none gets a session that can enrol one, and nothing else.
    person.patch("/v1/tenant", json!({"mfa_required": true}), 200);
    let ann = issuer.sign(&issuer.claims("ann", now_s(&world)));
    let newcomer = bring(&world.client, "acme", "app", &ann);
    assert_eq!(newcomer.json()["mfa_enrolment_required"], json!(true));
    let ann = world.client.with_token(&newcomer.str("/access_token"));
    assert_eq!(ann.get("/v1/forms", 403).problem(), "mfa-enrolment-required");
}

#[test]
fn secrets_are_taken_and_never_shown_and_secret_keys_are_not_taken() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let body = json!({
        "name": "google", "kind": "google", "client_id": "abc.apps.example", "client_secret": "very-secret-indeed",
        "domains": ["example.org"], "default_role": "member",
    });
    let made = tenant.owner.post("/v1/identity-providers", body.clone(), 201);
    assert_eq!(
        (made.str("/issuer"), &made.json()["has_client_secret"]),
        ("https://accounts.google.com".into(), &json!(true))
    );
    let place = format!("/v1/identity-providers/{}", made.str("/id"));
    let shown = [
        made.text(),
        tenant.owner.get(&place, 200).text(),
        tenant.owner.get("/v1/identity-providers", 200).text(),
        tenant.owner.get("/v1/audit?limit=100", 200).text(),
        tenant.owner.patch(&place, json!({"client_secret": "another-secret-indeed"}), 200).text(),
    ];
    assert!(shown.iter().all(|text| !text.contains("secret-indeed")), "{shown:?}");
    assert_eq!(
        tenant.owner.post("/v1/identity-providers", body, 409).problem(),
        "provider-name-taken"
    );
    let mut key = Issuer::new(ISSUER, "one").jwk();
    key["d"] = json!("AAAA");
    let body = json!({"name": "bad", "kind": "jwks", "issuer": ISSUER, "audience": "a", "jwks": {"keys": [key]}});
    assert_eq!(
        tenant.owner.post("/v1/identity-providers", body, 422).str("/errors/0/pointer"),
        "/jwks/keys/0"
    );
    let member = world.member(&tenant, "member");
    member.get(&place, 403);
}

#[test]
fn an_invitation_is_taken_up_by_whoever_is_vouched_for_at_its_address() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({"default_role": null}));
    tenant.owner.post("/v1/invites", json!({"email": "ann@example.org", "role": "admin"}), 201);
    let mail = eventually("an invitation", || written(&world.dir, &tenant.id).pop());
    let token = issuer.sign(&issuer.claims("ann", now_s(&world)));
    let ann = bring(&world.client, "acme", "app", &token);
    assert_eq!((ann.status, ann.str("/user/role").as_str()), (200, "admin"), "{}", ann.text());
    // The mailed link is dead with it.
    let body = json!({"token": link_in(&mail, "invite"), "password": PASSWORD});
    assert_eq!(world.client.post("/v1/auth/invites/accept", body, 400).problem(), "invalid-link");
}
