//! A form from its making to its end: submitted to, decided on, changed by one at a time.

use serde_json::{Value, json};

use crate::kit::{Client, Reply, World, at_once};

fn pointers(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.problem(), "invalid");
    let errors = reply.json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect()
}

fn leave_schema() -> Value {
    json!({
        "type": "object",
        "required": ["from", "days"],
        "additionalProperties": false,
        "properties": {
            "from": {"type": "string", "format": "date"},
            "days": {"type": "integer", "minimum": 1, "maximum": 30},
            "notes": {"type": "array", "items": {"type": "string", "maxLength": 5}},
        },
    })
}

fn leave(days: u64) -> Value {
    json!({"data": {"from": "2031-05-17", "days": days}})
}

#[test]
fn a_form_is_submitted_to_reviewed_and_decided_on_by_somebody_else() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (author, author_id) = world.member_named(&acme, "author", "member");
    let (reviewer, reviewer_id) = world.member_named(&acme, "reviewer", "member");
    let bystander = world.member(&acme, "member");
    let body = json!({"title": "Leave", "schema": leave_schema(), "approval": {"required": true}});
    let made = acme.owner.post("/v1/forms", body, 201);
    let form = format!("/v1/forms/{}", made.str("/id"));
    assert_eq!(made.header("location"), Some(form.as_str()));
    assert_eq!(made.json()["approval"]["required"], true);
    assert_eq!(made.json()["schema"], leave_schema());
    let grant = |kind: &str, id: &str, level: &str| json!({"principal": {"kind": kind, "id": id}, "level": level});
    let grants = json!({"grants": [
        grant("role", "owner", "OWNER"),
        grant("user", &author_id, "EDITOR"),
        grant("user", &reviewer_id, "REVIEWER"),
    ]});
    acme.owner.put(&format!("{form}/acl"), grants, 200);

    let place = format!("{form}/submissions");
    bystander.get(&form, 404);
    bystander.post(&place, leave(3), 404);
    let submitted = author.post(&place, leave(3), 201);
    assert_eq!(submitted.str("/status"), "submitted");
    assert_eq!(submitted.str("/created_by"), author_id);
    assert_eq!(submitted.json()["data"], leave(3)["data"]);
    let at = format!("{place}/{}", submitted.str("/id"));
    assert_eq!(submitted.header("location"), Some(at.as_str()));

    // Editors do not decide, reviewers do not edit, nobody decides on their own.
    assert_eq!(author.act(&format!("{at}/approve"), 403).problem(), "forbidden");
    assert_eq!(reviewer.patch(&at, leave(9), 403).problem(), "forbidden");
    bystander.act(&format!("{at}/approve"), 404);
    let own = reviewer.post(&place, leave(1), 201).str("/id");
    assert_eq!(reviewer.act(&format!("{place}/{own}/approve"), 403).problem(), "four-eyes");
    let comment = reviewer.post(&format!("{at}/comment"), json!({"text": "Which days?"}), 201);
    assert_eq!(
        (comment.str("/text"), comment.str("/created_by")),
        ("Which days?".into(), reviewer_id.clone())
    );
    author.patch(&at, leave(4), 200);
    let enjoy = json!({"comment": "Enjoy"});
    let blind = reviewer.post(&format!("{at}/approve"), enjoy.clone(), 412);
    assert_eq!(blind.problem(), "version-mismatch");
    assert!(blind.str("/detail").contains("`If-Match`"), "{}", blind.text());
    let etag = reviewer.get(&at, 200).header("etag").expect("a version").to_owned();
    let sure = reviewer.with_header("if-match", &etag);
    let approved = sure.post(&format!("{at}/approve"), enjoy, 200);
    assert_eq!(approved.str("/status"), "approved");
    assert_eq!(approved.str("/decided_by"), reviewer_id);
    assert_eq!(approved.json()["data"]["days"], 4);
    assert_eq!(author.get(&at, 200).json(), approved.json());
    let comments = author.get(&format!("{at}/comments"), 200).json();
    let texts: Vec<_> =
        comments["items"].as_array().expect("a list").iter().map(|it| &it["text"]).collect();
    assert_eq!(texts, ["Which days?", "Enjoy"]);
    for verb in ["approve", "reject"] {
        assert_eq!(acme.owner.act(&format!("{at}/{verb}"), 409).problem(), "already-decided");
    }
    assert_eq!(author.patch(&at, leave(5), 409).problem(), "already-decided");
    let rejected = acme.owner.act(&format!("{place}/{own}/reject"), 200);
    assert_eq!(rejected.str("/status"), "rejected");
}

