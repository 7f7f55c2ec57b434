//! Backups and restore drills, as operators ask for them: of a node, and of an archive whose node is gone.
//! Shows names, sizes and times; nothing of any tenant's content.

use std::path::PathBuf;
use std::sync::Arc;

use actors::audit::note::NoteVerifier;
use actors::backup::keeper::KeeperError;
use actors::backup::manifest::BackupManifest;
use actors::backup::name::ObjectName;
use actors::backup::rotation::{BackupTime, Reason, reasons};
use actors::backup::verify::{VerifyError, verify};
use actors::backup::{Source, Tell, Told, catalog};
use actors::env::rfc3339;
use serde::{Deserialize, Serialize};
use storage::archive::Archive;
use storage::id::BackupId;
use storage::scratch::Scratch;

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
    /// The public key that signed it, as `--trust` takes it.
    pub signer: String,
    /// Why it stays: `daily`, `manual`, `weekly`, `monthly`, `newest`, `undated`; nothing if it goes with the
    /// next.
    pub kept: Vec<String>,
    /// Bytes that the backup before does not have.
    pub new_bytes: u64,
    /// Bytes of everything it needs.
    pub total_bytes: u64,
    /// How many tenants are in it.
    pub tenants: u64,
    /// How many objects it needs.
    pub objects: u64,
    /// What it needs and was not there as it should be when it was taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<DamagedLine>,
}

impl BackupLine {
    fn of(manifest: &BackupManifest, signer: &NoteVerifier, kept: Vec<String>) -> Self {
        Self {
            id: manifest.id,
            taken_at: rfc3339(manifest.taken_ms),
            finished_at: rfc3339(manifest.finished_ms),
            note: manifest.note.clone(),
            signer: signer.to_text(),
            kept,
            new_bytes: manifest.new_bytes,
            total_bytes: manifest.total_bytes,
            tenants: manifest.tenants.len() as u64,
            objects: manifest.objects().count() as u64,
            faults: Vec::new(),
        }
    }
}

/// Something that is not as it was, or not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedLine {
    /// The object, or the tenant whose history it is.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// The other backups that need the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_in: Vec<BackupId>,
}

impl DamagedLine {
    fn new(object: String, what: String) -> Self {
        Self { object, what, also_in: Vec::new() }
    }
}

/// All backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupList {
    /// Where they are.
    pub location: String,
    /// The public key that signed them, as `--trust` takes it.
    pub signer: String,
    /// Whether somebody vouches for that key; if not, it is the one that the newest backup names.
    pub is_trusted: bool,
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
    let signer = app.anchor.verifier();
    app.jobs.begin("the backup", move |progress| async move {
        let taken = backups.run(note, REASON, told(progress)).await?;
        let line = BackupLine::of(&taken.manifest, &signer, vec!["newest".to_owned()]);
        let faults = taken.faults.into_iter();
        let faults = faults.map(|fault| DamagedLine::new(fault.object, fault.what)).collect();
        Ok(ControlReply::Backup(BackupLine { faults, ..line }))
    })
}

/// Lists the backups.
pub(super) async fn list(app: &App) -> Result<ControlReply, ControlError> {
    let now_ms = app.env.now_ms();
    let list = blocking(app, move |source| {
        let cold = source.store.cold().ok_or_else(no_archive)?;
        list_in(&**cold.archive(), &source.signer.verifier(), now_ms)
    });
    list.await.map(ControlReply::Backups)
}

/// Lists the backups of an archive that `verifier` signed. Takes no node. Blocks.
///
/// # Errors
/// If the archive cannot be asked.
pub fn list_in(
    archive: &dyn Archive,
    verifier: &NoteVerifier,
    now_ms: u64,
) -> Result<BackupList, ControlError> {
    let found = catalog::read(archive, verifier).map_err(|error| refused(&error))?;
    let times: Vec<_> = found.backups.iter().map(BackupTime::from).collect();
    let reasons = reasons(&times, now_ms);
    let kept = |id| reasons.get(&id).into_iter().flatten().copied().map(name).collect();
    let line = |one| BackupLine::of(one, verifier, kept(one.id));
    let damaged = found.damaged.into_iter();
    Ok(BackupList {
        location: archive.location(),
        signer: verifier.to_text(),
        is_trusted: true,
        backups: found.backups.iter().map(line).collect(),
        damaged: damaged.map(|(object, what)| DamagedLine::new(object, what)).collect(),
    })
}

