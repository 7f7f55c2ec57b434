//! An archive on a machine where nothing else is: no node, no data directory, no key-encryption key.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Bench, Damage, text};
use crate::kit::Launcher;

#[test]
fn backups_are_listed_and_verified_where_nothing_but_the_archive_and_the_public_key_is() {
    let mut bench = Bench::new(2);
    let first =
        bench.run(&["backup", "run", "--note", "before the move", "--json"]).expect(0).json();
    let second = bench.back_up();
    let key = bench.public_key();
    assert_eq!((&first["signer"], &second["signer"]), (&json!(key), &json!(key)));
    let card = bench.run(&["backup", "run", "--note", "shown"]).expect(0).stdout;
    assert!(card.contains(&key), "{card}");
    bench.node.kill();
    let archive = bench.path("elsewhere");
    fs::rename(bench.archive(), &archive).expect("another place");
    fs::remove_dir_all(bench.path("data")).expect("a lost machine");

    let file = bench.path("node.pub");
    fs::write(&file, format!("{key}\n")).expect("a file");
    let nowhere = Launcher::on(&bench.path("nowhere"));
    let from = ["--from", text(&archive)];
    let run = |words: &[&str], more: &[&str]| {
        let outcome = nowhere.run(&[&["backup"], words, &from, more].concat());
        assert!(!bench.path("nowhere").exists(), "{words:?} makes a data directory");
        outcome
    };
    let trust = ["--trust", text(&file)];
    let listed = run(&["list", "--json"], &trust).expect(0).json();
    let backups = listed["backups"].as_array().expect("a list");
    assert_eq!((backups.len(), &listed["is_trusted"]), (3, &json!(true)), "{listed}");
    let kept = backups[0]["kept"].as_array().expect("a list");
    assert!(kept.contains(&Value::from("manual")), "{listed}");
    for trust in [&trust[..], &["--trust", &key]] {
        let all = run(&["verify", "--all", "--json"], trust).expect(0);
        let lines = all.json();
        assert!(lines.as_array().expect("a list").iter().all(|one| one["ok"] == true), "{lines}");
        // What goes into a log says what is done, each thing once.
        let steps = all.stderr.lines().filter(|line| line.starts_with("verifying objects: 0 of "));
        assert_eq!(steps.count(), 3, "{}", all.stderr);
    }

    // Nobody vouches for a key: what they say they are is shown, and nothing is called verified.
    let table = run(&["list"], &[]).expect(0).stdout;
    assert!(table.contains(&key) && table.contains("so they say"), "{table}");
    let asked = run(&["verify"], &[]).expect(2).stderr;
    assert!(asked.contains(&key) && asked.contains("--trust"), "{asked}");
    let other = key.replace("bulkhead.local", "bulkhead.example");
    assert!(run(&["verify"], &["--trust", &other]).expect(2).stderr.contains("keys public"));
    let other = ["--trust", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];
    assert!(run(&["verify"], &other).expect(1).stderr.contains("is signed by the key"));
    assert!(run(&["list"], &other).expect(1).stdout.contains("DAMAGED"));

    // One object that two backups need is missing from both, and both are named.
    let id = second["id"].as_str().expect("an id");
    let bytes = fs::read(archive.join(format!("backups/{id}.json"))).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
    let object = &manifest["body"]["tenants"][1]["snapshot"]["object"]["name"];
    Damage::FlippedBit.happens_to(&archive.join(object.as_str().expect("a name")));
    let outcome = run(&["verify", id], &trust).expect(1);
    let first = first["id"].as_str().expect("an id");
    assert!(
        outcome.stdout.contains("also needed by") && outcome.stdout.contains(first),
        "{outcome:?}"
    );
}

