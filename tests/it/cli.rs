//! The command line: every command on a stopped and on a running node, for people and for programs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::kit::{Client, Launcher, Outcome, PASSWORD};

/// A launcher on a fresh directory, and a file with a password.
struct Bench {
    dir: tempfile::TempDir,
    launcher: Launcher,
    password_file: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let launcher = Launcher::on(&dir.path().join("data"));
        let file = dir.path().join("password");
        fs::write(&file, format!("{PASSWORD}\n")).expect("a file");
        let password_file = file.to_str().expect("a path in UTF-8").to_owned();
        Self { dir, launcher, password_file }
    }
    /// Runs a command that succeeds and complains of nothing.
    fn quietly(&self, words: &[&str]) -> Outcome {
        let outcome = self.launcher.run(words).expect(0);
        assert_eq!(outcome.stderr, "", "{words:?}");
        outcome
    }
    fn json(&self, words: &[&str]) -> Value {
        self.quietly(&[words, &["--json"]].concat()).json()
    }
    /// Runs a command that fails, says why on standard error and prints no result.
    fn refused(&self, words: &[&str], code: i32) -> String {
        let outcome = self.launcher.run(words).expect(code);
        assert_eq!(outcome.stdout, "", "{words:?}");
        assert!(!outcome.stderr.is_empty(), "{words:?} fails without a word");
        outcome.stderr
    }
}

/// Every command that touches data, for a tenant named `slug`.
fn exercise(bench: &Bench, slug: &str) {
    let id = exercise_tenants(bench, slug);
    exercise_people(bench, slug);
    exercise_audit(bench, slug, &id);
    misuse(bench, slug, &format!("owner@{slug}.example"));
}

/// Every command about tenants; answers with the id of the one named `slug`.
fn exercise_tenants(bench: &Bench, slug: &str) -> String {
    let owner = format!("owner@{slug}.example");
    let made = bench.json(&[
        "tenant",
        "create",
        slug,
        "--plan",
        "pro",
        "--owner",
        &owner,
        "--password-file",
        &bench.password_file,
    ]);
    assert_eq!(
        (&made["slug"], &made["plan"], &made["status"]),
        (&json!(slug), &json!("pro"), &json!("active"))
    );
    let id = made["id"].as_str().expect("an id");
    let shown = bench.json(&["tenant", "show", slug]);
    assert_eq!(shown, made);
    assert_eq!(bench.json(&["tenant", "show", id]), made);
    let card = bench.quietly(&["tenant", "show", slug]).stdout;
    assert!(card.contains(id) && card.contains("status   active"), "{card}");

    let other = format!("{slug}-plain");
    let card = bench.quietly(&["tenant", "create", &other, "--name", "Plain & Sons"]).stdout;
    assert!(card.contains(&other) && card.contains("Plain & Sons"), "{card}");
    let list = bench.json(&["tenant", "list"]);
    let slugs: Vec<_> =
        list.as_array().expect("a list").iter().map(|one| one["slug"].clone()).collect();
    assert!(slugs.contains(&json!(slug)) && slugs.contains(&json!(other)), "{list}");
    let table = bench.quietly(&["tenant", "list"]).stdout;
    assert!(table.starts_with("SLUG") && table.contains(id), "{table}");

    assert_eq!(bench.json(&["tenant", "suspend", slug])["status"], json!("suspended"));
    assert!(bench.quietly(&["tenant", "show", slug]).stdout.contains("suspended"));
    assert!(bench.quietly(&["tenant", "resume", slug]).stdout.contains("active"));
    assert!(bench.quietly(&["tenant", "suspend", &other]).stdout.contains("suspended"));
    assert_eq!(bench.json(&["tenant", "resume", &other])["status"], json!("active"));

    id.to_owned()
}

