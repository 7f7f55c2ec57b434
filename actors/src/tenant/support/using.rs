//! Using a support session: its token is proven by the tenant, and each request is in the tenant's own audit log
//! before anything is shown.

use super::{SupportRow, key};
use crate::audit::entry::{Draft, Named};
use crate::permit::{self, SupportPrincipal};
use crate::tenant::api_keys::text::PresentedSupport;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;

/// Whose a token is, and until when, Unix milliseconds; nothing, whatever is wrong with it.
#[derive(Debug)]
pub struct ProveSupport {
    /// What was presented.
    pub presented: PresentedSupport,
}

impl Query for ProveSupport {
    type Action = permit::SignIn;
    type Reply = Option<(SupportPrincipal, u64)>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError> {
        let row: Option<SupportRow> = cx.row(&key(self.presented.id))?;
        let digest = row.as_ref().and_then(|row| row.digest.as_ref());
        let is_right = self.presented.is_of(cx, digest.map(|digest| &digest[..]));
        let Some(row) = row.filter(|_| is_right) else { return Ok(None) };
        let principal = row.principal(cx.now_ms());
        Ok(principal.map(|principal| (principal, row.expires_ms.unwrap_or(0))))
    }
}

/// Writes down that a session was used, and for what.
pub(crate) struct RecordSupportUse {
    /// What it is used for.
    pub route: &'static str,
    /// The record it is about.
    pub about: Named,
}

impl Command for RecordSupportUse {
    type Action = permit::Operate;
    type Reply = ();
    const NAME: &'static str = "support.use";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        self.about.clone()
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        cx.audit(Draft::success(Self::NAME, self.about).with("route", self.route));
        Ok(())
    }
}
