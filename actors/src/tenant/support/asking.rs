//! The platform's part: what was asked for is kept and logged in its own compartment, and the tenant is told by
//! the node, which alone may.
//!
//! Refuses: a session without a reason, a ticket and an end, and more of them than a tenant keeps at once.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{SupportId, TenantId, UserId};
use storage::txn::Scan;
use storage::value;

use super::{Asked, SupportRow, SupportState, SupportView, all, key, named, tell};
use crate::audit::entry::{Draft, Named};
use crate::call::{Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{self, Scopes};
use crate::tenant::api_keys::text::PresentedSupport;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, FieldError, TenantError};
use crate::tenant::forms::lists::{End, Pager, Step, open_id_cursor, walk};
use crate::tenant::forms::{line, paragraph, to_json};
use crate::tenant::people::UserRow;
use crate::tenant::restore;

/// Longest name of a case, in bytes.
const TICKET_BYTES_MAX: usize = 200;

/// What was asked for, as the platform keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupportAsked {
    /// Of which tenant.
    pub tenant: TenantId,
    /// What.
    pub asked: Asked,
}

/// What was asked for, as platform administrators see it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct SupportAskedView {
    /// Which session.
    #[schemars(with = "String")]
    pub id: SupportId,
    /// Of which tenant.
    #[schemars(with = "String")]
    pub tenant: TenantId,
    /// Who asked: their address.
    pub asked_by: String,
    /// Why.
    pub reason: String,
    /// The case it is about.
    pub ticket: String,
    /// For how long, from when it opens.
    pub minutes: u32,
    /// What it may change beside what every session shows.
    pub scopes: Vec<String>,
    /// When it was asked for, RFC 3339 UTC.
    pub asked_at: String,
}

impl SupportAsked {
    /// What platform administrators see of it.
    pub fn view(&self) -> SupportAskedView {
        let Asked { id, email, reason, ticket, minutes, scopes, asked_ms, .. } = self.asked.clone();
        SupportAskedView {
            id,
            tenant: self.tenant,
            asked_by: email,
            reason,
            ticket,
            minutes,
            scopes,
            asked_at: rfc3339(asked_ms),
        }
    }

    fn draft(&self, name: &'static str) -> Draft {
        Draft::success(name, restore::named(self.tenant))
            .with("support", self.asked.id.to_string())
            .with("ticket", self.asked.ticket.as_str())
    }
}

/// Keeps what an administrator asks for, in the platform's compartment.
#[derive(Debug)]
pub struct AskForSupport {
    /// Of which tenant.
    pub tenant: TenantId,
    /// Why.
    pub reason: String,
    /// The case it is about.
    pub ticket: String,
    /// For how long: 1 to [`limits::SUPPORT_MINUTES_MAX`].
    pub minutes: u32,
    /// What it is to change beside what every session shows.
    pub scopes: Vec<String>,
}

impl AskForSupport {
    fn check(&self) -> Result<(String, String), TenantError> {
        let mut errors = Vec::new();
        let mut take = |taken: Result<String, TenantError>| match taken {
            Ok(text) => Ok(text),
            Err(TenantError::Invalid(found)) => {
                errors.extend(found);
                Ok(String::new())
            }
            Err(error) => Err(error),
        };
        let reason = take(paragraph("/reason", &self.reason, limits::TEXT_BYTES_MAX))?;
        let ticket = take(line("/ticket", &self.ticket, TICKET_BYTES_MAX))?;
        let mut fault = |pointer: String, message: String| {
            errors.push(FieldError { pointer, message });
        };
        if !(1..=limits::SUPPORT_MINUTES_MAX).contains(&self.minutes) {
            let message = format!("must be 1 to {}", limits::SUPPORT_MINUTES_MAX);
            fault("/minutes".to_owned(), message);
        }
        for (index, name) in self.scopes.iter().enumerate().take(limits::ERRORS_MAX) {
            let scope = Scopes::named(name).filter(|it| it.is_within(Scopes::with_consent()));
            if scope.is_none() {
                let known: Vec<_> = Scopes::with_consent().names().collect();
                let message = format!("must be one of {}", known.join(", "));
                fault(format!("/scopes/{index}"), message);
            }
        }
        if errors.is_empty() { Ok((reason, ticket)) } else { Err(TenantError::Invalid(errors)) }
    }
}

impl Command for AskForSupport {
    type Action = permit::AskSupport;
    type Reply = SupportAsked;
    const NAME: &'static str = "support.ask";

