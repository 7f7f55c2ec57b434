//! Passkeys: one's own, and signing in with one (WebAuthn). What a browser gives and takes goes through as it
//! is: `PublicKeyCredential.parseCreationOptionsFromJSON`, `parseRequestOptionsFromJSON` and `toJSON`.
//!
//! Whom they are made for is said by the configuration that says where the node is reached, see
//! [`relying_party`]. Whatever is wrong with a passkey that signs in, the answer is the same.

use actix_web::http::{StatusCode, Uri};
use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::{Action as _, Permit, ReadOwnProfile, WriteOwnSessions};
use actors::rate::Class;
use actors::tenant::cx::Command as _;
use actors::tenant::error::TenantError;
use actors::tenant::factors::own::Checked;
use actors::tenant::factors::passkeys::own::{
    AddPasskey, AskOwnPasskey, BeginPasskey, Enrolled, Enrolment, ListPasskeys, RemovePasskey,
};
use actors::tenant::factors::passkeys::{
    Assertion, Fault, NewCredential, PasskeyView, Presented, RelyingParty,
};
use actors::tenant::sessions::challenge::{AskPasskey, ChallengeOutcome, ChallengeToken};
use actors::tenant::sessions::passkey::{AskAnyPasskey, OpenByPasskey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::id::TenantId;

use crate::config::Http;
use crate::http::allowed::{Allowed, limit_anonymous};
use crate::http::answer;
use crate::http::app::App;
use crate::http::auth::{TokensView, signed_in, vague};
use crate::http::cookies;
use crate::http::extract::{At, Json};
use crate::http::mfa::{Given, ProvenBody, prove, wrong_factor};
use crate::http::passwords::Secret;
use crate::http::problem::Problem;
use crate::http::request::origin;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Get,
        "/v1/me/passkeys",
        "passkeys.list",
        Access::Tenant(ReadOwnProfile::ROW),
        || web::get().to(list),
    )
    .summary("One's own passkeys, all on one page")
    .answers_page::<PasskeyView>(),
    Route::new(
        Verb::Post,
        "/v1/me/passkeys/options",
        "passkeys.begin",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(begin),
    )
    .summary("Begin to enrol a passkey; who has a second factor already shows it as well")
    .body::<BeginPasskeyBody>(r#"{"password":"correct horse battery"}"#)
    .answers::<OptionsView>(200),
    Route::new(
        Verb::Post,
        "/v1/me/passkeys",
        "passkeys.add",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(add),
    )
    .summary("Enrol a passkey; with the first second factor the other sessions end")
    .body::<AddPasskeyBody>(
        r#"{"name":"Laptop","credential":{"id":"AAAA","type":"public-key","response":{"clientDataJSON":"AAAA","attestationObject":"AAAA"}}}"#,
    )
    .answers::<EnrolledView>(201),
    Route::new(
        Verb::Delete,
        "/v1/me/passkeys/{passkey}",
        "passkeys.remove",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::delete().to(remove),
    )
    .summary("Remove a passkey; with the last second factor the recovery codes go as well")
    .body::<ProvenBody>(r#"{"password":"correct horse battery","code":"123456"}"#)
    .answers_nothing(),
    Route::new(
        Verb::Post,
        "/v1/me/mfa/passkey/options",
        "mfa.passkey-options",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(ask_own),
    )
    .summary("What to ask one's own passkey, to show it where a second factor is needed")
    .answers::<OptionsView>(200),
    Route::new(
        Verb::Post,
        "/v1/auth/mfa/passkey/options",
        "auth.mfa-passkey-options",
        Access::Public,
        || web::post().to(ask_second),
    )
    .summary("What to ask a passkey that completes a sign-in at `/v1/auth/mfa`")
    .rate(Class::SignIn)
    .body::<AskBody>(r#"{"mfa_token":"bkm_AAAA"}"#)
    .answers::<OptionsView>(200),
    Route::new(
        Verb::Post,
        "/v1/auth/passkey/options",
        "auth.passkey-options",
        Access::Public,
        || web::post().to(ask_any),
    )
    .summary("What to ask a passkey that signs in by itself")
    .rate(Class::SignIn)
    .body::<AskAnyBody>(r#"{"tenant":"acme"}"#)
    .answers::<OptionsView>(200),
    Route::new(Verb::Post, "/v1/auth/passkey", "auth.passkey", Access::Public, || {
        web::post().to(sign_in)
    })
    .summary("Sign in by a passkey alone, which asks for a PIN, a finger or a face")
    .rate(Class::SignIn)
    .body::<PasskeySignInBody>(
        r#"{"tenant":"acme","credential":{"id":"AAAA","type":"public-key","response":{"clientDataJSON":"AAAA","authenticatorData":"AAAA","signature":"AAAA"}}}"#,
    )
    .answers::<TokensView>(200),
];

/// Begins to enrol a passkey.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginPasskeyBody {
    /// One's password; who has none leaves it out, and has to have signed in within the last ten minutes.
    #[serde(default)]
    pub password: Option<Secret>,
    /// If there is a second factor already: a code of the authenticator, or a recovery code.
    #[serde(default)]
    pub code: Option<Secret>,
    /// In the place of a code: the answer to `/v1/me/mfa/passkey/options`.
    #[serde(default)]
    pub passkey: Option<Assertion>,
}

/// Ends an enrolment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPasskeyBody {
    /// What one calls it.
    pub name: String,
    /// What `navigator.credentials.create` gave.
    pub credential: NewCredential,
}

/// Asks for a passkey that completes a sign-in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskBody {
    /// What the sign-in was answered with.
    pub mfa_token: Secret,
}

