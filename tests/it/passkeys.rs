//! Passkeys over HTTP: enrolled, as a second factor, alone; whatever is wrong with one is answered alike.

use serde_json::{Value, json};

use crate::kit::{
    Client, Device, LOCAL, PASSWORD, Reply, Tenant, World, WorldOptions, enrol_passkey, options,
    restore_to, sign_in_alone,
};

mod browser;

struct Stage {
    world: World,
    acme: Tenant,
    device: Device,
    recovery_codes: Vec<Value>,
}

impl Stage {
    fn new() -> Self {
        let world = World::start();
        let mut acme = world.tenant("acme");
        let mut device = Device::new(1);
        let enrolled = enrol_passkey(&acme.owner, &mut device);
        assert_eq!(enrolled.status, 201, "{}", enrolled.text());
        acme.owner = world.client.with_token(&enrolled.str("/access_token"));
        let recovery_codes = enrolled.json()["recovery_codes"].as_array().expect("codes").clone();
        Self { world, acme, device, recovery_codes }
    }

    /// A sign-in with the right password that waits.
    fn waiting(&self) -> String {
        let body = json!({"tenant": "acme", "email": "owner@acme.example", "password": PASSWORD});
        self.world.client.post("/v1/auth/sign-in", body, 200).str("/mfa_token")
    }

    fn ask(&self, mfa_token: &str) -> Value {
        let body = json!({"mfa_token": mfa_token});
        options(&self.world.client.post("/v1/auth/mfa/passkey/options", body, 200))
    }

    fn complete(&self, mfa_token: &str, passkey: &Value) -> Reply {
        let body = json!({"mfa_token": mfa_token, "passkey": passkey});
        self.world.client.call("POST", "/v1/auth/mfa", Some(&body))
    }

    fn alone(&mut self) -> Reply {
        sign_in_alone(&self.world.client, "acme", &mut self.device, LOCAL)
    }
}

fn amr(client: &Client, opened: &Reply) -> Value {
    let person = client.with_token(&opened.str("/access_token"));
    let sessions = person.get("/v1/me/sessions", 200).json();
    let list = sessions["items"].as_array().expect("a list").clone();
    let current = list.iter().find(|session| session["current"] == json!(true));
    current.expect("a current session")["amr"].clone()
}

#[test]
fn a_passkey_is_enrolled_listed_asked_for_and_removed() {
    let mut stage = Stage::new();
    let owner = &stage.acme.owner;
    let list = owner.get("/v1/me/passkeys", 200).json();
    assert_eq!(list["items"][0]["id"], stage.device.id());
    assert_eq!(list["items"][0]["verifies_user"], true);
    let mfa = owner.get("/v1/me/mfa", 200).json();
    assert_eq!((&mfa["methods"], &mfa["recovery_codes_left"]), (&json!(["passkey"]), &json!(10)));

    let token = stage.waiting();
    let asked = stage.ask(&token);
    let answer = stage.device.get(&asked, LOCAL);
    let opened = stage.complete(&token, &answer);
    assert_eq!(opened.status, 200, "{}", opened.text());
    assert_eq!(amr(&stage.world.client, &opened), json!(["pwd", "pop"]));
    let opened = stage.alone();
    assert_eq!(opened.status, 200, "{}", opened.text());
    assert_eq!(opened.str("/user/email"), "owner@acme.example");
    assert_eq!(amr(&stage.world.client, &opened), json!(["pop", "mfa"]));

    // The passkey itself is proof enough to be removed, once.
    let owner = &stage.acme.owner;
    let asked = options(&owner.act("/v1/me/mfa/passkey/options", 200));
    let mut body = json!({"password": PASSWORD, "passkey": stage.device.get(&asked, LOCAL)});
    let place = format!("/v1/me/passkeys/{}", stage.device.id());
    let both = json!({"password": PASSWORD, "passkey": body["passkey"], "code": "000000"});
    let refused = owner.call("DELETE", &place, Some(&both));
    assert_eq!((refused.status, refused.str("/errors/0/pointer").as_str()), (422, "/passkey"));
    let neither = owner.call("DELETE", &place, Some(&json!({"password": PASSWORD})));
    assert_eq!((neither.status, neither.str("/errors/0/pointer").as_str()), (422, "/code"));
    assert_eq!(owner.call("DELETE", "/v1/me/passkeys/AAAA", Some(&body)).status, 404);
    assert_eq!(owner.call("DELETE", &place, Some(&body)).status, 204);
    body["passkey"] = stage.device.get(&asked, LOCAL);
    assert_eq!(owner.call("DELETE", &place, Some(&body)).status, 404);
    assert_eq!(owner.get("/v1/me/mfa", 200).json()["methods"], json!([]));
    assert_eq!(stage.alone().status, 401);
}

