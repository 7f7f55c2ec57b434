//! Rotation: under loads, across power cuts and disk errors at every step, and from source to source.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::disk::fault::{Fault, FaultDisk, Survival};
use crate::keystore::rotate::Rewrapped;

const DIR: &str = "/keys";
const NOW_MS: u64 = 1_700_000_000_000;

fn on(disk: &FaultDisk) -> Result<KeyStore, KeyError> {
    KeyStore::open(Arc::new(disk.clone()), Path::new(DIR), Arc::new(SystemRandom))
}

fn tenants(count: u8) -> Vec<TenantId> {
    (1..=count).map(|byte| TenantId::from_bytes([byte; 16])).collect()
}

/// What a store opens to.
fn contents(store: &KeyStore, tenants: &[TenantId]) -> Vec<Vec<u8>> {
    let keys = tenants.iter().map(|tenant| store.load(*tenant).unwrap().as_bytes().to_vec());
    keys.chain([store.open_secret("token-signing").unwrap().to_vec()]).collect()
}

fn filled(store: &KeyStore, tenants: &[TenantId]) -> Vec<Vec<u8>> {
    tenants.iter().for_each(|tenant| drop(store.create(*tenant).unwrap()));
    store.seal_secret("token-signing", b"of the node").unwrap();
    contents(store, tenants)
}

fn rewrap(store: &KeyStore) -> Result<Rewrapped, KeyError> {
    store.rewrap_all(&mut |_, _| {})
}

fn rotate_whole(store: &KeyStore) -> Result<(), KeyError> {
    store.rotate(NOW_MS)?;
    match rewrap(store)?.failed.pop() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Brings whatever a cut left to its end, and looks for what should be gone.
fn finishes(disk: &FaultDisk, tenants: &[TenantId], expected: &[Vec<u8>], what: &str) {
    let store = on(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(contents(&store, tenants), expected, "{what}");
    let outcome = rewrap(&store).unwrap();
    assert!(outcome.failed.is_empty(), "{what}: {outcome:?}");
    let status = store.kek_status().unwrap();
    assert_eq!(status.versions.len(), 1, "{what}: {status:?}");
    assert_eq!((status.versions[0].files, status.unreadable), (expected.len() as u64, 0), "{what}");
    let left: Vec<_> = disk.list(Path::new(DIR)).unwrap();
    let is_old =
        |path: &&PathBuf| path.to_str().unwrap().contains("kek.") && !path.ends_with("kek.seen");
    assert_eq!(left.iter().find(is_old), None, "{what}");
    assert_eq!(contents(&on(disk).unwrap(), tenants), expected, "{what}");
}

#[test]
fn after_a_rotation_everything_opens_under_the_new_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let (store, tenants) = (open(dir.path()).unwrap(), tenants(3));
    let expected = filled(&store, &tenants);
    let old = fs::read(dir.path().join("kek")).unwrap();
    let mut told = Vec::new();
    let rotation = store.rotate(NOW_MS).unwrap();
    assert_ne!(rotation.previous, rotation.current);
    assert_eq!(contents(&store, &tenants), expected);
    assert!(store.kek_status().unwrap().is_due());
    let kept = dir.path().join(format!("kek.{}", rotation.previous));
    assert_eq!(mode(&kept), 0o600);

    let outcome = store.rewrap_all(&mut |done, total| told.push((done, total))).unwrap();
    assert_eq!((outcome.rewrapped, outcome.retired), (4, vec![rotation.previous]));
    assert_eq!(told, [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]);
    assert!(!kept.exists() && !store.kek_status().unwrap().is_due());
    assert_eq!(contents(&open(dir.path()).unwrap(), &tenants), expected);
    assert_eq!(store.kek_age_seconds(NOW_MS + 5_000), 5);

    fs::write(dir.path().join("kek"), old).unwrap();
    let stale = open(dir.path()).unwrap();
    let refused = stale.load(tenants[0]).unwrap_err();
    assert!(matches!(refused, KeyError::WrongKek { kek, .. } if kek == rotation.current));
}

#[test]
fn loads_and_new_tenants_go_on_through_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let (store, tenants) = (Arc::new(open(dir.path()).unwrap()), tenants(16));
    let expected = filled(&store, &tenants);
    let is_over = Arc::new(AtomicBool::new(false));
    let loader = |tenants: Vec<TenantId>, expected: Vec<Vec<u8>>| {
        let (store, is_over) = (store.clone(), is_over.clone());
        std::thread::spawn(move || {
            let mut rounds = 0;
            while !is_over.load(Ordering::SeqCst) || rounds == 0 {
                assert_eq!(contents(&store, &tenants), expected);
                rounds += 1;
            }
            rounds
        })
    };
    let loaders = [loader(tenants.clone(), expected.clone()), loader(tenants, expected)];
    let mut made = Vec::new();
    for round in 0..8 {
        let tenant = TenantId::from_bytes([100 + round; 16]);
        store.rotate(NOW_MS + u64::from(round)).unwrap();
        made.push((tenant, store.create(tenant).unwrap()));
        assert!(rewrap(&store).unwrap().failed.is_empty());
    }
    is_over.store(true, Ordering::SeqCst);
    for loader in loaders {
        assert!(loader.join().unwrap() > 0);
    }
    for (tenant, key) in made {
        assert_eq!(store.load(tenant).unwrap().as_bytes(), key.as_bytes());
    }
}

