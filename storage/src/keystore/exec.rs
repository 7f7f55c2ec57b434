//! Keys that a program prints: the way to any keeper of secrets that has a command line.
//!
//! The program gets its arguments as they are, an empty environment but for `PATH` and `LANG`, no
//! input, and a process group of its own. It prints 32 raw bytes, or lines of text: the first is the
//! current version, each further one an older version. A line is `KEY` or `NAME KEY`.
//!
//! Refuses: a shell, an answer that is late or long, and to show what the program says on standard
//! error, because nobody knows what is in there.

use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::source::{
    KekSource, RawKek, SourceError, VERSIONS_MAX, Versions, decode_key, versions_of,
};

/// How long the program may take, from its start to its end.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most that it may print, in bytes.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024;
/// Longest name of a version, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What came of reading and waiting.
enum Ending {
    Exited(Zeroizing<Vec<u8>>, ExitStatus),
    TooMuch,
    Lost(std::io::Error),
}

/// A program that prints keys.
#[derive(Debug)]
pub(super) struct ExecSource {
    argv: Vec<String>,
    timeout: Duration,
}

impl ExecSource {
    pub(super) fn new(argv: Vec<String>) -> Self {
        Self { argv, timeout: TIMEOUT }
    }

    #[cfg(test)]
    fn with_timeout(argv: Vec<String>, timeout: Duration) -> Self {
        Self { argv, timeout }
    }

    fn failed(&self, reason: impl Into<String>) -> SourceError {
        let program = self.argv.first().cloned().unwrap_or_default();
        SourceError::Program { program, reason: reason.into() }
    }

    fn spawn(&self) -> Result<(Child, ChildStdout), SourceError> {
        let (program, arguments) =
            self.argv.split_first().ok_or_else(|| self.failed("no program is named"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| self.failed(format!("it cannot be started: {error}")))?;
        let stdout = child.stdout.take().ok_or_else(|| self.failed("it has no output"))?;
        Ok((child, stdout))
    }

    /// Runs the program and gives what it printed.
    fn run(&self) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let (child, stdout) = self.spawn()?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (told, ending) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("key-program".to_owned())
            .spawn(move || follow(child, stdout, &told))
            .map_err(|error| self.failed(format!("it cannot be waited for: {error}")))?;
        let ending = ending.recv_timeout(self.timeout);
        if !matches!(ending, Ok(Ending::Exited(..) | Ending::Lost(_))) {
            // Whatever it started itself goes with it; it may be gone by now, which is as good.
            let _gone = group.map(|group| kill_process_group(group, Signal::KILL));
        }
        match ending {
            Ok(Ending::Exited(output, status)) if status.success() => Ok(output),
            Ok(Ending::Exited(_, status)) => Err(self.failed(match status.signal() {
                Some(signal) => format!("it was ended by signal {signal}"),
                None => format!("it ended with status {}", status.code().unwrap_or_default()),
            })),
            Ok(Ending::TooMuch) => {
                Err(self.failed(format!("it printed more than {OUTPUT_BYTES_MAX} bytes")))
            }
            Ok(Ending::Lost(error)) => Err(self.failed(format!("it was lost: {error}"))),
            Err(_) => Err(SourceError::Timeout {
                what: format!("the program {}", self.argv.first().map_or("", String::as_str)),
                timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}

/// Reads what the program prints, waits for its end and tells.
fn follow(mut child: Child, mut stdout: ChildStdout, told: &mpsc::SyncSender<Ending>) {
    // Room for all of it from the start: a vector that grows leaves copies behind.
    let mut output = Zeroizing::new(Vec::with_capacity(OUTPUT_BYTES_MAX as usize + 1));
    let read = stdout.by_ref().take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut output);
    let is_too_much = output.len() as u64 > OUTPUT_BYTES_MAX;
    drop(stdout);
    if is_too_much {
        let _late = told.try_send(Ending::TooMuch);
    }
    // Waited for in every case, so that no dead process stays behind.
    let ending = match (read, child.wait()) {
        (Ok(_), Ok(status)) => Ending::Exited(output, status),
        (Err(error), _) | (_, Err(error)) => Ending::Lost(error),
    };
    let _late = told.try_send(ending);
}

impl KekSource for ExecSource {
    fn versions(&self) -> Result<Versions, SourceError> {
        let output = self.run()?;
        let place = format!("the output of {}", self.argv.first().map_or("", String::as_str));
        let not = |reason| SourceError::NotAKey { place: place.clone(), reason };
        let mut keks = Vec::new();
        if output.len() == 32 {
            keks.push(RawKek::new(&*decode_key(&output, &place)?, "current", None));
        } else {
            let text = std::str::from_utf8(&output)
                .map_err(|_| not("it is neither 32 bytes nor lines of text"))?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                if keks.len() == VERSIONS_MAX {
                    return Err(not("it has more than 64 lines"));
                }
                let (name, key) = match line.split_once(char::is_whitespace) {
                    Some((name, key)) if name.len() <= NAME_BYTES_MAX => (name, key.trim_start()),
                    Some(_) => return Err(not("a version's name is longer than 64 bytes")),
                    None => ("-", line),
                };
                let key = decode_key(key.as_bytes(), &place)?;
                keks.push(RawKek::new(&key, name, None));
            }
        }
        versions_of(keks, 0, &place)
    }
}

#[cfg(test)]
mod tests;
