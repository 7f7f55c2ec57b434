//! Writing a tenant to a bundle and taking one up from it, as an operator. The node reads and writes the
//! files: their paths are absolute, and its user has to be let in.
//!
//! Refuses: to write over anything. What was written of a bundle that could not be finished is removed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::audit::anchor::{AnchorError, signing_key};
use actors::audit::note::NoteVerifier;
use actors::backup::Told;
use actors::env::rfc3339;
use actors::tenant::clone::NoteCopy;
use actors::tenant::directory::by_the_node;
use actors::tenant::portable::PortableError;
use actors::tenant::portable::bundle::{Bundle, write_head};
use actors::tenant::portable::export::Exporter;
use actors::tenant::portable::import::{ImportOptions, Imported, import};
use actors::tenant::portable::key::BundleKey;
use actors::tenant::portable::manifest::{BundleManifest, SignedManifest};
use serde::{Deserialize, Serialize};
use storage::id::TenantId;

use super::restore::note_copy;
use super::{ControlError, ControlReply, REASON, error_chain, find};
use crate::http::app::App;
use crate::jobs::Progress;

/// A bundle, as its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleReport {
    /// The file.
    pub file: PathBuf,
    /// The tenant in it.
    pub tenant: TenantId,
    /// Its short name where it was.
    pub slug: String,
    /// The name people see.
    pub name: String,
    /// Its plan.
    pub plan: String,
    /// Where its data was.
    pub region: String,
    /// The node that wrote it.
    pub origin: String,
    /// That node's public key, as `--trust` takes it.
    pub signer: String,
    /// The release that wrote it.
    pub release: String,
    /// When, RFC 3339 UTC.
    pub exported_at: String,
    /// The last record of the state in it.
    pub lsn: u64,
    /// How many rows it has.
    pub rows: u64,
    /// Bytes of the sealed rows.
    pub bytes: u64,
    /// The digest of the sealed rows.
    pub sha256: String,
    /// Which key opens it.
    pub key_id: String,
    /// The hash of what is the tenant's: the same wherever it lives.
    pub content_hash: String,
    /// How many audit entries it has.
    pub entries: u64,
    /// The hash of the last one.
    pub audit_hash: String,
    /// Up to which entry a signed checkpoint covers them.
    pub anchored_seq: Option<u64>,
}

impl BundleReport {
    fn new(file: &Path, manifest: &BundleManifest, signer: &NoteVerifier) -> Self {
        Self {
            file: file.to_owned(),
            tenant: manifest.tenant,
            slug: manifest.slug.clone(),
            name: manifest.name.clone(),
            plan: manifest.plan.clone(),
            region: manifest.region.clone(),
            origin: manifest.origin.clone(),
            signer: signer.to_text(),
            release: manifest.release.clone(),
            exported_at: rfc3339(manifest.exported_ms),
            lsn: manifest.source.lsn,
            rows: manifest.payload.rows,
            bytes: manifest.payload.bytes,
            sha256: manifest.payload.sha256.to_string(),
            key_id: manifest.payload.key_id.clone(),
            content_hash: manifest.content_hash.to_string(),
            entries: manifest.audit.entries,
            audit_hash: manifest.audit.hash.to_string(),
            anchored_seq: manifest.checkpoint.as_ref().map(|checkpoint| checkpoint.seq),
        }
    }
}

/// What an import made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// Which tenant.
    pub tenant: TenantId,
    /// Its short name here.
    pub slug: String,
    /// The node it came from.
    pub origin: String,
    /// How many rows came along.
    pub rows: u64,
    /// How many audit entries came along.
    pub entries: u64,
    /// The hash of what is the tenant's.
    pub content_hash: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// What is to be taken up, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportOrder {
    /// The bundle, by its absolute path.
    pub file: PathBuf,
    /// Its key.
    pub key: BundleKey,
    /// The public key of the node it shall come from; the node's own if absent.
    pub trust: Option<String>,
    /// The short name the tenant gets; its own if absent.
    pub slug: Option<String>,
    /// The plan it gets; its own if absent.
    pub plan: Option<String>,
    /// Whether it may come from another region.
    pub region_change: bool,
}

/// Why a bundle was not written, read or taken up.
fn refused(file: &Path, error: &PortableError) -> ControlError {
    let name = file.display();
    let message = match error {
        PortableError::NoKey | PortableError::NoPublicKey { .. } => {
            return ControlError::invalid(error.to_string());
        }
        PortableError::Untrusted { key } => {
            format!(
                "{name} is signed by a key that nobody vouched for; if it is the key of the node it \
                 shall come from, say so with --trust {key}"
            )
        }
        PortableError::OtherRegion { .. } => format!("{error}: give --region-change"),
        PortableError::SlugTaken { .. } | PortableError::BadSlug { .. } => {
            format!("{error}: give --slug")
        }
        PortableError::NoPlan { .. } => format!("{error}: give --plan"),
        error => format!("{name}: {}", error_chain(error)),
    };
    ControlError::Refused { message }
}

