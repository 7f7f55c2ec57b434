//! Mails, and what their links let one do: taken by a real mail server, or written to a directory.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{
    Client, Device, LOCAL, Launcher, MailServer, PASSWORD, Tenant, TestClock, World, WorldOptions,
    enrol, enrol_passkey, eventually, link_in, options, written,
};

const NEW: &str = "quite another horse";

fn at(server: &MailServer) -> WorldOptions {
    WorldOptions::default()
        .set("mail.smtp", format!("127.0.0.1:{}", server.port))
        .set("mail.tls", "none")
        .set("mail.from", "Acme Mail <no-reply@acme.example>")
        .set("http.public_url", "https://app.acme.example")
}

fn owner_of(tenant: &Tenant) -> String {
    format!("owner@{}.example", tenant.slug)
}

fn forgot(client: &Client, tenant: &str, email: &str) -> Value {
    client.post("/v1/auth/password/forgot", json!({"tenant": tenant, "email": email}), 202).json()
}

fn sign_in_with(client: &Client, tenant: &str, email: &str, password: &str) -> u16 {
    let body = json!({"tenant": tenant, "email": email, "password": password});
    client.call("POST", "/v1/auth/sign-in", Some(&body)).status
}

fn entries(tenant: &Tenant, action: &str) -> Vec<Value> {
    let page = tenant.owner.get(&format!("/v1/audit?action={action}&limit=50"), 200).json();
    page["items"].as_array().expect("a list").clone()
}

#[test]
fn a_mail_server_takes_invitations_links_and_notices_and_each_link_works_once() {
    let Some(server) = MailServer::start(&[]) else { return };
    let world = at(&server).set("signup.verify_email", true).start();
    let tenant = world.tenant("acme");
    let owner = owner_of(&tenant);

    let mail = server.mail(&owner, "Confirm your address");
    assert_eq!(
        (&mail["from"], &mail["auto"]),
        (&json!("no-reply@acme.example"), &json!("auto-generated"))
    );
    let text = mail["text"].as_str().expect("a text");
    let token = link_in(text, "verify");
    assert!(text.contains("https://app.acme.example/account/verify#"), "{text}");
    assert_eq!(link_in(mail["html"].as_str().expect("a page"), "verify"), token, "both parts");
    assert_eq!(tenant.owner.get("/v1/me", 200).json()["email_verified"], false);
    world.client.post("/v1/auth/email/verify", json!({"token": token}), 204);
    assert_eq!(tenant.owner.get("/v1/me", 200).json()["email_verified"], true);
    let again = world.client.post("/v1/auth/email/verify", json!({"token": token}), 400);
    assert_eq!(again.problem(), "invalid-link");

    let invite = tenant.owner.post(
        "/v1/invites",
        json!({"email": "Bob@bob.example", "role": "member"}),
        201,
    );
    assert!(!invite.text().contains("bkt_"), "no link in an answer");
    let mail = server.mail("bob@bob.example", "Invitation to");
    let text = mail["text"].as_str().expect("a text");
    assert!(text.contains(&owner) && text.contains("as member"), "{text}");
    let token = link_in(text, "invite");
    let body = json!({"token": token, "password": PASSWORD});
    let bob = world.client.post("/v1/auth/invites/accept", body.clone(), 201);
    let bob = world.client.with_token(&bob.str("/access_token"));
    let me = bob.get("/v1/me", 200).json();
    assert_eq!(
        (&me["email"], &me["role"], &me["email_verified"]),
        (&json!("bob@bob.example"), &json!("member"), &json!(true))
    );
    world.client.post("/v1/auth/invites/accept", body, 400);
    assert_eq!(tenant.owner.get("/v1/invites", 200).json()["items"], json!([]));

    forgot(&world.client, "acme", "bob@bob.example");
    let mail = server.mail("bob@bob.example", "A new password");
    let token = link_in(mail["text"].as_str().expect("a text"), "reset");
    let short = world.client.post(
        "/v1/auth/password/reset",
        json!({"token": token, "new_password": "short"}),
        422,
    );
    assert_eq!(short.json()["errors"][0]["pointer"], "/new_password");
    let body = json!({"token": token, "new_password": NEW});
    world.client.post("/v1/auth/password/reset", body.clone(), 204);
    bob.get("/v1/me", 401);
    assert_eq!(sign_in_with(&world.client, "acme", "bob@bob.example", PASSWORD), 401);
    assert_eq!(sign_in_with(&world.client, "acme", "bob@bob.example", NEW), 200);
    world.client.post("/v1/auth/password/reset", body, 400);
    let notice = server.mail("bob@bob.example", "Your password for");
    assert!(!notice["text"].as_str().expect("a text").contains("http"), "{notice}");
    for action in [
        "email.verify",
        "invite.create",
        "invite.accept",
        "password.reset_request",
        "password.reset",
    ] {
        assert_eq!(entries(&tenant, action).len(), 1, "{action}");
    }
    let log = tenant.owner.get("/v1/audit?limit=200", 200).text();
    assert!(!log.contains("bkt_") && !log.contains(&token), "no link in the audit log");
}

