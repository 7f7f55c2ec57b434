//! Forged, stretched and stale tokens, each refused for the right reason.

use std::path::Path;

use storage::disk::fault::FaultDisk;
use storage::id::Id as _;
use storage::seal::SystemRandom as SealRandom;

use super::*;

const NOW_MS: u64 = 1_700_000_000_000;
const NOW_S: u64 = NOW_MS / 1_000;

struct Fixed;

impl actors::env::Clock for Fixed {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

fn env() -> Env {
    Env::real().with_clock(Arc::new(Fixed))
}

fn keystore() -> KeyStore {
    KeyStore::open(Arc::new(FaultDisk::new()), Path::new("/keys"), Arc::new(SealRandom)).unwrap()
}

fn tokens() -> Tokens {
    Tokens::open(&keystore(), ISSUER_DEFAULT, &env()).unwrap()
}

fn person() -> UserPrincipal {
    UserPrincipal {
        user: UserId::new(1, [1; 10]),
        session: SessionId::new(1, [2; 10]),
        role: Role::Member,
        authz: 3,
        carrier: Carrier::Token,
    }
}

fn grant() -> Grant {
    Grant::new(TenantId::new(1, [4; 10]), person())
}

fn parts(token: &str) -> [String; 3] {
    token.split('.').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
}

fn json_of(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Signs any header and claims with the node's own key: what only a bug could let out.
fn signed(tokens: &Tokens, header: &str, claims: &str) -> String {
    let pkcs8 = tokens.ring().keys[0].pkcs8.clone();
    let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).unwrap();
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(text.as_bytes()).as_ref());
    format!("{text}.{signature}")
}

fn good_header(tokens: &Tokens) -> Value {
    json!({ "typ": TYPE, "alg": ALGORITHM, "kid": tokens.ring().keys[0].kid })
}

