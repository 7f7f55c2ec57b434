//! Erasing a tenant, as operators ask for it, take it back and see how far it is.

use actors::call::Origin;
use actors::env::rfc3339;
use actors::erasure::ErasureError;
use actors::tenant::directory::{DirectoryRow, Standing, by_the_node};
use serde::{Deserialize, Serialize};
use storage::id::TenantId;

use super::{ControlError, ControlReply, REASON, error_chain};
use crate::http::app::App;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureOrder {
    /// The tenant's id or short name, also of one that is erased.
    pub tenant: String,
    /// Why.
    pub reason: Option<String>,
    /// Waives the delay.
    pub force: bool,
    /// Takes back what was asked for before.
    pub cancel: bool,
}

/// How far an erasure is. Times are RFC 3339 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReport {
    /// The tenant.
    pub tenant: TenantId,
    /// Its short name.
    pub slug: String,
    /// What it is now.
    pub status: Standing,
    /// When it was asked for; absent if it is not.
    pub requested_at: Option<String>,
    /// From when on it is carried out.
    pub due_at: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When everything was destroyed.
    pub erased_at: Option<String>,
    /// The signed receipt, byte by byte.
    pub receipt: Option<String>,
}

impl From<DirectoryRow> for ErasureReport {
    fn from(row: DirectoryRow) -> Self {
        let erasure = row.erasure;
        let of = |pick: fn(&actors::erasure::row::ErasureRow) -> Option<u64>| {
            erasure.as_ref().and_then(pick).map(rfc3339)
        };
        Self {
            tenant: row.id,
            slug: row.slug,
            status: row.standing,
            requested_at: of(|erasure| Some(erasure.requested_ms)),
            due_at: of(|erasure| Some(erasure.due_ms)),
            erased_at: of(|erasure| erasure.erased_ms),
            reason: erasure.as_ref().and_then(|erasure| erasure.reason.clone()),
            receipt: erasure.and_then(|erasure| erasure.receipt),
        }
    }
}

/// Carries it out.
pub(super) async fn execute(app: &App, order: ErasureOrder) -> Result<ControlReply, ControlError> {
    let ErasureOrder { tenant: text, reason, force, cancel } = order;
    let tenant = find(app, &text)?;
    let (permit, origin) = (by_the_node(REASON), Origin::default());
    let outcome = match cancel {
        true => app.erasures.cancel(permit, origin, tenant).await,
        false => app.erasures.request(permit, origin, tenant, reason, force).await,
    };
    match outcome {
        Ok(row) => Ok(ControlReply::Erasure(row.into())),
        Err(error @ (ErasureError::ReasonNeeded | ErasureError::ReasonTooLong)) => {
            Err(ControlError::invalid(error.to_string()))
        }
        Err(ErasureError::Tenant(error)) => Err(error.into()),
        Err(error) => Err(ControlError::Refused { message: error_chain(&error) }),
    }
}

/// A tenant by id or short name; also an erased one, which nobody else finds by its name.
pub(super) fn find(app: &App, text: &str) -> Result<TenantId, ControlError> {
    let is_it = |id: TenantId, slug: &str| slug == text || text.parse() == Ok(id);
    let found = app.tenants.list().into_iter().find(|summary| is_it(summary.id, &summary.slug));
    let absent = || ControlError::NoTenant { tenant: text.to_owned() };
    found.map(|summary| summary.id).ok_or_else(absent)
}
