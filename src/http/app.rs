//! What every handler may reach: the doors to the actors, and the few things the edge keeps itself.
//!
//! Made once by the runtime, shared by all worker threads. Holds no tenant's data.

use std::sync::Arc;

use actors::audit::anchor::AnchorHandle;
use actors::env::Env;
use actors::quota::Plans;
use actors::rate::RateLimits;
use actors::supervisor::Tenants;
use actors::webhook::inbox::InboxHandle;
use storage::store::Store;

use crate::config::Config;
use crate::http::passwords::Passwords;
use crate::http::tokens::Tokens;
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
    /// The store, for verification; handlers never read a shard.
    pub store: Arc<Store>,
}
