//! Tests of the feed: pages, filters, a form's trail, and the check of what is shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_bytes::ByteBuf;
use storage::id::{FormId, Id, SessionId, TenantId, UserId};
use storage::keys::Key;
use storage::shard::Shard;
use storage::store::Store;
use storage::value;

use super::{AuditFilter, Found, ListAudit, ListFormAudit, ReadEntry, VERIFY_ROWS, VerifyOwnAudit};
use crate::audit::chain::{self, Flaw};
use crate::audit::entry::{Draft, Entry, Named, Outcome};
use crate::call::{Origin, Page, Paging};
use crate::permit::{Carrier, Principal, Role, UserPrincipal};
use crate::quota::Plan;
use crate::tenant::acl::{FormGrant, Holder, Level};
use crate::tenant::cache::Caches;
use crate::tenant::cx::{Query, ReadCx};
use crate::tenant::error::TenantError;
use crate::tenant::forms::{FormRow, FormStatus};
use crate::tenant::state::TenantState;

struct Stage {
    shard: Shard,
    state: TenantState,
    runtime: tokio::runtime::Runtime,
}

const NODE: Principal = Principal::System("test");

fn form(n: u64) -> FormId {
    FormId::new(n, [1; 10])
}

fn user(n: u64) -> UserId {
    UserId::new(n, [2; 10])
}

fn person(n: u64, role: Role) -> Principal {
    let session = SessionId::new(1, [3; 10]);
    Principal::User(Arc::new(UserPrincipal {
        user: user(n),
        session,
        role,
        authz: 1,
        carrier: Carrier::Token,
    }))
}

impl Stage {
    fn new() -> Self {
        let tenant = TenantId::new(1, [7; 10]);
        let store = Store::in_memory().unwrap();
        store.create_tenant(tenant).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let shard = store.own_shard(tenant).unwrap();
        Self { shard, state: TenantState::default(), runtime }
    }

    fn commit(&mut self, rows: Vec<(Key, Vec<u8>)>) {
        let mut txn = self.shard.txn();
        for (key, row) in rows {
            txn.put(&key, row).unwrap();
        }
        let sealed = self.shard.seal(txn.finish(), 1).unwrap();
        self.runtime.block_on(self.shard.append(&sealed));
        self.shard.confirm(sealed);
    }

