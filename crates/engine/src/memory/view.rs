//! A state of all columns: persistent trees, so that a copy shares every node with its original; over
//! them, while a large batch goes into the trees, that batch.

use super::{
    cursor::MemoryCursor,
    delta::{Changed, Delta, Keys},
    record::Record,
};
use crate::{
    ColumnId, Cursor, Error, KeyRange, Operation, Result, Snapshot,
    meter::Meter,
    overlay::{Erased, Merged},
};
use bytes::Bytes;
use imbl::OrdSet;
use std::{ops::Bound, sync::Arc};

/// See the module. The engine's current state is one, and so is each snapshot.
#[derive(Clone, Default)]
pub(crate) struct View {
    columns: Vec<Column>,
    /// Hides what the trees hold of its keys.
    delta: Option<Arc<Delta>>,
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
    /// The trees, without a batch that lies over them.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Lays a batch over the trees, or takes it away when they hold all of it.
    pub(super) fn set_delta(&mut self, delta: Option<Arc<Delta>>) {
        self.delta = delta;
    }

    /// The same state with nothing over its trees.
    pub(super) fn settled(mut self: Arc<Self>) -> Arc<Self> {
        if let Some(delta) = self.delta.clone() {
            let view = Arc::make_mut(&mut self);
            view.apply(delta.changes().iter().map(Changed::operation));
            view.delta = None;
        }
        self
    }

    /// The changes over the tree of `column`, if there are any.
    fn changes(&self, column: ColumnId) -> Option<Keys<'_>> {
        let delta = self.delta.as_ref()?;
        Some(delta.column(column)).filter(|changes| !changes.is_empty())
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
        let records = self.records(column)?;
        let value = find(records, self.changes(column), key);
        self.meter.get_ends(timer, value.as_ref().map(Bytes::len));
        Ok(value)
    }

    /// The values of `keys`, shared, in their order.
    pub(crate) fn values(&self, column: ColumnId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let (records, changes) = (self.records(column)?, self.changes(column));
        let values: Vec<Option<Bytes>> =
            keys.iter().map(|key| find(records, changes, key)).collect();
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
        let first = match self.changes(column) {
            None => first_of(self.records(column)?, start, end),
            Some(_) => self.first_merged(column, start, end)?,
        };
        self.meter.get_ends(timer, first.as_ref().map(|(_, value)| value.len()));
        Ok(first)
    }

    fn first_merged(
        &self,
        column: ColumnId,
        start: &[u8],
        end: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>> {
        let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        let mut cursor = self.cursor(column, KeyRange::half_open(start, end))?;
        cursor.seek_to_first()?;
        Ok(cursor.valid().then(|| (cursor.key_bytes(), cursor.value_bytes())))
    }

    /// Applies operations on columns that exist, in order.
    pub(crate) fn apply<'a>(&mut self, operations: impl IntoIterator<Item = Operation<'a>>) {
        for operation in operations {
            match operation {
                Operation::Put(column, key, value) => self.put(column, Record::new(key, value)),
                Operation::Delete(column, key) => self.delete(column, key),
                Operation::DeleteRange(column, start, end) => self.delete_range(column, start, end),
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

/// The value of `key`: what the changes say, otherwise what the tree does.
fn find(records: &OrdSet<Record>, changes: Option<Keys<'_>>, key: &[u8]) -> Option<Bytes> {
    match changes.and_then(|changes| changes.get(key)) {
        // Copied: the bytes are part of the whole batch's.
        Some(changed) => changed.map(|value| Bytes::copy_from_slice(value)),
        None => records.get(key).map(Record::value_bytes),
    }
}

fn first_of(records: &OrdSet<Record>, start: &[u8], end: &[u8]) -> Option<(Bytes, Bytes)> {
    // A range of the tree would look for its end as well, a second descent.
    let first = records.get_next(start).filter(|record| record.key() < end)?;
    Some((first.key_bytes(), first.value_bytes()))
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
        let tree = MemoryCursor::new(self.records(column)?, range.clone(), &self.meter);
        match self.changes(column) {
            None => Ok(Box::new(tree)),
            Some(changes) => {
                Ok(Box::new(Merged::new(Box::new(tree), changes, Erased::NONE, range)))
            }
        }
    }
}
