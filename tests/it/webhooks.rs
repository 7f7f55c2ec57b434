//! Deliveries signed by the providers' own libraries: believed, kept once, and nothing else is.

use actors::env::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::kit::{Client, Library, Peers, Reply, SIGNERS, Signing, Tenant, World};

mod forged;
mod kept;
mod secrets;

fn now_s() -> u64 {
    SystemClock::new().now_ms() / 1_000
}

/// An integration, and what its sender knows.
struct Hook {
    source: &'static str,
    library: Library,
    id: String,
    secret: String,
    place: String,
}

impl Hook {
    /// Makes one with a secret that the node generates.
    fn new(tenant: &Tenant, source: &'static str, library: Library) -> Self {
        let made =
            tenant.owner.post("/v1/integrations", json!({"source": source, "name": "Sender"}), 201);
        let id = made.str("/id");
        let place = format!("/v1/hooks/{}/{id}", tenant.slug);
        assert_eq!(made.str("/hook_path"), place);
        Self { source, library, id, secret: made.str("/secret"), place }
    }

    /// What the provider would send now.
    fn delivery(&self, peers: &Peers, event: &str) -> Delivery {
        self.delivery_of(peers, event, &self.body(event))
    }
    fn delivery_of(&self, peers: &Peers, event: &str, body: &str) -> Delivery {
        self.delivery_at(peers, event, body, now_s())
    }
    fn delivery_at(&self, peers: &Peers, event: &str, body: &str, timestamp: u64) -> Delivery {
        let Self { source, library, secret, .. } = self;
        let signing = Signing { source, library: *library, secret, body, id: event, timestamp };
        Delivery { headers: peers.sign(signing), body: body.as_bytes().to_vec() }
    }

    /// A body with blanks and a letter beyond ASCII, so that writing it anew would change its bytes.
    fn body(&self, event: &str) -> String {
        match self.source {
            "stripe" => format!(r#"{{ "id": "{event}", "type": "made",  "note": "é" }}"#),
            "slack" => format!(
                r#"{{ "type": "event_callback", "event_id": "{event}",  "event": {{"type": "made"}}, "note": "é" }}"#
            ),
            "razorpay" => r#"{ "event": "made",  "note": "é" }"#.to_owned(),
            _ => r#"{ "type": "made",  "note": "é" }"#.to_owned(),
        }
    }

    /// The header that its signature is in.
    fn signature_header(&self) -> &'static str {
        match self.source {
            "stripe" => "stripe-signature",
            "github" => "x-hub-signature-256",
            "razorpay" => "x-razorpay-signature",
            "slack" => "x-slack-signature",
            _ => "webhook-signature",
        }
    }

    fn is_timed(&self) -> bool {
        ["stripe", "slack", "standard"].contains(&self.source)
    }

    /// What was received, latest first.
    fn events(&self, owner: &Client) -> Vec<Value> {
        let page = owner.get(&format!("/v1/integrations/{}/events", self.id), 200).json();
        page["items"].as_array().expect("a list").clone()
    }
}

/// A request of a sender.
#[derive(Clone)]
struct Delivery {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Delivery {
    fn without(&self, name: &str) -> Self {
        let mut changed = self.clone();
        changed.headers.retain(|(known, _)| known != name);
        assert_ne!(changed.headers.len(), self.headers.len(), "there was no {name}");
        changed
    }
    fn with(&self, name: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.headers.push((name.to_owned(), value.to_owned()));
        changed
    }
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("no {name}"))
    }
    /// With a header changed.
    fn altered(&self, name: &str, change: impl FnOnce(&str) -> String) -> Self {
        self.without(name).with(name, &change(self.header(name)))
    }
    fn with_body(&self, body: impl Into<Vec<u8>>) -> Self {
        Self { headers: self.headers.clone(), body: body.into() }
    }

    fn send(&self, sender: &Client, place: &str) -> Reply {
        let sender = self
            .headers
            .iter()
            .fold(sender.anonymous(), |sender, (name, value)| sender.with_header(name, value));
        sender.send("POST", place, Some("application/json"), &self.body)
    }
    fn accept(&self, sender: &Client, place: &str) -> Reply {
        let reply = self.send(sender, place);
        assert_eq!(reply.status, 200, "{place}: {}", reply.text());
        assert_eq!(reply.json()["received"], json!(true));
        reply
    }

    /// The request as bytes, its body in chunks.
    fn chunked(&self, place: &str, chunk_bytes: usize) -> Vec<u8> {
        let mut request = format!("POST {place} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n");
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut request = request.into_bytes();
        for chunk in self.body.chunks(chunk_bytes) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    }
}

