//! The tenant's part: its people see support sessions, approve or refuse them, and end them at once.

use storage::id::SupportId;

use super::asking::list;
use super::{SupportRow, SupportState, key, named};
use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Page, Paging};
use crate::permit::{DecideSupport, ReadSupport};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};

/// Reads one session.
#[derive(Debug)]
pub struct ReadSupportSession {
    /// Which.
    pub id: SupportId,
}

impl Query for ReadSupportSession {
    type Action = ReadSupport;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let row: SupportRow = cx.need(&key(self.id))?;
        Ok(row.document(cx.now_ms()))
    }
}

/// Lists sessions, oldest first.
#[derive(Debug)]
pub struct ListSupportSessions {
    /// Which part.
    pub paging: Paging,
}

impl Query for ListSupportSessions {
    type Action = ReadSupport;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        list(cx, &self.paging, |row: &SupportRow, now_ms| (row.asked.id, row.document(now_ms).json))
    }
}

/// What the tenant's people say to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It opens, for as long as was asked for.
    Approve,
    /// It never opens.
    Deny,
    /// It is over, open or not.
    Revoke,
}

/// Says it.
#[derive(Debug)]
pub struct DecideOnSupport {
    /// Which session.
    pub id: SupportId,
    /// What.
    pub verdict: Verdict,
}

impl Command for DecideOnSupport {
    type Action = DecideSupport;
    type Reply = Document;
    const NAME: &'static str = "support.decide";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("support", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let person = cx.person()?.user;
        let now_ms = cx.now_ms();
        let mut row: SupportRow = cx.need(&key(self.id))?;
        let state = row.state(now_ms);
        let action = match (self.verdict, state) {
            (Verdict::Approve, SupportState::Waiting) => {
                row.open(now_ms);
                "support.approve"
            }
            (Verdict::Deny, SupportState::Waiting) => {
                row.state = SupportState::Denied;
                "support.deny"
            }
            (Verdict::Revoke, SupportState::Waiting | SupportState::Open) => {
                row.state = SupportState::Ended;
                "support.revoke"
            }
            // What is over stays over; ending it again is no fault.
            (Verdict::Revoke, _) => return Ok(row.document(now_ms)),
            _ => return Err(TenantError::Conflict(Conflict::SupportDecided)),
        };
        row.decided_by = Some(person);
        row.decided_ms = Some(now_ms);
        row.version += 1;
        cx.put(&key(self.id), &row)?;
        cx.audit(Draft::success(action, named(&row.asked)));
        Ok(row.document(now_ms))
    }
}
