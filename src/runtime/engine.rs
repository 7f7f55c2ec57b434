//! Everything of a node but its listeners: the store and the actors over it. What a stopped node's
//! command line uses as it is, and what a running node serves from.

use std::path::Path;
use std::sync::{Arc, Weak};

use actors::archivist::ArchivistHandle;
use actors::audit::anchor::{AnchorHandle, AnchorOptions, signing_key};
use actors::audit::archiver::{AuditArchiverHandle, Overflow};
use actors::backup::Source;
use actors::backup::keeper::BackupHandle;
use actors::env::Env;
use actors::erasure::{ErasureHandle, ErasureOptions};
use actors::host::Hosts;
use actors::key_watch::KeyWatchHandle;
use actors::mail::{Outboxes, PostmanHandle};
use actors::quota::Plan;
use actors::quota::keeper::KeeperHandle;
use actors::rate::RateLimiter;
use actors::supervisor::{Supervisor, SupervisorOptions};
use actors::tenant::core::Shared;
use actors::travel::TimeTravel;
use actors::webhook::inbox::WebhookInbox;
use storage::anchor_log::AnchorLog;
use storage::archive::object::ObjectArchive;
use storage::disk::{Disk as _, RealDisk};
use storage::log::segment::SegmentOptions;
use storage::store::{Store, StoreOptions};

use super::{Phase, Phases, RELEASE_TIMEOUT, StartError};
use crate::config::{Config, archive_options};
use crate::exports::Exports;
use crate::federation::Federation;
use crate::http::app::App;
use crate::http::passwords::Passwords;
use crate::http::proofs::Proofs;
use crate::http::tokens::Tokens;
use crate::jobs::Jobs;
use crate::metrics::Metrics;

/// What tokens name as their issuer when no public URL is configured.
const ISSUER_DEFAULT: &str = "bulkhead";

/// What a new store takes beside its log: keys, an empty view, the platform's own compartment.
const BEGIN_BYTES: u64 = 8 << 20;

/// An open data directory: what lasts, without anyone acting on it.
pub struct Vault {
    /// The store.
    pub store: Arc<Store>,
    /// The log of signed checkpoints.
    pub anchors: Arc<AnchorLog>,
}

impl Vault {
    /// Opens the data directory under its lock, off the async threads.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let config = config.clone();
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&config)).await;
        opened.map_err(|_| StartError::Died)?
    }

    fn open_blocking(config: &Config) -> Result<Self, StartError> {
        let dir = &config.data.dir;
        check_room(config)?;
        let archive = ObjectArchive::open(&archive_options(config)?)?;
        let store = Store::open(StoreOptions {
            archive: Some(archive),
            cache_bytes: config.data.cache_bytes,
            segment: SegmentOptions {
                segment_bytes: config.data.segment_bytes,
                ..SegmentOptions::default()
            },
            keys: config.keys.options(),
            ..StoreOptions::new(dir)
        })?;
        let anchors = AnchorLog::open(Arc::new(RealDisk), &anchors_dir(dir))?;
        for repair in store.repairs().iter().chain(anchors.repairs()) {
            tracing::warn!(repair, "the data directory was mended while it was opened");
        }
        Ok(Self { store, anchors: Arc::new(anchors) })
    }

    /// Closes the store. Nothing may act on it any more.
    pub async fn close(self) -> Result<(), StartError> {
        let Self { store, anchors } = self;
        drop(anchors);
        close(store).await
    }
}

/// Refuses to begin a store where it could take no record. One that is there is opened in any case:
/// it can be read.
fn check_room(config: &Config) -> Result<(), StartError> {
    let dir = &config.data.dir;
    if dir.join("FORMAT").exists() {
        return Ok(());
    }
    let reserve_bytes = SegmentOptions::default().reserve_bytes;
    let needed_bytes = reserve_bytes + config.data.segment_bytes + BEGIN_BYTES;
    let Some(there) = dir.ancestors().find(|dir| dir.exists()) else { return Ok(()) };
    match RealDisk.available_bytes(there) {
        Ok(Some(available_bytes)) if available_bytes < needed_bytes => {
            Err(StartError::TooSmall { dir: dir.clone(), available_bytes, needed_bytes })
        }
        // Where the disk cannot say, a write that does not fit will.
        _ => Ok(()),
    }
}

/// Refuses to sign as another node than before: nobody who trusts the old name would believe the rest.
fn check_origin(anchors: &AnchorLog, config: &Config) -> Result<(), StartError> {
    let (tip, is) = (anchors.tip(), &config.node.origin);
    let signed = tip.as_ref().and_then(|tip| tip.note.lines().next());
    match signed {
        Some(was) if was != is => Err(StartError::Origin { was: was.to_owned(), is: is.clone() }),
        _ => Ok(()),
    }
}

fn anchors_dir(dir: &Path) -> std::path::PathBuf {
    dir.join("anchors")
}

/// What asks identity providers. Where nobody listens nobody comes back either.
fn federation(
    config: &Config,
    base_url: Option<&str>,
    env: &Env,
    metrics: &Metrics,
) -> Result<Federation, StartError> {
    let base_url = base_url.unwrap_or_default();
    let allow_loopback = config.identity.allow_loopback;
    Ok(Federation::new(allow_loopback, base_url, env, metrics.registry())?)
}

/// The store and the actors over it.
pub struct Engine {
    app: App,
    keeper: KeeperHandle,
    phases: Phases,
}

