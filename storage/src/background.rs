//! Long work in the background: on a thread of its own that steps back behind those that serve.

use std::io;
use std::thread::{Builder, JoinHandle};

/// How far it steps back (setpriority(2)): half of what there is.
const NICE: i32 = 10;

/// Starts `work` on a thread of that name with a lower priority than this process has. Where the priority
/// cannot be lowered, it runs with the same.
///
/// # Errors
/// If no thread can be made.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        // Linux keeps a priority for each thread; so nobody else steps back.
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::debug!(%error, "background work keeps its priority");
        }
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_thread_steps_back_and_its_maker_does_not() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let inside = spawn("calm", || rustix::process::nice(0).unwrap()).unwrap();
        assert_eq!(inside.join().unwrap(), (before + NICE).min(19));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
