//! What verifying found, as clients get it.
//!
//! Refuses nothing: it only says.

use schemars::JsonSchema;
use serde::Serialize;
use storage::id::TenantId;

use crate::tenant::state::AuditHead;

/// The first place where a tenant's history does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FirstBad {
    /// Sequence number of the first audit entry that is not proven.
    pub seq: u64,
    /// LSN of the record it is, or should be, in.
    pub lsn: u64,
    /// What is wrong there.
    pub what: String,
}

/// The anchored end that a history was compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AnchoredEnd {
    /// The checkpoint's number.
    pub checkpoint: u64,
    /// When the checkpoint was made.
    pub at: String,
    /// The last record then.
    pub lsn: u64,
    /// The last audit entry then.
    pub seq: u64,
}

/// The end of an audit chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ChainEnd {
    /// Sequence number of the last entry; 0 if there is none.
    pub seq: u64,
    /// Its hash, hexadecimal.
    pub hash: String,
}

impl From<AuditHead> for ChainEnd {
    fn from(head: AuditHead) -> Self {
        Self { seq: head.seq, hash: hex::encode(head.hash) }
    }
}

/// Why nothing of a tenant can be read, where that is no sign of tampering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoKey {
    /// The customer who holds its key withholds it: verify again when it is back.
    Withheld,
    /// Its key is gone, and no receipt says that it was erased.
    Gone,
}

/// What verifying one tenant found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditReport {
    /// Whose history.
    #[schemars(with = "String")]
    pub tenant: TenantId,
    /// Whether all of it holds.
    pub ok: bool,
    /// Audit entries that were checked and hold.
    pub entries: u64,
    /// Records that were checked and hold.
    pub records: u64,
    /// The last entry that holds.
    pub head: ChainEnd,
    /// The first place that does not hold.
    pub first_bad: Option<FirstBad>,
    /// What was anchored last, if anything was.
    pub anchored: Option<AnchoredEnd>,
    /// When the tenant was erased, as its receipt says. Then no entry can be read, and only the chain of
    /// its sealed records was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<String>,
    /// Why nothing could be read, if the key is not to be had. Then `first_bad` is where that began, and says
    /// nothing of a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_key: Option<NoKey>,
}

/// What verifying the anchor log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AnchorReport {
    /// Whether all of it holds.
    pub ok: bool,
    /// Checkpoints that hold.
    pub checkpoints: u64,
    /// Leaves in the tree.
    pub size: u64,
    /// The tree's root, hexadecimal.
    pub root: String,
    /// What is wrong, and from which checkpoint on.
    pub first_bad: Option<BadCheckpoint>,
}

/// The first checkpoint that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BadCheckpoint {
    /// Its number.
    pub checkpoint: u64,
    /// What is wrong.
    pub what: String,
}

/// What verifying a node found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NodeReport {
    /// Whether everything holds.
    pub ok: bool,
    /// Each tenant that was looked at.
    pub tenants: Vec<AuditReport>,
    /// The anchor log.
    pub anchors: AnchorReport,
}
