//! The one place where an error becomes an answer (RFC 9457).
//!
//! The table below is the whole list of problems: one row makes the constant, the page under
//! `/problems/`, the entry in the OpenAPI document and in `docs/problems.md`. What caused a problem is
//! logged once and never sent: the answer to a failure of ours reads the same whatever failed.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use actors::tenant::error::{Conflict, FieldError, TenantError};
use actors::tenant::scim::Fault;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::http::scim::error::SCIM_TYPE;
use crate::limits::RETRY_AFTER_S;

/// The media type of every 4xx and 5xx answer.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One kind of problem. Its code is API for ever.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Kebab-case; the last part of the `type` member.
    pub code: &'static str,
    /// The status it is answered with.
    pub status: StatusCode,
    /// The `title` member: the same for every problem of the kind.
    pub title: &'static str,
    /// What to do about it.
    pub docs: &'static str,
}

macro_rules! kinds {
    ($($name:ident: $code:literal, $status:ident, $title:literal, $docs:literal;)*) => {
        impl Kind {
            $(
                #[doc = $title]
                pub const $name: &'static Kind =
                    &Kind { code: $code, status: StatusCode::$status, title: $title, docs: $docs };
            )*
        }
        /// Every kind of problem, by status.
        pub const KINDS: &[&Kind] = &[$(Kind::$name),*];
    };
}

