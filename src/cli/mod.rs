//! The command line: arguments to a command, a command to an exit code.
//!
//! 0: done. 1: it was tried and failed, or was refused, or what was looked at is not as it should be. 2: the
//! command line or the configuration is wrong, and nothing was tried. Results go to standard output, errors to
//! standard error.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use zeroize::Zeroizing;

use crate::config::{Config, ConfigError, Overrides};
use crate::control::client::ClientError;
use crate::control::{ControlCommand, ControlReply, client, error_chain};
use crate::runtime::StartError;
use crate::telemetry::TelemetryError;

mod archive;
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
mod trust;
mod user;

use output::Output;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 it failed or was refused, or what was verified does not hold; \
    2 the command line or the configuration is wrong, and nothing was tried.";

/// The tenant runtime: one binary that gives a multi-tenant service its whole backend.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, about, max_term_width = 100, propagate_version = true)]
#[command(after_help = EXIT_CODES)]
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
    /// Add and remove platform administrators.
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
            _ => 1,
        }
    }

    /// Whether the reader of standard output went away, as `head` does: no fault of anyone.
    fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Reads a whole file that an option names; `what` is what it should be. Whatever the name leads to, no more
/// is read than such a file may have.
fn read_small(path: &Path, bytes_max: u64, what: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    storage::scratch::read_secret(path, bytes_max).map_err(|source| match source.kind() {
        std::io::ErrorKind::FileTooLarge => CliError::Failed(format!(
            "{} is larger than the {bytes_max} bytes that {what} may have",
            path.display()
        )),
        _ => CliError::System { doing: format!("{} cannot be read", path.display()), source },
    })
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
    use crate::control::ControlError;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn configuration_and_usage_exit_with_2_and_whatever_fails_later_with_1() {
        let message = || "no".to_owned();
        let control = |error| CliError::Client(ClientError::Control(error));
        for error in [
            CliError::Usage(message()),
            CliError::Config(ConfigError::NoHome),
            control(ControlError::Invalid { message: message() }),
        ] {
            assert_eq!(error.exit_code(), 2, "{error}");
        }
        for error in [
            CliError::Failed(message()),
            CliError::Start(StartError::Died),
            CliError::Client(ClientError::Start(StartError::Died)),
            CliError::Client(ClientError::NoStore { dir: "/x".into() }),
            control(ControlError::Refused { message: message() }),
            control(ControlError::NoTenant { tenant: message() }),
        ] {
            assert_eq!(error.exit_code(), 1, "{error}");
        }
    }

    #[test]
    fn no_more_is_read_of_a_file_than_it_may_have() {
        let endless = read_small(Path::new("/dev/zero"), 100, "a key").expect_err("endless");
        assert!(endless.to_string().contains("larger than the 100 bytes that a key"), "{endless}");
        assert!(read_small(Path::new("/nowhere/key"), 100, "a key").is_err());
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        std::fs::write(&path, [7; 100]).expect("a file");
        assert_eq!(read_small(&path, 100, "a key").expect("its bytes").as_slice(), [7; 100]);
        assert!(read_small(&path, 99, "a key").is_err());
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(CliError::Output(gone).is_reader_gone());
    }
}
