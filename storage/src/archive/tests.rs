//! The contract on every backend that needs no network, and what is each one's own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::archive::Archive;
use crate::archive::ArchiveError;
use crate::archive::ArchiveOptions;
use crate::archive::ObjectArchive;
use crate::archive::Place;
use crate::archive::contract;
use crate::archive::local::LocalArchive;
use crate::archive::memory::MemoryArchive;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[test]
fn an_archive_in_memory_keeps_the_contract() {
    contract::check(&MemoryArchive::new(), dir().path());
    contract::check_long_listing(&MemoryArchive::new());
}

#[test]
fn an_archive_in_a_directory_keeps_the_contract() {
    let (root, scratch) = (dir(), dir());
    let options = ArchiveOptions::new(format!("file://{}/new/archive", root.path().display()));
    let archive = ObjectArchive::open(&options).expect("an archive");
    contract::check(&*archive, scratch.path());
    let drafts = fs::read_dir(root.path().join("new/archive/.drafts")).expect("drafts");
    assert_eq!(drafts.count(), 0, "every draft became an object or went");
}

#[test]
fn an_archive_in_a_directory_outlives_its_process_and_is_the_owners_alone() {
    let root = dir();
    let at = root.path().join("archive");
    LocalArchive::open(&at).expect("open").put("segments/a.seg", vec![5; 9]).expect("put");
    let archive = LocalArchive::open(&at).expect("open again");
    assert_eq!(archive.get("segments/a.seg").expect("get"), [5; 9]);
    assert_eq!(mode(&at), 0o700);
    assert_eq!(mode(&at.join("segments")), 0o700);
    assert_eq!(mode(&at.join("segments/a.seg")), 0o600);
}

#[test]
fn what_a_crashed_writer_left_is_no_object_and_is_swept() {
    let root = dir();
    let archive = LocalArchive::open(root.path()).expect("open");
    let left = root.path().join(".drafts/4194305-0");
    fs::write(&left, b"half an obj").expect("a leftover");
    assert!(archive.list("").expect("list").is_empty(), "a leftover is no object");
    LocalArchive::open(root.path()).expect("open again");
    assert!(!left.exists(), "a leftover is swept");
}

#[test]
fn the_draft_of_a_living_writer_is_not_swept() {
    let root = dir();
    let _first = LocalArchive::open(root.path()).expect("open");
    let held = root.path().join(".drafts/4194305-1");
    let mut file = fs::File::create(&held).expect("a draft");
    file.lock().expect("a lock");
    file.write_all(b"half").expect("written");
    LocalArchive::open(root.path()).expect("open again");
    assert!(held.exists(), "its writer still holds it");
}

#[test]
fn a_put_that_fails_leaves_what_was_there() {
    let root = dir();
    let archive = LocalArchive::open(root.path()).expect("open");
    archive.put("a/b", vec![1]).expect("put");
    // A file cannot have the name of a directory that something is in.
    assert!(matches!(archive.put("a", vec![2]), Err(ArchiveError::Misconfigured { .. })));
    assert_eq!(archive.get("a/b").expect("get"), [1]);
    assert_eq!(fs::read_dir(root.path().join(".drafts")).expect("drafts").count(), 0);
}

#[test]
fn an_emptied_directory_goes_and_concurrent_puts_into_it_succeed() {
    let root = dir();
    let archive = LocalArchive::open(root.path()).expect("open");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let archive = &archive;
            scope.spawn(move || {
                for round in 0..20 {
                    let name = format!("snapshots/tn/{thread}-{round}");
                    archive.put(&name, vec![1]).expect("put beside a removal");
                    archive.remove(&name).expect("remove beside a put");
                }
            });
        }
    });
    assert!(!root.path().join("snapshots").exists(), "nothing is left of an emptied directory");
}

#[test]
fn a_place_that_cannot_be_a_directory_is_refused() {
    let root = dir();
    fs::write(root.path().join("file"), b"x").expect("a file");
    let opened = LocalArchive::open(&root.path().join("file/archive"));
    assert!(opened.is_err(), "{opened:?}");
}

