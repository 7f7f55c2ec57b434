//! Teams, provisioned: making, reading, changing and removing them.
//!
//! A group has people in it and nothing else. Refuses: groups in groups, people of nowhere, and two
//! groups whose names differ only in case.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};
use storage::id::{TeamId, UserId};
use storage::keys::Key;
use storage::txn::Scan;
use storage::value;

use super::patch::{Operation, apply};
use super::schema::{GROUP, USER, meta};
use super::{Attributes, Fault, shape};
use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::limits;
use crate::permit::ProvisionPeople;
use crate::tenant::acl::Holder;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{FieldError, TenantError};
use crate::tenant::forms::grants::check_may_go;
use crate::tenant::forms::{Made, check_version, to_json};
use crate::tenant::teams::{Present, TeamRow, all_teams, take_members, take_name};

/// Longest id of a directory, in bytes.
const EXTERNAL_ID_BYTES_MAX: usize = 256;

/// The teams that some people are in, by person.
pub(super) fn teams_of(
    cx: &impl Reads,
    people: &[UserId],
) -> Result<HashMap<UserId, Vec<(TeamId, String)>>, TenantError> {
    let mut found: HashMap<UserId, Vec<(TeamId, String)>> = HashMap::new();
    if people.is_empty() {
        return Ok(found);
    }
    for (key, bytes) in cx.rows(&Scan { limit: limits::TEAMS_MAX, ..Scan::all(all_teams()) })? {
        let Key::Team { id } = key else { continue };
        let row: TeamRow = value::decode(&bytes)?;
        for person in people.iter().filter(|person| row.members.contains(person)) {
            found.entry(*person).or_default().push((id, row.name.clone()));
        }
    }
    Ok(found)
}

/// What clients may set of a team, as attributes. People who left are not shown.
fn writable(
    cx: &impl Reads,
    present: &mut Present,
    base: &str,
    row: &TeamRow,
) -> Result<Attributes, TenantError> {
    let mut attributes = Attributes::new();
    attributes.insert("displayName".to_owned(), row.name.as_str().into());
    if let Some(id) = &row.external_id {
        attributes.insert("externalId".to_owned(), id.as_str().into());
    }
    let mut members = Vec::with_capacity(row.members.len());
    for user in &row.members {
        if present.has(cx, *user)? {
            let id = user.to_string();
            let location = USER.location(base, &id);
            members.push(json!({"value": id, "$ref": location, "type": USER.name}));
        }
    }
    if !members.is_empty() {
        attributes.insert("members".to_owned(), Value::Array(members));
    }
    Ok(attributes)
}

/// A team as it is answered.
pub(super) fn render(
    cx: &impl Reads,
    present: &mut Present,
    base: &str,
    (id, row): (TeamId, &TeamRow),
) -> Result<Attributes, TenantError> {
    let mut attributes = writable(cx, present, base, row)?;
    attributes.insert("schemas".to_owned(), json!([GROUP.id]));
    attributes.insert("id".to_owned(), id.to_string().into());
    let location = GROUP.location(base, &id.to_string());
    let about = meta(&GROUP, location, (row.created_ms, row.updated_ms, row.version));
    attributes.insert("meta".to_owned(), Value::Object(about));
    Ok(attributes)
}

fn document(
    cx: &impl Reads,
    base: &str,
    id: TeamId,
    row: &TeamRow,
) -> Result<Document, TenantError> {
    let attributes = render(cx, &mut Present::default(), base, (id, row))?;
    Ok(Document { version: row.version, json: to_json(&Value::Object(attributes)) })
}

/// What a team is to be.
struct Wanted {
    name: String,
    external_id: Option<String>,
    members: BTreeSet<UserId>,
}

impl Wanted {
    /// Reads a team from attributes in the form that requests are brought into. `own` is the team that it
    /// is, if it is there already.
    fn read(
        cx: &impl Reads,
        attributes: &Attributes,
        own: Option<TeamId>,
    ) -> Result<Self, TenantError> {
        let invalid = |message: String| TenantError::from(Fault::InvalidValue(message));
        let text = |name: &str| attributes.get(name).and_then(Value::as_str);
        let name =
            text("displayName").ok_or_else(|| invalid("displayName is missing".to_owned()))?;
        let external_id = text("externalId");
        if external_id
            .is_some_and(|id| id.len() > EXTERNAL_ID_BYTES_MAX || id.chars().any(char::is_control))
        {
            return Err(invalid(format!(
                "externalId must have at most {EXTERNAL_ID_BYTES_MAX} bytes and no control characters"
            )));
        }
        let mut members = Vec::new();
        let values = attributes.get("members").and_then(Value::as_array);
        for member in values.into_iter().flatten() {
            let kind = member.get("type").and_then(Value::as_str);
            if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case(USER.name)) {
                return Err(invalid("members.type must be User: a group has no groups".to_owned()));
            }
            let id = member.get("value").and_then(Value::as_str).and_then(|id| id.parse().ok());
            members.push(id.ok_or_else(|| {
                invalid("members.value must be the id of a user of this tenant".to_owned())
            })?);
        }
        Ok(Self {
            name: take_name(cx, name, own).map_err(|error| named(error, "displayName"))?,
            external_id: external_id.map(str::to_owned),
            members: take_members(cx, &members).map_err(|error| named(error, "members"))?,
        })
    }
}

