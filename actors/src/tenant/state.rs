//! The compartment's own row: what must be known before any command runs.
//!
//! It is written in the same record as whatever changes it, so counters, the head of the audit
//! chain and the data they speak of can never disagree.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use storage::id::RestoreId;
use storage::record::Hash;

use crate::quota::{Quota, Used};

/// Who the tenant is. Changes rarely, so it is shared between copies of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The short name in URLs and at sign-in.
    pub slug: String,
    /// The name people see.
    pub name: String,
    /// The plan's name in the plan table.
    pub plan: String,
    /// Where the tenant's data is.
    pub region: String,
    /// When the tenant was made, Unix milliseconds.
    pub created_ms: u64,
    /// When the trial ends, Unix milliseconds.
    pub trial_ends_ms: Option<u64>,
    /// Counts changes of this profile; becomes the `ETag` of `/v1/tenant`.
    pub version: u64,
    /// Whether everybody needs a second factor.
    #[serde(default)]
    pub mfa_required: bool,
    /// Whether somebody of the tenant has to approve each support session.
    #[serde(default)]
    pub support_approval: bool,
}

/// The end of the audit chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Sequence number of the last entry; 0 if there is none.
    pub seq: u64,
    /// Its hash; zeros if there is none.
    #[serde(with = "serde_bytes")]
    pub hash: Hash,
}

impl AuditHead {
    /// Before the first entry.
    pub const NONE: Self = Self { seq: 0, hash: storage::record::GENESIS };
}

/// The state row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantState {
    /// Absent until the tenant's first record.
    pub profile: Option<Arc<Profile>>,
    /// What is used of each quota.
    pub used: Used,
    /// The end of the audit chain.
    pub audit: AuditHead,
    /// Owners that can sign in: the last one cannot go.
    pub owners: u32,
    /// A restore that was asked for and is not finished. Nobody is served before it is.
    #[serde(default)]
    pub restore: Option<PendingRestore>,
    /// Sequence number of the last audit entry that is in the archive; 0 if none is.
    #[serde(default)]
    pub audit_archived: u64,
    /// The mails that wait to be sent.
    #[serde(default)]
    pub mail: Outbox,
}

/// What must be known of the waiting mails without looking at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outbox {
    /// How many there are.
    pub waiting: u32,
    /// When the first of them is due, Unix milliseconds.
    pub due_ms: u64,
}

/// A restore that is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRestore {
    /// Which.
    pub id: RestoreId,
    /// The record after which the wanted state was.
    pub lsn: u64,
    /// Whether some of the rows are as they were already.
    pub is_begun: bool,
}

impl Default for TenantState {
    fn default() -> Self {
        Self {
            profile: None,
            used: Used::default(),
            audit: AuditHead::NONE,
            owners: 0,
            restore: None,
            audit_archived: 0,
            mail: Outbox::default(),
        }
    }
}

impl TenantState {
    /// How much of `quota` is used.
    pub fn used(&self, quota: Quota) -> u64 {
        self.used.of(quota)
    }
}
