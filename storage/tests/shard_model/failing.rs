//! Shards over parts that lie, fail or were tampered with.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use storage::id::TenantId;
use storage::keys::Prefix;
use storage::keystore::KeyError;
use storage::log::memory::MemoryLog;
use storage::log::{Appended, CommitLog, Health};
use storage::record::Record;
use storage::store::{Fault, Store, StoreError, verify_chain};
use storage::txn::Scan;
use storage::view::{Applied, MemoryView, Row, Rows, View, ViewError, Visit};

use crate::kit::{
    ADA, Meddler, UNKNOWN_AND_LOST, UNKNOWN_AND_POISONED, UNKNOWN_BUT_DONE, bob, commit, form,
    keystore, memory_store, put, wait, write,
};

struct World {
    log: Arc<Meddler>,
    view: Arc<MemoryView>,
    store: Arc<Store>,
}

fn world() -> World {
    let log = Meddler::new(MemoryLog::new());
    let view = Arc::new(MemoryView::default());
    let as_log: Arc<dyn CommitLog> = Arc::clone(&log) as _;
    let store = Store::from_parts(as_log, Arc::clone(&view) as _, keystore()).unwrap();
    store.create_tenant(ADA).unwrap();
    store.create_tenant(bob()).unwrap();
    World { log, view, store }
}

fn sealed_row(view: &MemoryView, tenant: TenantId, key: &[u8]) -> Vec<u8> {
    let mut found = None;
    view.get(tenant, key, &mut |sealed| found = Some(sealed.to_vec())).unwrap();
    found.expect("the row is in the view")
}

#[test]
fn a_shard_has_one_owner_at_a_time() {
    let store = memory_store();
    let shard = store.own_shard(ADA).unwrap();
    assert!(matches!(store.own_shard(ADA), Err(StoreError::Owned { tenant: ADA })));
    let epoch = shard.seal(shard.txn().finish(), 1).unwrap().record().header.epoch;
    drop(store.own_shard(bob()).unwrap());
    drop(shard);
    let mut shard = store.own_shard(ADA).unwrap();
    put(&mut shard, &form(1), b"x");
    drop(shard);
    let shard = store.own_shard(ADA).unwrap();
    assert!(shard.seal(shard.txn().finish(), 1).unwrap().record().header.epoch > epoch);
}

#[test]
fn an_unknown_tenant_cannot_be_owned_and_is_not_held() {
    let store = Store::in_memory().unwrap();
    for _ in 0..2 {
        let refused = store.own_shard(bob()).unwrap_err();
        assert!(matches!(refused, StoreError::Keys(KeyError::Missing { .. })), "{refused:?}");
    }
}

#[test]
fn a_value_moved_to_another_tenant_or_key_is_refused() {
    let World { view, store, .. } = world();
    for tenant in [ADA, bob()] {
        let mut shard = store.own_shard(tenant).unwrap();
        put(&mut shard, &form(1), b"one");
        put(&mut shard, &form(2), b"two");
    }
    let ada = store.own_shard(ADA).unwrap(); // its view has caught up, nothing is pending
    let bobs = store.own_shard(bob()).unwrap();
    let ours = sealed_row(&view, ADA, &form(1).encode());
    let moved = |tenant, n: u8, value: &[u8]| {
        let row = Row { tenant, key: form(n).encode().into(), value: Some(value.to_vec()) };
        view.apply(vec![row], &[]).unwrap();
    };
    moved(bob(), 1, &ours);
    moved(ADA, 2, &ours);
    assert_eq!(ada.get(&form(1)).unwrap().as_deref(), Some(&b"one"[..]));
    assert!(matches!(ada.get(&form(2)), Err(StoreError::Tampered { tenant: ADA })));
    assert!(matches!(bobs.get(&form(1)), Err(StoreError::Tampered { .. })));
    let scan = Scan::all(Prefix::kind(&form(0)));
    assert!(matches!(ada.scan(&scan), Err(StoreError::Tampered { .. })), "a scan must fail closed");
    assert!(matches!(ada.txn().get(&form(2)), Err(StoreError::Tampered { .. })));

    // The log is the truth: the view can be made again from it.
    drop(ada);
    store.rebuild_view(ADA).unwrap();
    let ada = store.own_shard(ADA).unwrap();
    assert_eq!(ada.get(&form(2)).unwrap().as_deref(), Some(&b"two"[..]));
}

