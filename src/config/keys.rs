//! Where key-encryption keys come from, as configuration says it. Holds no key and no PIN: it names
//! the files, the program or the token that do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use storage::keystore::KeyOptions;
use storage::keystore::source::SourceSpec;

use super::ConfigError;
use super::source::Sources;

/// Where key-encryption keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The source in use.
    pub source: KeySource,
    /// The source of before: still unwraps, until a rotation has replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring: Option<KeySource>,
    /// For `directory`: one file for each version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// For `exec`: the program and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// For `pkcs11`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs11: Option<Token>,
}

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// The data directory's own file.
    File,
    /// A directory of mounted secrets.
    Directory,
    /// A program that prints keys.
    Exec,
    /// A PKCS#11 token, which the key never leaves.
    Pkcs11,
}

/// A key in a PKCS#11 token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The module: a shared library.
    pub module: PathBuf,
    /// The token's label.
    pub label: String,
    /// A file with the user PIN.
    pub pin_file: PathBuf,
    /// The label of all versions of the key.
    pub key: String,
}

impl Keys {
    /// What the store is opened with.
    pub fn options(&self) -> KeyOptions {
        let retiring = self.retiring.filter(|retiring| *retiring != self.source);
        KeyOptions {
            source: self.spec(self.source),
            retiring: retiring.and_then(|kind| self.spec(kind)),
        }
    }

    /// Nothing for the store's own file, and for what is not described; [`check`] refuses the latter.
    fn spec(&self, kind: KeySource) -> Option<SourceSpec> {
        match kind {
            KeySource::File => None,
            KeySource::Directory => {
                self.directory.clone().map(|path| SourceSpec::Directory { path })
            }
            KeySource::Exec => self.exec.clone().map(|argv| SourceSpec::Exec { argv }),
            KeySource::Pkcs11 => self.pkcs11.clone().map(|token| SourceSpec::Pkcs11 {
                module: token.module,
                token: token.label,
                pin_file: token.pin_file,
                key: token.key,
            }),
        }
    }
}

/// Checks that each source in use is described, and that its description could be right.
pub(super) fn check(keys: &Keys, sources: &Sources) -> Result<(), ConfigError> {
    let used = [("keys.source", Some(keys.source)), ("keys.retiring", keys.retiring)];
    for (key, kind) in used {
        let described_by = match kind {
            None | Some(KeySource::File) => continue,
            Some(KeySource::Directory) => "keys.directory",
            Some(KeySource::Exec) => "keys.exec",
            Some(KeySource::Pkcs11) => "keys.pkcs11",
        };
        match kind.and_then(|kind| keys.spec(kind)) {
            None => return Err(sources.wrong(key, format!("needs {described_by}"))),
            Some(spec) => {
                spec.check().map_err(|error| sources.wrong(described_by, error.to_string()))?
            }
        }
    }
    Ok(())
}
