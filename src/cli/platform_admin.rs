//! `bulkhead platform-admin`: the people who run the platform.

use clap::Subcommand;

use crate::cli::CliError;
use crate::cli::password::PasswordSource;
use crate::cli::tenant::{Common, show_generated, unexpected};
use crate::cli::user;
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
}

impl PlatformAdmin {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        let Self::Create { email, password: source, common } = self;
        let password = source.get()?;
        let person = Person { email, password: password.text.clone() };
        let reply = common.place.control(ControlCommand::CreatePlatformAdmin { person })?;
        let ControlReply::User(user) = reply else { return Err(unexpected()) };
        common.output().either(&user, || format!("{}\nnext   {NEXT}", user::card(&user)))?;
        show_generated(&password)
    }
}
