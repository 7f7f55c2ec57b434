//! The key store: every tenant's data key, wrapped by a key-encryption key (KEK).
//!
//! ```text
//! keys/kek                        the node's own KEK, unless another source is configured
//! keys/kek.<id>                   an older version, while anything is wrapped with it
//! keys/kek.seen                   since when versions are known; no secret
//! keys/tenants/ab/tn_….ab.key     a wrapped data key; `ab` is the id's last byte
//! keys/NAME.sealed                a secret of the node itself, such as a token signing key
//! ```
//!
//! Wrapped keys live outside the log, so that destroying one erases its tenant everywhere the log
//! was copied to. Each names the version it is wrapped with and is bound to its own name. KEKs come
//! from a [`source`]; [`rotate`] changes them under a running store; a [`customer`] may hold the key to
//! a tenant's key.
//!
//! Refuses: a KEK that others can read; to make a new KEK where keys wrapped by another lie; to
//! make a data key twice; to guess when a file is damaged.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use zeroize::Zeroizing;

use crate::disk::Disk;
use crate::id::{Id, TenantId};
use crate::seal::{DataKey, Random, SealError};

pub mod copy;
pub mod customer;
mod error;
mod exec;
mod files;
mod frame;
mod module;
mod mounted;
mod own;
mod pkcs11;
mod ring;
pub mod rotate;
pub mod source;

pub use error::KeyError;
use files::{SECRET_SUFFIX, has_wrapped, io_at, make_dir, read_if_any, replace, shred};
use frame::{SECRET_MAGIC, TENANT_MAGIC, Wrapped, decode_spec};
use own::OwnKeks;
pub use own::kek_id_of;
use ring::{Ring, Seen};
use source::{Kek, KekId, SourceError, SourceSpec, Versions};

/// Where the node's key-encryption keys come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOptions {
    /// The source; nothing means the store's own file `kek`.
    pub source: Option<SourceSpec>,
    /// A source that is being replaced: it still unwraps, and nothing new is wrapped with it.
    pub retiring: Option<SourceSpec>,
}

/// The wrapped keys in one directory.
pub struct KeyStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    random: Arc<dyn Random>,
    options: KeyOptions,
    own: OwnKeks,
    ring: RwLock<Arc<Ring>>,
    seen: Mutex<Seen>,
    /// Held while a file is made, replaced or destroyed, so that two makers cannot both succeed, and
    /// while the ring changes, so that nothing new is wrapped with what is being retired.
    changing: Mutex<()>,
    /// Held through a rotation.
    rotating: Mutex<()>,
    /// Tenants met by this process whose keys customers hold.
    held: Mutex<BTreeSet<TenantId>>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyStore({})", self.dir.display())
    }
}

