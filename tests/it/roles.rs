//! The capability matrix, called route by route as everybody there is, compared with `docs/roles.md`.
//!
//! The page is made from the table that the server checks, and the calls are compared with the page: who
//! takes a check out of the table hears of it twice. That each cell of the page counts is shown by turning
//! it over: then the comparison has to fail.

use actors::env::{Clock as _, SystemClock, rfc3339};
use actors::permit::{CAPABILITIES, Role, Scopes};
use bulkhead::http::routes::{Access, ROUTES, Route};
use serde_json::json;

use self::page::{COLUMNS, KEY, Page, SUPPORT};
use crate::kit::{
    Client, Fixture, PASSWORD, Reply, Tenant, World, api_key, ends_the_caller, in_walking_order,
    support_session,
};

pub mod page;

/// Everybody who calls. One more is one more entry here, and an arm in each `match` below.
const PRINCIPALS: [Principal; 11] = [
    Principal::Person(Role::Owner),
    Principal::Person(Role::Admin),
    Principal::Person(Role::Member),
    Principal::Person(Role::Viewer),
    Principal::Person(Role::Customer),
    Principal::Person(Role::PlatformAdmin),
    Principal::KeyWithEverything,
    Principal::KeyWithTheRest,
    Principal::Support,
    Principal::Nobody,
    Principal::SuspendedOwner,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Principal {
    /// Somebody of that role, signed in.
    Person(Role),
    /// An API key with all that its creator, an owner, may give.
    KeyWithEverything,
    /// An API key with all but the one scope that the route takes.
    KeyWithTheRest,
    /// A platform administrator in a support session with all that one can have.
    Support,
    /// No credential.
    Nobody,
    /// The owner of a tenant that the platform suspended.
    SuspendedOwner,
}

/// What a call came to, as far as who asks matters.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// Not refused for who asks: done, or wrong for another reason.
    Open,
    /// `forbidden`, for one of the capabilities that the route takes.
    Forbidden,
    /// `unauthenticated`.
    NoCredential,
    /// `tenant-suspended`.
    Suspended,
    /// Anything that may not come at all.
    Odd(u16, String),
}

impl Outcome {
    fn of(reply: &Reply, capabilities: &[&str]) -> Self {
        let odd = || Self::Odd(reply.status, reply.text());
        if ![401, 403].contains(&reply.status) {
            return if reply.status < 500 { Self::Open } else { odd() };
        }
        match reply.problem().as_str() {
            "unauthenticated" => Self::NoCredential,
            "tenant-suspended" => Self::Suspended,
            "forbidden" if capabilities.contains(&reply.action().as_str()) => Self::Forbidden,
            // Finer rules than a role; and secrets in the body, which are nobody's credential.
            "forbidden" | "bad-credentials" | "webhook-signature" => Self::Open,
            _ => odd(),
        }
    }
}

impl Principal {
    fn name(self) -> String {
        match self {
            Self::Person(role) => role.name().to_owned(),
            other => format!("{other:?}"),
        }
    }

    /// What the page says that comes of a call which takes these capabilities; none: it is for everybody.
    fn expected(self, page: &Page, capabilities: &[&str]) -> Outcome {
        let by = |column: &str| {
            let all = capabilities.iter().all(|name| page.allows(name, column));
            if all { Outcome::Open } else { Outcome::Forbidden }
        };
        match self {
            _ if capabilities.is_empty() => Outcome::Open,
            Self::Person(role) => by(role.name()),
            Self::KeyWithEverything => by(KEY),
            Self::KeyWithTheRest => Outcome::Forbidden,
            Self::Support => by(SUPPORT),
            Self::Nobody => Outcome::NoCredential,
            Self::SuspendedOwner => Outcome::Suspended,
        }
    }
}

