//! Who waits for a hash, and behind whom.
//!
//! A hash costs a core for a while, so nobody may take the cores for themselves: everybody who asks
//! has a share of their own, of which two hashes at most are in the queue that all shares have in
//! common, and a few more wait outside it. What waits there costs nobody else anything. Of the common
//! queue one half is for sign-ins alone, and of that one network has a quarter at most, whatever tenants it
//! names: names are for whoever asks to invent. No lock is held while anything waits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use storage::id::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait for each core; the last of them waits about a second.
const WAITING_PER_CORE_MAX: usize = 32;
/// Of one share, how many run or are in the common queue.
const QUEUED_PER_SHARE_MAX: usize = 2;
/// Of one share, how many there are at all: those and the ones that wait for their turn.
const ADMITTED_PER_SHARE_MAX: usize = 16;

/// On whose behalf a password is hashed or compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Share {
    /// A person of that tenant, signed in.
    Tenant(TenantId),
    /// Somebody who wants to sign in to the tenant of that short name. The name and not the tenant:
    /// whether there is one must not show in who waits for whom.
    SignIn(Box<str>),
    /// Somebody without an account, by address.
    Address(Option<IpAddr>),
    /// Whoever wants to sign in from that network, to whatever tenant.
    Network(Option<IpAddr>),
    /// Whoever runs the node.
    Operator,
}

impl Share {
    /// The share of an address, if it is known: IPv4 by address, IPv6 by /64, which is what one
    /// customer gets.
    pub fn address(ip: Option<IpAddr>) -> Self {
        Self::Address(ip.map(|ip| prefix(ip, 64)))
    }
    /// The share of a network, if it is known: IPv4 by address, IPv6 by /48, which is the most that one
    /// customer commonly gets (RFC 6177).
    pub fn network(ip: Option<IpAddr>) -> Self {
        Self::Network(ip.map(|ip| prefix(ip, 48)))
    }
}

fn prefix(ip: IpAddr, bits: u32) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - bits))).into(),
    }
}

/// What there is no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// What one share may use.
    Share,
    /// The queue that all have in common.
    Queue,
}

/// Everybody who waits or is served.
pub(super) struct Queue {
    shares: Arc<Shares>,
    /// One permit per core.
    running: Arc<Semaphore>,
    /// One permit per sign-in that runs or waits.
    sign_ins: Arc<Semaphore>,
    /// One permit per anything else that runs or waits.
    others: Arc<Semaphore>,
    of_a_network: Bounds,
}

/// Who has a share at the moment. A share of which nothing is under way is not here.
#[derive(Default)]
struct Shares(Mutex<HashMap<Share, Used>>);

struct Used {
    /// How many are admitted.
    admitted: usize,
    /// One permit per place in the common queue.
    queued: Arc<Semaphore>,
}

/// How many of a share there may be: at all, and in the common queue.
#[derive(Clone, Copy)]
struct Bounds {
    admitted: usize,
    queued: usize,
}

/// What each share but a network's has.
const OF_A_SHARE: Bounds =
    Bounds { admitted: ADMITTED_PER_SHARE_MAX, queued: QUEUED_PER_SHARE_MAX };

/// The right to work for one hash. Whoever drops it lets the next one on.
pub(super) struct Turn {
    _permits: [OwnedSemaphorePermit; 3],
    _network: Option<(OwnedSemaphorePermit, Admission)>,
    _admission: Admission,
}

/// One of a share, counted until it is dropped.
struct Admission {
    shares: Arc<Shares>,
    share: Share,
}

impl Shares {
    fn lock(&self) -> MutexGuard<'_, HashMap<Share, Used>> {
        // Whoever panicked here left a count that is at most too high by one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(
        self: &Arc<Self>,
        share: Share,
        Bounds { admitted, queued }: Bounds,
    ) -> Option<(Admission, Arc<Semaphore>)> {
        let mut shares = self.lock();
        let used = shares
            .entry(share.clone())
            .or_insert_with(|| Used { admitted: 0, queued: Arc::new(Semaphore::new(queued)) });
        if used.admitted >= admitted {
            return None;
        }
        used.admitted += 1;
        let queued = used.queued.clone();
        drop(shares);
        Some((Admission { shares: self.clone(), share }, queued))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut shares = self.shares.lock();
        if let Some(used) = shares.get_mut(&self.share) {
            used.admitted -= 1;
            if used.admitted == 0 {
                shares.remove(&self.share);
            }
        }
    }
}

