//! What a backup consists of: for each tenant where its history ended and the newest snapshot of
//! it, and the log segments, wrapped keys and anchors that go with them.
//!
//! Names of people, tenants' own names and anything sealed stay out of it: a manifest may be read
//! by whoever may list the archive. It refuses to name objects in any place but their own, or
//! lists out of order.

use serde::{Deserialize, Serialize};
use storage::id::{BackupId, TenantId};
use storage::log::Tail;

use super::digest::Digest;
use super::name::ObjectName;
use super::signed::{Document, Flaw, Signed, must};

/// The format written and the newest read.
pub const FORMAT: u32 = 1;
/// Bytes of a manifest at most: a quarter of a million tenants, with a snapshot each.
pub const MANIFEST_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes of an origin, a region or a note at most.
pub const TEXT_BYTES_MAX: usize = 1024;

/// An object a backup needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// Its whole name in the archive.
    pub name: String,
    /// The digest of its bytes; of a snapshot, without the last 32 of them, which hold it.
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
}

/// The end of a tenant's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailRef {
    /// LSN of the last record; 0 if there is none.
    pub lsn: u64,
    /// Epoch of the last record.
    pub epoch: u64,
    /// Hash of the last record.
    pub hash: Digest,
}

impl From<Tail> for TailRef {
    fn from(tail: Tail) -> Self {
        Self { lsn: tail.lsn, epoch: tail.epoch, hash: Digest(tail.hash) }
    }
}

impl From<TailRef> for Tail {
    fn from(tail: TailRef) -> Self {
        Self { lsn: tail.lsn, epoch: tail.epoch, hash: tail.hash.0 }
    }
}

/// The end of a tenant's audit chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRef {
    /// Sequence number of the last entry.
    pub seq: u64,
    /// Hash of that entry.
    pub hash: Digest,
}

/// A snapshot of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRef {
    /// The last record that is in it.
    pub lsn: u64,
    /// Where it is.
    pub object: ObjectRef,
}

/// What a backup has of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRef {
    /// Which tenant.
    pub tenant: TenantId,
    /// Where its history ended: a restore gives the state after this record.
    pub tail: TailRef,
    /// The newest snapshot up to there; without one the history is replayed from its beginning.
    pub snapshot: Option<SnapshotRef>,
    /// Its wrapped data key; nothing if it was erased. Shared by backups, and gone once it is erased, so that
    /// no backup opens it any more.
    pub key: Option<ObjectRef>,
    /// Where its audit chain ended, as far as it was known without waking the tenant.
    pub audit: Option<AuditRef>,
    /// The audit entries that are in the archive, by rising sequence numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit_chunks: Vec<ChunkRef>,
}

/// A run of audit entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkRef {
    /// The sequence number of the last of them.
    pub last: u64,
    /// Where they are.
    pub object: ObjectRef,
}

/// A sealed segment of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRef {
    /// Its number.
    pub number: u64,
    /// Where it is.
    pub object: ObjectRef,
}

/// A backup of a node: every object that a restore onto an empty machine needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupManifest {
    /// The format: [`FORMAT`].
    pub format: u32,
    /// Its name.
    pub id: BackupId,
    /// The node's name, under which it also signs its anchors.
    pub origin: String,
    /// The node's region. Data does not leave it.
    pub region: String,
    /// The moment it shows: Unix milliseconds. Every record durable before is in it.
    pub taken_ms: u64,
    /// When it was complete: Unix milliseconds.
    pub finished_ms: u64,
    /// What a person said about it.
    pub note: Option<String>,
    /// The format of the data directory it is of.
    pub store_format: u32,
    /// The backup before, which `new_bytes` compares with. It is not needed for a restore.
    pub base: Option<BackupId>,
    /// Bytes that were not in the archive before.
    pub new_bytes: u64,
    /// Bytes of all objects named here.
    pub total_bytes: u64,
    /// The tenants, in id order.
    pub tenants: Vec<TenantRef>,
    /// The segments, in number order.
    pub segments: Vec<SegmentRef>,
    /// The node's own secrets, wrapped; without the key that wrapped them they are worthless.
    pub keys: ObjectRef,
    /// The ids of the versions of the key-encryption key that wrapped them and the tenants' keys.
    pub keks: Vec<String>,
    /// A copy of the anchor log.
    pub anchors: ObjectRef,
}

/// A manifest as the archive keeps it.
pub type SignedManifest = Signed<BackupManifest>;