    fn target(&self) -> Named {
        restore::named(self.tenant)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<SupportAsked, TenantError> {
        let (reason, ticket) = self.check()?;
        let admin = cx.person()?.user;
        let row: UserRow = cx.need(&storage::keys::Key::User { id: admin })?;
        let mut scopes = self.scopes;
        scopes.sort();
        scopes.dedup();
        let (id, asked_ms, minutes) = (cx.new_id(), cx.now_ms(), self.minutes);
        let email = row.email;
        let asked = Asked { id, admin, email, reason, ticket, minutes, scopes, asked_ms };
        let asked = SupportAsked { tenant: self.tenant, asked };
        cx.put(&key(id), &asked)?;
        let draft = asked.draft(Self::NAME).with("reason", asked.asked.reason.as_str());
        cx.audit(draft.with("minutes", u64::from(minutes)));
        Ok(asked)
    }
}

/// What an administrator does with a session they asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupportAct {
    /// Takes a new token.
    Token,
    /// Ends it.
    End,
}

/// Writes to the platform's own chain what an administrator is about to do with a session. A token is for
/// who asked for the session, nobody else.
#[derive(Debug)]
pub struct RecordSupportAct {
    /// Which session.
    pub id: SupportId,
    /// What is done.
    pub act: SupportAct,
}

impl Command for RecordSupportAct {
    type Action = permit::AskSupport;
    type Reply = SupportAsked;
    const NAME: &'static str = "support.act";

    fn target(&self) -> Named {
        Named::new("support", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<SupportAsked, TenantError> {
        let asked: SupportAsked = cx.need(&key(self.id))?;
        let name = match self.act {
            SupportAct::Token if asked.asked.admin != cx.person()?.user => {
                return Err(TenantError::Forbidden { action: "platform-support:of-another" });
            }
            SupportAct::Token => "support.token",
            SupportAct::End => "support.end",
        };
        cx.audit(asked.draft(name));
        Ok(asked)
    }
}

/// Reads what was asked for.
#[derive(Debug)]
pub struct FindSupportAsked {
    /// Which session.
    pub id: SupportId,
}

impl Query for FindSupportAsked {
    type Action = permit::ReadSupportAsked;
    type Reply = SupportAsked;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<SupportAsked, TenantError> {
        cx.need(&key(self.id))
    }
}

/// Lists what was asked for, oldest first.
#[derive(Debug)]
pub struct ListSupportAsked {
    /// Which part.
    pub paging: Paging,
}

impl Query for ListSupportAsked {
    type Action = permit::ReadSupportAsked;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        list(cx, &self.paging, |row: &SupportAsked, _| (row.asked.id, to_json(&row.view())))
    }
}

/// What somebody asked for that may wait or be open in its tenant, newest first.
pub(crate) fn maybe_living_of(
    cx: &impl Reads,
    admin: UserId,
) -> Result<Vec<SupportAsked>, TenantError> {
    let longest_ms = limits::SUPPORT_WAIT_MS + u64::from(limits::SUPPORT_MINUTES_MAX) * 60_000;
    let since_ms = cx.now_ms().saturating_sub(longest_ms);
    let mut found = Vec::new();
    let newest_first = Scan { limit: usize::MAX, reverse: true, ..Scan::all(all()) };
    walk(cx, newest_first, |_, bytes| {
        let row: SupportAsked = value::decode(bytes)?;
        if row.asked.asked_ms < since_ms {
            return Ok(Step::Stop);
        }
        if row.asked.admin == admin {
            found.push(row);
        }
        Ok(Step::Next)
    })?;
    Ok(found)
}

/// A page of rows under the session's key, oldest first.
pub(super) fn list<T: serde::de::DeserializeOwned>(
    cx: &mut ReadCx<'_>,
    paging: &Paging,
    shown: impl Fn(&T, u64) -> (SupportId, ByteBuf),
) -> Result<Page, TenantError> {
    let after = open_id_cursor(paging.cursor.as_deref())?.map(key);
    let mut pager = Pager::new(paging);
    let limit = pager.rows_wanted();
    let now_ms = cx.now_ms();
    let end = walk(cx, Scan { after, limit, ..Scan::all(all()) }, |_, bytes| {
        let row: T = value::decode(bytes)?;
        let (id, json) = shown(&row, now_ms);
        pager.offer(id, || Ok(json))
    })?;
    Ok(pager.close(match end {
        End::Bound(storage::keys::Key::Support { id }) => Some(id),
        _ => None,
    }))
}

/// Tells the tenant what is asked for: its row, as it stands then. Told twice, it is the same row.
#[derive(Debug)]
pub struct BeginSupport {
    /// What is asked for.
    pub asked: Asked,
    /// Whether somebody of the tenant has to approve it in any case.
    pub is_to_wait: bool,
}

impl Command for BeginSupport {
    type Action = permit::Operate;
    type Reply = SupportState;
    const NAME: &'static str = "support.ask";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("support", self.asked.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<SupportState, TenantError> {
        let now_ms = cx.now_ms();
        let key = key(self.asked.id);
        if let Some(row) = cx.row::<SupportRow>(&key)? {
            return Ok(row.state(now_ms));
        }
        make_room(cx)?;
        let profile = cx.state().profile.as_ref();
        let wants_to_be_asked = profile.is_some_and(|profile| profile.support_approval);
        let mut row = SupportRow {
            asked: self.asked,
            state: SupportState::Waiting,
            decided_by: None,
            decided_ms: None,
            expires_ms: None,
            tokens: 0,
            digest: None,
            version: 1,
        };
        if !(self.is_to_wait || wants_to_be_asked || !row.asked.scopes.is_empty()) {
            row.open(now_ms);
        }
        cx.put(&key, &row)?;
        let draft = Draft::success(Self::NAME, named(&row.asked))
            .with("reason", row.asked.reason.as_str())
            .with("ticket", row.asked.ticket.as_str())
            .with("minutes", u64::from(row.asked.minutes))
            .with("scopes", row.asked.scopes.join(" "))
            .with("state", row.state.name());
        cx.audit_as(named(&row.asked), draft);
        tell(cx, row.asked.id)?;
        Ok(row.state)
    }
}

