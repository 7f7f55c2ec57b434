//! Credentials that were good once, or are good for something else, on every route that takes one; and
//! how much work a bad one makes. Forged tokens are in `jwt.rs`.

use std::sync::Arc;
use std::time::Duration;

use actors::env::{Clock as _, SystemClock, rfc3339};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulkhead::http::routes::{Access, ROUTES, Route};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::isolation::lsn;
use crate::jwt::{Attack, everywhere, forgeries};
use crate::kit::{
    Client, Essence, Forge, PASSWORD, Reply, Tenant, TestClock, World, WorldOptions, api_key,
    begin_enrolment, encode, eventually, link_in, written,
};

fn token_of(client: &Client) -> String {
    client.token.clone().expect("a token")
}

/// A sign-in with the password; what it answered.
fn signed_in(world: &World, email: &str) -> Reply {
    let body = json!({"tenant": "acme", "email": email, "password": PASSWORD});
    world.client.post("/v1/auth/sign-in", body, 200)
}

fn refreshed(world: &World, token: &str, status: u16) -> Reply {
    world.client.post("/v1/auth/refresh", json!({"refresh_token": token}), status)
}

/// A node in a directory, a tenant and a neighbour. The clock stands still.
/// What a bad credential is answered with: errors have one form, and below SCIM's paths its own.
fn answers(client: &Client) -> [Essence; 2] {
    let garbage = client.with_token("no.such.token");
    ["/v1/me", "/scim/v2/Users"].map(|path| garbage.get(path, 401).essence())
}

struct Stage {
    clock: Arc<TestClock>,
    world: World,
    acme: Tenant,
    other: Tenant,
}

impl Stage {
    fn new() -> Self {
        let clock = TestClock::new();
        let world = WorldOptions::default().clock(clock.clone()).start();
        let (acme, other) = (world.tenant("acme"), world.tenant("other"));
        Self { clock, world, acme, other }
    }

    /// Sends each as a bearer to every route that takes one; all have to get the one answer.
    fn assert_refused(&self, what: &str, attacks: &[Attack]) {
        let expected = answers(&self.world.client);
        let before = lsn(&self.world, &self.acme);
        let mut cases = 0;
        for (name, token) in attacks {
            cases += everywhere(&self.world.client.with_token(token), |route, reply| {
                let expected = &expected[usize::from(route.is_scim())];
                assert_eq!(&reply.essence(), expected, "{route}: {name}: {}", reply.text());
            });
        }
        assert_eq!(lsn(&self.world, &self.acme), before, "a refused credential changed something");
        println!("{what}: {} attacks, cases={cases} refused={cases}", attacks.len());
    }

    /// Somebody of the tenant with a token from before something happened to them.
    fn stale(&self) -> Vec<Attack> {
        let (world, owner) = (&self.world, &self.acme.owner);
        let person = |name: &str, role: &str| world.member_named(&self.acme, name, role);
        let mut stale = Vec::new();
        for (what, from, to) in
            [("a lowered role", "admin", "viewer"), ("a raised role", "viewer", "admin")]
        {
            let (client, id) = person(from, from);
            owner.patch(&format!("/v1/members/{id}"), json!({"role": to}), 200);
            stale.push((what, token_of(&client)));
        }
        let (removed, id) = person("removed", "owner");
        owner.delete(&format!("/v1/members/{id}"), 204);
        stale.push(("a removed person", token_of(&removed)));
        let (left, id) = person("left", "member");
        left.delete(&format!("/v1/members/{id}"), 204);
        stale.push(("a person who left", token_of(&left)));

        person("many", "member");
        let phone = world.sign_in("acme", "many@acme.example");
        let tablet = world.sign_in("acme", "many@acme.example");
        let laptop = world.sign_in("acme", "many@acme.example");
        phone.act("/v1/auth/sign-out", 204);
        stale.push(("signed out", token_of(&phone)));
        laptop.delete("/v1/me/sessions", 204);
        stale.push(("a revoked session", token_of(&tablet)));
        let change = json!({"current_password": PASSWORD, "new_password": "quite another horse"});
        laptop.patch("/v1/me/password", change, 200);
        stale.push(("before a change of password", token_of(&laptop)));

        person("twice", "member");
        let first = signed_in(world, "twice@acme.example");
        let second = refreshed(world, &first.str("/refresh_token"), 200);
        refreshed(world, &first.str("/refresh_token"), 401);
        stale.push(("a family whose refresh came back", first.str("/access_token")));
        stale.push(("the newest of that family", second.str("/access_token")));
        stale
    }

