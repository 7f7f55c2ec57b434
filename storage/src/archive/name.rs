//! Which names an object may have. Refuses whatever could leave the archive's own place, or mean two
//! things to two stores.

use crate::archive::ArchiveError;

/// Longest name, in bytes; S3 and Google Cloud Storage take 1024 with the configured prefix.
const NAME_BYTES_MAX: usize = 512;

/// Refuses a name that is not a `/`-separated path of `a-z0-9._-`, or has a part that is empty or
/// begins with a dot.
pub(super) fn check(name: &str) -> Result<(), ArchiveError> {
    let sane =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(sane);
    if name.len() <= NAME_BYTES_MAX && name.split('/').all(is_part) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(ArchiveError::Misconfigured { reason: format!("{shown:?} cannot be an object's name") })
}

/// Like [`check`], but the empty prefix, which stands for everything, is fine.
pub(super) fn check_prefix(prefix: &str) -> Result<(), ArchiveError> {
    if prefix.is_empty() { Ok(()) } else { check(prefix) }
}
