//! THE ROUTE TABLE: every route is mounted, documented, authorised, rate-classed and tested from here.
//!
//! Each resource keeps its rows beside its handlers; [`ROUTES`] gathers them. Nothing is mounted any
//! other way, so what is not a row answers 404 and reaches no actor.

use actix_web::http::Method;
use actors::permit::Capability;
use actors::rate::Class;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::http::{
    account, api_keys, audit, auth, exports, external, forms, hooks, identities,
    identity_providers, integrations, invites, me, members, meta, mfa, oidc, passkeys, platform,
    recovery, restores, scim, submissions, support, teams, tenant, usage,
};

/// A method that a route answers. `HEAD` is answered wherever `GET` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Reads.
    Get,
    /// Creates, or does.
    Post,
    /// Replaces.
    Put,
    /// Changes parts.
    Patch,
    /// Removes.
    Delete,
}

impl Verb {
    /// Every verb, in the order `Allow` names them.
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// The verb that answers `method`.
    pub fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PUT => Some(Self::Put),
            Method::PATCH => Some(Self::Patch),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// The method itself.
    pub fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, within the budget of their address.
    Public,
    /// Whoever holds an access token whose role includes the capability. The tenant is the token's.
    Tenant(&'static Capability),
    /// The sender of a webhook, whom the tenant checks by signature.
    Hook,
}

/// Adds a type's schema to a document and gives the reference to it.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What a route takes in its body.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// Its schema.
    pub schema: SchemaOf,
    /// A body that works: the example in the documents, and what the tests send.
    pub sample: &'static str,
}

/// What a route answers when all is well.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The media type; nothing for an empty answer.
    pub media: Option<&'static str>,
    /// The schema of a JSON answer.
    pub schema: Option<SchemaOf>,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method.
    pub verb: Verb,
    /// The path; `{name}` stands for one segment.
    pub path: &'static str,
    /// `resource.verb`: the operation id of the documents, the label of the metrics.
    pub id: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Makes the handler; called once per worker thread.
    pub mount: fn() -> actix_web::Route,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Whose budget it is charged to.
    pub class: Class,
    /// What it takes.
    pub body: Option<Body>,
    /// What it answers.
    pub answer: Option<Answer>,
    /// Whether it heeds `Idempotency-Key`.
    pub idempotent: bool,
    /// Whether it heeds `If-Match`.
    pub guarded: bool,
    /// The query parameters it knows. Any other is refused before the handler runs.
    pub query: &'static [&'static str],
    /// Whether parameters that it does not know are let through.
    pub any_query: bool,
    /// Request headers of its own, with what they are for.
    pub headers: &'static [(&'static str, &'static str)],
}

impl Route {
    /// A row. The rate class follows from the access: `api`, `hooks`, or else `public`.
    pub const fn new(
        verb: Verb,
        path: &'static str,
        id: &'static str,
        access: Access,
        mount: fn() -> actix_web::Route,
    ) -> Self {
        let class = match access {
            Access::Public => Class::Public,
            Access::Tenant(_) => Class::Api,
            Access::Hook => Class::Hooks,
        };
        Self {
            verb,
            path,
            id,
            access,
            mount,
            summary: "",
            class,
            body: None,
            answer: None,
            idempotent: false,
            guarded: false,
            query: &[],
            any_query: false,
            headers: &[],
        }
    }

    /// Says what it does, in one line.
    pub const fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// Charges it to another budget.
    pub const fn rate(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Says what it takes, with a body that works.
    pub const fn body<T: JsonSchema>(mut self, sample: &'static str) -> Self {
        self.body = Some(Body { schema: schema_of::<T>, sample });
        self
    }

    /// Says what it answers as JSON. A 204 has no body, whatever `T` is.
    pub const fn answers<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answer = Some(if status == 204 {
            Answer { status, media: None, schema: None }
        } else {
            Answer { status, media: Some("application/json"), schema: Some(schema_of::<T>) }
        });
        self
    }

    /// Says what it answers as SCIM's JSON.
    pub const fn answers_scim<T: JsonSchema>(mut self, status: u16) -> Self {
        let schema = Some(schema_of::<T> as SchemaOf);
        self.answer = Some(Answer { status, media: Some(scim::MEDIA_TYPE), schema });
        self
    }

    /// Says that it answers with a list of `T`: `{"items": […], "next_cursor": …}`.
    pub const fn answers_page<T: JsonSchema>(self) -> Self {
        self.answers::<PageOf<T>>(200)
    }

    /// Says that it answers 204 without a body.
    pub const fn answers_nothing(mut self) -> Self {
        self.answer = Some(Answer { status: 204, media: None, schema: None });
        self
    }

    /// Says that it answers 303 and leads elsewhere.
    pub const fn answers_see_other(mut self) -> Self {
        self.answer = Some(Answer { status: 303, media: None, schema: None });
        self
    }

    /// Says that it answers 200 with something other than JSON.
    pub const fn answers_media(mut self, media: &'static str) -> Self {
        self.answer = Some(Answer { status: 200, media: Some(media), schema: None });
        self
    }

