//! Reads a segment and tells an interrupted write from damage.
//!
//! ```text
//! group ─▶ group ─▶ group ─▶ ?        blank: the end. Partly blank: torn, never acknowledged.
//!                                     Anything else, or a group further on: damage, refuse.
//! ```
//! A group is written only after the one before it was synced. So a group that is not whole was
//! acknowledged exactly when it has a sector that is neither whole nor blank, or when another
//! group follows it.

use super::frame::{self, Record, SECTOR_DATA, SectorState, Seed};
use crate::disk::{BLOCK, SECTOR};
use bytes::Bytes;
use std::ops::Range;

/// A whole group.
pub(crate) struct Group {
    /// Where it stands in the segment.
    pub(crate) at: u64,
    /// Its records behind the opening one, each with its offset in the group and its length.
    pub(crate) records: Vec<(u64, u32, Record)>,
}

/// What a segment holds.
pub(crate) struct Scan {
    pub(crate) groups: Vec<Group>,
    /// Where the next group goes.
    pub(crate) end_at: u64,
    /// The next group's number.
    pub(crate) next_number: u64,
    /// What an interrupted write left behind `end_at`: to be blanked before the next write.
    pub(crate) torn: Option<Range<u64>>,
}

/// Damage, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) at: u64,
    pub(crate) what: String,
}

impl Damage {
    fn new(at: u64, what: &str) -> Self {
        Self { at, what: what.to_owned() }
    }
}

/// One segment's bytes.
struct Segment<'a> {
    seed: Seed,
    bytes: &'a [u8],
}

enum Found {
    Whole { group: Group, next_at: u64 },
    Torn,
}

/// Reads a segment whose first group must have this number; without one, any will do.
pub(crate) fn scan(seed: Seed, bytes: &[u8], number: Option<u64>) -> Result<Scan, Damage> {
    let segment = Segment { seed, bytes };
    let mut scan = Scan { groups: Vec::new(), end_at: 0, next_number: 0, torn: None };
    let mut number = number;
    while let Some((opens, length)) = segment.opening(scan.end_at)? {
        if number.is_some_and(|expected| expected != opens) {
            return Err(Damage::new(scan.end_at, "a group of writes is missing before this one"));
        }
        match segment.group(scan.end_at, length)? {
            Found::Torn => break,
            Found::Whole { group, next_at } => {
                scan.groups.push(group);
                scan.end_at = next_at;
                number = Some(opens + 1);
            }
        }
    }
    scan.next_number = number.unwrap_or(0);
    scan.torn = segment.torn_behind(scan.end_at)?;
    Ok(scan)
}

impl Segment<'_> {
    fn sector(&self, at: u64) -> Option<&[u8]> {
        let at = usize::try_from(at).ok()?;
        self.bytes.get(at..at + SECTOR)
    }

    /// Number and length of the group that opens here; `None` where nothing was written.
    fn opening(&self, at: u64) -> Result<Option<(u64, u64)>, Damage> {
        let Some(sector) = self.sector(at) else { return Ok(None) };
        match frame::judge(self.seed, at, sector) {
            SectorState::Blank => Ok(None),
            SectorState::Damaged => {
                Err(Damage::new(at, "a sector's CRC does not match (or it is another member's)"))
            }
            SectorState::Written => match self.opens_group(sector) {
                Some(opening) => Ok(Some(opening)),
                None => Err(Damage::new(at, "no group of writes begins here")),
            },
        }
    }

    fn opens_group(&self, sector: &[u8]) -> Option<(u64, u64)> {
        let data = Bytes::copy_from_slice(&sector[..SECTOR_DATA]);
        match frame::read_record(self.seed, &data) {
            Ok((Record::Group { number, length }, _)) => Some((number, length)),
            _ => None,
        }
    }

    fn group(&self, at: u64, length: u64) -> Result<Found, Damage> {
        let sectors = length.div_ceil(SECTOR_DATA as u64);
        let end = at.saturating_add(sectors.saturating_mul(SECTOR as u64));
        if end > self.bytes.len() as u64 {
            return Err(Damage::new(at, "a group of writes is longer than its segment"));
        }
        let mut torn = false;
        for at in (at..end).step_by(SECTOR) {
            match self.sector(at).map(|sector| frame::judge(self.seed, at, sector)) {
                Some(SectorState::Written) => {}
                Some(SectorState::Blank) => torn = true,
                _ => return Err(Damage::new(at, "a sector's CRC does not match")),
            }
        }
        if torn {
            return Ok(Found::Torn);
        }
        let records = self.records(at, end, length)?;
        let next_at = end.next_multiple_of(BLOCK as u64);
        Ok(Found::Whole { group: Group { at, records }, next_at })
    }

    fn records(&self, at: u64, end: u64, length: u64) -> Result<Vec<(u64, u32, Record)>, Damage> {
        let mut bytes = Bytes::from(frame::join_sectors(&self.bytes[at as usize..end as usize]));
        bytes.truncate(length as usize);
        let mut records = Vec::new();
        let mut offset = 0;
        while !bytes.is_empty() {
            let (record, len) = frame::read_record(self.seed, &bytes)
                .map_err(|what| Damage::new(at, &format!("{what}, {offset} bytes into a group")))?;
            bytes = bytes.split_off(len);
            if offset > 0 {
                records.push((offset, len as u32, record));
            }
            offset += len as u64;
        }
        Ok(records)
    }

    /// What stands behind the last whole group. A group in there says that the one before it was
    /// acknowledged, and is lost.
    fn torn_behind(&self, end_at: u64) -> Result<Option<Range<u64>>, Damage> {
        let mut torn: Option<Range<u64>> = None;
        for at in (end_at..self.bytes.len() as u64).step_by(SECTOR) {
            let Some(sector) = self.sector(at) else { break };
            let state = frame::judge(self.seed, at, sector);
            if state == SectorState::Blank {
                continue;
            }
            let later = at > end_at && at.is_multiple_of(BLOCK as u64);
            if later && state == SectorState::Written && self.opens_group(sector).is_some() {
                let what = format!("acknowledged writes are missing, others follow at offset {at}");
                return Err(Damage { at: end_at, what });
            }
            let start = torn.map_or(at, |range| range.start);
            torn = Some(start..at + SECTOR as u64);
        }
        Ok(torn)
    }
}
