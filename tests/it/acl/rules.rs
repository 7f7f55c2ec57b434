//! The rules of roles and access lists that `docs/roles.md` numbers, each in tests of its own. The page
//! names them, and a test of the page sees to it that they are here.

use serde_json::{Value, json};

use super::{grant, set};
use crate::kit::{Client, PASSWORD, Reply, Tenant, World, api_key};
use crate::roles::page::Page;

/// Does all that one can do with a form; what each act answered, by the name that the page has for it.
/// Submissions are by `author`; `list` is the form's access list as it is.
fn acts(
    client: &Client,
    tenant: &Tenant,
    form: &str,
    author: &Client,
    list: &[Value],
) -> Vec<(&'static str, u16)> {
    let place = format!("/v1/forms/{form}");
    let submitted =
        |name: &str| format!("{place}/submissions/{}", tenant.submit(author, form, name));
    // Whoever edits a submission does not decide on it, so there is one for each.
    let (edited, judged) = (submitted("edited"), submitted("judged"));
    let data = |name: &str| Some(json!({"data": {"name": name}}));
    let acts: [(&str, &str, String, Option<Value>); 10] = [
        ("read", "GET", place.clone(), None),
        ("submit", "POST", format!("{place}/submissions"), data("own")),
        ("edit", "PATCH", place.clone(), Some(json!({"title": "Changed"}))),
        ("edit-submissions", "PATCH", edited, data("changed")),
        ("comment", "POST", format!("{judged}/comment"), Some(json!({"text": "Hm"}))),
        ("decide", "POST", format!("{judged}/approve"), None),
        ("see-grants", "GET", format!("{place}/acl"), None),
        ("read-audit", "GET", format!("{place}/audit"), None),
        ("manage-grants", "PUT", format!("{place}/acl"), Some(json!({"grants": list}))),
        // Last: an archived form takes nothing any more.
        ("archive", "POST", format!("{place}/archive"), None),
    ];
    let call = |verb: &str, path: &str, body: Option<&Value>| client.call(verb, path, body).status;
    acts.into_iter()
        .map(|(name, verb, path, body)| (name, call(verb, &path, body.as_ref())))
        .collect()
}

