//! Going back, with and without accidents, on real storage with an archive in memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value as Json;
use storage::archive::memory::MemoryArchive;
use storage::id::{Id as _, SubmissionId, TeamId};
use storage::store::{Store, StoreOptions};

use super::*;
use crate::audit::entry::Entry;
use crate::call::Origin;
use crate::env::{Clock, Env};
use crate::host::Hosts;
use crate::permit::tests::by_test;
use crate::permit::{Action, Operate, Permit, Role, SignIn};
use crate::quota::{Plan, Plans, Quota};
use crate::supervisor::{NewTenant, Supervisor, SupervisorOptions, Tenants};
use crate::tenant::core::{Core, Shared};
use crate::tenant::directory::by_the_node;
use crate::tenant::members::{AddMember, ReadMember, RemoveMember};
use crate::tenant::people::{SessionRow, UserRow};
use crate::tenant::sessions::{Credential, OpenSession, Opened};
use crate::travel::TimeTravel;

/// Rows of a tenant by encoded key.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

struct HeldClock(AtomicU64);

impl Clock for HeldClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }
}

/// A splitmix64 generator.
struct Dice(u64);

impl Dice {
    fn thrown(test: &str) -> Self {
        let seed = u64::from_be_bytes(Env::real().random());
        println!("{test}: seed {seed}");
        Self(seed)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Writes rows as they are.
struct Write(Vec<(Key, Option<Vec<u8>>)>);

impl Command for Write {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "test.write";
    fn target(&self) -> Named {
        Named::new("test", "-")
    }
    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        for (key, value) in self.0 {
            match value {
                Some(value) => cx.put_bytes(&key, value)?,
                None => cx.delete(&key)?,
            }
        }
        cx.audit(Draft::success(Self::NAME, Named::new("test", "-")));
        Ok(())
    }
}

fn submission(n: u64) -> Key {
    let form = storage::id::FormId::from_bytes([1; 16]);
    Key::Submission { form, id: SubmissionId::new(n, [0; 10]) }
}

fn team(n: u64) -> Key {
    Key::Team { id: TeamId::new(n, [0; 10]) }
}

async fn start(store: &Arc<Store>, clock: &Arc<HeldClock>) -> Tenants {
    let hosts = Hosts::new(1);
    hosts.start_here();
    let plans = ["free", "enterprise"].map(|name| (name.to_owned(), Plan::default()));
    let shared = Shared {
        env: Env::real().with_clock(clock.clone()),
        plans: Arc::new(Plans(plans.into())),
        observers: Vec::new(),
        unlimited: Plan::default(),
    };
    let options = SupervisorOptions {
        store: store.clone(),
        shared: Arc::new(shared),
        hosts,
        region: "local".to_owned(),
        default_plan: "free".to_owned(),
    };
    Supervisor::start(options).await.unwrap()
}

/// A node with one tenant and an archive.
struct Scene {
    _dir: tempfile::TempDir,
    archive: Arc<MemoryArchive>,
    clock: Arc<HeldClock>,
    store: Arc<Store>,
    tenants: Tenants,
    tenant: TenantId,
}

impl Scene {
    fn run<F: Future<Output = ()>>(test: impl FnOnce(Self) -> F) {
        actix_rt::System::new().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let archive = Arc::new(MemoryArchive::new());
            let options = StoreOptions {
                archive: Some(archive.clone()),
                ..StoreOptions::new(dir.path().join("data"))
            };
            let store = Store::open(options).unwrap();
            let clock = Arc::new(HeldClock(AtomicU64::new(1_700_000_000_000)));
            let tenants = start(&store, &clock).await;
            let new = NewTenant {
                slug: "acme".to_owned(),
                name: "Acme".to_owned(),
                plan: None,
                owner: None,
                origin: Origin::default(),
            };
            let made = tenants.create(by_the_node("test"), None, new).await.unwrap();
            let tenant = made.reply.id;
            test(Self { _dir: dir, archive, clock, store, tenants, tenant }).await;
        });
    }

    /// The same store behind another node, as after a crash.
    async fn restart(&mut self) {
        self.tenants.stop().await;
        self.tenants = start(&self.store, &self.clock).await;
    }

    fn permit<A: Action>(&self) -> Permit<A> {
        by_test(self.tenant)
    }

    async fn command<C: Command>(&self, command: C) -> Result<C::Reply, TenantError> {
        let door = self.tenants.find(self.tenant).await?;
        let answered = door.command(self.permit(), Origin::default(), None, command).await?;
        Ok(answered.reply)
    }

    async fn query<Q: Query>(&self, query: Q) -> Result<Q::Reply, TenantError> {
        self.tenants.find(self.tenant).await?.query(self.permit(), query).await
    }

    /// Lets time pass and writes; answers when.
    async fn write(&self, rows: Vec<(Key, Option<Vec<u8>>)>) -> u64 {
        let at_ms = self.clock.0.fetch_add(1_000, Ordering::SeqCst) + 1_000;
        self.command(Write(rows)).await.unwrap();
        at_ms
    }

    async fn request(&self, at_ms: u64) -> Result<RestoreId, TenantError> {
        let travel = TimeTravel::new(self.tenants.clone());
        let point = travel.point(self.tenant, "/at", at_ms).await?;
        let (id, _) = self.command(RequestRestore { at_ms, lsn: point.tail.lsn }).await?;
        Ok(id)
    }

    async fn restore(&self, at_ms: u64) -> RestoreId {
        let id = self.request(at_ms).await.unwrap();
        let travel = TimeTravel::new(self.tenants.clone());
        travel.carry_out(self.tenant, |_| {}).await.unwrap();
        id
    }

    async fn status(&self, id: RestoreId) -> Json {
        let document = self.query(ReadRestore { id }).await.unwrap();
        serde_json::from_slice(&document.json).unwrap()
    }

    /// What is done with the tenant while nobody else is in it.
    async fn inside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> T {
        let held = self.tenants.hold(self.tenant).await.unwrap();
        let done =
            tokio::task::spawn_blocking(move || act(&mut held.open(&mut |_, _| {}).unwrap()));
        done.await.unwrap()
    }

    /// Every row that time changes, as it is now.
    async fn rows(&self) -> Rows {
        self.inside(|core| {
            let rows = core.shard().scan(&Scan::all(Prefix::all())).unwrap();
            let rows = rows.into_iter().filter(|(key, _)| !is_timeless(key));
            rows.map(|(key, value)| (key.encode(), value.to_vec())).collect()
        })
        .await
    }

    /// The actions in the audit log, oldest first, once its chain was found whole.
    async fn audited(&self) -> Vec<String> {
        self.inside(|core| {
            let any = Key::Audit { seq: 0 };
            let rows = core.shard().scan(&Scan::all(Prefix::kind(&any))).unwrap();
            let entries: Vec<Entry> = rows
                .iter()
                .flat_map(|(_, bytes)| value::decode::<Vec<Entry>>(bytes).unwrap())
                .collect();
            for (index, entry) in entries.iter().enumerate() {
                assert_eq!(entry.seq, index as u64 + 1, "a gap in the chain");
                let prev = index.checked_sub(1).map(|before| &entries[before].hash);
                assert!(prev.is_none_or(|prev| entry.prev == *prev), "a break at {}", entry.seq);
                assert_eq!(entry.hash, hex::encode(entry.compute_hash()), "{}", entry.seq);
            }
            let last = entries.last().unwrap();
            let head = core.state().audit;
            assert_eq!((head.seq, &hex::encode(head.hash)), (last.seq, &last.hash));
            entries.into_iter().map(|entry| entry.action).collect()
        })
        .await
    }

    /// Makes sure that the stored bytes are what a recount gives.
    async fn recount(&self) {
        let (counted, used) = self
            .inside(|core| {
                let rows = core.shard().scan(&Scan::all(Prefix::all())).unwrap();
                let counted = rows.iter().map(|(key, value)| {
                    let key = key.encode();
                    if Key::is_counted(key[0]) { (key.len() + value.len()) as u64 } else { 0 }
                });
                (counted.sum::<u64>(), core.state().used.of(Quota::StorageBytes))
            })
            .await;
        assert_eq!(used, counted, "stored bytes");
    }

    async fn sign_in(&self, user: UserId) -> Opened {
        let credential = Credential { user, password_phc: "phc".to_owned() };
        let door = self.tenants.find(self.tenant).await.unwrap();
        let permit = Permit::<SignIn>::anonymous(self.tenant);
        let open = OpenSession { credential };
        door.command(permit, Origin::default(), None, open).await.unwrap().reply
    }

    async fn add(&self, name: &str) -> UserId {
        self.clock.0.fetch_add(1_000, Ordering::SeqCst);
        let email = format!("{name}@acme.example");
        let password_phc = "phc".to_owned();
        self.command(AddMember { email, role: Role::Member, password_phc }).await.unwrap().0
    }

    async fn user(&self, id: UserId) -> (Option<UserRow>, usize) {
        self.inside(move |core| {
            let row = core.shard().get(&Key::User { id }).unwrap();
            let any = Key::Session { user: id, id: storage::id::Id::from_bytes([0; 16]) };
            let sessions = core.shard().scan(&Scan::all(Prefix::owner(&any))).unwrap();
            let whole = |(_, bytes): &(Key, storage::txn::Value)| {
                value::decode::<SessionRow>(bytes).is_ok()
            };
            assert!(sessions.iter().all(whole));
            (row.map(|bytes| value::decode(&bytes).unwrap()), sessions.len())
        })
        .await
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}

