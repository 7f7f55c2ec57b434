//! Every forged token against every route that takes one.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bulkhead::http::routes::{ROUTES, Route};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::kit::{Client, Fixture, Forge, Reply, Tenant, World, WorldOptions, encode};

/// A token that is not good, and what is wrong with it.
pub type Attack = (&'static str, String);

/// The three parts of a token.
fn parts(token: &str) -> (String, String, String) {
    let mut parts = token.split('.').map(str::to_owned);
    let mut next = || parts.next().expect("three parts");
    (next(), next(), next())
}

/// Other algorithms than the key's, and no algorithm at all.
fn algorithms(forge: &Forge) -> Vec<Attack> {
    let (header, claims, signature) = parts(&forge.good);
    let alg =
        |alg: Value| encode(json!({"typ": "at+jwt", "alg": alg, "kid": forge.kid()}).to_string());
    let mut attacks: Vec<Attack> = Vec::new();
    for (name, text) in [("none", "none"), ("None", "None"), ("NONE", "NONE"), ("empty alg", "")] {
        let forged = alg(json!(text));
        attacks.push((name, format!("{forged}.{claims}.")));
        attacks.push((name, format!("{forged}.{claims}")));
        attacks.push((name, format!("{forged}.{claims}.{signature}")));
        attacks.push((name, forge.sign_parts(&forged, &claims)));
    }
    for other in ["RS256", "ES256", "PS512", "ES256K", "HS512", "eddsa", "Ed25519", "EdDSA "] {
        attacks.push(("another algorithm's name", forge.sign_parts(&alg(json!(other)), &claims)));
    }
    for odd in [json!(null), json!(["EdDSA"]), json!({"EdDSA": 1}), json!(0)] {
        attacks.push(("an algorithm that is no text", forge.sign_parts(&alg(odd), &claims)));
    }
    let x = encode(forge.public());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x}).to_string();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{x}\n-----END PUBLIC KEY-----\n");
    for secret in [forge.public(), x.into_bytes(), jwk.into_bytes(), pem.into_bytes(), Vec::new()] {
        for hmac in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header {
                typ: Some("at+jwt".to_owned()),
                kid: Some(forge.kid()),
                ..Header::new(hmac)
            };
            let key = EncodingKey::from_secret(&secret);
            let token = jsonwebtoken::encode(&header, &forge.claims, &key).expect("a token");
            attacks.push(("the public key as HMAC secret", token));
        }
    }
    attacks.push(("no algorithm member", {
        forge.with_header(|header| drop(header.as_object_mut().expect("an object").remove("alg")))
    }));
    attacks.push(("the header alone", header));
    attacks
}

/// Signatures that are not the key's over these bytes.
fn signatures(forge: &Forge, foreign: &str) -> Vec<Attack> {
    let (header, claims, signature) = parts(&forge.good);
    let with = |signature: &str| format!("{header}.{claims}.{signature}");
    let (_, foreign_claims, foreign_signature) = parts(foreign);
    let raised = encode(forge.claims.to_string().replace("\"av\":1", "\"av\":2"));
    let flipped = {
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        format!("{first}{}", &signature[1..])
    };
    vec![
        ("stripped signature", with("")),
        ("no third part", format!("{header}.{claims}")),
        ("truncated signature", with(&signature[..signature.len() - 4])),
        ("half a signature", with(&signature[..43])),
        ("doubled signature", with(&format!("{signature}{signature}"))),
        ("zero signature", with(&encode([0; 64]))),
        ("ones as signature", with(&encode([0xff; 64]))),
        ("flipped signature", with(&flipped)),
        ("another token's signature", with(&foreign_signature)),
        ("another token's claims", format!("{header}.{foreign_claims}.{signature}")),
        ("changed claims", format!("{header}.{raised}.{signature}")),
        ("padded signature", with(&format!("{signature}=="))),
        ("padded claims", format!("{header}.{claims}=.{signature}")),
        ("signature in the other alphabet", with(&other_alphabet(forge))),
        ("stray bits behind the signature", with(&stray_bits(&signature))),
        ("space within", with(&format!("{} {}", &signature[..40], &signature[40..]))),
        ("a fourth part", format!("{}.{signature}", forge.good)),
        ("a leading dot", format!(".{}", forge.good)),
        ("dots alone", "..".to_owned()),
        ("a word", "token".to_owned()),
        ("percent signs", forge.good.replace('.', "%2E")),
        ("oversized", format!("{header}.{}.{signature}", "A".repeat(5_000))),
        ("oversized and rightly signed", forge.with_claim("jti", "j".repeat(4_000))),
        ("encrypted, five parts", format!("{header}.{signature}.{claims}.{signature}.{signature}")),
        ("nested", forge.sign_parts(&header, &encode(&forge.good))),
        ("nested, and it says so", {
            let outer = json!({"typ": "at+jwt", "alg": "EdDSA", "kid": forge.kid(), "cty": "JWT"});
            forge.sign(&outer.to_string(), &forge.good)
        }),
    ]
}

