//! The disk that breaks must itself keep its word.

use super::*;

const DIR: &str = "/data";

fn disk_with_dir() -> FaultDisk {
    let disk = FaultDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk
}

#[test]
fn an_atomic_write_leaves_the_old_or_the_new_bytes_after_any_cut() {
    let path = Path::new(DIR).join("key");
    for operations in 0.. {
        let disk = disk_with_dir();
        disk.write_atomic(&path, b"old").unwrap();
        disk.cut_power_after(disk.operations() + operations);
        let written = disk.write_atomic(&path, b"the new one");
        for bits in 0..1 << disk.unsynced() {
            let found = disk.restart(Survival::Subset(bits)).read(&path).unwrap();
            let wanted: &[&[u8]] =
                if written.is_ok() { &[b"the new one"] } else { &[b"old", b"the new one"] };
            assert!(wanted.contains(&found.as_slice()), "{operations} {bits:b}: {found:?}");
        }
        if written.is_ok() {
            return;
        }
    }
}

#[test]
fn unsynced_bytes_are_lost_and_a_failed_sync_loses_them_for_good() {
    let disk = disk_with_dir();
    let path = Path::new(DIR).join("file");
    let file = disk.open(&path, OpenMode::Create).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file.write_at(0, b"first").unwrap();
    file.sync().unwrap();
    file.write_at(5, b" more").unwrap();
    assert_eq!(disk.restart(Survival::Synced).read(&path).unwrap(), b"first");
    let torn = Survival::Prefix { changes: 0, torn_bytes: 2 };
    assert_eq!(disk.restart(torn).read(&path).unwrap(), b"first m");
    disk.fail_at(disk.operations(), Fault::Error);
    file.sync().unwrap_err();
    file.sync().unwrap();
    assert_eq!(disk.read(&path).unwrap(), b"first more");
    assert_eq!(disk.restart(Survival::Everything).read(&path).unwrap(), b"first");
}

#[test]
fn a_file_whose_directory_was_not_synced_is_gone() {
    let disk = disk_with_dir();
    let path = Path::new(DIR).join("file");
    disk.open(&path, OpenMode::Create).unwrap().sync().unwrap();
    assert!(disk.restart(Survival::Synced).read(&path).is_err());
}

#[test]
fn a_full_disk_says_so_and_takes_writes_again_when_there_is_space() {
    let disk = disk_with_dir();
    let file = disk.open(&Path::new(DIR).join("file"), OpenMode::Create).unwrap();
    disk.limit_bytes(Some(4));
    let full = file.write_at(0, b"too long").unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.allocate(9).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.limit_bytes(None);
    file.write_at(0, b"too long").unwrap();
}
