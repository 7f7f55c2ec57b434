//! Teams: named groups of people that a form's access list can name.
//!
//! A team is one row. Whoever asks what a team may do reads that row then and there, so a change of
//! the team counts from the next message on and a deleted team's grants are gone with it. People who
//! left the tenant are not shown, and their ids never come back, so their places need no cleaning.
//!
//! Refuses: to keep two teams whose names differ only in case.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use storage::id::{Id, TeamId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::call::{Document, Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit::{ReadTeams, WriteTeams};
use crate::tenant::acl::Holder;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, FieldError, TenantError};
use crate::tenant::forms::grants::check_may_go;
use crate::tenant::forms::lists::{End, Pager, Step, open_id_cursor, walk};
use crate::tenant::forms::{Made, check_version, line, to_json};

/// Longest name of a team, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// The body that makes a team.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTeamBody {
    /// What people see; unique in the tenant.
    pub name: String,
    /// Who is in it.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub members: Vec<UserId>,
}

/// The body that changes a team: only what it names.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTeamBody {
    /// What people see; unique in the tenant.
    #[serde(default)]
    pub name: Option<String>,
    /// Everyone who is to be in it.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    pub members: Option<Vec<UserId>>,
}

/// A team as it is answered.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct TeamView {
    /// Which team.
    #[schemars(with = "String")]
    pub id: TeamId,
    /// What people see.
    pub name: String,
    /// Who is in it.
    #[schemars(with = "Vec<String>")]
    pub members: Vec<UserId>,
    /// Counts changes; the `ETag` without its quotes.
    pub version: u64,
    /// When it was made, RFC 3339 UTC.
    pub created_at: String,
    /// When it last changed, RFC 3339 UTC.
    pub updated_at: String,
}

/// A team's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeamRow {
    /// What people see.
    pub name: String,
    /// Who was put in it; some may have left the tenant since.
    pub members: BTreeSet<UserId>,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it last changed, Unix milliseconds.
    pub updated_ms: u64,
    /// Counts changes; becomes the `ETag`.
    pub version: u64,
    /// What the directory that provisions it calls it.
    #[serde(default)]
    pub external_id: Option<String>,
}

/// Who still is in the tenant, asked once a person.
#[derive(Default)]
pub(crate) struct Present(HashMap<UserId, bool>);

impl Present {
    pub(crate) fn has<R: Reads>(&mut self, cx: &R, user: UserId) -> Result<bool, TenantError> {
        if let Some(known) = self.0.get(&user) {
            return Ok(*known);
        }
        let is_present = cx.bytes(&Key::User { id: user })?.is_some();
        self.0.insert(user, is_present);
        Ok(is_present)
    }

    fn render<R: Reads>(
        &mut self,
        cx: &R,
        id: TeamId,
        row: &TeamRow,
    ) -> Result<ByteBuf, TenantError> {
        let mut members = Vec::with_capacity(row.members.len());
        for user in &row.members {
            if self.has(cx, *user)? {
                members.push(*user);
            }
        }
        Ok(to_json(&TeamView {
            id,
            name: row.name.clone(),
            members,
            version: row.version,
            created_at: rfc3339(row.created_ms),
            updated_at: rfc3339(row.updated_ms),
        }))
    }
}

fn document<R: Reads>(cx: &R, id: TeamId, row: &TeamRow) -> Result<Document, TenantError> {
    Ok(Document { version: row.version, json: Present::default().render(cx, id, row)? })
}

pub(crate) fn all_teams() -> Prefix {
    Prefix::kind(&Key::Team { id: TeamId::from_bytes([0; 16]) })
}

/// Takes a name that no team but `own` has.
pub(crate) fn take_name<R: Reads>(
    cx: &R,
    name: &str,
    own: Option<TeamId>,
) -> Result<String, TenantError> {
    let name = line("/name", name, NAME_BYTES_MAX)?;
    let folded = name.to_lowercase();
    let scan = Scan { limit: limits::TEAMS_MAX, ..Scan::all(all_teams()) };
    let rows = cx.rows(&scan)?;
    if own.is_none() && rows.len() >= limits::TEAMS_MAX {
        let message = format!("a tenant has at most {} teams", limits::TEAMS_MAX);
        return Err(TenantError::invalid("/name", message));
    }
    for (key, bytes) in rows {
        let Key::Team { id } = key else { continue };
        let row: TeamRow = value::decode(&bytes)?;
        if own != Some(id) && row.name.to_lowercase() == folded {
            return Err(TenantError::Conflict(Conflict::TeamNameTaken));
        }
    }
    Ok(name)
}

