//! Who is in the next group: one lane per tenant, taken in turns.
//!
//! A group holds at most so many bytes, and of one tenant at most so many, so a tenant with a long
//! lane waits behind itself and not before the others. Records of one tenant keep their order.
//!
//! It looks at no record's content.

use std::collections::HashMap;
use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::id::TenantId;
use crate::log::Appended;
use crate::log::segment::frame;
use crate::record::Record;

/// Lanes kept for reuse once they are empty.
const SPARE_LANES_MAX: usize = 1_024;

/// A record that waits for its answer.
pub(super) struct Waiting {
    /// The record.
    pub(super) record: Record,
    /// Where the answer goes.
    pub(super) answer: oneshot::Sender<Appended>,
}

impl Waiting {
    /// The bytes it will take in a segment.
    pub(super) fn frame_bytes(&self) -> usize {
        frame::frame_bytes(self.record.body.len())
    }

    /// Tells the caller what became of the record. A caller that went away is fine.
    pub(super) fn answer(self, appended: Appended) {
        let _ = self.answer.send(appended);
    }
}

/// The lanes. None of them is empty.
#[derive(Default)]
pub(super) struct Lanes {
    by_tenant: HashMap<TenantId, VecDeque<Waiting>>,
    turns: VecDeque<TenantId>,
    spare: Vec<VecDeque<Waiting>>,
}

impl Lanes {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Puts a record at the end of its tenant's lane.
    pub(super) fn push(&mut self, waiting: Waiting) {
        let tenant = waiting.record.header.tenant;
        let lane = self.by_tenant.entry(tenant).or_insert_with(|| {
            self.turns.push_back(tenant);
            self.spare.pop().unwrap_or_default()
        });
        lane.push_back(waiting);
    }

    /// Moves the next group to `group`: at most `bytes_max`, and `tenant_bytes_max` of one tenant,
    /// but at least one record. Returns its bytes.
    pub(super) fn take_group(
        &mut self,
        bytes_max: usize,
        tenant_bytes_max: usize,
        group: &mut Vec<Waiting>,
    ) -> usize {
        let mut bytes = 0;
        for _ in 0..self.turns.len() {
            let Some(tenant) = self.turns.pop_front() else { break };
            let Some(lane) = self.by_tenant.get_mut(&tenant) else { continue };
            let (mut tenant_bytes, mut is_full) = (0, false);
            while let Some(next) = lane.front().map(Waiting::frame_bytes) {
                is_full = bytes > 0 && bytes + next > bytes_max;
                if is_full || (tenant_bytes > 0 && tenant_bytes + next > tenant_bytes_max) {
                    break;
                }
                bytes += next;
                tenant_bytes += next;
                group.extend(lane.pop_front());
            }
            if !lane.is_empty() {
                if tenant_bytes == 0 {
                    self.turns.push_front(tenant); // it had no turn yet
                } else {
                    self.turns.push_back(tenant);
                }
            } else if let Some(lane) = self.by_tenant.remove(&tenant)
                && self.spare.len() < SPARE_LANES_MAX
            {
                self.spare.push(lane);
            }
            if is_full {
                break;
            }
        }
        bytes
    }

    /// Takes everybody out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting> {
        self.turns.clear();
        std::mem::take(&mut self.by_tenant).into_values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id as _;

    fn waiting(tenant: u8, lsn: u64, body: usize) -> Waiting {
        let tenant = TenantId::from_bytes([tenant; 16]);
        let record = Record::new(tenant, lsn, 1, 1, [0; 32], vec![0; body]);
        Waiting { record, answer: oneshot::channel().0 }
    }

    fn next_group(lanes: &mut Lanes, bytes_max: usize, tenant_max: usize) -> Vec<(u8, u64)> {
        let mut group = Vec::new();
        lanes.take_group(bytes_max, tenant_max, &mut group);
        let name = |header: &crate::record::Header| (header.tenant.as_bytes()[0], header.lsn);
        group.iter().map(|waiting| name(&waiting.record.header)).collect()
    }

    #[test]
    fn a_flooding_tenant_waits_behind_itself_only() {
        let mut lanes = Lanes::default();
        (1..=5).for_each(|lsn| lanes.push(waiting(1, lsn, 884))); // frames of 1,000 bytes
        lanes.push(waiting(2, 1, 884));
        lanes.push(waiting(3, 1, 884));
        assert_eq!(next_group(&mut lanes, 10_000, 2_000), [(1, 1), (1, 2), (2, 1), (3, 1)]);
        assert_eq!(next_group(&mut lanes, 10_000, 2_000), [(1, 3), (1, 4)]);
        assert_eq!(next_group(&mut lanes, 10_000, 2_000), [(1, 5)]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn who_found_the_group_full_is_first_in_the_next() {
        let mut lanes = Lanes::default();
        (1..=3).for_each(|tenant| lanes.push(waiting(tenant, 1, 884)));
        lanes.push(waiting(1, 2, 884));
        assert_eq!(next_group(&mut lanes, 2_000, 1_000), [(1, 1), (2, 1)]);
        assert_eq!(next_group(&mut lanes, 2_000, 1_000), [(3, 1), (1, 2)]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_record_larger_than_a_group_goes_alone() {
        let mut lanes = Lanes::default();
        lanes.push(waiting(1, 1, 10));
        lanes.push(waiting(2, 1, 90_000));
        lanes.push(waiting(3, 1, 10));
        assert_eq!(next_group(&mut lanes, 2_000, 1_000), [(1, 1)]);
        assert_eq!(next_group(&mut lanes, 2_000, 1_000), [(2, 1)]);
        assert_eq!(next_group(&mut lanes, 2_000, 1_000), [(3, 1)]);
    }
}
