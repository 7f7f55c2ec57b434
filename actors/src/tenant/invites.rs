//! Invitations: a person is let in once they show, by a mailed link, that the address is theirs.
//!
//! An invitation that stands counts against the members quota, so that accepting it never fails for want
//! of room. It ends by being accepted, withdrawn, or after [`limits::INVITE_MS`]; sent again, it begins
//! anew and the earlier link is dead. It belongs to the place: neither a restore nor an export changes it.
//!
//! Refuses: a role above the inviter's own, an address that somebody here has or that is invited.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{Id, InviteId, TicketId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{self, Principal, Role};
use crate::quota::Quota;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::forms::lists::{End, Pager, Step, open_id_cursor, walk};
use crate::tenant::mail::{self, About};
use crate::tenant::members::{check_ceiling, check_new, insert_user};
use crate::tenant::people::UserRow;
use crate::tenant::sessions::Credential;
use crate::tenant::tickets::{MailedToken, Purpose};

/// An invitation's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRow {
    /// Which.
    pub id: InviteId,
    /// Who is invited, in normal form.
    pub email: String,
    /// As what.
    pub role: Role,
    /// The link that counts.
    pub ticket: TicketId,
    /// By whom; nothing if by the node itself.
    pub invited_by: Option<UserId>,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it was last sent, Unix milliseconds.
    pub sent_ms: u64,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
    /// Counts changes; becomes the `ETag`.
    pub version: u64,
}

/// Whether an invitation can be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InviteStatus {
    /// It can.
    Pending,
    /// It is too old; send it again.
    Expired,
}

/// An invitation, as those who may invite see it. Never its link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct InviteView {
    /// Which.
    #[schemars(with = "String")]
    pub id: InviteId,
    /// Who is invited.
    pub email: String,
    /// As what.
    pub role: Role,
    /// Whether it can be accepted.
    pub status: InviteStatus,
    /// By whom; null if by the node itself.
    #[schemars(with = "Option<String>")]
    pub invited_by: Option<UserId>,
    /// When it was made, RFC 3339 UTC.
    pub created_at: String,
    /// When it was last sent, RFC 3339 UTC.
    pub sent_at: String,
    /// When it ends, RFC 3339 UTC.
    pub expires_at: String,
    /// Counts changes; the same number as the `ETag`.
    pub version: u64,
}

impl InviteRow {
    fn stands(&self, now_ms: u64) -> bool {
        self.expires_ms > now_ms
    }

    fn key(&self) -> Key {
        Key::Invite { id: self.id }
    }

    fn named(&self) -> Named {
        Named { email: Some(self.email.clone()), ..Named::new("invite", self.id) }
    }

    fn json(&self, now_ms: u64) -> ByteBuf {
        let status =
            if self.stands(now_ms) { InviteStatus::Pending } else { InviteStatus::Expired };
        let view = InviteView {
            id: self.id,
            email: self.email.clone(),
            role: self.role,
            status,
            invited_by: self.invited_by,
            created_at: rfc3339(self.created_ms),
            sent_at: rfc3339(self.sent_ms),
            expires_at: rfc3339(self.expires_ms),
            version: self.version,
        };
        ByteBuf::from(serde_json::to_vec(&view).expect("a view holds only texts and numbers"))
    }

    fn document(&self, now_ms: u64) -> Document {
        Document { version: self.version, json: self.json(now_ms) }
    }

    /// Makes a new link, from which on the earlier one is dead, and mails it.
    fn send(&mut self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        self.ticket = cx.new_id();
        self.sent_ms = cx.now_ms();
        self.expires_ms = self.sent_ms.saturating_add(limits::INVITE_MS);
        self.version += 1;
        cx.put(&self.key(), self)?;
        mail::post(cx, &self.email, About::Invite(self.id, self.ticket), self.expires_ms)
    }
}

/// All invitations, oldest first. Their number is bounded where they are made.
fn all(cx: &impl Reads) -> Result<Vec<InviteRow>, TenantError> {
    let any = Key::Invite { id: InviteId::from_bytes([0; 16]) };
    let limit = limits::INVITES_MAX;
    let scan = Scan { prefix: Prefix::kind(&any), after: None, reverse: false, limit };
    cx.rows(&scan)?.iter().map(|(_, bytes)| Ok(value::decode(bytes)?)).collect()
}

