//! Where webhooks arrive: raw bytes and signature headers, handed to the tenant they are for.
//!
//! The edge believes nothing here: the tenant verifies, finds repetitions and stores, and only then
//! is the sender answered. Whatever there is not (tenant, integration, a switched-off one, a suspended
//! tenant) looks the same from outside.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::Permit;
use actors::tenant::error::TenantError;
use actors::tenant::integrations::events::{ReceiveWebhook, Received};
use actors::webhook::inbox::{DeliveryEnded, Outcome};
use actors::webhook::scheme::Headers;
use schemars::JsonSchema;
use serde::Serialize;
use storage::id::{IntegrationId, TenantId};

use crate::http::answer;
use crate::http::app::App;
use crate::http::extract::{At, RawBody};
use crate::http::problem::{Kind, Problem};
use crate::http::request::origin;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[Route::new(
    Verb::Post,
    "/v1/hooks/{tenant}/{integration}",
    "hooks.receive",
    Access::Hook,
    || web::post().to(receive),
)
.summary("Deliver a webhook, signed in the scheme of the integration's source")
.headers(&[
    ("Stripe-Signature", "Stripe: `t=<Unix seconds>,v1=<hex>`."),
    ("X-Razorpay-Signature", "Razorpay: hexadecimal HMAC-SHA-256 of the body."),
    ("X-Razorpay-Event-Id", "Razorpay: finds repetitions."),
    ("X-Hub-Signature-256", "GitHub: `sha256=<hex>`."),
    ("X-GitHub-Delivery", "GitHub: finds repetitions."),
    ("X-GitHub-Event", "GitHub: the kind of event."),
    ("X-Slack-Signature", "Slack: `v0=<hex>`."),
    ("X-Slack-Request-Timestamp", "Slack: Unix seconds, within five minutes of now."),
    ("Webhook-Signature", "Standard Webhooks: `v1,<base64>`, several between spaces."),
    ("Webhook-Id", "Standard Webhooks: finds repetitions."),
    ("Webhook-Timestamp", "Standard Webhooks: Unix seconds, within five minutes of now."),
])
.body::<serde_json::Value>("{}")
.answers::<ReceivedView>(200)];

/// A delivery was verified and is kept. A repeated delivery answers the same.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReceivedView {
    /// Always true.
    pub received: bool,
    /// Slack's challenge at set-up, given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
}

/// The tenant and the integration that a path names, as far as it can name any.
type Address = Option<(TenantId, IntegrationId)>;

async fn receive(
    app: web::Data<App>,
    request: HttpRequest,
    At((slug, integration)): At<(String, String)>,
    body: Result<RawBody, Problem>,
) -> Result<HttpResponse, Problem> {
    let tell = |integration, source, outcome| {
        app.inbox.tell(DeliveryEnded { integration, source, outcome });
    };
    // Before anything is looked up, so that it does not depend on what there is.
    let body = body.inspect_err(|problem| {
        if problem.kind() == Kind::TOO_LARGE {
            tell(None, None, Outcome::TooLarge);
        }
    })?;
    let address: Address = app.tenants.by_slug(&slug).zip(integration.parse().ok());
    let Some((tenant, integration)) = address else {
        tell(None, None, Outcome::Unaddressed);
        return Err(Problem::not_found());
    };
    match deliver(&app, &request, tenant, integration, body).await {
        Ok(received) => {
            let outcome = if received.duplicate { Outcome::Duplicate } else { Outcome::Accepted };
            tell(address, Some(received.source), outcome);
            let view = ReceivedView { received: true, challenge: received.challenge };
            answer::json(StatusCode::OK, &view)
        }
        Err(error) => {
            if let Some(outcome) = outcome(&error) {
                tell(address, None, outcome);
            }
            Err(problem(error))
        }
    }
}

async fn deliver(
    app: &App,
    request: &HttpRequest,
    tenant: TenantId,
    integration: IntegrationId,
    RawBody(body): RawBody,
) -> Result<Received, TenantError> {
    // Held until the tenant answered. People of the tenant do not queue behind its senders.
    let _place = app.inbox.admit(tenant).ok_or(TenantError::Busy)?;
    let pairs = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let command = ReceiveWebhook {
        integration,
        headers: Headers::from_pairs(pairs),
        body: body.to_vec(),
        inbox: app.inbox.clone(),
    };
    let handle = app.tenants.find(tenant).await?;
    let answered = handle.command(Permit::sender(tenant), origin(request), None, command).await?;
    Ok(answered.reply)
}

/// How a delivery that was not stored is counted. One that was not believed is counted by the tenant,
/// which alone knows why.
fn outcome(error: &TenantError) -> Option<Outcome> {
    match error {
        TenantError::BadSignature => None,
        TenantError::NotFound | TenantError::Suspended | TenantError::Sealed => {
            Some(Outcome::Unaddressed)
        }
        TenantError::Busy => Some(Outcome::Shed),
        _ => Some(Outcome::Unstored),
    }
}

/// What a sender is told. Whatever of ours failed is 503, because then every provider tries again;
/// repetitions are found, so trying again is safe even when the outcome is unknown.
fn problem(error: TenantError) -> Problem {
    match error {
        TenantError::Suspended | TenantError::Sealed => Problem::not_found(),
        TenantError::TimedOut
        | TenantError::Panicked
        | TenantError::Store(_)
        | TenantError::Value(_) => Problem::new(Kind::OVERLOADED).cause(error),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_ours_asks_the_sender_to_come_again() {
        for error in [TenantError::TimedOut, TenantError::Panicked, TenantError::DiskFull] {
            assert_eq!(problem(error).kind().status, StatusCode::SERVICE_UNAVAILABLE);
        }
    }

    #[test]
    fn what_takes_no_deliveries_looks_absent() {
        for error in [TenantError::NotFound, TenantError::Suspended, TenantError::Sealed] {
            assert_eq!(outcome(&error), Some(Outcome::Unaddressed));
            assert_eq!(problem(error).kind(), Kind::NOT_FOUND);
        }
    }

    #[test]
    fn a_wrong_signature_is_told_once_by_the_tenant_and_answers_401() {
        assert_eq!(outcome(&TenantError::BadSignature), None);
        assert_eq!(problem(TenantError::BadSignature).kind(), Kind::WEBHOOK_SIGNATURE);
    }
}