/// Asks for a passkey that signs in by itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskAnyBody {
    /// The tenant's short name; `platform` for platform administrators.
    pub tenant: String,
}

/// Signs in by passkey.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasskeySignInBody {
    /// The tenant's short name; `platform` for platform administrators.
    pub tenant: String,
    /// What `navigator.credentials.get` gave.
    pub credential: Assertion,
}

/// What a browser is asked.
#[derive(Serialize, JsonSchema)]
pub struct OptionsView {
    /// For `parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON` (WebAuthn Level 3). Good once, for
    /// five minutes.
    #[serde(rename = "publicKey")]
    pub public_key: Value,
}

/// What is shown when a passkey was enrolled.
#[derive(Serialize, JsonSchema)]
pub struct EnrolledView {
    /// The passkey.
    pub passkey: PasskeyView,
    /// With the first second factor: codes that are good once each; they are not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_codes: Option<Vec<String>>,
    /// New tokens of this session. With the first second factor those from before are good no more.
    #[serde(flatten)]
    pub tokens: TokensView,
}

/// Whom passkeys are made for: the base domain, so that they work at every tenant's own host; without one,
/// the host that clients call; without a name at all, the machine itself.
pub(crate) fn relying_party(http: &Http) -> RelyingParty {
    let public = http.public_url.as_deref().and_then(|url| url.parse::<Uri>().ok());
    let named =
        public.as_ref().and_then(|url| Some((url.scheme_str()?, url.host()?.to_lowercase())));
    let port = match public.as_ref().and_then(|url| Some((url.scheme_str()?, url.port_u16()?))) {
        None | Some(("https", 443) | ("http", 80)) => String::new(),
        Some((_, port)) => format!(":{port}"),
    };
    let own = named.as_ref().map(|(scheme, host)| format!("{scheme}://{host}{port}"));
    let host = named.as_ref().map(|(_, host)| host.as_str()).filter(|host| is_name(host));
    let scheme = named.as_ref().map_or("https", |(scheme, _)| *scheme);
    let (id, tenants) = match http.base_domain.as_deref() {
        Some(base) => {
            let base = base.to_lowercase();
            let tenants = (format!("{scheme}://"), format!(".{base}{port}"));
            (base, Some(tenants))
        }
        None => (host.unwrap_or("localhost").to_owned(), None),
    };
    let is_below = |host: &&str| *host == id || host.ends_with(&format!(".{id}"));
    let origins = host.filter(is_below).and(own).into_iter().collect();
    RelyingParty { is_local: id == "localhost", id, origins, tenants }
}

