//! A merge is what applying the records to a map is.

use std::collections::BTreeMap;

use proptest::prelude::{ProptestConfig, Strategy, any, proptest};
use storage::log::Tail;
use storage::record::Record;
use storage::seal::TenantKeys;
use storage::snapshot::{
    Delta, Merged, NO_STAMP, Row, RowSource, SnapshotError, SnapshotHeader, SnapshotReader,
    Summary, merge,
};
use storage::store::{ChainFault, Fault};

use crate::kit::{ADA, bob, header, keys, read, record, row, rows_of_chunks, state_of, tail_of};

type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;
type Source = std::vec::IntoIter<Row>;

fn quiet() -> impl FnMut(u64) {
    |_| ()
}

/// Few keys, so that they meet; some values fill a chunk.
fn changes() -> impl Strategy<Value = Changes> {
    let key = proptest::collection::vec(0..3_u8, 0..3);
    let value = proptest::option::weighted(
        0.6,
        (any::<u8>(), proptest::sample::select(vec![0, 1, 40, 150_000]))
            .prop_map(|(byte, bytes)| vec![byte; bytes]),
    );
    proptest::collection::btree_map(key, value, 0..6).prop_map(|map| map.into_iter().collect())
}

/// How the rows of the snapshot before are read.
#[derive(Debug, Clone, Copy)]
enum Base {
    File,
    Memory,
    /// The snapshot before is a step that is not kept.
    Step,
}

/// One snapshot: the records it adds, with their stamps, and what it is made from.
fn round() -> impl Strategy<Value = (Vec<(u64, Changes)>, Base)> {
    let base = proptest::sample::select(vec![Base::File, Base::Memory, Base::Step]);
    (proptest::collection::vec((0..100_u64, changes()), 0..5), base)
}

