//! Tests of verification: a history made by hand, spoilt in every way, and what is said about it.

use std::path::Path;
use std::sync::Arc;

use serde_bytes::ByteBuf;
use storage::anchor_log::{AnchorLog, Leaf, NewCheckpoint};
use storage::disk::fault::FaultDisk;
use storage::id::{Id, TenantId, UserId};
use storage::keys::Key;
use storage::keystore::KeyStore;
use storage::log::{Appended, Appending, CommitLog, Health, LogError, LogStats, Tail};
use storage::record::{Body, GENESIS, Header, Op, Record};
use storage::seal::{SystemRandom, TenantKeys};
use storage::store::Store;
use storage::value;
use storage::view::MemoryView;

use super::{AuditReport, Walk, verify_anchors, verify_node, verify_tenant};
use crate::audit::anchor::{AnchorHandle, AnchorOptions, leaf_bytes};
use crate::audit::chain;
use crate::audit::entry::{Draft, Entry, Named};
use crate::audit::merkle::{Frontier, leaf_hash};
use crate::audit::note::{NoteSigner, TreeHead};
use crate::backup::digest::Digest;
use crate::call::Origin;
use crate::env::Env;
use crate::erasure::receipt::{ErasureReceipt, FORMAT, HOW, KeptObjects, RemovedObjects};
use crate::tenant::state::{AuditHead, TenantState};

const ENTRIES_PER_RECORD: u64 = 2;

/// A log that holds what it was given, sound or not.
struct FixedLog(Vec<Record>);

impl CommitLog for FixedLog {
    fn append(&self, _: Record) -> Appending {
        Box::pin(std::future::ready(Appended::Poisoned))
    }
    fn tail(&self, tenant: TenantId) -> Result<Tail, LogError> {
        let last = self.0.iter().rfind(|record| record.header.tenant == tenant);
        Ok(last.map_or(Tail::EMPTY, |record| {
            let header = &record.header;
            Tail { lsn: header.lsn, epoch: header.epoch, hash: header.hash }
        }))
    }
    fn read_from(&self, tenant: TenantId, lsn: u64, _: usize) -> Result<Vec<Record>, LogError> {
        let own = self.0.iter().filter(|record| record.header.tenant == tenant);
        Ok(own.skip(usize::try_from(lsn).unwrap() - 1).cloned().collect())
    }
    fn let_go(&self, _: &[(TenantId, Tail)]) -> Result<(), LogError> {
        Ok(())
    }
    fn tenants(&self) -> Vec<TenantId> {
        let mut tenants: Vec<_> = self.0.iter().map(|record| record.header.tenant).collect();
        tenants.dedup();
        tenants
    }
    fn health(&self) -> Health {
        Health::Writable
    }
    fn stats(&self) -> LogStats {
        LogStats::default()
    }
}

/// A node's keys and anchors, and one tenant.
struct World {
    tenant: TenantId,
    keys: TenantKeys,
    keystore: Arc<KeyStore>,
    anchors: Arc<AnchorLog>,
    signer: NoteSigner,
}

impl World {
    fn new() -> Self {
        let tenant = TenantId::new(1, [1; 10]);
        let disk = Arc::new(FaultDisk::new());
        let random = Arc::new(SystemRandom);
        let keystore = KeyStore::open(disk.clone(), Path::new("/keys"), random).unwrap();
        let keys = TenantKeys::new(tenant, &keystore.create(tenant).unwrap());
        let anchors = Arc::new(AnchorLog::open(disk, Path::new("/anchors")).unwrap());
        let signer = NoteSigner::from_seed("test.example/node", &[5; 32]).unwrap();
        Self { tenant, keys, keystore: Arc::new(keystore), anchors, signer }
    }

    fn store(&self, records: Vec<Record>) -> Arc<Store> {
        let (log, view) = (Arc::new(FixedLog(records)), Arc::new(MemoryView::default()));
        Store::from_parts(log, view, self.keystore.clone()).unwrap()
    }

    /// So many records, made as the commit loop makes them, with entries that `edit` may change.
    fn history(&self, count: u64, edit: impl Fn(&mut Entry)) -> Vec<Record> {
        self.history_of((0..count).map(|_| ENTRIES_PER_RECORD), edit)
    }

