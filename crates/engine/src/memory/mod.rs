//! The whole keyspace in RAM.
//!
//! ```text
//! get, snapshot ──read lock, nanoseconds──▶ Arc<View> ◀──write lock, one batch── write ──▶ log, if open(dir)
//!                                             │ columns: persistent B+ trees (imbl)
//! snapshot, cursor ── own Arc<View>, no lock ─┘
//! ```
//! * A snapshot is one more reference to the current view; a write copies only the tree nodes that a
//!   snapshot still shares (a path of three or four small nodes), and nothing when there is none.
//! * A batch becomes visible as a whole, and no reader waits for longer than a small one: it is applied
//!   under the lock if it is small; a large one is laid over the trees, where it is seen at once, and
//!   put into them slice by slice, with readers coming in between (see `delta`). When one had to wait
//!   and much is left, the rest goes into a copy that is then put in place: readers go on at full
//!   speed, and the writer pays for the nodes. Ranges are deleted in a copy.
//! * [`MemoryEngine::new`] is volatile: what lasts is a [checkpoint](crate::Engine::checkpoint) and the
//!   caller's log. [`MemoryEngine::open`] keeps a log and checkpoints of its own: a batch is in the
//!   log before it is applied; a synced one is visible to others shortly before it is durable.

mod checkpoint;
mod cursor;
mod delta;
mod home;
mod operations;
mod record;
mod view;

use crate::{
    ColumnId, Durability, Engine, Error, KeyRange, MemoryParts, Operation, Result, Snapshot, Stats,
    WriteBatch, disk, gate::Gate, log::Log,
};
use bytes::Bytes;
use delta::{Changed, Delta};
use home::{Home, Opened};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};
use view::View;

/// Up to so many operations are applied while readers wait: half a millisecond where each misses the
/// processor's cache. Half as many halve that, but slow a writer beside a busy reader further; a writer
/// alone is as fast with 64 as with 1,024.
const SLICE_OPERATIONS: usize = 256;
/// A batch of so many small records stays in the processor's cache until it is in the trees: loading in
/// such batches is a third faster than in one of 50,000.
const CACHED_BATCH_RECORDS: usize = 10_000;
/// From so many operations on the rest of a batch is applied to a copy when readers wait: a copied node
/// then serves several of them.
const COPIED_OPERATIONS: usize = 1024;

/// The engine in RAM; see the module.
///
/// ```
/// use chronolith_engine::{Durability, Engine, MemoryEngine, WriteBatch};
/// let engine = MemoryEngine::new();
/// let people = engine.column("people")?;
/// let mut batch = WriteBatch::new();
/// batch.put(people, "ada", "1815");
/// batch.put(people, "alan", "1912");
/// engine.write(batch, Durability::NoWal)?;
/// assert_eq!(engine.get(people, b"ada")?.as_deref(), Some(&b"1815"[..]));
/// # Ok::<(), chronolith_engine::Error>(())
/// ```
#[derive(Default)]
pub struct MemoryEngine {
    view: RwLock<Arc<View>>,
    /// A reader found the view locked since the writer last looked.
    waited: AtomicBool,
    /// Held by the one writer: nobody else may write while a large batch goes into the trees.
    writer: Mutex<Writer>,
    gate: Arc<Gate>,
    home: Option<Arc<Home>>,
}

#[derive(Default)]
struct Writer {
    log: Option<Log>,
    /// A checkpoint being written to replace an outgrown log.
    checkpoint: Option<JoinHandle<()>>,
}

impl MemoryEngine {
    /// An empty, volatile engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A volatile engine with the state that [`Engine::checkpoint`] wrote into `dir`. Every block's
    /// checksum is verified; `dir` is only read, so it stays a checkpoint.
    pub fn restore(dir: impl AsRef<Path>) -> Result<Self> {
        let engine = Self::default();
        *engine.view.write() = Arc::new(checkpoint::read(dir.as_ref())?);
        Ok(engine)
    }

