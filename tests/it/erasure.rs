//! Erasure by destroying a tenant's key, on real nodes: nothing of the tenant can be read any more, in no
//! copy, and everybody else goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actors::env::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::kit::{Dice, Launcher, PASSWORD, Process, Tenant, TestClock, WorldOptions, eventually};

const MARKER: &str = "marker-7f3a-erase-me";

fn erase(launcher: &Launcher, words: &[&str]) -> Value {
    launcher.run(&[&["tenant", "erase"], words, &["--json"]].concat()).expect(0).json()
}

fn refused(launcher: &Launcher, words: &[&str], code: i32) -> String {
    launcher.run(&[&["tenant", "erase"], words].concat()).expect(code).stderr
}

fn sign_in(node: &Process, slug: &str, email: &str) -> (u16, Value) {
    let body = json!({"tenant": slug, "email": email, "password": PASSWORD});
    let reply = node.client.call("POST", "/v1/auth/sign-in", Some(&body));
    (reply.status, reply.json())
}

/// The public key of the node that made a receipt, as its operator would have kept it.
fn public_key(receipt: &str) -> String {
    let envelope: Value = serde_json::from_str(receipt).expect("JSON");
    envelope["key"].as_str().expect("a key").to_owned()
}

/// Every file below a directory, which others may be working in.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn holders(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    // One that went meanwhile holds nothing.
    let has = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    files(dir).into_iter().filter(has).collect()
}

/// The wrapped data key of a tenant, as it lies in the key store.
fn wrapped_key(data: &Path, tenant: &str) -> Vec<u8> {
    let name = format!("{tenant}.key");
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|file| *file == *name);
    let path = files(&data.join("keys")).into_iter().find(is_it).expect("a key file");
    fs::read(path).expect("a file")
}

fn fill(tenant: &Tenant) -> String {
    let form = tenant.form(MARKER);
    for number in 0..20 {
        tenant.submit(&tenant.owner, &form, &format!("{MARKER}-{number}"));
    }
    form
}

#[test]
fn a_request_seals_at_once_is_taken_back_until_it_is_due_and_carried_out_then() {
    let clock = TestClock::new();
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut world = WorldOptions::default().data(&data).clock(clock.clone()).start();
    let launcher = Launcher::on(&data);
    let acme = world.tenant("acme");
    let other = world.tenant("other");
    let form = fill(&acme);

    let asked = erase(&launcher, &["acme", "--reason", "they left"]);
    assert_eq!((&asked["status"], &asked["reason"]), (&json!("erasing"), &json!("they left")));
    assert!(asked["receipt"].is_null() && asked["due_at"].is_string(), "{asked}");
    acme.owner.get("/v1/forms", 423);
    let again = erase(&launcher, &["acme"]);
    assert_eq!(again["due_at"], asked["due_at"], "asking twice changes nothing");
    for words in [["tenant", "suspend", "acme"], ["tenant", "resume", "acme"]] {
        assert!(launcher.run(&words).expect(1).stderr.contains("sealed"), "{words:?}");
    }
    let hold = ["keys", "hold", "--tenant", "acme", "--source", "file:/x"];
    assert!(launcher.run(&hold).expect(1).stderr.contains("being erased"));

    clock.advance_days(6);
    let back = erase(&launcher, &["acme", "--cancel"]);
    assert_eq!((&back["status"], &back["requested_at"]), (&json!("active"), &Value::Null));
    let owner = world.sign_in("acme", "owner@acme.example");
    assert_eq!(owner.get(&format!("/v1/forms/{form}"), 200).str("/title"), MARKER);
    let why = refused(&launcher, &["acme", "--cancel"], 1);
    assert!(why.contains("nobody asked"), "{why}");

    erase(&launcher, &["acme"]);
    clock.advance_days(7);
    // A node that starts looks at once.
    world.stop();
    let world = WorldOptions::default().data(&data).clock(clock).start();
    eventually("an erased tenant", || {
        let shown = launcher.run(&["tenant", "show", &acme.id, "--json"]).expect(0).json();
        (shown["status"] == "erased").then_some(())
    });
    let why = refused(&launcher, &["acme", "--cancel"], 1);
    assert!(why.contains("cannot be taken back"), "{why}");
    let done = erase(&launcher, &["acme"]);
    let receipt = done["receipt"].as_str().expect("a receipt");
    assert!(receipt.contains("\"forced\":false"), "{receipt}");
    assert!(world.sign_in("other", "owner@other.example").get("/v1/me", 200).status == 200);
    drop(other);
}