#[test]
fn a_restore_gives_back_every_row_and_takes_away_every_other() {
    let mut dice = Dice::thrown("every row");
    Scene::run(|scene| async move {
        let mut past: Vec<(u64, Rows)> = vec![(scene.now_ms(), scene.rows().await)];
        for round in 0..60 {
            if round % 20 == 19 {
                // Restores are history like everything else: also of themselves.
                let (at_ms, expected) =
                    past[usize::try_from(dice.below(past.len() as u64)).unwrap()].clone();
                scene.clock.0.fetch_add(1_000, Ordering::SeqCst);
                let id = scene.restore(at_ms).await;
                assert_eq!(scene.rows().await, expected, "round {round}");
                assert_eq!(scene.status(id).await["status"], "done");
                scene.recount().await;
                past.push((scene.now_ms(), expected));
                continue;
            }
            let (mut rows, mut state) = (Vec::new(), past.last().unwrap().1.clone());
            for _ in 0..=dice.below(4) {
                let number = dice.below(12);
                let key = if dice.below(2) == 0 { submission(number) } else { team(number) };
                let length = usize::try_from(dice.below(200)).unwrap();
                let value = (dice.below(3) > 0).then(|| vec![dice.below(256) as u8; length]);
                match &value {
                    Some(value) => state.insert(key.encode(), value.clone()),
                    None => state.remove(&key.encode()),
                };
                rows.push((key, value));
            }
            past.push((scene.write(rows).await, state));
        }
        let audited = scene.audited().await;
        let count = |name: &str| audited.iter().filter(|action| *action == name).count();
        assert_eq!((count("test.write"), count("tenant.restore_request")), (57, 3));
        assert_eq!(count("tenant.restore"), 3);
    });
}

