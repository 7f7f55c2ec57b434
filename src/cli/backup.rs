//! `bulkhead backup`: copies of the whole node that outlast it.

use clap::Subcommand;

use crate::cli::tenant::{Common, unexpected};
use crate::cli::{CliError, output};
use crate::control::backup::{BackupLine, BackupList, VerifiedLine};
use crate::control::{ControlCommand, ControlReply};

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Take a backup now; only what is new is written. The node serves meanwhile.
    Run {
        /// A word about it, for the list.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List the backups, and why each is kept.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Verify that everything a backup needs is there, unchanged and complete.
    Verify {
        /// Its id; the newest if absent.
        #[arg(conflicts_with = "all")]
        id: Option<String>,
        /// Verify all of them.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
}

impl Backup {
    /// Does it. A backup that does not verify is a failure.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::Run { note, common } => {
                match common.place.control_long(ControlCommand::BackupRun { note })? {
                    ControlReply::Backup(line) => common.output().either(&line, || card(&line)),
                    _ => Err(unexpected()),
                }
            }
            Self::List { common } => match common.place.control(ControlCommand::BackupList)? {
                ControlReply::Backups(found) => common.output().either(&found, || list(&found)),
                _ => Err(unexpected()),
            },
            Self::Verify { id, all, common } => {
                let command = ControlCommand::BackupVerify { backup: id, all };
                let reply = common.place.control_long(command)?;
                let ControlReply::VerifiedBackups(lines) = reply else { return Err(unexpected()) };
                common.output().either(&lines, || verified(&lines))?;
                verdict(&lines)
            }
        }
    }
}

fn card(line: &BackupLine) -> String {
    format!(
        "id        {}\ntaken     {}\ntenants   {}\nobjects   {}\nnew       {}\ntotal     {}",
        line.id,
        line.taken_at,
        line.tenants,
        line.objects,
        size(line.new_bytes),
        size(line.total_bytes),
    )
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
    text.push_str(&format!("in {}", found.location));
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
        text.push_str(&format!("{}: {}\n", fault.object, fault.what));
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
