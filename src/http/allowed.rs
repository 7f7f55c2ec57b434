//! Who may: from a credential to a permit.
//!
//! [`admit`] runs for every matched request before its handler and its extractors, by what the row in
//! the table says; [`Allowed`] turns its outcome into the permit that a tenant asks for. Warm, that is
//! a look at what this thread knows of the credential, one rate check and a bit test: no actor is asked.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::{StatusCode, header};
use actix_web::{FromRequest, HttpRequest, web};
use actors::call::{Answered, Origin};
use actors::permit::{Action, Capability, Grant, Permit, ReadHistory};
use actors::rate::{Class, Decision, Scope};
use actors::tenant::as_of::{LookBack, RecordLookBack, Seen};
use actors::tenant::cx::{Command, Query};
use actors::tenant::forms::glass::{BreakGlass, FormRead};
use futures_util::future::{Ready, ready};
use serde_json::Value;
use storage::id::{Id as _, TenantId};
use storage::store::Store;

use self::credential::{Credential, Unproven};
use crate::http::app::App;
use crate::http::past::{self, Looked};
use crate::http::problem::{Kind, Problem};
use crate::http::request::{RequestContext, context, idempotency};
use crate::http::routes::Access;
use crate::limits::QUERY_BYTES_MAX;

mod credential;
mod record;

/// Why a request does not reach its handler.
enum Refusal {
    /// It is answered at once.
    Now(Problem),
    /// It is answered after the tenant has said that the credential still stands, and has written
    /// the refusal down if the capability is privileged.
    OnRecord { grant: Grant, capability: &'static Capability },
    /// The tenant has to say first whether the credential is good.
    Unproven(Unproven),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Now(problem)
    }
}

/// Whether a request may go on to its handler. Waits for an actor only where an API key is not known yet
/// or a capability is missing.
pub(crate) async fn admit(
    app: &App,
    request: &ServiceRequest,
    context: &RequestContext,
) -> Result<(), Problem> {
    let refusal = match judge(app, request, context) {
        Err(Refusal::Unproven(unproven)) => {
            // Before anybody is asked: guesses are bounded by where they come from. A good credential costs
            // its address one request now and then.
            charge_address(app, context, Class::Api)?;
            let grant = credential::prove(app, context, request, unproven).await?;
            enter(app, request, context, grant).err()
        }
        outcome => outcome.err(),
    };
    match refusal {
        None => {
            let query = request.query_string();
            match context.route.any_query {
                true => check_query_length(query)?,
                false => check_query(query, context.route.query)?,
            }
            match context.grant.get() {
                Some(grant) if grant.support().is_some() => {
                    record::support_use(app, request, context, grant).await
                }
                _ => Ok(()),
            }
        }
        Some(Refusal::Now(problem)) => Err(problem),
        Some(Refusal::OnRecord { grant, capability }) => {
            Err(record::refusal(app, request, context, &grant, capability).await)
        }
        // Entering takes what was proven as it is.
        Some(Refusal::Unproven(_)) => Err(Problem::new(Kind::INVALID_TOKEN)),
    }
}

/// What can be said without asking anybody.
fn judge(app: &App, request: &ServiceRequest, context: &RequestContext) -> Result<(), Refusal> {
    match context.route.access {
        Access::Public => charge_address(app, context, context.route.class)?,
        Access::Hook => {
            charge_address(app, context, context.route.class)?;
            let params = context.params.of(request.path());
            if host_slug(app, request.request()).is_some_and(|slug| slug != params[0]) {
                return Err(Problem::not_found().into());
            }
        }
        Access::Tenant(_) => {
            let suffices = |grant: &Grant| missing(request, context, grant).is_none();
            match credential::read(app, context, request, suffices) {
                Ok(Credential::Known(grant)) => enter(app, request, context, grant)?,
                Ok(Credential::Unproven(unproven)) => return Err(Refusal::Unproven(unproven)),
                Err(problem) => {
                    // Guessing tokens spends the guesser's budget, nobody else's.
                    charge_address(app, context, Class::Api)?;
                    return Err(problem.into());
                }
            }
        }
    }
    Ok(())
}

