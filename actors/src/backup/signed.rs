//! Signed documents: a canonical JSON body (RFC 8785) with the Ed25519 signature (RFC 8032) of the
//! node that wrote it.
//!
//! ```text
//! {"body":{"format":1,"origin":…,…},"key":base64,"kind":"backup-manifest","signature":base64}
//! signed bytes: "bulkhead." kind 0x00 body
//! ```
//!
//! It refuses: documents that are larger than their kind may be, cut short, of another kind, of a
//! newer format, with fields it does not know, in any spelling but the canonical one, or that
//! contradict themselves; and to hand out a body as verified before the wanted key signed it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::audit::note::{NoteSigner, NoteVerifier};

/// What a body says that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Flaw {
    /// Which field.
    pub field: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// Passes if `holds`, else tells which rule `field` breaks.
pub(crate) fn must(holds: bool, field: &str, rule: &'static str) -> Result<(), Flaw> {
    if holds { Ok(()) } else { Err(Flaw { field: field.to_owned(), rule }) }
}

/// Why a document is not believed, or cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// It is larger than its kind may be.
    #[error(
        "{} of {bytes} bytes is larger than the {bytes_max} that {} may have",
        a(kind),
        a(kind)
    )]
    TooLarge {
        /// What it should be.
        kind: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest allowed.
        bytes_max: usize,
    },
    /// Its end is missing.
    #[error("the {kind} is cut short")]
    Truncated {
        /// What it should be.
        kind: &'static str,
    },
    /// It is not of the form at all.
    #[error("this is not {}: {source}", a(kind))]
    Malformed {
        /// What it should be.
        kind: &'static str,
        /// What stands in the way.
        source: serde_json::Error,
    },
    /// It is a document of another kind.
    #[error("this is {}, not {}", a(found), a(kind))]
    OtherKind {
        /// What it should be.
        kind: &'static str,
        /// What it says it is.
        found: String,
    },
    /// A newer release wrote it.
    #[error(
        "the {kind} was written by a newer release: format {format}; this release reads {reads}"
    )]
    Newer {
        /// What it is.
        kind: &'static str,
        /// Its format.
        format: u64,
        /// The newest format read here.
        reads: u32,
    },
    /// It is spelled otherwise than its signer would have.
    #[error("the {kind} is not in canonical form: it was changed after it was written")]
    NotCanonical {
        /// What it should be.
        kind: &'static str,
    },
    /// It contradicts itself.
    #[error("the {kind} contradicts itself: {flaw}")]
    Flawed {
        /// What it should be.
        kind: &'static str,
        /// In what.
        flaw: Flaw,
    },
    /// Another node wrote it than the one whose key is wanted.
    #[error("the {kind} is of the node {found}, not of {wanted}")]
    OtherOrigin {
        /// What it is.
        kind: &'static str,
        /// Whose it says it is.
        found: String,
        /// Whose was wanted.
        wanted: String,
    },
    /// Another key signed it than the one wanted.
    #[error("the {kind} is signed by the key {found}, not by {wanted}")]
    OtherKey {
        /// What it is.
        kind: &'static str,
        /// The key it names, as text.
        found: String,
        /// The key that was wanted, as text.
        wanted: String,
    },
    /// The signature is not of this body.
    #[error("the signature of the {kind} does not match: it was changed after it was signed")]
    BadSignature {
        /// What it should be.
        kind: &'static str,
    },
}

/// A body that can be signed.
pub trait Document: Serialize + DeserializeOwned + PartialEq {
    /// What it is, in the envelope and under the signature.
    const KIND: &'static str;
    /// The format written, and the newest one read.
    const FORMAT: u32;
    /// Bytes of the whole document at most.
    const BYTES_MAX: usize;
    /// The format this one is in.
    fn format(&self) -> u32;
    /// The node that wrote it.
    fn origin(&self) -> &str;
    /// Whether it agrees with itself.
    fn check(&self) -> Result<(), Flaw>;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    key: Cow<'a, str>,
    kind: Cow<'a, str>,
    signature: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Probe {
    format: u64,
}

/// A document with its signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed<T> {
    document: T,
    body: String,
    key: [u8; 32],
    signature: [u8; 64],
}

impl<T: Document> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} of {})", T::KIND, self.document.origin())
    }
}

