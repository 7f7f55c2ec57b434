//! What a tenant says of itself, readable by anyone at any time without asking it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use storage::shard::Shard;

/// Counters of one tenant. Kept while it sleeps.
#[derive(Debug, Default)]
pub struct Stats {
    queue: AtomicUsize,
    lsn: AtomicU64,
    applied_lsn: Mutex<Arc<AtomicU64>>,
    last_commit_ms: AtomicU64,
    last_used_ms: AtomicU64,
    panics: AtomicU64,
    wakes: AtomicU64,
    resident_bytes: AtomicUsize,
    last_fault: Mutex<Option<String>>,
}

impl Stats {
    pub(crate) fn opened(&self, shard: &Shard) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.lsn.store(shard.tail().lsn, Ordering::Relaxed);
        self.resident_bytes.store(shard.resident_bytes(), Ordering::Relaxed);
        if let Ok(mut applied) = self.applied_lsn.lock() {
            *applied = shard.watch_applied();
        }
    }
    pub(crate) fn queued(&self, waiting: usize) {
        self.queue.store(waiting, Ordering::Relaxed);
    }
    pub(crate) fn used(&self, now_ms: u64) {
        self.last_used_ms.store(now_ms, Ordering::Relaxed);
    }
    pub(crate) fn committed(&self, shard: &Shard, now_ms: u64, cached_bytes: usize) {
        self.lsn.store(shard.tail().lsn, Ordering::Relaxed);
        self.last_commit_ms.store(now_ms, Ordering::Relaxed);
        self.resident_bytes.store(shard.resident_bytes() + cached_bytes, Ordering::Relaxed);
    }
    pub(crate) fn panicked(&self, text: &str) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        self.faulted(text);
    }
    pub(crate) fn faulted(&self, text: &str) {
        if let Ok(mut fault) = self.last_fault.lock() {
            *fault = Some(text.to_owned());
        }
    }

    /// Commands waiting for the next record.
    pub fn queue(&self) -> usize {
        self.queue.load(Ordering::Relaxed)
    }
    /// The last durable record.
    pub fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Relaxed)
    }
    /// The last record the view has.
    pub fn applied_lsn(&self) -> u64 {
        self.applied_lsn.lock().map_or(0, |applied| applied.load(Ordering::Relaxed))
    }
    /// When the last record became durable, Unix milliseconds; 0: not since the start.
    pub fn last_commit_ms(&self) -> u64 {
        self.last_commit_ms.load(Ordering::Relaxed)
    }
    /// When the tenant was last asked anything, Unix milliseconds.
    pub fn last_used_ms(&self) -> u64 {
        self.last_used_ms.load(Ordering::Relaxed)
    }
    /// Panics since the start, each of which rebuilt the tenant's memory.
    pub fn restarts(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
    /// How often it woke.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }
    /// Bytes held in memory for it, roughly.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes.load(Ordering::Relaxed)
    }
    /// The last panic or fault.
    pub fn last_fault(&self) -> Option<String> {
        self.last_fault.lock().ok().and_then(|fault| fault.clone())
    }
}
