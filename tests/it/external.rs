//! Sign-in with tokens that apps got elsewhere: whom a good one lets in, and that every bad one is refused alike.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{
    Answer, Client, Issuer, KeyServer, Peer, Reply, Tenant, TestClock, World, WorldOptions,
};

mod rules;

const ISSUER: &str = "https://issuer.example";

/// A node that may ask providers on this machine, at a time that stands still.
fn world() -> (World, std::sync::Arc<TestClock>) {
    let clock = TestClock::new();
    let options = WorldOptions::default().set("identity.allow_loopback", true);
    (options.clock(clock.clone()).start(), clock)
}

fn now_s(world: &World) -> u64 {
    world.now_ms() / 1_000
}

fn bring(client: &Client, tenant: &str, provider: &str, token: &str) -> Reply {
    let body = json!({"tenant": tenant, "id_token": token});
    client.call("POST", &format!("/v1/auth/external/{provider}"), Some(&body))
}

fn entries(tenant: &Tenant, action: &str) -> Vec<Value> {
    let page = tenant.owner.get(&format!("/v1/audit?action={action}&limit=100"), 200).json();
    page["items"].as_array().expect("a list").clone()
}

#[test]
fn tokens_that_another_library_signed_are_good_with_the_algorithm_of_their_key_alone() {
    let Some(mut jose) = Peer::of_node("jose.mjs", "jose") else { return };
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    let keys = jose.ask(&json!({"do": "keys"}))["keys"].clone();
    issuer.trusted_by(&tenant.owner, "app", &json!({"jwks": {"keys": keys}}));
    for alg in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        let claims = issuer.claims(&alg.to_lowercase(), now_s(&world));
        let signed = jose.ask(&json!({"do": "sign", "alg": alg, "claims": claims}));
        let token = signed["token"].as_str().expect("a token");
        let reply = bring(&world.client, "acme", "app", token);
        assert_eq!(reply.status, 200, "{alg}: {}", reply.text());
        assert_eq!(reply.str("/user/email"), format!("{}@example.org", alg.to_lowercase()));
        // The same bytes under another key's name.
        let other = if alg == "RS256" { "PS256" } else { "RS256" };
        let header = json!({"alg": alg, "kid": other}).to_string();
        let rest = token.split_once('.').expect("three parts").1;
        let moved = format!("{}.{rest}", crate::kit::encode(header));
        assert_eq!(bring(&world.client, "acme", "app", &moved).status, 401, "{alg}");
    }
}

#[test]
fn a_good_token_makes_a_member_once_and_signs_them_in_ever_after() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({}));
    let token = issuer.sign(&issuer.claims("ann", now_s(&world)));
    let first = bring(&world.client, "acme", "app", &token);
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(
        (first.str("/user/email"), first.str("/user/role")),
        ("ann@example.org".into(), "member".into())
    );
    assert!(first.cookie().len() > 40, "a browser is signed in as well");
    let second = bring(&world.client, "acme", "app", &token);
    assert_eq!(second.str("/user/id"), first.str("/user/id"));
    let ann = world.client.with_token(&second.str("/access_token"));
    assert_eq!(ann.get("/v1/me", 200).json()["email_verified"], true);
    let sessions = ann.get("/v1/me/sessions", 200).json();
    assert_eq!(sessions["items"][0]["amr"], json!(["federated"]));
    let identities = ann.get("/v1/me/identities", 200).json();
    assert_eq!(identities["items"][0]["subject"], "ann");
    assert_eq!(identities["items"].as_array().map(Vec::len), Some(1));
    // It is their last way in: there is no password.
    let id = identities["items"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(ann.delete(&format!("/v1/me/identities/{id}"), 409).problem(), "last-way-in");
    assert_eq!(entries(&tenant, "member.add").len(), 1);
    let signed_in = entries(&tenant, "sign_in");
    let by_token: Vec<_> =
        signed_in.iter().filter(|entry| entry["detail"]["factor"] == "external").collect();
    assert_eq!(by_token.len(), 2);
    assert_eq!(
        (&by_token[0]["detail"]["provider"], &by_token[0]["outcome"]),
        (&json!("app"), &json!("success"))
    );
    // Another tenant trusts nobody.
    let other = world.tenant("other");
    assert_eq!(bring(&world.client, "other", "app", &token).status, 401);
    assert_eq!(
        other.owner.get("/v1/members", 200).json()["items"].as_array().map(Vec::len),
        Some(1)
    );
}

