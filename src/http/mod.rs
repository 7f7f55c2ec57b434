//! The HTTP edge: from bytes on a socket to one ask of one tenant, and back.
//!
//! This file assembles the server. Which routes there are stands in [`routes`], what happens to every
//! request in [`dispatch`]. Refuses: to know keys, rows or anything else of storage beyond its ids.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App as Site, HttpServer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use crate::config::{Config, Tls};
use crate::http::app::App;
use crate::http::dispatch::DispatchFactory;
use crate::limits::{DISCONNECT_TIMEOUT, TLS_HANDSHAKE_TIMEOUT};

pub mod allowed;
pub mod answer;
pub mod app;
pub mod dispatch;
pub mod docs;
pub mod extract;
pub mod headers;
pub mod matcher;
pub mod openapi;
pub mod past;
pub mod problem;
pub mod refusal;
pub mod request;
pub mod routes;

pub mod cookies;
pub mod passkeys;
pub mod passwords;
pub mod proofs;
pub mod services;
pub mod tokens;

// The resources: their rows of the table and their handlers.
pub mod account;
pub mod api_keys;
pub mod audit;
pub mod auth;
pub mod exports;
pub mod external;
pub mod forms;
pub mod hooks;
pub mod identities;
pub mod identity_providers;
pub mod integrations;
pub mod invites;
pub mod me;
pub mod members;
pub mod meta;
pub mod mfa;
pub mod oidc;
pub mod platform;
pub mod recovery;
pub mod restores;
pub mod scim;
pub mod submissions;
pub mod support;
pub mod teams;
pub mod tenant;
pub mod usage;

/// Bytes of a file with certificates or a key at most.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A PEM file cannot be used.
    #[error("{} cannot be used for TLS: {reason}", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("the certificate and the key cannot be used together")]
    Tls(#[from] rustls::Error),
}

/// The app, once the actors that it leads to have started on the workers' threads.
pub type AppToCome = watch::Receiver<Option<App>>;

/// The node gave up before its app was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node did not start")]
pub struct NodeGaveUp;

/// Waits for the app.
pub(crate) async fn arrival(mut app: AppToCome) -> Result<App, NodeGaveUp> {
    let arrived = app.wait_for(Option::is_some).await.map_err(|_| NodeGaveUp)?;
    arrived.clone().ok_or(NodeGaveUp)
}

/// Serves the API on a bound socket until the server is stopped.
///
/// `on_worker` runs once on each worker thread before anything else happens there, because tenants
/// live on these threads. The parts of the node arrive in `app` once they stand; no request is read
/// before that. Signals are left to the caller.
///
/// # Errors
/// A [`ServeError`], when TLS is configured and its files do not serve; or the socket's own error.
pub fn serve(
    config: &Config,
    listener: TcpListener,
    app: AppToCome,
    on_worker: impl Fn() + Send + Clone + 'static,
) -> io::Result<Server> {
    let limits = &config.limits;
    let tls = config.http.tls.as_ref().map(tls_config).transpose().map_err(io::Error::other)?;
    let server = HttpServer::new(move || {
        on_worker();
        let (data, dispatch) = (app.clone(), DispatchFactory::new(app.clone()));
        Site::new().data_factory(move || arrival(data.clone())).default_service(dispatch)
    })
    .workers(config.http.workers())
    .max_connections(limits.connections_max)
    .keep_alive(Duration::from_millis(limits.keep_alive_ms))
    .client_request_timeout(Duration::from_millis(limits.header_timeout_ms))
    .client_disconnect_timeout(DISCONNECT_TIMEOUT)
    .tls_handshake_timeout(TLS_HANDSHAKE_TIMEOUT)
    .tcp_nodelay(true)
    .shutdown_timeout(limits.drain_timeout_ms.div_ceil(1_000))
    .disable_signals();
    let bound = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls),
        None => server.listen(listener),
    };
    Ok(bound?.run())
}

/// TLS 1.2 and 1.3 with HTTP/2 offered first. One cryptographic library, named here.
///
/// # Errors
/// Names the file that cannot be read or holds no certificate or key.
pub fn tls_config(files: &Tls) -> Result<rustls::ServerConfig, ServeError> {
    let unusable = |path: &Path, error: &dyn std::error::Error| ServeError::Pem {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let read = |path: &Path| {
        let bytes = storage::scratch::read_secret(path, PEM_BYTES_MAX);
        bytes.map_err(|error| unusable(path, &error))
    };
    let chain = CertificateDer::pem_slice_iter(&read(&files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(&files.cert, &error))?;
    if chain.is_empty() {
        let reason = "it holds no certificate".to_owned();
        return Err(ServeError::Pem { path: files.cert.clone(), reason });
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| unusable(&files.key, &error))?;
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
