//! A clock that jumps, goes back and stands still. Time is only ever a stamp: it decides neither the
//! order of records nor whether a write is taken. It does decide how long a token is good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::env::{Clock, SystemClock};
use serde_json::json;

use crate::kit::{Client, Dice, Launcher, PASSWORD, Tenant, World, WorldOptions, number_from};

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * SECOND_MS;
const YEAR_MS: u64 = 365 * DAY_MS;
/// How long an access token is good, and how far ahead of the clock it may have been made.
const TOKEN_MS: u64 = 15 * 60 * SECOND_MS;
const LEEWAY_MS: u64 = 5 * SECOND_MS;

/// A wall clock in the hands of a test. What measures spans goes on as ever, as on a real machine.
struct WallClock {
    now_ms: AtomicU64,
    spans: SystemClock,
}

impl WallClock {
    fn new() -> Arc<Self> {
        let spans = SystemClock::new();
        Arc::new(Self { now_ms: AtomicU64::new(spans.now_ms()), spans })
    }
    fn set(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        // Not zero: a limiter that counts from its start may look back.
        Duration::from_secs(1_000) + self.spans.monotonic()
    }
}

/// Someone who writes at whatever time it is.
struct Writer {
    tenant: Tenant,
    form: String,
    /// The token in use and when it was made.
    client: Client,
    made_ms: u64,
    /// Everything acknowledged: id and name.
    kept: Vec<(String, String)>,
    lsn: u64,
}

impl Writer {
    fn new(world: &World, clock: &WallClock) -> Self {
        let tenant = world.tenant("acme");
        let form = tenant.form("Timed");
        let client = tenant.owner.clone();
        let made_ms = clock.now_ms();
        Self { tenant, form, client, made_ms, kept: Vec::new(), lsn: 0 }
    }

    /// Demands that the token is good exactly when it should be, then signs in afresh if it is not.
    fn check_token(&mut self, world: &World, clock: &WallClock) {
        let now_ms = clock.now_ms();
        let (made_s, now_s) = (self.made_ms / SECOND_MS, now_ms / SECOND_MS);
        let is_old = now_s >= made_s + TOKEN_MS / SECOND_MS;
        let is_early = made_s > now_s + LEEWAY_MS / SECOND_MS;
        let reply = self.client.call("GET", "/v1/me", None);
        let wanted = if is_old || is_early { 401 } else { 200 };
        assert_eq!(reply.status, wanted, "made at {made_s}, now {now_s}: {}", reply.text());
        if wanted == 401 {
            let email = format!("owner@{}.example", self.tenant.slug);
            let body = json!({"tenant": self.tenant.slug, "email": email, "password": PASSWORD});
            let token = world.client.post("/v1/auth/sign-in", body, 200).str("/access_token");
            (self.client, self.made_ms) = (world.client.with_token(&token), now_ms);
        }
    }

    /// Writes once and demands that the history grew by records without a gap.
    fn write(&mut self, world: &World, name: String) {
        let id = self.tenant.submit(&self.client, &self.form, &name);
        self.kept.push((id, name));
        let actor = world.ops.get(&format!("/actors/{}", self.tenant.id), 200).json();
        let lsn = actor["lsn"].as_u64().expect("a number");
        assert!(lsn > self.lsn, "record {lsn} after record {}", self.lsn);
        self.lsn = lsn;
    }

    /// Demands that everything acknowledged is there once, and that every history verifies.
    fn check_kept(&mut self, world: &World) {
        self.tenant.owner = self.client.clone();
        let mut found = self.tenant.submissions(&self.form);
        found.sort();
        self.kept.sort();
        assert_eq!(found, self.kept);
        let report = Launcher::on(&world.dir).run(&["audit", "verify", "--json"]).expect(0).json();
        assert_eq!(report["ok"], json!(true), "{report}");
    }
}

