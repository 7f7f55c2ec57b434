//! Configuration: the only reader of the configuration file and of the environment.
//!
//! `config/default.toml` (compiled in), then the file of `--config`, then variables of the form
//! `BULKHEAD__HTTP__BIND`; the later one wins. Everything is checked before anything starts, and an
//! error names the key, where it was set and what would be right. Refuses to hold secrets: a secret
//! is a file, and the configuration names its path.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use actors::quota::Plans;
use actors::rate::Policies;
use serde::{Deserialize, Serialize};

mod archive;
mod backup;
mod check;
mod erasure;
mod federation;
mod keys;
mod mail;
mod network;
mod place;
mod source;
#[cfg(test)]
mod tests;

pub use archive::{Archive, FileFault, SecretFileError, archive_options};
pub use backup::{Backup, Span, SpanError};
pub use erasure::Erasure;
pub use federation::Federation;
pub use keys::{KeySource, Keys, Token};
pub use mail::{Mail, MailTls, SmtpServer, mail_password};
pub use network::{Network, NetworkError};

/// The whole configuration of a node, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener that tenants' people, services and webhook senders call.
    pub http: Http,
    /// The operators' listener.
    pub ops: Ops,
    /// Where data is kept.
    pub data: Data,
    /// Where key-encryption keys come from.
    pub keys: Keys,
    /// Where what the data directory no longer has to hold rests.
    pub archive: Archive,
    /// When backups are taken.
    pub backup: Backup,
    /// How tenants are erased.
    pub erasure: Erasure,
    /// How mail is sent.
    pub mail: Mail,
    /// How identity providers are asked.
    pub identity: Federation,
    /// What the node says of itself.
    pub node: Identity,
    /// Log lines.
    pub log: Log,
    /// Limits of the HTTP listener.
    pub limits: Limits,
    /// Rates by class and scope.
    pub rate: Policies,
    /// Plans by name.
    pub plans: Plans,
    /// Self-service.
    pub signup: Signup,
}

/// The API listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port; port 0 takes any free one.
    #[serde(deserialize_with = "network::bind")]
    pub bind: SocketAddr,
    /// Replaces the port of `bind`; folded into it while loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The URL clients use, without a slash at the end; the issuer of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// The domain under which every tenant has `<slug>.<base_domain>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_domain: Option<String>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Serving threads; 0 means one per core. See [`Http::workers`].
    #[serde(rename = "workers")]
    pub workers_wanted: usize,
    /// TLS, when the node ends it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

impl Http {
    /// How many threads serve: what was asked for, or one per core.
    pub fn workers(&self) -> usize {
        match self.workers_wanted {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            wanted => wanted,
        }
    }
    /// `https` when TLS is configured, else `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Where the certificate chain and its key are, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The operators' listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ops {
    /// Address and port; port 0 takes any free one.
    #[serde(deserialize_with = "network::bind")]
    pub bind: SocketAddr,
    /// Replaces the port of `bind`; folded into it while loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// A file with the bearer token that every route but `/healthz` needs when not on loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// Where data is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The data directory, absolute.
    pub dir: PathBuf,
    /// Memory the view may use for its cache, in bytes.
    pub cache_bytes: u64,
    /// Size of a log segment, in bytes.
    pub segment_bytes: u64,
    /// Allows a directory that does not survive a restart of the machine.
    pub allow_temporary: bool,
}

/// What the node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The origin line of signed checkpoints.
    pub origin: String,
    /// Where the data is.
    pub region: String,
    /// A URI for reports of weaknesses (RFC 9116).
    pub security_contact: String,
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Their form.
    pub format: LogFormat,
    /// A level, or directives such as `info,actors=debug`.
    pub level: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Limits of the HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Time for a request's head, in milliseconds.
    pub header_timeout_ms: u64,
    /// Time for a request's body, in milliseconds.
    pub request_timeout_ms: u64,
    /// Time an idle connection is kept, in milliseconds.
    pub keep_alive_ms: u64,
    /// Time a stop waits for requests under way, in milliseconds.
    pub drain_timeout_ms: u64,
    /// Connections per serving thread.
    pub connections_max: usize,
}

