//! Old audit entries leave the node for the archive, and nobody who reads the log can tell.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::audit::entries;
use crate::kit::{Launcher, Tenant, World, WorldOptions, eventually};
use crate::portable::Operator;

/// Entries that stay.
const STAY: u64 = 16;

fn options(dir: &Path) -> WorldOptions {
    WorldOptions::default().data(dir).set("archive.local_audit_entries", 16)
}

fn seqs(entries: &[Value]) -> Vec<u64> {
    entries.iter().map(|entry| entry["seq"].as_u64().expect("a number")).collect()
}

/// How many entries left the node since it started.
fn moved(world: &World) -> u64 {
    let text = world.ops.get("/metrics", 200).text();
    let name = "bulkhead_archive_audit_entries_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
    line.parse().expect("a number")
}

fn until_moved(world: &World, at_least: u64) {
    eventually("old audit entries are in the archive", || (moved(world) >= at_least).then_some(()));
}

/// The objects with a tenant's entries, oldest first.
fn objects(data: &Path, tenant: &Tenant) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data.join("archive/audit").join(&tenant.id));
    let files = files.expect("audit entries in the archive");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths
}

/// A tenant with two forms that take turns, and its whole log as it was read before any of it moved.
struct Busy {
    tenant: Tenant,
    forms: [String; 2],
}

impl Busy {
    fn on(world: &World, slug: &str, submissions: usize) -> Self {
        let tenant = world.tenant(slug);
        let forms = [tenant.form("Even"), tenant.form("Odd")];
        for n in 0..submissions {
            tenant.submit(&tenant.owner, &forms[n / 40 % 2], &format!("n {n}"));
        }
        Self { tenant, forms }
    }

    fn log(&self, query: &str) -> Vec<Value> {
        entries(&self.tenant.owner, "/v1/audit", query)
    }

    fn verify(&self) -> Value {
        self.tenant.owner.get("/v1/audit/verify", 200).json()
    }
}

/// Everything that lists and reads shows the same as `log`, the log from its first entry on.
fn expect_same(busy: &Busy, log: &[Value]) {
    let all: Vec<u64> = (1..=log.len() as u64).collect();
    assert_eq!(seqs(log), all);
    let reversed: Vec<u64> = all.iter().rev().copied().collect();
    for limit in [7, 64, 200] {
        assert_eq!(busy.log(&format!("sort=seq&limit={limit}")), log, "{limit} a page");
        let newest = busy.log(&format!("limit={limit}"));
        assert_eq!(seqs(&newest), reversed, "newest first, {limit} a page");
    }
    for form in &busy.forms {
        let is_about = |entry: &&Value| entry["detail"]["form"] == json!(form);
        let about: Vec<_> = log.iter().filter(is_about).cloned().collect();
        assert!(about.len() > 20);
        assert_eq!(busy.log(&format!("sort=seq&limit=9&form={form}")), about);
        let trail = format!("/v1/forms/{form}/audit");
        assert_eq!(entries(&busy.tenant.owner, &trail, "sort=seq&limit=11"), about);
        let mut about = seqs(&about);
        about.reverse();
        assert_eq!(seqs(&entries(&busy.tenant.owner, &trail, "limit=11")), about);
    }
    let action = "submission.create";
    let made: Vec<_> = log.iter().filter(|entry| entry["action"] == action).cloned().collect();
    assert_eq!(busy.log(&format!("sort=seq&limit=50&action={action}")), made);
    let (from, to) = (log[10]["at"].as_str().expect("a time"), &log[30]["at"]);
    let to = to.as_str().expect("a time");
    let during = |entry: &&Value| entry["at"].as_str().is_some_and(|at| at >= from && at < to);
    let during: Vec<_> = log.iter().filter(during).cloned().collect();
    assert_eq!(busy.log(&format!("sort=seq&from={from}&to={to}")), during);
    for entry in [&log[0], &log[STAY as usize], &log[log.len() - 1]] {
        let place = format!("/v1/audit/{}", entry["seq"]);
        assert_eq!(&busy.tenant.owner.get(&place, 200).json(), entry);
    }
    busy.tenant.owner.get(&format!("/v1/audit/{}", log.len() + 1), 404);
    busy.tenant.owner.get("/v1/audit/0", 404);
}

