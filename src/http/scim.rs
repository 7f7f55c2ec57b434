//! SCIM 2.0 (RFC 7644): where a directory provisions a tenant's people and teams.
//!
//! The tenant is the credential's, as everywhere; what may be done to whom is the tenant's to decide. This
//! file reads the wire and nothing else. Errors below this path have SCIM's own form ([`error`]).
//! Refuses: sorting, which is not done here, is not an error; several operations in one request are.

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use actors::call::Document;
use actors::permit::{Action as _, ProvisionPeople};
use actors::tenant::scim::groups::{ChangeGroup, CreateGroup, DeleteGroup, GroupChange, ReadGroup};
use actors::tenant::scim::lists::response;
use actors::tenant::scim::patch;
use actors::tenant::scim::schema::{GROUP, Schema, USER};
use actors::tenant::scim::users::{ChangeUser, CreateUser, DeleteUser, ReadUser, UserChange};
use actors::tenant::scim::{Attributes, Fault};
use futures_util::future::{Ready, ready};
use serde_json::Value;
use storage::id::{TeamId, UserId};

use self::bodies::{GroupBody, GroupView, ListView, PatchBody, SearchBody, UserBody, UserView};
use self::query::{Asked, BOTH, GROUPS, USERS};
use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::app::App;
use crate::http::extract::{At, Json};
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

pub mod bodies;
pub mod discovery;
pub mod error;
pub mod query;

/// The media type of all that is answered here.
pub const MEDIA_TYPE: &str = "application/scim+json";

/// Parameters that say which part of a resource is wanted.
const PARTS: &[&str] = &["attributes", "excludedAttributes"];
/// Parameters of lists. Sorting is asked for by some clients and not done.
const LISTS: &[&str] =
    &["filter", "startIndex", "count", "attributes", "excludedAttributes", "sortBy", "sortOrder"];

const PATCH_SAMPLE: &str = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[{"op":"replace","path":"displayName","value":"Somebody else"}]}"#;
const SEARCH_SAMPLE: &str = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:SearchRequest"],"filter":"displayName sw \"S\"","startIndex":1,"count":10}"#;

const fn route(
    verb: Verb,
    path: &'static str,
    id: &'static str,
    mount: fn() -> actix_web::Route,
) -> Route {
    Route::new(verb, path, id, Access::Tenant(ProvisionPeople::ROW), mount)
}

/// The rows of users, groups and searches.
pub const ROUTES: &[Route] = &[
    route(Verb::Get, "/scim/v2/Users", "scim.users-list", || web::get().to(list_users))
        .summary("List provisioned and other people")
        .query(LISTS)
        .answers_scim::<ListView>(200),
    route(Verb::Post, "/scim/v2/Users", "scim.user-create", || web::post().to(create_user))
        .summary("Provision a person, without a password")
        .body::<UserBody>(
            r#"{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"bob@example.org","name":{"givenName":"Bob","familyName":"Byrd"},"active":true}"#,
        )
        .query(PARTS)
        .answers_scim::<UserView>(201),
    route(Verb::Post, "/scim/v2/Users/.search", "scim.users-search", || {
        web::post().to(search_users)
    })
    .summary("Search people")
    .body::<SearchBody>(SEARCH_SAMPLE)
    .answers_scim::<ListView>(200),
    route(Verb::Get, "/scim/v2/Users/{member}", "scim.user-read", || web::get().to(read_user))
        .summary("Read one person")
        .query(PARTS)
        .answers_scim::<UserView>(200),
    route(Verb::Put, "/scim/v2/Users/{member}", "scim.user-replace", || {
        web::put().to(replace_user)
    })
    .summary("Replace what is known of a person; role and being active stay unless named")
    .body::<UserBody>(
        r#"{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"bob@example.org","displayName":"Bob"}"#,
    )
    .query(PARTS)
    .guarded()
    .answers_scim::<UserView>(200),
    route(Verb::Patch, "/scim/v2/Users/{member}", "scim.user-change", || {
        web::patch().to(change_user)
    })
    .summary("Change parts of a person; `active: false` ends their sessions at once")
    .body::<PatchBody>(PATCH_SAMPLE)
    .query(PARTS)
    .guarded()
    .answers_scim::<UserView>(200),
    route(Verb::Delete, "/scim/v2/Users/{member}", "scim.user-delete", || {
        web::delete().to(delete_user)
    })
    .summary("Remove a person")
    .guarded()
    .answers_nothing(),
    route(Verb::Get, "/scim/v2/Groups", "scim.groups-list", || web::get().to(list_groups))
        .summary("List teams")
        .query(LISTS)
        .answers_scim::<ListView>(200),
    route(Verb::Post, "/scim/v2/Groups", "scim.group-create", || web::post().to(create_group))
        .summary("Make a team")
        .body::<GroupBody>(
            r#"{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"Reviewers","members":[]}"#,
        )
        .query(PARTS)
        .answers_scim::<GroupView>(201),
    route(Verb::Post, "/scim/v2/Groups/.search", "scim.groups-search", || {
        web::post().to(search_groups)
    })
    .summary("Search teams")
    .body::<SearchBody>(SEARCH_SAMPLE)
    .answers_scim::<ListView>(200),
    route(Verb::Get, "/scim/v2/Groups/{team}", "scim.group-read", || web::get().to(read_group))
        .summary("Read one team")
        .query(PARTS)
        .answers_scim::<GroupView>(200),
    route(Verb::Put, "/scim/v2/Groups/{team}", "scim.group-replace", || {
        web::put().to(replace_group)
    })
    .summary("Replace a team's name and members")
    .body::<GroupBody>(
        r#"{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"Approvers"}"#,
    )
    .query(PARTS)
    .guarded()
    .answers_scim::<GroupView>(200),
    route(Verb::Patch, "/scim/v2/Groups/{team}", "scim.group-change", || {
        web::patch().to(change_group)
    })
    .summary("Change parts of a team")
    .body::<PatchBody>(PATCH_SAMPLE)
    .query(PARTS)
    .guarded()
    .answers_scim::<GroupView>(200),
    route(Verb::Delete, "/scim/v2/Groups/{team}", "scim.group-delete", || {
        web::delete().to(delete_group)
    })
    .summary("Remove a team; what it was granted is gone at once")
    .guarded()
    .answers_nothing(),
    route(Verb::Post, "/scim/v2/.search", "scim.search", || web::post().to(search))
        .summary("Search people and teams")
        .body::<SearchBody>(SEARCH_SAMPLE)
        .answers_scim::<ListView>(200),
];

