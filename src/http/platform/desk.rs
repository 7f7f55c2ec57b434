//! The desk of a platform administrator: proof that they still may, and the record of what they did.
//!
//! It does nothing itself to any tenant.

use std::marker::PhantomData;

use actix_web::HttpRequest;
use actors::audit::entry::Draft;
use actors::call::{Answered, Idempotency, Origin};
use actors::permit::{Action, Grant, Permit};
use actors::tenant::error::TenantError;
use actors::tenant::handle::TenantHandle;
use actors::tenant::platform::{PlatformAnswer, RecallPlatformAction, RecordPlatformAction};
use storage::id::TenantId;

use crate::http::allowed::Allowed;
use crate::http::app::App;
use crate::http::problem::Problem;
use crate::http::request::{context, idempotency};

/// One act of a platform administrator: who, from where, and the door to the platform's chain.
pub(super) struct Desk<A> {
    grant: Grant,
    /// Where the request came from.
    pub(super) origin: Origin,
    idempotency: Option<Idempotency>,
    platform: TenantHandle,
    action: PhantomData<fn() -> A>,
}

/// Whether the act is still to be done.
pub(super) enum Opened<A> {
    ToDo(Desk<A>),
    Done(PlatformAnswer),
}

impl<A: Action> Desk<A> {
    /// Proves that the administrator's session is still good, before anything is done, and finds
    /// out whether the same request was answered before.
    pub(super) async fn open(
        request: &HttpRequest,
        app: &App,
        allowed: Allowed<A>,
    ) -> Result<Opened<A>, Problem> {
        let context = context(request).ok_or_else(Problem::not_found)?;
        let grant = context.grant.get().cloned().ok_or_else(Problem::not_found)?;
        let idempotency = match context.route.idempotent {
            true => idempotency(request, &allowed.user().user.to_string())?,
            false => None,
        };
        let platform = app.tenants.find(TenantId::PLATFORM).await?;
        let action = PhantomData;
        let desk = Self { grant, origin: allowed.origin(), idempotency, platform, action };
        let recall = RecallPlatformAction::<A>::default();
        let (origin, key) = (desk.origin.clone(), desk.idempotency.clone());
        match desk.platform.command(desk.permit()?, origin, key, recall).await {
            Ok(answered) => Ok(Opened::Done(answered.reply)),
            Err(TenantError::NotFound) => Ok(Opened::ToDo(desk)),
            Err(error) => Err(error.into()),
        }
    }

    /// A permit for one message. Only a grant of the platform's compartment gives one.
    fn permit(&self) -> Result<Permit<A>, Problem> {
        self.grant.permit(TenantId::PLATFORM).map_err(|_| Problem::not_found())
    }

    /// Writes down what was done, and keeps the answer for its idempotency key.
    pub(super) async fn done(
        &self,
        draft: Draft,
        answer: PlatformAnswer,
    ) -> Result<Answered<PlatformAnswer>, Problem> {
        let record = RecordPlatformAction::<A>::new(draft, answer);
        let (origin, key) = (self.origin.clone(), self.idempotency.clone());
        Ok(self.platform.command(self.permit()?, origin, key, record).await?)
    }

    /// Writes down what was tried and why it failed, and gives the failure back.
    pub(super) async fn failed(&self, draft: Draft, error: TenantError) -> Problem {
        let problem = Problem::from(error);
        let draft = draft.with("reason", problem.kind().code);
        let record = RecordPlatformAction::<A>::new(draft, PlatformAnswer::default());
        let permit = match self.permit() {
            Ok(permit) => permit,
            Err(problem) => return problem,
        };
        match self.platform.command(permit, self.origin.clone(), None, record).await {
            Ok(_) => problem,
            // Not on record, so not answered as if it were.
            Err(error) => error.into(),
        }
    }
}