#[test]
fn a_power_cut_at_any_step_of_a_rotation_loses_no_key() {
    let (disk, tenants) = (FaultDisk::new(), tenants(2));
    let expected = filled(&on(&disk).unwrap(), &tenants);
    let mut cuts = 0;
    for step in 0.. {
        let disk = disk.restart(Survival::Everything);
        let store = on(&disk).unwrap();
        disk.cut_power_after(disk.operations() + step);
        if rotate_whole(&store).is_ok() {
            assert!(step > 20, "a rotation takes more than {step} steps");
            break;
        }
        let torn = (0..6).map(|at| Survival::Prefix { changes: at, torn_bytes: 7 });
        let some = (0..16).map(|bits| Survival::Subset(bits | bits << 4));
        for survival in [Survival::Synced, Survival::Everything].into_iter().chain(torn).chain(some)
        {
            let after = disk.restart(survival);
            finishes(&after, &tenants, &expected, &format!("cut at {step}, {survival:?}"));
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
}

#[test]
fn a_disk_error_at_any_step_of_a_rotation_loses_no_key() {
    let (disk, tenants) = (FaultDisk::new(), tenants(2));
    let expected = filled(&on(&disk).unwrap(), &tenants);
    for fault in [Fault::Error, Fault::Partial, Fault::NoSpace] {
        for step in 0.. {
            let disk = disk.restart(Survival::Everything);
            let store = on(&disk).unwrap();
            let end = disk.operations() + step;
            disk.fail_at(end, fault);
            let outcome = rotate_whole(&store);
            if disk.operations() <= end {
                outcome.unwrap();
                assert!(step > 20, "a rotation takes more than {step} steps");
                break;
            }
            assert_eq!(contents(&store, &tenants), expected, "{fault:?} at {step}");
            for survival in [Survival::Synced, Survival::Everything] {
                let after = disk.restart(survival);
                let what = format!("{fault:?} at {step}, {survival:?}");
                finishes(&after, &tenants, &expected, &what);
            }
            // The same store carries on where the disk let it down.
            rotate_whole(&store).unwrap_or_else(|error| panic!("{fault:?} at {step}: {error}"));
            assert_eq!(contents(&store, &tenants), expected, "{fault:?} at {step}");
        }
    }
}

#[test]
fn one_damaged_file_keeps_the_old_key_alive_and_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (store, tenants) = (open(dir.path()).unwrap(), tenants(3));
    filled(&store, &tenants);
    let path = store.tenant_path(tenants[1]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..20]).unwrap();
    let rotation = store.rotate(NOW_MS).unwrap();
    let outcome = rewrap(&store).unwrap();
    assert_eq!((outcome.rewrapped, outcome.failed.len(), outcome.retired.len()), (3, 1, 0));
    assert_eq!(outcome.failed[0].0, path);
    assert!(dir.path().join(format!("kek.{}", rotation.previous)).exists());

    fs::write(&path, whole).unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(rewrap(&store).unwrap().retired, [rotation.previous]);
    store.load(tenants[1]).unwrap();
}

#[test]
fn every_changed_byte_and_every_truncation_of_a_key_encryption_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, tenants) = (open(dir.path()).unwrap(), tenants(1));
    let expected = filled(&store, &tenants);
    let rotation = store.rotate(NOW_MS).unwrap();
    for name in ["kek".to_owned(), format!("kek.{}", rotation.previous)] {
        let path = dir.path().join(&name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let refused = open(dir.path()).expect_err("a flipped byte");
            assert!(matches!(refused, KeyError::Damaged { .. }), "{name} byte {at}: {refused}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(
                matches!(open(dir.path()), Err(KeyError::Damaged { .. })),
                "{name} cut at {at}"
            );
        }
        fs::write(&path, &whole).unwrap();
    }
    let seen = dir.path().join("kek.seen");
    fs::write(&seen, b"garbage").unwrap();
    assert_eq!(contents(&open(dir.path()).unwrap(), &tenants), expected);
}

