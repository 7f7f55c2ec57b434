//! The key-encryption key: every source under the real program, and rotation while tenants work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::kit::{Launcher, Process, Tenant};

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "7531-marker-pin";

/// A folder for a node's data and for what lies beside it.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn launcher(&self) -> Launcher {
        Launcher::on(&self.path("data"))
    }
    /// Puts a key of its own for each `byte` into a file.
    fn key(&self, name: &str, byte: u8) {
        let key: [u8; 32] = std::array::from_fn(|at| byte ^ u8::try_from(at).expect("small"));
        secret(&self.path(name), hex::encode(key).as_bytes());
    }
}

fn secret(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

fn keys(launcher: &Launcher, words: &[&str]) -> Value {
    launcher.run(&[&["keys"], words, &["--json"]].concat()).expect(0).json()
}

fn refused(launcher: &Launcher, words: &[&str]) -> String {
    let outcome = launcher.run(&[&["keys"], words].concat()).expect(1);
    outcome.stderr
}

/// How many entries the platform's own chain has; the chain holds.
fn platform_entries(launcher: &Launcher) -> u64 {
    let words = ["audit", "verify", "--tenant", "platform", "--json"];
    let report = launcher.run(&words).expect(0).json();
    report["tenants"][0]["entries"].as_u64().expect("a number")
}

fn works(node: &Process, tenant: &mut Tenant) {
    tenant.move_to(&node.client);
    let form = tenant.form("still here");
    tenant.submit(&tenant.owner, &form, "Ada");
}

#[test]
fn a_rotation_on_a_running_node_interrupts_nobody_and_is_audited() {
    let bench = Bench::new();
    let launcher = bench.launcher();
    let mut node = launcher.serve();
    let mut tenants: Vec<_> =
        (0..4).map(|number| Tenant::sign_up(&node.client, &format!("acme-{number}"))).collect();
    let before = keys(&launcher, &["status"]);
    assert_eq!((&before["source"], &before["rotation"]), (&json!("file"), &json!("none")));
    let (entries, old) = (platform_entries(&launcher), fs::read(bench.path("data/keys/kek")));

    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for tenant in &tenants {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let form = tenant.form("under load");
                    tenant.submit(&tenant.owner, &form, "Ada");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..3 {
            let seen = answered.load(Ordering::SeqCst);
            let report = keys(&launcher, &["rotate"]);
            assert_eq!(report["rewrapped"], report["total"], "round {round}: {report}");
            assert_eq!(
                (&report["failed"], report["retired"].as_array().map(Vec::len)),
                (&json!(0), Some(1))
            );
            // New tenants are made under the new key meanwhile.
            Tenant::sign_up(&node.client, &format!("made-{round}"));
            crate::kit::eventually("requests that go on", || {
                (answered.load(Ordering::SeqCst) > seen).then_some(())
            });
        }
        is_over.store(true, Ordering::SeqCst);
    });

    let after = keys(&launcher, &["status"]);
    assert_ne!(after["versions"][0]["id"], before["versions"][0]["id"]);
    assert_eq!(after["versions"].as_array().map(Vec::len), Some(1));
    assert!(platform_entries(&launcher) >= entries + 3 + 3, "three rotations, three sign-ups");
    let metrics = node.ops.get("/metrics", 200).text();
    assert!(metrics.contains("\nsecret_age_seconds{secret=\"kek\"} "), "{metrics}");
    let table = launcher.run(&["keys", "list"]).expect(0).stdout;
    assert!(table.starts_with("ID") && table.contains("current"), "{table}");

    node.kill();
    let node = launcher.serve();
    tenants.iter_mut().for_each(|tenant| works(&node, tenant));
    drop(node);
    // The key of before opens nothing any more.
    secret(&bench.path("data/keys/kek"), &old.expect("a key"));
    let why = launcher.try_serve().err().expect("it does not start");
    assert!(why.contains("was wrapped by another key-encryption key"), "{why}");
}

