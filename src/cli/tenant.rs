//! `bulkhead tenant`: the life of tenants.

use actors::tenant::directory::Standing;
use clap::Subcommand;

use crate::cli::erase::{Erase, VerifyReceipt};
use crate::cli::output::{self, Output};
use crate::cli::password::{Password, PasswordSource};
use crate::cli::{CliError, Place};
use crate::control::{ControlCommand, ControlReply, Person, ServiceState, TenantLine};

pub mod portable;

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum Tenant {
    /// Make a tenant.
    Create {
        /// Short name, for URLs and sign-in: 3 to 40 of a-z, 0-9 and hyphens.
        slug: String,
        /// The name people see; the short name if absent.
        #[arg(long)]
        name: Option<String>,
        /// The plan; the configured sign-up plan if absent.
        #[arg(long)]
        plan: Option<String>,
        /// E-mail address of a first owner.
        #[arg(long, value_name = "EMAIL")]
        owner: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        common: Common,
    },
    /// List tenants.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show a tenant.
    Show {
        /// Its id or short name.
        tenant: String,
        #[command(flatten)]
        common: Common,
    },
    /// Stop serving a tenant; nothing is lost.
    Suspend {
        /// Its id or short name.
        tenant: String,
        #[command(flatten)]
        common: Common,
    },
    /// Take a tenant back to an earlier time, or make a new tenant of what it was then.
    Restore {
        /// Its id or short name.
        #[arg(long)]
        tenant: String,
        /// The time, RFC 3339: 2026-05-04T13:37:00Z.
        #[arg(long, value_name = "TIME")]
        at: String,
        /// Make a new tenant of this short name; the tenant itself stays as it is.
        #[arg(long, value_name = "SLUG")]
        into: Option<String>,
        /// Leave personal data out of the new tenant.
        #[arg(long, requires = "into")]
        sanitise: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Make a new tenant of what another is now.
    Clone {
        /// The id or short name of the other.
        tenant: String,
        /// The short name of the new one.
        slug: String,
        /// Leave personal data out.
        #[arg(long)]
        sanitise: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Write a tenant to a bundle, for another node to take up.
    Export(portable::Export),
    /// Take up a tenant from a bundle, with the id and the audit log it has.
    Import(portable::Import),
    /// Show what a bundle is, and check its signature and its bytes.
    InspectBundle(portable::InspectBundle),
    /// Destroy a tenant's key, so that nothing of it can be read any more: after erasure.delay, or now.
    Erase(Erase),
    /// Check the receipt of an erasure, without any node.
    VerifyReceipt(VerifyReceipt),
    /// Serve a suspended tenant again.
    Resume {
        /// Its id or short name.
        tenant: String,
        #[command(flatten)]
        common: Common,
    },
}

/// What every command of this kind takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    #[command(flatten)]
    pub place: Place,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// Where results go.
    pub fn output(&self) -> Output {
        Output::new(self.json)
    }
}

impl Tenant {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::Create { slug, name, plan, owner, password, common } => {
                create(slug, name, plan, owner, &password, &common)
            }
            Self::List { common } => {
                let reply = common.place.control(ControlCommand::ListTenants)?;
                let ControlReply::Tenants(lines) = reply else { return Err(unexpected()) };
                common.output().either(&lines, || list(&lines))
            }
            Self::Show { tenant, common } => one(ControlCommand::ShowTenant { tenant }, &common),
            Self::Suspend { tenant, common } => {
                one(ControlCommand::SuspendTenant { tenant }, &common)
            }
            Self::Restore { tenant, at, into, sanitise, common } => {
                restore(tenant, Some(at), into, sanitise, &common)
            }
            Self::Clone { tenant, slug, sanitise, common } => {
                restore(tenant, None, Some(slug), sanitise, &common)
            }
            Self::Export(export) => export.run(),
            Self::Import(import) => import.run(),
            Self::InspectBundle(inspect) => inspect.run(),
            Self::Erase(erase) => erase.run(),
            Self::VerifyReceipt(verify) => verify.run(),
            Self::Resume { tenant, common } => {
                one(ControlCommand::ResumeTenant { tenant }, &common)
            }
        }
    }
}

