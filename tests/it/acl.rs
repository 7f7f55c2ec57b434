//! Who may do what with one form, and how fast that changes.

use serde_json::{Value, json};

use crate::kit::{Client, Tenant, World};

mod rules;

fn grant(kind: &str, id: &str, level: &str) -> Value {
    json!({"principal": {"kind": kind, "id": id}, "level": level})
}

fn set(by: &Client, form: &str, grants: &[Value], status: u16) -> crate::kit::Reply {
    by.put(&format!("/v1/forms/{form}/acl"), json!({"grants": grants}), status)
}

/// What each act on a form and on a submission by somebody else answers.
fn acts(client: &Client, tenant: &Tenant, form: &str, by: &Client) -> [u16; 7] {
    let place = format!("/v1/forms/{form}");
    let submitted = |name: &str| format!("{place}/submissions/{}", tenant.submit(by, form, name));
    // Whoever edits a submission does not decide on it, so there is one for each.
    let (at, judged) = (submitted("edited"), submitted("judged"));
    let status =
        |verb: &str, path: &str, body: Option<Value>| client.call(verb, path, body.as_ref()).status;
    [
        status("GET", &place, None),
        status("PATCH", &place, Some(json!({"title": "Changed"}))),
        status("POST", &format!("{at}/comment"), Some(json!({"text": "Hm"}))),
        status("PATCH", &at, Some(json!({"data": {"name": "edited"}}))),
        status("POST", &format!("{judged}/approve"), None),
        status("GET", &format!("{place}/audit"), None),
        status("GET", &format!("{place}/acl"), None),
    ]
}

#[test]
fn a_grant_allows_what_its_level_says_and_no_more_than_the_role_does() {
    let world = World::start();
    let acme = world.tenant("acme");
    let people: Vec<_> =
        ["m1", "m2", "m3"].map(|name| world.member_named(&acme, name, "member")).into();
    let (viewer, viewer_id) = world.member_named(&acme, "vic", "viewer");
    let (author, author_id) = world.member_named(&acme, "author", "member");
    let outsider = world.member_named(&acme, "out", "member").0;
    let admin = world.member(&acme, "admin");
    let form = acme.form("Restricted");
    let grants = [
        grant("user", &people[0].1, "OWNER"),
        grant("user", &people[1].1, "EDITOR"),
        grant("user", &people[2].1, "REVIEWER"),
        grant("user", &viewer_id, "OWNER"),
        grant("user", &author_id, "EDITOR"),
    ];
    let shown = set(&acme.owner, &form, &grants, 200).json();
    assert_eq!(
        (&shown["restricted"], shown["grants"].as_array().map(Vec::len)),
        (&json!(true), Some(5))
    );
    let of = |client: &Client| acts(client, &acme, &form, &author);
    // Read, edit form, comment, edit submission, decide, trail, access list.
    assert_eq!(of(&people[0].0), [200, 200, 201, 200, 200, 200, 200], "OWNER");
    assert_eq!(of(&people[1].0), [200, 200, 201, 200, 403, 403, 200], "EDITOR");
    assert_eq!(of(&people[2].0), [200, 403, 201, 403, 200, 403, 200], "REVIEWER");
    assert_eq!(of(&viewer), [200, 403, 403, 403, 403, 403, 403], "a viewer stays a reader");
    assert_eq!(of(&outsider), [404; 7], "whoever has no grant finds nothing");
    // They answer for the list, and read only by breaking the glass.
    assert_eq!(of(&acme.owner), [403, 403, 403, 403, 403, 403, 200], "the tenant's owner");
    assert_eq!(of(&admin), [403, 403, 403, 403, 403, 403, 200], "an administrator");
    let seen = |client: &Client| -> usize {
        client.get("/v1/forms", 200).json()["items"].as_array().map_or(0, Vec::len)
    };
    assert_eq!([seen(&people[2].0), seen(&outsider), seen(&admin)], [1, 0, 1]);
    let source = people[0].0.get(&format!("/v1/forms/{form}/acl"), 200).json();
    assert_eq!(source["effective"], json!({"level": "OWNER", "source": "direct"}));
}

#[test]
fn nobody_takes_an_open_form_away_from_its_creator() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let (bob, bob_id) = world.member_named(&acme, "bob", "member");
    let admin = world.member(&acme, "admin");
    let body = json!({"title": "Ann's", "schema": {}});
    let form = ann.post("/v1/forms", body, 201).str("/id");
    let place = format!("/v1/forms/{form}");
    let seized = [grant("user", &bob_id, "OWNER")];
    assert_eq!(set(&bob, &form, &seized, 403).problem(), "forbidden");
    assert_eq!(bob.delete(&place, 403).problem(), "forbidden");
    assert_eq!(bob.act(&format!("{place}/archive"), 403).problem(), "forbidden");
    let refused = acme.owner.get("/v1/audit?outcome=refused&limit=10", 200).json();
    let mut actions: Vec<_> = refused["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["action"].as_str().expect("a name").to_owned())
        .collect();
    actions.sort();
    assert_eq!(actions, ["form.acl_change", "form.archive", "form.archive"]);
    bob.patch(&place, json!({"title": "Ours"}), 200);
    for by in [&ann, &admin, &acme.owner] {
        set(by, &form, &[grant("user", &ann_id, "OWNER")], 200);
        set(by, &form, &[], 200);
    }
    ann.delete(&place, 204);
}

