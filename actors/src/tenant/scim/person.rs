//! A person as a directory sees them: what its row says beside the person's own, and the one way from
//! attributes to rows and back.
//!
//! Refuses: an address that is none, texts that are too long or have control characters, more than one
//! role, and more than one preferred address.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::id::{TeamId, UserId};
use storage::keys::Key;

use super::schema::{GROUP, USER, meta};
use super::{Attributes, Fault};
use crate::permit::Role;
use crate::tenant::cx::{Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::people::{UserRow, normalise_email};

/// Longest text of a directory, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Further addresses of one person.
const EMAILS_MAX: usize = 20;

/// The parts of a name, in the order of the schema.
const NAME_PARTS: [&str; 6] =
    ["formatted", "familyName", "givenName", "middleName", "honorificPrefix", "honorificSuffix"];

/// A further address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// The address, in normal form.
    pub value: String,
    /// What it is for.
    pub kind: Option<String>,
    /// Whether it is the preferred one.
    pub is_primary: Option<bool>,
}

/// What a directory says of a person besides their address and role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionedRow {
    /// What the directory calls them.
    pub external_id: Option<String>,
    /// Their name, as others see it.
    pub display_name: Option<String>,
    /// The parts of their name, in the order of the schema.
    pub name: [Option<String>; NAME_PARTS.len()],
    /// Further addresses.
    pub emails: Vec<Email>,
    /// Whether it says that they are active; they are too if nobody says so.
    pub says_active: bool,
    /// Whether it says what they are; if not, they are what whoever is provisioned is.
    pub says_role: bool,
    /// Whether the directory made the account and nobody came into it by an identity yet.
    #[serde(default)]
    pub awaited: bool,
}

impl ProvisionedRow {
    /// Of somebody who came another way.
    fn of_others() -> Self {
        Self {
            external_id: None,
            display_name: None,
            name: Default::default(),
            emails: Vec::new(),
            says_active: true,
            says_role: true,
            awaited: false,
        }
    }

    /// A person's, whoever they are.
    pub(crate) fn find(cx: &impl Reads, user: UserId) -> Result<Self, TenantError> {
        Ok(cx.row(&Key::Provisioned { user })?.unwrap_or_else(Self::of_others))
    }
}

/// Lets go of what a directory said of a person.
pub(crate) fn forget_provisioned(cx: &mut Cx<'_, '_>, user: UserId) -> Result<(), TenantError> {
    let key = Key::Provisioned { user };
    if cx.bytes(&key)?.is_some() { cx.delete(&key) } else { Ok(()) }
}

/// What a person is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Their address, in normal form.
    pub email: String,
    /// Whether they are to get in, if that is said.
    pub active: Option<bool>,
    /// As what, if that is said.
    pub role: Option<Role>,
    /// The rest.
    pub row: ProvisionedRow,
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::InvalidValue(message.into())
}

fn line(what: &str, value: Option<&Value>) -> Result<Option<String>, Fault> {
    let Some(text) = value.and_then(Value::as_str) else { return Ok(None) };
    if text.len() > TEXT_BYTES_MAX {
        return Err(invalid(format!("{what} must have at most {TEXT_BYTES_MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{what} must not contain control characters")));
    }
    Ok(Some(text.to_owned()))
}

impl Wanted {
    /// Reads a person from attributes in the form that requests are brought into.
    pub(crate) fn read(attributes: &Attributes) -> Result<Self, Fault> {
        let user_name = attributes.get("userName").and_then(Value::as_str);
        let user_name = user_name.ok_or_else(|| invalid("userName is missing"))?;
        let email = normalise_email(user_name).map_err(|error| {
            invalid(format!(
                "userName is the e-mail address that the person signs in with: {error}"
            ))
        })?;
        let active = attributes.get("active").and_then(Value::as_bool);
        let role = read_role(attributes)?;
        let mut name: [Option<String>; NAME_PARTS.len()] = Default::default();
        for (part, of) in name.iter_mut().zip(NAME_PARTS) {
            let given = attributes.get("name").and_then(|name| name.get(of));
            *part = line(&format!("name.{of}"), given)?;
        }
        let row = ProvisionedRow {
            external_id: line("externalId", attributes.get("externalId"))?,
            display_name: line("displayName", attributes.get("displayName"))?,
            name,
            emails: read_emails(attributes)?,
            says_active: active.is_some(),
            says_role: role.is_some(),
            awaited: false,
        };
        Ok(Self { email, active, role, row })
    }
}