impl BackupManifest {
    /// Every object it needs, each once. The manifest itself is not among them.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        let snapshots = self.tenants.iter().filter_map(|tenant| tenant.snapshot.as_ref());
        [&self.keys, &self.anchors]
            .into_iter()
            .chain(self.tenants.iter().filter_map(|tenant| tenant.key.as_ref()))
            .chain(snapshots.map(|snapshot| &snapshot.object))
            .chain(self.chunks().map(|chunk| &chunk.object))
            .chain(self.segments.iter().map(|segment| &segment.object))
    }
    /// What it has of a tenant.
    pub fn tenant(&self, tenant: TenantId) -> Option<&TenantRef> {
        let at = self.tenants.binary_search_by_key(&tenant, |one| one.tenant).ok()?;
        self.tenants.get(at)
    }
    /// Every run of archived audit entries.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkRef> {
        self.tenants.iter().flat_map(|tenant| &tenant.audit_chunks)
    }
    /// What `total_bytes` has to be, if it is a number at all.
    pub fn sum_bytes(&self) -> Option<u64> {
        self.objects().try_fold(0u64, |sum, object| sum.checked_add(object.bytes))
    }
    /// The name of the object it is kept as.
    pub fn name(&self) -> ObjectName {
        ObjectName::Manifest(self.id)
    }

    fn check_header(&self) -> Result<(), Flaw> {
        let is_short = |text: &str| text.len() <= TEXT_BYTES_MAX;
        must(!self.origin.is_empty() && is_short(&self.origin), "origin", "is empty or too long")?;
        must(!self.region.is_empty() && is_short(&self.region), "region", "is empty or too long")?;
        must(self.note.as_deref().is_none_or(is_short), "note", "is too long")?;
        must(self.taken_ms <= self.finished_ms, "finished_ms", "is before it was taken")?;
        must(self.keks.iter().all(|kek| is_short(kek)), "keks", "has too long an id")?;
        must(self.base != Some(self.id), "base", "is the backup itself")?;
        must(self.sum_bytes() == Some(self.total_bytes), "total_bytes", "is not the sum")?;
        must(self.new_bytes <= self.total_bytes, "new_bytes", "is more than all there is")?;
        check_name(&self.keys, "keys", ObjectName::Keys(self.id))?;
        check_name(&self.anchors, "anchors", ObjectName::Anchors(self.id))
    }
}

impl TenantRef {
    fn check(&self, field: &str) -> Result<(), Flaw> {
        if let Some(key) = &self.key {
            let prefix = key.sha256.prefix();
            check_name(key, field, ObjectName::TenantKey { tenant: self.tenant, prefix })?;
        }
        for ChunkRef { last, object } in &self.audit_chunks {
            let (tenant, last, prefix) = (self.tenant, *last, object.sha256.prefix());
            check_name(object, field, ObjectName::AuditChunk { tenant, last, prefix })?;
        }
        let is_sorted = self.audit_chunks.is_sorted_by(|a, b| a.object.name < b.object.name);
        must(is_sorted, field, "has audit entries that are not in order, each once")?;
        let Some(SnapshotRef { lsn, object }) = &self.snapshot else { return Ok(()) };
        must(*lsn <= self.tail.lsn, field, "has a snapshot from after its end")?;
        let prefix = object.sha256.prefix();
        check_name(object, field, ObjectName::Snapshot { tenant: self.tenant, lsn: *lsn, prefix })
    }
}

/// Whether the object bears the only name it may have.
fn check_name(object: &ObjectRef, field: &str, wanted: ObjectName) -> Result<(), Flaw> {
    must(object.name == wanted.to_string(), field, "names another object than its own")
}

impl Document for BackupManifest {
    const KIND: &'static str = "backup-manifest";
    const FORMAT: u32 = FORMAT;
    const BYTES_MAX: usize = MANIFEST_BYTES_MAX;

    fn format(&self) -> u32 {
        self.format
    }
    fn origin(&self) -> &str {
        &self.origin
    }
    fn check(&self) -> Result<(), Flaw> {
        self.check_header()?;
        let is_sorted = self.tenants.is_sorted_by(|a, b| a.tenant < b.tenant);
        must(is_sorted, "tenants", "are not in id order, each once")?;
        let is_sorted = self.segments.is_sorted_by(|a, b| a.number < b.number);
        must(is_sorted, "segments", "are not in number order, each once")?;
        for (at, tenant) in self.tenants.iter().enumerate() {
            tenant.check(&format!("tenants[{at}]"))?;
        }
        for (at, SegmentRef { number, object }) in self.segments.iter().enumerate() {
            let wanted = ObjectName::Segment { number: *number, prefix: object.sha256.prefix() };
            check_name(object, &format!("segments[{at}]"), wanted)?;
        }
        Ok(())
    }
}
