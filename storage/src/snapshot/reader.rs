//! Reading a snapshot, row by row, and checking one without keys.
//!
//! Every row that comes out is the owner's; that none is missing is known only once
//! [`SnapshotReader::next_row`] has answered `None`. What is made from the rows counts only then.
//!
//! Refuses: to go on after a fault.

use std::cmp::Ordering;
use std::io::Read;
use std::sync::Arc;

use crate::record::Hash;
use crate::seal::{Cipher, OVERHEAD_BYTES, SealError, TenantKeys};

use super::frame::{CLEAR_BYTES_MAX, FrameHead, Kind, Totals, aad, empty, take_row};
use super::header::take;
use super::input::Input;
use super::{Damage, HEADER_BYTES, Row, SnapshotError, SnapshotHeader, StateHash, Summary};

enum Stage<R> {
    Reading(Input<R>),
    Ended(Summary),
    Stopped,
}

/// A snapshot being read.
pub struct SnapshotReader<R: Read> {
    stage: Stage<R>,
    header: SnapshotHeader,
    header_bytes: [u8; HEADER_BYTES],
    cipher: Cipher,
    decompressor: zstd::bulk::Decompressor<'static>,
    /// The number of the next chunk.
    number: u64,
    sealed: Vec<u8>,
    packed: Vec<u8>,
    /// The rows of the chunk before, and how many bytes of them were given out.
    clear: Vec<u8>,
    given: usize,
    last_key: Option<Arc<[u8]>>,
    rows: u64,
    clear_bytes: u64,
    state: StateHash,
}

impl<R: Read> std::fmt::Debug for SnapshotReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotReader({} at {})", self.header.tenant, self.header.lsn)
    }
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header. The input is read in large pieces and a few small ones between them: a
    /// buffer pays for itself where each read is a call.
    ///
    /// # Errors
    /// [`SnapshotError::WrongTenant`] if the snapshot is not of the keys' tenant, and what
    /// [`SnapshotHeader::decode`] says.
    pub fn open(input: R, keys: &TenantKeys) -> Result<Self, SnapshotError> {
        let (input, header, header_bytes) = Input::open(input)?;
        if header.tenant != keys.tenant() {
            return Err(SnapshotError::WrongTenant { tenant: header.tenant });
        }
        Ok(Self {
            stage: Stage::Reading(input),
            header,
            header_bytes,
            cipher: keys.snapshot_cipher(),
            decompressor: zstd::bulk::Decompressor::new()?,
            number: 0,
            sealed: Vec::new(),
            packed: Vec::new(),
            clear: Vec::new(),
            given: 0,
            last_key: None,
            rows: 0,
            clear_bytes: 0,
            state: StateHash::new(),
        })
    }

    /// What it is a snapshot of. Proven only by the first row or the end that is read.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// What the whole snapshot holds, once `None` was read.
    pub fn summary(&self) -> Option<&Summary> {
        match &self.stage {
            Stage::Ended(summary) => Some(summary),
            Stage::Reading(_) | Stage::Stopped => None,
        }
    }

    /// The next row in key order; `None` once the totals, the trailing hash and the end were found
    /// right.
    ///
    /// # Errors
    /// After any error every later call is [`SnapshotError::Stopped`], and the rows that came
    /// before are not the whole state.
    pub fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        match std::mem::replace(&mut self.stage, Stage::Stopped) {
            Stage::Stopped => Err(SnapshotError::Stopped),
            Stage::Ended(summary) => {
                self.stage = Stage::Ended(summary);
                Ok(None)
            }
            Stage::Reading(mut input) => {
                if self.given == self.clear.len() {
                    let head = input.frame_head()?;
                    input.chunk(head, &mut self.sealed)?;
                    self.open_chunk(head)?;
                    if head.kind == Kind::Totals {
                        self.stage = Stage::Ended(self.end(input)?);
                        return Ok(None);
                    }
                    self.unpack()?;
                }
                let row = self.take_row()?;
                self.stage = Stage::Reading(input);
                Ok(Some(row))
            }
        }
    }

    /// Opens the sealed chunk into `packed`.
    fn open_chunk(&mut self, head: FrameHead) -> Result<(), SnapshotError> {
        let aad = aad(&self.header_bytes, self.number, head.kind);
        let length = head.bytes.checked_sub(OVERHEAD_BYTES).ok_or(SealError::Tampered)?;
        empty(&mut self.packed);
        self.packed.resize(length, 0);
        self.cipher.open(&aad, &self.sealed, &mut self.packed)?;
        self.number += 1;
        Ok(())
    }

    /// Unpacks the rows of the chunk just opened.
    fn unpack(&mut self) -> Result<(), SnapshotError> {
        let mut packed = &self.packed[..];
        let length = take(&mut packed).map(u32::from_be_bytes).ok_or(Damage::Rows)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| (1..=CLEAR_BYTES_MAX).contains(length))
            .ok_or(Damage::Rows)?;
        empty(&mut self.clear);
        self.given = 0;
        self.clear.reserve_exact(length);
        let unpacked = self.decompressor.decompress_to_buffer(packed, &mut self.clear);
        match unpacked {
            Ok(unpacked) if unpacked == length => Ok(()),
            _ => Err(Damage::Rows.into()),
        }
    }

    fn take_row(&mut self) -> Result<Row, SnapshotError> {
        let mut rest = &self.clear[self.given..];
        let (key, value) = take_row(&mut rest).ok_or(Damage::Rows)?;
        if self.last_key.as_deref().is_some_and(|last| key.cmp(last) != Ordering::Greater) {
            return Err(SnapshotError::KeysOutOfOrder);
        }
        self.state.push(key, value);
        self.rows += 1;
        self.clear_bytes += (key.len() + value.len()) as u64;
        let row: Row = (key.into(), value.into());
        self.given = self.clear.len() - rest.len();
        self.last_key = Some(Arc::clone(&row.0));
        Ok(row)
    }

    /// Compares what was read with the totals just opened, and ends the reading.
    fn end(&mut self, input: Input<R>) -> Result<Summary, SnapshotError> {
        let state = std::mem::take(&mut self.state).finish();
        let totals = Totals { rows: self.rows, clear_bytes: self.clear_bytes, state };
        if self.packed != totals.encode() {
            return Err(Damage::Totals.into());
        }
        let (content, file_bytes) = input.end()?;
        Ok(Summary {
            header: self.header,
            rows: totals.rows,
            clear_bytes: totals.clear_bytes,
            file_bytes,
            state,
            content,
        })
    }
}

/// Checks a snapshot without keys: its header, its frames, its trailing hash, and that nothing stands
/// behind. Gives the header, the trailing hash and the file's length.
///
/// This shows that the bytes are those that were written, to whoever knows the hash from elsewhere;
/// whether they are the tenant's only the keys can show.
pub fn verify<R: Read>(input: R) -> Result<(SnapshotHeader, Hash, u64), SnapshotError> {
    let (mut input, header, _) = Input::open(input)?;
    let mut chunk = Vec::new();
    loop {
        let head = input.frame_head()?;
        input.chunk(head, &mut chunk)?;
        if head.kind == Kind::Totals {
            let (content, bytes) = input.end()?;
            return Ok((header, content, bytes));
        }
    }
}
