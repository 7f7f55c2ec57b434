//! The archive over object stores: emulators that keep the whole contract, and stores that fail.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actors::env::{Clock, SystemClock};
use storage::archive::{
    Archive, ArchiveError, ArchiveOptions, ObjectArchive, SharedArchive, contract, place,
};

use crate::kit::{BUCKET, Emulator, ScriptedStore, service_account};

/// Longer than one part of an upload.
const BIG_BYTES: usize = 9 * 1024 * 1024;
/// Port 1 is nobody's (tcpmux, RFC 1078), and no test can be given it.
const NOBODY: &str = "http://127.0.0.1:1";
/// How much longer than its timeout a call may take on a busy machine.
const GRACE: Duration = Duration::from_secs(2);

fn s3_options(endpoint: &str) -> ArchiveOptions {
    let mut options = ArchiveOptions::new(format!("s3://{BUCKET}/eu/node-1"));
    options.endpoint = Some(endpoint.to_owned());
    options.region = Some("us-east-1".to_owned());
    options.access_key_id = Some("a-key".to_owned().into());
    options.secret_access_key = Some("its-secret".to_owned().into());
    options.allow_http = true;
    options
}

fn google_options(endpoint: &str, key_file: &Path) -> ArchiveOptions {
    let mut options = ArchiveOptions::new(format!("gs://{BUCKET}/eu/node-1"));
    options.endpoint = Some(endpoint.to_owned());
    options.service_account_file = Some(key_file.to_owned());
    options.allow_http = true;
    options
}

fn open(options: &ArchiveOptions) -> SharedArchive {
    ObjectArchive::open(options).expect("an archive opens without asking the store")
}

fn is_refused(error: &ArchiveError) -> bool {
    matches!(error, ArchiveError::Refused { .. })
}

fn is_unreachable(error: &ArchiveError) -> bool {
    matches!(error, ArchiveError::Unreachable { .. })
}

/// Fails every call of `archive` and checks what each says.
fn expect_failures(archive: &dyn Archive, scratch: &Path, is_right: fn(&ArchiveError) -> bool) {
    let big = scratch.join("big");
    std::fs::write(&big, vec![7; BIG_BYTES]).expect("a file");
    let failures = [
        ("put", archive.put("a/b", vec![1]).err()),
        ("put_file", archive.put_file("a/b", &big).err()),
        ("get", archive.get("a/b").err()),
        ("get_range", archive.get_range("a/b", 0..1).err()),
        ("open", archive.open("a/b").err()),
        ("size", archive.size("a/b").err()),
        ("list", archive.list("a").err()),
        ("remove", archive.remove("a/b").err()),
    ];
    for (call, failure) in failures {
        let failure = failure.unwrap_or_else(|| panic!("{call} worked"));
        assert!(is_right(&failure), "{call}: {failure:?}");
    }
}

#[test]
fn an_archive_in_s3_keeps_the_contract() {
    let Some(store) = Emulator::s3() else { return };
    let scratch = tempfile::tempdir().expect("a directory");
    let archive = open(&s3_options(&store.url));
    contract::check(&*archive, scratch.path());
    contract::check_long_listing(&*archive);
    assert_eq!(archive.location(), format!("s3://{BUCKET}/eu/node-1"));

    // Two prefixes of one bucket do not see each other.
    let mut options = s3_options(&store.url);
    options.url = format!("s3://{BUCKET}/eu/node-2");
    assert!(open(&options).list("").expect("list").is_empty());
    options.url = format!("s3://{BUCKET}");
    let everything = open(&options).list("").expect("list");
    assert!(everything.iter().all(|object| object.name.starts_with("eu/node-1/")));
    let now_ms = SystemClock::new().now_ms();
    let age_ms = |modified_ms: u64| now_ms.abs_diff(modified_ms);
    assert!(everything.iter().all(|object| age_ms(object.modified_ms) < 600_000), "Unix time");
}

#[test]
fn an_archive_in_google_cloud_storage_keeps_the_contract() {
    let scratch = tempfile::tempdir().expect("a directory");
    let account = scratch.path().join("account.json");
    service_account(&account);
    let Some(store) = Emulator::google(&account) else { return };
    let archive = open(&google_options(&store.url, &account));
    contract::check(&*archive, scratch.path());
    assert_eq!(archive.location(), format!("gs://{BUCKET}/eu/node-1"));

    let other = scratch.path().join("other.json");
    service_account(&other);
    let archive = open(&google_options(&store.url, &other));
    expect_failures(&*archive, scratch.path(), is_refused);
}

#[test]
fn a_key_that_s3_does_not_know_is_refused() {
    let Some(store) = Emulator::s3_that_refuses() else { return };
    let scratch = tempfile::tempdir().expect("a directory");
    expect_failures(&*open(&s3_options(&store.url)), scratch.path(), is_refused);
}

