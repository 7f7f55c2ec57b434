//! What owners and administrators do with the parties that may vouch: let one, change it, let it no more, look.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use storage::id::{Id, IdentityId, IdentityProviderId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use super::super::{IdentityRow, Subject};
use super::{KeySource, Provider, ProviderKind, ProviderRow, StoredKeys, all, check, enabled};
use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Page};
use crate::limits;
use crate::permit::{self, Role};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::members::check_ceiling;
use crate::webhook::scheme::Secret;

/// Lets a party vouch for people.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateIdentityProvider {
    /// Its name in URLs: 2 to 40 of a to z, digits and inner hyphens.
    pub name: String,
    /// How it vouches.
    pub kind: ProviderKind,
    /// Who signs, exactly as its tokens say. Known for `google` and `firebase`.
    #[serde(default)]
    pub issuer: Option<String>,
    /// What this tenant is called there: for `oidc` and `google`.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The secret for that. Never shown again.
    #[serde(default)]
    pub client_secret: Option<Secret>,
    /// Whom its tokens must be for: for `jwks`; for `firebase` the project's id.
    #[serde(default)]
    pub audience: Option<String>,
    /// Where its keys are: for `jwks`. `{"url": …}` or `{"keys": […]}`.
    #[serde(default)]
    pub jwks: Option<KeySource>,
    /// The domains it may let people in from; empty: any.
    #[serde(default)]
    pub domains: Vec<String>,
    /// What people it vouches for come in as, at most one's own role and never owner. Absent: only who is
    /// invited or linked comes in.
    #[serde(default)]
    pub default_role: Option<Role>,
    /// Whether it may vouch.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

fn check_default_role(cx: &impl Reads, role: Option<Role>) -> Result<(), TenantError> {
    let Some(role) = role else { return Ok(()) };
    if role >= Role::Owner {
        let message = "must be one of customer, viewer, member, admin";
        return Err(TenantError::invalid("/default_role", message));
    }
    check_ceiling(cx, role)
}

impl Command for CreateIdentityProvider {
    type Action = permit::WriteIdentityProviders;
    /// Which it is, and what is answered.
    type Reply = (IdentityProviderId, Document);
    const NAME: &'static str = "identity_provider.create";

    fn target(&self) -> Named {
        Named::new("kind", self.kind.name())
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError> {
        let checked = check::new(&self)?;
        check_default_role(cx, self.default_role)?;
        let others = all(cx)?;
        if others.iter().any(|other| other.name == self.name) {
            return Err(TenantError::Conflict(Conflict::ProviderNameTaken));
        }
        if others.len() >= limits::IDENTITY_PROVIDERS_MAX {
            return Err(TenantError::Conflict(Conflict::TooManyProviders));
        }
        let mut row = ProviderRow {
            id: cx.new_id(),
            name: self.name,
            kind: self.kind,
            issuer: checked.issuer,
            client_id: self.client_id,
            client_secret: self.client_secret,
            audience: self.audience,
            keys: checked.keys.as_ref().map(StoredKeys::of),
            domains: checked.domains,
            default_role: self.default_role,
            enabled: self.enabled,
            vouches_up_to: cx.role(),
            created_ms: cx.now_ms(),
            updated_ms: 0,
            version: 0,
            said_by: cx.author().ok(),
        };
        let document = row.save(cx)?;
        let draft = Draft::success(Self::NAME, row.named())
            .with("name", row.name.clone())
            .with("kind", row.kind.name())
            .with("issuer", row.issuer.clone())
            .with("default_role", row.default_role.map_or("none", Role::name));
        cx.audit(draft);
        Ok((row.id, document))
    }
}

/// A member that may be absent, null or a value.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What to change of a party. Its name, kind and issuer stay.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityProviderChanges {
    /// Whether it may vouch. Sessions that it opened go on.
    pub enabled: Option<bool>,
    /// The domains it may let people in from; empty: any.
    pub domains: Option<Vec<String>>,
    /// What people it vouches for come in as; null: only who is invited or linked comes in.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Role>")]
    pub default_role: Option<Option<Role>>,
    /// What this tenant is called there.
    pub client_id: Option<String>,
    /// The secret for that; null removes it.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Secret>")]
    pub client_secret: Option<Option<Secret>>,
    /// Whom its tokens must be for.
    pub audience: Option<String>,
    /// Where its keys are.
    pub jwks: Option<KeySource>,
}

impl IdentityProviderChanges {
    /// Which members change what is trusted.
    fn changes_trust(&self) -> bool {
        self.client_id.is_some()
            || self.client_secret.is_some()
            || self.audience.is_some()
            || self.jwks.is_some()
    }

    /// Which members have more people come in than before.
    fn widens(&self, row: &ProviderRow) -> bool {
        self.domains.is_some()
            || self.default_role.is_some_and(|role| role != row.default_role)
            || (self.enabled == Some(true) && !row.enabled)
    }
}