#[test]
fn a_log_that_is_mostly_in_the_archive_reads_as_if_it_were_not() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut world = options(&data).set("archive.local_audit_entries", 10_000).start();
    let mut busy = Busy::on(&world, "acme", 300);
    let log = busy.log("sort=seq&limit=200");
    assert!(log.len() > 300 && moved(&world) == 0);
    world.stop();

    let world = options(&data).start();
    busy.tenant.move_to(&world.client);
    // A record of it wakes the archiver.
    busy.tenant.submit(&busy.tenant.owner, &busy.forms[0], "one more");
    until_moved(&world, 250);
    let now = busy.log("sort=seq&limit=200");
    assert_eq!(now[..log.len()], log);
    expect_same(&busy, &now);
    let report = busy.verify();
    assert_eq!((&report["ok"], &report["entries"]), (&json!(true), &json!(now.len())), "{report}");
    // Its neighbour's log is its own.
    let other = world.tenant("other");
    let page = other.owner.get("/v1/audit?limit=200", 200).json();
    assert!(page["items"].as_array().expect("a list").len() < 5);
    let objects = objects(&data, &busy.tenant);
    println!("{} entries: {} objects", now.len(), objects.len());
    assert!(objects.len() >= 8);
    let objects = std::fs::read_dir(data.join("archive/audit")).expect("a directory").count();
    assert_eq!(objects, 1, "the archive has entries of one tenant");
}

#[test]
fn entries_that_were_changed_in_the_archive_are_found_and_never_shown() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let world = options(&data).start();
    let busy = Busy::on(&world, "acme", 120);
    let neighbour = Busy::on(&world, "umbrella", 120);
    until_moved(&world, 180);
    assert_eq!(busy.verify()["ok"], true);
    let objects_of = |busy: &Busy| objects(&data, &busy.tenant);
    let (own, foreign) = (objects_of(&busy), objects_of(&neighbour));
    let first = std::fs::read(&own[0]).expect("an object");
    let flipped = |at: usize| {
        let mut bytes = first.clone();
        bytes[at] ^= 1;
        bytes
    };
    let stolen = std::fs::read(&foreign[0]).expect("an object");
    let second = std::fs::read(&own[1]).expect("an object");
    let spoilt = [flipped(300), flipped(20), first[..first.len() - 1].to_vec(), stolen, second];
    for (number, bytes) in spoilt.iter().enumerate() {
        std::fs::write(&own[0], bytes).expect("written");
        let report = busy.verify();
        assert_eq!(report["ok"], false, "{number}: {report}");
        let oldest = busy.tenant.owner.get("/v1/audit?sort=seq&limit=5", 503);
        assert!(!oldest.text().contains("umbrella"), "{}", oldest.text());
        busy.tenant.owner.get("/v1/audit/1", 503);
        // What is not in that object is served.
        busy.tenant.owner.get("/v1/audit?limit=5", 200);
        assert_eq!(neighbour.verify()["ok"], true);
    }
    std::fs::remove_file(&own[0]).expect("removed");
    assert_eq!(busy.verify()["ok"], false);
    busy.tenant.owner.get("/v1/audit/1", 503);
    std::fs::write(&own[0], &first).expect("written");
    assert_eq!(busy.verify()["ok"], true);
    busy.tenant.owner.get("/v1/audit/1", 200);
}

#[test]
fn entries_in_the_archive_survive_a_lost_view_a_move_and_a_backup() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut world = options(&data).start();
    let mut busy = Busy::on(&world, "acme", 150);
    until_moved(&world, 100);
    let log = busy.log("sort=seq&limit=200");
    world.stop();
    std::fs::remove_dir_all(data.join("view")).expect("a removable view");
    let world = options(&data).start();
    busy.tenant.move_to(&world.client);
    expect_same(&busy, &log);

    let operator = Operator::of(&data);
    let bundle = operator.export("acme", "acme.bundle");
    // That it is copied is the last one.
    assert_eq!(bundle.report["entries"], json!(log.len() + 1), "{}", bundle.report);
    let elsewhere = home.path().join("elsewhere");
    let other = options(&elsewhere).start();
    let stranger = Operator::of(&elsewhere);
    stranger.json(&bundle.import(&[]));
    let owner = other.sign_in("acme", "owner@acme.example");
    let moved = entries(&owner, "/v1/audit", "sort=seq&limit=200");
    // Exporting and importing are entries themselves; what came along is the same.
    assert_eq!(moved[..log.len()], log);
    let about = |entry: &&Value| entry["detail"]["form"] == json!(busy.forms[1]);
    let about: Vec<_> = moved.iter().filter(about).cloned().collect();
    let trail = format!("/v1/forms/{}/audit", busy.forms[1]);
    assert_eq!(entries(&owner, &trail, "sort=seq&limit=50"), about);
    assert_eq!(owner.get("/v1/audit/verify", 200).json()["ok"], true);

    operator.json(&["backup", "run"]);
    let drill = operator.json(&["drill"]);
    assert_eq!(drill["passed"], true, "{drill}");
    let into = home.path().join("restored");
    let archive = data.join("archive");
    let kek = data.join("keys/kek");
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let words =
        ["restore", "--from", &path(&archive), "--into", &path(&into), "--kek", &path(&kek)];
    Launcher::on(&into).run(&words).expect(0);
    drop(world);
    let again = options(&into).start();
    busy.tenant.move_to(&again.client);
    let restored = busy.log("sort=seq&limit=200");
    assert_eq!(restored[..log.len()], log);
    assert_eq!(busy.verify()["ok"], true);
}

