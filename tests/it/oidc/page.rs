//! The page to sign in at, in a real browser: with a password, a code, a passkey, and by another account.

use actors::env::Clock as _;
use serde_json::json;

use super::{Idp, world};
use crate::kit::{Browser, PASSWORD, TestClock, World, WorldOptions, enrol, options};

fn sign_in_page(world: &World, host: &str) -> String {
    let base = world.client.base.replace("127.0.0.1", host);
    format!("{base}/account/sign-in?tenant=acme")
}

fn who() -> serde_json::Value {
    json!({"email": "owner@acme.example", "password": PASSWORD})
}

#[test]
fn a_password_signs_in_a_wrong_one_does_not_and_signing_out_ends_it() {
    let Some(browser) = Browser::start() else { return };
    let world = World::start();
    world.tenant("acme");
    browser.open(&sign_in_page(&world, "localhost"));
    browser.fill(&json!({"email": "owner@acme.example", "password": "not the password"}));
    browser.press("Sign in");
    browser.read("That is not right.");
    browser.fill(&who());
    browser.press("Sign in");
    let (_, cookies) = browser.read("owner@acme.example at");
    assert_eq!(cookies, "", "no script sees the session");
    browser.press("Sign out");
    browser.read("You are signed out.");
    // Where one wanted to go is where one is led, if it is here.
    browser.open(&format!("{}&return_to=/v1/me", sign_in_page(&world, "localhost")));
    browser.fill(&who());
    browser.press("Sign in");
    let (url, _) = browser.read("\"email\":\"owner@acme.example\"");
    assert!(url.ends_with("/v1/me"), "{url}");
    browser.open(&format!("{}&return_to=//elsewhere.example/", sign_in_page(&world, "localhost")));
    browser.fill(&who());
    browser.press("Sign in");
    browser.read("owner@acme.example at");
}

#[test]
fn a_second_factor_is_asked_for_and_a_passkey_needs_no_password() {
    let Some(browser) = Browser::start() else { return };
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let (owner, held) = enrol(&acme.owner, clock.now_ms());
    let page = sign_in_page(&world, "localhost");
    browser.open(&page);
    clock.advance(std::time::Duration::from_secs(60));
    browser.fill(&who());
    browser.press("Sign in");
    browser.read("Code of your authenticator");
    browser.fill(&json!({"code": held.fresh_code(clock.now_ms())}));
    browser.press("Go on");
    browser.read("owner@acme.example at");
    browser.press("Sign out");
    browser.read("You are signed out.");

    clock.advance(std::time::Duration::from_secs(60));
    let proof = json!({"password": PASSWORD, "code": held.fresh_code(clock.now_ms())});
    let begun = owner.post("/v1/me/passkeys/options", proof, 200);
    let created = browser.ceremony("create", &options(&begun)).expect("a passkey");
    owner.post("/v1/me/passkeys", json!({"name": "Chromium", "credential": created}), 201);
    browser.open(&page);
    browser.press("Sign in with a passkey");
    browser.read("owner@acme.example at");
    browser.press("Sign out");
    browser.read("You are signed out.");
    browser.fill(&who());
    browser.press("Sign in");
    browser.read("Code of your authenticator");
    browser.press("Use a passkey");
    browser.read("owner@acme.example at");
}

#[test]
fn another_account_signs_in_and_what_goes_wrong_there_is_told_on_the_page() {
    let Some(browser) = Browser::start() else { return };
    let world = world();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let tenant = world.tenant("acme");
    idp.trusted_by(&tenant.owner, "idp", &json!({}));
    let page = format!("{}&provider=idp", sign_in_page(&world, "127.0.0.1"));
    let go = |login: &str| {
        browser.open(&page);
        browser.press("Go there");
        browser.fill(&json!({"login": login}));
        browser.press("Go");
    };
    go("deny");
    browser.read("did not sign you in");
    go("ann");
    let (url, cookies) = browser.read("ann@idp.example at");
    assert!(url.ends_with("/account/sign-in?signed_in=1"), "{url}");
    assert_eq!(cookies, "");
}

#[test]
fn who_needs_a_second_factor_and_has_none_enrols_one_on_the_way() {
    let Some(browser) = Browser::start() else { return };
    let world = World::start();
    let acme = world.tenant("acme");
    acme.owner.patch("/v1/tenant", json!({"mfa_required": true}), 200);
    let page = sign_in_page(&world, "localhost");
    browser.open(&page);
    browser.fill(&who());
    browser.press("Sign in");
    browser.read("Everybody here needs a second factor.");
    browser.press("Use an authenticator app");
    browser.read("Scan this with your authenticator app");
    browser.fill(&json!({"new-code": "000000"}));
    browser.press("Confirm");
    browser.read("/code ");
    browser.open(&page);
    browser.fill(&who());
    browser.press("Sign in");
    browser.read("Everybody here needs a second factor.");
    browser.press("Use a passkey");
    browser.read("Keep these recovery codes");
    browser.press("I have kept them");
    browser.read("owner@acme.example at");
}

#[test]
fn whom_another_party_vouches_for_enrols_without_a_password() {
    let Some(browser) = Browser::start() else { return };
    let world = world();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let tenant = world.tenant("acme");
    idp.trusted_by(&tenant.owner, "idp", &json!({}));
    let owner = world.enrol("acme", "owner@acme.example", &tenant.owner);
    owner.patch("/v1/tenant", json!({"mfa_required": true}), 200);
    browser.open(&format!("{}&provider=idp", sign_in_page(&world, "127.0.0.1")));
    browser.press("Go there");
    browser.fill(&json!({"login": "ann"}));
    browser.press("Go");
    browser.read("Everybody here needs a second factor.");
    browser.press("Use a passkey");
    browser.read("Passkeys need a name in the address");
    browser.press("Use an authenticator app");
    browser.read("Scan this with your authenticator app");
}
