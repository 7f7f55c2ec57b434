//! Whose identity is whose, and what is under way, in one tenant alone.

use super::flow::{
    Authorization, BeginAuthorization, BrowserBinding, StateToken, TakeAuthorization,
};
use super::providers::{
    CreateIdentityProvider, DeleteIdentityProvider, FindProvider, Provider, ProviderKind,
};
use super::sign_in::{SignInVouched, Unwanted, VouchedOutcome};
use super::*;
use crate::limits::{AUTHORIZATION_MS, AUTHORIZATIONS_MAX};
use crate::permit::{Principal, Role};
use crate::tenant::members::RemoveMember;
use crate::tenant::members::scene::{NODE, Scene, person};
use crate::tenant::scim::users::CreateUser;
use crate::tenant::sessions::Opened;
use crate::tenant::sessions::challenge::SignedIn;

const BROWSER: BrowserBinding = BrowserBinding([1; 32]);

fn provider(scene: &mut Scene, default_role: Option<Role>) -> Provider {
    let body = CreateIdentityProvider {
        name: "idp".to_owned(),
        kind: ProviderKind::Oidc,
        issuer: Some("https://idp.example".to_owned()),
        client_id: Some("bulkhead".to_owned()),
        client_secret: None,
        audience: None,
        jwks: None,
        domains: Vec::new(),
        default_role,
        enabled: true,
    };
    scene.run(&NODE, body).unwrap();
    let found = scene.ask(&Principal::Anonymous, FindProvider { name: "idp".to_owned() });
    found.unwrap().unwrap()
}

fn vouched(subject: &str, email: &str) -> Vouched {
    Vouched {
        issuer: "https://idp.example".to_owned(),
        subject: subject.to_owned(),
        email: Some(email.to_owned()),
        email_verified: true,
        hosted_domain: None,
    }
}

fn come(scene: &mut Scene, at: &Provider, subject: &str, email: &str) -> Result<Opened, Unwanted> {
    let command = SignInVouched {
        provider: at.id,
        provider_version: at.version,
        vouched: vouched(subject, email),
    };
    match scene.run(&Principal::Anonymous, command).unwrap() {
        VouchedOutcome::SignedIn(SignedIn::Opened(opened)) => Ok(*opened),
        VouchedOutcome::SignedIn(SignedIn::Challenged { .. }) => panic!("nobody has a factor"),
        VouchedOutcome::Refused(why) => Err(why),
    }
}

fn begin(scene: &mut Scene, at: &Provider) -> Authorization {
    let command = BeginAuthorization {
        provider: at.id,
        provider_version: at.version,
        browser: BROWSER,
        return_to: "/".to_owned(),
    };
    scene.run(&Principal::Anonymous, command).unwrap()
}

fn take(scene: &mut Scene, state: &str, browser: BrowserBinding) -> Option<Authorization> {
    let state = StateToken::parse(state).unwrap();
    let command = TakeAuthorization { state, browser, provider: "idp".to_owned() };
    scene.run(&Principal::Anonymous, command).unwrap()
}

#[test]
fn the_subject_says_who_it_is_and_the_address_does_not() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let idp = provider(&mut scene, Some(Role::Viewer));
    let first = come(&mut scene, &idp, "1", "ann@b.c").unwrap();
    let moved = come(&mut scene, &idp, "1", "other@b.c").unwrap();
    assert_eq!((moved.user, moved.email.as_str()), (first.user, "ann@b.c"));
    assert_eq!(come(&mut scene, &idp, "2", "ann@b.c").unwrap_err(), Unwanted::NotLinked);
    assert_eq!(come(&mut scene, &idp, "3", "OWNER@b.c").unwrap_err(), Unwanted::NotLinked);
    assert_ne!(come(&mut scene, &idp, "4", "bea@b.c").unwrap().user, first.user);
}

