//! The audit log: every act and every refused one is in it, and its chain holds by anybody's count.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use crate::kit::{Client, PASSWORD, Reply, Tenant, World, WorldOptions, name_schema};

const MEMBERS: [&str; 12] = [
    "action",
    "actor",
    "at",
    "detail",
    "hash",
    "ip",
    "outcome",
    "prev",
    "request_id",
    "seq",
    "target",
    "user_agent",
];

/// Every entry that `query` finds, over as many pages as it takes.
pub fn entries(reader: &Client, place: &str, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = reader.get(&format!("{place}?{query}{cursor}"), 200).json();
        let items = page["items"].as_array().expect("a list");
        let limit = query.split('&').find_map(|pair| pair.strip_prefix("limit=")?.parse().ok());
        assert!(items.len() <= limit.unwrap_or(200), "{} entries for {query}", items.len());
        all.extend(items.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn whole(reader: &Client) -> Vec<Value> {
    entries(reader, "/v1/audit", "sort=seq&limit=200")
}

/// RFC 8785, as far as entries need it: sorted members, no spaces, whole numbers.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut names: Vec<_> = members.keys().collect();
            names.sort();
            let members = names.into_iter().map(|name| {
                format!("{}:{}", Value::from(name.as_str()), canonical(&members[name]))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// Counts the chain again, with nothing of ours but the label.
fn assert_chained(entries: &[Value]) {
    let mut prev = "0".repeat(64);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry["seq"], json!(index + 1), "a gap");
        assert_eq!(entry["prev"], json!(prev), "{entry}");
        let mut hashed: Map<String, Value> = entry.as_object().expect("an object").clone();
        let hash = hashed.remove("hash").expect("a hash");
        let text = format!("bulkhead.audit.1\n{}", canonical(&Value::Object(hashed)));
        prev = hex::encode(digest(&SHA256, text.as_bytes()));
        assert_eq!(hash, json!(prev), "{entry}");
    }
}

/// A tenant whose log is watched.
struct Watched<'w> {
    world: &'w World,
    tenant: Tenant,
}

impl Watched<'_> {
    fn head(&self) -> u64 {
        let page = self.tenant.owner.get("/v1/audit?limit=1", 200).json();
        page["items"][0]["seq"].as_u64().expect("a number")
    }

    /// Lets something happen and demands exactly these entries: action, outcome, kind of target.
    fn expect(&self, act: impl FnOnce(&Client) -> Reply, expected: &[(&str, &str, &str)]) -> Reply {
        self.expect_by(&self.tenant.owner, act, expected)
    }

    fn expect_by(
        &self,
        by: &Client,
        act: impl FnOnce(&Client) -> Reply,
        expected: &[(&str, &str, &str)],
    ) -> Reply {
        let before = self.head();
        let reply = act(&by.with_header("user-agent", "audit-test/1"));
        let found: Vec<_> = (before + 1..=self.head())
            .map(|seq| self.tenant.owner.get(&format!("/v1/audit/{seq}"), 200))
            .collect();
        let request_id = reply.header("x-request-id").expect("a request id");
        assert_eq!(
            found.len(),
            expected.len(),
            "{expected:?}: {:?}",
            found.iter().map(Reply::text).collect::<Vec<_>>()
        );
        for (entry, (action, outcome, kind)) in found.iter().map(Reply::json).zip(expected) {
            let members: Vec<_> = {
                let mut names: Vec<_> = entry.as_object().expect("an object").keys().collect();
                names.sort();
                names.into_iter().cloned().collect()
            };
            assert_eq!(members, MEMBERS, "{entry}");
            let shown = (&entry["action"], &entry["outcome"], &entry["target"]["kind"]);
            assert_eq!(shown, (&json!(action), &json!(outcome), &json!(kind)), "{entry}");
            assert_eq!(entry["request_id"], json!(request_id), "{entry}");
            assert_eq!(
                (&entry["ip"], &entry["user_agent"]),
                (&json!("127.0.0.1"), &json!("audit-test/1"))
            );
            let at = entry["at"].as_str().expect("a time");
            assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
            if entry["actor"]["kind"] == "user" {
                assert!(
                    entry["actor"]["email"].as_str().is_some_and(|it| it.contains('@')),
                    "{entry}"
                );
            }
            assert!(!entry.to_string().contains(PASSWORD), "a secret in the log");
        }
        reply
    }
}

