//! Support sessions as rows: when one opens, what it shows, and that it is over when it is.

use super::asking::{
    AskForSupport, BeginSupport, EndSupport, FindSupport, IssueSupportToken, RecordSupportAct,
    SupportAct, SupportAsked,
};
use super::deciding::{DecideOnSupport, Verdict};
use super::using::ProveSupport;
use super::*;
use crate::permit::{Action as _, ReadForms, ReadIntegrations, Role, UpdateForms, WriteMembers};
use crate::tenant::api_keys::text::PresentedSupport;
use crate::tenant::error::Conflict;
use crate::tenant::members::scene::{NODE, Scene, person};
use storage::id::TenantId;

fn asked(n: u64, scopes: &[&str], now_ms: u64) -> Asked {
    Asked {
        id: SupportId::new(n, [1; 10]),
        admin: UserId::new(1, [9; 10]),
        email: "root@platform.example".to_owned(),
        reason: "a reason".to_owned(),
        ticket: "CASE-1".to_owned(),
        minutes: 30,
        scopes: scopes.iter().map(|&name| name.to_owned()).collect(),
        asked_ms: now_ms,
    }
}

fn begin(scene: &mut Scene, asked: &Asked) -> SupportState {
    let command = BeginSupport { asked: asked.clone(), is_to_wait: false };
    scene.run(&NODE, command).unwrap()
}

fn token(scene: &mut Scene, asked: &Asked) -> Result<PresentedSupport, TenantError> {
    let command = IssueSupportToken { id: asked.id, admin: asked.admin };
    scene.run(&NODE, command).map(|(text, _)| PresentedSupport::parse(&text).unwrap())
}

fn proven(scene: &mut Scene, presented: &PresentedSupport) -> Option<SupportPrincipal> {
    let query = ProveSupport { presented: presented.clone() };
    scene.ask(&Principal::Anonymous, query).unwrap().map(|(principal, _)| principal)
}

fn state(scene: &mut Scene, asked: &Asked) -> SupportState {
    scene.ask(&NODE, FindSupport { id: asked.id }).unwrap().state
}

#[test]
fn a_session_opens_at_once_where_nobody_wants_to_be_asked_and_ends_by_itself() {
    let mut scene = Scene::new();
    let asked = asked(1, &[], scene.now_ms);
    assert_eq!(begin(&mut scene, &asked), SupportState::Open);
    assert_eq!(begin(&mut scene, &asked), SupportState::Open, "told twice, it is the same");
    let presented = token(&mut scene, &asked).unwrap();
    let principal = proven(&mut scene, &presented).unwrap();
    assert_eq!(principal.scopes, Scopes::of_support());
    scene.now_ms += 30 * 60_000 - 1;
    assert!(proven(&mut scene, &presented).is_some());
    scene.now_ms += 1;
    assert!(proven(&mut scene, &presented).is_none());
    assert_eq!(state(&mut scene, &asked), SupportState::Expired);
    let late = token(&mut scene, &asked);
    assert!(matches!(late, Err(TenantError::Conflict(Conflict::SupportNotOpen))));
}

#[test]
fn what_changes_something_waits_for_the_tenant_and_runs_out_unheard() {
    let mut scene = Scene::new();
    let owner = person(scene.add("ann@example.org", Role::Owner), Role::Owner);
    let (first, second) =
        (asked(1, &["forms:update"], scene.now_ms), asked(2, &["forms:update"], scene.now_ms));
    for asked in [&first, &second] {
        assert_eq!(begin(&mut scene, asked), SupportState::Waiting);
        assert!(token(&mut scene, asked).is_err());
    }
    let approve = DecideOnSupport { id: first.id, verdict: Verdict::Approve };
    scene.run(&owner, approve).unwrap();
    let presented = token(&mut scene, &first).unwrap();
    let principal = proven(&mut scene, &presented).unwrap();
    assert!(principal.scopes.contains(UpdateForms::ROW));
    assert!(!principal.scopes.contains(WriteMembers::ROW));
    scene.now_ms += limits::SUPPORT_WAIT_MS;
    assert_eq!(state(&mut scene, &second), SupportState::Expired);
    let late = DecideOnSupport { id: second.id, verdict: Verdict::Approve };
    let late = scene.run(&owner, late);
    assert!(matches!(late, Err(TenantError::Conflict(Conflict::SupportDecided))));
}

#[test]
fn a_message_is_asked_as_what_the_session_is_now() {
    let mut scene = Scene::new();
    let asked = asked(1, &[], scene.now_ms);
    begin(&mut scene, &asked);
    let presented = token(&mut scene, &asked).unwrap();
    let carried = proven(&mut scene, &presented).unwrap();
    let now = |scene: &mut Scene, capability| {
        scene.read(&NODE, |cx| current(cx, &carried, capability).map(drop))
    };
    assert!(now(&mut scene, ReadForms::ROW).is_ok());
    assert!(now(&mut scene, ReadIntegrations::ROW).is_ok());
    let above = now(&mut scene, UpdateForms::ROW);
    assert!(matches!(above, Err(TenantError::Forbidden { action: "forms:update" })));
    // A newer token voids the older one, also where that one was believed.
    let newer = token(&mut scene, &asked).unwrap();
    assert!(matches!(now(&mut scene, ReadForms::ROW), Err(TenantError::StaleCredential)));
    assert!(proven(&mut scene, &presented).is_none() && proven(&mut scene, &newer).is_some());
    scene.run(&NODE, EndSupport { id: asked.id, is_removal: false }).unwrap();
    assert!(proven(&mut scene, &newer).is_none());
    let mut other = Scene::of(TenantId::new(2, [8; 10]));
    assert!(proven(&mut other, &newer).is_none(), "another tenant's");
}

#[test]
fn only_who_asked_takes_a_token() {
    let mut platform = Scene::of(TenantId::PLATFORM);
    let ann =
        person(platform.add("ann@platform.example", Role::PlatformAdmin), Role::PlatformAdmin);
    let bob =
        person(platform.add("bob@platform.example", Role::PlatformAdmin), Role::PlatformAdmin);
    let ask = AskForSupport {
        tenant: TenantId::new(1, [7; 10]),
        reason: "a reason".to_owned(),
        ticket: "CASE-1".to_owned(),
        minutes: 5,
        scopes: Vec::new(),
    };
    let SupportAsked { asked, .. } = platform.run(&ann, ask).unwrap();
    let act = |act| RecordSupportAct { id: asked.id, act };
    assert!(platform.run(&ann, act(SupportAct::Token)).is_ok());
    assert!(platform.run(&bob, act(SupportAct::Token)).is_err());
    assert!(platform.run(&bob, act(SupportAct::End)).is_ok(), "anybody of them ends it");
}

#[test]
fn the_oldest_that_is_over_makes_room_and_none_that_lives_does() {
    let mut scene = Scene::new();
    for n in 1..=limits::SUPPORT_MAX as u64 {
        let asked = asked(n, &[], scene.now_ms);
        begin(&mut scene, &asked);
    }
    let more = asked(500, &[], scene.now_ms);
    let command = BeginSupport { asked: more.clone(), is_to_wait: false };
    let full = scene.run(&NODE, command);
    assert!(matches!(full, Err(TenantError::Conflict(Conflict::TooManySupportSessions))));
    scene.run(&NODE, EndSupport { id: SupportId::new(7, [1; 10]), is_removal: false }).unwrap();
    assert_eq!(begin(&mut scene, &more), SupportState::Open);
    assert!(!scene.has(&key(SupportId::new(7, [1; 10]))));
    assert!(scene.has(&key(SupportId::new(1, [1; 10]))));
}
