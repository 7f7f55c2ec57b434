//! One's own second factors: to enrol an authenticator, to remove it, to have new recovery codes. Nothing
//! in this file can name anybody else. What a sign-in does with them is in [`auth`](crate::http::auth).
//!
//! Whoever changes anything gives the password again, and shows what is enrolled: neither a stolen token nor
//! a forgotten open browser is enough. Secrets and codes leave in one answer each, never again.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::permit::{Action as _, ReadOwnProfile, WriteOwnSessions};
use actors::rate::Class;
use actors::tenant::cx::Command as _;
use actors::tenant::factors::own::{
    BeginTotp, Begun, Checked, ConfirmTotp, RecordWrongPassword, RemoveTotp, RenewRecoveryCodes,
};
use actors::tenant::factors::passkeys::{Assertion, Presented};
use actors::tenant::factors::{MfaView, ReadMfa, Shown, totp};
use actors::tenant::sessions::own::ReadOwnCredential;
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::allowed::{Allowed, limit_anonymous};
use crate::http::answer;
use crate::http::app::App;
use crate::http::auth::TokensView;
use crate::http::cookies;
use crate::http::extract::Json;
use crate::http::passkeys::relying_party;
use crate::http::passwords::{Secret, Share};
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// Least width and height of a QR code, in pixels; it scales.
const QR_PIXELS_MIN: u32 = 240;

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/v1/me/mfa", "mfa.read", Access::Tenant(ReadOwnProfile::ROW), || {
        web::get().to(read)
    })
    .summary("One's own second factors")
    .answers::<MfaView>(200),
    Route::new(
        Verb::Post,
        "/v1/me/mfa/totp",
        "mfa.begin-totp",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(begin),
    )
    .summary("Begin to enrol an authenticator; who has a second factor already shows it as well")
    .body::<BeginTotpBody>(r#"{"password":"correct horse battery"}"#)
    .answers::<BegunTotpView>(201),
    Route::new(
        Verb::Post,
        "/v1/me/mfa/totp/confirm",
        "mfa.confirm-totp",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(confirm),
    )
    .summary("Enrol the authenticator by its first code; the other sessions end, this one gets new tokens")
    .body::<ConfirmTotpBody>(r#"{"code":"123456"}"#)
    .answers::<ConfirmedView>(200),
    Route::new(
        Verb::Delete,
        "/v1/me/mfa/totp",
        "mfa.remove-totp",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::delete().to(remove),
    )
    .summary("Remove the authenticator; with the last second factor the recovery codes go as well")
    .body::<ProvenBody>(r#"{"password":"correct horse battery","code":"123456"}"#)
    .answers_nothing(),
    Route::new(
        Verb::Post,
        "/v1/me/mfa/recovery-codes",
        "mfa.renew-recovery-codes",
        Access::Tenant(WriteOwnSessions::ROW),
        || web::post().to(renew),
    )
    .summary("Make new recovery codes; the old ones are good no more")
    .body::<ProvenBody>(r#"{"password":"correct horse battery","code":"123456"}"#)
    .answers::<RecoveryCodesView>(200),
];

/// Begins to enrol an authenticator.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginTotpBody {
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
pub struct ConfirmTotpBody {
    /// Six digits of the new authenticator.
    pub code: Secret,
}

/// Proves that it is oneself who asks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProvenBody {
    /// One's password; who has none leaves it out, and has to have signed in within the last ten minutes.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A code of the authenticator, or a recovery code.
    #[serde(default)]
    pub code: Option<Secret>,
    /// In the place of a code: the answer to `/v1/me/mfa/passkey/options`.
    #[serde(default)]
    pub passkey: Option<Assertion>,
}

/// A new authenticator, for this once.
#[derive(Serialize, JsonSchema)]
pub struct BegunTotpView {
    /// The secret, in Base32, for who types it.
    pub secret: String,
    /// The same with everything an authenticator wants to know.
    pub otpauth_uri: String,
    /// That as a QR code: an SVG document.
    pub qr_svg: String,
}

/// Recovery codes, for this once.
#[derive(Serialize, JsonSchema)]
pub struct RecoveryCodesView {
    /// Each is good once.
    pub recovery_codes: Vec<String>,
}

/// What is shown when an authenticator is enrolled.
#[derive(Serialize, JsonSchema)]
pub struct ConfirmedView {
    /// Each is good once; they are not shown again.
    pub recovery_codes: Vec<String>,
    /// New tokens of this session: those from before are good no more.
    #[serde(flatten)]
    pub tokens: TokensView,
}

impl BegunTotpView {
    fn new(begun: &Begun) -> Result<Self, Problem> {
        let otpauth_uri = totp::otpauth_uri(&begun.issuer, &begun.account, &begun.secret);
        // The uri is bounded, so that a code of this level always holds it.
        let code = QrCode::with_error_correction_level(otpauth_uri.as_bytes(), EcLevel::M);
        let code = code.map_err(Problem::internal)?;
        let qr_svg = code
            .render::<svg::Color<'_>>()
            .min_dimensions(QR_PIXELS_MIN, QR_PIXELS_MIN)
            .quiet_zone(true)
            .build();
        Ok(Self { secret: totp::base32(&begun.secret), otpauth_uri, qr_svg })
    }
}

/// A second factor of a request, and where it stood.
pub(crate) struct Given {
    pub shown: Shown,
    pub pointer: &'static str,
}

impl Given {
    /// The one of code and passkey that was given; nothing if neither was.
    pub fn of(
        app: &App,
        code: Option<Secret>,
        passkey: Option<Assertion>,
    ) -> Result<Option<Self>, Problem> {
        match (code, passkey) {
            (None, None) => Ok(None),
            (Some(code), None) => {
                Ok(Some(Self { shown: Shown::Code(code.text().to_owned()), pointer: "/code" }))
            }
            (None, Some(assertion)) => {
                let party = relying_party(&app.config.http);
                let shown = Shown::Passkey(Box::new(Presented { assertion, party }));
                Ok(Some(Self { shown, pointer: "/passkey" }))
            }
            (Some(_), Some(_)) => Err(Problem::invalid("/passkey", "comes in the place of a code")),
        }
    }

    /// The same where one is needed.
    pub fn needed(
        app: &App,
        code: Option<Secret>,
        passkey: Option<Assertion>,
    ) -> Result<Self, Problem> {
        let given = Self::of(app, code, passkey)?;
        given.ok_or_else(|| Problem::invalid("/code", "is needed, or a passkey"))
    }
}

/// What is said of a second factor that is not good.
pub(crate) fn wrong_factor(pointer: &str) -> Problem {
    Problem::invalid(pointer, "is not good: wrong, used before, or not of now")
}

/// The password's hash, if `password` is one's own; nothing of who has none, whom the tenant asks for a fresh
/// session. A wrong one is written down under `action`.
pub(crate) async fn prove(
    request: &HttpRequest,
    app: &App,
    asking: Allowed<WriteOwnSessions>,
    password: Option<&Secret>,
    action: &'static str,
) -> Result<Option<String>, Problem> {
    // A stolen access token must not become a way to guess passwords or codes.
    let account = asking.account();
    limit_anonymous(request, app, Class::SignIn, Some(&account))?;
    let (_, Some(phc)) = asking.ask(ReadOwnCredential).await? else { return Ok(None) };
    let password = password.ok_or_else(|| Problem::invalid("/password", "is needed"))?;
    let share = Share::Tenant(asking.tenant());
    if app.passwords.verify(share, password, Some(phc.clone())).await? {
        return Ok(Some(phc));
    }
    asking.command(RecordWrongPassword { action }).await?;
    Err(Problem::invalid("/password", "is not your password"))
}

async fn read(allowed: Allowed<ReadOwnProfile>) -> Result<HttpResponse, Problem> {
    answer::json(StatusCode::OK, &allowed.query(ReadMfa).await?)
}

async fn begin(
    request: HttpRequest,
    app: web::Data<App>,
    (asking, acting): (Allowed<WriteOwnSessions>, Allowed<WriteOwnSessions>),
    Json(BeginTotpBody { password, code, passkey }): Json<BeginTotpBody>,
) -> Result<HttpResponse, Problem> {
    let given = Given::of(&app, code, passkey)?;
    let pointer = given.as_ref().map_or("/code", |given| given.pointer);
    let current_phc = prove(&request, &app, asking, password.as_ref(), BeginTotp::NAME).await?;
    let shown = given.map(|given| given.shown);
    match acting.command(BeginTotp { current_phc, shown }).await?.reply {
        Checked::Done(begun) => answer::json(StatusCode::CREATED, &BegunTotpView::new(&begun)?),
        Checked::WrongFactor => Err(wrong_factor(pointer)),
    }
}

async fn confirm(
    request: HttpRequest,
    app: web::Data<App>,
    allowed: Allowed<WriteOwnSessions>,
    Json(ConfirmTotpBody { code }): Json<ConfirmTotpBody>,
) -> Result<HttpResponse, Problem> {
    let account = allowed.account();
    limit_anonymous(&request, &app, Class::SignIn, Some(&account))?;
    let command = ConfirmTotp { code: code.text().to_owned() };
    let confirmed = allowed.command(command).await?.reply;
    let cookie = cookies::session(&confirmed.opened);
    let view = ConfirmedView {
        recovery_codes: confirmed.recovery_codes,
        tokens: TokensView::new(&app, confirmed.opened),
    };
    cookies::answer(StatusCode::OK, &cookie, &view)
}

async fn remove(
    request: HttpRequest,
    app: web::Data<App>,
    (asking, acting): (Allowed<WriteOwnSessions>, Allowed<WriteOwnSessions>),
    Json(ProvenBody { password, code, passkey }): Json<ProvenBody>,
) -> Result<HttpResponse, Problem> {
    let Given { shown, pointer } = Given::needed(&app, code, passkey)?;
    let current_phc = prove(&request, &app, asking, password.as_ref(), RemoveTotp::NAME).await?;
    match acting.command(RemoveTotp { current_phc, shown }).await?.reply {
        Checked::Done(()) => Ok(answer::no_content()),
        Checked::WrongFactor => Err(wrong_factor(pointer)),
    }
}

async fn renew(
    request: HttpRequest,
    app: web::Data<App>,
    (asking, acting): (Allowed<WriteOwnSessions>, Allowed<WriteOwnSessions>),
    Json(ProvenBody { password, code, passkey }): Json<ProvenBody>,
) -> Result<HttpResponse, Problem> {
    let Given { shown, pointer } = Given::needed(&app, code, passkey)?;
    let action = RenewRecoveryCodes::NAME;
    let current_phc = prove(&request, &app, asking, password.as_ref(), action).await?;
    match acting.command(RenewRecoveryCodes { current_phc, shown }).await?.reply {
        Checked::Done(recovery_codes) => {
            answer::json(StatusCode::OK, &RecoveryCodesView { recovery_codes })
        }
        Checked::WrongFactor => Err(wrong_factor(pointer)),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_longest_names_there_are_still_fit_into_a_qr_code() {
        let begun = Begun {
            secret: vec![0xff; totp::SECRET_BYTES].into(),
            issuer: "é".repeat(2_000),
            account: format!("{}@{}.example", "+".repeat(64), "a".repeat(180)),
        };
        let view = BegunTotpView::new(&begun).expect("a QR code");
        assert!(view.qr_svg.contains("<svg"), "{}", view.qr_svg);
        assert!(view.otpauth_uri.contains(&view.secret));
    }
}
