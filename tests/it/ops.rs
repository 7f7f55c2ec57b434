//! The operators' listener: says how the node is, to operators, and nothing of what tenants hold.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use bulkhead::config::{Config, Overrides};
use serde_json::{Value, json};

use crate::kit::{Client, Tenant, World, WorldOptions, eventually, raw};

fn seeded(world: &World) -> Tenant {
    let ada = world.tenant("ada");
    let form = ada.form("canary-title");
    ada.submit(&ada.owner, &form, "canary-name");
    world.client.get("/v1/me", 401);
    world.client.post("/v1/hooks/ada/in_1", json!({}), 404);
    ada
}

#[test]
fn a_started_node_is_healthy_and_ready() {
    let world = World::start();
    assert_eq!(world.ops.get("/healthz", 200).json(), json!({"status": "ok"}));
    assert_eq!(world.ops.get("/readyz", 200).json(), json!({"ready": true}));
    for path in ["/healthz", "/readyz", "/metrics", "/actors", "/style.css", "/nothing"] {
        let reply = world.ops.call("GET", path, None);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert!(
            reply
                .header("content-security-policy")
                .is_some_and(|policy| !policy.contains("unsafe")),
            "{path}"
        );
    }
}

fn is_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    text.bytes().all(legal) && !text.bytes().next().is_none_or(|first| first.is_ascii_digit())
}

/// The labels of a sample, read as the text format has them.
fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("labels: {text}"));
        assert!(is_name(name), "{name:?} is no name of a label");
        let mut value = String::new();
        let mut letters = quoted.char_indices();
        let end = loop {
            match letters.next().unwrap_or_else(|| panic!("an open quote: {text}")) {
                (_, '\\') => value.extend(letters.next().map(|(_, letter)| letter)),
                (at, '"') => break at,
                (_, letter) => value.push(letter),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} twice: {text}");
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    labels
}

/// A family's name, without what a histogram adds to it.
fn family<'a>(name: &'a str, kinds: &BTreeMap<String, String>) -> &'a str {
    let stems = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    stems
        .into_iter()
        .find(|stem| kinds.get(*stem).is_some_and(|kind| kind == "histogram"))
        .unwrap_or(name)
}

type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Reads the Prometheus text format strictly.
fn samples(text: &str) -> Samples {
    let (mut kinds, mut helps, mut samples) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a help text");
            assert!(helps.insert(name.to_owned()) && !words.is_empty(), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind) && is_name(name), "{line}");
            assert!(
                kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{name} is there twice"
            );
            current = name.to_owned();
        } else {
            let (head, value) =
                line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} is no sample"));
            let (name, inside) = match head.split_once('{') {
                Some((name, rest)) => (name, rest.strip_suffix('}').expect("closed braces")),
                None => (head, ""),
            };
            assert!(is_name(name), "{line}");
            assert_eq!(family(name, &kinds), current, "{line}: families are mixed or not declared");
            assert!(helps.contains(&current), "{line}: no help");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}: no number"));
            let fresh = samples.insert((name.to_owned(), labels(inside)), value).is_none();
            assert!(fresh, "{line}: the same sample twice");
            if kinds[&current] == "counter" {
                assert!(value >= 0.0 && current.ends_with("_total"), "{line}");
            }
        }
    }
    samples
}

