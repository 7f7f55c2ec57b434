//! Sign-in by an OpenID provider: a real one, npm's oidc-provider, visited by a plain client and by a real browser.
//! What a provider of our own misuse says is in [`rogue`].

use std::path::Path;

use serde_json::{Value, json};

use crate::kit::{Client, Peer, Surfer, TestClock, World, WorldOptions, parameter};

mod page;
mod rogue;

const CLIENT: &str = "bulkhead";
/// With everything that is written otherwise in a header than in clear.
const SECRET: &str = "a secret: with/odd+chars%20&=";

/// The provider, for one node.
struct Idp {
    issuer: String,
    _peer: Peer,
}

impl Idp {
    fn start(world: &World, name: &str) -> Option<Self> {
        let mut peer = Peer::of_node("idp.mjs", "oidc-provider")?;
        let redirect_uri = format!("{}/v1/auth/oidc/acme.{name}/callback", world.client.base);
        let line =
            json!({"redirect_uri": redirect_uri, "client_id": CLIENT, "client_secret": SECRET});
        let issuer = peer.ask(&line)["issuer"].as_str().expect("an issuer").to_owned();
        Some(Self { issuer, _peer: peer })
    }

    fn trusted_by(&self, owner: &Client, name: &str, changes: &Value) -> String {
        let mut body = json!({
            "name": name, "kind": "oidc", "issuer": self.issuer, "client_id": CLIENT,
            "client_secret": SECRET, "default_role": "member",
        });
        for (member, value) in changes.as_object().expect("an object") {
            body[member] = value.clone();
        }
        owner.post("/v1/identity-providers", body, 201).str("/id")
    }
}

fn world() -> World {
    WorldOptions::default().set("identity.allow_loopback", true).start()
}

fn start_of(world: &World, slug: &str, provider: &str, more: &str) -> String {
    format!("{}/v1/auth/oidc/{provider}/start?tenant={slug}{more}", world.client.base)
}

/// Goes to the provider and says who one is; where one is sent back to, with what.
fn away(surfer: &mut Surfer, world: &World, start: &str, login: &str) -> String {
    let home = world.client.base.as_str();
    let callback = format!("{home}/v1/auth/oidc/acme.idp/callback");
    let (page, form) = surfer.follow(start, None, &callback);
    assert_eq!(form.status, 200, "{page}: {}", form.text());
    surfer.follow(&page, Some(&format!("login={login}")), &callback).0
}

fn me(surfer: &mut Surfer, world: &World) -> Value {
    let reply = surfer.go(&format!("{}/v1/me", world.client.base));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn entries(world: &World, owner: &Client) -> Vec<Value> {
    let _ = world;
    let page = owner.get("/v1/audit?action=sign_in&limit=100", 200).json();
    page["items"].as_array().expect("a list").clone()
}

#[test]
fn a_person_is_sent_there_comes_back_as_a_member_and_is_known_the_next_time() {
    let world = world();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let tenant = world.tenant("acme");
    idp.trusted_by(&tenant.owner, "idp", &json!({"domains": ["idp.example"]}));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut ann = Surfer::default();
        let start = start_of(&world, "acme", "idp", "&return_to=/docs%3Fa=b");
        let back = away(&mut ann, &world, &start, "ann");
        assert_eq!(parameter(&back, "iss").as_deref(), Some(idp.issuer.as_str()), "{back}");
        let arrived = ann.go(&back);
        assert_eq!(
            (arrived.status, arrived.header("location")),
            (303, Some("/docs?a=b")),
            "{}",
            arrived.text()
        );
        let known = me(&mut ann, &world);
        assert_eq!(
            (&known["email"], &known["role"]),
            (&json!("ann@idp.example"), &json!("member"))
        );
        assert_eq!(
            known["email_verified"], true,
            "the address came from where the provider says it"
        );
        ids.push(known["id"].clone());
        // What brought one in once brings nobody in again.
        let again = ann.go(&back);
        assert_eq!((again.status, again.problem().as_str()), (401, "bad-credentials"));
    }
    assert_eq!(ids[0], ids[1], "one person");
    let log = entries(&world, &tenant.owner);
    let by_idp: Vec<_> = log.iter().filter(|entry| entry["detail"]["factor"] == "oidc").collect();
    let count = |outcome: &str| by_idp.iter().filter(|entry| entry["outcome"] == outcome).count();
    assert_eq!((count("success"), count("failed")), (2, 2), "{by_idp:?}");
}