/// Changes a party, or switches it on or off.
#[derive(Debug)]
pub struct UpdateIdentityProvider {
    /// Which.
    pub provider: IdentityProviderId,
    /// What to change.
    pub changes: IdentityProviderChanges,
    /// Only if this is its version.
    pub if_match: Option<u64>,
}

impl Command for UpdateIdentityProvider {
    type Action = permit::WriteIdentityProviders;
    type Reply = Document;
    const NAME: &'static str = "identity_provider.update";

    fn target(&self) -> Named {
        Named::new("identity-provider", self.provider)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let mut row: ProviderRow = cx.need(&Key::IdentityProvider { id: self.provider })?;
        if self.if_match.is_some_and(|version| version != row.version) {
            return Err(TenantError::VersionMismatch);
        }
        let changes = self.changes;
        let trusts_anew = changes.changes_trust();
        check::changes(row.kind, &changes)?;
        if trusts_anew || changes.widens(&row) {
            check_ceiling(cx, row.vouches_up_to)?;
        }
        if trusts_anew {
            row.vouches_up_to = cx.role();
            row.said_by = cx.author().ok();
        }
        if let Some(role) = changes.default_role {
            check_default_role(cx, role)?;
            row.default_role = role;
        }
        row.enabled = changes.enabled.unwrap_or(row.enabled);
        row.domains = changes.domains.map_or(row.domains, check::lower);
        row.client_id = changes.client_id.or(row.client_id);
        row.client_secret = changes.client_secret.unwrap_or(row.client_secret);
        row.audience = changes.audience.or(row.audience);
        row.keys = changes.jwks.as_ref().map(StoredKeys::of).or(row.keys);
        let document = row.save(cx)?;
        let draft = Draft::success(Self::NAME, row.named())
            .with("name", row.name.clone())
            .with("enabled", row.enabled)
            .with("trusts_anew", trusts_anew)
            .with("default_role", row.default_role.map_or("none", Role::name));
        cx.audit(draft);
        Ok(document)
    }
}

/// Lets a party vouch no more. The identities that were linked through it end; sessions go on.
#[derive(Debug)]
pub struct DeleteIdentityProvider {
    /// Which.
    pub provider: IdentityProviderId,
}

impl Command for DeleteIdentityProvider {
    type Action = permit::WriteIdentityProviders;
    type Reply = ();
    const NAME: &'static str = "identity_provider.delete";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("identity-provider", self.provider)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let row: ProviderRow = cx.need(&Key::IdentityProvider { id: self.provider })?;
        let ended = end_identities(cx, row.id)?;
        cx.delete(&row.key())?;
        let draft = Draft::success(Self::NAME, row.named()).with("name", row.name);
        cx.audit(draft.with("identities_ended", ended));
        Ok(())
    }
}

/// How many identities are looked at at a time.
const IDENTITIES_AT_ONCE: usize = 512;

/// Removes every identity that was linked through a party.
fn end_identities(cx: &mut Cx<'_, '_>, provider: IdentityProviderId) -> Result<u64, TenantError> {
    let first =
        Key::Identity { user: UserId::from_bytes([0; 16]), id: IdentityId::from_bytes([0; 16]) };
    let (mut after, mut ended) = (None, 0);
    loop {
        let (prefix, limit) = (Prefix::kind(&first), IDENTITIES_AT_ONCE);
        let rows = cx.rows(&Scan { prefix, after, reverse: false, limit })?;
        for (key, bytes) in &rows {
            let row: IdentityRow = value::decode(bytes)?;
            if row.provider == provider {
                let subject = row.subject_key(cx);
                cx.delete(key)?;
                if matches!(cx.row(&subject)?, Some(Subject::Of(_, id)) if id == row.id) {
                    cx.delete(&subject)?;
                }
                ended += 1;
            }
        }
        after = rows.last().map(|(key, _)| key.clone());
        if rows.len() < IDENTITIES_AT_ONCE {
            return Ok(ended);
        }
    }
}

/// Reads one party.
#[derive(Debug)]
pub struct ReadIdentityProvider {
    /// Which.
    pub provider: IdentityProviderId,
}

impl Query for ReadIdentityProvider {
    type Action = permit::ReadIdentityProviders;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let row: ProviderRow = cx.need(&Key::IdentityProvider { id: self.provider })?;
        row.document(cx)
    }
}

/// Lists all parties, oldest first; all on one page.
#[derive(Debug)]
pub struct ListIdentityProviders;

impl Query for ListIdentityProviders {
    type Action = permit::ReadIdentityProviders;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let items = all(cx)?.iter().map(|row| row.json(cx)).collect::<Result<_, _>>()?;
        Ok(Page { items, next: None })
    }
}

/// Finds a party that may vouch, for somebody who wants to sign in by it.
#[derive(Debug)]
pub struct FindProvider {
    /// Its name.
    pub name: String,
}

impl Query for FindProvider {
    type Action = permit::SignIn;
    type Reply = Option<Provider>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError> {
        Ok(enabled(cx, &self.name)?.map(|row| Provider::of(cx, row)))
    }
}
