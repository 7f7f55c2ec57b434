//! The view deleted, cut, overwritten with noise and set back to an old copy, again and again: every
//! state is the one before, or the damage is noticed and deleting the view brings the state back.
//! Never is another state served.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use storage::id::{Id as _, TenantId};
use storage::keys::{Key, Prefix};
use storage::log::segment::SegmentOptions;
use storage::seal::{Random, SystemRandom};
use storage::store::{Store, StoreOptions};
use storage::txn::Scan;

use crate::kit::{form, write};

const ROUNDS: u64 = 100;
const TENANTS: u8 = 3;
const ROWS: u64 = 60;

/// Everything a tenant has, as one hash.
type States = BTreeMap<TenantId, Vec<u8>>;

/// A splitmix64 generator.
struct Dice(u64);

impl Dice {
    /// Seeded by `BULKHEAD_TEST_SEED`, else anew; the seed is printed.
    #[expect(clippy::disallowed_methods, reason = "a seed is no configuration of a node")]
    fn thrown() -> Self {
        let mut bytes = [0; 8];
        SystemRandom.fill(&mut bytes).unwrap();
        let seed = match std::env::var("BULKHEAD_TEST_SEED") {
            Ok(text) => text.parse().unwrap(),
            Err(_) => u64::from_be_bytes(bytes),
        };
        println!("view loss: BULKHEAD_TEST_SEED={seed}");
        Self(seed)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn tenant(number: u8) -> TenantId {
    TenantId::from_bytes([number; 16])
}

fn open(dir: &Path) -> Arc<Store> {
    let segment = SegmentOptions { segment_bytes: 1 << 18, ..SegmentOptions::default() };
    Store::open(StoreOptions { segment, ..StoreOptions::new(dir) }).unwrap()
}

fn state(store: &Store, tenant: TenantId) -> Result<Vec<u8>, String> {
    let shard = store.own_shard(tenant).map_err(|error| error.to_string())?;
    let mut context = digest::Context::new(&digest::SHA256);
    for prefix in [Prefix::kind(&form(0)), Prefix::kind(&Key::Audit { seq: 0 })] {
        for (key, value) in shard.scan(&Scan::all(prefix)).map_err(|error| error.to_string())? {
            let key = key.encode();
            for part in [&key[..], &value[..]] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
    }
    Ok(context.finish().as_ref().to_vec())
}

fn states(store: &Store) -> Result<States, String> {
    (0..TENANTS).map(|number| Ok((tenant(number), state(store, tenant(number))?))).collect()
}

/// Opens the store and reads everything. sled panics over some damaged files; that is noticing, too.
fn look(dir: &Path) -> Result<States, String> {
    let read = || {
        let store = open(dir);
        states(&store)
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// Changes, adds and removes some rows of everybody.
fn live(store: &Arc<Store>, dice: &mut Dice, rows: u64) {
    for number in 0..TENANTS {
        let mut shard = store.own_shard(tenant(number)).unwrap();
        for _ in 0..rows {
            let (n, length) = (dice.below(256) as u8, dice.below(3_000) as usize);
            let (seq, is_gone) = (dice.below(1_000), dice.below(4) == 0);
            write(&mut shard, |txn| {
                txn.put(&Key::Audit { seq }, vec![n; 40]).unwrap();
                match is_gone {
                    true => txn.delete(&form(n)).unwrap(),
                    false => txn.put(&form(n), vec![n; length]).unwrap(),
                }
            });
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

/// Damages the view of a store that nobody uses; says how.
fn damage(view: &Path, old: &Path, dice: &mut Dice) -> String {
    let files = files(view);
    let file = &files[dice.below(files.len() as u64) as usize];
    let mut bytes = fs::read(file).unwrap();
    let length = bytes.len().max(1) as u64;
    let at = dice.below(length) as usize;
    let what = match dice.below(6) {
        0 => {
            fs::remove_dir_all(view).unwrap();
            return "deleted".to_owned();
        }
        1 => {
            fs::remove_dir_all(view).unwrap();
            copy(old, view);
            return "set back to an old copy".to_owned();
        }
        2 => {
            fs::remove_file(file).unwrap();
            return format!("{} deleted", file.display());
        }
        3 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        4 => {
            let end = bytes.len().min(at + 4_096);
            bytes[at.min(end)..end].fill(0);
            format!("zeros from {at} to {end}")
        }
        _ => {
            let changes = 1 + dice.below(64);
            for _ in 0..changes.min(bytes.len() as u64) {
                bytes[dice.below(length) as usize] ^= 1 + dice.below(255) as u8;
            }
            format!("{changes} bytes changed")
        }
    };
    fs::write(file, bytes).unwrap();
    format!("{}: {what}", file.display())
}

#[test]
fn a_view_damaged_at_random_a_hundred_times_never_serves_another_state() {
    let mut dice = Dice::thrown();
    let home = tempfile::tempdir().unwrap();
    let (dir, old) = (home.path().join("data"), home.path().join("old"));
    let (view, mut noticed) = (dir.join("view"), 0);
    let store = open(&dir);
    for number in 0..TENANTS {
        store.create_tenant(tenant(number)).unwrap();
    }
    live(&store, &mut dice, ROWS);
    store.close().unwrap();
    drop(store);
    copy(&view, &old);
    for round in 0..ROUNDS {
        let store = open(&dir);
        live(&store, &mut dice, 1);
        let before = states(&store).unwrap();
        if dice.below(3) > 0 {
            store.close().unwrap();
        }
        drop(store);
        let what = damage(&view, &old, &mut dice);
        match look(&dir) {
            Ok(after) => assert_eq!(after, before, "round {round}: {what}: another state"),
            Err(_) => {
                noticed += 1;
                fs::remove_dir_all(&view).unwrap();
                assert_eq!(look(&dir).unwrap(), before, "round {round}: {what}: made again");
            }
        }
    }
    println!("view loss: {ROUNDS} rounds, {noticed} noticed while reading, 0 wrong states");
}
