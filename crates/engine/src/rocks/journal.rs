//! The write-ahead log of the disk engine: ours, since RocksDB's costs twice as much for each batch.
//!
//! ```text
//! write ─▶ [ log: sequence before · RocksDB's encoding of the batch ] ─▶ memtables, RocksDB's log off
//! open  ─▶ RocksDB at sequence S ─▶ batches whose sequence before is ≥ S, in order ─▶ flush ─▶ next log
//! DIR/batches/log-N    see `crate::log`
//! ```
//! * RocksDB's manifest keeps the greatest sequence number that ever reached a file, and flushes are
//!   atomic over all columns: at opening every batch up to S is in the files and no later one is. So a
//!   batch that was flushed is never replayed over newer ones, whatever the log still holds or has
//!   lost, and batches written without a log entry may lie between others.
//! * Writers take turns: the order of the log is the order of the sequence numbers.
//! * When a log is long, the next one begins, and what it holds is flushed beside the running engine;
//!   then it is removed.

use super::{Families, families::Database, translate};
use crate::{
    Result, disk,
    gate::Gate,
    log::{self, Log, Place, sync::Syncs},
};
use bytes::{Buf, Bytes};
use rocksdb::{FlushOptions, WriteBatch, WriteOptions};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

pub(super) const DIR: &str = "batches";

/// What the one writer holds.
pub(super) struct Journal {
    dir: PathBuf,
    log: Log,
    syncs: Arc<Syncs>,
    max_log_bytes: u64,
    /// A flush that makes an outgrown log superfluous.
    flushing: Option<JoinHandle<()>>,
    without_log: WriteOptions,
}

impl Journal {
    /// Brings the database in `dir` to where the log ends. All logs together stay below
    /// `max_log_bytes`, unless writers outrun a flush.
    pub(super) fn open(dir: &Path, families: &Families, max_log_bytes: u64) -> Result<Self> {
        let dir = dir.join(DIR);
        std::fs::create_dir_all(&dir).map_err(|source| disk::io(&dir, source))?;
        let number = replay(&dir, families)?;
        let log = Log::create(&dir, number)?;
        log::remove_before(&dir, number)?;
        let syncs = Arc::new(Syncs::new(dir.clone(), log.file()));
        // The log before this one is kept until it is flushed: both together stay below the limit.
        let max_log_bytes = max_log_bytes / 2;
        let (flushing, without_log) = (None, without_log());
        Ok(Self { dir, log, syncs, max_log_bytes, flushing, without_log })
    }

    pub(super) fn syncs(&self) -> &Arc<Syncs> {
        &self.syncs
    }

    /// Appends the encoded batch that will be written next.
    pub(super) fn append(&mut self, database: &Database, encoded: &[u8]) -> Result<()> {
        let before = database.latest_sequence_number();
        let size = self.log.append(&[&before.to_le_bytes(), encoded])?;
        self.syncs.appended(size);
        Ok(())
    }

    /// Options for a write that RocksDB must not log.
    pub(super) fn without_log(&self) -> &WriteOptions {
        &self.without_log
    }

    /// Begins the next log where this one has outgrown its limit, and flushes what it holds.
    pub(super) fn replace_outgrown(
        &mut self,
        families: &Arc<Families>,
        gate: &Arc<Gate>,
    ) -> Result<()> {
        let busy = self.flushing.as_ref().is_some_and(|running| !running.is_finished());
        if busy || self.log.size_bytes() < self.max_log_bytes {
            return Ok(());
        }
        self.log.seal()?;
        let number = self.log.number() + 1;
        self.log = Log::create(&self.dir, number)?;
        self.syncs.replaced_by(self.log.file());
        let (families, gate, dir) = (Arc::clone(families), Arc::clone(gate), self.dir.clone());
        self.flushing = Some(thread::spawn(move || {
            let done = flush(&families).and_then(|()| log::remove_before(&dir, number));
            if let Err(error) = done {
                // Writers hear of it by the gate.
                let _ = gate.poison(error);
            }
        }));
        Ok(())
    }

    /// Waits for background work, and makes the log durable.
    pub(super) fn stop(&mut self) -> Result<()> {
        if let Some(running) = self.flushing.take() {
            let panicked = |_| crate::Error::Backend("the flushing thread panicked".into());
            running.join().map_err(panicked)?;
        }
        self.log.seal()
    }
}

pub(super) fn without_log() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Writes all columns' memtables to files, and waits for it.
pub(super) fn flush(families: &Families) -> Result<()> {
    let handles: Vec<_> = families.all().iter().collect();
    if handles.is_empty() {
        return Ok(());
    }
    let database = families.database();
    let flushed = database.flush_cfs_opt(&handles, &FlushOptions::default());
    flushed.map_err(|error| translate(database.path(), error))
}

/// Applies the batches that are in the log only; gives the number of the next log.
fn replay(dir: &Path, families: &Families) -> Result<u64> {
    let logs = log::numbers(dir)?;
    let Some((first, last)) = logs.first().zip(logs.last()) else { return Ok(1) };
    // What is replayed may reach files: the log must then last at least as long as they do.
    logs.iter().try_for_each(|number| disk::sync_file(&log::path(dir, *number)))?;
    let database = families.database();
    let flushed = database.latest_sequence_number();
    let options = without_log();
    let mut replayed = false;
    let end = log::replay_from(dir, *first, &mut |place: &Place<'_>, mut payload: Bytes| {
        let before = payload.try_get_u64_le().map_err(|_| place.corrupt("a batch is cut short"))?;
        if before < flushed {
            return Ok(());
        }
        replayed = true;
        let written = database.write_opt(WriteBatch::from_data(&payload), &options);
        written.map_err(|error| translate(database.path(), error))
    })?;
    if replayed {
        flush(families)?;
    }
    // Cut off behind its last record, as every log before the newest is: until it is removed, that
    // is what this one will be.
    end.map_or(Ok(()), |end| Log::resume(end.path, end.number, end.size_bytes).map(drop))?;
    Ok(last + 1)
}
