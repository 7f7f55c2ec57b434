//! Signed documents against damage, forgery and their own rules.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::samples::{
    ORIGIN, backup_id, line, manifest, manifest_of, report_of, segment, signer, tenant,
};
use crate::audit::note::NoteSigner;
use crate::backup::manifest::{BackupManifest, MANIFEST_BYTES_MAX, SignedManifest};
use crate::backup::report::{DrillOutcome, DrillReport, SignedReport};
use crate::backup::signed::SignedError;

fn signed_bytes() -> Vec<u8> {
    SignedManifest::sign(manifest(), &signer(1)).unwrap().to_bytes()
}

/// Signs whatever text, as an attacker with a key of their own could.
fn forge(body: &str, kind: &str, signer: &NoteSigner) -> Vec<u8> {
    let key = STANDARD.encode(signer.public_key());
    let signature = STANDARD.encode(signer.sign_document(kind, body.as_bytes()));
    format!(r#"{{"body":{body},"key":"{key}","kind":"{kind}","signature":"{signature}"}}"#)
        .into_bytes()
}

fn canonical(manifest: &BackupManifest) -> String {
    serde_json_canonicalizer::to_string(manifest).unwrap()
}

fn parse_error(bytes: &[u8]) -> SignedError {
    SignedManifest::parse(bytes).unwrap_err()
}

#[test]
fn a_signed_manifest_reads_back_and_verifies() {
    let signed = SignedManifest::parse(&signed_bytes()).unwrap();
    assert_eq!(signed.claimed_key(), &signer(1).public_key());
    assert_eq!(signed.verify(&signer(1).verifier()).unwrap(), &manifest());
    assert_eq!(signed.into_verified(&signer(1).verifier()).unwrap(), manifest());
}

#[test]
fn the_kept_bytes_are_the_canonical_form_of_the_whole_envelope() {
    let bytes = signed_bytes();
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(serde_json_canonicalizer::to_vec(&value).unwrap(), bytes);
    assert_eq!(forge(&canonical(&manifest()), "backup-manifest", &signer(1)), bytes);
}

#[test]
fn every_changed_bit_of_a_manifest_is_refused() {
    let (bytes, key) = (signed_bytes(), signer(1).verifier());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let outcome = SignedManifest::parse(&changed).and_then(|s| s.into_verified(&key));
            assert!(outcome.is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn every_truncation_of_a_manifest_is_called_one() {
    let mut with_note = manifest();
    with_note.note = Some("før müd \u{1f600}".to_owned());
    let bytes = SignedManifest::sign(with_note, &signer(1)).unwrap().to_bytes();
    for length in 0..bytes.len() {
        let error = parse_error(&bytes[..length]);
        assert!(matches!(error, SignedError::Truncated { .. }), "{length} bytes: {error}");
    }
}

#[test]
fn whatever_follows_a_manifest_is_refused() {
    for tail in [" ", "\n", "{}", "\0"] {
        let bytes = [&signed_bytes()[..], tail.as_bytes()].concat();
        assert!(SignedManifest::parse(&bytes).is_err(), "{tail:?}");
    }
}

#[test]
fn another_nodes_key_or_name_is_not_accepted() {
    let signed = SignedManifest::parse(&signed_bytes()).unwrap();
    let error = signed.verify(&signer(2).verifier()).unwrap_err();
    assert!(matches!(error, SignedError::OtherKey { .. }), "{error}");
    let renamed = NoteSigner::from_seed("example.org/other", &[1; 32]).unwrap();
    let error = signed.verify(&renamed.verifier()).unwrap_err();
    assert!(matches!(error, SignedError::OtherOrigin { .. }), "{error}");
    let error = SignedManifest::sign(manifest(), &renamed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the backup-manifest is of the node example.org/node, not of example.org/other"
    );
}

#[test]
fn a_forged_body_under_an_honest_key_does_not_verify() {
    let honest = String::from_utf8(signed_bytes()).unwrap();
    let forged = honest.replace(r#""store_format":1"#, r#""store_format":2"#);
    let signed = SignedManifest::parse(forged.as_bytes()).unwrap();
    let error = signed.verify(&signer(1).verifier()).unwrap_err();
    assert!(matches!(error, SignedError::BadSignature { .. }), "{error}");
    // Signed rightly, by somebody else, who even names the honest key.
    let other = String::from_utf8(forge(&canonical(&manifest()), "backup-manifest", &signer(2)));
    let key = |seed| STANDARD.encode(signer(seed).public_key());
    let forged = other.unwrap().replace(&key(2), &key(1));
    let signed = SignedManifest::parse(forged.as_bytes()).unwrap();
    let error = signed.verify(&signer(1).verifier()).unwrap_err();
    assert!(matches!(error, SignedError::BadSignature { .. }), "{error}");
}

#[test]
fn a_newer_format_says_so_even_with_fields_unknown_here() {
    let body = canonical(&manifest()).replace(r#""format":1"#, r#""format":2,"future":true"#);
    let error = parse_error(&forge(&body, "backup-manifest", &signer(1)));
    assert_eq!(
        error.to_string(),
        "the backup-manifest was written by a newer release: format 2; this release reads 1"
    );
}

#[test]
fn unknown_and_repeated_and_missing_fields_are_refused() {
    let body = canonical(&manifest());
    for (from, to) in [
        (r#""format":1"#, r#""format":1,"future":true"#),
        (r#""format":1"#, r#""format":1,"format":1"#),
        (r#""region":"local","#, ""),
        (r#""epoch":1"#, r#""epoch":-1"#),
        (r#""epoch":1"#, r#""epoch":"1""#),
    ] {
        let changed = body.replacen(from, to, 1);
        assert_ne!(changed, body, "{from}");
        let error = parse_error(&forge(&changed, "backup-manifest", &signer(1)));
        assert!(matches!(error, SignedError::Malformed { .. }), "{to}: {error}");
    }
    let envelope = String::from_utf8(signed_bytes()).unwrap();
    let error = parse_error(envelope.replacen(r#""key""#, r#""extra":1,"key""#, 1).as_bytes());
    assert!(matches!(error, SignedError::Malformed { .. }), "{error}");
}

#[test]
fn a_correctly_signed_body_in_another_spelling_is_refused() {
    let body = canonical(&manifest());
    for (from, to) in [
        (r#""format":1"#, r#""format": 1"#),
        ("example.org", r"ex\u0061mple.org"),
        (r#""note":null,"#, ""),
    ] {
        let changed = body.replacen(from, to, 1);
        assert_ne!(changed, body, "{from}");
        let error = parse_error(&forge(&changed, "backup-manifest", &signer(1)));
        assert!(matches!(error, SignedError::NotCanonical { .. }), "{to}: {error}");
    }
}

#[test]
fn a_document_of_another_kind_is_not_taken_for_a_manifest() {
    let report = SignedReport::sign(report_of(Vec::new()), &signer(1)).unwrap();
    let error = parse_error(&report.to_bytes());
    assert_eq!(error.to_string(), "this is a drill-report, not a backup-manifest");
    // A signature over the same body as another kind is no signature of this one.
    let body = canonical(&manifest());
    let other = String::from_utf8(forge(&body, "drill-report", &signer(1))).unwrap();
    let signed = SignedManifest::parse(other.replace("drill-report", "backup-manifest").as_bytes());
    let error = signed.unwrap().into_verified(&signer(1).verifier()).unwrap_err();
    assert!(matches!(error, SignedError::BadSignature { .. }), "{error}");
}

#[test]
fn a_document_larger_than_its_kind_may_be_is_not_even_read() {
    let error = parse_error(&vec![b'{'; MANIFEST_BYTES_MAX + 1]);
    assert!(matches!(error, SignedError::TooLarge { .. }), "{error}");
}

#[test]
fn numbers_that_json_does_not_keep_are_not_signed() {
    let sign = |epoch| {
        let mut manifest = manifest();
        manifest.tenants[0].tail.epoch = epoch;
        SignedManifest::sign(manifest, &signer(1))
    };
    assert!(sign(1 << 53).is_ok());
    for epoch in [(1 << 53) + 1, u64::MAX] {
        let error = sign(epoch).unwrap_err();
        assert!(matches!(error, SignedError::NotCanonical { .. }), "{epoch}: {error}");
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_neither_signed_nor_read() {
    type Change = fn(&mut BackupManifest);
    let changes: [(&str, Change); 16] = [
        ("origin", |m| m.origin = "x".repeat(1025)),
        ("region", |m| m.region.clear()),
        ("note", |m| m.note = Some("x".repeat(1025))),
        ("finished_ms", |m| m.finished_ms = m.taken_ms - 1),
        ("base", |m| m.base = Some(m.id)),
        ("total_bytes", |m| m.total_bytes += 1),
        ("total_bytes", |m| m.keys.bytes = u64::MAX),
        ("new_bytes", |m| m.new_bytes = m.total_bytes + 1),
        ("keys", |m| m.keys.name = "backups/../../etc/passwd".to_owned()),
        ("anchors", |m| m.anchors.name = m.keys.name.clone()),
        ("tenants", |m| m.tenants.swap(0, 1)),
        ("segments", |m| m.segments[1] = segment(1)),
        ("tenants[0]", |m| m.tenants[0].tail.lsn = 6),
        ("tenants[0]", |m| m.tenants[0].snapshot = tenant(3, 7).snapshot),
        ("segments[0]", |m| m.segments[0].number = 0),
        ("segments[1]", |m| m.segments[1].object.sha256.0[0] ^= 1),
    ];
    for (field, change) in changes {
        let mut manifest = manifest();
        change(&mut manifest);
        let body = canonical(&manifest);
        let signer = NoteSigner::from_seed(&manifest.origin, &[1; 32]).unwrap();
        let error = SignedManifest::sign(manifest, &signer).unwrap_err();
        let is_it = |error: &SignedError| matches!(error, SignedError::Flawed { flaw, .. } if flaw.field == field);
        assert!(is_it(&error), "{field}: {error}");
        // Beyond what JSON keeps, its bytes are damaged before they can contradict anything.
        if !body.contains("18446744073709552000") {
            let error = parse_error(&forge(&body, "backup-manifest", &signer));
            assert!(is_it(&error), "{field}: {error}");
        }
    }
}

#[test]
fn a_manifest_of_an_older_format_than_any_is_refused() {
    let body = canonical(&BackupManifest { format: 0, ..manifest() });
    let error = parse_error(&forge(&body, "backup-manifest", &signer(1)));
    assert!(matches!(error, SignedError::Flawed { .. }), "{error}");
}

#[test]
fn an_empty_node_has_a_backup_too() {
    let empty = manifest_of(backup_id(1), Vec::new(), &[]);
    let signed = SignedManifest::sign(empty.clone(), &signer(1)).unwrap();
    let read = SignedManifest::parse(&signed.to_bytes()).unwrap();
    assert_eq!(read.into_verified(&signer(1).verifier()).unwrap(), empty);
    assert_eq!(empty.objects().count(), 2);
}

fn mixed_report() -> DrillReport {
    report_of(vec![
        line(1, DrillOutcome::Passed),
        line(2, DrillOutcome::Erased),
        line(3, DrillOutcome::Failed("record 7 is \u{1b}[31mgone".to_owned())),
    ])
}

#[test]
fn every_changed_bit_and_every_truncation_of_a_report_is_refused() {
    let signed = SignedReport::sign(mixed_report(), &signer(1)).unwrap();
    let (bytes, key) = (signed.to_bytes(), signer(1).verifier());
    let read = SignedReport::parse(&bytes).unwrap();
    assert_eq!(read.into_verified(&key).unwrap(), mixed_report());
    for at in 0..bytes.len() {
        assert!(matches!(SignedReport::parse(&bytes[..at]), Err(SignedError::Truncated { .. })));
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let outcome = SignedReport::parse(&changed).and_then(|s| s.into_verified(&key));
            assert!(outcome.is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_report_that_hides_what_it_found_is_not_signed() {
    type Change = fn(&mut DrillReport);
    let changes: [(&str, Change); 9] = [
        ("tenants", |r| r.tenants.failed = 0),
        ("lines", |r| r.lines.swap(0, 1)),
        ("lines[0]", |r| r.lines[0].chain_head_ok = false),
        ("lines[0]", |r| r.lines[0].state_hash = None),
        ("lines[1]", |r| r.lines[1].state_hash = r.lines[0].state_hash),
        ("lines[2]", |r| r.lines[2].outcome = DrillOutcome::Failed(String::new())),
        ("finished_ms", |r| r.finished_ms = r.started_ms - 1),
        ("rto_ms", |r| r.rto_ms = 500_001),
        ("failures", |r| r.failures.push("x".repeat(1025))),
    ];
    for (field, change) in changes {
        let mut report = mixed_report();
        change(&mut report);
        let error = SignedReport::sign(report, &signer(1)).unwrap_err();
        let SignedError::Flawed { flaw, .. } = error else { panic!("{field}: {error}") };
        assert_eq!(flaw.field, field);
    }
}

#[test]
fn a_report_passes_only_if_all_came_back_and_says_whether_in_time() {
    let good = report_of(vec![line(1, DrillOutcome::Passed), line(2, DrillOutcome::Erased)]);
    assert!(good.is_passed() && good.is_in_time());
    assert!(!mixed_report().is_passed());
    let mut late = good.clone();
    late.rto_ms = 4 * 3_600_000 + 1;
    assert!(late.is_passed() && !late.is_in_time());
    let mut stale = good.clone();
    stale.rpo_ms = 24 * 3_600_000 + 1;
    assert!(!stale.is_in_time());
    let mut broken = good;
    broken.failures.push("the anchors do not match".to_owned());
    assert!(!broken.is_passed());
}

#[test]
fn a_reports_text_says_the_verdict_the_figures_and_every_tenant_that_did_not_pass() {
    let mut report = mixed_report();
    report.failures.push("the anchors\nare \u{7}older".to_owned());
    let (id, backup) = (report.id, report.backup);
    let (erased, failed) = (report.lines[1].tenant, report.lines[2].tenant);
    let wanted = format!(
        "Restore drill {id} of {ORIGIN}: FAILED\n\n\
         backup    {backup}\n\
         started   2023-11-14T22:13:20.000Z\n\
         finished  2023-11-14T22:21:40.000Z\n\
         RPO       1 min 1 s (at most 1 d: met)\n\
         RTO       6 min 40 s (at most 4 h: met)\n\
         tenants   3: 1 passed, 1 erased, 0 withheld, 1 failed\n\
         checked   120 records, 36 rows, 15 audit entries\n\
         failure   the anchors\u{fffd}are \u{fffd}older\n\
         erased    {erased}\n\
         failed    {failed}: record 7 is \u{fffd}[31mgone\n"
    );
    assert_eq!(report.to_text(), wanted);
    report.rpo_ms = 90_000_000;
    assert!(report.to_text().contains("RPO       1 d 1 h (at most 1 d: NOT MET)"));
}
