//! The thread that drives an archive's requests, started with the first of them.
//!
//! Whoever asks waits on a channel and not in the runtime, so that asking and dropping work on every
//! thread, also one of another runtime.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;

use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;

use crate::archive::ArchiveError;

/// A runtime of one thread.
#[derive(Default)]
pub(super) struct Engine {
    runtime: Mutex<Option<Runtime>>,
}

impl Engine {
    /// Runs `work` and blocks this thread until it ends.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.handle()?.spawn(async move {
            // Nobody hears it only if the asking thread died.
            let _heard = sender.send(work.await);
        });
        let ended = || ArchiveError::Unreachable { reason: "the request was given up".to_owned() };
        receiver.recv().map_err(|_| ended())
    }

    fn handle(&self) -> Result<Handle, ArchiveError> {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*runtime {
            return Ok(running.handle().clone());
        }
        let mut builder = Builder::new_multi_thread();
        let made = builder.worker_threads(1).thread_name("archive").enable_all().build();
        let made = made.map_err(|error| ArchiveError::Unreachable {
            reason: format!("no thread could be started for it: {error}"),
        })?;
        Ok(runtime.insert(made).handle().clone())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            // Dropping it would block, which is forbidden inside another runtime.
            runtime.shutdown_background();
        }
    }
}