    /// Secrets that are good, and no access tokens.
    fn others(&self) -> Vec<Attack> {
        let (world, owner) = (&self.world, &self.acme.owner);
        world.member_named(&self.acme, "factor", "member");
        let person = world.sign_in("acme", "factor@acme.example");
        let code = begin_enrolment(&person).code_at(world.now_ms());
        person.post("/v1/me/mfa/totp/confirm", json!({"code": code}), 200);
        let waiting = signed_in(world, "factor@acme.example").str("/mfa_token");
        owner.post("/v1/invites", json!({"email": "guest@acme.example", "role": "viewer"}), 201);
        let forgot = json!({"tenant": "acme", "email": "owner@acme.example"});
        world.client.post("/v1/auth/password/forgot", forgot, 202);
        owner.act("/v1/me/email/verify", 202);
        let link = |page: &str| {
            eventually(&format!("a mail with a link to {page}"), || {
                let mails = written(&world.dir, &self.acme.id);
                let mail =
                    mails.into_iter().find(|it| it.contains(&format!("/account/{page}#")))?;
                Some(link_in(&mail, page))
            })
        };
        vec![
            ("refresh_token", self.acme.refresh_token.clone()),
            ("mfa_token", waiting),
            ("an invitation", link("invite")),
            ("a link for a new password", link("reset")),
            ("a link that proves an address", link("verify")),
        ]
    }

    /// API keys that are none, or none any more.
    fn keys(&self) -> Vec<Attack> {
        let owner = &self.acme.owner;
        let text = token_of(&api_key(owner, &["forms:read"]).0);
        let foreign = token_of(&api_key(&self.other.owner, &["forms:read"]).0);
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(&text[3..]).expect("base64url");
        let made = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut forged = bytes(&text);
            change(&mut forged);
            format!("bk_{}", encode(forged))
        };
        let (revoked, id) = api_key(owner, &["forms:read"]);
        owner.delete(&format!("/v1/api-keys/{id}"), 204);
        let ends = rfc3339(self.clock.now_ms() + 1_000);
        let body = json!({"name": "K", "scopes": ["forms:read"], "expires_at": ends});
        let ended = owner.post("/v1/api-keys", body, 201).str("/key");
        let (maker, maker_id) = self.world.member_named(&self.acme, "maker", "member");
        let orphan = token_of(&api_key(&maker, &["forms:read"]).0);
        owner.delete(&format!("/v1/members/{maker_id}"), 204);
        self.clock.advance(Duration::from_secs(1));
        let theirs = bytes(&foreign);
        vec![
            ("truncated", text[..text.len() - 4].to_owned()),
            ("longer", format!("{text}AAAA")),
            ("without its prefix", text[3..].to_owned()),
            ("its prefix alone", "bk_".to_owned()),
            ("another tenant named in it", made(&|it| it[..16].copy_from_slice(&theirs[..16]))),
            ("another tenant's key id", made(&|it| it[16..32].copy_from_slice(&theirs[16..32]))),
            ("another tenant's secret", made(&|it| it[32..].copy_from_slice(&theirs[32..]))),
            ("no tenant's", made(&|it| it[..16].fill(7))),
            ("the platform's", made(&|it| it[..16].fill(0))),
            ("one bit of the secret", made(&|it| it[63] ^= 1)),
            ("a secret of zeros", made(&|it| it[32..].fill(0))),
            ("other capitals", text.to_ascii_lowercase()),
            ("revoked", token_of(&revoked)),
            ("ended", ended),
            ("its maker is gone", orphan),
        ]
    }
}

#[test]
fn credentials_that_were_good_open_no_route_any_more() {
    let stage = Stage::new();
    let stale = stage.stale();
    stage.assert_refused("credentials that were good", &stale);
}

#[test]
fn secrets_of_another_kind_open_no_route() {
    let stage = Stage::new();
    let others = stage.others();
    stage.assert_refused("secrets of another kind", &others);
}

#[test]
fn api_keys_that_are_none_open_no_route() {
    let stage = Stage::new();
    let keys = stage.keys();
    stage.assert_refused("bad API keys", &keys);
}

