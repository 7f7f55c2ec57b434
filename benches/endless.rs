//! Endless writes: 64 tenants change what they have again and again, over HTTP, while the node archives
//! its history. Memory must stay flat, the log and the view must not grow with history, and a node that
//! is killed after it must be up at once.
//!
//! `cargo bench --bench endless` runs a short while; `-- --commands 10000000` is the long form. It exits
//! with 1 if what must stay flat did not.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[path = "http/drive.rs"]
#[expect(dead_code, reason = "shared with the bench of the whole path")]
mod drive;
#[path = "http/node.rs"]
#[expect(dead_code, reason = "shared with the bench of the whole path")]
mod node;

use drive::{now, run};
use node::{Node, Person};

const TENANTS: usize = 64;
const SUBMISSION: &str =
    r#"{"data":{"name":"Ada Lovelace","amount":12345,"note":"a submission of ordinary size"}}"#;
/// How long one round writes. Shorter than an access token lasts.
const ROUND: Duration = Duration::from_secs(20);

/// What is looked at after each round.
struct Sizes {
    commands: usize,
    resident_mb: f64,
    log_mb: f64,
    view_mb: f64,
    archive_mb: f64,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    let wanted = args.iter().position(|arg| arg == "--commands").and_then(|at| args.get(at + 1));
    let wanted: usize = wanted.and_then(|text| text.parse().ok()).unwrap_or(300_000);
    let node = Node::start();
    let mut people: Vec<_> = (0..TENANTS).map(|n| node.sign_up(n)).collect();
    let submissions: Vec<_> = people.iter().map(|person| person.submit(SUBMISSION)).collect();
    let mut all = Vec::new();
    let mut commands = 0;
    line("  commands   resident   log      view     archive");
    while commands < wanted {
        let requests = requests(&people, &submissions);
        commands += run(node.port, &requests, TENANTS, ROUND).len();
        let sizes = look(&node, commands);
        line(&format!(
            "{:>10} {:>7.1} MB {:>5.0} MB {:>5.0} MB {:>7.0} MB",
            sizes.commands, sizes.resident_mb, sizes.log_mb, sizes.view_mb, sizes.archive_mb
        ));
        all.push(sizes);
        for (n, person) in people.iter_mut().enumerate() {
            person.sign_in(n);
        }
    }
    drop(people);
    let dir = node.kill();
    let began = now();
    let node = Node::start_in(dir);
    let ready = began.elapsed();
    line(&format!("killed; ready again after {} ms", ready.as_millis()));
    drop(node);
    verdict(&all)
}

fn requests(people: &[Person<'_>], submissions: &[String]) -> Vec<Vec<u8>> {
    let change = |(person, id): (&Person<'_>, &String)| {
        let path = format!("/v1/forms/{}/submissions/{id}", person.form);
        person.request("PATCH", &path, SUBMISSION)
    };
    people.iter().zip(submissions).map(change).collect()
}

fn look(node: &Node, commands: usize) -> Sizes {
    let data = node.dir().join("data");
    Sizes {
        commands,
        resident_mb: node.resident_mb(),
        log_mb: megabytes(&data.join("log")),
        view_mb: megabytes(&data.join("view")),
        archive_mb: megabytes(&data.join("archive")),
    }
}

/// Megabytes of the files below a directory.
fn megabytes(dir: &Path) -> f64 {
    let mut bytes = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        // What goes away while it is counted does not count.
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes as f64 / 1e6
}

/// A name, where it is read, and the megabytes it may grow by chance.
type Figure = (&'static str, fn(&Sizes) -> f64, f64);

/// Compares the second half of the run with its first: the first grows into its caches.
fn verdict(all: &[Sizes]) -> ExitCode {
    let (first, second) = all.split_at(all.len().div_ceil(2));
    let most = |sizes: &[Sizes], of: fn(&Sizes) -> f64| sizes.iter().map(of).fold(0.0, f64::max);
    let mut is_flat = true;
    let figures: [Figure; 3] = [
        ("resident", |sizes| sizes.resident_mb, 40.0),
        // A segment is 64 MiB; which are complete at the moment of a look is chance.
        ("log", |sizes| sizes.log_mb, 140.0),
        ("view", |sizes| sizes.view_mb, 200.0),
    ];
    for (name, of, slack_mb) in figures {
        let (before, after) = (most(first, of), most(second, of));
        let is_fine = after <= before * 1.1 + slack_mb;
        is_flat &= is_fine;
        let word = if is_fine { "flat" } else { "GREW" };
        line(&format!("{name:<9} {word}: at most {before:.0} MB, then {after:.0} MB"));
    }
    if is_flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the report, not the run.
    let _closed = writeln!(out, "{text}");
}