#[test]
fn an_erased_tenant_answers_as_one_that_never_was_and_its_name_is_not_given_again() {
    let home = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&home.path().join("data"));
    let node = launcher.serve();
    let acme = Tenant::sign_up(&node.client, "acme");
    let other = Tenant::sign_up(&node.client, "other");
    fill(&acme);
    let why = refused(&launcher, &["nobody"], 1);
    assert!(why.contains("there is no tenant"), "{why}");
    assert!(refused(&launcher, &["acme", "--force"], 2).contains("--reason"));
    assert!(refused(&launcher, &["acme", "--force", "--reason", " "], 2).contains("reason"));
    let long = "x".repeat(501);
    assert!(refused(&launcher, &["acme", "--reason", &long], 2).contains("500 characters"));
    acme.owner.get("/v1/forms", 200);

    let done = erase(&launcher, &["acme", "--force", "--reason", "court order 17"]);
    assert_eq!(done["status"], "erased");
    let unknown = sign_in(&node, "never", "owner@acme.example");
    let gone = sign_in(&node, "acme", "owner@acme.example");
    let without_request = |(status, mut body): (u16, Value)| {
        body.as_object_mut().expect("a problem").remove("instance");
        body.as_object_mut().expect("a problem").remove("request_id");
        (status, body)
    };
    assert_eq!(without_request(gone), without_request(unknown));
    let token = acme.owner.call("GET", "/v1/forms", None);
    assert!((400..500).contains(&token.status) && token.status != 423, "{}", token.text());
    let refresh = json!({"refresh_token": acme.refresh_token});
    assert_eq!(node.client.call("POST", "/v1/auth/refresh", Some(&refresh)).status, 401);
    let sign_up = json!({
        "tenant": {"slug": "acme", "name": "Again"}, "email": "new@acme.example",
        "password": PASSWORD,
    });
    assert_eq!(node.client.call("POST", "/v1/auth/sign-up", Some(&sign_up)).status, 409);
    let again = erase(&launcher, &["acme", "--force", "--reason", "twice"]);
    assert_eq!(again["receipt"], done["receipt"], "erased once");
    other.form("still here");

    // The chain still proves that nothing else was changed.
    let report = launcher.run(&["audit", "verify", "--json"]).expect(0).json();
    let tenants = report["tenants"].as_array().expect("a list");
    let erased: Vec<_> = tenants.iter().filter(|it| it["erased_at"].is_string()).collect();
    assert_eq!(erased.len(), 1, "{report}");
    assert_eq!((&erased[0]["tenant"], &erased[0]["ok"]), (&json!(acme.id), &json!(true)));
    assert!(erased[0]["records"].as_u64() > Some(20), "{report}");
    let table = launcher.run(&["audit", "verify"]).expect(0).stdout;
    assert!(table.contains("erased"), "{table}");
}