#[test]
fn what_comes_back_is_good_only_in_the_browser_that_was_sent() {
    let world = world();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let tenant = world.tenant("acme");
    idp.trusted_by(&tenant.owner, "idp", &json!({}));
    let start = start_of(&world, "acme", "idp", "");
    let mut eve = Surfer::default();
    let back = away(&mut eve, &world, &start, "eve");
    // Eve has somebody follow her link, to be signed in as her: without a cookie, and with one of theirs.
    let mut victim = Surfer::default();
    assert_eq!(victim.go(&back).status, 401);
    let _begun = victim.go(&start);
    assert_eq!(victim.go(&back).status, 401);
    let home = world.client.base.clone();
    assert!(!victim.cookies(&home).contains_key("__Host-bulkhead"));
    let state = parameter(&back, "state").expect("a state");
    let code = parameter(&back, "code").expect("a code");
    let at = |query: String| format!("{home}/v1/auth/oidc/acme.idp/callback?{query}");
    for bad in [
        format!("code={code}"),
        format!("code={code}&state="),
        format!("code={code}&state={}", &state[..state.len() - 2]),
        format!("code={code}&state={}", "A".repeat(state.len())),
        format!("code=&iss={}", idp.issuer),
    ] {
        assert_eq!(eve.go(&at(bad.clone())).problem(), "bad-credentials", "{bad}");
    }
    assert_eq!(eve.go(&at(format!("state={state}&state={state}"))).status, 422, "twice");
    assert_eq!(eve.go(&back).status, 303, "and Eve herself comes in");
}

#[test]
fn what_is_meant_for_one_tenant_has_nothing_to_do_at_the_place_of_another() {
    let world = world();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let (acme, evil) = (world.tenant("acme"), world.tenant("evil"));
    let made = idp.trusted_by(&acme.owner, "idp", &json!({}));
    let own = acme.owner.get(&format!("/v1/identity-providers/{made}"), 200);
    assert_eq!(own.str("/callback_path"), "/v1/auth/oidc/acme.idp/callback");
    idp.trusted_by(&evil.owner, "idp", &json!({}));
    let home = world.client.base.as_str();
    // Sent away by one tenant, and brought back with that to the place of the other.
    let sent = |slug: &str| {
        let mut surfer = Surfer::default();
        let reply = surfer.go(&start_of(&world, slug, "idp", ""));
        let state = parameter(reply.header("location").expect("a place"), "state");
        (surfer, state.expect("a state"))
    };
    for (from, to) in [("evil", "acme"), ("acme", "evil"), ("acme", "nobody"), ("acme", "")] {
        let (mut surfer, state) = sent(from);
        let place = format!("{home}/v1/auth/oidc/{to}.idp/callback");
        let reply = surfer.go(&format!("{place}?state={state}&code=c&iss={}", idp.issuer));
        assert_eq!((reply.status, reply.problem().as_str()), (401, "bad-credentials"), "{to}");
    }
    let (mut surfer, state) = sent("acme");
    let bare = format!("{home}/v1/auth/oidc/idp/callback?state={state}&code=c");
    assert_eq!(surfer.go(&bare).status, 401);
}

#[test]
fn it_takes_ten_minutes_at_most() {
    let clock = TestClock::new();
    let options = WorldOptions::default().set("identity.allow_loopback", true);
    let world = options.clock(clock.clone()).start();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let tenant = world.tenant("acme");
    idp.trusted_by(&tenant.owner, "idp", &json!({}));
    let mut ann = Surfer::default();
    let back = away(&mut ann, &world, &start_of(&world, "acme", "idp", ""), "ann");
    clock.advance(std::time::Duration::from_secs(601));
    assert_eq!(ann.go(&back).status, 401);
}

#[test]
fn who_declines_is_told_so_and_who_is_not_wanted_is_told_why() {
    let world = world();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let tenant = world.tenant("acme");
    let id = idp.trusted_by(&tenant.owner, "idp", &json!({}));
    let start = start_of(&world, "acme", "idp", "");
    let mut ann = Surfer::default();
    let back = away(&mut ann, &world, &start, "deny");
    let declined = ann.go(&back);
    assert_eq!((declined.status, declined.problem().as_str()), (403, "sign-in-declined"));
    assert_eq!(declined.str("/provider_error"), "access_denied");
    let mut other = Surfer::default();
    let back = away(&mut other, &world, &start, "unverified-bob");
    assert_eq!(other.go(&back).str("/reason"), "email-unverified");
    let place = format!("/v1/identity-providers/{id}");
    tenant.owner.patch(&place, json!({"domains": ["elsewhere.example"]}), 200);
    let mut cat = Surfer::default();
    let back = away(&mut cat, &world, &start, "cat");
    assert_eq!(cat.go(&back).str("/reason"), "domain");
    let mut dan = Surfer::default();
    let back = away(&mut dan, &world, &start, "dan");
    tenant.owner.patch(&place, json!({"enabled": false}), 200);
    assert_eq!(dan.go(&back).status, 401, "switched off meanwhile");
    assert_eq!(dan.go(&start).status, 404);
    let members = tenant.owner.get("/v1/members", 200).json();
    assert_eq!(members["items"].as_array().map(Vec::len), Some(1), "nobody came in");
}

