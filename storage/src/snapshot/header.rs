//! The header: what a snapshot is of. It travels in clear, and every chunk is sealed to it.
//!
//! Refuses: a header that says what cannot be.

use crate::id::{Id, TenantId};
use crate::log::Tail;
use crate::record::{GENESIS, Hash};

use super::{Damage, SnapshotError};

const MAGIC: &[u8; 8] = b"BKsnap01";
pub(super) const VERSION: u32 = 1;

/// The length of an encoded header, its magic and checksum included.
pub const HEADER_BYTES: usize = 104;
const CRC_AT: usize = HEADER_BYTES - 4;

/// The lowest stamp of no records.
pub const NO_STAMP: u64 = u64::MAX;

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Whose rows.
    pub tenant: TenantId,
    /// The last record whose changes are in the rows; 0 for the state before the first.
    pub lsn: u64,
    /// That record's epoch.
    pub epoch: u64,
    /// That record's hash; [`GENESIS`] if there is none.
    pub head: Hash,
    /// The LSN of the snapshot it was made from; 0 if it was made from records only.
    pub since_lsn: u64,
    /// The lowest stamp of the records behind `since_lsn`, up to `lsn`: Unix milliseconds, or
    /// [`NO_STAMP`] if there are none.
    pub at_min_ms: u64,
    /// The highest stamp of any record up to `lsn`: Unix milliseconds, 0 if there are none.
    pub at_max_ms: u64,
}

impl SnapshotHeader {
    /// The end of the history that the rows come from: the next record follows it.
    pub fn tail(&self) -> Tail {
        Tail { lsn: self.lsn, epoch: self.epoch, hash: self.head }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(MAGIC);
        put(&VERSION.to_be_bytes());
        put(self.tenant.as_bytes());
        put(&self.lsn.to_be_bytes());
        put(&self.epoch.to_be_bytes());
        put(&self.head);
        put(&self.since_lsn.to_be_bytes());
        put(&self.at_min_ms.to_be_bytes());
        put(&self.at_max_ms.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads the header that `bytes` begin with.
    ///
    /// # Errors
    /// [`SnapshotError::NewerVersion`] if it is whole, but of a version that this release does not
    /// know; [`SnapshotError::Damaged`] if it is not whole.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(Damage::Cut)?;
        let (fields, crc) = bytes.split_at(CRC_AT);
        if crc32c::crc32c(fields).to_be_bytes() != crc {
            return Err(Damage::Header.into());
        }
        let header = Self::read(fields).ok_or(Damage::Header)??;
        if header.is_possible() { Ok(header) } else { Err(Damage::Header.into()) }
    }

    fn read(mut fields: &[u8]) -> Option<Result<Self, SnapshotError>> {
        let fields = &mut fields;
        if &take::<8>(fields)? != MAGIC {
            return None;
        }
        let version = u32::from_be_bytes(take(fields)?);
        if version != VERSION {
            return Some(Err(SnapshotError::NewerVersion { version }));
        }
        Some(Ok(Self {
            tenant: TenantId::from_bytes(take(fields)?),
            lsn: u64::from_be_bytes(take(fields)?),
            epoch: u64::from_be_bytes(take(fields)?),
            head: take(fields)?,
            since_lsn: u64::from_be_bytes(take(fields)?),
            at_min_ms: u64::from_be_bytes(take(fields)?),
            at_max_ms: u64::from_be_bytes(take(fields)?),
        }))
    }

    /// Whether a history can look like that.
    pub(super) fn is_possible(&self) -> bool {
        let is_head_right = (self.lsn == 0) == (self.head == GENESIS);
        let are_stamps_right = self.at_min_ms == NO_STAMP || self.at_min_ms <= self.at_max_ms;
        is_head_right && self.since_lsn <= self.lsn && are_stamps_right
    }
}

/// Takes the first bytes off; also the numbers of chunks are read so.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SnapshotHeader {
        SnapshotHeader {
            tenant: TenantId::new(5, [6; 10]),
            lsn: 9,
            epoch: 2,
            head: [7; 32],
            since_lsn: 4,
            at_min_ms: 1_000,
            at_max_ms: 2_000,
        }
    }

    fn seal_crc(bytes: &mut [u8; HEADER_BYTES]) {
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
    }

    #[test]
    fn a_header_round_trips_and_gives_its_tail() {
        let header = header();
        assert_eq!(SnapshotHeader::decode(&header.encode()).unwrap(), header);
        assert_eq!(header.tail(), Tail { lsn: 9, epoch: 2, hash: [7; 32] });
        let mut longer = header.encode().to_vec();
        longer.push(1);
        assert_eq!(SnapshotHeader::decode(&longer).unwrap(), header);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let bytes = header().encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = SnapshotHeader::decode(&flipped);
            assert!(
                matches!(refused, Err(SnapshotError::Damaged { what: Damage::Header })),
                "{bit}"
            );
        }
        let cut = SnapshotHeader::decode(&bytes[..HEADER_BYTES - 1]);
        assert!(matches!(cut, Err(SnapshotError::Damaged { what: Damage::Cut })));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut newer = header().encode();
        newer[11] = 2;
        seal_crc(&mut newer);
        let refused = SnapshotHeader::decode(&newer);
        assert!(matches!(refused, Err(SnapshotError::NewerVersion { version: 2 })));
        let mut other = header().encode();
        other[0] = b'b';
        seal_crc(&mut other);
        let refused = SnapshotHeader::decode(&other);
        assert!(matches!(refused, Err(SnapshotError::Damaged { what: Damage::Header })));
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        let empty = SnapshotHeader {
            lsn: 0,
            epoch: 0,
            head: GENESIS,
            since_lsn: 0,
            at_min_ms: NO_STAMP,
            at_max_ms: 0,
            ..header()
        };
        assert!(SnapshotHeader::decode(&empty.encode()).is_ok());
        for impossible in [
            SnapshotHeader { since_lsn: 10, ..header() },
            SnapshotHeader { head: GENESIS, ..header() },
            SnapshotHeader { head: [1; 32], ..empty },
            SnapshotHeader { at_max_ms: 999, ..header() },
        ] {
            let refused = SnapshotHeader::decode(&impossible.encode());
            assert!(matches!(refused, Err(SnapshotError::Damaged { what: Damage::Header })));
        }
    }
}