#[test]
fn a_restore_that_was_asked_for_is_carried_out_by_the_next_waking() {
    Scene::run(|mut scene| async move {
        let at_ms = scene.write(vec![(team(1), Some(b"one".to_vec()))]).await;
        let then = scene.rows().await;
        scene.write(vec![(team(1), None), (team(2), Some(b"two".to_vec()))]).await;
        let id = scene.request(at_ms).await.unwrap();
        scene.restart().await;
        assert_eq!(scene.status(id).await["status"], "done", "served before it was as it was");
        assert_eq!(scene.rows().await, then);
        let audited = scene.audited().await;
        assert_eq!(audited[audited.len() - 2..], ["tenant.restore_request", "tenant.restore"]);
        scene.recount().await;
    });
}

#[test]
fn a_restore_that_dies_midway_is_finished_by_the_next_waking() {
    Scene::run(|mut scene| async move {
        let at_ms = scene.write(vec![(team(1), Some(b"one".to_vec()))]).await;
        let then = scene.rows().await;
        for n in 0..20 {
            scene.write(vec![(submission(n), Some(vec![7; 1 << 20]))]).await;
        }
        let later = scene.rows().await;
        scene.clock.0.fetch_add(1_000, Ordering::SeqCst);
        let id = scene.request(at_ms).await.unwrap();
        let held = scene.tenants.hold(scene.tenant).await.unwrap();
        let died = tokio::task::spawn_blocking(move || {
            // Told after each chunk; the rows are too few to be told on the way.
            held.open(&mut |_, _| panic!("the process died")).map(drop)
        });
        assert!(died.await.unwrap_err().is_panic());
        let midway_ms = scene.now_ms();
        scene.clock.0.fetch_add(1_000, Ordering::SeqCst);
        scene.restart().await;
        assert_eq!(scene.status(id).await["status"], "done", "served before it was as it was");
        assert_eq!(scene.rows().await, then);
        scene.recount().await;
        assert_eq!(scene.audited().await.last().unwrap(), "tenant.restore");

        // The state in its midst was nobody's.
        let travel = TimeTravel::new(scene.tenants.clone());
        let refused = travel.point(scene.tenant, "/at", midway_ms).await.unwrap_err();
        let TenantError::Invalid(errors) = refused else { panic!("{refused:?}") };
        assert!(errors[0].message.contains("in the midst of an earlier restore"), "{errors:?}");

        // And what was taken away comes back, in several records as well.
        let id = scene.restore(midway_ms - 1).await;
        assert_eq!(scene.status(id).await["rows_changed"], 20);
        assert_eq!(scene.rows().await, later);
        scene.recount().await;
    });
}

