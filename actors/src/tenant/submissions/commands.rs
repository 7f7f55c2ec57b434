//! Making, changing, handing in and removing submissions.

use serde_bytes::ByteBuf;
use serde_json::value::RawValue;
use storage::id::{FormId, SubmissionId};
use storage::txn::Scan;

use super::comments::all_on;
use super::{
    CreateSubmissionBody, Place, Row, SubmissionHead, SubmissionRow, SubmissionStatus,
    UpdateSubmissionBody,
};
use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::limits;
use crate::permit::{CreateSubmissions, Role, UpdateSubmissions};
use crate::quota::Quota;
use crate::tenant::acl::{Caller, FormAction, decide, require};
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::forms::{self, FormHead, Made, check_version, schema, strict};

/// Judges `data` once: as JSON, and unless it is a draft against the form's schema.
fn judge(
    cx: &mut Cx<'_, '_>,
    at_form: FormId,
    head: &FormHead,
    data: &RawValue,
    status: SubmissionStatus,
) -> Result<(), TenantError> {
    let value = strict::parse("/data", data, limits::SUBMISSION_BYTES_MAX, limits::DATA_DEPTH_MAX)?;
    if status == SubmissionStatus::Draft {
        return Ok(());
    }
    let compiled = schema::of_form(cx, at_form, head)?;
    schema::check(&compiled.validator, &compiled.plan, &value)
}

/// Refuses whoever may not change this submission: its author may, and whoever edits the form's
/// submissions; customers only their own.
fn check_may_edit<J>(caller: &Caller, form: &FormHead, row: &Row<J>) -> Result<(), TenantError> {
    decide(caller, &form.grants, FormAction::Read)?;
    row.check_visible(caller)?;
    if row.is_by(caller) {
        return Ok(());
    }
    decide(caller, &form.grants, FormAction::EditSubmissions)
}

/// Submits to a form, or begins a draft. Takes one of the plan's submissions.
#[derive(Debug)]
pub struct CreateSubmission {
    /// To which form.
    pub form: FormId,
    /// What was filled in.
    pub body: CreateSubmissionBody,
}

impl Command for CreateSubmission {
    type Action = CreateSubmissions;
    type Reply = Made<SubmissionId>;
    const NAME: &'static str = "submission.create";

    fn target(&self) -> Named {
        Named::new("form", self.form)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Made<SubmissionId>, TenantError> {
        let author = cx.author()?;
        let form = self.form;
        let head = forms::head(cx, form)?;
        require(cx, &head.grants, FormAction::Submit)?;
        head.check_active()?;
        let status =
            if self.body.draft { SubmissionStatus::Draft } else { SubmissionStatus::Submitted };
        judge(cx, form, &head, &self.body.data, status)?;
        cx.charge(Quota::Submissions, 1)?;
        let id = cx.new_id();
        let at = Place { form, id };
        let now_ms = cx.now_ms();
        let mut row = Row {
            status,
            created_by: author,
            created_ms: now_ms,
            updated_ms: now_ms,
            version: 1,
            decided: None,
            json: ByteBuf::new(),
            editors: Vec::new(),
            handed_in_version: u64::from(!self.body.draft),
        };
        row.render(at, &self.body.data);
        cx.put(&at.key(), &row)?;
        cx.put(&at.authored(author), &())?;
        let draft = Draft::success(Self::NAME, Named::new("submission", id));
        cx.audit_form(form, draft.with("draft", self.body.draft));
        Ok(Made { id, document: Document { version: row.version, json: row.json } })
    }
}

/// Changes what is filled in, until it is decided on.
#[derive(Debug)]
pub struct UpdateSubmission {
    /// Which submission.
    pub at: Place,
    /// What is filled in now.
    pub body: UpdateSubmissionBody,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for UpdateSubmission {
    type Action = UpdateSubmissions;
    type Reply = Document;
    const NAME: &'static str = "submission.update";

    fn target(&self) -> Named {
        Named::new("submission", self.at.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let head = forms::head(cx, self.at.form)?;
        let caller = Caller::among(cx, &head.grants)?;
        let mut row: SubmissionRow = cx.need(&self.at.key())?;
        check_may_edit(&caller, &head, &row)?;
        check_version(self.if_match, row.version)?;
        row.check_open()?;
        row.note_hand_of(&caller)?;
        judge(cx, self.at.form, &head, &self.body.data, row.status)?;
        row.store(cx, self.at, &self.body.data)?;
        let draft = Draft::success(Self::NAME, self.target()).with("version", row.version);
        cx.audit_form(self.at.form, draft);
        Ok(row.document())
    }
}

/// Hands a draft in. Again: does nothing more.
#[derive(Debug)]
pub struct SubmitSubmission {
    /// Which submission.
    pub at: Place,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for SubmitSubmission {
    type Action = UpdateSubmissions;
    type Reply = Document;
    const NAME: &'static str = "submission.submit";

    fn target(&self) -> Named {
        Named::new("submission", self.at.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let head = forms::head(cx, self.at.form)?;
        let caller = Caller::among(cx, &head.grants)?;
        let mut row: SubmissionRow = cx.need(&self.at.key())?;
        check_may_edit(&caller, &head, &row)?;
        check_version(self.if_match, row.version)?;
        row.check_open()?;
        if row.status == SubmissionStatus::Submitted {
            return Ok(row.document());
        }
        head.check_active()?;
        let data = row.data()?;
        judge(cx, self.at.form, &head, &data, SubmissionStatus::Submitted)?;
        row.note_hand_of(&caller)?;
        row.status = SubmissionStatus::Submitted;
        row.handed_in_version = row.version + 1;
        row.store(cx, self.at, &data)?;
        cx.audit_form(self.at.form, Draft::success(Self::NAME, self.target()));
        Ok(row.document())
    }
}

/// Removes a submission with its comments. Gives its place in the plan back.
#[derive(Debug)]
pub struct DeleteSubmission {
    /// Which submission.
    pub at: Place,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for DeleteSubmission {
    type Action = UpdateSubmissions;
    type Reply = ();
    const NAME: &'static str = "submission.delete";

    fn target(&self) -> Named {
        Named::new("submission", self.at.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let head = forms::head(cx, self.at.form)?;
        let caller = Caller::among(cx, &head.grants)?;
        let row: SubmissionHead = cx.need(&self.at.key())?;
        check_may_edit(&caller, &head, &row)?;
        let is_own_draft = row.is_by(&caller) && row.status == SubmissionStatus::Draft;
        if !is_own_draft {
            if !matches!(caller.role, Role::Owner | Role::Admin) {
                return Err(TenantError::Forbidden { action: "submissions:delete" });
            }
            decide(&caller, &head.grants, FormAction::EditSubmissions)?;
        }
        check_version(self.if_match, row.version)?;
        let scan = Scan { limit: limits::COMMENTS_MAX, ..Scan::all(all_on(self.at.id)) };
        for (key, _) in cx.rows(&scan)? {
            cx.delete(&key)?;
        }
        cx.delete(&self.at.authored(row.created_by))?;
        cx.delete(&self.at.key())?;
        cx.release(Quota::Submissions, 1);
        cx.audit_form(self.at.form, Draft::success(Self::NAME, self.target()));
        Ok(())
    }
}
