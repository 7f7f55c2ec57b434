//! The text of an API key, and of a support session's token: a prefix (`bk_`, `bks_`) and base64url of tenant,
//! id and 32 random bytes.
//!
//! It names its tenant and its row, so that it is found without a search and without an index that would
//! have to hold something of the secret. The random bytes alone prove it. As they are 256 bits, a fast
//! digest is as good as a slow one: there is nothing to try out. The digest is made under the tenant's
//! own key, so that it means nothing without it, and binds the id.
//!
//! Refuses: any other spelling of the same bytes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use storage::id::{ApiKeyId, Id, SupportId, TenantId};
use storage::keys::Digest;
use zeroize::Zeroizing;

use crate::tenant::cx::Reads;

const SECRET_BYTES: usize = 32;
const BYTES: usize = 16 + 16 + SECRET_BYTES;

/// What a text is the credential of.
pub trait Credential: Clone + PartialEq + Eq {
    /// Names the row that has its digest.
    type Id: Id;
    /// What every such text begins with.
    const PREFIX: &'static str;
    /// What its digest is made for: no text of one kind has the digest of another.
    const LABEL: &'static str;
}

/// An API key.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey;

impl Credential for ApiKey {
    type Id = ApiKeyId;
    const PREFIX: &'static str = "bk_";
    const LABEL: &'static str = "api-key";
}

/// A support session.
#[derive(Clone, PartialEq, Eq)]
pub struct Support;

impl Credential for Support {
    type Id = SupportId;
    const PREFIX: &'static str = "bks_";
    const LABEL: &'static str = "support-session";
}

/// A credential as it was presented, taken apart but not believed: only the tenant can check it.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented<C: Credential> {
    /// The tenant it says it is of.
    pub tenant: TenantId,
    /// Which row it says it is of.
    pub id: C::Id,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// An API key as it was presented.
pub type PresentedKey = Presented<ApiKey>;
/// The token of a support session as it was presented.
pub type PresentedSupport = Presented<Support>;

impl<C: Credential> std::fmt::Debug for Presented<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("tenant", &self.tenant)
            .field("id", &self.id.to_string())
            .finish_non_exhaustive()
    }
}

impl<C: Credential> Presented<C> {
    pub(crate) fn new(tenant: TenantId, id: C::Id, secret: [u8; SECRET_BYTES]) -> Self {
        Self { tenant, id, secret: Zeroizing::new(secret) }
    }

    /// Whether a text is such a credential by its form.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(C::PREFIX)
    }

    /// Takes a text apart; `None` if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.strip_prefix(C::PREFIX)?).ok()?);
        let bytes: &[u8; BYTES] = bytes.as_slice().try_into().ok()?;
        let (tenant, rest) = bytes.split_first_chunk()?;
        let (id, secret) = rest.split_first_chunk()?;
        let secret = secret.try_into().ok()?;
        Some(Self::new(TenantId::from_bytes(*tenant), C::Id::from_bytes(*id), secret))
    }

    /// The text, for the one answer that shows it.
    pub(crate) fn text(&self) -> String {
        let parts = [&self.tenant.as_bytes()[..], self.id.as_bytes(), &self.secret[..]];
        let code = URL_SAFE_NO_PAD.encode(Zeroizing::new(parts.concat()));
        format!("{}{code}", C::PREFIX)
    }

    /// What the row keeps of it.
    pub(crate) fn digest<R: Reads>(&self, cx: &R) -> Digest {
        let parts = [&self.id.as_bytes()[..], &self.secret[..]];
        cx.digest(C::LABEL, &Zeroizing::new(parts.concat()))
    }

    /// Whether the row's digest is of this one. Takes the same time either way, and with no row at all.
    pub(crate) fn is_of<R: Reads>(&self, cx: &R, stored: Option<&[u8]>) -> bool {
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
    fn no_text_of_one_kind_is_one_of_the_other() {
        let text = sample().text();
        let other = text.replacen("bk_", "bks_", 1);
        assert!(PresentedSupport::parse(&text).is_none() && PresentedKey::parse(&other).is_none());
        assert!(!PresentedKey::is_one(&other) && !PresentedSupport::is_one(&text));
    }

    #[test]
    fn printing_a_presented_key_does_not_show_its_secret() {
        let printed = format!("{:?}", sample());
        assert!(printed.contains("ak_0202"), "{printed}");
        assert!(!printed.contains("255") && !printed.contains("ff"), "{printed}");
    }
}
