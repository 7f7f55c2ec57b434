//! What the figures are compared with: a bare actix-web handler, and the log alone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use storage::disk::RealDisk;
use storage::id::{Id, TenantId};
use storage::log::segment::{SegmentLog, SegmentOptions};
use storage::log::{Appended, CommitLog, Tail};
use storage::record::Record;

use crate::drive::now;

/// Serves an empty answer until killed, and prints its port.
pub fn serve_bare() {
    let system = actix_web::rt::System::new();
    system
        .block_on(async {
            let app =
                || App::new().route("/", web::get().to(|| async { HttpResponse::Ok().body("{}") }));
            let server = HttpServer::new(app).workers(2).bind(("127.0.0.1", 0)).expect("a port");
            let port = server.addrs()[0].port();
            let mut out = std::io::stdout();
            writeln!(out, "{port}").expect("a reader");
            out.flush().expect("a reader");
            server.run().await
        })
        .expect("a server");
}

pub struct Bare {
    child: Child,
    pub port: u16,
}

impl Bare {
    pub fn start() -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg("--bare")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bare server");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("its port");
        Self { child, port: line.trim().parse().expect("a port") }
    }
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What the log alone does with records of `bytes`, one in flight for each tenant.
pub fn log_appends_per_second(tenants: usize, bytes: usize, duration: Duration) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let log =
        SegmentLog::open(Arc::new(RealDisk), dir.path(), SegmentOptions::default()).expect("a log");
    let start = now();
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..tenants)
            .map(|n| {
                let log = log.clone();
                scope.spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                    let tenant = TenantId::new(n as u64 + 1, [5; 10]);
                    let mut tail = Tail::EMPTY;
                    while start.elapsed() < duration {
                        let record =
                            Record::new(tenant, tail.lsn + 1, 1, 1, tail.hash, vec![7; bytes]);
                        tail = Tail { lsn: record.header.lsn, epoch: 1, hash: record.header.hash };
                        assert_eq!(runtime.block_on(log.append(record)), Appended::Durable);
                    }
                    tail.lsn
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an appender")).collect()
    });
    counts.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64()
}
