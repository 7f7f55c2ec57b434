//! Who may be provisioned as what, and what becomes of those who are switched off.

use super::*;

/// What a person without any rights here gets: nothing that tells one thing from another.
fn signed_in(world: &World, tenant: &Tenant, email: &str, password: &str) -> Reply {
    let body = json!({"tenant": tenant.slug, "email": email, "password": password});
    world.client.call("POST", "/v1/auth/sign-in", Some(&body))
}

fn switch(by: &Client, id: &str, active: Value) -> Reply {
    let reply = patch(
        by,
        &format!("Users/{id}"),
        json!([{"op": "replace", "path": "active", "value": active}]),
    );
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

#[test]
fn a_person_who_is_switched_off_is_out_at_the_next_request_and_comes_back_whole() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    let (ann, id) = world.member_named(&acme, "ann", "admin");
    let own_key = api_key(&ann, &["forms:read"]).0;
    let email = "ann@acme.example";
    let unknown = signed_in(&world, &acme, "nobody@acme.example", PASSWORD);
    own_key.get("/v1/forms", 200);

    let reply = switch(&key, &id, json!("False"));
    assert_eq!(reply.json()["active"], false);
    ann.get("/v1/me", 401);
    assert_eq!(own_key.get("/v1/forms", 401).problem(), "invalid-token");
    let shut_out = signed_in(&world, &acme, email, PASSWORD);
    assert_eq!(shut_out.essence(), unknown.essence(), "being switched off is told");
    let listed = acme.owner.get(&format!("/v1/members/{id}"), 200).json();
    assert_eq!((&listed["active"], &listed["role"]), (&json!(false), &json!("admin")));
    // She keeps her place, and cannot be made what a tenant always has one of.
    assert_eq!(acme.owner.get("/v1/usage", 200).json()["quotas"]["members"]["used"], 2);
    let place = format!("/v1/members/{id}");
    let promoted = acme.owner.patch(&place, json!({"role": "owner"}), 422);
    assert_eq!(promoted.str("/errors/0/pointer"), "/role");
    acme.owner.post("/v1/tenant/transfer", json!({"to": id}), 422);

    // A key that could not have made her an administrator does not let her in as one again either.
    let back = json!([{"op": "replace", "path": "active", "value": true}]);
    assert_eq!(refused(&patch(&key, &format!("Users/{id}"), back)).0, 403);
    let wide = api_key(&acme.owner, &Scopes::all().names().collect::<Vec<_>>()).0;
    assert_eq!(switch(&wide, &id, json!("True")).json()["active"], true);
    ann.get("/v1/me", 401);
    own_key.get("/v1/forms", 200);
    assert_eq!(signed_in(&world, &acme, email, PASSWORD).status, 200);
    let log = acme.owner.get("/v1/audit?action=scim.user_update", 200).json();
    let newest = &log["items"][0];
    assert_eq!(newest["actor"]["kind"], "api-key");
    assert_eq!(newest["detail"]["active"], true);
    assert_eq!(log["items"][2]["detail"]["sessions_ended"], 1, "{log}");
}

#[test]
fn going_back_in_time_lets_nobody_in_who_was_switched_off_since() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    let (_, id) = world.member_named(&acme, "ann", "member");
    let before = actors::env::rfc3339(world.now_ms());
    switch(&key, &id, json!(false));
    crate::kit::restore_to(&acme.owner, &before);
    let owner = world.sign_in("acme", "owner@acme.example");
    assert_eq!(owner.get(&format!("/v1/members/{id}"), 200).json()["active"], false);
    assert_eq!(signed_in(&world, &acme, "ann@acme.example", PASSWORD).status, 401);
}

