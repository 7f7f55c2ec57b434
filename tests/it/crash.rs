//! kill −9, again and again, under concurrent writers who remember what they were promised.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::kit::{Dice, Launcher, Process, Tenant, eventually, name_schema, number_from};

const TENANTS: usize = 8;
const WRITERS: usize = 16;
/// Keyed creates of a round that are sent again although they were answered.
const REPLAYS_MAX: usize = 32;

struct Home {
    tenant: Tenant,
    form: String,
}

/// A create that was sent.
#[derive(Clone)]
struct Attempt {
    home: usize,
    name: String,
    key: Option<String>,
}

/// What the writers know.
#[derive(Default)]
struct Ledger {
    /// Answered with 201 and this id.
    acknowledged: Vec<(Attempt, String)>,
    /// Never answered: done or not, but not both and not twice.
    unknown: Vec<Attempt>,
}

impl Ledger {
    fn absorb(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
    }
}

fn send(home: &Home, attempt: &Attempt) -> Result<crate::kit::Reply, ureq::Error> {
    let client = match &attempt.key {
        Some(key) => home.tenant.owner.with_header("idempotency-key", key),
        None => home.tenant.owner.clone(),
    };
    let body = json!({"data": {"name": attempt.name}}).to_string();
    let place = format!("/v1/forms/{}/submissions", home.form);
    client.try_send("POST", &place, Some("application/json"), body.as_bytes())
}

/// One writer: creates until nobody answers any more.
fn write(homes: &[Home], round: u64, writer: usize, answered: &AtomicUsize) -> Ledger {
    let mut ledger = Ledger::default();
    for step in 0.. {
        let name = format!("r{round}-w{writer}-{step}");
        let key = (step % 2 == 0).then(|| format!("key-{name}"));
        let attempt = Attempt { home: writer % TENANTS, name, key };
        match send(&homes[attempt.home], &attempt) {
            Ok(reply) => {
                assert_eq!(reply.status, 201, "{}", reply.text());
                ledger.acknowledged.push((attempt, reply.str("/id")));
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                ledger.unknown.push(attempt);
                break;
            }
        }
    }
    ledger
}

/// Lets everybody write, kills the node in the middle of it, and gathers what they know.
fn write_until_killed(node: &mut Process, homes: &[Home], round: u64, target: usize) -> Ledger {
    let answered = AtomicUsize::new(0);
    let mut ledger = Ledger::default();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let answered = &answered;
                scope.spawn(move || write(homes, round, writer, answered))
            })
            .collect();
        eventually("enough answers", || {
            (answered.load(Ordering::Relaxed) >= target
                || writers.iter().any(|one| one.is_finished()))
            .then_some(())
        });
        node.kill();
        for writer in writers {
            ledger.absorb(writer.join().expect("a writer that ends"));
        }
    });
    ledger
}

/// Sends keyed creates again. An answered one keeps its id, an unanswered one gets one now.
fn send_again(homes: &[Home], round: &mut Ledger) -> usize {
    let is_keyed = |attempt: &Attempt| attempt.key.is_some();
    let (keyed, unkeyed) = std::mem::take(&mut round.unknown).into_iter().partition(is_keyed);
    round.unknown = unkeyed;
    let keyed: Vec<Attempt> = keyed;
    let mut repeated = 0;
    let answered = round.acknowledged.iter().rev().filter(|(attempt, _)| is_keyed(attempt));
    for (attempt, id) in answered.take(REPLAYS_MAX) {
        let reply = send(&homes[attempt.home], attempt).expect("a node that serves");
        assert_eq!(reply.status, 201, "{}", reply.text());
        assert_eq!(reply.str("/id"), *id, "{} was done again", attempt.name);
        assert_eq!(reply.header("idempotency-replayed"), Some("true"), "{reply:?}");
        repeated += 1;
    }
    for attempt in keyed {
        let reply = send(&homes[attempt.home], &attempt).expect("a node that serves");
        assert_eq!(reply.status, 201, "{}", reply.text());
        round.acknowledged.push((attempt, reply.str("/id")));
        repeated += 1;
    }
    repeated
}

