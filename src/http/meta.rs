//! What the node says of itself: its routes, its capabilities, its problems, whom to tell of weaknesses.
//!
//! Everything here is the same for everybody and comes from tables that are compiled in. No actor is
//! asked, and nothing says which tenants there are.

use std::sync::LazyLock;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::env::rfc3339;
use actors::permit::{CAPABILITIES, Role};
use actors::tenant::acl::{FormAction, Level};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::http::app::App;
use crate::http::docs;
use crate::http::extract::At;
use crate::http::headers::PAGE_POLICY;
use crate::http::problem::{KINDS, Kind, Problem};
use crate::http::request::fingerprint;
use crate::http::routes::{Access, Route, Verb};
use crate::http::{answer, openapi};

/// How long the security contact stands, in milliseconds: RFC 9116 wants less than a year.
const CONTACT_MS: u64 = 180 * 24 * 60 * 60 * 1_000;

/// What others may keep for five minutes.
const FOR_A_WHILE: &str = "public, max-age=300";
/// What others may keep for thirty days.
const FOR_LONG: &str = "public, max-age=2592000";

/// The rows of this resource.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/", "meta.landing", Access::Public, || web::get().to(landing))
        .summary("Says where to read on")
        .answers::<Landing>(200),
    Route::new(Verb::Get, "/version", "meta.version", Access::Public, || web::get().to(version))
        .summary("The version of the node")
        .answers::<Version>(200),
    Route::new(Verb::Get, "/openapi.json", "meta.openapi", Access::Public, || {
        web::get().to(document)
    })
    .summary("This document: OpenAPI 3.1, made from the route table")
    .answers::<Value>(200),
    Route::new(Verb::Get, "/docs", "meta.docs", Access::Public, || web::get().to(reference))
        .summary("The route table as a page for people")
        .answers_media("text/html"),
    Route::new(Verb::Get, "/docs/style.css", "meta.style", Access::Public, || web::get().to(style))
        .summary("The style sheet of the pages")
        .answers_media("text/css"),
    Route::new(Verb::Get, docs::ICON_PATH, "meta.icon", Access::Public, || web::get().to(icon))
        .summary("The picture beside the names of the pages")
        .answers_media("image/svg+xml"),
    Route::new(Verb::Get, "/problems", "meta.problems", Access::Public, || web::get().to(problems))
        .summary("Every kind of problem there is")
        .answers::<Vec<KindView>>(200),
    Route::new(Verb::Get, "/problems/{code}", "meta.problem", Access::Public, || {
        web::get().to(problem)
    })
    .summary("One kind of problem, and what to do about it")
    .answers::<KindView>(200),
    Route::new(Verb::Get, "/v1/meta/capabilities", "meta.capabilities", Access::Public, || {
        web::get().to(capabilities)
    })
    .summary("The role matrix as data: which role, API key and grant on a form may do what")
    .answers::<Matrix>(200),
    Route::new(Verb::Get, "/.well-known/security.txt", "meta.security", Access::Public, || {
        web::get().to(security)
    })
    .summary("Whom to tell about a weakness (RFC 9116)")
    .answers_media("text/plain"),
];

/// Where to read on.
#[derive(Serialize, JsonSchema)]
struct Landing {
    /// The program.
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// The page for people.
    docs: &'static str,
    /// The document for programs.
    openapi: &'static str,
    /// The role matrix.
    capabilities: &'static str,
}

/// The version of the node.
#[derive(Serialize, JsonSchema)]
struct Version {
    /// The program.
    name: &'static str,
    /// Its version.
    version: &'static str,
}

/// The role matrix.
#[derive(Serialize, JsonSchema)]
struct Matrix {
    /// Every role, least first.
    roles: Vec<&'static str>,
    /// Every capability.
    capabilities: Vec<CapabilityView>,
    /// What a form's access list decides: it can only narrow what the role's capability allows.
    form_actions: Vec<FormActionView>,
}

/// One thing that one does with a form, and the grants that allow it.
#[derive(Serialize, JsonSchema)]
struct FormActionView {
    /// Its name.
    name: &'static str,
    /// What it is.
    description: &'static str,
    /// The capability that the role must have, whatever the access list says.
    capability: &'static str,
    /// The levels of grant that allow it on a form that has an access list.
    levels: Vec<&'static str>,
}

