//! Bytes of the log: records in groups, groups in sectors. Pure functions.
//!
//! ```text
//! record   len u32 │ crc u32 │ kind u8 │ index u64 │ term u64 │ payload          little endian
//! group    record of kind GROUP (index: its number, term: its length) │ records …
//! sector   508 bytes of a group │ crc u32                              512 bytes
//! ```
//! * One group is one synced write. It begins on a block of its own, so that no acknowledged byte is
//!   ever written again; the rest of its last block stays zero.
//! * Both CRCs are seeded with segment and member: bytes of another place never pass.
//! * No written sector is all zero. So each sector tells by itself whether it was written (valid),
//!   was never written (zero), or is damaged (anything else): a torn write is not mistaken for
//!   damage, and damage not for a torn write.

use crate::{
    disk::{BLOCK, SECTOR},
    types::{EntryKind, HardState, LogEntry, Position},
};
use bytes::Bytes;
use crc32fast::Hasher;

/// Bytes of a group in each sector.
pub(crate) const SECTOR_DATA: usize = SECTOR - size_of::<u32>();

/// Bytes in front of each payload.
pub(crate) const RECORD_HEAD: usize = 4 + 4 + 1 + 8 + 8;

/// The version of everything this module describes.
const FORMAT_VERSION: u32 = 1;

const GROUP: u8 = 1;
const HEAD: u8 = 2;
const HARD_STATE: u8 = 3;
const SNAPSHOT: u8 = 4;
const COMMANDS: u8 = 5;
const MEMBERS: u8 = 6;
const MEMBERS_JOINT: u8 = 7;

/// What both CRCs of a segment begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(segment: u64, node_id: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&segment.to_le_bytes());
        hasher.update(&node_id.to_le_bytes());
        Self(hasher.finalize())
    }

    fn sector(self, number: u64, data: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&number.to_le_bytes());
        hasher.update(data);
        // Zero would make a sector of zeros look as if it was never written.
        hasher.finalize().max(1)
    }

    fn record(self, after_crc: &[&[u8]]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        after_crc.iter().for_each(|part| hasher.update(part));
        hasher.finalize()
    }
}

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Opens a group.
    Group {
        number: u64,
        length: u64,
    },
    /// Opens a segment: where the log ended before it.
    Head {
        before: Position,
    },
    HardState(HardState),
    Snapshot(Position),
    Entry(LogEntry),
}

/// Builds one group.
pub(crate) struct GroupWriter {
    seed: Seed,
    bytes: Vec<u8>,
}

impl GroupWriter {
    /// Reuses the buffer of an earlier group.
    pub(crate) fn new(seed: Seed, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(RECORD_HEAD, 0);
        Self { seed, bytes }
    }

    fn record(&mut self, kind: u8, place: Position, payload: &[u8]) {
        let head = record_head(self.seed, kind, place, payload);
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(payload);
    }

    pub(crate) fn head(&mut self, before: Position) {
        self.record(HEAD, before, &FORMAT_VERSION.to_le_bytes());
    }

    pub(crate) fn hard_state(&mut self, state: HardState) {
        let place = Position { index: state.commit, term: state.term };
        self.record(HARD_STATE, place, &state.vote.to_le_bytes());
    }

    pub(crate) fn snapshot(&mut self, place: Position) {
        self.record(SNAPSHOT, place, &[]);
    }

    /// Adds an entry; answers its offset in the group.
    pub(crate) fn entry(&mut self, entry: &LogEntry) -> u64 {
        let offset = self.bytes.len() as u64;
        let kind = match entry.kind {
            EntryKind::Commands => COMMANDS,
            EntryKind::Members => MEMBERS,
            EntryKind::MembersJoint => MEMBERS_JOINT,
        };
        self.record(kind, Position { index: entry.index, term: entry.term }, &entry.payload);
        offset
    }

    /// Fills in the opening record.
    pub(crate) fn finish(mut self, number: u64) -> Vec<u8> {
        let place = Position { index: number, term: self.bytes.len() as u64 };
        let head = record_head(self.seed, GROUP, place, &[]);
        self.bytes[..RECORD_HEAD].copy_from_slice(&head);
        self.bytes
    }
}

