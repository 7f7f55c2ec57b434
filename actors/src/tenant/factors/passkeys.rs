//! Passkeys: key pairs of which an authenticator keeps the private half (WebAuthn).
//!
//! They rest in the row of a person's second factors, so that they go wherever that goes. A challenge
//! counts once and for five minutes. Those of enrolling and of second factors are kept in the row until they
//! are answered; those of signing in without a name are messages to ourselves, as nobody is known yet whose
//! row they could be in, and whoever answers one has it struck out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::UserId;

use crate::audit::entry::Draft;
use crate::env::rfc3339;
use crate::limits;
use crate::tenant::cx::{Cx, Reads};
use crate::tenant::people::UserRow;

mod ceremony;
pub mod own;
mod party;

#[cfg(test)]
pub(crate) mod device;
#[cfg(test)]
mod tests;

use ceremony::{Place, PublicKey, Use, Verification};
pub use party::{Assertion, NewCredential, RelyingParty};

/// Bytes of a challenge that is kept.
pub(crate) const CHALLENGE_BYTES: usize = 32;

/// What is wrong with an answer of a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It has another form, or a key of a kind that is not taken.
    Unreadable,
    /// It is of the other ceremony.
    Kind,
    /// It answers no challenge that waits.
    Challenge,
    /// It was made at another place, or in a frame.
    Origin,
    /// It is of another relying party.
    Party,
    /// The authenticator did not ask who holds it.
    NotVerified,
    /// Nobody, or somebody else, has that passkey.
    Unknown,
    /// The signature does not fit.
    Signature,
    /// The counter did not grow: there may be a copy of the authenticator.
    Counter,
}

impl Fault {
    /// Its name in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Kind => "type",
            Self::Challenge => "challenge",
            Self::Origin => "origin",
            Self::Party => "relying-party",
            Self::NotVerified => "user-verification",
            Self::Unknown => "unknown-passkey",
            Self::Signature => "signature",
            Self::Counter => "counter",
        }
    }
}

/// A passkey of one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passkey {
    id: ByteBuf,
    key: PublicKey,
    name: String,
    created_ms: u64,
    used_ms: Option<u64>,
    counter: u32,
    is_verified: bool,
    is_synced: bool,
    is_backed_up: bool,
    transports: Vec<String>,
    is_suspect: bool,
}

/// The passkeys of one person, and the challenges they have open.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passkeys {
    held: Vec<Passkey>,
    /// What the next new passkey has to answer.
    begun: Option<Open>,
    /// What a proof that it is oneself has to answer.
    asked: Option<Open>,
    /// Challenges of signing in without a name that were answered and are not too old yet.
    spent: Vec<Spent>,
    /// No such challenge made at this time or earlier counts, Unix milliseconds.
    spent_until_ms: u64,
}

/// A challenge that waits for its answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    challenge: ByteBuf,
    expires_ms: u64,
}

impl Open {
    fn new(challenge: &[u8], now_ms: u64) -> Self {
        let expires_ms = now_ms.saturating_add(limits::CHALLENGE_MS);
        Self { challenge: ByteBuf::from(challenge), expires_ms }
    }
    fn answered_at(open: Option<Self>, now_ms: u64) -> Option<ByteBuf> {
        open.filter(|open| open.expires_ms > now_ms).map(|open| open.challenge)
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    nonce: ByteBuf,
    issued_ms: u64,
}

/// A passkey, as its holder sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PasskeyView {
    /// The credential id.
    pub id: String,
    /// What its holder calls it.
    pub name: String,
    /// When it was enrolled, RFC 3339 UTC.
    pub created_at: String,
    /// When it was last used, RFC 3339 UTC.
    pub last_used_at: Option<String>,
    /// Whether it signs in by itself: the authenticator asks for a PIN, a finger or a face.
    pub verifies_user: bool,
    /// Whether it can be copied to further devices of its holder, as password managers do.
    pub synced: bool,
    /// Whether its counter once went back: there may be a copy of the authenticator. Remove it.
    pub possible_clone: bool,
}

impl Passkey {
    fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.id)
    }

    fn view(&self) -> PasskeyView {
        PasskeyView {
            id: self.id(),
            name: self.name.clone(),
            created_at: rfc3339(self.created_ms),
            last_used_at: self.used_ms.map(rfc3339),
            verifies_user: self.is_verified,
            synced: self.is_synced,
            possible_clone: self.is_suspect,
        }
    }
}

impl Passkeys {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What a proof that it is oneself has to answer. It is answered once, well or not.
    pub fn take_asked(&mut self, now_ms: u64) -> Option<ByteBuf> {
        Open::answered_at(self.asked.take(), now_ms)
    }