/// A rightly signed token's signature in standard base64; one that really differs.
fn other_alphabet(forge: &Forge) -> String {
    for number in 0.. {
        let (_, _, signature) = parts(&forge.with_claim("jti", format!("{number}")));
        if signature.contains(['-', '_']) {
            return signature.replace('-', "+").replace('_', "/");
        }
    }
    unreachable!("half of all signatures have one")
}

/// The same 64 bytes in another text: the last digit carries four bits that nobody reads.
fn stray_bits(signature: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = signature.as_bytes()[signature.len() - 1];
    let value = DIGITS.iter().position(|digit| *digit == last).expect("a digit");
    format!("{}{}", &signature[..signature.len() - 1], char::from(DIGITS[value | 1]))
}

/// Headers that name another key, bring one along, or ask for what is not understood.
fn headers(forge: &Forge) -> Vec<Attack> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let own = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(own.public_key())});
    let by_own = |header: Value| {
        let signed = format!("{}.{}", encode(header.to_string()), encode(forge.claims.to_string()));
        format!("{signed}.{}", encode(own.sign(signed.as_bytes())))
    };
    let with = |name: &str, value: Value| {
        let mut header = forge.header.clone();
        header[name] = value;
        header
    };
    let mut attacks = vec![("another key, the same id", by_own(forge.header.clone()))];
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/chain.pem")),
        ("x5c", json!([encode(own.public_key())])),
        ("x5t", json!(encode([7; 20]))),
    ] {
        attacks.push(("a key in the header", by_own(with(name, value.clone()))));
        let signed = forge.sign(&with(name, value).to_string(), &forge.claims.to_string());
        attacks.push(("a key in the header, rightly signed", signed));
    }
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
    ] {
        let signed = forge.sign(&with(name, value).to_string(), &forge.claims.to_string());
        attacks.push(("a member that is not understood", signed));
    }
    for kid in [
        json!("0000000000000000"),
        json!("../../../../dev/null"),
        json!("/dev/null"),
        json!("' OR 1=1 --"),
        json!("x' UNION SELECT 'key"),
        json!("token-signing"),
        json!(""),
        json!(null),
        json!(7),
        json!([forge.kid()]),
        json!(forge.kid().to_uppercase()),
        json!(format!("{}\u{0}", forge.kid())),
    ] {
        attacks.push(("another key id", by_own(with("kid", kid.clone()))));
        let signed = forge.sign(&with("kid", kid).to_string(), &forge.claims.to_string());
        attacks.push(("another key id, rightly signed", signed));
    }
    for typ in [json!("JWT"), json!("at+JWT"), json!("id+jwt"), json!(""), json!(null)] {
        let signed = forge.sign(&with("typ", typ).to_string(), &forge.claims.to_string());
        attacks.push(("another type", signed));
    }
    attacks
}

