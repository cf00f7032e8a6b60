//! A position in one column of a view: RocksDB's iterator, kept inside the range by its own bounds.

use super::{
    error::translate,
    families::{Database, View},
};
use crate::{
    ColumnId, Cursor, KeyRange, Result,
    meter::{Meter, Walked},
};
use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions};
use std::ops::Bound;

const STANDS: &str = "the cursor stands on a record: check valid() after each move";

pub(super) struct RocksCursor<'a> {
    iterator: DBRawIteratorWithThreadMode<'a, Database>,
    range: KeyRange,
    /// RocksDB does not expect bounds that cross.
    is_empty: bool,
    view: &'a View,
    walked: Walked<'a>,
}

impl<'a> RocksCursor<'a> {
    pub(super) fn new(
        view: &'a View,
        column: ColumnId,
        range: KeyRange,
        meter: &'a Meter,
    ) -> Result<Self> {
        let family = view.families().get(column)?;
        let mut options = ReadOptions::default();
        if let Some(lower) = lower_bound(&range) {
            options.set_iterate_lower_bound(lower);
        }
        if let Some(upper) = upper_bound(&range) {
            options.set_iterate_upper_bound(upper);
        }
        let iterator = view.pinned().raw_iterator_cf_opt(family, options);
        let (is_empty, walked) = (range.is_empty(), Walked::new(meter));
        Ok(Self { iterator, range, is_empty, view, walked })
    }

    /// An iterator that meets damage becomes invalid and says why only when asked.
    fn outcome(&self) -> Result<()> {
        if self.iterator.valid() {
            return Ok(());
        }
        let dir = self.view.families().database().path();
        self.iterator.status().map_err(|error| translate(dir, error))
    }

    fn moved(
        &mut self,
        step: impl FnOnce(&mut DBRawIteratorWithThreadMode<'a, Database>),
    ) -> Result<()> {
        if self.is_empty {
            return Ok(());
        }
        step(&mut self.iterator);
        self.outcome()
    }
}

/// The first key inside the range.
pub(super) fn lower_bound(range: &KeyRange) -> Option<Vec<u8>> {
    match &range.start {
        Bound::Included(start) => Some(start.to_vec()),
        Bound::Excluded(start) => Some(successor(start)),
        Bound::Unbounded => None,
    }
}

/// The first key behind the range.
pub(super) fn upper_bound(range: &KeyRange) -> Option<Vec<u8>> {
    match &range.end {
        Bound::Included(end) => Some(successor(end)),
        Bound::Excluded(end) => Some(end.to_vec()),
        Bound::Unbounded => None,
    }
}

/// The first key after `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

impl Cursor for RocksCursor<'_> {
    fn seek_to_first(&mut self) -> Result<()> {
        self.walked.seeks += 1;
        self.moved(|iterator| iterator.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.walked.seeks += 1;
        self.moved(|iterator| iterator.seek_to_last())
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        if self.range.starts_after(key) {
            return self.seek_to_first();
        }
        self.walked.seeks += 1;
        self.moved(|iterator| iterator.seek(key))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        if self.range.ends_before(key) {
            return self.seek_to_last();
        }
        self.walked.seeks += 1;
        self.moved(|iterator| iterator.seek_for_prev(key))
    }

    fn next(&mut self) -> Result<()> {
        self.walked.steps += u64::from(self.valid());
        self.moved(|iterator| iterator.next())
    }

    fn prev(&mut self) -> Result<()> {
        self.walked.steps += u64::from(self.valid());
        self.moved(|iterator| iterator.prev())
    }

    fn valid(&self) -> bool {
        !self.is_empty && self.iterator.valid()
    }

    fn key(&self) -> &[u8] {
        self.iterator.key().expect(STANDS)
    }

    fn value(&self) -> &[u8] {
        self.iterator.value().expect(STANDS)
    }
}
