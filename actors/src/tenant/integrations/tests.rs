//! Integrations and their events, in one tenant alone on a stage.

use aws_lc_rs::hmac;
use serde_json::Value;

use super::events::{ListEvents, ReadEvent, ReceiveWebhook, Received};
use super::secrets::{EXPIRE_AFTER_S_MAX, NewSecret, RemoveSecret, RotateSecret};
use super::*;
use crate::env::Env;
use crate::permit::Principal;
use crate::tenant::error::Conflict;
use crate::tenant::members::scene::{NODE, Scene};
use crate::webhook::inbox::{InboxHandle, WebhookInbox};
use crate::webhook::scheme::Headers;

/// A tenant and the inbox beside it.
struct Stage {
    scene: Scene,
    inbox: InboxHandle,
    system: actix_rt::SystemRunner,
}

impl Stage {
    fn new() -> Self {
        let system = actix_rt::System::new();
        let inbox = system.block_on(async { WebhookInbox::start(&Env::real()) });
        Self { scene: Scene::new(), inbox, system }
    }
    /// Deliveries that the inbox was told were refused.
    fn refused(&self) -> u64 {
        let report = self.system.block_on(self.inbox.report()).expect("an answer");
        report.noisiest.iter().map(|noisy| noisy.refused).sum()
    }
}

impl std::ops::Deref for Stage {
    type Target = Scene;
    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl std::ops::DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Scene {
        &mut self.scene
    }
}

const GITHUB_SECRET: &str = "It's a Secret to Everybody";

fn value(document: &Document) -> Value {
    serde_json::from_slice(&document.json).expect("a document is JSON")
}

fn create(scene: &mut Scene, source: Source, secrets: &[&str]) -> (IntegrationId, Value) {
    let secrets = secrets.iter().map(|text| Secret::new((*text).to_owned())).collect();
    let command = CreateIntegration { source, name: "Source".to_owned(), secrets };
    // Ids made in the same millisecond have no order.
    scene.now_ms += 1;
    let (id, document) = scene.run(&NODE, command).expect("created");
    (id, value(&document))
}

fn github(scene: &mut Scene) -> IntegrationId {
    create(scene, Source::Github, &[GITHUB_SECRET]).0
}

fn read(scene: &mut Scene, integration: IntegrationId) -> Value {
    value(&scene.ask(&NODE, ReadIntegration { integration }).expect("read"))
}

fn rotate(
    scene: &mut Scene,
    integration: IntegrationId,
    secret: Option<&str>,
    expire_others_after_s: Option<u32>,
) -> Result<(SecretId, Document), TenantError> {
    let secret = secret.map(|text| Secret::new(text.to_owned()));
    scene.run(&NODE, RotateSecret { integration, new: NewSecret { secret, expire_others_after_s } })
}

/// Delivers a GitHub event that the sender signs with `secret`.
fn deliver(
    stage: &mut Stage,
    integration: IntegrationId,
    secret: &str,
    delivery: &str,
    body: &str,
) -> Result<Received, TenantError> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())));
    let headers = [
        ("x-hub-signature-256", signature.as_bytes()),
        ("x-github-delivery", delivery.as_bytes()),
        ("x-github-event", b"push".as_slice()),
    ];
    let (headers, body) = (Headers::from_pairs(headers), body.as_bytes().to_vec());
    let command = ReceiveWebhook { integration, headers, body, inbox: stage.inbox.clone() };
    let drafts = stage.drafts.len();
    let answer = stage.scene.run(&Principal::Sender, command);
    assert_eq!(stage.drafts.len(), drafts, "a delivery writes no audit entry");
    answer
}

fn events(scene: &mut Scene, integration: IntegrationId, limit: usize) -> Vec<Vec<Value>> {
    let (mut pages, mut cursor) = (Vec::new(), None);
    loop {
        let paging = Paging { limit, cursor };
        let page = scene.ask(&NODE, ListEvents { integration, paging }).expect("listed");
        pages.push(
            page.items.iter().map(|item| serde_json::from_slice(item).expect("JSON")).collect(),
        );
        cursor = page.next;
        if cursor.is_none() {
            return pages;
        }
    }
}

