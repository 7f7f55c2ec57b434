//! The key store: every tenant's data key, wrapped by the node's key-encryption key.
//!
//! ```text
//! keys/kek                        the key-encryption key (KEK); made on first start, mode 0600
//! keys/tenants/ab/tn_….ab.key     a wrapped data key; `ab` is the id's last byte
//! keys/NAME.sealed                a secret of the node itself, such as a token signing key
//! ```
//!
//! Wrapped keys live outside the log, so that destroying one erases its tenant everywhere the log
//! was copied to. A wrapped file is `magic (4) · version (1) · KEK id (8) · sealed · crc32c (4)`;
//! the sealed part is bound to the file's own name.
//!
//! Refuses: a KEK that others can read; to make a new KEK where keys wrapped by another lie; to
//! make a data key twice; to guess when a file is damaged.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::disk::{Disk, OpenMode};
use crate::id::{Id, TenantId};
use crate::seal::{Cipher, DataKey, OVERHEAD_BYTES, Random, SealError, subkey};

const VERSION: u8 = 1;
const KEK_MAGIC: &[u8; 4] = b"BKEK";
const TENANT_MAGIC: &[u8; 4] = b"BKTK";
const SECRET_MAGIC: &[u8; 4] = b"BKNS";
const SECRET_SUFFIX: &str = ".sealed";
const HEADER_BYTES: usize = 4 + 1 + 8;
const CRC_BYTES: usize = 4;

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The tenant has no data key: it never had one, or it was erased.
    #[error("{tenant} has no data key")]
    Missing {
        /// Whose key.
        tenant: TenantId,
    },
    /// The tenant has a data key already.
    #[error("{tenant} has a data key already")]
    Exists {
        /// Whose key.
        tenant: TenantId,
    },
    /// There is no node secret of this name.
    #[error("the node has no secret named {name}")]
    SecretMissing {
        /// The name asked for.
        name: String,
    },
    /// A node secret's name is not of lowercase letters, digits and hyphens.
    #[error("{name:?} cannot name a node secret: use lowercase letters, digits and hyphens")]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// Wrapped keys exist, but what they are wrapped with does not.
    #[error("{path} is missing, but keys wrapped by it exist; restore it from its backup")]
    KekMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Others can read the key-encryption key.
    #[error("{path} has mode {mode:03o}, so others can read it; run: chmod 600 {path}")]
    KekExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file was wrapped by another key-encryption key.
    #[error("{path} was wrapped by another key-encryption key")]
    WrongKek {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer release.
    #[error("{path} has format {version}; this release reads up to {VERSION}")]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version byte.
        version: u8,
    },
    /// The disk said no.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A key cannot be made or wrapped.
    #[error("a key cannot be made")]
    Seal(#[from] SealError),
}

/// The wrapped keys in one directory.
pub struct KeyStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    random: Arc<dyn Random>,
    kek: Cipher,
    kek_id: [u8; 8],
    /// Held while a file is made or destroyed, so that two makers cannot both succeed.
    changing: Mutex<()>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyStore({})", self.dir.display())
    }
}

