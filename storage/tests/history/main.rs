//! What a tenant's history must give back, wherever its parts rest: every state it ever had.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{prop_assert_eq, proptest, test_runner::Config};
use storage::archive::memory::MemoryArchive;
use storage::archive::{Archive, SharedArchive};
use storage::history::HistoryError;
use storage::id::{FormId, Id, TenantId};
use storage::keys::{Key, Prefix};
use storage::log::segment::SegmentOptions;
use storage::log::segment::cold::ColdError;
use storage::log::{Appended, contract::wait};
use storage::shard::Shard;
use storage::snapshot::RowSource;
use storage::store::{Store, StoreError, StoreOptions, verify_chain, verify_kept_chain};
use storage::txn::Scan;

mod planted;

/// The rows of one tenant in clear, by encoded key.
type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// One tenant's past as it really was: after each record its stamp and its state.
type Past = Vec<(u64, State)>;

fn ann() -> TenantId {
    TenantId::from_bytes([1; 16])
}

fn bob() -> TenantId {
    TenantId::from_bytes([2; 16])
}

fn form(n: u8) -> Key {
    Key::Form { id: FormId::from_bytes([n; 16]) }
}

fn open(dir: &Path, archive: &Arc<MemoryArchive>) -> Arc<Store> {
    let mut options = StoreOptions::new(dir);
    let segment_bytes = 4096;
    options.segment =
        SegmentOptions { segment_bytes, reserve_bytes: 0, ..SegmentOptions::default() };
    options.archive = Some(Arc::clone(archive) as SharedArchive);
    Store::open(options).unwrap()
}

fn write(shard: &mut Shard, past: &mut Past, at_ms: u64, ops: &[(u8, Option<Vec<u8>>)]) {
    let mut state = past.last().map(|(_, state)| state.clone()).unwrap_or_default();
    let mut txn = shard.txn();
    for (n, value) in ops {
        match value {
            Some(value) => {
                txn.put(&form(*n), value.clone()).unwrap();
                state.insert(form(*n).encode(), value.clone());
            }
            None => {
                txn.delete(&form(*n)).unwrap();
                state.remove(&form(*n).encode());
            }
        }
    }
    let sealed = shard.seal(txn.finish(), at_ms).unwrap();
    assert_eq!(wait(shard.append(&sealed)), Appended::Durable);
    shard.confirm(sealed);
    past.push((at_ms, state));
}

fn state_after(store: &Store, tenant: TenantId, lsn: u64) -> State {
    let keys = store.tenant_keys(tenant).unwrap();
    let mut rows = store.history().unwrap().state_after(&keys, lsn).unwrap();
    let mut state = State::new();
    while let Some((key, value)) = rows.next_row().unwrap() {
        state.insert(key.to_vec(), value.to_vec());
    }
    state
}

fn state_now(shard: &Shard) -> State {
    let rows = shard.scan(&Scan::all(Prefix::kind(&form(0)))).unwrap();
    rows.into_iter().map(|(key, value)| (key.encode(), value.to_vec())).collect()
}

/// Archives every complete segment and lets the log go of it.
fn archive_all(store: &Store) {
    store.log().roll().unwrap();
    let cold = store.cold().unwrap();
    for sealed in store.log().sealed() {
        let archived = cold.put(&sealed).unwrap();
        let tails: Vec<_> = archived.tenants.iter().map(|(id, (_, tail))| (*id, *tail)).collect();
        store.log().let_go(&tails).unwrap();
    }
    assert!(store.log().sealed().is_empty(), "what is archived is let go");
}

