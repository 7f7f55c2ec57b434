//! How a stored value looks: one version byte, then MessagePack.
//!
//! Rows are MessagePack arrays, so a new field goes last and carries `#[serde(default)]`. A change
//! that cannot be read that way takes the next version byte and a step in the reader.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version byte every row is written with.
pub const VERSION: u8 = 1;

/// A stored value that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// No bytes at all.
    #[error("a stored value is empty")]
    Empty,
    /// Written by a newer release.
    #[error("a stored value has version {version}; this release reads up to {VERSION}")]
    NewerVersion {
        /// The version byte found.
        version: u8,
    },
    /// The body is not the MessagePack of the wanted row.
    #[error("a stored value does not decode")]
    Malformed(#[source] rmp_serde::decode::Error),
}

/// Encodes a row.
pub fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(VERSION);
    rmp_serde::encode::write(&mut bytes, row).expect("rows hold only what MessagePack can carry");
    bytes
}

/// Decodes a row.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ValueError> {
    match bytes.split_first() {
        None => Err(ValueError::Empty),
        Some((&VERSION, body)) => rmp_serde::from_slice(body).map_err(ValueError::Malformed),
        Some((&version, _)) => Err(ValueError::NewerVersion { version }),
    }
}