#[test]
fn what_is_no_archive_is_refused_with_what_to_give_instead() {
    let bench = Bench::new(1);
    let nowhere = Launcher::on(&bench.path("nowhere"));
    let list =
        |from: &str, code: i32| nowhere.run(&["backup", "list", "--from", from]).expect(code);
    let data = bench.path("data");
    let said = list(text(&data), 1).stderr;
    assert!(said.contains("not an archive") && said.contains(text(&bench.archive())), "{said}");
    let said = list(text(&bench.path("none")), 1).stderr;
    assert!(said.contains("there is no archive") && !bench.path("none").exists(), "{said}");
    let said = list(text(&bench.archive()), 1).stderr;
    assert!(said.contains("there is no backup"), "{said}");
    assert!(list("ftp://host/x", 2).stderr.contains("s3://bucket/prefix"));
    let key = bench.public_key();
    bench.run(&["backup", "verify", "--trust", &key]).expect(2);
    let archive = bench.archive();
    let both = ["backup", "list", "--from", text(&archive), "--data", text(&data)];
    nowhere.run(&both).expect(2);
}

#[test]
fn a_backup_that_needs_what_verify_found_damaged_says_so_until_it_is_mended() {
    let bench = Bench::new(1);
    bench.back_up();
    let (tenant, form) = &bench.tenants[0];
    tenant.submit(&tenant.owner, form, "one more");
    let second = bench.back_up();
    let manifest = bench.manifest(second["id"].as_str().expect("an id"));
    let object = manifest["segments"][0]["object"]["name"].as_str().expect("a name");
    let path = bench.archive().join(object);
    let whole = fs::read(&path).expect("an object");
    Damage::FlippedBit.happens_to(&path);
    bench.run(&["backup", "verify"]).expect(1);
    let outcome = bench.run(&["backup", "run", "--json"]).expect(1);
    assert_eq!(outcome.json()["faults"][0]["object"], json!(object), "{outcome:?}");
    assert!(outcome.stderr.contains(object) && outcome.stderr.contains("no older backup"));
    // What is missing or too short is seen without being looked for.
    Damage::MissingByte.happens_to(&path);
    let short = bench.run(&["backup", "run"]).expect(1).stderr;
    assert!(short.contains("bytes instead of"), "{short}");

    fs::write(&path, &whole).expect("the object as it was");
    bench.run(&["backup", "verify"]).expect(0);
    let mended = bench.run(&["backup", "run", "--json"]).expect(0).json();
    assert!(mended["faults"].is_null(), "{mended}");
}

#[test]
fn a_lost_key_is_no_erasure_and_a_key_that_came_back_ends_none() {
    let mut bench = Bench::new(2);
    bench.back_up();
    let before = bench.run(&["backup", "list", "--json"]).expect(0).json();
    let before = before["backups"][0]["id"].as_str().expect("an id").to_owned();
    let copies = |id: &str| bench.archive().join("keys").join(id);
    let erased = bench.tenants[1].0.id.clone();
    let copy = fs::read_dir(copies(&erased)).expect("copies").next().expect("one").expect("a file");
    let (copy, wrapped) = (copy.path(), fs::read(copy.path()).expect("a key"));
    bench.run(&["tenant", "erase", "acme-1", "--force", "--reason", "it was asked for"]).expect(0);
    // As a bucket that keeps old versions might.
    fs::create_dir_all(copies(&erased)).expect("a directory");
    fs::write(copy, wrapped).expect("a key that came back");
    let words = ["--json", "--backup", before.as_str()];
    let report = bench.restore("came-back", &words).expect(0).json();
    assert_eq!(report["erased"], 1, "{report}");

    bench.node.kill();
    let lost = bench.tenants[0].0.id.clone();
    let key = keys_of(&bench.path("data/keys/tenants"), &lost);
    let kept = fs::read(&key).expect("a key");
    fs::remove_file(&key).expect("removed");
    let refused = bench.run(&["backup", "run"]).expect(1);
    assert!(refused.stderr.contains(&lost) && refused.stderr.contains("receipt"), "{refused:?}");
    fs::write(&key, kept).expect("put back");
    bench.run(&["backup", "run"]).expect(0);
}

/// Where a tenant's wrapped key lies.
fn keys_of(dir: &Path, tenant: &str) -> PathBuf {
    let mut found = Vec::new();
    for shelf in fs::read_dir(dir).expect("a key store") {
        let shelf = shelf.expect("a file").path();
        let files = fs::read_dir(&shelf).into_iter().flatten();
        let paths = files.map(|file| file.expect("a file").path());
        found.extend(paths.filter(|path| path.to_string_lossy().contains(tenant)));
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}