#[test]
fn an_unknown_address_or_tenant_is_answered_like_a_known_one_and_gets_no_mail() {
    let Some(server) = MailServer::start(&[]) else { return };
    let world = at(&server).start();
    let tenant = world.tenant("acme");
    let known = forgot(&world.client, "acme", &owner_of(&tenant));
    for (slug, email) in
        [("acme", "nobody-here@acme.example"), ("absent", "a@b.example"), ("acme", "no address")]
    {
        assert_eq!(forgot(&world.client, slug, email), known);
    }
    // A platform administrator's address under a tenant that does not exist is nobody's.
    world.new_platform_admin("root@platform.example");
    forgot(&world.client, "absent", "root@platform.example");
    server.mail(&owner_of(&tenant), "A new password");
    forgot(&world.client, "platform", "root@platform.example");
    server.mail("root@platform.example", "A new password");
    assert_eq!(server.taken().len(), 2, "{:?}", server.taken());
    let failed = entries(&tenant, "password.reset_request");
    assert_eq!(failed.iter().filter(|entry| entry["outcome"] == "failed").count(), 2);
    assert!(!tenant.owner.get("/v1/audit?limit=200", 200).text().contains("nobody-here"));
}

#[test]
fn what_the_server_refuses_for_good_is_given_up_on_record_and_what_it_defers_comes_later() {
    let Some(server) = MailServer::start(&[]) else { return };
    let clock = TestClock::new();
    let world = at(&server).clock(clock.clone()).start();
    let tenant = world.tenant("acme");
    let invite = |email: &str| {
        tenant.owner.post("/v1/invites", json!({"email": email, "role": "viewer"}), 201)
    };
    invite("nobody@acme.example");
    let failed = eventually("a mail that is given up", || entries(&tenant, "mail.deliver").pop());
    assert_eq!(failed["outcome"], "failed");
    assert!(
        failed["detail"]["reason"].as_str().is_some_and(|text| text.contains("mailbox")),
        "{failed}"
    );
    invite("busy@acme.example");
    let figure = |name: &str| {
        let text = world.ops.get("/metrics", 200).text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        line.and_then(|value| value.parse::<u64>().ok()).expect("a figure")
    };
    eventually("a mail that is deferred", || {
        (figure("bulkhead_mail_deferred_total ") == 1).then_some(())
    });
    assert_eq!(
        (figure("bulkhead_mail_failed_total "), figure("bulkhead_mail_tenants_waiting ")),
        (1, 1)
    );
    clock.advance(Duration::from_secs(6));
    server.mail("busy@acme.example", "Invitation to");
    eventually("nothing waits", || (figure("bulkhead_mail_tenants_waiting ") == 0).then_some(()));
    assert_eq!(server.taken().len(), 1);
}

#[test]
fn mails_wait_out_a_restart_and_go_when_there_is_a_server_without_anybody_asking() {
    let Some(server) = MailServer::start(&[]) else { return };
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = dead.local_addr().expect("an address").port();
    drop(dead);
    let mut world = at(&server).set("mail.smtp", format!("127.0.0.1:{closed}")).data(&data).start();
    let tenant = world.tenant("acme");
    tenant.owner.post("/v1/invites", json!({"email": "bob@bob.example", "role": "viewer"}), 201);
    eventually("a failed attempt", || {
        let text = world.ops.get("/metrics", 200).text();
        (!text.contains("bulkhead_mail_deferred_total 0")).then_some(())
    });
    world.stop();
    let clock = TestClock::new();
    clock.advance(Duration::from_secs(60));
    let world = at(&server).data(&data).clock(clock).start();
    let mail = server.mail("bob@bob.example", "Invitation to");
    let token = link_in(mail["text"].as_str().expect("a text"), "invite");
    world.client.post(
        "/v1/auth/invites/accept",
        json!({"token": token, "password": PASSWORD}),
        201,
    );
}

