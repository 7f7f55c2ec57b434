//! Log lines: their form, their filter, and the names of their fields. Writes to standard error and
//! nowhere else, and never decides what is worth logging.
//!
//! # Fields
//!
//! Every line can be read alone; fields make it searchable:
//!
//! | field | holds |
//! | --- | --- |
//! | `tenant.id` | whose request or work (`tn_…`) |
//! | `request.id` | joins the line with the answer's `X-Request-Id` and the audit entry |
//! | `trace.id` | W3C trace id, when the request came with or got one |
//! | `route` | the route's id in the route table |
//! | `status` | the HTTP status answered |
//! | `duration_ms` | time taken |
//! | `error` | the cause, as a chain of texts |
//! | `lsn`, `records`, `bytes` | of the commit log |
//!
//! `ERROR` means a person must act. Never in a line: tokens, secrets, request bodies, e-mail
//! addresses, names.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{Log, LogFormat};

/// What is left out unless it is asked for by name.
const QUIET: &str = "actix_server=warn,actix_server::worker=off,actix_http=off";

/// Why log lines cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level or a directive cannot be read.
    #[error(
        "{level:?} is neither a level (error, warn, info, debug, trace) nor directives such as info,actors=debug"
    )]
    Level {
        /// What was given.
        level: String,
    },
    /// Something in this process has set up log lines already.
    #[error("log lines were set up already")]
    Taken,
}

/// Reads a level or directives. The environment has no say: the configuration is the one place.
pub fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let refused = || TelemetryError::Level { level: level.to_owned() };
    // A bare word that is not a level would be read as the name of a target and silence the rest.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let bare_words_are_levels = level
        .split(',')
        .map(str::trim)
        .filter(|directive| !directive.contains('='))
        .all(|word| levels.contains(&word));
    if !bare_words_are_levels {
        return Err(refused());
    }
    // The server's own lines on starting and stopping say nothing that ours do not; a node that gives up its
    // start says why once, and each of its workers would say it again in other words. Any client can make the
    // HTTP parser complain. A later directive wins, so they can be had.
    EnvFilter::builder().parse(format!("{QUIET},{level}")).map_err(|_| refused())
}

/// Sends this process's log lines to standard error. Once per process: nodes do not call it.
pub fn install(log: &Log) -> Result<(), TelemetryError> {
    use std::io::IsTerminal;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.level)?)
        .with_writer(std::io::stderr)
        .with_timer(SystemTime);
    let installed = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    installed.map_err(|_| TelemetryError::Taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_read_and_other_words_refused() {
        assert!(filter("info").is_ok());
        assert!(filter("warn,actors=debug").is_ok());
        assert!(filter("loud").is_err());
        assert!(filter("actors=loud").is_err());
    }
}
