//! SCIM: a directory keeps a tenant's people and teams, within what its key may, and nobody else's.

use std::path::Path;
use std::process::{Command, Stdio};

use actors::permit::Scopes;
use serde_json::{Value, json};

use crate::kit::{Client, PASSWORD, Reply, Tenant, World, WorldOptions, api_key};

mod people;
mod wire;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// What a directory uses: a key with the one scope that it takes.
fn directory(tenant: &Tenant) -> Client {
    api_key(&tenant.owner, &["scim:write"]).0
}

fn provision(by: &Client, user_name: &str) -> String {
    let body = json!({"schemas": [USER], "userName": user_name, "active": true});
    by.post("/scim/v2/Users", body, 201).str("/id")
}

fn patch(by: &Client, place: &str, operations: Value) -> Reply {
    let body = json!({"schemas": [PATCH], "Operations": operations});
    by.call("PATCH", &format!("/scim/v2/{place}"), Some(&body))
}

/// Status and kind of an error in SCIM's form, which is checked.
fn refused(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.header("content-type"), Some("application/scim+json"), "{}", reply.text());
    let body = reply.json();
    assert_eq!(body["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:Error"]));
    assert_eq!(body["status"], reply.status.to_string());
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    (reply.status, body["scimType"].as_str().unwrap_or_default().to_owned())
}

/// The user names that a filter finds.
fn found(by: &Client, filter: &str) -> Vec<String> {
    let search = json!({"schemas": [], "filter": filter});
    let list = by.post("/scim/v2/Users/.search", search, 200).json();
    let people = list["Resources"].as_array().expect("a list");
    assert_eq!(list["totalResults"], people.len());
    people.iter().map(|one| one["userName"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn the_tester_of_others_finds_no_failure() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let python = folder.join(".venv/bin/python");
    let is_there = python.exists()
        && Command::new(&python)
            .args(["-c", "import scim2_tester, httpx2"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if !is_there {
        println!(
            "SKIPPED: scim2-tester is absent. ./tests/run installs it: python3 -m venv tests/peers/.venv, \
             then pip install -r tests/peers/requirements.txt"
        );
        return;
    }
    let world = World::start();
    let acme = world.tenant("acme");
    // It gives every role there is to give, which takes all that an administrator can do.
    let (key, _) = api_key(&acme.owner, &Scopes::all().names().collect::<Vec<_>>());
    let output = Command::new(python)
        .arg(folder.join("scim.py"))
        .arg(format!("{}/scim/v2", world.client.base))
        .env("SCIM_TOKEN", key.token.expect("a key"))
        .output()
        .expect("an installed Python runs");
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checks = report.lines().filter(|line| line.starts_with("SUCCESS")).count();
    assert!(checks > 50, "only {checks} checks were made");
}
