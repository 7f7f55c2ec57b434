//! Where data may lie: finds the default directory, and tells a place that lasts from one that does
//! not. Creates nothing.

use std::path::{Path, PathBuf};

const TEMPORARY: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/private/tmp"];

/// The default data directory (XDG base directory specification): `XDG_DATA_HOME`, else
/// `HOME/.local/share`.
pub(super) fn default_dir(xdg_data_home: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
    let absolute = |text: &&str| Path::new(text).is_absolute();
    let base = match (xdg_data_home.filter(absolute), home.filter(absolute)) {
        (Some(base), _) => PathBuf::from(base),
        (None, Some(home)) => Path::new(home).join(".local").join("share"),
        (None, None) => return None,
    };
    Some(base.join("bulkhead"))
}

/// Why `dir` would not survive a restart of the machine, if so.
pub(super) fn temporary(dir: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let resolved = resolve(dir);
    let mut places: Vec<PathBuf> = TEMPORARY.iter().map(PathBuf::from).collect();
    places.push(std::env::temp_dir());
    temporary_in(&resolved, &places, &mounts)
}

fn temporary_in(dir: &Path, places: &[PathBuf], mounts: &str) -> Option<String> {
    if let Some(place) = places.iter().find(|place| dir.starts_with(place)) {
        return Some(format!("under the temporary directory {}", place.display()));
    }
    let (mount, kind) = mount_of(dir, mounts)?;
    matches!(kind, "tmpfs" | "ramfs")
        .then(|| format!("on {mount}, which is kept in memory ({kind})"))
}

/// The longest mount point above `dir`, and its file system (proc_pid_mountinfo(5)).
fn mount_of<'a>(dir: &Path, mounts: &'a str) -> Option<(&'a str, &'a str)> {
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mount = before.split(' ').nth(4)?;
            let kind = after.split(' ').next()?;
            dir.starts_with(mount).then_some((mount, kind))
        })
        // Of two mounts on one place the later one hides the earlier: `max_by_key` keeps the last.
        .max_by_key(|(mount, _)| mount.len())
}

/// `dir` with every link that exists resolved, though its last parts may not exist yet.
fn resolve(dir: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut at = dir;
    loop {
        if let Ok(real) = at.canonicalize() {
            return missing.iter().rev().fold(real, |path, part| path.join(part));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name.to_owned());
                at = parent;
            }
            _ => return dir.to_path_buf(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 21 0:26 / /scratch rw,nosuid shared:3 - tmpfs tmpfs rw\n\
        31 30 8:2 / /scratch/disk rw - xfs /dev/sdb rw\n";

    #[test]
    fn a_directory_in_memory_or_under_tmp_does_not_last() {
        let places = [PathBuf::from("/tmp")];
        assert!(temporary_in(Path::new("/tmp/a"), &places, MOUNTS).is_some());
        assert!(temporary_in(Path::new("/scratch/a"), &places, MOUNTS).is_some());
        assert_eq!(temporary_in(Path::new("/scratch/disk/a"), &places, MOUNTS), None);
        assert_eq!(temporary_in(Path::new("/tmpfoo"), &places, MOUNTS), None);
    }

    #[test]
    fn the_default_directory_follows_xdg_and_then_home() {
        let dir = |xdg, home| default_dir(xdg, home);
        assert_eq!(dir(Some("/x"), Some("/h")), Some(PathBuf::from("/x/bulkhead")));
        assert_eq!(dir(None, Some("/h")), Some(PathBuf::from("/h/.local/share/bulkhead")));
        assert_eq!(dir(Some("relative"), None), None);
    }
}
