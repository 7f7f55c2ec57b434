//! One tenant alone on a stage, for tests of its people: real storage in memory, a clock that stands
//! still until it is told, and the audit drafts in a list. No actor, no standing check.

use std::sync::Arc;

use storage::id::{Id, SessionId, TenantId, UserId};
use storage::keys::{Key, Prefix};
use storage::shard::Shard;
use storage::store::Store;
use storage::txn::Scan;

use crate::audit::entry::{Draft, Named};
use crate::call::Origin;
use crate::env::Env;
use crate::permit::{Carrier, Principal, Role, UserPrincipal};
use crate::quota::Plan;
use crate::tenant::cache::Caches;
use crate::tenant::cx::{Command, Cx, Query, ReadCx};
use crate::tenant::error::TenantError;
use crate::tenant::members::AddMember;
use crate::tenant::people::{SessionRow, UserRow};
use crate::tenant::sessions::{Credential, OpenSession, Opened};
use crate::tenant::state::{Profile, TenantState};

pub(crate) struct Scene {
    shard: Shard,
    _store: Arc<Store>,
    pub state: TenantState,
    pub plan: Plan,
    pub now_ms: u64,
    pub drafts: Vec<(Named, Draft)>,
    caches: Caches,
    env: Env,
    runtime: tokio::runtime::Runtime,
}

pub(crate) const NODE: Principal = Principal::System("test");

impl Scene {
    pub(crate) fn new() -> Self {
        Self::of(TenantId::new(1, [7; 10]))
    }

    pub(crate) fn of(tenant: TenantId) -> Self {
        let store = Store::in_memory().unwrap();
        store.create_tenant(tenant).unwrap();
        let profile = Profile {
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: "free".to_owned(),
            region: "local".to_owned(),
            created_ms: 1,
            trial_ends_ms: None,
            version: 1,
            mfa_required: false,
            support_approval: false,
        };
        Self {
            shard: store.own_shard(tenant).unwrap(),
            _store: store,
            state: TenantState { profile: Some(Arc::new(profile)), ..TenantState::default() },
            plan: Plan::default(),
            now_ms: 1_700_000_000_000,
            drafts: Vec::new(),
            caches: Caches::default(),
            env: Env::real(),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        }
    }

    /// Runs one command in a record of its own; an error leaves nothing.
    pub(crate) fn run<C: Command>(
        &mut self,
        principal: &Principal,
        command: C,
    ) -> Result<C::Reply, TenantError> {
        let before = self.state.clone();
        let mut txn = self.shard.txn();
        let mut cx = Cx {
            txn: &mut txn,
            shard: &self.shard,
            state: &mut self.state,
            principal,
            origin: &Origin::default(),
            caches: &mut self.caches,
            plan: &self.plan,
            env: &self.env,
            now_ms: self.now_ms,
            drafts: Vec::new(),
            forms_mentioned: Vec::new(),
            people_touched: false,
            is_exempt: false,
        };
        let result = command.run(&mut cx);
        let drafts = std::mem::take(&mut cx.drafts);
        if result.is_err() {
            self.state = before;
            return result;
        }
        self.drafts.extend(drafts);
        let changes = txn.finish();
        if !changes.is_empty() {
            let sealed = self.shard.seal(changes, self.now_ms).unwrap();
            self.runtime.block_on(self.shard.append(&sealed));
            self.shard.confirm(sealed);
        }
        result
    }

    pub(crate) fn ask<Q: Query>(
        &mut self,
        principal: &Principal,
        query: Q,
    ) -> Result<Q::Reply, TenantError> {
        self.read(principal, |cx| query.run(cx))
    }

    /// Looks at what is there, as somebody.
    pub(crate) fn read<T>(
        &mut self,
        principal: &Principal,
        look: impl FnOnce(&mut ReadCx<'_>) -> T,
    ) -> T {
        look(&mut ReadCx {
            shard: &self.shard,
            state: &self.state,
            principal,
            caches: &mut self.caches,
            plan: &self.plan,
            now_ms: self.now_ms,
        })
    }

    /// A person with the password hash `phc`, made by the node.
    pub(crate) fn add(&mut self, email: &str, role: Role) -> UserId {
        let password_phc = "phc".to_owned();
        self.run(&NODE, AddMember { email: email.to_owned(), role, password_phc }).unwrap().0
    }

    pub(crate) fn sign_in(&mut self, user: UserId) -> Opened {
        let credential = Credential { user, password_phc: "phc".to_owned() };
        self.run(&Principal::Anonymous, OpenSession { credential }).unwrap()
    }

    pub(crate) fn user(&self, id: UserId) -> Option<UserRow> {
        let bytes = self.shard.get(&storage::keys::Key::User { id }).unwrap()?;
        Some(storage::value::decode(&bytes).unwrap())
    }

    /// The sessions of somebody.
    pub(crate) fn sessions(&self, user: UserId) -> Vec<SessionRow> {
        let any = Key::Session { user, id: SessionId::from_bytes([0; 16]) };
        let rows = self.shard.scan(&Scan::all(Prefix::owner(&any))).unwrap();
        rows.iter().map(|(_, bytes)| storage::value::decode(bytes).unwrap()).collect()
    }

    /// Changes a person's row as nobody may.
    pub(crate) fn change(&mut self, id: UserId, change: impl FnOnce(&mut UserRow)) {
        let key = storage::keys::Key::User { id };
        let mut row = self.user(id).unwrap();
        change(&mut row);
        let mut txn = self.shard.txn();
        txn.put(&key, storage::value::encode(&row)).unwrap();
        let sealed = self.shard.seal(txn.finish(), self.now_ms).unwrap();
        self.runtime.block_on(self.shard.append(&sealed));
        self.shard.confirm(sealed);
    }

    /// Whether there is such a row.
    pub(crate) fn has(&self, key: &storage::keys::Key) -> bool {
        self.shard.get(key).unwrap().is_some()
    }

    /// How often `action` was written to the audit log.
    pub(crate) fn noted(&self, action: &str) -> usize {
        self.drafts.iter().filter(|(_, draft)| draft.action == action).count()
    }
}

/// Somebody signed in as `user`; which session does not matter.
pub(crate) fn person(user: UserId, role: Role) -> Principal {
    let session = SessionId::new(1, [9; 10]);
    Principal::User(Arc::new(UserPrincipal {
        user,
        session,
        role,
        authz: 1,
        carrier: Carrier::Token,
    }))
}

/// Somebody signed in with what a sign-in gave.
pub(crate) fn holder(opened: &Opened) -> Principal {
    let Opened { user, session, role, authz, .. } = *opened;
    Principal::User(Arc::new(UserPrincipal { user, session, role, authz, carrier: Carrier::Token }))
}
