//! Mail: how letters are written, and who carries them out of the house.
//!
//! With a mail server configured they go there. Without one they are put into a directory beside the
//! data, for trying things out; the log says so at the start.

use std::path::PathBuf;
use std::sync::Arc;

use actors::mail::Carrier;
use lettre::address::AddressError;
use lettre::message::Mailbox;

use crate::config::{Config, SecretFileError, mail_password};

mod compose;
mod folder;
mod smtp;

pub use compose::{Compose, Written};
pub use folder::Folder;

/// Mail cannot be sent as configured.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The sender's address is none.
    #[error("`mail.from` is no address")]
    From(#[from] AddressError),
    /// The password's file cannot be used.
    #[error(transparent)]
    Password(#[from] SecretFileError),
    /// The mail server's name or certificate authority cannot be used.
    #[error("the mail server cannot be used as configured")]
    Smtp(#[from] lettre::transport::smtp::Error),
    /// A certificate authority's file cannot be read.
    #[error("`mail.ca_file`: {} cannot be read", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Who carries the node's letters. `base_url` is where their links lead.
///
/// # Errors
/// [`MailError`].
pub fn carrier(config: &Config, base_url: &str) -> Result<Arc<dyn Carrier>, MailError> {
    let mail = &config.mail;
    let from: Mailbox = mail.from.parse()?;
    let compose = Compose::new(from, base_url);
    if let Some(server) = &mail.smtp {
        let password = mail_password(config)?;
        return Ok(Arc::new(smtp::Smtp::new(mail, server, password, compose)?));
    }
    let dir = config.data.dir.join("mail");
    tracing::info!(
        dir = %dir.display(),
        "no mail server is configured (mail.smtp): mails are written to a directory and not sent"
    );
    Ok(Arc::new(Folder::new(dir, compose)))
}
