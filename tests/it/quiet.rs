//! What people entrust to the node is in no file and in no log line.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::kit::{Client, Launcher, Process};

const PASSWORD: &str = "marker-password-7c1e";
const LOCAL_PART: &str = "marker-mailbox-51d0";
const TITLE: &str = "marker-title-a94f";
const TEXT: &str = "marker-text-e3b8";
const COMMENT: &str = "marker-comment-20c6";
const SECRET: &str = "marker-secret-for-webhooks-6f2a";

/// What must not be found, and where it came from.
struct Markers(Vec<(&'static str, String)>);

impl Markers {
    /// Those that `bytes` hold.
    fn within(&self, bytes: &[u8]) -> Vec<&'static str> {
        // Markers are ASCII, so replacing what is no text leaves every one of them as it is.
        let text = String::from_utf8_lossy(bytes);
        self.0.iter().filter(|(_, marker)| text.contains(marker)).map(|(what, _)| *what).collect()
    }
}

fn files(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Does what people do, with words that are easy to find again.
fn live(node: &Process) -> Markers {
    let email = format!("{LOCAL_PART}@example.org");
    let sign_up =
        json!({"tenant": {"slug": "quiet", "name": "Quiet"}, "email": email, "password": PASSWORD});
    node.client.post("/v1/auth/sign-up", sign_up, 201);
    let credentials = json!({"tenant": "quiet", "email": email, "password": PASSWORD});
    let signed_in = node.client.post("/v1/auth/sign-in", credentials, 200);
    let (access, refresh) = (signed_in.str("/access_token"), signed_in.str("/refresh_token"));
    let owner = node.client.with_token(&access);
    let form = owner
        .post("/v1/forms", json!({"title": TITLE, "schema": {"type": "object"}}), 201)
        .str("/id");
    let place = format!("/v1/forms/{form}/submissions");
    let submission = owner.post(&place, json!({"data": {"text": TEXT}}), 201).str("/id");
    owner.post(&format!("{place}/{submission}/comment"), json!({"text": COMMENT}), 201);
    let body = json!({"source": "github", "name": "Quiet", "secrets": [SECRET]});
    let hook = owner.post("/v1/integrations", body, 201).str("/hook_path");
    refused(&owner, node, &place, &hook);
    // It is all there: what is looked for could have been written.
    assert!(owner.get(&format!("{place}/{submission}"), 200).text().contains(TEXT));
    let signature = |token: &str| token.rsplit('.').next().expect("a part").to_owned();
    Markers(vec![
        ("a password", PASSWORD.to_owned()),
        ("a password's hash", "$argon2".to_owned()),
        ("an e-mail address", LOCAL_PART.to_owned()),
        ("a form's title", TITLE.to_owned()),
        ("a submission's text", TEXT.to_owned()),
        ("a comment", COMMENT.to_owned()),
        ("a webhook secret", SECRET.to_owned()),
        ("an access token", signature(&access)),
        ("a refresh token", signature(&refresh)),
    ])
}

/// Mistakes and attacks, whose words are in bodies, paths, queries and headers.
fn refused(owner: &Client, node: &Process, submissions: &str, hook: &str) {
    let wrong = json!({"tenant": "quiet", "email": format!("{LOCAL_PART}@example.com"), "password": PASSWORD});
    node.client.post("/v1/auth/sign-in", wrong, 401);
    node.client.post("/v1/auth/refresh", json!({"refresh_token": TEXT}), 401);
    node.client.with_token(TEXT).get("/v1/me", 401);
    owner.post(submissions, json!({"data": {"text": TEXT}, TEXT: 1}), 422);
    owner.post("/v1/forms", json!({"title": [TITLE], "schema": {}}), 422);
    let broken = format!(r#"{{"title":"{TITLE}"#);
    assert_eq!(
        owner.send("POST", "/v1/forms", Some("application/json"), broken.as_bytes()).status,
        400
    );
    owner.get(&format!("/v1/forms?{TEXT}={TEXT}"), 422);
    owner.get(&format!("/v1/{TEXT}"), 404);
    let sender = node.client.with_header("x-hub-signature-256", &format!("sha256={SECRET}"));
    sender.post(hook, json!({"text": TEXT}), 401);
}

#[test]
fn no_file_and_no_log_line_holds_what_people_entrust() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    // As talkative as our own code can be.
    let level = "info,bulkhead=trace,bulkhead_actors=trace,actors=trace,storage=trace";
    // A mail for a directory is one for people to read.
    let launcher = Launcher::on(&data).set("signup.verify_email", "false");
    let mut node = launcher.set("log.level", level).serve();
    let markers = live(&node);
    let check = |when: &str| {
        let files = files(&data);
        assert!(files.len() >= 4, "{when}: that is no data directory: {files:?}");
        for file in files {
            // Its own compactions may remove one meanwhile.
            let Ok(bytes) = std::fs::read(&file) else { continue };
            assert_eq!(markers.within(&bytes), Vec::<&str>::new(), "{when}: {}", file.display());
        }
    };
    check("while it runs");
    // What is written plainly is found.
    let url = Markers(vec![("the node's URL", node.client.base.clone())]);
    assert!(!url.within(&std::fs::read(data.join("node.json")).expect("a file")).is_empty());
    assert!(node.terminate().success());
    check("after a stop");
    assert_eq!(markers.within(node.stderr().as_bytes()), Vec::<&str>::new(), "in a log line");
    assert_eq!(markers.within(node.stdout().as_bytes()), Vec::<&str>::new(), "on standard output");
    assert!(node.stderr().lines().count() >= 3, "nothing was logged: {}", node.stderr());
}

#[test]
fn an_uneventful_life_logs_no_warning() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    for life in ["the first start", "a later start"] {
        let mut node = Launcher::on(&data).set("log.format", "json").serve();
        if life == "the first start" {
            live(&node);
        }
        node.ops.get("/metrics", 200);
        assert!(node.terminate().success());
        let log = node.stderr();
        assert!(!log.is_empty(), "{life}: nothing was logged");
        for line in log.lines() {
            let entry: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|_| panic!("{life}: not JSON: {line}"));
            let level = entry["level"].as_str().unwrap_or_default();
            assert!(["INFO", "DEBUG", "TRACE"].contains(&level), "{life}: {line}");
        }
    }
}
