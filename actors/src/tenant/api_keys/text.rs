//! The text of an API key: `bk_` and base64url of tenant, key and 32 random bytes.
//!
//! It names its tenant and its key, so that it is found without a search and without an index that would
//! have to hold something of the secret. The random bytes alone prove it. As they are 256 bits, a fast
//! digest is as good as a slow one: there is nothing to try out. The digest is made under the tenant's
//! own key, so that it means nothing without it, and binds the key's id.
//!
//! Refuses: any other spelling of the same bytes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use storage::id::{ApiKeyId, Id, TenantId};
use storage::keys::Digest;
use zeroize::Zeroizing;

use crate::tenant::cx::Reads;

/// What every key begins with.
pub const PREFIX: &str = "bk_";
const LABEL: &str = "api-key";
const SECRET_BYTES: usize = 32;
const BYTES: usize = 16 + 16 + SECRET_BYTES;

/// An API key as it was presented, taken apart but not believed: only the tenant can check it.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedKey {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    /// Which key it says it is.
    pub id: ApiKeyId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl std::fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresentedKey")
            .field("tenant", &self.tenant)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl PresentedKey {
    pub(super) fn new(tenant: TenantId, id: ApiKeyId, secret: [u8; SECRET_BYTES]) -> Self {
        Self { tenant, id, secret: Zeroizing::new(secret) }
    }

    /// Takes a key's text apart; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?);
        let bytes: &[u8; BYTES] = bytes.as_slice().try_into().ok()?;
        let (tenant, rest) = bytes.split_first_chunk()?;
        let (id, secret) = rest.split_first_chunk()?;
        let secret = secret.try_into().ok()?;
        Some(Self::new(TenantId::from_bytes(*tenant), ApiKeyId::from_bytes(*id), secret))
    }

    /// The text, for the one answer that shows it.
    pub(super) fn text(&self) -> String {
        let parts = [&self.tenant.as_bytes()[..], self.id.as_bytes(), &self.secret[..]];
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(Zeroizing::new(parts.concat())))
    }

    /// What the row keeps of it.
    pub(super) fn digest<R: Reads>(&self, cx: &R) -> Digest {
        let parts = [&self.id.as_bytes()[..], &self.secret[..]];
        cx.digest(LABEL, &Zeroizing::new(parts.concat()))
    }

    /// Whether the row's digest is of this key. Takes the same time either way, and with no row at all.
    pub(super) fn is_of<R: Reads>(&self, cx: &R, stored: Option<&[u8]>) -> bool {
        let stored = stored.unwrap_or(&[0; 32]);
        let is_equal = aws_lc_rs::constant_time::verify_slices_are_equal(&self.digest(cx), stored);
        is_equal.is_ok() && self.tenant == cx.tenant()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PresentedKey {
        PresentedKey::new(TenantId::from_bytes([1; 16]), ApiKeyId::from_bytes([2; 16]), [0xff; 32])
    }

    #[test]
    fn a_text_leads_back_to_its_parts_and_has_one_spelling() {
        let text = sample().text();
        assert_eq!((text.len(), PresentedKey::parse(&text)), (89, Some(sample())));
        // The last digit has four bits too many; any but zeros would be a second spelling.
        let stray = format!("{}x", &text[..88]);
        let standard = text.replace('_', "/").replacen("bk/", "bk_", 1);
        let padded = format!("{text}=");
        let others = [&*stray, &standard, &padded, &text[..88], &text[3..], "bk_", ""];
        for other in others {
            assert_eq!(PresentedKey::parse(other), None, "{other}");
        }
    }

    #[test]
    fn printing_a_presented_key_does_not_show_its_secret() {
        let printed = format!("{:?}", sample());
        assert!(printed.contains("ak_0202"), "{printed}");
        assert!(!printed.contains("255") && !printed.contains("ff"), "{printed}");
    }
}