/// A guard even after a panic: whatever these locks guard is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The machine's time, for when a key was made.
#[expect(
    clippy::disallowed_methods,
    reason = "a key's age is shown to people; nothing is decided by it"
)]
fn system_now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl KeyStore {
    /// Opens the key store in `dir` under its own KEK; on the very first start makes both.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        random: Arc<dyn Random>,
    ) -> Result<Self, KeyError> {
        Self::open_with(disk, dir, random, KeyOptions::default())
    }

    /// Opens the key store in `dir` under the KEKs of a source. The store's own KEKs are read too, if
    /// there are any, until a rotation has replaced them.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        random: Arc<dyn Random>,
        options: KeyOptions,
    ) -> Result<Self, KeyError> {
        make_dir(&*disk, &dir.join("tenants"))?;
        disk.restrict_dir(dir).and_then(|()| disk.sync_dir(dir)).map_err(io_at(dir))?;
        let own = OwnKeks::new(Arc::clone(&disk), dir);
        own.tidy()?;
        let now_ms = system_now_ms();
        if options.source.is_none() && own.read()?.current.is_none() {
            if options.retiring.is_none() && has_wrapped(&*disk, dir)? {
                return Err(KeyError::KekMissing { path: own.path() });
            }
            own.make(&*random, now_ms)?;
        }
        let ring = ask(&options, &own)?;
        let mut seen = Seen::read(&*disk, dir);
        seen.meet(&*disk, &*ring.current, now_ms);
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            random,
            options,
            own,
            ring: RwLock::new(Arc::new(ring)),
            seen: Mutex::new(seen),
            changing: Mutex::default(),
            rotating: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// Makes and keeps a data key for a new tenant. It is durable when this returns.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if the tenant has one.
    pub fn create(&self, tenant: TenantId) -> Result<DataKey, KeyError> {
        let _changing = lock(&self.changing);
        if self.contains(tenant)? {
            return Err(KeyError::Exists { tenant });
        }
        let key = DataKey::generate(&*self.random)?;
        let path = self.tenant_path(tenant);
        make_dir(&*self.disk, path.parent().expect("the path was made by joining"))?;
        self.write(&path, TENANT_MAGIC, &tenant.to_string(), None, key.as_bytes())?;
        Ok(key)
    }

    /// Unwraps a tenant's data key. If a customer holds it, their source is asked, which may take as
    /// long as its timeout; nothing is remembered from the last time.
    ///
    /// # Errors
    /// [`KeyError::Missing`] if it was never made or is destroyed, [`KeyError::Withheld`] if the
    /// customer's source does not give its key.
    pub fn load(&self, tenant: TenantId) -> Result<DataKey, KeyError> {
        let opened = self.read_tenant(tenant)?.ok_or(KeyError::Missing { tenant })?;
        let plain = match opened.spec {
            None => opened.plain,
            Some(spec) => customer::unwrap_inner(tenant, &spec, &opened.plain)?,
        };
        let mut key = Zeroizing::new([0; 32]);
        if plain.len() != key.len() {
            return Err(KeyError::Damaged { path: self.tenant_path(tenant) });
        }
        key.copy_from_slice(&plain);
        Ok(DataKey::from_bytes(key))
    }

    /// Whether a tenant has a data key, withheld or not.
    pub fn contains(&self, tenant: TenantId) -> Result<bool, KeyError> {
        Ok(read_if_any(&*self.disk, &self.tenant_path(tenant))?.is_some())
    }

    /// Destroys a tenant's data key: overwrites it, removes it, and makes both durable. From then
    /// on nobody can read anything of that tenant, wherever its bytes were copied to. Needs neither
    /// the KEK nor a customer's source.
    pub fn destroy(&self, tenant: TenantId) -> Result<(), KeyError> {
        let _changing = lock(&self.changing);
        let path = self.tenant_path(tenant);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(".new");
        shred(&*self.disk, &PathBuf::from(unfinished))?;
        let was_there = shred(&*self.disk, &path)?;
        lock(&self.held).remove(&tenant);
        if was_there { Ok(()) } else { Err(KeyError::Missing { tenant }) }
    }

    /// Seals a secret of the node under a name, over an older one if there is one.
    pub fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<(), KeyError> {
        let _changing = lock(&self.changing);
        self.write_secret(name, secret)
    }

    /// Opens a secret of the node.
    pub fn open_secret(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let path = self.secret_path(name)?;
        let missing = || KeyError::SecretMissing { name: name.to_owned() };
        let opened = self.read(&path, SECRET_MAGIC, name)?.ok_or_else(missing)?;
        Ok(opened.plain)
    }

    /// Opens a secret of the node, or keeps the one that `make` gives.
    pub fn load_or_create_secret(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, SealError>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let _changing = lock(&self.changing);
        match self.open_secret(name) {
            Err(KeyError::SecretMissing { .. }) => {
                let secret = make()?;
                self.write_secret(name, &secret)?;
                Ok(secret)
            }
            found => found,
        }
    }

    /// The names of the node's secrets, in order.
    pub fn list_secrets(&self) -> Result<Vec<String>, KeyError> {
        let paths = self.disk.list(&self.dir).map_err(io_at(&self.dir))?;
        let name = |path: &PathBuf| {
            let file = path.file_name()?.to_str()?;
            file.strip_suffix(SECRET_SUFFIX).map(str::to_owned)
        };
        Ok(paths.iter().filter_map(name).collect())
    }

    fn write_secret(&self, name: &str, secret: &[u8]) -> Result<(), KeyError> {
        let path = self.secret_path(name)?;
        self.write(&path, SECRET_MAGIC, name, None, secret)
    }

    fn tenant_path(&self, tenant: TenantId) -> PathBuf {
        // Ids begin with the time, so only their end spreads over directories.
        let last = tenant.as_bytes()[15];
        self.dir.join("tenants").join(format!("{last:02x}")).join(format!("{tenant}.key"))
    }

    fn secret_path(&self, name: &str) -> Result<PathBuf, KeyError> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            return Err(KeyError::BadName { name: name.to_owned() });
        }
        Ok(self.dir.join(format!("{name}{SECRET_SUFFIX}")))
    }

    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads a tenant's file and notes whether a customer holds the key.
    fn read_tenant(&self, tenant: TenantId) -> Result<Option<Opened>, KeyError> {
        let opened = self.read(&self.tenant_path(tenant), TENANT_MAGIC, &tenant.to_string())?;
        let is_held = opened.as_ref().is_some_and(|opened| opened.spec.is_some());
        let mut held = lock(&self.held);
        if is_held {
            held.insert(tenant);
        } else {
            held.remove(&tenant);
        }
        Ok(opened)
    }

    /// Reads a wrapped file and opens what the node wrapped.
    fn read(&self, path: &Path, magic: &[u8; 4], name: &str) -> Result<Option<Opened>, KeyError> {
        match self.read_once(path, magic, name) {
            // It may have been replaced while it was read, and the version it named retired.
            Ok(None) | Err(KeyError::Damaged { .. } | KeyError::WrongKek { .. }) => {
                self.read_once(path, magic, name)
            }
            outcome => outcome,
        }
    }

    fn read_once(
        &self,
        path: &Path,
        magic: &[u8; 4],
        name: &str,
    ) -> Result<Option<Opened>, KeyError> {
        let Some(bytes) = read_if_any(&*self.disk, path)? else { return Ok(None) };
        let wrapped = Wrapped::parse(path, magic, &bytes)?;
        let ring = self.ring();
        let wrong = || KeyError::WrongKek { path: path.to_owned(), kek: wrapped.kek };
        let kek = ring.find(wrapped.kek).ok_or_else(wrong)?;
        let aad = Wrapped::aad(magic, wrapped.kek, wrapped.spec, name);
        let plain = kek.unwrap(&aad, wrapped.sealed).map_err(|error| match error {
            SourceError::Refused { .. } => KeyError::Damaged { path: path.to_owned() },
            error => KeyError::Source(error),
        })?;
        let spec = wrapped.spec.map(|spec| decode_spec(path, spec)).transpose()?;
        Ok(Some(Opened { kek: wrapped.kek, spec, plain }))
    }

    /// Wraps with the current version and replaces the file. Only while `changing` is held.
    fn write(
        &self,
        path: &Path,
        magic: &[u8; 4],
        name: &str,
        spec: Option<&[u8]>,
        plain: &[u8],
    ) -> Result<(), KeyError> {
        let ring = self.ring();
        let kek = ring.current.id();
        let sealed = ring.current.wrap(&Wrapped::aad(magic, kek, spec, name), plain)?;
        let bytes = Wrapped { kek, spec, sealed: &sealed }.bytes(magic);
        replace(&*self.disk, path, &bytes)
    }
}

