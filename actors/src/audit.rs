//! The audit log: entries chained by hash inside each tenant, and the anchor over all of them.
//!
//! A tenant's chain shows any change in its middle. Its end is guarded by the anchor: a signed
//! Merkle tree over the ends of all tenants' histories, kept apart from them.

pub mod anchor;
pub mod archiver;
pub mod chain;
pub mod chunk;
pub mod entry;
pub mod feed;
pub mod merkle;
pub mod note;
pub mod verify;
