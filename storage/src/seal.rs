//! Sealing: what makes bytes at rest useless to whoever lacks the tenant's key.
//!
//! Each tenant has one random data key. HKDF-SHA-256 (RFC 5869) makes five keys of it, one per
//! purpose, and AES-256-GCM (NIST SP 800-38D) seals with random 96-bit nonces. What a sealed text
//! belongs to (tenant, LSN, key) is authenticated with it, so nothing can be moved or swapped.
//!
//! Layout of every sealed text: `nonce (12) · ciphertext · tag (16)`. Random nonces keep one key
//! safe for about 2³² texts; the log and the view therefore use separate keys.
//!
//! Refuses: to open anything that does not authenticate, and to say why it did not.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac, rand};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::id::{Id, TenantId};
use crate::keys::Digest;
use crate::record::Body;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// How many bytes longer a sealed text is than its plaintext.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// From this size on a record's body is compressed before it is sealed.
const COMPRESS_BYTES_MIN: usize = 16 * 1024;

/// A larger body is refused when sealed and never unpacked when opened.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

const CODEC_PLAIN: u8 = 0;
const CODEC_ZSTD: u8 = 1;
/// zstd's fastest ordinary level: bodies are compressed on the way to an answer.
const ZSTD_LEVEL: i32 = 1;

const RECORD_LABEL: &[u8] = b"bulkhead.seal.record.1";
const VALUE_LABEL: &[u8] = b"bulkhead.seal.value.1";

/// Why sealing or opening failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The bytes were changed, moved from elsewhere, or sealed under another key.
    #[error("sealed bytes do not authenticate")]
    Tampered,
    /// The bytes authenticate, but this release cannot read what they say.
    #[error("a sealed body is malformed or of a newer release")]
    Malformed,
    /// The plaintext is beyond [`BODY_BYTES_MAX`].
    #[error("a body of {bytes} bytes is too large")]
    TooLarge {
        /// Its size before compression.
        bytes: usize,
    },
    /// The system's random generator failed.
    #[error("no randomness is to be had")]
    NoRandomness,
}

/// Where randomness comes from: the seam that lets a simulation repeat itself.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError>;
}

/// The operating system's generator, through aws-lc.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError> {
        rand::fill(bytes).map_err(|_| SealError::NoRandomness)
    }
}

/// A tenant's data key: 32 random bytes, wiped when dropped and never printed.
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// A new random key.
    pub fn generate(random: &dyn Random) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(bytes.as_mut())?;
        Ok(Self(bytes))
    }
    /// The key with these bytes, which whoever has them keeps as secret as the key.
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// An AES-256-GCM key made ready for use.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key");
        Self(LessSafeKey::new(key))
    }

    /// Seals `bytes[NONCE_BYTES..]` in place, fills in the nonce before it, appends the tag.
    fn seal_in_place(&self, aad: &[u8], bytes: &mut Vec<u8>) -> Result<(), SealError> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let (head, plaintext) = bytes.split_at_mut(NONCE_BYTES);
        head.copy_from_slice(&nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), plaintext)
            .map_err(|_| SealError::TooLarge { bytes: plaintext.len() })?;
        bytes.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Seals a copy of `plaintext`.
    pub(crate) fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut bytes = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        bytes.resize(NONCE_BYTES, 0);
        bytes.extend_from_slice(plaintext);
        self.seal_in_place(aad, &mut bytes)?;
        Ok(bytes)
    }

    /// Opens into `plaintext`, which must be [`OVERHEAD_BYTES`] shorter than `sealed`.
    pub(crate) fn open(
        &self,
        aad: &[u8],
        sealed: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), SealError> {
        let (nonce, rest) = sealed.split_first_chunk().ok_or(SealError::Tampered)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(SealError::Tampered)?;
        if ciphertext.len() != plaintext.len() {
            return Err(SealError::Tampered);
        }
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, plaintext)
            .map_err(|_| SealError::Tampered)
    }
}

/// One tenant's keys, ready for use.
///
/// The two HMAC keys stay raw: preparing one costs two SHA-256 blocks, keeping it prepared would
/// cost every awake tenant most of a kilobyte. The key of snapshots, rarely used, stays raw as well.
pub struct TenantKeys {
    tenant: TenantId,
    log: Cipher,
    view: Cipher,
    index: Zeroizing<[u8; 32]>,
    token: Zeroizing<[u8; 32]>,
    snapshot: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantKeys({})", self.tenant)
    }
}

