//! `bulkhead backup`: copies of the whole node that outlast it.

use actors::audit::note::NoteVerifier;
use actors::env::Env;
use clap::Subcommand;
use storage::archive::{Archive, SharedArchive};
use storage::id::BackupId;
use storage::scratch::Scratch;

use crate::cli::progress::Display;
use crate::cli::tenant::{Common, unexpected};
use crate::cli::trust::Trust;
use crate::cli::{CliError, archive, output};
use crate::control::backup::{self, BackupLine, BackupList, VerifiedLine, Wanted};
use crate::control::client::ClientError;
use crate::control::{ControlCommand, ControlReply};

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Take a backup now; only what is new is written. The node serves meanwhile.
    Run {
        /// A word about it, for the list. A backup with one is kept for 7 days at least.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List the backups, and why each is kept.
    List {
        #[command(flatten)]
        elsewhere: Elsewhere,
        #[command(flatten)]
        common: Common,
    },
    /// Verify that everything a backup needs is there, unchanged and complete.
    Verify {
        /// Its id; the newest if absent.
        #[arg(conflicts_with = "all")]
        id: Option<BackupId>,
        /// Verify all of them.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        elsewhere: Elsewhere,
        #[command(flatten)]
        common: Common,
    },
}

/// An archive whose node need not be there.
#[derive(Debug, clap::Args)]
pub struct Elsewhere {
    /// Look into this archive, without any node, data directory or key-encryption key: a directory,
    /// s3://bucket/prefix or gs://bucket/prefix. How a bucket is reached, --config says.
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    from: Option<String>,
    /// The public key that must have signed the backups: NAME+ID+KEY, as `bulkhead keys public` prints it, or
    /// a file with that line.
    #[arg(long, value_name = "KEY", value_parser = Trust::parse, requires = "from")]
    trust: Option<Trust>,
}

impl Backup {
    /// Does it. A backup that does not verify is a failure.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::Run { note, common } => {
                match common.place.control_long(ControlCommand::BackupRun { note })? {
                    ControlReply::Backup(line) => {
                        common.output().either(&line, || card(&line))?;
                        complete(&line)
                    }
                    _ => Err(unexpected()),
                }
            }
            Self::List { elsewhere, common } => {
                let found = match elsewhere.from {
                    Some(_) => elsewhere.list(&common)?,
                    None => match common.place.control(ControlCommand::BackupList)? {
                        ControlReply::Backups(found) => found,
                        _ => return Err(unexpected()),
                    },
                };
                common.output().either(&found, || list(&found))?;
                if found.backups.is_empty() && !found.damaged.is_empty() {
                    let text = format!("no backup there is to be believed under {}", found.signer);
                    return Err(CliError::Failed(text));
                }
                Ok(())
            }
            Self::Verify { id, all, elsewhere, common } => {
                let lines = match elsewhere.from {
                    Some(_) => elsewhere.verify(Wanted { backup: id, all }, &common)?,
                    None => {
                        let command = ControlCommand::BackupVerify { backup: id, all };
                        match common.place.control_long(command)? {
                            ControlReply::VerifiedBackups(lines) => lines,
                            _ => return Err(unexpected()),
                        }
                    }
                };
                common.output().either(&lines, || verified(&lines))?;
                verdict(&lines)
            }
        }
    }
}

impl Elsewhere {
    fn archive(&self, common: &Common) -> Result<SharedArchive, CliError> {
        let config = archive::config_without_node(common.place.config.as_deref())?;
        archive::source(&config, self.from.as_deref())
    }

    /// The key that is trusted. One that names no node is taken for that of the node that took the backups.
    fn verifier(&self, archive: &dyn Archive) -> Result<Option<NoteVerifier>, CliError> {
        let Some(trust) = &self.trust else { return Ok(None) };
        let claimed = backup::claimed_signer(archive).map_err(ClientError::Control)?;
        Ok(trust.verifier(claimed.name()))
    }

    fn list(&self, common: &Common) -> Result<BackupList, CliError> {
        let archive = self.archive(common)?;
        let trusted = self.verifier(&*archive)?;
        let is_trusted = trusted.is_some();
        let listed = match trusted {
            Some(verifier) => Ok(verifier),
            None => backup::claimed_signer(&*archive),
        };
        let listed = listed
            .and_then(|verifier| backup::list_in(&*archive, &verifier, Env::real().now_ms()))
            .map_err(ClientError::Control)?;
        Ok(BackupList { is_trusted, ..listed })
    }

