//! `bulkhead user`: people of a tenant.

use actors::permit::Role;
use clap::Subcommand;

use crate::cli::CliError;
use crate::cli::password::PasswordSource;
use crate::cli::tenant::{Common, show_generated, unexpected};
use crate::control::{ControlCommand, ControlReply, Person};

/// What to do with people.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Add a person who can sign in at once.
    Create {
        /// The tenant's id or short name.
        #[arg(long)]
        tenant: String,
        /// Their e-mail address.
        #[arg(long)]
        email: String,
        /// Their role.
        #[arg(long, value_parser = tenant_role)]
        role: Role,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        common: Common,
    },
}

fn tenant_role(text: &str) -> Result<Role, String> {
    let in_tenants = |role: &Role| *role != Role::PlatformAdmin;
    Role::parse(text).filter(in_tenants).ok_or_else(|| {
        let names: Vec<_> = Role::ALL.into_iter().filter(in_tenants).map(Role::name).collect();
        format!("the roles are {}", names.join(", "))
    })
}

impl User {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        let Self::Create { tenant, email, role, password: source, common } = self;
        let password = source.get()?;
        let person = Person { email, password: password.text.clone() };
        let reply = common.place.control(ControlCommand::CreateUser { tenant, person, role })?;
        print(&reply, &common)?;
        show_generated(&password)
    }
}

/// Prints a person that was added.
pub fn print(reply: &ControlReply, common: &Common) -> Result<(), CliError> {
    let ControlReply::User(user) = reply else { return Err(unexpected()) };
    common.output().either(user, || card(user))
}

/// A person, for people.
pub fn card(user: &serde_json::Value) -> String {
    let field = |name: &str| user[name].as_str().unwrap_or_default().to_owned();
    format!("id     {}\nemail  {}\nrole   {}", field("id"), field("email"), field("role"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staff_is_an_alias_and_platform_admin_is_no_role_of_a_tenant() {
        assert_eq!(tenant_role("staff"), Ok(Role::Member));
        assert!(tenant_role("platform-admin").is_err());
        assert!(tenant_role("king").expect_err("no role").contains("owner"));
    }
}
