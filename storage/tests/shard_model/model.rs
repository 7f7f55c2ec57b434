//! A shard behaves like a map: through savepoints, scans, sleeping, restarts and a lost view.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use storage::id::{FormId, Id, SubmissionId};
use storage::keys::{Key, Prefix};
use storage::log::CommitLog;
use storage::log::memory::MemoryLog;
use storage::shard::Shard;
use storage::store::{Store, StoreOptions, verify_chain};
use storage::txn::{Scan, Txn};
use storage::view::{MemoryView, View};

use crate::kit::{ADA, Meddler, commit, form, keystore};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Write {
    Put(Key, Vec<u8>),
    Delete(Key),
    /// Writes of an inner savepoint, and whether they are taken back.
    Nested(Vec<(Key, Option<Vec<u8>>)>, bool),
}

/// The writes of one command, and whether it is refused in the end.
type Command = (Vec<Write>, bool);

#[derive(Debug, Clone)]
enum Step {
    Batch(Vec<Command>),
    Sleep,
    Restart { lose_view: bool },
}

/// Few keys, so that they meet: counted and uncounted, two owners.
fn key() -> impl Strategy<Value = Key> {
    let submission = |(owner, n): (u8, u8)| Key::Submission {
        form: FormId::from_bytes([owner; 16]),
        id: SubmissionId::from_bytes([n; 16]),
    };
    prop_oneof![
        Just(Key::State {}),
        (0..3u64).prop_map(|seq| Key::Audit { seq }),
        prop_oneof![0..4u8, Just(0xff)].prop_map(form),
        (0..2u8, 0..4u8).prop_map(submission),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        any::<u8>().prop_map(|byte| vec![byte; 20_000]),
    ]
}

fn plain_write() -> impl Strategy<Value = (Key, Option<Vec<u8>>)> {
    (key(), proptest::option::weighted(0.7, value()))
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Write::Put(key, value)),
        2 => key().prop_map(Write::Delete),
        1 => (proptest::collection::vec(plain_write(), 1..4), any::<bool>())
            .prop_map(|(writes, undone)| Write::Nested(writes, undone)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let command = (proptest::collection::vec(write(), 1..5), proptest::bool::weighted(0.3));
    prop_oneof![
        6 => proptest::collection::vec(command, 1..4).prop_map(Step::Batch),
        1 => Just(Step::Sleep),
        1 => any::<bool>().prop_map(|lose_view| Step::Restart { lose_view }),
    ]
}

fn write_both(txn: &mut Txn<'_>, model: &mut Model, key: &Key, value: Option<&Vec<u8>>) {
    match value {
        Some(value) => {
            txn.put(key, value.clone()).unwrap();
            model.insert(key.encode(), value.clone());
        }
        None => {
            txn.delete(key).unwrap();
            model.remove(&key.encode());
        }
    }
    let seen = txn.get(key).unwrap();
    assert_eq!(seen.as_deref(), value.map(Vec::as_slice), "a transaction must see its own writes");
}

fn run_command(txn: &mut Txn<'_>, model: &mut Model, (writes, refused): &Command) {
    let (outer, before) = (txn.savepoint(), model.clone());
    for write in writes {
        match write {
            Write::Put(key, value) => write_both(txn, model, key, Some(value)),
            Write::Delete(key) => write_both(txn, model, key, None),
            Write::Nested(writes, undone) => {
                let (inner, before) = (txn.savepoint(), model.clone());
                for (key, value) in writes {
                    write_both(txn, model, key, value.as_ref());
                }
                if *undone {
                    txn.rollback(inner);
                    *model = before;
                }
            }
        }
    }
    if *refused {
        txn.rollback(outer);
        *model = before;
    }
}

fn counted_bytes(model: &Model) -> i64 {
    let counted = model.iter().filter(|(key, _)| Key::is_counted(key[0]));
    counted.map(|(key, value)| (key.len() + value.len()) as i64).sum()
}

/// What a scan must give, by brute force.
fn expected(model: &Model, scan: &Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows: Vec<_> = model.clone().into_iter().collect();
    rows.retain(|(key, _)| key.starts_with(scan.prefix.as_bytes()));
    if scan.reverse {
        rows.reverse();
    }
    if let Some(after) = scan.after.as_ref().map(Key::encode) {
        rows.retain(|(key, _)| if scan.reverse { *key < after } else { *key > after });
    }
    rows.truncate(scan.limit);
    rows
}

