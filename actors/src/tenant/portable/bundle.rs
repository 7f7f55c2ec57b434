//! A bundle's bytes: a signed manifest, and behind it the tenant's rows, sealed.
//!
//! ```text
//! magic "BKbundl1" · version u32 · length of the manifest u32 · manifest (JSON) · rows (snapshot format)
//! ```
//! Numbers are big-endian. The manifest says how long the rows are and what they hash to, so nothing can be
//! changed, cut off or put behind; the rows open under the bundle's own key only. Reading holds one chunk of
//! rows at a time.
//!
//! Refuses: to hand out a row before somebody decided whose signature counts.

use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::keys::Key;
use storage::snapshot::SnapshotReader;
use storage::store::StoreError;

use super::PortableError;
use super::content::{Contents, Tally};
use super::key::BundleKey;
use super::manifest::{BundleManifest, FORMAT, MANIFEST_BYTES_MAX, SignedManifest};
use crate::audit::note::NoteVerifier;
use crate::backup::digest::Digest;
use crate::tenant::portable::content::{Part, part_of};
use crate::tenant::state::AuditHead;

const MAGIC: &[u8; 8] = b"BKbundl1";
const HEAD_BYTES: usize = 16;
/// How much is read at a time to hash it.
const READ_BYTES: usize = 256 * 1024;
/// How many rows are read between two reports of how far it is.
pub(crate) const ROWS_TOLD: u64 = 1024;

/// Writes what stands before the rows.
///
/// # Errors
/// Only the output's.
pub fn write_head(out: &mut impl Write, signed: &SignedManifest) -> io::Result<()> {
    let manifest = signed.to_bytes();
    let length = u32::try_from(manifest.len()).map_err(io::Error::other)?;
    out.write_all(MAGIC)?;
    out.write_all(&FORMAT.to_be_bytes())?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&manifest)
}

/// A bundle whose manifest was read. Whose it is, is for [`Bundle::verify`] to show.
#[derive(Debug)]
pub struct Bundle<R> {
    input: R,
    signed: SignedManifest,
    rows_at: u64,
}

impl<R: Read + Seek> Bundle<R> {
    /// Reads the manifest.
    ///
    /// # Errors
    /// [`PortableError::NotABundle`], [`PortableError::Newer`], [`PortableError::Truncated`],
    /// [`PortableError::Manifest`].
    pub fn open(mut input: R) -> Result<Self, PortableError> {
        input.seek(SeekFrom::Start(0))?;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        input.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let known = head.len().min(MAGIC.len());
        if head[..known] != MAGIC[..known] {
            return Err(PortableError::NotABundle);
        }
        let head: [u8; HEAD_BYTES] = head.try_into().map_err(|_| PortableError::Truncated)?;
        let number =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        match number(8) {
            FORMAT => {}
            0 => return Err(PortableError::NotABundle),
            version => return Err(PortableError::Newer { version, reads: FORMAT }),
        }
        let length = number(12) as usize;
        // One byte more than allowed is enough to be told that it is too large.
        let wanted = length.min(MANIFEST_BYTES_MAX + 1);
        let mut manifest = Vec::with_capacity(wanted);
        input.by_ref().take(wanted as u64).read_to_end(&mut manifest)?;
        if manifest.len() < wanted {
            return Err(PortableError::Truncated);
        }
        let signed = SignedManifest::parse(&manifest)?;
        Ok(Self { input, signed, rows_at: (HEAD_BYTES + length) as u64 })
    }

    /// What the manifest says, whoever wrote it.
    pub fn claimed(&self) -> &BundleManifest {
        self.signed.claimed()
    }

    /// The key that the manifest says it is signed by, as text to trust it with.
    ///
    /// # Errors
    /// [`PortableError::NotABundle`] if the origin is none.
    pub fn claimed_signer(&self) -> Result<NoteVerifier, PortableError> {
        let origin = &self.claimed().origin;
        NoteVerifier::new(origin, *self.signed.claimed_key()).map_err(|_| PortableError::NotABundle)
    }

    /// The key to check the bundle with: the one that `trust` names, or the node's own if that is the signer.
    ///
    /// # Errors
    /// [`PortableError::Untrusted`], [`PortableError::NoPublicKey`].
    pub fn signer_trusted_by(
        &self,
        trust: Option<&str>,
        own: Option<&NoteVerifier>,
    ) -> Result<NoteVerifier, PortableError> {
        let claimed = self.claimed_signer()?;
        match trust {
            Some(text) => named_key(text, &self.claimed().origin),
            None if own.is_some_and(|own| own.public_key() == claimed.public_key()) => Ok(claimed),
            None => Err(PortableError::Untrusted { key: claimed.to_text() }),
        }
    }

    /// Checks that the manifest is signed by that key, and the checkpoint in it as well.
    ///
    /// # Errors
    /// [`PortableError::Manifest`], [`PortableError::Checkpoint`].
    pub fn verify(&self, signer: &NoteVerifier) -> Result<&BundleManifest, PortableError> {
        let manifest = self.signed.verify(signer)?;
        if let Some(proof) = &manifest.checkpoint {
            proof.verify(manifest.tenant, signer)?;
        }
        Ok(manifest)
    }

