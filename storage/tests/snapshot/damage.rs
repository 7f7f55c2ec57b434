//! Whatever happens to a file, no row comes out that was not put in, and nothing that is not whole
//! passes for whole.

use storage::record::GENESIS;
use storage::seal::SealError;
use storage::snapshot::{
    Damage, HEADER_BYTES, Row, SnapshotError, SnapshotHeader, SnapshotReader, verify,
};

use crate::kit::{
    ADA, Parts, bob, header, keys, read, row, rows_of_chunks, with_crc, with_hash, write,
};

/// Asserts that a file is refused in the end, and that what comes before is a part of the truth.
fn assert_refused(file: &[u8], keys: &storage::seal::TenantKeys, rows: &[Row], what: &str) {
    let (came, ended) = read(file, keys);
    assert!(ended.is_err(), "{what}: passed for whole");
    assert!(rows.starts_with(&came), "{what}: other rows came out");
}

fn small_rows() -> Vec<Row> {
    [vec![row("!", "state")], rows_of_chunks(2)].concat()
}

#[test]
fn every_flipped_byte_is_refused_with_keys_and_without() {
    let keys = keys(ADA);
    let rows = small_rows();
    let (_, file) = write(&keys, header(ADA, 3), &rows);
    for at in 0..file.len() {
        for bit in [1, 0x80] {
            let mut flipped = file.clone();
            flipped[at] ^= bit;
            assert_refused(&flipped, &keys, &rows, &format!("byte {at} of {}", file.len()));
            assert!(verify(&flipped[..]).is_err(), "byte {at} of {}, without keys", file.len());
        }
    }
}

#[test]
fn every_truncation_is_refused_with_keys_and_without() {
    let keys = keys(ADA);
    let rows = small_rows();
    let (_, file) = write(&keys, header(ADA, 3), &rows);
    for length in 0..file.len() {
        assert_refused(&file[..length], &keys, &rows, &format!("cut at {length}"));
        let verified = verify(&file[..length]);
        assert!(
            matches!(verified, Err(SnapshotError::Damaged { what: Damage::Cut })),
            "cut at {length}"
        );
        // With all but its hash there, making that again gives the file that was.
        if length > HEADER_BYTES && length != file.len() - 32 {
            let again = with_hash(file[..length].to_vec());
            assert_refused(&again, &keys, &rows, &format!("cut at {length}, hash made again"));
        }
    }
    let longer = [&file[..], &[0]].concat();
    assert_refused(&longer, &keys, &rows, "a byte behind the end");
    let verified = verify(&longer[..]);
    assert!(matches!(verified, Err(SnapshotError::Damaged { what: Damage::Trailing })));
}

#[test]
fn a_changed_byte_is_refused_even_if_every_checksum_is_made_right_again() {
    let keys = keys(ADA);
    let rows = small_rows();
    let (_, file) = write(&keys, header(ADA, 3), &rows);
    let end = file.len() - 32;
    for at in 0..end {
        let mut forged = file[..end].to_vec();
        forged[at] ^= 1;
        // The checksum itself, made right again, is the file that was.
        if (HEADER_BYTES - 4..HEADER_BYTES).contains(&at) {
            continue;
        }
        with_crc(&mut forged);
        assert_refused(&with_hash(forged), &keys, &rows, &format!("byte {at}"));
    }
}

