//! What the log knows in memory: each tenant's tail and segments, each segment's users.
//!
//! A tenant costs its tail and sixteen bytes per segment it has records in; where a record lies is
//! looked up in the segment's index. The committer writes here after each group, everybody reads.
//!
//! It touches no disk. What was let go it remembers by its end alone, to fence with.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::id::TenantId;
use crate::log::LogError;
use crate::log::LogStats;
use crate::log::SealedSegment;
use crate::log::Tail;
use crate::log::segment::base::Bases;
use crate::log::segment::file;
use crate::log::segment::index::SegmentIndex;
use crate::record::Header;

/// Why a tenant is served nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Records at its end are missing or contradict each other, noticed at this place.
    Damaged {
        /// In which segment.
        segment: u64,
        /// At which byte.
        offset: u64,
    },
    /// The last append may or may not be on disk; only the next start finds out.
    Unsettled,
}

impl Refusal {
    /// What a reader is told.
    pub(super) fn error(self, tenant: TenantId) -> LogError {
        match self {
            Self::Damaged { segment, offset } => LogError::Damaged { tenant, segment, offset },
            Self::Unsettled => LogError::Io(std::io::Error::other(
                "the outcome of the last append is not known before the next start",
            )),
        }
    }
}

/// One tenant's stay in one segment: the first LSN there.
#[derive(Debug, Clone, Copy)]
struct Run {
    segment: u64,
    first: u64,
}

#[derive(Debug)]
struct Held {
    tail: Tail,
    runs: Vec<Run>,
    /// Where the records that were let go ended.
    base: Option<Tail>,
    /// The runs before this one lie before a gap; they only wait to be let go.
    readable: usize,
    refusal: Option<Refusal>,
}

/// What a segment is.
pub(super) enum Content {
    /// Immutable, with its index in its footer.
    Sealed,
    /// Immutable, with a lost footer: its index was made by reading all of it.
    Salvaged(Arc<SegmentIndex>),
    /// Still growing.
    Active {
        /// The index so far.
        index: SegmentIndex,
        /// The open file.
        file: Arc<dyn DiskFile>,
    },
}

struct Segment {
    /// How many tenants still need it.
    pins: u64,
    content: Content,
}

/// Where to find the index of a located record.
pub(super) enum Source {
    /// In the segment's footer.
    Footer,
    /// Here; the file is still to be opened.
    Index(Arc<SegmentIndex>),
    /// The segment grows: its file, and where the records from the wanted one on begin.
    Active {
        /// The open file.
        file: Arc<dyn DiskFile>,
        /// Offsets of the wanted record and those after it.
        offsets: Vec<u32>,
    },
}

/// A record's place.
pub(super) struct Located {
    /// In which segment.
    pub(super) segment: u64,
    /// The tenant's last LSN in it.
    pub(super) last: u64,
    /// Where its index is.
    pub(super) source: Source,
}

/// Tenants whose records a damaged segment may have lost, and where.
pub(super) type Suspects = HashMap<TenantId, Refusal>;

/// The tables.
#[derive(Default)]
pub(super) struct Tables {
    tenants: HashMap<TenantId, Held>,
    segments: BTreeMap<u64, Segment>,
    /// Set if a tenant nobody knows may have had records that are lost.
    strangers: Option<Refusal>,
    records: u64,
    bytes: u64,
    groups: u64,
}

impl Tables {
    /// The end of a tenant's history, or why there is none to be told.
    pub(super) fn tail(&self, tenant: TenantId) -> Result<Tail, Refusal> {
        match self.tenants.get(&tenant) {
            None => self.strangers.map_or(Ok(Tail::EMPTY), Err),
            Some(Held { refusal: Some(refusal), .. }) => Err(*refusal),
            Some(held) => Ok(held.tail),
        }
    }

    /// Every tenant with a record, in id order.
    pub(super) fn tenants(&self) -> Vec<TenantId> {
        let mut tenants: Vec<_> = self.tenants.keys().copied().collect();
        tenants.sort_unstable();
        tenants
    }

