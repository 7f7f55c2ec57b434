//! What a backup costs those who are served meanwhile: tenants write at a fixed pace over HTTP, now beside
//! backups taken one after the other, now alone, in short turns, so that whatever else the machine does
//! falls on both. Latencies count from when a request was due, so a stall counts for all it delays. Of
//! each turn p50 and p99 are taken, and of those the medians: one turn in which the machine stood still
//! does not decide.
//!
//! `cargo bench --bench backup` prints both; `-- --rounds 20` takes longer. It exits with 1 if the p99
//! beside backups is more than a fifth above the other.

use std::io::Write;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Mutex;
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

use drive::{now, read_answer, run};
use node::{Node, Person};

const TENANTS: usize = 8;
/// Between two requests of one tenant.
const PACE: Duration = Duration::from_millis(5);
/// How long tenants write before it is the other's turn: about as long as a backup beside them takes.
const ROUND: Duration = Duration::from_secs(5);
/// How long everybody writes at the start, so that there is something to back up.
const FILL: Duration = Duration::from_secs(10);
/// What a backup may cost: p99 beside it over p99 without.
const RATIO_MAX: f64 = 1.2;
const SUBMISSION: &str =
    r#"{"data":{"name":"Ada Lovelace","amount":12345,"note":"a submission of ordinary size"}}"#;

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

/// What one turn gave, in milliseconds.
struct Turn {
    p50: f64,
    p99: f64,
}

impl Turn {
    fn of(mut late: Vec<Duration>) -> Self {
        late.sort_unstable();
        let at = |share: usize| late[late.len() * share / 100].as_secs_f64() * 1e3;
        Self { p50: at(50), p99: at(99) }
    }
}

fn requests(people: &[Person<'_>]) -> Vec<Vec<u8>> {
    let submit = |person: &Person<'_>| {
        person.request("POST", &format!("/v1/forms/{}/submissions", person.form), SUBMISSION)
    };
    people.iter().map(submit).collect()
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

/// Has everybody send at their pace; gives how late each answer was.
fn pace(port: u16, requests: &[Vec<u8>]) -> Vec<Duration> {
    let all = Mutex::new(Vec::new());
    let begin = now();
    std::thread::scope(|scope| {
        for (n, request) in requests.iter().enumerate() {
            let all = &all;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                let mut buffer = vec![0; 16 * 1024];
                let mut late = Vec::new();
                let count = u32::try_from(requests.len()).expect("few");
                let mut due = PACE * u32::try_from(n).expect("few") / count;
                while due < ROUND {
                    wait(due.saturating_sub(begin.elapsed()));
                    stream.write_all(request).expect("a sent request");
                    read_answer(&mut stream, &mut buffer);
                    late.push(begin.elapsed().saturating_sub(due));
                    due += PACE;
                }
                all.lock().expect("a sound lock").extend(late);
            });
        }
    });
    all.into_inner().expect("a sound lock")
}

#[expect(clippy::disallowed_methods, reason = "a paced load waits until the next request is due")]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

/// Prints the medians of all turns.
fn tell(name: &str, turns: &[Turn]) -> (f64, f64) {
    let median = |of: fn(&Turn) -> f64| {
        let mut all: Vec<_> = turns.iter().map(of).collect();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (p50, p99) = (median(|turn| turn.p50), median(|turn| turn.p99));
    line(&format!("{name:<15} {:>3} turns: p50 {p50:.2} ms, p99 {p99:.2} ms", turns.len()));
    (p50, p99)
}

fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the report, not the run.
    let _closed = writeln!(out, "{text}");
}
