//! The one way from the platform into a tenant: asked for with a reason, seen, decided on and ended by the tenant.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{
    Client, Launcher, TestClock, World, WorldOptions, ask_support, name_schema, support_session,
};

/// The actions in a log, oldest first, with who acted.
fn log(reader: &Client) -> Vec<Value> {
    let page = reader.get("/v1/audit?limit=100", 200).json();
    let mut items = page["items"].as_array().expect("a list").clone();
    items.sort_by_key(|entry| entry["seq"].as_u64());
    items
}

fn actions<'a>(log: &'a [Value], start: &str) -> Vec<&'a str> {
    let all = log.iter().map(|entry| entry["action"].as_str().expect("a name"));
    all.filter(|action| action.starts_with(start)).collect()
}

fn standing(platform: &Client, id: &str) -> String {
    platform.get(&format!("/v1/platform/support-sessions/{id}"), 200).str("/state")
}

#[test]
fn a_platform_administrator_sees_nothing_of_a_tenant_but_in_a_support_session() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let platform = world.platform_admin();
    for path in ["/v1/forms", "/v1/members", "/v1/audit", "/v1/usage", "/v1/tenant"] {
        assert_eq!(platform.get(path, 403).problem(), "forbidden", "{path}");
    }
    let form = tenant.form_with(json!({"title": "Leave", "schema": name_schema()}));
    let place = format!("/v1/forms/{form}");
    tenant.owner.post(&format!("{place}/submissions"), json!({"data": {"name": "Ada"}}), 201);

    let opened = ask_support(&platform, &tenant, &[], false);
    assert_eq!(opened.str("/state"), "open");
    let lasts = opened.json()["expires_in"].as_u64().expect("seconds");
    assert!((3_500..=3_600).contains(&lasts), "{lasts}");
    let support = platform.with_token(&opened.str("/access_token"));
    assert_eq!(support.get(&place, 200).str("/title"), "Leave");
    let submissions = support.get(&format!("{place}/submissions"), 200).json();
    assert_eq!(submissions["items"][0]["data"]["name"], "Ada");
    for path in ["/v1/tenant", "/v1/members", "/v1/teams", "/v1/usage", "/v1/integrations"] {
        support.get(path, 200);
    }
    // It reads, and that is all.
    let body = json!({"title": "Mine"});
    assert_eq!(support.call("PATCH", &place, Some(&body)).problem(), "forbidden");
    for path in ["/v1/me", "/v1/api-keys", "/v1/tenant/exports", "/v1/invites"] {
        assert_eq!(support.call("GET", path, None).problem(), "forbidden", "{path}");
    }
    let past = support.call("GET", "/v1/forms?as_of=2026-01-01T00:00:00Z", None);
    assert_eq!(past.problem(), "forbidden");
    assert_eq!(support.call("POST", "/v1/members", Some(&json!({}))).problem(), "forbidden");
}

#[test]
fn a_form_with_an_access_list_stays_closed_to_support() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let form = tenant.form_with(json!({"title": "Pay", "schema": name_schema()}));
    let support = support_session(&world.platform_admin(), &tenant, &["forms:update"]);
    let place = format!("/v1/forms/{form}");
    support.get(&place, 200);
    support.patch(&place, json!({"title": "Pay 2"}), 200);
    // Not even a grant to the role that it reads as.
    let grants = json!({"grants": [
        {"principal": {"kind": "user", "id": tenant.owner_id}, "level": "OWNER"},
        {"principal": {"kind": "role", "id": "member"}, "level": "EDITOR"},
    ]});
    tenant.owner.call("PUT", &format!("{place}/acl"), Some(&grants));
    assert_eq!(support.get(&place, 404).problem(), "not-found");
    assert_eq!(support.get("/v1/forms", 200).json()["items"], json!([]));
    assert_eq!(support.call("PATCH", &place, Some(&json!({"title": "X"}))).status, 404);
}