impl Queue {
    /// For `cores` hashes at once.
    pub(super) fn new(cores: usize) -> Self {
        let places = cores * (WAITING_PER_CORE_MAX + 1);
        let others = places / 2;
        Self {
            shares: Arc::default(),
            running: Arc::new(Semaphore::new(cores)),
            sign_ins: Arc::new(Semaphore::new(places - others)),
            others: Arc::new(Semaphore::new(others)),
            // A whole office may come through one address: the last of it waits about a second.
            of_a_network: Bounds { admitted: (places - others) * 4, queued: (places - others) / 4 },
        }
    }

    /// Waits for a turn to sign somebody in who comes from that address.
    ///
    /// # Errors
    /// [`Full`], at once.
    pub(super) async fn turn_from(&self, ip: Option<IpAddr>, share: Share) -> Result<Turn, Full> {
        let network = self.shares.admit(Share::network(ip), self.of_a_network);
        let (admission, queued) = network.ok_or(Full::Share)?;
        // Before a place of the tenant's is taken: who waits here is in nobody's way but their network's.
        let queued = wait(queued).await;
        let turn = self.turn(share).await?;
        Ok(Turn { _network: Some((queued, admission)), ..turn })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Full`], at once.
    pub(super) async fn turn(&self, share: Share) -> Result<Turn, Full> {
        let places = match share {
            Share::SignIn(_) => &self.sign_ins,
            Share::Tenant(_) | Share::Address(_) | Share::Network(_) | Share::Operator => {
                &self.others
            }
        };
        let (admission, queued) = self.shares.admit(share, OF_A_SHARE).ok_or(Full::Share)?;
        let queued = wait(queued).await;
        let overloaded = |_| Full::Queue;
        let place = places.clone().try_acquire_owned().map_err(overloaded)?;
        let running = wait(self.running.clone()).await;
        Ok(Turn { _permits: [running, place, queued], _network: None, _admission: admission })
    }
}

async fn wait(permits: Arc<Semaphore>) -> OwnedSemaphorePermit {
    permits.acquire_owned().await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use storage::id::Id as _;

    use super::*;

    fn tenant(number: u8) -> Share {
        Share::Tenant(TenantId::from_bytes([number; 16]))
    }

    fn sign_in(slug: &str) -> Share {
        Share::SignIn(slug.into())
    }

    fn places(queue: &Queue) -> [usize; 3] {
        [&queue.running, &queue.sign_ins, &queue.others].map(|permits| permits.available_permits())
    }

    #[tokio::test]
    async fn however_many_of_one_tenant_come_two_of_them_are_in_the_common_queue() {
        let queue = Queue::new(1);
        let [cores, sign_ins, others] = places(&queue);
        let mut flood: Vec<_> = (0..64).map(|_| Box::pin(queue.turn(tenant(1)))).collect();
        let mut turns = Vec::new();
        let (mut waiting, mut refused) = (0, 0);
        for one in &mut flood {
            match one.now_or_never() {
                None => waiting += 1,
                Some(Err(Full::Share)) => refused += 1,
                Some(Ok(turn)) => turns.push(turn),
                Some(Err(error)) => panic!("{error:?}"),
            }
        }
        assert_eq!((turns.len(), waiting), (1, ADMITTED_PER_SHARE_MAX - 1));
        assert_eq!(refused, 64 - ADMITTED_PER_SHARE_MAX);
        assert_eq!(places(&queue), [cores - 1, sign_ins, others - QUEUED_PER_SHARE_MAX]);
        drop(flood);
        drop(turns);
        assert_eq!(places(&queue), [cores, sign_ins, others], "something was kept");
        assert!(queue.shares.lock().is_empty(), "a share of nobody is remembered");
    }

    #[tokio::test]
    async fn whoever_invents_names_has_a_quarter_of_the_places_for_their_network() {
        let queue = Queue::new(1);
        let [_, sign_ins, _] = places(&queue);
        let flood = |n: usize| {
            // Every request from another /64 of one /48, for a tenant of another name.
            let subnet = u16::try_from(n).expect("few");
            let ip = Ipv6Addr::new(0x2001, 0xdb8, 7, subnet, 0, 0, 0, 1);
            Box::pin(queue.turn_from(Some(ip.into()), sign_in(&format!("tenant-{n}"))))
        };
        let mut flood: Vec<_> = (0..queue.of_a_network.admitted).map(flood).collect();
        let mut turns = Vec::new();
        for one in &mut flood {
            match one.now_or_never() {
                None => {}
                Some(Ok(turn)) => turns.push(turn),
                Some(Err(error)) => panic!("{error:?}"),
            }
        }
        let [_, left, _] = places(&queue);
        assert_eq!((turns.len(), left), (1, sign_ins - sign_ins / 4));
        let one_more = queue.turn_from(
            Some(Ipv6Addr::new(0x2001, 0xdb8, 7, 9999, 0, 0, 0, 1).into()),
            sign_in("more"),
        );
        assert_eq!(one_more.now_or_never().and_then(Result::err), Some(Full::Share));
        let victim = queue.turn_from(Some(Ipv4Addr::LOCALHOST.into()), sign_in("acme"));
        let mut victim = Box::pin(victim);
        assert!((&mut victim).now_or_never().is_none(), "waits for a core, not for the flood");
        drop((flood, turns));
        assert!(victim.await.is_ok());
        assert!(queue.shares.lock().is_empty(), "a network is remembered for nothing");
    }

    #[tokio::test]
    async fn whoever_waits_for_a_turn_of_their_own_share_gets_it() {
        let queue = Queue::new(1);
        let all = (0..ADMITTED_PER_SHARE_MAX).map(|_| async {
            let turn = queue.turn(tenant(1)).await;
            tokio::task::yield_now().await;
            turn.map(drop)
        });
        assert!(join_all(all).await.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn of_two_hundred_sign_ins_never_more_run_than_there_are_cores_and_all_that_wait_get_on()
    {
        const CORES: usize = 3;
        let queue = Queue::new(CORES);
        let [_, places, _] = places(&queue);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let all = (0..200).map(|number| {
            let (queue, running, most) = (&queue, &running, &most);
            async move {
                let turn = queue.turn(sign_in(&format!("tenant-{}", number % 50))).await?;
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // As long as it takes that everybody else has tried to get on.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                drop(turn);
                Ok::<_, Full>(())
            }
        });
        let outcomes = join_all(all).await;
        assert_eq!(most.into_inner(), CORES);
        let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(served >= places, "{served} of {places} places");
        let refused = outcomes.into_iter().filter_map(Result::err);
        for error in refused {
            assert!(matches!(error, Full::Queue | Full::Share), "{error:?}");
        }
        // Whoever was turned away and comes back gets in.
        assert!(queue.turn(sign_in("tenant-49")).now_or_never().is_some_and(|turn| turn.is_ok()));
    }

    #[tokio::test]
    async fn sign_ins_find_a_place_when_everything_else_is_full() {
        let queue = Queue::new(1);
        let mut flood: Vec<_> =
            (0..=u8::MAX).map(|number| (number, Box::pin(queue.turn(tenant(number))))).collect();
        let mut begun = Vec::new();
        let mut overloaded = 0;
        for (_, one) in &mut flood {
            match one.now_or_never() {
                Some(Ok(turn)) => begun.push(turn),
                Some(Err(Full::Queue)) => overloaded += 1,
                Some(Err(error)) => panic!("{error:?}"),
                None => {}
            }
        }
        assert!(overloaded > 0, "the common queue has no end");
        let [_, sign_ins, others] = places(&queue);
        assert_eq!(others, 0);
        assert!(sign_ins * 2 >= WAITING_PER_CORE_MAX, "{sign_ins} places are left");
        let mut one = Box::pin(queue.turn(sign_in("acme")));
        assert!((&mut one).now_or_never().is_none(), "it did not wait");
        drop(flood);
        drop(begun);
        assert!(one.await.is_ok());
    }

    #[tokio::test]
    async fn a_tenant_that_fills_its_share_does_not_keep_its_people_from_signing_in() {
        let queue = Queue::new(4);
        let mut full = Vec::new();
        for _ in 0..QUEUED_PER_SHARE_MAX {
            full.push(queue.turn(tenant(1)).await.unwrap());
        }
        assert!(queue.turn(tenant(1)).now_or_never().is_none());
        assert!(queue.turn(sign_in("acme")).now_or_never().is_some_and(|turn| turn.is_ok()));
        assert!(queue.turn(tenant(2)).now_or_never().is_some_and(|turn| turn.is_ok()));
    }

    #[test]
    fn one_customer_has_one_share_whatever_address_they_come_from() {
        let share = |text: &str| Share::address(Some(text.parse().unwrap()));
        assert_eq!(share("2001:db8::1"), share("2001:db8::ffff:1:2:3"));
        assert_ne!(share("2001:db8::1"), share("2001:db8:0:1::1"));
        assert_eq!(share("::ffff:192.0.2.1"), share("192.0.2.1"));
        assert_ne!(share("192.0.2.1"), share("192.0.2.2"));
    }
}
