//! Approving and rejecting: one person hands in, another decides.
//!
//! Refuses: to decide twice, to decide on a draft, and to let anyone decide on a submission that they
//! made, changed or handed in, tenant owners and form OWNERs included (four eyes). Once a submission
//! was changed after it was handed in, a decision must name the version it is about, so that nobody
//! approves data they never saw.

use serde::Deserialize;

use super::comments::add;
use super::{Place, SubmissionRow, SubmissionStatus};
use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::permit::DecideSubmissions;
use crate::tenant::acl::{FormAction, require};
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::forms::{self, check_version};

/// The body that decides on a submission.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionBody {
    /// Why; kept as a comment on the submission.
    #[serde(default)]
    pub comment: Option<String>,
}

/// Approves a submission.
#[derive(Debug)]
pub struct ApproveSubmission {
    /// Which submission.
    pub at: Place,
    /// Why.
    pub body: DecisionBody,
    /// The version it must still have. Needed once the submission was changed after it was handed in.
    pub if_match: Option<u64>,
}

impl Command for ApproveSubmission {
    type Action = DecideSubmissions;
    type Reply = Document;
    const NAME: &'static str = "submission.approve";

    fn target(&self) -> Named {
        Named::new("submission", self.at.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let draft = Draft::success(Self::NAME, self.target());
        settle(cx, self.at, SubmissionStatus::Approved, self.body, self.if_match, draft)
    }
}

/// Rejects a submission.
#[derive(Debug)]
pub struct RejectSubmission {
    /// Which submission.
    pub at: Place,
    /// Why.
    pub body: DecisionBody,
    /// The version it must still have. Needed once the submission was changed after it was handed in.
    pub if_match: Option<u64>,
}

impl Command for RejectSubmission {
    type Action = DecideSubmissions;
    type Reply = Document;
    const NAME: &'static str = "submission.reject";

    fn target(&self) -> Named {
        Named::new("submission", self.at.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let draft = Draft::success(Self::NAME, self.target());
        settle(cx, self.at, SubmissionStatus::Rejected, self.body, self.if_match, draft)
    }
}

fn settle(
    cx: &mut Cx<'_, '_>,
    at: Place,
    verdict: SubmissionStatus,
    body: DecisionBody,
    if_match: Option<u64>,
    mut draft: Draft,
) -> Result<Document, TenantError> {
    let judge = cx.author()?;
    let head = forms::head(cx, at.form)?;
    let caller = require(cx, &head.grants, FormAction::Decide)?;
    let mut row: SubmissionRow = cx.need(&at.key())?;
    if row.has_hand_of(&caller) {
        return Err(TenantError::FourEyes);
    }
    check_version(if_match, row.version)?;
    row.check_open()?;
    if row.status == SubmissionStatus::Draft {
        return Err(TenantError::Conflict(Conflict::StillDraft));
    }
    row.check_named(if_match)?;
    row.status = verdict;
    row.decided = Some((judge, cx.now_ms()));
    let data = row.data()?;
    row.store(cx, at, &data)?;
    if let Some(text) = &body.comment {
        let comment = add(cx, at, text, "/comment")?;
        draft = draft.with("comment", comment.id.to_string());
    }
    cx.audit_form(at.form, draft);
    Ok(row.document())
}
