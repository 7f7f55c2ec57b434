//! One tenant's history wherever it rests: its state after any record, or at any time.
//!
//! A state is the newest snapshot before it plus the records after that. Which base is taken does not
//! matter to the result; a snapshot that is damaged, or not this node's, is passed over for an older one. The state *at a time* is
//! the state after the last record stamped no later: a clock that once ran ahead hides nothing, and
//! one that was set back loses nothing.
//!
//! Calls block on the disk and the archive. Refuses: to guess a state whose records are gone.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::archive::{ArchiveError, SharedArchive};
use crate::disk::{Disk as _, RealDisk};
use crate::id::TenantId;
use crate::log::{CommitLog, LogError, Tail};
use crate::record::Record;
use crate::seal::{SealError, TenantKeys};
use crate::snapshot::{
    self, Delta, Merged, Row, RowSource, SnapshotError, SnapshotHeader, SnapshotReader, Summary,
};

mod proof;

use proof::Proofs;

/// How much of the log is read at a time.
const READ_BYTES: usize = 1 << 20;
/// How much of the changes is held in memory before they are merged into a file on the way.
const DELTA_BYTES_MAX: usize = 32 << 20;

/// Why a state cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The wanted state lies before everything that is kept.
    #[error("the history of {tenant} is kept from {from_ms} ms on; choose a later time")]
    TooOld {
        /// Whose history.
        tenant: TenantId,
        /// The earliest time that can be had, Unix milliseconds.
        from_ms: u64,
    },
    /// There is no such record yet.
    #[error("the history of {tenant} has {last} records, not {wanted}")]
    NotYet {
        /// Whose history.
        tenant: TenantId,
        /// The LSN asked for.
        wanted: u64,
        /// The last LSN.
        last: u64,
    },
    /// Records cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A snapshot cannot be read or made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The archive does not give or take something.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A record does not open under the tenant's keys.
    #[error("record {lsn} cannot be opened")]
    Sealed {
        /// Its LSN.
        lsn: u64,
        /// Why not.
        source: SealError,
    },
    /// The directory for work on the way cannot be used.
    #[error("{path} cannot be used")]
    Scratch {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl HistoryError {
    /// Whether the archive does not give what it should have, or not as it was put there.
    pub fn is_of_the_archive(&self) -> bool {
        matches!(self, Self::Archive(_) | Self::Snapshot(_))
    }
}

/// A snapshot in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The object's name.
    pub name: String,
    /// The object's length.
    pub bytes: u64,
    /// When it was written, Unix milliseconds, as the archive says.
    pub modified_ms: u64,
    /// What it is a snapshot of.
    pub header: SnapshotHeader,
}

/// A place in a history, and when that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The end of the history as it was then.
    pub tail: Tail,
    /// The stamp of its last record, Unix milliseconds; 0 if it is not known.
    pub at_ms: u64,
}

/// The rows of one tenant as they were once, in key order.
pub struct PastState {
    /// The end of the history then.
    pub tail: Tail,
    rows: Box<dyn RowSource + Send>,
}

impl std::fmt::Debug for PastState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PastState(at {})", self.tail.lsn)
    }
}

impl RowSource for PastState {
    fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        self.rows.next_row()
    }
}

/// Every tenant's history.
pub struct History {
    log: Arc<dyn CommitLog>,
    archive: SharedArchive,
    scratch: PathBuf,
    serial: AtomicU64,
    proofs: Proofs,
}

/// A file for work on the way, removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "a scratch file stays until the next start");
        }
    }
}

/// A scratch file being read; removed with its reader.
struct StepRows {
    reader: SnapshotReader<BufReader<File>>,
    _file: Scratch,
}

impl RowSource for StepRows {
    fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        self.reader.next_row()
    }
    fn header(&self) -> Option<&SnapshotHeader> {
        Some(self.reader.header())
    }
}

type Base = Box<dyn RowSource + Send>;

