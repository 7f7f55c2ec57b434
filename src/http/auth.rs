//! Signing up, in and out, and the pair of tokens that comes of it.
//!
//! An unknown tenant, an unknown address and a wrong password get the same bytes after the same work:
//! a look-up, a hash, and a durable note of the failure. Passwords and refresh tokens come in bodies
//! only, never in a URL.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::{Action as _, Carrier, Permit, Role, UserPrincipal, WriteOwnSessions};
use actors::rate::Class;
use actors::supervisor::NewTenant;
use actors::tenant::directory::{NewOwner, by_the_node};
use actors::tenant::error::{FieldError, TenantError};
use actors::tenant::factors::Method;
use actors::tenant::factors::passkeys::Assertion;
use actors::tenant::handle::TenantHandle;
use actors::tenant::people::normalise_email;
use actors::tenant::profile::{TenantView, check_name, check_slug};
use actors::tenant::sessions::challenge::{
    BeginSession, ChallengeOutcome, ChallengeToken, CheckChallenge, CompleteSession, SignedIn,
};
use actors::tenant::sessions::own::EndSession;
use actors::tenant::sessions::{
    Credential, OpenSession, Opened, ReadCredential, RecordSignInFailure, RefreshOutcome,
    RefreshSession, RefreshToken, SignInFailure,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::id::{TenantId, UserId};

use crate::http::allowed::{Allowed, limit_anonymous};
use crate::http::answer;
use crate::http::app::App;
use crate::http::cookies;
use crate::http::extract::Json;
use crate::http::mfa::Given;
use crate::http::passwords::{Choice, Secret, Share, check_new};
use crate::http::problem::{Kind, Problem};
use crate::http::request::{client_ip, origin};
use crate::http::routes::{Access, Route, Verb};
use crate::http::tokens::ACCESS_S;

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Post, "/v1/auth/sign-up", "auth.sign-up", Access::Public, || {
        web::post().to(sign_up)
    })
    .summary("Make a tenant and its first owner, and sign in")
    .rate(Class::SignUp)
    .body::<SignUpBody>(
        r#"{"tenant":{"slug":"acme","name":"Acme"},"email":"ann@example.org","password":"correct horse battery"}"#,
    )
    .answers::<TokensView>(201),
    Route::new(Verb::Post, "/v1/auth/sign-in", "auth.sign-in", Access::Public, || {
        web::post().to(sign_in)
    })
    .summary("Sign in; whoever has a second factor goes on with it at `/v1/auth/mfa`")
    .rate(Class::SignIn)
    .body::<SignInBody>(
        r#"{"tenant":"acme","email":"ann@example.org","password":"correct horse battery"}"#,
    )
    .answers::<SignInView>(200),
    Route::new(Verb::Post, "/v1/auth/mfa", "auth.mfa", Access::Public, || web::post().to(mfa))
        .summary("Complete a sign-in with a code of an authenticator, a recovery code, or a passkey")
        .rate(Class::SignIn)
        .body::<MfaBody>(r#"{"mfa_token":"bkm_AAAA","code":"123456"}"#)
        .answers::<TokensView>(200),
    Route::new(Verb::Post, "/v1/auth/refresh", "auth.refresh", Access::Public, || {
        web::post().to(refresh)
    })
    .summary("Exchange a refresh token for the next pair; an old one that comes back ends the session")
    .rate(Class::SignIn)
    .body::<RefreshBody>(r#"{"refresh_token":"bkr_AAAA"}"#)
    .answers::<TokensView>(200),
    Route::new(
        Verb::Post,
        "/v1/auth/sign-out",
        "auth.sign-out",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(sign_out),
    )
    .summary("End this session")
    .answers_nothing(),
    Route::new(Verb::Get, "/.well-known/jwks.json", "auth.jwks", Access::Public, || {
        web::get().to(jwks)
    })
    .summary("The public keys of access tokens (RFC 7517)")
    .answers::<JwksView>(200),
];

/// A tenant to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUpTenant {
    /// The short name: 3 to 40 of a to z, digits and single inner hyphens.
    pub slug: String,
    /// The name people see.
    pub name: String,
}

