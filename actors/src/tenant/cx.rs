//! What a command sees while it runs: its transaction, the tenant's state, who asks, and the audit.
//!
//! A command either returns a reply, and all it wrote becomes part of the next record, or an error,
//! and nothing it wrote stays. It never waits and never reads a clock of its own.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::id::{FormId, Id, TenantId, UserId};
use storage::keys::Key;
use storage::shard::Shard;
use storage::shard::frozen::Readable;
use storage::txn::{Scan, Txn};
use storage::value;

use crate::audit::entry::{Draft, Named};
use crate::call::Origin;
use crate::env::Env;
use crate::permit::{Principal, Role, UserPrincipal};
use crate::quota::{Plan, Quota};
use crate::tenant::cache::Caches;
use crate::tenant::error::TenantError;
use crate::tenant::state::TenantState;

/// Bytes of a stored value.
pub type Stored = Arc<[u8]>;

/// A change to a tenant. Runs alone, in one savepoint of the tenant's current transaction.
pub trait Command: Send + 'static {
    /// The capability it takes.
    type Action: crate::permit::Action;
    /// What it answers; kept for idempotency keys.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Its name in the audit log: `form.create`.
    const NAME: &'static str;
    /// Whether it still works after the trial ended: signing in and out, paying, exporting.
    const AFTER_TRIAL: bool = false;
    /// Whether it works for somebody who still has to enrol a second factor: enrolling, signing out.
    const BEFORE_ENROLMENT: bool = false;
    /// What it is about, for the audit entry of a refusal.
    fn target(&self) -> Named;
    /// Does it.
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Self::Reply, TenantError>;
}

/// A look at a tenant's durable state.
pub trait Query: Send + 'static {
    /// The capability it takes.
    type Action: crate::permit::Action;
    /// What it answers.
    type Reply: Send + 'static;
    /// Whether it works for somebody who still has to enrol a second factor.
    const BEFORE_ENROLMENT: bool = false;
    /// Does it.
    fn run(self, cx: &mut ReadCx<'_>) -> Result<Self::Reply, TenantError>;
}

/// Reading: what commands and queries have in common.
pub trait Reads {
    /// The stored bytes of `key`.
    fn bytes(&self, key: &Key) -> Result<Option<Stored>, TenantError>;
    /// A run of rows.
    fn rows(&self, scan: &Scan) -> Result<Vec<(Key, Stored)>, TenantError>;
    /// A run of rows that ends with the row that brings it to `bytes_max` bytes.
    fn rows_within(&self, scan: &Scan, bytes_max: usize)
    -> Result<Vec<(Key, Stored)>, TenantError>;
    /// Who asks.
    fn principal(&self) -> &Principal;
    /// The tenant's own row.
    fn state(&self) -> &TenantState;
    /// Compiled schemas and the like.
    fn caches(&mut self) -> &mut Caches;
    /// The tenant asked.
    fn tenant(&self) -> TenantId;
    /// When, Unix milliseconds.
    fn now_ms(&self) -> u64;
    /// A keyed digest for an index key.
    fn digest(&self, label: &str, bytes: &[u8]) -> storage::keys::Digest;
    /// The tenant's plan; unlimited if the table lost it.
    fn plan(&self) -> &Plan;

    /// The row under `key`, decoded.
    fn row<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, TenantError> {
        Ok(self.bytes(key)?.map(|bytes| value::decode(&bytes)).transpose()?)
    }
    /// The row under `key`, or [`TenantError::NotFound`].
    fn need<T: DeserializeOwned>(&self, key: &Key) -> Result<T, TenantError> {
        self.row(key)?.ok_or(TenantError::NotFound)
    }
    /// The signed-in person who asks, or [`TenantError::StaleCredential`].
    fn person(&self) -> Result<Arc<UserPrincipal>, TenantError> {
        match self.principal() {
            Principal::User(user) => Ok(user.clone()),
            _ => Err(TenantError::StaleCredential),
        }
    }
    /// Whose what is made now becomes: the person who asks, or who made the key that does.
    fn author(&self) -> Result<UserId, TenantError> {
        match self.principal() {
            Principal::User(user) => Ok(user.user),
            Principal::Service(service) => Ok(service.user),
            _ => Err(TenantError::StaleCredential),
        }
    }
    /// The asker's role; an API key has that of who made it, the node itself acts as owner, and somebody
    /// of the platform as member.
    fn role(&self) -> Role {
        match self.principal() {
            Principal::User(user) => user.role,
            Principal::Service(service) => service.role,
            // What a session shows and changes, members do; its scopes say how much of that.
            Principal::Support(_) => Role::Member,
            Principal::System(_) => Role::Owner,
            Principal::Anonymous | Principal::Sender => Role::Customer,
        }
    }
}

/// Both contexts read alike; they differ in what they read from.
macro_rules! reads {
    ($context:ty, $source:ident) => {
        impl Reads for $context {
            fn bytes(&self, key: &Key) -> Result<Option<Stored>, TenantError> {
                Ok(self.$source.get(key)?)
            }
            fn rows(&self, scan: &Scan) -> Result<Vec<(Key, Stored)>, TenantError> {
                Ok(self.$source.scan(scan)?)
            }
            fn rows_within(
                &self,
                scan: &Scan,
                bytes_max: usize,
            ) -> Result<Vec<(Key, Stored)>, TenantError> {
                Ok(self.$source.scan_within(scan, bytes_max)?)
            }
            fn principal(&self) -> &Principal {
                self.principal
            }
            fn state(&self) -> &TenantState {
                self.state
            }
            fn caches(&mut self) -> &mut Caches {
                self.caches
            }
            fn tenant(&self) -> TenantId {
                self.shard.tenant()
            }
            fn now_ms(&self) -> u64 {
                self.now_ms
            }
            fn digest(&self, label: &str, bytes: &[u8]) -> storage::keys::Digest {
                self.shard.keys().digest(label, bytes)
            }
            fn plan(&self) -> &Plan {
                self.plan
            }
        }
    };
}

