//! API keys as rows: who may make them, what they may, and that their text rests nowhere.

use serde_json::Value;

use super::commands::{
    CreateApiKey, CreateApiKeyBody, NoteApiKeyUse, RevokeApiKey, UpdateApiKey, UpdateApiKeyBody,
};
use super::queries::{ListApiKeys, ProveApiKey, ProvenKey, ReadApiKey};
use super::text::PresentedKey;
use super::*;
use crate::call::Paging;
use crate::limits;
use crate::permit::{Action as _, ReadForms, SignIn, UpdateForms, WriteMembers};
use crate::tenant::error::Conflict;
use crate::tenant::members::scene::{NODE, Scene, person};
use crate::tenant::members::{AddMember, ChangeRole, RemoveMember};

fn create(scopes: &[&str]) -> CreateApiKey {
    let scopes = scopes.iter().map(|&name| name.to_owned()).collect();
    let name = "CI".to_owned();
    CreateApiKey { body: CreateApiKeyBody { name, scopes, expires_at: None, provisions_as: None } }
}

/// Makes a key and gives what its text says.
fn made(scene: &mut Scene, by: &Principal, scopes: &[&str]) -> PresentedKey {
    let made = scene.run(by, create(scopes)).unwrap();
    let shown: Value = serde_json::from_slice(&made.document.json).unwrap();
    let presented = PresentedKey::parse(shown["key"].as_str().unwrap()).unwrap();
    assert_eq!(presented.id, made.id);
    presented
}

fn prove(scene: &mut Scene, presented: &PresentedKey) -> Option<ProvenKey> {
    let presented = presented.clone();
    scene.ask(&Principal::Anonymous, ProveApiKey { presented }).unwrap()
}

fn scopes_of(scene: &mut Scene, presented: &PresentedKey) -> Vec<&'static str> {
    prove(scene, presented).unwrap().principal.scopes.names().collect()
}

fn update(
    scene: &mut Scene,
    by: &Principal,
    id: ApiKeyId,
    scopes: &[&str],
) -> Result<Document, TenantError> {
    let scopes = Some(scopes.iter().map(|&name| name.to_owned()).collect());
    let body = UpdateApiKeyBody { scopes, ..UpdateApiKeyBody::default() };
    scene.run(by, UpdateApiKey { id, body, if_match: None })
}

#[test]
fn a_key_has_a_subset_of_its_creators_rights() {
    let mut scene = Scene::new();
    let member = person(scene.add("ann@example.org", Role::Member), Role::Member);
    let key = made(&mut scene, &member, &["forms:update", "forms:read", "forms:read"]);
    assert_eq!(scopes_of(&mut scene, &key), ["forms:read", "forms:update"]);
    let above = scene.run(&member, create(&["forms:read", "audit:read"]));
    assert!(matches!(above, Err(TenantError::Forbidden { action: "api-keys:scope-above-own" })));
    for (never, pointer) in
        [("me:read", "/scopes/1"), ("tenant:update", "/scopes/1"), ("nonsense", "/scopes/1")]
    {
        match scene.run(&member, create(&["forms:read", never])) {
            Err(TenantError::Invalid(errors)) => assert_eq!(errors[0].pointer, pointer, "{never}"),
            other => panic!("{never}: {other:?}"),
        }
    }
    assert!(matches!(scene.run(&member, create(&[])), Err(TenantError::Invalid(_))));
    assert_eq!(scene.noted("api_key.create"), 1);
}

#[test]
fn a_creator_who_is_demoted_or_removed_takes_the_key_along() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@example.org", Role::Owner);
    let owner = person(owner, Role::Owner);
    let ann = scene.add("ann@example.org", Role::Admin);
    let key =
        made(&mut scene, &person(ann, Role::Admin), &["forms:read", "audit:read", "forms:update"]);
    let demote = |role| ChangeRole { user: ann, role, if_match: None };
    scene.run(&owner, demote(Role::Member)).unwrap();
    assert_eq!(scopes_of(&mut scene, &key), ["forms:read", "forms:update"]);
    scene.run(&owner, demote(Role::Customer)).unwrap();
    assert!(scopes_of(&mut scene, &key).is_empty(), "an end user's rights are not handed on");
    scene.run(&owner, demote(Role::Admin)).unwrap();
    assert_eq!(scopes_of(&mut scene, &key).len(), 3);
    scene.run(&owner, RemoveMember { user: ann }).unwrap();
    assert_eq!(prove(&mut scene, &key), None);
    assert!(matches!(scene.ask(&owner, ReadApiKey { id: key.id }), Err(TenantError::NotFound)));
    assert_eq!(scene.noted("api_key.revoke"), 1);
}

