//! A batch in RocksDB's own encoding, which is also what our log keeps of it.
//!
//! ```text
//! sequence u64 · records u32 · (tag u8 · family varint · length varint · bytes · [length varint · bytes])*
//! ```
//! Numbers are little-endian. RocksDB sets the sequence when it writes the batch. Source of the format:
//! RocksDB's `db/write_batch.cc` and `db/dbformat.h`; it is that of its log, so it does not change.
//!
//! Written here, and not by a call of RocksDB for each record, since the records of a large batch are
//! put in the order of their keys at the same time: RocksDB then finds each record's place next to the
//! last one's, still in the processor's cache. Sorting moves 16 bytes a record.

use super::Families;
use crate::{ColumnId, Operation, Result, WriteBatch};

const HEADER_BYTES: usize = 12;
/// What a record has beside its bytes, at most: tag, family and two lengths.
const RECORD_BYTES: usize = 16;
const DELETE: u8 = 0x4;
const PUT: u8 = 0x5;
const DELETE_RANGE: u8 = 0xe;
/// From this size on a batch is sorted: measured, smaller ones gain nothing.
const SORTED_OPERATIONS: usize = 256;

/// Encodes a checked batch, in order or in an order of the same effect.
pub(super) fn encode(families: &Families, batch: &WriteBatch) -> Result<Vec<u8>> {
    let size = HEADER_BYTES + batch.size_bytes() + batch.len() * RECORD_BYTES;
    let mut encoder = Encoder { families, out: Vec::with_capacity(size), records: 0 };
    encoder.out.resize(HEADER_BYTES, 0);
    match batch.len() >= SORTED_OPERATIONS && !batch.is_wide() {
        true => batch.sorted().try_for_each(|place| encoder.operation(batch.at(place)))?,
        false => batch.operations().try_for_each(|operation| encoder.operation(operation))?,
    }
    encoder.out[8..HEADER_BYTES].copy_from_slice(&encoder.records.to_le_bytes());
    Ok(encoder.out)
}

struct Encoder<'a> {
    families: &'a Families,
    out: Vec<u8>,
    records: u32,
}

impl Encoder<'_> {
    fn operation(&mut self, operation: Operation<'_>) -> Result<()> {
        match operation {
            Operation::Put(column, key, value) => self.record(PUT, column, &[key, value]),
            Operation::Delete(column, key) => self.record(DELETE, column, &[key]),
            // RocksDB refuses a range that ends before it begins; to us it is empty.
            Operation::DeleteRange(_, start, end) if start >= end => Ok(()),
            Operation::DeleteRange(column, start, end) => {
                self.record(DELETE_RANGE, column, &[start, end])
            }
        }
    }

    fn record(&mut self, tag: u8, column: ColumnId, parts: &[&[u8]]) -> Result<()> {
        self.out.push(tag);
        push_varint(&mut self.out, self.families.number(column)?);
        for part in parts {
            push_varint(&mut self.out, u32::try_from(part.len()).expect("sizes are checked"));
            self.out.extend_from_slice(part);
        }
        self.records += 1;
        Ok(())
    }
}

fn push_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The number of a column family, as RocksDB writes it into a batch.
pub(super) fn family_number(batch: &rocksdb::WriteBatch) -> Option<u32> {
    let varint = batch.data().get(HEADER_BYTES + 1..)?;
    let length = varint.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let value = |number: u32, byte: &u8| number << 7 | u32::from(byte & 0x7f);
    Some(varint[..length].iter().rev().fold(0, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Profile, RocksEngine};
    use proptest::{collection::vec, prelude::*};

    fn batch() -> impl Strategy<Value = WriteBatch> {
        let change = (0u32..2, 0..3, vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..300));
        vec(change, 0..40).prop_map(|changes| {
            let mut batch = WriteBatch::new();
            for (column, kind, key, value) in changes {
                match kind {
                    0 => batch.put(ColumnId(column), key, value),
                    1 => batch.delete(ColumnId(column), key),
                    _ => batch.delete_range(ColumnId(column), key, value),
                }
            }
            batch
        })
    }

    fn by_rocksdb<'a>(
        families: &Families,
        operations: impl Iterator<Item = Operation<'a>>,
    ) -> Vec<u8> {
        let mut batch = rocksdb::WriteBatch::default();
        for operation in operations {
            let family = families.get(operation.column()).unwrap();
            match operation {
                Operation::Put(_, key, value) => batch.put_cf(family, key, value),
                Operation::Delete(_, key) => batch.delete_cf(family, key),
                Operation::DeleteRange(_, start, end) if start >= end => {}
                Operation::DeleteRange(_, start, end) => batch.delete_range_cf(family, start, end),
            }
        }
        batch.data().to_vec()
    }

    fn with_families(columns: usize, test: impl FnOnce(&Families)) {
        let dir = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
        for number in 0..columns {
            engine.column(&number.to_string()).unwrap();
        }
        test(&engine.families().unwrap());
    }

    #[test]
    fn a_batch_is_encoded_as_rocksdb_does() {
        with_families(2, |families| {
            proptest!(|(batch in batch())| {
                let expected = by_rocksdb(families, batch.operations());
                prop_assert_eq!(encode(families, &batch).unwrap(), expected);
            });
        });
    }

    #[test]
    fn a_family_has_the_number_that_rocksdb_gave_it_whatever_its_length() {
        with_families(200, |families| {
            for column in (0..200).map(ColumnId) {
                let mut batch = WriteBatch::new();
                batch.put(column, "key", "value");
                let expected = by_rocksdb(families, batch.operations());
                assert_eq!(encode(families, &batch).unwrap(), expected);
            }
        });
    }

    #[test]
    fn a_large_batch_is_in_the_order_of_its_keys_unless_ranges_are_deleted() {
        with_families(1, |families| {
            let mut batch = WriteBatch::new();
            for number in (0..SORTED_OPERATIONS as u32).rev() {
                batch.put(ColumnId(0), number.to_be_bytes(), "value");
            }
            let sorted = batch.sorted().map(|place| batch.at(place));
            assert_eq!(encode(families, &batch).unwrap(), by_rocksdb(families, sorted));
            batch.delete_range(ColumnId(0), "a", "b");
            let expected = by_rocksdb(families, batch.operations());
            assert_eq!(encode(families, &batch).unwrap(), expected);
        });
    }
}
