//! Exports that tenants' own people asked for: written in the background, kept in the archive, removed
//! when their time is over.
//!
//! An export lives as long as the process until it is in the archive: its key is kept nowhere, so another
//! process could not go on. Refuses: to write more than a few at once; others wait.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actors::tenant::portable::exports::{IsWritten, Written};
use actors::tenant::portable::key::BundleKey;
use storage::archive::{ArchiveError, SharedArchive};
use storage::id::{ExportId, TenantId};
use tokio::sync::Semaphore;

use crate::control::portable::{exporter, write_bundle};
use crate::control::{ControlError, error_chain};
use crate::http::app::App;
use crate::jobs::Progress;

/// Exports that are written at once.
const AT_ONCE_MAX: usize = 2;

/// Why an export was not kept.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the node has no archive")]
    NoArchive,
    #[error("the node's signing key cannot be read")]
    Signer(#[from] actors::audit::anchor::AnchorError),
    #[error(transparent)]
    Bundle(#[from] ControlError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the tenant is being erased")]
    Erased,
    #[error("the bundle cannot be read again")]
    Io(#[from] std::io::Error),
}

/// The exports of a node. Cheap to clone.
#[derive(Clone)]
pub struct Exports {
    running: Arc<Mutex<HashSet<ExportId>>>,
    turns: Arc<Semaphore>,
}

impl Default for Exports {
    fn default() -> Self {
        Self { running: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }
}

/// An export that this process is about to write, or writes.
pub struct Running {
    exports: Exports,
    id: ExportId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.exports.lock().remove(&self.id);
    }
}

impl Exports {
    // Every change is one call, so a poisoned lock still guards a sound set.
    fn lock(&self) -> MutexGuard<'_, HashSet<ExportId>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that this process is going to write an export. True until the answer is dropped.
    pub fn enter(&self, id: ExportId) -> Running {
        self.lock().insert(id);
        Running { exports: self.clone(), id }
    }

    /// Tells whether this process writes an export, or is about to.
    pub fn is_written(&self) -> IsWritten {
        let exports = self.clone();
        IsWritten::new(move |id| exports.lock().contains(&id))
    }
}

/// Writes an export in the background, and has the tenant keep how it ended.
pub fn start(app: App, tenant: TenantId, key: BundleKey, running: Running) {
    actix_rt::spawn(async move {
        let id = running.id;
        let turn = app.exports.turns.clone().acquire_owned().await;
        let writing = app.clone();
        let written = tokio::task::spawn_blocking(move || write(&writing, tenant, id, &key)).await;
        drop(turn);
        let written = match written {
            Ok(Ok(written)) => Some(written),
            Ok(Err(error)) => {
                let error = error_chain(&error);
                tracing::warn!(tenant.id = %tenant, export.id = %id, error, "an export failed");
                None
            }
            Err(_) => {
                tracing::error!(tenant.id = %tenant, export.id = %id, "an export panicked");
                None
            }
        };
        if let Err(error) = app.tenants.finish_export(tenant, id, written).await {
            let error = error_chain(&error);
            tracing::warn!(tenant.id = %tenant, export.id = %id, error, "how an export ended is not kept");
        }
        drop(running);
    });
}

fn write(
    app: &App,
    tenant: TenantId,
    id: ExportId,
    key: &BundleKey,
) -> Result<Written, ExportError> {
    let archive = archive(app)?;
    let exporter = exporter(app)?;
    // What a process leaves there, the next one removes.
    let path = app.config.data.dir.join("tmp").join(format!("{id}.bundle"));
    let signed = write_bundle(&exporter, tenant, key, &path, &Progress::default())?;
    let name = object_name(tenant, id);
    let kept = keep(&archive, &name, &path);
    std::fs::remove_file(&path)?;
    // An erasure that began meanwhile may have looked before this was there.
    if app.tenants.is_being_erased(tenant) {
        archive.remove(&name)?;
        return Err(ExportError::Erased);
    }
    Ok(Written::new(signed.claimed(), kept?))
}

fn keep(archive: &SharedArchive, name: &str, path: &Path) -> Result<u64, ExportError> {
    let bytes = std::fs::metadata(path)?.len();
    archive.put_file(name, path)?;
    Ok(bytes)
}

fn archive(app: &App) -> Result<SharedArchive, ExportError> {
    let history = app.store.history().ok_or(ExportError::NoArchive)?;
    Ok(history.archive().clone())
}

/// The name of an export in the archive.
fn object_name(tenant: TenantId, id: ExportId) -> String {
    format!("exports/{tenant}/{id}.bundle")
}

/// The bytes of an export in the archive, and how many there are. Blocks.
///
/// # Errors
/// Whatever the archive says.
pub fn open(
    app: &App,
    tenant: TenantId,
    id: ExportId,
) -> Result<(u64, Box<dyn Read + Send>), ArchiveError> {
    let name = object_name(tenant, id);
    let missing = || ArchiveError::Missing { name: name.clone() };
    let archive = archive(app).map_err(|_| missing())?;
    let bytes = archive.size(&name)?.ok_or_else(missing)?;
    Ok((bytes, archive.open(&name)?))
}

/// Removes exports whose time is over from the archive, in the background. What cannot be removed now is
/// found again.
pub fn remove(app: &App, tenant: TenantId, ids: Vec<ExportId>) {
    let Ok(archive) = archive(app) else { return };
    tokio::task::spawn_blocking(move || {
        for id in ids {
            if let Err(error) = archive.remove(&object_name(tenant, id)) {
                tracing::warn!(tenant.id = %tenant, export.id = %id, %error, "an expired export stays for now");
            }
        }
    });
}