/// Drops the oldest sessions that are over, where as many as are kept are there.
fn make_room(cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
    let now_ms = cx.now_ms();
    let rows = cx.rows(&Scan { limit: limits::SUPPORT_MAX, ..Scan::all(all()) })?;
    if rows.len() < limits::SUPPORT_MAX {
        return Ok(());
    }
    for (key, bytes) in rows {
        let row: SupportRow = value::decode(&bytes)?;
        if !row.is_living(now_ms) {
            return cx.delete(&key);
        }
    }
    Err(TenantError::Conflict(Conflict::TooManySupportSessions))
}

/// Makes the token of an open session; earlier ones are void.
#[derive(Debug)]
pub struct IssueSupportToken {
    /// Which session.
    pub id: SupportId,
    /// Who asks: only who asked for the session.
    pub admin: UserId,
}

impl Command for IssueSupportToken {
    type Action = permit::Operate;
    type Reply = (String, u64);
    const NAME: &'static str = "support.token";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("support", self.id)
    }

    /// The token's text, and when it ends, Unix milliseconds.
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(String, u64), TenantError> {
        let mut row: SupportRow = cx.need(&key(self.id))?;
        let is_open = row.state(cx.now_ms()) == SupportState::Open;
        let Some(expires_ms) = row.expires_ms.filter(|_| is_open) else {
            return Err(TenantError::Conflict(Conflict::SupportNotOpen));
        };
        if row.asked.admin != self.admin {
            return Err(TenantError::Forbidden { action: "platform-support:of-another" });
        }
        let token = PresentedSupport::new(cx.tenant(), self.id, cx.random());
        row.tokens += 1;
        row.digest = Some(ByteBuf::from(token.digest(cx)));
        row.version += 1;
        cx.put(&key(self.id), &row)?;
        cx.audit_as(named(&row.asked), Draft::success(Self::NAME, named(&row.asked)));
        Ok((token.text(), expires_ms))
    }
}

/// Ends a session for the platform.
#[derive(Debug)]
pub struct EndSupport {
    /// Which session.
    pub id: SupportId,
    /// Whether it ends because who asked for it was removed from the platform: then it is not they who end it.
    pub is_removal: bool,
}

impl Command for EndSupport {
    type Action = permit::Operate;
    /// Whether there was anything left to end.
    type Reply = bool;
    const NAME: &'static str = "support.end";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("support", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<bool, TenantError> {
        let mut row: SupportRow = cx.need(&key(self.id))?;
        if !row.is_living(cx.now_ms()) {
            return Ok(false);
        }
        row.state = SupportState::Ended;
        row.version += 1;
        cx.put(&key(self.id), &row)?;
        let draft = Draft::success(Self::NAME, named(&row.asked));
        match self.is_removal {
            true => cx.audit(draft.with("reason", "administrator-removed")),
            false => cx.audit_as(named(&row.asked), draft),
        }
        Ok(true)
    }
}

/// How a session stands in its tenant.
#[derive(Debug)]
pub struct FindSupport {
    /// Which session.
    pub id: SupportId,
}

impl Query for FindSupport {
    type Action = permit::Operate;
    type Reply = SupportView;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<SupportView, TenantError> {
        let row: SupportRow = cx.need(&key(self.id))?;
        Ok(row.view(cx.now_ms()))
    }
}