#[test]
fn an_identity_is_linked_in_the_browser_of_whoever_asked_for_it() {
    let world = world();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let tenant = world.tenant("acme");
    idp.trusted_by(&tenant.owner, "idp", &json!({"default_role": null}));
    let home = world.client.base.clone();
    let session = world.browser("acme", "owner@acme.example");
    let body = json!({"password": crate::kit::PASSWORD, "return_to": "/docs"});
    let begun = session.post("/v1/me/identities/idp", body, 200);
    let start = format!("{home}{}", begun.str("/start_path"));
    let cookie = begun.header("set-cookie").expect("a cookie").split(';').next().expect("a pair");
    let (name, value) = cookie.split_once('=').expect("a pair");
    assert_eq!(Surfer::default().go(&start).status, 401, "in another browser");
    let mut owner = Surfer::default();
    owner.cookies(&home).insert(name.to_owned(), value.to_owned());
    let back = away(&mut owner, &world, &start, "the-boss");
    let arrived = owner.go(&back);
    assert_eq!(
        (arrived.status, arrived.header("location")),
        (303, Some("/docs")),
        "{}",
        arrived.text()
    );
    let linked = tenant.owner.get("/v1/me/identities", 200).json();
    assert_eq!(linked["items"][0]["subject"], "the-boss");
    // From now on it signs in, whatever its address is.
    let mut again = Surfer::default();
    let back = away(&mut again, &world, &start_of(&world, "acme", "idp", ""), "the-boss");
    assert_eq!(again.go(&back).status, 303);
    assert_eq!(me(&mut again, &world)["email"], "owner@acme.example");
}

#[test]
fn one_is_led_to_paths_of_this_host_only() {
    let world = world();
    let tenant = world.tenant("acme");
    let body =
        json!({"name": "idp", "kind": "oidc", "issuer": "https://idp.example", "client_id": "a"});
    tenant.owner.post("/v1/identity-providers", body, 201);
    for bad in [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "evil",
        "",
        "/%09/evil",
        "javascript:alert(1)",
        "/v1/auth/oidc/idp/start",
        "/./v1/auth/oidc/idp/start",
        "/a/../v1/auth/oidc/idp/start",
        "/v1/./auth/oidc/idp/start",
        "/v1//auth/oidc/idp/start",
        "/%252e/v1/auth/oidc/idp/start",
        "/a/%252E%252e/v1/auth/oidc/idp/start",
        "/v1/%2561uth/oidc/idp/start",
        "/%255cevil.example",
    ] {
        let place = format!("/v1/auth/oidc/idp/start?tenant=acme&return_to={bad}");
        let refused = world.client.get(&place, 422);
        assert_eq!(refused.str("/errors/0/pointer"), "query/return_to", "{bad}");
    }
    for absent in [
        "/v1/auth/oidc/idp/start",
        "/v1/auth/oidc/idp/start?tenant=nobody",
        "/v1/auth/oidc/other/start?tenant=acme",
        "/v1/auth/oidc/idp/start?tenant=platform",
    ] {
        world.client.get(absent, 404);
    }
}

#[test]
fn a_real_browser_signs_in_and_no_script_reads_its_cookie() {
    let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];
    let Some(chromium) = chromium.into_iter().find(|path| Path::new(path).exists()) else {
        println!("SKIPPED: there is no Chromium to sign in with: apt-get install chromium");
        return;
    };
    let world = world();
    let Some(idp) = Idp::start(&world, "idp") else { return };
    let Some(mut browser) = Peer::of_node("browse.mjs", "playwright-core") else { return };
    let tenant = world.tenant("acme");
    idp.trusted_by(&tenant.owner, "idp", &json!({}));
    let start = start_of(&world, "acme", "idp", "&return_to=/docs");
    let seen = browser.ask(&json!({"start": start, "login": "ann", "chromium": chromium}));
    assert!(!seen.contains_key("error"), "{seen:?}");
    assert_eq!(seen["url"], format!("{}/docs", world.client.base), "{seen:?}");
    assert_eq!(
        (&seen["me"]["status"], &seen["me"]["body"]["email"]),
        (&json!(200), &json!("ann@idp.example"))
    );
    assert_eq!(seen["script"], "", "no script reads a cookie");
    assert_eq!(seen["cookie"], json!({"httpOnly": true, "secure": true, "sameSite": "Lax"}));
}