/// An authority, and a certificate and key of it for the mail server; nothing where there is no `openssl`.
fn certificate(home: &Path) -> Option<[String; 3]> {
    let text = |name: &str| home.join(name).to_str().expect("text").to_owned();
    let [ca, ca_key, cert, key] = ["ca.pem", "ca.key", "cert.pem", "key.pem"].map(text);
    let make = |words: &[&str]| {
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2"])
            .args(words)
            .output()
    };
    let Ok(made) = make(&["-subj", "/CN=Authority", "-keyout", &ca_key, "-out", &ca]) else {
        println!("SKIPPED: there is no `openssl` program here to make a certificate");
        return None;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = make(&[
        "-subj",
        "/CN=localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-keyout",
        &key,
        "-out",
        &cert,
    ]);
    let made = made.expect("it ran before");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some([ca, cert, key])
}

#[test]
fn a_server_that_wants_tls_and_a_log_in_gets_both_and_no_other_server_gets_a_mail() {
    let home = tempfile::tempdir().expect("a directory");
    let Some([ca, cert, key]) = certificate(home.path()) else { return };
    let Some(server) = MailServer::start(&[&cert, &key, "bulkhead", "mail-secret"]) else { return };
    let password = home.path().join("password");
    std::fs::write(&password, "mail-secret\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&password, mode).expect("a mode");
    let options = |with_ca: bool| {
        let options = WorldOptions::default()
            .set("mail.smtp", format!("localhost:{}", server.port))
            .set("mail.username", "bulkhead")
            .set("mail.password_file", password.to_str().expect("text"));
        if with_ca { options.set("mail.ca_file", ca.as_str()) } else { options }
    };
    let stranger = options(false).start();
    let acme = stranger.tenant("acme");
    acme.owner.post("/v1/invites", json!({"email": "eve@eve.example", "role": "viewer"}), 201);
    eventually("a server that is not trusted", || {
        let text = stranger.ops.get("/metrics", 200).text();
        text.contains("bulkhead_mail_deferred_total 1").then_some(())
    });
    drop(stranger);
    let world = options(true).start();
    let tenant = world.tenant("acme");
    tenant.owner.post("/v1/invites", json!({"email": "bob@bob.example", "role": "viewer"}), 201);
    assert_eq!(server.mail("bob@bob.example", "Invitation to")["tls"], true);
    assert_eq!(server.taken().len(), 1);
}

#[test]
fn without_a_mail_server_mails_are_files_that_only_the_node_can_read_and_go_with_an_erasure() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let world = WorldOptions::default().data(&data).start();
    let tenant = world.tenant("acme");
    // An invitation, by adding a member without a password.
    let added = tenant.owner.post(
        "/v1/members",
        json!({"email": "bob@bob.example", "role": "member"}),
        201,
    );
    assert!(added.str("/id").starts_with("iv_"), "{}", added.text());
    let mail = eventually("a written mail", || written(&data, &tenant.id).pop());
    assert!(mail.contains(&format!("{}/account/invite#", world.client.base)), "{mail}");
    let token = link_in(&mail, "invite");
    world.client.post(
        "/v1/auth/invites/accept",
        json!({"token": token, "password": PASSWORD}),
        201,
    );
    let folder = data.join("mail").join(&tenant.id);
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(path).expect("there").permissions(),
        ) & 0o777
    };
    let file =
        std::fs::read_dir(&folder).expect("a directory").next().expect("one").expect("a file");
    assert_eq!((mode(&folder), mode(&file.path())), (0o700, 0o600));
    let words = ["tenant", "erase", "acme", "--force", "--reason", "it was asked for"];
    Launcher::on(&data).run(&words).expect(0);
    assert!(!folder.exists());
}

/// A mail that holds all of these; waits for it.
fn mail_with(world: &World, tenant: &Tenant, parts: &[&str]) -> String {
    eventually(&format!("a mail with {parts:?}"), || {
        let is_it = |mail: &String| parts.iter().all(|part| mail.contains(part));
        written(&world.dir, &tenant.id).into_iter().find(is_it)
    })
}