/// Where this node is, for addresses in answers: as it is configured, or else as it was called.
struct Base(String);

impl FromRequest for Base {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let config = request.app_data::<web::Data<App>>().map(|app| &app.config.http);
        let url = config.and_then(|http| http.public_url.clone()).unwrap_or_else(|| {
            let is_tls = config.is_some_and(|http| http.tls.is_some());
            let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
            match named.or_else(|| request.uri().host()) {
                Some(host) => format!("{}://{host}", if is_tls { "https" } else { "http" }),
                None => String::new(),
            }
        });
        ready(Ok(Self(url.trim_end_matches('/').to_owned())))
    }
}

/// The version that `If-Match` names, weak or not: a version counts every change there is.
struct Version(Option<u64>);

impl FromRequest for Version {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all(header::IF_MATCH);
        let (Some(value), None) = (values.next(), values.next()) else {
            let is_absent = !request.headers().contains_key(header::IF_MATCH);
            let mismatch = || Problem::new(Kind::VERSION_MISMATCH);
            return ready(if is_absent { Ok(Self(None)) } else { Err(mismatch()) });
        };
        let tag = value.to_str().unwrap_or_default().trim();
        if tag == "*" {
            return ready(Ok(Self(None)));
        }
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')?.parse().ok());
        let version = version.ok_or_else(|| Problem::new(Kind::VERSION_MISMATCH));
        ready(version.map(|version| Self(Some(version))))
    }
}

