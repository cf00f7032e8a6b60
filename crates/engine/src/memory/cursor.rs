//! A position in one column of a view.
//!
//! The tree's own iterators run one way; the cursor keeps the one it is walking with, and makes the
//! other only when the direction turns. It holds no lock: its view never changes.

use super::record::Record;
use crate::{
    Cursor, KeyRange, Result,
    meter::{Meter, Walked},
};
use bytes::Bytes;
use imbl::{OrdSet, ordset};
use std::ops::Bound;

type Walk<'a> = ordset::RangedIter<'a, Record, imbl::shared_ptr::DefaultSharedPtr>;

enum Way<'a> {
    Nowhere,
    Forward(Walk<'a>),
    Backward(Walk<'a>),
}

pub(crate) struct MemoryCursor<'a> {
    records: &'a OrdSet<Record>,
    range: KeyRange,
    way: Way<'a>,
    here: Option<&'a Record>,
    walked: Walked<'a>,
}

impl<'a> MemoryCursor<'a> {
    pub(crate) fn new(records: &'a OrdSet<Record>, range: KeyRange, meter: &'a Meter) -> Self {
        Self { records, range, way: Way::Nowhere, here: None, walked: Walked::new(meter) }
    }

    fn forward(&mut self, start: Bound<&[u8]>) {
        let mut walk = self.walk(start, bound(&self.range.end));
        self.here = walk.as_mut().and_then(Iterator::next);
        self.way = walk.map_or(Way::Nowhere, Way::Forward);
    }

    fn backward(&mut self, end: Bound<&[u8]>) {
        let mut walk = self.walk(bound(&self.range.start), end);
        self.here = walk.as_mut().and_then(DoubleEndedIterator::next_back);
        self.way = walk.map_or(Way::Nowhere, Way::Backward);
    }

    /// The tree's iterator; none for an empty range, which the tree would refuse.
    fn walk(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<Walk<'a>> {
        (!KeyRange::bounds_are_empty(start, end))
            .then(|| self.records.range::<_, [u8]>((start, end)))
    }

    fn record(&self) -> &'a Record {
        self.here.expect("the cursor stands on a record: check valid() after each move")
    }
}

fn bound(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}

impl Cursor for MemoryCursor<'_> {
    fn seek_to_first(&mut self) -> Result<()> {
        self.walked.seeks += 1;
        let start = self.range.start.clone();
        self.forward(bound(&start));
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.walked.seeks += 1;
        let end = self.range.end.clone();
        self.backward(bound(&end));
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        if self.range.starts_after(key) {
            return self.seek_to_first();
        }
        self.walked.seeks += 1;
        self.forward(Bound::Included(key));
        Ok(())
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        if self.range.ends_before(key) {
            return self.seek_to_last();
        }
        self.walked.seeks += 1;
        self.backward(Bound::Included(key));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        let Some(here) = self.here else { return Ok(()) };
        self.walked.steps += 1;
        match &mut self.way {
            Way::Forward(walk) => self.here = walk.next(),
            _ => self.forward(Bound::Excluded(here.key())),
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let Some(here) = self.here else { return Ok(()) };
        self.walked.steps += 1;
        match &mut self.way {
            Way::Backward(walk) => self.here = walk.next_back(),
            _ => self.backward(Bound::Excluded(here.key())),
        }
        Ok(())
    }

    fn valid(&self) -> bool {
        self.here.is_some()
    }

    fn key(&self) -> &[u8] {
        self.record().key()
    }

    fn key_bytes(&self) -> Bytes {
        self.record().key_bytes()
    }

    fn value(&self) -> &[u8] {
        self.record().value()
    }

    fn value_bytes(&self) -> Bytes {
        self.record().value_bytes()
    }
}
