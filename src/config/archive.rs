//! Where the archive is and how it is reached. Reads the files that hold its credentials, and refuses
//! one that others can read; the configuration itself never holds a secret.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actors::archivist::Policy;
use actors::audit::archiver::AuditPolicy;
use serde::{Deserialize, Serialize};
use storage::archive::{ArchiveOptions, Place};
use zeroize::Zeroizing;

use super::source::Sources;
use super::{Config, ConfigError, read_text};

/// Bytes of a file with a credential at most.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The archive: where what the data directory no longer has to hold rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// An absolute path, `file:///directory`, `s3://bucket/prefix` or `gs://bucket/prefix`; empty
    /// means `archive` in the data directory.
    pub url: String,
    /// The store's own URL, where it is not Amazon's or Google's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// A file with the access key id of S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id_file: Option<PathBuf>,
    /// A file with the secret that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key_file: Option<PathBuf>,
    /// The key file of a Google service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_file: Option<PathBuf>,
    /// Whether the endpoint may be reached without TLS.
    pub allow_http: bool,
    /// Time in which the store must answer, retries included, in milliseconds.
    pub timeout_ms: u64,
    /// For how many days every moment of a tenant can be brought back.
    pub window_days: u32,
    /// After how many seconds what was written is archived even if a segment is not full.
    pub roll_after_s: u64,
    /// How many bytes of archived segments the log keeps all the same, for quick reads.
    pub local_bytes: u64,
    /// How many audit entries of each tenant stay on the node; older ones rest in the archive.
    pub local_audit_entries: u64,
}

/// A file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{key}`: {} {fault}", path.display())]
pub struct SecretFileError {
    /// The key that names the file.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: FileFault,
}

/// What is wrong with a file that holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// Others can read it.
    #[error("can be read by others (mode {mode:03o}); chmod 600 it")]
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold one word of text.
    #[error("must hold one line without spaces")]
    NotOneLine,
}

impl SecretFileError {
    pub(super) fn new(key: &'static str, path: &Path, fault: FileFault) -> Self {
        Self { key, path: path.to_owned(), fault }
    }
}

impl Archive {
    /// What the archivist keeps to.
    pub fn policy(&self) -> Policy {
        Policy {
            window: Duration::from_secs(u64::from(self.window_days) * 24 * 60 * 60),
            roll_after: Duration::from_secs(self.roll_after_s),
            local_bytes: self.local_bytes,
        }
    }

    /// What the audit archiver keeps to.
    pub fn audit_policy(&self) -> AuditPolicy {
        AuditPolicy { local_entries: self.local_audit_entries }
    }

    /// Where the archive is: what is configured, else a directory beside the data.
    fn url(&self, data_dir: &Path) -> String {
        match self.url.as_str() {
            "" => data_dir.join("archive").display().to_string(),
            url => url.to_owned(),
        }
    }
}

/// How the archive of a configuration is reached, its credentials read from their files.
///
/// # Errors
/// If a file cannot be read, or others can read it.
pub fn archive_options(config: &Config) -> Result<ArchiveOptions, SecretFileError> {
    let archive = &config.archive;
    if let Some(path) = &archive.service_account_file {
        let named = |fault| SecretFileError::new("archive.service_account_file", path, fault);
        refuse_exposed(path).map_err(named)?;
    }
    let line = |key, file: &Option<PathBuf>| {
        let Some(path) = file else { return Ok(None) };
        let line = secret_line(path).map_err(|fault| SecretFileError::new(key, path, fault));
        line.map(Some)
    };
    Ok(ArchiveOptions {
        url: archive.url(&config.data.dir),
        endpoint: archive.endpoint.clone(),
        region: archive.region.clone(),
        access_key_id: line("archive.access_key_id_file", &archive.access_key_id_file)?,
        secret_access_key: line("archive.secret_access_key_file", &archive.secret_access_key_file)?,
        service_account_file: archive.service_account_file.clone(),
        allow_http: archive.allow_http,
        timeout: Duration::from_millis(archive.timeout_ms),
    })
}

fn refuse_exposed(path: &Path) -> Result<(), FileFault> {
    let metadata = std::fs::metadata(path).map_err(FileFault::Unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileFault::Exposed { mode });
    }
    std::fs::File::open(path).map(|_| ()).map_err(FileFault::Unreadable)
}

pub(super) fn secret_line(path: &Path) -> Result<Zeroizing<String>, FileFault> {
    refuse_exposed(path)?;
    let text = read_text(path, SECRET_BYTES_MAX).map_err(FileFault::Unreadable)?;
    let text = Zeroizing::new(text);
    match text.trim() {
        line if line.is_empty() || line.contains(char::is_whitespace) => Err(FileFault::NotOneLine),
        line => Ok(Zeroizing::new(line.to_owned())),
    }
}