#[test]
fn each_step_and_each_use_is_in_both_logs_as_it_happens() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let platform = world.platform_admin();
    let support = support_session(&platform, &tenant, &[]);
    let form = tenant.form_with(json!({"title": "Leave", "schema": name_schema()}));
    support.get(&format!("/v1/forms/{form}"), 200);
    support.call("DELETE", &format!("/v1/forms/{form}"), None);
    let log = log(&tenant.owner);
    assert_eq!(
        actions(&log, "support."),
        ["support.ask", "support.approve", "support.token", "support.use"]
    );
    let of = |action: &str| log.iter().find(|entry| entry["action"] == action).expect(action);
    let asked = of("support.ask");
    assert_eq!(asked["actor"]["kind"], "support");
    assert_eq!(asked["actor"]["email"], "root@platform.example");
    assert_eq!(asked["detail"]["reason"], "a walk");
    assert_eq!(asked["detail"]["ticket"], "CASE-1");
    let used = of("support.use");
    assert_eq!(used["actor"]["email"], "root@platform.example");
    assert_eq!(
        (&used["target"]["id"], &used["detail"]["route"]),
        (&json!(form), &json!("forms.read"))
    );
    let refused = of("forms:manage");
    assert_eq!(
        (&refused["actor"]["kind"], &refused["outcome"]),
        (&json!("support"), &json!("refused"))
    );
    // The platform's own chain has what its administrators did.
    let report = platform.get("/v1/platform/audit/verify", 200).json();
    assert_eq!(report["ok"], true, "{report}");
}

#[test]
fn a_tenant_that_wants_to_be_asked_decides_before_anything_is_shown() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let platform = world.platform_admin();
    let admin = world.member(&tenant, "admin");
    admin.patch("/v1/tenant", json!({"support_approval": true}), 200);
    let off = admin.call("PATCH", "/v1/tenant", Some(&json!({"support_approval": false})));
    assert_eq!(off.status, 403, "only owners switch it off");

    let asked = ask_support(&platform, &tenant, &[], false);
    let id = asked.str("/id");
    assert_eq!(asked.str("/state"), "waiting");
    assert!(asked.json().get("access_token").is_none());
    let token = format!("/v1/platform/support-sessions/{id}/token");
    assert_eq!(platform.call("POST", &token, None).problem(), "support-not-open");
    let place = format!("/v1/support-sessions/{id}");
    let seen = admin.get(&place, 200);
    assert_eq!((seen.str("/state"), seen.str("/reason")), ("waiting".into(), "a walk".into()));
    assert_eq!(admin.get("/v1/support-sessions", 200).json()["items"][0], seen.json());
    for role in ["member", "viewer", "customer"] {
        let person = world.member(&tenant, role);
        assert_eq!(person.call("POST", &format!("{place}/approve"), None).status, 403, "{role}");
        person.get(&place, 403);
    }
    admin.act(&format!("{place}/deny"), 200);
    assert_eq!(standing(&platform, &id), "denied");
    assert_eq!(platform.call("POST", &token, None).problem(), "support-not-open");
    let late = admin.call("POST", &format!("{place}/approve"), None);
    assert_eq!(late.problem(), "support-decided");
    tenant.owner.patch("/v1/tenant", json!({"support_approval": false}), 200);
    assert_eq!(ask_support(&platform, &tenant, &[], false).str("/state"), "open");
    // To change something always takes the tenant's word.
    assert_eq!(ask_support(&platform, &tenant, &["forms:update"], false).str("/state"), "waiting");
}

