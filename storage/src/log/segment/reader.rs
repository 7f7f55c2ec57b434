//! Reading records back, believing nothing: checksum, owner, LSN, hash and chain are verified each time.
//!
//! It reads what the tables say is durable and never past it, so it needs no lock while the committer
//! writes. It mends nothing: what does not verify is `Damaged` for that tenant.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::disk::DiskFile;
use crate::disk::OpenMode;
use crate::id::TenantId;
use crate::log::LogError;
use crate::log::segment::Shared;
use crate::log::segment::file;
use crate::log::segment::frame;
use crate::log::segment::frame::Found;
use crate::log::segment::frame::Window;
use crate::log::segment::index::SegmentIndex;
use crate::log::segment::tables::Located;
use crate::log::segment::tables::Source;
use crate::record::GENESIS;
use crate::record::Hash;
use crate::record::Record;

/// Sealed segments whose index and open file are kept at hand.
const CACHED_SEGMENTS_MAX: usize = 16;
/// Bytes read at a time; a tenant's frames rarely lie side by side.
const READ_AHEAD_BYTES: usize = 16 << 10;

/// A sealed segment, open.
struct OpenSegment {
    index: Arc<SegmentIndex>,
    file: Arc<dyn DiskFile>,
}

/// The last sealed segments that were read, newest first.
#[derive(Default)]
pub(super) struct Cache(Mutex<VecDeque<(u64, Arc<OpenSegment>)>>);

impl Cache {
    fn entries(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<OpenSegment>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, number: u64) -> Option<Arc<OpenSegment>> {
        let mut entries = self.entries();
        let at = entries.iter().position(|(cached, _)| *cached == number)?;
        let entry = entries.remove(at)?;
        let segment = Arc::clone(&entry.1);
        entries.push_front(entry);
        Some(segment)
    }

    fn put(&self, number: u64, segment: Arc<OpenSegment>) {
        let mut entries = self.entries();
        entries.retain(|(cached, _)| *cached != number);
        entries.push_front((number, segment));
        entries.truncate(CACHED_SEGMENTS_MAX);
    }

    /// Closes a segment that is about to be removed.
    pub(super) fn remove(&self, number: u64) {
        self.entries().retain(|(cached, _)| *cached != number);
    }
}

/// Where a tenant's wanted records begin in one file.
pub(super) struct Places {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) offsets: Vec<u32>,
    pub(super) read_ahead_bytes: usize,
}

/// What one call has read.
pub(super) struct Collected {
    pub(super) records: Vec<Record>,
    pub(super) bytes: usize,
    prev: Option<Hash>,
}

impl Shared {
    /// See [`CommitLog::read_from`](crate::log::CommitLog::read_from).
    pub(super) fn read_from(
        &self,
        tenant: TenantId,
        lsn: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        let mut next = lsn.max(1);
        let mut collected = Collected::before(next);
        let records_max = records_max(bytes_max);
        loop {
            let located = self.tables().locate(tenant, next, records_max)?;
            let Some(located) = located else { return Ok(collected.records) };
            let segment = located.segment;
            let last = located.last;
            let places = match self.places(tenant, next, located, records_max) {
                // Truncated just now: looking again says so.
                Err(LogError::Io(error))
                    if error.kind() == io::ErrorKind::NotFound
                        && !self.tables().has_segment(segment) =>
                {
                    continue;
                }
                places => places?,
            };
            next = collected.read(tenant, next..=last, segment, places, bytes_max)?;
            if collected.bytes >= bytes_max.max(1) {
                return Ok(collected.records);
            }
        }
    }

    fn places(
        &self,
        tenant: TenantId,
        lsn: u64,
        located: Located,
        records_max: usize,
    ) -> Result<Places, LogError> {
        let number = located.segment;
        let index = match located.source {
            Source::Active { file, offsets } => {
                return Ok(Places { file, offsets, read_ahead_bytes: READ_AHEAD_BYTES });
            }
            Source::Footer => None,
            Source::Index(index) => Some(index),
        };
        let open = match self.cache.get(number) {
            Some(open) => open,
            None => {
                let file = self.disk.open(&file::path(&self.dir, number), OpenMode::Read)?;
                let file: Arc<dyn DiskFile> = Arc::from(file);
                let lost = || LogError::Damaged { tenant, segment: number, offset: 0 };
                let index = match index {
                    Some(index) => index,
                    None => Arc::new(SegmentIndex::read(&*file, number)?.ok_or_else(lost)?.0),
                };
                let open = Arc::new(OpenSegment { index, file });
                self.cache.put(number, Arc::clone(&open));
                open
            }
        };
        let offsets = open.index.offsets_from(tenant, lsn).iter().take(records_max);
        let (file, offsets) = (Arc::clone(&open.file), offsets.copied().collect());
        Ok(Places { file, offsets, read_ahead_bytes: READ_AHEAD_BYTES })
    }
}

/// More records than this do not fit into so many bytes, whatever they hold.
pub(super) fn records_max(bytes_max: usize) -> usize {
    bytes_max / frame::frame_bytes(0) + 1
}

impl Collected {
    /// Nothing yet; the first record to come is `lsn`.
    pub(super) fn before(lsn: u64) -> Self {
        Self { records: Vec::new(), bytes: 0, prev: (lsn == 1).then_some(GENESIS) }
    }

    /// Reads the records `lsns` from one file until there is enough; returns the next LSN.
    pub(super) fn read(
        &mut self,
        tenant: TenantId,
        lsns: std::ops::RangeInclusive<u64>,
        segment: u64,
        places: Places,
        bytes_max: usize,
    ) -> Result<u64, LogError> {
        let end = places.file.len()?;
        let mut window = Window::new(places.file, end, places.read_ahead_bytes);
        let mut offsets = places.offsets.into_iter().map(u64::from);
        for lsn in lsns.clone() {
            let damaged = |offset| LogError::Damaged { tenant, segment, offset };
            let offset = offsets.next().ok_or_else(|| damaged(0))?;
            let found = window.frame_at(offset)?;
            let record = self.verified(tenant, lsn, found).ok_or_else(|| damaged(offset))?;
            self.prev = Some(record.header.hash);
            self.bytes += frame::frame_bytes(record.body.len());
            self.records.push(record);
            if self.bytes >= bytes_max {
                return Ok(lsn + 1);
            }
        }
        Ok(lsns.end() + 1)
    }

    fn verified(&self, tenant: TenantId, lsn: u64, found: Found<'_>) -> Option<Record> {
        let Found::Frame { header, body, .. } = found else { return None };
        let is_next = header.tenant == tenant
            && header.lsn == lsn
            && self.prev.is_none_or(|prev| prev == header.prev);
        let record = Record { header, body: body.to_vec() };
        (is_next && record.is_intact()).then_some(record)
    }
}
