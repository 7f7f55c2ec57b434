//! Errors in SCIM's form (RFC 7644 §3.12), made of the problem that everybody else is answered with.
//!
//! The status stays, but for 422, which SCIM does not know; so do the headers. `Link` names the problem,
//! so that a client finds in `/problems/CODE` what to do about it.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actors::tenant::scim::schema::ERROR_URN;
use serde_json::{Value, json};

use super::MEDIA_TYPE;
use crate::http::problem::{Kind, Problem};

/// The member of a problem that says of which kind of SCIM it is.
pub const SCIM_TYPE: &str = "scimType";

/// The answer in SCIM's form, if it is an error.
pub(crate) fn translate(response: ServiceResponse) -> ServiceResponse {
    let error = response.response().error();
    let Some(problem) = error.and_then(actix_web::Error::as_error::<Problem>) else {
        return response;
    };
    let status = match problem.kind().status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    let body = body(problem, status).to_string();
    let link = format!("<{}>; rel=\"help\"", problem.kind().uri());
    let mut made = HttpResponse::with_body(status, BoxBody::new(body));
    for (name, value) in response.headers() {
        made.headers_mut().append(name.clone(), value.clone());
    }
    made.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    // Codes are kebab-case, so they always are header values.
    if let Ok(link) = HeaderValue::from_str(&link) {
        made.headers_mut().insert(header::LINK, link);
    }
    response.into_response(made)
}

fn body(problem: &Problem, status: StatusCode) -> Value {
    let mut body = json!({
        "schemas": [ERROR_URN],
        "status": status.as_u16().to_string(),
        "detail": detail(problem),
    });
    if let Some(scim_type) = scim_type(problem) {
        body[SCIM_TYPE] = scim_type.into();
    }
    body
}

fn scim_type(problem: &Problem) -> Option<&str> {
    let kind = problem.kind();
    if kind == Kind::EMAIL_TAKEN || kind == Kind::TEAM_NAME_TAKEN {
        Some("uniqueness")
    } else if kind == Kind::MALFORMED {
        Some("invalidSyntax")
    } else if kind == Kind::INVALID {
        Some("invalidValue")
    } else {
        problem.member(SCIM_TYPE).and_then(Value::as_str)
    }
}

/// All that the problem says, in one text for people.
fn detail(problem: &Problem) -> String {
    let mut text = problem.kind().title.to_owned();
    if let Some(more) = problem.detail_text() {
        text = format!("{text}: {more}");
    }
    for error in problem.field_errors() {
        text = format!("{text}; {} {}", error.pointer, error.message);
    }
    for (name, of) in [("action", "needs"), ("quota", "of"), ("limit", "limit")] {
        match problem.member(name) {
            Some(Value::String(value)) => text = format!("{text}; {of} {value}"),
            Some(Value::Number(value)) => text = format!("{text}; {of} {value}"),
            _ => {}
        }
    }
    text
}
