//! What a store's refusal means. The library hides the status of some answers in its texts, so the
//! status is read from there; what is not understood counts as unreachable, which is tried again.

use std::error::Error as _;

use object_store::Error;

use crate::archive::ArchiveError;

/// Longest reason that is kept, in characters: stores answer with whole documents.
const REASON_LEN_MAX: usize = 400;
/// What comes before the status of an answer in the library's texts.
const STATUS_MARK: &str = "status code: ";
/// An answer that points nowhere: S3's to a request for another region's bucket.
const REDIRECT_MARK: &str = "incorrectly configured region";

/// What `error` means for the object `name`.
pub(super) fn failure(error: &Error, name: &str) -> ArchiveError {
    let text = full_text(error);
    let reason = text.chars().take(REASON_LEN_MAX).collect();
    let says = |mark: &str| text.contains(mark);
    match error {
        _ if says("NoSuchBucket") || says(REDIRECT_MARK) => ArchiveError::Misconfigured { reason },
        Error::NotFound { .. } => ArchiveError::Missing { name: name.to_owned() },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ArchiveError::Refused { reason }
        }
        Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => ArchiveError::Misconfigured { reason },
        _ => match status(&text) {
            Some(401 | 403) => ArchiveError::Refused { reason },
            Some(507) => ArchiveError::Full { reason },
            // Asking later may help: too slow, in conflict with another request, too many.
            Some(408 | 409 | 425 | 429) => ArchiveError::Unreachable { reason },
            Some(300..=499) => ArchiveError::Misconfigured { reason },
            _ => ArchiveError::Unreachable { reason },
        },
    }
}

/// Whether a range was asked for that begins behind the object's end.
pub(super) fn is_past_the_end(error: &Error) -> bool {
    status(&full_text(error)) == Some(416)
}

fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once(STATUS_MARK)?;
    rest.get(..3)?.parse().ok()
}

/// The error with its causes; not every layer of the library repeats the one below.
fn full_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: &str) -> Error {
        let text = format!("Server returned non-2xx status code: {status}: body");
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn an_answers_status_decides() {
        let meaning = |status| failure(&answered(status), "a");
        assert!(matches!(meaning("401 Unauthorized"), ArchiveError::Refused { .. }));
        assert!(matches!(meaning("403 Forbidden"), ArchiveError::Refused { .. }));
        assert!(matches!(meaning("400 Bad Request"), ArchiveError::Misconfigured { .. }));
        assert!(matches!(meaning("404 Not Found"), ArchiveError::Misconfigured { .. }));
        assert!(matches!(meaning("409 Conflict"), ArchiveError::Unreachable { .. }));
        assert!(matches!(meaning("429 Too Many Requests"), ArchiveError::Unreachable { .. }));
        assert!(matches!(meaning("503 Service Unavailable"), ArchiveError::Unreachable { .. }));
        assert!(matches!(meaning("507 Insufficient Storage"), ArchiveError::Full { .. }));
        assert!(is_past_the_end(&answered("416 Range Not Satisfiable")));
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        let absent = |body: &str| Error::NotFound { path: "a".to_owned(), source: body.into() };
        let bucket = failure(&absent("<Code>NoSuchBucket</Code>"), "a");
        assert!(matches!(bucket, ArchiveError::Misconfigured { .. }), "{bucket}");
        let object = failure(&absent("<Code>NoSuchKey</Code>"), "a");
        assert!(matches!(object, ArchiveError::Missing { name } if name == "a"));
    }

    #[test]
    fn a_long_answer_is_cut() {
        let source = "x".repeat(10_000).into();
        let error = failure(&Error::Generic { store: "S3", source }, "a");
        assert!(error.to_string().len() < 2 * REASON_LEN_MAX, "{}", error.to_string().len());
    }
}
