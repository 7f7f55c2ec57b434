//! The view: the current state of every tenant, made from the log and fast to read.
//!
//! It may be behind the log, and each tenant's [`Applied`] row says how far. Rows of records beyond
//! that may be in it already, after a kill; replay writes them again. It is never ahead of the log.
//! It can be deleted at any time. Bytes come in and go out sealed: this layer holds no keys.
//!
//! [`SledView`] keeps all tenants in one tree of one sled database, because a tree or a database
//! per tenant does not scale. This is the only file that names sled.
//!
//! Refuses: to be trusted across a power cut. sled never calls `fsync` on Linux, so only
//! [`View::checkpoint`] makes it durable, and the store decides whether to open it at all.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::id::{Id, TenantId};
use crate::record::{GENESIS, Hash};

pub mod applier;
pub mod memory;

pub use memory::MemoryView;

/// No key has this tag, so the row sorts before all others of its tenant.
const APPLIED_ROW: &[u8] = &[0];

/// Why the view cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// sled refused.
    #[error("the view's database failed")]
    Database(#[from] sled::Error),
    /// The disk said no while a checkpoint was made.
    #[error("the view cannot be made durable")]
    Io(#[from] io::Error),
    /// sled panicked over its files.
    #[error("the view's database cannot be opened")]
    Unopenable,
    /// The row that says how far a tenant is applied is not one.
    #[error("the view's applied row of {tenant} is malformed")]
    MalformedApplied {
        /// Whose row.
        tenant: TenantId,
    },
}

/// The last record of one tenant that the view holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Its LSN; 0 if there is none.
    pub lsn: u64,
    /// Its hash, which ties the view to one history.
    pub hash: Hash,
}

impl Applied {
    /// Nothing applied yet.
    pub const NONE: Self = Self { lsn: 0, hash: GENESIS };

    fn encode(&self) -> Vec<u8> {
        [&self.lsn.to_be_bytes()[..], &self.hash].concat()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (lsn, hash) = bytes.split_first_chunk()?;
        Some(Self { lsn: u64::from_be_bytes(*lsn), hash: hash.try_into().ok()? })
    }
}

/// One row to write: a sealed value, or nothing to delete the row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Whose row.
    pub tenant: TenantId,
    /// The encoded key.
    pub key: Arc<[u8]>,
    /// The sealed value.
    pub value: Option<Vec<u8>>,
}

/// Encoded keys from `start` (inclusive) to `end` (exclusive), and the order to visit them in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The first key of the run.
    pub start: Vec<u8>,
    /// The first key after the run; never before `start`.
    pub end: Vec<u8>,
    /// From the end to the start.
    pub reverse: bool,
}

/// Called with each key and sealed value of a scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Sealed rows of many tenants, in key order.
pub trait View: Send + Sync + 'static {
    /// Calls `read` with the sealed value of `key`, if there is one.
    fn get(
        &self,
        tenant: TenantId,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ViewError>;
    /// Visits the rows of one run until `visit` breaks.
    fn scan(&self, tenant: TenantId, rows: &Rows, visit: Visit<'_>) -> Result<(), ViewError>;
    /// Writes rows, and only then how far each tenant is applied by them. If the process is killed
    /// between, the rows are written again by the next replay.
    fn apply(&self, rows: Vec<Row>, applied: &[(TenantId, Applied)]) -> Result<(), ViewError>;
    /// How far the view holds a tenant.
    fn applied(&self, tenant: TenantId) -> Result<Applied, ViewError>;
    /// Forgets a tenant. Not atomic: its applied row goes first, so that a view dropped by half
    /// is made again from the start of the log.
    fn drop_tenant(&self, tenant: TenantId) -> Result<(), ViewError>;
    /// Makes everything applied so far survive loss of power.
    fn checkpoint(&self) -> Result<(), ViewError>;
    /// Bytes on disk, or in memory for a view that has no disk.
    fn size_bytes(&self) -> u64;
}

/// The tenant in front of the key: what the shared tree is ordered by.
fn prefixed(tenant: TenantId, key: &[u8]) -> Vec<u8> {
    [tenant.as_bytes(), key].concat()
}

/// The view in one sled database.
#[derive(Debug)]
pub struct SledView {
    db: sled::Db,
    dir: PathBuf,
}

impl SledView {
    /// Opens or makes the database in `dir`, with at most about `cache_bytes` of page cache.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, ViewError> {
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .use_compression(false)
            .mode(sled::Mode::HighThroughput)
            .open()?;
        Ok(Self { db, dir: dir.to_owned() })
    }
}

