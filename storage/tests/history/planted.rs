//! Objects that somebody without a key put into the archive: none of them changes what a history says.

use std::path::Path;
use std::sync::Arc;

use storage::archive::Archive;
use storage::archive::memory::MemoryArchive;
use storage::snapshot::{self, HEADER_BYTES, SnapshotHeader};
use storage::store::{Store, verify_kept_chain};

use super::{Past, ann, archive_all, open, scattered, snapshot, state_after, write};

/// Ten records of Ann's, stamped 100, 200, …, and a snapshot of the fifth.
fn ten(dir: &Path, archive: &Arc<MemoryArchive>) -> (Arc<Store>, Past) {
    let store = open(dir, archive);
    store.create_tenant(ann()).unwrap();
    let mut past = Past::new();
    let mut shard = store.own_shard(ann()).unwrap();
    for n in 1..=10_u8 {
        write(&mut shard, &mut past, u64::from(n) * 100, &[(n, Some(vec![n; 40]))]);
        if n == 5 {
            snapshot(&store, ann());
        }
    }
    drop(shard);
    (store, past)
}

fn genuine(archive: &MemoryArchive) -> (String, Vec<u8>) {
    let name = archive.list("snapshots").unwrap().remove(0).name;
    let bytes = archive.get(&name).unwrap();
    (name, bytes)
}

/// What the archive holds and what the log says, at every time and after every record.
fn expect_true(store: &Store, past: &Past) {
    let keys = store.tenant_keys(ann()).unwrap();
    let history = store.history().unwrap();
    for (at, (at_ms, state)) in past.iter().enumerate() {
        let lsn = at as u64 + 1;
        assert_eq!(history.end_at(&keys, at_ms + 50).unwrap().tail.lsn, lsn, "at {at_ms} ms");
        assert_eq!(&state_after(store, ann(), lsn), state, "after record {lsn}");
    }
    let kept = history.snapshots(&keys).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.header.lsn).collect::<Vec<_>>(), [5]);
    verify_kept_chain(store, ann(), |_| {}).unwrap();
}

/// A whole object of that header: the sealed part of the genuine one, the hash made to fit.
fn forged(genuine: &[u8], header: SnapshotHeader) -> (String, Vec<u8>) {
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&genuine[HEADER_BYTES..genuine.len() - 32]);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    let content: [u8; 32] = digest.as_ref().try_into().unwrap();
    bytes.extend_from_slice(&content);
    (snapshot::object_name(ann(), header.lsn, &content), bytes)
}

#[test]
fn a_planted_snapshot_moves_nobody_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let (store, past) = ten(dir.path(), &archive);
    let (name, bytes) = genuine(&archive);
    let real = SnapshotHeader::decode(&bytes).unwrap();
    expect_true(&store, &past);
    let tail = store.log().tail(ann()).unwrap();
    let lies = [
        SnapshotHeader { lsn: 9, since_lsn: 0, at_min_ms: 100, at_max_ms: 100, ..real },
        SnapshotHeader { lsn: tail.lsn, head: tail.hash, at_max_ms: 100, at_min_ms: 100, ..real },
        SnapshotHeader { lsn: 1 << 62, ..real },
        SnapshotHeader { at_max_ms: 1_000, ..real },
    ];
    for lie in lies {
        let (planted, bytes) = forged(&bytes, lie);
        archive.put(&planted, bytes.clone()).unwrap();
        expect_true(&store, &past);
        // Its header alone, under any name.
        let bare = snapshot::object_name(ann(), lie.lsn, &[7; 32]);
        archive.put(&bare, bytes[..HEADER_BYTES].to_vec()).unwrap();
        expect_true(&store, &past);
        archive.remove(&planted).unwrap();
        archive.remove(&bare).unwrap();
    }
    // The genuine one under the name of another record.
    let renamed = snapshot::object_name(ann(), 7, &[7; 32]);
    archive.put(&renamed, archive.get(&name).unwrap()).unwrap();
    expect_true(&store, &past);
}

#[test]
fn a_snapshot_whose_beginning_is_genuine_is_passed_over_for_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let (store, past) = ten(dir.path(), &archive);
    let (name, bytes) = genuine(&archive);
    let header = SnapshotHeader::decode(&bytes).unwrap();
    let mut spoilt = bytes;
    let at = spoilt.len() - 40;
    spoilt[at] ^= 1;
    let (planted, spoilt) = forged(&spoilt, header);
    archive.remove(&name).unwrap();
    store.history().unwrap().forget(&name);
    archive.put(&planted, spoilt).unwrap();
    let keys = store.tenant_keys(ann()).unwrap();
    let history = store.history().unwrap();
    let kept = history.snapshots(&keys).unwrap();
    assert!(kept.iter().all(|kept| !history.can_be_named(kept, &keys).unwrap()));
    for (at, (_, state)) in past.iter().enumerate() {
        assert_eq!(&state_after(&store, ann(), at as u64 + 1), state);
    }
}