/// Signs up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUpBody {
    /// The tenant.
    pub tenant: SignUpTenant,
    /// The first owner's address.
    pub email: String,
    /// Their password: 10 to 128 characters, and not easy to guess.
    pub password: Secret,
}

/// Signs in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInBody {
    /// The tenant's short name; `platform` for platform administrators.
    pub tenant: String,
    /// The address.
    pub email: String,
    /// The password.
    pub password: Secret,
}

/// Completes a sign-in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MfaBody {
    /// What the sign-in was answered with.
    pub mfa_token: Secret,
    /// Six digits of an authenticator, or a recovery code.
    #[serde(default)]
    pub code: Option<Secret>,
    /// In the place of a code: the answer to `/v1/auth/mfa/passkey/options`.
    #[serde(default)]
    pub passkey: Option<Assertion>,
}

/// Refreshes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshBody {
    /// The newest refresh token of the session.
    pub refresh_token: Secret,
}

/// Who signed in.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SignedInView {
    /// Who.
    #[schemars(with = "String")]
    pub id: UserId,
    /// Their address.
    pub email: String,
    /// As what.
    pub role: Role,
}

/// A pair of tokens, and whose it is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TokensView {
    /// The tenant.
    pub tenant: TenantView,
    /// The person.
    pub user: SignedInView,
    /// For the `Authorization` header.
    pub access_token: String,
    /// For `/v1/auth/refresh`, once.
    pub refresh_token: String,
    /// How the access token is presented.
    pub token_type: &'static str,
    /// Seconds until the access token ends.
    pub expires_in: u64,
    /// True where everybody needs a second factor and this session has not seen one: until one is enrolled
    /// it is good for that alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mfa_enrolment_required: bool,
}

/// A sign-in that waits for its second factor.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MfaNeededView {
    /// Always true.
    pub mfa_required: bool,
    /// For `/v1/auth/mfa`, within five minutes. It opens nothing else.
    pub mfa_token: String,
    /// What it may be completed with.
    pub methods: Vec<Method>,
}

/// What a sign-in comes to.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum SignInView {
    /// A session.
    Tokens(Box<TokensView>),
    /// A wait for the second factor.
    MfaNeeded(MfaNeededView),
}

/// A JSON Web Key Set.
#[derive(Debug, Serialize, JsonSchema)]
pub struct JwksView {
    /// The keys, newest first.
    pub keys: Vec<serde_json::Value>,
}

impl TokensView {
    /// Makes the access token of an opened session.
    pub(crate) fn new(app: &App, opened: Opened) -> Self {
        let mfa_enrolment_required = opened.enrolment_required;
        let Opened { tenant, user, email, role, authz, session, refresh_token, .. } = opened;
        let person = UserPrincipal { user, session, role, authz, carrier: Carrier::Token };
        Self {
            access_token: app.tokens.issue(tenant.id, &person, app.env.now_ms()),
            tenant,
            user: SignedInView { id: user, email, role },
            refresh_token,
            token_type: "Bearer",
            expires_in: ACCESS_S,
            mfa_enrolment_required,
        }
    }
}

/// Answers with a session: its tokens, and the cookie for a browser.
///
/// # Errors
/// [`Kind::INTERNAL`] if the answer does not serialise.
pub(crate) fn signed_in(
    app: &App,
    status: StatusCode,
    opened: Opened,
) -> Result<HttpResponse, Problem> {
    let cookie = cookies::session(&opened);
    cookies::answer(status, &cookie, &TokensView::new(app, opened))
}