fn people_and_sessions(log: &Watched<'_>) {
    let slug = &log.tenant.slug;
    let email = format!("owner@{slug}.example");
    let sign_in = |password: &str| json!({"tenant": slug, "email": email, "password": password});
    let by_anyone = &log.world.client;
    let place = "/v1/auth/sign-in";
    let ok = [("sign_in", "success", "session")];
    let tokens = log.expect_by(by_anyone, |it| it.post(place, sign_in(PASSWORD), 200), &ok);
    let session = by_anyone.with_token(&tokens.str("/access_token"));
    let wrong = [("sign_in", "failed", "user")];
    log.expect_by(by_anyone, |it| it.post(place, sign_in("not the password"), 401), &wrong);
    let nobody = json!({"tenant": slug, "email": "nobody@x.example", "password": PASSWORD});
    log.expect_by(by_anyone, |it| it.post(place, nobody, 401), &[("sign_in", "failed", "account")]);
    log.expect_by(
        &session,
        |it| it.act("/v1/auth/sign-out", 204),
        &[("sign_out", "success", "session")],
    );

    let tokens = log.world.client.post(place, sign_in(PASSWORD), 200).str("/refresh_token");
    let refresh = json!({"refresh_token": tokens});
    let place = "/v1/auth/refresh";
    log.expect_by(by_anyone, |it| it.post(place, refresh.clone(), 200), &[]);
    let reuse = [("refresh.reuse", "failed", "session")];
    log.expect_by(by_anyone, |it| it.post(place, refresh.clone(), 401), &reuse);
    log.expect(|it| it.delete("/v1/me/sessions", 204), &[("session.revoke", "success", "user")]);

    let body = json!({"email": "ann@x.example", "role": "member", "password": PASSWORD});
    let ann =
        log.expect(|it| it.post("/v1/members", body, 201), &[("member.add", "success", "user")]);
    let ann = format!("/v1/members/{}", ann.str("/id"));
    let changed = [("member.role_change", "success", "user")];
    log.expect(|it| it.patch(&ann, json!({"role": "viewer"}), 200), &changed);
    log.expect(|it| it.patch(&ann, json!({"role": "viewer"}), 200), &[]);
    log.expect(|it| it.delete(&ann, 204), &[("member.remove", "success", "user")]);
    let body = json!({"name": "Another name"});
    log.expect(|it| it.patch("/v1/tenant", body, 200), &[("tenant.update", "success", "tenant")]);
}

fn teams_and_integrations(log: &Watched<'_>) {
    let body = json!({"name": "Reviewers"});
    let team =
        log.expect(|it| it.post("/v1/teams", body, 201), &[("team.create", "success", "team")]);
    let team = format!("/v1/teams/{}", team.str("/id"));
    let body = json!({"name": "Approvers"});
    log.expect(|it| it.patch(&team, body, 200), &[("team.update", "success", "team")]);
    log.expect(|it| it.delete(&team, 204), &[("team.delete", "success", "team")]);

    let done = |action: &'static str| [(action, "success", "integration")];
    let body = json!({"source": "github", "name": "Ours"});
    let made = log.expect(|it| it.post("/v1/integrations", body, 201), &done("integration.create"));
    let place = format!("/v1/integrations/{}", made.str("/id"));
    log.expect(|it| it.patch(&place, json!({"enabled": false}), 200), &done("integration.toggle"));
    log.expect(|it| it.patch(&place, json!({"name": "Theirs"}), 200), &done("integration.update"));
    let secrets = format!("{place}/secrets");
    let rotated =
        log.expect(|it| it.post(&secrets, json!({}), 201), &done("integration.secret_rotate"));
    let old = format!("{secrets}/{}", rotated.str("/secrets/0/id"));
    log.expect(|it| it.delete(&old, 204), &done("integration.secret_remove"));
    let secret = made.str("/secret");
    let text = format!("{:?}", whole(&log.tenant.owner));
    assert!(!text.contains(&secret), "a secret in the log");
}