impl History {
    /// The history in `log`, which reads on in the archive, and the snapshots in `archive`. What is
    /// left in `scratch` from an earlier process is removed.
    pub fn open(
        log: Arc<dyn CommitLog>,
        archive: SharedArchive,
        scratch: &Path,
    ) -> Result<Self, HistoryError> {
        let at = |source| HistoryError::Scratch { path: scratch.to_owned(), source };
        if scratch.exists() {
            std::fs::remove_dir_all(scratch).map_err(at)?;
        }
        std::fs::create_dir_all(scratch).map_err(at)?;
        RealDisk.restrict_dir(scratch).map_err(at)?;
        let (serial, proofs) = (AtomicU64::new(0), Proofs::default());
        Ok(Self { log, archive, scratch: scratch.to_owned(), serial, proofs })
    }

    /// The archive.
    pub fn archive(&self) -> &SharedArchive {
        &self.archive
    }

    /// Sees to it that there is a snapshot of the tenant's last record; returns it. Nothing if the
    /// tenant has no record. `progress` is told how many rows are written.
    pub fn take_snapshot(
        &self,
        keys: &TenantKeys,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Kept>, HistoryError> {
        let tenant = keys.tenant();
        let tail = self.log.tail(tenant)?;
        if tail == Tail::EMPTY {
            return Ok(None);
        }
        let newest = self.snapshots(keys)?.pop();
        if let Some(newest) = newest.filter(|newest| newest.header.tail() == tail)
            && self.is_whole(&newest, keys)?
        {
            return Ok(Some(newest));
        }
        let (base, delta) = self.gather(keys, tail.lsn)?;
        let (file, summary) = self.write_step(base, delta, keys, progress)?;
        let name = snapshot::object_name(tenant, summary.header.lsn, &summary.content);
        self.archive.put_file(&name, &file.0)?;
        let Summary { header, file_bytes: bytes, .. } = summary;
        self.proofs.made(&name, header);
        Ok(Some(Kept { name, bytes, modified_ms: 0, header }))
    }

    /// The state after record `lsn`.
    ///
    /// # Errors
    /// [`HistoryError::TooOld`] if it is not kept any more, [`HistoryError::NotYet`] if it never was.
    pub fn state_after(&self, keys: &TenantKeys, lsn: u64) -> Result<PastState, HistoryError> {
        let tenant = keys.tenant();
        let last = self.log.tail(tenant)?.lsn;
        if lsn > last {
            return Err(HistoryError::NotYet { tenant, wanted: lsn, last });
        }
        let (base, delta) = self.gather(keys, lsn)?;
        let tail = delta.tail();
        Ok(PastState { tail, rows: Box::new(Merged::new(base, delta)?) })
    }

    /// Where the history ended at a time: its last record stamped no later than `at_ms`.
    ///
    /// # Errors
    /// [`HistoryError::TooOld`] if that is before the tenant's first record or before what is kept.
    pub fn end_at(&self, keys: &TenantKeys, at_ms: u64) -> Result<Point, HistoryError> {
        let tenant = keys.tenant();
        let mut snapshots = self.snapshots(keys)?;
        let mut last = self.log.tail(tenant)?.lsn;
        let mut first_ms = None;
        loop {
            let below = snapshots.pop().map(|kept| kept.header);
            let from = below.map_or(1, |header| header.lsn + 1);
            match self.last_stamped(keys, from..=last, at_ms) {
                Ok(Stamped { found: Some(point), .. }) => return Ok(point),
                Ok(Stamped { first: Some(first), .. }) => first_ms = Some(first),
                Ok(Stamped { first: None, .. }) => {}
                Err(HistoryError::Log(LogError::Truncated { .. })) => {
                    return Err(too_old(tenant, first_ms));
                }
                Err(error) => return Err(error),
            }
            let Some(header) = below else { return Err(too_old(tenant, first_ms)) };
            if header.at_max_ms <= at_ms {
                return Ok(Point { tail: header.tail(), at_ms: header.at_max_ms });
            }
            last = header.lsn;
            if header.at_min_ms > at_ms {
                // None of the records between the two snapshots can be it.
                first_ms = Some(header.at_min_ms);
                while snapshots.last().is_some_and(|kept| kept.header.lsn > header.since_lsn) {
                    snapshots.pop();
                }
                last = header.since_lsn;
            }
        }
    }

    /// Looks for the last record stamped no later than `at_ms` among some.
    fn last_stamped(
        &self,
        keys: &TenantKeys,
        lsns: std::ops::RangeInclusive<u64>,
        at_ms: u64,
    ) -> Result<Stamped, HistoryError> {
        let mut stamped = Stamped::default();
        self.each_record(keys.tenant(), lsns, &mut |record| {
            let header = &record.header;
            let body = keys
                .open_record(header.lsn, header.epoch, &record.body)
                .map_err(|source| HistoryError::Sealed { lsn: header.lsn, source })?;
            stamped.first.get_or_insert(body.at_ms);
            if body.at_ms <= at_ms {
                stamped.found = Some(Point { tail: header.tail(), at_ms: body.at_ms });
            }
            Ok(())
        })?;
        Ok(stamped)
    }

    fn each_record(
        &self,
        tenant: TenantId,
        lsns: std::ops::RangeInclusive<u64>,
        visit: &mut dyn FnMut(&Record) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        let mut next = *lsns.start();
        while next <= *lsns.end() {
            let records = self.log.read_from(tenant, next, READ_BYTES)?;
            if records.is_empty() {
                break;
            }
            for record in records.iter().filter(|record| record.header.lsn <= *lsns.end()) {
                visit(record)?;
            }
            next += records.len() as u64;
        }
        Ok(())
    }

    /// The newest whole snapshot up to `lsn`, and what the records after it change.
    fn gather(&self, keys: &TenantKeys, lsn: u64) -> Result<(Option<Base>, Delta), HistoryError> {
        let tenant = keys.tenant();
        let base = self.newest_snapshot(keys, lsn)?;
        let header = base.as_ref().map(|kept| kept.header);
        let mut rows: Option<Base> = match base {
            Some(kept) => Some(Box::new(self.open_snapshot(&kept, keys)?)),
            None => None,
        };
        let mut delta = Delta::from_base(header.as_ref());
        let from = header.map_or(1, |header| header.lsn + 1);
        let gathered = self.each_record(tenant, from..=lsn, &mut |record| {
            delta.absorb(record, keys)?;
            if delta.bytes() >= DELTA_BYTES_MAX {
                let next = Delta::from_base(None);
                let full = std::mem::replace(&mut delta, next);
                let (file, summary) = self.write_step(rows.take(), full, keys, &mut |_| {})?;
                delta = Delta::from_step(&summary.header);
                rows = Some(Box::new(self.read_step(file, keys)?));
            }
            Ok(())
        });
        match gathered {
            Ok(()) => Ok((rows, delta)),
            Err(HistoryError::Log(LogError::Truncated { .. })) => Err(too_old(tenant, None)),
            Err(error) => Err(error),
        }
    }

    /// The rows of a snapshot.
    pub fn open_snapshot(
        &self,
        kept: &Kept,
        keys: &TenantKeys,
    ) -> Result<SnapshotReader<Box<dyn io::Read + Send>>, HistoryError> {
        Ok(SnapshotReader::open(self.archive.open(&kept.name)?, keys)?)
    }

    fn write_step(
        &self,
        base: Option<Base>,
        delta: Delta,
        keys: &TenantKeys,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Scratch, Summary), HistoryError> {
        let number = self.serial.fetch_add(1, Ordering::Relaxed);
        let file = Scratch(self.scratch.join(format!("{number}.snap")));
        let at = |source| HistoryError::Scratch { path: file.0.clone(), source };
        let out = BufWriter::new(File::create(&file.0).map_err(at)?);
        let (summary, mut out) = snapshot::merge(base, delta, keys, out, progress)?;
        out.flush().map_err(at)?;
        Ok((file, summary))
    }

    fn read_step(&self, file: Scratch, keys: &TenantKeys) -> Result<StepRows, HistoryError> {
        let at = |source| HistoryError::Scratch { path: file.0.clone(), source };
        let input = BufReader::new(File::open(&file.0).map_err(at)?);
        let reader = SnapshotReader::open(input, keys)?;
        Ok(StepRows { reader, _file: file })
    }
}

/// What a look at some records found.
#[derive(Default)]
struct Stamped {
    found: Option<Point>,
    first: Option<u64>,
}

fn too_old(tenant: TenantId, first_ms: Option<u64>) -> HistoryError {
    HistoryError::TooOld { tenant, from_ms: first_ms.unwrap_or_default() }
}
