//! Recovery codes: what gets somebody in who lost their authenticator. Each is good once, and is shown
//! once, when it is made.
//!
//! A code has 80 random bits, so nobody finds one by trying. Kept are only digests, keyed with a key that
//! is made with the set and rests beside it: they go where the person's row goes, to another node too.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::totp::base32;
use crate::limits;

/// Random bytes of one code: sixteen letters.
const CODE_BYTES: usize = 10;
/// Letters between hyphens, for people who type.
const GROUP: usize = 4;
/// Random bytes that a new set takes.
pub(super) const SEED_BYTES: usize = 32 + limits::RECOVERY_CODES * CODE_BYTES;

/// The codes of one person that are left, as digests.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecoveryCodes {
    #[serde(with = "serde_bytes")]
    key: [u8; 32],
    digests: Vec<ByteBuf>,
}

impl RecoveryCodes {
    /// A new set, and the codes in clear.
    pub fn make(seed: &[u8; SEED_BYTES]) -> (Self, Vec<String>) {
        let (key, rest) = seed.split_first_chunk().expect("a seed holds a key and codes");
        let mut set = Self { key: *key, digests: Vec::with_capacity(limits::RECOVERY_CODES) };
        let mut codes = Vec::with_capacity(limits::RECOVERY_CODES);
        for bytes in rest.chunks_exact(CODE_BYTES) {
            let code = base32(bytes).to_ascii_lowercase();
            set.digests.push(set.digest(&code));
            let groups: Vec<_> =
                code.as_bytes().chunks(GROUP).map(String::from_utf8_lossy).collect();
            codes.push(groups.join("-"));
        }
        (set, codes)
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.digests.len() as u64
    }

    /// Uses a code, written in small letters without hyphens; whether it was one. Looks at every digest.
    pub fn spend(&mut self, code: &str) -> bool {
        let digest = self.digest(code);
        let before = self.digests.len();
        self.digests.retain(|kept| verify_slices_are_equal(kept, &digest).is_err());
        self.digests.len() < before
    }

    fn digest(&self, code: &str) -> ByteBuf {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        ByteBuf::from(hmac::sign(&key, code.as_bytes()).as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(first: u8) -> [u8; SEED_BYTES] {
        std::array::from_fn(|at| first.wrapping_add((at * 7) as u8))
    }

    fn bare(code: &str) -> String {
        code.replace('-', "")
    }

    #[test]
    fn each_code_is_good_once_and_no_other_is() {
        let (mut set, codes) = RecoveryCodes::make(&seed(1));
        assert_eq!((codes.len(), set.left()), (10, 10));
        assert!(codes.iter().all(|code| code.len() == 19 && code.matches('-').count() == 3));
        let (_, foreign) = RecoveryCodes::make(&seed(2));
        for code in foreign.iter().map(String::as_str).chain(["", "aaaaaaaaaaaaaaaa"]) {
            assert!(!set.spend(&bare(code)), "{code}");
        }
        for code in &codes {
            assert!(set.spend(&bare(code)));
            assert!(!set.spend(&bare(code)), "{code} twice");
        }
        assert_eq!(set.left(), 0);
    }

    #[test]
    fn a_set_keeps_no_code_and_survives_its_encoding() {
        let (set, codes) = RecoveryCodes::make(&seed(3));
        let bytes = storage::value::encode(&set);
        for code in codes {
            let code = bare(&code);
            assert!(!bytes.windows(code.len()).any(|part| part == code.as_bytes()));
        }
        assert!(storage::value::decode::<RecoveryCodes>(&bytes).unwrap() == set);
    }
}
