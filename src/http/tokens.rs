//! Access tokens: short-lived JWTs that this node makes and nobody else can (RFC 9068, RFC 8725).
//!
//! A token is only as good as the narrowest reading of it: one algorithm, fixed by the key and never
//! by the header; one type; a header of exactly three members; canonical base64url; no key twice in
//! any object. Time is the caller's clock, never the machine's. What is refused is refused without
//! saying why, but for one thing: whether the token was merely too old.
//!
//! Verified tokens are kept per thread, so that a token that comes again costs no cryptography; its
//! times are looked at every time. Whether its session still stands is the tenant's to say.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use actors::env::Env;
use actors::permit::{Carrier, Grant, Role, UserPrincipal};
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::unsync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage::id::{SessionId, TenantId, UserId};
use storage::keystore::{KeyError, KeyStore};
use zeroize::Zeroizing;

use crate::limits::TOKEN_BYTES_MAX;

#[cfg(test)]
mod tests;

/// How long an access token is good, in seconds.
pub const ACCESS_S: u64 = 15 * 60;
/// The issuer when the configuration names no public URL.
pub const ISSUER_DEFAULT: &str = "bulkhead";
/// Who access tokens are for.
pub const AUDIENCE: &str = "bulkhead";

const TYPE: &str = "at+jwt";
const ALGORITHM: &str = "EdDSA";
const SECRET: &str = "token-signing";
/// How far `iat` and `nbf` may lie ahead: the clock may have been set back a little since.
const LEEWAY_S: u64 = 5;
/// Tokens kept per thread.
const KEPT_MAX: usize = 10_000;

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not one of ours, or not an access token, or not yet good.
    #[error("the token is not valid")]
    Invalid,
    /// Ours, but too old.
    #[error("the token has expired")]
    Expired,
    /// Ours, but it names no tenant.
    #[error("the token names no tenant")]
    NoTenant,
}

/// Why there are no signing keys.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The key store has a problem.
    #[error(transparent)]
    Store(#[from] KeyError),
    /// The stored ring is not readable.
    #[error("the stored token signing keys are not readable")]
    Damaged,
    /// No key could be made.
    #[error("no token signing key could be made")]
    NotMade,
}

/// Makes and verifies access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    issuer: String,
    validation: Validation,
    env: Env,
    ring: RwLock<Arc<Ring>>,
    /// The number of the current ring, so that a kept token needs no lock.
    ring_number: AtomicU64,
}

/// The keys in force, newest first.
struct Ring {
    /// Differs between any two rings of the process, also of two nodes in it.
    number: u64,
    keys: Vec<SigningKey>,
}

#[derive(Clone)]
struct SigningKey {
    kid: String,
    public: Vec<u8>,
    pkcs8: Zeroizing<Vec<u8>>,
    signs: EncodingKey,
    verifies: DecodingKey,
    created_ms: u64,
    /// When a newer key took over, Unix milliseconds.
    retired_ms: Option<u64>,
}

/// The claims, all of them. A token with any other was not made here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    /// Anything else than a tenant's id counts as none.
    #[serde(default)]
    tid: Value,
    sid: SessionId,
    role: Role,
    av: u32,
    jti: String,
    iat: u64,
    nbf: u64,
    exp: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    typ: String,
    alg: String,
    kid: String,
}

#[derive(Clone, Copy)]
struct Times {
    begins_s: u64,
    ends_s: u64,
}

impl Times {
    fn check(self, now_ms: u64) -> Result<(), TokenError> {
        let now_s = now_ms / 1_000;
        if self.ends_s <= now_s {
            return Err(TokenError::Expired);
        }
        if self.begins_s > now_s.saturating_add(LEEWAY_S) {
            return Err(TokenError::Invalid);
        }
        Ok(())
    }
}

struct Verified {
    ring: u64,
    times: Times,
    grant: Grant,
}

thread_local! {
    static VERIFIED: RefCell<Cache<Box<str>, Verified>> = RefCell::new(Cache::new(KEPT_MAX));
}

static RINGS: AtomicU64 = AtomicU64::new(1);

