//! The tenant's outbox: mails that wait to be sent.
//!
//! A mail is written in the record of what it is about, so neither is without the other, and a crash
//! loses neither. Sending happens outside; the tenant is told how it went. A mail is sent at least once:
//! its id is the same each time, so that a mailbox can drop the second copy.
//!
//! Refuses: more mails than [`limits::MAILS_MAX`] at once. A mail whose cause is gone (an invitation that
//! was withdrawn, a link that was used) is not sent any more.

use serde::{Deserialize, Serialize};
use storage::id::{Id, InviteId, MailId, SupportId, TenantId, TicketId, UserId};
use storage::keys::{Key, Prefix};
use storage::seal::TenantKeys;
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::limits;
use crate::permit::{Operate, Role};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::invites::InviteRow;
use crate::tenant::people::UserRow;
use crate::tenant::sessions::own::device;
use crate::tenant::state::Outbox;
use crate::tenant::support;
use crate::tenant::tickets::{MailedToken, Purpose, TicketRow};

/// The pause before the second attempt; each further one is four times as long.
const PAUSE_FIRST_MS: u64 = 5_000;
/// The longest pause.
const PAUSE_MAX_MS: u64 = 60 * 60 * 1000;

/// What a mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// An invitation, and the link of it that counts.
    Invite(InviteId, TicketId),
    /// A link for a new password.
    Reset(UserId, TicketId),
    /// A link that proves the address.
    Verify(UserId, TicketId),
    /// The password was changed: says so, without a link.
    PasswordChanged(UserId),
    /// An administrator took the second factors away: says so, without a link.
    FactorsReset(UserId),
    /// Somebody of the platform asks to look into the tenant, or may.
    Support(SupportId),
    /// Something else about how a person signs in changed: says so, without a link.
    Changed(UserId, Change),
}

/// What changed about how a person signs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The password.
    Password,
    /// An administrator took all second factors away.
    FactorsReset,
    /// There is an authenticator, and new recovery codes.
    AuthenticatorAdded,
    /// There is no authenticator any more.
    AuthenticatorRemoved,
    /// There is a passkey, the first second factor, and recovery codes.
    FirstPasskeyAdded,
    /// There is a further passkey.
    PasskeyAdded,
    /// A passkey is gone.
    PasskeyRemoved,
    /// There is a new set of recovery codes.
    RecoveryCodesMade,
    /// The address is another one; said at the one that was.
    Address,
    /// An identity of another provider signs in.
    IdentityLinked,
    /// One does no more.
    IdentityUnlinked,
}

/// Where something was asked from, as the list of sessions names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The address.
    pub ip: Option<String>,
    /// The browser and system, as far as they are known. Not what a program says of itself: that is for whoever
    /// asks to choose, and does not belong into a mail that people are to trust.
    pub device: Option<String>,
}

impl Seen {
    /// Where what runs was asked from.
    fn of(cx: &Cx<'_, '_>) -> Self {
        let origin = cx.origin();
        let ip = origin.ip.map(|ip| ip.to_string());
        Self { ip, device: origin.user_agent.as_deref().and_then(device) }
    }
}

/// A waiting mail's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRow {
    /// Which mail.
    pub id: MailId,
    /// To whom.
    pub to: String,
    /// What about.
    pub about: About,
    /// When it was written, Unix milliseconds.
    pub created_ms: u64,
    /// When sending it makes no sense any more, Unix milliseconds.
    pub expires_ms: u64,
    /// How often sending it failed.
    pub attempts: u32,
    /// When it is due, Unix milliseconds.
    pub due_ms: u64,
    /// Where what it tells of was asked from, if that is for its reader to know.
    #[serde(default)]
    pub seen: Option<Seen>,
}

