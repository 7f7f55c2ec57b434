//! Appending to the log, beside the floor: the same bytes with one write and one `fdatasync`.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use storage::disk::RealDisk;
use storage::id::{Id, TenantId};
use storage::log::segment::{SegmentLog, SegmentOptions};
use storage::log::{Appended, CommitLog, Tail};
use storage::record::Record;

const BODY_BYTES: usize = 1_400;

fn append(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("log");
    for tenants in [1_u64, 64] {
        group.throughput(Throughput::Elements(tenants));
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = File::create(dir.path().join("floor")).expect("a file");
        let bytes = vec![7; BODY_BYTES * usize::try_from(tenants).expect("a small number")];
        group.bench_function(format!("floor_write_fdatasync/{tenants}"), |bench| {
            bench.iter(|| {
                file.write_all(&bytes).expect("a write");
                file.sync_data().expect("a sync");
            });
        });
        let log_dir = dir.path().join("log");
        std::fs::create_dir(&log_dir).expect("a directory");
        let log = SegmentLog::open(Arc::new(RealDisk), &log_dir, SegmentOptions::default())
            .expect("a log");
        let mut tails: Vec<_> =
            (1..=tenants).map(|n| (TenantId::new(n, [1; 10]), Tail::EMPTY)).collect();
        group.bench_function(format!("append_group/{tenants}"), |bench| {
            bench.iter(|| {
                let appending: Vec<_> = tails
                    .iter_mut()
                    .map(|(tenant, tail)| {
                        let body = vec![7; BODY_BYTES];
                        let record = Record::new(*tenant, tail.lsn + 1, 1, 1, tail.hash, body);
                        *tail = Tail { lsn: record.header.lsn, epoch: 1, hash: record.header.hash };
                        log.append(record)
                    })
                    .collect();
                for one in appending {
                    assert_eq!(runtime.block_on(one), Appended::Durable);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
