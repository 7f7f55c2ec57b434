//! Taking up a tenant that another node made.
//!
//! Refuses: to serve it. Whoever fills it resumes it when it is whole.

use std::sync::Arc;

use crate::call::Origin;
use crate::permit::{Permit, WriteTenants};
use crate::supervisor::door::{PLATFORM_SLUG, Tenants, to_its_end};
use crate::tenant::directory::TenantSummary;
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::portable::admit::AdmitTenant;

impl Tenants {
    /// Where tenants' data is: the node's region.
    pub(crate) fn region(&self) -> &str {
        &self.parts().region
    }

    /// Enters a tenant into the directory, suspended, and makes its key. Again for the same one: nothing
    /// more than that.
    ///
    /// # Errors
    /// [`Conflict::SlugTaken`] if another tenant has the short name, or this one has another or is served.
    pub(crate) async fn admit(
        &self,
        permit: Permit<WriteTenants>,
        origin: Origin,
        admit: AdmitTenant,
    ) -> Result<Arc<TenantSummary>, TenantError> {
        if admit.row.slug == PLATFORM_SLUG {
            return Err(TenantError::Conflict(Conflict::SlugTaken));
        }
        let tenants = self.clone();
        to_its_end(async move {
            let tenant = admit.row.id;
            let row = tenants.record(permit, &origin, &None, admit).await?.reply;
            tenants.keep(row.clone());
            tenants.make_keys(tenant).await?;
            Ok(Arc::new(row.into()))
        })
        .await
    }
}
