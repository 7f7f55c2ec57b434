//! API keys: exactly their scopes, in their creator's place, to their end and not a request longer.

use actors::env::{Clock as _, rfc3339};
use actors::permit::Scopes;
use bulkhead::http::routes::Access;
use serde_json::{Value, json};

use crate::kit::{
    Client, Fixture, Reply, Tenant, TestClock, World, WorldOptions, api_key, eventually,
    in_walking_order, restore_to,
};

mod guesses;
mod uses;

/// The entries of the tenant's log with that action, newest first.
fn entries(owner: &Client, action: &str) -> Vec<Value> {
    let page = owner.get(&format!("/v1/audit?limit=50&action={action}"), 200).json();
    page["items"].as_array().expect("a list").clone()
}

/// The missing capability that a refusal names.
fn refused(reply: &Reply) -> String {
    assert_eq!((reply.status, reply.problem().as_str()), (403, "forbidden"), "{}", reply.text());
    if reply.header("content-type") == Some("application/scim+json") {
        // SCIM has no member for it; the text ends in it.
        return reply.str("/detail").rsplit(' ').next().expect("a last word").to_owned();
    }
    reply.str("/action")
}

/// Calls a route without waiting for what it began.
fn call(fixture: &Fixture, route: &bulkhead::http::routes::Route, client: &Client) -> Reply {
    client.call(route.verb.name(), &fixture.path(route), fixture.body(route).as_ref())
}

#[test]
fn each_scope_opens_its_own_routes_and_all_others_together_do_not() {
    let world = World::start();
    let acme = world.tenant("acme");
    let submitter = world.member(&acme, "member");
    let all: Vec<_> = Scopes::all().names().collect();
    let everything = api_key(&acme.owner, &all).0;
    let (mut opened, mut closed) = (0, 0);
    for (at, route) in in_walking_order() {
        let Access::Tenant(capability) = route.access else { continue };
        let absent = Fixture::absent(at);
        if !capability.is_scope() {
            assert_eq!(refused(&call(&absent, route, &everything)), capability.name, "{route}");
            closed += 1;
            continue;
        }
        let others: Vec<_> = all.iter().copied().filter(|name| *name != capability.name).collect();
        let (without, without_id) = api_key(&acme.owner, &others);
        assert_eq!(refused(&call(&absent, route, &without)), capability.name, "{route}");
        closed += 1;
        let (only, only_id) = api_key(&acme.owner, &[capability.name]);
        let fixture = Fixture::of(&world, &acme, &submitter, route, at);
        let mut reply = call(&fixture, route, &only);
        if ["members:write", "members:remove"].contains(&capability.name) {
            // Who may change people and do nothing else must not make a person who can do more.
            assert_eq!(refused(&reply), "members:role-above-own", "{route}");
            reply = call(&fixture, route, &everything);
        }
        assert!((200..300).contains(&reply.status), "{route}: {} {}", reply.status, reply.text());
        opened += 1;
        // A person has a bounded number of keys.
        for id in [without_id, only_id] {
            acme.owner.delete(&format!("/v1/api-keys/{id}"), 204);
        }
    }
    println!("api keys: {opened} routes opened by their scope, {closed} closed without it");
}

#[test]
fn a_key_is_made_used_seen_and_revoked() {
    let world = World::start();
    let acme = world.tenant("acme");
    let form = acme.form("Leave");
    let body = json!({"name": " Nightly ", "scopes": ["forms:read"]});
    let made = acme.owner.post("/v1/api-keys", body, 201);
    let (key, id) = (acme.owner.with_token(&made.str("/key")), made.str("/id"));
    assert!(made.str("/key").starts_with("bk_") && id.starts_with("ak_"));
    assert_eq!(made.header("location"), Some(&*format!("/v1/api-keys/{id}")));
    assert_eq!((made.str("/name"), made.header("etag")), ("Nightly".to_owned(), Some("\"1\"")));
    key.get(&format!("/v1/forms/{form}"), 200);
    assert_eq!(refused(&key.call("GET", "/v1/members", None)), "members:read");
    assert_eq!(refused(&key.call("GET", "/v1/me", None)), "me:read");
    let place = format!("/v1/api-keys/{id}");
    acme.owner.with_header("if-match", "\"9\"").delete(&place, 412);
    acme.owner.delete(&place, 204);
    // On every worker thread, whatever it remembers.
    for _ in 0..8 {
        let fresh = Client::new(&world.client.base).with_token(&made.str("/key"));
        assert_eq!(fresh.get("/v1/forms", 401).problem(), "invalid-token");
    }
    acme.owner.get(&place, 404);
    let noted = ["api_key.create", "api_key.revoke"].map(|action| entries(&acme.owner, action));
    for entry in noted.iter().map(|entries| &entries[0]) {
        assert_eq!(entry["target"], json!({"kind": "api-key", "id": id}));
        assert_eq!(entry["actor"]["id"], json!(acme.owner_id));
    }
    assert_eq!(noted[0][0]["detail"]["scopes"], "forms:read");
}