#[test]
fn nothing_shows_before_it_is_durable() {
    let store = memory_store();
    let mut shard = store.own_shard(ADA).unwrap();
    let mut txn = shard.txn();
    txn.put(&form(1), b"x".to_vec()).unwrap();
    let sealed = shard.seal(txn.finish(), 1).unwrap();
    let appending = shard.append(&sealed);
    assert_eq!(shard.get(&form(1)).unwrap(), None);
    assert_eq!(wait(appending), Appended::Durable);
    assert_eq!(shard.get(&form(1)).unwrap(), None);
    shard.confirm(sealed);
    assert_eq!(shard.get(&form(1)).unwrap().as_deref(), Some(&b"x"[..]));
}

#[test]
fn an_unknown_append_is_settled_by_the_tail() {
    for (outcome, is_durable) in [(UNKNOWN_BUT_DONE, true), (UNKNOWN_AND_LOST, false)] {
        let World { log, store, .. } = world();
        let mut shard = store.own_shard(ADA).unwrap();
        put(&mut shard, &form(1), b"old");
        let mut txn = shard.txn();
        txn.put(&form(1), b"new".to_vec()).unwrap();
        let sealed = shard.seal(txn.finish(), 1).unwrap();
        log.next.store(outcome, Ordering::SeqCst);
        assert_eq!(wait(shard.append(&sealed)), Appended::Unknown);
        log.next.store(0, Ordering::SeqCst);
        assert_eq!(shard.resolve_unknown(sealed).unwrap(), is_durable);
        let expected: &[u8] = if is_durable { b"new" } else { b"old" };
        assert_eq!(shard.get(&form(1)).unwrap().as_deref(), Some(expected));
        put(&mut shard, &form(2), b"it goes on either way");
    }
}

#[test]
fn an_unknown_append_to_a_poisoned_log_stays_unknown() {
    let World { log, store, .. } = world();
    let mut shard = store.own_shard(ADA).unwrap();
    let sealed = shard.seal(shard.txn().finish(), 1).unwrap();
    log.next.store(UNKNOWN_AND_POISONED, Ordering::SeqCst);
    assert_eq!(wait(shard.append(&sealed)), Appended::Unknown);
    assert!(matches!(shard.resolve_unknown(sealed), Err(StoreError::OutcomeUnknown)));
    assert!(matches!(store.health(), Health::Poisoned(_)));
}

#[test]
fn an_unknown_append_that_somebody_else_overtook_is_fenced() {
    let World { log, store, .. } = world();
    let mut shard = store.own_shard(ADA).unwrap();
    let sealed = shard.seal(shard.txn().finish(), 1).unwrap();
    let other = shard.seal(shard.txn().finish(), 2).unwrap();
    assert_eq!(wait(log.inner.append(other.record().clone())), Appended::Durable);
    let fenced = shard.resolve_unknown(sealed).unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { tail } if tail == other.tail()), "{fenced:?}");
}

#[test]
fn a_forged_history_is_refused_and_named() {
    let World { log, view, store } = world();
    let mut shard = store.own_shard(ADA).unwrap();
    for n in 0..5 {
        put(&mut shard, &form(n), b"x");
    }
    drop(shard);
    let report = verify_chain(&*log, ADA, |_| {}).unwrap();
    assert_eq!(report.records, 5);
    let forgeries: [fn(&mut Record); 3] = [
        |record| record.body[20] ^= 1,
        |record| record.header.prev[0] ^= 1,
        |record| record.header.epoch += 1,
    ];
    for forge in forgeries {
        *log.forge.lock().unwrap() = Some(Box::new(move |record| {
            if record.header.lsn == 3 {
                forge(record);
            }
        }));
        let fault = verify_chain(&*log, ADA, |_| {}).unwrap_err();
        assert_eq!(fault.lsn, 3);
        assert!(matches!(fault.what, Fault::WrongHash | Fault::WrongPrev), "{fault:?}");
        view.drop_tenant(ADA).unwrap();
        let refused = store.own_shard(ADA).unwrap_err();
        assert!(matches!(refused, StoreError::Chain(fault) if fault.lsn == 3));
        assert!(store.own_shard(bob()).is_ok(), "the other tenant must be served");
    }
    *log.forge.lock().unwrap() = None;
    view.drop_tenant(ADA).unwrap();
    assert_eq!(store.own_shard(ADA).unwrap().tail().lsn, 5);
}

#[test]
fn a_view_of_another_history_is_made_again() {
    let World { view, store, .. } = world();
    let mut shard = store.own_shard(ADA).unwrap();
    for n in 0..3 {
        put(&mut shard, &form(n), b"x");
    }
    drop(shard);
    drop(store.own_shard(ADA).unwrap());
    // Ahead of the log, at its end with another hash, in its middle with another hash.
    for lsn in [9, 3, 2] {
        let foreign = Row { tenant: ADA, key: form(77).encode().into(), value: Some(vec![0; 40]) };
        view.apply(vec![foreign], &[(ADA, Applied { lsn, hash: [7; 32] })]).unwrap();
        let shard = store.own_shard(ADA).unwrap();
        assert_eq!(shard.get(&form(77)).unwrap(), None, "applied at {lsn}");
        assert_eq!(shard.get(&form(2)).unwrap().as_deref(), Some(&b"x"[..]));
    }
}

