//! Forms and their access lists.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::Answered;
use actors::permit::{Action as _, CreateForms, ManageForms, ReadForms, UpdateForms};
use actors::tenant::forms::commands::{ArchiveForm, CreateForm, UpdateForm};
use actors::tenant::forms::grants::{FormAclBody, FormAclView, ReadFormAcl, SetFormAcl};
use actors::tenant::forms::queries::{FormOrder, ListForms, ReadForm};
use actors::tenant::forms::{CreateFormBody, FormStatus, FormSummary, FormView, UpdateFormBody};
use serde::Deserialize;
use storage::id::FormId;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::extract::{At, IfMatch, Json, Paged, Query};
use crate::http::past::AS_OF;
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The header in which a tenant owner says why they read a restricted form without a grant.
const REASON: &str = "x-break-glass-reason";
/// The header, for the documents.
pub(crate) const REASON_HEADER: &[(&str, &str)] = &[(
    "X-Break-Glass-Reason",
    "Why a tenant owner without a grant reads a restricted form; kept in the audit log.",
)];

const SAMPLE: &str = r#"{"title":"Leave request","schema":{"type":"object","required":["days"],"properties":{"days":{"type":"integer","minimum":1}}},"approval":{"required":true}}"#;

/// The rows of forms.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Post, "/v1/forms", "forms.create", Access::Tenant(CreateForms::ROW), || {
        web::post().to(create)
    })
    .summary("Create a form")
    .body::<CreateFormBody>(SAMPLE)
    .answers::<FormView>(201)
    .idempotent(),
    Route::new(Verb::Get, "/v1/forms", "forms.list", Access::Tenant(ReadForms::ROW), || {
        web::get().to(list)
    })
    .summary("List forms")
    .answers_page::<FormSummary>()
    .query(&["limit", "cursor", "sort", "status", "q", AS_OF]),
    Route::new(Verb::Get, "/v1/forms/{id}", "forms.read", Access::Tenant(ReadForms::ROW), || {
        web::get().to(read)
    })
    .summary("Read a form")
    .answers::<FormView>(200)
    .query(&[AS_OF])
    .headers(REASON_HEADER),
    Route::new(
        Verb::Patch,
        "/v1/forms/{id}",
        "forms.update",
        Access::Tenant(UpdateForms::ROW),
        || web::patch().to(update),
    )
    .summary("Change a form's title, schema or approval")
    .body::<UpdateFormBody>(r#"{"title":"Leave request 2"}"#)
    .answers::<FormView>(200)
    .guarded(),
    Route::new(
        Verb::Delete,
        "/v1/forms/{id}",
        "forms.delete",
        Access::Tenant(ManageForms::ROW),
        || web::delete().to(delete),
    )
    .summary("Archive a form; its submissions stay")
    .answers_nothing()
    .guarded(),
    Route::new(
        Verb::Post,
        "/v1/forms/{id}/archive",
        "forms.archive",
        Access::Tenant(ManageForms::ROW),
        || web::post().to(archive),
    )
    .summary("Archive a form: it takes no new submissions and frees its place in the plan")
    .answers::<FormView>(200)
    .guarded(),
    Route::new(
        Verb::Get,
        "/v1/forms/{id}/acl",
        "forms.read_acl",
        Access::Tenant(ManageForms::ROW),
        || web::get().to(read_acl),
    )
    .summary("Read a form's access list")
    .answers::<FormAclView>(200),
    Route::new(
        Verb::Put,
        "/v1/forms/{id}/acl",
        "forms.set_acl",
        Access::Tenant(ManageForms::ROW),
        || web::put().to(set_acl),
    )
    .summary("Set a form's access list; an empty one opens the form to the tenant's roles")
    .body::<FormAclBody>(
        r#"{"grants":[{"principal":{"kind":"role","id":"owner"},"level":"OWNER"}]}"#,
    )
    .answers::<FormAclView>(200)
    .guarded(),
];

/// Why the glass is broken, if the caller says so. Text beyond ASCII is taken as UTF-8.
pub(crate) fn reason(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(REASON)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

async fn create(
    allowed: Allowed<CreateForms>,
    Json(body): Json<CreateFormBody>,
) -> Result<HttpResponse, Problem> {
    let Answered { reply, replayed } = allowed.command(CreateForm { body }).await?;
    let location = format!("/v1/forms/{}", reply.id);
    Ok(answer::created(Answered { reply: reply.document, replayed }, &location))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    status: Option<FormStatus>,
    q: Option<String>,
    sort: Option<String>,
}

async fn list(
    allowed: Allowed<ReadForms>,
    Query(query): Query<ListQuery>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    let (order, reverse) = match query.sort.as_deref() {
        Some(sort) => FormOrder::parse(sort)?,
        None => (FormOrder::default(), false),
    };
    let wanted =
        ListForms { status: query.status, title_contains: query.q, order, reverse, paging };
    Ok(allowed.look(wanted).await?.page())
}

async fn read(
    allowed: Allowed<ReadForms>,
    At(form): At<FormId>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let looked = allowed.look_into(ReadForm { form }, reason(&request)).await?;
    Ok(looked.document(&request))
}

async fn update(
    allowed: Allowed<UpdateForms>,
    At(form): At<FormId>,
    IfMatch(if_match): IfMatch,
    Json(body): Json<UpdateFormBody>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(UpdateForm { form, body, if_match }).await?))
}

async fn delete(
    allowed: Allowed<ManageForms>,
    At(form): At<FormId>,
    IfMatch(if_match): IfMatch,
) -> Result<HttpResponse, Problem> {
    allowed.command(ArchiveForm { form, if_match }).await?;
    Ok(answer::no_content())
}

async fn archive(
    allowed: Allowed<ManageForms>,
    At(form): At<FormId>,
    IfMatch(if_match): IfMatch,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(ArchiveForm { form, if_match }).await?))
}

async fn read_acl(
    allowed: Allowed<ManageForms>,
    At(form): At<FormId>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    Ok(answer::document(&request, allowed.query(ReadFormAcl { form }).await?))
}

async fn set_acl(
    allowed: Allowed<ManageForms>,
    At(form): At<FormId>,
    IfMatch(if_match): IfMatch,
    Json(body): Json<FormAclBody>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(SetFormAcl { form, body, if_match }).await?))
}