#[test]
fn whoever_changed_a_submission_does_not_decide_on_it() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (author, editor) =
        (world.member_named(&acme, "author", "member").0, world.member(&acme, "member"));
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}/submissions");
    let at = format!("{place}/{}", acme.submit(&author, &form, "three days"));
    let etag = editor
        .patch(&at, json!({"data": {"name": "thirty days"}}), 200)
        .header("etag")
        .expect("a version")
        .to_owned();
    for verb in ["approve", "reject"] {
        for client in [editor.clone(), editor.with_header("if-match", &etag)] {
            assert_eq!(client.act(&format!("{at}/{verb}"), 403).problem(), "four-eyes");
        }
    }
    for client in [acme.owner.clone(), acme.owner.with_header("if-match", "\"1\"")] {
        assert_eq!(client.act(&format!("{at}/approve"), 412).problem(), "version-mismatch");
    }
    let sure = acme.owner.with_header("if-match", &etag);
    assert_eq!(sure.act(&format!("{at}/approve"), 200).str("/status"), "approved");
}

#[test]
fn a_draft_may_be_wrong_until_it_is_handed_in() {
    let world = World::start();
    let acme = world.tenant("acme");
    let author = world.member(&acme, "member");
    let form = acme.form_with(json!({"title": "Leave", "schema": leave_schema()}));
    let place = format!("/v1/forms/{form}/submissions");
    let draft = author.post(&place, json!({"data": {"days": 99}, "draft": true}), 201);
    assert_eq!(draft.str("/status"), "draft");
    let at = format!("{place}/{}", draft.str("/id"));
    assert_eq!(acme.owner.act(&format!("{at}/approve"), 409).problem(), "still-draft");
    let refused = author.act(&format!("{at}/submit"), 422);
    assert_eq!(pointers(&refused).len(), 2, "{}", refused.text());
    author.patch(&at, leave(2), 200);
    assert_eq!(author.act(&format!("{at}/submit"), 200).str("/status"), "submitted");
    assert_eq!(acme.owner.act(&format!("{at}/approve"), 200).str("/status"), "approved");
}

#[test]
fn what_does_not_fit_the_schema_is_pointed_at() {
    let world = World::start();
    let acme = world.tenant("acme");
    let form = acme.form_with(json!({"title": "Leave", "schema": leave_schema()}));
    let place = format!("/v1/forms/{form}/submissions");
    for (data, expected) in [
        (json!({}), vec!["/data", "/data"]),
        (json!({"from": "soon", "days": 1}), vec!["/data/from"]),
        (json!({"from": "2031-05-17", "days": 0}), vec!["/data/days"]),
        (json!({"from": "2031-05-17", "days": "1"}), vec!["/data/days"]),
        (json!({"from": "2031-05-17", "days": 1, "more": 1}), vec!["/data"]),
        (
            json!({"from": "2031-05-17", "days": 1, "notes": ["ok", "too long"]}),
            vec!["/data/notes/1"],
        ),
        (json!("text"), vec!["/data"]),
    ] {
        let reply = acme.owner.post(&place, json!({"data": data}), 422);
        assert_eq!(pointers(&reply), expected, "{}", reply.text());
    }
    let twice = br#"{"data":{"days":1,"from":"2031-05-17","days":2}}"#;
    let reply = acme.owner.send("POST", &place, Some("application/json"), twice);
    assert_eq!((reply.status, pointers(&reply)), (422, vec!["/data".to_owned()]));
    for (body, expected) in [
        (json!({"title": "T", "schema": {"type": "strin"}}), "/schema"),
        (json!({"title": "T", "schema": 7}), "/schema"),
        (json!({"title": "T", "schema": {"$ref": "https://evil.example/schema"}}), "/schema"),
        (json!({"title": "T", "schema": {"$ref": "#"}}), "/schema"),
        (json!({"title": " ", "schema": {}}), "/title"),
        (json!({"title": "a\nb", "schema": {}}), "/title"),
        (json!({"title": "x".repeat(500), "schema": {}}), "/title"),
    ] {
        let reply = acme.owner.post("/v1/forms", body, 422);
        assert!(pointers(&reply)[0].starts_with(expected), "{}", reply.text());
    }
}

#[test]
fn only_whoever_saw_the_newest_version_may_change_it() {
    let world = World::start();
    let acme = world.tenant("acme");
    let form = format!("/v1/forms/{}", acme.form("Leave"));
    let first = acme.owner.get(&form, 200);
    assert_eq!(first.header("etag"), Some("\"1\""));
    let with = |name: &str, value: &str| acme.owner.with_header(name, value);
    for known in ["\"1\"", "W/\"1\"", "\"7\", \"1\"", "*"] {
        let reply = with("if-none-match", known).get(&form, 304);
        assert_eq!((reply.body.len(), reply.header("etag")), (0, Some("\"1\"")), "{known}");
    }
    with("if-none-match", "\"2\"").get(&form, 200);

    let title = |title: &str| json!({"title": title});
    let second = with("if-match", "\"1\"").patch(&form, title("Second"), 200);
    assert_eq!(second.header("etag"), Some("\"2\""));
    for stale in ["\"1\"", "\"3\"", "W/\"2\"", "2", "\"two\"", "\"1\", \"2\""] {
        let reply = with("if-match", stale).patch(&form, title("Lost"), 412);
        assert_eq!(reply.problem(), "version-mismatch", "{stale}");
    }
    with("if-match", "*").patch(&form, title("Third"), 200);
    acme.owner.patch(&form, title("Fourth"), 200);
    assert_eq!(acme.owner.get(&form, 200).json()["version"], 4);
    let replies = at_once(10, |number| {
        let body = title(&format!("By {number}"));
        with("if-match", "\"4\"").call("PATCH", &form, Some(&body)).status
    });
    assert_eq!(replies.iter().filter(|status| **status == 200).count(), 1, "{replies:?}");
    with("if-match", "\"1\"").put(&format!("{form}/acl"), json!({"grants": []}), 412);
    with("if-match", "\"1\"").delete(&form, 412);
    with("if-match", "\"5\"").delete(&form, 204);
}