/// An error about a field, with the name that the field has here.
fn named(error: TenantError, attribute: &str) -> TenantError {
    match error {
        TenantError::Invalid(errors) => {
            let message = errors.into_iter().next().map(|FieldError { message, .. }| message);
            let message = format!("{attribute}: {}", message.unwrap_or_default());
            Fault::InvalidValue(message).into()
        }
        error => error,
    }
}

/// Makes a team.
#[derive(Debug)]
pub struct CreateGroup {
    /// What was sent.
    pub body: Attributes,
    /// Where this node is, for addresses in the answer.
    pub base: String,
}

impl Command for CreateGroup {
    type Action = ProvisionPeople;
    type Reply = Made<TeamId>;
    const NAME: &'static str = "scim.group_create";

    fn target(&self) -> Named {
        Named::new("team", "new")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Made<TeamId>, TenantError> {
        let Wanted { name, external_id, members } =
            Wanted::read(cx, &shape::read(&GROUP, &self.body)?, None)?;
        let (id, now_ms) = (cx.new_id(), cx.now_ms());
        let row = TeamRow {
            name,
            members,
            created_ms: now_ms,
            updated_ms: now_ms,
            version: 1,
            external_id,
        };
        cx.put(&Key::Team { id }, &row)?;
        let draft = Draft::success(Self::NAME, Named::new("team", id));
        cx.audit(draft.with("members", row.members.len() as u64));
        Ok(Made { id, document: document(cx, &self.base, id, &row)? })
    }
}

/// Reads a team.
#[derive(Debug)]
pub struct ReadGroup {
    /// Which.
    pub team: TeamId,
    /// Where this node is, for addresses in the answer.
    pub base: String,
}

impl Query for ReadGroup {
    type Action = ProvisionPeople;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let row: TeamRow = cx.need(&Key::Team { id: self.team })?;
        document(cx, &self.base, self.team, &row)
    }
}

/// What a team is to become.
#[derive(Debug)]
pub enum GroupChange {
    /// What was sent, and nothing else.
    Replace(Attributes),
    /// What it is, with some parts changed.
    Patch(Vec<Operation>),
}

/// Changes a team.
#[derive(Debug)]
pub struct ChangeGroup {
    /// Which.
    pub team: TeamId,
    /// Into what.
    pub change: GroupChange,
    /// The version it must still have.
    pub if_match: Option<u64>,
    /// Where this node is, for addresses in the answer.
    pub base: String,
}

impl Command for ChangeGroup {
    type Action = ProvisionPeople;
    type Reply = Document;
    const NAME: &'static str = "scim.group_update";

    fn target(&self) -> Named {
        Named::new("team", self.team)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let id = self.team;
        let before: TeamRow = cx.need(&Key::Team { id })?;
        check_version(self.if_match, before.version)?;
        let attributes = match &self.change {
            GroupChange::Replace(body) => shape::read(&GROUP, body)?,
            GroupChange::Patch(operations) => {
                let mut attributes = writable(cx, &mut Present::default(), &self.base, &before)?;
                apply(&GROUP, &mut attributes, operations)?;
                attributes
            }
        };
        let Wanted { name, external_id, members } = Wanted::read(cx, &attributes, Some(id))?;
        let mut row = TeamRow { name, external_id, members, ..before };
        if row == before {
            return document(cx, &self.base, id, &row);
        }
        row.version += 1;
        row.updated_ms = cx.now_ms();
        cx.put(&Key::Team { id }, &row)?;
        let draft = Draft::success(Self::NAME, Named::new("team", id))
            .with("name", row.name != before.name)
            .with("added", row.members.difference(&before.members).count() as u64)
            .with("removed", before.members.difference(&row.members).count() as u64);
        cx.audit(draft);
        document(cx, &self.base, id, &row)
    }
}

/// Removes a team; what it was granted is gone at once.
#[derive(Debug)]
pub struct DeleteGroup {
    /// Which.
    pub team: TeamId,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for DeleteGroup {
    type Action = ProvisionPeople;
    type Reply = ();
    const NAME: &'static str = "scim.group_delete";

    fn target(&self) -> Named {
        Named::new("team", self.team)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let key = Key::Team { id: self.team };
        let row: TeamRow = cx.need(&key)?;
        check_version(self.if_match, row.version)?;
        check_may_go(cx, Holder::Team(self.team))?;
        cx.delete(&key)?;
        cx.audit(Draft::success(Self::NAME, self.target()));
        Ok(())
    }
}