kinds! {
    MALFORMED: "malformed-body", BAD_REQUEST, "The body is not well-formed", "The body is not JSON, or nests too deeply. `detail` says where it broke.";
    BAD_IDEMPOTENCY_KEY: "bad-idempotency-key", BAD_REQUEST, "The idempotency key is not usable", "Send one `Idempotency-Key` of 1 to 255 visible ASCII characters, best a random UUID in quotes.";
    BAD_REQUEST: "bad-request", BAD_REQUEST, "The request is not well-formed", "A header that must come once came twice, or the request is not what HTTP allows. `detail` says which.";
    SCIM_INVALID: "scim-invalid", BAD_REQUEST, "The SCIM request is not valid", "`scimType` says in which way (RFC 7644 §3.12) and `detail` what is wrong.";
    INVALID_LINK: "invalid-link", BAD_REQUEST, "The link is not valid", "It was used, replaced by a newer one, changed, or is too old. Ask for a new one.";
    UNAUTHENTICATED: "unauthenticated", UNAUTHORIZED, "A credential is needed", "Send exactly one `Authorization: Bearer …` header with an access token from `/v1/auth/sign-in` or an API key.";
    INVALID_TOKEN: "invalid-token", UNAUTHORIZED, "The credential is not valid", "The token or API key is malformed, expired or revoked, or its holder's rights changed. Refresh the token or sign in again; make another key.";
    BAD_CREDENTIALS: "bad-credentials", UNAUTHORIZED, "The credentials are wrong", "Tenant, e-mail address, password, code or token do not match, or one of them was used before. Which one is not said.";
    WEBHOOK_SIGNATURE: "webhook-signature", UNAUTHORIZED, "The signature is wrong", "No active secret of the integration made this signature over these bytes within the allowed time.";
    TRIAL_ENDED: "trial-ended", PAYMENT_REQUIRED, "The trial has ended", "Reading goes on working. Writing needs a plan.";
    PLAN_QUOTA: "plan-quota", PAYMENT_REQUIRED, "The plan's quota is used up", "`quota` names what is used up and `limit` how much the plan gives. Remove something or change the plan.";
    FORBIDDEN: "forbidden", FORBIDDEN, "Not allowed", "The credential is good, the right is missing. `action` names it; `/v1/meta/capabilities` says which roles have it and whether an API key can.";
    NO_TENANT: "no-tenant", FORBIDDEN, "The token names no tenant", "Every request acts within the one tenant that its token names.";
    CSRF: "csrf", FORBIDDEN, "The request does not say that it is meant", "A browser's cookie alone changes nothing. Send `X-Bulkhead-CSRF: 1` along, or an access token instead of the cookie.";
    MFA_ENROLMENT_REQUIRED: "mfa-enrolment-required", FORBIDDEN, "A second factor has to be enrolled first", "Everybody here needs one. This session can enrol it, at `/v1/me/mfa/totp`, and sign out.";
    SIGN_IN_AGAIN: "sign-in-again", FORBIDDEN, "Sign in again first", "You have no password to show that it is you. Sign in again where you do, and ask within ten minutes.";
    FOUR_EYES: "four-eyes", FORBIDDEN, "Someone else has to decide", "Nobody approves or rejects a submission that they made, changed or handed in.";
    REASON_NEEDED: "reason-needed", FORBIDDEN, "A reason is needed", "This form is restricted. An owner may read it without a grant by stating why in `X-Break-Glass-Reason`; the reason goes into the audit log.";
    TENANT_SUSPENDED: "tenant-suspended", FORBIDDEN, "The tenant is suspended", "The platform suspended this tenant. Its data is kept.";
    SIGN_UP_DISABLED: "sign-up-disabled", FORBIDDEN, "Sign-up is switched off", "This node takes no new tenants by themselves. Ask whoever runs it.";
    SIGN_IN_DECLINED: "sign-in-declined", FORBIDDEN, "The identity provider did not sign you in", "You declined, or the provider refused. `provider_error` says which; begin again.";
    IDENTITY_NOT_ADMITTED: "identity-not-admitted", FORBIDDEN, "This identity may not come in", "The provider vouches for it, the tenant does not let it in; `reason` says why. Ask an administrator of the tenant for an invitation.";
    NOT_FOUND: "not-found", NOT_FOUND, "No such resource", "It does not exist, or it is not yours to know about: the answer is the same.";
    METHOD_NOT_ALLOWED: "method-not-allowed", METHOD_NOT_ALLOWED, "The method is not allowed here", "`Allow` names the methods that are.";
    TOO_SLOW: "request-timeout", REQUEST_TIMEOUT, "The body came too slowly", "Send the whole body within 30 seconds.";
    CONFLICT: "conflict", CONFLICT, "The current state does not allow it", "`detail` says why.";
    SLUG_TAKEN: "slug-taken", CONFLICT, "The short name is taken", "Choose another short name for the tenant.";
    EMAIL_TAKEN: "email-taken", CONFLICT, "The e-mail address is taken", "Somebody in this tenant already has that address.";
    ALREADY_INVITED: "already-invited", CONFLICT, "The address is invited already", "Send the invitation again, or withdraw it first: `/v1/invites`.";
    TOO_MANY_INVITES: "too-many-invites", CONFLICT, "Too many invitations", "As many invitations as are kept at once wait to be accepted. Withdraw some first.";
    TEAM_NAME_TAKEN: "team-name-taken", CONFLICT, "The team name is taken", "Choose another name for the team.";
    LAST_OWNER: "last-owner", CONFLICT, "The last owner has to stay", "A tenant always has an owner. Make somebody else one first.";
    LAST_FORM_OWNER: "last-form-owner", CONFLICT, "The last OWNER grant has to stay", "A restricted form always has an OWNER grant. Give one to somebody else first, or lift the restriction with an empty list.";
    FORM_ARCHIVED: "form-archived", CONFLICT, "The form is archived", "An archived form can be read and not changed or submitted to.";
    ALREADY_DECIDED: "already-decided", CONFLICT, "The submission is already decided", "It was approved or rejected before.";
    STILL_DRAFT: "still-draft", CONFLICT, "The submission is a draft", "Submit it first.";
    TOO_MANY_SECRETS: "too-many-secrets", CONFLICT, "Too many active secrets", "Remove an old secret of the integration first.";
    INTEGRATION_DISABLED: "integration-disabled", CONFLICT, "The integration is switched off", "Switch it on first.";
    TOO_MANY_API_KEYS: "too-many-api-keys", CONFLICT, "Too many API keys", "As many API keys as a tenant may have are there. Revoke one that nobody uses.";
    TOO_MANY_OWN_API_KEYS: "too-many-own-api-keys", CONFLICT, "Too many API keys of your own", "A person has up to 50 API keys that have not ended. Revoke one that is not used any more.";
    TOO_MANY_SUPPORT_SESSIONS: "too-many-support-sessions", CONFLICT, "Too many support sessions", "As many support sessions as a tenant keeps at once wait or are open. End some first.";
    SUPPORT_NOT_OPEN: "support-not-open", CONFLICT, "The support session is not open", "It waits to be approved, was refused or ended, or has run out. Read how far it is; ask for a new one.";
    SUPPORT_DECIDED: "support-decided", CONFLICT, "The support session is not waiting", "It was approved or refused before, was ended, or has run out. An open one can be ended.";
    PROVIDER_NAME_TAKEN: "provider-name-taken", CONFLICT, "The provider's name is taken", "Choose another name for the identity provider.";
    TOO_MANY_PROVIDERS: "too-many-providers", CONFLICT, "Too many identity providers", "As many identity providers as a tenant may have are there. Remove one first.";
    IDENTITY_NOT_LINKED: "identity-not-linked", CONFLICT, "Somebody here has that e-mail address", "An address alone takes over no account. Sign in as before, then link the identity at `/v1/me/identities/{provider}`.";
    IDENTITY_TAKEN: "identity-taken", CONFLICT, "The identity belongs to somebody else", "Somebody else in this tenant signs in with it.";
    TOO_MANY_IDENTITIES: "too-many-identities", CONFLICT, "Too many identities", "As many identities as a person may have are linked. Remove one first.";
    LAST_WAY_IN: "last-way-in", CONFLICT, "It is the last way to sign in", "Set a password first, by asking for a new one at `/v1/auth/password/forgot`, or link another identity.";
    RESTORE_RUNNING: "restore-running", CONFLICT, "A restore is running", "The tenant is being restored already. Wait until that is done.";
    TOO_MANY_EXPORTS: "too-many-exports", CONFLICT, "Too many exports", "As many exports as are kept at once are there. Wait until the oldest one expires.";
    EXPORT_NOT_READY: "export-not-ready", CONFLICT, "The export is not ready", "It is being written, or could not be. Read how far it is.";
    MFA_REQUIRED: "mfa-required", CONFLICT, "A second factor is required here", "The last one can be replaced, and not removed.";
    MFA_NOT_BEGUN: "mfa-not-begun", CONFLICT, "No second factor is being enrolled", "Begin with `POST /v1/me/mfa/totp` and confirm within a quarter of an hour, or with `POST /v1/me/passkeys/options` and end within five minutes.";
    TOO_MANY_PASSKEYS: "too-many-passkeys", CONFLICT, "There are as many passkeys as a person may have", "A person has up to 10 passkeys. Remove one that is not used any more.";
    VERSION_MISMATCH: "version-mismatch", PRECONDITION_FAILED, "The resource has changed", "`If-Match` names another version than the current one, or is missing where one has to be named. Read it again, then repeat the change.";
    TOO_LARGE: "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large", "`limit` says how many bytes are taken.";
    URI_TOO_LONG: "uri-too-long", URI_TOO_LONG, "The query string is too long", "`limit` says how many bytes are taken.";
    UNSUPPORTED_MEDIA: "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The media type is not supported", "Send `Content-Type: application/json`, in UTF-8, without a content encoding.";
    INVALID: "invalid", UNPROCESSABLE_ENTITY, "The input is not valid", "`errors` lists each fault with a JSON pointer into the body (RFC 6901), or `query/NAME`.";
    IDEMPOTENCY_KEY_REUSED: "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The idempotency key was used before", "The key came with another body before. Use a new key for a new request.";
    TENANT_SEALED: "tenant-sealed", LOCKED, "The tenant is sealed", "The tenant's key was pulled, or the tenant is being erased. Nothing can be read or written.";
    RATE_LIMITED: "quota-exceeded", TOO_MANY_REQUESTS, "Too many requests", "Your budget of requests is used up. `Retry-After` says when to come back, `violated-policies` which budget it was.";
    TENANT_BUSY: "tenant-busy", TOO_MANY_REQUESTS, "The tenant is busy", "More requests of this tenant are under way than it takes. Come back after `Retry-After` seconds. Nothing was done.";
    INTERNAL: "internal", INTERNAL_SERVER_ERROR, "Something failed", "It is not the request's fault. Report it with the `X-Request-Id` of the answer.";
    OVERLOADED: "overloaded", SERVICE_UNAVAILABLE, "The node is overloaded", "Come back after `Retry-After` seconds. Nothing was done.";
    PROVIDER_UNAVAILABLE: "identity-provider-unavailable", SERVICE_UNAVAILABLE, "The identity provider cannot be reached", "It does not answer, or what it answers is of no use. Come back after `Retry-After` seconds. Nothing was done.";
    TENANT_WAKING: "tenant-waking", SERVICE_UNAVAILABLE, "The tenant is waking", "Come back after `Retry-After` seconds. Nothing was done.";
    TENANT_RESTARTING: "tenant-restarting", SERVICE_UNAVAILABLE, "The tenant is restarting", "Come back after `Retry-After` seconds. Nothing was done.";
    TENANT_FAULTED: "tenant-faulted", SERVICE_UNAVAILABLE, "The tenant is out of service", "A fault of this tenant alone stops it for a while. The operator sees it. Nothing was done.";
    HISTORY_UNAVAILABLE: "history-unavailable", SERVICE_UNAVAILABLE, "Older history cannot be read now", "What was asked for rests in the archive, which does not answer or gave something damaged. The operator sees it. Newer data is served. Nothing was done.";
    READ_ONLY: "writes-stopped", SERVICE_UNAVAILABLE, "The node takes no writes", "The node does not trust its log any more and has to be looked at. Nothing was done.";
    STORAGE_FULL: "storage-full", SERVICE_UNAVAILABLE, "No space is left", "The node's disk is full. Nothing was done.";
    OUTCOME_UNKNOWN: "outcome-unknown", GATEWAY_TIMEOUT, "The outcome is unknown", "No answer came in time. Repeat the request with the same `Idempotency-Key`: what was done is not done twice.";
}

