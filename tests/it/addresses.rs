//! E-mail addresses that look like another one: refused, or taken for the one they are, on every route
//! that takes an address.

use std::collections::BTreeSet;
use std::process::Command;

use bulkhead::http::routes::{Access, ROUTES, Route};
use serde_json::{Value, json};

use crate::kit::{Client, Fixture, PASSWORD, Tenant, World, in_walking_order};

/// All of them look like `ann@acme.example`, lead to the same mailbox, or are none.
const ODD: [&str; 22] = [
    "\u{ff41}nn@acme.example",
    "ann\u{ff20}acme.example",
    "ann@acme\u{ff0e}example",
    "ann@acme\u{3002}example",
    "\u{430}nn@acme.example",
    "ann@\u{430}cme.example",
    "ann@acme.ex\u{430}mple",
    "ann\u{200b}@acme.example",
    "a\u{200d}nn@acme.example",
    "ann@acme\u{ad}.example",
    "\u{feff}ann@acme.example",
    "\u{202e}ann@acme.example",
    "a\u{301}nn@acme.example",
    "\u{e1}nn@acme.example",
    "ann@acme.example.",
    "\"ann\"@acme.example",
    "a\\nn@acme.example",
    "ann(ann)@acme.example",
    ".ann@acme.example",
    "Ann <ann@acme.example>",
    "ann@acme.example,bob@acme.example",
    "ann%00@acme.example\0",
];
/// The same address in other spellings.
const SAME: [&str; 4] = [
    "ANN@acme.example",
    "ann@ACME.Example",
    " ann@acme.example\t",
    "\u{a0}ann@acme.example\u{2003}",
];

/// Where a route's body has an address, if it takes one.
fn place(route: &Route) -> Option<&'static str> {
    let sample: Value = serde_json::from_str(route.body.as_ref()?.sample).expect("JSON");
    ["/email", "/owner/email"].into_iter().find(|at| sample.pointer(at).is_some())
}

/// A body with that address, and a password that has nothing of it.
fn body(route: &Route, serial: usize, at: &str, email: &str) -> Value {
    let mut body = Fixture::absent(serial).body(route).expect("a body");
    *body.pointer_mut(at).expect("an address") = json!(email);
    if route.id == "auth.sign-up" {
        body["tenant"]["slug"] = json!(format!("odd-{serial}"));
    }
    body
}

fn caller(world: &World, tenant: &Tenant, platform: &Client, route: &Route) -> Client {
    match route.access {
        Access::Tenant(row) if row.name.starts_with("platform-") => platform.clone(),
        Access::Tenant(_) => tenant.owner.clone(),
        Access::Public | Access::Hook => world.client.clone(),
    }
}

#[test]
fn an_address_that_looks_like_another_makes_no_account_on_any_route() {
    let world = World::start();
    let acme = world.tenant("acme");
    world.member_named(&acme, "ann", "member");
    let platform = world.platform_admin();
    let (mut cases, mut taking) = (0, BTreeSet::new());
    for (at, route) in in_walking_order() {
        let Some(pointer) = place(route) else { continue };
        taking.insert(route.id);
        let client = caller(&world, &acme, &platform, route);
        for (step, email) in ODD.iter().enumerate() {
            let sent = body(route, at * 100 + step, pointer, email);
            let reply = client.call(route.verb.name(), route.path, Some(&sent));
            cases += 1;
            match route.id {
                // Who only asks about an address learns nothing of it.
                "auth.sign-in" => assert_eq!(reply.status, 401, "{email:?}: {}", reply.text()),
                "auth.forgot" => assert_eq!(reply.status, 202, "{email:?}: {}", reply.text()),
                _ => {
                    assert_eq!(reply.status, 422, "{route}: {email:?}: {}", reply.text());
                    assert_eq!(reply.str("/errors/0/pointer"), pointer, "{route}: {email:?}");
                }
            }
        }
    }
    println!("odd addresses: {} of {} routes take one, cases={cases}", taking.len(), ROUTES.len());
    assert!(taking.len() >= 6, "{taking:?}");
    let people = acme.owner.get("/v1/members?limit=100", 200).json();
    assert_eq!(people["items"].as_array().map(Vec::len), Some(2), "{people}");
    let invited = acme.owner.get("/v1/invites", 200).json();
    assert_eq!(invited["items"], json!([]));
}

#[test]
fn another_spelling_of_an_address_is_the_same_account_on_every_route() {
    let world = World::start();
    let acme = world.tenant("acme");
    let ann = world.member_named(&acme, "ann", "member").1;
    for email in SAME {
        let add = json!({"email": email, "role": "viewer", "password": PASSWORD});
        assert_eq!(acme.owner.post("/v1/members", add, 409).problem(), "email-taken", "{email:?}");
        let invite = json!({"email": email, "role": "viewer"});
        let refused = acme.owner.post("/v1/invites", invite, 409);
        assert_eq!(refused.problem(), "email-taken", "{email:?}");
        let body = json!({"tenant": "acme", "email": email, "password": PASSWORD});
        let signed = world.client.post("/v1/auth/sign-in", body, 200);
        assert_eq!(
            (signed.str("/user/id"), signed.str("/user/email")),
            (ann.clone(), "ann@acme.example".to_owned())
        );
    }
    let people = acme.owner.get("/v1/members?limit=100", 200).json();
    assert_eq!(people["items"].as_array().map(Vec::len), Some(2), "{people}");
}

#[test]
fn the_command_line_takes_no_address_that_looks_like_another() {
    let world = World::start();
    world.tenant("acme");
    let file = world.dir.join("password.txt");
    std::fs::write(&file, PASSWORD).expect("a password file");
    for email in ODD.iter().filter(|email| !email.contains('\0')) {
        let refused = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["user", "create", "--tenant", "acme", "--role", "viewer", "--email", email])
            .arg("--password-file")
            .arg(&file)
            .arg("--data")
            .arg(&world.dir)
            .env("BULKHEAD__DATA__ALLOW_TEMPORARY", "true")
            .output()
            .expect("the command line");
        assert!(!refused.status.success(), "{email:?}");
    }
}
