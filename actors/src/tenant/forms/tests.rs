//! Forms and their access lists, over real storage in memory.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use storage::id::{FormId, Id, TeamId, UserId};

use super::commands::{ArchiveForm, CreateForm, UpdateForm};
use super::glass::BreakGlass;
use super::grants::{FormAclBody, ReadFormAcl, SetFormAcl};
use super::queries::{FormOrder, ListForms, ReadForm};
use super::*;
use crate::call::{Page, Paging};
use crate::permit::{Principal, Role};
use crate::quota::{Plan, Quota};
use crate::tenant::members::RemoveMember;
use crate::tenant::members::scene::{Scene, person};
use crate::tenant::teams::{CreateTeam, CreateTeamBody, DeleteTeam, UpdateTeam, UpdateTeamBody};

fn body(title: &str) -> CreateFormBody {
    let schema = RawValue::from_string(r#"{"type":"object"}"#.to_owned()).unwrap();
    CreateFormBody { title: title.to_owned(), schema, approval: None }
}

pub(crate) fn create(scene: &mut Scene, who: &Principal, title: &str) -> FormId {
    scene.run(who, CreateForm { body: body(title) }).unwrap().id
}

pub(crate) fn acl(form: FormId, grants: Value) -> SetFormAcl {
    let body: FormAclBody = serde_json::from_value(json!({ "grants": grants })).unwrap();
    SetFormAcl { form, body, if_match: None }
}

pub(crate) fn grant(kind: &str, id: impl ToString, level: &str) -> Value {
    json!({"principal": {"kind": kind, "id": id.to_string()}, "level": level})
}

fn json_of(document: &Document) -> Value {
    serde_json::from_slice(&document.json).unwrap()
}

fn titles(page: &Page) -> Vec<String> {
    page.items
        .iter()
        .map(|item| {
            serde_json::from_slice::<Value>(item).unwrap()["title"].as_str().unwrap().to_owned()
        })
        .collect()
}

struct Cast {
    owner: Principal,
    admin: Principal,
    ann: Principal,
    bob: Principal,
    ann_id: UserId,
    bob_id: UserId,
}

fn cast(scene: &mut Scene) -> Cast {
    let owner = scene.add("owner@example.com", Role::Owner);
    let admin = scene.add("admin@example.com", Role::Admin);
    let ann_id = scene.add("ann@example.com", Role::Member);
    let bob_id = scene.add("bob@example.com", Role::Member);
    Cast {
        owner: person(owner, Role::Owner),
        admin: person(admin, Role::Admin),
        ann: person(ann_id, Role::Member),
        bob: person(bob_id, Role::Member),
        ann_id,
        bob_id,
    }
}

fn page_of(limit: usize, cursor: Option<String>) -> Paging {
    Paging { limit, cursor }
}

#[test]
fn a_form_reads_back_as_it_was_answered_with_its_schema_untouched() {
    let (mut scene, raw) = (Scene::new(), r#"{ "type":"object",  "title":"x" }"#);
    let cast = cast(&mut scene);
    let schema = RawValue::from_string(raw.to_owned()).unwrap();
    let body = CreateFormBody { schema, ..body("  Leave  ") };
    let made = scene.run(&cast.ann, CreateForm { body }).unwrap();
    let read = scene.ask(&cast.bob, ReadForm { form: made.id }).unwrap();
    assert_eq!(read, made.document);
    assert!(String::from_utf8_lossy(&read.json).contains(raw));
    let shown = json_of(&read);
    assert_eq!(shown["title"], "Leave");
    assert_eq!((&shown["version"], &shown["status"]), (&json!(1), &json!("active")));
    assert_eq!(shown["approval"], json!({"required": false}));
    assert_eq!(scene.noted("form.create"), 1);
}

#[test]
fn an_update_needs_the_current_version_and_changes_only_what_it_names() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let form = create(&mut scene, &cast.ann, "A");
    let update = |if_match| UpdateForm {
        form,
        body: UpdateFormBody { title: Some("B".to_owned()), ..UpdateFormBody::default() },
        if_match,
    };
    let stale = scene.run(&cast.bob, update(Some(7)));
    assert!(matches!(stale, Err(TenantError::VersionMismatch)));
    let changed = scene.run(&cast.bob, update(Some(1))).unwrap();
    let shown = json_of(&changed);
    assert_eq!((&shown["title"], changed.version), (&json!("B"), 2));
    assert_eq!(shown["schema"], json!({"type": "object"}));
}

#[test]
fn wrong_titles_and_schemas_are_pointed_at_and_nothing_is_kept() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let schema = RawValue::from_string(r#"{"$ref":"http://x/y"}"#.to_owned()).unwrap();
    let cases = [
        (body(" "), "/title"),
        (body(&"x".repeat(401)), "/title"),
        (body("a\nb"), "/title"),
        (CreateFormBody { schema, ..body("ok") }, "/schema"),
    ];
    for (body, pointer) in cases {
        match scene.run(&cast.ann, CreateForm { body }) {
            Err(TenantError::Invalid(errors)) => assert_eq!(errors[0].pointer, pointer),
            other => panic!("{pointer}: {other:?}"),
        }
    }
    assert_eq!((scene.state.used(Quota::Forms), scene.noted("form.create")), (0, 0));
}

#[test]
fn the_plan_limits_active_forms_and_archiving_frees_one() {
    let mut scene = Scene::new();
    scene.plan = Plan { forms: Some(1), ..Plan::default() };
    let cast = cast(&mut scene);
    let first = create(&mut scene, &cast.ann, "A");
    let refused = scene.run(&cast.ann, CreateForm { body: body("B") });
    assert!(matches!(refused, Err(TenantError::QuotaExceeded { quota: Quota::Forms, limit: 1 })));
    for _ in 0..2 {
        let archived = scene.run(&cast.ann, ArchiveForm { form: first, if_match: None }).unwrap();
        assert_eq!(json_of(&archived)["status"], "archived");
    }
    assert_eq!((scene.state.used(Quota::Forms), scene.noted("form.archive")), (0, 1));
    create(&mut scene, &cast.ann, "B");
    let body = UpdateFormBody { title: Some("C".to_owned()), ..UpdateFormBody::default() };
    let late = scene.run(&cast.ann, UpdateForm { form: first, body, if_match: None });
    assert!(matches!(late, Err(TenantError::Conflict(Conflict::FormArchived))));
}

#[test]
fn an_access_list_hides_a_form_from_those_it_does_not_name() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let form = create(&mut scene, &cast.ann, "A");
    let grants = json!([grant("user", cast.ann_id, "OWNER")]);
    scene.run(&cast.ann, acl(form, grants)).unwrap();
    assert!(scene.ask(&cast.ann, ReadForm { form }).is_ok());
    let hidden = scene.ask(&cast.bob, ReadForm { form });
    assert!(matches!(hidden, Err(TenantError::NotFound)));
    let absent = scene.run(&cast.bob, ArchiveForm { form, if_match: None });
    assert!(matches!(absent, Err(TenantError::NotFound)));
    let list = |scene: &mut Scene, who: &Principal| {
        let wanted = ListForms { paging: page_of(10, None), ..ListForms::default() };
        titles(&scene.ask(who, wanted).unwrap()).len()
    };
    assert_eq!(list(&mut scene, &cast.ann), 1);
    assert_eq!(list(&mut scene, &cast.bob), 0);
    assert_eq!(list(&mut scene, &cast.owner), 1);
}

