//! Turns: people of some tenants write at a fixed pace for a while, and how late each answer was is
//! counted from when its request was due, so that a stall counts for all it delays. Of each turn p50 and
//! p99 are taken, and of those the medians: one turn in which the machine stood still does not decide.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use crate::drive::{now, read_answer};
use crate::node::Person;

/// Between two requests of one tenant.
const PACE: Duration = Duration::from_millis(5);
/// How long tenants write before it is the other's turn: about as long as a backup beside them takes.
const ROUND: Duration = Duration::from_secs(5);
const SUBMISSION: &str =
    r#"{"data":{"name":"Ada Lovelace","amount":12345,"note":"a submission of ordinary size"}}"#;

/// What one turn gave, in milliseconds.
pub struct Turn {
    p50: f64,
    p99: f64,
}

impl Turn {
    pub fn of(mut late: Vec<Duration>) -> Self {
        late.sort_unstable();
        let at = |share: usize| late[late.len() * share / 100].as_secs_f64() * 1e3;
        Self { p50: at(50), p99: at(99) }
    }
}

/// One submission by each.
pub fn requests(people: &[Person<'_>]) -> Vec<Vec<u8>> {
    let submit = |person: &Person<'_>| {
        person.request("POST", &format!("/v1/forms/{}/submissions", person.form), SUBMISSION)
    };
    people.iter().map(submit).collect()
}

/// Has everybody send at their pace; gives how late each answer was.
pub fn pace(port: u16, requests: &[Vec<u8>]) -> Vec<Duration> {
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
/// Stands still.
pub fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

/// Prints the medians of all turns.
pub fn tell(name: &str, turns: &[Turn]) -> (f64, f64) {
    let median = |of: fn(&Turn) -> f64| {
        let mut all: Vec<_> = turns.iter().map(of).collect();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (p50, p99) = (median(|turn| turn.p50), median(|turn| turn.p99));
    line(&format!("{name:<15} {:>3} turns: p50 {p50:.2} ms, p99 {p99:.2} ms", turns.len()));
    (p50, p99)
}

/// Prints a line.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the report, not the run.
    let _closed = writeln!(out, "{text}");
}