fn file_error(file: &Path, doing: &str, error: &io::Error) -> ControlError {
    let message = match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} is there already, and nothing is written over", file.display())
        }
        io::ErrorKind::StorageFull => {
            format!("no space is left for {}; what was written of it was removed", file.display())
        }
        _ => format!("{} cannot be {doing}: {error}", file.display()),
    };
    ControlError::Refused { message }
}

/// A file that is removed again unless it was finished.
pub struct NewFile {
    file: File,
    path: PathBuf,
    is_kept: bool,
}

impl NewFile {
    /// Makes it, readable by its owner only.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if anything has that name.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, path: path.to_owned(), is_kept: false })
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes it last.
    ///
    /// # Errors
    /// If the disk does not take it; then it is removed.
    pub fn keep(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "an unfinished file stays");
        }
    }
}

/// What exports for this node.
///
/// # Errors
/// If its signing key cannot be had.
pub fn exporter(app: &App) -> Result<Exporter, AnchorError> {
    let signer = signing_key(app.store.keystore(), &app.config.node.origin, &app.env)?;
    Ok(Exporter {
        store: app.store.clone(),
        anchors: app.anchor.anchors().clone(),
        signer: Arc::new(signer),
        env: app.env.clone(),
    })
}

/// Writes a bundle to a file that is not there yet. Blocks.
///
/// # Errors
/// Whatever the file or the tenant's history says; nothing is left of the file then.
pub fn write_bundle(
    exporter: &Exporter,
    tenant: TenantId,
    key: &BundleKey,
    out: &Path,
    progress: &Progress,
) -> Result<SignedManifest, ControlError> {
    let file = NewFile::create(out).map_err(|error| file_error(out, "written", &error))?;
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    // Without a name it goes with the process, however that ends.
    let rows = NewFile::create(&part).map_err(|error| file_error(&part, "written", &error))?;
    let mut rows_file =
        rows.file().try_clone().map_err(|error| file_error(&part, "used", &error))?;
    drop(rows);
    progress.begin("reading rows", 0);
    let wrong = |error: PortableError| match error {
        PortableError::Io(error) => file_error(out, "written", &error),
        error => refused(out, &error),
    };
    let buffered = BufWriter::with_capacity(1 << 20, &rows_file);
    let signed =
        exporter.write_rows(tenant, key, buffered, &mut |done| progress.at(done)).map_err(wrong)?;
    let bytes = signed.claimed().payload.bytes;
    progress.begin("writing the file", bytes);
    let mut assemble = || {
        let mut target = BufWriter::new(file.file());
        write_head(&mut target, &signed)?;
        rows_file.rewind()?;
        io::copy(&mut rows_file, &mut target)?;
        target.flush()
    };
    assemble().and_then(|()| file.keep()).map_err(|error| file_error(out, "written", &error))?;
    progress.at(bytes);
    Ok(signed)
}

/// Starts the job that writes a bundle.
pub(super) fn begin_export(
    app: &App,
    tenant: &str,
    out: PathBuf,
    key: BundleKey,
) -> Result<ControlReply, ControlError> {
    let tenant = find(&app.tenants, tenant)?;
    must_be_absolute(&out)?;
    must_be_outside(&app.config.data.dir, &out)?;
    if app.tenants.is_being_erased(tenant) {
        return Err(being_erased());
    }
    let exporter =
        exporter(app).map_err(|error| ControlError::Refused { message: error_chain(&error) })?;
    let app_of_job = app.clone();
    app.jobs.begin(format!("the export of {tenant}"), move |progress| async move {
        let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let copy = NoteCopy { kind: "bundle", name, sanitise: false };
        note_copy(&app_of_job, tenant, copy).await?;
        let tenants = app_of_job.tenants.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let signed = write_bundle(&exporter, tenant, &key, &out, &progress)?;
            // Its erasure may have begun meanwhile.
            if tenants.is_being_erased(tenant) {
                std::fs::remove_file(&out).map_err(|error| file_error(&out, "removed", &error))?;
                return Err(being_erased());
            }
            let verifier = exporter.signer.verifier();
            let report = BundleReport::new(&out, signed.claimed(), &verifier);
            Ok(ControlReply::Exported(Box::new(report)))
        });
        worked.await.unwrap_or_else(|_| Err(died()))
    })
}

