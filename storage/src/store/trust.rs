//! Whether the view on disk may be opened, or must be made again.
//!
//! The view's database is durable only where it was checkpointed. So: a clean stop leaves the mark
//! `view/CLEAN`, and the view is trusted. Without it the view is trusted only if the kernel has
//! not been restarted since (`view/BOOT` holds its boot id), for then nothing written was lost.
//! Otherwise the directory is set aside unopened, and each tenant's view is made again from the
//! log when it wakes. So start-up takes the same short time always.
//!
//! Refuses: to open a view in place across a power cut.

use std::io;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, RealDisk};
use crate::view::{SledView, ViewError};

/// The version of what the view's rows look like. Another version is never opened.
const VIEW_FORMAT: u32 = 1;

/// What the file extension of a view set aside begins with.
const DISCARDED: &str = "discarded-";

const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The directory of the view and its marks.
#[derive(Debug, Clone)]
pub(crate) struct ViewDir {
    dir: PathBuf,
    boot_id: Option<String>,
}

impl ViewDir {
    pub(crate) fn new(dir: PathBuf) -> Self {
        // Where the kernel has no such id, only a clean stop is trusted.
        let boot_id = std::fs::read_to_string(KERNEL_BOOT_ID).ok();
        Self { dir, boot_id: boot_id.map(|id| id.trim().to_owned()) }
    }

    /// Opens the view, empty if the one on disk is not to be trusted; then the text says why.
    pub(crate) fn open(&self, cache_bytes: u64) -> Result<(SledView, Option<String>), ViewError> {
        self.remove_discarded()?;
        let mut repair = None;
        if self.dir.exists()
            && let Err(reason) = self.trust()
        {
            self.discard()?;
            repair = Some(reason);
        }
        match self.try_open(cache_bytes) {
            Ok(view) => Ok((view, repair)),
            Err(ViewError::Io(error)) => Err(ViewError::Io(error)),
            Err(error) => {
                self.discard()?;
                let view = self.try_open(cache_bytes)?;
                Ok((view, Some(format!("its database could not be opened ({error})"))))
            }
        }
    }

    /// Marks a view that was checkpointed and is not written any more.
    pub(crate) fn mark_clean(&self) -> io::Result<()> {
        let boot_id = self.boot_id.as_deref().unwrap_or("unknown");
        let text = format!("{VIEW_FORMAT} {boot_id} clean\n");
        RealDisk.write_atomic(&self.mark("CLEAN"), text.as_bytes())
    }

    /// Lets the next start make the view again, because it failed in this one.
    pub(crate) fn distrust(&self) {
        if let Err(error) = remove_if_any(&RealDisk, &self.mark("BOOT")) {
            tracing::error!(%error, "the failed view cannot be marked; remove its directory");
        }
    }

    fn trust(&self) -> Result<(), String> {
        let read = |name| {
            let bytes = RealDisk.read(&self.mark(name)).ok()?;
            String::from_utf8(bytes).ok()
        };
        let format = format!("{VIEW_FORMAT} ");
        if read("CLEAN").is_some_and(|mark| mark.starts_with(&format)) {
            return Ok(());
        }
        match (read("BOOT"), &self.boot_id) {
            (None, _) => Err("it was never marked, or failed when last used".to_owned()),
            (Some(mark), _) if !mark.starts_with(&format) => {
                Err("it was written by another release".to_owned())
            }
            (Some(mark), Some(boot_id)) if mark[format.len()..].trim() == boot_id => Ok(()),
            _ => Err("the machine was restarted without a clean stop".to_owned()),
        }
    }

    fn try_open(&self, cache_bytes: u64) -> Result<SledView, ViewError> {
        std::fs::create_dir_all(&self.dir)?;
        RealDisk.restrict_dir(&self.dir)?;
        let boot_id = self.boot_id.as_deref().unwrap_or_default();
        let text = format!("{VIEW_FORMAT} {boot_id}\n");
        RealDisk.write_atomic(&self.mark("BOOT"), text.as_bytes())?;
        // The clean mark must be gone for good before the first byte changes.
        remove_if_any(&RealDisk, &self.mark("CLEAN"))?;
        RealDisk.sync_dir(&self.dir)?;
        let database = self.dir.join("sled");
        // sled panics on some damaged files.
        catch_unwind(move || SledView::open(&database, cache_bytes))
            .unwrap_or_else(|_| Err(ViewError::Unopenable))
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Sets the directory aside under a name no other has.
    fn discard(&self) -> Result<(), ViewError> {
        let aside = (0..u32::MAX)
            .map(|number| self.dir.with_extension(format!("{DISCARDED}{number}")))
            .find(|aside| !aside.exists())
            .ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
        std::fs::rename(&self.dir, &aside)?;
        remove_in_background(aside);
        Ok(())
    }

    /// Removes what an earlier start set aside and did not get round to removing.
    fn remove_discarded(&self) -> io::Result<()> {
        let Some(parent) = self.dir.parent().filter(|parent| parent.exists()) else {
            return Ok(());
        };
        for entry in std::fs::read_dir(parent)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if extension.is_some_and(|extension| extension.starts_with(DISCARDED)) {
                remove_in_background(path);
            }
        }
        Ok(())
    }
}

/// Removes a directory without making anybody wait.
fn remove_in_background(dir: PathBuf) {
    let remove = move || {
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(%error, "a discarded view cannot be removed");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("view-removal".into()).spawn(remove) {
        tracing::warn!(%error, "a discarded view stays on disk until the next start");
    }
}

fn remove_if_any(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