/// One row of the role matrix.
#[derive(Serialize, JsonSchema)]
struct CapabilityView {
    /// `resource:verb`.
    name: &'static str,
    /// What it lets one do.
    description: &'static str,
    /// The roles that have it.
    roles: Vec<&'static str>,
    /// Whether being refused it is written to the tenant's audit log.
    privileged: bool,
    /// Whether an API key can have it, as one of its scopes.
    api_keys: bool,
    /// Whether a support session has it: `always`, `approved` where the tenant has to approve it, or null.
    support: Option<&'static str>,
}

/// A kind of problem.
#[derive(Serialize, JsonSchema)]
struct KindView {
    /// The `type` member of such a problem.
    r#type: String,
    /// Its short name.
    code: &'static str,
    /// Its title.
    title: &'static str,
    /// Its status.
    status: u16,
    /// What to do about it.
    description: &'static str,
}

impl From<FormAction> for FormActionView {
    fn from(action: FormAction) -> Self {
        let levels = Level::ALL.into_iter().filter(|level| level.allows(action));
        Self {
            name: action.name(),
            description: action.means(),
            capability: action.capability().name,
            levels: levels.map(Level::name).collect(),
        }
    }
}

impl From<&'static Kind> for KindView {
    fn from(kind: &'static Kind) -> Self {
        Self {
            r#type: kind.uri(),
            code: kind.code,
            title: kind.title,
            status: kind.status.as_u16(),
            description: kind.docs,
        }
    }
}

async fn landing(request: HttpRequest) -> Result<HttpResponse, Problem> {
    if answer::wants_page(&request) {
        return Ok(page(docs::landing()));
    }
    let landing = Landing {
        name: "bulkhead",
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs",
        openapi: "/openapi.json",
        capabilities: "/v1/meta/capabilities",
    };
    answer::json(StatusCode::OK, &landing)
}

async fn version() -> Result<HttpResponse, Problem> {
    let version = Version { name: "bulkhead", version: env!("CARGO_PKG_VERSION") };
    answer::json(StatusCode::OK, &version)
}

async fn document(request: HttpRequest) -> HttpResponse {
    static DOCUMENT: LazyLock<Fixed> =
        LazyLock::new(|| Fixed::new("application/json", openapi::document().to_string()));
    DOCUMENT.answer(&request)
}

async fn reference(request: HttpRequest) -> HttpResponse {
    static PAGE: LazyLock<Fixed> =
        LazyLock::new(|| Fixed::new("text/html; charset=utf-8", docs::reference().into_string()));
    PAGE.answer(&request)
}

async fn style(request: HttpRequest) -> HttpResponse {
    static STYLE: LazyLock<Fixed> =
        LazyLock::new(|| Fixed::new("text/css; charset=utf-8", docs::STYLE.to_owned()));
    STYLE.answer(&request)
}

async fn icon(request: HttpRequest) -> HttpResponse {
    static ICON: LazyLock<Fixed> =
        LazyLock::new(|| Fixed::new("image/svg+xml", docs::ICON.to_owned()).kept(FOR_LONG));
    ICON.answer(&request)
}

async fn problems(request: HttpRequest) -> Result<HttpResponse, Problem> {
    if answer::wants_page(&request) {
        return Ok(page(docs::problems()));
    }
    let views: Vec<KindView> = KINDS.iter().map(|kind| KindView::from(*kind)).collect();
    answer::json(StatusCode::OK, &views)
}

async fn problem(request: HttpRequest, At(code): At<String>) -> Result<HttpResponse, Problem> {
    let kind = Kind::by_code(&code).ok_or_else(Problem::not_found)?;
    if answer::wants_page(&request) {
        return Ok(page(docs::problem(kind)));
    }
    answer::json(StatusCode::OK, &KindView::from(kind))
}

async fn capabilities() -> Result<HttpResponse, Problem> {
    let capabilities = CAPABILITIES.iter().map(|row| CapabilityView {
        name: row.name,
        description: row.means,
        roles: Role::ALL
            .into_iter()
            .filter(|role| row.roles.contains(*role))
            .map(Role::name)
            .collect(),
        privileged: row.privileged,
        api_keys: row.is_scope(),
        support: match (row.is_shown_to_support(), row.takes_consent()) {
            (true, _) => Some("always"),
            (_, true) => Some("approved"),
            _ => None,
        },
    });
    let matrix = Matrix {
        roles: Role::ALL.into_iter().map(Role::name).collect(),
        capabilities: capabilities.collect(),
        form_actions: FormAction::ALL.into_iter().map(FormActionView::from).collect(),
    };
    answer::json(StatusCode::OK, &matrix)
}

