//! The credential of a request: exactly one `Authorization: Bearer` header, with an access token or an
//! API key.
//!
//! An access token proves itself. An API key is proven by its tenant once, and known on this thread from
//! then on. Says nothing of why a credential is not good.

use actix_web::http::header::{self, HeaderMap};
use actors::permit::Grant;
use actors::tenant::api_keys::text::PresentedKey;

use crate::http::app::App;
use crate::http::problem::{Kind, Problem};
use crate::http::request::RequestContext;
use crate::http::services::ApiKeys;
use crate::http::tokens::TokenError;
use crate::limits::TOKEN_BYTES_MAX;

/// What a request brings to say who asks.
pub(super) enum Credential {
    /// It is known to be good, as far as this thread can tell.
    Known(Grant),
    /// Its tenant has to say.
    Unproven(PresentedKey),
}

/// Reads it. A key that is known is asked about all the same when `suffices` says that what is known of
/// it is not enough: it may have been given more since.
pub(super) fn read(
    app: &App,
    context: &RequestContext,
    headers: &HeaderMap,
    suffices: impl Fn(&Grant) -> bool,
) -> Result<Credential, Problem> {
    let missing = || Problem::new(Kind::UNAUTHENTICATED);
    let mut values = headers.get_all(header::AUTHORIZATION);
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(missing());
    }
    if value.len() > TOKEN_BYTES_MAX {
        return Err(Problem::new(Kind::INVALID_TOKEN));
    }
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    if ApiKeys::is_one(token) {
        let print = app.api_keys.print(token);
        context.api_key.set(Some(print));
        return match app.api_keys.known(&print, app.env.now_ms()).filter(suffices) {
            Some(grant) => Ok(Credential::Known(grant)),
            None => {
                let presented = PresentedKey::parse(token);
                presented.map(Credential::Unproven).ok_or(Problem::new(Kind::INVALID_TOKEN))
            }
        };
    }
    let verified = app.tokens.verify(token, app.env.now_ms());
    verified.map(Credential::Known).map_err(|error| match error {
        TokenError::NoTenant => Problem::new(Kind::NO_TENANT),
        TokenError::Invalid | TokenError::Expired => Problem::new(Kind::INVALID_TOKEN),
    })
}
