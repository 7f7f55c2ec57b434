//! The edge as a client sees it, over a real socket, with a whole node behind it.

use serde_json::{Value, json};

use crate::config::{Config, Overrides};
use crate::http::headers::DATA_POLICY;
use crate::runtime::Node;

struct World {
    node: Node,
    token: String,
    _dir: tempfile::TempDir,
}

/// One answer.
struct Reply {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
    fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.body);
        self.json()["type"].as_str().expect("a type").trim_start_matches("/problems/").to_owned()
    }
}

async fn send(
    method: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: String,
) -> Reply {
    let sent = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .build()
            .into();
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = agent.run(request.body(body).expect("a request")).expect("an answer");
        let body = response.body_mut().read_to_string().expect("a text");
        Reply { status: response.status().as_u16(), headers: response.headers().clone(), body }
    });
    sent.await.expect("the client")
}

impl World {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let overrides = Overrides { data_dir: Some(dir.path().to_owned()), ..Overrides::default() }
            .set("data.allow_temporary", true)
            .set("data.segment_bytes", 1 << 20)
            .set("http.bind", "127.0.0.1:0")
            .set("http.base_domain", "bulkhead.test")
            .set("http.workers", 1)
            .set("ops.bind", "127.0.0.1:0");
        let overrides = settings.iter().fold(overrides, |all, (key, value)| all.set(key, *value));
        let config = Config::load_from(None, [], &overrides).expect("the configuration");
        let node = Node::start(config).await.expect("a node");
        let mut world = Self { node, token: String::new(), _dir: dir };
        let body = json!({
            "tenant": {"slug": "acme", "name": "Acme"},
            "email": "ann@example.org",
            "password": "correct horse battery",
        });
        let made = world
            .call(
                "POST",
                "/v1/auth/sign-up",
                &[("content-type", "application/json")],
                &body.to_string(),
            )
            .await;
        assert_eq!(made.status, 201, "{}", made.body);
        world.token = format!("Bearer {}", made.json()["access_token"].as_str().expect("a token"));
        world
    }

    async fn call(
        &self,
        method: &'static str,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Reply {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        send(method, format!("{}{path}", self.node.http_url()), headers, body.to_owned()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[("authorization", &self.token)], "").await
    }
}

#[actix_rt::test]
async fn every_answer_is_sealed_whatever_its_status() {
    let world = World::new(&[]).await;
    for (method, path, status) in [
        ("GET", "/version", 200),
        ("GET", "/docs", 200),
        ("GET", "/v1/forms", 401),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/forms", 405),
        ("OPTIONS", "/v1/forms", 405),
        ("POST", "/v1/auth/sign-in", 415),
    ] {
        let reply = world.call(method, path, &[("x-request-id", "r.1")], "").await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(reply.header("x-request-id"), Some("r.1"), "{path}");
        if status >= 400 {
            assert_eq!(reply.header("content-security-policy"), Some(DATA_POLICY), "{path}");
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
            assert_eq!(reply.json()["status"], status, "{path}");
            reply.problem();
        }
    }
    assert_eq!(
        world.call("PUT", "/v1/forms", &[], "").await.header("allow"),
        Some("GET, HEAD, POST")
    );
    assert_eq!(world.call("HEAD", "/version", &[], "").await.status, 200);
}

#[actix_rt::test]
async fn what_may_not_pass_is_told_so_before_its_input_is_looked_at() {
    let world = World::new(&[]).await;
    let media = ("content-type", "application/json");
    let no_token = world.call("POST", "/v1/forms", &[media], "{").await;
    assert_eq!((no_token.status, no_token.header("www-authenticate")), (401, Some("Bearer")));
    let forged =
        world.call("POST", "/v1/forms", &[media, ("authorization", "Bearer x.y.z")], "{").await;
    assert_eq!(forged.problem(), "invalid-token");
    let basic =
        world.call("POST", "/v1/forms", &[media, ("authorization", "Basic eDp5")], "{").await;
    assert_eq!(basic.problem(), "unauthenticated");
    let forbidden = world.get("/v1/platform/tenants?nonsense=1").await;
    assert_eq!((forbidden.status, forbidden.problem()), (403, "forbidden".to_owned()));
    let allowed =
        world.call("POST", "/v1/forms", &[media, ("authorization", &world.token)], "{").await;
    assert_eq!(allowed.problem(), "malformed-body");
}

