//! What a tenant uses of its plan.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use actors::permit::{self, Action as _};
use actors::tenant::usage::{ReadUsage, UsageView};

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[Route::new(
    Verb::Get,
    "/v1/usage",
    "usage.read",
    Access::Tenant(permit::ReadUsage::ROW),
    || web::get().to(read),
)
.summary("What is used of the plan, and what it gives")
.answers::<UsageView>(200)];

async fn read(allowed: Allowed<permit::ReadUsage>) -> Result<HttpResponse, Problem> {
    answer::json(StatusCode::OK, &allowed.query(ReadUsage).await?)
}
