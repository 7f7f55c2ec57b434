//! Tenants that panic, flood or sleep: nobody else notices, and nothing acknowledged is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use actors::env::{Clock, Faults, SystemClock};
use actors::limits;
use bulkhead::http::problem::Kind;
use serde_json::json;
use storage::id::TenantId;

use crate::kit::{
    Client, Dice, Launcher, Reply, Tenant, TestClock, World, WorldOptions, at_once, eventually,
    name_schema,
};

/// The real clock, whose monotonic side a test may push forward.
struct Skipping {
    real: SystemClock,
    skipped_ms: AtomicU64,
}

impl Skipping {
    fn new() -> Arc<Self> {
        Arc::new(Self { real: SystemClock::new(), skipped_ms: AtomicU64::new(0) })
    }
    /// Goes past the longest pause of a faulted tenant.
    fn skip_the_pause(&self) {
        let pause = limits::BACK_OFF_MAX.as_millis() as u64 * 2;
        self.skipped_ms.fetch_add(pause, Ordering::SeqCst);
    }
}

impl Clock for Skipping {
    fn now_ms(&self) -> u64 {
        self.real.now_ms()
    }
    fn monotonic(&self) -> Duration {
        self.real.monotonic() + Duration::from_millis(self.skipped_ms.load(Ordering::SeqCst))
    }
}

/// Makes writes of one tenant panic, some or all of them.
struct Panics {
    victim: Mutex<Option<TenantId>>,
    per_cent: AtomicU64,
    dice: Mutex<Dice>,
    count: AtomicUsize,
}

impl Panics {
    fn new(test: &str) -> Arc<Self> {
        Arc::new(Self {
            victim: Mutex::default(),
            per_cent: AtomicU64::new(0),
            dice: Mutex::new(Dice::thrown(test)),
            count: AtomicUsize::new(0),
        })
    }
    fn strike(&self, tenant: &Tenant, per_cent: u64) {
        *self.victim.lock().expect("a lock") = Some(tenant.id.parse().expect("an id"));
        self.per_cent.store(per_cent, Ordering::SeqCst);
    }
    fn end(&self) {
        self.per_cent.store(0, Ordering::SeqCst);
    }
}

impl Faults for Panics {
    fn hit(&self, point: &'static str, tenant: TenantId) {
        let is_victim = *self.victim.lock().expect("a lock") == Some(tenant);
        if point != "tenant.write" || !is_victim {
            return;
        }
        let thrown = self.dice.lock().expect("a lock").below(100);
        if thrown < self.per_cent.load(Ordering::SeqCst) {
            self.count.fetch_add(1, Ordering::SeqCst);
            panic!("an injected fault");
        }
    }
}

fn create(client: &Client, form: &str, name: &str) -> Reply {
    let place = format!("/v1/forms/{form}/submissions");
    client.call("POST", &place, Some(&json!({"data": {"name": name}})))
}

fn form_of(tenant: &Tenant) -> String {
    tenant.form_with(json!({"title": "Watched", "schema": name_schema()}))
}

/// Reads and writes of an innocent tenant, each of which must succeed, until told to end.
fn go_on(tenant: &Tenant, form: &str, end: &AtomicBool) -> usize {
    let mut answered = 0;
    while !end.load(Ordering::Relaxed) {
        let id = tenant.submit(&tenant.owner, form, &format!("undisturbed {answered}"));
        tenant.owner.get(&format!("/v1/forms/{form}/submissions/{id}"), 200);
        answered += 2;
    }
    answered
}

