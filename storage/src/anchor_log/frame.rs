//! The frames of an anchor file: length, checksum, payload.
//!
//! Refuses to skip a bad frame: what comes after one is never read as data.

use std::io;

pub(super) const MAGIC: &[u8; 8] = b"BKANCH1\n";
const FRAME_HEAD_BYTES: usize = 8;

/// Appends a frame.
pub(super) fn push_frame(bytes: &mut Vec<u8>, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    Ok(())
}

/// The first frame that is not whole.
pub(super) struct BadFrame {
    /// Where it begins.
    pub(super) offset: u64,
    /// No whole frame comes after it, as after a crash in the middle of a write.
    pub(super) is_torn: bool,
}

/// The frames of a file with their offsets, up to the first that is not whole.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
    is_over: bool,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.starts_with(MAGIC).then_some(Self { bytes, offset: MAGIC.len(), is_over: false })
    }

    /// The payload of the frame that `rest` begins with, if that is whole.
    fn payload(rest: &'a [u8]) -> Option<&'a [u8]> {
        let (head, body) = rest.split_first_chunk::<FRAME_HEAD_BYTES>()?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let payload = body.get(..length).filter(|payload| !payload.is_empty())?;
        (crc32c::crc32c(payload) == u32::from_le_bytes([c0, c1, c2, c3])).then_some(payload)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(u64, &'a [u8]), BadFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.offset..];
        if self.is_over || rest.is_empty() {
            return None;
        }
        let offset = self.offset as u64;
        if let Some(payload) = Self::payload(rest) {
            self.offset += FRAME_HEAD_BYTES + payload.len();
            return Some(Ok((offset, payload)));
        }
        self.is_over = true;
        let is_torn = (1..rest.len()).all(|at| Self::payload(&rest[at..]).is_none());
        Some(Err(BadFrame { offset, is_torn }))
    }
}
