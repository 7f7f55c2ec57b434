//! What the actor costs: one ask of an awake tenant on the same thread, beside the floor of a oneshot
//! channel answered by a local task.

use std::sync::Arc;

use actors::call::Origin;
use actors::env::Env;
use actors::host::Hosts;
use actors::permit::{Operate, Permit};
use actors::quota::{Plan, Plans};
use actors::supervisor::{NewTenant, Supervisor, SupervisorOptions};
use actors::tenant::core::Shared;
use actors::tenant::directory::{ListDirectory, by_the_node};
use criterion::{Criterion, criterion_group, criterion_main};
use storage::store::Store;
use tokio::sync::{mpsc, oneshot};

fn hop(criterion: &mut Criterion) {
    let system = actix_rt::System::new();
    let store = Store::in_memory().expect("a store");
    let hosts = Hosts::new(1);
    let plans = Arc::new(Plans(
        [("free".to_owned(), Plan::default()), ("enterprise".to_owned(), Plan::default())].into(),
    ));
    let shared =
        Shared { env: Env::real(), plans, observers: Vec::new(), unlimited: Plan::default() };
    let options = SupervisorOptions {
        store,
        shared: Arc::new(shared),
        hosts: hosts.clone(),
        region: "local".to_owned(),
        default_plan: "free".to_owned(),
    };
    let handle = system.block_on(async {
        hosts.start_here();
        let tenants = Supervisor::start(options).await.expect("a supervisor");
        let new = NewTenant {
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: None,
            owner: None,
            origin: Origin::default(),
        };
        let tenant =
            tenants.create(by_the_node("bench"), None, new).await.expect("a tenant").reply.id;
        tenants.find(tenant).await.expect("an awake tenant")
    });
    let mut group = criterion.benchmark_group("tenant");
    let (door, mut asks) = mpsc::unbounded_channel::<oneshot::Sender<u64>>();
    system.block_on(async {
        actix_rt::spawn(async move {
            while let Some(reply) = asks.recv().await {
                let _gone = reply.send(1);
            }
        });
    });
    group.bench_function("floor_channel_and_oneshot", |bench| {
        bench.iter(|| {
            system.block_on(async {
                let (reply, answer) = oneshot::channel();
                door.send(reply).expect("a listener");
                answer.await.expect("an answer")
            })
        });
    });
    group.bench_function("one_ask", |bench| {
        bench.iter(|| {
            let permit = Permit::<Operate>::internal(handle.tenant(), "bench");
            let list = ListDirectory { after: None, limit: 1 };
            system.block_on(handle.query(permit, list)).expect("an answer")
        });
    });
    group.finish();
}

criterion_group!(benches, hop);
criterion_main!(benches);