#[test]
fn what_a_message_carries_of_a_key_is_not_believed() {
    let mut scene = Scene::new();
    let owner = person(scene.add("owner@example.org", Role::Owner), Role::Owner);
    let key = made(&mut scene, &owner, &["forms:read"]);
    let proven = prove(&mut scene, &key).unwrap().principal;
    let carried = ServicePrincipal { scopes: Scopes::all(), ..proven };
    let mut asks = |capability: &'static Capability| {
        scene.ask(&NODE, Current { carried: carried.clone(), capability })
    };
    assert_eq!(asks(ReadForms::ROW).unwrap(), Principal::Service(Arc::new(proven)));
    assert!(matches!(
        asks(UpdateForms::ROW),
        Err(TenantError::Forbidden { action: "forms:update" })
    ));
    assert!(asks(SignIn::ROW).is_ok(), "what no role has is the node's own question");
    scene.run(&owner, RevokeApiKey { id: key.id, if_match: None }).unwrap();
    // Without the cache, which the commit loop clears of what a record changed.
    let gone = Current { carried, capability: ReadForms::ROW };
    assert!(matches!(gone.ask_afresh(&mut scene), Err(TenantError::StaleCredential)));
}

/// Asks [`current`] within a scene.
#[derive(Debug)]
struct Current {
    carried: ServicePrincipal,
    capability: &'static Capability,
}

impl Current {
    fn ask_afresh(self, scene: &mut Scene) -> Result<Principal, TenantError> {
        scene.ask(&NODE, Afresh(self))
    }
}

struct Afresh(Current);

impl crate::tenant::cx::Query for Current {
    type Action = SignIn;
    type Reply = Principal;
    fn run(self, cx: &mut crate::tenant::cx::ReadCx<'_>) -> Result<Principal, TenantError> {
        current(cx, &self.carried, self.capability, true)
    }
}

impl crate::tenant::cx::Query for Afresh {
    type Action = SignIn;
    type Reply = Principal;
    fn run(self, cx: &mut crate::tenant::cx::ReadCx<'_>) -> Result<Principal, TenantError> {
        current(cx, &self.0.carried, self.0.capability, false)
    }
}

#[test]
fn nothing_is_proven_by_a_wrong_secret_another_tenant_or_an_ended_key() {
    let mut scene = Scene::new();
    let owner = person(scene.add("owner@example.org", Role::Owner), Role::Owner);
    let key = made(&mut scene, &owner, &["forms:read"]);
    assert!(prove(&mut scene, &key).is_some());
    let wrong = PresentedKey::new(key.tenant, key.id, [7; 32]);
    let absent = PresentedKey::new(key.tenant, ApiKeyId::from_bytes([7; 16]), [7; 32]);
    let mut foreign = key.clone();
    foreign.tenant = Id::from_bytes([7; 16]);
    for bad in [wrong, absent, foreign] {
        assert_eq!(prove(&mut scene, &bad), None, "{bad:?}");
    }
    scene.now_ms += limits::API_KEY_MS_DEFAULT - 1;
    assert!(prove(&mut scene, &key).is_some());
    scene.now_ms += 1;
    assert_eq!(prove(&mut scene, &key), None);
}

#[test]
fn use_is_noted_once_a_day_and_for_the_right_secret_only() {
    let mut scene = Scene::new();
    let owner = person(scene.add("owner@example.org", Role::Owner), Role::Owner);
    let key = made(&mut scene, &owner, &["forms:read"]);
    let read = |scene: &mut Scene| {
        let document = scene.ask(&owner, ReadApiKey { id: key.id }).unwrap();
        let shown: Value = serde_json::from_slice(&document.json).unwrap();
        (document.version, shown["last_used_on"].clone())
    };
    let note = |scene: &mut Scene, presented: &PresentedKey| {
        scene.run(&Principal::Anonymous, NoteApiKeyUse { presented: presented.clone() }).unwrap();
    };
    note(&mut scene, &PresentedKey::new(key.tenant, key.id, [7; 32]));
    assert_eq!(read(&mut scene), (1, Value::Null));
    assert!(prove(&mut scene, &key).unwrap().is_first_of_day);
    note(&mut scene, &key);
    note(&mut scene, &key);
    assert_eq!(read(&mut scene), (2, "2023-11-14".into()));
    assert!(!prove(&mut scene, &key).unwrap().is_first_of_day);
    scene.now_ms += DAY_MS;
    assert!(prove(&mut scene, &key).unwrap().is_first_of_day);
    note(&mut scene, &key);
    assert_eq!(read(&mut scene), (3, "2023-11-15".into()));
}

