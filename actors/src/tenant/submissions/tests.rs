//! Submissions from draft to decision, over real storage in memory.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use storage::id::{FormId, Id, SubmissionId, UserId};
use storage::value;

use super::commands::{CreateSubmission, DeleteSubmission, SubmitSubmission, UpdateSubmission};
use super::comments::{CommentBody, CommentSubmission, ListComments};
use super::decisions::{ApproveSubmission, DecisionBody, RejectSubmission};
use super::queries::{ListSubmissions, ReadSubmission, SubmissionFilter};
use super::*;
use crate::call::{Page, Paging};
use crate::permit::{Principal, Role};
use crate::quota::{Plan, Quota};
use crate::tenant::forms::commands::{ArchiveForm, CreateForm};
use crate::tenant::forms::glass::BreakGlass;
use crate::tenant::forms::tests::{acl, grant};
use crate::tenant::forms::{Approval, CreateFormBody};
use crate::tenant::members::scene::{Scene, person};

struct World {
    scene: Scene,
    form: FormId,
    owner: Principal,
    ann: Principal,
    bob: Principal,
    cat: Principal,
    dan: Principal,
    ids: [UserId; 4],
}

impl World {
    /// An owner, two members, two customers, and a form that wants whole days.
    fn new() -> Self {
        let mut scene = Scene::new();
        let owner = person(scene.add("o@example.com", Role::Owner), Role::Owner);
        let ann = scene.add("ann@example.com", Role::Member);
        let bob = scene.add("bob@example.com", Role::Member);
        let cat = scene.add("cat@example.com", Role::Customer);
        let dan = scene.add("dan@example.com", Role::Customer);
        let schema = r#"{"type":"object","required":["days"],
            "properties":{"days":{"type":"integer","minimum":1}}}"#;
        let body = CreateFormBody {
            title: "Leave".to_owned(),
            schema: RawValue::from_string(schema.to_owned()).unwrap(),
            approval: Some(Approval { required: true }),
        };
        let form = scene.run(&owner, CreateForm { body }).unwrap().id;
        Self {
            scene,
            form,
            owner,
            ann: person(ann, Role::Member),
            bob: person(bob, Role::Member),
            cat: person(cat, Role::Customer),
            dan: person(dan, Role::Customer),
            ids: [ann, bob, cat, dan],
        }
    }

    fn put(&mut self, who: &Principal, data: &str, draft: bool) -> Result<Place, TenantError> {
        self.scene.now_ms += 1;
        let data = RawValue::from_string(data.to_owned()).unwrap();
        let body = CreateSubmissionBody { data, draft };
        let id = self.scene.run(who, CreateSubmission { form: self.form, body })?.id;
        Ok(Place { form: self.form, id })
    }

    fn submitted(&mut self, who: &Principal) -> Place {
        self.put(who, r#"{"days":3}"#, false).unwrap()
    }

    fn approve(&mut self, who: &Principal, at: Place) -> Result<Document, TenantError> {
        self.approve_version(who, at, None)
    }

    fn approve_version(
        &mut self,
        who: &Principal,
        at: Place,
        if_match: Option<u64>,
    ) -> Result<Document, TenantError> {
        let body = DecisionBody::default();
        self.scene.run(who, ApproveSubmission { at, body, if_match })
    }

    fn edit(&mut self, who: &Principal, at: Place, data: &str) -> Result<Document, TenantError> {
        let data = RawValue::from_string(data.to_owned()).unwrap();
        let body = UpdateSubmissionBody { data };
        self.scene.run(who, UpdateSubmission { at, body, if_match: None })
    }

    fn delete(&mut self, who: &Principal, at: Place) -> Result<(), TenantError> {
        self.scene.run(who, DeleteSubmission { at, if_match: None })
    }

    fn list(&mut self, who: &Principal, filter: SubmissionFilter, limit: usize) -> Page {
        let paging = Paging { limit, cursor: None };
        let wanted = ListSubmissions { form: self.form, filter, reverse: false, paging };
        self.scene.ask(who, wanted).unwrap()
    }
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn ids(page: &Page) -> Vec<SubmissionId> {
    page.items.iter().map(|it| json_of(it)["id"].as_str().unwrap().parse().unwrap()).collect()
}

fn pointers(result: Result<impl std::fmt::Debug, TenantError>) -> Vec<String> {
    match result {
        Err(TenantError::Invalid(errors)) => errors.into_iter().map(|it| it.pointer).collect(),
        other => panic!("expected field errors, got {other:?}"),
    }
}

#[test]
fn a_submission_reads_back_as_it_was_answered_with_its_data_untouched() {
    let mut world = World::new();
    let ann = world.ann.clone();
    let data = r#"{ "days": 3.0e0,  "note":"\u00e4" }"#;
    let at = world.put(&ann, data, false).unwrap();
    let read = world.scene.ask(&world.bob, ReadSubmission { at }).unwrap();
    assert!(String::from_utf8_lossy(&read.json).contains(data));
    let shown = json_of(&read.json);
    assert_eq!((&shown["status"], &shown["version"]), (&json!("submitted"), &json!(1)));
    assert_eq!(shown["created_by"], world.ids[0].to_string());
    assert!(shown.get("decided_by").is_none());
    assert_eq!(world.scene.noted("submission.create"), 1);
}

#[test]
fn data_that_does_not_fit_is_pointed_at_and_takes_no_quota() {
    let mut world = World::new();
    let ann = world.ann.clone();
    for (data, pointer) in [
        (r#"{"days":"x"}"#, "/data/days"),
        (r#"{"days":0}"#, "/data/days"),
        ("{}", "/data"),
        (r#"{"days":1,"days":2}"#, "/data"),
    ] {
        assert_eq!(pointers(world.put(&ann, data, false)), [pointer], "{data}");
    }
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    assert_eq!(pointers(world.put(&ann, &deep, true)), ["/data"]);
    assert_eq!(world.scene.state.used(Quota::Submissions), 0);
}

#[test]
fn the_plan_limits_submissions_and_deleting_frees_one() {
    let mut world = World::new();
    world.scene.plan = Plan { submissions: Some(1), ..Plan::default() };
    let (ann, owner) = (world.ann.clone(), world.owner.clone());
    let at = world.submitted(&ann);
    let refused = world.put(&ann, r#"{"days":1}"#, false);
    assert!(matches!(refused, Err(TenantError::QuotaExceeded { quota: Quota::Submissions, .. })));
    world.delete(&owner, at).unwrap();
    assert!(matches!(world.approve(&owner, at), Err(TenantError::NotFound)));
    world.submitted(&ann);
}

#[test]
fn a_draft_may_be_incomplete_until_it_is_handed_in() {
    let mut world = World::new();
    let (ann, bob) = (world.ann.clone(), world.bob.clone());
    let at = world.put(&ann, "{}", true).unwrap();
    let early = world.approve(&bob, at);
    assert!(matches!(early, Err(TenantError::Conflict(Conflict::StillDraft))));
    let submit = || SubmitSubmission { at, if_match: None };
    assert_eq!(pointers(world.scene.run(&ann, submit())), ["/data"]);
    world.edit(&ann, at, r#"{"days":2}"#).unwrap();
    let handed_in = world.scene.run(&ann, submit()).unwrap();
    assert_eq!(
        (json_of(&handed_in.json)["status"].clone(), handed_in.version),
        (json!("submitted"), 3)
    );
    assert_eq!(pointers(world.edit(&ann, at, "{}")), ["/data"]);
    assert!(world.approve(&bob, at).is_ok());
}

#[test]
fn nobody_decides_on_their_own_submission_not_even_the_owner() {
    let mut world = World::new();
    let (owner, ann) = (world.owner.clone(), world.ann.clone());
    for who in [&owner, &ann] {
        let at = world.submitted(who);
        assert!(matches!(world.approve(who, at), Err(TenantError::FourEyes)));
        let reject = RejectSubmission { at, body: DecisionBody::default(), if_match: None };
        assert!(matches!(world.scene.run(who, reject), Err(TenantError::FourEyes)));
    }
}

#[test]
fn nobody_decides_on_what_they_changed_or_handed_in() {
    let mut world = World::new();
    let (owner, ann, bob) = (world.owner.clone(), world.ann.clone(), world.bob.clone());
    let at = world.submitted(&ann);
    world.edit(&bob, at, r#"{"days":30}"#).unwrap();
    // A further editor does not make the one before forgotten.
    let newest = world.edit(&ann, at, r#"{"days":31}"#).unwrap().version;
    for if_match in [None, Some(newest)] {
        let refused = world.approve_version(&bob, at, if_match);
        assert!(matches!(refused, Err(TenantError::FourEyes)), "{if_match:?}");
    }
    let reject = RejectSubmission { at, body: DecisionBody::default(), if_match: Some(newest) };
    assert!(matches!(world.scene.run(&bob, reject), Err(TenantError::FourEyes)));
    assert!(world.approve_version(&owner, at, Some(newest)).is_ok());

    let draft = world.put(&ann, r#"{"days":1}"#, true).unwrap();
    world.scene.run(&bob, SubmitSubmission { at: draft, if_match: None }).unwrap();
    assert!(matches!(world.approve(&bob, draft), Err(TenantError::FourEyes)));
    assert!(world.approve(&owner, draft).is_ok());
}

#[test]
fn a_decision_on_what_changed_since_it_was_handed_in_names_the_version() {
    let mut world = World::new();
    let (ann, bob) = (world.ann.clone(), world.bob.clone());
    let draft = world.put(&ann, "{}", true).unwrap();
    world.edit(&ann, draft, r#"{"days":1}"#).unwrap();
    let handed_in = world.scene.run(&ann, SubmitSubmission { at: draft, if_match: None }).unwrap();
    assert_eq!(handed_in.version, 3);
    world.edit(&ann, draft, r#"{"days":300}"#).unwrap();
    let blind = world.approve(&bob, draft);
    assert!(matches!(blind, Err(TenantError::VersionNeeded)));
    let reject = RejectSubmission { at: draft, body: DecisionBody::default(), if_match: None };
    assert!(matches!(world.scene.run(&bob, reject), Err(TenantError::VersionNeeded)));
    let stale = world.approve_version(&bob, draft, Some(3));
    assert!(matches!(stale, Err(TenantError::VersionMismatch)));
    assert!(world.approve_version(&bob, draft, Some(4)).is_ok());
    let again = world.approve(&bob, draft);
    assert!(matches!(again, Err(TenantError::Conflict(Conflict::AlreadyDecided))));
}

#[test]
fn no_editor_is_forgotten_however_many_there_are() {
    let mut world = World::new();
    let (ann, bob) = (world.ann.clone(), world.bob.clone());
    let at = world.submitted(&ann);
    world.edit(&bob, at, r#"{"days":1}"#).unwrap();
    for number in 1..limits::EDITORS_MAX {
        let editor = world.scene.add(&format!("e{number}@example.com"), Role::Member);
        world.edit(&person(editor, Role::Member), at, r#"{"days":2}"#).unwrap();
    }
    let owner = world.owner.clone();
    assert_eq!(pointers(world.edit(&owner, at, r#"{"days":3}"#)), ["/data"]);
    assert!(matches!(world.approve(&bob, at), Err(TenantError::FourEyes)));
    let newest = world.edit(&bob, at, r#"{"days":4}"#).unwrap().version;
    assert!(world.approve_version(&owner, at, Some(newest)).is_ok());
}

#[test]
fn a_row_from_before_editors_were_remembered_is_decided_on_by_its_version() {
    let at_version = |version: u64| {
        let author = UserId::from_bytes([1; 16]);
        let old = (SubmissionStatus::Submitted, author, 1_u64, 1_u64, version);
        let (decided, json): (Option<(UserId, u64)>, _) = (None, ByteBuf::from("{}"));
        let bytes = value::encode(&(old.0, old.1, old.2, old.3, old.4, decided, json));
        value::decode::<SubmissionRow>(&bytes).unwrap()
    };
    assert!(at_version(1).check_named(None).is_ok());
    assert!(matches!(at_version(2).check_named(None), Err(TenantError::VersionNeeded)));
    assert!(at_version(2).check_named(Some(2)).is_ok());
    assert!(at_version(2).editors.is_empty());
}

#[test]
fn a_decision_is_made_once_and_ends_all_changes() {
    let mut world = World::new();
    let (ann, bob, owner) = (world.ann.clone(), world.bob.clone(), world.owner.clone());
    let at = world.submitted(&ann);
    let stale = ApproveSubmission { at, body: DecisionBody::default(), if_match: Some(9) };
    assert!(matches!(world.scene.run(&bob, stale), Err(TenantError::VersionMismatch)));
    let body = DecisionBody { comment: Some("Too long".to_owned()) };
    let rejected = world.scene.run(&bob, RejectSubmission { at, body, if_match: Some(1) }).unwrap();
    let shown = json_of(&rejected.json);
    assert_eq!((&shown["status"], &shown["data"]), (&json!("rejected"), &json!({"days": 3})));
    assert_eq!(shown["decided_by"], world.ids[1].to_string());
    assert!(shown["decided_at"].is_string());
    let decided = |result| matches!(result, Err(TenantError::Conflict(Conflict::AlreadyDecided)));
    assert!(decided(world.approve(&owner, at)));
    assert!(decided(world.edit(&ann, at, r#"{"days":1}"#)));
    let paging = Paging { limit: 10, cursor: None };
    let comments = world.scene.ask(&ann, ListComments { at, paging }).unwrap();
    assert_eq!(json_of(&comments.items[0])["text"], "Too long");
}

#[test]
fn an_archived_form_takes_nothing_new_but_lets_decisions_be_made() {
    let mut world = World::new();
    let (ann, bob) = (world.ann.clone(), world.bob.clone());
    let (at, draft) = (world.submitted(&ann), world.put(&ann, r#"{"days":1}"#, true).unwrap());
    let owner = world.owner.clone();
    world.scene.run(&owner, ArchiveForm { form: world.form, if_match: None }).unwrap();
    let archived = Conflict::FormArchived;
    let refused = world.put(&ann, r#"{"days":1}"#, false).map(drop);
    assert!(matches!(refused, Err(TenantError::Conflict(it)) if it == archived));
    let late = world.scene.run(&ann, SubmitSubmission { at: draft, if_match: None });
    assert!(matches!(late, Err(TenantError::Conflict(it)) if it == archived));
    assert!(world.approve(&bob, at).is_ok());
}

#[test]
fn customers_see_and_change_only_their_own() {
    let mut world = World::new();
    let (cat, dan, ann) = (world.cat.clone(), world.dan.clone(), world.ann.clone());
    let (hers, his) = (world.submitted(&cat), world.submitted(&dan));
    world.submitted(&ann);
    assert!(world.scene.ask(&cat, ReadSubmission { at: hers }).is_ok());
    let foreign = world.scene.ask(&cat, ReadSubmission { at: his });
    assert!(matches!(foreign, Err(TenantError::NotFound)));
    assert!(matches!(world.edit(&cat, his, r#"{"days":1}"#), Err(TenantError::NotFound)));
    assert!(matches!(world.delete(&cat, his), Err(TenantError::NotFound)));
    assert!(matches!(world.delete(&cat, hers), Err(TenantError::Forbidden { .. })));
    assert!(world.edit(&cat, hers, r#"{"days":1}"#).is_ok());
}

#[test]
fn a_customers_list_does_not_hint_at_others() {
    let mut world = World::new();
    let (cat, dan, ann) = (world.cat.clone(), world.dan.clone(), world.ann.clone());
    let everything = SubmissionFilter::default();
    assert_eq!(world.list(&cat, everything, 2), Page::default());
    let first = world.submitted(&cat);
    for _ in 0..5 {
        world.submitted(&dan);
    }
    let second = world.submitted(&cat);
    let page = world.list(&cat, everything, 2);
    assert_eq!((ids(&page), page.next), (vec![first.id, second.id], None));
    let his = SubmissionFilter { created_by: Some(world.ids[3]), ..everything };
    assert_eq!(world.list(&cat, his, 2), Page::default());
    assert_eq!(ids(&world.list(&ann, his, 10)).len(), 5);
}

#[test]
fn lists_page_in_both_orders_and_heed_every_filter() {
    let mut world = World::new();
    let (ann, bob) = (world.ann.clone(), world.bob.clone());
    let start_ms = world.scene.now_ms;
    let all: Vec<_> = (0..5).map(|_| world.submitted(&ann).id).collect();
    world.approve(&bob, Place { form: world.form, id: all[1] }).unwrap();
    for created_by in [None, Some(world.ids[0])] {
        let filter = SubmissionFilter { created_by, ..SubmissionFilter::default() };
        for reverse in [false, true] {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let paging = Paging { limit: 2, cursor: cursor.take() };
                let wanted = ListSubmissions { form: world.form, filter, reverse, paging };
                let page = world.scene.ask(&bob, wanted).unwrap();
                seen.extend(ids(&page));
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            if reverse {
                seen.reverse();
            }
            assert_eq!(seen, all);
        }
        let approved = SubmissionFilter { status: Some(SubmissionStatus::Approved), ..filter };
        assert_eq!(ids(&world.list(&bob, approved, 10)), [all[1]]);
        let middle = SubmissionFilter {
            created_after_ms: Some(start_ms + 1),
            created_before_ms: Some(start_ms + 5),
            ..filter
        };
        assert_eq!(ids(&world.list(&bob, middle, 10)), all[1..4]);
    }
}

#[test]
fn pages_of_large_submissions_are_bounded_in_bytes_and_show_each_once() {
    let mut world = World::new();
    let (ann, bob) = (world.ann.clone(), world.bob.clone());
    let data = format!(r#"{{"days":1,"note":"{}"}}"#, "x".repeat(200_000));
    let all: Vec<_> = (0..90).map(|_| world.put(&ann, &data, false).unwrap().id).collect();
    for created_by in [None, Some(world.ids[0])] {
        for status in [None, Some(SubmissionStatus::Submitted), Some(SubmissionStatus::Rejected)] {
            let filter = SubmissionFilter { created_by, status, ..SubmissionFilter::default() };
            let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
            loop {
                let paging = Paging { limit: 200, cursor: cursor.take() };
                let wanted = ListSubmissions { form: world.form, filter, reverse: true, paging };
                let page = world.scene.ask(&bob, wanted).unwrap();
                let bytes: usize = page.items.iter().map(|item| item.len()).sum();
                assert!(bytes < limits::PAGE_BYTES_MAX + 201_000, "{bytes}");
                seen.extend(ids(&page));
                pages += 1;
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            seen.reverse();
            // A page holds six; a filter that drops everything gives up once on the way.
            let is_none = status == Some(SubmissionStatus::Rejected);
            let expected = if is_none { (Vec::new(), 2) } else { (all.clone(), 15) };
            assert_eq!((seen, pages), expected, "{filter:?}");
        }
    }
}

#[test]
fn grants_decide_who_edits_and_who_approves() {
    let mut world = World::new();
    let (owner, ann, bob) = (world.owner.clone(), world.ann.clone(), world.bob.clone());
    let at = world.submitted(&owner);
    let [ann_id, bob_id, cat_id, _] = world.ids;
    let grants = json!([
        grant("role", "owner", "OWNER"),
        grant("user", ann_id, "EDITOR"),
        grant("user", bob_id, "REVIEWER"),
        grant("user", cat_id, "OWNER"),
    ]);
    world.scene.run(&owner, acl(world.form, grants)).unwrap();
    assert!(matches!(world.approve(&ann, at), Err(TenantError::Forbidden { .. })));
    assert!(matches!(world.edit(&bob, at, r#"{"days":1}"#), Err(TenantError::Forbidden { .. })));
    let edited = world.edit(&ann, at, r#"{"days":1}"#).unwrap().version;
    assert!(world.approve_version(&bob, at, Some(edited)).is_ok());
    // A granted customer may submit, and still sees nobody else's.
    let (cat, dan) = (world.cat.clone(), world.dan.clone());
    let own = world.submitted(&cat);
    assert!(world.scene.ask(&cat, ReadSubmission { at: own }).is_ok());
    assert!(matches!(world.scene.ask(&cat, ReadSubmission { at }), Err(TenantError::NotFound)));
    assert!(matches!(world.put(&dan, r#"{"days":1}"#, false), Err(TenantError::NotFound)));
}

#[test]
fn submissions_of_a_restricted_form_need_a_reason_too() {
    let mut world = World::new();
    let (owner, ann) = (world.owner.clone(), world.ann.clone());
    let at = world.submitted(&ann);
    let grants = json!([grant("user", world.ids[0], "OWNER")]);
    world.scene.run(&owner, acl(world.form, grants)).unwrap();
    let plain = world.scene.ask(&owner, ReadSubmission { at });
    assert!(matches!(plain, Err(TenantError::ReasonNeeded)));
    let reason = || "an audit".to_owned();
    let one = BreakGlass { read: ReadSubmission { at }, reason: reason() };
    assert!(world.scene.run(&owner, one).is_ok());
    let paging = Paging { limit: 10, cursor: None };
    let read = ListSubmissions {
        form: world.form,
        filter: SubmissionFilter::default(),
        reverse: false,
        paging,
    };
    let page = world.scene.run(&owner, BreakGlass { read, reason: reason() }).unwrap();
    assert_eq!(ids(&page), [at.id]);
    assert_eq!(world.scene.noted("form.break_glass"), 2);
}

#[test]
fn comments_are_listed_in_order_and_go_with_their_submission() {
    let mut world = World::new();
    let (ann, bob, owner) = (world.ann.clone(), world.bob.clone(), world.owner.clone());
    let at = world.submitted(&ann);
    for text in ["Why?", "Because\nso."] {
        world.scene.now_ms += 1;
        let body = CommentBody { text: text.to_owned() };
        world.scene.run(&bob, CommentSubmission { at, body }).unwrap();
    }
    let blank = CommentSubmission { at, body: CommentBody { text: " \n".to_owned() } };
    assert_eq!(pointers(world.scene.run(&bob, blank)), ["/text"]);
    let list = |limit, cursor| ListComments { at, paging: Paging { limit, cursor } };
    let first = world.scene.ask(&ann, list(1, None)).unwrap();
    assert_eq!(json_of(&first.items[0])["text"], "Why?");
    let rest = world.scene.ask(&ann, list(1, first.next)).unwrap();
    assert_eq!((json_of(&rest.items[0])["text"].clone(), rest.next), (json!("Because\nso."), None));
    world.delete(&owner, at).unwrap();
    assert!(matches!(world.scene.ask(&ann, list(9, None)), Err(TenantError::NotFound)));
}