#[test]
fn whatever_is_wrong_with_a_passkey_the_answer_is_the_same() {
    let mut stage = Stage::new();
    let bob = stage.world.tenant("bob");
    let mut bobs = Device::new(2);
    assert_eq!(enrol_passkey(&bob.owner, &mut bobs).status, 201);
    let client = stage.world.client.clone();
    let body = json!({"tenant": "nowhere"});
    let asked = |slug: &str| {
        options(&client.post("/v1/auth/passkey/options", json!({"tenant": slug}), 200))
    };
    let nowhere = options(&client.post("/v1/auth/passkey/options", body, 200));
    let known = asked("acme");
    let names =
        |options: &Value| options.as_object().expect("options").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&nowhere), names(&known), "it shows which tenants there are");
    let length = |options: &Value| options["challenge"].as_str().expect("a text").len();
    assert_eq!((length(&nowhere), &nowhere["rpId"]), (length(&known), &known["rpId"]));

    let present = |slug: &str, credential: &Value| {
        let body = json!({"tenant": slug, "credential": credential});
        client.call("POST", "/v1/auth/passkey", Some(&body))
    };
    let wrong = client.call(
        "POST",
        "/v1/auth/sign-in",
        Some(
            &json!({"tenant": "acme", "email": "owner@acme.example", "password": "not it at all"}),
        ),
    );
    assert_eq!((wrong.status, wrong.problem().as_str()), (401, "bad-credentials"));
    let device = &mut stage.device;
    let used = device.get(&known, LOCAL);
    assert_eq!(present("acme", &used).status, 200);
    let mut tampered = device.get(&asked("acme"), LOCAL);
    tampered["response"]["signature"] = used["response"]["signature"].clone();
    let mut unverified = Device::new(1);
    std::mem::swap(&mut unverified, device);
    unverified.verifies = false;
    let no_pin = unverified.get(&asked("acme"), LOCAL);
    unverified.verifies = true;
    unverified.rp_id = Some("example.com".to_owned());
    let other_party = unverified.get(&asked("acme"), LOCAL);
    unverified.rp_id = None;
    let second = stage.device.get(&asked("acme"), LOCAL);
    std::mem::swap(&mut unverified, &mut stage.device);
    for (what, slug, credential) in [
        ("a replay", "acme", used),
        ("another signature", "acme", tampered),
        ("no verification", "acme", no_pin),
        ("another relying party", "acme", other_party),
        ("a passkey that nobody enrolled", "acme", second),
        ("another origin", "acme", stage.device.get(&asked("acme"), "https://evil.example")),
        ("another tenant's passkey", "acme", bobs.get(&asked("acme"), LOCAL)),
        ("another tenant's challenge", "acme", stage.device.get(&asked("bob"), LOCAL)),
        ("a tenant that is not there", "nowhere", stage.device.get(&asked("nowhere"), LOCAL)),
    ] {
        assert_eq!(present(slug, &credential).essence(), wrong.essence(), "{what}");
    }
    let token = stage.waiting();
    let asked = stage.ask(&token);
    let foreign = stage.complete(&token, &bobs.get(&asked, LOCAL));
    assert_eq!(foreign.essence(), wrong.essence(), "another person's, as a second factor");
    for token in ["", "bkm_AAAA", &stage.acme.refresh_token] {
        let body = json!({"mfa_token": token});
        let refused = client.call("POST", "/v1/auth/mfa/passkey/options", Some(&body));
        assert_eq!(refused.essence(), wrong.essence(), "{token}");
    }
    assert_eq!(stage.alone().status, 200, "none of it harmed the passkey");
}