/// The first capability that the request takes and the credential does not have.
fn missing(
    request: &ServiceRequest,
    context: &RequestContext,
    grant: &Grant,
) -> Option<&'static Capability> {
    let Access::Tenant(capability) = context.route.access else { return None };
    // Looking at what was takes more than looking at what is.
    let is_of_past = past::is_asked_for(request.query_string());
    let needed = [Some(capability), is_of_past.then_some(ReadHistory::ROW)];
    needed.into_iter().flatten().find(|row| !grant.allows(row))
}

/// Takes a good credential: its host, its budgets, its rights.
fn enter(
    app: &App,
    request: &ServiceRequest,
    context: &RequestContext,
    grant: Grant,
) -> Result<(), Refusal> {
    check_host(app, request, &grant)?;
    charge(app, context, context.route.class, &grant)?;
    if let Some(capability) = missing(request, context, &grant) {
        return Err(Refusal::OnRecord { grant, capability });
    }
    // The cell is empty: a request is admitted once.
    let _ = context.grant.set(grant);
    Ok(())
}

/// Learns from the answer: what its tenant does not take any more is not known any more.
pub(crate) fn learn(app: &App, context: &RequestContext, status: StatusCode) {
    if let (StatusCode::UNAUTHORIZED, Some(print)) = (status, context.print.get()) {
        app.proofs.forget(&print);
    }
}

/// A host that names a tenant has to name the token's.
fn check_host(app: &App, request: &ServiceRequest, grant: &Grant) -> Result<(), Problem> {
    match host_slug(app, request.request()) {
        Some(slug) if app.tenants.by_slug(&slug) != Some(grant.tenant()) => {
            Err(Problem::not_found())
        }
        _ => Ok(()),
    }
}

/// The tenant's short name that the host names: `acme` of `acme.example.com`, if
/// `http.base_domain` is `example.com`.
pub fn host_slug(app: &App, request: &HttpRequest) -> Option<String> {
    let base = app.config.http.base_domain.as_deref()?;
    let named = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let slug = slug_of(named.or_else(|| request.uri().host())?, base)?;
    // The node's own name is nobody's, whoever is called like it.
    let own = app.config.http.public_url.as_deref().and_then(host_of);
    (own != Some(&*format!("{slug}.{base}"))).then_some(slug)
}

/// The host that a URL names.
fn host_of(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split(['/', ':']).next()
}

fn slug_of(host: &str, base: &str) -> Option<String> {
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let slug = host.strip_suffix(&base.to_ascii_lowercase())?.strip_suffix('.')?;
    Some(slug.to_owned())
}

fn check_query_length(query: &str) -> Result<(), Problem> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(Problem::new(Kind::URI_TOO_LONG).with("limit", QUERY_BYTES_MAX));
    }
    Ok(())
}

/// Refuses query parameters that the row does not name.
fn check_query(query: &str, known: &[&str]) -> Result<(), Problem> {
    if query.is_empty() {
        return Ok(());
    }
    check_query_length(query)?;
    let names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    for name in names {
        if !known.contains(&name) {
            let message = if known.is_empty() {
                "is not a parameter of this route, which has none".to_owned()
            } else {
                format!("is not a parameter of this route; those are {}", known.join(", "))
            };
            return Err(Problem::invalid(format!("query/{name}"), message));
        }
    }
    Ok(())
}

/// Takes a request from the budgets of its tenant and its token or key.
fn charge(app: &App, context: &RequestContext, class: Class, grant: &Grant) -> Result<(), Problem> {
    let tenant = app.limits.key(grant.tenant().as_bytes());
    let token = app.limits.key(grant.credential());
    settle(context, app.limits.check(class, &[(Scope::Tenant, tenant), (Scope::Token, token)]))
}