    /// Objects are fetched into the directory for temporary files, one after another.
    fn verify(&self, wanted: Wanted, common: &Common) -> Result<Vec<VerifiedLine>, CliError> {
        let archive = self.archive(common)?;
        let Some(verifier) = self.verifier(&*archive)? else {
            let claimed = backup::claimed_signer(&*archive).map_err(ClientError::Control)?;
            return Err(CliError::Usage(format!(
                "whose backups are these? if {} is the public key of the node that took them, say so with \
                 --trust",
                claimed.to_text()
            )));
        };
        let name = format!("bulkhead-verify-{}", hex::encode(Env::real().random::<8>()));
        let scratch = Scratch::new(std::env::temp_dir().join(name));
        let mut display = Display::new();
        let nothing = &mut |_: &_, _: &_| {};
        let verified = backup::verify_in(
            &*archive,
            &verifier,
            wanted,
            &scratch,
            nothing,
            &mut display.teller(),
        );
        display.clear();
        Ok(verified.map_err(ClientError::Control)?)
    }
}

fn card(line: &BackupLine) -> String {
    format!(
        "id        {}\ntaken     {}\nsigned    {}\ntenants   {}\nobjects   {}\nnew       {}\ntotal     {}",
        line.id,
        line.taken_at,
        line.signer,
        line.tenants,
        line.objects,
        size(line.new_bytes),
        size(line.total_bytes),
    )
}

/// A backup that does not have all it needs is a failure, though it is there and better than none.
fn complete(line: &BackupLine) -> Result<(), CliError> {
    match line.faults.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(CliError::Failed(format!(
            "it was taken, but {} of what it needs is not in the archive as it should be, and no older backup \
             was removed; the first: {}: {}",
            line.faults.len(),
            first.object,
            first.what
        ))),
    }
}

fn list(found: &BackupList) -> String {
    let rows: Vec<_> = found
        .backups
        .iter()
        .map(|line| {
            let kept = line.kept.join(" ");
            [
                line.id.to_string(),
                line.taken_at.clone(),
                if kept.is_empty() { "-".to_owned() } else { kept },
                size(line.new_bytes),
                size(line.total_bytes),
                line.tenants.to_string(),
                line.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let head = ["ID", "TAKEN", "KEPT", "NEW", "TOTAL", "TENANTS", "NOTE"];
    let mut text = output::table(head, &rows);
    for damaged in &found.damaged {
        text.push_str(&format!("DAMAGED {}: {}\n", damaged.object, damaged.what));
    }
    text.push_str(&format!("in {}\nsigned by {}", found.location, found.signer));
    if !found.is_trusted {
        text.push_str("\n(so they say; give --trust with the public key of your node to be sure)");
    }
    text
}

fn verified(lines: &[VerifiedLine]) -> String {
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            [
                line.backup.clone(),
                if line.ok { "verified" } else { "DAMAGED" }.to_owned(),
                line.objects.to_string(),
                size(line.bytes),
                line.records.to_string(),
                line.tenants.to_string(),
            ]
        })
        .collect();
    let mut text =
        output::table(["BACKUP", "STATE", "OBJECTS", "BYTES", "RECORDS", "TENANTS"], &rows);
    for fault in lines.iter().flat_map(|line| &line.faults) {
        text.push_str(&format!("{}: {}", fault.object, fault.what));
        if !fault.also_in.is_empty() {
            let others: Vec<_> = fault.also_in.iter().map(ToString::to_string).collect();
            text.push_str(&format!("; also needed by {}", others.join(" ")));
        }
        text.push('\n');
    }
    text
}

fn verdict(lines: &[VerifiedLine]) -> Result<(), CliError> {
    let bad = lines.iter().filter(|line| !line.ok).count();
    let first = lines.iter().flat_map(|line| &line.faults).next();
    match first {
        None => Ok(()),
        Some(fault) => Err(CliError::Failed(format!(
            "{bad} of {} backups do not verify; the first fault: {}: {}",
            lines.len(),
            fault.object,
            fault.what
        ))),
    }
}

/// A number of bytes in its largest unit (powers of 1024).
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }
}