impl TenantKeys {
    /// Derives the keys of `tenant` from its data key.
    pub fn new(tenant: TenantId, data_key: &DataKey) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bulkhead.tenant.1");
        let root = salt.extract(data_key.as_bytes());
        Self {
            tenant,
            log: Cipher::new(&subkey(&root, b"log", tenant.as_bytes())),
            view: Cipher::new(&subkey(&root, b"view", tenant.as_bytes())),
            index: subkey(&root, b"index", tenant.as_bytes()),
            token: subkey(&root, b"token", tenant.as_bytes()),
            snapshot: subkey(&root, b"snapshot", tenant.as_bytes()),
        }
    }

    /// Whose keys these are.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Seals a record's body: a [`Body`], or anything that serialises the same way.
    ///
    /// # Errors
    /// [`SealError::TooLarge`] beyond [`BODY_BYTES_MAX`].
    pub fn seal_record<B: Serialize>(
        &self,
        lsn: u64,
        epoch: u64,
        body: &B,
    ) -> Result<Vec<u8>, SealError> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.resize(NONCE_BYTES, 0);
        bytes.push(CODEC_PLAIN);
        rmp_serde::encode::write(&mut bytes, body).expect("bodies are what MessagePack can carry");
        let plain = &bytes[NONCE_BYTES + 1..];
        if plain.len() > BODY_BYTES_MAX {
            return Err(SealError::TooLarge { bytes: plain.len() });
        }
        if plain.len() >= COMPRESS_BYTES_MIN
            && let Some(smaller) = compress(plain)
        {
            bytes = smaller;
        }
        self.log.seal_in_place(&self.record_aad(lsn, epoch), &mut bytes)?;
        Ok(bytes)
    }

    /// Opens what [`seal_record`](Self::seal_record) sealed.
    ///
    /// # Errors
    /// [`SealError::Tampered`] if a bit, the tenant, the LSN or the epoch differs.
    pub fn open_record(&self, lsn: u64, epoch: u64, sealed: &[u8]) -> Result<Body, SealError> {
        let length = sealed.len().checked_sub(OVERHEAD_BYTES).ok_or(SealError::Tampered)?;
        let mut plain = vec![0; length];
        self.log.open(&self.record_aad(lsn, epoch), sealed, &mut plain)?;
        match plain.split_first() {
            Some((&CODEC_PLAIN, body)) => decode(body),
            Some((&CODEC_ZSTD, packed)) => decode(&decompress(packed)?),
            _ => Err(SealError::Malformed),
        }
    }

    /// Seals one value of the view under its encoded key.
    pub fn seal_value(&self, key: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.view.seal(&self.value_aad(key), plaintext)
    }

    /// Opens one value of the view.
    ///
    /// # Errors
    /// [`SealError::Tampered`] if it was changed, or sealed for another key or tenant.
    pub fn open_value(&self, key: &[u8], sealed: &[u8]) -> Result<Arc<[u8]>, SealError> {
        let length = sealed.len().checked_sub(OVERHEAD_BYTES).ok_or(SealError::Tampered)?;
        // Opened straight into the shared allocation, so that a read copies nothing.
        let mut plaintext: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
        let target = Arc::get_mut(&mut plaintext).expect("nobody else has seen it yet");
        self.view.open(&self.value_aad(key), sealed, target)?;
        Ok(plaintext)
    }

    /// A keyed digest for index keys: e-mail addresses, provider event ids, idempotency keys.
    /// Equal bytes under different labels or tenants give unrelated digests.
    pub fn digest(&self, label: &str, bytes: &[u8]) -> Digest {
        digest_of(labelled(&self.index, label, bytes).sign())
    }

    /// A message authentication code, for tokens this tenant hands out.
    pub fn mac(&self, label: &str, bytes: &[u8]) -> [u8; 32] {
        digest_of(labelled(&self.token, label, bytes).sign())
    }

    /// Whether `mac` is what [`mac`](Self::mac) gives; takes the same time either way.
    pub fn verify_mac(&self, label: &str, bytes: &[u8], mac: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.mac(label, bytes), mac).is_ok()
    }

    /// The keys under which audit entries rest in the archive. They come from the key of snapshots, and
    /// are others, so that neither kind of object can be taken for the other.
    pub fn of_audit_chunks(&self) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bulkhead.audit.1");
        let root = salt.extract(self.snapshot.as_ref());
        Self::new(self.tenant, &DataKey(subkey(&root, b"audit", self.tenant.as_bytes())))
    }

    /// What seals this tenant's snapshots, made ready for use.
    pub(crate) fn snapshot_cipher(&self) -> Cipher {
        Cipher::new(&self.snapshot)
    }

    fn record_aad(&self, lsn: u64, epoch: u64) -> [u8; RECORD_LABEL.len() + 32] {
        let mut aad = [0; RECORD_LABEL.len() + 32];
        let (label, rest) = aad.split_at_mut(RECORD_LABEL.len());
        label.copy_from_slice(RECORD_LABEL);
        rest[..16].copy_from_slice(self.tenant.as_bytes());
        rest[16..24].copy_from_slice(&lsn.to_be_bytes());
        rest[24..].copy_from_slice(&epoch.to_be_bytes());
        aad
    }

    fn value_aad(&self, key: &[u8]) -> Vec<u8> {
        [VALUE_LABEL, self.tenant.as_bytes(), key].concat()
    }
}

/// HKDF-Expand with a purpose and a context.
pub(crate) fn subkey(root: &hkdf::Prk, purpose: &[u8], context: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    root.expand(&[purpose, b"\0", context], hkdf::HKDF_SHA256)
        .and_then(|output| output.fill(key.as_mut()))
        .expect("HKDF-SHA-256 gives up to 255 times 32 bytes");
    key
}

