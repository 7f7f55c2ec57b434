//! One's own identities at identity providers: to link one, to look at them, to remove one. Nothing in this file
//! can name anybody else's.
//!
//! An identity is another way to sign in, so whoever links one gives their password again, if they have one:
//! neither a stolen token nor a forgotten open browser is enough.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::{Action as _, Permit, ReadOwnProfile, WriteOwnSessions};
use actors::rate::Class;
use actors::tenant::cx::Command as _;
use actors::tenant::factors::own::{CheckFresh, RecordWrongPassword};
use actors::tenant::identities::flow::BeginLinking;
use actors::tenant::identities::links::{
    IdentityView, LinkIdentity, ListIdentities, UnlinkIdentity,
};
use actors::tenant::identities::providers::{FindProvider, Provider};
use actors::tenant::platform::CheckStanding;
use actors::tenant::sessions::own::ReadOwnCredential;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::id::IdentityId;

use crate::http::allowed::{Allowed, limit_anonymous};
use crate::http::answer;
use crate::http::app::App;
use crate::http::cookies;
use crate::http::external;
use crate::http::extract::{At, Json};
use crate::http::oidc::{self, Browser};
use crate::http::passwords::{Secret, Share};
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Get,
        "/v1/me/identities",
        "identities.list",
        Access::Tenant(ReadOwnProfile::ROW),
        || web::get().to(list),
    )
    .summary("One's own identities at identity providers, all on one page")
    .answers_page::<IdentityView>(),
    Route::new(
        Verb::Post,
        "/v1/me/identities/{identity}",
        "identities.link",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(link),
    )
    .summary("Link an identity of the provider that is named: with a token of it, or by going to `start_path` in the same browser")
    .body::<LinkBody>(r#"{"password":"correct horse battery","return_to":"/"}"#)
    .answers::<LinkView>(200),
    Route::new(
        Verb::Delete,
        "/v1/me/identities/{identity}",
        "identities.unlink",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::delete().to(unlink),
    )
    .summary("Remove one of one's own identities")
    .answers_nothing(),
];

/// Links an identity.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkBody {
    /// One's password, if one has one.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A token of the provider, where apps bring them.
    #[serde(default)]
    pub id_token: Option<Secret>,
    /// Where one is led in the end, where one is sent to the provider: a path here.
    #[serde(default)]
    pub return_to: Option<String>,
}

/// What linking comes to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LinkView {
    /// The identity that was linked; null if it is linked once one comes back from the provider.
    pub identity: Option<IdentityView>,
    /// Where to go for that, in the same browser and within ten minutes.
    pub start_path: Option<String>,
}

async fn list(allowed: Allowed<ReadOwnProfile>) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListIdentities).await?))
}

async fn unlink(
    allowed: Allowed<WriteOwnSessions>,
    At(identity): At<IdentityId>,
) -> Result<HttpResponse, Problem> {
    allowed.command(UnlinkIdentity { identity }).await?;
    Ok(answer::no_content())
}

async fn link(
    request: HttpRequest,
    app: web::Data<App>,
    asking: Allowed<WriteOwnSessions>,
    linking: Allowed<WriteOwnSessions>,
    At(name): At<String>,
    Json(body): Json<LinkBody>,
) -> Result<HttpResponse, Problem> {
    let tenant = asking.tenant();
    // Before anything is said of providers.
    asking.ask(CheckStanding::<WriteOwnSessions>::default()).await?;
    let (_, current) = asking.ask(ReadOwnCredential).await?;
    let door = app.tenants.find(tenant).await?;
    let found = door.query(Permit::anonymous(tenant), FindProvider { name }).await?;
    let provider = found.ok_or_else(Problem::not_found)?;
    limit_anonymous(&request, &app, Class::SignIn, Some(&asking.account()))?;
    if current.is_none() {
        asking.ask(CheckFresh).await?;
    }
    if let Some(phc) = current {
        let needed = || Problem::invalid("/password", "is needed");
        let typed = body.password.as_ref().ok_or_else(needed)?;
        if !app.passwords.verify(Share::Tenant(tenant), typed, Some(phc)).await? {
            let action = LinkIdentity::NAME;
            asking.command(RecordWrongPassword { action }).await?;
            return Err(Problem::invalid("/password", "is not the current password"));
        }
    }
    if provider.kind.redirects() {
        return send_away(&request, &app, linking, &provider, body).await;
    }
    let needed = || Problem::invalid("/id_token", "is needed: this provider's apps bring a token");
    let token = body.id_token.as_ref().ok_or_else(needed)?;
    let vouched = app.federation.verify(tenant, &provider, token.text()).await;
    let attempt = external::Attempt {
        request: &request,
        app: &app,
        door: &door,
        tenant,
        provider: &provider,
    };
    let vouched = match vouched {
        Ok(vouched) => vouched,
        Err(crate::federation::Doubt::Refused(reason)) => {
            attempt.record(reason, "refused").await?;
            return Err(Problem::invalid("/id_token", "is not a valid token of this provider"));
        }
        Err(doubt) => return Err(attempt.fail(doubt).await),
    };
    let (provider, provider_version) = (provider.id, provider.version);
    let command = LinkIdentity { provider, provider_version, vouched };
    let identity = linking.command(command).await?.reply;
    answer::json(StatusCode::OK, &LinkView { identity: Some(identity), start_path: None })
}

/// Begins to link an identity of a provider that people are sent to.
async fn send_away(
    request: &HttpRequest,
    app: &App,
    linking: Allowed<WriteOwnSessions>,
    provider: &Provider,
    body: LinkBody,
) -> Result<HttpResponse, Problem> {
    let return_to = oidc::return_to("/return_to", body.return_to)?;
    let browser = Browser::of(request, &app.env)?;
    let begin = BeginLinking(oidc::beginning(app, provider, &browser, return_to));
    let begun = linking.query(begin).await?;
    let start_path = format!("/v1/auth/oidc/{}/start?link={}", provider.name, begun.state);
    let view = LinkView { identity: None, start_path: Some(start_path) };
    cookies::answer(StatusCode::OK, &browser.cookie(), &view)
}
