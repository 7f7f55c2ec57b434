//! The one verifier of identity tokens (OpenID Connect Core §3.1.3.7, RFC 8725).
//!
//! The narrowest reading: a few known members in the header, an algorithm that the key allows, no member twice,
//! canonical base64url. Times are the caller's clock, with a minute's leeway. Why a token is refused is
//! for the audit log; whoever brought it gets one answer for all reasons.

use actors::tenant::identities::Vouched;
use actors::tenant::identities::providers::ProviderKind;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::keys::KeySet;
use super::unique;

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How far the issuer's clock may differ, in seconds.
const LEEWAY_S: u64 = 60;
/// Longest subject, in bytes (OpenID Connect Core §2).
const SUBJECT_BYTES_MAX: usize = actors::limits::SUBJECT_BYTES_MAX;
/// Longest subject at Firebase, in bytes.
const FIREBASE_SUBJECT_BYTES_MAX: usize = 128;
/// Longest name of a key, in bytes.
const KID_BYTES_MAX: usize = 256;
/// Members of a header that change nothing. Those that name or carry a key, and `crit`, are not among them.
const HEADER_MEMBERS: [&str; 6] = ["alg", "kid", "typ", "x5t", "x5t#S256", "cty"];

/// What a token has to say.
pub struct Expected<'a> {
    /// Who signs.
    pub issuer: &'a str,
    /// What the issuer called itself once.
    pub issuer_old: Option<&'a str>,
    /// Whom it is for.
    pub audience: &'a str,
    /// Whose tokens they are: some promise more than others.
    pub kind: ProviderKind,
    /// What has to come back, if something was sent along.
    pub nonce: Option<&'a str>,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No key of that name.
    UnknownKey,
    /// Too long, or not three parts in base64url of JSON objects.
    Form,
    /// The header has what it must not have.
    Header,
    /// The algorithm is none that the key allows.
    Algorithm,
    /// The signature is wrong.
    Signature,
    /// Another issuer.
    Issuer,
    /// For somebody else.
    Audience,
    /// Of nobody.
    Subject,
    /// Over.
    Expired,
    /// Not yet good.
    NotYet,
    /// A time is missing or no time.
    Times,
    /// Not what was sent along.
    Nonce,
}

impl Fault {
    /// Its name in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownKey => "token-unknown-key",
            Self::Form => "token-form",
            Self::Header => "token-header",
            Self::Algorithm => "token-algorithm",
            Self::Signature => "token-signature",
            Self::Issuer => "token-issuer",
            Self::Audience => "token-audience",
            Self::Subject => "token-subject",
            Self::Expired => "token-expired",
            Self::NotYet => "token-not-yet",
            Self::Times => "token-times",
            Self::Nonce => "token-nonce",
        }
    }
}

/// Whom a token vouches for.
///
/// # Errors
/// [`Fault`].
pub fn verify(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
    now_s: u64,
) -> Result<Vouched, Fault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::Form);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Fault::Form)?;
    let (header, claims) = message.split_once('.').ok_or(Fault::Form)?;
    // The engine refuses padding, other alphabets and stray trailing bits: one text per value.
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Form);
    let object = |part: &str| unique::object(&decoded(part)?).ok_or(Fault::Form);
    if decoded(signature)?.is_empty() {
        return Err(Fault::Signature);
    }
    let (header, claims) = (object(header)?, object(claims)?);
    let (algorithm, kid) = read_header(&header)?;
    let must_name_key = expected.kind == ProviderKind::Firebase;
    let may_use =
        |algorithm| expected.kind != ProviderKind::Firebase || algorithm == Algorithm::RS256;
    if (must_name_key && kid.is_none()) || !may_use(algorithm) {
        return Err(Fault::Algorithm);
    }
    check_signature(keys, kid, algorithm, (message, signature))?;
    check_claims(&claims, expected, now_s)
}

fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<&str>), Fault> {
    if header.keys().any(|name| !HEADER_MEMBERS.contains(&name.as_str())) {
        return Err(Fault::Header);
    }
    // A token of another kind, which says so, is for something else.
    let is_of_kind = |typ: &Value| typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"));
    if header.get("typ").is_some_and(|typ| !is_of_kind(typ)) {
        return Err(Fault::Header);
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.as_str()),
        Some(_) => return Err(Fault::Header),
    };
    let algorithm = match header.get("alg").and_then(Value::as_str) {
        Some("RS256") => Algorithm::RS256,
        Some("RS384") => Algorithm::RS384,
        Some("RS512") => Algorithm::RS512,
        Some("PS256") => Algorithm::PS256,
        Some("PS384") => Algorithm::PS384,
        Some("PS512") => Algorithm::PS512,
        Some("ES256") => Algorithm::ES256,
        Some("ES384") => Algorithm::ES384,
        Some("EdDSA" | "Ed25519") => Algorithm::EdDSA,
        _ => return Err(Fault::Algorithm),
    };
    Ok((algorithm, kid))
}