#[test]
fn the_same_idempotency_key_has_one_effect_and_one_answer() {
    let world = World::start();
    let acme = world.tenant("acme");
    let member = world.member(&acme, "member");
    let keyed = |client: &Client, key: &str| client.with_header("idempotency-key", key);
    let body = |title: &str| json!({"title": title, "schema": {}});
    let first = keyed(&acme.owner, "k1").post("/v1/forms", body("One"), 201);
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = keyed(&acme.owner, "k1").post("/v1/forms", body("One"), 201);
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    for name in ["location", "etag", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(keyed(&acme.owner, "\"k1\"").post("/v1/forms", body("One"), 201).body, first.body);
    let reused = keyed(&acme.owner, "k1").post("/v1/forms", body("Two"), 422);
    assert_eq!(reused.problem(), "idempotency-key-reused");
    // Another person, another route: another key.
    let other = keyed(&member, "k1").post("/v1/forms", body("One"), 201);
    assert_ne!(other.str("/id"), first.str("/id"));
    let place = format!("/v1/forms/{}/submissions", first.str("/id"));
    keyed(&acme.owner, "k1").post(&place, json!({"data": 1}), 201);
    // A refusal is no effect: the key is still good.
    keyed(&acme.owner, "k2").post("/v1/forms", body(""), 422);
    keyed(&acme.owner, "k2").post("/v1/forms", body("Two"), 201);
    let long = "k".repeat(256);
    for bad in ["", "a b", long.as_str(), "\"\""] {
        let reply = keyed(&acme.owner, bad).post("/v1/forms", body("Bad"), 400);
        assert_eq!(reply.problem(), "bad-idempotency-key", "{bad:?}");
    }
    let twice = keyed(&keyed(&acme.owner, "a"), "b").post("/v1/forms", body("Bad"), 400);
    assert_eq!(twice.problem(), "bad-idempotency-key");
    let listed = acme.owner.get("/v1/forms", 200).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{listed}");
}

#[test]
fn fifty_with_the_same_key_at_the_same_moment_get_one_effect() {
    let world = World::start();
    let acme = world.tenant("acme");
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}/submissions");
    let keyed = acme.owner.with_header("idempotency-key", "\"9d1b\"");
    let body = json!({"data": {"name": "once"}});
    let replies = at_once(50, |_| keyed.call("POST", &place, Some(&body)));
    for reply in &replies {
        assert_eq!((reply.status, &reply.body), (201, &replies[0].body));
    }
    let fresh = replies.iter().filter(|it| it.header("idempotency-replayed").is_none()).count();
    assert_eq!(fresh, 1);
    let listed = acme.owner.get(&place, 200).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(acme.owner.get("/v1/usage", 200).json()["quotas"]["submissions"]["used"], 1);
}

#[test]
fn an_archived_form_is_read_and_not_changed() {
    let world = World::start();
    let acme = world.tenant("acme");
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}");
    let one = acme.submit(&acme.owner, &form, "one");
    let draft = json!({"data": {"name": "later"}, "draft": true});
    let draft = acme.owner.post(&format!("{place}/submissions"), draft, 201).str("/id");
    let archived = acme.owner.act(&format!("{place}/archive"), 200);
    assert_eq!(archived.str("/status"), "archived");
    let refused = [
        acme.owner.post(&format!("{place}/submissions"), json!({"data": {"name": "x"}}), 409),
        acme.owner.patch(&place, json!({"title": "New"}), 409),
        acme.owner.act(&format!("{place}/submissions/{draft}/submit"), 409),
    ];
    for reply in refused {
        assert_eq!(reply.problem(), "form-archived");
    }
    acme.owner.get(&place, 200);
    acme.owner.get(&format!("{place}/submissions/{one}"), 200);
    let titles =
        |query: &str| acme.owner.get(&format!("/v1/forms?{query}"), 200).json()["items"].clone();
    assert_eq!(titles("status=active"), json!([]));
    assert_eq!(titles("status=archived")[0]["id"], json!(form));
}
