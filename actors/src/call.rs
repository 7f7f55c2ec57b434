//! What comes along with a request: where it came from, and its idempotency key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Where a request came from; goes into the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The client's address.
    pub ip: Option<std::net::IpAddr>,
    /// The `User-Agent` header, cut to a sane length.
    pub user_agent: Option<Arc<str>>,
    /// The request id that the answer and the log lines carry.
    pub request_id: Option<Arc<str>>,
}

/// A client's promise that a repeated request is the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Principal, route and the client's key, in one text. Stored as a keyed digest only.
    pub scope: String,
    /// SHA-256 of the request body: the same key with another body is refused.
    pub fingerprint: [u8; 32],
}

/// A single resource as it is stored and answered: the same JSON bytes, with their version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Counts changes; becomes the `ETag`.
    pub version: u64,
    /// The JSON text.
    pub json: ByteBuf,
}

/// A page of resources.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Page {
    /// Each item's JSON text.
    pub items: Vec<ByteBuf>,
    /// Where the next page starts; absent on the last.
    pub next: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paging {
    /// Items wanted; already within bounds.
    pub limit: usize,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// What a command gave, and whether it is the first answer of a repeated request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<T> {
    /// The reply.
    pub reply: T,
    /// True when the idempotency key was seen before and nothing was done.
    pub replayed: bool,
}
