//! The schemes against vectors that the providers' documents and libraries made, and against attacks.

use proptest::prelude::{any, proptest};
use proptest::{collection, prop_assert, prop_assert_eq};

use super::*;

/// One signed delivery.
#[derive(Clone)]
struct Signed {
    source: Source,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    secret: &'static str,
    sent_ms: u64,
}

impl Signed {
    fn verify(&self) -> Result<Verified, Refused> {
        self.verify_with(&[self.secret], self.sent_ms)
    }
    fn verify_with(&self, secrets: &[&str], now_ms: u64) -> Result<Verified, Refused> {
        let pairs = self.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let secrets: Vec<_> = secrets.iter().map(|text| Secret::new((*text).to_owned())).collect();
        verify(self.source, &Headers::from_pairs(pairs), &self.body, &secrets, now_ms)
    }
    fn signature(&mut self) -> &mut String {
        &mut self.headers[0].1
    }
}

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const EVENT: &str = r#"{"id":"evt_1","type":"charge.succeeded"}"#;
const SENT_S: u64 = 1_614_265_330;

/// Made by npm `stripe` 23.1.0, `generateTestHeaderString`.
fn stripe() -> Signed {
    let header = "t=1614265330,v1=916d3251244d96df1c479ab838af0dc67682b1e1239151e80c59ace69735dae4";
    Signed {
        source: Source::Stripe,
        headers: vec![("Stripe-Signature", header.to_owned())],
        body: EVENT.into(),
        secret: WHSEC,
        sent_ms: SENT_S * 1_000,
    }
}

/// Made by PyPI `razorpay` 2.0.1.
fn razorpay() -> Signed {
    let tag = "e31028786de4f6f99b0016434adf0140957d7b5238870c9bb4a44ee870738005";
    Signed {
        source: Source::Razorpay,
        headers: vec![
            ("X-Razorpay-Signature", tag.to_owned()),
            ("x-razorpay-event-id", "KXYZ".to_owned()),
        ],
        body: EVENT.into(),
        secret: WHSEC,
        sent_ms: SENT_S * 1_000,
    }
}

/// From GitHub's documentation, "Validating webhook deliveries".
fn github() -> Signed {
    let tag = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    Signed {
        source: Source::Github,
        headers: vec![
            ("X-Hub-Signature-256", tag.to_owned()),
            ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned()),
            ("X-GitHub-Event", "issues".to_owned()),
        ],
        body: b"Hello, World!".to_vec(),
        secret: "It's a Secret to Everybody",
        sent_ms: SENT_S * 1_000,
    }
}

/// From Slack's documentation, "Verifying requests from Slack".
fn slack() -> Signed {
    let tag = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow\
        &channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner\
        &command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2F\
        T1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    Signed {
        source: Source::Slack,
        headers: vec![
            ("X-Slack-Signature", tag.to_owned()),
            ("X-Slack-Request-Timestamp", "1531420618".to_owned()),
        ],
        body: body.into(),
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        sent_ms: 1_531_420_618_000,
    }
}

/// From the Standard Webhooks specification's reference libraries.
fn standard() -> Signed {
    Signed {
        source: Source::Standard,
        headers: vec![
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()),
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned()),
            ("webhook-timestamp", "1614265330".to_owned()),
        ],
        body: br#"{"test": 2432232314}"#.to_vec(),
        secret: WHSEC,
        sent_ms: SENT_S * 1_000,
    }
}

fn all() -> [Signed; 5] {
    [stripe(), razorpay(), github(), slack(), standard()]
}

/// HMAC made here, for bodies the vectors do not have.
fn tag(key: &[u8], parts: &[&[u8]]) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat()))
}

#[test]
fn the_providers_own_vectors_verify_and_say_what_they_are() {
    let told: Vec<_> = all()
        .iter()
        .map(|signed| signed.verify().unwrap())
        .map(|verified| (verified.provider_event_id, verified.event_type))
        .collect();
    let slack_id = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let wanted = [
        ("evt_1", "charge.succeeded"),
        ("KXYZ", "unknown"),
        ("72d3162e-cc78-11e3-81ab-4c9367dc0958", "issues"),
        (slack_id, "unknown"),
        ("msg_p5jXN8AQM9LWM0D4loKWxJek", "unknown"),
    ];
    assert_eq!(told, wanted.map(|(id, kind)| (id.to_owned(), kind.to_owned())));
}

