//! What a plan gives is what one gets: exactly, whoever asks at the same moment.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use storage::id::TenantId;
use storage::keys::Key;
use storage::record::Record;
use storage::seal::TenantKeys;
use storage::store::{Store, StoreOptions, verify_chain};

use crate::kit::{Client, PASSWORD, Reply, TestClock, WorldOptions, at_once};

fn used(owner: &Client, quota: &str) -> u64 {
    let usage = owner.get("/v1/usage", 200).json();
    usage["quotas"][quota]["used"].as_u64().unwrap_or_else(|| panic!("{quota}: {usage}"))
}

fn assert_over(reply: &Reply, quota: &str, limit: u64) {
    assert_eq!((reply.status, reply.problem().as_str()), (402, "plan-quota"), "{}", reply.text());
    let json = reply.json();
    assert_eq!((&json["quota"], &json["limit"]), (&json!(quota), &json!(limit)));
    assert_eq!(json["violated-policies"], json!([quota]));
}

fn form_body(title: &str) -> Value {
    json!({"title": title, "schema": {}})
}

#[test]
fn of_a_hundred_who_want_the_last_form_exactly_one_gets_it() {
    let world = WorldOptions::default().set("plans.pro.forms", 10).start();
    let acme = world.tenant("acme");
    for number in 0..9 {
        acme.form(&format!("Form {number}"));
    }
    let replies = at_once(100, |number| {
        acme.owner.call("POST", "/v1/forms", Some(&form_body(&format!("Wanted {number}"))))
    });
    let (made, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 201);
    assert_eq!((made.len(), refused.len()), (1, 99));
    for reply in refused {
        assert_over(reply, "forms", 10);
    }
    let usage = acme.owner.get("/v1/usage", 200).json();
    assert_eq!(usage["quotas"]["forms"], json!({"used": 10, "limit": 10}));
    let listed = acme.owner.get("/v1/forms?limit=200", 200).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(10));

    // Archiving gives the place back, once.
    let id = made[0].str("/id");
    for _ in 0..2 {
        acme.owner.act(&format!("/v1/forms/{id}/archive"), 200);
    }
    assert_eq!(used(&acme.owner, "forms"), 9);
    acme.form("The last again");
    assert_over(&acme.owner.call("POST", "/v1/forms", Some(&form_body("More"))), "forms", 10);
}

#[test]
fn of_fifty_who_want_the_last_submission_exactly_one_gets_it() {
    let world = WorldOptions::default().set("plans.pro.submissions", 3).start();
    let acme = world.tenant("acme");
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}/submissions");
    let first = acme.submit(&acme.owner, &form, "one");
    acme.submit(&acme.owner, &form, "two");
    let body = json!({"data": {"name": "last"}});
    let replies = at_once(50, |_| acme.owner.call("POST", &place, Some(&body)));
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert_over(reply, "submissions", 3);
    }
    // What is wrong is refused for what it is, and takes nothing.
    acme.owner.post(&place, json!({"data": {"name": 7}}), 422);
    acme.owner.delete(&format!("{place}/{first}"), 204);
    assert_eq!(used(&acme.owner, "submissions"), 2);
    acme.owner.post(&place, json!({"data": {"name": 7}}), 422);
    assert_eq!(used(&acme.owner, "submissions"), 2);
    acme.submit(&acme.owner, &form, "three");
    assert_over(&acme.owner.call("POST", &place, Some(&body)), "submissions", 3);
}

#[test]
fn people_count_and_their_places_are_free_when_they_go() {
    let world = WorldOptions::default().set("plans.pro.members", 3).start();
    let acme = world.tenant("acme");
    let (_, ann) = world.member_named(&acme, "ann", "member");
    let add = |name: &str| {
        let email = format!("{name}@acme.example");
        let body = json!({"email": email, "role": "viewer", "password": PASSWORD});
        acme.owner.call("POST", "/v1/members", Some(&body))
    };
    let replies = at_once(6, |number| add(&format!("p{number}")));
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert_over(reply, "members", 3);
    }
    assert_eq!(used(&acme.owner, "members"), 3);
    acme.owner.delete(&format!("/v1/members/{ann}"), 204);
    assert_eq!(add("bob").status, 201);
    assert_over(&add("eve"), "members", 3);
}

