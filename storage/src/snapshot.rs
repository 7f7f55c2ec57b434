//! Snapshots: all rows of one tenant at one LSN, in one file that opens under that tenant's keys only.
//!
//! ```text
//! header (clear) · chunks of rows (compressed, then sealed) · totals (sealed) · SHA-256 (clear)
//! ```
//! A snapshot and the records after it are as good as the whole history; [`merge`] makes the next one
//! of the two. The trailing hash lets anybody check a file without keys ([`verify`]); the sealed totals
//! let its owner know that no row is missing. Bytes are written down in `docs/formats.md`.
//!
//! Reading and writing hold one chunk at a time, however many rows there are. A chunk is 256 KiB in
//! clear, or one row that is larger.
//!
//! Refuses: rows out of key order, a chunk that was moved, dropped, doubled or comes from another
//! snapshot, another tenant's keys, a newer version, and bytes behind the end. It knows no archive and
//! no log: where the file and the records come from is the caller's business, and so is `fsync`.

use std::io;

use aws_lc_rs::digest::{Context, SHA256};

use crate::id::TenantId;
use crate::record::{GENESIS, Hash};
use crate::seal::{BODY_BYTES_MAX, SealError};
use crate::store::chain::ChainFault;
use crate::txn::Value;

mod delta;
mod frame;
mod header;
mod input;
mod merge;
mod reader;
mod writer;

pub use delta::Delta;
pub use header::{HEADER_BYTES, NO_STAMP, SnapshotHeader};
pub use merge::{Merged, RowSource, merge};
pub use reader::{SnapshotReader, verify};
pub use writer::SnapshotWriter;

/// The largest row, key and value together: no record carries a larger one.
pub const ROW_BYTES_MAX: usize = BODY_BYTES_MAX;

const STATE_LABEL: &[u8] = b"bulkhead.snapshot.state.1";
const FOLDER: &str = "snapshots";
const SUFFIX: &str = ".snap";

/// An encoded [`Key`](crate::keys::Key) and its value in clear.
pub type Row = (std::sync::Arc<[u8]>, Value);

/// What is wrong with a snapshot's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not begin like a snapshot, or its header was changed or says what cannot be.
    #[error("its header is none")]
    Header,
    /// It ends before its end.
    #[error("it is cut short")]
    Cut,
    /// A chunk has a length or a kind that none has.
    #[error("a chunk's frame is none")]
    Frame,
    /// A chunk opens, but holds no rows.
    #[error("a chunk does not hold rows")]
    Rows,
    /// The rows are not those that were counted and hashed when it was made.
    #[error("its rows are not those it was made with")]
    Totals,
    /// Its bytes are not those that were hashed when it was made.
    #[error("its bytes are not what their hash says")]
    Content,
    /// Something stands behind its end.
    #[error("there are bytes behind its end")]
    Trailing,
}

/// Why a snapshot cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Its bytes cannot be had or kept.
    #[error("a snapshot cannot be read or written")]
    Io(#[from] io::Error),
    /// Its bytes are not those of a snapshot.
    #[error("a snapshot is damaged: {what}")]
    Damaged {
        /// What is wrong with them.
        what: Damage,
    },
    /// A newer release wrote it.
    #[error("a snapshot has version {version}; this release reads version {}", header::VERSION)]
    NewerVersion {
        /// The version found.
        version: u32,
    },
    /// The keys are another tenant's.
    #[error("a snapshot of {tenant} was met with another tenant's keys")]
    WrongTenant {
        /// Whose snapshot or changes they are.
        tenant: TenantId,
    },
    /// A chunk does not authenticate, or cannot be sealed.
    #[error("a part of a snapshot cannot be sealed or opened")]
    Sealed(#[from] SealError),
    /// A key is not behind the key before it.
    #[error("rows do not come in key order")]
    KeysOutOfOrder,
    /// A row is beyond [`ROW_BYTES_MAX`].
    #[error("a row of {bytes} bytes is too large")]
    RowTooLarge {
        /// Bytes of its key and its value.
        bytes: usize,
    },
    /// A header that says what cannot be was to be written.
    #[error("a snapshot's header contradicts itself")]
    ImpossibleHeader,
    /// An earlier read or write of the same snapshot failed.
    #[error("an earlier part of the snapshot could not be read or written")]
    Stopped,
    /// The records do not follow the snapshot, or one another.
    #[error("records do not follow")]
    Chain(#[from] ChainFault),
    /// A record does not open under the tenant's keys.
    #[error("record {lsn} cannot be opened")]
    Record {
        /// Its LSN.
        lsn: u64,
        /// Why not.
        #[source]
        source: SealError,
    },
    /// The changes were collected on top of another snapshot, or of none.
    #[error("the changes do not belong on top of this snapshot")]
    WrongBase,
}

impl From<Damage> for SnapshotError {
    fn from(what: Damage) -> Self {
        Self::Damaged { what }
    }
}

/// A snapshot that was written, or read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// What it is a snapshot of.
    pub header: SnapshotHeader,
    /// How many rows it has.
    pub rows: u64,
    /// Bytes of all keys and values in clear.
    pub clear_bytes: u64,
    /// The file's length.
    pub file_bytes: u64,
    /// What the rows hash to (see [`StateHash`]): equal states have equal hashes.
    pub state: Hash,
    /// SHA-256 of the file without its last 32 bytes, which hold it.
    pub content: Hash,
}

/// A hash of rows in key order: what two copies of one state are compared by.
pub struct StateHash(Context);

impl StateHash {
    /// The hash of no rows.
    pub fn new() -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(STATE_LABEL);
        Self(digest)
    }

    /// Adds a row. Each key must be behind the one before; that is not checked here.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    /// The hash of all rows added.
    pub fn finish(self) -> Hash {
        finish(self.0)
    }
}

