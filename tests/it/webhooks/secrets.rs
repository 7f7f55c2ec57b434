//! A sender is moved to a new secret without a lost delivery, and no secret is shown twice.

use std::time::Duration;

use serde_json::json;

use super::Hook;
use crate::kit::{Library, Peers, SIGNERS, TestClock, World, WorldOptions};

#[test]
fn two_secrets_work_during_a_rotation_and_the_old_one_ends_on_time() {
    let Some(peers) = Peers::start() else { return };
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let ada = world.tenant("ada");
    let old = Hook::new(&ada, "github", Library::Npm);
    let secrets = format!("/v1/integrations/{}/secrets", old.id);
    let added = ada.owner.post(&secrets, json!({"expire_others_after_s": 60}), 201);
    let ids: Vec<_> = added.json()["secrets"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["id"].clone())
        .collect();
    assert_eq!(ids.len(), 2);
    let new =
        Hook { secret: added.str("/secret"), id: old.id.clone(), place: old.place.clone(), ..old };
    assert_ne!(old.secret, new.secret);

    old.delivery(&peers, "by-old").accept(&world.client, &old.place);
    new.delivery(&peers, "by-new").accept(&world.client, &old.place);
    clock.advance(Duration::from_secs(61));
    let late = old.delivery(&peers, "late").send(&world.client, &old.place);
    assert_eq!(late.status, 401, "a secret outlives its end: {}", late.text());
    new.delivery(&peers, "in-time").accept(&world.client, &old.place);

    let owner = world.sign_in("ada", "owner@ada.example");
    owner.delete(&format!("{secrets}/{}", ids[1].as_str().expect("an id")), 204);
    let ended = new.delivery(&peers, "ended").send(&world.client, &old.place);
    assert_eq!(ended.status, 401, "a removed secret still works: {}", ended.text());
    assert_eq!(old.events(&owner).len(), 3);
}

#[test]
fn a_sender_may_sign_with_two_secrets_at_once() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let ada = world.tenant("ada");
    let listing =
        [("stripe", Library::Npm), ("standard", Library::Npm), ("standard", Library::PyPi)];
    for (source, library) in listing {
        let hook = Hook::new(&ada, source, library);
        let unknown = Hook::new(&ada, source, library);
        let header = hook.signature_header();
        let (good, other) = (hook.delivery(&peers, "both"), unknown.delivery(&peers, "both"));
        let other = other.header(header).to_owned();
        let both = good.altered(header, |own| match source {
            "stripe" => format!("{own},{}", &other[other.find("v1=").expect("a v1 entry")..]),
            _ => format!("{other} {own}"),
        });
        both.accept(&world.client, &hook.place);
        assert_eq!(hook.events(&ada.owner).len(), 1, "{source} by {library:?}");
    }
}

#[test]
fn a_secret_that_a_sender_has_already_is_taken_and_not_shown() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let ada = world.tenant("ada");
    for (source, library) in SIGNERS {
        let secret = match source {
            "standard" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            _ => "brought along by the sender",
        };
        let body = json!({"source": source, "name": "Sender", "secrets": [secret]});
        let made = ada.owner.post("/v1/integrations", body, 201);
        assert!(!made.text().contains(secret), "{source}: the caller's own secret is shown");
        let (id, place) = (made.str("/id"), made.str("/hook_path"));
        let hook = Hook { source, library, id, place, secret: secret.to_owned() };
        hook.delivery(&peers, "first").accept(&world.client, &hook.place);
    }
}

#[test]
fn no_secret_is_ever_shown_again() {
    let world = World::start();
    let ada = world.tenant("ada");
    let mut secrets = Vec::new();
    let mut places =
        vec!["/v1/integrations".to_owned(), "/v1/audit".to_owned(), "/v1/usage".to_owned()];
    for source in ["stripe", "razorpay", "github", "slack", "standard"] {
        let hook = Hook::new(&ada, source, Library::Npm);
        let place = format!("/v1/integrations/{}", hook.id);
        let added = ada.owner.post(&format!("{place}/secrets"), json!({}), 201).str("/secret");
        let renamed = ada.owner.patch(&place, json!({"name": "Renamed"}), 200);
        for secret in [&hook.secret, &added] {
            assert!(secret.len() >= 32, "{source}: {} characters are too few", secret.len());
            assert!(
                !renamed.text().contains(secret.as_str()),
                "{source}: an update shows a secret"
            );
        }
        assert!(
            !secrets.contains(&added) && hook.secret != added,
            "{source}: a secret was made twice"
        );
        secrets.extend([hook.secret.clone(), added]);
        places.extend([place.clone(), format!("{place}/events")]);
    }
    for place in places {
        let shown = ada.owner.get(&place, 200).text();
        for secret in &secrets {
            let bare = secret.trim_start_matches("whsec_");
            assert!(!shown.contains(bare), "{place} shows a secret");
        }
    }
}
