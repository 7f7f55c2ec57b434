//! The index of one segment: which tenant has which records where. In memory while the segment
//! grows, then its footer.
//!
//! ```text
//! footer:  mark · number of tenants · per tenant, in id order:
//!          tenant 16 · first lsn · number of records · last epoch · last hash 32 · offset deltas
//! trailer: footer offset u64 · footer crc32c u32 · magic "BKseal01" · trailer crc32c u32
//! ```
//! Numbers without a width are LEB128. The trailer's last byte is the file's last byte. The trailer's
//! checksum also covers the segment's number, so that a file under a wrong name is not believed.
//!
//! It decides nothing about damage: a footer either reads back whole or is not there.

use std::collections::HashMap;
use std::io;

use crate::disk::DiskFile;
use crate::id::Id as _;
use crate::id::TenantId;
use crate::log::Tail;
use crate::log::segment::frame::FOOTER_MARK;
use crate::record::Header;

const TRAILER_MAGIC: [u8; 8] = *b"BKseal01";
const TRAILER_BYTES: usize = 8 + 4 + 8 + 4;
/// The least a tenant takes in a footer; bounds what a count may make us reserve.
const ENTRY_BYTES_MIN: usize = 16 + 1 + 1 + 1 + 32 + 1;

/// One tenant's records in one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The first record's LSN; the next offset belongs to the next LSN, without gaps.
    pub(super) first: u64,
    /// The last record.
    pub(super) tail: Tail,
    /// Where each record's frame begins.
    pub(super) offsets: Vec<u32>,
}

/// All tenants' records in one segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentIndex {
    /// By tenant.
    pub(super) entries: HashMap<TenantId, Entry>,
}

impl SegmentIndex {
    /// Notes a frame that follows this tenant's earlier ones without a gap.
    pub(super) fn push(&mut self, header: &Header, offset: u32) {
        let tail = Tail { lsn: header.lsn, epoch: header.epoch, hash: header.hash };
        let entry = self.entries.entry(header.tenant).or_insert_with(|| Entry {
            first: header.lsn,
            tail,
            offsets: Vec::new(),
        });
        entry.tail = tail;
        entry.offsets.push(offset);
    }

    /// Where the frames of a tenant's records from `lsn` on begin; empty if `lsn` is not here.
    pub(super) fn offsets_from(&self, tenant: TenantId, lsn: u64) -> &[u32] {
        self.entries
            .get(&tenant)
            .and_then(|entry| {
                let skip = usize::try_from(lsn.checked_sub(entry.first)?).ok()?;
                entry.offsets.get(skip..)
            })
            .unwrap_or_default()
    }

    /// Footer and trailer of segment `number`, to be written at `footer_offset` as its last bytes.
    pub(super) fn encode_footer(&self, number: u64, footer_offset: u64) -> Vec<u8> {
        let mut out = FOOTER_MARK.to_vec();
        put_number(&mut out, self.entries.len() as u64);
        let mut tenants: Vec<_> = self.entries.iter().collect();
        tenants.sort_unstable_by_key(|(tenant, _)| **tenant);
        for (tenant, entry) in tenants {
            out.extend_from_slice(tenant.as_bytes());
            put_number(&mut out, entry.first);
            put_number(&mut out, entry.offsets.len() as u64);
            put_number(&mut out, entry.tail.epoch);
            out.extend_from_slice(&entry.tail.hash);
            let mut before = 0;
            for offset in &entry.offsets {
                put_number(&mut out, u64::from(offset - before));
                before = *offset;
            }
        }
        let crc = crc32c::crc32c(&out);
        let trailer = out.len();
        out.extend_from_slice(&footer_offset.to_be_bytes());
        out.extend_from_slice(&crc.to_be_bytes());
        out.extend_from_slice(&TRAILER_MAGIC);
        let crc = trailer_checksum(number, &out[trailer..]);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads the footer of segment `number`, and where it begins. Nothing if there is none that can
    /// be believed.
    pub(super) fn read(file: &dyn DiskFile, number: u64) -> io::Result<Option<(Self, u64)>> {
        let Some(trailer) = read_trailer(file, number)? else { return Ok(None) };
        let Ok(footer_bytes) = usize::try_from(trailer.offset - trailer.footer_offset) else {
            return Ok(None);
        };
        let mut footer = vec![0; footer_bytes];
        let read = file.read_at(trailer.footer_offset, &mut footer)?;
        if read < footer_bytes || crc32c::crc32c(&footer) != trailer.footer_crc {
            return Ok(None);
        }
        Ok(decode_footer(&footer).map(|index| (index, trailer.footer_offset)))
    }

    /// Where the footer of segment `number` begins, though its content may be damaged.
    pub(super) fn find_footer(file: &dyn DiskFile, number: u64) -> io::Result<Option<u64>> {
        Ok(read_trailer(file, number)?.map(|trailer| trailer.footer_offset))
    }
}

fn trailer_checksum(number: u64, trailer: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_be_bytes()), trailer)
}

struct Trailer {
    offset: u64,
    footer_offset: u64,
    footer_crc: u32,
}

