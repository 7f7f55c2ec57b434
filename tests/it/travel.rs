//! Time travel: what was is answered as it was, comes back as it was, and nobody else notices.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actors::env::{Clock as _, SystemClock, rfc3339};
use serde_json::{Value, json};

use crate::kit::{
    Client, Dice, Reply, Tenant, TestClock, World, WorldOptions, at_once, eventually, number_from,
    restore_to, restored,
};

mod model;

/// A text as one value of a query string.
fn query_of(at: &str) -> String {
    format!("as_of={}", at.replace('+', "%2B"))
}

fn then(client: &Client, path: &str, at_ms: u64) -> Reply {
    let joint = if path.contains('?') { '&' } else { '?' };
    client.call("GET", &format!("{path}{joint}{}", query_of(&rfc3339(at_ms))), None)
}

fn items(page: &Value) -> &Vec<Value> {
    page["items"].as_array().expect("a list")
}

fn ids(page: &Value) -> Vec<String> {
    items(page).iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

fn pointer(refused: &Reply) -> String {
    refused.str("/errors/0/pointer")
}

/// The whole audit log, oldest first.
fn log(owner: &Client) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = owner.get(&format!("/v1/audit?sort=seq&limit=200{cursor}"), 200).json();
        all.extend(items(&page).iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[test]
fn pages_of_the_past_follow_each_other() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let made = [0; 5].map(|_| {
        // Lists are in the order of the milliseconds in which things were made.
        clock.advance(Duration::from_millis(1));
        acme.form("Form")
    });
    let at_ms = clock.now_ms();
    clock.advance(Duration::from_secs(1));
    acme.form("Later");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = then(&acme.owner, &format!("/v1/forms?limit=2{cursor}"), at_ms);
        assert_eq!(reply.status, 200, "{}", reply.text());
        seen.extend(ids(&reply.json()));
        match reply.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    let renamed = json!({"name": "Acme & Daughters"});
    acme.owner.patch("/v1/tenant", renamed, 200);
    assert_eq!(then(&acme.owner, "/v1/tenant", at_ms).str("/name"), "Tenant acme");
    // A version that the client has of the present says nothing about the past.
    let path = format!("/v1/forms/{}", made[0]);
    let tag = acme.owner.get(&path, 200).header("etag").expect("a tag").to_owned();
    let knowing = acme.owner.with_header("if-none-match", &tag);
    assert_eq!(knowing.get(&path, 304).status, 304);
    assert_eq!(then(&knowing, &path, at_ms).status, 200);
}

#[test]
fn only_owners_and_administrators_see_the_past_and_only_of_their_own_tenant() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let (acme, other) = (world.tenant("acme"), world.tenant("other"));
    let form = acme.form("Ours");
    let [admin, member, viewer, customer] =
        ["admin", "member", "viewer", "customer"].map(|role| world.member(&acme, role));
    let at_ms = clock.now_ms();
    clock.advance(Duration::from_secs(1));
    let path = format!("/v1/forms/{form}");
    for client in [&acme.owner, &admin] {
        assert_eq!(then(client, &path, at_ms).str("/title"), "Ours");
    }
    for client in [&member, &viewer, &customer] {
        client.get(&path, 200);
        let refused = then(client, &path, at_ms);
        assert_eq!((refused.status, refused.problem()), (403, "forbidden".to_owned()));
        assert_eq!(refused.str("/action"), "history:read");
    }
    let noted = acme.owner.get("/v1/audit?action=history:read&outcome=refused", 200).json();
    assert_eq!(items(&noted).len(), 3, "{noted}");
    assert_eq!(then(&other.owner, &path, at_ms).status, 404);

    let restore = restore_to(&acme.owner, &rfc3339(clock.now_ms()));
    let place = restore.header("location").expect("a place").to_owned();
    let absent = "/v1/tenant/restores/rs_0123456789abcdef0123456789abcdef";
    assert_eq!(other.owner.get(&place, 404).json(), other.owner.get(absent, 404).json());
    assert_eq!(items(&other.owner.get("/v1/tenant/restores", 200).json()).len(), 0);
    admin.get(&place, 200);
    assert_eq!(ids(&admin.get("/v1/tenant/restores", 200).json()), [restore.str("/id")]);
    member.get(&place, 403);
    for client in [&admin, &member] {
        client.post("/v1/tenant/restores", json!({"at": rfc3339(at_ms)}), 403);
    }
}

