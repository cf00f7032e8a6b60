//! The directory of a memory engine that is durable by itself: lock, checkpoints, logs.
//!
//! A log that has outgrown the last checkpoint is followed by a new one; a checkpoint of that moment
//! is then written beside the running engine, and what it makes superfluous is removed.

use super::{checkpoint, log, log::Log, view::View};
use crate::{Error, Result, disk};
use parking_lot::{Condvar, Mutex};
use rustix::fs::FlockOperation;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A log is not replaced before it is this long: replaying it takes about a second.
const MIN_LOG_BYTES: u64 = 64 << 20;

/// See the module.
pub(super) struct Home {
    dir: PathBuf,
    _lock: File,
    /// Bytes appended to all logs since opening.
    appended: AtomicU64,
    synced: Mutex<Synced>,
    /// Told when a sync ends.
    sync_ended: Condvar,
    /// The log that is being appended to.
    current: Mutex<Arc<File>>,
    /// Size of the newest checkpoint.
    checkpoint_bytes: AtomicU64,
}

/// How much of the logs is durable.
#[derive(Default)]
struct Synced {
    /// Bytes that are known to be.
    bytes: u64,
    /// One of the callers is syncing for all who wait.
    running: bool,
    /// A sync failed: what the system has dropped since can no longer be found out.
    failed: bool,
}

/// What a directory held.
pub(super) struct Opened {
    pub(super) home: Home,
    pub(super) view: View,
    pub(super) log: Log,
}

impl Home {
    pub(super) fn open(dir: &Path) -> Result<Opened> {
        std::fs::create_dir_all(dir).map_err(|source| disk::io(dir, source))?;
        let lock = lock(dir)?;
        let (checkpoints, logs) = (numbers(dir, "checkpoint-")?, numbers(dir, "log-")?);
        let newest = checkpoints.last().copied();
        let mut view = match newest {
            Some(number) => checkpoint::read(&checkpoint_dir(dir, number))?,
            None => View::default(),
        };
        let start = newest.unwrap_or(0);
        let log = replay_all(dir, start, &logs, &mut view)?;
        let current = Mutex::new(log.file());
        let home = Self {
            dir: dir.to_owned(),
            _lock: lock,
            appended: AtomicU64::new(0),
            synced: Mutex::default(),
            sync_ended: Condvar::new(),
            current,
            checkpoint_bytes: AtomicU64::new(checkpoint_size(dir, newest)?),
        };
        home.remove_before(start)?;
        Ok(Opened { home, view, log })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes bytes that were appended; gives the position behind them.
    pub(super) fn appended(&self, size: u64) -> u64 {
        self.appended.fetch_add(size, Ordering::AcqRel) + size
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Returns once everything up to `position` is durable. Of several callers, one syncs for all
    /// that was appended by then; the others sleep, so that the next sync is for all of them.
    pub(super) fn sync_to(&self, position: u64) -> Result<()> {
        let mut synced = self.synced.lock();
        while synced.running && synced.bytes < position {
            self.sync_ended.wait(&mut synced);
        }
        if synced.failed {
            return Err(disk::io(&self.dir, std::io::Error::other("an earlier sync failed")));
        }
        if synced.bytes >= position {
            return Ok(());
        }
        synced.running = true;
        drop(synced);
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        // In this order: a log that is replaced in between was synced before it was replaced.
        let target = self.appended.load(Ordering::Acquire);
        let file = Arc::clone(&self.current.lock());
        let outcome = file.sync_data();
        let mut synced = self.synced.lock();
        synced.running = false;
        match outcome {
            Ok(()) => synced.bytes = target,
            Err(_) => synced.failed = true,
        }
        self.sync_ended.notify_all();
        outcome.map_err(|source| disk::io(&self.dir, source))
    }

    pub(super) fn is_outgrown(&self, log: &Log) -> bool {
        log.size_bytes() > MIN_LOG_BYTES.max(self.checkpoint_bytes.load(Ordering::Relaxed))
    }

    /// Ends `log` and begins the next one.
    pub(super) fn next_log(&self, log: &mut Log) -> Result<u64> {
        log.sync()?;
        let number = log.number() + 1;
        *log = Log::create(&self.dir, number)?;
        *self.current.lock() = log.file();
        Ok(number)
    }

    /// Writes the state before log `number`, then removes what it replaces.
    pub(super) fn checkpoint(&self, number: u64, view: &View) -> Result<()> {
        checkpoint::write(view, &checkpoint_dir(&self.dir, number))?;
        let size = checkpoint_size(&self.dir, Some(number))?;
        self.checkpoint_bytes.store(size, Ordering::Relaxed);
        self.remove_before(number)
    }

    fn remove_before(&self, number: u64) -> Result<()> {
        for old in numbers(&self.dir, "log-")?.into_iter().filter(|old| *old < number) {
            let path = log::path(&self.dir, old);
            std::fs::remove_file(&path).map_err(|source| disk::io(&path, source))?;
        }
        for old in numbers(&self.dir, "checkpoint-")?.into_iter().filter(|old| *old < number) {
            disk::remove_dir(&checkpoint_dir(&self.dir, old))?;
        }
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let file = File::create(&path).map_err(|source| disk::io(&path, source))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Error::InUse { path: dir.to_owned() })?;
    Ok(file)
}

/// Replays the logs from `start` on, without a gap; the last one is continued.
fn replay_all(dir: &Path, start: u64, logs: &[u64], view: &mut View) -> Result<Log> {
    let logs: Vec<u64> = logs.iter().copied().filter(|log| *log >= start).collect();
    let mut last = None;
    for (expected, number) in (start..).zip(&logs) {
        if *number != expected {
            let path = log::path(dir, expected);
            return Err(Error::Corrupt {
                path,
                what: "it is missing, but a newer log exists".into(),
            });
        }
        last = log::replay(dir, *number, Some(number) == logs.last(), view)?;
    }
    last.map_or_else(|| Log::create(dir, start), Ok)
}

fn checkpoint_dir(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("checkpoint-{number}"))
}

fn checkpoint_size(dir: &Path, number: Option<u64>) -> Result<u64> {
    let Some(number) = number else { return Ok(0) };
    disk::size(&checkpoint_dir(dir, number))
}

/// The numbers behind `prefix`, sorted; other names (an interrupted checkpoint) are passed over.
fn numbers(dir: &Path, prefix: &str) -> Result<Vec<u64>> {
    let number = |path: PathBuf| path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok();
    let mut numbers: Vec<u64> = disk::entries(dir)?.into_iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