fn forms_and_submissions(log: &Watched<'_>, member: &Client) {
    let form_done = |action: &'static str| [(action, "success", "form")];
    let body = json!({"title": "Leave", "schema": name_schema()});
    let made = log.expect(|it| it.post("/v1/forms", body, 201), &form_done("form.create"));
    let form = format!("/v1/forms/{}", made.str("/id"));
    log.expect(|it| it.patch(&form, json!({"title": "Leave 2"}), 200), &form_done("form.update"));

    let done = |action: &'static str| [(action, "success", "submission")];
    let place = format!("{form}/submissions");
    let data = |name: &str| json!({"data": {"name": name}});
    let create = done("submission.create");
    let one = log.expect_by(member, |it| it.post(&place, data("one"), 201), &create).str("/id");
    let two = log.expect_by(member, |it| it.post(&place, data("two"), 201), &create).str("/id");
    let draft = json!({"data": {}, "draft": true});
    let three = log.expect_by(member, |it| it.post(&place, draft, 201), &create).str("/id");
    let at = |id: &str, verb: &str| format!("{place}/{id}{verb}");
    log.expect_by(
        member,
        |it| it.patch(&at(&three, ""), data("three"), 200),
        &done("submission.update"),
    );
    log.expect_by(member, |it| it.act(&at(&three, "/submit"), 200), &done("submission.submit"));
    let text = json!({"text": "Which days?"});
    log.expect(|it| it.post(&at(&one, "/comment"), text, 201), &done("submission.comment"));
    let why = json!({"comment": "Enjoy"});
    log.expect(|it| it.post(&at(&one, "/approve"), why, 200), &done("submission.approve"));
    log.expect(|it| it.act(&at(&two, "/reject"), 200), &done("submission.reject"));
    log.expect(|it| it.delete(&at(&three, ""), 204), &done("submission.delete"));

    let grants =
        json!({"grants": [{"principal": {"kind": "role", "id": "member"}, "level": "OWNER"}]});
    log.expect(|it| it.put(&format!("{form}/acl"), grants, 200), &form_done("form.acl_change"));
    let broken = log.expect(
        |it| it.with_header("x-break-glass-reason", "the author is ill").get(&form, 200),
        &form_done("form.break_glass"),
    );
    let entry = format!("/v1/audit?request_id={}", broken.header("x-request-id").expect("an id"));
    let found = log.tenant.owner.get(&entry, 200).json();
    assert_eq!(found["items"][0]["detail"]["reason"], "the author is ill");
    log.expect_by(member, |it| it.act(&format!("{form}/archive"), 200), &form_done("form.archive"));
    log.expect_by(member, |it| it.act(&format!("{form}/archive"), 200), &[]);
}

#[test]
fn every_act_leaves_exactly_its_entries_and_they_are_chained() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let first = &whole(&tenant.owner)[0];
    assert_eq!(
        (&first["action"], &first["actor"]["kind"]),
        (&json!("tenant.create"), &json!("system"))
    );
    let member = world.member(&tenant, "member");
    let log = Watched { world: &world, tenant };
    people_and_sessions(&log);
    teams_and_integrations(&log);
    forms_and_submissions(&log, &member);
    let change = json!({"current_password": PASSWORD, "new_password": "another correct horse"});
    let done = [("password.change", "success", "user")];
    let before = log.head();
    let tokens = log.tenant.owner.patch("/v1/me/password", change, 200);
    let owner = world.client.with_token(&tokens.str("/access_token"));
    let last = owner.get(&format!("/v1/audit/{}", before + 1), 200).json();
    assert_eq!((&last["action"], &last["outcome"]), (&json!(done[0].0), &json!(done[0].1)));

    let all = whole(&owner);
    assert_chained(&all);
    let report = owner.get("/v1/audit/verify", 200).json();
    assert_eq!((&report["ok"], &report["entries"]), (&json!(true), &json!(all.len())));
    assert_eq!(report["head"]["hash"], all.last().expect("some")["hash"]);
    println!("audit: {} entries, all chained", all.len());
}

