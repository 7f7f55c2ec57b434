//! An OpenID provider that is ours to misuse: what it must not get away with.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{CLIENT, SECRET, start_of, world};
use crate::kit::{Answer, Issuer, Surfer, Tenant, TestClock, World, WorldOptions, parameter};

/// Answers what it was told to, by path.
struct Rogue {
    issuer: Issuer,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
}

impl Rogue {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let rogue = Self {
            issuer: Issuer::new(&url, "one"),
            answers: Arc::new(Mutex::new(HashMap::new())),
        };
        let answers = rogue.answers.clone();
        // Ends with the process: a thread that waits for connections holds nobody up.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 8192];
                let length = stream.read(&mut head).unwrap_or(0);
                let text = String::from_utf8_lossy(&head[..length]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
                let absent = Answer { status: 404, headers: "", body: String::new() };
                let answer =
                    answers.lock().expect("no panic").get(&path).cloned().unwrap_or(absent);
                let Answer { status, headers, body } = answer;
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} Answer\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
                );
                let _answered = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        rogue.says("/.well-known/openid-configuration", &rogue.document());
        rogue.says("/keys", &json!({"keys": [rogue.issuer.jwk()]}));
        rogue
    }

    fn document(&self) -> Value {
        let url = &self.issuer.name;
        json!({
            "issuer": url, "authorization_endpoint": format!("{url}/auth"),
            "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/keys"),
            "userinfo_endpoint": format!("{url}/me"),
            "authorization_response_iss_parameter_supported": true,
        })
    }

    fn answers(&self, path: &str, answer: Answer) {
        self.answers.lock().expect("no panic").insert(path.to_owned(), answer);
    }

    fn says(&self, path: &str, body: &Value) {
        self.answers(path, Answer::ok(body));
    }

    fn trusted_by(&self, tenant: &Tenant) {
        let body = json!({
            "name": "idp", "kind": "oidc", "issuer": self.issuer.name, "client_id": CLIENT,
            "client_secret": SECRET, "default_role": "member",
        });
        tenant.owner.post("/v1/identity-providers", body, 201);
    }
}