/// Whether each act was done, or refused as it should be.
fn assert_acts(answers: &[(&'static str, u16)], refusal: u16, allows: impl Fn(&str) -> bool) {
    for (action, status) in answers {
        let done = (200..300).contains(status);
        assert_eq!(done, allows(action), "{action}: {status}");
        assert!(done || *status == refusal, "{action}: {status}");
    }
}

/// A tenant, and a member who makes submissions.
fn stage() -> (World, Tenant, Client, Value) {
    let world = World::start();
    let acme = world.tenant("acme");
    let (author, id) = world.member_named(&acme, "author", "admin");
    (world, acme, author, grant("user", &id, "EDITOR"))
}

#[test]
fn rule_1_all_nine_kinds_of_grant_allow_exactly_their_column() {
    let (world, acme, author, by_author) = stage();
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let team = json!({"name": "Team", "members": [ann_id]});
    let team = acme.owner.post("/v1/teams", team, 201).str("/id");
    let page = Page::read();
    let mut cases = 0;
    for (kind, id) in [("user", ann_id.as_str()), ("role", "member"), ("team", &team)] {
        for level in ["OWNER", "EDITOR", "REVIEWER"] {
            let form = acme.form("Restricted");
            let list = [grant("role", "owner", "OWNER"), by_author.clone(), grant(kind, id, level)];
            set(&acme.owner, &form, &list, 200);
            let answers = acts(&ann, &acme, &form, &author, &list);
            assert_acts(&answers, 403, |action| page.allows(action, level));
            cases += answers.len();
        }
    }
    println!("grants: cases = 9 kinds × 10 actions = {cases}, 0 differences");
}

#[test]
fn rule_1_without_a_list_the_role_decides_and_a_list_only_narrows() {
    let (world, acme, author, by_author) = stage();
    let page = Page::read();
    let published = world.client.get("/v1/meta/capabilities", 200).json();
    let takes = |action: &str| -> String {
        let rows = published["form_actions"].as_array().expect("a list").clone();
        let row = rows.into_iter().find(|row| row["name"] == action).expect("an action");
        row["capability"].as_str().expect("a name").to_owned()
    };
    for role in ["admin", "member", "viewer", "customer"] {
        let (client, id) = world.member_named(&acme, role, role);
        // Taking charge of somebody else's open form is for owners and administrators; so is its trail.
        let open = |action: &str| {
            let is_charge = ["manage-grants", "archive", "read-audit"].contains(&action);
            page.allows(&takes(action), role) && (!is_charge || role == "admin")
        };
        // An end user sees their own submissions only.
        let own = |action: &str| role != "customer" || action != "edit-submissions";
        let form = acme.form("Open");
        let answers = acts(&client, &acme, &form, &author, &[]);
        for (action, status) in &answers {
            let is_done = (200..300).contains(status);
            assert_eq!(is_done, open(action) && own(action), "{role} {action}: {status}");
        }
        // The highest grant there is lifts nobody above their role.
        let form = acme.form("Restricted");
        let list = [grant("user", &id, "OWNER"), by_author.clone()];
        set(&acme.owner, &form, &list, 200);
        let answers = acts(&client, &acme, &form, &author, &list);
        for (action, status) in &answers {
            let is_done = (200..300).contains(status);
            let is_allowed = page.allows(&takes(action), role) && own(action);
            assert_eq!(is_done, is_allowed, "{role} with OWNER {action}: {status}");
        }
    }
}

#[test]
fn rule_1_a_restricted_form_is_absent_for_whoever_has_no_grant() {
    let (world, acme, author, by_author) = stage();
    for role in ["member", "viewer", "customer"] {
        let client = world.member(&acme, role);
        let form = acme.form("Restricted");
        let list = [grant("role", "owner", "OWNER"), by_author.clone()];
        set(&acme.owner, &form, &list, 200);
        for (action, status) in acts(&client, &acme, &form, &author, &list) {
            // What the role cannot do at all is refused before anything is looked for.
            assert!([403, 404].contains(&status), "{role} {action}: {status}");
        }
        let absent = format!("/v1/forms/fm_{}", "0".repeat(32));
        let (hidden, absent) =
            (client.get(&format!("/v1/forms/{form}"), 404), client.get(&absent, 404));
        assert_eq!(hidden.essence(), absent.essence(), "{role}");
        assert_eq!(client.get("/v1/forms", 200).json()["items"], json!([]), "{role}");
    }
}

#[test]
fn rule_2_the_best_of_several_grants_counts_and_none_takes_away() {
    let (world, acme, author, by_author) = stage();
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let team = json!({"name": "Team", "members": [ann_id]});
    let team = acme.owner.post("/v1/teams", team, 201).str("/id");
    let page = Page::read();
    let holders = [("user", ann_id.as_str()), ("role", "member"), ("team", team.as_str())];
    for best in 0..holders.len() {
        let form = acme.form("Restricted");
        let mut list = vec![grant("role", "owner", "OWNER"), by_author.clone()];
        for (at, (kind, id)) in holders.iter().enumerate() {
            list.push(grant(kind, id, if at == best { "EDITOR" } else { "REVIEWER" }));
        }
        set(&acme.owner, &form, &list, 200);
        // Each grant adds what it allows; a lower one takes nothing away.
        let either = |action: &str| ["EDITOR", "REVIEWER"].iter().any(|it| page.allows(action, it));
        assert_acts(&acts(&ann, &acme, &form, &author, &list), 403, either);
        let shown = ann.get(&format!("/v1/forms/{form}/acl"), 200).json();
        assert_eq!(shown["effective"]["level"], "EDITOR", "{shown}");
    }
    // There is no level that denies, and no way to ask for one.
    let form = acme.form("Restricted");
    for level in ["DENY", "NONE", "-EDITOR", "editor", ""] {
        set(&acme.owner, &form, &[grant("user", &ann_id, level)], 422);
    }
}

#[test]
fn rule_3_owners_and_admins_set_any_list_and_only_owners_read_with_a_reason() {
    let (world, acme, admin, _) = stage();
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let form = acme.form("Private");
    let place = format!("/v1/forms/{form}");
    let list = [grant("user", &ann_id, "OWNER")];
    set(&acme.owner, &form, &list, 200);
    let entries = |action: &str| -> usize {
        let page = ann.get(&format!("{place}/audit"), 200).json();
        let items = page["items"].as_array().expect("a list").clone();
        items.iter().filter(|it| it["action"] == action && it["outcome"] == "success").count()
    };
    let (changes, _) = (entries("form.acl_change"), set(&admin, &form, &list, 200));
    set(&acme.owner, &form, &list, 200);
    assert_eq!(entries("form.acl_change"), changes + 2, "changes are on record");
    let reason = |client: &Client| client.with_header("x-break-glass-reason", "Ann is away");
    assert_eq!(acme.owner.get(&place, 403).problem(), "reason-needed");
    assert_eq!(entries("form.break_glass"), 0);
    reason(&acme.owner).get(&place, 200);
    // Who holds OWNER finds it in the form's trail.
    assert_eq!(entries("form.break_glass"), 1);
    assert_eq!(reason(&admin).get(&place, 403).problem(), "forbidden");
    let key = api_key(&acme.owner, &["forms:read"]).0;
    assert_eq!(reason(&key).get(&place, 403).problem(), "forbidden");
    assert_eq!(entries("form.break_glass"), 1);
}

#[test]
fn rule_4_the_last_owner_of_a_form_and_of_a_tenant_stays() {
    let (world, acme, admin, by_author) = stage();
    let form = acme.form("Restricted");
    set(&acme.owner, &form, &[by_author.clone(), grant("role", "owner", "OWNER")], 200);
    for by in [&acme.owner, &admin] {
        let refused = set(by, &form, std::slice::from_ref(&by_author), 409);
        assert_eq!(refused.problem(), "last-form-owner");
    }
    // Nor by going: neither a person nor a team leaves a form to nobody.
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let team = json!({"name": "Keepers", "members": [ann_id]});
    let team = acme.owner.post("/v1/teams", team, 201).str("/id");
    let hers = acme.form("Hers");
    let going = |kind: &str, id: &str, place: &str, by: &Client| {
        set(&acme.owner, &hers, &[grant(kind, id, "OWNER")], 200);
        assert_eq!(by.delete(place, 409).problem(), "last-form-owner");
        set(&acme.owner, &hers, &[grant(kind, id, "OWNER"), grant("role", "owner", "OWNER")], 200);
        by.delete(place, 204);
    };
    going("team", &team, &format!("/v1/teams/{team}"), &admin);
    going("user", &ann_id, &format!("/v1/members/{ann_id}"), &ann);
    let place = format!("/v1/members/{}", acme.owner_id);
    for refused in
        [acme.owner.delete(&place, 409), acme.owner.patch(&place, json!({"role": "admin"}), 409)]
    {
        assert_eq!(refused.problem(), "last-owner");
    }
    let (second, second_id) = world.member_named(&acme, "second", "owner");
    acme.owner.delete(&place, 204);
    second.delete(&format!("/v1/members/{second_id}"), 409);
}

#[test]
fn rule_5_nobody_decides_on_a_submission_of_their_own() {
    let (world, acme, admin, _) = stage();
    let member = world.member(&acme, "member");
    let form = acme.form("Leave");
    for client in [&acme.owner, &admin, &member] {
        let own = acme.submit(client, &form, "own");
        for verb in ["approve", "reject"] {
            let place = format!("/v1/forms/{form}/submissions/{own}/{verb}");
            assert_eq!(client.act(&place, 403).problem(), "four-eyes");
        }
    }
    // A key of one's own is oneself.
    let own = acme.submit(&member, &form, "own");
    let key = api_key(&member, &["submissions:decide", "submissions:read"]).0;
    let place = format!("/v1/forms/{form}/submissions/{own}/approve");
    assert_eq!(key.act(&place, 403).problem(), "four-eyes");
    admin.act(&place, 200);
}

#[test]
fn rule_6_nobody_gives_a_role_or_a_scope_above_their_own() {
    let world = World::start();
    let acme = world.tenant("acme");
    let roles = ["customer", "viewer", "member", "admin", "owner"];
    let own = |by: &Client| -> Vec<String> {
        let role = by.get("/v1/me", 200).str("/role");
        let page = Page::read();
        let published = by.get("/v1/meta/capabilities", 200).json();
        let rows = published["capabilities"].as_array().expect("a list").clone();
        let names = rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned());
        names.filter(|name| page.allows(name, &role)).collect()
    };
    for (rank, role) in roles.into_iter().enumerate() {
        let (client, id) = match role {
            "owner" => (acme.owner.clone(), acme.owner_id.clone()),
            _ => world.member_named(&acme, role, role),
        };
        for (above, wanted) in roles.into_iter().enumerate().skip(rank + 1) {
            let body = json!({"role": wanted});
            client.patch(&format!("/v1/members/{id}"), body, 403);
            let email = format!("{role}-{above}@acme.example");
            let body = json!({"email": email, "role": wanted, "password": PASSWORD});
            client.post("/v1/members", body.clone(), 403);
            client.post("/v1/invites", json!({"email": email, "role": wanted}), 403);
        }
        let held = own(&client);
        for scope in
            actors::permit::Scopes::all().names().filter(|name| !held.contains(&(*name).to_owned()))
        {
            client.post("/v1/api-keys", json!({"name": "K", "scopes": [scope]}), 403);
        }
    }
}

#[test]
fn rule_7_a_changed_role_team_or_grant_counts_at_the_next_request() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let team = json!({"name": "Team", "members": []});
    let team = acme.owner.post("/v1/teams", team, 201).str("/id");
    let form = acme.form("Restricted");
    let place = format!("/v1/forms/{form}");
    let owner = grant("role", "owner", "OWNER");
    let edit = |status: u16| ann.patch(&place, json!({"title": "Changed"}), status);
    set(&acme.owner, &form, std::slice::from_ref(&owner), 200);
    edit(404);
    set(&acme.owner, &form, &[owner.clone(), grant("user", &ann_id, "EDITOR")], 200);
    edit(200);
    set(&acme.owner, &form, &[owner, grant("team", &team, "EDITOR")], 200);
    edit(404);
    let members =
        |ids: &[&str]| acme.owner.patch(&format!("/v1/teams/{team}"), json!({"members": ids}), 200);
    members(&[&ann_id]);
    edit(200);
    members(&[]);
    edit(404);
    members(&[&ann_id]);
    acme.owner.patch(&format!("/v1/members/{ann_id}"), json!({"role": "viewer"}), 200);
    assert_eq!(edit(401).problem(), "invalid-token");
    let again = world.sign_in("acme", "ann@acme.example");
    again.patch(&place, json!({"title": "Changed"}), 403);
    again.get(&place, 200);
}