#[test]
fn a_generated_secret_is_shown_once_and_a_given_one_never() {
    let scene = &mut Stage::new();
    let (id, answer) = create(scene, Source::Github, &[]);
    let secret = answer["secret"].as_str().expect("shown").to_owned();
    assert_eq!(answer["hook_path"], format!("/v1/hooks/acme/{id}"));
    assert!(deliver(scene, id, &secret, "1", "{}").is_ok());
    let shown = read(scene, id);
    assert!(!shown.to_string().contains(&secret) && shown.get("secret").is_none());
    let (_, answer) = create(scene, Source::Github, &[GITHUB_SECRET]);
    assert!(!answer.to_string().contains(GITHUB_SECRET) && answer.get("secret").is_none());
    let page = scene.ask(&NODE, ListIntegrations { paging: Paging { limit: 1, cursor: None } });
    let page = page.expect("listed");
    assert_eq!(serde_json::from_slice::<Value>(&page.items[0]).expect("JSON"), shown);
    let paging = Paging { limit: 1, cursor: page.next };
    let second = scene.ask(&NODE, ListIntegrations { paging }).expect("listed");
    assert_eq!((second.items.len(), second.next), (1, None));
    let drafts = format!("{:?}", scene.drafts);
    assert!(!drafts.contains(&secret) && !drafts.contains(GITHUB_SECRET));
}

