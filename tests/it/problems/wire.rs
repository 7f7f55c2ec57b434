//! Heads of requests and answers: credentials, ids, traces, sizes and times.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::{ask, assert_problem, assert_sealed, read};
use crate::kit::{Reply, World, WorldOptions, eventually, raw};

#[test]
fn answers_of_every_kind_carry_the_security_headers() {
    let world = World::start();
    let ada = world.tenant("ada");
    let form = ada.form("F");
    let created = ada.owner.post("/v1/forms", json!({"title": "T", "schema": {}}), 201);
    let read = ada.owner.get(&format!("/v1/forms/{form}"), 200);
    let known = ada.owner.with_header("if-none-match", read.header("etag").expect("an ETag"));
    let html = world.client.with_header("accept", "text/html");
    let team = ada.owner.post("/v1/teams", json!({"name": "T", "members": []}), 201).str("/id");
    let answers = [
        ("201", created),
        ("200", read),
        ("304", known.get(&format!("/v1/forms/{form}"), 304)),
        ("204", ada.owner.delete(&format!("/v1/teams/{team}"), 204)),
        ("the landing page", html.get("/", 200)),
        ("/docs", html.get("/docs", 200)),
        ("/problems", html.get("/problems", 200)),
        ("the style sheet", world.client.get("/docs/style.css", 200)),
        ("/openapi.json", world.client.get("/openapi.json", 200)),
        ("security.txt", world.client.get("/.well-known/security.txt", 200)),
        ("404", world.client.get("/nothing", 404)),
        ("405", world.client.delete("/docs", 405)),
    ];
    for (what, reply) in &answers {
        assert_sealed(what, reply);
    }
    for (what, reply) in &answers[..4] {
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
    }
}

