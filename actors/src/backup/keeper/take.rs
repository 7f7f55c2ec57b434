//! Taking a backup and tidying the archive after it.
//!
//! Refuses: to tidy anything away after a backup that does not have all it needs: an older one may be the
//! better one.

use storage::archive::ArchiveError;

use super::{KeeperError, Shared, lock};
use crate::backup::manifest::BackupManifest;
use crate::backup::run::run;
use crate::backup::sweep::{Swept, sweep};
use crate::backup::verify::Fault;
use crate::backup::{Source, Tell, whole};

/// A backup that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The backup.
    pub manifest: BackupManifest,
    /// What was removed after it.
    pub swept: Swept,
    /// What it names and the archive does not have as it should. Then nothing was removed.
    pub faults: Vec<Fault>,
}

impl Shared {
    /// Takes a backup and tidies the archive.
    pub(super) fn take(&self, note: Option<String>, tell: Tell<'_>) -> Result<Taken, KeeperError> {
        let outcome = self.source().and_then(|source| {
            let manifest = run(&source, note, tell)?;
            Ok((source, manifest))
        });
        let (source, manifest) = match outcome {
            Ok(taken) => taken,
            Err(error) => {
                self.failed(&error);
                return Err(error);
            }
        };
        {
            let mut known = lock(&self.known);
            known.stats.succeeded_ms = Some(manifest.taken_ms);
            known.oldest_ms.get_or_insert(manifest.taken_ms);
            if known.stats.failing.take().is_some() {
                tracing::info!("backups are taken again");
            }
        }
        tracing::info!(
            backup = %manifest.id,
            tenants = manifest.tenants.len(),
            new_bytes = manifest.new_bytes,
            total_bytes = manifest.total_bytes,
            "a backup was taken"
        );
        let faults = match self.faults(&source, &manifest) {
            Ok(faults) => faults,
            Err(error) => {
                untidied(&error);
                return Ok(Taken { manifest, swept: Swept::default(), faults: Vec::new() });
            }
        };
        if !faults.is_empty() {
            self.incomplete(&manifest, &faults);
            return Ok(Taken { manifest, swept: Swept::default(), faults });
        }
        let swept = sweep(&source, self.policy.window, tell);
        let swept = swept.inspect_err(|error| untidied(error)).unwrap_or_default();
        Ok(Taken { manifest, swept, faults })
    }

    fn faults(
        &self,
        source: &Source,
        manifest: &BackupManifest,
    ) -> Result<Vec<Fault>, ArchiveError> {
        let Some(cold) = source.store.cold() else { return Ok(Vec::new()) };
        whole::missing(&**cold.archive(), manifest, &lock(&self.damaged).clone())
    }

    /// Says that a backup is not all there.
    fn incomplete(&self, manifest: &BackupManifest, faults: &[Fault]) {
        let first = faults.first().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            backup = %manifest.id,
            faults = faults.len(),
            first,
            "a backup needs what the archive does not have as it should; nothing is tidied away"
        );
        let mut known = lock(&self.known);
        known.stats.failures += 1;
        known.stats.failing = Some(first);
    }
}

fn untidied(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "the archive was not tidied; it is tried again after the next backup");
}
