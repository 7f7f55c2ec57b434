//! Sealed segments in the archive: how they get there, and how one tenant's records are read from them.
//!
//! A segment is archived byte for byte: its records are sealed already, and its footer says which bytes
//! are whose, so reading one tenant takes that tenant's bytes and no others. Sealed bytes do not
//! compress; large record bodies were compressed before they were sealed.
//!
//! It refuses to archive a segment in which anything is damaged, and believes nothing it reads back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;

use crate::archive::{ArchiveError, SharedArchive};
use crate::disk::{Disk as _, DiskFile, OpenMode, RealDisk};
use crate::id::TenantId;
use crate::log::segment::file::{self, FILE_HEADER_BYTES, FileHeader};
use crate::log::segment::frame::{Found, Window};
use crate::log::segment::index::SegmentIndex;
use crate::log::segment::reader::{Collected, Places, records_max};
use crate::log::{LogError, SealedSegment, Tail};
use crate::record::{Hash, Record};

/// The directory of segments in the archive.
pub const SEGMENTS: &str = "segments";
/// The object that says whose archive it is.
const OWNER: &str = "node";
/// Bytes read at a time: each read may be a request over a network.
const READ_AHEAD_BYTES: usize = 256 << 10;
/// Indexes of archived segments kept at hand. One takes about three bytes a record.
const CACHED_INDEXES_MAX: usize = 8;

/// Why a segment is not archived.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// The segment is not what was written. It stays where it is.
    #[error("segment {segment} is damaged at byte {offset}")]
    Damaged {
        /// Its number.
        segment: u64,
        /// Where.
        offset: u64,
    },
    /// The segment cannot be read.
    #[error("segment {segment} cannot be read")]
    Io {
        /// Its number.
        segment: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// The archive does not take or give it.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// A segment in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdSegment {
    /// Its number.
    pub number: u64,
    /// The object's name.
    pub name: String,
    /// The object's length.
    pub bytes: u64,
    /// When it was archived, Unix milliseconds, as the archive says; or when it was completed.
    pub archived_ms: u64,
    /// Each tenant's first LSN in it, and the end of that tenant's records in it.
    pub tenants: BTreeMap<TenantId, (u64, Tail)>,
}

#[derive(Default)]
struct Catalog {
    segments: BTreeMap<u64, Arc<ColdSegment>>,
    /// Per tenant: the first LSN in each segment that has records of the tenant.
    runs: HashMap<TenantId, BTreeMap<u64, u64>>,
    indexes: Vec<(u64, Arc<SegmentIndex>)>,
    /// Those that were seen to be what the log has under the same number.
    compared: BTreeSet<u64>,
    /// Objects whose index cannot be read, by number: nobody knows whose records they hold.
    damaged: BTreeMap<u64, String>,
    is_loaded: bool,
}

impl Catalog {
    fn add(&mut self, segment: ColdSegment) {
        for (tenant, (first, _)) in &segment.tenants {
            self.runs.entry(*tenant).or_default().insert(*first, segment.number);
        }
        self.segments.insert(segment.number, Arc::new(segment));
    }

    fn remove(&mut self, number: u64) {
        let Some(segment) = self.segments.remove(&number) else { return };
        for (tenant, (first, _)) in &segment.tenants {
            if let Some(runs) = self.runs.get_mut(tenant) {
                runs.remove(first);
            }
        }
        self.indexes.retain(|(cached, _)| *cached != number);
        self.compared.remove(&number);
    }

    /// The segment with a tenant's record `lsn`, and the last record of the tenant that counts in it: where
    /// the next segment begins, that one counts.
    fn find(&self, tenant: TenantId, lsn: u64) -> Option<(Arc<ColdSegment>, u64)> {
        let runs = self.runs.get(&tenant)?;
        let (_, number) = runs.range(..=lsn).next_back()?;
        let segment = self.segments.get(number)?;
        let (_, tail) = segment.tenants.get(&tenant)?;
        let next = runs.range(lsn.saturating_add(1)..).next().map(|(first, _)| first - 1);
        let last = next.map_or(tail.lsn, |before| before.min(tail.lsn));
        (lsn <= last).then(|| (Arc::clone(segment), last))
    }

    fn keep_index(&mut self, number: u64, index: Arc<SegmentIndex>) {
        self.indexes.retain(|(cached, _)| *cached != number);
        self.indexes.insert(0, (number, index));
        self.indexes.truncate(CACHED_INDEXES_MAX);
    }
}

