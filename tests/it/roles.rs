//! The capability matrix, called route by route and role by role, compared with the table it is made from.

use actors::permit::Role;
use bulkhead::http::routes::Access;

use crate::kit::{Client, Fixture, PASSWORD, Tenant, World, ends_the_caller, in_walking_order};

/// A token of `role`, new if the route would end it.
fn caller(world: &World, tenant: &Tenant, role: Role, kept: &Client, is_ended: bool) -> Client {
    if !is_ended {
        return kept.clone();
    }
    match role {
        Role::PlatformAdmin => world.sign_in("platform", "root@platform.example"),
        _ => world.sign_in(&tenant.slug, &format!("{}@{}.example", role.name(), tenant.slug)),
    }
}

#[test]
fn every_role_may_do_what_the_matrix_says_and_nothing_else() {
    let world = World::start();
    let tenant = world.tenant("acme");
    let submitter = world.member_named(&tenant, "submitter", "member").0;
    let people: Vec<(Role, Client)> = Role::ALL
        .into_iter()
        .map(|role| match role {
            Role::Owner => (role, tenant.owner.clone()),
            Role::PlatformAdmin => (role, world.platform_admin()),
            _ => (role, world.member(&tenant, role.name())),
        })
        .collect();
    let mut cases = 0;
    for (at, route) in in_walking_order() {
        let Access::Tenant(capability) = route.access else { continue };
        for (step, (role, client)) in people.iter().enumerate() {
            let serial = at * 10 + step;
            // A refusal does not need anything to work on, and must come before it is looked for.
            let is_allowed = capability.roles.contains(*role);
            let fixture = if is_allowed && *role != Role::PlatformAdmin {
                Fixture::of(&world, &tenant, &submitter, route, serial)
            } else {
                Fixture::absent(serial)
            };
            let ended = ends_the_caller(route);
            let client = caller(&world, &tenant, *role, client, ended);
            let reply = fixture.call(route, &client);
            let what = format!("{route} as {role}: {} {}", reply.status, reply.text());
            if is_allowed {
                // Own-records and access-list rules may still hide the thing; the role itself may not.
                let is_own_rule = reply.status == 403
                    && ["own-submission", "forbidden"].contains(&reply.problem().as_str())
                    && route.params().next().is_some();
                assert!(reply.status < 500 && reply.status != 401, "{what}");
                assert!(reply.status != 403 || is_own_rule, "{what}");
            } else {
                assert_eq!(reply.status, 403, "{what}");
            }
            if route.id == "me.change-password" && reply.status == 200 {
                let back = serde_json::json!({"current_password": "another correct horse", "new_password": PASSWORD});
                world.client.with_token(&reply.str("/access_token")).patch(
                    "/v1/me/password",
                    back,
                    200,
                );
            }
            cases += 1;
        }
    }
    println!("roles: {cases} cases, 0 differences");
}

#[test]
fn the_published_matrix_is_the_one_that_is_checked() {
    let world = World::start();
    let published = world.client.get("/v1/meta/capabilities", 200).json();
    let text = published.to_string();
    for capability in actors::permit::CAPABILITIES {
        assert!(text.contains(capability.name), "{} is not published", capability.name);
    }
}
