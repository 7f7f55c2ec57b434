//! Passwords: hashed with Argon2id (RFC 9106), off the serving threads, a few at a time.
//!
//! Hashing is slow on purpose, so it is a way to bring a node down: fewer run at once than there
//! are cores, a bounded number waits, nobody has more than a [`Share`] of that, and the next is turned
//! away at once. They run on threads of the lowest priority there is. A new password is looked at
//! in its hash's turn, whether it is easy to guess. Comparing for somebody who does not exist does the same
//! work as for somebody who does. A password in clear lives in a [`Secret`], is never logged, stored or
//! shown, and is wiped when its last holder lets go.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use actors::env::Env;
use actors::supervisor::Tenants;
use actors::tenant::error::FieldError;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use storage::id::TenantId;
use zeroize::Zeroizing;

use crate::http::problem::{Kind, Problem};

mod argon;
mod queue;
mod strength;
mod workers;

use argon::Argon;
pub use queue::Share;
use queue::{Full, Queue, Turn};
use workers::Workers;

/// Fewest characters of a password.
pub const CHARACTERS_MIN: usize = 10;
/// Most characters of a password.
pub const CHARACTERS_MAX: usize = 128;
/// What a client that is turned away is told to wait, in seconds: at least this, and at most as long again
/// and one more, so that those who came together do not all come back together.
const RETRY_AFTER_S: u32 = 2;

/// A text that must not be seen: shown as dots, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes a text over.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }
    /// The text itself, for whoever has to work with it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Secret")
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "password", "writeOnly": true })
    }
}

/// Why no password was hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many of the same share are waiting.
    #[error("too many passwords of one share are waiting to be hashed")]
    Busy {
        /// In how many seconds to come back.
        retry_after_s: u32,
    },
    /// Too many are waiting.
    #[error("too many passwords are waiting to be hashed")]
    Overloaded {
        /// In how many seconds to come back.
        retry_after_s: u32,
    },
    /// The password is too easy to guess.
    #[error("the password {}", .0.message)]
    Weak(FieldError),
    /// The hash function failed, which it does only without memory.
    #[error("the password could not be hashed: {0}")]
    Hash(#[from] argon2::password_hash::Error),
    /// No thread could be made.
    #[error("no thread could be made to hash a password: {0}")]
    Thread(#[from] std::io::Error),
    /// The work panicked.
    #[error("hashing a password panicked")]
    Panicked(#[from] tokio::sync::oneshot::error::RecvError),
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy { retry_after_s } => {
                Self::new(Kind::TENANT_BUSY).retry_after(retry_after_s)
            }
            PasswordError::Overloaded { retry_after_s } => {
                Self::new(Kind::OVERLOADED).retry_after(retry_after_s)
            }
            PasswordError::Weak(error) => Self::new(Kind::INVALID).errors(vec![error]),
            PasswordError::Hash(_) | PasswordError::Thread(_) | PasswordError::Panicked(_) => {
                Self::internal(error)
            }
        }
    }
}

/// Hashes and compares passwords. Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    argon: Argon,
    queue: Queue,
    workers: Workers,
    /// Compared with when there is nobody: costs the same, matches nothing.
    nobody: String,
    env: Env,
}

impl Passwords {
    /// On a machine of that many `cores`. One is left to those who serve, if there is another.
    pub fn new(env: &Env, cores: usize) -> Self {
        let at_once = cores.saturating_sub(1).max(1);
        Self(Arc::new(Inner {
            argon: Argon::default(),
            queue: Queue::new(at_once),
            workers: Workers::start(at_once),
            nobody: argon::nobody(&env.random(), &env.random()),
            env: env.clone(),
        }))
    }

    /// The PHC string of a password that somebody chose, under a new salt, for `share`. One that is easy
    /// to guess gets none. What [`check_new`] says is quicker to find out, and asked before.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, share: Share, choice: Choice<'_>) -> Result<String, PasswordError> {
        let Choice { pointer, password, email, names } = choice;
        let (inner, password) = (self.0.clone(), password.clone());
        let known = strength::known_words(email, names);
        let salt = self.0.env.random::<16>();
        let turn = self.turn(share).await?;
        let work = move || {
            if let Some(message) = strength::advice(password.text(), &known) {
                return Err(PasswordError::Weak(FieldError {
                    pointer: pointer.to_owned(),
                    message,
                }));
            }
            inner.argon.hash(password.text(), &salt)
        };
        self.0.workers.run(turn, work).await?
    }

    /// Whether `password` is the one that `phc` was made from. Without a `phc` the answer is no, and
    /// takes as long. The work is done for `share`.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(
        &self,
        share: Share,
        password: &Secret,
        phc: Option<String>,
    ) -> Result<bool, PasswordError> {
        let turn = self.turn(share).await?;
        self.compare(turn, password, phc).await
    }

    /// Whether `password` is that of somebody who signs in to the tenant called `slug`, as [`Self::verify`] says
    /// it. `check` is asked once it is their turn, so who is told to come back has used nothing up.
    ///
    /// # Errors
    /// [`PasswordError`], and what `check` says.
    pub async fn verify_sign_in<E: From<PasswordError>>(
        &self,
        (slug, ip): (&str, Option<IpAddr>),
        check: impl FnOnce() -> Result<(), E>,
        password: &Secret,
        phc: Option<String>,
    ) -> Result<bool, E> {
        let turn = self.0.queue.turn_from(ip, Share::SignIn(slug.into())).await;
        let turn = turn.map_err(|full| self.refusal(full))?;
        check()?;
        Ok(self.compare(turn, password, phc).await?)
    }

    async fn compare(
        &self,
        turn: Turn,
        password: &Secret,
        phc: Option<String>,
    ) -> Result<bool, PasswordError> {
        let (inner, password) = (self.0.clone(), password.clone());
        let work = move || {
            let is_somebody = phc.is_some();
            let phc = phc.as_deref().unwrap_or(&inner.nobody);
            Ok(inner.argon.matches(password.text(), phc)? && is_somebody)
        };
        self.0.workers.run(turn, work).await?
    }

    fn refusal(&self, full: Full) -> PasswordError {
        let [more] = self.0.env.random::<1>();
        let retry_after_s = RETRY_AFTER_S + u32::from(more) % (RETRY_AFTER_S + 2);
        match full {
            Full::Share => PasswordError::Busy { retry_after_s },
            Full::Queue => PasswordError::Overloaded { retry_after_s },
        }
    }

    async fn turn(&self, share: Share) -> Result<Turn, PasswordError> {
        self.0.queue.turn(share).await.map_err(|full| self.refusal(full))
    }
}

