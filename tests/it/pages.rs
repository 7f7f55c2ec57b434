//! What people see, in a real browser: the pages behind mailed links, and every page on a narrow screen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulkhead::http::problem::{KINDS, Kind};
use bulkhead::http::routes::ROUTES;
use serde_json::json;

use crate::kit::{
    Browser, Client, PASSWORD, Reply, Tenant, TestClock, World, WorldOptions, eventually, link_in,
    written,
};

/// A node whose mails are files, and where they are.
struct Post {
    world: World,
    clock: Arc<TestClock>,
    data: PathBuf,
    _home: tempfile::TempDir,
}

impl Post {
    fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let data = home.path().join("data");
        let clock = TestClock::new();
        let world = WorldOptions::default()
            .set("signup.verify_email", true)
            .clock(clock.clone())
            .data(&data)
            .start();
        Self { world, clock, data, _home: home }
    }

    /// The link that was mailed to `to` last and leads to that page.
    fn link(&self, tenant: &Tenant, to: &str, page: &str) -> String {
        link_to(&self.data, tenant, to, page)
    }
}

fn link_to(data: &Path, tenant: &Tenant, to: &str, page: &str) -> String {
    eventually("a written mail", || {
        let mails = written(data, &tenant.id);
        let (at, head) = (format!("/account/{page}#"), format!("To: {to}"));
        let mail = mails.iter().rev().find(|mail| mail.contains(&head) && mail.contains(&at))?;
        Some(link_in(mail, page))
    })
}

fn read(client: &Client, token: &str) -> Reply {
    client.call("POST", "/v1/auth/links/read", Some(&json!({"token": token})))
}

#[test]
fn whoever_holds_a_link_that_counts_learns_what_it_is_for_and_nobody_else_learns_anything() {
    let post = Post::start();
    let (world, client) = (&post.world, &post.world.client);
    let acme = world.tenant("acme");
    let other = world.tenant("other");
    let body = json!({"email": "bob@bob.example", "role": "admin"});
    let invite = acme.owner.post("/v1/invites", body, 201);
    let token = post.link(&acme, "bob@bob.example", "invite");
    let told = read(client, &token);
    assert_eq!(told.status, 200, "{}", told.text());
    let name = acme.owner.get("/v1/tenant", 200).str("/name");
    assert_eq!(
        told.json(),
        json!({
            "kind": "invite", "tenant": {"slug": "acme", "name": name}, "role": "admin",
            "expires_at": invite.str("/expires_at"),
        })
    );
    let owner = "owner@acme.example";
    client.post("/v1/auth/password/forgot", json!({"tenant": "acme", "email": owner}), 202);
    for page in ["verify", "reset"] {
        let told = read(client, &post.link(&acme, owner, page)).json();
        assert_eq!((&told["kind"], &told["role"]), (&json!(page), &json!(null)));
        assert_eq!(told["tenant"]["slug"], "acme");
    }

    // Used, withdrawn, over, changed, of nobody: all alike.
    let nonsense = read(client, "bkt_AAAA");
    assert_eq!((nonsense.status, nonsense.problem().as_str()), (400, "invalid-link"));
    let body = json!({"token": token, "password": PASSWORD});
    client.post("/v1/auth/invites/accept", body, 201);
    let body = json!({"email": "eve@eve.example", "role": "viewer"});
    let id = other.owner.post("/v1/invites", body, 201).str("/id");
    let withdrawn = post.link(&other, "eve@eve.example", "invite");
    read(client, &withdrawn).json();
    other.owner.delete(&format!("/v1/invites/{id}"), 204);
    let reset = post.link(&acme, owner, "reset");
    assert_eq!(read(client, &reset).status, 200);
    post.clock.advance(Duration::from_secs(60 * 60));
    let swapped = reset.replace("bkt_", "bkt_A");
    let changed = format!("{}AAAA", &reset[..reset.len() - 4]);
    for bad in [token, withdrawn, reset, swapped, changed, String::new()] {
        assert_eq!(read(client, &bad).essence(), nonsense.essence(), "{bad}");
    }
    assert_eq!(client.call("GET", "/v1/auth/links/read", None).status, 405, "in bodies only");
}