    /// The counters.
    pub(super) fn stats(&self) -> LogStats {
        let segments = self.segments.len() as u64;
        LogStats { records: self.records, bytes: self.bytes, groups: self.groups, segments }
    }

    /// The highest number of a segment; 0 if there is none.
    pub(super) fn last_segment(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// Whether the segment is still kept.
    pub(super) fn has_segment(&self, segment: u64) -> bool {
        self.segments.contains_key(&segment)
    }

    /// Takes in a segment without its records.
    pub(super) fn add_segment(&mut self, number: u64, content: Content) {
        self.segments.insert(number, Segment { pins: 0, content });
    }

    /// Takes in one tenant's records `first..=tail.lsn` of a segment found on disk. Segments come in
    /// rising order. If records before `first` are missing and the tenant is suspected, they are
    /// damaged; otherwise they were let go.
    pub(super) fn add_run(
        &mut self,
        segment: u64,
        tenant: TenantId,
        first: u64,
        tail: Tail,
        suspects: &mut Suspects,
    ) {
        let suspect = suspects.remove(&tenant);
        let held = self.tenants.entry(tenant).or_insert_with(Held::empty);
        if first <= held.tail.lsn {
            held.refusal = Some(Refusal::Damaged { segment, offset: 0 });
            return;
        }
        let mut pinned = vec![segment];
        if first - held.tail.lsn > 1 {
            match suspect {
                Some(Refusal::Damaged { segment: lost_in, .. }) => {
                    // A run into the damaged segment: reading it will fail there, and only there.
                    if held.runs.last().is_none_or(|run| run.segment != lost_in) {
                        held.runs.push(Run { segment: lost_in, first: held.tail.lsn + 1 });
                        pinned.push(lost_in);
                    }
                }
                Some(Refusal::Unsettled) | None => held.readable = held.runs.len(),
            }
        }
        held.runs.push(Run { segment, first });
        held.tail = tail;
        for segment in pinned {
            self.pin(segment);
        }
    }

    /// Refuses a tenant from now on.
    pub(super) fn refuse(&mut self, tenant: TenantId, refusal: Refusal) {
        self.tenants.entry(tenant).or_insert_with(Held::empty).refusal = Some(refusal);
    }

    /// Refuses tenants without a record from now on: their history may be lost, and they must not
    /// begin a second one.
    pub(super) fn refuse_strangers(&mut self, refusal: Refusal) {
        self.strangers = Some(refusal);
    }

    fn pin(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.pins += 1;
        }
    }

