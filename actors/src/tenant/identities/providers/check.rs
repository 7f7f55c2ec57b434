//! What must be true of a party before it may vouch: that everything needed is there, nothing else is, and
//! no secret is among what is shown.
//!
//! Whether a URL may be called at all is the edge's to say, which calls it.

use super::{CreateIdentityProvider, IdentityProviderChanges, KeySource, ProviderKind};
use crate::limits;
use crate::tenant::error::{FieldError, TenantError};
use crate::tenant::people::normalise_email;
use crate::webhook::scheme::Secret;

/// Who signs at Google.
pub const GOOGLE_ISSUER: &str = "https://accounts.google.com";
/// Who signs at Firebase, before the project's id.
pub const FIREBASE_ISSUER: &str = "https://securetoken.google.com/";
/// Where Firebase's keys are, as a JSON Web Key Set.
pub const FIREBASE_KEYS: &str =
    "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com";

const NAME_CHARS_MIN: usize = 2;
const NAME_CHARS_MAX: usize = 40;
const TEXT_BYTES_MAX: usize = 512;
const KEYS_MAX: usize = 50;
/// Members of a JSON Web Key that only its holder may know (RFC 7518 §6).
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What follows from what was given.
pub(super) struct Checked {
    pub issuer: String,
    pub keys: Option<KeySource>,
    pub domains: Vec<String>,
}

