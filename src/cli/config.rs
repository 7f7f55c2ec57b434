//! `bulkhead config`: the effective configuration.

use clap::Subcommand;

use crate::cli::CliError;
use crate::cli::tenant::Common;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration and print what is in effect, secrets masked.
    Check {
        #[command(flatten)]
        common: Common,
    },
}

impl ConfigCommand {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        let Self::Check { common } = self;
        let config = common.place.load()?;
        common.output().either(&config.masked_json(), || config.masked_toml())
    }
}
