//! Signing up, in and out: what a session is worth, and the moment it stops being worth anything.

use serde_json::{Value, json};

use crate::kit::{Client, PASSWORD, Reply, World, WorldOptions, at_once};

fn sign_in(client: &Client, tenant: &str, email: &str, password: &str) -> Reply {
    let body = json!({"tenant": tenant, "email": email, "password": password});
    client.call("POST", "/v1/auth/sign-in", Some(&body))
}

fn sign_up(client: &Client, slug: &str, email: &str, password: &str) -> Reply {
    let tenant = json!({"slug": slug, "name": "A tenant"});
    let body = json!({"tenant": tenant, "email": email, "password": password});
    client.call("POST", "/v1/auth/sign-up", Some(&body))
}

fn refresh(client: &Client, token: &str) -> Reply {
    client.call("POST", "/v1/auth/refresh", Some(&json!({"refresh_token": token})))
}

fn pointers(reply: &Reply) -> Vec<String> {
    let errors = reply.json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A credential that is no longer good gets this and nothing more.
fn assert_dead(client: &Client) {
    let reply = client.get("/v1/me", 401);
    assert_eq!(reply.problem(), "invalid-token");
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer error=\"invalid_token\""));
}

#[test]
fn signing_up_and_in_answer_with_the_tenant_the_person_and_a_pair_of_tokens() {
    let world = World::start();
    let up = sign_up(&world.client, "acme", "Ann@Acme.Example", PASSWORD);
    assert_eq!(up.status, 201, "{}", up.text());
    let back = sign_in(&world.client, "acme", " ANN@acme.example ", PASSWORD);
    assert_eq!(back.status, 200, "{}", back.text());
    for reply in [&up, &back] {
        let json = reply.json();
        let members: Vec<_> = json.as_object().expect("an object").keys().cloned().collect();
        let expected =
            ["access_token", "expires_in", "refresh_token", "tenant", "token_type", "user"];
        let mut members = members;
        members.sort();
        assert_eq!(members, expected);
        assert_eq!(json["token_type"], "Bearer");
        assert_eq!(json["expires_in"], 900);
        assert_eq!(json["tenant"]["slug"], "acme");
        assert_eq!(json["user"]["email"], "ann@acme.example");
        assert_eq!(json["user"]["role"], "owner");
        assert!(reply.str("/tenant/id").starts_with("tn_"));
        assert!(reply.str("/user/id").starts_with("us_"));
        let me = world.client.with_token(&reply.str("/access_token")).get("/v1/me", 200);
        assert_eq!(me.str("/id"), reply.str("/user/id"));
        assert_eq!(me.str("/tenant/id"), reply.str("/tenant/id"));
    }
    assert_ne!(up.str("/refresh_token"), back.str("/refresh_token"));
}

#[test]
fn a_wrong_password_an_unknown_address_and_an_unknown_tenant_get_the_same_answer() {
    let world = World::start();
    world.tenant("acme");
    let ask = |tenant, email| sign_in(&world.client, tenant, email, "not the password");
    let wrong = ask("acme", "owner@acme.example");
    assert_eq!((wrong.status, wrong.problem().as_str()), (401, "bad-credentials"));
    let others = [
        ask("acme", "nobody@acme.example"),
        ask("acme", "no address at all"),
        ask("nowhere", "owner@acme.example"),
        ask("NOT A SLUG", "owner@acme.example"),
        ask("platform", "owner@acme.example"),
        ask("", ""),
    ];
    for other in others {
        assert_eq!(other.essence(), wrong.essence());
    }
    // A right password of another tenant's person is as good as none.
    let foreign = sign_in(&world.client, "platform", "owner@acme.example", PASSWORD);
    assert_eq!(foreign.essence(), wrong.essence());
}

