//! What an operator's command line can make a node do. One function does it, whether the node runs
//! (the command arrives at the operators' listener) or not (the command line opens the store).
//!
//! Refuses: to show or change any tenant's content; that needs a person of that tenant.

use actors::audit::verify::NodeReport;
use actors::call::Origin;
use actors::permit::{Action, Permit, Role};
use actors::supervisor::{PLATFORM_SLUG, Tenants};
use actors::tenant::directory::{Standing, by_the_node};
pub use actors::tenant::error::chain as error_chain;
use actors::tenant::error::{Conflict, TenantError};
use actors::tenant::members::AddMember;
use actors::tenant::portable::key::BundleKey;
use serde::{Deserialize, Serialize};
use storage::id::{BackupId, TenantId};

use crate::http::app::App;
use crate::http::passwords::{self, Choice, PasswordError, Secret, Share};
use crate::http::platform::known_tenants;
use crate::jobs::JobStatus;

pub mod backup;
pub mod client;
pub mod customer_key;
pub mod erasure;
pub mod keys;
pub mod local;
pub mod platform_admins;
pub mod portable;
pub mod restore;
pub mod tenants;

pub use tenants::{ServiceState, TenantLine};

/// Why the audit log says the node itself did something.
const REASON: &str = "operator command line";

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlCommand {
    /// Makes a tenant, with an owner if one is named.
    CreateTenant {
        /// Its short name.
        slug: String,
        /// The name people see.
        name: String,
        /// Its plan; the node's default if absent.
        plan: Option<String>,
        /// Its first owner.
        owner: Option<Person>,
    },
    /// Lists all tenants.
    ListTenants,
    /// Shows one tenant.
    ShowTenant {
        /// Its id or short name.
        tenant: String,
    },
    /// Stops serving a tenant.
    SuspendTenant {
        /// Its id or short name.
        tenant: String,
    },
    /// Serves a suspended tenant again.
    ResumeTenant {
        /// Its id or short name.
        tenant: String,
    },
    /// Adds a person to a tenant.
    CreateUser {
        /// The tenant's id or short name.
        tenant: String,
        /// Who.
        person: Person,
        /// As what.
        role: Role,
    },
    /// Adds a platform administrator.
    CreatePlatformAdmin {
        /// Who.
        person: Person,
    },
    /// Removes a platform administrator, but not the last.
    RemovePlatformAdmin {
        /// Their e-mail address.
        email: String,
    },
    /// Verifies audit chains in the store.
    VerifyAudit {
        /// One tenant's id or short name; all when absent.
        tenant: Option<String>,
    },
    /// Takes a tenant back to an earlier time, or makes another tenant of what it was then. A job.
    RestoreTenant {
        /// The tenant's id or short name.
        tenant: String,
        /// The time, RFC 3339; now when absent.
        at: Option<String>,
        /// The short name of a new tenant that gets the state; the tenant itself when absent.
        into: Option<String>,
        /// Whether personal data is stripped on the way into a new tenant.
        sanitise: bool,
    },
    /// Writes a tenant to a bundle. A job.
    ExportTenant {
        /// The tenant's id or short name.
        tenant: String,
        /// The file, by its absolute path.
        out: std::path::PathBuf,
        /// The key its rows are sealed under.
        key: BundleKey,
    },
    /// Takes up a tenant from a bundle. A job.
    ImportTenant(portable::ImportOrder),
    /// How far a job is.
    JobStatus {
        /// Its number.
        job: u64,
    },
    /// Takes a backup. A job.
    BackupRun {
        /// A word about it; with one it is kept for a week at least.
        note: Option<String>,
    },
    /// Lists the backups.
    BackupList,
    /// Verifies backups. A job.
    BackupVerify {
        /// One backup's id; the newest when absent.
        backup: Option<BackupId>,
        /// All of them.
        all: bool,
    },
    /// Holds a restore drill. A job.
    Drill {
        /// The backup's id; the newest when absent.
        backup: Option<BackupId>,
        /// The directory to restore in; beside the data when absent.
        scratch: Option<std::path::PathBuf>,
    },
    /// Erases a tenant: now, later, or not after all.
    Erase(erasure::ErasureOrder),
    /// Gives a tenant's key to its customer, or takes it back.
    CustomerKey(customer_key::KeyOrder),
    /// Shows the versions of the key-encryption key.
    KeysStatus,
    /// Shows the public key of the node.
    PublicKey,
    /// Rotates the key-encryption key, and wraps every key again.
    RotateKek {
        /// Makes or takes no new version: only brings an interrupted rotation to its end.
        resume: bool,
    },
}

