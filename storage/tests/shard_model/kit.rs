//! What the tests share: tenants, commits, and parts that fail on command.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::{Strategy, any, prop_oneof};
use storage::disk::fault::FaultDisk;
use storage::id::{
    ApiKeyId, CommentId, EventId, ExportId, FormId, Id, IdentityId, IdentityProviderId,
    IntegrationId, InviteId, MailId, RestoreId, SessionId, SubmissionId, SupportId, TeamId,
    TenantId, TicketId, UserId,
};
use storage::keys::Key;
use storage::keystore::KeyStore;
use storage::log::{Appended, Appending, CommitLog, Health, LogError, LogStats, Tail};
use storage::record::Record;
use storage::seal::SystemRandom;
use storage::shard::Shard;
use storage::store::Store;
use storage::txn::{Changes, Txn};

pub const ADA: TenantId = TenantId::PLATFORM;

pub fn bob() -> TenantId {
    TenantId::from_bytes([0xb0; 16])
}

pub fn form(n: u8) -> Key {
    Key::Form { id: FormId::from_bytes([n; 16]) }
}

pub fn keystore() -> Arc<KeyStore> {
    let disk = Arc::new(FaultDisk::new());
    Arc::new(KeyStore::open(disk, Path::new("/keys"), Arc::new(SystemRandom)).unwrap())
}

/// A store in memory with both tenants made.
pub fn memory_store() -> Arc<Store> {
    let store = Store::in_memory().unwrap();
    store.create_tenant(ADA).unwrap();
    store.create_tenant(bob()).unwrap();
    store
}

pub fn wait(appending: Appending) -> Appended {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(appending)
}

/// Commits changes and expects them to be durable.
pub fn commit(shard: &mut Shard, changes: Changes) {
    let sealed = shard.seal(changes, 1).unwrap();
    assert_eq!(wait(shard.append(&sealed)), Appended::Durable);
    shard.confirm(sealed);
}