#[test]
fn whom_the_directory_announced_comes_in_once_by_the_address_and_then_by_the_link() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let idp = provider(&mut scene, None);
    let announce = |scene: &mut Scene, email: &str| {
        let body = serde_json::json!({"userName": email}).as_object().unwrap().clone();
        scene.run(&NODE, CreateUser { body, base: String::new() }).unwrap().id
    };
    let ann = announce(&mut scene, "ann@b.c");
    let opened = come(&mut scene, &idp, "1", "Ann@b.c").unwrap();
    assert_eq!((opened.user, scene.user(ann).unwrap().email_verified), (ann, true));
    assert_eq!(come(&mut scene, &idp, "1", "new@b.c").unwrap().user, ann);
    // Another subject with the address is not them.
    assert_eq!(come(&mut scene, &idp, "2", "ann@b.c").unwrap_err(), Unwanted::NotLinked);
    // Nor is anybody whom nobody announced, or who has a password by now.
    assert_eq!(come(&mut scene, &idp, "3", "owner@b.c").unwrap_err(), Unwanted::NotLinked);
    let bea = announce(&mut scene, "bea@b.c");
    scene.change(bea, |row| row.password = Some("phc".to_owned()));
    assert_eq!(come(&mut scene, &idp, "4", "bea@b.c").unwrap_err(), Unwanted::NotLinked);
    let cid = announce(&mut scene, "cid@b.c");
    scene.change(cid, |row| row.deactivated = true);
    assert_eq!(come(&mut scene, &idp, "5", "cid@b.c").unwrap_err(), Unwanted::NotLinked);
}

#[test]
fn everything_of_a_removed_person_goes_and_only_that_they_were_removed_stays() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let idp = provider(&mut scene, Some(Role::Viewer));
    let ann = come(&mut scene, &idp, "1", "ann@b.c").unwrap().user;
    let bea = come(&mut scene, &idp, "2", "bea@b.c").unwrap().user;
    let has_identity = |scene: &mut Scene, user| {
        let query = super::links::ListIdentities;
        !scene.ask(&person(user, Role::Viewer), query).unwrap().items.is_empty()
    };
    assert!(has_identity(&mut scene, ann) && has_identity(&mut scene, bea));
    scene.run(&NODE, RemoveMember { user: ann }).unwrap();
    scene.run(&person(bea, Role::Viewer), RemoveMember { user: bea }).unwrap();
    assert!(!has_identity(&mut scene, ann) && !has_identity(&mut scene, bea));
    assert_eq!(come(&mut scene, &idp, "1", "ann@b.c").unwrap_err(), Unwanted::Removed);
    // Who left may come back.
    assert_ne!(come(&mut scene, &idp, "2", "bea@b.c").unwrap().user, bea);
}

#[test]
fn a_party_that_is_gone_takes_its_identities_along() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let idp = provider(&mut scene, Some(Role::Viewer));
    let ann = come(&mut scene, &idp, "1", "ann@b.c").unwrap().user;
    scene.run(&NODE, DeleteIdentityProvider { provider: idp.id }).unwrap();
    assert_eq!(come(&mut scene, &idp, "1", "ann@b.c").unwrap_err(), Unwanted::ProviderChanged);
    let anew = provider(&mut scene, Some(Role::Viewer));
    // The same issuer, trusted anew: whose its subjects are has to be said anew as well.
    assert_eq!(come(&mut scene, &anew, "1", "ann@b.c").unwrap_err(), Unwanted::NotLinked);
    assert!(scene.user(ann).is_some());
}

#[test]
fn what_is_under_way_is_good_once_in_its_browser_and_in_time() {
    let mut scene = Scene::new();
    let idp = provider(&mut scene, None);
    let begun = begin(&mut scene, &idp);
    assert!(take(&mut scene, &begun.state, BrowserBinding([2; 32])).is_none(), "another browser");
    let taken = take(&mut scene, &begun.state, BROWSER).unwrap();
    assert_eq!((taken.nonce, taken.verifier), (begun.nonce, begun.verifier));
    assert!(take(&mut scene, &begun.state, BROWSER).is_none(), "once");
    let late = begin(&mut scene, &idp);
    scene.now_ms += AUTHORIZATION_MS + 1_000;
    assert!(take(&mut scene, &late.state, BROWSER).is_none(), "too late");
    let other = Scene::of(storage::id::TenantId::new(1, [8; 10]));
    let mut other = other;
    assert!(take(&mut other, &late.state, BROWSER).is_none(), "another tenant");
}

#[test]
fn no_more_than_a_bounded_number_is_under_way() {
    let mut scene = Scene::new();
    let idp = provider(&mut scene, None);
    let first = begin(&mut scene, &idp);
    // Later ones end later, so it is the first that goes.
    scene.now_ms += 1_000;
    let second = begin(&mut scene, &idp);
    scene.now_ms += 1_000;
    for _ in 2..=AUTHORIZATIONS_MAX {
        begin(&mut scene, &idp);
    }
    assert!(take(&mut scene, &first.state, BROWSER).is_none());
    assert!(take(&mut scene, &second.state, BROWSER).is_some());
}