/// How many invitations stand: they count as members.
pub(crate) fn standing(cx: &impl Reads) -> Result<u64, TenantError> {
    let now_ms = cx.now_ms();
    Ok(all(cx)?.iter().filter(|invite| invite.stands(now_ms)).count() as u64)
}

/// The invitation that stands for an address in normal form, if there is one.
pub(crate) fn standing_for(cx: &impl Reads, email: &str) -> Result<Option<InviteRow>, TenantError> {
    let now_ms = cx.now_ms();
    let invite = all(cx)?.into_iter().find(|it| it.email == email && it.stands(now_ms));
    match invite {
        Some(invite) if is_backed(cx, &invite)? => Ok(Some(invite)),
        _ => Ok(None),
    }
}

/// Whether there is room for one more member beside those who are here and those who are invited.
pub(crate) fn check_room(cx: &impl Reads) -> Result<(), TenantError> {
    let Some(limit) = cx.plan().limit(Quota::Members) else { return Ok(()) };
    let used = cx.state().used(Quota::Members).saturating_add(standing(cx)?);
    if used >= limit {
        return Err(TenantError::QuotaExceeded { quota: Quota::Members, limit });
    }
    Ok(())
}

/// Invites somebody by mail.
#[derive(Debug)]
pub struct CreateInvite {
    /// Their address, in any form.
    pub email: String,
    /// As what; at most the asker's own role.
    pub role: Role,
}

impl Command for CreateInvite {
    type Action = permit::WriteMembers;
    /// Which invitation it is, and what is answered.
    type Reply = (InviteId, Document);
    const NAME: &'static str = "invite.create";

    fn target(&self) -> Named {
        Named::new("role", self.role)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        check_ceiling(cx, self.role)?;
        let (email, _) = check_new(cx, &self.email, self.role)?;
        let now_ms = cx.now_ms();
        let earlier = all(cx)?;
        let (same, others): (Vec<_>, Vec<_>) =
            earlier.into_iter().partition(|invite| invite.email == email);
        if same.iter().any(|invite| invite.stands(now_ms)) {
            return Err(TenantError::Conflict(Conflict::AlreadyInvited));
        }
        let (kept, dead): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|invite| invite.stands(now_ms));
        if kept.len() >= limits::INVITES_MAX {
            return Err(TenantError::Conflict(Conflict::TooManyInvites));
        }
        // An expired one stays to be seen and sent again, unless its place is needed.
        let is_full = kept.len() + dead.len() >= limits::INVITES_MAX;
        let gone = same.iter().chain(dead.iter().take(usize::from(is_full)));
        for invite in gone {
            cx.delete(&invite.key())?;
        }
        check_room(cx)?;
        let invited_by = match cx.principal() {
            Principal::User(user) => Some(user.user),
            _ => None,
        };
        let mut row = InviteRow {
            id: cx.new_id(),
            email,
            role: self.role,
            ticket: TicketId::from_bytes([0; 16]),
            invited_by,
            created_ms: now_ms,
            sent_ms: 0,
            expires_ms: 0,
            version: 0,
        };
        row.send(cx)?;
        cx.audit(Draft::success(Self::NAME, row.named()).with("role", row.role.name()));
        Ok((row.id, row.document(now_ms)))
    }
}

/// Sends an invitation once more, with a new link and its whole time ahead.
#[derive(Debug)]
pub struct ResendInvite {
    /// Which.
    pub invite: InviteId,
}

impl Command for ResendInvite {
    type Action = permit::WriteMembers;
    type Reply = Document;
    const NAME: &'static str = "invite.resend";

    fn target(&self) -> Named {
        Named::new("invite", self.invite)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let mut row: InviteRow = cx.need(&Key::Invite { id: self.invite })?;
        check_ceiling(cx, row.role)?;
        check_new(cx, &row.email, row.role)?;
        if !row.stands(cx.now_ms()) {
            check_room(cx)?;
        }
        // Whoever sends it again stands for it from now on.
        row.invited_by = match cx.principal() {
            Principal::User(user) => Some(user.user),
            _ => None,
        };
        row.send(cx)?;
        cx.audit(Draft::success(Self::NAME, row.named()));
        Ok(row.document(cx.now_ms()))
    }
}

/// Withdraws an invitation: its link is dead.
#[derive(Debug)]
pub struct RevokeInvite {
    /// Which.
    pub invite: InviteId,
}