impl View for SledView {
    fn get(
        &self,
        tenant: TenantId,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ViewError> {
        if let Some(value) = self.db.get(prefixed(tenant, key))? {
            read(&value);
        }
        Ok(())
    }

    fn scan(&self, tenant: TenantId, rows: &Rows, visit: Visit<'_>) -> Result<(), ViewError> {
        let mut range = self.db.range(prefixed(tenant, &rows.start)..prefixed(tenant, &rows.end));
        while let Some(row) = if rows.reverse { range.next_back() } else { range.next() } {
            let (key, value) = row?;
            if visit(&key[TenantId::PLATFORM.as_bytes().len()..], &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, rows: Vec<Row>, applied: &[(TenantId, Applied)]) -> Result<(), ViewError> {
        // Not `apply_batch`: it shuts every reader of the database out until the batch is done, and
        // its rows cost no less. One thread writes, and what sled recovers after a kill is a prefix
        // of what it was given, so an applied row never outlives the rows before it.
        for row in rows {
            let key = prefixed(row.tenant, &row.key);
            match row.value {
                Some(value) => self.db.insert(key, value)?,
                None => self.db.remove(key)?,
            };
        }
        for (tenant, applied) in applied {
            self.db.insert(prefixed(*tenant, APPLIED_ROW), applied.encode())?;
        }
        Ok(())
    }

    fn applied(&self, tenant: TenantId) -> Result<Applied, ViewError> {
        match self.db.get(prefixed(tenant, APPLIED_ROW))? {
            None => Ok(Applied::NONE),
            Some(row) => Applied::decode(&row).ok_or(ViewError::MalformedApplied { tenant }),
        }
    }

    fn drop_tenant(&self, tenant: TenantId) -> Result<(), ViewError> {
        self.db.remove(prefixed(tenant, APPLIED_ROW))?;
        for key in self.db.scan_prefix(tenant.as_bytes()).keys() {
            self.db.remove(key?)?;
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), ViewError> {
        // `flush` ends in sync_file_range, which makes nothing durable; the fsyncs do.
        self.db.flush()?;
        sync_tree(&self.dir)?;
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

/// Fsyncs every file below `dir`, then the directories.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
            continue;
        }
        match std::fs::File::open(entry.path()) {
            Ok(file) => file.sync_all()?,
            // sled removes outdated snapshots by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: TenantId = TenantId::PLATFORM;

    fn bob() -> TenantId {
        TenantId::new(9, [9; 10])
    }

    fn row(tenant: TenantId, key: &str, value: Option<&str>) -> Row {
        Row { tenant, key: key.as_bytes().into(), value: value.map(|v| v.as_bytes().to_vec()) }
    }

    fn scanned(view: &dyn View, tenant: TenantId, reverse: bool) -> Vec<String> {
        let rows = Rows { start: b"b".to_vec(), end: b"d".to_vec(), reverse };
        let mut seen = Vec::new();
        view.scan(tenant, &rows, &mut |key, value| {
            seen.push(format!(
                "{}={}",
                String::from_utf8_lossy(key),
                String::from_utf8_lossy(value)
            ));
            ControlFlow::Continue(())
        })
        .unwrap();
        seen
    }

    fn behaves(view: &dyn View) {
        assert_eq!(view.applied(ADA).unwrap(), Applied::NONE);
        let rows = ["a", "b", "c", "d"].map(|key| row(ADA, key, Some(key)));
        let applied = Applied { lsn: 3, hash: [3; 32] };
        view.apply(rows.to_vec(), &[(ADA, applied)]).unwrap();
        view.apply(vec![row(bob(), "b", Some("x"))], &[(bob(), applied)]).unwrap();
        assert_eq!(scanned(view, ADA, false), ["b=b", "c=c"]);
        assert_eq!(scanned(view, ADA, true), ["c=c", "b=b"]);
        assert_eq!(view.applied(ADA).unwrap(), applied);
        view.apply(vec![row(ADA, "b", None), row(ADA, "c", Some("z"))], &[]).unwrap();
        assert_eq!(scanned(view, ADA, false), ["c=z"]);
        view.checkpoint().unwrap();
        view.drop_tenant(ADA).unwrap();
        assert_eq!(view.applied(ADA).unwrap(), Applied::NONE);
        let mut found = false;
        view.get(ADA, b"d", &mut |_| found = true).unwrap();
        assert!(!found, "a dropped tenant still has rows");
        assert_eq!(scanned(view, bob(), false), ["b=x"]);
    }

    #[test]
    fn both_views_behave_the_same() {
        let dir = tempfile::tempdir().unwrap();
        behaves(&SledView::open(dir.path(), 1 << 20).unwrap());
        behaves(&MemoryView::default());
    }
}