#[test]
fn stored_bytes_run_out_for_what_adds_and_never_for_what_removes() {
    let limit: u64 = 40_000;
    let world = WorldOptions::default().set("plans.pro.storage_bytes", 40_000).start();
    let acme = world.tenant("acme");
    let form = acme.form_with(json!({"title": "Notes", "schema": {}}));
    let place = format!("/v1/forms/{form}/submissions");
    let body = json!({"data": "x".repeat(3_000)});
    let mut made = Vec::new();
    let refused = loop {
        let reply = acme.owner.call("POST", &place, Some(&body));
        if reply.status != 201 {
            break reply;
        }
        made.push(reply.str("/id"));
        assert!(made.len() < 20, "nothing stops it");
    };
    assert_over(&refused, "storage_bytes", limit);
    let full = used(&acme.owner, "storage_bytes");
    assert!(full <= limit && full > limit - 4_000, "{full}");
    assert_eq!(used(&acme.owner, "submissions"), made.len() as u64);
    let last = format!("{place}/{}", made.pop().expect("some"));
    acme.owner.patch(&last, json!({"data": "x".repeat(12_000)}), 402);
    acme.owner.patch(&last, json!({"data": "short"}), 200);
    for id in &made {
        acme.owner.delete(&format!("{place}/{id}"), 204);
    }
    acme.owner.delete(&last, 204);
    assert!(used(&acme.owner, "storage_bytes") < 4_000);
    acme.owner.post(&place, body, 201);
}

/// The bytes of every row that counts, from the tenant's history itself.
fn recount(dir: &Path, tenant: &str) -> u64 {
    let store = Store::open(StoreOptions::new(dir)).expect("a free data directory");
    let tenant: TenantId = tenant.parse().expect("an id");
    let keys = TenantKeys::new(tenant, &store.keystore().load(tenant).expect("a key"));
    let mut rows: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let read = |record: &Record| {
        let (lsn, epoch) = (record.header.lsn, record.header.epoch);
        let body = keys.open_record(lsn, epoch, &record.body).expect("a sound record");
        for op in body.ops {
            let key = op.key.to_vec();
            match op.value {
                Some(value) => rows.insert(key, value.len()),
                None => rows.remove(&key),
            };
        }
    };
    verify_chain(store.log().as_ref(), tenant, read).expect("a sound history");
    let counted = rows.iter().filter(|(key, _)| Key::is_counted(key[0]));
    let bytes = counted.map(|(key, value)| key.len() + value).sum::<usize>();
    store.close().expect("a clean end");
    bytes as u64
}

#[test]
fn the_bytes_that_are_counted_are_the_bytes_that_are_there() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("data");
    let clock = TestClock::new();
    let options = || WorldOptions::default().data(&dir).clock(clock.clone());
    let mut world = options().start();
    let acme = world.tenant("acme");
    let member = world.member_named(&acme, "ann", "member");
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}/submissions");
    let ids: Vec<_> =
        (0..5).map(|number| acme.submit(&member.0, &form, &number.to_string())).collect();
    let text = json!({"text": "How long?"});
    acme.owner.post(&format!("{place}/{}/comment", ids[0]), text, 201);
    acme.owner.act(&format!("{place}/{}/approve", ids[0]), 200);
    acme.owner.patch(
        &format!("{place}/{}", ids[1]),
        json!({"data": {"name": "a longer name"}}),
        200,
    );
    for id in [&ids[0], &ids[2]] {
        acme.owner.delete(&format!("{place}/{id}"), 204);
    }
    let team = acme.owner.post("/v1/teams", json!({"name": "T", "members": [member.1]}), 201);
    let team = format!("/v1/teams/{}", team.str("/id"));
    acme.owner.patch(&team, json!({"name": "Another"}), 200);
    let source = json!({"source": "github", "name": "Ours"});
    acme.owner.with_header("idempotency-key", "once").post("/v1/integrations", source, 201);
    acme.owner.patch(&format!("/v1/forms/{form}"), json!({"title": "Leave 2"}), 200);
    acme.owner.delete(&team, 204);
    acme.owner.delete(&format!("/v1/members/{}", member.1), 204);
    // Answers to idempotency keys go after a day; nobody paid for them.
    clock.advance_days(3);
    let owner = world.sign_in("acme", "owner@acme.example");
    owner.patch("/v1/tenant", json!({"name": "Acme again"}), 200);
    let told = used(&owner, "storage_bytes");
    assert!(told > 1_000);
    world.stop();
    assert_eq!(recount(&dir, &acme.id), told);
    let world = options().start();
    let owner = world.client.with_token(&owner.token.expect("a token"));
    assert_eq!(used(&owner, "storage_bytes"), told);
}

