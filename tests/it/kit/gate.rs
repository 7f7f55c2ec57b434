//! A door in front of a server, for what happens when a network goes away and comes back. Shut, nobody
//! gets through and who is inside is thrown out. It changes no byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

struct Door {
    /// The server behind it.
    target: String,
    is_open: AtomicBool,
    /// Pieces of requests that still get through, and then it shuts by itself.
    pieces_left: AtomicU64,
    inside: Mutex<Vec<TcpStream>>,
}

/// The door, open.
pub struct Gate {
    /// What to ask instead of the server.
    pub url: String,
    door: Arc<Door>,
}

impl Gate {
    /// In front of the server at a URL without a path.
    pub fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = format!("http://{}", listener.local_addr().expect("a bound address"));
        let door = Arc::new(Door {
            target: url.trim_start_matches("http://").to_owned(),
            is_open: AtomicBool::new(true),
            pieces_left: AtomicU64::new(u64::MAX),
            inside: Mutex::default(),
        });
        let kept = Arc::clone(&door);
        // Lives as long as the test's process: it waits for a connection that may never come.
        std::thread::spawn(move || {
            for guest in listener.incoming() {
                kept.admit(guest.expect("a connection"));
            }
        });
        Self { url: own, door }
    }

    /// Lets nobody through from now on.
    pub fn shut(&self) {
        self.door.shut();
    }

    /// Shuts it after so many more pieces of requests.
    pub fn shut_after(&self, pieces: u64) {
        self.door.pieces_left.store(pieces, Ordering::SeqCst);
    }

    /// Lets everybody through again.
    pub fn open(&self) {
        self.door.pieces_left.store(u64::MAX, Ordering::SeqCst);
        self.door.is_open.store(true, Ordering::SeqCst);
    }
}

impl Door {
    fn shut(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        for stream in self.inside.lock().expect("no panic inside").drain(..) {
            // Somebody who has left by himself cannot be thrown out.
            let _left = stream.shutdown(Shutdown::Both);
        }
    }

    fn admit(self: &Arc<Self>, guest: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.target) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a copy of a connection");
        {
            let mut inside = self.inside.lock().expect("no panic inside");
            // Asked under the lock: else one who comes in while it is shut stays inside.
            if !self.is_open.load(Ordering::SeqCst) {
                return;
            }
            inside.extend([copy(&guest), copy(&server)]);
        }
        let (door, from, to) = (Arc::clone(self), copy(&guest), copy(&server));
        std::thread::spawn(move || carry(from, to, &|| door.let_through()));
        std::thread::spawn(move || carry(server, guest, &|| true));
    }

    /// Whether one more piece of a request gets through.
    fn let_through(&self) -> bool {
        let count = |left: u64| match left {
            u64::MAX => Some(u64::MAX),
            left => left.checked_sub(1),
        };
        let passes = self.pieces_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
        if passes.is_err() {
            self.shut();
        }
        passes.is_ok()
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_allowed: &dyn Fn() -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !is_allowed() || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // One side that is gone is told to the other; both may be gone already.
    let _told = to.shutdown(Shutdown::Both);
    let _told = from.shutdown(Shutdown::Both);
}
