//! Where a new person's password comes from: a file, standard input, a prompt, or randomness. Never
//! an argument, because arguments show in process lists and shell histories.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use actors::env::Env;

use crate::cli::CliError;

/// Longest password file, in bytes. A password has at most 128 characters.
const FILE_BYTES_MAX: u64 = 4096;

/// How a command gets a password.
#[derive(Debug, Clone, clap::Args)]
pub struct PasswordSource {
    /// Read the password from this file's first line; `-` is standard input. Without it a terminal
    /// is asked, and otherwise a password is generated and printed once.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// A password, and whether it is new to the operator.
pub struct Password {
    /// In clear.
    pub text: String,
    /// Whether it was generated and so must be shown once.
    pub is_generated: bool,
}

impl PasswordSource {
    /// Gets the password.
    pub fn get(&self) -> Result<Password, CliError> {
        let given = |text: String| Password { text, is_generated: false };
        match &self.password_file {
            Some(path) if path == Path::new("-") => first_line(std::io::stdin().lock()).map(given),
            Some(path) => {
                let doing = format!("the password file {} cannot be read", path.display());
                let file = std::fs::File::open(path).map_err(CliError::system(doing))?;
                first_line(file).map(given)
            }
            None if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
                let text = prompt("Password (empty: generate one): ")?;
                if text.is_empty() {
                    return Ok(generated());
                }
                if prompt("Again: ")? != text {
                    return Err(CliError::Usage("the two passwords differ".to_owned()));
                }
                Ok(given(text))
            }
            None => Ok(generated()),
        }
    }
}

fn generated() -> Password {
    Password { text: random_text(&Env::real()), is_generated: true }
}

/// Twenty characters of five bits: a hundred bits, without letters that look alike.
pub fn random_text(env: &Env) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters = env.random::<20>().map(|byte| char::from(LETTERS[usize::from(byte & 31)]));
    let groups: Vec<String> = letters.chunks(5).map(|group| group.iter().collect()).collect();
    groups.join("-")
}

fn first_line(source: impl Read) -> Result<String, CliError> {
    let mut line = String::new();
    std::io::BufReader::new(source.take(FILE_BYTES_MAX))
        .read_line(&mut line)
        .map_err(CliError::system("the password cannot be read"))?;
    let line = line.trim_end_matches(['\n', '\r']);
    if line.is_empty() {
        return Err(CliError::Usage("the password is empty".to_owned()));
    }
    Ok(line.to_owned())
}

/// Asks on the terminal, without echo.
fn prompt(text: &str) -> Result<String, CliError> {
    let _closed = write!(std::io::stderr(), "{text}").and_then(|()| std::io::stderr().flush());
    let quiet = Quiet::start();
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    drop(quiet);
    let _closed = writeln!(std::io::stderr());
    read.map_err(CliError::system("the password cannot be read"))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// The terminal without echo, until dropped.
struct Quiet;

impl Quiet {
    fn start() -> Self {
        echo("-echo");
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        echo("echo");
    }
}

/// Sets the terminal's echo. Where there is no `stty` the password shows while it is typed.
fn echo(mode: &str) {
    let stty = Command::new("stty").arg(mode).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if stty.is_err() {
        tracing::debug!(mode, "the terminal's echo cannot be set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_password_is_long_and_new_each_time() {
        let env = Env::real();
        let (one, other) = (random_text(&env), random_text(&env));
        assert_eq!(one.len(), 23);
        assert_ne!(one, other);
    }

    #[test]
    fn the_first_line_counts_and_an_empty_one_is_refused() {
        assert_eq!(first_line(&b"open sesame\r\nmore"[..]).expect("a line"), "open sesame");
        assert!(first_line(&b"\n"[..]).is_err());
    }
}
