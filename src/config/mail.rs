//! How mail is sent. The password is in a file; the configuration names it.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::archive::{SecretFileError, secret_line};
use super::source::Sources;
use super::{Config, ConfigError};

/// Mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// The mail server, `HOST:PORT`; without one mails are written to `<data.dir>/mail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<SmtpServer>,
    /// How the connection to it is protected.
    pub tls: MailTls,
    /// A file with the certificate authority of the server, PEM, beside those the system knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The sender: `Name <address>`.
    pub from: String,
    /// The user name at the mail server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password, mode 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Time for each step of sending, in milliseconds.
    pub timeout_ms: u64,
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// It begins in clear and must change to TLS before anything is said (RFC 3207); usually port 587.
    Starttls,
    /// TLS from the first byte (RFC 8314); usually port 465.
    Tls,
    /// Not at all: only for a server on this machine.
    None,
}

/// A mail server's name and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Serialize for SmtpServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.host, self.port))
    }
}

impl<'de> Deserialize<'de> for SmtpServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let server = parts.and_then(|(host, port)| {
            Some(Self { host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
        });
        server.ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is not HOST:PORT; write mail.example.com:587"
            ))
        })
    }
}

/// The password at the mail server, if one is configured.
///
/// # Errors
/// If its file cannot be read, or others can read it.
pub fn mail_password(config: &Config) -> Result<Option<Zeroizing<String>>, SecretFileError> {
    let Some(path) = &config.mail.password_file else { return Ok(None) };
    let line = secret_line(path);
    line.map(Some).map_err(|fault| SecretFileError::new("mail.password_file", path, fault))
}

/// What mail's configuration must fulfil beyond its types.
pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let mail = &config.mail;
    if mail.from.parse::<lettre::message::Mailbox>().is_err() {
        let reason = "must be an address such as Acme <no-reply@example.com>";
        return Err(sources.wrong("mail.from", reason));
    }
    if mail.username.is_some() != mail.password_file.is_some() {
        return Err(
            sources.wrong("mail.username", "needs mail.password_file, and the other way round")
        );
    }
    let is_here = mail.smtp.as_ref().is_some_and(|server| {
        server.host == "localhost"
            || server.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    if mail.smtp.is_some() && mail.tls == MailTls::None && !is_here {
        let reason = "may be \"none\" only for a mail server on this machine; use starttls or tls";
        return Err(sources.wrong("mail.tls", reason));
    }
    if !(100..=120_000).contains(&mail.timeout_ms) {
        return Err(sources.wrong("mail.timeout_ms", "must be from 100 to 120000"));
    }
    Ok(())
}
