//! Whether the disk has room for records: what the committer met, and what the disk says now.
//!
//! It tells the log when a shortage begins and when it is over, once each.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::Disk;
use crate::log::Shortage;

/// What is known of the room that is left.
pub(super) struct Space {
    reserve_bytes: u64,
    /// What was free, plus one, when a record was last refused; 0 if the last one was taken. What
    /// is not known counts as nothing.
    refused_at: AtomicU64,
}

impl Space {
    pub(super) fn new(reserve_bytes: u64) -> Self {
        Self { reserve_bytes, refused_at: AtomicU64::new(0) }
    }

    /// What is free; nothing where the disk cannot say.
    fn available(disk: &dyn Disk, dir: &Path) -> Option<u64> {
        disk.available_bytes(dir).ok().flatten()
    }

    /// Whether what must stay free is free. Where the disk cannot say, a write that does not fit will.
    pub(super) fn has_reserve(&self, disk: &dyn Disk, dir: &Path) -> bool {
        Self::available(disk, dir).is_none_or(|bytes| bytes >= self.reserve_bytes)
    }

    /// A group did not fit.
    pub(super) fn note_full(&self, disk: &dyn Disk, dir: &Path) {
        let available = Self::available(disk, dir).unwrap_or_default();
        if self.refused_at.swap(available.saturating_add(1), Ordering::Relaxed) == 0 {
            tracing::warn!(
                available_bytes = available,
                reserve_bytes = self.reserve_bytes,
                "the disk is full: writes are refused until there is space; reads go on"
            );
        }
    }

    /// A group was written.
    pub(super) fn note_written(&self) {
        // Read first: a line of memory that every group wrote to would travel for nothing.
        if self.refused_at.load(Ordering::Relaxed) != 0 {
            self.refused_at.store(0, Ordering::Relaxed);
            tracing::info!("the disk has space again: writes go on");
        }
    }

    /// Whether a record would be refused now: the reserve is not free, or nothing was freed since
    /// one was.
    pub(super) fn shortage(&self, disk: &dyn Disk, dir: &Path) -> Option<Shortage> {
        let available_bytes = Self::available(disk, dir);
        let refused_at = self.refused_at.load(Ordering::Relaxed);
        let is_short = match available_bytes {
            Some(bytes) => bytes < self.reserve_bytes || bytes < refused_at,
            None => refused_at != 0,
        };
        is_short.then_some(Shortage { available_bytes, reserve_bytes: self.reserve_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_refusal_counts_until_something_is_freed_or_written() {
        let dir = std::env::temp_dir();
        let space = Space::new(0);
        assert_eq!(space.shortage(&RealDisk, &dir), None);
        space.refused_at.store(u64::MAX, Ordering::Relaxed);
        assert!(space.shortage(&RealDisk, &dir).is_some());
        space.refused_at.store(1, Ordering::Relaxed);
        assert_eq!(space.shortage(&RealDisk, &dir), None, "more is free than was then");
        space.refused_at.store(u64::MAX, Ordering::Relaxed);
        space.note_written();
        assert_eq!(space.shortage(&RealDisk, &dir), None);
    }

    #[test]
    fn less_than_the_reserve_is_a_shortage_also_when_nobody_writes() {
        let dir = std::env::temp_dir();
        let space = Space::new(u64::MAX);
        let shortage = space.shortage(&RealDisk, &dir).expect("a shortage");
        assert_eq!(shortage.reserve_bytes, u64::MAX);
        assert!(!space.has_reserve(&RealDisk, &dir));
    }
}
