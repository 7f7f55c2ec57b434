//! A view that lasts as long as the process: for tests and throw-away nodes.
//!
//! Refuses nothing the trait allows; a checkpoint of it promises nothing.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{APPLIED_ROW, Applied, Row, Rows, View, ViewError, Visit, prefixed};
use crate::id::{Id, TenantId};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Rows in an ordered map.
#[derive(Debug, Default)]
pub struct MemoryView {
    rows: RwLock<Map>,
}

impl MemoryView {
    // Every change is one call on the map, so a panic elsewhere cannot leave it half done.
    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View for MemoryView {
    fn get(
        &self,
        tenant: TenantId,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ViewError> {
        if let Some(value) = self.read().get(&prefixed(tenant, key)) {
            read(value);
        }
        Ok(())
    }

    fn scan(&self, tenant: TenantId, rows: &Rows, visit: Visit<'_>) -> Result<(), ViewError> {
        let map = self.read();
        let mut range = map.range(prefixed(tenant, &rows.start)..prefixed(tenant, &rows.end));
        while let Some((key, value)) = if rows.reverse { range.next_back() } else { range.next() } {
            if visit(&key[tenant.as_bytes().len()..], value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, rows: Vec<Row>, applied: &[(TenantId, Applied)]) -> Result<(), ViewError> {
        let mut map = self.write();
        for row in rows {
            let key = prefixed(row.tenant, &row.key);
            match row.value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        for (tenant, applied) in applied {
            map.insert(prefixed(*tenant, APPLIED_ROW), applied.encode());
        }
        Ok(())
    }

    fn applied(&self, tenant: TenantId) -> Result<Applied, ViewError> {
        match self.read().get(&prefixed(tenant, APPLIED_ROW)) {
            None => Ok(Applied::NONE),
            Some(row) => Applied::decode(row).ok_or(ViewError::MalformedApplied { tenant }),
        }
    }

    fn drop_tenant(&self, tenant: TenantId) -> Result<(), ViewError> {
        self.write().retain(|key, _| !key.starts_with(tenant.as_bytes()));
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), ViewError> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.read().iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}
