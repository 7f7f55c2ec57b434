//! The whole path over HTTP, in one run on one machine: server CPU of an authenticated submission read
//! against a bare actix-web handler, durable creates of 64 tenants against the bare log with the same
//! bytes, and the memory of an idle node. Ratios are what counts; rates depend on the machine.
//!
//! `cargo bench --bench http` prints the figures; `-- --seconds 10` measures longer.

use std::io::Write;
use std::time::Duration;

#[path = "http/drive.rs"]
mod drive;
#[path = "http/floor.rs"]
mod floor;
#[path = "http/node.rs"]
#[expect(dead_code, reason = "shared with the bench of endless writes")]
mod node;

use drive::{Load, drive};
use node::Node;

const TENANTS: usize = 64;
const SUBMISSION: &str =
    r#"{"data":{"name":"Ada Lovelace","amount":12345,"note":"a submission of ordinary size"}}"#;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--bare") {
        floor::serve_bare();
        return;
    }
    let seconds = args.iter().position(|arg| arg == "--seconds").and_then(|at| args.get(at + 1));
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(5);
    let duration = Duration::from_secs(seconds);

    let bare = floor::Bare::start();
    let request = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n".to_vec();
    let floor = drive(bare.port, bare.pid(), &[request], Load { connections: 16, duration });
    line(
        "bare handler",
        &format!("{:.2} µs CPU/request, {:.0} requests/s", floor.cpu_us, floor.per_second),
    );

    let node = Node::start();
    let people: Vec<_> = (0..TENANTS).map(|n| node.sign_up(n)).collect();
    let one = &people[0];
    let submission = one.submit(SUBMISSION);
    let read = one.request("GET", &format!("/v1/forms/{}/submissions/{submission}", one.form), "");
    let reads = drive(node.port, node.pid(), &[read], Load { connections: 16, duration });
    line(
        "authenticated read",
        &format!("{:.2} µs CPU/request, {:.0} requests/s", reads.cpu_us, reads.per_second),
    );
    line("  ratio to bare (CPU per request)", &format!("{:.2}", floor.cpu_us / reads.cpu_us));

    let creates: Vec<_> = people
        .iter()
        .map(|person| {
            person.request("POST", &format!("/v1/forms/{}/submissions", person.form), SUBMISSION)
        })
        .collect();
    let made = drive(node.port, node.pid(), &creates, Load { connections: TENANTS, duration });
    line(
        "durable creates, 64 tenants",
        &format!(
            "{:.0}/s, {:.1} µs CPU each, p50 {:.1} ms, p99 {:.1} ms",
            made.per_second, made.cpu_us, made.p50_ms, made.p99_ms
        ),
    );
    let log_bytes = node.log_bytes_per_record();
    let log = floor::log_appends_per_second(TENANTS, log_bytes, duration);
    line("bare log, same bytes", &format!("{log:.0}/s at {log_bytes} bytes"));
    line("  ratio to the bare log", &format!("{:.2}", made.per_second / log));
    drop(node);

    let idle = node::idle_memory(10);
    let many = node::idle_memory(1_010);
    line("idle node, 10 tenants", &format!("{:.1} MB resident", idle));
    line("1,000 more, asleep", &format!("{:.1} MB more", many - idle));
}

fn line(what: &str, figure: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the report, not the bench.
    let _closed = writeln!(out, "{what:<36} {figure}");
}
