//! Exports that a tenant's own people ask for over HTTP.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Exported, Furnished, Operator, audit, node_a, node_b, text};
use crate::kit::{Client, TestClock, exported};

/// Every exported bundle in a node's archive.
fn kept(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        // One that was just removed holds nothing any more.
        let Ok(entries) = fs::read_dir(&folder) else {
            assert!(!folder.exists(), "{}", folder.display());
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "bundle") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn an_owner_exports_fetches_and_another_node_takes_it_up() {
    let (a, b) = (node_a().start(), node_b().start());
    let furnished = Furnished::on(&a);
    let owner = &furnished.tenant.owner;
    let asking = owner.with_header("idempotency-key", "one-export");
    let asked = asking.act("/v1/tenant/exports", 202);
    let id = asked.str("/id");
    let place = format!("/v1/tenant/exports/{id}");
    assert_eq!(asked.header("location"), Some(place.as_str()));
    assert!(asked.header("cache-control").is_some_and(|it| it.contains("no-store")));
    let again = asking.act("/v1/tenant/exports", 202);
    assert_eq!((again.str("/id"), again.str("/key")), (id.clone(), asked.str("/key")));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));

    let done = exported(owner, &id);
    assert_eq!(done.str("/status"), "done", "{}", done.text());
    assert!(!done.text().contains(&asked.str("/key")) && !done.text().contains("bundle-key"));
    let content = owner.get(&format!("{place}/content"), 200);
    assert_eq!(content.header("content-type"), Some("application/octet-stream"));
    let wanted = format!("attachment; filename=\"{id}.bundle\"");
    assert_eq!(content.header("content-disposition"), Some(wanted.as_str()));
    assert_eq!(json!(content.body.len()), done.json()["bytes"]);
    assert_eq!(kept(&a.dir).len(), 1, "one export, one object, nothing left of the work on it");

    let at_b = Operator::of(&b.dir);
    let (bundle, key) = (at_b.file("fetched.bundle"), at_b.file("fetched.key"));
    fs::write(&bundle, &content.body).expect("a file");
    fs::write(&key, asked.str("/key")).expect("a file");
    let report = at_b.json(&["tenant", "inspect-bundle", text(&bundle)]);
    assert_eq!(report["content_hash"], done.json()["content_hash"]);
    let fetched = Exported { bundle, key, report };
    let made = at_b.json(&fetched.import(&[]));
    assert_eq!(made["content_hash"], done.json()["content_hash"]);
    let there = b.sign_in("acme", "owner@acme.example");
    assert_eq!(furnished.seen(&there), furnished.seen(owner));
    // What belongs to the old place did not come along.
    there.get(&place, 404);

    let log = audit(owner);
    let actions: Vec<_> = log.iter().map(|entry| entry["action"].as_str().unwrap_or("")).collect();
    assert_eq!(actions.iter().filter(|action| **action == "tenant.export").count(), 1);
    assert_eq!(actions.iter().filter(|action| **action == "tenant.export_fetch").count(), 1);
    assert!(!json!(log).to_string().contains(&asked.str("/key")), "the key is in the audit log");
}

#[test]
fn only_owners_and_admins_export_and_only_so_many() {
    let world = node_a().start();
    let (acme, other) = (world.tenant("acme"), world.tenant("other"));
    let (admin, member) = (world.member(&acme, "admin"), world.member(&acme, "member"));
    member.act("/v1/tenant/exports", 403);
    let asked = admin.act("/v1/tenant/exports", 202);
    let place = format!("/v1/tenant/exports/{}", asked.str("/id"));
    exported(&acme.owner, &asked.str("/id"));
    for path in [place.clone(), format!("{place}/content")] {
        member.get(&path, 403);
        other.owner.get(&path, 404);
    }
    member.get("/v1/tenant/exports", 403);
    assert_eq!(ids(&other.owner, ""), Vec::<String>::new());
    acme.owner.get("/v1/tenant/exports/ex_0", 404);
    let mut made = vec![asked.str("/id")];
    made.extend((1..10).map(|_| acme.owner.act("/v1/tenant/exports", 202).str("/id")));
    let refused = acme.owner.act("/v1/tenant/exports", 409);
    assert_eq!(refused.problem(), "too-many-exports");

    made.reverse();
    assert_eq!(ids(&admin, ""), made, "newest first");
    assert_eq!(ids(&acme.owner, "?limit=3"), made, "page by page");
    let listed = acme.owner.get("/v1/tenant/exports?limit=200", 200);
    let last = &listed.json()["items"][9];
    assert_eq!((&last["id"], &last["status"]), (&asked.json()["id"], &json!("done")));
    assert!(!listed.text().contains("bundle-key"), "{}", listed.text());
}

/// The ids of all exports, as the pages of that size show them.
fn ids(reader: &Client, query: &str) -> Vec<String> {
    let (mut found, mut place) = (Vec::new(), format!("/v1/tenant/exports{query}"));
    loop {
        let page = reader.get(&place, 200).json();
        let items = page["items"].as_array().expect("a list");
        found.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => place = format!("/v1/tenant/exports{query}&cursor={next}"),
            None => return found,
        }
    }
}

#[test]
fn an_export_is_kept_for_a_week_and_then_gone() {
    let clock = TestClock::new();
    let world = node_a().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let first = acme.owner.act("/v1/tenant/exports", 202).str("/id");
    assert_eq!(exported(&acme.owner, &first).str("/status"), "done");
    let second = acme.owner.act("/v1/tenant/exports", 202).str("/id");
    exported(&acme.owner, &second);
    assert_eq!(kept(&world.dir).len(), 2);
    clock.advance_days(7);
    let owner = world.sign_in("acme", "owner@acme.example");
    owner.get(&format!("/v1/tenant/exports/{first}/content"), 404);
    crate::kit::eventually("an export that is removed", || {
        (kept(&world.dir).len() == 1).then_some(())
    });
    assert_eq!(ids(&owner, ""), Vec::<String>::new());
    crate::kit::eventually("what the list met is removed", || {
        kept(&world.dir).is_empty().then_some(())
    });
    let third = owner.act("/v1/tenant/exports", 202).str("/id");
    assert_eq!(exported(&owner, &third).str("/status"), "done");
    crate::kit::eventually("an export that is removed", || {
        (kept(&world.dir).len() == 1).then_some(())
    });
    owner.get(&format!("/v1/tenant/exports/{second}"), 404);
    owner.get(&format!("/v1/tenant/exports/{third}/content"), 200);
}