impl Tokens {
    /// Loads the signing keys, or makes the first one. `issuer` is the node's public URL, or else
    /// [`ISSUER_DEFAULT`].
    ///
    /// # Errors
    /// [`TokenKeyError`]; nothing is replaced that cannot be read.
    pub fn open(keystore: &KeyStore, issuer: &str, env: &Env) -> Result<Self, TokenKeyError> {
        let keys = match keystore.open_secret(SECRET) {
            Ok(stored) => decode_ring(&stored, env.now_ms())?,
            Err(KeyError::SecretMissing { .. }) => {
                let keys = vec![SigningKey::generate(env.now_ms())?];
                keystore.seal_secret(SECRET, &encode_ring(&keys))?;
                keys
            }
            Err(error) => return Err(error.into()),
        };
        let ring = Ring::new(keys);
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Times are checked here, against the node's own clock.
        validation.validate_exp = false;
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[AUDIENCE]);
        Ok(Self(Arc::new(Inner {
            issuer: issuer.to_owned(),
            validation,
            env: env.clone(),
            ring_number: AtomicU64::new(ring.number),
            ring: RwLock::new(Arc::new(ring)),
        })))
    }

    /// Makes the access token of a person, good for [`ACCESS_S`] from `now_ms` on.
    pub fn issue(&self, tenant: TenantId, user: &UserPrincipal, now_ms: u64) -> String {
        let now_s = now_ms / 1_000;
        let claims = Claims {
            iss: self.0.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: user.user,
            tid: Value::String(tenant.to_string()),
            sid: user.session,
            role: user.role,
            av: user.authz,
            jti: hex::encode(self.0.env.random::<16>()),
            iat: now_s,
            nbf: now_s,
            exp: now_s.saturating_add(ACCESS_S),
        };
        let ring = self.ring();
        let newest = ring.keys.first().expect("a ring is never empty");
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(newest.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, &claims, &newest.signs).expect("a key of the ring signs")
    }

    /// What a token allows.
    ///
    /// # Errors
    /// [`TokenError`]: refused.
    pub fn verify(&self, text: &str, now_ms: u64) -> Result<Grant, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let ring = self.0.ring_number.load(Ordering::Acquire);
        VERIFIED.with_borrow_mut(|kept| {
            if let Some(verified) = kept.get(text).filter(|verified| verified.ring == ring) {
                verified.times.check(now_ms)?;
                return Ok(verified.grant.clone());
            }
            let (verified, grant) = self.verify_afresh(text, now_ms)?;
            kept.insert(text.into(), verified);
            Ok(grant)
        })
    }

    fn verify_afresh(&self, text: &str, now_ms: u64) -> Result<(Verified, Grant), TokenError> {
        let ring = self.ring();
        let kid = strict_header(text)?.kid;
        let key = ring.keys.iter().find(|key| key.kid == kid).ok_or(TokenError::Invalid)?;
        if key.is_gone(now_ms) {
            return Err(TokenError::Invalid);
        }
        let claims: Claims = jsonwebtoken::decode(text, &key.verifies, &self.0.validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        let times = Times { begins_s: claims.nbf.max(claims.iat), ends_s: claims.exp };
        if claims.exp.saturating_sub(claims.iat) > ACCESS_S {
            return Err(TokenError::Invalid);
        }
        times.check(now_ms)?;
        let tenant: TenantId =
            claims.tid.as_str().and_then(|text| text.parse().ok()).ok_or(TokenError::NoTenant)?;
        let principal = UserPrincipal {
            user: claims.sub,
            session: claims.sid,
            role: claims.role,
            authz: claims.av,
            carrier: Carrier::Token,
        };
        let grant = Grant::new(tenant, principal);
        Ok((Verified { ring: ring.number, times, grant: grant.clone() }, grant))
    }

    /// The public keys, newest first, as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub fn jwks(&self) -> Value {
        let keys: Vec<_> = self
            .ring()
            .keys
            .iter()
            .map(|key| {
                json!({
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "use": "sig",
                    "alg": ALGORITHM,
                    "kid": key.kid,
                    "x": URL_SAFE_NO_PAD.encode(&key.public),
                })
            })
            .collect();
        json!({ "keys": keys })
    }

    /// Signs with a new key from now on and gives its `kid`. Older keys go on verifying until the last
    /// token they signed has expired.
    ///
    /// # Errors
    /// [`TokenKeyError`]; the ring is then unchanged.
    pub fn rotate(&self, keystore: &KeyStore) -> Result<String, TokenKeyError> {
        let now_ms = self.0.env.now_ms();
        let mut current = self.0.ring.write().unwrap_or_else(PoisonError::into_inner);
        let newest = SigningKey::generate(now_ms)?;
        let kid = newest.kid.clone();
        let mut keys = vec![newest];
        keys.extend(
            current.keys.iter().filter(|key| !key.is_gone(now_ms)).map(|key| SigningKey {
                retired_ms: key.retired_ms.or(Some(now_ms)),
                ..key.clone()
            }),
        );
        // Stored first: a token that is out there must be verifiable after a restart.
        keystore.seal_secret(SECRET, &encode_ring(&keys))?;
        let ring = Ring::new(keys);
        self.0.ring_number.store(ring.number, Ordering::Release);
        *current = Arc::new(ring);
        Ok(kid)
    }

    /// When the key that signs was made, Unix milliseconds.
    pub fn key_created_ms(&self) -> u64 {
        self.ring().keys.first().map_or(0, |key| key.created_ms)
    }

    fn ring(&self) -> Arc<Ring> {
        self.0.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ring {
    fn new(keys: Vec<SigningKey>) -> Self {
        Self { number: RINGS.fetch_add(1, Ordering::Relaxed), keys }
    }
}

impl SigningKey {
    fn generate(now_ms: u64) -> Result<Self, TokenKeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| TokenKeyError::NotMade)?;
        Self::from_pkcs8(Zeroizing::new(document.as_ref().to_vec()), now_ms, None)
    }

    fn from_pkcs8(
        pkcs8: Zeroizing<Vec<u8>>,
        created_ms: u64,
        retired_ms: Option<u64>,
    ) -> Result<Self, TokenKeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| TokenKeyError::Damaged)?;
        let public = pair.public_key().as_ref().to_vec();
        let hash = digest::digest(&digest::SHA256, &public);
        Ok(Self {
            kid: hex::encode(&hash.as_ref()[..8]),
            signs: EncodingKey::from_ed_der(&pkcs8),
            verifies: DecodingKey::from_ed_der(&public),
            public,
            pkcs8,
            created_ms,
            retired_ms,
        })
    }

    /// Whether the last token it signed has expired.
    fn is_gone(&self, now_ms: u64) -> bool {
        let rest_ms = (ACCESS_S + LEEWAY_S) * 1_000;
        self.retired_ms.is_some_and(|retired_ms| now_ms > retired_ms.saturating_add(rest_ms))
    }
}