/// Takes the members of a team. Every one that is nobody here is reported.
pub(crate) fn take_members<R: Reads>(
    cx: &R,
    users: &[UserId],
) -> Result<BTreeSet<UserId>, TenantError> {
    if users.len() > limits::TEAM_MEMBERS_MAX {
        let message = format!("must have at most {} members", limits::TEAM_MEMBERS_MAX);
        return Err(TenantError::invalid("/members", message));
    }
    let mut present = Present::default();
    let mut errors = Vec::new();
    for (index, user) in users.iter().enumerate() {
        if !present.has(cx, *user)? {
            errors.push(FieldError {
                pointer: format!("/members/{index}"),
                message: "no such person in this tenant".to_owned(),
            });
        }
    }
    errors.truncate(limits::ERRORS_MAX);
    if errors.is_empty() {
        Ok(users.iter().copied().collect())
    } else {
        Err(TenantError::Invalid(errors))
    }
}

/// Makes a team.
#[derive(Debug)]
pub struct CreateTeam {
    /// What it is to be.
    pub body: CreateTeamBody,
}

impl Command for CreateTeam {
    type Action = WriteTeams;
    type Reply = Made<TeamId>;
    const NAME: &'static str = "team.create";

    fn target(&self) -> Named {
        Named::new("team", "new")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Made<TeamId>, TenantError> {
        let now_ms = cx.now_ms();
        let row = TeamRow {
            name: take_name(cx, &self.body.name, None)?,
            members: take_members(cx, &self.body.members)?,
            created_ms: now_ms,
            updated_ms: now_ms,
            version: 1,
            external_id: None,
        };
        let id = cx.new_id();
        cx.put(&Key::Team { id }, &row)?;
        let draft = Draft::success(Self::NAME, Named::new("team", id));
        cx.audit(draft.with("members", row.members.len() as u64));
        Ok(Made { id, document: document(cx, id, &row)? })
    }
}

/// Changes a team's name or members.
#[derive(Debug)]
pub struct UpdateTeam {
    /// Which team.
    pub team: TeamId,
    /// What is to change.
    pub body: UpdateTeamBody,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for UpdateTeam {
    type Action = WriteTeams;
    type Reply = Document;
    const NAME: &'static str = "team.update";

    fn target(&self) -> Named {
        Named::new("team", self.team)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let id = self.team;
        let mut row: TeamRow = cx.need(&Key::Team { id })?;
        check_version(self.if_match, row.version)?;
        let mut draft = Draft::success(Self::NAME, Named::new("team", id));
        if let Some(name) = &self.body.name {
            row.name = take_name(cx, name, Some(id))?;
            draft = draft.with("name", true);
        }
        if let Some(members) = &self.body.members {
            let members = take_members(cx, members)?;
            draft = draft
                .with("added", members.difference(&row.members).count() as u64)
                .with("removed", row.members.difference(&members).count() as u64);
            row.members = members;
        }
        row.version += 1;
        row.updated_ms = cx.now_ms();
        cx.put(&Key::Team { id }, &row)?;
        cx.audit(draft);
        document(cx, id, &row)
    }
}

/// Deletes a team; what it was granted is gone at once.
#[derive(Debug)]
pub struct DeleteTeam {
    /// Which team.
    pub team: TeamId,
    /// The version it must still have.
    pub if_match: Option<u64>,
}

impl Command for DeleteTeam {
    type Action = WriteTeams;
    type Reply = ();
    const NAME: &'static str = "team.delete";

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

/// Reads one team.
#[derive(Debug)]
pub struct ReadTeam {
    /// Which team.
    pub team: TeamId,
}

impl Query for ReadTeam {
    type Action = ReadTeams;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let row: TeamRow = cx.need(&Key::Team { id: self.team })?;
        document(cx, self.team, &row)
    }
}

/// Lists teams in the order they were made.
#[derive(Debug, Default)]
pub struct ListTeams {
    /// Which part.
    pub paging: Paging,
}

impl Query for ListTeams {
    type Action = ReadTeams;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let after = open_id_cursor(self.paging.cursor.as_deref())?.map(|id| Key::Team { id });
        let mut pager = Pager::new(&self.paging);
        let mut present = Present::default();
        let limit = pager.rows_wanted();
        let end = walk(cx, Scan { after, limit, ..Scan::all(all_teams()) }, |key, bytes| {
            let Key::Team { id } = *key else { return Ok(Step::Next) };
            pager.offer(id, || present.render(cx, id, &value::decode(bytes)?))
        })?;
        Ok(pager.close(match end {
            End::Bound(Key::Team { id }) => Some(id),
            _ => None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permit::{Principal, Role};
    use crate::tenant::members::RemoveMember;
    use crate::tenant::members::scene::{Scene, person};

    fn body(name: &str, members: &[UserId]) -> CreateTeam {
        CreateTeam { body: CreateTeamBody { name: name.to_owned(), members: members.to_vec() } }
    }

    fn owner(scene: &mut Scene) -> Principal {
        person(scene.add("owner@example.com", Role::Owner), Role::Owner)
    }

    fn shown(document: &Document) -> serde_json::Value {
        serde_json::from_slice(&document.json).unwrap()
    }

    #[test]
    fn names_that_differ_only_in_case_are_the_same() {
        let mut scene = Scene::new();
        let owner = owner(&mut scene);
        let team = scene.run(&owner, body("Reviewers", &[])).unwrap().id;
        let taken = scene.run(&owner, body(" reviewers ", &[]));
        assert!(matches!(taken, Err(TenantError::Conflict(Conflict::TeamNameTaken))));
        let name = Some("REVIEWERS".to_owned());
        let body = UpdateTeamBody { name, ..UpdateTeamBody::default() };
        assert!(scene.run(&owner, UpdateTeam { team, body, if_match: Some(1) }).is_ok());
    }

    #[test]
    fn people_who_are_not_here_are_pointed_at_and_those_who_left_are_not_shown() {
        let mut scene = Scene::new();
        let owner = owner(&mut scene);
        let ann = scene.add("ann@example.com", Role::Member);
        let stranger = UserId::from_bytes([3; 16]);
        match scene.run(&owner, body("A", &[ann, stranger])) {
            Err(TenantError::Invalid(errors)) => assert_eq!(errors[0].pointer, "/members/1"),
            other => panic!("{other:?}"),
        }
        let team = scene.run(&owner, body("A", &[ann])).unwrap().id;
        scene.run(&owner, RemoveMember { user: ann }).unwrap();
        let read = scene.ask(&owner, ReadTeam { team }).unwrap();
        assert_eq!(shown(&read)["members"], serde_json::json!([]));
    }

    #[test]
    fn a_deleted_team_is_gone_and_lists_page_through_the_rest() {
        let mut scene = Scene::new();
        let owner = owner(&mut scene);
        let teams: Vec<_> = ["A", "B", "C"]
            .into_iter()
            .map(|name| {
                scene.now_ms += 1;
                scene.run(&owner, body(name, &[])).unwrap().id
            })
            .collect();
        let stale = DeleteTeam { team: teams[1], if_match: Some(2) };
        assert!(matches!(scene.run(&owner, stale), Err(TenantError::VersionMismatch)));
        scene.run(&owner, DeleteTeam { team: teams[1], if_match: None }).unwrap();
        let gone = scene.ask(&owner, ReadTeam { team: teams[1] });
        assert!(matches!(gone, Err(TenantError::NotFound)));
        let list = |cursor| ListTeams { paging: Paging { limit: 1, cursor } };
        let first = scene.ask(&owner, list(None)).unwrap();
        let second = scene.ask(&owner, list(first.next)).unwrap();
        let last: serde_json::Value = serde_json::from_slice(&second.items[0]).unwrap();
        assert_eq!((last["name"].as_str(), second.next), (Some("C"), None));
        assert_eq!((scene.noted("team.create"), scene.noted("team.delete")), (3, 1));
    }
}
