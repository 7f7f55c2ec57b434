//! `bulkhead platform-admin`: the people who run the platform.

use clap::Subcommand;

use crate::cli::CliError;
use crate::cli::password::PasswordSource;
use crate::cli::tenant::{Common, show_generated, unexpected};
use crate::cli::user;
use crate::control::platform_admins::AdminRemoved;
use crate::control::{ControlCommand, ControlReply, Person};

/// What a new one has to know.
const NEXT: &str = "sign in with the tenant `platform`, then enrol a second factor before anything else: \
                    POST /v1/me/mfa/totp and /v1/me/mfa/totp/confirm";

/// What to do with platform administrators.
#[derive(Debug, Subcommand)]
pub enum PlatformAdmin {
    /// Add one, who signs in with the tenant `platform`.
    Create {
        /// Their e-mail address.
        #[arg(long)]
        email: String,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        common: Common,
    },
    /// Remove one: their sessions end, and so do the support sessions they asked for. The last one stays.
    Remove {
        /// Their e-mail address.
        #[arg(long)]
        email: String,
        #[command(flatten)]
        common: Common,
    },
}

impl PlatformAdmin {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::Create { email, password, common } => create(email, password, &common),
            Self::Remove { email, common } => remove(email, &common),
        }
    }
}

fn create(email: String, source: PasswordSource, common: &Common) -> Result<(), CliError> {
    let password = source.get()?;
    let person = Person { email, password: password.text.clone() };
    let reply = common.place.control(ControlCommand::CreatePlatformAdmin { person })?;
    let ControlReply::User(user) = reply else { return Err(unexpected()) };
    common.output().either(&user, || format!("{}\nnext   {NEXT}", user::card(&user)))?;
    show_generated(&password)
}

fn remove(email: String, common: &Common) -> Result<(), CliError> {
    let reply = common.place.control(ControlCommand::RemovePlatformAdmin { email })?;
    let ControlReply::AdminRemoved(removed) = reply else { return Err(unexpected()) };
    common.output().either(&removed, || card(&removed))
}

/// What was removed, for people.
fn card(removed: &AdminRemoved) -> String {
    let AdminRemoved { email, sessions_ended, support_ended, tenants_not_told, .. } = removed;
    let mut card = format!(
        "removed           {email}\nsessions ended    {sessions_ended}\nsupport sessions  {support_ended} ended"
    );
    for tenant in tenants_not_told {
        card.push_str(&format!(
            "\nnot told          {tenant}: it still lists a support session, whose token is refused"
        ));
    }
    card
}
