//! Verifying audit logs from what lasts: the commit log and the anchor log, not the view.
//!
//! A tenant's report checks, record by record, the chain of records, that each opens under the
//! tenant's key, the chain of audit entries in them, that the state row names the chain's end, and
//! that history is no shorter than and no other than what was anchored last. It needs no running
//! actor, so it works on a stopped node and, on the blocking pool, on a running one.
//!
//! It refuses to guess: what cannot be read is not verified, and a report with a fault is not ok.
//! What it cannot see is a whole data directory rolled back, anchors included; only a checkpoint
//! kept elsewhere shows that.

use std::collections::{BTreeMap, BTreeSet};

use storage::anchor_log::{AnchorLog, Anchored};
use storage::archive::Archive;
use storage::id::TenantId;
use storage::keys::Key;
use storage::keystore::KeyError;
use storage::log::Tail;
use storage::record::{GENESIS, Hash, Record};
use storage::seal::TenantKeys;
use storage::store::{Store, verify_kept_chain};
use storage::value;

use super::anchor::leaf_bytes;
use super::chain::{self, Break};
use super::chunk::{Chunk, ChunkRow};
use super::entry::Entry;
use super::merkle::{self, Frontier};
use super::note::{self, NoteVerifier, TreeHead};
use crate::env::rfc3339;
use crate::erasure::receipt::{self, ErasureReceipt};
use crate::tenant::state::{AuditHead, TenantState};

pub use report::{
    AnchorReport, AnchoredEnd, AuditReport, BadCheckpoint, ChainEnd, FirstBad, NoKey, NodeReport,
};

mod archived;
mod report;

/// Every tenant that has, or is known to have had, a history.
pub fn every_tenant(store: &Store, anchors: &AnchorLog) -> BTreeSet<TenantId> {
    let anchored = anchors.all_anchored().into_iter().map(|anchored| anchored.leaf.tenant);
    store.log().tenants().into_iter().chain(anchored).collect()
}

/// Verifies the anchor log and these tenants. Reads whole histories: keep it off async threads.
pub fn verify_node(
    store: &Store,
    anchors: &AnchorLog,
    public_key: [u8; 32],
    tenants: &BTreeSet<TenantId>,
) -> NodeReport {
    let tenants: Vec<_> =
        tenants.iter().map(|tenant| verify(store, anchors, *tenant, Some(public_key))).collect();
    let anchors = verify_anchors(anchors, public_key);
    NodeReport { ok: anchors.ok && tenants.iter().all(|report| report.ok), tenants, anchors }
}

/// Verifies one tenant. Reads its whole history: keep it off async threads.
pub fn verify_tenant(store: &Store, anchors: &AnchorLog, tenant: TenantId) -> AuditReport {
    verify(store, anchors, tenant, None)
}

/// Verifies one tenant. If its key is gone, a receipt that `public_key` signed says that it was erased.
pub fn verify(
    store: &Store,
    anchors: &AnchorLog,
    tenant: TenantId,
    public_key: Option<[u8; 32]>,
) -> AuditReport {
    // First, so that a tenant that goes on writing is never behind its anchor.
    let anchored = anchors.anchored(tenant);
    let mut walk = Walk::new(store.cold().map(|cold| &**cold.archive()), anchored);
    let mut no_key = None;
    match store.keystore().load(tenant) {
        Ok(key) => walk.keys = Some(TenantKeys::new(tenant, &key)),
        Err(KeyError::Missing { .. }) => {
            walk.no_keys = Some("the tenant's key is gone");
            walk.erased = public_key.and_then(|key| receipt_of(store, tenant, key));
            no_key = walk.erased.is_none().then_some(NoKey::Gone);
        }
        Err(KeyError::Withheld { .. }) => {
            walk.no_keys = Some("the customer withholds the tenant's key");
            no_key = Some(NoKey::Withheld);
        }
        Err(_) => walk.no_keys = Some("the tenant's key cannot be read"),
    }
    let fault = verify_kept_chain(store, tenant, |record| walk.record(record)).err();
    if let Some(fault) = fault {
        walk.fault(fault.lsn, fault.what.to_string());
    }
    walk.end(store.log().tail(tenant).ok());
    walk.archived_before(store);
    let Walk { head, entries, records, first_bad, erased, .. } = walk;
    AuditReport {
        tenant,
        ok: first_bad.is_none(),
        entries,
        records,
        head: head.into(),
        first_bad,
        anchored: anchored.map(|anchored| AnchoredEnd {
            checkpoint: anchored.checkpoint,
            at: rfc3339(anchored.at_ms),
            lsn: anchored.leaf.lsn,
            seq: anchored.leaf.audit_seq,
        }),
        erased_at: erased.map(|receipt| rfc3339(receipt.erased_ms)),
        no_key,
    }
}