/// Sent away: the browser, and what has to come back.
fn sent(world: &World) -> (Surfer, String, String) {
    let mut surfer = Surfer::default();
    let reply = surfer.go(&start_of(world, "acme", "idp", ""));
    assert_eq!(reply.status, 303, "{}", reply.text());
    let url = reply.header("location").expect("a place").to_owned();
    assert_eq!(parameter(&url, "code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(parameter(&url, "scope").as_deref(), Some("openid email"));
    let of = |name: &str| parameter(&url, name).unwrap_or_else(|| panic!("{name} in {url}"));
    (surfer, of("state"), of("nonce"))
}

/// What is other than it should be.
type Change = fn(&mut Value);

/// Comes back from a provider that gives a token with these changes to what it should say.
fn come_back(world: &World, rogue: &Rogue, change: impl Fn(&mut Value)) -> crate::kit::Reply {
    let (mut surfer, state, nonce) = sent(world);
    let mut claims = rogue.issuer.claims("ann", world.now_ms() / 1_000);
    claims["aud"] = json!(CLIENT);
    claims["nonce"] = json!(nonce);
    change(&mut claims);
    rogue.says("/token", &json!({"id_token": rogue.issuer.sign(&claims), "access_token": "a", "token_type": "Bearer"}));
    let place = format!("{}/v1/auth/oidc/acme.idp/callback", world.client.base);
    surfer.go(&format!("{place}?state={state}&code=c&iss={}&unknown=1", rogue.issuer.name))
}

#[test]
fn a_token_that_is_not_the_answer_to_this_very_question_is_not_believed() {
    let world = world();
    let rogue = Rogue::start();
    let tenant = world.tenant("acme");
    rogue.trusted_by(&tenant);
    let cases: [(&str, Change); 9] = [
        ("another nonce", |claims| claims["nonce"] = json!("AAAA")),
        ("no nonce", |claims| claims["nonce"] = Value::Null),
        ("another issuer", |claims| claims["iss"] = json!("https://accounts.google.com")),
        ("another audience", |claims| claims["aud"] = json!("other")),
        ("asked for by another", |claims| claims["azp"] = json!("other")),
        ("for others as well, asked for by nobody", |claims| {
            claims["aud"] = json!([CLIENT, "other"])
        }),
        ("expired", |claims| claims["exp"] = json!(1_000_000)),
        ("no time", |claims| claims["iat"] = Value::Null),
        ("nobody", |claims| claims["sub"] = json!("")),
    ];
    for (what, change) in cases {
        let reply = come_back(&world, &rogue, change);
        assert_eq!((reply.status, reply.problem().as_str()), (401, "bad-credentials"), "{what}");
    }
    let both = |claims: &mut Value| {
        claims["aud"] = json!([CLIENT, "other"]);
        claims["azp"] = json!(CLIENT);
    };
    assert_eq!(come_back(&world, &rogue, both).status, 303);
    assert_eq!(come_back(&world, &rogue, |_| ()).status, 303);
    let log = format!("{:?}", tenant.owner.get("/v1/audit?limit=100", 200).text());
    for reason in ["token-nonce", "token-issuer", "token-audience", "token-expired"] {
        assert!(log.contains(reason), "{reason} is on record");
    }
    assert!(!log.contains("eyJ"), "no token is");
}

#[test]
fn the_address_counts_only_if_it_is_said_of_the_same_person() {
    let world = world();
    let rogue = Rogue::start();
    rogue.trusted_by(&world.tenant("acme"));
    let bare = |claims: &mut Value| {
        claims["email"] = Value::Null;
        claims["email_verified"] = Value::Null;
    };
    rogue.says("/me", &json!({"sub": "bob", "email": "bob@example.org", "email_verified": true}));
    assert_eq!(come_back(&world, &rogue, bare).status, 401);
    rogue.says("/me", &json!({"sub": "ann"}));
    assert_eq!(come_back(&world, &rogue, bare).str("/reason"), "no-email");
    rogue.says("/me", &json!({"sub": "ann", "email": "ann@example.org", "email_verified": true}));
    assert_eq!(come_back(&world, &rogue, bare).status, 303);
}

#[test]
fn who_answers_has_to_be_who_was_asked() {
    let world = world();
    let rogue = Rogue::start();
    rogue.trusted_by(&world.tenant("acme"));
    let place = format!("{}/v1/auth/oidc/acme.idp/callback", world.client.base);
    for iss in ["", "&iss=https://idp.example", "&iss="] {
        let (mut surfer, state, _) = sent(&world);
        assert_eq!(surfer.go(&format!("{place}?state={state}&code=c{iss}")).status, 401, "{iss:?}");
    }
}

#[test]
fn a_provider_that_is_down_or_answers_rubbish_is_503_and_nothing_is_made() {
    let clock = TestClock::new();
    let options = WorldOptions::default().set("identity.allow_loopback", true);
    let world = options.clock(clock.clone()).start();
    let rogue = Rogue::start();
    let tenant = world.tenant("acme");
    rogue.trusted_by(&tenant);
    let place = format!("{}/v1/auth/oidc/acme.idp/callback", world.client.base);
    let come_back = || {
        let (mut surfer, state, _) = sent(&world);
        surfer.go(&format!("{place}?state={state}&code=c&iss={}", rogue.issuer.name))
    };
    let unavailable = |what: &str| {
        let reply = come_back();
        let problem = (reply.status, reply.problem());
        assert_eq!(problem, (503, "identity-provider-unavailable".to_owned()), "{what}");
        assert!(reply.header("retry-after").is_some(), "{what}");
    };
    let whole = Answer { status: 200, headers: "", body: String::new() };
    for (what, answer) in [
        ("down", Answer { status: 503, ..whole.clone() }),
        ("rubbish", Answer { body: "<html>".to_owned(), ..whole.clone() }),
        ("no token", Answer { body: "{}".to_owned(), ..whole }),
    ] {
        clock.advance(Duration::from_secs(60));
        rogue.answers("/token", answer);
        unavailable(what);
    }
    let refusal = r#"{"error":"invalid_grant"}"#.to_owned();
    rogue.answers("/token", Answer { status: 400, body: refusal, ..whole });
    unavailable("it failed just now, so it is not asked for a while");
    clock.advance(Duration::from_secs(60));
    assert_eq!(come_back().status, 401, "a code that nobody knows");
    assert_eq!(come_back().status, 401, "to say no is no failure");
    let members = tenant.owner.get("/v1/members", 200).json();
    assert_eq!(members["items"].as_array().map(Vec::len), Some(1), "nothing was made");
}

#[test]
fn a_discovery_document_speaks_for_its_own_issuer_only() {
    let world = world();
    for (slug, change) in [
        ("other-issuer", json!({"issuer": "https://accounts.google.com"})),
        ("slash", json!({"issuer": "SLASH"})),
        ("none", json!({"token_endpoint": null})),
    ] {
        let rogue = Rogue::start();
        let mut document = rogue.document();
        for (member, value) in change.as_object().expect("an object") {
            document[member] = value.clone();
        }
        if document["issuer"] == "SLASH" {
            document["issuer"] = json!(format!("{}/", rogue.issuer.name));
        }
        rogue.says("/.well-known/openid-configuration", &document);
        rogue.trusted_by(&world.tenant(slug));
        let reply = world.client.get(&format!("/v1/auth/oidc/idp/start?tenant={slug}"), 503);
        assert_eq!(reply.problem(), "identity-provider-unavailable", "{slug}");
    }
    // Nor does it lead inside: nobody is sent to, and nothing asked for at, an address that is not public.
    let rogue = Rogue::start();
    let mut document = rogue.document();
    document["authorization_endpoint"] = json!("http://10.0.0.1/auth");
    rogue.says("/.well-known/openid-configuration", &document);
    rogue.trusted_by(&world.tenant("inside"));
    world.client.get("/v1/auth/oidc/idp/start?tenant=inside", 503);
}
