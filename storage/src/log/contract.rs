//! The contract of a [`CommitLog`], as a program: every backend must pass it.
//!
//! [`check`] needs nothing but fresh logs, [`check_reopen`] also a way to open the same log again.
//! Both panic with the broken sentence. Faults and damage are each backend's own tests: this module
//! knows no disk.

use std::sync::Arc;

use crate::id::Id as _;
use crate::id::TenantId;
use crate::log::Appended;
use crate::log::Appending;
use crate::log::CommitLog;
use crate::log::Health;
use crate::log::LogError;
use crate::log::Tail;
use crate::record::GENESIS;
use crate::record::Hash;
use crate::record::Record;

const WRITER: u64 = 7;
const CONCURRENT_TENANTS: u8 = 16;
const CONCURRENT_RECORDS: u64 = 25;

/// Waits for an append on this thread.
///
/// # Panics
/// If no runtime can be made.
pub fn wait(appending: Appending) -> Appended {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without drivers needs nothing").block_on(appending)
}

/// Writes one tenant's chain.
pub struct Chain {
    /// Whose.
    pub tenant: TenantId,
    /// What the next record follows.
    pub tail: Tail,
}

impl Chain {
    /// An empty chain of a tenant whose id is sixteen times `tenant`.
    pub fn new(tenant: u8) -> Self {
        Self { tenant: TenantId::from_bytes([tenant; 16]), tail: Tail::EMPTY }
    }

    /// The next record of this chain, which then is its end.
    pub fn next(&mut self, body: &[u8]) -> Record {
        let Tail { lsn, epoch, hash } = self.tail;
        let record = Record::new(self.tenant, lsn + 1, epoch.max(1), WRITER, hash, body.to_vec());
        let header = &record.header;
        self.tail = Tail { lsn: header.lsn, epoch: header.epoch, hash: header.hash };
        record
    }

    /// Appends the next record and waits.
    pub fn append(&mut self, log: &dyn CommitLog, body: &[u8]) -> Appended {
        wait(log.append(self.next(body)))
    }
}

/// A body that says whose and which record it is.
pub fn body(tenant: TenantId, lsn: u64) -> Vec<u8> {
    format!("{tenant} {lsn} {}", "x".repeat(usize::try_from(lsn % 40).unwrap_or(0))).into_bytes()
}

/// Reads a whole history in small pieces and checks every link of it.
///
/// # Panics
/// If a record is missing, damaged, out of order or does not follow the one before.
pub fn read_all(log: &dyn CommitLog, tenant: TenantId, from: u64) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let next = all.last().map_or(from, |record| record.header.lsn + 1);
        let piece = log.read_from(tenant, next, 300).expect("a healthy history can be read");
        if piece.is_empty() {
            return all;
        }
        for record in piece {
            let prev = all.last().map(|before| before.header.hash);
            let lsn = all.last().map_or(from, |before| before.header.lsn + 1);
            assert!(record.is_intact(), "a record was read that is not what its hash says");
            assert_eq!(record.header.tenant, tenant, "a record of another tenant was read");
            assert_eq!(record.header.lsn, lsn, "LSNs have a gap");
            assert!(prev.is_none_or(|prev| prev == record.header.prev), "the chain is broken");
            all.push(record);
        }
    }
}

/// The contract on fresh logs.
///
/// # Panics
/// If it is broken.
pub fn check(make: impl Fn() -> Arc<dyn CommitLog>) {
    histories_are_gapless_and_read_back(&*make());
    a_wrong_record_is_fenced_and_changes_nothing(&*make());
    records_in_flight_together_are_ordered(&*make());
    reading_keeps_its_bounds(&*make());
    what_is_let_go_still_fences(&*make());
    many_tenants_at_once_do_not_mix(&*make());
    a_closed_log_takes_nothing(&*make());
}

/// The contract on one log that `open` opens again and again; the log before is closed and dropped.
///
/// # Panics
/// If it is broken.
pub fn check_reopen(open: impl Fn() -> Arc<dyn CommitLog>) {
    let mut chains = [Chain::new(1), Chain::new(2), Chain::new(3)];
    for round in 1..=5 {
        let log = open();
        assert_eq!(log.health(), Health::Writable, "an opened log takes records");
        assert!(log.repairs().is_empty(), "a closed log needs no repair: {:?}", log.repairs());
        for chain in &mut chains {
            let tail = log.tail(chain.tenant).expect("a tail can be read");
            assert_eq!(tail, chain.tail, "the tail outlives the log's closing");
            assert_eq!(
                read_all(&*log, chain.tenant, 1).len() as u64,
                tail.lsn,
                "so do the records"
            );
            for _ in 0..round * 3 {
                let body = body(chain.tenant, chain.tail.lsn + 1);
                assert_eq!(chain.append(&*log, &body), Appended::Durable);
            }
        }
        let stale = Record::new(chains[0].tenant, 1, 1, WRITER, GENESIS, vec![]);
        let tail = chains[0].tail;
        assert_eq!(wait(log.append(stale)), Appended::Fenced { tail }, "fences outlive closing");
        log.close();
    }
    let tenants: Vec<_> = chains.iter().map(|chain| chain.tenant).collect();
    assert_eq!(open().tenants(), tenants, "every tenant is known again, in id order");
}