#[test]
fn a_receipt_is_verified_without_the_node_and_only_as_it_was_signed() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let launcher = Launcher::on(&data);
    let node = launcher.serve();
    let acme = Tenant::sign_up(&node.client, "acme");
    let printed = launcher
        .run(&["tenant", "erase", "acme", "--force", "--reason", "court order 17"])
        .expect(0);
    assert!(printed.stderr.contains("is erased"), "{printed:?}");
    let receipt = printed.stdout.trim_end().to_owned();
    let kept = data.join("archive/erasures").join(format!("{}.json", acme.id));
    assert_eq!(fs::read_to_string(kept).expect("in the archive"), receipt);
    drop(node);

    let file = home.path().join("receipt.json");
    let path = file.to_str().expect("a path in UTF-8");
    let nowhere = Launcher::on(&home.path().join("nowhere"));
    let verify = |trust: &str, code| {
        nowhere.run(&["tenant", "verify-receipt", path, "--trust", trust]).expect(code)
    };
    fs::write(&file, &printed.stdout).expect("a file");
    let key = public_key(&receipt);
    let shown = verify(&key, 0).stdout;
    for part in ["valid", &acme.id, "court order 17", "data key destroyed", "forced     yes"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let other_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(verify(other_key, 1).stderr.contains("signed by"));
    assert!(verify("no key", 2).stderr.contains("--trust"));
    for (what, text) in [
        ("changed", receipt.replace("court order 17", "court order 18")),
        ("cut short", receipt[..receipt.len() / 2].to_owned()),
        ("another document", receipt.replace("erasure-receipt", "backup-manifest")),
    ] {
        fs::write(&file, text).expect("a file");
        let outcome = verify(&key, 1);
        assert!(!outcome.stdout.contains("valid"), "{what}: {outcome:?}");
    }
}

#[test]
fn nothing_of_an_erased_tenant_can_be_read_in_data_archive_or_restored_backups() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let launcher = Launcher::on(&data).set("backup.enabled", "false");
    let node = launcher.serve();
    let acme = Tenant::sign_up(&node.client, "acme");
    let other = Tenant::sign_up(&node.client, "other");
    fill(&acme);
    let form = fill(&other);
    for _ in 0..2 {
        launcher.run(&["backup", "run"]).expect(0);
        acme.form(MARKER);
    }
    launcher.run(&["backup", "verify", "--all"]).expect(0);
    let kek = home.path().join("kek");
    fs::copy(data.join("keys/kek"), &kek).expect("a copy");
    let wrapped = wrapped_key(&data, &acme.id);
    let core = &wrapped[wrapped.len() - 40..];
    assert!(holders(&data, core).len() >= 2, "in the key store and in the archive");

    let done = erase(&launcher, &["acme", "--force", "--reason", "court order 17"]);
    let receipt = done["receipt"].as_str().expect("a receipt");
    let body: Value = serde_json::from_str(receipt).expect("JSON");
    assert_eq!(body["body"]["removed"]["keys"], 1, "{receipt}");
    assert_eq!(holders(&data, core), Vec::<PathBuf>::new(), "copies of the wrapped key");
    for needle in [MARKER, "owner@acme.example"] {
        assert_eq!(holders(&data, needle.as_bytes()), Vec::<PathBuf>::new(), "{needle}");
    }
    // Backups of before are still sound, and a new one can be taken.
    launcher.run(&["backup", "verify", "--all"]).expect(0);
    launcher.run(&["backup", "run"]).expect(0);
    launcher.run(&["drill"]).expect(0);
    let listed = launcher.run(&["backup", "list", "--json"]).expect(0).json();
    let listed = listed["backups"].as_array().expect("a list").clone();
    assert_eq!(listed.len(), 3);
    drop(node);

    let archive = data.join("archive");
    for backup in &listed {
        let id = backup["id"].as_str().expect("an id");
        let dir = home.path().join(id);
        let words = [
            "restore",
            "--from",
            archive.to_str().expect("UTF-8"),
            "--backup",
            id,
            "--into",
            dir.to_str().expect("UTF-8"),
            "--kek",
            kek.to_str().expect("UTF-8"),
        ];
        launcher.run(&words).expect(0);
        assert_eq!(holders(&dir, core), Vec::<PathBuf>::new());
        let restored = Launcher::on(&dir);
        let node = restored.serve();
        let names = node.client.with_token(other.owner.token.as_deref().expect("a token"));
        assert_eq!(names.get(&format!("/v1/forms/{form}"), 200).str("/title"), MARKER);
        eventually("a directory that knows of the erasure", || {
            let shown = restored.run(&["tenant", "show", &acme.id, "--json"]).expect(0).json();
            (shown["status"] == "erased").then_some(())
        });
        assert_eq!(sign_in(&node, "acme", "owner@acme.example").0, 401);
        restored.run(&["audit", "verify"]).expect(0);
    }
}