/// Tokens by real keys of the forger's own, with the algorithm that goes with them.
fn by_own_keys(forge: &Forge) -> Vec<Attack> {
    let random = SystemRandom::new();
    let claims = encode(forge.claims.to_string());
    let head = |alg: &str, jwk: Option<Value>| {
        let mut header = json!({"typ": "at+jwt", "alg": alg, "kid": forge.kid()});
        if let Some(jwk) = jwk {
            header["jwk"] = jwk;
        }
        format!("{}.{claims}", encode(header.to_string()))
    };
    let rsa = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let by_rsa = |signed: String| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        let done = rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature);
        done.expect("a signature");
        format!("{signed}.{}", encode(signature))
    };
    let der = aws_lc_rs::signature::KeyPair::public_key(&rsa).as_der().expect("DER");
    let x5c = json!({"kty": "RSA", "x5c": [encode(der.as_ref())]});
    let ec =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let es256 = Header {
        typ: Some("at+jwt".to_owned()),
        kid: Some(forge.kid()),
        ..Header::new(Algorithm::ES256)
    };
    let key = EncodingKey::from_ec_der(ec.as_ref());
    let by_ec = jsonwebtoken::encode(&es256, &forge.claims, &key).expect("a token");
    // A signature of r = s = 0, as raw numbers and as ASN.1.
    let (raw, asn1) = (encode([0; 64]), encode([0x30, 6, 2, 1, 0, 2, 1, 0]));
    let mut attacks = vec![
        ("RS256 by a key of one's own", by_rsa(head("RS256", None))),
        ("RS256, the key in the header", by_rsa(head("RS256", Some(x5c)))),
        ("an RSA signature under EdDSA", by_rsa(head("EdDSA", None))),
        ("ES256 by a key of one's own", by_ec),
    ];
    for alg in ["ES256", "ES384", "EdDSA"] {
        attacks.push(("r = s = 0", format!("{}.{raw}", head(alg, None))));
        attacks.push(("r = s = 0, as ASN.1", format!("{}.{asn1}", head(alg, None))));
    }
    attacks
}

#[test]
fn signatures_of_other_algorithms_open_no_route() {
    let stage = Stage::new();
    let forge = Forge::new(&stage.world.dir, &token_of(&stage.acme.owner));
    stage.assert_refused("other algorithms", &by_own_keys(&forge));
}

/// The member of a public route's body that holds a secret which was given out, if it has one.
fn secret_member(route: &Route) -> Option<(&'static str, Value)> {
    if route.access != Access::Public {
        return None;
    }
    let sample: Value = serde_json::from_str(route.body.as_ref()?.sample).expect("JSON");
    let member =
        ["token", "refresh_token", "mfa_token"].into_iter().find(|it| sample.get(it).is_some());
    member.map(|member| (member, sample))
}

/// What is mailed as a link.
const LINKS: [&str; 3] =
    ["an invitation", "a link for a new password", "a link that proves an address"];

#[test]
fn no_secret_is_taken_for_one_of_another_kind() {
    let stage = Stage::new();
    let world = &stage.world;
    let mut secrets = stage.others();
    secrets.push(("an access token", token_of(&stage.acme.owner)));
    secrets.push(("an API key", token_of(&api_key(&stage.acme.owner, &["forms:read"]).0)));
    // What each is good for; everywhere else it is as good as nonsense.
    let own = |route: &Route| -> &[&str] {
        match route.id {
            "auth.refresh" => &["refresh_token"],
            "auth.mfa" => &["mfa_token"],
            "auth.accept-invite" => &["an invitation"],
            "auth.reset" => &["a link for a new password"],
            "auth.verify-email" => &["a link that proves an address"],
            "auth.read-link" => &LINKS,
            _ => &[],
        }
    };
    let (mut cases, mut taking) = (0, Vec::new());
    for route in ROUTES.iter() {
        let Some((member, mut body)) = secret_member(route) else { continue };
        taking.push(route.id);
        let mut ask = |text: &str| {
            body[member] = json!(text);
            world.client.call(route.verb.name(), route.path, Some(&body))
        };
        let nonsense = ask("nonsense").essence();
        assert!([400, 401].contains(&nonsense.0), "{route}: {nonsense:?}");
        for (what, text) in secrets.iter().filter(|(what, _)| !own(route).contains(what)) {
            let cut = &text[..text.len() - 4];
            for text in [text.as_str(), cut, &format!("{text}AAAA"), &text.to_ascii_uppercase()] {
                assert_eq!(ask(text).essence(), nonsense, "{route}: {what}");
                cases += 1;
            }
        }
    }
    println!(
        "secrets of another kind in bodies: {} routes, cases={cases} refused={cases}",
        taking.len()
    );
    assert!(taking.len() >= 5, "{taking:?}");
    // None was used up by being shown where it does not belong.
    let of = |kind: &str| secrets.iter().find(|(what, _)| *what == kind).expect("one").1.clone();
    refreshed(world, &of("refresh_token"), 200);
    let accept = json!({"token": of("an invitation"), "password": PASSWORD});
    world.client.post("/v1/auth/invites/accept", accept, 201);
    let verify = json!({"token": of("a link that proves an address")});
    world.client.post("/v1/auth/email/verify", verify, 204);
    let reset = json!({"token": of("a link for a new password"), "new_password": PASSWORD});
    world.client.post("/v1/auth/password/reset", reset, 204);
}