#[test]
fn rule_8_a_role_in_one_tenant_is_none_in_another() {
    let world = World::start();
    let (ada, bob) = (world.tenant("ada"), world.tenant("bob"));
    // The owner of one is, under the same address, a viewer of the other.
    let email = "owner@ada.example";
    let body = json!({"email": email, "role": "viewer", "password": PASSWORD});
    let other_id = bob.owner.post("/v1/members", body, 201).str("/id");
    assert_ne!(other_id, ada.owner_id);
    let viewer = world.sign_in("bob", email);
    assert_eq!(viewer.get("/v1/me", 200).str("/role"), "viewer");
    viewer.post("/v1/forms", json!({"title": "T", "schema": {}}), 403);
    viewer.get("/v1/audit", 403);
    ada.owner.get("/v1/audit", 200);
    // Neither is known in the other's lists, and a grant to one is none to the other.
    let form = bob.form("Restricted");
    set(&bob.owner, &form, &[grant("user", &ada.owner_id, "OWNER")], 422);
    set(&bob.owner, &form, &[grant("role", "owner", "OWNER")], 200);
    viewer.get(&format!("/v1/forms/{form}"), 404);
    bob.owner.delete(&format!("/v1/members/{other_id}"), 204);
    viewer.get("/v1/me", 401);
    ada.owner.get("/v1/me", 200);
}