fn rows_of(model: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<Row> {
    model.iter().map(|(key, value)| row(key, value)).collect()
}

fn check_rounds(rounds: Vec<(Vec<(u64, Changes)>, Base)>) {
    let keys = keys(ADA);
    let mut model = BTreeMap::new();
    let mut tail = Tail::EMPTY;
    let mut at_max_ms = 0;
    let mut last: Option<(Summary, Vec<u8>)> = None;
    for (records, base) in rounds {
        let below = last.as_ref().map(|(summary, _)| summary.header);
        let is_step = matches!(base, Base::Step);
        let (since_lsn, mut at_min_ms, mut delta) = match &below {
            Some(below) if is_step => (below.since_lsn, below.at_min_ms, Delta::from_step(below)),
            below => (tail.lsn, NO_STAMP, Delta::from_base(below.as_ref())),
        };
        for (at_ms, changes) in records {
            let record = record(&keys, tail, at_ms, &changes);
            delta.absorb(&record, &keys).unwrap();
            tail = tail_of(&record);
            (at_min_ms, at_max_ms) = (at_min_ms.min(at_ms), at_max_ms.max(at_ms));
            for (key, value) in changes {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
        }
        assert_eq!(delta.tail(), tail);
        let file = last.take().map(|(_, file)| file);
        let source = file.as_ref().map(|file| match base {
            Base::File | Base::Step => {
                Box::new(SnapshotReader::open(&file[..], &keys).unwrap()) as Box<dyn RowSource>
            }
            Base::Memory => Box::new(read(&file[..], &keys).0.into_iter()),
        });
        let (summary, out) = merge(source, delta, &keys, Vec::new(), &mut quiet()).unwrap();
        let (rows, ended) = read(&out[..], &keys);
        assert!(rows == rows_of(&model), "the merge gave other rows than the map");
        assert_eq!(ended.unwrap(), summary);
        assert_eq!(summary.state, state_of(&rows));
        let Tail { lsn, epoch, hash: head } = tail;
        let expected =
            SnapshotHeader { tenant: ADA, lsn, epoch, head, since_lsn, at_min_ms, at_max_ms };
        assert_eq!(summary.header, expected);
        last = Some((summary, out));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_merge_is_what_applying_the_records_to_a_map_is(
        rounds in proptest::collection::vec(round(), 1..6),
    ) {
        check_rounds(rounds);
    }
}

/// A history of three records and the snapshot of its first.
struct World {
    keys: TenantKeys,
    records: Vec<Record>,
    first: Summary,
    file: Vec<u8>,
}

fn world() -> World {
    let keys = keys(ADA);
    let mut tail = Tail::EMPTY;
    let mut records = Vec::new();
    for n in 0..3_u8 {
        let changes = vec![(vec![n], Some(vec![n; 10])), (vec![9], Some(vec![n]))];
        let record = record(&keys, tail, 1_000 + u64::from(n), &changes);
        tail = tail_of(&record);
        records.push(record);
    }
    let mut delta = Delta::from_base(None);
    delta.absorb(&records[0], &keys).unwrap();
    let (first, file) = merge(None::<Source>, delta, &keys, Vec::new(), &mut quiet()).unwrap();
    World { keys, records, first, file }
}

#[test]
fn a_merge_with_no_changes_keeps_the_state_and_the_tail() {
    let World { keys, first, file, .. } = world();
    let delta = Delta::from_base(Some(&first.header));
    assert!(delta.is_empty());
    let base = SnapshotReader::open(&file[..], &keys).unwrap();
    let (next, _) = merge(Some(base), delta, &keys, Vec::new(), &mut quiet()).unwrap();
    assert_eq!((next.state, next.rows), (first.state, first.rows));
    assert_eq!(next.header.tail(), first.header.tail());
    assert_eq!((next.header.since_lsn, next.header.at_min_ms), (1, NO_STAMP));
    assert_eq!(next.header.at_max_ms, first.header.at_max_ms);
}

#[test]
fn a_snapshot_of_no_history_is_empty() {
    let keys = keys(ADA);
    let delta = Delta::from_base(None);
    let (summary, file) = merge(None::<Source>, delta, &keys, Vec::new(), &mut quiet()).unwrap();
    assert_eq!(summary.header.tail(), Tail::EMPTY);
    assert_eq!(read(&file[..], &keys).1.unwrap().rows, 0);
}

#[test]
fn a_record_that_does_not_follow_is_refused_and_changes_nothing() {
    let World { keys, records, first, .. } = world();
    let mut delta = Delta::from_base(Some(&first.header));
    let chain = |refused: Result<(), SnapshotError>| match refused {
        Err(SnapshotError::Chain(ChainFault { lsn, what })) => (lsn, what),
        other => panic!("{other:?} is no fault of the chain"),
    };
    let refused = chain(delta.absorb(&records[2], &keys));
    assert!(matches!(refused, (2, Fault::WrongLsn { found: 3 })));
    let refused = chain(delta.absorb(&records[0], &keys));
    assert!(matches!(refused, (2, Fault::WrongLsn { found: 1 })));
    let elsewhere = record(&keys, Tail { lsn: 1, epoch: 1, hash: [5; 32] }, 1, &[]);
    assert!(matches!(chain(delta.absorb(&elsewhere, &keys)), (2, Fault::WrongPrev)));
    let mut changed = records[1].clone();
    changed.body[20] ^= 1;
    assert!(matches!(chain(delta.absorb(&changed, &keys)), (2, Fault::WrongHash)));
    let theirs = record(&crate::kit::keys(bob()), first.header.tail(), 1, &[]);
    assert!(matches!(chain(delta.absorb(&theirs, &keys)), (2, Fault::ForeignTenant)));
    let of_another_key = record(&crate::kit::keys(ADA), first.header.tail(), 1, &[]);
    let refused = delta.absorb(&of_another_key, &keys);
    assert!(matches!(refused, Err(SnapshotError::Record { lsn: 2, .. })));
    let refused = delta.absorb(&theirs, &crate::kit::keys(bob()));
    assert!(matches!(refused, Err(SnapshotError::WrongTenant { tenant }) if tenant == ADA));
    assert!(delta.is_empty() && delta.bytes() == 0);
    assert_eq!(delta.header(ADA).at_max_ms, first.header.at_max_ms);
    delta.absorb(&records[1], &keys).unwrap();
    delta.absorb(&records[2], &keys).unwrap();
    assert_eq!(delta.tail(), tail_of(&records[2]));
}

#[test]
fn changes_meet_only_the_snapshot_they_were_collected_on() {
    let World { keys, records, first, file } = world();
    let delta = |base: Option<&SnapshotHeader>| {
        let mut delta = Delta::from_base(base);
        let next = if base.is_some() { &records[1] } else { &records[0] };
        delta.absorb(next, &keys).unwrap();
        delta
    };
    let reader = || SnapshotReader::open(&file[..], &keys).unwrap();
    let base = reader();
    let (second, second_file) =
        merge(Some(base), delta(Some(&first.header)), &keys, Vec::new(), &mut quiet()).unwrap();
    assert_eq!(second.header.lsn, 2);
    let later = SnapshotReader::open(&second_file[..], &keys).unwrap();
    let wrong = [
        Merged::new(Some(later), delta(Some(&first.header))).err(),
        Merged::new(Some(reader()), delta(None)).err(),
        Merged::new(None::<Source>, delta(Some(&first.header))).err(),
        Merged::new(Some(Vec::<Row>::new().into_iter()), delta(None)).err(),
    ];
    for refused in wrong {
        assert!(matches!(refused, Some(SnapshotError::WrongBase)), "{refused:?}");
    }
    let theirs = crate::kit::keys(bob());
    let refused = merge(None::<Source>, delta(None), &theirs, Vec::new(), &mut quiet()).map(|_| ());
    assert!(matches!(refused, Err(SnapshotError::WrongTenant { tenant }) if tenant == ADA));
}

#[test]
fn a_damaged_base_gives_no_snapshot() {
    let keys = keys(ADA);
    let header = header(ADA, 3);
    let (_, file) = crate::kit::write(&keys, header, &rows_of_chunks(2));
    for at in 104..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 4;
        let base = SnapshotReader::open(&flipped[..], &keys).unwrap();
        let delta = Delta::from_base(Some(&header));
        assert!(merge(Some(base), delta, &keys, Vec::new(), &mut quiet()).is_err(), "byte {at}");
    }
    let unordered = vec![row("b", ""), row("a", "")].into_iter();
    let delta = Delta::from_base(Some(&header));
    let refused = merge(Some(unordered), delta, &keys, Vec::new(), &mut quiet()).map(|_| ());
    assert!(matches!(refused, Err(SnapshotError::KeysOutOfOrder)));
}

#[test]
fn progress_rises_and_ends_with_all_rows() {
    let keys = keys(ADA);
    let rows: Vec<_> = (0..2_500_u16).map(|n| row(n.to_be_bytes(), "v")).collect();
    let delta = Delta::from_base(Some(&header(ADA, 3)));
    let mut told = Vec::new();
    let base = Some(rows.into_iter());
    merge(base, delta, &keys, Vec::new(), &mut |rows| told.push(rows)).unwrap();
    assert!(told.len() > 1 && told.is_sorted());
    assert_eq!(told.last(), Some(&2_500));
}

#[test]
fn a_delta_counts_what_it_holds_and_not_what_it_held() {
    let keys = keys(ADA);
    let mut delta = Delta::from_base(None);
    let mut absorb = |value: Option<Vec<u8>>| {
        let record = record(&keys, delta.tail(), 1, &[(b"key".to_vec(), value)]);
        delta.absorb(&record, &keys).unwrap();
        (delta.len(), delta.bytes())
    };
    let (_, small) = absorb(Some(vec![0; 10]));
    assert_eq!(absorb(Some(vec![0; 1_010])), (1, small + 1_000));
    assert_eq!(absorb(None), (1, small - 10));
    assert_eq!(absorb(Some(vec![0; 10])), (1, small));
}