impl Command for RevokeInvite {
    type Action = permit::WriteMembers;
    type Reply = ();
    const NAME: &'static str = "invite.revoke";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("invite", self.invite)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let row: InviteRow = cx.need(&Key::Invite { id: self.invite })?;
        check_ceiling(cx, row.role)?;
        cx.audit(Draft::success(Self::NAME, row.named()));
        cx.delete(&row.key())
    }
}

/// Reads one invitation.
#[derive(Debug)]
pub struct ReadInvite {
    /// Which.
    pub invite: InviteId,
}

impl Query for ReadInvite {
    type Action = permit::ReadInvites;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        Ok(cx.need::<InviteRow>(&Key::Invite { id: self.invite })?.document(cx.now_ms()))
    }
}

/// Lists invitations, oldest first.
#[derive(Debug)]
pub struct ListInvites {
    /// Which part.
    pub paging: Paging,
}

impl Query for ListInvites {
    type Action = permit::ReadInvites;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let after = open_id_cursor(self.paging.cursor.as_deref())?.map(|id| Key::Invite { id });
        let mut pager = Pager::new(&self.paging);
        let now_ms = cx.now_ms();
        let any = Key::Invite { id: InviteId::from_bytes([0; 16]) };
        let (prefix, limit) = (Prefix::kind(&any), pager.rows_wanted());
        let end = walk(cx, Scan { prefix, after, reverse: false, limit }, |key, bytes| {
            let Key::Invite { id } = *key else { return Ok(Step::Next) };
            pager.offer(id, || Ok(value::decode::<InviteRow>(bytes)?.json(now_ms)))
        })?;
        Ok(pager.close(match end {
            End::Bound(Key::Invite { id }) => Some(id),
            _ => None,
        }))
    }
}

/// The invitation that a link is of, if it still counts.
pub(crate) fn find<R: Reads>(
    cx: &R,
    keys: &storage::seal::TenantKeys,
    token: &MailedToken,
) -> Result<InviteRow, TenantError> {
    let (subject, ticket) = token.open(keys, Purpose::Invite)?;
    let row: Option<InviteRow> = cx.row(&Key::Invite { id: InviteId::from_bytes(subject) })?;
    let row = row.filter(|row| row.ticket == ticket && row.stands(cx.now_ms()));
    let row = row.ok_or(TenantError::BadLink)?;
    if is_backed(cx, &row)? { Ok(row) } else { Err(TenantError::BadLink) }
}

/// Whether who invited could still do so: whoever lost that right leaves no door open behind them.
fn is_backed(cx: &impl Reads, invite: &InviteRow) -> Result<bool, TenantError> {
    let Some(user) = invite.invited_by else { return Ok(true) };
    let row: Option<UserRow> = cx.row(&Key::User { id: user })?;
    let may = |row: &UserRow| row.role >= Role::Admin && row.role >= invite.role;
    Ok(row.is_some_and(|row| !row.deactivated && may(&row)))
}

/// Looks at a link before anybody spends a password hash on it; answers the address it went to.
#[derive(Debug)]
pub struct CheckInvite {
    /// What was presented.
    pub token: MailedToken,
}

impl Query for CheckInvite {
    type Action = permit::SignIn;
    type Reply = String;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<String, TenantError> {
        Ok(find(cx, cx.keys(), &self.token)?.email)
    }
}

/// Makes a member of whoever was invited. The address is proven by the link.
pub struct AcceptInvite {
    /// What was presented.
    pub token: MailedToken,
    /// Their password's hash.
    pub password_phc: String,
}

impl Command for AcceptInvite {
    type Action = permit::SignIn;
    /// What a session can be opened with.
    type Reply = Credential;
    const NAME: &'static str = "invite.accept";

    fn target(&self) -> Named {
        Named::new("invite", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Credential, TenantError> {
        let invite = find(cx, cx.keys(), &self.token)?;
        // Its place in the quota becomes the member's.
        cx.delete(&invite.key())?;
        let phc = self.password_phc;
        let mut row = insert_user(cx, &invite.email, invite.role, Some(phc.clone()))?;
        row.email_verified = true;
        cx.put(&Key::User { id: row.id }, &row)?;
        let draft = Draft::success(Self::NAME, invite.named()).with("role", row.role.name());
        cx.audit_as(row.named(), draft);
        Ok(Credential { user: row.id, password_phc: phc })
    }
}

#[cfg(test)]
mod tests;