fn check_signature(
    keys: &KeySet,
    kid: Option<&str>,
    algorithm: Algorithm,
    (message, signature): (&str, &str),
) -> Result<(), Fault> {
    let mut named = keys.named(kid).peekable();
    if named.peek().is_none() {
        return Err(Fault::UnknownKey);
    }
    let fitting: Vec<_> = named.filter(|key| key.algorithms.contains(&algorithm)).collect();
    // Without a name there has to be no choice (OpenID Connect Core §10.1).
    let key = match fitting.as_slice() {
        [] => return Err(Fault::Algorithm),
        [key] => key,
        _ => return Err(Fault::UnknownKey),
    };
    let is_right = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm);
    if is_right.unwrap_or(false) { Ok(()) } else { Err(Fault::Signature) }
}

fn check_claims(
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
    now_s: u64,
) -> Result<Vouched, Fault> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let issuer = text("iss").ok_or(Fault::Issuer)?;
    if issuer != expected.issuer && Some(issuer) != expected.issuer_old {
        return Err(Fault::Issuer);
    }
    check_audience(claims, expected)?;
    let longest = match expected.kind {
        ProviderKind::Firebase => FIREBASE_SUBJECT_BYTES_MAX,
        _ => SUBJECT_BYTES_MAX,
    };
    let subject = text("sub").filter(|subject| (1..=longest).contains(&subject.len()));
    let subject = subject.ok_or(Fault::Subject)?;
    check_times(claims, expected.kind, now_s)?;
    if let Some(nonce) = expected.nonce {
        let came = text("nonce").ok_or(Fault::Nonce)?;
        verify_slices_are_equal(came.as_bytes(), nonce.as_bytes()).map_err(|_| Fault::Nonce)?;
    }
    Ok(Vouched {
        // One name for one issuer: links do not depend on which it used.
        issuer: expected.issuer.to_owned(),
        subject: subject.to_owned(),
        email: text("email").map(str::to_owned),
        email_verified: is_true(claims.get("email_verified")),
        hosted_domain: text("hd").map(str::to_owned),
    })
}

/// Some issuers write it as a text.
pub fn is_true(value: Option<&Value>) -> bool {
    matches!(value, Some(Value::Bool(true))) || value.and_then(Value::as_str) == Some("true")
}

fn check_audience(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Fault> {
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => {
            all.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Fault::Audience)?
        }
        _ => return Err(Fault::Audience),
    };
    if !audiences.contains(&expected.audience) {
        return Err(Fault::Audience);
    }
    if !expected.kind.redirects() {
        return Ok(());
    }
    // A token that is for others as well was asked for by `azp`, and that has to be us.
    match claims.get("azp") {
        None if audiences.len() == 1 => Ok(()),
        Some(Value::String(party)) if party == expected.audience => Ok(()),
        _ => Err(Fault::Audience),
    }
}

/// A NumericDate (RFC 7519 §2), which may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    let whole = value.as_f64().filter(|seconds| (0.0..=9e15).contains(seconds));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "its range was looked at"
    )]
    value.as_u64().or(whole.map(|seconds| seconds as u64))
}

fn check_times(claims: &Map<String, Value>, kind: ProviderKind, now_s: u64) -> Result<(), Fault> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => seconds(value).map(Some).ok_or(Fault::Times),
    };
    let ends_s = time("exp")?.ok_or(Fault::Times)?;
    if ends_s.saturating_add(LEEWAY_S) <= now_s {
        return Err(Fault::Expired);
    }
    let is_ahead = |at_s: u64| at_s > now_s.saturating_add(LEEWAY_S);
    let made_s = time("iat")?.ok_or(Fault::Times)?;
    let signed_in_s = time("auth_time")?;
    if kind == ProviderKind::Firebase && signed_in_s.is_none() {
        return Err(Fault::Times);
    }
    let starts = [Some(made_s), time("nbf")?, signed_in_s];
    if starts.into_iter().flatten().any(is_ahead) { Err(Fault::NotYet) } else { Ok(()) }
}