#[test]
fn a_body_changed_by_one_byte_is_refused() {
    for signed in all() {
        for at in [0, signed.body.len() / 2, signed.body.len() - 1] {
            let mut changed = signed.clone();
            changed.body[at] ^= 1;
            assert_eq!(changed.verify(), Err(Refused::Mismatch), "{}", signed.source);
        }
        let mut longer = signed.clone();
        longer.body.push(b' ');
        assert_eq!(longer.verify(), Err(Refused::Mismatch), "{}", signed.source);
    }
}

#[test]
fn json_that_was_written_again_is_refused() {
    let mut signed = standard();
    signed.body = br#"{"test":2432232314}"#.to_vec();
    assert_eq!(signed.verify(), Err(Refused::Mismatch));
}

#[test]
fn another_tenants_secret_does_not_verify_and_no_secret_does_not_either() {
    for signed in all() {
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(signed.verify_with(&[other], signed.sent_ms), Err(Refused::Mismatch));
        assert_eq!(signed.verify_with(&[], signed.sent_ms), Err(Refused::Mismatch));
    }
}

#[test]
fn during_rotation_either_secret_verifies() {
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for signed in all() {
        assert!(signed.verify_with(&[other, signed.secret], signed.sent_ms).is_ok());
        assert!(signed.verify_with(&[signed.secret, other], signed.sent_ms).is_ok());
    }
}

#[test]
fn a_header_that_carries_an_old_and_a_new_signature_verifies() {
    let mut signed = stripe();
    signed.signature().insert_str(12, &format!(",v1={}", "0".repeat(64)));
    assert!(signed.verify().is_ok());
    let mut signed = standard();
    signed.signature().insert_str(0, "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= v2,x ");
    assert!(signed.verify().is_ok());
}

#[test]
fn a_signature_of_wrong_length_case_or_alphabet_is_refused() {
    for signed in all() {
        let whole = signed.headers[0].1.clone();
        let upper = whole.to_uppercase().replace("SHA256=", "sha256=").replace("V0=", "v0=");
        let upper = upper.replace("T=", "t=").replace("V1", "v1");
        let wrong = [
            whole[..whole.len() - 1].to_owned(),
            whole[..whole.len() - 2].to_owned(),
            format!("{whole}0"),
            format!("{whole}00"),
            format!("x{whole}"),
            upper,
            String::new(),
            "é".to_owned(),
            whole.replace(['1', '2', '3'], "-"),
        ];
        for text in wrong {
            let mut changed = signed.clone();
            *changed.signature() = text.clone();
            assert!(changed.verify().is_err(), "{}: {text:?}", signed.source);
        }
    }
}

#[test]
fn a_missing_or_repeated_signature_header_is_refused() {
    for signed in all() {
        let mut missing = signed.clone();
        missing.headers.remove(0);
        assert_eq!(missing.verify(), Err(Refused::Missing), "{}", signed.source);
        for repeated in 0..signed.headers.len() {
            let mut twice = signed.clone();
            twice.headers.push(signed.headers[repeated].clone());
            assert_eq!(twice.verify(), Err(Refused::Repeated), "{}", signed.source);
        }
    }
}

#[test]
fn a_timestamp_is_believed_for_five_minutes_in_either_direction() {
    for signed in [stripe(), slack(), standard()] {
        let at = |offset_s: i64| {
            let now_ms = signed.sent_ms.saturating_add_signed(offset_s * 1_000);
            signed.verify_with(&[signed.secret], now_ms).map(|_| ())
        };
        assert_eq!((at(300), at(-300)), (Ok(()), Ok(())), "{}", signed.source);
        assert_eq!(at(301), Err(Refused::Stale), "{}", signed.source);
        assert_eq!(at(-301), Err(Refused::Early), "{}", signed.source);
    }
}

#[test]
fn a_changed_timestamp_is_refused_even_inside_the_tolerance() {
    let mut signed = stripe();
    *signed.signature() = signed.signature().replace("t=1614265330", "t=1614265331");
    assert_eq!(signed.verify(), Err(Refused::Mismatch));
    for text in ["", "+1614265330", " 1614265330", "1614265330.0", "99999999999999999999"] {
        let mut signed = standard();
        signed.headers[2].1 = text.to_owned();
        assert_eq!(signed.verify(), Err(Refused::Malformed), "{text:?}");
    }
}

#[test]
fn stripe_believes_only_v1_entries() {
    let mut signed = stripe();
    *signed.signature() = signed.signature().replace("v1=", "v0=");
    assert_eq!(signed.verify(), Err(Refused::Missing));
    let mut twice = stripe();
    twice.signature().push_str(",t=1614265330");
    assert_eq!(twice.verify(), Err(Refused::Repeated));
}

