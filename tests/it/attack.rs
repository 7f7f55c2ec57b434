//! The workload that every attack on the real program interrupts, and what is asked of the program
//! afterwards. An attack only says how it strikes.
//!
//! Many tenants write at once over HTTP, and remember every answer before they go on. After a strike
//! the program is started again on what is left; then every acknowledged submission must be there
//! once, a key sent again must have one effect, and every history must verify without a gap.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actors::env::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::kit::{
    Acks, Attempt, Client, Dice, Launcher, Process, Reply, Tally, Tenant, at_once, eventually,
    name_schema,
};

/// The tenants that write at the same time.
const TENANTS: usize = 64;
const WRITERS_PER_TENANT: usize = 2;
/// Threads that make tenants.
const FOUNDERS: usize = 4;
/// Of every so many creates of a writer one has no idempotency key.
const UNKEYED_EVERY: u64 = 4;
/// Answered creates of a round that are sent again, and that are read one by one.
const PROBES_MAX: usize = 64;
/// Rounds between two complete comparisons, at least.
const ROUNDS_PER_ERA_MIN: u64 = 5;
/// Complete comparisons of a long attack, about.
const ERAS: u64 = 20;
/// Access tokens are good for longer than that.
const TOKENS_EVERY: Duration = Duration::from_secs(5 * 60);

struct Home {
    tenant: Tenant,
    /// The form that is written to in this era.
    form: String,
}

/// How far a strike has got.
///
/// A sync that is under way while a file system is shut down may report success although its bytes
/// are gone; Linux does so now and then, without any of this project's code. A machine without power
/// reports nothing. So what is answered after the cut began is a ghost's answer: no promise. What was
/// answered before is one, and what is sent after the cut must be refused.
pub struct Strike {
    stage: AtomicU8,
    /// When the power went, in Unix milliseconds.
    cut_ms: AtomicU64,
}

impl Strike {
    const AHEAD: u8 = 0;
    const UNDER_WAY: u8 = 1;
    const CUT: u8 = 2;

    fn new() -> Self {
        Self { stage: AtomicU8::new(Self::AHEAD), cut_ms: AtomicU64::new(u64::MAX) }
    }
    /// From now on refusals are no surprise.
    pub fn begin(&self) {
        self.stage.store(Self::UNDER_WAY, Ordering::SeqCst);
    }
    /// The power is off since `cut_ms`: nothing that is sent from now on may be acknowledged.
    pub fn cut(&self, cut_ms: u64) {
        self.cut_ms.store(cut_ms, Ordering::SeqCst);
        self.stage.store(Self::CUT, Ordering::SeqCst);
    }
    fn stage(&self) -> u8 {
        self.stage.load(Ordering::SeqCst)
    }
}

/// What an attack may look at while it strikes.
pub struct Scene<'a> {
    pub node: &'a mut Process,
    pub strike: &'a Strike,
    /// Whether every writer has been refused or cut off.
    pub is_silent: &'a dyn Fn() -> bool,
}

/// A node under attack.
pub struct Siege {
    // First, so that it ends before the disk it runs on goes.
    node: Option<Process>,
    pub launcher: Launcher,
    pub dice: Dice,
    homes: Vec<Home>,
    acks: Acks,
    pub tally: Tally,
    clock: SystemClock,
    tokens_at: Duration,
    rounds: u64,
    rounds_per_era: u64,
}

impl Siege {
    /// Starts a node and makes its tenants. `attack` is one word.
    pub fn begin(attack: &'static str, launcher: Launcher, rounds: u64) -> Self {
        let dice = Dice::thrown_by(attack, "BULKHEAD_ATTACK_SEED");
        let seed = dice.seed();
        let node = launcher.serve();
        let homes = at_once(FOUNDERS, |founder| {
            let serials = (founder..TENANTS).step_by(FOUNDERS);
            serials.map(|serial| Home::make(&node.client, serial)).collect::<Vec<_>>()
        });
        Self {
            node: Some(node),
            launcher,
            dice,
            homes: homes.into_iter().flatten().collect(),
            acks: Acks::default(),
            tally: Tally::new(attack, seed, TENANTS),
            clock: SystemClock::new(),
            tokens_at: Duration::ZERO,
            rounds,
            rounds_per_era: (rounds / ERAS).max(ROUNDS_PER_ERA_MIN),
        }
    }

