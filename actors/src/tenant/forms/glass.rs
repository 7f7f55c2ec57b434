//! Reading forms and what is in them, in the ordinary way or by breaking the glass.
//!
//! A tenant owner without a grant may read a restricted form only by saying why. The reason goes
//! into the audit log and the form's own trail, where the form's OWNERs see it, in the record that
//! is durable before the answer leaves.
//!
//! Refuses: to break glass for anybody else, and without need: who may read anyway leaves no entry.

use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::id::FormId;

use super::{head, line};
use crate::audit::entry::{Draft, Named};
use crate::limits;
use crate::permit::Action;
use crate::tenant::acl::{Caller, FormAction, decide};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;

/// What a read in a form gets to know about who asks: the access list has been consulted.
#[derive(Debug)]
pub struct Reader {
    caller: Caller,
}

impl Reader {
    /// Somebody whom the access list lets read.
    pub(crate) fn new(caller: Caller) -> Self {
        Self { caller }
    }
    /// Who reads.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// A look at one form or at something in it.
pub trait FormRead: Send + 'static {
    /// The capability it takes.
    type Action: Action;
    /// What it answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Which form.
    fn form(&self) -> FormId;
    /// Does it; the form exists and `reader` may read it.
    fn read<R: Reads>(self, cx: &mut R, reader: &Reader) -> Result<Self::Reply, TenantError>;
}

impl<Q: FormRead> Query for Q {
    type Action = Q::Action;
    type Reply = Q::Reply;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Q::Reply, TenantError> {
        let head = head(cx, self.form())?;
        let caller = Caller::among(cx, &head.grants)?;
        decide(&caller, &head.grants, FormAction::Read)?;
        self.read(cx, &Reader { caller })
    }
}

/// The same look, with a reason in case one is needed.
#[derive(Debug)]
pub struct BreakGlass<Q> {
    /// What to read.
    pub read: Q,
    /// Why, in the reader's words.
    pub reason: String,
}

impl<Q: FormRead> Command for BreakGlass<Q> {
    type Action = Q::Action;
    type Reply = Q::Reply;
    const NAME: &'static str = "form.break_glass";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("form", self.read.form())
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Q::Reply, TenantError> {
        let form = self.read.form();
        let head = head(cx, form)?;
        let caller = Caller::among(cx, &head.grants)?;
        match decide(&caller, &head.grants, FormAction::Read) {
            Ok(()) => {}
            Err(TenantError::ReasonNeeded) => {
                let pointer = "header/X-Break-Glass-Reason";
                let reason = line(pointer, &self.reason, limits::REASON_BYTES_MAX)?;
                let draft = Draft::success(Self::NAME, Named::new("form", form));
                cx.audit_form(form, draft.with("reason", reason));
            }
            Err(refused) => return Err(refused),
        }
        self.read.read(cx, &Reader { caller })
    }
}
