//! The platform's own routes: which tenants there are, whether they are served, and whether their
//! audit logs hold. A platform administrator's token is for the platform's compartment, which is the
//! only tenant it reaches; what is inside any other tenant these routes cannot see.
//!
//! Each act is written to the platform's own chain in the administrator's name, with its outcome.

use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use actors::audit::entry::{Draft, Named};
use actors::audit::verify::NodeReport;
use actors::call::{Answered, Origin, Page};
use actors::env::rfc3339;
use actors::limits::TEXT_BYTES_MAX;
use actors::permit::{Action, ReadTenants, VerifyAudit, WriteTenants};
use actors::supervisor::{NewTenant, TenantSummary};
use actors::tenant::directory::{NewOwner, Standing};
use actors::tenant::error::{FieldError, TenantError};
use actors::tenant::people::normalise_email;
use actors::tenant::platform::{CheckStanding, PlatformAnswer};
use actors::tenant::profile::{check_name, check_slug};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::id::{Id as _, TenantId};

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::app::App;
use crate::http::audit::busy;
use crate::http::extract::{At, Json, Paged, Query};
use crate::http::passwords::{Secret, check_new};
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

mod desk;

use desk::{Desk, Opened};

/// How old a tenant is before it has to have a history: its founding takes two records.
const FOUNDING_MS_MAX: u64 = 60_000;

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Get,
        "/v1/platform/tenants",
        "platform.list-tenants",
        Access::Tenant(ReadTenants::ROW),
        || web::get().to(list),
    )
    .summary("The tenants of this node, without their content")
    .query(&["limit", "cursor"])
    .answers_page::<PlatformTenantView>(),
    Route::new(
        Verb::Post,
        "/v1/platform/tenants",
        "platform.create-tenant",
        Access::Tenant(WriteTenants::ROW),
        || web::post().to(create),
    )
    .summary("Create a tenant, with its first owner if one is named")
    .body::<CreateTenantBody>(
        r#"{"slug":"initech","name":"Initech","plan":"pro","owner":{"email":"bill@initech.example","password":"correct horse battery"}}"#,
    )
    .idempotent()
    .answers::<PlatformTenantView>(201),
    Route::new(
        Verb::Get,
        "/v1/platform/tenants/{id}",
        "platform.read-tenant",
        Access::Tenant(ReadTenants::ROW),
        || web::get().to(read),
    )
    .summary("One tenant, without its content")
    .answers::<PlatformTenantView>(200),
    Route::new(
        Verb::Patch,
        "/v1/platform/tenants/{id}",
        "platform.change-plan",
        Access::Tenant(WriteTenants::ROW),
        || web::patch().to(change_plan),
    )
    .summary("Put a tenant on another plan")
    .body::<ChangePlanBody>(r#"{"plan":"pro"}"#)
    .answers::<PlatformTenantView>(200),
    Route::new(
        Verb::Post,
        "/v1/platform/tenants/{id}/suspend",
        "platform.suspend-tenant",
        Access::Tenant(WriteTenants::ROW),
        || web::post().to(suspend),
    )
    .summary("Stop serving a tenant; nothing is lost")
    .body::<SuspendBody>(r#"{"reason":"invoice 4711 is overdue"}"#)
    .answers::<PlatformTenantView>(200),
    Route::new(
        Verb::Post,
        "/v1/platform/tenants/{id}/resume",
        "platform.resume-tenant",
        Access::Tenant(WriteTenants::ROW),
        || web::post().to(resume),
    )
    .summary("Serve a suspended tenant again")
    .answers::<PlatformTenantView>(200),
    Route::new(
        Verb::Get,
        "/v1/platform/audit/verify",
        "platform.verify-audit",
        Access::Tenant(VerifyAudit::ROW),
        || web::get().to(verify),
    )
    .summary("Verify the audit log of one tenant, or of all, and the anchor over them")
    .query(&["tenant"])
    .answers::<NodeReport>(200),
];

/// A tenant as the platform sees it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlatformTenantView {
    /// Which tenant.
    #[schemars(with = "String")]
    pub id: TenantId,
    /// Its short name.
    pub slug: String,
    /// The name people see, as of its founding.
    pub name: String,
    /// Its plan.
    pub plan: String,
    /// Where its data is.
    pub region: String,
    /// Whether it is served.
    pub status: Standing,
    /// When it was made, RFC 3339 UTC.
    pub created_at: String,
}