/// Compares what is there with what was promised.
fn compare(homes: &[Home], ledger: &Ledger) {
    for (index, home) in homes.iter().enumerate() {
        let mut found: HashMap<String, String> = HashMap::new();
        for (id, name) in home.tenant.submissions(&home.form) {
            let twice = found.insert(name.clone(), id);
            assert_eq!(twice, None, "{name} was done twice");
        }
        let ours = |attempt: &&Attempt| attempt.home == index;
        for (attempt, id) in ledger.acknowledged.iter().filter(|(attempt, _)| attempt.home == index)
        {
            let there = found.remove(&attempt.name);
            assert_eq!(there.as_ref(), Some(id), "{} was acknowledged", attempt.name);
        }
        let unknown: HashSet<&String> =
            ledger.unknown.iter().filter(ours).map(|one| &one.name).collect();
        let invented: Vec<_> = found.keys().filter(|name| !unknown.contains(name)).collect();
        assert!(invented.is_empty(), "nobody wrote {invented:?}");
    }
}

/// Verifies every history with the command line; returns how many records there are.
fn verify(launcher: &Launcher, node: Option<&Process>) -> u64 {
    let report = launcher.run(&["audit", "verify", "--json"]).expect(0).json();
    assert_eq!(report["ok"], json!(true), "{report}");
    let mut records = 0;
    for tenant in report["tenants"].as_array().expect("tenants") {
        let verified = tenant["records"].as_u64().expect("a number");
        records += verified;
        if let Some(node) = node {
            let id = tenant["tenant"].as_str().expect("an id");
            let actor = node.ops.get(&format!("/actors/{id}"), 200).json();
            let is_asleep = actor["state"] == json!("asleep");
            assert!(is_asleep || actor["lsn"] == json!(verified), "{actor}: {verified} records");
        }
    }
    records
}

/// Kills a node that is still reading what the last one left behind.
fn kill_while_starting(launcher: &Launcher) {
    let mut node = launcher.launch(&["serve"]);
    let (lock, pid) = (launcher.data.join("LOCK"), node.pid().to_string());
    eventually("a locked directory", || {
        std::fs::read_to_string(&lock).ok().filter(|holder| holder.trim() == pid)
    });
    node.kill();
}

#[test]
fn kill_9_at_any_time_loses_nothing_acknowledged_and_does_nothing_twice() {
    let rounds = number_from("BULKHEAD_KILL_ROUNDS", 20);
    let mut dice = Dice::thrown("kill -9");
    let dir = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&dir.path().join("data"));
    let mut node = launcher.serve();
    let mut homes: Vec<Home> = (0..TENANTS)
        .map(|number| {
            let tenant = Tenant::sign_up(&node.client, &format!("tenant-{number}"));
            let form = tenant.form_with(json!({"title": "Killed", "schema": name_schema()}));
            Home { tenant, form }
        })
        .collect();
    let mut ledger = Ledger::default();
    let (mut repeated, mut unanswered, mut records) = (0, 0, 0);
    for round in 0..rounds {
        let target = usize::try_from(dice.below(250)).expect("a small number");
        let mut written = write_until_killed(&mut node, &homes, round, target);
        unanswered += written.unknown.len();
        if round % 5 == 4 {
            kill_while_starting(&launcher);
        }
        if round % 2 == 1 {
            records = verify(&launcher, None);
        }
        node = launcher.serve();
        for home in &mut homes {
            home.tenant.move_to(&node.client);
        }
        repeated += send_again(&homes, &mut written);
        ledger.absorb(written);
        compare(&homes, &ledger);
        if round % 2 == 0 {
            records = verify(&launcher, Some(&node));
        }
    }
    println!(
        "kill -9: {rounds} rounds, {} acknowledged, 0 lost, 0 twice; {unanswered} unanswered, \
         {repeated} sent again; {records} records without a gap",
        ledger.acknowledged.len()
    );
}
