//! What mailed links open, and what they do not.

use super::*;
use crate::permit::{Principal, Role};
use crate::tenant::mail::{Content, ReadDueMail};
use crate::tenant::members::scene::{NODE, Scene, holder, person};
use crate::tenant::recovery::links::{LinkKind, LinkView, ReadLink};
use crate::tenant::sessions::own::ChangePassword;

const NOBODY: Principal = Principal::Anonymous;

fn forgot(scene: &mut Scene, email: &str) {
    let command = RequestReset { email: Some(email.to_owned()), account: format!("acme {email}") };
    scene.run(&NOBODY, command).unwrap();
}

/// The links that were mailed and still count, oldest first.
fn links(scene: &mut Scene) -> Vec<MailedToken> {
    let due = scene.ask(&NODE, ReadDueMail { limit: 100 }).unwrap();
    let token = |content| match content {
        Content::Reset(link) | Content::Verify(link) => MailedToken::parse(&link.token),
        _ => None,
    };
    due.into_iter().filter_map(|due| token(due.letter?.content)).collect()
}

fn reset(scene: &mut Scene, token: &MailedToken) -> Result<(), TenantError> {
    let command = ResetPassword { token: token.clone(), password_phc: "new".to_owned() };
    scene.run(&NOBODY, command)
}

#[test]
fn a_link_sets_a_password_once_and_ends_all_sessions() {
    let mut scene = Scene::new();
    let user = scene.add("ann@example.org", Role::Owner);
    let opened = scene.sign_in(user);
    forgot(&mut scene, " ANN@Example.org");
    forgot(&mut scene, "ann@example.org");
    let links = links(&mut scene);
    assert_eq!(links.len(), 2);
    assert_eq!(
        scene.ask(&NOBODY, CheckReset { token: links[0].clone() }).unwrap(),
        "ann@example.org"
    );
    reset(&mut scene, &links[1]).unwrap();
    let row = scene.user(user).unwrap();
    assert_eq!(row.password.as_deref(), Some("new"));
    assert!(row.email_verified && row.authz > opened.authz);
    for link in &links {
        assert!(matches!(reset(&mut scene, link), Err(TenantError::BadLink)), "used or superseded");
    }
    assert_eq!((scene.noted("password.reset_request"), scene.noted("password.reset")), (2, 1));
    assert_eq!(scene.state.owners, 1);
}

#[test]
fn nobody_learns_from_asking_whether_an_address_is_known() {
    let mut scene = Scene::new();
    scene.add("ann@example.org", Role::Owner);
    forgot(&mut scene, "bob@example.org");
    scene.run(&NOBODY, RequestReset { email: None, account: "x y".to_owned() }).unwrap();
    assert_eq!((scene.state.mail.waiting, scene.noted("password.reset_request")), (0, 2));
}

#[test]
fn a_link_ends_with_its_hour_and_with_a_change_of_password_or_rights() {
    let mut scene = Scene::new();
    let user = scene.add("ann@example.org", Role::Owner);
    forgot(&mut scene, "ann@example.org");
    let link = links(&mut scene).remove(0);
    let begun = scene.now_ms;
    scene.now_ms += limits::TICKET_MS;
    assert!(matches!(reset(&mut scene, &link), Err(TenantError::BadLink)));
    scene.now_ms = begun;
    let opened = scene.sign_in(user);
    let change = ChangePassword { current_phc: "phc".to_owned(), new_phc: "other".to_owned() };
    scene.run(&holder(&opened), change).unwrap();
    assert!(matches!(reset(&mut scene, &link), Err(TenantError::BadLink)));
    let due = scene.ask(&NODE, ReadDueMail { limit: 10 }).unwrap();
    let notices = due.iter().filter_map(|due| due.letter.as_ref());
    assert!(
        notices
            .into_iter()
            .any(|letter| matches!(letter.content, Content::Changed(Change::Password, Some(_))))
    );
}

#[test]
fn a_changed_link_or_one_for_something_else_opens_nothing() {
    let mut scene = Scene::new();
    let user = scene.add("ann@example.org", Role::Owner);
    scene.run(&person(user, Role::Owner), RequestVerification).unwrap();
    let due = scene.ask(&NODE, ReadDueMail { limit: 10 }).unwrap();
    let Some(Content::Verify(link)) = due[0].letter.as_ref().map(|letter| letter.content.clone())
    else {
        panic!("no link to verify");
    };
    let verify = MailedToken::parse(&link.token).unwrap();
    assert!(matches!(reset(&mut scene, &verify), Err(TenantError::BadLink)));
    for at in 4..link.token.len() {
        let mut bytes = link.token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(bytes).unwrap();
        let Some(token) = MailedToken::parse(&text) else { continue };
        assert!(matches!(read(&mut scene, &token), Err(TenantError::BadLink)), "told at {at}");
        let refused = scene.run(&NOBODY, VerifyEmail { token });
        assert!(matches!(refused, Err(TenantError::BadLink)), "changed at {at}");
    }
    scene.run(&NOBODY, VerifyEmail { token: verify.clone() }).unwrap();
    assert!(scene.user(user).unwrap().email_verified);
    assert!(matches!(scene.run(&NOBODY, VerifyEmail { token: verify }), Err(TenantError::BadLink)));
}

#[test]
fn of_many_links_only_the_newest_few_count() {
    let mut scene = Scene::new();
    scene.add("ann@example.org", Role::Owner);
    for _ in 0..limits::TICKETS_MAX + 3 {
        scene.now_ms += 1;
        forgot(&mut scene, "ann@example.org");
    }
    assert_eq!(links(&mut scene).len(), limits::TICKETS_MAX);
}

fn read(scene: &mut Scene, token: &MailedToken) -> Result<LinkView, TenantError> {
    scene.ask(&NOBODY, ReadLink { token: token.clone() })
}

#[test]
fn a_link_says_what_it_is_for_and_whose_until_it_is_used_or_over() {
    let mut scene = Scene::new();
    let user = scene.add("ann@example.org", Role::Owner);
    scene.run(&person(user, Role::Owner), RequestVerification).unwrap();
    scene.now_ms += 1;
    forgot(&mut scene, "ann@example.org");
    let mailed = links(&mut scene);
    for (token, kind) in mailed.iter().zip([LinkKind::Verify, LinkKind::Reset]) {
        let view = read(&mut scene, token).unwrap();
        assert_eq!(
            (view.kind, view.tenant.slug.as_str(), view.tenant.name.as_str(), view.role),
            (kind, "acme", "Acme", None)
        );
        assert_eq!(read(&mut scene, token).unwrap(), view, "it is not used up");
    }
    reset(&mut scene, &mailed[1]).unwrap();
    assert!(matches!(read(&mut scene, &mailed[1]), Err(TenantError::BadLink)), "used");
    forgot(&mut scene, "ann@example.org");
    let late = links(&mut scene).pop().unwrap();
    read(&mut scene, &late).unwrap();
    scene.now_ms += limits::TICKET_MS;
    assert!(matches!(read(&mut scene, &late), Err(TenantError::BadLink)), "over");
}