#[test]
fn places_are_read_and_nonsense_is_refused_with_what_would_be_right() {
    let place = |url: &str| Place::parse(url);
    assert_eq!(place("/srv/archive").unwrap(), Place::Local("/srv/archive".into()));
    assert_eq!(place("file:///srv/archive").unwrap(), Place::Local("/srv/archive".into()));
    let s3 = Place::S3 { bucket: "bulkhead".to_owned(), prefix: "eu/one".to_owned() };
    assert_eq!(place("s3://bulkhead/eu/one/").unwrap(), s3);
    assert_eq!(s3.to_string(), "s3://bulkhead/eu/one");
    let google = Place::Google { bucket: "bulkhead".to_owned(), prefix: String::new() };
    assert_eq!(place("gs://bulkhead").unwrap(), google);
    assert_eq!(google.to_string(), "gs://bulkhead");
    let refused = [
        ("ftp://host/dir", "s3://bucket/prefix"),
        ("archive", "absolute"),
        ("file://archive", "absolute"),
        ("", "absolute"),
        ("s3://", "bucket"),
        ("s3://id:secret@bucket/a", "bucket"),
        ("s3://bucket/a//b", "single slashes"),
        ("gs://bucket/../b", "single slashes"),
        ("gs://bucket/a?b=c", "single slashes"),
    ];
    for (url, hint) in refused {
        let error = place(url).expect_err(url);
        assert!(matches!(error, ArchiveError::Misconfigured { .. }), "{url}: {error}");
        assert!(error.to_string().contains(hint), "{url}: {error}");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let refusal = |options: &ArchiveOptions| match ObjectArchive::open(options) {
        Err(ArchiveError::Misconfigured { reason }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{options:?} opened"),
    };
    let mut options = ArchiveOptions::new("s3://bucket");
    options.endpoint = Some("http://127.0.0.1:9".to_owned());
    assert!(refusal(&options).contains("plain HTTP"));
    options.allow_http = true;
    options.access_key_id = Some("id".to_owned().into());
    assert!(refusal(&options).contains("need each other"));
    let mut options = ArchiveOptions::new("gs://bucket");
    options.service_account_file = Some("/absent/account.json".into());
    assert!(refusal(&options).contains("account.json"));
}

#[test]
fn options_show_no_secret() {
    let mut options = ArchiveOptions::new("s3://bucket");
    options.access_key_id = Some("the-id".to_owned().into());
    options.secret_access_key = Some("the-secret".to_owned().into());
    let text = format!("{options:?}");
    assert!(!text.contains("the-id") && !text.contains("the-secret"), "{text}");
}

#[test]
fn an_object_archive_works_and_ends_on_a_thread_of_another_runtime() {
    // Port 1 is nobody's (tcpmux, RFC 1078).
    let mut options = ArchiveOptions::new("s3://bucket");
    options.endpoint = Some("http://127.0.0.1:1".to_owned());
    options.allow_http = true;
    options.access_key_id = Some("id".to_owned().into());
    options.secret_access_key = Some("secret".to_owned().into());
    options.timeout = Duration::from_secs(2);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let archive = ObjectArchive::open(&options).expect("opened without asking");
        let error = archive.get("a").expect_err("nobody listens");
        assert!(matches!(error, ArchiveError::Unreachable { .. }), "{error}");
        drop(archive);
        let archive = ObjectArchive::open(&options).expect("opened without asking");
        let asked = tokio::task::spawn_blocking(move || archive.size("a")).await.expect("joined");
        assert!(matches!(asked, Err(ArchiveError::Unreachable { .. })), "{asked:?}");
    });
}

#[test]
fn an_archive_in_memory_fails_on_command_and_counts() {
    let archive = MemoryArchive::new();
    archive.set_now_ms(77);
    archive.put("a", vec![1, 2, 3]).expect("put");
    assert_eq!(archive.list("").expect("list")[0].modified_ms, 77);
    archive.set_reachable(false);
    assert!(matches!(archive.get("a"), Err(ArchiveError::Unreachable { .. })));
    archive.set_reachable(true);
    archive.fail_after(1);
    archive.get("a").expect("one more call works");
    assert!(matches!(archive.get("a"), Err(ArchiveError::Unreachable { .. })));
    archive.set_reachable(true);
    archive.fail_with(ArchiveError::Full { reason: "full".to_owned() });
    assert!(matches!(archive.put("b", vec![1]), Err(ArchiveError::Full { .. })));
    archive.set_reachable(true);
    assert!(archive.corrupt("a", |bytes| bytes[0] ^= 1) && !archive.corrupt("b", Vec::clear));
    assert_eq!(archive.get("a").expect("get"), [0, 2, 3]);
    let counts = archive.counts();
    assert_eq!((counts.puts, counts.reads, counts.bytes_put, counts.bytes_read), (2, 4, 3, 6));
}
