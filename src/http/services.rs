//! API keys at the edge: the tenant proves one, and this thread remembers it for a while.
//!
//! What is remembered is the key's print (a hash with a salt of this node, never its text), as whom it
//! asked when it was proven, and until when: to the end of the day at most, so that each day of use can
//! be noted. It only spares the proof of the secret. Whether the key is still in force and what it may is
//! the tenant's to say with every message, so nothing here has to be told of a revocation.
//!
//! Refuses: to say why a key is not good. For a tenant that does not exist the platform does the same
//! work and finds nothing.

use std::cell::RefCell;
use std::sync::Arc;

use actors::call::Origin;
use actors::env::Env;
use actors::permit::{Grant, Permit};
use actors::supervisor::Tenants;
use actors::tenant::api_keys::commands::NoteApiKeyUse;
use actors::tenant::api_keys::queries::ProveApiKey;
use actors::tenant::api_keys::text::{PREFIX, PresentedKey};
use actors::tenant::error::TenantError;
use actors::tenant::handle::TenantHandle;
use aws_lc_rs::digest;
use quick_cache::unsync::Cache;
use storage::id::TenantId;

/// Keys remembered per thread.
const KEPT_MAX: usize = 10_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What a key is remembered by.
pub(crate) type Print = [u8; 32];

struct Proven {
    grant: Grant,
    from_ms: u64,
    until_ms: u64,
}

thread_local! {
    static PROVEN: RefCell<Cache<Print, Proven>> = RefCell::new(Cache::new(KEPT_MAX));
}

/// Knows API keys that were proven. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys {
    env: Env,
    /// Differs between any two nodes, also of one process.
    salt: Arc<[u8; 32]>,
}

impl ApiKeys {
    /// Knows none yet.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), salt: Arc::new(env.random()) }
    }

    /// Whether a bearer token is an API key by its form.
    pub fn is_one(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// What a key is remembered by.
    pub(crate) fn print(&self, token: &str) -> Print {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.salt[..]);
        context.update(token.as_bytes());
        let mut print = [0; 32];
        print.copy_from_slice(context.finish().as_ref());
        print
    }

    /// As whom a key asked when it was proven, if that was not too long ago.
    pub(crate) fn known(&self, print: &Print, now_ms: u64) -> Option<Grant> {
        PROVEN.with_borrow_mut(|kept| {
            let proven = kept.get(print)?;
            (proven.from_ms..proven.until_ms).contains(&now_ms).then(|| proven.grant.clone())
        })
    }

    /// Forgets a key: its tenant says that it is not good any more.
    pub(crate) fn forget(&self, print: &Print) {
        PROVEN.with_borrow_mut(|kept| kept.remove(print));
    }

    /// Has the tenant prove a key. Nothing, whatever is wrong with it.
    ///
    /// # Errors
    /// Those of a tenant that cannot answer now.
    pub(crate) async fn prove(
        &self,
        tenants: &Tenants,
        print: Option<Print>,
        presented: PresentedKey,
    ) -> Result<Option<Grant>, TenantError> {
        let door = match tenants.find(presented.tenant).await {
            Err(TenantError::NotFound) => tenants.find(TenantId::PLATFORM).await?,
            found => found?,
        };
        let tenant = door.tenant();
        let query = ProveApiKey { presented: presented.clone() };
        let proven = match door.query(Permit::anonymous(tenant), query).await {
            Err(TenantError::NotFound) => None,
            proven => proven?,
        };
        let Some(proven) = proven else { return Ok(None) };
        let grant = Grant::of_service(tenant, proven.principal);
        if let Some(print) = print {
            let from_ms = self.env.now_ms();
            let until_ms = proven.expires_ms.min((from_ms / DAY_MS + 1) * DAY_MS);
            let proven = Proven { grant: grant.clone(), from_ms, until_ms };
            PROVEN.with_borrow_mut(|kept| kept.insert(print, proven));
        }
        if proven.is_first_of_day {
            actix_web::rt::spawn(note_use(door, presented));
        }
        Ok(Some(grant))
    }
}

/// Has the day of use noted. Nobody waits for it: a tenant that cannot write now can still be read.
async fn note_use(door: TenantHandle, presented: PresentedKey) {
    let (permit, key) = (Permit::anonymous(door.tenant()), presented.id);
    let noted = door.command(permit, Origin::default(), None, NoteApiKeyUse { presented }).await;
    if let Err(error) = noted {
        tracing::debug!(api_key.id = %key, %error, "a day of use was not noted");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use actors::env::Clock;
    use actors::permit::{Role, Scopes, ServicePrincipal};
    use storage::id::{ApiKeyId, Id as _, UserId};

    use super::*;

    struct Still(AtomicU64);

    impl Clock for Still {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn keep(keys: &ApiKeys, token: &str, from_ms: u64, until_ms: u64) -> Print {
        let principal = ServicePrincipal {
            key: ApiKeyId::new(1, [1; 10]),
            user: UserId::new(1, [2; 10]),
            role: Role::Member,
            scopes: Scopes::all(),
        };
        let grant = Grant::of_service(TenantId::new(1, [3; 10]), principal);
        let print = keys.print(token);
        PROVEN.with_borrow_mut(|kept| kept.insert(print, Proven { grant, from_ms, until_ms }));
        print
    }

    #[test]
    fn a_proof_is_good_for_its_time_and_until_it_is_forgotten() {
        let keys = ApiKeys::new(&Env::real().with_clock(Arc::new(Still(AtomicU64::new(5)))));
        let print = keep(&keys, "bk_x", 5, 9);
        for (now_ms, is_known) in [(4, false), (5, true), (8, true), (9, false)] {
            assert_eq!(keys.known(&print, now_ms).is_some(), is_known, "{now_ms}");
        }
        keys.forget(&print);
        assert!(keys.known(&print, 5).is_none());
    }

    #[test]
    fn two_nodes_of_one_process_do_not_know_each_others_keys() {
        let (ours, theirs) = (ApiKeys::new(&Env::real()), ApiKeys::new(&Env::real()));
        keep(&ours, "bk_x", 0, u64::MAX);
        assert!(theirs.known(&theirs.print("bk_x"), 1).is_none());
        assert!(ours.known(&ours.print("bk_x"), 1).is_some());
        assert!(ours.known(&ours.print("bk_y"), 1).is_none());
    }
}