/// A node with everybody in it.
struct Stage {
    world: World,
    tenant: Tenant,
    submitter: Client,
    people: Vec<(Role, Client)>,
    everything: Client,
    /// A key without one scope, by that scope.
    rest: Vec<(&'static str, Client)>,
    support: Client,
    suspended: Client,
}

impl Stage {
    fn new() -> Self {
        let world = World::start();
        let tenant = world.tenant("acme");
        let submitter = world.member_named(&tenant, "submitter", "member").0;
        let platform = world.platform_admin();
        let halted = world.tenant("halted");
        let reason = json!({"reason": "to see what its owner is told"});
        platform.post(&format!("/v1/platform/tenants/{}/suspend", halted.id), reason, 200);
        let people = Role::ALL.into_iter().map(|role| match role {
            Role::Owner => (role, tenant.owner.clone()),
            Role::PlatformAdmin => (role, platform.clone()),
            _ => (role, world.member(&tenant, role.name())),
        });
        let people = people.collect();
        let all: Vec<_> = Scopes::all().names().collect();
        let everything = api_key(&tenant.owner, &all).0;
        let without = |scope: &&'static str| {
            let others: Vec<_> = all.iter().copied().filter(|name| name != scope).collect();
            (*scope, api_key(&tenant.owner, &others).0)
        };
        let rest = all.iter().map(without).collect();
        let extra: Vec<_> = Scopes::with_consent().names().collect();
        let support = support_session(&platform, &tenant, &extra);
        let suspended = halted.owner;
        Self { world, tenant, submitter, people, everything, rest, support, suspended }
    }

    /// The principal's own client, with a new session if the route would end the one it has.
    fn client(&self, principal: Principal, capability: Option<&str>, ends: bool) -> Client {
        let slug = &self.tenant.slug;
        match principal {
            Principal::Person(Role::PlatformAdmin) if ends => {
                self.world.sign_in("platform", "root@platform.example")
            }
            Principal::Person(role) if ends => {
                self.world.sign_in(slug, &format!("{}@{slug}.example", role.name()))
            }
            Principal::Person(role) => {
                let known = self.people.iter().find(|(known, _)| *known == role);
                known.expect("everybody").1.clone()
            }
            Principal::KeyWithEverything => self.everything.clone(),
            // A capability that is no scope is missing from any key.
            Principal::KeyWithTheRest => {
                let known = self.rest.iter().find(|(scope, _)| capability == Some(scope));
                known.map_or(&self.everything, |(_, key)| key).clone()
            }
            Principal::Support => self.support.clone(),
            Principal::Nobody => self.world.client.clone(),
            Principal::SuspendedOwner => self.suspended.clone(),
        }
    }

    /// Calls a route as somebody: what came of it, where nothing but who asks could refuse it.
    fn call(
        &self,
        route: &Route,
        principal: Principal,
        serial: usize,
        expected: &Outcome,
    ) -> Outcome {
        let capability = capability(route);
        let client = || self.client(principal, capability, ends_the_caller(route));
        let is_person = matches!(principal, Principal::Person(role) if role != Role::PlatformAdmin);
        let is_real = is_person && *expected == Outcome::Open && route.is_tenant_scoped();
        let has_params = route.params().next().is_some();
        // A refusal does not need anything to work on, and must come before it is looked for.
        let absent =
            || Outcome::of(&Fixture::absent(serial).call(route, &client()), capability.as_slice());
        if !is_real {
            return absent();
        }
        if has_params && absent() != Outcome::Open {
            return absent();
        }
        let fixture = Fixture::of(&self.world, &self.tenant, &self.submitter, route, serial);
        let reply = fixture.call(route, &client());
        if route.id == "me.change-password" && reply.status == 200 {
            self.change_back(&reply);
        }
        let outcome = Outcome::of(&reply, capability.as_slice());
        // Own-records and access-list rules may still hide a thing that is there; the role may not.
        let is_own_rule = has_params && reply.status == 403;
        if is_own_rule { Outcome::Open } else { outcome }
    }

    /// Everybody of the tests has the same password.
    fn change_back(&self, changed: &Reply) {
        let back = json!({"current_password": "another correct horse", "new_password": PASSWORD});
        let person = self.world.client.with_token(&changed.str("/access_token"));
        person.patch("/v1/me/password", back, 200);
    }

    /// Looking at what was takes a capability beside the route's own.
    fn look_back(&self, principal: Principal) -> Outcome {
        let now = rfc3339(SystemClock::new().now_ms());
        let client = self.client(principal, Some("history:read"), false);
        let reply = client.call("GET", &format!("/v1/forms?as_of={now}"), None);
        Outcome::of(&reply, &["forms:read", "history:read"])
    }
}

