//! What a key does counts as its creator's, names the key in the log, and is bounded by itself.

use super::*;

fn lsn(world: &World, tenant: &Tenant) -> u64 {
    let ops = world.ops.with_header("accept", "application/json");
    ops.get(&format!("/actors/{}", tenant.id), 200).json()["lsn"].as_u64().expect("a number")
}

#[test]
fn the_log_names_the_key_for_what_it_did_and_for_what_it_was_refused() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (key, id) = api_key(&acme.owner, &["forms:create"]);
    let form = key.post("/v1/forms", json!({"title": "By key", "schema": {}}), 201);
    assert_eq!(form.str("/created_by"), acme.owner_id, "it is its creator's");
    key.get("/v1/audit", 403);
    for (action, outcome) in [("form.create", "success"), ("audit:read", "refused")] {
        let entry = &entries(&acme.owner, action)[0];
        assert_eq!(entry["actor"], json!({"kind": "api-key", "id": id}), "{action}");
        assert_eq!(entry["outcome"], outcome);
    }
    assert_eq!(acme.owner.get("/v1/audit/verify", 200).json()["ok"], true);
}

#[test]
fn four_eyes_and_access_lists_see_who_made_the_key() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let ben = world.member_named(&acme, "ben", "member").0;
    let scopes = ["forms:read", "submissions:read", "submissions:create", "submissions:decide"];
    let (key, bens) = (api_key(&ann, &scopes).0, api_key(&ben, &scopes).0);
    let form = acme.form("Leave");
    let place = |id: &str| format!("/v1/forms/{form}/submissions/{id}/approve");
    let by_ann = acme.submit(&ann, &form, "by Ann");
    assert_eq!(key.act(&place(&by_ann), 403).problem(), "four-eyes");
    let by_key = acme.submit(&key, &form, "by key");
    assert_eq!(ann.act(&place(&by_key), 403).problem(), "four-eyes");
    bens.act(&place(&by_key), 200);
    let grants = json!({"grants": [
        {"principal": {"kind": "user", "id": ann_id}, "level": "OWNER"}]});
    acme.owner.put(&format!("/v1/forms/{form}/acl"), grants, 200);
    let at = format!("/v1/forms/{form}");
    key.get(&at, 200);
    bens.get(&at, 404);
    // An owner may break the glass; a key of theirs has no reasons.
    let owners = api_key(&acme.owner, &scopes).0;
    let why = |client: &Client| client.with_header("x-break-glass-reason", "Ann is away");
    assert_eq!(owners.get(&at, 403).problem(), "forbidden");
    assert_eq!(why(&owners).get(&at, 403).problem(), "forbidden");
    why(&acme.owner).get(&at, 200);
}

#[test]
fn use_is_noted_by_the_day_and_reading_does_not_write() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let (key, id) = api_key(&acme.owner, &["forms:read"]);
    let read = || acme.owner.get(&format!("/v1/api-keys/{id}"), 200).json();
    assert_eq!(read()["last_used_on"], Value::Null);
    for days in [0, 1] {
        clock.advance_days(days);
        // The access token ended with the day before.
        let owner = world.sign_in("acme", "owner@acme.example");
        key.get("/v1/forms", 200);
        let today = rfc3339(clock.now_ms())[..10].to_owned();
        eventually("a noted use", || {
            let shown = owner.get(&format!("/v1/api-keys/{id}"), 200).json();
            (shown["last_used_on"] == json!(today)).then_some(())
        });
        // Both threads know it before it is counted.
        let fresh =
            || Client::new(&world.client.base).with_token(key.token.as_deref().expect("one"));
        (0..8).for_each(|_| drop(fresh().get("/v1/forms", 200)));
        let before = lsn(&world, &acme);
        (0..50).for_each(|_| drop(fresh().get("/v1/forms", 200)));
        assert_eq!(lsn(&world, &acme), before, "a read wrote");
    }
}

#[test]
fn idempotency_keys_and_budgets_are_the_keys_own() {
    let world =
        WorldOptions::default().clock(TestClock::new()).set("rate.api.per_token", "6/1h").start();
    let acme = world.tenant("acme");
    let (first, second) =
        (api_key(&acme.owner, &["forms:create"]).0, api_key(&acme.owner, &["forms:create"]).0);
    let create = |client: &Client| {
        let client = client.with_header("idempotency-key", "\"same\"");
        client.post("/v1/forms", json!({"title": "T", "schema": {}}), 201)
    };
    let made = create(&first);
    let again = create(&first);
    assert_eq!(
        (again.str("/id"), again.header("idempotency-replayed")),
        (made.str("/id"), Some("true"))
    );
    assert_ne!(create(&second).str("/id"), made.str("/id"));
    assert_ne!(create(&acme.owner).str("/id"), made.str("/id"));
    let body = json!({"title": "T", "schema": {}});
    let statuses: Vec<_> =
        (0..6).map(|_| first.call("POST", "/v1/forms", Some(&body)).status).collect();
    assert_eq!(statuses, [201, 201, 201, 201, 429, 429]);
    second.post("/v1/forms", body, 201);
}

#[test]
fn a_narrowed_key_does_not_read_in_the_past_what_it_may_not_read_now() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    acme.form("Old");
    let at = rfc3339(clock.now_ms());
    clock.advance(std::time::Duration::from_secs(60));
    let (key, id) = api_key(&acme.owner, &["forms:read", "history:read"]);
    let then = format!("/v1/forms?as_of={at}");
    assert_eq!(key.get(&then, 200).json()["items"].as_array().map(Vec::len), Some(1));
    let scopes = json!({"scopes": ["history:read"]});
    acme.owner.patch(&format!("/v1/api-keys/{id}"), scopes, 200);
    assert_eq!(refused(&key.call("GET", &then, None)), "forms:read");
    let scopes = json!({"scopes": ["forms:read"]});
    acme.owner.patch(&format!("/v1/api-keys/{id}"), scopes, 200);
    assert_eq!(refused(&key.call("GET", &then, None)), "history:read");
    key.get("/v1/forms", 200);
}

#[test]
fn a_suspended_tenants_keys_do_nothing_until_it_is_resumed() {
    let world = World::start();
    let acme = world.tenant("acme");
    let platform = world.platform_admin();
    let key = api_key(&acme.owner, &["forms:read"]).0;
    key.get("/v1/forms", 200);
    let place = format!("/v1/platform/tenants/{}", acme.id);
    platform.post(&format!("{place}/suspend"), json!({"reason": "unpaid"}), 200);
    assert_eq!(key.get("/v1/forms", 403).problem(), "tenant-suspended");
    platform.act(&format!("{place}/resume"), 200);
    key.get("/v1/forms", 200);
    assert_eq!(refused(&key.call("GET", "/v1/platform/tenants", None)), "platform-tenants:read");
}
