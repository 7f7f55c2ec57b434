//! The hash chain of one tenant's audit entries: adding to it and checking it.
//!
//! Pure: it reads no clock and no storage. It refuses to mend: a chain that does not hold is
//! reported with the first sequence number that is wrong, never repaired.

use serde::Serialize;

use super::entry::{Detail, Draft, Entry, Named};
use crate::call::Origin;
use crate::env::rfc3339;
use crate::tenant::state::AuditHead;

/// The largest whole number that every JSON reader keeps exactly (RFC 7493 §2.2). The canonical
/// form rounds beyond it, so a larger one would not be fully covered by the hash.
const EXACT_NUMBER_MAX: u64 = (1 << 53) - 1;

/// Makes the next entry of the chain that ends at `head`, and moves `head` behind it.
pub fn append(
    head: &mut AuditHead,
    at_ms: u64,
    actor: Named,
    origin: &Origin,
    draft: Draft,
) -> Entry {
    let Draft { action, target, outcome, mut detail } = draft;
    for value in detail.values_mut() {
        if let Detail::Number(number) = value
            && number.unsigned_abs() > EXACT_NUMBER_MAX
        {
            *value = Detail::Text(number.to_string());
        }
    }
    let mut entry = Entry {
        seq: head.seq + 1,
        at: rfc3339(at_ms),
        actor,
        action: action.to_owned(),
        target,
        ip: origin.ip.map(|ip| ip.to_string()),
        user_agent: origin.user_agent.as_deref().map(str::to_owned),
        request_id: origin.request_id.as_deref().map(str::to_owned),
        outcome,
        detail,
        prev: hex::encode(head.hash),
        hash: String::new(),
    };
    let hash = entry.compute_hash();
    entry.hash = hex::encode(hash);
    *head = AuditHead { seq: entry.seq, hash };
    entry
}

/// What is wrong at one place of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// Another sequence number stands where this one should: something was removed, put in, or
    /// changed places.
    OutOfPlace,
    /// The entry does not name the hash of the one before.
    Unlinked,
    /// The entry is not what its hash says.
    Edited,
    /// The chain ends before this entry, though it is known to have gone further.
    Missing,
    /// The chain holds another entry here than the one it is known to have held.
    Replaced,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OutOfPlace => "another entry stands here",
            Self::Unlinked => "the entry does not name the one before it",
            Self::Edited => "the entry was changed",
            Self::Missing => "the entry is missing",
            Self::Replaced => "the entry is not the one that was here",
        })
    }
}

/// The first place where a chain does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit chain is broken at entry {seq}: {what}")]
pub struct Break {
    /// The sequence number that should be there.
    pub seq: u64,
    /// What is wrong.
    pub what: Flaw,
}

/// Checks that `entries` go on from `prev` without gaps and are what their hashes say; returns
/// where they end.
pub fn verify_entries(prev: AuditHead, entries: &[Entry]) -> Result<AuditHead, Break> {
    let mut head = prev;
    for entry in entries {
        let seq = head.seq + 1;
        if entry.seq != seq {
            return Err(Break { seq, what: Flaw::OutOfPlace });
        }
        if entry.prev != hex::encode(head.hash) {
            return Err(Break { seq, what: Flaw::Unlinked });
        }
        let hash = entry.compute_hash();
        if entry.hash != hex::encode(hash) || !is_exact(entry) {
            return Err(Break { seq, what: Flaw::Edited });
        }
        head = AuditHead { seq, hash };
    }
    Ok(head)
}

/// Checks that a chain found to end at `found` ends where it is known to: a hash chain alone does
/// not show that its end was cut off.
pub fn verify_head(found: AuditHead, known: AuditHead) -> Result<(), Break> {
    if found.seq < known.seq {
        return Err(Break { seq: found.seq + 1, what: Flaw::Missing });
    }
    if found.seq > known.seq {
        return Err(Break { seq: known.seq + 1, what: Flaw::OutOfPlace });
    }
    if found.hash != known.hash {
        return Err(Break { seq: known.seq, what: Flaw::Replaced });
    }
    Ok(())
}

