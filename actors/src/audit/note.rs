//! Signed notes and checkpoints in the C2SP text formats (`signed-note`, `tlog-checkpoint`).
//!
//! A note is a text, a blank line, and signature lines `— NAME BASE64(key id ‖ signature)`. Only
//! Ed25519 (type byte 0x01) is made and checked; the key id is the first four bytes of
//! SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key). A checkpoint is a note of three lines: origin, decimal
//! tree size, base64 root hash.
//!
//! It refuses notes with control characters, a known key's wrong signature, and notes that no
//! known key signed. Signatures of unknown keys are passed over, as the format wants.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::record::Hash;

const ED25519_TYPE: u8 = 0x01;
/// Signature lines that are looked at; the format asks for at least 16.
const SIGNATURES_MAX: usize = 100;
/// Largest note, in bytes.
const NOTE_BYTES_MAX: usize = 64 * 1024;

/// Why a note is not believed, or cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A key's name is empty, or has a space or a plus sign in it.
    #[error("a key's name must be non-empty, without spaces, plus signs or control characters")]
    BadName,
    /// The bytes are not an Ed25519 seed.
    #[error("the signing key is not an Ed25519 seed")]
    BadKey,
    /// The text is not the form of a signed note.
    #[error("this is not a signed note")]
    Malformed,
    /// A known key's signature is wrong.
    #[error("a signature does not match")]
    BadSignature,
    /// No known key signed it.
    #[error("no known key signed the note")]
    Unsigned,
}

/// A key's name and number, by which signature lines refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyName {
    name: String,
    id: [u8; 4],
}

impl KeyName {
    fn new(name: &str, public_key: &[u8]) -> Result<Self, NoteError> {
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.contains(is_bad) {
            return Err(NoteError::BadName);
        }
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(name.as_bytes());
        context.update(&[b'\n', ED25519_TYPE]);
        context.update(public_key);
        let mut id = [0; 4];
        id.copy_from_slice(&context.finish().as_ref()[..4]);
        Ok(Self { name: name.to_owned(), id })
    }
}

/// A key that signs notes.
pub struct NoteSigner {
    key_name: KeyName,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NoteSigner({})", self.key_name.name)
    }
}

impl NoteSigner {
    /// A signer from the 32 bytes of an Ed25519 seed (RFC 8032).
    pub fn from_seed(name: &str, seed: &[u8]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::BadKey)?;
        Ok(Self { key_name: KeyName::new(name, pair.public_key().as_ref())?, pair })
    }
    /// The key's name; for a node's own key, its origin.
    pub fn name(&self) -> &str {
        &self.key_name.name
    }
    /// The key that checks what this one signs.
    pub fn verifier(&self) -> NoteVerifier {
        NoteVerifier { key_name: self.key_name.clone(), public_key: self.public_key() }
    }
    /// The 32 bytes of the public key.
    pub fn public_key(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        bytes
    }
    /// Signs a text, which must end with a line break and have no control character besides.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        if !is_note_text(text) {
            return Err(NoteError::Malformed);
        }
        let signature = self.pair.sign(text.as_bytes());
        let bytes = [&self.key_name.id[..], signature.as_ref()].concat();
        Ok(format!("{text}\n\u{2014} {} {}\n", self.key_name.name, STANDARD.encode(bytes)))
    }
    /// Signs a document that is not a note. Its signature never passes for a note's, nor for that of
    /// a document of another kind.
    pub(crate) fn sign_document(&self, kind: &str, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(&document_message(kind, bytes)).as_ref());
        signature
    }
}

/// What is signed of a document of that kind. The zero byte keeps it apart from every note's text.
fn document_message(kind: &str, bytes: &[u8]) -> Vec<u8> {
    [b"bulkhead.", kind.as_bytes(), b"\0", bytes].concat()
}

/// A key that checks notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteVerifier {
    key_name: KeyName,
    public_key: [u8; 32],
}

impl NoteVerifier {
    /// A verifier from a name and the 32 bytes of an Ed25519 public key.
    pub fn new(name: &str, public_key: [u8; 32]) -> Result<Self, NoteError> {
        let key_name = KeyName::new(name, &public_key)?;
        Ok(Self { key_name, public_key })
    }
    /// The key's name; for a log's own key, its origin.
    pub fn name(&self) -> &str {
        &self.key_name.name
    }
    /// The key as one text, `NAME+ID+BASE64(type ‖ key)`, to hand to whoever checks notes.
    pub fn to_text(&self) -> String {
        let key = STANDARD.encode([&[ED25519_TYPE], &self.public_key[..]].concat());
        format!("{}+{}+{key}", self.key_name.name, hex::encode(self.key_name.id))
    }
    /// The 32 bytes of the public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }
    /// Whether this key signed that document of that kind.
    pub(crate) fn verify_document(&self, kind: &str, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.verify(&document_message(kind, bytes), signature)
    }
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.public_key);
        key.verify(message, signature).is_ok()
    }
}

fn is_note_text(text: &str) -> bool {
    text.ends_with('\n') && !text.contains(|c: char| c.is_control() && c != '\n')
}