fn create(
    slug: String,
    name: Option<String>,
    plan: Option<String>,
    owner: Option<String>,
    source: &PasswordSource,
    common: &Common,
) -> Result<(), CliError> {
    let name = name.unwrap_or_else(|| slug.clone());
    let password = owner.as_ref().map(|_| source.get()).transpose()?;
    let person =
        |email: String, password: &Password| Person { email, password: password.text.clone() };
    let owner = owner.zip(password.as_ref()).map(|(email, password)| person(email, password));
    one(ControlCommand::CreateTenant { slug, name, plan, owner }, common)?;
    match password {
        Some(password) => show_generated(&password),
        None => Ok(()),
    }
}

fn restore(
    tenant: String,
    at: Option<String>,
    into: Option<String>,
    sanitise: bool,
    common: &Common,
) -> Result<(), CliError> {
    let command = ControlCommand::RestoreTenant { tenant, at, into, sanitise };
    match common.place.control_long(command)? {
        ControlReply::Restored(report) => common.output().either(&report, || {
            format!(
                "tenant   {}\nslug     {}\nas of    {} (record {})\nchanged  {} rows\ntook     {} ms",
                report.tenant,
                report.slug,
                report.as_of,
                report.lsn,
                report.rows_changed,
                report.took_ms
            )
        }),
        _ => Err(unexpected()),
    }
}

fn one(command: ControlCommand, common: &Common) -> Result<(), CliError> {
    match common.place.control(command)? {
        ControlReply::Tenant(line) => common.output().either(&line, || card(&line)),
        _ => Err(unexpected()),
    }
}

/// Shows a generated password once, apart from the result.
pub fn show_generated(password: &Password) -> Result<(), CliError> {
    if password.is_generated {
        output::complain(&format!("generated password, shown only now: {}", password.text));
    }
    Ok(())
}

/// A node of another version answered something else.
pub fn unexpected() -> CliError {
    CliError::Failed("the node answered something else than was asked".to_owned())
}

fn card(line: &TenantLine) -> String {
    format!(
        "id       {}\nslug     {}\nname     {}\nplan     {}\nregion   {}\nstatus   {}\ncreated  {}",
        line.id,
        line.slug,
        line.name,
        line.plan,
        line.region,
        status(line),
        line.created_at
    )
}

fn list(lines: &[TenantLine]) -> String {
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            [
                line.slug.clone(),
                line.id.to_string(),
                line.plan.clone(),
                status(line),
                line.created_at.clone(),
                line.name.clone(),
            ]
        })
        .collect();
    output::table(["SLUG", "ID", "PLAN", "STATUS", "CREATED", "NAME"], &rows)
}

/// What the directory says of a tenant, and why it is not served if that is something else.
fn status(line: &TenantLine) -> String {
    let standing = standing(line.status);
    match line.state {
        ServiceState::Held => format!("{standing}, held (being restored)"),
        ServiceState::Sealed => format!("{standing}, sealed (key withheld)"),
        ServiceState::Faulted => format!("{standing}, faulted"),
        ServiceState::Served
        | ServiceState::Suspended
        | ServiceState::Erasing
        | ServiceState::Erased => standing.to_owned(),
    }
}

/// A standing's name.
pub fn standing(status: Standing) -> &'static str {
    match status {
        Standing::Active => "active",
        Standing::Suspended => "suspended",
        Standing::Erasing => "erasing",
        Standing::Erased => "erased",
    }
}

#[cfg(test)]
mod tests {
    use storage::id::TenantId;

    use super::*;

    #[test]
    fn why_a_tenant_is_not_served_stands_behind_what_the_directory_says() {
        let line = |standing, state| TenantLine {
            id: TenantId::PLATFORM,
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: "pro".to_owned(),
            region: "local".to_owned(),
            status: standing,
            state,
            created_at: "2031-05-17T08:30:00Z".to_owned(),
        };
        let cases = [
            (Standing::Active, ServiceState::Served, "active"),
            (Standing::Active, ServiceState::Held, "active, held (being restored)"),
            (Standing::Active, ServiceState::Faulted, "active, faulted"),
            (Standing::Suspended, ServiceState::Suspended, "suspended"),
            (Standing::Suspended, ServiceState::Sealed, "suspended, sealed (key withheld)"),
            (Standing::Erasing, ServiceState::Erasing, "erasing"),
        ];
        for (standing, state, said) in cases {
            let line = line(standing, state);
            assert_eq!(status(&line), said);
            assert!(card(&line).contains(said) && list(&[line]).contains(said));
        }
    }
}
