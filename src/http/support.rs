//! Support sessions. Somebody of the platform asks for one under `/v1/platform/support-sessions`; the people of the
//! tenant see it, decide on it and end it under `/v1/support-sessions`. What such a session shows is in
//! `actors::permit`, how its token is proven here.
//!
//! Refuses: any other way from the platform into a tenant. What is asked for is on the platform's record before the
//! tenant hears of it, and each use is on the tenant's before anything is shown.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::{Answered, Origin};
use actors::permit::{
    Action as _, AskSupport, DecideSupport, Grant, Permit, ReadSupport, ReadSupportAsked,
    SupportPrincipal,
};
use actors::tenant::api_keys::text::PresentedSupport;
use actors::tenant::error::TenantError;
use actors::tenant::platform::admins::IsPlatformAdmin;
use actors::tenant::support::asking::{
    AskForSupport, BeginSupport, EndSupport, FindSupport, FindSupportAsked, IssueSupportToken,
    ListSupportAsked, RecordSupportAct, SupportAct, SupportAsked, SupportAskedView,
};
use actors::tenant::support::deciding::{
    DecideOnSupport, ListSupportSessions, ReadSupportSession, Verdict,
};
use actors::tenant::support::using::ProveSupport;
use actors::tenant::support::{SupportState, SupportView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::id::{SupportId, TenantId};

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::app::App;
use crate::http::cookies::door_or_platform;
use crate::http::extract::{At, Json, Paged};
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Post,
        "/v1/platform/support-sessions",
        "platform.ask-support",
        Access::Tenant(AskSupport::ROW),
        || web::post().to(ask),
    )
    .summary("Ask to look into a tenant; with a token at once, unless it has to be approved")
    .body::<AskSupportBody>(
        r#"{"tenant":"acme","reason":"the export of last night is empty","ticket":"CASE-4711","minutes":30}"#,
    )
    .idempotent()
    .answers::<SupportGrantedView>(201),
    Route::new(
        Verb::Get,
        "/v1/platform/support-sessions",
        "platform.list-support",
        Access::Tenant(ReadSupportAsked::ROW),
        || web::get().to(list_asked),
    )
    .summary("The support sessions that were asked for, oldest first")
    .query(&["limit", "cursor"])
    .answers_page::<SupportAskedView>(),
    Route::new(
        Verb::Get,
        "/v1/platform/support-sessions/{support}",
        "platform.read-support",
        Access::Tenant(ReadSupportAsked::ROW),
        || web::get().to(read_asked),
    )
    .summary("One support session that was asked for, and how far it is")
    .answers::<SupportStandingView>(200),
    Route::new(
        Verb::Post,
        "/v1/platform/support-sessions/{support}/token",
        "platform.take-support-token",
        Access::Tenant(AskSupport::ROW),
        || web::post().to(token),
    )
    .summary("A token of an open support session that one asked for oneself; earlier ones are void")
    .answers::<SupportGrantedView>(200),
    Route::new(
        Verb::Delete,
        "/v1/platform/support-sessions/{support}",
        "platform.end-support",
        Access::Tenant(AskSupport::ROW),
        || web::delete().to(end),
    )
    .summary("End a support session")
    .answers_nothing(),
    Route::new(
        Verb::Get,
        "/v1/support-sessions",
        "support.list",
        Access::Tenant(ReadSupport::ROW),
        || web::get().to(list),
    )
    .summary("Who of the platform looked into the tenant, or asks to; oldest first")
    .query(&["limit", "cursor"])
    .answers_page::<SupportView>(),
    Route::new(
        Verb::Get,
        "/v1/support-sessions/{support}",
        "support.read",
        Access::Tenant(ReadSupport::ROW),
        || web::get().to(read),
    )
    .summary("One support session")
    .answers::<SupportView>(200),
    Route::new(
        Verb::Post,
        "/v1/support-sessions/{support}/approve",
        "support.approve",
        Access::Tenant(DecideSupport::ROW),
        || web::post().to(approve),
    )
    .summary("Let somebody of the platform look into the tenant")
    .answers::<SupportView>(200),
    Route::new(
        Verb::Post,
        "/v1/support-sessions/{support}/deny",
        "support.deny",
        Access::Tenant(DecideSupport::ROW),
        || web::post().to(deny),
    )
    .summary("Refuse somebody of the platform a look into the tenant")
    .answers::<SupportView>(200),
    Route::new(
        Verb::Delete,
        "/v1/support-sessions/{support}",
        "support.revoke",
        Access::Tenant(DecideSupport::ROW),
        || web::delete().to(revoke),
    )
    .summary("End a support session: its token is refused from the next request on")
    .answers::<SupportView>(200),
];