#[actix_rt::test]
async fn a_privileged_refusal_is_in_the_audit_log() {
    let world = World::new(&[]).await;
    let refused = world.get("/v1/platform/tenants").await;
    assert_eq!(refused.status, 403);
    let log = world.get("/v1/audit").await;
    assert_eq!(log.status, 200, "{}", log.body);
    let request_id = refused.header("x-request-id").expect("an id");
    let entries = log.json()["items"].as_array().expect("entries").clone();
    let entry = entries.iter().find(|entry| entry["request_id"] == request_id).expect("an entry");
    assert_eq!(entry["outcome"], "refused");
}

#[actix_rt::test]
async fn a_host_that_names_a_tenant_has_to_name_the_tokens() {
    let world = World::new(&[]).await;
    for (host, status) in [
        ("acme.bulkhead.test", 200),
        ("ACME.bulkhead.test:8080", 200),
        ("bulkhead.test", 200),
        ("globex.bulkhead.test", 404),
        ("platform.bulkhead.test", 404),
        ("x.acme.bulkhead.test", 404),
    ] {
        let headers = [("authorization", world.token.as_str()), ("host", host)];
        assert_eq!(world.call("GET", "/v1/me", &headers, "").await.status, status, "{host}");
    }
}

#[actix_rt::test]
async fn a_malformed_id_answers_what_an_absent_one_answers() {
    let world = World::new(&[]).await;
    let absent = world.get(&format!("/v1/forms/fm_{}", "0".repeat(32))).await;
    assert_eq!(absent.status, 404);
    for path in
        ["/v1/forms/x", "/v1/forms/us_00000000000000000000000000000000", "/v1/forms/fm_1%00"]
    {
        let reply = world.get(path).await;
        assert_eq!((reply.status, &reply.body), (404, &absent.body), "{path}");
    }
}

#[actix_rt::test]
async fn a_spent_budget_says_which_and_when_to_come_back() {
    let world = World::new(&[("rate.api.per_token", "3/1h"), ("rate.api.per_ip", "2/1h")]).await;
    let first = world.get("/v1/me").await;
    let policy = first.header("ratelimit-policy").expect("a policy");
    assert!(policy.contains("\"api-token\";q=3;w=3600"), "{policy}");
    assert!(first.header("ratelimit").is_some_and(|left| left.contains("\"api-token\";r=2")));
    for _ in 0..2 {
        assert_eq!(world.get("/v1/me").await.status, 200);
    }
    let spent = world.get("/v1/me").await;
    assert_eq!((spent.status, spent.problem()), (429, "quota-exceeded".to_owned()));
    assert_eq!(spent.json()["violated-policies"], json!(["api-token"]));
    let wait: u32 =
        spent.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    assert!((1..=3600).contains(&wait));
    // Guessing tokens spends the budget of the address, and that has an end too.
    for expected in [401, 401, 429] {
        let guess = world.call("GET", "/v1/me", &[("authorization", "Bearer x")], "").await;
        assert_eq!(guess.status, expected);
    }
}

#[actix_rt::test]
async fn the_same_key_and_body_make_one_form() {
    let world = World::new(&[]).await;
    let body = r#"{"title":"T","schema":{"type":"object"}}"#;
    let send = |key: &'static str, body: &'static str| {
        let headers = [
            ("authorization", world.token.clone()),
            ("content-type", "application/json".to_owned()),
            ("idempotency-key", key.to_owned()),
        ];
        self::send(
            "POST",
            format!("{}/v1/forms", world.node.http_url()),
            headers.to_vec(),
            body.to_owned(),
        )
    };
    let first = send("k", body).await;
    let again = send("\"k\"", body).await;
    assert_eq!((first.status, again.status, &first.body), (201, 201, &again.body));
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        (None, Some("true"))
    );
    let other = send("k", r#"{"title":"U","schema":{"type":"object"}}"#).await;
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused".to_owned()));
    assert_eq!(send("a b", body).await.problem(), "bad-idempotency-key");
}
