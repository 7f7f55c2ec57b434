//! Where mails arrive in tests: a real mail server as a child process, or the directory of a node without
//! one. Ends only what it started.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::eventually::eventually;

/// A mail server, serving until dropped.
pub struct MailServer {
    child: Child,
    /// Its port on the loopback address.
    pub port: u16,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl MailServer {
    /// Nothing where it is not installed; says so then. `arguments` as `tests/peers/smtp.py` has them.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let python = folder.join(".venv/bin/python");
        let is_there = python.exists()
            && Command::new(&python)
                .args(["-c", "import aiosmtpd"])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        if !is_there {
            println!(
                "SKIPPED: aiosmtpd is absent, so there is no mail server. ./tests/run installs it: \
                 python3 -m venv tests/peers/.venv, then pip install -r tests/peers/requirements.txt"
            );
            return None;
        }
        let mut command = Command::new(python);
        command.arg(folder.join("smtp.py")).args(arguments);
        // It ends when its input does, so it outlives no test however that ends.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("an installed Python runs");
        let mut output = BufReader::new(child.stdout.take().expect("a piped output")).lines();
        let line = output.next().expect("a first line").expect("text");
        let port = line.trim().parse().expect("a port");
        let taken = Arc::new(Mutex::new(Vec::new()));
        let kept = taken.clone();
        std::thread::spawn(move || {
            for line in output.map_while(Result::ok) {
                let mail = serde_json::from_str(&line).expect("a mail in JSON");
                kept.lock().expect("a sound lock").push(mail);
            }
        });
        Some(Self { child, port, taken })
    }

    /// Everything it took so far.
    pub fn taken(&self) -> Vec<Value> {
        self.taken.lock().expect("a sound lock").clone()
    }

    /// The first mail to an address whose subject begins so; waits for it.
    pub fn mail(&self, to: &str, subject: &str) -> Value {
        eventually(&format!("a mail to {to}: {subject}"), || {
            self.taken().into_iter().find(|mail| {
                mail["to"][0] == to
                    && mail["subject"].as_str().is_some_and(|text| text.starts_with(subject))
            })
        })
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It may have ended by itself; either way it must not outlive the test.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What stands behind the `#` of a mail's link.
pub fn link_in(text: &str, page: &str) -> String {
    let start = format!("/account/{page}#");
    let at = text.find(&start).unwrap_or_else(|| panic!("a link to {page} in {text}"));
    let rest = &text[at + start.len()..];
    rest.split(|c: char| c.is_whitespace() || c == '"').next().unwrap_or_default().to_owned()
}

/// The mails of a tenant that a node without a mail server wrote, oldest first, their lines whole again
/// (RFC 2045, 6.7).
pub fn written(data: &Path, tenant: &str) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(data.join("mail").join(tenant)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "eml"));
    paths.sort();
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("a mail");
    paths.iter().map(|path| read(path).replace("=\r\n", "").replace("=3D", "=")).collect()
}
