//! A list of changes that happen together, one after the other in one buffer.
//!
//! ```text
//! (kind u8 · column u32 · length u32 · bytes · [length u32 · bytes])*     numbers little-endian
//! ```
//! A change costs one copy and no allocation; the memory engine's log takes the buffer as it is.

use crate::{ColumnId, Error, Result};
use std::cmp;

/// Longest key: keys are compared, cached and indexed whole. etcd's requests are far smaller.
pub const MAX_KEY_BYTES: usize = 8 << 20;
/// Longest value: a quarter of what RocksDB's format could hold, so that a record with its key and
/// framing never exceeds 32 bits.
pub const MAX_VALUE_BYTES: usize = 1 << 30;
/// Longest batch, with 13 bytes for each change: logs keep lengths in 32 bits.
const MAX_BATCH_BYTES: usize = u32::MAX as usize;

/// What a change takes beside its key and value, at most.
const OVERHEAD_BYTES: usize = 13;
const PUT: u8 = 0;
const DELETE: u8 = 1;
const DELETE_RANGE: u8 = 2;

/// One change of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Sets a key.
    Put(ColumnId, &'a [u8], &'a [u8]),
    /// Removes a key; nothing happens where there is none.
    Delete(ColumnId, &'a [u8]),
    /// Removes every key from the first (in) to the second (out).
    DeleteRange(ColumnId, &'a [u8], &'a [u8]),
}

impl<'a> Operation<'a> {
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
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        match self {
            Self::Put(_, key, _) | Self::Delete(_, key) | Self::DeleteRange(_, key, _) => key,
        }
    }

    /// Takes one change off `bytes`; otherwise says what is wrong with them.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> std::result::Result<Self, &'static str> {
        const CUT: &str = "a change is cut short";
        let (kind, rest) = bytes.split_first().ok_or(CUT)?;
        let (column, rest) = rest.split_first_chunk().ok_or(CUT)?;
        *bytes = rest;
        let column = ColumnId(u32::from_le_bytes(*column));
        let mut part = || -> std::result::Result<&'a [u8], &'static str> {
            let (length, rest) = bytes.split_first_chunk().ok_or(CUT)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (part, rest) = rest.split_at_checked(length).ok_or(CUT)?;
            *bytes = rest;
            Ok(part)
        };
        match *kind {
            PUT => Ok(Self::Put(column, part()?, part()?)),
            DELETE => Ok(Self::Delete(column, part()?)),
            DELETE_RANGE => Ok(Self::DeleteRange(column, part()?, part()?)),
            _ => Err("a change of an unknown kind"),
        }
    }
}

/// Changes that are applied whole or not at all, in order.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    changes: Vec<u8>,
    len: usize,
    size_bytes: usize,
    /// Whether a change may touch many keys.
    wide: bool,
    /// One more than the greatest column's number.
    columns: u32,
    /// The first part that is too large, and is left out: the batch is refused when it is written.
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    what: &'static str,
    size_bytes: usize,
    limit_bytes: usize,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `operations` whose keys and values have `size_bytes` together.
    #[must_use]
    pub fn with_capacity(operations: usize, size_bytes: usize) -> Self {
        let changes = Vec::with_capacity(size_bytes + operations * OVERHEAD_BYTES);
        Self { changes, ..Self::default() }
    }

    /// Sets `key`.
    pub fn put(&mut self, column: ColumnId, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (key.as_ref(), value.as_ref());
        if self.fits("a key", key.len(), MAX_KEY_BYTES)
            && self.fits("a value", value.len(), MAX_VALUE_BYTES)
        {
            self.push(PUT, column, &[key, value]);
        }
    }

    /// Removes `key`.
    pub fn delete(&mut self, column: ColumnId, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        if self.fits("a key", key.len(), MAX_KEY_BYTES) {
            self.push(DELETE, column, &[key]);
        }
    }

    /// Removes every key from `start` (in) to `end` (out).
    pub fn delete_range(
        &mut self,
        column: ColumnId,
        start: impl AsRef<[u8]>,
        end: impl AsRef<[u8]>,
    ) {
        let (start, end) = (start.as_ref(), end.as_ref());
        if self.fits("a key", start.len().max(end.len()), MAX_KEY_BYTES) {
            self.wide = true;
            self.push(DELETE_RANGE, column, &[start, end]);
        }
    }

    fn push(&mut self, kind: u8, column: ColumnId, parts: &[&[u8]]) {
        self.changes.reserve(OVERHEAD_BYTES + parts.iter().map(|part| part.len()).sum::<usize>());
        self.changes.push(kind);
        self.changes.extend_from_slice(&column.0.to_le_bytes());
        for part in parts {
            let length = u32::try_from(part.len()).expect("keys and values are limited");
            self.changes.extend_from_slice(&length.to_le_bytes());
            self.changes.extend_from_slice(part);
            self.size_bytes += part.len();
        }
        self.len += 1;
        self.columns = self.columns.max(column.0.saturating_add(1));
    }

    fn fits(&mut self, what: &'static str, size_bytes: usize, limit_bytes: usize) -> bool {
        let fits = size_bytes <= limit_bytes;
        if !fits && self.refused.is_none() {
            self.refused = Some(Refused { what, size_bytes, limit_bytes });
        }
        fits
    }

    /// The changes, in order.
    pub fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        self.places().map(|(_, operation)| operation)
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Refuses what is too large, and columns beyond the first `columns`. After this, the batch can
    /// be applied.
    pub(crate) fn check(&self, columns: usize) -> Result<()> {
        let too_large = |Refused { what, size_bytes, limit_bytes }| {
            Err(Error::TooLarge { what, size_bytes, limit_bytes })
        };
        self.refused.map_or(Ok(()), too_large)?;
        if self.changes.len() > MAX_BATCH_BYTES {
            let (what, size_bytes) = ("a batch", self.changes.len());
            return too_large(Refused { what, size_bytes, limit_bytes: MAX_BATCH_BYTES });
        }
        match self.columns as usize <= columns {
            true => Ok(()),
            false => Err(Error::UnknownColumn(self.columns - 1)),
        }
    }

    /// Whether a range is deleted, which may touch many keys.
    pub(crate) fn is_wide(&self) -> bool {
        self.wide
    }

    /// The buffer; see the module.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.changes
    }

    pub(crate) fn into_encoded(self) -> Vec<u8> {
        self.changes
    }

    /// The changes with their places in the buffer.
    fn places(&self) -> impl Iterator<Item = (usize, Operation<'_>)> {
        let mut rest = &self.changes[..];
        std::iter::from_fn(move || {
            let place = self.changes.len() - rest.len();
            (!rest.is_empty()).then(|| (place, taken(&mut rest)))
        })
    }

    /// The change at a place in the buffer.
    pub(crate) fn at(&self, place: u32) -> Operation<'_> {
        taken(&mut &self.changes[place as usize..])
    }

    /// The places of the changes in the order of columns and keys; the changes of one key keep theirs.
    /// Checked, and without ranges, which other changes must not move across.
    ///
    /// Sixteen bytes a change are moved: of its key, the first eight that are not the same in all.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = u32> + use<> {
        let common = self.common_bytes();
        let sorted = |(place, operation): (usize, Operation<'_>)| Sorted {
            beginning: beginning(&operation.key()[common..]),
            column: operation.column().0,
            place: u32::try_from(place).expect("batches are limited"),
        };
        let mut order: Vec<Sorted> = Vec::with_capacity(self.len);
        order.extend(self.places().map(sorted));
        order.sort_unstable_by(|a, b| {
            let of_beginnings = (a.column, a.beginning).cmp(&(b.column, b.beginning));
            of_beginnings.then_with(|| match self.at(a.place).key().cmp(self.at(b.place).key()) {
                cmp::Ordering::Equal => a.place.cmp(&b.place),
                different => different,
            })
        });
        order.into_iter().map(|sorted| sorted.place)
    }

    /// How many bytes all keys begin with alike.
    fn common_bytes(&self) -> usize {
        let first = self.operations().next().map_or(&[][..], |operation| operation.key());
        self.operations().fold(first.len(), |common, operation| {
            first[..common].iter().zip(operation.key()).take_while(|(a, b)| a == b).count()
        })
    }
}

