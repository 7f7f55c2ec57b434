//! Key files and directories of key files, as people and orchestrators leave them.

use std::os::unix::fs::symlink;

use super::*;

fn put(path: &Path, byte: u8) {
    let mut key = [byte; 32];
    key[0] = 0xff;
    fs::write(path, hex::encode(key)).unwrap();
    allow(path, 0o600);
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn names(dir: &Path) -> Result<(String, Vec<String>), SourceError> {
    let versions = DirectorySource { path: dir.to_owned() }.versions()?;
    let older = versions.older.iter().map(|kek| kek.name().to_owned()).collect();
    Ok((versions.current.name().to_owned(), older))
}

#[test]
fn the_highest_name_is_current_unless_the_directory_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    put(&dir.join("2024-01"), 1);
    put(&dir.join("2024-02"), 2);
    put(&dir.join(".hidden"), 3);
    fs::create_dir(dir.join("..data")).unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    assert_eq!(names(dir).unwrap(), ("2024-02".to_owned(), vec!["2024-01".to_owned()]));

    fs::write(dir.join("current"), "2024-01\n").unwrap();
    assert_eq!(names(dir).unwrap().0, "2024-01");
    fs::remove_file(dir.join("current")).unwrap();
    symlink("2024-01", dir.join("current")).unwrap();
    assert_eq!(names(dir).unwrap().0, "2024-01");
}

#[test]
fn secrets_mounted_by_an_orchestrator_are_read_through_their_links() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = dir.join("..2024_05_01");
    fs::create_dir(&data).unwrap();
    put(&data.join("v1"), 1);
    put(&data.join("v2"), 2);
    allow(&data.join("v2"), 0o440);
    fs::write(data.join("current"), "v1").unwrap();
    symlink("..2024_05_01", dir.join("..data")).unwrap();
    for name in ["v1", "v2", "current"] {
        symlink(format!("..data/{name}"), dir.join(name)).unwrap();
    }
    assert_eq!(names(dir).unwrap(), ("v1".to_owned(), vec!["v2".to_owned()]));
}

#[test]
fn a_directory_that_cannot_be_right_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert!(matches!(names(&dir.join("none")), Err(SourceError::Io { .. })));
    assert!(matches!(names(dir), Err(SourceError::Empty { .. })));

    put(&dir.join("v1"), 1);
    allow(&dir.join("v1"), 0o644);
    let refused = names(dir).unwrap_err().to_string();
    assert!(refused.contains("v1") && refused.contains("chmod o-rwx"), "{refused}");
    allow(&dir.join("v1"), 0o400);

    symlink("v9", dir.join("current")).unwrap();
    assert!(matches!(names(dir), Err(SourceError::NoCurrent { .. })));
    fs::remove_file(dir.join("current")).unwrap();
    fs::write(dir.join("current"), "v9").unwrap();
    assert!(matches!(names(dir), Err(SourceError::NoCurrent { .. })));
    fs::remove_file(dir.join("current")).unwrap();

    fs::write(dir.join("v2"), "not a key").unwrap();
    allow(&dir.join("v2"), 0o600);
    let refused = names(dir).unwrap_err().to_string();
    assert!(refused.contains("v2") && !refused.contains("not a key"), "{refused}");
    fs::write(dir.join("v2"), vec![b'x'; 10_000_000]).unwrap();
    assert!(names(dir).unwrap_err().to_string().contains("v2"));
}

#[test]
fn a_pipe_is_no_key_file_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("v1");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(names(dir.path()), Err(SourceError::Io { .. })));
    let file = FileSource { path: pipe };
    assert!(matches!(file.versions(), Err(SourceError::Io { .. })));
}

#[test]
fn every_truncation_of_a_key_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v1");
    put(&path, 5);
    let whole = fs::read(&path).unwrap();
    let source = FileSource { path: path.clone() };
    assert_eq!(source.versions().unwrap().current.name(), "v1");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(source.versions().is_err(), "cut at {length}");
    }
}
