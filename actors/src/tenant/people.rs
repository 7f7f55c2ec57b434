//! The rows of people and their sessions, which every command's caller is checked against.
//!
//! An e-mail address has one normal form, made here and nowhere else: what is stored, looked up and
//! compared is always that form. Whether mail arrives at an address is not this file's business.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{SessionId, UserId};

use crate::audit::entry::Named;
use crate::call::Document;
use crate::env::rfc3339;
use crate::permit::Role;

/// A person's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    /// Who.
    pub id: UserId,
    /// The address they sign in with, in normal form.
    pub email: String,
    /// As what.
    pub role: Role,
    /// Argon2id in PHC string form (RFC 9106); absent until one is set.
    pub password: Option<String>,
    /// Authorisation version: grows when role, status or password change, so that older access
    /// tokens stop working.
    pub authz: u32,
    /// When the account was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it last changed, Unix milliseconds.
    pub updated_ms: u64,
    /// Counts changes; becomes the `ETag`.
    pub version: u64,
    /// Whether they have shown that the address is theirs.
    #[serde(default)]
    pub email_verified: bool,
    /// Whether they are shut out: no session, no key, no way in, until somebody takes it back. Never of
    /// an owner.
    #[serde(default)]
    pub deactivated: bool,
}

/// How somebody proved who they are, by the names of RFC 8176.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Proof {
    /// A password.
    #[serde(rename = "pwd")]
    Password,
    /// A code that is good once: of an authenticator, or a recovery code.
    #[serde(rename = "otp")]
    OneTimeCode,
    /// A key that an authenticator keeps: a passkey.
    #[serde(rename = "pop")]
    Key,
    /// More than one factor in one act: a passkey whose authenticator asked who holds it.
    #[serde(rename = "mfa")]
    ManyFactors,
    /// The word of an identity provider; RFC 8176 has no name for it.
    #[serde(rename = "federated")]
    Federated,
}

/// A session's row: one sign-in, and the family of refresh tokens that came from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Which session.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// Generation of the newest refresh token; an older one that comes back ends the family.
    pub generation: u32,
    /// When it began, Unix milliseconds.
    pub created_ms: u64,
    /// When it was last refreshed, Unix milliseconds.
    pub seen_ms: u64,
    /// When it ends unless refreshed, Unix milliseconds.
    pub expires_ms: u64,
    /// The address it was last used from.
    pub ip: Option<String>,
    /// The program it was last used with.
    pub user_agent: Option<String>,
    /// How its holder proved who they are; empty in rows of older releases, which knew passwords only.
    #[serde(default)]
    pub amr: Vec<Proof>,
    /// Which of its cookies is good: what proves more than the one before, or less, replaces it.
    #[serde(default)]
    pub cookie: u32,
}

impl SessionRow {
    /// How its holder proved who they are.
    pub fn proofs(&self) -> Vec<Proof> {
        if self.amr.is_empty() { vec![Proof::Password] } else { self.amr.clone() }
    }
}

/// A person, as others in the tenant see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MemberView {
    /// Who.
    #[schemars(with = "String")]
    pub id: UserId,
    /// The address they sign in with.
    pub email: String,
    /// As what.
    pub role: Role,
    /// When the account was made, RFC 3339 UTC.
    pub created_at: String,
    /// When it last changed, RFC 3339 UTC.
    pub updated_at: String,
    /// Counts changes; the same number as the `ETag`.
    pub version: u64,
    /// Whether they have shown that the address is theirs.
    pub email_verified: bool,
    /// Whether they can get in; false after provisioning switched them off.
    pub active: bool,
}

impl UserRow {
    /// What others see of it: never the password's hash.
    pub fn view(&self) -> MemberView {
        MemberView {
            id: self.id,
            email: self.email.clone(),
            role: self.role,
            created_at: rfc3339(self.created_ms),
            updated_at: rfc3339(self.updated_ms),
            version: self.version,
            email_verified: self.email_verified,
            active: !self.deactivated,
        }
    }
    /// [`view`](Self::view), as it is answered.
    pub fn document(&self) -> Document {
        Document { version: self.version, json: self.json() }
    }
    pub(crate) fn json(&self) -> ByteBuf {
        ByteBuf::from(
            serde_json::to_vec(&self.view()).expect("a view holds only texts and numbers"),
        )
    }
    /// Its name in the audit log.
    pub(crate) fn named(&self) -> Named {
        Named { email: Some(self.email.clone()), ..Named::new("user", self.id) }
    }
    /// Whether it counts as an owner that can sign in.
    pub(crate) fn is_working_owner(&self) -> bool {
        self.role == Role::Owner && self.password.is_some()
    }
}

/// Longest e-mail address, in bytes (RFC 5321 §4.5.3.1.3 without the angle brackets).
pub const EMAIL_BYTES_MAX: usize = 254;
/// Longest part before the `@`, in bytes (RFC 5321 §4.5.3.1.1).
pub const EMAIL_LOCAL_BYTES_MAX: usize = 64;

