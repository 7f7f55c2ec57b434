//! Browsers: the cookie they are signed in with, what it is worth, and the moment it stops being worth anything.

use std::time::Duration;

use actors::env::Clock as _;
use serde_json::json;

use crate::kit::{Client, PASSWORD, Reply, TestClock, World, WorldOptions, enrol, eventually};

const NAME: &str = "__Host-bulkhead=";

fn sign_in(client: &Client, tenant: &str, email: &str) -> Reply {
    let body = json!({"tenant": tenant, "email": email, "password": PASSWORD});
    client.post("/v1/auth/sign-in", body, 200)
}

/// A browser that is signed in; it says nothing of its intents yet.
fn browser(client: &Client, tenant: &str, email: &str) -> Client {
    let reply = sign_in(&client.anonymous(), tenant, email);
    client.anonymous().with_header("cookie", &reply.cookie())
}

/// Says that it means what it asks for.
fn meant(client: &Client) -> Client {
    client.with_header("x-bulkhead-csrf", "1")
}

#[test]
fn signing_in_sets_a_cookie_of_this_host_alone_that_no_script_reads() {
    let world = World::start();
    let body = json!({"tenant": {"slug": "acme", "name": "Acme"}, "email": "owner@acme.example",
                      "password": PASSWORD});
    let signed_up = world.client.post("/v1/auth/sign-up", body, 201);
    let signed_in = sign_in(&world.client, "acme", "owner@acme.example");
    for reply in [&signed_up, &signed_in] {
        let cookie = reply.header("set-cookie").expect("a cookie");
        let parts: Vec<_> = cookie.split("; ").skip(1).collect();
        for part in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=2592000"] {
            assert!(parts.contains(&part), "{part}: {cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
        let token = reply.str("/access_token");
        let me = world.client.with_token(&token).get("/v1/me", 200).json();
        let same = world.client.with_header("cookie", &reply.cookie()).get("/v1/me", 200).json();
        assert_eq!(me, same);
    }
    assert_ne!(signed_up.cookie(), signed_in.cookie());
}

#[test]
fn what_changes_something_by_cookie_has_to_say_that_it_is_meant() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let browser = browser(&world.client, "acme", "owner@acme.example");
    let form = json!({"title": "Leave", "schema": {"type": "object"}});
    let refused = browser.post("/v1/forms", form.clone(), 403);
    assert_eq!(refused.problem(), "csrf");
    for wrong in ["0", "true", ""] {
        let refused = browser.with_header("x-bulkhead-csrf", wrong);
        assert_eq!(refused.post("/v1/forms", form.clone(), 403).problem(), "csrf");
    }
    assert_eq!(tenant.owner.get("/v1/forms", 200).json()["items"], json!([]), "nothing was made");
    let made = meant(&browser).post("/v1/forms", form.clone(), 201);
    let place = format!("/v1/forms/{}", made.str("/id"));
    browser.get(&place, 200);
    assert_eq!(browser.call("PATCH", &place, Some(&json!({"title": "X"}))).problem(), "csrf");
    assert_eq!(browser.call("DELETE", "/v1/me/sessions", None).problem(), "csrf");
    // A program sends its token on purpose.
    tenant.owner.post("/v1/forms", form, 201);
}

#[test]
fn a_token_beside_a_cookie_is_what_counts_and_two_cookies_count_for_nothing() {
    let world = World::start();
    world.tenant("acme");
    world.tenant("other");
    let acme = browser(&world.client, "acme", "owner@acme.example");
    let theirs = sign_in(&world.client, "other", "owner@other.example");
    assert_eq!(acme.with_token("nonsense").get("/v1/me", 401).problem(), "invalid-token");
    let other = acme.with_token(&theirs.str("/access_token")).get("/v1/tenant", 200);
    assert_eq!(other.str("/slug"), "other");
    let both = acme.with_header("cookie", &theirs.cookie());
    assert_eq!(both.get("/v1/me", 401).problem(), "invalid-token");
    assert_eq!(acme.get("/v1/tenant", 200).str("/slug"), "acme");
}

#[test]
fn no_changed_cookie_is_good_and_all_bad_ones_get_the_same_answer() {
    let world = World::start();
    world.tenant("acme");
    let good = sign_in(&world.client, "acme", "owner@acme.example").cookie();
    let value = &good[NAME.len()..];
    let answer = |value: &str| {
        let cookie = format!("{NAME}{value}");
        world.client.anonymous().with_header("cookie", &cookie).get("/v1/me", 401).essence()
    };
    let expected = answer("nonsense");
    for at in 0..value.len() {
        let mut bytes = value.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("text");
        assert_eq!(answer(&changed), expected, "{at}");
    }
    for wrong in ["", &value[..value.len() - 1], &format!("{value}A"), &format!("{value}=")] {
        assert_eq!(answer(wrong), expected, "{wrong}");
    }
    let bearer = world.client.with_token(value).get("/v1/me", 401);
    assert_eq!(bearer.problem(), "invalid-token");
}

