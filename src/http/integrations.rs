//! Integrations, their secrets, and the events they received.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::Answered;
use actors::permit::{Action as _, ReadIntegrations, WriteIntegrations};
use actors::tenant::integrations::events::{EventView, EventWithPayload, ListEvents, ReadEvent};
use actors::tenant::integrations::secrets::{NewSecret, RemoveSecret, RotateSecret};
use actors::tenant::integrations::{
    CreateIntegration, IntegrationChanges, IntegrationView, IntegrationWithSecret,
    ListIntegrations, ReadIntegration, UpdateIntegration,
};
use storage::id::{EventId, IntegrationId, SecretId};

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::extract::{At, IfMatch, Json, Paged};
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Post,
        "/v1/integrations",
        "integrations.create",
        Access::Tenant(WriteIntegrations::ROW),
        || web::post().to(create),
    )
    .summary("Create a source of webhooks; a generated secret is shown in this answer only")
    .body::<CreateIntegration>(r#"{"source":"github","name":"Our repositories"}"#)
    .answers::<IntegrationWithSecret>(201)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/integrations",
        "integrations.list",
        Access::Tenant(ReadIntegrations::ROW),
        || web::get().to(list),
    )
    .summary("List integrations, oldest first")
    .answers_page::<IntegrationView>()
    .query(&["limit", "cursor"]),
    Route::new(
        Verb::Get,
        "/v1/integrations/{integration}",
        "integrations.read",
        Access::Tenant(ReadIntegrations::ROW),
        || web::get().to(read),
    )
    .summary("Read an integration, without its secrets")
    .answers::<IntegrationView>(200),
    Route::new(
        Verb::Patch,
        "/v1/integrations/{integration}",
        "integrations.update",
        Access::Tenant(WriteIntegrations::ROW),
        || web::patch().to(update),
    )
    .summary("Rename an integration, or switch it on or off")
    .body::<IntegrationChanges>(r#"{"enabled":true}"#)
    .answers::<IntegrationView>(200)
    .guarded(),
    Route::new(
        Verb::Post,
        "/v1/integrations/{integration}/secrets",
        "integrations.add-secret",
        Access::Tenant(WriteIntegrations::ROW),
        || web::post().to(add_secret),
    )
    .summary(
        "Add a secret and let older ones run out; a generated one is shown in this answer only",
    )
    .body::<NewSecret>(r#"{"expire_others_after_s":86400}"#)
    .answers::<IntegrationWithSecret>(201)
    .idempotent(),
    Route::new(
        Verb::Delete,
        "/v1/integrations/{integration}/secrets/{secret}",
        "integrations.remove-secret",
        Access::Tenant(WriteIntegrations::ROW),
        || web::delete().to(remove_secret),
    )
    .summary("End a secret at once")
    .answers_nothing(),
    Route::new(
        Verb::Get,
        "/v1/integrations/{integration}/events",
        "integrations.events",
        Access::Tenant(ReadIntegrations::ROW),
        || web::get().to(events),
    )
    .summary("List what an integration received, latest first")
    .answers_page::<EventView>()
    .query(&["limit", "cursor"]),
    Route::new(
        Verb::Get,
        "/v1/integrations/{integration}/events/{event}",
        "integrations.event",
        Access::Tenant(ReadIntegrations::ROW),
        || web::get().to(event),
    )
    .summary("Read a received event with its payload")
    .answers::<EventWithPayload<'static>>(200),
];

async fn create(
    allowed: Allowed<WriteIntegrations>,
    Json(command): Json<CreateIntegration>,
) -> Result<HttpResponse, Problem> {
    let Answered { reply: (id, reply), replayed } = allowed.command(command).await?;
    Ok(answer::created(Answered { reply, replayed }, &format!("/v1/integrations/{id}")))
}

async fn list(
    allowed: Allowed<ReadIntegrations>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListIntegrations { paging }).await?))
}

async fn read(
    request: HttpRequest,
    allowed: Allowed<ReadIntegrations>,
    At(integration): At<IntegrationId>,
) -> Result<HttpResponse, Problem> {
    let document = allowed.query(ReadIntegration { integration }).await?;
    Ok(answer::document(&request, document))
}

async fn update(
    allowed: Allowed<WriteIntegrations>,
    At(integration): At<IntegrationId>,
    IfMatch(if_match): IfMatch,
    Json(changes): Json<IntegrationChanges>,
) -> Result<HttpResponse, Problem> {
    let command = UpdateIntegration { integration, changes, if_match };
    Ok(answer::updated(allowed.command(command).await?))
}

async fn add_secret(
    allowed: Allowed<WriteIntegrations>,
    At(integration): At<IntegrationId>,
    Json(new): Json<NewSecret>,
) -> Result<HttpResponse, Problem> {
    let answered = allowed.command(RotateSecret { integration, new }).await?;
    let Answered { reply: (secret, reply), replayed } = answered;
    let location = format!("/v1/integrations/{integration}/secrets/{secret}");
    Ok(answer::created(Answered { reply, replayed }, &location))
}

async fn remove_secret(
    allowed: Allowed<WriteIntegrations>,
    At((integration, secret)): At<(IntegrationId, SecretId)>,
) -> Result<HttpResponse, Problem> {
    allowed.command(RemoveSecret { integration, secret }).await?;
    Ok(answer::no_content())
}

async fn events(
    allowed: Allowed<ReadIntegrations>,
    At(integration): At<IntegrationId>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListEvents { integration, paging }).await?))
}

async fn event(
    request: HttpRequest,
    allowed: Allowed<ReadIntegrations>,
    At((integration, event)): At<(IntegrationId, EventId)>,
) -> Result<HttpResponse, Problem> {
    let document = allowed.query(ReadEvent { integration, event }).await?;
    Ok(answer::document(&request, document))
}
