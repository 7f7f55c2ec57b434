//! Opening a log: what is believed, what is mended and what is refused.
//!
//! - Sealed segments are read by their footers alone. If a footer is lost the whole segment is read;
//!   tenants that may have lost their last records there are refused, all others serve. If lost
//!   records may have been anybody's, tenants that nobody knows are refused too.
//! - The last segment is read frame by frame and cut at the first that is not whole.
//! - What was found at the very end is written again and synced before anybody sees it: after a failed
//!   sync it may exist in the page cache only, and be shown now and lost with the next power cut.
//!
//! It never throws away anything in a sealed segment.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::DiskFile;
use crate::disk::OpenMode;
use crate::id::TenantId;
use crate::log::Tail;
use crate::log::segment::GROUP_BYTES_LIMIT;
use crate::log::segment::OpenError;
use crate::log::segment::base;
use crate::log::segment::file;
use crate::log::segment::file::ActiveFile;
use crate::log::segment::file::FILE_HEADER_BYTES;
use crate::log::segment::file::FileHeader;
use crate::log::segment::frame::Found;
use crate::log::segment::frame::Window;
use crate::log::segment::index::SegmentIndex;
use crate::log::segment::salvage;
use crate::log::segment::tables::Content;
use crate::log::segment::tables::Refusal;
use crate::log::segment::tables::Suspects;
use crate::log::segment::tables::Tables;
use crate::record::Header;

/// Bytes read at a time when a whole segment is read.
pub(super) const SCAN_BYTES: usize = 1 << 20;

/// What was found.
pub(super) struct Recovered {
    pub(super) tables: Tables,
    pub(super) active: Option<ActiveFile>,
    pub(super) next_number: u64,
    pub(super) repairs: Vec<String>,
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    tables: Tables,
    suspects: Suspects,
    /// Where records were lost that may have been anybody's.
    unnamed: Option<Refusal>,
    repairs: Vec<String>,
}

/// Reads the log in `dir`, mends its end, and says what it knows.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    segment_bytes: u64,
) -> Result<Recovered, OpenError> {
    disk.create_dir_all(dir)?;
    if let Some(parent) = dir.parent() {
        disk.sync_dir(parent)?;
    }
    let mut numbers = Vec::new();
    for path in disk.list(dir)? {
        if file::is_unfinished(&path) {
            disk.remove(&path)?;
        }
        numbers.extend(file::number_of(&path));
    }
    numbers.sort_unstable();
    // A name may have been given just before the power went.
    disk.sync_dir(dir)?;
    let (tables, suspects, repairs) = (Tables::default(), Suspects::new(), Vec::new());
    let mut recovery = Recovery { disk, dir, tables, suspects, unnamed: None, repairs };
    let mut active = None;
    if let Some((last, sealed)) = numbers.split_last() {
        for number in sealed {
            recovery.read_sealed(*number)?;
        }
        active = recovery.read_last(*last, segment_bytes)?;
    }
    let next_number = recovery.let_go(numbers.first().copied())?;
    let Recovery { mut tables, suspects, unnamed, mut repairs, .. } = recovery;
    for (tenant, refusal) in suspects {
        repairs.push(format!("{tenant} is refused: its last records may be lost"));
        tables.refuse(tenant, refusal);
    }
    if let Some(refusal) = unnamed {
        repairs.push("tenants without a record are refused: theirs may be lost".into());
        tables.refuse_strangers(refusal);
    }
    let next_number = numbers.last().map_or(1, |last| last + 1).max(next_number);
    Ok(Recovered { tables, active, next_number, repairs })
}

