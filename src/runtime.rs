//! Start order and stop order of everything, as straight code.
//!
//! Start: store (under its lock) → listeners bound → serving threads, which are the tenants' hosts →
//! actors → requests are accepted → `node.json`. Stop: no more connections → tenants finish and
//! sleep → anchor → store closed with the clean mark → `node.json` removed.
//!
//! Keeps nothing outside a [`Node`], so that several can live in one process.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actors::env::Env;
use actors::host::Hosts;
use storage::store::OpenError;
use tokio::sync::{oneshot, watch};

use crate::config::{Config, Http, read_text};
use crate::http::app::App;
use crate::ops::{self, Ops};

mod engine;
mod phase;
pub mod presence;
#[cfg(test)]
mod tests;

pub use engine::{Engine, Vault};
pub use phase::{Phase, Phases};
use presence::{DirectoryId, Presence};

/// How long a stopped node waits for the last holders of its store to let go.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of the scrapers' token file at most.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be opened.
    #[error("the data directory cannot be opened")]
    Store(#[from] OpenError),
    /// There is no room for a new store.
    #[error(
        "{} has {} MiB free; to begin there, at least {} MiB must be free: 64 MiB that are never written to, the first \
         log segment (data.segment_bytes), and what the node itself needs",
        dir.display(), available_bytes >> 20, needed_bytes >> 20
    )]
    TooSmall {
        /// The data directory.
        dir: PathBuf,
        /// What is free.
        available_bytes: u64,
        /// What must be.
        needed_bytes: u64,
    },
    /// What is signed is signed as another node.
    #[error(
        "this node has signed its checkpoints, backups and receipts as {was:?}, and node.origin is {is:?}: set \
         node.origin = {was:?}, as it was (in the file of --config, or by BULKHEAD__NODE__ORIGIN)"
    )]
    Origin {
        /// What its checkpoints say.
        was: String,
        /// What the configuration says.
        is: String,
    },
    /// A file that the archive needs cannot be used.
    #[error(transparent)]
    ArchiveFile(#[from] crate::config::SecretFileError),
    /// Mail cannot be sent as configured.
    #[error("mail cannot be sent as configured")]
    Mail(#[from] crate::mail::MailError),
    /// The archive cannot be opened.
    #[error("the archive cannot be opened")]
    Archive(#[from] storage::archive::ArchiveError),
    /// The log of signed checkpoints cannot be opened.
    #[error("the anchor log cannot be opened")]
    AnchorLog(#[from] storage::anchor_log::AnchorLogError),
    /// The anchor cannot be started.
    #[error("the audit anchor cannot be started")]
    Anchor(#[from] actors::audit::anchor::AnchorError),
    /// The keys that sign tokens cannot be had.
    #[error("the token signing keys cannot be had")]
    Tokens(#[from] crate::http::tokens::TokenKeyError),
    /// The platform's own compartment cannot be opened.
    #[error("the platform's own compartment cannot be opened")]
    Platform(#[from] actors::tenant::error::TenantError),
    /// Identity providers cannot be asked.
    #[error(transparent)]
    Federation(#[from] crate::federation::FederationError),
    /// Two metrics have one name.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// An address or port is not free.
    #[error("{key} = {address}: {}", bind_reason(source))]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The address and port.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP server cannot start: the certificate, most likely.
    #[error("the HTTP server cannot start")]
    Http(#[source] std::io::Error),
    /// The operators' listener cannot start.
    #[error("the operators' listener cannot start")]
    Ops(#[source] std::io::Error),
    /// A file of the running node cannot be written or read.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The store does not close cleanly. Nothing is lost; the view is made again next time.
    #[error("the store could not be closed cleanly")]
    Close(#[source] Box<storage::store::StoreError>),
    /// A thread of the node died while starting or stopping.
    #[error("a thread of the node died")]
    Died,
}

fn bind_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "the port is in use by another program; free it, or choose another by this key in --config or by \
             BULKHEAD__HTTP__PORT or BULKHEAD__OPS__PORT (0 takes any free one)"
                .to_owned()
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    }
}

/// A running node.
pub struct Node {
    engine: Engine,
    http: Listening,
    ops: Ops,
    http_url: String,
    browser_url: String,
    ops_url: String,
}

/// The HTTP server on threads of its own.
struct Listening {
    handle: ServerHandle,
    ended: oneshot::Receiver<std::io::Result<()>>,
}

impl Node {
    /// Starts a node in the real world.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_in(config, Env::real()).await
    }

    /// Starts a node under a given clock, randomness and faults. Ready when this returns.
    pub async fn start_in(config: Config, env: Env) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let vault = Vault::open(&config).await?;
        let http_listener = bind("http.bind", config.http.bind)?;
        let ops_listener = bind("ops.bind", config.ops.bind)?;
        let http_address = address_of(&http_listener, "http.bind")?;
        let http_url = url(&config.http, http_address);
        let browser_url = url_for_browsers(&config.http, http_address);
        let ops_address = address_of(&ops_listener, "ops.bind")?;
        let ops_url = format!("http://{}", reachable(ops_address));

        let phases = Phases::default();
        let token = hex::encode(env.random::<32>());
        let guard = ops::guard::Guard::new(ops_address, token.clone(), scrape_token(&config)?);
        let ops = Ops::start(ops_listener, guard, phases.clone()).map_err(StartError::Ops)?;

        let hosts = Hosts::new(config.http.workers());
        let (ready, workers_app) = watch::channel(None);
        let serving = serve(config.clone(), http_listener, workers_app, hosts.clone());
        let started = async {
            let links = config.http.public_url.clone().unwrap_or_else(|| http_url.clone());
            let behind = Behind { vault, config, env, hosts, phases, links };
            let (engine, http) = start_behind(behind, ready, serving).await?;
            ops.attach(&engine);
            Ok::<_, StartError>((engine, http))
        };
        let (engine, http) = match started.await {
            Ok(started) => started,
            Err(error) => {
                ops.stop().await;
                return Err(error);
            }
        };
        let node = Self { engine, http, ops, http_url, browser_url, ops_url };
        node.announce(&token)?;
        Ok(node)
    }

    fn announce(&self, token: &str) -> Result<(), StartError> {
        let dir = &self.config().data.dir;
        let presence = Presence {
            pid: std::process::id(),
            http: self.http_url.clone(),
            ops: self.ops_url.clone(),
            directory: DirectoryId::of(dir)
                .map_err(|source| StartError::File { path: dir.clone(), source })?,
        };
        presence::announce(dir, &presence, token)
            .map_err(|source| StartError::File { path: presence::path(dir), source })?;
        self.engine.phases().set(Phase::Ready);
        tracing::info!(
            http = %self.http_url,
            ops = %self.ops_url,
            data = %dir.display(),
            workers = self.config().http.workers(),
            version = env!("CARGO_PKG_VERSION"),
            "the node is ready"
        );
        Ok(())
    }

    /// URL of the API, as bound.
    pub fn http_url(&self) -> &str {
        &self.http_url
    }
    /// URL to open in a browser.
    pub fn browser_url(&self) -> &str {
        &self.browser_url
    }
    /// URL of the operators' listener, as bound.
    pub fn ops_url(&self) -> &str {
        &self.ops_url
    }
    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.engine.app().config
    }
    /// What its handlers see.
    pub fn app(&self) -> &App {
        self.engine.app()
    }

    /// Stops: what is under way is finished, nothing is lost, the data directory is free again.
    pub async fn stop(self) -> Result<(), StartError> {
        let Self { engine, http, ops, .. } = self;
        tracing::info!("the node stops");
        engine.phases().set(Phase::Stopping);
        http.handle.pause().await;
        // The tenants live on the serving threads, so they sleep before those threads end.
        engine.rest().await;
        http.handle.stop(true).await;
        if let Ok(Err(error)) = http.ended.await {
            tracing::error!(%error, "the HTTP server ended by an error");
        }
        ops.stop().await;
        let dir = engine.app().config.data.dir.clone();
        engine.close().await?;
        presence::withdraw(&dir);
        tracing::info!("the node has stopped");
        Ok(())
    }
}

/// What the actors are started with.
struct Behind {
    vault: Vault,
    config: Arc<Config>,
    env: Env,
    hosts: Hosts,
    phases: Phases,
    /// Where links in mails lead.
    links: String,
}

/// The actors, then the serving threads' go-ahead.
async fn start_behind(
    behind: Behind,
    ready: watch::Sender<Option<App>>,
    serving: Serving,
) -> Result<(Engine, Listening), StartError> {
    let Serving { started, mut ended } = serving;
    let handle = started.await.map_err(|_| StartError::Died)?.map_err(StartError::Http)?;
    tokio::select! {
        // The threads wait for the app, so this ends early only if they cannot serve at all.
        outcome = &mut ended => return Err(ended_early(outcome)),
        () = behind.hosts.ready() => {}
    }
    let Behind { vault, config, env, hosts, phases, links } = behind;
    let engine = Engine::open(vault, config, env, hosts, phases, Some(&links)).await?;
    ready.send_replace(Some(engine.app().clone()));
    // A server that is still starting answers no command, so the first answer tells that it runs.
    handle.resume().await;
    match ended.try_recv() {
        Err(oneshot::error::TryRecvError::Empty) => Ok((engine, Listening { handle, ended })),
        Err(oneshot::error::TryRecvError::Closed) => Err(StartError::Died),
        Ok(outcome) => Err(ended_early(Ok(outcome))),
    }
}

fn ended_early(outcome: Result<std::io::Result<()>, oneshot::error::RecvError>) -> StartError {
    match outcome {
        Ok(Err(error)) => StartError::Http(error),
        Ok(Ok(())) | Err(_) => StartError::Died,
    }
}

/// The HTTP server, starting on a thread of its own.
struct Serving {
    started: oneshot::Receiver<std::io::Result<ServerHandle>>,
    ended: oneshot::Receiver<std::io::Result<()>>,
}

/// Starts the HTTP server. It blocks its thread until every worker has built its service, and those
/// wait for the actors, which need the workers' threads: hence a thread of its own to block.
fn serve(
    config: Arc<Config>,
    listener: TcpListener,
    app: watch::Receiver<Option<App>>,
    hosts: Hosts,
) -> Serving {
    let (tell_started, started) = oneshot::channel();
    let (tell_ended, ended) = oneshot::channel();
    let system = actix_rt::System::try_current();
    std::thread::spawn(move || {
        if let Some(system) = system {
            actix_rt::System::set_current(system);
        }
        let runtime = match actix_rt::Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _gone = tell_started.send(Err(error));
                return;
            }
        };
        runtime.block_on(async {
            let on_worker = move || hosts.start_here();
            match crate::http::serve(&config, listener, app, on_worker) {
                Ok(server) => {
                    // Nobody waits any more if the node gave up meanwhile, here as below.
                    let _gone = tell_started.send(Ok(server.handle()));
                    let _gone = tell_ended.send(server.await);
                }
                Err(error) => {
                    let _gone = tell_started.send(Err(error));
                }
            }
        });
    });
    Serving { started, ended }
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Bind { key, address, source })
}

fn address_of(listener: &TcpListener, key: &'static str) -> Result<SocketAddr, StartError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|source| StartError::Bind { key, address: unknown, source })
}

fn url(http: &Http, bound: SocketAddr) -> String {
    format!("{}://{}", http.scheme(), reachable(bound))
}

/// Where a browser finds the node: on this machine by name, because passkeys take no address.
fn url_for_browsers(http: &Http, bound: SocketAddr) -> String {
    let is_here = reachable(bound).ip().is_loopback() && http.base_domain.is_none();
    match &http.public_url {
        Some(public) => public.clone(),
        None if is_here => format!("{}://localhost:{}", http.scheme(), bound.port()),
        None => url(http, bound),
    }
}

/// An address this machine can call: where every address is bound, the loopback one stands for it.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let mut address = bound;
    match bound {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip([127, 0, 0, 1].into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            address.set_ip(std::net::Ipv6Addr::LOCALHOST.into());
        }
        _ => {}
    }
    address
}

/// The token that scrapers present, if one is configured. A file that others can read is refused.
fn scrape_token(config: &Config) -> Result<Option<String>, StartError> {
    use std::os::unix::fs::MetadataExt;
    let Some(path) = &config.ops.token_file else { return Ok(None) };
    let failed = |source| StartError::File { path: path.clone(), source };
    let refused = |reason: &str| failed(std::io::Error::other(reason));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(refused("others can read it; chmod 600 it"));
    }
    let token = read_text(path, TOKEN_BYTES_MAX).map_err(failed)?.trim().to_owned();
    if token.len() < 16 {
        return Err(refused("the token must have at least 16 characters"));
    }
    Ok(Some(token))
}
