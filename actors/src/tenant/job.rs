//! Messages to a tenant: a command or a query with its caller, its origin and the way back.
//!
//! There is one actor message, [`Job`]; what differs is inside, typed by [`Command`] and [`Query`].

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::keys::Key;
use tokio::sync::oneshot;

use crate::audit::entry::Named;
use crate::call::{Answered, Idempotency, Origin};
use crate::limits;
use crate::permit::{Action, Capability, Principal};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::handle::Slot;

/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// The one message a tenant takes.
pub struct Job {
    pub(crate) principal: Principal,
    pub(crate) origin: Origin,
    pub(crate) work: Work,
    /// Held until the answer is given, so that the bound counts work, not waiting callers.
    pub(crate) slot: Slot,
}

impl actix::Message for Job {
    type Result = ();
}

/// What is asked.
pub(crate) enum Work {
    Read(Box<dyn Reading>),
    Write(Box<dyn Writing>),
    /// Ends the actor; nothing else is under way because every slot is taken.
    Stop,
}

/// A query on its way.
pub(crate) trait Reading: Send {
    fn is_abandoned(&self) -> bool;
    fn capability(&self) -> &'static Capability;
    fn works_before_enrolment(&self) -> bool;
    fn run(&mut self, cx: &mut ReadCx<'_>) -> Result<(), TenantError>;
    fn refuse(&mut self, error: TenantError);
}

/// A command on its way.
pub(crate) trait Writing: Send {
    fn is_abandoned(&self) -> bool;
    fn name(&self) -> &'static str;
    fn capability(&self) -> &'static Capability;
    fn works_after_trial(&self) -> bool;
    fn works_before_enrolment(&self) -> bool;
    fn target(&self) -> Named;
    fn run(&mut self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError>;
    /// Gives the reply that `run` left, or the error. Called once.
    fn finish(&mut self, outcome: Result<(), TenantError>);
}

type Reply<T> = oneshot::Sender<Result<T, TenantError>>;

pub(crate) struct QueryJob<Q: Query> {
    query: Option<Q>,
    reply: Option<Reply<Q::Reply>>,
}

impl<Q: Query> QueryJob<Q> {
    pub(crate) fn new(query: Q, reply: Reply<Q::Reply>) -> Self {
        Self { query: Some(query), reply: Some(reply) }
    }
    fn give(&mut self, answer: Result<Q::Reply, TenantError>) {
        if let Some(reply) = self.reply.take() {
            // A caller that went away does not want the answer.
            let _gone = reply.send(answer);
        }
    }
}

impl<Q: Query> Reading for QueryJob<Q> {
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(Reply::is_closed)
    }
    fn capability(&self) -> &'static Capability {
        Q::Action::ROW
    }
    fn works_before_enrolment(&self) -> bool {
        Q::BEFORE_ENROLMENT
    }
    fn run(&mut self, cx: &mut ReadCx<'_>) -> Result<(), TenantError> {
        if let Some(query) = self.query.take() {
            let reply = query.run(cx)?;
            self.give(Ok(reply));
        }
        Ok(())
    }
    fn refuse(&mut self, error: TenantError) {
        self.give(Err(error));
    }
}

pub(crate) struct CommandJob<C: Command> {
    target: Named,
    command: Option<C>,
    idempotency: Option<Idempotency>,
    answer: Option<Answered<C::Reply>>,
    reply: Option<Reply<Answered<C::Reply>>>,
}

/// The stored first answer to an idempotency key.
#[derive(Serialize, Deserialize)]
struct FirstAnswer {
    fingerprint: ByteBuf,
    reply: ByteBuf,
}

impl<C: Command> CommandJob<C> {
    pub(crate) fn new(
        command: C,
        idempotency: Option<Idempotency>,
        reply: Reply<Answered<C::Reply>>,
    ) -> Self {
        let target = command.target();
        Self { target, command: Some(command), idempotency, answer: None, reply: Some(reply) }
    }

    fn first_answer(
        idempotency: &Idempotency,
        cx: &mut Cx<'_, '_>,
    ) -> Result<Option<C::Reply>, TenantError> {
        let digest = cx.digest("idempotency", idempotency.scope.as_bytes());
        let today = day(cx.now_ms());
        // Tomorrow as well: the clock may have been set back over midnight since the first answer.
        let days = today.saturating_sub(limits::IDEMPOTENCY_DAYS)..=today.saturating_add(1);
        for day in days {
            let Some(first) = cx.row::<FirstAnswer>(&Key::Idempotency { day, digest })? else {
                continue;
            };
            if first.fingerprint.as_ref() != idempotency.fingerprint {
                return Err(TenantError::IdempotencyKeyReused);
            }
            return Ok(Some(storage::value::decode(&first.reply)?));
        }
        Ok(None)
    }
}

/// Days since the Unix epoch.
pub(crate) fn day(unix_ms: u64) -> u32 {
    u32::try_from(unix_ms / DAY_MS).unwrap_or(u32::MAX)
}

impl<C: Command> Writing for CommandJob<C> {
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(Reply::is_closed)
    }
    fn name(&self) -> &'static str {
        C::NAME
    }
    fn capability(&self) -> &'static Capability {
        C::Action::ROW
    }
    fn works_after_trial(&self) -> bool {
        C::AFTER_TRIAL
    }
    fn works_before_enrolment(&self) -> bool {
        C::BEFORE_ENROLMENT
    }
    fn target(&self) -> Named {
        self.target.clone()
    }
    fn run(&mut self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let Some(command) = self.command.take() else { return Ok(()) };
        if let Some(idempotency) = &self.idempotency
            && let Some(reply) = Self::first_answer(idempotency, cx)?
        {
            self.answer = Some(Answered { reply, replayed: true });
            return Ok(());
        }
        let reply = command.run(cx)?;
        if let Some(idempotency) = &self.idempotency {
            let digest = cx.digest("idempotency", idempotency.scope.as_bytes());
            let first = FirstAnswer {
                fingerprint: ByteBuf::from(idempotency.fingerprint.to_vec()),
                reply: ByteBuf::from(storage::value::encode(&reply)),
            };
            cx.put(&Key::Idempotency { day: day(cx.now_ms()), digest }, &first)?;
        }
        self.answer = Some(Answered { reply, replayed: false });
        Ok(())
    }
    fn finish(&mut self, outcome: Result<(), TenantError>) {
        let answer = match outcome {
            Ok(()) => self.answer.take().ok_or(TenantError::Panicked),
            Err(error) => Err(error),
        };
        if let Some(reply) = self.reply.take() {
            // A caller that went away does not want the answer.
            let _gone = reply.send(answer);
        }
    }
}
