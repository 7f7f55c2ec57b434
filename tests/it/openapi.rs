//! The document that describes the API: sound by its own standard, complete, and true.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead::http::routes::{Access, ROUTES, Route, Verb};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::kit::{Client, Fixture, World, ends_the_caller};

const VERBS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().expect("an object").iter()
}

/// Operations with their method and path.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let of_path = |(path, item): (_, _)| -> Vec<(&str, &str, &Value)> {
        let (path, item): (&String, &Value) = (path, item);
        VERBS.iter().filter_map(|verb| Some((*verb, path.as_str(), item.get(verb)?))).collect()
    };
    members(&document["paths"]).flat_map(of_path).collect()
}

/// A schema of the document, compiled with everything that it refers to.
fn compiled(document: &Value, schema: &Value) -> Validator {
    let whole =
        json!({"$schema": DIALECT, "allOf": [schema], "components": document["components"]});
    jsonschema::draft202012::new(&whole).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

fn faults(validator: &Validator, instance: &Value) -> Vec<String> {
    validator
        .iter_errors(instance)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect()
}

/// Follows a reference within the document.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
    let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out"));
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            // A member of that name under `properties` would be a schema, not a text.
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn operation<'a>(document: &'a Value, route: &Route) -> &'a Value {
    &document["paths"][route.path][route.verb.name().to_ascii_lowercase()]
}

#[test]
fn the_document_is_sound_openapi_3_1() {
    let world = World::start();
    let reply = world.client.get("/openapi.json", 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let document = reply.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    for member in ["title", "version"] {
        assert!(document["info"][member].is_string(), "info.{member}");
    }
    let known = ["openapi", "info", "servers", "tags", "paths", "components"];
    for (member, _) in members(&document) {
        assert!(
            known.contains(&member.as_str()),
            "{member} is not a member of an OpenAPI document"
        );
    }
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        resolved(&document, &json!({"$ref": reference}));
    }
    let schemes = &document["components"]["securitySchemes"];
    let mut ids = BTreeSet::new();
    for (verb, path, operation) in operations(&document) {
        let what = format!("{verb} {path}");
        let id =
            operation["operationId"].as_str().unwrap_or_else(|| panic!("{what}: no operationId"));
        assert!(ids.insert(id), "{what}: {id} is there twice");
        for requirement in operation["security"].as_array().expect("stated for every operation") {
            for (scheme, _) in members(requirement) {
                assert!(schemes.get(scheme).is_some(), "{what}: no scheme {scheme}");
            }
        }
        assert_parameters(&document, &what, path, operation);
        assert_responses(&document, &what, path, operation);
    }
    for (name, schema) in members(&document["components"]["schemas"]) {
        let legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        assert!(name.chars().all(legal), "{name:?} is no name of a component");
        assert!(
            jsonschema::meta::is_valid(&json!({"$schema": DIALECT, "allOf": [schema]})),
            "{name}"
        );
        compiled(&document, schema);
    }
    println!("openapi: {} operations, {} references", ids.len(), found.len());
}

fn assert_parameters(document: &Value, what: &str, path: &str, operation: &Value) {
    let mut seen = BTreeSet::new();
    let mut in_path = BTreeSet::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolved(document, parameter);
        let (name, place) = (
            parameter["name"].as_str().expect("a name"),
            parameter["in"].as_str().expect("a place"),
        );
        assert!(["path", "query", "header"].contains(&place), "{what}: {name} in {place}");
        assert!(seen.insert((name, place)), "{what}: {name} is there twice");
        compiled(document, &parameter["schema"]);
        if place == "path" {
            assert_eq!(parameter["required"], true, "{what}: {name}");
            in_path.insert(name);
        }
    }
    let named: BTreeSet<&str> =
        path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
    assert_eq!(in_path, named, "{what}: the parameters are not those of the path");
}

fn assert_responses(document: &Value, what: &str, path: &str, operation: &Value) {
    let responses = &operation["responses"];
    let is_success =
        |(status, _): &(&String, &Value)| status.starts_with('2') || status.as_str() == "303";
    assert_eq!(members(responses).filter(is_success).count(), 1, "{what}: one way to succeed");
    for (status, response) in members(responses) {
        let response = resolved(document, response);
        assert!(response["description"].is_string(), "{what}: {status} has no description");
        for (_, media) in response.get("content").into_iter().flat_map(members) {
            compiled(document, &media["schema"]);
        }
        if !status.starts_with('2') && status != "303" {
            let media = if path.starts_with("/scim/") {
                "application/scim+json"
            } else {
                "application/problem+json"
            };
            assert!(response["content"][media].is_object(), "{what}: {status}");
        }
    }
}

