//! Where an archive is and how it is reached. Refuses a place it does not understand: nothing is
//! guessed from a URL that is nearly right.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::archive::ArchiveError;

/// Time in which a store answers, unless said otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Where an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory of this machine.
    Local(PathBuf),
    /// A bucket that speaks the S3 protocol.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What every object's key begins with; may be empty.
        prefix: String,
    },
    /// A bucket of Google Cloud Storage.
    Google {
        /// The bucket's name.
        bucket: String,
        /// What every object's key begins with; may be empty.
        prefix: String,
    },
}

impl Place {
    /// Reads `/directory`, `file:///directory`, `s3://bucket/prefix` or `gs://bucket/prefix`.
    ///
    /// # Errors
    /// [`ArchiveError::Misconfigured`], which says what would be right.
    pub fn parse(url: &str) -> Result<Self, ArchiveError> {
        let wrong = |reason: String| Err(ArchiveError::Misconfigured { reason });
        let Some((scheme, rest)) = url.split_once("://") else {
            return Self::directory(url);
        };
        match scheme {
            "file" => Self::directory(rest),
            "s3" | "gs" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let prefix = prefix.trim_end_matches('/');
                if !is_bucket(bucket) {
                    return wrong(format!(
                        "{bucket:?} is no bucket's name: write {scheme}://bucket/prefix"
                    ));
                }
                if !prefix.is_empty() && !prefix.split('/').all(is_prefix_part) {
                    return wrong(format!(
                        "the prefix {prefix:?} may have letters, digits, dots, dashes and underscores \
                         between single slashes"
                    ));
                }
                let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
                Ok(if scheme == "s3" {
                    Self::S3 { bucket, prefix }
                } else {
                    Self::Google { bucket, prefix }
                })
            }
            other => wrong(format!(
                "the scheme {other:?} is unknown: use an absolute path, file:///directory, \
                 s3://bucket/prefix or gs://bucket/prefix"
            )),
        }
    }

    fn directory(path: &str) -> Result<Self, ArchiveError> {
        if path.starts_with('/') {
            return Ok(Self::Local(PathBuf::from(path)));
        }
        let reason = format!("{path:?} is not an absolute path, such as /var/lib/archive");
        Err(ArchiveError::Misconfigured { reason })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match self {
            Self::Local(dir) => return write!(f, "file://{}", dir.display()),
            Self::S3 { bucket, prefix } => ("s3", bucket, prefix),
            Self::Google { bucket, prefix } => ("gs", bucket, prefix),
        };
        let slash = if prefix.is_empty() { "" } else { "/" };
        write!(f, "{scheme}://{bucket}{slash}{prefix}")
    }
}

/// The names that both S3 and Google Cloud Storage give (3 to 63 characters, or more with dots).
fn is_bucket(name: &str) -> bool {
    let sane =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (3..=222).contains(&name.len()) && name.bytes().all(sane) && !name.starts_with(['.', '-'])
}

fn is_prefix_part(part: &str) -> bool {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(sane)
}

/// How an archive is reached.
#[derive(Clone)]
pub struct ArchiveOptions {
    /// Where it is; see [`Place::parse`].
    pub url: String,
    /// The store's own URL, where it is not Amazon's or Google's.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// The access key of an S3 bucket. Without it the machine's own role is used.
    pub access_key_id: Option<Zeroizing<String>>,
    /// The secret that belongs to it.
    pub secret_access_key: Option<Zeroizing<String>>,
    /// The key file of a Google service account. Without it the machine's own role is used.
    pub service_account_file: Option<PathBuf>,
    /// Whether an endpoint may be reached without TLS.
    pub allow_http: bool,
    /// Time in which the store must answer, retries included. What carries content gets more, by
    /// its length.
    pub timeout: Duration,
}

impl ArchiveOptions {
    /// The archive at `url`, with nothing else said.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            service_account_file: None,
            allow_http: false,
            timeout: TIMEOUT,
        }
    }
}

/// Says whether there are credentials, never which.
impl fmt::Debug for ArchiveOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveOptions")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id.is_some())
            .field("secret_access_key", &self.secret_access_key.is_some())
            .field("service_account_file", &self.service_account_file)
            .field("allow_http", &self.allow_http)
            .field("timeout", &self.timeout)
            .finish()
    }
}