impl Default for StateHash {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for StateHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateHash(..)")
    }
}

fn finish(digest: Context) -> Hash {
    let mut out = GENESIS;
    out.copy_from_slice(digest.finish().as_ref());
    out
}

/// The archive's directory of a tenant's snapshots, without a trailing slash.
pub fn folder_name(tenant: TenantId) -> String {
    format!("{FOLDER}/{tenant}")
}

/// The name of a snapshot in the archive; names of one tenant sort by LSN.
pub fn object_name(tenant: TenantId, lsn: u64, content: &Hash) -> String {
    format!("{FOLDER}/{tenant}/{lsn:016x}-{}{SUFFIX}", hex::encode(&content[..8]))
}

/// Whose snapshot a name is of, and at which LSN; nothing if it is not a name that
/// [`object_name`] gives.
pub fn parse_name(name: &str) -> Option<(TenantId, u64)> {
    let (tenant, file) = name.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('/')?;
    let (lsn, content) = file.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |digits: &str| {
        let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (digits.len() == 16 && is_hex).then(|| u64::from_str_radix(digits, 16).ok())?
    };
    number(content)?;
    Some((tenant.parse().ok()?, number(lsn)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    #[test]
    fn a_name_gives_back_what_it_was_made_of_and_sorts_by_lsn() {
        let tenant = TenantId::new(7, [3; 10]);
        let name = object_name(tenant, 0x1f, &[0xab; 32]);
        assert_eq!(name, format!("snapshots/{tenant}/000000000000001f-abababababababab.snap"));
        assert!(name.starts_with(&format!("{}/", folder_name(tenant))));
        assert_eq!(parse_name(&name), Some((tenant, 0x1f)));
        assert!(object_name(tenant, 9, &[0xff; 32]) < object_name(tenant, 10, &[0; 32]));
        assert_eq!(parse_name(&object_name(tenant, u64::MAX, &[0; 32])), Some((tenant, u64::MAX)));
    }

    #[test]
    fn other_spellings_are_no_names() {
        let tenant = TenantId::new(7, [3; 10]);
        let name = object_name(tenant, 0x1f, &[0xab; 32]);
        for other in [
            name.to_uppercase(),
            name.replace("snapshots", "segments"),
            name.replace("-ab", "-+b"),
            name.replace("-ab", "-b"),
            name.replace("00000000000001f", "+0000000000001f"),
            name.replace(".snap", ".snap.new"),
            name.replace("tn_", "us_"),
            format!("/{name}"),
            name.replacen('/', "//", 1),
        ] {
            assert_eq!(parse_name(&other), None, "{other}");
        }
    }

    #[test]
    fn the_state_hash_tells_where_keys_and_values_end() {
        let hash = |rows: &[(&[u8], &[u8])]| {
            let mut state = StateHash::new();
            rows.iter().for_each(|(key, value)| state.push(key, value));
            state.finish()
        };
        assert_eq!(hash(&[(b"a", b"bc")]), hash(&[(b"a", b"bc")]));
        assert_ne!(hash(&[(b"a", b"bc")]), hash(&[(b"ab", b"c")]));
        assert_ne!(hash(&[(b"a", b"")]), hash(&[]));
        assert_ne!(hash(&[(b"a", b"b"), (b"c", b"")]), hash(&[(b"a", b"b")]));
    }
}