/// The ring as it rests in the key store, newest key first: made (8 bytes), retired or zero (8),
/// length of the PKCS#8 document (2), the document; numbers big-endian.
fn encode_ring(keys: &[SigningKey]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(keys.len() * 128));
    for key in keys {
        let length =
            u16::try_from(key.pkcs8.len()).expect("an Ed25519 key takes less than 100 bytes");
        bytes.extend_from_slice(&key.created_ms.to_be_bytes());
        bytes.extend_from_slice(&key.retired_ms.unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&key.pkcs8);
    }
    bytes
}

fn decode_ring(mut rest: &[u8], now_ms: u64) -> Result<Vec<SigningKey>, TokenKeyError> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], TokenKeyError> {
        let (head, tail) = rest.split_at_checked(count).ok_or(TokenKeyError::Damaged)?;
        *rest = tail;
        Ok(head)
    }
    fn number(rest: &mut &[u8], bytes: usize) -> Result<u64, TokenKeyError> {
        let head = take(rest, bytes)?;
        Ok(head.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }
    let mut keys = Vec::new();
    while !rest.is_empty() {
        let created_ms = number(&mut rest, 8)?;
        let retired_ms = Some(number(&mut rest, 8)?).filter(|&retired_ms| retired_ms > 0);
        let length = usize::try_from(number(&mut rest, 2)?).map_err(|_| TokenKeyError::Damaged)?;
        let pkcs8 = Zeroizing::new(take(&mut rest, length)?.to_vec());
        let key = SigningKey::from_pkcs8(pkcs8, created_ms, retired_ms)?;
        if !key.is_gone(now_ms) {
            keys.push(key);
        }
    }
    if keys.is_empty() { Err(TokenKeyError::Damaged) } else { Ok(keys) }
}

/// Everything about the form of a token that can be known before its key.
fn strict_header(text: &str) -> Result<StrictHeader, TokenError> {
    let mut parts = text.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Invalid);
    };
    // The engine refuses padding, other alphabets and stray trailing bits: one text per value.
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Invalid);
    if bytes(signature)?.len() != 64 || bytes(claims)?.is_empty() {
        return Err(TokenError::Invalid);
    }
    let header: StrictHeader =
        serde_json::from_slice(&bytes(header)?).map_err(|_| TokenError::Invalid)?;
    if header.alg != ALGORITHM || header.typ != TYPE {
        return Err(TokenError::Invalid);
    }
    Ok(header)
}