/// Compares `read` with the model over every run, both directions, several cursors and limits.
fn check(model: &Model, read: impl Fn(&Scan) -> Vec<(Key, Arc<[u8]>)>) {
    let owner = Key::Submission {
        form: FormId::from_bytes([1; 16]),
        id: SubmissionId::from_bytes([0; 16]),
    };
    let prefixes = [
        Prefix::kind(&Key::State {}),
        Prefix::kind(&Key::Audit { seq: 0 }),
        Prefix::kind(&form(0)),
        Prefix::kind(&owner),
        Prefix::owner(&owner),
    ];
    let afters = [None, Some(Key::Audit { seq: 1 }), Some(form(2)), Some(owner)];
    for prefix in prefixes {
        for after in &afters {
            for (reverse, limit) in [(false, usize::MAX), (true, usize::MAX), (false, 2), (true, 1)]
            {
                let scan = Scan { prefix: prefix.clone(), after: after.clone(), reverse, limit };
                let rows = read(&scan).into_iter();
                let rows: Vec<_> = rows.map(|(k, v)| (k.encode(), v.to_vec())).collect();
                assert_eq!(rows, expected(model, &scan), "{scan:?}");
            }
        }
    }
}

fn run(steps: &[Step], mut open: impl FnMut(bool) -> Arc<Store>) {
    let mut store = open(false);
    store.create_tenant(ADA).unwrap();
    let mut shard = store.own_shard(ADA).unwrap();
    let mut model = Model::new();
    let mut stored_bytes = 0;
    for step in steps {
        match step {
            Step::Batch(commands) => {
                let (changes, next) = batch(&shard, &model, commands);
                stored_bytes += changes.stored_bytes_delta();
                model = next;
                commit(&mut shard, changes);
            }
            Step::Sleep => {
                drop(shard);
                shard = store.own_shard(ADA).unwrap();
            }
            Step::Restart { lose_view } => {
                drop(shard);
                store.close().unwrap();
                drop(store);
                store = open(*lose_view);
                shard = store.own_shard(ADA).unwrap();
            }
        }
        check(&model, |scan| shard.scan(scan).unwrap());
        assert_eq!(stored_bytes, counted_bytes(&model), "stored bytes must be exact");
    }
    let records = shard.tail().lsn;
    let report = verify_chain(&**store.log(), ADA, |_| {}).unwrap();
    assert_eq!((report.records, report.head), (records, shard.tail().hash));
}

fn batch(shard: &Shard, model: &Model, commands: &[Command]) -> (storage::txn::Changes, Model) {
    let mut next = model.clone();
    let mut txn = shard.txn();
    for command in commands {
        run_command(&mut txn, &mut next, command);
        assert_eq!(txn.stored_bytes_delta(), counted_bytes(&next) - counted_bytes(model));
    }
    check(&next, |scan| txn.scan(scan).unwrap());
    check(model, |scan| shard.scan(scan).unwrap()); // nothing shows before it is durable
    (txn.finish(), next)
}

/// One of so many of the usual number of sequences, which whoever runs the tests may set.
#[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration of a node")]
fn sequences(one_of: u32) -> ProptestConfig {
    let all = match std::env::var("BULKHEAD_MODEL_SEQUENCES") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 128,
    };
    ProptestConfig { cases: all / one_of, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(sequences(1))]

    #[test]
    fn a_shard_behaves_like_a_map(steps in proptest::collection::vec(step(), 1..16)) {
        // The meddler passes everything on but the close, after which a log in memory is over.
        let log: Arc<dyn CommitLog> = Meddler::new(MemoryLog::new());
        let keystore = keystore();
        let mut view: Arc<dyn View> = Arc::new(MemoryView::default());
        run(&steps, |lose_view| {
            if lose_view {
                view = Arc::new(MemoryView::default());
            }
            Store::from_parts(Arc::clone(&log), Arc::clone(&view), Arc::clone(&keystore)).unwrap()
        });
    }
}

proptest! {
    #![proptest_config(sequences(16))]

    #[test]
    fn a_shard_on_disk_behaves_like_a_map(steps in proptest::collection::vec(step(), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        run(&steps, |lose_view| {
            if lose_view {
                std::fs::remove_dir_all(dir.path().join("view")).unwrap();
            }
            Store::open(StoreOptions::new(dir.path())).unwrap()
        });
    }
}
