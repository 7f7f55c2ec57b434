//! The inbox's books: totals, and which integrations refuse the most.
//!
//! Both are bounded whatever senders do. The table keeps heavy hitters by the Space-Saving rule
//! (Metwally et al., 2005): a newcomer takes the place and the count of the quietest, so an
//! integration that is really loud is never missed, and a count may be too high but not too low.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use storage::id::{IntegrationId, TenantId};

use crate::env::rfc3339;
use crate::webhook::inbox::{DeliveryEnded, Outcome};
use crate::webhook::scheme::{Refused, Source};

/// Integrations in the table.
pub const NOISY_KEPT_MAX: usize = 256;
/// An integration that refused nothing for so long leaves the table.
pub const NOISY_QUIET_MS: u64 = 60 * 60 * 1_000;
/// Integrations in a report.
const NOISY_SHOWN_MAX: usize = 20;

/// How many deliveries of one source ended in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Total {
    /// With which scheme; absent when the integration was not found.
    pub source: Option<Source>,
    /// How they ended.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
}

/// An integration that refuses deliveries: a wrong secret, or an attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Noisy {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub integration: IntegrationId,
    /// Deliveries refused, at most.
    pub refused: u64,
    /// Why the last one was.
    pub last_reason: Refused,
    /// When, RFC 3339.
    pub last_at: String,
}

#[derive(Default)]
pub(super) struct Ledger {
    totals: BTreeMap<(Option<Source>, &'static str), u64>,
    refusers: HashMap<(TenantId, IntegrationId), Refusals>,
}

struct Refusals {
    count: u64,
    last_reason: Refused,
    last_ms: u64,
}

impl Ledger {
    pub(super) fn count(&mut self, ended: DeliveryEnded, now_ms: u64) {
        *self.totals.entry((ended.source, ended.outcome.name())).or_default() += 1;
        let (Some(integration), Outcome::Refused(reason)) = (ended.integration, ended.outcome)
        else {
            return;
        };
        let before = match self.refusers.get(&integration) {
            Some(refusals) => refusals.count,
            None if self.refusers.len() < NOISY_KEPT_MAX => 0,
            None => self.replace_quietest(),
        };
        let refusals = Refusals { count: before + 1, last_reason: reason, last_ms: now_ms };
        self.refusers.insert(integration, refusals);
    }

    /// Makes room; gives the count that the newcomer inherits.
    fn replace_quietest(&mut self) -> u64 {
        let quietest = self.refusers.iter().min_by_key(|(_, refusals)| refusals.count);
        let quietest = quietest.map(|(&integration, _)| integration);
        quietest
            .and_then(|integration| self.refusers.remove(&integration))
            .map_or(0, |one| one.count)
    }

    pub(super) fn evict(&mut self, now_ms: u64) {
        self.refusers
            .retain(|_, refusals| now_ms.saturating_sub(refusals.last_ms) < NOISY_QUIET_MS);
        self.refusers.shrink_to_fit();
    }

    pub(super) fn totals(&self) -> Vec<Total> {
        let total = |(&(source, outcome), &count)| Total { source, outcome, count };
        self.totals.iter().map(total).collect()
    }

    pub(super) fn noisiest(&self) -> Vec<Noisy> {
        let mut all: Vec<_> = self.refusers.iter().collect();
        all.sort_by_key(|&(&integration, refusals)| {
            (std::cmp::Reverse(refusals.count), integration)
        });
        all.truncate(NOISY_SHOWN_MAX);
        let noisy = |(&(tenant, integration), refusals): (_, &Refusals)| Noisy {
            tenant,
            integration,
            refused: refusals.count,
            last_reason: refusals.last_reason,
            last_at: rfc3339(refusals.last_ms),
        };
        all.into_iter().map(noisy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::id::Id;

    fn refuse(ledger: &mut Ledger, number: u16, now_ms: u64) {
        let mut random = [0; 10];
        random[..2].copy_from_slice(&number.to_be_bytes());
        let ended = DeliveryEnded {
            integration: Some((TenantId::PLATFORM, IntegrationId::new(1, random))),
            source: Some(Source::Stripe),
            outcome: Outcome::Refused(Refused::Stale),
        };
        ledger.count(ended, now_ms);
    }

    #[test]
    fn the_loudest_is_kept_however_many_others_pass_by() {
        let mut ledger = Ledger::default();
        for _ in 0..100 {
            refuse(&mut ledger, 0, 1);
        }
        for number in 1..5_000 {
            refuse(&mut ledger, number, 2);
        }
        assert_eq!(ledger.refusers.len(), NOISY_KEPT_MAX);
        assert_eq!(ledger.noisiest()[0].refused, 100);
        assert_eq!(ledger.totals()[0].count, 5_099);
    }

    #[test]
    fn the_quiet_leave_and_the_totals_stay() {
        let mut ledger = Ledger::default();
        refuse(&mut ledger, 1, 0);
        refuse(&mut ledger, 2, NOISY_QUIET_MS);
        ledger.evict(NOISY_QUIET_MS + 1);
        assert_eq!(ledger.noisiest().len(), 1);
        assert_eq!(ledger.totals()[0].count, 2);
    }
}
