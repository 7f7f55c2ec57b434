//! Key-encryption keys in a real PKCS#11 token: SoftHSM, which `tests/run` installs.
//!
//! SoftHSM reads where its tokens are from the environment when it is first used, so each test runs
//! its body in a process of its own, started in a directory with a fresh token. Where SoftHSM is not
//! installed the tests say so and pass.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use storage::disk::RealDisk;
use storage::id::{Id as _, TenantId};
use storage::keystore::source::{SourceError, SourceSpec};
use storage::keystore::{KeyError, KeyOptions, KeyStore};
use storage::seal::SystemRandom;

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
];
const PIN: &str = "7531-secret";

fn module() -> Option<PathBuf> {
    MODULES.iter().map(PathBuf::from).find(|path| path.exists())
}

fn tool(words: &[&str]) {
    let done = Command::new("softhsm2-util").args(words).output().expect("softhsm2-util runs");
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Runs the ignored test `body` of this program in a directory with a fresh token.
fn with_token(body: &str) {
    if module().is_none() {
        println!("skipped: softhsm2 is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let conf = dir.path().join("softhsm2.conf");
    let tokens = dir.path().join("tokens");
    fs::create_dir(&tokens).expect("a directory");
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
    fs::write(&conf, text).expect("a file");
    let done = Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", body, "--nocapture"])
        .env("SOFTHSM2_CONF", &conf)
        .current_dir(dir.path())
        .output()
        .expect("this program again");
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    assert!(!said.contains(PIN), "the PIN was printed: {said}");
}

/// The directory that `with_token` made; nothing when somebody runs all ignored tests by hand.
fn here() -> Option<PathBuf> {
    let dir = std::env::current_dir().expect("a directory");
    if !dir.join("softhsm2.conf").exists() {
        println!("run through the test that starts it");
        return None;
    }
    tool(&["--init-token", "--free", "--label", "bulkhead", "--pin", PIN, "--so-pin", "99887766"]);
    put(&dir.join("pin"), PIN.as_bytes());
    Some(dir)
}

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

/// Puts an AES key into the token.
fn import(dir: &Path, label: &str, id: &str) {
    let key: [u8; 32] =
        std::array::from_fn(|at| u8::try_from(at).expect("small") ^ id.as_bytes()[1]);
    let file = dir.join("aes");
    put(&file, &key);
    let file = file.to_str().expect("a path in UTF-8");
    let token = ["--token", "bulkhead", "--pin", PIN];
    tool(&[&["--import", file, "--aes", "--label", label, "--id", id], &token[..]].concat());
}

fn spec(dir: &Path) -> SourceSpec {
    SourceSpec::Pkcs11 {
        module: module().expect("a module"),
        token: "bulkhead".to_owned(),
        pin_file: dir.join("pin"),
        key: "kek".to_owned(),
    }
}

fn open(dir: &Path) -> Result<KeyStore, KeyError> {
    let options = KeyOptions { source: Some(spec(dir)), retiring: None };
    KeyStore::open_with(Arc::new(RealDisk), &dir.join("keys"), Arc::new(SystemRandom), options)
}

fn tenant(byte: u8) -> TenantId {
    TenantId::from_bytes([byte; 16])
}

#[test]
fn tenants_open_under_a_key_that_never_leaves_the_token_and_through_its_rotation() {
    with_token("wraps_and_rotates");
}

#[test]
#[ignore = "started by the test above it, in a process of its own"]
fn wraps_and_rotates() {
    let Some(dir) = here() else { return };
    import(&dir, "kek", "01");
    import(&dir, "other", "02");
    let store = open(&dir).expect("a store");
    let marker = b"of the node".as_slice();
    store.create(tenant(1)).expect("a key");
    store.seal_secret("token-signing", marker).expect("a secret");
    assert!(!dir.join("keys/kek").exists());

    let store = open(&dir).expect("the store again");
    store.load(tenant(1)).expect("the key");
    assert_eq!(store.source_kind(), "pkcs11");
    let first = store.kek_status().expect("a status").versions[0].clone();
    assert_eq!((&*first.name, first.files), ("kek/01", 2));

    import(&dir, "kek", "0200");
    import(&dir, "kek", "03");
    let rotation = store.rotate(1).expect("a rotation");
    assert_eq!(rotation.previous, first.id);
    let outcome = store.rewrap_all(&mut |_, _| {}).expect("an outcome");
    assert_eq!((outcome.rewrapped, outcome.failed.len()), (2, 0));
    let status = store.kek_status().expect("a status");
    assert_eq!(status.versions[0].name, "kek/0200", "the longer id is the newer one");
    assert_eq!(**open(&dir).expect("a store").open_secret("token-signing").expect("it"), *marker);

    // More than one session's worth of work.
    (0..200).for_each(|_| drop(store.load(tenant(1)).expect("the key")));
    flips(&dir, &store);
}

/// What the token wrapped is bound to its tenant, bit by bit.
fn flips(dir: &Path, store: &KeyStore) {
    let path = dir.join(format!("keys/tenants/01/{}.key", tenant(1)));
    let whole = fs::read(&path).expect("a key file");
    for at in (0..whole.len()).step_by(3) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        // With a right checksum, so that it is the token that refuses.
        let end = whole.len() - 4;
        let crc = crc32c::crc32c(&flipped[..end]).to_le_bytes();
        flipped[end..].copy_from_slice(&crc);
        put(&path, &flipped);
        assert!(at >= end || store.load(tenant(1)).is_err(), "byte {at}");
    }
    put(&path, &whole);
    let other = dir.join(format!("keys/tenants/02/{}.key", tenant(2)));
    store.create(tenant(2)).expect("a key");
    put(&other, &whole);
    let refused = store.load(tenant(2)).expect_err("another tenant's key");
    assert!(matches!(refused, KeyError::Damaged { .. }), "{refused:?}");
}

#[test]
fn a_customers_key_in_a_token_is_withheld_when_its_pin_or_the_key_is_gone() {
    with_token("is_withheld");
}

#[test]
#[ignore = "started by the test above it, in a process of its own"]
fn is_withheld() {
    let Some(dir) = here() else { return };
    import(&dir, "kek", "01");
    let store =
        KeyStore::open(Arc::new(RealDisk), &dir.join("keys"), Arc::new(SystemRandom)).expect("it");
    store.create(tenant(1)).expect("a key");
    store.create(tenant(2)).expect("a key");
    store.hold_by_customer(tenant(1), &spec(&dir)).expect("it is held");
    assert!(!store.is_withheld(tenant(1)));

    fs::rename(dir.join("pin"), dir.join("away")).expect("a rename");
    assert!(store.is_withheld(tenant(1)) && !store.is_withheld(tenant(2)));
    fs::rename(dir.join("away"), dir.join("pin")).expect("a rename");
    assert!(!store.is_withheld(tenant(1)));

    // The customer's own tool takes the token away under a running node.
    let tokens = dir.join("tokens");
    let kept: Vec<_> =
        fs::read_dir(&tokens).expect("tokens").map(|entry| entry.expect("one")).collect();
    let token = kept[0].path();
    let object = |entry: &PathBuf| entry.extension().is_some_and(|kind| kind == "object");
    let files: Vec<_> = fs::read_dir(&token)
        .expect("a token")
        .map(|entry| entry.expect("one").path())
        .filter(|path| object(path) && !path.ends_with("token.object"))
        .collect();
    let [key] = &files[..] else { panic!("one key: {files:?}") };
    let bytes = fs::read(key).expect("the key object");
    let generation = fs::read(token.join("generation")).expect("a generation");
    fs::remove_file(key).expect("it goes");
    assert!(store.is_withheld(tenant(1)), "a key that is not in the token any more");
    store.load(tenant(2)).expect("the others do not notice");
    put(key, &bytes);
    put(&token.join("generation"), &generation);
}

#[test]
fn what_is_wrong_with_a_token_is_said_and_a_refused_pin_is_not_tried_again() {
    with_token("says_what_is_wrong");
}

#[test]
#[ignore = "started by the test above it, in a process of its own"]
fn says_what_is_wrong() {
    let Some(dir) = here() else { return };
    let said = |spec: SourceSpec| {
        let refused = spec.versions().expect_err("it is refused");
        assert!(!format!("{refused} {refused:?}").contains(PIN));
        refused.to_string()
    };
    assert!(said(spec(&dir)).contains("offers no key"));
    import(&dir, "kek", "01");
    spec(&dir).versions().expect("a version");

    let short = dir.join("short");
    put(&short, b"sixteen bytes ..");
    let short = short.to_str().expect("a path in UTF-8");
    let token = ["--token", "bulkhead", "--pin", PIN];
    tool(&[&["--import", short, "--aes", "--label", "short", "--id", "01"], &token[..]].concat());

    let SourceSpec::Pkcs11 { module, token, pin_file, key } = spec(&dir) else { unreachable!() };
    let at = |module: &Path, token: &str, pin_file: &Path, key: &str| SourceSpec::Pkcs11 {
        module: module.to_owned(),
        token: token.to_owned(),
        pin_file: pin_file.to_owned(),
        key: key.to_owned(),
    };
    assert!(said(at(Path::new("/nowhere.so"), &token, &pin_file, &key)).contains("/nowhere.so"));
    assert!(said(at(&module, "nobody", &pin_file, &key)).contains("no such token"));
    assert!(said(at(&module, &token, &pin_file, "nothing")).contains("offers no key"));
    assert!(said(at(&module, &token, &dir.join("none"), &key)).contains("none"));
    assert!(said(at(&module, &token, &pin_file, "short")).contains("has 16 bytes"));

    let wrong = dir.join("wrong-pin");
    put(&wrong, b"0000\n");
    for expected in ["refused the PIN: PinIncorrect", "not tried again"] {
        let text = said(at(&module, &token, &wrong, &key));
        assert!(text.contains(expected), "{text}");
    }
    put(&wrong, PIN.as_bytes());
    at(&module, &token, &wrong, &key).versions().expect("the right PIN, in a file that changed");
    put(&wrong, b"");
    assert!(said(at(&module, &token, &wrong, &key)).contains("no PIN"));
    fs::set_permissions(&pin_file, fs::Permissions::from_mode(0o644)).expect("a mode");
    let refused = spec(&dir).versions().expect_err("everybody can read the PIN");
    assert!(matches!(refused, SourceError::Exposed { mode: 0o644, .. }), "{refused:?}");
}
