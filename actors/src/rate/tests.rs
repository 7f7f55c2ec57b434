//! What the rate limits promise, under a clock that only the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::env::Clock;

#[derive(Default)]
struct StoppedClock(AtomicU64);

impl StoppedClock {
    fn advance_ms(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn limits(policies: &[(Class, Scope, &str)]) -> (RateLimits, Arc<StoppedClock>) {
    let clock = Arc::new(StoppedClock::default());
    let env = Env::real().with_clock(clock.clone());
    let table = policies.iter().fold(Policies::default(), |table, &(class, scope, rate)| {
        table.with(class, scope, Rate::parse(rate).expect(rate))
    });
    (RateLimits::new(&table, &env), clock)
}

#[test]
fn the_request_after_the_last_of_a_budget_is_refused_and_told_when_to_come_back() {
    let (limits, clock) = limits(&[(Class::SignIn, Scope::Ip, "20/1m")]);
    let mine = [(Scope::Ip, limits.key(b"192.0.2.1"))];
    for left in (0..20).rev() {
        let decision = limits.check(Class::SignIn, &mine);
        assert!(decision.allowed);
        assert_eq!(decision.budgets().map(|one| one.remaining).collect::<Vec<_>>(), [left]);
    }
    let refused = limits.check(Class::SignIn, &mine);
    assert!(!refused.allowed);
    assert_eq!(refused.retry_after_s, 3);
    assert_eq!(refused.violated().collect::<Vec<_>>(), ["sign-in-ip"]);
    assert_eq!(refused.limit_field().as_deref(), Some(r#""sign-in-ip";r=0;t=3"#));
    assert_eq!(refused.policy_field().as_deref(), Some(r#""sign-in-ip";q=20;w=60"#));

    let other = [(Scope::Ip, limits.key(b"192.0.2.2"))];
    assert!(limits.check(Class::SignIn, &other).allowed, "another address is unaffected");
    clock.advance_ms(2_999);
    assert!(!limits.check(Class::SignIn, &mine).allowed);
    clock.advance_ms(1);
    assert!(limits.check(Class::SignIn, &mine).allowed, "Retry-After was kept");
    assert!(!limits.check(Class::SignIn, &mine).allowed);
}

#[test]
fn a_refused_address_does_not_use_up_the_budget_of_the_account_it_tries() {
    let (limits, _clock) =
        limits(&[(Class::SignIn, Scope::Ip, "3/1m"), (Class::SignIn, Scope::Account, "5/1m")]);
    let account = (Scope::Account, limits.key(b"ada@example.com"));
    let attacker = [(Scope::Ip, limits.key(b"198.51.100.1")), account];
    let admitted = (0..50).filter(|_| limits.check(Class::SignIn, &attacker).allowed).count();
    assert_eq!(admitted, 3);
    let ada = [(Scope::Ip, limits.key(b"192.0.2.1")), account];
    let decision = limits.check(Class::SignIn, &ada);
    assert!(decision.allowed);
    let left = decision.budgets().map(|one| (one.name, one.remaining)).collect::<Vec<_>>();
    assert_eq!(left, [("sign-in-ip", 2), ("sign-in-account", 1)]);
}

#[test]
fn a_token_at_its_limit_leaves_the_rest_of_the_tenants_budget_alone() {
    let (limits, _clock) =
        limits(&[(Class::Api, Scope::Tenant, "100/1m"), (Class::Api, Scope::Token, "10/1m")]);
    let tenant = (Scope::Tenant, 1);
    for _ in 0..1_000 {
        limits.check(Class::Api, &[tenant, (Scope::Token, 7)]);
    }
    let refused = limits.check(Class::Api, &[tenant, (Scope::Token, 7)]);
    assert_eq!(refused.violated().collect::<Vec<_>>(), ["api-token"]);
    assert_eq!(
        refused.limit_field().as_deref(),
        Some(r#""api-tenant";r=90;t=6, "api-token";r=0;t=6"#)
    );
    assert!(limits.check(Class::Api, &[tenant, (Scope::Token, 8)]).allowed);
    let usage = limits.usage();
    assert_eq!(usage.iter().map(|policy| policy.refused).collect::<Vec<_>>(), [0, 991]);
}

#[test]
fn what_has_no_policy_is_open_and_says_nothing() {
    let (limits, _clock) = limits(&[(Class::Api, Scope::Tenant, "off")]);
    for _ in 0..1_000 {
        let decision = limits.check(Class::Api, &[(Scope::Tenant, 1), (Scope::Ip, 2)]);
        assert!(decision.allowed);
        assert_eq!((decision.policy_field(), decision.limit_field()), (None, None));
    }
}

#[test]
fn a_key_whose_budget_is_whole_again_is_forgotten_and_a_spent_one_is_not() {
    let (limits, clock) = limits(&[(Class::Public, Scope::Ip, "2/10s")]);
    for address in 0..1_000 {
        limits.check(Class::Public, &[(Scope::Ip, address)]);
    }
    clock.advance_ms(60_000);
    for _ in 0..2 {
        limits.check(Class::Public, &[(Scope::Ip, 5_000)]);
    }
    limits.evict();
    assert_eq!(limits.usage()[0].keys, 1);
    assert!(!limits.check(Class::Public, &[(Scope::Ip, 5_000)]).allowed);
}

#[test]
fn parallel_requests_pass_exactly_as_often_as_the_budget_allows() {
    let (limits, _clock) =
        limits(&[(Class::Api, Scope::Ip, "500/1h"), (Class::Api, Scope::Token, "9000/1h")]);
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    if limits.check(Class::Api, &[(Scope::Ip, 1), (Scope::Token, 1)]).allowed {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(passed.load(Ordering::Relaxed), 500);
}

#[test]
fn keys_of_two_nodes_differ() {
    let (one, _) = limits(&[]);
    let (other, _) = limits(&[]);
    assert_eq!(one.key(b"a"), one.key(b"a"));
    assert_ne!(one.key(b"a"), other.key(b"a"));
}

#[actix_rt::test]
async fn the_actor_ends_when_nobody_holds_the_limits() {
    let env = Env::real();
    let limits = RateLimiter::start(&Policies::default(), &env);
    assert!(limits.check(Class::Api, &[(Scope::Ip, 1)]).allowed);
    let table = Arc::downgrade(&limits.0);
    drop(limits);
    assert!(table.upgrade().is_none(), "the actor does not keep the table alive");
}
