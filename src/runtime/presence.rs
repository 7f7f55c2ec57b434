//! What a running node leaves in its data directory so that its operator finds it: `node.json` with
//! its URLs, and `operator.token`. Both are gone after a clean stop; after a crash the pid tells.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The content of `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The node's process.
    pub pid: u32,
    /// URL of the API, as bound.
    pub http: String,
    /// URL of the operators' listener, as bound.
    pub ops: String,
    /// The directory that it runs on. A copy of the directory has a copy of this file, and is another.
    pub directory: DirectoryId,
}

/// Which directory a path leads to, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryId {
    /// The number of its file system.
    pub device: u64,
    /// Its own number there.
    pub inode: u64,
}

impl DirectoryId {
    /// Of that directory.
    pub fn of(dir: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(dir)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Presence {
    /// Whether a process with that number lives. It may be another one: then nobody listens at
    /// `ops`, or the token is not its own.
    pub fn is_alive(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }

    /// Whether it is about this very directory, and not about one that this is a copy of.
    pub fn is_of(&self, dir: &Path) -> bool {
        DirectoryId::of(dir).is_ok_and(|directory| directory == self.directory)
    }
}

/// Where `node.json` is.
pub fn path(dir: &Path) -> PathBuf {
    dir.join("node.json")
}

/// Where the operator token is.
pub fn token_path(dir: &Path) -> PathBuf {
    dir.join("operator.token")
}

/// What the data directory says of its node; nothing if it says nothing readable.
pub fn read(dir: &Path) -> Option<Presence> {
    serde_json::from_slice(&std::fs::read(path(dir)).ok()?).ok()
}

/// Announces a node. Whoever sees `node.json` finds it whole, and the token already there.
pub fn announce(dir: &Path, presence: &Presence, token: &str) -> std::io::Result<()> {
    write_atomically(&token_path(dir), token.as_bytes())?;
    let mut json = serde_json::to_vec(presence)?;
    json.push(b'\n');
    write_atomically(&path(dir), &json)
}

/// Takes the announcement back.
pub fn withdraw(dir: &Path) {
    for file in [path(dir), token_path(dir)] {
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %file.display(), "the file cannot be removed");
        }
    }
}

fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    // An old draft may have another mode.
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_announcement_reads_back_and_is_private_and_can_be_withdrawn() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let presence = Presence {
            pid: std::process::id(),
            http: "http://127.0.0.1:1".to_owned(),
            ops: "http://127.0.0.1:2".to_owned(),
            directory: DirectoryId::of(dir.path()).expect("a directory"),
        };
        announce(dir.path(), &presence, "token").expect("announced");
        announce(dir.path(), &presence, "token").expect("announced again");
        assert_eq!(read(dir.path()), Some(presence.clone()));
        assert!(presence.is_alive() && presence.is_of(dir.path()));
        let copy = tempfile::tempdir().expect("another directory");
        std::fs::copy(path(dir.path()), path(copy.path())).expect("a copy");
        let copied = read(copy.path()).expect("it reads the same");
        assert!(!copied.is_of(copy.path()), "a copy is another directory");
        let mode = token_path(dir.path()).metadata().expect("token").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        withdraw(dir.path());
        assert_eq!(read(dir.path()), None);
        assert!(!token_path(dir.path()).exists());
    }
}
