//! Taking a tenant back to an earlier time, or making another of what it was then, as an operator.

use std::sync::Arc;

use actors::call::{Document, Origin};
use actors::env::{parse_rfc3339, rfc3339};
use actors::supervisor::NewTenant;
use actors::tenant::clone::{CloneOptions, NoteCopy, clone_into};
use actors::tenant::directory::by_the_node;
use actors::tenant::error::TenantError;
use actors::tenant::profile;
use actors::tenant::restore::{ReadRestore, RequestRestore};

use serde::{Deserialize, Serialize};
use storage::history::Point;
use storage::id::TenantId;

use super::{ControlError, ControlReply, REASON, by_the_operator, find_kept};
use crate::http::app::App;
use crate::jobs::Progress;

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// The tenant that is as it was: the same, or the new one.
    pub tenant: TenantId,
    /// Its short name.
    pub slug: String,
    /// The stamp of the last record of that state, RFC 3339 UTC.
    pub as_of: String,
    /// Which record that was.
    pub lsn: u64,
    /// How many rows were written or removed.
    pub rows_changed: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// Starts the job.
pub(super) async fn begin(
    app: &App,
    tenant: &str,
    at: Option<String>,
    into: Option<String>,
    sanitise: bool,
) -> Result<ControlReply, ControlError> {
    let tenant = find_kept(&app.tenants, tenant)?;
    let at_ms = match &at {
        Some(text) => parse_rfc3339(text)
            .ok_or_else(|| ControlError::invalid(format!("{text:?} is not an RFC 3339 time")))?,
        None => app.env.now_ms(),
    };
    match into {
        None if sanitise => {
            Err(ControlError::invalid("only a new tenant can be sanitised: give --into as well"))
        }
        None if at.is_none() => Err(ControlError::invalid("which time? give --at")),
        None => {
            let app_of_job = app.clone();
            app.jobs.begin(format!("the restore of {tenant}"), move |progress| {
                go_back(app_of_job, tenant, at_ms, progress)
            })
        }
        Some(slug) => {
            profile::check_slug("/into", &slug)
                .map_err(|error| ControlError::invalid(format!("--into {}", error.message)))?;
            let app_of_job = app.clone();
            app.jobs.begin(format!("the clone {slug}"), move |progress| {
                clone(app_of_job, tenant, at_ms, slug, sanitise, progress)
            })
        }
    }
}

async fn go_back(
    app: App,
    tenant: TenantId,
    at_ms: u64,
    progress: Arc<Progress>,
) -> Result<ControlReply, ControlError> {
    let began = app.env.monotonic();
    progress.begin("finding the time", 0);
    let point = point(&app, tenant, at_ms).await?;
    let handle = app.tenants.find_any(tenant).await?;
    let command = RequestRestore { at_ms, lsn: point.tail.lsn };
    let asked = handle.command(by_the_operator(tenant), Origin::default(), None, command).await?;
    let (id, _) = asked.reply;
    progress.begin("comparing rows", 0);
    let told = Arc::clone(&progress);
    app.travel.carry_out(tenant, move |compared| told.at(compared)).await?;
    let handle = app.tenants.find_any(tenant).await?;
    let document = handle.query(by_the_operator(tenant), ReadRestore { id }).await?;
    let rows_changed = rows_changed(&document)?;
    report(&app, tenant, point.at_ms, point.tail.lsn, rows_changed, began)
}

/// The place in the history that the time means. Which times there are, the history says: a wrong one is no
/// wrong command.
async fn point(app: &App, tenant: TenantId, at_ms: u64) -> Result<Point, ControlError> {
    let found = app.travel.point(tenant, "/at", at_ms).await;
    found.map_err(|error| match error {
        TenantError::Invalid(errors) => {
            let messages: Vec<_> = errors.into_iter().map(|error| error.message).collect();
            ControlError::refused(format!("the time {} {}", rfc3339(at_ms), messages.join("; ")))
        }
        error => error.into(),
    })
}

/// How many rows a finished restore changed, or why it failed.
fn rows_changed(document: &Document) -> Result<u64, ControlError> {
    let refused = |message: String| ControlError::Refused { message };
    let row: serde_json::Value =
        serde_json::from_slice(&document.json).map_err(|error| refused(error.to_string()))?;
    match row["reason"].as_str() {
        Some(reason) => Err(refused(format!("nothing was changed: {reason}"))),
        None => Ok(row["rows_changed"].as_u64().unwrap_or_default()),
    }
}

/// Has the tenant's own log say that it is copied. One that is damaged can write nothing down, and a copy of
/// what it was before is how it comes back; then the node's log says it.
pub(super) async fn note_copy(
    app: &App,
    tenant: TenantId,
    copy: NoteCopy,
) -> Result<(), ControlError> {
    let noted = match app.tenants.find_any(tenant).await {
        Ok(door) => {
            let permit = by_the_operator(tenant);
            door.command(permit, Origin::default(), None, copy).await.map(drop)
        }
        Err(error) => Err(error),
    };
    match noted {
        Err(error @ (TenantError::Faulted | TenantError::Store(_))) => {
            tracing::warn!(%tenant, %error, "a copy is made that the tenant's log cannot tell of");
            Ok(())
        }
        noted => Ok(noted?),
    }
}

async fn clone(
    app: App,
    tenant: TenantId,
    at_ms: u64,
    slug: String,
    sanitise: bool,
    progress: Arc<Progress>,
) -> Result<ControlReply, ControlError> {
    let began = app.env.monotonic();
    progress.begin("finding the time", 0);
    let point = point(&app, tenant, at_ms).await?;
    note_copy(&app, tenant, NoteCopy { kind: "clone", name: slug.clone(), sanitise }).await?;
    let plan = app.tenants.summary(tenant).map(|summary| summary.plan.to_string());
    let new =
        NewTenant { slug: slug.clone(), name: slug, plan, owner: None, origin: Origin::default() };
    let made = app.tenants.create(by_the_node(REASON), None, new).await?;
    let target = made.reply.id;
    // Nobody is served before it is whole, also not after a crash in between.
    let reason = Some("it is being made".to_owned());
    app.tenants.suspend(by_the_node(REASON), Origin::default(), None, target, reason).await?;
    progress.begin("writing rows", 0);
    let options = CloneOptions { source: tenant, lsn: point.tail.lsn, sanitise };
    let told = Arc::clone(&progress);
    let rows = clone_into(&app.tenants, target, options, move |rows| told.at(rows)).await?;
    app.tenants.resume(by_the_node(REASON), Origin::default(), None, target).await?;
    report(&app, target, point.at_ms, point.tail.lsn, rows, began)
}

fn report(
    app: &App,
    tenant: TenantId,
    at_ms: u64,
    lsn: u64,
    rows_changed: u64,
    began: std::time::Duration,
) -> Result<ControlReply, ControlError> {
    let slug = app.tenants.summary(tenant).map(|summary| summary.slug.to_string());
    let took = app.env.monotonic().saturating_sub(began);
    Ok(ControlReply::Restored(RestoreReport {
        tenant,
        slug: slug.unwrap_or_default(),
        as_of: rfc3339(at_ms),
        lsn,
        rows_changed,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }))
}
