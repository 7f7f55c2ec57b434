//! Integrations: sources of inbound webhooks, and the secrets they sign with.
//!
//! A secret is shown once, in the answer that made it, and never again; it rests in the sealed row.
//! Several may be active at once, so a sender can be moved from one to the next without losing a
//! delivery. What arrives is received and kept by [`events`];
//! secrets come and go in [`secrets`]. Refuses: to call anybody.

pub mod events;
pub(crate) mod moving;
pub mod secrets;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{Id, IntegrationId, SecretId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{FieldError, TenantError};
use crate::webhook::scheme::{Secret, Source};

/// An integration, as it is shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct IntegrationView {
    /// Which one.
    #[schemars(with = "String")]
    pub id: IntegrationId,
    /// Whose signature scheme it uses.
    pub source: Source,
    /// What people call it.
    pub name: String,
    /// Whether it takes deliveries.
    pub enabled: bool,
    /// The path of the URL that the sender is given.
    pub hook_path: String,
    /// The secrets that deliveries may be signed with, without the secrets.
    pub secrets: Vec<SecretView>,
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
    /// Counts changes.
    pub version: u64,
}

/// A secret, without the secret.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SecretView {
    /// Which one.
    #[schemars(with = "String")]
    pub id: SecretId,
    /// When it was added.
    pub created_at: String,
    /// When it stops verifying; absent: not by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// An integration with a secret that is shown this one time.
#[derive(Debug, Serialize, JsonSchema)]
pub struct IntegrationWithSecret {
    /// The integration.
    #[serde(flatten)]
    pub integration: IntegrationView,
    /// The secret that was generated, to be given to the sender; absent if the caller brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// The stored row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IntegrationRow {
    id: IntegrationId,
    source: Source,
    name: String,
    enabled: bool,
    secrets: Vec<SecretRow>,
    created_ms: u64,
    updated_ms: u64,
    version: u64,
    /// What reads answer.
    json: ByteBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SecretRow {
    id: SecretId,
    secret: Secret,
    created_ms: u64,
    expires_ms: Option<u64>,
}

impl SecretRow {
    fn is_active(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }
}

impl IntegrationRow {
    fn key(id: IntegrationId) -> Key {
        Key::Integration { id }
    }

    fn named(&self) -> Named {
        Named::new("integration", self.id)
    }

    fn document(&self) -> Document {
        Document { version: self.version, json: self.json.clone() }
    }

    /// Takes the next version, writes the row, and gives what it looks like.
    fn save(&mut self, cx: &mut Cx<'_, '_>) -> Result<IntegrationView, TenantError> {
        self.updated_ms = cx.now_ms();
        self.version += 1;
        let slug = cx.state().profile.as_ref().map(|profile| profile.slug.clone());
        let slug = slug.unwrap_or_else(|| cx.tenant().to_string());
        let view = self.render(&slug);
        cx.put(&Self::key(self.id), self)?;
        Ok(view)
    }

    /// Writes anew what reads answer, for a tenant with that short name.
    fn render(&mut self, slug: &str) -> IntegrationView {
        let view = IntegrationView {
            id: self.id,
            source: self.source,
            name: self.name.clone(),
            enabled: self.enabled,
            hook_path: format!("/v1/hooks/{slug}/{}", self.id),
            secrets: self.secrets.iter().map(SecretRow::view).collect(),
            created_at: rfc3339(self.created_ms),
            updated_at: rfc3339(self.updated_ms),
            version: self.version,
        };
        self.json = json(&view);
        view
    }

    /// Saves, and answers with the secret that was just made, if one was.
    fn save_with(
        &mut self,
        cx: &mut Cx<'_, '_>,
        secret: Option<Secret>,
    ) -> Result<Document, TenantError> {
        let integration = self.save(cx)?;
        let shown = IntegrationWithSecret { integration, secret };
        Ok(Document { version: self.version, json: json(&shown) })
    }
}

impl SecretRow {
    fn new(cx: &Cx<'_, '_>, secret: Secret) -> Self {
        Self { id: cx.new_id(), secret, created_ms: cx.now_ms(), expires_ms: None }
    }

    fn view(&self) -> SecretView {
        SecretView {
            id: self.id,
            created_at: rfc3339(self.created_ms),
            expires_at: self.expires_ms.map(rfc3339),
        }
    }
}

fn json(view: &impl Serialize) -> ByteBuf {
    ByteBuf::from(serde_json::to_vec(view).expect("views hold only texts, numbers and flags"))
}

fn check_name(name: &str, errors: &mut Vec<FieldError>) {
    let fits = (1..=limits::TEXT_BYTES_MAX).contains(&name.trim().len());
    if !fits || name.len() > limits::TEXT_BYTES_MAX || name.chars().any(char::is_control) {
        let message = format!(
            "must have 1 to {} bytes, not only spaces, and no control characters",
            limits::TEXT_BYTES_MAX
        );
        errors.push(FieldError { pointer: "/name".to_owned(), message });
    }
}

fn check_secrets(source: Source, secrets: &[Secret], errors: &mut Vec<FieldError>) {
    if secrets.len() > limits::SECRETS_MAX {
        let message = format!("must have at most {} items", limits::SECRETS_MAX);
        errors.push(FieldError { pointer: "/secrets".to_owned(), message });
        return;
    }
    for (index, secret) in secrets.iter().enumerate() {
        let repeated = secrets[..index].contains(secret).then_some("is there twice");
        if let Some(message) = source.check_secret(secret).err().or(repeated) {
            let pointer = format!("/secrets/{index}");
            errors.push(FieldError { pointer, message: message.to_owned() });
        }
    }
}

fn none_of(errors: Vec<FieldError>) -> Result<(), TenantError> {
    if errors.is_empty() { Ok(()) } else { Err(TenantError::Invalid(errors)) }
}

/// Creates an integration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateIntegration {
    /// Whose signature scheme it uses.
    pub source: Source,
    /// What people call it.
    pub name: String,
    /// Secrets the sender already has. Without any, one is generated and shown in the answer, once.
    #[serde(default)]
    pub secrets: Vec<Secret>,
}

