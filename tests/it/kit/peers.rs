//! Other people's libraries in child processes of their own: the webhook providers', which sign, and an
//! authenticator's.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

/// Where a library comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    Npm,
    PyPi,
}

/// Every scheme with every library that signs it.
pub const SIGNERS: [(&str, Library); 6] = [
    ("stripe", Library::Npm),
    ("github", Library::Npm),
    ("standard", Library::Npm),
    ("razorpay", Library::PyPi),
    ("slack", Library::PyPi),
    ("standard", Library::PyPi),
];

/// What is to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Signing<'a> {
    pub source: &'a str,
    pub library: Library,
    pub secret: &'a str,
    pub body: &'a str,
    /// The provider's id of the event, where a header carries it.
    pub id: &'a str,
    /// Unix seconds, where a header carries them.
    pub timestamp: u64,
}

/// The signing processes, alive until dropped.
pub struct Peers {
    npm: RefCell<Peer>,
    pypi: RefCell<Peer>,
}

impl Peers {
    /// Nothing where the libraries are not installed; says so then.
    pub fn start() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let python = folder.join(".venv/bin/python");
        let modules = folder.join("node_modules");
        let needed: [(&Path, &str); 2] = [
            (&modules, "npm install --prefix tests/peers --no-package-lock --ignore-scripts"),
            (
                &python,
                "python3 -m venv tests/peers/.venv, then pip install -r tests/peers/requirements.txt",
            ),
        ];
        for (path, install) in needed {
            if !path.exists() {
                println!(
                    "SKIPPED: {} is absent, so nobody can sign. ./tests/run installs it: {install}",
                    path.display()
                );
                return None;
            }
        }
        let npm = Peer::start(Path::new("node"), &[folder.join("sign.mjs").as_os_str()])?;
        let pypi = Peer::start(&python, &[folder.join("sign.py").as_os_str()])?;
        Some(Self { npm: RefCell::new(npm), pypi: RefCell::new(pypi) })
    }

    /// The headers that the provider would send.
    pub fn sign(&self, what: Signing<'_>) -> Vec<(String, String)> {
        let line = json!({
            "scheme": what.source,
            "secret": what.secret,
            "body_base64": BASE64_STANDARD.encode(what.body),
            "id": what.id,
            "timestamp": what.timestamp,
        });
        let peer = match what.library {
            Library::Npm => &self.npm,
            Library::PyPi => &self.pypi,
        };
        let headers = peer.borrow_mut().ask(&line);
        assert!(!headers.contains_key("error"), "{what:?}: {headers:?}");
        let text = |value: &Value| value.as_str().expect("a header is a text").to_owned();
        headers.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    }
}

/// An authenticator made of npm's otplib, alive until dropped.
pub struct Otplib(RefCell<Peer>);

impl Otplib {
    /// Nothing where it is not installed; says so then.
    pub fn start() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let modules = folder.join("node_modules/otplib");
        if !modules.exists() {
            println!(
                "SKIPPED: {} is absent, so there is no other authenticator. ./tests/run installs it: \
                 npm install --prefix tests/peers --no-package-lock --ignore-scripts",
                modules.display()
            );
            return None;
        }
        let peer = Peer::start(Path::new("node"), &[folder.join("otp.mjs").as_os_str()])?;
        Some(Self(RefCell::new(peer)))
    }

    /// What it makes of an `otpauth:` URI at a time, Unix seconds: code, issuer and label.
    pub fn read(&self, uri: &str, unix_s: u64) -> Map<String, Value> {
        let answer = self.0.borrow_mut().ask(&json!({"uri": uri, "time": unix_s}));
        assert!(!answer.contains_key("error"), "{uri}: {answer:?}");
        answer
    }
}

/// A child process that answers one line of JSON with another.
pub struct Peer {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// A script of ours on an npm package; nothing where that is not installed, and says so then.
    pub fn of_node(script: &str, package: &str) -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let module = folder.join("node_modules").join(package);
        if !module.exists() {
            println!(
                "SKIPPED: {} is absent. ./tests/run installs it: npm install --prefix tests/peers \
                 --no-package-lock --ignore-scripts",
                module.display()
            );
            return None;
        }
        Self::start(Path::new("node"), &[folder.join(script).as_os_str()])
    }

    /// Nothing where it cannot run; says so then.
    pub fn start(program: &Path, arguments: &[&OsStr]) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                println!("SKIPPED: {} cannot run: {error}", program.display());
                return None;
            }
        };
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a piped output"));
        Some(Self { child, questions, answers })
    }

    /// One question, and its answer.
    pub fn ask(&mut self, line: &Value) -> Map<String, Value> {
        let questions = self.questions.as_mut().expect("a peer that was not ended");
        writeln!(questions, "{line}").expect("a signer that listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("a signer that answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}

impl Peer {
    /// Ends it in its own way: it sees the end of its input, and is done when it closes its output.
    pub fn end(&mut self) {
        drop(self.questions.take());
        let _rest = std::io::copy(&mut self.answers, &mut std::io::sink());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; either way it must not outlive the test.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
