//! Reading a tenant's audit log wherever it rests: what is in the view the tenant answers, what is in the
//! archive is read here, off the async threads, so that no tenant waits for an archive.
//!
//! Whoever asks brings the way to ask, `ask`, which checks the permit anew at each step. Refuses nothing
//! itself.

use std::sync::Arc;

use storage::id::TenantId;
use storage::store::Store;

use super::chain::{Break, Flaw};
use super::chunk::{self, Chunk};
use super::entry::Entry;
use crate::call::{Document, Page, Paging};
use crate::limits;
use crate::tenant::audit::page::write_cursor;
use crate::tenant::audit::{
    AuditFilter, AuditList, AuditPage, Fill, Found, VerifiedSome, VerifyOwnAudit, document,
};
use crate::tenant::error::TenantError;
use crate::tenant::state::AuditHead;

/// Has blocking work done on one run of entries.
async fn with_entries<T: Send + 'static>(
    store: &Arc<Store>,
    tenant: TenantId,
    chunk: Chunk,
    work: impl FnOnce(Vec<Vec<Entry>>) -> Result<T, TenantError> + Send + 'static,
) -> Result<T, TenantError> {
    let store = store.clone();
    let working = tokio::task::spawn_blocking(move || {
        let keys = store.tenant_keys(tenant)?;
        let archive = store.cold().ok_or(TenantError::NotFound)?.archive();
        work(chunk::entries(&**archive, &keys, &chunk)?)
    });
    working.await.map_err(|_| TenantError::Panicked)?
}

/// One page of a list.
///
/// # Errors
/// Whatever `ask` says, and [`TenantError::Store`] if the archive does not give what it has.
pub async fn list<Q: AuditList, E: From<TenantError>>(
    store: &Arc<Store>,
    tenant: TenantId,
    mut query: Q,
    ask: impl AsyncFn(Q) -> Result<AuditPage, E>,
) -> Result<Page, E> {
    let mut whole = Page::default();
    let mut looked_at = 0;
    let limit = query.paging().limit.clamp(1, limits::PAGE_MAX);
    loop {
        let AuditPage { page, archived } = ask(query.clone()).await?;
        whole.items.extend(page.items);
        let Some(chunk) = archived else {
            whole.next = page.next;
            return Ok(whole);
        };
        query.paging().limit = limit.saturating_sub(whole.items.len());
        let is_oldest_first = query.is_oldest_first();
        let edge = if is_oldest_first { chunk.row.last.seq } else { chunk.first };
        looked_at += usize::try_from(chunk.row.rows).unwrap_or(usize::MAX);
        let (filter, paging) = (query.filter(), query.paging().clone());
        let page = with_entries(store, tenant, chunk, move |rows| {
            fill(rows, filter, &paging, is_oldest_first)
        });
        let page = page.await?;
        whole.items.extend(page.items);
        if page.next.is_some() || looked_at >= limits::SCAN_ROWS_MAX {
            whole.next = page.next.or_else(|| Some(write_cursor(edge)));
            return Ok(whole);
        }
        query.paging().cursor = Some(write_cursor(edge));
        query.paging().limit = limit.saturating_sub(whole.items.len());
    }
}

fn fill(
    mut rows: Vec<Vec<Entry>>,
    filter: AuditFilter,
    paging: &Paging,
    is_oldest_first: bool,
) -> Result<Page, TenantError> {
    let mut fill = Fill::new(filter, paging, is_oldest_first)?;
    if !is_oldest_first {
        rows.reverse();
    }
    for entries in rows {
        if fill.take(entries) {
            break;
        }
    }
    Ok(fill.end())
}

/// One entry that `found` says where to find.
///
/// # Errors
/// [`TenantError::NotFound`], and [`TenantError::Store`] if the archive does not give what it has.
pub async fn read(
    store: &Arc<Store>,
    tenant: TenantId,
    seq: u64,
    found: Found,
) -> Result<Document, TenantError> {
    let chunk = match found {
        Found::Here(document) => return Ok(document),
        Found::Archived(chunk) => chunk,
    };
    let find = move |rows: Vec<Vec<Entry>>| {
        let mut entries = rows.into_iter().flatten();
        let entry = entries.find(|entry| entry.seq == seq).ok_or(TenantError::NotFound)?;
        Ok(document(&entry))
    };
    with_entries(store, tenant, chunk, find).await
}

/// Checks the whole chain as the feed shows it, from the first entry to the last, step by step so that
/// the tenant serves others in between. A run that is gone from the archive, or was changed there, is a
/// break; an archive that cannot be reached is an error.
///
/// # Errors
/// Whatever `ask` says, and [`TenantError::Store`] if the archive cannot be asked.
pub async fn verify<E: From<TenantError>>(
    store: &Arc<Store>,
    tenant: TenantId,
    ask: impl AsyncFn(VerifyOwnAudit) -> Result<VerifiedSome, E>,
) -> Result<VerifiedSome, E> {
    let mut from = AuditHead::NONE;
    loop {
        let step = ask(VerifyOwnAudit { from }).await?;
        if step.is_done {
            return Ok(step);
        }
        from = step.head;
        let Some(chunk) = step.archived else { continue };
        let last = chunk.row.last;
        match with_entries(store, tenant, chunk, move |rows| Ok(check(from, &rows, last))).await {
            Ok(Ok(head)) => from = head,
            Ok(Err(broken)) => return Ok(VerifiedSome::broken(from, broken)),
            Err(error) if chunk::is_damage(&error) => {
                let broken = Break { seq: from.seq + 1, what: Flaw::Missing };
                return Ok(VerifiedSome::broken(from, broken));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Checks that the rows of a run go on behind `from`, and end where the tenant says.
pub(crate) fn check(
    from: AuditHead,
    rows: &[Vec<Entry>],
    last: AuditHead,
) -> Result<AuditHead, Break> {
    let mut head = from;
    for entries in rows {
        head = super::chain::verify_entries(head, entries)?;
    }
    super::chain::verify_head(head, last)?;
    Ok(head)
}
