//! The receipt of an erasure: a signed document that anybody can verify who has the node's public key,
//! without the node.
//!
//! It names the tenant by its id and says where its history ended, so that a copy of the log proves that
//! it is the history of before. It holds nothing of what was erased. Refuses receipts that contradict
//! themselves.

use serde::{Deserialize, Serialize};
use storage::archive::{Archive, ArchiveError};
use storage::id::TenantId;

use crate::audit::note::NoteVerifier;
use crate::backup::digest::Digest;
use crate::backup::signed::{Document, Flaw, Signed, SignedError, must};
use crate::tenant::portable::bundle::named_key;

/// Directory of receipts in the archive.
pub const ERASURES: &str = "erasures";
/// The format written and the newest read.
pub const FORMAT: u32 = 1;
/// How erasure is done.
pub const HOW: &str = "data key destroyed";
/// Characters of a reason at most.
pub const REASON_CHARS_MAX: usize = 500;

/// The end of the history, as it was anchored last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchoredRef {
    /// The checkpoint's number.
    pub checkpoint: u64,
    /// The last record then.
    pub lsn: u64,
    /// Its hash.
    pub record: Digest,
    /// Sequence number of the last audit entry then.
    pub audit_seq: u64,
    /// Its hash.
    pub audit: Digest,
}

/// What is still there and cannot be read by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptObjects {
    /// Archived log segments with records of the tenant.
    pub segments: u64,
    /// Snapshots of the tenant in the archive.
    pub snapshots: u64,
    /// Objects in the archive with audit entries of the tenant.
    pub audit_chunks: u64,
}

/// What was removed from the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedObjects {
    /// Copies of the wrapped data key.
    pub keys: u64,
    /// Exported bundles.
    pub exports: u64,
}

/// A receipt. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureReceipt {
    /// [`FORMAT`].
    pub format: u32,
    /// Who was erased.
    pub tenant: TenantId,
    /// The node that did it.
    pub origin: String,
    /// When it was asked for.
    pub requested_ms: u64,
    /// When everything was destroyed.
    pub erased_ms: u64,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// Whether the delay was waived.
    pub forced: bool,
    /// [`HOW`].
    pub how: String,
    /// The last record.
    pub last_lsn: u64,
    /// Its hash.
    pub last_record: Digest,
    /// What was anchored last, if anything was.
    pub anchored: Option<AnchoredRef>,
    /// What is still there and cannot be read.
    pub kept: KeptObjects,
    /// What was removed.
    pub removed: RemovedObjects,
}

impl Document for ErasureReceipt {
    const KIND: &'static str = "erasure-receipt";
    const FORMAT: u32 = FORMAT;
    const BYTES_MAX: usize = 64 << 10;

    fn format(&self) -> u32 {
        self.format
    }
    fn origin(&self) -> &str {
        &self.origin
    }
    fn check(&self) -> Result<(), Flaw> {
        let anchored_lsn = self.anchored.as_ref().map_or(0, |anchored| anchored.lsn);
        let reason = self.reason.as_deref().unwrap_or_default();
        must(self.tenant != TenantId::PLATFORM, "tenant", "is never the platform itself")?;
        must(self.requested_ms <= self.erased_ms, "erased_ms", "is not before requested_ms")?;
        must(reason.chars().count() <= REASON_CHARS_MAX, "reason", "has 500 characters at most")?;
        must(!self.forced || self.reason.is_some(), "reason", "is given if forced")?;
        must(self.how == HOW, "how", "is what this release does")?;
        must(anchored_lsn <= self.last_lsn, "anchored", "is not behind last_lsn")
    }
}

/// A receipt with its signature.
pub type SignedReceipt = Signed<ErasureReceipt>;

/// The name of a tenant's receipt in the archive.
pub fn object_name(tenant: TenantId) -> String {
    format!("{ERASURES}/{tenant}.json")
}

/// Whose receipt an object of the archive is, by its name.
pub fn tenant_of(name: &str) -> Option<TenantId> {
    let tenant = name.strip_prefix(ERASURES)?.strip_prefix('/')?.strip_suffix(".json")?;
    tenant.parse().ok().filter(|&tenant| object_name(tenant) == name)
}

