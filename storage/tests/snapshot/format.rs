//! What is written comes back; what cannot be a snapshot is not written.

use std::io::{self, Read, Write};

use storage::record::GENESIS;
use storage::seal::{DataKey, Random, SealError, TenantKeys};
use storage::snapshot::{
    NO_STAMP, ROW_BYTES_MAX, Row, SnapshotError, SnapshotHeader, SnapshotWriter, verify,
};

use crate::kit::{ADA, Parts, bob, header, keys, read, row, rows_of_chunks, state_of, write};

const GOLDEN: &str = include_str!("../data/snapshot-1.golden");

/// Gives one byte at a time, and is interrupted before each.
struct Dripping<'a> {
    bytes: &'a [u8],
    is_interrupted: bool,
}

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_interrupted = !self.is_interrupted;
        if self.is_interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(1);
        self.bytes.read(&mut buffer[..length])
    }
}

/// Takes so many writes, then fails once, then takes all.
#[derive(Default)]
struct Failing {
    writes_left: usize,
    largest: usize,
    has_failed: bool,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.largest = self.largest.max(bytes.len());
        if self.writes_left == 0 && !self.has_failed {
            self.has_failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.writes_left = self.writes_left.saturating_sub(1);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn assert_round_trip(rows: &[Row]) {
    let keys = keys(ADA);
    let header = header(ADA, 9);
    let (written, file) = write(&keys, header, rows);
    let (back, ended) = read(&file[..], &keys);
    assert!(back == rows, "other rows came back");
    assert_eq!(ended.unwrap(), written);
    assert_eq!(written.header, header);
    assert_eq!(written.rows, rows.len() as u64);
    let clear_bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!(written.clear_bytes, clear_bytes as u64);
    assert_eq!(written.file_bytes, file.len() as u64);
    assert_eq!(written.state, state_of(rows));
    assert_eq!(written.content[..], file[file.len() - 32..]);
    assert_eq!(verify(&file[..]).unwrap(), (header, written.content, file.len() as u64));
}

/// Bytes that do not compress, different for each seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
}

#[test]
fn rows_of_all_sizes_round_trip() {
    assert_round_trip(&[]);
    assert_round_trip(&[row("", "")]);
    assert_round_trip(&[row("", "x"), row([0], ""), row([0, 0], ""), row([0xff], "y")]);
    assert_round_trip(&rows_of_chunks(5));
    let just_full = 256 * 1024 - 16 - 1;
    for bytes in [just_full - 1, just_full, just_full + 1, 3 << 20] {
        let large = noise(bytes as u64, bytes);
        assert_round_trip(&[row("a", "small"), row("b", large), row("c", "small")]);
    }
}

#[test]
fn twenty_thousand_rows_round_trip_in_pieces_of_one_chunk() {
    let rows: Vec<_> = (0..20_000_u64).map(|n| row(n.to_be_bytes(), noise(n, 1024))).collect();
    assert_round_trip(&rows);
    let mut out = Failing { writes_left: usize::MAX, ..Failing::default() };
    let mut writer = SnapshotWriter::new(&mut out, &keys(ADA), header(ADA, 1)).unwrap();
    for (key, value) in &rows {
        writer.push(key, value).unwrap();
    }
    writer.finish().unwrap();
    assert!(out.largest < 300 * 1024, "{} bytes were held for one write", out.largest);
}

#[test]
fn a_chunk_is_closed_before_it_outgrows_its_size_and_a_large_row_stands_alone() {
    let keys = keys(ADA);
    let chunks = |rows: &[Row]| Parts::of(&write(&keys, header(ADA, 1), rows).1).chunks.len() - 1;
    assert_eq!(chunks(&[]), 0);
    assert_eq!(chunks(&rows_of_chunks(3)), 3);
    assert_eq!(chunks(&[row("a", "1"), row("b", vec![0; 300_000]), row("c", "3")]), 3);
    let many: Vec<_> = (0..1000_u16).map(|n| row(n.to_be_bytes(), [7; 300])).collect();
    assert_eq!(chunks(&many), 2);
}

#[test]
fn a_reader_takes_bytes_as_they_come() {
    let keys = keys(ADA);
    let rows = rows_of_chunks(2);
    let (written, file) = write(&keys, header(ADA, 1), &rows);
    let drip = || Dripping { bytes: &file, is_interrupted: false };
    let (back, ended) = read(drip(), &keys);
    assert_eq!((back, ended.unwrap()), (rows, written));
    assert_eq!(verify(drip()).unwrap().1, written.content);
}

#[test]
fn the_largest_row_fits_and_a_larger_one_is_refused() {
    let keys = keys(ADA);
    let mut writer = SnapshotWriter::new(Vec::new(), &keys, header(ADA, 1)).unwrap();
    let value = vec![1; ROW_BYTES_MAX];
    let refused = writer.push(b"k", &value);
    assert!(matches!(refused, Err(SnapshotError::RowTooLarge { bytes }) if bytes > ROW_BYTES_MAX));
    writer.push(b"k", &value[1..]).unwrap();
    let (written, file) = writer.finish().unwrap();
    let (back, ended) = read(&file[..], &keys);
    assert_eq!(ended.unwrap(), written);
    assert_eq!(back[0].1.len(), ROW_BYTES_MAX - 1);
}

#[test]
fn keys_out_of_order_are_refused_and_nothing_is_added() {
    let keys = keys(ADA);
    let mut writer = SnapshotWriter::new(Vec::new(), &keys, header(ADA, 1)).unwrap();
    for key in ["b", "ba", "c"] {
        writer.push(key.as_bytes(), b"v").unwrap();
        for wrong in ["", "a", "b", key] {
            let refused = writer.push(wrong.as_bytes(), b"w");
            assert!(matches!(refused, Err(SnapshotError::KeysOutOfOrder)), "{wrong} after {key}");
        }
    }
    let (written, file) = writer.finish().unwrap();
    let rows = vec![row("b", "v"), row("ba", "v"), row("c", "v")];
    assert_eq!(written.state, state_of(&rows));
    assert_eq!(read(&file[..], &keys).0, rows);
}

#[test]
fn a_header_of_another_tenant_or_without_sense_is_not_written() {
    let keys = keys(ADA);
    let refused = SnapshotWriter::new(Vec::new(), &keys, header(bob(), 1));
    assert!(matches!(refused, Err(SnapshotError::WrongTenant { tenant }) if tenant == bob()));
    let impossible = SnapshotHeader { since_lsn: 2, ..header(ADA, 1) };
    let refused = SnapshotWriter::new(Vec::new(), &keys, impossible);
    assert!(matches!(refused, Err(SnapshotError::ImpossibleHeader)));
    let unstamped = SnapshotHeader { since_lsn: 1, at_min_ms: NO_STAMP, ..header(ADA, 1) };
    assert!(SnapshotWriter::new(Vec::new(), &keys, unstamped).is_ok());
    let headless = SnapshotHeader { head: GENESIS, ..unstamped };
    assert!(SnapshotWriter::new(Vec::new(), &keys, headless).is_err());
}

#[test]
fn nothing_is_finished_after_a_failed_write() {
    let keys = keys(ADA);
    for writes_left in 1..=4 {
        let out = Failing { writes_left, ..Failing::default() };
        let mut writer = SnapshotWriter::new(out, &keys, header(ADA, 1)).unwrap();
        let pushed: Vec<_> =
            rows_of_chunks(4).iter().map(|(key, value)| writer.push(key, value)).collect();
        let failed_at = pushed.iter().position(Result::is_err).unwrap();
        assert!(matches!(pushed[failed_at], Err(SnapshotError::Io(_))));
        let later = &pushed[failed_at + 1..];
        assert!(later.iter().all(|push| matches!(push, Err(SnapshotError::Stopped))));
        assert!(matches!(writer.finish(), Err(SnapshotError::Stopped)));
    }
}

#[test]
fn nothing_of_the_rows_shows_in_the_file() {
    let marker = b"MARKER-that-nobody-else-would-write";
    let rows = [row(marker, "v"), row("z1", marker.repeat(3)), row("z2", noise(1, 9_000))];
    let (_, file) = write(&keys(ADA), header(ADA, 1), &rows);
    let shows = |text: &[u8]| file.windows(text.len()).any(|window| window == text);
    assert!(!shows(&marker[..8]), "a marker shows");
    assert!(!shows(&rows[2].1[..8]), "a value that does not compress shows");
}

#[test]
fn two_files_of_one_state_differ_in_bytes_and_not_in_state() {
    let keys = keys(ADA);
    let (one, _) = write(&keys, header(ADA, 1), &rows_of_chunks(2));
    let (other, _) = write(&keys, header(ADA, 2), &rows_of_chunks(2));
    assert_eq!(one.state, other.state);
    assert_ne!(one.content, other.content);
}

/// The key of the snapshot in `golden`: in real life no two bytes are known.
struct Sevens;

impl Random for Sevens {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError> {
        bytes.fill(7);
        Ok(())
    }
}

#[test]
fn a_snapshot_written_by_the_first_release_is_still_read() {
    let keys = TenantKeys::new(bob(), &DataKey::generate(&Sevens).unwrap());
    let rows = [row("!", "state"), row("fa", "first form"), row("fb", vec![b'x'; 1_000])];
    let file: Vec<u8> = hex::decode(GOLDEN.split_whitespace().collect::<String>()).unwrap();
    let (back, ended) = read(&file[..], &keys);
    assert_eq!(back, rows);
    let ended = ended.unwrap();
    assert_eq!(ended.header, header(bob(), 5));
    assert_eq!(ended.state, state_of(&rows));
    // What must not change though it is made anew: the header and the state hash.
    assert_eq!(ended.header.encode()[..], file[..104]);
    assert_eq!(
        hex::encode(ended.state),
        "da59f46342573def1fd51c4c9352741bc97473b242ecfd4837c0cad0b47520ed"
    );
}
