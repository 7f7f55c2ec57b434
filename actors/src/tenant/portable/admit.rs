//! Room for a tenant that another node made: its entry in the directory, not served before it is whole.
//!
//! The platform's record comes first, as for every tenant. What stops an import after it, the same import
//! repeated brings to its end: the entry stays suspended meanwhile. Refuses: a tenant that is served, and a
//! short name that is somebody else's.

use storage::id::TenantId;
use storage::keys::Key;

use crate::audit::entry::{Draft, Named};
use crate::permit::WriteTenants;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::directory::{DirectoryRow, Standing};
use crate::tenant::error::{Conflict, TenantError};

/// Takes a tenant's id and short name for an import. The answer is the entry as it is then.
pub struct AdmitTenant {
    /// The entry; it is kept suspended.
    pub row: DirectoryRow,
    /// The node it comes from.
    pub origin: String,
    /// That node's public key, as text.
    pub signer: String,
    /// The hash of what it is to have, hexadecimal.
    pub content_hash: String,
}

impl Command for AdmitTenant {
    type Action = WriteTenants;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.import";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.row.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let target = self.target();
        let row = DirectoryRow { standing: Standing::Suspended, ..self.row };
        let slug = Key::Slug { digest: cx.digest("slug", row.slug.as_bytes()) };
        let taken = || TenantError::Conflict(Conflict::SlugTaken);
        let holder: Option<TenantId> = cx.row(&slug)?;
        if holder.is_some_and(|holder| holder != row.id) {
            return Err(taken());
        }
        let key = Key::Directory { tenant: row.id };
        let before: Option<DirectoryRow> = cx.row(&key)?;
        let is_free = before
            .as_ref()
            .is_none_or(|before| before.standing == Standing::Suspended && before.slug == row.slug);
        if !is_free {
            return Err(taken());
        }
        cx.put(&slug, &row.id)?;
        cx.put(&key, &row)?;
        let draft = Draft::success(Self::NAME, target)
            .with("slug", row.slug.as_str())
            .with("plan", row.plan.as_str())
            .with("origin", self.origin)
            .with("signer", self.signer)
            .with("content_hash", self.content_hash);
        cx.audit(if before.is_some() { draft.with("repeated", true) } else { draft });
        Ok(row)
    }
}
