//! Why a key cannot be had. Names files, tenants and versions, and never a byte of a key.

use std::io;
use std::path::PathBuf;

use super::source::{KekId, SourceError};
use crate::id::TenantId;
use crate::seal::SealError;

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The tenant has no data key: it never had one, or it was erased.
    #[error("{tenant} has no data key")]
    Missing {
        /// Whose key.
        tenant: TenantId,
    },
    /// The tenant has a data key already.
    #[error("{tenant} has a data key already")]
    Exists {
        /// Whose key.
        tenant: TenantId,
    },
    /// The customer who holds the key to this tenant's data key does not give it.
    #[error("the key of {tenant} is withheld by its holder")]
    Withheld {
        /// Whose key.
        tenant: TenantId,
        /// What the customer's source said.
        source: SourceError,
    },
    /// No customer holds this tenant's key.
    #[error("the key of {tenant} is held by the node already")]
    NotHeld {
        /// Whose key.
        tenant: TenantId,
    },
    /// There is no node secret of this name.
    #[error("the node has no secret named {name}")]
    SecretMissing {
        /// The name asked for.
        name: String,
    },
    /// A node secret's name is not of lowercase letters, digits and hyphens.
    #[error("{name:?} cannot name a node secret: use lowercase letters, digits and hyphens")]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// Wrapped keys exist, but what they are wrapped with does not.
    #[error("{path} is missing, but keys wrapped by it exist; restore it from its backup")]
    KekMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Others can read the key-encryption key.
    #[error("{path} has mode {mode:03o}, so others can read it; run: chmod 600 {path}")]
    KekExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file was wrapped by another key-encryption key.
    #[error("{path} was wrapped by another key-encryption key, {kek}, which no source offers")]
    WrongKek {
        /// The file.
        path: PathBuf,
        /// The version it names.
        kek: KekId,
    },
    /// A source of the node's key-encryption keys gives none.
    #[error("the key-encryption key cannot be had")]
    Source(#[from] SourceError),
    /// Another rotation is under way.
    #[error("a rotation of the key-encryption key is under way")]
    Rotating,
    /// The file is not what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer release.
    #[error("{path} has format {version}; this release reads up to {newest}")]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version byte.
        version: u8,
        /// The newest version that can be read.
        newest: u8,
    },
    /// The disk said no.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A key cannot be made or wrapped.
    #[error("a key cannot be made")]
    Seal(#[from] SealError),
}
