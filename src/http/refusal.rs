//! What somebody sees who opens an address in a browser and is refused: a small page in the look of the others, with
//! the status and the headers that programs get.
//!
//! Programs, which prefer no page, keep the problem document. Refuses: to say more than the problem does, and to
//! tell what is absent from what is not the asker's to see.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use maud::{Markup, html};

use crate::http::account::SIGN_IN;
use crate::http::headers::PAGE_POLICY;
use crate::http::problem::{Kind, Problem};
use crate::http::{answer, docs, oidc};

/// The answer as a page, if it is a problem and a browser shows it to somebody.
pub(crate) fn shown(
    mut response: ServiceResponse,
    request_id: &str,
    is_api: bool,
) -> ServiceResponse {
    let request = response.request();
    let error = response.response().error();
    let problem = error.and_then(actix_web::Error::as_error::<Problem>);
    let (true, Some(problem)) = (matches!(*request.method(), Method::GET | Method::HEAD), problem)
    else {
        return response;
    };
    if !answer::wants_page(request) {
        // Nobody may keep what the API answers, so nobody has to tell one answer from the other.
        if is_api {
            return response;
        }
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        return response;
    }
    let place = request.uri().path_and_query().map_or("/", |place| place.as_str());
    let page = page(problem, response.headers(), place, request_id).into_string();
    let mut made = HttpResponse::with_body(response.status(), BoxBody::new(page));
    for (name, value) in response.headers() {
        made.headers_mut().append(name.clone(), value.clone());
    }
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::VARY, "accept"),
    ];
    for (name, value) in fixed {
        made.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.into_response(made)
}

fn page(problem: &Problem, headers: &HeaderMap, place: &str, request_id: &str) -> Markup {
    let kind = problem.kind();
    let (title, lead) = words(kind);
    let wait = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let content = html! {
        @if let Some(detail) = problem.detail_text() { p { (docs::prose(detail)) } }
        @for fault in problem.field_errors() { p { code { (fault.pointer) } " " (fault.message) } }
        @if let Some(seconds) = wait { p { "It can be asked again in " (seconds) " s." } }
        @if opens_with_a_session(kind) { p { a href=(sign_in(place)) { "Sign in" } } }
        @if kind.status.is_server_error() { p { "If it stays so, report it as " code { (request_id) } "." } }
        p { small { "For programs: " (kind.status.as_u16()) ", " a href=(kind.uri()) { (kind.title) } } }
    };
    docs::frame(title, lead, None, &content)
}

/// What happened and what to do, for people.
fn words(kind: &Kind) -> (&'static str, &'static str) {
    if *kind == *Kind::MFA_ENROLMENT_REQUIRED {
        let lead = "Everybody here needs one. Sign in, and you are led through it.";
        return ("Set up a second factor first", lead);
    }
    match kind.status {
        StatusCode::UNAUTHORIZED => {
            ("Sign in first", "What is here is shown to people who are signed in.")
        }
        StatusCode::FORBIDDEN => {
            ("You may not see this", "If you need to, ask an administrator of your organisation.")
        }
        StatusCode::NOT_FOUND => (
            "Nothing is here",
            "The address leads nowhere, or to something that is not yours to see.",
        ),
        StatusCode::METHOD_NOT_ALLOWED => {
            ("Nothing to look at", "This address is one for programs.")
        }
        StatusCode::TOO_MANY_REQUESTS => ("Too much at once", "Wait a little, then try again."),
        status if status.is_server_error() => {
            ("This does not work just now", "It is not your fault. Try again in a few minutes.")
        }
        _ => (
            "This cannot be shown",
            "Something in the address, or about what it leads to, is in the way.",
        ),
    }
}

fn opens_with_a_session(kind: &Kind) -> bool {
    kind.status == StatusCode::UNAUTHORIZED || *kind == *Kind::MFA_ENROLMENT_REQUIRED
}

/// The page to sign in at, which leads back here where that is a place to be led to.
fn sign_in(place: &str) -> String {
    let back = oidc::return_to("", Some(place.to_owned())).ok();
    let back = back.and_then(|place| serde_urlencoded::to_string([("return_to", place)]).ok());
    back.map_or_else(|| SIGN_IN.to_owned(), |query| format!("{SIGN_IN}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::KINDS;

    #[test]
    fn every_problem_has_a_page_for_people_that_shows_nothing_as_markup() {
        let headers = HeaderMap::new();
        for kind in KINDS.iter().copied() {
            let text = page(&Problem::new(kind), &headers, "/<b>\"&", "<i>").into_string();
            let links = text.contains(&format!("href=\"{}\"", kind.uri()));
            assert!(links && !text.contains("<b>") && !text.contains("<i>"), "{}", kind.code);
            assert_eq!(text.contains("&lt;i&gt;"), kind.status.is_server_error(), "{}", kind.code);
        }
    }

    #[test]
    fn one_is_led_back_to_a_place_of_this_host_only() {
        assert_eq!(sign_in("/v1/me?a=b"), "/account/sign-in?return_to=%2Fv1%2Fme%3Fa%3Db");
        for place in ["//elsewhere.example/", "/v1/auth/oidc/x/start", "elsewhere"] {
            assert_eq!(sign_in(place), "/account/sign-in", "{place}");
        }
    }
}
