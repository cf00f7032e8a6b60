//! The directory of a memory engine that is durable by itself: lock, checkpoints, logs.
//!
//! ```text
//! DIR/LOCK
//! DIR/checkpoint-N/state     everything before log N (DIR/state in a copied checkpoint, until it is opened)
//! DIR/log-N                  see `crate::log`
//! ```
//! A log that has outgrown the last checkpoint is followed by a new one; a checkpoint of that moment
//! is then written beside the running engine, and what it makes superfluous is removed.

use super::{checkpoint, operations, view::View};
use crate::{
    Error, Result, disk,
    log::{self, Log, sync::Syncs},
};
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A log is not replaced before it is this long: replaying it takes about a second.
const MIN_LOG_BYTES: u64 = 64 << 20;
const CHECKPOINT: &str = "checkpoint-";

/// See the module.
pub(super) struct Home {
    dir: PathBuf,
    /// None once closed.
    lock: Mutex<Option<File>>,
    syncs: Syncs,
    /// Size of the newest checkpoint.
    checkpoint_bytes: AtomicU64,
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
        take_over_checkpoint(dir)?;
        let Found { newest, view, end } = Found::in_dir(dir)?;
        let start = newest.unwrap_or(0);
        let log = match end {
            Some(end) => Log::resume(end.path, end.number, end.size_bytes)?,
            None => Log::create(dir, start)?,
        };
        let home = Self {
            dir: dir.to_owned(),
            lock: Mutex::new(Some(lock)),
            syncs: Syncs::new(dir.to_owned(), log.file()),
            checkpoint_bytes: AtomicU64::new(checkpoint_size(dir, newest)?),
        };
        home.remove_before(start)?;
        Ok(Opened { home, view, log })
    }

    /// The state that `dir` holds, of which nothing is changed.
    pub(super) fn read(dir: &Path) -> Result<View> {
        Found::in_dir(dir).map(|found| found.view)
    }

    /// Lets others open the directory: nothing is written any more.
    pub(super) fn unlock(&self) {
        self.lock.lock().take();
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn syncs(&self) -> &Syncs {
        &self.syncs
    }

    pub(super) fn is_outgrown(&self, log: &Log) -> bool {
        log.size_bytes() > MIN_LOG_BYTES.max(self.checkpoint_bytes.load(Ordering::Relaxed))
    }

    /// Ends `log` and begins the next one.
    pub(super) fn next_log(&self, log: &mut Log) -> Result<u64> {
        log.seal()?;
        let number = log.number() + 1;
        *log = Log::create(&self.dir, number)?;
        self.syncs.replaced_by(log.file());
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
        log::remove_before(&self.dir, number)?;
        for old in disk::numbers(&self.dir, CHECKPOINT)?.into_iter().filter(|old| *old < number) {
            disk::remove_dir(&checkpoint_dir(&self.dir, old))?;
        }
        Ok(())
    }
}

/// What was read in a directory: the newest checkpoint and the logs behind it.
struct Found {
    newest: Option<u64>,
    view: View,
    /// Where the last log ends.
    end: Option<log::End>,
}

impl Found {
    fn in_dir(dir: &Path) -> Result<Self> {
        let newest = disk::numbers(dir, CHECKPOINT)?.last().copied();
        let mut view = match newest {
            Some(number) => checkpoint::read(&checkpoint_dir(dir, number))?,
            None if checkpoint::is_one(dir) => checkpoint::read(dir)?,
            None => View::default(),
        };
        let mut apply =
            |place: &log::Place<'_>, payload: Bytes| operations::apply(&mut view, place, &payload);
        let end = log::replay_from(dir, newest.unwrap_or(0), &mut apply)?;
        Ok(Self { newest, view, end })
    }
}

/// A directory that is a copy of a checkpoint becomes that of an engine which begins with it.
fn take_over_checkpoint(dir: &Path) -> Result<()> {
    if !checkpoint::is_one(dir) {
        return Ok(());
    }
    if !log::numbers(dir)?.is_empty() {
        let what = "a checkpoint lies beside logs that do not follow it: keep one of them".into();
        return Err(Error::Corrupt { path: dir.to_owned(), what });
    }
    checkpoint::take_over(dir, &checkpoint_dir(dir, 0))
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let file = File::create(&path).map_err(|source| disk::io(&path, source))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Error::InUse { path: dir.to_owned() })?;
    Ok(file)
}

fn checkpoint_dir(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{CHECKPOINT}{number}"))
}

fn checkpoint_size(dir: &Path, number: Option<u64>) -> Result<u64> {
    let Some(number) = number else { return Ok(0) };
    disk::size(&checkpoint_dir(dir, number))
}
