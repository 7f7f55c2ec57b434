//! Reading and writing through a shard, beside the floor: a map in memory.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use storage::id::{FormId, Id, SubmissionId, TenantId};
use storage::keys::Key;
use storage::store::{Store, StoreOptions};

fn row(n: u64) -> Key {
    Key::Submission { form: FormId::new(1, [1; 10]), id: SubmissionId::new(n, [2; 10]) }
}

fn txn(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(StoreOptions::new(dir.path().join("data"))).expect("a store");
    let tenant = TenantId::new(1, [9; 10]);
    store.create_tenant(tenant).expect("keys");
    let mut shard = store.own_shard(tenant).expect("a shard");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let value = vec![b'x'; 1_000];
    let mut txn = shard.txn();
    for n in 0..1_000 {
        txn.put(&row(n), value.clone()).expect("a put");
    }
    let sealed = shard.seal(txn.finish(), 1).expect("a record");
    runtime.block_on(shard.append(&sealed));
    shard.confirm(sealed);
    while shard.applied_lsn() < shard.tail().lsn {
        std::hint::spin_loop();
    }
    shard.prune();

    let mut group = criterion.benchmark_group("shard");
    let model: BTreeMap<_, _> = (0..1_000).map(|n| (row(n).encode(), value.clone())).collect();
    let mut n = 0;
    group.bench_function("floor_map_get", |bench| {
        bench.iter(|| {
            n = (n + 7) % 1_000;
            model.get(&row(n).encode()).cloned()
        });
    });
    group.bench_function("get_sealed", |bench| {
        bench.iter(|| {
            n = (n + 7) % 1_000;
            shard.get(&row(n)).expect("a read")
        });
    });
    group.bench_function("floor_map_put_10", |bench| {
        bench.iter(|| {
            let mut map = BTreeMap::new();
            for n in 2_000..2_010 {
                map.insert(row(n).encode(), value.clone());
            }
            black_box(map)
        });
    });
    group.bench_function("txn_put_10_and_seal", |bench| {
        bench.iter(|| {
            let mut txn = shard.txn();
            for n in 2_000..2_010 {
                txn.put(&row(n), value.clone()).expect("a put");
            }
            black_box(shard.seal(txn.finish(), 1).expect("a record"))
        });
    });
    group.finish();
}

criterion_group!(benches, txn);
criterion_main!(benches);
