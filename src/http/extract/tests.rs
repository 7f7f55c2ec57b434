//! What comes in wrong, and what is said about it.

use std::rc::Rc;

use actix_web::HttpMessage as _;
use actix_web::test::TestRequest;
use actors::tenant::error::FieldError;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;
use crate::http::request::RequestContext;
use crate::http::routes::ROUTES;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    title: String,
    #[serde(default)]
    rows: Vec<Row>,
    data: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    count: u32,
}

async fn sheet(media: &str, body: &str) -> Result<Sheet, Problem> {
    let (request, mut payload) = TestRequest::post()
        .insert_header(("content-type", media))
        .set_payload(body.to_owned())
        .to_http_parts();
    Json::<Sheet>::from_request(&request, &mut payload).await.map(|json| json.0)
}

async fn fault(body: &str) -> FieldError {
    let problem = sheet("application/json", body).await.expect_err(body);
    assert_eq!(problem.kind(), Kind::INVALID, "{body}");
    problem.field_errors()[0].clone()
}

#[actix_rt::test]
async fn a_body_is_read_with_its_raw_parts() {
    let body = r#"{"title":"T","rows":[{"count":1}],"data":{"b":1, "a":2}}"#;
    for media in ["application/json", "Application/JSON; charset=UTF-8", "application/vnd.x+json"] {
        let sheet = sheet(media, body).await.expect("a sheet");
        assert_eq!((sheet.title.as_str(), sheet.rows[0].count), ("T", 1));
        assert_eq!(sheet.data.expect("data").get(), r#"{"b":1, "a":2}"#);
    }
}

#[actix_rt::test]
async fn a_list_is_no_object_though_its_members_come_in_order() {
    let refused = fault(r#" ["T",[],null]"#).await;
    assert_eq!(
        (refused.pointer.as_str(), refused.message.as_str()),
        ("", "must be an object, not a list")
    );
    let broken = sheet("application/json", r#"["T",]"#).await.expect_err("no JSON");
    assert_eq!(broken.kind(), Kind::MALFORMED);
}

#[test]
fn a_number_in_a_path_has_one_spelling() {
    let read = |text: &str| <u64 as Segment>::read(text);
    assert_eq!(
        (read("0"), read("1"), read("18446744073709551615")),
        (Some(0), Some(1), Some(u64::MAX))
    );
    for other in ["", "01", "+1", "-1", "1.0", "18446744073709551616"] {
        assert_eq!(read(other), None, "{other}");
    }
}

#[actix_rt::test]
async fn another_media_type_is_refused() {
    for media in [
        "text/plain",
        "",
        "application/json; charset=latin1",
        "application/jsonx",
        "multipart/form-data",
    ] {
        let problem = sheet(media, r#"{"title":"T"}"#).await.expect_err(media);
        assert_eq!(problem.kind(), Kind::UNSUPPORTED_MEDIA, "{media}");
    }
}

#[actix_rt::test]
async fn what_is_not_json_is_malformed() {
    let deep = format!("{{\"title\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for body in
        ["", "{", "{\"title\":\"T\"} x", "{'title':1}", "{\"title\":1", "\u{0}", deep.as_str()]
    {
        let problem = sheet("application/json", body).await.expect_err("malformed");
        assert_eq!(problem.kind(), Kind::MALFORMED, "{}", &body[..body.len().min(40)]);
    }
}

#[actix_rt::test]
async fn a_wrong_field_is_pointed_at() {
    for (body, pointer) in [
        (r#"{"title":7}"#, "/title"),
        (r#"{}"#, "/title"),
        (r#"{"title":"T","role":"owner"}"#, "/role"),
        (r#"{"title":"T","a/b~c":1}"#, "/a~1b~0c"),
        (r#"{"title":"T","rows":[{"count":1},{"count":-1}]}"#, "/rows/1/count"),
        (r#"{"title":"T","rows":[{}]}"#, "/rows/0/count"),
        (r#"{"title":"T","rows":[{"count":1,"tenant_id":2}]}"#, "/rows/0/tenant_id"),
        (r#"{"title":"T","title":"U"}"#, "/title"),
        (r#"[]"#, ""),
    ] {
        let fault = fault(body).await;
        assert_eq!(fault.pointer, pointer, "{body}: {}", fault.message);
        assert!(!fault.message.contains("line"), "{}", fault.message);
    }
}

#[actix_rt::test]
async fn a_body_over_the_limit_is_not_read() {
    let body = "x".repeat(BODY_BYTES_DEFAULT + 1);
    let problem = sheet("application/json", &body).await.expect_err("too large");
    assert_eq!(problem.kind(), Kind::TOO_LARGE);
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    status: Option<String>,
    after: Option<u64>,
}

#[test]
fn a_query_is_read_and_its_faults_are_pointed_at() {
    let filter: Filter = parse_query("status=draft&after=7").expect("a filter");
    assert_eq!((filter.status.as_deref(), filter.after), (Some("draft"), Some(7)));
    let filter: Filter =
        parse_query("limit=3&cursor=x&status=a%20b").expect("pages are not its business");
    assert_eq!(filter.status.as_deref(), Some("a b"));
    for (query, pointer) in [
        ("after=soon", "query/after"),
        ("status=x&after=-1&limit=2", "query/after"),
        ("stat=x", "query/stat"),
        ("after=1&after=2", "query/after"),
    ] {
        let problem = parse_query::<Filter>(query).expect_err(query);
        assert_eq!(problem.field_errors()[0].pointer, pointer, "{query}");
    }
}

#[test]
fn a_page_is_bounded() {
    assert_eq!(paging("").expect("a page"), Paging { limit: PAGE_DEFAULT, cursor: None });
    let page = paging("limit=200&cursor=abc&status=x").expect("a page");
    assert_eq!(page, Paging { limit: 200, cursor: Some("abc".to_owned()) });
    for query in
        ["limit=0", "limit=201", "limit=-1", "limit=x", "limit=", "cursor=", "limit=1&limit=2"]
    {
        assert_eq!(paging(query).expect_err(query).kind(), Kind::INVALID, "{query}");
    }
}

#[test]
fn if_match_takes_one_strong_tag() {
    let read = |value: &str| {
        let request = TestRequest::patch().insert_header(("if-match", value)).to_http_request();
        if_match(request.headers())
    };
    assert_eq!(read("\"7\"").expect("a version"), Some(7));
    assert_eq!(read("*").expect("any"), None);
    for tag in ["7", "W/\"7\"", "\"7\", \"8\"", "\"x\"", ""] {
        assert_eq!(read(tag).expect_err(tag).kind(), Kind::VERSION_MISMATCH, "{tag}");
    }
}

#[actix_rt::test]
async fn an_id_of_another_kind_is_simply_absent() {
    let matcher = crate::http::matcher::Matcher::new(&ROUTES);
    let request = |path: &str| {
        let request = TestRequest::get().uri(path).to_http_request();
        if let crate::http::matcher::Matched::Row { index, params } =
            matcher.find(path, Some(crate::http::routes::Verb::Get))
        {
            let context = RequestContext::new("r".into(), None, None, &ROUTES[index], params);
            request.extensions_mut().insert(Rc::new(context));
        }
        request
    };
    let id = format!("fm_{}", "0".repeat(32));
    let known =
        At::<FormId>::from_request(&request(&format!("/v1/forms/{id}")), &mut Payload::None).await;
    assert_eq!(known.expect("an id").0.to_string(), id);
    for text in ["fm_1", "us_00000000000000000000000000000000", "x"] {
        let absent =
            At::<FormId>::from_request(&request(&format!("/v1/forms/{text}")), &mut Payload::None)
                .await;
        assert_eq!(absent.expect_err(text).kind(), Kind::NOT_FOUND);
    }
}
