//! The parties that a tenant lets vouch for people.
//!
//! A party vouches for roles up to that of whoever said so: otherwise an administrator could set one up that
//! calls them the owner. What is trusted (keys, client, audience) is changed by those only who could
//! have said it. Issuer and kind never change: the subjects of another issuer are other people. A
//! secret rests in the sealed row and is never shown again.
//!
//! Refuses: letting anybody in as an owner, and key sets that hold secrets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{Id, IdentityProviderId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::Named;
use crate::call::Document;
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{self, Action as _, Role};
use crate::tenant::cx::{Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::people::UserRow;
use crate::webhook::scheme::Secret;

mod check;
mod commands;

pub use check::{FIREBASE_ISSUER, FIREBASE_KEYS, GOOGLE_ISSUER};
pub use commands::{
    CreateIdentityProvider, DeleteIdentityProvider, FindProvider, IdentityProviderChanges,
    ListIdentityProviders, ReadIdentityProvider, UpdateIdentityProvider,
};

/// How a party vouches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// OpenID Connect: people are sent there and come back with a code.
    Oidc,
    /// The same at Google.
    Google,
    /// Any issuer of JSON Web Tokens: an app brings a token it got there.
    Jwks,
    /// The same from Firebase Authentication.
    Firebase,
}

impl ProviderKind {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oidc => "oidc",
            Self::Google => "google",
            Self::Jwks => "jwks",
            Self::Firebase => "firebase",
        }
    }

    /// Whether people are sent there, rather than bring a token.
    pub const fn redirects(self) -> bool {
        matches!(self, Self::Oidc | Self::Google)
    }

    /// What the audit log calls a sign-in by it.
    pub const fn factor(self) -> &'static str {
        if self.redirects() { "oidc" } else { "external" }
    }
}

/// Where a party's keys are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// At this URL, as a JSON Web Key Set.
    Url(String),
    /// Here: a JSON Web Key Set (RFC 7517), public keys only.
    Keys(Vec<serde_json::Map<String, serde_json::Value>>),
}

/// Keys in the row: a set is kept as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum StoredKeys {
    Url(String),
    Set(String),
}

impl StoredKeys {
    fn of(source: &KeySource) -> Self {
        match source {
            KeySource::Url(url) => Self::Url(url.clone()),
            KeySource::Keys(keys) => {
                Self::Set(serde_json::to_string(keys).expect("JSON values are JSON"))
            }
        }
    }

    fn shown(&self) -> KeySource {
        match self {
            Self::Url(url) => KeySource::Url(url.clone()),
            Self::Set(text) => KeySource::Keys(serde_json::from_str(text).unwrap_or_default()),
        }
    }
}

/// The stored row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProviderRow {
    id: IdentityProviderId,
    name: String,
    kind: ProviderKind,
    issuer: String,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    audience: Option<String>,
    keys: Option<StoredKeys>,
    domains: Vec<String>,
    pub(super) default_role: Option<Role>,
    enabled: bool,
    /// The role of whoever last said what is trusted, as it was then.
    vouches_up_to: Role,
    created_ms: u64,
    updated_ms: u64,
    version: u64,
    /// Who that was. Nobody: whoever runs the node.
    #[serde(default)]
    said_by: Option<UserId>,
}

/// What a party's word is good for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The highest role it may vouch for.
    pub up_to: Role,
    /// Whether whoever said what is trusted could still say so. If not, nobody new comes in by it.
    pub is_confirmed: bool,
}

/// A party that may vouch for people, without its secret.
#[derive(Debug, Serialize, JsonSchema)]
pub struct IdentityProviderView {
    /// Which.
    #[schemars(with = "String")]
    pub id: IdentityProviderId,
    /// Its name in URLs.
    pub name: String,
    /// How it vouches.
    pub kind: ProviderKind,
    /// Who signs.
    pub issuer: String,
    /// What this tenant is called there.
    pub client_id: Option<String>,
    /// Whether there is a secret for that.
    pub has_client_secret: bool,
    /// Whom its tokens must be for.
    pub audience: Option<String>,
    /// Where its keys are; null: where its discovery document says.
    pub jwks: Option<KeySource>,
    /// The domains it may let people in from; empty: any.
    pub domains: Vec<String>,
    /// What people it vouches for come in as; null: only who is invited or linked comes in.
    pub default_role: Option<Role>,
    /// Whether it may vouch.
    pub enabled: bool,
    /// The highest role it may vouch for: that of whoever last said what is trusted, and `member` while they could
    /// not say it.
    pub vouches_up_to: Role,
    /// Whether whoever said what is trusted could still say so. If not, only who is linked signs in by it, until
    /// somebody who may says it again.
    pub confirmed: bool,
    /// Where people begin; null if apps bring tokens.
    pub start_path: Option<String>,
    /// Where they come back to, which is to be registered there after this node's own URL.
    pub callback_path: Option<String>,
    /// Where apps bring tokens; null if people are sent there.
    pub external_path: Option<String>,
    /// When it was made, RFC 3339 UTC.
    pub created_at: String,
    /// When it last changed, RFC 3339 UTC.
    pub updated_at: String,
    /// Counts changes; the same number as the `ETag`.
    pub version: u64,
}

impl ProviderRow {
    fn key(&self) -> Key {
        Key::IdentityProvider { id: self.id }
    }

    /// Its name in the audit log.
    fn named(&self) -> Named {
        Named::new("identity-provider", self.id)
    }

