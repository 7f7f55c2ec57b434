//! SCIM 2.0 (RFC 7643, RFC 7644): a directory elsewhere keeps a tenant's people and teams.
//!
//! A SCIM user is a person of the tenant, `userName` their address; a SCIM group is a team. What a request
//! says becomes the same rows that other commands write, under the same rules: addresses are unique, the
//! plan's quota holds, teams have people of this tenant. What SCIM knows of a person besides is a row of
//! its own ([`person`]).
//!
//! A person who is switched off (`active: false`) loses their sessions at once, and their API keys stop
//! until they are switched on again. They keep their place in the plan: removing them frees it.
//!
//! Refuses: to change an owner in any way; to give a role that the asker may not give; to find what is
//! not in the tenant.

use serde_json::{Map, Value};

pub mod filter;
pub mod groups;
pub mod lists;
pub mod patch;
pub mod person;
pub mod schema;
pub mod shape;
pub mod user_changes;
pub mod users;

/// A resource's attributes, by their names as the schema spells them.
pub type Attributes = Map<String, Value>;

/// Why a request is not one that SCIM allows: the kinds of RFC 7644 §3.12.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The filter does not parse, or names what cannot be compared.
    #[error("{0}")]
    InvalidFilter(String),
    /// Answering would take looking at more than is looked at for one request.
    #[error("{0}")]
    TooMany(String),
    /// The body is not of the form that the request takes.
    #[error("{0}")]
    InvalidSyntax(String),
    /// A path of a change leads nowhere.
    #[error("{0}")]
    InvalidPath(String),
    /// A path of a change selects nothing that could be changed.
    #[error("{0}")]
    NoTarget(String),
    /// What was to be changed cannot be.
    #[error("{0}")]
    Mutability(String),
    /// A value is missing, of the wrong kind, too long or not allowed.
    #[error("{0}")]
    InvalidValue(String),
}

impl Fault {
    /// The `scimType` of the error.
    pub fn scim_type(&self) -> &'static str {
        match self {
            Self::InvalidFilter(_) => "invalidFilter",
            Self::TooMany(_) => "tooMany",
            Self::InvalidSyntax(_) => "invalidSyntax",
            Self::InvalidPath(_) => "invalidPath",
            Self::NoTarget(_) => "noTarget",
            Self::Mutability(_) => "mutability",
            Self::InvalidValue(_) => "invalidValue",
        }
    }
}

/// The member of an object by that name, whose case does not matter (RFC 7643 §2.1).
pub(crate) fn member<'a>(object: &'a Attributes, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

#[cfg(test)]
mod tests;
