//! A new tenant made of what another was at some time, with keys, history and audit log of its own.
//!
//! What is not taken along: the audit log, sessions and API keys, which are the source's own; integrations and what
//! they received, because their secrets and addresses belong to the source. Sanitised, it also has no
//! e-mail addresses, no passwords, no second factors, no names and nothing that people wrote or filled in: texts become `x` of the
//! same length, numbers 0, so that shapes and sizes stay what they were.
//!
//! Refuses: to write into a tenant that has anything of its own but its founding.

use std::sync::Arc;

use serde_bytes::ByteBuf;
use serde_json::Value as Json;
use storage::history::HistoryError;
use storage::id::{Id as _, TenantId, UserId};
use storage::keys::Key;
use storage::snapshot::RowSource as _;
use storage::store::StoreError;
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::call::Origin;
use crate::permit::{Operate, Principal};
use crate::quota::{Quota, Used};
use crate::supervisor::Tenants;
use crate::tenant::core::Core;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::members::email_key;
use crate::tenant::people::UserRow;
use crate::tenant::restore::{is_timeless, rows};
use crate::tenant::state::TenantState;
use crate::tenant::submissions::SubmissionRow;

/// Bytes of rows after which a record is written.
const CHUNK_BYTES: usize = 4 << 20;

/// Who the audit log names.
const ACTOR: Principal = Principal::System("clone");

/// What is cloned.
#[derive(Debug, Clone, Copy)]
pub struct CloneOptions {
    /// Whose state.
    pub source: TenantId,
    /// After which record.
    pub lsn: u64,
    /// Whether personal data is left out.
    pub sanitise: bool,
}

/// Fills the new tenant `target`; answers how many rows it got. `tell` hears that on the way.
///
/// # Errors
/// Whatever reading the source and writing the target may say. The target is of no use then.
pub async fn clone_into(
    tenants: &Tenants,
    target: TenantId,
    options: CloneOptions,
    tell: impl Fn(u64) + Send + 'static,
) -> Result<u64, TenantError> {
    let held = tenants.hold(target).await?;
    let store = tenants.store().clone();
    let filled = tokio::task::spawn_blocking(move || {
        let history = store.history().ok_or(TenantError::NotFound)?;
        let keys = store.tenant_keys(options.source)?;
        let past = history.state_after(&keys, options.lsn);
        let past = past.map_err(|error: HistoryError| StoreError::from(error))?;
        let mut core = held.open(&mut |_, _| {})?;
        fill(&mut core, options, past, &tell)
    });
    filled.await.map_err(|_| TenantError::Panicked)?
}

fn fill(
    core: &mut Core,
    options: CloneOptions,
    mut past: storage::history::PastState,
    tell: &dyn Fn(u64),
) -> Result<u64, TenantError> {
    let mut state = TenantState::default();
    let mut filled = Filled::default();
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while let Some((key, value)) = past.next_row().map_err(rows::unreadable)? {
        let key = Key::decode(&key).map_err(StoreError::from)?;
        if matches!(key, Key::State {}) {
            state = value::decode(&value)?;
        }
        let is_personal = matches!(key, Key::SecondFactors { .. } | Key::Provisioned { .. });
        if options.sanitise && is_personal || !is_taken_along(&key) {
            continue;
        }
        let value = if options.sanitise { sanitised(&key, &value)? } else { value.to_vec() };
        filled.rows += 1;
        bytes += value.len();
        chunk.push((key, value));
        if bytes >= CHUNK_BYTES {
            let rows = std::mem::take(&mut chunk);
            let command = WriteClone { options, rows, finish: None };
            filled.owners += core.run_now(&ACTOR, Origin::default(), command)?;
            bytes = 0;
            tell(filled.rows);
        }
    }
    let finish = Some(Finish {
        used: state.used,
        owners: filled.owners,
        rows: filled.rows,
        mfa_required: state.profile.as_ref().is_some_and(|profile| profile.mfa_required),
        support_approval: state.profile.is_some_and(|profile| profile.support_approval),
    });
    core.run_now(&ACTOR, Origin::default(), WriteClone { options, rows: chunk, finish })?;
    tell(filled.rows);
    Ok(filled.rows)
}

#[derive(Default)]
struct Filled {
    rows: u64,
    owners: u32,
}

fn is_taken_along(key: &Key) -> bool {
    let is_of_the_source = matches!(
        key,
        Key::Integration { .. }
            | Key::Event { .. }
            | Key::ProviderEvent { .. }
            // Made again, under the new tenant's keys.
            | Key::UserByEmail { .. }
    );
    !is_of_the_source && !is_timeless(key)
}

/// Notes in a tenant's log that whoever runs the node takes a copy of it, before there is one.
#[derive(Debug)]
pub struct NoteCopy {
    /// What the copy is: `clone` or `bundle`.
    pub kind: &'static str,
    /// What it is called.
    pub name: String,
    /// Whether personal data is left out.
    pub sanitise: bool,
}

