//! Where key-encryption keys (KEKs) come from: the seam between the key store and whoever keeps them.
//!
//! A [`KekSource`] says which versions it offers at this moment and which one is current. A [`Kek`] is
//! one version: it wraps and unwraps, and need not show its bytes, so that one in a token fits too.
//! A [`SourceSpec`] is the description of a source that rests in configuration or beside a tenant's
//! key; it holds no secret.
//!
//! Refuses: key files that everybody can read, what is not 256 bits of key, and to print a key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::exec::ExecSource;
use super::mounted::{DirectorySource, FileSource};
use super::pkcs11::Pkcs11Source;
use crate::seal::{Cipher, OVERHEAD_BYTES, SealError, subkey};

/// Most versions that one source may offer.
pub(super) const VERSIONS_MAX: usize = 64;
/// Longest argument or path of a [`SourceSpec`], in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Most arguments of a program.
const ARGUMENTS_MAX: usize = 64;

/// Why a source gives no key. Never says anything of the key itself.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The description cannot be right.
    #[error("{reason}")]
    BadSpec {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A file or directory cannot be read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Everybody on the machine can read a key or a PIN.
    #[error("{} has mode {mode:03o}, so everybody can read it; run: chmod o-rwx {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What was found is not a key.
    #[error("{place} holds no key: {reason}")]
    NotAKey {
        /// Where it was found.
        place: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The source offers no version.
    #[error("{place} offers no key")]
    Empty {
        /// Where one was expected.
        place: String,
    },
    /// The version said to be current is none that is offered.
    #[error("{} names no key of its directory", path.display())]
    NoCurrent {
        /// The file that says which version is current.
        path: PathBuf,
    },
    /// The program cannot be run, or ended badly.
    #[error("the program {program} gave no key: {reason}")]
    Program {
        /// Its path.
        program: String,
        /// What happened.
        reason: String,
    },
    /// Nothing came in time.
    #[error("{what} did not answer within {timeout_ms} ms")]
    Timeout {
        /// Who should have answered.
        what: String,
        /// How long it was given.
        timeout_ms: u64,
    },
    /// The token or its module does not do what it should.
    #[error("the PKCS#11 token {token:?} of {}: {reason}", module.display())]
    Token {
        /// The module's path.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// What happened.
        reason: String,
    },
    /// The wrapped bytes do not open under this key.
    #[error("what was wrapped does not open under key {kek}")]
    Refused {
        /// The key's id.
        kek: KekId,
    },
    /// The version that is needed is not offered.
    #[error("key {kek} is not offered")]
    NotOffered {
        /// The key's id.
        kek: KekId,
    },
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl SourceError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
    fn bad(reason: impl Into<String>) -> Self {
        Self::BadSpec { reason: reason.into() }
    }
}

/// Names one version of a key-encryption key. Says nothing about its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekId(pub(super) [u8; 8]);

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KekId({self})")
    }
}

/// One version of a key-encryption key.
pub trait Kek: Send + Sync + fmt::Debug {
    /// What wrapped files name it by.
    fn id(&self) -> KekId;
    /// What its keeper calls it.
    fn name(&self) -> &str;
    /// When it was made, in milliseconds since 1970, if its keeper says so.
    fn created_ms(&self) -> Option<u64>;
    /// Wraps `plain`, bound to `aad`.
    fn wrap(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SourceError>;
    /// Unwraps.
    ///
    /// # Errors
    /// [`SourceError::Refused`] if a bit of either argument or the key differs.
    fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SourceError>;
}

/// The versions offered at one moment.
#[derive(Debug, Clone)]
pub struct Versions {
    /// What new things are wrapped with.
    pub current: Arc<dyn Kek>,
    /// What older things may still be wrapped with.
    pub older: Vec<Arc<dyn Kek>>,
}

impl Versions {
    /// The version of this id.
    pub fn find(&self, id: KekId) -> Option<&Arc<dyn Kek>> {
        std::iter::once(&self.current).chain(&self.older).find(|kek| kek.id() == id)
    }
}

/// Somebody who keeps key-encryption keys. Asking may take as long as its timeouts.
pub trait KekSource: Send + Sync + fmt::Debug {
    /// Asks which versions there are now.
    fn versions(&self) -> Result<Versions, SourceError>;
}

/// Where a source is and how to ask it. Holds no secret: keys and PINs are in what it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceSpec {
    /// One file with one key.
    File {
        /// Its absolute path.
        path: PathBuf,
    },
    /// A directory with one file for each version, such as mounted secrets.
    Directory {
        /// Its absolute path.
        path: PathBuf,
    },
    /// A program that prints the versions.
    Exec {
        /// The program's absolute path, then its arguments. No shell reads them.
        argv: Vec<String>,
    },
    /// AES keys that stay inside a PKCS#11 token.
    Pkcs11 {
        /// The absolute path of the module, a shared library.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// The absolute path of a file with the user PIN.
        pin_file: PathBuf,
        /// The label that all versions of the key have; the highest `CKA_ID` is the current one.
        key: String,
    },
}