/// Every bad variant of a good token, by name.
fn bad_tokens(issuer: &Issuer, now_s: u64) -> Vec<(&'static str, String)> {
    let stranger = Issuer::new(ISSUER, "one");
    let good = issuer.claims("ann", now_s);
    let with = |member: &str, value: Value| {
        let mut claims = good.clone();
        claims[member] = value;
        issuer.sign(&claims)
    };
    let without = |member: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(member);
        issuer.sign(&claims)
    };
    let headed = |header: Value| issuer.sign_texts(&header.to_string(), &good.to_string());
    let token = issuer.sign(&good);
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let unsigned = |alg: &str| {
        let header = json!({"alg": alg, "typ": "JWT", "kid": "one"}).to_string();
        format!("{}.{}.", crate::kit::encode(&header), crate::kit::encode(good.to_string()))
    };
    let twice = good.to_string().replacen('{', r#"{"sub":"root","#, 1);
    let mut bad = vec![
        ("another audience", with("aud", json!("other-app"))),
        ("no audience", without("aud")),
        ("another issuer", with("iss", json!("https://issuer.example/"))),
        ("expired", with("exp", json!(now_s - 61))),
        ("no end", without("exp")),
        ("an end that is a text", with("exp", json!("never"))),
        ("not yet", with("nbf", json!(now_s + 61))),
        ("made in the future", with("iat", json!(now_s + 61))),
        ("never made", without("iat")),
        ("nobody", without("sub")),
        ("an empty name", with("sub", json!(""))),
        ("a name that is a number", with("sub", json!(1))),
        ("a name of 256 bytes", with("sub", json!("a".repeat(256)))),
        ("another key of that name", stranger.sign(&good)),
        ("an unknown key", headed(json!({"alg": "RS256", "kid": "two"}))),
        ("another algorithm of the same key", headed(json!({"alg": "RS512", "kid": "one"}))),
        ("no algorithm", headed(json!({"kid": "one"}))),
        ("none", unsigned("none")),
        ("None", unsigned("None")),
        ("unsigned, as an emulator does", unsigned("RS256")),
        ("the signature cut", format!("{message}.{}", &signature[..signature.len() - 4])),
        ("a key of its own", headed(json!({"alg": "RS256", "kid": "one", "jwk": stranger.jwk()}))),
        (
            "a place for keys",
            headed(json!({"alg": "RS256", "kid": "one", "jku": "https://evil.example/"})),
        ),
        (
            "a certificate's place",
            headed(json!({"alg": "RS256", "kid": "one", "x5u": "https://evil.example/"})),
        ),
        ("a certificate", headed(json!({"alg": "RS256", "kid": "one", "x5c": ["AAAA"]}))),
        ("critical", headed(json!({"alg": "RS256", "kid": "one", "crit": ["exp"]}))),
        ("another kind of token", headed(json!({"alg": "RS256", "kid": "one", "typ": "at+jwt"}))),
        ("a name twice", issuer.sign_texts(&issuer.header().to_string(), &twice)),
        (
            "a header member twice",
            issuer.sign_texts(r#"{"alg":"none","alg":"RS256","kid":"one"}"#, &good.to_string()),
        ),
        ("padding", format!("{token}=")),
        ("five parts", format!("{token}.a.b")),
        ("nothing", String::new()),
        ("no JSON", issuer.sign_texts("{}", "hello")),
        ("20 KiB", with("more", json!("a".repeat(20 * 1024)))),
    ];
    bad.push(("the public key as a secret", hmac_with_public_key(issuer, &good)));
    bad
}

/// HS256 with the public key, which everybody has, for a secret.
fn hmac_with_public_key(issuer: &Issuer, claims: &Value) -> String {
    let header = json!({"alg": "HS256", "typ": "JWT", "kid": "one"}).to_string();
    let message =
        format!("{}.{}", crate::kit::encode(&header), crate::kit::encode(claims.to_string()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &issuer.modulus());
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", crate::kit::encode(tag))
}

#[test]
fn every_bad_token_gets_the_same_answer_and_nothing_comes_of_it() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({}));
    let good = issuer.sign(&issuer.claims("ann", now_s(&world)));
    let unknown = bring(&world.client, "nobody", "app", &good);
    assert_eq!(unknown.status, 401, "an unknown tenant");
    let bad = bad_tokens(&issuer, now_s(&world));
    let cases = bad.len();
    for (what, token) in &bad {
        let reply = bring(&world.client, "acme", "app", token);
        assert_eq!(reply.essence(), unknown.essence(), "{what}: {}", reply.text());
    }
    let absent = bring(&world.client, "acme", "absent", &good);
    assert_eq!(absent.essence(), unknown.essence(), "an unknown provider");
    let members = tenant.owner.get("/v1/members", 200).json();
    assert_eq!(members["items"].as_array().map(Vec::len), Some(1), "nobody came in");
    let failures = entries(&tenant, "sign_in");
    let failed = failures.iter().filter(|entry| entry["outcome"] == "failed").count();
    assert_eq!(failed, cases + 1, "each is on record");
    let text = format!("{failures:?}");
    assert!(!text.contains("eyJ") && !text.contains("ann@"), "nothing of a token is on record");
    assert_eq!(bring(&world.client, "acme", "app", &good).status, 200, "the good one is good");
    println!("external: {cases} bad tokens refused alike");
}

