//! Whole nodes in this process.

use super::*;
use crate::config::Overrides;

fn config(dir: &std::path::Path) -> Config {
    let overrides = Overrides { data_dir: Some(dir.to_owned()), ..Overrides::default() }
        .set("data.allow_temporary", true)
        .set("data.segment_bytes", 1 << 20)
        .set("http.bind", "127.0.0.1:0")
        .set("http.workers", 1)
        .set("ops.bind", "127.0.0.1:0");
    Config::load_from(None, [], &overrides).expect("the configuration")
}

async fn get(url: String) -> (u16, String) {
    let answer = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.get(&url).call().expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("a text"))
    });
    answer.await.expect("the client")
}

#[actix_rt::test]
async fn a_node_starts_answers_stops_and_starts_again_on_the_same_data() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for _ in 0..2 {
        let node = Node::start(config(dir.path())).await.expect("it starts");
        let presence = presence::read(dir.path()).expect("node.json");
        assert_eq!(
            (presence.http.as_str(), presence.ops.as_str()),
            (node.http_url(), node.ops_url())
        );
        assert_eq!(get(format!("{}/readyz", node.ops_url())).await.0, 200);
        assert_eq!(get(format!("{}/openapi.json", node.http_url())).await.0, 200);
        assert_eq!(get(format!("{}/v1/me", node.http_url())).await.0, 401);
        assert_eq!(get(format!("{}/metrics", node.http_url())).await.0, 404);
        node.stop().await.expect("it stops");
        assert_eq!(presence::read(dir.path()), None);
    }
}

#[actix_rt::test]
async fn two_nodes_in_one_process_do_not_share_data() {
    let (one_dir, other_dir) =
        (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("other"));
    let one = Node::start(config(one_dir.path())).await.expect("one starts");
    let other = Node::start(config(other_dir.path())).await.expect("the other starts");
    assert_ne!(one.http_url(), other.http_url());
    one.stop().await.expect("one stops");
    assert_eq!(get(format!("{}/healthz", other.ops_url())).await.0, 200);
    other.stop().await.expect("the other stops");
}

#[actix_rt::test]
async fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = config(dir.path());
    config.http.bind = taken.local_addr().expect("its address");
    let error = Node::start(config.clone()).await.err().expect("the port is taken").to_string();
    assert!(
        error.contains("http.bind") && error.contains(&config.http.bind.to_string()),
        "{error}"
    );
}

#[actix_rt::test]
async fn a_data_directory_in_use_names_the_process() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(config(dir.path())).await.expect("it starts");
    let error = Node::start(config(dir.path())).await.err().expect("the directory is taken");
    let text = crate::control::error_chain(&error);
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    node.stop().await.expect("it stops");
}

#[actix_rt::test]
async fn the_operators_pages_show_tenants_and_actors_and_refuse_tenant_tokens() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(config(dir.path())).await.expect("it starts");
    let (status, text) = get(format!("{}/actors", node.ops_url())).await;
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, value["tenants"][0]["state"].as_str()), (200, Some("awake")));
    let names: Vec<_> = value["supervisors"].as_array().expect("supervisors").iter().collect();
    assert_eq!(names.len(), 9, "{text}");
    let (status, text) = get(format!("{}/metrics", node.ops_url())).await;
    assert_eq!(status, 200);
    assert!(text.contains("bulkhead_tenants{state=\"awake\"} 1"), "{text}");
    assert_eq!(get(format!("{}/actors/tn_00", node.ops_url())).await.0, 404);
    node.stop().await.expect("it stops");
}

#[test]
fn browsers_are_sent_to_a_name_where_passkeys_need_one() {
    let at = |changes: &[(&str, &str)], bound: &str| {
        let data_dir = Some("/srv/bulkhead".into());
        let mut overrides = Overrides { data_dir, ..Overrides::default() };
        for (key, value) in changes {
            overrides = overrides.set(key, *value);
        }
        let config = Config::load_from(None, [], &overrides).expect("the configuration");
        url_for_browsers(&config.http, bound.parse().expect("an address"))
    };
    for bound in ["127.0.0.1:8080", "[::1]:8080", "0.0.0.0:8080", "[::]:8080"] {
        assert_eq!(at(&[], bound), "http://localhost:8080", "{bound}");
    }
    assert_eq!(at(&[], "192.0.2.1:80"), "http://192.0.2.1:80");
    let public = [("http.public_url", "https://app.example.com")];
    assert_eq!(at(&public, "127.0.0.1:8080"), "https://app.example.com");
    // The name that passkeys are bound to is another one then.
    let base = [("http.base_domain", "example.com")];
    assert_eq!(at(&base, "127.0.0.1:8080"), "http://127.0.0.1:8080");
}
