//! The embedded log under every failure a disk can have.
//!
//! Each test breaks one thing at every possible place, opens the log again and compares it with what
//! was acknowledged: nothing acknowledged may be missing, nothing may be wrong, nothing may panic.

#![expect(clippy::unwrap_used, reason = "in a test a failure may end the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use storage::disk::Disk;
use storage::disk::RealDisk;
use storage::disk::fault::Fault;
use storage::disk::fault::FaultDisk;
use storage::disk::fault::Survival;
use storage::id::TenantId;
use storage::log::Appended;
use storage::log::CommitLog;
use storage::log::Health;
use storage::log::LogError;
use storage::log::Tail;
use storage::log::contract;
use storage::log::contract::Chain;
use storage::log::segment::SegmentLog;
use storage::log::segment::SegmentOptions;

mod damage;
mod stuck;

const DIR: &str = "/data/log";
const OPTIONS: SegmentOptions = SegmentOptions {
    segment_bytes: 1_500,
    group_bytes_max: 900,
    tenant_group_bytes_max: 500,
    queue_bytes_max: 1 << 20,
    reserve_bytes: 0,
};

fn open(disk: &FaultDisk) -> Result<Arc<SegmentLog>, String> {
    let opened = SegmentLog::open(Arc::new(disk.clone()), Path::new(DIR), OPTIONS);
    opened.map_err(|error| format!("{error}: {}", std::error::Error::source(&error).is_some()))
}

fn segment_paths(disk: &FaultDisk) -> Vec<PathBuf> {
    let mut paths = disk.list(Path::new(DIR)).unwrap();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "seg"));
    paths
}

/// What was promised: the last acknowledged LSN of each tenant, and the last that may be there.
#[derive(Debug, Default)]
struct Promised {
    acknowledged: BTreeMap<TenantId, u64>,
    possible: BTreeMap<TenantId, u64>,
}

/// Appends for three tenants, in bursts that make groups, until `rounds` are done or the log fails.
fn run_script(log: &SegmentLog, rounds: u64) -> Promised {
    let mut promised = Promised::default();
    let mut chains = [Chain::new(1), Chain::new(2), Chain::new(3)];
    for round in 1..=rounds {
        let mut appending = Vec::new();
        for (at, chain) in chains.iter_mut().enumerate().take(1 + round as usize % 3) {
            for _ in 0..=at {
                let record = chain.next(&contract::body(chain.tenant, chain.tail.lsn + 1));
                appending.push((chain.tenant, record.header.lsn, log.append(record)));
            }
        }
        for (tenant, lsn, appending) in appending {
            match contract::wait(appending) {
                Appended::Durable => {
                    promised.acknowledged.insert(tenant, lsn);
                    promised.possible.insert(tenant, lsn);
                }
                Appended::Unknown => {
                    promised.possible.insert(tenant, lsn);
                }
                Appended::Poisoned | Appended::Full | Appended::Fenced { .. } => {}
            }
        }
        if log.health() != Health::Writable {
            break;
        }
    }
    promised
}

/// Opens the log and compares it with what was promised.
fn check_kept(disk: &FaultDisk, promised: &Promised, context: &str) {
    let log = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let is_harmless = |repair: &String| repair.contains("cut at byte");
    assert!(log.repairs().iter().all(is_harmless), "{context}: {:?}", log.repairs());
    for tenant in [1, 2, 3].map(|tenant| Chain::new(tenant).tenant) {
        let records = contract::read_all(&*log, tenant, 1);
        let tail = log.tail(tenant).unwrap_or_else(|error| panic!("{context}: {error}"));
        let acknowledged = promised.acknowledged.get(&tenant).copied().unwrap_or(0);
        let possible = promised.possible.get(&tenant).copied().unwrap_or(0);
        let kept = records.len() as u64;
        assert!(kept >= acknowledged, "{context}: {tenant} lost {acknowledged}, kept {kept}");
        assert!(kept <= possible, "{context}: {tenant} has {kept}, more than {possible}");
        assert_eq!(tail.lsn, kept, "{context}");
        for record in &records {
            assert_eq!(record.body, contract::body(tenant, record.header.lsn), "{context}");
        }
        // The history goes on where it ended.
        let mut chain = Chain { tenant, tail };
        assert_eq!(chain.append(&*log, b"on"), Appended::Durable, "{context}");
    }
}

