//! `bulkhead restore`: a new node from a backup. Needs no running node, and no data directory but the new
//! one.

use std::path::{Path, PathBuf};

use actors::audit::note::NoteVerifier;
use actors::backup::restore::{KekFrom, RestoreOptions, Restored, restore};
use actors::env::{Env, rfc3339};
use serde::Serialize;
use storage::id::BackupId;

use crate::cli::output::Output;
use crate::cli::progress::Display;
use crate::cli::trust::Trust;
use crate::cli::{CliError, archive};
use crate::config::{Config, KeySource};
use crate::control::error_chain;

/// A restore of a whole node.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The archive that has the backup: a directory, s3://bucket/prefix or gs://bucket/prefix; the
    /// configured archive if absent. How a bucket is reached, the configuration says.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The backup's id; the newest if absent.
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    /// The new data directory; must be empty or not there.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// A copy of the key-encryption key: the file keys/kek of the node that took the backup. Not needed
    /// where the configuration names another source.
    #[arg(long, value_name = "FILE")]
    kek: Option<PathBuf>,
    /// The public key that must have signed the backup: NAME+ID+KEY, as `bulkhead keys public` prints it, or
    /// a file with that line; the one in the backup if absent.
    #[arg(long, value_name = "KEY", value_parser = Trust::parse)]
    trust: Option<Trust>,
    /// The new node's own archive, which must be empty; `archive` in the new directory if absent.
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    backup: BackupId,
    taken_at: String,
    origin: &'a str,
    region: &'a str,
    public_key: String,
    tenants: u64,
    erased: u64,
    records: u64,
    objects: u64,
    bytes: u64,
    data: &'a Path,
    archive: String,
    /// The command that starts the new node.
    start: String,
    /// What its configuration must say for that.
    needs: Vec<String>,
}

impl Restore {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        let into = std::path::absolute(&self.into)
            .map_err(CliError::system("the new data directory is no path"))?;
        // It is the operator who chooses where to; the node asks again when it is started there.
        let config = archive::config_for(self.config.as_deref(), into.clone())?;
        let options = self.options(&config, into)?;
        let mut display = Display::new();
        let restored = restore(&options, &Env::real(), &mut display.teller());
        display.clear();
        let restored = restored.map_err(|error| CliError::Failed(error_chain(&error)))?;
        let (start, needs) = self.start(&restored, &options, &config);
        let report = Report { start, needs, ..report(&restored, &options) };
        Output::new(self.json).either(&report, || card(&report))
    }

    /// The command that starts the new node, and what its configuration must say besides.
    fn start(
        &self,
        restored: &Restored,
        options: &RestoreOptions,
        config: &Config,
    ) -> (String, Vec<String>) {
        let place = self.config.as_ref().map(|path| format!("--config {} ", path.display()));
        let start =
            format!("bulkhead serve {}--data {}", place.unwrap_or_default(), options.dir.display());
        let mut needs = Vec::new();
        let origin = &restored.manifest.origin;
        if *origin != config.node.origin {
            needs.push(format!("node.origin = {origin:?}"));
        }
        if self.archive.is_some() || !config.archive.url.is_empty() {
            needs.push(format!("archive.url = {:?}", options.archive.url));
        }
        (start, needs)
    }

    fn options(&self, config: &Config, into: PathBuf) -> Result<RestoreOptions, CliError> {
        let from = archive::source(config, self.from.as_deref())?;
        let kek = match (&self.kek, config.keys.source) {
            (Some(file), _) => {
                let unreadable = CliError::system(format!("--kek {}", file.display()));
                std::fs::File::open(file).map_err(unreadable)?;
                KekFrom::File(file.clone())
            }
            (None, KeySource::File) => {
                let text =
                    "which key-encryption key? give --kek, the copy of keys/kek that you kept";
                return Err(CliError::Usage(text.to_owned()));
            }
            (None, _) => KekFrom::Source,
        };
        Ok(RestoreOptions {
            from,
            backup: self.backup,
            archive: archive::target(config, self.archive.as_deref(), &into)?,
            dir: into,
            kek,
            keys: config.keys.options(),
            trust: self.trust.as_ref().and_then(Trust::public_key),
        })
    }
}

fn report<'a>(restored: &'a Restored, options: &'a RestoreOptions) -> Report<'a> {
    let manifest = &restored.manifest;
    // What signed a manifest under a name has that name.
    let signer = NoteVerifier::new(&manifest.origin, restored.public_key);
    Report {
        backup: manifest.id,
        taken_at: rfc3339(manifest.taken_ms),
        origin: &manifest.origin,
        region: &manifest.region,
        public_key: signer.map(|key| key.to_text()).unwrap_or_default(),
        tenants: manifest.tenants.len() as u64,
        erased: restored.verified.erased.len() as u64,
        records: restored.verified.records,
        objects: restored.verified.objects,
        bytes: restored.verified.bytes,
        data: &options.dir,
        archive: restored.archive.location(),
        start: String::new(),
        needs: Vec::new(),
    }
}

fn card(report: &Report<'_>) -> String {
    let needs = match report.needs.as_slice() {
        [] => String::new(),
        needs => format!(", with {} in its configuration", needs.join(" and ")),
    };
    format!(
        "backup    {}\ntaken     {}\nsigned    {}\norigin    {}\ntenants   {}, {} of them erased\n\
         records   {} checked\nobjects   {}, {}\ndata      {}\narchive   {}\n\n\
         start it with `{}`{needs}",
        report.backup,
        report.taken_at,
        report.public_key,
        report.origin,
        report.tenants,
        report.erased,
        report.records,
        report.objects,
        crate::cli::backup::size(report.bytes),
        report.data.display(),
        report.archive,
        report.start,
    )
}