#[test]
fn a_tenant_that_panics_on_every_write_stops_alone_and_comes_back() {
    let (faults, clock) = (Panics::new("one panicking tenant"), Skipping::new());
    let world = WorldOptions::default().faults(faults.clone()).clock(clock.clone()).start();
    let others: Vec<_> = ["brook", "cliff", "dune"].map(|slug| world.tenant(slug)).into();
    let other_forms: Vec<_> = others.iter().map(form_of).collect();
    let sick = world.tenant("sick");
    let form = form_of(&sick);
    let kept: Vec<_> =
        (0..5).map(|at| sick.submit(&sick.owner, &form, &format!("before {at}"))).collect();
    faults.strike(&sick, 100);
    let end = AtomicBool::new(false);
    let answered: usize = std::thread::scope(|scope| {
        let innocent: Vec<_> = others
            .iter()
            .zip(&other_forms)
            .map(|(tenant, form)| scope.spawn(|| go_on(tenant, form, &end)))
            .collect();
        let mut failures = 0;
        let refused = loop {
            let reply = create(&sick.owner, &form, "never");
            match (reply.status, reply.problem().as_str()) {
                (500, "internal") => failures += 1,
                (503, "tenant-restarting") => {}
                (503, "tenant-faulted") => break reply,
                _ => panic!("{reply:?}"),
            }
        };
        assert_eq!(failures, limits::PANICS_MAX);
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        let refused = sick.owner.get(&format!("/v1/forms/{form}"), 503);
        assert_eq!(refused.problem(), "tenant-faulted");
        end.store(true, Ordering::Relaxed);
        innocent.into_iter().map(|one| one.join().expect("an undisturbed tenant")).sum()
    });
    let actor = world.ops.get(&format!("/actors/{}", sick.id), 200).json();
    assert_eq!(actor["state"], json!("faulted"), "{actor}");
    assert_eq!(actor["restarts"], json!(limits::PANICS_MAX), "{actor}");
    assert!(
        actor["last_fault"].as_str().is_some_and(|fault| fault.contains("injected")),
        "{actor}"
    );

    faults.end();
    clock.skip_the_pause();
    let after = eventually("the tenant comes back", || {
        let reply = create(&sick.owner, &form, "after");
        (reply.status == 201).then(|| reply.str("/id"))
    });
    let there: Vec<_> = sick.submissions(&form).into_iter().map(|(id, _)| id).collect();
    assert_eq!(there, [kept, vec![after]].concat(), "what panicked was not kept, all else was");
    println!(
        "one panicking tenant: {} panics, {answered} answers of 3 others, 0 failed",
        limits::PANICS_MAX
    );
}

#[test]
fn the_pause_of_a_faulted_tenant_grows_and_is_short_again_after_a_long_time_of_health() {
    let (faults, clock) = (Panics::new("growing pauses"), TestClock::new());
    let world = WorldOptions::default().faults(faults.clone()).clock(clock.clone()).start();
    let sick = world.tenant("sick");
    let form = form_of(&sick);
    let answer = || {
        eventually("an answer of the tenant's own", || {
            let reply = create(&sick.owner, &form, "again");
            let is_passing = reply.status == 500 || reply.text().contains("tenant-restarting");
            (!is_passing).then_some(reply.status)
        })
    };
    // With jitter a pause is up to a quarter longer.
    let first = limits::BACK_OFF_FIRST.mul_f64(1.3);
    for _ in 0..2 {
        faults.strike(&sick, 100);
        assert_eq!(answer(), 503);
        faults.end();
        clock.advance(first);
    }
    assert_eq!(answer(), 503, "the second pause is longer than the first");
    clock.advance(limits::BACK_OFF_FIRST.mul_f64(1.3));
    assert_eq!(answer(), 201);

    clock.advance(limits::BACK_OFF_MAX * 2);
    faults.strike(&sick, 100);
    assert_eq!(answer(), 503);
    faults.end();
    clock.advance(first);
    assert_eq!(answer(), 201, "long ago is forgotten");
}

#[test]
fn in_a_storm_of_panics_every_acknowledged_create_is_done_exactly_once() {
    const WRITERS: usize = 6;
    const CREATES: usize = 40;
    let (faults, clock) = (Panics::new("panic storm"), Skipping::new());
    let world = WorldOptions::default().faults(faults.clone()).clock(clock.clone()).start();
    let (sick, well) = (world.tenant("sick"), world.tenant("well"));
    let (form, well_form) = (form_of(&sick), form_of(&well));
    faults.strike(&sick, 20);
    let end = AtomicBool::new(false);
    let attempts = AtomicUsize::new(0);
    let write = |writer: usize| -> Vec<(String, String)> {
        let one = |step: usize| {
            let name = format!("w{writer}-{step}");
            let client = sick.owner.with_header("idempotency-key", &name);
            eventually("an acknowledged create", || {
                attempts.fetch_add(1, Ordering::Relaxed);
                let reply = create(&client, &form, &name);
                match reply.status {
                    201 => return Some((name.clone(), reply.str("/id"))),
                    503 if reply.problem() == "tenant-faulted" => clock.skip_the_pause(),
                    500 | 503 | 504 => {}
                    _ => panic!("{reply:?}"),
                }
                None
            })
        };
        (0..CREATES).map(one).collect()
    };
    let (promised, answered) = std::thread::scope(|scope| {
        let innocent = scope.spawn(|| go_on(&well, &well_form, &end));
        let promised: Vec<_> = at_once(WRITERS, write).into_iter().flatten().collect();
        end.store(true, Ordering::Relaxed);
        (promised, innocent.join().expect("an undisturbed tenant"))
    });
    faults.end();
    let mut there: HashMap<String, Vec<String>> = HashMap::new();
    for (id, name) in sick.submissions(&form) {
        there.entry(name).or_default().push(id);
    }
    assert_eq!(there.len(), WRITERS * CREATES);
    for (name, id) in promised {
        assert_eq!(there[&name], [id], "{name}");
    }
    let verified = sick.owner.get("/v1/audit/verify", 200).json();
    assert_eq!(verified["ok"], json!(true), "{verified}");
    println!(
        "panic storm: {} creates in {} attempts through {} panics, each exactly once; \
         {answered} answers of another tenant, 0 failed",
        WRITERS * CREATES,
        attempts.into_inner(),
        faults.count.load(Ordering::SeqCst)
    );
}

