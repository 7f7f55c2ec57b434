//! Random requests against the real program, stopped and killed again and again, beside a small model of
//! what a tenant is: every answer, every row and every count of audit entries must be the model's.
//!
//! Requests are repeated with their keys, guess at versions, and ask for what is gone. A request that a
//! kill leaves without an answer was either done or not: with a key the repetition decides that, without
//! one a look does, and from then on it stays so.

use std::time::Duration;

use actors::env::{Clock, SystemClock};
use serde_json::json;

use crate::kit::{Client, Dice, Launcher, Process, Reply, Tally, Tenant, number_from};

mod book;
mod compare;
mod steps;

use book::{Asked, Book};
use steps::Step;

const TENANTS: usize = 3;
/// Blocks of the quick form; each ends with a restart.
const BLOCKS: u64 = 20;
const STEPS_MIN: u64 = 20;
const STEPS_MORE: u64 = 60;
/// Of so many steps one repeats an earlier request.
const REPEAT_EVERY: u64 = 8;
/// A kill strikes within this time after a request was sent.
const FLIGHT: Duration = Duration::from_millis(12);
/// Access tokens are good for longer than that.
const TOKENS_EVERY: Duration = Duration::from_secs(5 * 60);
/// Blocks between two complete readings of the audit logs.
const AUDIT_EVERY: u64 = 8;

/// A tenant, the model of it, and who decides beside its owner.
pub struct House {
    pub tenant: Tenant,
    pub deputy: Client,
    pub book: Book,
}

impl House {
    fn found(client: &Client, serial: usize) -> Self {
        let tenant = Tenant::sign_up(client, &format!("house-{serial}"));
        let email = format!("deputy@{}.example", tenant.slug);
        let body = json!({"email": email, "role": "admin", "password": crate::kit::PASSWORD});
        tenant.owner.post("/v1/members", body, 201);
        let deputy = enter(client, &tenant.slug, &email);
        let mut book = Book::default();
        book.count("member.add");
        Self { tenant, deputy, book }
    }

    fn move_to(&mut self, client: &Client) {
        self.tenant.move_to(client);
        self.deputy = client.with_token(self.deputy.token.as_ref().expect("a token"));
    }

    fn renew_tokens(&mut self, client: &Client) {
        let body = json!({"refresh_token": self.tenant.refresh_token});
        let reply = self.tenant.owner.post("/v1/auth/refresh", body, 200);
        self.tenant.refresh_token = reply.str("/refresh_token");
        self.tenant.owner = client.with_token(&reply.str("/access_token"));
        let email = format!("deputy@{}.example", self.tenant.slug);
        self.deputy = enter(client, &self.tenant.slug, &email);
    }

    fn send(&self, asked: &Asked) -> Result<Reply, ureq::Error> {
        let by = if asked.by_deputy { &self.deputy } else { &self.tenant.owner };
        send(by, asked)
    }
}

fn enter(client: &Client, slug: &str, email: &str) -> Client {
    let body = json!({"tenant": slug, "email": email, "password": crate::kit::PASSWORD});
    client.with_token(&client.post("/v1/auth/sign-in", body, 200).str("/access_token"))
}

fn send(by: &Client, asked: &Asked) -> Result<Reply, ureq::Error> {
    let mut client = by.clone();
    if let Some(key) = &asked.key {
        client = client.with_header("idempotency-key", key);
    }
    if let Some(version) = asked.if_match {
        client = client.with_header("if-match", &format!("\"{version}\""));
    }
    let body = asked.body.as_ref().map(ToString::to_string).unwrap_or_default();
    let media = asked.body.as_ref().map(|_| "application/json");
    client.try_send(asked.method, &asked.path, media, body.as_bytes())
}

/// What was done, for the last line.
#[derive(Debug, Default)]
struct Course {
    steps: u64,
    changes: u64,
    refusals: u64,
    repeats: u64,
    stops: u64,
    kills: u64,
    in_flight: u64,
    in_flight_done: u64,
    entries: u64,
}

