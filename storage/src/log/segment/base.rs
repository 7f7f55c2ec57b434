//! The file `BASE`: for each tenant whose oldest records were let go, where those ended. With it a
//! tenant none of whose records is left here still has a tail to fence with.
//!
//! ```text
//! magic "BKlogbas" · format version u32 · next segment's number u64 · number of tenants u64
//! per tenant, in id order: tenant 16 · lsn u64 · epoch u64 · hash 32
//! crc32c u32 of all before
//! ```
//! It is replaced whole before a segment is removed, so it never promises less than is missing. It
//! refuses to be half believed: one wrong byte, and it says nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::disk::Disk;
use crate::id::Id as _;
use crate::id::TenantId;
use crate::log::Tail;

const NAME: &str = "BASE";
const MAGIC: [u8; 8] = *b"BKlogbas";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 8 + 8;
const ENTRY_BYTES: usize = 16 + 8 + 8 + 32;
const CRC_BYTES: usize = 4;

/// Where each tenant's let-go records ended.
pub(super) type Bases = BTreeMap<TenantId, Tail>;

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// There is none: nothing was let go yet.
    Absent,
    /// These; and no segment that was removed had this number or a higher one.
    Bases(u64, Bases),
    /// Nothing that can be believed.
    Damaged,
    /// That a newer program wrote it.
    Version(u32),
}

/// Reads the file in the log's directory.
pub(super) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Read> {
    match disk.read(&dir.join(NAME)) {
        Ok(bytes) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Read::Absent),
        Err(error) => Err(error),
    }
}

/// Replaces the file, durably.
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    next_number: u64,
    bases: &Bases,
) -> io::Result<()> {
    disk.write_atomic(&dir.join(NAME), &encode(next_number, bases))
}

fn encode(next_number: u64, bases: &Bases) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + bases.len() * ENTRY_BYTES + CRC_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&next_number.to_be_bytes());
    bytes.extend_from_slice(&(bases.len() as u64).to_be_bytes());
    for (tenant, tail) in bases {
        bytes.extend_from_slice(tenant.as_bytes());
        bytes.extend_from_slice(&tail.lsn.to_be_bytes());
        bytes.extend_from_slice(&tail.epoch.to_be_bytes());
        bytes.extend_from_slice(&tail.hash);
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Read {
    let Some((content, crc)) = bytes.split_last_chunk::<CRC_BYTES>() else { return Read::Damaged };
    let is_ours =
        content.starts_with(&MAGIC) && crc32c::crc32c(content) == u32::from_be_bytes(*crc);
    if !is_ours || content.len() < HEADER_BYTES {
        return Read::Damaged;
    }
    let (header, entries) = content.split_at(HEADER_BYTES);
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    match u32::try_from(number(&header[8..12])) {
        Ok(VERSION) => {}
        Ok(version) => return Read::Version(version),
        Err(_) => return Read::Damaged,
    }
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() || entries.len() as u64 != number(&header[20..28]) {
        return Read::Damaged;
    }
    let base = |entry: &[u8; ENTRY_BYTES]| {
        let (mut tenant, mut hash) = ([0; 16], [0; 32]);
        tenant.copy_from_slice(&entry[..16]);
        hash.copy_from_slice(&entry[32..]);
        let (lsn, epoch) = (number(&entry[16..24]), number(&entry[24..32]));
        (TenantId::from_bytes(tenant), Tail { lsn, epoch, hash })
    };
    Read::Bases(number(&header[12..20]), entries.iter().map(base).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases() -> Bases {
        let base = |n: u8| {
            let tail = Tail { lsn: u64::from(n) << 40, epoch: 7, hash: [n; 32] };
            (TenantId::from_bytes([n; 16]), tail)
        };
        [base(1), base(2), base(9)].into()
    }

    #[test]
    fn it_reads_back_and_an_absent_file_is_not_a_damaged_one() {
        let (disk, dir) = (crate::disk::fault::FaultDisk::new(), Path::new("/log"));
        disk.create_dir_all(dir).unwrap();
        assert_eq!(read(&disk, dir).unwrap(), Read::Absent);
        write(&disk, dir, 12, &bases()).unwrap();
        assert_eq!(read(&disk, dir).unwrap(), Read::Bases(12, bases()));
        write(&disk, dir, 13, &Bases::new()).unwrap();
        assert_eq!(read(&disk, dir).unwrap(), Read::Bases(13, Bases::new()));
    }

    #[test]
    fn one_changed_byte_or_a_cut_and_it_says_nothing() {
        let bytes = encode(12, &bases());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), Read::Damaged, "byte {at}");
            assert_eq!(decode(&bytes[..at]), Read::Damaged, "cut at {at}");
        }
        let mut newer = bytes[..bytes.len() - CRC_BYTES].to_vec();
        newer[11] = 2;
        let crc = crc32c::crc32c(&newer);
        newer.extend_from_slice(&crc.to_be_bytes());
        assert_eq!(decode(&newer), Read::Version(2));
    }
}