impl SourceSpec {
    /// The kind of the source: `file`, `directory`, `exec` or `pkcs11`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Directory { .. } => "directory",
            Self::Exec { .. } => "exec",
            Self::Pkcs11 { .. } => "pkcs11",
        }
    }

    /// Whether the description could be right; asks nobody.
    pub fn check(&self) -> Result<(), SourceError> {
        let absolute = |what: &str, path: &Path| match path.to_str() {
            Some(text) if path.is_absolute() && text.len() <= TEXT_BYTES_MAX => Ok(()),
            _ => Err(SourceError::bad(format!(
                "{what} {:?} is not an absolute path in UTF-8",
                path.display().to_string()
            ))),
        };
        let label = |what: &str, text: &str| match text.len() {
            1..=255 if !text.contains(char::is_control) => Ok(()),
            _ => Err(SourceError::bad(format!("{what} must be 1 to 255 bytes of text"))),
        };
        match self {
            Self::File { path } => absolute("the key file", path),
            Self::Directory { path } => absolute("the key directory", path),
            Self::Exec { argv } => {
                let program =
                    argv.first().ok_or_else(|| SourceError::bad("no program is named"))?;
                absolute("the program", Path::new(program))?;
                let is_sane = argv.len() <= ARGUMENTS_MAX
                    && argv.iter().all(|text| text.len() <= TEXT_BYTES_MAX && !text.contains('\0'));
                let reason = "the program has more than 63 arguments, or one over 4096 bytes";
                if is_sane { Ok(()) } else { Err(SourceError::bad(reason)) }
            }
            Self::Pkcs11 { module, token, pin_file, key } => {
                absolute("the PKCS#11 module", module)?;
                absolute("the PIN file", pin_file)?;
                label("the token's label", token)?;
                label("the key's label", key)
            }
        }
    }

    /// The source that is described.
    pub fn source(&self) -> Result<Box<dyn KekSource>, SourceError> {
        self.check()?;
        Ok(match self.clone() {
            Self::File { path } => Box::new(FileSource { path }),
            Self::Directory { path } => Box::new(DirectorySource { path }),
            Self::Exec { argv } => Box::new(ExecSource::new(argv)),
            Self::Pkcs11 { module, token, pin_file, key } => {
                Box::new(Pkcs11Source { module, token, pin_file, key })
            }
        })
    }

    /// Asks the source which versions there are now.
    pub fn versions(&self) -> Result<Versions, SourceError> {
        self.source()?.versions()
    }
}

/// A version whose bytes this process holds.
pub(super) struct RawKek {
    id: KekId,
    name: String,
    created_ms: Option<u64>,
    cipher: Cipher,
}

impl RawKek {
    pub(super) fn new(secret: &[u8; 32], name: impl Into<String>, created_ms: Option<u64>) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bulkhead.kek.1").extract(secret);
        let mut id = [0; 8];
        id.copy_from_slice(&subkey(&root, b"id", b"")[..8]);
        let cipher = Cipher::new(&subkey(&root, b"wrap", b""));
        Self { id: KekId(id), name: name.into(), created_ms, cipher }
    }
}

impl fmt::Debug for RawKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawKek({} {})", self.id, self.name)
    }
}

impl Kek for RawKek {
    fn id(&self) -> KekId {
        self.id
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn created_ms(&self) -> Option<u64> {
        self.created_ms
    }
    fn wrap(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SourceError> {
        Ok(self.cipher.seal(aad, plain)?)
    }
    fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let refused = || SourceError::Refused { kek: self.id };
        let length = wrapped.len().checked_sub(OVERHEAD_BYTES).ok_or_else(refused)?;
        let mut plain = Zeroizing::new(vec![0; length]);
        self.cipher.open(aad, wrapped, &mut plain).map_err(|_| refused())?;
        Ok(plain)
    }
}

/// Reads a key as people keep them: 32 raw bytes, 64 hexadecimal digits, or base64 of 32 bytes in
/// either alphabet; white space around the texts is nothing. 32 bytes that are text are refused:
/// they are a message, a password or half a key, and hold much less than 256 bits.
pub(super) fn decode_key(bytes: &[u8], place: &str) -> Result<Zeroizing<[u8; 32]>, SourceError> {
    let not = |reason| SourceError::NotAKey { place: place.to_owned(), reason };
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() == key.len() {
        if bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
            return Err(not("32 characters of text are not 256 random bits"));
        }
        key.copy_from_slice(bytes);
    } else {
        let text = bytes.trim_ascii();
        let is_read = match text.len() {
            64 => hex::decode_to_slice(text, key.as_mut()).is_ok(),
            // Only hexadecimal digits: what is left of a longer text.
            43 | 44 if text.iter().all(u8::is_ascii_hexdigit) => false,
            43 | 44 => from_base64(text, &mut key),
            _ => false,
        };
        if !is_read {
            return Err(not("expected 32 bytes, 64 hexadecimal digits or base64 of 32 bytes"));
        }
    }
    if key.iter().all(|byte| *byte == key[0]) {
        return Err(not("all of its bytes are the same"));
    }
    Ok(key)
}

fn from_base64(text: &[u8], key: &mut [u8; 32]) -> bool {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [alphabet::STANDARD, alphabet::URL_SAFE].iter().any(|alphabet| {
        let mut buffer = Zeroizing::new([0; 48]);
        let engine = GeneralPurpose::new(alphabet, config);
        let is_read = engine.decode_slice(text, buffer.as_mut()) == Ok(key.len());
        if is_read {
            key.copy_from_slice(&buffer[..32]);
        }
        is_read
    })
}

/// Versions whose bytes are at hand, each once; the first `current` of them first.
pub(super) fn versions_of(
    mut keks: Vec<RawKek>,
    current: usize,
    place: &str,
) -> Result<Versions, SourceError> {
    if current >= keks.len() {
        return Err(SourceError::Empty { place: place.to_owned() });
    }
    let current: Arc<dyn Kek> = Arc::new(keks.swap_remove(current));
    let mut older: Vec<Arc<dyn Kek>> = Vec::with_capacity(keks.len());
    for kek in keks {
        if kek.id != current.id() && older.iter().all(|known| known.id() != kek.id) {
            older.push(Arc::new(kek));
        }
    }
    Ok(Versions { current, older })
}

#[cfg(test)]
mod tests;