    /// What its word is good for at the moment: of somebody who administers no more, or is gone, it vouches for
    /// those who cannot administer either, and lets nobody in. They may still hold its keys.
    pub(super) fn standing(&self, cx: &impl Reads) -> Result<Standing, TenantError> {
        let Some(user) = self.said_by else {
            return Ok(Standing { up_to: self.vouches_up_to, is_confirmed: true });
        };
        let user: Option<UserRow> = cx.row(&Key::User { id: user })?;
        let role = user.filter(|user| !user.deactivated).map(|user| user.role);
        let role = role.filter(|role| permit::WriteIdentityProviders::ROW.roles.contains(*role));
        let (role, is_confirmed) = (role.unwrap_or(Role::Member), role.is_some());
        Ok(Standing { up_to: self.vouches_up_to.min(role), is_confirmed })
    }

    fn view(&self, slug: &str, standing: Standing) -> IdentityProviderView {
        let (name, redirects) = (&self.name, self.kind.redirects());
        IdentityProviderView {
            id: self.id,
            name: name.clone(),
            kind: self.kind,
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            has_client_secret: self.client_secret.is_some(),
            audience: self.audience.clone(),
            jwks: self.keys.as_ref().map(StoredKeys::shown),
            domains: self.domains.clone(),
            default_role: self.default_role,
            enabled: self.enabled,
            vouches_up_to: standing.up_to,
            confirmed: standing.is_confirmed,
            start_path: redirects.then(|| format!("/v1/auth/oidc/{name}/start?tenant={slug}")),
            callback_path: redirects.then(|| callback_path(slug, name)),
            external_path: (!redirects).then(|| format!("/v1/auth/external/{name}")),
            created_at: rfc3339(self.created_ms),
            updated_at: rfc3339(self.updated_ms),
            version: self.version,
        }
    }

    fn json(&self, cx: &impl Reads) -> Result<ByteBuf, TenantError> {
        let view = self.view(&slug(cx), self.standing(cx)?);
        let json = serde_json::to_vec(&view).expect("a view holds only texts and numbers");
        Ok(ByteBuf::from(json))
    }

    fn document(&self, cx: &impl Reads) -> Result<Document, TenantError> {
        Ok(Document { version: self.version, json: self.json(cx)? })
    }

    fn save(&mut self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        self.updated_ms = cx.now_ms();
        self.version += 1;
        cx.put(&self.key(), self)?;
        self.document(cx)
    }
}

/// What the edge has to know of a party to believe it, the secret included.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Which.
    pub id: IdentityProviderId,
    /// Its name in URLs.
    pub name: String,
    /// Where it sends people back to.
    pub callback_path: String,
    /// How it vouches.
    pub kind: ProviderKind,
    /// Who signs.
    pub issuer: String,
    /// What this tenant is called there.
    pub client_id: String,
    /// The secret for that.
    pub client_secret: Option<Secret>,
    /// Whom its tokens must be for.
    pub audience: String,
    /// Where its keys are, or the keys as a text; nothing: where its discovery document says.
    pub keys: Option<KeysAt>,
    /// Counts its changes: a sign-in ends at the party it began at, as it was.
    pub version: u64,
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysAt {
    /// At a URL.
    Url(String),
    /// Here: a list of keys in JSON.
    Given(String),
}

/// Where a party sends people back to. No two tenants share one: what a party of one tenant has people bring
/// along never reaches a party of another (RFC 9700 §4.4).
fn callback_path(slug: &str, name: &str) -> String {
    format!("/v1/auth/oidc/{slug}.{name}/callback")
}

fn slug(cx: &impl Reads) -> String {
    let slug = cx.state().profile.as_ref().map(|profile| profile.slug.clone());
    slug.unwrap_or_else(|| cx.tenant().to_string())
}

impl Provider {
    pub(super) fn of(cx: &impl Reads, row: ProviderRow) -> Self {
        let client_id = row.client_id.unwrap_or_default();
        Self {
            id: row.id,
            callback_path: callback_path(&slug(cx), &row.name),
            name: row.name,
            kind: row.kind,
            issuer: row.issuer,
            audience: row.audience.unwrap_or_else(|| client_id.clone()),
            client_id,
            client_secret: row.client_secret,
            keys: row.keys.map(|keys| match keys {
                StoredKeys::Url(url) => KeysAt::Url(url),
                StoredKeys::Set(text) => KeysAt::Given(text),
            }),
            version: row.version,
        }
    }
}

/// All parties, oldest first. Their number is bounded where they are made.
fn all(cx: &impl Reads) -> Result<Vec<ProviderRow>, TenantError> {
    let any = Key::IdentityProvider { id: IdentityProviderId::from_bytes([0; 16]) };
    let limit = limits::IDENTITY_PROVIDERS_MAX;
    let scan = Scan { prefix: Prefix::kind(&any), after: None, reverse: false, limit };
    cx.rows(&scan)?.iter().map(|(_, bytes)| Ok(value::decode(bytes)?)).collect()
}

/// The party of that name, if it may vouch.
pub(super) fn enabled(cx: &impl Reads, name: &str) -> Result<Option<ProviderRow>, TenantError> {
    Ok(all(cx)?.into_iter().find(|row| row.name == name && row.enabled))
}

/// The party as it was when it was asked, if it still is that and may vouch.
pub(super) fn unchanged(
    cx: &impl Reads,
    id: IdentityProviderId,
    version: u64,
) -> Result<Option<ProviderRow>, TenantError> {
    let row: Option<ProviderRow> = cx.row(&Key::IdentityProvider { id })?;
    Ok(row.filter(|row| row.enabled && row.version == version))
}

impl ProviderRow {
    pub(super) fn id(&self) -> IdentityProviderId {
        self.id
    }
    pub(super) fn provider_name(&self) -> &str {
        &self.name
    }
    pub(super) fn kind(&self) -> ProviderKind {
        self.kind
    }
    pub(super) fn domains(&self) -> &[String] {
        &self.domains
    }
}