/// Puts a mail into the outbox.
///
/// # Errors
/// [`TenantError::Busy`] if the outbox is full.
pub(crate) fn post(
    cx: &mut Cx<'_, '_>,
    to: &str,
    about: About,
    expires_ms: u64,
) -> Result<(), TenantError> {
    // An administrator's own address is no matter of those they help; the audit log has it.
    let is_own = match about {
        About::PasswordChanged(_) => true,
        About::Changed(_, change) => change != Change::Address,
        _ => false,
    };
    let seen = is_own.then(|| Seen::of(cx));
    let outbox = cx.state().mail;
    if outbox.waiting >= limits::MAILS_MAX {
        return Err(TenantError::Busy);
    }
    let now_ms = cx.now_ms();
    let row = MailRow {
        id: cx.new_id(),
        to: to.to_owned(),
        about,
        created_ms: now_ms,
        expires_ms,
        attempts: 0,
        due_ms: now_ms,
        seen,
    };
    cx.put(&Key::Mail { id: row.id }, &row)?;
    cx.state_mut().mail = Outbox { waiting: outbox.waiting + 1, due_ms: now_ms };
    Ok(())
}

/// A mail, ready to be written out and sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// Which mail; the same at each attempt.
    pub id: MailId,
    /// Whose.
    pub tenant: TenantId,
    /// The name people know the tenant by.
    pub tenant_name: String,
    /// The short name they sign in with.
    pub tenant_slug: String,
    /// To whom.
    pub to: String,
    /// What about.
    pub content: Content,
    /// When it was written, Unix milliseconds.
    pub created_ms: u64,
}

/// What a letter says.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// You are invited.
    Invite {
        /// As what.
        role: Role,
        /// By whom, if it was a person who still is here.
        by: Option<String>,
        /// The link.
        link: MailedLink,
    },
    /// Set a new password.
    Reset(MailedLink),
    /// Prove that this address is yours.
    Verify(MailedLink),
    /// Something about how you sign in changed.
    Changed(Change, Option<Seen>),
    /// Somebody of the platform asks to look into the tenant, or may.
    Support(SupportNotice),
}

/// What owners and administrators are told of a support session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportNotice {
    /// Whose address at the platform it is.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The case it is about.
    pub ticket: String,
    /// For how long, in minutes.
    pub minutes: u32,
    /// Whether it waits to be approved.
    pub is_waiting: bool,
}

/// The secret part of a mail. Does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct MailedLink {
    /// The text that is presented.
    pub token: String,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letter").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A mail that is due.
#[derive(Debug)]
pub(crate) struct Due {
    /// Which.
    pub id: MailId,
    /// The letter; nothing if there is no cause to send it any more.
    pub letter: Option<Letter>,
}

/// Reads mails that are due.
pub(crate) struct ReadDueMail {
    /// How many at most.
    pub limit: usize,
}

impl Query for ReadDueMail {
    type Action = Operate;
    type Reply = Vec<Due>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Vec<Due>, TenantError> {
        let now_ms = cx.now_ms();
        let due = waiting(cx)?.into_iter().filter(|row| row.due_ms <= now_ms);
        let read = |row: MailRow| Ok(Due { id: row.id, letter: letter(cx, cx.keys(), row)? });
        due.take(self.limit).map(read).collect()
    }
}

fn waiting(cx: &impl Reads) -> Result<Vec<MailRow>, TenantError> {
    let any = Key::Mail { id: MailId::from_bytes([0; 16]) };
    let limit = limits::MAILS_MAX as usize;
    let scan = Scan { prefix: Prefix::kind(&any), after: None, reverse: false, limit };
    cx.rows(&scan)?.iter().map(|(_, bytes)| Ok(value::decode(bytes)?)).collect()
}

fn letter(cx: &impl Reads, keys: &TenantKeys, row: MailRow) -> Result<Option<Letter>, TenantError> {
    if row.expires_ms <= cx.now_ms() {
        return Ok(None);
    }
    let content = match row.about {
        About::Invite(invite, ticket) => invitation(cx, keys, invite, ticket)?,
        About::Reset(user, ticket) => {
            link(cx, keys, Purpose::Reset, user, ticket)?.map(Content::Reset)
        }
        About::Verify(user, ticket) => {
            link(cx, keys, Purpose::Verify, user, ticket)?.map(Content::Verify)
        }
        About::PasswordChanged(_) => Some(Content::Changed(Change::Password, row.seen)),
        About::FactorsReset(_) => Some(Content::Changed(Change::FactorsReset, row.seen)),
        About::Changed(_, change) => Some(Content::Changed(change, row.seen)),
        About::Support(session) => support::notice(cx, session)?.map(Content::Support),
    };
    let profile = cx.state().profile.as_ref();
    Ok(content.map(|content| Letter {
        id: row.id,
        tenant: cx.tenant(),
        tenant_name: profile.map_or_else(String::new, |profile| profile.name.clone()),
        tenant_slug: profile.map_or_else(String::new, |profile| profile.slug.clone()),
        to: row.to,
        content,
        created_ms: row.created_ms,
    }))
}

