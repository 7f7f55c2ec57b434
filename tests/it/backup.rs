//! Backups of a running node, restores onto an empty directory, and drills, all by the real program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use actors::audit::note::NoteVerifier;
use actors::backup::report::DrillReport;
use actors::backup::signed::Signed;
use serde_json::Value;

use crate::kit::{
    Launcher, LoopDisk, Outcome, Process, Tenant, TestClock, WorldOptions, eventually,
};

mod elsewhere;

/// A person's name of some size, so that records weigh something.
const NAME_BYTES: usize = 2000;
/// The routes whose answers a restore must give back.
const ROUTES: [&str; 4] = ["/v1/tenant", "/v1/members", "/v1/forms", "/v1/audit?limit=50"];

/// A node with tenants in it, and room for another beside it.
struct Bench {
    dir: tempfile::TempDir,
    launcher: Launcher,
    node: Process,
    tenants: Vec<(Tenant, String)>,
}

impl Bench {
    fn new(tenants: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // Only what the tests ask for is backed up.
        let launcher = Launcher::on(&dir.path().join("data")).set("backup.enabled", "false");
        let node = launcher.serve();
        let make = |number| {
            let tenant = Tenant::sign_up(&node.client, &format!("acme-{number}"));
            let form = tenant.form("Before");
            for submission in 0..20 {
                tenant.submit(&tenant.owner, &form, &big(submission));
            }
            (tenant, form)
        };
        let tenants = (0..tenants).map(make).collect();
        Self { dir, launcher, node, tenants }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn archive(&self) -> PathBuf {
        self.path("data/archive")
    }
    fn run(&self, words: &[&str]) -> Outcome {
        self.launcher.run(words)
    }
    fn back_up(&self) -> Value {
        self.run(&["backup", "run", "--json"]).expect(0).json()
    }
    /// The line that whoever restores has to trust.
    fn public_key(&self) -> String {
        self.run(&["keys", "public"]).expect(0).stdout.trim_end().to_owned()
    }
    /// The body of a backup's manifest, as it lies in the archive.
    fn manifest(&self, id: &str) -> Value {
        let bytes =
            fs::read(self.archive().join(format!("backups/{id}.json"))).expect("a manifest");
        serde_json::from_slice::<Value>(&bytes).expect("JSON")["body"].clone()
    }
    /// Restores the newest backup into a directory of that name.
    fn restore(&self, into: &str, more: &[&str]) -> Outcome {
        let (archive, kek) = (self.archive(), self.path("data/keys/kek"));
        let into = self.path(into);
        let mut words = vec!["restore", "--from", text(&archive), "--into", text(&into)];
        if !more.contains(&"--kek") {
            words.extend(["--kek", text(&kek)]);
        }
        self.run(&[&words[..], more].concat())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn big(number: usize) -> String {
    // Not of one letter: what compresses to nothing would weigh nothing.
    (0..NAME_BYTES)
        .map(|at| char::from(b'a' + u8::try_from((at * at + number) % 26).expect("small")))
        .collect()
}

fn answers(tenant: &Tenant, form: &str) -> Vec<String> {
    let submissions = format!("/v1/forms/{form}/submissions?limit=200");
    let routes = ROUTES.into_iter().chain([submissions.as_str()]);
    routes.map(|route| tenant.owner.get(route, 200).text()).collect()
}

/// A way to spoil an object.
#[derive(Debug, Clone, Copy)]
enum Damage {
    FlippedBit,
    MissingByte,
    MissingObject,
}

const DAMAGES: [Damage; 3] = [Damage::FlippedBit, Damage::MissingByte, Damage::MissingObject];

impl Damage {
    fn happens_to(self, path: &Path) {
        let mut bytes = fs::read(path).expect("an object");
        match self {
            Self::FlippedBit => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            Self::MissingByte => drop(bytes.pop()),
            Self::MissingObject => return fs::remove_file(path).expect("a removed object"),
        }
        fs::write(path, bytes).expect("a changed object");
    }
}

#[test]
fn an_increment_is_what_is_new_and_every_damage_of_every_object_is_named() {
    let bench = Bench::new(3);
    let first = bench.back_up();
    assert_eq!((&first["new_bytes"], &first["tenants"]), (&first["total_bytes"], &Value::from(4)));
    let (tenant, form) = &bench.tenants[0];
    tenant.submit(&tenant.owner, form, "one more");
    let second = bench.back_up();
    let bytes = |backup: &Value, of: &str| backup[of].as_u64().expect("a number");
    let (new, total) = (bytes(&second, "new_bytes"), bytes(&second, "total_bytes"));
    assert!(new * 5 < total, "{new} of {total}");
    assert!(total >= bytes(&first, "total_bytes"), "{second}");

    let listed = bench.run(&["backup", "list", "--json"]).expect(0).json();
    let kept: Vec<_> =
        listed["backups"].as_array().expect("a list").iter().map(|b| &b["kept"]).collect();
    assert_eq!(kept.len(), 2, "{listed}");
    assert!(kept[1].as_array().expect("a list").contains(&Value::from("newest")), "{listed}");
    let table = bench.run(&["backup", "list"]).expect(0).stdout;
    assert!(table.starts_with("ID") && table.contains("weekly"), "{table}");

    let all = bench.run(&["backup", "verify", "--all", "--json"]).expect(0).json();
    assert!(all.as_array().expect("a list").iter().all(|one| one["ok"] == true), "{all}");
    let id = second["id"].as_str().expect("an id");
    let manifest = bench.manifest(id);
    let name = |of: &Value| of["name"].as_str().expect("a name").to_owned();
    let objects = [
        format!("backups/{id}.json"),
        name(&manifest["keys"]),
        name(&manifest["anchors"]),
        name(&manifest["tenants"][1]["key"]),
        name(&manifest["tenants"][1]["snapshot"]["object"]),
        name(&manifest["segments"][0]["object"]),
    ];
    for object in objects {
        let path = bench.archive().join(&object);
        let whole = fs::read(&path).expect("an object");
        for damage in DAMAGES {
            damage.happens_to(&path);
            let outcome = bench.run(&["backup", "verify", id]).expect(1);
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            let is_named =
                said.contains(&object) || (object.ends_with(".json") && said.contains(id));
            assert!(is_named, "{object}: {damage:?}: {said}");
            fs::write(&path, &whole).expect("the object as it was");
        }
    }
    bench.run(&["backup", "verify", id]).expect(0);
    bench.run(&["backup", "verify", "bk_none"]).expect(2);
}

#[test]
fn a_restore_onto_an_empty_directory_gives_every_tenant_back() {
    let mut bench = Bench::new(3);
    bench.back_up();
    let (tenant, form) = &bench.tenants[1];
    tenant.submit(&tenant.owner, form, "after the first backup");
    let before: Vec<_> = bench.tenants.iter().map(|(tenant, form)| answers(tenant, form)).collect();
    let backup = bench.back_up();
    // What comes after the backup is not in it.
    let (tenant, form) = &bench.tenants[2];
    tenant.submit(&tenant.owner, form, "too late");
    bench.node.kill();

    let report = bench.restore("new", &["--json"]).expect(0).json();
    assert_eq!((&report["backup"], &report["tenants"]), (&backup["id"], &Value::from(4)));
    let key = report["public_key"].as_str().expect("a key");
    bench.restore("trusted", &["--trust", key]).expect(0);
    let other = Launcher::on(&bench.path("new")).set("backup.enabled", "false");
    let mut node = other.serve();
    for ((tenant, form), before) in bench.tenants.iter_mut().zip(&before) {
        tenant.move_to(&node.client);
        assert_eq!(&answers(tenant, form), before, "{}", tenant.slug);
        tenant.submit(&tenant.owner, form, "life goes on");
    }
    other.run(&["audit", "verify"]).expect(0);
    other.run(&["backup", "run"]).expect(0);
    other.run(&["backup", "verify"]).expect(0);
    node.kill();
    let mut node = other.serve();
    for (tenant, form) in &mut bench.tenants {
        tenant.move_to(&node.client);
        let names = tenant.submissions(form);
        assert!(names.iter().any(|(_, name)| name == "life goes on"), "{}", tenant.slug);
        assert!(!names.iter().any(|(_, name)| name == "too late"), "{}", tenant.slug);
    }
    other.run(&["audit", "verify"]).expect(0);
    node.kill();
}

#[test]
fn a_restore_that_cannot_be_says_why_and_leaves_nothing_that_opens() {
    let bench = Bench::new(1);
    bench.back_up();
    let target = bench.restore("data", &[]).expect(1).stderr;
    assert!(target.contains("is not empty"), "{target}");

    let other = bench.path("other-kek");
    drop(Launcher::on(&bench.path("other")).serve());
    fs::copy(bench.path("other/keys/kek"), &other).expect("a key");
    let wrong = bench.restore("wrong", &["--kek", text(&other)]).expect(1).stderr;
    let kek = bench.run(&["keys", "status", "--json"]).expect(0).json();
    let needed = kek["versions"][0]["id"].as_str().expect("an id");
    assert!(wrong.contains(&format!("the backup needs {needed}")), "{wrong}");
    let none = bench.path("no-kek");
    fs::write(&none, "no key at all").expect("a file");
    bench.restore("wrong", &["--kek", text(&none)]).expect(1);
    assert!(!bench.path("wrong").exists(), "nothing was written");
    bench.restore("wrong", &[]).expect(0);

    let none = bench.path("no-such-kek");
    let missing = bench.restore("missing", &["--kek", text(&none)]).expect(1).stderr;
    assert!(missing.contains("no-such-kek"), "{missing}");
    let distrusted = ["--trust", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];
    let distrusted = bench.restore("distrusted", &distrusted).expect(1).stderr;
    assert!(distrusted.contains("not the key you trust"), "{distrusted}");
    assert!(distrusted.contains(&bench.public_key()), "{distrusted}");
    let live = bench.path("data");
    let instead = bench.run(&["restore", "--from", text(&live), "--into", text(&none)]).expect(1);
    assert!(instead.stderr.contains(text(&bench.archive())), "{}", instead.stderr);
    let theirs = bench.restore("theirs", &["--archive", text(&live)]).expect(1).stderr;
    assert!(theirs.contains("data directory") && !bench.path("theirs").exists(), "{theirs}");
    let absent = ["--backup", "bk_00000000000000000000000000000000"];
    let absent = bench.restore("absent", &absent).expect(1).stderr;
    assert!(absent.contains("there is no backup"), "{absent}");
    assert!(!bench.path("absent").exists());

    let listed = bench.run(&["backup", "list", "--json"]).expect(0).json();
    let id = listed["backups"][0]["id"].as_str().expect("an id").to_owned();
    let manifest = bench.manifest(&id);
    let object = manifest["segments"][0]["object"]["name"].as_str().expect("a name").to_owned();
    let path = bench.archive().join(&object);
    Damage::FlippedBit.happens_to(&path);
    let damaged = bench.restore("damaged", &[]).expect(1).stderr;
    assert!(damaged.contains(&object), "{damaged}");
    let why = Launcher::on(&bench.path("damaged")).try_serve().err().expect("it does not start");
    assert!(why.contains("holds an unfinished restore"), "{why}");
    let again = bench.restore("damaged", &[]).expect(1).stderr;
    assert!(again.contains("unfinished restore"), "{again}");
}

#[test]
fn a_tenant_erased_after_the_backup_is_in_no_restore_of_it() {
    let mut bench = Bench::new(2);
    bench.back_up();
    bench.run(&["tenant", "erase", "acme-1", "--force", "--reason", "it was asked for"]).expect(0);
    let verified = bench.run(&["backup", "verify", "--json"]).expect(0).json();
    assert_eq!(verified[0]["ok"], true, "{verified}");
    let end = bench.run(&["drill", "--json"]).expect(0).json();
    let counts = &end["report"]["body"]["tenants"];
    assert_eq!((&counts["erased"], &counts["passed"]), (&Value::from(1), &Value::from(2)), "{end}");
    // The next backup knows without the receipt.
    let backup = bench.back_up();
    let manifest = bench.manifest(backup["id"].as_str().expect("an id"));
    let without =
        manifest["tenants"].as_array().expect("a list").iter().filter(|one| one["key"].is_null());
    assert_eq!(without.count(), 1, "{manifest}");
    bench.run(&["backup", "verify", "--all"]).expect(0);
    bench.node.kill();

    let first = bench.run(&["backup", "list", "--json"]).expect(0).json();
    let id = first["backups"][0]["id"].as_str().expect("an id").to_owned();
    let report = bench.restore("new", &["--json", "--backup", &id]).expect(0).json();
    assert_eq!(report["erased"], 1, "{report}");
    let other = Launcher::on(&bench.path("new")).set("backup.enabled", "false");
    let node = other.serve();
    let (tenant, form) = &mut bench.tenants[0];
    tenant.move_to(&node.client);
    assert_eq!(tenant.submissions(form).len(), 20);
    let (erased, _) = &mut bench.tenants[1];
    erased.move_to(&node.client);
    let refused = erased.owner.call("GET", "/v1/forms", None);
    assert!(refused.status >= 400, "{refused:?}");
    other.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_full_disk_under_a_restore_is_said_and_what_is_there_does_not_open() {
    let disk = match LoopDisk::make(8 << 20) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: a full disk under a restore: {why}");
            return;
        }
    };
    let bench = Bench::new(1);
    bench.back_up();
    let left = disk.free_bytes().saturating_sub(96 << 10);
    let file = fs::File::create(disk.path().join("ballast")).expect("a file");
    let taken = Command::new("fallocate")
        .args(["-l", &left.to_string(), text(&disk.path().join("ballast"))])
        .status();
    assert!(taken.expect("fallocate runs").success());
    drop(file);
    let (archive, kek) = (bench.archive(), bench.path("data/keys/kek"));
    let into = disk.path().join("new");
    let words = ["restore", "--from", text(&archive), "--into", text(&into), "--kek", text(&kek)];
    let full = bench.run(&words).expect(1).stderr;
    assert!(full.contains("No space left"), "{full}");
    let why = Launcher::on(&into).try_serve().err().expect("it does not start");
    assert!(why.contains("unfinished restore") || why.contains("No space left"), "{why}");
}

#[test]
fn a_drill_proves_a_backup_and_fails_on_a_damaged_one() {
    let bench = Bench::new(2);
    bench.back_up();
    let end = bench.run(&["drill", "--json"]).expect(0).json();
    assert_eq!(
        (&end["passed"], &end["in_time"]),
        (&Value::Bool(true), &Value::Bool(true)),
        "{end}"
    );
    let body = &end["report"]["body"];
    assert_eq!(body["tenants"]["passed"], 3, "{body}");
    let lines = body["lines"].as_array().expect("a list");
    assert!(lines.iter().all(|line| line["state_hash"].is_string()), "{body}");
    // The report lies in the archive, and the node's key has signed it.
    let bytes = fs::read(bench.archive().join(end["object"].as_str().expect("a name")));
    let signed = Signed::<DrillReport>::parse(&bytes.expect("a report")).expect("a report");
    let verifier = NoteVerifier::new("bulkhead.local/node", *signed.claimed_key()).expect("a key");
    assert!(signed.verify(&verifier).expect("its own key").is_passed());
    let metrics = bench.node.ops.get("/metrics", 200).text();
    assert!(metrics.contains("\nbulkhead_drill_last_success_timestamp_seconds "), "{metrics}");
    assert!(metrics.contains("\nbulkhead_drill_overdue 0"), "{metrics}");
    assert!(metrics.contains("\nbulkhead_backup_last_success_timestamp_seconds "), "{metrics}");

    let scratch = bench.path("scratch");
    let shown = bench.run(&["drill", "--scratch", text(&scratch)]).expect(0).stdout;
    assert!(shown.contains("PASSED") && shown.contains("RTO"), "{shown}");
    assert_eq!(fs::read_dir(&scratch).expect("the directory").count(), 0, "all is removed");
    assert_eq!(fs::read_dir(bench.path("data/tmp")).expect("a directory").count(), 0);

    let backup = bench.back_up();
    let manifest = bench.manifest(backup["id"].as_str().expect("an id"));
    let snapshot = &manifest["tenants"][1]["snapshot"]["object"]["name"];
    let path = bench.archive().join(snapshot.as_str().expect("a name"));
    Damage::FlippedBit.happens_to(&path);
    let failed = bench.run(&["drill", "--json"]).expect(1).json();
    assert_eq!(failed["passed"], false, "{failed}");
    assert!(failed["text"].as_str().expect("text").contains(snapshot.as_str().expect("a name")));
    assert!(bench.archive().join(failed["object"].as_str().expect("a name")).exists());
    // Every one of them is in the platform's own chain.
    let words = ["audit", "verify", "--tenant", "platform", "--json"];
    let report = bench.run(&words).expect(0).json();
    assert!(report["tenants"][0]["entries"].as_u64().expect("a number") >= 2 + 2 + 3, "{report}");
}

#[test]
fn an_archive_out_of_reach_fails_the_backup_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, "none-that-works").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let launcher = Launcher::on(&dir.path().join("data"))
        .set("archive.url", "s3://bucket/eu")
        .set("archive.endpoint", "http://127.0.0.1:1")
        .set("archive.allow_http", "true")
        .set("archive.timeout_ms", "300")
        .set("archive.access_key_id_file", &secret("id"))
        .set("archive.secret_access_key_file", &secret("secret"))
        .set("backup.every", "60s");
    let node = launcher.serve();
    let tenant = Tenant::sign_up(&node.client, "acme");
    let refused = launcher.run(&["backup", "run"]).expect(1).stderr;
    assert!(refused.contains("cannot be reached"), "{refused}");
    let form = tenant.form("Writes go on");
    tenant.submit(&tenant.owner, &form, "Ada");
    let metrics = node.ops.get("/metrics", 200).text();
    let failures =
        metrics.lines().find_map(|line| line.strip_prefix("bulkhead_backup_failures_total "));
    assert!(failures.expect("a metric").parse::<f64>().expect("a number") >= 1.0, "{metrics}");
    eventually("a warning", || node.stderr().contains("no backup was taken").then_some(()));
}

#[test]
fn backups_are_taken_when_due_and_an_overdue_drill_is_a_metric() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).set("backup.enabled", true).start();
    world.tenant("acme");
    let metric = |name: &str| {
        let text = world.ops.get("/metrics", 200).text();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.map(|value| value.parse::<f64>().expect("a number"))
    };
    // The first one waits a little after the start.
    clock.advance_days(1);
    let taken = "bulkhead_backup_last_success_timestamp_seconds";
    let first = eventually("a first backup", || metric(taken));
    assert_eq!(metric("bulkhead_drill_overdue"), Some(0.0));
    clock.advance_days(1);
    eventually("a second backup", || metric(taken).filter(|at| *at >= first + 86_400.0));
    clock.advance_days(92);
    assert_eq!(metric("bulkhead_drill_overdue"), Some(1.0));
}
