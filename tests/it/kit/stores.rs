//! Object stores to archive in: real emulators as child processes, and one whose answers a test
//! writes itself. Ends only what it started.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

/// The bucket that every emulator has.
pub const BUCKET: &str = "bulkhead-archive";

/// An emulator, serving until dropped.
pub struct Emulator {
    child: Child,
    /// Where it serves.
    pub url: String,
}

impl Emulator {
    /// S3 that takes every key; nothing where the emulator is not installed, and says so then.
    pub fn s3() -> Option<Self> {
        Self::start(&["s3", BUCKET])
    }

    /// S3 that refuses every key.
    pub fn s3_that_refuses() -> Option<Self> {
        Self::start(&["s3-refusing", BUCKET])
    }

    /// Google's XML API, for the service account of a key file.
    pub fn google(key_file: &Path) -> Option<Self> {
        Self::start(&["google", BUCKET, key_file.to_str().expect("a path in UTF-8")])
    }

    fn start(arguments: &[&str]) -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        if !folder.join(".venv/bin/moto_server").exists() {
            println!(
                "SKIPPED: moto is absent, so there is no object store. ./tests/run installs it: \
                 python3 -m venv tests/peers/.venv, then pip install -r tests/peers/requirements.txt"
            );
            return None;
        }
        let mut command = Command::new(folder.join(".venv/bin/python"));
        command.arg(folder.join("stores.py")).args(arguments);
        // It ends when its input does, so it outlives no test however that ends.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("an installed Python runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("a piped output");
        BufReader::new(output).read_line(&mut line).expect("an emulator says where it is");
        let url = line.trim().to_owned();
        assert!(url.starts_with("http://"), "{arguments:?} did not start: {url:?}");
        Some(Self { child, url })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself; either way it must not outlive the test.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Writes the key file of a new Google service account.
pub fn service_account(path: &Path) {
    let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der<'_> = key.as_der().expect("a key in DER");
    let pem = BASE64_STANDARD.encode(der.as_ref());
    let account = json!({
        "type": "service_account",
        "client_email": "archive@bulkhead.invalid",
        "private_key_id": "1",
        "private_key": format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n"),
    });
    std::fs::write(path, account.to_string()).expect("a key file");
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a mode");
}

/// A request that a [`ScriptedStore`] got: its method and its target.
pub type Asked = (String, String);

/// A store that answers what the test says.
pub struct ScriptedStore {
    /// Where it serves.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl ScriptedStore {
    /// Answers every request with the status and the body that `script` makes of it and of how many
    /// requests came before.
    pub fn start(script: impl Fn(usize, &Asked) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        // Lives as long as the test's process: it waits for a connection that may never come.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.expect("a connection");
                // A client that ends a connection early is no failure of the store.
                let _served = serve(connection, &seen, &script);
            }
        });
        Self { url, asked }
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic while asking").clone()
    }
}

fn serve(
    mut connection: TcpStream,
    asked: &Mutex<Vec<Asked>>,
    script: impl Fn(usize, &Asked) -> (u16, String),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let request = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a length is a number");
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let number = {
        let mut asked = asked.lock().expect("no panic while asking");
        asked.push(request.clone());
        asked.len() - 1
    };
    let (status, body) = script(number, &request);
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 {status} Scripted\r\netag: \"1\"\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}