/// Why a text is not an e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// Longer than [`EMAIL_BYTES_MAX`], or its local part than [`EMAIL_LOCAL_BYTES_MAX`].
    #[error(
        "is longer than an e-mail address can be: {EMAIL_BYTES_MAX} bytes, {EMAIL_LOCAL_BYTES_MAX} before the @"
    )]
    TooLong,
    /// Letters outside ASCII, spaces or control characters.
    #[error(
        "must be printable ASCII without spaces; write an international domain in its xn-- form"
    )]
    ForeignCharacter,
    /// The part before the `@` is no run of atoms (RFC 5322, 3.2.3).
    #[error(
        "must have letters, digits, single dots and characters such as + - _ before the @, and no quotes"
    )]
    BadName,
    /// Not exactly one `@` with something on either side.
    #[error("must have the form name@domain")]
    NoSingleAt,
    /// The part after the `@` is not a host name.
    #[error("must end in a domain made of letters, digits, hyphens and single dots")]
    BadDomain,
}

/// What may stand before the `@` beside letters, digits and dots (RFC 5322, 3.2.3).
const ATOM_MARKS: &[u8] = b"!#$%&'*+-/=?^_`{|}~";
/// Longest label of a domain, in bytes (RFC 1035, 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// The normal form of an e-mail address: trimmed, ASCII only, in lower case. Two texts with the same
/// normal form are the same account.
///
/// What can be written in several ways is taken in one: no quotes and no comments in the name, no dot
/// behind the domain, an international domain only in its `xn--` form. So no two accounts have addresses
/// that look alike or lead to the same mailbox by their spelling alone.
///
/// # Errors
/// [`EmailError`] if it cannot be an address.
pub fn normalise_email(text: &str) -> Result<String, EmailError> {
    let text = text.trim();
    if text.len() > EMAIL_BYTES_MAX {
        return Err(EmailError::TooLong);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(EmailError::ForeignCharacter);
    }
    let (local, domain) = text.split_once('@').ok_or(EmailError::NoSingleAt)?;
    if local.is_empty() || domain.is_empty() || domain.contains('@') {
        return Err(EmailError::NoSingleAt);
    }
    if local.len() > EMAIL_LOCAL_BYTES_MAX {
        return Err(EmailError::TooLong);
    }
    let is_atom = |atom: &str| {
        let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || ATOM_MARKS.contains(&byte);
        !atom.is_empty() && atom.bytes().all(is_of_it)
    };
    if !local.split('.').all(is_atom) {
        return Err(EmailError::BadName);
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !domain.split('.').all(is_label) {
        return Err(EmailError::BadDomain);
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_outer_spaces_do_not_make_another_address() {
        assert_eq!(normalise_email(" Ann@Example.ORG\n").as_deref(), Ok("ann@example.org"));
        assert_eq!(
            normalise_email("\u{a0}ann@example.org\u{3000}").as_deref(),
            Ok("ann@example.org")
        );
        let whole = "o'hara+tag_{x}!#$%&*-/=?^`|~.y@xn--bcher-kva.example";
        assert_eq!(normalise_email(&whole.to_uppercase()).as_deref(), Ok(whole));
    }

    #[test]
    fn texts_that_are_not_addresses_are_refused() {
        for (text, why) in [
            ("", EmailError::NoSingleAt),
            ("ann", EmailError::NoSingleAt),
            ("@example.org", EmailError::NoSingleAt),
            ("ann@", EmailError::NoSingleAt),
            ("a@b@c", EmailError::NoSingleAt),
            ("änn@example.org", EmailError::ForeignCharacter),
            ("an n@example.org", EmailError::ForeignCharacter),
            ("ann\0@example.org", EmailError::ForeignCharacter),
            ("ann@exam\u{7f}ple.org", EmailError::ForeignCharacter),
            ("ann@example..org", EmailError::BadDomain),
            ("ann@-example.org", EmailError::BadDomain),
            ("ann@exa_mple.org", EmailError::BadDomain),
            ("ann@example.org.", EmailError::BadDomain),
            ("ann@[127.0.0.1]", EmailError::BadDomain),
            ("\"ann\"@example.org", EmailError::BadName),
            ("ann(comment)@example.org", EmailError::BadName),
            ("a\\nn@example.org", EmailError::BadName),
            (".ann@example.org", EmailError::BadName),
            ("ann.@example.org", EmailError::BadName),
            ("an..n@example.org", EmailError::BadName),
            ("ann,bob@example.org", EmailError::BadName),
            ("<ann@example.org", EmailError::BadName),
            ("\u{ff41}nn@example.org", EmailError::ForeignCharacter),
            ("ann\u{ff20}example.org", EmailError::ForeignCharacter),
            ("ann\u{200b}@example.org", EmailError::ForeignCharacter),
            ("ann@ex\u{ad}ample.org", EmailError::ForeignCharacter),
            ("ann@b\u{fc}cher.example", EmailError::ForeignCharacter),
            ("\u{202e}ann@example.org", EmailError::ForeignCharacter),
            ("\u{430}nn@example.org", EmailError::ForeignCharacter),
        ] {
            assert_eq!(normalise_email(text), Err(why), "{text:?}");
        }
        let label = "b".repeat(64);
        assert_eq!(normalise_email(&format!("a@{label}.c")), Err(EmailError::BadDomain));
        assert_eq!(normalise_email(&format!("{}@b.c", "a".repeat(65))), Err(EmailError::TooLong));
        assert_eq!(normalise_email(&format!("a@{}", "b".repeat(253))), Err(EmailError::TooLong));
    }
}
