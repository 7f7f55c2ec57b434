//! What a tenant uses of its plan.
//!
//! Read-only: the counters are kept by whoever writes what they count, in the same record.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::env::rfc3339;
use crate::permit;
use crate::quota::Quota;
use crate::tenant::cx::{Query, ReadCx, Reads};
use crate::tenant::error::TenantError;

/// One quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct QuotaUsage {
    /// What is used.
    pub used: u64,
    /// The plan's limit; absent if there is none.
    pub limit: Option<u64>,
}

/// Everything that counts against the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct UsageView {
    /// The plan's name.
    pub plan: String,
    /// When only reads will work, RFC 3339 UTC; absent if the plan does not end.
    pub trial_ends_at: Option<String>,
    /// Whether that time has passed.
    pub trial_ended: bool,
    /// Each quota by its name.
    #[schemars(with = "BTreeMap<String, QuotaUsage>")]
    pub quotas: BTreeMap<&'static str, QuotaUsage>,
}

/// What is used and what may be.
pub struct ReadUsage;

impl Query for ReadUsage {
    type Action = permit::ReadUsage;
    type Reply = UsageView;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<UsageView, TenantError> {
        let profile = cx.state().profile.as_ref().ok_or(TenantError::NotFound)?;
        let quotas = Quota::ALL.into_iter().map(|quota| {
            let used = cx.state().used(quota);
            (quota.name(), QuotaUsage { used, limit: cx.plan().limit(quota) })
        });
        Ok(UsageView {
            plan: profile.plan.clone(),
            trial_ends_at: profile.trial_ends_ms.map(rfc3339),
            trial_ended: profile.trial_ends_ms.is_some_and(|ends_ms| cx.now_ms() >= ends_ms),
            quotas: quotas.collect(),
        })
    }
}
