//! What of an integration depends on where its tenant lives: the URL that its sender was given.
//!
//! Refuses: to touch secrets, or anything else of the row.

use serde_bytes::ByteBuf;
use storage::value;

use super::IntegrationRow;
use crate::tenant::error::TenantError;

/// The row without what depends on the place, to compare two of them by.
pub(crate) fn without_place(bytes: &[u8]) -> Result<Vec<u8>, TenantError> {
    let mut row: IntegrationRow = value::decode(bytes)?;
    row.json = ByteBuf::new();
    Ok(value::encode(&row))
}

/// The row as it is where its tenant has the short name `slug`.
pub(crate) fn moved(bytes: &[u8], slug: &str) -> Result<Vec<u8>, TenantError> {
    let mut row: IntegrationRow = value::decode(bytes)?;
    row.render(slug);
    Ok(value::encode(&row))
}
