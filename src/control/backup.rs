//! Backups and restore drills, as operators ask for them. Shows names, sizes and times; nothing of any
//! tenant's content.

use std::path::PathBuf;
use std::sync::Arc;

use actors::backup::keeper::KeeperError;
use actors::backup::manifest::BackupManifest;
use actors::backup::name::ObjectName;
use actors::backup::rotation::{BackupTime, Reason, reasons};
use actors::backup::verify::{VerifyError, verify};
use actors::backup::{Source, Told, catalog};
use actors::env::rfc3339;
use serde::{Deserialize, Serialize};
use storage::id::BackupId;

use super::{ControlError, ControlReply, REASON, error_chain};
use crate::http::app::App;
use crate::jobs::Progress;

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupLine {
    /// Its id.
    pub id: BackupId,
    /// The moment it shows, RFC 3339 UTC.
    pub taken_at: String,
    /// When it was complete, RFC 3339 UTC.
    pub finished_at: String,
    /// What a person said about it.
    pub note: Option<String>,
    /// Why it stays: `daily`, `weekly`, `monthly`, `newest`, `undated`; nothing if it goes with the next.
    pub kept: Vec<String>,
    /// Bytes that the backup before does not have.
    pub new_bytes: u64,
    /// Bytes of everything it needs.
    pub total_bytes: u64,
    /// How many tenants are in it.
    pub tenants: u64,
    /// How many objects it needs.
    pub objects: u64,
}

impl BackupLine {
    fn of(manifest: &BackupManifest, kept: Vec<String>) -> Self {
        Self {
            id: manifest.id,
            taken_at: rfc3339(manifest.taken_ms),
            finished_at: rfc3339(manifest.finished_ms),
            note: manifest.note.clone(),
            kept,
            new_bytes: manifest.new_bytes,
            total_bytes: manifest.total_bytes,
            tenants: manifest.tenants.len() as u64,
            objects: manifest.objects().count() as u64,
        }
    }
}

/// A manifest that is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedLine {
    /// The object, or the tenant whose history it is.
    pub object: String,
    /// What is wrong.
    pub what: String,
}

/// All backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupList {
    /// Where they are.
    pub location: String,
    /// Oldest first.
    pub backups: Vec<BackupLine>,
    /// Manifests that are not believed.
    pub damaged: Vec<DamagedLine>,
}

/// What verifying a backup found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedLine {
    /// Which backup; its manifest's name.
    pub backup: String,
    /// Whether everything is as it was.
    pub ok: bool,
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes, as far as they were right.
    pub bytes: u64,
    /// Records whose place in a chain was checked.
    pub records: u64,
    /// Tenants whose chain holds.
    pub tenants: u64,
    /// What is wrong.
    pub faults: Vec<DamagedLine>,
}

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillEnd {
    /// Whether everything came back.
    pub passed: bool,
    /// Whether also in time.
    pub in_time: bool,
    /// The name of its signed report in the archive.
    pub object: String,
    /// The report for people.
    pub text: String,
    /// The signed report as the archive has it.
    pub report: serde_json::Value,
}

impl From<KeeperError> for ControlError {
    fn from(error: KeeperError) -> Self {
        Self::Refused { message: error_chain(&error) }
    }
}

fn parse(text: Option<String>) -> Result<Option<BackupId>, ControlError> {
    let parse = |text: String| {
        text.parse().map_err(|_| ControlError::invalid(format!("{text:?} is no backup's id")))
    };
    text.map(parse).transpose()
}

fn told(progress: Arc<Progress>) -> impl FnMut(Told<'_>) + Send + 'static {
    move |told| match told {
        Told::Step { name, total } => progress.begin(name, total),
        Told::At(done) => progress.at(done),
    }
}

/// Work on the archive blocks.
async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Source) -> Result<T, ControlError> + Send + 'static,
) -> Result<T, ControlError> {
    let source = app.backups.source()?;
    let done = tokio::task::spawn_blocking(move || work(&source)).await;
    done.map_err(|error| ControlError::Refused { message: error.to_string() })?
}

