//! A store in a real directory: who may open it, what rests in it, and what can be lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use storage::keys::{Key, Prefix};
use storage::keystore::KeyError;
use storage::store::{OpenError, Store, StoreError, StoreOptions};
use storage::txn::Scan;

use crate::kit::{ADA, bob, form, put, write};

const MARKER: &[u8] = b"MARKER-7f3a-should-never-rest-in-clear";

fn open(dir: &Path) -> Arc<Store> {
    Store::open(StoreOptions::new(dir)).unwrap()
}

fn refused(dir: &Path) -> OpenError {
    Store::open(StoreOptions::new(dir)).expect_err("the directory must be refused")
}

/// How many files below `dir` contain `needle`.
fn files_with(dir: &Path, needle: &[u8]) -> usize {
    let mut hits = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            hits += files_with(&path, needle);
        } else if fs::read(&path).unwrap().windows(needle.len()).any(|bytes| bytes == needle) {
            hits += 1;
        }
    }
    hits
}

/// Makes a tenant with 50 forms and stops cleanly, or as if killed.
fn filled(dir: &Path, clean: bool) {
    let store = open(dir);
    store.create_tenant(ADA).unwrap();
    let mut shard = store.own_shard(ADA).unwrap();
    for n in 0..50 {
        put(&mut shard, &form(n), &[n; 300]);
    }
    drop(shard);
    if clean {
        store.close().unwrap();
    }
}

fn assert_filled(store: &Store) {
    let shard = store.own_shard(ADA).unwrap();
    assert_eq!(shard.tail().lsn, 50);
    let rows = shard.scan(&Scan::all(Prefix::kind(&form(0)))).unwrap();
    assert_eq!(rows.len(), 50);
    for (n, (key, value)) in rows.into_iter().enumerate() {
        assert_eq!((key, &value[..]), (form(n as u8), &[n as u8; 300][..]));
    }
}

#[test]
fn nothing_rests_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_tenant(ADA).unwrap();
    let mut shard = store.own_shard(ADA).unwrap();
    for n in 0..20 {
        put(&mut shard, &form(n), MARKER);
    }
    write(&mut shard, |txn| txn.put(&form(99), MARKER.repeat(2_000)).unwrap());
    let digest = shard.keys().digest("email", MARKER);
    put(&mut shard, &Key::UserByEmail { digest }, b"");
    store.keystore().seal_secret("jwt", MARKER).unwrap();
    assert_eq!(files_with(dir.path(), MARKER), 0, "while running");
    drop(shard);
    store.close().unwrap();
    assert_eq!(files_with(dir.path(), MARKER), 0, "after a clean stop");
    // A search that finds nothing must be able to find something.
    assert!(files_with(dir.path(), b"bulkhead 1") > 0);
    let sealed = digest.to_vec();
    assert!(files_with(&dir.path().join("view"), &sealed) > 0, "keys rest as digests");
}

#[test]
fn a_view_is_trusted_after_a_clean_stop_and_after_a_kill_without_a_reboot() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), true);
    assert!(dir.path().join("view/CLEAN").exists());
    let store = open(dir.path());
    assert_eq!(store.repairs(), [""; 0]);
    assert!(!dir.path().join("view/CLEAN").exists(), "the mark must go before the first write");
    assert_filled(&store);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.repairs(), [""; 0]);
    assert_filled(&store);
}

#[test]
fn a_view_is_made_again_when_deleted_damaged_or_of_another_boot() {
    for case in ["deleted", "damaged", "another boot", "unmarked"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), case == "damaged");
        let view = dir.path().join("view");
        match case {
            "deleted" => fs::remove_dir_all(&view).unwrap(),
            "damaged" => fs::write(view.join("sled/conf"), b"not sled's").unwrap(),
            "another boot" => fs::write(view.join("BOOT"), "1 00000000-0000\n").unwrap(),
            _ => fs::remove_file(view.join("BOOT")).unwrap(),
        }
        let store = open(dir.path());
        assert_eq!(store.repairs().is_empty(), case == "deleted", "{case}: {:?}", store.repairs());
        assert_filled(&store);
    }
}

#[test]
fn a_directory_in_use_is_refused_by_naming_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let pid = std::process::id().to_string();
    assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
fn a_newer_or_missing_format_is_refused_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), true);
    let path = dir.path().join("FORMAT");
    fs::write(&path, "bulkhead 2\n").unwrap();
    assert!(matches!(refused(dir.path()), OpenError::NewerFormat { format: 2, .. }));
    fs::write(&path, "something else").unwrap();
    assert!(matches!(refused(dir.path()), OpenError::NoFormat { .. }));
    fs::remove_file(&path).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::NoFormat { .. }));
    fs::write(&path, "bulkhead 1\n").unwrap();
    assert_filled(&open(dir.path()));
}

#[test]
fn the_directory_and_the_key_are_for_the_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    filled(&data, true);
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    let kek = data.join("keys/kek");
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o644)).unwrap();
    let error = refused(&data);
    assert!(matches!(error, OpenError::Keys(KeyError::KekExposed { .. })), "{error:?}");
    fs::remove_file(&kek).unwrap();
    assert!(matches!(refused(&data), OpenError::Keys(KeyError::KekMissing { .. })));
}

#[test]
fn an_erased_tenant_cannot_be_read_and_the_others_can() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), false);
    let store = open(dir.path());
    store.create_tenant(bob()).unwrap();
    let mut shard = store.own_shard(bob()).unwrap();
    put(&mut shard, &form(1), b"bob's");
    assert!(matches!(store.erase_tenant(bob()), Err(StoreError::Owned { .. })));
    drop(shard);
    store.erase_tenant(bob()).unwrap();
    let gone = store.own_shard(bob()).unwrap_err();
    assert!(matches!(gone, StoreError::Keys(KeyError::Missing { .. })), "{gone:?}");
    assert_eq!(storage::store::verify_chain(&**store.log(), bob(), |_| {}).unwrap().records, 1);
    assert_filled(&store);
}

#[test]
fn a_closed_store_gives_no_shard() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_tenant(ADA).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert!(matches!(store.own_shard(ADA), Err(StoreError::Closed)));
}