#[test]
fn a_minute_of_another_clock_is_forgiven_and_no_more() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    issuer.trusted_by(&tenant.owner, "app", &json!({}));
    let now_s = now_s(&world);
    for (member, at_s, status) in [
        ("exp", now_s - 59, 200),
        ("exp", now_s - 60, 401),
        ("iat", now_s + 60, 200),
        ("iat", now_s + 61, 401),
        ("nbf", now_s + 60, 200),
        ("nbf", now_s + 61, 401),
    ] {
        let mut claims = issuer.claims("ann", now_s);
        claims[member] = json!(at_s);
        let reply = bring(&world.client, "acme", "app", &issuer.sign(&claims));
        assert_eq!(reply.status, status, "{member} at {at_s}, now {now_s}: {}", reply.text());
    }
}

#[test]
fn firebase_tokens_are_held_to_what_firebase_promises() {
    let (world, _) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new("https://securetoken.google.com/acme-app", "one");
    let keys = KeyServer::start(Answer::ok(&json!({"keys": [issuer.jwk()]})));
    let body = json!({
        "name": "firebase", "kind": "firebase", "audience": "acme-app", "default_role": "customer",
        "jwks": {"url": keys.url},
    });
    let made = tenant.owner.post("/v1/identity-providers", body, 201);
    assert_eq!(made.str("/issuer"), issuer.name);
    let now_s = now_s(&world);
    let good = issuer.claims("ann", now_s);
    let reply = bring(&world.client, "acme", "firebase", &issuer.sign(&good));
    assert_eq!((reply.status, reply.str("/user/role").as_str()), (200, "customer"));
    for (member, value) in [
        ("auth_time", Value::Null),
        ("auth_time", json!(now_s + 120)),
        ("sub", json!("a".repeat(129))),
        ("aud", json!("other-app")),
        ("iss", json!("https://securetoken.google.com/other-app")),
    ] {
        let mut claims = good.clone();
        claims[member] = value.clone();
        let reply = bring(&world.client, "acme", "firebase", &issuer.sign(&claims));
        assert_eq!(reply.status, 401, "{member}: {value}");
    }
    // It names its keys, always.
    let nameless = issuer.sign_texts(r#"{"alg":"RS256","typ":"JWT"}"#, &good.to_string());
    assert_eq!(bring(&world.client, "acme", "firebase", &nameless).status, 401);
    assert_eq!(keys.asked(), 1, "the keys are kept");
}

#[test]
fn keys_are_kept_as_long_as_they_say_and_asked_for_again_with_care() {
    let (world, clock) = world();
    let tenant = world.tenant("acme");
    let (old, new) = (Issuer::new(ISSUER, "old"), Issuer::new(ISSUER, "new"));
    let mut answer =
        Answer::ok(&json!({"keys": [old.jwk(), {"kty": "XYZ"}, {"kty": "oct", "k": "AAAA"}]}));
    answer.headers = "cache-control: public, max-age=120\r\n";
    let keys = KeyServer::start(answer.clone());
    old.trusted_by(&tenant.owner, "app", &json!({"jwks": {"url": keys.url}}));
    let status = |issuer: &Issuer| {
        let token = issuer.sign(&issuer.claims("ann", now_s(&world)));
        bring(&world.client, "acme", "app", &token).status
    };
    assert_eq!((status(&old), status(&old), keys.asked()), (200, 200, 1));
    // A new key is asked for at once only if the last asking is a while ago.
    answer.body = json!({"keys": [old.jwk(), new.jwk()]}).to_string();
    keys.answers(answer.clone());
    assert_eq!((status(&new), status(&new), keys.asked()), (401, 401, 1), "cool-down");
    clock.advance(Duration::from_secs(31));
    assert_eq!((status(&new), keys.asked()), (200, 2), "the unknown key is asked for");
    answer.body = json!({"keys": [new.jwk()]}).to_string();
    keys.answers(answer);
    assert_eq!((status(&old), keys.asked()), (200, 2), "still fresh");
    clock.advance(Duration::from_secs(121));
    assert_eq!((status(&old), keys.asked()), (401, 3), "gone with its set");
    assert_eq!(status(&new), 200);
}

#[test]
fn an_issuer_that_is_down_or_answers_rubbish_is_503_and_nothing_is_made() {
    let (world, clock) = world();
    let tenant = world.tenant("acme");
    let issuer = Issuer::new(ISSUER, "one");
    let good = Answer::ok(&json!({"keys": [issuer.jwk()]}));
    let keys = KeyServer::start(Answer { status: 500, ..good.clone() });
    issuer.trusted_by(&tenant.owner, "app", &json!({"jwks": {"url": keys.url}}));
    let token = issuer.sign(&issuer.claims("ann", now_s(&world)));
    let bring = || bring(&world.client, "acme", "app", &token);
    let rubbish = |body: &str| Answer { body: body.to_owned(), ..good.clone() };
    let redirect =
        Answer { status: 302, headers: "location: http://127.0.0.1:1/\r\n", body: String::new() };
    let big = format!("{}{}", " ".repeat(300 * 1024), good.body);
    let answers = [
        Answer { status: 500, ..good.clone() },
        rubbish("<html>"),
        rubbish("{}"),
        rubbish(r#"{"keys":[]}"#),
        rubbish(r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#),
        rubbish(&big),
        redirect,
    ];
    for answer in answers {
        let (what, before) = (answer.body.chars().take(40).collect::<String>(), keys.asked());
        keys.answers(answer);
        let reply = bring();
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (503, "identity-provider-unavailable"),
            "{what}"
        );
        let patience: u64 =
            reply.header("retry-after").expect("patience").parse().expect("seconds");
        assert!((1..=61).contains(&patience), "{patience}");
        assert_eq!(keys.asked(), before + 1, "{what}");
        assert_eq!(
            (bring().status, keys.asked()),
            (503, before + 1),
            "{what}: nobody asks again at once"
        );
        clock.advance(Duration::from_secs(patience));
    }
    let members = tenant.owner.get("/v1/members", 200).json();
    assert_eq!(members["items"].as_array().map(Vec::len), Some(1), "nothing was made");
    keys.answers(good);
    assert_eq!(bring().status, 200, "and when it is back, it is back");
    let reasons = format!("{:?}", entries(&tenant, "sign_in"));
    assert!(reasons.contains("keys-unavailable"), "{reasons}");
}

#[test]
fn addresses_inside_are_never_asked() {
    let strict = World::start();
    let tenant = strict.tenant("acme");
    for url in [
        "http://127.0.0.1:1/keys",
        "https://127.0.0.1/keys",
        "https://[::1]/keys",
        "https://169.254.169.254/latest",
        "https://10.0.0.1/keys",
        "https://localhost/keys",
        "http://idp.example/keys",
        "https://user:word@idp.example/keys",
        "file:///etc/passwd",
    ] {
        let body = json!({
            "name": "inside", "kind": "jwks", "issuer": ISSUER, "audience": "a", "jwks": {"url": url},
        });
        let refused = tenant.owner.post("/v1/identity-providers", body, 422);
        assert_eq!(refused.str("/errors/0/pointer"), "/jwks/url", "{url}");
    }
    let body = json!({
        "name": "inside", "kind": "oidc", "issuer": "https://192.168.0.1", "client_id": "a",
    });
    let refused = tenant.owner.post("/v1/identity-providers", body, 422);
    assert_eq!(refused.str("/errors/0/pointer"), "/issuer");
}
