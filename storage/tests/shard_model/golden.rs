//! The bytes of keys: they are on disks already, so they may never change.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::{Strategy, prop_assert_eq, proptest};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use storage::id::Id;
use storage::keys::Key;

use crate::kit::any_key;

const GOLDEN: &str = include_str!("../data/keys.golden");

/// One key of every variant, with parts that show their width and byte order.
fn samples() -> Vec<Key> {
    fn id<T: Id>(first: u8) -> T {
        T::from_bytes(std::array::from_fn(|at| first + at as u8))
    }
    let seq = 0x0102_0304_0506_0708;
    let digest = std::array::from_fn(|at| 0xe0 + at as u8);
    vec![
        Key::State {},
        Key::AuditChunk { first: seq },
        Key::Provisioned { user: id(0x10) },
        Key::Invite { id: id(0x10) },
        Key::Identity { user: id(0x10), id: id(0x20) },
        Key::Mail { id: id(0x10) },
        Key::Authorization { ends_s: seq, digest },
        Key::IdentityProvider { id: id(0x10) },
        Key::Ticket { user: id(0x10), id: id(0x20) },
        Key::Support { id: id(0x10) },
        Key::Audit { seq },
        Key::AuditTrail { form: id(0x10), seq },
        Key::Comment { submission: id(0x10), id: id(0x20) },
        Key::Directory { tenant: id(0x10) },
        Key::Event { integration: id(0x10), id: id(0x20) },
        Key::Form { id: id(0x10) },
        Key::Idempotency { day: 0x0102_0304, digest },
        Key::Integration { id: id(0x10) },
        Key::ApiKey { id: id(0x10) },
        Key::IdentityBySubject { digest },
        Key::SecondFactors { user: id(0x10) },
        Key::Slug { digest },
        Key::Export { id: id(0x10) },
        Key::ProviderEvent { integration: id(0x10), digest },
        Key::Restore { id: id(0x10) },
        Key::Session { user: id(0x10), id: id(0x20) },
        Key::Team { id: id(0x10) },
        Key::User { id: id(0x10) },
        Key::UserByEmail { digest },
        Key::Submission { form: id(0x10), id: id(0x20) },
        Key::Authored { user: id(0x10), form: id(0x20), id: id(0x30) },
    ]
}

#[test]
fn every_variant_has_the_bytes_it_was_shipped_with() {
    let mut text = String::new();
    for key in samples() {
        let bytes = key.encode();
        let (_, name) = Key::TAGS.iter().find(|(tag, _)| *tag == bytes[0]).unwrap();
        writeln!(text, "{name} {}", hex::encode(bytes)).unwrap();
    }
    assert_eq!(text, GOLDEN, "a key changed its bytes: take a new tag instead");
}

#[test]
fn every_variant_is_in_the_golden_file() {
    let golden: BTreeSet<_> = GOLDEN.lines().filter_map(|line| line.split(' ').next()).collect();
    let known: BTreeSet<_> = Key::TAGS.iter().map(|(_, name)| *name).collect();
    assert_eq!(golden, known);
}

#[test]
fn the_properties_see_every_variant() {
    let mut runner = TestRunner::deterministic();
    let seen: BTreeSet<u8> = (0..2_000)
        .map(|_| any_key().new_tree(&mut runner).unwrap().current().encode()[0])
        .collect();
    assert_eq!(seen, Key::TAGS.iter().map(|(tag, _)| *tag).collect());
}

#[test]
fn tags_are_unique_ordered_and_never_reserved() {
    for pair in Key::TAGS.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{pair:?}");
    }
    assert!(Key::TAGS.iter().all(|(tag, _)| (1..u8::MAX).contains(tag)));
}

#[test]
fn truncated_extended_and_unknown_keys_are_refused() {
    for key in samples() {
        let bytes = key.encode();
        assert!((0..bytes.len()).all(|at| Key::decode(&bytes[..at]).is_err()), "{key:?}");
        assert!(Key::decode(&[&bytes[..], &[0]].concat()).is_err(), "{key:?}");
    }
    assert!(Key::decode(&[0]).is_err());
}

proptest! {
    #[test]
    fn keys_round_trip_and_sort_like_their_bytes(a in any_key(), b in any_key()) {
        prop_assert_eq!(Key::decode(&a.encode()), Ok(a.clone()));
        prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
    }
}
