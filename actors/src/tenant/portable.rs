//! Portable tenants: one signed bundle with everything that is a tenant's, to be taken up by another node.
//!
//! A bundle may lie anywhere: its rows are sealed under a key made for it alone, which travels apart. Its
//! manifest is signed by the node that wrote it, so whoever takes it up decides whose word counts. What
//! comes along: people with their passwords, teams, forms with their access lists, submissions, comments,
//! integrations with their secrets and what they received, the profile, and the audit log entry by entry,
//! hash by hash. What does not: whatever belongs to a place and not to the tenant (see [`content`]).
//!
//! [`export`] and [`bundle`] block and are made off the async threads. Files are the caller's business:
//! here are readers and writers only. Refuses: see [`PortableError`]; nothing is made before a bundle has
//! been read to its end and found whole.

use std::io;

use storage::history::HistoryError;
use storage::id::TenantId;
use storage::snapshot::{Damage, SnapshotError};
use storage::store::StoreError;

use crate::audit::chain::Break;
use crate::audit::note::NoteError;
use crate::backup::signed::SignedError;
use crate::tenant::error::TenantError;

pub mod admit;
pub mod bundle;
pub mod content;
pub mod export;
pub mod exports;
pub mod import;
pub mod key;
pub mod manifest;
pub mod proof;
#[cfg(test)]
mod tests;

/// Why a tenant cannot be exported, or a bundle not be believed or taken up.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// It does not begin like a bundle.
    #[error("this is not a bundle")]
    NotABundle,
    /// A newer release wrote it.
    #[error(
        "the bundle was written by a newer release: bundle format {version}; this release reads {reads}"
    )]
    Newer {
        /// Its format.
        version: u32,
        /// The newest format read here.
        reads: u32,
    },
    /// Its end is missing.
    #[error("the bundle is cut short")]
    Truncated,
    /// Something stands behind its end.
    #[error("there are bytes behind the end of the bundle")]
    Trailing,
    /// Its manifest is not believed, or cannot be made.
    #[error(transparent)]
    Manifest(#[from] SignedError),
    /// Nobody said that its signer is to be trusted.
    #[error(
        "the bundle is signed by {key}; if that is the node it shall come from, trust that key"
    )]
    Untrusted {
        /// The signer's public key, as text.
        key: String,
    },
    /// The text that names a key to be trusted does not.
    #[error(
        "{text:?} is not a public key: give NAME+ID+KEY as the refusal prints it, or the key in base64"
    )]
    NoPublicKey {
        /// The text.
        text: String,
    },
    /// Its rows are not those it was signed with.
    #[error("the content of the bundle was changed after it was signed")]
    Changed,
    /// The signed checkpoint in it does not show what it is there to show.
    #[error("the checkpoint in the bundle does not verify")]
    Checkpoint(#[source] Option<NoteError>),
    /// It is of another region.
    #[error(
        "the bundle is of the region {found:?}, this node is in {here:?}; data changes its region only on purpose"
    )]
    OtherRegion {
        /// The bundle's.
        found: String,
        /// The node's.
        here: String,
    },
    /// The key is another bundle's.
    #[error("this is not the key of the bundle: it has {found}, the bundle wants {wanted}")]
    WrongKey {
        /// The id of the key that was given.
        found: String,
        /// The id of the key that opens it.
        wanted: String,
    },
    /// The text is not a key.
    #[error(
        "this is not a bundle key: it begins with {}, and 64 hexadecimal digits follow",
        key::PREFIX
    )]
    NoKey,
    /// What is in it contradicts its manifest or itself.
    #[error("the content of the bundle cannot be: {0}")]
    Contents(&'static str),
    /// Its audit log does not hold.
    #[error(transparent)]
    Chain(#[from] Break),
    /// Its rows cannot be read or written.
    #[error(transparent)]
    Snapshot(SnapshotError),
    /// The history of the tenant cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The signed checkpoints cannot be read.
    #[error(transparent)]
    Anchors(#[from] storage::anchor_log::AnchorLogError),
    /// The node keeps no history.
    #[error("the node has no archive, which exports need")]
    NoHistory,
    /// A restore of the tenant is under way.
    #[error("the tenant is being restored; export it when that is done")]
    RestoreRunning,
    /// A tenant with that id is here.
    #[error("{tenant} is already here")]
    AlreadyHere {
        /// Which.
        tenant: TenantId,
    },
    /// There was a tenant with that id, and what it left behind stands in the way.
    #[error("{tenant} was here before and was erased; its id is not taken up again")]
    WasHere {
        /// Which.
        tenant: TenantId,
    },
    /// An import of the tenant with another audit log was begun.
    #[error(
        "an import of {tenant} was begun from another bundle, whose audit log this one does not continue; repeat that one"
    )]
    OtherImport {
        /// Which.
        tenant: TenantId,
    },
    /// The plan table has no such plan.
    #[error("there is no plan {plan:?} here; there are: {known}")]
    NoPlan {
        /// The plan wanted.
        plan: String,
        /// The plans there are.
        known: String,
    },
    /// The short name is taken.
    #[error("the short name {slug:?} is taken here; choose another one")]
    SlugTaken {
        /// The name wanted.
        slug: String,
    },
    /// The short name cannot be one.
    #[error("the short name {slug:?} {rule}")]
    BadSlug {
        /// The name wanted.
        slug: String,
        /// What it has to be.
        rule: String,
    },
    /// A tenant or the platform's compartment cannot do its part.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// Bytes cannot be read or written.
    #[error("bytes cannot be read or written")]
    Io(#[from] io::Error),
    /// The work panicked. Nothing is served of what it made.
    #[error("the work panicked; the node's log says more")]
    Panicked,
}

impl PortableError {
    /// Whether no space is left where the bundle is written.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::StorageFull)
    }
}

impl From<SnapshotError> for PortableError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io(error) => Self::Io(error),
            SnapshotError::Damaged { what: Damage::Cut } => Self::Truncated,
            error => Self::Snapshot(error),
        }
    }
}

impl From<StoreError> for PortableError {
    fn from(error: StoreError) -> Self {
        Self::Tenant(error.into())
    }
}

impl From<storage::value::ValueError> for PortableError {
    fn from(error: storage::value::ValueError) -> Self {
        Self::Tenant(error.into())
    }
}
