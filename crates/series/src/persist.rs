//! Durability: a log of recent points, segments of older ones, a catalog of series. Off unless asked for.
//!
//! ```text
//!   dir/LOCK                     one process at a time
//!   dir/catalog                  which series there are, as of the last flush        replaced by rename
//!   dir/segment-<n>              points as packed blocks, whole and immutable        appears by rename
//!   dir/log-<n>                  one frame for each sync, synced before it counts    appended
//! ```
//!
//! Appends pay nothing: a sync *pulls* what is new out of the index, by time. In order, that is
//! everything after the newest time already taken; late points are noted aside as they come. All points
//! appended before `sync` was called are on stable storage when it returns; calls that meet share one.
//!
//! A flush writes all that is not in a segment yet into a new one, then drops the logs before it. Loading
//! goes catalog, segments, logs, each in order of their numbers, newest value wins: replaying a point
//! that a segment has already changes nothing.
//!
//! Invariants: a file is trusted frame by frame, each with its CRC; only the last frame of the last log
//! may be torn, and is cut off; anything else that does not hold is an error that names file and byte. A
//! failed write stops durability for good (`Error::Poisoned`): memory stays readable, and appends are
//! refused, at the latest by the next block, because they could not become durable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::block::BLOCK_POINTS;
use crate::error::Error;
use crate::index::{Index, Inner};
use crate::labels::Labels;
use crate::late::sort_newest_wins;
use crate::packed::PackedBlock;
use crate::point::{MAX_TIME, Point, SeriesId};
use crate::series::Series;

mod faults;
mod frame;
mod item;
mod recover;

pub use faults::{Faults, FileStep};
use frame::{FrameFile, Kind};
use item::Item;
pub use recover::Recovery;
pub(crate) use recover::{load, lock};

/// A log that has grown to this is flushed into a segment: it bounds the time of recovery.
pub const DEFAULT_FLUSH_LOG_BYTES: u64 = 64 << 20;
/// A frame is closed at this size, so that reading one back needs little memory.
const FRAME_BYTES: usize = 4 << 20;

/// Where and how points become durable.
#[derive(Debug, Clone)]
pub struct Durability {
    /// A directory of its own.
    pub dir: PathBuf,
    /// How often a thread syncs by itself; `None` leaves it to `Index::sync`.
    pub sync_every: Option<Duration>,
    /// Log size at which a sync also flushes.
    pub flush_log_bytes: u64,
    /// For tests of what a failing disk does.
    pub faults: Faults,
}

impl Durability {
    /// In `dir`, syncing ten times a second.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Durability {
        Durability {
            dir: dir.into(),
            sync_every: Some(Duration::from_millis(100)),
            flush_log_bytes: DEFAULT_FLUSH_LOG_BYTES,
            faults: Faults::default(),
        }
    }
}

/// What of one series is on disk already.
#[derive(Default)]
pub(crate) struct Taken {
    /// In the log up to this time.
    logged: Mark,
    /// In segments up to this time.
    flushed: Mark,
}

/// Everything up to `until` was taken; `late` is what came below it since.
#[derive(Default)]
struct Mark {
    until: Option<i64>,
    late: Vec<Point>,
}

impl Mark {
    /// The late points since the last take, sorted, and everything newer than it.
    fn take(&mut self, series: &Series) -> [Vec<Point>; 2] {
        let mut late = std::mem::take(&mut self.late);
        sort_newest_wins(&mut late);
        let mut newer = Vec::new();
        let from = self.until.map_or(-MAX_TIME, |until| until + 1);
        series.copy(from, MAX_TIME, &mut newer);
        self.until = newer.last().map(|point| point.time).or(self.until);
        [late, newer]
    }

    fn note_late(&mut self, point: Point) {
        if self.until.is_some_and(|until| point.time <= until) {
            self.late.push(point);
        }
    }
}

impl Taken {
    /// Notes a late point that a mark has already passed.
    pub(crate) fn note_late(&mut self, point: Point) {
        self.logged.note_late(point);
        self.flushed.note_late(point);
    }
}

/// The files of one index.
pub(crate) struct Persist {
    durability: Durability,
    /// Registrations and removals since the last sync.
    pending: Mutex<Vec<Item>>,
    files: Mutex<Files>,
    /// Set for good with `Files::poisoned`, so that an append need not lock to know.
    poisoned: AtomicBool,
    _lock: File,
}