/// A run: a node, its tenants, and chance.
struct Run {
    node: Option<Process>,
    launcher: Launcher,
    houses: Vec<House>,
    dice: Dice,
    tally: Tally,
    course: Course,
    clock: SystemClock,
    tokens_at: Duration,
}

impl Run {
    fn begin(launcher: Launcher) -> Self {
        let dice = Dice::thrown_by("http", "BULKHEAD_ATTACK_SEED");
        let node = launcher.serve();
        let houses = (0..TENANTS).map(|serial| House::found(&node.client, serial)).collect();
        Self {
            node: Some(node),
            launcher,
            houses,
            tally: Tally::new("http", dice.seed(), TENANTS),
            dice,
            course: Course::default(),
            clock: SystemClock::new(),
            tokens_at: Duration::ZERO,
        }
    }

    /// One request, of which the model knows how it ends.
    fn step(&mut self) {
        let at = usize::try_from(self.dice.below(TENANTS as u64)).expect("small");
        let house = &mut self.houses[at];
        self.course.steps += 1;
        if self.dice.below(REPEAT_EVERY) == 0 && !house.book.answered.is_empty() {
            self.course.repeats += 1;
            return repeat(house, &mut self.dice, &mut self.tally);
        }
        let step = Step::thrown(&house.book, &mut self.dice);
        let asked = step.asked(&house.book, &mut self.dice);
        match house.send(&asked) {
            Ok(reply) => judge(house, &step, asked, &reply, &mut self.tally, &mut self.course),
            Err(error) => self.tally.lost(format!("{asked:?} was not answered: {error}")),
        }
    }

    /// Kills the node while a request is under way, and starts it again. Then the request is done or not.
    fn kill_in_flight(&mut self) {
        let at = usize::try_from(self.dice.below(TENANTS as u64)).expect("small");
        let step = Step::thrown(&self.houses[at].book, &mut self.dice);
        let asked = step.asked(&self.houses[at].book, &mut self.dice);
        let flight = Duration::from_micros(self.dice.below(FLIGHT.as_micros() as u64));
        let mut node = self.node.take().expect("a node");
        let house = &self.houses[at];
        let outcome = std::thread::scope(|scope| {
            let sender = scope.spawn(|| house.send(&asked));
            let clock = SystemClock::new();
            while clock.monotonic() < flight && !sender.is_finished() {
                std::hint::spin_loop();
            }
            node.kill();
            sender.join().expect("a sender that ends")
        });
        self.course.in_flight += 1;
        if !self.reopen() {
            return;
        }
        let house = &mut self.houses[at];
        let (tally, course) = (&mut self.tally, &mut self.course);
        match outcome {
            Ok(reply) => judge(house, &step, asked, &reply, tally, course),
            Err(_) => {
                tally.unanswered += 1;
                settle(house, &step, asked, tally, course);
            }
        }
    }

    fn restart(&mut self) {
        match self.dice.below(4) {
            0 => {
                self.course.stops += 1;
                let mut node = self.node.take().expect("a node");
                if !node.terminate().success() {
                    self.tally.lost(format!("a stop was not clean: {}", node.stderr()));
                }
                self.reopen();
            }
            1 => {
                self.course.kills += 1;
                self.node.take().expect("a node").kill();
                self.reopen();
            }
            _ => self.kill_in_flight(),
        }
    }

    fn reopen(&mut self) -> bool {
        match self.launcher.try_serve() {
            Ok(node) => {
                let took_ms = node.ready_after.as_millis();
                self.tally.reopening_ms_max = self.tally.reopening_ms_max.max(took_ms);
                self.houses.iter_mut().for_each(|house| house.move_to(&node.client));
                if self.clock.monotonic() - self.tokens_at > TOKENS_EVERY {
                    self.tokens_at = self.clock.monotonic();
                    self.houses.iter_mut().for_each(|house| house.renew_tokens(&node.client));
                }
                self.node = Some(node);
                true
            }
            Err(why) => {
                self.tally.failed_reopening(why);
                false
            }
        }
    }

