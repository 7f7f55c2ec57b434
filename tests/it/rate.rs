//! How fast anybody may ask, and that nobody pays for anybody else's haste.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::kit::{Client, PASSWORD, Reply, TestClock, World, WorldOptions, raw};

/// Names with their parameters.
type Items = Vec<(String, Vec<(String, u64)>)>;

const MINUTE: Duration = Duration::from_secs(60);

/// A node with one limit and a clock that stands.
fn limited(key: &str, rate: &str) -> (World, Arc<TestClock>) {
    let clock = TestClock::new();
    let options = WorldOptions::default().set(&format!("rate.{key}"), rate);
    (options.clock(clock.clone()).start(), clock)
}

fn sign_in(client: &Client, email: &str, password: &str) -> Reply {
    let body = json!({"tenant": "acme", "email": email, "password": password});
    client.call("POST", "/v1/auth/sign-in", Some(&body))
}

/// The items of a structured list of strings with whole-number parameters (RFC 9651).
fn items(field: &str) -> Items {
    let item = |text: &str| {
        let mut parts = text.split(';');
        let name = parts.next().expect("a name").trim();
        let name = name.strip_prefix('"').and_then(|it| it.strip_suffix('"')).expect("quotes");
        let parameters = parts.map(|part| {
            let (key, value) = part.split_once('=').expect("a value");
            (key.to_owned(), value.parse().expect("a number"))
        });
        (name.to_owned(), parameters.collect())
    };
    field.split(',').map(item).collect()
}

/// The budgets that an answer names: the policies, and what is left of them.
fn rate_fields(reply: &Reply) -> (Items, Items) {
    let field = |name| items(reply.header(name).unwrap_or_else(|| panic!("no {name}: {reply:?}")));
    (field("ratelimit-policy"), field("ratelimit"))
}

fn one(name: &str, parameters: &[(&str, u64)]) -> Items {
    let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), *value));
    vec![(name.to_owned(), parameters.collect())]
}

fn assert_limited(reply: &Reply, policy: &str, wait_s: u64) {
    assert_eq!((reply.status, reply.problem().as_str()), (429, "quota-exceeded"));
    assert_eq!(reply.json()["violated-policies"], json!([policy]));
    assert_eq!(reply.header("retry-after"), Some(wait_s.to_string().as_str()));
    assert_eq!(rate_fields(reply).1, one(policy, &[("r", 0), ("t", wait_s)]));
}

