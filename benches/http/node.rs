//! A real node, run as users run it, and people in it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use actors::env::{Clock as _, SystemClock};
use actors::tenant::factors::totp;
use serde_json::{Value, json};

use crate::drive::now;

const SETTINGS: &str = r#"
[http]
bind = "127.0.0.1:0"
workers = 2
[ops]
bind = "127.0.0.1:0"
[data]
allow_temporary = true
[log]
level = "error"
[signup]
plan = "enterprise"
"#;

pub struct Node {
    child: Child,
    dir: tempfile::TempDir,
    pub port: u16,
    agent: ureq::Agent,
}

pub struct Person<'a> {
    node: &'a Node,
    token: String,
    pub form: String,
}

impl Node {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::start_in(dir)
    }

    /// Starts a node on what another left behind.
    pub fn start_in(dir: tempfile::TempDir) -> Self {
        let config = dir.path().join("config.toml");
        let rates: String = ["sign_in", "sign_up", "recover", "api", "public", "hooks"]
            .iter()
            .map(|class| {
                format!("[rate.{class}]\nper_ip = \"off\"\nper_account = \"off\"\nper_tenant = \"off\"\nper_token = \"off\"\n")
            })
            .collect();
        std::fs::write(&config, format!("{SETTINGS}{rates}")).expect("a configuration");
        let data = dir.path().join("data");
        // A node that was killed left this behind.
        let _absent = std::fs::remove_file(data.join("node.json"));
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["serve", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(&data)
            .stdout(Stdio::null())
            .spawn()
            .expect("a node");
        let port = wait_for_port(&data.join("node.json"));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { child, dir, port, agent }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn post(&self, path: &str, token: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.agent.post(url).header("content-type", "application/json");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = request.send(body.to_string()).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("a text");
        assert_eq!(answer.status(), 201, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// A new tenant with one form.
    pub fn sign_up(&self, n: usize) -> Person<'_> {
        let body = json!({
            "tenant": {"slug": format!("bench-{n}"), "name": "Bench"},
            "email": "owner@example.com",
            "password": "correct horse battery",
        });
        let signed = self.post("/v1/auth/sign-up", "", &body);
        let token = signed["access_token"].as_str().expect("a token").to_owned();
        let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "amount": {"type": "integer"}}, "required": ["name"]});
        let form = self.post("/v1/forms", &token, &json!({"title": "Bench", "schema": schema}));
        Person { node: self, token, form: form["id"].as_str().expect("an id").to_owned() }
    }

    /// Bytes of the log by record, on average.
    pub fn log_bytes_per_record(&self) -> usize {
        let metrics = self.metrics();
        let figure = |name: &str| -> f64 {
            let line =
                metrics.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
        };
        (figure("bulkhead_log_bytes_total") / figure("bulkhead_log_records_total").max(1.0))
            as usize
    }

    fn metrics(&self) -> String {
        let node = std::fs::read(self.dir.path().join("data/node.json")).expect("node.json");
        let node: Value = serde_json::from_slice(&node).expect("JSON");
        let url = format!("{}/metrics", node["ops"].as_str().expect("a URL"));
        self.agent.get(url).call().expect("metrics").body_mut().read_to_string().expect("a text")
    }

    /// The directory with the node's data and configuration.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Kills the node, as a crash would, and gives back its directory.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().expect("a running node");
        self.child.wait().expect("an end");
        let empty = tempfile::tempdir().expect("a directory");
        std::mem::replace(&mut self.dir, empty)
    }

    /// Megabytes of memory that are the node's own.
    pub fn resident_mb(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a node");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a figure");
        let kb: f64 =
            line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("kB");
        kb / 1024.0
    }

    fn stop(mut self) -> PathBuf {
        let pid = self.pid().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("a signal");
        self.child.wait().expect("an end");
        let empty = tempfile::tempdir().expect("a directory");
        std::mem::replace(&mut self.dir, empty).keep()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Person<'_> {
    /// Signs in again: an access token lasts for some minutes.
    pub fn sign_in(&mut self, n: usize) {
        let body = json!({"tenant": format!("bench-{n}"), "email": "owner@example.com", "password": "correct horse battery"});
        let url = format!("http://127.0.0.1:{}/v1/auth/sign-in", self.node.port);
        let sent = self.node.agent.post(url).header("content-type", "application/json");
        let text = sent.send(body.to_string()).expect("an answer").body_mut().read_to_string();
        let signed: Value = serde_json::from_str(&text.expect("a text")).expect("JSON");
        self.token = signed["access_token"].as_str().expect("a token").to_owned();
    }
    /// The bytes of a request by this person.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let (length, token) = (body.len(), &self.token);
        format!("{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
    }
    /// Submits once and gives the id.
    pub fn submit(&self, body: &str) -> String {
        let body: Value = serde_json::from_str(body).expect("JSON");
        let path = format!("/v1/forms/{}/submissions", self.form);
        self.node.post(&path, &self.token, &body)["id"].as_str().expect("an id").to_owned()
    }
}

