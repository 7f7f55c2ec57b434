//! What a bundle says of itself, signed by the node that wrote it.
//!
//! It names the tenant and shows sizes and hashes; whoever finds a bundle reads it without a key. No
//! content is in it. Refuses: texts without bounds, and to contradict itself.

use serde::{Deserialize, Serialize};
use storage::id::TenantId;

use crate::backup::digest::Digest;
use crate::backup::manifest::{TEXT_BYTES_MAX, TailRef};
use crate::backup::signed::{Document, Flaw, Signed, must};
use crate::tenant::portable::proof::AnchorProof;

/// The format written and the newest read; also of the bytes around it.
pub const FORMAT: u32 = 1;
/// Bytes of a manifest at most.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;

/// The sealed rows behind the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadRef {
    /// The digest of its bytes.
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
    /// The id of the key that opens it.
    pub key_id: String,
}

/// The audit log in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSpan {
    /// How many entries it has, from the tenant's first one on.
    pub entries: u64,
    /// Sequence number of the last one.
    pub seq: u64,
    /// Hash of that one.
    pub hash: Digest,
}

/// A bundle's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    /// The format: [`FORMAT`].
    pub format: u32,
    /// The release that wrote it, for people.
    pub release: String,
    /// The node that wrote it, under whose name it also signs its checkpoints.
    pub origin: String,
    /// Where the data was.
    pub region: String,
    /// Which tenant.
    pub tenant: TenantId,
    /// Its short name.
    pub slug: String,
    /// The name people see.
    pub name: String,
    /// Its plan.
    pub plan: String,
    /// When it was written: Unix milliseconds.
    pub exported_ms: u64,
    /// The last record of the state in it.
    pub source: TailRef,
    /// The rows.
    pub payload: PayloadRef,
    /// The hash of everything that is the tenant's but its audit log: the same wherever it lives.
    pub content_hash: Digest,
    /// The audit log.
    pub audit: AuditSpan,
    /// The newest signed checkpoint over it, if there is one up to the last record.
    pub checkpoint: Option<AnchorProof>,
}

/// A manifest as it stands in a bundle.
pub type SignedManifest = Signed<BundleManifest>;

impl Document for BundleManifest {
    const KIND: &'static str = "tenant-bundle";
    const FORMAT: u32 = FORMAT;
    const BYTES_MAX: usize = MANIFEST_BYTES_MAX;

    fn format(&self) -> u32 {
        self.format
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn check(&self) -> Result<(), Flaw> {
        for (field, text) in [
            ("release", &self.release),
            ("origin", &self.origin),
            ("region", &self.region),
            ("slug", &self.slug),
            ("name", &self.name),
            ("plan", &self.plan),
        ] {
            let fits = (1..=TEXT_BYTES_MAX).contains(&text.len());
            must(fits, field, "is empty or too long")?;
            must(!text.chars().any(char::is_control), field, "has control characters")?;
        }
        must(self.tenant != TenantId::PLATFORM, "tenant", "is the platform itself")?;
        must(self.source.lsn > 0, "source", "has no record")?;
        must(self.payload.rows > 0, "payload", "has no rows")?;
        let is_id = self.payload.key_id.len() == 16
            && self.payload.key_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        must(is_id, "payload.key_id", "is not 16 hexadecimal digits")?;
        must(self.audit.entries == self.audit.seq, "audit", "does not begin with the first entry")?;
        match &self.checkpoint {
            Some(proof) => proof.check(self.source.lsn, self.audit.seq),
            None => Ok(()),
        }
    }
}