impl From<&TenantSummary> for PlatformTenantView {
    fn from(summary: &TenantSummary) -> Self {
        Self {
            id: summary.id,
            slug: summary.slug.to_string(),
            name: summary.name.to_string(),
            plan: summary.plan.to_string(),
            region: summary.region.to_string(),
            status: summary.standing,
            created_at: rfc3339(summary.created_ms),
        }
    }
}

/// The first owner of a tenant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnerBody {
    /// The address they sign in with.
    pub email: String,
    /// 10 to 128 characters, not the address.
    pub password: Secret,
}

/// Makes a tenant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenantBody {
    /// The short name: 3 to 40 of a to z, digits and single inner hyphens.
    pub slug: String,
    /// The name people see.
    pub name: String,
    /// A plan of the plan table; the node's default if absent.
    #[serde(default)]
    pub plan: Option<String>,
    /// Its first owner; without one nobody can sign in yet.
    #[serde(default)]
    pub owner: Option<OwnerBody>,
}

/// Puts a tenant on another plan.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePlanBody {
    /// A plan of the plan table.
    pub plan: String,
}

/// Stops serving a tenant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuspendBody {
    /// Why, for the platform's audit log.
    pub reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Which {
    tenant: Option<String>,
}

impl CreateTenantBody {
    /// Everything wrong with it at once.
    fn check(&self) -> Result<(), Problem> {
        let mut checks = vec![check_slug("/slug", &self.slug), check_name("/name", &self.name)];
        if let Some(owner) = &self.owner {
            let message = |error: &dyn std::error::Error| error.to_string();
            let pointer = || "/owner/email".to_owned();
            checks.push(
                normalise_email(&owner.email)
                    .map(drop)
                    .map_err(|error| FieldError { pointer: pointer(), message: message(&error) }),
            );
            checks.push(check_new("/owner/password", &owner.password, &owner.email));
        }
        let errors: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() { Ok(()) } else { Err(Problem::new(Kind::INVALID).errors(errors)) }
    }
}

fn view(app: &App, tenant: TenantId) -> Result<Vec<u8>, Problem> {
    let summary = app.tenants.summary(tenant).ok_or_else(Problem::not_found)?;
    serde_json::to_vec(&PlatformTenantView::from(&*summary)).map_err(Problem::internal)
}

async fn list(
    app: web::Data<App>,
    allowed: Allowed<ReadTenants>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    let after = paging.cursor.as_deref().map(read_cursor).transpose()?;
    prove(allowed).await?;
    let all = app.tenants.list();
    let from = after.map_or(0, |after| all.partition_point(|summary| summary.id <= after));
    let shown = &all[from..all.len().min(from + paging.limit)];
    let is_last = from + shown.len() == all.len();
    let next = shown.last().filter(|_| !is_last);
    let mut page = Page { items: Vec::new(), next: next.map(|last| write_cursor(last.id)) };
    for summary in shown {
        let json = serde_json::to_vec(&PlatformTenantView::from(&**summary));
        page.items.push(json.map_err(Problem::internal)?.into());
    }
    Ok(answer::page(page))
}

fn write_cursor(last: TenantId) -> String {
    URL_SAFE_NO_PAD.encode(last.as_bytes())
}

fn read_cursor(text: &str) -> Result<TenantId, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    let bad = || Problem::invalid("query/cursor", "must be the `next_cursor` of a page");
    bytes.map(TenantId::from_bytes).ok_or_else(bad)
}

/// The directory answers without asking a tenant, so the session is proven here.
async fn prove<A: Action>(allowed: Allowed<A>) -> Result<(), Problem> {
    if allowed.tenant() != TenantId::PLATFORM {
        return Err(Problem::not_found());
    }
    allowed.query(CheckStanding::<A>::default()).await
}

