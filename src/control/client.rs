//! The command line's way to a data directory: asks the running node, and opens the store itself
//! when none runs. Never does both: the store's lock sees to that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use crate::control::{ControlCommand, ControlError, ControlReply, local};
use crate::jobs::JobStatus;
use crate::runtime::StartError;
use crate::runtime::presence::{self, Presence};

/// How long a command may take on the node. Verifying a large store takes its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a running node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a command did not reach a node.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The node did it not.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The store could not be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nothing was ever stored there, so there is nothing to look at.
    #[error("{} holds no store: start one with `bulkhead serve`, or give the --data or --config that it runs with", dir.display())]
    NoStore {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory says a node runs, but its token cannot be read.
    #[error("the operator token {} cannot be read", path.display())]
    Token {
        /// The token file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The running node did not answer as it should.
    #[error("the node at {url} did not answer as it should: {reason}")]
    Node {
        /// Its operators' listener.
        url: String,
        /// What happened.
        reason: String,
    },
}

/// Does `command` on the node of `config`'s data directory.
pub fn run(config: Config, command: ControlCommand) -> Result<ControlReply, ClientError> {
    run_job(config, command, &mut |_| {})
}

/// Does `command` and, if it starts a job, waits for its end; tells `watch` how far it is.
pub fn run_job(
    config: Config,
    command: ControlCommand,
    watch: &mut dyn FnMut(&JobStatus),
) -> Result<ControlReply, ClientError> {
    let dir = config.data.dir.clone();
    let Some(presence) = presence::read(&dir).filter(Presence::is_alive) else {
        return in_place(config, command, watch);
    };
    if !presence.is_of(&dir) {
        // What it says was copied with the directory. The node it names serves another one.
        eprintln!(
            "note: {} is a copy of the directory of a running node (pid {}); the copy itself is opened, that node is not asked",
            dir.display(),
            presence.pid
        );
        return in_place(config, command, watch);
    }
    let Some(mut reply) = ask(&dir, &presence, &command)? else {
        // Its listener is gone: it is about to end. Its lock says whether it has.
        return in_place(config, command, watch);
    };
    while let ControlReply::Job(status) = reply {
        watch(&status);
        if let Some(outcome) = status.outcome {
            return Ok(*outcome?);
        }
        pause();
        let question = ControlCommand::JobStatus { job: status.job };
        let gone = || ClientError::Node {
            url: presence.ops.clone(),
            reason: "it stopped before the work was done".to_owned(),
        };
        reply = ask(&dir, &presence, &question)?.ok_or_else(gone)?;
    }
    Ok(reply)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program's own thread, between two looks at a job"
)]
fn pause() {
    std::thread::sleep(local::LOOK_EVERY);
}

/// Does `command` on a directory that no node uses. Only what makes something makes a store too.
fn in_place(
    config: Config,
    command: ControlCommand,
    watch: &mut dyn FnMut(&JobStatus),
) -> Result<ControlReply, ClientError> {
    let dir = config.data.dir.clone();
    if !dir.join("FORMAT").exists() {
        let makes_something = matches!(
            command,
            ControlCommand::CreateTenant { .. }
                | ControlCommand::CreatePlatformAdmin { .. }
                | ControlCommand::ImportTenant(_)
        );
        if !makes_something {
            return Err(ClientError::NoStore { dir });
        }
        eprintln!("note: {} holds no store yet; a new one is made there", dir.display());
    }
    local::run(config, command, watch)
}

/// Asks a running node; nothing if nobody listens there.
fn ask(
    dir: &Path,
    presence: &Presence,
    command: &ControlCommand,
) -> Result<Option<ControlReply>, ClientError> {
    let path = presence::token_path(dir);
    let token =
        std::fs::read_to_string(&path).map_err(|source| ClientError::Token { path, source })?;
    let url = format!("{}/control", presence.ops);
    let failed = |reason: String| ClientError::Node { url: presence.ops.clone(), reason };
    let body = serde_json::to_vec(command).map_err(|error| failed(error.to_string()))?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(ANSWER_TIMEOUT))
        .build()
        .into();
    let sent = agent
        .post(&url)
        .header("authorization", format!("Bearer {}", token.trim()))
        .header("content-type", "application/json")
        .send(&body[..]);
    let mut response = match sent {
        Ok(response) => response,
        Err(ureq::Error::ConnectionFailed) => return Ok(None),
        Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    let status = response.status();
    let answer = response
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_vec()
        .map_err(|error| failed(error.to_string()))?;
    if status != 200 {
        return Err(failed(format!("status {status}")));
    }
    let outcome: Result<ControlReply, ControlError> =
        serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))?;
    Ok(Some(outcome?))
}
