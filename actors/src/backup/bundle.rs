//! A bundle: several small files in one object, such as all wrapped keys of a node.
//!
//! ```text
//! magic "BKfiles1" · files · u16 0
//! file   length of name u16 BE · name · length u64 BE · bytes
//! ```
//! It has no checksum of its own: the manifest that names it has its digest. Refuses names that could
//! lead out of the directory the files are written to.

use std::io::{self, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};

use storage::disk::CopyFile;

use super::digest::Digest;

const MAGIC: &[u8; 8] = b"BKfiles1";
/// Bytes of one file at most.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 255;

/// Why a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Its bytes cannot be had.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It is not of the form.
    #[error("it is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes a bundle and hashes it on the way.
pub struct BundleWriter<W> {
    out: W,
    digest: Context,
    bytes: u64,
}

impl<W: Write> BundleWriter<W> {
    /// Begins a bundle.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, digest: Context::new(&SHA256), bytes: 0 };
        writer.push(MAGIC)?;
        Ok(writer)
    }

    /// Adds a file.
    ///
    /// # Errors
    /// If the output fails, or a reader would refuse the file.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !is_name(name) || bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = u16::try_from(name.len()).map_err(io::Error::other)?;
        self.push(&length.to_be_bytes())?;
        self.push(name.as_bytes())?;
        self.push(&(bytes.len() as u64).to_be_bytes())?;
        self.push(bytes)
    }

    /// Ends the bundle: the output, the digest of its bytes and how many they are.
    pub fn finish(mut self) -> io::Result<(W, Digest, u64)> {
        self.push(&0u16.to_be_bytes())?;
        self.out.flush()?;
        Ok((self.out, Digest(super::hash_of(self.digest)), self.bytes))
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Hands every file of a bundle to `visit`: its name and its bytes.
///
/// # Errors
/// [`BundleError`]; and whatever `visit` says.
pub fn read<E: From<BundleError>>(mut input: impl Read, visit: CopyFile<'_, E>) -> Result<(), E> {
    if &take::<8>(&mut input)? != MAGIC {
        return Err(damaged("it does not begin like one").into());
    }
    loop {
        let length = usize::from(u16::from_be_bytes(take(&mut input)?));
        if length == 0 {
            let mut rest = [0];
            let read = input.read(&mut rest).map_err(BundleError::Io)?;
            return if read == 0 { Ok(()) } else { Err(damaged("something is behind it").into()) };
        }
        if length > NAME_BYTES_MAX {
            return Err(damaged("a name is too long").into());
        }
        let mut name = vec![0; length];
        fill(&mut input, &mut name)?;
        let name = String::from_utf8(name).ok().filter(|name| is_name(name));
        let name = name.ok_or_else(|| damaged("a name is none"))?;
        let bytes = u64::from_be_bytes(take(&mut input)?);
        if bytes > FILE_BYTES_MAX {
            return Err(damaged("a file is too large").into());
        }
        // Grows with what is really there, whatever the length says.
        let mut content = Vec::new();
        let read = input.by_ref().take(bytes).read_to_end(&mut content);
        if read.map_err(BundleError::Io)? as u64 != bytes {
            return Err(damaged("it is cut short").into());
        }
        visit(&name, &content)?;
    }
}

fn damaged(what: &'static str) -> BundleError {
    BundleError::Damaged { what }
}

fn take<const N: usize>(input: &mut impl Read) -> Result<[u8; N], BundleError> {
    let mut bytes = [0; N];
    fill(input, &mut bytes)?;
    Ok(bytes)
}

fn fill(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), BundleError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is cut short"),
        _ => error.into(),
    })
}

/// Parts of `a-z0-9._-` between single slashes, none of which begins with a dot.
fn is_name(name: &str) -> bool {
    let sane = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(sane);
    name.len() <= NAME_BYTES_MAX && name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = BundleWriter::new(Vec::new()).unwrap();
        writer.add("tenants/07/tn_x.key", b"wrapped").unwrap();
        writer.add("signing.sealed", b"").unwrap();
        let (bytes, digest, length) = writer.finish().unwrap();
        assert_eq!((digest, length), (Digest::of(&bytes), bytes.len() as u64));
        bytes
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, BundleError> {
        let mut files = Vec::new();
        read(bytes, &mut |name, content| {
            files.push((name.to_owned(), content.to_vec()));
            Ok::<_, BundleError>(())
        })
        .map(|()| files)
    }

    #[test]
    fn files_come_back_as_they_went_in() {
        let files = read_all(&sample()).unwrap();
        let wanted = [("tenants/07/tn_x.key", &b"wrapped"[..]), ("signing.sealed", &b""[..])];
        assert_eq!(files, wanted.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())));
    }

    #[test]
    fn every_truncation_and_anything_behind_the_end_is_refused() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(read_all(&bytes[..length]).is_err(), "{length}");
        }
        assert!(read_all(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_neither_written_nor_read() {
        for name in ["", "/kek", "../kek", "a/../b", "a//b", "a/", ".hidden", "A", "a\\b", "a b"] {
            let mut writer = BundleWriter::new(Vec::new()).unwrap();
            assert!(writer.add(name, b"x").is_err(), "{name:?}");
            let mut forged = MAGIC.to_vec();
            forged.extend_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
            forged.extend_from_slice(name.as_bytes());
            forged.extend_from_slice(&[0; 8]);
            forged.extend_from_slice(&[0; 2]);
            assert!(read_all(&forged).is_err(), "{name:?}");
        }
    }
}
