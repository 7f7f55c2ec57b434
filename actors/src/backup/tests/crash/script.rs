//! What is done while crashes are thought of, and what was promised by then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use storage::anchor_log::AnchorLog;
use storage::archive::SharedArchive;
use storage::disk::Disk;
use storage::id::{BackupId, Id as _, TenantId, UserId};
use storage::keys::Key;
use storage::keystore::KeyOptions;
use storage::log::Appended;
use storage::log::segment::SegmentOptions;
use storage::shard::Shard;
use storage::store::{Store, StoreOptions};

use super::rig::Rig;
use crate::archivist::pass::{Policy, pass, snapshot};
use crate::audit::anchor::signing_key;
use crate::backup::Source;
use crate::backup::run::run;
use crate::backup::sweep::sweep;
use crate::env::{Clock, Env};

/// What is wrong, for people.
pub type Wrong = String;

/// The rows of one tenant, by encoded key.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// 1 January 2026, 02:00 UTC.
const START_MS: u64 = 1_767_232_800_000;
pub const WINDOW: Duration = Duration::from_millis(7 * DAY_MS);
/// Nothing stays in the log that is in the archive.
pub const POLICY: Policy =
    Policy { window: WINDOW, roll_after: Duration::from_secs(60), local_bytes: 0 };

pub struct Days(AtomicU64);

impl Clock for Days {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms() - START_MS + 1)
    }
}

/// What one tenant was promised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promised {
    /// The state after each record that was sent.
    pub states: Vec<State>,
    /// How many of them were acknowledged.
    pub acknowledged: usize,
    /// The states before this one may be out of the window.
    pub floor: usize,
}

/// What everybody was promised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub tenants: BTreeMap<TenantId, Promised>,
    pub backups: Vec<BackupId>,
    /// Whether the archive may have been tidied.
    pub is_swept: bool,
    pub now_ms: u64,
}

/// An open node, as far as these tests need one.
pub fn open(
    disk: Arc<dyn Disk>,
    archive: SharedArchive,
    dir: &Path,
    clock: Arc<Days>,
) -> Result<Source, Wrong> {
    let text = |error: &(dyn std::error::Error + 'static)| crate::tenant::error::chain(error);
    let env = Env::real().with_clock(clock);
    let segment =
        SegmentOptions { segment_bytes: 4096, reserve_bytes: 0, ..SegmentOptions::default() };
    let store = Store::open(StoreOptions {
        archive: Some(archive),
        disk: Arc::clone(&disk),
        segment,
        ..StoreOptions::new(dir)
    });
    let store = store.map_err(|error| text(&error))?;
    let anchors = AnchorLog::open(disk, &dir.join("anchors")).map_err(|error| text(&error))?;
    let signer = signing_key(store.keystore(), "example.org/node", &env);
    Ok(Source {
        store,
        anchors: Arc::new(anchors),
        signer: Arc::new(signer.map_err(|error| text(&error))?),
        region: "local".to_owned(),
        data_dir: dir.to_owned(),
        keys: KeyOptions::default(),
        env,
    })
}

pub fn days(now_ms: u64) -> Arc<Days> {
    Arc::new(Days(AtomicU64::new(now_ms.max(START_MS))))
}

/// Appends a record, and says whether it is durable.
pub fn append(shard: &mut Shard, number: u64, at_ms: u64) -> bool {
    let mut txn = shard.txn();
    txn.put(&key(number), value(number)).unwrap();
    let changes = txn.finish();
    let sealed = shard.seal(changes, at_ms).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let is_durable = runtime.block_on(shard.append(&sealed)) == Appended::Durable;
    shard.confirm(sealed);
    is_durable
}

/// Few keys, so that rows are written again.
fn key(number: u64) -> Key {
    Key::User { id: UserId::new(number % 7, [1; 10]) }
}

fn value(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(40)
}

/// A node at work.
pub struct Script<'a> {
    rig: &'a Rig,
    source: Source,
    clock: Arc<Days>,
    shards: BTreeMap<TenantId, Shard>,
    written: u64,
}