#[test]
fn a_restricted_form_keeps_an_owner_and_names_who_is_nobody() {
    let world = World::start();
    let acme = world.tenant("acme");
    let form = acme.form("Leave");
    let reviewer = grant("role", "member", "REVIEWER");
    assert_eq!(set(&acme.owner, &form, &[reviewer], 409).problem(), "last-form-owner");
    let nobody = format!("us_{}", "0123456789abcdef".repeat(2));
    let bad = [
        grant("role", "owner", "OWNER"),
        grant("user", &nobody, "EDITOR"),
        grant("team", "tm_1", "EDITOR"),
        grant("role", "platform-admin", "EDITOR"),
        grant("role", "king", "EDITOR"),
    ];
    let refused = set(&acme.owner, &form, &bad, 422).json();
    let pointers: Vec<_> =
        refused["errors"].as_array().expect("errors").iter().map(|it| &it["pointer"]).collect();
    let expected: Vec<_> = (1..5).map(|at| json!(format!("/grants/{at}/principal/id"))).collect();
    assert_eq!(pointers, expected.iter().collect::<Vec<_>>());
    set(
        &acme.owner,
        &form,
        &[json!({"principal": {"kind": "user", "id": "x"}, "level": "KING"})],
        422,
    );
    let open = acme.owner.get(&format!("/v1/forms/{form}/acl"), 200).json();
    assert_eq!((&open["restricted"], &open["grants"]), (&json!(false), &json!([])));
    set(&acme.owner, &form, &[grant("role", "owner", "OWNER")], 200);
    assert_eq!(set(&acme.owner, &form, &[], 200).json()["restricted"], false);
}

#[test]
fn what_a_team_was_granted_goes_with_the_team_at_once() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let (bob, bob_id) = world.member_named(&acme, "bob", "member");
    let body = json!({"name": "Reviewers", "members": [ann_id]});
    let team = acme.owner.post("/v1/teams", body, 201).str("/id");
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}");
    set(
        &acme.owner,
        &form,
        &[grant("role", "owner", "OWNER"), grant("team", &team, "EDITOR")],
        200,
    );
    ann.get(&place, 200);
    bob.get(&place, 404);
    let shown = acme.owner.get(&format!("{place}/acl"), 200).json();
    let sources: Vec<_> =
        shown["grants"].as_array().expect("grants").iter().map(|it| it["source"].clone()).collect();
    assert!(sources.contains(&json!("via TEAM Reviewers")), "{shown}");
    assert!(sources.contains(&json!("via ROLE owner")), "{shown}");

    // Joining and leaving count from the next message on.
    let members = json!({"members": [bob_id]});
    acme.owner.patch(&format!("/v1/teams/{team}"), members, 200);
    ann.get(&place, 404);
    bob.patch(&place, json!({"title": "By Bob"}), 200);
    acme.owner.delete(&format!("/v1/teams/{team}"), 204);
    bob.get(&place, 404);
    let shown = acme.owner.get(&format!("{place}/acl"), 200).json();
    assert_eq!(shown["grants"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["restricted"], true);
    // A team of the same name is another team.
    let body = json!({"name": "Reviewers", "members": [bob_id]});
    acme.owner.post("/v1/teams", body, 201);
    bob.get(&place, 404);
}

#[test]
fn what_a_person_was_granted_goes_with_the_person() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (_, ann_id) = world.member_named(&acme, "ann", "member");
    let form = acme.form("Leave");
    set(
        &acme.owner,
        &form,
        &[grant("role", "owner", "OWNER"), grant("user", &ann_id, "EDITOR")],
        200,
    );
    acme.owner.delete(&format!("/v1/members/{ann_id}"), 204);
    let shown = acme.owner.get(&format!("/v1/forms/{form}/acl"), 200).json();
    assert_eq!(shown["grants"].as_array().map(Vec::len), Some(1), "{shown}");
    let ann = world.member_named(&acme, "ann", "member").0;
    ann.get(&format!("/v1/forms/{form}"), 404);
}

#[test]
fn an_owner_without_a_grant_reads_only_with_a_reason_that_is_kept() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let admin = world.member(&acme, "admin");
    let form = acme.form("Private");
    let place = format!("/v1/forms/{form}");
    set(&acme.owner, &form, &[grant("user", &ann_id, "OWNER")], 200);
    let submission = acme.submit(&ann, &form, "secret");
    let at = format!("{place}/submissions/{submission}");
    let paths =
        [place.clone(), at.clone(), format!("{place}/submissions"), format!("{at}/comments")];
    for path in &paths {
        assert_eq!(acme.owner.get(path, 403).problem(), "reason-needed", "{path}");
    }
    let trail = |by: &Client| -> Vec<Value> {
        let page = by.get(&format!("{place}/audit"), 200).json();
        let items = page["items"].as_array().expect("a list").clone();
        items.into_iter().filter(|it| it["action"] == "form.break_glass").collect()
    };
    assert_eq!(trail(&ann).len(), 0);
    let because = acme.owner.with_header("x-break-glass-reason", "Ann is away");
    for path in &paths {
        because.get(path, 200);
    }
    // The form's OWNER sees who looked and why.
    let entries = trail(&ann);
    assert_eq!(entries.len(), 4);
    for entry in entries {
        assert_eq!(entry["detail"]["reason"], "Ann is away");
        assert_eq!(entry["actor"]["email"], "owner@acme.example");
    }
    let blank = acme.owner.with_header("x-break-glass-reason", " ");
    assert!([403, 422].contains(&blank.call("GET", &place, None).status));
    // It opens reading, for owners, and nothing else.
    because.patch(&at, json!({"data": {"name": "changed"}}), 403);
    because.act(&format!("{at}/approve"), 403);
    admin.with_header("x-break-glass-reason", "curious").get(&place, 403);
    // Whoever may read anyway leaves no entry.
    ann.with_header("x-break-glass-reason", "no need").get(&place, 200);
    assert_eq!(trail(&ann).len(), 4);
}
