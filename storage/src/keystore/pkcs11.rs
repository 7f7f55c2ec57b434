//! Keys that stay inside a PKCS#11 token: a hardware security module, or SoftHSM.
//!
//! All AES keys of the token that have the configured label are versions of one key; `CKA_ID` tells
//! them apart, and the longest, then highest one is current. The token itself wraps and unwraps, with
//! `CKM_AES_GCM`: what comes out has the layout of every sealed text, `nonce (12) · ciphertext ·
//! tag (16)`. A version's id is `SHA-256("bulkhead.kek.pkcs11.1" · label length u32 · label ·
//! CKA_ID)[..8]`: a key that must not leave the token cannot name itself by its bytes.
//!
//! Refuses: keys that may leave the token or are no AES-256 keys, two keys of one id, two tokens of one label, a PIN that
//! everybody can read, and to try a PIN again that the token refused: tokens lock after a few.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::{digest, rand};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::module::{Library, Module, Pin, Place};
use super::source::{Kek, KekId, KekSource, SourceError, VERSIONS_MAX, Versions};
use crate::seal::{OVERHEAD_BYTES, SealError};

const NONCE_BYTES: usize = 12;
const TAG_BITS: u64 = 128;
const KEY_BYTES: usize = 32;

/// The keys of one label in one token.
#[derive(Debug, Clone)]
pub(super) struct Pkcs11Source {
    pub(super) module: PathBuf,
    pub(super) token: String,
    pub(super) pin_file: PathBuf,
    pub(super) key: String,
}

/// One key in the token.
struct Found {
    handle: ObjectHandle,
    id: Vec<u8>,
}

impl Pkcs11Source {
    fn place(&self) -> Place {
        Place { module: self.module.clone(), token: self.token.clone() }
    }

    /// Does `job` in a session that is signed in. Waits for the token no longer than its timeout.
    fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Self, &Session) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        // Read each time: taking the PIN away takes the key away.
        let pin = Pin::read(&self.pin_file)?;
        let this = self.clone();
        let module = Module::of(&self.module)?;
        module.call(&self.place(), move |library: &mut Library| {
            library.with_session(&this.place(), &pin, |session| job(&this, session))
        })
    }

    fn failed(&self, doing: &str, error: &cryptoki::error::Error) -> SourceError {
        self.place().failed(format!("{doing}: {error}"))
    }

    /// Every version in the token, oldest first.
    fn find(&self, session: &Session) -> Result<Vec<Found>, SourceError> {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(true),
            Attribute::Label(self.key.clone().into_bytes()),
        ];
        let handles = session
            .find_objects(&template)
            .map_err(|error| self.failed("its keys cannot be listed", &error))?;
        if handles.len() > VERSIONS_MAX {
            let reason = format!("it holds more than {VERSIONS_MAX} keys labelled {:?}", self.key);
            return Err(self.place().failed(reason));
        }
        let mut found = Vec::with_capacity(handles.len());
        for handle in handles {
            found.push(self.describe(session, handle)?);
        }
        found.sort_by(|one, other| (one.id.len(), &one.id).cmp(&(other.id.len(), &other.id)));
        if let Some(twins) = found.windows(2).find(|pair| pair[0].id == pair[1].id) {
            let id = hex::encode(&twins[0].id);
            let reason = format!("two keys labelled {:?} have the CKA_ID {id:?}", self.key);
            return Err(self.place().failed(reason));
        }
        Ok(found)
    }

    fn describe(&self, session: &Session, handle: ObjectHandle) -> Result<Found, SourceError> {
        let wanted = [AttributeType::Id, AttributeType::Extractable, AttributeType::ValueLen];
        let attributes = session
            .get_attributes(handle, &wanted)
            .map_err(|error| self.failed("a key cannot be looked at", &error))?;
        let mut id = Vec::new();
        let mut may_leave = true;
        let mut length = None;
        for attribute in attributes {
            match attribute {
                Attribute::Id(bytes) => id = bytes,
                Attribute::Extractable(extractable) => may_leave = extractable,
                Attribute::ValueLen(bytes) => length = Some(usize::from(bytes)),
                _ => {}
            }
        }
        if may_leave {
            let reason = format!(
                "the key labelled {:?} with the CKA_ID {:?} may leave the token; make one that is not CKA_EXTRACTABLE",
                self.key,
                hex::encode(&id)
            );
            return Err(self.place().failed(reason));
        }
        // Tools that import keys have been seen to cut them short.
        if let Some(length) = length.filter(|length| *length != KEY_BYTES) {
            let reason = format!(
                "the key labelled {:?} with the CKA_ID {:?} has {length} bytes; AES-256 needs {KEY_BYTES}",
                self.key,
                hex::encode(&id)
            );
            return Err(self.place().failed(reason));
        }
        Ok(Found { handle, id })
    }

    /// The handle of one version: handles are good for one session only.
    fn handle(&self, session: &Session, kek: KekId) -> Result<ObjectHandle, SourceError> {
        let found = self.find(session)?;
        let found = found.iter().find(|found| kek_id(&self.key, &found.id) == kek);
        found.map(|found| found.handle).ok_or(SourceError::NotOffered { kek })
    }
}

