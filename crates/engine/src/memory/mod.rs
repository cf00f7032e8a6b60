//! The whole keyspace in RAM.
//!
//! ```text
//! get, snapshot ──read lock, nanoseconds──▶ Arc<View> ◀──write lock, one batch── write
//!                                             │ columns: persistent B+ trees (imbl)
//! snapshot, cursor ── own Arc<View>, no lock ─┘
//! ```
//! * A snapshot is one more reference to the current view; a write copies only the tree nodes that a
//!   snapshot still shares (a path of three or four small nodes), and nothing when there is none.
//! * A batch becomes visible as a whole: small ones are applied under the lock, large ones to a copy
//!   that is then put in place, so that no reader waits for longer than a small batch.
//! * Volatile: what lasts is a [checkpoint](crate::Engine::checkpoint) and the caller's log.

mod checkpoint;
mod cursor;
mod record;
mod view;

use crate::{ColumnId, Durability, Engine, Operation, Result, Snapshot, WriteBatch, gate::Gate};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::{path::Path, sync::Arc};
use view::View;

/// Up to so many operations are applied while readers wait (about a tenth of a millisecond).
const IN_PLACE_OPERATIONS: usize = 256;

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
    /// Held by the one writer: a large batch works on a copy, which no other writer may miss.
    writer: Mutex<()>,
    gate: Gate,
}

impl MemoryEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An engine with the state that [`Engine::checkpoint`] wrote into `dir`. Every block's checksum
    /// is verified; `dir` is only read, so it stays a checkpoint.
    pub fn restore(dir: impl AsRef<Path>) -> Result<Self> {
        let view = checkpoint::read(dir.as_ref())?;
        Ok(Self { view: RwLock::new(Arc::new(view)), ..Self::default() })
    }

    fn view(&self) -> Result<Arc<View>> {
        self.gate.check_read()?;
        Ok(Arc::clone(&self.view.read()))
    }

    fn apply(&self, operations: &[Operation]) -> Result<()> {
        if operations.len() <= IN_PLACE_OPERATIONS && !operations.iter().any(Operation::is_wide) {
            let mut view = self.view.write();
            view.check(operations)?;
            Arc::make_mut(&mut view).apply(operations);
            return Ok(());
        }
        let mut next = self.view()?;
        next.check(operations)?;
        Arc::make_mut(&mut next).apply(operations);
        let previous = std::mem::replace(&mut *self.view.write(), next);
        // Freed here and not above: readers must not wait while nodes are dropped.
        drop(previous);
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn column(&self, name: &str) -> Result<ColumnId> {
        self.gate.check_read()?;
        let _writer = self.writer.lock();
        let mut view = self.view.write();
        match view.column_named(name) {
            Some(column) => Ok(column),
            None => Ok(Arc::make_mut(&mut view).add_column(name)),
        }
    }

    fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>> {
        self.gate.check_read()?;
        self.view.read().value(column, key)
    }

    fn multi_get(&self, column: ColumnId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let view = self.view()?;
        keys.iter().map(|key| view.value(column, key)).collect()
    }

    fn first(&self, column: ColumnId, start: &[u8], end: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        self.gate.check_read()?;
        self.view.read().first_record(column, start, end)
    }

    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        Ok(self.view()?)
    }

    fn write(&self, batch: WriteBatch, _durability: Durability) -> Result<()> {
        self.gate.check_read()?;
        let _writer = self.writer.lock();
        self.apply(batch.operations())
    }

    fn checkpoint(&self, dir: &Path) -> Result<()> {
        checkpoint::write(&*self.view()?, dir)
    }

    fn size_bytes(&self) -> Result<Option<u64>> {
        Ok(Some(self.view()?.size_bytes()))
    }

    fn flush(&self) -> Result<()> {
        self.gate.check_read()
    }

    fn close(&self) -> Result<()> {
        self.gate.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
