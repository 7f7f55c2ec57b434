//! The shapes of SCIM, for the documents. Requests are read by the table of attributes instead, because
//! clients write names in any case and send what we do not keep.

#![expect(dead_code, reason = "read by the schemas only")]

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The parts of a name.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimName", rename_all = "camelCase", deny_unknown_fields)]
pub struct Name {
    formatted: Option<String>,
    family_name: Option<String>,
    given_name: Option<String>,
    middle_name: Option<String>,
    honorific_prefix: Option<String>,
    honorific_suffix: Option<String>,
}

/// A further address.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimEmail", deny_unknown_fields)]
pub struct Email {
    value: String,
    r#type: Option<String>,
    primary: Option<bool>,
}

/// What somebody is in the tenant.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimRole", deny_unknown_fields)]
pub struct Role {
    /// customer, viewer, member or admin.
    value: String,
}

/// A person that is provisioned.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimUserBody", rename_all = "camelCase", deny_unknown_fields)]
pub struct UserBody {
    schemas: Vec<String>,
    /// The e-mail address they sign in with.
    user_name: String,
    external_id: Option<String>,
    name: Option<Name>,
    display_name: Option<String>,
    active: Option<bool>,
    emails: Option<Vec<Email>>,
    roles: Option<Vec<Role>>,
}

/// Somebody in a team.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimMember", deny_unknown_fields)]
pub struct Member {
    /// The person's id.
    value: String,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    r#type: Option<String>,
}

/// A team that is provisioned.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimGroupBody", rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupBody {
    schemas: Vec<String>,
    display_name: String,
    external_id: Option<String>,
    members: Option<Vec<Member>>,
}

/// One change.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimOperation", deny_unknown_fields)]
pub struct Operation {
    /// add, replace or remove.
    op: String,
    path: Option<String>,
    value: Option<Value>,
}

/// Changes of parts.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimPatchBody", deny_unknown_fields)]
pub struct PatchBody {
    schemas: Vec<String>,
    #[serde(rename = "Operations")]
    operations: Vec<Operation>,
}

/// A search.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimSearchBody", rename_all = "camelCase", deny_unknown_fields)]
pub struct SearchBody {
    schemas: Vec<String>,
    filter: Option<String>,
    start_index: Option<i64>,
    count: Option<i64>,
    attributes: Option<Vec<String>>,
    excluded_attributes: Option<Vec<String>>,
    sort_by: Option<String>,
    sort_order: Option<String>,
}

/// About a resource itself.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimMeta", rename_all = "camelCase")]
pub struct Meta {
    resource_type: String,
    created: Option<String>,
    last_modified: Option<String>,
    location: String,
    /// The `ETag`.
    version: Option<String>,
}

/// A team that somebody is in.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimMembership")]
pub struct Membership {
    value: String,
    #[serde(rename = "$ref")]
    reference: String,
    display: String,
}

/// A person as they are answered.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimUser", rename_all = "camelCase")]
pub struct UserView {
    schemas: Vec<String>,
    id: String,
    user_name: Option<String>,
    external_id: Option<String>,
    name: Option<Name>,
    display_name: Option<String>,
    active: Option<bool>,
    emails: Option<Vec<Email>>,
    roles: Option<Vec<Role>>,
    groups: Option<Vec<Membership>>,
    meta: Option<Meta>,
}

/// A team as it is answered.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimGroup", rename_all = "camelCase")]
pub struct GroupView {
    schemas: Vec<String>,
    id: String,
    display_name: Option<String>,
    external_id: Option<String>,
    members: Option<Vec<Member>>,
    meta: Option<Meta>,
}

/// A resource of whatever kind.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimResource")]
pub struct ResourceView {
    schemas: Vec<String>,
    meta: Option<Meta>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A part of a list.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ScimList", rename_all = "camelCase")]
pub struct ListView {
    schemas: Vec<String>,
    total_results: u64,
    start_index: u64,
    items_per_page: u64,
    #[serde(rename = "Resources")]
    resources: Vec<ResourceView>,
}
