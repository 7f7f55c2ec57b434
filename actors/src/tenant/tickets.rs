//! Links that are mailed: whoever presents one reads the mailbox it went to.
//!
//! The text of a link is a message to ourselves under the tenant's own key and is kept nowhere: it is
//! made when the mail is sent, so neither the store nor a backup of it holds a link. What is kept is a
//! row that says the link still counts. It goes with its first use, and with a change of the password.
//!
//! Refuses, all with the same answer: a link of another tenant or purpose, one that was changed, used,
//! superseded or is too old, and one from before the person's rights or password changed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use storage::id::{Id, TenantId, TicketId, UserId};
use storage::keys::{Key, Prefix};
use storage::seal::TenantKeys;
use storage::txn::Scan;
use storage::value;

use crate::limits;
use crate::tenant::cx::{Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::people::UserRow;

const PREFIX: &str = "bkt_";
const LABEL: &str = "mailed";
const NAMED_BYTES: usize = 1 + 16 + 16 + 16;
const TOKEN_BYTES: usize = NAMED_BYTES + 32;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To become a member.
    Invite,
    /// To set a new password.
    Reset,
    /// To prove that an address is one's own.
    Verify,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Invite, Self::Reset, Self::Verify];

    /// What it stands as in a link.
    const fn byte(self) -> u8 {
        match self {
            Self::Invite => b'i',
            Self::Reset => b'r',
            Self::Verify => b'v',
        }
    }
}

/// The text of a link, taken apart but not believed: only the tenant can check its code.
#[derive(Clone, PartialEq, Eq)]
pub struct MailedToken {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    named: [u8; NAMED_BYTES],
    subject: [u8; 16],
    ticket: TicketId,
    mac: [u8; 32],
}

impl std::fmt::Debug for MailedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailedToken").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl MailedToken {
    /// Takes a text apart; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix(PREFIX)?;
        let bytes: [u8; TOKEN_BYTES] = URL_SAFE_NO_PAD.decode(body).ok()?.try_into().ok()?;
        let (named, mac) = bytes.split_first_chunk::<NAMED_BYTES>()?;
        let (tenant, rest) = named[1..].split_first_chunk()?;
        let (subject, ticket) = rest.split_first_chunk()?;
        Some(Self {
            tenant: TenantId::from_bytes(*tenant),
            named: *named,
            subject: *subject,
            ticket: TicketId::from_bytes(ticket.try_into().ok()?),
            mac: mac.try_into().ok()?,
        })
    }

    /// Whose budget a use is charged to: the link itself.
    pub fn account(&self) -> String {
        format!("{} {}", self.tenant, self.ticket)
    }

    /// What it says it is for.
    pub(crate) fn purpose(&self) -> Option<Purpose> {
        Purpose::ALL.into_iter().find(|purpose| purpose.byte() == self.named[0])
    }

    /// The text that stands in the mail.
    pub(crate) fn issue(
        keys: &TenantKeys,
        purpose: Purpose,
        subject: &[u8; 16],
        ticket: TicketId,
    ) -> String {
        let named = named(purpose, keys.tenant(), subject, ticket);
        let mac = keys.mac(LABEL, &named);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&named[..], &mac[..]].concat()))
    }

    /// Who or what the link is about, and which link it is, if this tenant made it for that purpose.
    pub(crate) fn open(
        &self,
        keys: &TenantKeys,
        purpose: Purpose,
    ) -> Result<([u8; 16], TicketId), TenantError> {
        let wanted = named(purpose, keys.tenant(), &self.subject, self.ticket);
        if wanted == self.named && keys.verify_mac(LABEL, &self.named, &self.mac) {
            Ok((self.subject, self.ticket))
        } else {
            Err(TenantError::BadLink)
        }
    }
}

fn named(
    purpose: Purpose,
    tenant: TenantId,
    subject: &[u8; 16],
    ticket: TicketId,
) -> [u8; NAMED_BYTES] {
    let mut bytes = [0; NAMED_BYTES];
    bytes[0] = purpose.byte();
    bytes[1..17].copy_from_slice(tenant.as_bytes());
    bytes[17..33].copy_from_slice(subject);
    bytes[33..].copy_from_slice(ticket.as_bytes());
    bytes
}

/// A link that was mailed to a person and still counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketRow {
    /// Which link.
    pub id: TicketId,
    /// Whose.
    pub user: UserId,
    /// What it is for.
    pub purpose: Purpose,
    /// The address it was mailed to.
    pub email: String,
    /// The person's authorisation version then.
    pub authz: u32,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
}

impl TicketRow {
    fn key(&self) -> Key {
        Key::Ticket { user: self.user, id: self.id }
    }

    /// Whether it still opens anything for that person.
    pub(crate) fn counts_for(&self, user: &UserRow, now_ms: u64) -> bool {
        self.expires_ms > now_ms
            && self.authz == user.authz
            && self.email == user.email
            && !user.deactivated
    }
}

/// A new link for a person; the oldest beyond the bound end.
pub(crate) fn open(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    purpose: Purpose,
) -> Result<TicketRow, TenantError> {
    let now_ms = cx.now_ms();
    let (living, dead): (Vec<_>, Vec<_>) =
        of(cx, user.id)?.into_iter().partition(|ticket| ticket.expires_ms > now_ms);
    let too_many = (living.len() + 1).saturating_sub(limits::TICKETS_MAX);
    for ticket in dead.iter().chain(living.iter().take(too_many)) {
        cx.delete(&ticket.key())?;
    }
    let ticket = TicketRow {
        id: cx.new_id(),
        user: user.id,
        purpose,
        email: user.email.clone(),
        authz: user.authz,
        created_ms: now_ms,
        expires_ms: now_ms + limits::TICKET_MS,
    };
    cx.put(&ticket.key(), &ticket)?;
    Ok(ticket)
}

/// The link and its person, if it still counts.
pub(crate) fn find<R: Reads>(
    cx: &R,
    keys: &TenantKeys,
    token: &MailedToken,
    purpose: Purpose,
) -> Result<(TicketRow, UserRow), TenantError> {
    let (subject, id) = token.open(keys, purpose)?;
    let user = UserId::from_bytes(subject);
    let ticket: Option<TicketRow> = cx.row(&Key::Ticket { user, id })?;
    let user: Option<UserRow> = cx.row(&Key::User { id: user })?;
    match (ticket, user) {
        (Some(ticket), Some(user))
            if ticket.purpose == purpose && ticket.counts_for(&user, cx.now_ms()) =>
        {
            Ok((ticket, user))
        }
        _ => Err(TenantError::BadLink),
    }
}

/// Ends all links of a person.
pub(crate) fn end_all(cx: &mut Cx<'_, '_>, user: UserId) -> Result<(), TenantError> {
    for ticket in of(cx, user)? {
        cx.delete(&ticket.key())?;
    }
    Ok(())
}

/// All links of a person, oldest first. Their number is bounded where they are made.
fn of(cx: &impl Reads, user: UserId) -> Result<Vec<TicketRow>, TenantError> {
    let first = Key::Ticket { user, id: TicketId::from_bytes([0; 16]) };
    let limit = 2 * limits::TICKETS_MAX;
    let scan = Scan { prefix: Prefix::owner(&first), after: None, reverse: false, limit };
    cx.rows(&scan)?.iter().map(|(_, bytes)| Ok(value::decode(bytes)?)).collect()
}