fn capability(route: &Route) -> Option<&'static str> {
    match route.access {
        Access::Tenant(row) => Some(row.name),
        Access::Public | Access::Hook => None,
    }
}

/// One call that was made.
struct Case {
    what: String,
    principal: Principal,
    capabilities: Vec<&'static str>,
    outcome: Outcome,
}

/// Where what came of the calls is not what the page says.
fn differences(cases: &[Case], page: &Page) -> Vec<String> {
    let differs = |case: &&Case| case.principal.expected(page, &case.capabilities) != case.outcome;
    let told =
        |case: &Case| format!("{} as {}: {:?}", case.what, case.principal.name(), case.outcome);
    cases.iter().filter(differs).map(told).collect()
}

/// Calls everything as everybody.
fn walk(page: &Page) -> Vec<Case> {
    let stage = Stage::new();
    let mut cases = Vec::new();
    for principal in PRINCIPALS {
        let capabilities = vec!["forms:read", "history:read"];
        let outcome = stage.look_back(principal);
        cases.push(Case { what: "?as_of=".to_owned(), principal, capabilities, outcome });
    }
    for (at, route) in in_walking_order() {
        for (step, principal) in PRINCIPALS.into_iter().enumerate() {
            let capabilities: Vec<_> = capability(route).into_iter().collect();
            let expected = principal.expected(page, &capabilities);
            let outcome = stage.call(route, principal, at * PRINCIPALS.len() + step, &expected);
            cases.push(Case { what: route.to_string(), principal, capabilities, outcome });
        }
    }
    cases
}

/// Turns each cell of the page over in turn; gives how many there are, and those that nobody noticed.
fn turned_over(cases: &[Case], page: &Page) -> (usize, Vec<String>) {
    let (mut cells, mut unnoticed) = (0, Vec::new());
    for row in CAPABILITIES.iter().filter(|row| !row.roles.is_empty()) {
        for column in COLUMNS {
            cells += 1;
            if differences(cases, &page.turned(row.name, column)).is_empty() {
                unnoticed.push(format!("{} {column}", row.name));
            }
        }
    }
    (cells, unnoticed)
}

#[test]
fn everybody_may_do_what_the_page_says_and_nothing_else() {
    let page = Page::read();
    let cases = walk(&page);
    let found = differences(&cases, &page);
    println!(
        "roles: cases = {} routes × {} principals = {}, and {} looking back; {} differences",
        ROUTES.len(),
        PRINCIPALS.len(),
        ROUTES.len() * PRINCIPALS.len(),
        PRINCIPALS.len(),
        found.len()
    );
    assert!(found.is_empty(), "{}", found[..found.len().min(20)].join("\n"));
    let (cells, unnoticed) = turned_over(&cases, &page);
    println!("roles: {cells} cells turned over one by one, {} unnoticed", unnoticed.len());
    // Looking back takes a route's own capability as well, and platform administrators have none of those.
    assert_eq!(unnoticed, ["history:read platform-admin"]);
}

#[test]
fn the_published_matrix_is_the_one_on_the_page() {
    let world = World::start();
    let published = world.client.get("/v1/meta/capabilities", 200).json();
    let page = Page::read();
    let rows = published["capabilities"].as_array().expect("a list");
    assert_eq!(rows.len(), CAPABILITIES.len());
    for row in rows {
        let name = row["name"].as_str().expect("a name");
        let roles = row["roles"].as_array().expect("a list");
        for role in Role::ALL {
            let is_published = roles.contains(&json!(role.name()));
            assert_eq!(page.allows(name, role.name()), is_published, "{name} {role}");
        }
        assert_eq!(json!(page.allows(name, KEY)), row["api_keys"], "{name}");
        assert_eq!(page.allows(name, SUPPORT), row["support"] != json!(null), "{name}");
    }
    for action in published["form_actions"].as_array().expect("a list") {
        let levels = action["levels"].as_array().expect("a list");
        for level in ["OWNER", "EDITOR", "REVIEWER"] {
            let name = action["name"].as_str().expect("a name");
            assert_eq!(page.allows(name, level), levels.contains(&json!(level)), "{name} {level}");
        }
    }
}