/// Whether the canonical form kept every number of the entry.
fn is_exact(entry: &Entry) -> bool {
    entry.detail.values().all(|value| match value {
        Detail::Number(number) => number.unsigned_abs() <= EXACT_NUMBER_MAX,
        Detail::Flag(_) | Detail::Text(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_assert_ne, proptest};

    use super::*;
    use storage::record::GENESIS;

    const NONE: AuditHead = AuditHead { seq: 0, hash: GENESIS };

    fn chain(count: u64) -> (Vec<Entry>, AuditHead) {
        let mut head = NONE;
        let origin = Origin { request_id: Some("r-1".into()), ..Origin::default() };
        let entries = (0..count)
            .map(|n| {
                let draft = Draft::success("form.create", Named::new("form", n)).with("n", n);
                append(&mut head, 1_000 + n, Named::new("user", "us_1"), &origin, draft)
            })
            .collect();
        (entries, head)
    }

    fn found(entries: &[Entry], known: AuditHead) -> Result<(), Break> {
        verify_entries(NONE, entries).and_then(|head| verify_head(head, known))
    }

    fn rehash(entry: &mut Entry) {
        entry.hash = hex::encode(entry.compute_hash());
    }

    #[test]
    fn an_untouched_chain_holds_and_goes_on_from_any_place() {
        let (entries, head) = chain(10);
        assert_eq!(found(&entries, head), Ok(()));
        let middle = verify_entries(NONE, &entries[..4]).unwrap();
        assert_eq!(verify_entries(middle, &entries[4..]), Ok(head));
    }

    #[test]
    fn an_edit_is_found_where_it_is_with_and_without_a_new_hash() {
        for at in 0..10 {
            let (mut entries, head) = chain(10);
            entries[at].actor.id = "us_2".to_owned();
            let seq = at as u64 + 1;
            assert_eq!(found(&entries, head), Err(Break { seq, what: Flaw::Edited }));
            rehash(&mut entries[at]);
            let expected = match at {
                9 => Break { seq: 10, what: Flaw::Replaced },
                _ => Break { seq: seq + 1, what: Flaw::Unlinked },
            };
            assert_eq!(found(&entries, head), Err(expected));
        }
    }

    #[test]
    fn a_dropped_entry_is_found_where_it_was() {
        for at in 0..9 {
            let (mut entries, head) = chain(10);
            entries.remove(at);
            let seq = at as u64 + 1;
            assert_eq!(found(&entries, head), Err(Break { seq, what: Flaw::OutOfPlace }));
        }
    }

    #[test]
    fn two_swapped_entries_are_found_at_the_first() {
        let (mut entries, head) = chain(10);
        entries.swap(3, 7);
        assert_eq!(found(&entries, head), Err(Break { seq: 4, what: Flaw::OutOfPlace }));
        let (seq, other) = (entries[3].seq, entries[7].seq);
        (entries[3].seq, entries[7].seq) = (other, seq);
        assert_eq!(found(&entries, head), Err(Break { seq: 4, what: Flaw::Unlinked }));
    }

    #[test]
    fn an_inserted_entry_is_found_even_when_it_is_linked() {
        let (mut entries, head) = chain(10);
        let mut forged = entries[5].clone();
        forged.action = "member.role_change".to_owned();
        rehash(&mut forged);
        entries.insert(5, forged);
        assert_eq!(found(&entries, head), Err(Break { seq: 7, what: Flaw::OutOfPlace }));
    }

    #[test]
    fn a_cut_tail_is_found_at_the_first_entry_that_is_gone() {
        let (entries, head) = chain(10);
        for kept in 0..10 {
            let expected = Break { seq: kept as u64 + 1, what: Flaw::Missing };
            assert_eq!(found(&entries[..kept], head), Err(expected));
        }
    }

    #[test]
    fn a_deleted_chain_is_found_at_its_first_entry() {
        let (_, head) = chain(10);
        assert_eq!(found(&[], head), Err(Break { seq: 1, what: Flaw::Missing }));
    }

    #[test]
    fn a_whole_other_chain_of_the_same_length_is_found() {
        let (mut entries, head) = chain(3);
        let mut at = NONE;
        for entry in &mut entries {
            entry.ip = Some("203.0.113.9".to_owned());
            entry.prev = hex::encode(at.hash);
            rehash(entry);
            at = AuditHead { seq: entry.seq, hash: entry.compute_hash() };
        }
        assert_eq!(found(&entries, head), Err(Break { seq: 3, what: Flaw::Replaced }));
    }

    #[test]
    fn a_number_that_json_would_round_is_kept_as_text() {
        let mut head = NONE;
        let draft = Draft::success("a.b", Named::new("c", "d")).with("n", u64::MAX);
        let entry = append(&mut head, 0, Named::new("system", "test"), &Origin::default(), draft);
        assert_eq!(entry.detail["n"], Detail::Text(i64::MAX.to_string()));
    }

    #[test]
    fn entries_come_back_from_storage_as_they_were() {
        let (mut entries, _) = chain(3);
        entries[1].actor.email = Some("a@example.com".to_owned());
        let bytes = storage::value::encode(&entries);
        assert_eq!(storage::value::decode::<Vec<Entry>>(&bytes).unwrap(), entries);
    }

    fn draft() -> impl Strategy<Value = Draft> {
        (".{0,20}", any::<i64>(), any::<bool>()).prop_map(|(text, number, flag)| {
            let mut draft = Draft::failed("sign_in", Named::new("user", &text)).with("flag", flag);
            draft.detail.insert(text, Detail::Number(number));
            draft
        })
    }

    proptest! {
        #[test]
        fn any_chain_holds_after_storage_and_any_edited_byte_breaks_it(
            drafts in prop::collection::vec(draft(), 1..12),
            at in any::<prop::sample::Index>(),
            byte in any::<prop::sample::Index>(),
            bit in 0..7_u8,
        ) {
            let mut head = NONE;
            let entries: Vec<Entry> = drafts
                .into_iter()
                .map(|draft| append(&mut head, 5, Named::new("user", "u"), &Origin::default(), draft))
                .collect();
            let stored = storage::value::encode(&entries);
            let read: Vec<Entry> = storage::value::decode(&stored).unwrap();
            prop_assert_eq!(verify_entries(NONE, &read), Ok(head));

            let mut text = serde_json::to_vec(at.get(&entries)).unwrap();
            *byte.get_mut(&mut text) ^= 1 << bit;
            if let Ok(edited) = serde_json::from_slice::<Entry>(&text)
                && edited != *at.get(&entries)
            {
                let mut entries = entries;
                entries[at.index(read.len())] = edited;
                prop_assert_ne!(found(&entries, head), Ok(()));
            }
        }
    }
}
