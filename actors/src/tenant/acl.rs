//! Who may do what with one form: the form's access list, and the one function that reads it.
//!
//! A form without grants is open: the tenant role decides, except that its access list, and whether
//! it is archived, are up to its creator and to the tenant's owners and administrators. Otherwise any
//! member could take a form away from its users. One grant makes it *restricted*: then the
//! role *and* a grant must allow the action. There are no deny entries, so a further grant never
//! takes a right away. Grants name people, roles and teams, and are resolved when they are asked
//! about: the grants of a deleted team or person are gone at once.
//!
//! An API key is here whoever made it: the same person, role and teams, so a grant to one of those is a
//! grant to the key, and no list can name a key. The key's scopes were checked before, with the route's
//! capability. What a key cannot do in its creator's place is break the glass: it has no reasons.
//!
//! Refuses: to grant anything a role does not have. A viewer stays a reader and a customer stays
//! with their own records, whatever the list says.

use serde::{Deserialize, Serialize};
use storage::id::{Id, TeamId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;

use crate::limits;
use crate::permit::{
    Action, Capability, CommentSubmissions, CreateSubmissions, DecideSubmissions, ManageForms,
    Principal, ReadFormAudit, ReadForms, Role, UpdateForms, UpdateSubmissions,
};
use crate::tenant::cx::Reads;
use crate::tenant::error::TenantError;
use crate::tenant::teams::TeamRow;

/// What a grant allows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Read, comment, approve and reject.
    Reviewer,
    /// Read, comment, change the form and its submissions.
    Editor,
    /// Everything, the access list included.
    Owner,
}

impl Level {
    /// Every level, highest first.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Editor, Self::Reviewer];

    /// Its name in JSON and in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reviewer => "REVIEWER",
            Self::Editor => "EDITOR",
            Self::Owner => "OWNER",
        }
    }

    /// The table of the grant levels.
    pub const fn allows(self, action: FormAction) -> bool {
        match action {
            FormAction::Read | FormAction::Submit | FormAction::Comment | FormAction::SeeGrants => {
                true
            }
            FormAction::Edit | FormAction::EditSubmissions => {
                matches!(self, Self::Owner | Self::Editor)
            }
            FormAction::Decide => matches!(self, Self::Owner | Self::Reviewer),
            FormAction::Manage | FormAction::Archive | FormAction::ReadAudit => {
                matches!(self, Self::Owner)
            }
        }
    }
}

/// Who holds a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Holder {
    /// One person.
    User(UserId),
    /// Everyone with that role in the tenant.
    Role(Role),
    /// Everyone in the team.
    Team(TeamId),
}

impl Holder {
    /// The kind in JSON: `user`, `role` or `team`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Role(_) => "role",
            Self::Team(_) => "team",
        }
    }
    /// The id within that kind.
    pub fn id(&self) -> String {
        match self {
            Self::User(user) => user.to_string(),
            Self::Role(role) => role.to_string(),
            Self::Team(team) => team.to_string(),
        }
    }
}

/// One entry of a form's access list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FormGrant {
    /// To whom.
    pub holder: Holder,
    /// What.
    pub level: Level,
}

/// Something one does with a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormAction {
    /// Read the form and its submissions.
    Read,
    /// Make a submission.
    Submit,
    /// Change the form's definition.
    Edit,
    /// Change other people's submissions.
    EditSubmissions,
    /// Comment on submissions.
    Comment,
    /// Approve and reject submissions.
    Decide,
    /// See the access list.
    SeeGrants,
    /// Change the access list.
    Manage,
    /// Archive the form.
    Archive,
    /// Read the form's audit trail.
    ReadAudit,
}

