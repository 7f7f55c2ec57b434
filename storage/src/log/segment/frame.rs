//! Frames: how one record lies in a segment, and how bytes are read back without trusting them.
//!
//! ```text
//! length u32 · crc32c u32 · magic "BKr1" · tenant 16 · lsn u64 · epoch u64 · writer u64
//!        · prev 32 · hash 32 · sealed body
//! ```
//! All numbers are big-endian. `length` counts what follows the checksum; the checksum covers the
//! length and all that follows it. Zeros where a frame would begin are unused space. The magic is
//! there to find the next frame after damage.
//!
//! This module judges one frame at a time. It knows nothing of tails, order or what damage means.

use std::io;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::id::Id as _;
use crate::id::TenantId;
use crate::record::Hash;
use crate::record::Header;
use crate::record::Record;

/// Bytes before the frame's magic.
const PREFIX_BYTES: usize = 8;
const MAGIC: [u8; 4] = *b"BKr1";
/// Magic and record header.
const HEADER_BYTES: usize = 4 + 16 + 8 + 8 + 8 + 32 + 32;
/// What a segment's index footer begins with, in place of a frame.
pub(super) const FOOTER_MARK: [u8; 8] = *b"\xff\xff\xff\xffBKix";
/// The most a frame may hold. Larger records are refused on append, larger lengths are damage.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 20;

/// The bytes that a record with such a body takes in a segment.
pub(super) const fn frame_bytes(body_bytes: usize) -> usize {
    PREFIX_BYTES + HEADER_BYTES + body_bytes
}

/// Appends the frame of `record` to `out`. The body is copied once. The record must not exceed
/// [`FRAME_BYTES_MAX`].
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    let length = (HEADER_BYTES + record.body.len()) as u32;
    out.reserve(frame_bytes(record.body.len()));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(record.header.tenant.as_bytes());
    out.extend_from_slice(&record.header.lsn.to_be_bytes());
    out.extend_from_slice(&record.header.epoch.to_be_bytes());
    out.extend_from_slice(&record.header.writer.to_be_bytes());
    out.extend_from_slice(&record.header.prev);
    out.extend_from_slice(&record.header.hash);
    out.extend_from_slice(&record.body);
    let crc = checksum(&out[start..start + 4], &out[start + PREFIX_BYTES..]);
    out[start + 4..start + PREFIX_BYTES].copy_from_slice(&crc.to_be_bytes());
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), payload)
}

/// What lies at one place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A whole frame with a right checksum.
    Frame {
        /// The record's header.
        header: Header,
        /// The sealed body.
        body: &'a [u8],
        /// The whole frame's length.
        bytes: u64,
    },
    /// The beginning of the index footer.
    Footer,
    /// Space that was never written, or the end of the file.
    Unused,
    /// Something else.
    Bad {
        /// What the damaged frame says of itself, unproven: its header and where the next begins.
        claim: Option<(Header, u64)>,
    },
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn header_of(payload: &[u8]) -> Option<Header> {
    if array(payload, 0)? != MAGIC {
        return None;
    }
    let tenant = TenantId::from_bytes(array(payload, 4)?);
    let lsn = u64::from_be_bytes(array(payload, 20)?);
    let epoch = u64::from_be_bytes(array(payload, 28)?);
    let writer = u64::from_be_bytes(array(payload, 36)?);
    let prev: Hash = array(payload, 44)?;
    let hash: Hash = array(payload, 76)?;
    Some(Header { tenant, lsn, epoch, writer, prev, hash })
}

/// How many bytes the frame beginning with `prefix` says it has, if that can be.
fn claimed_bytes(prefix: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(array(prefix, 0)?) as usize;
    (HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length).then_some(PREFIX_BYTES + length)
}

/// Reads the frame at the beginning of `bytes`, which must reach past its end or to the file's end.
pub(super) fn decode(bytes: &[u8]) -> Found<'_> {
    if bytes.iter().take(PREFIX_BYTES).all(|byte| *byte == 0) {
        return Found::Unused;
    }
    if bytes.starts_with(&FOOTER_MARK) {
        return Found::Footer;
    }
    let Some(claimed) = claimed_bytes(bytes) else { return Found::Bad { claim: None } };
    let payload = bytes.get(PREFIX_BYTES..claimed.min(bytes.len())).unwrap_or_default();
    let Some(header) = header_of(payload) else { return Found::Bad { claim: None } };
    let wanted = array(bytes, 4).map(u32::from_be_bytes);
    if bytes.len() < claimed || Some(checksum(&bytes[..4], payload)) != wanted {
        return Found::Bad { claim: Some((header, claimed as u64)) };
    }
    Found::Frame { header, body: &payload[HEADER_BYTES..], bytes: claimed as u64 }
}

