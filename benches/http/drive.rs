//! A small HTTP/1.1 load driver: keep-alive connections, one request at a time on each. It measures the
//! server's own CPU time, so its own cost does not count.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub struct Load {
    pub connections: usize,
    pub duration: Duration,
}

pub struct Figures {
    pub per_second: f64,
    pub cpu_us: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Sends `requests` (one a connection, in turn) again and again.
pub fn drive(port: u16, pid: u32, requests: &[Vec<u8>], load: Load) -> Figures {
    run(port, requests, load.connections, Duration::from_millis(500));
    let cpu_before = cpu_time(pid);
    let start = now();
    let mut latencies = run(port, requests, load.connections, load.duration);
    let elapsed = start.elapsed();
    let cpu = cpu_time(pid) - cpu_before;
    latencies.sort_unstable();
    let count = latencies.len().max(1);
    let at = |share: usize| latencies.get(count * share / 100).copied().unwrap_or_default();
    Figures {
        per_second: count as f64 / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        p50_ms: at(50).as_secs_f64() * 1e3,
        p99_ms: at(99).as_secs_f64() * 1e3,
    }
}

/// Sends `requests` as [`drive`] does, and gives each answer's latency.
pub fn run(
    port: u16,
    requests: &[Vec<u8>],
    connections: usize,
    duration: Duration,
) -> Vec<Duration> {
    let all = Mutex::new(Vec::new());
    let deadline = now() + duration;
    std::thread::scope(|scope| {
        for n in 0..connections {
            let (request, all) = (&requests[n % requests.len()], &all);
            scope.spawn(move || {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                let mut latencies = Vec::new();
                let mut buffer = vec![0; 16 * 1024];
                while now() < deadline {
                    let sent = now();
                    stream.write_all(request).expect("a sent request");
                    read_answer(&mut stream, &mut buffer);
                    latencies.push(sent.elapsed());
                }
                all.lock().expect("a sound lock").extend(latencies);
            });
        }
    });
    all.into_inner().expect("a sound lock")
}

pub fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        filled += match stream.read(&mut buffer[filled..]).expect("an answer") {
            0 => panic!("the server hung up: {}", String::from_utf8_lossy(&buffer[..filled])),
            read => read,
        };
        let Some(head) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head]).expect("an ASCII head");
        assert!(
            text.starts_with("HTTP/1.1 20"),
            "refused: {}",
            String::from_utf8_lossy(&buffer[..filled])
        );
        let length = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse::<usize>().ok())
            .unwrap_or(0);
        if filled >= head + 4 + length {
            return;
        }
    }
}

/// User and system time of a process so far (proc(5): fields 14 and 15 of `stat`, in ticks of 10 ms).
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running server");
    let after_name = stat.rsplit(')').next().expect("fields after the name");
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub fn now() -> Instant {
    Instant::now()
}