/// Headers of another shape, rightly signed.
fn odd_headers(forge: &Forge) -> Vec<Attack> {
    let mut attacks: Vec<Attack> = Vec::new();
    for missing in ["typ", "kid"] {
        let token = forge
            .with_header(|header| drop(header.as_object_mut().expect("an object").remove(missing)));
        attacks.push(("a header member is missing", token));
    }
    let (kid, claims) = (forge.kid(), forge.claims.to_string());
    for text in [
        format!(r#"{{"typ":"at+jwt","alg":"none","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"at+jwt","alg":"EdDSA","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"x","kid":"{kid}"}}"#),
        format!(r#"["at+jwt","EdDSA","{kid}"]"#),
        "{}".to_owned(),
        "null".to_owned(),
        String::new(),
    ] {
        attacks.push(("an odd header", forge.sign(&text, &claims)));
    }
    attacks
}

/// Claims that are wrong, rightly signed.
fn claims(forge: &Forge) -> Vec<Attack> {
    let (iat, exp) = (forge.number("iat"), forge.number("exp"));
    let moved = |seconds: i64| {
        let at = |from: u64| from.checked_add_signed(seconds).expect("a time");
        forge.with_claims(|claims| {
            claims["iat"] = at(iat).into();
            claims["nbf"] = at(iat).into();
            claims["exp"] = at(exp).into();
        })
    };
    let mut attacks: Vec<Attack> = vec![
        ("expired this second", moved(-900)),
        ("expired long ago", moved(-1_000_000)),
        ("not good yet", moved(60)),
        ("nbf in the future", forge.with_claim("nbf", iat + 60)),
        ("iat in the future", forge.with_claim("iat", iat + 60)),
        ("good for too long", forge.with_claim("exp", exp + 1)),
        ("good for ever", forge.with_claim("exp", u64::MAX)),
        ("an unknown claim", forge.with_claim("admin", true)),
        ("a scope", forge.with_claim("scope", "*")),
        ("no claims", forge.sign(&forge.header.to_string(), "{}")),
        ("claims that are a list", forge.sign(&forge.header.to_string(), "[]")),
        ("claims that are no JSON", forge.sign(&forge.header.to_string(), "claims")),
        ("empty claims", forge.sign(&forge.header.to_string(), "")),
    ];
    for name in ["iss", "aud", "sub", "sid", "role", "av", "jti", "iat", "nbf", "exp"] {
        attacks.push(("a claim is missing", forge.without_claim(name)));
        attacks.push(("a claim is null", forge.with_claim(name, Value::Null)));
    }
    for (name, values) in [
        (
            "aud",
            vec![
                json!("other"),
                json!(""),
                json!(["bulkhead"]),
                json!(["bulkhead", "x"]),
                json!([]),
            ],
        ),
        ("iss", vec![json!("other"), json!(""), json!(["bulkhead"]), json!("https://bulkhead")]),
        (
            "exp",
            vec![
                json!(exp.to_string()),
                json!(1e308),
                json!(-1),
                json!(exp as f64 + 0.5),
                json!(0),
            ],
        ),
        ("nbf", vec![json!("0"), json!(-1), json!(1e308)]),
        ("sub", vec![json!("us_1"), forge.claims["tid"].clone(), json!(7), json!("")]),
        ("sid", vec![json!("se_1"), forge.claims["sub"].clone(), json!(7)]),
        ("role", vec![json!("root"), json!(["owner"]), json!("Owner")]),
        ("av", vec![json!("1"), json!(-1), json!(1u64 << 40)]),
    ] {
        for value in values {
            attacks.push(("a claim of another kind", forge.with_claim(name, value)));
        }
    }
    let text = forge.claims.to_string();
    for twice in [r#"{"exp":1,"#, r#"{"role":"owner","#, r#"{"tid":"tn_1","#] {
        let doubled = text.replacen('{', twice, 1);
        attacks.push(("a claim twice", forge.sign(&forge.header.to_string(), &doubled)));
    }
    attacks
}

/// Rightly signed and rightly made, for rights that do not exist or exist no more.
fn rights(forge: &Forge, stale: &[Attack]) -> Vec<Attack> {
    let mut attacks = stale.to_vec();
    for role in ["owner", "viewer", "customer"] {
        let token = forge.with_claims(|claims| {
            claims["role"] = role.into();
            claims["av"] = 99.into();
        });
        attacks.push(("another authorisation version", token));
    }
    let absent = |prefix: &str| json!(format!("{prefix}_0123456789abcdef0123456789abcdef"));
    attacks.push(("a session that never was", forge.with_claim("sid", absent("se"))));
    attacks.push(("a person who never was", forge.with_claim("sub", absent("us"))));
    attacks
}

fn lsn(world: &World, tenant: &str) -> u64 {
    let ops = world.ops.with_header("accept", "application/json");
    ops.get(&format!("/actors/{tenant}"), 200).json()["lsn"].as_u64().expect("a number")
}

/// Every forgery of a token, none of which needs anybody to be asked.
pub fn forgeries(forge: &Forge, foreign: &str) -> Vec<Attack> {
    [
        algorithms(forge),
        signatures(forge, foreign),
        headers(forge),
        odd_headers(forge),
        claims(forge),
    ]
    .concat()
}

/// Calls every route that takes a token, and gives how many there are.
pub fn everywhere(client: &Client, mut check: impl FnMut(&Route, Reply)) -> usize {
    let mut cases = 0;
    for (serial, route) in ROUTES.iter().enumerate().filter(|(_, it)| it.is_tenant_scoped()) {
        check(route, Fixture::absent(serial).call(route, client));
        cases += 1;
    }
    cases
}

struct Stage {
    world: World,
    tenant: Tenant,
    forge: Forge,
    foreign: String,
    stale: Vec<Attack>,
}

impl Stage {
    fn new() -> Self {
        // The clock stands, so that "this second" is one second.
        let world = WorldOptions::default().clock(crate::kit::TestClock::new()).start();
        let tenant = world.tenant("acme");
        let other = world.tenant("other");
        let token = |client: &Client| client.token.clone().expect("a token");
        let foreign = token(&other.owner);
        let (removed, removed_id) = world.member_named(&other, "removed", "owner");
        other.owner.delete(&format!("/v1/members/{removed_id}"), 204);
        let (viewer, viewer_id) = world.member_named(&tenant, "viewer", "viewer");
        tenant.owner.delete(&format!("/v1/members/{viewer_id}"), 204);
        let signed_out = world.sign_in("acme", "owner@acme.example");
        signed_out.act("/v1/auth/sign-out", 204);
        let stale = vec![
            ("a removed owner's", token(&removed)),
            ("a removed viewer's", token(&viewer)),
            ("signed out", token(&signed_out)),
            ("a refresh token", tenant.refresh_token.clone()),
        ];
        let forge = Forge::new(&world.dir, &token(&tenant.owner));
        Self { world, tenant, forge, foreign, stale }
    }
}

#[test]
fn a_token_made_with_the_nodes_own_key_is_accepted() {
    // Without this, every refusal below could be the forger's own mistake.
    let stage = Stage::new();
    let accepted = [
        stage.forge.sign(&stage.forge.header.to_string(), &stage.forge.claims.to_string()),
        stage.forge.with_claim("jti", "another"),
        stage.forge.with_claim("exp", stage.forge.number("exp") - 1),
        stage.forge.with_claim("nbf", 0),
        {
            let header = Header {
                typ: Some("at+jwt".to_owned()),
                kid: Some(stage.forge.kid()),
                ..Header::new(Algorithm::EdDSA)
            };
            let key = EncodingKey::from_ed_der(&stage.forge.pkcs8);
            jsonwebtoken::encode(&header, &stage.forge.claims, &key).expect("a token")
        },
    ];
    for token in accepted {
        stage.world.client.with_token(&token).get("/v1/me", 200);
    }
}

#[test]
fn no_forged_token_gets_past_any_route_or_learns_why() {
    let Stage { world, tenant, forge, foreign, stale } = Stage::new();
    let attacks = [forgeries(&forge, &foreign), rights(&forge, &stale)].concat();
    let before = (lsn(&world, &tenant.id), lsn(&world, "platform"));
    // Errors have one form, and below SCIM's paths its own.
    let garbage = world.client.with_token("no.such.token");
    let expected = ["/v1/me", "/scim/v2/Users"].map(|path| garbage.get(path, 401).essence());
    let mut cases = 0;
    for (name, token) in &attacks {
        cases += everywhere(&world.client.with_token(token), |route, reply| {
            let expected = &expected[usize::from(route.is_scim())];
            assert_eq!(&reply.essence(), expected, "{route}: {name}: {token}: {}", reply.text());
        });
    }
    let after = (lsn(&world, &tenant.id), lsn(&world, "platform"));
    assert_eq!(after, before, "a refused token changed something");
    println!("forged tokens: {} attacks, {cases} cases, 100 % refused alike", attacks.len());
}

#[test]
fn a_token_without_a_tenant_is_forbidden_everywhere() {
    let Stage { world, tenant, forge, .. } = Stage::new();
    let attacks: Vec<Attack> = vec![
        ("missing", forge.without_claim("tid")),
        ("null", forge.with_claim("tid", Value::Null)),
        ("empty", forge.with_claim("tid", "")),
        ("a list", forge.with_claim("tid", json!([tenant.id]))),
        ("an object", forge.with_claim("tid", json!({"id": tenant.id}))),
        ("a number", forge.with_claim("tid", 1)),
        ("the short name", forge.with_claim("tid", "acme")),
        ("a person's id", forge.with_claim("tid", forge.claims["sub"].clone())),
        ("a wildcard", forge.with_claim("tid", "*")),
    ];
    let before = lsn(&world, &tenant.id);
    let mut cases = 0;
    for (name, token) in &attacks {
        cases += everywhere(&world.client.with_token(token), |route, reply| {
            assert_eq!(reply.status, 403, "{route}: {name}: {}", reply.text());
            assert_eq!(reply.problem(), "no-tenant", "{route}: {name}");
        });
    }
    assert_eq!(lsn(&world, &tenant.id), before);
    println!("tokens without a tenant: {cases} cases");
}

#[test]
fn a_tenant_that_is_not_the_sessions_own_opens_nothing() {
    let Stage { world, tenant, forge, foreign, .. } = Stage::new();
    let other = Forge::new(&world.dir, &foreign);
    let absent = format!("tn_{}", "0123456789abcdef".repeat(2));
    let tenants = [other.claims["tid"].clone(), json!(absent)];
    let before = lsn(&world, &tenant.id);
    for tid in tenants {
        let client = world.client.with_token(&forge.with_claim("tid", tid));
        everywhere(&client, |route, reply| {
            assert!([401, 404].contains(&reply.status), "{route}: {}", reply.text());
        });
    }
    assert_eq!(lsn(&world, &tenant.id), before);
}
