//! Passwords that are easy to guess are refused wherever one is chosen, with advice, and cost nothing
//! that was sent along with them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{PASSWORD, Reply, Tenant, World, eventually, link_in, written};

/// Long enough, and among the first that anybody would try; the last three only here.
const WEAK: [&str; 8] = [
    "password123",
    "1234567890",
    "qwertyuiop",
    "P@ssw0rd123",
    "aaaaaaaaaaaaaaaa",
    "bulkhead12",
    "wernham-hogg",
    "davidbrent1",
];
const NAME: &str = "Wernham Hogg Paper";
const EMAIL: &str = "david.brent@wernham-hogg.example";

fn assert_weak(what: &str, password: &str, pointer: &str, reply: &Reply) {
    assert_eq!(reply.status, 422, "{what}, {password}: {}", reply.text());
    let errors = reply.json()["errors"].as_array().cloned().unwrap_or_default();
    assert_eq!(errors.len(), 1, "{what}, {password}: {}", reply.text());
    assert_eq!(errors[0]["pointer"], pointer, "{what}, {password}");
    let message = errors[0]["message"].as_str().expect("a text");
    assert!(message.starts_with("is too easy to guess."), "{what}, {password}: {message}");
    assert!(!reply.text().contains(password), "{what} shows the password: {}", reply.text());
}

/// A tenant that is named as the weak passwords suppose.
fn founded(world: &World) -> Tenant {
    let tenant = json!({"slug": "wernham-hogg", "name": NAME});
    let up = |password: &str| json!({"tenant": tenant, "email": EMAIL, "password": password});
    for password in WEAK {
        let reply = world.client.call("POST", "/v1/auth/sign-up", Some(&up(password)));
        assert_weak("sign-up", password, "/password", &reply);
    }
    // Nothing was founded by those.
    let made = world.client.post("/v1/auth/sign-up", up(PASSWORD), 201);
    Tenant {
        id: made.str("/tenant/id"),
        slug: "wernham-hogg".to_owned(),
        owner: world.client.with_token(&made.str("/access_token")),
        owner_id: made.str("/user/id"),
        refresh_token: made.str("/refresh_token"),
    }
}

fn link(world: &World, tenant: &Tenant, page: &str) -> String {
    eventually(&format!("a mail with a link to {page}"), || {
        let mails = written(&world.dir, &tenant.id);
        let mail = mails.into_iter().find(|it| it.contains(&format!("/account/{page}#")))?;
        Some(link_in(&mail, page))
    })
}

#[test]
fn what_is_easy_to_guess_is_refused_wherever_people_choose_a_password() {
    let world = World::start();
    let tenant = founded(&world);
    let (owner, client) = (&tenant.owner, &world.client);
    let weakly =
        |what: &str, path: &str, verb: &str, pointer: &str, body: &dyn Fn(&str) -> Value| {
            for password in WEAK {
                let by = if path.starts_with("/v1/auth/") { client } else { owner };
                assert_weak(what, password, pointer, &by.call(verb, path, Some(&body(password))));
            }
        };
    let add = |password: &str| json!({"email": EMAIL.replace("david", "dawn.david"), "role": "viewer", "password": password});
    weakly("adding a member", "/v1/members", "POST", "/password", &add);
    owner.post("/v1/members", add(PASSWORD), 201);

    let change = |password: &str| json!({"current_password": PASSWORD, "new_password": password});
    weakly("changing it", "/v1/me/password", "PATCH", "/new_password", &change);

    let email = "tim.david.brent@wernham-hogg.example";
    owner.post("/v1/invites", json!({"email": email, "role": "viewer"}), 201);
    let token = link(&world, &tenant, "invite");
    let accept = |password: &str| json!({"token": token, "password": password});
    weakly("accepting", "/v1/auth/invites/accept", "POST", "/password", &accept);
    // The link is good as long as nothing came of it.
    client.post("/v1/auth/invites/accept", accept(PASSWORD), 201);

    let forgot = json!({"tenant": tenant.slug, "email": EMAIL});
    client.post("/v1/auth/password/forgot", forgot, 202);
    let token = link(&world, &tenant, "reset");
    let reset = |password: &str| json!({"token": token, "new_password": password});
    weakly("a reset", "/v1/auth/password/reset", "POST", "/new_password", &reset);
    owner.get("/v1/me", 200);
    client.post("/v1/auth/password/reset", reset("quite another horse"), 204);

    let admin = world.platform_admin();
    for password in WEAK {
        let body = json!({
            "slug": "wernham-hogg-2", "name": NAME, "plan": "pro",
            "owner": {"email": EMAIL, "password": password},
        });
        let reply = admin.call("POST", "/v1/platform/tenants", Some(&body));
        assert_weak("the platform", password, "/owner/password", &reply);
    }
}

#[test]
fn the_command_line_refuses_what_is_easy_to_guess_with_the_same_advice() {
    let world = World::start();
    let tenant = founded(&world);
    let run = |words: &[&str], password: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(words)
            .args(["--password-file", "-", "--data"])
            .arg(&world.dir)
            .env("BULKHEAD__DATA__ALLOW_TEMPORARY", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command line");
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "{password}").expect("a reader");
        drop(stdin);
        child.wait_with_output().expect("an end")
    };
    let user = [
        "user",
        "create",
        "--tenant",
        &tenant.slug,
        "--role",
        "viewer",
        "--email",
        "gareth@wernham-hogg.example",
    ];
    let platform = ["platform-admin", "create", "--email", "gareth@platform.example"];
    for words in [&user[..], &platform[..]] {
        for password in ["password123", "bulkhead12", "garethgareth"] {
            let refused = run(words, password);
            let told = String::from_utf8_lossy(&refused.stderr);
            assert!(!refused.status.success(), "{words:?} {password}");
            assert!(told.contains("is too easy to guess."), "{words:?} {password}: {told}");
            assert!(!told.contains(password), "{told}");
        }
        let made = run(words, PASSWORD);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

#[test]
fn the_audit_log_never_sees_a_password_that_was_refused() {
    let world = World::start();
    let acme = world.tenant("acme");
    let weak = "password123";
    let body = json!({"current_password": PASSWORD, "new_password": weak});
    acme.owner.patch("/v1/me/password", body, 422);
    let body = json!({"email": "x@acme.example", "role": "viewer", "password": weak});
    acme.owner.post("/v1/members", body, 422);
    assert!(!acme.owner.get("/v1/audit?limit=100", 200).text().contains(weak));
    // A guess at one's own old password is on record all the same, and the new one is not looked at.
    let body = json!({"current_password": "not it at all", "new_password": weak});
    let wrong = acme.owner.patch("/v1/me/password", body, 422);
    assert_eq!(wrong.str("/errors/0/pointer"), "/current_password");
}
