//! Audit entries in the archive: a run of a tenant's entries, in one object.
//!
//! The object has the form of a snapshot whose rows are the rows that left the view, sealed under keys
//! of its own ([`TenantKeys::of_audit_chunks`]). Its header names the last entry and that entry's hash.
//! What the tenant keeps of it is a [`ChunkRow`]. Calls block.
//!
//! Refuses: entries that do not follow the chunk before, and an object that is not the one the tenant
//! speaks of.
//!
//! [`TenantKeys::of_audit_chunks`]: storage::seal::TenantKeys::of_audit_chunks

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use storage::archive::Archive;
use storage::history::HistoryError;
use storage::id::FormId;
use storage::keys::Key;
use storage::seal::TenantKeys;
use storage::snapshot::{
    Damage, NO_STAMP, SnapshotError, SnapshotHeader, SnapshotReader, SnapshotWriter,
};
use storage::store::StoreError;
use storage::txn::Value;
use storage::value;

use super::chain;
use super::entry::{Detail, Entry};
use crate::backup::name::ObjectName;
use crate::tenant::error::TenantError;
use crate::tenant::state::AuditHead;

/// A chunk that speaks of more forms does not name them: whoever looks for one has to read it.
const FORMS_NAMED_MAX: usize = 64;

/// What a tenant keeps of entries that are in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRow {
    /// The last of them.
    pub last: AuditHead,
    /// The object's name.
    pub object: String,
    /// How many rows they were.
    pub rows: u64,
    /// The earliest time of any of them, as entries say it.
    pub from: String,
    /// The latest.
    pub until: String,
    /// The forms they are about, sorted; nothing if those are too many to name.
    pub forms: Option<Vec<FormId>>,
}

/// A run of entries in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The sequence number of the first.
    pub first: u64,
    /// The rest.
    pub row: ChunkRow,
}

/// The form that an entry is about.
pub(crate) fn form_of(entry: &Entry) -> Option<FormId> {
    match entry.detail.get("form") {
        Some(Detail::Text(form)) => form.parse().ok(),
        _ => None,
    }
}

/// Puts rows into the archive: those behind `before`, in order. Durable when this returns.
///
/// # Errors
/// Also if the rows do not follow `before`, or there are none: then nothing is put.
pub(crate) fn put(
    archive: &dyn Archive,
    keys: &TenantKeys,
    before: AuditHead,
    rows: &[(u64, Value)],
) -> Result<Chunk, TenantError> {
    let mut last = before;
    let mut forms = BTreeSet::new();
    let mut times: Option<(String, String)> = None;
    for (seq, bytes) in rows {
        let entries: Vec<Entry> = value::decode(bytes)?;
        last = follow(last, *seq, &entries).ok_or_else(damaged)?;
        forms.extend(entries.iter().filter_map(form_of));
        for Entry { at, .. } in entries {
            let (from, until) = times.get_or_insert_with(|| (at.clone(), at.clone()));
            if at < *from {
                *from = at;
            } else if at > *until {
                *until = at;
            }
        }
    }
    let (from, until) = times.ok_or_else(damaged)?;
    let tenant = keys.tenant();
    let header = SnapshotHeader {
        tenant,
        lsn: last.seq,
        epoch: 0,
        head: last.hash,
        since_lsn: before.seq,
        at_min_ms: NO_STAMP,
        at_max_ms: 0,
    };
    let mut writer =
        SnapshotWriter::new(Vec::new(), &keys.of_audit_chunks(), header).map_err(unreadable)?;
    for (seq, bytes) in rows {
        writer.push(&Key::Audit { seq: *seq }.encode(), bytes).map_err(unreadable)?;
    }
    let (summary, bytes) = writer.finish().map_err(unreadable)?;
    let prefix = *summary.content.first_chunk().ok_or_else(damaged)?;
    let object = ObjectName::AuditChunk { tenant, last: last.seq, prefix }.to_string();
    archive.put(&object, bytes).map_err(|error| history(error.into()))?;
    let forms = (forms.len() <= FORMS_NAMED_MAX).then(|| forms.into_iter().collect());
    let row = ChunkRow { last, object, rows: rows.len() as u64, from, until, forms };
    Ok(Chunk { first: before.seq + 1, row })
}

/// Reads the rows of a chunk back: the first sequence number and the bytes of each, in order.
///
/// # Errors
/// [`TenantError::Store`], also for an object that is missing or another.
pub(crate) fn rows(
    archive: &dyn Archive,
    keys: &TenantKeys,
    chunk: &Chunk,
) -> Result<Vec<(u64, Value)>, TenantError> {
    let object = archive.open(&chunk.row.object).map_err(|error| history(error.into()))?;
    let input = std::io::BufReader::new(object);
    let mut reader = SnapshotReader::open(input, &keys.of_audit_chunks()).map_err(unreadable)?;
    let header = *reader.header();
    let last = AuditHead { seq: header.lsn, hash: header.head };
    if last != chunk.row.last || header.since_lsn + 1 != chunk.first {
        return Err(damaged());
    }
    let mut rows = Vec::new();
    while let Some((key, bytes)) = reader.next_row().map_err(unreadable)? {
        let Ok(Key::Audit { seq }) = Key::decode(&key) else { return Err(damaged()) };
        rows.push((seq, bytes));
    }
    Ok(rows)
}

/// Reads the entries of a chunk, row by row.
pub(crate) fn entries(
    archive: &dyn Archive,
    keys: &TenantKeys,
    chunk: &Chunk,
) -> Result<Vec<Vec<Entry>>, TenantError> {
    let rows = rows(archive, keys, chunk)?;
    rows.iter().map(|(_, bytes)| Ok(value::decode(bytes)?)).collect()
}

/// Where a row of entries ends that begins behind `before`; nothing if it does not follow it.
pub(crate) fn follow(before: AuditHead, seq: u64, entries: &[Entry]) -> Option<AuditHead> {
    let follows = seq == before.seq + 1 && !entries.is_empty();
    follows.then(|| chain::verify_entries(before, entries).ok())?
}

/// Whether an error says that a chunk is not what was put: it is gone, or its bytes are others.
pub(crate) fn is_damage(error: &TenantError) -> bool {
    use storage::archive::ArchiveError;
    matches!(
        error,
        TenantError::Store(StoreError::History(
            HistoryError::Archive(ArchiveError::Missing { .. })
                | HistoryError::Snapshot(
                    SnapshotError::Damaged { .. }
                        | SnapshotError::Sealed(_)
                        | SnapshotError::WrongTenant { .. }
                        | SnapshotError::KeysOutOfOrder
                )
        ))
    )
}

fn damaged() -> TenantError {
    unreadable(Damage::Content.into())
}

fn unreadable(error: SnapshotError) -> TenantError {
    history(error.into())
}

fn history(error: HistoryError) -> TenantError {
    TenantError::Store(StoreError::from(error))
}
