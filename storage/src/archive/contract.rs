//! The contract of an [`Archive`], as a program: every backend must pass it.
//!
//! [`check`] needs a fresh archive and a directory for its own files. It panics with the broken
//! sentence. Faults and damage are each backend's own tests.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::archive::Archive;
use crate::archive::ArchiveError;

/// More than one part of any upload and more than one range of any download.
const BIG_BYTES: usize = 20 * 1024 * 1024 + 12_345;
/// More than S3 and Google Cloud Storage list in one answer.
const LISTED: usize = 1_005;
const READERS: usize = 3;
const REWRITES: usize = 8;

/// The contract on a fresh archive. `scratch` is an existing directory that the check may fill.
///
/// # Panics
/// If it is broken.
pub fn check(archive: &dyn Archive, scratch: &Path) {
    what_was_put_is_read_back(archive, scratch);
    ranges_end_where_the_object_ends(archive);
    an_absent_object_is_missing(archive);
    an_object_is_replaced_whole(archive);
    a_listing_is_complete_and_in_order(archive);
    a_big_file_arrives_unchanged(archive, scratch);
    nobody_sees_half_an_object(archive);
    names_that_lead_elsewhere_are_refused(archive, scratch);
    assert!(!archive.location().is_empty(), "people can be told where the archive is");
}

/// Many listed objects: a contract of its own, because it takes a request for each.
///
/// # Panics
/// If it is broken.
pub fn check_long_listing(archive: &dyn Archive) {
    let name = |number: usize| format!("many/{:02x}/{number:04}", number % 7);
    for number in 0..LISTED {
        archive.put(&name(number), vec![1; number % 3]).expect("an object can be put");
    }
    let listed = names(archive, "many");
    let mut expected: Vec<String> = (0..LISTED).map(name).collect();
    expected.sort();
    assert_eq!(listed, expected, "a long listing is complete and in order");
}

fn names(archive: &dyn Archive, prefix: &str) -> Vec<String> {
    let listed = archive.list(prefix).expect("an archive can be listed");
    listed.into_iter().map(|object| object.name).collect()
}

/// Bytes that neither compress nor repeat, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // Xorshift64 (Marsaglia).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn read_whole(archive: &dyn Archive, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = archive.open(name).expect("an object can be opened");
    reader.read_to_end(&mut bytes).expect("an opened object can be read");
    bytes
}

fn what_was_put_is_read_back(archive: &dyn Archive, scratch: &Path) {
    let file = scratch.join("small");
    for (name, len) in [("plain/empty", 0), ("plain/one", 1), ("plain/some.seg", 70_000)] {
        let bytes = noise(len as u64, len);
        archive.put(name, bytes.clone()).expect("an object can be put");
        assert_eq!(archive.get(name).expect("get"), bytes, "{name}: get answers what was put");
        assert_eq!(archive.size(name).expect("size"), Some(len as u64), "{name}: its length");
        assert_eq!(read_whole(archive, name), bytes, "{name}: a reader gets what was put");

        let from_file = format!("{name}-file");
        std::fs::write(&file, &bytes).expect("a scratch file can be written");
        archive.put_file(&from_file, &file).expect("a file can be put");
        assert_eq!(archive.get(&from_file).expect("get"), bytes, "{name}: a file as it was");
    }
    let absent = archive.put_file("plain/no-file", &scratch.join("absent"));
    assert!(matches!(absent, Err(ArchiveError::Misconfigured { .. })), "{absent:?}");
    assert_eq!(archive.size("plain/no-file").expect("size"), None, "nothing was put");
}

fn ranges_end_where_the_object_ends(archive: &dyn Archive) {
    let bytes = noise(7, 1000);
    archive.put("range/thousand", bytes.clone()).expect("an object can be put");
    archive.put("range/empty", Vec::new()).expect("an empty object can be put");
    let range = |start, end| archive.get_range("range/thousand", start..end).expect("a range");
    assert_eq!(range(0, 10), bytes[..10], "a range at the start");
    assert_eq!(range(400, 1000), bytes[400..], "a range up to the end");
    assert_eq!(range(990, 5000), bytes[990..], "a range over the end is cut");
    assert_eq!(range(1000, 1001), b"", "a range behind the end is empty");
    assert_eq!(range(9000, u64::MAX), b"", "a range far behind the end is empty");
    assert_eq!(range(5, 5), b"", "an empty range is empty");
    assert_eq!(archive.get_range("range/empty", 0..9).expect("a range"), b"", "of nothing");
}

fn an_absent_object_is_missing(archive: &dyn Archive) {
    let name = "absent/object";
    let is_missing =
        |error: ArchiveError| matches!(error, ArchiveError::Missing { name: said } if said == name);
    assert!(archive.get(name).is_err_and(is_missing), "get says Missing");
    assert!(archive.get_range(name, 0..4).is_err_and(is_missing), "get_range says Missing");
    assert!(archive.get_range(name, 4..4).is_err_and(is_missing), "also for an empty range");
    assert!(archive.open(name).is_err_and(is_missing), "open says Missing");
    assert_eq!(archive.size(name).expect("size"), None, "size says that there is none");
    archive.remove(name).expect("removing what is not there is fine");
    assert!(archive.list("absent").expect("list").is_empty(), "a listing of nothing is empty");

    archive.put(name, vec![1]).expect("put");
    archive.remove(name).expect("remove");
    assert!(archive.get(name).is_err_and(is_missing), "a removed object is missing");
    assert!(archive.list("absent").expect("list").is_empty(), "and listed no more");
    archive.put(name, vec![2]).expect("put");
    assert_eq!(archive.get(name).expect("get"), [2], "and can be put again");
    let directory = archive.get("absent");
    assert!(matches!(directory, Err(ArchiveError::Missing { .. })), "a directory is no object");
    assert_eq!(archive.size("absent").expect("size"), None, "and has no size");
}

