//! Bundles that are none, are not whole, or do not belong here: a clear word, and nothing changed.

use std::fs;
use std::io::{Cursor, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use actors::env::Faults;
use actors::tenant::portable::PortableError;
use actors::tenant::portable::bundle::Bundle;
use serde_json::json;
use storage::id::TenantId;

use super::{Exported, Furnished, Operator, node_a, node_b, text};
use crate::kit::{LoopDisk, Tenant, World};

fn tenants(operator: &Operator) -> usize {
    operator.json(&["tenant", "list"]).as_array().expect("a list").len()
}

/// A small bundle of a node, and the operator who wrote it.
fn small() -> (World, Operator, Exported, Tenant) {
    let world = node_a().start();
    let tenant = world.tenant("acme");
    let operator = Operator::of(&world.dir);
    let exported = operator.export("acme", "acme.bundle");
    (world, operator, exported, tenant)
}

#[test]
fn every_flipped_byte_and_every_truncation_of_a_bundle_is_refused() {
    let (_world, operator, exported, _) = small();
    let bytes = fs::read(&exported.bundle).expect("a bundle");
    let signer = exported.signer();
    let check = |bytes: &[u8]| -> Result<(), PortableError> {
        let mut bundle = Bundle::open(Cursor::new(bytes.to_vec()))?;
        let verifier = bundle.signer_trusted_by(Some(signer), None)?;
        bundle.verify(&verifier)?;
        bundle.check_payload(&mut |_| {})
    };
    check(&bytes).expect("the bundle itself");
    for at in 0..bytes.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            assert!(check(&changed).is_err(), "byte {at} of {} with {bit:#x}", bytes.len());
        }
    }
    for length in 0..bytes.len() {
        let error = check(&bytes[..length]).expect_err("it is cut");
        assert!(matches!(error, PortableError::Truncated), "{length} bytes: {error}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(check(&longer), Err(PortableError::Trailing)));
    println!(
        "bundle: {} bytes, {} flips and {} cuts refused",
        bytes.len(),
        3 * bytes.len(),
        bytes.len()
    );

    // The same through the program, at a few places; and nothing is made of any of it.
    let b = node_b().start();
    let at_b = Operator::of(&b.dir);
    let file = operator.file("bad.bundle");
    for (at, word) in [(0, "not a bundle"), (40, "tenant-bundle"), (bytes.len() - 9, "changed")] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&file, &changed).expect("a file");
        let bad = Exported {
            bundle: file.clone(),
            key: exported.key.clone(),
            report: exported.report.clone(),
        };
        let said = at_b.refused(&bad.import(&[]), 1);
        assert!(said.contains(word), "{at}: {said}");
        at_b.refused(&["tenant", "inspect-bundle", text(&file)], 1);
    }
    let mut newer = bytes;
    newer[11] = 2;
    fs::write(&file, &newer).expect("a file");
    let said = at_b.refused(&["tenant", "inspect-bundle", text(&file)], 1);
    assert!(said.contains("newer release: bundle format 2; this release reads 1"), "{said}");
    assert_eq!(tenants(&at_b), 0);
}

#[test]
fn a_bundle_goes_where_it_is_wanted_only() {
    let (_a, at_a, exported, _acme) = small();
    let other = at_a.export("acme", "other.bundle");
    let b = node_b().set("node.region", "eu").start();
    let at_b = Operator::of(&b.dir);
    b.tenant("acme");
    b.tenant("beta");
    let count = tenants(&at_b);
    let eu = &["--region-change"][..];
    let import = |more: &[&str], words: &[&str], code| {
        let said = at_b.refused(&exported.import(&[more, words].concat()), code);
        assert_eq!(tenants(&at_b), count, "{said}");
        said
    };
    let said = import(&[], &[], 1);
    assert!(said.contains("region \"local\"") && said.contains("--region-change"), "{said}");
    let said = import(eu, &[], 1);
    assert!(said.contains("\"acme\" is taken") && said.contains("--slug"), "{said}");
    assert!(import(eu, &["--slug", "No Slug"], 1).contains("--slug"));
    let said = import(eu, &["--slug", "acme-b", "--plan", "golden"], 1);
    assert!(said.contains("no plan \"golden\""), "{said}");

    // Another bundle's key, no key, another node's word.
    let base = ["tenant", "import", text(&exported.bundle), "--region-change", "--slug", "acme-b"];
    let refused = |words: &[&str], code| {
        let said = at_b.refused(&[&base, words].concat(), code);
        assert_eq!(tenants(&at_b), count, "{said}");
        said
    };
    let trust = ["--trust", exported.signer()];
    let said = refused(&[&["--key-file", text(&other.key)], &trust[..]].concat(), 1);
    assert!(said.contains("not the key of the bundle"), "{said}");
    let said = refused(&[&["--key-file", text(&exported.bundle)], &trust[..]].concat(), 2);
    assert!(!said.contains("BKbundl"), "{said}");
    let empty = at_b.file("empty");
    fs::write(&empty, "bundle-key-1:00").expect("a file");
    refused(&[&["--key-file", text(&empty)], &trust[..]].concat(), 2);
    let key = ["--key-file", text(&exported.key)];
    assert!(refused(&key, 1).contains("--trust"));
    assert!(refused(&[&key[..], &["--trust", "nobody"]].concat(), 2).contains("nobody"));
    let own = at_b.export("beta", "beta.bundle");
    let said = refused(&[&key[..], &["--trust", own.signer()]].concat(), 1);
    assert!(said.contains("signed by the key"), "{said}");

    let words = [&base[..], &key[..], &trust[..]].concat();
    assert_eq!(at_b.json(&words)["slug"], json!("acme-b"));
    let shown = at_b.json(&["tenant", "show", "acme-b"]);
    assert_eq!((&shown["region"], &shown["status"]), (&json!("eu"), &json!("active")));
    let said = at_b.refused(&words, 1);
    assert!(said.contains("already here"), "{said}");
    at_b.run(&["tenant", "suspend", "acme-b"]).expect(0);
    assert!(at_b.refused(&words, 1).contains("already here"), "suspended, and here all the same");
    // Home again it is known as well.
    assert!(at_a.refused(&exported.import(&[]), 1).contains("already here"));
}

