//! The key of one bundle: random, made for it alone, and kept apart from it.
//!
//! Refuses: to be printed by accident. Only [`BundleKey::to_text`] shows it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use storage::id::TenantId;
use storage::seal::{DataKey, TenantKeys};
use zeroize::Zeroizing;

use crate::env::Env;
use crate::tenant::portable::PortableError;

/// What the text of a key begins with.
pub const PREFIX: &str = "bundle-key-1:";
const ID_LABEL: &[u8] = b"bulkhead.bundle.key.1";
const ID_BYTES: usize = 8;

/// The key that a bundle's rows are sealed under. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct BundleKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for BundleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BundleKey(..)")
    }
}

impl BundleKey {
    /// A new random key.
    pub fn generate(env: &Env) -> Self {
        Self(Zeroizing::new(env.random()))
    }

    /// The key as text, for whoever shall open the bundle.
    pub fn to_text(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(hex::encode(*self.0));
        Zeroizing::new([PREFIX, digits.as_str()].concat())
    }

    /// What tells it from other keys, and says nothing else of it: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        let mut digest = Context::new(&SHA256);
        digest.update(ID_LABEL);
        digest.update(&*self.0);
        hex::encode(&digest.finish().as_ref()[..ID_BYTES])
    }

    /// The keys that seal a tenant's rows in the bundle.
    pub(crate) fn keys(&self, tenant: TenantId) -> TenantKeys {
        TenantKeys::new(tenant, &DataKey::from_bytes(self.0.clone()))
    }
}

impl FromStr for BundleKey {
    type Err = PortableError;

    fn from_str(text: &str) -> Result<Self, PortableError> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(PortableError::NoKey)?;
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, &mut *bytes).map_err(|_| PortableError::NoKey)?;
        Ok(Self(bytes))
    }
}

impl serde::Serialize for BundleKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> serde::Deserialize<'de> for BundleKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_text_and_shows_itself_nowhere_else() {
        let key = BundleKey::generate(&Env::real());
        let text = key.to_text();
        assert_eq!(format!("{}\n", text.as_str()).parse::<BundleKey>().expect("a key"), key);
        let digits = text.strip_prefix(PREFIX).expect("the prefix");
        for shown in [format!("{key:?}"), key.id()] {
            assert!(!digits.contains(&shown) && !shown.contains(digits), "{shown}");
        }
        assert_ne!(key.id(), BundleKey::generate(&Env::real()).id());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let digits = "0".repeat(64);
        for text in [
            digits.clone(),
            format!("{PREFIX}{}", &digits[1..]),
            format!("{PREFIX}{digits}0"),
            PREFIX.to_owned(),
            String::new(),
        ] {
            assert!(matches!(text.parse::<BundleKey>(), Err(PortableError::NoKey)), "{text}");
        }
    }
}