#[test]
fn times_that_cannot_be_had_are_refused_and_change_nothing() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let founded_ms = clock.now_ms();
    clock.advance(Duration::from_secs(60));
    acme.form("Later");
    let entries = log(&acme.owner).len();
    let now_ms = clock.now_ms();
    let past_now = [
        (rfc3339(now_ms + 1), "lies in the future"),
        ("2099-01-01T00:00:00Z".to_owned(), "lies in the future"),
        (rfc3339(founded_ms - 1), "lies before what is kept"),
        ("2001-01-01T00:00:00+05:00".to_owned(), "lies before what is kept"),
        ("yesterday".to_owned(), "must be a time since 1970"),
        ("1969-12-31T23:59:59Z".to_owned(), "must be a time since 1970"),
        (String::new(), "must be a time since 1970"),
    ];
    for (at, why) in &past_now {
        let refused = acme.owner.get(&format!("/v1/forms?{}", query_of(at)), 422);
        assert_eq!(pointer(&refused), "query/as_of", "{at}");
        assert!(refused.str("/errors/0/message").contains(why), "{at}: {}", refused.text());
        let refused = acme.owner.post("/v1/tenant/restores", json!({"at": at}), 422);
        assert_eq!(pointer(&refused), "/at", "{at}");
        assert!(refused.str("/errors/0/message").contains(why), "{at}: {}", refused.text());
    }
    for path in ["/v1/audit", "/v1/usage", "/v1/me", "/v1/integrations"] {
        let refused = then(&acme.owner, path, now_ms);
        assert_eq!((refused.status, pointer(&refused)), (422, "query/as_of".to_owned()), "{path}");
    }
    for at_ms in [founded_ms, now_ms] {
        assert_eq!(then(&acme.owner, "/v1/forms", at_ms).status, 200);
    }
    assert_eq!(log(&acme.owner).len(), entries);
    assert_eq!(items(&acme.owner.get("/v1/tenant/restores", 200).json()).len(), 0);
}

#[test]
fn a_credential_that_no_longer_stands_sees_no_past() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let (admin, id) = world.member_named(&acme, "admin", "admin");
    let gone = world.sign_in("acme", "owner@acme.example");
    let at_ms = clock.now_ms();
    clock.advance(Duration::from_secs(1));
    // The state is in memory already; that is no reason to show it.
    assert_eq!(then(&admin, "/v1/members", at_ms).status, 200);
    acme.owner.patch(&format!("/v1/members/{id}"), json!({"role": "member"}), 200);
    gone.act("/v1/auth/sign-out", 204);
    for client in [&admin, &gone] {
        let refused = then(client, "/v1/members", at_ms);
        assert_eq!((refused.status, refused.problem()), (401, "invalid-token".to_owned()));
        let body = json!({"at": "2001-01-01T00:00:00Z"});
        assert!(
            [401, 403].contains(&client.call("POST", "/v1/tenant/restores", Some(&body)).status)
        );
    }
}

#[test]
fn a_restricted_form_of_the_past_needs_a_reason_that_is_kept() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let (_, ann_id) = world.member_named(&acme, "ann", "member");
    let admin = world.member(&acme, "admin");
    let form = acme.form("Restricted once");
    acme.submit(&acme.owner, &form, "secret");
    let path = format!("/v1/forms/{form}");
    let grant = json!({"principal": {"kind": "user", "id": ann_id}, "level": "OWNER"});
    acme.owner.put(&format!("{path}/acl"), json!({"grants": [grant]}), 200);
    let at_ms = clock.now_ms();
    clock.advance(Duration::from_secs(1));
    acme.owner.put(&format!("{path}/acl"), json!({"grants": []}), 200);
    let reasoned = acme.owner.with_header("x-break-glass-reason", "Ann is away");
    for place in [path.clone(), format!("{path}/submissions")] {
        acme.owner.get(&place, 200);
        assert_eq!(then(&acme.owner, &place, at_ms).problem(), "reason-needed", "{place}");
        let denied = then(&admin.with_header("x-break-glass-reason", "why not"), &place, at_ms);
        assert_eq!(denied.problem(), "forbidden", "{place}");
        let seen = then(&reasoned, &place, at_ms);
        assert_eq!(seen.status, 200, "{}", seen.text());
        assert!(seen.header("bulkhead-as-of").is_some());
    }
    let noted = acme.owner.get("/v1/audit?action=form.break_glass", 200).json();
    assert_eq!(items(&noted).len(), 2, "{noted}");
    for entry in items(&noted) {
        assert_eq!(entry["detail"]["reason"], "Ann is away");
        assert_eq!(entry["detail"]["as_of"], rfc3339(at_ms));
    }
    // Who may read anyway leaves no entry.
    clock.advance(Duration::from_secs(1));
    assert_eq!(then(&reasoned, &path, clock.now_ms()).status, 200);
    let noted = acme.owner.get("/v1/audit?action=form.break_glass", 200).json();
    assert_eq!(items(&noted).len(), 2, "{noted}");
}

