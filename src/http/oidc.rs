//! Signing in by an OpenID provider: people are sent there, and come back with a code.
//!
//! What comes back is good once, for ten minutes, and only in the browser that was sent: it holds a random value
//! in a cookie of its own. Where it is led in the end is a path of this host, never another one. The tenant is
//! named when it begins, by `tenant` or by the host; after that the state says it.
//!
//! Refuses: to say why a state, a code or a token is not believed.

use std::time::Duration;

use actix_web::cookie::Cookie;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use actors::env::Env;
use actors::limits::AUTHORIZATION_MS;
use actors::permit::Permit;
use actors::rate::Class;
use actors::tenant::error::TenantError;
use actors::tenant::factors::Method;
use actors::tenant::handle::TenantHandle;
use actors::tenant::identities::flow::{
    Authorization, BeginAuthorization, BrowserBinding, PeekLinking, StateToken, TakeAuthorization,
};
use actors::tenant::identities::links::EndLinking;
use actors::tenant::identities::providers::{FindProvider, Provider};
use actors::tenant::sessions::challenge::SignedIn;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use storage::id::TenantId;
use url::Url;

use crate::federation::Doubt;
use crate::http::account::SIGN_IN;
use crate::http::allowed::host_slug;
use crate::http::answer;
use crate::http::app::App;
use crate::http::auth::vague;
use crate::http::cookies;
use crate::http::external::{self, Attempt};
use crate::http::extract::{At, Query, parse_pairs};
use crate::http::problem::{Kind, Problem};
use crate::http::request::origin;
use crate::http::routes::{Access, Route, Verb};

/// The cookie that binds a sign-in under way to its browser.
const BROWSER: &str = "__Host-bulkhead-oidc";
/// Longest path that people are led to in the end, in bytes.
const RETURN_TO_BYTES_MAX: usize = 1_024;
/// Longest name of an error that a provider gives, in bytes.
const ERROR_BYTES_MAX: usize = 64;

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Get,
        "/v1/auth/oidc/{provider}/start",
        "auth.oidc-start",
        Access::Public,
        || web::get().to(start_in_browser),
    )
    .summary("Go to an identity provider to sign in there, or to link an identity")
    .rate(Class::SignIn)
    .query(&["tenant", "return_to", "link"])
    .answers_see_other(),
    Route::new(
        Verb::Get,
        "/v1/auth/oidc/{provider}/callback",
        "auth.oidc-callback",
        Access::Public,
        || web::get().to(callback_in_browser),
    )
    .summary("Where an identity provider sends people back to")
    .rate(Class::SignIn)
    .query(&["state", "code", "iss", "error"])
    .any_query()
    .answers_see_other(),
];

/// How a sign-in begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartQuery {
    tenant: Option<String>,
    return_to: Option<String>,
    link: Option<String>,
}

/// What a browser holds while it is away.
pub(crate) struct Browser {
    /// The random value.
    pub binding: BrowserBinding,
}

impl Browser {
    /// The browser's own value if it has one, so that it can be away several times at once; else a new one.
    pub fn of(request: &HttpRequest, env: &Env) -> Result<Self, Problem> {
        let binding = bound(request)?.unwrap_or_else(|| BrowserBinding(env.random()));
        Ok(Self { binding })
    }

    /// The cookie that keeps it.
    pub fn cookie(&self) -> Cookie<'static> {
        let value = URL_SAFE_NO_PAD.encode(self.binding.0);
        cookies::host_cookie(BROWSER, value, Duration::from_millis(AUTHORIZATION_MS))
    }
}

/// What the browser holds, if it holds anything that can be it.
fn bound(request: &HttpRequest) -> Result<Option<BrowserBinding>, Problem> {
    let text = cookies::presented(request.headers(), BROWSER)?;
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(BrowserBinding))
}

/// Where somebody is led in the end: a path of this host. What a browser could take for another host is not one.
pub(crate) fn return_to(pointer: &str, given: Option<String>) -> Result<String, Problem> {
    let Some(path) = given else { return Ok("/".to_owned()) };
    let is_fit = path.starts_with('/')
        && path.len() <= RETURN_TO_BYTES_MAX
        && path.bytes().all(|byte| byte.is_ascii_graphic());
    let message = "must be a path of this host: it begins with one slash and has no backslash, `//`, `.` or `..` in it";
    if is_fit && leads_as_written(&path) {
        Ok(path)
    } else {
        Err(Problem::invalid(pointer, message))
    }
}