/// All segments in one archive.
pub struct ColdSegments {
    archive: SharedArchive,
    node: String,
    is_claimed: AtomicBool,
    catalog: Mutex<Catalog>,
}

impl ColdSegments {
    /// Reads nothing yet: the archive is asked when a record is first wanted from it. `node` tells the
    /// data directory from every other.
    pub fn new(archive: SharedArchive, node: String) -> Self {
        Self { archive, node, is_claimed: AtomicBool::new(false), catalog: Mutex::default() }
    }

    /// Sees to it that the archive is this node's: two nodes in one would number their segments alike, and
    /// each would take the other's history for its own.
    ///
    /// # Errors
    /// [`ArchiveError::Misconfigured`] if it is another's, and whatever else the archive says.
    pub fn claim(&self) -> Result<(), ArchiveError> {
        if self.is_claimed.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.archive.get(OWNER) {
            Ok(owner) if owner == self.node.as_bytes() => {}
            Ok(owner) => {
                let owner = String::from_utf8_lossy(&owner).into_owned();
                let reason = format!(
                    "{} is the archive of another node ({owner}; this one is {}): give each node an archive.url \
                     of its own",
                    self.archive.location(),
                    self.node
                );
                return Err(ArchiveError::Misconfigured { reason });
            }
            Err(ArchiveError::Missing { .. }) => {
                self.archive.put(OWNER, self.node.clone().into_bytes())?;
            }
            Err(error) => return Err(error),
        }
        self.is_claimed.store(true, Ordering::Release);
        Ok(())
    }

    /// The archive.
    pub fn archive(&self) -> &SharedArchive {
        &self.archive
    }

    /// Archives a sealed segment after reading all of it. The same one twice is fine.
    ///
    /// # Errors
    /// [`ColdError::Damaged`] if any record of it is not intact: then it must stay where it is.
    pub fn put(&self, sealed: &SealedSegment) -> Result<Arc<ColdSegment>, ColdError> {
        let number = sealed.number;
        let failed = |source| ColdError::Io { segment: number, source };
        self.claim()?;
        let catalog = self.loaded()?;
        // Neither copy changes any more.
        if let Some(known) = catalog.segments.get(&number)
            && catalog.compared.contains(&number)
        {
            return Ok(Arc::clone(known));
        }
        drop(catalog);
        let file = RealDisk.open(&sealed.path, OpenMode::Read).map_err(failed)?;
        let file: Arc<dyn DiskFile> = Arc::from(file);
        let footer = SegmentIndex::read(&*file, number).map_err(failed)?;
        let tenants = footer.map(|(index, _)| tenants_of(&index));
        let bytes = file.len().map_err(failed)?;
        // The ends of all histories in it tell it from any other segment of that number. It was read
        // whole when it was archived.
        let known = self.loaded()?.segments.get(&number).cloned();
        let is_it = |known: &Arc<ColdSegment>| {
            known.bytes == bytes && tenants.as_ref() == Some(&known.tenants)
        };
        if let Some(known) = known.filter(is_it) {
            self.catalog().compared.insert(number);
            return Ok(known);
        }
        let index = read_whole(&file, number, &mut |_| {})?;
        let content = hash_file(&*file).map_err(failed)?;
        let name = object_name(number, &content);
        drop(file);
        let mut catalog = self.loaded()?;
        let is_there = catalog.segments.get(&number).is_some_and(|known| known.name == name);
        if !is_there || self.archive.size(&name)? != Some(bytes) {
            drop(catalog);
            self.archive.put_file(&name, &sealed.path)?;
            catalog = self.catalog();
        }
        let archived_ms = written_ms(&sealed.path).map_err(failed)?;
        catalog.add(ColdSegment { number, name, bytes, archived_ms, tenants: tenants_of(&index) });
        catalog.compared.insert(number);
        Ok(Arc::clone(&catalog.segments[&number]))
    }

    /// Every segment in the archive, oldest first.
    pub fn list(&self) -> Result<Vec<Arc<ColdSegment>>, ArchiveError> {
        Ok(self.loaded()?.segments.values().cloned().collect())
    }

    /// The numbers of the archived segments whose index cannot be read, unless another copy could be.
    pub fn damaged(&self) -> Result<BTreeSet<u64>, ArchiveError> {
        let catalog = self.loaded()?;
        let is_lost = |number: &&u64| !catalog.segments.contains_key(*number);
        Ok(catalog.damaged.keys().filter(is_lost).copied().collect())
    }

