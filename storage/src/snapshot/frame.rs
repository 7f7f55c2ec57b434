//! Frames: how chunks stand in the file, and what each is sealed to.
//!
//! Refuses: a length that no chunk has, before anything of that length is held.

use aws_lc_rs::digest::Context;

use crate::record::Hash;
use crate::seal::OVERHEAD_BYTES;

use super::header::take;
use super::{HEADER_BYTES, ROW_BYTES_MAX};

const LABEL: &[u8] = b"bulkhead.seal.snapshot.1";
const AAD_BYTES: usize = LABEL.len() + HEADER_BYTES + 9;

/// How much of rows a chunk takes, unless one row is larger.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// The two lengths in front of a row's key and value.
const ROW_OVERHEAD_BYTES: usize = 16;
/// The most a chunk can be in clear.
pub(super) const CLEAR_BYTES_MAX: usize = ROW_BYTES_MAX + ROW_OVERHEAD_BYTES;
/// The length in front of a chunk's packed rows.
pub(super) const PACKED_AT: usize = 4;
/// What stands in front of a sealed chunk: its length and its kind.
pub(super) const FRAME_HEAD_BYTES: usize = 5;
/// The trailing hash.
pub(super) const CONTENT_BYTES: usize = 32;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rows = 0,
    /// The [`Totals`]: the last chunk.
    Totals = 1,
}

/// What is in front of a sealed chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: Kind,
    /// The sealed chunk's length.
    pub(super) bytes: usize,
}

impl FrameHead {
    pub(super) fn encode(&self) -> [u8; FRAME_HEAD_BYTES] {
        let length = u32::try_from(self.bytes).expect("a chunk is shorter than 4 GiB");
        let mut bytes = [0; FRAME_HEAD_BYTES];
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes[4] = self.kind as u8;
        bytes
    }

    /// Reads a frame's head; nothing if no chunk has that length or kind.
    pub(super) fn decode(bytes: [u8; FRAME_HEAD_BYTES]) -> Option<Self> {
        let [length @ .., kind] = bytes;
        let bytes = usize::try_from(u32::from_be_bytes(length)).ok()?;
        let rows_max = PACKED_AT + zstd::zstd_safe::compress_bound(CLEAR_BYTES_MAX);
        let (kind, is_possible) = match kind {
            0 => (Kind::Rows, bytes > OVERHEAD_BYTES && bytes <= rows_max + OVERHEAD_BYTES),
            1 => (Kind::Totals, bytes == Totals::BYTES + OVERHEAD_BYTES),
            _ => return None,
        };
        is_possible.then_some(Self { kind, bytes })
    }
}

/// What a chunk is sealed to: the snapshot, its place in it, and whether it is the last.
pub(super) fn aad(header: &[u8; HEADER_BYTES], number: u64, kind: Kind) -> [u8; AAD_BYTES] {
    let mut aad = [0; AAD_BYTES];
    let (label, rest) = aad.split_at_mut(LABEL.len());
    label.copy_from_slice(LABEL);
    rest[..HEADER_BYTES].copy_from_slice(header);
    rest[HEADER_BYTES..HEADER_BYTES + 8].copy_from_slice(&number.to_be_bytes());
    rest[HEADER_BYTES + 8] = kind as u8;
    aad
}

/// How long a row is in a chunk.
pub(super) fn row_bytes(key: &[u8], value: &[u8]) -> usize {
    ROW_OVERHEAD_BYTES + key.len() + value.len()
}

/// Adds a row to a chunk.
pub(super) fn push_row(chunk: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        chunk.extend_from_slice(&(part.len() as u64).to_be_bytes());
        chunk.extend_from_slice(part);
    }
}

/// Takes a row off the front of a chunk; nothing if there is none.
pub(super) fn take_row<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut part = || {
        let length = usize::try_from(u64::from_be_bytes(take(rest)?)).ok()?;
        let (part, behind) = rest.split_at_checked(length)?;
        *rest = behind;
        Some(part)
    };
    Some((part()?, part()?))
}

/// Empties a buffer, and gives back what one large row made it take.
pub(super) fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(2 * CHUNK_BYTES);
}

/// What a snapshot holds, counted while it is written and again while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) rows: u64,
    pub(super) clear_bytes: u64,
    pub(super) state: Hash,
}

impl Totals {
    pub(super) const BYTES: usize = 48;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.rows.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.clear_bytes.to_be_bytes());
        bytes[16..].copy_from_slice(&self.state);
        bytes
    }
}

/// Bytes on their way into or out of a file, hashed and counted.
pub(super) struct Tally {
    pub(super) digest: Context,
    pub(super) bytes: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { digest: Context::new(&aws_lc_rs::digest::SHA256), bytes: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_kinds_that_no_chunk_has_are_refused() {
        let head = |bytes: u32, kind: u8| {
            let mut head = [0; FRAME_HEAD_BYTES];
            head[..4].copy_from_slice(&bytes.to_be_bytes());
            head[4] = kind;
            FrameHead::decode(head)
        };
        assert_eq!(head(100, 0), Some(FrameHead { kind: Kind::Rows, bytes: 100 }));
        assert_eq!(head(76, 1), Some(FrameHead { kind: Kind::Totals, bytes: 76 }));
        for (bytes, kind) in [(0, 0), (28, 0), (u32::MAX, 0), (75, 1), (77, 1), (100, 2)] {
            assert_eq!(head(bytes, kind), None, "{bytes} {kind}");
        }
        for frame in [head(100, 0), head(76, 1)].into_iter().flatten() {
            assert_eq!(FrameHead::decode(frame.encode()), Some(frame));
        }
    }

    #[test]
    fn a_row_whose_lengths_reach_beyond_the_chunk_is_none() {
        let mut chunk = Vec::new();
        push_row(&mut chunk, b"key", b"value");
        assert_eq!(chunk.len(), row_bytes(b"key", b"value"));
        assert_eq!(take_row(&mut &chunk[..]), Some((&b"key"[..], &b"value"[..])));
        for cut in 0..chunk.len() {
            assert_eq!(take_row(&mut &chunk[..cut]), None);
        }
        for at in [0, 7, 11, 18] {
            let mut longer = chunk.clone();
            longer[at] = 0xff;
            assert_eq!(take_row(&mut &longer[..]), None);
        }
    }
}