#[test]
fn a_directory_gives_roles_up_to_member_and_more_only_with_all_that_the_role_can_do() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    let wide = api_key(&acme.owner, &Scopes::all().names().collect::<Vec<_>>()).0;
    let body = |name: &str, role: &str| json!({"schemas": [USER], "userName": format!("{name}@acme.example"), "roles": [{"value": role}]});
    for (role, narrow_may, wide_may) in [
        ("viewer", true, true),
        ("member", true, true),
        ("admin", false, true),
        ("owner", false, false),
    ] {
        for (who, client, may) in [("narrow", &key, narrow_may), ("wide", &wide, wide_may)] {
            let reply =
                client.call("POST", "/scim/v2/Users", Some(&body(&format!("{who}-{role}"), role)));
            if may {
                assert_eq!(reply.status, 201, "{who} {role}: {}", reply.text());
                let member = acme.owner.get(&format!("/v1/members/{}", reply.str("/id")), 200);
                assert_eq!(member.str("/role"), role);
            } else {
                assert_eq!(refused(&reply).0, 403, "{who} {role}");
            }
        }
    }
    // An address is as good as the account: who cannot make an administrator cannot become one by it.
    let admin = world.member_named(&acme, "ann", "admin").1;
    let address = json!([{"op": "replace", "path": "userName", "value": "eve@evil.example"}]);
    assert_eq!(refused(&patch(&key, &format!("Users/{admin}"), address.clone())).0, 403);
    assert_eq!(patch(&wide, &format!("Users/{admin}"), address).status, 200);
    assert_eq!(signed_in(&world, &acme, "eve@evil.example", PASSWORD).status, 200);
    assert_eq!(signed_in(&world, &acme, "ann@acme.example", PASSWORD).status, 401);
    // But it can shut one out and remove one, because people leave.
    switch(&key, &admin, json!(false));
    key.delete(&format!("/scim/v2/Users/{admin}"), 204);
    key.get(&format!("/scim/v2/Users/{admin}"), 404);
    acme.owner.get(&format!("/v1/members/{admin}"), 404);
}