    /// Checks that the sealed rows are those that the manifest names, and that nothing stands behind them.
    /// Takes no key. `tell` hears how many bytes were read.
    ///
    /// # Errors
    /// [`PortableError::Truncated`], [`PortableError::Trailing`], [`PortableError::Changed`].
    pub fn check_payload(&mut self, tell: &mut dyn FnMut(u64)) -> Result<(), PortableError> {
        let payload = self.signed.claimed().payload.clone();
        let end = self.input.seek(SeekFrom::End(0))?;
        let found = end.saturating_sub(self.rows_at);
        if found < payload.bytes {
            return Err(PortableError::Truncated);
        }
        if found > payload.bytes {
            return Err(PortableError::Trailing);
        }
        self.input.seek(SeekFrom::Start(self.rows_at))?;
        let mut digest = Context::new(&SHA256);
        let mut buffer = vec![0; READ_BYTES];
        let mut read = 0;
        loop {
            match self.input.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => {
                    digest.update(&buffer[..bytes]);
                    read += bytes as u64;
                    tell(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if digest_of(digest) == payload.sha256 { Ok(()) } else { Err(PortableError::Changed) }
    }

    /// The rows, from the first on.
    ///
    /// # Errors
    /// [`PortableError::WrongKey`].
    pub(crate) fn rows(
        &mut self,
        key: &BundleKey,
    ) -> Result<SnapshotReader<io::Take<&mut R>>, PortableError> {
        let manifest = self.signed.claimed();
        let (found, wanted) = (key.id(), &manifest.payload.key_id);
        if found != *wanted {
            return Err(PortableError::WrongKey { found, wanted: wanted.clone() });
        }
        let (keys, bytes) = (key.keys(manifest.tenant), manifest.payload.bytes);
        self.input.seek(SeekFrom::Start(self.rows_at))?;
        Ok(SnapshotReader::open(self.input.by_ref().take(bytes), &keys)?)
    }

    /// Reads every row and checks that they are what the manifest says: content, audit log, profile. The
    /// audit log must pass `through`, if that is given. `tell` hears how many rows were read.
    ///
    /// # Errors
    /// [`PortableError::WrongKey`], [`PortableError::Contents`], [`PortableError::Chain`],
    /// [`PortableError::Snapshot`].
    pub fn check_rows(
        &mut self,
        key: &BundleKey,
        through: Option<AuditHead>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Tally, PortableError> {
        let mut contents = Contents::new(through);
        let mut rows = self.rows(key)?;
        let mut seen: u64 = 0;
        while let Some((encoded, bytes)) = rows.next_row()? {
            let key = Key::decode(&encoded).map_err(StoreError::from)?;
            contents.take(&key, &encoded, &bytes)?;
            seen += 1;
            if seen.is_multiple_of(ROWS_TOLD) {
                tell(seen);
            }
        }
        tell(seen);
        let header = *rows.header();
        let tally = contents.finish()?;
        let manifest = self.signed.claimed();
        let source = manifest.source;
        if (header.lsn, header.epoch, header.head) != (source.lsn, source.epoch, source.hash.0) {
            return Err(PortableError::Contents("its rows are of another record"));
        }
        check_tally(&tally, manifest)?;
        Ok(tally)
    }
}

fn check_tally(tally: &Tally, manifest: &BundleManifest) -> Result<(), PortableError> {
    let says = |what| Err(PortableError::Contents(what));
    if tally.rows != manifest.payload.rows {
        return says("it has another number of rows than its manifest says");
    }
    if tally.content_hash != manifest.content_hash {
        return says("its rows hash to something else than its manifest says");
    }
    if tally.audit != manifest.audit {
        return says("its audit log ends elsewhere than its manifest says");
    }
    let is_same = tally.state.profile.as_ref().is_some_and(|profile| {
        (&profile.slug, &profile.name, &profile.plan, &profile.region)
            == (&manifest.slug, &manifest.name, &manifest.plan, &manifest.region)
    });
    if is_same { Ok(()) } else { says("its profile is another than its manifest says") }
}

/// Whether a row travels.
pub(crate) fn travels(key: &Key) -> bool {
    !matches!(part_of(key), Part::Place | Part::Trail)
}

pub(crate) fn digest_of(digest: Context) -> Digest {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.finish().as_ref());
    Digest(hash)
}

/// The key that a text names: `NAME+ID+KEY`, or the 32 bytes of an Ed25519 key in base64.
pub(crate) fn named_key(text: &str, origin: &str) -> Result<NoteVerifier, PortableError> {
    let text = text.trim();
    let wrong = || PortableError::NoPublicKey { text: text.to_owned() };
    let decode = |encoded: &str| STANDARD.decode(encoded).map_err(|_| wrong());
    let Some((name, rest)) = text.split_once('+').filter(|(_, rest)| {
        // A base64 text may have a plus sign as well, but no eight digits and another one behind it.
        rest.split_once('+').is_some_and(|(id, _)| id.len() == 8 && hex::decode(id).is_ok())
    }) else {
        let key = decode(text)?.try_into().map_err(|_| wrong())?;
        return NoteVerifier::new(origin, key).map_err(|_| wrong());
    };
    let encoded = rest.split_once('+').map_or(rest, |(_, encoded)| encoded);
    let key = decode(encoded)?;
    let key: [u8; 32] = match key.split_first() {
        // The type byte of Ed25519, as signed notes number it.
        Some((1, key)) => key.try_into().map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    let verifier = NoteVerifier::new(name, key).map_err(|_| wrong())?;
    if verifier.to_text() == text { Ok(verifier) } else { Err(wrong()) }
}