impl KeyStore {
    /// Opens the key store in `dir`; on the very first start makes it and its KEK.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        random: Arc<dyn Random>,
    ) -> Result<Self, KeyError> {
        make_dir(&*disk, &dir.join("tenants"))?;
        disk.restrict_dir(dir).and_then(|()| disk.sync_dir(dir)).map_err(io_at(dir))?;
        let path = dir.join("kek");
        let bytes = match disk.read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_wrapped_keys(&*disk, dir)? {
                    return Err(KeyError::KekMissing { path });
                }
                make_kek(&*disk, &path, &*random)?
            }
            Err(error) => return Err(io_at(&path)(error)),
        };
        match disk.permissions(&path).map_err(io_at(&path))? {
            Some(mode) if mode & 0o077 != 0 => return Err(KeyError::KekExposed { path, mode }),
            _ => {}
        }
        let body = checked(&path, KEK_MAGIC, &bytes)?;
        let secret: &[u8; 32] =
            body.try_into().map_err(|_| KeyError::Damaged { path: path.clone() })?;
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bulkhead.kek.1").extract(secret);
        let mut kek_id = [0; 8];
        kek_id.copy_from_slice(&subkey(&root, b"id", b"")[..8]);
        let kek = Cipher::new(&subkey(&root, b"wrap", b""));
        let dir = dir.to_owned();
        Ok(Self { disk, dir, random, kek, kek_id, changing: Mutex::new(()) })
    }

    /// Makes and keeps a data key for a new tenant. It is durable when this returns.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if the tenant has one.
    pub fn create(&self, tenant: TenantId) -> Result<DataKey, KeyError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.contains(tenant)? {
            return Err(KeyError::Exists { tenant });
        }
        let key = DataKey::generate(&*self.random)?;
        let path = self.tenant_path(tenant);
        let parent = path.parent().expect("the path was made by joining");
        make_dir(&*self.disk, parent)?;
        self.write(&path, TENANT_MAGIC, &tenant.to_string(), key.as_bytes())?;
        Ok(key)
    }

    /// Unwraps a tenant's data key.
    pub fn load(&self, tenant: TenantId) -> Result<DataKey, KeyError> {
        let path = self.tenant_path(tenant);
        let bytes = self.read_if_any(&path)?.ok_or(KeyError::Missing { tenant })?;
        let plain = self.unwrap(&path, TENANT_MAGIC, &tenant.to_string(), &bytes)?;
        let mut key = Zeroizing::new([0; 32]);
        if plain.len() != key.len() {
            return Err(KeyError::Damaged { path });
        }
        key.copy_from_slice(&plain);
        Ok(DataKey::from_bytes(key))
    }

    /// Whether a tenant has a data key.
    pub fn contains(&self, tenant: TenantId) -> Result<bool, KeyError> {
        Ok(self.read_if_any(&self.tenant_path(tenant))?.is_some())
    }

    /// Destroys a tenant's data key: overwrites it, removes it, and makes both durable. From then
    /// on nobody can read anything of that tenant, wherever its bytes were copied to.
    pub fn destroy(&self, tenant: TenantId) -> Result<(), KeyError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.tenant_path(tenant);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        self.shred(&unfinished)?;
        if self.shred(&path)? { Ok(()) } else { Err(KeyError::Missing { tenant }) }
    }

    /// Seals a secret of the node under a name, over an older one if there is one.
    pub fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<(), KeyError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_secret(name, secret)
    }

    /// Opens a secret of the node.
    pub fn open_secret(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let path = self.secret_path(name)?;
        let missing = || KeyError::SecretMissing { name: name.to_owned() };
        let bytes = self.read_if_any(&path)?.ok_or_else(missing)?;
        self.unwrap(&path, SECRET_MAGIC, name, &bytes)
    }

    /// Opens a secret of the node, or keeps the one that `make` gives.
    pub fn load_or_create_secret(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, SealError>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.write(&path, SECRET_MAGIC, name, secret)
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

    /// A file's bytes; nothing if it is not there, or was overwritten but not yet removed when
    /// the power went.
    fn read_if_any(&self, path: &Path) -> Result<Option<Vec<u8>>, KeyError> {
        match self.disk.read(path) {
            Ok(bytes) if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_at(path)(error)),
        }
    }

    fn write(
        &self,
        path: &Path,
        magic: &[u8; 4],
        name: &str,
        plain: &[u8],
    ) -> Result<(), KeyError> {
        let sealed = self.kek.seal(&self.aad(magic, name), plain)?;
        let body = [&self.kek_id[..], &sealed].concat();
        self.disk.write_atomic(path, &framed(magic, &body)).map_err(io_at(path))
    }

    fn unwrap(
        &self,
        path: &Path,
        magic: &[u8; 4],
        name: &str,
        bytes: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let damaged = || KeyError::Damaged { path: path.to_owned() };
        let body = checked(path, magic, bytes)?;
        let (kek_id, sealed) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
        if *kek_id != self.kek_id {
            return Err(KeyError::WrongKek { path: path.to_owned() });
        }
        let length = sealed.len().checked_sub(OVERHEAD_BYTES).ok_or_else(damaged)?;
        let mut plain = Zeroizing::new(vec![0; length]);
        self.kek.open(&self.aad(magic, name), sealed, &mut plain).map_err(|_| damaged())?;
        Ok(plain)
    }

    fn aad(&self, magic: &[u8; 4], name: &str) -> Vec<u8> {
        [&magic[..], &[VERSION], &self.kek_id, name.as_bytes()].concat()
    }

    /// Overwrites and removes a file; says whether it was there.
    fn shred(&self, path: &Path) -> Result<bool, KeyError> {
        let parent = path.parent().expect("the path was made by joining");
        let file = match self.disk.open(path, OpenMode::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_at(path)(error)),
        };
        let overwrite = || {
            let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
            file.write_at(0, &vec![0; length.max(HEADER_BYTES)])?;
            file.sync()?;
            self.disk.remove(path)?;
            self.disk.sync_dir(parent)
        };
        overwrite().map_err(io_at(path))?;
        Ok(true)
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { path, source }
}

/// Makes a directory whose name lasts.
fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<(), KeyError> {
    let parent = dir.parent().unwrap_or(dir);
    let make = || {
        disk.create_dir_all(dir)?;
        disk.restrict_dir(dir)?;
        disk.sync_dir(parent)
    };
    make().map_err(io_at(dir))
}

fn has_wrapped_keys(disk: &dyn Disk, dir: &Path) -> Result<bool, KeyError> {
    let subdirs = (0..=u8::MAX).map(|byte| dir.join("tenants").join(format!("{byte:02x}")));
    for dir in std::iter::once(dir.to_owned()).chain(subdirs) {
        let files = match disk.list(&dir) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_at(&dir)(error)),
        };
        let is_wrapped = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "key" || extension == "sealed")
        };
        if files.iter().any(is_wrapped) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn make_kek(
    disk: &dyn Disk,
    path: &Path,
    random: &dyn Random,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut secret = Zeroizing::new([0; 32]);
    random.fill(secret.as_mut())?;
    let bytes = Zeroizing::new(framed(KEK_MAGIC, &secret[..]));
    disk.write_atomic(path, &bytes).map_err(io_at(path))?;
    Ok(bytes)
}

/// `magic · version · body · crc32c` of all before.
fn framed(magic: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + CRC_BYTES);
    bytes.extend_from_slice(magic);
    bytes.push(VERSION);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The body of a framed file.
fn checked<'a>(path: &Path, magic: &[u8; 4], bytes: &'a [u8]) -> Result<&'a [u8], KeyError> {
    let damaged = || KeyError::Damaged { path: path.to_owned() };
    let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(damaged)?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let rest = content.strip_prefix(magic).ok_or_else(damaged)?;
    match rest.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((&version, _)) => Err(KeyError::NewerVersion { path: path.to_owned(), version }),
        None => Err(damaged()),
    }
}

#[cfg(test)]
mod tests;
