//! The log: segments of groups, each group one synced write.
//!
//! ```text
//! 0000…1.log      0000…2.log           0000…3.log (active)            spare-7
//! head group group│head group group … │head group group │ zeros …    │ zeros
//!                  ▲ older than the checkpoint: purged, zeroed, reused
//! ```
//! * What [`SegmentedLog::append`] answered for is durable; nothing of it is written again.
//! * Each segment opens with a copy of the hard state and of the place where the log stood, so that
//!   older segments can go without a trace.
//! * An error of the disk is final: a sync that failed once may succeed later without the data.
//! * What was read at the start is synced before it is believed: after the crash of the process
//!   alone it may have been in the page cache only.

mod frame;
mod recovery;
mod scan;
mod spares;

pub(crate) use recovery::ORIGIN;
pub use recovery::Recovered;
pub use spares::Housekeeping;

use crate::{
    disk::{BLOCK, Disk, DiskFile, SECTOR},
    error::Error,
    types::{HardState, Location, LogEntry, LogWrite, Position},
};
use bytes::Bytes;
use frame::{BlockBuffer, GroupWriter, Record, SECTOR_DATA, SectorState, Seed};
use parking_lot::Mutex;
use spares::Spares;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Whose log it is: a log of another member does not read.
    pub node_id: u64,
    /// Size of a segment, a multiple of the block. Default 16 MiB: a second of heavy load, so
    /// that files change rarely, and little enough to zero one aside.
    pub segment_bytes: u64,
    /// Size of the very first segment, which is zeroed while the node starts. Default 256 KiB.
    pub first_segment_bytes: u64,
}

impl LogConfig {
    /// The defaults for a member.
    pub fn new(node_id: u64) -> Self {
        Self { node_id, segment_bytes: 16 << 20, first_segment_bytes: 256 << 10 }
    }
}

type Files = Arc<Mutex<BTreeMap<u64, Arc<dyn DiskFile>>>>;

/// The log of one member.
pub struct SegmentedLog {
    disk: Arc<dyn Disk>,
    config: LogConfig,
    active: Active,
    /// Segments before the active one.
    sealed: VecDeque<Sealed>,
    files: Files,
    spares: Spares,
    next_group: u64,
    hard_state: HardState,
    last: Position,
    broken: Option<String>,
    group: Vec<u8>,
    blocks: BlockBuffer,
}

struct Active {
    segment: u64,
    file: Arc<dyn DiskFile>,
    seed: Seed,
    end_at: u64,
    size_bytes: u64,
    max_index: u64,
}

struct Sealed {
    segment: u64,
    max_index: u64,
}

/// Reads entries back, from any thread.
#[derive(Clone)]
pub struct LogReader {
    files: Files,
    node_id: u64,
}

fn file_name(segment: u64) -> String {
    format!("{segment:016x}.log")
}

fn io_error(file: &str, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let file = file.to_owned();
    move |source| Error::Io { file, action, source }
}

impl SegmentedLog {
    /// Opens the log of a member whose state machine has applied up to a place, and makes it where
    /// there is none.
    pub fn open(
        disk: Arc<dyn Disk>,
        config: LogConfig,
        applied: Option<Position>,
    ) -> Result<(Self, Recovered), Error> {
        recovery::open(disk, config, applied)
    }

    /// Puts one group into the log; durable when it returns. Answers where the entries stand.
    pub fn append(&mut self, write: &LogWrite) -> Result<Vec<Location>, Error> {
        if let Some(cause) = &self.broken {
            return Err(Error::Poisoned(cause.as_str().into()));
        }
        let result = self.append_group(write);
        if let Err(error) = &result {
            self.broken = Some(error.to_string());
        }
        result
    }

    fn append_group(&mut self, write: &LogWrite) -> Result<Vec<Location>, Error> {
        let needed = frame::blocks_bytes(upper_bound(write));
        if self.active.end_at + needed > self.active.size_bytes {
            self.roll(needed)?;
        }
        let mut group = GroupWriter::new(self.active.seed, std::mem::take(&mut self.group));
        if let Some(state) = write.hard_state {
            group.hard_state(state);
        }
        if let Some(place) = write.snapshot {
            group.snapshot(place);
        }
        let offsets: Vec<u64> = write.entries.iter().map(|entry| group.entry(entry)).collect();
        let group_at = self.active.end_at;
        self.write(group)?;
        self.remember(write);
        let located = write.entries.iter().zip(offsets);
        let segment = self.active.segment;
        Ok(located.map(|(entry, offset)| location(segment, group_at, offset, entry)).collect())
    }

    fn write(&mut self, group: GroupWriter) -> Result<(), Error> {
        let active = &mut self.active;
        let group = group.finish(self.next_group);
        let blocks = self.blocks.seal(active.seed, active.end_at, &group);
        let written = active.file.write_synced(active.end_at, blocks);
        written.map_err(io_error(&file_name(active.segment), "a synced write"))?;
        active.end_at += blocks.len() as u64;
        self.next_group += 1;
        self.group = group;
        Ok(())
    }