impl Command for CreateIntegration {
    type Action = permit::WriteIntegrations;
    type Reply = (IntegrationId, Document);
    const NAME: &'static str = "integration.create";

    fn target(&self) -> Named {
        Named::new("source", self.source)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(IntegrationId, Document), TenantError> {
        let mut errors = Vec::new();
        check_name(&self.name, &mut errors);
        check_secrets(self.source, &self.secrets, &mut errors);
        none_of(errors)?;
        let generated = self.secrets.is_empty().then(|| self.source.generate_secret(&cx.random()));
        let secrets = self.secrets.into_iter().chain(generated.clone());
        let mut row = IntegrationRow {
            id: cx.new_id(),
            source: self.source,
            name: self.name,
            enabled: true,
            secrets: secrets.map(|secret| SecretRow::new(cx, secret)).collect(),
            created_ms: cx.now_ms(),
            updated_ms: cx.now_ms(),
            version: 0,
            json: ByteBuf::new(),
        };
        let answer = row.save_with(cx, generated)?;
        cx.audit(Draft::success(Self::NAME, row.named()).with("source", row.source.name()));
        Ok((row.id, answer))
    }
}

/// What to change of an integration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntegrationChanges {
    /// What people call it.
    pub name: Option<String>,
    /// Whether it takes deliveries. While it does not, it looks absent to senders.
    pub enabled: Option<bool>,
}

/// Renames an integration, or switches it on or off.
#[derive(Debug)]
pub struct UpdateIntegration {
    /// Which one.
    pub integration: IntegrationId,
    /// What to change.
    pub changes: IntegrationChanges,
    /// Only if this is its version.
    pub if_match: Option<u64>,
}

impl Command for UpdateIntegration {
    type Action = permit::WriteIntegrations;
    type Reply = Document;
    const NAME: &'static str = "integration.toggle";

    fn target(&self) -> Named {
        Named::new("integration", self.integration)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let mut row: IntegrationRow = cx.need(&IntegrationRow::key(self.integration))?;
        if self.if_match.is_some_and(|version| version != row.version) {
            return Err(TenantError::VersionMismatch);
        }
        let renamed = self.changes.name.filter(|name| *name != row.name);
        let toggled = self.changes.enabled.filter(|&enabled| enabled != row.enabled);
        if renamed.is_none() && toggled.is_none() {
            return Ok(row.document());
        }
        let mut errors = Vec::new();
        renamed.iter().for_each(|name| check_name(name, &mut errors));
        none_of(errors)?;
        row.name = renamed.clone().unwrap_or(row.name);
        row.enabled = toggled.unwrap_or(row.enabled);
        row.save(cx)?;
        if let Some(enabled) = toggled {
            cx.audit(Draft::success(Self::NAME, row.named()).with("enabled", enabled));
        }
        if let Some(name) = renamed {
            cx.audit(Draft::success("integration.update", row.named()).with("name", name));
        }
        Ok(row.document())
    }
}

/// Reads one integration.
#[derive(Debug)]
pub struct ReadIntegration {
    /// Which one.
    pub integration: IntegrationId,
}

impl Query for ReadIntegration {
    type Action = permit::ReadIntegrations;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let row: IntegrationRow = cx.need(&IntegrationRow::key(self.integration))?;
        Ok(row.document())
    }
}

/// Lists integrations, in the order they were made.
#[derive(Debug)]
pub struct ListIntegrations {
    /// Which part.
    pub paging: Paging,
}

impl Query for ListIntegrations {
    type Action = permit::ReadIntegrations;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let after = self.paging.cursor.as_deref().map(read_cursor).transpose()?;
        let wanted = self.paging.limit.clamp(1, limits::PAGE_MAX);
        let any = IntegrationRow::key(IntegrationId::from_bytes([0; 16]));
        let scan = Scan {
            prefix: Prefix::kind(&any),
            after: after.map(IntegrationRow::key),
            reverse: false,
            // One more than wanted tells whether there is a next page.
            limit: wanted + 1,
        };
        let rows = cx.rows(&scan)?;
        let mut page = Page::default();
        let mut last = None;
        for (_, bytes) in rows.iter().take(wanted) {
            let row: IntegrationRow = value::decode(bytes)?;
            last = Some(row.id);
            page.items.push(row.json);
        }
        page.next = last.filter(|_| rows.len() > wanted).map(write_cursor);
        Ok(page)
    }
}

fn write_cursor(last: impl Id) -> String {
    URL_SAFE_NO_PAD.encode(last.as_bytes())
}

fn read_cursor<I: Id>(text: &str) -> Result<I, TenantError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(I::from_bytes).ok_or_else(|| {
        TenantError::invalid("query/cursor", "must be the next_cursor of the page before")
    })
}

#[cfg(test)]
mod tests;
