//! The people of a tenant. Whether a role may be given, and to whom, is the tenant's to decide.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::{Answered, Document};
use actors::permit::{Action as _, ReadMembers, RemoveMembers, Role, WriteMembers};
use actors::tenant::factors::reset::ResetFactors;
use actors::tenant::invites::{CreateInvite, InviteView};
use actors::tenant::members::adding::{CheckNewMember, RefuseMember};
use actors::tenant::members::{AddMember, ChangeRole, ListMembers, ReadMember, RemoveMember};
use actors::tenant::people::MemberView;
use actors::tenant::sessions::others::EndMemberSessions;
use schemars::JsonSchema;
use serde::Deserialize;
use storage::id::UserId;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::app::App;
use crate::http::extract::{At, IfMatch, Json, Paged};
use crate::http::invites;
use crate::http::passwords::{Choice, Secret, Share, check_new, names_of};
use crate::http::past::AS_OF;
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/v1/members", "members.list", Access::Tenant(ReadMembers::ROW), || {
        web::get().to(list)
    })
    .summary("List people")
    .query(&["limit", "cursor", AS_OF])
    .answers_page::<MemberView>(),
    Route::new(Verb::Post, "/v1/members", "members.add", Access::Tenant(WriteMembers::ROW), || {
        web::post().to(add)
    })
    .summary("Add a person: with a password, at once; without one, by an invitation that is mailed")
    .body::<AddMemberBody>(
        r#"{"email":"bob@example.org","role":"member","password":"correct horse battery"}"#,
    )
    .answers::<AddedView>(201)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/members/{member}",
        "members.read",
        Access::Tenant(ReadMembers::ROW),
        || web::get().to(read),
    )
    .summary("Read one person")
    .query(&[AS_OF])
    .answers::<MemberView>(200),
    Route::new(
        Verb::Patch,
        "/v1/members/{member}",
        "members.change-role",
        Access::Tenant(WriteMembers::ROW),
        || web::patch().to(change_role),
    )
    .summary("Give a person another role, at most one's own")
    .body::<ChangeRoleBody>(r#"{"role":"viewer"}"#)
    .guarded()
    .answers::<MemberView>(200),
    Route::new(
        Verb::Delete,
        "/v1/members/{member}",
        "members.remove",
        Access::Tenant(RemoveMembers::ROW),
        || web::delete().to(remove),
    )
    .summary("Remove a person, or leave")
    .answers_nothing(),
    Route::new(
        Verb::Delete,
        "/v1/members/{member}/mfa",
        "members.reset-mfa",
        Access::Tenant(WriteMembers::ROW),
        || web::delete().to(reset_mfa),
    )
    .summary("Remove all second factors of somebody who lost them; their sessions end and they are told by mail")
    .answers_nothing(),
    Route::new(
        Verb::Delete,
        "/v1/members/{member}/sessions",
        "members.end-sessions",
        Access::Tenant(WriteMembers::ROW),
        || web::delete().to(end_sessions),
    )
    .summary("End all sessions of a person whose role is at most one's own; they may sign in again")
    .answers_nothing(),
];

/// Adds a person.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMemberBody {
    /// Their address.
    pub email: String,
    /// As what; at most one's own role. `staff` is another word for `member`.
    pub role: Role,
    /// Their first password: 10 to 128 characters, and not easy to guess. Without one they are invited by mail.
    #[serde(default)]
    pub password: Option<Secret>,
}

/// Who was added, or invited.
#[derive(JsonSchema)]
#[serde(untagged)]
pub enum AddedView {
    /// A person who can sign in.
    Member(MemberView),
    /// An invitation that was mailed.
    Invite(InviteView),
}

/// Changes a person.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRoleBody {
    /// The new role.
    pub role: Role,
}

async fn list(
    allowed: Allowed<ReadMembers>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    Ok(allowed.look(ListMembers { paging }).await?.page())
}

async fn add(
    app: web::Data<App>,
    asking: Allowed<WriteMembers>,
    adding: Allowed<WriteMembers>,
    Json(body): Json<AddMemberBody>,
) -> Result<HttpResponse, Problem> {
    let AddMemberBody { email, role, password } = body;
    let password_phc = match password {
        Some(password) => {
            check_new("/password", &password, &email)
                .map_err(|error| Problem::new(Kind::INVALID).errors(vec![error]))?;
            // A hash is dear: whoever cannot be added is refused, on record, without one.
            if !asking.query(CheckNewMember { email: email.clone(), role }).await? {
                return Ok(added(adding.command(RefuseMember { email, role }).await?));
            }
            let names = names_of(&app.tenants, adding.tenant());
            let choice =
                Choice { pointer: "/password", password: &password, email: &email, names: &names };
            app.passwords.hash(Share::Tenant(adding.tenant()), choice).await?
        }
        None => {
            let invited = adding.command(CreateInvite { email, role }).await?;
            return Ok(invites::created(invited));
        }
    };
    Ok(added(adding.command(AddMember { email, role, password_phc }).await?))
}

fn added(answered: Answered<(UserId, Document)>) -> HttpResponse {
    let Answered { reply: (id, reply), replayed } = answered;
    answer::created(Answered { reply, replayed }, &format!("/v1/members/{id}"))
}

async fn read(
    request: HttpRequest,
    allowed: Allowed<ReadMembers>,
    At(user): At<UserId>,
) -> Result<HttpResponse, Problem> {
    Ok(allowed.look(ReadMember { user }).await?.document(&request))
}

async fn change_role(
    allowed: Allowed<WriteMembers>,
    At(user): At<UserId>,
    IfMatch(if_match): IfMatch,
    Json(ChangeRoleBody { role }): Json<ChangeRoleBody>,
) -> Result<HttpResponse, Problem> {
    Ok(answer::updated(allowed.command(ChangeRole { user, role, if_match }).await?))
}

async fn reset_mfa(
    allowed: Allowed<WriteMembers>,
    At(user): At<UserId>,
) -> Result<HttpResponse, Problem> {
    allowed.command(ResetFactors { user }).await?;
    Ok(answer::no_content())
}

async fn end_sessions(
    allowed: Allowed<WriteMembers>,
    At(user): At<UserId>,
) -> Result<HttpResponse, Problem> {
    allowed.command(EndMemberSessions { user }).await?;
    Ok(answer::no_content())
}

async fn remove(
    allowed: Allowed<RemoveMembers>,
    At(user): At<UserId>,
) -> Result<HttpResponse, Problem> {
    allowed.command(RemoveMember { user }).await?;
    Ok(answer::no_content())
}
