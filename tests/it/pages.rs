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
    pages.extend(["/nothing", "/v1/me", "/v1/forms?x=y"].map(|path| format!("{base}{path}")));
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

/// What browsers send when somebody opens an address.
const OPENS: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[test]
fn who_opens_an_address_and_is_refused_gets_a_page_and_programs_get_the_problem() {
    let world = World::start();
    let (acme, other) = (world.tenant("acme"), world.tenant("other"));
    let viewer = world.member_named(&acme, "viewer", "viewer").0;
    let browse = |who: &Client| who.with_header("accept", OPENS);
    let (person, insider) = (browse(&world.client), browse(&acme.owner));
    let absent = "/v1/forms/fm_0123456789abcdef0123456789abcdef";
    for (who, path, status, says) in [
        (&world.client, "/nothing", 404, "Nothing is here"),
        (&world.client, "/docs/", 404, "Nothing is here"),
        (&world.client, "/account/other", 404, "Nothing is here"),
        (&world.client, "/v1/me", 401, "Sign in first"),
        (&acme.owner, absent, 404, "Nothing is here"),
        (&viewer, "/v1/audit", 403, "You may not see this"),
        (&world.client, "/docs?x=y", 422, "This cannot be shown"),
        (&world.client, "/v1/auth/sign-in", 405, "Nothing to look at"),
    ] {
        let page = browse(who).get(path, status);
        let media = ["content-type", "vary"].map(|name| page.header(name).unwrap_or_default());
        assert_eq!(media, ["text/html; charset=utf-8", "accept"], "{path}");
        let (text, policy) = (page.text(), page.header("content-security-policy"));
        assert!(text.contains(says) && !text.contains("<script"), "{path}: {text}");
        assert!(policy.is_some_and(|policy| policy.contains("style-src 'self'")), "{path}");
        assert_eq!(page.header("x-frame-options"), Some("DENY"), "{path}");
        for accept in ["*/*", "application/json", "application/json, text/html;q=0.9"] {
            let program = who.with_header("accept", accept).get(path, status);
            assert_eq!(program.header("content-type"), Some("application/problem+json"), "{path}");
            let vary = (!path.starts_with("/v1/")).then_some("accept");
            assert_eq!(program.header("vary"), vary, "{path}");
        }
    }
    let page = person.get("/v1/me", 401);
    assert!(page.header("www-authenticate").is_some(), "the status means what it says");
    assert!(page.text().contains("href=\"/account/sign-in?return_to=%2Fv1%2Fme\""));
    // What is another's looks like what is absent, to people too.
    let foreign = format!("/v1/forms/{}", other.form("F"));
    assert_eq!(insider.get(&foreign, 404).essence(), insider.get(absent, 404).essence());
    // Who changes something is a program, and SCIM has a form of its own.
    assert_eq!(person.call("DELETE", "/docs", None).problem(), "method-not-allowed");
    let scim = person.get("/scim/v2/Users", 401);
    assert_eq!(scim.header("content-type"), Some("application/scim+json"));
    assert!(!person.get("/%3Cscript%3E?%3Cb%3E", 404).text().contains("script"));
}

#[test]
fn browsers_find_a_picture_where_they_look_for_one() {
    let world = World::start();
    let icon = world.client.get("/favicon.ico", 200);
    assert_eq!(icon.header("content-type"), Some("image/svg+xml"));
    assert_eq!(icon.header("cache-control"), Some("public, max-age=2592000"));
    let known = world.client.with_header("if-none-match", icon.header("etag").expect("an ETag"));
    known.get("/favicon.ico", 304);
    assert_eq!(world.ops.get("/favicon.ico", 200).text(), icon.text());
    for page in ["/docs", "/account/sign-in"] {
        assert!(world.client.get(page, 200).text().contains("href=\"/favicon.ico\""), "{page}");
    }
}

#[test]
fn looking_at_what_a_link_is_for_costs_none_of_the_few_uses() {
    let options = WorldOptions::default().set("rate.recover.per_ip", "2/1h");
    let world = options.start();
    let use_up = || {
        let body = json!({"token": "none"});
        world.client.call("POST", "/v1/auth/email/verify", Some(&body)).status
    };
    for _ in 0..5 {
        assert_eq!(read(&world.client, "none").status, 400);
    }
    assert_eq!([use_up(), use_up(), use_up()], [400, 400, 429]);
}
