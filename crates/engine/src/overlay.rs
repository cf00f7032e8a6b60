//! A transaction in the making: a snapshot with changes laid over it.
//!
//! ```text
//! get, cursor ─▶ pending (newest wins) ─▶ erased ranges ─▶ snapshot
//! commit      ─▶ one batch: erased ranges first, then pending keys, each key once
//! ```
//! Reads see the transaction's own writes. Other writers' later commits are not seen, nor checked
//! for: whoever needs isolation from other writers is the only writer.

mod erased;
mod merged;

use crate::{ColumnId, Cursor, Durability, Engine, KeyRange, Result, Snapshot, WriteBatch};
use bytes::Bytes;
pub(crate) use erased::Erased;
pub(crate) use merged::{Change, Changes, Merged};
use std::{collections::BTreeMap, sync::Arc};

/// What will become of a key: its new value, or its removal.
type Pending = BTreeMap<Bytes, Option<Bytes>>;

/// See the module.
///
/// ```
/// use chronolith_engine::{Durability, Engine, MemoryEngine, Overlay};
/// use std::sync::Arc;
/// let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
/// let column = engine.column("accounts")?;
/// let mut transaction = Overlay::new(Arc::clone(&engine))?;
/// transaction.put(column, "alice", "10");
/// assert_eq!(transaction.get(column, b"alice")?.as_deref(), Some(&b"10"[..]));
/// assert_eq!(engine.get(column, b"alice")?, None, "not before the commit");
/// transaction.commit(Durability::Buffered)?;
/// assert_eq!(engine.get(column, b"alice")?.as_deref(), Some(&b"10"[..]));
/// # Ok::<(), chronolith_engine::Error>(())
/// ```
pub struct Overlay {
    engine: Arc<dyn Engine>,
    snapshot: Arc<dyn Snapshot>,
    /// By column number; numbers are small and dense.
    layers: Vec<Layer>,
}

#[derive(Default)]
struct Layer {
    pending: Pending,
    erased: Erased,
}

impl Layer {
    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.erased.is_empty()
    }

    fn delete_range(&mut self, start: Bytes, end: Bytes) {
        if start >= end {
            return;
        }
        let mut rest = self.pending.split_off(&start);
        self.pending.append(&mut rest.split_off(&end));
        self.erased.insert(start, end);
    }

    fn drain_into(self, column: ColumnId, batch: &mut WriteBatch) {
        for (start, end) in self.erased.into_ranges() {
            batch.delete_range(column, start, end);
        }
        for (key, value) in self.pending {
            match value {
                Some(value) => batch.put(column, key, value),
                None => batch.delete(column, key),
            }
        }
    }
}

impl dyn Engine {
    /// Begins a batch that reads its own writes; ends with [`Overlay::commit`] or
    /// [`Overlay::rollback`]. A batch that need not be read is a [`WriteBatch`].
    ///
    /// # Errors
    /// [`crate::Error::Closed`].
    pub fn begin_batch(self: &Arc<Self>) -> Result<Overlay> {
        Overlay::new(Arc::clone(self))
    }
}

impl Overlay {
    /// Begins on the engine's current state.
    pub fn new(engine: Arc<dyn Engine>) -> Result<Self> {
        let snapshot = engine.snapshot()?;
        Ok(Self { engine, snapshot, layers: Vec::new() })
    }

    /// Sets `key`.
    pub fn put(&mut self, column: ColumnId, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.layer_mut(column).pending.insert(key.into(), Some(value.into()));
    }

    /// Removes `key`.
    pub fn delete(&mut self, column: ColumnId, key: impl Into<Bytes>) {
        self.layer_mut(column).pending.insert(key.into(), None);
    }

    /// Removes every key from `start` (in) to `end` (out).
    pub fn delete_range(
        &mut self,
        column: ColumnId,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
    ) {
        self.layer_mut(column).delete_range(start.into(), end.into());
    }

    /// The value of `key` as it would be after a commit.
    pub fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(layer) = self.layer(column) {
            if let Some(value) = layer.pending.get(key) {
                return Ok(value.clone());
            }
            if layer.erased.end_of_range_with(key).is_some() {
                return Ok(None);
            }
        }
        self.snapshot.get(column, key)
    }

    /// A cursor over `range` as it would be after a commit; not positioned yet.
    pub fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>> {
        let below = self.snapshot.cursor(column, range.clone())?;
        match self.layer(column).filter(|layer| !layer.is_empty()) {
            None => Ok(below),
            Some(layer) => Ok(Box::new(Merged::new(below, &layer.pending, &layer.erased, range))),
        }
    }

    /// The engine's state without this transaction's changes.
    #[must_use]
    pub fn base(&self) -> &Arc<dyn Snapshot> {
        &self.snapshot
    }

    /// Whether a commit would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(Layer::is_empty)
    }

    /// Applies the changes, whole or not at all.
    pub fn commit(self, durability: Durability) -> Result<()> {
        let engine = Arc::clone(&self.engine);
        // This ends the snapshot as well: the memory engine copies nodes that a snapshot shares.
        let batch = self.into_batch();
        if batch.is_empty() { Ok(()) } else { engine.write(batch, durability) }
    }

    /// Forgets the changes (as dropping does, but says so).
    pub fn rollback(self) {}

    /// The changes, to be written by the caller.
    #[must_use]
    pub fn into_batch(self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (number, layer) in self.layers.into_iter().enumerate() {
            let number = u32::try_from(number).expect("made from a column's number");
            layer.drain_into(ColumnId(number), &mut batch);
        }
        batch
    }

    fn layer(&self, column: ColumnId) -> Option<&Layer> {
        self.layers.get(column.0 as usize)
    }

    fn layer_mut(&mut self, column: ColumnId) -> &mut Layer {
        let number = column.0 as usize;
        if self.layers.len() <= number {
            self.layers.resize_with(number + 1, Layer::default);
        }
        &mut self.layers[number]
    }
}
