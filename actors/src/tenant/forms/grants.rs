//! A form's access list: seeing it and setting it as a whole.
//!
//! Grants are shown with where they come from. Those of teams and people that are gone are not
//! shown and count for nothing, yet a form that had any stays restricted until somebody who may
//! manage it says otherwise: losing a team must not open a form to everyone.
//!
//! Refuses: an access list without an OWNER.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use storage::id::{FormId, Id as _};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use super::lists::{End, Step, walk};
use super::{FormHead, FormRow, check_version, to_json};
use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::limits;
use crate::permit::{ManageForms, Role};
use crate::tenant::acl::{Caller, FormAction, FormGrant, Holder, Level, require, require_charge};
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::{Conflict, FieldError, TenantError};
use crate::tenant::people::UserRow;
use crate::tenant::teams::TeamRow;

/// What kind of thing a grant is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HolderKind {
    /// One person; the id is theirs.
    User,
    /// Everyone with a role; the id is the role's name.
    Role,
    /// A team; the id is its.
    Team,
}

/// To whom a grant is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantPrincipal {
    /// What kind.
    pub kind: HolderKind,
    /// Which one.
    pub id: String,
}

/// One grant in a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantBody {
    /// To whom.
    pub principal: GrantPrincipal,
    /// What.
    pub level: Level,
}

/// The body that sets an access list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormAclBody {
    /// Every grant; none lifts the restriction.
    pub grants: Vec<GrantBody>,
}

/// One grant as it is answered.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct GrantView {
    /// To whom.
    pub principal: GrantPrincipal,
    /// What.
    pub level: Level,
    /// Where it comes from: `direct`, `via ROLE member`, `via TEAM Reviewers`.
    pub source: String,
}

/// What the caller may do with the form, and where that comes from.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct EffectiveView {
    /// The highest level granted to the caller; absent without a grant.
    pub level: Option<Level>,
    /// Through whom.
    pub source: Option<String>,
}

/// An access list as it is answered.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct FormAclView {
    /// Which form.
    #[schemars(with = "String")]
    pub form: FormId,
    /// Whether grants decide at all.
    pub restricted: bool,
    /// The grants of people, roles and teams that exist.
    pub grants: Vec<GrantView>,
    /// The caller's own.
    pub effective: EffectiveView,
}

/// Reads a form's access list.
#[derive(Debug)]
pub struct ReadFormAcl {
    /// Which form.
    pub form: FormId,
}

impl Query for ReadFormAcl {
    type Action = ManageForms;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let head = super::head(cx, self.form)?;
        let caller = require(cx, &head.grants, FormAction::SeeGrants)?;
        let view = view(cx, self.form, &head.grants, &caller)?;
        Ok(Document { version: head.version, json: to_json(&view) })
    }
}

/// Sets a form's access list. The first grant restricts the form, an empty list opens it.
#[derive(Debug)]
pub struct SetFormAcl {
    /// Which form.
    pub form: FormId,
    /// The whole list.
    pub body: FormAclBody,
    /// The version the form must still have.
    pub if_match: Option<u64>,
}

impl Command for SetFormAcl {
    type Action = ManageForms;
    type Reply = Document;
    const NAME: &'static str = "form.acl_change";

