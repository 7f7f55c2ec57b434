//! What is counted, hashed and refused of a bundle's rows, and whose word counts. Whole moves between nodes
//! are tested from outside.

use std::io::Cursor;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::id::{Id as _, SessionId, TeamId, TenantId, UserId};
use storage::keys::Key;
use storage::record::GENESIS;
use storage::value;

use super::PortableError;
use super::bundle::{Bundle, write_head};
use super::content::{Contents, Tally};
use super::manifest::{AuditSpan, BundleManifest, FORMAT, PayloadRef, SignedManifest};
use crate::audit::chain;
use crate::audit::entry::{Draft, Entry, Named};
use crate::audit::note::NoteSigner;
use crate::backup::digest::Digest;
use crate::backup::manifest::TailRef;
use crate::backup::signed::{Signed, SignedError};
use crate::call::Origin;
use crate::permit::Role;
use crate::quota::Quota;
use crate::tenant::people::UserRow;
use crate::tenant::state::{AuditHead, Profile, TenantState};

const NONE: AuditHead = AuditHead { seq: 0, hash: GENESIS };

fn state(audit: AuditHead) -> TenantState {
    let profile = Profile {
        slug: "acme".to_owned(),
        name: "Acme".to_owned(),
        plan: "pro".to_owned(),
        region: "local".to_owned(),
        created_ms: 1,
        trial_ends_ms: None,
        version: 1,
        mfa_required: false,
        support_approval: false,
    };
    TenantState { profile: Some(Arc::new(profile)), audit, ..TenantState::default() }
}

/// Rows of the audit log with so many entries each, and where the chain is after each.
fn log(counts: &[usize]) -> Vec<(Key, Vec<u8>, AuditHead)> {
    let mut head = NONE;
    let mut rows = Vec::new();
    for count in counts {
        let entries: Vec<Entry> = (0..*count)
            .map(|n| {
                let draft = Draft::success("form.create", Named::new("form", n));
                chain::append(&mut head, 5, Named::new("user", "us_1"), &Origin::default(), draft)
            })
            .collect();
        rows.push((Key::Audit { seq: entries[0].seq }, value::encode(&entries), head));
    }
    rows
}

fn user(n: u8, role: Role) -> (Key, Vec<u8>) {
    let id = UserId::from_bytes([n; 16]);
    let row = UserRow {
        id,
        email: format!("{n}@acme.example"),
        role,
        password: Some("$argon2id$".to_owned()),
        authz: 1,
        created_ms: 1,
        updated_ms: 1,
        version: 1,
        email_verified: false,
        deactivated: false,
    };
    (Key::User { id }, value::encode(&row))
}

fn tally(rows: &[(Key, Vec<u8>)], through: Option<AuditHead>) -> Result<Tally, PortableError> {
    let mut contents = Contents::new(through);
    for (key, bytes) in rows {
        contents.take(key, &key.encode(), bytes)?;
    }
    contents.finish()
}

/// The rows of a tenant with that audit log and two people.
fn rows(counts: &[usize]) -> Vec<(Key, Vec<u8>)> {
    let log = log(counts);
    let head = log.last().map_or(NONE, |row| row.2);
    let mut rows = vec![(Key::State {}, value::encode(&state(head)))];
    rows.extend(log.into_iter().map(|(key, bytes, _)| (key, bytes)));
    rows.extend([user(1, Role::Owner), user(2, Role::Member)]);
    rows
}

#[test]
fn rows_are_counted_and_the_hash_covers_what_is_the_tenants_and_nothing_else() {
    let first = tally(&rows(&[1, 3]), None).unwrap();
    assert_eq!((first.rows, first.owners, first.used.of(Quota::Members)), (5, 1, 2));
    assert_eq!((first.audit.entries, first.audit.seq), (4, 4));
    let longer = tally(&rows(&[1, 3, 2]), None).unwrap();
    assert_eq!(longer.content_hash, first.content_hash, "the audit log has a chain of its own");
    let mut other = rows(&[1, 3]);
    other.push((Key::Team { id: TeamId::from_bytes([1; 16]) }, vec![1]));
    other.sort();
    assert_ne!(tally(&other, None).unwrap().content_hash, first.content_hash);
}

#[test]
fn rows_of_a_place_and_states_that_do_not_fit_are_refused() {
    let mut placed = rows(&[1]);
    let (user, id) = (UserId::from_bytes([1; 16]), SessionId::from_bytes([1; 16]));
    placed.push((Key::Session { user, id }, vec![1]));
    assert!(matches!(tally(&placed, None), Err(PortableError::Contents(_))));
    let mut keyed = rows(&[1]);
    keyed.push((Key::ApiKey { id: storage::id::Id::from_bytes([1; 16]) }, vec![1]));
    assert!(matches!(tally(&keyed, None), Err(PortableError::Contents(_))));
    let stateless = rows(&[1]).split_off(1);
    assert!(matches!(tally(&stateless, None), Err(PortableError::Contents(_))));
    let mut unnamed = rows(&[1]);
    unnamed[0].1 = value::encode(&TenantState::default());
    assert!(matches!(tally(&unnamed, None), Err(PortableError::Contents(_))));
}

