//! Walking the route table: for each route, resources of its own and a request that works on them.

use std::sync::atomic::{AtomicUsize, Ordering};

use actors::env::{Clock as _, SystemClock, rfc3339};
use bulkhead::http::routes::{ROUTES, Route, Verb};
use serde_json::{Value, json};

use super::authenticator::{Authenticator, begin_enrolment, enrol};
use super::client::{Client, Reply};
use super::eventually::eventually;
use super::issuer::Issuer;
use super::passkey::call_with_passkey;
use super::world::{PASSWORD, Tenant, World, api_key};

/// Resources of one tenant, fresh for one route, so that a call that deletes harms no other.
pub struct Fixture {
    form: String,
    submission: String,
    team: String,
    member: String,
    invite: String,
    session: String,
    key: String,
    integration: String,
    secret: String,
    event: String,
    restore: String,
    export: String,
    tenant: String,
    support: String,
    /// The short name of the tenant that these are of; none for those that nobody has.
    home: Option<String>,
    identity_provider: String,
    identity: String,
    serial: usize,
}

/// Numbers what has to have a name of its own.
static MADE: AtomicUsize = AtomicUsize::new(0);

const FORM_SAMPLE: &str = r#"{"title":"Walked","schema":{"type":"object"}}"#;

impl Fixture {
    /// Makes what the route's path names, and nothing more.
    pub fn of(
        world: &World,
        tenant: &Tenant,
        submitter: &Client,
        route: &Route,
        serial: usize,
    ) -> Self {
        let mut fixture = Self::absent(serial);
        fixture.home = Some(tenant.slug.clone());
        let path = route.path;
        let owner = &tenant.owner;
        if path.contains("/forms/{") {
            fixture.form = tenant.form_with(serde_json::from_str(FORM_SAMPLE).expect("JSON"));
        }
        if path.contains("/submissions/{") {
            // A draft for what submits or removes one; decisions need one that is handed in.
            let is_draft = ["submissions.submit", "submissions.delete"].contains(&route.id);
            let body = json!({"data": {"days": 1}, "draft": is_draft});
            let place = format!("/v1/forms/{}/submissions", fixture.form);
            let author = if is_draft { owner } else { submitter };
            fixture.submission = author.post(&place, body, 201).str("/id");
        }
        if path.contains("/teams/{") || path.contains("/Groups/{") {
            let body = json!({"name": format!("Team {serial}"), "members": []});
            fixture.team = owner.post("/v1/teams", body, 201).str("/id");
        }
        if path.contains("{invite}") {
            let body = json!({"email": format!("invited{serial}@walk.example"), "role": "viewer"});
            fixture.invite = owner.post("/v1/invites", body, 201).str("/id");
        }
        if route.id == "tenant.transfer" {
            // The session of the start may have ended on the way.
            let owner = world.sign_in(&tenant.slug, &format!("owner@{}.example", tenant.slug));
            let email = format!("heir{serial}@walk.example");
            let body = json!({"email": email, "role": "viewer", "password": PASSWORD});
            fixture.member = owner.post("/v1/members", body, 201).str("/id");
        }
        if path.contains("/members/{") || path.contains("/Users/{") {
            fixture.member = world.member_named(tenant, &format!("walked{serial}"), "viewer").1;
        }
        if path.contains("/sessions/{") {
            fixture.session = session_of_owner(world, tenant);
        }
        if path.contains("{key}") {
            fixture.key = api_key(owner, &["forms:read"]).1;
        }
        if path.contains("{export}") {
            let asked = owner.act("/v1/tenant/exports", 202);
            fixture.export = exported(owner, &asked.str("/id")).str("/id");
        }
        if ["{identity_provider}", "{identity}"].iter().any(|part| path.contains(part)) {
            fixture.make_identity(owner, route);
        }
        if path.contains("{restore}") {
            fixture.restore = restore_to(owner, &now()).str("/id");
        }
        if path.contains("{integration}") {
            fixture.make_integration(world, tenant, route);
        }
        if route.id.starts_with("platform.") {
            fixture.tenant = tenant.id.clone();
        }
        if path.contains("{support}") {
            let is_waiting = ["support.approve", "support.deny"].contains(&route.id);
            let asked = ask_support(&world.platform_admin(), tenant, &[], is_waiting);
            fixture.support = asked.str("/id");
        }
        fixture
    }

