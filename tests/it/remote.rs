//! Backups whose archive is a bucket, by the real program: a machine that is lost whole comes back from
//! it, and a bucket that goes away, or never was there, is said and stops nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use actors::env::{Clock as _, SystemClock, rfc3339};
use serde_json::Value;
use storage::archive::{Archive, ArchiveOptions, ObjectArchive};

use crate::kit::{
    BUCKET, Dice, Emulator, Gate, Launcher, Outcome, Process, Tenant, eventually, number_from,
    service_account,
};

/// The routes whose answers a restore must give back.
const ROUTES: [&str; 4] = ["/v1/tenant", "/v1/members", "/v1/forms", "/v1/audit?limit=50"];
const TENANTS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    Google,
}

/// A bucket behind a door, and a machine that archives in it.
struct Site {
    dir: tempfile::TempDir,
    kind: Kind,
    gate: Gate,
    _store: Emulator,
}

impl Site {
    /// Nothing where there is no emulator, which then says so.
    fn of(kind: Kind) -> Option<Self> {
        Self::with(kind, Emulator::s3)
    }

    fn with(kind: Kind, s3: impl FnOnce() -> Option<Emulator>) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [("id", "a-key"), ("secret", "its-secret")] {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        let account = dir.path().join("account.json");
        service_account(&account);
        let store = match kind {
            Kind::S3 => s3()?,
            Kind::Google => Emulator::google(&account)?,
        };
        let gate = Gate::before(&store.url);
        Some(Self { dir, kind, gate, _store: store })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A place in the bucket.
    fn url(&self, prefix: &str) -> String {
        let scheme = if self.kind == Kind::S3 { "s3" } else { "gs" };
        format!("{scheme}://{BUCKET}/{prefix}")
    }

    /// A node on a directory of that name which archives at a URL.
    fn node(&self, data: &str, url: &str) -> Launcher {
        let launcher = Launcher::on(&self.path(data))
            .set("backup.enabled", "false")
            .set("archive.url", url)
            .set("archive.endpoint", &self.gate.url)
            .set("archive.allow_http", "true")
            .set("archive.timeout_ms", "1000")
            .set("archive.roll_after_s", "1");
        let file = |name: &str| text(&self.path(name)).to_owned();
        match self.kind {
            Kind::S3 => launcher
                .set("archive.region", "us-east-1")
                .set("archive.access_key_id_file", &file("id"))
                .set("archive.secret_access_key_file", &file("secret")),
            Kind::Google => launcher.set("archive.service_account_file", &file("account.json")),
        }
    }

    /// The objects under a prefix of the bucket, as the tests see them.
    fn objects(&self, prefix: &str) -> std::sync::Arc<dyn Archive> {
        let mut options = ArchiveOptions::new(self.url(prefix));
        options.endpoint = Some(self.gate.url.clone());
        options.allow_http = true;
        match self.kind {
            Kind::S3 => {
                options.region = Some("us-east-1".to_owned());
                options.access_key_id = Some("a-key".to_owned().into());
                options.secret_access_key = Some("its-secret".to_owned().into());
            }
            Kind::Google => options.service_account_file = Some(self.path("account.json")),
        }
        ObjectArchive::open(&options).expect("an archive")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn furnished(node: &Process) -> Vec<(Tenant, String)> {
    let make = |number| {
        let tenant = Tenant::sign_up(&node.client, &format!("acme-{number}"));
        let form = tenant.form("Far away");
        for submission in 0..10 {
            tenant.submit(&tenant.owner, &form, &format!("submission {submission}"));
        }
        (tenant, form)
    };
    (0..TENANTS).map(make).collect()
}

fn answers(tenant: &Tenant, form: &str) -> Vec<String> {
    let submissions = format!("/v1/forms/{form}/submissions?limit=200");
    let routes = ROUTES.into_iter().chain([submissions.as_str()]);
    routes.map(|route| tenant.owner.get(route, 200).text()).collect()
}

fn figure(node: &Process, name: &str) -> Option<f64> {
    let metrics = node.ops.get("/metrics", 200).text();
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Loses a machine whole, and brings its node back on another that archives at `url`, or beside its data.
fn lose_and_restore(site: &Site, url: Option<&str>) {
    let launcher = site.node("data", &site.url("eu/node-1"));
    let mut node = launcher.serve();
    let mut tenants = furnished(&node);
    launcher.run(&["backup", "run"]).expect(0);
    for (tenant, form) in &tenants {
        tenant.submit(&tenant.owner, form, "after the first backup");
    }
    let before: Vec<_> = tenants.iter().map(|(tenant, form)| answers(tenant, form)).collect();
    let backup = launcher.run(&["backup", "run", "--json"]).expect(0).json();
    let id = backup["id"].as_str().expect("an id").to_owned();
    let end = launcher.run(&["drill", "--json"]).expect(0).json();
    assert_eq!((&end["passed"], &end["in_time"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(!site.path("data/archive").exists(), "nothing rests on the machine");
    // The operator has a copy of the key; everything else goes.
    fs::copy(site.path("data/keys/kek"), site.path("kek")).expect("a copy");
    node.kill();
    fs::remove_dir_all(site.path("data")).expect("a lost machine");

    let (into, kek) = (site.path("new"), site.path("kek"));
    let mut words = vec!["restore", "--into", text(&into), "--kek", text(&kek), "--json"];
    words.extend(url.iter().flat_map(|url| ["--archive", *url]));
    let report = launcher.run(&words).expect(0).json();
    assert_eq!((report["backup"].as_str(), report["tenants"].as_u64()), (Some(&*id), Some(4)));
    let other = match url {
        Some(url) => site.node("new", url),
        None => Launcher::on(&into).set("backup.enabled", "false"),
    };
    let node = other.serve();
    for ((tenant, form), before) in tenants.iter_mut().zip(&before) {
        tenant.move_to(&node.client);
        assert_eq!(&answers(tenant, form), before, "{}", tenant.slug);
        tenant.submit(&tenant.owner, form, "life goes on");
    }
    other.run(&["audit", "verify"]).expect(0);
    other.run(&["backup", "run"]).expect(0);
    let verified = other.run(&["backup", "verify", "--all", "--json"]).expect(0).json();
    assert!(verified.as_array().is_some_and(|all| !all.is_empty()), "{verified}");
    println!("restored {} objects, {} bytes", report["objects"], report["bytes"]);
}

#[test]
fn a_machine_lost_whole_comes_back_from_a_bucket_of_s3() {
    let Some(site) = Site::of(Kind::S3) else { return };
    lose_and_restore(&site, Some(&site.url("eu/node-2")));
}

#[test]
fn a_machine_lost_whole_comes_back_from_a_bucket_of_google() {
    let Some(site) = Site::of(Kind::Google) else { return };
    lose_and_restore(&site, None);
}

#[test]
fn an_object_that_a_bucket_lost_or_changed_is_named_and_nothing_opens_that_was_made_of_it() {
    let Some(site) = Site::of(Kind::S3) else { return };
    let launcher = site.node("data", &site.url("eu/node-1"));
    let node = launcher.serve();
    furnished(&node);
    launcher.run(&["backup", "run"]).expect(0);
    let (objects, kek) = (site.objects("eu/node-1"), site.path("data/keys/kek"));
    let mut tried = 0;
    for folder in ["segments", "snapshots", "keys", "backups"] {
        let name = objects.list(folder).expect("a list").remove(0).name;
        let whole = objects.get(&name).expect("an object");
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        for damage in [None, Some(changed)] {
            match damage {
                None => objects.remove(&name).expect("removed"),
                Some(bytes) => objects.put(&name, bytes).expect("changed"),
            }
            let verified = launcher.run(&["backup", "verify"]);
            assert_ne!(verified.code, 0, "{name}: {verified:?}");
            let into = site.path(&format!("bad-{tried}"));
            let words = ["restore", "--into", text(&into), "--kek", text(&kek)];
            let refused = launcher.run(&words).expect(1).stderr;
            let stem = name.rsplit_once('.').expect("an extension").0;
            assert!(refused.contains(stem) || refused.contains("no backup"), "{name}: {refused}");
            if into.exists() {
                Launcher::on(&into).try_serve().err().expect("it does not start");
            }
            objects.put(&name, whole.clone()).expect("the object as it was");
            tried += 1;
        }
    }
    launcher.run(&["backup", "verify"]).expect(0);
    println!("objects of a bucket damaged: {tried}, all named");
}

fn backed_up(outcome: &Outcome) -> bool {
    assert!(outcome.code <= 1, "{outcome:?}");
    if outcome.code == 1 {
        assert!(outcome.stderr.contains("the archive cannot be reached"), "{outcome:?}");
    }
    outcome.code == 0
}

#[test]
fn a_bucket_that_goes_away_at_any_time_of_a_backup_fails_it_by_name_and_the_next_succeeds() {
    let rounds = number_from("BULKHEAD_ATTACK_ROUNDS", 4);
    let mut dice = Dice::thrown("a bucket that goes away");
    let Some(site) = Site::of(Kind::S3) else { return };
    let launcher = site.node("data", &site.url("eu/node-1"));
    let node = launcher.serve();
    let tenants = furnished(&node);
    launcher.run(&["backup", "run"]).expect(0);
    let (mut taken, mut failed, mut names) = (1, 0.0, 10);
    // Away for longer: everybody writes on, and the operator is told in three ways. First, because the
    // archivist looks less often once it has failed.
    site.gate.shut();
    assert!(!backed_up(&launcher.run(&["backup", "run"])));
    failed += 1.0;
    for (tenant, form) in &tenants {
        tenant.submit(&tenant.owner, form, "while it was away");
    }
    names += 1;
    eventually("the lag is told", || {
        let waiting = figure(&node, "bulkhead_archive_segments_waiting")?;
        let failing = figure(&node, "bulkhead_archive_failing")?;
        (waiting >= 1.0 && failing > 0.0).then_some(())
    });
    assert_eq!(figure(&node, "bulkhead_backup_failures_total"), Some(failed));
    eventually("a warning", || {
        let said = node.stderr();
        (said.contains("history is not archived") && said.contains("cannot be reached"))
            .then_some(())
    });
    assert!(launcher.run(&["backup", "list"]).expect(1).stderr.contains("cannot be reached"));
    assert!(launcher.run(&["drill"]).expect(1).stderr.contains("cannot be reached"));
    site.gate.open();

    for round in 0..rounds {
        for (tenant, form) in &tenants {
            tenant.submit(&tenant.owner, form, &format!("round {round}"));
        }
        names += 1;
        site.gate.shut_after(dice.below(40));
        let is_taken = backed_up(&launcher.run(&["backup", "run"]));
        failed += if is_taken { 0.0 } else { 1.0 };
        site.gate.open();
        let listed = launcher.run(&["backup", "list", "--json"]).expect(0).json();
        let there = listed["backups"].as_array().map_or(0, Vec::len);
        // Whoever did not hear that the last object is there says that it failed.
        assert!(there == taken + 1 || (!is_taken && there == taken), "{taken}: {listed}");
        taken = there;
        assert_eq!(listed["damaged"].as_array().map(Vec::len), Some(0), "{listed}");
    }

    launcher.run(&["backup", "run"]).expect(0);
    assert_eq!(figure(&node, "bulkhead_backup_failures_total"), Some(failed));
    assert_eq!(figure(&node, "bulkhead_archive_segments_waiting"), Some(0.0));
    launcher.run(&["backup", "verify", "--all"]).expect(0);
    launcher.run(&["drill"]).expect(0);
    for (tenant, form) in &tenants {
        assert_eq!(tenant.submissions(form).len(), names, "{}", tenant.slug);
    }
    println!("backups taken: {}, failed by name: {failed}, seed {}", taken + 1, dice.seed());
}

#[test]
fn a_bucket_that_does_not_let_us_in_or_is_not_there_is_named_and_everybody_is_served() {
    let refusing = Site::with(Kind::S3, Emulator::s3_that_refuses);
    let (Some(refusing), Some(site)) = (refusing, Site::of(Kind::S3)) else { return };
    let Some(google) = Site::of(Kind::Google) else { return };
    service_account(&google.path("account.json"));
    let cases = [
        (&refusing, refusing.url("eu"), "the archive refuses"),
        (&google, google.url("eu"), "the archive refuses"),
        (&site, "s3://no-such-bucket/eu".to_owned(), "no-such-bucket"),
    ];
    for (site, url, reason) in cases {
        let launcher = site.node("data", &url);
        let node = launcher.serve();
        let tenant = Tenant::sign_up(&node.client, "acme");
        let form = tenant.form("Goes on");
        tenant.submit(&tenant.owner, &form, "Ada");
        let named = |text: &str| text.contains(reason);
        let refused = launcher.run(&["backup", "run"]).expect(1).stderr;
        assert!(named(&refused), "{url}: {refused}");
        eventually("a warning that says why", || {
            let said = node.stderr();
            let mut lines = said.lines().filter(|line| line.contains("history is not archived"));
            lines.any(named).then_some(())
        });
        assert_eq!(figure(&node, "bulkhead_archive_failing"), Some(1.0), "{url}");
        assert_eq!(tenant.submissions(&form).len(), 1);
    }
}

#[test]
fn whoever_looks_back_while_the_bucket_is_out_of_reach_is_told_so_and_nothing_is_begun() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["id", "secret"] {
        fs::write(dir.path().join(name), name).expect("a file");
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o600))
            .expect("a mode");
    }
    // Nobody listens there: the port is one that only the system gives away.
    let launcher = Launcher::on(&dir.path().join("data"))
        .set("backup.enabled", "false")
        .set("archive.url", "s3://bucket/eu")
        .set("archive.endpoint", "http://127.0.0.1:1")
        .set("archive.allow_http", "true")
        .set("archive.region", "us-east-1")
        .set("archive.timeout_ms", "1000")
        .set("archive.access_key_id_file", text(&dir.path().join("id")))
        .set("archive.secret_access_key_file", text(&dir.path().join("secret")));
    let node = launcher.serve();
    let tenant = Tenant::sign_up(&node.client, "acme");
    let form = tenant.form("Near");
    let at = rfc3339(SystemClock::new().now_ms());
    let back = serde_json::json!({"at": at});
    for refused in [
        tenant.owner.call("GET", &format!("/v1/forms?as_of={at}"), None),
        tenant.owner.call("POST", "/v1/tenant/restores", Some(&back)),
    ] {
        let told = (refused.status, refused.problem());
        assert_eq!(told, (503, "history-unavailable".to_owned()), "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
    }
    for words in [
        &["tenant", "restore", "--tenant", "acme", "--at", &at][..],
        &["tenant", "restore", "--tenant", "acme", "--at", &at, "--into", "acme-then"],
        &["tenant", "clone", "acme", "acme-copy"],
    ] {
        let said = launcher.run(words).expect(1).stderr;
        assert!(said.contains("the archive cannot be reached"), "{words:?}: {said}");
    }
    assert_eq!(tenant.owner.get(&format!("/v1/forms/{form}"), 200).str("/title"), "Near");
    let listed = launcher.run(&["tenant", "list", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "no copy was begun: {listed}");
}
