//! Forms: what a tenant asks of people, as a JSON Schema with an access list.
//!
//! A form is one row: its head, which every decision reads, and the JSON it is answered with, which
//! reads hand on untouched. The access list is part of the row, so a form and the rule of who may
//! see it can never disagree.
//!
//! Refuses: to decide anything about access itself (`acl.rs` does), and to delete a form. Archiving
//! ends it: submissions stay readable, new ones are refused, and its place in the plan is free.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::value::RawValue;
use storage::id::{FormId, UserId};
use storage::keys::Key;

use crate::call::Document;
use crate::env::rfc3339;
use crate::tenant::acl::FormGrant;
use crate::tenant::cx::Reads;
use crate::tenant::error::{Conflict, TenantError};

pub mod commands;
pub mod glass;
pub mod grants;
pub mod lists;
mod patterns;
pub mod queries;
pub(crate) mod schema;
pub(crate) mod steps;
pub(crate) mod strict;
mod weigh;

#[cfg(test)]
pub(crate) mod tests;

/// Whether a form takes submissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FormStatus {
    /// It does.
    Active,
    /// No more; what was submitted stays.
    Archived,
}

/// How submissions of a form are decided on.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Whether a submission waits for somebody to approve or reject it. If not, it counts as it is
    /// handed in; deciding on it stays possible.
    pub required: bool,
}

/// The body that makes a form.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFormBody {
    /// What people see.
    pub title: String,
    /// JSON Schema 2020-12 that submissions must fit. Nothing it refers to is fetched.
    #[schemars(with = "serde_json::Value")]
    pub schema: Box<RawValue>,
    /// How submissions are decided on; not at all if absent.
    #[serde(default)]
    pub approval: Option<Approval>,
}

/// The body that changes a form: only what it names.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateFormBody {
    /// What people see.
    #[serde(default)]
    pub title: Option<String>,
    /// JSON Schema 2020-12 for submissions from now on; older ones are not checked again.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub schema: Option<Box<RawValue>>,
    /// How submissions are decided on.
    #[serde(default)]
    pub approval: Option<Approval>,
}

/// A form as it is answered.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct FormView {
    /// Everything but the schema.
    #[serde(flatten)]
    pub summary: FormSummary,
    /// JSON Schema 2020-12 for submissions.
    #[schemars(with = "serde_json::Value")]
    pub schema: Box<RawValue>,
}

/// A form in a list: everything but its schema.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct FormSummary {
    /// Which form.
    #[schemars(with = "String")]
    pub id: FormId,
    /// What people see.
    pub title: String,
    /// Counts changes; the `ETag` without its quotes.
    pub version: u64,
    /// Whether it takes submissions.
    pub status: FormStatus,
    /// How submissions are decided on.
    pub approval: Approval,
    /// Whether it has an access list.
    pub restricted: bool,
    /// Who made it.
    #[schemars(with = "String")]
    pub created_by: UserId,
    /// When it was made, RFC 3339 UTC.
    pub created_at: String,
    /// When it last changed, RFC 3339 UTC.
    pub updated_at: String,
}

/// Something that was just made: its id, and what it is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made<I> {
    /// Its id.
    pub id: I,
    /// Its first version.
    pub document: Document,
}

/// A form's row. `J` is the JSON it is answered with; decisions read the row without it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row<J> {
    /// What people see.
    pub title: String,
    /// Whether it takes submissions.
    pub status: FormStatus,
    /// Whether submissions wait for a decision.
    pub approval_required: bool,
    /// The access list; empty: the form is open.
    pub grants: Vec<FormGrant>,
    /// Who made it.
    pub created_by: UserId,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it last changed, Unix milliseconds.
    pub updated_ms: u64,
    /// Counts changes; becomes the `ETag`.
    pub version: u64,
    /// Random, new with each schema: names the schema in caches, which outlive a transaction that
    /// was taken back as a version number would not.
    pub schema_revision: u64,
    /// What the form is answered with.
    pub json: J,
}

/// The whole row.
pub type FormRow = Row<ByteBuf>;
/// The row without its JSON.
pub type FormHead = Row<IgnoredAny>;

impl<J> Row<J> {
    /// Refuses an archived form.
    pub(crate) fn check_active(&self) -> Result<(), TenantError> {
        match self.status {
            FormStatus::Active => Ok(()),
            FormStatus::Archived => Err(TenantError::Conflict(Conflict::FormArchived)),
        }
    }

    fn summary(&self, id: FormId) -> FormSummary {
        FormSummary {
            id,
            title: self.title.clone(),
            version: self.version,
            status: self.status,
            approval: Approval { required: self.approval_required },
            restricted: !self.grants.is_empty(),
            created_by: self.created_by,
            created_at: rfc3339(self.created_ms),
            updated_at: rfc3339(self.updated_ms),
        }
    }
}

impl FormRow {
    /// What the form is answered with.
    pub(crate) fn document(&self) -> Document {
        Document { version: self.version, json: self.json.clone() }
    }

    /// Writes the JSON anew, from the head and `schema`.
    fn render(&mut self, id: FormId, schema: Box<RawValue>) {
        self.json = to_json(&FormView { summary: self.summary(id), schema });
    }

    /// The schema as it was received.
    fn schema(&self) -> Result<Box<RawValue>, TenantError> {
        #[derive(Deserialize)]
        struct Stored {
            schema: Box<RawValue>,
        }
        let stored: Stored = serde_json::from_slice(&self.json)
            .map_err(|error| TenantError::invalid("/schema", error.to_string()))?;
        Ok(stored.schema)
    }

    /// Counts a change and writes the JSON anew with the schema it has.
    fn touch(&mut self, id: FormId, now_ms: u64) -> Result<(), TenantError> {
        self.version += 1;
        self.updated_ms = now_ms;
        let schema = self.schema()?;
        self.render(id, schema);
        Ok(())
    }
}

/// The head of a form's row.
///
/// # Errors
/// `NotFound` if there is no such form.
pub(crate) fn head<R: Reads>(cx: &R, form: FormId) -> Result<FormHead, TenantError> {
    cx.need(&Key::Form { id: form })
}

/// JSON of a view, as it is stored and answered.
pub(crate) fn to_json<T: Serialize>(view: &T) -> ByteBuf {
    ByteBuf::from(serde_json::to_vec(view).expect("views hold only what JSON can carry"))
}

/// Compares `If-Match` with the current version.
pub(crate) fn check_version(wanted: Option<u64>, current: u64) -> Result<(), TenantError> {
    match wanted {
        Some(wanted) if wanted != current => Err(TenantError::VersionMismatch),
        _ => Ok(()),
    }
}

/// Takes one line of text: trimmed, not empty, bounded, and without control characters.
pub(crate) fn line(pointer: &str, text: &str, bytes_max: usize) -> Result<String, TenantError> {
    if text.chars().any(char::is_control) {
        return Err(TenantError::invalid(pointer, "must not contain control characters"));
    }
    paragraph(pointer, text, bytes_max)
}

/// Takes a text that may have several lines: trimmed, not empty, bounded.
pub(crate) fn paragraph(
    pointer: &str,
    text: &str,
    bytes_max: usize,
) -> Result<String, TenantError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(TenantError::invalid(pointer, "must not be empty"));
    }
    if text.len() > bytes_max {
        let message = format!("must have at most {bytes_max} bytes");
        return Err(TenantError::invalid(pointer, message));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(TenantError::invalid(pointer, "must not contain control characters"));
    }
    Ok(text.to_owned())
}
