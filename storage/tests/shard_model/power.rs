//! The keys and the log together, under a power cut and a failure at every single operation: what was
//! acknowledged is there, whoever was made can be owned, and nothing else has appeared.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use storage::disk::fault::{Fault, FaultDisk, Survival};
use storage::id::{Id as _, TenantId};
use storage::keys::Prefix;
use storage::keystore::{KeyError, KeyStore};
use storage::log::Appended;
use storage::log::segment::{SegmentLog, SegmentOptions};
use storage::seal::SystemRandom;
use storage::store::{Store, StoreError, verify_chain};
use storage::txn::Scan;
use storage::view::MemoryView;

use crate::kit::{form, wait};

const TENANTS: u8 = 4;
const ROWS: u8 = 5;
/// Small, so that segments are sealed and made.
const OPTIONS: SegmentOptions = SegmentOptions {
    segment_bytes: 1_500,
    group_bytes_max: 900,
    tenant_group_bytes_max: 500,
    queue_bytes_max: 1 << 20,
    reserve_bytes: 0,
};

fn tenant(number: u8) -> TenantId {
    TenantId::from_bytes([number; 16])
}

fn row(number: u8, n: u8) -> Vec<u8> {
    format!("row {n} of tenant {number}").into_bytes()
}

fn open(disk: &FaultDisk) -> Result<Arc<Store>, String> {
    let shared = || Arc::new(disk.clone());
    let keystore = KeyStore::open(shared(), Path::new("/keys"), Arc::new(SystemRandom));
    let keystore = keystore.map_err(|error| format!("the keys: {error}"))?;
    let log = SegmentLog::open(shared(), Path::new("/log"), OPTIONS);
    let log = log.map_err(|error| format!("the log: {error}"))?;
    let view = Arc::new(MemoryView::default());
    Store::from_parts(log, view, Arc::new(keystore)).map_err(|error| error.to_string())
}

/// What somebody was told.
#[derive(Debug, Default)]
struct Promised {
    /// Made tenants and how many of their rows are durable.
    rows: BTreeMap<u8, u8>,
    /// Rows that may be there as well.
    possible: BTreeMap<u8, u8>,
}

/// Makes tenants one after the other and lets all of them write in turns, until a refusal.
fn run_script(store: &Arc<Store>) -> Promised {
    let mut promised = Promised::default();
    let mut shards = BTreeMap::new();
    for round in 0..TENANTS + ROWS {
        if round < TENANTS {
            if store.create_tenant(tenant(round)).is_err() {
                return promised;
            }
            promised.rows.insert(round, 0);
            let Ok(shard) = store.own_shard(tenant(round)) else { return promised };
            shards.insert(round, shard);
        }
        for (number, shard) in &mut shards {
            let n = promised.rows[number];
            if n == ROWS {
                continue;
            }
            let mut txn = shard.txn();
            txn.put(&form(n), row(*number, n)).unwrap();
            let sealed = shard.seal(txn.finish(), 1).unwrap();
            promised.possible.insert(*number, n + 1);
            if wait(shard.append(&sealed)) != Appended::Durable {
                return promised;
            }
            shard.confirm(sealed);
            promised.rows.insert(*number, n + 1);
        }
    }
    promised
}

/// Opens what is left and compares it with what was promised; then lets everybody go on.
fn check_kept(disk: &FaultDisk, promised: &Promised, context: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    for number in 0..TENANTS {
        let sure = promised.rows.get(&number).copied();
        let mut shard = match store.own_shard(tenant(number)) {
            Ok(shard) => shard,
            Err(StoreError::Keys(KeyError::Missing { .. })) if sure.is_none() => {
                store.create_tenant(tenant(number)).unwrap();
                store.own_shard(tenant(number)).unwrap()
            }
            Err(error) => panic!("{context}: tenant {number}: {error}"),
        };
        let rows = shard.scan(&Scan::all(Prefix::kind(&form(0)))).unwrap();
        let kept = u8::try_from(rows.len()).unwrap();
        assert!(kept >= sure.unwrap_or(0), "{context}: tenant {number} kept {kept} of {sure:?}");
        let possible = promised.possible.get(&number).copied().unwrap_or(0);
        assert!(kept <= possible, "{context}: tenant {number} has {kept} of {possible}");
        for (n, (key, value)) in (0..).zip(rows) {
            assert_eq!((key, &*value), (form(n), &*row(number, n)), "{context}: tenant {number}");
        }
        let report = verify_chain(&**store.log(), tenant(number), |_| {}).unwrap();
        assert_eq!(report.records, u64::from(kept), "{context}");
        let sealed = shard.seal(shard.txn().finish(), 1).unwrap();
        assert_eq!(wait(shard.append(&sealed)), Appended::Durable, "{context}");
        shard.confirm(sealed);
    }
}

fn operations() -> u64 {
    let disk = FaultDisk::new();
    let promised = run_script(&open(&disk).unwrap());
    assert!(promised.rows.values().all(|rows| *rows == ROWS), "{promised:?}");
    disk.operations()
}

#[test]
fn a_power_cut_after_any_operation_loses_no_key_and_no_acknowledged_row() {
    let mut cuts = 0;
    for until in 0..=operations() {
        let disk = FaultDisk::new();
        disk.cut_power_after(until);
        let promised = open(&disk).map(|store| run_script(&store)).unwrap_or_default();
        let unsynced = disk.unsynced();
        let mut survivals = vec![Survival::Synced, Survival::Everything];
        survivals.extend((0..1_u64 << unsynced.min(4)).map(Survival::Subset));
        for changes in 0..=unsynced {
            let torn = (1..400).step_by(37).chain([4, 8, 24]);
            survivals.extend(torn.map(|torn_bytes| Survival::Prefix { changes, torn_bytes }));
        }
        for survival in survivals {
            let context = format!("{until} {survival:?}");
            check_kept(&disk.restart(survival), &promised, &context);
            cuts += 1;
        }
    }
    assert!(cuts >= 2_000, "only {cuts} power cuts were tried");
    println!("power cuts of keys and log: {cuts}, 0 lost, 0 failed reopenings");
}

#[test]
fn a_failure_of_any_operation_loses_no_key_and_no_acknowledged_row() {
    let mut failures = 0;
    for operation in 0..operations() {
        for fault in [Fault::Error, Fault::Partial, Fault::NoSpace] {
            let disk = FaultDisk::new();
            disk.fail_at(operation, fault);
            let promised = open(&disk).map(|store| run_script(&store)).unwrap_or_default();
            for survival in [Survival::Synced, Survival::Everything] {
                let context = format!("operation {operation} {fault:?} {survival:?}");
                check_kept(&disk.restart(survival), &promised, &context);
            }
            failures += 1;
        }
    }
    println!("failed operations on keys and log: {failures}, 0 lost, 0 failed reopenings");
}