/// Takes a request from the budget of the client's address, once.
fn charge_address(app: &App, context: &RequestContext, class: Class) -> Result<(), Problem> {
    context.charged.set(Some(class));
    match context.ip {
        Some(ip) => settle(context, app.limits.check(class, &[(Scope::Ip, address_key(app, ip))])),
        None => Ok(()),
    }
}

/// One budget per IPv4 address, and per /64 of IPv6: that is what one customer gets.
fn address_key(app: &App, ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => app.limits.key(&ip.octets()),
        IpAddr::V6(ip) => app.limits.key(&ip.octets()[..8]),
    }
}

fn settle(context: &RequestContext, decision: Decision) -> Result<(), Problem> {
    let outcome = if decision.allowed { Ok(()) } else { Err(rate_limited(&decision)) };
    context.rate.borrow_mut().push(decision);
    outcome
}

fn rate_limited(decision: &Decision) -> Problem {
    let violated: Vec<Value> = decision.violated().map(Value::from).collect();
    Problem::new(Kind::RATE_LIMITED)
        .retry_after(decision.retry_after_s)
        .with("violated-policies", violated)
}

/// Takes a request without a credential from the budgets of its address and, if one is named, of the
/// account it is about. The address is charged at most once per request and class.
///
/// # Errors
/// [`Kind::RATE_LIMITED`] when a budget is spent.
pub fn limit_anonymous(
    request: &HttpRequest,
    app: &App,
    class: Class,
    account: Option<&str>,
) -> Result<(), Problem> {
    let Some(context) = context(request) else { return Err(Problem::not_found()) };
    if context.charged.get() != Some(class) {
        charge_address(app, &context, class)?;
    }
    match account {
        Some(account) => {
            let key = app.limits.key(account.as_bytes());
            settle(&context, app.limits.check(class, &[(Scope::Account, key)]))
        }
        None => Ok(()),
    }
}

/// A handler asks for another capability than its row in the table states.
#[derive(Debug, thiserror::Error)]
#[error("the route is not wired for the capability {action}")]
struct Miswired {
    action: &'static str,
}

/// Proof that the caller may do `A` in their own tenant, and the way to do it.
pub struct Allowed<A: Action> {
    permit: Permit<A>,
    app: web::Data<App>,
    request: HttpRequest,
    context: Rc<RequestContext>,
}

impl<A: Action> FromRequest for Allowed<A> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::take(request))
    }
}

impl<A: Action> Allowed<A> {
    fn take(request: &HttpRequest) -> Result<Self, Problem> {
        let miswired = || Problem::internal(Miswired { action: A::NAME });
        let context = context(request).ok_or_else(miswired)?;
        let app = request.app_data::<web::Data<App>>().cloned().ok_or_else(miswired)?;
        // The row was checked before; asking for anything else would go round the table.
        if !matches!(context.route.access, Access::Tenant(row) if row.name == A::NAME) {
            return Err(miswired());
        }
        let grant = context.grant.get().ok_or_else(miswired)?;
        let permit = grant.permit(grant.tenant()).map_err(Problem::internal)?;
        Ok(Self { permit, app, request: request.clone(), context })
    }

    /// The tenant of the token: the only one this request can reach.
    pub fn tenant(&self) -> TenantId {
        self.permit.tenant()
    }

    /// Whose idempotency keys and wrong guesses these are: the person's id, or the API key's.
    pub fn account(&self) -> String {
        // Set before the handler ran: `take` has read it.
        self.context.grant.get().expect("an allowed request has a grant").holder()
    }

    /// Where the request came from, for the audit log.
    pub fn origin(&self) -> Origin {
        self.context.origin(self.request.headers())
    }

    /// The permit itself, for the few handlers that ask more than one question.
    pub fn into_permit(self) -> Permit<A> {
        self.permit
    }

    /// Where every tenant's data is, for what is read outside the tenants.
    pub fn store(&self) -> &Arc<Store> {
        self.app.tenants.store()
    }

