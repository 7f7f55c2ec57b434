//! What a support session shows of a tenant, and the principal that speaks in one.
//!
//! It is a short list on purpose: reading what a tenant works with, and with the tenant's consent changing a
//! form or a submission. Nothing that lasts beyond the session (people, keys, integrations), nothing that carries
//! data away whole (exports, the past), and no form that has an access list.

use std::sync::Arc;

use storage::id::{SupportId, UserId};

use super::{
    Action as _, Capability, ReadAudit, ReadForms, ReadIntegrations, ReadMembers, ReadSubmissions,
    ReadTeams, ReadTenant, ReadUsage, Scopes, UpdateForms, UpdateSubmissions,
};

/// What every support session shows.
const SHOWN: [&Capability; 8] = [
    ReadTenant::ROW,
    ReadMembers::ROW,
    ReadTeams::ROW,
    ReadForms::ROW,
    ReadSubmissions::ROW,
    ReadAudit::ROW,
    ReadUsage::ROW,
    ReadIntegrations::ROW,
];
/// What one may ask for beside, which takes the tenant's consent.
const WITH_CONSENT: [&Capability; 2] = [UpdateForms::ROW, UpdateSubmissions::ROW];

impl Capability {
    /// Whether every support session has it.
    pub fn is_shown_to_support(&self) -> bool {
        SHOWN.iter().any(|row| row.name == self.name)
    }
    /// Whether a support session has it if the tenant consents.
    pub fn takes_consent(&self) -> bool {
        WITH_CONSENT.iter().any(|row| row.name == self.name)
    }
}

impl Scopes {
    /// What every support session shows.
    pub fn of_support() -> Self {
        Self::of(Capability::is_shown_to_support)
    }
    /// What one may ask for beside.
    pub fn with_consent() -> Self {
        Self::of(Capability::takes_consent)
    }
}

/// Somebody of the platform, in an open support session of a tenant.
///
/// At the edge it is what the tenant last said of the session. The tenant makes a new one for every message,
/// from what it has now: a session that was ended is over with the next message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportPrincipal {
    /// Which session.
    pub session: SupportId,
    /// Who it is, in the platform's own compartment.
    pub admin: UserId,
    /// Their address, as the tenant's audit log names them.
    pub email: Arc<str>,
    /// What it shows and may change.
    pub scopes: Scopes,
    /// Which of the session's tokens it is of: only the newest is good.
    pub token: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn support_reads_what_a_tenant_works_with_and_nothing_that_lasts_or_leaves() {
        for name in Scopes::of_support().names() {
            assert!(name.ends_with(":read"), "{name}");
        }
        let all = Scopes::of_support().with(Scopes::with_consent());
        assert!(all.is_within(Scopes::all()));
        for name in all.names() {
            for never in ["exports:", "history:", "restores:", "api-keys:", "me:", "platform-"] {
                assert!(!name.starts_with(never), "{name}");
            }
        }
        assert_eq!(Scopes::of_support() & Scopes::with_consent(), Scopes::NONE);
    }
}