    fn remember(&mut self, write: &LogWrite) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        let entry =
            write.entries.last().map(|last| Position { index: last.index, term: last.term });
        for place in write.snapshot.into_iter().chain(entry) {
            self.last = place;
            self.active.max_index = self.active.max_index.max(place.index);
        }
    }

    /// Goes on in a new segment that has room for a group.
    fn roll(&mut self, group_bytes: u64) -> Result<(), Error> {
        let sealed = Sealed { segment: self.active.segment, max_index: self.active.max_index };
        let active = self.create(sealed.segment + 1, group_bytes)?;
        self.sealed.push_back(sealed);
        self.active = active;
        self.write_head()
    }

    fn create(&self, segment: u64, group_bytes: u64) -> Result<Active, Error> {
        let fits = group_bytes + BLOCK as u64 <= self.config.segment_bytes;
        let spare = if fits { self.spares.take() } else { None };
        let size = match spare {
            Some(_) => self.config.segment_bytes,
            None => self.config.first_segment_bytes.max(group_bytes + BLOCK as u64),
        };
        create_segment(&*self.disk, &self.config, segment, spare, size).inspect(|active| {
            self.files.lock().insert(segment, Arc::clone(&active.file));
        })
    }

    /// The group that every segment opens with; its name is durable afterwards too.
    fn write_head(&mut self) -> Result<(), Error> {
        let mut group = GroupWriter::new(self.active.seed, std::mem::take(&mut self.group));
        group.head(self.last);
        group.hard_state(self.hard_state);
        self.write(group)?;
        let name = file_name(self.active.segment);
        self.disk.sync_names().map_err(io_error(&name, "syncing the directory"))
    }

    /// Lets go of segments that hold nothing behind an index.
    pub fn purge(&mut self, up_to: u64) -> Result<(), Error> {
        let mut retired = Vec::new();
        while self.sealed.front().is_some_and(|sealed| sealed.max_index <= up_to) {
            let Some(Sealed { segment, .. }) = self.sealed.pop_front() else { break };
            let (from, to) = (file_name(segment), format!("retired-{segment:016x}"));
            self.disk.rename(&from, &to).map_err(io_error(&from, "retiring a segment"))?;
            self.files.lock().remove(&segment);
            retired.push(to);
        }
        if let Some(name) = retired.first() {
            // A segment is overwritten only after its old name is gone for good.
            self.disk.sync_names().map_err(io_error(name, "syncing the directory"))?;
        }
        retired.into_iter().for_each(|name| self.spares.retire(name));
        Ok(())
    }

    /// Work to be done off this thread, where there is some.
    pub fn housekeeping(&self) -> Option<Housekeeping> {
        self.spares.job(self.active.end_at > self.active.size_bytes / 2)
    }

    /// Reads entries back.
    pub fn reader(&self) -> LogReader {
        LogReader { files: Arc::clone(&self.files), node_id: self.config.node_id }
    }

    /// Segments in use, the active one included.
    pub fn segments(&self) -> usize {
        self.sealed.len() + 1
    }
}

/// More than the group will take.
fn upper_bound(write: &LogWrite) -> u64 {
    /// Opening record, hard state with its vote, snapshot.
    const FIXED: usize = 3 * frame::RECORD_HEAD + size_of::<u64>();
    let entries = write.entries.iter().map(|entry| frame::RECORD_HEAD + entry.payload.len());
    (FIXED + entries.sum::<usize>()) as u64
}

fn location(segment: u64, group_at: u64, offset: u64, entry: &LogEntry) -> Location {
    let len = (frame::RECORD_HEAD + entry.payload.len()) as u32;
    Location { segment, group_at, offset, len }
}

fn create_segment(
    disk: &dyn Disk,
    config: &LogConfig,
    segment: u64,
    spare: Option<String>,
    size_bytes: u64,
) -> Result<Active, Error> {
    let name = file_name(segment);
    let size_bytes = size_bytes.next_multiple_of(BLOCK as u64);
    let from = match spare {
        Some(spare) => spare,
        None => {
            let fresh = String::from("spare-fresh");
            disk.zero(&fresh, size_bytes).map_err(io_error(&fresh, "zeroing a new segment"))?;
            fresh
        }
    };
    disk.rename(&from, &name).map_err(io_error(&name, "naming a new segment"))?;
    let file = disk.open(&name).map_err(io_error(&name, "opening"))?;
    let seed = Seed::new(segment, config.node_id);
    Ok(Active { segment, file, seed, end_at: 0, size_bytes, max_index: 0 })
}

impl LogReader {
    /// Reads an entry, and makes sure that it is the one.
    pub fn read(&self, at: Location, index: u64, term: u64) -> Result<LogEntry, Error> {
        let name = file_name(at.segment);
        let corrupt = |offset, what: &str| Error::Corrupt {
            file: name.clone(),
            offset,
            what: what.to_owned(),
        };
        let file = self.files.lock().get(&at.segment).map(Arc::clone);
        let file = file.ok_or_else(|| corrupt(0, "the segment is purged"))?;
        let seed = Seed::new(at.segment, self.node_id);
        let (first, end) = (
            at.offset / SECTOR_DATA as u64,
            (at.offset + u64::from(at.len)).div_ceil(SECTOR_DATA as u64),
        );
        let from = at.group_at + first * SECTOR as u64;
        let mut sectors = vec![0; ((end - first) * SECTOR as u64) as usize];
        file.read(from, &mut sectors).map_err(io_error(&name, "reading an entry"))?;
        for (sector, offset) in sectors.chunks_exact(SECTOR).zip((from..).step_by(SECTOR)) {
            if frame::judge(seed, offset, sector) != SectorState::Written {
                return Err(corrupt(offset, "a sector's CRC does not match"));
            }
        }
        let skip = (at.offset - first * SECTOR_DATA as u64) as usize;
        let bytes = Bytes::from(frame::join_sectors(&sectors)).slice(skip..skip + at.len as usize);
        match frame::read_record(seed, &bytes).map_err(|what| corrupt(from, what))? {
            (Record::Entry(entry), _) if (entry.index, entry.term) == (index, term) => Ok(entry),
            _ => Err(corrupt(from, "another entry stands here")),
        }
    }
}