#[test]
fn an_account_is_guessed_at_so_often_and_no_more() {
    let (world, clock) = limited("sign_in.per_account", "3/1m");
    let acme = world.tenant("acme");
    world.member(&acme, "member");
    let owner = "owner@acme.example";
    for left in (0..3).rev() {
        let reply = sign_in(&world.client, owner, "not the password");
        assert_eq!(reply.status, 401);
        let (policy, budget) = rate_fields(&reply);
        assert_eq!(policy, one("sign-in-account", &[("q", 3), ("w", 60)]));
        assert_eq!(budget, one("sign-in-account", &[("r", left), ("t", 20 * (3 - left))]));
    }
    // The right password does not help now, nor does writing the address in another way.
    for email in [owner, "OWNER@acme.example", " owner@acme.example"] {
        assert_limited(&sign_in(&world.client, email, PASSWORD), "sign-in-account", 20);
    }
    assert_eq!(sign_in(&world.client, "member@acme.example", PASSWORD).status, 200);
    acme.owner.get("/v1/me", 200);
    clock.advance(Duration::from_secs(19));
    assert_limited(&sign_in(&world.client, owner, PASSWORD), "sign-in-account", 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(sign_in(&world.client, owner, PASSWORD).status, 200);
    assert_eq!(sign_in(&world.client, owner, PASSWORD).status, 429);
    clock.advance(MINUTE);
    for _ in 0..3 {
        assert_eq!(sign_in(&world.client, owner, PASSWORD).status, 200);
    }
}

#[test]
fn an_account_that_does_not_exist_is_limited_like_one_that_does() {
    let (world, _clock) = limited("sign_in.per_account", "2/1m");
    world.tenant("acme");
    let ask = |email: &str| -> Vec<u16> {
        (0..4).map(|_| sign_in(&world.client, email, "not the password").status).collect()
    };
    assert_eq!(ask("owner@acme.example"), [401, 401, 429, 429]);
    assert_eq!(ask("nobody@acme.example"), [401, 401, 429, 429]);
}

fn behind_proxy(proxies: &[&str]) -> (World, Arc<TestClock>) {
    let clock = TestClock::new();
    let proxies: Vec<String> = proxies.iter().map(|proxy| (*proxy).to_owned()).collect();
    let options = WorldOptions::default()
        .set("rate.sign_in.per_ip", "2/1m")
        .set("http.trusted_proxies", proxies);
    (options.clock(clock.clone()).start(), clock)
}

/// Signs in from the address that a header claims; gives the status.
fn from(world: &World, header: &str, value: &str) -> u16 {
    sign_in(&world.client.with_header(header, value), "nobody@acme.example", PASSWORD).status
}

#[test]
fn behind_a_trusted_proxy_each_address_has_a_budget_of_its_own() {
    let (world, clock) = behind_proxy(&["127.0.0.1/32"]);
    let forwarded = |value: &str| from(&world, "x-forwarded-for", value);
    let [ann, bob] = ["203.0.113.7", "203.0.113.8"];
    assert_eq!([forwarded(ann), forwarded(ann), forwarded(ann)], [401, 401, 429]);
    assert_eq!([forwarded(bob), forwarded(bob), forwarded(bob)], [401, 401, 429]);
    // What stands left of the nearest untrusted address was written by that client.
    assert_eq!(forwarded("198.51.100.1, 203.0.113.7"), 429);
    assert_eq!(forwarded("127.0.0.1, 203.0.113.7"), 429);
    assert_eq!(forwarded("203.0.113.7, 198.51.100.2"), 401);
    assert_eq!(from(&world, "forwarded", "for=203.0.113.7;proto=https"), 429);
    assert_eq!(from(&world, "forwarded", "for=192.0.2.1, for=\"203.0.113.8:4711\""), 429);
    // One customer's worth of IPv6 is a /64.
    let six = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:2::3"];
    assert_eq!(six.map(&forwarded), [401, 401, 429]);
    assert_eq!(from(&world, "forwarded", "for=\"[2001:db8:1:3::1]\""), 401);
    // The proxy's own budget is for those who say nothing.
    assert_eq!(sign_in(&world.client, "nobody@acme.example", PASSWORD).status, 401);
    clock.advance(MINUTE);
    assert_eq!(forwarded(ann), 401);
}

#[test]
fn without_a_trusted_proxy_forwarding_headers_mean_nothing() {
    for proxies in [&[][..], &["203.0.113.0/24"][..]] {
        let (world, _clock) = behind_proxy(proxies);
        let claims = [
            ("x-forwarded-for", "203.0.113.1"),
            ("forwarded", "for=203.0.113.2"),
            ("x-forwarded-for", "203.0.113.3"),
            ("x-real-ip", "203.0.113.4"),
            ("true-client-ip", "203.0.113.5"),
        ];
        let replies = claims.map(|(header, value)| from(&world, header, value));
        assert_eq!(replies, [401, 401, 429, 429, 429], "{proxies:?}");
    }
}

#[test]
fn the_audit_log_names_the_address_that_was_believed() {
    let (world, _clock) = behind_proxy(&["127.0.0.1"]);
    let acme = world.tenant("acme");
    let spoofed = world.client.with_header("x-forwarded-for", "1.2.3.4, 203.0.113.9");
    assert_eq!(sign_in(&spoofed, "owner@acme.example", PASSWORD).status, 200);
    let entries = acme.owner.get("/v1/audit?action=sign_in&limit=1", 200).json();
    assert_eq!(entries["items"][0]["ip"], "203.0.113.9");
}

#[test]
fn a_tenants_people_share_its_budget_and_no_other_tenants() {
    let (world, clock) = limited("api.per_tenant", "4/1m");
    let (acme, other) = (world.tenant("acme"), world.tenant("other"));
    let phone = world.sign_in("acme", "owner@acme.example");
    for (client, left) in [(&acme.owner, 3), (&phone, 2), (&acme.owner, 1), (&phone, 0)] {
        let (policy, budget) = rate_fields(&client.get("/v1/me", 200));
        assert_eq!(policy, one("api-tenant", &[("q", 4), ("w", 60)]));
        assert_eq!(budget[0].1[0], ("r".to_owned(), left));
    }
    let form = json!({"title": "T", "schema": {}});
    for client in [&acme.owner, &phone] {
        assert_limited(&client.get("/v1/me", 429), "api-tenant", 15);
        assert_limited(&client.post("/v1/forms", form.clone(), 429), "api-tenant", 15);
    }
    other.owner.get("/v1/me", 200);
    // Proving who one is has a budget of its own.
    assert_eq!(sign_in(&world.client, "owner@acme.example", PASSWORD).status, 200);
    clock.advance(Duration::from_secs(15));
    let listed = acme.owner.get("/v1/forms", 200).json();
    assert_eq!(listed["items"], json!([]), "a refused request was carried out");
    clock.advance(MINUTE);
    for _ in 0..4 {
        acme.owner.get("/v1/me", 200);
    }
}

#[test]
fn one_token_at_its_limit_leaves_the_tenants_other_tokens_alone() {
    let (world, _clock) = limited("api.per_token", "2/1m");
    let acme = world.tenant("acme");
    let phone = world.sign_in("acme", "owner@acme.example");
    for _ in 0..2 {
        acme.owner.get("/v1/me", 200);
    }
    assert_limited(&acme.owner.get("/v1/me", 429), "api-token", 30);
    phone.get("/v1/me", 200);
    phone.get("/v1/me", 200);
    assert_limited(&phone.get("/v1/me", 429), "api-token", 30);
}

#[test]
fn guessing_tokens_spends_the_guessers_budget_and_nobody_elses() {
    let (world, _clock) = limited("api.per_ip", "3/1m");
    let acme = world.tenant("acme");
    let guesser = world.client.with_token("a.b.c");
    for _ in 0..3 {
        guesser.get("/v1/me", 401);
    }
    assert_limited(&guesser.get("/v1/me", 429), "api-ip", 20);
    world.client.get("/v1/me", 429);
    for _ in 0..5 {
        acme.owner.get("/v1/me", 200);
    }
}

#[test]
fn signing_up_and_refreshing_have_limits_too() {
    let (world, _clock) = limited("sign_up.per_ip", "1/1h");
    let acme = world.tenant("acme");
    let tenant = json!({"slug": "second", "name": "Second"});
    let body = json!({"tenant": tenant, "email": "a@b.example", "password": PASSWORD});
    assert_limited(&world.client.post("/v1/auth/sign-up", body, 429), "sign-up-ip", 3_600);
    acme.owner.get("/v1/me", 200);

    let (world, _clock) = limited("sign_in.per_ip", "2/1m");
    let refresh = || {
        let body = json!({"refresh_token": "bkr_AAAA"});
        world.client.call("POST", "/v1/auth/refresh", Some(&body))
    };
    assert_eq!([refresh().status, refresh().status], [401, 401]);
    assert_limited(&refresh(), "sign-in-ip", 30);
}

#[test]
fn one_account_that_signs_up_or_refreshes_too_often_stops_no_other() {
    let (world, _clock) = limited("sign_up.per_account", "1/1h");
    let sign_up = |slug: &str, email: &str| {
        let tenant = json!({"slug": slug, "name": "Some"});
        let body = json!({"tenant": tenant, "email": email, "password": PASSWORD});
        world.client.call("POST", "/v1/auth/sign-up", Some(&body))
    };
    assert_eq!(sign_up("first", "ann@b.example").status, 201);
    assert_limited(&sign_up("second", "Ann@B.example"), "sign-up-account", 3_600);
    assert_eq!(sign_up("second", "bob@b.example").status, 201);

    let (world, _clock) = limited("sign_in.per_account", "1/1m");
    let (acme, globex) = (world.tenant("acme"), world.tenant("globex"));
    let refresh = |token: &str| {
        world.client.call("POST", "/v1/auth/refresh", Some(&json!({"refresh_token": token})))
    };
    let next = refresh(&acme.refresh_token);
    assert_eq!(next.status, 200);
    assert_limited(&refresh(&next.str("/refresh_token")), "sign-in-account", 60);
    assert_eq!(refresh(&globex.refresh_token).status, 200);
}

#[test]
fn a_limited_request_is_answered_before_its_body_is_read() {
    let (world, _clock) = limited("sign_in.per_ip", "1/1m");
    sign_in(&world.client, "nobody@acme.example", PASSWORD);
    let head = "POST /v1/auth/sign-in HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\nConnection: close\r\n\r\n";
    // The body never comes.
    let answer = raw(&world.client.base, head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
}