#[test]
fn refused_attempts_leave_an_entry_too() {
    let world = WorldOptions::default().set("plans.pro.forms", 2).start();
    let tenant = world.tenant("acme");
    let (member, viewer) = (world.member(&tenant, "member"), world.member(&tenant, "viewer"));
    let admin = world.member(&tenant, "admin");
    let (form, other) = (tenant.form("Leave"), tenant.form("Other"));
    let own = tenant.submit(&tenant.owner, &form, "one");
    let log = Watched { world: &world, tenant };
    let owner_id = log.tenant.owner_id.clone();
    let refused = |action: &'static str, kind: &'static str| [(action, "refused", kind)];

    let body = json!({"title": "T", "schema": {}});
    log.expect_by(
        &viewer,
        |it| it.post("/v1/forms", body.clone(), 403),
        &refused("forms:create", "route"),
    );
    log.expect_by(&member, |it| it.get("/v1/audit", 403), &refused("audit:read", "route"));
    let place = format!("/v1/forms/{form}");
    log.expect_by(&viewer, |it| it.delete(&place, 403), &refused("forms:manage", "form"));
    let platform = refused("platform-tenants:read", "route");
    log.expect(|it| it.get("/v1/platform/tenants", 403), &platform);
    log.expect(|it| it.post("/v1/forms", body, 402), &refused("form.create", "form"));
    let approve = format!("{place}/submissions/{own}/approve");
    log.expect(|it| it.act(&approve, 403), &refused("submission.approve", "submission"));
    let add = json!({"email": "x@x.example", "role": "owner", "password": PASSWORD});
    log.expect_by(&admin, |it| it.post("/v1/members", add, 403), &refused("member.add", "role"));
    let gone = format!("/v1/members/{owner_id}");
    log.expect(|it| it.delete(&gone, 409), &refused("member.remove", "user"));
    let stale =
        |it: &Client| it.with_header("if-match", "\"9\"").patch(&place, json!({"title": "X"}), 412);
    log.expect(stale, &refused("form.update", "form"));
    let grants =
        json!({"grants": [{"principal": {"kind": "user", "id": owner_id}, "level": "OWNER"}]});
    log.tenant.owner.put(&format!("/v1/forms/{other}/acl"), grants, 200);
    let restricted = format!("/v1/forms/{other}");
    let patch = |it: &Client| it.patch(&restricted, json!({"title": "X"}), 403);
    log.expect_by(&admin, patch, &refused("form.update", "form"));

    // What is not privileged, and what is not there, is no event.
    let data = json!({"data": {"name": "x"}});
    log.expect_by(&viewer, |it| it.post(&format!("{place}/submissions"), data, 403), &[]);
    log.expect(|it| it.delete(&format!("/v1/forms/fm_{}", "0".repeat(32)), 404), &[]);
    log.expect(|it| it.post("/v1/forms", json!({"title": ""}), 422), &[]);
    assert_chained(&whole(&log.tenant.owner));
    let reasons: Vec<_> = entries(&log.tenant.owner, "/v1/audit", "outcome=refused&sort=seq")
        .iter()
        .map(|entry| entry["detail"]["reason"].as_str().expect("a reason").to_owned())
        .collect();
    let expected = ["quota-exceeded", "four-eyes", "forbidden", "conflict", "version-mismatch"];
    assert_eq!(reasons[4..9], expected, "{reasons:?}");
}

#[test]
fn entries_cannot_be_changed_by_any_route() {
    let world = World::start();
    let acme = world.tenant("acme");
    let before = whole(&acme.owner);
    for path in ["/v1/audit", "/v1/audit/1", "/v1/audit/verify"] {
        for verb in ["PUT", "PATCH", "DELETE", "POST"] {
            let reply = acme.owner.call(verb, path, Some(&json!({"action": "nothing"})));
            assert_eq!((reply.status, reply.problem().as_str()), (405, "method-not-allowed"));
            assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{verb} {path}");
        }
    }
    assert_eq!(whole(&acme.owner), before);
}