#[test]
fn the_document_and_the_pages_show_exactly_the_table() {
    let world = World::start();
    let document = world.client.get("/openapi.json", 200).json();
    let page = world.client.with_header("accept", "text/html").get("/docs", 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let shown = operations(&document);
    assert_eq!(shown.len(), ROUTES.len());
    let shown: BTreeMap<&str, (&str, &str)> = shown
        .iter()
        .map(|(verb, path, operation)| {
            (operation["operationId"].as_str().expect("an id"), (*verb, *path))
        })
        .collect();
    for route in &ROUTES {
        let (verb, path) =
            shown.get(route.id).unwrap_or_else(|| panic!("{route} is not documented"));
        assert_eq!((verb.to_uppercase().as_str(), *path), (route.verb.name(), route.path));
        assert!(
            page.text().contains(&format!("id=\"{}\"", route.id)),
            "{route} is not on the page"
        );
        assert!(page.text().contains(&format!("<code>{}</code>", route.path)), "{route}");
    }
}

#[test]
fn every_sample_body_is_valid_by_its_own_schema_and_refuses_unknown_fields() {
    let world = World::start();
    let document = world.client.get("/openapi.json", 200).json();
    let mut cases = 0;
    for route in ROUTES.iter().filter(|route| route.body.is_some()) {
        let media = &operation(&document, route)["requestBody"]["content"]["application/json"];
        let validator = compiled(&document, &media["schema"]);
        let sample: Value = serde_json::from_str(route.body.expect("a body").sample).expect("JSON");
        assert_eq!(media["example"], sample, "{route}: the example is not the sample");
        assert_eq!(faults(&validator, &sample), Vec::<String>::new(), "{route}");
        if route.access != Access::Hook {
            let mut other = sample;
            other["an_unknown_field"] = json!(1);
            assert!(!validator.is_valid(&other), "{route}: the schema allows unknown fields");
        }
        cases += 1;
    }
    println!("openapi: {cases} sample bodies");
}

/// Checks an answer against what the document says of the route.
fn assert_true(document: &Value, route: &Route, reply: &crate::kit::Reply) {
    let responses = &operation(document, route)["responses"];
    let status = reply.status.to_string();
    let response = responses
        .get(&status)
        .unwrap_or_else(|| panic!("{route}: {status} is not documented: {}", reply.text()));
    let response = resolved(document, response);
    let Some(content) = response.get("content") else {
        assert!(reply.body.is_empty(), "{route}: a body that is not documented");
        return;
    };
    let sent = reply.header("content-type").unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default();
    let media = content.get(essence).unwrap_or_else(|| panic!("{route}: {sent} is not documented"));
    if essence.ends_with("json") {
        let validator = compiled(document, &media["schema"]);
        assert_eq!(
            faults(&validator, &reply.json()),
            Vec::<String>::new(),
            "{route}: {}",
            reply.text()
        );
    }
}

#[test]
fn every_answer_of_a_seeded_tenant_is_what_its_schema_says() {
    let world = World::start();
    let document = world.client.get("/openapi.json", 200).json();
    let ada = world.tenant("ada");
    let submitter = world.member(&ada, "member");
    let platform = world.platform_admin();
    let (mut reads, mut writes) = (0, 0);
    for (serial, route) in ROUTES.iter().enumerate() {
        let Access::Tenant(capability) = route.access else { continue };
        let is_platform = capability.name.starts_with("platform-");
        let caller: Client = match (is_platform, ends_the_caller(route)) {
            (true, _) => platform.clone(),
            (false, true) => continue,
            (false, false) => ada.owner.clone(),
        };
        let reply = Fixture::of(&world, &ada, &submitter, route, serial).call(route, &caller);
        assert!((200..300).contains(&reply.status), "{route}: {}", reply.text());
        assert_true(&document, route, &reply);
        if route.path.ends_with("/suspend") {
            platform.act(&format!("/v1/platform/tenants/{}/resume", ada.id), 200);
        }
        // The refusals are documented as well.
        assert_true(&document, route, &Fixture::absent(serial).call(route, &world.client));
        *(if route.verb == Verb::Get { &mut reads } else { &mut writes }) += 1;
    }
    for route in
        ROUTES.iter().filter(|route| route.access == Access::Public && route.verb == Verb::Get)
    {
        // What leads elsewhere has tests of its own.
        if route.answer.is_some_and(|answer| answer.status == 303) {
            continue;
        }
        let path = Fixture::absent(0).path(route).replace("{code}", "not-found");
        let reply = world.client.get(&path, 200);
        assert_true(&document, route, &reply);
        reads += 1;
    }
    println!("openapi: answers of {reads} reading and {writes} writing routes are as documented");
}

#[test]
fn the_answers_of_signing_up_and_in_are_what_their_schemas_say() {
    let world = World::start();
    let document = world.client.get("/openapi.json", 200).json();
    let route =
        |id: &str| ROUTES.iter().find(|route| route.id == id).unwrap_or_else(|| panic!("no {id}"));
    let credentials =
        json!({"tenant": "ada", "email": "owner@ada.example", "password": crate::kit::PASSWORD});
    let refresh_token = world.tenant("ada").refresh_token;
    let refreshed =
        world.client.post("/v1/auth/refresh", json!({"refresh_token": refresh_token}), 200);
    assert_true(&document, route("auth.refresh"), &refreshed);
    let signed_in = world.client.post("/v1/auth/sign-in", credentials.clone(), 200);
    assert_true(&document, route("auth.sign-in"), &signed_in);
    for id in [
        "mfa.confirm-totp",
        "mfa.renew-recovery-codes",
        "mfa.remove-totp",
        "mfa.passkey-options",
        "passkeys.add",
    ] {
        let owner = world.sign_in("ada", "owner@ada.example");
        let reply = Fixture::absent(0).call(route(id), &owner);
        assert!((200..300).contains(&reply.status), "{id}: {}", reply.text());
        assert_true(&document, route(id), &reply);
    }
    world.enrol("ada", "owner@ada.example", &world.sign_in("ada", "owner@ada.example"));
    let waiting = world.client.post("/v1/auth/sign-in", credentials, 200);
    assert_eq!(waiting.json()["mfa_required"], true);
    assert_true(&document, route("auth.sign-in"), &waiting);
    world.sign_in("ada", "owner@ada.example").get("/v1/me", 200);
    let body = json!({"tenant": {"slug": "bob", "name": "Bob"}, "email": "owner@bob.example", "password": crate::kit::PASSWORD});
    assert_true(
        &document,
        route("auth.sign-up"),
        &world.client.post("/v1/auth/sign-up", body, 201),
    );
}
