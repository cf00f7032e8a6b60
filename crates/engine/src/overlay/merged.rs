//! One cursor over changes and what lies below them: a transaction's, or those of a large batch that the
//! memory engine is putting into its trees.
//!
//! Two positions move together. Going forward, each stands on its first key at or after the place
//! where the merged cursor stands; going back, on its last key at or before it. A turn moves both.

use super::{Erased, Pending};
use crate::{Cursor, KeyRange, Result};
use bytes::Bytes;
use std::{cmp::Ordering, ops::Bound};

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Forward,
    Back,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Neither,
    Below,
    Pending,
}

/// What becomes of a key: its new value, or none.
pub(crate) type Change<'a> = (&'a Bytes, Option<&'a Bytes>);

/// Changes in the order of their keys, each key once.
pub(crate) trait Changes<'a>: Copy {
    /// The first one between the bounds, of which some key could lie between.
    fn first(self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<Change<'a>>;
    /// The last one.
    fn last(self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<Change<'a>>;
}

impl<'a> Changes<'a> for &'a Pending {
    fn first(self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<Change<'a>> {
        self.range::<[u8], _>((start, end)).next().map(|(key, value)| (key, value.as_ref()))
    }

    fn last(self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<Change<'a>> {
        self.range::<[u8], _>((start, end)).next_back().map(|(key, value)| (key, value.as_ref()))
    }
}

pub(crate) struct Merged<'a, C> {
    below: Box<dyn Cursor + 'a>,
    pending: C,
    erased: &'a Erased,
    range: KeyRange,
    top: Option<Change<'a>>,
    way: Way,
    here: Side,
}

impl<'a, C: Changes<'a>> Merged<'a, C> {
    pub(crate) fn new(
        below: Box<dyn Cursor + 'a>,
        pending: C,
        erased: &'a Erased,
        range: KeyRange,
    ) -> Self {
        Self { below, pending, erased, range, top: None, way: Way::Forward, here: Side::Neither }
    }

    fn top_from(&mut self, start: Bound<&[u8]>) {
        let end = self.range.end.as_ref().map(|key| &key[..]);
        self.top = match KeyRange::bounds_are_empty(start, end) {
            true => None,
            false => self.pending.first(start, end),
        };
    }

    fn top_back_from(&mut self, end: Bound<&[u8]>) {
        let start = self.range.start.as_ref().map(|key| &key[..]);
        self.top = match KeyRange::bounds_are_empty(start, end) {
            true => None,
            false => self.pending.last(start, end),
        };
    }

    fn top_step(&mut self) {
        let Some((key, _)) = self.top else { return };
        match self.way {
            Way::Forward => self.top_from(Bound::Excluded(key)),
            Way::Back => self.top_back_from(Bound::Excluded(key)),
        }
    }

    fn below_step(&mut self) -> Result<()> {
        match self.way {
            Way::Forward => self.below.next(),
            Way::Back => self.below.prev(),
        }
    }

    /// Moves the position below out of erased ranges.
    fn skip_erased(&mut self) -> Result<()> {
        while self.below.valid() {
            let erased = self.erased;
            match self.way {
                Way::Forward => {
                    let Some(end) = erased.end_of_range_with(self.below.key()) else { break };
                    self.below.seek(end)?;
                }
                Way::Back => {
                    let Some(start) = erased.start_of_range_with(self.below.key()) else { break };
                    self.below.seek_for_prev(start)?;
                    if self.below.valid() && self.below.key() == &start[..] {
                        self.below.prev()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Which position comes first on the way; `Equal` when both stand on one key.
    fn first(&self, top: &[u8]) -> Ordering {
        if !self.below.valid() {
            return Ordering::Less;
        }
        let order = top.cmp(self.below.key());
        if self.way == Way::Forward { order } else { order.reverse() }
    }

    /// Chooses the side that the cursor stands on, past everything hidden.
    fn settle(&mut self) -> Result<()> {
        loop {
            self.skip_erased()?;
            let Some((key, value)) = self.top else {
                self.here = if self.below.valid() { Side::Below } else { Side::Neither };
                return Ok(());
            };
            let order = self.first(key);
            if order == Ordering::Greater {
                self.here = Side::Below;
                return Ok(());
            }
            if value.is_some() {
                self.here = Side::Pending;
                return Ok(());
            }
            if order == Ordering::Equal {
                self.below_step()?;
            }
            self.top_step();
        }
    }

    /// Leaves the current key, in the current direction.
    fn step(&mut self) -> Result<()> {
        let leaves_both = match (self.here, self.top) {
            (Side::Pending, Some((key, _))) => self.first(key) == Ordering::Equal,
            _ => false,
        };
        if self.here == Side::Below || leaves_both {
            self.below_step()?;
        }
        if self.here == Side::Pending {
            self.top_step();
        }
        self.settle()
    }

    fn turn(&mut self, way: Way) -> Result<()> {
        if self.way == way {
            return Ok(());
        }
        let key = Bytes::copy_from_slice(self.key());
        match way {
            Way::Forward => self.seek(&key),
            Way::Back => self.seek_for_prev(&key),
        }
    }
}

impl<'a, C: Changes<'a>> Cursor for Merged<'a, C> {
    fn seek_to_first(&mut self) -> Result<()> {
        self.way = Way::Forward;
        self.below.seek_to_first()?;
        let start = self.range.start.clone();
        self.top_from(start.as_ref().map(|key| &key[..]));
        self.settle()
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.way = Way::Back;
        self.below.seek_to_last()?;
        let end = self.range.end.clone();
        self.top_back_from(end.as_ref().map(|key| &key[..]));
        self.settle()
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        if self.range.starts_after(key) {
            return self.seek_to_first();
        }
        self.way = Way::Forward;
        self.below.seek(key)?;
        self.top_from(Bound::Included(key));
        self.settle()
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        if self.range.ends_before(key) {
            return self.seek_to_last();
        }
        self.way = Way::Back;
        self.below.seek_for_prev(key)?;
        self.top_back_from(Bound::Included(key));
        self.settle()
    }

    fn next(&mut self) -> Result<()> {
        if !self.valid() {
            return Ok(());
        }
        self.turn(Way::Forward)?;
        self.step()
    }

    fn prev(&mut self) -> Result<()> {
        if !self.valid() {
            return Ok(());
        }
        self.turn(Way::Back)?;
        self.step()
    }

    fn valid(&self) -> bool {
        self.here != Side::Neither
    }

    fn key(&self) -> &[u8] {
        match (self.here, self.top) {
            (Side::Pending, Some((key, _))) => key,
            _ => self.below.key(),
        }
    }

    fn key_bytes(&self) -> Bytes {
        match (self.here, self.top) {
            (Side::Pending, Some((key, _))) => key.clone(),
            _ => self.below.key_bytes(),
        }
    }

    fn value(&self) -> &[u8] {
        match (self.here, self.top) {
            (Side::Pending, Some((_, Some(value)))) => value,
            _ => self.below.value(),
        }
    }

    fn value_bytes(&self) -> Bytes {
        match (self.here, self.top) {
            (Side::Pending, Some((_, Some(value)))) => value.clone(),
            _ => self.below.value_bytes(),
        }
    }
}
