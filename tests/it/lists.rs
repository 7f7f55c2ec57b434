//! Lists: filters find what is there, order is order, and pages show everything exactly once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{Client, TestClock, World, WorldOptions};

/// Everything a list holds, page by page.
fn all(client: &Client, path: &str, query: &str, limit: usize) -> Vec<Value> {
    let query = if query.is_empty() { String::new() } else { format!("&{query}") };
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}?limit={limit}{query}{cursor}"), 200).json();
        let items = page["items"].as_array().expect("a list");
        assert!(items.len() <= limit, "a page of {}", items.len());
        found.extend(items.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => {
                assert!(!items.is_empty(), "an empty page with a next one");
                cursor = format!("&cursor={next}");
            }
            None => return found,
        }
    }
}

fn ids(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

fn texts(items: &[Value], member: &str) -> Vec<String> {
    items.iter().map(|item| item[member].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn forms_are_listed_in_every_order_once_each() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let titles = ["pear", "Apple", "fig", "apple pie", "Banana", "élan", "Fig"];
    let made: Vec<_> = titles
        .iter()
        .map(|title| {
            clock.advance(Duration::from_millis(2));
            acme.form(title)
        })
        .collect();
    clock.advance(Duration::from_millis(2));
    acme.owner.patch(
        &format!("/v1/forms/{}", made[2]),
        json!({"approval": {"required": true}}),
        200,
    );
    acme.owner.act(&format!("/v1/forms/{}/archive", made[4]), 200);

    for limit in [1, 2, 3, 7, 200] {
        let list = |query: &str| all(&acme.owner, "/v1/forms", query, limit);
        assert_eq!(ids(&list("sort=created_at")), made);
        let mut newest = made.clone();
        newest.reverse();
        assert_eq!(ids(&list("sort=-created_at")), newest);
        let by_title = texts(&list("sort=title"), "title");
        let mut expected: Vec<_> = titles.iter().map(|it| it.to_lowercase()).collect();
        expected.sort();
        let folded: Vec<_> = by_title.iter().map(|title| title.to_lowercase()).collect();
        assert_eq!(folded, expected);
        let mut reversed = texts(&list("sort=-title"), "title");
        reversed.reverse();
        assert_eq!(reversed, by_title);
        assert_eq!(
            ids(&list("sort=-updated_at"))[..2].iter().collect::<BTreeSet<_>>(),
            BTreeSet::from([&made[2], &made[4]])
        );
        assert_eq!(list("sort=updated_at").len(), made.len());
        assert_eq!(ids(&list("status=archived")), [made[4].clone()]);
        assert_eq!(list("status=active&q=FIG").len(), 2);
        assert_eq!(list("q=apple&sort=title").len(), 2);
        assert_eq!(list("q=nothing").len(), 0);
    }
    // Lists leave the schema out.
    assert!(all(&acme.owner, "/v1/forms", "sort=title", 50)[0].get("schema").is_none());
}

#[test]
fn a_list_that_grows_while_it_is_read_shows_nothing_twice_and_skips_nothing() {
    let world = World::start();
    let acme = world.tenant("acme");
    let form = acme.form("Leave");
    let place = format!("/v1/forms/{form}/submissions");
    let before: Vec<_> =
        (0..6).map(|it| acme.submit(&acme.owner, &form, &it.to_string())).collect();
    for (sort, sees_new) in [("created_at", true), ("-created_at", false)] {
        let first = acme.owner.get(&format!("{place}?sort={sort}&limit=3"), 200).json();
        let new = acme.submit(&acme.owner, &form, "new");
        let cursor = first["next_cursor"].as_str().expect("more");
        let mut found = ids(first["items"].as_array().expect("a list"));
        let rest = acme.owner.get(&format!("{place}?sort={sort}&limit=200&cursor={cursor}"), 200);
        found.extend(ids(rest.json()["items"].as_array().expect("a list")));
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "something twice");
        assert!(before.iter().all(|id| found.contains(id)), "something skipped");
        assert_eq!(found.contains(&new), sees_new, "{sort}");
    }
}

#[test]
fn submissions_are_filtered_by_status_author_and_time() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let acme = world.tenant("acme");
    let (ann, ann_id) = world.member_named(&acme, "ann", "member");
    let (form, other) = (acme.form("Leave"), acme.form("Other"));
    let place = format!("/v1/forms/{form}/submissions");
    let mut made = Vec::new();
    for number in 0..8 {
        clock.advance(Duration::from_secs(1));
        let author = if number % 2 == 0 { &ann } else { &acme.owner };
        made.push(acme.submit(author, &form, &number.to_string()));
        acme.submit(author, &other, "elsewhere");
    }
    for id in [&made[0], &made[2]] {
        acme.owner.act(&format!("{place}/{id}/approve"), 200);
    }
    ann.act(&format!("{place}/{}/reject", made[1]), 200);
    let at =
        |index: usize| acme.owner.get(&format!("{place}/{}", made[index]), 200).str("/created_at");
    let (early, late) = (at(2), at(6));
    for limit in [1, 3, 200] {
        let list = |query: &str| ids(&all(&acme.owner, &place, query, limit));
        let wanted =
            |indices: &[usize]| -> Vec<_> { indices.iter().map(|at| made[*at].clone()).collect() };
        assert_eq!(list("sort=created_at"), made);
        assert_eq!(list("sort=-created_at&status=approved"), wanted(&[2, 0]));
        assert_eq!(list("status=rejected"), wanted(&[1]));
        assert_eq!(list("status=submitted"), wanted(&[3, 4, 5, 6, 7]));
        assert_eq!(list(&format!("created_by={ann_id}")), wanted(&[0, 2, 4, 6]));
        assert_eq!(
            list(&format!("created_by={ann_id}&status=submitted&sort=-created_at")),
            wanted(&[6, 4])
        );
        assert_eq!(
            list(&format!("created_after={early}&created_before={late}")),
            wanted(&[3, 4, 5])
        );
        assert_eq!(list(&format!("created_after={early}&created_by={ann_id}")), wanted(&[4, 6]));
        assert_eq!(list("status=draft"), wanted(&[]));
    }
}

