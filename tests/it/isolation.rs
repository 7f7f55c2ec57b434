//! No tenant reaches another, walked from the route table.

use bulkhead::http::routes::{Access, ROUTES, Route};

use actors::permit::Scopes;

use crate::kit::{
    Client, Fixture, Tenant, World, api_key, ends_the_caller, eventually, in_walking_order,
};

const CANARY: &str = "canary-of-ada";

/// A tenant's last record, once no mail of anybody waits: that one was sent is a record as well.
pub fn lsn(world: &World, tenant: &Tenant) -> u64 {
    eventually("all mails are sent", || {
        let figures = world.ops.get("/metrics", 200).text();
        figures.lines().any(|line| line == "bulkhead_mail_tenants_waiting 0").then_some(())
    });
    let health = world
        .ops
        .with_header("accept", "application/json")
        .get(&format!("/actors/{}", tenant.id), 200);
    health.json()["lsn"].as_u64().expect("a number")
}

fn is_platform(route: &Route) -> bool {
    matches!(route.access, Access::Tenant(row) if row.name.starts_with("platform-"))
}

struct Stage {
    world: World,
    ada: Tenant,
    bob: Tenant,
    submitter: Client,
    platform: Client,
    /// Bob in a browser.
    browser: Client,
    /// A key of Bob's with everything that a key can have.
    key: Client,
}

impl Stage {
    fn new() -> Self {
        let world = World::start();
        let ada = world.tenant("ada");
        let bob = world.tenant("bob");
        let submitter = world.member(&ada, "member");
        let platform = world.platform_admin();
        let key = api_key(&bob.owner, &Scopes::all().names().collect::<Vec<_>>()).0;
        let browser = world.browser("bob", "owner@bob.example");
        // Something of Ada's that must never show anywhere else.
        ada.form(CANARY);
        Self { world, ada, bob, submitter, platform, browser, key }
    }

    fn owner_of(&self, tenant: &Tenant, route: &Route) -> Client {
        if ends_the_caller(route) {
            self.world.sign_in(&tenant.slug, &format!("owner@{}.example", tenant.slug))
        } else {
            tenant.owner.clone()
        }
    }

    fn browser_of(&self, tenant: &Tenant, route: &Route) -> Client {
        if ends_the_caller(route) {
            self.world.browser(&tenant.slug, &format!("owner@{}.example", tenant.slug))
        } else {
            self.browser.clone()
        }
    }

    fn walk(&self, route: &Route, serial: usize) {
        let Self { world, ada, bob, submitter, .. } = self;
        let fixture = Fixture::of(world, ada, submitter, route, serial);
        let before = lsn(world, ada);

        let anonymous = fixture.call(route, &world.client);
        assert_eq!(anonymous.status, 401, "{route}: no credential: {}", anonymous.text());
        let stranger = fixture.call(route, &self.owner_of(bob, route));
        assert!(!stranger.text().contains(CANARY), "{route}: another tenant's words");
        if route.params().next().is_some_and(|name| name != "seq") {
            assert_eq!(
                stranger.status,
                404,
                "{route}: foreign must look absent: {}",
                stranger.text()
            );
            let absent = Fixture::absent(serial).call(route, &self.owner_of(bob, route));
            assert_eq!(stranger.essence(), absent.essence(), "{route}: foreign and absent differ");
            if matches!(route.access, Access::Tenant(row) if row.is_scope()) {
                let service = fixture.call(route, &self.key);
                assert_eq!(service.essence(), absent.essence(), "{route}: a foreign key differs");
            }
            let browser = fixture.call(route, &self.browser_of(bob, route));
            assert_eq!(browser.essence(), absent.essence(), "{route}: a foreign cookie differs");
        }
        assert_eq!(lsn(world, ada), before, "{route}: a stranger's call changed something");

        // Without this, a route that refuses everyone would pass.
        let owner = fixture.call(route, &self.owner_of(ada, route));
        assert!(
            (200..300).contains(&owner.status),
            "{route}: the owner was refused: {}",
            owner.text()
        );
        if route.id == "me.change-password" {
            // Back to the password that everyone of the tests has.
            let token = owner.str("/access_token");
            let back = serde_json::json!({"current_password": "another correct horse", "new_password": crate::kit::PASSWORD});
            world.client.with_token(&token).patch("/v1/me/password", back, 200);
        }
    }