#[test]
fn a_backup_whose_key_copy_is_lost_without_a_receipt_is_damaged() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let launcher = Launcher::on(&data).set("backup.enabled", "false");
    let node = launcher.serve();
    let acme = Tenant::sign_up(&node.client, "acme");
    launcher.run(&["backup", "run"]).expect(0);
    fs::remove_dir_all(data.join("archive/keys").join(&acme.id)).expect("a copy of the key");
    let outcome = launcher.run(&["backup", "verify"]).expect(1);
    let text = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(text.contains("no receipt"), "{text}");
}

#[test]
fn an_erasure_that_the_archive_stops_midway_is_finished_by_the_next_start() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let launcher = Launcher::on(&data);
    let mut node = launcher.serve();
    let acme = Tenant::sign_up(&node.client, "acme");
    // Nothing can be put into a directory that is a file.
    let erasures = data.join("archive/erasures");
    fs::create_dir_all(data.join("archive")).expect("a directory");
    fs::write(&erasures, "").expect("a file");
    let words = ["acme", "--force", "--reason", "court order 17"];
    let why = refused(&launcher, &words, 1);
    assert!(why.contains("the erasure goes on later"), "{why}");
    acme.owner.get("/v1/forms", 423);
    let why = refused(&launcher, &["acme", "--cancel"], 1);
    assert!(why.contains("cannot be taken back"), "{why}");
    node.kill();
    fs::remove_file(&erasures).expect("a file");
    let node = launcher.serve();
    eventually("an erased tenant", || {
        let shown = launcher.run(&["tenant", "show", &acme.id, "--json"]).expect(0).json();
        (shown["status"] == "erased").then_some(())
    });
    assert_eq!(sign_in(&node, "acme", "owner@acme.example").0, 401);
    launcher.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_node_killed_anywhere_in_an_erasure_knows_afterwards_how_far_it_was() {
    let home = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&home.path().join("data"));
    let mut node = launcher.serve();
    let mut dice = Dice::thrown("a node killed in an erasure");
    let (mut erased, mut untouched) = (0, 0);
    for round in 0..8 {
        let slug = format!("acme-{round}");
        let mut tenant = Tenant::sign_up(&node.client, &slug);
        let words = ["tenant", "erase", &slug, "--force", "--reason", "court order"];
        let command = launcher.launch(&words);
        let clock = SystemClock::new();
        let until = Duration::from_micros(dice.below(60_000));
        eventually("the moment", || (clock.monotonic() >= until).then_some(()));
        node.kill();
        drop(command);
        node = launcher.serve();
        tenant.move_to(&node.client);
        let status = eventually("a state that is not in between", || {
            let shown = launcher.run(&["tenant", "show", &tenant.id, "--json"]).expect(0).json();
            let status = shown["status"].as_str().expect("a status").to_owned();
            (status != "erasing").then_some(status)
        });
        match status.as_str() {
            "erased" => {
                let report = erase(&launcher, &[&slug]);
                assert!(report["receipt"].is_string(), "{report}");
                erased += 1;
            }
            _ => {
                tenant.owner.get("/v1/forms", 200);
                untouched += 1;
            }
        }
    }
    println!("killed in {} erasures: {erased} finished, {untouched} never began", 8);
    launcher.run(&["audit", "verify"]).expect(0);
}

