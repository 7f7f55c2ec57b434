//! The command line: arguments to a command, a command to an exit code.
//!
//! 0: done. 1: the thing asked failed. 2: wrong usage or configuration. Results go to standard
//! output, errors to standard error.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides};
use crate::control::client::ClientError;
use crate::control::{ControlCommand, ControlReply, client, error_chain};
use crate::runtime::StartError;
use crate::telemetry::TelemetryError;

mod audit;
mod backup;
mod config;
mod demo;
mod drill;
mod erase;
mod keys;
mod output;
mod password;
mod platform_admin;
mod progress;
mod restore;
mod serve;
mod tenant;
mod user;

use output::Output;

/// The tenant runtime: one binary that gives a multi-tenant service its whole backend.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, about, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node.
    Serve(Place),
    /// Run a throw-away node with two seeded tenants, and print what to try.
    Demo(demo::Demo),
    /// Create, list, show, suspend and resume tenants.
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Add people to a tenant.
    #[command(subcommand)]
    User(user::User),
    /// Add platform administrators.
    #[command(subcommand)]
    PlatformAdmin(platform_admin::PlatformAdmin),
    /// Verify audit chains in the store.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Take, list and verify backups of the node.
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Restore a backup onto an empty machine.
    Restore(restore::Restore),
    /// Prove that a backup can be restored, by restoring it beside the node.
    Drill(drill::Drill),
    /// Show and rotate the key-encryption key.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Check and show the effective configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the OpenAPI document of the API.
    Openapi,
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Which configuration and which data.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Place {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory; wins over data.dir of the configuration.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Place {
    fn overrides(&self) -> Overrides {
        Overrides { data_dir: self.data.clone(), settings: Vec::new() }
    }

    /// The configuration to run a node with.
    fn load(&self) -> Result<Config, CliError> {
        Ok(Config::load(self.config.as_deref(), &self.overrides())?)
    }

    /// The configuration to look after a node with. A data directory that already holds a node's
    /// data is taken wherever it lies: nothing new is entrusted to it.
    fn load_existing(&self) -> Result<Config, CliError> {
        match self.load() {
            Err(CliError::Config(ConfigError::Temporary { dir, .. }))
                if dir.join("FORMAT").exists() =>
            {
                let overrides = self.overrides().set("data.allow_temporary", true);
                Ok(Config::load(self.config.as_deref(), &overrides)?)
            }
            loaded => loaded,
        }
    }

    /// Does `command` on the running node, or on the stopped one's data.
    fn control(&self, command: ControlCommand) -> Result<ControlReply, CliError> {
        Ok(client::run(self.load_existing()?, command)?)
    }

    /// Does `command`, which takes its time, and shows how far it is.
    fn control_long(&self, command: ControlCommand) -> Result<ControlReply, CliError> {
        let mut display = progress::Display::new();
        let watch = &mut |status: &_| display.show(status);
        Ok(client::run_job(self.load_existing()?, command, watch)?)
    }
}

/// Why a command ends with something else than 0.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Log lines cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Used wrongly in a way the parser cannot see.
    #[error("{0}")]
    Usage(String),
    /// The node could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It was done, and the outcome is bad.
    #[error("{0}")]
    Failed(String),
    /// The system refused something.
    #[error("{doing}")]
    System {
        /// What was tried.
        doing: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Standard output cannot be written.
    #[error("standard output cannot be written")]
    Output(#[source] std::io::Error),
}

impl CliError {
    fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Telemetry(_) | Self::Usage(_) => 2,
            Self::Client(ClientError::Control(error)) if error.is_usage() => 2,
            Self::Client(ClientError::NoStore { .. }) => 2,
            Self::Start(error) | Self::Client(ClientError::Start(error)) if error.is_choice() => 2,
            _ => 1,
        }
    }

    /// Whether the reader of standard output went away, as `head` does: no fault of anyone.
    fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Runs the program's own command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with exit code 0.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _closed = error.print();
            return ExitCode::from(code);
        }
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_reader_gone() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("error: {}", error_chain(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}

impl Cli {
    fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Serve(place) => serve::run(&place),
            Command::Demo(demo) => demo.run(),
            Command::Tenant(tenant) => tenant.run(),
            Command::User(user) => user.run(),
            Command::PlatformAdmin(admin) => admin.run(),
            Command::Audit(audit) => audit.run(),
            Command::Backup(backup) => backup.run(),
            Command::Restore(restore) => restore.run(),
            Command::Drill(drill) => drill.run(),
            Command::Keys(keys) => keys.run(),
            Command::Config(config) => config.run(),
            Command::Openapi => Output::new(true).json(&crate::http::openapi::document()),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "bulkhead", &mut script);
                Output::new(false).raw(&script)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn configuration_and_usage_exit_with_2_and_failures_with_1() {
        assert_eq!(CliError::Usage("no".to_owned()).exit_code(), 2);
        assert_eq!(CliError::Config(ConfigError::NoHome).exit_code(), 2);
        assert_eq!(CliError::Failed("broken".to_owned()).exit_code(), 1);
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(CliError::Output(gone).is_reader_gone());
    }
}