/// Someone who shall be able to sign in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Their e-mail address.
    pub email: String,
    /// Their password, in clear; hashed before it reaches any actor.
    pub password: String,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person").finish_non_exhaustive()
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "kebab-case")]
pub enum ControlReply {
    /// One tenant.
    Tenant(TenantLine),
    /// All tenants.
    Tenants(Vec<TenantLine>),
    /// A person, as the members list shows them.
    User(serde_json::Value),
    /// A platform administrator who was removed.
    AdminRemoved(platform_admins::AdminRemoved),
    /// Reports on audit chains.
    Audit {
        /// Whether every chain verifies.
        ok: bool,
        /// The whole report, tenant by tenant, and the anchor log's.
        report: serde_json::Value,
    },
    /// A job that was started, or looked at.
    Job(JobStatus),
    /// What a restore did.
    Restored(restore::RestoreReport),
    /// A bundle that was written.
    Exported(Box<portable::BundleReport>),
    /// A tenant that was taken up from a bundle.
    Imported(portable::ImportReport),
    /// A backup that was taken.
    Backup(backup::BackupLine),
    /// All backups.
    Backups(backup::BackupList),
    /// What verifying backups found.
    VerifiedBackups(Vec<backup::VerifiedLine>),
    /// How a drill ended.
    Drilled(backup::DrillEnd),
    /// How far an erasure is.
    Erasure(erasure::ErasureReport),
    /// Who holds a tenant's key.
    KeyHolder(customer_key::HolderReport),
    /// The versions of the key-encryption key.
    Keys(keys::KeysReport),
    /// The public key of the node.
    PublicKey(keys::PublicKeyReport),
    /// A rotation of the key-encryption key.
    Rotated(keys::RotationReport),
}

impl ControlReply {
    fn audit(report: &NodeReport) -> Self {
        let value = serde_json::to_value(report).expect("a report holds only texts and numbers");
        Self::Audit { ok: report.ok, report: value }
    }
}

/// Why a command was not done. Crosses the operators' listener as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum ControlError {
    /// No such tenant.
    #[error("there is no tenant {tenant:?}")]
    NoTenant {
        /// What was asked for.
        tenant: String,
    },
    /// The input is wrong, whatever the node and its tenants are like.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
    },
    /// The state does not allow it, or the node failed.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
    },
}

impl ControlError {
    /// Whether the command itself is wrong: exit code 2 instead of 1.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Invalid { .. })
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }
    fn refused(message: impl Into<String>) -> Self {
        Self::Refused { message: message.into() }
    }
}

impl From<TenantError> for ControlError {
    fn from(error: TenantError) -> Self {
        let refused = |message: &str| Self::Refused { message: message.to_owned() };
        match error {
            TenantError::Invalid(errors) => {
                let lines: Vec<_> = errors
                    .iter()
                    .map(|error| {
                        format!("{} {}", error.pointer.trim_start_matches('/'), error.message)
                    })
                    .collect();
                Self::invalid(lines.join("; "))
            }
            TenantError::Conflict(Conflict::SlugTaken) => refused("that short name is taken"),
            TenantError::Conflict(Conflict::EmailTaken) => {
                refused("somebody in this tenant has that e-mail address")
            }
            TenantError::QuotaExceeded { quota, limit } => {
                Self::Refused { message: format!("the plan's quota {quota} of {limit} is used up") }
            }
            TenantError::Faulted => {
                refused("the tenant is faulted; /actors on the operators' listener says why")
            }
            TenantError::Suspended => refused("the tenant is suspended"),
            error if error.is_sealing() => {
                refused("the tenant is sealed: its key is withheld or destroyed")
            }
            error => Self::Refused { message: error_chain(&error) },
        }
    }
}