    /// The numbers of the archived segments, if the archive was asked already.
    pub fn known(&self) -> Option<BTreeSet<u64>> {
        let catalog = self.catalog();
        catalog.is_loaded.then(|| catalog.segments.keys().copied().collect())
    }

    /// The first LSN of a tenant that is in the archive without a gap up to `lsn`.
    pub fn first(&self, tenant: TenantId, lsn: u64) -> Result<Option<u64>, ArchiveError> {
        let catalog = self.loaded()?;
        let (mut first, mut wanted) = (None, lsn);
        while let Some((segment, _)) = catalog.find(tenant, wanted) {
            let (begin, _) = segment.tenants[&tenant];
            first = Some(begin);
            wanted = begin.saturating_sub(1);
        }
        Ok(first)
    }

    /// Removes a segment from the archive.
    pub fn remove(&self, number: u64) -> Result<(), ArchiveError> {
        let Some(segment) = self.loaded()?.segments.get(&number).cloned() else { return Ok(()) };
        self.archive.remove(&segment.name)?;
        self.catalog().remove(number);
        Ok(())
    }

    /// Records of a tenant from `lsn` on, in order, at most about `bytes_max` bytes but at least one
    /// if the archive has record `lsn`.
    pub fn read_from(
        &self,
        tenant: TenantId,
        lsn: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        let refused = |source| LogError::Archive { tenant, source };
        let mut next = lsn.max(1);
        let mut collected = Collected::before(next);
        loop {
            let found = self.loaded().map_err(refused)?.find(tenant, next);
            let Some((segment, last)) = found else { return Ok(collected.records) };
            let places = self.places(tenant, next, &segment, records_max(bytes_max))?;
            let read = collected.read(tenant, next..=last, segment.number, places, bytes_max);
            next = read.map_err(|error| archive_error(tenant, error))?;
            if collected.bytes >= bytes_max.max(1) {
                return Ok(collected.records);
            }
        }
    }

    fn places(
        &self,
        tenant: TenantId,
        lsn: u64,
        segment: &ColdSegment,
        records_max: usize,
    ) -> Result<Places, LogError> {
        let file: Arc<dyn DiskFile> = Arc::new(self.file(segment));
        let number = segment.number;
        let cached = self.catalog().indexes.iter().find(|(cached, _)| *cached == number).cloned();
        let index = match cached {
            Some((_, index)) => index,
            None => {
                let read = SegmentIndex::read(&*file, number);
                let read = read.map_err(|error| archive_error(tenant, error.into()))?;
                let damaged = || LogError::Damaged { tenant, segment: number, offset: 0 };
                let index = Arc::new(read.ok_or_else(damaged)?.0);
                self.catalog().keep_index(number, Arc::clone(&index));
                index
            }
        };
        let offsets = index.offsets_from(tenant, lsn).iter().take(records_max).copied().collect();
        Ok(Places { file, offsets, read_ahead_bytes: READ_AHEAD_BYTES })
    }

    fn file(&self, segment: &ColdSegment) -> ObjectFile {
        let archive = Arc::clone(&self.archive);
        ObjectFile { archive, name: segment.name.clone(), bytes: segment.bytes }
    }

    // Entries are added and removed whole, so a poisoned lock still guards a sound catalog.
    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalog, read from the archive if it was not yet.
    fn loaded(&self) -> Result<MutexGuard<'_, Catalog>, ArchiveError> {
        let mut catalog = self.catalog();
        if !catalog.is_loaded {
            for object in self.archive.list(SEGMENTS)? {
                let Some(number) = number_of(&object.name) else { continue };
                let mut segment = ColdSegment {
                    number,
                    name: object.name,
                    bytes: object.bytes,
                    archived_ms: object.modified_ms,
                    tenants: BTreeMap::new(),
                };
                match SegmentIndex::read(&self.file(&segment), number) {
                    Ok(Some((index, _))) => {
                        segment.tenants = tenants_of(&index);
                        catalog.add(segment);
                    }
                    Ok(None) => {
                        tracing::error!(object = segment.name, "an archived segment is damaged");
                        catalog.damaged.insert(number, segment.name);
                    }
                    Err(error) => return Err(reason_of(error)),
                }
            }
            catalog.is_loaded = true;
        }
        Ok(catalog)
    }
}