async fn read(
    app: web::Data<App>,
    allowed: Allowed<ReadTenants>,
    At(tenant): At<TenantId>,
) -> Result<HttpResponse, Problem> {
    prove(allowed).await?;
    Ok(answer::bytes(StatusCode::OK, view(&app, tenant)?))
}

async fn create(
    request: HttpRequest,
    app: web::Data<App>,
    allowed: Allowed<WriteTenants>,
    Json(body): Json<CreateTenantBody>,
) -> Result<HttpResponse, Problem> {
    body.check()?;
    let desk = match Desk::open(&request, &app, allowed).await? {
        Opened::ToDo(desk) => desk,
        Opened::Done(reply) => return created(Answered { reply, replayed: true }),
    };
    let CreateTenantBody { slug, name, plan, owner } = body;
    let owner = match owner {
        Some(OwnerBody { email, password }) => {
            let password_phc = app.passwords.hash(&password).await?;
            Some(NewOwner { email, password_phc })
        }
        None => None,
    };
    let origin = desk.origin.clone();
    let new = NewTenant { slug: slug.clone(), name, plan, owner, origin };
    match app.tenants.create(new).await {
        Ok(tenant) => {
            let json = view(&app, tenant)?.into();
            let location = Some(format!("/v1/platform/tenants/{tenant}"));
            let draft = Draft::success("tenant.create", Named::new("tenant", tenant));
            let answer = PlatformAnswer { location, json };
            created(desk.done(draft.with("slug", slug), answer).await?)
        }
        Err(error) => {
            let draft = Draft::failed("tenant.create", Named::new("tenant", "-"));
            Err(desk.failed(draft.with("slug", slug), error).await)
        }
    }
}