async fn security(app: web::Data<App>) -> HttpResponse {
    let expires = rfc3339(app.env.now_ms().saturating_add(CONTACT_MS));
    let mut text = format!("Contact: {}\nExpires: {expires}\n", app.config.node.security_contact);
    if let Some(url) = &app.config.http.public_url {
        text.push_str(&format!("Canonical: {url}/.well-known/security.txt\n"));
    }
    text.push_str("Preferred-Languages: en\n");
    let media = HeaderValue::from_static("text/plain; charset=utf-8");
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, media)).body(text)
}

/// Whether a person asks, through a browser.
fn page(markup: maud::Markup) -> HttpResponse {
    let mut response = HttpResponse::with_body(StatusCode::OK, BoxBody::new(markup.into_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// An answer that is the same for the life of the program.
struct Fixed {
    media: &'static str,
    bytes: Bytes,
    etag: String,
    kept: &'static str,
}

impl Fixed {
    fn new(media: &'static str, text: String) -> Self {
        let etag = format!("\"{}\"", hex::encode(&fingerprint(text.as_bytes())[..16]));
        Self { media, bytes: Bytes::from(text), etag, kept: FOR_A_WHILE }
    }

    /// Says how long others may keep it.
    fn kept(self, kept: &'static str) -> Self {
        Self { kept, ..self }
    }

    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let known =
            request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let is_known = known.is_some_and(|known| known.contains(&self.etag));
        let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response
            .insert_header((header::ETAG, self.etag.as_str()))
            .insert_header((header::CACHE_CONTROL, self.kept));
        if is_known {
            return response.finish();
        }
        if self.media.starts_with("text/html") {
            response.insert_header((header::CONTENT_SECURITY_POLICY, PAGE_POLICY));
        }
        response.insert_header((header::CONTENT_TYPE, self.media)).body(self.bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;

    use super::*;

    #[actix_rt::test]
    async fn the_matrix_names_every_capability_with_its_roles() {
        let response = capabilities().await.expect("an answer");
        let body = to_bytes(response.into_body()).await.expect("a body");
        let matrix: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(matrix["capabilities"].as_array().map(Vec::len), Some(CAPABILITIES.len()));
        let update = matrix["capabilities"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["name"] == "tenant:update"));
        assert_eq!(
            update.map(|row| row["roles"].clone()),
            Some(serde_json::json!(["admin", "owner"]))
        );
        let decide = serde_json::json!({
            "name": "decide",
            "description": "Approve and reject other people's submissions.",
            "capability": "submissions:decide",
            "levels": ["OWNER", "REVIEWER"],
        });
        assert!(matrix["form_actions"].as_array().is_some_and(|rows| rows.contains(&decide)));
    }

    #[actix_rt::test]
    async fn the_document_is_sent_once_per_version() {
        let first = document(TestRequest::get().to_http_request()).await;
        assert_eq!(first.status(), 200);
        let etag = first.headers().get(header::ETAG).expect("set").clone();
        let again =
            TestRequest::get().insert_header((header::IF_NONE_MATCH, etag)).to_http_request();
        assert_eq!(document(again).await.status(), 304);
    }

    #[actix_rt::test]
    async fn pages_carry_no_script_and_a_strict_policy() {
        let request =
            TestRequest::get().insert_header((header::ACCEPT, "text/html")).to_http_request();
        for response in [
            landing(request.clone()).await.expect("a page"),
            problems(request.clone()).await.expect("a page"),
            reference(request).await,
        ] {
            assert_eq!(
                response.headers().get(header::CONTENT_SECURITY_POLICY).expect("set"),
                PAGE_POLICY
            );
            let body = to_bytes(response.into_body()).await.expect("a body");
            let text = String::from_utf8(body.to_vec()).expect("text");
            assert!(!text.contains("<script") && !text.contains("style=\""));
        }
    }
}
