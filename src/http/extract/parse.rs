//! Parsing with good errors: the quick way first, and once more, slower, to find out what was wrong.

use std::collections::BTreeSet;

use actors::tenant::error::FieldError;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_path_to_error::Segment;

use crate::http::past::AS_OF;
use crate::http::problem::{Kind, Problem};
use crate::limits::JSON_DEPTH_MAX;

/// A JSON text as a `T`.
///
/// # Errors
/// [`Kind::MALFORMED`] if it is not JSON or nests too deeply; [`Kind::INVALID`] with a pointer if it is
/// not a `T`.
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |detail: String| Problem::new(Kind::MALFORMED).detail(detail);
    if nests_too_deeply(bytes) {
        return Err(malformed(format!("the body nests more than {JSON_DEPTH_MAX} levels deep")));
    }
    // Every body is an object. A list of its members in their order would be taken for one as well.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Err(error) => malformed(error.to_string()),
            Ok(_) => Problem::invalid("", "must be an object, not a list"),
        });
    }
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if error.classify() != Category::Data {
        return Err(malformed(error.to_string()));
    }
    // Valid so far, but not a `T`. It may still break further on; the whole text decides.
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        return Err(malformed(error.to_string()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let traced = serde_path_to_error::deserialize::<_, T>(&mut deserializer);
    let (mut pointer, message) = match &traced {
        Err(traced) => (pointer(traced.path()), plain(traced.inner())),
        Ok(_) => (String::new(), plain(&error)),
    };
    if let Some(field) = named_field(&message) {
        let mut token = String::new();
        push(&mut token, field);
        // A missing field has no place of its own, so the path ends at what lacks it.
        if message.starts_with("missing") || !pointer.ends_with(&token) {
            pointer.push_str(&token);
        }
    }
    Err(Problem::new(Kind::INVALID).errors(vec![FieldError { pointer, message }]))
}

/// Counts brackets outside of texts; serde's own limit would come later and say less.
fn nests_too_deeply(bytes: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut text, &index.to_string()),
            Segment::Map { key } => push(&mut text, key),
            Segment::Enum { variant } => push(&mut text, variant),
            Segment::Unknown => {}
        }
    }
    text
}

fn push(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
}

/// serde's message without the place in the text, which a pointer says better.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map(|(message, _)| message.to_owned()).unwrap_or(text)
}

/// The field that a message of serde is about.
fn named_field(message: &str) -> Option<&str> {
    let start = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))?;
    let end = ["`, expected", "`, there"]
        .iter()
        .find_map(|end| start.find(end))
        .or_else(|| start.rfind('`'))?;
    start.get(..end)
}

/// The pairs of a query string, each name once.
///
/// # Errors
/// [`Kind::INVALID`] if it is not well-formed or names a parameter twice.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    if query.is_empty() {
        return Ok(Vec::new());
    }
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|_| Problem::invalid("query", "is not well-formed"))?;
    let mut seen = BTreeSet::new();
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(Problem::invalid(format!("query/{name}"), "is given more than once"));
    }
    Ok(pairs)
}

/// A query string as a `T`.
///
/// # Errors
/// [`Kind::INVALID`] with a pointer to the parameter.
pub fn query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let first = match serde_urlencoded::from_str(query) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    let all = pairs(query)?;
    // Parameters that another extractor reads are none of `T`'s business.
    let is_elsewhere = |name: &str| matches!(name, "limit" | "cursor" | AS_OF);
    if named_field(&first).is_some_and(is_elsewhere) && first.starts_with("unknown") {
        let own: Vec<_> = all.iter().filter(|(name, _)| !is_elsewhere(name)).collect();
        let text = serde_urlencoded::to_string(&own).map_err(Problem::internal)?;
        return self::query(&text);
    }
    let name = named_field(&first).map(str::to_owned).or_else(|| culprit::<T>(&all, &first));
    let pointer = name.map_or_else(|| "query".to_owned(), |name| format!("query/{name}"));
    Err(Problem::invalid(pointer, first))
}

/// The parameter whose value is wrong: without it, the message is another or none.
fn culprit<T: DeserializeOwned>(pairs: &[(String, String)], message: &str) -> Option<String> {
    (0..pairs.len()).find_map(|at| {
        let rest: Vec<_> =
            pairs.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, pair)| pair).collect();
        let text = serde_urlencoded::to_string(rest).ok()?;
        match serde_urlencoded::from_str::<T>(&text) {
            Err(error) if error.to_string() == message => None,
            _ => Some(pairs[at].0.clone()),
        }
    })
}
