//! Which failures pass by themselves. Decides nothing about what to do meanwhile.

use super::StoreError;
use crate::archive::ArchiveError;
use crate::history::HistoryError;
use crate::log::LogError;

impl StoreError {
    /// Whether the archive is all that is missing, so that trying again later may help.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Log(LogError::Archive { source: ArchiveError::Unreachable { .. }, .. })
                | Self::History(
                    HistoryError::Archive(ArchiveError::Unreachable { .. })
                        | HistoryError::Log(LogError::Archive {
                            source: ArchiveError::Unreachable { .. },
                            ..
                        })
                )
        )
    }
}