fn scim(status: StatusCode, json: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(json));
    let media = HeaderValue::from_static(MEDIA_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

fn value(value: &Value) -> Result<HttpResponse, Problem> {
    Ok(scim(StatusCode::OK, serde_json::to_vec(value).map_err(Problem::internal)?))
}

/// One resource, as far as it is asked for.
fn resource(
    status: StatusCode,
    schema: &'static Schema,
    asked: &Asked,
    document: Document,
) -> Result<HttpResponse, Problem> {
    let json = if asked.projection.is_whole() {
        document.json.into_vec()
    } else {
        let whole: Attributes =
            serde_json::from_slice(&document.json).map_err(Problem::internal)?;
        let part = asked.projection.of(schema, whole);
        serde_json::to_vec(&part).map_err(Problem::internal)?
    };
    let mut response = scim(status, json);
    let tag = format!("W/\"{}\"", document.version);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

fn created(
    schema: &'static Schema,
    (base, id): (&str, &str),
    asked: &Asked,
    document: Document,
) -> Result<HttpResponse, Problem> {
    let mut response = resource(StatusCode::CREATED, schema, asked, document)?;
    // A host that is not a header value made the request fail long before.
    if let Ok(location) = HeaderValue::from_str(&schema.location(base, id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn operations(body: &Attributes) -> Result<Vec<patch::Operation>, Problem> {
    patch::read(body).map_err(|fault: Fault| fault.into())
}

async fn list(
    allowed: Allowed<ProvisionPeople>,
    Base(base): Base,
    asked: Asked,
    schemas: &'static [&'static Schema],
) -> Result<HttpResponse, Problem> {
    let (start, projection) = (asked.start, asked.projection.clone());
    let listed = allowed.query(asked.list(schemas, base)).await?;
    value(&response(listed, start, &projection))
}

async fn list_users(
    allowed: Allowed<ProvisionPeople>,
    base: Base,
    asked: Asked,
) -> Result<HttpResponse, Problem> {
    list(allowed, base, asked, USERS).await
}

async fn list_groups(
    allowed: Allowed<ProvisionPeople>,
    base: Base,
    asked: Asked,
) -> Result<HttpResponse, Problem> {
    list(allowed, base, asked, GROUPS).await
}

async fn search(
    allowed: Allowed<ProvisionPeople>,
    base: Base,
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    list(allowed, base, Asked::in_body(&body)?, BOTH).await
}

async fn search_users(
    allowed: Allowed<ProvisionPeople>,
    base: Base,
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    list(allowed, base, Asked::in_body(&body)?, USERS).await
}

async fn search_groups(
    allowed: Allowed<ProvisionPeople>,
    base: Base,
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    list(allowed, base, Asked::in_body(&body)?, GROUPS).await
}

async fn create_user(
    allowed: Allowed<ProvisionPeople>,
    Base(base): Base,
    asked: Asked,
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    let made = allowed.command(CreateUser { body, base: base.clone() }).await?.reply;
    created(&USER, (&base, &made.id.to_string()), &asked, made.document)
}

async fn read_user(
    allowed: Allowed<ProvisionPeople>,
    At(user): At<UserId>,
    Base(base): Base,
    asked: Asked,
) -> Result<HttpResponse, Problem> {
    resource(StatusCode::OK, &USER, &asked, allowed.query(ReadUser { user, base }).await?)
}

async fn replace_user(
    allowed: Allowed<ProvisionPeople>,
    At(user): At<UserId>,
    (Base(base), Version(if_match), asked): (Base, Version, Asked),
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    let change = UserChange::Replace(body);
    let changed = allowed.command(ChangeUser { user, change, if_match, base }).await?;
    resource(StatusCode::OK, &USER, &asked, changed.reply)
}

async fn change_user(
    allowed: Allowed<ProvisionPeople>,
    At(user): At<UserId>,
    (Base(base), Version(if_match), asked): (Base, Version, Asked),
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    let change = UserChange::Patch(operations(&body)?);
    let changed = allowed.command(ChangeUser { user, change, if_match, base }).await?;
    resource(StatusCode::OK, &USER, &asked, changed.reply)
}

async fn delete_user(
    allowed: Allowed<ProvisionPeople>,
    At(user): At<UserId>,
    Version(if_match): Version,
) -> Result<HttpResponse, Problem> {
    allowed.command(DeleteUser { user, if_match }).await?;
    Ok(answer::no_content())
}

async fn create_group(
    allowed: Allowed<ProvisionPeople>,
    Base(base): Base,
    asked: Asked,
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    let made = allowed.command(CreateGroup { body, base: base.clone() }).await?.reply;
    created(&GROUP, (&base, &made.id.to_string()), &asked, made.document)
}

async fn read_group(
    allowed: Allowed<ProvisionPeople>,
    At(team): At<TeamId>,
    Base(base): Base,
    asked: Asked,
) -> Result<HttpResponse, Problem> {
    resource(StatusCode::OK, &GROUP, &asked, allowed.query(ReadGroup { team, base }).await?)
}

async fn replace_group(
    allowed: Allowed<ProvisionPeople>,
    At(team): At<TeamId>,
    (Base(base), Version(if_match), asked): (Base, Version, Asked),
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    let change = GroupChange::Replace(body);
    let changed = allowed.command(ChangeGroup { team, change, if_match, base }).await?;
    resource(StatusCode::OK, &GROUP, &asked, changed.reply)
}

async fn change_group(
    allowed: Allowed<ProvisionPeople>,
    At(team): At<TeamId>,
    (Base(base), Version(if_match), asked): (Base, Version, Asked),
    Json(body): Json<Attributes>,
) -> Result<HttpResponse, Problem> {
    let change = GroupChange::Patch(operations(&body)?);
    let changed = allowed.command(ChangeGroup { team, change, if_match, base }).await?;
    resource(StatusCode::OK, &GROUP, &asked, changed.reply)
}

async fn delete_group(
    allowed: Allowed<ProvisionPeople>,
    At(team): At<TeamId>,
    Version(if_match): Version,
) -> Result<HttpResponse, Problem> {
    allowed.command(DeleteGroup { team, if_match }).await?;
    Ok(answer::no_content())
}