fn refused(error: &(dyn std::error::Error + 'static)) -> ControlError {
    ControlError::Refused { message: error_chain(error) }
}

/// Starts a backup.
pub(super) fn run(app: &App, note: Option<String>) -> Result<ControlReply, ControlError> {
    let backups = app.backups.clone();
    app.jobs.begin("the backup", move |progress| async move {
        let (manifest, _) = backups.run(note, REASON, told(progress)).await?;
        let line = BackupLine::of(&manifest, vec!["newest".to_owned()]);
        Ok(ControlReply::Backup(line))
    })
}

/// Lists the backups.
pub(super) async fn list(app: &App) -> Result<ControlReply, ControlError> {
    let now_ms = app.env.now_ms();
    let list = blocking(app, move |source| {
        let Some(cold) = source.store.cold() else { return Err(no_archive()) };
        let archive = &**cold.archive();
        let found = catalog::read(archive, &source.signer.verifier());
        let found = found.map_err(|error| refused(&error))?;
        let times: Vec<_> = found.backups.iter().map(BackupTime::from).collect();
        let reasons = reasons(&times, now_ms);
        let kept = |id| reasons.get(&id).into_iter().flatten().copied().map(name).collect();
        Ok(BackupList {
            location: archive.location(),
            backups: found.backups.iter().map(|one| BackupLine::of(one, kept(one.id))).collect(),
            damaged: found
                .damaged
                .into_iter()
                .map(|(object, what)| DamagedLine { object, what })
                .collect(),
        })
    });
    list.await.map(ControlReply::Backups)
}

fn no_archive() -> ControlError {
    ControlError::Refused { message: "the node has no archive".to_owned() }
}

fn name(reason: Reason) -> String {
    let name = match reason {
        Reason::Daily => "daily",
        Reason::Manual => "manual",
        Reason::Weekly => "weekly",
        Reason::Monthly => "monthly",
        Reason::Newest => "newest",
        Reason::Undated => "undated",
    };
    name.to_owned()
}

/// Starts verifying one backup, the newest, or all.
pub(super) fn begin_verify(
    app: &App,
    backup: Option<String>,
    all: bool,
) -> Result<ControlReply, ControlError> {
    let backup = parse(backup)?;
    let app_of_job = app.clone();
    app.jobs.begin("the verification of backups", move |progress| async move {
        let verified =
            blocking(&app_of_job, move |source| verify_some(source, backup, all, progress));
        verified.await.map(ControlReply::VerifiedBackups)
    })
}

fn verify_some(
    source: &Source,
    backup: Option<BackupId>,
    all: bool,
    progress: Arc<Progress>,
) -> Result<Vec<VerifiedLine>, ControlError> {
    let Some(cold) = source.store.cold() else { return Err(no_archive()) };
    let (archive, verifier) = (&**cold.archive(), source.signer.verifier());
    let mut lines = Vec::new();
    let wanted = if all {
        let found = catalog::read(archive, &verifier).map_err(|error| refused(&error))?;
        lines.extend(found.damaged.into_iter().map(|(name, what)| bad_manifest(name, what)));
        found.backups
    } else {
        match catalog::pick_verified(archive, backup, &verifier) {
            Ok(manifest) => vec![manifest],
            Err(catalog::CatalogError::Bad { name, source }) => {
                return Ok(vec![bad_manifest(name, error_chain(&source))]);
            }
            Err(error) => return Err(refused(&error)),
        }
    };
    let mut tell = told(progress);
    for manifest in wanted {
        let scratch = source.scratch_file();
        let found = verify::<VerifyError>(
            archive,
            &manifest,
            &verifier,
            scratch.path(),
            &mut |_, _| Ok(()),
            &mut tell,
        );
        let found = found.map_err(|error| refused(&error))?;
        lines.push(VerifiedLine {
            backup: ObjectName::Manifest(manifest.id).to_string(),
            ok: found.faults.is_empty(),
            objects: found.objects,
            bytes: found.bytes,
            records: found.records,
            tenants: found.tenants,
            faults: found
                .faults
                .into_iter()
                .map(|fault| DamagedLine { object: fault.object, what: fault.what })
                .collect(),
        });
    }
    Ok(lines)
}

fn bad_manifest(name: String, what: String) -> VerifiedLine {
    VerifiedLine {
        backup: name.clone(),
        ok: false,
        objects: 0,
        bytes: 0,
        records: 0,
        tenants: 0,
        faults: vec![DamagedLine { object: name, what }],
    }
}

/// Starts a drill.
pub(super) fn begin_drill(
    app: &App,
    backup: Option<String>,
    scratch: Option<PathBuf>,
) -> Result<ControlReply, ControlError> {
    let backup = parse(backup)?;
    let backups = app.backups.clone();
    app.jobs.begin("the drill", move |progress| async move {
        let signed = backups.drill(backup, scratch, REASON, told(progress)).await?;
        let report = signed.claimed();
        let bytes = signed.to_bytes();
        Ok(ControlReply::Drilled(DrillEnd {
            passed: report.is_passed(),
            in_time: report.is_in_time(),
            object: report.name().to_string(),
            text: report.to_text(),
            report: serde_json::from_slice(&bytes).map_err(|error| refused(&error))?,
        }))
    })
}
