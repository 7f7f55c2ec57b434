//! The OpenAPI 3.1 document, made from the route table and nothing else.
//!
//! A route that is not in the table does not exist, and one that is appears here: the document cannot
//! drift. Schemas are JSON Schema 2020-12, the dialect that OpenAPI 3.1 uses.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::http::cookies;
use crate::http::past::AS_OF;
use crate::http::problem::KINDS;
use crate::http::routes::{Access, Body, ROUTES, Route};

/// The whole document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in &ROUTES {
        let operation = operation(route, &mut generator);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.verb.name().to_ascii_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bulkhead",
            "summary": "The tenant runtime",
            "description": "One API for every tenant. The tenant of a request is the one its access token names; \
                what belongs to another tenant answers exactly as what does not exist.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                "description": "An access token from `/v1/auth/sign-in`.",
            }, "apiKey": {
                "type": "http", "scheme": "bearer", "bearerFormat": "bk_…",
                "description": "An API key from `/v1/api-keys` with the operation's capability among its scopes.",
            }, "cookie": {
                "type": "apiKey", "in": "cookie", "name": cookies::SESSION,
                "description": "What `/v1/auth/sign-in` has a browser keep. Anything but `GET` needs `X-Bulkhead-CSRF: 1` as well.",
            }},
            "parameters": parameters(),
            "headers": headers(),
            "responses": {"Problem": problem_response(), "ScimError": scim_error_response()},
            "schemas": with_problem(schemas),
        },
    })
}

fn tags() -> Vec<Value> {
    let mut names: Vec<_> = ROUTES.iter().map(Route::resource).collect();
    names.dedup();
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(*name)).map(|name| json!({"name": name})).collect()
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "tags": [route.resource()],
        "x-rate-class": route.class.name(),
        "responses": responses(route, generator),
    });
    match route.access {
        Access::Tenant(capability) => {
            operation["security"] = if capability.is_scope() {
                json!([{"bearer": []}, {"apiKey": []}, {"cookie": []}])
            } else {
                json!([{"bearer": []}, {"cookie": []}])
            };
            operation["x-capability"] = json!(capability.name);
            operation["description"] =
                json!(format!("Needs the capability `{}`: {}", capability.name, capability.means));
        }
        Access::Hook => {
            operation["security"] = json!([]);
            operation["description"] =
                json!("Proven by the provider's signature over the raw body.");
        }
        Access::Public => operation["security"] = json!([]),
    }
    let parameters = route_parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(body) = &route.body {
        operation["requestBody"] = request_body(body, generator);
    }
    operation
}

fn route_parameters(route: &Route) -> Vec<Value> {
    let path = route.params().map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
    );
    let query = route.query.iter().map(|name| match *name {
        "limit" => json!({"$ref": "#/components/parameters/Limit"}),
        "cursor" => json!({"$ref": "#/components/parameters/Cursor"}),
        AS_OF => json!({"$ref": "#/components/parameters/AsOf"}),
        name => json!({"name": name, "in": "query", "schema": {"type": "string"}}),
    });
    let headers = route.headers.iter().map(|(name, means)| {
        json!({"name": name, "in": "header", "description": means, "schema": {"type": "string"}})
    });
    let mut all: Vec<_> = path.chain(query).chain(headers).collect();
    if route.idempotent {
        all.push(json!({"$ref": "#/components/parameters/IdempotencyKey"}));
    }
    if route.guarded {
        all.push(json!({"$ref": "#/components/parameters/IfMatch"}));
    }
    all
}

fn request_body(body: &Body, generator: &mut SchemaGenerator) -> Value {
    let schema = (body.schema)(generator).to_value();
    let mut media = json!({"schema": schema});
    // A sample that is no JSON fails the table's own test.
    if let Ok(example) = serde_json::from_str::<Value>(body.sample) {
        media["example"] = example;
    }
    json!({"required": true, "content": {"application/json": media}})
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    if let Some(answer) = &route.answer {
        let mut response = json!({
            "description": status_text(answer.status),
            "headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
        });
        if let Some(media) = answer.media {
            let schema = answer.schema.map(|schema| schema(generator).to_value());
            response["content"] = match schema {
                Some(schema) => json!({media: {"schema": schema}}),
                None => json!({media: {"schema": {"type": "string"}}}),
            };
        }
        for name in ["RateLimit", "RateLimit-Policy"] {
            response["headers"][name] = json!({"$ref": format!("#/components/headers/{name}")});
        }
        if route.query.contains(&AS_OF) {
            let name = "Bulkhead-As-Of";
            response["headers"][name] = json!({"$ref": format!("#/components/headers/{name}")});
        }
        if route.idempotent {
            let name = "Idempotency-Replayed";
            response["headers"][name] = json!({"$ref": format!("#/components/headers/{name}")});
        }
        responses.insert(answer.status.to_string(), response);
    }
    let problem = if route.is_scim() {
        json!({"$ref": "#/components/responses/ScimError"})
    } else {
        json!({"$ref": "#/components/responses/Problem"})
    };
    for status in problem_statuses(route) {
        // SCIM has no 422.
        let status = if route.is_scim() && status == 422 { 400 } else { status };
        responses.insert(status.to_string(), problem.clone());
    }
    responses.insert("default".to_owned(), problem);
    Value::Object(responses)
}