/// A buffered view of a segment file for frames at rising offsets.
pub(super) struct Window {
    file: Arc<dyn DiskFile>,
    start: u64,
    bytes: Vec<u8>,
    /// Where reading stops, though the file may go on.
    end: u64,
    read_ahead_bytes: usize,
}

impl Window {
    /// A view of `file` up to `end` that reads at least `read_ahead_bytes` at a time.
    pub(super) fn new(file: Arc<dyn DiskFile>, end: u64, read_ahead_bytes: usize) -> Self {
        Self { file, start: 0, bytes: Vec::new(), end, read_ahead_bytes }
    }

    /// At least `len` bytes at `offset`, fewer only at the end.
    fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(available);
        let buffered = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = buffered.filter(|skip| skip.saturating_add(len) <= self.bytes.len()) {
            return Ok(&self.bytes[skip..]);
        }
        let wanted = len.max(self.read_ahead_bytes).min(available);
        self.bytes.resize(wanted, 0);
        self.start = offset;
        match self.file.read_at(offset, &mut self.bytes) {
            Ok(read) => self.bytes.truncate(read),
            Err(error) => {
                self.bytes.clear();
                return Err(error);
            }
        }
        Ok(&self.bytes)
    }

    /// What lies at `offset`.
    pub(super) fn frame_at(&mut self, offset: u64) -> io::Result<Found<'_>> {
        let prefix = self.get(offset, PREFIX_BYTES)?;
        let claimed = claimed_bytes(prefix).unwrap_or(PREFIX_BYTES);
        Ok(decode(self.get(offset, claimed)?))
    }

    /// Whether only zeros lie from `offset` to the end.
    pub(super) fn is_unused_from(&mut self, mut offset: u64) -> io::Result<bool> {
        while offset < self.end {
            let bytes = self.get(offset, 1)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += bytes.len() as u64;
        }
        Ok(true)
    }

    /// The first place at or after `offset` with a whole frame or the footer; the end if none.
    pub(super) fn next_whole(&mut self, mut offset: u64) -> io::Result<u64> {
        while offset < self.end {
            let bytes = self.get(offset, PREFIX_BYTES + MAGIC.len())?;
            if bytes.len() < PREFIX_BYTES {
                break;
            }
            // The magics are looked for first: a checksum at every byte would take for ever.
            let candidate = bytes.windows(PREFIX_BYTES + MAGIC.len()).position(|window| {
                window.starts_with(&FOOTER_MARK) || window[PREFIX_BYTES..] == MAGIC
            });
            let Some(skip) = candidate else {
                let checked = bytes.len().saturating_sub(PREFIX_BYTES + MAGIC.len() - 1);
                offset += checked.max(1) as u64;
                continue;
            };
            offset += skip as u64;
            if matches!(self.frame_at(offset)?, Found::Frame { .. } | Found::Footer) {
                return Ok(offset);
            }
            offset += 1;
        }
        Ok(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::any;
    use proptest::prop_assert;
    use proptest::prop_assert_eq;
    use proptest::proptest;

    #[test]
    fn a_frame_cut_at_any_byte_is_not_whole() {
        let mut bytes = Vec::new();
        encode(&Record::new(TenantId::PLATFORM, 1, 1, 1, [0; 32], vec![1; 9]), &mut bytes);
        for len in 0..bytes.len() {
            assert!(!matches!(decode(&bytes[..len]), Found::Frame { .. }), "cut to {len}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_as_written(
            tenant in any::<[u8; 16]>(),
            numbers in any::<[u64; 3]>(),
            prev in any::<[u8; 32]>(),
            body in proptest::collection::vec(any::<u8>(), 0..2_000),
            after in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let [lsn, epoch, writer] = numbers;
            let tenant = TenantId::from_bytes(tenant);
            let record = Record::new(tenant, lsn, epoch, writer, prev, body);
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            let length = bytes.len() as u64;
            prop_assert_eq!(bytes.len(), frame_bytes(record.body.len()));
            bytes.extend(after);
            prop_assert_eq!(
                decode(&bytes),
                Found::Frame { header: record.header, body: &record.body, bytes: length }
            );
        }

        #[test]
        fn a_changed_or_shortened_frame_is_never_whole(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<proptest::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let record = Record::new(TenantId::PLATFORM, 1, 1, 1, [0; 32], body);
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            let at = at.index(bytes.len());
            let is_whole = |bytes: &[u8]| matches!(decode(bytes), Found::Frame { .. });
            prop_assert!(!is_whole(&bytes[..at]));
            bytes[at] ^= flip;
            prop_assert!(!is_whole(&bytes));
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            decode(&bytes);
        }
    }
}
