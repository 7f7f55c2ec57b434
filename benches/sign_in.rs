//! What 200 people who sign in at once cost those who are signed in: tenants write at a fixed pace over
//! HTTP, now beside the sign-ins, now alone, in short turns, so that whatever else the machine does falls
//! on both. The 200 come within a second, and sign in again and again; whoever is told to come back does so
//! within the second after.
//!
//! `cargo bench --bench sign_in` prints both; `-- --rounds 20` takes longer. It exits with 1 if the p99
//! beside sign-ins is more than a fifth above the other, or if somebody never got in.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

#[path = "http/drive.rs"]
#[expect(dead_code, reason = "shared with the bench of the whole path")]
mod drive;
#[path = "http/node.rs"]
#[expect(dead_code, reason = "shared with the bench of the whole path")]
mod node;
#[path = "http/turns.rs"]
mod turns;

use node::Node;
use turns::{Turn, line, pace, requests, tell, wait};

/// Tenants whose people write.
const WRITING: usize = 8;
/// Tenants whose people sign in.
const ENTERING: usize = 25;
/// People who sign in at once.
const PEOPLE: u32 = 200;
/// Within which they come.
const SECOND: Duration = Duration::from_secs(1);
/// What sign-ins may cost: p99 beside them over p99 without.
const RATIO_MAX: f64 = 1.2;

/// What became of the sign-ins.
#[derive(Default)]
struct Tally {
    entered: AtomicU64,
    told_to_wait: AtomicU64,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    let rounds = args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1));
    let rounds: usize = rounds.and_then(|text| text.parse().ok()).unwrap_or(12);
    let node = Node::start();
    let mut people: Vec<_> = (0..WRITING).map(|n| node.sign_up(n)).collect();
    let _others: Vec<_> = (WRITING..WRITING + ENTERING).map(|n| node.sign_up(n)).collect();
    let (mut alone, mut beside, tally) = (Vec::new(), Vec::new(), Tally::default());
    for turn in 0..rounds * 2 {
        for (n, person) in people.iter_mut().enumerate() {
            person.sign_in(n);
        }
        let requests = requests(&people);
        // In the order of Thue and Morse, so that nothing that comes back regularly falls on one of them.
        if turn.count_ones() % 2 == 0 {
            alone.push(Turn::of(pace(node.port, &requests)));
            continue;
        }
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for person in 0..PEOPLE {
                let (is_over, tally, port) = (&is_over, &tally, node.port);
                let late = SECOND * person / PEOPLE;
                let tenant = WRITING + person as usize % ENTERING;
                scope.spawn(move || enter(port, tenant, late, is_over, tally));
            }
            beside.push(Turn::of(pace(node.port, &requests)));
            is_over.store(true, Ordering::Relaxed);
        });
    }
    let (p50, p99) = tell("alone", &alone);
    let (p50_beside, p99_beside) = tell("beside sign-ins", &beside);
    let ratio = p99_beside / p99;
    let (entered, waited) = (tally.entered.into_inner(), tally.told_to_wait.into_inner());
    line(&format!(
        "{entered} sign-ins, {waited} told to wait: p50 x{:.2}, p99 x{ratio:.2}",
        p50_beside / p50
    ));
    if ratio <= RATIO_MAX && entered > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Signs in again and again, until it is over; always that `late`.
fn enter(port: u16, tenant: usize, late: Duration, is_over: &AtomicBool, tally: &Tally) {
    // They stand for other machines: what they cost this one is not to be counted.
    rustix::process::nice(19).expect("a lower priority");
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let body = json!({
        "tenant": format!("bench-{tenant}"),
        "email": "owner@example.com",
        "password": "correct horse battery",
    });
    let url = format!("http://127.0.0.1:{port}/v1/auth/sign-in");
    wait(late);
    while !is_over.load(Ordering::Relaxed) {
        let sent = agent.post(&url).header("content-type", "application/json");
        let mut answer = sent.send(body.to_string()).expect("an answer");
        let told = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let told = told.and_then(|text| text.parse().ok());
        let text = answer.body_mut().read_to_string().expect("a text");
        match (answer.status().as_u16(), told) {
            (200, _) => tally.entered.fetch_add(1, Ordering::Relaxed),
            (429 | 503, Some(seconds)) => {
                wait(Duration::from_secs(seconds) + late);
                tally.told_to_wait.fetch_add(1, Ordering::Relaxed)
            }
            (status, _) => panic!("{status}: {text}"),
        };
    }
}
