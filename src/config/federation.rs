//! How identity providers are asked. Nothing here is a secret: those of tenants are in their shards.

use serde::{Deserialize, Serialize};

/// Sign-in from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Federation {
    /// Whether providers on this machine may be asked, without TLS: for tests and trials.
    pub allow_loopback: bool,
}
