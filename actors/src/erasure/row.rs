//! A tenant's erasure, as the platform's directory keeps it, and the records that change it.
//!
//! Each step is one record of the platform's compartment before the step is taken, so that after a crash
//! it is known how far an erasure came. Refuses, by leaving everything as it is: to take back an erasure
//! that began, to begin one that is not due, and to erase what was not asked for.

use serde::{Deserialize, Serialize};
use storage::id::TenantId;
use storage::keys::Key;

use crate::audit::entry::{Draft, Named};
use crate::backup::digest::Digest;
use crate::env::rfc3339;
use crate::erasure::receipt::SignedReceipt;
use crate::permit::WriteTenants;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::directory::{DirectoryRow, Standing};
use crate::tenant::error::TenantError;

/// What was asked for, and how far it is. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureRow {
    /// When it was asked for first.
    pub requested_ms: u64,
    /// From when on it may be carried out.
    pub due_ms: u64,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// Whether the delay was waived.
    pub forced: bool,
    /// What the tenant was before.
    pub before: Standing,
    /// When it began; from then on it cannot be taken back.
    pub begun_ms: Option<u64>,
    /// When everything was destroyed.
    pub erased_ms: Option<u64>,
    /// The signed receipt.
    pub receipt: Option<String>,
}

impl ErasureRow {
    /// Whether it is to be carried out now.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.erased_ms.is_none() && (self.begun_ms.is_some() || now_ms >= self.due_ms)
    }
}

fn directory_row(cx: &Cx<'_, '_>, tenant: TenantId) -> Result<(Key, DirectoryRow), TenantError> {
    let key = Key::Directory { tenant };
    let row = cx.need(&key)?;
    Ok((key, row))
}

/// Asks for a tenant's erasure, or hurries one that was asked for. The answer is the entry after it.
#[derive(Debug)]
pub struct RequestErasure {
    /// Whose.
    pub tenant: TenantId,
    /// From when on it may be carried out.
    pub due_ms: u64,
    /// Why.
    pub reason: Option<String>,
    /// Whether the delay is waived.
    pub forced: bool,
}

impl Command for RequestErasure {
    type Action = WriteTenants;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.erasure_request";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.tenant)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let (key, mut row) = directory_row(cx, self.tenant)?;
        let now_ms = cx.now_ms();
        let (target, before) = (self.target(), row.standing);
        row.erasure = match row.erasure.take() {
            None => Some(ErasureRow {
                requested_ms: now_ms,
                due_ms: self.due_ms,
                reason: self.reason,
                forced: self.forced,
                before,
                begun_ms: None,
                erased_ms: None,
                receipt: None,
            }),
            Some(asked) if self.forced && asked.begun_ms.is_none() && !asked.forced => {
                let reason = self.reason.or(asked.reason);
                Some(ErasureRow { due_ms: self.due_ms, reason, forced: true, ..asked })
            }
            // Asked for already.
            asked => {
                row.erasure = asked;
                return Ok(row);
            }
        };
        row.standing = Standing::Erasing;
        cx.put(&key, &row)?;
        let draft = Draft::success(Self::NAME, target).with("forced", self.forced);
        let draft = draft.with("due_at", rfc3339(self.due_ms));
        let reason = row.erasure.as_ref().and_then(|erasure| erasure.reason.clone());
        cx.audit(reason.into_iter().fold(draft, |draft, reason| draft.with("reason", reason)));
        Ok(row)
    }
}

/// Takes back an erasure that has not begun. The answer is the entry after it.
#[derive(Debug)]
pub struct CancelErasure {
    /// Whose.
    pub tenant: TenantId,
}

impl Command for CancelErasure {
    type Action = WriteTenants;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.erasure_cancel";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.tenant)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let (key, mut row) = directory_row(cx, self.tenant)?;
        if let Some(asked) = row.erasure.take_if(|asked| asked.begun_ms.is_none()) {
            row.standing = asked.before;
            cx.put(&key, &row)?;
            cx.audit(Draft::success(Self::NAME, self.target()));
        }
        Ok(row)
    }
}

/// Writes down that a due erasure begins: the point of no return. The answer is the entry after it.
#[derive(Debug)]
pub struct BeginErasure {
    /// Whose.
    pub tenant: TenantId,
}

impl Command for BeginErasure {
    type Action = WriteTenants;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.erasure_begin";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.tenant)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let (key, mut row) = directory_row(cx, self.tenant)?;
        let now_ms = cx.now_ms();
        let asked = row.erasure.as_mut().filter(|asked| asked.begun_ms.is_none());
        if let Some(asked) = asked.filter(|asked| asked.is_due(now_ms)) {
            asked.begun_ms = Some(now_ms);
            cx.put(&key, &row)?;
            cx.audit(Draft::success(Self::NAME, self.target()));
        }
        Ok(row)
    }
}

/// Writes down that a tenant was erased of which the directory does not know it: a restored backup is older
/// than the erasure. The answer is the entry after it.
#[derive(Debug)]
pub struct AdoptErasure {
    /// The receipt.
    pub receipt: SignedReceipt,
}

impl Command for AdoptErasure {
    type Action = WriteTenants;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.erasure_adopt";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.receipt.claimed().tenant)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let receipt = self.receipt.claimed();
        let (key, mut row) = directory_row(cx, receipt.tenant)?;
        if row.standing != Standing::Erased {
            let bytes = self.receipt.to_bytes();
            row.erasure = Some(ErasureRow {
                requested_ms: receipt.requested_ms,
                due_ms: receipt.erased_ms,
                reason: receipt.reason.clone(),
                forced: receipt.forced,
                before: row.standing,
                begun_ms: Some(receipt.erased_ms),
                erased_ms: Some(receipt.erased_ms),
                receipt: Some(String::from_utf8_lossy(&bytes).into_owned()),
            });
            row.standing = Standing::Erased;
            row.name.clone_from(&row.slug);
            cx.put(&key, &row)?;
            let sha256 = Digest::of(&bytes).to_string();
            cx.audit(Draft::success(Self::NAME, self.target()).with("receipt_sha256", sha256));
        }
        Ok(row)
    }
}

/// Writes down that a tenant is erased, and keeps the receipt. The answer is the entry after it.
#[derive(Debug)]
pub struct FinishErasure {
    /// Whose.
    pub tenant: TenantId,
    /// When everything was destroyed, Unix milliseconds.
    pub erased_ms: u64,
    /// The signed receipt.
    pub receipt: String,
}

impl Command for FinishErasure {
    type Action = WriteTenants;
    type Reply = DirectoryRow;
    const NAME: &'static str = "tenant.erase";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.tenant)
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<DirectoryRow, TenantError> {
        let (key, mut row) = directory_row(cx, self.tenant)?;
        let target = self.target();
        let begun = row.erasure.as_mut().filter(|asked| asked.begun_ms.is_some());
        if let Some(begun) = begun.filter(|begun| begun.erased_ms.is_none()) {
            let sha256 = Digest::of(self.receipt.as_bytes()).to_string();
            begun.erased_ms = Some(self.erased_ms);
            begun.receipt = Some(self.receipt);
            row.standing = Standing::Erased;
            // The short name stays, so that nobody else gets it; what people called it goes.
            row.name.clone_from(&row.slug);
            cx.put(&key, &row)?;
            cx.audit(Draft::success(Self::NAME, target).with("receipt_sha256", sha256));
        }
        Ok(row)
    }
}
