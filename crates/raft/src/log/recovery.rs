//! Opening: from the segments of a directory to what the member knew when it stopped.

use super::{
    Active, LogConfig, Sealed, SegmentedLog, create_segment, file_name,
    frame::{BlockBuffer, Record, Seed},
    io_error,
    scan::{self, Damage, Scan},
    spares::Spares,
};
use crate::{
    disk::Disk,
    error::Error,
    types::{HardState, Location, Position},
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

/// Where every log begins: as if a snapshot with the first members had been installed there.
pub(crate) const ORIGIN: Position = Position { index: 1, term: 1 };

/// What the log held.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// The place just before the first entry.
    pub base: Position,
    /// Term and location of each entry behind the base.
    pub entries: VecDeque<(u64, Location)>,
}

impl Recovered {
    fn origin() -> Self {
        let hard_state = HardState { term: ORIGIN.term, vote: 0, commit: ORIGIN.index };
        Self { hard_state, base: ORIGIN, entries: VecDeque::new() }
    }

    /// The last entry's place, or the base.
    pub fn last(&self) -> Position {
        let index = self.base.index + self.entries.len() as u64;
        let term = self.entries.back().map_or(self.base.term, |(term, _)| *term);
        Position { index, term }
    }

    fn term(&self, index: u64) -> Option<u64> {
        let behind = index.checked_sub(self.base.index)?;
        match usize::try_from(behind).ok()?.checked_sub(1) {
            None => Some(self.base.term),
            Some(slot) => self.entries.get(slot).map(|(term, _)| *term),
        }
    }

    fn restart_at(&mut self, base: Position) {
        self.base = base;
        self.entries.clear();
    }

    /// Takes an entry in. One at an old index replaces all from there on.
    fn entry(&mut self, place: Position, location: Location) -> Result<(), String> {
        let last = self.last().index;
        if place.index > last + 1 {
            return Err(format!("entry {} follows entry {last}: a hole", place.index));
        }
        if place.index <= self.base.index {
            // Only known to be replaced because the entries before it are purged: all committed.
            self.restart_at(place);
            return Ok(());
        }
        self.entries.truncate((place.index - self.base.index - 1) as usize);
        self.entries.push_back((place.term, location));
        Ok(())
    }
}

struct Opening {
    disk: Arc<dyn Disk>,
    config: LogConfig,
    applied: Option<Position>,
    recovered: Recovered,
}

/// One segment as it was found.
struct Read {
    active: Active,
    next_group: u64,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    config: LogConfig,
    applied: Option<Position>,
) -> Result<(SegmentedLog, Recovered), Error> {
    check(&config)?;
    let mut opening = Opening { disk, config, applied, recovered: Recovered::origin() };
    let log = opening.open()?;
    opening.check_against_state()?;
    Ok((log, opening.recovered))
}

fn check(config: &LogConfig) -> Result<(), Error> {
    let sizes = [config.segment_bytes, config.first_segment_bytes];
    match sizes.iter().all(|size| *size >= 4 * crate::disk::BLOCK as u64) {
        true => Ok(()),
        false => Err(Error::Config("a segment of the log must have at least 16 KiB".into())),
    }
}

impl Opening {
    fn open(&mut self) -> Result<SegmentedLog, Error> {
        let segments = self.segments()?;
        let mut reads: Vec<Read> = Vec::new();
        for (place, segment) in segments.iter().enumerate() {
            let newest = place + 1 == segments.len();
            if place > 0 && segments[place - 1] + 1 != *segment {
                let what = "the segment before this one is missing".into();
                return Err(Error::Corrupt { file: file_name(*segment), offset: 0, what });
            }
            let number = reads.last().map(|read| read.next_group);
            reads.extend(self.segment(*segment, number, newest)?);
        }
        match reads.pop() {
            Some(newest) => self.resume(reads, newest),
            None => self.begin(),
        }
    }