fn read_trailer(file: &dyn DiskFile, number: u64) -> io::Result<Option<Trailer>> {
    let Some(offset) = file.len()?.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut bytes = [0; TRAILER_BYTES];
    if file.read_at(offset, &mut bytes)? < TRAILER_BYTES {
        return Ok(None);
    }
    let Some((footer_offset, footer_crc, magic, crc)) = split_trailer(&bytes) else {
        return Ok(None);
    };
    let is_whole = magic == TRAILER_MAGIC
        && trailer_checksum(number, &bytes[..TRAILER_BYTES - 4]) == u32::from_be_bytes(crc);
    let footer_offset = u64::from_be_bytes(footer_offset);
    let footer_crc = u32::from_be_bytes(footer_crc);
    Ok((is_whole && footer_offset <= offset).then_some(Trailer {
        offset,
        footer_offset,
        footer_crc,
    }))
}

/// Footer offset, footer checksum, magic, trailer checksum.
type TrailerFields = ([u8; 8], [u8; 4], [u8; 8], [u8; 4]);

fn split_trailer(mut bytes: &[u8]) -> Option<TrailerFields> {
    let rest = &mut bytes;
    Some((take(rest)?, take(rest)?, take(rest)?, take(rest)?))
}

fn decode_footer(footer: &[u8]) -> Option<SegmentIndex> {
    let mut rest = footer.strip_prefix(&FOOTER_MARK)?;
    let count = usize::try_from(take_number(&mut rest)?).ok()?;
    let reserved = count.min(rest.len() / ENTRY_BYTES_MIN);
    let mut entries = HashMap::with_capacity(reserved);
    for _ in 0..count {
        let tenant = TenantId::from_bytes(take(&mut rest)?);
        let first = take_number(&mut rest)?;
        let records = take_number(&mut rest)?;
        let epoch = take_number(&mut rest)?;
        let hash = take(&mut rest)?;
        let lsn = first.checked_add(records)?.checked_sub(1)?;
        let reserved = usize::try_from(records).ok()?.min(rest.len());
        let mut offsets = Vec::with_capacity(reserved);
        let mut before = 0_u32;
        for _ in 0..records {
            before = before.checked_add(u32::try_from(take_number(&mut rest)?).ok()?)?;
            offsets.push(before);
        }
        entries.insert(tenant, Entry { first, tail: Tail { lsn, epoch, hash }, offsets });
    }
    rest.is_empty().then_some(SegmentIndex { entries })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            return None; // more than 64 bits
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::OpenMode;
    use crate::disk::fault::FaultDisk;
    use crate::record::Record;
    use proptest::prelude::any;
    use proptest::prop_assert_eq;
    use proptest::proptest;
    use std::path::Path;

    fn sample() -> SegmentIndex {
        let mut index = SegmentIndex::default();
        for (tenant, lsn, offset) in [(7, 1, 24), (9, 40, 300), (7, 2, 20_000), (9, 41, 90_000)] {
            let tenant = TenantId::from_bytes([tenant; 16]);
            index.push(&Record::new(tenant, lsn, 3, 1, [1; 32], vec![]).header, offset);
        }
        index
    }

    fn file_with(footer: &[u8], offset: u64) -> Box<dyn DiskFile> {
        let disk = FaultDisk::new();
        disk.create_dir_all(Path::new("/")).unwrap();
        let file = disk.open(Path::new("/file"), OpenMode::Create).unwrap();
        file.write_at(offset, footer).unwrap();
        file
    }

    #[test]
    fn a_footer_reads_back_and_any_changed_or_lost_byte_makes_it_unbelieved() {
        let index = sample();
        let footer = index.encode_footer(5, 100);
        let read = |bytes: &[u8]| SegmentIndex::read(&*file_with(bytes, 100), 5).unwrap();
        assert_eq!(read(&footer), Some((index, 100)));
        for at in 0..footer.len() {
            let mut damaged = footer.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged), None, "byte {at}");
            assert_eq!(read(&footer[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_footer_under_another_number_is_not_believed() {
        let footer = sample().encode_footer(5, 100);
        assert_eq!(SegmentIndex::read(&*file_with(&footer, 100), 6).unwrap(), None);
    }

    #[test]
    fn an_offset_is_found_for_held_records_only() {
        let index = sample();
        let tenant = TenantId::from_bytes([9; 16]);
        assert_eq!(index.offsets_from(tenant, 40), [300, 90_000]);
        assert_eq!(index.offsets_from(tenant, 41), [90_000]);
        assert_eq!(index.offsets_from(tenant, 39), [0_u32; 0]);
        assert_eq!(index.offsets_from(tenant, 42), [0_u32; 0]);
        assert_eq!(index.offsets_from(TenantId::PLATFORM, 1), [0_u32; 0]);
    }

    proptest! {
        #[test]
        fn numbers_round_trip(number in any::<u64>()) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            prop_assert_eq!(take_number(&mut out.as_slice()), Some(number));
        }

        #[test]
        fn any_bytes_are_read_as_a_footer_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            decode_footer(&[&FOOTER_MARK, bytes.as_slice()].concat());
        }
    }
}