#[test]
fn both_backends_of_the_disk_keep_the_contract() {
    contract::check(|| open(&FaultDisk::new()).unwrap());
    let disk = FaultDisk::new();
    contract::check_reopen(|| open(&disk).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let open_real = || SegmentLog::open(Arc::new(RealDisk), &dir.path().join("log"), OPTIONS);
    contract::check_reopen(|| open_real().unwrap());
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut_after_any_operation() {
    let rounds = 14;
    let disk = FaultDisk::new();
    run_script(&open(&disk).unwrap(), rounds);
    let (operations, mut cuts) = (disk.operations(), 0);
    assert!(segment_paths(&disk).len() >= 3, "the script must roll");
    for until in 0..=operations + 1 {
        let disk = FaultDisk::new();
        disk.cut_power_after(until);
        let mut promised = Promised::default();
        if let Ok(log) = open(&disk) {
            promised = run_script(&log, rounds);
        }
        // At a cut everything unsynced is possible, answered or not.
        for (tenant, lsn) in [1, 2, 3].map(|tenant| (Chain::new(tenant).tenant, 1_000)) {
            promised.possible.insert(tenant, lsn);
        }
        let unsynced = disk.unsynced();
        let mut survivals = vec![Survival::Synced, Survival::Everything];
        survivals.extend((0..1_u64 << unsynced.min(3)).map(Survival::Subset));
        for changes in 0..=unsynced {
            for torn_bytes in (1..900).step_by(61).chain([3, 4, 7, 8, 9, 23, 24, 25]) {
                survivals.push(Survival::Prefix { changes, torn_bytes });
            }
        }
        for survival in survivals {
            check_kept(&disk.restart(survival), &promised, &format!("{until} {survival:?}"));
            cuts += 1;
        }
    }
    assert!(cuts >= 2_000, "only {cuts} power cuts were tried");
}

#[test]
fn after_any_failed_operation_nothing_is_acknowledged_and_nothing_is_lost() {
    let rounds = 14;
    let disk = FaultDisk::new();
    run_script(&open(&disk).unwrap(), rounds);
    let operations = disk.operations();
    for operation in 0..operations {
        for fault in [Fault::Error, Fault::Partial] {
            let disk = FaultDisk::new();
            disk.fail_at(operation, fault);
            let Ok(log) = open(&disk) else {
                check_kept(&disk, &Promised::default(), "a failed first start");
                continue;
            };
            let promised = run_script(&log, rounds);
            let context = format!("operation {operation} {fault:?}");
            if disk.operations() <= operation {
                continue; // other groups were made this time, so the script ended before it
            }
            assert_ne!(log.health(), Health::Writable, "{context}");
            let mut late = Chain::new(9);
            assert_eq!(late.append(&*log, b"late"), Appended::Poisoned, "{context}");
            drop(log);
            for survival in [Survival::Synced, Survival::Everything] {
                check_kept(&disk.restart(survival), &promised, &context);
            }
            // The process restarts, the machine goes on: what it shows then must last, too.
            let shown = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            let mut kept = Promised::default();
            for tenant in [1, 2, 3].map(|tenant| Chain::new(tenant).tenant) {
                let tail = shown.tail(tenant).unwrap();
                kept.acknowledged.insert(tenant, tail.lsn);
                kept.possible.insert(tenant, tail.lsn);
            }
            check_kept(&disk.restart(Survival::Synced), &kept, &context);
            assert_eq!(late.append(&*shown, b"late"), Appended::Fenced { tail: Tail::EMPTY });
            let mut other = Chain::new(8);
            assert_eq!(other.append(&*shown, &[8; 900]), Appended::Durable, "{context}");
            check_kept(&disk.restart(Survival::Synced), &kept, &context);
        }
    }
}

#[test]
fn a_tenant_whose_append_is_unknown_has_no_tail_to_tell_before_the_next_start() {
    let disk = FaultDisk::new();
    let log = open(&disk).unwrap();
    let (mut ann, mut bob) = (Chain::new(1), Chain::new(2));
    assert_eq!(ann.append(&*log, b"one"), Appended::Durable);
    assert_eq!(bob.append(&*log, b"one"), Appended::Durable);
    disk.fail_at(disk.operations() + 1, Fault::Partial); // the sync after the write
    assert_eq!(ann.append(&*log, b"two"), Appended::Unknown);
    assert!(matches!(log.tail(ann.tenant), Err(LogError::Io(_))));
    assert_eq!(log.tail(bob.tenant).unwrap(), bob.tail, "the others are read as before");
    drop(log);
    assert_eq!(open(&disk).unwrap().tail(ann.tenant).unwrap(), ann.tail);
}

#[test]
fn a_full_disk_is_an_answer_and_the_log_goes_on_when_there_is_space() {
    for space in (0..3_000).step_by(50) {
        let disk = FaultDisk::new();
        let log = open(&disk).unwrap();
        disk.limit_bytes(Some(space));
        let mut chain = Chain::new(1);
        let mut fulls = 0;
        for _ in 0..20 {
            let tail = chain.tail;
            match chain.append(&*log, &[7; 100]) {
                Appended::Durable => {}
                Appended::Full => {
                    chain.tail = tail;
                    fulls += 1;
                }
                other => panic!("with {space} bytes: {other:?}"),
            }
        }
        assert!(fulls > 0, "{space} bytes cannot hold twenty records");
        assert_eq!(log.tail(chain.tenant).unwrap(), chain.tail);
        assert_eq!(contract::read_all(&*log, chain.tenant, 1).len() as u64, chain.tail.lsn);
        disk.limit_bytes(None);
        for _ in 0..20 {
            assert_eq!(chain.append(&*log, &[8; 100]), Appended::Durable);
        }
        drop(log);
        let log = open(&disk.restart(Survival::Synced)).unwrap();
        assert_eq!(contract::read_all(&*log, chain.tenant, 1).len() as u64, chain.tail.lsn);
    }
}

#[test]
fn appends_are_refused_while_less_than_the_reserve_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let open = |reserve_bytes| {
        let options = SegmentOptions { reserve_bytes, ..OPTIONS };
        SegmentLog::open(Arc::new(RealDisk), &dir.path().join("log"), options).unwrap()
    };
    let log = open(u64::MAX);
    assert_eq!(Chain::new(1).append(&*log, b"no"), Appended::Full);
    assert_eq!(log.health(), Health::Writable, "space may come back");
    drop(log);
    assert_eq!(Chain::new(1).append(&*open(1), b"yes"), Appended::Durable);
}

#[test]
fn an_operation_that_finds_no_space_never_costs_an_acknowledged_record() {
    let rounds = 14;
    let disk = FaultDisk::new();
    run_script(&open(&disk).unwrap(), rounds);
    for operation in 0..disk.operations() {
        let disk = FaultDisk::new();
        disk.fail_at(operation, Fault::NoSpace);
        let Ok(log) = open(&disk) else { continue };
        let mut chain = Chain::new(1);
        while chain.tail.lsn < 30 {
            let tail = chain.tail;
            match chain.append(&*log, &contract::body(chain.tenant, tail.lsn + 1)) {
                Appended::Durable => {}
                Appended::Full => chain.tail = tail,
                Appended::Poisoned => {
                    chain.tail = tail;
                    break;
                }
                Appended::Unknown => break,
                Appended::Fenced { .. } => panic!("nobody else writes"),
            }
        }
        drop(log);
        let kept = open(&disk.restart(Survival::Synced)).unwrap();
        let kept = contract::read_all(&*kept, chain.tenant, 1).len() as u64;
        assert!(kept == chain.tail.lsn || kept + 1 == chain.tail.lsn, "operation {operation}");
    }
}

#[test]
fn a_full_disk_whose_write_cannot_be_taken_back_leaves_the_outcome_unknown() {
    let disk = FaultDisk::new();
    let log = open(&disk).unwrap();
    let mut chain = Chain::new(1);
    assert_eq!(chain.append(&*log, b"one"), Appended::Durable);
    disk.fail_at(disk.operations(), Fault::NoSpace);
    disk.fail_at(disk.operations() + 1, Fault::Error);
    assert_eq!(chain.append(&*log, b"two"), Appended::Unknown);
    assert_ne!(log.health(), Health::Writable);
}

#[test]
fn a_group_costs_one_write_and_one_sync() {
    let disk = FaultDisk::new();
    let options = SegmentOptions::default();
    let log = SegmentLog::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    let mut chain = Chain::new(1);
    assert_eq!(chain.append(&*log, b"makes the segment"), Appended::Durable);
    let (operations, groups) = (disk.operations(), log.stats().groups);
    let appending: Vec<_> = (0..500).map(|_| log.append(chain.next(&[1; 100]))).collect();
    for appending in appending {
        assert_eq!(contract::wait(appending), Appended::Durable);
    }
    let groups = log.stats().groups - groups;
    assert_eq!(disk.operations() - operations, 2 * groups);
    assert!(groups < 500, "records that wait together go together");
}

#[test]
fn a_full_queue_is_an_answer() {
    let options = SegmentOptions { queue_bytes_max: 1_000, ..OPTIONS };
    let disk = Arc::new(FaultDisk::new());
    let log = SegmentLog::open(disk, Path::new(DIR), options).unwrap();
    let mut chain = Chain::new(1);
    let appending: Vec<_> = (0..2_000).map(|_| log.append(chain.next(&[1; 100]))).collect();
    let mut durable = 0;
    for appending in appending {
        match contract::wait(appending) {
            Appended::Durable => durable += 1,
            Appended::Full | Appended::Fenced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(log.tail(chain.tenant).unwrap().lsn, durable);
    assert_eq!(log.health(), Health::Writable);
}
