//! `bulkhead keys`: the key that all other keys are wrapped with, and the keys that customers hold.

use clap::Subcommand;
use storage::keystore::source::SourceSpec;

use crate::cli::tenant::{Common, unexpected};
use crate::cli::{CliError, output};
use crate::control::customer_key::{KeyOrder, parse_source};
use crate::control::keys::{KeysReport, RotationReport, age};
use crate::control::{ControlCommand, ControlReply};

/// What to do with the key-encryption key.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// List the versions and how much is wrapped with each.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Say how old the current version is and whether a rotation is to be finished.
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Print the node's public key, which signs backups, bundles, receipts and checkpoints: what --trust takes.
    Public {
        #[command(flatten)]
        common: Common,
    },
    /// Make or take the next version and wrap every key with it; nobody is interrupted.
    Rotate {
        /// Take no new version: only finish a rotation that was interrupted.
        #[arg(long)]
        resume: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Wrap a tenant's key with its customer's key as well: who pulls that seals the tenant.
    Hold {
        /// The tenant's id or short name.
        #[arg(long)]
        tenant: String,
        /// Where the customer's key is: file:/PATH, directory:/PATH, exec:/PROGRAM, or a PKCS#11 URI
        /// with token, object, module-path and pin-source.
        #[arg(long, value_name = "SOURCE", value_parser = parse_source)]
        source: SourceSpec,
        #[command(flatten)]
        common: Common,
    },
    /// Take the customer's layer off a tenant's key again; the customer's key is needed once more.
    Release {
        /// The tenant's id or short name.
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        common: Common,
    },
}

impl Keys {
    /// Does it. A key that cannot be wrapped again is a failure, and so is a rotation to nowhere.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::List { common } => {
                let report = status(&common)?;
                common.output().either(&report.versions, || list(&report))
            }
            Self::Status { common } => {
                let report = status(&common)?;
                common.output().either(&report, || card(&report))
            }
            Self::Public { common } => match common.place.control(ControlCommand::PublicKey)? {
                ControlReply::PublicKey(report) => {
                    common.output().either(&report, || report.public_key.clone())
                }
                _ => Err(unexpected()),
            },
            Self::Hold { tenant, source, common } => {
                change_holder(KeyOrder::Hold { tenant, source }, &common)
            }
            Self::Release { tenant, common } => {
                change_holder(KeyOrder::Release { tenant }, &common)
            }
            Self::Rotate { resume, common } => {
                let reply = common.place.control(ControlCommand::RotateKek { resume })?;
                let ControlReply::Rotated(report) = reply else { return Err(unexpected()) };
                common.output().either(&report, || rotated(&report))?;
                if let Some(why) = &report.not_recorded {
                    eprintln!(
                        "warning: the audit log has the begin of this rotation, but not its end: {why}"
                    );
                }
                verdict(&report, resume)
            }
        }
    }
}

fn status(common: &Common) -> Result<KeysReport, CliError> {
    match common.place.control(ControlCommand::KeysStatus)? {
        ControlReply::Keys(report) => Ok(report),
        _ => Err(unexpected()),
    }
}

fn change_holder(order: KeyOrder, common: &Common) -> Result<(), CliError> {
    match common.place.control(ControlCommand::CustomerKey(order))? {
        ControlReply::KeyHolder(report) => common.output().either(&report, || {
            format!("tenant  {}\nslug    {}\nholder  {}", report.tenant, report.slug, report.holder)
        }),
        _ => Err(unexpected()),
    }
}

fn list(report: &KeysReport) -> String {
    let rows: Vec<_> = report
        .versions
        .iter()
        .map(|version| {
            [
                version.id.clone(),
                if version.current { "current" } else { "older" }.to_owned(),
                version.wrapped.to_string(),
                version.created_at.clone().unwrap_or_else(|| "-".to_owned()),
                version.name.clone(),
            ]
        })
        .collect();
    output::table(["ID", "USE", "WRAPPED", "SINCE", "NAME"], &rows)
}

fn card(report: &KeysReport) -> String {
    let current = report.versions.iter().find(|version| version.current);
    let mut text = format!(
        "source      {}\ncurrent     {}\nage         {}\nwrapped     {}\ncustomers   {}\nunreadable  {}\nrotation    {}",
        report.source,
        current.map_or("-", |version| &version.id),
        age(report.age_s),
        report.versions.iter().map(|version| version.wrapped).sum::<u64>(),
        report.held_by_customers,
        report.unreadable,
        report.rotation,
    );
    match &*report.rotation {
        "interrupted" => text.push_str("; finish it with `bulkhead keys rotate --resume`"),
        "due" => text.push_str(
            ": not all is wrapped with the current version; `bulkhead keys rotate` does that",
        ),
        _ => {}
    }
    text
}

fn rotated(report: &RotationReport) -> String {
    let mut text = format!(
        "current    {}\nprevious   {}\nrewrapped  {} of {}\nfailed     {}\nretired    {}",
        report.current,
        report.previous,
        report.rewrapped,
        report.total,
        report.failed,
        if report.retired.is_empty() { "-".to_owned() } else { report.retired.join(" ") },
    );
    if report.retired.is_empty() {
        return text;
    }
    let (kept, gone): (Vec<_>, Vec<_>) =
        report.retired.iter().partition(|id| !report.destroyed.contains(id));
    if !gone.is_empty() {
        text.push_str("\n\ndestroyed on this node: ");
        text.push_str(&join(&gone));
    }
    if !kept.is_empty() {
        text.push_str("\n\nno longer needed by this node, for you to destroy at its source: ");
        text.push_str(&join(&kept));
    }
    text.push_str(
        "\nbackups from before open with the old version only: keep a copy of it as long as you keep them, \
         and run `bulkhead backup run` for one that needs the new version",
    );
    if report.source == "file" {
        text.push_str("; copy keys/kek again to where you keep it");
    }
    text
}

fn join(ids: &[&String]) -> String {
    ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ")
}

fn verdict(report: &RotationReport, resume: bool) -> Result<(), CliError> {
    if let Some(first) = report.failures.first() {
        let failed = report.failed;
        let text = format!("{failed} keys could not be wrapped again; the first: {first}");
        return Err(CliError::Failed(text));
    }
    if !resume && report.current == report.previous && report.rewrapped == 0 {
        return Err(CliError::Failed(format!(
            "the source still calls {} current: put a new version there first",
            report.current
        )));
    }
    Ok(())
}