#[test]
fn a_removed_person_who_was_there_then_comes_back_and_signs_in_again() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let (bob, bob_id) = world.member_named(&acme, "bob", "member");
    let (cat, _) = world.member_named(&acme, "cat", "member");
    let at_ms = clock.now_ms();
    clock.advance(Duration::from_secs(1));
    let dan = world.member(&acme, "viewer");
    acme.owner.delete(&format!("/v1/members/{ann_id}"), 204);
    acme.owner.patch(&format!("/v1/members/{bob_id}"), json!({"role": "viewer"}), 200);
    let bob_since = world.sign_in("acme", "bob@acme.example");
    ann.get("/v1/me", 401);
    restore_to(&acme.owner, &rfc3339(at_ms));

    for (who, client) in [("ann", &ann), ("bob", &bob), ("bob since", &bob_since), ("dan", &dan)] {
        assert_eq!(client.call("GET", "/v1/me", None).status, 401, "{who} has an old token");
    }
    cat.get("/v1/me", 200);
    acme.owner.get("/v1/me", 200);
    for name in ["ann", "bob"] {
        let back = world.sign_in("acme", &format!("{name}@acme.example"));
        assert_eq!(back.get("/v1/me", 200).str("/role"), "member", "{name}");
    }
    let body = json!({
        "tenant": "acme", "email": "viewer@acme.example", "password": crate::kit::PASSWORD,
    });
    world.client.post("/v1/auth/sign-in", body, 401);
}

/// A busy tenant: its owner writes and reads until the restore of another is over. How often it was served.
fn keep_busy(tenant: &Tenant, is_over: &AtomicBool) -> u64 {
    let form = tenant.form("Busy");
    let mut served = 0;
    while !is_over.load(Ordering::SeqCst) {
        let name = format!("submission {served}");
        let id = tenant.submit(&tenant.owner, &form, &name);
        let reply = tenant.owner.get(&format!("/v1/forms/{form}/submissions/{id}"), 200);
        assert_eq!(reply.str("/data/name"), name);
        served += 2;
    }
    served
}

#[test]
fn other_tenants_do_not_notice_a_restore() {
    let world = World::start();
    let acme = world.tenant("acme");
    let count = number_from("BULKHEAD_ATTACK_TENANTS", 2);
    let others: Vec<_> = (0..count).map(|n| world.tenant(&format!("other-{n}"))).collect();
    let form = acme.form("Large");
    let kept: BTreeSet<_> =
        (0..20).map(|n| acme.submit(&acme.owner, &form, &n.to_string())).collect();
    let at_ms = SystemClock::new().now_ms();
    eventually("a later moment", || (SystemClock::new().now_ms() > at_ms + 1).then_some(()));
    let mut dice = Dice::thrown("a restore among others");
    // More than one record of a restore takes.
    for _ in 0..100 {
        acme.submit(&acme.owner, &form, &dice.text(200 * 1024));
    }
    let is_over = AtomicBool::new(false);
    let served: Vec<u64> = std::thread::scope(|scope| {
        let busy: Vec<_> =
            others.iter().map(|other| scope.spawn(|| keep_busy(other, &is_over))).collect();
        let asked = acme.owner.post("/v1/tenant/restores", json!({"at": rfc3339(at_ms)}), 202);
        let done = restored(&acme.owner, &asked.str("/id"));
        assert_eq!(done.str("/status"), "done", "{}", done.text());
        assert!(done.json()["rows_changed"].as_u64().is_some_and(|rows| rows >= 200));
        is_over.store(true, Ordering::SeqCst);
        busy.into_iter().map(|one| one.join().expect("another tenant got an error")).collect()
    });
    assert!(served.iter().all(|served| *served > 0), "{served:?}");
    // Those of one millisecond come in any order.
    let left: BTreeSet<_> = acme.submissions(&form).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, kept, "what was there at that moment");
    let sum: u64 = served.iter().sum();
    println!("a restore among {count} others: they were served {sum} times, 0 errors");
}