/// Every command about people, for the tenant named `slug`.
fn exercise_people(bench: &Bench, slug: &str) {
    let email = format!("staff@{slug}.example");
    let user = ["user", "create", "--tenant", slug, "--role", "staff", "--email", &email];
    let made = bench.launcher.run(&[&user[..], &["--json"]].concat()).expect(0);
    assert_eq!((&made.json()["email"], &made.json()["role"]), (&json!(email), &json!("member")));
    assert!(made.stderr.contains("generated password"), "{}", made.stderr);
    let email = format!("viewer@{slug}.example");
    let words = [
        "user",
        "create",
        "--tenant",
        slug,
        "--role",
        "viewer",
        "--email",
        &email,
        "--password-file",
        &bench.password_file,
    ];
    assert!(bench.quietly(&words).stdout.contains("role   viewer"));
    let email = format!("root@{slug}.example");
    let words =
        ["platform-admin", "create", "--email", &email, "--password-file", &bench.password_file];
    assert_eq!(bench.json(&words)["role"], json!("platform-admin"));
    let email = format!("root2@{slug}.example");
    let words =
        ["platform-admin", "create", "--email", &email, "--password-file", &bench.password_file];
    let told = bench.quietly(&words).stdout;
    assert!(told.contains(&email) && told.contains("enrol a second factor"), "{told}");
    let removed = bench.json(&["platform-admin", "remove", "--email", &email]);
    assert_eq!((&removed["email"], &removed["sessions_ended"]), (&json!(email), &json!(0)));
    let told = bench.refused(&["platform-admin", "remove", "--email", &email], 1);
    assert!(told.contains("no platform administrator"), "{told}");
}

/// Every command that only looks at histories.
fn exercise_audit(bench: &Bench, slug: &str, id: &str) {
    let report = bench.json(&["audit", "verify"]);
    assert_eq!(report["ok"], json!(true), "{report}");
    let one = bench.json(&["audit", "verify", "--tenant", slug]);
    assert_eq!(one["tenants"].as_array().map(Vec::len), Some(1), "{one}");
    assert_eq!(one["tenants"][0]["tenant"], json!(id));
    let text = bench.quietly(&["audit", "verify"]).stdout;
    assert!(text.contains(id) && text.contains("verified") && !text.contains("BROKEN"), "{text}");
}

/// What goes wrong, and with which exit code.
fn misuse(bench: &Bench, slug: &str, owner: &str) {
    for words in [
        &["tenant", "show", "nobody"][..],
        &["tenant", "suspend", "nobody", "--json"],
        &["tenant", "create", slug],
        &["audit", "verify", "--tenant", "nobody"],
        &["user", "create", "--tenant", slug, "--role", "viewer", "--email", owner],
    ] {
        bench.refused(words, 1);
    }
    let empty = bench.dir.path().join("empty");
    fs::write(&empty, "\n").expect("a file");
    let empty = empty.to_str().expect("a path in UTF-8");
    for words in [
        &["tenant", "create", "No Slug!"][..],
        &["tenant", "create", "fresh", "--plan", "golden"],
        &["tenant", "show"],
        &["tenant", "frob"],
        &["user", "create", "--tenant", slug, "--role", "king", "--email", "a@b.example"],
        &["user", "create", "--tenant", slug, "--role", "viewer", "--email", "no address"],
        &[
            "user",
            "create",
            "--tenant",
            slug,
            "--role",
            "viewer",
            "--email",
            "a@b.example",
            "--password-file",
            empty,
        ],
        &["audit", "verify", "--data"],
        &["tenant", "list", "--config", "/absent.toml"],
    ] {
        bench.refused(words, 2);
    }
}

#[test]
fn every_command_works_on_a_stopped_and_on_a_running_node_in_both_forms() {
    let bench = Bench::new();
    assert!(bench.launcher.serve().terminate().success());
    exercise(&bench, "stopped");
    let mut node = bench.launcher.serve();
    exercise(&bench, "running");
    // What was made while nothing ran signs in now, with the password of the file.
    for slug in ["stopped", "running"] {
        let body = json!({"tenant": slug, "email": format!("viewer@{slug}.example"), "password": PASSWORD});
        node.client.post("/v1/auth/sign-in", body, 200);
    }
    assert!(node.terminate().success());
    assert_eq!(bench.json(&["tenant", "list"]).as_array().map(Vec::len), Some(4));
}

