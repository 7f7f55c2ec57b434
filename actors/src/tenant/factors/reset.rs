//! Helping somebody who lost their second factors: an administrator takes all of them away. Gives nobody a
//! factor or a session, and is not for oneself: who has a session removes or replaces their own with proof.

use storage::id::UserId;
use storage::keys::Key;

use super::forget_factors;
use crate::audit::entry::{Draft, Named};
use crate::permit;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::mail::About;
use crate::tenant::members::{check_ceiling, end_sessions};
use crate::tenant::people::UserRow;
use crate::tenant::recovery::notify;

/// Removes all second factors of somebody else and ends their sessions. They are told by mail.
#[derive(Debug)]
pub struct ResetFactors {
    /// Whose.
    pub user: UserId,
}

impl Command for ResetFactors {
    type Action = permit::WriteMembers;
    type Reply = ();
    const NAME: &'static str = "member.mfa_reset";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("user", self.user)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let key = Key::User { id: self.user };
        let mut user: UserRow = cx.need(&key)?;
        check_ceiling(cx, user.role)?;
        // A key is its maker here: else it would be a way around the proof that one's own factors take.
        if cx.author().is_ok_and(|author| author == user.id) {
            return Err(TenantError::Forbidden { action: "members:mfa-own" });
        }
        if cx.bytes(&Key::SecondFactors { user: user.id })?.is_none() {
            return Ok(());
        }
        forget_factors(cx, user.id)?;
        let ended = end_sessions(cx, user.id, None)?;
        user.authz += 1;
        user.version += 1;
        user.updated_ms = cx.now_ms();
        cx.put(&key, &user)?;
        cx.audit(Draft::success(Self::NAME, user.named()).with("sessions_ended", ended));
        notify(cx, &user, About::FactorsReset(user.id))
    }
}
