//! Making, changing and revoking API keys, and noting that one was used.
//!
//! Use is noted once a day and key, so that reading with a key does not write: whoever proves a key asks
//! for the note when the row does not have today yet.
//!
//! Refuses: more keys than a person or a tenant may have, scopes that who makes or changes a key does not have, an end that lies too far ahead, and to
//! bring a key back that has ended.

use serde::Deserialize;
use serde_bytes::ByteBuf;
use storage::id::{ApiKeyId, UserId};
use storage::keys::Key;
use storage::txn::Scan;
use storage::value;

use super::text::PresentedKey;
use super::{ApiKeyRow, ApiKeyWithText, visible};
use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::env::{parse_rfc3339, rfc3339};
use crate::limits;
use crate::permit::{CAPABILITIES, Role, Scopes, SignIn, WriteApiKeys};
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::{Conflict, FieldError, TenantError};
use crate::tenant::forms::{Made, check_version, line, to_json};
use crate::tenant::job::day;
use crate::tenant::people::UserRow;

/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// The body that makes an API key.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKeyBody {
    /// What people call it.
    pub name: String,
    /// The capabilities it is given, such as `forms:read`; each one that you have yourself.
    pub scopes: Vec<String>,
    /// When it ends, RFC 3339: at most 365 days from now. Absent: in 90 days.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// What people become whom it provisions over SCIM without naming a role: customer, viewer, member
    /// or admin. Absent: member.
    #[serde(default)]
    pub provisions_as: Option<Role>,
}

/// The body that changes an API key: only what it names.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateApiKeyBody {
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
    /// The capabilities it has from now on; each one that you and who made it have.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// When it ends, RFC 3339: at most 365 days from now.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// What people become whom it provisions over SCIM without naming a role.
    #[serde(default)]
    pub provisions_as: Option<Role>,
}

/// Reads names of capabilities that the asker has. Every one that no key can have is reported.
fn take_scopes(cx: &Cx<'_, '_>, names: &[String]) -> Result<Scopes, TenantError> {
    if names.is_empty() || names.len() > CAPABILITIES.len() {
        let message = format!("must have 1 to {} items", CAPABILITIES.len());
        return Err(TenantError::invalid("/scopes", message));
    }
    let mut scopes = Scopes::NONE;
    let mut errors = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match Scopes::named(name) {
            Some(scope) => scopes = scopes.with(scope),
            None => errors.push(FieldError {
                pointer: format!("/scopes/{index}"),
                message: "is no capability that an API key can have; see /v1/meta/capabilities"
                    .to_owned(),
            }),
        }
    }
    errors.truncate(limits::ERRORS_MAX);
    if !errors.is_empty() {
        return Err(TenantError::Invalid(errors));
    }
    if !scopes.is_within(Scopes::of_role(cx.role())) {
        return Err(TenantError::Forbidden { action: "api-keys:scope-above-own" });
    }
    Ok(scopes)
}

/// Reads what a key may make of people: nothing above what SCIM gives at all.
fn take_provisions_as(role: Option<Role>) -> Result<Option<Role>, TenantError> {
    if role.is_some_and(|role| role > Role::Admin) {
        let message = "must be one of customer, viewer, member, admin";
        return Err(TenantError::invalid("/provisions_as", message));
    }
    Ok(role)
}

/// Reads when a key ends.
fn take_end(cx: &Cx<'_, '_>, text: &str) -> Result<u64, TenantError> {
    let invalid = |message: &str| TenantError::invalid("/expires_at", message);
    let end_ms = parse_rfc3339(text)
        .ok_or_else(|| invalid("must be a time since 1970 such as 2031-05-17T08:30:00Z"))?;
    if end_ms <= cx.now_ms() {
        return Err(invalid("lies in the past"));
    }
    if end_ms > cx.now_ms().saturating_add(limits::API_KEY_MS_MAX) {
        return Err(invalid("must be at most 365 days from now"));
    }
    Ok(end_ms)
}

fn owned(scopes: Scopes) -> Vec<String> {
    scopes.names().map(str::to_owned).collect()
}

