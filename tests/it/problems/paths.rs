//! Paths that lead nowhere reach nobody, and ids that cannot be are answered like ids that are not.

use serde_json::{Value, json};

use super::{ask, assert_problem, assert_sealed};
use crate::kit::World;

/// Everything about the tenants' actors that a request could move.
fn tenants(world: &World) -> Value {
    let report = world.ops.get("/actors", 200).json();
    let supervisors = report["supervisors"].as_array().expect("a list");
    let inbox = supervisors.iter().find(|one| one["name"] == "WebhookInbox").expect("the inbox");
    let mut tenants = report["tenants"].clone();
    for line in tenants.as_array_mut().expect("a list") {
        // The view catches up with the log by itself; the log is what a stranger must not move.
        line.as_object_mut().expect("a tenant").remove("view_lsn");
    }
    json!([tenants, inbox["counters"]])
}

#[test]
fn a_path_that_is_no_route_reaches_no_actor() {
    let world = World::start();
    let ada = world.tenant("ada");
    let form = ada.form("Kept");
    let paths = [
        "/nothing".to_owned(),
        "/v1".to_owned(),
        "/v1/".to_owned(),
        "//v1/me".to_owned(),
        "/v1//me".to_owned(),
        "/v1/me/".to_owned(),
        "/V1/me".to_owned(),
        "/v1/ME".to_owned(),
        "/v1/./me".to_owned(),
        "/v1/../v1/me".to_owned(),
        "/v1/forms/..".to_owned(),
        "/v1/%2e%2e/v1/me".to_owned(),
        "/v1/forms/%2e%2e".to_owned(),
        "/v1%2fme".to_owned(),
        "/v1%252fme".to_owned(),
        "/%76%31/me".to_owned(),
        "/v1/m%65".to_owned(),
        "/v1/me%00".to_owned(),
        "/v1/me%".to_owned(),
        "/v1/me;x=1".to_owned(),
        "/v1/me%3flimit=1".to_owned(),
        format!("/v1/forms/{form}%00"),
        format!("/v1/forms/{form}%2f"),
        format!("/v1/forms/{form}%2fsubmissions"),
        format!("/v1/forms/{form}%252fsubmissions"),
        format!("/v1/forms/{form}//submissions"),
        format!("/v1/forms/{form}/../{form}"),
        format!("/v1/forms/{form}/"),
        format!("/v1/forms/%66{}", &form[1..]),
        format!("/v1/forms/{form}\\"),
        format!("/v1/forms/{}", "a".repeat(2_000)),
        "/console/".to_owned(),
        "/admin/audit-log".to_owned(),
        "/.git/config".to_owned(),
        "/.env".to_owned(),
        "*".to_owned(),
    ];
    let token = format!("authorization: Bearer {}", ada.owner.token.as_deref().expect("a token"));
    let before = tenants(&world);
    for path in &paths {
        let known = ask(&world.client.base, &format!("GET {path}"), &[&token]);
        // What is not a request line at all is refused before there is a path.
        if known.status == 400 && path == "*" {
            continue;
        }
        assert_eq!(known.status, 404, "{path}: {}", known.text());
        assert_eq!(known.problem(), "not-found", "{path}");
        assert_sealed(path, &known);
        let unknown = ask(&world.client.base, &format!("GET {path}"), &[]);
        assert_eq!(known.essence(), unknown.essence(), "{path}: a credential makes a difference");
    }
    assert_eq!(tenants(&world), before, "a path that is no route moved something");
    ada.owner.get(&format!("/v1/forms/{form}"), 200);
}

#[test]
fn a_raw_nul_or_blank_in_a_path_is_no_request() {
    let world = World::start();
    let ada = world.tenant("ada");
    let form = ada.form("Kept");
    let token = format!("authorization: Bearer {}", ada.owner.token.as_deref().expect("a token"));
    let before = tenants(&world);
    for path in [
        format!("/v1/forms/{form}\0"),
        format!("/v1/forms/{form} x"),
        format!("/v1/forms/{form}\r x"),
    ] {
        let reply = ask(&world.client.base, &format!("GET {path}"), &[&token]);
        assert!([400, 404].contains(&reply.status), "{path:?}: {}", reply.status);
        assert!(!reply.text().contains("Kept"), "{path:?}");
    }
    assert_eq!(tenants(&world), before);
}

#[test]
fn an_id_that_cannot_be_one_is_answered_like_an_absent_one() {
    let world = World::start();
    let (ada, bob) = (world.tenant("ada"), world.tenant("bob"));
    let form = ada.form("Kept");
    let hex = form.strip_prefix("fm_").expect("a form's id");
    let token = format!("authorization: Bearer {}", bob.owner.token.as_deref().expect("a token"));
    let get = |id: &str| ask(&world.client.base, &format!("GET /v1/forms/{id}"), &[&token]);
    let absent = get("fm_0123456789abcdef0123456789abcdef");
    assert_problem("an absent form", &absent, 404, "not-found");
    let ids = [
        form.clone(),
        form.to_uppercase(),
        format!("FM_{hex}"),
        format!("fm_{}", hex.to_uppercase()),
        format!("fm-{hex}"),
        format!("sb_{hex}"),
        hex.to_owned(),
        format!("fm_{}", &hex[1..]),
        format!("fm_{hex}0"),
        format!("fm_{hex}%00"),
        format!("fm_%00{}", &hex[2..]),
        format!("fm_{hex}%1f"),
        format!("fm_{hex}%2f"),
        format!("fm_{hex}%ff"),
        format!("fm_{hex}:"),
        format!("fm_{hex}."),
        format!("fm_{}g", &hex[1..]),
        format!("fm_{hex}%20"),
        format!("fm_{hex}'--"),
        "fm_".to_owned(),
        "%F0%9F%94%91".to_owned(),
        "null".to_owned(),
    ];
    let before = tenants(&world)[0].clone();
    for id in &ids {
        assert_eq!(get(id).essence(), absent.essence(), "{id} is not answered like an absent id");
    }
    for verb in ["PATCH", "DELETE"] {
        let change = |id: &str| {
            bob.owner.call(
                verb,
                &format!("/v1/forms/{id}"),
                (verb == "PATCH").then(|| json!({"title": "T"})).as_ref(),
            )
        };
        let absent = change("fm_0123456789abcdef0123456789abcdef");
        assert_problem(verb, &absent, 404, "not-found");
        assert_eq!(change(&form).essence(), absent.essence(), "{verb}: foreign and absent differ");
        assert_eq!(
            change("fm_%00").essence(),
            absent.essence(),
            "{verb}: impossible and absent differ"
        );
    }
    let after = tenants(&world)[0].clone();
    let of_ada = |lines: &Value| {
        lines.as_array().expect("a list").iter().find(|line| line["slug"] == "ada").cloned()
    };
    assert_eq!(of_ada(&before), of_ada(&after), "a stranger's ids moved the owner's actor");
}
