//! What an awake tenant keeps in memory beside its shard. All of it can be dropped at any time.

use std::collections::HashMap;
use std::sync::Arc;

use storage::id::{ApiKeyId, FormId, SessionId, UserId};

use crate::limits;
use crate::permit::{Role, ServicePrincipal};
use crate::tenant::forms::steps::Plan;

/// What the tenant last saw of a session: whether its user's rights are what the token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The user's role.
    pub role: Role,
    /// The user's authorisation version.
    pub authz: u32,
    /// Which of the session's cookies is good.
    pub cookie: u32,
    /// When the session ends, Unix milliseconds.
    pub expires_ms: u64,
    /// Whether the session has seen a second factor that its user still has.
    pub has_second_factor: bool,
}

/// What the tenant last saw of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStanding {
    /// As whom it asks.
    pub principal: Arc<ServicePrincipal>,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
}

/// A compiled form schema, for one version of one form.
pub struct CompiledSchema {
    /// The form's schema revision it was compiled from.
    pub version: u64,
    /// What applying it costs.
    pub(crate) plan: Plan,
    /// Bytes it takes, estimated.
    pub(crate) bytes: usize,
    /// The validator.
    pub validator: jsonschema::Validator,
}

/// Whose rows a record changed, as far as something here depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// A person's own row, or one of their sessions.
    User(UserId),
    /// An API key's.
    ApiKey(ApiKeyId),
}

/// The caches.
#[derive(Default)]
pub struct Caches {
    /// Sessions that were checked and have not changed since.
    pub standings: HashMap<(UserId, SessionId), Standing>,
    /// API keys that were looked up and have not changed since, nor has who made them.
    pub keys: HashMap<ApiKeyId, KeyStanding>,
    /// E-mail addresses for audit entries.
    pub emails: HashMap<UserId, String>,
    schemas: HashMap<FormId, Arc<CompiledSchema>>,
}

impl Caches {
    /// Forgets what depends on such a row.
    pub fn forget(&mut self, touched: Touched) {
        match touched {
            Touched::User(user) => self.forget_user(user),
            Touched::ApiKey(key) => {
                self.keys.remove(&key);
            }
        }
    }
    fn forget_user(&mut self, user: UserId) {
        self.standings.retain(|(id, _), _| *id != user);
        self.keys.retain(|_, standing| standing.principal.user != user);
        self.emails.remove(&user);
    }
    /// The compiled schema of `form` at `version`, if kept.
    pub fn schema(&self, form: FormId, version: u64) -> Option<Arc<CompiledSchema>> {
        self.schemas.get(&form).filter(|schema| schema.version == version).cloned()
    }
    /// Keeps a compiled schema.
    pub fn keep_schema(&mut self, form: FormId, schema: Arc<CompiledSchema>) {
        self.schemas.remove(&form);
        let bytes = self.schema_bytes().saturating_add(schema.bytes);
        if self.schemas.len() >= limits::SCHEMAS_CACHED_MAX
            || bytes > limits::SCHEMAS_CACHED_BYTES_MAX
        {
            self.schemas.clear();
        }
        // One schema is bounded by itself, so the last one used is always kept.
        self.schemas.insert(form, schema);
    }
    fn schema_bytes(&self) -> usize {
        self.schemas.values().map(|schema| schema.bytes).sum()
    }
    /// Bytes these caches take, roughly.
    pub fn resident_bytes(&self) -> usize {
        self.standings.len() * 64
            + self.keys.len() * 128
            + self.emails.len() * 96
            + self.schema_bytes()
    }
}
