//! Password hashes cost a core for a while: nobody spends other people's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::kit::{PASSWORD, World, at_once};

const FLOOD: usize = 64;
/// People who want to get in at the same moment, and the tenants they are of.
const ENTERING: usize = 200;
const TENANTS: usize = 10;

#[test]
fn people_sign_in_while_another_tenant_adds_more_people_than_it_may_at_once() {
    let world = World::start();
    let (quiet, loud) = (world.tenant("quiet"), world.tenant("loud"));
    let statuses = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            at_once(FLOOD, |number| {
                let email = format!("p{number}@loud.example");
                let body = json!({"email": email, "role": "viewer", "password": PASSWORD});
                let reply = loud.owner.call("POST", "/v1/members", Some(&body));
                if reply.status == 429 {
                    assert_eq!(reply.problem(), "tenant-busy");
                    assert!(reply.header("retry-after").is_some());
                }
                reply.status
            })
        });
        let email = format!("owner@{}.example", quiet.slug);
        let body = json!({"tenant": quiet.slug, "email": email, "password": PASSWORD});
        for _ in 0..10 {
            world.client.post("/v1/auth/sign-in", body.clone(), 200);
        }
        flood.join().expect("a flood that ends")
    });
    let mut counts = BTreeMap::new();
    for status in statuses {
        *counts.entry(status).or_insert(0_usize) += 1;
    }
    assert!(counts.get(&201).is_some_and(|&added| added > 0), "{counts:?}");
    assert!(counts.keys().all(|status| [201, 429].contains(status)), "{counts:?}");
}

#[test]
fn of_two_hundred_who_sign_in_at_once_some_are_told_to_come_back_and_all_get_in() {
    let world = World::start();
    let quiet = world.tenant("quiet");
    let slugs: Vec<_> = (0..TENANTS).map(|number| format!("busy-{number}")).collect();
    slugs.iter().for_each(|slug| drop(world.tenant(slug)));
    let (entered, waits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            at_once(ENTERING, |number| {
                let slug = &slugs[number % TENANTS];
                let email = format!("owner@{slug}.example");
                let body = json!({"tenant": slug, "email": email, "password": PASSWORD});
                loop {
                    let reply = world.client.call("POST", "/v1/auth/sign-in", Some(&body));
                    if reply.status == 200 {
                        entered.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    let told = reply.header("retry-after").is_some();
                    assert!([429, 503].contains(&reply.status) && told, "{}", reply.text());
                    waits.fetch_add(1, Ordering::SeqCst);
                    // As impatient as can be: whoever waited as told would have it easier.
                    std::thread::yield_now();
                }
            })
        });
        // Those who are in already are served meanwhile, again and again.
        while entered.load(Ordering::SeqCst) < ENTERING {
            quiet.owner.get("/v1/me", 200);
        }
    });
    let waits = waits.into_inner();
    println!("sign-ins: {ENTERING} at once, all got in, {waits} times somebody was told to wait");
    assert!(waits > 0, "nobody had to wait: there is no bound");
}

#[test]
fn who_cannot_be_added_is_refused_for_what_it_is_however_many_ask() {
    let world = World::start();
    let acme = world.tenant("acme");
    let taken = json!({"email": "owner@acme.example", "role": "viewer", "password": PASSWORD});
    // More than may be hashed at once: were one of them hashed first, one would be told to wait.
    let replies = at_once(FLOOD, |_| acme.owner.call("POST", "/v1/members", Some(&taken)));
    for reply in replies {
        assert_eq!((reply.status, reply.problem().as_str()), (409, "email-taken"));
    }
}

#[test]
fn a_repeated_request_gets_its_first_answer_and_not_that_the_address_is_taken() {
    let world = World::start();
    let acme = world.tenant("acme");
    let keyed = acme.owner.with_header("idempotency-key", "once");
    let body = json!({"email": "bob@acme.example", "role": "viewer", "password": PASSWORD});
    let first = keyed.post("/v1/members", body.clone(), 201).str("/id");
    assert_eq!(keyed.post("/v1/members", body.clone(), 201).str("/id"), first);
    assert_eq!(acme.owner.post("/v1/members", body, 409).problem(), "email-taken");
}

#[test]
fn an_owner_is_made_with_their_tenant_or_refused_for_what_is_wrong_with_it() {
    let world = World::start();
    world.tenant("acme");
    let admin = world.platform_admin();
    let owner = json!({"email": "eve@evil.example", "password": PASSWORD});
    let create =
        |slug: &str, plan: &str| json!({"slug": slug, "name": "A", "plan": plan, "owner": owner});
    let keyed = admin.with_header("idempotency-key", "once");
    let first = keyed.post("/v1/platform/tenants", create("other", "pro"), 201).str("/id");
    assert_eq!(keyed.post("/v1/platform/tenants", create("other", "pro"), 201).str("/id"), first);
    let taken = admin.post("/v1/platform/tenants", create("acme", "pro"), 409);
    assert_eq!(taken.problem(), "slug-taken");
    admin.post("/v1/platform/tenants", create("third", "no-such-plan"), 422);
    let body = json!({"tenant": "other", "email": "eve@evil.example", "password": PASSWORD});
    world.client.post("/v1/auth/sign-in", body, 200);
}