/// The problems that a route can answer, by what the row says of it.
fn problem_statuses(route: &Route) -> Vec<u16> {
    let mut statuses = vec![429, 500];
    if route.is_tenant_scoped() {
        statuses.extend([401, 403, 423, 503, 504]);
    }
    if route.access == Access::Hook {
        statuses.extend([401, 503]);
    }
    if route.params().next().is_some() {
        statuses.push(404);
    }
    if route.body.is_some() {
        statuses.extend([400, 413, 415, 422]);
    } else if !route.query.is_empty() {
        statuses.push(422);
    }
    if route.is_tenant_scoped() && route.verb != crate::http::routes::Verb::Get {
        statuses.extend([402, 409]);
    }
    if route.guarded {
        statuses.push(412);
    }
    statuses.sort_unstable();
    statuses
}

fn status_text(status: u16) -> &'static str {
    match status {
        201 => "Made.",
        202 => "Taken in; it is done later.",
        204 => "Done; nothing to say.",
        _ => "Done.",
    }
}

fn parameters() -> Value {
    json!({
        "Limit": {
            "name": "limit", "in": "query", "description": "Items on the page.",
            "schema": {
                "type": "integer", "minimum": 1,
                "maximum": actors::limits::PAGE_MAX, "default": actors::limits::PAGE_DEFAULT,
            },
        },
        "Cursor": {
            "name": "cursor", "in": "query", "description": "The `next_cursor` of the page before.",
            "schema": {"type": "string"},
        },
        "AsOf": {
            "name": AS_OF, "in": "query",
            "description": "An earlier time: the answer is what it would have been then. Needs the capability \
                `history:read` as well. The answer has no `ETag`.",
            "schema": {"type": "string", "format": "date-time"},
        },
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header",
            "description": "The same key gives the same answer, and the effect once. Kept for a day.",
            "schema": {"type": "string", "minLength": 1, "maxLength": crate::limits::IDEMPOTENCY_KEY_BYTES_MAX},
        },
        "IfMatch": {
            "name": "If-Match", "in": "header",
            "description": "The `ETag` of the version to change; 412 if it is no longer the current one.",
            "schema": {"type": "string"},
        },
    })
}

fn headers() -> Value {
    json!({
        "X-Request-Id": {"description": "Names the request; give it when reporting a fault.", "schema": {"type": "string"}},
        "RateLimit": {"description": "What is left of each budget, and until when: `\"api-tenant\";r=42;t=30`.", "schema": {"type": "string"}},
        "RateLimit-Policy": {"description": "The budgets: `\"api-tenant\";q=100;w=60`.", "schema": {"type": "string"}},
        "Idempotency-Replayed": {"description": "`true` on the answer to a repeated request.", "schema": {"type": "string"}},
        "Bulkhead-As-Of": {"description": "With `as_of`: the stamp of the last change before that time, RFC 3339 UTC.", "schema": {"type": "string", "format": "date-time"}},
        "Retry-After": {"description": "Seconds to wait, on 429 and 503.", "schema": {"type": "integer"}},
    })
}

fn problem_response() -> Value {
    json!({
        "description": "What went wrong (RFC 9457).",
        "headers": {
            "X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"},
            "Retry-After": {"$ref": "#/components/headers/Retry-After"},
        },
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    })
}

fn scim_error_response() -> Value {
    json!({
        "description": "What went wrong (RFC 7644 §3.12). `Link` names the problem.",
        "headers": {
            "X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"},
            "Retry-After": {"$ref": "#/components/headers/Retry-After"},
        },
        "content": {crate::http::scim::MEDIA_TYPE: {"schema": {
            "type": "object",
            "required": ["schemas", "status", "detail"],
            "properties": {
                "schemas": {"type": "array", "items": {"type": "string"}},
                "status": {"type": "string"},
                "scimType": {"type": "string"},
                "detail": {"type": "string"},
            },
        }}},
    })
}

fn with_problem(mut schemas: Map<String, Value>) -> Value {
    let types: Vec<_> = KINDS.iter().map(|kind| kind.uri()).collect();
    let problem = json!({
        "type": "object",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference", "enum": types},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": {
                "type": "object",
                "required": ["pointer", "message"],
                "properties": {"pointer": {"type": "string"}, "message": {"type": "string"}},
            }},
            "quota": {"type": "string", "description": "On 402: what is used up."},
            "limit": {"type": "integer", "description": "On 402 and 413: how much there is."},
            "action": {"type": "string", "description": "On 403: the missing capability."},
            "violated-policies": {"type": "array", "items": {"type": "string"}, "description": "On 429: the spent budgets."},
        },
    });
    schemas.insert("Problem".to_owned(), problem);
    Value::Object(schemas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_the_document_and_nothing_else() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        for route in &ROUTES {
            let operation = &paths[route.path][route.verb.name().to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.id, "{route}");
        }
        let operations: usize =
            paths.values().map(|path| path.as_object().map_or(0, Map::len)).sum();
        assert_eq!(operations, ROUTES.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("a local reference");
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    members.values().for_each(|member| walk(member, document));
                }
                Value::Array(items) => items.iter().for_each(|item| walk(item, document)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }

    #[test]
    fn every_sample_body_fits_its_own_schema() {
        let document = document();
        for route in ROUTES.iter().filter(|route| route.body.is_some()) {
            let operation = &document["paths"][route.path][route.verb.name().to_ascii_lowercase()];
            let media = &operation["requestBody"]["content"]["application/json"];
            let schema = json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "allOf": [media["schema"]],
                "components": document["components"],
            });
            let validator = jsonschema::validator_for(&schema).expect("a schema");
            let faults: Vec<_> =
                validator.iter_errors(&media["example"]).map(|fault| fault.to_string()).collect();
            assert!(faults.is_empty(), "{route}: {faults:?}");
        }
    }
}