/// A tenant's receipt, if the archive has one that this key signed. One that is not believed counts for
/// nothing, which is logged.
///
/// # Errors
/// If the archive cannot be asked.
pub fn find(
    archive: &dyn Archive,
    tenant: TenantId,
    public_key: [u8; 32],
) -> Result<Option<SignedReceipt>, ArchiveError> {
    let name = object_name(tenant);
    let bytes = match archive.get(&name) {
        Ok(bytes) => bytes,
        Err(ArchiveError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    match believed(&bytes, public_key) {
        Ok(signed) if signed.claimed().tenant == tenant => return Ok(Some(signed)),
        Ok(_) => tracing::warn!(object = name, "the receipt is another tenant's: not believed"),
        Err(error) => tracing::warn!(object = name, %error, "a receipt is not believed"),
    }
    Ok(None)
}

fn believed(bytes: &[u8], public_key: [u8; 32]) -> Result<SignedReceipt, SignedError> {
    let signed = SignedReceipt::parse(bytes)?;
    // The key says which node it is, whatever that was called then.
    let Ok(verifier) = NoteVerifier::new(&signed.claimed().origin, public_key) else {
        return Err(SignedError::BadSignature { kind: ErasureReceipt::KIND });
    };
    signed.verify(&verifier)?;
    Ok(signed)
}

/// Reads a public key: as nodes print it, `NAME+ID+KEY`, or the bare 32 bytes in base64 for the key of the
/// node called `origin`. Nothing for any other text.
pub fn parse_key(text: &str, origin: &str) -> Option<NoteVerifier> {
    named_key(text, origin).ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use storage::id::Id;

    use super::*;
    use crate::audit::note::NoteSigner;

    fn receipt() -> ErasureReceipt {
        ErasureReceipt {
            format: FORMAT,
            tenant: TenantId::new(1, [7; 10]),
            origin: "node.example".to_owned(),
            requested_ms: 1,
            erased_ms: 2,
            reason: Some("request 17".to_owned()),
            forced: true,
            how: HOW.to_owned(),
            last_lsn: 9,
            last_record: Digest([1; 32]),
            anchored: None,
            kept: KeptObjects::default(),
            removed: RemovedObjects::default(),
        }
    }

    fn signer(seed: u8) -> NoteSigner {
        NoteSigner::from_seed("node.example", &[seed; 32]).unwrap()
    }

    #[test]
    fn a_receipt_is_believed_only_from_the_node_that_signed_it() {
        let bytes = SignedReceipt::sign(receipt(), &signer(1)).unwrap().to_bytes();
        let signed = SignedReceipt::parse(&bytes).unwrap();
        assert_eq!(signed.verify(&signer(1).verifier()).unwrap(), &receipt());
        assert!(signed.verify(&signer(2).verifier()).is_err());
        let forged = String::from_utf8(bytes).unwrap().replace("\"last_lsn\":9", "\"last_lsn\":8");
        let forged = SignedReceipt::parse(forged.as_bytes()).unwrap();
        assert!(forged.verify(&signer(1).verifier()).is_err());
    }

    #[test]
    fn a_forced_erasure_without_a_reason_gets_no_receipt() {
        let wrong = ErasureReceipt { reason: None, ..receipt() };
        assert!(SignedReceipt::sign(wrong, &signer(1)).is_err());
    }

    #[test]
    fn a_key_reads_back_as_it_was_printed_or_bare_and_in_no_other_spelling() {
        let verifier = signer(1).verifier();
        let (text, bare) = (verifier.to_text(), STANDARD.encode(verifier.public_key()));
        for text in [format!("{text}\n"), bare.clone()] {
            let read = parse_key(&text, "node.example").expect("it reads");
            assert_eq!((read.name(), read.public_key()), (verifier.name(), verifier.public_key()));
        }
        for bad in ["", "node.example", "node.example+00000000+AQ==", &text[1..], &bare[4..]] {
            assert!(parse_key(bad, "node.example").is_none(), "{bad}");
        }
    }
}
