//! A list of changes that happen together.

use crate::ColumnId;
use bytes::Bytes;

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
