//! Getting in by a link that was mailed: invitations, new passwords, proven addresses.
//!
//! Links come in bodies only, never in a URL, so no log and no `Referer` has one. Asking for a new password
//! costs and answers the same whether or not anybody has the address. A link that is wrong in any way gets
//! one answer.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::{Action as _, Permit, WriteOwnSessions};
use actors::rate::Class;
use actors::tenant::error::TenantError;
use actors::tenant::invites::{AcceptInvite, CheckInvite};
use actors::tenant::people::normalise_email;
use actors::tenant::recovery::links::{LinkView, ReadLink};
use actors::tenant::recovery::{
    CheckReset, RequestReset, RequestVerification, ResetPassword, VerifyEmail,
};
use actors::tenant::tickets::MailedToken;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::id::TenantId;

use crate::http::allowed::{Allowed, limit_anonymous};
use crate::http::answer;
use crate::http::app::App;
use crate::http::auth::{TokensView, open, signed_in, vague};
use crate::http::extract::Json;
use crate::http::passwords::{Choice, Secret, Share, check_new, names_of};
use crate::http::problem::{Kind, Problem};
use crate::http::request::{client_ip, origin};
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Post, "/v1/auth/password/forgot", "auth.forgot", Access::Public, || {
        web::post().to(forgot)
    })
    .summary(
        "Have a link for a new password mailed; the answer is the same if nobody has the address",
    )
    .rate(Class::Recover)
    .body::<ForgotBody>(r#"{"tenant":"acme","email":"ann@example.org"}"#)
    .answers::<AcceptedView>(202),
    Route::new(Verb::Post, "/v1/auth/password/reset", "auth.reset", Access::Public, || {
        web::post().to(reset)
    })
    .summary("Set a new password by a mailed link; all sessions end")
    .rate(Class::Recover)
    .body::<ResetBody>(r#"{"token":"bkt_AAAA","new_password":"another correct horse"}"#)
    .answers_nothing(),
    Route::new(Verb::Post, "/v1/auth/email/verify", "auth.verify-email", Access::Public, || {
        web::post().to(verify)
    })
    .summary("Prove by a mailed link that an address is one's own")
    .rate(Class::Recover)
    .body::<LinkBody>(r#"{"token":"bkt_AAAA"}"#)
    .answers_nothing(),
    Route::new(Verb::Post, "/v1/auth/invites/accept", "auth.accept-invite", Access::Public, || {
        web::post().to(accept)
    })
    .summary("Become a member by a mailed invitation, and sign in")
    .rate(Class::Recover)
    .body::<AcceptBody>(r#"{"token":"bkt_AAAA","password":"correct horse battery"}"#)
    .answers::<TokensView>(201),
    Route::new(Verb::Post, "/v1/auth/links/read", "auth.read-link", Access::Public, || {
        web::post().to(read_link)
    })
    .summary("Say what a mailed link is for, and of which tenant; it is not used up")
    .rate(Class::SignIn)
    .body::<LinkBody>(r#"{"token":"bkt_AAAA"}"#)
    .answers::<LinkView>(200),
    Route::new(
        Verb::Post,
        "/v1/me/email/verify",
        "me.verify-email",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(ask_to_verify),
    )
    .summary("Have a link mailed by which one proves one's address")
    .rate(Class::Recover)
    .answers::<AcceptedView>(202),
];

/// Asks for a link.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgotBody {
    /// The tenant's short name; `platform` for platform administrators.
    pub tenant: String,
    /// The address.
    pub email: String,
}

/// Sets a new password.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetBody {
    /// What stands behind the `#` of the mailed link.
    pub token: Secret,
    /// The new password: 10 to 128 characters, and not easy to guess.
    pub new_password: Secret,
}

/// Presents a link.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkBody {
    /// What stands behind the `#` of the mailed link.
    pub token: Secret,
}

/// Accepts an invitation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptBody {
    /// What stands behind the `#` of the mailed link.
    pub token: Secret,
    /// The password to sign in with from now on: 10 to 128 characters, and not easy to guess.
    pub password: Secret,
}

/// It will be done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AcceptedView {
    /// Always true: whether a mail goes out is for the mailbox to know.
    pub accepted: bool,
}

fn accepted() -> Result<HttpResponse, Problem> {
    answer::json(StatusCode::ACCEPTED, &AcceptedView { accepted: true })
}

