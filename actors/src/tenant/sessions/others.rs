//! Ending the sessions of somebody else: for who lost a device, or is not to be signed in for now. Gives nobody
//! a session and takes no right away: who can sign in can do so again.
//!
//! Refuses: to touch a person whose role is above that of who asks.

use storage::id::UserId;
use storage::keys::Key;

use crate::audit::entry::{Draft, Named};
use crate::permit;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::factors::factors_of;
use crate::tenant::members::{check_ceiling, end_sessions};
use crate::tenant::people::UserRow;

/// Ends every session of a person: their tokens and cookies are refused from the next message on, and no sign-in
/// that waits for its second factor goes on.
#[derive(Debug)]
pub struct EndMemberSessions {
    /// Whose.
    pub user: UserId,
}

impl Command for EndMemberSessions {
    type Action = permit::WriteMembers;
    type Reply = ();
    const NAME: &'static str = "member.sessions_end";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", self.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let user: UserRow = cx.need(&Key::User { id: self.user })?;
        check_ceiling(cx, user.role)?;
        let ended = end_sessions(cx, user.id, None)?;
        let mut factors = factors_of(cx, user.id)?;
        if factors.end_challenges() {
            cx.put(&Key::SecondFactors { user: user.id }, &factors)?;
        }
        if ended > 0 {
            cx.audit(Draft::success(Self::NAME, user.named()).with("sessions", ended));
        }
        Ok(())
    }
}