fn kek_id(label: &str, cka_id: &[u8]) -> KekId {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"bulkhead.kek.pkcs11.1");
    context.update(&u32::try_from(label.len()).unwrap_or(u32::MAX).to_be_bytes());
    context.update(label.as_bytes());
    context.update(cka_id);
    let mut id = [0; 8];
    id.copy_from_slice(&context.finish().as_ref()[..8]);
    KekId(id)
}

impl KekSource for Pkcs11Source {
    fn versions(&self) -> Result<Versions, SourceError> {
        let found = self.call(|this, session| {
            let found = this.find(session)?;
            Ok(found.into_iter().map(|one| one.id).collect::<Vec<_>>())
        })?;
        let mut keks = found.into_iter().map(|cka_id| {
            let id = kek_id(&self.key, &cka_id);
            let name = format!("{}/{}", self.key, hex::encode(&cka_id));
            Arc::new(Pkcs11Kek { source: self.clone(), id, name }) as Arc<dyn Kek>
        });
        let current = keks.next_back().ok_or_else(|| SourceError::Empty {
            place: format!("the token {:?} (key label {:?})", self.token, self.key),
        })?;
        Ok(Versions { current, older: keks.collect() })
    }
}

/// One version inside the token.
struct Pkcs11Kek {
    source: Pkcs11Source,
    id: KekId,
    name: String,
}

impl std::fmt::Debug for Pkcs11Kek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pkcs11Kek({} {})", self.id, self.name)
    }
}

impl Kek for Pkcs11Kek {
    fn id(&self) -> KekId {
        self.id
    }
    fn name(&self) -> &str {
        &self.name
    }
    /// Tokens keep no time that could be trusted.
    fn created_ms(&self) -> Option<u64> {
        None
    }

    fn wrap(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SourceError> {
        let (id, aad, plain) = (self.id, aad.to_vec(), Zeroizing::new(plain.to_vec()));
        self.source.call(move |source, session| {
            let key = source.handle(session, id)?;
            let mut nonce = [0; NONCE_BYTES];
            rand::fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
            let mut sealed = nonce.to_vec();
            let sealing = |error| source.failed("it does not wrap", &error);
            let params = GcmParams::new(&mut nonce, &aad, TAG_BITS.into()).map_err(sealing)?;
            let rest = session.encrypt(&Mechanism::AesGcm(params), key, &plain).map_err(sealing)?;
            sealed.extend_from_slice(&rest);
            if sealed.len() != plain.len() + OVERHEAD_BYTES {
                return Err(source.place().failed("it wraps to an unexpected length".to_owned()));
            }
            Ok(sealed)
        })
    }

    fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let (id, aad) = (self.id, aad.to_vec());
        let refused = SourceError::Refused { kek: id };
        let Some((&nonce, rest)) = wrapped.split_first_chunk::<NONCE_BYTES>() else {
            return Err(refused);
        };
        if wrapped.len() < OVERHEAD_BYTES {
            return Err(refused);
        }
        let rest = rest.to_vec();
        self.source.call(move |source, session| {
            let key = source.handle(session, id)?;
            let mut nonce = nonce;
            let opening = |error| source.failed("it does not unwrap", &error);
            let params = GcmParams::new(&mut nonce, &aad, TAG_BITS.into()).map_err(opening)?;
            match session.decrypt(&Mechanism::AesGcm(params), key, &rest) {
                Ok(plain) => Ok(Zeroizing::new(plain)),
                Err(error) if is_refusal(&error) => Err(SourceError::Refused { kek: id }),
                Err(error) => Err(source.failed("it does not unwrap", &error)),
            }
        })
    }
}

/// Whether the token says that the bytes do not authenticate. Tokens differ in how they say it.
fn is_refusal(error: &cryptoki::error::Error) -> bool {
    use cryptoki::error::{Error, RvError};
    matches!(
        error,
        Error::Pkcs11(
            RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::DataInvalid
                | RvError::GeneralError
                | RvError::FunctionFailed,
            _
        )
    )
}