#[test]
fn a_tenant_owner_breaks_the_glass_only_with_a_reason_and_it_is_written_down() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let form = create(&mut scene, &cast.ann, "A");
    scene.run(&cast.ann, acl(form, json!([grant("user", cast.ann_id, "OWNER")]))).unwrap();
    let plain = scene.ask(&cast.owner, ReadForm { form });
    assert!(matches!(plain, Err(TenantError::ReasonNeeded)));
    let with = |reason: &str| BreakGlass { read: ReadForm { form }, reason: reason.to_owned() };
    assert!(matches!(scene.run(&cast.owner, with(" ")), Err(TenantError::Invalid(_))));
    assert!(matches!(scene.run(&cast.owner, with(&"x".repeat(501))), Err(TenantError::Invalid(_))));
    let refused = scene.run(&cast.admin, with("curious"));
    assert!(matches!(refused, Err(TenantError::Forbidden { .. })));
    assert!(matches!(scene.run(&cast.bob, with("curious")), Err(TenantError::NotFound)));
    assert_eq!(scene.noted("form.break_glass"), 0);
    assert!(scene.run(&cast.owner, with("a complaint")).is_ok());
    let (_, draft) = scene.drafts.last().unwrap();
    assert_eq!(draft.action, "form.break_glass");
    assert_eq!(draft.detail["reason"], "a complaint".into());
    assert_eq!(draft.detail["form"], form.to_string().into());
    assert!(scene.run(&cast.ann, with("not needed")).is_ok());
    assert_eq!(scene.noted("form.break_glass"), 1);
}

