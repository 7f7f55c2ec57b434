//! Plain files for work on the way, and files that are put into place before anything opens them. Not for
//! what must survive a power cut by itself: that is what the log and [`Disk`](crate::disk::Disk) are for.
//!
//! Nothing is durable before [`sync`]. Refuses: to make anything that others can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::disk::{Disk, RealDisk};

/// A file or directory for work on the way, removed when dropped. It need not be there.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Of that path.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = match self.0.is_dir() {
            true => std::fs::remove_dir_all(&self.0),
            false => std::fs::remove_file(&self.0),
        };
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "scratch files stay behind");
        }
    }
}

/// Makes a directory with its parents; an existing one is fine.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A file being written.
pub type Output = BufWriter<File>;

/// A new or emptied file, to write.
pub fn create(path: &Path) -> io::Result<Output> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    Ok(BufWriter::new(options.open(path)?))
}

/// Writes a whole file.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.flush()
}

/// A file, to read from its start.
pub fn open(path: &Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path)?))
}

/// Reads a whole small file that holds a secret.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] beyond `bytes_max`.
pub fn read_secret(path: &Path, bytes_max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Makes files durable, and their names in all directories up to `root`.
///
/// # Errors
/// With the path that failed.
pub fn sync(root: &Path, files: &[PathBuf]) -> Result<(), (PathBuf, io::Error)> {
    let mut dirs = std::collections::BTreeSet::new();
    for path in files {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|error| (path.clone(), error))?;
        let above = path.ancestors().skip(1).take_while(|dir| dir.starts_with(root));
        dirs.extend(above.map(Path::to_owned));
    }
    dirs.into_iter().try_for_each(|dir| RealDisk.sync_dir(&dir).map_err(|error| (dir, error)))
}

/// Overwrites a file with zeros: a lost name alone leaves the bytes on the disk.
pub fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    file.write_all(&vec![0; length])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn scratch_goes_with_its_value_and_nobody_else_reads_it() {
        let home = tempfile::tempdir().unwrap();
        let dir = Scratch::new(home.path().join("work"));
        make_dir(dir.path()).unwrap();
        let file = dir.path().join("file");
        write(&file, b"content").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(dir.path()), mode(&file)), (0o700, 0o600));
        assert_eq!(read_secret(&file, 7).unwrap().as_slice(), b"content");
        assert_eq!(read_secret(&file, 6).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        sync(home.path(), std::slice::from_ref(&file)).unwrap();
        overwrite(&file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), [0; 7]);
        drop(dir);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        drop(Scratch::new(home.path().join("never made")));
    }
}