fn an_object_is_replaced_whole(archive: &dyn Archive) {
    archive.put("again/object", noise(1, 5000)).expect("put");
    archive.put("again/object", noise(1, 5000)).expect("putting the same again is fine");
    archive.put("again/object", noise(2, 300)).expect("put");
    assert_eq!(archive.get("again/object").expect("get"), noise(2, 300), "the later bytes");
    assert_eq!(names(archive, "again"), ["again/object"], "one object of one name");
}

fn a_listing_is_complete_and_in_order(archive: &dyn Archive) {
    // `-` and `.` sort before `/`, `0` behind it: a walk through directories would differ.
    let expected = ["list/a-b", "list/a.b", "list/a/b", "list/a/c/d", "list/a0", "list/b/a"];
    for name in expected.iter().rev().chain(&["listed/a", "list.a", "lis/a"]) {
        archive.put(name, name.as_bytes().to_vec()).expect("put");
    }
    assert_eq!(names(archive, "list"), expected, "what is in the directory, in name order");
    assert_eq!(names(archive, "list/a"), ["list/a/b", "list/a/c/d"], "a directory in it");
    assert_eq!(names(archive, "list/a/c"), ["list/a/c/d"], "and one in that");
    assert!(names(archive, "list/a-b").is_empty(), "an object is no directory");
    for object in archive.list("list").expect("list") {
        assert_eq!(object.bytes, object.name.len() as u64, "{}: its length", object.name);
    }
    let all = names(archive, "");
    assert!(all.iter().any(|name| name == "listed/a"), "the empty prefix is everything");
    assert!(all.is_sorted(), "everything in name order");
}

fn a_big_file_arrives_unchanged(archive: &dyn Archive, scratch: &Path) {
    let bytes = noise(99, BIG_BYTES);
    let file = scratch.join("big");
    std::fs::write(&file, &bytes).expect("a scratch file can be written");
    archive.put_file("big/file", &file).expect("a big file can be put");
    assert_eq!(archive.size("big/file").expect("size"), Some(BIG_BYTES as u64), "its length");
    assert!(read_whole(archive, "big/file") == bytes, "a big file is read back unchanged");
    let middle = archive.get_range("big/file", 8_388_600..8_388_620).expect("a range");
    assert_eq!(middle, bytes[8_388_600..8_388_620], "a range over the edge of a part");

    // Reading a little of it and dropping the reader harms nothing.
    let mut reader = archive.open("big/file").expect("open");
    let mut start = [0; 100];
    reader.read_exact(&mut start).expect("read");
    assert_eq!(start, bytes[..100], "a reader begins at the start");
    drop(reader);
    archive.remove("big/file").expect("remove");
}

fn nobody_sees_half_an_object(archive: &dyn Archive) {
    let name = "whole/object";
    let versions = [noise(3, 400_000), noise(4, 250_000)];
    archive.put(name, versions[0].clone()).expect("put");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let seen = archive.get(name).expect("an object that is replaced stays there");
                    assert!(versions.contains(&seen), "a reader saw a mixture");
                }
            });
        }
        let rewritten =
            (0..REWRITES).try_for_each(|at| archive.put(name, versions[at % 2].clone()));
        is_over.store(true, Ordering::Relaxed);
        rewritten.expect("an object that is read can be put again");
    });
}

fn names_that_lead_elsewhere_are_refused(archive: &dyn Archive, scratch: &Path) {
    let file = scratch.join("small");
    let long = "a".repeat(2000);
    let names = [
        "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".a", "a/.b", "A",
        "a b", "a\\b", "a%2fb", "ä", "a\0b", "a\n", &long,
    ];
    let is_refused = |error: ArchiveError| matches!(error, ArchiveError::Misconfigured { .. });
    for name in names {
        assert!(archive.put(name, vec![1]).is_err_and(is_refused), "put {name:?}");
        assert!(archive.put_file(name, &file).is_err_and(is_refused), "put_file {name:?}");
        assert!(archive.get(name).is_err_and(is_refused), "get {name:?}");
        assert!(archive.get_range(name, 0..1).is_err_and(is_refused), "get_range {name:?}");
        assert!(archive.get_range(name, 1..1).is_err_and(is_refused), "empty range {name:?}");
        assert!(archive.open(name).is_err_and(is_refused), "open {name:?}");
        assert!(archive.size(name).is_err_and(is_refused), "size {name:?}");
        assert!(archive.remove(name).is_err_and(is_refused), "remove {name:?}");
        assert!(name.is_empty() || archive.list(name).is_err_and(is_refused), "list {name:?}");
    }
}
