//! Where a node is in its life, readable by everyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is under way.
    Stopping,
}

/// The phase, shared.
#[derive(Debug, Clone, Default)]
pub struct Phases(Arc<AtomicU8>);

impl Phases {
    /// The phase now.
    pub fn get(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }
    pub(super) fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }
}
