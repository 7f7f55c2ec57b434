//! Taking one's own tenant back to an earlier time, and seeing how far that is.
//!
//! Asked for, it is part of the tenant's state: the answer is 202, and from then on the tenant answers
//! 503 until it is as it was. What is refused and why stands in `actors::travel`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::Answered;
use actors::env::parse_rfc3339;
use actors::permit::{Action as _, ReadRestores, RestoreTenant};
use actors::tenant::platform::CheckStanding;
use actors::tenant::restore::{ListRestores, ReadRestore, RequestRestore, RestoreView};
use schemars::JsonSchema;
use serde::Deserialize;
use storage::id::RestoreId;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::app::App;
use crate::http::extract::{At, Json, Paged};
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

/// Where in the body the time stands.
const AT: &str = "/at";

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Post,
        "/v1/tenant/restores",
        "restores.request",
        Access::Tenant(RestoreTenant::ROW),
        || web::post().to(request),
    )
    .summary("Take the tenant back to an earlier time; it answers 503 until that is done")
    .body::<RestoreBody>(r#"{"at":"2031-05-17T08:30:00Z"}"#)
    .answers::<RestoreView>(202)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/tenant/restores",
        "restores.list",
        Access::Tenant(ReadRestores::ROW),
        || web::get().to(list),
    )
    .summary("List restores, newest first")
    .query(&["limit", "cursor"])
    .answers_page::<RestoreView>(),
    Route::new(
        Verb::Get,
        "/v1/tenant/restores/{restore}",
        "restores.read",
        Access::Tenant(ReadRestores::ROW),
        || web::get().to(read),
    )
    .summary("Read how far a restore is")
    .answers::<RestoreView>(200),
];

/// Asks for a restore.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreBody {
    /// The time to go back to, RFC 3339: not in the future, and within the history that is kept.
    pub at: String,
}

async fn request(
    app: web::Data<App>,
    asking: Allowed<RestoreTenant>,
    doing: Allowed<RestoreTenant>,
    Json(RestoreBody { at }): Json<RestoreBody>,
) -> Result<HttpResponse, Problem> {
    let at_ms = parse_rfc3339(&at).ok_or_else(|| {
        Problem::invalid(AT, "must be a time since 1970 such as 2031-05-17T08:30:00Z")
    })?;
    // Nobody makes the node read a history with a credential that no longer stands.
    asking.query(CheckStanding::<RestoreTenant>::default()).await?;
    let tenant = doing.tenant();
    let point = app.travel.point(tenant, AT, at_ms).await?;
    // To its end also if the caller goes away: once it is on record it has to be carried out.
    let asked = actix_web::rt::spawn(async move {
        let command = RequestRestore { at_ms, lsn: point.tail.lsn };
        let asked = doing.command(command).await;
        let is_on_record = match &asked {
            Ok(answered) => !answered.replayed,
            Err(problem) => problem.kind() == Kind::OUTCOME_UNKNOWN,
        };
        if is_on_record {
            app.travel.see_to(tenant);
        }
        asked
    });
    let Answered { reply: (id, reply), replayed } = asked.await.map_err(Problem::internal)??;
    let location = format!("/v1/tenant/restores/{id}");
    let mut response = answer::created(Answered { reply, replayed }, &location);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

async fn list(
    allowed: Allowed<ReadRestores>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListRestores { paging }).await?))
}

async fn read(
    request: HttpRequest,
    allowed: Allowed<ReadRestores>,
    At(id): At<RestoreId>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::document(&request, allowed.query(ReadRestore { id }).await?))
}
