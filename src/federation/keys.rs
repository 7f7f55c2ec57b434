//! JSON Web Key Sets (RFC 7517): the public keys that an issuer signs with.
//!
//! Which algorithms a key verifies follows from the key, never from a token. Keys of kinds that are not known are
//! left out, as the standard asks; symmetric keys and RSA keys under 2048 bits verify nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Most keys of one set that are looked at.
const KEYS_MAX: usize = 100;
const RSA_BYTES_MIN: usize = 2_048 / 8;

/// One key, and what it verifies.
pub struct VerifyingKey {
    /// Its name in the headers of tokens.
    pub kid: Option<String>,
    /// What it verifies.
    pub algorithms: Vec<Algorithm>,
    /// The key.
    pub key: DecodingKey,
}

/// The keys of one issuer.
pub struct KeySet(Vec<VerifyingKey>);

#[derive(Deserialize)]
struct Wire {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a key set; nothing if it is none, or no key in it is of use.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(bytes).ok()?;
        Self::of(wire.keys)
    }

    /// Reads the list of keys alone.
    pub fn parse_list(bytes: &[u8]) -> Option<Self> {
        Self::of(serde_json::from_slice(bytes).ok()?)
    }

    fn of(keys: Vec<Value>) -> Option<Self> {
        let usable: Vec<_> = keys.into_iter().take(KEYS_MAX).filter_map(usable).collect();
        (!usable.is_empty()).then_some(Self(usable))
    }

    /// The keys of that name; without one, all.
    pub fn named(&self, kid: Option<&str>) -> impl Iterator<Item = &VerifyingKey> {
        self.0.iter().filter(move |key| kid.is_none() || key.kid.as_deref() == kid)
    }
}

fn usable(value: Value) -> Option<VerifyingKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let is_to_encrypt =
        common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature);
    let operations = common.key_operations.as_deref();
    let cannot_verify = operations.is_some_and(|all| !all.contains(&KeyOperations::Verify));
    if is_to_encrypt || cannot_verify {
        return None;
    }
    let fitting: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
            let bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
            if bytes < RSA_BYTES_MIN {
                return None;
            }
            &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ]
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            &[Algorithm::ES256]
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            &[Algorithm::ES384]
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    let algorithms: Vec<_> = fitting
        .iter()
        .copied()
        .filter(|&fits| common.key_algorithm.is_none_or(|said| is_same(said, fits)))
        .collect();
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let kid = common.key_id.clone();
    (!algorithms.is_empty()).then_some(VerifyingKey { kid, algorithms, key })
}

fn is_same(said: KeyAlgorithm, fits: Algorithm) -> bool {
    matches!(
        (said, fits),
        (KeyAlgorithm::RS256, Algorithm::RS256)
            | (KeyAlgorithm::RS384, Algorithm::RS384)
            | (KeyAlgorithm::RS512, Algorithm::RS512)
            | (KeyAlgorithm::PS256, Algorithm::PS256)
            | (KeyAlgorithm::PS384, Algorithm::PS384)
            | (KeyAlgorithm::PS512, Algorithm::PS512)
            | (KeyAlgorithm::ES256, Algorithm::ES256)
            | (KeyAlgorithm::ES384, Algorithm::ES384)
            | (KeyAlgorithm::EdDSA, Algorithm::EdDSA)
    )
}