/// Commits what `fill` writes.
pub fn write(shard: &mut Shard, fill: impl FnOnce(&mut Txn<'_>)) {
    let mut txn = shard.txn();
    fill(&mut txn);
    let changes = txn.finish();
    commit(shard, changes);
}

pub fn put(shard: &mut Shard, key: &Key, value: &[u8]) {
    write(shard, |txn| txn.put(key, value.to_vec()).unwrap());
}

/// Any key at all.
pub fn any_key() -> impl Strategy<Value = Key> {
    let id = || any::<[u8; 16]>();
    let digest = || any::<[u8; 32]>();
    let seq = || any::<u64>();
    prop_oneof![
        any::<bool>().prop_map(|_| Key::State {}),
        seq().prop_map(|first| Key::AuditChunk { first }),
        id().prop_map(|a| Key::Invite { id: InviteId::from_bytes(a) }),
        id().prop_map(|a| Key::Mail { id: MailId::from_bytes(a) }),
        id().prop_map(|a| Key::Support { id: SupportId::from_bytes(a) }),
        (id(), id()).prop_map(|(a, b)| Key::Identity {
            user: UserId::from_bytes(a),
            id: IdentityId::from_bytes(b)
        }),
        (seq(), digest()).prop_map(|(ends_s, digest)| Key::Authorization { ends_s, digest }),
        id().prop_map(|a| Key::IdentityProvider { id: IdentityProviderId::from_bytes(a) }),
        digest().prop_map(|digest| Key::IdentityBySubject { digest }),
        (id(), id()).prop_map(|(a, b)| Key::Ticket {
            user: UserId::from_bytes(a),
            id: TicketId::from_bytes(b)
        }),
        seq().prop_map(|seq| Key::Audit { seq }),
        (id(), seq()).prop_map(|(a, seq)| Key::AuditTrail { form: FormId::from_bytes(a), seq }),
        (id(), id()).prop_map(|(a, b)| Key::Comment {
            submission: SubmissionId::from_bytes(a),
            id: CommentId::from_bytes(b)
        }),
        id().prop_map(|a| Key::Directory { tenant: TenantId::from_bytes(a) }),
        (id(), id()).prop_map(|(a, b)| Key::Event {
            integration: IntegrationId::from_bytes(a),
            id: EventId::from_bytes(b)
        }),
        id().prop_map(|a| Key::Form { id: FormId::from_bytes(a) }),
        (any::<u32>(), digest()).prop_map(|(day, digest)| Key::Idempotency { day, digest }),
        id().prop_map(|a| Key::Integration { id: IntegrationId::from_bytes(a) }),
        id().prop_map(|a| Key::ApiKey { id: ApiKeyId::from_bytes(a) }),
        id().prop_map(|a| Key::Provisioned { user: UserId::from_bytes(a) }),
        id().prop_map(|a| Key::SecondFactors { user: UserId::from_bytes(a) }),
        digest().prop_map(|digest| Key::Slug { digest }),
        id().prop_map(|a| Key::Export { id: ExportId::from_bytes(a) }),
        (id(), digest()).prop_map(|(a, digest)| Key::ProviderEvent {
            integration: IntegrationId::from_bytes(a),
            digest
        }),
        id().prop_map(|a| Key::Restore { id: RestoreId::from_bytes(a) }),
        (id(), id()).prop_map(|(a, b)| Key::Session {
            user: UserId::from_bytes(a),
            id: SessionId::from_bytes(b)
        }),
        id().prop_map(|a| Key::Team { id: TeamId::from_bytes(a) }),
        id().prop_map(|a| Key::User { id: UserId::from_bytes(a) }),
        digest().prop_map(|digest| Key::UserByEmail { digest }),
        (id(), id()).prop_map(|(a, b)| Key::Submission {
            form: FormId::from_bytes(a),
            id: SubmissionId::from_bytes(b)
        }),
        (id(), id(), id()).prop_map(|(a, b, c)| Key::Authored {
            user: UserId::from_bytes(a),
            form: FormId::from_bytes(b),
            id: SubmissionId::from_bytes(c)
        }),
    ]
}

/// What a [`Meddler`] does to the next append.
pub const PASS: u8 = 0;
pub const UNKNOWN_BUT_DONE: u8 = 1;
pub const UNKNOWN_AND_LOST: u8 = 2;
pub const UNKNOWN_AND_POISONED: u8 = 3;

type Forge = Box<dyn Fn(&mut Record) + Send + Sync>;

/// A log that lies about appends and changes what it reads.
pub struct Meddler {
    pub inner: Arc<dyn CommitLog>,
    pub next: AtomicU8,
    pub forge: Mutex<Option<Forge>>,
}

impl Meddler {
    pub fn new(inner: Arc<dyn CommitLog>) -> Arc<Self> {
        Arc::new(Self { inner, next: AtomicU8::new(PASS), forge: Mutex::new(None) })
    }
}

impl CommitLog for Meddler {
    fn append(&self, record: Record) -> Appending {
        match self.next.load(Ordering::SeqCst) {
            PASS => self.inner.append(record),
            UNKNOWN_BUT_DONE => {
                let appending = self.inner.append(record);
                Box::pin(async {
                    appending.await;
                    Appended::Unknown
                })
            }
            _ => Box::pin(std::future::ready(Appended::Unknown)),
        }
    }
    fn tail(&self, tenant: TenantId) -> Result<Tail, LogError> {
        self.inner.tail(tenant)
    }
    fn read_from(&self, tenant: TenantId, lsn: u64, max: usize) -> Result<Vec<Record>, LogError> {
        let mut records = self.inner.read_from(tenant, lsn, max)?;
        if let Some(forge) = &*self.forge.lock().unwrap() {
            records.iter_mut().for_each(forge);
        }
        Ok(records)
    }
    fn let_go(&self, tails: &[(TenantId, Tail)]) -> Result<(), LogError> {
        self.inner.let_go(tails)
    }
    fn tenants(&self) -> Vec<TenantId> {
        self.inner.tenants()
    }
    fn health(&self) -> Health {
        match self.next.load(Ordering::SeqCst) {
            UNKNOWN_AND_POISONED => Health::Poisoned("a failed fsync".to_owned()),
            _ => self.inner.health(),
        }
    }
    fn stats(&self) -> LogStats {
        self.inner.stats()
    }
}
