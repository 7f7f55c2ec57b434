//! Entries on their way into the archive, seen from the tenant: which are the oldest, where those are
//! that left, and the rows that go once they are there.
//!
//! An entry that is in the archive may still have its row for a while; whoever reads takes it from the
//! archive. None of these commands has an audit entry: the log loses nothing by them.
//!
//! Refuses: to let go of rows that no chunk has.

use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use super::Wanted;
use crate::audit::chunk::{Chunk, ChunkRow, form_of};
use crate::audit::entry::{Entry, Named};
use crate::limits;
use crate::permit::Operate;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads, Stored};
use crate::tenant::error::TenantError;
use crate::tenant::state::AuditHead;

/// Rows that one [`ReadOldest`] gives at most.
pub(crate) const ROWS_AT_ONCE: usize = 64;
/// Bytes that one [`ReadOldest`] gives at most, but for the last row.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Rows that one [`TrimAudit`] removes at most, so that nobody waits for long.
const TRIMMED_AT_ONCE: usize = 32;

/// The chunk that ends where the archive does.
fn newest<R: Reads>(cx: &R) -> Result<AuditHead, TenantError> {
    let any = Key::AuditChunk { first: 0 };
    let scan = Scan { prefix: Prefix::kind(&any), after: None, reverse: true, limit: 1 };
    match cx.rows(&scan)?.pop() {
        Some((_, bytes)) => Ok(value::decode::<ChunkRow>(&bytes)?.last),
        None => Ok(AuditHead::NONE),
    }
}

fn rows_behind(after: u64, limit: usize) -> Scan {
    let any = Key::Audit { seq: 0 };
    let after = Some(Key::Audit { seq: after });
    Scan { prefix: Prefix::kind(&any), after, reverse: false, limit }
}

/// The oldest rows that are not in the archive.
pub(crate) struct ReadOldest {
    /// Behind this entry; behind the archive's end if it is before that.
    pub after: u64,
}

/// The oldest rows of a log, and where it ends.
pub(crate) struct Oldest {
    /// Where the archive ends.
    pub archived: AuditHead,
    /// The last entry of all.
    pub last_seq: u64,
    /// The rows, by the sequence number of their first entry.
    pub rows: Vec<(u64, Stored)>,
}

impl Query for ReadOldest {
    type Action = Operate;
    type Reply = Oldest;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Oldest, TenantError> {
        let archived = newest(cx)?;
        let scan = rows_behind(self.after.max(archived.seq), ROWS_AT_ONCE);
        let rows = cx.rows_within(&scan, BYTES_AT_ONCE)?;
        let rows = rows.into_iter().filter_map(|(key, bytes)| match key {
            Key::Audit { seq } => Some((seq, bytes)),
            _ => None,
        });
        Ok(Oldest { archived, last_seq: cx.state().audit.seq, rows: rows.collect() })
    }
}

/// Says that a run of entries is in the archive. From then on they are read there.
pub(crate) struct NoteChunk {
    /// The run.
    pub chunk: Chunk,
}

impl Command for NoteChunk {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "audit.archive";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("audit", self.chunk.first)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let Chunk { first, row } = self.chunk;
        let (archived, last) = (newest(cx)?, row.last.seq);
        let follows = first == archived.seq + 1 && last >= first && last <= cx.state().audit.seq;
        // Whoever made the chunk saw another log than this one, such as one before a hold.
        if !follows || archived.seq != cx.state().audit_archived {
            return Err(TenantError::Restarting);
        }
        cx.put(&Key::AuditChunk { first }, &row)?;
        cx.state_mut().audit_archived = last;
        Ok(())
    }
}

/// Removes some rows whose entries are in the archive; answers whether there are more.
pub(crate) struct TrimAudit;

impl Command for TrimAudit {
    type Action = Operate;
    type Reply = bool;
    const NAME: &'static str = "audit.trim";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("audit", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<bool, TenantError> {
        let archived = cx.state().audit_archived;
        let rows = cx.rows(&rows_behind(0, TRIMMED_AT_ONCE))?;
        let looked_at = rows.len();
        let mut gone = 0;
        for (key, bytes) in rows {
            let Key::Audit { seq } = key else { continue };
            // No chunk ends within a row.
            if seq > archived {
                break;
            }
            let entries: Vec<Entry> = value::decode(&bytes)?;
            for form in entries.iter().filter_map(form_of) {
                let trail = Key::AuditTrail { form, seq };
                if cx.bytes(&trail)?.is_some() {
                    cx.delete(&trail)?;
                }
            }
            cx.delete(&key)?;
            gone += 1;
        }
        Ok(gone == looked_at && gone == TRIMMED_AT_ONCE)
    }
}

/// What a look for entries in the archive gave.
pub(super) enum Next {
    /// They may be in this run.
    In(Chunk),
    /// None were found yet; more runs are behind this entry.
    Behind(u64),
    /// There are none.
    Nowhere,
}

/// The next run of entries, in reading order behind `seen`, that may hold wanted ones.
pub(super) fn next<R: Reads>(
    cx: &R,
    wanted: &Wanted,
    seen: Option<u64>,
    oldest_first: bool,
) -> Result<Next, TenantError> {
    let any = Key::AuditChunk { first: 0 };
    let chunk = |key: Key, bytes: &[u8]| match key {
        Key::AuditChunk { first } => Ok(Some(Chunk { first, row: value::decode(bytes)? })),
        _ => Ok::<_, TenantError>(None),
    };
    let scan = |after: Option<u64>, reverse, limit| Scan {
        prefix: Prefix::kind(&any),
        after: after.map(|first| Key::AuditChunk { first }),
        reverse,
        limit,
    };
    let mut after = seen;
    if oldest_first {
        // The run that the next entry is in begins before it.
        let seen = seen.unwrap_or(0);
        let holding = cx.rows(&scan(Some(seen.saturating_add(2)), true, 1))?;
        let holding = holding.into_iter().next();
        after = None;
        if let Some((key, bytes)) = holding
            && let Some(holding) = chunk(key, &bytes)?
        {
            if holding.row.last.seq > seen && wanted.may_be_in(&holding.row) {
                return Ok(Next::In(holding));
            }
            after = Some(holding.first);
        }
    }
    let mut looked_at = 0;
    loop {
        let rows = cx.rows(&scan(after, !oldest_first, limits::AUDIT_CHUNKS_AT_ONCE))?;
        if rows.is_empty() {
            return Ok(Next::Nowhere);
        }
        looked_at += rows.len();
        let mut edge = 0;
        for (key, bytes) in rows {
            let Some(chunk) = chunk(key, &bytes)? else { continue };
            if wanted.may_be_in(&chunk.row) {
                return Ok(Next::In(chunk));
            }
            after = Some(chunk.first);
            edge = if oldest_first { chunk.row.last.seq } else { chunk.first };
        }
        if looked_at >= limits::SCAN_ROWS_MAX {
            return Ok(Next::Behind(edge));
        }
    }
}

/// The run that an entry is in.
pub(super) fn holding<R: Reads>(cx: &R, seq: u64) -> Result<Option<Chunk>, TenantError> {
    let any = Key::AuditChunk { first: 0 };
    let after = Some(Key::AuditChunk { first: seq.saturating_add(1) });
    let scan = Scan { prefix: Prefix::kind(&any), after, reverse: true, limit: 1 };
    match cx.rows(&scan)?.pop() {
        Some((Key::AuditChunk { first }, bytes)) => {
            let row: ChunkRow = value::decode(&bytes)?;
            Ok((row.last.seq >= seq).then_some(Chunk { first, row }))
        }
        _ => Ok(None),
    }
}
