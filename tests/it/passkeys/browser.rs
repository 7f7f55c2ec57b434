//! The same in a real browser, with an authenticator that is not ours.

use serde_json::{Value, json};

use crate::kit::{Browser, Client, PASSWORD, Reply, Tenant, World, WorldOptions, options};

const PARTY: &str = "localhost";

/// Enrols the browser's authenticator for the owner, at the page the browser is on; what the browser gave.
fn enrol(browser: &Browser, world: &World, acme: &mut Tenant) -> Value {
    let begun = acme.owner.post("/v1/me/passkeys/options", json!({"password": PASSWORD}), 200);
    let created = browser.ceremony("create", &options(&begun)).expect("a passkey");
    let body = json!({"name": "Chromium", "credential": created});
    let enrolled = acme.owner.post("/v1/me/passkeys", body, 201);
    assert_eq!(enrolled.json()["recovery_codes"].as_array().map(Vec::len), Some(10));
    acme.owner = world.client.with_token(&enrolled.str("/access_token"));
    created
}

fn ask_any(client: &Client) -> Value {
    options(&client.post("/v1/auth/passkey/options", json!({"tenant": "acme"}), 200))
}

fn present(client: &Client, credential: &Value) -> Reply {
    let body = json!({"tenant": "acme", "credential": credential});
    client.call("POST", "/v1/auth/passkey", Some(&body))
}

#[test]
fn a_browser_enrols_a_passkey_and_signs_in_with_it_after_the_password_and_alone() {
    let Some(browser) = Browser::start() else { return };
    let world = World::start();
    let client = &world.client;
    let mut acme = world.tenant("acme");
    let page = format!("{}/docs", client.base.replace("127.0.0.1", PARTY));
    let origin = browser.open(&page);
    let created = enrol(&browser, &world, &mut acme);
    let listed = acme.owner.get("/v1/me/passkeys", 200).json();
    assert_eq!(listed["items"][0]["id"], created["id"]);
    assert_eq!(listed["items"][0]["verifies_user"], true);
    let credentials =
        json!({"tenant": "acme", "email": "owner@acme.example", "password": PASSWORD});
    let waiting = client.post("/v1/auth/sign-in", credentials, 200);
    assert_eq!(waiting.json()["methods"], json!(["passkey", "recovery_code"]));
    let token = waiting.str("/mfa_token");
    let asked = client.post("/v1/auth/mfa/passkey/options", json!({"mfa_token": token}), 200);
    let used = browser.ceremony("get", &options(&asked)).expect("a signature");
    let body = json!({"mfa_token": token, "passkey": used});
    let opened = client.post("/v1/auth/mfa", body.clone(), 200);
    client.with_token(&opened.str("/access_token")).get("/v1/me", 200);
    assert_eq!(client.post("/v1/auth/mfa", body, 401).problem(), "bad-credentials");

    let alone = browser.ceremony("get", &ask_any(client)).expect("a signature");
    let opened = present(client, &alone);
    assert_eq!(opened.status, 200, "{}", opened.text());
    assert_eq!(opened.str("/user/email"), "owner@acme.example");
    assert_eq!(present(client, &alone).problem(), "bad-credentials", "a replay");
    assert_eq!(browser.check(&created, &alone, &origin, PARTY), (true, true), "another verifier");

    // The browser itself uses it neither without the PIN nor on a page of another name.
    browser.verify_user(false);
    let without = browser.ceremony("get", &ask_any(client));
    assert_eq!(without, Err("NotAllowedError".to_owned()));
    browser.verify_user(true);
    browser.open(&format!("{}/docs", client.base));
    let elsewhere = browser.ceremony("get", &ask_any(client));
    assert_eq!(elsewhere, Err("SecurityError".to_owned()));
}

#[test]
fn an_authenticator_whose_counter_went_back_is_refused_and_shown() {
    let Some(browser) = Browser::start() else { return };
    let world = World::start();
    let mut acme = world.tenant("acme");
    browser.open(&format!("{}/docs", world.client.base.replace("127.0.0.1", PARTY)));
    enrol(&browser, &world, &mut acme);
    browser.count(100);
    let good = browser.ceremony("get", &ask_any(&world.client)).expect("a signature");
    assert_eq!(present(&world.client, &good).status, 200);
    browser.count(7);
    let copied = browser.ceremony("get", &ask_any(&world.client)).expect("a signature");
    assert_eq!(present(&world.client, &copied).problem(), "bad-credentials");
    let listed = acme.owner.get("/v1/me/passkeys", 200).json();
    assert_eq!(listed["items"][0]["possible_clone"], true);
    let noted = acme.owner.get("/v1/audit?action=passkey.possible_clone", 200).json();
    assert_eq!(noted["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(noted["items"][0]["outcome"], "failed");
}

#[test]
fn a_page_of_another_tenant_is_refused_although_the_browser_plays_along() {
    let Some(browser) = Browser::start() else { return };
    let world = WorldOptions::default()
        .set("http.public_url", "https://api.passkeys.test")
        .set("http.base_domain", "passkeys.test")
        .start();
    let mut acme = world.tenant("acme");
    browser.open_blank("https://acme.passkeys.test");
    enrol(&browser, &world, &mut acme);
    let own = browser.ceremony("get", &ask_any(&world.client)).expect("a signature");
    assert_eq!(present(&world.client, &own).status, 200);
    for elsewhere in ["https://bob.passkeys.test", "https://passkeys.test"] {
        browser.open_blank(elsewhere);
        let lured = browser.ceremony("get", &ask_any(&world.client)).expect("a signature");
        assert_eq!(present(&world.client, &lured).problem(), "bad-credentials", "{elsewhere}");
    }
}