/// Whether a browser goes to just that path of this host, and not to one of those that lead on to other hosts.
fn leads_as_written(path: &str) -> bool {
    let only_path = path.split(['?', '#']).next().unwrap_or_default();
    let Ok(here) = Url::parse("http://here/") else { return false };
    let Ok(there) = here.join(path) else { return false };
    let decoded = percent_decode_str(only_path).decode_utf8_lossy();
    there.origin() == here.origin()
        && there.path() == only_path
        && !decoded.contains("//")
        && !decoded.contains('\\')
        && !decoded.starts_with("/v1/auth/")
        && !decoded.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn see_other(location: &str) -> Result<HttpResponse, Problem> {
    let location = HeaderValue::from_str(location).map_err(Problem::internal)?;
    let mut response =
        HttpResponse::with_body(StatusCode::SEE_OTHER, actix_web::body::BoxBody::new(()));
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The door of a tenant that is named by somebody who proved nothing; absent and nameless are alike.
async fn door_of(app: &App, tenant: Option<TenantId>) -> Result<TenantHandle, Problem> {
    let tenant = tenant.filter(|tenant| *tenant != TenantId::PLATFORM);
    Ok(app.tenants.find(tenant.ok_or_else(Problem::not_found)?).await?)
}

async fn find(door: &TenantHandle, name: String) -> Result<Option<Provider>, TenantError> {
    let found = door.query(Permit::anonymous(door.tenant()), FindProvider { name }).await?;
    Ok(found.filter(|provider| provider.kind.redirects()))
}

async fn start_in_browser(
    request: HttpRequest,
    app: web::Data<App>,
    At(name): At<String>,
    Query(query): Query<StartQuery>,
) -> Result<HttpResponse, Problem> {
    let mut wanted = Wanted { provider: Some(name.clone()), ..Wanted::default() };
    let answered = start(request.clone(), app, name, query, &mut wanted).await;
    wanted.shown(&request, answered)
}

async fn callback_in_browser(
    request: HttpRequest,
    app: web::Data<App>,
    At(name): At<String>,
) -> Result<HttpResponse, Problem> {
    let mut wanted = Wanted::default();
    let answered = callback(request.clone(), app, name, &mut wanted).await;
    wanted.shown(&request, answered)
}

/// What somebody wanted, as far as it is known when it fails: so that they need not say it again.
#[derive(Default)]
struct Wanted {
    tenant: Option<String>,
    provider: Option<String>,
    /// A path of this host, checked.
    return_to: Option<String>,
}

impl Wanted {
    /// Whoever looks at pages hears of a problem on the page to sign in at. Their budget is theirs alone to keep.
    fn shown(
        self,
        request: &HttpRequest,
        answered: Result<HttpResponse, Problem>,
    ) -> Result<HttpResponse, Problem> {
        let problem = match answered {
            Err(problem) if answer::wants_page(request) => problem,
            answered => return answered,
        };
        if problem.kind() == Kind::RATE_LIMITED {
            return Err(problem);
        }
        let reason = Some(reason_of(&problem).to_owned()).filter(|reason| !reason.is_empty());
        let told = [
            ("problem", Some(problem.kind().code.to_owned())),
            ("reason", reason),
            ("tenant", self.tenant),
            ("provider", self.provider),
            ("return_to", self.return_to),
        ];
        let told: Vec<_> =
            told.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let told = serde_urlencoded::to_string(told).map_err(Problem::internal)?;
        see_other(&format!("{SIGN_IN}?{told}"))
    }
}

/// The name that says more of a problem than its kind, if it has one.
pub(crate) fn reason_of(problem: &Problem) -> &str {
    let member = ["reason", "provider_error"].into_iter().find_map(|name| problem.member(name));
    member.and_then(|name| name.as_str()).unwrap_or_default()
}

async fn start(
    request: HttpRequest,
    app: web::Data<App>,
    name: String,
    query: StartQuery,
    wanted: &mut Wanted,
) -> Result<HttpResponse, Problem> {
    if let Some(state) = query.link {
        return start_linking(&request, &app, name, &state).await;
    }
    let host = host_slug(&app, &request);
    wanted.tenant = query.tenant.clone().or_else(|| host.clone());
    let named = query.tenant.as_deref().map(|slug| app.tenants.by_slug(slug));
    let hosted = host.map(|slug| app.tenants.by_slug(&slug));
    let tenant = match (named, hosted) {
        (Some(named), Some(hosted)) if named != hosted => None,
        (named, hosted) => named.or(hosted).flatten(),
    };
    let is_named = query.return_to.is_some();
    let return_to = return_to("query/return_to", query.return_to)?;
    wanted.return_to = is_named.then(|| return_to.clone());
    let door = door_of(&app, tenant).await?;
    let provider = find(&door, name).await?.ok_or_else(Problem::not_found)?;
    let tenant = door.tenant();
    let attempt =
        Attempt { request: &request, app: &app, door: &door, tenant, provider: &provider };
    // A provider that is down has nothing written down but that.
    let found = match app.federation.prepare(tenant, &provider).await {
        Ok(found) => found,
        Err(doubt) => return Err(attempt.fail(doubt).await),
    };
    let browser = Browser::of(&request, &app.env)?;
    let begin = beginning(&app, &provider, &browser, return_to);
    let begun = door.query(Permit::anonymous(tenant), begin).await?;
    let url = app.federation.authorization_url(&found, &provider, &begun);
    let mut response = see_other(&url.map_err(external::problem)?)?;
    cookies::set(response.headers_mut(), &browser.cookie());
    Ok(response)
}

/// What begins at a provider in a browser.
pub(crate) fn beginning(
    app: &App,
    provider: &Provider,
    browser: &Browser,
    return_to: String,
) -> BeginAuthorization {
    BeginAuthorization {
        provider: provider.id,
        provider_version: provider.version,
        browser: browser.binding.clone(),
        return_to,
        code: app.env.random(),
    }
}

/// Sends somebody away who began to link an identity, in this browser.
async fn start_linking(
    request: &HttpRequest,
    app: &App,
    name: String,
    state: &str,
) -> Result<HttpResponse, Problem> {
    let bad = || Problem::from(TenantError::BadCredentials);
    let state = StateToken::parse(state).ok_or_else(bad)?;
    let browser = bound(request)?.ok_or_else(bad)?;
    let door = door_of(app, Some(state.tenant)).await.map_err(|_| bad())?;
    let query = PeekLinking { state, browser, provider: name };
    let peeked = door.query(Permit::anonymous(door.tenant()), query).await.map_err(vague)?;
    let (provider, begun) = peeked.ok_or_else(bad)?;
    let found = app.federation.prepare(door.tenant(), &provider).await;
    let found = found.map_err(external::problem)?;
    let url = app.federation.authorization_url(&found, &provider, &begun);
    see_other(&url.map_err(external::problem)?)
}

/// What a provider sends people back with. Parameters that are not known are no fault (RFC 6749 §4.1.2).
#[derive(Default)]
struct Returned {
    state: Option<String>,
    code: Option<String>,
    issuer: Option<String>,
    error: Option<String>,
}

impl Returned {
    fn read(query: &str) -> Result<Self, Problem> {
        let mut returned = Self::default();
        for (name, value) in parse_pairs(query)? {
            match name.as_str() {
                "state" => returned.state = Some(value),
                "code" => returned.code = Some(value),
                "iss" => returned.issuer = Some(value),
                "error" => returned.error = Some(value),
                _ => {}
            }
        }
        Ok(returned)
    }
}

async fn callback(
    request: HttpRequest,
    app: web::Data<App>,
    name: String,
    wanted: &mut Wanted,
) -> Result<HttpResponse, Problem> {
    let bad = || Problem::from(TenantError::BadCredentials);
    if let Some((slug, name)) = name.split_once('.') {
        (wanted.tenant, wanted.provider) = (Some(slug.to_owned()), Some(name.to_owned()));
    }
    let returned = Returned::read(request.query_string())?;
    let state = returned.state.as_deref().and_then(StateToken::parse).ok_or_else(bad)?;
    // The place is one tenant's: what was meant for another's has nothing to do here.
    let (slug, name) = name.split_once('.').ok_or_else(bad)?;
    if app.tenants.by_slug(slug) != Some(state.tenant) {
        return Err(bad());
    }
    let name = name.to_owned();
    let door = door_of(&app, Some(state.tenant))
        .await
        .map_err(|problem| if problem.kind() == Kind::NOT_FOUND { bad() } else { problem })?;
    let tenant = door.tenant();
    let provider = find(&door, name.clone()).await.map_err(vague)?.ok_or_else(bad)?;
    let attempt =
        Attempt { request: &request, app: &app, door: &door, tenant, provider: &provider };
    let taken = match bound(&request)? {
        None => None,
        Some(browser) => {
            let command = TakeAuthorization { state, browser, provider: name };
            let permit = Permit::anonymous(tenant);
            let answered = door.command(permit, origin(&request), None, command).await;
            answered.map_err(vague)?.reply
        }
    };
    wanted.return_to = taken.as_ref().map(|begun| begun.return_to.clone());
    let Some(begun) = taken.filter(|begun| begun.provider_version == provider.version) else {
        return Err(attempt.fail(Doubt::Refused("state")).await);
    };
    let vouched = match redeem(&attempt, &returned, &begun).await {
        Ok(vouched) => vouched,
        Err(Redeemed::Declined(error)) => {
            attempt.record("declined", "refused").await.map_err(vague)?;
            return Err(Problem::new(Kind::SIGN_IN_DECLINED).with("provider_error", error));
        }
        Err(Redeemed::Doubted(doubt)) => return Err(attempt.fail(doubt).await),
    };
    if let Some(linking) = begun.linking {
        let (provider, provider_version) = (provider.id, provider.version);
        let command = EndLinking { linking, provider, provider_version, vouched };
        let permit = Permit::anonymous(tenant);
        door.command(permit, origin(&request), None, command).await.map_err(vague)?;
        return see_other(&begun.return_to);
    }
    arrive(&begun.return_to, attempt.sign_in(vouched).await?)
}

/// Leads somebody to where they wanted to go; or first to where they show their second factor, with what that
/// takes behind the `#`, which no browser sends anywhere.
fn arrive(return_to: &str, signed_in: SignedIn) -> Result<HttpResponse, Problem> {
    match signed_in {
        SignedIn::Opened(opened) => {
            let mut response = see_other(return_to)?;
            cookies::set(response.headers_mut(), &cookies::session(&opened));
            let gone = cookies::host_cookie(BROWSER, String::new(), Duration::ZERO);
            cookies::set(response.headers_mut(), &gone);
            Ok(response)
        }
        SignedIn::Challenged { mfa_token, methods } => {
            let name = |method: &Method| serde_json::to_value(method).ok();
            let methods: Vec<_> = methods.iter().filter_map(name).collect();
            let methods: Vec<_> = methods.iter().filter_map(|name| name.as_str()).collect();
            let handed = [
                ("mfa_token", mfa_token.as_str()),
                ("methods", &methods.join(",")),
                ("return_to", return_to),
            ];
            let handed = serde_urlencoded::to_string(handed).map_err(Problem::internal)?;
            see_other(&format!("{SIGN_IN}#{handed}"))
        }
    }
}

/// Why a return brought nothing.
enum Redeemed {
    /// The provider said no, in its words.
    Declined(String),
    /// It is not believed, or the provider is away.
    Doubted(Doubt),
}

async fn redeem(
    attempt: &Attempt<'_>,
    returned: &Returned,
    begun: &Authorization,
) -> Result<actors::tenant::identities::Vouched, Redeemed> {
    let Attempt { app, tenant, provider, .. } = attempt;
    let answerer = returned.issuer.as_deref();
    let checked = app.federation.check_answerer(*tenant, provider, answerer).await;
    checked.map_err(Redeemed::Doubted)?;
    if let Some(error) = &returned.error {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let is_name = (1..=ERROR_BYTES_MAX).contains(&error.len()) && error.bytes().all(is_word);
        let error = if is_name { error.as_str() } else { "other" };
        return Err(Redeemed::Declined(error.to_owned()));
    }
    let code = returned.code.as_deref().ok_or(Redeemed::Doubted(Doubt::Refused("code")))?;
    let redeemed = app.federation.redeem(*tenant, provider, begun, code).await;
    redeemed.map_err(Redeemed::Doubted)
}