struct Files {
    log: FrameFile,
    /// The log's number; the next segment gets the same.
    number: u64,
    poisoned: Option<String>,
    /// The newest time of each segment that was asked for: its file is read for it once.
    newest: BTreeMap<u64, Option<i64>>,
}

/// What one sync wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synced {
    /// Points that are durable now and were not before.
    pub points: u64,
    /// Bytes written for them.
    pub size_bytes: u64,
    /// Whether the log was also flushed into a segment.
    pub flushed: bool,
}

impl Persist {
    pub(crate) fn note_registered(&self, id: SeriesId, labels: Option<Arc<Labels>>) {
        self.pending.lock().push(Item::Register { id, labels });
    }

    pub(crate) fn note_removed(&self, id: SeriesId) {
        self.pending.lock().push(Item::Remove { id });
    }

    pub(crate) fn sync_every(&self) -> Option<Duration> {
        self.durability.sync_every
    }

    /// Takes everything new into the log, synced; flushes if the log has grown enough.
    pub(crate) fn sync(&self, inner: &Inner) -> Result<Synced, Error> {
        let mut files = self.files.lock();
        files.check()?;
        let result = self.sync_files(inner, &mut files);
        self.poison(&mut files, result)
    }

    fn sync_files(&self, inner: &Inner, files: &mut Files) -> Result<Synced, Error> {
        let before = files.log.size_bytes();
        let pending = std::mem::take(&mut *self.pending.lock());
        let points = write_points(&mut files.log, pending, inner, |taken| &mut taken.logged)?;
        files.log.sync()?;
        let size_bytes = files.log.size_bytes() - before;
        let flushed = files.log.size_bytes() >= self.durability.flush_log_bytes;
        if flushed {
            self.flush_files(inner, files)?;
        }
        Ok(Synced { points, size_bytes, flushed })
    }

    /// Moves everything from the logs into a segment.
    pub(crate) fn flush(&self, inner: &Inner) -> Result<(), Error> {
        let mut files = self.files.lock();
        files.check()?;
        let result = self.sync_files(inner, &mut files);
        let result = result.and_then(|synced| match synced.flushed {
            true => Ok(()),
            false => self.flush_files(inner, &mut files),
        });
        self.poison(&mut files, result)
    }

    /// After a failed write nobody knows what the disk holds: no later success can be believed.
    fn poison<T>(&self, files: &mut Files, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            files.poisoned = Some(error.to_string());
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }

    #[inline]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// [`Error::Poisoned`] after a failed write.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.files.lock().check()
    }

    /// The order matters: the new log first, so that nothing appended meanwhile is in no file; the
    /// catalog before the segment that names its series; old logs last.
    fn flush_files(&self, inner: &Inner, files: &mut Files) -> Result<(), Error> {
        let Durability { dir, faults, .. } = &self.durability;
        let old = files.number;
        files.log = FrameFile::create(&log_path(dir, old + 1), Kind::Log, faults)?;
        files.number = old + 1;
        sync_dir(dir, faults)?;
        write_catalog(dir, inner, faults)?;
        write_segment(dir, old, inner, faults)?;
        for (number, path) in numbered(dir, "log-")? {
            if number <= old {
                remove(&path, faults)?;
            }
        }
        sync_dir(dir, faults)
    }

    /// Removes segments that hold nothing any more that is to be kept, whole.
    pub(crate) fn retain(&self, inner: &Inner) -> Result<usize, Error> {
        let mut files = self.files.lock();
        // After the lock: what is appended from now on is in no segment that exists.
        let needed_from = inner.files_needed_from();
        let mut removed = 0;
        for (number, path) in numbered(&self.durability.dir, "segment-")? {
            let newest = match files.newest.get(&number) {
                Some(newest) => *newest,
                None => recover::newest_time(&path)?,
            };
            files.newest.insert(number, newest);
            if newest.is_some_and(|newest| newest < needed_from) {
                remove(&path, &self.durability.faults)?;
                files.newest.remove(&number);
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Bytes of the present log, and whether a failed write has stopped durability.
    pub(crate) fn state(&self) -> (u64, bool) {
        let files = self.files.lock();
        (files.log.size_bytes(), files.poisoned.is_some())
    }
}

impl Files {
    fn check(&self) -> Result<(), Error> {
        self.poisoned.as_ref().map_or(Ok(()), |why| Err(Error::Poisoned(why.clone())))
    }
}

/// Writes `first` and everything new of every series by one of its marks; says how many points.
fn write_points(
    file: &mut FrameFile,
    first: Vec<Item>,
    inner: &Inner,
    mark: impl Fn(&mut Taken) -> &mut Mark,
) -> Result<u64, Error> {
    let mut frame = Vec::new();
    first.iter().for_each(|item| item.write_to(&mut frame));
    let mut written = 0;
    for series in inner.table.iter() {
        let parts = mark(&mut series.taken.lock()).take(series);
        for chunk in parts.iter().flat_map(|part| part.chunks(BLOCK_POINTS)) {
            written += chunk.len() as u64;
            let block = PackedBlock::pack(chunk, &inner.budget);
            Item::write_points(series.id, &block, &mut frame);
            if frame.len() >= FRAME_BYTES {
                file.append(&frame)?;
                frame.clear();
            }
        }
    }
    if !frame.is_empty() {
        file.append(&frame)?;
    }
    Ok(written)
}

fn write_segment(dir: &Path, number: u64, inner: &Inner, faults: &Faults) -> Result<(), Error> {
    let path = dir.join(format!("segment-{number:016x}"));
    let unfinished = path.with_extension("unfinished");
    let mut file = FrameFile::create(&unfinished, Kind::Segment, faults)?;
    if write_points(&mut file, Vec::new(), inner, |taken| &mut taken.flushed)? == 0 {
        return remove(&unfinished, faults);
    }
    file.append(&Item::End.bytes())?;
    finish(file, &unfinished, &path, faults)
}

fn write_catalog(dir: &Path, inner: &Inner, faults: &Faults) -> Result<(), Error> {
    let path = dir.join("catalog");
    let unfinished = path.with_extension("unfinished");
    let mut file = FrameFile::create(&unfinished, Kind::Catalog, faults)?;
    let mut frame = Vec::new();
    for id in 0..inner.table.end() {
        let Some(series) = inner.table.get(SeriesId(id)) else { continue };
        let item = match series.is_removed() {
            true => Item::Remove { id: series.id },
            false => Item::Register { id: series.id, labels: series.labels.clone() },
        };
        item.write_to(&mut frame);
    }
    file.append(&frame)?;
    file.append(&Item::End.bytes())?;
    finish(file, &unfinished, &path, faults)
}

/// A file gets its name only when it is whole and synced.
fn finish(mut file: FrameFile, from: &Path, to: &Path, faults: &Faults) -> Result<(), Error> {
    file.sync()?;
    let renamed = faults.before(FileStep::Rename, to).and_then(|()| fs::rename(from, to));
    renamed.map_err(Error::io(format!("rename to {}", to.display())))?;
    to.parent().map_or(Ok(()), |dir| sync_dir(dir, faults))
}

fn remove(path: &Path, faults: &Faults) -> Result<(), Error> {
    let removed = faults.before(FileStep::Remove, path).and_then(|()| fs::remove_file(path));
    removed.map_err(Error::io(format!("remove {}", path.display())))
}

fn sync_dir(dir: &Path, faults: &Faults) -> Result<(), Error> {
    let opened = faults.before(FileStep::Sync, dir).and_then(|()| File::open(dir));
    let synced = opened.and_then(|dir| dir.sync_all());
    synced.map_err(Error::io(format!("sync directory {}", dir.display())))
}

fn log_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log-{number:016x}"))
}

/// The files of `dir` with this prefix, in the order of their numbers.
fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>, Error> {
    let listing = || Error::io(format!("list {}", dir.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(listing())? {
        let path = entry.map_err(listing())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(digits) = name.strip_prefix(prefix)
            && let Ok(number) = u64::from_str_radix(digits, 16)
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

impl Index {
    /// Makes every point appended before this call durable. Without durability, nothing to do.
    ///
    /// # Errors
    /// [`Error::Io`] the first time that a write fails, [`Error::Poisoned`] ever after.
    pub fn sync(&self) -> Result<Synced, Error> {
        self.inner.persist.get().map_or(Ok(Synced::default()), |persist| persist.sync(&self.inner))
    }

    /// Moves what the log holds into a segment, so that the next opening has less to replay.
    ///
    /// # Errors
    /// As [`Index::sync`].
    pub fn flush(&self) -> Result<(), Error> {
        self.inner.persist.get().map_or(Ok(()), |persist| persist.flush(&self.inner))
    }

    /// What was found on disk when this index was opened.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.inner.recovery.get().copied().unwrap_or_default()
    }
}