#[test]
fn stripe_connect_events_keep_their_account() {
    let mut signed = stripe();
    signed.body = br#"{"id":"evt_2","type":"payout.paid","account":"acct_7"}"#.to_vec();
    let tag = tag(WHSEC.as_bytes(), &[b"1614265330.", &signed.body]);
    *signed.signature() = format!("t=1614265330,v1={tag}");
    assert_eq!(signed.verify().expect("signed").account.as_deref(), Some("acct_7"));
}

#[test]
fn slacks_challenge_is_answered_only_when_it_is_signed() {
    let mut signed = slack();
    signed.body = br#"{"type":"url_verification","challenge":"3eZbrw1a"}"#.to_vec();
    assert_eq!(signed.verify(), Err(Refused::Mismatch));
    let tag = tag(signed.secret.as_bytes(), &[b"v0:1531420618:", &signed.body]);
    *signed.signature() = format!("v0={tag}");
    assert_eq!(signed.verify().expect("signed").challenge.as_deref(), Some("3eZbrw1a"));
}

#[test]
fn slack_events_are_named_by_their_event_id() {
    let mut signed = slack();
    signed.body =
        br#"{"type":"event_callback","event_id":"Ev123","event":{"type":"reaction_added"}}"#
            .to_vec();
    let tag = tag(signed.secret.as_bytes(), &[b"v0:1531420618:", &signed.body]);
    *signed.signature() = format!("v0={tag}");
    let verified = signed.verify().expect("signed");
    assert_eq!((&*verified.provider_event_id, &*verified.event_type), ("Ev123", "reaction_added"));
}

#[test]
fn razorpay_without_an_event_id_is_named_by_its_body() {
    let mut signed = razorpay();
    signed.headers.pop();
    let id = signed.verify().expect("signed").provider_event_id;
    assert_eq!(id, sha256_name(EVENT.as_bytes()));
}

#[test]
fn a_standard_id_cannot_move_the_bounds_of_the_signed_text() {
    let mut signed = standard();
    signed.headers[1].1 = "msg.p5jXN8AQM9LWM0D4loKWxJek".to_owned();
    assert_eq!(signed.verify(), Err(Refused::Malformed));
}

#[test]
fn an_asymmetric_standard_signature_verifies_under_the_public_key_only() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let key = format!("whpk_{}", BASE64_STANDARD.encode(pair.public_key()));
    let mut signed = standard();
    let message = [b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.", &*signed.body].concat();
    let signature = BASE64_STANDARD.encode(pair.sign(&message));
    *signed.signature() = format!("v1a,{signature}");
    assert!(signed.verify_with(&[&key], signed.sent_ms).is_ok());
    assert_eq!(signed.verify(), Err(Refused::Mismatch));
    signed.body.push(b'\n');
    assert_eq!(signed.verify_with(&[&key], signed.sent_ms), Err(Refused::Mismatch));
}

#[test]
fn generated_secrets_pass_their_own_check_and_weak_ones_do_not() {
    for source in Source::ALL {
        assert_eq!(source.check_secret(&source.generate_secret(&[9; 32])), Ok(()), "{source}");
        assert!(source.check_secret(&Secret::new("short".to_owned())).is_err());
        assert!(source.check_secret(&Secret::new("line\nbreak!".to_owned())).is_err());
    }
    assert!(Source::Standard.check_secret(&Secret::new("plain-text-secret".to_owned())).is_err());
}

#[test]
fn a_secret_is_not_printed() {
    assert_eq!(format!("{:?}", Secret::new(WHSEC.to_owned())), "Secret(..)");
}

proptest! {
    #[test]
    fn no_header_or_body_panics_or_verifies_by_luck(
        signature in any::<String>(),
        timestamp in any::<String>(),
        body in collection::vec(any::<u8>(), 0..200),
        source in 0..5_usize,
    ) {
        let mut signed = all()[source].clone();
        signed.body = body;
        *signed.signature() = signature;
        if let Some(last) = signed.headers.get_mut(2) {
            last.1 = timestamp;
        }
        prop_assert!(signed.verify().is_err());
    }

    #[test]
    fn what_a_sender_signs_verifies_whatever_it_is(body in collection::vec(any::<u8>(), 0..500)) {
        let mut signed = github();
        *signed.signature() = format!("sha256={}", tag(signed.secret.as_bytes(), &[&body]));
        signed.body = body;
        prop_assert_eq!(signed.verify().map(|verified| verified.event_type), Ok("issues".to_owned()));
    }
}
