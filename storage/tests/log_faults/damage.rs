//! Damaged files: every byte changed, every length cut, and what is refused because of it.

use std::collections::BTreeMap;
use std::path::Path;

use storage::disk::Disk;
use storage::disk::fault::FaultDisk;
use storage::disk::fault::Survival;
use storage::id::TenantId;
use storage::log::Appended;
use storage::log::CommitLog;
use storage::log::LogError;
use storage::log::contract;
use storage::log::contract::Chain;

use crate::open;
use crate::segment_paths;

/// A log with sealed segments and a growing one, of three tenants; and its records by tenant.
fn small_log() -> (FaultDisk, BTreeMap<TenantId, u64>) {
    let disk = FaultDisk::new();
    let log = open(&disk).unwrap();
    let mut chains = [Chain::new(1), Chain::new(2), Chain::new(3)];
    for round in 0..10 {
        for (at, chain) in chains.iter_mut().enumerate() {
            // The third tenant is only in the first segment.
            if at < 2 || round < 2 {
                let body = contract::body(chain.tenant, chain.tail.lsn + 1);
                assert_eq!(chain.append(&*log, &body), Appended::Durable);
            }
        }
    }
    drop(log);
    assert_eq!(segment_paths(&disk).len(), 3);
    let lsns = chains.iter().map(|chain| (chain.tenant, chain.tail.lsn)).collect();
    (disk.restart(Survival::Everything), lsns)
}

/// What became of one tenant's history after damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Whole,
    Refused,
    Shorter,
}

/// Reads everything of a damaged log. Wrong data panics.
fn look(log: &dyn CommitLog, lsns: &BTreeMap<TenantId, u64>, context: &str) -> Vec<Kept> {
    let mut kept = Vec::new();
    for (tenant, last) in lsns {
        let read = log.read_from(*tenant, 1, usize::MAX);
        let Ok(tail) = log.tail(*tenant) else {
            assert!(read.is_err(), "{context}: records without a tail");
            kept.push(Kept::Refused);
            continue;
        };
        match read {
            Err(_) => kept.push(Kept::Refused),
            Ok(records) => {
                for (at, record) in records.iter().enumerate() {
                    assert!(record.is_intact(), "{context}");
                    assert_eq!((record.header.tenant, record.header.lsn), (*tenant, at as u64 + 1));
                    assert_eq!(record.body, contract::body(*tenant, at as u64 + 1), "{context}");
                }
                assert_eq!(records.len() as u64, tail.lsn, "{context}");
                assert!(tail.lsn <= *last, "{context}: more than was written");
                kept.push(if tail.lsn == *last { Kept::Whole } else { Kept::Shorter });
            }
        }
    }
    kept
}

/// Damages one file, opens the log and checks that no harm is silent; says what was kept.
fn look_after(
    disk: &FaultDisk,
    lsns: &BTreeMap<TenantId, u64>,
    path: &Path,
    context: &str,
    damage: impl Fn(&mut Vec<u8>),
) -> Option<Vec<Kept>> {
    let disk = disk.restart(Survival::Everything);
    disk.damage(path, damage).unwrap();
    let Ok(log) = open(&disk) else { return None };
    let kept = look(&*log, lsns, context);
    if kept.contains(&Kept::Shorter) {
        assert!(!log.repairs().is_empty(), "{context}: records were lost in silence: {kept:?}");
    }
    Some(kept)
}

#[test]
fn every_changed_byte_is_noticed_or_harmless() {
    let (disk, lsns) = small_log();
    for (number, path) in segment_paths(&disk).into_iter().enumerate() {
        let is_last = number == 2;
        for at in 0..disk.read(&path).unwrap().len() {
            for flip in [0x01, 0xff] {
                let context = format!("{} byte {at} ^ {flip:#x}", path.display());
                let flip = |bytes: &mut Vec<u8>| bytes[at] ^= flip;
                let kept = look_after(&disk, &lsns, &path, &context, flip).expect(&context);
                let harmed = kept.iter().filter(|kept| **kept != Kept::Whole).count();
                if is_last {
                    assert!(!kept.contains(&Kept::Refused), "{context}: {kept:?}");
                } else {
                    // One byte is in one record: at most its tenant is refused.
                    assert!(harmed <= 1, "{context}: {kept:?}");
                    assert!(!kept.contains(&Kept::Shorter), "{context}: {kept:?}");
                }
            }
        }
    }
}