    fn compare(&mut self, with_audit: bool) {
        for house in &self.houses {
            compare::rows(house, &mut self.tally);
            if with_audit {
                self.course.entries += compare::audit(house, &mut self.tally);
            }
        }
    }
}

/// A request sent again with its key: the same answer, and no effect.
fn repeat(house: &House, dice: &mut Dice, tally: &mut Tally) {
    let at = usize::try_from(dice.below(house.book.answered.len() as u64)).expect("small");
    let (asked, body) = &house.book.answered[at];
    tally.sent_again += 1;
    if dice.below(4) == 0 {
        // The key with another body is a mistake, and says so.
        let mut other = asked.clone();
        other.body = Some(asked.other_body());
        match house.send(&other) {
            Ok(reply) if reply.status == 422 && reply.problem() == "idempotency-key-reused" => {}
            other => tally.duplicate(format!("{asked:?} with another body: {other:?}")),
        }
        return;
    }
    match house.send(asked) {
        Ok(reply)
            if reply.status == 201
                && reply.body == *body
                && reply.header("idempotency-replayed") == Some("true") => {}
        other => tally.duplicate(format!("{asked:?} repeated: {other:?}")),
    }
}

/// Compares an answer with what the model says, and takes it into the model.
fn judge(
    house: &mut House,
    step: &Step,
    asked: Asked,
    reply: &Reply,
    tally: &mut Tally,
    course: &mut Course,
) {
    let wanted = step.status(&house.book, &asked);
    if reply.status != wanted {
        return tally.lost(format!(
            "{asked:?} is {} and not {wanted}: {}",
            reply.status,
            reply.text()
        ));
    }
    if wanted >= 400 {
        course.refusals += 1;
        return;
    }
    course.changes += 1;
    tally.acknowledged += 1;
    if let Err(what) = step.apply(&mut house.book, &asked, reply) {
        tally.lost(format!("{asked:?}: {what}: {}", reply.text()));
    }
    if asked.key.is_some() {
        house.book.answered.push((asked, reply.body.clone()));
    }
}

/// Finds out what became of a request that nobody answered.
fn settle(house: &mut House, step: &Step, asked: Asked, tally: &mut Tally, course: &mut Course) {
    if asked.key.is_some() {
        tally.sent_again += 1;
        match house.send(&asked) {
            Ok(reply) => {
                let was_done = reply.header("idempotency-replayed") == Some("true");
                course.in_flight_done += u64::from(was_done);
                judge(house, step, asked, &reply, tally, course);
            }
            Err(error) => tally.lost(format!("{asked:?} is not answered: {error}")),
        }
        return;
    }
    if step.status(&house.book, &asked) >= 400 {
        return;
    }
    let seen = house.tenant.owner.call("GET", &step.looked_at(), None);
    if step.was_done(&house.book, &seen) {
        course.in_flight_done += 1;
        if let Err(what) = step.apply(&mut house.book, &asked, &seen) {
            tally.lost(format!("{asked:?} was done by half: {what}: {}", seen.text()));
        }
    }
}

#[test]
fn whatever_is_asked_and_however_it_is_stopped_a_tenant_is_what_the_model_says() {
    let blocks = number_from("BULKHEAD_ATTACK_ROUNDS", BLOCKS);
    let dir = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&dir.path().join("data")).set("data.segment_bytes", "1048576");
    let mut run = Run::begin(launcher);
    for block in 1..=blocks {
        for _ in 0..STEPS_MIN + run.dice.below(STEPS_MORE) {
            run.step();
        }
        run.restart();
        if run.node.is_some() {
            let with_audit = block % AUDIT_EVERY == 0 || block == blocks;
            run.compare(with_audit);
        }
        run.tally.rounds += 1;
        if !run.tally.is_spotless() {
            break;
        }
    }
    println!("{:?}", run.course);
    run.tally.close();
}
