//! What is written down of a request before it reaches its handler: refusals of privileged capabilities, and each
//! use of a support session.

use actix_web::dev::ServiceRequest;
use actors::audit::entry::Named;
use actors::permit::{Capability, Grant, ReadOwnProfile};
use actors::tenant::platform::CheckStanding;

use crate::http::app::App;
use crate::http::problem::{Kind, Problem};
use crate::http::request::RequestContext;
use crate::http::support;

/// Has the tenant check that the credential still stands, and write down that a privileged capability
/// was refused; says what to answer. Whose rights changed is told so, not that they are forbidden.
pub(super) async fn refusal(
    app: &App,
    request: &ServiceRequest,
    context: &RequestContext,
    grant: &Grant,
    capability: &'static Capability,
) -> Problem {
    if let Some(support) = grant.support()
        && let Err(problem) = support::check_admin(app, support).await
    {
        return problem;
    }
    let origin = context.origin(request.headers());
    let target = target(context, request.path());
    let recorded = match app.tenants.find(grant.tenant()).await {
        Ok(tenant) if capability.privileged => {
            tenant.record_refusal(grant, origin, capability, target).await
        }
        // What is no person's was proven for this very request.
        Ok(_) if grant.person().is_none() => Ok(()),
        Ok(tenant) => match grant.permit(grant.tenant()) {
            Ok(permit) => tenant.query(permit, CheckStanding::<ReadOwnProfile>::default()).await,
            Err(denied) => return Problem::internal(denied),
        },
        Err(error) => Err(error),
    };
    match recorded {
        Ok(()) => Problem::new(Kind::FORBIDDEN).with("action", capability.name),
        // Not on record, so not answered as if it were: the token is stale, or the tenant is away.
        Err(error) => error.into(),
    }
}

/// Nothing is shown to support before the tenant's own log says so, and nothing to who runs the platform no more.
pub(super) async fn support_use(
    app: &App,
    request: &ServiceRequest,
    context: &RequestContext,
    grant: &Grant,
) -> Result<(), Problem> {
    if let Some(support) = grant.support() {
        support::check_admin(app, support).await?;
    }
    let (origin, about) = (context.origin(request.headers()), target(context, request.path()));
    let tenant = app.tenants.find(grant.tenant()).await?;
    Ok(tenant.record_support_use(grant, origin, context.route.id, about).await?)
}

/// What a refused request was about: the record in its path, or else the kind of resource.
fn target(context: &RequestContext, path: &str) -> Named {
    const KINDS: [(&str, &str); 15] = [
        ("ip_", "identity-provider"),
        ("il_", "identity"),
        ("ss_", "support"),
        ("fm_", "form"),
        ("sb_", "submission"),
        ("us_", "user"),
        ("tm_", "team"),
        ("ak_", "api-key"),
        ("iv_", "invite"),
        ("in_", "integration"),
        ("tn_", "tenant"),
        ("se_", "session"),
        ("ev_", "event"),
        ("rs_", "restore"),
        ("ex_", "export"),
    ];
    let texts = context.params.of(path);
    let id = texts[..context.params.len()].last().filter(|text| text.len() <= 40);
    let known = id.and_then(|id| {
        KINDS.iter().find(|(prefix, _)| id.starts_with(prefix)).map(|kind| (kind.1, id))
    });
    match known {
        Some((kind, id)) => Named::new(kind, id),
        None => Named::new("route", context.route.id),
    }
}