    /// A record for each number, with so many entries.
    fn history_of(
        &self,
        counts: impl IntoIterator<Item = u64>,
        edit: impl Fn(&mut Entry),
    ) -> Vec<Record> {
        let (mut state, mut prev) = (TenantState::default(), GENESIS);
        let mut records = Vec::new();
        for (lsn, count) in (1..).zip(counts) {
            let mut entries = Vec::new();
            for n in 0..count {
                let draft = Draft::success("form.create", Named::new("form", lsn)).with("n", n);
                let (actor, origin) = (Named::new("user", "us_1"), Origin::default());
                let mut entry = chain::append(&mut state.audit, lsn, actor, &origin, draft);
                edit(&mut entry);
                entries.push(entry);
            }
            let row = |key: Key, value| Op { key: ByteBuf::from(key.encode()), value: Some(value) };
            let ops = match entries.first() {
                Some(Entry { seq, .. }) => vec![
                    row(Key::State {}, ByteBuf::from(value::encode(&state))),
                    row(Key::Audit { seq: *seq }, ByteBuf::from(value::encode(&entries))),
                ],
                // As when a session is renewed: no change that anybody has to account for.
                None => vec![row(Key::User { id: UserId::new(lsn, [3; 10]) }, ByteBuf::new())],
            };
            let body = self.keys.seal_record(lsn, 1, &Body { at_ms: lsn, ops }).unwrap();
            let record = Record::new(self.tenant, lsn, 1, 7, prev, body);
            prev = record.header.hash;
            records.push(record);
        }
        records
    }

    /// Anchors the end of a sound history.
    fn anchor(&self, records: &[Record]) {
        let report = self.verify(records.to_vec());
        assert!(report.ok, "{report:?}");
        let mut audit = GENESIS;
        hex::decode_to_slice(&report.head.hash, &mut audit).unwrap();
        let header = &records.last().unwrap().header;
        self.append_checkpoint(&[Leaf {
            tenant: self.tenant,
            lsn: header.lsn,
            record: header.hash,
            audit_seq: report.head.seq,
            audit,
        }]);
    }

    fn append_checkpoint(&self, leaves: &[Leaf]) {
        let tip = self.anchors.tip();
        let mut frontier = tip.map_or_else(Frontier::default, |tip| {
            Frontier::from_bytes(tip.size, &tip.frontier).unwrap()
        });
        leaves.iter().for_each(|leaf| frontier.push(leaf_hash(&leaf_bytes(leaf))));
        let (size, root) = (frontier.size(), frontier.root());
        let head = TreeHead { origin: "test.example/node".to_owned(), size, root };
        let note = self.signer.sign(&head.to_text()).unwrap();
        let frontier = frontier.to_bytes();
        let new = NewCheckpoint { at_ms: 9, leaves: leaves.to_vec(), size, frontier, note };
        self.anchors.append(new).unwrap();
    }

    fn verify(&self, records: Vec<Record>) -> AuditReport {
        verify_tenant(&self.store(records), &self.anchors, self.tenant)
    }

    /// A walk along what is left of a history, however much of it is gone.
    fn walk(&self, records: &[Record]) -> Walk<'_> {
        let mut walk = Walk::new(None, self.anchors.anchored(self.tenant));
        walk.keys = Some(TenantKeys::new(self.tenant, &self.keystore.load(self.tenant).unwrap()));
        records.iter().for_each(|record| walk.record(record));
        walk
    }

    /// The record and the entry at which a history is found to be bad.
    fn first_bad(&self, records: Vec<Record>) -> Option<(u64, u64)> {
        let report = self.verify(records);
        assert_eq!(report.ok, report.first_bad.is_none());
        report.first_bad.map(|bad| (bad.lsn, bad.seq))
    }
}

fn sound(_: &mut Entry) {}

#[test]
fn an_untouched_history_holds_with_and_without_an_anchor() {
    let world = World::new();
    let records = world.history(5, sound);
    let report = world.verify(records.clone());
    assert_eq!((report.ok, report.records, report.entries, report.head.seq), (true, 5, 10, 10));
    assert_eq!(report.anchored, None);
    world.anchor(&records[..3]);
    let report = world.verify(records);
    assert_eq!(report.anchored.map(|end| (end.lsn, end.seq)), Some((3, 6)));
    assert!(report.ok);
}

#[test]
fn a_history_that_is_kept_from_anywhere_on_holds_also_where_it_begins_with_records_without_entries()
{
    let world = World::new();
    let records = world.history_of([2, 0, 0, 1, 0, 3], sound);
    for from in 0..records.len() {
        let walk = world.walk(&records[from..]);
        assert_eq!(walk.first_bad.map(|bad| bad.what), None, "from record {}", from + 1);
        assert_eq!((walk.records, walk.head.seq), ((records.len() - from) as u64, 6));
    }
    // The anchored end says where the chain stood, if nothing before it does.
    world.anchor(&records[..3]);
    assert_eq!(world.walk(&records[1..3]).head.seq, 2);
    // Where records are gone that a snapshot stands for, the chain goes on later, never earlier.
    let with_a_hole = [&records[..1], &records[4..]].concat();
    assert_eq!(world.walk(&with_a_hole).head.seq, 6);
    let backwards = [&records[4..], &records[..1]].concat();
    let bad = world.walk(&backwards).first_bad.unwrap();
    assert_eq!((bad.lsn, bad.seq), (1, 7));
}