fn taken<'a>(bytes: &mut &'a [u8]) -> Operation<'a> {
    Operation::take(bytes).expect("what a batch wrote, it can read")
}

struct Sorted {
    beginning: u64,
    column: u32,
    place: u32,
}

/// The first eight bytes as a number of the same order; zeros stand for what is missing.
fn beginning(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    let length = bytes.len().min(number.len());
    number[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[test]
    fn changes_come_back_in_order_and_are_counted() {
        let (one, two) = (ColumnId(1), ColumnId(2));
        let mut batch = WriteBatch::with_capacity(3, 20);
        let room = batch.changes.capacity();
        batch.put(one, "key", "");
        batch.delete(two, b"other");
        batch.delete_range(one, "a", vec![0xff; 3]);
        let expected = [
            Operation::Put(one, b"key", b""),
            Operation::Delete(two, b"other"),
            Operation::DeleteRange(one, b"a", &[0xff; 3]),
        ];
        assert_eq!(batch.operations().collect::<Vec<_>>(), expected);
        assert_eq!((batch.len(), batch.size_bytes()), (3, 3 + 5 + 4));
        assert_eq!(batch.changes.capacity(), room, "there was room");
        assert!(batch.check(3).is_ok() && batch.is_wide());
        assert!(matches!(batch.check(2), Err(Error::UnknownColumn(2))));
    }

    #[test]
    fn a_part_that_is_too_large_is_refused_and_costs_nothing() {
        let mut batch = WriteBatch::new();
        batch.put(ColumnId(0), vec![0; MAX_KEY_BYTES + 1], "value");
        batch.delete(ColumnId(0), vec![0; MAX_KEY_BYTES + 2]);
        assert!(batch.is_empty() && batch.changes.is_empty());
        match batch.check(1) {
            Err(Error::TooLarge { what: "a key", size_bytes, limit_bytes: MAX_KEY_BYTES }) => {
                assert_eq!(size_bytes, MAX_KEY_BYTES + 1);
            }
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        /// Keys of several lengths, with common beginnings, many of them equal.
        #[test]
        fn sorting_is_by_column_and_key_and_keeps_the_order_of_one_keys_changes(
            changes in vec((0u32..3, vec(0u8..3, 0..12), any::<bool>()), 0..60),
            beginning in vec(0u8..3, 0..3),
        ) {
            let mut batch = WriteBatch::new();
            for (column, key, put) in &changes {
                let key = [&beginning[..], key].concat();
                match put {
                    true => batch.put(ColumnId(*column), key, "value"),
                    false => batch.delete(ColumnId(*column), key),
                }
            }
            let sorted: Vec<_> = batch.sorted().map(|place| batch.at(place)).collect();
            let mut expected: Vec<_> = batch.operations().collect();
            expected.sort_by_key(|operation| (operation.column(), operation.key()));
            prop_assert_eq!(sorted, expected);
        }

        /// What a log holds may be anything.
        #[test]
        fn any_bytes_are_changes_or_refused(bytes in vec(0u8..4, 0..80)) {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let before = rest.len();
                if Operation::take(&mut rest).is_err() {
                    break;
                }
                prop_assert!(rest.len() < before);
            }
        }
    }
}