#[test]
fn of_two_restores_at_once_one_is_refused() {
    let world = World::start();
    let acme = world.tenant("acme");
    let at = rfc3339(SystemClock::new().now_ms());
    let asked =
        at_once(4, |_| acme.owner.call("POST", "/v1/tenant/restores", Some(&json!({"at": at}))));
    let taken: Vec<_> = asked.iter().filter(|reply| reply.status == 202).collect();
    assert!(!taken.is_empty());
    for refused in asked.iter().filter(|reply| reply.status != 202) {
        match refused.status {
            409 => assert_eq!(refused.problem(), "restore-running"),
            503 => assert!(refused.header("retry-after").is_some()),
            other => panic!("{other}: {}", refused.text()),
        }
    }
    for one in taken {
        assert_eq!(restored(&acme.owner, &one.str("/id")).str("/status"), "done");
    }
}

#[test]
fn an_owner_may_ask_for_ten_restores_a_day_and_is_told_when_the_next_one_is() {
    let world = World::start();
    let acme = world.tenant("acme");
    let body = json!({"at": rfc3339(SystemClock::new().now_ms())});
    for _ in 0..10 {
        let asked = eventually("a tenant that is served", || {
            let reply = acme.owner.call("POST", "/v1/tenant/restores", Some(&body));
            (reply.status == 202).then_some(reply)
        });
        assert_eq!(restored(&acme.owner, &asked.str("/id")).str("/status"), "done");
    }
    let refused = eventually("a refusal", || {
        let reply = acme.owner.call("POST", "/v1/tenant/restores", Some(&body));
        (reply.status != 503).then_some(reply)
    });
    assert_eq!((refused.status, refused.problem().as_str()), (429, "quota-exceeded"));
    assert!(refused.text().contains("10 restores in 24 hours"), "{}", refused.text());
    let wait_s: u64 = refused.header("retry-after").expect("a wait").parse().expect("seconds");
    assert!((86_000..=86_400).contains(&wait_s), "{wait_s}");
    let other = world.tenant("other");
    let body = json!({"at": rfc3339(SystemClock::new().now_ms())});
    other.owner.post("/v1/tenant/restores", body, 202);
}

#[test]
fn a_repeated_request_for_a_restore_is_one_restore() {
    let world = World::start();
    let acme = world.tenant("acme");
    let body = json!({"at": rfc3339(SystemClock::new().now_ms())});
    let owner = acme.owner.with_header("idempotency-key", "\"back\"");
    let first = owner.post("/v1/tenant/restores", body.clone(), 202);
    restored(&acme.owner, &first.str("/id"));
    let again = owner.post("/v1/tenant/restores", body, 202);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.str("/id"), first.str("/id"));
    assert_eq!(items(&acme.owner.get("/v1/tenant/restores", 200).json()).len(), 1);
}

#[test]
fn a_restore_under_way_when_the_node_stops_is_done_after_its_start() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("data");
    let mut world = WorldOptions::default().data(&dir).start();
    let mut acme = world.tenant("acme");
    let form = acme.form("Kept");
    let at_ms = SystemClock::new().now_ms();
    let mut dice = Dice::thrown("a restore and a stop");
    for _ in 0..50 {
        acme.submit(&acme.owner, &form, &dice.text(200 * 1024));
    }
    let asked = acme.owner.post("/v1/tenant/restores", json!({"at": rfc3339(at_ms)}), 202);
    world.stop();
    let world = WorldOptions::default().data(&dir).start();
    acme.move_to(&world.client);
    let done = restored(&acme.owner, &asked.str("/id"));
    assert_eq!(done.str("/status"), "done", "{}", done.text());
    assert_eq!(acme.submissions(&form).len(), 0);
    assert_eq!(acme.owner.get("/v1/audit/verify", 200).json()["ok"], true);
}