#[test]
fn a_kek_of_the_first_format_is_read_and_ages_from_when_it_was_met() {
    let dir = tempfile::tempdir().unwrap();
    let tenants = tenants(1);
    let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let old = frame::framed(frame::KEK_MAGIC, 1, &secret);
    fs::write(dir.path().join("kek"), &old).unwrap();
    fs::set_permissions(dir.path().join("kek"), fs::Permissions::from_mode(0o600)).unwrap();
    let store = open(dir.path()).unwrap();
    let expected = filled(&store, &tenants);
    let met_ms = store.kek_status().unwrap().versions[0].created_ms.unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(store.kek_status().unwrap().versions[0].created_ms, Some(met_ms));
    assert_eq!(store.kek_age_seconds(met_ms + 61_000), 61);
    rotate_whole(&store).unwrap();
    assert_eq!(contents(&open(dir.path()).unwrap(), &tenants), expected);
}

#[test]
fn what_an_interrupted_write_left_of_a_key_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap();
    for name in ["kek.new", "kek.0123456789abcdef.new"] {
        fs::write(dir.path().join(name), b"half a secret").unwrap();
    }
    open(dir.path()).unwrap();
    assert!(!dir.path().join("kek.new").exists());
    assert!(!dir.path().join("kek.0123456789abcdef.new").exists());
    fs::copy(dir.path().join("kek"), dir.path().join("kek.0123456789abcdef")).unwrap();
    assert!(matches!(open(dir.path()), Err(KeyError::Damaged { .. })));
}

#[test]
fn a_store_moves_from_its_own_key_to_a_source_and_back() {
    let (dir, mounted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tenants = tenants(2);
    let expected = filled(&open(dir.path()).unwrap(), &tenants);
    put_key(&mounted.path().join("v1"), 1);
    let spec = SourceSpec::Directory { path: mounted.path().to_owned() };
    let to = KeyOptions { source: Some(spec.clone()), retiring: None };
    let store = open_with(dir.path(), to.clone()).unwrap();
    assert_eq!((store.source_kind(), contents(&store, &tenants)), ("directory", expected.clone()));
    rotate_whole(&store).unwrap();
    assert!(!dir.path().join("kek").exists(), "the key of before is destroyed");
    assert_eq!(contents(&open_with(dir.path(), to.clone()).unwrap(), &tenants), expected);
    assert!(matches!(open(dir.path()), Err(KeyError::KekMissing { .. })));

    put_key(&mounted.path().join("v2"), 2);
    let store = open_with(dir.path(), to.clone()).unwrap();
    fs::remove_file(mounted.path().join("v1")).unwrap();
    rotate_whole(&store).unwrap();
    assert_eq!(contents(&open_with(dir.path(), to).unwrap(), &tenants), expected);

    let back = KeyOptions { source: None, retiring: Some(spec) };
    let store = open_with(dir.path(), back).unwrap();
    rotate_whole(&store).unwrap();
    fs::remove_file(mounted.path().join("v2")).unwrap();
    assert_eq!(contents(&open(dir.path()).unwrap(), &tenants), expected);
}

#[test]
fn a_source_that_gives_nothing_changes_nothing() {
    let (dir, mounted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tenants = tenants(1);
    put_key(&mounted.path().join("v1"), 1);
    let spec = SourceSpec::Directory { path: mounted.path().to_owned() };
    let options = KeyOptions { source: Some(spec), retiring: None };
    let store = open_with(dir.path(), options.clone()).unwrap();
    let expected = filled(&store, &tenants);
    fs::remove_file(mounted.path().join("v1")).unwrap();
    assert!(matches!(store.rotate(NOW_MS), Err(KeyError::Source(_))));
    assert_eq!(contents(&store, &tenants), expected);
    let refused = open_with(dir.path(), options.clone()).unwrap_err();
    assert!(std::error::Error::source(&refused).unwrap().to_string().contains("offers no key"));
    assert!(!dir.path().join("kek").exists(), "no key was made instead");

    put_key(&mounted.path().join("v1"), 9);
    let other = open_with(dir.path(), options).unwrap();
    assert!(matches!(other.load(tenants[0]), Err(KeyError::WrongKek { .. })));
}
