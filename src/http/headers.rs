//! The headers that every answer carries, errors included.
//!
//! A handler may set its own `Content-Security-Policy` and `Cache-Control`; it cannot unset the rest.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actors::rate::Decision;

use crate::http::request::{REQUEST_ID, TRACEPARENT, Trace};

/// For answers that are data: nothing may be loaded, framed or sent anywhere.
pub const DATA_POLICY: &str =
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// For pages: styles and pictures from here, no script at all.
pub const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// For pages whose one script, from here, talks to this node.
pub const ACCOUNT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     connect-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// One year, subdomains included (RFC 6797).
pub const STRICT_TRANSPORT: &str = "max-age=31536000; includeSubDomains";

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What the answer to one request says of that request.
pub(crate) struct Sealing<'a> {
    pub request_id: &'a str,
    pub trace: Option<&'a Trace>,
    pub decisions: &'a [Decision],
    pub is_api: bool,
    pub is_tls: bool,
}

/// Adds the headers of every answer.
pub(crate) fn seal(headers: &mut HeaderMap, with: &Sealing<'_>) {
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DATA_POLICY));
    }
    if with.is_api && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if with.is_tls {
        headers
            .insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(STRICT_TRANSPORT));
    }
    insert_text(headers, REQUEST_ID, with.request_id);
    if let Some(trace) = with.trace {
        insert_text(headers, TRACEPARENT, &trace.traceparent);
    }
    rate(headers, with.decisions);
}

/// `RateLimit-Policy` and `RateLimit`: every budget that this request was charged to.
fn rate(headers: &mut HeaderMap, decisions: &[Decision]) {
    let joined = |field: fn(&Decision) -> Option<String>| {
        decisions.iter().filter_map(field).reduce(|all, one| all + ", " + &one)
    };
    if let Some(policies) = joined(Decision::policy_field) {
        insert_text(headers, RATE_LIMIT_POLICY, &policies);
    }
    if let Some(budgets) = joined(Decision::limit_field) {
        insert_text(headers, RATE_LIMIT, &budgets);
    }
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Ids, digits and policy names are visible ASCII; anything else is left out rather than mangled.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(is_api: bool, is_tls: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let trace = None;
        seal(&mut headers, &Sealing { request_id: "r1", trace, decisions: &[], is_api, is_tls });
        headers
    }

    #[test]
    fn every_answer_is_unframeable_unsniffable_and_unreferred() {
        let headers = sealed(false, false);
        assert_eq!(headers.get("x-frame-options").expect("set"), "DENY");
        assert_eq!(headers.get("x-content-type-options").expect("set"), "nosniff");
        assert_eq!(headers.get("referrer-policy").expect("set"), "no-referrer");
        assert_eq!(headers.get("content-security-policy").expect("set"), DATA_POLICY);
        assert_eq!(headers.get("x-request-id").expect("set"), "r1");
        assert!(!headers.contains_key("strict-transport-security"));
        assert!(!headers.contains_key("cache-control"));
    }

    #[test]
    fn answers_of_the_api_are_not_stored_and_tls_is_strict() {
        let headers = sealed(true, true);
        assert_eq!(headers.get("cache-control").expect("set"), "no-store");
        assert_eq!(headers.get("strict-transport-security").expect("set"), STRICT_TRANSPORT);
    }

    #[test]
    fn a_page_keeps_its_own_policy() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
        let with =
            Sealing { request_id: "r", trace: None, decisions: &[], is_api: false, is_tls: false };
        seal(&mut headers, &with);
        assert_eq!(headers.get("content-security-policy").expect("set"), PAGE_POLICY);
        assert!(!PAGE_POLICY.contains("unsafe"));
    }
}