/// The key that the newest backup of an archive says it is signed by. Nobody vouches for it. Blocks.
///
/// # Errors
/// If the archive cannot be asked or has no backup that could be read.
pub fn claimed_signer(archive: &dyn Archive) -> Result<NoteVerifier, ControlError> {
    let signed = catalog::pick(archive, None).map_err(|error| refused(&error))?;
    let key = NoteVerifier::new(&signed.claimed().origin, *signed.claimed_key());
    key.map_err(|error| refused(&error))
}

fn no_archive() -> ControlError {
    ControlError::refused("the node has no archive")
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
    backup: Option<BackupId>,
    all: bool,
) -> Result<ControlReply, ControlError> {
    let app_of_job = app.clone();
    let backups = app.backups.clone();
    app.jobs.begin("the verification of backups", move |progress| async move {
        let verified = blocking(&app_of_job, move |source| {
            let cold = source.store.cold().ok_or_else(no_archive)?;
            let verifier = source.signer.verifier();
            let wanted = Wanted { backup, all };
            let scratch = source.scratch_file();
            let archive = &**cold.archive();
            let mut keep = |manifest: &_, line: &VerifiedLine| {
                backups.verified(manifest, line.faults.iter().map(|fault| fault.object.as_str()));
            };
            verify_in(archive, &verifier, wanted, &scratch, &mut keep, &mut told(progress))
        });
        verified.await.map(ControlReply::VerifiedBackups)
    })
}

/// Which backups are verified.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// One; the newest if absent.
    pub backup: Option<BackupId>,
    /// All of them.
    pub all: bool,
}

/// Verifies backups of an archive that `verifier` signed. Takes no node, no key and no data directory; each
/// object is fetched to `scratch`. `found` hears what each is like. Blocks.
///
/// # Errors
/// If the archive or the disk fails. Faults are no errors.
pub fn verify_in(
    archive: &dyn Archive,
    verifier: &NoteVerifier,
    wanted: Wanted,
    scratch: &Scratch,
    found: &mut dyn FnMut(&BackupManifest, &VerifiedLine),
    tell: Tell<'_>,
) -> Result<Vec<VerifiedLine>, ControlError> {
    let mut lines = Vec::new();
    let manifests = if wanted.all {
        let found = catalog::read(archive, verifier).map_err(|error| refused(&error))?;
        lines.extend(found.damaged.into_iter().map(|(name, what)| bad_manifest(name, what)));
        found.backups
    } else {
        match catalog::pick_verified(archive, wanted.backup, verifier) {
            Ok(manifest) => vec![manifest],
            Err(catalog::CatalogError::Bad { name, source }) => {
                return Ok(vec![bad_manifest(name, error_chain(&source))]);
            }
            Err(error) => return Err(refused(&error)),
        }
    };
    for manifest in &manifests {
        let nothing = &mut |_: &_, _: &_| Ok(());
        let verified =
            verify::<VerifyError>(archive, manifest, verifier, scratch.path(), nothing, tell);
        let verified = verified.map_err(|error| refused(&error))?;
        let faults = verified.faults.into_iter();
        let line = VerifiedLine {
            backup: ObjectName::Manifest(manifest.id).to_string(),
            ok: faults.len() == 0,
            objects: verified.objects,
            bytes: verified.bytes,
            records: verified.records,
            tenants: verified.tenants,
            faults: faults.map(|fault| DamagedLine::new(fault.object, fault.what)).collect(),
        };
        found(manifest, &line);
        lines.push(line);
    }
    name_others(archive, verifier, &mut lines)?;
    Ok(lines)
}

/// Says of each bad object which other backups need it.
fn name_others(
    archive: &dyn Archive,
    verifier: &NoteVerifier,
    lines: &mut [VerifiedLine],
) -> Result<(), ControlError> {
    if lines.iter().all(|line| line.ok) {
        return Ok(());
    }
    let others = catalog::read(archive, verifier).map_err(|error| refused(&error))?.backups;
    for line in lines {
        for fault in &mut line.faults {
            let needing = others.iter().filter(|other| other.name().to_string() != line.backup);
            let needing =
                needing.filter(|other| other.objects().any(|object| object.name == fault.object));
            fault.also_in = needing.map(|other| other.id).collect();
        }
    }
    Ok(())
}

fn bad_manifest(name: String, what: String) -> VerifiedLine {
    VerifiedLine {
        backup: name.clone(),
        ok: false,
        objects: 0,
        bytes: 0,
        records: 0,
        tenants: 0,
        faults: vec![DamagedLine::new(name, what)],
    }
}

/// Starts a drill.
pub(super) fn begin_drill(
    app: &App,
    backup: Option<BackupId>,
    scratch: Option<PathBuf>,
) -> Result<ControlReply, ControlError> {
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