/// The first fault that the operator's check finds, its entry and its text; nothing if there is none.
fn fault(operator: &Operator, slug: &str) -> Option<(u64, String)> {
    let outcome = operator.run(&["audit", "verify", "--tenant", slug, "--json"]);
    let bad = outcome.json()["tenants"][0]["first_bad"].clone();
    let what = bad["what"].as_str()?.to_owned();
    Some((bad["seq"].as_u64().expect("a number"), what))
}

#[test]
fn a_lost_run_of_entries_is_found_by_everybody_and_no_backup_goes_on_without_it() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let world = options(&data).start();
    let busy = Busy::on(&world, "acme", 120);
    until_moved(&world, 90);
    let operator = Operator::of(&data);
    assert_eq!(fault(&operator, "acme"), None);
    let own = objects(&data, &busy.tenant);
    for (at, first) in [(0, 1), (1, 33)] {
        let kept = std::fs::read(&own[at]).expect("an object");
        std::fs::remove_file(&own[at]).expect("removed");
        let name = own[at].file_name().and_then(|name| name.to_str()).expect("a name");
        let (seq, what) = fault(&operator, "acme").expect("a fault");
        assert!(seq == first && what.contains(name), "{seq}: {what}");
        let refused = operator.run(&["backup", "run"]).expect(1);
        assert!(refused.stderr.contains("audit entries from"), "{}", refused.stderr);
        std::fs::write(&own[at], kept).expect("written");
    }
    operator.json(&["backup", "run"]);
    // From now on a backup knows of the last one as well.
    let last = own.last().expect("an object");
    let kept = std::fs::read(last).expect("an object");
    std::fs::remove_file(last).expect("removed");
    let refused = operator.run(&["backup", "run"]).expect(1);
    assert!(refused.stderr.contains("audit entries from"), "{}", refused.stderr);
    std::fs::write(last, kept).expect("written");
    operator.json(&["backup", "run"]);
}

#[test]
fn archived_entries_are_checked_also_when_the_records_that_moved_them_are_gone() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut world = options(&data).set("archive.local_bytes", 0).start();
    let busy = Busy::on(&world, "acme", 120);
    until_moved(&world, 90);
    let operator = Operator::of(&data);
    // With a snapshot of everything, behind which the history may begin.
    operator.json(&["backup", "run"]);
    busy.tenant.submit(&busy.tenant.owner, &busy.forms[0], "after it");
    operator.json(&["backup", "run"]);
    assert_eq!(fault(&operator, "acme"), None);
    world.stop();
    let mut segments: Vec<_> = std::fs::read_dir(data.join("archive/segments"))
        .expect("segments")
        .map(|file| file.expect("a file").path())
        .collect();
    segments.sort();
    // What the tidying does once the window has passed.
    std::fs::remove_file(&segments[0]).expect("removed");
    let operator = Operator::of(&data);
    assert_eq!(fault(&operator, "acme"), None);
    let own = objects(&data, &busy.tenant);
    std::fs::remove_file(&own[0]).expect("removed");
    let name = own[0].file_name().and_then(|name| name.to_str()).expect("a name");
    let (seq, what) = fault(&operator, "acme").expect("a fault");
    assert!(seq == 1 && what.contains(name), "{seq}: {what}");
}
