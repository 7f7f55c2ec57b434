//! The one service behind every connection: match, admit, call, seal, count, log.
//!
//! It stands in for the framework's router. A path is matched against the table by hand, a request that
//! may not pass never reaches an extractor, and every answer leaves through the same few lines, so no
//! header and no metric can be forgotten. Knows no resource.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Service, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{Error, HttpMessage as _, HttpResponse};
use actors::rate::Decision;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, try_join_all};

use crate::http::allowed;
use crate::http::app::App;
use crate::http::extract::BodyLimits;
use crate::http::headers::{self, Sealing};
use crate::http::matcher::{Matched, Matcher};
use crate::http::problem::{Kind, MEDIA_TYPE, Problem};
use crate::http::request::{self, IdSource, RequestContext, Trace};
use crate::http::routes::{ROUTES, Verb, is_scim};
use crate::http::{AppToCome, arrival, refusal, scim};
use crate::limits::{LOG_ONE_IN, SLOW_MS};
use crate::metrics::{Meter, UNMATCHED};

type Handler = <actix_web::Route as ServiceFactory<ServiceRequest>>::Service;

/// Makes one [`Dispatch`] per worker thread.
pub struct DispatchFactory {
    app: AppToCome,
}

impl DispatchFactory {
    /// For that node, once it has started.
    pub fn new(app: AppToCome) -> Self {
        Self { app }
    }
}

impl ServiceFactory<ServiceRequest> for DispatchFactory {
    type Response = ServiceResponse;
    type Error = Error;
    type Config = ();
    type Service = Dispatch;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Dispatch, ()>>;

    fn new_service(&self, _: ()) -> Self::Future {
        let app = self.app.clone();
        Box::pin(async move {
            let app = arrival(app).await.map_err(|_| ())?;
            let handlers =
                try_join_all(ROUTES.iter().map(|route| (route.mount)().new_service(()))).await?;
            Ok(Dispatch(Rc::new(Edge::new(app, handlers))))
        })
    }
}

/// Answers requests on one worker thread.
pub struct Dispatch(Rc<Edge>);

impl Service<ServiceRequest> for Dispatch {
    type Response = ServiceResponse;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<ServiceResponse, Error>>;

    actix_web::dev::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let edge = self.0.clone();
        Box::pin(async move { Ok(edge.answer(request).await) })
    }
}

struct Edge {
    app: App,
    matcher: Matcher,
    handlers: Vec<Handler>,
    meters: Vec<Meter>,
    unmatched: Meter,
    ids: IdSource,
    body: BodyLimits,
    is_tls: bool,
    served: Cell<u64>,
}

/// What is known of a request when it is answered.
struct Seen {
    started: Duration,
    request_id: Arc<str>,
    trace: Option<Trace>,
    is_api: bool,
    is_scim: bool,
    row: Option<usize>,
}

/// Why a handler's answer was not used.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the handler panicked")]
    Panicked,
    #[error("the handler answered {0} without saying why")]
    Unexplained(StatusCode),
}

impl Edge {
    fn new(app: App, handlers: Vec<Handler>) -> Self {
        let timeout = Duration::from_millis(app.config.limits.request_timeout_ms);
        Self {
            matcher: Matcher::new(&ROUTES),
            handlers,
            meters: ROUTES.iter().map(|route| app.metrics.meter(route.id)).collect(),
            unmatched: app.metrics.meter(UNMATCHED),
            ids: IdSource::new(&app.env),
            body: BodyLimits { bytes_max: app.config.limits.body_bytes_max, timeout },
            is_tls: app.config.http.tls.is_some(),
            served: Cell::new(0),
            app,
        }
    }

    async fn answer(&self, request: ServiceRequest) -> ServiceResponse {
        let mut seen = Seen {
            started: self.app.env.monotonic(),
            request_id: self.ids.request_id(request.headers()),
            trace: Trace::join(request.headers(), &self.ids),
            is_api: request.path().starts_with("/v1/") || is_scim(request.path()),
            is_scim: is_scim(request.path()),
            row: None,
        };
        match self.matcher.find(request.path(), Verb::of(request.method())) {
            Matched::Row { index, params } => {
                seen.row = Some(index);
                let peer = request.peer_addr().map(|peer| peer.ip());
                let ip =
                    request::client(peer, request.headers(), &self.app.config.http.trusted_proxies);
                let mut context = RequestContext::new(
                    seen.request_id.clone(),
                    seen.trace.clone(),
                    ip,
                    &ROUTES[index],
                    params,
                );
                context.body = self.body;
                let context = Rc::new(context);
                request.extensions_mut().insert(context.clone());
                let response = self.handle(index, &context, request).await;
                let decisions = context.rate.borrow();
                self.finish(&seen, Some(&context), &decisions, response)
            }
            Matched::WrongVerb { allow } => {
                let problem = Problem::new(Kind::METHOD_NOT_ALLOWED)
                    .header(header::ALLOW, HeaderValue::from_static(allow));
                self.finish(&seen, None, &[], request.error_response(problem))
            }
            Matched::Unknown => {
                self.finish(&seen, None, &[], request.error_response(Problem::not_found()))
            }
        }
    }