#[test]
fn the_pages_behind_mailed_links_name_the_organisation_the_role_and_the_end() {
    let Some(browser) = Browser::start() else { return };
    let post = Post::start();
    let world = &post.world;
    let acme = world.tenant("acme");
    acme.owner.patch("/v1/tenant", json!({"name": "Acme <b>& Sons</b>"}), 200);
    let body = json!({"email": "bob@bob.example", "role": "member"});
    acme.owner.post("/v1/invites", body, 201);
    let token = post.link(&acme, "bob@bob.example", "invite");
    let page = |name: &str, token: &str| format!("{}/account/{name}#{token}", world.client.base);

    browser.open(&page("invite", &token));
    browser.read("Acme <b>& Sons</b> invites you to join as member. The invitation ends on");
    browser.dress(375, true);
    browser.read("Organisation to name when you sign in: acme");
    let (page_width, window) = browser.widths();
    assert!(page_width <= window, "{page_width} in {window}");
    browser.fill(&json!({"password": PASSWORD}));
    browser.press("Accept the invitation");
    let (url, _) = browser.read("You are a member now");
    assert!(!url.contains("bkt_"), "{url}");
    browser.follow("Sign in");
    let (url, _) = browser.read("Organisation");
    assert!(url.ends_with("/account/sign-in?tenant=acme"), "{url}");

    // What was used, and what leads elsewhere, shows no form and no name.
    browser.open(&page("invite", &token));
    let said = browser.said("The link is not valid");
    assert!(!said.contains("Acme") && !said.contains("Accept the invitation"), "{said}");
    let verify = post.link(&acme, "owner@acme.example", "verify");
    browser.open(&page("reset", &verify));
    let said = browser.said("The link is for another page");
    assert!(!said.contains("Acme") && !said.contains("Set the password"), "{said}");
    browser.open(&page("verify", &verify));
    browser.read("It is your address at Acme <b>& Sons</b>");
    browser.press("Confirm the address");
    browser.read("Your address is confirmed.");
    let body = json!({"tenant": "acme", "email": "bob@bob.example"});
    world.client.post("/v1/auth/password/forgot", body, 202);
    browser.open(&page("reset", &post.link(&acme, "bob@bob.example", "reset")));
    browser.read("It is for your account at Acme <b>& Sons</b>");
}

/// The kinds of problem with the longest code, title and explanation.
fn longest_problems() -> [&'static Kind; 3] {
    let longest =
        |of: fn(&Kind) -> &str| *KINDS.iter().max_by_key(|kind| of(kind).len()).expect("a kind");
    [longest(|kind| kind.code), longest(|kind| kind.title), longest(|kind| kind.docs)]
}

/// Every page that the node has for people, and those of its operators.
fn pages(world: &World) -> Vec<String> {
    let (base, ops) = (world.client.base.as_str(), world.ops.base.as_str());
    let mut pages = Vec::new();
    for route in ROUTES.iter().filter(|route| {
        route.answer.is_some_and(|answer| answer.media == Some("text/html"))
            || ["/", "/problems", "/problems/{code}"].contains(&route.path)
    }) {
        match route.path {
            "/account/{page}" => pages.extend(
                ["invite", "reset", "verify", "sign-in", "sign-in?problem=identity-not-linked"]
                    .map(|page| format!("{base}/account/{page}")),
            ),
            "/problems/{code}" => pages
                .extend(longest_problems().map(|kind| format!("{base}/problems/{}", kind.code))),
            path => {
                assert!(!path.contains('{'), "name the pages of {path} here");
                pages.push(format!("{base}{path}"));
            }
        }
    }
    assert!(pages.len() >= 11, "{pages:?}");
    pages.extend(["/actors", "/actors/acme"].map(|path| format!("{ops}{path}")));
    pages
}

#[test]
fn no_page_is_wider_than_a_telephone_and_none_shows_a_backtick() {
    let Some(browser) = Browser::start() else { return };
    let world = World::start();
    world.tenant("acme");
    world.tenant(&format!("a{}", "-rather-long-name".repeat(2)));
    for url in pages(&world) {
        browser.open(&url);
        for (dark, look) in [(false, "light"), (true, "dark")] {
            browser.dress(375, dark);
            let (page, window) = browser.widths();
            assert_eq!(window, 375, "{url}");
            assert!(page <= window, "{url}, {look}: {page} pixels wide");
            let place = url.split_once("//").map_or("", |(_, rest)| rest);
            let place = place.split_once('/').map_or("", |(_, path)| path);
            if !place.starts_with("problems/") {
                browser.shoot(&format!("{look}-{}", place.replace(['/', '?', '='], "-")));
            }
        }
        let shown = browser.said(if url.contains("/actors") { "actors" } else { "Bulkhead" });
        assert!(!shown.contains('`'), "{url}: {shown}");
    }
}