impl Engine {
    /// Opens everything with tenants hosted on the current thread: for commands on a stopped node.
    pub async fn open_here(config: Config, env: Env) -> Result<Self, StartError> {
        let vault = Vault::open(&config).await?;
        let hosts = Hosts::new(1);
        hosts.start_here();
        // Mails wait for the running node.
        let engine =
            Self::open(vault, Arc::new(config), env, hosts, Phases::default(), None).await?;
        engine.phases.set(Phase::Ready);
        Ok(engine)
    }

    /// Starts the actors over an open data directory. The hosts must be ready.
    pub(super) async fn open(
        vault: Vault,
        config: Arc<Config>,
        env: Env,
        hosts: Hosts,
        phases: Phases,
        base_url: Option<&str>,
    ) -> Result<Self, StartError> {
        let Vault { store, anchors } = vault;
        check_origin(&anchors, &config)?;
        let plans = Arc::new(config.plans.clone());
        let origin = config.node.origin.clone();
        let source = Source {
            store: store.clone(),
            anchors: anchors.clone(),
            signer: Arc::new(signing_key(store.keystore(), &origin, &env)?),
            region: config.node.region.clone(),
            data_dir: config.data.dir.clone(),
            keys: config.keys.options(),
            env: env.clone(),
        };
        let options = AnchorOptions { store: store.clone(), anchors, origin, env: env.clone() };
        let anchor = AnchorHandle::start(options)?;
        let keeper = KeeperHandle::start(plans.clone(), env.clone());
        let limits = RateLimiter::start(&config.rate, &env);
        let inbox = WebhookInbox::start(&env);
        let issuer = config.http.public_url.as_deref().unwrap_or(ISSUER_DEFAULT);
        let tokens = Tokens::open(store.keystore(), issuer, &env)?;
        let proofs = Proofs::new(&env);
        let passwords = Passwords::new(&env, config.http.workers());
        let metrics = Metrics::new()?;
        let federation = federation(&config, base_url, &env, &metrics)?;
        let overflow = Overflow::new(config.archive.audit_policy());
        let outboxes = Arc::new(Outboxes::default());
        let carrier = base_url.map(|url| crate::mail::carrier(&config, url)).transpose()?;
        let shared = Arc::new(Shared {
            env: env.clone(),
            plans: plans.clone(),
            observers: vec![
                Arc::new(anchor.clone()),
                Arc::new(keeper.clone()),
                overflow.clone(),
                outboxes.clone(),
            ],
            unlimited: Plan::default(),
        });
        let tenants = Supervisor::start(SupervisorOptions {
            store: store.clone(),
            shared,
            hosts,
            region: config.node.region.clone(),
            default_plan: config.signup.plan.clone(),
        })
        .await?;
        let archivist = ArchivistHandle::start(&store, config.archive.policy(), env.clone());
        let audit_archiver = AuditArchiverHandle::start(tenants.clone(), overflow);
        let postman =
            carrier.clone().map(|carrier| PostmanHandle::start(tenants.clone(), outboxes, carrier));
        let travel = TimeTravel::new(tenants.clone());
        let key_watch = KeyWatchHandle::start(tenants.clone(), travel.clone());
        let erasures = ErasureHandle::start(ErasureOptions {
            tenants: tenants.clone(),
            travel: travel.clone(),
            keeper: keeper.clone(),
            anchors: source.anchors.clone(),
            signer: source.signer.clone(),
            carrier,
            delay: config.erasure.delay.0,
        });
        let policy = config.backup.policy(config.archive.policy().window);
        let backups = BackupHandle::start(source, policy, tenants.clone());
        let app = App {
            backups,
            travel,
            erasures,
            key_watch,
            jobs: Jobs::default(),
            exports: Exports::default(),
            archivist,
            audit_archiver,
            postman,
            config,
            env,
            tenants,
            limits,
            tokens,
            proofs,
            passwords,
            federation,
            plans,
            inbox,
            anchor,
            metrics,
            store,
        };
        Ok(Self { app, keeper, phases })
    }

    /// What handlers see.
    pub fn app(&self) -> &App {
        &self.app
    }
    /// What the quota keeper says.
    pub fn keeper(&self) -> &KeeperHandle {
        &self.keeper
    }
    /// Where the node is in its life.
    pub fn phases(&self) -> &Phases {
        &self.phases
    }

    /// Lets every tenant finish and sleep; nothing wakes again.
    pub(super) async fn rest(&self) {
        self.app.tenants.stop().await;
    }

    /// Stops the actors and closes the store.
    pub async fn close(self) -> Result<(), StartError> {
        self.rest().await;
        self.app.backups.stop();
        self.app.archivist.stop().await;
        self.app.anchor.stop().await;
        let store = self.app.store.clone();
        drop(self);
        close(store).await
    }
}

/// Closes the store and waits until its directory is free for the next process.
async fn close(store: Arc<Store>) -> Result<(), StartError> {
    let remains = Arc::downgrade(&store);
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    let closed = closed.map_err(|_| StartError::Died)?;
    if tokio::time::timeout(RELEASE_TIMEOUT, released(remains)).await.is_err() {
        tracing::debug!("somebody still holds the closed store; its lock goes with the process");
    }
    closed.map_err(|error| StartError::Close(Box::new(error)))
}

async fn released(store: Weak<Store>) {
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(2));
    while store.strong_count() > 0 {
        tick.tick().await;
    }
}