#[test]
fn a_refresh_token_works_once_and_ends_the_whole_family_when_it_comes_back() {
    let world = World::start();
    let acme = world.tenant("acme");
    let other_session = world.sign_in("acme", "owner@acme.example");
    let second = refresh(&world.client, &acme.refresh_token);
    assert_eq!(second.status, 200, "{}", second.text());
    let third = refresh(&world.client, &second.str("/refresh_token"));
    let newest = world.client.with_token(&third.str("/access_token"));
    newest.get("/v1/me", 200);
    // Rotation alone ends no access token; each runs out by itself.
    acme.owner.get("/v1/me", 200);

    let reused = refresh(&world.client, &acme.refresh_token);
    assert_eq!((reused.status, reused.problem().as_str()), (401, "bad-credentials"));
    for dead in [&acme.owner, &newest] {
        assert_dead(dead);
    }
    let newest_refresh = refresh(&world.client, &third.str("/refresh_token"));
    assert_eq!(newest_refresh.essence(), reused.essence());

    // Another session of the same person goes on, and sees what happened.
    let entries = other_session.get("/v1/audit?action=refresh.reuse", 200).json();
    let items = entries["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1, "{entries}");
    assert_eq!(items[0]["outcome"], "failed");
    assert_eq!(items[0]["actor"]["email"], "owner@acme.example");
    assert_eq!(items[0]["detail"]["generation"], 0);
}

#[test]
fn texts_that_are_no_refresh_token_of_ours_are_refused_alike() {
    let world = World::start();
    let acme = world.tenant("acme");
    let token = &acme.refresh_token;
    let mut last_changed = token.clone();
    let last = if last_changed.pop() == Some('A') { 'B' } else { 'A' };
    last_changed.push(last);
    let access = acme.owner.token.clone().expect("a token");
    let shorter = &token[..token.len() - 4];
    let texts =
        ["", "bkr_", "bkr_AAAA", access.as_str(), &token[4..], shorter, last_changed.as_str()];
    let first = refresh(&world.client, texts[0]);
    assert_eq!((first.status, first.problem().as_str()), (401, "bad-credentials"));
    for text in texts {
        assert_eq!(refresh(&world.client, text).essence(), first.essence(), "{text}");
    }
    assert_eq!(refresh(&world.client, token).status, 200);
}

#[test]
fn of_two_refreshes_at_the_same_moment_exactly_one_wins() {
    let world = World::start();
    let acme = world.tenant("acme");
    let replies = at_once(8, |_| refresh(&world.client, &acme.refresh_token).status);
    let won = replies.iter().filter(|status| **status == 200).count();
    let lost = replies.iter().filter(|status| **status == 401).count();
    assert_eq!((won, lost), (1, 7), "{replies:?}");
    // The losers' token was one that came back, so nobody keeps the session.
    assert_dead(&acme.owner);
}

#[test]
fn signing_out_ends_the_token_at_once_and_for_good() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("data");
    let mut world = WorldOptions::default().data(&dir).start();
    let acme = world.tenant("acme");
    let kept = world.sign_in("acme", "owner@acme.example");
    acme.owner.act("/v1/auth/sign-out", 204);
    assert_dead(&acme.owner);
    assert_eq!(refresh(&world.client, &acme.refresh_token).status, 401);
    world.stop();
    let world = WorldOptions::default().data(&dir).start();
    let token = |client: &Client| client.token.clone().expect("a token");
    assert_dead(&world.client.with_token(&token(&acme.owner)));
    assert_eq!(refresh(&world.client, &acme.refresh_token).status, 401);
    world.client.with_token(&token(&kept)).get("/v1/me", 200);
}

#[test]
fn people_see_and_end_their_own_sessions_and_nobody_elses() {
    let world = World::start();
    let acme = world.tenant("acme");
    let member = world.member(&acme, "member");
    let phone = world.sign_in("acme", "owner@acme.example");
    let tablet = world.sign_in("acme", "owner@acme.example");
    let sessions = |client: &Client| -> Vec<Value> {
        client.get("/v1/me/sessions", 200).json()["items"].as_array().expect("a list").clone()
    };
    let current = |client: &Client| -> String {
        let list = sessions(client);
        let mut own = list.iter().filter(|session| session["current"] == true);
        let id = own.next().expect("a current session")["id"].as_str().expect("an id").to_owned();
        assert!(own.next().is_none(), "two current sessions");
        id
    };
    assert_eq!((sessions(&phone).len(), sessions(&member).len()), (3, 1));
    let shown = &sessions(&phone)[0];
    assert_eq!(shown["ip"], "127.0.0.1");
    assert!(shown["expires_at"].as_str() > shown["created_at"].as_str());

    phone.delete(&format!("/v1/me/sessions/{}", current(&member)), 404);
    member.get("/v1/me", 200);
    phone.delete(&format!("/v1/me/sessions/{}", current(&tablet)), 204);
    assert_dead(&tablet);
    phone.delete("/v1/me/sessions", 204);
    assert_dead(&acme.owner);
    assert_eq!(sessions(&phone).len(), 1);
    member.get("/v1/me", 200);
}