    /// Lets everybody write until about `answers` creates are answered, strikes, and waits until the
    /// last writer has noticed. Afterwards there is no node.
    pub fn write_until_struck(&mut self, answers: usize, strike: impl FnOnce(Scene<'_>)) -> Acks {
        let mut node = self.node.take().expect("a node to strike");
        let (answered, state) = (AtomicUsize::new(0), Strike::new());
        let base = node.client.base.clone();
        let (homes, round) = (&self.homes, self.tally.rounds);
        let mut written = Acks::default();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..TENANTS * WRITERS_PER_TENANT)
                .map(|writer| {
                    let (state, answered, home) = (&state, &answered, writer % TENANTS);
                    let client = homes[home].client(&base);
                    let first = Attempt {
                        home,
                        form: homes[home].form.clone(),
                        name: format!("r{round}-w{writer}"),
                        key: None,
                        answered_ms: 0,
                    };
                    scope.spawn(move || write(&client, &first, state, answered))
                })
                .collect();
            let is_over = || writers.iter().any(|writer| writer.is_finished());
            eventually("enough answers", || {
                (answered.load(Ordering::Relaxed) >= answers || is_over()).then_some(())
            });
            let is_silent = || writers.iter().all(|writer| writer.is_finished());
            strike(Scene { node: &mut node, strike: &state, is_silent: &is_silent });
            node.kill();
            for writer in writers {
                written.absorb(writer.join().expect("a writer that ends"));
            }
        });
        written.forget_since(state.cut_ms.load(Ordering::SeqCst));
        for attempt in &written.late {
            self.tally.late(format!("{} was acknowledged by a disk that is gone", attempt.name));
        }
        written
    }

    /// Starts the node again on what is left and asks for everything that was promised. False if
    /// something was found; then the attack is over. The histories are verified without a node and
    /// with one, in turns.
    pub fn recover(&mut self, written: Acks) -> bool {
        let is_first_without = self.tally.rounds % 2 == 1;
        if is_first_without {
            self.verify();
        }
        if self.reopen() {
            self.settle(written);
            if !is_first_without {
                self.verify();
            }
        }
        self.tally.is_spotless()
    }

    fn reopen(&mut self) -> bool {
        match self.launcher.try_serve() {
            Ok(node) => {
                let took_ms = node.ready_after.as_millis();
                self.tally.reopening_ms_max = self.tally.reopening_ms_max.max(took_ms);
                self.homes.iter_mut().for_each(|home| home.tenant.move_to(&node.client));
                self.node = Some(node);
                true
            }
            Err(why) => {
                self.tally.failed_reopening(why);
                false
            }
        }
    }

    /// Verifies every history with the command line, whether a node runs or not. The node may go on writing
    /// by itself, backups to the platform's compartment or audit entries to the archive, so what is
    /// found lies between what it said before and after.
    fn verify(&mut self) {
        let before = self.node.as_ref().map(records_of);
        let outcome = self.launcher.run(&["audit", "verify", "--json"]);
        if outcome.code > 1 {
            return self.tally.gap(format!("nothing can be verified: {outcome:?}"));
        }
        let after = self.node.as_ref().map(records_of);
        let report = outcome.json();
        if report["anchors"]["ok"] != json!(true) {
            self.tally.gap(format!("the checkpoints do not hold: {}", report["anchors"]));
        }
        self.tally.records = 0;
        for tenant in report["tenants"].as_array().expect("tenants") {
            if tenant["ok"] != json!(true) {
                self.tally.gap(format!("a history does not hold: {tenant}"));
            }
            let records = tenant["records"].as_u64().unwrap_or_default();
            self.tally.records += records;
            let id = tenant["tenant"].as_str().expect("an id");
            let said = |all: &Option<BTreeMap<String, u64>>| all.as_ref()?.get(id).copied();
            let (least, most) = (said(&before), said(&after));
            if least.is_some_and(|least| records < least) || most.is_some_and(|most| records > most)
            {
                self.tally.gap(format!("{id} has {records} records, not {least:?} to {most:?}"));
            }
        }
    }

    /// Sends keyed creates again, asks for what was promised, and takes the round into the books.
    fn settle(&mut self, mut round: Acks) {
        self.tally.unanswered += round.unknown.len();
        self.tally.ghosts += round.ghosts;
        self.send_again(&mut round);
        self.tally.acknowledged += round.acknowledged.len();
        self.read_some(&round);
        self.acks.absorb(round);
        self.tally.rounds += 1;
        let is_era_over = self.tally.rounds.is_multiple_of(self.rounds_per_era);
        let homes = &self.homes;
        let list = |home: usize, form: &str| homes[home].list(form);
        if is_era_over || self.tally.rounds == self.rounds {
            self.acks.compare(&mut self.tally, |_| true, list);
        } else {
            let is_new = |attempt: &Attempt| attempt.form == homes[attempt.home].form;
            self.acks.compare(&mut self.tally, is_new, list);
        }
        if is_era_over {
            self.homes.iter_mut().for_each(Home::begin_era);
        }
        if self.clock.monotonic() - self.tokens_at > TOKENS_EVERY {
            self.tokens_at = self.clock.monotonic();
            self.homes.iter_mut().for_each(Home::renew_token);
        }
    }

    /// An answered create keeps its id; an unanswered one gets one, and keeps it from then on.
    fn send_again(&mut self, round: &mut Acks) {
        let is_keyed = |attempt: &Attempt| attempt.key.is_some();
        let (keyed, unkeyed): (Vec<_>, Vec<_>) =
            std::mem::take(&mut round.unknown).into_iter().partition(is_keyed);
        round.unknown = unkeyed;
        for attempt in keyed {
            let reply = self.send(&attempt);
            if reply.status == 201 {
                round.acknowledged.push((attempt, reply.str("/id")));
            } else {
                self.tally.lost(format!("{} is refused: {reply:?}", attempt.name));
                round.unknown.push(attempt);
            }
        }
        let answered = round.acknowledged.iter().rev().filter(|(attempt, _)| is_keyed(attempt));
        for (attempt, id) in answered.take(PROBES_MAX) {
            let reply = self.send(attempt);
            let is_replayed = reply.header("idempotency-replayed") == Some("true");
            if reply.status != 201 || reply.str("/id") != *id || !is_replayed {
                self.tally.duplicate(format!("{} was {id}, now {reply:?}", attempt.name));
            }
        }
    }

    fn send(&mut self, attempt: &Attempt) -> Reply {
        self.tally.sent_again += 1;
        send(&self.homes[attempt.home].tenant.owner, attempt).expect("a node that serves")
    }

    fn read_some(&mut self, round: &Acks) {
        for (attempt, id) in round.acknowledged.iter().take(PROBES_MAX) {
            let place = format!("/v1/forms/{}/submissions/{id}", attempt.form);
            let reply = self.homes[attempt.home].tenant.owner.call("GET", &place, None);
            if reply.status != 200 || reply.json()["data"]["name"] != json!(attempt.name) {
                self.tally.lost(format!("{} was {id}, now {reply:?}", attempt.name));
            }
        }
    }
}