fn good_claims(tokens: &Tokens) -> Value {
    json_of(&parts(&tokens.issue(grant().tenant(), &person(), NOW_MS))[1])
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

fn verify_claims(tokens: &Tokens, claims: &Value) -> Result<Grant, TokenError> {
    let token = signed(tokens, &good_header(tokens).to_string(), &claims.to_string());
    tokens.verify(&token, NOW_MS)
}

#[test]
fn a_token_gives_back_the_grant_it_was_made_from_also_from_the_cache() {
    let tokens = tokens();
    let token = tokens.issue(grant().tenant(), &person(), NOW_MS);
    for _ in 0..3 {
        assert_eq!(tokens.verify(&token, NOW_MS), Ok(grant()));
    }
    let header = json_of(&parts(&token)[0]);
    assert_eq!(header, good_header(&tokens));
    assert_eq!(
        verify_claims(&tokens, &good_claims(&tokens)),
        Ok(grant()),
        "the forger's own control"
    );
}

#[test]
fn a_token_ends_with_its_second_also_when_it_was_seen_before() {
    let tokens = tokens();
    let token = tokens.issue(grant().tenant(), &person(), NOW_MS);
    let ends_ms = (NOW_S + ACCESS_S) * 1_000;
    assert!(tokens.verify(&token, ends_ms - 1).is_ok());
    assert_eq!(tokens.verify(&token, ends_ms), Err(TokenError::Expired));
    assert_eq!(tokens.verify(&token, u64::MAX), Err(TokenError::Expired));
    let unseen = tokens.issue(grant().tenant(), &person(), NOW_MS);
    assert_eq!(tokens.verify(&unseen, ends_ms), Err(TokenError::Expired));
}

#[test]
fn a_clock_set_back_a_little_is_forgiven_and_no_more() {
    let tokens = tokens();
    let token = tokens.issue(grant().tenant(), &person(), NOW_MS);
    assert!(tokens.verify(&token, NOW_MS - LEEWAY_S * 1_000).is_ok());
    let too_early = NOW_MS - (LEEWAY_S + 1) * 1_000;
    assert_eq!(tokens.verify(&token, too_early), Err(TokenError::Invalid), "from the cache");
}

#[test]
fn headers_other_than_the_one_form_are_refused() {
    let tokens = tokens();
    let good = good_header(&tokens);
    let claims = good_claims(&tokens).to_string();
    let mut bad = Vec::new();
    for alg in ["none", "NONE", "", "eddsa", "HS256", "RS256", "ES256", "EdDSA "] {
        bad.push(with(good.clone(), "alg", json!(alg)).to_string());
    }
    for typ in ["JWT", "AT+JWT", "application/at+jwt", "id+jwt", ""] {
        bad.push(with(good.clone(), "typ", json!(typ)).to_string());
    }
    for kid in ["", "../../etc/passwd", "' OR 1=1 --", "0000000000000000", "tn_0"] {
        bad.push(with(good.clone(), "kid", json!(kid)).to_string());
    }
    for (name, value) in [
        ("jwk", tokens.jwks()["keys"][0].clone()),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        bad.push(with(good.clone(), name, value).to_string());
    }
    for name in ["typ", "alg", "kid"] {
        bad.push(without(good.clone(), name).to_string());
        bad.push(with(good.clone(), name, json!(["EdDSA"])).to_string());
        let text = good.to_string();
        bad.push(format!("{},{name:?}:{}}}", &text[..text.len() - 1], good[name]));
    }
    bad.extend(["", "null", "[]", "{", "{} {}"].map(str::to_owned));
    for header in bad {
        let token = signed(&tokens, &header, &claims);
        assert_eq!(tokens.verify(&token, NOW_MS), Err(TokenError::Invalid), "{header}");
    }
}

#[test]
fn claims_of_another_type_place_or_time_are_refused() {
    let tokens = tokens();
    let good = good_claims(&tokens);
    let mut bad = Vec::new();
    for name in ["iss", "aud", "sub", "sid", "role", "av", "jti", "iat", "nbf", "exp"] {
        bad.push(without(good.clone(), name).to_string());
        bad.push(with(good.clone(), name, Value::Null).to_string());
        bad.push(with(good.clone(), name, json!([good[name]])).to_string());
        let text = good.to_string();
        bad.push(format!("{},{name:?}:{}}}", &text[..text.len() - 1], good[name]));
    }
    for name in ["iat", "nbf", "exp"] {
        for value in [json!("1700000900"), json!(-1), json!(1e308), json!(1_700_000_900.5)] {
            bad.push(with(good.clone(), name, value).to_string());
        }
    }
    for (name, value) in [
        ("iss", json!("https://evil.example")),
        ("iss", json!("bulkhead/")),
        ("aud", json!("another")),
        ("aud", json!(["bulkhead", "another"])),
        ("sub", json!("")),
        ("sub", json!(TenantId::new(1, [1; 10]).to_string())),
        ("role", json!("root")),
        ("av", json!(-1)),
        ("nbf", json!(NOW_S + LEEWAY_S + 1)),
        ("iat", json!(NOW_S + LEEWAY_S + 1)),
        ("exp", json!(NOW_S + ACCESS_S + 1)),
        ("exp", json!(u64::MAX)),
        ("admin", json!(true)),
    ] {
        bad.push(with(good.clone(), name, value).to_string());
    }
    bad.extend(["", "null", "[]", "\"x\"", "{}"].map(str::to_owned));
    for claims in bad {
        let token = signed(&tokens, &good_header(&tokens).to_string(), &claims);
        assert_eq!(tokens.verify(&token, NOW_MS), Err(TokenError::Invalid), "{claims}");
    }
    let expired = with(good, "exp", json!(NOW_S));
    assert_eq!(verify_claims(&tokens, &expired), Err(TokenError::Expired));
}

#[test]
fn a_token_of_ours_without_one_tenant_is_told_apart() {
    let tokens = tokens();
    let good = good_claims(&tokens);
    let mut bad = vec![without(good.clone(), "tid")];
    for value in [json!(""), json!(null), json!([good["tid"]]), json!({}), json!(0), json!("acme")]
    {
        bad.push(with(good.clone(), "tid", value));
    }
    for claims in bad {
        assert_eq!(verify_claims(&tokens, &claims), Err(TokenError::NoTenant), "{claims}");
    }
    let forged = parts(&tokens.issue(grant().tenant(), &person(), NOW_MS));
    let claims = URL_SAFE_NO_PAD.encode(without(good, "tid").to_string());
    let unsigned = format!("{}.{claims}.{}", forged[0], forged[2]);
    assert_eq!(tokens.verify(&unsigned, NOW_MS), Err(TokenError::Invalid), "an oracle");
}

#[test]
fn signatures_that_are_missing_cut_foreign_or_zero_are_refused() {
    let tokens = tokens();
    let [header, claims, signature] = parts(&tokens.issue(grant().tenant(), &person(), NOW_MS));
    let mut flipped = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    flipped[0] ^= 1;
    for bad in [
        String::new(),
        signature[..signature.len() - 2].to_owned(),
        URL_SAFE_NO_PAD.encode([0; 64]),
        URL_SAFE_NO_PAD.encode(flipped),
        format!("{signature}AAAA"),
    ] {
        let token = format!("{header}.{claims}.{bad}");
        assert_eq!(tokens.verify(&token, NOW_MS), Err(TokenError::Invalid), "{bad}");
    }
    let moved = parts(&tokens.issue(grant().tenant(), &person(), NOW_MS));
    let swapped = format!("{header}.{}.{signature}", moved[1]);
    assert_eq!(tokens.verify(&swapped, NOW_MS), Err(TokenError::Invalid));
}

#[test]
fn the_public_key_is_no_shared_secret_and_another_node_is_no_issuer() {
    let tokens = tokens();
    let claims: Claims = serde_json::from_value(good_claims(&tokens)).unwrap();
    let ring = tokens.ring();
    let header = Header {
        typ: Some(TYPE.to_owned()),
        kid: Some(ring.keys[0].kid.clone()),
        ..Header::new(Algorithm::HS256)
    };
    let key = EncodingKey::from_secret(&ring.keys[0].public);
    let confused = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    assert_eq!(tokens.verify(&confused, NOW_MS), Err(TokenError::Invalid));

    let other = self::tokens();
    let foreign = other.issue(grant().tenant(), &person(), NOW_MS);
    assert!(other.verify(&foreign, NOW_MS).is_ok());
    assert_eq!(tokens.verify(&foreign, NOW_MS), Err(TokenError::Invalid), "kept for another node");
    let renamed = Header { kid: header.kid, ..Header::new(Algorithm::EdDSA) };
    let renamed = Header { typ: header.typ, ..renamed };
    let signed = jsonwebtoken::encode(&renamed, &claims, &other.ring().keys[0].signs).unwrap();
    assert_eq!(tokens.verify(&signed, NOW_MS), Err(TokenError::Invalid), "another key, our kid");
}

#[test]
fn texts_that_are_not_three_canonical_parts_are_refused() {
    let tokens = tokens();
    let token = tokens.issue(grant().tenant(), &person(), NOW_MS);
    let [header, claims, signature] = parts(&token);
    // The last character of 64 bytes carries four spare bits, which have to be zero.
    let mut stray = signature.clone();
    let last = stray.pop().unwrap();
    stray.push(match last {
        'A' => 'B',
        'Q' => 'R',
        'g' => 'h',
        _ => 'x',
    });
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.{signature}."),
        format!("{header}.{claims}.{signature}.{header}.{claims}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}=.{signature}"),
        format!("{header}.{claims}.{signature}=="),
        format!("{header}.{claims}.{stray}"),
        format!("{header}.{claims}.{}", signature.replace(['-', '_'], "+")) + "/",
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}\0"),
        format!("{header}.{claims}.{signature}{}", "A".repeat(TOKEN_BYTES_MAX)),
        "bkr_AAAA".to_owned(),
    ] {
        assert_eq!(tokens.verify(&bad, NOW_MS), Err(TokenError::Invalid), "{bad:?}");
    }
}