async fn sign_up(
    request: HttpRequest,
    app: web::Data<App>,
    Json(body): Json<SignUpBody>,
) -> Result<HttpResponse, Problem> {
    let account = body.email.trim().to_lowercase();
    limit_anonymous(&request, &app, Class::SignUp, Some(&account))?;
    if !app.config.signup.enabled {
        return Err(Problem::new(Kind::SIGN_UP_DISABLED));
    }
    let SignUpBody { tenant: SignUpTenant { slug, name }, email, password } = body;
    let email = check_sign_up(&slug, &name, &email, &password)?;
    // No hash for a name that somebody has; that it is taken is said where names are given.
    let owner = if app.tenants.is_founded(&slug) {
        None
    } else {
        let share = Share::address(client_ip(&request));
        let names = [slug.clone(), name.clone()];
        let choice =
            Choice { pointer: "/password", password: &password, email: &email, names: &names };
        let password_phc = app.passwords.hash(share, choice).await?;
        let is_to_verify = app.config.signup.verify_email;
        Some(NewOwner { email: email.clone(), password_phc, is_to_verify })
    };
    let new = NewTenant {
        slug,
        name,
        plan: Some(app.config.signup.plan.clone()),
        owner,
        origin: origin(&request),
    };
    let tenant = app.tenants.create(by_the_node("sign-up"), None, new).await?.reply.id;
    let door = app.tenants.find(tenant).await?;
    let credential = door.query(Permit::anonymous(tenant), ReadCredential { email }).await?;
    let credential = credential.ok_or(TenantError::BadCredentials)?;
    let opened = open(&request, &door, tenant, credential).await?;
    signed_in(&app, StatusCode::CREATED, opened)
}

/// Everything wrong with a sign-up at once, or the address in its normal form.
fn check_sign_up(
    slug: &str,
    name: &str,
    email: &str,
    password: &Secret,
) -> Result<String, Problem> {
    let normal = normalise_email(email)
        .map_err(|error| FieldError { pointer: "/email".to_owned(), message: error.to_string() });
    let checks = [
        check_slug("/tenant/slug", slug),
        check_name("/tenant/name", name),
        normal.clone().map(drop),
        check_new("/password", password, email),
    ];
    let errors: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
    match normal {
        Ok(normal) if errors.is_empty() => Ok(normal),
        _ => Err(Problem::new(Kind::INVALID).errors(errors)),
    }
}

async fn sign_in(
    request: HttpRequest,
    app: web::Data<App>,
    Json(body): Json<SignInBody>,
) -> Result<HttpResponse, Problem> {
    let SignInBody { tenant: slug, email, password } = body;
    let typed = normalise_email(&email).unwrap_or_else(|_| email.trim().to_lowercase());
    let account = format!("{slug} {typed}");
    limit_anonymous(&request, &app, Class::SignIn, None)?;

    // For a tenant that does not exist the platform does the same work, and notes the attempt.
    let known = app.tenants.by_slug(&slug);
    let tenant = known.unwrap_or(TenantId::PLATFORM);
    let door = app.tenants.find(tenant).await.map_err(vague)?;
    let query = ReadCredential { email };
    let found = door.query(Permit::anonymous(tenant), query).await.map_err(vague)?;
    let credential = found.filter(|_| known.is_some());
    let phc = credential.as_ref().map(|credential| credential.password_phc.clone());
    let check = || limit_anonymous(&request, &app, Class::SignIn, Some(&account));
    let place = (slug.as_str(), client_ip(&request));
    let is_right = app.passwords.verify_sign_in(place, check, &password, phc).await?;
    let failure = match credential {
        Some(credential) if is_right => {
            let (permit, begin) = (Permit::anonymous(tenant), BeginSession { credential });
            let signed_in = door.command(permit, origin(&request), None, begin).await?.reply;
            return match signed_in {
                SignedIn::Opened(opened) => self::signed_in(&app, StatusCode::OK, *opened),
                SignedIn::Challenged { mfa_token, methods } => {
                    let wait = MfaNeededView { mfa_required: true, mfa_token, methods };
                    answer::json(StatusCode::OK, &SignInView::MfaNeeded(wait))
                }
            };
        }
        Some(credential) => SignInFailure::WrongPassword(credential.user),
        None if known.is_some() => SignInFailure::UnknownEmail,
        None => SignInFailure::UnknownTenant,
    };
    let record = RecordSignInFailure { failure, account };
    door.command(Permit::anonymous(tenant), origin(&request), None, record).await?;
    Err(TenantError::BadCredentials.into())
}