/// What an archive's configuration must fulfil beyond its types.
pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let archive = &config.archive;
    let place = Place::parse(&archive.url(&config.data.dir))
        .map_err(|error| sources.wrong("archive.url", error.to_string()))?;
    if archive.window_days == 0 {
        let reason = "must be at least 1: without history nothing can be taken back";
        return Err(sources.wrong("archive.window_days", reason));
    }
    if let Some(endpoint) = &archive.endpoint {
        let is_plain = endpoint.starts_with("http://");
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(['?', '#', '@', ' '])) {
            let reason = "must be an http or https URL without user or query";
            return Err(sources.wrong("archive.endpoint", reason));
        }
        if is_plain && !archive.allow_http {
            let reason = "is plain HTTP; use https, or set archive.allow_http = true";
            return Err(sources.wrong("archive.endpoint", reason));
        }
    }
    if archive.access_key_id_file.is_some() != archive.secret_access_key_file.is_some() {
        let reason = "and archive.secret_access_key_file need each other";
        return Err(sources.wrong("archive.access_key_id_file", reason));
    }
    // A key that the archive does not look at is a misunderstanding, and better said now.
    let (is_s3, is_google) =
        (matches!(place, Place::S3 { .. }), matches!(place, Place::Google { .. }));
    let unused = [
        ("endpoint", archive.endpoint.is_some(), is_s3 || is_google, "an s3:// or gs://"),
        ("region", archive.region.is_some(), is_s3, "an s3://"),
        ("archive.access_key_id_file", archive.access_key_id_file.is_some(), is_s3, "an s3://"),
        (
            "archive.service_account_file",
            archive.service_account_file.is_some(),
            is_google,
            "a gs://",
        ),
    ];
    if let Some((key, _, _, kind)) = unused.iter().find(|(_, set, used, _)| *set && !used) {
        let reason = format!("is of use only to {kind} archive, and archive.url names none");
        return Err(sources.wrong(&format!("archive.{key}"), reason));
    }
    if !(100..=600_000).contains(&archive.timeout_ms) {
        let reason = "must be from 100 to 600000 milliseconds";
        return Err(sources.wrong("archive.timeout_ms", reason));
    }
    archive_options(config).map(|_| ()).map_err(|SecretFileError { key, path, fault }| {
        sources.wrong(&format!("archive.{key}"), format!("the file {} {fault}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;
    use crate::config::Overrides;

    fn load(file: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bulkhead.toml");
        std::fs::write(&path, file).expect("a file");
        let home = ("HOME".to_owned(), "/home/ada".to_owned());
        Config::load_from(Some(&path), [home], &Overrides::default())
    }

    fn file(path: &Path, text: &str, mode: u32) {
        use std::io::Write;
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(mode).open(path).unwrap();
        file.write_all(text.as_bytes()).expect("written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    }

    #[test]
    fn without_a_word_the_archive_is_beside_the_data() {
        let options = archive_options(&load("").expect("defaults")).expect("options");
        assert_eq!(options.url, "/home/ada/.local/share/bulkhead/archive");
        assert_eq!(options.timeout, storage::archive::place::TIMEOUT);
        assert!(!options.allow_http && options.access_key_id.is_none());
    }

    #[test]
    fn a_wrong_archive_says_what_would_be_right() {
        let cases = [
            ("url = \"ftp://host/x\"", "archive.url", "s3://bucket/prefix"),
            ("url = \"backups\"", "archive.url", "absolute"),
            ("url = \"s3://id:key@bucket\"", "archive.url", "s3://bucket/prefix"),
            ("url = \"s3://bucket\"\nendpoint = \"minio\"", "archive.endpoint", "https URL"),
            ("url = \"s3://bucket\"\nendpoint = \"http://m\"", "archive.endpoint", "allow_http"),
            ("endpoint = \"https://m\"", "archive.endpoint", "archive.url names none"),
            ("url = \"gs://bucket\"\nregion = \"eu\"", "archive.region", "an s3://"),
            (
                "url = \"s3://bucket\"\naccess_key_id_file = \"/a\"",
                "archive.access_key_id_file",
                "each other",
            ),
            (
                "url = \"gs://bucket\"\nservice_account_file = \"/a\"",
                "archive.service_account_file",
                "read",
            ),
            ("window_days = 0", "archive.window_days", "at least 1"),
            ("timeout_ms = 5", "archive.timeout_ms", "600000"),
        ];
        for (lines, key, hint) in cases {
            let text = load(&format!("[archive]\n{lines}")).expect_err(lines).to_string();
            assert!(text.contains(key) && text.contains(hint), "{lines}: {text}");
        }
    }

    #[test]
    fn credentials_come_from_files_that_others_cannot_read_and_are_never_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let (id, secret) = (dir.path().join("id"), dir.path().join("secret"));
        file(&id, "AKIA-THE-ID\n", 0o600);
        file(&secret, "the-very-secret\n", 0o640);
        let lines = format!(
            "[archive]\nurl = \"s3://bucket/eu\"\naccess_key_id_file = {id:?}\nsecret_access_key_file = {secret:?}"
        );
        let text = load(&lines).expect_err("others can read it").to_string();
        assert!(
            text.contains("archive.secret_access_key_file") && text.contains("chmod 600"),
            "{text}"
        );

        file(&secret, "the-very-secret\n", 0o600);
        let config = load(&lines).expect("a configuration");
        let options = archive_options(&config).expect("options");
        assert_eq!(options.access_key_id.expect("an id").as_str(), "AKIA-THE-ID");
        assert_eq!(options.secret_access_key.expect("a secret").as_str(), "the-very-secret");
        let shown = config.masked_toml();
        assert!(shown.contains("s3://bucket/eu") && shown.contains("secret_access_key_file"));
        assert!(!shown.contains("the-very-secret") && !shown.contains("AKIA"), "{shown}");

        file(&secret, "two words\n", 0o600);
        assert!(load(&lines).expect_err("no secret").to_string().contains("one line"));
        let literal = load("[archive]\nsecret_access_key = \"abc\"").expect_err("a secret");
        assert!(literal.to_string().contains("looks like a secret"), "{literal}");
    }
}