    /// Numbers of the segments, after everything that is no segment was removed.
    fn segments(&self) -> Result<Vec<u64>, Error> {
        let mut segments = Vec::new();
        for name in self.disk.list().map_err(io_error("(directory)", "listing the directory"))? {
            if let Some(segment) = segment_of(&name) {
                segments.push(segment);
            } else if name.starts_with("spare-") || name.starts_with("retired-") {
                self.disk.remove(&name).map_err(io_error(&name, "removal"))?;
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Reads a segment; `None` for one whose creation was interrupted.
    fn segment(
        &mut self,
        segment: u64,
        number: Option<u64>,
        newest: bool,
    ) -> Result<Option<Read>, Error> {
        let name = file_name(segment);
        let damaged = |damage: Damage| Error::Corrupt {
            file: name.clone(),
            offset: damage.at,
            what: damage.what,
        };
        let file = self.disk.open(&name).map_err(io_error(&name, "opening"))?;
        if newest {
            file.sync().map_err(io_error(&name, "syncing"))?;
        }
        let size_bytes = file.size_bytes().map_err(io_error(&name, "reading its size"))?;
        let mut bytes = vec![0; size_bytes as usize];
        file.read(0, &mut bytes).map_err(io_error(&name, "reading"))?;
        let seed = Seed::new(segment, self.config.node_id);
        let scan = scan::scan(seed, &bytes, number).map_err(damaged)?;
        if !newest && (scan.torn.is_some() || scan.groups.is_empty()) {
            let what = "acknowledged writes are missing at the end of this segment";
            return Err(damaged(Damage { at: scan.end_at, what: what.into() }));
        }
        if scan.groups.is_empty() {
            self.disk.remove(&name).map_err(io_error(&name, "removing an unfinished segment"))?;
            return Ok(None);
        }
        let (end_at, next_group, torn) = (scan.end_at, scan.next_number, scan.torn.clone());
        let mut active = Active { segment, file, seed, end_at, size_bytes, max_index: 0 };
        self.take_in(&mut active, scan, number.is_none()).map_err(damaged)?;
        if let Some(torn) = torn {
            blank(&active, torn).map_err(io_error(&name, "blanking an interrupted write"))?;
        }
        Ok(Some(Read { active, next_group }))
    }

    fn take_in(&mut self, active: &mut Active, scan: Scan, oldest: bool) -> Result<(), Damage> {
        for group in scan.groups {
            for (offset, len, record) in group.records {
                let location =
                    Location { segment: active.segment, group_at: group.at, offset, len };
                let index = self
                    .record(record, location, oldest)
                    .map_err(|what| Damage { at: group.at, what })?;
                active.max_index = active.max_index.max(index);
            }
        }
        Ok(())
    }

    /// Takes a record in; answers the index up to which it must be kept.
    fn record(&mut self, record: Record, location: Location, oldest: bool) -> Result<u64, String> {
        match record {
            Record::Group { .. } => Err("a group of writes within another".into()),
            Record::Head { before } => {
                if oldest {
                    self.recovered.restart_at(before);
                }
                Ok(0)
            }
            Record::HardState(state) => {
                self.recovered.hard_state = state;
                Ok(0)
            }
            Record::Snapshot(place) => {
                // Written before the snapshot is installed: it counts only if that was finished.
                if self.applied.is_some_and(|applied| applied.index >= place.index) {
                    self.recovered.restart_at(place);
                }
                Ok(place.index)
            }
            Record::Entry(entry) => {
                let place = Position { index: entry.index, term: entry.term };
                self.recovered.entry(place, location).map(|()| place.index)
            }
        }
    }

    fn log(&self, newest: Read, sealed: VecDeque<Sealed>) -> SegmentedLog {
        SegmentedLog {
            disk: Arc::clone(&self.disk),
            spares: Spares::new(Arc::clone(&self.disk), self.config.segment_bytes),
            config: self.config.clone(),
            active: newest.active,
            sealed,
            files: Arc::default(),
            next_group: newest.next_group,
            hard_state: self.recovered.hard_state,
            last: self.recovered.last(),
            broken: None,
            group: Vec::new(),
            blocks: BlockBuffer::default(),
        }
    }

    fn resume(&self, older: Vec<Read>, newest: Read) -> Result<SegmentedLog, Error> {
        let mut files = BTreeMap::new();
        for Read { active, .. } in older.iter().chain([&newest]) {
            files.insert(active.segment, Arc::clone(&active.file));
        }
        let sealed = older.iter().map(|Read { active, .. }| Sealed {
            segment: active.segment,
            max_index: active.max_index,
        });
        let log = self.log(newest, sealed.collect());
        *log.files.lock() = files;
        // The newest name may be in memory only, as may the removal of others.
        self.disk.sync_names().map_err(io_error("(directory)", "syncing the directory"))?;
        Ok(log)
    }

    /// The first segment of a new member.
    fn begin(&self) -> Result<SegmentedLog, Error> {
        if let Some(applied) = self.applied {
            return Err(Error::Mismatch(format!(
                "the state has applied entry {}, and the log is gone: restore it from a backup, or \
                 let this member rejoin with an empty data directory",
                applied.index
            )));
        }
        let size = self.config.first_segment_bytes;
        let active = create_segment(&*self.disk, &self.config, 1, None, size)?;
        let file = Arc::clone(&active.file);
        let mut log = self.log(Read { active, next_group: 1 }, VecDeque::new());
        log.files.lock().insert(1, file);
        log.write_head()?;
        Ok(log)
    }

    fn check_against_state(&mut self) -> Result<(), Error> {
        let applied = self.applied.unwrap_or(ORIGIN);
        let base = self.recovered.base.index;
        let Position { index: last, term: last_term } = self.recovered.last();
        if applied.index < base || applied.index > last {
            return Err(Error::Mismatch(format!(
                "the state has applied entry {}, the log holds {} to {last}: restore both from one \
                 backup, or let this member rejoin with an empty data directory",
                applied.index,
                base + 1
            )));
        }
        if self.recovered.term(applied.index) != Some(applied.term) {
            return Err(Error::Mismatch(format!(
                "entry {} is of another term in the log than in the state (term {})",
                applied.index, applied.term
            )));
        }
        let hard_state = &mut self.recovered.hard_state;
        // Applied says committed: the commit index itself is not synced each time.
        hard_state.commit = hard_state.commit.max(applied.index);
        if hard_state.commit > last {
            let commit = hard_state.commit;
            return Err(Error::Mismatch(format!(
                "entry {commit} is committed, the last is {last}"
            )));
        }
        if hard_state.term < last_term {
            let term = hard_state.term;
            return Err(Error::Mismatch(format!("entries of term {last_term} in term {term}")));
        }
        Ok(())
    }
}

fn segment_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The opening block last: an interruption leaves the same kind of rest.
fn blank(active: &Active, torn: Range<u64>) -> std::io::Result<()> {
    let opening = active.end_at;
    let block = crate::disk::BLOCK as u64;
    let zeros = vec![0; crate::disk::BLOCK];
    let rest = opening + block..torn.end.next_multiple_of(block);
    for at in rest.step_by(crate::disk::BLOCK) {
        active.file.write_synced(at, &zeros)?;
    }
    active.file.write_synced(opening, &zeros)
}
