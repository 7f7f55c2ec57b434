//! A command on a data directory that no node uses: opens the store under its lock, hosts tenants on
//! this thread, does the one thing, and closes cleanly. Listens nowhere.

use std::collections::BTreeSet;
use std::time::Duration;

use actix_rt::System;
use actors::audit::anchor::signing_key;
use actors::audit::verify::{every_tenant, verify_node};
use actors::env::Env;
use actors::supervisor::PLATFORM_SLUG;
use storage::id::TenantId;

use crate::config::Config;
use crate::control::client::ClientError;
use crate::control::{ControlCommand, ControlError, ControlReply, execute, find};
use crate::http::app::App;
use crate::jobs::JobStatus;
use crate::runtime::{Engine, StartError, Vault};

/// How often a job is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Does `command`, to its end if it is a job, and closes the store again.
pub fn run(
    config: Config,
    command: ControlCommand,
    watch: &mut dyn FnMut(&JobStatus),
) -> Result<ControlReply, ClientError> {
    System::new().block_on(async move {
        match command {
            ControlCommand::VerifyAudit { tenant } => verify(&config, tenant).await,
            command => {
                let engine = Engine::open_here(config, Env::real()).await?;
                let outcome = to_its_end(engine.app(), command, watch).await;
                engine.close().await?;
                Ok(outcome?)
            }
        }
    })
}

async fn to_its_end(
    app: &App,
    command: ControlCommand,
    watch: &mut dyn FnMut(&JobStatus),
) -> Result<ControlReply, ControlError> {
    let mut reply = execute(app, command).await?;
    let mut look = tokio::time::interval(LOOK_EVERY);
    while let ControlReply::Job(status) = reply {
        watch(&status);
        if let Some(outcome) = status.outcome {
            return outcome.map(|reply| *reply);
        }
        look.tick().await;
        reply = execute(app, ControlCommand::JobStatus { job: status.job }).await?;
    }
    Ok(reply)
}

/// Verifies without waking any actor, so that damage of one tenant, or of the platform's own
/// compartment, cannot keep the others from being verified.
async fn verify(config: &Config, tenant: Option<String>) -> Result<ControlReply, ClientError> {
    let one = match tenant {
        Some(text) => Some(resolve(config, &text).await?),
        None => None,
    };
    let vault = Vault::open(config).await?;
    let (store, anchors) = (vault.store.clone(), vault.anchors.clone());
    let origin = config.node.origin.clone();
    let verified = tokio::task::spawn_blocking(move || {
        let public_key = signing_key(store.keystore(), &origin, &Env::real())?.public_key();
        let tenants = match one {
            Some(tenant) => BTreeSet::from([tenant]),
            None => every_tenant(&store, &anchors),
        };
        let report = verify_node(&store, &anchors, public_key, &tenants);
        Ok::<_, StartError>(ControlReply::audit(&report))
    });
    let reply = verified.await.map_err(|_| StartError::Died)?;
    vault.close().await?;
    Ok(reply?)
}

/// A tenant by id, or by short name, which takes the directory in the platform's compartment.
async fn resolve(config: &Config, text: &str) -> Result<TenantId, ClientError> {
    if text == PLATFORM_SLUG {
        return Ok(TenantId::PLATFORM);
    }
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let engine = Engine::open_here(config.clone(), Env::real()).await?;
    let found: Result<TenantId, ControlError> = find(&engine.app().tenants, text);
    engine.close().await?;
    Ok(found?)
}