impl Home {
    fn make(client: &Client, serial: usize) -> Self {
        let tenant = Tenant::sign_up(client, &format!("tenant-{serial}"));
        let form = tenant.form_with(shape());
        Self { tenant, form }
    }
    /// What is in a form. Nothing if not even the form can be read, so that all of it counts as lost.
    fn list(&self, form: &str) -> Vec<(String, String)> {
        let reply = self.tenant.owner.call("GET", &format!("/v1/forms/{form}"), None);
        if reply.status == 200 { self.tenant.submissions(form) } else { Vec::new() }
    }
    /// The owner over connections of its own, as many people come over as many.
    fn client(&self, base: &str) -> Client {
        Client::new(base).with_token(self.tenant.owner.token.as_ref().expect("a token"))
    }
    /// A fresh form, so that a round's comparison costs what an era wrote and no more.
    fn begin_era(&mut self) {
        self.form = self.tenant.form_with(shape());
    }
    fn renew_token(&mut self) {
        let body = json!({"refresh_token": self.tenant.refresh_token});
        let reply = self.tenant.owner.post("/v1/auth/refresh", body, 200);
        self.tenant.refresh_token = reply.str("/refresh_token");
        self.tenant.owner = self.tenant.owner.with_token(&reply.str("/access_token"));
    }
}

fn shape() -> Value {
    json!({"title": "Under attack", "schema": name_schema()})
}

fn send(client: &Client, attempt: &Attempt) -> Result<Reply, ureq::Error> {
    let client = match &attempt.key {
        Some(key) => client.with_header("idempotency-key", key),
        None => client.clone(),
    };
    let body = json!({"data": {"name": attempt.name}}).to_string();
    let place = format!("/v1/forms/{}/submissions", attempt.form);
    client.try_send("POST", &place, Some("application/json"), body.as_bytes())
}

/// One writer: creates until it is refused or nobody answers any more.
fn write(client: &Client, first: &Attempt, strike: &Strike, answered: &AtomicUsize) -> Acks {
    let (mut acks, clock) = (Acks::default(), SystemClock::new());
    for step in 0_u64.. {
        let name = format!("{}-{step}", first.name);
        let key = (step % UNKEYED_EVERY != 1).then(|| format!("key-{name}"));
        let mut attempt = Attempt { name, key, ..first.clone() };
        let is_late = strike.stage() == Strike::CUT;
        match send(client, &attempt) {
            Ok(reply) if reply.status == 201 => {
                attempt.answered_ms = clock.now_ms();
                if is_late {
                    acks.late.push(attempt.clone());
                }
                acks.acknowledged.push((attempt, reply.str("/id")));
                answered.fetch_add(1, Ordering::Relaxed);
            }
            outcome => {
                let (stage, name) = (strike.stage(), &attempt.name);
                assert_ne!(stage, Strike::AHEAD, "{name} failed before the strike: {outcome:?}");
                acks.unknown.push(attempt);
                break;
            }
        }
    }
    acks
}

/// How many records each tenant has that is awake, as the node says.
fn records_of(node: &Process) -> BTreeMap<String, u64> {
    let report = node.ops.get("/actors", 200).json();
    let lines = report["tenants"].as_array().expect("a list");
    let awake = lines.iter().filter(|line| line["state"] == "awake");
    let records = |line: &serde_json::Value| {
        Some((line["tenant"].as_str()?.to_owned(), line["lsn"].as_u64()?))
    };
    awake.filter_map(records).collect()
}

/// A node that is still reading what the last one left behind.
pub fn launch_until_it_reads(launcher: &Launcher) -> Process {
    let node = launcher.launch(&["serve"]);
    let (lock, pid) = (launcher.data.join("LOCK"), node.pid().to_string());
    eventually("a locked directory", || {
        std::fs::read_to_string(&lock).ok().filter(|holder| holder.trim() == pid)
    });
    node
}
