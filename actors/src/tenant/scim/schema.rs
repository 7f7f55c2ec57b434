//! What users and groups are made of: the one table that requests are read by, that filters and paths are
//! looked up in, and that `/Schemas` publishes.
//!
//! Knows no rows. Names of attributes are compared without regard to case, as RFC 7643 §2.1 says.

use serde_json::{Value, json};

use super::Attributes;

mod core;

/// The schema of the list of what is found.
pub const LIST_URN: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
/// The schema of errors.
pub const ERROR_URN: &str = "urn:ietf:params:scim:api:messages:2.0:Error";
/// The schema of changes.
pub const PATCH_URN: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
/// The schema of users.
pub const USER_URN: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// The schema of groups.
pub const GROUP_URN: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// Where everything of SCIM is, on this node.
pub const ROOT: &str = "/scim/v2";

/// What kind of value an attribute has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A time, RFC 3339.
    Time,
    /// A URI of a resource of one of these types.
    Reference(&'static [&'static str]),
    /// An object of further attributes.
    Complex(&'static [Attribute]),
}

/// Who may set an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutability {
    /// Clients, at any time.
    ReadWrite,
    /// Clients, when what it is part of is made.
    Immutable,
    /// The server alone.
    ReadOnly,
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// Its name, as it is spelled here.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub means: &'static str,
    /// What kind of value it has.
    pub kind: Kind,
    /// Whether it has a list of such values.
    pub many: bool,
    /// Whether a client has to give it.
    pub required: bool,
    /// Whether the case of its texts matters.
    pub exact: bool,
    /// Who may set it.
    pub mutability: Mutability,
    /// Whether it is in every answer, whatever was asked for.
    pub always: bool,
    /// Whether no two resources have the same value.
    pub unique: bool,
    /// Values that are in use.
    pub canonical: &'static [&'static str],
}

impl Attribute {
    const fn new(name: &'static str, kind: Kind, means: &'static str) -> Self {
        Self {
            name,
            means,
            kind,
            many: false,
            required: false,
            exact: false,
            mutability: Mutability::ReadWrite,
            always: false,
            unique: false,
            canonical: &[],
        }
    }
    const fn text(name: &'static str, means: &'static str) -> Self {
        Self::new(name, Kind::Text, means)
    }
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }
    const fn many(mut self) -> Self {
        self.many = true;
        self
    }
    const fn exact(mut self) -> Self {
        self.exact = true;
        self
    }
    const fn unique(mut self) -> Self {
        self.unique = true;
        self
    }
    const fn always(mut self) -> Self {
        self.always = true;
        self
    }
    const fn immutable(mut self) -> Self {
        self.mutability = Mutability::Immutable;
        self
    }
    const fn read_only(mut self) -> Self {
        self.mutability = Mutability::ReadOnly;
        self
    }
    const fn canonical(mut self, values: &'static [&'static str]) -> Self {
        self.canonical = values;
        self
    }

    /// The attributes inside; none of a simple one.
    pub fn subs(&self) -> &'static [Self] {
        match self.kind {
            Kind::Complex(subs) => subs,
            _ => &[],
        }
    }

    /// The attribute inside by that name.
    pub fn sub(&self, name: &str) -> Option<&'static Self> {
        self.subs().iter().find(|sub| sub.name.eq_ignore_ascii_case(name))
    }

    fn json(&self) -> Value {
        let kind = match self.kind {
            Kind::Text => "string",
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::Time => "dateTime",
            Kind::Reference(_) => "reference",
            Kind::Complex(_) => "complex",
        };
        let mutability = match self.mutability {
            Mutability::ReadWrite => "readWrite",
            Mutability::Immutable => "immutable",
            Mutability::ReadOnly => "readOnly",
        };
        let mut json = json!({
            "name": self.name,
            "type": kind,
            "multiValued": self.many,
            "description": self.means,
            "required": self.required,
            "caseExact": self.exact,
            "mutability": mutability,
            "returned": if self.always { "always" } else { "default" },
            "uniqueness": if self.unique { "server" } else { "none" },
        });
        if !self.canonical.is_empty() {
            json["canonicalValues"] = json!(self.canonical);
        }
        match self.kind {
            Kind::Reference(types) => json["referenceTypes"] = json!(types),
            Kind::Complex(subs) => {
                json["subAttributes"] = subs.iter().map(Self::json).collect();
            }
            _ => {}
        }
        json
    }
}

