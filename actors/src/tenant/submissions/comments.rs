//! Comments on submissions, by people who work on them; the author reads them too.
//!
//! Refuses: to change or remove a comment. It goes when its submission goes.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{CommentId, FormId, Id, SubmissionId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use super::{Place, SubmissionHead};
use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{CommentSubmissions, ReadSubmissions};
use crate::tenant::acl::{FormAction, require};
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::forms::glass::{FormRead, Reader};
use crate::tenant::forms::lists::{End, Pager, Step, open_id_cursor, walk};
use crate::tenant::forms::{self, Made, paragraph, to_json};

/// Every comment on a submission.
pub(super) fn all_on(submission: SubmissionId) -> Prefix {
    Prefix::owner(&Key::Comment { submission, id: CommentId::from_bytes([0; 16]) })
}

/// The body that comments on a submission.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommentBody {
    /// What one has to say.
    pub text: String,
}

/// A comment as it is answered.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct CommentView {
    /// Which comment.
    #[schemars(with = "String")]
    pub id: CommentId,
    /// On which submission.
    #[schemars(with = "String")]
    pub submission: SubmissionId,
    /// What was said.
    pub text: String,
    /// Who said it.
    #[schemars(with = "String")]
    pub created_by: UserId,
    /// When, RFC 3339 UTC.
    pub created_at: String,
}

/// A comment's row: the JSON it is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommentRow {
    pub(crate) json: ByteBuf,
}

/// Writes a comment; whoever calls it has checked that the asker may.
pub(super) fn add(
    cx: &mut Cx<'_, '_>,
    at: Place,
    text: &str,
    pointer: &str,
) -> Result<Made<CommentId>, TenantError> {
    let author = cx.author()?;
    let text = paragraph(pointer, text, limits::TEXT_BYTES_MAX)?;
    let scan = Scan { limit: limits::COMMENTS_MAX, ..Scan::all(all_on(at.id)) };
    let there = cx.rows(&scan)?.len();
    if there >= limits::COMMENTS_MAX {
        let message = format!("a submission has at most {} comments", limits::COMMENTS_MAX);
        return Err(TenantError::invalid(pointer, message));
    }
    let id = cx.new_id();
    let json = to_json(&CommentView {
        id,
        submission: at.id,
        text,
        created_by: author,
        created_at: rfc3339(cx.now_ms()),
    });
    cx.put(&Key::Comment { submission: at.id, id }, &CommentRow { json: json.clone() })?;
    Ok(Made { id, document: Document { version: 1, json } })
}

/// Comments on a submission.
#[derive(Debug)]
pub struct CommentSubmission {
    /// Which submission.
    pub at: Place,
    /// What one has to say.
    pub body: CommentBody,
}

impl Command for CommentSubmission {
    type Action = CommentSubmissions;
    type Reply = Made<CommentId>;
    const NAME: &'static str = "submission.comment";

    fn target(&self) -> Named {
        Named::new("submission", self.at.id)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Made<CommentId>, TenantError> {
        let head = forms::head(cx, self.at.form)?;
        require(cx, &head.grants, FormAction::Comment)?;
        if cx.bytes(&self.at.key())?.is_none() {
            return Err(TenantError::NotFound);
        }
        let made = add(cx, self.at, &self.body.text, "/text")?;
        let draft = Draft::success(Self::NAME, self.target());
        cx.audit_form(self.at.form, draft.with("comment", made.id.to_string()));
        Ok(made)
    }
}

/// Lists a submission's comments, oldest first.
#[derive(Debug)]
pub struct ListComments {
    /// Which submission.
    pub at: Place,
    /// Which part.
    pub paging: Paging,
}

impl FormRead for ListComments {
    type Action = ReadSubmissions;
    type Reply = Page;

    fn form(&self) -> FormId {
        self.at.form
    }

    fn read<R: Reads>(self, cx: &mut R, reader: &Reader) -> Result<Page, TenantError> {
        let submission = self.at.id;
        cx.need::<SubmissionHead>(&self.at.key())?.check_visible(reader.caller())?;
        let after = open_id_cursor(self.paging.cursor.as_deref())?
            .map(|id| Key::Comment { submission, id });
        let mut pager = Pager::new(&self.paging);
        let limit = pager.rows_wanted();
        let scan = Scan { after, limit, ..Scan::all(all_on(submission)) };
        let end = walk(cx, scan, |key, bytes| {
            let Key::Comment { id, .. } = *key else { return Ok(Step::Next) };
            pager.offer(id, || Ok(value::decode::<CommentRow>(bytes)?.json))
        })?;
        Ok(pager.close(match end {
            End::Bound(Key::Comment { id, .. }) => Some(id),
            _ => None,
        }))
    }
}
