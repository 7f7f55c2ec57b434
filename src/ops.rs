//! The operators' listener: health, readiness, metrics, actors, and the door for the command line.
//!
//! On a socket and a thread of its own, so that it answers while the API is flooded. Shows counts and
//! states, never a tenant's content.

use std::net::TcpListener;
use std::sync::{Arc, OnceLock};

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App as Site, Error, HttpMessage as _, HttpRequest, HttpResponse, HttpServer, web};
use actors::quota::keeper::KeeperHandle;
use serde_json::json;
use storage::id::TenantId;
use storage::log::Health;

use crate::control::{ControlCommand, execute};
use crate::http::app::App;
use crate::http::docs;
use crate::runtime::{Engine, Phase, Phases};

mod actor_pages;
pub mod exposition;
pub mod guard;
mod measure;
pub mod process;

use guard::{ByOperator, Guard, Verdict};

/// Largest command, in bytes.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// How long a stop waits for requests under way, in seconds.
const STOP_TIMEOUT_S: u64 = 2;
const STYLE: &str = include_str!("ops/style.css");

/// The running listener.
pub struct Ops {
    handle: ServerHandle,
    desk: Arc<Desk>,
}

/// What the routes look at.
struct Desk {
    phases: Phases,
    insides: OnceLock<Insides>,
}

/// The node, once it has started.
struct Insides {
    app: App,
    keeper: KeeperHandle,
}

impl Ops {
    /// Serves on a bound socket from now on; until [`attach`](Self::attach) it says "starting".
    pub fn start(listener: TcpListener, guard: Guard, phases: Phases) -> std::io::Result<Self> {
        let desk = Arc::new(Desk { phases, insides: OnceLock::new() });
        let (shown, guard) = (desk.clone(), Arc::new(guard));
        let server = HttpServer::new(move || {
            let guard = guard.clone();
            Site::new()
                .app_data(web::Data::from(shown.clone()))
                .app_data(web::PayloadConfig::new(COMMAND_BYTES_MAX))
                .wrap(from_fn(move |request, next| admit(guard.clone(), request, next)))
                .service(web::redirect("/", "/actors"))
                .route("/healthz", web::get().to(healthz))
                .route("/readyz", web::get().to(readyz))
                .route("/metrics", web::get().to(metrics))
                .route("/actors", web::get().to(actors))
                .route("/actors/{tenant}", web::get().to(actor))
                .route("/style.css", web::get().to(style))
                .route(docs::ICON_PATH, web::get().to(icon))
                .route("/control", web::post().to(control))
                .default_service(web::to(async || problem(StatusCode::NOT_FOUND)))
        })
        .workers(1)
        .shutdown_timeout(STOP_TIMEOUT_S)
        .disable_signals()
        .listen(listener)?
        .run();
        let handle = server.handle();
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the operators' listener ended by an error");
            }
        });
        Ok(Self { handle, desk })
    }

    /// Shows a started node.
    pub fn attach(&self, engine: &Engine) {
        let insides = Insides { app: engine.app().clone(), keeper: engine.keeper().clone() };
        if self.desk.insides.set(insides).is_err() {
            tracing::error!("a second node was attached to one operators' listener");
        }
    }

    /// Stops listening.
    pub async fn stop(self) {
        self.handle.stop(true).await;
    }
}

/// Every request passes here: who may ask, and headers that every answer carries.
async fn admit<B: MessageBody + 'static>(
    guard: Arc<Guard>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    // The router decodes what it matches; no path here needs decoding, so none gets it.
    let is_plain = !request.path().contains('%');
    let is_liveness = request.path() == "/healthz";
    let verdict = guard.judge(&request);
    request.extensions_mut().insert(verdict);
    let refusal = match verdict {
        _ if !is_plain => Some(StatusCode::NOT_FOUND),
        _ if is_liveness => None,
        Verdict::Operator | Verdict::Local => None,
        Verdict::Anonymous => Some(StatusCode::UNAUTHORIZED),
        Verdict::Hidden => Some(StatusCode::NOT_FOUND),
    };
    let mut response = match refusal {
        Some(status) => request.into_response(problem(status)).map_into_right_body(),
        None => next.call(request).await?.map_into_left_body(),
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    Ok(response)
}

