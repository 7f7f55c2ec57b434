//! Who may be made what, and which tenants can be made at all.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{Client, PASSWORD, Reply, TestClock, World, WorldOptions, api_key, at_once, raw};

fn sign_up_body(slug: &str, email: &str, password: &str) -> Value {
    json!({"tenant": {"slug": slug, "name": "A tenant"}, "email": email, "password": password})
}

fn pointers(reply: &Reply) -> Vec<String> {
    let errors = reply.json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_last_owner_can_neither_go_nor_step_down() {
    let world = World::start();
    let acme = world.tenant("acme");
    let place = format!("/v1/members/{}", acme.owner_id);
    let refused =
        [acme.owner.delete(&place, 409), acme.owner.patch(&place, json!({"role": "admin"}), 409)];
    for reply in refused {
        assert_eq!(reply.problem(), "last-owner");
    }
    let (second, second_id) = world.member_named(&acme, "second", "owner");
    second.patch(&place, json!({"role": "member"}), 200);
    second.delete(&format!("/v1/members/{second_id}"), 409);
    // Whoever stepped down is refused as what they are now.
    let former = world.sign_in("acme", "owner@acme.example");
    former.patch(&place, json!({"role": "owner"}), 403);
    former.delete(&place, 204);
    former.get("/v1/me", 401);
}

#[test]
fn of_two_owners_who_leave_at_the_same_moment_one_stays() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (second, second_id) = world.member_named(&acme, "second", "owner");
    let leave = [(&acme.owner, &acme.owner_id), (&second, &second_id)];
    let mut replies = at_once(2, |index| {
        let (client, id) = leave[index];
        client.call("DELETE", &format!("/v1/members/{id}"), None).status
    });
    replies.sort_unstable();
    assert_eq!(replies, [204, 409]);
}

#[test]
fn nobody_gives_a_role_above_their_own_or_touches_a_person_who_has_one() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (admin, admin_id) = world.member_named(&acme, "admin", "admin");
    let (member, member_id) = world.member_named(&acme, "member", "staff");
    let add = |by: &Client, name: &str, role: &str, status: u16| {
        let email = format!("{name}@acme.example");
        by.post("/v1/members", json!({"email": email, "role": role, "password": PASSWORD}), status)
    };
    let at = |id: &str| format!("/v1/members/{id}");
    let role = |role: &str| json!({"role": role});
    let refused = [
        add(&admin, "x1", "owner", 403),
        add(&admin, "x2", "platform-admin", 403),
        add(&member, "x3", "viewer", 403),
        add(&acme.owner, "x4", "platform-admin", 403),
        admin.patch(&at(&admin_id), role("owner"), 403),
        admin.patch(&at(&member_id), role("owner"), 403),
        admin.patch(&at(&acme.owner_id), role("viewer"), 403),
        admin.delete(&at(&acme.owner_id), 403),
        member.patch(&at(&member_id), role("admin"), 403),
        member.delete(&at(&admin_id), 403),
        // Whether there is such a person is not for them to find out.
        member.delete(&at("us_0123456789abcdef0123456789abcdef"), 403),
    ];
    for reply in refused {
        assert_eq!(reply.problem(), "forbidden");
    }
    assert_eq!(pointers(&add(&admin, "x5", "king", 422)), ["/role"]);
    assert_eq!(acme.owner.get(&at(&member_id), 200).str("/role"), "member");
    add(&admin, "x6", "admin", 201);
    let listed = acme.owner.get("/v1/members", 200).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(4), "{listed}");
}

#[test]
fn who_has_no_lower_role_ends_the_sessions_of_another_and_all_of_them_at_once() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (admin, admin_id) = world.member_named(&acme, "admin", "admin");
    let (bob, bob_id) = world.member_named(&acme, "bob", "member");
    let at = |id: &str| format!("/v1/members/{id}/sessions");
    for (by, id) in [(&admin, &acme.owner_id), (&bob, &bob_id), (&bob, &admin_id)] {
        assert_eq!(by.delete(&at(id), 403).problem(), "forbidden");
    }
    acme.owner.get("/v1/me", 200);

    let cookie = world.browser("acme", "bob@acme.example");
    let body = json!({"tenant": "acme", "email": "bob@acme.example", "password": PASSWORD});
    let refresh = world.client.post("/v1/auth/sign-in", body, 200).str("/refresh_token");
    let key = api_key(&bob, &["forms:read"]).0;
    for client in [&bob, &cookie] {
        client.get("/v1/me", 200);
    }
    admin.delete(&at(&bob_id), 204);
    for client in [&bob, &cookie] {
        client.get("/v1/me", 401);
    }
    world.client.post("/v1/auth/refresh", json!({"refresh_token": refresh}), 401);
    key.get("/v1/forms", 200);
    // There is nothing left to end, and nothing to write down.
    admin.delete(&at(&bob_id), 204);
    world.sign_in("acme", "bob@acme.example").get("/v1/me", 200);

    let log = |outcome: &str| {
        let place = format!("/v1/audit?action=member.sessions_end&outcome={outcome}");
        acme.owner.get(&place, 200).json()
    };
    assert_eq!(log("refused")["items"][0]["target"]["id"], acme.owner_id);
    let log = log("success");
    assert_eq!(log["items"].as_array().map(Vec::len), Some(1), "{log}");
    let entry = &log["items"][0];
    assert_eq!((&entry["actor"]["id"], &entry["target"]["id"]), (&json!(admin_id), &json!(bob_id)));
    assert_eq!((&entry["outcome"], &entry["detail"]["sessions"]), (&json!("success"), &json!(3)));
    acme.owner.delete(&at(&admin_id), 204);
    admin.get("/v1/me", 401);
}

