//! The disk: the few file operations that storage needs, behind a seam that tests can break.
//!
//! [`RealDisk`] is the operating system. [`fault::FaultDisk`] keeps files in memory, knows which
//! bytes a power cut would take, and fails on command.
//!
//! It refuses to hide anything: no operation is retried, no failed sync is tried again, and nothing
//! is durable that was not synced. Whoever writes decides what a failure means.

use std::ffi::OsString;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use fs4::FileExt as _;

pub mod fault;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file for reading and writing that is empty afterwards, whether it was there or not.
    Create,
}

/// An open file. Offsets and lengths are bytes.
pub trait DiskFile: Send + Sync {
    /// Reads from `offset` until `buffer` is full or the file ends; returns how much was read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`. After an error any part of them may be in the file.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and length survive loss of power (`fdatasync`). After an error nobody knows
    /// what is on the disk, whatever a later sync says.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len` and extends the file with zeros to it.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// The length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Whoever is handed copies of files: their names and their bytes.
pub type CopyFile<'a, E> = &'a mut dyn FnMut(&str, &[u8]) -> Result<(), E>;

/// A file system, as far as storage needs one.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory with its parents; an existing one is fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The paths of the files in a directory, in name order. Directories in it are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Opens a file. A new one is readable by its owner only, and lasts after [`Disk::sync_dir`].
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name in one step, over whatever had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory survive loss of power.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Lets nobody but its owner into a directory, where the disk knows owners.
    fn restrict_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// The permission bits of a file, where the disk knows owners.
    fn permissions(&self, _path: &Path) -> io::Result<Option<u32>> {
        Ok(None)
    }

    /// How many bytes still fit on the disk of a directory, where the disk knows.
    fn available_bytes(&self, _dir: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Reads a whole small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Replaces a small file whole: after a power cut it holds the old or the new bytes, nothing
    /// between. The bytes pass through `PATH.new`, which a cut may leave behind.
    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let parent = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut unfinished = OsString::from(path.as_os_str());
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let file = self.open(&unfinished, OpenMode::Create)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        drop(file);
        self.rename(&unfinished, path)?;
        self.sync_dir(parent)
    }
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        if mode == OpenMode::Create {
            options.create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // A relative path of one part has an empty parent, which means the current directory.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }

    #[cfg(unix)]
    fn restrict_dir(&self, dir: &Path) -> io::Result<()> {
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(dir, owner_only)
    }

    #[cfg(unix)]
    fn permissions(&self, path: &Path) -> io::Result<Option<u32>> {
        let permissions = std::fs::metadata(path)?.permissions();
        Ok(Some(std::os::unix::fs::PermissionsExt::mode(&permissions) & 0o777))
    }

    fn available_bytes(&self, dir: &Path) -> io::Result<Option<u64>> {
        fs4::available_space(dir).map(Some)
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            let at = offset + read as u64;
            match std::os::unix::fs::FileExt::read_at(&self.0, &mut buffer[read..], at) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match self.0.allocate(len) {
            Ok(()) => {}
            // Some file systems cannot reserve; then a full disk shows at the write instead.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_replaces_the_file_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        RealDisk.write_atomic(&path, b"one").unwrap();
        RealDisk.write_atomic(&path, b"second").unwrap();
        assert_eq!(RealDisk.read(&path).unwrap(), b"second");
        assert_eq!(RealDisk.list(dir.path()).unwrap(), std::slice::from_ref(&path));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn allocated_space_reads_as_zeros_and_reading_stops_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("file"), OpenMode::Create).unwrap();
        file.allocate(10_000).unwrap();
        file.write_at(4, b"data").unwrap();
        let mut buffer = [9; 12];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 12);
        assert_eq!(&buffer, b"\0\0\0\0data\0\0\0\0");
        assert_eq!(file.read_at(9_995, &mut buffer).unwrap(), 5);
        assert_eq!(file.len().unwrap(), 10_000);
    }
}
