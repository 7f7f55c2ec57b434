//! The record: the one unit of change.
//!
//! A record holds everything one batch of commands changes in one compartment. It is durable whole
//! or not at all. Its header travels in clear and links it to the record before by hash; the body
//! is sealed. The hash covers the header and the *sealed* bytes, so a chain can be verified without
//! any key, and still after the keys are destroyed.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::{Id, TenantId};
use crate::log::Tail;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// What comes before a compartment's first record.
pub const GENESIS: Hash = [0; 32];

/// The part of a record that travels in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose record.
    pub tenant: TenantId,
    /// Log sequence number: 1 for the first record of a tenant, then without gaps.
    pub lsn: u64,
    /// Ownership epoch. A record of an older epoch than the tail's is refused.
    pub epoch: u64,
    /// Which process wrote it: random, new at each start.
    pub writer: u64,
    /// The hash of the record before, or [`GENESIS`].
    pub prev: Hash,
    /// The hash of this record.
    pub hash: Hash,
}

impl Header {
    /// The end of a history whose last record this is.
    pub fn tail(&self) -> Tail {
        Tail { lsn: self.lsn, epoch: self.epoch, hash: self.hash }
    }
}

/// A record as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who, where and after what.
    pub header: Header,
    /// The sealed [`Body`].
    pub body: Vec<u8>,
}

/// One write of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// An encoded [`Key`](crate::keys::Key).
    pub key: ByteBuf,
    /// The new value, or nothing when the key is deleted.
    pub value: Option<ByteBuf>,
}

/// What a record says, before it is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Body {
    /// When the batch was formed: Unix milliseconds, for point-in-time restore.
    pub at_ms: u64,
    /// The writes, in key order, each key once.
    pub ops: Vec<Op>,
}

impl Record {
    /// Makes a record with its hash from its parts.
    pub fn new(
        tenant: TenantId,
        lsn: u64,
        epoch: u64,
        writer: u64,
        prev: Hash,
        body: Vec<u8>,
    ) -> Self {
        let mut header = Header { tenant, lsn, epoch, writer, prev, hash: GENESIS };
        header.hash = hash(&header, &body);
        Self { header, body }
    }

    /// Whether the record is what its hash says.
    pub fn is_intact(&self) -> bool {
        hash(&self.header, &self.body) == self.header.hash
    }
}

/// SHA-256 over a domain label, the header without its own hash, and the sealed body.
fn hash(header: &Header, body: &[u8]) -> Hash {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    digest.update(b"bulkhead.record.1");
    digest.update(header.tenant.as_bytes());
    digest.update(&header.lsn.to_be_bytes());
    digest.update(&header.epoch.to_be_bytes());
    digest.update(&header.writer.to_be_bytes());
    digest.update(&header.prev);
    digest.update(body);
    let mut out = GENESIS;
    out.copy_from_slice(digest.finish().as_ref());
    out
}
