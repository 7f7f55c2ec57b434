//! `?as_of=`: the same answer as it would have been at an earlier time.
//!
//! Such an answer says which state it is of in `Bulkhead-As-Of` and has no `ETag`: a version of the
//! past must never be taken for the present one. Who may ask is checked in
//! [`allowed`](crate::http::allowed). Refuses: texts that are no time.

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse};
use actors::call::{Document, Page};
use actors::env::{parse_rfc3339, rfc3339};

use crate::http::answer;
use crate::http::extract::parse_pairs;
use crate::http::problem::Problem;

/// The query parameter.
pub(crate) const AS_OF: &str = "as_of";
/// Where in a request it stands, as problems say it.
pub(crate) const POINTER: &str = "query/as_of";
/// The header of the answer: the stamp of the last record of the state it is of.
pub const STAMP: HeaderName = HeaderName::from_static("bulkhead-as-of");

/// Whether a query string names the parameter. Names are compared as they arrive, as everywhere.
pub(crate) fn is_asked_for(query: &str) -> bool {
    query.split('&').any(|pair| pair.split_once('=').map_or(pair, |(name, _)| name) == AS_OF)
}

/// The time that a query string names, Unix milliseconds.
///
/// # Errors
/// [`Kind::INVALID`](crate::http::problem::Kind::INVALID) at [`POINTER`] if it is none.
pub(crate) fn asked_for(query: &str) -> Result<Option<u64>, Problem> {
    if !is_asked_for(query) {
        return Ok(None);
    }
    let named = parse_pairs(query)?.into_iter().find(|(name, _)| name == AS_OF);
    let at_ms = named.and_then(|(_, text)| parse_rfc3339(&text)).ok_or_else(|| {
        let message = "must be a time since 1970 such as 2031-05-17T08:30:00Z; a + is written %2B";
        Problem::invalid(POINTER, message)
    })?;
    Ok(Some(at_ms))
}

/// What a look at a tenant gave: at the present, or at an earlier time.
#[derive(Debug)]
pub struct Looked<T> {
    /// The answer.
    pub reply: T,
    /// The stamp of the state it is of, Unix milliseconds; nothing for the present.
    pub as_of_ms: Option<u64>,
}

impl<T> Looked<T> {
    /// At the present.
    pub fn now(reply: T) -> Self {
        Self { reply, as_of_ms: None }
    }
}

impl Looked<Document> {
    /// One record. Of the present with its `ETag`, or 304 if the client has that version.
    pub fn document(self, request: &HttpRequest) -> HttpResponse {
        match self.as_of_ms {
            None => answer::document(request, self.reply),
            Some(at_ms) => {
                stamped(answer::bytes(StatusCode::OK, self.reply.json.into_vec()), at_ms)
            }
        }
    }
}

impl Looked<Page> {
    /// A page of a list.
    pub fn page(self) -> HttpResponse {
        let response = answer::page(self.reply);
        match self.as_of_ms {
            None => response,
            Some(at_ms) => stamped(response, at_ms),
        }
    }
}

fn stamped(mut response: HttpResponse, at_ms: u64) -> HttpResponse {
    debug_assert!(!response.headers().contains_key(header::ETAG));
    let text = HeaderValue::from_str(&rfc3339(at_ms)).expect("a time in digits is a header value");
    response.headers_mut().insert(STAMP, text);
    response
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::problem::Kind;

    #[test]
    fn a_time_is_read_with_any_offset_and_nothing_else_is_one() {
        let read = |query| asked_for(query).map_err(|problem| problem.kind());
        assert_eq!(read("limit=1"), Ok(None));
        assert_eq!(read("limit=1&as_of=1970-01-01T00:00:01Z"), Ok(Some(1_000)));
        assert_eq!(read("as_of=1970-01-01T02%3A00%3A01.5%2B02%3A00"), Ok(Some(1_500)));
        for bad in [
            "as_of",
            "as_of=",
            "as_of=now",
            "as_of=2031-05-17",
            "as_of=1969-12-31T23:59:59Z",
            "as_of=1970-01-01T02:00:01+02:00",
            "as_of=1970-01-01T00:00:01Z&as_of=1970-01-01T00:00:01Z",
        ] {
            assert_eq!(read(bad), Err(Kind::INVALID), "{bad}");
        }
    }

    #[test]
    fn an_answer_of_the_past_is_never_a_version_of_the_present() {
        let document = || Document { version: 7, json: br#"{"id":"fm_1"}"#.to_vec().into() };
        let request =
            TestRequest::get().insert_header(("if-none-match", "\"7\"")).to_http_request();
        let now = Looked::now(document()).document(&request);
        assert_eq!(now.status(), StatusCode::NOT_MODIFIED);
        assert!(!now.headers().contains_key(STAMP));
        let past = Looked { reply: document(), as_of_ms: Some(1_500) }.document(&request);
        assert_eq!(past.status(), StatusCode::OK);
        assert!(!past.headers().contains_key(header::ETAG));
        assert_eq!(past.headers().get(STAMP).expect("set"), "1970-01-01T00:00:01.500Z");
    }
}
