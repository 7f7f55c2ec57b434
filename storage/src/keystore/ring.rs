//! Which versions of the key-encryption key a store knows, and since when.
//!
//! `kek.seen` remembers when this store first met a version whose keeper says no age, as `BKKS`: KEK
//! id 8 · Unix milliseconds u64, again and again. It is no secret, and losing it loses only ages.
//!
//! Refuses: to hold up anything for the sake of an age.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{SEEN_MAGIC, checked, framed};
use super::source::{Kek, KekId, Versions};
use crate::disk::Disk;

/// Most versions that are remembered; the ones met longest ago are forgotten first.
const SEEN_MAX: usize = 256;

/// The versions in use, at one moment.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    pub(super) current: Arc<dyn Kek>,
    pub(super) older: Vec<Arc<dyn Kek>>,
}

impl Ring {
    pub(super) fn of(versions: Versions) -> Self {
        Self { current: versions.current, older: versions.older }
    }

    pub(super) fn find(&self, id: KekId) -> Option<&Arc<dyn Kek>> {
        self.all().find(|kek| kek.id() == id)
    }

    /// The current version first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<dyn Kek>> {
        std::iter::once(&self.current).chain(&self.older)
    }

    /// Adds versions that are not known yet, as older ones.
    pub(super) fn add(&mut self, keks: impl IntoIterator<Item = Arc<dyn Kek>>) {
        for kek in keks {
            if self.find(kek.id()).is_none() {
                self.older.push(kek);
            }
        }
    }
}

/// When versions were first met.
pub(super) struct Seen {
    path: PathBuf,
    at_ms: BTreeMap<KekId, u64>,
}

impl Seen {
    /// Reads what is known; nothing is known if that cannot be read.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Self {
        let path = dir.join("kek.seen");
        let bytes = disk.read(&path).unwrap_or_default();
        let at_ms = checked(&path, SEEN_MAGIC, 1, &bytes).map(|(_, body)| decode(body));
        Self { at_ms: at_ms.unwrap_or_default(), path }
    }

    /// When `kek` was made, or else first met.
    pub(super) fn created_ms(&self, kek: &dyn Kek) -> Option<u64> {
        kek.created_ms().or_else(|| self.at_ms.get(&kek.id()).copied())
    }

    /// Remembers a version that says no age itself.
    pub(super) fn meet(&mut self, disk: &dyn Disk, kek: &dyn Kek, now_ms: u64) {
        if self.created_ms(kek).is_some() {
            return;
        }
        while self.at_ms.len() >= SEEN_MAX {
            let Some(oldest) = self.at_ms.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id)
            else {
                break;
            };
            self.at_ms.remove(&oldest);
        }
        self.at_ms.insert(kek.id(), now_ms);
        let mut body = Vec::with_capacity(self.at_ms.len() * 16);
        for (id, at_ms) in &self.at_ms {
            body.extend_from_slice(&id.0);
            body.extend_from_slice(&at_ms.to_be_bytes());
        }
        if let Err(error) = disk.write_atomic(&self.path, &framed(SEEN_MAGIC, 1, &body)) {
            let path = self.path.display();
            tracing::warn!(%error, %path, "the age of the key-encryption key cannot be kept");
        }
    }
}

fn decode(body: &[u8]) -> BTreeMap<KekId, u64> {
    let (entries, _) = body.as_chunks::<16>();
    let entry = |bytes: &[u8; 16]| {
        let (id, at_ms) = bytes.split_first_chunk::<8>()?;
        Some((KekId(*id), u64::from_be_bytes(at_ms.try_into().ok()?)))
    };
    entries.iter().filter_map(entry).collect()
}