/// Makes sure that one more key of that person fits. Theirs that have ended go, oldest first, where they take the
/// place.
fn make_room(cx: &mut Cx<'_, '_>, creator: UserId) -> Result<(), TenantError> {
    // Twice the bound: a release that lowers it still sees all that an older one left.
    let scan = Scan { limit: 2 * limits::API_KEYS_MAX, ..Scan::all(ApiKeyRow::all()) };
    let rows = cx.rows(&scan)?;
    let mut own = Vec::new();
    for (_, bytes) in &rows {
        let row: ApiKeyRow = value::decode(bytes)?;
        if row.created_by == creator {
            own.push(row);
        }
    }
    let surplus = (own.len() + 1).saturating_sub(limits::API_KEYS_EACH_MAX);
    let now_ms = cx.now_ms();
    let (ended, living): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|row| row.expires_ms <= now_ms);
    if living.len() >= limits::API_KEYS_EACH_MAX {
        return Err(TenantError::Conflict(Conflict::TooManyOwnApiKeys));
    }
    let going = &ended[..surplus.min(ended.len())];
    if rows.len() - going.len() >= limits::API_KEYS_MAX {
        return Err(TenantError::Conflict(Conflict::TooManyApiKeys));
    }
    going.iter().try_for_each(|row| cx.delete(&ApiKeyRow::key(row.id)))
}

/// Makes an API key. The answer has its text; no other ever does.
#[derive(Debug)]
pub struct CreateApiKey {
    /// What it is to be.
    pub body: CreateApiKeyBody,
}

impl Command for CreateApiKey {
    type Action = WriteApiKeys;
    type Reply = Made<ApiKeyId>;
    const NAME: &'static str = "api_key.create";

    fn target(&self) -> Named {
        Named::new("api-key", "new")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Made<ApiKeyId>, TenantError> {
        let created_by = cx.person()?.user;
        let name = line("/name", &self.body.name, NAME_BYTES_MAX)?;
        let scopes = take_scopes(cx, &self.body.scopes)?;
        let provisions_as = take_provisions_as(self.body.provisions_as)?;
        let now_ms = cx.now_ms();
        let expires_ms = match &self.body.expires_at {
            Some(text) => take_end(cx, text)?,
            None => now_ms.saturating_add(limits::API_KEY_MS_DEFAULT),
        };
        make_room(cx, created_by)?;
        let id = cx.new_id();
        let key = PresentedKey::new(cx.tenant(), id, cx.random());
        let row = ApiKeyRow {
            id,
            name,
            digest: ByteBuf::from(key.digest(cx)),
            scopes: owned(scopes),
            created_by,
            created_ms: now_ms,
            updated_ms: now_ms,
            expires_ms,
            used_day: None,
            version: 1,
            provisions_as,
        };
        cx.put(&ApiKeyRow::key(id), &row)?;
        let draft = Draft::success(Self::NAME, row.named())
            .with("name", row.name.as_str())
            .with("scopes", row.scopes.join(" "))
            .with("expires_at", rfc3339(expires_ms));
        cx.audit(draft);
        let json = to_json(&ApiKeyWithText { api_key: row.view(), key: key.text() });
        Ok(Made { id, document: Document { version: row.version, json } })
    }
}

/// Changes an API key's name, scopes or end.
#[derive(Debug)]
pub struct UpdateApiKey {
    /// Which.
    pub id: ApiKeyId,
    /// What is to change.
    pub body: UpdateApiKeyBody,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl UpdateApiKey {
    /// The asker may give these scopes; but the key still acts in its creator's place.
    fn check_creator(cx: &Cx<'_, '_>, row: &ApiKeyRow, scopes: Scopes) -> Result<(), TenantError> {
        let creator: Option<UserRow> = cx.row(&Key::User { id: row.created_by })?;
        let held = creator.map_or(Scopes::NONE, |creator| Scopes::of_role(creator.role));
        if scopes.is_within(held) {
            return Ok(());
        }
        Err(TenantError::invalid("/scopes", "must be capabilities that who made the key has"))
    }
}

impl Command for UpdateApiKey {
    type Action = WriteApiKeys;
    type Reply = Document;
    const NAME: &'static str = "api_key.update";