    /// From a matched request to an answer, the handler's or a refusal.
    async fn handle(
        &self,
        index: usize,
        context: &RequestContext,
        request: ServiceRequest,
    ) -> ServiceResponse {
        match allowed::admit(&self.app, &request, context).await {
            Ok(()) => {
                let response = self.call(index, request).await;
                allowed::learn(&self.app, context, response.status());
                response
            }
            Err(refused) => {
                self.app.metrics.refused(refused.kind().code);
                request.error_response(refused)
            }
        }
    }

    async fn call(&self, index: usize, request: ServiceRequest) -> ServiceResponse {
        // A second handle on the request, for the case that the handler takes the first one down.
        let spare = request.request().clone();
        match AssertUnwindSafe(self.handlers[index].call(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => ServiceResponse::from_err(error, spare),
            Err(_panic) => {
                self.app.metrics.panicked();
                ServiceResponse::from_err(Problem::internal(Fault::Panicked), spare)
            }
        }
    }

    /// Explains what is unexplained, logs what caused it, adds the headers, counts.
    fn finish(
        &self,
        seen: &Seen,
        context: Option<&RequestContext>,
        decisions: &[Decision],
        response: ServiceResponse,
    ) -> ServiceResponse {
        let mut response = explain(response);
        if let Some(problem) = response.response().error().and_then(Error::as_error::<Problem>) {
            log_cause(seen, problem);
        }
        if seen.is_scim {
            response = scim::error::translate(response);
        } else {
            response = refusal::shown(response, &seen.request_id, seen.is_api);
        }
        let status = response.status();
        let with = Sealing {
            request_id: &seen.request_id,
            trace: seen.trace.as_ref(),
            decisions,
            is_api: seen.is_api,
            is_tls: self.is_tls,
        };
        headers::seal(response.headers_mut(), &with);
        let took = self.app.env.monotonic().saturating_sub(seen.started);
        let meter = seen.row.map_or(&self.unmatched, |row| &self.meters[row]);
        meter.count(status.as_u16(), took.as_secs_f64());
        self.log(seen, context, status, took);
        response
    }

    /// One line for what failed, was refused or was slow, and for a sample of the rest.
    fn log(
        &self,
        seen: &Seen,
        context: Option<&RequestContext>,
        status: StatusCode,
        took: Duration,
    ) {
        let served = self.served.get().wrapping_add(1);
        self.served.set(served);
        let is_slow = took.as_millis() >= u128::from(SLOW_MS);
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if !(is_slow || is_refused || status.is_server_error() || served.is_multiple_of(LOG_ONE_IN))
        {
            return;
        }
        let tenant =
            context.and_then(|context| context.grant.get()).map(|grant| grant.tenant().to_string());
        tracing::info!(
            target: "bulkhead::access",
            request_id = &*seen.request_id,
            trace_id = seen.trace.as_ref().map(Trace::id),
            route = seen.row.map_or(UNMATCHED, |row| ROUTES[row].id),
            status = status.as_u16(),
            duration_ms = took.as_secs_f64() * 1_000.0,
            tenant.id = tenant,
            "request answered",
        );
    }
}

/// An error that did not come through [`Problem`], such as an extractor's of the framework, becomes one.
fn explain(response: ServiceResponse) -> ServiceResponse {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let is_problem =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == MEDIA_TYPE);
    if is_problem {
        return response;
    }
    let kind = match status {
        StatusCode::NOT_FOUND => Kind::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED => Kind::METHOD_NOT_ALLOWED,
        StatusCode::REQUEST_TIMEOUT => Kind::TOO_SLOW,
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Kind::UNSUPPORTED_MEDIA,
        StatusCode::UNPROCESSABLE_ENTITY => Kind::INVALID,
        status if status.is_client_error() => Kind::BAD_REQUEST,
        _ => Kind::INTERNAL,
    };
    let problem = Problem::new(kind).cause(Fault::Unexplained(status));
    response.into_response(HttpResponse::from_error(problem))
}

/// The one place where a cause is written down.
fn log_cause(seen: &Seen, problem: &Problem) {
    let Some(cause) = problem.cause_text() else { return };
    let (request_id, trace_id) = (&*seen.request_id, seen.trace.as_ref().map(Trace::id));
    let route = seen.row.map_or(UNMATCHED, |row| ROUTES[row].id);
    let code = problem.kind().code;
    if problem.kind() == Kind::INTERNAL {
        tracing::error!(request_id, trace_id, route, problem = code, cause, "a request failed");
    } else {
        tracing::info!(request_id, trace_id, route, problem = code, cause, "a request was refused");
    }
}

#[cfg(test)]
mod tests;