#[test]
fn where_everybody_needs_a_second_factor_a_passkey_is_one() {
    let world = World::start();
    let acme = world.tenant("acme");
    acme.owner.patch("/v1/tenant", json!({"mfa_required": true}), 200);
    assert_eq!(acme.owner.get("/v1/forms", 403).problem(), "mfa-enrolment-required");
    let mut device = Device::new(1);
    let enrolled = enrol_passkey(&acme.owner, &mut device);
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    let owner = world.client.with_token(&enrolled.str("/access_token"));
    owner.get("/v1/forms", 200);
    let alone = sign_in_alone(&world.client, "acme", &mut device, LOCAL);
    world.client.with_token(&alone.str("/access_token")).get("/v1/forms", 200);
    let body = json!({"password": PASSWORD, "code": enrolled.str("/recovery_codes/0")});
    let place = format!("/v1/me/passkeys/{}", device.id());
    let kept = owner.call("DELETE", &place, Some(&body));
    assert_eq!((kept.status, kept.problem().as_str()), (409, "mfa-required"));

    let root = world.new_platform_admin("root@platform.example");
    assert_eq!(root.get("/v1/platform/tenants", 403).problem(), "mfa-enrolment-required");
    let mut device = Device::new(2);
    let enrolled = enrol_passkey(&root, &mut device);
    assert_eq!(enrolled.status, 201, "{}", enrolled.text());
    let alone = sign_in_alone(&world.client, "platform", &mut device, LOCAL);
    world.client.with_token(&alone.str("/access_token")).get("/v1/platform/tenants", 200);
}

#[test]
fn each_tenant_has_its_own_origin_under_the_base_domain() {
    let world = WorldOptions::default()
        .set("http.public_url", "https://api.example.com")
        .set("http.base_domain", "example.com")
        .start();
    let acme = world.tenant("acme");
    let begun = acme.owner.post("/v1/me/passkeys/options", json!({"password": PASSWORD}), 200);
    assert_eq!(options(&begun)["rp"]["id"], "example.com");
    let mut device = Device::new(1);
    let made = device.create(&options(&begun), "https://bob.example.com");
    let body = json!({"name": "Laptop", "credential": made});
    let refused = acme.owner.post("/v1/me/passkeys", body, 422);
    assert_eq!(refused.str("/errors/0/pointer"), "/credential");
    let begun = acme.owner.post("/v1/me/passkeys/options", json!({"password": PASSWORD}), 200);
    let made = device.create(&options(&begun), "https://acme.example.com");
    acme.owner.post("/v1/me/passkeys", json!({"name": "Laptop", "credential": made}), 201);
    for (origin, status) in [
        ("https://acme.example.com", 200),
        ("https://api.example.com", 200),
        ("https://bob.example.com", 401),
        ("http://localhost:8080", 401),
    ] {
        let reply = sign_in_alone(&world.client, "acme", &mut device, origin);
        assert_eq!(reply.status, status, "{origin}");
    }
}

#[test]
fn a_restart_and_a_restore_bring_back_no_answered_challenge_and_no_removed_passkey() {
    let mut stage = Stage::new();
    let then = actors::env::rfc3339(stage.world.now_ms());
    let asked = stage.world.client.post("/v1/auth/passkey/options", json!({"tenant": "acme"}), 200);
    let answer = stage.device.get(&options(&asked), LOCAL);
    let body = json!({"tenant": "acme", "credential": answer});
    stage.world.client.post("/v1/auth/passkey", body.clone(), 200);
    restore_to(&stage.acme.owner, &then);
    assert_eq!(stage.world.client.post("/v1/auth/passkey", body, 401).problem(), "bad-credentials");
    // The counter of before would take this one for a good use of an old challenge.
    let again = stage.device.get(&options(&asked), LOCAL);
    let body = json!({"tenant": "acme", "credential": again});
    assert_eq!(stage.world.client.post("/v1/auth/passkey", body, 401).problem(), "bad-credentials");
    assert_eq!(stage.alone().status, 200);

    let then = actors::env::rfc3339(stage.world.now_ms());
    let body = json!({"password": PASSWORD, "code": stage.recovery_codes[0]});
    let place = format!("/v1/me/passkeys/{}", stage.device.id());
    assert_eq!(stage.acme.owner.call("DELETE", &place, Some(&body)).status, 204);
    restore_to(&stage.acme.owner, &then);
    assert_eq!(stage.alone().status, 401, "a removed passkey came back");
}