/// A password that somebody chose, and whose it would be.
pub struct Choice<'a> {
    /// Where it stands in the request.
    pub pointer: &'static str,
    /// The password.
    pub password: &'a Secret,
    /// The address of the account.
    pub email: &'a str,
    /// What the tenant is called.
    pub names: &'a [String],
}

/// What a tenant is called: what its people's passwords must not be made of.
pub fn names_of(tenants: &Tenants, tenant: TenantId) -> Vec<String> {
    let summary = tenants.summary(tenant);
    summary
        .map(|summary| vec![summary.slug.to_string(), summary.name.to_string()])
        .unwrap_or_default()
}

/// Whether `password` can be the password of the account with that `email`.
///
/// # Errors
/// What is wrong, at `pointer`.
pub fn check_new(pointer: &str, password: &Secret, email: &str) -> Result<(), FieldError> {
    let wrong = |message: String| Err(FieldError { pointer: pointer.to_owned(), message });
    let text = password.text();
    let characters = text.chars().count();
    if !(CHARACTERS_MIN..=CHARACTERS_MAX).contains(&characters) {
        return wrong(format!("must have {CHARACTERS_MIN} to {CHARACTERS_MAX} characters"));
    }
    let email = email.trim();
    let local = email.split('@').next().unwrap_or_default();
    if text.eq_ignore_ascii_case(email) || text.eq_ignore_ascii_case(local) {
        return wrong("must not be the e-mail address or its name".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn chosen(password: &Secret) -> Choice<'_> {
        Choice { pointer: "/password", password, email: "ann@example.org", names: &[] }
    }

    fn passwords() -> Passwords {
        Passwords::new(&Env::real(), 1)
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_and_no_other() {
        let passwords = passwords();
        let phc = passwords.hash(Share::Operator, chosen(&secret("correct horse"))).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_ne!(
            phc,
            passwords.hash(Share::Operator, chosen(&secret("correct horse"))).await.unwrap(),
            "no salt"
        );
        assert!(
            passwords
                .verify(Share::Operator, &secret("correct horse"), Some(phc.clone()))
                .await
                .unwrap()
        );
        assert!(
            !passwords.verify(Share::Operator, &secret("correct horsf"), Some(phc)).await.unwrap()
        );
    }

    #[tokio::test]
    async fn nobody_has_no_password_but_costs_the_same_parameters() {
        let passwords = passwords();
        assert!(
            !passwords.verify(Share::Operator, &secret("anything at all"), None).await.unwrap()
        );
        let nobody = PasswordHash::new(&passwords.0.nobody).unwrap();
        let somebody =
            passwords.hash(Share::Operator, chosen(&secret("anything at all"))).await.unwrap();
        let somebody = PasswordHash::new(&somebody).unwrap();
        assert_eq!(nobody.params, somebody.params);
        assert_eq!(nobody.hash.unwrap().len(), somebody.hash.unwrap().len());
    }

    #[tokio::test]
    async fn of_many_of_one_share_some_are_told_to_come_back_and_the_others_are_served() {
        let passwords = passwords();
        let password = secret("anything at all");
        let asked = (0..24).map(|_| passwords.hash(Share::Operator, chosen(&password)));
        let (served, refused): (Vec<_>, Vec<_>) =
            futures_util::future::join_all(asked).await.into_iter().partition(Result::is_ok);
        assert!(!served.is_empty() && !refused.is_empty());
        for error in refused.into_iter().filter_map(Result::err) {
            assert_eq!(Problem::from(error).kind(), Kind::TENANT_BUSY);
        }
        assert!(passwords.hash(Share::Operator, chosen(&password)).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_easy_to_guess_is_not_hashed_and_says_where_it_stood() {
        let passwords = passwords();
        let weak = secret("ann12345678");
        let refused = passwords.hash(Share::Operator, chosen(&weak)).await;
        let Err(PasswordError::Weak(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.pointer, "/password");
        assert!(!error.message.contains("ann12345678"), "{}", error.message);
    }

    #[test]
    fn short_long_and_guessable_passwords_are_refused() {
        let email = "annabel.lee@example.org";
        for text in ["ninechars", "Annabel.Lee", "annabel.lee@EXAMPLE.org", &"x".repeat(129)] {
            assert!(check_new("/password", &secret(text), email).is_err(), "{text}");
        }
        for text in ["tenletters", "ünïcödé pässwörd", &"x".repeat(128)] {
            assert_eq!(check_new("/password", &secret(text), email), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", secret("correct horse")), "…");
    }
}
