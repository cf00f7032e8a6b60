//! Opening a directory: catalog, segments, logs, in this order; then a fresh log.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::frame::{End, FrameFile, FrameReader, Kind};
use super::item::Item;
use super::{Durability, Files, Persist, log_path, numbered, sync_dir};
use crate::blocks::BlockRef;
use crate::budget::Wait;
use crate::error::Error;
use crate::index::Index;
use crate::packed::PackedBlock;
use crate::point::{Point, SeriesId};

/// What an opening found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segment files.
    pub segments: u64,
    /// Log files.
    pub logs: u64,
    /// Points read from both, a point in both counting twice.
    pub points: u64,
    /// Bytes cut off the last log because its last frame was not whole: it was never acknowledged.
    pub torn_bytes: u64,
}

/// Takes the directory for this process.
pub(crate) fn lock(dir: &Path) -> Result<File, Error> {
    fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
    let path = dir.join("LOCK");
    let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(Error::io(format!("open {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(dir.into())),
        Err(TryLockError::Error(source)) => {
            Err(Error::Io { doing: format!("lock {}", path.display()), source })
        }
    }
}

/// Which mark a file's points count for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Segment,
    Log,
}

/// Loads everything into `index`, which is still empty, and opens a new log.
pub(crate) fn load(
    index: &Index,
    durability: Durability,
    lock: File,
) -> Result<(Persist, Recovery), Error> {
    let dir = durability.dir.clone();
    let mut recovery = Recovery::default();
    load_catalog(index, &dir)?;
    let segments = numbered(&dir, "segment-")?;
    for (_, path) in &segments {
        let reader = FrameReader::open(path, Kind::Segment)?;
        recovery.points += load_whole(index, reader, Source::Segment)?;
        recovery.segments += 1;
    }
    let logs = numbered(&dir, "log-")?;
    for (at, (_, path)) in logs.iter().enumerate() {
        let last = at + 1 == logs.len();
        recovery.points += load_log(index, path, last, &mut recovery.torn_bytes)?;
        recovery.logs += 1;
    }
    let newest = segments.iter().chain(&logs).map(|(number, _)| number + 1).max().unwrap_or(1);
    let log = FrameFile::create(&log_path(&dir, newest), Kind::Log, &durability.faults)?;
    sync_dir(&dir, &durability.faults)?;
    let files = Files { log, number: newest, poisoned: None, newest: BTreeMap::new() };
    let (pending, files, poisoned) = (Mutex::default(), Mutex::new(files), AtomicBool::new(false));
    Ok((Persist { durability, pending, files, poisoned, _lock: lock }, recovery))
}

fn load_catalog(index: &Index, dir: &Path) -> Result<(), Error> {
    let path = dir.join("catalog");
    if !path.exists() {
        return Ok(());
    }
    load_whole(index, FrameReader::open(&path, Kind::Catalog)?, Source::Segment).map(drop)
}

/// A catalog or a segment: whole to its end mark, or corrupt.
fn load_whole(index: &Index, mut reader: FrameReader, source: Source) -> Result<u64, Error> {
    let mut points = 0;
    let mut ended = false;
    loop {
        let at = reader.offset() as usize;
        match reader.next()? {
            Ok(frame) => {
                let loaded = load_frame(index, frame, source);
                let (more, end) = loaded.map_err(|why| why.at(&reader, at))?;
                points += more;
                ended |= end;
            }
            Err(End::Clean) if ended => return Ok(points),
            Err(_) => return Err(reader.corrupt(at, "it ends too early")),
        }
    }
}

/// A log. Only the last one may end in a torn frame, which is cut off.
fn load_log(index: &Index, path: &Path, last: bool, torn_bytes: &mut u64) -> Result<u64, Error> {
    let mut reader = FrameReader::open(path, Kind::Log)?;
    let mut points = 0;
    loop {
        let at = reader.offset() as usize;
        match reader.next()? {
            Ok(frame) => {
                let loaded = load_frame(index, frame, Source::Log);
                points += loaded.map_err(|why| why.at(&reader, at))?.0;
            }
            Err(End::Clean) => return Ok(points),
            Err(End::Torn) if last => {
                *torn_bytes = reader.size_bytes() - reader.offset();
                return cut(path, reader.offset()).map(|()| points);
            }
            Err(End::Torn) => return Err(reader.corrupt(at, "it ends inside a frame")),
        }
    }
}

fn cut(path: &Path, size_bytes: u64) -> Result<(), Error> {
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(size_bytes)?;
        file.sync_all()
    });
    cut.map_err(Error::io(format!("cut the torn end off {}", path.display())))
}

