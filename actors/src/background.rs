//! Waiting for long work that runs beside the actors, on threads that step back behind them.

use tokio::sync::oneshot;

/// The work ended without a result: it panicked, or no thread could be made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("work in the background died")]
pub struct Died;

/// Runs blocking `work` on a thread of its own with low priority; the blocking pool stays free for what
/// requests wait for. Dropping the future does not stop the work.
///
/// # Errors
/// [`Died`].
pub async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Died> {
    let (done, outcome) = oneshot::channel();
    let thread = storage::background::spawn(name, move || {
        // Nobody may wait for it any more.
        let _gone = done.send(work());
    });
    if let Err(error) = thread {
        tracing::error!(%error, name, "no thread for work in the background");
        return Err(Died);
    }
    outcome.await.map_err(|_| Died)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_and_a_panic_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(run("seven", || 7)), Ok(7));
        let died = runtime.block_on(run("panic", || -> u8 { panic!("on purpose") }));
        assert_eq!(died, Err(Died));
    }
}
