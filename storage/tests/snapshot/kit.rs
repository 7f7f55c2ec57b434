//! What the tests share: keys, rows, records, and a file taken apart and put together again.

use std::io::Read;

use aws_lc_rs::digest::{SHA256, digest};
use serde_bytes::ByteBuf;
use storage::id::{Id, TenantId};
use storage::log::Tail;
use storage::record::{Body, Op, Record};
use storage::seal::{DataKey, SystemRandom, TenantKeys};
use storage::snapshot::{
    HEADER_BYTES, Row, SnapshotError, SnapshotHeader, SnapshotReader, SnapshotWriter, StateHash,
    Summary,
};

pub const ADA: TenantId = TenantId::PLATFORM;

pub fn keys(tenant: TenantId) -> TenantKeys {
    TenantKeys::new(tenant, &DataKey::generate(&SystemRandom).unwrap())
}

pub fn bob() -> TenantId {
    TenantId::from_bytes([0xb0; 16])
}

pub fn header(tenant: TenantId, lsn: u64) -> SnapshotHeader {
    SnapshotHeader {
        tenant,
        lsn,
        epoch: 1,
        head: [lsn as u8 + 1; 32],
        since_lsn: 0,
        at_min_ms: 1_000,
        at_max_ms: 2_000,
    }
}

pub fn row(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Row {
    (key.as_ref().into(), value.as_ref().into())
}

/// Rows that fill `chunks` chunks, yet make a small file.
pub fn rows_of_chunks(chunks: u8) -> Vec<Row> {
    (0..chunks).map(|n| row([b'f', n], vec![n; 200_000])).collect()
}

pub fn state_of(rows: &[Row]) -> [u8; 32] {
    let mut state = StateHash::new();
    rows.iter().for_each(|(key, value)| state.push(key, value));
    state.finish()
}

pub fn write(keys: &TenantKeys, header: SnapshotHeader, rows: &[Row]) -> (Summary, Vec<u8>) {
    let mut writer = SnapshotWriter::new(Vec::new(), keys, header).unwrap();
    for (key, value) in rows {
        writer.push(key, value).unwrap();
    }
    writer.finish().unwrap()
}

/// What comes out of a file: the rows before the end or the fault, and which of the two it was.
pub fn read(input: impl Read, keys: &TenantKeys) -> (Vec<Row>, Result<Summary, SnapshotError>) {
    let mut rows = Vec::new();
    let mut reader = match SnapshotReader::open(input, keys) {
        Ok(reader) => reader,
        Err(error) => return (rows, Err(error)),
    };
    loop {
        match reader.next_row() {
            Ok(Some(row)) => rows.push(row),
            Ok(None) => return (rows, Ok(*reader.summary().unwrap())),
            Err(error) => {
                assert!(reader.summary().is_none(), "a refused snapshot has a summary");
                assert!(matches!(reader.next_row(), Err(SnapshotError::Stopped)));
                return (rows, Err(error));
            }
        }
    }
}

/// A file in its parts: header, chunks with what stands in front of them, trailing hash.
pub struct Parts {
    pub header: Vec<u8>,
    pub chunks: Vec<Vec<u8>>,
}

impl Parts {
    pub fn of(file: &[u8]) -> Self {
        let (header, rest) = file.split_at(HEADER_BYTES);
        let (mut rest, _) = rest.split_at(rest.len() - 32);
        let mut chunks = Vec::new();
        while let Some(length) = rest.first_chunk::<4>() {
            let (chunk, behind) = rest.split_at(5 + u32::from_be_bytes(*length) as usize);
            chunks.push(chunk.to_vec());
            rest = behind;
        }
        Self { header: header.to_vec(), chunks }
    }

    /// Puts the parts together, with the right hash behind them.
    pub fn join(&self) -> Vec<u8> {
        with_hash([&self.header[..], &self.chunks.concat()].concat())
    }
}

/// Adds the right trailing hash.
pub fn with_hash(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = digest(&SHA256, &bytes);
    bytes.extend_from_slice(content.as_ref());
    bytes
}

/// Makes a header's checksum right again.
pub fn with_crc(header: &mut [u8]) {
    let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
}

/// The record that follows `tail`.
pub fn record(
    keys: &TenantKeys,
    tail: Tail,
    at_ms: u64,
    changes: &[(Vec<u8>, Option<Vec<u8>>)],
) -> Record {
    let op = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| Op {
        key: ByteBuf::from(key.clone()),
        value: value.clone().map(ByteBuf::from),
    };
    let body = Body { at_ms, ops: changes.iter().map(op).collect() };
    let (lsn, epoch) = (tail.lsn + 1, tail.epoch.max(1));
    let sealed = keys.seal_record(lsn, epoch, &body).unwrap();
    Record::new(keys.tenant(), lsn, epoch, 7, tail.hash, sealed)
}

/// The end of a history whose last record this is.
pub fn tail_of(record: &Record) -> Tail {
    Tail { lsn: record.header.lsn, epoch: record.header.epoch, hash: record.header.hash }
}