#[test]
fn keys_of_a_stopped_node_are_shown_and_rotated_and_of_none_are_not_made() {
    let bench = Bench::new();
    let launcher = bench.launcher();
    let outcome = launcher.run(&["keys", "rotate"]).expect(1);
    assert!(outcome.stderr.contains("holds no store"), "{outcome:?}");
    assert!(!bench.path("data/keys").exists());
    let mut node = launcher.serve();
    let mut tenant = Tenant::sign_up(&node.client, "acme");
    assert!(node.terminate().success());

    let shown = keys(&launcher, &["public"]);
    let line = launcher.run(&["keys", "public"]).expect(0).stdout;
    assert_eq!(Some(line.trim_end()), shown["public_key"].as_str());
    let told = launcher.run(&["keys", "rotate"]).expect(0).stdout;
    assert!(told.contains("destroyed on this node") && told.contains("copy keys/kek"), "{told}");
    let report = keys(&launcher, &["rotate"]);
    assert_eq!(report["rewrapped"], report["total"]);
    assert_eq!(keys(&launcher, &["public"]), shown, "it is another key that was rotated");
    let listed = keys(&launcher, &["list"]);
    assert_eq!(
        (listed[0]["id"].clone(), listed[0]["current"].clone()),
        (report["current"].clone(), json!(true))
    );
    assert_eq!(keys(&launcher, &["rotate", "--resume"])["rewrapped"], 0);
    let card = launcher.run(&["keys", "status"]).expect(0).stdout;
    assert!(card.contains("rotation    none") && card.contains("source      file"), "{card}");
    works(&launcher.serve(), &mut tenant);
}

#[test]
fn a_drill_of_a_backup_whose_key_was_rotated_away_says_to_take_another() {
    let bench = Bench::new();
    let launcher = bench.launcher().set("backup.enabled", "false");
    let _node = launcher.serve();
    launcher.run(&["backup", "run"]).expect(0);
    keys(&launcher, &["rotate"]);
    let failed = launcher.run(&["drill"]).expect(1);
    let said = format!("{}{}", failed.stdout, failed.stderr);
    assert!(said.contains("take one with `bulkhead backup run`"), "{said}");
    launcher.run(&["backup", "run"]).expect(0);
    launcher.run(&["drill"]).expect(0);
}

#[test]
fn mounted_keys_are_used_and_rotated_and_their_absence_is_explained() {
    let bench = Bench::new();
    fs::create_dir(bench.path("mounted")).expect("a directory");
    bench.key("mounted/v1", 1);
    let mounted = bench.path("mounted");
    let launcher = bench
        .launcher()
        .set("keys.source", "directory")
        .set("keys.directory", mounted.to_str().expect("a path in UTF-8"));
    let mut node = launcher.serve();
    let mut tenant = Tenant::sign_up(&node.client, "acme");
    assert!(!bench.path("data/keys/kek").exists());
    assert!(refused(&launcher, &["rotate"]).contains("put a new version there first"));

    bench.key("mounted/v2", 2);
    let told = launcher.run(&["keys", "rotate"]).expect(0).stdout;
    assert!(told.contains("for you to destroy at its source"), "{told}");
    assert!(!told.contains("destroyed on this node") && !told.contains("keys/kek"), "{told}");
    assert_eq!(keys(&launcher, &["status"])["rotation"], "none");
    fs::rename(bench.path("mounted/v1"), bench.path("v1")).expect("a rename");
    assert_eq!(keys(&launcher, &["list"])[0]["name"], "v2");
    node.kill();
    let mut node = launcher.serve();
    works(&node, &mut tenant);
    node.kill();

    fs::rename(bench.path("mounted/v2"), bench.path("v2")).expect("a rename");
    let why = launcher.try_serve().err().expect("it does not start");
    assert!(why.contains("mounted offers no key"), "{why}");
    fs::rename(bench.path("v1"), bench.path("mounted/v1")).expect("a rename");
    let why = launcher.try_serve().err().expect("it does not start");
    assert!(why.contains("which no source offers"), "{why}");
    fs::rename(bench.path("v2"), bench.path("mounted/v2")).expect("a rename");
    works(&launcher.serve(), &mut tenant);
}