impl Recovery<'_> {
    /// Forgets what was let go before, and removes the segments that it kept until now. Returns the
    /// least number that the next segment may have.
    fn let_go(&mut self, first_number: Option<u64>) -> Result<u64, OpenError> {
        let (next_number, bases) = match base::read(self.disk, self.dir)? {
            base::Read::Bases(next_number, bases) => (next_number, bases),
            base::Read::Version(version) => return Err(OpenError::UnknownBaseVersion { version }),
            // Without a removed segment nothing was ever let go.
            base::Read::Absent if first_number.is_none_or(|first| first == 1) => return Ok(1),
            base::Read::Absent | base::Read::Damaged => {
                self.repairs.push("the file BASE is missing or damaged".into());
                let segment = first_number.unwrap_or_default();
                self.unnamed = Some(Refusal::Damaged { segment, offset: 0 });
                return Ok(1);
            }
        };
        let mut unneeded = Vec::new();
        for (tenant, base) in bases {
            unneeded.extend(self.tables.let_go(tenant, base));
        }
        for number in &unneeded {
            self.disk.remove(&file::path(self.dir, *number))?;
        }
        if !unneeded.is_empty() {
            self.disk.sync_dir(self.dir)?;
        }
        Ok(next_number)
    }

    fn open(&mut self, number: u64, mode: OpenMode) -> Result<Arc<dyn DiskFile>, OpenError> {
        let file = self.disk.open(&file::path(self.dir, number), mode)?;
        match file::read_header(&*file, number)? {
            FileHeader::Right => {}
            FileHeader::Version(version) => {
                return Err(OpenError::UnknownVersion { segment: number, version });
            }
            FileHeader::Misnamed { carried } => {
                return Err(OpenError::Misnamed { segment: number, carried });
            }
            FileHeader::Damaged => {
                self.repairs.push(format!("segment {number}: the file header is damaged"));
                if mode == OpenMode::Write {
                    file::write_header(&*file, number)?;
                }
            }
        }
        Ok(Arc::from(file))
    }

    fn read_sealed(&mut self, number: u64) -> Result<(), OpenError> {
        let file = self.open(number, OpenMode::Read)?;
        if let Some((index, _)) = SegmentIndex::read(&*file, number)? {
            self.tables.add_segment(number, Content::Sealed);
            self.add_runs(number, &index);
            return Ok(());
        }
        let salvaged = salvage::salvage(file, number, &self.tables)?;
        self.repairs.push(format!(
            "segment {number}: the index is damaged and was made again; {} places with lost records",
            salvaged.lost.len()
        ));
        let index = Arc::new(salvaged.index);
        self.tables.add_segment(number, Content::Salvaged(Arc::clone(&index)));
        self.add_runs(number, &index);
        for lost in salvaged.lost {
            let refusal = Refusal::Damaged { segment: number, offset: lost.offset };
            let is_seen_after = |tenant: &TenantId| {
                let last = index.entries.get(tenant).and_then(|entry| entry.offsets.last());
                last.is_some_and(|offset| u64::from(*offset) > lost.offset)
            };
            let known = if lost.is_attributed {
                Vec::new()
            } else {
                self.unnamed = Some(refusal);
                self.tables.tenants()
            };
            for tenant in known.into_iter().chain(lost.tenant) {
                if !is_seen_after(&tenant) {
                    self.suspects.insert(tenant, refusal);
                }
            }
        }
        Ok(())
    }

    fn add_runs(&mut self, number: u64, index: &SegmentIndex) {
        for (tenant, entry) in &index.entries {
            self.tables.add_run(number, *tenant, entry.first, entry.tail, &mut self.suspects);
        }
    }

    fn read_last(
        &mut self,
        number: u64,
        segment_bytes: u64,
    ) -> Result<Option<ActiveFile>, OpenError> {
        let file = self.open(number, OpenMode::Write)?;
        if let Some((index, footer_offset)) = SegmentIndex::read(&*file, number)? {
            let len = file.len()?;
            file.set_len(len)?; // the length may be as little on disk as the bytes
            write_again(&*file, footer_offset, len)?;
            self.tables.add_segment(number, Content::Sealed);
            self.add_runs(number, &index);
            return Ok(None);
        }
        let len = file.len()?;
        let mut window = Window::new(Arc::clone(&file), len, SCAN_BYTES);
        let mut scan = Scan::default();
        let (mut offset, mut last_frame) = (FILE_HEADER_BYTES, FILE_HEADER_BYTES);
        let is_clean = loop {
            match window.frame_at(offset)? {
                Found::Frame { header, bytes, .. } => {
                    let at = u32::try_from(offset).map_err(io::Error::other)?;
                    scan.admit(&self.tables, number, &header, at);
                    last_frame = offset;
                    offset += bytes;
                }
                Found::Unused => break window.is_unused_from(offset)?,
                Found::Footer | Found::Bad { .. } => break false,
            }
        };
        if !is_clean {
            self.cut(&*file, &mut window, number, offset)?;
        }
        let from = last_frame.min(offset.saturating_sub(GROUP_BYTES_LIMIT as u64));
        write_again(&*file, from.max(FILE_HEADER_BYTES), offset)?;
        match file.allocate(segment_bytes) {
            // A full disk is no reason not to start: the first append will say so.
            Err(error) if file::is_full(&error) => {}
            allocated => allocated?,
        }
        let runs: Vec<_> =
            scan.index.entries.iter().map(|(tenant, e)| (*tenant, e.first, e.tail)).collect();
        let content = Content::Active { index: scan.index, file: Arc::clone(&file) };
        self.tables.add_segment(number, content);
        for (tenant, first, tail) in runs {
            self.tables.add_run(number, tenant, first, tail, &mut self.suspects);
        }
        for (tenant, refusal) in scan.refused {
            self.tables.refuse(tenant, refusal);
        }
        Ok(Some(ActiveFile { number, file, end: offset }))
    }

    /// Cuts the last segment at `end` and says what went.
    fn cut(
        &mut self,
        file: &dyn DiskFile,
        window: &mut Window,
        number: u64,
        end: u64,
    ) -> Result<(), OpenError> {
        let mut whole_after = 0;
        let mut offset = window.next_whole(end)?;
        while let Found::Frame { bytes, .. } = window.frame_at(offset)? {
            whole_after += 1;
            offset = window.next_whole(offset + bytes)?;
        }
        self.repairs.push(format!(
            "segment {number}: cut at byte {end}, the end of its last whole record; \
             {whole_after} whole records lay after it"
        ));
        file.set_len(end.max(FILE_HEADER_BYTES))?;
        file.sync()?;
        Ok(())
    }
}