    /// Asks one of several questions, with a permit of its own: the session may have ended since the last.
    ///
    /// # Errors
    /// Whatever the tenant answers.
    pub async fn ask<Q>(&self, query: Q) -> Result<Q::Reply, Problem>
    where
        Q: Query<Action = A>,
    {
        let grant = self.context.grant.get().ok_or_else(Problem::not_found)?;
        let permit = grant.permit(self.tenant()).map_err(Problem::internal)?;
        let tenant = self.app.tenants.find(self.tenant()).await?;
        Ok(tenant.query(permit, query).await?)
    }

    /// Has the tenant do something, once per `Idempotency-Key`.
    ///
    /// # Errors
    /// Whatever the tenant answers, and [`Kind::BAD_IDEMPOTENCY_KEY`].
    pub async fn command<C>(self, command: C) -> Result<Answered<C::Reply>, Problem>
    where
        C: Command<Action = A>,
    {
        let key = if self.context.route.idempotent {
            idempotency(&self.request, &self.account())?
        } else {
            None
        };
        let origin = self.origin();
        let tenant = self.app.tenants.find(self.permit.tenant()).await?;
        Ok(tenant.command(self.permit, origin, key, command).await?)
    }

    /// Asks the tenant something.
    ///
    /// # Errors
    /// Whatever the tenant answers.
    pub async fn query<Q>(self, query: Q) -> Result<Q::Reply, Problem>
    where
        Q: Query<Action = A>,
    {
        let tenant = self.app.tenants.find(self.permit.tenant()).await?;
        Ok(tenant.query(self.permit, query).await?)
    }

    /// Asks the tenant something, or what it would have answered at the time that `as_of` names.
    ///
    /// # Errors
    /// Whatever the tenant answers, and [`Kind::INVALID`] for a time that cannot be had.
    pub async fn look<Q>(self, query: Q) -> Result<Looked<Q::Reply>, Problem>
    where
        Q: Query<Action = A>,
    {
        let Some(at_ms) = past::asked_for(self.request.query_string())? else {
            return Ok(Looked::now(self.query(query).await?));
        };
        let asker = self.history()?;
        let travel = &self.app.travel;
        let seen = travel.look(asker, self.permit, past::POINTER, at_ms, query).await?;
        Ok(Looked { reply: seen.reply, as_of_ms: Some(seen.at_ms) })
    }

    /// The same for something in a form, with a reason in case one is needed.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub async fn look_into<Q>(
        self,
        read: Q,
        reason: Option<String>,
    ) -> Result<Looked<Q::Reply>, Problem>
    where
        Q: FormRead<Action = A>,
    {
        let Some(reason) = reason else { return self.look(read).await };
        let Some(at_ms) = past::asked_for(self.request.query_string())? else {
            return Ok(Looked::now(self.command(BreakGlass { read, reason }).await?.reply));
        };
        let (form, origin) = (read.form(), self.origin());
        let (asker, recorder) = (self.history()?, self.history()?);
        let query = LookBack { read, has_reason: true };
        let travel = &self.app.travel;
        let seen = travel.look(asker, self.permit, past::POINTER, at_ms, query).await?;
        let Seen { reply: (reply, is_broken), at_ms } = seen;
        if is_broken {
            let tenant = self.app.tenants.find(recorder.tenant()).await?;
            let record = RecordLookBack { form, reason, at_ms };
            tenant.command(recorder, origin, None, record).await?;
        }
        Ok(Looked { reply, as_of_ms: Some(at_ms) })
    }

    /// The permit that looking at the past takes beside the route's own.
    fn history(&self) -> Result<Permit<ReadHistory>, Problem> {
        let action = ReadHistory::NAME;
        let grant = self.context.grant.get();
        let permit = grant.and_then(|grant| grant.permit(self.permit.tenant()).ok());
        permit.ok_or_else(|| Problem::new(Kind::FORBIDDEN).with("action", action))
    }
}

#[cfg(test)]
mod tests;