#[test]
fn an_open_form_is_its_creators_to_restrict_and_archive() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let form = create(&mut scene, &cast.ann, "A");
    let archive = || ArchiveForm { form, if_match: None };
    let seized = scene.run(&cast.bob, acl(form, json!([grant("user", cast.bob_id, "OWNER")])));
    assert!(matches!(seized, Err(TenantError::Forbidden { action: "forms:manage" })));
    assert!(matches!(scene.run(&cast.bob, archive()), Err(TenantError::Forbidden { .. })));
    // What is in it stays everybody's, and so does looking at the list.
    let body = UpdateFormBody { title: Some("B".to_owned()), ..UpdateFormBody::default() };
    assert!(scene.run(&cast.bob, UpdateForm { form, body, if_match: None }).is_ok());
    assert!(scene.ask(&cast.bob, ReadFormAcl { form }).is_ok());
    for who in [&cast.ann, &cast.admin, &cast.owner] {
        assert!(scene.run(who, acl(form, json!([grant("user", cast.ann_id, "OWNER")]))).is_ok());
        assert!(scene.run(who, acl(form, json!([]))).is_ok());
    }
    assert!(scene.run(&cast.ann, archive()).is_ok());
    let form = create(&mut scene, &cast.ann, "C");
    assert!(scene.run(&cast.admin, ArchiveForm { form, if_match: None }).is_ok());
}

#[test]
fn a_run_of_rows_ends_with_the_row_that_reaches_its_bytes() {
    struct Within(usize);
    impl crate::tenant::cx::Query for Within {
        type Action = crate::permit::ReadForms;
        type Reply = usize;

        fn run(self, cx: &mut crate::tenant::cx::ReadCx<'_>) -> Result<usize, TenantError> {
            let any = Key::Form { id: FormId::from_bytes([0; 16]) };
            let scan = storage::txn::Scan::all(storage::keys::Prefix::kind(&any));
            Ok(cx.rows_within(&scan, self.0)?.len())
        }
    }
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    for _ in 0..4 {
        let schema = format!(r#"{{"title":"{}"}}"#, "x".repeat(10_000));
        let body = CreateFormBody { schema: RawValue::from_string(schema).unwrap(), ..body("A") };
        scene.run(&cast.ann, CreateForm { body }).unwrap();
    }
    let rows = [1, 10_000, 11_000, 25_000, usize::MAX].map(|it| scene.ask(&cast.ann, Within(it)));
    assert_eq!(rows.map(Result::unwrap), [1, 1, 2, 3, 4]);
}

#[test]
fn the_last_owner_grant_stays_while_the_form_is_restricted() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let form = create(&mut scene, &cast.ann, "A");
    scene.run(&cast.ann, acl(form, json!([grant("user", cast.ann_id, "OWNER")]))).unwrap();
    let without = json!([grant("user", cast.ann_id, "EDITOR")]);
    for who in [&cast.ann, &cast.owner] {
        let refused = scene.run(who, acl(form, without.clone()));
        assert!(matches!(refused, Err(TenantError::Conflict(Conflict::LastFormOwner))));
    }
    // An empty list lifts the restriction; an administrator may do that, and it is written down.
    let opened = scene.run(&cast.admin, acl(form, json!([]))).unwrap();
    assert_eq!(json_of(&opened)["restricted"], false);
    assert!(scene.ask(&cast.bob, ReadForm { form }).is_ok());
    assert_eq!(scene.noted("form.acl_change"), 2);
}

#[test]
fn grants_to_nobody_are_pointed_at() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let form = create(&mut scene, &cast.ann, "A");
    let grants = json!([
        grant("user", cast.ann_id, "OWNER"),
        grant("user", UserId::from_bytes([5; 16]), "EDITOR"),
        grant("team", TeamId::from_bytes([5; 16]), "EDITOR"),
        grant("role", "platform-admin", "EDITOR"),
        grant("user", "nonsense", "EDITOR"),
    ]);
    let Err(TenantError::Invalid(errors)) = scene.run(&cast.ann, acl(form, grants)) else {
        panic!("unknown holders were taken");
    };
    let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
    let expected = [1, 2, 3, 4].map(|n| format!("/grants/{n}/principal/id"));
    assert_eq!(pointers, expected);
}

