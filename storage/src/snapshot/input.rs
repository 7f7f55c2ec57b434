//! Reading a snapshot's bytes, with or without keys: header, frames, trailing hash.
//!
//! Refuses: an end too early, an end too late, and bytes that are not those hashed. Holds no more
//! than really comes, whatever a length says.

use std::io;
use std::io::Read;

use super::frame::{CONTENT_BYTES, FRAME_HEAD_BYTES, FrameHead, Tally, empty};
use super::{Damage, HEADER_BYTES, SnapshotError, SnapshotHeader, finish};
use crate::record::{GENESIS, Hash};

pub(super) struct Input<R> {
    input: R,
    tally: Tally,
}

impl<R: Read> Input<R> {
    /// Reads the header.
    pub(super) fn open(
        input: R,
    ) -> Result<(Self, SnapshotHeader, [u8; HEADER_BYTES]), SnapshotError> {
        let mut opened = Self { input, tally: Tally::new() };
        let mut bytes = [0; HEADER_BYTES];
        opened.fill(&mut bytes)?;
        let header = SnapshotHeader::decode(&bytes)?;
        Ok((opened, header, bytes))
    }

    /// Reads what stands in front of the next chunk.
    pub(super) fn frame_head(&mut self) -> Result<FrameHead, SnapshotError> {
        let mut bytes = [0; FRAME_HEAD_BYTES];
        self.fill(&mut bytes)?;
        Ok(FrameHead::decode(bytes).ok_or(Damage::Frame)?)
    }

    /// Reads a sealed chunk into `chunk`, which grows with what comes.
    pub(super) fn chunk(
        &mut self,
        head: FrameHead,
        chunk: &mut Vec<u8>,
    ) -> Result<(), SnapshotError> {
        empty(chunk);
        let read = (&mut self.input).take(head.bytes as u64).read_to_end(chunk)?;
        if read < head.bytes {
            return Err(Damage::Cut.into());
        }
        self.tally.push(chunk);
        Ok(())
    }

    /// Reads the trailing hash behind the last chunk, and makes sure that it is right and the end.
    /// Gives it, and the length of the whole file.
    pub(super) fn end(mut self) -> Result<(Hash, u64), SnapshotError> {
        let mut told = GENESIS;
        read_exact(&mut self.input, &mut told)?;
        let content = finish(self.tally.digest);
        if told != content {
            return Err(Damage::Content.into());
        }
        let mut behind = Vec::new();
        match self.input.take(1).read_to_end(&mut behind)? {
            0 => Ok((content, self.tally.bytes + CONTENT_BYTES as u64)),
            _ => Err(Damage::Trailing.into()),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        read_exact(&mut self.input, bytes)?;
        self.tally.push(bytes);
        Ok(())
    }
}

fn read_exact(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), SnapshotError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Damage::Cut.into(),
        _ => error.into(),
    })
}