#[test]
fn a_changed_key_or_creator_counts_at_the_next_request_and_never_costs_a_good_one() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (admin, admin_id) = world.member_named(&acme, "ann", "admin");
    let (key, id) = api_key(&admin, &["forms:read", "usage:read"]);
    let usage = |wanted: u16| {
        for _ in 0..6 {
            let fresh =
                Client::new(&world.client.base).with_token(key.token.as_deref().expect("one"));
            fresh.get("/v1/forms", 200);
            fresh.get("/v1/usage", wanted);
        }
    };
    usage(200);
    let change = |body: Value| acme.owner.patch(&format!("/v1/api-keys/{id}"), body, 200);
    change(json!({"scopes": ["forms:read"]}));
    usage(403);
    change(json!({"scopes": ["forms:read", "usage:read"], "name": "Renamed"}));
    usage(200);
    let become_ = |role: &str| {
        acme.owner.patch(&format!("/v1/members/{admin_id}"), json!({"role": role}), 200)
    };
    become_("member");
    usage(403);
    become_("admin");
    usage(200);
    acme.owner.delete(&format!("/v1/members/{admin_id}"), 204);
    assert_eq!(key.get("/v1/forms", 401).problem(), "invalid-token");
    assert_eq!(entries(&acme.owner, "api_key.revoke").len(), 1);
}

#[test]
fn a_key_ends_at_its_time_and_lasts_90_days_when_nobody_says() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let ends = |days: u64| rfc3339(clock.now_ms() + days * 86_400_000);
    let body = |days| json!({"name": "K", "scopes": ["forms:read"], "expires_at": ends(days)});
    let short = acme.owner.post("/v1/api-keys", body(2), 201).str("/key");
    let usual =
        acme.owner.post("/v1/api-keys", json!({"name": "K", "scopes": ["forms:read"]}), 201);
    assert_eq!(usual.str("/expires_at"), ends(90));
    let beyond = acme.owner.post("/v1/api-keys", body(366), 422);
    assert_eq!(beyond.str("/errors/0/pointer"), "/expires_at");
    let (short, usual) =
        (world.client.with_token(&short), world.client.with_token(&usual.str("/key")));
    for key in [&short, &usual] {
        key.get("/v1/forms", 200);
    }
    clock.advance_days(2);
    assert_eq!(short.get("/v1/forms", 401).problem(), "invalid-token");
    usual.get("/v1/forms", 200);
    clock.advance_days(88);
    usual.get("/v1/forms", 401);
}

#[test]
fn keys_outlive_a_restart_and_a_revocation_outlives_going_back() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut world = WorldOptions::default().data(&data).start();
    let mut acme = world.tenant("acme");
    let (revoked, id) = api_key(&acme.owner, &["forms:read"]);
    let before = rfc3339(actors::env::SystemClock::new().now_ms());
    acme.owner.delete(&format!("/v1/api-keys/{id}"), 204);
    let kept = api_key(&acme.owner, &["forms:read"]).0;
    world.stop();
    drop(world);
    let world = WorldOptions::default().data(&data).start();
    acme.move_to(&world.client);
    let again = |key: &Client| world.client.with_token(key.token.as_deref().expect("a token"));
    again(&kept).get("/v1/forms", 200);
    again(&revoked).get("/v1/forms", 401);
    restore_to(&acme.owner, &before);
    again(&revoked).get("/v1/forms", 401);
    again(&kept).get("/v1/forms", 200);
}

/// Whether a request of that tenant with that key would now be told apart from any bad one.
fn assert_unknown(world: &World, key: &Client) {
    let token = key.token.as_deref().expect("a token");
    assert_eq!(world.client.with_token(token).get("/v1/forms", 401).problem(), "invalid-token");
}

#[test]
fn members_manage_their_own_keys_and_nobody_below_has_any() {
    let world = World::start();
    let acme = world.tenant("acme");
    let member = world.member(&acme, "member");
    let (_, foreign) = api_key(&acme.owner, &["forms:read"]);
    let (key, own) = api_key(&member, &["forms:read"]);
    let listed = |by: &Client| -> Vec<Value> {
        let page = by.get("/v1/api-keys", 200).json();
        page["items"].as_array().expect("a list").iter().map(|item| item["id"].clone()).collect()
    };
    assert_eq!(listed(&member), [json!(own)]);
    assert_eq!(listed(&acme.owner), [json!(foreign), json!(own)]);
    let place = format!("/v1/api-keys/{foreign}");
    let absent = member.get(&format!("/v1/api-keys/ak_{}", "0".repeat(32)), 404);
    assert_eq!(member.get(&place, 404).essence(), absent.essence());
    member.patch(&place, json!({"name": "Mine"}), 404);
    member.delete(&place, 404);
    let above = member.post("/v1/api-keys", json!({"name": "K", "scopes": ["audit:read"]}), 403);
    assert_eq!(above.str("/action"), "api-keys:scope-above-own");
    for role in ["viewer", "customer"] {
        let body = json!({"name": "K", "scopes": ["forms:read"]});
        world.member(&acme, role).post("/v1/api-keys", body, 403);
    }
    assert_eq!(entries(&acme.owner, "api-keys:write").len(), 2, "refusals are on record");
    member.delete(&format!("/v1/api-keys/{own}"), 204);
    assert_unknown(&world, &key);
}
