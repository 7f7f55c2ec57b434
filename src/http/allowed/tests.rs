//! Hosts and query parameters, without a node.

use super::*;

#[test]
fn only_a_host_under_the_base_domain_names_a_tenant() {
    let slug = |host| slug_of(host, "Example.com");
    assert_eq!(slug("acme.example.com").as_deref(), Some("acme"));
    assert_eq!(slug("ACME.example.com:8443").as_deref(), Some("acme"));
    assert_eq!(slug("acme.example.com.").as_deref(), Some("acme"));
    assert_eq!(slug("a.b.example.com").as_deref(), Some("a.b"));
    for other in
        ["example.com", "notexample.com", "example.com.evil.org", "127.0.0.1:80", "[::1]:80", ""]
    {
        assert_eq!(slug(other), None, "{other}");
    }
}

#[test]
fn the_host_of_a_url_is_what_stands_between_scheme_and_port() {
    for (url, host) in [
        ("https://api.example.com", Some("api.example.com")),
        ("https://api.example.com:8443/x", Some("api.example.com")),
        ("api.example.com", None),
    ] {
        assert_eq!(host_of(url), host, "{url}");
    }
}

#[test]
fn a_parameter_that_the_row_does_not_name_is_refused() {
    assert!(check_query("limit=1&cursor=x", &["limit", "cursor"]).is_ok());
    assert!(check_query("", &[]).is_ok());
    for query in ["tenant=tn_1", "limit=1&x", "%6cimit=1", "limit=1&", "LIMIT=1"] {
        let problem = check_query(query, &["limit"]).expect_err(query);
        assert_eq!(problem.kind(), Kind::INVALID, "{query}");
    }
    let long = format!("limit={}", "1".repeat(QUERY_BYTES_MAX));
    assert_eq!(check_query(&long, &["limit"]).expect_err("long").kind(), Kind::URI_TOO_LONG);
}
