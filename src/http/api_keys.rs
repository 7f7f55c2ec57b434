//! API keys: made, seen, changed and revoked by people. What a key may is in `actors::permit`, how one is
//! proven in [`services`](crate::http::services).

use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::Answered;
use actors::permit::{Action as _, ReadApiKeys, WriteApiKeys};
use actors::tenant::api_keys::commands::{
    CreateApiKey, CreateApiKeyBody, RevokeApiKey, UpdateApiKey, UpdateApiKeyBody,
};
use actors::tenant::api_keys::queries::{ListApiKeys, ReadApiKey};
use actors::tenant::api_keys::{ApiKeyView, ApiKeyWithText};
use storage::id::ApiKeyId;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::extract::{At, IfMatch, Json, Paged};
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The rows of API keys.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Post,
        "/v1/api-keys",
        "api-keys.create",
        Access::Tenant(WriteApiKeys::ROW),
        || web::post().to(create),
    )
    .summary("Create an API key; its text is shown in this answer only")
    .body::<CreateApiKeyBody>(r#"{"name":"Nightly report","scopes":["forms:read"]}"#)
    .answers::<ApiKeyWithText>(201)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/api-keys",
        "api-keys.list",
        Access::Tenant(ReadApiKeys::ROW),
        || web::get().to(list),
    )
    .summary("List API keys, oldest first; members: their own")
    .answers_page::<ApiKeyView>()
    .query(&["limit", "cursor"]),
    Route::new(
        Verb::Get,
        "/v1/api-keys/{key}",
        "api-keys.read",
        Access::Tenant(ReadApiKeys::ROW),
        || web::get().to(read),
    )
    .summary("Read an API key, without its text")
    .answers::<ApiKeyView>(200),
    Route::new(
        Verb::Patch,
        "/v1/api-keys/{key}",
        "api-keys.update",
        Access::Tenant(WriteApiKeys::ROW),
        || web::patch().to(update),
    )
    .summary("Change an API key's name, scopes or end")
    .body::<UpdateApiKeyBody>(r#"{"name":"Weekly report"}"#)
    .answers::<ApiKeyView>(200)
    .guarded(),
    Route::new(
        Verb::Delete,
        "/v1/api-keys/{key}",
        "api-keys.revoke",
        Access::Tenant(WriteApiKeys::ROW),
        || web::delete().to(revoke),
    )
    .summary("Revoke an API key: it is refused from the next request on")
    .answers_nothing()
    .guarded(),
];

async fn create(
    allowed: Allowed<WriteApiKeys>,
    Json(body): Json<CreateApiKeyBody>,
) -> Result<HttpResponse, Problem> {
    let Answered { reply, replayed } = allowed.command(CreateApiKey { body }).await?;
    let location = format!("/v1/api-keys/{}", reply.id);
    Ok(answer::created(Answered { reply: reply.document, replayed }, &location))
}

async fn list(
    allowed: Allowed<ReadApiKeys>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListApiKeys { paging }).await?))
}

async fn read(
    request: HttpRequest,
    allowed: Allowed<ReadApiKeys>,
    At(id): At<ApiKeyId>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::document(&request, allowed.query(ReadApiKey { id }).await?))
}

async fn update(
    allowed: Allowed<WriteApiKeys>,
    At(id): At<ApiKeyId>,
    IfMatch(if_match): IfMatch,
    Json(body): Json<UpdateApiKeyBody>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(UpdateApiKey { id, body, if_match }).await?))
}

async fn revoke(
    allowed: Allowed<WriteApiKeys>,
    At(id): At<ApiKeyId>,
    IfMatch(if_match): IfMatch,
) -> Result<HttpResponse, Problem> {
    allowed.command(RevokeApiKey { id, if_match }).await?;
    Ok(answer::no_content())
}
