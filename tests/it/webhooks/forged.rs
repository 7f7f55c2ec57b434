//! What is not signed as it should be, or not for whom it should be, changes nothing.

use bulkhead::limits::HOOK_BODY_BYTES_MAX;
use serde_json::{Value, json};

use super::{Delivery, Hook, lsn, now_s};
use crate::kit::{Client, Library, Peers, SIGNERS, World, WorldOptions, raw};

/// Another character at a place where both hexadecimal and base64 carry bits.
fn flipped(signature: &str) -> String {
    let at = signature.len() - 10;
    let other = if signature[at..].starts_with('1') { "0" } else { "1" };
    format!("{}{other}{}", &signature[..at], &signature[at + 1..])
}

/// The signature's own text in capitals; what names the scheme stays.
fn capitals(signature: &str) -> String {
    let start = match signature.strip_prefix("v1,") {
        Some(_) => 3,
        None => signature.rfind('=').map_or(0, |at| at + 1),
    };
    format!("{}{}", &signature[..start], signature[start..].to_uppercase())
}

/// Deliveries that a forger, a careless proxy or a wiretapper could send.
fn attacks(peers: &Peers, hook: &Hook, stranger: &Hook) -> Vec<(&'static str, Delivery)> {
    let header = hook.signature_header();
    let good = hook.delivery(peers, "evt_forged");
    let text = String::from_utf8(good.body.clone()).expect("text");
    let anew: Value = serde_json::from_str(&text).expect("JSON");
    let mut bit = good.body.clone();
    *bit.last_mut().expect("a body") = b' ';
    let mut attacks = vec![
        ("no signature", good.without(header)),
        ("an empty signature", good.altered(header, |_| String::new())),
        ("another signature", good.altered(header, flipped)),
        ("a signature in capitals", good.altered(header, capitals)),
        (
            "a signature that is too short",
            good.altered(header, |value| value[..value.len() - 2].to_owned()),
        ),
        ("a signature that is too long", good.altered(header, |value| format!("{value}00"))),
        ("a signature of another scheme", good.altered(header, |value| format!("v9={value}"))),
        ("a signature header twice", good.with(header, good.header(header))),
        ("another tenant's secret", stranger.delivery(peers, "evt_forged")),
        ("one byte changed", good.with_body(bit)),
        ("one byte more", good.with_body(format!("{text} "))),
        ("no body", good.with_body("")),
        ("the same JSON written anew", good.with_body(anew.to_string())),
    ];
    if hook.is_timed() {
        let at = |timestamp| hook.delivery_at(peers, "evt_forged", &text, timestamp);
        attacks.push(("too old", at(now_s() - 301)));
        attacks.push(("too far ahead", at(now_s() + 360)));
        let later = at(now_s() + 7);
        let moved = match hook.source {
            "stripe" => good.altered(header, |value| value.replacen("t=", "t=1", 1)),
            "slack" => good.altered("x-slack-request-timestamp", |_| {
                later.header("x-slack-request-timestamp").to_owned()
            }),
            _ => {
                good.altered("webhook-timestamp", |_| later.header("webhook-timestamp").to_owned())
            }
        };
        attacks.push(("a time that was not signed", moved));
    }
    for timestamp in ["x-slack-request-timestamp", "webhook-timestamp", "webhook-id"] {
        if good.headers.iter().any(|(name, _)| name == timestamp) {
            attacks.push(("a signed header is missing", good.without(timestamp)));
            attacks.push(("a signed header twice", good.with(timestamp, good.header(timestamp))));
        }
    }
    attacks
}

#[test]
fn no_forged_delivery_changes_anything() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let (ada, bob) = (world.tenant("ada"), world.tenant("bob"));
    let mut cases = 0;
    for (source, library) in SIGNERS {
        let hook = Hook::new(&ada, source, library);
        let stranger = Hook::new(&bob, source, library);
        hook.delivery(&peers, "evt_good").accept(&world.client, &hook.place);
        let before = lsn(&world, &ada);
        let mut first = None;
        for (attack, delivery) in attacks(&peers, &hook, &stranger) {
            let what = format!("{source} by {library:?}: {attack}");
            let reply = delivery.send(&world.client, &hook.place);
            assert_eq!(reply.status, 401, "{what}: {}", reply.text());
            assert_eq!(reply.problem(), "webhook-signature", "{what}");
            let first = first.get_or_insert_with(|| reply.essence());
            assert_eq!(reply.essence(), *first, "{what}: the answer says what was wrong");
            cases += 1;
        }
        assert_eq!(lsn(&world, &ada), before, "{source}: a forged delivery wrote something");
        assert_eq!(hook.events(&ada.owner).len(), 1, "{source}");
        // The same event, rightly signed: nothing of the forged ones is in its way.
        hook.delivery(&peers, "evt_forged").accept(&world.client, &hook.place);
        assert_eq!(hook.events(&ada.owner).len(), 2, "{source}");
    }
    println!("webhooks: {cases} forged deliveries, 0 accepted");
}

#[test]
fn a_chunked_body_is_verified_as_a_whole() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let ada = world.tenant("ada");
    for (source, library) in SIGNERS {
        let hook = Hook::new(&ada, source, library);
        let good = hook.delivery(&peers, "evt_chunked");
        let answer = raw(&world.client.base, &good.chunked(&hook.place, 7));
        assert!(answer.starts_with("HTTP/1.1 200"), "{source}: {answer}");
        let forged = good.with_body([&good.body[..], b" "].concat());
        let answer = raw(&world.client.base, &forged.chunked(&hook.place, 7));
        assert!(answer.starts_with("HTTP/1.1 401"), "{source}: {answer}");
        assert_eq!(hook.events(&ada.owner).len(), 1, "{source}");
    }
}