async fn forgot(
    request: HttpRequest,
    app: web::Data<App>,
    Json(body): Json<ForgotBody>,
) -> Result<HttpResponse, Problem> {
    let ForgotBody { tenant: slug, email } = body;
    let typed = normalise_email(&email).unwrap_or_else(|_| email.trim().to_lowercase());
    let account = format!("{slug} {typed}");
    limit_anonymous(&request, &app, Class::Recover, Some(&account))?;
    // For a tenant that does not exist the platform does the same work, and notes the attempt.
    let known = app.tenants.by_slug(&slug);
    let tenant = known.unwrap_or(TenantId::PLATFORM);
    let door = app.tenants.find(tenant).await.map_err(vague)?;
    let command = RequestReset { email: known.map(|_| email), account };
    door.command(Permit::anonymous(tenant), origin(&request), None, command).await?;
    accepted()
}

/// A presented link, charged to its own budget of that class.
fn link(
    request: &HttpRequest,
    app: &App,
    class: Class,
    text: &Secret,
) -> Result<MailedToken, Problem> {
    let token = MailedToken::parse(text.text());
    let account = token.as_ref().map(MailedToken::account);
    limit_anonymous(request, app, class, account.as_deref())?;
    token.ok_or_else(|| TenantError::BadLink.into())
}

/// An absent tenant made no link.
fn no_link(error: TenantError) -> Problem {
    match error {
        TenantError::NotFound => TenantError::BadLink.into(),
        error => error.into(),
    }
}

async fn read_link(
    request: HttpRequest,
    app: web::Data<App>,
    Json(body): Json<LinkBody>,
) -> Result<HttpResponse, Problem> {
    let token = link(&request, &app, Class::SignIn, &body.token)?;
    let tenant = token.tenant;
    let door = app.tenants.find(tenant).await.map_err(no_link)?;
    let read = door.query(Permit::anonymous(tenant), ReadLink { token }).await.map_err(no_link)?;
    answer::json(StatusCode::OK, &read)
}

async fn reset(
    request: HttpRequest,
    app: web::Data<App>,
    Json(body): Json<ResetBody>,
) -> Result<HttpResponse, Problem> {
    let ResetBody { token, new_password } = body;
    let token = link(&request, &app, Class::Recover, &token)?;
    let tenant = token.tenant;
    let door = app.tenants.find(tenant).await.map_err(no_link)?;
    let check = CheckReset { token: token.clone() };
    let email = door.query(Permit::anonymous(tenant), check).await.map_err(no_link)?;
    check_new("/new_password", &new_password, &email)
        .map_err(|error| Problem::new(Kind::INVALID).errors(vec![error]))?;
    let share = Share::address(client_ip(&request));
    let (pointer, names) = ("/new_password", names_of(&app.tenants, tenant));
    let choice = Choice { pointer, password: &new_password, email: &email, names: &names };
    let password_phc = app.passwords.hash(share, choice).await?;
    let command = ResetPassword { token, password_phc };
    door.command(Permit::anonymous(tenant), origin(&request), None, command).await?;
    Ok(answer::no_content())
}

async fn verify(
    request: HttpRequest,
    app: web::Data<App>,
    Json(body): Json<LinkBody>,
) -> Result<HttpResponse, Problem> {
    let token = link(&request, &app, Class::Recover, &body.token)?;
    let tenant = token.tenant;
    let door = app.tenants.find(tenant).await.map_err(no_link)?;
    let command = VerifyEmail { token };
    let done = door.command(Permit::anonymous(tenant), origin(&request), None, command).await;
    done.map_err(no_link)?;
    Ok(answer::no_content())
}

async fn accept(
    request: HttpRequest,
    app: web::Data<App>,
    Json(body): Json<AcceptBody>,
) -> Result<HttpResponse, Problem> {
    let AcceptBody { token, password } = body;
    let token = link(&request, &app, Class::Recover, &token)?;
    let tenant = token.tenant;
    let door = app.tenants.find(tenant).await.map_err(no_link)?;
    let check = CheckInvite { token: token.clone() };
    let email = door.query(Permit::anonymous(tenant), check).await.map_err(no_link)?;
    check_new("/password", &password, &email)
        .map_err(|error| Problem::new(Kind::INVALID).errors(vec![error]))?;
    let share = Share::address(client_ip(&request));
    let (pointer, names) = ("/password", names_of(&app.tenants, tenant));
    let choice = Choice { pointer, password: &password, email: &email, names: &names };
    let password_phc = app.passwords.hash(share, choice).await?;
    let command = AcceptInvite { token, password_phc };
    let answered = door.command(Permit::anonymous(tenant), origin(&request), None, command).await;
    let credential = answered.map_err(no_link)?.reply;
    let opened = open(&request, &door, tenant, credential).await?;
    signed_in(&app, StatusCode::CREATED, opened)
}

async fn ask_to_verify(allowed: Allowed<WriteOwnSessions>) -> Result<HttpResponse, Problem> {
    allowed.command(RequestVerification).await?;
    accepted()
}