#[test]
fn metrics_are_prometheus_text_without_any_tenant_in_it() {
    let world = World::start();
    let ada = seeded(&world);
    let reply = world.ops.get("/metrics", 200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    let samples = samples(&text);
    let value = |name: &str| {
        samples.iter().filter(|((known, _), _)| known == name).map(|(_, value)| value).sum::<f64>()
    };
    assert_eq!(value("bulkhead_ready"), 1.0);
    assert_eq!(value("bulkhead_log_writable"), 1.0);
    assert_eq!(value("bulkhead_tenants"), 2.0, "ada and the platform");
    assert!(value("bulkhead_log_records_total") >= 3.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    for (name, labels) in samples.keys() {
        for value in labels.values() {
            let names_someone = [&ada.id, &ada.owner_id, "ada", "canary", "tn_", "@"]
                .iter()
                .any(|text| value.contains(*text));
            assert!(!names_someone, "{name}: {labels:?}");
        }
    }
    let before = value("bulkhead_log_records_total");
    ada.form("One more");
    let after = world.ops.get("/metrics", 200).text();
    let after: f64 = self::samples(&after)
        .iter()
        .filter(|((name, _), _)| name == "bulkhead_log_records_total")
        .map(|(_, value)| value)
        .sum();
    assert!(after > before, "a counter that does not count");
}

#[test]
fn the_actors_are_shown_as_data_and_as_a_page() {
    let world = World::start();
    let ada = seeded(&world);
    let report = world.ops.get("/actors", 200);
    assert_eq!(report.header("content-type"), Some("application/json"));
    let report = report.json();
    let names: Vec<_> = report["supervisors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(
        json!(names),
        json!([
            "Supervisor",
            "RateLimiter",
            "QuotaKeeper",
            "AuditAnchor",
            "Archivist",
            "AuditArchiver",
            "KeyWatch",
            "WebhookInbox",
            "Postman"
        ])
    );
    let lines = report["tenants"].as_array().expect("a list");
    let slugs: BTreeSet<_> = lines.iter().filter_map(|line| line["slug"].as_str()).collect();
    assert_eq!(slugs, BTreeSet::from(["ada", "platform"]));
    let by_id = eventually("the view has everything, by id and by short name", || {
        let by_id = world.ops.get(&format!("/actors/{}", ada.id), 200).json();
        (by_id == world.ops.get("/actors/ada", 200).json()).then_some(by_id)
    });
    assert_eq!(by_id["tenant"], ada.id.as_str());
    for number in ["in_flight", "queue", "restarts", "wakes", "resident_bytes", "view_lsn"] {
        assert!(by_id[number].is_u64(), "{number}: {by_id}");
    }
    assert!(by_id["lsn"].as_u64() > Some(1), "{by_id}");
    assert!(by_id["last_commit_at"].is_string() && by_id["last_fault"] == Value::Null, "{by_id}");

    let browser = world.ops.with_header("accept", "text/html");
    for place in ["/actors".to_owned(), format!("/actors/{}", ada.id)] {
        let page = browser.get(&place, 200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{place}");
        assert!(page.text().contains("ada") && !page.text().contains("<script"), "{place}");
        for text in [page.text(), world.ops.get(&place, 200).text()] {
            assert!(
                !text.contains("canary") && !text.contains('@'),
                "{place} shows what a tenant holds"
            );
        }
    }
    assert_eq!(
        world.ops.get("/actors/tn_0123456789abcdef0123456789abcdef", 404).problem(),
        "about:blank"
    );
    world.ops.get("/actors/nobody", 404);
}

#[test]
fn a_tenants_token_finds_nothing_on_the_operators_listener() {
    let world = World::start();
    let ada = seeded(&world);
    let platform = world.platform_admin();
    for client in [&ada.owner, &platform] {
        let visitor = world.ops.with_token(client.token.as_deref().expect("a token"));
        for path in ["/readyz", "/metrics", "/actors", "/actors/ada", "/control", "/nothing"] {
            let reply = visitor.call("GET", path, None);
            assert_eq!(reply.status, 404, "{path}: {}", reply.text());
        }
        assert_eq!(visitor.call("POST", "/control", Some(&json!({}))).status, 404);
    }
    // Without any credential, being on the machine is not enough for commands.
    assert_eq!(world.ops.call("POST", "/control", Some(&json!({}))).status, 401);
}

#[test]
fn neither_listener_answers_for_the_other() {
    let world = World::start();
    let ada = seeded(&world);
    let token = ada.owner.token.as_deref().expect("a token");
    for path in
        ["/healthz", "/readyz", "/metrics", "/actors", "/actors/ada", "/control", "/style.css"]
    {
        for client in [&world.client, &ada.owner] {
            assert_eq!(client.get(path, 404).problem(), "not-found", "{path}");
        }
    }
    let front = world.ops.call("GET", "/", None);
    assert_eq!((front.status, front.header("location")), (307, Some("/actors")));
    for path in [
        "/version",
        "/openapi.json",
        "/docs",
        "/v1/me",
        "/v1/forms",
        "/v1/auth/sign-in",
        "/v1/platform/tenants",
    ] {
        for client in [world.ops.clone(), world.ops.with_token(token)] {
            assert_eq!(client.call("GET", path, None).status, 404, "{path}");
        }
    }
    world.ops.post(
        "/v1/auth/sign-in",
        json!({"tenant": "ada", "email": "owner@ada.example", "password": crate::kit::PASSWORD}),
        404,
    );
}

#[test]
fn a_browser_sent_here_under_another_name_finds_nothing() {
    let world = World::start();
    seeded(&world);
    for host in
        ["evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example"]
    {
        for path in ["/metrics", "/actors", "/actors/ada"] {
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = raw(&world.ops.base, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 404"), "{host}{path}: {answer}");
        }
    }
    let local = raw(
        &world.ops.base,
        b"GET /actors HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    assert!(local.starts_with("HTTP/1.1 200"), "{local}");
}

#[test]
fn bound_beyond_the_machine_everything_but_health_needs_the_token() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("scrape.token");
    let token = "a-token-of-a-decent-length";
    std::fs::write(&file, token).expect("a token file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let world = WorldOptions::default()
        .set("ops.bind", "0.0.0.0:0")
        .set("ops.token_file", file.to_str().expect("text"))
        .start();
    seeded(&world);
    world.ops.get("/healthz", 200);
    for path in ["/readyz", "/metrics", "/actors", "/actors/ada", "/nothing"] {
        let reply = world.ops.get(path, 401);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{path}");
        world.ops.with_token("a-token-of-no-meaning-here").get(path, 404);
    }
    let scraper: Client = world.ops.with_token(token);
    for path in ["/readyz", "/metrics", "/actors", "/actors/ada"] {
        scraper.get(path, 200);
    }
    assert_eq!(
        scraper.call("POST", "/control", Some(&json!({}))).status,
        401,
        "a scraper gives no commands"
    );
}

#[test]
fn a_listener_beyond_the_machine_without_a_token_is_a_configuration_error() {
    let overrides = Overrides::default()
        .set("ops.bind", "0.0.0.0:0")
        .set("data.dir", "/var/lib/bulkhead")
        .set("data.allow_temporary", true);
    let error = Config::load_from(None, Vec::new(), &overrides).expect_err("no token file");
    assert!(
        error.to_string().contains("ops.bind") && error.to_string().contains("ops.token_file"),
        "{error}"
    );
}

#[test]
fn no_spelling_of_its_path_opens_the_door_of_the_command_line() {
    let world = World::start();
    let command = r#"{"command":"create-platform-admin","person":{"email":"evil@x.example","password":"correct horse battery"}}"#;
    let spellings = [
        "/control",
        "/%63ontrol",
        "/contro%6C",
        "/contro%6c",
        "/%2fcontrol",
        "//control",
        "/control/",
        "/./control",
        "/x/../control",
        "/control?x=1",
        "/control%3f",
        "/CONTROL",
    ];
    for path in spellings {
        for content_type in ["application/json", "text/plain"] {
            let reply = world.ops.send("POST", path, Some(content_type), command.as_bytes());
            assert!([401, 404].contains(&reply.status), "{path}: {}", reply.text());
        }
    }
    let body = json!({"tenant": "platform", "email": "evil@x.example", "password": "correct horse battery"});
    world.client.post("/v1/auth/sign-in", body, 401);
}
