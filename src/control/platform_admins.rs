//! Removing a platform administrator, and what they left open in tenants.
//!
//! They are gone with one record of the platform's compartment, and nothing they were given is good from then on.
//! Ending their support sessions in the tenants comes after, so that those read it there; a tenant that cannot be
//! told now shows the session as it was, and the node refuses its token all the same.

use actors::call::Origin;
use actors::permit::Operate;
use actors::tenant::error::{Conflict, TenantError};
use actors::tenant::platform::admins::RemovePlatformAdmin;
use actors::tenant::support::asking::{EndSupport, SupportAsked};
use serde::{Deserialize, Serialize};
use storage::id::{TenantId, UserId};

use super::{ControlError, ControlReply, by_the_operator};
use crate::http::app::App;

/// A platform administrator who was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminRemoved {
    /// Who it was.
    pub id: UserId,
    /// Their address.
    pub email: String,
    /// How many of their sessions ended.
    pub sessions_ended: u64,
    /// How many of their support sessions, waiting or open, ended.
    pub support_ended: u64,
    /// Tenants that could not be told now. The tokens of those sessions are refused all the same.
    pub tenants_not_told: Vec<TenantId>,
}

/// Removes one.
pub(super) async fn remove(app: &App, email: String) -> Result<ControlReply, ControlError> {
    let platform = app.tenants.find(TenantId::PLATFORM).await?;
    let command = RemovePlatformAdmin { email: email.clone() };
    let permit = by_the_operator(TenantId::PLATFORM);
    let removed = platform.command(permit, Origin::default(), None, command).await;
    let removed = removed.map_err(|error| match error {
        TenantError::NotFound => {
            ControlError::refused(format!("there is no platform administrator {email:?}"))
        }
        TenantError::Conflict(Conflict::LastOwner) => ControlError::refused(
            "that is the last platform administrator who can sign in; make another one first",
        ),
        error => error.into(),
    })?;
    let removed = removed.reply;
    let (mut support_ended, mut tenants_not_told) = (0, Vec::new());
    for asked in removed.support {
        match end(app, &asked).await {
            Ok(is_ended) => support_ended += u64::from(is_ended),
            // It was never begun there: there is nothing to end.
            Err(TenantError::NotFound) => {}
            Err(error) => {
                let (tenant, support) = (asked.tenant, asked.asked.id);
                tracing::warn!(tenant.id = %tenant, %support, %error, "a tenant cannot be told now that a support session is over");
                tenants_not_told.push(tenant);
            }
        }
    }
    tenants_not_told.dedup();
    Ok(ControlReply::AdminRemoved(AdminRemoved {
        id: removed.user,
        email: removed.email,
        sessions_ended: removed.sessions,
        support_ended,
        tenants_not_told,
    }))
}

async fn end(app: &App, asked: &SupportAsked) -> Result<bool, TenantError> {
    let door = app.tenants.find(asked.tenant).await?;
    let permit = by_the_operator::<Operate>(asked.tenant);
    let command = EndSupport { id: asked.asked.id, is_removal: true };
    Ok(door.command(permit, Origin::default(), None, command).await?.reply)
}
