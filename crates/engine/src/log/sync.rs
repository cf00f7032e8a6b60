//! One sync for all who wait for one.
//!
//! ```text
//! append ─▶ position ─▶ sync_to(position) ─┬─ covered by an earlier sync: returns at once
//!                                          ├─ one is running: sleeps; the next one is for all sleepers
//!                                          └─ else: syncs what was appended by now
//! ```

use super::LogFile;
use crate::{Result, disk};
use parking_lot::{Condvar, Mutex};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// See the module.
pub(crate) struct Syncs {
    dir: PathBuf,
    /// Bytes appended to all logs since opening.
    appended: AtomicU64,
    synced: Mutex<Synced>,
    /// Told when a sync ends.
    sync_ended: Condvar,
    /// The log that is being appended to.
    current: Mutex<Arc<LogFile>>,
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

impl Syncs {
    /// For the logs in `dir`, of which `current` is being appended to.
    pub(crate) fn new(dir: PathBuf, current: Arc<LogFile>) -> Self {
        Self {
            dir,
            appended: AtomicU64::new(0),
            synced: Mutex::default(),
            sync_ended: Condvar::new(),
            current: Mutex::new(current),
        }
    }

    /// Notes bytes that were appended; gives the position behind them.
    pub(crate) fn appended(&self, size: u64) -> u64 {
        self.appended.fetch_add(size, Ordering::AcqRel) + size
    }

    /// Bytes appended since opening: the position behind everything.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// From now on `current` is appended to; the log before it is synced already.
    pub(crate) fn replaced_by(&self, current: Arc<LogFile>) {
        *self.current.lock() = current;
    }

    /// Returns once everything up to `position` is durable. Of several callers, one syncs for all
    /// that was appended by then; the others sleep, so that the next sync is for all of them.
    pub(crate) fn sync_to(&self, position: u64) -> Result<()> {
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
        let outcome = file.sync();
        let mut synced = self.synced.lock();
        synced.running = false;
        match outcome {
            Ok(()) => synced.bytes = target,
            Err(_) => synced.failed = true,
        }
        self.sync_ended.notify_all();
        outcome.map_err(|source| disk::io(&self.dir, source))
    }
}