    fn target(&self) -> Named {
        Named::new("api-key", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let before = visible(cx, self.id)?;
        check_version(self.if_match, before.version)?;
        let mut row = before.clone();
        let mut draft = Draft::success(Self::NAME, row.named());
        if let Some(name) = &self.body.name {
            row.name = line("/name", name, NAME_BYTES_MAX)?;
            draft = draft.with("name", row.name.as_str());
        }
        if let Some(names) = &self.body.scopes {
            let scopes = take_scopes(cx, names)?;
            Self::check_creator(cx, &row, scopes)?;
            row.scopes = owned(scopes);
            draft = draft.with("scopes", row.scopes.join(" "));
        }
        if let Some(text) = &self.body.expires_at {
            if row.expires_ms <= cx.now_ms() {
                let message = "cannot be changed any more: the key has ended; make another one";
                return Err(TenantError::invalid("/expires_at", message));
            }
            row.expires_ms = take_end(cx, text)?;
            draft = draft.with("expires_at", rfc3339(row.expires_ms));
        }
        if let Some(role) = take_provisions_as(self.body.provisions_as)? {
            row.provisions_as = Some(role);
            draft = draft.with("provisions_as", role.name());
        }
        if row == before {
            return Ok(row.document());
        }
        row.version += 1;
        row.updated_ms = cx.now_ms();
        cx.put(&ApiKeyRow::key(self.id), &row)?;
        cx.audit(draft);
        Ok(row.document())
    }
}

/// Revokes an API key: it is refused from the next message on.
#[derive(Debug)]
pub struct RevokeApiKey {
    /// Which.
    pub id: ApiKeyId,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for RevokeApiKey {
    type Action = WriteApiKeys;
    type Reply = ();
    const NAME: &'static str = "api_key.revoke";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("api-key", self.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let row = visible(cx, self.id)?;
        check_version(self.if_match, row.version)?;
        revoke(cx, &row)
    }
}

fn revoke(cx: &mut Cx<'_, '_>, row: &ApiKeyRow) -> Result<(), TenantError> {
    cx.delete(&ApiKeyRow::key(row.id))?;
    let draft = Draft::success(RevokeApiKey::NAME, row.named()).with("name", row.name.as_str());
    cx.audit(draft);
    Ok(())
}

/// Revokes every API key that somebody made: they leave, and so does what acts in their place.
pub(crate) fn revoke_all_of(cx: &mut Cx<'_, '_>, creator: UserId) -> Result<(), TenantError> {
    // Twice the bound: a release that lowers it still sees all that an older one left.
    let scan = Scan { limit: 2 * limits::API_KEYS_MAX, ..Scan::all(ApiKeyRow::all()) };
    for (_, bytes) in cx.rows(&scan)? {
        let row: ApiKeyRow = value::decode(&bytes)?;
        if row.created_by == creator {
            revoke(cx, &row)?;
        }
    }
    Ok(())
}

/// Notes that a key was used today. Writes once a day, and nothing for a key that is not right.
#[derive(Debug)]
pub struct NoteApiKeyUse {
    /// The key.
    pub presented: PresentedKey,
}

impl Command for NoteApiKeyUse {
    type Action = SignIn;
    type Reply = ();
    const NAME: &'static str = "api_key.use";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("api-key", self.presented.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let key = ApiKeyRow::key(self.presented.id);
        let row: Option<ApiKeyRow> = cx.row(&key)?;
        let is_right = self.presented.is_of(cx, row.as_ref().map(|row| &row.digest[..]));
        let today = day(cx.now_ms());
        let is_new = |row: &ApiKeyRow| row.used_day.is_none_or(|used| used < today);
        if let Some(mut row) = row.filter(|row| is_right && is_new(row)) {
            row.used_day = Some(today);
            row.version += 1;
            cx.put(&key, &row)?;
        }
        Ok(())
    }
}