#[test]
fn a_session_that_is_revoked_ended_replaced_or_over_opens_nothing_any_more() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let tenant = world.tenant("acme");
    let platform = world.platform_admin();
    let dead =
        |support: &Client| assert_eq!(support.get("/v1/forms", 401).problem(), "invalid-token");

    let opened = ask_support(&platform, &tenant, &[], false);
    let (id, support) = (opened.str("/id"), platform.with_token(&opened.str("/access_token")));
    support.get("/v1/forms", 200);
    let revoked = tenant.owner.delete(&format!("/v1/support-sessions/{id}"), 200);
    assert_eq!(revoked.str("/state"), "ended");
    dead(&support);
    tenant.owner.delete(&format!("/v1/support-sessions/{id}"), 200);

    clock.advance(Duration::from_secs(1));
    let opened = ask_support(&platform, &tenant, &[], false);
    let (id, first) = (opened.str("/id"), platform.with_token(&opened.str("/access_token")));
    first.get("/v1/forms", 200);
    let next = platform.act(&format!("/v1/platform/support-sessions/{id}/token"), 200);
    let second = platform.with_token(&next.str("/access_token"));
    second.get("/v1/forms", 200);
    // Also where the first one was believed a moment ago.
    dead(&first);
    platform.delete(&format!("/v1/platform/support-sessions/{id}"), 204);
    dead(&second);

    clock.advance(Duration::from_secs(1));
    let opened = ask_support(&platform, &tenant, &[], false);
    let support = platform.with_token(&opened.str("/access_token"));
    support.get("/v1/forms", 200);
    clock.advance(Duration::from_secs(60 * 60 + 1));
    dead(&support);
    let owner = world.sign_in("acme", "owner@acme.example");
    let listed = owner.get("/v1/support-sessions", 200).json();
    let states: Vec<_> =
        listed["items"].as_array().expect("a list").iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["ended", "ended", "expired"]);
}

#[test]
fn what_is_not_asked_for_properly_is_refused_and_nobody_hears_of_it() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let platform = world.platform_admin();
    let before = log(&tenant.owner).len();
    let good = json!({"tenant": "acme", "reason": "r", "ticket": "t", "minutes": 5});
    let with = |member: &str, value: Value| {
        let mut body = good.clone();
        body[member] = value;
        let reply = platform.call("POST", "/v1/platform/support-sessions", Some(&body));
        assert_eq!(reply.problem(), "invalid", "{member}: {}", reply.text());
        reply.json()["errors"][0]["pointer"].as_str().expect("a pointer").to_owned()
    };
    assert_eq!(with("tenant", json!("nowhere")), "/tenant");
    assert_eq!(with("tenant", json!("platform")), "/tenant");
    assert_eq!(with("reason", json!(" ")), "/reason");
    assert_eq!(with("ticket", json!("")), "/ticket");
    for minutes in [0, 481] {
        assert_eq!(with("minutes", json!(minutes)), "/minutes");
    }
    assert_eq!(with("scopes", json!(["members:write"])), "/scopes/0");
    assert_eq!(log(&tenant.owner).len(), before);
    let owner = tenant.owner.call("POST", "/v1/platform/support-sessions", Some(&good));
    assert_eq!(owner.status, 403);
}

#[test]
fn a_token_is_for_who_asked_and_for_that_tenant() {
    let world = World::start();
    let (acme, other) = (world.tenant("acme"), world.tenant("other"));
    let platform = world.platform_admin();
    let opened = ask_support(&platform, &acme, &[], false);
    let support = platform.with_token(&opened.str("/access_token"));
    let theirs = other.form("Theirs");
    support.get(&format!("/v1/forms/{theirs}"), 404);
    assert_eq!(support.get("/v1/tenant", 200).str("/slug"), "acme");
    let id = opened.str("/id");
    other.owner.get(&format!("/v1/support-sessions/{id}"), 404);
    assert_eq!(other.owner.call("DELETE", &format!("/v1/support-sessions/{id}"), None).status, 404);
    support.get("/v1/forms", 200);
    // The token opens nothing of the platform's.
    assert_eq!(support.call("GET", "/v1/platform/tenants", None).status, 403);
}