#[test]
fn every_kind_of_tampering_with_records_is_found_at_the_first_bad_one() {
    let world = World::new();
    let records = world.history(5, sound);
    world.anchor(&records);
    for at in 0..5 {
        let (lsn, seq) = (at as u64 + 1, at as u64 * ENTRIES_PER_RECORD + 1);
        let mut edited = records.clone();
        edited[at].body[20] ^= 1;
        assert_eq!(world.first_bad(edited.clone()), Some((lsn, seq)), "edit");

        // Whoever has no key can make the hash fit, but the record does not open.
        let header = &edited[at].header;
        edited[at] = Record::new(
            world.tenant,
            lsn,
            header.epoch,
            header.writer,
            header.prev,
            edited[at].body.clone(),
        );
        assert_eq!(world.first_bad(edited), Some((lsn, seq)), "edit with a new hash");

        let mut dropped = records.clone();
        dropped.remove(at);
        assert_eq!(world.first_bad(dropped), Some((lsn, seq)), "drop");

        let mut inserted = records.clone();
        inserted.insert(at + 1, records[at].clone());
        let next = (lsn + 1, seq + ENTRIES_PER_RECORD);
        assert_eq!(world.first_bad(inserted), Some(next), "insert");
    }
    let mut swapped = records;
    swapped.swap(1, 3);
    assert_eq!(world.first_bad(swapped), Some((2, 3)), "swap");
}

#[test]
fn a_cut_tail_and_a_deleted_chain_are_found_by_the_anchor() {
    let world = World::new();
    let records = world.history(5, sound);
    assert_eq!(world.first_bad(records[..3].to_vec()), None, "nobody can know yet");
    world.anchor(&records);
    for kept in 0..5_usize {
        let expected = (kept as u64 + 1, kept as u64 * ENTRIES_PER_RECORD + 1);
        assert_eq!(world.first_bad(records[..kept].to_vec()), Some(expected), "kept {kept}");
    }
    assert_eq!(world.first_bad(records), None);
}

#[test]
fn whoever_holds_the_keys_still_cannot_rewrite_what_was_anchored() {
    let world = World::new();
    let records = world.history(5, sound);
    world.anchor(&records[..4]);
    // Entries edited in place, in records that are sealed and linked anew.
    let edited = world.history(5, |entry| {
        if entry.seq == 6 {
            entry.actor.id = "us_2".to_owned();
        }
    });
    assert_eq!(world.first_bad(edited), Some((3, 6)));
    // A wholly consistent other history of the same length: sealing anew gives other bytes.
    let rewritten = world.history(5, sound);
    assert_eq!(world.first_bad(rewritten), Some((4, 9)));
}

#[test]
fn a_tenant_without_its_key_or_without_any_history_is_not_said_to_hold() {
    let world = World::new();
    let records = world.history(2, sound);
    assert_eq!(world.first_bad(Vec::new()), Some((1, 1)));
    world.keystore.destroy(world.tenant).unwrap();
    assert_eq!(world.first_bad(records), Some((1, 1)));
}

#[test]
fn anchors_hold_under_the_nodes_key_only_and_only_over_their_own_leaves() {
    let world = World::new();
    let records = world.history(4, sound);
    world.anchor(&records[..2]);
    world.anchor(&records);
    let report = verify_anchors(&world.anchors, world.signer.public_key());
    assert_eq!((report.ok, report.checkpoints, report.size), (true, 2, 2));
    let other = NoteSigner::from_seed("test.example/node", &[6; 32]).unwrap();
    assert!(!verify_anchors(&world.anchors, other.public_key()).ok);
    // A checkpoint that names a tree over other leaves than it holds.
    let tip = world.anchors.tip().unwrap();
    let leaf = world.anchors.anchored(world.tenant).unwrap().leaf;
    let leaves = vec![Leaf { lsn: 99, ..leaf }];
    let (size, frontier, note) = (tip.size, tip.frontier, tip.note);
    world.anchors.append(NewCheckpoint { at_ms: 9, leaves, size, frontier, note }).unwrap();
    let report = verify_anchors(&world.anchors, world.signer.public_key());
    assert_eq!(report.first_bad.map(|bad| bad.checkpoint), Some(3));
}

