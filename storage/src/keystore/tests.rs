//! Tests of the key store on a real directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::disk::RealDisk;
use crate::seal::SystemRandom;

mod customers;
mod rotation;

const TENANT: TenantId = TenantId::PLATFORM;

fn open(dir: &Path) -> Result<KeyStore, KeyError> {
    KeyStore::open(Arc::new(RealDisk), dir, Arc::new(SystemRandom))
}

fn open_with(dir: &Path, options: KeyOptions) -> Result<KeyStore, KeyError> {
    KeyStore::open_with(Arc::new(RealDisk), dir, Arc::new(SystemRandom), options)
}

/// Puts a key of its own for each `byte` into a file.
fn put_key(path: &Path, byte: u8) {
    let key: [u8; 32] = std::array::from_fn(|at| byte ^ u8::try_from(at).unwrap());
    fs::write(path, hex::encode(key)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn keys_and_secrets_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    assert!(matches!(store.load(TENANT), Err(KeyError::Missing { tenant: TENANT })));
    let made = store.create(TENANT).unwrap();
    assert!(matches!(store.create(TENANT), Err(KeyError::Exists { .. })));
    store.load_or_create_secret("jwt-1", || Ok(Zeroizing::new(b"first".to_vec()))).unwrap();

    let store = open(dir.path()).unwrap();
    assert_eq!(store.load(TENANT).unwrap().as_bytes(), made.as_bytes());
    let never = || -> Result<_, SealError> { panic!("the secret was made twice") };
    assert_eq!(*store.load_or_create_secret("jwt-1", never).unwrap(), b"first");
    assert_eq!(store.list_secrets().unwrap(), ["jwt-1"]);
    for name in ["", "../kek", "A", "a/b", "a\0"] {
        assert!(matches!(store.open_secret(name), Err(KeyError::BadName { .. })), "{name:?}");
    }
}

#[test]
fn only_the_owner_may_read_keys() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let store = open(&keys).unwrap();
    store.create(TENANT).unwrap();
    assert_eq!(mode(&keys), 0o700);
    assert_eq!(mode(&keys.join("kek")), 0o600);
    assert_eq!(mode(&store.tenant_path(TENANT)), 0o600);

    fs::set_permissions(keys.join("kek"), fs::Permissions::from_mode(0o640)).unwrap();
    let refused = open(&keys).unwrap_err();
    assert!(matches!(refused, KeyError::KekExposed { mode: 0o640, .. }));
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
}

#[test]
fn a_lost_foreign_or_damaged_kek_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    store.create(TENANT).unwrap();
    let kek = dir.path().join("kek");
    let original = fs::read(&kek).unwrap();

    fs::remove_file(&kek).unwrap();
    assert!(matches!(open(dir.path()), Err(KeyError::KekMissing { .. })));
    assert!(!kek.exists(), "a new key-encryption key was made over existing keys");

    let elsewhere = tempfile::tempdir().unwrap();
    open(elsewhere.path()).unwrap();
    fs::copy(elsewhere.path().join("kek"), &kek).unwrap();
    let foreign = open(dir.path()).unwrap();
    assert!(matches!(foreign.load(TENANT), Err(KeyError::WrongKek { .. })));

    let mut flipped = original;
    flipped[20] ^= 1;
    fs::write(&kek, &flipped).unwrap();
    assert!(matches!(open(dir.path()), Err(KeyError::Damaged { .. })));
}

#[test]
fn a_wrapped_key_with_any_bit_changed_or_of_another_tenant_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    store.create(TENANT).unwrap();
    let path = store.tenant_path(TENANT);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        assert!(matches!(store.load(TENANT), Err(KeyError::Damaged { .. })), "byte {at}");
        fs::write(&path, &bytes[..at]).unwrap();
        assert!(matches!(store.load(TENANT), Err(KeyError::Damaged { .. })), "cut at {at}");
    }
    let other = TenantId::from_bytes([1; 16]);
    store.create(other).unwrap();
    fs::write(store.tenant_path(other), &bytes).unwrap();
    assert!(matches!(store.load(other), Err(KeyError::Damaged { .. })));
}

#[test]
fn a_destroyed_key_is_gone_even_if_only_its_overwriting_lasted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    store.create(TENANT).unwrap();
    store.destroy(TENANT).unwrap();
    assert!(!store.tenant_path(TENANT).exists());
    assert!(matches!(store.load(TENANT), Err(KeyError::Missing { .. })));
    assert!(matches!(store.destroy(TENANT), Err(KeyError::Missing { .. })));

    store.create(TENANT).unwrap();
    let path = store.tenant_path(TENANT);
    let length = fs::read(&path).unwrap().len();
    fs::write(&path, vec![0; length]).unwrap();
    assert!(matches!(store.load(TENANT), Err(KeyError::Missing { .. })));
}
