//! A tenant as it shows itself, beside the model: row by row, and entry by entry.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::House;
use super::book::{Form, Submission};
use crate::kit::{Client, Tally};

/// Everything on a list, over as many pages as it takes.
fn all(reader: &Client, place: &str, query: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = reader.get(&format!("{place}?limit=200{query}{cursor}"), 200).json();
        found.extend(page["items"].as_array().expect("a list").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Compares every form, submission, comment and person.
pub fn rows(house: &House, tally: &mut Tally) {
    let (owner, slug) = (&house.tenant.owner, &house.tenant.slug);
    let mut forms = BTreeMap::new();
    for status in ["active", "archived"] {
        for form in all(owner, "/v1/forms", &format!("&status={status}")) {
            let id = text(&form["id"]);
            let submissions = submissions(house, &id);
            let found = Form {
                title: text(&form["title"]),
                version: form["version"].as_u64().unwrap_or_default(),
                is_archived: status == "archived",
                submissions,
            };
            if forms.insert(id.clone(), found).is_some() {
                tally.duplicate(format!("{slug}: {id} is on two lists"));
            }
        }
    }
    for (id, wanted) in &house.book.forms {
        match forms.remove(id) {
            Some(found) => compare_form(slug, id, &found, wanted, tally),
            None => tally.lost(format!("{slug}: {id} is gone; it was {wanted:?}")),
        }
    }
    for id in forms.keys() {
        tally.duplicate(format!("{slug}: nobody has asked for {id}"));
    }
    people(house, tally);
}

fn compare_form(slug: &str, id: &str, found: &Form, wanted: &Form, tally: &mut Tally) {
    let card = |form: &Form| (form.title.clone(), form.version, form.is_archived);
    if card(found) != card(wanted) {
        let (found, wanted) = (card(found), card(wanted));
        tally.lost(format!("{slug}: {id} is {found:?}, not {wanted:?}"));
    }
    for (at, wanted) in &wanted.submissions {
        let found = found.submissions.get(at);
        if found != Some(wanted) {
            tally.lost(format!("{slug}: {at} to {id} is {found:?}, not {wanted:?}"));
        }
    }
    for at in found.submissions.keys().filter(|at| !wanted.submissions.contains_key(*at)) {
        tally.duplicate(format!("{slug}: nobody has asked for {at} to {id}"));
    }
}

fn submissions(house: &House, form: &str) -> BTreeMap<String, Submission> {
    let owner = &house.tenant.owner;
    let known = house.book.forms.get(form);
    let one = |item: Value| {
        let id = text(&item["id"]);
        let commented = known.and_then(|form| form.submissions.get(&id));
        let place = format!("/v1/forms/{form}/submissions/{id}/comments");
        let mut comments: Vec<_> = match commented {
            Some(wanted) if wanted.comments.is_empty() => Vec::new(),
            _ => all(owner, &place, "").iter().map(|comment| text(&comment["text"])).collect(),
        };
        comments.sort();
        let status = match item["status"].as_str() {
            Some("submitted") => "submitted",
            Some("approved") => "approved",
            _ => "another",
        };
        let version = item["version"].as_u64().unwrap_or_default();
        (id, Submission { name: text(&item["data"]["name"]), version, status, comments })
    };
    let place = format!("/v1/forms/{form}/submissions");
    all(owner, &place, "&sort=created_at").into_iter().map(one).collect()
}

fn people(house: &House, tally: &mut Tally) {
    let slug = &house.tenant.slug;
    let mut found: BTreeMap<_, _> = all(&house.tenant.owner, "/v1/members", "")
        .into_iter()
        .map(|item| (text(&item["id"]), item))
        .collect();
    for (id, wanted) in &house.book.members {
        let item = found.remove(id).unwrap_or_default();
        let is_same = item["email"] == json!(wanted.email)
            && item["role"] == json!(wanted.role)
            && item["version"] == json!(wanted.version);
        if !is_same {
            tally.lost(format!("{slug}: {id} is {item}, not {wanted:?}"));
        }
    }
    // The founder and the deputy.
    if found.len() != 2 {
        tally.duplicate(format!("{slug}: people nobody has asked for: {:?}", found.keys()));
    }
}

/// Compares the count of successful entries of each kind, and has the chain verified. How many there are.
pub fn audit(house: &House, tally: &mut Tally) -> u64 {
    let (owner, slug) = (&house.tenant.owner, &house.tenant.slug);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let entries = all(owner, "/v1/audit", "&sort=seq");
    for (at, entry) in entries.iter().enumerate() {
        if entry["seq"].as_u64() != Some(at as u64 + 1) {
            tally.gap(format!("{slug}: entry {} is {entry}", at + 1));
            break;
        }
        if entry["outcome"] == json!("success") {
            *counts.entry(text(&entry["action"])).or_default() += 1;
        }
    }
    for (action, wanted) in &house.book.audit {
        let found = counts.remove(*action).unwrap_or_default();
        match found.cmp(wanted) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Less => {
                tally.lost(format!("{slug}: {found} entries of {action}, and {wanted} changes"));
            }
            std::cmp::Ordering::Greater => {
                tally.duplicate(format!(
                    "{slug}: {found} entries of {action}, and {wanted} changes"
                ));
            }
        }
    }
    let others = ["tenant.create", "sign_in", "sign_up"];
    if let Some((action, _)) = counts.iter().find(|(action, _)| !others.contains(&action.as_str()))
    {
        tally.duplicate(format!("{slug}: entries of {action}, and no such change"));
    }
    let verified = owner.get("/v1/audit/verify", 200).json();
    if verified["ok"] != json!(true) || verified["entries"] != json!(entries.len()) {
        tally.gap(format!("{slug}: {} entries, and the chain: {verified}", entries.len()));
    }
    entries.len() as u64
}
