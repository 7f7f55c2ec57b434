//! Writing a snapshot, row by row.
//!
//! Refuses: rows out of key order, and to finish a file of which a part could not be written.

use std::io::Write;

use crate::seal::{Cipher, TenantKeys};

use super::frame::{
    CHUNK_BYTES, CONTENT_BYTES, FrameHead, Kind, PACKED_AT, Tally, Totals, aad, empty, push_row,
    row_bytes,
};
use super::{
    HEADER_BYTES, ROW_BYTES_MAX, SnapshotError, SnapshotHeader, StateHash, Summary, finish,
};

/// zstd's default: a snapshot is written once, off the way to an answer, and kept for long.
const ZSTD_LEVEL: i32 = 3;

/// A snapshot being written. It is none before [`finish`](Self::finish).
pub struct SnapshotWriter<W: Write> {
    out: W,
    tally: Tally,
    header: SnapshotHeader,
    header_bytes: [u8; HEADER_BYTES],
    cipher: Cipher,
    compressor: zstd::bulk::Compressor<'static>,
    /// The number of the chunk that is being filled.
    number: u64,
    /// Its rows.
    clear: Vec<u8>,
    packed: Vec<u8>,
    last_key: Option<Vec<u8>>,
    rows: u64,
    clear_bytes: u64,
    state: StateHash,
    is_stopped: bool,
}

impl<W: Write> std::fmt::Debug for SnapshotWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotWriter({} at {})", self.header.tenant, self.header.lsn)
    }
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins a snapshot in `out`, which takes few and large writes.
    ///
    /// # Errors
    /// [`SnapshotError::WrongTenant`] if the header is not that of the keys' tenant,
    /// [`SnapshotError::ImpossibleHeader`] if it contradicts itself.
    pub fn new(out: W, keys: &TenantKeys, header: SnapshotHeader) -> Result<Self, SnapshotError> {
        if header.tenant != keys.tenant() {
            return Err(SnapshotError::WrongTenant { tenant: header.tenant });
        }
        if !header.is_possible() {
            return Err(SnapshotError::ImpossibleHeader);
        }
        let header_bytes = header.encode();
        let mut writer = Self {
            out,
            tally: Tally::new(),
            header,
            header_bytes,
            cipher: keys.snapshot_cipher(),
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            number: 0,
            clear: Vec::new(),
            packed: Vec::new(),
            last_key: None,
            rows: 0,
            clear_bytes: 0,
            state: StateHash::new(),
            is_stopped: false,
        };
        writer.write(&header_bytes)?;
        Ok(writer)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`SnapshotError::KeysOutOfOrder`] unless `key` is behind all keys before, and
    /// [`SnapshotError::RowTooLarge`] beyond [`ROW_BYTES_MAX`]: nothing was added then.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        if self.is_stopped {
            return Err(SnapshotError::Stopped);
        }
        if self.last_key.as_ref().is_some_and(|last| key <= last.as_slice()) {
            return Err(SnapshotError::KeysOutOfOrder);
        }
        let bytes = key.len().saturating_add(value.len());
        if bytes > ROW_BYTES_MAX {
            return Err(SnapshotError::RowTooLarge { bytes });
        }
        if self.clear.len() + row_bytes(key, value) > CHUNK_BYTES {
            self.write_rows()?;
        }
        push_row(&mut self.clear, key, value);
        self.state.push(key, value);
        self.rows += 1;
        self.clear_bytes += bytes as u64;
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        Ok(())
    }

    /// Writes what is left, the totals and the trailing hash, and flushes.
    ///
    /// # Errors
    /// [`SnapshotError::Stopped`] if an earlier write failed.
    pub fn finish(mut self) -> Result<(Summary, W), SnapshotError> {
        if self.is_stopped {
            return Err(SnapshotError::Stopped);
        }
        self.write_rows()?;
        let state = std::mem::take(&mut self.state).finish();
        let totals = Totals { rows: self.rows, clear_bytes: self.clear_bytes, state };
        self.write_chunk(Kind::Totals, &totals.encode())?;
        let content = finish(self.tally.digest);
        self.out.write_all(&content)?;
        self.out.flush()?;
        let summary = Summary {
            header: self.header,
            rows: totals.rows,
            clear_bytes: totals.clear_bytes,
            file_bytes: self.tally.bytes + CONTENT_BYTES as u64,
            state,
            content,
        };
        Ok((summary, self.out))
    }

    /// Writes the rows collected as one chunk, if there are any.
    fn write_rows(&mut self) -> Result<(), SnapshotError> {
        if self.clear.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.clear.len()).expect("a chunk is shorter than 4 GiB");
        let mut packed = std::mem::take(&mut self.packed);
        packed.extend_from_slice(&length.to_be_bytes());
        packed.resize(PACKED_AT + zstd::zstd_safe::compress_bound(self.clear.len()), 0);
        let packed_bytes =
            self.compressor.compress_to_buffer(&self.clear, &mut packed[PACKED_AT..])?;
        self.write_chunk(Kind::Rows, &packed[..PACKED_AT + packed_bytes])?;
        self.number += 1;
        empty(&mut self.clear);
        empty(&mut packed);
        self.packed = packed;
        Ok(())
    }

    fn write_chunk(&mut self, kind: Kind, plain: &[u8]) -> Result<(), SnapshotError> {
        let aad = aad(&self.header_bytes, self.number, kind);
        let sealed = self.cipher.seal(&aad, plain)?;
        self.write(&FrameHead { kind, bytes: sealed.len() }.encode())?;
        self.write(&sealed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        // How much of a failed write is in the file cannot be known.
        self.is_stopped = true;
        self.out.write_all(bytes)?;
        self.is_stopped = false;
        self.tally.push(bytes);
        Ok(())
    }
}
