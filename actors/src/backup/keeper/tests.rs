//! A year and a month of backups under a clock that jumps from day to day.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use storage::anchor_log::AnchorLog;
use storage::archive::Archive as _;
use storage::archive::memory::MemoryArchive;
use storage::disk::RealDisk;
use storage::id::Id as _;
use storage::keys::Key;
use storage::keystore::KeyOptions;
use storage::log::Appended;
use storage::store::{Store, StoreOptions};

use super::*;
use crate::archivist::pass::{Policy, pass};
use crate::audit::anchor::signing_key;
use crate::backup::name::{BACKUPS, ObjectName};
use crate::backup::rotation::{BackupTime, kept};
use crate::backup::sweep::Swept;
use crate::env::{Clock, Env};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// 1 January 2026, 02:00 UTC.
const START_MS: u64 = 1_767_232_800_000;

/// What stands beside the keeper in a node.
const ARCHIVIST: Policy = Policy {
    window: Duration::from_millis(7 * DAY_MS),
    roll_after: Duration::from_secs(60),
    local_bytes: 0,
};

struct Days(AtomicU64);

impl Clock for Days {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms() - START_MS + 1)
    }
}

struct Bench {
    shared: Shared,
    archive: Arc<MemoryArchive>,
    clock: Arc<Days>,
    store: Arc<Store>,
    tenant: TenantId,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = Arc::new(MemoryArchive::new());
        let clock = Arc::new(Days(AtomicU64::new(START_MS)));
        let env = Env::real().with_clock(clock.clone());
        let store = Store::open(StoreOptions {
            archive: Some(archive.clone()),
            ..StoreOptions::new(dir.path().join("data"))
        })
        .unwrap();
        let anchors = AnchorLog::open(Arc::new(RealDisk), &dir.path().join("data/anchors"));
        let signer = signing_key(store.keystore(), "example.org/node", &env).unwrap();
        let tenant = TenantId::new(START_MS, [7; 10]);
        store.create_tenant(tenant).unwrap();
        let source = Source {
            store: store.clone(),
            anchors: Arc::new(anchors.unwrap()),
            signer: Arc::new(signer),
            region: "local".to_owned(),
            data_dir: dir.path().join("data"),
            keys: KeyOptions::default(),
            env,
        };
        let policy = BackupPolicy {
            every: Some(Duration::from_millis(DAY_MS)),
            drill_overdue: Duration::from_millis(92 * DAY_MS),
            window: Duration::from_millis(7 * DAY_MS),
        };
        archive.set_now_ms(START_MS);
        Self { shared: Shared::new(source, policy), archive, clock, store, tenant, _dir: dir }
    }

    /// The archive's clock goes with the node's.
    fn advance(&self, time_ms: u64) {
        let now_ms = self.clock.0.fetch_add(time_ms, Ordering::Relaxed) + time_ms;
        self.archive.set_now_ms(now_ms);
    }

    fn write(&self, number: u64) {
        let mut shard = self.store.own_shard(self.tenant).unwrap();
        let mut txn = shard.txn();
        let user = storage::id::UserId::new(number, [1; 10]);
        txn.put(&Key::User { id: user }, number.to_be_bytes().to_vec()).unwrap();
        let changes = txn.finish();
        let sealed = shard.seal(changes, self.clock.now_ms()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(shard.append(&sealed)), Appended::Durable);
        shard.confirm(sealed);
    }

    fn backups(&self) -> BTreeSet<BackupId> {
        let names = self.archive.list(BACKUPS).unwrap();
        let id = |name: &str| match name.parse() {
            Ok(ObjectName::Manifest(id)) => Some(id),
            _ => None,
        };
        names.iter().filter_map(|object| id(&object.name)).collect()
    }
}

#[test]
fn thirteen_months_of_daily_backups_leave_exactly_those_the_policy_keeps() {
    let bench = Bench::new();
    let mut taken = Vec::new();
    for day in 0..396 {
        bench.write(day);
        assert!(bench.shared.is_due(), "day {day}");
        let Taken { manifest, faults, .. } = bench.shared.take(None, &mut |_| {}).unwrap();
        assert!(!bench.shared.is_due() && faults.is_empty());
        taken.push(BackupTime::from(&manifest));
        let wanted = kept(&taken, bench.clock.now_ms());
        assert_eq!(bench.backups(), wanted, "day {day}");
        pass(&bench.store, ARCHIVIST).unwrap();
        bench.advance(DAY_MS);
    }
    assert!((18..=26).contains(&bench.backups().len()), "{}", bench.backups().len());
    // Snapshots and segments go with the backups that need them.
    let names = bench.archive.names();
    assert!(names.len() < 200, "{} objects: {names:#?}", names.len());
    let source = bench.shared.source().unwrap();
    let catalog = catalog::read(&*bench.archive, &source.signer.verifier()).unwrap();
    for manifest in catalog.backups {
        let scratch = source.scratch_file();
        let found = crate::backup::verify::verify::<crate::backup::verify::VerifyError>(
            &*bench.archive,
            &manifest,
            &source.signer.verifier(),
            scratch.path(),
            &mut |_, _| Ok(()),
            &mut |_| {},
        );
        assert_eq!(found.unwrap().faults, [], "{}", manifest.id);
    }
}