/// Writes a range of a file again as it is, piece by piece, and syncs it.
fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    const PIECE_BYTES: u64 = 256 << 10;
    let mut bytes = Vec::new();
    let mut at = from;
    while at < to {
        let wanted = (to - at).min(PIECE_BYTES);
        bytes.resize(usize::try_from(wanted).map_err(io::Error::other)?, 0);
        let read = file.read_at(at, &mut bytes)?;
        if read == 0 {
            break;
        }
        file.write_at(at, &bytes[..read])?;
        at += read as u64;
    }
    file.sync()
}

/// The records of the last segment.
#[derive(Default)]
struct Scan {
    index: SegmentIndex,
    refused: HashMap<TenantId, Refusal>,
}

impl Scan {
    /// Takes in a whole frame, if it follows what is known of its tenant. One that does not was
    /// never written by a committer: the tenant is refused, and what lies there is left alone.
    fn admit(&mut self, tables: &Tables, segment: u64, header: &Header, offset: u32) {
        let tenant = header.tenant;
        if self.refused.contains_key(&tenant) {
            return;
        }
        let held = self.index.entries.get(&tenant).map(|entry| entry.tail);
        let tail = held.or_else(|| tables.tail(tenant).ok()).unwrap_or(Tail::EMPTY);
        let is_next = tail.lsn.checked_add(1) == Some(header.lsn);
        let follows = is_next && header.prev == tail.hash && header.epoch >= tail.epoch;
        // A first record in this segment may come after a gap: the records before were let go,
        // or lost in a damaged segment. The tables tell which.
        let after_gap = held.is_none() && header.lsn > tail.lsn && !is_next;
        if follows || after_gap {
            self.index.push(header, offset);
        } else {
            let refusal = Refusal::Damaged { segment, offset: u64::from(offset) };
            self.refused.insert(tenant, refusal);
        }
    }
}