#[test]
fn what_takes_no_deliveries_looks_like_what_does_not_exist() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let (ada, bob, eve) = (world.tenant("ada"), world.tenant("bob"), world.tenant("eve"));
    let foreign = Hook::new(&bob, "stripe", Library::Npm);
    let suspended = Hook::new(&eve, "stripe", Library::Npm);
    let disabled = Hook::new(&ada, "stripe", Library::Npm);
    let delivery = disabled.delivery(&peers, "evt_1");
    let switch = |enabled: bool| {
        let place = format!("/v1/integrations/{}", disabled.id);
        ada.owner.patch(&place, json!({"enabled": enabled}), 200);
    };
    switch(false);
    let platform = world.platform_admin();
    let place = format!("/v1/platform/tenants/{}", eve.id);
    platform.post(&format!("{place}/suspend"), json!({"reason": "a test"}), 200);

    let nowhere = world.client.post("/v1/nothing/of/the/kind", json!({}), 404);
    let absent = "in_0123456789abcdef0123456789abcdef";
    let places = [
        ("a disabled integration", disabled.place.clone(), &delivery),
        ("an unknown integration", format!("/v1/hooks/ada/{absent}"), &delivery),
        (
            "an integration of another tenant",
            format!("/v1/hooks/ada/{}", foreign.id),
            &foreign.delivery(&peers, "e"),
        ),
        ("an id of another kind", format!("/v1/hooks/ada/{}", ada.owner_id), &delivery),
        ("no id at all", "/v1/hooks/ada/in_".to_owned(), &delivery),
        ("an id in capitals", disabled.place.replace("in_", "IN_"), &delivery),
        ("an unknown tenant", format!("/v1/hooks/nobody/{}", disabled.id), &delivery),
        ("the tenant's id", format!("/v1/hooks/{}/{}", ada.id, disabled.id), &delivery),
        ("the platform", format!("/v1/hooks/platform/{}", disabled.id), &delivery),
        ("a suspended tenant", suspended.place.clone(), &suspended.delivery(&peers, "e")),
    ];
    let before = (lsn(&world, &ada), lsn(&world, &bob), lsn(&world, &eve));
    for (what, place, delivery) in places {
        let reply = delivery.send(&world.client, &place);
        assert_eq!(reply.essence(), nowhere.essence(), "{what}: {}", reply.text());
    }
    assert_eq!((lsn(&world, &ada), lsn(&world, &bob), lsn(&world, &eve)), before);

    switch(true);
    delivery.accept(&world.client, &disabled.place);
    platform.act(&format!("{place}/resume"), 200);
    suspended.delivery(&peers, "e").accept(&world.client, &suspended.place);
}

/// A signed GitHub delivery with a body of exactly that many bytes.
fn sized(peers: &Peers, hook: &Hook, event: &str, bytes: usize) -> Delivery {
    let body = format!(r#"{{"fill":"{}"}}"#, "x".repeat(bytes - r#"{"fill":""}"#.len()));
    hook.delivery_of(peers, event, &body)
}

#[test]
fn a_delivery_over_the_cap_is_refused_before_anything_is_looked_up() {
    let Some(peers) = Peers::start() else { return };
    let world = World::start();
    let ada = world.tenant("ada");
    let hook = Hook::new(&ada, "github", Library::Npm);
    sized(&peers, &hook, "largest", HOOK_BODY_BYTES_MAX).accept(&world.client, &hook.place);
    let before = lsn(&world, &ada);
    let over = sized(&peers, &hook, "over", HOOK_BODY_BYTES_MAX + 1);
    let unknown = "/v1/hooks/nobody/in_0123456789abcdef0123456789abcdef".to_owned();
    for place in [hook.place.clone(), unknown] {
        let reply = over.send(&world.client, &place);
        assert_eq!((reply.status, reply.problem().as_str()), (413, "body-too-large"), "{place}");
        assert_eq!(reply.json()["limit"], json!(HOOK_BODY_BYTES_MAX));
        let answer = raw(&world.client.base, &over.chunked(&place, 64 * 1024));
        assert!(answer.starts_with("HTTP/1.1 413"), "{place}: {answer}");
    }
    assert_eq!(lsn(&world, &ada), before);
    assert_eq!(hook.events(&ada.owner).len(), 1);
}

#[test]
fn a_delivery_that_is_cut_short_is_no_delivery() {
    let Some(peers) = Peers::start() else { return };
    let world = WorldOptions::default().set("limits.request_timeout_ms", 300).start();
    let ada = world.tenant("ada");
    let hook = Hook::new(&ada, "github", Library::Npm);
    let good = hook.delivery(&peers, "cut");
    let before = lsn(&world, &ada);
    let mut request =
        format!("POST {} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n", hook.place);
    for (name, value) in &good.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    // The whole body, but one byte more is announced.
    request.push_str(&format!("content-length: {}\r\n\r\n", good.body.len() + 1));
    let request = [request.as_bytes(), &good.body].concat();
    let answer = raw(&world.client.base, &request);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(lsn(&world, &ada), before);
    good.accept(&Client::new(&world.client.base), &hook.place);
}