#[test]
fn a_cookie_follows_its_person_and_ends_with_its_session() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let (_, id) = world.member_named(&tenant, "ann", "admin");
    let ann = browser(&world.client, "acme", "ann@acme.example");
    ann.get("/v1/audit", 200);
    // As what she asks is what she is now, with no new cookie.
    let place = format!("/v1/members/{id}");
    tenant.owner.patch(&place, json!({"role": "viewer"}), 200);
    assert_eq!(ann.get("/v1/audit", 403).problem(), "forbidden");
    assert_eq!(ann.get("/v1/me", 200).str("/role"), "viewer");
    tenant.owner.patch(&place, json!({"role": "admin"}), 200);
    ann.get("/v1/audit", 200);
    // Each of these ends it at once.
    let other = browser(&world.client, "acme", "ann@acme.example");
    meant(&other).delete("/v1/me/sessions", 204);
    assert_eq!(ann.get("/v1/me", 401).problem(), "invalid-token");
    let signed_out = meant(&other).act("/v1/auth/sign-out", 204);
    let cleared = signed_out.header("set-cookie").expect("a cookie");
    assert!(cleared.starts_with(NAME) && cleared.contains("Max-Age=0"), "{cleared}");
    other.get("/v1/me", 401);
    let ann = browser(&world.client, "acme", "ann@acme.example");
    tenant.owner.delete(&place, 204);
    ann.get("/v1/me", 401);
}

#[test]
fn a_change_of_password_leaves_the_browser_that_made_it_signed_in_and_no_other() {
    let world = World::start();
    world.tenant("acme");
    let one = browser(&world.client, "acme", "owner@acme.example");
    let two = browser(&world.client, "acme", "owner@acme.example");
    two.get("/v1/me", 200);
    let new = json!({"current_password": PASSWORD, "new_password": "another correct horse"});
    let changed = meant(&one).patch("/v1/me/password", new, 200);
    // A copy of the cookie from before is worth nothing after.
    one.get("/v1/me", 401);
    two.get("/v1/me", 401);
    world.client.with_header("cookie", &changed.cookie()).get("/v1/me", 200);
}

#[test]
fn a_second_factor_replaces_the_cookie_that_knew_of_none() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let before = browser(&world.client, "acme", "owner@acme.example");
    before.get("/v1/me", 200);
    let proof = json!({"password": PASSWORD});
    let begun = meant(&before).post("/v1/me/mfa/totp", proof, 201);
    let code = crate::kit::Authenticator::of(&begun).fresh_code(world.now_ms());
    let confirmed = meant(&before).post("/v1/me/mfa/totp/confirm", json!({"code": code}), 200);
    let after = world.client.with_header("cookie", &confirmed.cookie());
    meant(&after).patch("/v1/tenant", json!({"mfa_required": true}), 200);
    after.get("/v1/forms", 200);
    before.get("/v1/forms", 401);
    tenant.owner.get("/v1/me", 401);
}

#[test]
fn a_token_and_an_api_key_are_no_cookies() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let key = crate::kit::api_key(&tenant.owner, &["forms:read"]).0;
    for bearer in [&tenant.owner, &key] {
        for _ in 0..8 {
            bearer.get("/v1/forms", 200);
        }
        let text = bearer.token.clone().expect("a token");
        let cookie = format!("{NAME}{text}");
        for _ in 0..8 {
            world.client.anonymous().with_header("cookie", &cookie).get("/v1/forms", 401);
        }
    }
}

#[test]
fn a_right_password_alone_sets_no_cookie_where_a_second_factor_is_due() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let tenant = world.tenant("acme");
    let (_, authenticator) = enrol(&tenant.owner, clock.now_ms());
    clock.advance(Duration::from_secs(60));
    let waiting = sign_in(&world.client, "acme", "owner@acme.example");
    assert_eq!(waiting.json()["mfa_required"], json!(true));
    assert_eq!(waiting.header("set-cookie"), None);
    let code = authenticator.fresh_code(clock.now_ms());
    let body = json!({"mfa_token": waiting.str("/mfa_token"), "code": code});
    let opened = world.client.post("/v1/auth/mfa", body, 200);
    world.client.with_header("cookie", &opened.cookie()).get("/v1/me", 200);
}

#[test]
fn sessions_name_their_device_and_place_and_say_when_they_were_last_seen() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    world.tenant("acme");
    let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                  Chrome/141.0.0.0 Safari/537.36";
    let client = world.client.with_header("user-agent", chrome);
    let browser = browser(&client, "acme", "owner@acme.example");
    let current = || {
        let listed = browser.get("/v1/me/sessions", 200).json();
        let items = listed["items"].as_array().expect("a list").clone();
        items.into_iter().find(|session| session["current"] == json!(true)).expect("this one")
    };
    let first = current();
    assert_eq!(first["device"], "Chrome on Linux");
    assert_eq!(first["ip"], "127.0.0.1");
    clock.advance(Duration::from_secs(6 * 60));
    let noted = eventually("the use of the session noted", || {
        let now = current();
        (now["last_used_at"] != first["last_used_at"]).then_some(now)
    });
    assert_ne!(noted["expires_at"], first["expires_at"], "it lasts on from its last use");
    // Nobody has used it for a month: it is over.
    clock.advance_days(31);
    browser.get("/v1/me", 401);
}