#[test]
fn rule_9_the_grants_of_a_deleted_team_or_person_vanish_and_each_says_where_it_is_from() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let (_, bob_id) = world.member_named(&acme, "bob", "member");
    let team = json!({"name": "Reviewers", "members": [ann_id]});
    let team = acme.owner.post("/v1/teams", team, 201).str("/id");
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}");
    let list = [
        grant("role", "owner", "OWNER"),
        grant("user", &bob_id, "EDITOR"),
        grant("team", &team, "REVIEWER"),
    ];
    set(&acme.owner, &form, &list, 200);
    let sources = || -> Vec<String> {
        let shown = acme.owner.get(&format!("{place}/acl"), 200).json();
        let grants = shown["grants"].as_array().expect("a list").clone();
        let mut texts: Vec<_> =
            grants.iter().map(|it| it["source"].as_str().expect("a text").to_owned()).collect();
        texts.sort();
        texts
    };
    assert_eq!(sources(), ["direct", "via ROLE owner", "via TEAM Reviewers"]);
    let effective = ann.get(&format!("{place}/acl"), 200).json()["effective"].clone();
    assert_eq!(effective, json!({"level": "REVIEWER", "source": "via TEAM Reviewers"}));
    acme.owner.delete(&format!("/v1/teams/{team}"), 204);
    ann.get(&place, 404);
    assert_eq!(sources(), ["direct", "via ROLE owner"]);
    acme.owner.delete(&format!("/v1/members/{bob_id}"), 204);
    assert_eq!(sources(), ["via ROLE owner"]);
    // Whoever comes back under the address is somebody else.
    world.member_named(&acme, "bob", "member").0.get(&place, 404);
}