#[test]
fn whoever_changes_how_somebody_signs_in_is_told_of_to_them_with_time_and_place() {
    const CHROME: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                          Chrome/141.0.0.0 Safari/537.36";
    let world = World::start();
    let mut tenant = world.tenant("acme");
    let place = "UTC from 127.0.0.1 with Chrome on Linux.";
    let ann = tenant.owner.with_header("user-agent", CHROME);

    let mut device = Device::new(1);
    let added = enrol_passkey(&ann, &mut device);
    let ann = ann.with_token(&added.str("/access_token"));
    mail_with(&world, &tenant, &["A passkey was added. There are new recovery codes", place]);
    let recovery = added.json()["recovery_codes"].clone();
    let code = |at: usize| recovery[at].as_str().expect("a code").to_owned();

    let mut further = Device::new(2);
    let body = json!({"password": PASSWORD, "code": code(0)});
    let begun = ann.post("/v1/me/passkeys/options", body, 200);
    let body = json!({"name": "Phone", "credential": further.create(&options(&begun), LOCAL)});
    let ann = ann.with_token(&ann.post("/v1/me/passkeys", body, 201).str("/access_token"));
    mail_with(&world, &tenant, &["A passkey was added. It was done", place]);

    let body = json!({"password": PASSWORD, "code": code(1)});
    let renewed = ann.post("/v1/me/mfa/recovery-codes", body, 200).json();
    let mail = mail_with(&world, &tenant, &["There is a new set of recovery codes", place]);
    for secret in renewed["recovery_codes"].as_array().expect("codes") {
        assert!(!mail.contains(secret.as_str().expect("a code")), "{mail}");
    }
    for (at, held) in [&device, &further].into_iter().enumerate() {
        let body = json!({"password": PASSWORD, "code": renewed["recovery_codes"][at]});
        let place = format!("/v1/me/passkeys/{}", held.id());
        assert_eq!(ann.call("DELETE", &place, Some(&body)).status, 204);
    }
    mail_with(&world, &tenant, &["A passkey was removed.", place]);

    let (ann, held) = enrol(&ann, world.now_ms());
    mail_with(&world, &tenant, &["An authenticator was added", place]);
    let body = json!({"password": PASSWORD, "code": held.recovery_code()});
    assert_eq!(ann.call("DELETE", "/v1/me/mfa/totp", Some(&body)).status, 204);
    mail_with(&world, &tenant, &["The authenticator was removed.", place]);

    let body = json!({"current_password": PASSWORD, "new_password": NEW});
    let opened = ann.patch("/v1/me/password", body, 200);
    mail_with(&world, &tenant, &["The password was changed", place]);

    // Who helps another keeps their own address to themselves.
    tenant.owner = ann.with_token(&opened.str("/access_token"));
    let (bob, id) = world.member_named(&tenant, "bob", "member");
    enrol(&bob, world.now_ms());
    tenant.owner.delete(&format!("/v1/members/{id}/mfa"), 204);
    let told = ["To: bob@acme.example", "An administrator removed"];
    let mail = mail_with(&world, &tenant, &told);
    assert!(mail.contains("UTC.") && !mail.contains("127.0.0.1"), "{mail}");
}

#[test]
fn a_tenant_changes_hands_and_the_last_owner_stays() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let (heir, id) = world.member_named(&tenant, "heir", "member");
    let own = tenant.owner_id.clone();
    tenant.owner.delete(&format!("/v1/members/{own}"), 409);
    heir.post("/v1/tenant/transfer", json!({"to": id}), 403);
    let taken = tenant.owner.post("/v1/tenant/transfer", json!({"to": id}), 200);
    assert_eq!(taken.str("/role"), "owner");
    // Both have other rights from the next request on.
    tenant.owner.get("/v1/me", 401);
    heir.get("/v1/me", 401);
    let (former, owner) =
        (world.sign_in("acme", &owner_of(&tenant)), world.sign_in("acme", "heir@acme.example"));
    assert_eq!(former.get("/v1/me", 200).str("/role"), "admin");
    former.patch(&format!("/v1/members/{own}"), json!({"role": "owner"}), 403);
    owner.delete(&format!("/v1/members/{id}"), 409);
    owner.delete(&format!("/v1/members/{own}"), 204);
    former.get("/v1/me", 401);
}

#[test]
fn the_pages_behind_the_links_load_one_script_and_nothing_from_elsewhere() {
    let world = World::start();
    for page in ["invite", "reset", "verify"] {
        let answer = world.client.get(&format!("/account/{page}"), 200);
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("script-src 'self'") && policy.contains("default-src 'none'"));
        assert!(answer.text().contains(&format!("/account/{page}/script.js")));
        let script = world.client.get(&format!("/account/{page}/script.js"), 200);
        assert!(script.text().contains("history.replaceState"));
    }
    world.client.get("/account/other", 404);
    world.client.get("/account/other/script.js", 404);
}
