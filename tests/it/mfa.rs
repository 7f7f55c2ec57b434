//! Second factors as clients see them: enrolled, asked for at every sign-in, good once, bound to whom and
//! what they were made for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{
    Authenticator, Client, Otplib, PASSWORD, Reply, STEP_MS, Tenant, TestClock, World,
    WorldOptions, begin_enrolment, enrol, restore_to,
};

mod policy;

const EMAIL: &str = "owner@acme.example";

fn sign_in(client: &Client, email: &str, password: &str) -> Reply {
    let body = json!({"tenant": "acme", "email": email, "password": password});
    client.call("POST", "/v1/auth/sign-in", Some(&body))
}

/// The token of a sign-in that waits for its second factor.
fn challenge(client: &Client) -> String {
    let reply = sign_in(client, EMAIL, PASSWORD);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    assert_eq!(json["mfa_required"], true, "{json}");
    assert_eq!(json["methods"], json!(["totp", "recovery_code"]));
    assert!(json.get("access_token").is_none() && json.get("refresh_token").is_none(), "{json}");
    reply.str("/mfa_token")
}

fn complete(client: &Client, token: &str, code: &str) -> Reply {
    let body = json!({"mfa_token": token, "code": code});
    client.call("POST", "/v1/auth/mfa", Some(&body))
}

fn proven(code: &str) -> Value {
    json!({"password": PASSWORD, "code": code})
}

/// A node whose clock stands still, and a tenant whose owner has an authenticator.
struct Stage {
    world: World,
    clock: std::sync::Arc<TestClock>,
    acme: Tenant,
    held: Authenticator,
    recovery_codes: Vec<String>,
}

impl Stage {
    fn new() -> Self {
        let clock = TestClock::new();
        let world = WorldOptions::default().clock(clock.clone()).start();
        let mut acme = world.tenant("acme");
        let held = begin_enrolment(&acme.owner);
        let code = held.code_at(world.now_ms());
        let confirmed = acme.owner.post("/v1/me/mfa/totp/confirm", json!({"code": code}), 200);
        acme.owner = world.client.with_token(&confirmed.str("/access_token"));
        let codes = confirmed.json()["recovery_codes"].as_array().expect("codes").clone();
        let recovery_codes =
            codes.iter().map(|code| code.as_str().expect("a text").to_owned()).collect();
        clock.advance(Duration::from_millis(10 * STEP_MS));
        Self { world, clock, acme, held, recovery_codes }
    }

    /// The code that is so many steps away from now.
    fn code(&self, steps: i64) -> String {
        let step = (self.world.now_ms() / STEP_MS).checked_add_signed(steps).expect("a step");
        self.held.code_of(step)
    }

    /// Signs in anew and gives the answer to a code.
    fn answer(&self, code: &str) -> Reply {
        complete(&self.world.client, &challenge(&self.world.client), code)
    }

    fn status(&self, code: &str) -> u16 {
        self.answer(code).status
    }

    fn audited(&self, query: &str) -> Vec<Value> {
        let page = self.acme.owner.get(&format!("/v1/audit?{query}"), 200).json();
        page["items"].as_array().expect("a list").clone()
    }
}