#[test]
fn wrong_commands_exit_with_2_and_whatever_fails_when_tried_with_1() {
    let bench = Bench::new();
    let node = bench.launcher.serve();
    crate::kit::Tenant::sign_up(&node.client, "acme");
    let absent = bench.dir.path().join("absent");
    let absent = absent.to_str().expect("a path in UTF-8");
    for words in [
        // No command line of this form is right on any node.
        &["backup", "verify", "no-id"][..],
        &["backup", "verify", "--all", "bk_00000000000000000000000000000000"],
        &["drill", "--backup", "no-id"],
        &["restore"],
        &["restore", "--into", absent],
        &["restore", "--into", absent, "--from", absent, "--trust", "no key"],
        &["restore", "--into", absent, "--from", "ftp://host/x", "--kek", absent],
        &["tenant", "restore", "--tenant", "acme", "--at", "yesterday"],
        &["tenant", "restore", "--tenant", "acme", "--at", "2031-05-17T08:30:00Z", "--sanitise"],
        &["tenant", "clone", "acme", "No Slug!"],
        &["tenant", "erase", "acme", "--force"],
        &["keys", "hold", "--tenant", "acme", "--source", "vault:/x"],
        &["audit", "verify", "--tenant"],
    ] {
        bench.refused(words, 2);
    }
    for words in [
        // Each is right somewhere, or some day.
        &["backup", "verify"][..],
        &["backup", "verify", "bk_00000000000000000000000000000000"],
        &["drill"],
        &["restore", "--into", absent, "--from", absent, "--kek", absent],
        &["tenant", "restore", "--tenant", "acme", "--at", "9031-05-17T08:30:00Z"],
        &["tenant", "restore", "--tenant", "acme", "--at", "1971-05-17T08:30:00Z"],
        &["tenant", "restore", "--tenant", "nobody", "--at", "1971-05-17T08:30:00Z"],
        &["tenant", "erase", "acme", "--cancel"],
        &["tenant", "import", absent, "--key-file", absent],
        &["tenant", "inspect-bundle", absent],
        &["keys", "hold", "--tenant", "acme", "--source", "file:/nowhere/key"],
        &["keys", "release", "--tenant", "acme"],
        &["tenant", "list", "--data", absent],
        &["serve"],
    ] {
        let outcome = bench.launcher.run(words).expect(1);
        assert!(outcome.stderr.contains("error: "), "{words:?}: {}", outcome.stderr);
    }
    let help = bench.quietly(&["--help"]).stdout;
    assert!(help.contains("Exit codes"), "{help}");
}

#[test]
fn a_node_announces_itself_and_takes_it_back_when_told_to_stop() {
    let bench = Bench::new();
    let mut node = bench.launcher.serve();
    let text = fs::read_to_string(bench.launcher.data.join("node.json")).expect("node.json");
    let announced: Value = serde_json::from_str(&text).expect("JSON");
    let directory = bench.launcher.data.metadata().expect("a directory");
    let wanted = json!({
        "pid": node.pid(), "http": node.client.base, "ops": node.ops.base,
        "directory": {"device": directory.dev(), "inode": directory.ino()},
    });
    assert_eq!(announced, wanted);
    // For people it is printed once programs can find it.
    crate::kit::eventually("its own words", || {
        let (said, address) = (node.stdout(), &node.client.base);
        // By number for programs, by name for browsers.
        let named = address.replace("127.0.0.1", "localhost");
        [address, &named].iter().all(|url| said.contains(&format!("  {url}  "))).then_some(())
    });
    node.ops.get("/readyz", 200);
    println!("serve: announced {} ms after its start", node.ready_after.as_millis());
    assert!(node.terminate().success());
    assert!(!bench.launcher.data.join("node.json").exists());
    assert!(!bench.launcher.data.join("operator.token").exists());
}

#[test]
fn config_check_shows_what_is_in_effect_and_refuses_secrets_without_showing_them() {
    let bench = Bench::new();
    let config = bench.json(&["config", "check"]);
    assert_eq!(config["http"]["bind"], json!("127.0.0.1:0"));
    assert_eq!(config["data"]["dir"], json!(bench.launcher.data));
    let text = bench.quietly(&["config", "check"]).stdout;
    let table: toml::Table = toml::from_str(&text).expect("TOML");
    assert_eq!(table["http"]["bind"].as_str(), Some("127.0.0.1:0"));
    assert!(!bench.launcher.data.exists(), "a check makes nothing");

    let file = bench.dir.path().join("node.toml");
    let path = file.to_str().expect("a path in UTF-8");
    fs::write(&file, "[node]\nregion = \"whsec_C2FVsBQIhrscChlQIM\"\n").expect("a file");
    let said = bench.refused(&["config", "check", "--config", path], 2);
    assert!(said.contains("node.region") && !said.contains("C2FV"), "{said}");
    fs::write(&file, "[http]\npublic_url = \"https://ada:word@example.com\"\n").expect("a file");
    let said = bench.refused(&["config", "check", "--config", path], 2);
    assert!(said.contains("http.public_url") && !said.contains("word"), "{said}");
    fs::write(&file, "[log]\nlevel = \"loud=wrong\"\n").expect("a file");
    assert!(bench.refused(&["config", "check", "--config", path], 2).contains("log.level"));
}

