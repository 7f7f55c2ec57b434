//! Rate policies: which budget each class of request has, per whom.
//!
//! Reads `"20/1m"` and `"off"`, and says what would be right when a text is neither. Counts nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a request is, as far as rate limits care.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Proving who one is.
    SignIn,
    /// Making a tenant.
    SignUp,
    /// Getting a lost account back, and refreshing tokens.
    Recover,
    /// Everything a signed-in caller does.
    Api,
    /// Routes that need no credential.
    Public,
    /// Deliveries of webhooks.
    Hooks,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::SignIn, Self::SignUp, Self::Recover, Self::Api, Self::Public, Self::Hooks];

    /// Its name in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::SignUp => "sign_up",
            Self::Recover => "recover",
            Self::Api => "api",
            Self::Public => "public",
            Self::Hooks => "hooks",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose budget a request is taken from.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub enum Scope {
    /// The client's address.
    #[serde(rename = "per_ip")]
    Ip,
    /// The account somebody tries to enter, whoever they are.
    #[serde(rename = "per_account")]
    Account,
    /// The tenant.
    #[serde(rename = "per_tenant")]
    Tenant,
    /// The access token's session.
    #[serde(rename = "per_token")]
    Token,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Ip, Self::Account, Self::Tenant, Self::Token];

    /// Its name in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "per_ip",
            Self::Account => "per_account",
            Self::Tenant => "per_tenant",
            Self::Token => "per_token",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The policy's name in `RateLimit` fields, made of class and scope: `api-tenant`.
pub(super) const fn policy_name(class: Class, scope: Scope) -> &'static str {
    const NAMES: [[&str; Scope::ALL.len()]; Class::ALL.len()] = [
        ["sign-in-ip", "sign-in-account", "sign-in-tenant", "sign-in-token"],
        ["sign-up-ip", "sign-up-account", "sign-up-tenant", "sign-up-token"],
        ["recover-ip", "recover-account", "recover-tenant", "recover-token"],
        ["api-ip", "api-account", "api-tenant", "api-token"],
        ["public-ip", "public-account", "public-tenant", "public-token"],
        ["hooks-ip", "hooks-account", "hooks-tenant", "hooks-token"],
    ];
    NAMES[class as usize][scope as usize]
}

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Neither `off` nor two parts with a slash between.
    #[error("{text:?} is not a rate: write requests/window as in \"20/1m\", or \"off\"")]
    Shape {
        /// What was read.
        text: String,
    },
    /// The part before the slash.
    #[error(
        "{text:?} does not begin with a whole number from 1 to {REQUESTS_MAX}, as in \"20/1m\""
    )]
    Requests {
        /// What was read.
        text: String,
    },
    /// The part behind the slash.
    #[error(
        "{text:?} has no window of 1s to 366d behind the slash: a whole number and one of s, m, h, d, \
         as in \"20/1m\""
    )]
    Window {
        /// What was read.
        text: String,
    },
}

/// The largest budget. More than this per window is `off` in all but name, and keeps a request's
/// share of the window at a nanosecond or more.
pub const REQUESTS_MAX: u32 = 1_000_000_000;
/// The longest window, in seconds: 366 days.
pub const WINDOW_S_MAX: u32 = 366 * 86_400;

/// So many requests per window, or no limit.
///
/// A fresh key may spend the whole budget at once; it then comes back evenly over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// No limit.
    Off,
    /// A limit.
    Limit {
        /// Requests per window.
        requests: NonZeroU32,
        /// The window, in seconds.
        window_s: NonZeroU32,
    },
}

impl Rate {
    /// Reads `"20/1m"` (units `s`, `m`, `h`, `d`) or `"off"`.
    ///
    /// # Errors
    /// [`RateError`] says which part is wrong and what is right.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let owned = || text.to_owned();
        let (requests, window) =
            text.split_once('/').ok_or_else(|| RateError::Shape { text: owned() })?;
        let requests = number(requests)
            .filter(|requests| requests.get() <= REQUESTS_MAX)
            .ok_or_else(|| RateError::Requests { text: owned() })?;
        let window_s = window_seconds(window).ok_or_else(|| RateError::Window { text: owned() })?;
        Ok(Self::Limit { requests, window_s })
    }
}

/// A positive number in plain digits: no sign, no spaces.
fn number(text: &str) -> Option<NonZeroU32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn window_seconds(text: &str) -> Option<NonZeroU32> {
    let unit_s = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        _ => return None,
    };
    let count = number(&text[..text.len() - 1])?.get();
    count.checked_mul(unit_s).filter(|&seconds| seconds <= WINDOW_S_MAX).and_then(NonZeroU32::new)
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Limit { requests, window_s } = self else {
            return f.write_str("off");
        };
        let (count, unit) = match window_s.get() {
            s if s % 86_400 == 0 => (s / 86_400, 'd'),
            s if s % 3_600 == 0 => (s / 3_600, 'h'),
            s if s % 60 == 0 => (s / 60, 'm'),
            s => (s, 's'),
        };
        write!(f, "{requests}/{count}{unit}")
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// The policy table, as configuration writes it: class, scope, rate. What is absent is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policies(pub BTreeMap<Class, BTreeMap<Scope, Rate>>);

impl Policies {
    /// The rate of `scope` in `class`.
    pub fn rate(&self, class: Class, scope: Scope) -> Rate {
        self.0.get(&class).and_then(|scopes| scopes.get(&scope)).copied().unwrap_or(Rate::Off)
    }

    /// The table with `rate` for `scope` in `class`.
    pub fn with(mut self, class: Class, scope: Scope, rate: Rate) -> Self {
        self.0.entry(class).or_default().insert(scope, rate);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_reads_back_as_it_was_written() {
        for text in ["20/1m", "1/1s", "10/1h", "5/7d", "90/90s", "off"] {
            assert_eq!(Rate::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_wrong_rate_is_refused_with_what_would_be_right() {
        for text in [
            "",
            "20",
            "0/1m",
            "-1/1m",
            "+1/1m",
            " 20/1m",
            "20/m",
            "20/0s",
            "20/1w",
            "20/1",
            "20/367d",
            "20/1m/1",
            "99999999999/1s",
            "2000000000/1s",
            "20/1µ",
            "OFF",
        ] {
            let error = Rate::parse(text).expect_err(text).to_string();
            assert!(error.contains("20/1m"), "{error}");
        }
    }

    #[test]
    fn the_table_reads_its_configuration_and_refuses_unknown_names() {
        let read = serde_json::from_str::<Policies>;
        let table = read(r#"{"sign_in":{"per_ip":"20/1m","per_account":"off"}}"#).expect("a table");
        assert_eq!(table.rate(Class::SignIn, Scope::Ip).to_string(), "20/1m");
        assert_eq!(table.rate(Class::SignIn, Scope::Account), Rate::Off);
        assert_eq!(table.rate(Class::Api, Scope::Tenant), Rate::Off);
        let error = read(r#"{"sign-in":{}}"#).expect_err("a wrong class").to_string();
        assert!(error.contains("sign_in"), "{error}");
        let error = read(r#"{"api":{"tenant":"off"}}"#).expect_err("a wrong scope").to_string();
        assert!(error.contains("per_tenant"), "{error}");
    }

    #[test]
    fn every_policy_has_a_name_of_its_own_that_agrees_with_its_parts() {
        for class in Class::ALL {
            for scope in Scope::ALL {
                let parts = format!("{}-{}", class.name(), &scope.name()["per_".len()..]);
                assert_eq!(policy_name(class, scope), parts.replace('_', "-"));
            }
        }
    }
}