#[test]
fn a_change_of_role_counts_from_the_next_message_on() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, id) = world.member_named(&acme, "ann", "admin");
    ann.get("/v1/audit", 200);
    let body = json!({"tenant": "acme", "email": "ann@acme.example", "password": PASSWORD});
    let session = world.client.post("/v1/auth/sign-in", body, 200);
    acme.owner.patch(&format!("/v1/members/{id}"), json!({"role": "viewer"}), 200);
    assert_dead(&ann);
    assert_eq!(ann.get("/v1/audit", 401).problem(), "invalid-token");
    // The session goes on, with the new rights.
    let refreshed = refresh(&world.client, &session.str("/refresh_token"));
    assert_eq!(refreshed.str("/user/role"), "viewer");
    let ann = world.client.with_token(&refreshed.str("/access_token"));
    assert_eq!(ann.get("/v1/audit", 403).problem(), "forbidden");
    // A stale token is stale whatever it asks for, also what its old role could not do.
    acme.owner.patch(&format!("/v1/members/{id}"), json!({"role": "member"}), 200);
    assert_dead(&ann);
    let place = format!("/v1/forms/{}/submissions", acme.form("Leave"));
    let refused = ann.post(&place, json!({"data": {"name": "x"}}), 401);
    assert_eq!(refused.problem(), "invalid-token");
}

#[test]
fn a_person_who_was_removed_is_nobody_at_once() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (ann, id) = world.member_named(&acme, "ann", "member");
    let body = json!({"tenant": "acme", "email": "ann@acme.example", "password": PASSWORD});
    let tokens = world.client.post("/v1/auth/sign-in", body, 200);
    acme.owner.delete(&format!("/v1/members/{id}"), 204);
    assert_dead(&ann);
    assert_eq!(refresh(&world.client, &tokens.str("/refresh_token")).status, 401);
    assert_eq!(sign_in(&world.client, "acme", "ann@acme.example", PASSWORD).status, 401);
    acme.owner.get(&format!("/v1/members/{id}"), 404);
    // The address is free again, for another person.
    let again = world.member_named(&acme, "ann", "viewer");
    assert_ne!(again.1, id);
}

#[test]
fn a_new_password_ends_the_other_sessions_and_every_older_token() {
    let world = World::start();
    let acme = world.tenant("acme");
    let phone = world.sign_in("acme", "owner@acme.example");
    let change =
        |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    let wrong = acme.owner.patch("/v1/me/password", change("not it at all", "a new secret"), 422);
    assert_eq!(pointers(&wrong), ["/current_password"]);
    let short = acme.owner.patch("/v1/me/password", change(PASSWORD, "short"), 422);
    assert_eq!(pointers(&short), ["/new_password"]);
    phone.get("/v1/me", 200);

    let tokens = acme.owner.patch("/v1/me/password", change(PASSWORD, "a new secret"), 200);
    for dead in [&phone, &acme.owner] {
        assert_dead(dead);
    }
    let changed = world.client.with_token(&tokens.str("/access_token"));
    changed.get("/v1/me", 200);
    assert_eq!(refresh(&world.client, &tokens.str("/refresh_token")).status, 200);
    // Whoever comes with the token from before the change has a copy: the session ends.
    assert_eq!(refresh(&world.client, &acme.refresh_token).status, 401);
    assert_dead(&changed);
    assert_eq!(sign_in(&world.client, "acme", "owner@acme.example", PASSWORD).status, 401);
    assert_eq!(sign_in(&world.client, "acme", "owner@acme.example", "a new secret").status, 200);
}

#[test]
fn one_address_in_two_tenants_is_two_people() {
    let world = World::start();
    let address = "ann@example.org";
    let ada = sign_up(&world.client, "ada", address, "the password of ada");
    let bob = sign_up(&world.client, "bob", address, "the password of bob");
    assert_eq!((ada.status, bob.status), (201, 201));
    assert_ne!(ada.str("/user/id"), bob.str("/user/id"));
    assert_eq!(sign_in(&world.client, "ada", address, "the password of bob").status, 401);
    let back = sign_in(&world.client, "bob", address, "the password of bob");
    assert_eq!(back.str("/tenant/slug"), "bob");
    // A role in one is no role in the other.
    let bob_owner = world.client.with_token(&back.str("/access_token"));
    let body = json!({"email": "vic@example.org", "role": "viewer", "password": PASSWORD});
    bob_owner.post("/v1/members", body.clone(), 201);
    assert_eq!(bob_owner.post("/v1/members", body, 409).problem(), "email-taken");
    assert_eq!(sign_in(&world.client, "ada", "vic@example.org", PASSWORD).status, 401);
}
