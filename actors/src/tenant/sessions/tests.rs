//! Sessions open, rotate and end; a refresh token that comes back ends its family.

use super::own::{
    ChangePassword, EndSession, ListSessions, ReadMe, RevokeOtherSessions, RevokeSession,
};
use super::*;
use crate::permit::Principal;
use crate::tenant::members::scene::{Scene, holder};

fn refresh(scene: &mut Scene, text: &str) -> Result<RefreshOutcome, TenantError> {
    let token = RefreshToken::parse(text).unwrap();
    scene.run(&Principal::Anonymous, RefreshSession { token })
}

fn rotate(scene: &mut Scene, text: &str) -> Opened {
    match refresh(scene, text).unwrap() {
        RefreshOutcome::Rotated(opened) => *opened,
        RefreshOutcome::Reused => panic!("the token counts as used"),
    }
}

fn sessions(scene: &mut Scene, opened: &Opened) -> Vec<serde_json::Value> {
    let page = scene.ask(&holder(opened), ListSessions).unwrap();
    page.items.iter().map(|item| serde_json::from_slice(item).unwrap()).collect()
}

fn owner(scene: &mut Scene) -> Opened {
    let user = scene.add("ann@example.org", Role::Owner);
    scene.sign_in(user)
}

#[test]
fn a_refresh_token_is_good_once_and_its_return_ends_the_family() {
    let mut scene = Scene::new();
    let first = owner(&mut scene);
    let second = rotate(&mut scene, &first.refresh_token);
    let third = rotate(&mut scene, &second.refresh_token);
    assert_eq!(first.session, third.session);
    assert_eq!(refresh(&mut scene, &first.refresh_token).unwrap(), RefreshOutcome::Reused);
    assert_eq!(scene.noted("refresh.reuse"), 1);
    let newest = refresh(&mut scene, &third.refresh_token);
    assert!(matches!(newest, Err(TenantError::BadCredentials)), "the family outlived the re-use");
}

#[test]
fn of_two_equal_refreshes_exactly_one_wins() {
    let mut scene = Scene::new();
    let opened = owner(&mut scene);
    let outcomes: Vec<_> =
        (0..2).map(|_| refresh(&mut scene, &opened.refresh_token).unwrap()).collect();
    assert!(matches!(outcomes[..], [RefreshOutcome::Rotated(_), RefreshOutcome::Reused]));
}

#[test]
fn a_changed_or_foreign_refresh_token_is_refused_and_ends_nothing() {
    let mut scene = Scene::new();
    let opened = owner(&mut scene);
    let body = opened.refresh_token.strip_prefix(REFRESH_PREFIX).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(body).unwrap();
    for index in [0, 16, 32, 51, 52, 83] {
        let mut forged = bytes.clone();
        forged[index] ^= 1;
        let text = format!("{REFRESH_PREFIX}{}", URL_SAFE_NO_PAD.encode(forged));
        let refused = refresh(&mut scene, &text);
        assert!(matches!(refused, Err(TenantError::BadCredentials)), "byte {index}: {refused:?}");
    }
    for text in
        ["", "bkr_", body, &opened.refresh_token[1..], &format!("{}=", opened.refresh_token)]
    {
        assert_eq!(RefreshToken::parse(text), None, "{text}");
    }
    let mut other = Scene::new();
    owner(&mut other);
    assert!(refresh(&mut other, &opened.refresh_token).is_err(), "another tenant's key made it");
    rotate(&mut scene, &opened.refresh_token);
}

#[test]
fn a_session_ends_when_it_is_not_refreshed_in_time() {
    let mut scene = Scene::new();
    let first = owner(&mut scene);
    scene.now_ms += limits::SESSION_MS - 1;
    let second = rotate(&mut scene, &first.refresh_token);
    scene.now_ms += limits::SESSION_MS;
    assert!(matches!(refresh(&mut scene, &second.refresh_token), Err(TenantError::BadCredentials)));
}

#[test]
fn beyond_the_bound_the_oldest_session_ends() {
    let mut scene = Scene::new();
    let oldest = owner(&mut scene);
    let mut newest = oldest.clone();
    for _ in 0..limits::SESSIONS_MAX {
        scene.now_ms += 1;
        newest = scene.sign_in(oldest.user);
    }
    let listed = sessions(&mut scene, &newest);
    assert_eq!(listed.len(), limits::SESSIONS_MAX);
    assert!(listed.iter().all(|session| session["id"] != oldest.session.to_string()));
    let current: Vec<_> = listed.iter().filter(|session| session["current"] == true).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0]["id"], newest.session.to_string());
}

