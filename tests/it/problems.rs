//! Whatever goes wrong is said in a problem document, and nothing else is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::env::Faults;
use bulkhead::http::problem::KINDS;
use bulkhead::http::routes::{ROUTES, Verb};
use serde_json::{Value, json};
use storage::id::TenantId;

use crate::kit::{Client, Reply, World, WorldOptions, raw};

mod paths;
mod wire;

/// What a raw connection answered.
fn read(answer: &str) -> Reply {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let headers = lines.map(header).collect();
    let status = status.unwrap_or_else(|| panic!("no status: {answer:?}"));
    Reply { status, headers, body: body.as_bytes().to_vec() }
}

/// Sends a head as it is, without a body.
fn ask(base: &str, line: &str, headers: &[&str]) -> Reply {
    let mut request = format!("{line} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n");
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    read(&raw(base, format!("{request}\r\n").as_bytes()))
}

/// K19, K20: the headers of every answer.
fn assert_sealed(what: &str, reply: &Reply) {
    let fixed = [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ];
    for (name, value) in fixed {
        assert_eq!(reply.header(name), Some(value), "{what}: {name}");
    }
    let policy = reply.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'"), "{what}: {policy:?}");
    assert!(
        policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
        "{what}: {policy:?}"
    );
    assert!(reply.header("x-request-id").is_some_and(|id| id.len() >= 16), "{what}: no request id");
    assert_eq!(reply.header("server"), None, "{what}: says what it runs on");
    assert_eq!(reply.header("strict-transport-security"), None, "{what}: HSTS without TLS");
}

/// RFC 9457, and nothing of our insides.
fn assert_problem(what: &str, reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    assert_eq!(reply.problem(), code, "{what}");
    let body = reply.json();
    let kind = KINDS.iter().find(|kind| kind.code == code).expect("a kind in the table");
    assert_eq!(body["type"], kind.uri(), "{what}");
    assert_eq!(body["title"], kind.title, "{what}");
    assert_eq!(body["status"], status, "{what}");
    for (member, value) in body.as_object().expect("an object") {
        assert!(!value.is_null(), "{what}: {member} is null");
    }
    for inside in ["panicked", "backtrace", ".rs:", "src/", "called `", "RUST_"] {
        assert!(!reply.text().contains(inside), "{what}: shows {inside}: {}", reply.text());
    }
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
    let waits = reply
        .header("retry-after")
        .is_some_and(|after| after.parse::<u32>().is_ok_and(|seconds| seconds > 0));
    assert_eq!(waits, [429, 503].contains(&status), "{what}: Retry-After");
    let challenge =
        reply.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer"));
    assert_eq!(challenge, status == 401, "{what}: WWW-Authenticate");
    assert_sealed(what, reply);
}

/// Panics in reads, while it is told to.
#[derive(Default)]
struct Landmine {
    armed: AtomicBool,
}

impl Faults for Landmine {
    fn hit(&self, point: &'static str, _: TenantId) {
        assert!(
            point != "tenant.read" || !self.armed.swap(false, Ordering::SeqCst),
            "the landmine's text"
        );
    }
}

#[test]
fn every_refusal_is_a_problem_document_with_the_headers_of_every_answer() {
    let mine = Arc::new(Landmine::default());
    let world = WorldOptions::default()
        .faults(mine.clone())
        .set("signup.plan", "free")
        .set("rate.hooks.per_ip", "1/1m")
        .start();
    let ada = world.tenant("ada");
    let viewer = world.member(&ada, "viewer");
    let owner = &ada.owner;
    let form = ada.form("First");
    let place = format!("/v1/forms/{form}");
    let body = json!({"title": "T", "schema": {}});
    let hook = "/v1/hooks/nobody/in_1";
    let taken = json!({"tenant": {"slug": "ada", "name": "A"}, "email": "e@ada.example", "password": "correct horse battery"});
    let stale = owner.with_header("if-match", "\"99\"");
    let cases: Vec<(u16, &str, Reply)> = vec![
        (400, "malformed-body", owner.send("POST", "/v1/forms", Some("application/json"), b"{")),
        (
            400,
            "bad-idempotency-key",
            owner.with_header("idempotency-key", "a b").call("POST", "/v1/forms", Some(&body)),
        ),
        (401, "unauthenticated", world.client.call("GET", "/v1/me", None)),
        (401, "invalid-token", world.client.with_token("nonsense").call("GET", "/v1/me", None)),
        (
            401,
            "bad-credentials",
            world.client.call("POST", "/v1/auth/refresh", Some(&json!({"refresh_token": "r"}))),
        ),
        (403, "forbidden", viewer.call("POST", "/v1/forms", Some(&body))),
        (404, "not-found", owner.call("GET", "/v1/forms/fm_0", None)),
        (404, "not-found", world.client.call("GET", "/v1/nothing", None)),
        (405, "method-not-allowed", owner.call("DELETE", "/v1/me", None)),
        (409, "slug-taken", world.client.call("POST", "/v1/auth/sign-up", Some(&taken))),
        (412, "version-mismatch", stale.call("PATCH", &place, Some(&json!({"title": "Second"})))),
        (
            413,
            "body-too-large",
            owner.send("POST", "/v1/forms", Some("application/json"), &vec![b' '; 400 * 1024]),
        ),
        (415, "unsupported-media-type", owner.send("POST", "/v1/forms", Some("text/plain"), b"{}")),
        (422, "invalid", owner.call("POST", "/v1/forms", Some(&json!({})))),
        (404, "not-found", world.client.call("POST", hook, Some(&json!({})))),
        (429, "quota-exceeded", world.client.call("POST", hook, Some(&json!({})))),
    ];
    for (status, code, reply) in &cases {
        assert_problem(code, reply, *status, code);
        let kind = world.client.get(&reply.str("/type"), 200).json();
        assert_eq!(kind["code"], *code, "the type leads to its description");
    }
    while owner.call("POST", "/v1/forms", Some(&body)).status == 201 {}
    let full = owner.call("POST", "/v1/forms", Some(&body));
    assert_problem("a used-up plan", &full, 402, "plan-quota");
    mine.armed.store(true, Ordering::SeqCst);
    let broken = owner.call("GET", &place, None);
    assert_problem("a panic", &broken, 500, "internal");
    assert!(!broken.text().contains("landmine"));
    owner.get(&place, 200);
}