fn created(answered: Answered<PlatformAnswer>) -> Result<HttpResponse, Problem> {
    let PlatformAnswer { location, json } = answered.reply;
    let mut response = answer::bytes(StatusCode::CREATED, json.into_vec());
    if let Some(location) = location {
        let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(answer::replayed(response, answered.replayed))
}

/// Does something to one tenant, writes it down either way, and answers with what the tenant is now.
async fn change(
    request: &HttpRequest,
    app: &App,
    allowed: Allowed<WriteTenants>,
    tenant: TenantId,
    (action, detail): (&'static str, Option<(&str, String)>),
    effect: impl AsyncFnOnce(Origin) -> Result<(), TenantError>,
) -> Result<HttpResponse, Problem> {
    let desk = match Desk::open(request, app, allowed).await? {
        Opened::ToDo(desk) => desk,
        Opened::Done(answer) => return Ok(answer::bytes(StatusCode::OK, answer.json.into_vec())),
    };
    let noted = |draft: Draft| match detail {
        Some((name, text)) => draft.with(name, text),
        None => draft,
    };
    let target = Named::new("tenant", tenant);
    match effect(desk.origin.clone()).await {
        Ok(()) => {
            let answer = PlatformAnswer { location: None, json: view(app, tenant)?.into() };
            let answered = desk.done(noted(Draft::success(action, target)), answer).await?;
            Ok(answer::bytes(StatusCode::OK, answered.reply.json.into_vec()))
        }
        Err(error) => Err(desk.failed(noted(Draft::failed(action, target)), error).await),
    }
}

async fn change_plan(
    request: HttpRequest,
    app: web::Data<App>,
    allowed: Allowed<WriteTenants>,
    At(tenant): At<TenantId>,
    Json(ChangePlanBody { plan }): Json<ChangePlanBody>,
) -> Result<HttpResponse, Problem> {
    if app.plans.get(&plan).is_none() {
        let known = app.plans.0.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(Problem::invalid("/plan", format!("no such plan; there are: {known}")));
    }
    let noted = ("tenant.plan_change", Some(("plan", plan.clone())));
    let tenants = app.tenants.clone();
    change(&request, &app, allowed, tenant, noted, async move |origin| {
        tenants.set_plan(tenant, &plan, origin).await
    })
    .await
}

async fn suspend(
    request: HttpRequest,
    app: web::Data<App>,
    allowed: Allowed<WriteTenants>,
    At(tenant): At<TenantId>,
    Json(SuspendBody { reason }): Json<SuspendBody>,
) -> Result<HttpResponse, Problem> {
    if reason.trim().is_empty() || reason.len() > TEXT_BYTES_MAX {
        let message = format!("must say why, in at most {TEXT_BYTES_MAX} bytes");
        return Err(Problem::invalid("/reason", message));
    }
    let noted = ("tenant.suspend", Some(("reason", reason)));
    let tenants = app.tenants.clone();
    change(&request, &app, allowed, tenant, noted, async move |_| tenants.suspend(tenant).await)
        .await
}

async fn resume(
    request: HttpRequest,
    app: web::Data<App>,
    allowed: Allowed<WriteTenants>,
    At(tenant): At<TenantId>,
) -> Result<HttpResponse, Problem> {
    let noted = ("tenant.resume", None);
    let tenants = app.tenants.clone();
    change(&request, &app, allowed, tenant, noted, async move |_| tenants.resume(tenant).await)
        .await
}

async fn verify(
    request: HttpRequest,
    app: web::Data<App>,
    allowed: Allowed<VerifyAudit>,
    Query(Which { tenant }): Query<Which>,
) -> Result<HttpResponse, Problem> {
    let desk = match Desk::open(&request, &app, allowed).await? {
        Opened::ToDo(desk) => desk,
        Opened::Done(answer) => return Ok(answer::bytes(StatusCode::OK, answer.json.into_vec())),
    };
    let known = known_tenants(&app);
    let (target, tenants) = match tenant {
        None => (Named::new("node", "-"), known),
        Some(text) => {
            let tenant = text.parse().ok().filter(|tenant| known.contains(tenant));
            let tenant: TenantId = tenant.ok_or_else(Problem::not_found)?;
            (Named::new("tenant", tenant), [tenant].into())
        }
    };
    let report = app.anchor.verify(tenants).await.map_err(busy)?;
    let bad = report.tenants.iter().filter(|tenant| !tenant.ok).count();
    let draft = Draft::success("audit.verify", target)
        .with("ok", report.ok)
        .with("tenants", report.tenants.len() as u64)
        .with("bad", bad as u64);
    let json = serde_json::to_vec(&report).map_err(Problem::internal)?.into();
    let answered = desk.done(draft, PlatformAnswer { location: None, json }).await?;
    Ok(answer::bytes(StatusCode::OK, answered.reply.json.into_vec()))
}

/// Every tenant with a history, and every tenant that should have one: a history that is gone whole
/// leaves no trace in the log.
pub(crate) fn known_tenants(app: &App) -> BTreeSet<TenantId> {
    let founded_before = app.env.now_ms().saturating_sub(FOUNDING_MS_MAX);
    let listed = app.tenants.list();
    let founded = listed.iter().filter(|summary| summary.created_ms < founded_before);
    let mut known = app.anchor.every_tenant();
    known.extend(founded.map(|summary| summary.id));
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: &str) -> CreateTenantBody {
        serde_json::from_str(json).expect("a body")
    }

    #[test]
    fn a_new_tenant_is_told_everything_that_is_wrong_at_once() {
        let bad = r#"{"slug":"X","name":" ","owner":{"email":"ann","password":"short"}}"#;
        let problem = body(bad).check().expect_err("four faults");
        let pointers: Vec<_> = problem.field_errors().iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/slug", "/name", "/owner/email", "/owner/password"]);
        assert!(body(r#"{"slug":"initech","name":"Initech"}"#).check().is_ok());
    }

    #[test]
    fn a_cursor_leads_back_to_the_tenant_it_was_made_from_and_no_other_text_is_one() {
        let tenant = TenantId::new(7, [3; 10]);
        assert_eq!(read_cursor(&write_cursor(tenant)).ok(), Some(tenant));
        for bad in ["", "!", "AAAA", "tn_00000000000000000000000000000000"] {
            assert!(read_cursor(bad).is_err(), "{bad}");
        }
    }
}
