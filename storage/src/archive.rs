//! The archive: where what the data directory no longer has to hold rests. Log segments, snapshots
//! and backup manifests are objects in it.
//!
//! An object is immutable once written, except that putting the same bytes again is fine; its name
//! says what it is. Everything in it is sealed or signed before it gets here: this layer holds no keys.
//!
//! Calls block, and are made off the async threads. Refuses: to say that an object is kept before
//! it survives loss of power.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub mod contract;
pub mod local;
pub mod memory;
mod name;
pub mod object;
pub mod place;
#[cfg(test)]
mod tests;

pub use object::ObjectArchive;
pub use place::ArchiveOptions;
pub use place::Place;

/// Why an object cannot be had or kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArchiveError {
    /// There is no such object.
    #[error("the archive has no {name}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The archive cannot be reached, or not now: trying again later may help.
    #[error("the archive cannot be reached: {reason}")]
    Unreachable {
        /// What the store or the network said.
        reason: String,
    },
    /// The archive does not let us in.
    #[error("the archive refuses: {reason}")]
    Refused {
        /// What the store said.
        reason: String,
    },
    /// The archive is configured wrongly.
    #[error("the archive cannot be used: {reason}")]
    Misconfigured {
        /// What is wrong and what to do.
        reason: String,
    },
    /// No space is left where the archive is.
    #[error("the archive is full: {reason}")]
    Full {
        /// What the store said.
        reason: String,
    },
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its whole name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, Unix milliseconds, as the store says.
    pub modified_ms: u64,
}

/// A store of named objects. Names are `/`-separated paths of `a-z0-9._-`.
pub trait Archive: Send + Sync + 'static {
    /// Keeps `bytes` under `name`, over what was there. Durable when this returns.
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError>;
    /// Keeps the content of a local file under `name`, in bounded memory. Durable when this returns;
    /// until then nobody sees any of it.
    fn put_file(&self, name: &str, path: &Path) -> Result<(), ArchiveError>;
    /// Reads a whole small object.
    fn get(&self, name: &str) -> Result<Vec<u8>, ArchiveError>;
    /// Reads bytes of an object; fewer if it ends before.
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, ArchiveError>;
    /// Reads an object from its start, in bounded memory.
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, ArchiveError>;
    /// An object's length, if there is one of that name.
    fn size(&self, name: &str) -> Result<Option<u64>, ArchiveError>;
    /// Every object whose name begins with the directory `prefix` (without a trailing slash), in
    /// name order.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ArchiveError>;
    /// Removes an object; one that is not there is fine.
    fn remove(&self, name: &str) -> Result<(), ArchiveError>;
    /// Where it is, for people: a URL without secrets.
    fn location(&self) -> String;
}

/// An archive shared by everybody who reads or writes it.
pub type SharedArchive = Arc<dyn Archive>;

/// A local file that was to be put cannot be read.
fn unreadable(path: &Path, error: &std::io::Error) -> ArchiveError {
    ArchiveError::Misconfigured { reason: format!("{} cannot be read: {error}", path.display()) }
}