    /// Strikes out a challenge of signing in without a name; whether it counted until now.
    pub fn spend(&mut self, nonce: &[u8], issued_ms: u64, now_ms: u64) -> bool {
        self.spent.retain(|spent| spent.issued_ms.saturating_add(limits::CHALLENGE_MS) > now_ms);
        let is_spent = self.spent.iter().any(|spent| spent.nonce == nonce);
        if is_spent || issued_ms <= self.spent_until_ms {
            return false;
        }
        self.spent.push(Spent { nonce: ByteBuf::from(nonce), issued_ms });
        if self.spent.len() > limits::CHALLENGES_SPENT_MAX {
            // Rather one that nobody answered is refused than one that was answered counts again.
            self.spent.sort_by_key(|spent| spent.issued_ms);
            self.spent_until_ms = self.spent.remove(0).issued_ms;
        }
        true
    }
}

/// A use of a passkey, and where.
#[derive(Debug, Clone)]
pub struct Presented {
    /// What the browser answered.
    pub assertion: Assertion,
    /// Whom passkeys are made for here.
    pub party: RelyingParty,
}

/// A challenge and options for whoever has to answer it.
pub(crate) fn ask_for_one(
    cx: &impl Reads,
    party: &RelyingParty,
    challenge: &[u8],
    passkeys: &Passkeys,
) -> serde_json::Value {
    let (slug, name) = names(cx);
    let place = Place { party, slug: slug.as_deref(), name: &name };
    place.request_options(challenge, &passkeys.held, Verification::Preferred)
}

/// Options for whoever signs in without a name.
pub(crate) fn ask_for_any(
    cx: &impl Reads,
    party: &RelyingParty,
    challenge: &[u8],
) -> serde_json::Value {
    let (slug, name) = names(cx);
    let place = Place { party, slug: slug.as_deref(), name: &name };
    place.request_options(challenge, &[], Verification::Required)
}

/// The tenant's short name and the one people know it by.
fn names(cx: &impl Reads) -> (Option<String>, String) {
    match cx.state().profile.as_ref() {
        Some(profile) => (Some(profile.slug.clone()), profile.name.clone()),
        None => (None, "Bulkhead".to_owned()),
    }
}

/// Uses one of somebody's passkeys, if the answer is good, as a second factor.
pub(crate) fn use_second(
    cx: &mut Cx<'_, '_>,
    user: &UserRow,
    passkeys: &mut Passkeys,
    challenge: Option<&[u8]>,
    presented: Presented,
) -> Result<(), Fault> {
    verify(cx, Some(user), passkeys, challenge, presented, Verification::Preferred)
}

/// The same, in the place of a password and a second factor. Without a person it is refused, after the same
/// work.
pub(crate) fn use_alone(
    cx: &mut Cx<'_, '_>,
    user: Option<&UserRow>,
    passkeys: &mut Passkeys,
    challenge: &[u8],
    presented: Presented,
) -> Result<(), Fault> {
    verify(cx, user, passkeys, Some(challenge), presented, Verification::Required)
}

/// Verifies a use, and notes what it showed in the row, which is the caller's to store either way.
fn verify(
    cx: &mut Cx<'_, '_>,
    user: Option<&UserRow>,
    passkeys: &mut Passkeys,
    challenge: Option<&[u8]>,
    presented: Presented,
    verification: Verification,
) -> Result<(), Fault> {
    let Presented { assertion, party } = presented;
    let challenge = challenge.ok_or(Fault::Challenge)?;
    let handle = assertion.response.user_handle.is_some().then(|| assertion.user());
    let is_theirs = |user: UserId| handle.is_none_or(|handle| handle == Some(user));
    let is_one = user.is_some_and(|user| is_theirs(user.id));
    let now_ms = cx.now_ms();
    let (slug, name) = names(cx);
    let place = Place { party: &party, slug: slug.as_deref(), name: &name };
    let known = passkeys.held.iter_mut().find(|known| is_one && known.id == assertion.id.0);
    let outcome = place.used(challenge, assertion, known.as_deref(), verification);
    let (Some(passkey), Some(user)) = (known, user) else {
        return Err(outcome.err().unwrap_or(Fault::Unknown));
    };
    match outcome {
        Ok(Use { counter, is_verified, is_backed_up }) => {
            passkey.counter = counter;
            passkey.is_verified |= is_verified;
            passkey.is_backed_up = is_backed_up;
            passkey.used_ms = Some(now_ms);
            Ok(())
        }
        Err(Fault::Counter) => {
            passkey.is_suspect = true;
            let draft = Draft::failed("passkey.possible_clone", user.named());
            cx.audit(draft.with("passkey", passkey.id()));
            Err(Fault::Counter)
        }
        Err(fault) => Err(fault),
    }
}