/// Asks to look into a tenant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskSupportBody {
    /// Which tenant: its id or its short name.
    pub tenant: String,
    /// Why; the tenant reads it.
    pub reason: String,
    /// The case it is about, as your desk names it; the tenant reads it.
    pub ticket: String,
    /// For how long, from when it opens: 1 to 480.
    pub minutes: u32,
    /// What it is to change beside what every session shows: `forms:update`, `submissions:update`. Takes
    /// the tenant's approval.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Whether to have the tenant approve it even where it does not ask for that.
    #[serde(default)]
    pub approval: bool,
}

/// A support session, and its token if it is open.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SupportGrantedView {
    /// What was asked for.
    #[serde(flatten)]
    pub asked: SupportAskedView,
    /// How far it is.
    pub state: SupportState,
    /// For the `Authorization` header; shown this one time, and absent until the session is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// How the token is presented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<&'static str>,
    /// Seconds until the session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// A support session that was asked for, and how the tenant has it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SupportStandingView {
    /// What was asked for.
    #[serde(flatten)]
    pub asked: SupportAskedView,
    /// How far it is; null if the tenant never heard of it, or cannot be asked now.
    pub state: Option<SupportState>,
    /// When it ends, RFC 3339 UTC; null until it opens.
    pub expires_at: Option<String>,
}

async fn ask(
    app: web::Data<App>,
    (allowed, reaching): (Allowed<AskSupport>, Allowed<AskSupport>),
    Json(body): Json<AskSupportBody>,
) -> Result<HttpResponse, Problem> {
    let AskSupportBody { tenant, reason, ticket, minutes, scopes, approval } = body;
    let named = tenant.parse().ok().filter(|id| app.tenants.summary(*id).is_some());
    let tenant = named.or_else(|| app.tenants.by_slug(&tenant));
    let tenant = tenant.filter(|tenant| *tenant != TenantId::PLATFORM);
    let tenant = tenant.ok_or_else(|| Problem::invalid("/tenant", "names no tenant"))?;
    let (origin, permit) = (allowed.origin(), reaching.into_permit());
    let command = AskForSupport { tenant, reason, ticket, minutes, scopes };
    let Answered { reply: asked, replayed } = allowed.command(command).await?;
    let door = app.tenants.find(tenant).await?;
    let begin = BeginSupport { asked: asked.asked.clone(), is_to_wait: approval };
    let state = door.command(permit.reach_in(tenant), origin.clone(), None, begin).await?.reply;
    let view = match state {
        SupportState::Open => granted(&app, &permit, origin, &asked).await?,
        state => SupportGrantedView {
            asked: asked.view(),
            state,
            access_token: None,
            token_type: None,
            expires_in: None,
        },
    };
    Ok(answer::replayed(answer::json(StatusCode::CREATED, &view)?, replayed))
}

/// Takes a token of an open session.
async fn granted(
    app: &App,
    permit: &Permit<AskSupport>,
    origin: Origin,
    asked: &SupportAsked,
) -> Result<SupportGrantedView, Problem> {
    let door = app.tenants.find(asked.tenant).await?;
    let issue = IssueSupportToken { id: asked.asked.id, admin: asked.asked.admin };
    let (token, ends_ms) =
        door.command(permit.reach_in(asked.tenant), origin, None, issue).await?.reply;
    Ok(SupportGrantedView {
        asked: asked.view(),
        state: SupportState::Open,
        access_token: Some(token),
        token_type: Some("Bearer"),
        expires_in: Some(ends_ms.saturating_sub(app.env.now_ms()) / 1_000),
    })
}

async fn list_asked(
    allowed: Allowed<ReadSupportAsked>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListSupportAsked { paging }).await?))
}

