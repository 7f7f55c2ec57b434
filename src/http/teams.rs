//! Teams.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::Answered;
use actors::permit::{Action as _, ReadTeams, WriteTeams};
use actors::tenant::teams::{
    CreateTeam, CreateTeamBody, DeleteTeam, ListTeams, ReadTeam, TeamView, UpdateTeam,
    UpdateTeamBody,
};
use storage::id::TeamId;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::extract::{At, IfMatch, Json, Paged};
use crate::http::past::AS_OF;
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The rows of teams.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Post, "/v1/teams", "teams.create", Access::Tenant(WriteTeams::ROW), || {
        web::post().to(create)
    })
    .summary("Create a team")
    .body::<CreateTeamBody>(r#"{"name":"Reviewers","members":[]}"#)
    .answers::<TeamView>(201)
    .idempotent(),
    Route::new(Verb::Get, "/v1/teams", "teams.list", Access::Tenant(ReadTeams::ROW), || {
        web::get().to(list)
    })
    .summary("List teams")
    .answers_page::<TeamView>()
    .query(&["limit", "cursor", AS_OF]),
    Route::new(Verb::Get, "/v1/teams/{id}", "teams.read", Access::Tenant(ReadTeams::ROW), || {
        web::get().to(read)
    })
    .summary("Read a team")
    .answers::<TeamView>(200)
    .query(&[AS_OF]),
    Route::new(
        Verb::Patch,
        "/v1/teams/{id}",
        "teams.update",
        Access::Tenant(WriteTeams::ROW),
        || web::patch().to(update),
    )
    .summary("Change a team's name or members")
    .body::<UpdateTeamBody>(r#"{"name":"Approvers"}"#)
    .answers::<TeamView>(200)
    .guarded(),
    Route::new(
        Verb::Delete,
        "/v1/teams/{id}",
        "teams.delete",
        Access::Tenant(WriteTeams::ROW),
        || web::delete().to(delete),
    )
    .summary("Delete a team; what it was granted is gone at once")
    .answers_nothing()
    .guarded(),
];

async fn create(
    allowed: Allowed<WriteTeams>,
    Json(body): Json<CreateTeamBody>,
) -> Result<HttpResponse, Problem> {
    let Answered { reply, replayed } = allowed.command(CreateTeam { body }).await?;
    let location = format!("/v1/teams/{}", reply.id);
    Ok(answer::created(Answered { reply: reply.document, replayed }, &location))
}

async fn list(allowed: Allowed<ReadTeams>, Paged(paging): Paged) -> Result<HttpResponse, Problem> {
    Ok(allowed.look(ListTeams { paging }).await?.page())
}

async fn read(
    allowed: Allowed<ReadTeams>,
    At(team): At<TeamId>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    Ok(allowed.look(ReadTeam { team }).await?.document(&request))
}

async fn update(
    allowed: Allowed<WriteTeams>,
    At(team): At<TeamId>,
    IfMatch(if_match): IfMatch,
    Json(body): Json<UpdateTeamBody>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(UpdateTeam { team, body, if_match }).await?))
}

async fn delete(
    allowed: Allowed<WriteTeams>,
    At(team): At<TeamId>,
    IfMatch(if_match): IfMatch,
) -> Result<HttpResponse, Problem> {
    allowed.command(DeleteTeam { team, if_match }).await?;
    Ok(answer::no_content())
}