impl Command for NoteCopy {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "tenant.copy";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("copy", self.kind)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        cx.exempt_from_quotas();
        let draft = Draft::success(Self::NAME, self.target());
        cx.audit(draft.with("name", self.name).with("sanitised", self.sanitise));
        Ok(())
    }
}

struct Finish {
    used: Used,
    owners: u32,
    rows: u64,
    mfa_required: bool,
    support_approval: bool,
}

/// Writes some rows of a clone; answers how many working owners were among them.
struct WriteClone {
    options: CloneOptions,
    rows: Vec<(Key, Vec<u8>)>,
    finish: Option<Finish>,
}

impl Command for WriteClone {
    type Action = Operate;
    type Reply = u32;
    const NAME: &'static str = "tenant.clone";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", self.options.source)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<u32, TenantError> {
        cx.exempt_from_quotas();
        let mut owners = 0;
        for (key, bytes) in self.rows {
            if let Key::User { id } = key {
                let row: UserRow = value::decode(&bytes)?;
                cx.put(&email_key(cx, &row.email), &id)?;
                owners += u32::from(row.is_working_owner());
            }
            cx.put_bytes(&key, bytes)?;
        }
        if let Some(finish) = self.finish {
            let Finish { used, owners: before, rows, mfa_required, support_approval } = finish;
            let state = cx.state_mut();
            state.owners = before + owners;
            // A copy is never easier to get into than what it is a copy of.
            if let Some(profile) = &mut state.profile {
                let profile = Arc::make_mut(profile);
                profile.mfa_required |= mfa_required;
                profile.support_approval |= support_approval;
            }
            for quota in Quota::ALL.into_iter().filter(|quota| *quota != Quota::StorageBytes) {
                state.used.set(quota, used.of(quota));
            }
            let target = Named::new("tenant", cx.tenant());
            cx.audit(
                Draft::success(Self::NAME, target)
                    .with("source", self.options.source.to_string())
                    .with("lsn", self.options.lsn)
                    .with("sanitised", self.options.sanitise)
                    .with("rows", rows),
            );
        }
        Ok(owners)
    }
}

/// The row without what tells of people.
fn sanitised(key: &Key, bytes: &[u8]) -> Result<Vec<u8>, TenantError> {
    match key {
        Key::User { id } => {
            let mut row: UserRow = value::decode(bytes)?;
            row.email = no_address(*id);
            row.password = None;
            Ok(value::encode(&row))
        }
        Key::Submission { .. } => {
            let mut row: SubmissionRow = value::decode(bytes)?;
            row.json = masked(&row.json, "data");
            Ok(value::encode(&row))
        }
        Key::Comment { .. } => {
            let mut row: super::submissions::comments::CommentRow = value::decode(bytes)?;
            row.json = masked(&row.json, "text");
            Ok(value::encode(&row))
        }
        _ => Ok(bytes.to_vec()),
    }
}

/// An address that no mail ever reaches (RFC 2606), and that is nobody's.
fn no_address(user: UserId) -> String {
    format!("person-{}@example.invalid", hex::encode(&user.as_bytes()[8..]))
}

/// The JSON text with everything below one member masked. What is no JSON object is left out whole.
fn masked(json: &[u8], member: &str) -> ByteBuf {
    let mut document: Json = serde_json::from_slice(json).unwrap_or_default();
    if let Some(part) = document.get_mut(member) {
        mask(part);
    }
    ByteBuf::from(document.to_string().into_bytes())
}

fn mask(json: &mut Json) {
    match json {
        Json::String(text) => *text = "x".repeat(text.chars().count()),
        Json::Number(number) => *number = 0.into(),
        Json::Array(items) => items.iter_mut().for_each(mask),
        Json::Object(members) => members.values_mut().for_each(mask),
        Json::Null | Json::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_document_keeps_its_shape_and_says_nothing() {
        let json = br#"{"id":"sb_1","data":{"name":"Ada","tags":["a","bc"],"age":36,"ok":true}}"#;
        let masked = masked(json, "data");
        let text = String::from_utf8(masked.into_vec()).expect("text");
        let document: Json = serde_json::from_str(&text).expect("JSON");
        let expected = r#"{"id":"sb_1","data":{"name":"xxx","tags":["x","xx"],"age":0,"ok":true}}"#;
        assert_eq!(document, serde_json::from_str::<Json>(expected).expect("JSON"));
    }

    #[test]
    fn credentials_of_the_source_are_none_of_the_clones() {
        let id = storage::id::Id::from_bytes([1; 16]);
        let session = Key::Session { user: id, id: storage::id::Id::from_bytes([2; 16]) };
        let key = Key::ApiKey { id: storage::id::Id::from_bytes([3; 16]) };
        assert!(!is_taken_along(&session) && !is_taken_along(&key));
        assert!(is_taken_along(&Key::User { id }));
    }

    #[test]
    fn no_two_people_get_the_same_address_and_each_is_a_valid_one() {
        let (ada, bob) = (no_address(UserId::new(1, [1; 10])), no_address(UserId::new(1, [2; 10])));
        assert_ne!(ada, bob);
        assert_eq!(crate::tenant::people::normalise_email(&ada).as_deref(), Ok(ada.as_str()));
    }
}
