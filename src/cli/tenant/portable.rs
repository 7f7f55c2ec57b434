//! `bulkhead tenant export|import|inspect-bundle`: moving a tenant from one node to another.
//!
//! The key of a bundle is made here, goes to a file of its own or to standard output, and is kept nowhere
//! else. Refuses: to write over a file.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use actors::env::Env;
use actors::tenant::portable::key::BundleKey;

use super::{Common, unexpected};
use crate::cli::output::Output;
use crate::cli::trust::Trust;
use crate::cli::{CliError, read_small};
use crate::control::client::ClientError;
use crate::control::portable::{BundleReport, ImportOrder, ImportReport, NewFile, inspect};
use crate::control::{ControlCommand, ControlReply};

/// Bytes of a file with a bundle's key at most.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Writes a tenant to a bundle.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Its id or short name.
    tenant: String,
    /// The bundle to write. The node writes it, so its user has to be let in.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print the bundle's key instead of writing it to FILE.key.
    #[arg(long)]
    print_key: bool,
    #[command(flatten)]
    common: Common,
}

/// Takes up a tenant from a bundle.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// The bundle.
    file: PathBuf,
    /// The file with its key.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The public key of the node it shall come from: NAME+ID+KEY, as `bulkhead keys public` prints it there, or
    /// a file with that line; this node's own if absent.
    #[arg(long, value_name = "KEY", value_parser = Trust::parse)]
    trust: Option<Trust>,
    /// Another short name than the one it has.
    #[arg(long)]
    slug: Option<String>,
    /// Another plan than the one it has.
    #[arg(long)]
    plan: Option<String>,
    /// Take it up although it comes from another region.
    #[arg(long)]
    region_change: bool,
    #[command(flatten)]
    common: Common,
}

/// Shows what a bundle is, and checks its signature and its bytes. Takes no key and no node.
#[derive(Debug, clap::Args)]
pub struct InspectBundle {
    /// The bundle.
    file: PathBuf,
    /// The public key that has to have signed it: NAME+ID+KEY, as `bulkhead keys public` prints it, or a file
    /// with that line; the one in it if absent.
    #[arg(long, value_name = "KEY", value_parser = Trust::parse)]
    trust: Option<Trust>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Export {
    /// Does it. The key is on its disk before the bundle is.
    pub fn run(self) -> Result<(), CliError> {
        let Self { tenant, out, print_key, common } = self;
        let out = absolute(&out)?;
        let key = BundleKey::generate(&Env::real());
        let key_path = key_path(&out);
        let key_file = if print_key { None } else { Some(write_key(&key_path, &key)?) };
        let command = ControlCommand::ExportTenant { tenant, out, key: key.clone() };
        let report = match common.place.control_long(command)? {
            ControlReply::Exported(report) => *report,
            _ => return Err(unexpected()),
        };
        if let Some(file) = key_file {
            let doing = format!("{} cannot be kept", key_path.display());
            file.keep().map_err(CliError::system(doing))?;
        }
        let shown = Exported {
            key: print_key.then(|| key.to_text().to_string()),
            key_file: (!print_key).then_some(key_path),
            bundle: report,
        };
        common.output().either(&shown, || shown.card())
    }
}

/// What an export says.
#[derive(serde::Serialize)]
struct Exported {
    #[serde(flatten)]
    bundle: BundleReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Exported {
    fn card(&self) -> String {
        let key = match (&self.key_file, &self.key) {
            (Some(file), _) => format!("key      in {}", file.display()),
            (None, key) => format!("key      {}", key.as_deref().unwrap_or_default()),
        };
        format!("{}\n{key}", card(&self.bundle))
    }
}

impl Import {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        let Self { file, key_file, trust, slug, plan, region_change, common } = self;
        let order = ImportOrder {
            file: absolute(&file)?,
            key: read_key(&key_file)?,
            trust: trust.map(|trust| trust.text().to_owned()),
            slug,
            plan,
            region_change,
        };
        match common.place.control_long(ControlCommand::ImportTenant(order))? {
            ControlReply::Imported(report) => common.output().either(&report, || imported(&report)),
            _ => Err(unexpected()),
        }
    }
}

impl InspectBundle {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        let report = inspect(&self.file, self.trust.as_ref().map(Trust::text))
            .map_err(ClientError::Control)?;
        Output::new(self.json).either(&report, || card(&report))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    let doing = format!("{} is no path", path.display());
    std::path::absolute(path).map_err(CliError::system(doing))
}

fn key_path(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".key");
    name.into()
}

fn write_key(path: &Path, key: &BundleKey) -> Result<NewFile, CliError> {
    let doing = || format!("{} cannot be written", path.display());
    let file = NewFile::create(path).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => CliError::Failed(format!(
            "{} is there already, and nothing is written over",
            path.display()
        )),
        _ => CliError::System { doing: doing(), source },
    })?;
    let text = key.to_text();
    let written =
        file.file().write_all(text.as_bytes()).and_then(|()| file.file().write_all(b"\n"));
    written.map_err(CliError::system(doing()))?;
    Ok(file)
}

fn read_key(path: &Path) -> Result<BundleKey, CliError> {
    let bytes = read_small(path, KEY_FILE_BYTES_MAX, "the key of a bundle")?;
    // What is no text is no key either.
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    text.parse().map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
}

fn card(report: &BundleReport) -> String {
    format!(
        "file     {}\ntenant   {}\nslug     {}\nname     {}\nplan     {}\nregion   {}\norigin   {}\nsigner   {}\n\
         written  {} by release {}\nrows     {} in {} bytes, up to record {}\ncontent  {}\n\
         audit    {} entries, the last one {}\nanchored {}\nkey id   {}",
        report.file.display(),
        report.tenant,
        report.slug,
        report.name,
        report.plan,
        report.region,
        report.origin,
        report.signer,
        report.exported_at,
        report.release,
        report.rows,
        report.bytes,
        report.lsn,
        report.content_hash,
        report.entries,
        report.audit_hash,
        report.anchored_seq.map_or_else(|| "no".to_owned(), |seq| format!("up to entry {seq}")),
        report.key_id,
    )
}

fn imported(report: &ImportReport) -> String {
    format!(
        "tenant   {}\nslug     {}\norigin   {}\nrows     {}\naudit    {} entries\ncontent  {}\ntook     {} ms",
        report.tenant,
        report.slug,
        report.origin,
        report.rows,
        report.entries,
        report.content_hash,
        report.took_ms,
    )
}