#[test]
fn every_truncated_file_is_noticed_or_harmless() {
    let (disk, lsns) = small_log();
    for (number, path) in segment_paths(&disk).into_iter().enumerate() {
        let is_last = number == 2;
        for len in 0..disk.read(&path).unwrap().len() {
            let context = format!("{} cut to {len}", path.display());
            let disk = disk.restart(Survival::Everything);
            disk.damage(&path, |bytes| bytes.truncate(len)).unwrap();
            let log = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            let kept = look(&*log, &lsns, &context);
            // A file that ends between two records looks like one that was never longer.
            assert!(is_last || !kept.contains(&Kept::Shorter), "{context}: {kept:?}");
        }
    }
}

#[test]
fn a_damaged_record_in_a_sealed_segment_refuses_only_its_tenant() {
    let (disk, lsns) = small_log();
    let path = segment_paths(&disk).remove(1);
    let ann = Chain::new(1).tenant;
    let text = contract::body(ann, 5);
    let content = disk.read(&path).unwrap();
    let at = content.windows(text.len()).position(|window| window == text).unwrap();
    disk.damage(&path, |bytes| bytes[at] ^= 1).unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(look(&*log, &lsns, "damaged"), [Kept::Refused, Kept::Whole, Kept::Whole]);
    let error = log.read_from(ann, 1, usize::MAX).unwrap_err();
    assert!(matches!(error, LogError::Damaged { segment: 2, .. }), "{error}");
    let mut bob =
        Chain { tenant: Chain::new(2).tenant, tail: log.tail(Chain::new(2).tenant).unwrap() };
    assert_eq!(bob.append(&*log, b"on"), Appended::Durable);
}

#[test]
fn a_forged_record_with_a_right_checksum_is_refused() {
    let (disk, lsns) = small_log();
    let path = segment_paths(&disk).remove(1);
    let text = contract::body(Chain::new(1).tenant, 5);
    let content = disk.read(&path).unwrap();
    let at = content.windows(text.len()).position(|window| window == text).unwrap();
    let start = at - 116; // length, checksum and header come before the body
    disk.damage(&path, |bytes| {
        bytes[at] ^= 1;
        let covered = [&bytes[start..start + 4], &bytes[start + 8..at + text.len()]].concat();
        bytes[start + 4..start + 8].copy_from_slice(&crc32c::crc32c(&covered).to_be_bytes());
    })
    .unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(look(&*log, &lsns, "forged"), [Kept::Refused, Kept::Whole, Kept::Whole]);
}

#[test]
fn a_damaged_footer_is_made_again_and_with_a_damaged_record_too_its_tenant_is_refused() {
    let (disk, lsns) = small_log();
    let path = segment_paths(&disk).remove(0);
    disk.damage(&path, |bytes| *bytes.last_mut().unwrap() ^= 1).unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(look(&*log, &lsns, "footer"), [Kept::Whole; 3]);
    assert_eq!(log.repairs().len(), 1);
    drop(log);

    // The third tenant's last record lies in this segment and nowhere after it.
    let text = contract::body(Chain::new(3).tenant, 2);
    let content = disk.read(&path).unwrap();
    let at = content.windows(text.len()).position(|window| window == text).unwrap();
    disk.damage(&path, |bytes| bytes[at] ^= 1).unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(look(&*log, &lsns, "both"), [Kept::Whole, Kept::Whole, Kept::Refused]);
    assert!(matches!(log.tail(Chain::new(3).tenant), Err(LogError::Damaged { .. })));
    let mut chain = Chain::new(3);
    assert_eq!(chain.append(&*log, b"a second history"), Appended::Poisoned);
}

