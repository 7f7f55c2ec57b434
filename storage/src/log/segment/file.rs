//! One segment file: its name, its header, how it is born, grows and is sealed.
//!
//! ```text
//! magic "BKlogseg" · number u64 · format version u32 · crc32c u32 · frames … · index footer
//! ```
//! A file gets its `.seg` name only when its header is on disk, so a cut never leaves a headless one.
//! It decides nothing about failures: what to answer after one is the committer's business.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::DiskFile;
use crate::disk::OpenMode;
use crate::log::segment::index::SegmentIndex;

const MAGIC: [u8; 8] = *b"BKlogseg";
const VERSION: u32 = 1;
/// Where the first frame begins.
pub(super) const FILE_HEADER_BYTES: u64 = 8 + 8 + 4 + 4;
const SUFFIX: &str = "seg";
const NUMBER_DIGITS: usize = 16;

/// Where segment `number` lies.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:0NUMBER_DIGITS$}.{SUFFIX}"))
}

/// Which segment a file is, if it is one.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let is_segment = path.extension()? == SUFFIX
        && stem.len() >= NUMBER_DIGITS
        && stem.bytes().all(|byte| byte.is_ascii_digit());
    if is_segment { stem.parse().ok() } else { None }
}

/// Whether a file is a segment that was not finished being made.
pub(super) fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "new")
        && path.file_stem().is_some_and(|stem| number_of(Path::new(stem)).is_some())
}

/// Whether an operation failed only for want of space. Errors of a sync never count: this module
/// hides their kind, because after a failed sync it does not matter why.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What a file's header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileHeader {
    /// What it should.
    Right,
    /// Nothing that can be believed.
    Damaged,
    /// That the file is another segment.
    Misnamed {
        /// The number in it.
        carried: u64,
    },
    /// That a newer program wrote it.
    Version(u32),
}

fn header(number: u64) -> [u8; FILE_HEADER_BYTES as usize] {
    let mut bytes = [0; FILE_HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    bytes[16..20].copy_from_slice(&VERSION.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Reads the header of the file that should be segment `number`.
pub(super) fn read_header(file: &dyn DiskFile, number: u64) -> io::Result<FileHeader> {
    let mut bytes = [0; FILE_HEADER_BYTES as usize];
    file.read_at(0, &mut bytes)?;
    if bytes == header(number) {
        return Ok(FileHeader::Right);
    }
    let field =
        |at: usize| bytes[at..at + 4].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    if bytes[..8] != MAGIC || u64::from(crc32c::crc32c(&bytes[..20])) != field(20) {
        return Ok(FileHeader::Damaged);
    }
    match u32::try_from(field(16)) {
        Ok(version) if version != VERSION => Ok(FileHeader::Version(version)),
        _ => Ok(FileHeader::Misnamed { carried: field(8) << 32 | field(12) }),
    }
}

/// Writes the header of segment `number` again, after damage.
pub(super) fn write_header(file: &dyn DiskFile, number: u64) -> io::Result<()> {
    file.write_at(0, &header(number))
}

/// The segment that grows.
pub(super) struct ActiveFile {
    /// Its number.
    pub(super) number: u64,
    /// The open file.
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next frame goes. All before it is on disk for good.
    pub(super) end: u64,
}

impl ActiveFile {
    /// Makes segment `number`, with space reserved, durable under its name.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let path = path(dir, number);
        let unfinished = path.with_extension(format!("{SUFFIX}.new"));
        let file = disk.open(&unfinished, OpenMode::Create)?;
        let made = file
            .allocate(segment_bytes.max(FILE_HEADER_BYTES))
            .and_then(|()| file.write_at(0, &header(number)))
            .and_then(|()| file.sync().map_err(io::Error::other));
        if let Err(error) = made {
            // Only to give back space; the next start removes it otherwise.
            drop(file);
            if let Err(error) = disk.remove(&unfinished) {
                tracing::debug!(%error, "an unfinished segment stays until the next start");
            }
            return Err(error);
        }
        disk.rename(&unfinished, &path)?;
        disk.sync_dir(dir).map_err(io::Error::other)?;
        Ok(Self { number, file: Arc::from(file), end: FILE_HEADER_BYTES })
    }

    /// Takes back whatever lies after the durable end.
    pub(super) fn roll_back(&self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.file.sync()
    }

    /// The bytes that end the segment.
    pub(super) fn footer(&self, index: &SegmentIndex) -> Vec<u8> {
        index.encode_footer(self.number, self.end)
    }

    /// Ends the segment with its footer. It is immutable afterwards.
    pub(super) fn seal(&self, footer: &[u8]) -> io::Result<()> {
        self.file.write_at(self.end, footer)?;
        self.file.set_len(self.end + footer.len() as u64)?;
        self.file.sync().map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fault::FaultDisk;

    #[test]
    fn only_numbered_files_are_segments() {
        assert_eq!(number_of(&path(Path::new("/log"), 42)), Some(42));
        assert_eq!(number_of(&path(Path::new("/log"), u64::MAX)), Some(u64::MAX));
        for name in ["1.seg", "+000000000000001.seg", "0000000000000001.seg.new", "note.txt"] {
            assert_eq!(number_of(Path::new(name)), None, "{name}");
        }
        assert!(is_unfinished(Path::new("/log/0000000000000001.seg.new")));
        assert!(!is_unfinished(Path::new("/log/other.new")));
    }

    #[test]
    fn a_header_names_its_segment_and_a_newer_version_is_told_from_damage() {
        let (disk, dir) = (FaultDisk::new(), Path::new("/log"));
        disk.create_dir_all(dir).unwrap();
        let active = ActiveFile::create(&disk, dir, 7, 100).unwrap();
        assert_eq!(read_header(&*active.file, 7).unwrap(), FileHeader::Right);
        assert_eq!(read_header(&*active.file, 8).unwrap(), FileHeader::Misnamed { carried: 7 });
        active.file.write_at(3, b"?").unwrap();
        assert_eq!(read_header(&*active.file, 7).unwrap(), FileHeader::Damaged);
        let mut newer = header(7);
        newer[19] = 2;
        let crc = crc32c::crc32c(&newer[..20]);
        newer[20..].copy_from_slice(&crc.to_be_bytes());
        active.file.write_at(0, &newer).unwrap();
        assert_eq!(read_header(&*active.file, 7).unwrap(), FileHeader::Version(2));
    }
}
