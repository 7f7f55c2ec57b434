//! The threads that hash. They take what the processors have left, so that whoever is served notices nothing;
//! and if they get nothing, because others want all there is, the work is done by a thread that does get on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use storage::background::{self, Priority};
use tokio::sync::oneshot;

use super::PasswordError;

const NAME: &str = "password-hash";
/// How long work may take by what is left of the processors: several times as long as a hash takes.
const PATIENCE: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce() + Send>;

/// They end when this is dropped.
pub(super) struct Workers {
    jobs: Sender<Job>,
}

impl Workers {
    /// That many. Fewer, if the system gives no more threads.
    pub(super) fn start(count: usize) -> Self {
        let (jobs, next) = unbounded::<Job>();
        for _ in 0..count {
            let next = next.clone();
            let started = background::spawn_at(Priority::Idle, NAME, move || {
                for job in next {
                    // What panics gives no answer, and that is told to who asked.
                    let _told = catch_unwind(AssertUnwindSafe(job));
                }
            });
            if let Err(error) = started {
                tracing::warn!(%error, "no thread to hash passwords with the lowest priority");
            }
        }
        Self { jobs }
    }

    /// Does `work`, and keeps `turn` until nothing of it is under way any more: it goes on when nobody waits.
    ///
    /// # Errors
    /// [`PasswordError::Panicked`] and [`PasswordError::Thread`].
    pub(super) async fn run<T: Send + 'static, K: Send + Sync + 'static>(
        &self,
        turn: K,
        work: impl Fn() -> T + Send + Sync + 'static,
    ) -> Result<T, PasswordError> {
        let both = Arc::new((work, turn));
        let (done, mut outcome) = oneshot::channel();
        let job = both.clone();
        let job = Box::new(move || {
            if !done.is_closed() {
                let _nobody_waits = done.send((job.0)());
            }
        });
        // Nobody takes it if there is no thread; then it is done below.
        let _unsent = self.jobs.send(job);
        if let Ok(result) = tokio::time::timeout(PATIENCE, &mut outcome).await {
            return Ok(result?);
        }
        let (done, sooner) = oneshot::channel();
        background::spawn(NAME, move || {
            let _nobody_waits = done.send((both.0)());
        })?;
        tokio::select! {
            Ok(result) = outcome => Ok(result),
            result = sooner => Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_even_if_those_that_should_do_it_get_nothing() {
        let without_any = Workers::start(0);
        assert_eq!(without_any.run((), || 7).await.unwrap(), 7);
        let one = Workers::start(1);
        let (stuck, go) = std::sync::mpsc::channel::<()>();
        let (has_begun, begun) = oneshot::channel();
        one.jobs
            .send(Box::new(move || {
                has_begun.send(()).unwrap();
                let _until_dropped = go.recv();
            }))
            .unwrap();
        begun.await.unwrap();
        assert_eq!(one.run((), || 7).await.unwrap(), 7);
        drop(stuck);
    }

    #[tokio::test]
    async fn what_panics_is_told_and_the_next_is_served_by_the_same() {
        let one = Workers::start(1);
        let panicked = one.run((), || -> u8 { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(PasswordError::Panicked(_))), "{panicked:?}");
        let thread = || std::thread::current().id();
        let first = one.run((), thread).await.unwrap();
        assert_eq!(one.run((), thread).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_its_work() {
        let one = Workers::start(1);
        let turn = Arc::new(());
        assert_eq!(one.run(turn.clone(), || 7).await.unwrap(), 7);
        let is_over = || Arc::strong_count(&turn) == 1;
        // The thread lets go of it right after it has answered.
        while !is_over() {
            tokio::task::yield_now().await;
        }
    }
}