#[test]
fn an_authenticator_is_enrolled_with_its_first_code_and_asked_for_from_then_on() {
    let world = World::start();
    let acme = world.tenant("acme");
    let phone = world.sign_in("acme", EMAIL);
    let none = acme.owner.get("/v1/me/mfa", 200).json();
    assert_eq!((&none["methods"], &none["recovery_codes_left"]), (&json!([]), &json!(0)));
    let wrong = acme.owner.post("/v1/me/mfa/totp", json!({"password": "not it at all"}), 422);
    assert_eq!(wrong.str("/errors/0/pointer"), "/password");
    let early = acme.owner.post("/v1/me/mfa/totp/confirm", json!({"code": "123456"}), 409);
    assert_eq!(early.problem(), "mfa-not-begun");

    let begun = acme.owner.post("/v1/me/mfa/totp", json!({"password": PASSWORD}), 201);
    assert_eq!(begun.header("cache-control"), Some("no-store"));
    assert!(begun.str("/qr_svg").contains("<svg") && !begun.str("/qr_svg").contains("<script"));
    assert!(begun.str("/otpauth_uri").contains(&begun.str("/secret")));
    let held = Authenticator::of(&begun);
    let old = held.code_of(world.now_ms() / STEP_MS - 3);
    let wrong = acme.owner.post("/v1/me/mfa/totp/confirm", json!({"code": old}), 422);
    assert_eq!(wrong.str("/errors/0/pointer"), "/code");
    world.sign_in("acme", EMAIL);

    let body = json!({"code": held.fresh_code(world.now_ms())});
    let confirmed = acme.owner.post("/v1/me/mfa/totp/confirm", body, 200);
    assert_eq!(confirmed.json()["recovery_codes"].as_array().map(Vec::len), Some(10));
    for older in [&phone, &acme.owner] {
        assert_eq!(older.get("/v1/me", 401).problem(), "invalid-token");
    }
    let owner = world.client.with_token(&confirmed.str("/access_token"));
    let sessions = owner.get("/v1/me/sessions", 200).json();
    assert_eq!(sessions["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(sessions["items"][0]["amr"], json!(["pwd", "otp"]));
    let mfa = owner.get("/v1/me/mfa", 200).json();
    assert_eq!((&mfa["methods"], &mfa["recovery_codes_left"]), (&json!(["totp"]), &json!(10)));

    let token = challenge(&world.client);
    let opened = complete(&world.client, &token, &held.fresh_code(world.now_ms()));
    assert_eq!(opened.status, 200, "{}", opened.text());
    let refreshed = json!({"refresh_token": opened.str("/refresh_token")});
    let refreshed = world.client.post("/v1/auth/refresh", refreshed, 200);
    world.client.with_token(&refreshed.str("/access_token")).get("/v1/forms", 200);
}

#[test]
fn a_code_is_good_one_step_away_not_two_and_only_once() {
    let stage = Stage::new();
    for (steps, status) in [(-2, 401), (2, 401), (-1, 200), (-1, 401), (0, 200), (0, 401), (1, 200)]
    {
        assert_eq!(stage.status(&stage.code(steps)), status, "{steps} steps away");
    }
    assert_eq!(stage.status(&stage.code(1)), 401, "the same step twice");
    stage.clock.advance(Duration::from_millis(STEP_MS));
    assert_eq!(stage.status(&stage.code(0)), 401, "the same step once it is the present one");
    assert_eq!(stage.status(&stage.code(1)), 200);
}

#[test]
fn a_recovery_code_is_good_once_and_its_use_is_on_record() {
    let stage = Stage::new();
    assert_eq!(stage.status(&stage.recovery_codes[0]), 200);
    assert_eq!(stage.status(&stage.recovery_codes[0]), 401);
    let spaced = stage.recovery_codes[1].replace('-', " ").to_uppercase();
    assert_eq!(stage.status(&spaced), 200);
    let used = stage.audited("action=mfa.recovery_code");
    assert_eq!(used.len(), 2);
    assert_eq!(
        (&used[0]["detail"]["codes_left"], &used[0]["actor"]["email"]),
        (&json!(8), &json!(EMAIL))
    );
    let signed_in = stage.audited("action=sign_in&outcome=success");
    assert_eq!(signed_in[0]["detail"]["factor"], "recovery_code");
    let failed = stage.audited("action=sign_in&outcome=failed");
    assert_eq!(failed[0]["detail"]["reason"], "wrong-code");

    let place = "/v1/me/mfa/recovery-codes";
    let owner = &stage.acme.owner;
    assert_eq!(owner.post(place, proven("000000"), 422).str("/errors/0/pointer"), "/code");
    let renewed = owner.post(place, proven(&stage.code(0)), 200).json();
    assert_eq!(stage.status(&stage.recovery_codes[2]), 401, "of the set before");
    assert_eq!(stage.status(renewed["recovery_codes"][0].as_str().expect("a code")), 200);
}

#[test]
fn five_wrong_codes_void_a_sign_in_that_waits_and_no_other() {
    let stage = Stage::new();
    let client = &stage.world.client;
    let (token, other) = (challenge(client), challenge(client));
    let code = stage.code(0);
    for _ in 0..5 {
        let wrong = complete(client, &token, "000000");
        assert_eq!((wrong.status, wrong.problem().as_str()), (401, "bad-credentials"));
    }
    assert_eq!(complete(client, &token, &code).status, 401);
    assert_eq!(complete(client, &other, &code).status, 200);
}

#[test]
fn whatever_is_wrong_with_a_second_factor_the_answer_is_the_same() {
    let stage = Stage::new();
    let client = &stage.world.client;
    let code = stage.code(0);
    let (used, late, waiting) = (challenge(client), challenge(client), challenge(client));
    assert_eq!(complete(client, &used, &code).status, 200);
    let bob = stage.world.tenant("bob");
    let (_, bobs) = enrol(&bob.owner, stage.world.now_ms());
    let body = json!({"tenant": "bob", "email": "owner@bob.example", "password": PASSWORD});
    let foreign = client.post("/v1/auth/sign-in", body, 200).str("/mfa_token");
    let next = stage.code(1);
    let wrong = complete(client, &waiting, "000000");
    assert_eq!((wrong.status, wrong.problem().as_str()), (401, "bad-credentials"));
    let access = stage.acme.owner.token.clone().expect("a token");
    for (what, token, code) in [
        ("used", used.as_str(), next.as_str()),
        ("another tenant's code", &waiting, &bobs.code_at(stage.world.now_ms())),
        ("another tenant's token", &foreign, &next),
        ("an access token", &access, &next),
        ("a refresh token", &stage.acme.refresh_token, &next),
        ("no token", "", &next),
        ("no code", &waiting, ""),
        ("a part of a token", &waiting[..40], &next),
    ] {
        assert_eq!(complete(client, token, code).essence(), wrong.essence(), "{what}");
    }
    stage.clock.advance(Duration::from_secs(5 * 60));
    assert_eq!(complete(client, &late, &stage.code(0)).essence(), wrong.essence(), "late");
}

#[test]
fn the_token_of_a_sign_in_that_waits_opens_nothing() {
    let stage = Stage::new();
    let token = challenge(&stage.world.client);
    let bearer = stage.world.client.with_token(&token);
    for path in ["/v1/me", "/v1/me/mfa", "/v1/forms", "/v1/platform/tenants"] {
        assert_eq!(bearer.get(path, 401).problem(), "invalid-token");
    }
    let refresh = json!({"refresh_token": token});
    assert_eq!(
        stage.world.client.post("/v1/auth/refresh", refresh, 401).problem(),
        "bad-credentials"
    );
}

#[test]
fn a_new_password_voids_the_sign_ins_that_wait() {
    let stage = Stage::new();
    let token = challenge(&stage.world.client);
    let body = json!({"current_password": PASSWORD, "new_password": "another correct horse"});
    let changed = stage.acme.owner.patch("/v1/me/password", body, 200);
    assert_eq!(complete(&stage.world.client, &token, &stage.code(0)).status, 401);
    // The session that changed it was proven by both, and still is.
    let owner = stage.world.client.with_token(&changed.str("/access_token"));
    let sessions = owner.get("/v1/me/sessions", 200).json();
    assert_eq!(sessions["items"][0]["amr"], json!(["pwd", "otp"]));
}

#[test]
fn an_authenticator_is_replaced_or_removed_with_a_code_of_it() {
    let stage = Stage::new();
    let owner = &stage.acme.owner;
    for body in [json!({"password": PASSWORD}), proven("000000")] {
        let refused = owner.post("/v1/me/mfa/totp", body, 422);
        assert_eq!(refused.str("/errors/0/pointer"), "/code");
    }
    let begun = owner.post("/v1/me/mfa/totp", proven(&stage.code(0)), 201);
    assert_eq!(stage.status(&stage.code(1)), 200, "the old one counts until then");
    let newer = Authenticator::of(&begun);
    let code = newer.code_at(stage.world.now_ms());
    let confirmed = owner.post("/v1/me/mfa/totp/confirm", json!({"code": code}), 200);
    let owner = stage.world.client.with_token(&confirmed.str("/access_token"));
    stage.clock.advance(Duration::from_millis(STEP_MS));
    assert_eq!(stage.status(&stage.code(0)), 401, "the old one");

    let remove = |body: Value| owner.call("DELETE", "/v1/me/mfa/totp", Some(&body));
    assert_eq!(remove(proven("000000")).str("/errors/0/pointer"), "/code");
    let wrong = json!({"password": "not it at all", "code": newer.code_at(stage.world.now_ms())});
    assert_eq!(remove(wrong).str("/errors/0/pointer"), "/password");
    assert_eq!(remove(proven(&newer.code_at(stage.world.now_ms()))).status, 204);
    assert_eq!(remove(proven("000000")).status, 404);
    assert_eq!(sign_in(&stage.world.client, EMAIL, PASSWORD).str("/token_type"), "Bearer");
}

#[test]
fn going_back_brings_back_no_lost_authenticator_and_takes_none_away() {
    let stage = Stage::new();
    let owner = &stage.acme.owner;
    let (ann, ann_id) = stage.world.member_named(&stage.acme, "ann", "member");
    let (bob, _) = stage.world.member_named(&stage.acme, "bob", "member");
    let (_, anns) = enrol(&ann, stage.world.now_ms());
    let (bob, bobs) = enrol(&bob, stage.world.now_ms());
    assert_eq!(stage.status(&stage.recovery_codes[0]), 200);
    stage.clock.advance(Duration::from_secs(60));
    let then = actors::env::rfc3339(stage.world.now_ms());
    stage.clock.advance(Duration::from_secs(60));
    // Since then the owner used a code, Bob gave his telephone away, and Ann left.
    assert_eq!(stage.status(&stage.recovery_codes[1]), 200);
    let body = proven(&bobs.fresh_code(stage.world.now_ms()));
    assert_eq!(bob.call("DELETE", "/v1/me/mfa/totp", Some(&body)).status, 204);
    owner.delete(&format!("/v1/members/{ann_id}"), 204);
    restore_to(owner, &then);

    assert_eq!(stage.status(&stage.recovery_codes[1]), 401, "a used code came back");
    assert_eq!(stage.status(&stage.recovery_codes[2]), 200);
    let bob = sign_in(&stage.world.client, "bob@acme.example", PASSWORD);
    assert_eq!(bob.str("/token_type"), "Bearer", "a removed authenticator came back");
    let ann = sign_in(&stage.world.client, "ann@acme.example", PASSWORD);
    let code = anns.fresh_code(stage.world.now_ms());
    let ann = complete(&stage.world.client, &ann.str("/mfa_token"), &code);
    assert_eq!(ann.status, 200, "who comes back comes back with what they had: {}", ann.text());
}

#[test]
fn otplib_reads_our_uri_and_its_codes_are_taken() {
    let Some(otplib) = Otplib::start() else { return };
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let body = json!({
        "tenant": {"slug": "acme", "name": "Søren & Co: \"100 %\""},
        "email": "ann+codes@acme.example",
        "password": PASSWORD,
    });
    let owner = world.client.post("/v1/auth/sign-up", body, 201).str("/access_token");
    let owner = world.client.with_token(&owner);
    let begun = owner.post("/v1/me/mfa/totp", json!({"password": PASSWORD}), 201);
    let uri = begun.str("/otpauth_uri");
    let read = otplib.read(&uri, world.now_ms() / 1_000);
    assert_eq!(read["issuer"], "Søren & Co \"100 %\"");
    assert!(
        read["label"].as_str().expect("a label").ends_with(":ann+codes@acme.example"),
        "{read:?}"
    );
    owner.post("/v1/me/mfa/totp/confirm", json!({"code": read["code"]}), 200);

    let held = Authenticator::of(&begun);
    for _ in 0..20 {
        clock.advance(Duration::from_millis(STEP_MS));
        let code = otplib.read(&uri, world.now_ms() / 1_000)["code"].clone();
        let code = code.as_str().expect("a code");
        assert_eq!(code, held.code_at(world.now_ms()));
        let token = sign_in(&world.client, "ann+codes@acme.example", PASSWORD).str("/mfa_token");
        assert_eq!(complete(&world.client, &token, code).status, 200);
    }
}