impl FormAction {
    /// Every action, in the order they are shown in.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Submit,
        Self::Edit,
        Self::EditSubmissions,
        Self::Comment,
        Self::Decide,
        Self::SeeGrants,
        Self::Manage,
        Self::Archive,
        Self::ReadAudit,
    ];

    /// Its name where the table is published.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Edit => "edit",
            Self::EditSubmissions => "edit-submissions",
            Self::Comment => "comment",
            Self::Decide => "decide",
            Self::SeeGrants => "see-grants",
            Self::Manage => "manage-grants",
            Self::Archive => "archive",
            Self::ReadAudit => "read-audit",
        }
    }

    /// What it is, in one line.
    pub const fn means(self) -> &'static str {
        match self {
            Self::Read => "Read the form and its submissions.",
            Self::Submit => "Make a submission.",
            Self::Edit => "Change the form's definition.",
            Self::EditSubmissions => "Change submissions.",
            Self::Comment => "Comment on submissions.",
            Self::Decide => "Approve and reject other people's submissions.",
            Self::SeeGrants => "See the access list.",
            Self::Manage => "Change the access list, and so hand the form on.",
            Self::Archive => "Archive and delete the form.",
            Self::ReadAudit => "Read the form's audit trail.",
        }
    }

    /// The capability that the role must have, whatever the grants say.
    pub const fn capability(self) -> &'static Capability {
        match self {
            Self::Read => ReadForms::ROW,
            Self::Submit => CreateSubmissions::ROW,
            Self::Edit => UpdateForms::ROW,
            Self::EditSubmissions => UpdateSubmissions::ROW,
            Self::Comment => CommentSubmissions::ROW,
            Self::Decide => DecideSubmissions::ROW,
            Self::SeeGrants | Self::Manage | Self::Archive => ManageForms::ROW,
            Self::ReadAudit => ReadFormAudit::ROW,
        }
    }
}

/// Who asks, as far as access lists care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The person; nobody when the node itself asks.
    pub user: Option<UserId>,
    /// Their role in this tenant.
    pub role: Role,
    /// Their teams, at least those that the list in question names.
    pub teams: Vec<TeamId>,
    /// Whether they made the form in question; false where nobody looked.
    pub is_creator: bool,
    /// Whether a key of theirs asks, and not they themselves.
    pub is_service: bool,
    /// Whether it is somebody of the platform: no grant is theirs.
    pub is_support: bool,
}

impl Caller {
    /// Whoever asks, with those of their teams that `grants` name.
    pub fn among<R: Reads>(cx: &R, grants: &[FormGrant]) -> Result<Self, TenantError> {
        let mut caller = Self::alone(cx);
        let Some(user) = caller.user else { return Ok(caller) };
        for grant in grants {
            let Holder::Team(team) = grant.holder else { continue };
            if caller.teams.contains(&team) {
                continue;
            }
            let row: Option<TeamRow> = cx.row(&Key::Team { id: team })?;
            if row.is_some_and(|row| row.members.contains(&user)) {
                caller.teams.push(team);
            }
        }
        Ok(caller)
    }

    /// Whoever asks, with all their teams, for looking at many forms.
    pub fn with_all_teams<R: Reads>(cx: &R) -> Result<Self, TenantError> {
        let mut caller = Self::alone(cx);
        let Some(user) = caller.user else { return Ok(caller) };
        let prefix = Prefix::kind(&Key::Team { id: TeamId::from_bytes([0; 16]) });
        let scan = Scan { limit: limits::SCAN_ROWS_MAX, ..Scan::all(prefix) };
        for (key, bytes) in cx.rows(&scan)? {
            let row: TeamRow = storage::value::decode(&bytes)?;
            if let (Key::Team { id }, true) = (key, row.members.contains(&user)) {
                caller.teams.push(id);
            }
        }
        Ok(caller)
    }

    fn alone<R: Reads>(cx: &R) -> Self {
        let user = match cx.principal() {
            Principal::User(user) => Some(user.user),
            Principal::Service(service) => Some(service.user),
            Principal::Support(_)
            | Principal::Anonymous
            | Principal::Sender
            | Principal::System(_) => None,
        };
        let is_service = matches!(cx.principal(), Principal::Service(_));
        let is_support = matches!(cx.principal(), Principal::Support(_));
        let role = cx.role();
        Self { user, role, teams: Vec::new(), is_creator: false, is_service, is_support }
    }

