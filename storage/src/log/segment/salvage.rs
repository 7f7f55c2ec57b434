//! Making the index of a sealed segment again, after its footer was damaged.
//!
//! All of the segment is read. Where a frame is damaged its record is lost, and the question is whose
//! it was: a damaged frame is believed to belong to a tenant only if it names the hash of that
//! tenant's last record and the next whole frame begins exactly where it says. Otherwise it may have
//! been anybody's.
//!
//! It decides nothing: it says what it found and what is missing.

use std::io;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::id::TenantId;
use crate::log::Tail;
use crate::log::segment::file::FILE_HEADER_BYTES;
use crate::log::segment::frame;
use crate::log::segment::frame::Found;
use crate::log::segment::frame::Window;
use crate::log::segment::index::SegmentIndex;
use crate::log::segment::recovery::SCAN_BYTES;
use crate::log::segment::tables::Tables;
use crate::record::Header;

/// A place where records are missing.
pub(super) struct Lost {
    /// Where the damage begins.
    pub(super) offset: u64,
    /// Whose record it says it was.
    pub(super) tenant: Option<TenantId>,
    /// Whether that is proven, and it was one record.
    pub(super) is_attributed: bool,
}

/// What could be read. Missing records of a tenant have the offset of the damage before the next
/// whole one, where reading fails.
pub(super) struct Salvaged {
    pub(super) index: SegmentIndex,
    pub(super) lost: Vec<Lost>,
}

/// Reads all of segment `number`; `before` is what is known of the segments before it.
pub(super) fn salvage(
    file: Arc<dyn DiskFile>,
    number: u64,
    before: &Tables,
) -> io::Result<Salvaged> {
    let len = file.len()?;
    let end = SegmentIndex::find_footer(&*file, number)?;
    let mut window = Window::new(file, end.unwrap_or(len), SCAN_BYTES);
    let mut salvaged = Salvaged { index: SegmentIndex::default(), lost: Vec::new() };
    let end_bytes = end.unwrap_or(len);
    let mut offset = FILE_HEADER_BYTES;
    while offset < end_bytes {
        let claim = match window.frame_at(offset)? {
            Found::Frame { header, bytes, .. } => {
                salvaged.admit(before, &header, offset)?;
                offset += bytes;
                continue;
            }
            Found::Footer => return Ok(salvaged),
            Found::Unused => None,
            Found::Bad { claim } => claim,
        };
        let (lost, next) = salvaged.judge(before, &mut window, offset, end_bytes, claim)?;
        salvaged.lost.push(lost);
        offset = next;
    }
    if end.is_none() || offset > end_bytes {
        // Neither the footer's beginning nor its place is known: there may have been more.
        salvaged.lost.push(Lost { offset: len, tenant: None, is_attributed: false });
    }
    Ok(salvaged)
}

impl Salvaged {
    fn tail(&self, before: &Tables, tenant: TenantId) -> Option<Tail> {
        let here = self.index.entries.get(&tenant).map(|entry| entry.tail);
        here.or_else(|| before.tail(tenant).ok())
    }

    /// Takes in a whole frame.
    fn admit(&mut self, before: &Tables, header: &Header, offset: u64) -> io::Result<()> {
        let at = u32::try_from(offset).map_err(io::Error::other)?;
        let tail = self.tail(before, header.tenant).unwrap_or(Tail::EMPTY);
        let is_first = !self.index.entries.contains_key(&header.tenant);
        let contradicts =
            header.lsn <= tail.lsn || (header.lsn - tail.lsn == 1 && header.prev != tail.hash);
        let missing = header.lsn.saturating_sub(tail.lsn).saturating_sub(1);
        let damage = self.lost.last().and_then(|lost| u32::try_from(lost.offset).ok());
        let missing_max = offset / frame::frame_bytes(0) as u64;
        match (contradicts, missing, damage) {
            (false, 0, _) => {}
            // Records before this segment's first may have been let go; the tables tell.
            (false, _, None) if is_first => {}
            (false, _, Some(damage)) if missing <= missing_max => {
                for lsn in tail.lsn + 1..header.lsn {
                    self.index.push(&Header { lsn, ..header.clone() }, damage);
                }
            }
            (false, _, Some(_)) if is_first => {}
            _ => {
                let tenant = Some(header.tenant);
                self.lost.push(Lost { offset, tenant, is_attributed: true });
                return Ok(());
            }
        }
        self.index.push(header, at);
        Ok(())
    }

    /// Says whose record was lost at `offset`, and where to go on.
    fn judge(
        &self,
        before: &Tables,
        window: &mut Window,
        offset: u64,
        end: u64,
        claim: Option<(Header, u64)>,
    ) -> io::Result<(Lost, u64)> {
        let Some((header, bytes)) = claim else {
            let next = window.next_whole(offset + 1)?;
            return Ok((Lost { offset, tenant: None, is_attributed: false }, next));
        };
        let next = offset + bytes;
        let is_exact =
            next == end || matches!(window.frame_at(next)?, Found::Frame { .. } | Found::Footer);
        let follows = self.tail(before, header.tenant).is_some_and(|tail| {
            tail.lsn.checked_add(1) == Some(header.lsn) && tail.hash == header.prev
        });
        let is_attributed = is_exact && follows;
        let lost = Lost { offset, tenant: Some(header.tenant), is_attributed };
        let next = if is_exact { next } else { window.next_whole(offset + 1)? };
        Ok((lost, next))
    }
}