#[test]
fn a_key_says_what_people_become_whom_nobody_gives_a_role() {
    let world = World::start();
    let acme = world.tenant("acme");
    let body = json!({"name": "Directory", "scopes": ["scim:write"], "provisions_as": "viewer"});
    let made = acme.owner.post("/v1/api-keys", body, 201);
    assert_eq!(made.str("/provisions_as"), "viewer");
    let key = acme.owner.with_token(&made.str("/key"));
    let role = |id: &str| acme.owner.get(&format!("/v1/members/{id}"), 200).str("/role");
    assert_eq!(role(&provision(&key, "bob@acme.example")), "viewer");
    let place = format!("/v1/api-keys/{}", made.str("/id"));
    acme.owner.patch(&place, json!({"provisions_as": "customer"}), 200);
    assert_eq!(role(&provision(&key, "cy@acme.example")), "customer");
    acme.owner.patch(&place, json!({"provisions_as": "owner"}), 422);
    let usual = directory(&acme);
    let dan = provision(&usual, "dan@acme.example");
    assert_eq!(role(&dan), "member");
    // Replacing what is known of somebody says nothing of their role, unless it does.
    let place = format!("/scim/v2/Users/{dan}");
    let replaced = |more: Value| {
        let mut body = json!({"schemas": [USER], "userName": "dan@acme.example"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        usual.put(&place, body, 200).json()
    };
    acme.owner.patch(&format!("/v1/members/{dan}"), json!({"role": "customer"}), 200);
    assert_eq!(replaced(json!({"displayName": "Dan"}))["roles"], json!([{"value": "customer"}]));
    assert_eq!(replaced(json!({"roles": ["viewer"]}))["roles"], json!([{"value": "viewer"}]));
    assert_eq!(role(&dan), "viewer");
    assert_eq!(replaced(json!({}))["displayName"], Value::Null);
}

#[test]
fn owners_are_not_a_directorys_and_the_last_one_stays() {
    let world = World::start();
    let acme = world.tenant("acme");
    let wide = api_key(&acme.owner, &Scopes::all().names().collect::<Vec<_>>()).0;
    let place = format!("Users/{}", acme.owner_id);
    let off = json!([{"op": "replace", "value": {"active": false}}]);
    assert_eq!(refused(&patch(&wide, &place, off.clone())).0, 409);
    let removed = wide.call("DELETE", &format!("/scim/v2/{place}"), None);
    assert_eq!((refused(&removed).0, removed.problem()), (409, "last-owner".to_owned()));
    // Saying again what is so is no change.
    let same = json!({"schemas": [USER], "userName": "OWNER@acme.example", "active": true});
    wide.put(&format!("/scim/v2/{place}"), same, 200);
    world.member_named(&acme, "second", "owner");
    for operation in [off, json!([{"op": "add", "path": "displayName", "value": "Boss"}])] {
        assert_eq!(refused(&patch(&wide, &place, operation)).0, 403);
    }
    assert_eq!(refused(&wide.call("DELETE", &format!("/scim/v2/{place}"), None)).0, 403);
    acme.owner.get("/v1/me", 200);
}

#[test]
fn the_plan_holds_for_whoever_is_provisioned() {
    let world = WorldOptions::default().set("plans.pro.members", 2).start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    let bob = provision(&key, "bob@acme.example");
    let body = json!({"schemas": [USER], "userName": "cy@acme.example"});
    let over = key.call("POST", "/scim/v2/Users", Some(&body));
    assert_eq!((refused(&over).0, over.problem()), (402, "plan-quota".to_owned()));
    assert!(over.str("/detail").contains("members") && over.str("/detail").contains('2'));
    switch(&key, &bob, json!(false));
    assert_eq!(refused(&key.call("POST", "/scim/v2/Users", Some(&body))).0, 402);
    key.delete(&format!("/scim/v2/Users/{bob}"), 204);
    key.post("/scim/v2/Users", body, 201);
}

#[test]
fn no_tenant_provisions_finds_or_puts_into_a_team_anybody_of_another() {
    let world = World::start();
    let (ada, bob) = (world.tenant("ada"), world.tenant("bob"));
    let (of_ada, of_bob) = (directory(&ada), directory(&bob));
    let ann = provision(&of_ada, "ann@example.org");
    // One address may be in many tenants.
    let other = provision(&of_bob, "ann@example.org");
    let team = json!({"schemas": [], "displayName": "Team", "members": [{"value": ann}]});
    let refusal = of_bob.call("POST", "/scim/v2/Groups", Some(&team));
    assert_eq!(refused(&refusal), (400, "invalidValue".to_owned()));
    let nobody = refusal.text().replace(&ann, "");
    let absent = json!({"schemas": [], "displayName": "Team", "members": [{"value": format!("us_{}", "0".repeat(32))}]});
    assert_eq!(of_bob.call("POST", "/scim/v2/Groups", Some(&absent)).text(), nobody);
    let mine = of_ada.post("/scim/v2/Groups", team, 201);
    for (place, theirs) in
        [(format!("Users/{ann}"), "Users"), (format!("Groups/{}", mine.str("/id")), "Groups")]
    {
        for method in ["GET", "DELETE"] {
            let foreign = of_bob.call(method, &format!("/scim/v2/{place}"), None);
            let prefix = if theirs == "Users" { "us" } else { "tm" };
            let none = format!("/scim/v2/{theirs}/{prefix}_{}", "0".repeat(32));
            assert_eq!(
                foreign.essence(),
                of_bob.call(method, &none, None).essence(),
                "{method} {place}"
            );
            assert_eq!(refused(&foreign).0, 404);
        }
    }
    assert_eq!(found(&of_bob, &format!("id eq \"{ann}\"")), Vec::<String>::new());
    assert_eq!(found(&of_bob, &format!("id eq \"{other}\"")), ["ann@example.org"]);
    let all = of_bob.get("/scim/v2/Users", 200);
    assert!(!all.text().contains(&ann) && !all.text().contains("ada.example"));
    let read = of_ada.get(&format!("/scim/v2/Users/{ann}"), 200).json();
    assert_eq!(read["groups"][0]["display"], "Team");
}
