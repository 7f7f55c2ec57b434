//! Submissions: what people filled in, and what became of it.
//!
//! A submission goes from draft to submitted to approved or rejected. Its data is kept as the text
//! that came in, after one look at it, and the row holds the very JSON that reads answer. Beside
//! each row stands a pointer from its author, so that people who may see only their own records are
//! served from those alone: no page or cursor of theirs depends on anybody else's.
//!
//! Refuses: to let anyone decide on a submission that they made, changed or handed in, whatever their
//! role, and to change a submission once it is decided on.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::value::RawValue;
use storage::id::{FormId, SubmissionId, UserId};
use storage::keys::Key;

use crate::call::Document;
use crate::env::rfc3339;
use crate::limits;
use crate::tenant::acl::Caller;
use crate::tenant::cx::{Cx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::forms::to_json;

pub mod commands;
pub mod comments;
pub mod decisions;
pub mod queries;

#[cfg(test)]
mod tests;

/// Where a submission is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SubmissionStatus {
    /// Begun, not handed in.
    Draft,
    /// Handed in.
    Submitted,
    /// Somebody else said yes.
    Approved,
    /// Somebody else said no.
    Rejected,
}

/// The body that makes a submission.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSubmissionBody {
    /// What was filled in; must fit the form's schema unless it is a draft.
    #[schemars(with = "serde_json::Value")]
    pub data: Box<RawValue>,
    /// Keep it as a draft, to be submitted later.
    #[serde(default)]
    pub draft: bool,
}

/// The body that changes a submission.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSubmissionBody {
    /// What is filled in now.
    #[schemars(with = "serde_json::Value")]
    pub data: Box<RawValue>,
}

/// A submission as it is answered.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct SubmissionView<'a> {
    /// Which submission.
    #[schemars(with = "String")]
    pub id: SubmissionId,
    /// To which form.
    #[schemars(with = "String")]
    pub form: FormId,
    /// What was filled in.
    #[schemars(with = "serde_json::Value")]
    pub data: &'a RawValue,
    /// Where it is on its way.
    pub status: SubmissionStatus,
    /// Counts changes; the `ETag` without its quotes.
    pub version: u64,
    /// Who made it.
    #[schemars(with = "String")]
    pub created_by: UserId,
    /// When it was made, RFC 3339 UTC.
    pub created_at: String,
    /// When it last changed, RFC 3339 UTC.
    pub updated_at: String,
    /// Who approved or rejected it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub decided_by: Option<UserId>,
    /// When it was approved or rejected, RFC 3339 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<String>,
}

/// A submission's row. `J` is the JSON it is answered with; decisions read the row without it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row<J> {
    /// Where it is on its way.
    pub status: SubmissionStatus,
    /// Who made it.
    pub created_by: UserId,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it last changed, Unix milliseconds.
    pub updated_ms: u64,
    /// Counts changes; becomes the `ETag`.
    pub version: u64,
    /// Who decided, and when, Unix milliseconds.
    pub decided: Option<(UserId, u64)>,
    /// What the submission is answered with.
    pub json: J,
    /// Who changed it or handed it in, besides its author. None of them decides on it.
    #[serde(default)]
    pub editors: Vec<UserId>,
    /// The version that was handed in; 0 while it is a draft.
    #[serde(default)]
    pub handed_in_version: u64,
}

/// The whole row.
pub type SubmissionRow = Row<ByteBuf>;
/// The row without its JSON.
pub type SubmissionHead = Row<IgnoredAny>;

impl<J> Row<J> {
    /// Hides other people's submissions from customers.
    fn check_visible(&self, caller: &Caller) -> Result<(), TenantError> {
        if caller.is_customer() && !self.is_by(caller) {
            return Err(TenantError::NotFound);
        }
        Ok(())
    }

    /// Whether the caller is the author.
    fn is_by(&self, caller: &Caller) -> bool {
        caller.user == Some(self.created_by)
    }

    /// Whether the caller made the submission, changed it or handed it in.
    fn has_hand_of(&self, caller: &Caller) -> bool {
        self.is_by(caller) || caller.user.is_some_and(|user| self.editors.contains(&user))
    }

    /// Remembers that the caller changed the submission or handed it in.
    fn note_hand_of(&mut self, caller: &Caller) -> Result<(), TenantError> {
        let Some(user) = caller.user else { return Ok(()) };
        if self.has_hand_of(caller) {
            return Ok(());
        }
        // To forget one would let them decide on what they wrote.
        if self.editors.len() >= limits::EDITORS_MAX {
            let message = format!(
                "was changed by {} people besides its author; no further one may",
                limits::EDITORS_MAX
            );
            return Err(TenantError::invalid("/data", message));
        }
        self.editors.push(user);
        Ok(())
    }

    /// Refuses a decision that does not say which version it is about, once there were several to
    /// look at since the submission was handed in.
    fn check_named(&self, if_match: Option<u64>) -> Result<(), TenantError> {
        // A first version is what was handed in, whenever the row was written.
        let is_as_handed_in = self.version == self.handed_in_version.max(1);
        if if_match.is_none() && !is_as_handed_in {
            return Err(TenantError::VersionNeeded);
        }
        Ok(())
    }

    /// Refuses what was decided on.
    fn check_open(&self) -> Result<(), TenantError> {
        match self.status {
            SubmissionStatus::Draft | SubmissionStatus::Submitted => Ok(()),
            SubmissionStatus::Approved | SubmissionStatus::Rejected => {
                Err(TenantError::Conflict(Conflict::AlreadyDecided))
            }
        }
    }
}

impl SubmissionRow {
    fn document(&self) -> Document {
        Document { version: self.version, json: self.json.clone() }
    }

    /// Writes the JSON anew, from the head and `data`.
    fn render(&mut self, at: Place, data: &RawValue) {
        self.json = to_json(&SubmissionView {
            id: at.id,
            form: at.form,
            data,
            status: self.status,
            version: self.version,
            created_by: self.created_by,
            created_at: rfc3339(self.created_ms),
            updated_at: rfc3339(self.updated_ms),
            decided_by: self.decided.map(|(user, _)| user),
            decided_at: self.decided.map(|(_, at_ms)| rfc3339(at_ms)),
        });
    }

    /// What was filled in, as it was received.
    fn data(&self) -> Result<Box<RawValue>, TenantError> {
        #[derive(Deserialize)]
        struct Stored {
            data: Box<RawValue>,
        }
        let stored: Stored = serde_json::from_slice(&self.json)
            .map_err(|error| TenantError::invalid("/data", error.to_string()))?;
        Ok(stored.data)
    }

    /// Counts a change, writes the JSON anew with `data`, and stores the row.
    fn store(
        &mut self,
        cx: &mut Cx<'_, '_>,
        at: Place,
        data: &RawValue,
    ) -> Result<(), TenantError> {
        self.version += 1;
        self.updated_ms = cx.now_ms();
        self.render(at, data);
        cx.put(&at.key(), self)
    }
}

/// Where a submission is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// To which form.
    pub form: FormId,
    /// Which submission.
    pub id: SubmissionId,
}

impl Place {
    fn key(self) -> Key {
        Key::Submission { form: self.form, id: self.id }
    }
    fn authored(self, user: UserId) -> Key {
        Key::Authored { user, form: self.form, id: self.id }
    }
}
