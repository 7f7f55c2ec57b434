//! A look at a tenant's own row without waking it: the newest record that has the row says how it is.
//!
//! Refuses to search: a tenant whose newest records are in the archive only is not looked at.

use storage::keys::Key;
use storage::log::LogError;
use storage::seal::TenantKeys;
use storage::store::Store;
use storage::value;

use super::state::TenantState;

/// How many records it looks back.
const RECORDS_BACK_MAX: usize = 64;

/// The own row of the keys' tenant as of its record `lsn`.
pub(crate) fn last_state(
    store: &Store,
    keys: &TenantKeys,
    lsn: u64,
) -> Result<Option<TenantState>, LogError> {
    let own = Key::State {}.encode();
    for lsn in (1..=lsn).rev().take(RECORDS_BACK_MAX) {
        let records = store.log().read_from(keys.tenant(), lsn, 1)?;
        let Some(record) = records.first() else { continue };
        let Ok(body) = keys.open_record(lsn, record.header.epoch, &record.body) else { continue };
        let row = body.ops.into_iter().find(|op| op.key == own).and_then(|op| op.value);
        if let Some(state) = row.and_then(|row| value::decode(&row).ok()) {
            return Ok(Some(state));
        }
    }
    Ok(None)
}