#[test]
fn keys_survive_a_restart_and_a_retired_one_verifies_as_long_as_its_tokens_live() {
    let keystore = keystore();
    let tokens = Tokens::open(&keystore, ISSUER_DEFAULT, &env()).unwrap();
    let old = tokens.issue(grant().tenant(), &person(), NOW_MS);
    let kid = tokens.rotate(&keystore).unwrap();
    let new = tokens.issue(grant().tenant(), &person(), NOW_MS);
    assert_eq!(json_of(&parts(&new)[0])["kid"], json!(kid));
    assert_eq!(tokens.jwks()["keys"].as_array().unwrap().len(), 2);
    let restarted = Tokens::open(&keystore, ISSUER_DEFAULT, &env()).unwrap();
    for tokens in [&tokens, &restarted] {
        assert_eq!(tokens.verify(&old, NOW_MS), Ok(grant()));
        assert_eq!(tokens.verify(&new, NOW_MS), Ok(grant()));
    }
    let ring = restarted.ring();
    let after_ms = NOW_MS + (ACCESS_S + LEEWAY_S) * 1_000 + 1;
    assert!(ring.keys[1].is_gone(after_ms) && !ring.keys[0].is_gone(after_ms));
}

#[test]
fn a_damaged_ring_is_not_replaced() {
    let keystore = keystore();
    keystore.seal_secret(SECRET, b"not a ring").unwrap();
    let opened = Tokens::open(&keystore, ISSUER_DEFAULT, &env());
    assert!(matches!(opened, Err(TokenKeyError::Damaged)));
    assert_eq!(&**keystore.open_secret(SECRET).unwrap(), b"not a ring");
}

#[test]
fn the_key_set_shows_public_parts_only() {
    let tokens = tokens();
    let keys = tokens.jwks();
    let key = keys["keys"][0].as_object().unwrap();
    let names: Vec<_> = key.keys().map(String::as_str).collect();
    assert_eq!(names.len(), 6);
    assert!(!key.contains_key("d"));
    assert_eq!(URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap().len(), 32);
}