#[derive(Default)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn add(&mut self, pointer: &str, message: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.to_owned(), message: message.into() });
    }

    fn none(self) -> Result<(), TenantError> {
        if self.0.is_empty() { Ok(()) } else { Err(TenantError::Invalid(self.0)) }
    }

    /// A text that is needed, and can be one.
    fn text(&mut self, pointer: &str, text: Option<&str>) {
        let fits = |text: &str| {
            (1..=TEXT_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match text {
            None => self.add(pointer, "is needed for this kind of provider"),
            Some(text) if !fits(text) => self.add(
                pointer,
                format!("must have 1 to {TEXT_BYTES_MAX} visible ASCII characters without spaces"),
            ),
            Some(_) => {}
        }
    }

    fn unwanted(&mut self, pointer: &str, is_there: bool) {
        if is_there {
            self.add(pointer, "does not belong to this kind of provider");
        }
    }

    fn secret(&mut self, secret: Option<&Secret>) {
        let fits = |text: &str| {
            (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        if secret.is_some_and(|secret| !fits(secret.reveal())) {
            let message =
                format!("must have 1 to {TEXT_BYTES_MAX} bytes and no control characters");
            self.add("/client_secret", message);
        }
    }

    fn url(&mut self, pointer: &str, url: &str) {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let is_sane = url.len() <= TEXT_BYTES_MAX
            && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
            && url.bytes().all(|byte| byte.is_ascii_graphic())
            && !url.contains(['#', '\\']);
        if !is_sane {
            self.add(pointer, "must be an https URL without user and fragment");
        }
    }

    fn keys(&mut self, source: &KeySource) {
        match source {
            KeySource::Url(url) => self.url("/jwks/url", url),
            KeySource::Keys(keys) => {
                let bytes = serde_json::to_vec(keys).map_or(usize::MAX, |text| text.len());
                if keys.is_empty() || keys.len() > KEYS_MAX || bytes > limits::KEY_SET_BYTES_MAX {
                    let most = limits::KEY_SET_BYTES_MAX;
                    let message = format!("must have 1 to {KEYS_MAX} keys in {most} bytes");
                    self.add("/jwks/keys", message);
                }
                for (at, key) in keys.iter().enumerate() {
                    if SECRET_MEMBERS.iter().any(|member| key.contains_key(*member)) {
                        let message = "is a secret key: give the public one, and make a new pair";
                        self.add(&format!("/jwks/keys/{at}"), message);
                    }
                }
            }
        }
    }

    fn domains(&mut self, domains: &[String]) {
        if domains.len() > limits::IDENTITY_DOMAINS_MAX {
            let message = format!("must have at most {} items", limits::IDENTITY_DOMAINS_MAX);
            self.add("/domains", message);
        }
        for (at, domain) in domains.iter().enumerate() {
            if let Err(error) = normalise_email(&format!("a@{domain}")) {
                self.add(&format!("/domains/{at}"), error.to_string());
            }
        }
    }
}

/// Domains in the form they are compared in.
pub(super) fn lower(domains: Vec<String>) -> Vec<String> {
    domains.into_iter().map(|domain| domain.to_ascii_lowercase()).collect()
}

fn check_name(name: &str, faults: &mut Faults) {
    let is_inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (NAME_CHARS_MIN..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(is_inside)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !fits {
        let message = format!(
            "must have {NAME_CHARS_MIN} to {NAME_CHARS_MAX} of a to z, digits and inner hyphens"
        );
        faults.add("/name", message);
    }
}

/// Checks a new party.
pub(super) fn new(body: &CreateIdentityProvider) -> Result<Checked, TenantError> {
    let mut faults = Faults::default();
    check_name(&body.name, &mut faults);
    faults.domains(&body.domains);
    faults.secret(body.client_secret.as_ref());
    let preset = preset_issuer(body);
    let given = body.issuer.as_deref();
    match (&preset, given) {
        (Some(preset), Some(given)) if preset != given => {
            faults.add("/issuer", format!("is {preset:?} for this kind; leave it out"));
        }
        (None, given) => faults.text("/issuer", given),
        _ => {}
    }
    let issuer = preset.or_else(|| body.issuer.clone()).unwrap_or_default();
    if body.kind.redirects() {
        faults.text("/client_id", body.client_id.as_deref());
        faults.unwanted("/audience", body.audience.is_some());
        faults.unwanted("/jwks", body.jwks.is_some());
        if given.is_some() {
            faults.url("/issuer", &issuer);
        }
    } else {
        faults.text("/audience", body.audience.as_deref());
        faults.unwanted("/client_id", body.client_id.is_some());
        faults.unwanted("/client_secret", body.client_secret.is_some());
    }
    let keys = match (body.kind, &body.jwks) {
        (ProviderKind::Firebase, None) => Some(KeySource::Url(FIREBASE_KEYS.to_owned())),
        (ProviderKind::Jwks, None) => {
            faults.add("/jwks", "is needed for this kind of provider");
            None
        }
        (_, keys) => keys.clone(),
    };
    if let Some(keys) = &keys {
        faults.keys(keys);
    }
    faults.none()?;
    Ok(Checked { issuer, keys, domains: lower(body.domains.clone()) })
}

/// The issuer that a kind has.
fn preset_issuer(body: &CreateIdentityProvider) -> Option<String> {
    match body.kind {
        ProviderKind::Oidc | ProviderKind::Jwks => None,
        ProviderKind::Google => Some(GOOGLE_ISSUER.to_owned()),
        ProviderKind::Firebase => {
            Some(format!("{FIREBASE_ISSUER}{}", body.audience.as_deref().unwrap_or_default()))
        }
    }
}

/// Checks what is to change of a party of that kind.
pub(super) fn changes(
    kind: ProviderKind,
    changes: &IdentityProviderChanges,
) -> Result<(), TenantError> {
    let mut faults = Faults::default();
    faults.domains(changes.domains.as_deref().unwrap_or_default());
    faults.secret(changes.client_secret.as_ref().and_then(Option::as_ref));
    if kind.redirects() {
        faults.unwanted("/audience", changes.audience.is_some());
        faults.unwanted("/jwks", changes.jwks.is_some());
    } else {
        faults.unwanted("/client_id", changes.client_id.is_some());
        faults.unwanted("/client_secret", changes.client_secret.is_some());
    }
    // The project's id is part of Firebase's issuer, which never changes.
    faults.unwanted("/audience", kind == ProviderKind::Firebase && changes.audience.is_some());
    for (pointer, text) in [("/client_id", &changes.client_id), ("/audience", &changes.audience)] {
        if text.is_some() {
            faults.text(pointer, text.as_deref());
        }
    }
    if let Some(keys) = &changes.jwks {
        faults.keys(keys);
    }
    faults.none()
}