fn receipt_of(store: &Store, tenant: TenantId, public_key: [u8; 32]) -> Option<ErasureReceipt> {
    match receipt::find(&**store.cold()?.archive(), tenant, public_key) {
        Ok(found) => found.map(|signed| signed.claimed().clone()),
        Err(error) => {
            tracing::warn!(tenant.id = %tenant, %error, "no receipt can be looked for");
            None
        }
    }
}

/// A walk along one tenant's records.
struct Walk<'a> {
    archive: Option<&'a dyn Archive>,
    keys: Option<TenantKeys>,
    no_keys: Option<&'static str>,
    erased: Option<ErasureReceipt>,
    anchored: Option<Anchored>,
    head: AuditHead,
    /// Whether older records are gone and none since has said yet where the chain of entries stood.
    is_cut: bool,
    lsn: u64,
    entries: u64,
    records: u64,
    first_bad: Option<FirstBad>,
    /// Where rows of entries end that are not in the archive yet.
    ends: BTreeMap<u64, Hash>,
    /// The last entry in the archive, once that is known.
    archived: Option<u64>,
    /// The runs of archived entries that were met, by the first entry of each.
    met: BTreeSet<u64>,
}

impl<'a> Walk<'a> {
    fn new(archive: Option<&'a dyn Archive>, anchored: Option<Anchored>) -> Self {
        Self {
            archive,
            ends: BTreeMap::new(),
            archived: None,
            met: BTreeSet::new(),
            keys: None,
            no_keys: None,
            erased: None,
            anchored,
            head: AuditHead::NONE,
            is_cut: false,
            lsn: 0,
            entries: 0,
            records: 0,
            first_bad: None,
        }
    }

    /// Keeps the first fault; nothing after it proves anything.
    fn fault(&mut self, lsn: u64, what: String) {
        let seq = self.head.seq + 1;
        self.first_bad.get_or_insert(FirstBad { seq, lsn, what });
    }

    /// What came before is not known any more.
    fn cut(&mut self) {
        (self.is_cut, self.archived) = (true, None);
        self.ends.clear();
    }

    fn broken(&mut self, lsn: u64, broken: Break) {
        let what = broken.what.to_string();
        self.first_bad.get_or_insert(FirstBad { seq: broken.seq, lsn, what });
    }