fn invitation(
    cx: &impl Reads,
    keys: &TenantKeys,
    id: InviteId,
    ticket: TicketId,
) -> Result<Option<Content>, TenantError> {
    let invite: Option<InviteRow> = cx.row(&Key::Invite { id })?;
    let Some(invite) = invite.filter(|invite| invite.ticket == ticket) else { return Ok(None) };
    let by: Option<UserRow> = match invite.invited_by {
        Some(id) => cx.row(&Key::User { id })?,
        None => None,
    };
    Ok(Some(Content::Invite {
        role: invite.role,
        by: by.map(|row| row.email),
        link: MailedLink {
            token: MailedToken::issue(keys, Purpose::Invite, id.as_bytes(), ticket),
            expires_ms: invite.expires_ms,
        },
    }))
}

fn link(
    cx: &impl Reads,
    keys: &TenantKeys,
    purpose: Purpose,
    user: UserId,
    id: TicketId,
) -> Result<Option<MailedLink>, TenantError> {
    let ticket: Option<TicketRow> = cx.row(&Key::Ticket { user, id })?;
    let row: Option<UserRow> = cx.row(&Key::User { id: user })?;
    Ok(match (ticket, row) {
        (Some(ticket), Some(row)) if ticket.counts_for(&row, cx.now_ms()) => Some(MailedLink {
            token: MailedToken::issue(keys, purpose, user.as_bytes(), id),
            expires_ms: ticket.expires_ms,
        }),
        _ => None,
    })
}

/// How sending a mail went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The next mail server has it.
    Sent,
    /// There is no cause to send it any more.
    Moot,
    /// Not now.
    Later,
    /// Not to this address, or not this mail: trying again makes no sense.
    Never {
        /// Why, as the mail server said it.
        reason: String,
    },
}

/// Notes how sending a mail went.
pub(crate) struct NoteDelivery {
    /// Which.
    pub id: MailId,
    /// How.
    pub delivery: Delivery,
}

impl Command for NoteDelivery {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "mail.deliver";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("mail", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let key = Key::Mail { id: self.id };
        let Some(mut row) = cx.row::<MailRow>(&key)? else { return Ok(()) };
        let target = self.target();
        let mut delivery = self.delivery;
        if delivery == Delivery::Later {
            row.attempts += 1;
            row.due_ms = cx.now_ms().saturating_add(pause_ms(row.attempts));
            if row.due_ms >= row.expires_ms {
                let reason = "no mail server took it in time".to_owned();
                delivery = Delivery::Never { reason };
            }
        }
        match delivery {
            Delivery::Later => cx.put(&key, &row)?,
            Delivery::Sent | Delivery::Moot => cx.delete(&key)?,
            Delivery::Never { reason } => {
                let target = Named { email: Some(row.to), ..target };
                cx.audit(Draft::failed(Self::NAME, target).with("reason", reason));
                cx.delete(&key)?;
            }
        }
        let left = waiting(cx)?;
        let due_ms = left.iter().map(|row| row.due_ms).min().unwrap_or_default();
        cx.state_mut().mail = Outbox { waiting: left.len().try_into().unwrap_or(u32::MAX), due_ms };
        Ok(())
    }
}

fn pause_ms(attempts: u32) -> u64 {
    let times = 4_u64.saturating_pow(attempts.saturating_sub(1));
    PAUSE_FIRST_MS.saturating_mul(times).min(PAUSE_MAX_MS)
}

#[cfg(test)]
mod tests;