    /// Takes in a group that is on disk in the active segment `number`.
    pub(super) fn commit<'a>(
        &mut self,
        number: u64,
        bytes: u64,
        group: impl Iterator<Item = (&'a Header, u32)>,
    ) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        for (header, offset) in group {
            let held = self.tenants.entry(header.tenant).or_insert_with(Held::empty);
            if held.runs.last().is_none_or(|run| run.segment != number) {
                held.runs.push(Run { segment: number, first: header.lsn });
                segment.pins += 1;
            }
            held.tail = Tail { lsn: header.lsn, epoch: header.epoch, hash: header.hash };
            if let Content::Active { index, .. } = &mut segment.content {
                index.push(header, offset);
            }
            self.records += 1;
        }
        self.bytes += bytes;
        self.groups += 1;
    }

    /// The index of a growing segment.
    pub(super) fn active_index(&self, number: u64) -> Option<&SegmentIndex> {
        match &self.segments.get(&number)?.content {
            Content::Active { index, .. } => Some(index),
            Content::Sealed | Content::Salvaged(_) => None,
        }
    }

    /// Notes that a segment is sealed now.
    pub(super) fn seal(&mut self, number: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.content = Content::Sealed;
        }
    }

    /// Finds the record `lsn` of a tenant, and up to `records_max` after it in the same segment.
    /// Nothing if the history ends before it.
    pub(super) fn locate(
        &self,
        tenant: TenantId,
        lsn: u64,
        records_max: usize,
    ) -> Result<Option<Located>, LogError> {
        let tail = self.tail(tenant).map_err(|refusal| refusal.error(tenant))?;
        let Some(held) = self.tenants.get(&tenant).filter(|_| lsn <= tail.lsn) else {
            return Ok(None);
        };
        let runs = &held.runs[held.readable..];
        let after = runs.partition_point(|run| run.first <= lsn);
        let Some(run) = after.checked_sub(1).and_then(|at| runs.get(at)) else {
            let first = runs.first().map_or(tail.lsn + 1, |run| run.first);
            return Err(LogError::Truncated { tenant, first });
        };
        let last = runs.get(after).map_or(tail.lsn, |next| next.first - 1);
        let lost = LogError::Damaged { tenant, segment: run.segment, offset: 0 };
        let Some(segment) = self.segments.get(&run.segment) else { return Err(lost) };
        let source = match &segment.content {
            Content::Sealed => Source::Footer,
            Content::Salvaged(index) => Source::Index(Arc::clone(index)),
            Content::Active { index, file } => {
                let offsets = index.offsets_from(tenant, lsn).iter().take(records_max);
                Source::Active { file: Arc::clone(file), offsets: offsets.copied().collect() }
            }
        };
        Ok(Some(Located { segment: run.segment, last, source }))
    }

    /// Lets go of a tenant's records up to `base`, which becomes the tail where the tenant has none
    /// after it. Returns the segments that nobody needs any more.
    pub(super) fn let_go(&mut self, tenant: TenantId, base: Tail) -> Vec<u64> {
        let held = self.tenants.entry(tenant).or_insert_with(Held::empty);
        if held.base.is_some_and(|known| known.lsn >= base.lsn) {
            return Vec::new();
        }
        held.base = Some(base);
        if held.tail.lsn == base.lsn && held.tail.hash != base.hash {
            let segment = held.runs.last().map_or(0, |run| run.segment);
            held.refusal = Some(Refusal::Damaged { segment, offset: 0 });
            return Vec::new();
        }
        let mut below =
            held.runs.windows(2).take_while(|pair| pair[1].first <= base.lsn + 1).count();
        if held.tail.lsn <= base.lsn {
            held.tail = base;
            below = held.runs.len();
        }
        held.readable = held.readable.saturating_sub(below);
        let mut unneeded = Vec::new();
        for run in held.runs.drain(..below) {
            let Some(segment) = self.segments.get_mut(&run.segment) else { continue };
            segment.pins = segment.pins.saturating_sub(1);
            if segment.pins == 0 && !matches!(segment.content, Content::Active { .. }) {
                self.segments.remove(&run.segment);
                unneeded.push(run.segment);
            }
        }
        unneeded
    }

    /// Where each tenant's let-go records ended.
    pub(super) fn bases(&self) -> Bases {
        let base = |(tenant, held): (&TenantId, &Held)| held.base.map(|base| (*tenant, base));
        self.tenants.iter().filter_map(base).collect()
    }

    /// The segments that are complete and whole, oldest first.
    pub(super) fn sealed(&self, dir: &Path) -> Vec<SealedSegment> {
        let is_sealed =
            |(_, segment): &(&u64, &Segment)| matches!(segment.content, Content::Sealed);
        let sealed = self.segments.iter().filter(is_sealed);
        sealed.map(|(&number, _)| SealedSegment { number, path: file::path(dir, number) }).collect()
    }
}

