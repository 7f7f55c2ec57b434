//! Signing in with a token that an app got elsewhere. What else serves sign-ins by identity providers is here
//! as well: what their failures are answered with, and what is written down of them.
//!
//! An unknown tenant, an unknown provider and a token that is not believed for whatever reason get the same
//! bytes, after a durable note of the failure. Tokens come in bodies only.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::Permit;
use actors::quota::Quota;
use actors::rate::Class;
use actors::tenant::error::TenantError;
use actors::tenant::handle::TenantHandle;
use actors::tenant::identities::Vouched;
use actors::tenant::identities::providers::{FindProvider, Provider};
use actors::tenant::identities::sign_in::{
    RecordVouchFailure, SignInVouched, Unwanted, VouchedOutcome,
};
use actors::tenant::sessions::challenge::SignedIn;
use actors::tenant::sessions::{RecordSignInFailure, SignInFailure};
use schemars::JsonSchema;
use serde::Deserialize;
use storage::id::TenantId;

use crate::federation::Doubt;
use crate::http::answer;
use crate::http::app::App;
use crate::http::auth::{MfaNeededView, SignInView, signed_in, vague};
use crate::http::extract::{At, Json};
use crate::http::passwords::Secret;
use crate::http::problem::{Kind, Problem};
use crate::http::request::origin;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[Route::new(
    Verb::Post,
    "/v1/auth/external/{provider}",
    "auth.external",
    Access::Public,
    || web::post().to(external),
)
.summary("Sign in with a token of an identity provider, such as Firebase")
.rate(Class::SignIn)
.body::<ExternalBody>(r#"{"tenant":"acme","id_token":"eyJ.eyJ.AAAA"}"#)
.answers::<SignInView>(200)];

/// Signs in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalBody {
    /// The tenant's short name.
    pub tenant: String,
    /// What the identity provider gave.
    pub id_token: Secret,
}

/// What came of asking an identity provider, as an answer. Why something is not believed is not said.
pub(crate) fn problem(doubt: Doubt) -> Problem {
    match doubt {
        Doubt::Refused(_) => TenantError::BadCredentials.into(),
        Doubt::Unavailable { retry_after_s, .. } => {
            Problem::new(Kind::PROVIDER_UNAVAILABLE).retry_after(retry_after_s)
        }
    }
}

/// Why somebody whom a provider vouches for does not come in: they are told.
pub(crate) fn unwanted(why: Unwanted) -> Problem {
    match why {
        Unwanted::ProviderChanged => TenantError::BadCredentials.into(),
        Unwanted::NotLinked => Problem::new(Kind::IDENTITY_NOT_LINKED),
        Unwanted::Full { limit } => {
            TenantError::QuotaExceeded { quota: Quota::Members, limit }.into()
        }
        Unwanted::TrialEnded => TenantError::TrialEnded.into(),
        Unwanted::Domain
        | Unwanted::NoEmail
        | Unwanted::EmailUnverified
        | Unwanted::NotInvited
        | Unwanted::Removed
        | Unwanted::Unconfirmed
        | Unwanted::Role => Problem::new(Kind::IDENTITY_NOT_ADMITTED).with("reason", why.name()),
    }
}

/// A sign-in by a provider of one tenant.
pub(crate) struct Attempt<'a> {
    pub request: &'a HttpRequest,
    pub app: &'a App,
    pub door: &'a TenantHandle,
    pub tenant: TenantId,
    pub provider: &'a Provider,
}

impl Attempt<'_> {
    /// Writes down that nothing came of it; gives back what to answer.
    pub async fn fail(&self, doubt: Doubt) -> Problem {
        let (reason, outcome) = match doubt {
            Doubt::Refused(reason) => (reason, "refused"),
            Doubt::Unavailable { reason, .. } => (reason, "unavailable"),
        };
        match self.record(reason, outcome).await {
            Ok(()) => problem(doubt),
            Err(error) => vague(error),
        }
    }

    /// Writes down why nothing came of it.
    pub async fn record(
        &self,
        reason: &'static str,
        outcome: &'static str,
    ) -> Result<(), TenantError> {
        let factor = self.provider.kind.factor();
        self.app.federation.count(factor, outcome);
        let record = RecordVouchFailure { provider: self.provider.id, factor, reason };
        let permit = Permit::anonymous(self.tenant);
        self.door.command(permit, origin(self.request), None, record).await.map(drop)
    }

    /// Has the tenant say what a believed word comes to.
    pub async fn sign_in(&self, vouched: Vouched) -> Result<SignedIn, Problem> {
        let command = SignInVouched {
            provider: self.provider.id,
            provider_version: self.provider.version,
            vouched,
        };
        let permit = Permit::anonymous(self.tenant);
        let answered = self.door.command(permit, origin(self.request), None, command).await;
        let factor = self.provider.kind.factor();
        match answered.map_err(vague)?.reply {
            VouchedOutcome::SignedIn(signed_in) => {
                self.app.federation.count(factor, "signed-in");
                Ok(signed_in)
            }
            VouchedOutcome::Refused(why) => {
                self.app.federation.count(factor, "not-admitted");
                Err(unwanted(why))
            }
        }
    }
}

/// Notes an attempt at what is not there, where it can be noted.
async fn fail_unknown(
    request: &HttpRequest,
    door: &TenantHandle,
    failure: SignInFailure,
    account: String,
) -> Result<HttpResponse, Problem> {
    let record = RecordSignInFailure { failure, account };
    door.command(Permit::anonymous(door.tenant()), origin(request), None, record).await?;
    Err(TenantError::BadCredentials.into())
}

async fn external(
    request: HttpRequest,
    app: web::Data<App>,
    At(name): At<String>,
    Json(body): Json<ExternalBody>,
) -> Result<HttpResponse, Problem> {
    let account = format!("{} {name}", body.tenant);
    let known = app.tenants.by_slug(&body.tenant);
    let tenant = known.unwrap_or(TenantId::PLATFORM);
    let door = app.tenants.find(tenant).await.map_err(vague)?;
    if known.is_none() {
        return fail_unknown(&request, &door, SignInFailure::UnknownTenant, account).await;
    }
    let found = door.query(Permit::anonymous(tenant), FindProvider { name }).await;
    let provider = found.map_err(vague)?.filter(|provider| !provider.kind.redirects());
    let Some(provider) = provider else {
        return fail_unknown(&request, &door, SignInFailure::UnknownProvider, account).await;
    };
    let attempt =
        Attempt { request: &request, app: &app, door: &door, tenant, provider: &provider };
    let vouched = match app.federation.verify(tenant, &provider, body.id_token.text()).await {
        Ok(vouched) => vouched,
        Err(doubt) => return Err(attempt.fail(doubt).await),
    };
    match attempt.sign_in(vouched).await? {
        SignedIn::Opened(opened) => signed_in(&app, StatusCode::OK, *opened),
        SignedIn::Challenged { mfa_token, methods } => {
            let wait = MfaNeededView { mfa_required: true, mfa_token, methods };
            answer::json(StatusCode::OK, &SignInView::MfaNeeded(wait))
        }
    }
}