/// A time away from `base_ms`, on either side of it, from a second to ten years.
fn jump(dice: &mut Dice, base_ms: u64) -> u64 {
    const SPANS_MS: [u64; 9] = [
        SECOND_MS,
        LEEWAY_MS + SECOND_MS,
        60 * SECOND_MS,
        TOKEN_MS,
        60 * 60 * SECOND_MS,
        DAY_MS,
        31 * DAY_MS,
        YEAR_MS,
        10 * YEAR_MS,
    ];
    let span_ms = SPANS_MS[dice.below(SPANS_MS.len() as u64) as usize];
    if dice.below(2) == 0 { base_ms + span_ms } else { base_ms - span_ms }
}

#[test]
fn whatever_the_clock_says_writes_go_on_histories_have_no_gap_and_tokens_have_their_time() {
    let jumps = number_from("BULKHEAD_CLOCK_JUMPS", 200);
    let mut dice = Dice::thrown("clock jumps");
    let clock = WallClock::new();
    let base_ms = clock.now_ms();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let mut writer = Writer::new(&world, &clock);
    for number in 0..jumps {
        // Sometimes from where the last jump went, so that jumps add up.
        let from_ms = if dice.below(4) == 0 { clock.now_ms() } else { base_ms };
        clock.set(jump(&mut dice, from_ms));
        writer.check_token(&world, &clock);
        writer.write(&world, format!("jump {number}"));
    }
    for now_ms in [0, base_ms] {
        clock.set(now_ms);
        writer.check_token(&world, &clock);
        writer.write(&world, format!("at {now_ms}"));
    }
    writer.check_kept(&world);
    println!(
        "clock jumps: {jumps}, {} writes, 0 refused, {} records",
        writer.kept.len(),
        writer.lsn
    );
}

#[test]
fn while_the_clock_stands_still_every_id_is_another_and_lists_leave_nothing_out() {
    const WRITES: usize = 450; // more than two pages
    let clock = WallClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let mut writer = Writer::new(&world, &clock);
    for number in 0..WRITES {
        writer.write(&world, format!("write {number}"));
    }
    let ids: std::collections::HashSet<_> = writer.kept.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), WRITES);
    writer.check_kept(&world);
}

#[test]
fn a_node_that_starts_in_the_past_or_far_in_the_future_serves_what_it_had_and_goes_on() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("data");
    let clock = WallClock::new();
    let base_ms = clock.now_ms();
    let start = || WorldOptions::default().clock(clock.clone()).data(&dir).start();
    let mut world = start();
    let mut writer = Writer::new(&world, &clock);
    for now_ms in [base_ms - 10 * YEAR_MS, base_ms + 10 * YEAR_MS, base_ms - DAY_MS, base_ms] {
        writer.write(&world, format!("before {now_ms}"));
        world.stop();
        drop(world);
        clock.set(now_ms);
        world = start();
        writer.client = world.client.with_token(writer.client.token.as_ref().expect("a token"));
        writer.check_token(&world, &clock);
        writer.write(&world, format!("at {now_ms}"));
        writer.check_kept(&world);
    }
}

#[test]
fn a_key_sent_again_after_the_clock_was_set_back_has_one_effect() {
    let clock = WallClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    // A little after midnight, so that even a second back is another day.
    let midnight_ms = (clock.now_ms() / DAY_MS + 1) * DAY_MS;
    clock.set(midnight_ms + 100);
    let mut writer = Writer::new(&world, &clock);
    let place = format!("/v1/forms/{}/submissions", writer.form);
    let body = json!({"data": {"name": "once"}});
    let mut first = None;
    for back_ms in [0, 200, SECOND_MS, 60 * SECOND_MS, 60 * 60 * SECOND_MS, DAY_MS] {
        clock.set(midnight_ms + 100 - back_ms);
        writer.check_token(&world, &clock);
        let sender = writer.client.with_header("idempotency-key", "the-same-key");
        let id = sender.post(&place, body.clone(), 201).str("/id");
        let first = first.get_or_insert_with(|| id.clone());
        assert_eq!(id, *first, "{back_ms} ms back it was done again");
    }
    writer.kept.push((first.expect("an id"), "once".to_owned()));
    writer.check_kept(&world);
}
