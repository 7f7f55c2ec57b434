//! `bulkhead restore`: a new node from a backup. Needs no running node, and no data directory but the new
//! one.

use std::path::{Path, PathBuf};

use actors::backup::Told;
use actors::backup::restore::{KekFrom, RestoreOptions, Restored, restore};
use actors::env::{Env, rfc3339};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use storage::archive::{ArchiveError, ArchiveOptions, ObjectArchive, Place, SharedArchive};
use storage::id::BackupId;

use crate::cli::CliError;
use crate::cli::output::Output;
use crate::cli::progress::Display;
use crate::config::{Config, KeySource, Overrides, archive_options};
use crate::control::error_chain;
use crate::jobs::JobStatus;

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
    /// The public key that must have signed the backup, base64; the one in the backup if absent.
    #[arg(long, value_name = "KEY")]
    trust: Option<String>,
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
        let overrides = Overrides { data_dir: Some(into.clone()), settings: Vec::new() };
        // It is the operator who chooses where to; the node asks again when it is started there.
        let overrides = overrides.set("data.allow_temporary", true);
        let config = Config::load(self.config.as_deref(), &overrides)?;
        let options = self.options(&config, into)?;
        let mut display = Display::new();
        let mut status =
            JobStatus { job: 0, step: String::new(), done: 0, total: 0, outcome: None };
        let restored = restore(&options, &Env::real(), &mut |told| {
            match told {
                Told::Step { name, total } => {
                    (status.step, status.done, status.total) = (name.to_owned(), 0, total);
                }
                Told::At(done) => status.done = done,
            }
            display.show(&status);
        });
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
        let from = match (&self.from, config.archive.url.as_str()) {
            (Some(from), _) => location(from)?,
            (None, "") => {
                let text = "which archive? give --from, or --config with an archive.url";
                return Err(CliError::Usage(text.to_owned()));
            }
            (None, configured) => configured.to_owned(),
        };
        let archive = match &self.archive {
            Some(archive) => location(archive)?,
            None => into.join("archive").display().to_string(),
        };
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
            from: open(reach(config, from)?)?,
            backup: self.backup,
            dir: into,
            archive: reach(config, archive)?,
            kek,
            keys: config.keys.options(),
            trust: self.trust.as_deref().map(public_key).transpose()?,
        })
    }
}

fn location(text: &str) -> Result<String, CliError> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(text).map_err(CliError::system("the archive is no path"))?;
    Ok(path.display().to_string())
}

fn reach(config: &Config, url: String) -> Result<ArchiveOptions, CliError> {
    let options = archive_options(config).map_err(|error| CliError::Usage(error_chain(&error)))?;
    Ok(ArchiveOptions { url, ..options })
}

fn open(options: ArchiveOptions) -> Result<SharedArchive, CliError> {
    let usage = |error: ArchiveError| CliError::Usage(error_chain(&error));
    match Place::parse(&options.url).map_err(usage)? {
        Place::Local(dir) if !dir.is_dir() => {
            Err(CliError::Usage(format!("there is no archive {}", dir.display())))
        }
        _ => ObjectArchive::open(&options).map_err(usage),
    }
}

fn public_key(text: &str) -> Result<[u8; 32], CliError> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    let wrong =
        || CliError::Usage("--trust takes the 32 bytes of a public key in base64".to_owned());
    bytes.ok_or_else(wrong)
}

fn report<'a>(restored: &'a Restored, options: &'a RestoreOptions) -> Report<'a> {
    let manifest = &restored.manifest;
    Report {
        backup: manifest.id,
        taken_at: rfc3339(manifest.taken_ms),
        origin: &manifest.origin,
        region: &manifest.region,
        public_key: STANDARD.encode(restored.public_key),
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
        "backup    {}\ntaken     {}\nsigned    {} (node.origin {})\ntenants   {}, {} of them erased\n\
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