#[test]
fn bad_input_names_each_field_and_creates_nothing() {
    let scene = &mut Stage::new();
    let command = CreateIntegration {
        source: Source::Standard,
        name: " ".to_owned(),
        secrets: ["whsec_AAAA", "x"].map(|text| Secret::new(text.to_owned())).into(),
    };
    let Err(TenantError::Invalid(errors)) = scene.run(&NODE, command) else {
        panic!("it was taken");
    };
    let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/name", "/secrets/0", "/secrets/1"]);
    let twice = vec![Secret::new(GITHUB_SECRET.to_owned()); 2];
    let command =
        CreateIntegration { source: Source::Github, name: "n".to_owned(), secrets: twice };
    assert!(matches!(scene.run(&NODE, command), Err(TenantError::Invalid(_))));
    assert!(
        serde_json::from_str::<CreateIntegration>(r#"{"source":"github","name":"n","x":1}"#)
            .is_err()
    );
    assert!(
        serde_json::from_str::<CreateIntegration>(r#"{"source":"gitlab","name":"n"}"#).is_err()
    );
    let page = scene.ask(&NODE, ListIntegrations { paging: Paging { limit: 9, cursor: None } });
    assert!(page.expect("listed").items.is_empty());
    assert_eq!(scene.noted("integration.create"), 0);
}

#[test]
fn a_repeated_event_is_stored_once_per_integration() {
    let scene = &mut Stage::new();
    let (one, other) = (github(scene), github(scene));
    let first = deliver(scene, one, GITHUB_SECRET, "d1", r#"{"n":1}"#).expect("stored");
    let again = deliver(scene, one, GITHUB_SECRET, "d1", r#"{"n":1}"#).expect("known");
    assert_eq!((first.duplicate, again.duplicate, first.event), (false, true, again.event));
    let elsewhere = deliver(scene, other, GITHUB_SECRET, "d1", r#"{"n":1}"#);
    assert!(!elsewhere.expect("stored").duplicate);
    let listed = events(scene, one, 10).concat();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["provider_event_id"], &listed[0]["type"]),
        (&"d1".into(), &"push".into())
    );
    let event = first.event;
    let read = scene.ask(&NODE, ReadEvent { integration: one, event }).expect("read");
    assert_eq!(value(&read)["payload"], serde_json::json!({"n": 1}));
    let foreign = scene.ask(&NODE, ReadEvent { integration: other, event });
    assert!(matches!(foreign, Err(TenantError::NotFound)));
}

#[test]
fn a_wrong_signature_changes_nothing() {
    let scene = &mut Stage::new();
    let id = github(scene);
    let before = scene.state.clone();
    let answer = deliver(scene, id, "another tenant's secret", "d1", "{}");
    assert!(matches!(answer, Err(TenantError::BadSignature)));
    assert_eq!((scene.refused(), &scene.state), (1, &before));
    assert!(events(scene, id, 10).concat().is_empty());
    // Not even the marker: the true sender still gets through with the same id.
    assert!(!deliver(scene, id, GITHUB_SECRET, "d1", "{}").expect("stored").duplicate);
}

#[test]
fn a_disabled_integration_answers_like_an_absent_one() {
    let scene = &mut Stage::new();
    let id = github(scene);
    let toggle = |enabled| UpdateIntegration {
        integration: id,
        changes: IntegrationChanges { name: None, enabled: Some(enabled) },
        if_match: None,
    };
    scene.run(&NODE, toggle(false)).expect("switched off");
    let off = deliver(scene, id, GITHUB_SECRET, "d1", "{}");
    let absent = IntegrationId::new(1, [5; 10]);
    let absent = deliver(scene, absent, GITHUB_SECRET, "d1", "{}");
    assert!(matches!((off, absent), (Err(TenantError::NotFound), Err(TenantError::NotFound))));
    scene.run(&NODE, toggle(true)).expect("switched on");
    scene.run(&NODE, toggle(true)).expect("nothing to do");
    assert!(deliver(scene, id, GITHUB_SECRET, "d1", "{}").is_ok());
    assert_eq!(scene.noted("integration.toggle"), 2, "doing nothing is not noted");
    assert_eq!(read(scene, id)["version"], 3);
    let stale = UpdateIntegration { if_match: Some(2), ..toggle(false) };
    assert!(matches!(scene.run(&NODE, stale), Err(TenantError::VersionMismatch)));
}

#[test]
fn the_old_secret_verifies_until_it_expires_and_the_new_one_from_now_on() {
    let scene = &mut Stage::new();
    let id = github(scene);
    rotate(scene, id, Some("the next secret"), Some(60)).expect("rotated");
    assert!(deliver(scene, id, GITHUB_SECRET, "d1", "{}").is_ok());
    assert!(deliver(scene, id, "the next secret", "d2", "{}").is_ok());
    scene.now_ms += 59_999;
    assert!(deliver(scene, id, GITHUB_SECRET, "d3", "{}").is_ok());
    scene.now_ms += 1;
    let old = deliver(scene, id, GITHUB_SECRET, "d4", "{}");
    assert!(matches!(old, Err(TenantError::BadSignature)));
    assert!(deliver(scene, id, "the next secret", "d4", "{}").is_ok());
    let (_, shown) = rotate(scene, id, None, Some(0)).expect("rotated");
    let shown = value(&shown);
    assert_eq!(shown["secrets"].as_array().map(Vec::len), Some(1), "expired ones are gone");
    let newest = shown["secret"].as_str().expect("generated").to_owned();
    let old = deliver(scene, id, "the next secret", "d5", "{}");
    assert!(matches!(old, Err(TenantError::BadSignature)));
    assert!(deliver(scene, id, &newest, "d5", "{}").is_ok());
    assert_eq!(scene.noted("integration.secret_rotate"), 2);
}

#[test]
fn secrets_are_bounded_unique_and_can_be_removed() {
    let scene = &mut Stage::new();
    let id = github(scene);
    let again = rotate(scene, id, Some(GITHUB_SECRET), None);
    assert!(matches!(again, Err(TenantError::Invalid(_))));
    let late = rotate(scene, id, None, Some(EXPIRE_AFTER_S_MAX + 1));
    assert!(matches!(late, Err(TenantError::Invalid(_))));
    let added: Vec<_> =
        (1..limits::SECRETS_MAX).map(|_| rotate(scene, id, None, None).expect("room").0).collect();
    let full = rotate(scene, id, None, None);
    assert!(matches!(full, Err(TenantError::Conflict(Conflict::TooManySecrets))));
    let remove = |secret| RemoveSecret { integration: id, secret };
    scene.run(&NODE, remove(added[0])).expect("removed");
    assert!(matches!(scene.run(&NODE, remove(added[0])), Err(TenantError::NotFound)));
    assert!(rotate(scene, id, None, None).is_ok());
}

#[test]
fn events_are_listed_latest_first_each_once_and_a_wrong_cursor_is_refused() {
    let scene = &mut Stage::new();
    let id = github(scene);
    for number in 0..45 {
        scene.now_ms += 1;
        deliver(scene, id, GITHUB_SECRET, &number.to_string(), "not JSON").expect("stored");
    }
    for limit in [1, 15, 16, 17, 44, 45, 200] {
        let pages = events(scene, id, limit);
        assert_eq!(pages.len(), 45_usize.div_ceil(limit), "no page is empty");
        let told: Vec<_> =
            pages.concat().iter().map(|event| event["provider_event_id"].clone()).collect();
        let wanted: Vec<_> = (0..45).rev().map(|n: i32| Value::from(n.to_string())).collect();
        assert_eq!(told, wanted, "limit {limit}");
    }
    for text in ["", "AAAA", "=", "é"] {
        let paging = Paging { limit: 1, cursor: Some(text.to_owned()) };
        let answer = scene.ask(&NODE, ListEvents { integration: id, paging });
        assert!(matches!(answer, Err(TenantError::Invalid(_))), "{text:?}");
    }
}

#[test]
fn a_page_of_large_events_ends_early_with_a_cursor() {
    let scene = &mut Stage::new();
    let id = github(scene);
    let large = "x".repeat(256 * 1024);
    for number in 0..40 {
        scene.now_ms += 1;
        deliver(scene, id, GITHUB_SECRET, &number.to_string(), &large).expect("stored");
    }
    let pages = events(scene, id, 200);
    assert!(pages.len() > 1 && pages.concat().len() == 40);
}

#[test]
fn a_payload_that_is_no_json_comes_back_in_base64() {
    let scene = &mut Stage::new();
    let id = github(scene);
    let event = deliver(scene, id, GITHUB_SECRET, "1", "a=b").expect("stored").event;
    let read = value(&scene.ask(&NODE, ReadEvent { integration: id, event }).expect("read"));
    assert_eq!((&read["payload_base64"], read.get("payload")), (&"YT1i".into(), None));
}