impl Kind {
    /// The `type` member.
    pub fn uri(&self) -> String {
        format!("/problems/{}", self.code)
    }
    /// The kind of that code.
    pub fn by_code(code: &str) -> Option<&'static Kind> {
        KINDS.iter().copied().find(|kind| kind.code == code)
    }
    /// Whether the answer must say when to come back.
    fn asks_for_patience(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }
}

/// An answer that says what went wrong. Boxed: it travels in every `Result` of the edge.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: &'static Kind,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    retry_after_s: Option<u32>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<dyn std::error::Error>>,
}

impl Problem {
    /// A problem of that kind, with nothing more to say.
    pub fn new(kind: &'static Kind) -> Self {
        Self(Box::new(Parts {
            kind,
            detail: None,
            errors: Vec::new(),
            members: Map::new(),
            retry_after_s: None,
            headers: Vec::new(),
            cause: None,
        }))
    }
    /// The one answer for what is absent and for what is not the asker's to know about.
    pub fn not_found() -> Self {
        Self::new(Kind::NOT_FOUND)
    }
    /// One wrong field.
    pub fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        let error = FieldError { pointer: pointer.into(), message: message.into() };
        Self::new(Kind::INVALID).errors(vec![error])
    }
    /// A failure of ours. The cause is logged, never sent.
    pub fn internal(cause: impl std::error::Error + 'static) -> Self {
        Self::new(Kind::INTERNAL).cause(cause)
    }
    /// Says more, to people. Never for a 404 or a 5xx, whose text must not vary.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(self.0.kind != Kind::NOT_FOUND && !self.0.kind.status.is_server_error());
        self.0.detail = Some(detail.into());
        self
    }
    /// Says which fields are wrong.
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }
    /// Adds an extension member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }
    /// Says when to come back, in seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds.max(1));
        self
    }
    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }
    /// Keeps what caused it, for the log.
    pub fn cause(mut self, cause: impl std::error::Error + 'static) -> Self {
        self.0.cause = Some(Box::new(cause));
        self
    }
    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        self.0.kind
    }
    /// What else it says, to people.
    pub fn detail_text(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }
    /// An extension member.
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.members.get(name)
    }
    /// Which fields are wrong.
    pub fn field_errors(&self) -> &[FieldError] {
        &self.0.errors
    }
    /// What caused it, with everything that caused that, in one line.
    pub fn cause_text(&self) -> Option<String> {
        let mut source: &dyn std::error::Error = self.0.cause.as_deref()?;
        let mut text = source.to_string();
        while let Some(next) = source.source() {
            // A failed write to a `String` cannot happen.
            let _ = write!(text, ": {next}");
            source = next;
        }
        Some(text)
    }

    fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Wire<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
            #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(flatten)]
            members: &'a Map<String, Value>,
        }
        let parts = &*self.0;
        let wire = Wire {
            r#type: parts.kind.uri(),
            title: parts.kind.title,
            status: parts.kind.status.as_u16(),
            detail: parts.detail.as_deref(),
            errors: &parts.errors,
            members: &parts.members,
        };
        serde_json::to_vec(&wire).expect("texts, numbers and JSON values always serialise")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.kind.status.as_u16(), self.0.kind.code)
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref()
    }
}