#[test]
fn filters_find_what_reading_everything_would_and_pages_cover_it_once() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let (form, other) = (acme.form("Leave"), acme.form("Other"));
    for number in 0..6 {
        acme.submit(&ann, &form, &number.to_string());
        acme.submit(&acme.owner, &other, &number.to_string());
    }
    ann.get("/v1/audit", 403);
    acme.owner.act(&format!("/v1/forms/{form}/archive"), 200);
    let all = whole(&acme.owner);
    let middle = all[all.len() / 2]["at"].as_str().expect("a time").to_owned();
    let request = all[all.len() / 2]["request_id"].as_str().expect("an id").to_owned();
    type Takes<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let text = |entry: &Value, pointer: &str| {
        entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let filters: Vec<(String, Takes<'_>)> = vec![
        (
            "action=submission.create".into(),
            Box::new(|it| text(it, "/action") == "submission.create"),
        ),
        ("action=form.*".into(), Box::new(|it| text(it, "/action").starts_with("form."))),
        (format!("actor={ann_id}"), Box::new(|it| text(it, "/actor/id") == ann_id)),
        ("target_kind=form".into(), Box::new(|it| text(it, "/target/kind") == "form")),
        (format!("target={form}"), Box::new(|it| text(it, "/target/id") == form)),
        (format!("form={other}"), Box::new(|it| text(it, "/detail/form") == other)),
        ("outcome=refused".into(), Box::new(|it| text(it, "/outcome") == "refused")),
        (format!("from={middle}"), Box::new(|it| text(it, "/at") >= middle)),
        (format!("to={middle}"), Box::new(|it| text(it, "/at") < middle)),
        (format!("request_id={request}"), Box::new(|it| text(it, "/request_id") == request)),
        (
            format!("actor={ann_id}&action=submission.*&form={form}"),
            Box::new(|it| text(it, "/actor/id") == ann_id && text(it, "/detail/form") == form),
        ),
        ("action=no.such".into(), Box::new(|_| false)),
    ];
    for (query, takes) in filters {
        let expected: Vec<_> = all.iter().filter(|entry| takes(entry)).cloned().collect();
        for limit in [1, 3, 200] {
            let found =
                entries(&acme.owner, "/v1/audit", &format!("{query}&sort=seq&limit={limit}"));
            assert_eq!(found, expected, "{query} limit {limit}");
            let mut newest = entries(&acme.owner, "/v1/audit", &format!("{query}&limit={limit}"));
            newest.reverse();
            assert_eq!(newest, expected, "{query} limit {limit}, newest first");
        }
    }
    let trail = entries(&acme.owner, &format!("/v1/forms/{form}/audit"), "sort=seq&limit=2");
    assert_eq!(trail, entries(&acme.owner, "/v1/audit", &format!("form={form}&sort=seq")));
    assert_eq!(trail.len(), 8);
    ann.get(&format!("/v1/forms/{form}/audit"), 403);
    for bad in ["cursor=!", "limit=0", "limit=201", "sort=at", "outcome=maybe", "from=today", "x=1"]
    {
        assert_eq!(acme.owner.get(&format!("/v1/audit?{bad}"), 422).problem(), "invalid", "{bad}");
    }
    acme.owner.get("/v1/audit/999999", 404);
    acme.owner.get("/v1/audit/0", 404);
}

#[test]
fn the_platform_verifies_every_chain_and_its_own_acts_are_in_one() {
    let world = World::start();
    let acme = world.tenant("acme");
    let admin = world.platform_admin();
    let entries_of = |report: &Value, tenant: &str| {
        let tenants = report["tenants"].as_array().expect("reports");
        let found = tenants.iter().find(|one| one["tenant"] == tenant).expect("a report");
        assert_eq!(found["ok"], true, "{found}");
        found["entries"].as_u64().expect("a number")
    };
    let verify =
        |query: &str, status| admin.get(&format!("/v1/platform/audit/verify{query}"), status);
    let report = verify("", 200).json();
    assert_eq!(report["ok"], true, "{report}");
    let tenants = report["tenants"].as_array().expect("reports");
    let platform = tenants.iter().find(|one| one["tenant"] != acme.id.as_str()).expect("two");
    let platform = platform["tenant"].as_str().expect("an id").to_owned();
    assert_eq!(entries_of(&report, &acme.id), whole(&acme.owner).len() as u64);
    let only = verify(&format!("?tenant={}", acme.id), 200).json();
    assert_eq!(only["tenants"].as_array().map(Vec::len), Some(1));
    verify(&format!("?tenant=tn_{}", "0123456789abcdef".repeat(2)), 404);
    verify("?tenant=acme", 404);
    // Reports hold numbers and no content.
    assert!(!report.to_string().contains("example"), "{report}");

    let count = || entries_of(&verify(&format!("?tenant={platform}"), 200).json(), &platform);
    let place = format!("/v1/platform/tenants/{}", acme.id);
    let mut before = count();
    let acts: [&dyn Fn(); 5] = [
        &|| drop(admin.post(&format!("{place}/suspend"), json!({"reason": "a test"}), 200)),
        &|| drop(admin.act(&format!("{place}/resume"), 200)),
        &|| drop(admin.patch(&place, json!({"plan": "enterprise"}), 200)),
        &|| drop(admin.post("/v1/platform/tenants", json!({"slug": "new", "name": "New"}), 201)),
        &|| drop(admin.post("/v1/platform/tenants", json!({"slug": "new", "name": "New"}), 409)),
    ];
    for (index, act) in acts.iter().enumerate() {
        act();
        // Looking is an act as well: one entry of each count is the count before.
        let after = count();
        assert!(after >= before + 2, "act {index} left no entry: {before} → {after}");
        before = after;
    }
    let moved = entries(&acme.owner, "/v1/audit", "action=tenant.plan_change");
    assert_eq!((moved.len(), &moved[0]["detail"]["to"]), (1, &json!("enterprise")));
}
