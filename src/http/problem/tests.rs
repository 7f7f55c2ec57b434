//! What every problem must keep: unique codes, one text per kind, and nothing of its cause.

use std::collections::BTreeSet;

use actix_web::body::to_bytes;
use actors::quota::Quota;

use super::*;

async fn sent(problem: Problem) -> (HttpResponse, Value) {
    let response = problem.error_response();
    let body = to_bytes(problem.error_response().into_body()).await.expect("a body");
    (response, serde_json::from_slice(&body).expect("JSON"))
}

#[test]
fn codes_are_unique_kebab_case_and_of_error_statuses() {
    let codes: BTreeSet<_> = KINDS.iter().map(|kind| kind.code).collect();
    assert_eq!(codes.len(), KINDS.len());
    for kind in KINDS {
        assert!(
            kind.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{kind:?}"
        );
        assert!(kind.status.is_client_error() || kind.status.is_server_error(), "{kind:?}");
        assert!(!kind.docs.is_empty() && !kind.title.ends_with('.'), "{kind:?}");
    }
    assert!(KINDS.is_sorted_by_key(|kind| kind.status), "the table is ordered by status");
}

#[test]
fn the_page_for_people_is_the_table() {
    let expected = markdown();
    if include_str!("../../../docs/problems.md") != expected {
        let path = std::env::temp_dir().join("problems.md");
        std::fs::write(&path, expected).expect("a writable temporary directory");
        panic!("docs/problems.md is not the table; copy {} over it", path.display());
    }
}

#[actix_rt::test]
async fn a_used_up_quota_names_itself_and_its_limit() {
    let error = TenantError::QuotaExceeded { quota: Quota::Forms, limit: 3 };
    let (response, body) = sent(error.into()).await;
    assert_eq!(response.status(), 402);
    assert_eq!(response.headers().get(header::CONTENT_TYPE).expect("set"), MEDIA_TYPE);
    assert_eq!((&body["quota"], &body["limit"]), (&Value::from("forms"), &Value::from(3)));
}

#[actix_rt::test]
async fn what_is_busy_says_when_to_come_back() {
    for (error, status) in [
        (TenantError::Busy, 429),
        (TenantError::Waking, 503),
        (TenantError::LogStopped, 503),
        (TenantError::DiskFull, 503),
    ] {
        let (response, _) = sent(error.into()).await;
        assert_eq!(response.status(), status);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}

#[actix_rt::test]
async fn a_failure_of_ours_reads_the_same_whatever_failed() {
    let (_, panicked) = sent(TenantError::Panicked.into()).await;
    let (_, other) = sent(Problem::internal(std::io::Error::other("secret path"))).await;
    assert_eq!(panicked, other);
    assert!(!other.to_string().contains("secret"));
}

#[actix_rt::test]
async fn a_cause_is_kept_for_the_log_with_its_own_causes() {
    let problem = Problem::internal(std::io::Error::other("no disk"));
    assert_eq!(problem.cause_text().as_deref(), Some("no disk"));
    assert_eq!(Problem::not_found().cause_text(), None);
}

#[actix_rt::test]
async fn a_401_says_how_to_authenticate() {
    let (response, _) = sent(Problem::new(Kind::UNAUTHENTICATED)).await;
    assert_eq!(response.headers().get(header::WWW_AUTHENTICATE).expect("set"), "Bearer");
    let (response, _) = sent(TenantError::StaleCredential.into()).await;
    assert_eq!(
        response.headers().get(header::WWW_AUTHENTICATE).expect("set"),
        "Bearer error=\"invalid_token\""
    );
}