#[test]
fn pages_of_large_submissions_end_by_bytes_and_show_each_once() {
    const PAGE_BYTES_MAX: usize = 1024 * 1024;
    let world = World::start();
    let acme = world.tenant("acme");
    let form = acme.form("Essays");
    let place = format!("/v1/forms/{form}/submissions");
    let essay = "x".repeat(250_000);
    let made: Vec<_> = (0..12).map(|_| acme.submit(&acme.owner, &form, &essay)).collect();
    let item_bytes = acme.owner.get(&format!("{place}/{}", made[0]), 200).body.len();
    for sort in ["created_at", "-created_at"] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = acme.owner.get(&format!("{place}?sort={sort}&limit=200{cursor}"), 200);
            let envelope_bytes = 256;
            assert!(page.body.len() <= PAGE_BYTES_MAX + item_bytes + envelope_bytes);
            let json = page.json();
            found.extend(ids(json["items"].as_array().expect("a list")));
            pages += 1;
            match json["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if sort.starts_with('-') {
            found.reverse();
        }
        assert_eq!((found, pages), (made.clone(), 3), "{sort}");
    }
    assert_eq!(ids(&all(&acme.owner, &place, "sort=created_at", 1)), made);
    assert_eq!(all(&acme.owner, &place, "status=approved", 1).len(), 0);
}

#[test]
fn a_customer_sees_their_own_records_and_no_trace_of_others() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (cus, cus_id) = world.member_named(&acme, "cus", "customer");
    let form = acme.form("Support");
    let place = format!("/v1/forms/{form}/submissions");
    let foreign = acme.submit(&acme.owner, &form, "not theirs");
    let own: Vec<_> = (0..3).map(|it| acme.submit(&cus, &form, &it.to_string())).collect();
    acme.submit(&acme.owner, &form, "not theirs either");
    assert_eq!(ids(&all(&cus, &place, "sort=created_at", 1)), own);
    assert_eq!(ids(&all(&cus, &place, &format!("created_by={cus_id}"), 2)), own);
    assert_eq!(all(&cus, &place, &format!("created_by={}", acme.owner_id), 2).len(), 0);
    // Where another's record lies on the way, no cursor says so.
    assert_eq!(cus.get(&format!("{place}?limit=3"), 200).json()["next_cursor"], Value::Null);
    let absent = cus.get(&format!("{place}/sb_{}", "0123456789abcdef".repeat(2)), 404);
    assert_eq!(cus.get(&format!("{place}/{foreign}"), 404).essence(), absent.essence());
    cus.get(&format!("{place}/{foreign}/comments"), 404);
    cus.patch(&format!("{place}/{foreign}"), json!({"data": {"name": "mine"}}), 404);
    cus.patch(&format!("{place}/{}", own[0]), json!({"data": {"name": "changed"}}), 200);
}

#[test]
fn every_list_refuses_cursors_and_parameters_that_are_not_its_own() {
    let world = World::start();
    let acme = world.tenant("acme");
    let form = acme.form("One");
    acme.form("Two");
    for number in 0..2 {
        world.member_named(&acme, &format!("m{number}"), "viewer");
        acme.submit(&acme.owner, &form, &number.to_string());
        acme.owner.post("/v1/teams", json!({"name": format!("Team {number}")}), 201);
        let source = json!({"source": "github", "name": format!("Source {number}")});
        acme.owner.post("/v1/integrations", source, 201);
    }
    let submissions = format!("/v1/forms/{form}/submissions");
    for path in
        ["/v1/forms", "/v1/members", "/v1/teams", "/v1/integrations", "/v1/audit", &submissions]
    {
        let whole = ids_or_seqs(&all(&acme.owner, path, "", 200));
        assert_eq!(ids_or_seqs(&all(&acme.owner, path, "", 1)), whole, "{path}");
        assert!(whole.len() >= 2, "{path}");
        for bad in
            ["cursor=", "cursor=!!", "cursor=AAAA", "limit=0", "limit=201", "limit=x", "page=2"]
        {
            let reply = acme.owner.get(&format!("{path}?{bad}"), 422);
            let name = bad.split('=').next().expect("a name");
            assert_eq!(reply.str("/errors/0/pointer"), format!("query/{name}"), "{path}?{bad}");
        }
    }
    // A cursor of one order is none of another.
    let page = acme.owner.get("/v1/forms?sort=title&limit=1", 200).json();
    let cursor = page["next_cursor"].as_str().expect("more");
    for sort in ["created_at", "updated_at"] {
        acme.owner.get(&format!("/v1/forms?sort={sort}&cursor={cursor}"), 422);
    }
    acme.owner.get("/v1/forms?sort=color", 422);
    acme.owner.get(&format!("{submissions}?sort=title"), 422);
    acme.owner.get(&format!("{submissions}?created_after=yesterday"), 422);
}

fn ids_or_seqs(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| item.get("id").unwrap_or(&item["seq"]).to_string()).collect()
}
