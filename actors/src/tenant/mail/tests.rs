//! How mails wait, go and are given up.

use storage::id::UserId;

use super::*;
use crate::permit::Role;
use crate::tenant::members::scene::{NODE, Scene, person};
use crate::tenant::recovery::RequestVerification;

fn waiting_mail(scene: &mut Scene) -> Vec<Due> {
    scene.ask(&NODE, ReadDueMail { limit: 10 }).unwrap()
}

fn note(scene: &mut Scene, id: MailId, delivery: Delivery) {
    scene.run(&NODE, NoteDelivery { id, delivery }).unwrap();
}

fn with_mail() -> (Scene, UserId) {
    let mut scene = Scene::new();
    let user = scene.add("a@b.c", Role::Owner);
    scene.run(&person(user, Role::Owner), RequestVerification).unwrap();
    (scene, user)
}

#[test]
fn a_mail_waits_until_it_was_taken() {
    let (mut scene, _) = with_mail();
    assert_eq!(scene.state.mail.waiting, 1);
    let due = waiting_mail(&mut scene);
    let letter = due[0].letter.as_ref().unwrap();
    assert_eq!((letter.to.as_str(), letter.tenant_name.as_str()), ("a@b.c", "Acme"));
    assert_eq!(letter.tenant_slug, "acme");
    note(&mut scene, due[0].id, Delivery::Sent);
    assert_eq!((scene.state.mail, waiting_mail(&mut scene).len()), (Outbox::default(), 0));
    // Told twice, as after a crash.
    note(&mut scene, due[0].id, Delivery::Sent);
    assert_eq!(scene.state.mail.waiting, 0);
}

#[test]
fn a_mail_that_is_not_taken_is_tried_again_ever_later_and_given_up_on_record() {
    let (mut scene, _) = with_mail();
    let began = scene.now_ms;
    let mut pauses = Vec::new();
    while let Some(due) = waiting_mail(&mut scene).pop() {
        note(&mut scene, due.id, Delivery::Later);
        let due_ms = scene.state.mail.due_ms;
        if scene.state.mail.waiting > 0 {
            pauses.push(due_ms - scene.now_ms);
            assert!(waiting_mail(&mut scene).is_empty(), "not before it is due");
            scene.now_ms = due_ms;
        }
    }
    assert_eq!(pauses[..3], [5_000, 20_000, 80_000]);
    assert!(scene.now_ms < began + limits::TICKET_MS);
    assert_eq!(scene.noted("mail.deliver"), 1);
    assert_eq!(scene.state.mail, Outbox::default());
}

#[test]
fn a_mail_that_nobody_will_take_is_given_up_at_once() {
    let (mut scene, _) = with_mail();
    let due = waiting_mail(&mut scene);
    note(&mut scene, due[0].id, Delivery::Never { reason: "550 no such mailbox".to_owned() });
    assert_eq!((scene.state.mail.waiting, scene.noted("mail.deliver")), (0, 1));
}

#[test]
fn a_mail_whose_cause_is_gone_is_not_sent() {
    let (mut scene, user) = with_mail();
    let command = crate::tenant::members::RemoveMember { user };
    scene.add("other@b.c", Role::Owner);
    scene.run(&NODE, command).unwrap();
    let due = waiting_mail(&mut scene);
    assert!(due.len() == 1 && due[0].letter.is_none());
    note(&mut scene, due[0].id, Delivery::Moot);
    assert_eq!((scene.state.mail.waiting, scene.noted("mail.deliver")), (0, 0));
}

#[test]
fn an_outbox_has_a_bound() {
    let (mut scene, user) = with_mail();
    scene.state.mail.waiting = limits::MAILS_MAX;
    let refused = scene.run(&person(user, Role::Owner), RequestVerification);
    assert!(matches!(refused, Err(TenantError::Busy)));
}

#[test]
fn a_row_of_a_release_that_did_not_say_from_where_is_read() {
    #[derive(Serialize)]
    struct Older(MailId, String, About, u64, u64, u32, u64);
    let (_, user) = with_mail();
    let id = MailId::new(1, [1; 10]);
    let older = Older(id, "a@b.c".to_owned(), About::PasswordChanged(user), 1, 2, 3, 4);
    let row: MailRow = value::decode(&value::encode(&older)).unwrap();
    assert_eq!((row.id, row.due_ms, row.seen), (id, 4, None));
}