#[test]
fn an_end_lies_ahead_within_a_year_and_does_not_move_once_it_is_past() {
    let mut scene = Scene::new();
    let owner = person(scene.add("owner@example.org", Role::Owner), Role::Owner);
    let until = |scene: &mut Scene, at_ms: u64| {
        let mut command = create(&["forms:read"]);
        command.body.expires_at = Some(rfc3339(at_ms));
        scene.run(&owner, command)
    };
    let now_ms = scene.now_ms;
    for bad in [now_ms, now_ms + limits::API_KEY_MS_MAX + 1] {
        assert!(matches!(until(&mut scene, bad), Err(TenantError::Invalid(_))), "{bad}");
    }
    until(&mut scene, now_ms + limits::API_KEY_MS_MAX).unwrap();
    let short = until(&mut scene, now_ms + 1).unwrap().id;
    scene.now_ms += 1;
    let expires_at = Some(rfc3339(scene.now_ms + 10));
    let body = UpdateApiKeyBody { expires_at, ..UpdateApiKeyBody::default() };
    let revived = scene.run(&owner, UpdateApiKey { id: short, body, if_match: None });
    assert!(matches!(revived, Err(TenantError::Invalid(_))));
}

#[test]
fn a_change_stays_within_the_rights_of_who_changes_and_of_who_made_it() {
    let mut scene = Scene::new();
    let owner = person(scene.add("owner@example.org", Role::Owner), Role::Owner);
    let ann = person(scene.add("ann@example.org", Role::Member), Role::Member);
    let id = made(&mut scene, &ann, &["forms:read", "teams:read"]).id;
    update(&mut scene, &owner, id, &["forms:read", "forms:update"]).unwrap();
    let beyond_creator = update(&mut scene, &owner, id, &["forms:read", "audit:read"]);
    assert!(matches!(beyond_creator, Err(TenantError::Invalid(_))));
    let beyond_own = update(&mut scene, &ann, id, &["audit:read"]);
    assert!(matches!(beyond_own, Err(TenantError::Forbidden { .. })));
    let same = update(&mut scene, &ann, id, &["forms:read", "forms:update"]).unwrap();
    assert_eq!((same.version, scene.noted("api_key.update")), (2, 1));
    let body = UpdateApiKeyBody { name: Some("Nightly".to_owned()), ..UpdateApiKeyBody::default() };
    let stale = scene.run(&ann, UpdateApiKey { id, body, if_match: Some(1) });
    assert!(matches!(stale, Err(TenantError::VersionMismatch)));
}

#[test]
fn members_see_and_revoke_their_own_keys_and_administrators_all() {
    let mut scene = Scene::new();
    let admin = person(scene.add("admin@example.org", Role::Admin), Role::Admin);
    let ann = person(scene.add("ann@example.org", Role::Member), Role::Member);
    let mut ids = Vec::new();
    for by in [&admin, &ann, &admin] {
        scene.now_ms += 1;
        ids.push(made(&mut scene, by, &["forms:read"]).id);
    }
    let list = |scene: &mut Scene, by: &Principal, cursor| {
        scene.ask(by, ListApiKeys { paging: Paging { limit: 2, cursor } }).unwrap()
    };
    let first = list(&mut scene, &admin, None);
    assert_eq!((first.items.len(), list(&mut scene, &admin, first.next).items.len()), (2, 1));
    let own = list(&mut scene, &ann, None);
    assert_eq!((own.items.len(), own.next), (1, None));
    let foreign = RevokeApiKey { id: ids[0], if_match: None };
    assert!(matches!(scene.run(&ann, foreign), Err(TenantError::NotFound)));
    assert!(matches!(
        update(&mut scene, &ann, ids[0], &["forms:read"]),
        Err(TenantError::NotFound)
    ));
    scene.run(&ann, RevokeApiKey { id: ids[1], if_match: None }).unwrap();
    scene.run(&admin, RevokeApiKey { id: ids[0], if_match: None }).unwrap();
    assert_eq!(list(&mut scene, &admin, None).items.len(), 1);
}