/// The text of a note that at least one of `verifiers` signed, its line break included.
pub fn open<'a>(note: &'a str, verifiers: &[&NoteVerifier]) -> Result<&'a str, NoteError> {
    if note.len() > NOTE_BYTES_MAX || !is_note_text(note) {
        return Err(NoteError::Malformed);
    }
    // The last blank line parts text and signatures, so a text may have blank lines of its own.
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    if signatures.is_empty() || signatures.lines().count() > SIGNATURES_MAX {
        return Err(NoteError::Malformed);
    }
    let mut is_signed = false;
    for line in signatures.lines() {
        let (name, encoded) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or(NoteError::Malformed)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| NoteError::Malformed)?;
        let (id, signature) = bytes.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
        if name.is_empty() || name.contains('+') || signature.is_empty() {
            return Err(NoteError::Malformed);
        }
        let known = verifiers.iter().find(|v| v.key_name.name == name && v.key_name.id == *id);
        if let Some(verifier) = known {
            if !verifier.verify(text.as_bytes(), signature) {
                return Err(NoteError::BadSignature);
            }
            is_signed = true;
        }
    }
    if is_signed { Ok(text) } else { Err(NoteError::Unsigned) }
}

/// What a checkpoint says: that the log of that origin has that many leaves under that root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// The log's name: a URL without its scheme.
    pub origin: String,
    /// Leaves in the tree.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

impl TreeHead {
    /// The text to sign.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }
    /// Reads a checkpoint's text. Extension lines are allowed and passed over.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let is_decimal = size.bytes().all(|b| b.is_ascii_digit());
        let is_canonical = is_decimal && (size == "0" || !size.starts_with('0'));
        let root = STANDARD.decode(root).ok()?.try_into().ok()?;
        let head = Self { origin: origin.to_owned(), size: size.parse().ok()?, root };
        (is_canonical && !origin.is_empty() && lines.all(|line| !line.is_empty())).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(name: &str, seed: u8) -> NoteSigner {
        NoteSigner::from_seed(name, &[seed; 32]).unwrap()
    }

    fn head() -> TreeHead {
        TreeHead { origin: "example.org/log".to_owned(), size: 7, root: [9; 32] }
    }

    #[test]
    fn a_signed_checkpoint_opens_and_reads_back() {
        let signer = signer("example.org/log", 1);
        let note = signer.sign(&head().to_text()).unwrap();
        let text = open(&note, &[&signer.verifier()]).unwrap();
        assert_eq!(TreeHead::parse(text), Some(head()));
    }

    #[test]
    fn the_key_id_and_the_key_text_are_those_of_the_published_example() {
        // From the documentation of golang.org/x/mod/sumdb/note.
        let published = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let key = NoteVerifier::new("PeterNeumann", key[1..].try_into().unwrap()).unwrap();
        assert_eq!(key.to_text(), published);
        let note = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n\n\
            \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert!(open(note, &[&key]).is_ok());
    }

    #[test]
    fn every_changed_bit_of_a_note_is_refused() {
        let signer = signer("n", 1);
        let note = signer.sign(&head().to_text()).unwrap();
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                if let Ok(changed) = String::from_utf8(bytes) {
                    assert!(open(&changed, &[&signer.verifier()]).is_err(), "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn unknown_keys_are_passed_over_and_known_wrong_ones_are_not() {
        let (ours, other, spoof) = (signer("ours", 1), signer("other", 2), signer("ours", 3));
        let text = head().to_text();
        let line = |signer: &NoteSigner| signer.sign(&text).unwrap()[text.len() + 1..].to_owned();
        let note = |lines: &[String]| format!("{text}\n{}", lines.concat());
        let key = ours.verifier();
        assert!(open(&note(&[line(&other), line(&ours)]), &[&key]).is_ok());
        assert_eq!(open(&note(&[line(&other)]), &[&key]), Err(NoteError::Unsigned));
        // The same name with another key is an unknown key, by its id.
        assert_eq!(open(&note(&[line(&spoof)]), &[&key]), Err(NoteError::Unsigned));
        let foreign = ours.sign("another text\n").unwrap();
        let wrong = foreign.split("\n\n").nth(1).unwrap().to_owned();
        assert_eq!(open(&note(&[wrong, line(&ours)]), &[&key]), Err(NoteError::BadSignature));
        let sixteen: Vec<_> = (10..26).map(|n| line(&signer("w", n))).collect();
        assert!(open(&note(&[sixteen, vec![line(&ours)]].concat()), &[&key]).is_ok());
    }

    #[test]
    fn forms_that_are_not_notes_are_refused() {
        let signer = signer("n", 1);
        let key = signer.verifier();
        let note = signer.sign("text\n").unwrap();
        for bad in [
            note.trim_end().to_owned(),
            note.replace("\n\n", "\n"),
            note.replace('\u{2014}', "-"),
            note.replace("text", "te\u{7}xt"),
            note.replace("=\n", "\n"),
            format!("{note}\n"),
            String::new(),
        ] {
            assert!(open(&bad, &[&key]).is_err(), "{bad:?}");
        }
        assert_eq!(signer.sign("no line break"), Err(NoteError::Malformed));
        for name in ["", "a b", "a+b", "a\nb"] {
            assert!(matches!(NoteSigner::from_seed(name, &[1; 32]), Err(NoteError::BadName)));
        }
    }

    #[test]
    fn only_canonical_checkpoints_are_read() {
        let text = head().to_text();
        for bad in [
            text.replace("\n7\n", "\n07\n"),
            text.replace("\n7\n", "\n+7\n"),
            text.replace("\n7\n", "\n\n"),
            text.replace("example.org/log", ""),
            text.trim_end().to_owned(),
            format!("{text}\n"),
        ] {
            assert_eq!(TreeHead::parse(&bad), None, "{bad:?}");
        }
        assert!(TreeHead::parse(&format!("{text}extension\n")).is_some());
    }
}
