//! Keys that customers hold, on the real program: pulled, the tenant is sealed at once and nobody else
//! notices; given back, it is served again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actors::env::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::kit::{Launcher, PASSWORD, Process, Tenant, eventually};

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "8642-marker-pin";

/// A node, a tenant whose key a customer holds, and another tenant.
struct Scene {
    dir: tempfile::TempDir,
    launcher: Launcher,
    node: Process,
    acme: Tenant,
    other: Tenant,
}

impl Scene {
    fn new(prepare: impl FnOnce(Launcher, &Path) -> Launcher) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let launcher = prepare(Launcher::on(&dir.path().join("data")), dir.path());
        let node = launcher.serve();
        let acme = Tenant::sign_up(&node.client, "acme");
        let other = Tenant::sign_up(&node.client, "other");
        Self { dir, launcher, node, acme, other }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn keys(&self, words: &[&str]) -> Value {
        self.launcher.run(&[&["keys"], words, &["--json"]].concat()).expect(0).json()
    }

    fn hold(&self, source: &str) {
        let held = self.keys(&["hold", "--tenant", "acme", "--source", source]);
        let kind = source.split(':').next().expect("a kind");
        assert_eq!((&held["slug"], &held["holder"]), (&json!("acme"), &json!(kind)));
    }

    fn status(&self) -> u16 {
        self.acme.owner.call("GET", "/v1/forms", None).status
    }

    fn state(&self) -> String {
        self.node.ops.get(&format!("/actors/{}", self.acme.id), 200).text()
    }

