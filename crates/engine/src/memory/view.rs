//! A state of all columns: persistent trees, so that a copy shares every node with its original.

use super::{cursor::MemoryCursor, record::Record};
use crate::{ColumnId, Cursor, Error, KeyRange, Operation, Result, Snapshot, batch, meter::Meter};
use bytes::Bytes;
use imbl::OrdSet;
use std::{ops::Bound, sync::Arc};

/// See the module. The engine's current state is one, and so is each snapshot.
#[derive(Clone, Default)]
pub(crate) struct View {
    columns: Vec<Column>,
    size_bytes: u64,
    /// Shared by all views of an engine: readers of snapshots count as well.
    meter: Arc<Meter>,
}

/// What a record costs beside its key and value: its place in a tree node that is two thirds full, and
/// the allocation's own overhead.
const RECORD_BYTES: usize = 96;

#[derive(Clone)]
pub(crate) struct Column {
    pub(crate) name: Arc<str>,
    pub(crate) records: OrdSet<Record>,
}

impl View {
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Memory that the records take, about.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
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
        let timer = self.meter.get_begins();
        let value = self.records(column)?.get(key).map(Record::value_bytes);
        self.meter.get_ends(timer, value.as_ref().map(Bytes::len));
        Ok(value)
    }

    /// The values of `keys`, shared, in their order.
    pub(crate) fn values(&self, column: ColumnId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let records = self.records(column)?;
        let value = |key: &&[u8]| records.get(*key).map(Record::value_bytes);
        let values: Vec<Option<Bytes>> = keys.iter().map(value).collect();
        self.meter.gets(&values);
        Ok(values)
    }

    /// The first record from `start` (in) to `end` (out), shared.
    pub(crate) fn first_record(
        &self,
        column: ColumnId,
        start: &[u8],
        end: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>> {
        let timer = self.meter.get_begins();
        // A range of the tree would look for its end as well, a second descent.
        let first = self.records(column)?.get_next(start).filter(|record| record.key() < end);
        self.meter.get_ends(timer, first.map(|record| record.value().len()));
        Ok(first.map(|record| (record.key_bytes(), record.value_bytes())))
    }

    /// Refuses a batch that `apply` could not carry out; after this, `apply` cannot fail.
    pub(crate) fn check(&self, operations: &[Operation]) -> Result<()> {
        operations.iter().try_for_each(|operation| {
            batch::check_size(operation)?;
            self.records(operation.column()).map(drop)
        })
    }

    /// Applies checked operations, in order.
    pub(crate) fn apply(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::Put(column, key, value) => self.put(*column, Record::new(key, value)),
                Operation::Delete(column, key) => self.delete(*column, key),
                Operation::DeleteRange(column, start, end) => {
                    self.delete_range(*column, start, end)
                }
            }
        }
    }

    /// Sets a record of a column that exists.
    pub(crate) fn put(&mut self, column: ColumnId, record: Record) {
        self.size_bytes += taken_bytes(&record);
        if let Some(old) = self.columns[column.0 as usize].records.insert(record) {
            self.size_bytes -= taken_bytes(&old);
        }
    }

    fn delete(&mut self, column: ColumnId, key: &[u8]) {
        if let Some(old) = self.columns[column.0 as usize].records.remove(key) {
            self.size_bytes -= taken_bytes(&old);
        }
    }

    fn delete_range(&mut self, column: ColumnId, start: &[u8], end: &[u8]) {
        if start >= end {
            return;
        }
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let records = &mut self.columns[column.0 as usize].records;
        let doomed: Vec<Record> = records.range::<_, [u8]>(bounds).cloned().collect();
        self.size_bytes -= doomed.iter().map(taken_bytes).sum::<u64>();
        if doomed.len() == records.len() {
            return records.clear();
        }
        for record in doomed {
            records.remove(record.key());
        }
    }
}

/// Memory that a record takes, about.
fn taken_bytes(record: &Record) -> u64 {
    (record.size_bytes() + RECORD_BYTES) as u64
}

impl Snapshot for View {
    fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>> {
        self.value(column, key)
    }

    fn first(&self, column: ColumnId, start: &[u8], end: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        self.first_record(column, start, end)
    }

    fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>> {
        Ok(Box::new(MemoryCursor::new(self.records(column)?, range, &self.meter)))
    }
}
