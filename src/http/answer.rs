//! Answers: the few shapes that every resource gives.
//!
//! Records arrive here as the JSON bytes they are stored as; nothing is encoded twice. Errors are
//! not answered here but in [`problem`](crate::http::problem).

use std::fmt::Write as _;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    self, Accept, Header as _, HeaderMap, HeaderName, HeaderValue, Quality,
};
use actix_web::mime::{self, Mime};
use actix_web::{HttpRequest, HttpResponse};
use actors::call::{Answered, Document, Page};
use serde::Serialize;

use crate::http::problem::Problem;

const XHTML: &str = "application/xhtml+xml";

/// Marks the answer to a repeated request.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Whether a request comes from somebody who looks at pages: they are what it likes best.
pub(crate) fn wants_page(request: &HttpRequest) -> bool {
    let Ok(accept) = Accept::parse(request) else { return false };
    let is_page = |media: &Mime| *media == mime::TEXT_HTML || media.essence_str() == XHTML;
    let best = accept.iter().map(|item| item.quality).max();
    let mut liked = accept.iter().filter(|item| Some(item.quality) == best);
    best.is_some_and(|best| best > Quality::ZERO) && liked.any(|item| is_page(&item.item))
}

/// JSON bytes with a status.
pub fn bytes(status: StatusCode, json: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(json));
    let media = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

/// Anything that serialises, as JSON.
///
/// # Errors
/// [`Kind::INTERNAL`](crate::http::problem::Kind::INTERNAL) if it does not serialise.
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<HttpResponse, Problem> {
    Ok(bytes(status, serde_json::to_vec(value).map_err(Problem::internal)?))
}

/// 204: done, and nothing to say.
pub fn no_content() -> HttpResponse {
    HttpResponse::with_body(StatusCode::NO_CONTENT, BoxBody::new(()))
}

/// 201: a record was made, and this is where it lives.
pub fn created(answered: Answered<Document>, location: &str) -> HttpResponse {
    let mut response = record(StatusCode::CREATED, answered.reply);
    // Locations are made from ids; one that is not a header value is a path nobody can follow.
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    replayed(response, answered.replayed)
}

/// 200: a record was changed, and this is what it is now.
pub fn updated(answered: Answered<Document>) -> HttpResponse {
    replayed(record(StatusCode::OK, answered.reply), answered.replayed)
}

/// 200: one record with its `ETag`, or 304 if the client has that version (RFC 9110 §13.1.2).
pub fn document(request: &HttpRequest, document: Document) -> HttpResponse {
    if has_version(request.headers(), document.version) {
        let mut response = HttpResponse::with_body(StatusCode::NOT_MODIFIED, BoxBody::new(()));
        response.headers_mut().insert(header::ETAG, etag(document.version));
        return response;
    }
    record(StatusCode::OK, document)
}

/// 200: a page of a list.
pub fn page(page: Page) -> HttpResponse {
    let room: usize = page.items.iter().map(|item| item.len() + 1).sum();
    let mut json = Vec::with_capacity(room + 64);
    json.extend_from_slice(b"{\"items\":[");
    for (index, item) in page.items.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(item);
    }
    json.extend_from_slice(b"],\"next_cursor\":");
    match &page.next {
        Some(cursor) => {
            json.extend_from_slice(serde_json::Value::from(cursor.as_str()).to_string().as_bytes())
        }
        None => json.extend_from_slice(b"null"),
    }
    json.push(b'}');
    bytes(StatusCode::OK, json)
}

/// Marks the answer if it is that of an earlier request with the same key.
pub fn replayed(mut response: HttpResponse, replayed: bool) -> HttpResponse {
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn record(status: StatusCode, document: Document) -> HttpResponse {
    let mut response = bytes(status, document.json.into_vec());
    response.headers_mut().insert(header::ETAG, etag(document.version));
    response
}

/// The `ETag` of a version: strong, `"7"`.
pub fn etag(version: u64) -> HeaderValue {
    let mut text = String::with_capacity(22);
    // A failed write to a `String` cannot happen.
    let _ = write!(text, "\"{version}\"");
    HeaderValue::from_str(&text).expect("quotes and digits are a header value")
}

/// Whether `If-None-Match` names the version, by weak comparison as the standard asks.
fn has_version(headers: &HeaderMap, version: u64) -> bool {
    headers.get_all(header::IF_NONE_MATCH).filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|tag| {
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let named = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            tag == "*" || named.is_some_and(|named| named.parse() == Ok(version))
        })
    })
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;

    use super::*;

    fn form(version: u64) -> Document {
        Document { version, json: br#"{"id":"fm_1"}"#.to_vec().into() }
    }

    #[test]
    fn a_known_version_is_not_sent_again() {
        for known in ["\"7\"", "W/\"7\"", "\"1\", \"7\"", "*"] {
            let request =
                TestRequest::get().insert_header(("if-none-match", known)).to_http_request();
            assert_eq!(document(&request, form(7)).status(), 304, "{known}");
        }
        let request =
            TestRequest::get().insert_header(("if-none-match", "\"6\"")).to_http_request();
        let response = document(&request, form(7));
        assert_eq!(
            (response.status().as_u16(), response.headers().get(header::ETAG).expect("set")),
            (200, &etag(7))
        );
    }

    #[test]
    fn only_who_likes_pages_best_gets_them() {
        for (accept, is_page) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true),
            ("text/html", true),
            ("text/html;q=0.9, application/json;q=0.5", true),
            ("application/json, text/html;q=0.9", false),
            ("application/json", false),
            ("*/*", false),
            ("text/html;q=0", false),
            ("", false),
            ("text/", false),
        ] {
            let request =
                TestRequest::get().insert_header((header::ACCEPT, accept)).to_http_request();
            assert_eq!(wants_page(&request), is_page, "{accept}");
        }
        assert!(!wants_page(&TestRequest::get().to_http_request()), "who says nothing");
    }

    #[test]
    fn a_replayed_creation_says_so() {
        let first = created(Answered { reply: form(1), replayed: false }, "/v1/forms/fm_1");
        assert!(!first.headers().contains_key(REPLAYED));
        assert_eq!(first.headers().get(header::LOCATION).expect("set"), "/v1/forms/fm_1");
        let second = created(Answered { reply: form(1), replayed: true }, "/v1/forms/fm_1");
        assert_eq!(
            (second.status().as_u16(), second.headers().get(REPLAYED).expect("set")),
            (201, &HeaderValue::from_static("true"))
        );
    }

    #[actix_rt::test]
    async fn a_page_is_one_json_object_with_its_cursor() {
        let items = vec![b"{\"n\":1}".to_vec().into(), b"{\"n\":2}".to_vec().into()];
        for (next, expected) in [(None, "null"), (Some("a\"b".to_owned()), r#""a\"b""#)] {
            let response = page(Page { items: items.clone(), next });
            let body = to_bytes(response.into_body()).await.expect("a body");
            assert_eq!(
                body,
                format!(r#"{{"items":[{{"n":1}},{{"n":2}}],"next_cursor":{expected}}}"#)
            );
        }
    }
}