#[test]
fn rows_written_before_their_applied_row_are_written_again() {
    let World { log, view, store } = world();
    let mut shard = store.own_shard(ADA).unwrap();
    put(&mut shard, &form(1), b"first");
    let first = shard.tail();
    put(&mut shard, &form(1), b"second");
    write(&mut shard, |txn| txn.delete(&form(1)).unwrap());
    put(&mut shard, &form(2), b"other");
    drop(shard);
    drop(store.own_shard(ADA).unwrap());
    // As if killed after all the rows: the view says it has the first record only.
    view.apply(vec![], &[(ADA, Applied { lsn: 1, hash: first.hash })]).unwrap();
    let shard = store.own_shard(ADA).unwrap();
    assert_eq!(shard.get(&form(1)).unwrap(), None);
    assert_eq!(shard.get(&form(2)).unwrap().as_deref(), Some(&b"other"[..]));
    assert_eq!(view.applied(ADA).unwrap().lsn, log.tail(ADA).unwrap().lsn);
}

#[test]
fn changes_survive_a_restart_without_any_view() {
    let log: Arc<dyn CommitLog> = MemoryLog::new();
    let keystore = keystore();
    let open = || {
        let view = Arc::new(MemoryView::default());
        Store::from_parts(Arc::clone(&log), view, Arc::clone(&keystore)).unwrap()
    };
    let store = open();
    store.create_tenant(ADA).unwrap();
    let mut shard = store.own_shard(ADA).unwrap();
    for n in 0..=255 {
        write(&mut shard, |txn| {
            txn.put(&form(n), vec![n; 20_000]).unwrap();
            txn.delete(&form(n / 2)).unwrap();
        });
    }
    let scan = Scan::all(Prefix::kind(&form(0)));
    let before = shard.scan(&scan).unwrap();
    drop((shard, store));
    let store = open();
    let shard = store.own_shard(ADA).unwrap();
    assert_eq!(shard.scan(&scan).unwrap(), before);
    assert_eq!((shard.tail().lsn, shard.applied_lsn()), (256, 256));
    assert_eq!(store.tenants(), [ADA]);
}

/// A view that takes nothing.
struct BrokenView;

impl View for BrokenView {
    fn get(&self, _: TenantId, _: &[u8], _: &mut dyn FnMut(&[u8])) -> Result<(), ViewError> {
        Ok(())
    }
    fn scan(&self, _: TenantId, _: &Rows, _: Visit<'_>) -> Result<(), ViewError> {
        Ok(())
    }
    fn apply(&self, _: Vec<Row>, _: &[(TenantId, Applied)]) -> Result<(), ViewError> {
        panic!("sled panics on some I/O errors")
    }
    fn applied(&self, _: TenantId) -> Result<Applied, ViewError> {
        Ok(Applied::NONE)
    }
    fn drop_tenant(&self, _: TenantId) -> Result<(), ViewError> {
        Ok(())
    }
    fn checkpoint(&self) -> Result<(), ViewError> {
        Ok(())
    }
    fn size_bytes(&self) -> u64 {
        0
    }
}

#[test]
fn a_broken_view_loses_nothing_and_stops_writes() {
    let log: Arc<dyn CommitLog> = MemoryLog::new();
    let keystore = keystore();
    let store =
        Store::from_parts(Arc::clone(&log), Arc::new(BrokenView), Arc::clone(&keystore)).unwrap();
    store.create_tenant(ADA).unwrap();
    let mut shard = store.own_shard(ADA).unwrap();
    assert!(!shard.is_backlogged());
    let mut txn = shard.txn();
    txn.put(&form(1), b"kept".to_vec()).unwrap();
    let changes = txn.finish();
    commit(&mut shard, changes);
    assert!(store.close().is_err(), "a stop that lost the view is not clean");
    assert!(shard.is_backlogged() && shard.is_stopped());
    assert!(matches!(store.health(), Health::Poisoned(_)));
    assert_eq!(shard.get(&form(1)).unwrap().as_deref(), Some(&b"kept"[..]));
    drop((shard, store));

    let store = Store::from_parts(log, Arc::new(MemoryView::default()), keystore).unwrap();
    let shard = store.own_shard(ADA).unwrap();
    assert_eq!(shard.get(&form(1)).unwrap().as_deref(), Some(&b"kept"[..]));
}