impl From<&'static Kind> for Problem {
    fn from(kind: &'static Kind) -> Self {
        Self::new(kind)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.kind.status
    }

    // Overridden because the default sends `Display` to the client.
    fn error_response(&self) -> HttpResponse {
        let parts = &*self.0;
        let mut response = HttpResponse::build(parts.kind.status);
        response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)));
        if parts.kind.status == StatusCode::UNAUTHORIZED {
            let challenge = if parts.kind == Kind::INVALID_TOKEN {
                "Bearer error=\"invalid_token\""
            } else {
                "Bearer"
            };
            response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        }
        if parts.kind.asks_for_patience() {
            let seconds = parts.retry_after_s.unwrap_or(RETRY_AFTER_S);
            response.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        for (name, value) in &parts.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        response.body(self.body())
    }
}

impl From<Conflict> for &'static Kind {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::SlugTaken => Kind::SLUG_TAKEN,
            Conflict::EmailTaken => Kind::EMAIL_TAKEN,
            Conflict::AlreadyInvited => Kind::ALREADY_INVITED,
            Conflict::TooManyInvites => Kind::TOO_MANY_INVITES,
            Conflict::TeamNameTaken => Kind::TEAM_NAME_TAKEN,
            Conflict::LastOwner => Kind::LAST_OWNER,
            Conflict::LastFormOwner => Kind::LAST_FORM_OWNER,
            Conflict::FormArchived => Kind::FORM_ARCHIVED,
            Conflict::AlreadyDecided => Kind::ALREADY_DECIDED,
            Conflict::StillDraft => Kind::STILL_DRAFT,
            Conflict::TooManySecrets => Kind::TOO_MANY_SECRETS,
            Conflict::IntegrationDisabled => Kind::INTEGRATION_DISABLED,
            Conflict::TooManyApiKeys => Kind::TOO_MANY_API_KEYS,
            Conflict::TooManyOwnApiKeys => Kind::TOO_MANY_OWN_API_KEYS,
            Conflict::TooManySupportSessions => Kind::TOO_MANY_SUPPORT_SESSIONS,
            Conflict::SupportNotOpen => Kind::SUPPORT_NOT_OPEN,
            Conflict::SupportDecided => Kind::SUPPORT_DECIDED,
            Conflict::RestoreRunning => Kind::RESTORE_RUNNING,
            Conflict::TooManyExports => Kind::TOO_MANY_EXPORTS,
            Conflict::ExportNotReady => Kind::EXPORT_NOT_READY,
            Conflict::ProviderNameTaken => Kind::PROVIDER_NAME_TAKEN,
            Conflict::TooManyProviders => Kind::TOO_MANY_PROVIDERS,
            Conflict::IdentityTaken => Kind::IDENTITY_TAKEN,
            Conflict::TooManyIdentities => Kind::TOO_MANY_IDENTITIES,
            Conflict::LastWayIn => Kind::LAST_WAY_IN,
            Conflict::FactorRequired => Kind::MFA_REQUIRED,
            Conflict::EnrolmentNotBegun => Kind::MFA_NOT_BEGUN,
            Conflict::TooManyPasskeys => Kind::TOO_MANY_PASSKEYS,
        }
    }
}

