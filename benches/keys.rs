//! The key codec, beside the floor: copying bytes of the same length.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use storage::id::{FormId, Id, SubmissionId};
use storage::keys::Key;

fn codec(criterion: &mut Criterion) {
    let key = Key::Submission { form: FormId::new(1, [1; 10]), id: SubmissionId::new(2, [2; 10]) };
    let bytes = key.encode();
    let mut group = criterion.benchmark_group("keys");
    group.bench_function("floor_copy", |bench| bench.iter(|| black_box(&bytes).to_vec()));
    group.bench_function("encode", |bench| bench.iter(|| black_box(&key).encode()));
    group.bench_function("decode", |bench| bench.iter(|| Key::decode(black_box(&bytes))));
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