impl Held {
    fn empty() -> Self {
        Self { tail: Tail::EMPTY, runs: Vec::new(), base: None, readable: 0, refusal: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id as _;

    const ANN: [u8; 16] = [1; 16];
    const BOB: [u8; 16] = [2; 16];

    fn tables(runs: &[(u64, [u8; 16], u64, u64)], suspects: &mut Suspects) -> Tables {
        let mut tables = Tables::default();
        for (segment, tenant, first, last) in runs {
            if !tables.has_segment(*segment) {
                tables.add_segment(*segment, Content::Sealed);
            }
            let tail = Tail { lsn: *last, epoch: 1, hash: [0; 32] };
            tables.add_run(*segment, TenantId::from_bytes(*tenant), *first, tail, suspects);
        }
        tables
    }

    fn segment_of(tables: &Tables, tenant: [u8; 16], lsn: u64) -> Result<Option<u64>, LogError> {
        let located = tables.locate(TenantId::from_bytes(tenant), lsn, 1)?;
        Ok(located.map(|located| located.segment))
    }

    fn up_to(lsn: u64) -> Tail {
        Tail { lsn, epoch: 1, hash: [0; 32] }
    }

    #[test]
    fn a_segment_goes_when_nobody_needs_it_and_the_tail_stays() {
        let runs = [(1, ANN, 1, 5), (1, BOB, 1, 1), (2, ANN, 6, 9), (2, BOB, 2, 2), (3, BOB, 3, 4)];
        let mut tables = tables(&runs, &mut Suspects::new());
        let (ann, bob) = (TenantId::from_bytes(ANN), TenantId::from_bytes(BOB));
        assert_eq!(tables.let_go(ann, up_to(4)), [0; 0]);
        assert_eq!(tables.let_go(ann, up_to(5)), [0; 0]);
        assert_eq!(tables.let_go(bob, up_to(3)), [1]);
        let error = segment_of(&tables, ANN, 5).unwrap_err();
        assert!(matches!(error, LogError::Truncated { first: 6, .. }), "{error}");
        assert_eq!(segment_of(&tables, ANN, 6).unwrap(), Some(2));
        assert_eq!(tables.let_go(ann, up_to(9)), [2]);
        assert_eq!(tables.tail(ann).unwrap(), up_to(9));
        assert_eq!(tables.bases(), [(ann, up_to(9)), (bob, up_to(3))].into());
        assert_eq!(segment_of(&tables, ANN, 10).unwrap(), None);
        let error = segment_of(&tables, ANN, 9).unwrap_err();
        assert!(matches!(error, LogError::Truncated { first: 10, .. }), "{error}");
    }

    #[test]
    fn a_base_that_contradicts_the_record_it_names_is_refused() {
        let mut tables = tables(&[(1, ANN, 1, 5)], &mut Suspects::new());
        let ann = TenantId::from_bytes(ANN);
        assert_eq!(tables.let_go(ann, Tail { hash: [1; 32], ..up_to(5) }), [0; 0]);
        assert!(tables.tail(ann).is_err());
    }

    #[test]
    fn a_gap_was_let_go_unless_the_tenant_is_suspected() {
        let runs = [(1, ANN, 1, 5), (3, ANN, 9, 9)];
        let mut truncated = tables(&runs, &mut Suspects::new());
        let error = segment_of(&truncated, ANN, 5).unwrap_err();
        assert!(matches!(error, LogError::Truncated { first: 9, .. }), "{error}");
        assert_eq!(truncated.let_go(TenantId::from_bytes(ANN), up_to(8)), [1]);
        assert_eq!(segment_of(&truncated, ANN, 9).unwrap(), Some(3));

        let mut damaged = tables(&runs[..1], &mut Suspects::new());
        let (ann, damage) =
            (TenantId::from_bytes(ANN), Refusal::Damaged { segment: 2, offset: 24 });
        let mut suspects = Suspects::from([(ann, damage)]);
        damaged.add_segment(3, Content::Sealed);
        let tail = Tail { lsn: 9, epoch: 1, hash: [0; 32] };
        damaged.add_run(3, ann, 9, tail, &mut suspects);
        assert_eq!(segment_of(&damaged, ANN, 5).unwrap(), Some(1));
        let error = segment_of(&damaged, ANN, 6).unwrap_err();
        assert!(matches!(error, LogError::Damaged { segment: 2, .. }), "{error}");
        assert_eq!(segment_of(&damaged, ANN, 9).unwrap(), Some(3));
        assert!(suspects.is_empty());
    }

    #[test]
    fn two_segments_with_the_same_record_are_not_served() {
        let tables = tables(&[(1, ANN, 1, 5), (2, ANN, 5, 6)], &mut Suspects::new());
        let error = segment_of(&tables, ANN, 1).unwrap_err();
        assert!(matches!(error, LogError::Damaged { segment: 2, .. }), "{error}");
    }
}
