//! One audit entry, and how it is chained to the one before.
//!
//! An entry's hash is SHA-256 over a domain label and the RFC 8785 (JCS) form of the entry without
//! its hash; `prev` is the hash of the entry before. Numbers are integers, so the canonical form is
//! the same in every language.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use storage::record::Hash;

/// Something with a kind and an id: an actor's or a target's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Named {
    /// `user`, `form`, `system` …
    pub kind: String,
    /// The id within that kind.
    pub id: String,
    /// The person's e-mail address, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl Named {
    /// A name without an e-mail address.
    pub fn new(kind: &str, id: impl ToString) -> Self {
        Self { kind: kind.to_owned(), id: id.to_string(), email: None }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was not allowed; nothing changed.
    Refused,
    /// It was tried and failed, as a wrong password does.
    Failed,
}

/// A value of an entry's detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Detail {
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<bool> for Detail {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}
impl From<u64> for Detail {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// What a command says happened; the tenant adds who, when, from where, and the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// `resource.verb`, past or imperative by the action's name: `form.create`.
    pub action: &'static str,
    /// What it was done to.
    pub target: Named,
    /// How it ended.
    pub outcome: Outcome,
    /// Facts worth keeping; never secrets.
    pub detail: BTreeMap<String, Detail>,
}

impl Draft {
    /// Something was done.
    pub fn success(action: &'static str, target: Named) -> Self {
        Self { action, target, outcome: Outcome::Success, detail: BTreeMap::new() }
    }
    /// Something was tried and failed.
    pub fn failed(action: &'static str, target: Named) -> Self {
        Self { outcome: Outcome::Failed, ..Self::success(action, target) }
    }
    /// Something was not allowed.
    pub fn refused(action: &'static str, target: Named) -> Self {
        Self { outcome: Outcome::Refused, ..Self::success(action, target) }
    }
    /// Adds a fact.
    pub fn with(mut self, name: &str, value: impl Into<Detail>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

/// A chained entry, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Entry {
    /// 1 for a tenant's first entry, then without gaps.
    pub seq: u64,
    /// RFC 3339 UTC.
    pub at: String,
    /// Who did it.
    pub actor: Named,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub target: Named,
    /// The client's address.
    pub ip: Option<String>,
    /// The client's program.
    pub user_agent: Option<String>,
    /// Joins the entry with the answer and the log lines.
    pub request_id: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Facts.
    pub detail: BTreeMap<String, Detail>,
    /// Hash of the entry before, hexadecimal; zeros for the first.
    pub prev: String,
    /// Hash of this entry, hexadecimal.
    pub hash: String,
}

impl Entry {
    /// What the hash must be.
    pub fn compute_hash(&self) -> Hash {
        #[derive(Serialize)]
        struct Hashed<'a> {
            seq: u64,
            at: &'a str,
            actor: &'a Named,
            action: &'a str,
            target: &'a Named,
            ip: &'a Option<String>,
            user_agent: &'a Option<String>,
            request_id: &'a Option<String>,
            outcome: Outcome,
            detail: &'a BTreeMap<String, Detail>,
            prev: &'a str,
        }
        let canonical = serde_json_canonicalizer::to_vec(&Hashed {
            seq: self.seq,
            at: &self.at,
            actor: &self.actor,
            action: &self.action,
            target: &self.target,
            ip: &self.ip,
            user_agent: &self.user_agent,
            request_id: &self.request_id,
            outcome: self.outcome,
            detail: &self.detail,
            prev: &self.prev,
        })
        .expect("an entry holds only texts, integers and flags");
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(b"bulkhead.audit.1\n");
        context.update(&canonical);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}