#[test]
fn an_export_writes_over_nothing_and_leaves_nothing_half_done() {
    let (_world, operator, exported, _) = small();
    let bytes = fs::read(&exported.bundle).expect("a bundle");
    let words = |out: &str| ["tenant", "export", "acme", "--out", out].map(str::to_owned).to_vec();
    let run = |out: &str| {
        let words = words(out);
        operator.refused(&words.iter().map(String::as_str).collect::<Vec<_>>(), 1)
    };
    assert!(run(text(&exported.bundle)).contains("acme.bundle.key"));
    fs::remove_file(&exported.key).expect("a key file");
    let said = run(text(&exported.bundle));
    assert!(said.contains("there already"), "{said}");
    assert_eq!(fs::read(&exported.bundle).expect("a bundle"), bytes);
    assert!(!exported.key.exists(), "a key of no bundle was left");
    let absent = operator.file("no/such/place.bundle");
    assert!(run(text(&absent)).contains("place.bundle"));
    operator.refused(&["tenant", "export", "nobody", "--out", text(&operator.file("x"))], 1);
    assert!(!operator.file("x").exists() && !operator.file("x.key").exists());
}

#[test]
fn an_export_of_what_is_being_erased_or_among_the_nodes_own_files_is_refused() {
    let (world, operator, exported, _) = small();
    let inside = world.dir.join("acme.bundle");
    let link = operator.file("link");
    std::os::unix::fs::symlink(&world.dir, &link).expect("a link");
    for out in [inside, world.dir.join("archive/acme.bundle"), link.join("acme.bundle")] {
        let said = operator.refused(&["tenant", "export", "acme", "--out", text(&out)], 1);
        assert!(said.contains("data directory") && said.contains("outside"), "{said}");
        assert!(!out.exists(), "{}", out.display());
    }
    assert!(!world.dir.join("acme.bundle.key").exists());

    operator.run(&["tenant", "erase", "acme"]).expect(0);
    let out = operator.file("late.bundle");
    let said = operator.refused(&["tenant", "export", "acme", "--out", text(&out)], 1);
    assert!(said.contains("being erased") && !out.exists(), "{said}");
    let shown = operator.json(&["tenant", "show", "acme"]);
    assert_eq!((&shown["status"], &shown["state"]), (&json!("erasing"), &json!("erasing")));
    operator.run(&["tenant", "erase", "acme", "--cancel"]).expect(0);
    assert_eq!(operator.json(&["tenant", "show", "acme"])["state"], json!("served"));
    operator.run(&["tenant", "export", "acme", "--out", text(&out)]).expect(0);

    let endless = ["--key-file", "/dev/zero"];
    let bundle = ["tenant", "import", text(&exported.bundle)];
    let said = operator.refused(&[&bundle[..], &endless].concat(), 1);
    assert!(said.contains("larger than the 4096 bytes"), "{said}");
    let receipt = ["tenant", "verify-receipt", "/dev/zero", "--trust", exported.signer()];
    assert!(operator.refused(&receipt, 1).contains("larger than"));
    let said = operator.refused(&["tenant", "list", "--config", "/dev/zero"], 2);
    assert!(said.contains("/dev/zero"), "{said}");
}

