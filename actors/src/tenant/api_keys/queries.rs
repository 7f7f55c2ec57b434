//! Reading API keys, and proving one. A key's text is in none of these answers.
//!
//! Refuses: to tell a member of anybody else's keys, and why a key is not good.

use storage::id::ApiKeyId;
use storage::keys::Key;
use storage::txn::Scan;
use storage::value;

use super::text::PresentedKey;
use super::{ApiKeyRow, visible};
use crate::call::{Document, Page, Paging};
use crate::permit::{ReadApiKeys, ServicePrincipal, SignIn};
use crate::tenant::cx::{Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::forms::lists::{End, Pager, Step, open_id_cursor, walk};
use crate::tenant::job::day;

/// Reads one API key.
#[derive(Debug)]
pub struct ReadApiKey {
    /// Which.
    pub id: ApiKeyId,
}

impl Query for ReadApiKey {
    type Action = ReadApiKeys;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        Ok(visible(cx, self.id)?.document())
    }
}

/// Lists API keys in the order they were made: those that are the asker's to see.
#[derive(Debug, Default)]
pub struct ListApiKeys {
    /// Which part.
    pub paging: Paging,
}

impl Query for ListApiKeys {
    type Action = ReadApiKeys;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let after = open_id_cursor(self.paging.cursor.as_deref())?.map(ApiKeyRow::key);
        let mut pager = Pager::new(&self.paging);
        let limit = pager.rows_wanted();
        let scan = Scan { after, limit, ..Scan::all(ApiKeyRow::all()) };
        let end = walk(cx, scan, |_, bytes| {
            let row: ApiKeyRow = value::decode(bytes)?;
            if !row.is_visible(cx)? {
                return Ok(Step::Next);
            }
            pager.offer(row.id, || Ok(row.document().json))
        })?;
        Ok(pager.close(match end {
            End::Bound(Key::ApiKey { id }) => Some(id),
            _ => None,
        }))
    }
}

/// A key that was shown to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenKey {
    /// As whom it asks.
    pub principal: ServicePrincipal,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
    /// Whether its use today is not on record yet.
    pub is_first_of_day: bool,
}

/// Asks whether a presented key is right and in force. Nothing, whatever is wrong with it.
#[derive(Debug)]
pub struct ProveApiKey {
    /// The key.
    pub presented: PresentedKey,
}

impl Query for ProveApiKey {
    type Action = SignIn;
    type Reply = Option<ProvenKey>;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError> {
        let row: Option<ApiKeyRow> = cx.row(&ApiKeyRow::key(self.presented.id))?;
        let is_right = self.presented.is_of(cx, row.as_ref().map(|row| &row.digest[..]));
        let Some(row) = row.filter(|_| is_right) else { return Ok(None) };
        let is_first_of_day = row.used_day.is_none_or(|used| used < day(cx.now_ms()));
        let expires_ms = row.expires_ms;
        let principal = row.principal(cx)?;
        Ok(principal.map(|principal| ProvenKey { principal, expires_ms, is_first_of_day }))
    }
}