#[test]
fn after_the_trial_reading_goes_on_and_writing_needs_a_plan() {
    let clock = TestClock::new();
    let options = WorldOptions::default().set("signup.plan", "trial").set("plans.trial.days", 14);
    let world = options.clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}");
    let submission = acme.submit(&acme.owner, &form, "one");
    let usage = acme.owner.get("/v1/usage", 200).json();
    assert_eq!((&usage["plan"], &usage["trial_ended"]), (&json!("trial"), &json!(false)));

    clock.advance_days(14);
    let owner = world.sign_in("acme", "owner@acme.example");
    let usage = owner.get("/v1/usage", 200).json();
    assert_eq!(usage["trial_ended"], true);
    for path in ["/v1/me", "/v1/forms", &place, "/v1/audit", "/v1/members"] {
        owner.get(path, 200);
    }
    let at = format!("{place}/submissions/{submission}");
    let refused = [
        owner.post("/v1/forms", form_body("New"), 402),
        owner.post(&format!("{place}/submissions"), json!({"data": {"name": "x"}}), 402),
        owner.patch(&place, json!({"title": "Changed"}), 402),
        owner.put(&format!("{place}/acl"), json!({"grants": []}), 402),
        owner.delete(&at, 402),
        owner.delete(&place, 402),
        owner.patch("/v1/tenant", json!({"name": "Changed"}), 402),
    ];
    for reply in refused {
        assert_eq!(reply.problem(), "trial-ended");
    }
    assert_eq!(owner.get(&place, 200).str("/title"), "Leave");
    owner.delete("/v1/me/sessions", 204);
    let other = world.sign_in("acme", "owner@acme.example");
    other.act("/v1/auth/sign-out", 204);

    let admin = world.platform_admin();
    let tenant = format!("/v1/platform/tenants/{}", acme.id);
    assert_eq!(admin.patch(&tenant, json!({"plan": "pro"}), 200).str("/plan"), "pro");
    owner.patch(&place, json!({"title": "Changed"}), 200);
    let usage = owner.get("/v1/usage", 200).json();
    assert_eq!((&usage["plan"], &usage["trial_ended"]), (&json!("pro"), &json!(false)));
}

#[test]
fn a_plan_that_does_not_exist_is_refused_and_a_larger_one_lifts_the_limit() {
    let options = WorldOptions::default().set("signup.plan", "free").set("plans.free.forms", 1);
    let world = options.start();
    let acme = world.tenant("acme");
    acme.form("One");
    assert_over(&acme.owner.call("POST", "/v1/forms", Some(&form_body("Two"))), "forms", 1);

    let admin = world.platform_admin();
    let tenant = format!("/v1/platform/tenants/{}", acme.id);
    let body = json!({"slug": "initech", "name": "Initech", "plan": "gold"});
    let refused = [
        admin.post("/v1/platform/tenants", body, 422),
        admin.patch(&tenant, json!({"plan": "gold"}), 422),
    ];
    for reply in refused {
        assert_eq!(reply.problem(), "invalid");
        assert_eq!(reply.str("/errors/0/pointer"), "/plan");
        assert!(reply.str("/errors/0/message").contains("enterprise"), "{}", reply.text());
    }
    let absent = format!("/v1/platform/tenants/tn_{}", "0123456789abcdef".repeat(2));
    admin.patch(&absent, json!({"plan": "pro"}), 404);
    admin.patch(&tenant, json!({"plan": "enterprise"}), 200);
    acme.form("Two");
    let usage = acme.owner.get("/v1/usage", 200).json();
    assert_eq!(usage["quotas"]["forms"], json!({"used": 2, "limit": null}));
    // Back on the small plan nothing is lost, and nothing more fits.
    admin.patch(&tenant, json!({"plan": "free"}), 200);
    assert_eq!(used(&acme.owner, "forms"), 2);
    assert_over(&acme.owner.call("POST", "/v1/forms", Some(&form_body("Three"))), "forms", 1);
}