#[test]
fn help_completions_and_the_api_document_go_to_standard_output() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.quietly(&["completions", shell]).stdout.contains("bulkhead"), "{shell}");
    }
    let parsed = Command::new("bash")
        .args(["-n", "-c", &bench.quietly(&["completions", "bash"]).stdout])
        .status();
    assert!(parsed.expect("bash runs").success());
    assert!(bench.quietly(&["--help"]).stdout.contains("serve"));
    assert!(bench.quietly(&["--version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
    bench.refused(&["completions", "abacus"], 2);
    bench.refused(&[], 2);
    let printed = bench.quietly(&["openapi"]).json();
    assert_eq!(printed["openapi"].as_str().map(|version| &version[..4]), Some("3.1."));
    let node = bench.launcher.serve();
    assert_eq!(node.client.get("/openapi.json", 200).json(), printed);
    let piped =
        format!("set -o pipefail; '{}' openapi | head -c 1", env!("CARGO_BIN_EXE_bulkhead"));
    let output = Command::new("bash").args(["-c", &piped]).output().expect("bash runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// What a printed line promises, and whether its output keeps it.
fn check_line(title: &str, output: &str) {
    let last = output.trim_end().lines().last().unwrap_or_default();
    if title.starts_with("401 ten times, then 429") {
        assert_eq!(last, format!("{}429 429", "401 ".repeat(10)), "{title}");
    } else if title.starts_with("429 with Retry-After") {
        let head = output.to_lowercase();
        assert!(output.starts_with("HTTP/1.1 429"), "{title}: {output}");
        for name in ["retry-after:", "ratelimit:", "ratelimit-policy:"] {
            assert!(head.contains(name), "{title}: {output}");
        }
    } else if title.starts_with("operators:") {
        assert!(
            output.contains("\"ready\":true") && output.contains("bulkhead_tenants"),
            "{title}: {output}"
        );
    } else if title.starts_with("every tenant's chain") {
        assert!(output.contains("verified") && !output.contains("BROKEN"), "{title}: {output}");
    } else {
        assert_eq!(last, &title[..3], "{title}: {output}");
    }
}

#[test]
fn every_line_that_the_demo_prints_does_what_it_says_when_pasted() {
    let dir = tempfile::tempdir().expect("a directory");
    let scratch = dir.path().join("scratch");
    fs::create_dir(&scratch).expect("a directory");
    let data = dir.path().join("data");
    let scratch_text = scratch.to_str().expect("a path in UTF-8");
    let launcher = Launcher::bare(&data).variable("TMPDIR", scratch_text);
    let data_text = data.to_str().expect("a path in UTF-8");
    let mut demo = launcher.launch(&["demo", "--data", data_text]);
    demo.wait_until_ready();
    let printed = crate::kit::eventually("the demo's lines", || {
        let text = demo.stdout();
        (text.contains("audit verify --data") && text.ends_with('\n')).then_some(text)
    });
    println!("demo: ready {} ms after its start", demo.ready_after.as_millis());
    let lines: Vec<_> = printed.lines().collect();
    let mut pasted = 0;
    for pair in lines.windows(2) {
        let Some(title) = pair[0].strip_prefix("# ") else { continue };
        let output = Command::new("bash").args(["-c", pair[1]]).output().expect("bash runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{title}: {said}");
        check_line(title, &String::from_utf8_lossy(&output.stdout));
        pasted += 1;
    }
    assert!(pasted >= 18, "only {pasted} lines: {printed}");
    let docs = Client::new(&demo.client.base).get("/docs", 200);
    assert!(docs.text().contains("/v1/forms"));
    assert!(demo.terminate().success(), "{}", demo.stderr());
    assert_eq!(fs::read_dir(&scratch).expect("a directory").count(), 0, "the demo leaves nothing");
    println!("demo: {pasted} lines pasted, each did what it says");
}