    /// A party that vouches; for an identity, one that vouched for the owner.
    fn make_identity(&mut self, owner: &Client, route: &Route) {
        let name = format!("walked-{}", MADE.fetch_add(1, Ordering::SeqCst));
        if route.id == "identities.link" {
            let body = json!({
                "name": name, "kind": "oidc", "issuer": "https://idp.example", "client_id": "walk",
            });
            owner.post("/v1/identity-providers", body, 201);
            self.identity = name;
            return;
        }
        let issuer = Issuer::new("https://issuer.example", "walk");
        let made = issuer.trusted_by(owner, &name, &json!({}));
        self.identity_provider = made.str("/id");
        if route.path.contains("{identity}") {
            let token = issuer.sign(&issuer.claims(&name, now_ms() / 1_000));
            let body = json!({"password": PASSWORD, "id_token": token});
            let place = format!("/v1/me/identities/{name}");
            self.identity = owner.post(&place, body, 200).str("/identity/id");
        }
    }

    fn make_integration(&mut self, world: &World, tenant: &Tenant, route: &Route) {
        let secret = "walking-secret-of-a-fair-length";
        let body = json!({"source": "github", "name": "Walked", "secrets": [secret]});
        let made = tenant.owner.post("/v1/integrations", body, 201);
        self.integration = made.str("/id");
        if route.path.contains("{secret}") {
            let place = format!("/v1/integrations/{}/secrets", self.integration);
            let secrets = tenant.owner.post(&place, json!({}), 201).json();
            self.secret = secrets["secrets"][0]["id"].as_str().expect("an id").to_owned();
        }
        if route.path.contains("{event}") {
            self.event = deliver(world, tenant, &self.integration, secret);
        }
    }

    /// Ids of the right form that nobody has.
    pub fn absent(serial: usize) -> Self {
        let id = |prefix: &str| format!("{prefix}_{}", "0123456789abcdef".repeat(2));
        Self {
            form: id("fm"),
            submission: id("sb"),
            team: id("tm"),
            member: id("us"),
            invite: id("iv"),
            session: id("se"),
            key: id("ak"),
            integration: id("in"),
            secret: id("sk"),
            event: id("ev"),
            restore: id("rs"),
            export: id("ex"),
            tenant: id("tn"),
            support: id("ss"),
            home: None,
            identity_provider: id("ip"),
            identity: id("il"),
            serial,
        }
    }

    /// The route's path with this fixture's ids.
    pub fn path(&self, route: &Route) -> String {
        let form = if route.path.starts_with("/v1/forms/") { &self.form } else { &self.team };
        let id = if route.id.starts_with("platform.") { &self.tenant } else { form };
        route
            .path
            .replace("{id}", id)
            .replace("{form}", &self.form)
            .replace("{submission}", &self.submission)
            .replace("{team}", &self.team)
            .replace("{member}", &self.member)
            .replace("{invite}", &self.invite)
            .replace("{session}", &self.session)
            .replace("{key}", &self.key)
            .replace("{integration}", &self.integration)
            .replace("{secret}", &self.secret)
            .replace("{event}", &self.event)
            .replace("{restore}", &self.restore)
            .replace("{export}", &self.export)
            .replace("{tenant}", &self.tenant)
            .replace("{support}", &self.support)
            .replace("{passkey}", "cGFzc2tleQ")
            .replace("{resource_type}", "User")
            .replace("{identity_provider}", &self.identity_provider)
            .replace("{provider}", "absent")
            .replace("{identity}", &self.identity)
            .replace("{page}", "reset")
            .replace("{seq}", "1")
    }

