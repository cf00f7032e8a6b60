//! A list of changes that happen together.

use crate::{ColumnId, Error, Result};
use bytes::Bytes;

/// Longest key: keys are compared, cached and indexed whole. etcd's requests are far smaller.
pub const MAX_KEY_BYTES: usize = 8 << 20;
/// Longest value: a quarter of what RocksDB's format could hold, so that a record with its key and
/// framing never exceeds 32 bits.
pub const MAX_VALUE_BYTES: usize = 1 << 30;

/// From this size on a batch is sorted before it is written: measured, smaller ones gain nothing.
const SORTED_OPERATIONS: usize = 8192;

/// Refuses a key or value beyond its limit.
pub(crate) fn check_size(operation: &Operation) -> Result<()> {
    let (keys, value): ([&Bytes; 2], usize) = match operation {
        Operation::Put(_, key, value) => ([key, key], value.len()),
        Operation::Delete(_, key) => ([key, key], 0),
        Operation::DeleteRange(_, start, end) => ([start, end], 0),
    };
    limited("a key", keys[0].len().max(keys[1].len()), MAX_KEY_BYTES)?;
    limited("a value", value, MAX_VALUE_BYTES)
}

fn limited(what: &'static str, size_bytes: usize, limit_bytes: usize) -> Result<()> {
    match size_bytes <= limit_bytes {
        true => Ok(()),
        false => Err(Error::TooLarge { what, size_bytes, limit_bytes }),
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put(ColumnId, Bytes, Bytes),
    /// Removes a key; nothing happens where there is none.
    Delete(ColumnId, Bytes),
    /// Removes every key from the first (in) to the second (out).
    DeleteRange(ColumnId, Bytes, Bytes),
}

impl Operation {
    /// The column that changes.
    #[must_use]
    pub fn column(&self) -> ColumnId {
        match self {
            Self::Put(column, ..) | Self::Delete(column, _) | Self::DeleteRange(column, ..) => {
                *column
            }
        }
    }

    /// The key that changes, or the first one.
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Put(_, key, _) | Self::Delete(_, key) | Self::DeleteRange(_, key, _) => key,
        }
    }

    /// Whether it may touch many keys.
    pub(crate) fn is_wide(&self) -> bool {
        matches!(self, Self::DeleteRange(..))
    }
}

/// Changes that are applied whole or not at all, in order.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    operations: Vec<Operation>,
    size_bytes: usize,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `operations`.
    #[must_use]
    pub fn with_capacity(operations: usize) -> Self {
        Self { operations: Vec::with_capacity(operations), size_bytes: 0 }
    }

    /// Sets `key`.
    pub fn put(&mut self, column: ColumnId, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.size_bytes += key.len() + value.len();
        self.operations.push(Operation::Put(column, key, value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, column: ColumnId, key: impl Into<Bytes>) {
        let key = key.into();
        self.size_bytes += key.len();
        self.operations.push(Operation::Delete(column, key));
    }

    /// Removes every key from `start` (in) to `end` (out).
    pub fn delete_range(
        &mut self,
        column: ColumnId,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
    ) {
        let (start, end) = (start.into(), end.into());
        self.size_bytes += start.len() + end.len();
        self.operations.push(Operation::DeleteRange(column, start, end));
    }

    /// The changes, in order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The changes, given away.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// The same changes in the order of their keys, where that is worth its time: neighbours are then
    /// written next to each other, with their place in the tree still in the processor's cache.
    /// Changes of one key keep their order; where ranges are deleted, everything does.
    pub(crate) fn sorted(mut self) -> Self {
        if self.operations.len() >= SORTED_OPERATIONS
            && !self.operations.iter().any(Operation::is_wide)
        {
            self.operations.sort_by(|a, b| (a.column(), a.key()).cmp(&(b.column(), b.key())));
        }
        self
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_keeps_the_order_of_one_keys_changes() {
        let mut batch = WriteBatch::new();
        for number in (0..SORTED_OPERATIONS as u32).rev() {
            batch.put(ColumnId(number % 2), number.to_be_bytes().to_vec(), "first");
            batch.delete(ColumnId(number % 2), number.to_be_bytes().to_vec());
            batch.put(ColumnId(number % 2), number.to_be_bytes().to_vec(), "last");
        }
        let sorted = batch.clone().sorted();
        assert_eq!((sorted.len(), sorted.size_bytes()), (batch.len(), batch.size_bytes()));
        let keys = sorted.operations().windows(2);
        assert!(
            keys.clone()
                .all(|pair| (pair[0].column(), pair[0].key()) <= (pair[1].column(), pair[1].key()))
        );
        for changes in sorted.operations().chunks(3) {
            assert!(matches!(changes[0], Operation::Put(_, _, ref value) if value == "first"));
            assert!(matches!(changes[1], Operation::Delete(..)));
            assert!(matches!(changes[2], Operation::Put(_, _, ref value) if value == "last"));
        }
    }

    #[test]
    fn a_deleted_range_keeps_everything_in_order() {
        let mut batch = WriteBatch::new();
        for number in (0..SORTED_OPERATIONS as u32).rev() {
            batch.put(ColumnId(0), number.to_be_bytes().to_vec(), "");
        }
        batch.delete_range(ColumnId(0), "a", "b");
        assert_eq!(batch.clone().sorted().operations(), batch.operations());
    }
}
