//! An archive that is named on the command line, looked at without its node.
//!
//! Refuses: a node's data directory in place of its archive.

use std::path::{Path, PathBuf};

use storage::archive::{ArchiveError, ArchiveOptions, ObjectArchive, Place, SharedArchive};

use crate::cli::CliError;
use crate::config::{Config, Overrides, archive_options};
use crate::control::error_chain;

/// The configuration to reach archives with, where no node is: its own data directory counts for nothing.
pub fn config_without_node(file: Option<&Path>) -> Result<Config, CliError> {
    config_for(file, std::env::temp_dir())
}

/// The same, for a data directory that the operator chooses.
pub fn config_for(file: Option<&Path>, data_dir: PathBuf) -> Result<Config, CliError> {
    let overrides = Overrides { data_dir: Some(data_dir), settings: Vec::new() };
    Ok(Config::load(file, &overrides.set("data.allow_temporary", true))?)
}

/// The archive that has backups: the one that is named, or the one of the configuration.
pub fn source(config: &Config, from: Option<&str>) -> Result<SharedArchive, CliError> {
    let url = match (from, config.archive.url.as_str()) {
        (Some(from), _) => location(from)?,
        (None, "") => {
            let text = "which archive? give --from, or --config with an archive.url";
            return Err(CliError::Usage(text.to_owned()));
        }
        (None, configured) => configured.to_owned(),
    };
    if let Some(dir) = local(&url)? {
        if is_data_directory(&dir) {
            return Err(CliError::Failed(format!(
                "{dir} is a node's data directory, not an archive; its archive is {dir}/archive unless its \
                 archive.url says otherwise",
                dir = dir.display(),
            )));
        }
        if !dir.is_dir() {
            return Err(CliError::Failed(format!("there is no archive {}", dir.display())));
        }
    }
    let opened = ObjectArchive::open(&reach(config, url)?);
    opened.map_err(|error| CliError::Failed(error_chain(&error)))
}

/// The archive of a node that is to be made in `into`: the one that is named, or one in the new directory.
pub fn target(
    config: &Config,
    archive: Option<&str>,
    into: &Path,
) -> Result<ArchiveOptions, CliError> {
    let Some(archive) = archive else {
        return reach(config, into.join("archive").display().to_string());
    };
    let url = location(archive)?;
    let within = local(&url)?.and_then(|dir| {
        let above = dir.ancestors().find(|above| is_data_directory(above))?;
        Some((dir.clone(), above.to_owned()))
    });
    match within {
        Some((dir, above)) => Err(CliError::Failed(format!(
            "{} lies in the data directory {} of another node; give an empty directory of its own, or leave \
             --archive away: then it is {}",
            dir.display(),
            above.display(),
            into.join("archive").display(),
        ))),
        None => reach(config, url),
    }
}

/// Whether a node keeps its data there.
fn is_data_directory(dir: &Path) -> bool {
    dir.join("FORMAT").is_file() && ["log", "keys"].iter().any(|name| dir.join(name).is_dir())
}

fn location(text: &str) -> Result<String, CliError> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(text).map_err(CliError::system("the archive is no path"))?;
    Ok(path.display().to_string())
}

fn local(url: &str) -> Result<Option<PathBuf>, CliError> {
    let wrong = |error: ArchiveError| CliError::Usage(error_chain(&error));
    Ok(match Place::parse(url).map_err(wrong)? {
        Place::Local(dir) => Some(dir),
        Place::S3 { .. } | Place::Google { .. } => None,
    })
}

fn reach(config: &Config, url: String) -> Result<ArchiveOptions, CliError> {
    let options = archive_options(config).map_err(|error| CliError::Usage(error_chain(&error)))?;
    Ok(ArchiveOptions { url, ..options })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn said<T>(outcome: Result<T, CliError>) -> (String, u8) {
        let Err(error) = outcome else { panic!("it was taken") };
        (error.to_string(), error.exit_code())
    }

    #[test]
    fn a_data_directory_is_no_archive_to_read_and_none_to_write() {
        let home = tempfile::tempdir().expect("a directory");
        let config = config_for(None, home.path().join("new")).expect("a configuration");
        let node = home.path().join("node");
        for name in ["log", "keys", "archive"] {
            fs::create_dir_all(node.join(name)).expect("a directory");
        }
        fs::write(node.join("FORMAT"), "bulkhead 1\n").expect("a file");
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();

        let (why, code) = said(source(&config, Some(&text(&node))));
        assert!(why.contains(&text(&node.join("archive"))) && code == 1, "{why}");
        source(&config, Some(&text(&node.join("archive")))).expect("its archive");
        let (why, code) = said(source(&config, Some(&text(&home.path().join("none")))));
        assert!(why.contains("there is no archive") && code == 1, "{why}");
        assert!(!home.path().join("none").exists(), "looking makes nothing");
        assert_eq!(said(source(&config, Some("ftp://host/x"))).1, 2);
        assert_eq!(said(source(&config, None)).1, 2);

        let into = home.path().join("new");
        for inside in [node.clone(), node.join("archive"), node.join("archive2")] {
            let (why, _) = said(target(&config, Some(&text(&inside)), &into));
            assert!(why.contains("leave --archive away"), "{why}");
        }
        let own = target(&config, None, &into).expect("its own");
        assert_eq!(own.url, text(&into.join("archive")));
        let beside = target(&config, Some(&text(&home.path().join("beside"))), &into);
        assert_eq!(beside.expect("another").url, text(&home.path().join("beside")));
    }
}