#[test]
fn an_audit_log_has_to_be_whole_and_to_end_where_the_state_says() {
    for at in 1..=3 {
        let mut gap = rows(&[2, 1, 2]);
        gap.remove(at);
        assert!(matches!(tally(&gap, None), Err(PortableError::Chain(_))), "row {at}");
    }
    let mut moved = rows(&[2, 1]);
    moved[1].0 = Key::Audit { seq: 2 };
    assert!(matches!(tally(&moved, None), Err(PortableError::Contents(_))));
}

#[test]
fn what_goes_on_with_an_earlier_import_has_to_have_its_audit_log() {
    let heads: Vec<_> = log(&[2, 1, 2]).into_iter().map(|row| row.2).collect();
    for head in heads {
        assert!(tally(&rows(&[2, 1, 2]), Some(head)).is_ok(), "{}", head.seq);
    }
    assert!(tally(&rows(&[2, 1]), Some(NONE)).is_ok());
    let further = log(&[2, 1, 2])[2].2;
    let other = AuditHead { seq: 2, hash: [9; 32] };
    for wrong in [further, other] {
        assert!(matches!(tally(&rows(&[2, 1]), Some(wrong)), Err(PortableError::Contents(_))));
    }
}

fn manifest(origin: &str) -> BundleManifest {
    BundleManifest {
        format: FORMAT,
        release: "0.1.0".to_owned(),
        origin: origin.to_owned(),
        region: "local".to_owned(),
        tenant: TenantId::from_bytes([3; 16]),
        slug: "acme".to_owned(),
        name: "Acme".to_owned(),
        plan: "pro".to_owned(),
        exported_ms: 1,
        source: TailRef { lsn: 7, epoch: 1, hash: Digest([1; 32]) },
        payload: PayloadRef {
            sha256: Digest::of(b"rows"),
            bytes: 4,
            rows: 1,
            key_id: "0".repeat(16),
        },
        content_hash: Digest([2; 32]),
        audit: AuditSpan { entries: 3, seq: 3, hash: Digest([4; 32]) },
        checkpoint: None,
    }
}

fn bundle(signer: &NoteSigner) -> Bundle<Cursor<Vec<u8>>> {
    let signed: SignedManifest = Signed::sign(manifest(signer.name()), signer).unwrap();
    let mut bytes = Vec::new();
    write_head(&mut bytes, &signed).unwrap();
    bytes.extend_from_slice(b"rows");
    Bundle::open(Cursor::new(bytes)).unwrap()
}

#[test]
fn a_signer_is_trusted_by_its_text_by_its_key_or_as_oneself_and_nobody_else_is() {
    let signer = NoteSigner::from_seed("a.example/node", &[1; 32]).unwrap();
    let other = NoteSigner::from_seed("a.example/node", &[2; 32]).unwrap();
    let elsewhere = NoteSigner::from_seed("b.example/node", &[1; 32]).unwrap();
    let bundle = bundle(&signer);
    let own = signer.verifier();
    let key = STANDARD.encode(signer.public_key());
    for (trust, own) in
        [(Some(own.to_text()), None), (Some(key), Some(&other.verifier())), (None, Some(&own))]
    {
        let found = bundle.signer_trusted_by(trust.as_deref(), own).unwrap();
        bundle.verify(&found).unwrap();
    }
    match bundle.signer_trusted_by(None, Some(&other.verifier())) {
        Err(PortableError::Untrusted { key }) => assert_eq!(key, own.to_text()),
        found => panic!("{found:?}"),
    }
    for wrong in [other.verifier(), elsewhere.verifier()] {
        let found = bundle.signer_trusted_by(Some(&wrong.to_text()), None).unwrap();
        let refused = bundle.verify(&found);
        assert!(
            matches!(
                refused,
                Err(PortableError::Manifest(
                    SignedError::OtherKey { .. } | SignedError::OtherOrigin { .. }
                ))
            ),
            "{refused:?}"
        );
    }
    let text = own.to_text();
    for bad in ["", "a.example/node", &text[1..], &text[..text.len() - 4], "AAAA"] {
        let refused = bundle.signer_trusted_by(Some(bad), None);
        assert!(matches!(refused, Err(PortableError::NoPublicKey { .. })), "{bad}: {refused:?}");
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_not_signed() {
    let signer = NoteSigner::from_seed("a.example/node", &[1; 32]).unwrap();
    type Change = fn(&mut BundleManifest);
    let changes: [Change; 6] = [
        |it| it.slug.clear(),
        |it| it.name = "line\nbreak".to_owned(),
        |it| it.tenant = TenantId::PLATFORM,
        |it| it.source.lsn = 0,
        |it| it.audit.entries = 2,
        |it| it.payload.key_id = "ABCDEF0123456789".to_owned(),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut bad = manifest(signer.name());
        change(&mut bad);
        let refused = Signed::sign(bad, &signer);
        assert!(matches!(refused, Err(SignedError::Flawed { .. })), "{at}: {refused:?}");
    }
}
