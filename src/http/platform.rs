//! The platform's own routes: which tenants there are, whether they are served, and whether their
//! audit logs hold. A platform administrator's token is for the platform's compartment, which is the
//! only tenant it reaches; what is inside any other tenant these routes cannot see.
//!
//! Each act is one record of the platform's compartment: what it changes there, the audit entry in the
//! administrator's name, and the answer for its idempotency key. Nothing is done outside that record
//! but what repeating the request completes.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use actors::audit::verify::NodeReport;
use actors::call::{Answered, Page};
use actors::env::rfc3339;
use actors::limits::TEXT_BYTES_MAX;
use actors::permit::{Action, ReadTenants, VerifyAudit, WriteTenants};
use actors::supervisor::{NewTenant, TenantSummary};
use actors::tenant::directory::{NewOwner, Standing};
use actors::tenant::error::FieldError;
use actors::tenant::people::normalise_email;
use actors::tenant::platform::{CheckStanding, RecordVerification};
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
use crate::http::passwords::{Choice, Secret, Share, check_new};
use crate::http::problem::{Kind, Problem};
use crate::http::request::idempotency;
use crate::http::routes::{Access, Route, Verb};

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
    /// 10 to 128 characters, not the address, and not easy to guess.
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

fn shown(status: StatusCode, summary: &TenantSummary) -> Result<HttpResponse, Problem> {
    answer::json(status, &PlatformTenantView::from(summary))
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
    let summary = app.tenants.summary(tenant).ok_or_else(Problem::not_found)?;
    shown(StatusCode::OK, &summary)
}

async fn create(
    request: HttpRequest,
    app: web::Data<App>,
    (before, allowed): (Allowed<WriteTenants>, Allowed<WriteTenants>),
    Json(body): Json<CreateTenantBody>,
) -> Result<HttpResponse, Problem> {
    body.check()?;
    let key = idempotency(&request, &allowed.account())?;
    let CreateTenantBody { slug, name, plan, owner } = body;
    let owner = match owner {
        // No hash for what cannot be; that it cannot is said, and written down, by the directory.
        Some(_) if is_refused(&app, &slug, plan.as_deref()) => None,
        Some(OwnerBody { email, password }) => {
            prove(before).await?;
            let share = Share::Tenant(allowed.tenant());
            let (pointer, names) = ("/owner/password", [slug.clone(), name.clone()]);
            let choice = Choice { pointer, password: &password, email: &email, names: &names };
            let password_phc = app.passwords.hash(share, choice).await?;
            Some(NewOwner { email, password_phc, is_to_verify: false })
        }
        None => None,
    };
    let new = NewTenant { slug, name, plan, owner, origin: allowed.origin() };
    let answered = app.tenants.create(allowed.into_permit(), key, new).await?;
    let location = format!("/v1/platform/tenants/{}", answered.reply.id);
    let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
    let mut response = shown(StatusCode::CREATED, &answered.reply)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(answer::replayed(response, answered.replayed))
}

/// Whether no tenant can come of this any more: one has that name, or nobody has and there is no such
/// plan. A name that was reserved and left behind is not refused: it may get its owner now.
fn is_refused(app: &App, slug: &str, plan: Option<&str>) -> bool {
    let no_plan = || plan.is_some_and(|plan| app.plans.get(plan).is_none());
    app.tenants.is_founded(slug) || (app.tenants.by_slug(slug).is_none() && no_plan())
}

async fn change_plan(
    app: web::Data<App>,
    allowed: Allowed<WriteTenants>,
    At(tenant): At<TenantId>,
    Json(ChangePlanBody { plan }): Json<ChangePlanBody>,
) -> Result<HttpResponse, Problem> {
    let origin = allowed.origin();
    changed(app.tenants.set_plan(allowed.into_permit(), origin, None, tenant, plan).await?)
}

async fn suspend(
    app: web::Data<App>,
    allowed: Allowed<WriteTenants>,
    At(tenant): At<TenantId>,
    Json(SuspendBody { reason }): Json<SuspendBody>,
) -> Result<HttpResponse, Problem> {
    if reason.trim().is_empty() || reason.len() > TEXT_BYTES_MAX {
        let message = format!("must say why, in at most {TEXT_BYTES_MAX} bytes");
        return Err(Problem::invalid("/reason", message));
    }
    let origin = allowed.origin();
    changed(app.tenants.suspend(allowed.into_permit(), origin, None, tenant, Some(reason)).await?)
}

async fn resume(
    app: web::Data<App>,
    allowed: Allowed<WriteTenants>,
    At(tenant): At<TenantId>,
) -> Result<HttpResponse, Problem> {
    let origin = allowed.origin();
    changed(app.tenants.resume(allowed.into_permit(), origin, None, tenant).await?)
}

fn changed(answered: Answered<Arc<TenantSummary>>) -> Result<HttpResponse, Problem> {
    shown(StatusCode::OK, &answered.reply)
}

/// Two checks for two questions: one before the work, and one for the record of how it ended.
async fn verify(
    app: web::Data<App>,
    (before, after): (Allowed<VerifyAudit>, Allowed<VerifyAudit>),
    Query(Which { tenant }): Query<Which>,
) -> Result<HttpResponse, Problem> {
    prove(before).await?;
    let known = known_tenants(&app);
    let (tenant, tenants) = match tenant {
        None => (None, known),
        Some(text) => {
            let tenant = text.parse().ok().filter(|tenant| known.contains(tenant));
            let tenant: TenantId = tenant.ok_or_else(Problem::not_found)?;
            (Some(tenant), [tenant].into())
        }
    };
    let report = app.anchor.verify(tenants).await.map_err(busy)?;
    let bad = report.tenants.iter().filter(|tenant| !tenant.ok).count() as u64;
    let (ok, tenants) = (report.ok, report.tenants.len() as u64);
    after.command(RecordVerification { tenant, ok, tenants, bad }).await?;
    answer::json(StatusCode::OK, &report)
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