fn start(world: &World, records: &[Record]) -> AnchorHandle {
    AnchorHandle::start(AnchorOptions {
        store: world.store(records.to_vec()),
        anchors: world.anchors.clone(),
        origin: "test.example/node".to_owned(),
        env: Env::real(),
    })
    .unwrap()
}

#[actix_rt::test]
async fn the_anchor_takes_up_what_was_written_while_it_was_away() {
    let world = World::new();
    let records = world.history(3, sound);
    let anchor = start(&world, &records);
    anchor.stop().await;
    let leaf = world.anchors.anchored(world.tenant).unwrap().leaf;
    assert_eq!((leaf.lsn, leaf.audit_seq), (3, 6));
    let tenants = [world.tenant].into();
    let report = verify_node(&world.store(records), &world.anchors, anchor.public_key(), &tenants);
    assert!(report.ok, "{report:?}");
}

#[actix_rt::test]
async fn a_clean_stop_anchors_what_was_just_told_and_nothing_twice() {
    let world = World::new();
    let records = world.history(3, sound);
    let report = world.verify(records.clone());
    let mut hash = GENESIS;
    hex::decode_to_slice(&report.head.hash, &mut hash).unwrap();
    let anchor = start(&world, &records[..1]);
    let header = &records[2].header;
    let tail = Tail { lsn: 3, epoch: header.epoch, hash: header.hash };
    anchor.told(world.tenant, tail, AuditHead { seq: 6, hash });
    anchor.stop().await;
    assert_eq!(world.anchors.anchored(world.tenant).unwrap().leaf.lsn, 3);
    let made = anchor.stats().checkpoints;
    let again = start(&world, &records);
    again.told(world.tenant, tail, AuditHead { seq: 6, hash });
    again.stop().await;
    assert_eq!(again.stats().checkpoints, made, "an unchanged history was anchored again");
    assert_eq!((again.stats().waiting, again.stats().failures), (0, 0));
}

#[actix_rt::test]
async fn a_log_that_is_behind_its_anchor_is_suspected_and_never_anchored_over() {
    let world = World::new();
    let records = world.history(3, sound);
    start(&world, &records).stop().await;
    let anchor = start(&world, &records[..2]);
    anchor.stop().await;
    assert_eq!(anchor.stats().suspects, [world.tenant]);
    assert_eq!(world.anchors.anchored(world.tenant).unwrap().leaf.lsn, 3);
    let gone = start(&world, &[]);
    gone.stop().await;
    assert_eq!(gone.stats().suspects, [world.tenant]);
}

/// The receipt of an erasure after that record.
fn receipt_after(world: &World, last: &Record) -> ErasureReceipt {
    ErasureReceipt {
        format: FORMAT,
        tenant: world.tenant,
        origin: "test.example/node".to_owned(),
        requested_ms: 1,
        erased_ms: 2,
        reason: None,
        forced: false,
        how: HOW.to_owned(),
        last_lsn: last.header.lsn,
        last_record: Digest(last.header.hash),
        anchored: None,
        kept: KeptObjects::default(),
        removed: RemovedObjects::default(),
    }
}

#[test]
fn a_history_without_a_key_holds_only_with_a_receipt_and_only_as_it_was_then() {
    let world = World::new();
    let longer = world.history(7, sound);
    let records = longer[..6].to_vec();
    world.anchor(&records[..4]);
    world.keystore.destroy(world.tenant).unwrap();
    assert_eq!(world.first_bad(records.clone()), Some((1, 1)), "no receipt");
    let receipt = receipt_after(&world, &records[5]);
    let check = |records: &[Record]| {
        let mut walk = Walk::new(None, world.anchors.anchored(world.tenant));
        walk.erased = Some(receipt.clone());
        records.iter().for_each(|record| walk.record(record));
        let last = records.last().map(|record| &record.header);
        let tail = |header: &Header| Tail { lsn: header.lsn, epoch: 1, hash: header.hash };
        walk.end(last.map(tail));
        (walk.records, walk.first_bad.map(|bad| bad.what))
    };
    assert_eq!(check(&records), (6, None));
    assert_eq!(check(&records[..5]), (5, None), "a node restored from an older backup");
    let what = |records: &[Record]| check(records).1.unwrap_or_default();
    assert!(what(&records[..3]).contains("anchored up to record 4"));
    assert!(what(&[]).contains("anchored up to record 4"));
    assert!(what(&longer).contains("ended with record 6"));
    let other = world.history(6, |entry| entry.at = "2020-01-01T00:00:00.000Z".to_owned());
    assert!(what(&other).contains("not the one that was anchored"));
}