    /// A volatile engine with the state of a durable one that nobody has open: `dir` is only read, so
    /// that a copy on a medium that cannot be written to can be looked at. Every checksum is verified.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let engine = Self::default();
        *engine.view.write() = Arc::new(Home::read(dir.as_ref())?);
        Ok(engine)
    }

    /// An engine that is durable by itself: its log and its checkpoints lie in `dir`.
    ///
    /// ```
    /// use chronolith_engine::{Durability, Engine, MemoryEngine, WriteBatch};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// let engine = MemoryEngine::open(&path)?;
    /// let column = engine.column("c")?;
    /// let mut batch = WriteBatch::new();
    /// batch.put(column, "key", "value");
    /// engine.write(batch, Durability::Sync)?;
    /// drop(engine);
    /// let engine = MemoryEngine::open(&path)?;
    /// assert_eq!(engine.get(column, b"key")?.as_deref(), Some(&b"value"[..]));
    /// # Ok::<(), chronolith_engine::Error>(())
    /// ```
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let Opened { home, view, log } = Home::open(dir.as_ref())?;
        Ok(Self {
            view: RwLock::new(Arc::new(view)),
            waited: AtomicBool::default(),
            writer: Mutex::new(Writer { log: Some(log), checkpoint: None }),
            gate: Arc::default(),
            home: Some(Arc::new(home)),
        })
    }

    fn view(&self) -> Result<Arc<View>> {
        self.gate.check_read()?;
        Ok(Arc::clone(&self.read_lock()))
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, Arc<View>> {
        self.view.try_read().unwrap_or_else(|| {
            self.waited.store(true, Ordering::Relaxed);
            self.view.read()
        })
    }

    /// Appends to the log, if there is one; gives the position to sync to.
    fn log(
        &self,
        writer: &mut Writer,
        append: impl FnOnce(&mut Log) -> Result<u64>,
    ) -> Result<u64> {
        let (Some(log), Some(home)) = (&mut writer.log, &self.home) else { return Ok(0) };
        let size = append(log).map_err(|error| self.failed(error))?;
        Ok(home.syncs().appended(size))
    }

    /// A write that may have reached the disk in part is the last one.
    fn failed(&self, error: Error) -> Error {
        match error {
            error @ Error::TooLarge { .. } => error,
            error => self.gate.poison(error),
        }
    }

    /// Applies a checked batch.
    fn apply(&self, batch: WriteBatch) {
        if batch.is_wide() {
            self.apply_to_copy(batch.operations());
        } else if batch.len() > SLICE_OPERATIONS {
            self.apply_in_slices(Delta::new(batch));
        } else {
            Arc::make_mut(&mut self.view.write()).apply(batch.operations());
        }
    }

    fn apply_to_copy<'a>(&self, operations: impl Iterator<Item = Operation<'a>>) {
        let mut next = Arc::clone(&self.view.read());
        let view = Arc::make_mut(&mut next);
        view.apply(operations);
        // Where a batch lies over the trees, this was the rest of it.
        view.set_delta(None);
        let previous = std::mem::replace(&mut *self.view.write(), next);
        // Freed here and not above: readers must not wait while nodes are dropped.
        drop(previous);
    }

    fn apply_in_slices(&self, delta: Delta) {
        let delta = Arc::new(delta);
        let mut rest = delta.changes();
        self.waited.store(false, Ordering::Relaxed);
        let mut view = self.view.write();
        Arc::make_mut(&mut view).set_delta(Some(Arc::clone(&delta)));
        while !rest.is_empty() {
            let (slice, after) = rest.split_at(rest.len().min(SLICE_OPERATIONS));
            rest = after;
            Arc::make_mut(&mut view).apply(slice.iter().map(Changed::operation));
            if rest.len() >= COPIED_OPERATIONS && self.waited.swap(false, Ordering::Relaxed) {
                drop(view);
                return self.apply_to_copy(rest.iter().map(Changed::operation));
            }
            RwLockWriteGuard::bump(&mut view);
        }
        // It is freed with our reference, after the lock: readers must not wait for it.
        Arc::make_mut(&mut view).set_delta(None);
    }

    /// Begins the next log, and a checkpoint of now, when the log has outgrown the last one.
    fn replace_outgrown_log(&self, writer: &mut Writer) -> Result<()> {
        let (Some(log), Some(home)) = (&mut writer.log, &self.home) else { return Ok(()) };
        let busy = writer.checkpoint.as_ref().is_some_and(|running| !running.is_finished());
        if busy || !home.is_outgrown(log) {
            return Ok(());
        }
        let number = home.next_log(log).map_err(|error| self.gate.poison(error))?;
        let (home, gate, view) = (Arc::clone(home), Arc::clone(&self.gate), self.view()?);
        writer.checkpoint = Some(thread::spawn(move || {
            if let Err(error) = home.checkpoint(number, &view) {
                // Writers hear of it by the gate.
                let _ = gate.poison(error);
            }
        }));
        Ok(())
    }

    fn sync(&self, position: u64) -> Result<()> {
        let Some(home) = &self.home else { return Ok(()) };
        home.syncs().sync_to(position).map_err(|error| self.gate.poison(error))
    }

    /// Ends the log in good order.
    fn stop(&self) -> Result<()> {
        self.gate.close();
        let mut writer = self.writer.lock();
        if let Some(running) = writer.checkpoint.take() {
            running
                .join()
                .map_err(|_| Error::Backend("the checkpoint's thread panicked".into()))?;
        }
        let sealed = writer.log.take().map_or(Ok(()), |mut log| log.seal());
        self.home.iter().for_each(|home| home.unlock());
        sealed
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn column(&self, name: &str) -> Result<ColumnId> {
        self.gate.check_read()?;
        let mut writer = self.writer.lock();
        if let Some(column) = self.view.read().column_named(name) {
            return Ok(column);
        }
        self.gate.check_write()?;
        self.log(&mut writer, |log| operations::append_column(log, name))?;
        Ok(Arc::make_mut(&mut self.view.write()).add_column(name))
    }

    fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>> {
        self.gate.check_read()?;
        self.read_lock().value(column, key)
    }

    fn first(&self, column: ColumnId, start: &[u8], end: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        self.gate.check_read()?;
        self.read_lock().first_record(column, start, end)
    }

    fn multi_get(&self, column: ColumnId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.view()?.values(column, keys)
    }

    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        Ok(self.view()?)
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.gate.check_write()?;
        let begun = Instant::now();
        let (count, size_bytes) = (batch.len(), batch.size_bytes());
        let mut writer = self.writer.lock();
        batch.check(self.view.read().columns().len())?;
        let logged = count > 0 && durability != Durability::NoWal;
        let position = match logged {
            true => self.log(&mut writer, |log| operations::append(log, &batch))?,
            false => self.home.as_ref().map_or(0, |home| home.syncs().log_bytes()),
        };
        self.apply(batch);
        self.replace_outgrown_log(&mut writer)?;
        drop(writer);
        if durability == Durability::Sync {
            self.sync(position)?;
        }
        self.view.read().meter().written(count, size_bytes, begun);
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<()> {
        checkpoint::write(&self.view()?.settled(), dir)
    }

    fn compact_range(&self, column: ColumnId, _range: KeyRange) -> Result<()> {
        self.view()?.records(column).map(drop)
    }

    fn ingest(
        &self,
        column: ColumnId,
        records: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<u64> {
        let mut batch = WriteBatch::new();
        crate::engine::ascending(records, |key, value| {
            batch.put(column, key, value);
            Ok(())
        })?;
        let count = batch.len() as u64;
        self.write(batch, Durability::Sync).map(|()| count)
    }

    fn preferred_batch_records(&self) -> usize {
        CACHED_BATCH_RECORDS
    }

    fn stats(&self) -> Result<Stats> {
        let view = self.view()?;
        let mut stats = Stats::of(self.name(), view.meter());
        stats.estimated_keys =
            Some(view.columns().iter().map(|column| column.records.len() as u64).sum());
        stats.memory = MemoryParts { records: Some(view.size_bytes()), ..MemoryParts::default() };
        stats.live_bytes = Some(view.size_bytes());
        if let Some(home) = &self.home {
            stats.log_bytes = Some(home.syncs().log_bytes());
            let (files, size) = disk::usage(home.dir())?;
            (stats.files, stats.disk_bytes) = (Some(files), Some(size));
        }
        Ok(stats)
    }

    fn size_bytes(&self) -> Result<Option<u64>> {
        Ok(Some(self.view()?.size_bytes()))
    }

    fn flush(&self) -> Result<()> {
        self.gate.check_write()?;
        self.sync(self.home.as_ref().map_or(0, |home| home.syncs().log_bytes()))
    }

    fn close(&self) -> Result<()> {
        self.stop()
    }
}

impl Drop for MemoryEngine {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; what was synced is durable without this.
        let _ = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_batch_that_lies_over_the_trees_can_go_into_a_copy() {
        let engine = MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let mut batch = WriteBatch::new();
        (0..100u8).for_each(|key| batch.put(column, vec![key], vec![key]));
        let delta = Arc::new(Delta::new(batch));
        let before = engine.view().unwrap();
        let (first, rest) = delta.changes().split_at(30);
        {
            let mut view = engine.view.write();
            Arc::make_mut(&mut view).set_delta(Some(Arc::clone(&delta)));
            Arc::make_mut(&mut view).apply(first.iter().map(Changed::operation));
        }
        let amid = engine.view().unwrap();
        engine.apply_to_copy(rest.iter().map(Changed::operation));
        let after = engine.view().unwrap();
        for key in 0..100u8 {
            let value = |view: &View| view.value(column, &[key]).unwrap();
            assert_eq!(value(&before), None);
            assert_eq!(value(&amid).as_deref(), Some(&[key][..]));
            assert_eq!(value(&after), value(&amid));
        }
        let in_trees = |view: &View| view.records(column).unwrap().len();
        assert_eq!((in_trees(&before), in_trees(&amid), in_trees(&after)), (0, 30, 100));
        assert_eq!(Arc::strong_count(&delta), 2, "only ours and that of the view amid");
    }

    #[test]
    fn the_size_follows_what_is_stored() {
        let engine = MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let size = || engine.size_bytes().unwrap().unwrap();
        let write = |change: &dyn Fn(&mut WriteBatch)| {
            let mut batch = WriteBatch::new();
            change(&mut batch);
            engine.write(batch, Durability::NoWal).unwrap();
        };
        write(&|batch| batch.put(column, "a", vec![0; 1000]));
        let one = size();
        assert!((1001..1200).contains(&one), "{one}");
        write(&|batch| batch.put(column, "a", vec![0; 500]));
        assert_eq!(size(), one - 500, "a value that is replaced is freed");
        write(&|batch| (b'b'..=b'y').for_each(|key| batch.put(column, vec![key], vec![0; 100])));
        let dir = tempfile::tempdir().unwrap();
        engine.checkpoint(&dir.path().join("copy")).unwrap();
        let copy = MemoryEngine::restore(dir.path().join("copy")).unwrap();
        assert_eq!(copy.size_bytes().unwrap(), Some(size()), "a copy has the same size");
        write(&|batch| batch.delete_range(column, "b", "x"));
        write(&|batch| batch.delete(column, "absent"));
        write(&|batch| batch.delete(column, "a"));
        write(&|batch| batch.delete_range(column, "a", "z"));
        assert_eq!(size(), 0);
    }
}
