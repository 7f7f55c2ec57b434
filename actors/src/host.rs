//! Where tenants run: the HTTP workers' own threads.
//!
//! Each worker thread registers itself once. A tenant is pinned to one of them by a hash of its id,
//! so a request that arrives on the same thread reaches the tenant without crossing to another.

use std::sync::{Arc, Mutex};

use storage::id::{Id, TenantId};
use tokio::sync::{mpsc, watch};

/// Work to be done on a host's thread: starting a tenant there.
pub(crate) type Start = Box<dyn FnOnce() + Send>;

/// The threads that host tenants.
#[derive(Clone)]
pub struct Hosts {
    expected: usize,
    doors: Arc<Mutex<Vec<mpsc::UnboundedSender<Start>>>>,
    count: watch::Sender<usize>,
}

impl Hosts {
    /// For a node with that many hosting threads.
    pub fn new(expected: usize) -> Self {
        let (count, _) = watch::channel(0);
        Self { expected: expected.max(1), doors: Arc::default(), count }
    }

    /// Makes the current thread a host. Call it once on each, inside its local task set.
    pub fn start_here(&self) {
        let (door, mut starts) = mpsc::unbounded_channel::<Start>();
        actix_rt::spawn(async move {
            while let Some(start) = starts.recv().await {
                start();
            }
        });
        let mut doors =
            self.doors.lock().expect("no thread panics while it holds the list of hosts");
        doors.push(door);
        let registered = doors.len();
        drop(doors);
        self.count.send_replace(registered);
    }

    /// Returns once every expected thread is a host.
    pub async fn ready(&self) {
        let mut count = self.count.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _closed = count.wait_for(|&registered| registered >= self.expected).await;
    }

    /// Runs `start` on the tenant's host. Whether there is one that is alive.
    pub(crate) fn run(&self, tenant: TenantId, mut start: Start) -> bool {
        let doors = self.doors.lock().expect("no thread panics while it holds the list of hosts");
        let first = place(tenant, doors.len());
        for step in 0..doors.len() {
            match doors[(first + step) % doors.len()].send(start) {
                Ok(()) => return true,
                Err(refused) => start = refused.0,
            }
        }
        false
    }
}

fn place(tenant: TenantId, hosts: usize) -> usize {
    let bytes = tenant.as_bytes();
    let random = u64::from_be_bytes([
        bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15],
    ]);
    usize::try_from(random % hosts.max(1) as u64).unwrap_or(0)
}
