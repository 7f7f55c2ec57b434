//! Oneself: who one is here, one's sessions, one's password. Nothing in this file can name anybody else.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::{Action as _, ReadOwnProfile, WriteOwnSessions};
use actors::rate::Class;
use actors::tenant::sessions::own::{
    ChangePassword, ListSessions, MeView, ReadMe, ReadOwnCredential, RecordPasswordFailure,
    RevokeOtherSessions, RevokeSession, SessionView,
};
use schemars::JsonSchema;
use serde::Deserialize;
use storage::id::SessionId;

use crate::http::allowed::{Allowed, limit_anonymous};
use crate::http::answer;
use crate::http::app::App;
use crate::http::auth::{TokensView, signed_in};
use crate::http::extract::{At, Json};
use crate::http::passwords::{Choice, Secret, Share, check_new, names_of};
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/v1/me", "me.read", Access::Tenant(ReadOwnProfile::ROW), || {
        web::get().to(read)
    })
    .summary("Who one is, and in which tenant")
    .answers::<MeView>(200),
    Route::new(
        Verb::Get,
        "/v1/me/sessions",
        "me.sessions",
        Access::Tenant(ReadOwnProfile::ROW),
        || web::get().to(sessions),
    )
    .summary("One's own sessions, all on one page")
    .answers_page::<SessionView>(),
    Route::new(
        Verb::Delete,
        "/v1/me/sessions",
        "me.revoke-others",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::delete().to(revoke_others),
    )
    .summary("End all of one's own sessions but this one")
    .answers_nothing(),
    Route::new(
        Verb::Delete,
        "/v1/me/sessions/{session}",
        "me.revoke",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::delete().to(revoke),
    )
    .summary("End one of one's own sessions")
    .answers_nothing(),
    Route::new(
        Verb::Patch,
        "/v1/me/password",
        "me.change-password",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::patch().to(change_password),
    )
    .summary("Change one's own password; the other sessions end, and this one gets new tokens")
    .body::<ChangePasswordBody>(
        r#"{"current_password":"correct horse battery","new_password":"another correct horse"}"#,
    )
    .answers::<TokensView>(200),
];

/// Changes the password.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePasswordBody {
    /// The password until now.
    pub current_password: Secret,
    /// The password from now on: 10 to 128 characters, and not easy to guess.
    pub new_password: Secret,
}

async fn read(allowed: Allowed<ReadOwnProfile>) -> Result<HttpResponse, Problem> {
    answer::json(StatusCode::OK, &allowed.query(ReadMe).await?)
}

async fn sessions(allowed: Allowed<ReadOwnProfile>) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListSessions).await?))
}

async fn revoke_others(allowed: Allowed<WriteOwnSessions>) -> Result<HttpResponse, Problem> {
    allowed.command(RevokeOtherSessions).await?;
    Ok(answer::no_content())
}

async fn revoke(
    allowed: Allowed<WriteOwnSessions>,
    At(session): At<SessionId>,
) -> Result<HttpResponse, Problem> {
    allowed.command(RevokeSession { session }).await?;
    Ok(answer::no_content())
}

async fn change_password(
    request: HttpRequest,
    app: web::Data<App>,
    asking: Allowed<WriteOwnSessions>,
    changing: Allowed<WriteOwnSessions>,
    Json(body): Json<ChangePasswordBody>,
) -> Result<HttpResponse, Problem> {
    // A stolen access token must not become a way to guess the password.
    let account = asking.account();
    limit_anonymous(&request, &app, Class::SignIn, Some(&account))?;
    let (email, current) = asking.query(ReadOwnCredential).await?;
    check_new("/new_password", &body.new_password, &email)
        .map_err(|error| Problem::new(Kind::INVALID).errors(vec![error]))?;
    let share = Share::Tenant(changing.tenant());
    let typed = &body.current_password;
    let is_right = app.passwords.verify(share.clone(), typed, current.clone()).await?;
    let Some(current_phc) = current.filter(|_| is_right) else {
        changing.command(RecordPasswordFailure).await?;
        return Err(Problem::invalid("/current_password", "is not the current password"));
    };
    let names = names_of(&app.tenants, changing.tenant());
    let (pointer, password) = ("/new_password", &body.new_password);
    let choice = Choice { pointer, password, email: &email, names: &names };
    let new_phc = app.passwords.hash(share, choice).await?;
    let opened = changing.command(ChangePassword { current_phc, new_phc }).await?.reply;
    signed_in(&app, StatusCode::OK, opened)
}