impl<'a> Script<'a> {
    pub fn open(rig: &'a Rig, dir: &Path) -> Result<Self, Wrong> {
        let clock = days(START_MS);
        rig.set_now_ms(START_MS);
        rig.model().now_ms = START_MS;
        let source =
            open(Arc::new(rig.clone()), Arc::new(rig.clone()), &dir.join("data"), clock.clone())?;
        Ok(Self { rig, source, clock, shards: BTreeMap::new(), written: 0 })
    }

    /// Does everything, each thing once more if it fails. Answers what was promised in the end.
    pub fn run(mut self) -> Result<Model, Wrong> {
        let tenants = [TenantId::new(1, [1; 10]), TenantId::new(2, [2; 10])];
        let [ann, bob] = tenants;
        for tenant in tenants {
            self.source.store.create_tenant(tenant).map_err(|error| error.to_string())?;
            self.rig.model().tenants.insert(tenant, Promised::default());
            let shard = self.source.store.own_shard(tenant).map_err(|error| error.to_string())?;
            self.shards.insert(tenant, shard);
        }
        self.write(ann, 14)?;
        self.write(bob, 4)?;
        self.archive()?;
        self.back_up()?;
        self.write(ann, 6)?;
        self.twice("a snapshot", |source| snapshot(&source.store, ann))?;
        self.write(bob, 2)?;
        self.archive()?;
        self.back_up()?;
        self.rotate()?;
        self.write(ann, 4)?;
        self.pass_days(8);
        self.write(bob, 9)?;
        self.back_up()?;
        self.sweep()?;
        self.archive()?;
        self.write(ann, 3)?;
        self.back_up()?;
        self.sweep()?;
        Ok(self.rig.model().clone())
    }

    /// Whatever fails is tried once more, and then it succeeds.
    fn twice<T, E: std::error::Error + 'static>(
        &self,
        what: &str,
        act: impl Fn(&Source) -> Result<T, E>,
    ) -> Result<T, Wrong> {
        act(&self.source).or_else(|first| {
            act(&self.source).map_err(|second| format!("{what}: {first}; then again: {second}"))
        })
    }

    fn write(&mut self, tenant: TenantId, count: u64) -> Result<(), Wrong> {
        for _ in 0..count {
            self.written += 1;
            let number = self.written;
            {
                let mut model = self.rig.model();
                let promised = model.tenants.get_mut(&tenant).ok_or("nobody")?;
                let mut state = promised.states.last().cloned().unwrap_or_default();
                state.insert(key(number).encode(), value(number));
                promised.states.push(state);
            }
            let shard = self.shards.get_mut(&tenant).ok_or("nobody")?;
            if !append(shard, number, self.clock.now_ms()) {
                return Err("a record is not durable".to_owned());
            }
            let mut model = self.rig.model();
            let promised = model.tenants.get_mut(&tenant).ok_or("nobody")?;
            promised.acknowledged = promised.states.len();
        }
        Ok(())
    }

    fn archive(&self) -> Result<(), Wrong> {
        self.source.store.log().roll().map_err(|error| error.to_string())?;
        self.twice("archiving", |source| pass(&source.store, POLICY)).map(drop)
    }

    fn back_up(&self) -> Result<(), Wrong> {
        let manifest = self.twice("a backup", |source| run(source, None, &mut |_| {}))?;
        self.rig.model().backups.push(manifest.id);
        Ok(())
    }

    fn rotate(&self) -> Result<(), Wrong> {
        let keystore = self.source.store.keystore();
        keystore.rotate(self.clock.now_ms()).map_err(|error| error.to_string())?;
        let outcome = keystore.rewrap_all(&mut |_, _| {}).map_err(|error| error.to_string())?;
        if outcome.failed.is_empty() { Ok(()) } else { Err(format!("{outcome:?}")) }
    }

    fn pass_days(&self, count: u64) {
        let now_ms = self.clock.0.fetch_add(count * DAY_MS, Ordering::Relaxed) + count * DAY_MS;
        self.rig.set_now_ms(now_ms);
        let mut model = self.rig.model();
        model.now_ms = now_ms;
        model.tenants.values_mut().for_each(|promised| promised.floor = promised.states.len());
    }

    fn sweep(&self) -> Result<(), Wrong> {
        self.rig.model().is_swept = true;
        self.twice("tidying", |source| sweep(source, WINDOW, &mut |_| {})).map(drop)
    }
}