/// A wrapped file, opened as far as the node can.
struct Opened {
    kek: KekId,
    /// Who holds the key to what is in it, if a customer does.
    spec: Option<SourceSpec>,
    plain: Zeroizing<Vec<u8>>,
}

/// Makes sure that a version opens what it wraps, before anything depends on it.
fn prove(kek: &dyn Kek) -> Result<(), SourceError> {
    const PROBE: &[u8] = b"bulkhead.kek.probe.1";
    let wrapped = kek.wrap(PROBE, PROBE)?;
    let back = kek.unwrap(PROBE, &wrapped)?;
    if back[..] == *PROBE { Ok(()) } else { Err(SourceError::Refused { kek: kek.id() }) }
}

/// Asks every source there is.
fn ask(options: &KeyOptions, own: &OwnKeks) -> Result<Ring, KeyError> {
    let found = own.read()?;
    let mut ring = match (&options.source, found.current) {
        (Some(spec), current) => {
            let mut ring = Ring::of(spec.versions()?);
            prove(&*ring.current)?;
            ring.add(current);
            ring
        }
        (None, Some(current)) => Ring::of(Versions { current, older: Vec::new() }),
        (None, None) => return Err(KeyError::KekMissing { path: own.path() }),
    };
    ring.add(found.older);
    if let Some(spec) = &options.retiring {
        let Versions { current, older } = spec.versions()?;
        ring.add(std::iter::once(current).chain(older));
    }
    Ok(ring)
}

#[cfg(test)]
mod tests;