    /// Says that it heeds `Idempotency-Key`.
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Says that it heeds `If-Match`.
    pub const fn guarded(mut self) -> Self {
        self.guarded = true;
        self
    }

    /// Names the query parameters it knows.
    pub const fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query = names;
        self
    }

    /// Says that query parameters it does not know are no fault: others decide what they send along.
    pub const fn any_query(mut self) -> Self {
        self.any_query = true;
        self
    }

    /// Names request headers of its own, with what they are for.
    pub const fn headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        self.headers = headers;
        self
    }

    /// Whether only people of a tenant may call it.
    pub const fn is_tenant_scoped(&self) -> bool {
        matches!(self.access, Access::Tenant(_))
    }

    /// Whether it is of SCIM, where bodies and errors have forms of their own.
    pub fn is_scim(&self) -> bool {
        is_scim(self.path)
    }

    /// The names of the path's parameters, in order.
    pub fn params(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(param_name)
    }

    /// The resource it belongs to: what stands before the dot of its id.
    pub fn resource(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(resource, _)| resource)
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.verb.name(), self.path, self.id)
    }
}

/// Whether a path is one of SCIM's, known or not.
pub(crate) fn is_scim(path: &str) -> bool {
    path.strip_prefix("/scim").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The name in a `{name}` segment.
pub(crate) fn param_name(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// The shape of every list.
#[derive(JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub struct PageOf<T> {
    /// The records of this page.
    #[expect(dead_code, reason = "read by the schema only")]
    items: Vec<T>,
    /// Give it back as `cursor` for the next page; null on the last.
    #[expect(dead_code, reason = "read by the schema only")]
    next_cursor: Option<String>,
}

const GROUPS: &[&[Route]] = &[
    auth::ROUTES,
    recovery::ROUTES,
    external::ROUTES,
    oidc::ROUTES,
    me::ROUTES,
    mfa::ROUTES,
    passkeys::ROUTES,
    identities::ROUTES,
    tenant::ROUTES,
    restores::ROUTES,
    exports::ROUTES,
    members::ROUTES,
    invites::ROUTES,
    teams::ROUTES,
    identity_providers::ROUTES,
    api_keys::ROUTES,
    scim::ROUTES,
    scim::discovery::ROUTES,
    forms::ROUTES,
    submissions::ROUTES,
    audit::ROUTES,
    usage::ROUTES,
    integrations::ROUTES,
    hooks::ROUTES,
    platform::ROUTES,
    support::ROUTES,
    account::ROUTES,
    meta::ROUTES,
];

const COUNT: usize = {
    let (mut count, mut group) = (0, 0);
    while group < GROUPS.len() {
        count += GROUPS[group].len();
        group += 1;
    }
    count
};

/// Every route of the node.
pub static ROUTES: [Route; COUNT] = {
    let mut table = [meta::ROUTES[0]; COUNT];
    let (mut filled, mut group) = (0, 0);
    while group < GROUPS.len() {
        let mut row = 0;
        while row < GROUPS[group].len() {
            table[filled] = GROUPS[group][row];
            filled += 1;
            row += 1;
        }
        group += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::limits::PARAMS_MAX;

    #[test]
    fn no_two_rows_share_an_id_or_a_place() {
        let ids: BTreeSet<_> = ROUTES.iter().map(|route| route.id).collect();
        assert_eq!(ids.len(), ROUTES.len(), "two rows share an id");
        let places: BTreeSet<_> = ROUTES
            .iter()
            .map(|route| {
                let shape: Vec<_> = route
                    .path
                    .split('/')
                    .map(|part| param_name(part).map_or(part, |_| "{}"))
                    .collect();
                (route.verb, shape.join("/"))
            })
            .collect();
        assert_eq!(places.len(), ROUTES.len(), "two rows answer the same method and path");
    }

    #[test]
    fn every_row_says_what_it_does_and_answers() {
        for route in &ROUTES {
            assert!(!route.summary.is_empty(), "{route}: no summary");
            assert!(route.answer.is_some(), "{route}: no answer");
            assert!(route.id.contains('.'), "{route}: the id is not resource.verb");
            assert!(route.params().count() <= PARAMS_MAX, "{route}: too many parameters");
        }
    }

    #[test]
    fn parameter_names_are_unique_within_a_path() {
        for route in &ROUTES {
            let names: BTreeSet<_> = route.params().collect();
            assert_eq!(names.len(), route.params().count(), "{route}");
            assert!(route.path.starts_with('/'), "{route}");
        }
    }

    #[test]
    fn every_sample_body_is_json() {
        for (route, body) in ROUTES.iter().filter_map(|route| route.body.map(|body| (route, body)))
        {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(body.sample);
            assert!(parsed.is_ok(), "{route}: {:?}", parsed.err());
        }
    }

    #[test]
    fn only_rows_under_v1_and_of_scim_take_a_credential() {
        for route in ROUTES.iter().filter(|route| route.is_tenant_scoped()) {
            assert!(route.path.starts_with("/v1/") || route.is_scim(), "{route}");
        }
    }
}