#[test]
fn a_short_name_that_could_be_a_host_or_is_ambiguous_is_refused() {
    let world = World::start();
    let long = "a".repeat(41);
    let bad = [
        "", "ab", &long, "Acme", "-acme", "acme-", "a--b", "a.b", "a_b", "a b", "ä123", "acme\0",
        "platform", "www", "api", "admin", "console", "app", "static",
    ];
    for slug in bad {
        let body = sign_up_body(slug, "a@b.example", PASSWORD);
        let reply = world.client.post("/v1/auth/sign-up", body, 422);
        assert_eq!(pointers(&reply), ["/tenant/slug"], "{slug:?}");
    }
    let body = sign_up_body("X", "no address", "short");
    let everything = world.client.post("/v1/auth/sign-up", body, 422);
    assert_eq!(pointers(&everything), ["/tenant/slug", "/email", "/password"]);
    let body = sign_up_body("fine", "somebody@fine.example", "somebody@fine.example");
    let own_name = world.client.post("/v1/auth/sign-up", body, 422);
    assert_eq!(pointers(&own_name), ["/password"]);
}

#[test]
fn a_short_name_is_given_once_however_many_ask_at_the_same_moment() {
    let world = World::start();
    let acme = world.tenant("acme");
    let body = sign_up_body("acme", "eve@evil.example", PASSWORD);
    assert_eq!(world.client.post("/v1/auth/sign-up", body, 409).problem(), "slug-taken");
    acme.owner.get("/v1/me", 200);
    let replies = at_once(6, |index| {
        let body = sign_up_body("wanted", &format!("p{index}@w.example"), PASSWORD);
        world.client.call("POST", "/v1/auth/sign-up", Some(&body))
    });
    let won: Vec<_> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert_eq!(won.len(), 1, "{:?}", replies.iter().map(Reply::text).collect::<Vec<_>>());
    for lost in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!((lost.status, lost.problem().as_str()), (409, "slug-taken"));
    }
    let owner = world.client.with_token(&won[0].str("/access_token"));
    let people = owner.get("/v1/members", 200).json();
    assert_eq!(people["items"].as_array().map(Vec::len), Some(1), "{people}");
}

#[test]
fn sign_up_can_be_switched_off() {
    let world = WorldOptions::default().set("signup.enabled", false).start();
    let body = sign_up_body("acme", "ann@acme.example", PASSWORD);
    let reply = world.client.post("/v1/auth/sign-up", body, 403);
    assert_eq!(reply.problem(), "sign-up-disabled");
}

#[test]
fn a_suspended_tenant_is_not_served_until_it_is_resumed() {
    let world = World::start();
    let (acme, other) = (world.tenant("acme"), world.tenant("other"));
    let form = acme.form("Kept");
    let admin = world.platform_admin();
    let place = format!("/v1/platform/tenants/{}", acme.id);
    let nameless = admin.post(&format!("{place}/suspend"), json!({"reason": " "}), 422);
    assert_eq!(pointers(&nameless), ["/reason"]);
    let body = json!({"reason": "invoice 4711 is overdue"});
    let suspended = admin.post(&format!("{place}/suspend"), body, 200);
    assert_eq!(suspended.str("/status"), "suspended");

    let sign_in = json!({"tenant": "acme", "email": "owner@acme.example", "password": PASSWORD});
    let refresh = json!({"refresh_token": acme.refresh_token});
    let refused = [
        acme.owner.get("/v1/me", 403),
        acme.owner.get(&format!("/v1/forms/{form}"), 403),
        acme.owner.post("/v1/forms", json!({"title": "T", "schema": {}}), 403),
        world.client.post("/v1/auth/sign-in", sign_in, 403),
        world.client.post("/v1/auth/refresh", refresh, 403),
    ];
    for reply in refused {
        assert_eq!(reply.problem(), "tenant-suspended");
    }
    other.owner.get("/v1/me", 200);
    admin.act(&format!("{place}/resume"), 200);
    acme.owner.get(&format!("/v1/forms/{form}"), 200);
    acme.form("New");
}

#[test]
fn access_ends_after_fifteen_minutes_and_a_session_after_thirty_idle_days() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    clock.advance(Duration::from_secs(15 * 60 - 1));
    acme.owner.get("/v1/me", 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(acme.owner.get("/v1/me", 401).problem(), "invalid-token");

    let refresh = |token: &str, status| {
        world.client.post("/v1/auth/refresh", json!({"refresh_token": token}), status)
    };
    clock.advance_days(29);
    let second = refresh(&acme.refresh_token, 200);
    // Used again in time, it lasts as long once more.
    clock.advance_days(29);
    let third = refresh(&second.str("/refresh_token"), 200);
    world.client.with_token(&third.str("/access_token")).get("/v1/me", 200);
    clock.advance_days(30);
    refresh(&third.str("/refresh_token"), 401);
}

#[test]
fn a_host_that_names_another_tenant_is_answered_as_if_nothing_were_there() {
    let world = WorldOptions::default().set("http.base_domain", "bulkhead.test").start();
    let acme = world.tenant("acme");
    world.tenant("other");
    let token = acme.owner.token.as_deref().expect("a token");
    let ask = |host: &str| {
        let head = format!(
            "GET /v1/me HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        raw(&world.client.base, head.as_bytes())
    };
    for host in ["acme.bulkhead.test", "ACME.bulkhead.test:8080", "bulkhead.test", "127.0.0.1"] {
        assert!(ask(host).starts_with("HTTP/1.1 200"), "{host}: {}", ask(host));
    }
    for host in ["other.bulkhead.test", "absent.bulkhead.test", "a.acme.bulkhead.test"] {
        assert!(ask(host).starts_with("HTTP/1.1 404"), "{host}: {}", ask(host));
    }
}