impl From<TenantError> for Problem {
    // Total on purpose: a new variant does not compile until someone picks its answer.
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::NotFound => Self::not_found(),
            TenantError::StaleCredential => Self::new(Kind::INVALID_TOKEN),
            TenantError::BadCredentials => Self::new(Kind::BAD_CREDENTIALS),
            TenantError::BadLink => Self::new(Kind::INVALID_LINK).detail(
                "It was used, replaced by a newer one, changed, or is too old. Ask for a new one.",
            ),
            TenantError::BadSignature => Self::new(Kind::WEBHOOK_SIGNATURE),
            TenantError::Forbidden { action } => Self::new(Kind::FORBIDDEN).with("action", action),
            TenantError::SignInAgain => Self::new(Kind::SIGN_IN_AGAIN),
            TenantError::EnrolmentRequired => Self::new(Kind::MFA_ENROLMENT_REQUIRED),
            TenantError::FourEyes => Self::new(Kind::FOUR_EYES),
            TenantError::ReasonNeeded => Self::new(Kind::REASON_NEEDED),
            TenantError::QuotaExceeded { quota, limit } => Self::new(Kind::PLAN_QUOTA)
                .with("quota", quota.name())
                .with("limit", limit)
                .with("violated-policies", vec![quota.name()]),
            error @ TenantError::DayBudget { what, retry_after_s, .. } => {
                Self::new(Kind::RATE_LIMITED)
                    .retry_after(retry_after_s)
                    .detail(format!("{error}. Nothing was done."))
                    .with("violated-policies", vec![what])
            }
            TenantError::TrialEnded => Self::new(Kind::TRIAL_ENDED),
            TenantError::Conflict(conflict) => Self::new(conflict.into()),
            TenantError::VersionMismatch => Self::new(Kind::VERSION_MISMATCH),
            TenantError::VersionNeeded => Self::new(Kind::VERSION_MISMATCH).detail(
                "The submission was changed after it was handed in. Read it again and send its \
                 `ETag` as `If-Match`: the decision is about that version.",
            ),
            TenantError::Invalid(errors) => Self::new(Kind::INVALID).errors(errors),
            TenantError::Scim(fault) => fault.into(),
            TenantError::IdempotencyKeyReused => Self::new(Kind::IDEMPOTENCY_KEY_REUSED),
            TenantError::Busy => Self::new(Kind::TENANT_BUSY),
            TenantError::Waking => Self::new(Kind::TENANT_WAKING),
            TenantError::Restarting => Self::new(Kind::TENANT_RESTARTING),
            TenantError::Faulted => Self::new(Kind::TENANT_FAULTED).retry_after(10),
            TenantError::Suspended => Self::new(Kind::TENANT_SUSPENDED),
            TenantError::Sealed => Self::new(Kind::TENANT_SEALED),
            TenantError::TimedOut => Self::new(Kind::OUTCOME_UNKNOWN),
            TenantError::LogStopped => Self::new(Kind::READ_ONLY).retry_after(30),
            TenantError::DiskFull => Self::new(Kind::STORAGE_FULL).retry_after(30),
            error if error.is_sealing() => Self::new(Kind::TENANT_SEALED),
            TenantError::Store(error) if error.is_of_the_archive() => {
                let error = actors::tenant::error::chain(&error);
                tracing::error!(error, "older history cannot be read");
                Self::new(Kind::HISTORY_UNAVAILABLE).retry_after(30)
            }
            cause @ (TenantError::Panicked | TenantError::Store(_) | TenantError::Value(_)) => {
                Self::internal(cause)
            }
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let detail = fault.to_string();
        Self::new(Kind::SCIM_INVALID).with(SCIM_TYPE, fault.scim_type()).detail(detail)
    }
}

/// The text of `docs/problems.md`: the table, for people.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Problems\n\nEvery 4xx and 5xx answer is `application/problem+json` (RFC 9457). Its `type` is \
         `/problems/CODE`,\nserved by the node itself. Who opens an address in a browser, which prefers \
         `text/html`, sees a page with the same status\nand headers instead. This page is made from the table in \
         `src/http/problem.rs`.\n\n| code | status | title | what to do |\n| --- | --- | --- | --- |\n",
    );
    for kind in KINDS {
        let (code, status) = (kind.code, kind.status.as_u16());
        // A failed write to a `String` cannot happen.
        let _ = writeln!(text, "| `{code}` | {status} | {} | {} |", kind.title, kind.docs);
    }
    text
}

#[cfg(test)]
mod tests;