#[test]
fn without_the_key_only_what_was_proven_before_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let (store, _) = ten(dir.path(), &archive);
    let known = |store: &Store| store.history().unwrap().proven_snapshots(ann()).unwrap().len();
    assert_eq!(known(&store), 1);
    store.close().unwrap();
    drop(store);
    let store = open(dir.path(), &archive);
    assert_eq!(known(&store), 0);
    let keys = store.tenant_keys(ann()).unwrap();
    assert_eq!(store.history().unwrap().snapshots(&keys).unwrap().len(), 1);
    assert_eq!(known(&store), 1);
}

#[test]
fn a_segment_that_cannot_be_read_is_not_taken_for_one_that_was_tidied_away() {
    for cut in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let archive = Arc::new(MemoryArchive::new());
        let (store, segments) = scattered(dir.path(), &archive);
        archive_all(&store);
        store.close().unwrap();
        drop(store);
        let mut bytes = archive.get(&segments[cut]).unwrap();
        bytes.truncate(bytes.len() - 10);
        archive.remove(&segments[cut]).unwrap();
        archive.put(&segments[cut], bytes).unwrap();
        let store = open(dir.path(), &archive);
        assert!(verify_kept_chain(&store, ann(), |_| {}).is_err(), "segment {cut}");
    }
}

#[test]
fn a_beginning_is_missing_unless_a_snapshot_stands_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Arc::new(MemoryArchive::new());
    let (store, segments) = scattered(dir.path(), &archive);
    store.close().unwrap();
    drop(store);
    archive.remove(&segments[0]).unwrap();
    let is_fine = || {
        let store = open(dir.path(), &archive);
        let found = verify_kept_chain(&store, ann(), |_| {}).is_ok();
        store.close().unwrap();
        found
    };
    assert!(is_fine());
    let (name, bytes) = genuine(&archive);
    archive.remove(&name).unwrap();
    assert!(!is_fine());
    // Nor does a header that nobody sealed.
    let header = SnapshotHeader::decode(&bytes).unwrap();
    let bare = snapshot::object_name(ann(), header.lsn, &[7; 32]);
    archive.put(&bare, bytes[..HEADER_BYTES].to_vec()).unwrap();
    assert!(!is_fine());
}

/// Copies a directory.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let (path, target) = (file.as_ref().unwrap().path(), to.join(file.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_log_that_was_founded_on_a_backup_goes_on_from_its_end_whatever_the_archive_has_beyond() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let archive = Arc::new(MemoryArchive::new());
    let (store, mut past) = ten(old.path(), &archive);
    let end = store.log().read_from(ann(), 8, 1).unwrap()[0].header.tail();
    archive_all(&store);
    store.close().unwrap();
    drop(store);
    // What is restored: the keys, a log that ends with the eighth record, and segments with all ten.
    copy(&old.path().join("keys"), &new.path().join("keys"));
    std::fs::copy(old.path().join("FORMAT"), new.path().join("FORMAT")).unwrap();
    let log = new.path().join("log");
    storage::log::segment::found(&storage::disk::RealDisk, &log, 100, &[(ann(), end)]).unwrap();
    archive.remove("node").unwrap();
    past.truncate(8);
    let store = open(new.path(), &archive);
    let records = |store: &Store| {
        let mut seen = Vec::new();
        verify_kept_chain(store, ann(), |record| seen.push(record.header.lsn)).unwrap();
        seen
    };
    assert_eq!(records(&store), (1..=8).collect::<Vec<_>>());
    let mut shard = store.own_shard(ann()).unwrap();
    for n in 20..26_u8 {
        let at_ms = past.last().unwrap().0 + 100;
        write(&mut shard, &mut past, at_ms, &[(n, Some(vec![n; 40]))]);
    }
    drop(shard);
    for is_archived in [false, true] {
        if is_archived {
            archive_all(&store);
        }
        assert_eq!(records(&store), (1..=14).collect::<Vec<_>>(), "archived: {is_archived}");
        for (at, (_, state)) in past.iter().enumerate() {
            assert_eq!(&state_after(&store, ann(), at as u64 + 1), state, "{is_archived}");
        }
    }
}