/// The context of a query: the durable state, nothing in flight; or a state of the past.
pub struct ReadCx<'a> {
    pub(crate) shard: &'a dyn Readable,
    pub(crate) state: &'a TenantState,
    pub(crate) principal: &'a Principal,
    pub(crate) caches: &'a mut Caches,
    pub(crate) plan: &'a Plan,
    pub(crate) now_ms: u64,
}

reads!(ReadCx<'_>, shard);

impl ReadCx<'_> {
    /// The shard's keys, to check tokens the tenant made.
    pub fn keys(&self) -> &storage::seal::TenantKeys {
        self.shard.keys()
    }
}

/// Whether what the tenant remembers of people and their credentials depends on such a row.
fn is_of_people(key: &Key) -> bool {
    matches!(
        key,
        Key::User { .. } | Key::Session { .. } | Key::ApiKey { .. } | Key::SecondFactors { .. }
    )
}

/// The context of a command.
pub struct Cx<'a, 's> {
    pub(crate) txn: &'a mut Txn<'s>,
    pub(crate) shard: &'a Shard,
    pub(crate) state: &'a mut TenantState,
    pub(crate) principal: &'a Principal,
    pub(crate) origin: &'a Origin,
    pub(crate) caches: &'a mut Caches,
    pub(crate) plan: &'a Plan,
    pub(crate) env: &'a Env,
    pub(crate) now_ms: u64,
    pub(crate) drafts: Vec<(Named, Draft)>,
    pub(crate) forms_mentioned: Vec<FormId>,
    pub(crate) people_touched: bool,
    pub(crate) is_exempt: bool,
}

reads!(Cx<'_, '_>, txn);

impl Cx<'_, '_> {
    /// Writes a row.
    pub fn put<T: Serialize>(&mut self, key: &Key, row: &T) -> Result<(), TenantError> {
        self.people_touched |= is_of_people(key);
        Ok(self.txn.put(key, value::encode(row))?)
    }
    /// Writes a row as it was stored once.
    pub(crate) fn put_bytes(&mut self, key: &Key, bytes: Vec<u8>) -> Result<(), TenantError> {
        self.people_touched |= is_of_people(key);
        Ok(self.txn.put(key, bytes)?)
    }
    /// Lets this command write what the plan has no room for: it brings back what was there before.
    pub(crate) fn exempt_from_quotas(&mut self) {
        self.is_exempt = true;
    }
    /// Removes a row.
    pub fn delete(&mut self, key: &Key) -> Result<(), TenantError> {
        self.people_touched |= is_of_people(key);
        Ok(self.txn.delete(key)?)
    }
    /// A new time-ordered id.
    pub fn new_id<I: Id>(&self) -> I {
        I::new(self.now_ms, self.env.random())
    }
    /// Random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        self.env.random()
    }
    /// The shard's keys, to make and check tokens.
    pub fn keys(&self) -> &storage::seal::TenantKeys {
        self.shard.keys()
    }
    /// Where the request came from.
    pub fn origin(&self) -> &Origin {
        self.origin
    }
    /// The state row, to change it. It is written with the record.
    pub fn state_mut(&mut self) -> &mut TenantState {
        self.state
    }

    /// Takes `count` of `quota`, or refuses and names it. Exact: nothing runs between the check and
    /// the write it guards.
    pub fn charge(&mut self, quota: Quota, count: u64) -> Result<(), TenantError> {
        let used = self.state.used.of(quota).saturating_add(count);
        if let Some(limit) = self.plan.limit(quota).filter(|&limit| used > limit) {
            return Err(TenantError::QuotaExceeded { quota, limit });
        }
        self.state.used.set(quota, used);
        Ok(())
    }
    /// Gives `count` of `quota` back.
    pub fn release(&mut self, quota: Quota, count: u64) {
        let left = self.state.used.of(quota).saturating_sub(count);
        self.state.used.set(quota, left);
    }

    /// Writes an audit entry in the same record, by whoever asks.
    pub fn audit(&mut self, draft: Draft) {
        let actor = self.actor();
        self.drafts.push((actor, draft));
    }
    /// Writes an audit entry that names someone else as the actor: the person who just signed in.
    pub fn audit_as(&mut self, actor: Named, draft: Draft) {
        self.drafts.push((actor, draft));
    }
    /// Writes an audit entry that also appears in a form's own trail.
    pub fn audit_form(&mut self, form: FormId, draft: Draft) {
        self.forms_mentioned.push(form);
        self.audit(draft.with("form", form.to_string()));
    }

    /// Whoever asks, as the audit log names them.
    pub fn actor(&mut self) -> Named {
        match self.principal {
            Principal::User(user) => {
                let user = user.user;
                Named { email: self.email_of(user), ..Named::new("user", user) }
            }
            Principal::Service(service) => Named::new("api-key", service.key),
            Principal::Support(support) => Named {
                email: Some(support.email.to_string()),
                ..Named::new("support", support.session)
            },
            Principal::Anonymous => Named::new("anonymous", "-"),
            Principal::Sender => Named::new("sender", "-"),
            Principal::System(reason) => Named::new("system", reason),
        }
    }

    fn email_of(&mut self, user: UserId) -> Option<String> {
        if let Some(email) = self.caches.emails.get(&user) {
            return Some(email.clone());
        }
        let row: Option<super::people::UserRow> = self.row(&Key::User { id: user }).ok().flatten();
        let email = row.map(|row| row.email)?;
        self.caches.emails.insert(user, email.clone());
        Some(email)
    }
}