#[test]
fn a_team_gives_and_takes_rights_from_the_next_message_on() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let form = create(&mut scene, &cast.ann, "A");
    let team_body = CreateTeamBody { name: "Readers".to_owned(), members: vec![cast.bob_id] };
    let team = scene.run(&cast.owner, CreateTeam { body: team_body }).unwrap().id;
    let grants = json!([grant("user", cast.ann_id, "OWNER"), grant("team", team, "EDITOR")]);
    scene.run(&cast.ann, acl(form, grants)).unwrap();
    let shown = json_of(&scene.ask(&cast.bob, ReadFormAcl { form }).unwrap());
    assert_eq!(shown["effective"], json!({"level": "EDITOR", "source": "via TEAM Readers"}));
    assert!(scene.ask(&cast.bob, ReadForm { form }).is_ok());

    let members = |members| UpdateTeamBody { members: Some(members), ..UpdateTeamBody::default() };
    let out = UpdateTeam { team, body: members(vec![]), if_match: None };
    scene.run(&cast.owner, out).unwrap();
    assert!(scene.ask(&cast.bob, ReadForm { form }).is_err());
    let back = UpdateTeam { team, body: members(vec![cast.bob_id]), if_match: None };
    scene.run(&cast.owner, back).unwrap();
    assert!(scene.ask(&cast.bob, ReadForm { form }).is_ok());

    scene.run(&cast.owner, DeleteTeam { team, if_match: None }).unwrap();
    assert!(matches!(scene.ask(&cast.bob, ReadForm { form }), Err(TenantError::NotFound)));
    let shown = json_of(&scene.ask(&cast.ann, ReadFormAcl { form }).unwrap());
    assert_eq!(shown["grants"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_removed_person_leaves_no_grant_and_opens_nothing() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let form = create(&mut scene, &cast.ann, "A");
    let hers = grant("user", cast.ann_id, "OWNER");
    scene.run(&cast.ann, acl(form, json!([hers]))).unwrap();
    let last = scene.run(&cast.owner, RemoveMember { user: cast.ann_id });
    assert!(matches!(last, Err(TenantError::Conflict(Conflict::LastFormOwner))));
    let both = json!([hers, grant("role", "owner", "OWNER")]);
    scene.run(&cast.ann, acl(form, both)).unwrap();
    scene.run(&cast.owner, RemoveMember { user: cast.ann_id }).unwrap();
    let shown = json_of(&scene.ask(&cast.owner, ReadFormAcl { form }).unwrap());
    let sources: Vec<_> =
        shown["grants"].as_array().unwrap().iter().map(|it| &it["source"]).collect();
    assert_eq!((sources, &shown["restricted"]), (vec![&json!("via ROLE owner")], &json!(true)));
    assert!(matches!(scene.ask(&cast.bob, ReadForm { form }), Err(TenantError::NotFound)));
}

#[test]
fn every_order_pages_through_every_form_once() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    for title in ["b", "D", "a", "C", "e"] {
        scene.now_ms += 1;
        create(&mut scene, &cast.ann, title);
    }
    let orders = [
        ("created_at", "b D a C e"),
        ("-created_at", "e C a D b"),
        ("updated_at", "b D a C e"),
        ("-updated_at", "e C a D b"),
        ("title", "a b C D e"),
        ("-title", "e D C b a"),
    ];
    for (sort, expected) in orders {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let (order, reverse) = FormOrder::parse(sort).unwrap();
            let paging = page_of(2, cursor.take());
            let wanted = ListForms { order, reverse, paging, ..ListForms::default() };
            let page = scene.ask(&cast.bob, wanted).unwrap();
            seen.extend(titles(&page));
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(seen.join(" "), expected, "{sort}");
    }
}

#[test]
fn lists_are_filtered_and_refuse_cursors_of_others() {
    let mut scene = Scene::new();
    let cast = cast(&mut scene);
    let first = create(&mut scene, &cast.ann, "Leave request");
    create(&mut scene, &cast.ann, "Expenses");
    scene.run(&cast.ann, ArchiveForm { form: first, if_match: None }).unwrap();
    let wanted = |status, q: Option<&str>| ListForms {
        status,
        title_contains: q.map(str::to_owned),
        paging: page_of(10, None),
        ..ListForms::default()
    };
    let active = scene.ask(&cast.bob, wanted(Some(FormStatus::Active), None)).unwrap();
    assert_eq!(titles(&active), ["Expenses"]);
    let found = scene.ask(&cast.bob, wanted(None, Some("REQUEST"))).unwrap();
    assert_eq!(titles(&found), ["Leave request"]);
    for (order, cursor) in
        [(FormOrder::CreatedAt, "!!"), (FormOrder::CreatedAt, "AAAA"), (FormOrder::Title, "AAAA")]
    {
        let paging = page_of(10, Some(cursor.to_owned()));
        match scene.ask(&cast.bob, ListForms { order, paging, ..ListForms::default() }) {
            Err(TenantError::Invalid(errors)) => assert_eq!(errors[0].pointer, "query/cursor"),
            other => panic!("{cursor}: {other:?}"),
        }
    }
}
