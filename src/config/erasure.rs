//! How long a tenant that is to be erased can still be had back. Refuses delays nobody would live to see.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::source::Sources;
use super::{Config, ConfigError, Span};

/// The longest delay.
const DELAY_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Erasure of tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// From the request to the destruction of the key.
    pub delay: Span,
}

/// What the delay must fulfil beyond its type.
pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    if config.erasure.delay.0 > DELAY_MAX {
        return Err(sources.wrong("erasure.delay", "must be 366d at most"));
    }
    Ok(())
}
