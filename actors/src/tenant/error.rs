//! How asking a tenant can fail.

use crate::quota::Quota;

/// One thing wrong with an input, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the request body, or `query/NAME`.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A conflict with the current state: each with its own text for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The tenant's short name is taken.
    SlugTaken,
    /// Somebody in this tenant has that e-mail address.
    EmailTaken,
    /// Somebody with that e-mail address is invited already.
    AlreadyInvited,
    /// As many invitations as are kept at once are there.
    TooManyInvites,
    /// A team of that name exists.
    TeamNameTaken,
    /// The last owner cannot go or step down.
    LastOwner,
    /// The last OWNER grant of a restricted form cannot go.
    LastFormOwner,
    /// The form is archived.
    FormArchived,
    /// The submission was already approved or rejected.
    AlreadyDecided,
    /// The submission is a draft; submit it first.
    StillDraft,
    /// The integration takes no more secrets at once.
    TooManySecrets,
    /// The integration is switched off.
    IntegrationDisabled,
    /// The tenant is being restored already.
    RestoreRunning,
    /// As many exports as are kept at once are there.
    TooManyExports,
    /// As many API keys as a tenant may have are there.
    TooManyApiKeys,
    /// As many API keys as a person may have are there.
    TooManyOwnApiKeys,
    /// As many support sessions as a tenant keeps wait or are open.
    TooManySupportSessions,
    /// The support session waits, was refused, was ended or has run out.
    SupportNotOpen,
    /// The support session was decided on before, or has run out.
    SupportDecided,
    /// The export is not written yet, or could not be.
    ExportNotReady,
    /// Everybody here needs a second factor: it can be replaced, and not removed.
    FactorRequired,
    /// An identity provider of that name exists.
    ProviderNameTaken,
    /// As many identity providers as a tenant may have are there.
    TooManyProviders,
    /// The identity belongs to somebody else here.
    IdentityTaken,
    /// As many identities as a person may have are there.
    TooManyIdentities,
    /// Without it the person could not sign in any more.
    LastWayIn,
    /// No second factor is being enrolled, or it took too long.
    EnrolmentNotBegun,
    /// As many passkeys as a person may have are there.
    TooManyPasskeys,
}

/// How asking a tenant can fail. The edge gives each its answer in one total `match`.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// No such thing here. Also the answer for what belongs to others.
    #[error("not found")]
    NotFound,
    /// The session ended, the account is gone, or its rights changed since the token was made.
    #[error("the credential is no longer valid")]
    StaleCredential,
    /// Wrong e-mail, password or token; deliberately vague.
    #[error("the credentials are wrong")]
    BadCredentials,
    /// Somebody without a password signed in too long ago for what they ask.
    #[error("the sign-in is too long ago")]
    SignInAgain,
    /// The mailed link was used, superseded, changed or is too old; deliberately vague.
    #[error("the link is not valid")]
    BadLink,
    /// The webhook's signature does not match any active secret, or is too old.
    #[error("the signature is wrong")]
    BadSignature,
    /// Right missing.
    #[error("not allowed: {action}")]
    Forbidden {
        /// The capability or rule that says no.
        action: &'static str,
    },
    /// Everybody here needs a second factor, and the session has not seen one.
    #[error("a second factor has to be enrolled first")]
    EnrolmentRequired,
    /// Nobody decides on a submission they made, changed or handed in.
    #[error("one's own submission")]
    FourEyes,
    /// A restricted form may be read by an owner without a grant only with a stated reason.
    #[error("a reason is needed to break the glass")]
    ReasonNeeded,
    /// The plan's quota is used up.
    #[error("the quota {quota} of {limit} is used up")]
    QuotaExceeded {
        /// Which quota.
        quota: Quota,
        /// The plan's limit.
        limit: u64,
    },
    /// The trial ended; reads go on.
    #[error("the trial ended")]
    TrialEnded,
    /// The state does not allow it.
    #[error("conflict: {0:?}")]
    Conflict(Conflict),
    /// `If-Match` names another version.
    #[error("the version is not the current one")]
    VersionMismatch,
    /// The submission was changed after it was handed in: a decision must say by `If-Match` which
    /// version it is about.
    #[error("the version decided on is not named")]
    VersionNeeded,
    /// The input is wrong.
    #[error("invalid input")]
    Invalid(Vec<FieldError>),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// More requests under way than the tenant takes.
    #[error("busy")]
    Busy,
    /// As many as one tenant may ask for in a day were asked for.
    #[error("{per_day} {what} in 24 hours are allowed, and as many were asked for")]
    DayBudget {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        per_day: usize,
        /// When the next one is, in seconds.
        retry_after_s: u32,
    },
    /// The tenant is waking up.
    #[error("waking")]
    Waking,
    /// The tenant is going to sleep or restarting; try again.
    #[error("restarting")]
    Restarting,
    /// The tenant's own fault stops it for a while: too many panics, or damaged data.
    #[error("faulted")]
    Faulted,
    /// Suspended by the platform.
    #[error("suspended")]
    Suspended,
    /// Sealed: its key was pulled or destroyed.
    #[error("sealed")]
    Sealed,
    /// This request made the tenant panic. Nothing of it was kept.
    #[error("panicked")]
    Panicked,
    /// No answer in time, or the append's outcome is unknown.
    #[error("the outcome is unknown")]
    TimedOut,
    /// The log takes no more writes.
    #[error("the log takes no more writes")]
    LogStopped,
    /// No space is left on the disk. Nothing was changed.
    #[error("no space is left")]
    DiskFull,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::store::StoreError),
    /// What SCIM does not allow.
    #[error(transparent)]
    Scim(#[from] crate::tenant::scim::Fault),
    /// A stored row does not decode.
    #[error(transparent)]
    Value(#[from] storage::value::ValueError),
}

impl TenantError {
    /// One wrong field.
    pub fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), message: message.into() }])
    }

    /// Whether it says that the tenant's key is withheld or gone.
    pub fn is_sealing(&self) -> bool {
        use storage::keystore::KeyError;
        use storage::store::StoreError;
        let Self::Store(StoreError::Keys(error)) = self else {
            return matches!(self, Self::Sealed);
        };
        matches!(error, KeyError::Withheld { .. } | KeyError::Missing { .. })
    }

    /// Whether being told this, when asking for something privileged, belongs in the audit log.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Forbidden { .. }
                | Self::EnrolmentRequired
                | Self::FourEyes
                | Self::ReasonNeeded
                | Self::QuotaExceeded { .. }
                | Self::TrialEnded
                | Self::Conflict(_)
                | Self::VersionMismatch
                | Self::VersionNeeded
        )
    }

    /// The short name of the refusal for the audit log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "forbidden",
            Self::EnrolmentRequired => "mfa-enrolment-required",
            Self::FourEyes => "four-eyes",
            Self::ReasonNeeded => "reason-needed",
            Self::QuotaExceeded { .. } => "quota-exceeded",
            Self::TrialEnded => "trial-ended",
            Self::Conflict(_) => "conflict",
            Self::VersionMismatch | Self::VersionNeeded => "version-mismatch",
            _ => "failed",
        }
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        // Transparent errors repeat their source's text.
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    text
}