/// Whether browsers take a host for a relying party: addresses are none.
fn is_name(host: &str) -> bool {
    !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err()
}

fn options(public_key: Value) -> Result<HttpResponse, Problem> {
    answer::json(StatusCode::OK, &OptionsView { public_key })
}

/// What is said of a new passkey that is not taken.
fn refused(fault: Fault) -> Problem {
    let why = match fault {
        Fault::Unreadable => {
            "is not what a browser gives, has a key of another kind than ES256 and RS256, or too long an id"
        }
        Fault::Kind => "is the use of a passkey, not a new one",
        Fault::Challenge | Fault::Unknown => {
            "does not answer the newest options, or is enrolled already; begin again"
        }
        Fault::Origin => {
            "was made at an origin that is not this node's or this tenant's, or in a frame"
        }
        Fault::Party => "was made for another relying party",
        Fault::NotVerified => "was made without anybody being present",
        Fault::Signature | Fault::Counter => "is signed wrongly",
    };
    Problem::invalid("/credential", why)
}

async fn list(allowed: Allowed<ReadOwnProfile>) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListPasskeys).await?))
}

async fn begin(
    request: HttpRequest,
    app: web::Data<App>,
    (asking, acting): (Allowed<WriteOwnSessions>, Allowed<WriteOwnSessions>),
    Json(BeginPasskeyBody { password, code, passkey }): Json<BeginPasskeyBody>,
) -> Result<HttpResponse, Problem> {
    let given = Given::of(&app, code, passkey)?;
    let pointer = given.as_ref().map_or("/code", |given| given.pointer);
    let current_phc = prove(&request, &app, asking, password.as_ref(), BeginPasskey::NAME).await?;
    let (shown, party) = (given.map(|given| given.shown), relying_party(&app.config.http));
    match acting.command(BeginPasskey { current_phc, shown, party }).await?.reply {
        Checked::Done(public_key) => options(public_key),
        Checked::WrongFactor => Err(wrong_factor(pointer)),
    }
}

async fn add(
    app: web::Data<App>,
    allowed: Allowed<WriteOwnSessions>,
    Json(AddPasskeyBody { name, credential }): Json<AddPasskeyBody>,
) -> Result<HttpResponse, Problem> {
    let party = relying_party(&app.config.http);
    match allowed.command(AddPasskey { name, credential, party }).await?.reply {
        Enrolment::Done(enrolled) => {
            let Enrolled { passkey, recovery_codes, opened } = *enrolled;
            let cookie = cookies::session(&opened);
            let tokens = TokensView::new(&app, opened);
            let view = EnrolledView { passkey, recovery_codes, tokens };
            cookies::answer(StatusCode::CREATED, &cookie, &view)
        }
        Enrolment::Refused(fault) => Err(refused(fault)),
    }
}

async fn remove(
    request: HttpRequest,
    app: web::Data<App>,
    (asking, acting): (Allowed<WriteOwnSessions>, Allowed<WriteOwnSessions>),
    At(passkey): At<String>,
    Json(ProvenBody { password, code, passkey: shown }): Json<ProvenBody>,
) -> Result<HttpResponse, Problem> {
    let Given { shown, pointer } = Given::needed(&app, code, shown)?;
    let current_phc = prove(&request, &app, asking, password.as_ref(), RemovePasskey::NAME).await?;
    match acting.command(RemovePasskey { current_phc, shown, passkey }).await?.reply {
        Checked::Done(()) => Ok(answer::no_content()),
        Checked::WrongFactor => Err(wrong_factor(pointer)),
    }
}

async fn ask_own(
    app: web::Data<App>,
    allowed: Allowed<WriteOwnSessions>,
) -> Result<HttpResponse, Problem> {
    let party = relying_party(&app.config.http);
    options(allowed.command(AskOwnPasskey { party }).await?.reply)
}