#[test]
fn a_tenant_has_a_bounded_number_of_keys() {
    let mut scene = Scene::new();
    for at in 0..limits::API_KEYS_MAX / limits::API_KEYS_EACH_MAX {
        let user = scene.add(&format!("owner{at}@example.org"), Role::Owner);
        for _ in 0..limits::API_KEYS_EACH_MAX {
            scene.run(&person(user, Role::Owner), create(&["forms:read"])).unwrap();
        }
    }
    let other = person(scene.add("other@example.org", Role::Owner), Role::Owner);
    let one_more = scene.run(&other, create(&["forms:read"]));
    assert!(matches!(one_more, Err(TenantError::Conflict(Conflict::TooManyApiKeys))));
}

#[test]
fn a_person_has_a_bounded_number_of_keys_and_those_that_ended_or_were_revoked_do_not_count() {
    let mut scene = Scene::new();
    let ann = person(scene.add("ann@example.org", Role::Owner), Role::Owner);
    let bob = person(scene.add("bob@example.org", Role::Member), Role::Member);
    let make = |scene: &mut Scene, who: &Principal, body: CreateApiKeyBody| {
        scene.run(who, CreateApiKey { body }).map(|made| made.id)
    };
    let usual = || create(&["forms:read"]).body;
    let short = |scene: &Scene| CreateApiKeyBody {
        expires_at: Some(rfc3339(scene.now_ms + 1_000)),
        ..usual()
    };
    let mut ids = Vec::new();
    for _ in 0..limits::API_KEYS_EACH_MAX {
        let body = if ids.len() < 3 { short(&scene) } else { usual() };
        ids.push(make(&mut scene, &ann, body).unwrap());
        scene.now_ms += 1;
    }
    let refused = make(&mut scene, &ann, usual());
    assert!(matches!(refused, Err(TenantError::Conflict(Conflict::TooManyOwnApiKeys))));
    make(&mut scene, &bob, usual()).unwrap();

    // The oldest of those that ended makes room; what others made stays.
    scene.now_ms += 1_000;
    make(&mut scene, &ann, usual()).unwrap();
    assert!(!scene.has(&ApiKeyRow::key(ids[0])) && scene.has(&ApiKeyRow::key(ids[1])));
    for _ in 0..2 {
        make(&mut scene, &ann, usual()).unwrap();
    }
    let refused = make(&mut scene, &ann, usual());
    assert!(matches!(refused, Err(TenantError::Conflict(Conflict::TooManyOwnApiKeys))));
    scene.run(&ann, RevokeApiKey { id: ids[3], if_match: None }).unwrap();
    make(&mut scene, &ann, usual()).unwrap();
}

#[test]
fn a_key_that_may_only_add_members_adds_none_with_more_rights_than_itself() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@example.org", Role::Owner);
    let service = |scopes| {
        let (key, role) = (ApiKeyId::from_bytes([1; 16]), Role::Owner);
        Principal::Service(Arc::new(ServicePrincipal { key, user: owner, role, scopes }))
    };
    let add = |role: Role| {
        let password_phc = "phc".to_owned();
        AddMember { email: format!("{role}@example.org"), role, password_phc }
    };
    let narrow = service(Scopes::named(WriteMembers::NAME).unwrap());
    for role in [Role::Customer, Role::Viewer, Role::Admin, Role::Owner] {
        let refused = scene.run(&narrow, add(role));
        assert!(matches!(refused, Err(TenantError::Forbidden { .. })), "{role}");
    }
    let wide = service(Scopes::all());
    scene.run(&wide, add(Role::Admin)).unwrap();
    assert!(matches!(scene.run(&wide, add(Role::Owner)), Err(TenantError::Forbidden { .. })));
    assert!(matches!(scene.run(&wide, create(&["forms:read"])), Err(TenantError::StaleCredential)));
}