pub(crate) async fn open(
    request: &HttpRequest,
    door: &TenantHandle,
    tenant: TenantId,
    credential: Credential,
) -> Result<Opened, TenantError> {
    let command = OpenSession { credential };
    let permit = Permit::anonymous(tenant);
    Ok(door.command(permit, origin(request), None, command).await?.reply)
}

/// An absent tenant is no answer to somebody who proved nothing.
pub(crate) fn vague(error: TenantError) -> Problem {
    match error {
        TenantError::NotFound => TenantError::BadCredentials.into(),
        error => error.into(),
    }
}

async fn mfa(
    request: HttpRequest,
    app: web::Data<App>,
    Json(MfaBody { mfa_token, code, passkey }): Json<MfaBody>,
) -> Result<HttpResponse, Problem> {
    let Given { shown, .. } = Given::needed(&app, code, passkey)?;
    let token = ChallengeToken::parse(mfa_token.text());
    limit_anonymous(&request, &app, Class::SignIn, None)?;
    let token = token.ok_or(TenantError::BadCredentials)?;
    let tenant = token.tenant;
    let door = app.tenants.find(tenant).await.map_err(vague)?;
    // Only who holds a real one spends the person's budget.
    let check = CheckChallenge { token: token.clone() };
    door.query(Permit::anonymous(tenant), check).await.map_err(vague)?;
    limit_anonymous(&request, &app, Class::SignIn, Some(&token.account()))?;
    let command = CompleteSession { token, shown };
    let answered = door.command(Permit::anonymous(tenant), origin(&request), None, command).await;
    match answered.map_err(vague)?.reply {
        ChallengeOutcome::Opened(opened) => signed_in(&app, StatusCode::OK, *opened),
        ChallengeOutcome::Refused => Err(TenantError::BadCredentials.into()),
    }
}

async fn refresh(
    request: HttpRequest,
    app: web::Data<App>,
    Json(body): Json<RefreshBody>,
) -> Result<HttpResponse, Problem> {
    let token = RefreshToken::parse(body.refresh_token.text());
    let account = token.as_ref().map(RefreshToken::account);
    limit_anonymous(&request, &app, Class::SignIn, account.as_deref())?;
    let token = token.ok_or(TenantError::BadCredentials)?;
    let tenant = token.tenant;
    let door = app.tenants.find(tenant).await.map_err(vague)?;
    let command = RefreshSession { token };
    let answered = door.command(Permit::anonymous(tenant), origin(&request), None, command).await;
    match answered.map_err(vague)?.reply {
        RefreshOutcome::Rotated(opened) => signed_in(&app, StatusCode::OK, *opened),
        RefreshOutcome::Reused => Err(TenantError::BadCredentials.into()),
    }
}

async fn sign_out(allowed: Allowed<WriteOwnSessions>) -> Result<HttpResponse, Problem> {
    allowed.command(EndSession).await?;
    let mut response = answer::no_content();
    cookies::clear(response.headers_mut());
    Ok(response)
}

async fn jwks(app: web::Data<App>) -> Result<HttpResponse, Problem> {
    let mut response = answer::json(StatusCode::OK, &app.tokens.jwks())?;
    // Shorter than a retired key goes on verifying, so that a cached set is never too old to matter.
    let caching = HeaderValue::from_static("public, max-age=300");
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_up_hears_of_everything_that_is_wrong_at_once() {
        let secret = |text: &str| Secret::new(text.to_owned());
        assert!(check_sign_up("x", "", "ann", &secret("short")).is_err());
        let normal = check_sign_up("acme", "Acme", " Ann@Example.org", &secret("correct horse"));
        assert_eq!(normal.ok().as_deref(), Some("ann@example.org"));
        assert!(check_sign_up("acme", "Acme", "ann", &secret("correct horse")).is_err());
    }

    #[test]
    fn only_an_absent_tenant_is_hidden_from_a_stranger() {
        assert_eq!(vague(TenantError::NotFound).kind(), Kind::BAD_CREDENTIALS);
        assert_eq!(vague(TenantError::Waking).kind(), Kind::TENANT_WAKING);
    }
}