/// A schema: a name for a set of attributes.
#[derive(Debug, PartialEq, Eq)]
pub struct Schema {
    /// Its name, a URN.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// What it describes.
    pub means: &'static str,
    /// What it is made of.
    pub attributes: &'static [Attribute],
}

/// Every schema there is.
pub const SCHEMAS: [&Schema; 5] =
    [&USER, &GROUP, &core::PROVIDER_CONFIG, &core::RESOURCE_TYPE, &core::SCHEMA];

/// Users: the people of the tenant.
pub const USER: Schema = Schema {
    id: USER_URN,
    name: "User",
    means: "A person of the tenant",
    attributes: &[
        Attribute::text("userName", "The e-mail address they sign in with, in lower case")
            .required()
            .unique(),
        Attribute::new("name", Kind::Complex(NAME), "The parts of their name"),
        Attribute::text("displayName", "Their name, as others see it"),
        Attribute::new("active", Kind::Boolean, "Whether they can get in"),
        Attribute::new("emails", Kind::Complex(EMAIL), "Further addresses; none of them signs in")
            .many(),
        Attribute::new("roles", Kind::Complex(ROLE), "What they are in the tenant: one role")
            .many(),
        Attribute::new("groups", Kind::Complex(MEMBERSHIP), "The teams they are in")
            .many()
            .read_only(),
    ],
};

const NAME: &[Attribute] = &[
    Attribute::text("formatted", "The whole name, as it is shown"),
    Attribute::text("familyName", "The family name"),
    Attribute::text("givenName", "The given name"),
    Attribute::text("middleName", "Middle names"),
    Attribute::text("honorificPrefix", "What stands before the name"),
    Attribute::text("honorificSuffix", "What stands behind the name"),
];

const EMAIL: &[Attribute] = &[
    Attribute::text("value", "The address"),
    Attribute::text("type", "What it is for").canonical(&["work", "home", "other"]),
    Attribute::new("primary", Kind::Boolean, "Whether it is the preferred one"),
];

const ROLE: &[Attribute] = &[Attribute::text("value", "The role's name")
    .canonical(&["customer", "viewer", "member", "admin"])];

const MEMBERSHIP: &[Attribute] = &[
    Attribute::text("value", "The team's id").exact().read_only(),
    Attribute::new("$ref", Kind::Reference(&["Group"]), "The team's address").exact().read_only(),
    Attribute::text("display", "The team's name").read_only(),
];

/// Groups: the teams of the tenant.
pub const GROUP: Schema = Schema {
    id: GROUP_URN,
    name: "Group",
    means: "A team of the tenant",
    attributes: &[
        Attribute::text("displayName", "The team's name").required().unique(),
        Attribute::new("members", Kind::Complex(MEMBER), "Who is in it").many(),
    ],
};

const MEMBER: &[Attribute] = &[
    Attribute::text("value", "The person's id").exact().immutable(),
    Attribute::new("$ref", Kind::Reference(&["User"]), "The person's address").exact().immutable(),
    Attribute::text("type", "What is in it: people only").canonical(&["User"]).immutable(),
];

/// What every resource has besides.
const COMMON: &[Attribute] = &[
    Attribute::text("id", "The resource's id").exact().read_only().always().unique(),
    Attribute::text("externalId", "What the client calls it").exact(),
    Attribute::new("meta", Kind::Complex(META), "About the resource itself").read_only(),
];

const META: &[Attribute] = &[
    Attribute::text("resourceType", "User or Group").exact().read_only(),
    Attribute::new("created", Kind::Time, "When it was made").read_only(),
    Attribute::new("lastModified", Kind::Time, "When it last changed").read_only(),
    Attribute::new("location", Kind::Reference(&["uri"]), "Its address").exact().read_only(),
    Attribute::text("version", "Counts changes; the ETag").exact().read_only(),
];

/// What people and teams of other servers have and ours have not: taken without being kept, so that a
/// directory that sends everything it has is not refused.
const NOT_KEPT: [&str; 15] = [
    "nickName",
    "profileUrl",
    "title",
    "userType",
    "preferredLanguage",
    "locale",
    "timezone",
    "password",
    "phoneNumbers",
    "ims",
    "photos",
    "addresses",
    "entitlements",
    "x509Certificates",
    "schemas",
];

const EXTENSION_PREFIX: &str = "urn:ietf:params:scim:schemas:extension:";