    /// Pulls the key and waits until the tenant is sealed, while another tenant works. How long it took.
    fn pull(&self, pull: impl FnOnce()) -> Duration {
        let clock = SystemClock::new();
        let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let took = std::thread::scope(|scope| {
            scope.spawn(|| {
                let form = self.other.form("untouched");
                while !is_over.load(Ordering::SeqCst) {
                    self.other.submit(&self.other.owner, &form, "Ada");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
            eventually("work of another tenant", || {
                (answered.load(Ordering::SeqCst) > 0).then_some(())
            });
            let form = self.acme.form("in flight");
            for _ in 0..4 {
                let path = format!("/v1/forms/{form}/submissions");
                scope.spawn(|| {
                    let (path, body) = (path, json!({"data": {"name": "Ada"}}));
                    while !is_over.load(Ordering::SeqCst) {
                        let status = self.acme.owner.call("POST", &path, Some(&body)).status;
                        assert!([201, 423].contains(&status), "in flight: {status}");
                    }
                });
            }
            assert_eq!(self.status(), 200, "served just before");
            pull();
            let pulled = clock.monotonic();
            eventually("a sealed tenant", || match self.status() {
                200 => None,
                423 => Some(()),
                status => panic!("neither served nor sealed: {status}"),
            });
            let took = clock.monotonic() - pulled;
            let seen = answered.load(Ordering::SeqCst);
            eventually("work that goes on", || {
                (answered.load(Ordering::SeqCst) > seen).then_some(())
            });
            is_over.store(true, Ordering::SeqCst);
            took
        });
        println!("sealed after {} ms", took.as_millis());
        assert!(took < Duration::from_secs(15), "{took:?}");
        took
    }

    /// Everything of the tenant is refused in the same way, and operators see why.
    fn assert_sealed(&self) {
        let problem = self.acme.owner.get("/v1/me", 423);
        assert_eq!(problem.str("/type"), "/problems/tenant-sealed");
        let sign_in =
            json!({"tenant": "acme", "email": "owner@acme.example", "password": PASSWORD});
        assert_eq!(self.node.client.call("POST", "/v1/auth/sign-in", Some(&sign_in)).status, 423);
        let refresh = json!({"refresh_token": self.acme.refresh_token});
        assert_eq!(self.node.client.call("POST", "/v1/auth/refresh", Some(&refresh)).status, 423);
        let write = json!({"title": "no", "schema": {"type": "object"}});
        assert_eq!(self.acme.owner.call("POST", "/v1/forms", Some(&write)).status, 423);
        eventually("an actor that is gone", || {
            self.state().contains("\"state\":\"sealed\"").then_some(())
        });
        let metrics = self.node.ops.get("/metrics", 200).text();
        assert!(metrics.contains("bulkhead_tenants{state=\"sealed\"} 1\n"), "{metrics}");
        assert!(metrics.contains("bulkhead_tenants{state=\"faulted\"} 0\n"), "{metrics}");
    }

    /// Gives the key back and waits until the tenant is served.
    fn give_back(&self, give: impl FnOnce()) {
        give();
        eventually("a tenant that is served again", || match self.status() {
            423 => None,
            200 => Some(()),
            status => panic!("neither sealed nor served: {status}"),
        });
    }

    fn own_actions(&self) -> Vec<String> {
        let page = self.acme.owner.get("/v1/audit?action=key.*", 200).json();
        let items = page["items"].as_array().expect("a list");
        items.iter().map(|item| item["action"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn key(path: &Path, byte: u8) {
    let key: [u8; 32] = std::array::from_fn(|at| byte ^ u8::try_from(at).expect("small"));
    fs::write(path, hex::encode(key)).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

#[test]
fn a_key_file_that_is_moved_away_seals_its_tenant_alone_until_it_is_back() {
    let scene = Scene::new(|launcher, _| launcher);
    fs::create_dir(scene.path("theirs")).expect("a directory");
    let (here, away) = (scene.path("theirs/v1"), scene.path("v1"));
    key(&here, 3);
    let source = format!("directory:{}", scene.path("theirs").display());
    scene.hold(&source);
    assert_eq!(scene.keys(&["status"])["held_by_customers"], 1);
    for _ in 0..2 {
        scene.pull(|| fs::rename(&here, &away).expect("a rename"));
        scene.assert_sealed();
        scene.give_back(|| fs::rename(&away, &here).expect("a rename"));
    }
    let form = scene.acme.form("still here");
    scene.acme.submit(&scene.acme.owner, &form, "Ada");
    let mut told = eventually("both logs told", || {
        let told = scene.own_actions();
        (told.len() >= 5).then_some(told)
    });
    told.sort();
    let pair = ["key.returned", "key.withheld"];
    assert_eq!(told, ["key.hold", pair[0], pair[0], pair[1], pair[1]]);
    for tenant in ["acme", "platform"] {
        scene.launcher.run(&["audit", "verify", "--tenant", tenant]).expect(0);
    }

    let released = scene.keys(&["release", "--tenant", "acme"]);
    assert_eq!(released["holder"], "node");
    fs::remove_file(&here).expect("a file");
    assert_eq!(scene.status(), 200);
    let why = scene.launcher.run(&["keys", "release", "--tenant", "acme"]).expect(1).stderr;
    assert!(why.contains("held by the node already"), "{why}");
}

#[test]
fn a_tenant_asleep_or_after_a_restart_does_not_wake_without_its_customers_key() {
    let mut scene = Scene::new(|launcher, _| launcher);
    let here = scene.path("theirs");
    key(&here, 4);
    scene.hold(&format!("file:{}", here.display()));
    scene.node.kill();
    let away = scene.path("away");
    fs::rename(&here, &away).expect("a rename");
    scene.node = scene.launcher.serve();
    scene.acme.move_to(&scene.node.client);
    scene.other.move_to(&scene.node.client);
    assert_eq!(scene.status(), 423);
    scene.assert_sealed();
    // Nor does the operator get around it.
    let why = scene.launcher.run(&["keys", "release", "--tenant", "acme"]).expect(1).stderr;
    assert!(why.contains("withheld"), "{why}");
    scene.other.form("still here");
    scene.give_back(|| fs::rename(&away, &here).expect("a rename"));
}

#[test]
fn a_source_that_hangs_withholds_and_delays_nobody_elses_watch() {
    let scene = Scene::new(|launcher, _| launcher);
    for name in ["key", "theirs"] {
        key(&scene.path(name), 5);
    }
    let script = format!(
        "while [ -e {0}/hang ]; do sleep 0.05; done; cat {0}/key",
        scene.dir.path().display()
    );
    let argv = serde_json::to_string(&["/bin/sh", "-c", &script]).expect("JSON");
    scene.hold(&format!("exec:{argv}"));
    let theirs = scene.path("theirs");
    let source = format!("file:{}", theirs.display());
    scene.keys(&["hold", "--tenant", "other", "--source", &source]);
    scene.pull(|| fs::write(scene.path("hang"), "").expect("a file"));
    scene.assert_sealed();

    fs::rename(&theirs, scene.path("away")).expect("a rename");
    let clock = SystemClock::new();
    eventually("the other is sealed too", || {
        (scene.other.owner.call("GET", "/v1/forms", None).status == 423).then_some(())
    });
    println!("beside a hung source sealed after {} ms", clock.monotonic().as_millis());
    fs::rename(scene.path("away"), &theirs).expect("a rename");
    eventually("the other is served", || {
        (scene.other.owner.call("GET", "/v1/forms", None).status == 200).then_some(())
    });
    assert_eq!(scene.status(), 423, "still hung");
    scene.give_back(|| fs::remove_file(scene.path("hang")).expect("a file"));
}

#[test]
fn a_withheld_key_is_shown_as_such_and_never_as_tampering() {
    let mut scene = Scene::new(|launcher, _| launcher);
    let theirs = scene.path("theirs");
    key(&theirs, 3);
    scene.hold(&format!("file:{}", theirs.display()));
    let show = |scene: &Scene| {
        let shown = scene.launcher.run(&["tenant", "show", "acme", "--json"]).expect(0).json();
        (shown["status"].clone(), shown["state"].clone())
    };
    assert_eq!(show(&scene), (json!("active"), json!("served")));
    fs::rename(&theirs, scene.path("away")).expect("a rename");

    // While it runs, before anybody asked for the tenant again, and of a stopped node alike.
    for round in ["running", "stopped"] {
        assert_eq!(show(&scene), (json!("active"), json!("sealed")), "{round}");
        let table = scene.launcher.run(&["tenant", "list"]).expect(0).stdout;
        assert_eq!(table.matches("active, sealed").count(), 1, "{round}: {table}");

        let report = scene.launcher.run(&["audit", "verify", "--json"]).expect(1).json();
        let tenants = report["tenants"].as_array().expect("a list");
        let bad: Vec<_> = tenants.iter().filter(|tenant| tenant["ok"] != true).collect();
        assert_eq!(bad.len(), 1, "{round}: {report}");
        assert_eq!(
            (&bad[0]["tenant"], &bad[0]["no_key"]),
            (&json!(scene.acme.id), &json!("withheld"))
        );
        let outcome = scene.launcher.run(&["audit", "verify"]).expect(1);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("withheld") && said.contains("ANCHORED UP TO ENTRY"), "{said}");
        assert!(!said.contains("BROKEN") && !said.contains("do not verify"), "{said}");
        // One customer does not keep the node from proving its backups.
        scene.launcher.run(&["backup", "run"]).expect(0);
        let drill = scene.launcher.run(&["drill", "--json"]).expect(0).json();
        let counts = &drill["report"]["body"]["tenants"];
        assert_eq!((&counts["withheld"], &counts["failed"]), (&json!(1), &json!(0)), "{drill}");
        if round == "running" {
            assert!(scene.node.terminate().success());
        }
    }
    fs::rename(scene.path("away"), &theirs).expect("a rename");
    assert_eq!(show(&scene), (json!("active"), json!("served")));
    scene.launcher.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_source_that_does_not_open_what_it_wraps_is_refused_and_changes_nothing() {
    let scene = Scene::new(|launcher, _| launcher);
    for (source, hint, code) in [
        ("file:/nowhere/key", "cannot be read", 1),
        ("exec:/bin/false", "ended with status 1", 1),
        ("directory:relative", "absolute", 2),
        ("vault:/x", "a source is", 2),
    ] {
        let words = ["keys", "hold", "--tenant", "acme", "--source", source];
        let outcome = scene.launcher.run(&words).expect(code);
        assert!(outcome.stderr.contains(hint), "{source}: {}", outcome.stderr);
    }
    let absent = ["keys", "hold", "--tenant", "nobody", "--source", "file:/x"];
    assert!(scene.launcher.run(&absent).expect(1).stderr.contains("there is no tenant"));
    assert_eq!(scene.keys(&["status"])["held_by_customers"], 0);
    assert_eq!(scene.status(), 200);
}

#[test]
fn a_token_that_is_taken_out_seals_its_tenant_until_it_is_back() {
    if !Path::new(SOFTHSM).exists() {
        println!("skipped: softhsm2 is not installed");
        return;
    }
    let scene = Scene::new(|launcher, dir| {
        fs::create_dir(dir.join("tokens")).expect("a directory");
        let conf = dir.join("softhsm2.conf");
        let text = format!("directories.tokendir = {}\n", dir.join("tokens").display());
        fs::write(&conf, text).expect("a file");
        launcher.variable("SOFTHSM2_CONF", conf.to_str().expect("a path in UTF-8"))
    });
    let tool = |words: &[&str]| {
        let mut command = Command::new("softhsm2-util");
        let conf = scene.path("softhsm2.conf");
        let done = command.args(words).env("SOFTHSM2_CONF", conf).output().expect("it runs");
        assert!(done.status.success(), "{words:?}");
    };
    tool(&["--init-token", "--free", "--label", "theirs", "--pin", PIN, "--so-pin", "99887766"]);
    // Without a zero and without a line's end: softhsm2-util stops reading there.
    let aes = scene.path("aes");
    fs::write(&aes, std::array::from_fn::<u8, 32, _>(|at| 0x40 | u8::try_from(at).expect("small")))
        .expect("a file");
    let file = aes.to_str().expect("a path in UTF-8");
    let import = ["--import", file, "--aes", "--label", "kek", "--id", "01"];
    tool(&[&import[..], &["--token", "theirs", "--pin", PIN]].concat());
    let pin = scene.path("pin");
    fs::write(&pin, PIN).expect("a file");
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).expect("a mode");
    scene.hold(&format!(
        "pkcs11:token=theirs;object=kek?module-path={SOFTHSM}&pin-source=file:{}",
        pin.display()
    ));
    let away = scene.path("pin.away");
    scene.pull(|| fs::rename(&pin, &away).expect("a rename"));
    scene.assert_sealed();
    scene.give_back(|| fs::rename(&away, &pin).expect("a rename"));
}
