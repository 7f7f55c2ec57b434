//! Tenants, as operators make, list and show them: what the directory says of each, and whether it is served.

use std::sync::Arc;

use actors::call::Origin;
use actors::env::rfc3339;
use actors::supervisor::{NewTenant, State, TenantSummary};
use actors::tenant::directory::{NewOwner, Standing, by_the_node};
use actors::tenant::error::TenantError;
use actors::tenant::profile;
use serde::{Deserialize, Serialize};
use storage::id::TenantId;

use super::{ControlError, ControlReply, Person, REASON, hash};
use crate::http::app::App;

/// What becomes of a request for a tenant at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// It is served.
    Served,
    /// Somebody suspended it.
    Suspended,
    /// Nobody is served while a restore works on its data.
    Held,
    /// Its key is withheld, or gone.
    Sealed,
    /// It stopped by its own fault, for a while.
    Faulted,
    /// Somebody asked to erase it.
    Erasing,
    /// It is erased.
    Erased,
}

/// A tenant, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLine {
    /// Its id.
    pub id: TenantId,
    /// Its short name.
    pub slug: String,
    /// The name people see.
    pub name: String,
    /// Its plan.
    pub plan: String,
    /// Where its data is.
    pub region: String,
    /// What the directory says: `active`, `suspended`, `erasing` or `erased`.
    pub status: Standing,
    /// Whether it is served, and if not, why.
    pub state: ServiceState,
    /// RFC 3339 UTC.
    pub created_at: String,
}

impl TenantLine {
    fn new(summary: &TenantSummary, state: ServiceState) -> Self {
        Self {
            id: summary.id,
            slug: summary.slug.to_string(),
            name: summary.name.to_string(),
            plan: summary.plan.to_string(),
            region: summary.region.to_string(),
            status: summary.standing,
            state,
            created_at: rfc3339(summary.created_ms),
        }
    }
}

/// Whether a tenant is served. Asks for its key, so it may take as long as a customer's source: it blocks.
fn state_of(app: &App, summary: &TenantSummary) -> ServiceState {
    match summary.standing {
        Standing::Erasing => return ServiceState::Erasing,
        Standing::Erased => return ServiceState::Erased,
        Standing::Active | Standing::Suspended => {}
    }
    let state = app.tenants.health_of(summary.id).map(|health| health.state);
    if state == Some(State::Held) || app.travel.progress(summary.id).is_some() {
        return ServiceState::Held;
    }
    // One that nobody asked for since the start is on no board.
    if state == Some(State::Sealed) || app.store.keystore().is_withheld(summary.id) {
        return ServiceState::Sealed;
    }
    match (summary.standing, state) {
        (Standing::Suspended, _) => ServiceState::Suspended,
        (_, Some(State::Faulted)) => ServiceState::Faulted,
        _ => ServiceState::Served,
    }
}

async fn lines(
    app: &App,
    summaries: Vec<Arc<TenantSummary>>,
) -> Result<Vec<TenantLine>, ControlError> {
    let app = app.clone();
    let line = move |summary: Arc<TenantSummary>| {
        let state = state_of(&app, &summary);
        TenantLine::new(&summary, state)
    };
    let work = move || summaries.into_iter().map(line).collect();
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ControlError::refused(error.to_string()))
}

/// All of them.
pub(super) async fn list(app: &App) -> Result<ControlReply, ControlError> {
    lines(app, app.tenants.list()).await.map(ControlReply::Tenants)
}

/// One of them.
pub(super) async fn show(app: &App, id: TenantId) -> Result<ControlReply, ControlError> {
    let absent = || ControlError::NoTenant { tenant: id.to_string() };
    let summary = app.tenants.summary(id).ok_or_else(absent)?;
    let line = lines(app, vec![summary]).await?.pop().ok_or_else(absent)?;
    Ok(ControlReply::Tenant(line))
}

/// Makes one.
pub(super) async fn create(
    app: &App,
    slug: String,
    name: String,
    plan: Option<String>,
    owner: Option<Person>,
) -> Result<ControlReply, ControlError> {
    let checks = [profile::check_slug("/slug", &slug), profile::check_name("/name", &name)];
    let errors: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
    if !errors.is_empty() {
        return Err(TenantError::Invalid(errors).into());
    }
    let owner = match owner {
        Some(Person { email, password }) => {
            let password_phc = hash(app, &[slug.clone(), name.clone()], &email, password).await?;
            Some(NewOwner { email, password_phc, is_to_verify: false })
        }
        None => None,
    };
    let new = NewTenant { slug, name, plan, owner, origin: Origin::default() };
    let made = app.tenants.create(by_the_node(REASON), None, new).await?;
    Ok(ControlReply::Tenant(TenantLine::new(&made.reply, ServiceState::Served)))
}

#[cfg(test)]
mod tests {
    use actors::env::Env;

    use super::*;
    use crate::config::{Config, Overrides};
    use crate::control::{ControlCommand, execute};
    use crate::runtime::Engine;

    async fn state(app: &App, command: ControlCommand) -> ServiceState {
        match execute(app, command).await.expect("it is done") {
            ControlReply::Tenant(line) => line.state,
            other => panic!("no tenant: {other:?}"),
        }
    }

    #[test]
    fn a_tenant_that_is_worked_on_is_held_and_served_again_afterwards() {
        let home = tempfile::tempdir().expect("a directory");
        let data = home.path().join("data").display().to_string();
        let overrides =
            Overrides::default().set("data.dir", data).set("data.allow_temporary", true);
        let config = Config::load_from(None, [], &overrides).expect("a configuration");
        actix_rt::System::new().block_on(async {
            let engine = Engine::open_here(config, Env::real()).await.expect("a node");
            let app = engine.app().clone();
            let tenant = || "acme".to_owned();
            let (slug, name) = (tenant(), tenant());
            let create = ControlCommand::CreateTenant { slug, name, plan: None, owner: None };
            assert_eq!(state(&app, create).await, ServiceState::Served);
            let show = || ControlCommand::ShowTenant { tenant: tenant() };
            let id = app.tenants.by_slug("acme").expect("it is there");
            let held = app.tenants.hold(id).await.expect("nobody else works on it");
            assert_eq!(state(&app, show()).await, ServiceState::Held);
            drop(held);
            // Told, not asked: it is let go once the supervisor hears of it.
            app.tenants.find(id).await.expect("it is served");
            assert_eq!(state(&app, show()).await, ServiceState::Served);
            let suspend = ControlCommand::SuspendTenant { tenant: tenant() };
            assert_eq!(state(&app, suspend).await, ServiceState::Suspended);
            drop(app);
            engine.close().await.expect("a clean end");
        });
    }
}
