//! A state of all columns: persistent trees, so that a copy shares every node with its original.

use super::{cursor::MemoryCursor, record::Record};
use crate::{ColumnId, Cursor, Error, KeyRange, Operation, Result, Snapshot};
use bytes::Bytes;
use imbl::OrdSet;
use std::ops::Bound;

/// See the module. The engine's current state is one, and so is each snapshot.
#[derive(Clone, Default)]
pub(crate) struct View {
    columns: Vec<Column>,
    size_bytes: u64,
}

/// What a record costs beside its key and value: its place in a tree node that is two thirds full, and
/// the allocation's own overhead.
const RECORD_BYTES: usize = 96;

#[derive(Clone)]
pub(crate) struct Column {
    pub(crate) name: std::sync::Arc<str>,
    pub(crate) records: OrdSet<Record>,
}

impl View {
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(crate) fn column_named(&self, name: &str) -> Option<ColumnId> {
        let position = self.columns.iter().position(|column| &*column.name == name)?;
        Some(ColumnId(u32::try_from(position).expect("fewer than 2^32 columns")))
    }

    pub(crate) fn add_column(&mut self, name: &str) -> ColumnId {
        self.columns.push(Column { name: name.into(), records: OrdSet::new() });
        ColumnId(u32::try_from(self.columns.len() - 1).expect("fewer than 2^32 columns"))
    }

    pub(crate) fn records(&self, column: ColumnId) -> Result<&OrdSet<Record>> {
        let found = self.columns.get(column.0 as usize);
        found.map(|column| &column.records).ok_or(Error::UnknownColumn(column.0))
    }

    /// The value of `key`, shared.
    pub(crate) fn value(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.records(column)?.get(key).map(Record::value_bytes))
    }

    /// The first record from `start` (in) to `end` (out), shared.
    pub(crate) fn first_record(
        &self,
        column: ColumnId,
        start: &[u8],
        end: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>> {
        if start >= end {
            return Ok(None);
        }
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let first = self.records(column)?.range::<_, [u8]>(bounds).next();
        Ok(first.map(|record| (record.key_bytes(), record.value_bytes())))
    }

    /// Refuses a batch that `apply` could not carry out; after this, `apply` cannot fail.
    pub(crate) fn check(&self, operations: &[Operation]) -> Result<()> {
        operations.iter().try_for_each(|operation| self.records(operation.column()).map(drop))
    }

    /// Applies checked operations, in order.
    pub(crate) fn apply(&mut self, operations: &[Operation]) {
        for operation in operations {
            let records = &mut self.columns[operation.column().0 as usize].records;
            match operation {
                Operation::Put(_, key, value) => {
                    self.size_bytes += size_bytes(key.len() + value.len());
                    self.size_bytes -= freed_bytes(records.insert(Record::new(key, value)));
                }
                Operation::Delete(_, key) => {
                    self.size_bytes -= freed_bytes(records.remove(&key[..]));
                }
                Operation::DeleteRange(_, start, end) => {
                    self.size_bytes -= delete_range(records, start, end);
                }
            }
        }
    }

    /// Memory that the records take, about.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Loads a record of a checkpoint.
    pub(crate) fn load(&mut self, column: ColumnId, record: Record) {
        self.size_bytes += size_bytes(record.size_bytes());
        self.columns[column.0 as usize].records.insert(record);
    }
}

fn size_bytes(content_bytes: usize) -> u64 {
    (content_bytes + RECORD_BYTES) as u64
}

fn freed_bytes(record: Option<Record>) -> u64 {
    record.map_or(0, |record| size_bytes(record.size_bytes()))
}

/// Removes the records from `start` to `end`, and says what they took.
fn delete_range(records: &mut OrdSet<Record>, start: &[u8], end: &[u8]) -> u64 {
    if start >= end {
        return 0;
    }
    let bounds = (Bound::Included(start), Bound::Excluded(end));
    let doomed: Vec<Record> = records.range::<_, [u8]>(bounds).cloned().collect();
    let freed = doomed.iter().map(|record| size_bytes(record.size_bytes())).sum();
    if doomed.len() == records.len() {
        records.clear();
        return freed;
    }
    for record in doomed {
        records.remove(record.key());
    }
    freed
}

impl Snapshot for View {
    fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>> {
        self.value(column, key)
    }

    fn first(&self, column: ColumnId, start: &[u8], end: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        self.first_record(column, start, end)
    }

    fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>> {
        Ok(Box::new(MemoryCursor::new(self.records(column)?, range)))
    }
}
