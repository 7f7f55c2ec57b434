//! Invitations: who is invited, by whom, and until when. Their links go by mail and are never shown here.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::{Answered, Document};
use actors::permit::{Action as _, ReadInvites, Role, WriteMembers};
use actors::rate::Class;
use actors::tenant::invites::{
    CreateInvite, InviteView, ListInvites, ReadInvite, ResendInvite, RevokeInvite,
};
use schemars::JsonSchema;
use serde::Deserialize;
use storage::id::InviteId;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::extract::{At, Json, Paged};
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/v1/invites", "invites.list", Access::Tenant(ReadInvites::ROW), || {
        web::get().to(list)
    })
    .summary("List invitations that nobody has accepted yet")
    .query(&["limit", "cursor"])
    .answers_page::<InviteView>(),
    Route::new(
        Verb::Post,
        "/v1/invites",
        "invites.create",
        Access::Tenant(WriteMembers::ROW),
        || web::post().to(create),
    )
    .summary("Invite somebody by mail")
    .rate(Class::Recover)
    .body::<InviteBody>(r#"{"email":"bob@example.org","role":"member"}"#)
    .answers::<InviteView>(201)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/invites/{invite}",
        "invites.read",
        Access::Tenant(ReadInvites::ROW),
        || web::get().to(read),
    )
    .summary("Read one invitation")
    .answers::<InviteView>(200),
    Route::new(
        Verb::Post,
        "/v1/invites/{invite}/resend",
        "invites.resend",
        Access::Tenant(WriteMembers::ROW),
        || web::post().to(resend),
    )
    .summary("Mail an invitation again; the link mailed before is dead")
    .rate(Class::Recover)
    .answers::<InviteView>(200),
    Route::new(
        Verb::Delete,
        "/v1/invites/{invite}",
        "invites.revoke",
        Access::Tenant(WriteMembers::ROW),
        || web::delete().to(revoke),
    )
    .summary("Withdraw an invitation; its link is dead")
    .answers_nothing(),
];

/// Invites somebody.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteBody {
    /// Their address.
    pub email: String,
    /// As what; at most one's own role. `staff` is another word for `member`.
    pub role: Role,
}

async fn list(
    allowed: Allowed<ReadInvites>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListInvites { paging }).await?))
}

async fn create(
    allowed: Allowed<WriteMembers>,
    Json(InviteBody { email, role }): Json<InviteBody>,
) -> Result<HttpResponse, Problem> {
    Ok(created(allowed.command(CreateInvite { email, role }).await?))
}

/// The answer to an invitation that was made.
pub(crate) fn created(answered: Answered<(InviteId, Document)>) -> HttpResponse {
    let Answered { reply: (id, reply), replayed } = answered;
    answer::created(Answered { reply, replayed }, &format!("/v1/invites/{id}"))
}

async fn read(
    request: HttpRequest,
    allowed: Allowed<ReadInvites>,
    At(invite): At<InviteId>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::document(&request, allowed.query(ReadInvite { invite }).await?))
}

async fn resend(
    allowed: Allowed<WriteMembers>,
    At(invite): At<InviteId>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(ResendInvite { invite }).await?))
}

async fn revoke(
    allowed: Allowed<WriteMembers>,
    At(invite): At<InviteId>,
) -> Result<HttpResponse, Problem> {
    allowed.command(RevokeInvite { invite }).await?;
    Ok(answer::no_content())
}
