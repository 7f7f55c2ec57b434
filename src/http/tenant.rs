//! The tenant itself, to its own people. Which tenant that is, the token says and nothing else.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::{Action as _, ReadTenant, TransferTenant, UpdateTenant};
use actors::tenant::members::TransferOwnership;
use actors::tenant::people::MemberView;
use actors::tenant::profile::{ReadProfile, TenantView, UpdateProfile};
use schemars::JsonSchema;
use serde::Deserialize;
use storage::id::UserId;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::extract::{IfMatch, Json};
use crate::http::past::AS_OF;
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/v1/tenant", "tenant.read", Access::Tenant(ReadTenant::ROW), || {
        web::get().to(read)
    })
    .summary("The tenant's name, plan and region")
    .query(&[AS_OF])
    .answers::<TenantView>(200),
    Route::new(
        Verb::Patch,
        "/v1/tenant",
        "tenant.update",
        Access::Tenant(UpdateTenant::ROW),
        || web::patch().to(update),
    )
    .summary("Change whether everybody needs a second factor and whether support has to be approved; owners: the tenant's name as well")
    .body::<UpdateTenantBody>(r#"{"mfa_required":false}"#)
    .guarded()
    .answers::<TenantView>(200),
    Route::new(
        Verb::Post,
        "/v1/tenant/transfer",
        "tenant.transfer",
        Access::Tenant(TransferTenant::ROW),
        || web::post().to(transfer),
    )
    .summary("Make somebody else the owner; the owner who asks becomes an administrator")
    .body::<TransferBody>(r#"{"to":"us_0123456789abcdef0123456789abcdef"}"#)
    .answers::<MemberView>(200),
];

/// Hands the tenant over.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferBody {
    /// Which of the tenant's people is to be its owner.
    #[schemars(with = "String")]
    pub to: UserId,
}

/// Changes the tenant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTenantBody {
    /// The name people see. Owners only.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether everybody needs a second factor. It counts from the next request on; only owners switch
    /// it off.
    #[serde(default)]
    pub mfa_required: Option<bool>,
    /// Whether somebody of the tenant has to approve each support session; only owners switch it off.
    #[serde(default)]
    pub support_approval: Option<bool>,
}

async fn read(request: HttpRequest, allowed: Allowed<ReadTenant>) -> Result<HttpResponse, Problem> {
    Ok(allowed.look(ReadProfile).await?.document(&request))
}

async fn update(
    allowed: Allowed<UpdateTenant>,
    IfMatch(if_match): IfMatch,
    Json(body): Json<UpdateTenantBody>,
) -> Result<HttpResponse, Problem> {
    let UpdateTenantBody { name, mfa_required, support_approval } = body;
    let command = UpdateProfile { name, mfa_required, support_approval, if_match };
    Ok(answer::updated(allowed.command(command).await?))
}

async fn transfer(
    allowed: Allowed<TransferTenant>,
    Json(TransferBody { to }): Json<TransferBody>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(TransferOwnership { to }).await?))
}