#[test]
fn a_full_disk_keeps_no_part_of_a_bundle() {
    let disk = match LoopDisk::make(16 << 20) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: a full disk under an export: {why}");
            return;
        }
    };
    let world = node_a().start();
    let furnished = Furnished::on(&world);
    for number in 0..4 {
        furnished.tenant.submit(&furnished.tenant.owner, &furnished.form, &noise(number, 30_000));
    }
    let operator = Operator::of(&world.dir);
    let mut ballast = fs::File::create(disk.path().join("ballast")).expect("a file");
    let left = 64 << 10;
    while disk.free_bytes() > left {
        let step = usize::try_from((disk.free_bytes() - left).min(1 << 20)).expect("a size");
        if ballast.write_all(&vec![0; step.max(4096)]).is_err() {
            break;
        }
        ballast.sync_all().expect("ballast on the disk");
    }
    let out = disk.path().join("acme.bundle");
    let said = operator.refused(&["tenant", "export", "acme", "--out", text(&out)], 1);
    assert!(said.contains("no space is left") && said.contains("removed"), "{said}");
    let mut left: Vec<_> = fs::read_dir(disk.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name.starts_with("acme"))
        .collect();
    left.sort();
    assert!(left.is_empty(), "{left:?}");
}

/// Text that does not compress.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(letters[usize::try_from(state >> 58).expect("six bits")])
        })
        .collect()
}

/// Makes the nth write to one tenant panic, once.
#[derive(Default)]
struct Tripwire {
    left: AtomicI64,
    tenant: std::sync::Mutex<Option<TenantId>>,
}

impl Faults for Tripwire {
    fn hit(&self, point: &'static str, tenant: TenantId) {
        let is_it = *self.tenant.lock().expect("a lock") == Some(tenant);
        if point == "tenant.write" && is_it && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            panic!("the tripwire");
        }
    }
}

#[test]
fn an_import_that_broke_off_serves_nothing_and_is_brought_to_its_end_by_repeating_it() {
    let a = node_a().start();
    let furnished = Furnished::on(&a);
    let Furnished { tenant, form, .. } = &furnished;
    // Enough for several records.
    for number in 0..90 {
        tenant.submit(&tenant.owner, form, &noise(number, 60_000));
    }
    let at_a = Operator::of(&a.dir);
    let first = at_a.export("acme", "acme.bundle");

    let tripwire = Arc::new(Tripwire::default());
    let b = node_b().faults(tripwire.clone()).start();
    let at_b = Operator::of(&b.dir);
    *tripwire.tenant.lock().expect("a lock") = Some(tenant.id.parse().expect("an id"));
    tripwire.left.store(2, Ordering::SeqCst);
    let said = at_b.refused(&first.import(&[]), 1);
    assert!(said.contains("acme.bundle"), "{said}");
    assert_eq!(at_b.json(&["tenant", "show", "acme"])["status"], json!("suspended"));
    let sign_in =
        json!({"tenant": "acme", "email": "owner@acme.example", "password": crate::kit::PASSWORD});
    let refused = b.client.call("POST", "/v1/auth/sign-in", Some(&sign_in));
    assert!(refused.status >= 400, "{}", refused.text());
    // Even if somebody resumes it, nobody gets in.
    at_b.run(&["tenant", "resume", "acme"]).expect(0);
    let refused = b.client.call("POST", "/v1/auth/sign-in", Some(&sign_in));
    assert!(refused.status >= 400, "{}", refused.text());
    at_b.run(&["tenant", "suspend", "acme"]).expect(0);
    at_b.refused(&first.import(&["--slug", "acme-two"]), 1);
    let report = at_b.json(&["audit", "verify", "--tenant", "acme"]);
    assert_eq!(report["ok"], json!(true), "{report}");

    // A newer bundle does as well as the same one.
    tenant.submit(&tenant.owner, form, "meanwhile");
    let newer = at_a.export("acme", "newer.bundle");
    let made = at_b.json(&newer.import(&[]));
    assert_eq!(made["content_hash"], newer.report["content_hash"]);
    let owner = b.sign_in("acme", "owner@acme.example");
    assert_ne!(made["content_hash"], first.report["content_hash"]);
    assert!(furnished.seen(&owner) == furnished.seen(&tenant.owner), "the two nodes differ");
    let report = at_b.json(&["audit", "verify", "--tenant", "acme"]);
    assert_eq!(report["ok"], json!(true), "{report}");
    let second = at_b.export("acme", "second.bundle");
    assert_eq!(second.report["content_hash"], newer.report["content_hash"]);
    assert_eq!(super::counted(&owner), super::counted(&tenant.owner));
}
