//! The credential of a request: exactly one `Authorization: Bearer` header with an access token, an API key or the
//! token of a support session; or, without such a header, a browser's session cookie.
//!
//! An access token proves itself. The others are proven by their tenant, and known on this thread for a while. Says nothing of why a credential is not good.

use actix_web::dev::ServiceRequest;
use actix_web::http::header;
use actors::permit::Grant;
use actors::tenant::api_keys::text::{PresentedKey, PresentedSupport};
use actors::tenant::sessions::cookie::SessionCookie;

use crate::http::app::App;
use crate::http::cookies;
use crate::http::problem::{Kind, Problem};
use crate::http::request::RequestContext;
use crate::http::services;
use crate::http::support;
use crate::http::tokens::TokenError;
use crate::limits::TOKEN_BYTES_MAX;

/// What a request brings to say who asks.
pub(super) enum Credential {
    /// It is known to be good, as far as this thread can tell.
    Known(Grant),
    /// Its tenant has to say.
    Unproven(Unproven),
}

/// What only its tenant can prove.
pub(super) enum Unproven {
    /// An API key.
    Key(PresentedKey),
    /// The token of a support session.
    Support(PresentedSupport),
    /// A browser's cookie.
    Cookie(SessionCookie),
}

/// Reads it. What is known is asked about all the same when `suffices` says that what is known of it is not
/// enough: it may have been given more since.
pub(super) fn read(
    app: &App,
    context: &RequestContext,
    request: &ServiceRequest,
    suffices: impl Fn(&Grant) -> bool,
) -> Result<Credential, Problem> {
    let missing = || Problem::new(Kind::UNAUTHENTICATED);
    let invalid = || Problem::new(Kind::INVALID_TOKEN);
    let headers = request.headers();
    let mut values = headers.get_all(header::AUTHORIZATION);
    let Some(value) = values.next() else {
        let value = cookies::presented(headers, cookies::SESSION)?.ok_or_else(missing)?;
        cookies::check_intent(context.route.verb, headers)?;
        return remembered(app, context, (true, value), suffices, || {
            SessionCookie::parse(value).map(Unproven::Cookie)
        });
    };
    if values.next().is_some() {
        return Err(missing());
    }
    if value.len() > TOKEN_BYTES_MAX {
        return Err(invalid());
    }
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    if PresentedKey::is_one(token) {
        return remembered(app, context, (false, token), suffices, || {
            PresentedKey::parse(token).map(Unproven::Key)
        });
    }
    if PresentedSupport::is_one(token) {
        return remembered(app, context, (false, token), suffices, || {
            PresentedSupport::parse(token).map(Unproven::Support)
        });
    }
    let verified = app.tokens.verify(token, app.env.now_ms());
    verified.map(Credential::Known).map_err(|error| match error {
        TokenError::NoTenant => Problem::new(Kind::NO_TENANT),
        TokenError::Invalid | TokenError::Expired => invalid(),
    })
}

/// What this thread remembers of a credential, or else what is to be proven.
fn remembered(
    app: &App,
    context: &RequestContext,
    (is_cookie, text): (bool, &str),
    suffices: impl Fn(&Grant) -> bool,
    parse: impl FnOnce() -> Option<Unproven>,
) -> Result<Credential, Problem> {
    let print = app.proofs.print(is_cookie, text);
    context.print.set(Some(print));
    match app.proofs.known(&print).filter(suffices) {
        Some(grant) => Ok(Credential::Known(grant)),
        None => parse().map(Credential::Unproven).ok_or(Problem::new(Kind::INVALID_TOKEN)),
    }
}

/// Has the tenant say whose it is, and remembers that. Bad ones of every kind are answered alike.
pub(super) async fn prove(
    app: &App,
    context: &RequestContext,
    request: &ServiceRequest,
    unproven: Unproven,
) -> Result<Grant, Problem> {
    let proven = match unproven {
        Unproven::Key(presented) => services::prove(app, presented).await?,
        Unproven::Support(presented) => support::prove(app, presented).await?,
        Unproven::Cookie(cookie) => {
            cookies::prove(app, context.origin(request.headers()), cookie).await?
        }
    };
    let (grant, until_ms) = proven.ok_or_else(|| Problem::new(Kind::INVALID_TOKEN))?;
    if let Some(print) = context.print.get() {
        app.proofs.remember(print, grant.clone(), until_ms);
    }
    Ok(grant)
}
