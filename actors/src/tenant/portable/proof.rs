//! The signed checkpoint that covers a tenant's audit log, with the proof that it does.
//!
//! It outlives the node that made it: whoever has the node's public key and the entries can check both
//! for ever (RFC 6962 §2.1.1). Refuses: to take a leaf's word for what the root does not show.

use serde::{Deserialize, Serialize};
use storage::anchor_log::{AnchorLog, Leaf};
use storage::id::TenantId;

use super::PortableError;
use crate::audit::anchor::leaf_bytes;
use crate::audit::merkle;
use crate::audit::note::{self, NoteVerifier, TreeHead};
use crate::backup::digest::Digest;
use crate::backup::signed::{Flaw, must};

/// Hashes in a proof at most: a tree of 2^64 leaves has no more.
const PATH_MAX: usize = 64;
/// Bytes of a note at most.
const NOTE_BYTES_MAX: usize = 8 * 1024;

/// The end of a tenant's history, the checkpoint over it, and how the one leads to the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorProof {
    /// LSN of the last record then.
    pub lsn: u64,
    /// Hash of that record.
    pub record: Digest,
    /// Sequence number of the last audit entry then.
    pub seq: u64,
    /// Hash of that entry.
    pub hash: Digest,
    /// The place of this leaf in the tree, from 0.
    pub index: u64,
    /// The hashes from the leaf up to the root.
    pub path: Vec<Digest>,
    /// The signed checkpoint, a C2SP note.
    pub note: String,
}

impl AnchorProof {
    /// The newest anchored end of a tenant up to a record, and the newest checkpoint over it. Reads the
    /// whole anchor log.
    pub fn find(
        anchors: &AnchorLog,
        tenant: TenantId,
        lsn_max: u64,
    ) -> Result<Option<Self>, PortableError> {
        let mut hashes = Vec::new();
        let (mut found, mut note): (Option<(Leaf, usize)>, _) = (None, String::new());
        anchors.walk(|checkpoint| {
            for leaf in &checkpoint.leaves {
                if leaf.tenant == tenant && leaf.lsn <= lsn_max {
                    found = Some((*leaf, hashes.len()));
                }
                hashes.push(merkle::leaf_hash(&leaf_bytes(leaf)));
            }
            note.clone_from(&checkpoint.note);
        })?;
        Ok(found.and_then(|(leaf, index)| {
            let path = merkle::inclusion_proof(&hashes, index)?;
            Some(Self {
                lsn: leaf.lsn,
                record: Digest(leaf.record),
                seq: leaf.audit_seq,
                hash: Digest(leaf.audit),
                index: u64::try_from(index).ok()?,
                path: path.into_iter().map(Digest).collect(),
                note,
            })
        }))
    }

    /// Whether it can be of a bundle that ends there.
    pub(super) fn check(&self, lsn: u64, seq: u64) -> Result<(), Flaw> {
        let field = "checkpoint";
        must(self.lsn <= lsn && self.seq <= seq, field, "is newer than the bundle")?;
        must(self.path.len() <= PATH_MAX, field, "has too long a path")?;
        must(self.note.len() <= NOTE_BYTES_MAX, field, "has too long a note")
    }

    /// Checks that the node with that key swore that the tenant's audit log ended there then.
    ///
    /// # Errors
    /// [`PortableError::Checkpoint`].
    pub fn verify(&self, tenant: TenantId, verifier: &NoteVerifier) -> Result<(), PortableError> {
        let wrong = |error| PortableError::Checkpoint(Some(error));
        let text = note::open(&self.note, &[verifier]).map_err(wrong)?;
        let head = TreeHead::parse(text).filter(|head| head.origin == verifier.name());
        let head = head.ok_or(PortableError::Checkpoint(None))?;
        let leaf = Leaf {
            tenant,
            lsn: self.lsn,
            record: self.record.0,
            audit_seq: self.seq,
            audit: self.hash.0,
        };
        let leaf = merkle::leaf_hash(&leaf_bytes(&leaf));
        let path: Vec<_> = self.path.iter().map(|digest| digest.0).collect();
        if merkle::verify_inclusion(leaf, self.index, head.size, &path, &head.root) {
            Ok(())
        } else {
            Err(PortableError::Checkpoint(None))
        }
    }
}