/// HMAC over the label's length, the label and the bytes: no label is a prefix of another's input.
fn labelled(key: &[u8; 32], label: &str, bytes: &[u8]) -> hmac::Context {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(&(label.len() as u64).to_be_bytes());
    context.update(label.as_bytes());
    context.update(bytes);
    context
}

fn digest_of(tag: hmac::Tag) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(tag.as_ref());
    digest
}

/// The packed text with room for the nonce in front, or nothing if packing does not pay.
fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(plain.len()).ok()?;
    let packed = zstd::bulk::compress(plain, ZSTD_LEVEL).ok()?;
    if packed.len() >= plain.len() {
        return None;
    }
    let mut bytes = Vec::with_capacity(packed.len() + OVERHEAD_BYTES + 5);
    bytes.resize(NONCE_BYTES, 0);
    bytes.push(CODEC_ZSTD);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&packed);
    Some(bytes)
}

fn decompress(packed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (length, packed) = packed.split_first_chunk().ok_or(SealError::Malformed)?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > BODY_BYTES_MAX {
        return Err(SealError::TooLarge { bytes: length });
    }
    let plain = zstd::bulk::decompress(packed, length).map_err(|_| SealError::Malformed)?;
    if plain.len() == length { Ok(plain) } else { Err(SealError::Malformed) }
}

fn decode(body: &[u8]) -> Result<Body, SealError> {
    rmp_serde::from_slice(body).map_err(|_| SealError::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::record::Op;

    fn keys(tenant: u64) -> TenantKeys {
        let id = TenantId::new(tenant, [0; 10]);
        TenantKeys::new(id, &DataKey::generate(&SystemRandom).unwrap())
    }

    fn body(bytes: usize) -> Body {
        let op = Op { key: ByteBuf::from("k"), value: Some(ByteBuf::from(vec![7; bytes])) };
        let delete = Op { key: ByteBuf::from("l"), value: None };
        Body { at_ms: 5, ops: vec![op, delete] }
    }

    #[test]
    fn records_round_trip_small_and_compressed() {
        let keys = keys(1);
        let small = keys.seal_record(3, 2, &body(10)).unwrap();
        assert_eq!(keys.open_record(3, 2, &small), Ok(body(10)));
        let large = keys.seal_record(3, 2, &body(100_000)).unwrap();
        assert!(large.len() < 10_000, "a large body was not compressed");
        assert_eq!(keys.open_record(3, 2, &large), Ok(body(100_000)));
    }

    #[test]
    fn a_record_opens_only_in_its_own_place() {
        let (ours, theirs) = (keys(1), keys(2));
        let sealed = ours.seal_record(3, 2, &body(10)).unwrap();
        assert_eq!(ours.open_record(4, 2, &sealed), Err(SealError::Tampered));
        assert_eq!(ours.open_record(3, 1, &sealed), Err(SealError::Tampered));
        assert_eq!(theirs.open_record(3, 2, &sealed), Err(SealError::Tampered));
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(ours.open_record(3, 2, &flipped), Err(SealError::Tampered), "byte {at}");
            assert!(ours.open_record(3, 2, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_value_opens_only_under_its_own_key_and_tenant() {
        let data_key = DataKey::generate(&SystemRandom).unwrap();
        let ours = TenantKeys::new(TenantId::new(1, [0; 10]), &data_key);
        let sealed = ours.seal_value(b"a", b"secret").unwrap();
        assert_eq!(ours.open_value(b"a", &sealed).as_deref(), Ok(&b"secret"[..]));
        assert_eq!(ours.open_value(b"b", &sealed), Err(SealError::Tampered));
        assert_eq!(ours.open_value(b"a", &[]), Err(SealError::Tampered));
        // The tenant counts even where two tenants were given the same data key.
        let theirs = TenantKeys::new(TenantId::new(2, [0; 10]), &data_key);
        assert_eq!(theirs.open_value(b"a", &sealed), Err(SealError::Tampered));
    }

    #[test]
    fn digests_and_macs_differ_by_label_tenant_and_purpose() {
        let (ours, theirs) = (keys(1), keys(2));
        let digest = ours.digest("email", b"a@example.com");
        assert_eq!(digest, ours.digest("email", b"a@example.com"));
        assert_ne!(digest, ours.digest("emaila", b"@example.com"));
        assert_ne!(digest, theirs.digest("email", b"a@example.com"));
        assert_ne!(digest, ours.mac("email", b"a@example.com"));
        let mac = ours.mac("cursor", b"x");
        assert!(ours.verify_mac("cursor", b"x", &mac));
        assert!(!ours.verify_mac("cursor", b"y", &mac));
        assert!(!ours.verify_mac("cursor", b"x", &mac[..31]));
    }

    #[test]
    fn printing_a_key_shows_nothing_of_it() {
        let key = DataKey::from_bytes(Zeroizing::new([0xab; 32]));
        assert_eq!(format!("{key:?}"), "DataKey(..)");
    }
}