fn histories_are_gapless_and_read_back(log: &dyn CommitLog) {
    assert_eq!(log.health(), Health::Writable);
    let (mut ann, mut bob) = (Chain::new(1), Chain::new(2));
    assert_eq!(log.tail(ann.tenant).expect("a tail"), Tail::EMPTY, "a new tenant has no history");
    assert!(log.tenants().is_empty(), "a new log knows nobody");
    for lsn in 1..=30 {
        assert_eq!(ann.append(log, &body(ann.tenant, lsn)), Appended::Durable);
        assert_eq!(log.tail(ann.tenant).expect("a tail"), ann.tail, "durable moves the tail");
        if lsn % 3 == 0 {
            assert_eq!(bob.append(log, &body(bob.tenant, lsn / 3)), Appended::Durable);
        }
    }
    for (chain, wanted) in [(&ann, 30), (&bob, 10)] {
        let records = read_all(log, chain.tenant, 1);
        assert_eq!(records.len(), wanted);
        let is_own = |record: &Record| record.body == body(chain.tenant, record.header.lsn);
        assert!(records.iter().all(is_own), "bodies come back as they were");
        assert_eq!(records.last().map(|record| record.header.hash), Some(chain.tail.hash));
    }
    assert_eq!(log.tenants(), [ann.tenant, bob.tenant]);
    assert_eq!(log.stats().records, 40);
}

fn a_wrong_record_is_fenced_and_changes_nothing(log: &dyn CommitLog) {
    let mut chain = Chain::new(1);
    let tenant = chain.tenant;
    assert_eq!(chain.append(log, b"one"), Appended::Durable);
    let taken_over = Record::new(tenant, 2, 5, WRITER, chain.tail.hash, b"two".to_vec());
    chain.tail = Tail { lsn: 2, epoch: 5, hash: taken_over.header.hash };
    assert_eq!(wait(log.append(taken_over)), Appended::Durable, "a newer epoch takes over");
    let tail = chain.tail;
    let wrong: [(&str, u64, u64, Hash); 6] = [
        ("an LSN that is taken", 2, 5, tail.hash),
        ("an LSN after a gap", 4, 5, tail.hash),
        ("LSN 0", 0, 5, tail.hash),
        ("the largest LSN", u64::MAX, 5, tail.hash),
        ("an older epoch", 3, 4, tail.hash),
        ("another history", 3, 5, [9; 32]),
    ];
    for (what, lsn, epoch, prev) in wrong {
        let record = Record::new(tenant, lsn, epoch, WRITER, prev, vec![]);
        assert_eq!(wait(log.append(record)), Appended::Fenced { tail }, "{what} is fenced");
        assert_eq!(log.tail(tenant).expect("a tail"), tail, "{what} changes nothing");
    }
    let unborn = TenantId::from_bytes([2; 16]);
    let record = Record::new(unborn, 2, 1, WRITER, [9; 32], vec![]);
    assert_eq!(wait(log.append(record)), Appended::Fenced { tail: Tail::EMPTY });
    assert_eq!(log.tenants(), [tenant], "a refused record makes no tenant");
    assert_eq!(chain.append(log, b"three"), Appended::Durable, "the history goes on");
    assert_eq!(read_all(log, tenant, 1).len(), 3);
}

fn records_in_flight_together_are_ordered(log: &dyn CommitLog) {
    let mut chain = Chain::new(1);
    let mut rival = Chain::new(1);
    let records: Vec<_> = (1..=50).map(|lsn| chain.next(&body(chain.tenant, lsn))).collect();
    let rivals: Vec<_> = (1..=50).map(|_| rival.next(b"rival")).collect();
    let appending: Vec<_> =
        records.into_iter().zip(rivals).flat_map(|(a, b)| [log.append(a), log.append(b)]).collect();
    for (at, appending) in appending.into_iter().enumerate() {
        match (at % 2, wait(appending)) {
            (0, appended) => assert_eq!(appended, Appended::Durable, "the first one wins"),
            (_, appended) => assert!(
                matches!(appended, Appended::Fenced { tail } if tail.lsn > 0),
                "the second one is fenced, not {appended:?}"
            ),
        }
    }
    assert_eq!(log.tail(chain.tenant).expect("a tail"), chain.tail);
    assert_eq!(read_all(log, chain.tenant, 1).len(), 50);
}