/// Megabytes that a freshly started node with `tenants` sleeping tenants takes.
pub fn idle_memory(tenants: usize) -> f64 {
    let node = Node::start();
    let data = node.dir.path().join("data");
    let admin = node.sign_in_platform();
    for n in 0..tenants {
        node.post(
            "/v1/platform/tenants",
            &admin,
            &json!({"slug": format!("idle-{n}"), "name": "Idle"}),
        );
    }
    drop(data);
    let dir = node.stop();
    let home = tempfile::Builder::new().prefix("bulkhead-idle").tempdir().expect("a directory");
    std::fs::rename(dir.join("data"), home.path().join("data")).expect("the same file system");
    std::fs::remove_dir_all(dir).expect("a removable directory");
    let node = Node::start_in(home);
    node.resident_mb()
}

impl Node {
    fn sign_in_platform(&self) -> String {
        let password = self.dir.path().join("password");
        std::fs::write(&password, "correct horse battery").expect("a password file");
        let made = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["platform-admin", "create", "--email", "root@example.com", "--password-file"])
            .arg(&password)
            .arg("--config")
            .arg(self.dir.path().join("config.toml"))
            .arg("--data")
            .arg(self.dir.path().join("data"))
            .stdout(Stdio::null())
            .status()
            .expect("the command line");
        assert!(made.success(), "no platform administrator");
        let password = "correct horse battery";
        let body = json!({"tenant": "platform", "email": "root@example.com", "password": password});
        let signed = self.ask("/v1/auth/sign-in", None, &body);
        let newcomer = text_of(&signed, "access_token");
        // Platform administrators do nothing before they have a second factor.
        let body = json!({"password": password});
        let begun = self.ask("/v1/me/mfa/totp", Some(&newcomer), &body);
        let secret = from_base32(&text_of(&begun, "secret"));
        let code = totp::code_of(&secret, totp::step_at(SystemClock::new().now_ms()));
        let body = json!({"code": code});
        let confirmed = self.ask("/v1/me/mfa/totp/confirm", Some(&newcomer), &body);
        text_of(&confirmed, "access_token")
    }

    fn ask(&self, path: &str, token: Option<&str>, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.agent.post(url).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = request.send(body.to_string()).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("a text");
        serde_json::from_str(&text).expect("JSON")
    }
}

fn text_of(answer: &Value, member: &str) -> String {
    answer[member].as_str().unwrap_or_else(|| panic!("no {member}: {answer}")).to_owned()
}

fn from_base32(text: &str) -> Vec<u8> {
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes() {
        let value = if letter.is_ascii_digit() { letter - b'2' + 26 } else { letter - b'A' };
        buffer = (buffer << 5) | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    bytes
}

fn wait_for_port(path: &std::path::Path) -> u16 {
    let start = now();
    loop {
        if let Ok(bytes) = std::fs::read(path)
            && let Ok(node) = serde_json::from_slice::<Value>(&bytes)
        {
            let http = node["http"].as_str().expect("a URL");
            return http.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        }
        assert!(start.elapsed() < Duration::from_secs(30), "the node does not start");
        std::thread::yield_now();
    }
}
