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

    /// Whether the archive does not give what it should have, now or for good, or not as it was put there.
    pub fn is_of_the_archive(&self) -> bool {
        match self {
            Self::Log(LogError::Archive { .. })
            | Self::History(HistoryError::Log(LogError::Archive { .. })) => true,
            Self::History(error) => error.is_of_the_archive(),
            _ => false,
        }
    }
}
