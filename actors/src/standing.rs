//! Keeps an actor that stands beside the tenants running: when it panics, another one is started.
//!
//! One for one, with a pause that doubles, because a fault that is there again at once would
//! otherwise spin. An actor that ends by itself is left in peace.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::env::Env;

/// The pause after a first panic.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause. An actor that lived longer than this begins again with [`PAUSE_FIRST`].
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Held by the actor: tells of its end by being dropped, so unwinding tells of it too.
pub struct Lifeline(Option<oneshot::Sender<End>>);

enum End {
    Finished,
    Panicked,
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let end = if std::thread::panicking() { End::Panicked } else { End::Finished };
        if let Some(notice) = self.0.take() {
            // Nobody listens when the whole node stops.
            let _stopping = notice.send(end);
        }
    }
}

/// Runs `start` on the current arbiter now, and again whenever the holder of the [`Lifeline`] it
/// gave away was dropped by a panic. `name` is for the log.
pub fn keep(name: &'static str, env: &Env, start: impl Fn(Lifeline) + 'static) {
    let env = env.clone();
    actix_rt::spawn(async move {
        let mut pause = PAUSE_FIRST;
        loop {
            let (notice, end) = oneshot::channel();
            let began = env.monotonic();
            start(Lifeline(Some(notice)));
            match end.await {
                Ok(End::Panicked) => {}
                Ok(End::Finished) | Err(_) => return,
            }
            if env.monotonic().saturating_sub(began) > PAUSE_MAX {
                pause = PAUSE_FIRST;
            }
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::error!(actor = name, pause_ms, "an actor panicked and is started again");
            pass(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "a back-off waits for time and for nothing else")]
async fn pass(pause: Duration) {
    tokio::time::sleep(pause).await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use actix::{Actor, AsyncContext, Context};

    use super::*;

    struct Mayfly {
        lives: Rc<Cell<u32>>,
        _lifeline: Lifeline,
        done: Option<oneshot::Sender<()>>,
    }

    impl Actor for Mayfly {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            self.lives.set(self.lives.get() + 1);
            match self.done.take() {
                Some(done) => done.send(()).expect("the test waits"),
                None => {
                    ctx.run_later(Duration::ZERO, |_, _| panic!("a mayfly dies"));
                }
            }
        }
    }

    #[actix_rt::test]
    async fn a_panicking_actor_comes_back() {
        let lives = Rc::new(Cell::new(0));
        let (done, third_life) = oneshot::channel();
        let (counted, done) = (lives.clone(), Rc::new(Cell::new(Some(done))));
        keep("Mayfly", &Env::real(), move |lifeline| {
            let done = if counted.get() == 2 { done.take() } else { None };
            let _addr = Mayfly { lives: counted.clone(), _lifeline: lifeline, done }.start();
        });
        third_life.await.expect("it came back twice");
        assert_eq!(lives.get(), 3);
    }
}