fn snapshot(store: &Store, tenant: TenantId) {
    let keys = store.tenant_keys(tenant).unwrap();
    store.history().unwrap().take_snapshot(&keys, &mut |_| {}).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Write { at_ms: u64, ops: Vec<(u8, Option<Vec<u8>>)> },
    Snapshot,
    Archive,
    Restart { keep_view: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
    let ops = proptest::collection::vec((0..12_u8, value), 1..5);
    prop_oneof![
        12 => (0..40_u64, ops).prop_map(|(at_ms, ops)| Step::Write { at_ms, ops }),
        2 => Just(Step::Snapshot),
        2 => Just(Step::Archive),
        1 => any::<bool>().prop_map(|keep_view| Step::Restart { keep_view }),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_state_a_tenant_ever_had_comes_back(
        steps in proptest::collection::vec(step(), 1..40),
        wanted in proptest::collection::vec(0..45_u64, 3),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let archive = Arc::new(MemoryArchive::new());
        let mut store = open(dir.path(), &archive);
        store.create_tenant(ann()).unwrap();
        let mut shard = store.own_shard(ann()).unwrap();
        let mut past = Past::new();
        for step in steps {
            match step {
                Step::Write { at_ms, ops } => write(&mut shard, &mut past, at_ms, &ops),
                Step::Snapshot => snapshot(&store, ann()),
                Step::Archive => archive_all(&store),
                Step::Restart { keep_view } => {
                    drop(shard);
                    store.close().unwrap();
                    drop(store);
                    if !keep_view {
                        std::fs::remove_dir_all(dir.path().join("view")).unwrap();
                    }
                    store = open(dir.path(), &archive);
                    shard = store.own_shard(ann()).unwrap();
                }
            }
            let now = past.last().map(|(_, state)| state.clone()).unwrap_or_default();
            prop_assert_eq!(state_now(&shard), now);
        }
        for (at, (_, state)) in past.iter().enumerate() {
            prop_assert_eq!(&state_after(&store, ann(), at as u64 + 1), state);
        }
        let keys = store.tenant_keys(ann()).unwrap();
        for at_ms in wanted {
            let expected = past.iter().rposition(|(stamp, _)| *stamp <= at_ms);
            let found = store.history().unwrap().end_at(&keys, at_ms);
            match (expected, found) {
                (Some(at), Ok(point)) => prop_assert_eq!(point.tail.lsn, at as u64 + 1),
                (None, Err(HistoryError::TooOld { .. })) => {}
                (expected, found) => panic!("at {at_ms}: expected {expected:?}, found {found:?}"),
            }
        }
        let report = verify_chain(&**store.log(), ann(), |_| {}).unwrap();
        prop_assert_eq!(report.records, past.len() as u64);
    }
}

/// Two tenants with some history, archived whole.
fn archived(dir: &Path, archive: &Arc<MemoryArchive>) -> (Arc<Store>, Past) {
    let store = open(dir, archive);
    let mut past = Past::new();
    for tenant in [ann(), bob()] {
        store.create_tenant(tenant).unwrap();
        let mut shard = store.own_shard(tenant).unwrap();
        past.clear();
        for n in 0..40 {
            write(&mut shard, &mut past, 1_000 + u64::from(n), &[(n % 7, Some(vec![n; 200]))]);
            if n == 20 {
                snapshot(&store, tenant);
            }
        }
    }
    archive_all(&store);
    (store, past)
}

#[test]
fn a_damaged_snapshot_is_passed_over_and_a_damaged_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let (store, past) = archived(dir.path(), &archive);
    let names = archive.list("snapshots").unwrap();
    for object in &names {
        assert!(archive.corrupt(&object.name, |bytes| bytes[200] ^= 1));
    }
    assert_eq!(state_after(&store, ann(), 40), past[39].1, "made again from the records alone");
    for object in archive.list("segments").unwrap() {
        assert!(archive.corrupt(&object.name, |bytes| bytes[500] ^= 1));
    }
    let keys = store.tenant_keys(ann()).unwrap();
    let refused = store.history().unwrap().state_after(&keys, 40);
    assert!(matches!(refused, Err(HistoryError::Log(_))), "{refused:?}");
}

#[test]
fn while_the_archive_is_away_who_needs_it_waits_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let (store, past) = archived(dir.path(), &archive);
    let mut bobs = store.own_shard(bob()).unwrap();
    let mut bobs_past = past.clone();
    archive.set_reachable(false);
    write(&mut bobs, &mut bobs_past, 2_000, &[(1, None)]);
    store.rebuild_view(ann()).unwrap();
    let refused = store.own_shard(ann()).unwrap_err();
    assert!(refused.is_passing(), "{refused}");
    let StoreError::History(HistoryError::Archive(_)) = refused else { panic!("{refused:?}") };
    archive.set_reachable(true);
    assert_eq!(state_now(&store.own_shard(ann()).unwrap()), past[39].1);
    assert_eq!(state_now(&bobs), bobs_past[40].1);
}

