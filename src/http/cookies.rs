//! The cookie that browsers are signed in with, beside the tokens that programs take from the same answer.
//!
//! `__Host-bulkhead` is `Secure`, `HttpOnly` and `SameSite=Lax`, of this host alone (RFC 6265bis): no script
//! reads it, no other host sets it, no foreign page sends it along with what changes something. As another
//! measure, what changes something by cookie has to carry `X-Bulkhead-CSRF: 1`, which no foreign page can add
//! without being let to. A request with an `Authorization` header is judged by that alone.
//!
//! Refuses: two such cookies in one request, and to say why one is not good.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actors::call::Origin;
use actors::limits::SESSION_MS;
use actors::permit::{Grant, Permit};
use actors::tenant::error::TenantError;
use actors::tenant::handle::TenantHandle;
use actors::tenant::sessions::Opened;
use actors::tenant::sessions::cookie::{NoteSessionUse, ProveCookie, SessionCookie};
use serde::Serialize;
use storage::id::TenantId;

use crate::http::answer;
use crate::http::app::App;
use crate::http::problem::{Kind, Problem};
use crate::http::routes::Verb;

/// The session cookie's name. The prefix has browsers take it only from here, for here.
pub const SESSION: &str = "__Host-bulkhead";
/// What a change by cookie has to carry, with the value `1`.
pub const CSRF: HeaderName = HeaderName::from_static("x-bulkhead-csrf");
/// How long a proof is remembered: about as often as the use of a session is noted.
const PROVEN_FOR: Duration = Duration::from_secs(5 * 60);

/// A cookie of this host alone, which no script reads.
pub fn host_cookie(name: &'static str, value: String, lasts: Duration) -> Cookie<'static> {
    let seconds = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
    Cookie::build(name, value)
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(time::Duration::seconds(seconds))
        .finish()
}

/// Puts a cookie on an answer.
pub fn set(headers: &mut HeaderMap, cookie: &Cookie<'_>) {
    // Names are ours and values base64url; anything else is left out rather than mangled.
    if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
        headers.append(header::SET_COOKIE, value);
    }
}

/// The cookie of an opened session.
pub fn session(opened: &Opened) -> Cookie<'static> {
    host_cookie(SESSION, opened.cookie.clone(), Duration::from_millis(SESSION_MS))
}

/// Has the browser drop the session's cookie.
pub fn clear(headers: &mut HeaderMap) {
    set(headers, &host_cookie(SESSION, String::new(), Duration::ZERO));
}

/// Answers with what a program takes of a session, and the cookie a browser takes.
///
/// # Errors
/// [`Kind::INTERNAL`] if the body does not serialise.
pub fn answer(
    status: StatusCode,
    cookie: &Cookie<'_>,
    body: &impl Serialize,
) -> Result<HttpResponse, Problem> {
    let mut response = answer::json(status, body)?;
    set(response.headers_mut(), cookie);
    Ok(response)
}

/// The value of the one cookie of that name; `None` if there is none.
///
/// # Errors
/// [`Kind::INVALID_TOKEN`] if there are two: somebody else set one of them.
pub fn presented<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let pairs = headers
        .get_all(header::COOKIE)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut named = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
    let first = named.next();
    if named.next().is_some() {
        return Err(Problem::new(Kind::INVALID_TOKEN));
    }
    Ok(first)
}

/// Whether a request by cookie may do what it asks for.
///
/// # Errors
/// [`Kind::CSRF`] if it changes something and does not say that it means to.
pub(crate) fn check_intent(verb: Verb, headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(CSRF);
    let is_meant = values.next().is_some_and(|value| value == "1") && values.next().is_none();
    if verb == Verb::Get || is_meant { Ok(()) } else { Err(Problem::new(Kind::CSRF)) }
}

/// Has the tenant say whose a cookie is, and until when to remember that. Nothing, whatever is wrong
/// with it.
///
/// # Errors
/// Those of a tenant that cannot answer now.
pub(crate) async fn prove(
    app: &App,
    origin: Origin,
    cookie: SessionCookie,
) -> Result<Option<(Grant, u64)>, TenantError> {
    let door = door_or_platform(app, cookie.tenant).await?;
    let query = ProveCookie { cookie: cookie.clone() };
    let Some(proven) = door.query(Permit::anonymous(door.tenant()), query).await? else {
        return Ok(None);
    };
    let grant = Grant::new(door.tenant(), proven.person);
    let soon_ms = app.env.now_ms().saturating_add(PROVEN_FOR.as_millis() as u64);
    if proven.is_to_note {
        actix_web::rt::spawn(note_use(door, origin, cookie));
    }
    Ok(Some((grant, proven.expires_ms.min(soon_ms))))
}

/// The door of a tenant that somebody names who proved nothing yet: for one that does not exist the platform
/// does the same work and finds nothing.
pub(crate) async fn door_or_platform(
    app: &App,
    tenant: TenantId,
) -> Result<TenantHandle, TenantError> {
    match app.tenants.find(tenant).await {
        Err(TenantError::NotFound) => app.tenants.find(TenantId::PLATFORM).await,
        found => found,
    }
}

/// Has the use noted. Nobody waits for it: a tenant that cannot write now can still be read.
async fn note_use(door: TenantHandle, origin: Origin, cookie: SessionCookie) {
    let permit = Permit::anonymous(door.tenant());
    if let Err(error) = door.command(permit, origin, None, NoteSessionUse { cookie }).await {
        tracing::debug!(%error, "the use of a session was not noted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name.clone(), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_cookie_is_of_this_host_alone_and_out_of_every_scripts_reach() {
        let text = host_cookie(SESSION, "abc".to_owned(), Duration::from_secs(9)).to_string();
        let mut parts: Vec<_> = text.split("; ").collect();
        assert_eq!(parts.remove(0), "__Host-bulkhead=abc");
        parts.sort_unstable();
        assert_eq!(parts, ["HttpOnly", "Max-Age=9", "Path=/", "SameSite=Lax", "Secure"]);
    }

    #[test]
    fn one_cookie_is_found_among_others_and_two_are_refused() {
        let found = |lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| (header::COOKIE, *line)).collect();
            presented(&headers(&lines), SESSION).map(|value| value.map(str::to_owned)).ok()
        };
        assert_eq!(found(&[]), Some(None));
        assert_eq!(found(&["a=1; __Host-bulkhead=x; b=2"]), Some(Some("x".to_owned())));
        assert_eq!(found(&["x__Host-bulkhead=x", "__host-bulkhead=y"]), Some(None));
        assert_eq!(found(&["__Host-bulkhead=x; __Host-bulkhead=x"]), None);
        assert_eq!(found(&["__Host-bulkhead=x", "__Host-bulkhead=y"]), None);
    }

    #[test]
    fn only_reading_needs_no_word_of_intent() {
        let with = |lines: &[(HeaderName, &'static str)], verb| check_intent(verb, &headers(lines));
        assert!(with(&[], Verb::Get).is_ok());
        for verb in [Verb::Post, Verb::Put, Verb::Patch, Verb::Delete] {
            assert!(with(&[(CSRF, "1")], verb).is_ok());
            for wrong in [&[][..], &[(CSRF, "")], &[(CSRF, "true")], &[(CSRF, "1"), (CSRF, "1")]] {
                assert_eq!(with(wrong, verb).expect_err("refused").kind(), Kind::CSRF);
            }
        }
    }
}