fn reading_keeps_its_bounds(log: &dyn CommitLog) {
    let mut chain = Chain::new(1);
    let tenant = chain.tenant;
    for _ in 0..10 {
        assert_eq!(chain.append(log, &[1; 100]), Appended::Durable);
    }
    let lsns = |from, bytes_max| -> Vec<u64> {
        let records = log.read_from(tenant, from, bytes_max).expect("a healthy history");
        records.iter().map(|record| record.header.lsn).collect()
    };
    assert_eq!(lsns(1, usize::MAX), (1..=10).collect::<Vec<_>>());
    assert_eq!(lsns(0, usize::MAX), (1..=10).collect::<Vec<_>>(), "0 means the beginning");
    assert_eq!(lsns(4, 0), [4], "at least one record comes");
    assert!(lsns(1, 500).len() < 10, "the bound is kept");
    assert_eq!(lsns(10, usize::MAX), [10]);
    assert_eq!(lsns(11, usize::MAX), [0; 0], "after the end there is nothing");
    assert_eq!(lsns(u64::MAX, usize::MAX), [0; 0]);
    let stranger = TenantId::from_bytes([200; 16]);
    assert!(log.read_from(stranger, 1, 100).expect("an empty history").is_empty());
}

fn what_is_let_go_still_fences(log: &dyn CommitLog) {
    let (mut ann, mut bob) = (Chain::new(1), Chain::new(2));
    let mut middle = Tail::EMPTY;
    for lsn in 1..=40 {
        assert_eq!(ann.append(log, &[1; 100]), Appended::Durable);
        assert_eq!(bob.append(log, &[2; 100]), Appended::Durable);
        if lsn == 20 {
            middle = ann.tail;
        }
    }
    log.let_go(&[(ann.tenant, middle)]).expect("to let go");
    assert_eq!(read_all(log, ann.tenant, 21).len(), 20, "what is needed stays");
    assert_eq!(read_all(log, bob.tenant, 1).len(), 40, "other tenants keep everything");
    log.let_go(&[(ann.tenant, ann.tail), (bob.tenant, bob.tail)]).expect("to let go");
    log.let_go(&[(ann.tenant, middle)]).expect("less than before is fine");
    for chain in [&mut ann, &mut bob] {
        assert_eq!(log.tail(chain.tenant).expect("a tail"), chain.tail, "the tail always stays");
        match log.read_from(chain.tenant, 1, 100) {
            Err(LogError::Truncated { first: 41, .. }) => {}
            other => panic!("a history that was let go says so, not {other:?}"),
        }
        assert_eq!(chain.append(log, b"on"), Appended::Durable, "the history goes on");
        assert_eq!(read_all(log, chain.tenant, 41).len(), 1);
    }
    let beyond = Tail { lsn: 50, ..ann.tail };
    let error = log.let_go(&[(ann.tenant, beyond)]).expect_err("a history that is there");
    assert!(matches!(error, LogError::Founded { lsn: 41, .. }), "{error}");
    let mut founded = Chain::new(200);
    founded.tail = Tail { lsn: 7, epoch: 3, hash: [9; 32] };
    log.let_go(&[(founded.tenant, founded.tail)]).expect("a history founded at its seventh record");
    assert_eq!(log.tail(founded.tenant).expect("a tail"), founded.tail);
    assert!(log.tenants().contains(&founded.tenant));
    assert!(read_all(log, founded.tenant, 8).is_empty());
    assert_eq!(founded.append(log, b"eighth"), Appended::Durable);
    assert_eq!(read_all(log, founded.tenant, 8).len(), 1);
}

fn many_tenants_at_once_do_not_mix(log: &dyn CommitLog) {
    std::thread::scope(|scope| {
        for tenant in 1..=CONCURRENT_TENANTS {
            scope.spawn(move || {
                let mut chain = Chain::new(tenant);
                for lsn in 1..=CONCURRENT_RECORDS {
                    let appended = chain.append(log, &body(chain.tenant, lsn));
                    assert_eq!(appended, Appended::Durable, "nobody is in the other's way");
                    assert_eq!(log.tail(chain.tenant).expect("a tail"), chain.tail);
                }
            });
        }
    });
    for tenant in log.tenants() {
        let records = read_all(log, tenant, 1);
        assert_eq!(records.len() as u64, CONCURRENT_RECORDS);
        assert!(records.iter().all(|record| record.body == body(tenant, record.header.lsn)));
    }
    assert_eq!(log.tenants().len(), usize::from(CONCURRENT_TENANTS));
}

fn a_closed_log_takes_nothing(log: &dyn CommitLog) {
    let mut chain = Chain::new(1);
    let in_flight: Vec<_> = (0..20).map(|_| log.append(chain.next(b"before"))).collect();
    log.close();
    for appending in in_flight {
        assert_eq!(wait(appending), Appended::Durable, "what was pending is written");
    }
    assert_eq!(wait(log.append(chain.next(b"after"))), Appended::Poisoned);
    assert_ne!(log.health(), Health::Writable);
    assert_eq!(read_all(log, chain.tenant, 1).len(), 20, "reading goes on");
    log.close();
}
