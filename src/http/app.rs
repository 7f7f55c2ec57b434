//! What every handler may reach: the doors to the actors, and the few things the edge keeps itself.
//!
//! Made once by the runtime, shared by all worker threads. Holds no tenant's data.

use std::sync::Arc;

use actors::archivist::ArchivistHandle;
use actors::audit::anchor::AnchorHandle;
use actors::audit::archiver::AuditArchiverHandle;
use actors::backup::keeper::BackupHandle;
use actors::env::Env;
use actors::erasure::ErasureHandle;
use actors::key_watch::KeyWatchHandle;
use actors::mail::PostmanHandle;
use actors::quota::Plans;
use actors::rate::RateLimits;
use actors::supervisor::Tenants;
use actors::travel::TimeTravel;
use actors::webhook::inbox::InboxHandle;
use storage::store::Store;

use crate::config::Config;
use crate::exports::Exports;
use crate::federation::Federation;
use crate::http::passwords::Passwords;
use crate::http::proofs::Proofs;
use crate::http::tokens::Tokens;
use crate::jobs::Jobs;
use crate::metrics::Metrics;

/// The parts of a running node, as handlers see them.
#[derive(Clone)]
pub struct App {
    /// The configuration it runs with.
    pub config: Arc<Config>,
    /// Time and randomness.
    pub env: Env,
    /// The door to all tenants.
    pub tenants: Tenants,
    /// The budgets of addresses, accounts, tenants and tokens.
    pub limits: RateLimits,
    /// Makes and verifies access tokens.
    pub tokens: Tokens,
    /// Remembers API keys and cookies that were proven.
    pub proofs: Proofs,
    /// Asks identity providers, and verifies what they say.
    pub federation: Federation,
    /// Makes and verifies password hashes.
    pub passwords: Passwords,
    /// The plan table.
    pub plans: Arc<Plans>,
    /// Admission and outcomes of webhook deliveries.
    pub inbox: InboxHandle,
    /// Where audit heads are told.
    pub anchor: AnchorHandle,
    /// What the edge counts.
    pub metrics: Metrics,
    /// The door to tenants' pasts.
    pub travel: TimeTravel,
    /// Long work of operators.
    pub jobs: Jobs,
    /// Exports that tenants' own people asked for.
    pub exports: Exports,
    /// What moves history to the archive.
    pub archivist: ArchivistHandle,
    /// What erases tenants.
    pub erasures: ErasureHandle,
    /// What moves old audit entries into the archive.
    pub audit_archiver: AuditArchiverHandle,
    /// Sends mails; nothing where no listener is.
    pub postman: Option<PostmanHandle>,
    /// What watches the keys that customers hold.
    pub key_watch: KeyWatchHandle,
    /// What takes backups.
    pub backups: BackupHandle,
    /// The store, for verification; handlers never read a shard.
    pub store: Arc<Store>,
}
