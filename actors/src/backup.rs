//! Backups of a node: signed manifests over objects of its archive, which of them stay, restores onto
//! an empty machine, and the drills that prove those.
//!
//! A backup is a signed manifest that names objects of the archive. Objects are shared between
//! backups, so that a further backup adds only what is new, and removing one backup never harms
//! another: every manifest names all it needs. What it does not have is the key-encryption key.
//!
//! [`run`], [`verify`], [`restore`], [`drill`], [`whole`] and [`sweep`] block, and are made off the async threads;
//! [`keeper`] calls them on time; everything else is arithmetic.
//!
//! It refuses: to believe a document before its signature is verified; to call an object unneeded
//! while there is a manifest it has not seen.

use std::path::PathBuf;
use std::sync::Arc;

use storage::anchor_log::AnchorLog;
use storage::keystore::KeyOptions;
use storage::scratch::Scratch;
use storage::store::Store;

use crate::audit::note::NoteSigner;
use crate::env::Env;

pub mod bundle;
pub mod catalog;
pub mod digest;
pub mod drill;
pub mod garbage;
pub mod keeper;
pub mod manifest;
pub mod name;
mod pace;
pub mod report;
pub mod restore;
pub mod rotation;
pub mod run;
pub mod signed;
pub mod sweep;
pub mod verify;
pub mod whole;

#[cfg(test)]
mod tests;

/// What is backed up: an open node.
#[derive(Clone)]
pub struct Source {
    /// Its store, which has an archive.
    pub store: Arc<Store>,
    /// Its anchor log.
    pub anchors: Arc<AnchorLog>,
    /// Its signing key ([`signing_key`](crate::audit::anchor::signing_key)).
    pub signer: Arc<NoteSigner>,
    /// Its region.
    pub region: String,
    /// Its data directory. Work on the way goes into `tmp` in it.
    pub data_dir: PathBuf,
    /// Where its key-encryption keys come from.
    pub keys: KeyOptions,
    /// Time and randomness.
    pub env: Env,
}

/// What long work says of how far it is.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// A step begins.
    Step {
        /// What is done in it, in a few words.
        name: &'a str,
        /// How much of it there is; 0 if that is not known.
        total: u64,
    },
    /// So much of the step is done.
    At(u64),
}

/// Whoever wants to know how far long work is.
pub type Tell<'a> = &'a mut dyn FnMut(Told<'_>);

impl Source {
    /// A file beside the data that nothing else uses; nothing is there yet.
    pub fn scratch_file(&self) -> Scratch {
        let name = format!("backup-{}", hex::encode(self.env.random::<8>()));
        Scratch::new(self.data_dir.join("tmp").join(name))
    }
}

fn hash_of(digest: aws_lc_rs::digest::Context) -> storage::record::Hash {
    let mut hash = storage::record::GENESIS;
    hash.copy_from_slice(digest.finish().as_ref());
    hash
}