#[test]
fn anything_but_one_good_bearer_token_is_no_credential() {
    let world = World::start();
    let ada = world.tenant("ada");
    let token = ada.owner.token.as_deref().expect("a token");
    let good = format!("authorization: Bearer {token}");
    assert_eq!(ask(&world.client.base, "GET /v1/me", &[&good]).status, 200);
    let none = [
        vec![],
        vec![good.clone(), good.clone()],
        vec![good, "authorization: Basic b3A6".to_owned()],
        vec!["authorization:".to_owned()],
        vec!["authorization: Bearer".to_owned()],
        vec![format!("authorization: {token}")],
        vec![format!("authorization: Basic {token}")],
        vec![format!("authorization: Token {token}")],
        vec![format!("authorization: Bearer\u{e9} {token}")],
        vec![format!("cookie: session={token}")],
        vec![format!("x-api-key: {token}")],
    ];
    for headers in none {
        let lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        let reply = ask(&world.client.base, "GET /v1/me", &lines);
        assert_problem(&headers.join(" | "), &reply, 401, "unauthenticated");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    for value in [
        format!("Bearer  {token}"),
        format!("Bearer {token}x"),
        format!("Bearer {token} {token}"),
        "Bearer a.b.c".to_owned(),
        format!("Bearer {}", "a".repeat(5_000)),
    ] {
        let reply = ask(&world.client.base, "GET /v1/me", &[&format!("authorization: {value}")]);
        assert_problem(&value[..value.len().min(40)], &reply, 401, "invalid-token");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let query = ask(&world.client.base, &format!("GET /v1/me?access_token={token}"), &[]);
    assert_problem("a token in the query", &query, 401, "unauthenticated");
}

#[test]
fn a_sane_request_id_is_echoed_and_any_other_replaced() {
    let world = World::start();
    let answered = |headers: &[&str]| {
        let reply = ask(&world.client.base, "GET /nothing", headers);
        reply.header("x-request-id").expect("an id").to_owned()
    };
    for id in ["a", "01J8-request_id.7", &"x".repeat(64)] {
        assert_eq!(answered(&[&format!("x-request-id: {id}")]), id);
    }
    let long = "x".repeat(65);
    for id in [long.as_str(), "a b", "<script>", "a\"b", "caf\u{e9}", "a,b", ""] {
        let made = answered(&[&format!("x-request-id: {id}")]);
        assert_ne!(made, id);
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    }
    assert_ne!(answered(&["x-request-id: a", "x-request-id: b"]).len(), 1, "two ids are none");
    assert_ne!(answered(&[]), answered(&[]), "two requests share an id");
}

#[test]
fn a_request_id_joins_the_answer_with_the_audit_entry() {
    let world = World::start();
    let ada = world.tenant("ada");
    let named = ada.owner.with_header("x-request-id", "the-one-that-matters");
    named.post("/v1/forms", json!({"title": "T", "schema": {}}), 201);
    let entries = ada.owner.get("/v1/audit", 200).json();
    let entries = entries["items"].as_array().expect("a list").clone();
    let entry = entries.iter().find(|entry| entry["request_id"] == "the-one-that-matters");
    assert_eq!(entry.expect("the entry of the request")["action"], "form.create");
}

#[test]
fn a_given_trace_is_joined_with_a_span_of_our_own() {
    let world = World::start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = |headers: &[&str]| ask(&world.client.base, "GET /version", headers);
    let joined = answer(&[&format!("traceparent: {parent}")]);
    let ours = joined.header("traceparent").expect("a trace");
    assert!(
        ours.starts_with(&format!("00-{trace}-")) && ours.ends_with("-01") && ours.len() == 55,
        "{ours}"
    );
    assert_ne!(ours, parent, "a span of its own");
    let broken = [
        format!("00-{trace}-00f067aa0ba902b7"),
        format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        format!("00-{trace}-{}-01", "0".repeat(16)),
        format!("ff-{trace}-00f067aa0ba902b7-01"),
        format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
        "nonsense".to_owned(),
    ];
    for parent in &broken {
        let reply = answer(&[&format!("traceparent: {parent}")]);
        assert_eq!((reply.status, reply.header("traceparent")), (200, None), "{parent}");
    }
    let twice = answer(&[&format!("traceparent: {parent}"), &format!("traceparent: {parent}")]);
    assert_eq!((twice.status, twice.header("traceparent")), (200, None));
}

#[test]
fn head_is_get_without_the_body() {
    let world = World::start();
    let ada = world.tenant("ada");
    let form = ada.form("F");
    let token = format!("authorization: Bearer {}", ada.owner.token.as_deref().expect("a token"));
    for path in
        ["/version", "/openapi.json", "/docs", "/v1/me", &format!("/v1/forms/{form}"), "/nothing"]
    {
        let get = ask(&world.client.base, &format!("GET {path}"), &[&token]);
        let head = ask(&world.client.base, &format!("HEAD {path}"), &[&token]);
        let ((status, headers, body), (_, wanted, _)) = (head.essence(), get.essence());
        assert_eq!((status, &headers), (get.status, &wanted), "{path}");
        assert!(body.is_empty(), "{path}: {}", head.text());
        assert!(!get.body.is_empty(), "{path}");
    }
    let wrong = ask(&world.client.base, "HEAD /v1/auth/sign-in", &[]);
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
}

#[test]
fn a_body_where_none_is_taken_is_passed_over() {
    let world = World::start();
    let ada = world.tenant("ada");
    let token = ada.owner.token.as_deref().expect("a token");
    let request = |body: &str| {
        format!(
            "GET /v1/me HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    // A second request follows on the same connection: the body must not be read as one.
    let smuggled = "GET /v1/forms HTTP/1.1\r\nhost: node\r\n\r\n";
    let both = format!(
        "{}GET /version HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n",
        request(smuggled)
    );
    let answers = raw(&world.client.base, both.as_bytes());
    let statuses: Vec<&str> =
        answers.lines().filter(|line| line.starts_with("HTTP/1.1 ")).collect();
    assert!(statuses.len() <= 2, "the body was taken for a request: {answers}");
    assert_eq!(statuses[0], "HTTP/1.1 200 OK", "{answers}");
    assert!(statuses.get(1).is_none_or(|second| *second == "HTTP/1.1 200 OK"), "{answers}");
}

/// What is not HTTP is cut off below the routes: an empty refusal, and the connection is closed.
fn assert_cut(what: &str, reply: &Reply, statuses: &[u16]) {
    assert!(statuses.contains(&reply.status), "{what}: {}", reply.status);
    assert!(reply.body.is_empty(), "{what}: {}", reply.text());
}

#[test]
fn what_is_not_http_is_cut_off_without_a_word() {
    let world = World::start();
    world.tenant("ada");
    let base = &world.client.base;
    let broken = [
        "nonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: node\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: node\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: node\r\nname : value\r\n\r\n",
        "POST /v1/auth/sign-in HTTP/1.1\r\nhost: node\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "POST /v1/auth/sign-in HTTP/1.1\r\nhost: node\r\ncontent-length: -1\r\n\r\n{}",
        "POST /v1/auth/sign-in HTTP/1.1\r\nhost: node\r\ncontent-length: +2\r\n\r\n{}",
        "POST /v1/auth/sign-in HTTP/1.1\r\nhost: node\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/auth/sign-in HTTP/1.1\r\nhost: node\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
    ];
    for request in broken {
        assert_cut(request, &read(&raw(base, request.as_bytes())), &[400]);
    }
    // A head without end is cut before it fills memory.
    let mut head = b"GET / HTTP/1.1\r\nhost: node\r\nx-filler: ".to_vec();
    head.extend(std::iter::repeat_n(b'a', 140 * 1024));
    assert_cut("a large header", &read(&raw(base, &head)), &[413, 431]);
    let many: String = (0..200).map(|at| format!("x-{at}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: node\r\n{many}\r\n");
    assert_cut("many headers", &read(&raw(base, many.as_bytes())), &[413, 431]);
    world.client.get("/version", 200);
}

#[test]
fn a_head_that_trickles_is_cut_off() {
    let world = WorldOptions::default().set("limits.header_timeout_ms", 300).start();
    world.tenant("ada");
    let address = world.client.base.trim_start_matches("http://");
    let mut slow = TcpStream::connect(address).expect("a listening server");
    slow.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    slow.write_all(b"GET /version HTTP/1.1\r\nhost: node\r\n").expect("a writable connection");
    let mut answer = Vec::new();
    eventually("a slow client is cut off", || {
        // A byte now and then keeps the connection busy, as a slow attacker would.
        let is_gone = slow.write_all(b"x").is_err();
        let mut part = [0; 512];
        match slow.read(&mut part) {
            Ok(0) => Some(()),
            Ok(count) => {
                answer.extend_from_slice(&part[..count]);
                None
            }
            Err(_) => is_gone.then_some(()),
        }
    });
    if !answer.is_empty() {
        assert_cut("a slow head", &read(&String::from_utf8_lossy(&answer)), &[408]);
    }
    world.client.get("/version", 200);
}

#[test]
fn a_body_that_trickles_is_answered_408() {
    let world = WorldOptions::default().set("limits.request_timeout_ms", 300).start();
    let ada = world.tenant("ada");
    let token = ada.owner.token.as_deref().expect("a token");
    let head = format!(
        "POST /v1/forms HTTP/1.1\r\nhost: node\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    let reply = read(&raw(&world.client.base, head.as_bytes()));
    assert_problem("a slow body", &reply, 408, "request-timeout");
    assert_eq!(ada.owner.get("/v1/forms", 200).json()["items"], json!([]));
}
