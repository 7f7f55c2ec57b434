//! What is the tenant's, and what belongs to the place it lives at.
//!
//! The content hash covers every row that is the tenant's but its audit log, which has a hash chain of its
//! own, and the profile, which names place and plan. Two nodes that hold the same tenant give the same
//! hash, whatever keys they seal it with and whatever short name it has there.
//!
//! Refuses: an audit log with a gap, rows that no bundle has, and a state that does not fit its rows.

use std::collections::BTreeMap;

use storage::keys::Key;
use storage::snapshot::StateHash;
use storage::value;

use super::PortableError;
use super::manifest::AuditSpan;
use crate::audit::chain;
use crate::audit::entry::Entry;
use crate::backup::digest::Digest;
use crate::quota::{Quota, Used};
use crate::tenant::forms::{FormHead, FormStatus};
use crate::tenant::integrations::moving;
use crate::tenant::people::UserRow;
use crate::tenant::state::{AuditHead, TenantState};

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The tenant's own row: travels, and is made anew from what travelled.
    State,
    /// The audit log: travels byte for byte.
    Audit,
    /// Leads from forms into the audit log: made again from it.
    Trail,
    /// The tenant's: travels, and is in the content hash.
    Content,
    /// The place's: stays. Whom to let vouch for people is said anew at each place, with a secret and an address
    /// of its own; what was linked through them ends with that. Sessions, API keys, invitations, mailed links and answers to idempotency keys end: whoever holds a
    /// credential of one place gets none of another by it. Restores and exports speak of what is not
    /// there; digests are made again under the new keys; short names and the directory are the
    /// platform's.
    Place,
}

/// Where a row with that key belongs.
pub(crate) fn part_of(key: &Key) -> Part {
    match key {
        Key::State {} => Part::State,
        Key::Audit { .. } => Part::Audit,
        Key::AuditTrail { .. } => Part::Trail,
        Key::Comment { .. }
        | Key::Event { .. }
        | Key::Form { .. }
        | Key::Integration { .. }
        | Key::Provisioned { .. }
        | Key::SecondFactors { .. }
        | Key::Team { .. }
        | Key::User { .. }
        | Key::Submission { .. }
        | Key::Authored { .. } => Part::Content,
        Key::ApiKey { .. }
        | Key::AuditChunk { .. }
        | Key::Authorization { .. }
        | Key::Identity { .. }
        | Key::IdentityBySubject { .. }
        | Key::IdentityProvider { .. }
        | Key::Invite { .. }
        | Key::Mail { .. }
        | Key::Ticket { .. }
        | Key::Directory { .. }
        | Key::Export { .. }
        | Key::Idempotency { .. }
        | Key::ProviderEvent { .. }
        | Key::Restore { .. }
        | Key::Session { .. }
        | Key::Slug { .. }
        | Key::Support { .. }
        | Key::UserByEmail { .. } => Part::Place,
    }
}

/// What all rows of a bundle come to.
#[derive(Debug, Clone)]
pub struct Tally {
    /// How many there are.
    pub rows: u64,
    /// The tenant's own row.
    pub state: TenantState,
    /// The content hash.
    pub content_hash: Digest,
    /// The audit log.
    pub audit: AuditSpan,
    /// People, forms and submissions, counted.
    pub(crate) used: Used,
    /// Owners that can sign in, counted.
    pub(crate) owners: u32,
}

/// Rows being counted, hashed and checked, in key order.
pub(crate) struct Contents {
    rows: u64,
    state: Option<TenantState>,
    hash: StateHash,
    head: AuditHead,
    counts: BTreeMap<Quota, u64>,
    owners: u32,
    /// A place that the audit log has to pass.
    through: Option<AuditHead>,
}

impl Contents {
    /// No rows yet. The audit log must have an end of a row at `through`, if that is given.
    pub fn new(through: Option<AuditHead>) -> Self {
        Self {
            rows: 0,
            state: None,
            hash: StateHash::new(),
            head: AuditHead::NONE,
            counts: BTreeMap::new(),
            owners: 0,
            through: through.filter(|head| head.seq > 0),
        }
    }

    /// Takes the next row.
    pub fn take(&mut self, key: &Key, encoded: &[u8], bytes: &[u8]) -> Result<(), PortableError> {
        self.rows += 1;
        match part_of(key) {
            Part::State => self.state = Some(value::decode(bytes)?),
            Part::Audit => self.audit(key, bytes)?,
            Part::Trail => {}
            Part::Content => self.content(key, encoded, bytes)?,
            Part::Place => {
                return Err(PortableError::Contents("a row in it belongs to the node it was on"));
            }
        }
        Ok(())
    }

    fn audit(&mut self, key: &Key, bytes: &[u8]) -> Result<(), PortableError> {
        let entries: Vec<Entry> = value::decode(bytes)?;
        let is_place = entries.first().is_some_and(|first| *key == Key::Audit { seq: first.seq });
        if !is_place {
            return Err(PortableError::Contents("an audit row is not in its place"));
        }
        self.head = chain::verify_entries(self.head, &entries)?;
        if self.through == Some(self.head) {
            self.through = None;
        }
        Ok(())
    }

    fn content(&mut self, key: &Key, encoded: &[u8], bytes: &[u8]) -> Result<(), PortableError> {
        match key {
            Key::User { .. } => {
                let row: UserRow = value::decode(bytes)?;
                self.owners += u32::from(row.is_working_owner());
                self.count(Quota::Members);
            }
            Key::Form { .. } => {
                let row: FormHead = value::decode(bytes)?;
                if row.status == FormStatus::Active {
                    self.count(Quota::Forms);
                }
            }
            Key::Submission { .. } => self.count(Quota::Submissions),
            Key::Integration { .. } => {
                self.hash.push(encoded, &moving::without_place(bytes)?);
                return Ok(());
            }
            _ => {}
        }
        self.hash.push(encoded, bytes);
        Ok(())
    }

    fn count(&mut self, quota: Quota) {
        *self.counts.entry(quota).or_default() += 1;
    }

    /// What all rows come to.
    pub fn finish(self) -> Result<Tally, PortableError> {
        let state = self.state.filter(|state| state.profile.is_some());
        let state = state.ok_or(PortableError::Contents("it has no profile"))?;
        chain::verify_head(self.head, state.audit)?;
        if let Some(through) = self.through {
            return Err(if through.seq > self.head.seq {
                PortableError::Contents("it is older than what was taken up before")
            } else {
                PortableError::Contents("its audit log is another than what was taken up before")
            });
        }
        let mut used = Used::default();
        for (quota, count) in self.counts {
            used.set(quota, count);
        }
        let AuditHead { seq, hash } = self.head;
        Ok(Tally {
            rows: self.rows,
            state,
            content_hash: Digest(self.hash.finish()),
            audit: AuditSpan { entries: seq, seq, hash: Digest(hash) },
            used,
            owners: self.owners,
        })
    }
}
