//! Whose identity is whose, and what is under way, in one tenant alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::flow::{
    Authorization, BeginAuthorization, BrowserBinding, StateToken, TakeAuthorization,
};
use super::providers::{
    CreateIdentityProvider, DeleteIdentityProvider, FindProvider, IdentityProviderChanges,
    Provider, ProviderKind, UpdateIdentityProvider,
};
use super::sign_in::{SignInVouched, Unwanted, VouchedOutcome};
use super::*;
use crate::limits::AUTHORIZATION_MS;
use crate::permit::{Principal, Role};
use crate::tenant::members::RemoveMember;
use crate::tenant::members::scene::{NODE, Scene, person};
use crate::tenant::people::UserRow;
use crate::tenant::scim::user_changes::{ChangeUser, UserChange};
use crate::tenant::scim::users::CreateUser;
use crate::tenant::sessions::Opened;
use crate::tenant::sessions::challenge::SignedIn;

const BROWSER: BrowserBinding = BrowserBinding([1; 32]);

fn provider(scene: &mut Scene, default_role: Option<Role>) -> Provider {
    provider_of(scene, &NODE, ProviderKind::Oidc, default_role)
}

fn provider_of(
    scene: &mut Scene,
    by: &Principal,
    kind: ProviderKind,
    default_role: Option<Role>,
) -> Provider {
    let issuer = (kind == ProviderKind::Oidc).then(|| "https://idp.example".to_owned());
    let body = CreateIdentityProvider {
        name: "idp".to_owned(),
        kind,
        issuer,
        client_id: Some("bulkhead".to_owned()),
        client_secret: None,
        audience: None,
        jwks: None,
        domains: Vec::new(),
        default_role,
        enabled: true,
    };
    scene.run(by, body).unwrap();
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

fn begin(scene: &mut Scene, at: &Provider, code: [u8; 32]) -> Authorization {
    let query = BeginAuthorization {
        provider: at.id,
        provider_version: at.version,
        browser: BROWSER,
        return_to: "/".to_owned(),
        code,
    };
    scene.ask(&Principal::Anonymous, query).unwrap()
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
fn who_came_once_is_never_again_who_has_their_address() {
    let mut scene = Scene::new();
    scene.add("owner@b.c", Role::Owner);
    let idp = provider(&mut scene, Some(Role::Viewer));
    let body = |text: serde_json::Value| text.as_object().unwrap().clone();
    let announced = body(serde_json::json!({"userName": "ann@b.c"}));
    scene.run(&NODE, CreateUser { body: announced, base: String::new() }).unwrap();
    let ann = come(&mut scene, &idp, "1", "ann@b.c").unwrap().user;
    let bea = come(&mut scene, &idp, "2", "bea@b.c").unwrap().user;
    // That the directory speaks of somebody does not make them announced.
    for (user, email) in [(ann, "ann@b.c"), (bea, "bea@b.c")] {
        let change = body(serde_json::json!({"userName": email, "displayName": "Other"}));
        let change = UserChange::Replace(change);
        let command = ChangeUser { user, change, if_match: None, base: String::new() };
        scene.run(&NODE, command).unwrap();
    }
    scene.run(&NODE, DeleteIdentityProvider { provider: idp.id }).unwrap();
    let theirs = provider(&mut scene, Some(Role::Viewer));
    for email in ["ann@b.c", "bea@b.c"] {
        assert_eq!(come(&mut scene, &theirs, "9", email).unwrap_err(), Unwanted::NotLinked);
    }
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
fn what_somebody_set_up_who_administers_no_more_lets_nobody_in_until_it_is_said_again() {
    let mut scene = Scene::new();
    let owner = scene.add("owner@b.c", Role::Owner);
    let admin = scene.add("admin@b.c", Role::Admin);
    let by = person(admin, Role::Admin);
    let idp = provider_of(&mut scene, &by, ProviderKind::Oidc, Some(Role::Viewer));
    let ann = come(&mut scene, &idp, "1", "ann@b.c").unwrap().user;
    let bea = come(&mut scene, &idp, "2", "bea@b.c").unwrap().user;
    scene.change(bea, |row| row.role = Role::Admin);
    let demote = |role: Role| move |row: &mut UserRow| row.role = role;
    let comes = |scene: &mut Scene, at: &Provider, subject: &str, email: &str| {
        come(scene, at, subject, email).map(|opened| opened.user)
    };
    assert_eq!(comes(&mut scene, &idp, "2", "bea@b.c"), Ok(bea));
    // Of who was demoted or removed, it vouches for those who do not administer.
    scene.change(admin, demote(Role::Customer));
    for is_removed in [false, true] {
        if is_removed {
            scene.run(&NODE, RemoveMember { user: admin }).unwrap();
        }
        assert_eq!(comes(&mut scene, &idp, "1", "ann@b.c"), Ok(ann));
        assert_eq!(comes(&mut scene, &idp, "2", "bea@b.c"), Err(Unwanted::Role));
        assert_eq!(comes(&mut scene, &idp, "3", "cid@b.c"), Err(Unwanted::Unconfirmed));
    }
    let confirm = UpdateIdentityProvider {
        provider: idp.id,
        changes: IdentityProviderChanges {
            client_id: Some("bulkhead".to_owned()),
            ..IdentityProviderChanges::default()
        },
        if_match: None,
    };
    scene.run(&person(owner, Role::Owner), confirm).unwrap();
    let found = scene.ask(&Principal::Anonymous, FindProvider { name: "idp".to_owned() });
    let idp = found.unwrap().unwrap();
    assert_eq!(comes(&mut scene, &idp, "2", "bea@b.c"), Ok(bea));
    assert!(comes(&mut scene, &idp, "3", "cid@b.c").is_ok());
}

#[test]
fn google_is_believed_on_its_own_addresses_and_on_those_it_hosts() {
    let mut scene = Scene::new();
    let google = provider_of(&mut scene, &NODE, ProviderKind::Google, Some(Role::Viewer));
    let mut comes = |subject: &str, email: &str, hosted_domain: Option<&str>| {
        let hosted_domain = hosted_domain.map(ToOwned::to_owned);
        let vouched = Vouched { hosted_domain, ..vouched(subject, email) };
        let (provider, provider_version) = (google.id, google.version);
        let command = SignInVouched { provider, provider_version, vouched };
        match scene.run(&Principal::Anonymous, command).unwrap() {
            VouchedOutcome::SignedIn(_) => Ok(()),
            VouchedOutcome::Refused(why) => Err(why),
        }
    };
    assert_eq!(comes("1", "ann@b.c", None), Err(Unwanted::EmailUnverified));
    assert_eq!(comes("1", "ann@gmail.com.b.c", None), Err(Unwanted::EmailUnverified));
    assert_eq!(comes("1", "ann@b.c", Some("b.c")), Ok(()));
    assert_eq!(comes("2", "Bea@Gmail.com", None), Ok(()));
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
    let begun = begin(&mut scene, &idp, [1; 32]);
    assert!(take(&mut scene, &begun.state, BrowserBinding([2; 32])).is_none(), "another browser");
    let taken = take(&mut scene, &begun.state, BROWSER).unwrap();
    assert_eq!((taken.nonce, taken.verifier), (begun.nonce, begun.verifier));
    assert!(take(&mut scene, &begun.state, BROWSER).is_none(), "once");
    let late = begin(&mut scene, &idp, [2; 32]);
    scene.now_ms += AUTHORIZATION_MS + 1_000;
    assert!(take(&mut scene, &late.state, BROWSER).is_none(), "too late");
    let other = Scene::of(storage::id::TenantId::new(1, [8; 10]));
    let mut other = other;
    assert!(take(&mut other, &late.state, BROWSER).is_none(), "another tenant");
}

#[test]
fn a_state_that_was_altered_anywhere_is_none() {
    let mut scene = Scene::new();
    let idp = provider(&mut scene, None);
    let begun = begin(&mut scene, &idp, [1; 32]);
    let bytes = URL_SAFE_NO_PAD.decode(&begun.state).unwrap();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        if let Some(state) = StateToken::parse(&URL_SAFE_NO_PAD.encode(&altered)) {
            let command = TakeAuthorization { state, browser: BROWSER, provider: "idp".to_owned() };
            let taken = scene.run(&Principal::Anonymous, command).unwrap();
            assert!(taken.is_none(), "byte {at}");
        }
    }
    assert!(take(&mut scene, &begun.state, BROWSER).is_some());
}

#[test]
fn however_many_begin_nothing_is_written_and_what_was_used_is_forgotten_when_it_is_over() {
    let mut scene = Scene::new();
    let idp = provider(&mut scene, None);
    let rows = |scene: &mut Scene| {
        let any = Key::Authorization { ends_s: 0, digest: [0; 32] };
        let prefix = storage::keys::Prefix::kind(&any);
        let scan = storage::txn::Scan { prefix, after: None, reverse: false, limit: 100 };
        scene.read(&Principal::Anonymous, |cx| cx.rows(&scan).unwrap().len())
    };
    let first = begin(&mut scene, &idp, [0; 32]);
    for n in 1..=200 {
        begin(&mut scene, &idp, [n; 32]);
    }
    assert_eq!(rows(&mut scene), 0);
    assert!(take(&mut scene, &first.state, BROWSER).is_some());
    assert_eq!(rows(&mut scene), 1);
    scene.now_ms += AUTHORIZATION_MS + 1_000;
    let next = begin(&mut scene, &idp, [201; 32]);
    assert!(take(&mut scene, &next.state, BROWSER).is_some());
    assert_eq!(rows(&mut scene), 1, "what is over stays");
}
