//! The key files' bytes: `magic (4) · version (1) · body · crc32c (4, LE)`.
//!
//! A wrapped file's body is `KEK id (8) · sealed` in version 1. Version 2 is a data key that a
//! customer holds: `KEK id (8) · spec length u16 · spec · sealed`, where the spec says in MessagePack
//! which source the inner wrapping needs.
//!
//! Refuses: what was cut, changed, of another kind, or of a newer release.

use std::path::Path;

use super::KeyError;
use super::source::{KekId, SourceSpec};

pub(super) const KEK_MAGIC: &[u8; 4] = b"BKEK";
pub(super) const TENANT_MAGIC: &[u8; 4] = b"BKTK";
pub(super) const SECRET_MAGIC: &[u8; 4] = b"BKNS";
pub(super) const SEEN_MAGIC: &[u8; 4] = b"BKKS";
pub(super) const HEADER_BYTES: usize = 4 + 1;
const CRC_BYTES: usize = 4;
const FIRST: u8 = 1;
const SECOND: u8 = 2;

/// `magic · version · body · crc32c` of all before.
pub(super) fn framed(magic: &[u8; 4], version: u8, body: &[u8]) -> Vec<u8> {
    // Room for all of it from the start: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + CRC_BYTES);
    bytes.extend_from_slice(magic);
    bytes.push(version);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The version, up to `newest`, and the body of a framed file.
pub(super) fn checked<'a>(
    path: &Path,
    magic: &[u8; 4],
    newest: u8,
    bytes: &'a [u8],
) -> Result<(u8, &'a [u8]), KeyError> {
    let damaged = || KeyError::Damaged { path: path.to_owned() };
    let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(damaged)?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let rest = content.strip_prefix(magic).ok_or_else(damaged)?;
    match rest.split_first() {
        Some((&version, body)) if (FIRST..=newest).contains(&version) => Ok((version, body)),
        Some((&version, _)) if version > newest => {
            Err(KeyError::NewerVersion { path: path.to_owned(), version, newest })
        }
        _ => Err(damaged()),
    }
}

/// A wrapped file, taken apart.
pub(super) struct Wrapped<'a> {
    pub(super) kek: KekId,
    /// The description of the customer's source, if a customer holds the key.
    pub(super) spec: Option<&'a [u8]>,
    pub(super) sealed: &'a [u8],
}

impl<'a> Wrapped<'a> {
    pub(super) fn parse(path: &Path, magic: &[u8; 4], bytes: &'a [u8]) -> Result<Self, KeyError> {
        let damaged = || KeyError::Damaged { path: path.to_owned() };
        let newest = if magic == TENANT_MAGIC { SECOND } else { FIRST };
        let (version, body) = checked(path, magic, newest, bytes)?;
        let (kek, rest) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (spec, sealed) = match version {
            FIRST => (None, rest),
            _ => {
                let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
                let length = usize::from(u16::from_be_bytes(*length));
                let (spec, sealed) = rest.split_at_checked(length).ok_or_else(damaged)?;
                (Some(spec), sealed)
            }
        };
        Ok(Self { kek: KekId(*kek), spec, sealed })
    }

    /// What the sealed part is bound to.
    pub(super) fn aad(magic: &[u8; 4], kek: KekId, spec: Option<&[u8]>, name: &str) -> Vec<u8> {
        match spec {
            None => [&magic[..], &[FIRST], &kek.0, name.as_bytes()].concat(),
            Some(spec) => {
                let head = [&magic[..], &[SECOND], &kek.0, &length(spec)].concat();
                [&head[..], spec, name.as_bytes()].concat()
            }
        }
    }

    /// The file's bytes.
    pub(super) fn bytes(&self, magic: &[u8; 4]) -> Vec<u8> {
        match self.spec {
            None => framed(magic, FIRST, &[&self.kek.0[..], self.sealed].concat()),
            Some(spec) => {
                let body = [&self.kek.0[..], &length(spec), spec, self.sealed].concat();
                framed(magic, SECOND, &body)
            }
        }
    }
}

fn length(spec: &[u8]) -> [u8; 2] {
    u16::try_from(spec.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// A source's description as it rests in a file; nothing if it is too long for one.
pub(super) fn encode_spec(spec: &SourceSpec) -> Option<Vec<u8>> {
    let bytes = rmp_serde::to_vec(spec).ok()?;
    (bytes.len() <= usize::from(u16::MAX)).then_some(bytes)
}

/// Reads what [`encode_spec`] wrote.
pub(super) fn decode_spec(path: &Path, bytes: &[u8]) -> Result<SourceSpec, KeyError> {
    rmp_serde::from_slice(bytes).map_err(|_| KeyError::Damaged { path: path.to_owned() })
}
