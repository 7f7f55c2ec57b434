//! `--trust`: whose signature is believed. One form, the line that `bulkhead keys public` prints, or a file
//! with that line.
//!
//! Refuses: to read more of a file than such a line may take.

use std::io;
use std::path::Path;

use actors::audit::note::NoteVerifier;
use actors::erasure::receipt::parse_key;
use storage::scratch;

/// Bytes of a file with a public key at most.
const FILE_BYTES_MAX: u64 = 4096;
/// What a key that does not name its node is taken for until its node is known.
const NAMELESS: &str = "nameless";

/// A public key that the operator vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust(String);

impl Trust {
    /// Reads an argument: a key, or the name of a file whose first line is one.
    ///
    /// # Errors
    /// What would be right, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(trust) = Self::of(text) {
            return Ok(trust);
        }
        match scratch::read_secret(Path::new(text), FILE_BYTES_MAX) {
            Ok(bytes) => {
                let line = std::str::from_utf8(&bytes).ok().and_then(|text| text.lines().next());
                line.and_then(Self::of).ok_or_else(|| {
                    "the file's first line is no public key: it has to be NAME+ID+KEY, as `bulkhead keys public` \
                     prints it"
                        .to_owned()
                })
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(format!("the file is larger than {FILE_BYTES_MAX} bytes: it holds no public key"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(
                "there is no such file; it takes a public key NAME+ID+KEY, as `bulkhead keys public` prints it, or \
                 a file with that line"
                    .to_owned(),
            ),
            Err(error) => Err(format!("the file cannot be read: {error}")),
        }
    }

    fn of(text: &str) -> Option<Self> {
        parse_key(text, NAMELESS).map(|_| Self(text.trim().to_owned()))
    }

    /// The key as it was given.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The key, for what that node signed.
    pub fn verifier(&self, origin: &str) -> Option<NoteVerifier> {
        parse_key(&self.0, origin)
    }

    /// The 32 bytes of the key.
    pub fn public_key(&self) -> Option<[u8; 32]> {
        self.verifier(NAMELESS).map(|key| key.public_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_or_a_file_with_one_is_read_and_anything_else_says_what_is_wanted() {
        let key = NoteVerifier::new("node.example/bulkhead", [7; 32]).expect("a key");
        let text = key.to_text();
        let trust = Trust::parse(&format!(" {text}\n")).expect("the key itself");
        assert_eq!((trust.text(), trust.public_key()), (text.as_str(), Some([7; 32])));
        assert_eq!(trust.verifier("another.example"), Some(key));

        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.pub");
        let name = path.to_str().expect("a path in UTF-8");
        std::fs::write(&path, format!("{text}\nand a remark\n")).expect("a file");
        assert_eq!(Trust::parse(name), Ok(trust));
        for (bytes, hint) in [
            (b"a remark\n".to_vec(), "first line"),
            (Vec::new(), "first line"),
            (vec![0xff; 32], "first line"),
            (vec![b'x'; 5000], "larger than 4096"),
        ] {
            std::fs::write(&path, bytes).expect("a file");
            let said = Trust::parse(name).expect_err(hint);
            assert!(said.contains(hint), "{said}");
        }
        assert!(Trust::parse("/dev/zero").expect_err("endless").contains("larger than"));
        assert!(Trust::parse("nobody").expect_err("no key").contains("no such file"));
        let changed = text.replacen("node", "mode", 1);
        assert!(Trust::parse(&changed).is_err(), "the name is part of it");
    }
}