async fn ask_second(
    request: HttpRequest,
    app: web::Data<App>,
    Json(AskBody { mfa_token }): Json<AskBody>,
) -> Result<HttpResponse, Problem> {
    let token = ChallengeToken::parse(mfa_token.text());
    let account = token.as_ref().map(ChallengeToken::account);
    limit_anonymous(&request, &app, Class::SignIn, account.as_deref())?;
    let token = token.ok_or(TenantError::BadCredentials)?;
    let tenant = token.tenant;
    let door = app.tenants.find(tenant).await.map_err(vague)?;
    let command = AskPasskey { token, party: relying_party(&app.config.http) };
    let answered = door.command(Permit::anonymous(tenant), origin(&request), None, command).await;
    options(answered.map_err(vague)?.reply)
}

async fn ask_any(
    request: HttpRequest,
    app: web::Data<App>,
    Json(AskAnyBody { tenant: slug }): Json<AskAnyBody>,
) -> Result<HttpResponse, Problem> {
    limit_anonymous(&request, &app, Class::SignIn, None)?;
    // A tenant that does not exist asks as any other does: the platform does it in its place.
    let tenant = app.tenants.by_slug(&slug).unwrap_or(TenantId::PLATFORM);
    let door = app.tenants.find(tenant).await.map_err(vague)?;
    let command = AskAnyPasskey { party: relying_party(&app.config.http) };
    let answered = door.command(Permit::anonymous(tenant), origin(&request), None, command).await;
    options(answered.map_err(vague)?.reply)
}

async fn sign_in(
    request: HttpRequest,
    app: web::Data<App>,
    Json(PasskeySignInBody { tenant: slug, credential }): Json<PasskeySignInBody>,
) -> Result<HttpResponse, Problem> {
    let account = format!("{slug} {}", credential.account());
    limit_anonymous(&request, &app, Class::SignIn, Some(&account))?;
    let known = app.tenants.by_slug(&slug);
    let tenant = known.unwrap_or(TenantId::PLATFORM);
    let door = app.tenants.find(tenant).await.map_err(vague)?;
    let presented = Presented { assertion: credential, party: relying_party(&app.config.http) };
    let command = OpenByPasskey { presented, is_known: known.is_some(), account };
    let answered = door.command(Permit::anonymous(tenant), origin(&request), None, command).await;
    match answered.map_err(vague)?.reply {
        ChallengeOutcome::Opened(opened) => signed_in(&app, StatusCode::OK, *opened),
        ChallengeOutcome::Refused => Err(TenantError::BadCredentials.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn party(public_url: Option<&str>, base_domain: Option<&str>) -> RelyingParty {
        let overrides = Overrides::default()
            .set("data.dir", "/var/lib/bulkhead")
            .set("http.bind", "127.0.0.1:8080");
        let mut http = Config::load_from(None, [], &overrides).expect("a configuration").http;
        http.public_url = public_url.map(str::to_owned);
        http.base_domain = base_domain.map(str::to_owned);
        relying_party(&http)
    }

    #[test]
    fn the_base_domain_is_the_relying_party_of_all_tenants_and_each_has_its_origin() {
        let party = party(Some("https://api.example.com:8443/v"), Some("example.com"));
        assert_eq!((party.id.as_str(), party.is_local), ("example.com", false));
        assert_eq!(party.origins, ["https://api.example.com:8443"]);
        let tenants = ("https://".to_owned(), ".example.com:8443".to_owned());
        assert_eq!(party.tenants, Some(tenants));
        // A node that is called elsewhere than its tenants are.
        let elsewhere = super::tests::party(Some("https://notexample.com"), Some("example.com"));
        assert_eq!((elsewhere.id.as_str(), elsewhere.origins.len()), ("example.com", 0));
    }

    #[test]
    fn without_a_base_domain_it_is_the_host_and_without_a_name_the_machine_itself() {
        let named = party(Some("https://API.example.com:443"), None);
        assert_eq!((named.id.as_str(), named.is_local), ("api.example.com", false));
        assert_eq!(
            (named.origins, named.tenants),
            (vec!["https://api.example.com".to_owned()], None)
        );
        for url in [
            None,
            Some("http://127.0.0.1:8080"),
            Some("http://[::1]:8080"),
            Some("http://localhost:8080"),
        ] {
            let local = party(url, None);
            assert_eq!((local.id.as_str(), local.is_local), ("localhost", true), "{url:?}");
        }
    }
}