#[test]
fn a_forged_token_asks_nobody_and_one_by_a_removed_key_opens_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("data");
    let clock = TestClock::new();
    let start = || WorldOptions::default().clock(clock.clone()).data(&dir).start();
    let mut world = start();
    let (acme, other) = (world.tenant("acme"), world.tenant("other"));
    let forge = Forge::new(&dir, &token_of(&acme.owner));
    world.stop();
    drop(world);

    // Every tenant sleeps. Whoever asks one wakes it.
    let mut world = start();
    let state = |world: &World, tenant: &Tenant| {
        let ops = world.ops.with_header("accept", "application/json");
        ops.get(&format!("/actors/{}", tenant.id), 200).str("/state")
    };
    let attacks = forgeries(&forge, &token_of(&other.owner));
    // That each is refused on every route is shown elsewhere; here one asks for each, and one everywhere.
    for (_, token) in &attacks {
        world.client.with_token(token).get("/v1/me", 401);
    }
    let (_, last) = attacks.last().expect("an attack");
    everywhere(&world.client.with_token(last), |_, reply| assert_eq!(reply.status, 401));
    for tenant in [&acme, &other] {
        assert_eq!(state(&world, tenant), "asleep", "somebody was asked about a forged token");
    }
    world.client.with_token(&forge.good).get("/v1/me", 200);
    assert_eq!(state(&world, &acme), "awake");
    println!("forged tokens: {} attacks, nobody asked", attacks.len());
    world.stop();
    drop(world);

    std::fs::remove_file(dir.join("keys").join("token-signing.sealed")).expect("the signing keys");
    let world = start();
    let expected = answers(&world.client);
    let cases = everywhere(&world.client.with_token(&forge.good), |route, reply| {
        assert_eq!(reply.essence(), expected[usize::from(route.is_scim())], "{route}");
    });
    assert_eq!(state(&world, &acme), "asleep");
    println!("a removed signing key: cases={cases} refused={cases}, nobody asked");
    refreshed(&world, &acme.refresh_token, 200);
}

/// What a bad credential costs, by what is wrong with it. Times are printed and not judged: they are the
/// machine's. What is judged is that the answers are alike.
#[test]
fn bad_credentials_are_answered_alike_and_their_times_are_printed() {
    const TURNS: usize = 60;
    let stage = Stage::new();
    let forge = Forge::new(&stage.world.dir, &token_of(&stage.acme.owner));
    let absent = |prefix: &str| json!(format!("{prefix}_0123456789abcdef0123456789abcdef"));
    let (removed, id) = stage.world.member_named(&stage.acme, "removed", "member");
    stage.acme.owner.delete(&format!("/v1/members/{id}"), 204);
    let attacks: Vec<Attack> = vec![
        ("no token at all", "nonsense".to_owned()),
        (
            "a signature of zeros",
            format!("{}.{}", forge.good.rsplit_once('.').expect("parts").0, encode([0; 64])),
        ),
        (
            "an unknown key id",
            forge.with_header(|header| header["kid"] = json!("0000000000000000")),
        ),
        ("another audience", forge.with_claim("aud", "other")),
        ("a session that never was", forge.with_claim("sid", absent("se"))),
        ("a person who never was", forge.with_claim("sub", absent("us"))),
        ("a removed person", token_of(&removed)),
    ];
    let expected = stage.world.client.with_token("no.such.token").get("/v1/me", 401).essence();
    let mut times = vec![Vec::with_capacity(TURNS); attacks.len()];
    let machine = SystemClock::new();
    // In turns, so that a busy moment of the machine falls on all of them alike.
    for _ in 0..TURNS {
        for ((name, token), times) in attacks.iter().zip(&mut times) {
            let client = stage.world.client.with_token(token);
            let begun = machine.monotonic();
            let reply = client.get("/v1/me", 401);
            times.push(machine.monotonic().saturating_sub(begun));
            assert_eq!(reply.essence(), expected, "{name}");
        }
    }
    for ((name, _), mut times) in attacks.iter().zip(times) {
        times.sort_unstable();
        println!(
            "{name}: median {:?}, slowest tenth {:?}",
            times[TURNS / 2],
            times[TURNS * 9 / 10]
        );
    }
}