    /// Whether a grant to `holder` is a grant to the caller.
    pub fn is(&self, holder: &Holder) -> bool {
        match holder {
            Holder::User(user) => self.user == Some(*user),
            Holder::Role(role) => self.role == *role && !self.is_support,
            Holder::Team(team) => self.teams.contains(team),
        }
    }

    /// The highest grant the caller holds, and through whom.
    pub fn best(&self, grants: &[FormGrant]) -> Option<FormGrant> {
        grants.iter().filter(|grant| self.is(&grant.holder)).copied().max_by_key(|it| it.level)
    }

    /// Whether an open form is the caller's to give away or to archive.
    fn may_take_charge(&self) -> bool {
        self.is_creator || matches!(self.role, Role::Owner | Role::Admin)
    }

    /// Whether the caller sees others' records at all.
    pub fn is_customer(&self) -> bool {
        self.role == Role::Customer
    }
}

/// The one decision: whether `caller` may do `action` with a form that has these `grants`.
///
/// # Errors
/// `Forbidden` if the caller may know the form but not do this; `ReasonNeeded` if a tenant owner
/// would read a restricted form without a grant; `NotFound` if the caller may not know the form.
pub fn decide(
    caller: &Caller,
    grants: &[FormGrant],
    action: FormAction,
) -> Result<(), TenantError> {
    let capability = action.capability();
    let forbidden = Err(TenantError::Forbidden { action: capability.name });
    if grants.is_empty() {
        let is_charge = matches!(action, FormAction::Manage | FormAction::Archive);
        let is_allowed =
            capability.roles.contains(caller.role) && (!is_charge || caller.may_take_charge());
        return if is_allowed { Ok(()) } else { forbidden };
    }
    let mut held = grants.iter().filter(|grant| caller.is(&grant.holder)).peekable();
    let is_known = held.peek().is_some();
    let is_granted = held.any(|grant| grant.level.allows(action));
    match (caller.role, action) {
        (role, _) if is_known && !capability.roles.contains(role) => forbidden,
        _ if is_granted => Ok(()),
        (Role::Owner | Role::Admin, FormAction::Manage | FormAction::SeeGrants) => Ok(()),
        (Role::Owner, FormAction::Read) if !caller.is_service => Err(TenantError::ReasonNeeded),
        // They can open the access list, so there is nothing to hide from them.
        (Role::Owner | Role::Admin, _) => forbidden,
        _ if is_known => forbidden,
        _ => Err(TenantError::NotFound),
    }
}

/// Whether a form shows in the caller's lists. Tenant owners and administrators see that a
/// restricted form exists, because they answer for its access list; not what is in it.
pub fn is_listed(caller: &Caller, grants: &[FormGrant]) -> bool {
    matches!(caller.role, Role::Owner | Role::Admin)
        || decide(caller, grants, FormAction::Read).is_ok()
}

/// Resolves who asks and decides about changing the access list or archiving, which on an open form
/// is also for `creator`.
///
/// # Errors
/// As for [`require`].
pub fn require_charge<R: Reads>(
    cx: &R,
    grants: &[FormGrant],
    creator: UserId,
    action: FormAction,
) -> Result<(), TenantError> {
    let mut caller = Caller::among(cx, grants)?;
    caller.is_creator = caller.user == Some(creator);
    decide(&caller, grants, action)
}

/// Resolves who asks and decides.
///
/// # Errors
/// Those of [`decide`], and of reading team rows.
pub fn require<R: Reads>(
    cx: &R,
    grants: &[FormGrant],
    action: FormAction,
) -> Result<Caller, TenantError> {
    let caller = Caller::among(cx, grants)?;
    decide(&caller, grants, action)?;
    Ok(caller)
}

#[cfg(test)]
mod tests;