#[test]
fn erasing_reads_none_of_the_tenants_records() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let launcher =
        Launcher::on(&data).set("backup.enabled", "false").set("archive.local_audit_entries", "4");
    let node = launcher.serve();
    let acme = Tenant::sign_up(&node.client, "acme");
    fill(&acme);
    launcher.run(&["backup", "run"]).expect(0);
    fill(&acme);
    let audit = data.join("archive/audit").join(&acme.id);
    eventually("old audit entries are in the archive", || audit.exists().then_some(()));
    // From here on whoever reads a record, a segment or a snapshot finds it damaged.
    for dir in ["log", "archive/segments", "archive/snapshots", "archive/audit"] {
        for path in files(&data.join(dir)) {
            let length =
                usize::try_from(fs::metadata(&path).expect("a file").len()).expect("small");
            let file = fs::OpenOptions::new().write(true).open(&path).expect("a file");
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; length], 0).expect("written");
        }
    }
    let done = erase(&launcher, &["acme", "--force", "--reason", "court order 17"]);
    assert_eq!(done["status"], "erased");
    let receipt: Value =
        serde_json::from_str(done["receipt"].as_str().expect("a receipt")).expect("JSON");
    assert!(receipt["body"]["last_lsn"].as_u64() > Some(40), "{receipt}");
    assert_eq!(receipt["body"]["kept"]["snapshots"], 1, "{receipt}");
    assert!(receipt["body"]["kept"]["audit_chunks"].as_u64() > Some(0), "{receipt}");
}

#[test]
fn an_erasure_beside_a_restore_and_a_backup_leaves_no_copy_of_the_key() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let launcher = Launcher::on(&data).set("backup.enabled", "false");
    let node = launcher.serve();
    let mut dice = Dice::thrown("an erasure beside a restore and a backup");
    for round in 0..4 {
        let slug = format!("acme-{round}");
        let acme = Tenant::sign_up(&node.client, &slug);
        fill(&acme);
        let wrapped = wrapped_key(&data, &acme.id);
        let shown = launcher.run(&["tenant", "show", &slug, "--json"]).expect(0).json();
        let at = shown["created_at"].as_str().expect("a time").to_owned();
        let restoring = launcher.launch(&["tenant", "restore", "--tenant", &slug, "--at", &at]);
        let backing_up = launcher.launch(&["backup", "run"]);
        let clock = SystemClock::new();
        let until = Duration::from_micros(dice.below(80_000));
        eventually("the moment", || (clock.monotonic() >= until).then_some(()));
        let words = ["tenant", "erase", &slug, "--force", "--reason", "court order", "--json"];
        let done = eventually("an erasure", || {
            let outcome = launcher.run(&words);
            let is_busy = outcome.stderr.contains("somebody works on");
            assert!(outcome.code == 0 || is_busy, "{outcome:?}");
            (outcome.code == 0).then(|| outcome.json())
        });
        assert_eq!(done["status"], "erased", "{done}");
        eventually("the end of both", || {
            let is_over =
                |process: &Process| !Path::new(&format!("/proc/{}/exe", process.pid())).exists();
            (is_over(&restoring) && is_over(&backing_up)).then_some(())
        });
        let core = &wrapped[wrapped.len() - 40..];
        assert_eq!(holders(&data, core), Vec::<PathBuf>::new(), "round {round}");
        launcher.run(&["backup", "verify", "--all"]).expect(0);
    }
    launcher.run(&["audit", "verify"]).expect(0);
}

#[test]
fn an_export_that_is_being_written_does_not_outlive_the_erasure() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let launcher = Launcher::on(&data).set("backup.enabled", "false");
    let node = launcher.serve();
    let mut dice = Dice::thrown("an export beside an erasure");
    for round in 0..4 {
        let slug = format!("acme-{round}");
        let acme = Tenant::sign_up(&node.client, &slug);
        let form = acme.form("Large");
        for _ in 0..24 {
            acme.submit(&acme.owner, &form, &dice.text(200 * 1024));
        }
        acme.owner.act("/v1/tenant/exports", 202);
        erase(&launcher, &[&slug, "--force", "--reason", "a legal request"]);
        // The one who writes ends when its file in tmp/ is gone.
        let exports = data.join("archive/exports").join(&acme.id);
        eventually("the end of the export", || {
            let is_at_work = files(&data.join("tmp"))
                .iter()
                .any(|path| path.extension().is_some_and(|extension| extension == "bundle"));
            (!is_at_work && files(&exports).is_empty()).then_some(())
        });
    }
}