#[test]
fn a_program_gives_the_key_and_is_named_when_it_does_not() {
    let bench = Bench::new();
    bench.key("key", 7);
    let exec = |text: &str| {
        let argv = serde_json::to_string(&["/bin/sh", "-c", text]).expect("JSON");
        bench.launcher().set("keys.source", "exec").set("keys.exec", &argv)
    };
    let good = exec(&format!("cat {}", bench.path("key").display()));
    let mut node = good.serve();
    let mut tenant = Tenant::sign_up(&node.client, "acme");
    node.kill();
    for (text, hint) in [
        ("echo marker-secret >&2; exit 3", "ended with status 3"),
        ("echo marker-secret", "holds no key"),
        ("cat /dev/zero", "more than 16384 bytes"),
        ("sleep 1000", "did not answer within 5000 ms"),
    ] {
        let why = exec(text).try_serve().err().expect("it does not start");
        assert!(why.contains(hint) && why.contains("/bin/sh"), "{text}: {why}");
        assert!(!why.contains("marker-secret"), "{why}");
    }
    works(&good.serve(), &mut tenant);
}

#[test]
fn a_node_moves_into_a_token_and_its_own_key_is_destroyed() {
    if !Path::new(SOFTHSM).exists() {
        println!("skipped: softhsm2 is not installed");
        return;
    }
    let bench = Bench::new();
    let mut node = bench.launcher().serve();
    let mut tenant = Tenant::sign_up(&node.client, "acme");
    node.kill();

    fs::create_dir(bench.path("tokens")).expect("a directory");
    let conf = bench.path("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\n", bench.path("tokens").display()))
        .expect("a file");
    let tool = |words: &[&str]| {
        let mut command = Command::new("softhsm2-util");
        let done = command.args(words).env("SOFTHSM2_CONF", &conf).output().expect("it runs");
        assert!(done.status.success(), "{words:?}");
    };
    tool(&["--init-token", "--free", "--label", "hsm", "--pin", PIN, "--so-pin", "99887766"]);
    // Without a zero and without a line's end: softhsm2-util stops reading there.
    secret(
        &bench.path("aes"),
        &std::array::from_fn::<u8, 32, _>(|at| 0x40 | u8::try_from(at).expect("small")),
    );
    let aes = bench.path("aes");
    let file = aes.to_str().expect("a path in UTF-8");
    let key = ["--import", file, "--aes", "--label", "kek", "--id", "01"];
    tool(&[&key[..], &["--token", "hsm", "--pin", PIN]].concat());
    secret(&bench.path("pin"), PIN.as_bytes());

    let pin = bench.path("pin");
    let launcher = bench
        .launcher()
        .variable("SOFTHSM2_CONF", conf.to_str().expect("a path in UTF-8"))
        .set("keys.source", "pkcs11")
        .set("keys.pkcs11.module", SOFTHSM)
        .set("keys.pkcs11.label", "hsm")
        .set("keys.pkcs11.key", "kek")
        .set("keys.pkcs11.pin_file", pin.to_str().expect("a path in UTF-8"));
    let mut node = launcher.serve();
    works(&node, &mut tenant);
    assert_eq!(keys(&launcher, &["status"])["rotation"], "due", "not all is in the token");
    let old = keys(&launcher, &["list"])[1]["id"].clone();
    let report = keys(&launcher, &["rotate"]);
    assert_eq!((&report["previous"], &report["destroyed"]), (&old, &json!([old])));
    assert_eq!((&report["rewrapped"], &report["failed"]), (&report["total"], &json!(0)));
    assert!(!bench.path("data/keys/kek").exists());
    works(&node, &mut tenant);
    node.kill();
    works(&launcher.serve(), &mut tenant);

    secret(&bench.path("pin"), b"0000");
    let why = launcher.try_serve().err().expect("it does not start");
    assert!(why.contains("refused the PIN") && !why.contains(PIN), "{why}");
    let configuration = launcher.run(&["config", "check"]).stdout;
    assert!(!configuration.contains(PIN), "{configuration}");
}
