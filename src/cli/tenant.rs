//! `bulkhead tenant`: the life of tenants.

use clap::Subcommand;

use crate::cli::output::{self, Output};
use crate::cli::password::{Password, PasswordSource};
use crate::cli::{CliError, Place};
use crate::control::{ControlCommand, ControlReply, Person, TenantLine};

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
        standing(line),
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
                standing(line).to_owned(),
                line.created_at.clone(),
                line.name.clone(),
            ]
        })
        .collect();
    output::table(["SLUG", "ID", "PLAN", "STATUS", "CREATED", "NAME"], &rows)
}

fn standing(line: &TenantLine) -> &'static str {
    use actors::tenant::directory::Standing;
    match line.status {
        Standing::Active => "active",
        Standing::Suspended => "suspended",
    }
}