    /// One record with one entry for each action; every entry is about the form, if there is one.
    fn record(&mut self, at_ms: u64, actions: &[&'static str], about: Option<FormId>) {
        let origin = Origin { request_id: Some(format!("r{at_ms}").into()), ..Origin::default() };
        let mut entries = Vec::new();
        for (n, action) in actions.iter().enumerate() {
            let draft = match about {
                Some(form) => {
                    Draft::success(action, Named::new("form", form)).with("form", form.to_string())
                }
                None if n % 2 == 1 => Draft::refused(action, Named::new("team", n)),
                None => Draft::success(action, Named::new("team", n)),
            };
            let actor = Named::new("user", user(at_ms % 3));
            entries.push(chain::append(&mut self.state.audit, at_ms, actor, &origin, draft));
        }
        let seq = entries[0].seq;
        let mut rows = vec![(Key::Audit { seq }, value::encode(&entries))];
        rows.extend(about.map(|form| (Key::AuditTrail { form, seq }, Vec::new())));
        self.commit(rows);
    }

    fn make_form(&mut self, id: FormId, grants: Vec<FormGrant>) {
        let row = FormRow {
            title: "T".to_owned(),
            status: FormStatus::Active,
            approval_required: false,
            grants,
            created_by: user(1),
            created_ms: 1,
            updated_ms: 1,
            version: 1,
            schema_revision: 1,
            json: ByteBuf::new(),
        };
        self.commit(vec![(Key::Form { id }, value::encode(&row))]);
    }

    fn ask<Q: Query>(&self, principal: &Principal, query: Q) -> Result<Q::Reply, TenantError> {
        query.run(&mut ReadCx {
            shard: &self.shard,
            state: &self.state,
            principal,
            caches: &mut Caches::default(),
            plan: &Plan::default(),
            now_ms: 1,
        })
    }

    /// The sequence numbers of all pages, and how many pages there were.
    fn feed(&self, filter: &AuditFilter, limit: usize, oldest_first: bool) -> (Vec<u64>, usize) {
        let (mut seqs, mut pages, mut cursor) = (Vec::new(), 0, None);
        loop {
            let (filter, paging) = (filter.clone(), Paging { limit, cursor });
            let list = ListAudit { filter, paging, oldest_first };
            let page = self.ask(&NODE, list).unwrap().page;
            assert!(page.items.len() <= limit);
            seqs.extend(entries(&page).iter().map(|entry| entry.seq));
            pages += 1;
            cursor = page.next;
            if cursor.is_none() {
                return (seqs, pages);
            }
        }
    }

    fn seqs(&self, filter: AuditFilter) -> Vec<u64> {
        self.feed(&filter, 50, true).0
    }
}

fn entries(page: &Page) -> Vec<Entry> {
    page.items.iter().map(|json| serde_json::from_slice(json).unwrap()).collect()
}

/// Records of one to five entries, 45 entries in all.
fn busy() -> Stage {
    let mut stage = Stage::new();
    let actions = ["form.create", "form.update", "team.create", "sign_in", "member.add"];
    for n in 0..15_u64 {
        let about = (n % 3 == 0).then(|| form(n % 2));
        stage.record(1_000 + n, &actions[..1 + n as usize % 5], about);
    }
    stage
}

#[test]
fn pages_of_any_size_show_every_entry_once_in_both_orders() {
    let stage = busy();
    let all: Vec<u64> = (1..=45).collect();
    let reversed: Vec<u64> = all.iter().rev().copied().collect();
    for limit in [1, 2, 3, 7, 44, 45, 50] {
        let filter = AuditFilter::default();
        assert_eq!(stage.feed(&filter, limit, true).0, all, "oldest first, {limit} a page");
        assert_eq!(stage.feed(&filter, limit, false).0, reversed, "newest first, {limit} a page");
    }
}

#[test]
fn each_filter_takes_exactly_the_entries_it_describes() {
    let stage = busy();
    let all = entries(&{
        let paging = Paging { limit: 50, cursor: None };
        let list = ListAudit { filter: AuditFilter::default(), paging, oldest_first: true };
        stage.ask(&NODE, list).unwrap().page
    });
    let check = |filter: AuditFilter, takes: &dyn Fn(&Entry) -> bool| {
        let expected: Vec<u64> =
            all.iter().filter(|entry| takes(entry)).map(|entry| entry.seq).collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{filter:?} shows nothing");
        assert_eq!(stage.seqs(filter.clone()), expected, "{filter:?}");
        for oldest_first in [true, false] {
            let (paged, _) = stage.feed(&filter, 2, oldest_first);
            assert_eq!(BTreeSet::from_iter(paged), BTreeSet::from_iter(expected.clone()));
        }
    };
    let base = AuditFilter::default;
    let text = |text: &str| Some(text.to_owned());
    check(AuditFilter { action: text("form.update"), ..base() }, &|e| e.action == "form.update");
    check(AuditFilter { action: text("form.*"), ..base() }, &|e| e.action.starts_with("form."));
    let actor = Some(user(1).to_string());
    check(AuditFilter { actor: actor.clone(), ..base() }, &|e| Some(&e.actor.id) == actor.as_ref());
    check(AuditFilter { target_kind: text("team"), ..base() }, &|e| e.target.kind == "team");
    check(AuditFilter { target: text("2"), ..base() }, &|e| e.target.id == "2");
    let outcome = Some(Outcome::Refused);
    check(AuditFilter { outcome, ..base() }, &|e| e.outcome == Outcome::Refused);
    check(AuditFilter { request_id: text("r1004"), ..base() }, &|e| {
        e.request_id.as_deref() == Some("r1004")
    });
    let (from_ms, until_ms) = (Some(1_003), Some(1_006));
    check(AuditFilter { from_ms, until_ms, ..base() }, &|e| {
        e.at.as_str() >= "1970-01-01T00:00:01.003Z" && e.at.as_str() < "1970-01-01T00:00:01.006Z"
    });
    check(AuditFilter { form: Some(form(1)), ..base() }, &|e| e.target.id == form(1).to_string());
}

#[test]
fn a_forms_trail_is_the_tenants_feed_filtered_and_only_for_those_who_may() {
    let mut stage = busy();
    stage.make_form(form(0), Vec::new());
    let grant = |holder, level| FormGrant { holder, level };
    let grants = vec![
        grant(Holder::User(user(1)), Level::Owner),
        grant(Holder::User(user(2)), Level::Editor),
    ];
    stage.make_form(form(1), grants);
    let ask = |principal: &Principal, id| {
        let paging = Paging { limit: 50, cursor: None };
        let list = ListFormAudit { form: id, paging, oldest_first: true };
        stage
            .ask(principal, list)
            .map(|list| entries(&list.page).iter().map(|entry| entry.seq).collect::<Vec<_>>())
    };
    let filter = |form| AuditFilter { form: Some(form), ..AuditFilter::default() };
    let open = stage.seqs(filter(form(0)));
    assert_eq!(ask(&person(9, Role::Admin), form(0)).unwrap(), open);
    let member = ask(&person(9, Role::Member), form(0));
    assert!(matches!(member, Err(TenantError::Forbidden { action: "forms:audit" })));

    let restricted = stage.seqs(filter(form(1)));
    assert_eq!(ask(&person(1, Role::Member), form(1)).unwrap(), restricted);
    assert!(matches!(ask(&person(2, Role::Member), form(1)), Err(TenantError::Forbidden { .. })));
    assert!(matches!(ask(&person(9, Role::Member), form(1)), Err(TenantError::NotFound)));
    assert!(matches!(ask(&person(1, Role::Owner), form(7)), Err(TenantError::NotFound)));
}

#[test]
fn one_entry_is_found_by_its_number_and_others_are_absent() {
    let stage = busy();
    for seq in 1..=45 {
        let Found::Here(document) = stage.ask(&NODE, ReadEntry { seq }).unwrap() else {
            panic!("entry {seq} is in no archive");
        };
        let entry: Entry = serde_json::from_slice(&document.json).unwrap();
        assert_eq!(entry.seq, seq);
    }
    for seq in [0, 46, u64::MAX] {
        assert!(matches!(stage.ask(&NODE, ReadEntry { seq }), Err(TenantError::NotFound)));
    }
}

#[test]
fn a_made_up_cursor_is_refused() {
    let stage = busy();
    for cursor in ["", "x", "AAAA", "AAAAAAAAAAAAAAAAAAAAAA"] {
        let paging = Paging { limit: 5, cursor: Some(cursor.to_owned()) };
        let list = ListAudit { filter: AuditFilter::default(), paging, oldest_first: false };
        match stage.ask(&NODE, list) {
            Err(TenantError::Invalid(errors)) => assert_eq!(errors[0].pointer, "query/cursor"),
            other => panic!("{cursor}: {other:?}"),
        }
    }
}

fn verify(stage: &Stage) -> (u64, Option<(u64, Flaw)>) {
    let mut from = TenantState::default().audit;
    loop {
        let step = stage.ask(&NODE, VerifyOwnAudit { from }).unwrap();
        if step.is_done {
            return (step.head.seq, step.broken.map(|broken| (broken.seq, broken.what)));
        }
        from = step.head;
    }
}

#[test]
fn the_feed_is_checked_in_steps_and_every_change_of_a_row_is_found() {
    let mut stage = Stage::new();
    for n in 0..VERIFY_ROWS as u64 + 3 {
        stage.record(n, &["sign_in"], None);
    }
    let last = VERIFY_ROWS as u64 + 3;
    assert_eq!(verify(&stage), (last, None));

    let row = stage.shard.get(&Key::Audit { seq: last - 1 }).unwrap().unwrap();
    let mut entries: Vec<Entry> = value::decode(&row).unwrap();
    entries[0].outcome = Outcome::Failed;
    stage.commit(vec![(Key::Audit { seq: last - 1 }, value::encode(&entries))]);
    assert_eq!(verify(&stage), (last - 2, Some((last - 1, Flaw::Edited))));

    stage.commit(vec![(Key::Audit { seq: last - 1 }, row.to_vec())]);
    assert_eq!(verify(&stage), (last, None));
    stage.state.audit.seq += 1;
    assert_eq!(verify(&stage), (last, Some((last + 1, Flaw::Missing))));
}
