//! Long work in the background: on a thread of its own that steps back behind those that serve.

use std::io;
use std::thread::{Builder, JoinHandle};

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// How far [`Priority::Low`] steps back (setpriority(2)): half of what there is.
const NICE: i32 = 10;

/// How far a thread steps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// It gets a smaller part of the processors, and gets on even if others want all of them.
    Low,
    /// It gets what nobody else wants (sched(7), `SCHED_IDLE`), and stops at once when somebody does. While
    /// others want all processors, it hardly gets on.
    Idle,
}

/// Starts `work` on a thread of that name with [`Priority::Low`].
///
/// # Errors
/// If no thread can be made.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    spawn_at(Priority::Low, name, work)
}

/// Starts `work` on a thread of that name with that priority. Where the priority cannot be lowered, it runs
/// with that of this process.
///
/// # Errors
/// If no thread can be made.
pub fn spawn_at<T: Send + 'static>(
    priority: Priority,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        // Linux keeps a priority for each thread; so nobody else steps back.
        let lowered = match priority {
            Priority::Low => rustix::process::nice(NICE).map(drop).map_err(|e| e.to_string()),
            Priority::Idle => set_thread_priority_and_policy(
                thread_native_id(),
                ThreadPriority::Min,
                ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle),
            )
            .map_err(|e| e.to_string()),
        };
        if let Err(error) = lowered {
            tracing::debug!(error, "background work keeps its priority");
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

    #[cfg(target_os = "linux")]
    #[test]
    fn an_idle_thread_gets_what_nobody_wants_and_its_maker_goes_on_as_before() {
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        let before = policy();
        let inside = spawn_at(Priority::Idle, "idle", policy).unwrap();
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(inside.join().unwrap(), idle);
        assert_eq!(policy(), before);
    }
}