#[test]
fn chunks_open_only_in_their_own_place() {
    let keys = keys(ADA);
    let rows = rows_of_chunks(3);
    let (_, file) = write(&keys, header(ADA, 3), &rows);
    let (_, later) = write(&keys, header(ADA, 4), &rows);
    let (parts, later) = (Parts::of(&file), Parts::of(&later));
    assert_eq!(parts.chunks.len(), 4);
    assert_eq!(parts.join(), file);
    let refuse = |what: &str, change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut chunks = parts.chunks.clone();
        change(&mut chunks);
        let forged = Parts { header: parts.header.clone(), chunks }.join();
        assert_refused(&forged, &keys, &rows, what);
    };
    for at in 0..4 {
        refuse("a chunk was dropped", &|chunks| drop(chunks.remove(at)));
        refuse("a chunk was doubled", &|chunks| chunks.insert(at, chunks[at].clone()));
        refuse("a chunk came from another snapshot", &|chunks| {
            chunks[at].clone_from(&later.chunks[at]);
        });
        for other in 0..at {
            refuse("chunks were swapped", &|chunks| chunks.swap(at, other));
            refuse("a chunk was moved", &|chunks| {
                let chunk = chunks.remove(at);
                chunks.insert(other, chunk);
            });
        }
        refuse("the rest was cut off", &|chunks| chunks.truncate(at));
        if at < 3 {
            refuse("all but the totals was cut off", &|chunks| drop(chunks.drain(at..3)));
        }
    }
    refuse("all chunks came from another snapshot", &|chunks| chunks.clone_from(&later.chunks));
    refuse("rows say that they are totals", &|chunks| chunks[0][4] = 1);
    refuse("totals say that they are rows", &|chunks| chunks[3][4] = 0);
}

#[test]
fn a_chunk_of_another_tenant_or_another_key_is_refused() {
    let (ours, again, theirs) = (keys(ADA), keys(ADA), keys(bob()));
    let rows = rows_of_chunks(2);
    let (_, file) = write(&ours, header(ADA, 3), &rows);
    let refused = SnapshotReader::open(&file[..], &theirs);
    assert!(matches!(refused, Err(SnapshotError::WrongTenant { tenant }) if tenant == ADA));
    let (came, ended) = read(&file[..], &again);
    assert!(came.is_empty());
    assert!(matches!(ended, Err(SnapshotError::Sealed(SealError::Tampered))));
    // Even an empty snapshot says whose it is by more than its header.
    let (_, empty) = write(&ours, header(ADA, 3), &[]);
    assert_refused(&empty, &again, &[], "an empty snapshot of another key");
    let mut parts = Parts::of(&file);
    parts.header = header(bob(), 3).encode().to_vec();
    let forged = parts.join();
    assert!(verify(&forged[..]).is_ok(), "without keys a forgery of all bytes cannot be seen");
    assert_refused(&forged, &theirs, &[], "a snapshot under another tenant's name");
    assert_refused(&forged, &ours, &[], "a snapshot under another tenant's name");
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let keys = keys(ADA);
    let mut parts = Parts::of(&write(&keys, header(ADA, 3), &[]).1);
    parts.header[11] = 9;
    with_crc(&mut parts.header);
    let file = parts.join();
    let refused = SnapshotReader::open(&file[..], &keys).err();
    assert!(matches!(refused, Some(SnapshotError::NewerVersion { version: 9 })));
    let refused = verify(&file[..]).err();
    assert!(matches!(refused, Some(SnapshotError::NewerVersion { version: 9 })));
    assert!(refused.is_some_and(|error| error.to_string().contains("version 9")));
}

#[test]
fn a_length_is_not_believed() {
    let keys = keys(ADA);
    let mut parts = Parts::of(&write(&keys, header(ADA, 3), &small_rows()).1);
    parts.chunks[0][..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let (_, ended) = read(&parts.join()[..], &keys);
    assert!(matches!(ended, Err(SnapshotError::Damaged { what: Damage::Frame })));
    // One that a chunk could have, but more than there is.
    parts.chunks[0][..4].copy_from_slice(&(64_u32 << 20).to_be_bytes());
    let (_, ended) = read(&parts.join()[..], &keys);
    assert!(matches!(ended, Err(SnapshotError::Damaged { what: Damage::Cut })));
}

#[test]
fn what_is_no_snapshot_is_refused() {
    let keys = keys(ADA);
    for bytes in [&b""[..], &[0; 4096], &b"BKlogseg".repeat(100), &b"BKsnap01".repeat(100)] {
        assert!(matches!(read(bytes, &keys).1, Err(SnapshotError::Damaged { .. })));
        assert!(matches!(verify(bytes), Err(SnapshotError::Damaged { .. })));
    }
    let impossible = SnapshotHeader { head: GENESIS, ..header(ADA, 3) };
    let bytes = with_hash(impossible.encode().to_vec());
    let refused = verify(&bytes[..]);
    assert!(matches!(refused, Err(SnapshotError::Damaged { what: Damage::Header })));
}