fn record_head(seed: Seed, kind: u8, place: Position, payload: &[u8]) -> [u8; RECORD_HEAD] {
    let len = u32::try_from(payload.len()).expect("payloads are limited far below 4 GiB");
    let mut head = [0; RECORD_HEAD];
    head[0..4].copy_from_slice(&len.to_le_bytes());
    head[8] = kind;
    head[9..17].copy_from_slice(&place.index.to_le_bytes());
    head[17..25].copy_from_slice(&place.term.to_le_bytes());
    let crc = seed.record(&[&head[0..4], &head[8..], payload]);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Blocks that a group of so many bytes takes, in bytes.
pub(crate) fn blocks_bytes(group_bytes: u64) -> u64 {
    (group_bytes.div_ceil(SECTOR_DATA as u64) * SECTOR as u64).next_multiple_of(BLOCK as u64)
}

/// Memory that starts on a block, as direct writes demand.
#[derive(Default)]
pub(crate) struct BlockBuffer {
    bytes: Vec<u8>,
}

/// The most bytes kept for the next group.
const KEPT_BUFFER: usize = 4 << 20;

impl BlockBuffer {
    /// Puts a group into sectors, as they stand from `at` on.
    pub(crate) fn seal(&mut self, seed: Seed, at: u64, group: &[u8]) -> &[u8] {
        let size = blocks_bytes(group.len() as u64) as usize;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BUFFER);
        self.bytes.resize(size + BLOCK, 0);
        let start = self.bytes.as_ptr().align_offset(BLOCK);
        let blocks = &mut self.bytes[start..start + size];
        let first = at / SECTOR as u64;
        let sectors = blocks.chunks_exact_mut(SECTOR).zip(group.chunks(SECTOR_DATA));
        for ((sector, data), number) in sectors.zip(first..) {
            sector[..data.len()].copy_from_slice(data);
            let crc = seed.sector(number, &sector[..SECTOR_DATA]);
            sector[SECTOR_DATA..].copy_from_slice(&crc.to_le_bytes());
        }
        &self.bytes[start..start + size]
    }
}

/// What a sector says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectorState {
    /// Written, and as it was written.
    Written,
    /// Never written.
    Blank,
    /// Neither.
    Damaged,
}

/// Judges the sector that stands at an offset of its segment.
pub(crate) fn judge(seed: Seed, at: u64, sector: &[u8]) -> SectorState {
    if sector.iter().all(|byte| *byte == 0) {
        return SectorState::Blank;
    }
    let (data, crc) = sector.split_at(SECTOR_DATA);
    match seed.sector(at / SECTOR as u64, data).to_le_bytes() == crc {
        true => SectorState::Written,
        false => SectorState::Damaged,
    }
}

/// The group's bytes out of its sectors, which must have been judged.
pub(crate) fn join_sectors(sectors: &[u8]) -> Vec<u8> {
    let data = sectors.chunks_exact(SECTOR).map(|sector| &sector[..SECTOR_DATA]);
    data.collect::<Vec<_>>().concat()
}

/// A record and the bytes behind it; an error says what does not read.
pub(crate) fn read_record(seed: Seed, bytes: &Bytes) -> Result<(Record, usize), &'static str> {
    let Some((head, rest)) = bytes.split_first_chunk::<RECORD_HEAD>() else {
        return Err("a record is cut off");
    };
    let len = u32::from_le_bytes(chunk(&head[0..4])) as usize;
    let payload = rest.get(..len).ok_or("a record is longer than its group")?;
    if seed.record(&[&head[0..4], &head[8..], payload]) != u32::from_le_bytes(chunk(&head[4..8])) {
        return Err("a record's CRC does not match");
    }
    let place = Position {
        index: u64::from_le_bytes(chunk(&head[9..17])),
        term: u64::from_le_bytes(chunk(&head[17..25])),
    };
    let payload = bytes.slice(RECORD_HEAD..RECORD_HEAD + len);
    Ok((record_of(head[8], place, payload)?, RECORD_HEAD + len))
}

fn chunk<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the range has the length of the number")
}

fn record_of(kind: u8, place: Position, payload: Bytes) -> Result<Record, &'static str> {
    let Position { index, term } = place;
    let entry = |kind, payload| Ok(Record::Entry(LogEntry { kind, index, term, payload }));
    match (kind, &payload[..]) {
        (GROUP, []) => Ok(Record::Group { number: index, length: term }),
        (HEAD, version) if version == FORMAT_VERSION.to_le_bytes() => {
            Ok(Record::Head { before: place })
        }
        (HEAD, _) => Err("the format is of another version of this program"),
        (HARD_STATE, vote) => {
            let vote = vote.try_into().map_err(|_| "a vote does not read")?;
            let vote = u64::from_le_bytes(vote);
            Ok(Record::HardState(HardState { term, vote, commit: index }))
        }
        (SNAPSHOT, []) => Ok(Record::Snapshot(place)),
        (COMMANDS, _) => entry(EntryKind::Commands, payload),
        (MEMBERS, _) => entry(EntryKind::Members, payload),
        (MEMBERS_JOINT, _) => entry(EntryKind::MembersJoint, payload),
        _ => Err("a record is of no known kind"),
    }
}
