//! TLS 1.2 and 1.3, nothing older, and strict once it is on. Spoken by the `openssl` program, so that
//! no test checks a library against itself.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::kit::{World, WorldOptions};

const STRICT: &str = "strict-transport-security: max-age=31536000; includeSubDomains";

/// A node with a certificate of its own, or nothing where there is no `openssl` to make one.
fn encrypted(home: &Path) -> Option<World> {
    let (cert, key) = (home.join("cert.pem"), home.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output();
    let Ok(made) = made else {
        println!("SKIPPED: there is no `openssl` program here to make a certificate and speak TLS");
        return None;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    Some(
        WorldOptions::default()
            .set("http.tls.cert", text(&cert))
            .set("http.tls.key", text(&key))
            .start(),
    )
}

/// What `openssl s_client` made of it.
struct Spoken {
    is_connected: bool,
    answer: String,
    /// What it says of the connection itself.
    report: String,
}

fn speak(world: &World, arguments: &[&str], path: &str) -> Spoken {
    let address = world.client.base.strip_prefix("https://").expect("an encrypted URL");
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", address, "-ign_eof"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut input = client.stdin.take().expect("a piped input");
    // A refused handshake ends the program before it reads.
    let _refused = input.write_all(request.as_bytes());
    drop(input);
    let output = client.wait_with_output().expect("openssl ends");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = shown.find("HTTP/1.1 ").map_or("", |at| &shown[at..]).to_ascii_lowercase();
    let report = format!("{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    Spoken {
        is_connected: !answer.is_empty(),
        answer: answer.replace("includesubdomains", "includeSubDomains"),
        report,
    }
}

#[test]
fn only_tls_1_2_and_1_3_are_spoken() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(world) = encrypted(home.path()) else { return };
    for version in ["-tls1_2", "-tls1_3"] {
        let spoken = speak(&world, &[version], "/version");
        assert!(spoken.answer.starts_with("http/1.1 200"), "{version}: {}", spoken.report);
    }
    for version in ["-tls1_1", "-tls1"] {
        // At the lowest level the client offers old versions at all; the refusal must be the node's.
        let spoken = speak(&world, &[version, "-cipher", "ALL:@SECLEVEL=0"], "/version");
        assert!(!spoken.is_connected, "{version} is spoken: {}", spoken.report);
        assert!(spoken.report.contains("SSL alert number"), "{version}: {}", spoken.report);
    }
    // Of TLS 1.2 only what has forward secrecy and authenticates what it encrypts.
    for cipher in ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"] {
        let weak = speak(&world, &["-tls1_2", "-cipher", cipher], "/version");
        assert!(!weak.is_connected, "{cipher} is spoken: {}", weak.report);
    }
    let second = speak(&world, &["-alpn", "h2"], "/version");
    assert!(
        second.report.contains("ALPN protocol: h2"),
        "HTTP/2 is not offered: {}",
        second.report
    );
}

#[test]
fn every_encrypted_answer_is_strict_and_no_plain_one_is() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(world) = encrypted(home.path()) else { return };
    for path in ["/version", "/docs", "/v1/me", "/nothing", "/v1/auth/sign-in"] {
        let spoken = speak(&world, &[], path);
        assert!(spoken.answer.contains(STRICT), "{path}: {}", spoken.report);
    }
    let plain = World::start();
    for path in ["/version", "/nothing"] {
        assert_eq!(
            plain.client.call("GET", path, None).header("strict-transport-security"),
            None,
            "{path}"
        );
    }
}

#[test]
fn a_plain_request_to_the_encrypted_port_is_not_answered() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(world) = encrypted(home.path()) else { return };
    let address = world.client.base.replace("https://", "http://");
    let answer = crate::kit::raw(
        &address,
        b"GET /version HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n",
    );
    assert!(!answer.contains("HTTP/1.1") && !answer.contains("bulkhead"), "{answer}");
}