impl<T: Document> Signed<T> {
    /// Signs a document.
    ///
    /// # Errors
    /// [`SignedError::OtherOrigin`] unless the signer's name is the document's origin;
    /// [`SignedError::Flawed`], [`SignedError::TooLarge`]; [`SignedError::NotCanonical`] for
    /// integers beyond what JSON keeps exactly (2^53, RFC 8785 §3.2.2.3).
    pub fn sign(document: T, signer: &NoteSigner) -> Result<Self, SignedError> {
        let kind = T::KIND;
        if document.origin() != signer.name() {
            let (found, wanted) = (document.origin().to_owned(), signer.name().to_owned());
            return Err(SignedError::OtherOrigin { kind, found, wanted });
        }
        must(document.format() == T::FORMAT, "format", "is not the one this release writes")
            .and_then(|()| document.check())
            .map_err(|flaw| SignedError::Flawed { kind, flaw })?;
        let body = canonical(&document)?;
        // Integers beyond 2^53 change on the way: such a document would never verify.
        if serde_json::from_str::<T>(&body).ok().as_ref() != Some(&document) {
            return Err(SignedError::NotCanonical { kind });
        }
        let signature = signer.sign_document(kind, body.as_bytes());
        let signed = Self { document, body, key: signer.public_key(), signature };
        check_size::<T>(signed.to_bytes().len())?;
        Ok(signed)
    }

    /// Reads a document. Whose it is, is not known before [`Signed::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SignedError> {
        let kind = T::KIND;
        check_size::<T>(bytes.len())?;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() => {
                return Err(SignedError::Truncated { kind });
            }
            Err(_) => return Err(SignedError::NotCanonical { kind }),
        };
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(malformed::<T>)?;
        if envelope.kind != kind {
            return Err(SignedError::OtherKind {
                kind,
                found: envelope.kind.chars().take(64).collect(),
            });
        }
        let body = envelope.body.get();
        let Probe { format } = serde_json::from_str(body).map_err(malformed::<T>)?;
        if format > u64::from(T::FORMAT) {
            return Err(SignedError::Newer { kind, format, reads: T::FORMAT });
        }
        let document: T = serde_json::from_str(body).map_err(malformed::<T>)?;
        let not_canonical = || SignedError::NotCanonical { kind };
        let signed = Self {
            body: canonical(&document)?,
            document,
            key: decode(&envelope.key).ok_or_else(not_canonical)?,
            signature: decode(&envelope.signature).ok_or_else(not_canonical)?,
        };
        if signed.to_bytes() != bytes {
            return Err(not_canonical());
        }
        must(format > 0, "format", "begins with 1")
            .and_then(|()| signed.document.check())
            .map_err(|flaw| SignedError::Flawed { kind, flaw })?;
        Ok(signed)
    }

    /// The bytes to keep.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (key, signature) = (STANDARD.encode(self.key), STANDARD.encode(self.signature));
        // The members in the canonical order; none of these texts has a character to escape.
        let kind = T::KIND;
        let body = &self.body;
        format!(r#"{{"body":{body},"key":"{key}","kind":"{kind}","signature":"{signature}"}}"#)
            .into_bytes()
    }

    /// What the document says, whoever wrote it: for lists and messages, not to act on.
    pub fn claimed(&self) -> &T {
        &self.document
    }

    /// The key it says it is signed by: the 32 bytes of an Ed25519 public key.
    pub fn claimed_key(&self) -> &[u8; 32] {
        &self.key
    }

    /// What the document says, if that key of that node signed it.
    pub fn verify(&self, verifier: &NoteVerifier) -> Result<&T, SignedError> {
        let kind = T::KIND;
        if self.key != verifier.public_key() {
            let bare = |_| STANDARD.encode(self.key);
            let found = NoteVerifier::new(self.document.origin(), self.key);
            let found = found.map_or_else(bare, |key| key.to_text());
            let wanted = verifier.to_text();
            return Err(SignedError::OtherKey { kind, found, wanted });
        }
        if !verifier.verify_document(kind, self.body.as_bytes(), &self.signature) {
            return Err(SignedError::BadSignature { kind });
        }
        if self.document.origin() != verifier.name() {
            let (found, wanted) = (self.document.origin().to_owned(), verifier.name().to_owned());
            return Err(SignedError::OtherOrigin { kind, found, wanted });
        }
        Ok(&self.document)
    }

    /// Like [`Signed::verify`], for keeps.
    pub fn into_verified(self, verifier: &NoteVerifier) -> Result<T, SignedError> {
        self.verify(verifier)?;
        Ok(self.document)
    }
}

fn canonical<T: Document>(document: &T) -> Result<String, SignedError> {
    let malformed = |source| SignedError::Malformed { kind: T::KIND, source };
    serde_json_canonicalizer::to_string(document).map_err(malformed)
}

fn check_size<T: Document>(bytes: usize) -> Result<(), SignedError> {
    let (kind, bytes_max) = (T::KIND, T::BYTES_MAX);
    if bytes > bytes_max { Err(SignedError::TooLarge { kind, bytes, bytes_max }) } else { Ok(()) }
}

fn malformed<T: Document>(source: serde_json::Error) -> SignedError {
    let kind = T::KIND;
    match source.classify() {
        Category::Eof => SignedError::Truncated { kind },
        Category::Io | Category::Syntax | Category::Data => SignedError::Malformed { kind, source },
    }
}

/// A kind with its article, for messages.
fn a(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