#[test]
fn a_flooding_tenant_is_held_back_and_quiet_ones_are_all_answered() {
    assert!(!flood("off").contains_key(&429));
    assert!(flood("300/1m")[&429] > 0);
}

/// Lets one tenant flood while others work; answers how often the flooder got which status.
fn flood(rate: &str) -> HashMap<u16, usize> {
    const FLOODERS: usize = 64;
    let world = WorldOptions::default().set("rate.api.per_tenant", rate).start();
    let loud = world.tenant("loud");
    let loud_form = form_of(&loud);
    let quiet: Vec<_> = (0..8).map(|at| world.tenant(&format!("quiet-{at}"))).collect();
    let forms: Vec<_> = quiet.iter().map(form_of).collect();
    let end = AtomicBool::new(false);
    let flood = |at: usize| {
        let mut seen: HashMap<u16, usize> = HashMap::new();
        while !end.load(Ordering::Relaxed) {
            let reply = match at % 4 {
                0 => create(&loud.owner, &loud_form, "flood"),
                _ => loud.owner.call("GET", &format!("/v1/forms/{loud_form}"), None),
            };
            assert!(matches!(reply.status, 200 | 201 | 429 | 503), "{reply:?}");
            let must_wait = matches!(reply.status, 429 | 503);
            assert!(!must_wait || reply.header("retry-after").is_some(), "{reply:?}");
            *seen.entry(reply.status).or_default() += 1;
        }
        seen
    };
    let (mut times_ms, seen) = std::thread::scope(|scope| {
        let flooders = scope.spawn(|| at_once(FLOODERS, flood));
        let times: Vec<Vec<u128>> = at_once(quiet.len(), |at| {
            let (tenant, form, clock) = (&quiet[at], &forms[at], SystemClock::new());
            let timed = |step: usize| {
                let start = clock.monotonic();
                match step % 2 {
                    0 => drop(tenant.submit(&tenant.owner, form, "quiet")),
                    _ => drop(tenant.owner.get(&format!("/v1/forms/{form}"), 200)),
                }
                (clock.monotonic() - start).as_millis()
            };
            (0..20).map(timed).collect()
        });
        end.store(true, Ordering::Relaxed);
        (times.concat(), flooders.join().expect("flooders"))
    });
    times_ms.sort_unstable();
    let mut total: HashMap<u16, usize> = HashMap::new();
    seen.into_iter()
        .flatten()
        .for_each(|(status, count)| *total.entry(status).or_default() += count);
    println!(
        "flood at {rate}: {} quiet requests, 0 failed, median {} ms, worst {} ms; the flooder got {total:?}",
        times_ms.len(),
        times_ms[times_ms.len() / 2],
        times_ms[times_ms.len() - 1]
    );
    total
}

/// Holds one tenant's reads until it is let go.
#[derive(Default)]
struct Brake {
    victim: Mutex<Option<TenantId>>,
    released: Condvar,
}

impl Faults for Brake {
    fn hit(&self, point: &'static str, tenant: TenantId) {
        let held = self.victim.lock().expect("a lock");
        let is_held =
            |victim: &mut Option<TenantId>| point == "tenant.read" && *victim == Some(tenant);
        drop(self.released.wait_while(held, is_held).expect("a lock"));
    }
}