async fn read_asked(
    app: web::Data<App>,
    (allowed, reaching): (Allowed<ReadSupportAsked>, Allowed<ReadSupportAsked>),
    At(id): At<SupportId>,
) -> Result<HttpResponse, Problem> {
    let asked = allowed.query(FindSupportAsked { id }).await?;
    let permit = reaching.into_permit().reach_in(asked.tenant);
    let found = match app.tenants.find(asked.tenant).await {
        Ok(door) => door.query(permit, FindSupport { id }).await.ok(),
        Err(_) => None,
    };
    let (state, expires_at) = found.map_or((None, None), |it| (Some(it.state), it.expires_at));
    let view = SupportStandingView { asked: asked.view(), state, expires_at };
    answer::json(StatusCode::OK, &view)
}

async fn token(
    app: web::Data<App>,
    (allowed, reaching): (Allowed<AskSupport>, Allowed<AskSupport>),
    At(id): At<SupportId>,
) -> Result<HttpResponse, Problem> {
    let origin = allowed.origin();
    let record = RecordSupportAct { id, act: SupportAct::Token };
    let asked = allowed.command(record).await?.reply;
    let permit = reaching.into_permit();
    answer::json(StatusCode::OK, &granted(&app, &permit, origin, &asked).await?)
}

async fn end(
    app: web::Data<App>,
    (allowed, reaching): (Allowed<AskSupport>, Allowed<AskSupport>),
    At(id): At<SupportId>,
) -> Result<HttpResponse, Problem> {
    let origin = allowed.origin();
    let record = RecordSupportAct { id, act: SupportAct::End };
    let asked = allowed.command(record).await?.reply;
    let door = app.tenants.find(asked.tenant).await?;
    let permit = reaching.into_permit().reach_in(asked.tenant);
    door.command(permit, origin, None, EndSupport { id, is_removal: false }).await?;
    Ok(answer::no_content())
}

async fn list(
    allowed: Allowed<ReadSupport>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListSupportSessions { paging }).await?))
}

async fn read(
    request: HttpRequest,
    allowed: Allowed<ReadSupport>,
    At(id): At<SupportId>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::document(&request, allowed.query(ReadSupportSession { id }).await?))
}

async fn approve(
    allowed: Allowed<DecideSupport>,
    At(id): At<SupportId>,
) -> Result<HttpResponse, Problem> {
    decide(allowed, id, Verdict::Approve).await
}

async fn deny(
    allowed: Allowed<DecideSupport>,
    At(id): At<SupportId>,
) -> Result<HttpResponse, Problem> {
    decide(allowed, id, Verdict::Deny).await
}

async fn revoke(
    allowed: Allowed<DecideSupport>,
    At(id): At<SupportId>,
) -> Result<HttpResponse, Problem> {
    decide(allowed, id, Verdict::Revoke).await
}

async fn decide(
    allowed: Allowed<DecideSupport>,
    id: SupportId,
    verdict: Verdict,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(DecideOnSupport { id, verdict }).await?))
}

/// Has the tenant prove a token of a support session: as whom it asks, and until when to remember that.
/// Nothing, whatever is wrong with it.
///
/// # Errors
/// Those of a tenant that cannot answer now.
pub(crate) async fn prove(
    app: &App,
    presented: PresentedSupport,
) -> Result<Option<(Grant, u64)>, TenantError> {
    let door = door_or_platform(app, presented.tenant).await?;
    let proven =
        match door.query(Permit::anonymous(door.tenant()), ProveSupport { presented }).await {
            Err(TenantError::NotFound) => None,
            proven => proven?,
        };
    Ok(proven.map(|(principal, ends_ms)| (Grant::of_support(door.tenant(), principal), ends_ms)))
}

/// Makes sure that who asked for a session still runs the platform: a tenant cannot know, so the platform's own
/// compartment is asked for each use, whatever was proven before.
///
/// # Errors
/// [`Kind::INVALID_TOKEN`] if they do not, and those of a platform that cannot answer now.
pub(crate) async fn check_admin(app: &App, support: &SupportPrincipal) -> Result<(), Problem> {
    let platform = app.tenants.find(TenantId::PLATFORM).await?;
    let permit = Permit::anonymous(TenantId::PLATFORM);
    match platform.query(permit, IsPlatformAdmin { user: support.admin }).await? {
        true => Ok(()),
        false => Err(Problem::new(Kind::INVALID_TOKEN)),
    }
}
