//! Sign-in from elsewhere: the parties that a tenant lets vouch for people, and whose identity is whose.
//!
//! A party vouches for a *subject* of an *issuer*. Which person that is, a link says and nothing else: an
//! e-mail address takes over nobody's account. [`providers`] says who may vouch and for whom, [`flow`]
//! remembers sign-ins that are under way, [`sign_in`] ends them, [`links`] is what people do with their own.
//!
//! What a party said is verified by whoever asks, off the actor's thread. Refuses: to call anybody.

pub mod flow;
pub mod links;
pub mod providers;
pub mod sign_in;

use serde::{Deserialize, Serialize};
use storage::id::{Id, IdentityId, IdentityProviderId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::limits;
use crate::tenant::cx::{Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::scim::person::ProvisionedRow;

const SUBJECT_LABEL: &str = "identity";

/// Whom a party vouches for, as its signed word says. Made by who verified it.
#[derive(Clone, PartialEq, Eq)]
pub struct Vouched {
    /// The issuer, as it is configured.
    pub issuer: String,
    /// What the issuer calls the person, for ever.
    pub subject: String,
    /// Their address, as the issuer says.
    pub email: Option<String>,
    /// Whether the issuer says that it saw that the address is theirs.
    pub email_verified: bool,
    /// The organisation they belong to, where the issuer is Google.
    pub hosted_domain: Option<String>,
}

impl std::fmt::Debug for Vouched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vouched").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// A person's identity.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdentityRow {
    id: IdentityId,
    user: UserId,
    provider: IdentityProviderId,
    issuer: String,
    subject: String,
    /// The address the issuer named when it was linked; it proves nothing.
    email: Option<String>,
    created_ms: u64,
    used_ms: u64,
}

/// What is known of a subject.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Subject {
    /// It is that person's.
    Of(UserId, IdentityId),
    /// Its person was removed: it does not come back by itself.
    Removed,
}

impl IdentityRow {
    fn key(&self) -> Key {
        Key::Identity { user: self.user, id: self.id }
    }

    fn subject_key(&self, cx: &impl Reads) -> Key {
        subject_key(cx, self.provider, &self.issuer, &self.subject)
    }
}

/// Where it stands whose a subject is. The provider is part of it: what one party says of an issuer, another
/// that names the same issuer cannot say.
fn subject_key(cx: &impl Reads, provider: IdentityProviderId, issuer: &str, subject: &str) -> Key {
    let length = (issuer.len() as u64).to_be_bytes();
    let bytes =
        [&provider.as_bytes()[..], &length[..], issuer.as_bytes(), subject.as_bytes()].concat();
    Key::IdentityBySubject { digest: cx.digest(SUBJECT_LABEL, &bytes) }
}

/// All identities of a person, oldest first.
fn identities_of(cx: &impl Reads, user: UserId) -> Result<Vec<IdentityRow>, TenantError> {
    let first = Key::Identity { user, id: IdentityId::from_bytes([0; 16]) };
    let limit = limits::IDENTITIES_MAX;
    let scan = Scan { prefix: Prefix::owner(&first), after: None, reverse: false, limit };
    cx.rows(&scan)?.iter().map(|(_, bytes)| Ok(value::decode(bytes)?)).collect()
}

/// Removes all identities of a person who goes. If somebody else removed them, their subjects are remembered:
/// a party that still vouches for them does not bring them back.
pub(crate) fn forget_identities(
    cx: &mut Cx<'_, '_>,
    user: UserId,
    is_removed: bool,
) -> Result<(), TenantError> {
    for row in identities_of(cx, user)? {
        let subject = row.subject_key(cx);
        cx.delete(&row.key())?;
        if is_removed {
            cx.put(&subject, &Subject::Removed)?;
        } else {
            cx.delete(&subject)?;
        }
    }
    Ok(())
}

/// Makes a subject somebody's, whoever's it was.
fn link(
    cx: &mut Cx<'_, '_>,
    user: UserId,
    provider: IdentityProviderId,
    vouched: &Vouched,
) -> Result<IdentityRow, TenantError> {
    let row = IdentityRow {
        id: cx.new_id(),
        user,
        provider,
        issuer: vouched.issuer.clone(),
        subject: vouched.subject.clone(),
        email: vouched.email.clone(),
        created_ms: cx.now_ms(),
        used_ms: cx.now_ms(),
    };
    cx.put(&row.key(), &row)?;
    let subject = row.subject_key(cx);
    cx.put(&subject, &Subject::Of(user, row.id))?;
    // They came: from now on a link says who they are, and never again the address, also when it is gone.
    let key = Key::Provisioned { user };
    let announced: Option<ProvisionedRow> = cx.row(&key)?;
    if let Some(announced) = announced.filter(|announced| announced.awaited) {
        cx.put(&key, &ProvisionedRow { awaited: false, ..announced })?;
    }
    Ok(row)
}

#[cfg(test)]
mod tests;