    fn record(&mut self, record: &Record) {
        if self.first_bad.is_some() {
            return;
        }
        let lsn = record.header.lsn;
        if self.erased.is_some() {
            return self.sealed_record(record);
        }
        let Some(keys) = &self.keys else {
            let what = self.no_keys.unwrap_or("the tenant has no key");
            return self.fault(lsn, what.to_owned());
        };
        let Ok(body) = keys.open_record(lsn, record.header.epoch, &record.body) else {
            return self.fault(lsn, "the record does not open under the tenant's key".to_owned());
        };
        // Older records may be gone; then the chain is checked from where it is first met.
        if lsn != self.lsn + 1 {
            self.cut();
        }
        let mut known = None;
        let before = self.head;
        for op in &body.ops {
            match Key::decode(&op.key) {
                Ok(Key::State {}) => {
                    let state = op.value.as_ref().map(|bytes| value::decode::<TenantState>(bytes));
                    match state {
                        Some(Ok(state)) => {
                            known = Some(state.audit);
                            self.archived = Some(state.audit_archived);
                        }
                        _ => return self.fault(lsn, "the state row does not read".to_owned()),
                    }
                }
                Ok(Key::AuditChunk { first }) => {
                    let bytes = op.value.as_ref().map(|bytes| bytes.as_slice());
                    if let Err(what) = self.chunk(first, bytes) {
                        self.first_bad.get_or_insert(FirstBad { seq: first, lsn, what });
                        return;
                    }
                }
                // A row may go once its entries are in the archive.
                Ok(Key::Audit { seq })
                    if op.value.is_none() && self.archived.is_none_or(|last| seq <= last) => {}
                Ok(Key::Audit { seq }) => {
                    let bytes = op.value.as_ref().map(|bytes| bytes.as_slice());
                    if let Err(what) = self.entries(lsn, seq, bytes) {
                        return self.fault(lsn, what.to_owned());
                    }
                    if self.first_bad.is_some() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => return self.fault(lsn, "a key of the record does not read".to_owned()),
            }
        }
        match known {
            Some(known) if self.is_cut => (self.head, self.is_cut) = (known, false),
            Some(known) => {
                if let Err(broken) = chain::verify_head(self.head, known) {
                    return self.broken(lsn, broken);
                }
            }
            None if self.head != before => {
                return self.fault(lsn, "the state row does not follow the entries".to_owned());
            }
            None => {}
        }
        (self.lsn, self.records) = (lsn, self.records + 1);
        self.compare_with_anchor(record);
    }

    /// Goes on behind a record that nobody can read any more.
    fn sealed_record(&mut self, record: &Record) {
        let lsn = record.header.lsn;
        (self.lsn, self.records) = (lsn, self.records + 1);
        let anchored = self.anchored.map(|anchored| anchored.leaf);
        if anchored.is_some_and(|leaf| leaf.lsn == lsn && leaf.record != record.header.hash) {
            self.fault(lsn, "the record is not the one that was anchored".to_owned());
        }
    }

    /// What is wrong with the end of a history that nobody can read any more.
    fn sealed_end(&self, receipt: &ErasureReceipt, tail: Tail) -> Option<String> {
        let (last, hash) = (receipt.last_lsn, receipt.last_record.0);
        let anchored = self.anchored.map_or(0, |anchored| anchored.leaf.lsn);
        if tail.lsn > last || (tail.lsn == last && tail.hash != hash) {
            return Some(format!("the history ended with record {last}, says the receipt"));
        }
        // A node restored from an older backup has less of it, but never less than was anchored there.
        if tail.lsn < anchored {
            return Some(format!("missing: the history was anchored up to record {anchored}"));
        }
        // The records may be gone altogether: nothing needs them.
        let is_cut = self.records > 0 && self.lsn != tail.lsn;
        is_cut.then(|| format!("missing: the history ends with record {}", tail.lsn))
    }

    /// Checks one audit row and goes on behind it.
    fn entries(&mut self, lsn: u64, seq: u64, bytes: Option<&[u8]>) -> Result<(), &'static str> {
        let bytes = bytes.ok_or("audit entries were deleted")?;
        let entries: Vec<Entry> = value::decode(bytes).map_err(|_| "an audit row does not read")?;
        let first = entries.first().ok_or("an audit row is empty")?;
        if self.is_cut && first.seq > self.head.seq {
            self.is_cut = false;
            let mut hash = GENESIS;
            hex::decode_to_slice(&first.prev, &mut hash).map_err(|_| "an entry has no hash")?;
            self.head = AuditHead { seq: first.seq.saturating_sub(1), hash };
        }
        if first.seq != seq || seq != self.head.seq + 1 {
            return Err("audit entries were written over others or out of order");
        }
        match chain::verify_entries(self.head, &entries) {
            Ok(head) => {
                self.head = head;
                self.ends.insert(head.seq, head.hash);
                self.entries += entries.len() as u64;
            }
            Err(broken) => self.broken(lsn, broken),
        }
        Ok(())
    }