#[test]
fn sign_in_names_the_person_and_fails_when_the_password_changed_meanwhile() {
    let mut scene = Scene::new();
    let opened = owner(&mut scene);
    let (actor, draft) = scene.drafts.last().unwrap();
    assert_eq!((draft.action, actor.email.as_deref()), ("sign_in", Some("ann@example.org")));
    let credential = Credential { user: opened.user, password_phc: "older".to_owned() };
    let late = scene.run(&Principal::Anonymous, OpenSession { credential });
    assert!(matches!(late, Err(TenantError::BadCredentials)));
}

#[test]
fn a_credential_is_found_by_address_and_only_there() {
    let mut scene = Scene::new();
    let opened = owner(&mut scene);
    let ask = |scene: &mut Scene, email: &str| {
        scene.ask(&Principal::Anonymous, ReadCredential { email: email.to_owned() }).unwrap()
    };
    assert_eq!(ask(&mut scene, "ANN@example.org").unwrap().user, opened.user);
    assert!(ask(&mut scene, "bob@example.org").is_none());
    assert!(ask(&mut scene, "not an address").is_none());
}

#[test]
fn failed_sign_ins_are_noted_without_what_was_typed() {
    let mut scene = Scene::new();
    let opened = owner(&mut scene);
    for failure in [
        SignInFailure::UnknownTenant,
        SignInFailure::UnknownEmail,
        SignInFailure::WrongPassword(opened.user),
    ] {
        let account = "acme my-password".to_owned();
        scene.run(&Principal::Anonymous, RecordSignInFailure { failure, account }).unwrap();
        let (_, draft) = scene.drafts.last().unwrap();
        assert_eq!(draft.outcome, crate::audit::entry::Outcome::Failed);
        assert!(!format!("{draft:?}").contains("my-password"));
    }
    assert_eq!(scene.noted("sign_in"), 4);
}

#[test]
fn only_own_sessions_can_be_revoked() {
    let mut scene = Scene::new();
    let ann = owner(&mut scene);
    let bob = scene.add("bob@example.org", Role::Member);
    let bob = scene.sign_in(bob);
    let foreign = scene.run(&holder(&bob), RevokeSession { session: ann.session });
    assert!(matches!(foreign, Err(TenantError::NotFound)));
    scene.run(&holder(&ann), RevokeSession { session: ann.session }).unwrap();
    assert!(refresh(&mut scene, &ann.refresh_token).is_err());
    rotate(&mut scene, &bob.refresh_token);
}

#[test]
fn signing_out_ends_this_session_and_revoking_the_others_spares_it() {
    let mut scene = Scene::new();
    let first = owner(&mut scene);
    let second = scene.sign_in(first.user);
    let third = scene.sign_in(first.user);
    scene.run(&holder(&third), EndSession).unwrap();
    assert!(refresh(&mut scene, &third.refresh_token).is_err());
    scene.run(&holder(&second), RevokeOtherSessions).unwrap();
    assert!(refresh(&mut scene, &first.refresh_token).is_err());
    assert_eq!(sessions(&mut scene, &second).len(), 1);
    assert_eq!((scene.noted("sign_out"), scene.noted("session.revoke")), (1, 1));
}

#[test]
fn a_new_password_ends_the_other_sessions_and_everything_made_before() {
    let mut scene = Scene::new();
    let other = owner(&mut scene);
    let mine = scene.sign_in(other.user);
    let change = |current: &str| ChangePassword {
        current_phc: current.to_owned(),
        new_phc: "new".to_owned(),
    };
    let wrong = scene.run(&holder(&mine), change("older"));
    assert!(matches!(wrong, Err(TenantError::BadCredentials)));
    let fresh = scene.run(&holder(&mine), change("phc")).unwrap();
    assert_eq!((fresh.session, fresh.authz), (mine.session, mine.authz + 1));
    assert!(refresh(&mut scene, &other.refresh_token).is_err());
    assert_eq!(sessions(&mut scene, &fresh).len(), 1);
    rotate(&mut scene, &fresh.refresh_token);
    assert_eq!(refresh(&mut scene, &mine.refresh_token).unwrap(), RefreshOutcome::Reused);
}

#[test]
fn oneself_is_shown_with_tenant_and_session() {
    let mut scene = Scene::new();
    let opened = owner(&mut scene);
    let me = scene.ask(&holder(&opened), ReadMe).unwrap();
    assert_eq!((me.id, me.session), (opened.user, opened.session));
    assert_eq!((me.email.as_str(), me.tenant.slug.as_str()), ("ann@example.org", "acme"));
}