/// Does it.
pub async fn execute(app: &App, command: ControlCommand) -> Result<ControlReply, ControlError> {
    let known = &app.tenants;
    match command {
        ControlCommand::CreateTenant { slug, name, plan, owner } => {
            tenants::create(app, slug, name, plan, owner).await
        }
        ControlCommand::ListTenants => tenants::list(app).await,
        ControlCommand::ShowTenant { tenant } => {
            // Also an erased one, which nobody else finds by its short name.
            let id = find(known, &tenant).or_else(|_| erasure::find(app, &tenant))?;
            tenants::show(app, id).await
        }
        ControlCommand::SuspendTenant { tenant } => {
            let id = find_kept(known, &tenant)?;
            let (permit, origin) = (by_the_node(REASON), Origin::default());
            known.suspend(permit, origin, None, id, None).await?;
            tenants::show(app, id).await
        }
        ControlCommand::ResumeTenant { tenant } => {
            let id = find_kept(known, &tenant)?;
            known.resume(by_the_node(REASON), Origin::default(), None, id).await?;
            tenants::show(app, id).await
        }
        ControlCommand::CreateUser { tenant, person, role } => {
            let id = find_kept(known, &tenant)?;
            create_user(app, id, person, role).await
        }
        ControlCommand::CreatePlatformAdmin { person } => {
            create_user(app, TenantId::PLATFORM, person, Role::PlatformAdmin).await
        }
        ControlCommand::RemovePlatformAdmin { email } => platform_admins::remove(app, email).await,
        ControlCommand::VerifyAudit { tenant } => verify(app, tenant).await,
        ControlCommand::RestoreTenant { tenant, at, into, sanitise } => {
            restore::begin(app, &tenant, at, into, sanitise).await
        }
        ControlCommand::ExportTenant { tenant, out, key } => {
            portable::begin_export(app, &tenant, out, key)
        }
        ControlCommand::ImportTenant(order) => portable::begin_import(app, order).await,
        ControlCommand::JobStatus { job } => {
            let no_job = || ControlError::refused(format!("there is no job {job}"));
            app.jobs.status(job).map(ControlReply::Job).ok_or_else(no_job)
        }
        ControlCommand::BackupRun { note } => backup::run(app, note),
        ControlCommand::BackupList => backup::list(app).await,
        ControlCommand::BackupVerify { backup, all } => backup::begin_verify(app, backup, all),
        ControlCommand::Drill { backup, scratch } => backup::begin_drill(app, backup, scratch),
        ControlCommand::Erase(order) => erasure::execute(app, order).await,
        ControlCommand::CustomerKey(order) => customer_key::execute(app, order).await,
        ControlCommand::KeysStatus => keys::status(app).await,
        ControlCommand::PublicKey => Ok(keys::public(app)),
        ControlCommand::RotateKek { resume } => keys::rotate(app, resume).await,
    }
}

/// A tenant by id or short name.
fn find(tenants: &Tenants, text: &str) -> Result<TenantId, ControlError> {
    text.parse()
        .ok()
        .filter(|&id: &TenantId| tenants.summary(id).is_some())
        .or_else(|| tenants.by_slug(text))
        .filter(|&id| id != TenantId::PLATFORM)
        .ok_or_else(|| ControlError::NoTenant { tenant: text.to_owned() })
}

/// A tenant by id or short name that something is to be done with. One that is to be erased is sealed
/// until that is taken back.
fn find_kept(tenants: &Tenants, text: &str) -> Result<TenantId, ControlError> {
    let id = find(tenants, text)?;
    match tenants.summary(id).map(|summary| summary.standing) {
        Some(Standing::Erasing) => Err(ControlError::refused(format!(
            "the tenant {text} is sealed because it is to be erased: until that is due, `bulkhead tenant erase {text} --cancel` takes it back"
        ))),
        Some(Standing::Erased) => {
            Err(ControlError::refused(format!("the tenant {text} is erased")))
        }
        _ => Ok(id),
    }
}

async fn create_user(
    app: &App,
    tenant: TenantId,
    person: Person,
    role: Role,
) -> Result<ControlReply, ControlError> {
    let names = passwords::names_of(&app.tenants, tenant);
    let password_phc = hash(app, &names, &person.email, person.password).await?;
    let handle = app.tenants.find(tenant).await?;
    let command = AddMember { email: person.email, role, password_phc };
    let answered =
        handle.command(by_the_operator(tenant), Origin::default(), None, command).await?;
    let user = serde_json::from_slice(&answered.reply.1.json)
        .map_err(|error| ControlError::Refused { message: error.to_string() })?;
    Ok(ControlReply::User(user))
}

/// For what an operator may do in a tenant without being one of its people.
fn by_the_operator<A: Action>(tenant: TenantId) -> Permit<A> {
    Permit::internal(tenant, REASON)
}

async fn hash(
    app: &App,
    names: &[String],
    email: &str,
    password: String,
) -> Result<String, ControlError> {
    let password = Secret::new(password);
    passwords::check_new("/password", &password, email)
        .map_err(|error| ControlError::invalid(format!("password {}", error.message)))?;
    let choice = Choice { pointer: "/password", password: &password, email, names };
    app.passwords.hash(Share::Operator, choice).await.map_err(|error| match error {
        PasswordError::Weak(error) => ControlError::invalid(format!("password {}", error.message)),
        error => ControlError::Refused { message: error_chain(&error) },
    })
}

/// Verifies on the running node: what is durable, not what its actors believe.
async fn verify(app: &App, tenant: Option<String>) -> Result<ControlReply, ControlError> {
    let tenants = match tenant {
        Some(text) => [find_any(&app.tenants, &text)?].into(),
        None => known_tenants(app),
    };
    let verified = app.anchor.verify(tenants).await;
    let report =
        verified.map_err(|error| ControlError::Refused { message: error_chain(&error) })?;
    Ok(ControlReply::audit(&report))
}

/// A tenant, the platform's own compartment included.
fn find_any(tenants: &Tenants, text: &str) -> Result<TenantId, ControlError> {
    if text == PLATFORM_SLUG || text.parse() == Ok(TenantId::PLATFORM) {
        return Ok(TenantId::PLATFORM);
    }
    find(tenants, text)
}

#[cfg(test)]
mod tests;
