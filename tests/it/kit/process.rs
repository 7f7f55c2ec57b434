//! The real program as a child process, on a directory and ports of its own. Ends only what it
//! started, by its handle.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use actors::env::{Clock, SystemClock};
use bulkhead::runtime::presence;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::client::Client;
use super::eventually::eventually;
use super::world::rates;

/// The program on a data directory, with its settings, not started yet.
#[derive(Clone)]
pub struct Launcher {
    pub data: PathBuf,
    variables: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// What was printed, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
    /// Itself, if it ended with that code.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

impl Launcher {
    /// On a data directory, with free ports and without rates.
    pub fn on(data: &Path) -> Self {
        let launcher = Self::bare(data).set("http.workers", "2").set("signup.plan", "pro");
        rates().fold(launcher, |launcher, (class, scope)| {
            launcher.set(&format!("rate.{class}.{scope}"), "off")
        })
    }

    /// On a data directory, with free ports and else as it comes.
    pub fn bare(data: &Path) -> Self {
        Self { data: data.to_owned(), variables: Vec::new() }
            .set("http.bind", "127.0.0.1:0")
            .set("ops.bind", "127.0.0.1:0")
            .set("data.allow_temporary", "true")
    }

    /// Sets one configuration key, by its environment variable.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("BULKHEAD__{}", key.to_uppercase().replace('.', "__"));
        self.variables.push((name, value.to_owned()));
        self
    }
    /// Sets any environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(words).stdin(Stdio::null()).env("BULKHEAD__DATA__DIR", &self.data);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Outcome {
        let output = self.command(words).output().expect("the program runs");
        Outcome {
            code: output.status.code().expect("it ends by itself"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Starts a command that goes on until it is told to stop.
    pub fn launch(&self, words: &[&str]) -> Process {
        let file = || NamedTempFile::new().expect("a file");
        let (stdout, stderr) = (file(), file());
        let handle = |file: &NamedTempFile| Stdio::from(file.reopen().expect("the file again"));
        let mut command = self.command(words);
        command.stdout(handle(&stdout)).stderr(handle(&stderr));
        let clock = SystemClock::new();
        let child = command.spawn().expect("the program starts");
        let (client, ops) = (Client::new(""), Client::new(""));
        let ready_after = Duration::ZERO;
        Process { client, ops, ready_after, child, data: self.data.clone(), clock, stdout, stderr }
    }

    /// Starts a node and waits until it serves.
    pub fn serve(&self) -> Process {
        self.try_serve().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts a node and waits until it serves, or says why it ended instead.
    pub fn try_serve(&self) -> Result<Process, String> {
        let mut process = self.launch(&["serve"]);
        process.try_until_ready().map(|()| process)
    }
}

/// A running child.
pub struct Process {
    pub client: Client,
    pub ops: Client,
    /// How long it took to serve.
    pub ready_after: Duration,
    child: Child,
    data: PathBuf,
    clock: SystemClock,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// What it printed so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.stdout.path()).expect("text")
    }
    /// What it complained and logged so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).expect("text")
    }

    /// Waits until it announces itself in its data directory.
    pub fn wait_until_ready(&mut self) {
        self.try_until_ready().unwrap_or_else(|why| panic!("{why}"));
    }

    /// Waits until it announces itself, or says why it ended instead.
    pub fn try_until_ready(&mut self) -> Result<(), String> {
        let presence = eventually("a node that serves", || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return Some(Err(format!("the node ended with {status}: {}", self.stderr())));
            }
            let found = presence::read(&self.data).filter(|found| found.pid == self.pid());
            found.map(Ok)
        })?;
        self.ready_after = self.clock.monotonic();
        self.client = Client::new(&presence.http);
        self.ops = Client::new(&presence.ops);
        Ok(())
    }

    /// Whether it has ended by itself.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("a child of our own").is_some()
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of our own");
        self.child.wait().expect("a child of our own");
    }

    /// Tells it to stop and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let told = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(told.expect("kill runs").success());
        eventually("a stopped node", || self.child.try_wait().expect("a child of our own"))
    }
}

/// The program under test: the one built with the tests, unless a variable names another build of it.
#[expect(
    clippy::disallowed_methods,
    reason = "which build is tested is no configuration of a node"
)]
fn program() -> PathBuf {
    let named = std::env::var_os("BULKHEAD_BIN").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_bulkhead")))
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill();
        }
    }
}