#[test]
fn lost_records_nobody_can_name_refuse_every_tenant_that_may_own_them() {
    let (disk, lsns) = small_log();
    let path = segment_paths(&disk).remove(0);
    // A whole stretch of the file and its footer are gone.
    disk.damage(&path, |bytes| bytes[400..].fill(0)).unwrap();
    let log = open(&disk).unwrap();
    // Two tenants go on in the next segment, so what they miss is known; the third may end here.
    assert_eq!(look(&*log, &lsns, "stretch"), [Kept::Refused; 3]);
    for tenant in [1, 2].map(|tenant| Chain::new(tenant).tenant) {
        assert_eq!(log.tail(tenant).unwrap().lsn, lsns[&tenant]);
    }
    assert!(log.tail(Chain::new(3).tenant).is_err());
    // Nor may an unknown tenant begin: its history may be in the lost stretch.
    assert_eq!(Chain::new(4).append(&*log, b"new"), Appended::Poisoned);
}

#[test]
fn a_read_error_is_told_and_passes() {
    let (disk, lsns) = small_log();
    let log = open(&disk).unwrap();
    let ann = Chain::new(1).tenant;
    disk.fail_read_in(0);
    assert!(matches!(log.read_from(ann, 1, usize::MAX), Err(LogError::Io(_))));
    assert_eq!(look(&*log, &lsns, "again"), [Kept::Whole; 3]);
}

#[test]
fn segments_that_were_let_go_are_removed_and_stay_so() {
    let (disk, lsns) = small_log();
    let log = open(&disk).unwrap();
    let tails: Vec<_> = lsns.keys().map(|tenant| (*tenant, log.tail(*tenant).unwrap())).collect();
    log.roll().unwrap();
    log.let_go(&tails).unwrap();
    assert_eq!(segment_paths(&disk).len(), 0);
    assert_eq!(log.stats().segments, 0);
    drop(log);
    let log = open(&disk.restart(Survival::Synced)).unwrap();
    for (tenant, tail) in &tails {
        assert_eq!(log.tail(*tenant).unwrap(), *tail);
        let error = log.read_from(*tenant, 1, 1_000).unwrap_err();
        let after = tail.lsn + 1;
        assert!(matches!(error, LogError::Truncated { first, .. } if first == after), "{error}");
    }
    let mut ann = Chain::new(1);
    ann.tail = log.tail(ann.tenant).unwrap();
    assert_eq!(ann.append(&*log, b"on"), Appended::Durable);
    assert_eq!(contract::read_all(&*log, ann.tenant, ann.tail.lsn).len(), 1);
}

#[test]
fn without_the_file_base_nobody_begins_a_second_history() {
    let (disk, lsns) = small_log();
    let log = open(&disk).unwrap();
    log.roll().unwrap();
    let tails: Vec<_> = lsns.keys().map(|tenant| (*tenant, log.tail(*tenant).unwrap())).collect();
    log.let_go(&tails).unwrap();
    assert_eq!(Chain::new(9).append(&*log, b"keeps a segment"), Appended::Durable);
    drop(log);
    let disk = disk.restart(Survival::Synced);
    disk.damage(&Path::new(crate::DIR).join("BASE"), |bytes| bytes[20] ^= 1).unwrap();
    let log = open(&disk).unwrap();
    for (tenant, _) in &tails {
        assert!(log.tail(*tenant).is_err(), "a tenant whose end is not known is refused");
    }
    assert_eq!(
        contract::read_all(&*log, Chain::new(9).tenant, 1).len(),
        1,
        "who is here is served"
    );
}

#[test]
fn a_damaged_record_under_a_damaged_name_refuses_whoever_may_own_it() {
    let (disk, lsns) = small_log();
    let path = segment_paths(&disk).remove(0);
    let text = contract::body(Chain::new(3).tenant, 2);
    let content = disk.read(&path).unwrap();
    let at = content.windows(text.len()).position(|window| window == text).unwrap();
    disk.damage(&path, |bytes| {
        *bytes.last_mut().unwrap() ^= 1; // the footer
        bytes[at - 100] ^= 1; // the tenant id in the frame's header
    })
    .unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(look(&*log, &lsns, "name"), [Kept::Whole, Kept::Whole, Kept::Refused]);
}