#[test]
fn a_damaged_segment_is_never_archived() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let store = open(dir.path(), &archive);
    store.create_tenant(ann()).unwrap();
    let mut past = Past::new();
    let mut shard = store.own_shard(ann()).unwrap();
    for n in 0..40 {
        write(&mut shard, &mut past, 1, &[(n, Some(vec![n; 200]))]);
    }
    let sealed = store.log().sealed().remove(0);
    let whole = std::fs::read(&sealed.path).unwrap();
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&sealed.path, &damaged).unwrap();
        let refused = store.cold().unwrap().put(&sealed).unwrap_err();
        assert!(matches!(refused, ColdError::Damaged { segment: 1, .. }), "byte {at}: {refused}");
    }
    std::fs::write(&sealed.path, &whole).unwrap();
    let archived = store.cold().unwrap().put(&sealed).unwrap();
    assert_eq!(archive.get(&archived.name).unwrap(), whole);
}

#[test]
fn a_time_before_everything_is_told_from_when_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let (store, _) = archived(dir.path(), &archive);
    let keys = store.tenant_keys(ann()).unwrap();
    let history = store.history().unwrap();
    let refused = history.end_at(&keys, 999).unwrap_err();
    assert!(matches!(refused, HistoryError::TooOld { from_ms: 1_000, .. }), "{refused}");
    let refused = history.state_after(&keys, 41).unwrap_err();
    assert!(matches!(refused, HistoryError::NotYet { wanted: 41, last: 40, .. }), "{refused}");
}

#[test]
fn no_second_node_writes_into_an_archive() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let archive = Arc::new(MemoryArchive::new());
    let (store, past) = archived(first.path(), &archive);
    let before = archive.names();
    let other = open(second.path(), &archive);
    other.create_tenant(ann()).unwrap();
    let mut shard = other.own_shard(ann()).unwrap();
    write(&mut shard, &mut Past::new(), 1, &[(1, Some(vec![1; 200]))]);
    other.log().roll().unwrap();
    let refused = other.cold().unwrap().put(&other.log().sealed().remove(0)).unwrap_err();
    assert!(refused.to_string().contains("another node"), "{refused}");
    assert_eq!(archive.names(), before);
    drop((shard, other));
    drop(store);
    // The first is still its owner after a restart.
    let store = open(first.path(), &archive);
    store.cold().unwrap().claim().unwrap();
    assert_eq!(state_after(&store, ann(), 40), past[39].1);
}

/// Four records of Ann's in a segment each, and a snapshot of the third.
fn scattered(dir: &Path, archive: &Arc<MemoryArchive>) -> (Arc<Store>, Vec<String>) {
    let store = open(dir, archive);
    for tenant in [ann(), bob()] {
        store.create_tenant(tenant).unwrap();
    }
    let mut past = Past::new();
    let mut shard = store.own_shard(ann()).unwrap();
    for n in 0..4 {
        if n == 3 {
            snapshot(&store, ann());
        }
        write(&mut shard, &mut past, 1, &[(n, Some(vec![n; 200]))]);
        archive_all(&store);
    }
    drop(shard);
    let segments = archive.list("segments").unwrap();
    (store, segments.into_iter().map(|object| object.name).collect())
}

#[test]
fn records_missing_in_the_midst_are_a_fault_unless_a_snapshot_stands_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let (store, segments) = scattered(dir.path(), &archive);
    assert_eq!(segments.len(), 4);
    let kept = |store: &Store| {
        let mut seen = Vec::new();
        let report = verify_kept_chain(store, ann(), |record| seen.push(record.header.lsn));
        report.map(|_| seen).map_err(|fault| fault.lsn)
    };
    assert_eq!(kept(&store), Ok(vec![1, 2, 3, 4]));
    store.close().unwrap();
    drop(store);
    // The snapshot is of record 3: it stands for the second one, and not for the last.
    let without = |missing: usize| {
        let copy = Arc::new(MemoryArchive::new());
        for object in archive.list("").unwrap() {
            if object.name != segments[missing] {
                copy.put(&object.name, archive.get(&object.name).unwrap()).unwrap();
            }
        }
        let store = open(dir.path(), &copy);
        let found = (kept(&store), verify_chain(&**store.log(), ann(), |_| {}).is_ok());
        store.close().unwrap();
        found
    };
    assert_eq!(without(0), (Ok(vec![2, 3, 4]), true));
    assert_eq!(without(1), (Ok(vec![1, 3, 4]), false));
    assert_eq!(without(2), (Ok(vec![1, 2, 4]), false));
    assert!(without(3).0.is_err());
    for object in archive.list("snapshots").unwrap() {
        archive.remove(&object.name).unwrap();
    }
    assert_eq!(without(1), (Err(2), false));
    let store = open(dir.path(), &archive);
    store.erase_tenant(ann()).unwrap();
    drop(store);
    assert_eq!(without(1), (Ok(vec![1, 3, 4]), false));
}