fn lsn(world: &World, tenant: &Tenant) -> u64 {
    let health = world.ops.get(&format!("/actors/{}", tenant.id), 200).json();
    health["lsn"].as_u64().expect("a number")
}

#[test]
fn every_providers_own_signature_is_believed_and_its_event_kept_once() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let ada = world.tenant("ada");
    for (source, library) in SIGNERS {
        let what = format!("{source} by {library:?}");
        let hook = Hook::new(&ada, source, library);
        let delivery = hook.delivery(&peers, "evt_1");
        let first = delivery.accept(&world.client, &hook.place);
        let again = delivery.accept(&world.client, &hook.place);
        assert_eq!(first.essence(), again.essence(), "{what}: a replay is answered otherwise");
        let later = hook.delivery_at(&peers, "evt_1", &hook.body("evt_1"), now_s() + 1);
        later.accept(&world.client, &hook.place);

        let events = hook.events(&ada.owner);
        assert_eq!(events.len(), 1, "{what}: {events:?}");
        assert_eq!(events[0]["provider_event_id"], "evt_1", "{what}");
        let kind = if source == "github" { "push" } else { "made" };
        assert_eq!(events[0]["type"], kind, "{what}");
        assert!(events[0]["received_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{what}");
        let place = format!(
            "/v1/integrations/{}/events/{}",
            hook.id,
            events[0]["id"].as_str().expect("an id")
        );
        let kept = ada.owner.get(&place, 200);
        assert!(
            kept.text().contains(hook.body("evt_1").trim()),
            "{what}: not the bytes that were signed"
        );

        hook.delivery(&peers, "evt_2").accept(&world.client, &hook.place);
        let events = hook.events(&ada.owner);
        assert_eq!(events.len(), 2, "{what}");
        assert_eq!(events[0]["provider_event_id"], "evt_2", "{what}: the latest comes first");
    }
}

#[test]
fn the_same_event_of_two_tenants_is_two_events() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    for tenant in [world.tenant("ada"), world.tenant("bob")] {
        let hook = Hook::new(&tenant, "stripe", Library::Npm);
        hook.delivery(&peers, "evt_same").accept(&world.client, &hook.place);
        assert_eq!(hook.events(&tenant.owner).len(), 1, "{}", tenant.slug);
    }
}

#[test]
fn slacks_question_is_answered_only_if_it_is_signed() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let ada = world.tenant("ada");
    let hook = Hook::new(&ada, "slack", Library::PyPi);
    let body = r#"{"type":"url_verification","token":"t","challenge":"what-slack-wants"}"#;
    let question = hook.delivery_of(&peers, "unused", body);
    let answer = question.accept(&world.client, &hook.place);
    assert_eq!(answer.str("/challenge"), "what-slack-wants");
    let unsigned = question.without("x-slack-signature").send(&world.client, &hook.place);
    assert_eq!(unsigned.status, 401);
    assert!(!unsigned.text().contains("what-slack-wants"));
}

#[test]
fn stripe_connects_account_is_kept() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let ada = world.tenant("ada");
    let hook = Hook::new(&ada, "stripe", Library::Npm);
    let body = r#"{"id":"evt_c","type":"payout.paid","account":"acct_connected"}"#;
    hook.delivery_of(&peers, "evt_c", body).accept(&world.client, &hook.place);
    hook.delivery(&peers, "evt_own").accept(&world.client, &hook.place);
    let events = hook.events(&ada.owner);
    assert_eq!(events[1]["account"], "acct_connected");
    assert_eq!(events[0].get("account"), None, "an event of one's own has no account");
}
