//! Tests of the anchor log: crashes, damage, full disks.

use std::path::Path;
use std::sync::Arc;

use super::{AnchorLog, AnchorLogError, Leaf, NewCheckpoint, numbers, path_of};
use crate::disk::Disk as _;
use crate::disk::fault::{Fault, FaultDisk, Survival};
use crate::id::{Id, TenantId};

const DIR: &str = "/anchors";

fn leaf(tenant: u64, lsn: u64) -> Leaf {
    let tenant = TenantId::new(tenant, [1; 10]);
    Leaf { tenant, lsn, record: [lsn as u8; 32], audit_seq: lsn, audit: [7; 32] }
}

fn new(at_ms: u64, leaves: Vec<Leaf>) -> NewCheckpoint {
    NewCheckpoint { at_ms, leaves, size: at_ms, frontier: vec![1, 2], note: "n".repeat(100) }
}

fn open(disk: &FaultDisk) -> AnchorLog {
    AnchorLog::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap()
}

fn seqs(log: &AnchorLog) -> Result<Vec<u64>, AnchorLogError> {
    let mut seqs = Vec::new();
    log.walk(|checkpoint| seqs.push(checkpoint.seq))?;
    Ok(seqs)
}

#[test]
fn the_newest_end_of_each_tenant_survives_reopening_and_loss_of_power() {
    let disk = FaultDisk::new();
    let log = open(&disk);
    assert_eq!(log.tip(), None);
    log.append(new(10, vec![leaf(1, 1), leaf(2, 1)])).unwrap();
    let tip = log.append(new(20, vec![leaf(1, 5)])).unwrap();
    drop(log);
    let log = open(&disk.restart(Survival::Synced));
    assert_eq!(log.tip(), Some(tip));
    let anchored = log.anchored(leaf(1, 0).tenant).unwrap();
    assert_eq!((anchored.leaf, anchored.checkpoint, anchored.at_ms), (leaf(1, 5), 2, 20));
    assert_eq!(log.anchored(leaf(2, 0).tenant).unwrap().checkpoint, 1);
    assert_eq!(seqs(&log).unwrap(), [1, 2]);
    assert!(log.repairs().is_empty());
}

#[test]
fn a_checkpoint_cut_by_a_crash_is_removed_and_the_next_takes_its_number() {
    let disk = FaultDisk::new();
    open(&disk).append(new(10, vec![leaf(1, 1)])).unwrap();
    let path = path_of(Path::new(DIR), 1);
    let whole = disk.read(&path).unwrap().len();
    open(&disk).append(new(20, vec![leaf(1, 2)])).unwrap();
    let two = disk.read(&path).unwrap().len();
    for cut in whole + 1..two {
        let torn = disk.restart(Survival::Everything);
        torn.damage(&path, |bytes| bytes.truncate(cut)).unwrap();
        let log = open(&torn);
        assert_eq!(log.tip().unwrap().seq, 1, "cut at {cut}");
        assert_eq!(log.repairs().len(), 1);
        assert_eq!(log.append(new(30, vec![leaf(1, 2)])).unwrap().seq, 2);
        assert_eq!(seqs(&log).unwrap(), [1, 2]);
    }
}

#[test]
fn a_changed_bit_before_the_last_checkpoint_is_damage_and_stops_writing() {
    let disk = FaultDisk::new();
    let log = open(&disk);
    let path = path_of(Path::new(DIR), 1);
    log.append(new(10, vec![leaf(1, 1)])).unwrap();
    let first_ends = disk.read(&path).unwrap().len();
    log.append(new(20, vec![leaf(1, 2)])).unwrap();
    log.append(new(30, vec![leaf(1, 3)])).unwrap();
    drop(log);
    for at in 0..first_ends {
        let damaged = disk.restart(Survival::Everything);
        damaged.damage(&path, |bytes| bytes[at] ^= 0x40).unwrap();
        let log = open(&damaged);
        assert!(log.repairs().is_empty(), "byte {at} was taken for the trace of a crash");
        assert!(seqs(&log).is_err(), "byte {at}");
        assert!(log.append(new(40, vec![])).is_err(), "byte {at}");
    }
}

#[test]
fn after_a_failed_sync_no_checkpoint_is_taken() {
    let disk = FaultDisk::new();
    let log = open(&disk);
    // The next operations are the write and the sync of one checkpoint.
    disk.fail_at(disk.operations() + 1, Fault::Error);
    assert!(matches!(log.append(new(10, vec![leaf(1, 1)])), Err(AnchorLogError::Io(_))));
    assert!(matches!(log.append(new(20, vec![leaf(1, 1)])), Err(AnchorLogError::Stopped)));
    assert_eq!(log.tip(), None);
}

#[test]
fn a_full_disk_refuses_and_the_log_goes_on_when_there_is_space() {
    let disk = FaultDisk::new();
    let log = open(&disk);
    disk.fail_at(disk.operations(), Fault::NoSpace);
    assert!(matches!(log.append(new(10, vec![leaf(1, 1)])), Err(AnchorLogError::Full)));
    assert_eq!(log.append(new(20, vec![leaf(1, 1)])).unwrap().seq, 1);
    assert_eq!(seqs(&log).unwrap(), [1]);
}

#[test]
fn a_large_log_goes_on_in_another_file_that_knows_all_before() {
    let disk = FaultDisk::new();
    let log = open(&disk);
    for at in 1..=6 {
        let mut big = new(at, vec![leaf(at, at)]);
        big.note = "x".repeat(2 * 1024 * 1024);
        log.append(big).unwrap();
    }
    assert_eq!(numbers(&disk, Path::new(DIR)).unwrap(), [1, 2]);
    let log = open(&disk);
    assert_eq!(seqs(&log).unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(log.all_anchored().len(), 6);
    disk.remove(&path_of(Path::new(DIR), 1)).unwrap();
    assert!(matches!(open(&disk).append(new(9, vec![])), Err(AnchorLogError::Damaged { .. })));
}
