//! What the service can do and what its resources are made of: the same for everybody, so anybody may
//! read it (RFC 7644 §4). Says nothing of any tenant.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::tenant::scim::lists::RESULTS_MAX;
use actors::tenant::scim::schema::{GROUP, SCHEMAS, Schema, USER, list_response, provider_config};
use serde_json::Value;

use super::bodies::{ListView, ResourceView};
use super::{Base, scim, value};
use crate::http::app::App;
use crate::http::extract::At;
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

const TYPES: [&Schema; 2] = [&USER, &GROUP];

/// The rows of discovery.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/scim/v2/ServiceProviderConfig", "scim.config", Access::Public, || {
        web::get().to(config)
    })
    .summary("What the SCIM service can do")
    .answers_scim::<ResourceView>(200),
    Route::new(Verb::Get, "/scim/v2/ResourceTypes", "scim.types", Access::Public, || {
        web::get().to(types)
    })
    .summary("What kinds of resources there are")
    .answers_scim::<ListView>(200),
    Route::new(
        Verb::Get,
        "/scim/v2/ResourceTypes/{resource_type}",
        "scim.type",
        Access::Public,
        || web::get().to(one_type),
    )
    .summary("One kind of resources")
    .answers_scim::<ResourceView>(200),
    Route::new(Verb::Get, "/scim/v2/Schemas", "scim.schemas", Access::Public, || {
        web::get().to(schemas)
    })
    .summary("What resources are made of")
    .answers_scim::<ListView>(200),
    of_schema("/scim/v2/Schemas/urn:ietf:params:scim:schemas:core:2.0:User", "scim.schema-user"),
    of_schema("/scim/v2/Schemas/urn:ietf:params:scim:schemas:core:2.0:Group", "scim.schema-group"),
    of_schema(
        "/scim/v2/Schemas/urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig",
        "scim.schema-config",
    ),
    of_schema(
        "/scim/v2/Schemas/urn:ietf:params:scim:schemas:core:2.0:ResourceType",
        "scim.schema-type",
    ),
    of_schema(
        "/scim/v2/Schemas/urn:ietf:params:scim:schemas:core:2.0:Schema",
        "scim.schema-schema",
    ),
];

/// Each schema has a row of its own: a parameter takes no colons, and URNs are full of them.
const fn of_schema(path: &'static str, id: &'static str) -> Route {
    Route::new(Verb::Get, path, id, Access::Public, || web::get().to(one_schema))
        .summary("What one kind of resources is made of")
        .answers_scim::<ResourceView>(200)
}

fn all(resources: impl Iterator<Item = Value>) -> Result<HttpResponse, Problem> {
    let resources: Vec<Value> = resources.collect();
    value(&list_response(resources.len(), 1, resources))
}

fn one(resource: Option<Value>) -> Result<HttpResponse, Problem> {
    let resource = resource.ok_or_else(Problem::not_found)?;
    Ok(scim(StatusCode::OK, serde_json::to_vec(&resource).map_err(Problem::internal)?))
}

async fn config(app: web::Data<App>, Base(base): Base) -> Result<HttpResponse, Problem> {
    value(&provider_config(&base, RESULTS_MAX, app.config.limits.body_bytes_max))
}

async fn types(Base(base): Base) -> Result<HttpResponse, Problem> {
    all(TYPES.into_iter().map(|schema| schema.resource_type(&base)))
}

async fn one_type(At(name): At<String>, Base(base): Base) -> Result<HttpResponse, Problem> {
    let found = TYPES.into_iter().find(|schema| schema.name == name);
    one(found.map(|schema| schema.resource_type(&base)))
}

async fn schemas(Base(base): Base) -> Result<HttpResponse, Problem> {
    all(SCHEMAS.into_iter().map(|schema| schema.json(&base)))
}

async fn one_schema(request: HttpRequest, Base(base): Base) -> Result<HttpResponse, Problem> {
    let urn = request.path().rsplit('/').next().unwrap_or_default();
    let found = SCHEMAS.into_iter().find(|schema| schema.id == urn);
    one(found.map(|schema| schema.json(&base)))
}