/// Starts the job that takes a tenant up from a bundle. What can be refused at once is.
pub(super) async fn begin_import(
    app: &App,
    order: ImportOrder,
) -> Result<ControlReply, ControlError> {
    must_be_absolute(&order.file)?;
    let own = app.anchor.verifier();
    let opened = tokio::task::spawn_blocking(move || {
        let opened = open_trusted(&order.file, order.trust.as_deref(), &own);
        (order, opened)
    });
    let (order, opened) = opened.await.map_err(|_| died())?;
    let (bundle, signer) = opened?;
    let tenant = bundle.claimed().tenant;
    let app_of_job = app.clone();
    app.jobs.begin(format!("the import of {tenant}"), move |progress| {
        take_up(app_of_job, order, bundle, signer, progress)
    })
}

/// A bundle whose manifest is signed by whom it has to be.
fn open_trusted(
    path: &Path,
    trust: Option<&str>,
    own: &NoteVerifier,
) -> Result<(Bundle<BufReader<File>>, NoteVerifier), ControlError> {
    let wrong = |error: PortableError| refused(path, &error);
    let file = File::open(path).map_err(|error| file_error(path, "read", &error))?;
    let bundle = Bundle::open(BufReader::new(file)).map_err(wrong)?;
    let signer = bundle.signer_trusted_by(trust, Some(own)).map_err(wrong)?;
    bundle.verify(&signer).map_err(wrong)?;
    Ok((bundle, signer))
}

async fn take_up(
    app: App,
    order: ImportOrder,
    bundle: Bundle<BufReader<File>>,
    signer: NoteVerifier,
    progress: Arc<Progress>,
) -> Result<ControlReply, ControlError> {
    let ImportOrder { file, key, slug, plan, region_change, .. } = order;
    let began = app.env.monotonic();
    let options = ImportOptions { slug, plan, region_change };
    let permit = || by_the_node(REASON);
    let made = import(&app.tenants, bundle, signer, key, options, permit, teller(progress)).await;
    let Imported { tenant, slug, origin, rows, entries, content_hash } =
        made.map_err(|error| refused(&file, &error))?;
    let took = app.env.monotonic().saturating_sub(began);
    Ok(ControlReply::Imported(ImportReport {
        tenant,
        slug,
        origin,
        rows,
        entries,
        content_hash: content_hash.to_string(),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }))
}

/// Reads a bundle without its key: who signed what, and that the bytes are those that were signed.
///
/// # Errors
/// [`ControlError::Refused`] says what is wrong with it.
pub fn inspect(file: &Path, trust: Option<&str>) -> Result<BundleReport, ControlError> {
    let wrong = |error: PortableError| refused(file, &error);
    let input = File::open(file).map_err(|error| file_error(file, "read", &error))?;
    let mut bundle = Bundle::open(BufReader::new(input)).map_err(wrong)?;
    let claimed = bundle.claimed_signer().map_err(wrong)?;
    let signer = bundle.signer_trusted_by(trust, Some(&claimed)).map_err(wrong)?;
    let manifest = bundle.verify(&signer).map_err(wrong)?.clone();
    bundle.check_payload(&mut |_| {}).map_err(wrong)?;
    Ok(BundleReport::new(file, &manifest, &signer))
}

fn teller(progress: Arc<Progress>) -> impl Fn(Told<'_>) + Clone + Send + 'static {
    move |told| match told {
        Told::Step { name, total } => progress.begin(name, total),
        Told::At(done) => progress.at(done),
    }
}

fn must_be_absolute(path: &Path) -> Result<(), ControlError> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err(ControlError::invalid(format!("{} is not an absolute path", path.display())))
    }
}

fn being_erased() -> ControlError {
    ControlError::refused("the tenant is being erased, or is: nothing of it is handed out any more")
}

/// What is not the node's own must not lie among its files: nothing says there what belongs to whom.
fn must_be_outside(data_dir: &Path, path: &Path) -> Result<(), ControlError> {
    let is_inside = |dir: &Path| path.parent().is_some_and(|parent| real(parent).starts_with(dir));
    match is_inside(&real(data_dir)) {
        true => Err(ControlError::refused(format!(
            "{} lies in the node's data directory {}; give a place outside of it",
            path.display(),
            data_dir.display(),
        ))),
        false => Ok(()),
    }
}

/// The path with its links resolved, if it is there.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn died() -> ControlError {
    ControlError::Refused { message: "the work died; the node's log says why".to_owned() }
}
