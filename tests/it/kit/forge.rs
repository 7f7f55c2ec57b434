//! Forged access tokens: signed with the node's own key where the claims are what is wrong, and
//! anyhow where the signature is.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use storage::disk::RealDisk;
use storage::keystore::KeyStore;
use storage::seal::SystemRandom;

/// Bytes before the key in the node's ring of signing keys: two times and a length.
const RING_HEAD_BYTES: usize = 8 + 8 + 2;

/// Makes tokens.
pub struct Forge {
    pair: Ed25519KeyPair,
    pub pkcs8: Vec<u8>,
    /// The header and the claims of a token that is good.
    pub header: Value,
    pub claims: Value,
    /// That token.
    pub good: String,
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).expect("a part");
    let bytes = URL_SAFE_NO_PAD.decode(text).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

impl Forge {
    /// With the key of the node whose data is in `dir`, and a good token of its making.
    pub fn new(dir: &Path, good: &str) -> Self {
        let keys = KeyStore::open(Arc::new(RealDisk), &dir.join("keys"), Arc::new(SystemRandom));
        let ring = keys.expect("a key store").open_secret("token-signing").expect("signing keys");
        let pkcs8 = ring[RING_HEAD_BYTES..].to_vec();
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).expect("a ring of one key");
        let (header, claims) = (part(good, 0), part(good, 1));
        Self { pair, pkcs8, header, claims, good: good.to_owned() }
    }

    /// The public key, raw.
    pub fn public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// The good token's key id.
    pub fn kid(&self) -> String {
        self.header["kid"].as_str().expect("a key id").to_owned()
    }

    /// A token of these texts, rightly signed.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        self.sign_parts(&encode(header), &encode(claims))
    }

    /// A token of these parts, rightly signed.
    pub fn sign_parts(&self, header: &str, claims: &str) -> String {
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    /// The good token with a changed header, rightly signed.
    pub fn with_header(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = self.header.clone();
        change(&mut header);
        self.sign(&header.to_string(), &self.claims.to_string())
    }

    /// The good token with changed claims, rightly signed.
    pub fn with_claims(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims.clone();
        change(&mut claims);
        self.sign(&self.header.to_string(), &claims.to_string())
    }

    /// One claim set to a value.
    pub fn with_claim(&self, name: &str, value: impl Into<Value>) -> String {
        let value = value.into();
        self.with_claims(|claims| claims[name] = value)
    }

    /// One claim left out.
    pub fn without_claim(&self, name: &str) -> String {
        self.with_claims(|claims| {
            claims.as_object_mut().expect("an object").remove(name);
        })
    }

    /// A number among the claims.
    pub fn number(&self, name: &str) -> u64 {
        self.claims[name].as_u64().expect("a number")
    }
}