#[test]
fn a_bucket_that_is_not_there_is_no_missing_object() {
    let Some(store) = Emulator::s3() else { return };
    let mut options = s3_options(&store.url);
    options.url = "s3://another-bucket/eu".to_owned();
    let archive = open(&options);
    let wrong = |error| matches!(error, ArchiveError::Misconfigured { .. });
    assert!(archive.put("a", vec![1]).is_err_and(wrong));
    assert!(archive.get("a").is_err_and(wrong));
    assert!(archive.list("").is_err_and(wrong));
}

#[test]
fn a_store_where_nobody_listens_is_unreachable() {
    let scratch = tempfile::tempdir().expect("a directory");
    let archive = open(&s3_options(NOBODY));
    let clock = SystemClock::new();
    expect_failures(&*archive, scratch.path(), is_unreachable);
    let taken = clock.monotonic();
    assert!(taken < place::TIMEOUT * 8 + GRACE, "eight calls took {taken:?}");
}

#[test]
fn a_store_that_never_answers_is_unreachable_when_the_time_is_over() {
    // The system takes the connections, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let mut options = s3_options(&format!("http://{address}"));
    options.timeout = Duration::from_millis(300);
    let archive = open(&options);
    type Call = fn(&dyn Archive) -> Option<ArchiveError>;
    let calls: [(&str, Call); 5] = [
        ("put", |archive| archive.put("a", vec![1]).err()),
        ("get", |archive| archive.get("a").err()),
        ("size", |archive| archive.size("a").err()),
        ("list", |archive| archive.list("a").err()),
        ("remove", |archive| archive.remove("a").err()),
    ];
    for (call, run) in calls {
        let clock = SystemClock::new();
        let failure = run(&*archive).unwrap_or_else(|| panic!("{call} worked"));
        let taken = clock.monotonic();
        assert!(is_unreachable(&failure), "{call}: {failure:?}");
        assert!(taken < options.timeout + GRACE, "{call} took {taken:?}");
    }
}

#[test]
fn a_store_that_fails_is_asked_again_and_then_counts_as_unreachable() {
    let store = ScriptedStore::start(|_, _| (503, "<Code>SlowDown</Code>".to_owned()));
    let archive = open(&s3_options(&store.url));
    let failure = archive.get("a").expect_err("it fails for ever");
    assert!(is_unreachable(&failure), "{failure:?}");
    assert_eq!(store.asked().len(), 4, "one request and three more: {:?}", store.asked());

    let answer = "<Error><Code>NoSuchKey</Code></Error>";
    let store = ScriptedStore::start(move |before, _| {
        let status = if before < 2 { 503 } else { 404 };
        (status, answer.to_owned())
    });
    let archive = open(&s3_options(&store.url));
    let failure = archive.get("a").expect_err("there is none");
    assert!(matches!(failure, ArchiveError::Missing { .. }), "{failure:?}");
    assert_eq!(store.asked().len(), 3, "{:?}", store.asked());
}

#[test]
fn a_full_store_is_full() {
    let full = |_: usize, _: &_| (507, "<Code>XMinioStorageFull</Code>".to_owned());
    let store = ScriptedStore::start(full);
    let failure = open(&s3_options(&store.url)).put("a", vec![1]).expect_err("no space");
    assert!(matches!(failure, ArchiveError::Full { .. }), "{failure:?}");
}

#[test]
fn an_upload_that_breaks_is_ended() {
    let begun = "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key>\
                 <UploadId>the-upload</UploadId></InitiateMultipartUploadResult>";
    let store = ScriptedStore::start(move |_, (method, target)| match method.as_str() {
        "POST" if target.contains("uploads") => (200, begun.to_owned()),
        "PUT" if target.contains("partNumber=2") => (400, "<Code>InvalidPart</Code>".to_owned()),
        _ => (200, String::new()),
    });
    let scratch = tempfile::tempdir().expect("a directory");
    let big = scratch.path().join("big");
    std::fs::write(&big, vec![7; BIG_BYTES]).expect("a file");
    let failure = open(&s3_options(&store.url)).put_file("a", &big).expect_err("a broken part");
    assert!(matches!(failure, ArchiveError::Misconfigured { .. }), "{failure:?}");
    let asked = store.asked();
    let methods: Vec<&str> = asked.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(methods, ["POST", "PUT", "PUT", "DELETE"], "{asked:?}");
    assert!(asked[3].1.contains("uploadId=the-upload"), "{asked:?}");
}

#[test]
fn many_threads_share_one_archive() {
    let Some(store) = Emulator::s3() else { return };
    let archive = open(&s3_options(&store.url));
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let archive = Arc::clone(&archive);
            scope.spawn(move || {
                let name = format!("shared/{thread}");
                archive.put(&name, vec![thread; 10_000]).expect("put");
                assert_eq!(archive.get(&name).expect("get"), vec![thread; 10_000]);
            });
        }
    });
    assert_eq!(archive.list("shared").expect("list").len(), 8);
}
