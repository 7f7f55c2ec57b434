//! The page to sign in at, in a real browser: with a password, a code, a passkey, and by another account.

use actors::env::Clock as _;
use serde_json::json;

use super::{Idp, world};
use crate::kit::{Browser, PASSWORD, TestClock, World, WorldOptions, enrol, options, parameter};

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
    for elsewhere in ["//elsewhere.example/", "/./v1/auth/oidc/a/start", "/v1/%61uth/oidc/a/start"]
    {
        let page = sign_in_page(&world, "localhost");
        browser.open(&format!("{page}&return_to={}", elsewhere.replace('%', "%25")));
        browser.fill(&who());
        browser.press("Sign in");
        browser.read("owner@acme.example at");
    }
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
    browser.open(&format!("{page}&return_to=/problems"));
    browser.press("Go there");
    browser.fill(&json!({"login": "deny"}));
    browser.press("Go");
    let (url, _) = browser.read("You declined there");
    let kept = |name: &str| parameter(&url, name);
    let back = ["tenant", "provider", "return_to"].map(|name| kept(name).unwrap_or_default());
    assert_eq!(back, ["acme", "idp", "/problems"], "{url}");
    // One goes on from there without saying any of it again.
    browser.fill(&who());
    browser.press("Sign in");
    let (url, _) = browser.read("What to do");
    assert!(url.ends_with("/problems"), "{url}");
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

#[test]
fn who_comes_back_without_a_session_is_led_to_what_they_wanted_and_never_to_another_host() {
    let world = world();
    world.tenant("acme");
    let surfer = world.client.with_header("accept", "text/html");
    let led = |path: &str| {
        let reply = surfer.call("GET", path, None);
        assert_eq!(reply.status, 303, "{path}: {}", reply.text());
        reply.header("location").expect("somewhere").to_owned()
    };
    let start = "/v1/auth/oidc/absent/start";
    let to = led(&format!("{start}?tenant=acme&return_to=/docs%3Fa=b%26c"));
    let wanted = "tenant=acme&provider=absent&return_to=%2Fdocs%3Fa%3Db%26c";
    assert_eq!(to, format!("/account/sign-in?problem=not-found&{wanted}"));
    let page = surfer.get(&to, 200).text();
    assert!(page.contains("There is no such organisation, or it has no account of that name"));
    for elsewhere in ["//elsewhere.example/", "https://elsewhere.example/", "/v1/auth/sign-out"] {
        let to = led(&format!("{start}?tenant=acme&return_to={elsewhere}"));
        assert_eq!(to, "/account/sign-in?problem=invalid&tenant=acme&provider=absent");
    }
    let to = led("/v1/auth/oidc/acme.idp/callback?state=none");
    assert_eq!(to, "/account/sign-in?problem=bad-credentials&tenant=acme&provider=idp");
    let to = led("/v1/auth/oidc/absent/start?tenant=%22%3E%3Cb%3E%0D%0Ax:y");
    assert!(!to.contains(['<', '"', '\r', '\n']), "{to}");
    assert!(!surfer.get(&to, 200).text().contains("<b>"));
    // What an address says went wrong is a row of a table or nothing, never its own words.
    let page = surfer.get("/account/sign-in?problem=your-password-is-stolen&reason=call-us", 200);
    assert!(!page.text().contains("stolen") && !page.text().contains("call-us"));
    assert_eq!(world.client.call("GET", &format!("{start}?tenant=acme"), None).status, 404);
}
