//! The schemas that describe the service itself (RFC 7643 §5 to §7). Clients read them; nothing here
//! is looked up by requests.

use super::{Attribute, Kind, Schema};

const fn told(name: &'static str, kind: Kind, means: &'static str) -> Attribute {
    Attribute::new(name, kind, means).read_only()
}

const SUPPORTED: Attribute =
    told("supported", Kind::Boolean, "Whether it can be done here").required();

/// What the service can do.
pub(super) const PROVIDER_CONFIG: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig",
    name: "ServiceProviderConfig",
    means: "What the service can do",
    attributes: &[
        told("documentationUri", Kind::Reference(&["external"]), "Where people read about it"),
        told("patch", Kind::Complex(&[SUPPORTED]), "Changes of parts").required(),
        told(
            "bulk",
            Kind::Complex(&[
                SUPPORTED,
                told("maxOperations", Kind::Integer, "Operations in one request at most")
                    .required(),
                told("maxPayloadSize", Kind::Integer, "Bytes of one request at most").required(),
            ]),
            "Several operations in one request",
        )
        .required(),
        told(
            "filter",
            Kind::Complex(&[
                SUPPORTED,
                told("maxResults", Kind::Integer, "Resources in one answer at most").required(),
            ]),
            "Filters",
        )
        .required(),
        told("changePassword", Kind::Complex(&[SUPPORTED]), "Setting passwords").required(),
        told("sort", Kind::Complex(&[SUPPORTED]), "Sorting").required(),
        told("etag", Kind::Complex(&[SUPPORTED]), "Versions").required(),
        told(
            "authenticationSchemes",
            Kind::Complex(&[
                told("type", Kind::Text, "What kind of scheme it is").required(),
                told("name", Kind::Text, "Its name").required(),
                told("description", Kind::Text, "What it is").required(),
                told("specUri", Kind::Reference(&["external"]), "Where it is specified"),
                told("documentationUri", Kind::Reference(&["external"]), "Where it is explained"),
            ]),
            "How requests prove who asks",
        )
        .many()
        .required(),
    ],
};

/// What kinds of resources there are.
pub(super) const RESOURCE_TYPE: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:core:2.0:ResourceType",
    name: "ResourceType",
    means: "A kind of resource",
    attributes: &[
        told("id", Kind::Text, "Its id"),
        told("name", Kind::Text, "Its name").required(),
        told("description", Kind::Text, "What it is"),
        told("endpoint", Kind::Reference(&["uri"]), "Where such resources are").required(),
        told("schema", Kind::Reference(&["uri"]), "What they are made of").exact().required(),
        told(
            "schemaExtensions",
            Kind::Complex(&[
                told("schema", Kind::Reference(&["uri"]), "The extension").exact().required(),
                told("required", Kind::Boolean, "Whether each resource has it").required(),
            ]),
            "What else they are made of",
        )
        .many(),
    ],
};

/// What schemas themselves are made of.
pub(super) const SCHEMA: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:core:2.0:Schema",
    name: "Schema",
    means: "What resources are made of",
    attributes: &[
        told("id", Kind::Text, "Its name, a URN").required(),
        told("name", Kind::Text, "Its name for people"),
        told("description", Kind::Text, "What it describes"),
        told("attributes", Kind::Complex(ATTRIBUTE), "Its attributes").many().required(),
    ],
};

const NAME: Attribute = told("name", Kind::Text, "Its name").exact().required();
const TYPE: Attribute = told("type", Kind::Text, "The kind of its values")
    .canonical(&[
        "string",
        "complex",
        "boolean",
        "decimal",
        "integer",
        "dateTime",
        "reference",
        "binary",
    ])
    .required();
const MANY: Attribute =
    told("multiValued", Kind::Boolean, "Whether it has several values").required();
const MEANS: Attribute = told("description", Kind::Text, "What it is");
const REQUIRED: Attribute = told("required", Kind::Boolean, "Whether it has to be given");
const CANONICAL: Attribute =
    told("canonicalValues", Kind::Text, "Values that are in use").exact().many();
const CASE: Attribute = told("caseExact", Kind::Boolean, "Whether the case of texts matters");
const MUTABILITY: Attribute = told("mutability", Kind::Text, "Who may set it")
    .exact()
    .canonical(&["readOnly", "readWrite", "immutable", "writeOnly"]);
const RETURNED: Attribute = told("returned", Kind::Text, "When it is answered")
    .exact()
    .canonical(&["always", "never", "default", "request"]);
const UNIQUE: Attribute = told("uniqueness", Kind::Text, "Where a value is there only once")
    .exact()
    .canonical(&["none", "server", "global"]);
const REFERENCES: Attribute =
    told("referenceTypes", Kind::Text, "What a reference can lead to").exact().many();

const INNER: &[Attribute] =
    &[NAME, TYPE, MANY, MEANS, REQUIRED, CANONICAL, CASE, MUTABILITY, RETURNED, UNIQUE, REFERENCES];

const ATTRIBUTE: &[Attribute] = &[
    NAME,
    TYPE,
    MANY,
    MEANS,
    REQUIRED,
    CANONICAL,
    CASE,
    MUTABILITY,
    RETURNED,
    UNIQUE,
    REFERENCES,
    told("subAttributes", Kind::Complex(INNER), "The attributes inside").many(),
];
