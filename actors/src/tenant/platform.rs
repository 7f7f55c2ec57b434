//! What platform administrators do, in the platform's own compartment: proof that they still may, and
//! the audit entry in their name.
//!
//! The acts themselves are the supervisor's; nothing here reaches another tenant.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::audit::entry::{Draft, Named};
use crate::permit::Action;
use crate::tenant::cx::{Command, Cx, Query, ReadCx};
use crate::tenant::error::TenantError;

/// Proves that the caller's session is still good, before an answer that no tenant gives.
pub struct CheckStanding<A> {
    action: PhantomData<fn() -> A>,
}

impl<A> Default for CheckStanding<A> {
    fn default() -> Self {
        Self { action: PhantomData }
    }
}

impl<A: Action> Query for CheckStanding<A> {
    type Action = A;
    type Reply = ();

    /// The session was checked before this runs, as for every message of a person.
    fn run(self, _: &mut ReadCx<'_>) -> Result<(), TenantError> {
        Ok(())
    }
}

/// Answers what an earlier [`RecordPlatformAction`] with the same idempotency key answered, and
/// proves that the caller's session is still good. It writes nothing: without such an answer it is
/// refused with [`TenantError::NotFound`].
pub struct RecallPlatformAction<A> {
    action: PhantomData<fn() -> A>,
}

impl<A> Default for RecallPlatformAction<A> {
    fn default() -> Self {
        Self { action: PhantomData }
    }
}

impl<A: Action> Command for RecallPlatformAction<A> {
    type Action = A;
    type Reply = PlatformAnswer;
    const NAME: &'static str = "platform.recall";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("platform", "-")
    }
    fn run(self, _: &mut Cx<'_, '_>) -> Result<PlatformAnswer, TenantError> {
        Err(TenantError::NotFound)
    }
}

/// What a platform administrator was answered; kept for idempotency keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlatformAnswer {
    /// Where the thing lives that was made, if one was.
    pub location: Option<String>,
    /// The JSON text.
    pub json: ByteBuf,
}

/// Writes what a platform administrator did to the platform's own chain, in their name.
pub struct RecordPlatformAction<A> {
    draft: Draft,
    answer: PlatformAnswer,
    action: PhantomData<fn() -> A>,
}

impl<A> RecordPlatformAction<A> {
    /// What happened, and what it is answered with.
    pub fn new(draft: Draft, answer: PlatformAnswer) -> Self {
        Self { draft, answer, action: PhantomData }
    }
}

impl<A: Action> Command for RecordPlatformAction<A> {
    type Action = A;
    type Reply = PlatformAnswer;
    const NAME: &'static str = "platform.act";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        self.draft.target.clone()
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<PlatformAnswer, TenantError> {
        cx.audit(self.draft);
        Ok(self.answer)
    }
}