/// Why a frame could not be taken: what it holds, or what the index said to it.
enum Refused {
    Content(&'static str),
    Index(Error),
}

impl Refused {
    fn at(self, reader: &FrameReader, at: usize) -> Error {
        match self {
            Refused::Content(what) => reader.corrupt(at, what),
            Refused::Index(error) => error,
        }
    }
}

/// The points of a frame, and whether it holds the end mark.
fn load_frame(index: &Index, mut frame: &[u8], source: Source) -> Result<(u64, bool), Refused> {
    let mut points = 0;
    while !frame.is_empty() {
        let item = Item::read_from(&mut frame, &index.inner.budget).map_err(Refused::Content)?;
        match item {
            Item::Register { id, labels } => index.restore(id, labels),
            Item::Remove { id } => index.restore_removed(id).map_err(Refused::Index)?,
            Item::Points { id, block } => {
                points += block.len() as u64;
                load_points(index, id, block, source).map_err(Refused::Index)?;
            }
            Item::End => return Ok((points, true)),
        }
    }
    Ok((points, false))
}

/// Points of a series that is not there belong to one that was removed later: they are passed over.
fn load_points(
    index: &Index,
    id: SeriesId,
    block: PackedBlock,
    source: Source,
) -> Result<(), Error> {
    let Ok(mut writer) = index.writer(id) else { return Ok(()) };
    // Nobody gives memory back while an index is being opened: waiting would be for ever.
    writer.set_wait(Wait::Never);
    let mut points = Vec::with_capacity(block.len());
    let (first, last) = (block.first_time(), block.last_time());
    let in_order = first > writer.newest();
    if source == Source::Log || !in_order {
        block.copy(first, last, &mut points);
    }
    mark(index, id, &points, last, source);
    if in_order && source == Source::Segment {
        writer.close_block();
        writer.link_closed(first, BlockRef::Packed(block.into()));
        writer.set_newest(last);
        return Ok(());
    }
    writer.extend(&points).map(drop).map_err(|partial| partial.error)
}

/// A loaded point is in the log in any case; in a segment, if it came from one.
fn mark(index: &Index, id: SeriesId, points: &[Point], last: i64, source: Source) {
    let Some(series) = index.inner.table.get(id) else { return };
    let mut taken = series.taken.lock();
    taken.logged.until = taken.logged.until.max(Some(last));
    match source {
        Source::Segment => taken.flushed.until = taken.flushed.until.max(Some(last)),
        Source::Log => points.iter().for_each(|point| taken.flushed.note_late(*point)),
    }
}

/// The newest time that a segment holds.
pub(super) fn newest_time(path: &Path) -> Result<Option<i64>, Error> {
    let mut reader = FrameReader::open(path, Kind::Segment)?;
    let budget = crate::budget::Budget::new(u64::MAX);
    let mut newest = None;
    loop {
        let at = reader.offset() as usize;
        let Ok(mut frame) = reader.next()? else { return Ok(newest) };
        let mut why = None;
        while why.is_none() && !frame.is_empty() {
            match Item::read_from(&mut frame, &budget) {
                Ok(Item::Points { block, .. }) => newest = newest.max(Some(block.last_time())),
                Ok(_) => {}
                Err(what) => why = Some(what),
            }
        }
        if let Some(what) = why {
            return Err(reader.corrupt(at, what));
        }
    }
}