fn written_ms(path: &Path) -> io::Result<u64> {
    let since = std::fs::metadata(path)?.modified()?.duration_since(std::time::UNIX_EPOCH);
    Ok(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

fn tenants_of(index: &SegmentIndex) -> BTreeMap<TenantId, (u64, Tail)> {
    index.entries.iter().map(|(tenant, entry)| (*tenant, (entry.first, entry.tail))).collect()
}

/// Reads a segment's file whole, and hands every record to `visit`, in order.
///
/// # Errors
/// [`ColdError::Damaged`] where it is not what was written.
pub fn each_record(
    path: &Path,
    number: u64,
    visit: &mut dyn FnMut(&Record),
) -> Result<(), ColdError> {
    let failed = |source| ColdError::Io { segment: number, source };
    let file: Arc<dyn DiskFile> = Arc::from(RealDisk.open(path, OpenMode::Read).map_err(failed)?);
    read_whole(&file, number, visit).map(|_| ())
}

/// Reads every frame of a segment and its footer.
fn read_whole(
    file: &Arc<dyn DiskFile>,
    number: u64,
    visit: &mut dyn FnMut(&Record),
) -> Result<SegmentIndex, ColdError> {
    let failed = |source| ColdError::Io { segment: number, source };
    let damaged = |offset| ColdError::Damaged { segment: number, offset };
    if file::read_header(&**file, number).map_err(failed)? != FileHeader::Right {
        return Err(damaged(0));
    }
    let footer = SegmentIndex::read(&**file, number).map_err(failed)?;
    let (index, end) = footer.ok_or_else(|| damaged(file.len().unwrap_or_default()))?;
    let mut window = Window::new(Arc::clone(file), end, READ_AHEAD_BYTES);
    let mut seen = SegmentIndex::default();
    let mut offset = FILE_HEADER_BYTES;
    while offset < end {
        let Found::Frame { header, body, bytes } = window.frame_at(offset).map_err(failed)? else {
            return Err(damaged(offset));
        };
        let record = Record { header, body: body.to_vec() };
        if !record.is_intact() {
            return Err(damaged(offset));
        }
        let at = u32::try_from(offset).map_err(|_| damaged(offset))?;
        seen.push(&record.header, at);
        visit(&record);
        offset += bytes;
    }
    if seen == index { Ok(index) } else { Err(damaged(end)) }
}

fn hash_file(file: &dyn DiskFile) -> io::Result<Hash> {
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; READ_AHEAD_BYTES];
    let mut offset = 0;
    loop {
        let read = file.read_at(offset, &mut buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        offset += read as u64;
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.finish().as_ref());
    Ok(hash)
}

/// What a segment is called in the archive.
pub fn object_name(number: u64, content: &Hash) -> String {
    format!("{SEGMENTS}/{number:016x}-{}.seg", hex::encode(&content[..8]))
}

/// Which segment an object is, if it is one.
pub fn number_of(name: &str) -> Option<u64> {
    let (number, hash) = name.strip_prefix(SEGMENTS)?.strip_prefix('/')?.split_once('-')?;
    let hash = hash.strip_suffix(".seg")?;
    let is_hex = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex(number) && is_hex(hash) { u64::from_str_radix(number, 16).ok() } else { None }
}

/// Copies an archived segment to a local file.
///
/// # Errors
/// If the archive does not give it, or the file cannot be written.
pub fn fetch(archive: &SharedArchive, name: &str, path: &Path) -> Result<(), ColdError> {
    let failed = |source| ColdError::Io { segment: number_of(name).unwrap_or_default(), source };
    let mut object = archive.open(name)?;
    let mut local = std::fs::File::create(path).map_err(failed)?;
    io::copy(&mut object, &mut local).map_err(failed)?;
    local.sync_all().map_err(failed)
}

/// What the archive said behind a reading error.
fn reason_of(error: io::Error) -> ArchiveError {
    let reason = error.to_string();
    let inner = error.into_inner().and_then(|inner| inner.downcast::<ArchiveError>().ok());
    inner.map_or(ArchiveError::Unreachable { reason }, |error| *error)
}

fn archive_error(tenant: TenantId, error: LogError) -> LogError {
    match error {
        LogError::Io(error) => LogError::Archive { tenant, source: reason_of(error) },
        error => error,
    }
}

/// An object, read like a file.
struct ObjectFile {
    archive: SharedArchive,
    name: String,
    bytes: u64,
}

impl DiskFile for ObjectFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.bytes.min(offset.saturating_add(buffer.len() as u64));
        if offset >= end {
            return Ok(0);
        }
        let bytes = self.archive.get_range(&self.name, offset..end).map_err(io::Error::other)?;
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
}