fn read_role(attributes: &Attributes) -> Result<Option<Role>, Fault> {
    let values = attributes.get("roles").and_then(Value::as_array);
    let mut role = None;
    for value in values.into_iter().flatten() {
        let text = value.get("value").and_then(Value::as_str).unwrap_or_default();
        let read = Role::parse(&text.to_ascii_lowercase())
            .filter(|role| *role != Role::PlatformAdmin)
            .ok_or_else(|| invalid("a role must be customer, viewer, member or admin"))?;
        if role.is_some_and(|role| role != read) {
            return Err(invalid("a person has one role"));
        }
        role = Some(read);
    }
    Ok(role)
}

fn read_emails(attributes: &Attributes) -> Result<Vec<Email>, Fault> {
    let values = attributes.get("emails").and_then(Value::as_array);
    let mut emails = Vec::new();
    for value in values.into_iter().flatten() {
        let text = value.get("value").and_then(Value::as_str).unwrap_or_default();
        let address =
            normalise_email(text).map_err(|error| invalid(format!("emails.value {error}")))?;
        emails.push(Email {
            value: address,
            kind: line("emails.type", value.get("type"))?,
            is_primary: value.get("primary").and_then(Value::as_bool),
        });
    }
    if emails.len() > EMAILS_MAX {
        return Err(invalid(format!("a person has at most {EMAILS_MAX} further addresses")));
    }
    if emails.iter().filter(|email| email.is_primary == Some(true)).count() > 1 {
        return Err(invalid("at most one of emails can be the primary one"));
    }
    Ok(emails)
}

/// What clients may set of a person, as attributes.
pub(crate) fn writable(user: &UserRow, row: &ProvisionedRow) -> Attributes {
    let mut attributes = Attributes::new();
    let mut put = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
    put("userName", user.email.as_str().into());
    for (name, text) in [("externalId", &row.external_id), ("displayName", &row.display_name)] {
        if let Some(text) = text {
            put(name, text.as_str().into());
        }
    }
    let part = |(of, part): (&str, &Option<String>)| {
        part.as_ref().map(|part| (of.to_owned(), Value::from(part.as_str())))
    };
    let name: Attributes = NAME_PARTS.into_iter().zip(&row.name).filter_map(part).collect();
    if !name.is_empty() {
        put("name", Value::Object(name));
    }
    if row.says_active || user.deactivated {
        put("active", (!user.deactivated).into());
    }
    if !row.emails.is_empty() {
        put("emails", row.emails.iter().map(Email::json).collect());
    }
    if row.says_role || user.role != Role::Member {
        put("roles", serde_json::json!([{"value": user.role.name()}]));
    }
    attributes
}

impl Email {
    fn json(&self) -> Value {
        let mut email = serde_json::json!({"value": self.value});
        if let Some(kind) = &self.kind {
            email["type"] = kind.as_str().into();
        }
        if let Some(is_primary) = self.is_primary {
            email["primary"] = is_primary.into();
        }
        email
    }
}

/// A person as they are answered, but for their teams.
pub(crate) fn render(base: &str, user: &UserRow, row: &ProvisionedRow) -> Attributes {
    let mut attributes = writable(user, row);
    attributes.insert("schemas".to_owned(), serde_json::json!([USER.id]));
    attributes.insert("id".to_owned(), user.id.to_string().into());
    let location = USER.location(base, &user.id.to_string());
    let about = meta(&USER, location, (user.created_ms, user.updated_ms, user.version));
    attributes.insert("meta".to_owned(), Value::Object(about));
    attributes
}

/// Adds the teams that a person is in.
pub(crate) fn add_groups(base: &str, attributes: &mut Attributes, teams: &[(TeamId, String)]) {
    if teams.is_empty() {
        return;
    }
    let group = |(team, name): &(TeamId, String)| {
        let location = GROUP.location(base, &team.to_string());
        serde_json::json!({"value": team.to_string(), "$ref": location, "display": name})
    };
    attributes.insert("groups".to_owned(), teams.iter().map(group).collect());
}
