//! Making, changing and archiving forms.

use serde_bytes::ByteBuf;
use storage::id::FormId;
use storage::keys::Key;

use super::{
    CreateFormBody, FormRow, FormStatus, Made, Row, UpdateFormBody, check_version, line, schema,
};
use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::limits;
use crate::permit::{CreateForms, ManageForms, UpdateForms};
use crate::quota::Quota;
use crate::tenant::acl::{FormAction, require, require_charge};
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;

/// Makes a form. Takes one of the plan's forms.
#[derive(Debug)]
pub struct CreateForm {
    /// What it is to be.
    pub body: CreateFormBody,
}

impl Command for CreateForm {
    type Action = CreateForms;
    type Reply = Made<FormId>;
    const NAME: &'static str = "form.create";

    fn target(&self) -> Named {
        Named::new("form", "new")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Made<FormId>, TenantError> {
        let author = cx.author()?;
        let title = line("/title", &self.body.title, limits::TITLE_BYTES_MAX)?;
        // Compiled to judge it; kept only when a submission needs it, as most forms sleep.
        schema::take(&self.body.schema)?;
        cx.charge(Quota::Forms, 1)?;
        let id = cx.new_id();
        let now_ms = cx.now_ms();
        let mut row = Row {
            title,
            status: FormStatus::Active,
            approval_required: self.body.approval.unwrap_or_default().required,
            grants: Vec::new(),
            created_by: author,
            created_ms: now_ms,
            updated_ms: now_ms,
            version: 1,
            schema_revision: u64::from_be_bytes(cx.random()),
            json: ByteBuf::new(),
        };
        row.render(id, self.body.schema);
        cx.put(&Key::Form { id }, &row)?;
        cx.audit_form(id, Draft::success(Self::NAME, Named::new("form", id)));
        Ok(Made { id, document: row.document() })
    }
}

/// Changes a form's title, schema or approval.
#[derive(Debug)]
pub struct UpdateForm {
    /// Which form.
    pub form: FormId,
    /// What is to change.
    pub body: UpdateFormBody,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for UpdateForm {
    type Action = UpdateForms;
    type Reply = Document;
    const NAME: &'static str = "form.update";

    fn target(&self) -> Named {
        Named::new("form", self.form)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let id = self.form;
        let mut row: FormRow = cx.need(&Key::Form { id })?;
        require(cx, &row.grants, FormAction::Edit)?;
        check_version(self.if_match, row.version)?;
        row.check_active()?;
        let mut changed = Vec::new();
        if let Some(title) = &self.body.title {
            row.title = line("/title", title, limits::TITLE_BYTES_MAX)?;
            changed.push("title");
        }
        if let Some(approval) = self.body.approval {
            row.approval_required = approval.required;
            changed.push("approval");
        }
        row.version += 1;
        row.updated_ms = cx.now_ms();
        let schema = match self.body.schema {
            Some(schema) => {
                schema::take(&schema)?;
                row.schema_revision = u64::from_be_bytes(cx.random());
                changed.push("schema");
                schema
            }
            None => row.schema()?,
        };
        row.render(id, schema);
        cx.put(&Key::Form { id }, &row)?;
        let draft = Draft::success(Self::NAME, Named::new("form", id))
            .with("changed", changed.join(" "))
            .with("version", row.version);
        cx.audit_form(id, draft);
        Ok(row.document())
    }
}

/// Archives a form. Gives its place in the plan back. Again: does nothing more.
#[derive(Debug)]
pub struct ArchiveForm {
    /// Which form.
    pub form: FormId,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for ArchiveForm {
    type Action = ManageForms;
    type Reply = Document;
    const NAME: &'static str = "form.archive";

    fn target(&self) -> Named {
        Named::new("form", self.form)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let id = self.form;
        let mut row: FormRow = cx.need(&Key::Form { id })?;
        require_charge(cx, &row.grants, row.created_by, FormAction::Archive)?;
        check_version(self.if_match, row.version)?;
        if row.status == FormStatus::Archived {
            return Ok(row.document());
        }
        row.status = FormStatus::Archived;
        row.touch(id, cx.now_ms())?;
        cx.release(Quota::Forms, 1);
        cx.put(&Key::Form { id }, &row)?;
        cx.audit_form(id, Draft::success(Self::NAME, Named::new("form", id)));
        Ok(row.document())
    }
}
