//! What a tenant is, as far as the model goes. It knows nothing of how the program does it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: &'static str,
    pub path: String,
    pub body: Option<Value>,
    pub if_match: Option<u64>,
    pub key: Option<String>,
    /// By whom, if not by the owner.
    pub by_deputy: bool,
}

impl Asked {
    /// A body that differs, of the same kind.
    pub fn other_body(&self) -> Value {
        let mut body = self.body.clone().unwrap_or_else(|| json!({}));
        for name in ["title", "text", "email"] {
            if let Some(text) = body[name].as_str() {
                body[name] = json!(format!("x{text}"));
                return body;
            }
        }
        body["data"]["name"] = json!("another");
        body
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    pub title: String,
    pub version: u64,
    pub is_archived: bool,
    pub submissions: BTreeMap<String, Submission>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    pub name: String,
    pub version: u64,
    pub status: &'static str,
    /// In order of their texts: what comes within a millisecond has no other order.
    pub comments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub email: String,
    pub role: String,
    pub version: u64,
}

/// A tenant.
#[derive(Debug, Default)]
pub struct Book {
    pub forms: BTreeMap<String, Form>,
    /// Without the founder and the deputy.
    pub members: BTreeMap<String, Member>,
    /// Submissions that were: form and id.
    pub gone: Vec<(String, String)>,
    /// Requests with keys, and the bodies they were answered with.
    pub answered: Vec<(Asked, Vec<u8>)>,
    /// How many changes there were of each kind.
    pub audit: BTreeMap<&'static str, u64>,
}

impl Book {
    /// Counts a change.
    pub fn count(&mut self, action: &'static str) {
        *self.audit.entry(action).or_default() += 1;
    }

    pub fn form(&mut self, id: &str) -> &mut Form {
        self.forms.get_mut(id).expect("a form of the model")
    }

    pub fn submission(&mut self, form: &str, id: &str) -> &mut Submission {
        self.form(form).submissions.get_mut(id).expect("a submission of the model")
    }
}