/// Where the first error of a 422 points.
fn pointer(what: &str, reply: &Reply) -> String {
    assert_problem(what, reply, 422, "invalid");
    let error = reply.json()["errors"][0].clone();
    assert!(
        error["message"].as_str().is_some_and(|message| !message.is_empty()),
        "{what}: {error}"
    );
    error["pointer"].as_str().unwrap_or_else(|| panic!("{what}: {error}")).to_owned()
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[test]
fn a_body_that_is_not_what_the_route_takes_is_refused_with_a_pointer() {
    let world = World::start();
    let ada = world.tenant("ada");
    let owner = &ada.owner;
    let post =
        |body: &str| owner.send("POST", "/v1/forms", Some("application/json"), body.as_bytes());
    for body in
        ["", "{", "{\"title\":}", "nonsense", "{} {}", "\u{feff}{}", "{\"title\":\"\u{1}\"}", "NaN"]
    {
        assert_problem(body, &post(body), 400, "malformed-body");
    }
    let latin = owner.send(
        "POST",
        "/v1/forms",
        Some("application/json"),
        b"{\"title\":\"\xff\",\"schema\":{}}",
    );
    assert_problem("bytes that are no UTF-8", &latin, 400, "malformed-body");
    let cases = [
        (r#"{"title":1,"schema":{}}"#, "/title"),
        (r#"{"title":null,"schema":{}}"#, "/title"),
        (r#"{"schema":{}}"#, "/title"),
        (r#"{"title":"T"}"#, "/schema"),
        (r#"{"title":"T","schema":{},"role":"owner"}"#, "/role"),
        (r#"{"title":"T","schema":{},"a/b~c":1}"#, "/a~1b~0c"),
        (r#"{"title":"T","schema":{},"approval":{"required":"yes"}}"#, "/approval/required"),
        (r#"{"title":"T","schema":{},"approval":{"other":1}}"#, "/approval/other"),
        (r#"{"title":"T","title":"U","schema":{}}"#, "/title"),
        (r#"{"title":"","schema":{}}"#, "/title"),
        (r#"[]"#, ""),
        (r#""text""#, ""),
    ];
    for (body, expected) in cases {
        assert_eq!(pointer(body, &post(body)), expected, "{body}");
    }
    // What the form's own schema refuses, and what is nested deeper than any submission may be.
    let form = ada.form("Names");
    let place = format!("/v1/forms/{form}/submissions");
    let submit = |data: &str| {
        let body = format!(r#"{{"data":{data}}}"#);
        owner.send("POST", &place, Some("application/json"), body.as_bytes())
    };
    assert_eq!(pointer("a name", &submit(r#"{"name":1}"#)), "/data/name");
    assert!(
        pointer("40 levels", &submit(&format!(r#"{{"name":"n","deep":{}}}"#, nested(40))))
            .starts_with("/data")
    );
    for levels in [65, 10_000, 100_000] {
        assert_problem("many levels", &submit(&nested(levels)), 400, "malformed-body");
        let unclosed = "[".repeat(levels);
        assert_problem("many levels, never closed", &post(&unclosed), 400, "malformed-body");
    }
    let listed = owner.get("/v1/forms", 200).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "a refused body made something");
}

#[test]
fn a_query_that_a_route_does_not_know_is_refused_with_a_pointer() {
    let world = World::start();
    let ada = world.tenant("ada");
    let cases = [
        ("limit=0", "query/limit"),
        ("limit=201", "query/limit"),
        ("limit=-1", "query/limit"),
        ("limit=many", "query/limit"),
        ("limit=1&limit=2", "query/limit"),
        ("cursor=%00", "query/cursor"),
        ("cursor=not-one-of-ours", "query/cursor"),
        ("cursor=", "query/cursor"),
        ("colour=red", "query/colour"),
        ("LIMIT=1", "query/LIMIT"),
    ];
    for (query, expected) in cases {
        let reply = ada.owner.call("GET", &format!("/v1/forms?{query}"), None);
        assert_eq!(pointer(query, &reply), expected, "{query}");
    }
    let long = ada.owner.call("GET", &format!("/v1/forms?cursor={}", "a".repeat(5_000)), None);
    assert_problem("a long query", &long, 414, "uri-too-long");
}

#[test]
fn a_media_type_that_is_not_json_is_refused() {
    let world = World::start();
    let ada = world.tenant("ada");
    let good = br#"{"title":"T","schema":{}}"#;
    let send = |client: &Client, media: Option<&str>| client.send("POST", "/v1/forms", media, good);
    for media in [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "json",
        "text/json",
    ] {
        assert_problem(media, &send(&ada.owner, Some(media)), 415, "unsupported-media-type");
    }
    let packed = ada.owner.with_header("content-encoding", "gzip");
    assert_problem("gzip", &send(&packed, Some("application/json")), 415, "unsupported-media-type");
    assert_problem("no media type", &send(&ada.owner, None), 415, "unsupported-media-type");
    assert_eq!(ada.owner.get("/v1/forms", 200).json()["items"], json!([]));
    for media in
        ["application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"]
    {
        assert_eq!(send(&ada.owner, Some(media)).status, 201, "{media}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_declared_or_chunked() {
    let limit = 2_048;
    let world = WorldOptions::default().set("limits.body_bytes_max", 2_048).start();
    let ada = world.tenant("ada");
    let body = |bytes: usize| {
        let start = r#"{"title":"T","schema":{}}"#;
        format!("{start}{}", " ".repeat(bytes - start.len())).into_bytes()
    };
    let head = |framing: &str| {
        let token = ada.owner.token.as_deref().expect("a token");
        format!(
            "POST /v1/forms HTTP/1.1\r\nhost: node\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
        )
    };
    let chunked = |bytes: usize| {
        let chunk = [format!("{bytes:x}\r\n").as_bytes(), &body(bytes), b"\r\n0\r\n\r\n"].concat();
        let head = head("transfer-encoding: chunked");
        read(&raw(&world.client.base, &[head.as_bytes(), &chunk].concat()))
    };
    let declared =
        |bytes: usize| ada.owner.send("POST", "/v1/forms", Some("application/json"), &body(bytes));
    for (way, reply) in [("declared", declared(limit + 1)), ("chunked", chunked(limit + 1))] {
        assert_problem(way, &reply, 413, "body-too-large");
        assert_eq!(reply.json()["limit"], limit, "{way}");
    }
    // Announced only: nothing of it needs to be sent to be refused.
    let announced = read(&raw(&world.client.base, head("content-length: 9000000000").as_bytes()));
    assert_problem("announced", &announced, 413, "body-too-large");
    assert_eq!(declared(limit).status, 201);
    assert_eq!(chunked(limit).status, 201);
    let listed: Value = ada.owner.get("/v1/forms", 200).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let world = World::start();
    let mut cases = 0;
    for route in &ROUTES {
        let path = route.path.replace(['{', '}'], "");
        let known: Vec<_> = ROUTES
            .iter()
            .filter(|other| other.path == route.path)
            .map(|other| other.verb)
            .collect();
        let mut allowed = Vec::new();
        for verb in Verb::ALL.into_iter().filter(|verb| known.contains(verb)) {
            allowed.push(verb.name());
            if verb == Verb::Get {
                allowed.push("HEAD");
            }
        }
        let others = Verb::ALL.into_iter().filter(|verb| !known.contains(verb)).map(Verb::name);
        for method in others.chain(["OPTIONS", "TRACE", "PROPFIND"]) {
            let reply =
                ask(&world.client.base, &format!("{method} {path}"), &["content-length: 0"]);
            let what = format!("{method} {path}");
            assert_eq!(
                (reply.status, reply.problem().as_str()),
                (405, "method-not-allowed"),
                "{what}"
            );
            assert_eq!(reply.header("allow"), Some(allowed.join(", ").as_str()), "{what}");
            assert_sealed(&what, &reply);
            cases += 1;
        }
    }
    println!("wrong methods: {cases} cases");
}
