//! Quotas and plans: the table, and the keeper that watches what tenants use of it.
//!
//! The check itself is made where the write is made, in the tenant's own transaction (see
//! [`Cx::charge`](crate::tenant::cx::Cx::charge)): that is what makes it exact under any concurrency.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub mod keeper;

/// Something a plan limits.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// People in the tenant.
    Members,
    /// Forms that are not archived.
    Forms,
    /// Submissions kept.
    Submissions,
    /// Bytes of rows kept, keys included.
    StorageBytes,
}

impl Quota {
    /// Every quota.
    pub const ALL: [Self; 4] = [Self::Members, Self::Forms, Self::Submissions, Self::StorageBytes];
    /// Its name in configuration, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Forms => "forms",
            Self::Submissions => "submissions",
            Self::StorageBytes => "storage_bytes",
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a tenant used, exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used([u64; 4]);

impl Used {
    /// How much of `quota`.
    pub fn of(&self, quota: Quota) -> u64 {
        self.0[quota as usize]
    }
    pub(crate) fn set(&mut self, quota: Quota, to: u64) {
        self.0[quota as usize] = to;
    }
}

/// A plan: limits by quota (absent: unlimited), and how long it lasts if it is a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// People.
    pub members: Option<u64>,
    /// Forms.
    pub forms: Option<u64>,
    /// Submissions.
    pub submissions: Option<u64>,
    /// Bytes.
    pub storage_bytes: Option<u64>,
    /// Days until only reads work; absent: for ever.
    pub days: Option<u32>,
}

impl Plan {
    /// The limit on `quota`, if there is one.
    pub fn limit(&self, quota: Quota) -> Option<u64> {
        match quota {
            Quota::Members => self.members,
            Quota::Forms => self.forms,
            Quota::Submissions => self.submissions,
            Quota::StorageBytes => self.storage_bytes,
        }
    }
}

/// Every plan by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plans(pub BTreeMap<String, Plan>);

impl Plans {
    /// The plan of that name.
    pub fn get(&self, name: &str) -> Option<&Plan> {
        self.0.get(name)
    }
}