#[test]
fn more_requests_than_a_tenant_takes_are_refused_at_once_with_a_hint_when_to_come_back() {
    const CALLERS: usize = 400;
    let brake = Arc::new(Brake::default());
    let world = WorldOptions::default().faults(brake.clone()).start();
    let tenant = world.tenant("acme");
    let form = form_of(&tenant);
    *brake.victim.lock().expect("a lock") = Some(tenant.id.parse().expect("an id"));
    let replies = std::thread::scope(|scope| {
        let callers = scope.spawn(|| {
            at_once(CALLERS, |_| tenant.owner.call("GET", &format!("/v1/forms/{form}"), None))
        });
        eventually("a tenant with all it takes under way", || {
            let actor = world.ops.get(&format!("/actors/{}", tenant.id), 200).json();
            (actor["in_flight"] == json!(limits::IN_FLIGHT_MAX) || callers.is_finished())
                .then_some(())
        });
        *brake.victim.lock().expect("a lock") = None;
        brake.released.notify_all();
        callers.join().expect("callers")
    });
    let (answered, refused): (Vec<_>, Vec<_>) =
        replies.iter().partition(|reply| reply.status == 200);
    assert!(answered.len() >= limits::IN_FLIGHT_MAX, "{} were answered", answered.len());
    for reply in &refused {
        let wanted = (Kind::TENANT_BUSY.status.as_u16(), "tenant-busy");
        assert_eq!((reply.status, reply.problem().as_str()), wanted, "{reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
    tenant.owner.get(&format!("/v1/forms/{form}"), 200);
    println!("in-flight cap: {} answered, {} refused of {CALLERS}", answered.len(), refused.len());
}

#[test]
fn an_idle_tenant_falls_asleep_and_answers_the_same_when_it_wakes() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let tenant = world.tenant("acme");
    let form = form_of(&tenant);
    let ids: Vec<_> =
        (0..5).map(|at| tenant.submit(&tenant.owner, &form, &format!("kept {at}"))).collect();
    let paths = [
        format!("/v1/forms/{form}"),
        format!("/v1/forms/{form}/submissions/{}", ids[4]),
        format!("/v1/forms/{form}/submissions"),
        "/v1/audit".to_owned(),
        "/v1/usage".to_owned(),
    ];
    let answers =
        || -> Vec<_> { paths.iter().map(|path| tenant.owner.get(path, 200).essence()).collect() };
    let before = answers();
    let actor = || world.ops.get(&format!("/actors/{}", tenant.id), 200).json();
    let wakes = actor()["wakes"].as_u64().expect("a number");
    clock.advance(limits::IDLE_AFTER + Duration::from_secs(1));
    eventually("an idle tenant that sleeps", || {
        (actor()["state"] == json!("asleep")).then_some(())
    });
    assert_eq!(actor()["resident_bytes"], json!(0), "asleep it holds nothing");
    assert_eq!(answers(), before);
    assert_eq!(actor()["wakes"], json!(wakes + 1));
    assert_eq!(actor()["state"], json!("awake"));
}

#[test]
fn a_stop_in_the_middle_of_work_loses_nothing_acknowledged_and_starts_clean() {
    const WRITERS: usize = 16;
    let dir = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&dir.path().join("data"));
    let mut node = launcher.serve();
    let mut homes: Vec<(Tenant, String)> = (0..4)
        .map(|at| Tenant::sign_up(&node.client, &format!("tenant-{at}")))
        .map(|tenant| {
            let form = form_of(&tenant);
            (tenant, form)
        })
        .collect();
    let answered = AtomicUsize::new(0);
    let write = |writer: usize| {
        let (tenant, form) = &homes[writer % homes.len()];
        let place = format!("/v1/forms/{form}/submissions");
        let mut promised = Vec::new();
        loop {
            let name = format!("w{writer}-{}", promised.len());
            let body = json!({"data": {"name": name}}).to_string();
            match tenant.owner.try_send("POST", &place, Some("application/json"), body.as_bytes()) {
                Ok(reply) if reply.status == 201 => promised.push((reply.str("/id"), name)),
                Ok(reply) => {
                    assert_eq!(reply.status, 503, "{reply:?}");
                    assert!(reply.header("retry-after").is_some(), "{reply:?}");
                    break promised;
                }
                Err(_) => break promised,
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let promised: Vec<Vec<(String, String)>> = std::thread::scope(|scope| {
        let writers = scope.spawn(|| at_once(WRITERS, write));
        eventually("work under way", || (answered.load(Ordering::Relaxed) >= 200).then_some(()));
        assert!(node.terminate().success(), "{}", node.stderr());
        writers.join().expect("writers")
    });
    assert!(
        !launcher.data.join("node.json").exists(),
        "a stopped node takes its announcement back"
    );
    node = launcher.serve();
    assert!(!node.stderr().contains("mended"), "{}", node.stderr());
    for (at, (tenant, form)) in homes.iter_mut().enumerate() {
        tenant.move_to(&node.client);
        let there: HashMap<_, _> = tenant.submissions(form).into_iter().collect();
        for (id, name) in promised.iter().skip(at).step_by(4).flatten() {
            assert_eq!(there.get(id), Some(name));
        }
    }
    launcher.run(&["audit", "verify"]).expect(0);
    let count = promised.iter().map(Vec::len).sum::<usize>();
    println!("graceful stop: {count} acknowledged by {WRITERS} writers, 0 lost, a clean start");
}

#[test]
fn two_worlds_in_one_process_know_nothing_of_each_other() {
    let (one, other) = (World::start(), World::start());
    let tenant = one.tenant("acme");
    let stranger = other.client.with_token(tenant.owner.token.as_ref().expect("a token"));
    stranger.get("/v1/tenant", 401);
    other.tenant("acme");
}