#[test]
fn a_second_restore_waits_for_the_first() {
    Scene::run(|scene| async move {
        let at_ms = scene.write(vec![(team(1), Some(b"one".to_vec()))]).await;
        scene.request(at_ms).await.unwrap();
        let refused = scene.request(at_ms).await.unwrap_err();
        assert!(matches!(refused, TenantError::Conflict(Conflict::RestoreRunning)), "{refused:?}");
    });
}

#[test]
fn a_restore_that_cannot_begin_changes_nothing_and_says_why() {
    Scene::run(|scene| async move {
        let at_ms = scene.write(vec![(team(1), Some(b"one".to_vec()))]).await;
        scene.write(vec![(team(1), Some(b"two".to_vec()))]).await;
        let now = scene.rows().await;
        let id = scene.request(at_ms).await.unwrap();
        scene.archive.set_reachable(false);
        let travel = TimeTravel::new(scene.tenants.clone());
        assert_eq!(travel.carry_out(scene.tenant, |_| {}).await.unwrap(), 0);
        let status = scene.status(id).await;
        assert_eq!((&status["status"], &status["rows_changed"]), (&"failed".into(), &0.into()));
        assert!(status["reason"].as_str().unwrap().contains("cannot be reached"), "{status}");
        assert_eq!(scene.rows().await, now);
        assert_eq!(scene.audited().await.last().unwrap(), "tenant.restore_fail");

        // The next one is not held up by it.
        scene.archive.set_reachable(true);
        let id = scene.restore(at_ms).await;
        assert_eq!(scene.status(id).await["status"], "done");
    });
}

#[test]
fn people_who_change_by_it_sign_in_again_and_others_do_not() {
    Scene::run(|scene| async move {
        let (ann, bob) = (scene.add("ann").await, scene.add("bob").await);
        let at_ms = scene.now_ms();
        let (ann_then, bob_then) = (scene.user(ann).await.0.unwrap(), scene.user(bob).await.0);
        let cat = scene.add("cat").await;
        for user in [ann, bob, cat] {
            scene.sign_in(user).await;
        }
        scene.command(RemoveMember { user: ann }).await.unwrap();
        let gone = scene.query(ReadMember { user: ann }).await.unwrap_err();
        assert!(matches!(gone, TenantError::NotFound));
        scene.clock.0.fetch_add(1_000, Ordering::SeqCst);
        scene.restore(at_ms).await;

        let (row, sessions) = scene.user(ann).await;
        let row = row.unwrap();
        assert!(row.authz > ann_then.authz, "an old token would speak for her again");
        assert_eq!(UserRow { authz: ann_then.authz, ..row }, ann_then);
        assert_eq!(sessions, 0);
        assert_eq!(scene.user(bob).await, (bob_then, 1), "nothing of his changed");
        assert_eq!(scene.user(cat).await, (None, 0));
        let members = scene.inside(|core| core.state().used.of(Quota::Members)).await;
        assert_eq!(members, 2);
        scene.recount().await;
    });
}

#[test]
fn restores_are_listed_newest_first_page_by_page() {
    Scene::run(|scene| async move {
        let at_ms = scene.write(vec![(team(1), Some(b"one".to_vec()))]).await;
        let mut made = Vec::new();
        for _ in 0..3 {
            scene.clock.0.fetch_add(1_000, Ordering::SeqCst);
            made.insert(0, scene.restore(at_ms).await.to_string());
        }
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let paging = Paging { limit: 2, cursor };
            let page = scene.query(ListRestores { paging }).await.unwrap();
            assert!(page.items.len() <= 2);
            for item in &page.items {
                let item: Json = serde_json::from_slice(item).unwrap();
                listed.push(item["id"].as_str().unwrap().to_owned());
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(listed, made);
    });
}
