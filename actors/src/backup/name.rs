//! The names of objects in the archive, read and made. Refuses every name it would not have made
//! itself, so that no manifest can point outside the archive's own directories.

use std::fmt;
use std::str::FromStr;

use storage::id::{BackupId, DrillId, TenantId};

/// Directory of sealed log segments.
pub const SEGMENTS: &str = "segments";
/// Directory of tenants' snapshots.
pub const SNAPSHOTS: &str = "snapshots";
/// Directory of audit entries that are old enough to have left the tenants' views.
pub const AUDIT: &str = "audit";
/// Directory of copies of tenants' wrapped keys. Whatever erases a tenant removes that tenant's.
pub const KEYS: &str = "keys";
/// Directory of backups' own objects.
pub const BACKUPS: &str = "backups";
/// Directory of the reports of restore drills.
pub const DRILLS: &str = "drills";

/// What an object's name says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectName {
    /// `segments/<number:016x>-<prefix>.seg`
    Segment {
        /// The segment's number.
        number: u64,
        /// First eight bytes of its SHA-256.
        prefix: [u8; 8],
    },
    /// `snapshots/<tenant>/<lsn:016x>-<prefix>.snap`
    Snapshot {
        /// Whose rows.
        tenant: TenantId,
        /// Up to and with which record.
        lsn: u64,
        /// First eight bytes of its SHA-256.
        prefix: [u8; 8],
    },
    /// `audit/<tenant>/<last:016x>-<prefix>.chunk`
    AuditChunk {
        /// Whose entries.
        tenant: TenantId,
        /// The sequence number of the last one.
        last: u64,
        /// First eight bytes of its SHA-256.
        prefix: [u8; 8],
    },
    /// `keys/<tenant>/<prefix>.key`
    TenantKey {
        /// Whose key.
        tenant: TenantId,
        /// First eight bytes of its SHA-256.
        prefix: [u8; 8],
    },
    /// `backups/<id>.json`: the signed manifest.
    Manifest(BackupId),
    /// `backups/<id>.keys`: the wrapped secrets of the node itself.
    Keys(BackupId),
    /// `backups/<id>.anchors`: the copy of the anchor log.
    Anchors(BackupId),
    /// `drills/<id>.json`: a drill's signed report.
    Drill(DrillId),
}

/// A text that is no name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an object of the archive")]
pub struct NameError;

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment { number, prefix } => {
                write!(f, "{SEGMENTS}/{number:016x}-{}.seg", hex::encode(prefix))
            }
            Self::Snapshot { tenant, lsn, prefix } => {
                write!(f, "{SNAPSHOTS}/{tenant}/{lsn:016x}-{}.snap", hex::encode(prefix))
            }
            Self::AuditChunk { tenant, last, prefix } => {
                write!(f, "{AUDIT}/{tenant}/{last:016x}-{}.chunk", hex::encode(prefix))
            }
            Self::TenantKey { tenant, prefix } => {
                write!(f, "{KEYS}/{tenant}/{}.key", hex::encode(prefix))
            }
            Self::Manifest(backup) => write!(f, "{BACKUPS}/{backup}.json"),
            Self::Keys(backup) => write!(f, "{BACKUPS}/{backup}.keys"),
            Self::Anchors(backup) => write!(f, "{BACKUPS}/{backup}.anchors"),
            Self::Drill(drill) => write!(f, "{DRILLS}/{drill}.json"),
        }
    }
}

fn numbered(text: &str, suffix: &str) -> Option<(u64, [u8; 8])> {
    let (number, digits) = text.strip_suffix(suffix)?.split_once('-')?;
    let mut prefix = [0; 8];
    hex::decode_to_slice(digits, &mut prefix).ok()?;
    Some((u64::from_str_radix(number, 16).ok()?, prefix))
}

fn read(text: &str) -> Option<ObjectName> {
    let (directory, rest) = text.split_once('/')?;
    match directory {
        SEGMENTS => {
            let (number, prefix) = numbered(rest, ".seg")?;
            Some(ObjectName::Segment { number, prefix })
        }
        SNAPSHOTS => {
            let (tenant, file) = rest.split_once('/')?;
            let (lsn, prefix) = numbered(file, ".snap")?;
            Some(ObjectName::Snapshot { tenant: tenant.parse().ok()?, lsn, prefix })
        }
        AUDIT => {
            let (tenant, file) = rest.split_once('/')?;
            let (last, prefix) = numbered(file, ".chunk")?;
            Some(ObjectName::AuditChunk { tenant: tenant.parse().ok()?, last, prefix })
        }
        KEYS => {
            let (tenant, file) = rest.split_once('/')?;
            let mut prefix = [0; 8];
            hex::decode_to_slice(file.strip_suffix(".key")?, &mut prefix).ok()?;
            Some(ObjectName::TenantKey { tenant: tenant.parse().ok()?, prefix })
        }
        BACKUPS => {
            let (id, suffix) = rest.split_once('.')?;
            let id = id.parse().ok()?;
            match suffix {
                "json" => Some(ObjectName::Manifest(id)),
                "keys" => Some(ObjectName::Keys(id)),
                "anchors" => Some(ObjectName::Anchors(id)),
                _ => None,
            }
        }
        DRILLS => Some(ObjectName::Drill(rest.strip_suffix(".json")?.parse().ok()?)),
        _ => None,
    }
}

impl FromStr for ObjectName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        // Numbers have many spellings; only the one that would be made here is a name.
        read(text).filter(|name| name.to_string() == text).ok_or(NameError)
    }
}

#[cfg(test)]
mod tests {
    use storage::id::Id;

    use super::*;

    #[test]
    fn names_read_back_as_what_they_were_made_from() {
        let (prefix, backup) = ([0xab; 8], BackupId::new(7, [1; 10]));
        for name in [
            ObjectName::Segment { number: 0x1f, prefix },
            ObjectName::Snapshot { tenant: TenantId::PLATFORM, lsn: u64::MAX, prefix },
            ObjectName::AuditChunk { tenant: TenantId::PLATFORM, last: 9, prefix },
            ObjectName::TenantKey { tenant: TenantId::PLATFORM, prefix },
            ObjectName::Manifest(backup),
            ObjectName::Keys(backup),
            ObjectName::Anchors(backup),
            ObjectName::Drill(DrillId::new(7, [1; 10])),
        ] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let name = ObjectName::Segment { number: 0x1f, prefix };
        assert_eq!(name.to_string(), "segments/000000000000001f-abababababababab.seg");
    }

    #[test]
    fn other_spellings_and_other_places_are_no_names() {
        let backup = BackupId::new(7, [1; 10]);
        for bad in [
            "segments/1f-abababababababab.seg",
            "segments/000000000000001F-abababababababab.seg",
            "segments/000000000000001f-ABABABABABABABAB.seg",
            "segments/+00000000000001f-abababababababab.seg",
            "segments/000000000000001f-abababababababab.seg.part",
            "segments/../segments/000000000000001f-abababababababab.seg",
            "/segments/000000000000001f-abababababababab.seg",
            "snapshots/000000000000001f-abababababababab.snap",
            "snapshots/../000000000000001f-abababababababab.snap",
            &format!("backups/{backup}.json.old"),
            &format!("backups/{backup}"),
            "",
        ] {
            assert_eq!(bad.parse::<ObjectName>(), Err(NameError), "{bad}");
        }
    }
}