fn problem(status: StatusCode) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    if status == StatusCode::UNAUTHORIZED {
        response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "1"));
    }
    response.content_type("application/problem+json").body(
        json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
        })
        .to_string(),
    )
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// Why the node should get no traffic now; nothing if it should.
fn unreadiness(desk: &Desk) -> Vec<String> {
    let mut reasons = Vec::new();
    match desk.phases.get() {
        Phase::Starting => reasons.push("starting".to_owned()),
        Phase::Stopping => reasons.push("stopping".to_owned()),
        Phase::Ready => {}
    }
    if let Some(insides) = desk.insides.get()
        && let Health::Poisoned(why) = insides.app.store.health()
    {
        reasons.push(format!("the log takes no more writes: {why}"));
    }
    reasons
}

async fn readyz(desk: web::Data<Desk>) -> HttpResponse {
    let reasons = unreadiness(&desk);
    if reasons.is_empty() {
        // Reads go on: a balancer that took the node out would end them too.
        let ready = match desk.insides.get().and_then(|insides| insides.app.store.log().shortage())
        {
            Some(shortage) => json!({
                "ready": true,
                "writes": "storage-full",
                "available_bytes": shortage.available_bytes,
                "reserve_bytes": shortage.reserve_bytes,
            }),
            None => json!({ "ready": true }),
        };
        return HttpResponse::Ok().json(ready);
    }
    HttpResponse::ServiceUnavailable()
        .insert_header((header::RETRY_AFTER, "1"))
        .json(json!({ "ready": false, "reasons": reasons }))
}

async fn metrics(desk: web::Data<Desk>) -> HttpResponse {
    let is_ready = unreadiness(&desk).is_empty();
    let text = match desk.insides.get() {
        Some(insides) => measure::node(&insides.app, &insides.keeper, is_ready).await,
        None => measure::starting(),
    };
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

/// Whether a browser asks.
fn wants_html(request: &HttpRequest) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

async fn actors(request: HttpRequest, desk: web::Data<Desk>) -> HttpResponse {
    let Some(Insides { app, keeper }) = desk.insides.get() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE);
    };
    let report = actor_pages::report(app, keeper).await;
    if wants_html(&request) {
        return page(actor_pages::overview(&report, app.env.now_ms()));
    }
    HttpResponse::Ok().json(report)
}

async fn actor(
    request: HttpRequest,
    path: web::Path<String>,
    desk: web::Data<Desk>,
) -> HttpResponse {
    let Some(Insides { app, .. }) = desk.insides.get() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE);
    };
    let named = path.parse().ok().or_else(|| app.tenants.by_slug(&path));
    let Some(line) = named.and_then(|tenant: TenantId| actor_pages::line(app, tenant)) else {
        return problem(StatusCode::NOT_FOUND);
    };
    if wants_html(&request) {
        return page(actor_pages::one(&line, app.env.now_ms()));
    }
    HttpResponse::Ok().json(line)
}

fn page(markup: maud::Markup) -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(markup.into_string())
}

async fn style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(STYLE)
}

async fn icon() -> HttpResponse {
    HttpResponse::Ok().content_type("image/svg+xml").body(docs::ICON)
}

async fn control(_proof: ByOperator, desk: web::Data<Desk>, body: web::Bytes) -> HttpResponse {
    let Some(Insides { app, .. }) = desk.insides.get() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE);
    };
    match serde_json::from_slice::<ControlCommand>(&body) {
        Ok(command) => HttpResponse::Ok().json(execute(app, command).await),
        Err(error) => {
            tracing::warn!(%error, "a command from the command line could not be read");
            problem(StatusCode::BAD_REQUEST)
        }
    }
}