    /// Checks entries that moved to the archive: they are there, whole, and those that the records had.
    fn chunk(&mut self, first: u64, bytes: Option<&[u8]>) -> Result<(), String> {
        let bytes = bytes.ok_or("archived audit entries were forgotten")?;
        let row: ChunkRow = value::decode(bytes).map_err(|error| error.to_string())?;
        let last = row.last;
        if self.ends.remove(&last.seq).is_some_and(|hash| hash != last.hash) {
            return Err(format!("the archived entries up to {} are others", last.seq));
        }
        self.ends = self.ends.split_off(&last.seq);
        self.met.insert(first);
        self.look_into(&Chunk { first, row }).map(|_| ())
    }

    fn compare_with_anchor(&mut self, record: &Record) {
        let Some(leaf) = self.anchored.map(|anchored| anchored.leaf) else { return };
        if leaf.lsn != record.header.lsn {
            return;
        }
        if leaf.record != record.header.hash {
            return self.fault(leaf.lsn, "the record is not the one that was anchored".to_owned());
        }
        let known = AuditHead { seq: leaf.audit_seq, hash: leaf.audit };
        if std::mem::take(&mut self.is_cut) {
            self.head = known;
        }
        if let Err(broken) = chain::verify_head(self.head, known) {
            self.broken(leaf.lsn, broken);
        }
    }

    fn end(&mut self, tail: Option<Tail>) {
        if let Some(receipt) = &self.erased {
            let at = self.lsn + 1;
            if let Some(what) = self.sealed_end(receipt, tail.unwrap_or(Tail::EMPTY)) {
                self.fault(at, what);
            }
            return;
        }
        match self.anchored.map(|anchored| anchored.leaf.lsn) {
            Some(anchored) if self.lsn < anchored => {
                let what = format!("missing: the history was anchored up to record {anchored}");
                self.fault(self.lsn + 1, what);
            }
            None if self.records == 0 => {
                self.fault(1, "missing: there is no history at all".to_owned());
            }
            _ => {}
        }
    }
}

/// Verifies that each checkpoint's tree begins with the one before, by building the tree again, and
/// that this node's key signed the newest one, and with its root every leaf before.
pub fn verify_anchors(anchors: &AnchorLog, public_key: [u8; 32]) -> AnchorReport {
    let mut frontier = Frontier::default();
    let mut checkpoints = 0;
    let mut first_bad: Option<BadCheckpoint> = None;
    let walked = anchors.walk(|checkpoint| {
        if first_bad.is_some() {
            return;
        }
        for leaf in &checkpoint.leaves {
            frontier.push(merkle::leaf_hash(&leaf_bytes(leaf)));
        }
        let said = checkpoint.note.split_once("\n\n").map(|(text, _)| format!("{text}\n"));
        let said = said.as_deref().and_then(TreeHead::parse);
        let is_same =
            said.is_some_and(|said| said.size == frontier.size() && said.root == frontier.root());
        let is_edge =
            checkpoint.size == frontier.size() && checkpoint.frontier == frontier.to_bytes();
        if is_same && is_edge {
            checkpoints = checkpoint.seq;
        } else {
            let what = "the tree over its leaves is not the one it names".to_owned();
            first_bad = Some(BadCheckpoint { checkpoint: checkpoint.seq, what });
        }
    });
    let next = checkpoints + 1;
    if let Err(error) = walked {
        first_bad.get_or_insert(BadCheckpoint { checkpoint: next, what: error.to_string() });
    }
    // The newest note that was walked may already have a successor; either signature covers it.
    if let Some(tip) = anchors.tip() {
        let origin = tip.note.lines().next().unwrap_or_default();
        let opened = NoteVerifier::new(origin, public_key)
            .and_then(|verifier| note::open(&tip.note, &[&verifier]).map(|_| ()));
        if let Err(error) = opened {
            let what = error.to_string();
            first_bad.get_or_insert(BadCheckpoint { checkpoint: tip.seq, what });
        }
    }
    AnchorReport {
        ok: first_bad.is_none(),
        checkpoints,
        size: frontier.size(),
        root: hex::encode(frontier.root()),
        first_bad,
    }
}

#[cfg(test)]
mod tests;