#[test]
fn an_archive_out_of_reach_is_counted_and_writes_go_on() {
    let bench = Bench::new();
    bench.write(1);
    bench.archive.set_reachable(false);
    for failures in 1..4 {
        bench.shared.take(None, &mut |_| {}).unwrap_err();
        assert_eq!(bench.shared.stats().failures, failures);
        bench.write(failures + 10);
    }
    assert!(bench.shared.stats().failing.unwrap().contains("cannot be reached"));
    assert!(bench.shared.is_due());
    bench.archive.set_reachable(true);
    bench.shared.take(None, &mut |_| {}).unwrap();
    let stats = bench.shared.stats();
    assert_eq!((stats.failing, stats.succeeded_ms), (None, Some(START_MS)));
}

#[test]
fn a_backup_that_needs_what_is_damaged_says_so_and_drives_no_older_one_out() {
    let bench = Bench::new();
    bench.write(1);
    let first = bench.shared.take(None, &mut |_| {}).unwrap().manifest;
    let snapshot = first.tenants[0].snapshot.clone().unwrap().object;
    // Months later nothing of before would be kept, were it not for the damage.
    bench.advance(400 * DAY_MS);
    bench.write(2);
    let faulty = [snapshot.name.as_str(), "segments/of-no-backup"];
    lock(&bench.shared.damaged).verified(&first, faulty.into_iter());
    let second = bench.shared.take(None, &mut |_| {}).unwrap();
    let said = |taken: &Taken| -> Vec<String> {
        taken.faults.iter().map(|fault| format!("{}: {}", fault.object, fault.what)).collect()
    };
    assert_eq!(said(&second), [format!("{}: it was found damaged", snapshot.name)]);
    assert_eq!((second.swept, bench.backups().len()), (Swept::default(), 2));
    let stats = bench.shared.stats();
    assert_eq!((stats.failures, stats.succeeded_ms), (1, Some(second.manifest.taken_ms)));
    assert!(stats.failing.unwrap().contains(&snapshot.name));

    // Found right again; but something else is too long now, and then it is gone.
    lock(&bench.shared.damaged).verified(&first, std::iter::empty());
    let segment = second.manifest.segments.last().unwrap().object.name.clone();
    let whole = bench.archive.get(&segment).unwrap();
    bench.archive.corrupt(&segment, |bytes| bytes.push(0));
    let third = bench.shared.take(None, &mut |_| {}).unwrap();
    let wanted = format!("{segment}: it has {} bytes instead of {}", whole.len() + 1, whole.len());
    assert_eq!((said(&third), third.swept), (vec![wanted], Swept::default()));
    bench.archive.remove(&segment).unwrap();
    let fourth = bench.shared.take(None, &mut |_| {}).unwrap();
    assert_eq!(said(&fourth), [format!("{segment}: it is missing")]);
    bench.archive.put(&segment, whole).unwrap();
    let fifth = bench.shared.take(None, &mut |_| {}).unwrap();
    assert!(fifth.faults.is_empty() && fifth.swept.backups > 0, "{:?}", fifth.swept);
    assert_eq!(bench.shared.stats().failing, None);
}

#[test]
fn pauses_between_failures_grow_to_an_hour() {
    let bench = Bench::new();
    let pauses: Vec<_> = (0..9).map(|_| bench.shared.pause().as_secs()).collect();
    assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
}

#[test]
fn a_drill_is_overdue_ninety_two_days_after_the_last_that_passed() {
    let bench = Bench::new();
    bench.write(1);
    bench.shared.ask().unwrap();
    assert!(!bench.shared.stats().is_drill_overdue, "there is nothing to drill with");
    bench.shared.take(None, &mut |_| {}).unwrap();
    bench.advance(92 * DAY_MS);
    assert!(!bench.shared.stats().is_drill_overdue);
    bench.advance(1);
    assert!(bench.shared.stats().is_drill_overdue, "there never was one");
    let source = bench.shared.source().unwrap();
    let report = drill(&source, None, None, &mut |_| {}).unwrap();
    // The bench writes no state of a real tenant, so that only the age is judged here.
    let mut passed = report.claimed().clone();
    passed.lines.clear();
    passed.failures.clear();
    passed.tenants = crate::backup::report::DrillCounts::default();
    bench.shared.drilled(&passed);
    assert!(!bench.shared.stats().is_drill_overdue);
    bench.advance(92 * DAY_MS + 1);
    assert!(bench.shared.stats().is_drill_overdue);
}

#[test]
fn a_clock_that_was_set_back_does_not_put_a_backup_off() {
    let bench = Bench::new();
    bench.write(1);
    bench.advance(10 * DAY_MS);
    bench.shared.take(None, &mut |_| {}).unwrap();
    assert!(!bench.shared.is_due());
    bench.clock.0.fetch_sub(5 * DAY_MS, Ordering::Relaxed);
    assert!(bench.shared.is_due());
}
