//! `bulkhead drill`: proves that a backup can be restored, by restoring it beside the node.

use std::path::PathBuf;

use storage::id::BackupId;

use crate::cli::CliError;
use crate::cli::tenant::{Common, unexpected};
use crate::control::{ControlCommand, ControlReply};

/// A restore drill.
#[derive(Debug, clap::Args)]
pub struct Drill {
    /// The backup's id; the newest if absent.
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    /// Where to restore to; in the data directory if absent. What is made there is removed again.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Drill {
    /// Does it. A drill that does not pass is a failure; its signed report stays in the archive.
    pub fn run(self) -> Result<(), CliError> {
        let Self { backup, scratch, common } = self;
        // The node has a working directory of its own.
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(CliError::system("the scratch directory is no path"))
        };
        let scratch = scratch.map(absolute).transpose()?;
        let reply = common.place.control_long(ControlCommand::Drill { backup, scratch })?;
        let ControlReply::Drilled(end) = reply else { return Err(unexpected()) };
        let text = || format!("{}report    {}", end.text, end.object);
        common.output().either(&end, text)?;
        match end.passed {
            true => Ok(()),
            false => Err(CliError::Failed("the drill failed".to_owned())),
        }
    }
}
