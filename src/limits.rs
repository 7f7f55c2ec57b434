//! Every cap of the edge, in one place, each named with its unit.
//!
//! Caps on what a tenant stores or does stand in `actors::limits`; those that an operator may change
//! stand in the configuration under `limits`.

use std::time::Duration;

/// Largest JSON request body where no configuration says otherwise, in bytes.
pub const BODY_BYTES_DEFAULT: usize = 384 * 1024;
/// How long a client may take to send a body where no configuration says otherwise.
pub const BODY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Largest webhook delivery, in bytes.
pub const HOOK_BODY_BYTES_MAX: usize = 256 * 1024;
/// How deep JSON objects and arrays may nest in a request body.
pub const JSON_DEPTH_MAX: usize = 64;
/// Longest request path, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;
/// Longest query string, in bytes.
pub const QUERY_BYTES_MAX: usize = 4_096;
/// Path parameters of one route.
pub const PARAMS_MAX: usize = 4;
/// Longest `Authorization` header, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// How much of a `User-Agent` is kept, in bytes.
pub const USER_AGENT_BYTES_MAX: usize = 256;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Longest request id that is taken over from a client, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest list cursor, in bytes.
pub const CURSOR_BYTES_MAX: usize = 1_024;
/// Addresses looked at in forwarding headers, nearest proxy first.
pub const FORWARDED_HOPS_MAX: usize = 16;

/// How long a client may take over the TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that is being closed may linger.
pub const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections waiting to be accepted.
pub const BACKLOG_MAX: u32 = 2_048;

/// A request that takes longer is logged, in milliseconds.
pub const SLOW_MS: u64 = 1_000;
/// Of the requests that neither failed nor were slow, one in so many is logged.
pub const LOG_ONE_IN: u64 = 1_024;

/// Seconds that a refused client is told to wait when nothing better is known.
pub const RETRY_AFTER_S: u32 = 1;
