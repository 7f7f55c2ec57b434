//! Ids, traces, addresses and keys, as hostile clients send them.

use actix_web::test::TestRequest;

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let request = pairs.iter().fold(TestRequest::get(), |request, (name, value)| {
        request.append_header((*name, value.to_string()))
    });
    request.to_http_request().headers().clone()
}

fn source() -> IdSource {
    IdSource::new(&Env::real())
}

#[test]
fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let ids = source();
    assert_eq!(&*ids.request_id(&headers(&[("x-request-id", "a.B_9-")])), "a.B_9-");
    let long = "x".repeat(65);
    for insane in ["", "a b", "a\"b", "a,b", long.as_str()] {
        let made = ids.request_id(&headers(&[("x-request-id", insane)]));
        assert_eq!(made.len(), 32, "{insane}");
    }
    let twice = ids.request_id(&headers(&[("x-request-id", "a"), ("x-request-id", "b")]));
    assert_eq!(twice.len(), 32);
    assert_ne!(ids.request_id(&headers(&[])), ids.request_id(&headers(&[])));
}

#[test]
fn a_valid_trace_is_joined_under_a_new_span() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = Trace::join(&headers(&[("traceparent", parent)]), &source()).expect("joined");
    assert_eq!(trace.id(), &parent[3..35]);
    assert_eq!(trace.traceparent.len(), 55);
    assert!(is_traceparent(&trace.traceparent));
    assert_ne!(trace.traceparent[36..52], parent[36..52]);
    assert_eq!(trace.traceparent[53..], parent[53..]);
}

#[test]
fn an_invalid_trace_is_not_joined() {
    let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
    let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
    for invalid in [
        "",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        zero_trace.as_str(),
        zero_span.as_str(),
    ] {
        assert_eq!(
            Trace::join(&headers(&[("traceparent", invalid)]), &source()),
            None,
            "{invalid}"
        );
    }
}

#[test]
fn forwarding_headers_count_only_behind_a_trusted_proxy() {
    let proxies = ["10.0.0.0/8", "::1"].map(|text| text.parse().expect("a network"));
    let client = |peer: &str, pairs: &[(&'static str, &str)]| {
        super::client(peer.parse().ok(), &headers(pairs), &proxies).map(|ip| ip.to_string())
    };
    let forged = [("x-forwarded-for", "1.1.1.1")];
    assert_eq!(client("192.0.2.7", &forged).as_deref(), Some("192.0.2.7"));
    assert_eq!(client("10.1.2.3", &forged).as_deref(), Some("1.1.1.1"));
    let chain = [("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.9.9.9")];
    assert_eq!(client("10.1.2.3", &chain).as_deref(), Some("203.0.113.9"));
    let rfc = [("forwarded", "for=6.6.6.6, for=\"[2001:db8::17]:4711\";proto=https")];
    assert_eq!(client("::1", &rfc).as_deref(), Some("2001:db8::17"));
    let hidden = [("forwarded", "for=6.6.6.6, for=_hidden")];
    assert_eq!(client("10.1.2.3", &hidden).as_deref(), Some("10.1.2.3"));
    assert_eq!(client("::ffff:10.1.2.3", &forged).as_deref(), Some("1.1.1.1"));
}

#[test]
fn an_idempotency_key_is_bound_to_who_and_what() {
    let request = |key: &str| {
        TestRequest::post()
            .uri("/v1/forms")
            .insert_header(("idempotency-key", key))
            .to_http_request()
    };
    let bare = idempotency(&request("k1"), "us_1").expect("usable").expect("a key");
    let quoted = idempotency(&request("\"k1\""), "us_1").expect("usable").expect("a key");
    assert_eq!(bare, quoted);
    assert_eq!(bare.scope, "us_1 POST /v1/forms k1");
    let long = "k".repeat(256);
    for unusable in ["", "\"\"", "a b", long.as_str()] {
        let problem = idempotency(&request(unusable), "us_1").expect_err("unusable");
        assert_eq!(problem.kind(), Kind::BAD_IDEMPOTENCY_KEY, "{unusable}");
    }
    assert!(idempotency(&TestRequest::post().to_http_request(), "us_1").expect("usable").is_none());
}
