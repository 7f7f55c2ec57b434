//! What a backup costs those who are served meanwhile: tenants write at a fixed pace over HTTP, now beside
//! backups taken one after the other, now alone, in short turns, so that whatever else the machine does
//! falls on both. Latencies count from when a request was due, so a stall counts for all it delays. Of
//! each turn p50 and p99 are taken, and of those the medians: one turn in which the machine stood still
//! does not decide.
//!
//! `cargo bench --bench backup` prints both; `-- --rounds 20` takes longer. It exits with 1 if the p99
//! beside backups is more than a fifth above the other.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bulkhead::config::{Config, Overrides};
use bulkhead::control::{ControlCommand, client};

#[path = "http/drive.rs"]
#[expect(dead_code, reason = "shared with the bench of the whole path")]
mod drive;
#[path = "http/node.rs"]
#[expect(dead_code, reason = "shared with the bench of the whole path")]
mod node;
#[path = "http/turns.rs"]
mod turns;

use drive::run;
use node::Node;
use turns::{Turn, line, pace, requests, tell};

const TENANTS: usize = 8;
/// How long everybody writes at the start, so that there is something to back up.
const FILL: Duration = Duration::from_secs(10);
/// What a backup may cost: p99 beside it over p99 without.
const RATIO_MAX: f64 = 1.2;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    let rounds = args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1));
    let rounds: usize = rounds.and_then(|text| text.parse().ok()).unwrap_or(8);
    let node = Node::start();
    let mut people: Vec<_> = (0..TENANTS).map(|n| node.sign_up(n)).collect();
    run(node.port, &requests(&people), TENANTS, FILL);
    let (mut alone, mut beside, mut backups) = (Vec::new(), Vec::new(), 0);
    back_up(&node);
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
        let (is_over, taken) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    back_up(&node);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
            beside.push(Turn::of(pace(node.port, &requests)));
            is_over.store(true, Ordering::Relaxed);
        });
        backups += taken.into_inner();
    }
    let (p50, p99) = tell("alone", &alone);
    let (p50_beside, p99_beside) = tell("beside backups", &beside);
    let ratio = p99_beside / p99;
    line(&format!("{backups} backups: p50 x{:.2}, p99 x{ratio:.2}", p50_beside / p50));
    if ratio <= RATIO_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn back_up(node: &Node) {
    let data_dir = Some(node.dir().join("data"));
    let overrides = Overrides { data_dir, ..Overrides::default() };
    let file = node.dir().join("config.toml");
    let config = Config::load_from(Some(&file), [], &overrides).expect("the node's configuration");
    // The node itself may be taking one, its first.
    while let Err(error) = client::run(config.clone(), ControlCommand::BackupRun { note: None }) {
        assert!(error.to_string().contains("is running"), "no backup: {error}");
    }
}