    fn walk_platform(&self, route: &Route, serial: usize) {
        let Self { world, ada, submitter, .. } = self;
        let fixture = Fixture::of(world, ada, submitter, route, serial);
        assert_eq!(fixture.call(route, &world.client).status, 401, "{route}: no credential");
        let owner = fixture.call(route, &ada.owner);
        assert_eq!(owner.status, 403, "{route}: an owner is no platform administrator");
        let admin = fixture.call(route, &self.platform);
        assert!((200..300).contains(&admin.status), "{route}: refused: {}", admin.text());
        assert!(!admin.text().contains(CANARY), "{route}: a tenant's content on the platform");
        if route.path.ends_with("/suspend") {
            let resume = route
                .path
                .replace("/suspend", "/resume")
                .replace("{id}", &ada.id)
                .replace("{tenant}", &ada.id);
            self.platform.act(&resume, admin.status);
        }
    }
}

#[test]
fn no_route_lets_one_tenant_reach_another() {
    let stage = Stage::new();
    let mut cases = 0;
    for (serial, route) in
        in_walking_order().into_iter().filter(|(_, route)| route.is_tenant_scoped())
    {
        if is_platform(route) {
            stage.walk_platform(route, serial);
        } else {
            stage.walk(route, serial);
        }
        cases += 1;
    }
    // What is not tenant-scoped is public or proven by signature, and listed in the document all the same.
    let others = ROUTES.iter().filter(|route| !route.is_tenant_scoped()).count();
    let document = stage.world.client.get("/openapi.json", 200).json();
    let paths = document["paths"].as_object().expect("paths");
    let verbs = ["get", "post", "put", "patch", "delete"];
    let operations: usize = paths
        .values()
        .map(|path| verbs.iter().filter(|verb| path.get(**verb).is_some()).count())
        .sum();
    assert_eq!(operations, cases + others, "routes in the document and cases run differ");
    println!(
        "isolation: {cases} tenant-scoped routes walked, {others} others, {operations} documented"
    );
}

#[test]
fn a_platform_token_opens_no_tenant() {
    let stage = Stage::new();
    let open = ["me:read", "sessions:write"];
    for (serial, route) in ROUTES.iter().enumerate() {
        let Access::Tenant(row) = route.access else { continue };
        if is_platform(route) || open.contains(&row.name) {
            continue;
        }
        let reply = Fixture::absent(serial).call(route, &stage.platform);
        assert_eq!(reply.status, 403, "{route}: {}", reply.text());
    }
}

#[test]
fn a_tenant_in_body_query_or_header_is_never_believed() {
    let stage = Stage::new();
    let Stage { ada, bob, .. } = &stage;
    let body =
        serde_json::json!({"title": "T", "schema": {}, "tenant": ada.id, "tenant_id": ada.id});
    let refused = bob.owner.post("/v1/forms", body, 422);
    assert_eq!(refused.problem(), "invalid");
    let listed = bob
        .owner
        .with_header("x-tenant-id", &ada.id)
        .with_header("x-tenant", "ada")
        .get("/v1/forms", 200);
    assert_eq!(listed.json()["items"].as_array().map(Vec::len), Some(0));
    let query = bob.owner.get(&format!("/v1/forms?tenant={}", ada.id), 422);
    assert!(!query.text().contains(CANARY));
}

#[test]
fn an_idempotency_key_of_one_tenant_means_nothing_to_another() {
    let stage = Stage::new();
    let body = |title: &str| serde_json::json!({"title": title, "schema": {}});
    let ada = stage.ada.owner.with_header("idempotency-key", "\"same\"").post(
        "/v1/forms",
        body(CANARY),
        201,
    );
    let bob = stage.bob.owner.with_header("idempotency-key", "\"same\"").post(
        "/v1/forms",
        body("mine"),
        201,
    );
    assert_ne!(ada.str("/id"), bob.str("/id"));
    assert_eq!(bob.str("/title"), "mine");
}