/// What the name of an attribute leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// An attribute that we keep.
    Kept(&'static Attribute),
    /// One of the standard that we do not keep.
    NotKept,
}

impl Schema {
    /// What a name leads to; nothing if no standard has such an attribute. `urn` is the schema that was
    /// named in front of it.
    pub fn find(&self, urn: Option<&str>, name: &str) -> Option<Known> {
        if let Some(urn) = urn.filter(|urn| !urn.eq_ignore_ascii_case(self.id)) {
            let is_extension = urn.to_ascii_lowercase().starts_with(EXTENSION_PREFIX);
            return is_extension.then_some(Known::NotKept);
        }
        let is_it = |attribute: &&Attribute| attribute.name.eq_ignore_ascii_case(name);
        if let Some(attribute) = self.attributes.iter().chain(COMMON).find(is_it) {
            return Some(Known::Kept(attribute));
        }
        let is_known = NOT_KEPT.iter().any(|known| known.eq_ignore_ascii_case(name));
        (is_known || is_extension(name)).then_some(Known::NotKept)
    }

    /// The attributes that clients set.
    pub fn writable(&self) -> impl Iterator<Item = &'static Attribute> + use<> {
        let own: &'static [Attribute] = self.attributes;
        own.iter().chain(COMMON).filter(|attribute| attribute.mutability != Mutability::ReadOnly)
    }

    /// The schema as `/Schemas` shows it.
    pub fn json(&self, base: &str) -> Value {
        let location = format!("{base}{ROOT}/Schemas/{}", self.id);
        json!({
            "schemas": [core::SCHEMA.id],
            "id": self.id,
            "name": self.name,
            "description": self.means,
            "attributes": self.attributes.iter().map(Attribute::json).collect::<Value>(),
            "meta": {"resourceType": "Schema", "location": location},
        })
    }

    /// The resource type of that schema as `/ResourceTypes` shows it.
    pub fn resource_type(&self, base: &str) -> Value {
        let location = format!("{base}{ROOT}/ResourceTypes/{}", self.name);
        json!({
            "schemas": [core::RESOURCE_TYPE.id],
            "id": self.name,
            "name": self.name,
            "description": self.means,
            "endpoint": format!("/{}s", self.name),
            "schema": self.id,
            "meta": {"resourceType": "ResourceType", "location": location},
        })
    }

    /// The address of one of its resources.
    pub fn location(&self, base: &str, id: &str) -> String {
        format!("{base}{ROOT}/{}s/{id}", self.name)
    }
}

/// Whether a name is that of an extension of the standard, such as the enterprise user.
pub(crate) fn is_extension(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with(EXTENSION_PREFIX)
}

/// What the server can do, as `/ServiceProviderConfig` shows it.
pub fn provider_config(base: &str, results_max: usize, body_bytes_max: usize) -> Value {
    json!({
        "schemas": [core::PROVIDER_CONFIG.id],
        "patch": {"supported": true},
        "bulk": {"supported": false, "maxOperations": 0, "maxPayloadSize": body_bytes_max},
        "filter": {"supported": true, "maxResults": results_max},
        "changePassword": {"supported": false},
        "sort": {"supported": false},
        "etag": {"supported": true},
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "API key",
            "description": "An API key of the tenant with the scope scim:write, as a bearer token",
            "primary": true,
        }],
        "meta": {
            "resourceType": "ServiceProviderConfig",
            "location": format!("{base}{ROOT}/ServiceProviderConfig"),
        },
    })
}

/// A list as SCIM answers it.
pub fn list_response(total: usize, start: usize, resources: Vec<Value>) -> Value {
    json!({
        "schemas": [LIST_URN],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": resources.len(),
        "Resources": resources,
    })
}

/// The `meta` of a resource.
pub(crate) fn meta(
    schema: &Schema,
    location: String,
    (created_ms, updated_ms, version): (u64, u64, u64),
) -> Attributes {
    let mut meta = Attributes::new();
    meta.insert("resourceType".to_owned(), schema.name.into());
    meta.insert("created".to_owned(), crate::env::rfc3339(created_ms).into());
    meta.insert("lastModified".to_owned(), crate::env::rfc3339(updated_ms).into());
    meta.insert("location".to_owned(), location.into());
    meta.insert("version".to_owned(), format!("W/\"{version}\"").into());
    meta
}
