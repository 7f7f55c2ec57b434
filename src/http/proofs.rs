//! Credentials that a tenant has proven, as each worker thread remembers them.
//!
//! What is remembered is a print (a hash with a salt of this node, never the credential's text), as whom it
//! asked when it was proven, and until when. It only spares the proof of the secret. Whether the credential is
//! still in force and what it may is the tenant's to say with every message, so nothing here has to be told of
//! a revocation.

use std::cell::RefCell;
use std::sync::Arc;

use actors::env::Env;
use actors::permit::Grant;
use aws_lc_rs::digest;
use quick_cache::unsync::Cache;

/// Credentials remembered per thread.
const KEPT_MAX: usize = 10_000;

/// What a credential is remembered by.
pub(crate) type Print = [u8; 32];

struct Kept {
    grant: Grant,
    from_ms: u64,
    until_ms: u64,
}

thread_local! {
    static PROVEN: RefCell<Cache<Print, Kept>> = RefCell::new(Cache::new(KEPT_MAX));
}

/// Remembers what was proven. Cheap to clone.
#[derive(Clone)]
pub struct Proofs {
    env: Env,
    /// Differs between any two nodes, also of one process.
    salt: Arc<[u8; 32]>,
}

impl Proofs {
    /// Remembers nothing yet.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), salt: Arc::new(env.random()) }
    }

    /// What a credential is remembered by.
    pub(crate) fn print(&self, is_cookie: bool, text: &str) -> Print {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.salt[..]);
        // No bearer is taken for a cookie with the same text.
        context.update(&[u8::from(is_cookie)]);
        context.update(text.as_bytes());
        let mut print = [0; 32];
        print.copy_from_slice(context.finish().as_ref());
        print
    }

    /// As whom a credential asked when it was proven, if that was not too long ago.
    pub(crate) fn known(&self, print: &Print) -> Option<Grant> {
        let now_ms = self.env.now_ms();
        PROVEN.with_borrow_mut(|kept| {
            let proven = kept.get(print)?;
            (proven.from_ms..proven.until_ms).contains(&now_ms).then(|| proven.grant.clone())
        })
    }

    /// Remembers a credential from now until `until_ms`.
    pub(crate) fn remember(&self, print: Print, grant: Grant, until_ms: u64) {
        let kept_one = Kept { grant, from_ms: self.env.now_ms(), until_ms };
        PROVEN.with_borrow_mut(|kept| kept.insert(print, kept_one));
    }

    /// Forgets a credential: its tenant says that it is not good any more.
    pub(crate) fn forget(&self, print: &Print) {
        PROVEN.with_borrow_mut(|kept| kept.remove(print));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use actors::env::Clock;
    use actors::permit::{Role, Scopes, ServicePrincipal};
    use storage::id::{ApiKeyId, Id as _, TenantId, UserId};

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

    fn remember(proofs: &Proofs, until_ms: u64) -> Print {
        let principal = ServicePrincipal {
            key: ApiKeyId::new(1, [1; 10]),
            user: UserId::new(1, [2; 10]),
            role: Role::Member,
            scopes: Scopes::all(),
        };
        let print = proofs.print(false, "bk_x");
        let grant = Grant::of_service(TenantId::new(1, [3; 10]), principal);
        proofs.remember(print, grant, until_ms);
        print
    }

    #[test]
    fn a_proof_is_good_for_its_time_and_until_it_is_forgotten() {
        let clock = Arc::new(Still(AtomicU64::new(5)));
        let proofs = Proofs::new(&Env::real().with_clock(clock.clone()));
        let print = remember(&proofs, 9);
        for (now_ms, is_known) in [(4, false), (5, true), (8, true), (9, false)] {
            clock.0.store(now_ms, Ordering::SeqCst);
            assert_eq!(proofs.known(&print).is_some(), is_known, "{now_ms}");
        }
        clock.0.store(5, Ordering::SeqCst);
        proofs.forget(&print);
        assert!(proofs.known(&print).is_none());
    }

    #[test]
    fn two_nodes_of_one_process_do_not_know_each_others_credentials() {
        let (ours, theirs) = (Proofs::new(&Env::real()), Proofs::new(&Env::real()));
        remember(&ours, u64::MAX);
        assert!(theirs.known(&theirs.print(false, "bk_x")).is_none());
        assert!(ours.known(&ours.print(false, "bk_x")).is_some());
        assert!(ours.known(&ours.print(false, "bk_y")).is_none());
    }
}