    /// The route's sample body, made unique where two alike would collide.
    pub fn body(&self, route: &Route) -> Option<Value> {
        let sample = route.body.as_ref()?.sample;
        let mut body: Value = serde_json::from_str(sample).expect("a sample in JSON");
        let serial = self.serial;
        match route.id {
            "tenant.transfer" => body["to"] = json!(self.member),
            "members.add" | "invites.create" => {
                body["email"] = json!(format!("sample{serial}@walk.example"))
            }
            // Back to what is: whoever may ask changes nothing by it.
            "restores.request" => body["at"] = json!(now()),
            "scim.user-create" | "scim.user-replace" => {
                body["userName"] = json!(format!("sample{serial}@walk.example"))
            }
            "scim.group-create" | "scim.group-replace" => {
                body["displayName"] = json!(format!("Sample {serial}"))
            }
            "scim.group-change" => {
                body["Operations"][0]["value"] = json!(format!("Sample {serial}"))
            }
            "teams.create" | "teams.update" => body["name"] = json!(format!("Sample {serial}")),
            "platform.ask-support" => body["tenant"] = json!(self.tenant),
            "identity-providers.create" => body["name"] = json!(format!("sample-{serial}")),
            "platform.create-tenant" => {
                body["slug"] = json!(format!("sample-{serial}"));
            }
            _ => {}
        }
        Some(body)
    }

    /// Calls the route as `client`.
    pub fn call(&self, route: &Route, client: &Client) -> Reply {
        if let Some(reply) = call_with_code(route, client) {
            return reply;
        }
        if let Some(reply) = call_with_passkey(route, client, self.home.as_deref()) {
            return reply;
        }
        let walker = client.with_header("x-request-id", "walk");
        let reply = walker.call(route.verb.name(), &self.path(route), self.body(route).as_ref());
        if route.id == "restores.request" && reply.status == 202 {
            restored(client, &reply.str("/id"));
        }
        if route.id == "exports.request" && reply.status == 202 {
            exported(client, &reply.str("/id"));
        }
        reply
    }
}

fn now_ms() -> u64 {
    SystemClock::new().now_ms()
}

fn now() -> String {
    rfc3339(now_ms())
}

/// Calls a route that takes a code, as somebody who has no authenticator before or after; nothing for
/// other routes and for who cannot enrol one.
fn call_with_code(route: &Route, client: &Client) -> Option<Reply> {
    if !["mfa.confirm-totp", "mfa.remove-totp", "mfa.renew-recovery-codes"].contains(&route.id) {
        return None;
    }
    let mfa = client.call("GET", "/v1/me/mfa", None);
    if mfa.status != 200 || mfa.json()["methods"] != json!([]) {
        return None;
    }
    let proven =
        |held: &Authenticator| json!({"password": PASSWORD, "code": held.fresh_code(now_ms())});
    let (person, held, reply);
    if route.id == "mfa.confirm-totp" {
        held = begin_enrolment(client);
        let body = json!({"code": held.fresh_code(now_ms())});
        reply = client.call("POST", route.path, Some(&body));
        person = client.with_token(&reply.str("/access_token"));
    } else {
        (person, held) = enrol(client, now_ms());
        reply = person.call(route.verb.name(), route.path, Some(&proven(&held)));
        if route.id == "mfa.remove-totp" {
            return Some(reply);
        }
    }
    held.keep(&reply.json());
    let removed = person.call("DELETE", "/v1/me/mfa/totp", Some(&proven(&held)));
    assert!([204, 409].contains(&removed.status), "{}", removed.text());
    Some(reply)
}

/// Waits until an export is over, one way or the other; answers what it says then.
pub fn exported(reader: &Client, id: &str) -> Reply {
    eventually("an export that ends", || {
        let reply = reader.get(&format!("/v1/tenant/exports/{id}"), 200);
        (reply.str("/status") != "running").then_some(reply)
    })
}