/// Self-service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signup {
    /// Whether anyone may make a tenant.
    pub enabled: bool,
    /// The plan such a tenant gets.
    pub plan: String,
    /// Whether its first owner is mailed a link to prove their address.
    pub verify_email: bool,
}

/// Why there is no usable configuration. Each names what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not TOML: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// No such key.
    #[error("unknown configuration key `{key}` in {origin}{}", suggestion(nearest))]
    UnknownKey {
        /// The dotted key.
        key: String,
        /// The file or variable it came from.
        origin: String,
        /// The nearest key there is.
        nearest: Option<String>,
    },
    /// A value that cannot be.
    #[error("`{key}` in {origin}: {reason}")]
    Wrong {
        /// The dotted key.
        key: String,
        /// The file or variable it came from.
        origin: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A key without a value.
    #[error("`{key}` is missing")]
    Missing {
        /// The dotted key.
        key: String,
    },
    /// Something that looks like a secret.
    #[error(
        "`{key}` in {origin} looks like a secret; configuration holds no secrets: put it into a file of mode 0600 and name that file"
    )]
    Secret {
        /// The dotted key.
        key: String,
        /// The file or variable it came from.
        origin: String,
    },
    /// No place for data is known.
    #[error("no data directory: neither data.dir, XDG_DATA_HOME nor HOME is set; set data.dir")]
    NoHome,
    /// The data directory would not survive a restart.
    #[error("the data directory {} lies {because}: data there does not survive; choose another data.dir, or set data.allow_temporary = true (BULKHEAD__DATA__ALLOW_TEMPORARY=true) for a throw-away node", dir.display())]
    Temporary {
        /// Which directory.
        dir: PathBuf,
        /// Why it counts as temporary.
        because: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

/// What a command line adds: it wins over everything else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// `data.dir`, from `--data`.
    pub data_dir: Option<PathBuf>,
    /// Further keys by dotted name, as TOML; made by the program itself.
    pub settings: Vec<(String, toml::Value)>,
}

impl Overrides {
    /// Sets `key` to `value`.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.settings.push((key.to_owned(), value.into()));
        self
    }
}

/// Reads a text file that the configuration names, or that is the configuration. Whatever the name leads to, no
/// more is read than such a file may have.
///
/// # Errors
/// [`std::io::ErrorKind::FileTooLarge`] beyond `bytes_max`, [`std::io::ErrorKind::InvalidData`] for what is no
/// text.
pub fn read_text(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let bytes = storage::scratch::read_secret(path, bytes_max)?;
    let text = std::str::from_utf8(&bytes);
    text.map(str::to_owned)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

impl Config {
    /// Reads everything: defaults, `file`, the process's environment, and what the command line says.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::load_from(file, std::env::vars_os().filter_map(source::text_pair), overrides)
    }

    /// [`load`](Self::load) with a given environment.
    pub fn load_from(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let sources = source::Sources::gather(file, environment, overrides)?;
        let mut config: Self = sources.extract()?;
        config.fold_ports();
        config.data.dir = std::path::absolute(&config.data.dir)
            .map_err(|error| sources.wrong("data.dir", error.to_string()))?;
        check::check(&config, &sources)?;
        Ok(config)
    }

    fn fold_ports(&mut self) {
        if let Some(port) = self.http.port.take() {
            self.http.bind.set_port(port);
        }
        if let Some(port) = self.ops.port.take() {
            self.ops.bind.set_port(port);
        }
    }

    /// The effective configuration as TOML, without anything that could be a secret.
    pub fn masked_toml(&self) -> String {
        let mut tree = toml::Value::try_from(self)
            .unwrap_or_else(|_| toml::Value::Table(toml::Table::default()));
        source::mask(&mut tree);
        toml::to_string(&tree).unwrap_or_default()
    }

    /// The effective configuration as JSON, without anything that could be a secret.
    pub fn masked_json(&self) -> serde_json::Value {
        let mut tree = toml::Value::try_from(self)
            .unwrap_or_else(|_| toml::Value::Table(toml::Table::default()));
        source::mask(&mut tree);
        serde_json::to_value(tree).unwrap_or_default()
    }
}