#[test]
fn the_platforms_own_log_says_who_asked_to_look_where_and_why_to_its_administrators_only() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let platform = world.platform_admin();
    let asked = ask_support(&platform, &tenant, &[], false);
    let support = platform.with_token(&asked.str("/access_token"));
    let place = "/v1/platform/audit?action=support.ask&limit=1";
    let page = platform.get(place, 200).json();
    let entry = &page["items"][0];
    assert_eq!(entry["actor"]["email"], "root@platform.example");
    assert_eq!(
        (&entry["target"]["kind"], &entry["target"]["id"]),
        (&json!("tenant"), &json!(tenant.id))
    );
    let detail = &entry["detail"];
    assert_eq!((&detail["reason"], &detail["ticket"]), (&json!("a walk"), &json!("CASE-1")));
    assert_eq!(detail["support"], json!(asked.str("/id")));
    let one = platform.get(&format!("/v1/platform/audit/{}", entry["seq"]), 200).json();
    assert_eq!(&one, entry);
    platform.get("/v1/platform/audit/999999999", 404);

    // Oldest first, page by page, it is the whole chain.
    let (mut seqs, mut cursor) = (Vec::new(), String::new());
    loop {
        let place = format!("/v1/platform/audit?sort=seq&limit=3{cursor}");
        let page = platform.get(&place, 200).json();
        let items = page["items"].as_array().expect("a list");
        seqs.extend(items.iter().map(|entry| entry["seq"].as_u64().expect("a number")));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert!(seqs.len() > 3, "{seqs:?}");

    for client in [&tenant.owner, &support] {
        for place in [place, "/v1/platform/audit/1"] {
            assert_eq!(client.get(place, 403).problem(), "forbidden", "{place}");
        }
    }
    assert_eq!(platform.get("/v1/audit", 403).problem(), "forbidden");
    let wrong = platform.get("/v1/platform/audit?tenant=acme", 422);
    assert_eq!(wrong.str("/errors/0/pointer"), "query/tenant");
}

#[test]
fn who_is_removed_from_the_platform_is_out_of_every_tenant_at_once_and_the_last_one_stays() {
    let world = World::start();
    let (acme, bobs) = (world.tenant("acme"), world.tenant("bob"));
    let platform = world.platform_admin();
    let email = "second@platform.example";
    let second = world.enrol("platform", email, &world.new_platform_admin(email));
    let open = |tenant| {
        let asked = ask_support(&second, tenant, &[], false);
        (second.with_token(&asked.str("/access_token")), asked.str("/id"))
    };
    let ((in_acme, id), (in_bobs, bobs_id)) = (open(&acme), open(&bobs));
    let waiting = ask_support(&second, &acme, &[], true).str("/id");
    let root = platform.with_token(&ask_support(&platform, &acme, &[], false).str("/access_token"));
    for client in [&in_acme, &in_bobs, &root] {
        client.get("/v1/tenant", 200);
    }
    // A tenant that cannot be told: what its own row says is not what counts.
    let place = format!("/v1/platform/tenants/{}", bobs.id);
    platform.post(&format!("{place}/suspend"), json!({"reason": "to be out of reach"}), 200);

    let launcher = Launcher::on(&world.dir);
    let words = ["platform-admin", "remove", "--email", email, "--json"];
    let removed = launcher.run(&words).expect(0).json();
    assert_eq!((&removed["support_ended"], &removed["sessions_ended"]), (&json!(2), &json!(1)));
    assert_eq!(removed["tenants_not_told"], json!([bobs.id]));
    platform.act(&format!("{place}/resume"), 200);

    assert_eq!(second.get("/v1/platform/tenants", 401).problem(), "invalid-token");
    for client in [&in_acme, &in_bobs] {
        for place in ["/v1/tenant", "/v1/api-keys"] {
            assert_eq!(client.get(place, 401).problem(), "invalid-token", "{place}");
        }
    }
    for id in [&id, &waiting] {
        let session = acme.owner.get(&format!("/v1/support-sessions/{id}"), 200);
        assert_eq!(session.str("/state"), "ended");
    }
    let entry = acme.owner.get("/v1/audit?action=support.end&limit=1", 200).json();
    let entry = &entry["items"][0];
    assert_eq!(
        (&entry["actor"]["kind"], &entry["target"]["email"]),
        (&json!("system"), &json!(email))
    );
    assert_eq!(entry["detail"]["reason"], "administrator-removed");
    let left = bobs.owner.get(&format!("/v1/support-sessions/{bobs_id}"), 200);
    assert_eq!(left.str("/state"), "open");
    root.get("/v1/tenant", 200);

    let words = ["platform-admin", "remove", "--email", "root@platform.example"];
    let refused = launcher.run(&words).expect(1).stderr;
    assert!(refused.contains("the last platform administrator"), "{refused}");
    let place = "/v1/platform/audit?action=platform_admin.remove&outcome=success";
    let log = platform.get(place, 200).json();
    assert_eq!(log["items"].as_array().map(Vec::len), Some(1), "{log}");
    assert_eq!(log["items"][0]["target"]["email"], email);
}