/// Takes the client's tenant back to a time, and waits until it is there. The answer to asking.
pub fn restore_to(owner: &Client, at: &str) -> Reply {
    let asked = owner.post("/v1/tenant/restores", json!({"at": at}), 202);
    restored(owner, &asked.str("/id"));
    asked
}

/// Waits until a restore is over, one way or the other; answers what it says then.
pub fn restored(reader: &Client, id: &str) -> Reply {
    eventually("a restore that ends", || {
        let reply = reader.call("GET", &format!("/v1/tenant/restores/{id}"), None);
        (reply.status == 200 && reply.str("/status") != "running").then_some(reply)
    })
}

/// Another session of the owner's.
fn session_of_owner(world: &World, tenant: &Tenant) -> String {
    let other = world.sign_in(&tenant.slug, &format!("owner@{}.example", tenant.slug));
    let sessions = other.get("/v1/me/sessions", 200).json();
    let list = sessions["items"].as_array().expect("a list").clone();
    let current = list.iter().find(|session| session["current"] == json!(true));
    current.expect("a current session")["id"].as_str().expect("an id").to_owned()
}

/// Asks to look into a tenant.
pub fn ask_support(platform: &Client, tenant: &Tenant, scopes: &[&str], approval: bool) -> Reply {
    let body = json!({
        "tenant": tenant.slug, "reason": "a walk", "ticket": "CASE-1", "minutes": 60,
        "scopes": scopes, "approval": approval,
    });
    platform.post("/v1/platform/support-sessions", body, 201)
}

/// Somebody of the platform in an open support session with those scopes beside the usual ones.
pub fn support_session(platform: &Client, tenant: &Tenant, scopes: &[&str]) -> Client {
    let asked = ask_support(platform, tenant, scopes, true);
    let id = asked.str("/id");
    tenant.owner.act(&format!("/v1/support-sessions/{id}/approve"), 200);
    let taken = platform.act(&format!("/v1/platform/support-sessions/{id}/token"), 200);
    platform.with_token(&taken.str("/access_token"))
}

fn deliver(world: &World, tenant: &Tenant, integration: &str, secret: &str) -> String {
    let body = br#"{"zen":"walk"}"#;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hex::encode(aws_lc_rs::hmac::sign(&key, body));
    let sender = world
        .client
        .with_header("x-hub-signature-256", &format!("sha256={signature}"))
        .with_header("x-github-event", "ping")
        .with_header("x-github-delivery", &format!("walk-{integration}"));
    let place = format!("/v1/hooks/{}/{integration}", tenant.slug);
    let reply = sender.send("POST", &place, Some("application/json"), body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let events = tenant.owner.get(&format!("/v1/integrations/{integration}/events"), 200).json();
    events["items"][0]["id"].as_str().expect("an event").to_owned()
}

/// Whether calling it ends the caller's own credential, so that a fresh one is needed each time.
pub fn ends_the_caller(route: &Route) -> bool {
    ["auth.sign-out", "me.change-password", "tenant.transfer"].contains(&route.id)
        || ["mfa.confirm-totp", "mfa.remove-totp", "mfa.renew-recovery-codes"].contains(&route.id)
        || ["passkeys.add", "passkeys.remove", "mfa.passkey-options"].contains(&route.id)
        || (route.verb == Verb::Delete && route.path == "/v1/me/sessions")
}

/// Every route with its place in the table; those that end sessions come last, where they harm no other.
pub fn in_walking_order() -> Vec<(usize, &'static Route)> {
    let mut routes: Vec<_> = ROUTES.iter().enumerate().collect();
    // Last of all what takes the owner's role, and what changes the password that everyone of the tests has.
    let last = |route: &Route| match route.id {
        "tenant.transfer" => 1,
        "me.change-password" => 2,
        _ => 0,
    };
    routes.sort_by_key(|(_, route)| (ends_the_caller(route), last(route)));
    routes
}
