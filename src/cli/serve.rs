//! `bulkhead serve`: runs the node until it is told to stop.

use actix_rt::System;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::output::Output;
use crate::cli::{CliError, Place};
use crate::runtime::Node;
use crate::telemetry;

/// Runs a node of `place`.
pub fn run(place: &Place) -> Result<(), CliError> {
    let config = place.load()?;
    telemetry::install(&config.log)?;
    System::new().block_on(async {
        let mut stop = StopSignals::listen()?;
        let node = Node::start(config).await?;
        announce(&node)?;
        stop.first().await;
        node.stop().await?;
        Ok(())
    })
}

/// Says where everything is. A closed standard output does not stop a node.
fn announce(node: &Node) -> Result<(), CliError> {
    let text = format!(
        "bulkhead is ready\n  API        {}  (documents at /docs, /openapi.json)\n  browsers   {}  (/docs, /account/sign-in)\n  operators  {}  (/readyz, /metrics, /actors)\n  data       {}",
        node.http_url(),
        node.browser_url(),
        node.ops_url(),
        node.config().data.dir.display(),
    );
    match Output::new(false).line(&text) {
        Err(error) if error.is_reader_gone() => Ok(()),
        printed => printed,
    }
}

/// SIGTERM and SIGINT, from the moment this exists.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen.
    pub fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::system("signals cannot be received"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first one; a second one ends the process at once.
    pub async fn first(&mut self) {
        self.next().await;
        let again = Self::listen();
        actix_rt::spawn(async move {
            if let Ok(mut again) = again {
                again.next().await;
                tracing::warn!("told to stop twice: the node ends at once, without a clean mark");
                std::process::exit(1);
            }
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