    fn target(&self) -> Named {
        Named::new("form", self.form)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Document, TenantError> {
        let id = self.form;
        let mut row: FormRow = cx.need(&Key::Form { id })?;
        require_charge(cx, &row.grants, row.created_by, FormAction::Manage)?;
        check_version(self.if_match, row.version)?;
        let grants = resolve(cx, &self.body.grants)?;
        if !grants.is_empty() && !grants.iter().any(|grant| grant.level == Level::Owner) {
            return Err(TenantError::Conflict(Conflict::LastFormOwner));
        }
        let before: BTreeSet<_> = row.grants.iter().copied().collect();
        row.grants = grants.iter().copied().collect();
        row.touch(id, cx.now_ms())?;
        cx.put(&Key::Form { id }, &row)?;
        let draft = Draft::success(Self::NAME, Named::new("form", id))
            .with("granted", describe(grants.difference(&before)))
            .with("revoked", describe(before.difference(&grants)))
            .with("restricted", !grants.is_empty());
        cx.audit_form(id, draft);
        let caller = Caller::among(cx, &row.grants)?;
        let view = view(cx, id, &row.grants, &caller)?;
        Ok(Document { version: row.version, json: to_json(&view) })
    }
}

/// Refuses to let somebody go, or a team, who is the last OWNER of a form: it would be nobody's. Looks at all
/// forms, as people and teams seldom go.
///
/// # Errors
/// [`Conflict::LastFormOwner`].
pub(crate) fn check_may_go<R: Reads>(cx: &R, leaving: Holder) -> Result<(), TenantError> {
    let mut scan = Scan {
        limit: usize::MAX,
        ..Scan::all(Prefix::kind(&Key::Form { id: FormId::from_bytes([0; 16]) }))
    };
    loop {
        let mut is_last = false;
        let end = walk(cx, scan.clone(), |_, bytes| {
            let head: FormHead = value::decode(bytes)?;
            let owners = || head.grants.iter().filter(|grant| grant.level == Level::Owner);
            if !owners().any(|grant| grant.holder == leaving) {
                return Ok(Step::Next);
            }
            for grant in owners().filter(|grant| grant.holder != leaving) {
                if is_there(cx, &grant.holder)? {
                    return Ok(Step::Next);
                }
            }
            is_last = true;
            Ok(Step::Stop)
        })?;
        match end {
            _ if is_last => return Err(TenantError::Conflict(Conflict::LastFormOwner)),
            End::Bound(last) => scan.after = Some(last),
            End::Done => return Ok(()),
        }
    }
}

fn is_there<R: Reads>(cx: &R, holder: &Holder) -> Result<bool, TenantError> {
    Ok(match holder {
        Holder::User(id) => cx.bytes(&Key::User { id: *id })?.is_some(),
        Holder::Team(id) => cx.bytes(&Key::Team { id: *id })?.is_some(),
        Holder::Role(_) => true,
    })
}

/// Finds out who is meant. Every grant that names nobody is reported.
fn resolve<R: Reads>(cx: &R, bodies: &[GrantBody]) -> Result<BTreeSet<FormGrant>, TenantError> {
    if bodies.len() > limits::GRANTS_MAX {
        let message = format!("must have at most {} grants", limits::GRANTS_MAX);
        return Err(TenantError::invalid("/grants", message));
    }
    let mut grants = BTreeSet::new();
    let mut errors = Vec::new();
    for (index, body) in bodies.iter().enumerate() {
        match find(cx, &body.principal)? {
            Some(holder) => {
                grants.insert(FormGrant { holder, level: body.level });
            }
            None => errors.push(FieldError {
                pointer: format!("/grants/{index}/principal/id"),
                message: match body.principal.kind {
                    HolderKind::User => "no such person in this tenant".to_owned(),
                    HolderKind::Team => "no such team in this tenant".to_owned(),
                    HolderKind::Role => "no such role in a tenant".to_owned(),
                },
            }),
        }
    }
    if errors.is_empty() { Ok(grants) } else { Err(TenantError::Invalid(errors)) }
}

fn find<R: Reads>(cx: &R, principal: &GrantPrincipal) -> Result<Option<Holder>, TenantError> {
    let text = principal.id.as_str();
    let holder = match principal.kind {
        HolderKind::User => text.parse().ok().map(Holder::User),
        HolderKind::Team => text.parse().ok().map(Holder::Team),
        HolderKind::Role => {
            Role::parse(text).filter(|role| *role != Role::PlatformAdmin).map(Holder::Role)
        }
    };
    let Some(holder) = holder else { return Ok(None) };
    Ok(source(cx, &holder)?.map(|_| holder))
}

/// Where a grant to `holder` comes from; nothing if the holder is gone.
fn source<R: Reads>(cx: &R, holder: &Holder) -> Result<Option<String>, TenantError> {
    Ok(match holder {
        Holder::User(user) => {
            cx.row::<UserRow>(&Key::User { id: *user })?.map(|_| "direct".to_owned())
        }
        Holder::Role(role) => Some(format!("via ROLE {role}")),
        Holder::Team(team) => {
            cx.row::<TeamRow>(&Key::Team { id: *team })?.map(|row| format!("via TEAM {}", row.name))
        }
    })
}

fn view<R: Reads>(
    cx: &R,
    form: FormId,
    grants: &[FormGrant],
    caller: &Caller,
) -> Result<FormAclView, TenantError> {
    let mut shown = Vec::with_capacity(grants.len());
    for grant in grants {
        let Some(source) = source(cx, &grant.holder)? else { continue };
        let kind = match grant.holder {
            Holder::User(_) => HolderKind::User,
            Holder::Role(_) => HolderKind::Role,
            Holder::Team(_) => HolderKind::Team,
        };
        let principal = GrantPrincipal { kind, id: grant.holder.id() };
        shown.push(GrantView { principal, level: grant.level, source });
    }
    let best = caller.best(grants);
    let effective = EffectiveView {
        level: best.map(|grant| grant.level),
        source: match best {
            Some(grant) => source(cx, &grant.holder)?,
            None => None,
        },
    };
    Ok(FormAclView { form, restricted: !grants.is_empty(), grants: shown, effective })
}

/// Grants for the audit log: `user:us_…=OWNER role:member=EDITOR`.
fn describe<'g>(grants: impl Iterator<Item = &'g FormGrant>) -> String {
    let texts: Vec<_> = grants
        .map(|grant| {
            format!("{}:{}={}", grant.holder.kind(), grant.holder.id(), grant.level.name())
        })
        .collect();
    texts.join(" ")
}
