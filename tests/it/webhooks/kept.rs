//! An event is durable before its sender is told so.

use serde_json::json;

use super::Hook;
use crate::kit::{Launcher, Library, PASSWORD, Peers, WorldOptions};

#[test]
fn an_event_that_was_answered_survives_a_kill() {
    let Some(peers) = Peers::start() else { return };
    let home = tempfile::tempdir().expect("a directory");
    let program = Launcher::on(&home.path().join("data"));
    let mut node = program.serve();
    let body = json!({"tenant": {"slug": "ada", "name": "Ada"}, "email": "owner@ada.example", "password": PASSWORD});
    let signed_up = node.client.post("/v1/auth/sign-up", body, 201);
    let owner = node.client.with_token(&signed_up.str("/access_token"));
    let made = owner.post("/v1/integrations", json!({"source": "stripe", "name": "Sender"}), 201);
    let (id, place, secret) = (made.str("/id"), made.str("/hook_path"), made.str("/secret"));
    let hook = Hook { source: "stripe", library: Library::Npm, id, place, secret };
    let deliveries: Vec<_> =
        (0..20).map(|serial| hook.delivery(&peers, &format!("evt_{serial}"))).collect();
    for delivery in &deliveries {
        delivery.accept(&node.client, &hook.place);
    }
    node.kill();

    let mut node = program.serve();
    let owner = node.client.with_token(owner.token.as_deref().expect("a token"));
    assert_eq!(hook.events(&owner).len(), deliveries.len(), "an answered event is lost");
    for delivery in &deliveries {
        delivery.accept(&node.client, &hook.place);
    }
    assert_eq!(hook.events(&owner).len(), deliveries.len(), "an event is kept twice");
    assert!(node.terminate().success());
}

#[test]
fn repetitions_are_found_after_a_restart() {
    let Some(peers) = Peers::start() else { return };
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut world = WorldOptions::default().data(&data).start();
    let ada = world.tenant("ada");
    let hook = Hook::new(&ada, "razorpay", Library::PyPi);
    let delivery = hook.delivery(&peers, "evt_1");
    delivery.accept(&world.client, &hook.place);
    world.stop();
    let world = WorldOptions::default().data(&data).start();
    delivery.accept(&world.client, &hook.place);
    let owner = world.client.with_token(ada.owner.token.as_deref().expect("a token"));
    assert_eq!(hook.events(&owner).len(), 1);
}