#[test]
fn rule_10_a_customer_sees_their_own_records_and_no_sign_of_others() {
    let world = World::start();
    let (acme, twin) = (world.tenant("acme"), world.tenant("twin"));
    // In one tenant there are many records of others, in the other none: a customer sees no difference.
    let look = |tenant: &Tenant, foreign: usize| -> Vec<(u16, Value)> {
        let form = tenant.form("Support");
        let place = format!("/v1/forms/{form}/submissions");
        let cus = world.member(tenant, "customer");
        let others: Vec<_> =
            (0..foreign).map(|_| tenant.submit(&tenant.owner, &form, "not theirs")).collect();
        tenant.submit(&cus, &form, "own");
        for id in &others {
            let at = format!("{place}/{id}");
            let absent = cus.get(&format!("{place}/sb_{}", "0".repeat(32)), 404);
            assert_eq!(cus.get(&at, 404).essence(), absent.essence());
            assert_eq!(
                cus.patch(&at, json!({"data": {"name": "mine"}}), 404).problem(),
                "not-found"
            );
            cus.delete(&at, 404);
        }
        let shape = |reply: Reply| {
            let page = reply.json();
            let items = page["items"].as_array().map_or(0, Vec::len);
            (
                reply.status,
                json!([items, page["next_cursor"], page.as_object().map(serde_json::Map::len)]),
            )
        };
        let lists = ["?limit=1", "?limit=50", "?status=submitted", "?sort=created_at"];
        let mut seen: Vec<_> =
            lists.iter().map(|query| shape(cus.get(&format!("{place}{query}"), 200))).collect();
        for path in ["/v1/usage", "/v1/members", "/v1/audit"] {
            seen.push((cus.call("GET", path, None).status, Value::Null));
        }
        seen
    };
    assert_eq!(look(&acme, 5), look(&twin, 0));
}
